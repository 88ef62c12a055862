/* http_head.h - reads the head of one request, strictly. Inside the HTTP module only; pure (no I/O, no
 * clock).
 *
 * Two readers, one after the other. The gate looks at each line as it comes in and refuses what http-parser
 * is lax on, because Debian builds it non-strict: bare LF and CR, folded lines, spaces in names, long targets
 * and heads, odd versions. A head that got through is parsed by http-parser in one go, which fills the table
 * of fields. What decides framing (Content-Length, Transfer-Encoding, Host) is checked here once more: RFC
 * 9112, sections 2.2, 3.2, 6.
 */
#ifndef FEEDMILL_HTTP_HEAD_H
#define FEEDMILL_HTTP_HEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/http_server.h"
#include "common/problem.h"

struct http_field {
    uint16_t name, name_len;   /* offsets into buf, NUL-terminated there */
    uint16_t value, value_len; /* without the white space around it */
};

enum http_head_result { HTTP_HEAD_MORE, HTTP_HEAD_DONE, HTTP_HEAD_BAD };

struct http_head {
    char *buf; /* kept between requests */
    size_t len, cap;
    size_t line;         /* where the line being read starts */
    size_t fields_start; /* where the request line ends; 0: it is being read */
    bool skipped_empty;

    /* valid after HTTP_HEAD_DONE */
    struct http_field fields[HTTP_MAX_HEADER_LINES];
    size_t n_fields;
    int method;
    bool http10;
    bool keep_alive;
    bool chunked;
    bool expect_continue;
    uint64_t content_length; /* 0 when absent */
    size_t target, target_len;
    char *path; /* NUL-terminated copy */
    const char *query;
    const char *segments[HTTP_MAX_SEGMENTS];
    size_t n_segments;

    /* valid after HTTP_HEAD_BAD */
    enum problem_code problem;
    const char *why; /* static */
};

void http_head_init(struct http_head *h);  /* no allocation */
void http_head_reset(struct http_head *h); /* for the next request; keeps the memory unless it is large */
void http_head_done(struct http_head *h);

/* http_head_feed() reads up to n bytes; *used says how many it took, which is all of them unless the head was
 * completed or refused. Not to be called again after DONE or BAD without a reset. */
enum http_head_result http_head_feed(struct http_head *h, const char *p, size_t n, size_t *used);

/* http_head_find() answers the index of the first such field at or after `from`, any case, or -1. */
int http_head_find(const struct http_head *h, const char *name, size_t from);

/* http_is_token_char() knows the characters of methods and field names (RFC 9110, 5.6.2). */
bool http_is_token_char(unsigned char c);

#endif
