#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"

static bool has(const char *text, const char *word)
{
    struct word_set s;
    uint64_t hash;
    assert_int_equal(text_word_hash(word, &hash), 0);
    text_words(text, strlen(text), &s);
    bool found = word_set_has(&s, hash);
    for (size_t i = 1; i < s.n; i++)
        assert_true(s.hashes[i - 1] < s.hashes[i]);
    word_set_done(&s);
    return found;
}

static void hides(const char *text, const char *word)
{
    if (!has(text, word))
        fail_msg("\"%s\" is not found in \"%s\"", word, text);
}

static void keeps(const char *text, const char *word)
{
    if (has(text, word))
        fail_msg("\"%s\" is found in \"%s\"", word, text);
}

static void only_whole_words_are_found(void **state)
{
    (void)state;
    hides("The cat sat", "cat");
    hides("cat", "cat");
    keeps("concatenate", "cat");
    keeps("cats and scat", "cat");
    keeps("cat5 and 4cat", "cat");
    keeps("cat_food", "cat");
    keeps("", "cat");
    keeps(" \n ", "cat");
    hides("about cat_food", "cat_food");
}

static void case_does_not_matter_on_either_side(void **state)
{
    (void)state;
    hides("A CAT!", "cat");
    hides("a cat", "CaT");
    hides("\xc3\x89T\xc3\x89", "\xc3\xa9t\xc3\xa9"); /* ETE with accents */
    hides("\xd0\x9c\xd0\x9e\xd0\xa1\xd0\x9a\xd0\x92\xd0\x90",
          "\xd0\xbc\xd0\xbe\xd1\x81\xd0\xba\xd0\xb2\xd0\xb0"); /* Moscow */
}

static void punctuation_around_a_word_does_not_hide_it(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "(cat)",
        "\"cat\"",
        "cat.",
        "cat,dog",
        "cat/dog",
        "dog-cat",
        "**cat**",
        "_cat_",
        "'cat'",
        "#cat",
        "@cat",
        "cat\xe2\x80\x94"
        "dog",
        "\xe2\x80\x9c"
        "cat\xe2\x80\x9d",
        "cat\xe2\x80\xa6",
        "\xc2\xbf"
        "cat?",
        "<cat>",
        "dog\tcat\ndog",
        "dog\xc2\xa0"
        "cat",
        "dog\xe3\x80\x80"
        "cat",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        hides(texts[i], "cat");
}

static void an_apostrophe_belongs_to_the_word_and_its_base_is_found_too(void **state)
{
    (void)state;
    hides("I don't know", "don't");
    hides("I don\xe2\x80\x99t know", "don't"); /* the printed apostrophe */
    hides("I don't know", "don\xe2\x80\x99t");
    keeps("I don't know", "don");
    keeps("I don't know", "t");
    hides("the cat's tail", "cat");
    hides("the cat\xe2\x80\x99s tail", "cat");
    hides("l'avion part", "avion");
    keeps("I'll go", "ll");
    hides("the cats' tails", "cats");
    hides("rock'n'roll", "rock'n'roll");
}

static void words_with_signs_in_them_are_found_whole(void **state)
{
    (void)state;
    hides("Send an e-mail, please", "e-mail");
    hides("(E-Mail)", "e-mail");
    hides("learn C++ today", "c++");
    keeps("vitamin c today", "c++");
    hides("learn C#.", "c#");
    keeps("vitamin C", "C#");
    hides("about #AI now", "#ai");
    keeps("about AI now", "#ai");
    hides("about #AI now", "ai");
    hides("50% off", "50%");
    hides("at example.org, they", "example.org");
}

static void german_sharp_s_is_two(void **state)
{
    (void)state;
    hides("Die STRASSE", "stra\xc3\x9f"
                         "e");
    hides("Die Stra\xc3\x9f"
          "e",
          "STRASSE");
    hides("Die STRA\xe1\xba\x9e"
          "E",
          "strasse"); /* the capital one */
    hides("\xc3\x9c"
          "ber",
          "\xc3\xbc"
          "ber");
    keeps("uber", "\xc3\xbc"
                  "ber");
}

static void greek_finds_its_final_sigma_and_its_capitals_without_accent(void **state)
{
    (void)state;
    /* odos: capitals; small with final sigma and accent */
    hides("\xce\x9f\xce\x94\xce\x9f\xce\xa3", "\xce\xbf\xce\xb4\xcf\x8c\xcf\x82");
    hides("\xce\xbf\xce\xb4\xcf\x8c\xcf\x82", "\xce\x9f\xce\x94\xce\x9f\xce\xa3");
    /* Athina, accented capital A at the front */
    hides("\xce\x91\xce\x98\xce\x97\xce\x9d\xce\x91", "\xce\x91\xce\xb8\xce\xae\xce\xbd\xce\xb1");
    keeps("\xce\xbf\xce\xb4\xce\xbf\xce\xb9", "\xce\xbf\xce\xb4\xcf\x8c\xcf\x82");
}

