/* test_recovery.c - what was lost comes back: Redis emptied or restored from an old dump, a fanout that stood
 * still while another took over; and what works meanwhile: P7, P8 and P10 with each server and process away.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/mem.h"
#include "tests/support/e2e_stack.h"

#define LEASE_MS    "1000"
#define LEASE_TIMES 3     /* that a fanout stands still: FEEDMILL_STANDSTILL_MS */
#define DUMP_AGE_MS 11000 /* more than the 10 s of the log that a new feed-api reads */
#define STOPPED_MS  5000
#define BACK_MS     30000

static struct e2e_stack stack;
static const struct e2e_stack_options options = {.lease_ms = LEASE_MS, .ranker = true};

static int start_stack(void **state)
{
    (void)state;
    e2e_stack_start(&stack, &options);
    return 0;
}

/* A test that failed may have left a server stopped. */
static int fresh(void **state)
{
    (void)state;
    e2e_stack_fresh(&stack, &options);
    return 0;
}

static int stop_stack(void **state)
{
    (void)state;
    return e2e_stack_stop(&stack);
}

static void begin(struct driver *d, uint64_t seed, const char *label)
{
    driver_init(d, (uint64_t)e2e_env("FEEDMILL_SEED", 0) + seed, label, stack.apis, 1, stack.redis);
    driver_setup(d, 60);
    driver_catch_up(d);
    driver_check_all_feeds(d);
}

static void steps(struct driver *d, unsigned n, unsigned flags)
{
    while (n-- > 0)
        driver_step(d, flags);
}

static void check_everything(struct driver *d)
{
    driver_check_all_feeds(d);
    for (unsigned u = 0; u < d->users; u++) {
        driver_check_delivered(d, u);
        driver_check_now(d, u, &stack.apis[0]);
    }
    driver_check_targets(d);
}

/* Sends an op, lets something happen, and takes the answer. */
static void step_across(struct driver *d, unsigned flags, void (*happen)(void))
{
    struct op op;
    struct reply r;
    op_make(d, flags, &op);
    struct rawhttp *c = e2e_send(&stack.apis[0], op.method, op.path, op.extra, op.body);
    assert_non_null(c);
    happen();
    rawhttp_read(c, op.method, &r);
    op_apply(d, &op, &r);
    reply_done(&r);
    rawhttp_close(c);
    op_done(&op);
}

struct until {
    int64_t mono_ms;
};

static bool is_past(void *arg)
{
    const struct until *u = arg;
    return clock_mono_ms() >= u->mono_ms;
}

/* ---- Redis ---- */

static void flush(void)
{
    freeReplyObject(e2e_redis_do(stack.redis, "FLUSHALL"));
}

static void p1_nothing_is_lost_when_redis_is_flushed_while_others_publish(void **state)
{
    (void)state;
    struct driver d;
    begin(&d, 1, "flush");
    for (unsigned round = 0; round < 25; round++) {
        steps(&d, 2, DRIVER_GRAPH);
        step_across(&d, DRIVER_GRAPH, flush);
        driver_check_now(&d, rng_below(&d.rng, d.users), &stack.apis[0]);
        driver_check_feed(&d, rng_below(&d.rng, d.users));
        if (round % 5 == 4)
            check_everything(&d);
    }
    driver_done(&d);
}

/* What survived is exact as of the dump; everything since has to come from the log again, and nothing that
 * was unfollowed, muted or deleted since may show, not even for a moment. In each other round feed-api is new
 * too and remembers nothing. */
static void p1_nothing_is_lost_when_redis_comes_back_from_an_old_dump(void **state)
{
    (void)state;
    struct driver d;
    begin(&d, 2, "dump");
    for (unsigned round = 0; round < 6; round++) {
        steps(&d, 20, DRIVER_GRAPH);
        driver_catch_up(&d);
        driver_check_all_feeds(&d);
        steps(&d, 5, 0); /* and some deliveries to the timelines just built */
        fixture_redis_keep(stack.f);
        struct until old = {clock_mono_ms() + DUMP_AGE_MS};
        steps(&d, 50, DRIVER_GRAPH);
        driver_check_all_feeds(&d);
        if (round % 3 == 0)
            driver_catch_up(&d);
        steps(&d, 10, DRIVER_GRAPH);
        if (round == 3) /* what a new feed-api reads of the log does not reach back to the dump */
            assert_true(fixture_until(is_past, &old, BACK_MS));
        if (round % 2) {
            server_kill(stack.servers[0]);
            server_pause(stack.fanout); /* it would put everything right before anybody looks */
        }
        fixture_redis_bring_back(stack.f);
        if (round % 2) {
            e2e_api_drop(&stack.apis[0]);
            fixture_restart(stack.f, stack.servers[0]);
        }
        e2e_stack_redis_again(&stack);
        d.redis = stack.redis;
        d.delivered = 0; /* the timelines are those of the dump */
        for (unsigned u = 0; u < d.users; u++)
            driver_check_now(&d, u, &stack.apis[0]);
        server_continue(stack.fanout);
        steps(&d, 5, DRIVER_GRAPH);
        check_everything(&d);
    }
    driver_done(&d);
}

