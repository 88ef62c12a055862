/* http_reply.c - answers: their heads, their order, their way into the socket. See http_internal.h. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include "common/clock.h"
#include "common/http_internal.h"
#include "common/mem.h"

#define REFERENCE_MIN (32 * 1024) /* bytes given over are kept by reference from here on, copied below */
#define FLUSH_VECTORS 16

/* --- bytes out --- */

size_t conn_unsent(const struct http_conn *c)
{
    return evbuffer_get_length(c->out);
}

static ssize_t send_vectors(struct http_conn *c, struct iovec *v, int n)
{
    struct msghdr m = {.msg_iov = v, .msg_iovlen = (size_t)n};
    ssize_t sent = sendmsg(c->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0)
        return sent;
    if (errno == EAGAIN || errno == EINTR)
        return 0;
    conn_close(c);
    return -1;
}

static void set_writing(struct http_conn *c, bool on)
{
    if (on == c->writing)
        return;
    c->writing = on;
    if (on)
        event_add(&c->write_ev, NULL);
    else
        event_del(&c->write_ev);
}

void conn_flush(struct http_conn *c)
{
    size_t before = conn_unsent(c);
    while (!c->dead && conn_unsent(c) > 0) {
        struct evbuffer_iovec ev[FLUSH_VECTORS];
        struct iovec v[FLUSH_VECTORS];
        int n = evbuffer_peek(c->out, -1, NULL, ev, FLUSH_VECTORS);
        n = n < FLUSH_VECTORS ? n : FLUSH_VECTORS;
        for (int i = 0; i < n; i++)
            v[i] = (struct iovec){ev[i].iov_base, ev[i].iov_len};
        ssize_t sent = send_vectors(c, v, n);
        if (sent <= 0)
            break;
        evbuffer_drain(c->out, (size_t)sent);
    }
    if (c->dead)
        return;
    size_t left = conn_unsent(c);
    if (left == 0)
        c->write_deadline = 0;
    else if (left < before || c->write_deadline == 0)
        c->write_deadline = clock_mono_ms() + c->server->o.stall_timeout_ms;
    set_writing(c, left > 0);
}

/* What is left of v after `sent` bytes goes to the end of b. */
static void add_rest(struct evbuffer *b, const struct iovec *v, int n, size_t sent)
{
    size_t total = 0;
    for (int i = 0; i < n; i++)
        total += v[i].iov_len;
    if (total == sent)
        return;
    evbuffer_expand(b, total - sent); /* one piece of memory for all */
    for (int i = 0; i < n; i++) {
        size_t skip = sent < v[i].iov_len ? sent : v[i].iov_len;
        sent -= skip;
        evbuffer_add(b, (const char *)v[i].iov_base + skip, v[i].iov_len - skip);
    }
}

/* Writes for x: straight into the socket when it is its turn and nothing waits before it; else copied. */
static void emit(struct http_exchange *x, struct iovec *v, int n)
{
    struct http_conn *c = x->conn;
    if (c->first != x) {
        if (x->out == NULL)
            x->out = evbuffer_new();
        add_rest(x->out, v, n, 0);
        return;
    }
    ssize_t sent = 0;
    if (!c->feeding && !c->dead && conn_unsent(c) == 0)
        sent = send_vectors(c, v, n);
    if (sent >= 0 && !c->dead)
        add_rest(c->out, v, n, (size_t)sent);
}

/* Where the bytes of x wait. */
static struct evbuffer *waiting(struct http_exchange *x)
{
    if (x->conn->first == x)
        return x->conn->out;
    if (x->out == NULL)
        x->out = evbuffer_new();
    return x->out;
}

/* --- order --- */

static void send_continue(struct http_conn *c)
{
    static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct iovec v = {(void *)(uintptr_t)text, sizeof text - 1};
    c->continue_due = false;
    emit(c->cur, &v, 1);
}

void conn_advance(struct http_conn *c)
{
    struct http_exchange *x;
    while ((x = c->first) != NULL && x->answered) {
        bool close_after = x->close_after;
        c->first = x->next;
        if (c->first == NULL)
            c->last = NULL;
        c->queued--;
        x->queued = false;
        x->conn = NULL;
        http_exchange_release(x);
        if (close_after) {
            conn_shut(c);
            return;
        }
        if (c->first && c->first->out) {
            evbuffer_add_buffer(c->out, c->first->out);
            evbuffer_free(c->first->out);
            c->first->out = NULL;
        }
    }
    if (c->continue_due && c->first == c->cur)
        send_continue(c);
    if (c->eof && c->first == NULL && c->cur == NULL)
        c->closing = true;
}

/* --- heads --- */

struct writer {
    char *p, *end;
};

