#include "common/http_link.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>
#include "common/clock.h"
#include "common/mem.h"

#define READ_SIZE   (32 * 1024)
#define HEADERS_MAX (16 * 1024)

void link_close(struct link *l)
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
    call_answered(k, &r);
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

void link_start(struct link *l, struct call *k, bool connected)
{
    l->call = k;
    k->link = l;
    l->heard = l->complete = l->in_value = l->head_done = false;
    l->refused = ERR_NONE;
    buf_reset(&l->headers);
    buf_reset(&l->body);
    http_parser_init(&l->parser, HTTP_RESPONSE);
    l->parser.data = l;
    if (!connected)
        event_add(&l->write_ev, NULL); /* it will be writable once it is connected, or failed to */
    else if (send_some(l) != 0)
        link_fail(l, ERR_UNAVAILABLE, strerror(errno));
}

struct link *link_new(struct http_client *c)
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
