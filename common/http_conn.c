/* http_conn.c - one connection: bytes in, requests out to the user, deadlines, the end. See http_internal.h.
 */
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "common/clock.h"
#include "common/http_internal.h"
#include "common/mem.h"

#define DISCARD_MAX  (64 * 1024)  /* a body not wanted is read away up to this; else the connection closes */
#define PAUSE_UNSENT (256 * 1024) /* no further request is begun while so much waits to be sent */
#define BODY_FIRST   4096

static bool is_safe(const struct http_exchange *x)
{
    return x->pub.method == HTTP_GET || x->pub.method == HTTP_HEAD || x->pub.method == HTTP_OPTIONS;
}

/* Requests of one connection run side by side as long as all are safe (RFC 9112, 9.3.2); a write waits for
 * what is before it, and what is behind it waits for the write. */
static bool must_wait(const struct http_conn *c)
{
    if (conn_unsent(c) > PAUSE_UNSENT)
        return true;
    return c->cur != c->first && (!is_safe(c->cur) || !is_safe(c->first));
}

static bool may_begin(const struct http_conn *c)
{
    return c->queued < c->server->o.max_pipelined && conn_unsent(c) <= PAUSE_UNSENT;
}

static void enqueue(struct http_conn *c, struct http_exchange *x)
{
    if (c->last)
        c->last->next = x;
    else
        c->first = x;
    c->last = x;
    c->queued++;
    x->queued = true;
}

/* Forgets what is being read, which the user has not been given. */
static void drop_current(struct http_conn *c)
{
    struct http_exchange *x = c->cur;
    c->cur = NULL;
    c->continue_due = false;
    if (x == NULL)
        return;
    if (x->queued) { /* it is the last one */
        struct http_exchange **p = &c->first, *before = NULL;
        for (; *p != x; p = &(*p)->next)
            before = *p;
        *p = NULL;
        c->last = before;
        c->queued--;
    }
    http_exchange_abandon(x);
    http_exchange_release(x);
}

void http_exchange_abandon(struct http_exchange *x)
{
    if (x->gone)
        return;
    x->gone = true;
    if (x->on_abort && !x->answered)
        x->on_abort(&x->pub, x->abort_arg);
}

/* Cuts the queue off; the exchanges live on until they are answered. */
static void orphan_queue(struct http_conn *c)
{
    struct http_exchange *x;
    while ((x = c->first) != NULL) {
        c->first = x->next;
        c->queued--;
        x->next = NULL;
        x->conn = NULL;
        x->queued = false;
        if (x->answered)
            http_exchange_release(x);
        else
            http_exchange_abandon(x);
    }
    c->last = NULL;
}

void conn_shut(struct http_conn *c)
{
    drop_current(c);
    orphan_queue(c);
    free(c->pending);
    c->linger = c->linger || c->pending_len > 0;
    c->pending = NULL;
    c->pending_len = 0;
    c->read_deadline = 0;
    c->phase = HTTP_CLOSING;
    c->closing = true;
}

void conn_close(struct http_conn *c)
{
    if (c->dead)
        return;
    c->dead = true;
    event_del(&c->read_ev);
    event_del(&c->write_ev);
    close(c->fd);
    http_server_forget(c->server, c);
    conn_shut(c);
}

static void conn_free(struct http_conn *c)
{
    evbuffer_free(c->out);
    free(c->pending);
    free(c);
}

/* Answers by ourselves and closes: what follows on this connection can't be trusted or is not wanted. */
static void fail(struct http_conn *c, enum problem_code code, const char *why)
{
    struct http_exchange *x = c->cur ? c->cur : http_exchange_new(c->server, c);
    c->cur = NULL;
    c->continue_due = false;
    c->read_deadline = 0;
    c->phase = HTTP_CLOSING;
    c->linger = true;
    if (!x->queued)
        enqueue(c, x);
    x->close_after = true;
    x->handed = true;
    x->pub.body_len = 0;
    struct problem p = {
        .code = code, .detail = why, .retry_after_ms = problem_status(code) == 503 ? 1000 : 0};
    problem_reply(&x->pub, &p);
}

static void call_user(struct http_exchange *x, http_request_fn fn)
{
    x->in_callback = true;
    fn(&x->pub, x->server->o.arg);
    x->in_callback = false;
    if (x->release_due)
        http_exchange_release(x);
}

static void hand_over(struct http_conn *c)
{
    struct http_exchange *x = c->cur;
    c->cur = NULL;
    x->handed = true;
    c->phase = HTTP_READ_HEAD;
    if (!x->head.keep_alive) {
        x->close_after = true;
        c->phase = HTTP_CLOSING;
    }
    call_user(x, c->server->o.handle);
}

