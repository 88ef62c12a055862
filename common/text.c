#include "common/text.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "common/mem.h"

#define CHUNK_MAX 64 /* characters of what stands between white space: no muted word is longer */
#define GRAM_MAX  4

/* What a character is to a word. */
enum char_kind { KIND_OTHER, KIND_SPACE, KIND_EDGE, KIND_JOINER, KIND_SYMBOL, KIND_WORD, KIND_SPACELESS };

/* A text, folded, as code points with their kinds. */
struct folded {
    uint32_t *chars;
    uint8_t *kinds;
    size_t n;
};

/* Scripts that are written without spaces between words. */
static bool is_spaceless(uint32_t c)
{
    static const uint32_t ranges[][2] = {
        {0x0e01, 0x0e4e},   {0x0e81, 0x0ecd},
        {0x1000, 0x103f},   {0x1780, 0x17d3}, /* Thai, Lao, Burmese, Khmer */
        {0x3005, 0x3007},   {0x3041, 0x30ff},
        {0x31f0, 0x31ff},   {0x3400, 0x4dbf}, /* kana, Han */
        {0x4e00, 0x9fff},   {0xf900, 0xfaff},
        {0x1b000, 0x1b16f}, {0x20000, 0x3ffff},
    };
    for (size_t i = 0; c >= ranges[0][0] && i < MEM_COUNT(ranges); i++) {
        if (c >= ranges[i][0] && c <= ranges[i][1])
            return true;
    }
    return false;
}

static enum char_kind kind_of(uint32_t c)
{
    if (c == '\'')
        return KIND_JOINER;
    if (c < 0x80 && strchr("#@&%*", (int)c) != NULL && c != 0)
        return KIND_OTHER; /* of "#ai" and "50%" these are part, at the edges too */
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
        return is_spaceless(c) ? KIND_SPACELESS : KIND_WORD;
    case UTF8PROC_CATEGORY_PC:
        return KIND_JOINER;
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO:
        return KIND_EDGE;
    case UTF8PROC_CATEGORY_SO:
        return KIND_SYMBOL;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_CC:
        return KIND_SPACE;
    default:
        return KIND_OTHER;
    }
}

/* ---- folding ---- */

/* White space becomes a line feed, so that a space after folding is known to come from inside of a character:
 * the spacing accents and some ligatures are folded to several characters with spaces among them. */
static utf8proc_int32_t before_folding(utf8proc_int32_t c, void *arg)
{
    (void)arg;
    if (c == 0x131)
        return 'i'; /* dotless i; the dotted capital folds to i and a dot, see after_folding() */
    if (c == 0xb4)
        return '\''; /* typed for an apostrophe */
    if (c == ' ')
        return '\n';
    return c > 0x7f && kind_of((uint32_t)c) == KIND_SPACE ? '\n' : c;
}

/* Answers 0 for a character to be dropped. */
static uint32_t after_folding(uint32_t c, uint32_t before)
{
    static const uint16_t tonos[][2] = {{0x3ac, 0x3b1}, {0x3ad, 0x3b5}, {0x3ae, 0x3b7},
                                        {0x3af, 0x3b9}, {0x3cc, 0x3bf}, {0x3cd, 0x3c5},
                                        {0x3ce, 0x3c9}, {0x390, 0x3ca}, {0x3b0, 0x3cb}};
    if (c == ' ' || (c == 0x307 && before == 'i'))
        return 0;
    if (c == 0x2019 || c == 0x2bc) /* the printed apostrophe, the modifier letter */
        return '\'';
    for (size_t i = 0; c >= 0x390 && c <= 0x3ce && i < MEM_COUNT(tonos); i++) {
        if (tonos[i][0] == c)
            return tonos[i][1];
    }
    return c;
}

static void folded_done(struct folded *f)
{
    free(f->chars);
    free(f->kinds);
}