/* ---- two fanouts ---- */

static double buckets_of(const struct server *fanout)
{
    return e2e_metric_on((uint16_t)fixture_port(stack.f, fanout), stack.apis[0].auth,
                         "feedmill_fanout_buckets_owned");
}

static bool owns_all(void *arg)
{
    return buckets_of(arg) == 256;
}

static bool own_half(void *arg)
{
    struct server **both = arg;
    return buckets_of(both[0]) == 128 && buckets_of(both[1]) == 128;
}

static struct server *to_pause;

static void pause_now(void)
{
    server_pause(to_pause);
}

static void p1_a_fanout_that_stood_still_while_another_took_over_does_no_harm(void **state)
{
    (void)state;
    struct driver d;
    struct server *both[2] = {stack.fanout, NULL};
    both[1] =
        fixture_start(stack.f, "fanout", "fanout-2", "--timeline-entries", "8", "--lease-ms", LEASE_MS, NULL);
    begin(&d, 3, "takeover");
    for (unsigned round = 0; round < 4; round++) {
        struct server *other = both[1 - round % 2];
        to_pause = both[round % 2];
        assert_true(fixture_until(own_half, both, BACK_MS));
        driver_check_all_feeds(&d);
        steps(&d, 5, 0);
        step_across(&d, 0, pause_now);
        struct until enough = {clock_mono_ms() + e2e_env("FEEDMILL_STANDSTILL_MS", LEASE_TIMES * 1000)};
        driver_check_feed(&d, rng_below(&d.rng, d.users)); /* nobody owns half of the buckets now */
        steps(&d, 10, DRIVER_GRAPH);
        assert_true(fixture_until(owns_all, other, BACK_MS));
        check_everything(&d);
        do
            steps(&d, 5, DRIVER_GRAPH);
        while (!is_past(&enough));
        check_everything(&d);
        server_continue(to_pause);
        for (unsigned i = 0; i < 10; i++) {
            steps(&d, 4, DRIVER_GRAPH);
            driver_check_feed(&d, rng_below(&d.rng, d.users));
        }
        check_everything(&d);
    }
    fixture_forget(stack.f, both[1]);
    assert_true(fixture_until(owns_all, both[0], BACK_MS));
    check_everything(&d);
    driver_done(&d);
}

static void feed_path(const struct driver *d, unsigned user, char out[200])
{
    snprintf(out, 200, "/v1/users/%s/feed", driver_user(d, user));
}

static void p7_p8_with_fanout_stopped_pages_say_how_far_behind_and_a_position_reads_own_writes(void **state)
{
    (void)state;
    struct driver d;
    char path[200];
    struct e2e_page p;
    begin(&d, 4, "stopped");
    feed_path(&d, 0, path);
    driver_check_delivered(&d, 0);
    server_pause(stack.fanout);
    struct until five = {clock_mono_ms() + STOPPED_MS};
    item_id id = e2e_publish(&stack.apis[0], driver_publisher(&d, 0), NULL, "while fanout stands still", NULL,
                             0, &d.position);
    while (!is_past(&five)) {
        e2e_page(&stack.apis[0], path, "limit=5&fields=ids", NULL, 0, &p);
        e2e_page_done(&p);
        fixture_until(is_past, &five, 200);
    }
    e2e_page(&stack.apis[0], path, "limit=5", NULL, 0, &p);
    if (p.lag_ms < 4000)
        fail_msg("fanout is stopped for 5 s, and lag_ms is %" PRId64, p.lag_ms);
    assert_true(p.n > 0 && p.items[0].id != id); /* an honest old page, not a new one by luck */
    e2e_page_done(&p);
    e2e_page(&stack.apis[0], path, "limit=5", NULL, d.position, &p);
    assert_int_equal(p.n, 5);
    assert_true(p.items[0].id == id);
    assert_string_equal(p.state, "complete");
    if (p.lag_ms >= 4000)
        fail_msg("a page read anew from the database says lag_ms %" PRId64, p.lag_ms);
    e2e_page_done(&p);
    server_continue(stack.fanout);
    driver_catch_up(&d);
    e2e_page(&stack.apis[0], path, "limit=5", NULL, 0, &p);
    assert_true(p.items[0].id == id);
    e2e_page_done(&p);
    driver_done(&d);
}

