/* feed-api's tail of the log, against a real MongoDB. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/mem.h"
#include "common/proc.h"
#include "feed-api/app.h"
#include "feed-api/feed.h"
#include "feed-api/item.h"
#include "feed-api/key_store.h"
#include "tests/support/fixture.h"

struct rig {
    struct fixture *fixture;
    struct app app;
    struct mongo_conn *conn;
    char admin_file[200], jwt_file[200];
    const char *user; /* what until_*() wait for */
    ts_t when;
};

static int setup(void **state)
{
    struct rig *r = mem_zero(1, sizeof *r);
    struct app *app = &r->app;
    struct err e;
    proc_init("test");
    r->fixture = fixture_new(FIXTURE_MONGOD);
    struct mongo_options o = {.uri = fixture_mongodb_uri(r->fixture), .app_name = "test", .pool_size = 8};
    assert_int_equal(mongo_new(&app->mongo, &o, &e), 0);
    assert_int_equal(mongo_conn_get(app->mongo, &r->conn, &e), 0);
    mongo_conn_deadline(r->conn, 60000);
    assert_int_equal(mongo_schema_ensure(r->conn, &e), 0);
    snprintf(r->admin_file, sizeof r->admin_file, "%s/admin.key", fixture_dir(r->fixture));
    snprintf(r->jwt_file, sizeof r->jwt_file, "%s/jwt.keys", fixture_dir(r->fixture));
    feed_config_defaults(&app->cfg);
    app->instance = proc_instance();
    app->metrics = feed_metrics_new();
    struct auth_options ao = {.jwt_keys_file = r->jwt_file, .admin_key_file = r->admin_file};
    assert_int_equal(auth_new(&app->auth, &ao, app->metrics, &e), 0);
    assert_int_equal(content_new(&app->content, 16 << 20, app->metrics, &e), 0);
    app->pulled = pulled_new(100, 100, app->metrics);
    app->feed = feed_state_new();
    assert_int_equal(tail_start(&app->tail, app, &e), 0);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;
    if (r == NULL)
        return 0; /* the set-up has failed */
    struct app *app = &r->app;
    tail_stop(app->tail);
    feed_state_free(app->feed);
    content_free(app->content);
    pulled_free(app->pulled);
    auth_free(app->auth);
    metrics_free(app->metrics);
    mongo_conn_put(r->conn);
    mongo_free(app->mongo);
    feed_config_free(&app->cfg);
    fixture_free(r->fixture);
    free(r);
    proc_done();
    return 0;
}

/* ---- waiting ---- */

static bool is_alive(void *arg)
{
    struct rig *r = arg;
    return tail_alive(r->app.tail);
}

static bool is_not_alive(void *arg)
{
    return !is_alive(arg);
}

static bool is_past(void *arg)
{
    struct rig *r = arg;
    return tail_position(r->app.tail) >= r->when;
}

static bool lost_once_more(void *arg)
{
    struct rig *r = arg;
    return metrics_get(r->app.metrics, M_TAIL_LOST, 0) >= (int64_t)r->when;
}

static void until(struct rig *r, bool (*check)(void *), const char *what)
{
    if (!fixture_until(check, r, 15000))
        fixture_fail(r->fixture, "waited in vain until the tail %s", what);
}

static void until_past(struct rig *r, ts_t when)
{
    r->when = when;
    until(r, is_past, "has passed a write");
}

/* ---- writes ---- */

static ts_t run(struct rig *r, enum mongo_collection coll, const char *filter, const char *update)
{
    bson_error_t be;
    bson_t opts = BSON_INITIALIZER;
    bson_t *f = bson_new_from_json((const uint8_t *)filter, -1, &be);
    bson_t *u = bson_new_from_json((const uint8_t *)update, -1, &be);
    assert_non_null(f);
    assert_non_null(u);
    mongo_conn_deadline(r->conn, 60000);
    mongo_write_opts(r->conn, &opts);
    BSON_APPEND_BOOL(&opts, "upsert", true);
    if (!mongoc_collection_update_one(mongo_coll(r->conn, coll), f, u, &opts, NULL, &be))
        fail_msg("%s", be.message);
    bson_destroy(f);
    bson_destroy(u);
    bson_destroy(&opts);
    return mongo_conn_time(r->conn);
}

