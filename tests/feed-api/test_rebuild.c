/* Tests of feed-api/rebuild.c on a real Redis and MongoDB: what becomes of a timeline, and that the page has
 * its truth in any case. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/keys.h"
#include "common/mem.h"
#include "feed-api/app.h"
#include "feed-api/rebuild.h"
#include "tests/support/e2e.h"
#include "tests/support/fixture.h"

#define CAP 8

struct world {
    struct fixture *f;
    struct app app;
    struct worker w;
    struct rebuilds *all;
    redisContext *eye; /* looks from outside */
};

static void world_open(struct world *w, void **state)
{
    struct err e;
    memset(w, 0, sizeof *w);
    w->f = *state;
    fixture_fresh(w->f);
    feed_config_defaults(&w->app.cfg);
    w->app.cfg.timeline_entries = CAP;
    w->app.metrics = feed_metrics_new();
    struct mongo_options o = {.uri = fixture_mongodb_uri(w->f), .app_name = "test", .pool_size = 20};
    assert_int_equal(mongo_new(&w->app.mongo, &o, &e), 0);
    assert_int_equal(redis_address_parse(fixture_redis_address(w->f), &w->app.redis_address, &e), 0);
    w->w = (struct worker){.app = &w->app, .redis = redis_new(&w->app.redis_address, 0)};
    if (mongo_conn_get(w->app.mongo, &w->w.mongo, &e) || mongo_schema_ensure(w->w.mongo, &e))
        fail_msg("%s", e.msg);
    mongo_conn_deadline(w->w.mongo, 60000);
    w->all = rebuilds_new();
    w->eye = e2e_redis(w->f);
}

static void world_close(struct world *w)
{
    redisFree(w->eye);
    rebuilds_free(w->all);
    mongo_conn_put(w->w.mongo);
    redis_free(w->w.redis);
    mongo_free(w->app.mongo);
    metrics_free(w->app.metrics);
    feed_config_free(&w->app.cfg);
}

static void insert(struct world *w, enum mongo_collection which, bson_t *d)
{
    bson_error_t be;
    bson_t opts = BSON_INITIALIZER;
    mongo_write_opts(w->w.mongo, &opts);
    if (!mongoc_collection_insert_one(mongo_coll(w->w.mongo, which), d, &opts, NULL, &be))
        fail_msg("insert: %s", be.message);
    bson_destroy(&opts);
    bson_destroy(d);
}

static void publish(struct world *w, item_id id, const char *publisher)
{
    bson_t d = BSON_INITIALIZER;
    BSON_APPEND_INT64(&d, "_id", (int64_t)id);
    BSON_APPEND_UTF8(&d, "publisher", publisher);
    BSON_APPEND_BOOL(&d, "live", true);
    insert(w, COLL_ITEMS, &d);
}

static void edge(struct world *w, enum mongo_collection which, const char *id)
{
    bson_t d = BSON_INITIALIZER;
    BSON_APPEND_UTF8(&d, "_id", id);
    insert(w, which, &d);
}

/* What a fanout does when it takes a bucket over. */
static void make_record(struct world *w, const char *user, ts_t now)
{
    char key[KEY_SIZE], text[TS_TEXT_SIZE];
    struct err e;
    redisReply *reply;
    keys_bucket_record(key, keys_bucket(user));
    ts_format(now, text);
    const char *argv[] = {key, "0000000000000001", text, "0"};
    size_t len[] = {strlen(key), 16, 16, 1};
    if (redis_script(w->w.redis, &reply, SCRIPT_ADOPT, 1, 4, argv, len, &e))
        fail_msg("adopt: %s", e.msg);
    freeReplyObject(reply);
}

static ts_t now_of(struct world *w)
{
    struct err e;
    ts_t t;
    assert_int_equal(mongo_conn_fresh(w->w.mongo, &t, &e), 0);
    return t;
}

static struct truth *rebuild(struct world *w, const char *user, ts_t least)
{
    struct truth *t;
    struct err e;
    if (rebuild_run(w->all, &w->w, user, least, least, &t, &e))
        fail_msg("rebuild: %s", e.msg);
    return t;
}

