/* test_pressure.c - when publishing is refused: the decision, and what fanouts write into `members`. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/mem.h"
#include "feed-api/metrics.h"
#include "feed-api/pressure.h"
#include "tests/support/fixture.h"

static const struct pressure_limits limits = {.lag_ms = 1000, .backlog = 100};

/* ---- the decision ---- */

static struct pressure_fanout fanout(int64_t lag_ms, int64_t backlog)
{
    return (struct pressure_fanout){
        .name = "fanout",
        .alive = true,
        .told = true,
        .state = {.ready = true,
                  .redis_ok = true,
                  .mongodb_ok = true,
                  .buckets = 256,
                  .lag_ms = lag_ms,
                  .backlog = backlog},
    };
}

/* One look after another, a second apart. */
static struct pressure_view before, now;

static int begin(void **state)
{
    (void)state;
    memset(&before, 0, sizeof before);
    before.lag_ms = -1;
    return 0;
}

static enum pressure_reason look_at(const struct pressure_fanout *f, size_t n,
                                    const struct pressure_limits *l)
{
    memset(&now, 0, sizeof now);
    now.at_ms = before.at_ms + 1000;
    now.n = n;
    memcpy(now.fanouts, f, n * sizeof *f);
    pressure_decide(l, &before, &now);
    before = now;
    return now.reason;
}

static enum pressure_reason look(int64_t lag_ms, int64_t backlog)
{
    struct pressure_fanout f = fanout(lag_ms, backlog);
    return look_at(&f, 1, &limits);
}

static void publishing_is_refused_beyond_a_limit_only(void **state)
{
    (void)state;
    assert_int_equal(look(1000, 100), PRESSURE_NONE);
    assert_int_equal(now.retry_after_ms, 0);
    assert_int_equal(look(1001, 100), PRESSURE_LAG);
    assert_true(now.retry_after_ms >= 1000);
    assert_int_equal(look(0, 0), PRESSURE_NONE);
    assert_int_equal(look(0, 101), PRESSURE_BACKLOG);
    assert_int_equal(now.backlog, 101);
}

static void it_is_accepted_again_at_three_quarters(void **state)
{
    (void)state;
    assert_int_equal(look(0, 101), PRESSURE_BACKLOG);
    assert_int_equal(look(0, 90), PRESSURE_BACKLOG);
    assert_int_equal(look(0, 76), PRESSURE_BACKLOG);
    assert_int_equal(look(0, 75), PRESSURE_NONE);
    assert_int_equal(look(0, 90), PRESSURE_NONE);
    assert_int_equal(look(1001, 0), PRESSURE_LAG);
    assert_int_equal(look(751, 0), PRESSURE_LAG);
    assert_int_equal(look(750, 0), PRESSURE_NONE);
    assert_int_equal(look(1001, 101), PRESSURE_LAG);
    assert_int_equal(look(700, 101), PRESSURE_BACKLOG);
}

static void without_a_limit_it_is_never_refused(void **state)
{
    (void)state;
    struct pressure_fanout f = fanout(1000000000, 1000000000);
    assert_int_equal(look_at(&f, 1, &(struct pressure_limits){0, 0}), PRESSURE_NONE);
    assert_int_equal(look_at(&f, 1, &(struct pressure_limits){0, 5}), PRESSURE_BACKLOG);
}

static void the_last_of_several_fanouts_decides(void **state)
{
    (void)state;
    struct pressure_fanout f[] = {fanout(5, 1), fanout(2000, 50), fanout(-1, 7)};
    assert_int_equal(look_at(f, 3, &limits), PRESSURE_LAG);
    assert_int_equal(now.lag_ms, 2000);
    assert_int_equal(now.backlog, 50);
    assert_int_equal(now.alive, 3);
}

/* P10: without Redis, or without a fanout, publishing goes on. */
static void p10_a_fanout_that_is_dead_or_lacks_a_server_holds_nothing_back(void **state)
{
    (void)state;
    struct pressure_fanout dead = fanout(90000, 90000), redis = dead, mongodb = dead, silent = dead,
                           idle = dead;
    dead.alive = false;
    redis.state.redis_ok = false;
    mongodb.state.mongodb_ok = false;
    silent.told = false;
    idle.state.buckets = 0;
    struct pressure_fanout f[] = {dead, redis, mongodb, silent, idle};
    assert_int_equal(look_at(f, 5, &limits), PRESSURE_NONE);
    assert_int_equal(now.alive, 4);
    assert_int_equal(now.lag_ms, -1);
    assert_int_equal(look_at(f, 0, &limits), PRESSURE_NONE);
    f[1].state.redis_ok = true;
    assert_int_equal(look_at(f, 5, &limits), PRESSURE_LAG);
}

