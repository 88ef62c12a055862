/* http_server.h - one strict HTTP/1.1 server on a libevent loop, used by all three processes.
 *
 * It owns listeners and connections, reads heads and bodies within limits, hands complete requests to one
 * handler and sends the answers in order. It does not route, authenticate or compress. It answers wrong
 * framing, limits and deadlines by itself, with problem+json (problem.h); every answer carries X-Request-Id,
 * Date and Content-Length (or chunks, when streamed).
 *
 * The life of a request: the head is read -> head() may answer at once (401, 404, 405, 415...) or set
 * max_body -> the body is read -> handle() -> now or later exactly one of http_reply*(), problem_reply() or
 * http_stream_start()..end(). After the answer the request must not be touched. When the client goes away
 * meanwhile, the request stays valid, and must still be answered; the answer is dropped if it can't be sent.
 *
 * Thread: everything here runs on the thread of the event base and must be called on it. For more threads
 * make one server per base, of which one accepts (http_server_spread()). The process must ignore SIGPIPE or
 * not: sends use MSG_NOSIGNAL.
 */
#ifndef FEEDMILL_HTTP_SERVER_H
#define FEEDMILL_HTTP_SERVER_H

#include <http_parser.h> /* enum http_method: HTTP_GET..., http_method_str() */
#include <stdbool.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include "common/err.h"

struct event_base;
struct evbuffer;
struct http_server;
struct peers;

#define HTTP_MAX_HEADER_BYTES (16 * 1024)
#define HTTP_MAX_HEADER_LINES 100
#define HTTP_MAX_TARGET       (8 * 1024)
#define HTTP_MAX_SEGMENTS     12
#define HTTP_ID_SIZE          65 /* a request id: 1 to 64 of A-Z a-z 0-9 . _ - and the NUL */
#define HTTP_WHO_SIZE         68
#define HTTP_SPANS            4

/* What a handler sees. All strings are NUL-terminated and live until the request is answered. The fields up
 * to `client` are for reading only. */
struct http_request {
    int method;         /* enum http_method; -1 when the head was unreadable (only seen by on_done) */
    const char *target; /* as sent: "/v1/users/a%20b/feed?limit=3" */
    const char *path;   /* the target's path, not decoded: "/v1/users/a%20b/feed" */
    const char *query;  /* the raw query without '?', "" when there is none; parse it with query.h */
    const char *
        *segments; /* the path's segments, each decoded: {"v1", "users", "a b", "feed"}; none holds a NUL */
    size_t n_segments;  /* 0 for "/"; HTTP_MAX_SEGMENTS + 1 when there are more than that (segments is short
                           then) */
    const char *body;   /* "" in head(); complete in handle(); followed by a NUL that is not counted */
    size_t body_len;    /* bytes */
    const char *id;     /* the request id, the client's X-Request-Id if it is well-formed */
    const char *client; /* the address of the peer: "127.0.0.1" or "::1"; see http_request_set_client() */
    int64_t arrived_us; /* clock_mono_us() when the head was complete */
    bool streamed;      /* the answer was begun by http_stream_start() */
    size_t max_body;    /* head() may set it; bytes; starts as options.max_body; more is answered 413 */
    int route;          /* free for the user's tag (metrics, logs); starts as 0 */
    void *user;         /* free for the user; starts as NULL */
    unsigned marks;     /* free for the user's flags; starts as 0 */
    int64_t spent_us[HTTP_SPANS]; /* free for the user: where the time went; start as 0 */
    char who[HTTP_WHO_SIZE];      /* free for the user: who asks, for logs; starts as "" */
};

typedef void (*http_request_fn)(struct http_request *r, void *arg);

/* What servers of several threads use together, and their caps are about; {0} at first, and outlives them. */
struct http_budget {
    atomic_size_t connections; /* open now */
    atomic_size_t body_bytes;  /* held for bodies */
};

struct http_server_options {
    /* head() is called when the head is read, before any of the body is asked for. It may answer r (handle()
     * is not called then, the body is not read) or set max_body, route, user. NULL: none. */
    http_request_fn head;
    /* handle() is called when the whole request is here. Required. */
    http_request_fn handle;
    /* on_done() is called for every answer, once it is handed to the connection, also for those that the
     * server made by itself: bytes of the answer's body, us from the head's completion (0 when it never was).
     * NULL: none. */
    void (*on_done)(const struct http_request *r, int status, size_t bytes, int64_t us, void *arg);
    void *arg; /* given to all three */

    struct http_budget *budget; /* borrowed, of all of them; NULL: it has its own */
    struct peers *peers; /* borrowed: the connections of each address, beyond its share 429; NULL: no cap */
    size_t max_connections; /* further ones are answered 503 and closed; 0: 10,000 */
    size_t max_body;        /* bytes; 0: 128 KiB */
    size_t max_body_total;  /* bytes of bodies held by all connections; beyond it 503; 0: 256 MiB */
    size_t max_pipelined;   /* requests of one connection in work at once; 0: 16 */
    size_t max_unsent;      /* bytes of a stream not yet taken by the client before it is cut off; 0: 8 MiB */
    int64_t head_timeout_ms;   /* from the head's first byte to its end, else 408; 0: 10,000 */
    int64_t idle_timeout_ms;   /* between requests, then closed; 0: 60,000 */
    int64_t stall_timeout_ms;  /* a body or an answer that does not move, then 408 or cut; 0: 10,000 */
    int64_t body_timeout_ms;   /* for a whole body, else 408; 0: 60,000 */
    int64_t body_grace_ms;     /* a body may begin slowly for so long, then min_body_rate counts; 0: 5,000 */
    size_t min_body_rate;      /* bytes a second that a body has to come with since then, else 408; 0: any */
    int64_t linger_timeout_ms; /* reading on after a closing answer, so that the client sees it; 0: 2,000 */
};