static void turkish_dotted_and_dotless_i_are_one_letter(void **state)
{
    (void)state;
    hides("\xc4\xb0STANBUL", "istanbul"); /* dotted capital */
    hides("\xc4\xb0stanbul'da", "istanbul'da");
    hides("istanbul", "\xc4\xb0stanbul");
    hides("ISPARTA", "\xc4\xb1sparta"); /* dotless small */
    hides("\xc4\xb1sparta", "Isparta");
    hides("I\xcc\x87stanbul", "istanbul"); /* decomposed */
    hides("TITLE", "title");               /* English is not harmed */
}

static void combining_marks_and_composed_letters_are_the_same(void **state)
{
    (void)state;
    hides("caf\xc3\xa9", "cafe\xcc\x81");
    hides("cafe\xcc\x81", "caf\xc3\xa9");
    keeps("cafe", "caf\xc3\xa9");
    keeps("caf\xc3\xa9", "caf"); /* a mark does not end a word */
    hides("\xe0\xa4\xb9\xe0\xa4\xbf\xe0\xa4\xa8\xe0\xa5\x8d\xe0\xa4\xa6\xe0\xa5\x80",
          "\xe0\xa4\xb9\xe0\xa4\xbf\xe0\xa4\xa8\xe0\xa5\x8d\xe0\xa4\xa6\xe0\xa5\x80"); /* Hindi, with vowel
                                                                                          signs */
    keeps("\xe0\xa4\xb9\xe0\xa4\xbf\xe0\xa4\xa8\xe0\xa5\x8d\xe0\xa4\xa6\xe0\xa5\x80", "\xe0\xa4\xb9");
}

static void invisible_characters_and_other_widths_do_not_help_a_word_through(void **state)
{
    (void)state;
    hides("c\xc2\xad"
          "a\xe2\x80\x8bt",
          "cat");                                         /* soft hyphen, zero width space */
    hides("\xef\xbd\x83\xef\xbd\x81\xef\xbd\x94", "cat"); /* full width */
    hides("\xef\xac\x81sh", "fish");                      /* a ligature */
}

static void chinese_and_japanese_words_are_found_without_spaces(void **state)
{
    (void)state;
    const char *tokyo_tower =
        "\xe6\x9d\xb1\xe4\xba\xac\xe3\x82\xbf\xe3\x83\xaf\xe3\x83\xbc\xe3\x81\xab\xe8\xa1\x8c\xe3\x81\x8f";
    hides(tokyo_tower, "\xe6\x9d\xb1\xe4\xba\xac"); /* Tokyo */
    hides(tokyo_tower,
          "\xe6\x9d\xb1\xe4\xba\xac\xe3\x82\xbf\xe3\x83\xaf\xe3\x83\xbc"); /* Tokyo Tower, five characters */
    hides(tokyo_tower, "\xe3\x82\xbf\xe3\x83\xaf\xe3\x83\xbc");            /* tower */
    keeps(tokyo_tower, "\xe4\xba\xac\xe9\x83\xbd");                        /* Kyoto */
    hides(tokyo_tower, "\xe8\xa1\x8c");                                    /* one character */
    /* Tokyo-to is not in "Tokyo and Kyoto" */
    keeps("\xe6\x9d\xb1\xe4\xba\xac\xe3\x81\xa8\xe4\xba\xac\xe9\x83\xbd",
          "\xe6\x9d\xb1\xe4\xba\xac\xe9\x83\xbd");
    hides("\xef\xbe\x80\xef\xbe\x9c\xef\xbd\xb0", "\xe3\x82\xbf\xe3\x83\xaf\xe3\x83\xbc"); /* half width */
    hides("iPhone\xe3\x82\x92\xe8\xb2\xb7\xe3\x81\x86", "iphone");                         /* Latin within */
    hides("\xe6\x96\xb0\xe3\x81\x97\xe3\x81\x84T\xe3\x82\xb7\xe3\x83\xa3\xe3\x83\x84\xe3\x82\x92",
          "T\xe3\x82\xb7\xe3\x83\xa3\xe3\x83\x84");
}

static void thai_is_found_without_spaces_and_korean_with(void **state)
{
    (void)state;
    hides("\xe0\xb8\xa3\xe0\xb8\xb1\xe0\xb8\x81\xe0\xb9\x81\xe0\xb8\xa1\xe0\xb8\xa7",
          "\xe0\xb9\x81\xe0\xb8\xa1\xe0\xb8\xa7"); /* cat */
    hides("\xed\x95\x9c\xea\xb5\xad \xec\x84\x9c\xec\x9a\xb8", "\xec\x84\x9c\xec\x9a\xb8");
    keeps("\xed\x95\x9c\xea\xb5\xad\xec\x84\x9c\xec\x9a\xb8", "\xec\x84\x9c\xec\x9a\xb8");
}

