/* The life of connections: clients that go, streams held open, deadlines, caps, drain. */
#include "tests/common/http_rig.h"

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

static int n_drained;

static void on_drained(void *arg)
{
    struct http_fixture *f = arg;
    http_server_free(f->server);
    f->server = NULL;
    count(&n_drained);
}

static void drain(struct http_fixture *f, void *arg)
{
    n_drained = 0;
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
    uint16_t second = 0;
    assert_int_equal(http_server_listen(s, "127.0.0.1", 0, &second, &e), 0);
    assert_true(second > 0 && second != port);
    http_server_free(s);
    http_server_free(NULL);
    event_base_free(base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
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
    return cmocka_run_group_tests_name("http_server_life", tests, NULL, NULL);
}
