/* The open-loop client against a real HTTP server: no moment is left out because the server is slow, and each
 * is accounted for once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <event2/event.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "tests/support/http_fixture.h"
#include "tools/open_load.h"

#define HOLD_MS    300
#define BODY_BYTES 50000
#define HELD_MAX   64

static struct http_request *held[HELD_MAX];
static int n_held, n_handled, n_headers;
static struct event_base *server_base;

static int read_count(const int *n)
{
    return __atomic_load_n(n, __ATOMIC_ACQUIRE);
}

static void let_go(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)arg;
    while (n_held > 0)
        http_reply(held[--n_held], 200, "text/plain", "late", 4);
}

static void hold(struct http_request *r)
{
    held[n_held++] = r;
    if (n_held == 1) {
        struct timeval after = {.tv_usec = HOLD_MS * 1000};
        assert_int_equal(event_base_once(server_base, -1, EV_TIMEOUT, let_go, NULL, &after), 0);
    }
}

static void reply_big(struct http_request *r)
{
    http_reply_take(r, 200, "text/plain", mem_zero(1, BODY_BYTES), BODY_BYTES);
}

/* The first segment of the path says what is answered. */
static void on_request(struct http_request *r, void *arg)
{
    (void)arg;
    int before = __atomic_fetch_add(&n_handled, 1, __ATOMIC_ACQ_REL);
    const char *own = http_request_header(r, "X-Own"), *all = http_request_header(r, "X-All");
    if (own && all && strcmp(own, "this one") == 0 && strcmp(all, "every") == 0)
        __atomic_add_fetch(&n_headers, 1, __ATOMIC_ACQ_REL);
    if (strcmp(r->path, "/held-once") == 0 && before == 0) {
        hold(r);
    } else if (strcmp(r->path, "/busy") == 0) {
        http_reply(r, 503, "text/plain", "later", 5);
    } else if (strcmp(r->path, "/missing") == 0) {
        http_reply(r, 404, "text/plain", "no", 2);
    } else if (strcmp(r->path, "/same") == 0) {
        http_reply(r, 304, NULL, NULL, 0);
    } else if (strcmp(r->path, "/last") == 0) {
        http_reply_close(r);
        http_reply(r, 200, "text/plain", "bye", 3);
    } else if (strcmp(r->path, "/big") == 0) {
        reply_big(r);
    } else {
        http_reply(r, 200, "text/plain", "ok", 2);
    }
}

static struct http_fixture *start(void)
{
    n_held = n_handled = n_headers = 0;
    struct http_fixture *f = http_fixture_start(&(struct http_server_options){.handle = on_request});
    server_base = f->base;
    return f;
}

static struct open_load_result load(struct http_fixture *f, const char *const *targets, size_t n,
                                    unsigned connections)
{
    struct open_load_options o = {.port = f->port,
                                  .targets = targets,
                                  .n_targets = n,
                                  .headers = "X-All: every\r\n",
                                  .rate = 500,
                                  .seconds = 1,
                                  .connections = connections,
                                  .grace_ms = 20000,
                                  .seed = 7};
    struct open_load_result r;
    struct err e;
    if (open_load_run(&o, &r, &e))
        fail_msg("%s", e.msg);
    return r;
}

static void a_quantile_is_at_most_a_64th_above_the_true_one(void **state)
{
    (void)state;
    static struct latency l;
    assert_int_equal(latency_quantile(&l, 0.99), 0);
    for (int64_t us = 1; us <= 100000; us++)
        latency_add(&l, us);
    for (int percent = 1; percent <= 100; percent++) {
        int64_t is = latency_quantile(&l, percent / 100.0), want = percent * 1000;
        if (is < want || is > want + want / 64)
            fail_msg("%d %%: %lld instead of %lld", percent, (long long)is, (long long)want);
    }
    latency_add(&l, -5);
    latency_add(&l, INT64_MAX);
    assert_int_equal(latency_quantile(&l, 1), UINT32_MAX);
    assert_int_equal(l.count, 100002);
}

