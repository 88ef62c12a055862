#include "common/buf.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

#define BUF_FIRST_CAP 256

void buf_init(struct buf *b, size_t max)
{
    assert(max > 0 && max < SIZE_MAX);
    *b = (struct buf){.max = max};
}

void buf_done(struct buf *b)
{
    free(b->data);
    buf_init(b, b->max);
}

void buf_reset(struct buf *b)
{
    b->len = 0;
    b->full = false;
    if (b->data != NULL)
        b->data[0] = '\0';
}

char *buf_take(struct buf *b)
{
    char *data = b->data != NULL ? b->data : mem_strdup("");
    buf_init(b, b->max);
    return data;
}

/* Makes room for n bytes more and the NUL. Doubles, so that appending stays linear. */
static bool buf_reserve(struct buf *b, size_t n)
{
    if (b->full || n > b->max - b->len) {
        b->full = true;
        return false;
    }
    size_t need = b->len + n + 1;
    if (need <= b->cap)
        return true;
    size_t cap = b->cap != 0 ? b->cap : BUF_FIRST_CAP;
    while (cap < need)
        cap = cap > SIZE_MAX / 2 ? need : cap * 2;
    if (cap > b->max + 1)
        cap = b->max + 1;
    b->data = mem_grow(b->data, cap, 1);
    b->cap = cap;
    return true;
}

void buf_expect(struct buf *b, size_t n)
{
    if (n <= b->max - b->len)
        buf_reserve(b, n);
}

void buf_add(struct buf *b, const void *p, size_t n)
{
    if (!buf_reserve(b, n))
        return;
    if (n > 0)
        memcpy(b->data + b->len, p, n);
    b->len += n;
    b->data[b->len] = '\0';
}

void buf_add_str(struct buf *b, const char *s)
{
    buf_add(b, s, strlen(s));
}

void buf_add_char(struct buf *b, char c)
{
    buf_add(b, &c, 1);
}

void buf_add_u64(struct buf *b, uint64_t v)
{
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v != 0);
    buf_add(b, digits + at, sizeof digits - at);
}

void buf_add_i64(struct buf *b, int64_t v)
{
    if (v >= 0) {
        buf_add_u64(b, (uint64_t)v);
        return;
    }
    char text[24];
    buf_add(b, text, (size_t)snprintf(text, sizeof text, "%lld", (long long)v));
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0 || !buf_reserve(b, (size_t)n))
        return;
    va_start(ap, fmt);
    vsnprintf(b->data + b->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->len += (size_t)n;
}

static void buf_add_json_escape(struct buf *b, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";
    static const char from[] = "\"\\\b\f\n\r\t";
    static const char to[] = "\"\\bfnrt";
    const char *p = memchr(from, c, sizeof from - 1);
    if (p != NULL) {
        char two[2] = {'\\', to[p - from]};
        buf_add(b, two, sizeof two);
        return;
    }
    char six[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
    buf_add(b, six, sizeof six);
}

void buf_add_json(struct buf *b, const char *s)
{
    buf_add_json_n(b, s, s != NULL ? strlen(s) : 0);
}

void buf_add_json_n(struct buf *b, const char *s, size_t n)
{
    if (s == NULL) {
        buf_add_str(b, "null");
        return;
    }
    size_t start = b->len;
    size_t done = 0;
    buf_add_char(b, '"');
    for (size_t i = 0; i < n && !b->full; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        buf_add(b, s + done, i - done);
        buf_add_json_escape(b, c);
        done = i + 1;
    }
    buf_add(b, s + done, n - done);
    buf_add_char(b, '"');
    /* All of the string or nothing: half a string could not be told from a whole one. */
    if (b->full && b->data != NULL) {
        b->len = start;
        b->data[start] = '\0';
    }
}