/* ---- P10 ---- */

static int status_of(const char *method, const char *path, const char *body, bool retry_after)
{
    struct reply r;
    e2e_call(&stack.apis[0], method, path, body, 0, &r);
    if (retry_after && r.status == 503 && !reply_header(&r, "Retry-After"))
        fail_msg("%s %s: 503 without Retry-After", method, path);
    int status = r.status;
    reply_done(&r);
    return status;
}

static char *an_event(const struct driver *d)
{
    return mem_printf("{\"events\":[{\"type\":\"like\",\"item\":\"%llu\"}]}",
                      (unsigned long long)d->model.items[0].id);
}

struct events_again {
    const char *path, *body;
};

static bool takes_events(void *arg)
{
    const struct events_again *a = arg;
    return status_of("POST", a->path, a->body, false) == 202;
}

static void p10_without_redis_pages_come_from_mongodb_and_publishing_goes_on(void **state)
{
    (void)state;
    struct driver d;
    char path[200], events[200];
    struct e2e_page p;
    begin(&d, 5, "noredis");
    feed_path(&d, 0, path);
    snprintf(events, sizeof events, "/v1/users/%s/events", driver_user(&d, 0));
    char *event = an_event(&d);
    assert_int_equal(status_of("POST", events, event, false), 202);
    server_kill(fixture_redis(stack.f));
    for (unsigned i = 0; i < 20; i++) {
        steps(&d, 2, DRIVER_GRAPH);
        driver_check_feed(&d, rng_below(&d.rng, d.users));
        driver_check_now(&d, rng_below(&d.rng, d.users), &stack.apis[0]);
    }
    e2e_page(&stack.apis[0], path, "limit=5", NULL, 0, &p);
    assert_true(p.reason[0]);
    e2e_page_done(&p);
    e2e_page(&stack.apis[0], path, "limit=5&order=ranked", NULL, 0, &p);
    assert_true(p.fallback[0]);
    e2e_page_done(&p);
    assert_int_equal(status_of("POST", events, event, true), 503);
    assert_int_equal(status_of("GET", "/healthz", NULL, false), 200);
    assert_int_equal(status_of("GET", "/readyz", NULL, false), 200);
    fixture_restart(stack.f, fixture_redis(stack.f));
    e2e_stack_redis_again(&stack);
    d.redis = stack.redis;
    check_everything(&d);
    struct events_again again = {events, event};
    assert_true(fixture_until(takes_events, &again, BACK_MS));
    free(event);
    driver_done(&d);
}

struct cached {
    struct driver *d;
    const struct e2e_page *before;
};

/* The page that was read before is still there, at every moment; true when it says that it may be old. */
static bool cached_page_says_so(void *arg)
{
    const struct cached *k = arg;
    char path[250];
    struct reply r;
    struct e2e_page p;
    feed_path(k->d, 0, path);
    strcat(path, "?limit=5");
    e2e_call(&stack.apis[0], "GET", path, NULL, 200, &r);
    e2e_page_parse(&r, &p);
    reply_done(&r);
    if (p.n != k->before->n)
        fail_msg("a cached page has %zu items of %zu, state %s, reason \"%s\"", p.n, k->before->n, p.state,
                 p.reason);
    for (size_t i = 0; i < p.n; i++)
        assert_true(p.items[i].id == k->before->items[i].id);
    bool says_so = strcmp(p.state, "partial") == 0 && p.reason[0];
    e2e_page_done(&p);
    return says_so;
}

static void check_without_mongod(struct driver *d, const struct e2e_page *before)
{
    char edge[200];
    struct cached k = {d, before};
    assert_true(fixture_until(cached_page_says_so, &k, BACK_MS));
    snprintf(edge, sizeof edge, "/v1/users/%s/follows/topic/whatever", driver_user(d, 0));
    char *item = mem_printf("{\"publisher\":\"%s\",\"title\":\"t\",\"body\":\"b\"}", driver_publisher(d, 0));
    assert_int_equal(status_of("PUT", edge, NULL, true), 503);
    assert_int_equal(status_of("POST", "/v1/items", item, true), 503);
    assert_int_equal(status_of("GET", "/healthz", NULL, false), 200);
    assert_int_equal(status_of("GET", "/readyz", NULL, false), 200);
    free(item);
}