static void retry_after_is_how_long_it_takes_at_the_present_rate(void **state)
{
    (void)state;
    look(0, 900);
    assert_true(now.retry_after_ms > 1000); /* nobody knows */
    look(0, 875);                           /* 25 a second, 800 to go */
    assert_int_equal(now.retry_after_ms, 30000);
    look(0, 475); /* 400 a second, 400 to go */
    assert_int_equal(now.retry_after_ms, 1000);
    look(0, 275); /* 200 a second, 200 to go */
    assert_int_equal(now.retry_after_ms, 1000);
    look(0, 255); /* 20 a second, 180 to go */
    assert_int_equal(now.retry_after_ms, 9000);
    int64_t down = now.retry_after_ms;
    look(0, 300); /* it grows again */
    assert_true(now.retry_after_ms >= 1000 && now.retry_after_ms <= 30000 && now.retry_after_ms != down);
}

static void tight_memory_of_one_that_lives_is_told(void **state)
{
    (void)state;
    struct pressure_fanout f = fanout(0, 0);
    f.state.memory_tight = true;
    look_at(&f, 1, &limits);
    assert_true(now.memory_tight);
    f.alive = false;
    look_at(&f, 1, &limits);
    assert_false(now.memory_tight);
}

/* ---- what is in MongoDB ---- */

struct world {
    struct fixture *f;
    struct mongo *mongo;
    struct mongo_conn *conn;
};

static int group_setup(void **state)
{
    struct world *w = mem_zero(1, sizeof *w);
    struct err e = {0};
    w->f = fixture_new(FIXTURE_MONGOD);
    struct mongo_options o = {.uri = fixture_mongodb_uri(w->f), .app_name = "test", .pool_size = 2};
    if (mongo_new(&w->mongo, &o, &e) != 0 || mongo_conn_get(w->mongo, &w->conn, &e) != 0)
        fail_msg("%s", e.msg);
    *state = w;
    return 0;
}

static int group_teardown(void **state)
{
    struct world *w = *state;
    mongo_conn_put(w->conn);
    mongo_free(w->mongo);
    fixture_free(w->f);
    free(w);
    return 0;
}

/* A document as a fanout writes it, signed on `age_ms` ago. */
static void sign_on(struct world *w, const char *name, int64_t age_ms, const struct member_state *s)
{
    bson_t update = BSON_INITIALIZER, set, opts = BSON_INITIALIZER;
    bson_t *q = BCON_NEW("_id", BCON_UTF8(name));
    bson_error_t be;
    BSON_APPEND_DOCUMENT_BEGIN(&update, "$set", &set);
    BSON_APPEND_DATE_TIME(&set, "seen", clock_wall_ms() - age_ms);
    BSON_APPEND_INT64(&set, "lease_ms", 5000);
    if (s != NULL)
        member_state_append(s, "state", &set);
    bson_append_document_end(&update, &set);
    BSON_APPEND_BOOL(&opts, "upsert", true);
    if (!mongoc_collection_update_one(mongo_coll(w->conn, COLL_MEMBERS), q, &update, &opts, NULL, &be))
        fail_msg("%s", be.message);
    bson_destroy(q);
    bson_destroy(&opts);
    bson_destroy(&update);
}

