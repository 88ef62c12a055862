/* test_delivery.c - receipts against a real MongoDB and Redis, with what fanout would have written planted.
 * How they look from outside is in tests/e2e/test_dead_letters.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/clock.h"
#include "common/keys.h"
#include "feed-api/delivery.h"
#include "tests/support/fixture.h"

#define HOUR_MS   3600000
#define ALL       65535
#define AWAY      "unix:/nowhere/redis.sock"
#define BULK_ROWS 10000

static struct fixture *f;
static struct mongo *mongo;
static struct mongo_conn *conn;
static struct redis *redis, *away;

static struct redis *connect_to(const char *address)
{
    struct redis_address at;
    struct err e = {0};
    if (redis_address_parse(address, &at, &e) != 0)
        fail_msg("%s", e.msg);
    return redis_new(&at, 2000 * fixture_slowness());
}

static int open_world(void **state)
{
    struct err e = {0};
    f = *state;
    fixture_fresh(f);
    struct mongo_options o = {.uri = fixture_mongodb_uri(f), .app_name = "test", .pool_size = 2};
    if (mongo_new(&mongo, &o, &e) != 0 || mongo_conn_get(mongo, &conn, &e) != 0)
        fail_msg("%s", e.msg);
    mongo_conn_deadline(conn, 60000);
    if (mongo_schema_ensure(conn, &e) != 0)
        fail_msg("%s", e.msg);
    redis = connect_to(fixture_redis_address(f));
    away = connect_to(AWAY);
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    redis_free(redis);
    redis_free(away);
    mongo_conn_put(conn);
    mongo_free(mongo);
    return 0;
}

/* ---- what others write ---- */

static ts_t update(enum mongo_collection coll, bson_t *filter, bson_t *change)
{
    bson_error_t be;
    bson_t opts = BSON_INITIALIZER, reply;
    BSON_APPEND_BOOL(&opts, "upsert", true);
    mongo_write_opts(conn, &opts);
    if (!mongoc_collection_update_one(mongo_coll(conn, coll), filter, change, &opts, &reply, &be))
        fail_msg("%s", be.message);
    bson_destroy(&reply);
    bson_destroy(&opts);
    bson_destroy(filter);
    bson_destroy(change);
    return mongo_conn_time(conn);
}

static ts_t put_item(item_id id, int32_t revision, int64_t at_ms)
{
    return update(COLL_ITEMS, BCON_NEW("_id", BCON_INT64((int64_t)id)),
                  BCON_NEW("$set", "{", "publisher", BCON_UTF8("daily"), "topics", "[", BCON_UTF8("sport"),
                           BCON_UTF8("chess"), "]", "revision", BCON_INT32(revision), "live", BCON_BOOL(true),
                           "created_at", BCON_DATE_TIME(at_ms), "}"));
}

static void follow(const char *user, const char *target)
{
    char id[200];
    snprintf(id, sizeof id, "%s %s", user, target);
    update(COLL_FOLLOWS, BCON_NEW("_id", BCON_UTF8(id)),
           BCON_NEW("$set", "{", "t", BCON_UTF8(target), "b", BCON_INT32((int32_t)keys_bucket(user)), "u",
                    BCON_UTF8(user), "}"));
}

static void put_point(const char *fanout, int64_t at_ms, int64_t heartbeat_ms, int32_t shares)
{
    update(COLL_RECEIPTS, BCON_NEW("_id", BCON_UTF8(fanout)),
           BCON_NEW("$min", "{", "at", BCON_DATE_TIME(at_ms), "}", "$max", "{", "h",
                    BCON_DATE_TIME(heartbeat_ms), "}", "$push", "{", "points", "{", "a",
                    BCON_DATE_TIME(at_ms), "h", BCON_DATE_TIME(heartbeat_ms), "m", BCON_INT32(shares), "}",
                    "}"));
}

static void set_progress(unsigned bucket, ts_t t)
{
    char key[KEY_SIZE], text[TS_TEXT_SIZE];
    struct err e = {0};
    redisReply *r;
    keys_bucket_record(key, bucket);
    ts_format(t, text);
    if (redis_commandf(redis, &r, &e, "HSET", key, "progress", text, NULL) != 0)
        fail_msg("%s", e.msg);
    freeReplyObject(r);
}

static void set_all_progress(ts_t t)
{
    for (unsigned b = 0; b < BUCKETS; b++)
        set_progress(b, t);
}

static ts_t now(void)
{
    struct err e = {0};
    ts_t t = 0;
    if (mongo_conn_fresh(conn, &t, &e) != 0)
        fail_msg("%s", e.msg);
    return t;
}