static ts_t change_user(struct rig *r, const char *user)
{
    char filter[120];
    snprintf(filter, sizeof filter, "{\"_id\":\"%s\"}", user);
    return run(r, COLL_USERS, filter, "{\"$inc\":{\"rev\":{\"$numberLong\":\"1\"}}}");
}

/* ---- tests ---- */

static void it_comes_alive_and_moves_on_by_itself(void **state)
{
    struct rig *r = *state;
    until(r, is_alive, "is alive");
    ts_t first = tail_position(r->app.tail);
    assert_true(first != 0);
    until_past(r, first + 1);
    assert_true(tail_lag_ms(r->app.tail, tail_position(r->app.tail)) < 15000);
    assert_true(tail_lag_ms(r->app.tail, ts_make(ts_seconds(first) - 3600, 0)) > 3590000);
    assert_true(tail_user_memory(r->app.tail) <= first);
}

static void it_tells_of_changes_of_users(void **state)
{
    struct rig *r = *state;
    until(r, is_alive, "is alive");
    ts_t one = change_user(r, "ann");
    ts_t two = change_user(r, "ann");
    until_past(r, two);
    assert_true(tail_user_changed(r->app.tail, "ann") > one);
    assert_true(tail_user_changed(r->app.tail, "ann") <= two);
    assert_true(tail_user_changed(r->app.tail, "bob") == 0);
    /* One that answered a write itself does not wait for the log. */
    tail_note_user(r->app.tail, "bob", two + 5);
    assert_true(tail_user_changed(r->app.tail, "bob") == two + 5);
}

/* P5: what was acknowledged before the newest heartbeat that a living tail has seen was sent, it has taken
 * in. */
static void p5_a_living_tail_has_seen_what_was_acknowledged_a_second_ago(void **state)
{
    struct rig *r = *state;
    until(r, is_alive, "is alive");
    for (int i = 0; i < 5; i++) {
        char user[32];
        snprintf(user, sizeof user, "user-%d", i);
        change_user(r, user);
        int64_t acknowledged = clock_mono_ms();
        /* More than a second later, if it says that it is alive, it knows. */
        while (clock_mono_ms() <= acknowledged + 1001)
            continue;
        if (tail_alive(r->app.tail))
            assert_true(tail_user_changed(r->app.tail, user) != 0);
    }
}

static void it_is_not_alive_while_mongodb_is_paused_and_comes_back(void **state)
{
    struct rig *r = *state;
    until(r, is_alive, "is alive");
    server_pause(fixture_mongod(r->fixture));
    until(r, is_not_alive, "is not alive");
    server_continue(fixture_mongod(r->fixture));
    until(r, is_alive, "is alive again");
    ts_t when = change_user(r, "carol");
    until_past(r, when);
    assert_true(tail_user_changed(r->app.tail, "carol") != 0);
    assert_int_equal(metrics_get(r->app.metrics, M_TAIL_LOST, 0), 0);
}

static void it_drops_revoked_keys_and_old_revisions(void **state)
{
    struct rig *r = *state;
    struct err e;
    struct identity who;
    enum auth_answer answer;
    until(r, is_alive, "is alive");

    struct api_key k = {.who.role = ROLE_SERVICE, .created_ms = 1};
    char header[80] = "Bearer ";
    key_text_make(&k, header + 7);
    assert_int_equal(key_store_add(r->conn, &k, &e), 0);
    until_past(r, mongo_conn_time(r->conn));
    assert_int_equal(auth_fetch(r->app.auth, r->conn, header, &answer, &who, &e), 0);
    assert_int_equal(answer, AUTH_OK);
    identity_done(&who);
    assert_int_equal(auth_check(r->app.auth, header, &who), AUTH_OK);
    identity_done(&who);

    run(r, COLL_ITEMS, "{\"_id\":{\"$numberLong\":\"77\"}}",
        "{\"$set\":{\"publisher\":\"daily\",\"revision\":{\"$numberInt\":\"1\"},\"title\":\"t\",\"body\":"
        "\"b\","
        "\"topics\":[],\"live\":true,\"published_at\":{\"$date\":1},\"created_at\":{\"$date\":1}}}");
    until_past(r, mongo_conn_time(r->conn));
    item_id id = 77;
    struct content_entry *entry;
    assert_int_equal(content_fetch(r->app.content, r->conn, &id, 1, false, &entry, &e), 0);
    assert_int_equal(entry->revision, 1);
    content_unref(entry);
    entry = content_find(r->app.content, id);
    assert_non_null(entry);
    content_unref(entry);

    run(r, COLL_ITEMS, "{\"_id\":{\"$numberLong\":\"77\"}}",
        "{\"$set\":{\"title\":\"u\",\"revision\":{\"$numberInt\":\"2\"}}}");
    assert_int_equal(key_store_delete(r->conn, k.id, &e), 0);
    until_past(r, mongo_conn_time(r->conn));
    assert_null(content_find(r->app.content, id));
    assert_int_equal(auth_check(r->app.auth, header, &who), AUTH_ASK);
}

