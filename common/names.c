#include "common/names.h"

#include <stdint.h>
#include <string.h>

/* Reads one code point of at most n bytes; answers its length, 0 for anything not well-formed (Unicode 15,
 * table 3-7). */
static size_t utf8_next(const unsigned char *s, size_t n, uint32_t *cp)
{
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    size_t more;
    if (s[0] < 0x80)
        more = 0;
    else if (s[0] >= 0xc2 && s[0] <= 0xdf)
        more = 1;
    else if ((s[0] & 0xf0) == 0xe0)
        more = 2;
    else if (s[0] >= 0xf0 && s[0] <= 0xf4)
        more = 3;
    else
        return 0;
    if (more >= n)
        return 0;
    uint32_t c = more == 0 ? s[0] : s[0] & (0x3fu >> more);
    for (size_t i = 1; i <= more; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (s[i] & 0x3fu);
    }
    if (c < least[more] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return 0;
    *cp = c;
    return more + 1;
}

bool utf8_valid(const char *s, size_t n)
{
    const unsigned char *p = (const unsigned char *)s;
    uint32_t cp;
    for (size_t i = 0; i < n;) {
        size_t len = utf8_next(p + i, n - i, &cp);
        if (len == 0 || cp == 0)
            return false;
        i += len;
    }
    return true;
}

/* The property White_Space of Unicode 15. */
static bool is_white_space(uint32_t c)
{
    return c == ' ' || (c >= 0x09 && c <= 0x0d) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
           c == 0x3000;
}

static const char *name_fault(uint32_t c)
{
    if (is_white_space(c))
        return "must not hold white space";
    if (c < 0x20 || (c >= 0x7f && c <= 0x9f))
        return "must not hold control characters";
    if (c == '/' || c == '{' || c == '}')
        return "must not hold '/', '{' or '}'";
    return NULL;
}

int names_check(const char *s, size_t n, struct err *e)
{
    if (n == 0)
        return err_set(e, ERR_INVALID, "must not be empty");
    if (n > NAME_MAX_BYTES)
        return err_set(e, ERR_INVALID, "must not be longer than %d bytes", NAME_MAX_BYTES);
    const unsigned char *p = (const unsigned char *)s;
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        size_t len = utf8_next(p + i, n - i, &cp);
        if (len == 0)
            return err_set(e, ERR_INVALID, "must be UTF-8");
        const char *fault = name_fault(cp);
        if (fault != NULL)
            return err_set(e, ERR_INVALID, "%s", fault);
        i += len;
    }
    return 0;
}

static const struct {
    const char *name;
    char letter;
} kinds[] = {
    [TARGET_PUBLISHER] = {"publisher", 'p'},
    [TARGET_TOPIC] = {"topic", 't'},
    [TARGET_ITEM] = {"item", 'i'},
    [TARGET_WORD] = {"word", 'w'},
};
#define KINDS (sizeof kinds / sizeof *kinds)

const char *target_kind_name(enum target_kind k)
{
    return (size_t)k < KINDS ? kinds[k].name : "unknown";
}

int target_kind_parse(const char *s, enum target_kind *out)
{
    for (size_t i = 0; i < KINDS; i++) {
        if (strcmp(s, kinds[i].name) == 0) {
            *out = (enum target_kind)i;
            return 0;
        }
    }
    return -1;
}

char target_kind_letter(enum target_kind k)
{
    return (size_t)k < KINDS ? kinds[k].letter : '?';
}

void target_format(enum target_kind k, const char *name, char out[TARGET_TEXT_SIZE])
{
    size_t n = strnlen(name, NAME_MAX_BYTES);
    out[0] = target_kind_letter(k);
    out[1] = ':';
    memcpy(out + 2, name, n);
    out[2 + n] = '\0';
}

int target_split(const char *s, enum target_kind *k, const char **name, struct err *e)
{
    size_t n = strnlen(s, TARGET_TEXT_SIZE);
    for (size_t i = 0; n > 2 && n < TARGET_TEXT_SIZE && s[1] == ':' && i < KINDS; i++) {
        if (kinds[i].letter == s[0]) {
            *k = (enum target_kind)i;
            *name = s + 2;
            return 0;
        }
    }
    return err_set(e, ERR_CORRUPT, "not a target: \"%.*s\"", TARGET_TEXT_SIZE, s);
}
