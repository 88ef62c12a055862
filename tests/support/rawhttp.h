/* rawhttp.h - a blocking HTTP client for tests, down to the raw bytes, always to 127.0.0.1.
 *
 * Everything has a deadline (RAWHTTP_TIMEOUT_MS unless set); what fails aborts the test by fail_msg(), so
 * callers do not check. The *_try_ functions answer -1 instead.
 *
 *   struct rawhttp *c = rawhttp_open(port);
 *   struct reply r;
 *   rawhttp_request(c, "POST", "/v1/items", "Authorization: Bearer x\r\nContent-Type: application/json\r\n",
 * "{}", 2, &r); assert_int_equal(r.status, 201); const char *pos = reply_header(&r, "Feed-Position");
 *   reply_done(&r);
 *   rawhttp_close(c);
 */
#ifndef FEEDMILL_TESTS_RAWHTTP_H
#define FEEDMILL_TESTS_RAWHTTP_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RAWHTTP_TIMEOUT_MS  20000
#define RAWHTTP_MAX_HEADERS 64

struct reply {
    int status;
    char *body; /* decoded if chunked; followed by a NUL; never NULL */
    size_t len;
    bool close; /* the server said Connection: close */
    bool chunked;
    size_t n_headers;
    struct {
        const char *name;
        const char *value;
    } headers[RAWHTTP_MAX_HEADERS];
    char *head; /* what the headers point into */
};

struct rawhttp; /* a connection */

struct rawhttp *rawhttp_open(uint16_t port);
struct rawhttp *rawhttp_try_open(uint16_t port); /* NULL when nobody listens */
void rawhttp_close(struct rawhttp *c);           /* NULL is a no-op */
void rawhttp_set_timeout(struct rawhttp *c, int64_t ms);
int rawhttp_fd(const struct rawhttp *c);

/* rawhttp_request() sends a request and reads its answer; headers is "Name: value\r\n"... or NULL; Host is
 * added, and Content-Length when there is a body (body not NULL). When the server closed the kept connection,
 * a new one is opened. */
void rawhttp_request(struct rawhttp *c, const char *method, const char *path, const char *headers,
                     const void *body, size_t len, struct reply *out);
int rawhttp_try_request(struct rawhttp *c, const char *method, const char *path, const char *headers,
                        const void *body, size_t len, struct reply *out);

/* rawhttp_once() is the same on a connection of its own. body may be NULL; it is a string. */
void rawhttp_once(uint16_t port, const char *method, const char *path, const char *headers, const char *body,
                  struct reply *out);

/* The raw half: bytes out, one answer in. */
void rawhttp_send(struct rawhttp *c, const void *bytes, size_t n);
void rawhttp_send_str(struct rawhttp *c, const char *s);
void rawhttp_shutdown(struct rawhttp *c);                                    /* no more from us */
void rawhttp_read(struct rawhttp *c, const char *method, struct reply *out); /* method: "HEAD" has no body */
int rawhttp_try_read(struct rawhttp *c, const char *method, struct reply *out);

/* For streams: the head of the answer only (reply.body is ""), then lines of the decoded body, without their
 * end. rawhttp_read_line() answers NULL at the end of the stream or, with *timed_out set (may be NULL), after
 * timeout_ms; the line lives until the next call. */
void rawhttp_read_head(struct rawhttp *c, struct reply *out);
const char *rawhttp_read_line(struct rawhttp *c, int64_t timeout_ms, bool *timed_out);

/* rawhttp_at_eof() waits for the server to close and says whether it did, with nothing more sent, before the
 * timeout. */
bool rawhttp_at_eof(struct rawhttp *c);

void reply_done(struct reply *r);
const char *reply_header(const struct reply *r, const char *name); /* any case; NULL */

/* reply_json() parses the body (fails the test when it is not JSON); the caller json_decref()s it. */
json_t *reply_json(const struct reply *r);

#endif
