#include "feed-api/page_tag.h"

#include <stddef.h>
#include <string.h>

/* To be changed with anything that makes other bytes of the same items. */
#define LAYOUT 1

/* The finalizer of MurmurHash3: each bit of what goes in changes half of what comes out. */
static uint64_t scramble(uint64_t v)
{
    v ^= v >> 33;
    v *= UINT64_C(0xff51afd7ed558ccd);
    v ^= v >> 33;
    v *= UINT64_C(0xc4ceb9fe1a85ec53);
    return v ^ v >> 33;
}

void page_tag_init(struct page_tag *t)
{
    t->h = LAYOUT;
}

void page_tag_add(struct page_tag *t, uint64_t v)
{
    t->h = scramble(t->h + UINT64_C(0x9e3779b97f4a7c15)) ^ v;
    t->h *= UINT64_C(0x2127599bf4325c37);
}

void page_tag_add_str(struct page_tag *t, const char *s)
{
    if (s == NULL) {
        page_tag_add(t, UINT64_MAX);
        return;
    }
    size_t n = strlen(s);
    page_tag_add(t, n);
    for (size_t i = 0; i < n; i += 8) {
        uint64_t v = 0;
        memcpy(&v, s + i, n - i < 8 ? n - i : 8);
        page_tag_add(t, v);
    }
}

void page_tag_write(const struct page_tag *t, char out[PAGE_TAG_TEXT_SIZE])
{
    static const char hex[] = "0123456789abcdef";
    uint64_t v = scramble(t->h);
    char *p = out;
    *p++ = 'W';
    *p++ = '/';
    *p++ = '"';
    for (int shift = 60; shift >= 0; shift -= 4)
        *p++ = hex[v >> shift & 15];
    *p++ = '"';
    *p = '\0';
}

static const char *skip_blanks(const char *s)
{
    return s + strspn(s, " \t");
}

/* The length of the quoted string at s with its quotes; 0: it is none. A tag has no escapes. */
static size_t quoted_length(const char *s)
{
    if (*s != '"')
        return 0;
    const char *end = strchr(s + 1, '"');
    return end ? (size_t)(end - s) + 1 : 0;
}

static const char *without_weak(const char *s)
{
    return strncmp(s, "W/", 2) == 0 ? s + 2 : s;
}

bool page_tag_matches(const char *if_none_match, const char *tag)
{
    const char *quoted = without_weak(tag);
    size_t len = strlen(quoted);
    if (if_none_match == NULL)
        return false;
    const char *s = skip_blanks(if_none_match);
    if (*s == '*')
        return *skip_blanks(s + 1) == '\0';
    bool found = false;
    while (*s != '\0') {
        if (*s == ',') { /* a list may have empty elements */
            s = skip_blanks(s + 1);
            continue;
        }
        s = without_weak(s);
        size_t n = quoted_length(s);
        if (n == 0)
            return false;
        found |= n == len && memcmp(s, quoted, n) == 0;
        s = skip_blanks(s + n);
        if (*s != '\0' && *s != ',')
            return false;
    }
    return found;
}