/* A dropped collection ends the log, as an oplog that no longer reaches back does. */
static void a_lost_log_empties_the_caches_and_begins_anew(void **state)
{
    struct rig *r = *state;
    struct err e;
    struct identity who;
    enum auth_answer answer;
    bson_error_t be;
    until(r, is_alive, "is alive");
    struct api_key k = {.who.role = ROLE_SERVICE, .created_ms = 1};
    char header[80] = "Bearer ";
    key_text_make(&k, header + 7);
    assert_int_equal(key_store_add(r->conn, &k, &e), 0);
    ts_t before = change_user(r, "dora");
    until_past(r, before);
    assert_int_equal(auth_fetch(r->app.auth, r->conn, header, &answer, &who, &e), 0);
    assert_int_equal(answer, AUTH_OK);
    identity_done(&who);
    assert_int_equal(auth_check(r->app.auth, header, &who), AUTH_OK);
    identity_done(&who);

    r->when = (ts_t)metrics_get(r->app.metrics, M_TAIL_LOST, 0) + 1;
    if (!mongoc_collection_drop(mongo_coll(r->conn, COLL_USERS), &be))
        fail_msg("%s", be.message);
    until(r, lost_once_more, "has lost its place");
    until(r, is_alive, "is alive again");
    assert_true(tail_user_memory(r->app.tail) > before);
    assert_true(tail_user_changed(r->app.tail, "dora") == 0);
    assert_int_equal(auth_check(r->app.auth, header, &who), AUTH_ASK);
    assert_int_equal(mongo_schema_ensure(r->conn, &e), 0);
    until_past(r, change_user(r, "emil"));
    assert_true(tail_user_changed(r->app.tail, "emil") != 0);
}

static void a_tail_that_starts_again_knows_what_happened_lately(void **state)
{
    struct rig *r = *state;
    struct err e;
    until(r, is_alive, "is alive");
    tail_stop(r->app.tail);
    r->app.tail = NULL;
    ts_t when = change_user(r, "fred");
    assert_int_equal(tail_start(&r->app.tail, &r->app, &e), 0);
    until(r, is_alive, "is alive");
    until_past(r, when);
    assert_true(tail_user_memory(r->app.tail) < when);
    assert_true(tail_user_changed(r->app.tail, "fred") != 0);
    tail_halt(r->app.tail);
    assert_true(tail_user_changed(r->app.tail, "fred") != 0); /* it can still be asked */
    tail_stop(r->app.tail);
    assert_int_equal(tail_start(&r->app.tail, &r->app, &e), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_comes_alive_and_moves_on_by_itself),
        cmocka_unit_test(it_tells_of_changes_of_users),
        cmocka_unit_test(p5_a_living_tail_has_seen_what_was_acknowledged_a_second_ago),
        cmocka_unit_test(it_is_not_alive_while_mongodb_is_paused_and_comes_back),
        cmocka_unit_test(it_drops_revoked_keys_and_old_revisions),
        cmocka_unit_test(a_tail_that_starts_again_knows_what_happened_lately),
        cmocka_unit_test(a_lost_log_empties_the_caches_and_begins_anew),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
