/* test_kill.c - kill -9 and SIGSTOP of each process, of Redis and of mongod between a request sent and its
 * answer. Two fanouts share the buckets, and targets turn between push and pull all the time.
 *
 * In each case a handful of writes that do not touch each other go out on connections of their own; after a
 * random moment the victim is killed, and the case counts if one of them was not answered by then. What is
 * acknowledged goes into the model, what is not is sent again until it is: so in the end every write has to
 * hold, once. Feeds are compared while the victim is away (unless nothing can be read then), after it came
 * back, and as delivered. What stands still does so for a random time, up to some times a lease: long enough
 * for the other fanout to take over, and for the one that wakes up to be fenced off.
 *
 * FEEDMILL_KILLS cases for each victim, FEEDMILL_PAUSES for each that stands still.
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
#include <time.h>

#include "common/clock.h"
#include "common/mem.h"
#include "tests/support/e2e_stack.h"
#include "tests/support/flights.h"

#define KILLS            50
#define KILLS_SANITIZED  8
#define PAUSES           8
#define PAUSES_SANITIZED 3
#define LEASE_MS         "700"
#define LONGEST_PAUSE_MS 2000
#define AT_ONCE          6
#define LATEST_KILL_US   6000
#define LOOK_EVERY       10 /* cases between comparisons of everything */

static struct e2e_stack stack;

static int start_stack(void **state)
{
    (void)state;
    e2e_stack_start(&stack,
                    &(struct e2e_stack_options){.ranker = true,
                                                .two_fanouts = true,
                                                .lease_ms = LEASE_MS,
                                                .api_flags = {"--pull-threshold", "3", "--count-interval",
                                                              "100", "--pull-items", "10"}});
    return 0;
}

static int stop_stack(void **state)
{
    (void)state;
    return e2e_stack_stop(&stack);
}

/* A page in ranked order, under way while the ranker is killed. */
static struct rawhttp *ask_ranked(struct driver *d)
{
    char path[200];
    snprintf(path, sizeof path, "/v1/users/%s/feed?order=ranked&fields=ids", driver_user(d, 0));
    struct rawhttp *c = e2e_send(&stack.apis[0], "GET", path, NULL, NULL);
    assert_non_null(c);
    return c;
}

static void read_ranked(struct driver *d, struct rawhttp *c)
{
    struct reply r;
    struct e2e_page p;
    if (rawhttp_try_read(c, "GET", &r) != 0 || r.status != 200)
        driver_fail(d, "a ranked page was not answered");
    e2e_page_parse(&r, &p);
    if (!p.session[0] && !p.fallback[0])
        driver_fail(d, "neither ranked nor a fallback: %.400s", r.body);
    e2e_page_done(&p);
    reply_done(&r);
    rawhttp_close(c);
}

/* Not to synchronise: the moment of the kill is what varies, and how long something stands still. */
static void wait_some(struct driver *d, unsigned longest_us)
{
    unsigned us = rng_below(&d->rng, longest_us);
    struct timespec t = {.tv_sec = us / 1000000, .tv_nsec = (long)(us % 1000000) * 1000};
    nanosleep(&t, NULL);
}

/* ---- victims ---- */

struct victim {
    const char *name, *paused;
    struct server *(*server)(void);
    bool writes_without; /* everything is answered while it is away */
};

static struct server *the_feed_api(void)
{
    return stack.servers[0];
}

static struct server *the_fanout(void)
{
    return stack.fanout;
}

static struct server *the_ranker(void)
{
    return stack.ranker;
}

static struct server *the_redis(void)
{
    return fixture_redis(stack.f);
}

static struct server *the_mongod(void)
{
    return fixture_mongod(stack.f);
}

static void come_back(struct driver *d, const struct victim *v)
{
    fixture_restart(stack.f, v->server());
    if (v->server() == the_feed_api())
        e2e_api_drop(&stack.apis[0]);
    if (v->server() == the_redis()) {
        e2e_stack_redis_again(&stack);
        d->redis = stack.redis;
    }
}

/* A ranked page is answered, with or without the ranker, and holds only what belongs to the feed. */
static void check_ranked(struct driver *d, unsigned user)
{
    char path[200];
    struct e2e_page p;
    snprintf(path, sizeof path, "/v1/users/%s/feed", driver_user(d, user));
    e2e_page(&stack.apis[0], path, "limit=30&order=ranked&fields=ids", NULL, d->position, &p);
    for (size_t i = 0; i < p.n; i++) {
        const struct model_item *it = model_find(&d->model, p.items[i].id);
        if (!it || !model_shows(&d->model, user, it))
            driver_fail(d, "%s ranked: item %" PRIu64 " does not belong there", path, p.items[i].id);
    }
    if (!p.session[0] && !p.fallback[0])
        driver_fail(d, "%s: neither ranked nor a fallback", path);
    e2e_page_done(&p);
}

/* One case; answers whether it counts; *again grows by the writes that were not acknowledged. */
static bool kill_between(struct driver *d, const struct victim *v, size_t *again)
{
    struct flights f;
    flights_send(d, DRIVER_GRAPH, 1 + rng_below(&d->rng, AT_ONCE), &f);
    struct rawhttp *ranked = v->server() == the_ranker() ? ask_ranked(d) : NULL;
    wait_some(d, LATEST_KILL_US);
    bool counts = ranked ? flights_unanswered(ranked) : flights_open(&f) > 0;
    server_kill(v->server());
    unsigned user = rng_below(&d->rng, d->users);
    if (ranked)
        read_ranked(d, ranked);
    if (v->writes_without) {
        flights_read(d, &f);
        if (f.n > 0)
            driver_fail(d, "%s %s was not answered without %s", f.flights[0].op.method, f.flights[0].op.path,
                        v->name);
        driver_check_feed(d, user);
        driver_check_now(d, user, &stack.apis[0]);
    }
    come_back(d, v);
    flights_read(d, &f);
    *again += f.n;
    flights_again(d, &f);
    driver_check_feed(d, user);
    if (ranked)
        check_ranked(d, user);
    return counts;
}

