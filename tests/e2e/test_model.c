/* test_model.c - thousands of random writes, and whole feeds compared with a model in memory.
 *
 * FEEDMILL_SEEDS seeds from FEEDMILL_SEED on, each with names of its own, on one stack: two feed-apis and a
 * fanout with timelines of 8 entries, feeds of 50 items and more. Each seed also makes sure that it tested
 * what it is for: floors were crossed, timelines trimmed and rebuilt.
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
#include "common/keys.h"
#include "common/mem.h"
#include "tests/support/e2e_stack.h"
#include "tests/support/flights.h"

#define CAP         "8"
#define FIRST_ITEMS 80
#define LONG_FEED   50
#define ROUNDS      8
#define ROUND_OPS   30
#define RACE_ROUNDS 6
#define RACE_BURSTS 5

/* ---- the model itself ---- */

static struct model_item an_item(item_id id, unsigned publisher, uint32_t topics, uint32_t words)
{
    return (struct model_item){
        .id = id, .publisher = publisher, .topics = topics, .words = words, .live = true, .revision = 1};
}

static void a_model_feed_holds_what_is_followed_and_not_muted(void **state)
{
    (void)state;
    struct model m;
    model_init(&m);
    struct model_item a = an_item(10, 0, 1, 0), b = an_item(30, 1, 2, 4), c = an_item(20, 2, 3, 0);
    model_put(&m, &a);
    model_put(&m, &b);
    model_put(&m, &c);
    assert_true(model_edge(&m, &(struct model_edge){.user = 3, .kind = MODEL_FOLLOW_PUBLISHER, .what = 1}));
    assert_true(model_edge(&m, &(struct model_edge){.user = 3, .kind = MODEL_FOLLOW_TOPIC, .what = 0}));
    assert_false(model_edge(&m, &(struct model_edge){.user = 3, .kind = MODEL_FOLLOW_TOPIC, .what = 0}));
    size_t n;
    const struct model_item **feed = model_feed(&m, 3, &n);
    assert_int_equal(n, 3);
    assert_int_equal(feed[0]->id, 30);
    assert_int_equal(feed[1]->id, 20);
    assert_int_equal(feed[2]->id, 10);
    free(feed);
    assert_true(model_edge(&m, &(struct model_edge){.user = 3, .kind = MODEL_MUTE_WORD, .what = 2}));
    assert_true(model_edge(&m, &(struct model_edge){.user = 3, .kind = MODEL_MUTE_ITEM, .item = 20}));
    feed = model_feed(&m, 3, &n);
    assert_int_equal(n, 1);
    assert_int_equal(feed[0]->id, 10);
    free(feed);
    model_find(&m, 10)->live = false;
    free(model_feed(&m, 3, &n));
    assert_int_equal(n, 0);
    model_done(&m);
}

static void a_model_replaces_items_by_id_and_finds_them(void **state)
{
    (void)state;
    struct model m;
    model_init(&m);
    for (item_id id = 200; id > 0; id -= 2) {
        struct model_item it = an_item(id, (unsigned)id % 7, 0, 0);
        snprintf(it.external, sizeof it.external, "x%d", (int)id);
        model_put(&m, &it);
    }
    struct model_item again = *model_find(&m, 50);
    again.revision = 9;
    model_put(&m, &again);
    assert_int_equal(m.n, 100);
    assert_int_equal(model_find(&m, 50)->revision, 9);
    assert_null(model_find(&m, 51));
    assert_int_equal(model_find_external(&m, 50 % 7, "x50")->id, 50);
    assert_null(model_find_external(&m, 50 % 7 + 1, "x50"));
    model_done(&m);
}

/* ---- the stack ---- */

static struct e2e_stack stack;

static int start_stack(void **state)
{
    (void)state;
    e2e_stack_start(&stack, &(struct e2e_stack_options){.entries = CAP, .n_apis = 2});
    return 0;
}

/* The same, where many a target is pulled and turns all the time: at three followers, of six users. */
static int start_pulling_stack(void **state)
{
    (void)state;
    e2e_stack_start(&stack,
                    &(struct e2e_stack_options){.entries = CAP,
                                                .n_apis = 2,
                                                .api_flags = {"--pull-threshold", "3", "--count-interval",
                                                              "100", "--pull-items", "10"}});
    return 0;
}

static int stop_stack(void **state)
{
    (void)state;
    return e2e_stack_stop(&stack);
}

/* ---- one seed ---- */

struct counts {
    double crossed, rebuilt, turned, loaded;
};

static struct counts count(void)
{
    struct counts c = {0};
    for (int i = 0; i < 2; i++) {
        c.crossed += e2e_metric(&stack.apis[i], "feedmill_page_source_total{source=\"both\"}");
        c.crossed += e2e_metric(&stack.apis[i], "feedmill_page_source_total{source=\"store\"}");
        c.turned += e2e_metric(&stack.apis[i], "feedmill_target_turns_total");
        c.loaded += e2e_metric(&stack.apis[i], "feedmill_pulled_loads_total");
        c.rebuilt += e2e_metric(&stack.apis[i], "feedmill_rebuilds_total{result=\"done\"}");
    }
    return c;
}