/* Answers false, and nothing to free, for what is not UTF-8. */
static bool fold(const char *utf8, size_t n, struct folded *f)
{
    utf8proc_uint8_t *text;
    utf8proc_ssize_t len = utf8proc_map_custom((const utf8proc_uint8_t *)utf8, (utf8proc_ssize_t)n, &text,
                                               UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT |
                                                   UTF8PROC_CASEFOLD | UTF8PROC_IGNORE,
                                               before_folding, NULL);
    assert(len != UTF8PROC_ERROR_NOMEM);
    if (len < 0)
        return false;
    f->n = 0;
    f->chars = mem_alloc((size_t)len * sizeof *f->chars);
    f->kinds = mem_alloc((size_t)len);
    for (utf8proc_ssize_t i = 0; i < len;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t took = utf8proc_iterate(text + i, len - i, &c);
        if (took <= 0)
            break;
        i += took;
        uint32_t after = after_folding((uint32_t)c, f->n > 0 ? f->chars[f->n - 1] : 0);
        if (after != 0) {
            f->chars[f->n] = after;
            f->kinds[f->n++] = (uint8_t)kind_of(after);
        }
    }
    free(text);
    return true;
}

/* ---- hashing ---- */

/* FNV-1a over code points, and a last mix (that of SplitMix64) to spread short words over all bits. */
#define HASH_START UINT64_C(0xcbf29ce484222325)

static uint64_t hash_step(uint64_t h, uint32_t c)
{
    return (h ^ c) * UINT64_C(0x100000001b3);
}