/* One case; requests wait, or are answered without it. */
static bool pause_between(struct driver *d, const struct victim *v, size_t *again)
{
    struct flights f;
    flights_send(d, DRIVER_GRAPH, 1 + rng_below(&d->rng, AT_ONCE), &f);
    wait_some(d, LATEST_KILL_US);
    bool counts = flights_open(&f) > 0;
    server_pause(v->server());
    unsigned user = rng_below(&d->rng, d->users);
    if (v->writes_without) {
        flights_read(d, &f);
        driver_check_feed(d, user);
        driver_check_now(d, user, &stack.apis[0]);
    }
    wait_some(d, LONGEST_PAUSE_MS * 1000);
    server_continue(v->server());
    flights_read(d, &f);
    *again += f.n;
    flights_again(d, &f);
    driver_check_feed(d, user);
    driver_check_now(d, user, &stack.apis[0]);
    return counts;
}

static void check_everything(struct driver *d)
{
    driver_check_all_feeds(d);
    for (unsigned u = 0; u < d->users; u++)
        driver_check_delivered(d, u);
    driver_check_targets(d);
    driver_check_rest(d);
}

static void run(const struct victim *v, bool pause)
{
    struct driver d;
    int64_t start = clock_mono_ms();
    bool slow = fixture_slowness() > 1;
    unsigned wanted = (unsigned)(pause ? e2e_env("FEEDMILL_PAUSES", slow ? PAUSES_SANITIZED : PAUSES)
                                       : e2e_env("FEEDMILL_KILLS", slow ? KILLS_SANITIZED : KILLS));
    unsigned counted = 0, kills = 0;
    size_t again = 0;
    driver_init(&d, (uint64_t)e2e_env("FEEDMILL_SEED", 1), pause ? v->paused : v->name, stack.apis, 1,
                stack.redis);
    d.db_away = pause || v->server() == the_mongod(); /* pages may be partial for a while, and say so */
    driver_setup(&d, 40);
    driver_catch_up(&d);
    for (; counted < wanted && kills < 3 * wanted; kills++) {
        counted += (pause ? pause_between : kill_between)(&d, v, &again);
        if (kills % LOOK_EVERY == LOOK_EVERY - 1)
            check_everything(&d);
    }
    check_everything(&d);
    printf("%s: %u %s, %u of them between a request and its answer; %u writes acknowledged, %zu of them "
           "only when sent again, %u feeds "
           "compared, %" PRId64 " ms\n",
           v->name, kills, pause ? "stand-stills" : "kills", counted, d.ops, again, d.feeds,
           clock_mono_ms() - start);
    fflush(stdout);
    assert_true(counted >= wanted);
    driver_done(&d);
}

static const struct victim victims[] = {
    {"feed-api", "feed-api-stops", the_feed_api, false}, {"fanout", "fanout-stops", the_fanout, true},
    {"ranker", "ranker-stops", the_ranker, true},        {"redis", "redis-stops", the_redis, true},
    {"mongod", "mongod-stops", the_mongod, false},
};

static void p1_acknowledged_writes_hold_once_when_feed_api_is_killed(void **state)
{
    (void)state;
    run(&victims[0], false);
}

static void p1_acknowledged_writes_hold_once_when_fanout_is_killed(void **state)
{
    (void)state;
    run(&victims[1], false);
}

static void p1_acknowledged_writes_hold_once_when_the_ranker_is_killed(void **state)
{
    (void)state;
    run(&victims[2], false);
}

static void p1_acknowledged_writes_hold_once_when_redis_is_killed(void **state)
{
    (void)state;
    run(&victims[3], false);
}

static void p1_acknowledged_writes_hold_once_when_mongod_is_killed(void **state)
{
    (void)state;
    run(&victims[4], false);
}

static void p1_acknowledged_writes_hold_once_when_feed_api_stands_still(void **state)
{
    (void)state;
    run(&victims[0], true);
}

static void p1_acknowledged_writes_hold_once_when_fanout_stands_still(void **state)
{
    (void)state;
    run(&victims[1], true);
}

static void p1_acknowledged_writes_hold_once_when_redis_stands_still(void **state)
{
    (void)state;
    run(&victims[3], true);
}

static void p1_acknowledged_writes_hold_once_when_mongod_stands_still(void **state)
{
    (void)state;
    run(&victims[4], true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(p1_acknowledged_writes_hold_once_when_feed_api_is_killed),
        cmocka_unit_test(p1_acknowledged_writes_hold_once_when_fanout_is_killed),
        cmocka_unit_test(p1_acknowledged_writes_hold_once_when_the_ranker_is_killed),
        cmocka_unit_test(p1_acknowledged_writes_hold_once_when_redis_is_killed),
        cmocka_unit_test(p1_acknowledged_writes_hold_once_when_mongod_is_killed),
        cmocka_unit_test(p1_acknowledged_writes_hold_once_when_feed_api_stands_still),
        cmocka_unit_test(p1_acknowledged_writes_hold_once_when_fanout_stands_still),
        cmocka_unit_test(p1_acknowledged_writes_hold_once_when_redis_stands_still),
        cmocka_unit_test(p1_acknowledged_writes_hold_once_when_mongod_stands_still),
    };
    e2e_choose_tests();
    return cmocka_run_group_tests_name("kill -9 and SIGSTOP", tests, start_stack, stop_stack);
}