static void each_moment_is_accounted_for_once(void **state)
{
    (void)state;
    static const char *const targets[] = {"/busy", "/missing", "/same", "/last", "/big"};
    struct http_fixture *f = start();
    struct open_load_result r = load(f, targets, 5, 20);
    assert_in_range(r.due, 350, 650);
    assert_int_equal(r.due, r.good + r.refused + r.failed);
    assert_int_equal(r.lost + r.unsent + r.unanswered, 0);
    assert_in_range(r.refused, 1, r.due / 2);
    assert_in_range(r.failed, 1, r.due / 2);
    assert_in_range(r.good, r.due / 3, r.due);
    assert_true(r.bytes > 50 * BODY_BYTES);
    assert_int_equal(r.times.count, r.good);
    assert_int_equal(r.refusals.count, r.refused);
    assert_int_equal(r.own.count, r.due);
    assert_int_equal(read_count(&n_handled), r.due);
    http_fixture_stop(f);
}

/* A closed loop would send nothing meanwhile, and report one slow answer. */
static void what_is_due_while_the_server_stalls_counts_from_the_intended_moment(void **state)
{
    (void)state;
    static const char *const targets[] = {"/held-once"};
    struct http_fixture *f = start();
    struct open_load_result r = load(f, targets, 1, 1);
    assert_in_range(r.due, 350, 650);
    assert_int_equal(r.good, r.due);
    assert_true(r.times.max_us >= HOLD_MS * 900); /* timers of a loop may be a little early */
    /* Of 500 a second, 100 fall due in the first 200 ms, and so wait for 100 ms or more. */
    assert_true(latency_quantile(&r.times, 0.9) >= 90000);
    http_fixture_stop(f);
}

static void what_settles_is_sent_and_does_not_count(void **state)
{
    (void)state;
    static const char *const targets[] = {"/a\tX-Own: this one", "/b"};
    struct http_fixture *f = start();
    struct open_load_options o = {.port = f->port,
                                  .targets = targets,
                                  .n_targets = 2,
                                  .headers = "X-All: every\r\n",
                                  .rate = 500,
                                  .settle_s = 0.5,
                                  .seconds = 0.5,
                                  .connections = 4,
                                  .grace_ms = 20000,
                                  .seed = 7};
    struct open_load_result r;
    struct err e;
    assert_int_equal(open_load_run(&o, &r, &e), 0);
    assert_in_range(r.due, 120, 380);
    assert_int_equal(r.good, r.due);
    assert_in_range(read_count(&n_handled), r.due + 120, r.due + 380);
    assert_in_range(read_count(&n_headers), 100, read_count(&n_handled) - 100);
    http_fixture_stop(f);
}

static void a_server_that_is_not_there_is_an_error(void **state)
{
    (void)state;
    static const char *const targets[] = {"/"};
    struct http_fixture *f = start();
    struct open_load_options o = {.port = f->port,
                                  .targets = targets,
                                  .n_targets = 1,
                                  .headers = "",
                                  .rate = 100,
                                  .seconds = 1,
                                  .connections = 2,
                                  .seed = 1};
    struct open_load_result r = {.due = 99};
    struct err e;
    http_fixture_stop(f);
    assert_int_equal(open_load_run(&o, &r, &e), -1);
    assert_int_equal(e.code, ERR_UNAVAILABLE);
    assert_int_equal(r.due, 99);
    o.rate = 0;
    assert_int_equal(open_load_run(&o, &r, &e), -1);
    assert_int_equal(e.code, ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_quantile_is_at_most_a_64th_above_the_true_one),
        cmocka_unit_test(each_moment_is_accounted_for_once),
        cmocka_unit_test(what_is_due_while_the_server_stalls_counts_from_the_intended_moment),
        cmocka_unit_test(what_settles_is_sent_and_does_not_count),
        cmocka_unit_test(a_server_that_is_not_there_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