static uint64_t hash_end(uint64_t h)
{
    h = (h ^ (h >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    h = (h ^ (h >> 27)) * UINT64_C(0x94d049bb133111eb);
    return h ^ (h >> 31);
}

static uint64_t hash_chars(const uint32_t *chars, size_t n)
{
    uint64_t h = HASH_START;
    for (size_t i = 0; i < n; i++)
        h = hash_step(h, chars[i]);
    return hash_end(h);
}

static void set_add(struct word_set *s, size_t *cap, uint64_t h)
{
    if (s->n > 0 && s->hashes[s->n - 1] == h)
        return; /* most often a word that is also all between two spaces */
    if (s->n == TEXT_WORDS_MAX) {
        s->cut = true;
        return;
    }
    if (s->n == *cap) {
        *cap = *cap != 0 ? *cap * 2 : 64;
        s->hashes = mem_grow(s->hashes, *cap, sizeof *s->hashes);
    }
    s->hashes[s->n++] = h;
}

static int compare_hashes(const void *a, const void *b)
{
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return x < y ? -1 : x > y;
}

static void set_sort(struct word_set *s)
{
    if (s->n == 0)
        return;
    qsort(s->hashes, s->n, sizeof *s->hashes, compare_hashes);
    size_t kept = 1;
    for (size_t i = 1; i < s->n; i++) {
        if (s->hashes[i] != s->hashes[kept - 1])
            s->hashes[kept++] = s->hashes[i];
    }
    s->n = kept;
    s->hashes = mem_grow(s->hashes, s->n, sizeof *s->hashes);
}

/* ---- words ---- */

/* Cuts punctuation and joiners off both ends of [*from, *to). */
static void trim(const struct folded *f, size_t *from, size_t *to)
{
    while (*from < *to && (f->kinds[*from] == KIND_EDGE || f->kinds[*from] == KIND_JOINER))
        (*from)++;
    while (*to > *from && (f->kinds[*to - 1] == KIND_EDGE || f->kinds[*to - 1] == KIND_JOINER))
        (*to)--;
}

/* The word that begins at from; answers its end. */
static size_t add_run(const struct folded *f, size_t from, struct word_set *out, size_t *cap)
{
    size_t apostrophe = 0;
    size_t i = from;
    for (; i < f->n; i++) {
        bool inside = f->kinds[i] == KIND_JOINER && i + 1 < f->n && f->kinds[i + 1] == KIND_WORD;
        if (f->kinds[i] != KIND_WORD && !inside)
            break;
        if (f->chars[i] == '\'')
            apostrophe = i;
    }
    set_add(out, cap, hash_chars(f->chars + from, i - from));
    if (apostrophe != 0) {
        size_t behind = i - apostrophe - 1;
        if (behind == 1 && f->chars[i - 1] == 's')
            set_add(out, cap, hash_chars(f->chars + from, apostrophe - from));
        if (behind >= 3) /* an elision; not the "t" of "don't" nor the "ll" of "I'll" */
            set_add(out, cap, hash_chars(f->chars + apostrophe + 1, behind));
    }
    return i;
}

/* The runs of one to GRAM_MAX characters that begin at i and hold one of a script without spaces. */
static void add_grams(const struct folded *f, size_t i, struct word_set *out, size_t *cap)
{
    uint64_t h = HASH_START;
    bool spaceless = false;
    for (size_t k = i; k < f->n && k < i + GRAM_MAX && f->kinds[k] >= KIND_WORD; k++) {
        h = hash_step(h, f->chars[k]);
        spaceless = spaceless || f->kinds[k] == KIND_SPACELESS;
        if (spaceless)
            set_add(out, cap, hash_end(h));
    }
}

static void add_words(const struct folded *f, struct word_set *out, size_t *cap)
{
    size_t run_end = 0;
    for (size_t i = 0; i < f->n && !out->cut; i++) {
        if (f->kinds[i] == KIND_SYMBOL)
            set_add(out, cap, hash_chars(f->chars + i, 1));
        if (f->kinds[i] >= KIND_WORD)
            add_grams(f, i, out, cap);
        if (f->kinds[i] == KIND_WORD && i >= run_end)
            run_end = add_run(f, i, out, cap);
    }
}

static void add_chunks(const struct folded *f, struct word_set *out, size_t *cap)
{
    for (size_t i = 0; i < f->n && !out->cut;) {
        size_t end = i;
        while (end < f->n && f->kinds[end] != KIND_SPACE)
            end++;
        size_t from = i, to = end;
        trim(f, &from, &to);
        if (to > from && to - from <= CHUNK_MAX)
            set_add(out, cap, hash_chars(f->chars + from, to - from));
        i = end + 1;
    }
}

void text_words(const char *utf8, size_t n, struct word_set *out)
{
    *out = (struct word_set){NULL, 0, n > TEXT_BYTES_MAX};
    if (out->cut) {
        n = TEXT_BYTES_MAX;
        while (n > 0 && ((unsigned char)utf8[n] & 0xc0) == 0x80)
            n--; /* not within a character */
    }
    struct folded f;
    if (n == 0 || !fold(utf8, n, &f))
        return;
    size_t cap = 0;
    bool cut = out->cut;
    out->cut = false;
    add_words(&f, out, &cap);
    add_chunks(&f, out, &cap);
    out->cut = out->cut || cut;
    set_sort(out);
    folded_done(&f);
}

int text_word_hash(const char *word, uint64_t *out)
{
    struct folded f;
    if (!fold(word, strnlen(word, TEXT_BYTES_MAX), &f))
        return -1;
    size_t from = 0, to = f.n;
    trim(&f, &from, &to);
    size_t plain = 0; /* of the first GRAM_MAX characters: those of words */
    bool spaceless = false;
    for (size_t i = from; i < to && i < from + GRAM_MAX && f.kinds[i] >= KIND_WORD; i++, plain++)
        spaceless = spaceless || f.kinds[i] == KIND_SPACELESS;
    if (plain == GRAM_MAX && spaceless)
        to = from + GRAM_MAX;
    int rc = to > from ? 0 : -1;
    if (rc == 0)
        *out = hash_chars(f.chars + from, to - from);
    folded_done(&f);
    return rc;
}

bool word_set_has(const struct word_set *s, uint64_t hash)
{
    return s->n > 0 && bsearch(&hash, s->hashes, s->n, sizeof hash, compare_hashes) != NULL;
}

void word_set_done(struct word_set *s)
{
    free(s->hashes);
    *s = (struct word_set){NULL, 0, false};
}
