#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "common/names.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

static void expect_name(const char *s, const char *reason)
{
    struct err e = {ERR_NONE, ""};
    int rc = names_check(s, strlen(s), &e);
    if (reason == NULL && rc != 0)
        fail_msg("\"%s\" was refused: %s", s, e.msg);
    if (reason != NULL && rc == 0)
        fail_msg("\"%s\" was taken", s);
    if (reason != NULL) {
        assert_int_equal(e.code, ERR_INVALID);
        assert_non_null(strstr(e.msg, reason));
    }
}

static void names_of_any_script_are_taken(void **state)
{
    (void)state;
    static const char *const good[] = {
        "a",
        "daily-news",
        "user:42",
        "a.b_c@d",
        "!\"#$%&'()*+,;<=>?[\\]^`|~",
        "\xc3\xa9t\xc3\xa9",
        "\xe6\x97\xa5\xe6\x9c\xac",
        "\xf0\x9f\x98\x80",
        "\xe2\x80\x8b" /* zero width space is not White_Space */,
    };
    for (size_t i = 0; i < COUNT(good); i++)
        expect_name(good[i], NULL);
}

static void white_space_of_unicode_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "a b",          " a",           "a\t",          "a\n",          "a\x0b",        "a\x0c",
        "a\r",          "a\xc2\x85",    "a\xc2\xa0z",   "\xe1\x9a\x80", "\xe2\x80\x80", "\xe2\x80\x8a",
        "\xe2\x80\xa8", "\xe2\x80\xa9", "\xe2\x80\xaf", "\xe2\x81\x9f", "\xe3\x80\x80",
    };
    for (size_t i = 0; i < COUNT(bad); i++)
        expect_name(bad[i], "white space");
}

static void control_characters_and_key_separators_are_refused(void **state)
{
    (void)state;
    expect_name("a\x01", "control");
    expect_name("\x7f", "control");
    expect_name("\xc2\x80", "control");
    expect_name("\xc2\x9f", "control");
    expect_name("a/b", "'/'");
    expect_name("{a", "'{'");
    expect_name("a}", "'}'");
    assert_int_equal(names_check("a\0b", 3, NULL), -1);
}

static void a_name_has_one_to_sixty_four_bytes(void **state)
{
    (void)state;
    char name[66];
    memset(name, 'x', sizeof name);
    struct err e;
    assert_int_equal(names_check(name, 0, &e), -1);
    assert_non_null(strstr(e.msg, "empty"));
    assert_int_equal(names_check(name, 64, &e), 0);
    assert_int_equal(names_check(name, 65, &e), -1);
    assert_non_null(strstr(e.msg, "64"));
}

static void a_character_cut_at_the_end_of_the_bytes_is_not_read_beyond(void **state)
{
    (void)state;
    const char *s = "a\xe6\x97\xa5"; /* the third byte of the character is there, but not ours */
    struct err e;
    assert_int_equal(names_check(s, 3, &e), -1);
    assert_non_null(strstr(e.msg, "UTF-8"));
    assert_int_equal(names_check(s, 4, &e), 0);
}

static void well_formed_utf8_is_told_from_the_rest(void **state)
{
    (void)state;
    static const char *const good[] = {
        "",
        "abc",
        "\x7f",
        "\xc2\x80",
        "\xdf\xbf",
        "\xe0\xa0\x80",
        "\xed\x9f\xbf",
        "\xee\x80\x80",
        "\xef\xbf\xbf",
        "\xf0\x90\x80\x80",
        "\xf4\x8f\xbf\xbf",
    };
    static const char *const bad[] = {
        "\x80",
        "\xbf",
        "\xc0\x80",
        "\xc1\xbf",
        "\xc2",
        "\xc2z",
        "\xe0\x9f\xbf",
        "\xed\xa0\x80",
        "\xed\xbf\xbf",
        "\xe6\x97",
        "\xe6z\x80",
        "\xf0\x8f\xbf\xbf",
        "\xf4\x90\x80\x80",
        "\xf5\x80\x80\x80",
        "\xff",
        "\xfe",
        "\xf0\x9f\x98",
        "a\xc3",
        "\xf8\x88\x80\x80\x80",
    };
    for (size_t i = 0; i < COUNT(good); i++)
        assert_true(utf8_valid(good[i], strlen(good[i])));
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_false(utf8_valid(bad[i], strlen(bad[i])));
    assert_false(utf8_valid("a\0b", 3));
}

static void kinds_read_back_from_their_names(void **state)
{
    (void)state;
    static const char *const names[] = {"publisher", "topic", "item", "word"};
    for (int k = TARGET_PUBLISHER; k <= TARGET_WORD; k++) {
        enum target_kind back;
        assert_string_equal(target_kind_name(k), names[k]);
        assert_int_equal(target_kind_letter(k), names[k][0]);
        assert_int_equal(target_kind_parse(names[k], &back), 0);
        assert_int_equal(back, k);
    }
    enum target_kind kind = TARGET_ITEM;
    assert_int_equal(target_kind_parse("Topic", &kind), -1);
    assert_int_equal(target_kind_parse("", &kind), -1);
    assert_int_equal(kind, TARGET_ITEM);
}

static void targets_read_back_from_their_text(void **state)
{
    (void)state;
    char name[NAME_MAX_BYTES + 1];
    memset(name, 'n', NAME_MAX_BYTES);
    name[NAME_MAX_BYTES] = '\0';
    const char *const names[] = {"a", "p:x", ":", name};
    for (size_t i = 0; i < COUNT(names); i++) {
        char text[TARGET_TEXT_SIZE];
        enum target_kind k;
        const char *back;
        target_format(TARGET_TOPIC, names[i], text);
        assert_memory_equal(text, "t:", 2);
        assert_int_equal(target_split(text, &k, &back, NULL), 0);
        assert_int_equal(k, TARGET_TOPIC);
        assert_string_equal(back, names[i]);
        assert_ptr_equal(back, text + 2);
    }
}

static void what_is_no_target_is_corrupt(void **state)
{
    (void)state;
    char longer[NAME_MAX_BYTES + 4];
    memset(longer, 'n', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    memcpy(longer, "p:", 2);
    const char *const bad[] = {"", "p", "p:", "x:a", "pa", "P:a", ":a", longer};
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct err e = {ERR_NONE, ""};
        enum target_kind k = TARGET_ITEM;
        const char *name = "kept";
        assert_int_equal(target_split(bad[i], &k, &name, &e), -1);
        assert_int_equal(e.code, ERR_CORRUPT);
        assert_int_equal(k, TARGET_ITEM);
        assert_string_equal(name, "kept");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_of_any_script_are_taken),
        cmocka_unit_test(white_space_of_unicode_is_refused),
        cmocka_unit_test(control_characters_and_key_separators_are_refused),
        cmocka_unit_test(a_name_has_one_to_sixty_four_bytes),
        cmocka_unit_test(a_character_cut_at_the_end_of_the_bytes_is_not_read_beyond),
        cmocka_unit_test(well_formed_utf8_is_told_from_the_rest),
        cmocka_unit_test(kinds_read_back_from_their_names),
        cmocka_unit_test(targets_read_back_from_their_text),
        cmocka_unit_test(what_is_no_target_is_corrupt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