static void put(struct writer *w, const char *s, size_t n)
{
    assert((size_t)(w->end - w->p) >= n);
    memcpy(w->p, s, n);
    w->p += n;
}

static void put_str(struct writer *w, const char *s)
{
    put(w, s, strlen(s));
}

static void put_number(struct writer *w, uint64_t v)
{
    char text[20];
    size_t i = sizeof text;
    do {
        text[--i] = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    put(w, text + i, sizeof text - i);
}

static const char *date_now(struct http_server *s)
{
    int64_t now = clock_wall_ms() / 1000;
    if (now != s->date_s) {
        time_t t = (time_t)now;
        struct tm tm;
        gmtime_r(&t, &tm);
        strftime(s->date, sizeof s->date, "%a, %d %b %Y %H:%M:%S GMT", &tm);
        s->date_s = now;
    }
    return s->date;
}

static bool has_no_body(int status)
{
    return status == 204 || status == 304 || status < 200;
}

/* Whether this answer is the connection's last, decided when its head is written. */
static void decide_close(struct http_exchange *x)
{
    struct http_conn *c = x->conn;
    if (c->cur == x)
        conn_early_answer(c, x);
    bool nothing_behind = x == c->last && c->cur == NULL && c->pending_len == 0;
    if (c->server->draining && nothing_behind)
        x->close_after = true;
    if (x->chunked_out && x->head.http10)
        x->close_after = true;
    if (x->close_after && c->cur == NULL)
        c->phase = HTTP_CLOSING;
}

/* The head into the server's buffer; answers its length. len < 0: chunks. */
static size_t build_head(struct http_exchange *x, int status, const char *type, int64_t len)
{
    struct http_server *s = x->server;
    struct writer w = {s->head_out, s->head_out + sizeof s->head_out};
    put_str(&w, "HTTP/1.1 ");
    put_number(&w, (uint64_t)status);
    put_str(&w, " ");
    put_str(&w, http_status_str((enum http_status)status));
    put_str(&w, "\r\nDate: ");
    put_str(&w, date_now(s));
    put_str(&w, "\r\nX-Request-Id: ");
    put_str(&w, x->id);
    if (type) {
        put_str(&w, "\r\nContent-Type: ");
        put(&w, type, strnlen(type, 256));
    }
    if (len >= 0 && !has_no_body(status)) {
        put_str(&w, "\r\nContent-Length: ");
        put_number(&w, (uint64_t)len);
    } else if (len < 0 && !x->head.http10) {
        put_str(&w, "\r\nTransfer-Encoding: chunked");
    }
    if (x->close_after)
        put_str(&w, "\r\nConnection: close");
    else if (x->head.http10)
        put_str(&w, "\r\nConnection: keep-alive");
    put_str(&w, "\r\n");
    if (x->extra_len)
        put(&w, x->extra, x->extra_len);
    put_str(&w, "\r\n");
    return (size_t)(w.p - s->head_out);
}

void http_header_add(struct http_request *r, const char *name, const char *value)
{
    struct http_exchange *x = http_exchange_of(r);
    size_t n = strlen(name), m = strlen(value);
    if (x->extra_len + n + m + 4 > HTTP_EXTRA_MAX)
        return;
    if (x->extra_len + n + m + 4 > x->extra_cap) {
        x->extra_cap = 2 * (x->extra_len + n + m + 4);
        x->extra = mem_grow(x->extra, x->extra_cap, 1);
    }
    char *p = x->extra + x->extra_len;
    memcpy(p, name, n);
    memcpy(p + n, ": ", 2);
    p += n + 2;
    for (size_t i = 0; i < m; i++)
        *p++ = (unsigned char)value[i] < ' ' || value[i] == 0x7f ? ' ' : value[i];
    memcpy(p, "\r\n", 2);
    x->extra_len += n + m + 4;
}

/* --- answers --- */

/* The answer is complete as far as the user is concerned; x may be gone after it. */
static void complete(struct http_exchange *x)
{
    struct http_server *s = x->server;
    x->answered = true;
    if (s->o.on_done) {
        int64_t us = x->pub.arrived_us ? clock_mono_us() - x->pub.arrived_us : 0;
        s->o.on_done(&x->pub, x->status, x->sent_body, us, s->o.arg);
    }
    if (x->conn)
        conn_advance(x->conn);
    else
        http_exchange_release(x);
}

struct answer {
    const void *body; /* copied */
    size_t len;
    char *take;            /* the same bytes, to be freed by us */
    struct evbuffer *move; /* the bytes are in here instead */
};

static void free_taken(const void *data, size_t len, void *arg)
{
    (void)data;
    (void)len;
    free(arg);
}

/* Head and body of a whole answer. Takes a->take. */
static void emit_answer(struct http_exchange *x, struct iovec head, const struct answer *a)
{
    if (a->move || (a->take && a->len >= REFERENCE_MIN)) {
        struct evbuffer *b = waiting(x);
        evbuffer_add(b, head.iov_base, head.iov_len);
        if (a->move)
            evbuffer_add_buffer(b, a->move);
        else
            evbuffer_add_reference(b, a->take, a->len, free_taken, a->take);
        return;
    }
    struct iovec v[2] = {head, {(void *)(uintptr_t)a->body, a->len}};
    emit(x, v, a->len ? 2 : 1);
    free(a->take);
}

static void reply(struct http_exchange *x, int status, const char *type, const struct answer *a)
{
    struct http_conn *c = x->conn;
    assert(!x->answered && !x->started);
    x->status = status;
    if (c == NULL) {
        free(a->take);
        complete(x);
        return;
    }
    conn_enter(c);
    decide_close(x);
    struct iovec head = {c->server->head_out, build_head(x, status, type, (int64_t)a->len)};
    if (x->pub.method == HTTP_HEAD || has_no_body(status)) {
        emit(x, &head, 1);
        free(a->take);
    } else {
        x->sent_body = a->len;
        emit_answer(x, head, a);
    }
    complete(x);
    conn_leave(c);
}

void http_reply(struct http_request *r, int status, const char *type, const void *body, size_t len)
{
    reply(http_exchange_of(r), status, type, &(struct answer){.body = body, .len = len});
}

void http_reply_take(struct http_request *r, int status, const char *type, char *body, size_t len)
{
    reply(http_exchange_of(r), status, type, &(struct answer){.body = body, .len = len, .take = body});
}

void http_reply_evbuffer(struct http_request *r, int status, const char *type, struct evbuffer *body)
{
    reply(http_exchange_of(r), status, type,
          &(struct answer){.len = evbuffer_get_length(body), .move = body});
    evbuffer_drain(body, evbuffer_get_length(body)); /* nothing is left unless it had nowhere to go */
}

void http_reply_close(struct http_request *r)
{
    http_exchange_of(r)->close_after = true;
}

/* --- streams --- */

void http_stream_start(struct http_request *r, int status, const char *type)
{
    struct http_exchange *x = http_exchange_of(r);
    struct http_conn *c = x->conn;
    assert(!x->answered && !x->started);
    x->status = status;
    x->started = x->handed = x->chunked_out = true;
    r->streamed = true;
    if (c == NULL)
        return;
    conn_enter(c);
    decide_close(x);
    struct iovec head = {c->server->head_out, build_head(x, status, type, -1)};
    emit(x, &head, 1);
    conn_leave(c);
}

int http_stream_add(struct http_request *r, const void *data, size_t len)
{
    struct http_exchange *x = http_exchange_of(r);
    struct http_conn *c = x->conn;
    assert(x->started && !x->answered);
    if (c == NULL)
        return -1;
    if (len == 0 || r->method == HTTP_HEAD)
        return 0;
    char size[24];
    int n = snprintf(size, sizeof size, "%zx\r\n", len);
    struct iovec v[3] = {{size, (size_t)n}, {(void *)(uintptr_t)data, len}, {(void *)(uintptr_t) "\r\n", 2}};
    conn_enter(c);
    if (x->head.http10)
        emit(x, v + 1, 1);
    else
        emit(x, v, 3);
    x->sent_body += len;
    if (x->conn && http_stream_unsent(r) > c->server->o.max_unsent)
        conn_close(c);
    conn_leave(c);
    return x->conn ? 0 : -1;
}

size_t http_stream_unsent(const struct http_request *r)
{
    const struct http_exchange *x = http_exchange_of(r);
    if (x->conn == NULL)
        return 0;
    if (x->conn->first == x)
        return conn_unsent(x->conn);
    return x->out ? evbuffer_get_length(x->out) : 0;
}

void http_stream_end(struct http_request *r)
{
    struct http_exchange *x = http_exchange_of(r);
    struct http_conn *c = x->conn;
    assert(x->started && !x->answered);
    if (c == NULL) {
        complete(x);
        return;
    }
    conn_enter(c);
    if (!x->head.http10 && r->method != HTTP_HEAD) {
        struct iovec v = {(void *)(uintptr_t) "0\r\n\r\n", 5};
        emit(x, &v, 1);
    }
    complete(x);
    conn_leave(c);
}

void http_stream_abort(struct http_request *r)
{
    struct http_exchange *x = http_exchange_of(r);
    struct http_conn *c = x->conn;
    assert(x->started && !x->answered);
    x->on_abort = NULL;
    if (c) {
        conn_enter(c);
        conn_close(c);
        conn_leave(c);
    }
    complete(x);
}
