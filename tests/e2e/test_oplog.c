/* test_oplog.c - MongoDB's log does not reach back any more, for real: its oldest entries are gone. A fanout
 * that was away makes its records anew, a feed-api drops what it remembers; nothing is lost (P1), nothing old
 * shows (P5).
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

#include "common/keys.h"
#include "common/mem.h"
#include "common/mongo.h"
#include "tests/support/e2e_stack.h"

#define ROLL_MS 120000
#define BACK_MS 30000

static struct e2e_stack stack;
static const struct e2e_stack_options options = {.lease_ms = "1000", .n_apis = 2, .forgetful = true};
static struct mongo *mongo;
static struct mongo_conn *conn;

static int start_stack(void **state)
{
    (void)state;
    struct err e = {0};
    e2e_stack_start(&stack, &options);
    struct mongo_options o = {.uri = fixture_mongodb_uri(stack.f), .app_name = "test", .pool_size = 2};
    if (mongo_new(&mongo, &o, &e) != 0 || mongo_conn_get(mongo, &conn, &e) != 0)
        fail_msg("%s", e.msg);
    return 0;
}

static int stop_stack(void **state)
{
    (void)state;
    mongo_conn_put(conn);
    mongo_free(mongo);
    return e2e_stack_stop(&stack);
}

/* ---- the log ---- */

static ts_t oldest_in_log(void)
{
    bson_t filter = BSON_INITIALIZER;
    bson_t *opts =
        BCON_NEW("sort", "{", "$natural", BCON_INT32(1), "}", "limit", BCON_INT64(1), "projection", "{", "ts",
                 BCON_INT32(1), "}", "readConcern", "{", "level", BCON_UTF8("local"), "}");
    mongoc_collection_t *log = mongoc_client_get_collection(mongo_client(conn), "local", "oplog.rs");
    mongoc_cursor_t *cur = mongoc_collection_find_with_opts(log, &filter, opts, NULL);
    const bson_t *d;
    bson_error_t be;
    ts_t t = 0;
    if (!mongoc_cursor_next(cur, &d) || !mongo_get_ts(d, "ts", &t)) {
        bool bad = mongoc_cursor_error(cur, &be);
        fail_msg("the log does not read: %s", bad ? be.message : "it is empty");
    }
    mongoc_cursor_destroy(cur);
    mongoc_collection_destroy(log);
    bson_destroy(opts);
    bson_destroy(&filter);
    return t;
}

/* In a database of its own, which nobody follows. The log holds only what differs, so all of it differs. */
static void write_a_megabyte(void)
{
    static int written;
    size_t size = 1 << 20;
    char *big = mem_alloc(size);
    memset(big, 'a' + written % 26, size);
    big[size - 1] = '\0';
    bson_t *filter = BCON_NEW("_id", BCON_INT32(written % 4)), doc = BSON_INITIALIZER;
    bson_t *opts = BCON_NEW("upsert", BCON_BOOL(true));
    bson_error_t be;
    BSON_APPEND_UTF8(&doc, "big", big);
    mongoc_collection_t *filler = mongoc_client_get_collection(mongo_client(conn), "filler", "filler");
    if (!mongoc_collection_replace_one(filler, filter, &doc, opts, NULL, &be))
        fail_msg("%s", be.message);
    mongoc_collection_destroy(filler);
    bson_destroy(filter);
    bson_destroy(opts);
    bson_destroy(&doc);
    free(big);
    written++;
}

static bool has_left_behind(void *arg)
{
    const ts_t *t = arg;
    for (int i = 0; i < 10; i++)
        write_a_megabyte();
    return oldest_in_log() > *t;
}

/* Writes until nothing at or before t is in the log. */
static void roll_over(ts_t t)
{
    if (!fixture_until(has_left_behind, &t, ROLL_MS))
        fixture_fail(stack.f, "the log still reaches back");
}

/* ---- fanout ---- */

static ts_t record(const char *user, const char *field)
{
    char bk[KEY_SIZE];
    ts_t t = 0;
    keys_bucket_record(bk, keys_bucket(user));
    redisReply *r = e2e_redis_do(stack.redis, "HGET %s %s", bk, field);
    if (r->type != REDIS_REPLY_STRING || ts_parse(r->str, &t, NULL) != 0)
        fail_msg("%s has no %s", bk, field);
    freeReplyObject(r);
    return t;
}

