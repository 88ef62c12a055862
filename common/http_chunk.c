#include "common/http_chunk.h"

#include <stdbool.h>
#include "common/http_head.h"

#define SIZE_DIGITS   15  /* hex: below 2^60, so that nothing overflows */
#define SIZE_LINE_MAX 256 /* with extensions, which are read over */

enum state {
    SIZE,
    EXTENSION,
    SIZE_LF,
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILER_START,
    TRAILER_NAME,
    TRAILER_VALUE,
    TRAILER_LF,
    END_LF,
};

void http_chunk_init(struct http_chunk *k)
{
    *k = (struct http_chunk){.state = SIZE};
}

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool is_text(char c)
{
    return c == '\t' || ((unsigned char)c >= ' ' && c != 0x7f);
}

static int next_size(struct http_chunk *k, char c)
{
    int d = hex(c);
    if (d >= 0) {
        k->left = k->left << 4 | (unsigned)d;
        return ++k->digits > SIZE_DIGITS ? -1 : SIZE;
    }
    if (k->digits == 0)
        return -1;
    if (c == ';')
        return EXTENSION;
    return c == '\r' ? SIZE_LF : -1;
}

static int next_trailer(struct http_chunk *k, char c)
{
    switch (k->state) {
    case TRAILER_START:
        if (c == '\r')
            return END_LF;
        k->lines++;
        return http_is_token_char((unsigned char)c) ? TRAILER_NAME : -1;
    case TRAILER_NAME:
        if (c == ':')
            return TRAILER_VALUE;
        return http_is_token_char((unsigned char)c) ? TRAILER_NAME : -1;
    case TRAILER_VALUE:
        if (c == '\r')
            return TRAILER_LF;
        return is_text(c) ? TRAILER_VALUE : -1;
    default: /* TRAILER_LF */
        return c == '\n' ? TRAILER_START : -1;
    }
}

/* The state after one byte of framing; -1: refused. */
static int next_state(struct http_chunk *k, char c)
{
    switch (k->state) {
    case SIZE:
        return next_size(k, c);
    case EXTENSION:
        if (c == '\r')
            return SIZE_LF;
        return is_text(c) ? EXTENSION : -1;
    case SIZE_LF:
        k->spent = 0;
        if (c != '\n')
            return -1;
        return k->left ? DATA : TRAILER_START;
    case DATA_CR:
        return c == '\r' ? DATA_LF : -1;
    case DATA_LF:
        k->digits = k->spent = 0;
        return c == '\n' ? SIZE : -1;
    default:
        return next_trailer(k, c);
    }
}

enum http_chunk_result http_chunk_feed(struct http_chunk *k, const char *p, size_t n, size_t *used,
                                       const char **data, size_t *len)
{
    for (size_t i = 0; i < n; i++) {
        if (k->state == DATA) {
            *data = p + i;
            *len = n - i < k->left ? n - i : (size_t)k->left;
            k->left -= *len;
            if (k->left == 0)
                k->state = DATA_CR;
            *used = i + *len;
            return HTTP_CHUNK_DATA;
        }
        if (k->state == END_LF) {
            *used = i + 1;
            return p[i] == '\n' ? HTTP_CHUNK_DONE : HTTP_CHUNK_BAD;
        }
        bool in_trailers = k->state >= TRAILER_START;
        if (++k->spent > (in_trailers ? HTTP_MAX_HEADER_BYTES : SIZE_LINE_MAX) ||
            k->lines > HTTP_MAX_HEADER_LINES) {
            *used = i;
            return in_trailers ? HTTP_CHUNK_TRAILERS : HTTP_CHUNK_BAD;
        }
        int next = next_state(k, p[i]);
        if (next < 0) {
            *used = i;
            return HTTP_CHUNK_BAD;
        }
        k->state = next;
    }
    *used = n;
    return HTTP_CHUNK_MORE;
}
