/* The learner and sessions against a real Redis and mongod. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/keys.h"
#include "common/mem.h"
#include "common/proc.h"
#include "ranker/app.h"
#include "ranker/metrics.h"
#include "tests/support/fixture.h"

#define NOW INT64_C(1700000000000)

static struct {
    struct fixture *f;
    struct mongo *mongo;
    struct redis_address address;
    struct redis *redis;
    struct ranker_config cfg;
    struct metrics *metrics;
    struct item_infos *infos;
    struct learner *learner;
    struct session_limits limits;
} t;

#define OK(e, call)                                                                                          \
    do {                                                                                                     \
        if ((call) < 0)                                                                                      \
            fixture_fail(t.f, "%s: %s", #call, (e).msg);                                                     \
    } while (0)

static struct learner *start_learner(const char *name)
{
    struct err e = {0};
    struct learner *l = NULL;
    struct learner_options o = {.cfg = &t.cfg,
                                .name = name,
                                .mongo = t.mongo,
                                .redis = t.address,
                                .infos = t.infos,
                                .metrics = t.metrics};
    OK(e, learner_start(&l, &o, &e));
    return l;
}

static int open_all(void **state)
{
    struct err e = {0};
    enum config_result result;
    char *argv[] = {"ranker", NULL};
    t.f = *state;
    fixture_fresh(t.f);
    OK(e, ranker_config_load(1, argv, &t.cfg, &result, &e));
    struct mongo_options mo = {.uri = fixture_mongodb_uri(t.f), .app_name = "test", .pool_size = 4};
    OK(e, mongo_new(&t.mongo, &mo, &e));
    OK(e, redis_address_parse(fixture_redis_address(t.f), &t.address, &e));
    t.redis = redis_new(&t.address, 2000);
    t.metrics = ranker_metrics_new();
    t.infos = item_infos_new(1000, t.metrics);
    t.limits = (struct session_limits){{1, 1, 0.5, 24 * 3600 * 1000}, 14 * 86400000LL, 86400000LL, 60000};
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    learner_stop(t.learner);
    t.learner = NULL;
    item_infos_free(t.infos);
    metrics_free(t.metrics);
    redis_free(t.redis);
    mongo_free(t.mongo);
    ranker_config_free(&t.cfg);
    return 0;
}

static void put_item(item_id id, const char *publisher, const char *topic)
{
    struct err e = {0};
    struct mongo_conn *c;
    bson_error_t be;
    OK(e, mongo_conn_get(t.mongo, &c, &e));
    bson_t *d = BCON_NEW("_id", BCON_INT64((int64_t)id), "publisher", BCON_UTF8(publisher), "topics", "[",
                         BCON_UTF8(topic), "]", "live", BCON_BOOL(true));
    if (!mongoc_collection_insert_one(mongo_coll(c, COLL_ITEMS), d, NULL, NULL, &be))
        fixture_fail(t.f, "insert: %s", be.message);
    bson_destroy(d);
    mongo_conn_put(c);
}

static void send_event(const char *user, const char *type, item_id id)
{
    struct err e = {0};
    redisReply *r;
    char stream[KEY_SIZE], item[ITEM_ID_TEXT_SIZE];
    keys_event_stream(stream, keys_bucket(user) % EVENT_STREAMS);
    ids_format(id, item);
    OK(e, redis_commandf(t.redis, &r, &e, "XADD", stream, "*", "u", user, "t", type, "i", item, "a", "0", "d",
                         "0", NULL));
    freeReplyObject(r);
}

static int64_t learned(void)
{
    return metrics_get(t.metrics, M_EVENTS, EVENT_LEARNED);
}

static bool has_learned(void *n)
{
    return learned() >= *(int64_t *)n;
}

static void wait_learned(int64_t n)
{
    if (!fixture_until(has_learned, &n, 10000))
        fixture_fail(t.f, "learned %lld events, not %lld", (long long)learned(), (long long)n);
}

static double sum_of(const char *key, const char *field)
{
    struct err e = {0};
    redisReply *r;
    OK(e, redis_commandf(t.redis, &r, &e, "HGET", key, field, NULL));
    double sum = r->type == REDIS_REPLY_STRING ? strtod(r->str, NULL) : 0;
    freeReplyObject(r);
    return sum;
}

static double affinity(const char *user, const char *target)
{
    char key[KEY_SIZE];
    keys_affinity(key, keys_bucket(user), user);
    return sum_of(key, target);
}

/* Makes a session and answers its order, as place numbers of ids. */
static size_t order_of(const char *user, const item_id *ids, size_t n, item_id *out)
{
    struct err e = {0};
    struct worker w = {.redis = t.redis};
    struct session_request *r = mem_zero(1, sizeof *r);
    char session[SESSION_ID_SIZE], key[KEY_SIZE];
    size_t count = 0;
    redisReply *reply;
    snprintf(r->user, sizeof r->user, "%s", user);
    memcpy(r->candidates, ids, n * sizeof *ids);
    r->n = n;
    OK(e, mongo_conn_get(t.mongo, &w.mongo, &e));
    OK(e, session_make(&w, t.infos, &t.limits, r, NOW, session, &count, &e));
    mongo_conn_put(w.mongo);
    keys_session(key, keys_bucket(user), user, session);
    OK(e, redis_commandf(t.redis, &reply, &e, "ZRANGE", key, "0", "-1", NULL));
    assert_int_equal(reply->elements, count);
    for (size_t i = 0; i < reply->elements; i++)
        assert_int_equal(ids_parse(reply->element[i]->str, &out[i], &e), 0);
    freeReplyObject(reply);
    OK(e, redis_commandf(t.redis, &reply, &e, "PTTL", key, NULL));
    assert_in_range(reply->integer, 1, 60000);
    freeReplyObject(reply);
    free(r);
    return count;
}