static struct delivery find(item_id id, struct redis *r)
{
    struct delivery_item it;
    struct delivery d = {.state = DELIVERY_PENDING};
    struct err e = {0};
    if (delivery_item(conn, id, &it, &e) != 0 || delivery_find(conn, r, &it, &d, &e) != 0)
        fail_msg("%s", e.msg);
    return d;
}

/* ---- the state ---- */

static void an_item_is_delivered_at_exactly_the_progress_of_its_last_change(void **state)
{
    (void)state;
    int64_t ms = clock_wall_ms();
    ts_t before = now(), t = put_item(1, 1, ms);
    assert_int_equal(find(1, redis).state, DELIVERY_PENDING); /* no records */
    set_all_progress(before);
    assert_int_equal(find(1, redis).state, DELIVERY_PENDING);
    set_all_progress(t - 1);
    assert_int_equal(find(1, redis).state, DELIVERY_PENDING);
    set_all_progress(t);
    assert_int_equal(find(1, redis).state, DELIVERY_DELIVERED);
    set_progress(77, t - 1); /* one bucket is enough to be late */
    assert_int_equal(find(1, redis).state, DELIVERY_PENDING);
    set_all_progress(t);
    ts_t edited = put_item(1, 2, ms);
    assert_int_equal(find(1, redis).state, DELIVERY_PENDING);
    set_all_progress(edited);
    assert_int_equal(find(1, redis).state, DELIVERY_DELIVERED);
    ts_t touched = update(COLL_ITEMS, BCON_NEW("_id", BCON_INT64(1)),
                          BCON_NEW("$inc", "{", "touches", BCON_INT32(1), "}"));
    assert_int_equal(find(1, redis).state, DELIVERY_PENDING);
    set_all_progress(touched);
    assert_int_equal(find(1, redis).state, DELIVERY_DELIVERED);
}

static void an_open_letter_makes_it_dead_and_a_replayed_one_does_not(void **state)
{
    (void)state;
    put_item(1, 1, clock_wall_ms());
    set_all_progress(now());
    for (int open = 0; open < 2; open++) {
        update(COLL_DEAD_LETTERS, BCON_NEW("_id", BCON_UTF8("item-1")),
               BCON_NEW("$set", "{", "item", BCON_INT64(1), "state", BCON_UTF8(open ? "dead" : "replayed"),
                        "}"));
        assert_int_equal(find(1, redis).state, open ? DELIVERY_DEAD : DELIVERY_DELIVERED);
    }
}

/* Progress of an hour ago: MongoDB does not keep how things were then. */
static void where_clocks_have_to_do_a_minute_is_spared(void **state)
{
    (void)state;
    int64_t then = clock_wall_ms() - HOUR_MS;
    set_all_progress(ts_make((uint32_t)(then / 1000), 1));
    put_item(1, 1, then - 2 * DELIVERY_SKEW_MS);
    put_item(2, 1, then - DELIVERY_SKEW_MS / 2);
    put_item(3, 1, then + 1000);
    assert_int_equal(find(1, redis).state, DELIVERY_DELIVERED);
    assert_int_equal(find(2, redis).state, DELIVERY_PENDING);
    assert_int_equal(find(3, redis).state, DELIVERY_PENDING);
}

static void without_redis_the_history_has_to_do(void **state)
{
    (void)state;
    int64_t then = clock_wall_ms() - HOUR_MS;
    put_item(1, 1, then);
    assert_int_equal(find(1, away).state, DELIVERY_PENDING);
    put_point("a", then + 500, then + 400, ALL);
    assert_int_equal(find(1, away).state, DELIVERY_PENDING);
    put_point("a", then + DELIVERY_SKEW_MS + 500, then + DELIVERY_SKEW_MS + 400, ALL & ~1);
    assert_int_equal(find(1, away).state, DELIVERY_PENDING);
    put_point("b", then + DELIVERY_SKEW_MS + 500, then + DELIVERY_SKEW_MS + 400, 1);
    assert_int_equal(find(1, away).state, DELIVERY_DELIVERED);
}

/* ---- since when ---- */