static void steps(struct driver *d, unsigned n)
{
    while (n-- > 0)
        driver_step(d, DRIVER_GRAPH);
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

static double logs_lost(void)
{
    return e2e_metric_on((uint16_t)fixture_port(stack.f, stack.fanout), stack.apis[0].auth,
                         "feedmill_fanout_errors_total{of=\"log_lost\"}");
}

static void begin(struct driver *d, uint64_t seed, const char *label)
{
    driver_init(d, (uint64_t)e2e_env("FEEDMILL_SEED", 0) + seed, label, stack.apis, 1, stack.redis);
    driver_setup(d, 60);
    driver_catch_up(d);
    driver_check_all_feeds(d);
    steps(d, 20);
    driver_catch_up(d);
}

/* Whatever was published before, during and after the gap. */
static void p1_a_fanout_that_the_log_has_left_behind_makes_its_records_anew(void **state)
{
    (void)state;
    struct driver d;
    begin(&d, 1, "gone");
    const char *user = driver_user(&d, 0);
    ts_t progress = record(user, "progress"), born = record(user, "born");
    server_kill(stack.fanout);
    progress = ts_max(progress, record(user, "progress"));
    steps(&d, 20);
    roll_over(ts_max(progress, d.position));
    steps(&d, 20);
    driver_check_all_feeds(&d);
    fixture_restart(stack.f, stack.fanout);
    driver_catch_up(&d);
    assert_true(logs_lost() >= 1);
    assert_true(record(user, "born") > born);
    check_everything(&d);
    steps(&d, 20);
    check_everything(&d);
    assert_true(logs_lost() == 1);
    driver_done(&d);
}

static bool has_lost_the_log(void *arg)
{
    const double *before = arg;
    return logs_lost() > *before;
}

/* It holds a place in the log, and others' leases have run out meanwhile: nobody else is there to take them.
 */
static void p1_a_fanout_that_stood_still_while_the_log_rolled_over_makes_its_records_anew(void **state)
{
    (void)state;
    struct driver d;
    begin(&d, 2, "still");
    const char *user = driver_user(&d, 0);
    ts_t born = record(user, "born");
    double before = logs_lost();
    server_pause(stack.fanout);
    steps(&d, 20);
    roll_over(ts_max(record(user, "progress"), d.position));
    steps(&d, 20);
    server_continue(stack.fanout);
    assert_true(fixture_until(has_lost_the_log, &before, BACK_MS));
    driver_catch_up(&d);
    assert_true(record(user, "born") > born);
    check_everything(&d);
    steps(&d, 20);
    check_everything(&d);
    driver_done(&d);
}

/* ---- feed-api ---- */

static json_t *item_at(struct e2e_api *a, item_id id, int status)
{
    char path[60];
    snprintf(path, sizeof path, "/v1/items/%" PRIu64, id);
    return e2e_json(a, "GET", path, NULL, status);
}

static bool tail_was_lost(void *arg)
{
    struct e2e_api *a = arg;
    return e2e_metric(a, "feedmill_tail_lost_total") > 0 && e2e_metric(a, "feedmill_tail_alive") > 0;
}

static void expect_feed(struct e2e_api *a, const char *path, const item_id *ids, size_t n)
{
    struct e2e_page p;
    e2e_page(a, path, "limit=50", NULL, 0, &p);
    assert_string_equal(p.state, "complete");
    assert_int_equal(p.n, n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(p.items[i].id, ids[i]);
    e2e_page_done(&p);
}

/* It remembers bodies and who changed follows; what it missed is not on the log any more. */
static void p5_a_feed_api_that_the_log_has_left_behind_shows_nothing_old(void **state)
{
    (void)state;
    struct e2e_api *here = &stack.apis[0], *there = &stack.apis[1];
    ts_t t = e2e_write(here, "PUT", "/v1/users/olga/follows/publisher/one");
    t = ts_max(t, e2e_write(here, "PUT", "/v1/users/olga/follows/publisher/two"));
    item_id edited = e2e_publish(here, "one", NULL, "before", NULL, 1600000000000, &t);
    item_id deleted = e2e_publish(here, "one", NULL, "to go", NULL, 1600000100000, &t);
    item_id unfollowed = e2e_publish(here, "two", NULL, "foreign", NULL, 1600000200000, &t);
    assert_true(e2e_caught_up(stack.redis, "olga", t));
    expect_feed(there, "/v1/users/olga/feed", (item_id[]){unfollowed, deleted, edited}, 3);
    json_decref(item_at(there, edited, 200));
    json_decref(item_at(there, deleted, 200));

    server_pause(stack.servers[1]);
    char path[60];
    struct reply r;
    snprintf(path, sizeof path, "/v1/items/%" PRIu64, edited);
    e2e_call(here, "PATCH", path, "{\"title\":\"after\"}", 200, &r);
    e2e_position(&r, &t);
    reply_done(&r);
    t = ts_max(t, e2e_write(here, "DELETE", "/v1/items/%" PRIu64, deleted));
    t = ts_max(t, e2e_write(here, "DELETE", "/v1/users/olga/follows/publisher/two"));
    roll_over(t);
    server_continue(stack.servers[1]);
    e2e_api_drop(there); /* the connection may have been given up meanwhile */
    if (!fixture_until(tail_was_lost, there, BACK_MS))
        fixture_fail(stack.f, "the tail of feed-api-2 was not lost and found");

    json_t *o = item_at(there, edited, 200);
    assert_string_equal(json_string_value(json_object_get(o, "title")), "after");
    json_decref(o);
    json_decref(item_at(there, deleted, 410));
    expect_feed(there, "/v1/users/olga/feed", (item_id[]){edited}, 1);
    item_id later = e2e_publish(here, "one", NULL, "later", NULL, 1600000300000, &t);
    assert_true(e2e_caught_up(stack.redis, "olga", t));
    expect_feed(there, "/v1/users/olga/feed", (item_id[]){later, edited}, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(p1_a_fanout_that_the_log_has_left_behind_makes_its_records_anew),
        cmocka_unit_test(p1_a_fanout_that_stood_still_while_the_log_rolled_over_makes_its_records_anew),
        cmocka_unit_test(p5_a_feed_api_that_the_log_has_left_behind_shows_nothing_old),
    };
    e2e_choose_tests();
    return cmocka_run_group_tests_name("e2e/oplog", tests, start_stack, stop_stack);
}
