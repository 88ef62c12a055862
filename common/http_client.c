/* http_client.c - a pool of links to one place; a link carries one call at a time, further calls wait in a
 * queue. See http_client.h.
 */
#include "common/http_client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <http_parser.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>
#include "common/buf.h"
#include "common/clock.h"
#include "common/mem.h"

#define READ_SIZE   (32 * 1024)
#define HEADERS_MAX (16 * 1024)

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
    bool
        used_before; /* it has carried a call already: a failure may just mean that it was closed meanwhile */
    bool heard;      /* a byte of this answer came */
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

/* --- the end of calls and links --- */

static void link_close(struct link *l)
{
    struct http_client *c = l->client;
    if (l->next)
        l->next->prev = l->prev;
    if (l->prev)
        l->prev->next = l->next;
    else
        c->links = l->next;
    c->n_links--;
    event_del(&l->read_ev);
    event_del(&l->write_ev);
    close(l->fd);
    buf_done(&l->headers);
    buf_done(&l->body);
    free(l);
}

static void call_free(struct call *k)
{
    evtimer_del(&k->timer);
    free(k->bytes);
    free(k);
}

/* Hands the outcome to the caller, who may make new requests in the callback. */
static void call_finish(struct call *k, const struct http_response *r, const struct err *e)
{
    struct http_client *c = k->client;
    http_client_fn fn = k->fn;
    void *arg = k->arg;
    c->in_flight--;
    call_free(k);
    if (c->first)
        event_active(c->kick, EV_TIMEOUT, 0);
    fn(r, e, arg);
}

static void call_fail(struct call *k, enum err_code code, const char *why)
{
    struct err e;
    err_set(&e, code, "%s %s: %s", "request to", k->client->host_header, why);
    call_finish(k, NULL, &e);
}

static void enqueue(struct http_client *c, struct call *k)
{
    k->next = NULL;
    k->link = NULL;
    k->sent = 0;
    *c->last = k;
    c->last = &k->next;
    event_active(c->kick, EV_TIMEOUT, 0);
}

/* The link is of no use any more; its call fails, or goes to another link if it surely was not acted on or
 * may be. */
static void link_fail(struct link *l, enum err_code code, const char *why)
{
    struct call *k = l->call;
    bool again = k && code == ERR_UNAVAILABLE && l->used_before && !l->heard && k->may_repeat && !k->repeated;
    struct http_client *c = l->client;
    link_close(l);
    if (k == NULL)
        return;
    if (again) {
        k->repeated = true;
        enqueue(c, k);
    } else {
        call_fail(k, code, why);
    }
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    struct call *k = arg;
    struct http_client *c = k->client;
    (void)fd;
    (void)what;
    if (k->link) {
        link_close(k->link); /* its answer may still come: the link can't be used for another call */
    } else {
        struct call **p = &c->first;
        while (*p != k)
            p = &(*p)->next;
        *p = k->next;
        if (*p == NULL)
            c->last = p;
    }
    call_fail(k, ERR_TIMEOUT, "the deadline passed");
}

/* --- the answer --- */

static int on_field(http_parser *p, const char *at, size_t n)
{
    struct link *l = p->data;
    if (l->head_done) /* trailers */
        return 0;
    if (l->in_value)
        buf_add_char(&l->headers, '\0');
    l->in_value = false;
    buf_add(&l->headers, at, n);
    return l->headers.full ? -1 : 0;
}

static int on_value(http_parser *p, const char *at, size_t n)
{
    struct link *l = p->data;
    if (l->head_done)
        return 0;
    if (!l->in_value)
        buf_add_char(&l->headers, '\0');
    l->in_value = true;
    buf_add(&l->headers, at, n);
    return l->headers.full ? -1 : 0;
}

static int on_head(http_parser *p)
{
    struct link *l = p->data;
    buf_add_char(&l->headers, '\0');
    l->head_done = true;
    if (p->content_length != UINT64_MAX && (p->flags & F_CONTENTLENGTH) && !l->call->is_head &&
        p->content_length > l->client->o.max_response) {
        l->refused = ERR_TOO_LARGE;
        return -1;
    }
    return l->call->is_head ? 1 : 0;
}

static int on_body(http_parser *p, const char *at, size_t n)
{
    struct link *l = p->data;
    buf_add(&l->body, at, n);
    if (l->body.full)
        l->refused = ERR_TOO_LARGE;
    return l->body.full ? -1 : 0;
}

static int on_complete(http_parser *p)
{
    struct link *l = p->data;
    if (p->status_code < 200) { /* 100 Continue and the like: the answer follows */
        buf_reset(&l->headers);
        l->in_value = l->head_done = false;
        return 0;
    }
    l->complete = true;
    l->keep = http_should_keep_alive(p) != 0;
    http_parser_pause(p, 1);
    return 0;
}

