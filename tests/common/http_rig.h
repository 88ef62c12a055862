/* http_rig.h - the server that the tests of the flow and of the life of connections share. A path says what
 * the handler does: /keep* is answered later by the test, /stream, /big, /medium, /evbuffer, /none, /close
 * speak for themselves, anything else is echoed; /early is refused and /small capped before the body. Static
 * functions, since every test is one binary. */
#ifndef FEEDMILL_TESTS_HTTP_RIG_H
#define FEEDMILL_TESTS_HTTP_RIG_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <event2/buffer.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "common/clock.h"
#include "common/http_server.h"
#include "common/mem.h"
#include "common/problem.h"
#include "tests/support/http_fixture.h"
#include "tests/support/rawhttp.h"

#define HOST "Host: a\r\n"

/* What the handler keeps, to be answered later by the test. */
static struct http_request *kept[64];
static int n_kept, n_aborted, n_handled, n_done;
static int last_status;
static size_t last_bytes;

static void count(int *n)
{
    __atomic_add_fetch(n, 1, __ATOMIC_RELEASE);
}

static int read_count(const int *n)
{
    return __atomic_load_n(n, __ATOMIC_ACQUIRE);
}

static void on_abort(struct http_request *r, void *arg)
{
    (void)r;
    (void)arg;
    count(&n_aborted);
}

static void on_head(struct http_request *r, void *arg)
{
    (void)arg;
    if (strcmp(r->path, "/early") == 0) {
        problem_simple(r, PROBLEM_UNAUTHORIZED, NULL);
    } else if (strcmp(r->path, "/small") == 0) {
        r->max_body = 10;
    } else if (strcmp(r->path, "/stream-early") == 0) {
        http_stream_start(r, 200, "text/plain");
        kept[0] = r;
    }
}

static void reply_big(struct http_request *r, size_t n)
{
    char *body = mem_alloc(n);
    memset(body, 'b', n);
    http_reply_take(r, 200, "text/plain", body, n);
}

static void reply_evbuffer(struct http_request *r)
{
    struct evbuffer *b = evbuffer_new();
    evbuffer_add_printf(b, "from %s", r->path);
    http_reply_evbuffer(r, 200, "text/plain", b);
    evbuffer_free(b);
}

static void stream_some(struct http_request *r)
{
    http_stream_start(r, 200, "application/x-ndjson");
    assert_int_equal(http_stream_add(r, "one\n", 4), 0);
    assert_int_equal(http_stream_add(r, "", 0), 0);
    assert_int_equal(http_stream_add(r, "two\n", 4), 0);
    http_stream_end(r);
}

static void on_request(struct http_request *r, void *arg)
{
    (void)arg;
    count(&n_handled);
    if (strncmp(r->path, "/keep", 5) == 0) {
        http_request_on_abort(r, on_abort, NULL);
        kept[n_kept] = r;
        count(&n_kept);
    } else if (strcmp(r->path, "/stream") == 0) {
        stream_some(r);
    } else if (strcmp(r->path, "/big") == 0) {
        reply_big(r, 3000000);
    } else if (strcmp(r->path, "/medium") == 0) {
        reply_big(r, 20000);
    } else if (strcmp(r->path, "/evbuffer") == 0) {
        reply_evbuffer(r);
    } else if (strcmp(r->path, "/none") == 0) {
        http_reply(r, 204, NULL, "ignored", 7);
    } else if (strcmp(r->path, "/close") == 0) {
        http_reply_close(r);
        http_reply(r, 200, "text/plain", "bye", 3);
    } else {
        http_header_add(r, "X-Echo", r->query);
        if (strcmp(r->path, "/split") == 0)
            http_header_add(r, "X-Split", "a\r\nX-Evil: 1");
        http_reply(r, 200, "text/plain", r->body_len ? r->body : r->path,
                   r->body_len ? r->body_len : strlen(r->path));
    }
}

static void on_done(const struct http_request *r, int status, size_t bytes, int64_t us, void *arg)
{
    (void)r;
    (void)arg;
    assert_true(us >= 0);
    __atomic_store_n(&last_status, status, __ATOMIC_RELAXED);
    __atomic_store_n(&last_bytes, bytes, __ATOMIC_RELAXED);
    count(&n_done);
}

static struct http_fixture *start_with(struct http_server_options o)
{
    n_kept = n_aborted = n_handled = n_done = 0;
    o.head = on_head;
    o.handle = on_request;
    o.on_done = on_done;
    return http_fixture_start(&o);
}

static struct http_fixture *start_plain(void)
{
    return start_with((struct http_server_options){.max_body = 100000});
}

struct late {
    int i;
    const char *body;
};

static void answer_kept(struct http_fixture *f, void *arg)
{
    struct late *l = arg;
    (void)f;
    http_reply(kept[l->i], 200, "text/plain", l->body, strlen(l->body));
}

static void answer(struct http_fixture *f, int i, const char *body)
{
    http_fixture_run(f, answer_kept, &(struct late){i, body});
}

static void expect_body(struct rawhttp *c, int status, const char *body)
{
    struct reply r;
    rawhttp_read(c, "GET", &r);
    if (r.status != status || (body && strcmp(r.body, body) != 0))
        fail_msg("%d %.100s instead of %d %s", r.status, r.body, status, body ? body : "");
    reply_done(&r);
}

static void get(struct rawhttp *c, const char *path)
{
    char text[200];
    snprintf(text, sizeof text, "GET %s HTTP/1.1\r\n" HOST "\r\n", path);
    rawhttp_send_str(c, text);
}

#endif
