/* Texts and muted words. The first line is a word, the rest a text.
 *
 * A word that can be muted is found in a text that is that word, alone and between spaces, in any case; the
 * hashes of a text are ascending and within their cap; what is not UTF-8 has no words.
 */
#include "tests/fuzz/fuzz.h"

#include "common/names.h"
#include "common/text.h"

static bool has(const char *text, size_t n, uint64_t hash)
{
    struct word_set s;
    text_words(text, n, &s);
    bool found = word_set_has(&s, hash);
    word_set_done(&s);
    return found;
}

/* A word as the API takes it: a name. */
static void check_word(const char *word)
{
    struct err e;
    uint64_t hash, again;
    size_t n = strlen(word);
    if (names_check(word, n, &e) != 0 || text_word_hash(word, &hash) != 0)
        return;
    assert(text_word_hash(word, &again) == 0 && again == hash);
    char *text = mem_printf("see  %s, and more", word);
    assert(has(word, n, hash));
    assert(has(text, strlen(text), hash));
    free(text);
}

static void check_text(const char *text, size_t n)
{
    struct word_set s;
    char *exact = mem_alloc(n); /* without a NUL behind it */
    memcpy(exact, text, n);
    text_words(exact, n, &s);
    assert(s.n <= TEXT_WORDS_MAX && (s.n == 0) == (s.hashes == NULL));
    for (size_t i = 0; i < s.n; i++) {
        assert(i == 0 || s.hashes[i - 1] < s.hashes[i]);
        assert(word_set_has(&s, s.hashes[i]));
    }
    assert(s.cut || n <= TEXT_BYTES_MAX);
    if (n <= TEXT_BYTES_MAX && !utf8_valid(text, n) && memchr(text, '\0', n) == NULL)
        assert(s.n == 0);
    word_set_done(&s);
    free(exact);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_text text = fuzz_text(data, size), rest = text;
    check_text(text.p, text.n);
    const char *word = fuzz_line(&rest);
    check_word(word);
    free(text.p);
    return 0;
}