static const http_parser_settings settings = {
    .on_header_field = on_field,
    .on_header_value = on_value,
    .on_headers_complete = on_head,
    .on_body = on_body,
    .on_message_complete = on_complete,
};

/* Frees the link for the next call, or closes it, before the callback runs: the callback may start one. */
static void answer_complete(struct link *l, bool keep)
{
    struct call *k = l->call;
    struct buf headers = l->headers, body = l->body;
    buf_init(&l->headers, HEADERS_MAX);
    buf_init(&l->body, l->client->o.max_response);
    struct http_response r = {
        .status = (int)l->parser.status_code,
        .body = body.data ? body.data : "",
        .len = body.len,
        .priv = &headers,
    };
    l->call = NULL;
    l->used_before = true;
    l->idle_since_ms = clock_mono_ms();
    if (!keep)
        link_close(l);
    call_finish(k, &r, NULL);
    buf_done(&headers);
    buf_done(&body);
}

static void take_bytes(struct link *l, const char *p, size_t n)
{
    l->heard = l->heard || n > 0;
    size_t used = http_parser_execute(&l->parser, &settings, p, n);
    enum http_errno e = HTTP_PARSER_ERRNO(&l->parser);
    if (l->complete) {
        /* Bytes behind the answer: the other side and we do not agree on where it ends. */
        bool keep = l->keep && n > 0 && used >= n && l->call->sent == l->call->len;
        answer_complete(l, keep);
    } else if (n == 0) {
        link_fail(l, ERR_UNAVAILABLE, "the connection was closed before the answer was complete");
    } else if (e != HPE_OK || l->parser.upgrade) {
        enum err_code code = l->refused ? l->refused : ERR_CORRUPT;
        link_fail(l, code,
                  code == ERR_TOO_LARGE ? "the answer is larger than its cap" : "the answer is not HTTP");
    }
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct link *l = arg;
    char bytes[READ_SIZE];
    (void)what;
    ssize_t n = recv(fd, bytes, sizeof bytes, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (l->call == NULL) /* closed while idle, or speaking unasked */
        link_close(l);
    else if (n < 0)
        link_fail(l, ERR_UNAVAILABLE, strerror(errno));
    else
        take_bytes(l, bytes, (size_t)n);
}

/* --- the request --- */

/* Sends what it can; -1: the link is broken. */
static int send_some(struct link *l)
{
    struct call *k = l->call;
    while (k->sent < k->len) {
        ssize_t n = send(l->fd, k->bytes + k->sent, k->len - k->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            event_add(&l->write_ev, NULL);
            return 0;
        }
        if (n < 0)
            return -1;
        k->sent += (size_t)n;
    }
    return 0;
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct link *l = arg;
    int why = 0;
    socklen_t len = sizeof why;
    (void)what;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &why, &len) == 0 && why != 0)
        link_fail(l, ERR_UNAVAILABLE, strerror(why));
    else if (l->call && send_some(l) != 0)
        link_fail(l, ERR_UNAVAILABLE, strerror(errno));
}

static void attach(struct link *l, struct call *k)
{
    l->call = k;
    k->link = l;
    l->heard = l->complete = l->in_value = l->head_done = false;
    l->refused = ERR_NONE;
    buf_reset(&l->headers);
    buf_reset(&l->body);
    http_parser_init(&l->parser, HTTP_RESPONSE);
    l->parser.data = l;
}

/* A new link, connecting; NULL with errno. */
static struct link *link_new(struct http_client *c)
{
    int on = 1, fd = socket(c->addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return NULL;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(fd, (struct sockaddr *)&c->addr, c->addr_len) != 0 && errno != EINPROGRESS) {
        int why = errno;
        close(fd);
        errno = why;
        return NULL;
    }
    struct link *l = mem_zero(1, sizeof *l);
    l->client = c;
    l->fd = fd;
    buf_init(&l->headers, HEADERS_MAX);
    buf_init(&l->body, c->o.max_response);
    event_assign(&l->read_ev, c->base, fd, EV_READ | EV_PERSIST, on_readable, l);
    event_assign(&l->write_ev, c->base, fd, EV_WRITE, on_writable, l);
    event_add(&l->read_ev, NULL);
    l->next = c->links;
    if (c->links)
        c->links->prev = l;
    c->links = l;
    c->n_links++;
    return l;
}

/* An idle link that is not too old, else NULL; old ones are closed on the way. */
static struct link *find_idle(struct http_client *c)
{
    int64_t oldest = clock_mono_ms() - c->o.idle_ms;
    struct link *next;
    for (struct link *l = c->links; l; l = next) {
        next = l->next;
        if (l->call == NULL && l->idle_since_ms >= oldest)
            return l;
        if (l->call == NULL)
            link_close(l);
    }
    return NULL;
}