/* Takes something away from Redis; nobody is told. */
static void disturb(struct driver *d)
{
    char key[KEY_SIZE];
    const char *user = driver_user(d, rng_below(&d->rng, d->users));
    unsigned b = keys_bucket(user);
    switch (rng_below(&d->rng, 4)) {
    case 0:
        freeReplyObject(e2e_redis_do(d->redis, "FLUSHALL"));
        return;
    case 1:
        keys_timeline(key, b, user);
        break;
    case 2:
        keys_timeline_meta(key, b, user);
        break;
    default:
        keys_bucket_record(key, b);
    }
    freeReplyObject(e2e_redis_do(d->redis, "DEL %s", key));
}

/* The first user's timeline is built, then only fanout touches it: its floor has to rise, its R to stay. */
static void check_trimming(struct driver *d)
{
    struct e2e_timeline before, after;
    driver_catch_up(d);
    driver_check_delivered(d, 0);
    if (!e2e_timeline(d->redis, driver_user(d, 0), &before) || !before.ready)
        driver_fail(d, "no timeline after a read");
    for (unsigned i = 0; i < 25; i++)
        e2e_publish(&d->apis[0], driver_publisher(d, i % d->publishers), NULL, "not in the model", NULL, 0,
                    &d->position);
    driver_catch_up(d);
    if (!e2e_timeline(d->redis, driver_user(d, 0), &after) || after.r != before.r)
        driver_fail(d, "the timeline was not left alone: R %016" PRIx64 " and then %016" PRIx64, before.r,
                    after.r);
    if (after.floor <= before.floor)
        driver_fail(d, "25 deliveries did not raise the floor of a timeline of " CAP);
    if (after.entries > 8 + 2 + 1)
        driver_fail(d, "a timeline of " CAP " holds %zu", after.entries);
}

static void round_of(struct driver *d, unsigned flags)
{
    for (unsigned i = 0; i < ROUND_OPS; i++) {
        driver_step(d, flags);
        unsigned dice = rng_below(&d->rng, 100);
        unsigned user = rng_below(&d->rng, d->users);
        if (dice < 8)
            driver_check_feed(d, user);
        else if (dice < 14 && d->writers == 1)
            driver_check_now(d, user, &d->apis[0]);
        else if (dice < 17)
            driver_check_delivered(d, user);
        else if (dice < 20)
            driver_check_rest(d);
    }
}

static void run_seed(uint64_t seed, bool pulling)
{
    struct driver d;
    int64_t start = clock_mono_ms();
    struct counts before = count();
    driver_init(&d, seed, "s", stack.apis, 2, stack.redis);
    d.writers = 1 + seed % 2;
    driver_setup(&d, FIRST_ITEMS);
    size_t longest;
    free(model_feed(&d.model, 0, &longest));
    if (longest < LONG_FEED)
        driver_fail(&d, "the longest feed has %zu items: too short for this test", longest);
    driver_check_all_feeds(&d);
    for (unsigned r = 0; r < ROUNDS; r++) {
        round_of(&d, rng_percent(&d.rng, 50) ? DRIVER_GRAPH : 0);
        if (rng_percent(&d.rng, 35))
            disturb(&d);
        driver_check_feed(&d, rng_below(&d.rng, d.users));
    }
    driver_check_all_feeds(&d);
    for (unsigned u = 0; u < d.users; u++)
        driver_check_delivered(&d, u);
    if (!pulling)
        check_trimming(&d);
    struct counts after = count();
    if (after.crossed <= before.crossed || after.rebuilt <= before.rebuilt)
        driver_fail(&d, "this seed did not cross a floor or rebuild a timeline");
    if (pulling && (after.turned <= before.turned || after.loaded <= before.loaded))
        driver_fail(&d, "nothing turned in this seed, or nothing was pulled");
    printf("seed %" PRIu64
           ": %u ops (%u new, %u revised, %u deleted, %u edges), %u feeds, %u items compared, %.0f pages "
           "below a floor, %.0f rebuilds, %" PRId64 " ms\n",
           seed, d.ops, d.publishes, d.revisions, d.deletes, d.graph_changes, d.feeds, d.items_compared,
           after.crossed - before.crossed, after.rebuilt - before.rebuilt, clock_mono_ms() - start);
    fflush(stdout);
    driver_done(&d);
}

static void feeds_equal_the_model_whatever_is_written(void **state)
{
    (void)state;
    uint64_t seed = (uint64_t)e2e_env("FEEDMILL_SEED", 1);
    int64_t seeds = e2e_env("FEEDMILL_SEEDS", fixture_slowness() > 1 ? 3 : 12);
    for (int64_t i = 0; i < seeds; i++)
        run_seed(seed + (uint64_t)i, false);
}