static bool writes_again(void *arg)
{
    struct driver *d = arg;
    char edge[200];
    struct reply r;
    snprintf(edge, sizeof edge, "/v1/users/%s/follows/topic/whatever", driver_user(d, 0));
    e2e_call(&stack.apis[0], "PUT", edge, NULL, 0, &r);
    bool ok = r.status == 204;
    if (ok)
        e2e_position(&r, &d->position);
    reply_done(&r);
    return ok;
}

static void without_mongod(uint64_t seed, const char *label, bool hangs)
{
    struct driver d;
    char path[200];
    struct e2e_page before;
    begin(&d, seed, label);
    feed_path(&d, 0, path);
    driver_catch_up(&d);
    e2e_page(&stack.apis[0], path, "limit=5", NULL, 0, &before);
    assert_int_equal(before.n, 5);
    if (hangs)
        server_pause(fixture_mongod(stack.f));
    else
        server_kill(fixture_mongod(stack.f));
    check_without_mongod(&d, &before);
    check_without_mongod(&d, &before);
    if (hangs)
        server_continue(fixture_mongod(stack.f));
    else
        fixture_restart(stack.f, fixture_mongod(stack.f));
    assert_true(fixture_until(writes_again, &d, BACK_MS));
    d.db_away = true;
    steps(&d, 20, DRIVER_GRAPH);
    driver_catch_up(&d);
    for (unsigned u = 0; u < d.users; u++)
        driver_check_delivered(&d, u);
    e2e_page_done(&before);
    driver_done(&d);
}

static void p10_without_mongodb_cached_pages_are_served_and_writes_get_503(void **state)
{
    (void)state;
    without_mongod(6, "nomongod", false);
}

static void p10_with_a_mongodb_that_hangs_cached_pages_are_served_and_writes_get_503(void **state)
{
    (void)state;
    without_mongod(7, "hangs", true);
}

static bool is_ranked(void *arg)
{
    struct e2e_page p;
    e2e_page(&stack.apis[0], arg, "limit=5&order=ranked", NULL, 0, &p);
    bool ranked = !p.fallback[0] && p.session[0];
    e2e_page_done(&p);
    return ranked;
}

/* Pages to the end in ranked order, which is in time order now and stays so. */
static void check_fallback(struct driver *d, char *path)
{
    char *cursor = NULL;
    item_id before = ITEM_ID_MAX + 1;
    size_t n = 0, want;
    free(model_feed(&d->model, 0, &want));
    do {
        struct e2e_page p;
        e2e_page(&stack.apis[0], path, cursor ? "limit=9" : "limit=9&order=ranked", cursor,
                 cursor ? 0 : d->position, &p);
        assert_true(p.fallback[0]);
        for (size_t i = 0; i < p.n; i++) {
            assert_true(p.items[i].id < before);
            before = p.items[i].id;
        }
        n += p.n;
        free(cursor);
        cursor = mem_strdup(p.next);
        e2e_page_done(&p);
    } while (cursor);
    assert_int_equal(n, want);
}

static void p10_without_the_ranker_ranked_pages_are_in_time_order_and_say_so(void **state)
{
    (void)state;
    struct driver d;
    char path[200];
    begin(&d, 8, "noranker");
    feed_path(&d, 0, path);
    assert_true(fixture_until(is_ranked, path, BACK_MS));
    server_kill(stack.ranker);
    check_fallback(&d, path);
    fixture_restart(stack.f, stack.ranker);
    assert_true(fixture_until(is_ranked, path, BACK_MS));
    server_pause(stack.ranker);
    check_fallback(&d, path);
    server_continue(stack.ranker);
    assert_true(fixture_until(is_ranked, path, BACK_MS));
    driver_done(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(p1_nothing_is_lost_when_redis_is_flushed_while_others_publish, fresh),
        cmocka_unit_test_setup(p1_nothing_is_lost_when_redis_comes_back_from_an_old_dump, fresh),
        cmocka_unit_test_setup(p1_a_fanout_that_stood_still_while_another_took_over_does_no_harm, fresh),
        cmocka_unit_test_setup(
            p7_p8_with_fanout_stopped_pages_say_how_far_behind_and_a_position_reads_own_writes, fresh),
        cmocka_unit_test_setup(p10_without_redis_pages_come_from_mongodb_and_publishing_goes_on, fresh),
        cmocka_unit_test_setup(p10_without_mongodb_cached_pages_are_served_and_writes_get_503, fresh),
        cmocka_unit_test_setup(p10_with_a_mongodb_that_hangs_cached_pages_are_served_and_writes_get_503,
                               fresh),
        cmocka_unit_test_setup(p10_without_the_ranker_ranked_pages_are_in_time_order_and_say_so, fresh),
    };
    e2e_choose_tests();
    return cmocka_run_group_tests_name("recovery", tests, start_stack, stop_stack);
}