static struct call *dequeue(struct http_client *c)
{
    struct call *k = c->first;
    c->first = k->next;
    if (c->first == NULL)
        c->last = &c->first;
    return k;
}

/* Gives waiting calls to links. A repeated call gets a new one: the other idle ones are probably as dead. */
static void on_kick(evutil_socket_t fd, short what, void *arg)
{
    struct http_client *c = arg;
    (void)fd;
    (void)what;
    while (c->first) {
        struct link *l = find_idle(c);
        while (l && c->first->repeated) {
            link_close(l);
            l = find_idle(c);
        }
        if (l == NULL && c->n_links >= c->o.max_connections)
            return; /* the end of a call kicks again */
        struct call *k = dequeue(c);
        if (l) {
            attach(l, k);
            if (send_some(l) != 0)
                link_fail(l, ERR_UNAVAILABLE, strerror(errno));
        } else if ((l = link_new(c)) != NULL) {
            attach(l, k);
            event_add(&l->write_ev, NULL); /* connected, or not */
        } else {
            call_fail(k, ERR_UNAVAILABLE, strerror(errno));
        }
    }
}

/* --- the client --- */

static int parse_host(struct http_client *c, const char *host, struct err *e)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)&c->addr;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)(void *)&c->addr;
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(c->o.port);
        c->addr_len = sizeof *v4;
        snprintf(c->host_header, sizeof c->host_header, "%s:%u", host, c->o.port);
    } else if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(c->o.port);
        c->addr_len = sizeof *v6;
        snprintf(c->host_header, sizeof c->host_header, "[%s]:%u", host, c->o.port);
    } else {
        return err_set(e, ERR_INVALID, "%s is not an IP address", host);
    }
    return 0;
}

struct http_client *http_client_new(struct event_base *base, const struct http_client_options *o,
                                    struct err *e)
{
    struct http_client *c = mem_zero(1, sizeof *c);
    c->o = *o;
    c->o.host = NULL;
    if (parse_host(c, o->host, e) != 0) {
        free(c);
        return NULL;
    }
    c->o.max_connections = o->max_connections ? o->max_connections : 8;
    c->o.max_in_flight = o->max_in_flight ? o->max_in_flight : 256;
    c->o.max_response = o->max_response ? o->max_response : 4u * 1024 * 1024;
    c->o.idle_ms = o->idle_ms ? o->idle_ms : 30000;
    c->base = base;
    c->last = &c->first;
    c->kick = event_new(base, -1, 0, on_kick, c);
    return c;
}

void http_client_free(struct http_client *c)
{
    if (c == NULL)
        return;
    while (c->links) {
        if (c->links->call)
            call_free(c->links->call);
        link_close(c->links);
    }
    while (c->first)
        call_free(dequeue(c));
    event_free(c->kick);
    free(c);
}

int http_client_request(struct http_client *c, const char *method, const char *path, const char *headers,
                        const void *body, size_t len, int64_t timeout_ms, http_client_fn fn, void *arg,
                        struct err *e)
{
    if (c->in_flight >= c->o.max_in_flight)
        return err_set(e, ERR_BUSY, "%zu requests to %s are in flight", c->in_flight, c->host_header);
    struct call *k = mem_zero(1, sizeof *k);
    char *head = mem_printf("%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %zu\r\n%s\r\n", method, path,
                            c->host_header, len, headers ? headers : "");
    size_t head_len = strlen(head);
    k->bytes = mem_grow(head, head_len + len + 1, 1);
    if (len)
        memcpy(k->bytes + head_len, body, len);
    k->len = head_len + len;
    k->client = c;
    k->is_head = strcmp(method, "HEAD") == 0;
    k->may_repeat = k->is_head || strcmp(method, "GET") == 0;
    k->fn = fn;
    k->arg = arg;
    evtimer_assign(&k->timer, c->base, on_deadline, k);
    int64_t ms = timeout_ms > 0 ? timeout_ms : 1;
    struct timeval tv = {ms / 1000, ms % 1000 * 1000};
    evtimer_add(&k->timer, &tv);
    c->in_flight++;
    enqueue(c, k);
    return 0;
}

const char *http_response_header(const struct http_response *r, const char *name)
{
    const struct buf *h = r->priv;
    for (size_t i = 0; i < h->len;) {
        const char *field = h->data + i;
        const char *value = field + strlen(field) + 1;
        if (value >= h->data + h->len)
            return NULL;
        if (strcasecmp(field, name) == 0)
            return value;
        i = (size_t)(value - h->data) + strlen(value) + 1;
    }
    return NULL;
}

size_t http_client_in_flight(const struct http_client *c)
{
    return c->in_flight;
}
