/* Tests of feed-api/redis_async.c on a real Redis: groups, deadlines, lost connections. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <event2/event.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "feed-api/redis_async.h"
#include "tests/support/fixture.h"

struct world {
    struct fixture *f;
    struct event_base *base;
    struct redis_async *r;
};

struct answer {
    unsigned calls;
    enum err_code code;
    long long number; /* of the last reply of the group */
    size_t replies;
};

static void on_answer(const redisReply *reply, const struct err *e, void *arg)
{
    struct answer *a = arg;
    a->calls++;
    a->code = reply ? ERR_NONE : e->code;
    if (reply && reply->elements) {
        a->replies = reply->elements;
        a->number = reply->element[reply->elements - 1]->integer;
    }
}

/* Runs the loop until the condition holds, at most 10 s. */
#define RUN_UNTIL(w, condition)                                                                              \
    do {                                                                                                     \
        int64_t until_ = clock_mono_ms() + 10000;                                                            \
        while (!(condition)) {                                                                               \
            assert_true(clock_mono_ms() < until_);                                                           \
            run_a_little(w);                                                                                 \
        }                                                                                                    \
    } while (0)

static void run_a_little(struct world *w)
{
    struct timeval t = {.tv_usec = 2000};
    event_base_loopexit(w->base, &t);
    event_base_dispatch(w->base);
}

static void open_world(struct world *w, void **state, unsigned max)
{
    struct redis_address a;
    struct err e;
    w->f = *state;
    assert_int_equal(redis_address_parse(fixture_redis_address(w->f), &a, &e), 0);
    w->base = event_base_new();
    w->r = redis_async_new(w->base, &a, max, NULL);
    RUN_UNTIL(w, redis_async_is_up(w->r));
}

static void close_world(struct world *w)
{
    redis_async_free(w->r);
    event_base_free(w->base);
}

static const struct redis_command incr = {2, {"INCR", "n"}}, del = {2, {"DEL", "n"}},
                                  wrong = {1, {"NONSENSE"}};

static int send_incr(struct world *w, struct answer *a, int64_t timeout_ms)
{
    struct err e;
    return redis_async_group(w->r, &incr, 1, timeout_ms, on_answer, a, &e);
}

static void a_group_is_answered_with_a_reply_for_each_command(void **state)
{
    struct world w;
    struct answer a = {0};
    struct err e;
    open_world(&w, state, 0);
    const struct redis_command three[] = {del, incr, incr};
    assert_int_equal(redis_async_group(w.r, three, 3, 5000, on_answer, &a, &e), 0);
    assert_int_equal(a.calls, 0); /* never from within */
    RUN_UNTIL(&w, a.calls);
    assert_int_equal(a.code, ERR_NONE);
    assert_int_equal(a.replies, 3);
    assert_int_equal(a.number, 2);
    close_world(&w);
}

static void a_thousand_groups_are_answered_in_order(void **state)
{
    enum { N = 1000 };
    struct world w;
    struct answer a[N] = {{0}}, first = {0};
    struct err e;
    open_world(&w, state, 0);
    assert_int_equal(redis_async_group(w.r, &del, 1, 5000, on_answer, &first, &e), 0);
    for (int i = 0; i < N; i++)
        assert_int_equal(send_incr(&w, &a[i], 5000), 0);
    RUN_UNTIL(&w, a[N - 1].calls);
    for (int i = 0; i < N; i++) {
        assert_int_equal(a[i].calls, 1);
        assert_int_equal(a[i].number, i + 1);
    }
    assert_int_equal(redis_async_in_flight(w.r), 0);
    close_world(&w);
}

static void a_group_that_redis_refuses_fails_and_the_next_goes_on(void **state)
{
    struct world w;
    struct answer bad = {0}, good = {0};
    struct err e;
    open_world(&w, state, 0);
    assert_int_equal(redis_async_group(w.r, &wrong, 1, 5000, on_answer, &bad, &e), 0);
    assert_int_equal(send_incr(&w, &good, 5000), 0);
    RUN_UNTIL(&w, good.calls);
    assert_int_equal(bad.calls, 1);
    assert_int_equal(bad.code, ERR_UNAVAILABLE);
    assert_int_equal(good.code, ERR_NONE);
    close_world(&w);
}

static void P11_what_is_in_flight_is_bounded(void **state)
{
    struct world w;
    struct answer a[4] = {{0}};
    open_world(&w, state, 3);
    for (int i = 0; i < 3; i++)
        assert_int_equal(send_incr(&w, &a[i], 5000), 0);
    struct err e;
    assert_int_equal(redis_async_group(w.r, &incr, 1, 5000, on_answer, &a[3], &e), -1);
    assert_int_equal(e.code, ERR_BUSY);
    RUN_UNTIL(&w, a[2].calls);
    assert_int_equal(send_incr(&w, &a[3], 5000), 0);
    RUN_UNTIL(&w, a[3].calls);
    close_world(&w);
}

