/* http_client.h - asynchronous HTTP/1.1 requests to one host and port, over a small pool of kept connections.
 *
 * Every request has a deadline, the answer a cap, the number in flight a cap: nothing queues without bound. A
 * request that failed on a kept connection before a byte of an answer came is tried once more on a new one if
 * it is GET or HEAD. Thread: that of the event base. The callback is never called from within
 * http_client_request().
 */
#ifndef FEEDMILL_HTTP_CLIENT_H
#define FEEDMILL_HTTP_CLIENT_H

#include <stddef.h>
#include <stdint.h>
#include "common/err.h"

struct event_base;
struct http_client;

struct http_client_options {
    const char *host; /* an IP address ("127.0.0.1", "::1"): names are not resolved */
    uint16_t port;
    size_t max_connections; /* 0: 8 */
    size_t max_in_flight;   /* requests, waiting ones included; further ones are ERR_BUSY; 0: 256 */
    size_t max_response;    /* bytes of a body; more is ERR_TOO_LARGE; 0: 4 MiB */
    int64_t idle_ms;        /* a connection unused for longer is not used again; 0: 30,000 */
};

/* Valid only during the callback. */
struct http_response {
    int status;
    const char *body; /* followed by a NUL that is not counted */
    size_t len;
    const void *priv; /* for http_response_header() */
};

/* r is NULL on failure, e then says why: ERR_TIMEOUT (the request may have been acted on), ERR_UNAVAILABLE
 * (not connected, or the connection was lost), ERR_TOO_LARGE, ERR_CORRUPT (not HTTP). Any status is a success
 * here. */
typedef void (*http_client_fn)(const struct http_response *r, const struct err *e, void *arg);

/* http_client_new() does not connect yet. ERR_INVALID: host is not an IP address. */
struct http_client *http_client_new(struct event_base *base, const struct http_client_options *o,
                                    struct err *e) MUST_USE;

/* http_client_free() drops the requests in flight without calling back. Not from within a callback of its
 * own. NULL is a no-op. */
void http_client_free(struct http_client *c);

/* http_client_request() sends one request; headers is "Name: value\r\n"... or NULL, without Host,
 * Content-Length and Connection, which are added; path starts with '/'; everything is copied. timeout_ms
 * above 0, from now. fn is called exactly once. ERR_BUSY: too many in flight, fn is not called. */
int http_client_request(struct http_client *c, const char *method, const char *path, const char *headers,
                        const void *body, size_t len, int64_t timeout_ms, http_client_fn fn, void *arg,
                        struct err *e) MUST_USE;

/* http_response_header() finds a field of the answer, any case, or NULL. */
const char *http_response_header(const struct http_response *r, const char *name);

size_t http_client_in_flight(const struct http_client *c);

#endif