static void a_rebuild_writes_the_newest_ids_and_the_floor(void **state)
{
    struct world w;
    struct e2e_timeline seen;
    world_open(&w, state);
    edge(&w, COLL_FOLLOWS, "ann p:daily");
    edge(&w, COLL_MUTES, "ann w:cat");
    for (item_id i = 1; i <= 20; i++)
        publish(&w, i * 100, i % 2 ? "daily" : "other");
    ts_t now = now_of(&w);
    make_record(&w, "ann", now);
    struct truth *t = rebuild(&w, "ann", now);
    assert_int_equal(t->how, MRB_DONE);
    assert_true(t->r >= now);
    assert_int_equal(t->n, CAP);
    assert_int_equal(t->ids[0], 1900);
    assert_int_equal(t->ids[CAP - 1], 500);
    assert_int_equal(t->floor, 300);
    assert_string_equal(t->mutes, "w:cat");
    assert_int_equal(t->follows.n_publishers, 1);
    assert_true(e2e_timeline(w.eye, "ann", &seen));
    assert_true(seen.ready);
    assert_int_equal(seen.r, t->r);
    assert_int_equal(seen.floor, 300);
    assert_int_equal(seen.above, CAP);
    truth_unref(t);
    world_close(&w);
}

static void a_feed_smaller_than_the_cap_has_no_floor(void **state)
{
    struct world w;
    struct e2e_timeline seen;
    world_open(&w, state);
    edge(&w, COLL_FOLLOWS, "ann p:daily");
    for (item_id i = 1; i <= CAP; i++)
        publish(&w, i * 100, "daily");
    ts_t now = now_of(&w);
    make_record(&w, "ann", now);
    struct truth *t = rebuild(&w, "ann", now);
    assert_int_equal(t->n, CAP);
    assert_int_equal(t->floor, 0);
    assert_true(e2e_timeline(w.eye, "ann", &seen));
    assert_int_equal(seen.floor, 0);
    assert_int_equal(seen.above, CAP);
    truth_unref(t);
    world_close(&w);
}

static void a_reader_of_nothing_gets_an_empty_timeline(void **state)
{
    struct world w;
    struct e2e_timeline seen;
    world_open(&w, state);
    make_record(&w, "ann", now_of(&w));
    struct truth *t = rebuild(&w, "ann", now_of(&w));
    assert_int_equal(t->how, MRB_DONE);
    assert_int_equal(t->n, 0);
    assert_true(e2e_timeline(w.eye, "ann", &seen));
    assert_int_equal(seen.entries, 0);
    truth_unref(t);
    world_close(&w);
}

static void without_a_record_the_truth_is_answered_and_nothing_written(void **state)
{
    struct world w;
    struct e2e_timeline seen;
    world_open(&w, state);
    edge(&w, COLL_FOLLOWS, "ann p:daily");
    publish(&w, 100, "daily");
    struct truth *t = rebuild(&w, "ann", now_of(&w));
    assert_int_equal(t->how, MRB_NO_RECORD);
    assert_int_equal(t->n, 1);
    assert_false(e2e_timeline(w.eye, "ann", &seen));
    truth_unref(t);
    world_close(&w);
}

static void a_ready_timeline_that_is_new_enough_is_left_alone(void **state)
{
    struct world w;
    struct e2e_timeline before, after;
    world_open(&w, state);
    edge(&w, COLL_FOLLOWS, "ann p:daily");
    publish(&w, 100, "daily");
    ts_t now = now_of(&w);
    make_record(&w, "ann", now);
    truth_unref(rebuild(&w, "ann", now));
    assert_true(e2e_timeline(w.eye, "ann", &before));
    publish(&w, 200, "daily");
    struct truth *t = rebuild(&w, "ann", now);
    assert_int_equal(t->how, MRB_JOINED);
    assert_true(e2e_timeline(w.eye, "ann", &after));
    assert_int_equal(after.r, before.r);
    truth_unref(t);
    t = rebuild(&w, "ann", now_of(&w)); /* and one that is not is made anew */
    assert_int_equal(t->how, MRB_DONE);
    assert_int_equal(t->n, 2);
    assert_true(e2e_timeline(w.eye, "ann", &after));
    assert_true(after.r > before.r);
    assert_int_equal(after.above, 2);
    truth_unref(t);
    world_close(&w);
}

