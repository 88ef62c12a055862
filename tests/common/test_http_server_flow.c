/* How requests flow: order, keep-alive, bodies refused early, late answers, streams, deadlines, caps, drain.
 */
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
static int n_kept, n_aborted, n_handled, n_done, n_drained;
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
    n_kept = n_aborted = n_handled = n_done = n_drained = 0;
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

/* --- order --- */

static void a_connection_serves_many_requests(void **state)
{
    struct http_fixture *f = start_plain();
    struct rawhttp *c = rawhttp_open(f->port);
    (void)state;
    for (int i = 0; i < 100; i++) {
        struct reply r;
        rawhttp_request(c, i % 2 ? "POST" : "GET", "/x?q", NULL, i % 2 ? "body" : NULL, 4, &r);
        assert_int_equal(r.status, 200);
        assert_string_equal(r.body, i % 2 ? "body" : "/x");
        assert_string_equal(reply_header(&r, "X-Echo"), "q");
        assert_false(r.close);
        reply_done(&r);
    }
    rawhttp_close(c);
    http_fixture_stop(f);
}

static void pipelined_requests_are_answered_in_order(void **state)
{
    struct http_fixture *f = start_plain();
    struct rawhttp *c = rawhttp_open(f->port);
    char text[32 * 300], body[20];
    size_t n = 0;
    (void)state;
    for (int i = 0; i < 300; i++)
        n += (size_t)sprintf(text + n, "GET /%d HTTP/1.1\r\n" HOST "\r\n", i);
    rawhttp_send(c, text, n);
    for (int i = 0; i < 300; i++) {
        sprintf(body, "/%d", i);
        expect_body(c, 200, body);
    }
    rawhttp_close(c);
    http_fixture_stop(f);
}

static void late_answers_are_sent_in_the_order_of_the_requests(void **state)
{
    struct http_fixture *f = start_plain();
    struct rawhttp *c = rawhttp_open(f->port);
    (void)state;
    get(c, "/keep0");
    get(c, "/keep1");
    get(c, "/now");
    get(c, "/keep2");
    wait_until_at_least(&n_kept, 3);
    answer(f, 2, "third");
    answer(f, 1, "second");
    answer(f, 0, "first");
    expect_body(c, 200, "first");
    expect_body(c, 200, "second");
    expect_body(c, 200, "/now");
    expect_body(c, 200, "third");
    rawhttp_close(c);
    http_fixture_stop(f);
}

static void a_write_waits_for_what_is_before_it_and_holds_what_is_behind(void **state)
{
    struct http_fixture *f = start_plain();
    struct rawhttp *c = rawhttp_open(f->port);
    (void)state;
    rawhttp_send_str(c, "GET /keep0 HTTP/1.1\r\n" HOST "\r\n"
                        "POST /keep1 HTTP/1.1\r\n" HOST "Content-Length: 2\r\n\r\nhi"
                        "GET /after HTTP/1.1\r\n" HOST "\r\n");
    wait_until_at_least(&n_kept, 1);
    assert_int_equal(read_count(&n_handled), 1);
    answer(f, 0, "0");
    wait_until_at_least(&n_kept, 2);
    assert_int_equal(read_count(&n_handled), 2);
    answer(f, 1, "1");
    expect_body(c, 200, "0");
    expect_body(c, 200, "1");
    expect_body(c, 200, "/after");
    assert_int_equal(read_count(&n_handled), 3);
    rawhttp_close(c);
    http_fixture_stop(f);
}

static void no_more_than_max_pipelined_requests_are_in_work(void **state)
{
    struct http_fixture *f = start_with((struct http_server_options){.max_pipelined = 4});
    struct rawhttp *c = rawhttp_open(f->port);
    (void)state;
    for (int i = 0; i < 10; i++)
        get(c, "/keep");
    wait_until_at_least(&n_kept, 4);
    for (int i = 0; i < 10; i++) {
        assert_true(read_count(&n_handled) <= i + 4);
        wait_until_at_least(&n_kept, i + 1);
        answer(f, i, "x");
        expect_body(c, 200, "x");
    }
    rawhttp_close(c);
    http_fixture_stop(f);
}

