/* How requests flow: their order, kinds of answers, bodies that are refused early. */
#include "tests/common/http_rig.h"

#include <poll.h>

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

static void offers_to_upgrade_are_passed_over(void **state)
{
    struct http_fixture *f = start_plain();
    struct rawhttp *c = rawhttp_open(f->port);
    (void)state;
    for (int i = 0; i < 2; i++) {
        rawhttp_send_str(c, "GET /x HTTP/1.1\r\n" HOST "Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n");
        expect_body(c, 200, "/x");
    }
    rawhttp_close(c);
    http_fixture_stop(f);
}

static void values_of_answers_can_not_break_their_line(void **state)
{
    struct http_fixture *f = start_plain();
    struct reply r;
    (void)state;
    rawhttp_once(f->port, "GET", "/split", NULL, NULL, &r);
    assert_string_equal(reply_header(&r, "X-Split"), "a  X-Evil: 1");
    assert_null(reply_header(&r, "X-Evil"));
    reply_done(&r);
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

static void a_client_that_goes_on_sending_after_a_refusal_is_not_reset(void **state)
{
    struct http_fixture *f = start_plain();
    struct rawhttp *c = rawhttp_open(f->port);
    struct pollfd p = {.fd = rawhttp_fd(c), .events = POLLIN};
    char *body = mem_zero(1, 100000);
    (void)state;
    rawhttp_send_str(c, "POST /early HTTP/1.1\r\n" HOST "Content-Length: 300000\r\n\r\n");
    assert_int_equal(poll(&p, 1, 20000), 1); /* it is answered, and our side knows nothing of it yet */
    for (int i = 0; i < 3; i++)
        rawhttp_send(c, body, 100000); /* fails after a reset */
    expect_body(c, 401, NULL);
    assert_true(rawhttp_at_eof(c));
    rawhttp_close(c);
    free(body);
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
        cmocka_unit_test(a_client_that_goes_on_sending_after_a_refusal_is_not_reset),
        cmocka_unit_test(offers_to_upgrade_are_passed_over),
        cmocka_unit_test(values_of_answers_can_not_break_their_line),
    };
    return cmocka_run_group_tests_name("http_server_flow", tests, NULL, NULL);
}
