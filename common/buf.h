/* buf.h - bytes that grow up to a maximum.
 *
 * A buf is embedded in its owner. Appending beyond `max` sets `full`, adds nothing and goes on doing so:
 * a writer may append many times and ask once at the end. data is always NUL-terminated when not NULL.
 * One thread at a time.
 */
#ifndef FEEDMILL_BUF_H
#define FEEDMILL_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
    char *data; /* NULL until something is appended */
    size_t len; /* bytes, without the NUL */
    size_t cap;
    size_t max; /* bytes */
    bool full;  /* an append did not fit */
};

void buf_init(struct buf *b, size_t max); /* no allocation; max in bytes, above 0 */
void buf_done(struct buf *b);             /* frees data; the buf may be used again with the same max */
void buf_reset(struct buf *b);            /* empties and keeps the memory; clears full */
char *buf_take(struct buf *b); /* the bytes, owned by the caller; "" when empty; b is empty after */

/* buf_expect() makes room for n bytes more, so that what is appended then is not moved. More than fits:
 * no-op. */
void buf_expect(struct buf *b, size_t n);

void buf_add(struct buf *b, const void *p, size_t n);
void buf_add_str(struct buf *b, const char *s);
void buf_add_char(struct buf *b, char c);
void buf_add_u64(struct buf *b, uint64_t v); /* decimal */
void buf_add_i64(struct buf *b, int64_t v);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* buf_add_json() appends s as a JSON string with its quotes; s is valid UTF-8 (RFC 8259, section 7). NULL
 * becomes null. */
void buf_add_json(struct buf *b, const char *s);
void buf_add_json_n(struct buf *b, const char *s, size_t n);

#endif