static void P9_a_late_reply_is_a_timeout_and_does_not_confuse_the_next(void **state)
{
    struct world w;
    struct answer late = {0}, next = {0};
    open_world(&w, state, 0);
    server_pause(fixture_redis(w.f));
    assert_int_equal(send_incr(&w, &late, 30), 0);
    assert_int_equal(send_incr(&w, &next, 5000), 0);
    RUN_UNTIL(&w, late.calls);
    assert_int_equal(late.code, ERR_TIMEOUT);
    assert_int_equal(next.calls, 0);
    server_continue(fixture_redis(w.f));
    RUN_UNTIL(&w, next.calls);
    assert_int_equal(late.calls, 1);
    /* Either its own reply, or (when that took more than the stall time) the connection was given up. */
    assert_true(next.code == ERR_NONE || next.code == ERR_UNAVAILABLE);
    close_world(&w);
}

static void P9_a_connection_that_answers_nothing_is_given_up(void **state)
{
    struct world w;
    struct answer a = {0}, b = {0};
    open_world(&w, state, 0);
    server_pause(fixture_redis(w.f));
    assert_int_equal(send_incr(&w, &a, 60000), 0);
    RUN_UNTIL(&w, a.calls);
    assert_int_equal(a.code, ERR_UNAVAILABLE);
    server_continue(fixture_redis(w.f));
    RUN_UNTIL(&w, redis_async_is_up(w.r));
    assert_int_equal(send_incr(&w, &b, 5000), 0);
    RUN_UNTIL(&w, b.calls);
    assert_int_equal(b.code, ERR_NONE);
    close_world(&w);
}

static void P10_a_lost_connection_answers_all_and_comes_back(void **state)
{
    struct world w;
    struct answer a[5] = {{0}}, b = {0};
    struct err e;
    open_world(&w, state, 0);
    server_pause(fixture_redis(w.f));
    for (int i = 0; i < 5; i++)
        assert_int_equal(send_incr(&w, &a[i], 60000), 0);
    server_kill(fixture_redis(w.f));
    RUN_UNTIL(&w, a[4].calls);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(a[i].calls, 1);
        assert_int_equal(a[i].code, ERR_UNAVAILABLE);
    }
    RUN_UNTIL(&w, !redis_async_is_up(w.r));
    assert_int_equal(redis_async_group(w.r, &incr, 1, 5000, on_answer, &b, &e), -1);
    assert_int_equal(e.code, ERR_UNAVAILABLE);
    fixture_restart(w.f, fixture_redis(w.f));
    RUN_UNTIL(&w, redis_async_is_up(w.r));
    assert_int_equal(send_incr(&w, &b, 5000), 0);
    RUN_UNTIL(&w, b.calls);
    assert_int_equal(b.code, ERR_NONE);
    close_world(&w);
}

static void freeing_answers_what_is_in_flight(void **state)
{
    struct world w;
    struct answer a = {0};
    open_world(&w, state, 0);
    assert_int_equal(send_incr(&w, &a, 5000), 0);
    close_world(&w);
    assert_int_equal(a.calls, 1);
    assert_int_equal(a.code, ERR_UNAVAILABLE);
}

/* An answer may send again, also while the connection is being torn down. */
static struct world *again_world;
static struct answer again_answer;

static void send_again(const redisReply *reply, const struct err *e, void *arg)
{
    (void)reply;
    (void)e;
    unsigned *left = arg;
    struct err why;
    if ((*left)-- > 0 && redis_async_group(again_world->r, &incr, 1, 5000, send_again, left, &why))
        again_answer.code = why.code;
}

static void an_answer_may_send_again(void **state)
{
    struct world w;
    unsigned left = 50;
    struct err e;
    open_world(&w, state, 0);
    again_world = &w;
    again_answer.code = ERR_NONE;
    assert_int_equal(redis_async_group(w.r, &incr, 1, 5000, send_again, &left, &e), 0);
    RUN_UNTIL(&w, left > 1000); /* below 0 */
    assert_int_equal(again_answer.code, ERR_NONE);
    left = 50;
    assert_int_equal(redis_async_group(w.r, &incr, 1, 5000, send_again, &left, &e), 0);
    close_world(&w);
    assert_int_equal(again_answer.code, ERR_UNAVAILABLE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_group_is_answered_with_a_reply_for_each_command),
        cmocka_unit_test(a_thousand_groups_are_answered_in_order),
        cmocka_unit_test(a_group_that_redis_refuses_fails_and_the_next_goes_on),
        cmocka_unit_test(P11_what_is_in_flight_is_bounded),
        cmocka_unit_test(P9_a_late_reply_is_a_timeout_and_does_not_confuse_the_next),
        cmocka_unit_test(P9_a_connection_that_answers_nothing_is_given_up),
        cmocka_unit_test(P10_a_lost_connection_answers_all_and_comes_back),
        cmocka_unit_test(freeing_answers_what_is_in_flight),
        cmocka_unit_test(an_answer_may_send_again),
    };
    return cmocka_run_group_tests_name("redis_async", tests, fixture_group_setup_redis,
                                       fixture_group_teardown);
}
