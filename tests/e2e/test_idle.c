/* test_idle.c - timelines live as long as they are read: --timeline-idle. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "common/clock.h"
#include "common/keys.h"
#include "tests/support/e2e_stack.h"

#define IDLE_S 3

static struct e2e_stack stack;
static char idle_flag[16];
static int64_t idle_ms;
static unsigned names;

static int start_stack(void **state)
{
    (void)state;
    idle_ms = (int64_t)IDLE_S * 1000 * fixture_slowness();
    snprintf(idle_flag, sizeof idle_flag, "%lldms", (long long)idle_ms);
    const struct e2e_stack_options options = {.api_flags = {"--timeline-idle", idle_flag}};
    e2e_stack_start(&stack, &options);
    return 0;
}

static int stop_stack(void **state)
{
    (void)state;
    return e2e_stack_stop(&stack);
}

/* ---- a reader with a timeline ---- */

struct reader {
    char user[32], publisher[32], feed[80];
    ts_t position;
    int64_t until_ms; /* for read_on() */
};

static void read_page(const struct reader *r, ts_t position, size_t n, item_id newest)
{
    struct e2e_page p;
    e2e_page(&stack.apis[0], r->feed, "limit=20", NULL, position, &p);
    assert_string_equal(p.state, "complete");
    assert_int_equal(p.n, n);
    if (n > 0)
        assert_int_equal(p.items[0].id, newest);
    assert_null(p.next);
    e2e_page_done(&p);
}

static item_id publish(struct reader *r)
{
    item_id id =
        e2e_publish(&stack.apis[0], r->publisher, NULL, "an item", NULL, clock_wall_ms(), &r->position);
    assert_true(e2e_caught_up(stack.redis, r->user, r->position));
    return id;
}

/* With one item, and read once. */
static struct reader new_reader(item_id *id)
{
    struct reader r = {.position = 0};
    struct e2e_timeline t;
    snprintf(r.user, sizeof r.user, "user%u", ++names);
    snprintf(r.publisher, sizeof r.publisher, "pub%u", names);
    snprintf(r.feed, sizeof r.feed, "/v1/users/%s/feed", r.user);
    r.position = e2e_write(&stack.apis[0], "PUT", "/v1/users/%s/follows/publisher/%s", r.user, r.publisher);
    *id = publish(&r);
    read_page(&r, r.position, 1, *id);
    assert_true(e2e_timeline(stack.redis, r.user, &t) && t.ready);
    return r;
}

static long long keys_left(const struct reader *r)
{
    char tl[KEY_SIZE], pf[KEY_SIZE];
    keys_timeline(tl, keys_bucket(r->user), r->user);
    keys_timeline_meta(pf, keys_bucket(r->user), r->user);
    redisReply *reply = e2e_redis_do(stack.redis, "EXISTS %s %s", tl, pf);
    long long n = reply->integer;
    freeReplyObject(reply);
    return n;
}

static bool is_gone(void *arg)
{
    return keys_left(arg) == 0;
}

static double rebuilds(void)
{
    return e2e_metric(&stack.apis[0], "feedmill_rebuilds_total{result=\"done\"}");
}

/* ---- tests ---- */

static bool read_on(void *arg)
{
    const struct reader *r = arg;
    struct e2e_page p;
    e2e_page(&stack.apis[0], r->feed, "limit=1&fields=ids", NULL, 0, &p);
    assert_int_equal(p.n, 1);
    e2e_page_done(&p);
    return clock_mono_ms() >= r->until_ms;
}

static void a_timeline_that_is_read_lives_on(void **state)
{
    (void)state;
    item_id id;
    struct e2e_timeline before, after;
    struct reader r = new_reader(&id);
    assert_true(e2e_timeline(stack.redis, r.user, &before));
    double had = rebuilds(), touched = e2e_metric(&stack.apis[0], "feedmill_timeline_touches_total");
    r.until_ms = clock_mono_ms() + 3 * idle_ms;
    assert_true(fixture_until(read_on, &r, 10 * idle_ms));
    assert_true(e2e_timeline(stack.redis, r.user, &after));
    assert_int_equal(after.r, before.r);
    assert_true(rebuilds() == had);
    /* A touch is a write: at most one a second, however often it is read. */
    touched = e2e_metric(&stack.apis[0], "feedmill_timeline_touches_total") - touched;
    assert_true(touched >= 2 && touched <= 3 * (double)idle_ms / 1000 + 2);
}

static void one_that_is_not_read_disappears_and_nothing_is_written_for_it(void **state)
{
    (void)state;
    item_id id;
    struct reader r = new_reader(&id);
    int64_t start = clock_mono_ms();
    assert_true(fixture_until(is_gone, &r, 3 * idle_ms));
    assert_true(clock_mono_ms() - start >= idle_ms / 2);
    publish(&r);
    assert_int_equal(keys_left(&r), 0);
}

/* Deliveries touch the keys of a timeline, and are no reason to keep it. */
static void deliveries_do_not_keep_it_alive(void **state)
{
    (void)state;
    item_id id;
    struct reader r = new_reader(&id);
    int64_t end = clock_mono_ms() + 5 * idle_ms;
    while (!is_gone(&r)) {
        assert_true(clock_mono_ms() < end);
        publish(&r);
    }
}

static void who_comes_back_gets_a_complete_page_and_a_timeline(void **state)
{
    (void)state;
    item_id id;
    struct e2e_timeline t;
    struct reader r = new_reader(&id);
    assert_true(fixture_until(is_gone, &r, 3 * idle_ms));
    id = publish(&r);
    double had = rebuilds();
    read_page(&r, 0, 2, id);
    assert_true(rebuilds() == had + 1);
    assert_true(e2e_timeline(stack.redis, r.user, &t) && t.ready);
    assert_int_equal(t.entries, 2);
    id = publish(&r); /* and is delivered to again */
    assert_true(e2e_timeline(stack.redis, r.user, &t));
    assert_int_equal(t.entries, 3);
    read_page(&r, 0, 3, id);
    assert_true(rebuilds() == had + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_timeline_that_is_read_lives_on),
        cmocka_unit_test(one_that_is_not_read_disappears_and_nothing_is_written_for_it),
        cmocka_unit_test(deliveries_do_not_keep_it_alive),
        cmocka_unit_test(who_comes_back_gets_a_complete_page_and_a_timeline),
    };
    e2e_choose_tests();
    return cmocka_run_group_tests_name("e2e/idle", tests, start_stack, stop_stack);
}
