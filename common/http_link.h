/* http_link.h - one connection of an http_client, inside the client only: it connects, sends one request at a
 * time, reads its answer. It belongs to the client, which gives it calls and hears of their outcome. On the
 * client's thread.
 */
#ifndef FEEDMILL_HTTP_LINK_H
#define FEEDMILL_HTTP_LINK_H

#include <event2/event.h>
#include <event2/event_struct.h>
#include <http_parser.h>
#include <stdbool.h>
#include <sys/socket.h>
#include "common/buf.h"
#include "common/http_client.h"

struct link;

struct call {
    struct call *next; /* in the queue */
    struct http_client *client;
    struct link *link; /* NULL: waiting */
    struct event timer;
    char *bytes;
    size_t len, sent;
    bool is_head, may_repeat, repeated;
    http_client_fn fn;
    void *arg;
};

struct link {
    struct link *next, *prev;
    struct http_client *client;
    struct call *call; /* NULL: idle */
    int fd;
    struct event read_ev, write_ev;
    /* It has carried a call already: a failure may just mean that it was closed meanwhile. */
    bool used_before;
    bool heard; /* a byte of this answer came */
    bool complete, keep;
    bool in_value, head_done;
    enum err_code refused; /* what a parser callback found wrong */
    int64_t idle_since_ms;
    http_parser parser;
    struct buf headers; /* name NUL value NUL ... */
    struct buf body;
};

struct http_client {
    struct event_base *base;
    struct http_client_options o;
    struct sockaddr_storage addr;
    socklen_t addr_len;
    char host_header[96];
    struct event *kick;
    struct link *links;
    size_t n_links;
    struct call *first, **last; /* waiting */
    size_t in_flight;
};

/* http_link.c */
struct link *link_new(struct http_client *c); /* connecting; NULL with errno */
void link_close(struct link *l);              /* frees it; its call, if any, is left alone */
void link_start(struct link *l, struct call *k, bool connected); /* carries k; may end it at once */

/* http_client.c */
void call_answered(struct call *k, const struct http_response *r); /* k is gone after it */

/* link_fail() closes l; its call, if any, fails or is repeated. */
void link_fail(struct link *l, enum err_code code, const char *why);

#endif
