/* http_read.c - what a connection makes of the bytes that come in: heads, bodies, whose turn it is. See
 * http_internal.h.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
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

void conn_drop_current(struct http_conn *c)
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
    x->conn = NULL;
    x->queued = false;
    http_exchange_abandon(x);
    http_exchange_release(x);
}

void conn_fail(struct http_conn *c, enum problem_code code, const char *why)
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
    int status = problem_status(code);
    struct problem p = {
        .code = code, .detail = why, .retry_after_ms = status == 503 || status == 429 ? 1000 : 0};
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
        conn_fail(c, PROBLEM_TOO_LARGE, "the body is larger than what is taken here");
        return;
    }
    if (s->budget->body_bytes + x->head.content_length > s->o.max_body_total) {
        conn_fail(c, PROBLEM_OVERLOADED, "too many request bodies are being read");
        return;
    }
    int64_t now = clock_mono_ms();
    c->read_deadline = now + s->o.stall_timeout_ms;
    c->body_began = now;
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
        conn_fail(c, c->cur->head.problem, c->cur->head.why);
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
        conn_fail(c, PROBLEM_TOO_LARGE, "the body is larger than what is taken here");
        return -1;
    }
    if (need > x->body_cap) {
        size_t cap = x->body_cap ? x->body_cap : BODY_FIRST;
        while (cap < need)
            cap *= 2;
        if (c->server->budget->body_bytes + cap - x->body_cap > c->server->o.max_body_total) {
            conn_fail(c, PROBLEM_OVERLOADED, "too many request bodies are being read");
            return -1;
        }
        x->body = mem_grow(x->body, cap, 1);
        c->server->budget->body_bytes += cap - x->body_cap;
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
        conn_fail(c, PROBLEM_INVALID_REQUEST, "the chunks of the body are malformed");
        break;
    case HTTP_CHUNK_TRAILERS:
        conn_fail(c, PROBLEM_HEADERS_TOO_LARGE, "the trailer section is over 16384 bytes or 100 lines");
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

void conn_take(struct http_conn *c, const char *p, size_t n)
{
    size_t used = feed_corked(c, p, n);
    save_pending(c, p + used, n - used);
}

bool conn_resume(struct http_conn *c)
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
        conn_take(c, p, n);
        free(p);
        moved = moved || c->pending_len < n;
    }
    return moved;
}