static void it_was_delivered_when_the_slowest_share_had_passed(void **state)
{
    (void)state;
    int64_t then = clock_wall_ms() - HOUR_MS;
    put_item(1, 1, then);
    set_all_progress(now());
    put_point("a", then + 700, then + 650, ALL);
    assert_true(find(1, redis).delivered_ms == 0); /* no history of before */
    put_point("old", then - 500, then - 600, ALL);
    assert_true(find(1, redis).delivered_ms == then + 700);
    put_item(2, 1, then + 1000);
    set_all_progress(now());
    put_point("a", then + 1200, then + 1100, 0xff);
    put_point("b", then + 900, then + 800, 0xff00);
    assert_true(find(2, redis).delivered_ms == 0);
    put_point("b", then + 3000, then + 2900, 0xff00);
    put_point("b", then + 3500, then + 3400, 0xff00);
    assert_true(find(2, redis).delivered_ms == then + 3000);
    put_item(3, 1, then + 3350); /* by a clock ahead of that of the one who noted the point */
    set_all_progress(now());
    put_point("c", then + 3300, then + 3360, 0xff);
    assert_true(find(3, redis).delivered_ms == then + 3500);
}

/* ---- how many ---- */

static void the_audience_counts_each_reader_once(void **state)
{
    (void)state;
    put_item(1, 1, clock_wall_ms());
    assert_true(find(1, redis).audience == 0);
    follow("ann", "p:daily");
    follow("ann", "t:sport");
    follow("ann", "t:chess");
    follow("bob", "t:chess");
    follow("tom", "t:other");
    assert_true(find(1, redis).audience == 2);
}

static void beyond_the_cap_the_most_followed_target_stands_for_all(void **state)
{
    (void)state;
    bson_error_t be;
    char id[64], user[32];
    put_item(1, 1, clock_wall_ms());
    update(COLL_TARGETS, BCON_NEW("_id", BCON_UTF8("p:daily")),
           BCON_NEW("$set", "{", "followers", BCON_INT64(7), "}"));
    update(COLL_TARGETS, BCON_NEW("_id", BCON_UTF8("t:sport")),
           BCON_NEW("$set", "{", "followers", BCON_INT64(123456), "}"));
    for (unsigned n = 0; n <= DELIVERY_AUDIENCE_MAX;) {
        mongoc_bulk_operation_t *bulk =
            mongoc_collection_create_bulk_operation_with_opts(mongo_coll(conn, COLL_FOLLOWS), NULL);
        for (unsigned i = 0; i < BULK_ROWS && n <= DELIVERY_AUDIENCE_MAX; i++, n++) {
            snprintf(user, sizeof user, "u%u", n);
            snprintf(id, sizeof id, "%s t:sport", user);
            bson_t *d = BCON_NEW("_id", BCON_UTF8(id), "t", BCON_UTF8("t:sport"), "b",
                                 BCON_INT32((int32_t)keys_bucket(user)), "u", BCON_UTF8(user));
            mongoc_bulk_operation_insert(bulk, d);
            bson_destroy(d);
        }
        if (!mongoc_bulk_operation_execute(bulk, NULL, &be))
            fail_msg("%s", be.message);
        mongoc_bulk_operation_destroy(bulk);
        if (n == DELIVERY_AUDIENCE_MAX)
            assert_true(find(1, redis).audience == DELIVERY_AUDIENCE_MAX);
    }
    mongo_conn_deadline(conn, 60000);
    assert_true(find(1, redis).audience == 123456);
}

static void a_damaged_item_has_a_receipt_too(void **state)
{
    (void)state;
    put_item(1, 1, clock_wall_ms());
    update(COLL_ITEMS, BCON_NEW("_id", BCON_INT64(1)),
           BCON_NEW("$set", "{", "topics", BCON_INT32(7), "title", BCON_INT32(1), "}"));
    follow("ann", "p:daily");
    set_all_progress(now());
    struct delivery d = find(1, redis);
    assert_int_equal(d.state, DELIVERY_DELIVERED);
    assert_true(d.audience == 1);
    struct delivery_item it;
    struct err e;
    assert_int_equal(delivery_item(conn, 2, &it, &e), -1);
    assert_int_equal(e.code, ERR_NOT_FOUND);
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, open_world, close_world)
    const struct CMUnitTest tests[] = {
        T(an_item_is_delivered_at_exactly_the_progress_of_its_last_change),
        T(an_open_letter_makes_it_dead_and_a_replayed_one_does_not),
        T(where_clocks_have_to_do_a_minute_is_spared),
        T(without_redis_the_history_has_to_do),
        T(it_was_delivered_when_the_slowest_share_had_passed),
        T(the_audience_counts_each_reader_once),
        T(beyond_the_cap_the_most_followed_target_stands_for_all),
        T(a_damaged_item_has_a_receipt_too),
    };
    return cmocka_run_group_tests(tests, fixture_group_setup, fixture_group_teardown);
}