static void large_answers_of_a_pipeline_arrive_whole(void **state)
{
    struct http_fixture *f = start_plain();
    struct rawhttp *c = rawhttp_open(f->port);
    static const char *const paths[] = {"/big", "/medium", "/evbuffer", "/big", "/stream", "/medium"};
    static const size_t sizes[] = {3000000, 20000, 14, 3000000, 8, 20000};
    (void)state;
    for (int i = 0; i < 6; i++)
        get(c, paths[i]);
    for (int i = 0; i < 6; i++) {
        struct reply r;
        rawhttp_read(c, "GET", &r);
        assert_int_equal(r.len, sizes[i]);
        reply_done(&r);
    }
    rawhttp_close(c);
    http_fixture_stop(f);
}

/* --- kinds of answers --- */

static void head_has_the_fields_of_get_and_no_body(void **state)
{
    struct http_fixture *f = start_plain();
    struct rawhttp *c = rawhttp_open(f->port);
    struct reply r;
    (void)state;
    rawhttp_request(c, "HEAD", "/abc", NULL, NULL, 0, &r);
    assert_int_equal(r.status, 200);
    assert_string_equal(reply_header(&r, "Content-Length"), "4");
    reply_done(&r);
    rawhttp_request(c, "HEAD", "/big", NULL, NULL, 0, &r);
    assert_string_equal(reply_header(&r, "Content-Length"), "3000000");
    reply_done(&r);
    rawhttp_request(c, "HEAD", "/stream", NULL, NULL, 0, &r);
    assert_true(r.chunked);
    reply_done(&r);
    rawhttp_request(c, "GET", "/abc", NULL, NULL, 0, &r); /* nothing of the bodies was left in between */
    assert_string_equal(r.body, "/abc");
    reply_done(&r);
    rawhttp_close(c);
    http_fixture_stop(f);
}

static void no_content_has_neither_body_nor_length(void **state)
{
    struct http_fixture *f = start_plain();
    struct rawhttp *c = rawhttp_open(f->port);
    struct reply r;
    (void)state;
    rawhttp_request(c, "GET", "/none", NULL, NULL, 0, &r);
    assert_int_equal(r.status, 204);
    assert_null(reply_header(&r, "Content-Length"));
    reply_done(&r);
    rawhttp_request(c, "GET", "/evbuffer", NULL, NULL, 0, &r);
    assert_string_equal(r.body, "from /evbuffer");
    reply_done(&r);
    rawhttp_close(c);
    http_fixture_stop(f);
}

static void a_stream_is_chunked_and_the_connection_goes_on(void **state)
{
    struct http_fixture *f = start_plain();
    struct rawhttp *c = rawhttp_open(f->port);
    struct reply r;
    (void)state;
    rawhttp_request(c, "GET", "/stream", NULL, NULL, 0, &r);
    assert_true(r.chunked);
    assert_string_equal(r.body, "one\ntwo\n");
    reply_done(&r);
    rawhttp_request(c, "GET", "/x", NULL, NULL, 0, &r);
    assert_string_equal(r.body, "/x");
    reply_done(&r);
    rawhttp_close(c);
    http_fixture_stop(f);
}