static void feeds_equal_the_model_while_targets_turn(void **state)
{
    (void)state;
    uint64_t seed = (uint64_t)e2e_env("FEEDMILL_SEED", 1) + 1000;
    int64_t seeds = e2e_env("FEEDMILL_SEEDS", fixture_slowness() > 1 ? 2 : 8);
    for (int64_t i = 0; i < seeds; i++)
        run_seed(seed + (uint64_t)i, true);
}

/* ---- reads and writes at the same time ---- */

struct reads {
    struct rawhttp *conn[2 * MODEL_USERS_MAX];
    size_t n;
};

/* A page of each user at each process. What it shows depends on who comes first; what it leaves in Redis may
 * not. */
static void send_reads(struct driver *d, struct reads *r)
{
    r->n = 0;
    for (unsigned u = 0; u < d->users; u++)
        for (size_t i = 0; i < d->n_apis; i++) {
            char path[200];
            snprintf(path, sizeof path, "/v1/users/%s/feed?limit=%u", driver_user(d, u),
                     1 + rng_below(&d->rng, 20));
            r->conn[r->n] = e2e_send(&d->apis[i], "GET", path, NULL, NULL);
            assert_non_null(r->conn[r->n]);
            r->n++;
        }
}

static void read_reads(struct driver *d, struct reads *r)
{
    for (size_t i = 0; i < r->n; i++) {
        struct reply reply;
        rawhttp_read(r->conn[i], "GET", &reply);
        if (reply.status != 200)
            driver_fail(d, "a page: %d %.400s", reply.status, reply.body);
        reply_done(&reply);
        rawhttp_close(r->conn[i]);
    }
}

/* Timelines are rebuilt while deliveries, removals and changes of follows arrive, half of them at another
 * process, and Redis loses things under all of it. When the dust has settled the delivered timelines have to
 * be right. */
static void run_race(uint64_t seed)
{
    struct driver d;
    int64_t start = clock_mono_ms();
    driver_init(&d, seed, "r", stack.apis, 2, stack.redis);
    driver_setup(&d, FIRST_ITEMS);
    for (unsigned round = 0; round < RACE_ROUNDS; round++) {
        for (unsigned i = 0; i < RACE_BURSTS; i++) {
            struct flights f;
            struct reads before, after;
            if (rng_percent(&d.rng, 40))
                disturb(&d);
            send_reads(&d, &before);
            flights_send(&d, rng_percent(&d.rng, 50) ? DRIVER_GRAPH : 0, 1 + rng_below(&d.rng, FLIGHTS_MAX),
                         &f);
            send_reads(&d, &after);
            flights_read(&d, &f);
            if (f.n > 0)
                driver_fail(&d, "%s %s was not taken", f.flights[0].op.method, f.flights[0].op.path);
            read_reads(&d, &before);
            read_reads(&d, &after);
        }
        driver_catch_up(&d);
        for (unsigned u = 0; u < d.users; u++)
            driver_check_delivered(&d, u);
    }
    driver_check_targets(&d);
    printf("race %" PRIu64 ": %u ops, %u feeds, %u items compared, %" PRId64 " ms\n", seed, d.ops, d.feeds,
           d.items_compared, clock_mono_ms() - start);
    fflush(stdout);
    driver_done(&d);
}

static void feeds_equal_the_model_after_reads_and_writes_met(void **state)
{
    (void)state;
    uint64_t seed = (uint64_t)e2e_env("FEEDMILL_SEED", 1);
    int64_t seeds = e2e_env("FEEDMILL_SEEDS", fixture_slowness() > 1 ? 2 : 6);
    for (int64_t i = 0; i < seeds; i++)
        run_race(seed + (uint64_t)i);
}

int main(void)
{
    const struct CMUnitTest pure[] = {
        cmocka_unit_test(a_model_feed_holds_what_is_followed_and_not_muted),
        cmocka_unit_test(a_model_replaces_items_by_id_and_finds_them),
    };
    const struct CMUnitTest whole[] = {
        cmocka_unit_test(feeds_equal_the_model_whatever_is_written),
        cmocka_unit_test(feeds_equal_the_model_after_reads_and_writes_met),
    };
    const struct CMUnitTest pulling[] = {
        cmocka_unit_test(feeds_equal_the_model_while_targets_turn),
        cmocka_unit_test(feeds_equal_the_model_after_reads_and_writes_met),
    };
    e2e_choose_tests();
    int failed = cmocka_run_group_tests_name("the model", pure, NULL, NULL);
    failed += cmocka_run_group_tests_name("feeds and the model", whole, start_stack, stop_stack);
    return failed + cmocka_run_group_tests_name("feeds and the model, pulled", pulling, start_pulling_stack,
                                                stop_stack);
}