static void likes_of_a_publisher_raise_its_items_for_that_reader_only(void **state)
{
    (void)state;
    item_id ids[20], got[20];
    t.learner = start_learner("r1");
    for (unsigned i = 0; i < 20; i++) {
        ids[i] = ids_make(NOW - 1000 * (int64_t)(i + 1), i);
        put_item(ids[i], i < 10 ? "fresh" : "liked", "news");
    }
    assert_int_equal(order_of("ann", ids, 20, got), 20);
    assert_memory_equal(got, ids, sizeof ids); /* nothing known: newest first */
    for (unsigned i = 10; i < 20; i++)
        send_event("ann", "like", ids[i]);
    wait_learned(10);
    order_of("ann", ids, 20, got);
    assert_memory_equal(got, ids + 10, 10 * sizeof *ids);
    order_of("bob", ids, 20, got);
    assert_memory_equal(got, ids, sizeof ids);
    t.limits.weights.affinity = 0;
    order_of("ann", ids, 20, got);
    assert_memory_equal(got, ids, sizeof ids);
}

static void an_event_counts_once_though_the_learner_dies_between_taking_and_learning(void **state)
{
    (void)state;
    struct err e = {0};
    redisReply *r;
    char stream[KEY_SIZE];
    put_item(77, "pub", "news");
    t.learner = start_learner("r1");
    send_event("ann", "like", 77);
    wait_learned(1);
    learner_stop(t.learner);
    /* r1 takes one and dies before it learns it */
    send_event("ann", "like", 77);
    keys_event_stream(stream, keys_bucket("ann") % EVENT_STREAMS);
    OK(e, redis_commandf(t.redis, &r, &e, "XREADGROUP", "GROUP", "ranker", "r1", "COUNT", "10", "STREAMS",
                         stream, ">", NULL));
    freeReplyObject(r);
    assert_int_equal(learned(), 1);
    t.learner = start_learner("r1");
    wait_learned(2);
    learner_stop(t.learner);
    t.learner = start_learner("r1");
    send_event("ann", "hide", 77);
    wait_learned(3);
    assert_true(affinity("ann", "p:pub") < 0.01 && affinity("ann", "p:pub") > -0.01); /* 1 + 1 - 2 */
    OK(e, redis_commandf(t.redis, &r, &e, "XLEN", stream, NULL));
    assert_int_equal(r->integer, 0); /* what is learned is taken out */
    freeReplyObject(r);
}