/* http_server_new() copies the options. No listener yet. */
struct http_server *http_server_new(struct event_base *base, const struct http_server_options *o);

/* http_server_listen() binds address ("127.0.0.1", "::1", "0.0.0.0") and port (0 = any free one) and starts
 * to accept. May be called several times (up to 8). *bound (may be NULL) gets the port. ERR_INVALID for an
 * address that does not parse, ERR_UNAVAILABLE when it can't be bound. */
int http_server_listen(struct http_server *s, const char *address, uint16_t port, uint16_t *bound,
                       struct err *e) MUST_USE;

/* http_server_spread() has connections that s accepts served by whichever of s and n others has the fewest;
 * each runs on a thread of its own. They share a budget, s listens alone and has to end (drain, free) first.
 * Once, before any of the loops runs. */
int http_server_spread(struct http_server *s, struct http_server *const *others, size_t n,
                       struct err *e) MUST_USE;

/* http_server_drain() stops accepting, closes idle connections, lets the others finish their requests
 * (answered with Connection: close) and calls done (may be NULL) once no connection is left; after
 * deadline_ms what is left is cut off. Streams do not end by themselves: their owner ends them. done is
 * called from the loop, never from within this call, and may free the server. */
void http_server_drain(struct http_server *s, int64_t deadline_ms, void (*done)(void *arg), void *arg);
bool http_server_is_draining(const struct http_server *s);

/* http_server_free() closes everything at once. Unanswered requests hear on_abort and still have to be
 * answered, which does nothing but release them. Not from within head() or handle(). NULL is a no-op. */
void http_server_free(struct http_server *s);

/* Any thread. */
size_t
http_server_connections(const struct http_server *s); /* open now, of all servers that share its budget */
size_t http_server_in_flight(const struct http_server *s); /* its requests being read or answered */

/* http_request_header() finds a field by name, any case; NULL when absent. Of a field given twice, the first.
 */
const char *http_request_header(const struct http_request *r, const char *name);

/* http_request_header_count() counts how often a field is given. */
size_t http_request_header_count(const struct http_request *r, const char *name);

/* http_request_header_at() is the field given as number n of this name, from 0; NULL when there are not so
 * many. */
const char *http_request_header_at(const struct http_request *r, const char *name, size_t n);

/* http_request_set_client() puts another address (up to 45 bytes) in place of r->client: that of the client
 * behind a proxy. */
void http_request_set_client(struct http_request *r, const char *address);

/* http_request_is_gone() says that the client has closed its side (so the answer is most likely for nobody).
 */
bool http_request_is_gone(const struct http_request *r);

/* http_request_on_abort() sets what is called, once, when the client goes before the answer is complete. fn
 * must not answer r inside the call; r stays valid until it is answered, except when handle() was not called
 * yet: then it is never called, and r is gone after fn. NULL takes it off. */
void http_request_on_abort(struct http_request *r, http_request_fn fn, void *arg);

/* --- answering: exactly one of the ways below --- */

/* http_header_add() adds a field to the coming answer; name and value are copied, control characters in the
 * value become spaces. Not for Content-Length, Content-Type, Connection, Date, X-Request-Id,
 * Transfer-Encoding. All fields together up to 8 KiB; beyond it the field is left out. */
void http_header_add(struct http_request *r, const char *name, const char *value);

/* http_reply() answers with a copy of the body (len bytes; may be NULL with 0). type is the Content-Type,
 * NULL for none. HEAD gets the same fields without the body, 204 and 304 get no body. */
void http_reply(struct http_request *r, int status, const char *type, const void *body, size_t len);

/* http_reply_take() the same, but takes the malloc'ed body (always released, may be NULL). */
void http_reply_take(struct http_request *r, int status, const char *type, char *body, size_t len);

/* http_reply_evbuffer() the same, moves the bytes out of body, which stays the caller's (empty). */
void http_reply_evbuffer(struct http_request *r, int status, const char *type, struct evbuffer *body);

/* http_reply_close() makes the coming answer the last one of its connection. */
void http_reply_close(struct http_request *r);

/* --- streaming: server-sent events, NDJSON answers --- */

/* http_stream_start() sends the head; the body follows in chunks (HTTP/1.1) or until close (1.0). */
void http_stream_start(struct http_request *r, int status, const char *type);

/* http_stream_add() sends len bytes (copied; 0 is a no-op). Answers -1 when the client is gone or was cut off
 * because more than max_unsent waits for it: then only http_stream_end() is left to call. */
int http_stream_add(struct http_request *r, const void *data, size_t len) MUST_USE;

/* http_stream_unsent() is what the client has not taken yet, in bytes. */
size_t http_stream_unsent(const struct http_request *r);

/* http_stream_end() completes the answer; r must not be touched after it. */
void http_stream_end(struct http_request *r);

/* http_stream_abort() ends it by cutting the connection, so that the client can tell that it is not complete.
 */
void http_stream_abort(struct http_request *r);

#endif