static void a_state_reads_as_it_was_written(void **state)
{
    (void)state;
    struct member_state s = {.ready = true,
                             .redis_ok = true,
                             .buckets = 128,
                             .progress = ts_make(1700000000, 7),
                             .lag_ms = 12,
                             .backlog = 34,
                             .memory_used = 1000000000000,
                             .memory_max = 2000000000000,
                             .memory_tight = true,
                             .evicted = 56},
                        out;
    bson_t d = BSON_INITIALIZER, empty = BSON_INITIALIZER;
    member_state_append(&s, "state", &d);
    memset(&out, 0xff, sizeof out);
    assert_true(member_state_read(&d, "state", &out));
    assert_true(out.ready && out.redis_ok && !out.mongodb_ok && out.memory_tight);
    assert_int_equal(out.buckets, 128);
    assert_int_equal(out.progress, s.progress);
    assert_int_equal(out.lag_ms, 12);
    assert_int_equal(out.backlog, 34);
    assert_int_equal(out.memory_used, s.memory_used);
    assert_int_equal(out.memory_max, s.memory_max);
    assert_int_equal(out.evicted, 56);
    assert_false(member_state_read(&empty, "state", &out));
    BSON_APPEND_DOCUMENT(&empty, "state", &(bson_t)BSON_INITIALIZER);
    assert_true(member_state_read(&empty, "state", &out)); /* of another version: nothing of it is known */
    assert_true(!out.ready && !out.redis_ok && out.lag_ms == -1 && out.memory_used == -1 &&
                out.progress == 0);
    bson_destroy(&d);
    bson_destroy(&empty);
}

static void what_fanouts_wrote_is_read_and_decided(void **state)
{
    struct world *w = *state;
    struct err e = {0};
    struct metrics *m = feed_metrics_new();
    struct pressure *p = pressure_new(&limits, m);
    struct pressure_view *v = mem_zero(1, sizeof *v);
    int64_t retry = 0;
    struct member_state s = fanout(40, 3).state, behind = fanout(40, 1000).state;
    assert_int_equal(pressure_refuses(p, &retry), PRESSURE_NONE);
    mongo_conn_deadline(w->conn, 10000);
    if (pressure_probe(p, w->conn, &e) != 0) /* nobody there */
        fail_msg("%s", e.msg);
    assert_int_equal(pressure_refuses(p, &retry), PRESSURE_NONE);
    sign_on(w, "well", 0, &s);
    sign_on(w, "dead", 60000, &behind);
    sign_on(w, "silent", 0, NULL);
    if (pressure_probe(p, w->conn, &e) != 0)
        fail_msg("%s", e.msg);
    assert_int_equal(pressure_refuses(p, &retry), PRESSURE_NONE);
    pressure_look(p, v);
    assert_int_equal(v->n, 3);
    assert_string_equal(v->fanouts[2].name, "dead");
    assert_int_equal(v->alive, 2);
    assert_int_equal(v->lag_ms, 40);
    assert_int_equal(metrics_get(m, M_FANOUTS, 0), 2);
    assert_int_equal(metrics_get(m, M_FANOUT_BACKLOG, 0), 3);
    assert_int_equal(metrics_get(m, M_PUBLISHING, 0), 1);
    sign_on(w, "dead", 0, &behind); /* it lives after all */
    if (pressure_probe(p, w->conn, &e) != 0)
        fail_msg("%s", e.msg);
    assert_int_equal(pressure_refuses(p, &retry), PRESSURE_BACKLOG);
    assert_true(retry >= 1000);
    assert_int_equal(metrics_get(m, M_PUBLISHING, 0), 0);
    free(v);
    pressure_free(p);
    metrics_free(m);
}

int main(void)
{
#define FRESH(t) cmocka_unit_test_setup(t, begin)
    const struct CMUnitTest decisions[] = {
        FRESH(publishing_is_refused_beyond_a_limit_only),
        FRESH(it_is_accepted_again_at_three_quarters),
        FRESH(without_a_limit_it_is_never_refused),
        FRESH(the_last_of_several_fanouts_decides),
        FRESH(p10_a_fanout_that_is_dead_or_lacks_a_server_holds_nothing_back),
        FRESH(retry_after_is_how_long_it_takes_at_the_present_rate),
        FRESH(tight_memory_of_one_that_lives_is_told),
        cmocka_unit_test(a_state_reads_as_it_was_written),
    };
    const struct CMUnitTest with_mongodb[] = {
        cmocka_unit_test(what_fanouts_wrote_is_read_and_decided),
    };
    int failed = cmocka_run_group_tests_name("feed-api/pressure", decisions, NULL, NULL);
    return failed + cmocka_run_group_tests_name("feed-api/pressure with MongoDB", with_mongodb, group_setup,
                                                group_teardown);
}