static void an_emoji_is_a_word_of_its_own(void **state)
{
    (void)state;
    hides("lol\xf0\x9f\x98\x80\xf0\x9f\x98\x80!", "\xf0\x9f\x98\x80");
    keeps("lol\xf0\x9f\x98\x81", "\xf0\x9f\x98\x80");
    hides("I \xe2\x9d\xa4\xef\xb8\x8f it", "\xe2\x9d\xa4"); /* with its variation selector */
}

static void a_muted_word_of_nothing_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "...", "--", "'", "_", "\xc2\xad", "\xff", "a\xc3"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        uint64_t hash = 42;
        assert_int_equal(text_word_hash(bad[i], &hash), -1);
        assert_true(hash == 42);
    }
}

static void a_text_that_is_not_utf8_has_no_words(void **state)
{
    (void)state;
    struct word_set s;
    text_words("cat \xff", 5, &s);
    assert_int_equal(s.n, 0);
    assert_null(s.hashes);
    word_set_done(&s);
}

static void repeated_words_are_kept_once(void **state)
{
    (void)state;
    struct word_set s;
    text_words("a b a b a b", 11, &s);
    assert_int_equal(s.n, 2);
    assert_false(s.cut);
    word_set_done(&s);
    assert_null(s.hashes);
    assert_false(word_set_has(&s, 0));
}

static void an_endless_text_is_cut_and_says_so(void **state)
{
    (void)state;
    size_t n = TEXT_BYTES_MAX + 100;
    char *text = malloc(n + 1);
    size_t len = 0;
    for (int i = 0; len + 12 < n; i++)
        len += (size_t)sprintf(text + len, "w%d ", i);
    struct word_set s;
    text_words(text, len, &s);
    assert_true(s.cut);
    assert_int_equal(s.n, TEXT_WORDS_MAX);
    uint64_t first, last;
    assert_int_equal(text_word_hash("w0", &first), 0);
    assert_int_equal(text_word_hash("w16390", &last), 0);
    assert_true(word_set_has(&s, first));
    assert_false(word_set_has(&s, last));
    word_set_done(&s);
    for (size_t shift = 0; shift < 3; shift++) { /* the end lies within a character */
        memset(text, ' ', n);
        for (size_t i = n - 200 + shift; i + 3 <= n; i += 3)
            memcpy(text + i, "\xe6\x97\xa5", 3);
        size_t whole = n - 200 + shift + (200 - shift) / 3 * 3;
        text_words(text, whole, &s);
        assert_true(s.cut);
        assert_true(s.n > 0);
        word_set_done(&s);
    }
    free(text);
}

/* What a fuzzer found: such a character is folded to a space and something, and a word with a space is in no
 * text. */
static void characters_that_fold_to_a_space_and_more_are_found(void **state)
{
    (void)state;
    static const char *const words[] = {"\xc2\xa8"
                                        "a", /* a spacing diaeresis */
                                        "a\xe2\x80\xbe"
                                        "b",             /* an overline */
                                        "\xef\xb7\xba"}; /* an Arabic ligature of four words */
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        char text[64];
        snprintf(text, sizeof text, "see %s, and more", words[i]);
        hides(words[i], words[i]);
        hides(text, words[i]);
    }
    hides("the cat\xc2\xb4s tail", "cat"); /* an acute accent for an apostrophe */
    hides("the\xc2\xa0"
          "cat\xe3\x80\x80sat",
          "cat"); /* other white space parts words as before */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_whole_words_are_found),
        cmocka_unit_test(case_does_not_matter_on_either_side),
        cmocka_unit_test(punctuation_around_a_word_does_not_hide_it),
        cmocka_unit_test(an_apostrophe_belongs_to_the_word_and_its_base_is_found_too),
        cmocka_unit_test(words_with_signs_in_them_are_found_whole),
        cmocka_unit_test(german_sharp_s_is_two),
        cmocka_unit_test(greek_finds_its_final_sigma_and_its_capitals_without_accent),
        cmocka_unit_test(turkish_dotted_and_dotless_i_are_one_letter),
        cmocka_unit_test(combining_marks_and_composed_letters_are_the_same),
        cmocka_unit_test(invisible_characters_and_other_widths_do_not_help_a_word_through),
        cmocka_unit_test(chinese_and_japanese_words_are_found_without_spaces),
        cmocka_unit_test(thai_is_found_without_spaces_and_korean_with),
        cmocka_unit_test(an_emoji_is_a_word_of_its_own),
        cmocka_unit_test(a_muted_word_of_nothing_is_refused),
        cmocka_unit_test(a_text_that_is_not_utf8_has_no_words),
        cmocka_unit_test(repeated_words_are_kept_once),
        cmocka_unit_test(an_endless_text_is_cut_and_says_so),
        cmocka_unit_test(characters_that_fold_to_a_space_and_more_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