static void one_reader_who_repeats_himself_counts_once_for_the_item(void **state)
{
    (void)state;
    char key[KEY_SIZE];
    put_item(99, "pub", "news");
    t.learner = start_learner("r1");
    for (int i = 0; i < 20; i++)
        send_event("ann", "like", 99);
    send_event("bob", "like", 99);
    wait_learned(21);
    keys_item_counters(key, 99);
    double e = sum_of(key, "e");
    assert_true(e > 1.99 && e < 2.01);
    assert_true(affinity("ann", "p:pub") > 19.9);
}

static void learning_goes_on_after_redis_lost_everything(void **state)
{
    (void)state;
    struct err e = {0};
    redisReply *r;
    put_item(5, "pub", "news");
    t.learner = start_learner("r1");
    send_event("ann", "like", 5);
    wait_learned(1);
    OK(e, redis_commandf(t.redis, &r, &e, "FLUSHALL", NULL));
    freeReplyObject(r);
    send_event("ann", "like", 5);
    wait_learned(2);
}

static void an_event_that_is_none_and_an_unknown_item_hold_nothing_up(void **state)
{
    (void)state;
    put_item(6, "pub", "news");
    t.learner = start_learner("r1");
    send_event("ann", "love", 6);
    send_event("ann", "like", 123456);
    send_event("ann", "like", 6);
    wait_learned(2);
    assert_int_equal(metrics_get(t.metrics, M_EVENTS, EVENT_MALFORMED), 1);
    assert_int_equal(metrics_get(t.metrics, M_EVENTS, EVENT_UNKNOWN_ITEM), 1);
    assert_true(affinity("ann", "p:pub") > 0.9);
}

static void affinities_of_a_reader_are_capped(void **state)
{
    (void)state;
    struct err e = {0};
    redisReply *r;
    char key[KEY_SIZE], name[32];
    t.cfg.affinity_fields = 20;
    for (item_id i = 1; i <= 60; i++) {
        snprintf(name, sizeof name, "pub-%u", (unsigned)i);
        put_item(i, name, "news");
    }
    t.learner = start_learner("r1");
    for (item_id i = 1; i <= 60; i++)
        send_event("ann", "like", i);
    wait_learned(60);
    keys_affinity(key, keys_bucket("ann"), "ann");
    OK(e, redis_commandf(t.redis, &r, &e, "HLEN", key, NULL));
    assert_in_range(r->integer, 10, 20);
    freeReplyObject(r);
    assert_true(affinity("ann", "t:news") > 59); /* the strongest stay */
}

int main(void)
{
    proc_init("test");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(likes_of_a_publisher_raise_its_items_for_that_reader_only, open_all,
                                        close_all),
        cmocka_unit_test_setup_teardown(
            an_event_counts_once_though_the_learner_dies_between_taking_and_learning, open_all, close_all),
        cmocka_unit_test_setup_teardown(one_reader_who_repeats_himself_counts_once_for_the_item, open_all,
                                        close_all),
        cmocka_unit_test_setup_teardown(learning_goes_on_after_redis_lost_everything, open_all, close_all),
        cmocka_unit_test_setup_teardown(an_event_that_is_none_and_an_unknown_item_hold_nothing_up, open_all,
                                        close_all),
        cmocka_unit_test_setup_teardown(affinities_of_a_reader_are_capped, open_all, close_all),
    };
    int rc = cmocka_run_group_tests(tests, fixture_group_setup, fixture_group_teardown);
    proc_done();
    return rc;
}
