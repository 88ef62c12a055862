/* test_kill.c - kill -9 of each process, of Redis and of mongod between a request sent and its answer.
 *
 * In each case a handful of writes that do not touch each other go out on connections of their own; after a
 * random moment the victim is killed, and the case counts if one of them was not answered by then. What is
 * acknowledged goes into the model, what is not is sent again until it is: so in the end every write has to
 * hold, once. Feeds are compared while the victim is away (unless nothing can be read then), after it came
 * back, and as delivered.
 *
 * FEEDMILL_KILLS cases for each victim.
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

#define KILLS           50
#define KILLS_SANITIZED 8
#define AT_ONCE         6
#define LATEST_KILL_US  6000
#define LOOK_EVERY      10 /* cases between comparisons of everything */

static struct e2e_stack stack;

static int start_stack(void **state)
{
    (void)state;
    e2e_stack_start(&stack, &(struct e2e_stack_options){.ranker = true});
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

static void wait_some(struct driver *d)
{
    /* Not to synchronise: the moment of the kill is what varies. */
    struct timespec t = {.tv_nsec = (long)rng_below(&d->rng, LATEST_KILL_US) * 1000};
    nanosleep(&t, NULL);
}

/* ---- victims ---- */

struct victim {
    const char *name;
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
    wait_some(d);
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

static void check_everything(struct driver *d)
{
    driver_check_all_feeds(d);
    for (unsigned u = 0; u < d->users; u++)
        driver_check_delivered(d, u);
    driver_check_targets(d);
    driver_check_rest(d);
}

static void run(const struct victim *v)
{
    struct driver d;
    int64_t start = clock_mono_ms();
    unsigned wanted = (unsigned)e2e_env("FEEDMILL_KILLS", fixture_slowness() > 1 ? KILLS_SANITIZED : KILLS);
    unsigned counted = 0, kills = 0;
    size_t again = 0;
    driver_init(&d, (uint64_t)e2e_env("FEEDMILL_SEED", 1), v->name, stack.apis, 1, stack.redis);
    d.db_away = v->server() == the_mongod();
    driver_setup(&d, 40);
    driver_catch_up(&d);
    for (; counted < wanted && kills < 3 * wanted; kills++) {
        counted += kill_between(&d, v, &again);
        if (kills % LOOK_EVERY == LOOK_EVERY - 1)
            check_everything(&d);
    }
    check_everything(&d);
    printf("%s: %u kills, %u of them between a request and its answer; %u writes acknowledged, %zu of them "
           "only when sent again, %u feeds "
           "compared, %" PRId64 " ms\n",
           v->name, kills, counted, d.ops, again, d.feeds, clock_mono_ms() - start);
    fflush(stdout);
    assert_true(counted >= wanted);
    driver_done(&d);
}

static void p1_acknowledged_writes_hold_once_when_feed_api_is_killed(void **state)
{
    (void)state;
    run(&(struct victim){"feed-api", the_feed_api, false});
}

static void p1_acknowledged_writes_hold_once_when_fanout_is_killed(void **state)
{
    (void)state;
    run(&(struct victim){"fanout", the_fanout, true});
}

static void p1_acknowledged_writes_hold_once_when_the_ranker_is_killed(void **state)
{
    (void)state;
    run(&(struct victim){"ranker", the_ranker, true});
}

static void p1_acknowledged_writes_hold_once_when_redis_is_killed(void **state)
{
    (void)state;
    run(&(struct victim){"redis", the_redis, true});
}

static void p1_acknowledged_writes_hold_once_when_mongod_is_killed(void **state)
{
    (void)state;
    run(&(struct victim){"mongod", the_mongod, false});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(p1_acknowledged_writes_hold_once_when_feed_api_is_killed),
        cmocka_unit_test(p1_acknowledged_writes_hold_once_when_fanout_is_killed),
        cmocka_unit_test(p1_acknowledged_writes_hold_once_when_the_ranker_is_killed),
        cmocka_unit_test(p1_acknowledged_writes_hold_once_when_redis_is_killed),
        cmocka_unit_test(p1_acknowledged_writes_hold_once_when_mongod_is_killed),
    };
    e2e_choose_tests();
    return cmocka_run_group_tests_name("kill -9", tests, start_stack, stop_stack);
}