static void body_complete(struct http_conn *c)
{
    struct http_exchange *x = c->cur;
    if (x->body_cap) {
        x->body[x->pub.body_len] = '\0';
        x->pub.body = x->body;
    }
    c->read_deadline = c->body_deadline = 0;
    c->phase = HTTP_HELD;
    if (!must_wait(c))
        hand_over(c);
}

/* --- the head --- */

static bool id_is_plain(const char *s, size_t n)
{
    if (n == 0 || n >= HTTP_ID_SIZE)
        return false;
    for (size_t i = 0; i < n; i++) {
        char ch = s[i];
        if (!((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') || ch == '.' ||
              ch == '_' || ch == '-'))
            return false;
    }
    return true;
}

static void fill_request(struct http_exchange *x)
{
    struct http_head *h = &x->head;
    struct http_request *r = &x->pub;
    r->method = h->method;
    r->target = h->buf + h->target;
    r->path = h->path;
    r->query = h->query;
    r->segments = h->segments;
    r->n_segments = h->n_segments;
    r->arrived_us = clock_mono_us();
    int i = http_head_find(h, "X-Request-Id", 0);
    if (i >= 0 && id_is_plain(h->buf + h->fields[i].value, h->fields[i].value_len))
        memcpy(x->id, h->buf + h->fields[i].value, h->fields[i].value_len + 1u);
}

/* Called when the user wants the body. */
static void begin_body(struct http_conn *c)
{
    struct http_exchange *x = c->cur;
    struct http_server *s = c->server;
    if (x->head.content_length > x->pub.max_body) {
        fail(c, PROBLEM_TOO_LARGE, "the body is larger than what is taken here");
        return;
    }
    if (s->body_total + x->head.content_length > s->o.max_body_total) {
        fail(c, PROBLEM_OVERLOADED, "too many request bodies are being read");
        return;
    }
    int64_t now = clock_mono_ms();
    c->read_deadline = now + s->o.stall_timeout_ms;
    c->body_deadline = now + s->o.body_timeout_ms;
    if (x->head.expect_continue) {
        c->continue_due = true;
        conn_advance(c);
    }
}

static void head_complete(struct http_conn *c)
{
    struct http_exchange *x = c->cur;
    bool has_body = x->head.chunked || x->head.content_length > 0;
    fill_request(x);
    enqueue(c, x);
    c->read_deadline = 0;
    c->body_left = x->head.content_length;
    c->phase = x->head.chunked ? HTTP_READ_CHUNKS : has_body ? HTTP_READ_LENGTH : HTTP_HELD;
    http_chunk_init(&c->chunk);
    if (c->server->o.head) {
        call_user(x, c->server->o.head);
        if (c->cur != x) /* answered; x may be gone */
            return;
    }
    if (has_body)
        begin_body(c);
    else
        body_complete(c);
}

void conn_early_answer(struct http_conn *c, struct http_exchange *x)
{
    c->cur = NULL;
    c->continue_due = false;
    x->handed = true;
    if (!x->head.keep_alive)
        x->close_after = true;
    bool small = c->phase == HTTP_READ_LENGTH && c->body_left <= DISCARD_MAX && !x->head.expect_continue;
    if (c->phase != HTTP_HELD && (!small || x->close_after)) {
        x->close_after = true;
        c->linger = true;
    }
    if (x->close_after) {
        c->phase = HTTP_CLOSING;
    } else if (c->phase == HTTP_HELD) {
        c->phase = HTTP_READ_HEAD;
    } else {
        c->phase = HTTP_DISCARD;
        c->read_deadline = clock_mono_ms() + c->server->o.stall_timeout_ms;
    }
}

static size_t feed_head(struct http_conn *c, const char *p, size_t n)
{
    size_t used;
    if (c->cur == NULL) {
        c->cur = http_exchange_new(c->server, c);
        c->read_deadline = clock_mono_ms() + c->server->o.head_timeout_ms;
    }
    switch (http_head_feed(&c->cur->head, p, n, &used)) {
    case HTTP_HEAD_MORE:
        break;
    case HTTP_HEAD_DONE:
        head_complete(c);
        break;
    case HTTP_HEAD_BAD:
        fail(c, c->cur->head.problem, c->cur->head.why);
        break;
    }
    return used;
}

/* --- the body --- */

/* Memory grows with what has really come, not with what was announced. */
static int append_body(struct http_conn *c, const char *p, size_t n)
{
    struct http_exchange *x = c->cur;
    size_t need = x->pub.body_len + n + 1;
    if (x->pub.body_len + n > x->pub.max_body) {
        fail(c, PROBLEM_TOO_LARGE, "the body is larger than what is taken here");
        return -1;
    }
    if (need > x->body_cap) {
        size_t cap = x->body_cap ? x->body_cap : BODY_FIRST;
        while (cap < need)
            cap *= 2;
        if (c->server->body_total + cap - x->body_cap > c->server->o.max_body_total) {
            fail(c, PROBLEM_OVERLOADED, "too many request bodies are being read");
            return -1;
        }
        x->body = mem_grow(x->body, cap, 1);
        c->server->body_total += cap - x->body_cap;
        x->body_cap = cap;
    }
    memcpy(x->body + x->pub.body_len, p, n);
    x->pub.body_len += n;
    c->read_deadline = clock_mono_ms() + c->server->o.stall_timeout_ms;
    return 0;
}

static size_t feed_length(struct http_conn *c, const char *p, size_t n)
{
    size_t take = n < c->body_left ? n : (size_t)c->body_left;
    if (append_body(c, p, take) != 0)
        return take;
    c->body_left -= take;
    if (c->body_left == 0)
        body_complete(c);
    return take;
}

static size_t feed_chunks(struct http_conn *c, const char *p, size_t n)
{
    const char *data;
    size_t used, len;
    switch (http_chunk_feed(&c->chunk, p, n, &used, &data, &len)) {
    case HTTP_CHUNK_MORE:
        break;
    case HTTP_CHUNK_DATA:
        if (append_body(c, data, len) != 0)
            return used;
        break;
    case HTTP_CHUNK_DONE:
        body_complete(c);
        break;
    case HTTP_CHUNK_BAD:
        fail(c, PROBLEM_INVALID_REQUEST, "the chunks of the body are malformed");
        break;
    case HTTP_CHUNK_TRAILERS:
        fail(c, PROBLEM_HEADERS_TOO_LARGE, "the trailer section is over 16384 bytes or 100 lines");
        break;
    }
    return used;
}

static size_t feed_discard(struct http_conn *c, size_t n)
{
    size_t take = n < c->body_left ? n : (size_t)c->body_left;
    c->body_left -= take;
    if (c->body_left == 0) {
        c->phase = HTTP_READ_HEAD;
        c->read_deadline = 0;
    }
    return take;
}

/* Uses up what it can; stops early when the connection is held. */
static size_t feed(struct http_conn *c, const char *p, size_t n)
{
    size_t i = 0;
    while (i < n && !c->dead) {
        switch (c->phase) {
        case HTTP_READ_HEAD:
            if (c->cur == NULL && !may_begin(c))
                return i;
            i += feed_head(c, p + i, n - i);
            break;
        case HTTP_READ_LENGTH:
            i += feed_length(c, p + i, n - i);
            break;
        case HTTP_READ_CHUNKS:
            i += feed_chunks(c, p + i, n - i);
            break;
        case HTTP_DISCARD:
            i += feed_discard(c, n - i);
            break;
        case HTTP_HELD:
            return i;
        case HTTP_CLOSING:
        case HTTP_LINGER:
            c->linger = true;
            return n;
        }
    }
    return n < i ? n : i;
}

static size_t feed_corked(struct http_conn *c, const char *p, size_t n)
{
    c->feeding = true;
    size_t used = feed(c, p, n);
    c->feeding = false;
    return used;
}

static void save_pending(struct http_conn *c, const char *p, size_t n)
{
    if (c->dead || n == 0)
        return;
    assert(c->pending == NULL);
    c->pending = mem_alloc(n);
    memcpy(c->pending, p, n);
    c->pending_len = n;
}

/* Goes on with what was held back; says whether anything moved. */
static bool resume(struct http_conn *c)
{
    bool moved = false;
    if (c->phase == HTTP_HELD && !must_wait(c)) {
        c->feeding = true;
        hand_over(c);
        c->feeding = false;
        moved = true;
    }
    if (c->pending_len > 0 && !c->dead) {
        char *p = c->pending;
        size_t n = c->pending_len;
        c->pending = NULL;
        c->pending_len = 0;
        size_t used = feed_corked(c, p, n);
        save_pending(c, p + used, n - used);
        free(p);
        moved = moved || used > 0;
    }
    return moved;
}

/* --- events --- */

static void set_reading(struct http_conn *c, bool on)
{
    if (on == c->reading)
        return;
    c->reading = on;
    if (on)
        event_add(&c->read_ev, NULL);
    else
        event_del(&c->read_ev);
}

bool conn_is_idle(const struct http_conn *c)
{
    return c->first == NULL && (c->cur == NULL || c->cur->head.len == 0) && c->phase == HTTP_READ_HEAD &&
           c->pending_len == 0 && conn_unsent(c) == 0;
}

/* The answer that closes is written. Closing with unread input would make the kernel send a reset, which can
 * overtake the answer; so our side is shut down first and the rest is read away for a while (RFC 9112, 9.6).
 */
static void finish_closing(struct http_conn *c)
{
    int unread = 0;
    if (c->eof || (!c->linger && (ioctl(c->fd, FIONREAD, &unread) != 0 || unread == 0))) {
        conn_close(c);
        return;
    }
    shutdown(c->fd, SHUT_WR);
    c->phase = HTTP_LINGER;
    c->read_deadline = clock_mono_ms() + c->server->o.linger_timeout_ms;
}

static void settle(struct http_conn *c)
{
    do {
        conn_flush(c);
    } while (!c->dead && resume(c));
    if (c->dead)
        return;
    if (c->closing && c->phase != HTTP_LINGER && conn_unsent(c) == 0)
        finish_closing(c);
    else if (c->closing && c->eof && conn_unsent(c) == 0)
        conn_close(c);
    else if (c->server->draining && conn_is_idle(c))
        conn_close(c);
    if (c->dead)
        return;
    if (c->read_deadline == 0 && conn_is_idle(c))
        c->read_deadline = clock_mono_ms() + c->server->o.idle_timeout_ms;
    set_reading(c, !c->eof && c->pending_len == 0);
}

void conn_enter(struct http_conn *c)
{
    c->busy++;
}

void conn_leave(struct http_conn *c)
{
    if (c->busy == 1 && !c->dead)
        settle(c);
    if (--c->busy == 0 && c->dead)
        conn_free(c);
}

/* The client closed its sending side. Most have gone altogether, some wait for the answers: so the user is
 * told, and what is answered in spite of it is still sent. */
static void input_ended(struct http_conn *c)
{
    c->eof = true;
    if (c->phase != HTTP_HELD) {
        drop_current(c);
        c->read_deadline = 0;
        c->phase = c->phase == HTTP_LINGER ? HTTP_LINGER : HTTP_CLOSING;
    }
    struct http_exchange *x = c->first;
    while (x) {
        if (x->gone) {
            x = x->next;
        } else {
            http_exchange_abandon(x);
            x = c->first; /* the user may have answered others meanwhile */
        }
    }
    if (c->first == NULL)
        c->closing = true;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct http_conn *c = arg;
    struct http_server *s = c->server;
    (void)what;
    ssize_t n = recv(fd, s->scratch, sizeof s->scratch, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    conn_enter(c);
    if (n < 0) {
        conn_close(c);
    } else if (n == 0) {
        input_ended(c);
    } else {
        size_t used = feed_corked(c, s->scratch, (size_t)n);
        save_pending(c, s->scratch + used, (size_t)n - used);
    }
    conn_leave(c);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct http_conn *c = arg;
    (void)fd;
    (void)what;
    conn_enter(c);
    conn_leave(c); /* settling writes */
}

void conn_check(struct http_conn *c, int64_t now)
{
    bool in_body = c->phase == HTTP_READ_LENGTH || c->phase == HTTP_READ_CHUNKS;
    bool late = c->read_deadline != 0 && now >= c->read_deadline;
    if (in_body && c->body_deadline != 0 && now >= c->body_deadline)
        late = true;
    if (c->write_deadline != 0 && now >= c->write_deadline) {
        conn_close(c);
    } else if (late && in_body) {
        fail(c, PROBLEM_REQUEST_TIMEOUT, "the body did not arrive in time");
    } else if (late && c->phase == HTTP_READ_HEAD && c->cur && c->cur->head.len > 0) {
        fail(c, PROBLEM_REQUEST_TIMEOUT, "the head did not arrive in time");
    } else if (late) {
        conn_close(c);
    }
}

static void name_peer(struct http_conn *c, const struct sockaddr *peer)
{
    const void *a = NULL;
    if (peer->sa_family == AF_INET)
        a = &((const struct sockaddr_in *)(const void *)peer)->sin_addr;
    else if (peer->sa_family == AF_INET6)
        a = &((const struct sockaddr_in6 *)(const void *)peer)->sin6_addr;
    if (a)
        inet_ntop(peer->sa_family, a, c->client, sizeof c->client);
}

void conn_new(struct http_server *s, int fd, const struct sockaddr *peer, bool refuse)
{
    struct http_conn *c = mem_zero(1, sizeof *c);
    int on = 1;
    c->server = s;
    c->fd = fd;
    c->out = evbuffer_new();
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    name_peer(c, peer);
    event_assign(&c->read_ev, s->base, fd, EV_READ | EV_PERSIST, on_readable, c);
    event_assign(&c->write_ev, s->base, fd, EV_WRITE | EV_PERSIST, on_writable, c);
    c->next = s->conns;
    if (s->conns)
        s->conns->prev = c;
    s->conns = c;
    s->n_conns++;
    conn_enter(c);
    if (refuse)
        fail(c, PROBLEM_OVERLOADED, "too many connections");
    else
        c->read_deadline = clock_mono_ms() + s->o.head_timeout_ms;
    conn_leave(c);
}