static void a_stream_for_http_1_0_ends_with_the_connection(void **state)
{
    struct http_fixture *f = start_plain();
    struct rawhttp *c = rawhttp_open(f->port);
    struct reply r;
    (void)state;
    rawhttp_send_str(c, "GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    rawhttp_read(c, "GET", &r);
    assert_false(r.chunked);
    assert_true(r.close);
    assert_string_equal(r.body, "one\ntwo\n");
    reply_done(&r);
    rawhttp_close(c);
    http_fixture_stop(f);
}

static void connections_are_closed_when_the_client_or_the_handler_says_so(void **state)
{
    struct http_fixture *f = start_plain();
    static const char *const closing[] = {"GET /x HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n",
                                          "GET /x HTTP/1.0\r\n\r\n", "GET /close HTTP/1.1\r\n" HOST "\r\n"};
    (void)state;
    for (size_t i = 0; i < MEM_COUNT(closing); i++) {
        struct rawhttp *c = rawhttp_open(f->port);
        struct reply r;
        rawhttp_send_str(c, closing[i]);
        rawhttp_read(c, "GET", &r);
        assert_int_equal(r.status, 200);
        assert_true(r.close);
        assert_true(rawhttp_at_eof(c));
        reply_done(&r);
        rawhttp_close(c);
    }
    struct rawhttp *c = rawhttp_open(f->port);
    for (int i = 0; i < 2; i++) {
        struct reply r;
        rawhttp_send_str(c, "GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        rawhttp_read(c, "GET", &r);
        assert_string_equal(reply_header(&r, "Connection"), "keep-alive");
        reply_done(&r);
    }
    rawhttp_close(c);
    http_fixture_stop(f);
}

static void requests_behind_a_closing_one_are_not_handled(void **state)
{
    struct http_fixture *f = start_plain();
    struct rawhttp *c = rawhttp_open(f->port);
    (void)state;
    rawhttp_send_str(c, "GET /close HTTP/1.1\r\n" HOST "\r\nGET /x HTTP/1.1\r\n" HOST "\r\n");
    expect_body(c, 200, "bye");
    assert_true(rawhttp_at_eof(c));
    assert_int_equal(read_count(&n_handled), 1);
    rawhttp_close(c);
    http_fixture_stop(f);
}

/* --- bodies --- */

static void a_body_over_the_cap_is_413_before_it_is_sent(void **state)
{
    struct http_fixture *f = start_plain();
    struct rawhttp *c = rawhttp_open(f->port);
    (void)state;
    rawhttp_send_str(c, "POST /small HTTP/1.1\r\n" HOST "Content-Length: 11\r\n\r\n");
    expect_body(c, 413, NULL);
    assert_true(rawhttp_at_eof(c));
    rawhttp_close(c);
    c = rawhttp_open(f->port);
    rawhttp_send_str(c, "POST /small HTTP/1.1\r\n" HOST "Content-Length: 10\r\n\r\n0123456789");
    expect_body(c, 200, "0123456789");
    rawhttp_send_str(c, "POST /small HTTP/1.1\r\n" HOST
                        "Transfer-Encoding: chunked\r\n\r\n6\r\n012345\r\n5\r\n67890\r\n");
    expect_body(c, 413, NULL);
    rawhttp_close(c);
    assert_int_equal(read_count(&n_handled), 1);
    http_fixture_stop(f);
}

static void a_refusal_in_head_comes_before_the_body(void **state)
{
    struct http_fixture *f = start_plain();
    struct rawhttp *c = rawhttp_open(f->port);
    struct reply r;
    (void)state;
    /* a small body is read away and the connection goes on */
    rawhttp_send_str(c, "POST /early HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\n");
    rawhttp_read(c, "GET", &r);
    assert_int_equal(r.status, 401);
    assert_string_equal(reply_header(&r, "WWW-Authenticate"), "Bearer");
    assert_false(r.close);
    reply_done(&r);
    rawhttp_send_str(c, "helloGET /next HTTP/1.1\r\n" HOST "\r\n");
    expect_body(c, 200, "/next");
    /* a large one is not */
    rawhttp_send_str(c, "POST /early HTTP/1.1\r\n" HOST "Content-Length: 99999\r\n\r\n");
    rawhttp_read(c, "GET", &r);
    assert_int_equal(r.status, 401);
    assert_true(r.close);
    reply_done(&r);
    assert_true(rawhttp_at_eof(c));
    rawhttp_close(c);
    c = rawhttp_open(f->port);
    get(c, "/early");
    expect_body(c, 401, NULL);
    get(c, "/next");
    expect_body(c, 200, "/next");
    rawhttp_close(c);
    assert_int_equal(read_count(&n_handled), 2);
    http_fixture_stop(f);
}

static void a_client_that_expects_100_continue_gets_it_first(void **state)
{
    struct http_fixture *f = start_plain();
    struct rawhttp *c = rawhttp_open(f->port);
    char line[26] = "";
    (void)state;
    rawhttp_send_str(c, "POST /x HTTP/1.1\r\n" HOST "Expect: 100-Continue\r\nContent-Length: 5\r\n\r\n");
    for (size_t n = 0; n < 25;) {
        ssize_t got = recv(rawhttp_fd(c), line + n, 25 - n, 0);
        assert_true(got > 0);
        n += (size_t)got;
    }
    assert_string_equal(line, "HTTP/1.1 100 Continue\r\n\r\n");
    rawhttp_send_str(c, "hello");
    expect_body(c, 200, "hello");
    /* no 100 where the answer is final already, or where nothing is to come */
    struct reply r;
    rawhttp_send_str(c, "POST /early HTTP/1.1\r\n" HOST "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    rawhttp_read(c, "GET", &r);
    assert_int_equal(r.status, 401);
    assert_true(r.close);
    reply_done(&r);
    assert_true(rawhttp_at_eof(c));
    rawhttp_close(c);
    http_fixture_stop(f);
}

static void the_100_of_a_later_request_waits_for_the_answers_before_it(void **state)
{
    struct http_fixture *f = start_plain();
    struct rawhttp *c = rawhttp_open(f->port);
    (void)state;
    get(c, "/keep");
    rawhttp_send_str(c, "POST /x HTTP/1.1\r\n" HOST "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    wait_until_at_least(&n_kept, 1);
    answer(f, 0, "first");
    expect_body(c, 200, "first");
    rawhttp_send_str(c, "hello");
    expect_body(c, 200, "hello"); /* rawhttp reads over the 100 */
    rawhttp_close(c);
    http_fixture_stop(f);
}

static void bodies_of_all_connections_together_are_capped(void **state)
{
    struct http_fixture *f =
        start_with((struct http_server_options){.max_body = 1000000, .max_body_total = 100000});
    struct rawhttp *c = rawhttp_open(f->port);
    struct reply r;
    (void)state;
    rawhttp_send_str(c, "POST /x HTTP/1.1\r\n" HOST "Content-Length: 200000\r\n\r\n");
    rawhttp_read(c, "GET", &r);
    assert_int_equal(r.status, 503);
    assert_string_equal(reply_header(&r, "Retry-After"), "1");
    reply_done(&r);
    rawhttp_close(c);
    for (int i = 0; i < 20; i++) { /* what is released can be used again */
        char *body = mem_zero(1, 50000);
        memset(body, 'a', 50000);
        c = rawhttp_open(f->port);
        rawhttp_request(c, "POST", "/x", NULL, body, 50000, &r);
        assert_int_equal(r.status, 200);
        assert_int_equal(r.len, 50000);
        reply_done(&r);
        rawhttp_close(c);
        free(body);
    }
    http_fixture_stop(f);
}

/* --- clients that go --- */

static void check_gone(struct http_fixture *f, void *arg)
{
    (void)f;
    *(bool *)arg = http_request_is_gone(kept[0]);
}

static void a_client_that_goes_is_told_and_may_still_be_answered(void **state)
{
    struct http_fixture *f = start_plain();
    struct rawhttp *c = rawhttp_open(f->port);
    bool gone = true;
    (void)state;
    get(c, "/keep");
    wait_until_at_least(&n_kept, 1);
    http_fixture_run(f, check_gone, &gone);
    assert_false(gone);
    rawhttp_close(c);
    wait_until_at_least(&n_aborted, 1);
    http_fixture_run(f, check_gone, &gone);
    assert_true(gone);
    answer(f, 0, "for nobody");
    assert_int_equal(read_count(&n_aborted), 1);
    assert_int_equal(read_count(&n_done), 1);
    http_fixture_stop(f);
}

static void a_client_that_only_stopped_sending_gets_its_answers(void **state)
{
    struct http_fixture *f = start_plain();
    struct rawhttp *c = rawhttp_open(f->port);
    (void)state;
    get(c, "/keep0");
    get(c, "/keep1");
    rawhttp_shutdown(c);
    wait_until_at_least(&n_aborted, 2);
    answer(f, 1, "1");
    answer(f, 0, "0");
    expect_body(c, 200, "0");
    expect_body(c, 200, "1");
    assert_true(rawhttp_at_eof(c));
    rawhttp_close(c);
    http_fixture_stop(f);
}

static void a_reset_while_requests_are_in_work_does_no_harm(void **state)
{
    struct http_fixture *f = start_plain();
    struct rawhttp *c = rawhttp_open(f->port);
    struct linger reset = {.l_onoff = 1, .l_linger = 0};
    (void)state;
    get(c, "/keep0");
    get(c, "/keep1");
    wait_until_at_least(&n_kept, 2);
    setsockopt(rawhttp_fd(c), SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    rawhttp_close(c);
    wait_until_at_least(&n_aborted, 2);
    answer(f, 1, "1");
    answer(f, 0, "0");
    assert_int_equal(read_count(&n_done), 2);
    http_fixture_stop(f);
}

static void an_incomplete_body_is_never_handled(void **state)
{
    struct http_fixture *f = start_plain();
    struct rawhttp *c = rawhttp_open(f->port);
    (void)state;
    rawhttp_send_str(c, "POST /x HTTP/1.1\r\n" HOST "Content-Length: 10\r\n\r\nhello");
    rawhttp_shutdown(c);
    assert_true(rawhttp_at_eof(c));
    rawhttp_close(c);
    assert_int_equal(read_count(&n_handled), 0);
    http_fixture_stop(f);
}

/* --- streams held open --- */

static void start_stream(struct http_fixture *f, void *arg)
{
    (void)f;
    (void)arg;
    http_stream_start(kept[0], 200, "text/event-stream");
}

static void add_line(struct http_fixture *f, void *arg)
{
    (void)f;
    assert_int_equal(http_stream_add(kept[0], arg, strlen(arg)), 0);
}

static void end_stream(struct http_fixture *f, void *arg)
{
    (void)f;
    (void)arg;
    http_stream_end(kept[0]);
}

static void abort_stream(struct http_fixture *f, void *arg)
{
    (void)f;
    (void)arg;
    http_stream_abort(kept[0]);
}

static void flood(struct http_fixture *f, void *arg)
{
    static char block[65536];
    int *result = arg;
    (void)f;
    for (int i = 0; i < 1000 && *result == 0; i++)
        *result = http_stream_add(kept[0], block, sizeof block);
    http_stream_end(kept[0]);
}

static void a_stream_sends_each_event_at_once(void **state)
{
    struct http_fixture *f = start_plain();
    struct rawhttp *c = rawhttp_open(f->port);
    struct reply r;
    bool timed_out;
    (void)state;
    get(c, "/keep");
    wait_until_at_least(&n_kept, 1);
    http_fixture_run(f, start_stream, NULL);
    rawhttp_read_head(c, &r);
    assert_int_equal(r.status, 200);
    reply_done(&r);
    http_fixture_run(f, add_line, "event: a\n");
    assert_string_equal(rawhttp_read_line(c, 5000, NULL), "event: a");
    http_fixture_run(f, add_line, "event: b\n");
    assert_string_equal(rawhttp_read_line(c, 5000, NULL), "event: b");
    assert_null(rawhttp_read_line(c, 20, &timed_out));
    assert_true(timed_out);
    http_fixture_run(f, end_stream, NULL);
    assert_null(rawhttp_read_line(c, 5000, &timed_out));
    assert_false(timed_out);
    rawhttp_close(c);
    http_fixture_stop(f);
}

static void a_reader_slower_than_its_stream_is_cut_off(void **state)
{
    struct http_fixture *f = start_with((struct http_server_options){.max_unsent = 1024 * 1024});
    struct rawhttp *c = rawhttp_open(f->port);
    int result = 0;
    (void)state;
    get(c, "/keep");
    wait_until_at_least(&n_kept, 1);
    http_fixture_run(f, start_stream, NULL);
    http_fixture_run(f, flood, &result);
    assert_int_equal(result, -1);
    assert_int_equal(read_count(&n_aborted), 1);
    rawhttp_close(c);
    http_fixture_stop(f);
}

static void an_aborted_stream_can_be_told_from_a_complete_one(void **state)
{
    struct http_fixture *f = start_plain();
    struct rawhttp *c = rawhttp_open(f->port);
    struct reply r;
    (void)state;
    get(c, "/keep");
    wait_until_at_least(&n_kept, 1);
    http_fixture_run(f, start_stream, NULL);
    http_fixture_run(f, add_line, "half\n");
    http_fixture_run(f, abort_stream, NULL);
    assert_int_equal(rawhttp_try_read(c, "GET", &r), -1);
    rawhttp_close(c);
    http_fixture_stop(f);
}

/* --- deadlines and caps --- */

static void a_head_that_does_not_end_is_408(void **state)
{
    struct http_fixture *f = start_with((struct http_server_options){.head_timeout_ms = 60});
    struct rawhttp *c = rawhttp_open(f->port);
    (void)state;
    rawhttp_send_str(c, "GET / HTTP/1.1\r\nHost: a\r\nX:");
    expect_body(c, 408, NULL);
    assert_true(rawhttp_at_eof(c));
    rawhttp_close(c);
    c = rawhttp_open(f->port); /* nothing was asked: nothing is answered */
    assert_true(rawhttp_at_eof(c));
    rawhttp_close(c);
    http_fixture_stop(f);
}

static void a_body_that_stalls_or_drips_is_408(void **state)
{
    struct http_fixture *f = start_with((struct http_server_options){.stall_timeout_ms = 60});
    struct rawhttp *c = rawhttp_open(f->port);
    struct reply r;
    (void)state;
    rawhttp_send_str(c, "POST /x HTTP/1.1\r\n" HOST "Content-Length: 10\r\n\r\nhello");
    expect_body(c, 408, NULL);
    assert_true(rawhttp_at_eof(c));
    rawhttp_close(c);
    http_fixture_stop(f);
    f = start_with((struct http_server_options){.body_timeout_ms = 100, .stall_timeout_ms = 5000});
    c = rawhttp_open(f->port);
    rawhttp_set_timeout(c, 10);
    rawhttp_send_str(c, "POST /x HTTP/1.1\r\n" HOST "Content-Length: 100000\r\n\r\n");
    int drips = 0;
    while (rawhttp_try_read(c, "GET", &r) != 0 && drips++ < 1000)
        rawhttp_send_str(c, "a");
    assert_int_equal(r.status, 408);
    reply_done(&r);
    rawhttp_close(c);
    http_fixture_stop(f);
}

static void an_idle_connection_is_closed_but_not_one_that_waits(void **state)
{
    struct http_fixture *f = start_with(
        (struct http_server_options){.idle_timeout_ms = 50, .head_timeout_ms = 50, .stall_timeout_ms = 50});
    struct rawhttp *waiting = rawhttp_open(f->port), *idle = rawhttp_open(f->port);
    (void)state;
    get(waiting, "/keep");
    wait_until_at_least(&n_kept, 1);
    get(idle, "/x");
    expect_body(idle, 200, "/x");
    assert_true(rawhttp_at_eof(idle)); /* later than any deadline of the other */
    answer(f, 0, "at last");
    expect_body(waiting, 200, "at last");
    rawhttp_close(waiting);
    rawhttp_close(idle);
    http_fixture_stop(f);
}

static void count_open(struct http_fixture *f, void *arg)
{
    *(size_t *)arg = http_server_connections(f->server);
}

static void a_client_that_does_not_read_is_cut_off(void **state)
{
    struct http_fixture *f = start_with((struct http_server_options){.stall_timeout_ms = 60});
    struct rawhttp *c = rawhttp_open(f->port);
    (void)state;
    for (int i = 0; i < 8; i++)
        get(c, "/big");
    wait_until_at_least(&n_handled, 1);
    size_t open = 1;
    int64_t deadline = clock_mono_ms() + 20000;
    while (open > 0 && clock_mono_ms() < deadline)
        http_fixture_run(f, count_open, &open);
    assert_int_equal(open, 0);
    assert_true(read_count(&n_handled) < 8); /* what can't be sent is not begun either */
    rawhttp_close(c);
    http_fixture_stop(f);
}

static void connections_over_the_cap_are_503(void **state)
{
    struct http_fixture *f = start_with((struct http_server_options){.max_connections = 2});
    struct rawhttp *a = rawhttp_open(f->port), *b = rawhttp_open(f->port);
    struct reply r;
    (void)state;
    get(a, "/a");
    expect_body(a, 200, "/a");
    get(b, "/b");
    expect_body(b, 200, "/b");
    struct rawhttp *c = rawhttp_open(f->port);
    get(c, "/c");
    rawhttp_read(c, "GET", &r);
    assert_int_equal(r.status, 503);
    assert_string_equal(reply_header(&r, "Retry-After"), "1");
    reply_done(&r);
    assert_true(rawhttp_at_eof(c));
    rawhttp_close(c);
    get(a, "/again");
    expect_body(a, 200, "/again");
    rawhttp_close(a);
    rawhttp_close(b);
    http_fixture_stop(f);
}

/* --- drain --- */

static void on_drained(void *arg)
{
    struct http_fixture *f = arg;
    http_server_free(f->server);
    f->server = NULL;
    count(&n_drained);
}

static void drain(struct http_fixture *f, void *arg)
{
    http_server_drain(f->server, *(int *)arg, on_drained, f);
}

static void draining_finishes_what_is_in_work_and_closes_the_rest(void **state)
{
    struct http_fixture *f = start_plain();
    struct rawhttp *idle = rawhttp_open(f->port), *busy = rawhttp_open(f->port),
                   *half = rawhttp_open(f->port);
    struct reply r;
    int ms = 20000;
    (void)state;
    get(idle, "/x");
    expect_body(idle, 200, "/x");
    rawhttp_send_str(half, "POST /half HTTP/1.1\r\n" HOST "Content-Length: 10\r\n\r\nhello");
    get(busy, "/keep");
    wait_until_at_least(&n_kept, 1);
    get(idle, "/y");
    expect_body(idle, 200, "/y");
    http_fixture_run(f, drain, &ms);
    assert_true(rawhttp_at_eof(idle));
    assert_null(rawhttp_try_open(f->port));
    answer(f, 0, "done");
    rawhttp_read(busy, "GET", &r);
    assert_string_equal(r.body, "done");
    assert_true(r.close);
    reply_done(&r);
    assert_int_equal(read_count(&n_drained), 0);
    rawhttp_send_str(half, "world");
    rawhttp_read(half, "GET", &r);
    assert_string_equal(r.body, "helloworld");
    assert_true(r.close);
    reply_done(&r);
    wait_until_at_least(&n_drained, 1);
    rawhttp_close(idle);
    rawhttp_close(busy);
    rawhttp_close(half);
    http_fixture_stop(f);
}

static void draining_ends_at_its_deadline_and_late_answers_are_harmless(void **state)
{
    struct http_fixture *f = start_plain();
    struct rawhttp *c = rawhttp_open(f->port);
    int ms = 30;
    (void)state;
    get(c, "/keep");
    wait_until_at_least(&n_kept, 1);
    http_fixture_run(f, drain, &ms);
    wait_until_at_least(&n_drained, 1);
    assert_int_equal(read_count(&n_aborted), 1);
    assert_true(rawhttp_at_eof(c));
    answer(f, 0, "too late"); /* the server is freed already */
    rawhttp_close(c);
    http_fixture_stop(f);
}

static void an_empty_server_is_drained_at_once(void **state)
{
    struct http_fixture *f = start_plain();
    int ms = 20000;
    (void)state;
    http_fixture_run(f, drain, &ms);
    wait_until_at_least(&n_drained, 1);
    http_fixture_stop(f);
}

/* --- what else --- */

static void every_answer_is_reported(void **state)
{
    struct http_fixture *f = start_plain();
    struct reply r;
    (void)state;
    rawhttp_once(f->port, "GET", "/abc", NULL, NULL, &r);
    reply_done(&r);
    wait_until_at_least(&n_done, 1);
    assert_int_equal(last_status, 200);
    assert_int_equal(last_bytes, 4);
    rawhttp_once(f->port, "GET", "/%", NULL, NULL, &r);
    assert_int_equal(r.status, 400);
    reply_done(&r);
    wait_until_at_least(&n_done, 2);
    assert_int_equal(last_status, 400);
    http_fixture_stop(f);
}

static void a_stream_may_begin_in_head(void **state)
{
    struct http_fixture *f = start_plain();
    struct rawhttp *c = rawhttp_open(f->port);
    struct reply r;
    (void)state;
    get(c, "/stream-early");
    rawhttp_read_head(c, &r);
    assert_int_equal(r.status, 200);
    reply_done(&r);
    http_fixture_run(f, add_line, "hello\n");
    assert_string_equal(rawhttp_read_line(c, 5000, NULL), "hello");
    http_fixture_run(f, end_stream, NULL);
    get(c, "/x");
    assert_null(rawhttp_read_line(c, 5000, NULL));
    expect_body(c, 200, "/x");
    assert_int_equal(read_count(&n_handled), 1);
    rawhttp_close(c);
    http_fixture_stop(f);
}

static void an_address_that_does_not_parse_or_is_taken_is_an_error(void **state)
{
    struct event_base *base = event_base_new();
    struct http_server *s = http_server_new(base, &(struct http_server_options){.handle = on_request});
    struct err e;
    uint16_t port, v6 = 0;
    (void)state;
    assert_int_equal(http_server_listen(s, "localhost", 0, &port, &e), -1);
    assert_int_equal(e.code, ERR_INVALID);
    assert_int_equal(http_server_listen(s, "127.0.0.1", 0, &port, &e), 0);
    assert_true(port > 0);
    assert_int_equal(http_server_listen(s, "127.0.0.1", port, NULL, &e), -1);
    assert_int_equal(e.code, ERR_UNAVAILABLE);
    if (http_server_listen(s, "::1", 0, &v6, &e) == 0)
        assert_true(v6 > 0);
    http_server_free(s);
    http_server_free(NULL);
    event_base_free(base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_connection_serves_many_requests),
        cmocka_unit_test(pipelined_requests_are_answered_in_order),
        cmocka_unit_test(late_answers_are_sent_in_the_order_of_the_requests),
        cmocka_unit_test(a_write_waits_for_what_is_before_it_and_holds_what_is_behind),
        cmocka_unit_test(no_more_than_max_pipelined_requests_are_in_work),
        cmocka_unit_test(large_answers_of_a_pipeline_arrive_whole),
        cmocka_unit_test(head_has_the_fields_of_get_and_no_body),
        cmocka_unit_test(no_content_has_neither_body_nor_length),
        cmocka_unit_test(a_stream_is_chunked_and_the_connection_goes_on),
        cmocka_unit_test(a_stream_for_http_1_0_ends_with_the_connection),
        cmocka_unit_test(connections_are_closed_when_the_client_or_the_handler_says_so),
        cmocka_unit_test(requests_behind_a_closing_one_are_not_handled),
        cmocka_unit_test(a_body_over_the_cap_is_413_before_it_is_sent),
        cmocka_unit_test(a_refusal_in_head_comes_before_the_body),
        cmocka_unit_test(a_client_that_expects_100_continue_gets_it_first),
        cmocka_unit_test(the_100_of_a_later_request_waits_for_the_answers_before_it),
        cmocka_unit_test(bodies_of_all_connections_together_are_capped),
        cmocka_unit_test(a_client_that_goes_is_told_and_may_still_be_answered),
        cmocka_unit_test(a_client_that_only_stopped_sending_gets_its_answers),
        cmocka_unit_test(a_reset_while_requests_are_in_work_does_no_harm),
        cmocka_unit_test(an_incomplete_body_is_never_handled),
        cmocka_unit_test(a_stream_sends_each_event_at_once),
        cmocka_unit_test(a_reader_slower_than_its_stream_is_cut_off),
        cmocka_unit_test(an_aborted_stream_can_be_told_from_a_complete_one),
        cmocka_unit_test(a_head_that_does_not_end_is_408),
        cmocka_unit_test(a_body_that_stalls_or_drips_is_408),
        cmocka_unit_test(an_idle_connection_is_closed_but_not_one_that_waits),
        cmocka_unit_test(a_client_that_does_not_read_is_cut_off),
        cmocka_unit_test(connections_over_the_cap_are_503),
        cmocka_unit_test(draining_finishes_what_is_in_work_and_closes_the_rest),
        cmocka_unit_test(draining_ends_at_its_deadline_and_late_answers_are_harmless),
        cmocka_unit_test(an_empty_server_is_drained_at_once),
        cmocka_unit_test(every_answer_is_reported),
        cmocka_unit_test(a_stream_may_begin_in_head),
        cmocka_unit_test(an_address_that_does_not_parse_or_is_taken_is_an_error),
    };
    return cmocka_run_group_tests_name("http_server_flow", tests, NULL, NULL);
}