/* R covers what an absent timeline was not given: everything that any script of the bucket brought. */
static void a_rebuild_reads_at_least_at_what_the_bucket_has_seen(void **state)
{
    struct world w;
    world_open(&w, state);
    ts_t early = now_of(&w);
    edge(&w, COLL_FOLLOWS, "ann p:daily");
    publish(&w, 100, "daily");
    ts_t late = now_of(&w);
    assert_true(late > early);
    make_record(&w, "ann", late);
    struct truth *t = rebuild(&w, "ann", early);
    assert_true(t->r >= late);
    assert_int_equal(t->n, 1);
    truth_unref(t);
    world_close(&w);
}

static void P10_without_redis_the_truth_is_answered(void **state)
{
    struct world w;
    world_open(&w, state);
    edge(&w, COLL_FOLLOWS, "ann p:daily");
    publish(&w, 100, "daily");
    ts_t now = now_of(&w);
    server_kill(fixture_redis(w.f));
    struct truth *t = rebuild(&w, "ann", now);
    assert_int_equal(t->how, MRB_NO_REDIS);
    assert_int_equal(t->n, 1);
    truth_unref(t);
    world_close(&w);
    fixture_restart(w.f, fixture_redis(w.f));
}

/* ---- many at once ---- */

struct racer {
    pthread_t thread;
    struct world *w;
    struct worker worker;
    ts_t least;
    pthread_barrier_t *start;
    struct truth *truth;
};

static void *race(void *arg)
{
    struct racer *r = arg;
    struct err e;
    pthread_barrier_wait(r->start);
    if (rebuild_run(r->w->all, &r->worker, "ann", r->least, r->least, &r->truth, &e))
        r->truth = NULL;
    return NULL;
}

static void readers_at_the_same_time_all_get_the_truth(void **state)
{
    enum { N = 12, ROUNDS = 10 };
    struct world w;
    struct racer racers[N];
    pthread_barrier_t start;
    struct err e;
    world_open(&w, state);
    edge(&w, COLL_FOLLOWS, "ann p:daily");
    publish(&w, 100, "daily");
    make_record(&w, "ann", now_of(&w));
    pthread_barrier_init(&start, NULL, N);
    for (int i = 0; i < N; i++) {
        racers[i] = (struct racer){.w = &w, .start = &start, .worker = {.app = &w.app}};
        racers[i].worker.redis = redis_new(&w.app.redis_address, 0);
        assert_int_equal(mongo_conn_get(w.app.mongo, &racers[i].worker.mongo, &e), 0);
        mongo_conn_deadline(racers[i].worker.mongo, 60000);
    }
    for (int round = 1; round <= ROUNDS; round++) {
        publish(&w, 100 + (item_id)round, "daily");
        ts_t now = now_of(&w);
        for (int i = 0; i < N; i++) {
            racers[i].least = now;
            assert_int_equal(pthread_create(&racers[i].thread, NULL, race, &racers[i]), 0);
        }
        for (int i = 0; i < N; i++) {
            pthread_join(racers[i].thread, NULL);
            assert_non_null(racers[i].truth);
            assert_true(racers[i].truth->r >= now);
            assert_int_equal(racers[i].truth->ids[0], 100 + round);
        }
        for (int i = 0; i < N; i++)
            truth_unref(racers[i].truth);
    }
    struct e2e_timeline seen;
    assert_true(e2e_timeline(w.eye, "ann", &seen));
    assert_true(seen.ready);
    for (int i = 0; i < N; i++) {
        mongo_conn_put(racers[i].worker.mongo);
        redis_free(racers[i].worker.redis);
    }
    pthread_barrier_destroy(&start);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rebuild_writes_the_newest_ids_and_the_floor),
        cmocka_unit_test(a_feed_smaller_than_the_cap_has_no_floor),
        cmocka_unit_test(a_reader_of_nothing_gets_an_empty_timeline),
        cmocka_unit_test(without_a_record_the_truth_is_answered_and_nothing_written),
        cmocka_unit_test(a_ready_timeline_that_is_new_enough_is_left_alone),
        cmocka_unit_test(a_rebuild_reads_at_least_at_what_the_bucket_has_seen),
        cmocka_unit_test(P10_without_redis_the_truth_is_answered),
        cmocka_unit_test(readers_at_the_same_time_all_get_the_truth),
    };
    return cmocka_run_group_tests_name("rebuild", tests, fixture_group_setup, fixture_group_teardown);
}
