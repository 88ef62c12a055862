/* http_internal.h - what the files of the HTTP server share: http_server.c (listeners, deadlines, drain),
 * http_conn.c (bytes in), http_reply.c (answers out). Nobody else includes it.
 *
 * Plain events and recv() into one buffer of the server instead of a bufferevent: it saves an ioctl and two
 * epoll_ctl calls per request. What is read is used up at once, except while a connection is held (too many
 * requests in work, or an unsafe one); then the rest waits in `pending` and reading stops.
 *
 * A connection lives while `busy` > 0 even when it is dead, so whoever may free it from within wraps itself
 * in conn_enter() and conn_leave().
 */
#ifndef FEEDMILL_HTTP_INTERNAL_H
#define FEEDMILL_HTTP_INTERNAL_H

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include "common/http_chunk.h"
#include "common/http_head.h"
#include "common/http_server.h"
#include "common/ip.h"
#include "common/peers.h"
#include "common/problem.h"

#define HTTP_MAX_LISTENERS 8
#define HTTP_SCRATCH       (64 * 1024)
#define HTTP_EXTRA_MAX     (8 * 1024)
#define HTTP_HEAD_OUT_MAX  (HTTP_EXTRA_MAX + 1024)

/* A request and its answer. Recycled by the server. */
struct http_exchange {
    struct http_request pub; /* first: http_request pointers are cast to this */
    struct http_head head;
    struct http_server *server;
    struct http_conn *conn; /* NULL: the connection is closed, the answer goes nowhere */
    struct http_exchange *next;
    char *body;
    size_t body_cap;
    char *extra; /* header lines of the answer */
    size_t extra_len, extra_cap;
    struct evbuffer *out; /* the answer, while it is not this one's turn; NULL when empty */
    http_request_fn on_abort;
    void *abort_arg;
    size_t sent_body; /* bytes of the answer's body */
    int status;
    bool gone;
    bool queued;      /* in its connection's queue */
    bool handed;      /* the user has it and must answer it */
    bool in_callback; /* the user is being called with it: release_due instead of a release */
    bool release_due;
    bool started; /* a stream */
    bool chunked_out;
    bool no_body_out;
    bool answered;
    bool close_after;
    char id[HTTP_ID_SIZE];
    char client[INET6_ADDRSTRLEN];
};

enum http_phase {
    HTTP_READ_HEAD,
    HTTP_READ_LENGTH, /* a body of known length */
    HTTP_READ_CHUNKS,
    HTTP_HELD,    /* cur is complete and waits for its turn to be handled */
    HTTP_DISCARD, /* the body of a request that is answered already */
    HTTP_CLOSING, /* nothing more is wanted: read and forgotten */
    HTTP_LINGER,  /* the same, our side is shut down */
};

struct http_conn {
    struct http_server *server;
    struct http_conn *next, *prev;
    int fd;
    struct event read_ev, write_ev;
    bool reading, writing;
    int busy;
    bool feeding; /* in conn_feed(): answers are collected and written at its end */
    bool dead;
    bool eof;
    bool closing; /* close once `out` is written */
    bool linger;
    bool continue_due; /* cur waits for 100 Continue, which waits for its turn */
    enum http_phase phase;
    struct http_exchange *cur;          /* being read; in the queue once its head is complete */
    struct http_exchange *first, *last; /* the queue: heads complete, not answered, in order */
    size_t queued;
    struct http_chunk chunk;
    uint64_t body_left;
    char *pending;
    size_t pending_len;
    struct evbuffer *out;
    int64_t read_deadline; /* ms; 0: none */
    int64_t body_deadline;
    int64_t body_began;
    int64_t write_deadline;
    bool counted; /* by the server's peers, as one of ip */
    struct ip ip;
    char client[INET6_ADDRSTRLEN];
};

struct http_server {
    struct event_base *base;
    struct http_server_options o;
    struct evconnlistener *listeners[HTTP_MAX_LISTENERS];
    size_t n_listeners;
    struct event *tick;
    struct http_conn *conns;
    atomic_size_t n_conns;       /* what was handed over counts too */
    struct http_server **others; /* who also serve what this one accepts */
    size_t n_others, turn;
    struct http_inbox *inbox; /* what another one accepted for this one; NULL: nobody does */
    struct http_exchange *spare;
    size_t n_spare;
    atomic_size_t live; /* exchanges handed out and not released; others only read it */
    struct http_budget own, *budget;
    bool draining;
    bool accept_paused;
    bool freed; /* http_server_free() was called; gone with the last exchange */
    int64_t drain_deadline;
    void (*drained)(void *);
    void *drained_arg;
    uint64_t id_state[2];
    int64_t date_s;
    char date[32];
    char scratch[HTTP_SCRATCH];
    char head_out[HTTP_HEAD_OUT_MAX];
};

static inline struct http_exchange *http_exchange_of(const struct http_request *r)
{
    return (struct http_exchange *)(uintptr_t)r;
}

/* http_server.c */
struct http_exchange *http_exchange_new(struct http_server *s, struct http_conn *c);
void http_exchange_release(struct http_exchange *x);
void http_server_forget(struct http_server *s, struct http_conn *c); /* it is out of the list */
void http_server_count(struct http_server *s, int n);                /* connections more; any thread */

/* http_spread.c */
void http_spread_accept(struct http_server *s, int fd, const struct sockaddr *peer, int len, bool refuse);
void http_inbox_free(struct http_server *s);

/* http_conn.c */
void conn_new(struct http_server *s, int fd, const struct sockaddr *peer, bool refuse);
void conn_enter(struct http_conn *c);
void conn_leave(struct http_conn *c);
void conn_close(struct http_conn *c);              /* at once; inside enter and leave */
void conn_check(struct http_conn *c, int64_t now); /* deadlines; inside enter and leave */
bool conn_is_idle(const struct http_conn *c);
void conn_shut(struct http_conn *c); /* after a closing answer: what else is in work is given up */
void http_exchange_abandon(struct http_exchange *x); /* its client is gone: tells the user once */

/* http_read.c */
void conn_take(struct http_conn *c, const char *p,
               size_t n);              /* reads n bytes; what must wait is kept in pending */
bool conn_resume(struct http_conn *c); /* goes on with what had to wait; says whether anything moved */
void conn_drop_current(
    struct http_conn *c); /* forgets what is being read, which the user has not been given */
void conn_early_answer(struct http_conn *c,
                       struct http_exchange *x); /* cur is answered before its body is read */

/* conn_fail() answers by ourselves and closes: what follows on this connection can't be trusted or is not
 * wanted. */
void conn_fail(struct http_conn *c, enum problem_code code, const char *why);

/* http_reply.c */
void conn_flush(struct http_conn *c); /* writes what it can; inside enter and leave */
size_t conn_unsent(const struct http_conn *c);
void conn_advance(struct http_conn *c); /* takes what is answered off the queue */

#endif
