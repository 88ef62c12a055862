#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/mem.h"
#include "common/mongo.h"
#include "tests/support/fixture.h"

struct world {
    struct fixture *fixture;
    struct mongo *mongo;
    struct mongo_conn *conn;
    struct mongo_conn *other;
};

static struct mongo *connect_to(const char *uri, const char *database, unsigned pool_size)
{
    struct mongo *m = NULL;
    struct err e = {0};
    struct mongo_options o = {.uri = uri, .database = database, .app_name = "test", .pool_size = pool_size};
    if (mongo_new(&m, &o, &e) < 0)
        fail_msg("mongo_new: %s", e.msg);
    return m;
}

static struct mongo_conn *get(struct mongo *m)
{
    struct mongo_conn *c = NULL;
    struct err e = {0};
    if (mongo_conn_get(m, &c, &e) < 0)
        fail_msg("mongo_conn_get: %s", e.msg);
    return c;
}

static int group_setup(void **state)
{
    mongoc_log_set_handler(NULL, NULL);
    struct world *w = mem_zero(1, sizeof *w);
    w->fixture = fixture_new(FIXTURE_MONGOD);
    *state = w;
    return 0;
}

static int group_teardown(void **state)
{
    struct world *w = *state;
    fixture_free(w->fixture);
    free(w);
    return 0;
}

static int setup(void **state)
{
    struct world *w = *state;
    fixture_fresh(w->fixture);
    w->mongo = connect_to(fixture_mongodb_uri(w->fixture), NULL, 8);
    w->conn = get(w->mongo);
    w->other = get(w->mongo);
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    mongo_conn_put(w->conn);
    mongo_conn_put(w->other);
    mongo_free(w->mongo);
    return 0;
}

/* ---- helpers: {_id: id, v: v} in `settings` ---- */

static int insert(struct mongo_conn *c, const char *id, int64_t v, struct err *e)
{
    bson_t doc = BSON_INITIALIZER, opts = BSON_INITIALIZER, reply;
    bson_error_t be;
    BSON_APPEND_UTF8(&doc, "_id", id);
    BSON_APPEND_INT64(&doc, "v", v);
    mongo_write_opts(c, &opts);
    int rc = 0;
    if (!mongoc_collection_insert_one(mongo_coll(c, COLL_SETTINGS), &doc, &opts, &reply, &be))
        rc = mongo_err(e, &be, &reply, "insert");
    bson_destroy(&doc);
    bson_destroy(&opts);
    bson_destroy(&reply);
    return rc;
}

/* 1: found, 0: absent, -1: error. In a transaction it reads in that. */
static int find(struct mongo_conn *c, const char *id, int64_t *v, struct err *e)
{
    bson_t query = BSON_INITIALIZER, opts = BSON_INITIALIZER;
    BSON_APPEND_UTF8(&query, "_id", id);
    mongo_read_opts(c, &opts);
    mongoc_cursor_t *cursor =
        mongoc_collection_find_with_opts(mongo_coll(c, COLL_SETTINGS), &query, &opts, NULL);
    const bson_t *doc, *reply;
    bson_error_t be;
    int rc = 0;
    if (mongoc_cursor_next(cursor, &doc))
        rc = mongo_get_i64(doc, "v", v) ? 1 : 0;
    else if (mongoc_cursor_error_document(cursor, &be, &reply))
        rc = mongo_txn_err(c, e, &be, reply, "find");
    mongoc_cursor_destroy(cursor);
    bson_destroy(&query);
    bson_destroy(&opts);
    return rc;
}

static void must_insert(struct mongo_conn *c, const char *id, int64_t v)
{
    struct err e = {0};
    if (insert(c, id, v, &e) < 0)
        fail_msg("insert: %s", e.msg);
}

static int must_find(struct mongo_conn *c, const char *id, int64_t *v)
{
    struct err e = {0};
    int rc = find(c, id, v, &e);
    if (rc < 0)
        fail_msg("find: %s", e.msg);
    return rc;
}

/* ---- the cache of clients ---- */

static void a_wrong_address_is_refused_with_a_reason(void **state)
{
    (void)state;
    struct mongo *m = NULL;
    struct err e = {0};
    struct mongo_options o = {.uri = "http://somewhere", .app_name = "test", .pool_size = 1};
    assert_int_equal(mongo_new(&m, &o, &e), -1);
    assert_int_equal(e.code, ERR_INVALID);
    assert_null(m);
    o.uri = "mongodb://127.0.0.1";
    o.database = "no/good";
    assert_int_equal(mongo_new(&m, &o, &e), -1);
    assert_int_equal(e.code, ERR_INVALID);
    assert_null(m);
}

static void the_database_is_the_option_then_the_address_then_feedmill(void **state)
{
    (void)state;
    struct mongo *m = connect_to("mongodb://127.0.0.1/fromuri", "given", 1);
    assert_string_equal(mongo_database(m), "given");
    mongo_free(m);
    m = connect_to("mongodb://127.0.0.1/fromuri", NULL, 1);
    assert_string_equal(mongo_database(m), "fromuri");
    mongo_free(m);
    m = connect_to("mongodb://127.0.0.1", NULL, 1);
    assert_string_equal(mongo_database(m), "feedmill");
    mongo_free(m);
}

static void a_server_that_is_not_there_is_unavailable(void **state)
{
    (void)state;
    char uri[96];
    snprintf(uri, sizeof uri, "mongodb://127.0.0.1:%d/?serverSelectionTimeoutMS=200", server_free_port());
    struct mongo *m = connect_to(uri, NULL, 1);
    struct mongo_conn *c = NULL;
    struct err e = {0};
    for (int i = 0; i < 2; i++) { /* the place is given back each time */
        assert_int_equal(mongo_conn_get(m, &c, &e), -1);
        assert_int_equal(e.code, ERR_UNAVAILABLE);
    }
    mongo_free(m);
}

static void more_conns_than_the_pool_holds_are_busy(void **state)
{
    struct world *w = *state;
    struct mongo *m = connect_to(fixture_mongodb_uri(w->fixture), NULL, 2);
    struct mongo_conn *a = get(m), *b = get(m), *c = NULL;
    struct err e = {0};
    assert_int_equal(mongo_conn_get(m, &c, &e), -1);
    assert_int_equal(e.code, ERR_BUSY);
    mongo_conn_put(a);
    c = get(m);
    assert_ptr_equal(c, a);
    mongo_conn_put(b);
    mongo_conn_put(c);
    mongo_free(m);
}

static void *put_back(void *conn)
{
    mongo_conn_put(conn);
    return NULL;
}

static void who_waits_for_a_conn_gets_the_one_given_back(void **state)
{
    struct world *w = *state;
    struct mongo *m = connect_to(fixture_mongodb_uri(w->fixture), NULL, 1);
    struct mongo_conn *a = get(m);
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, put_back, a), 0);
    struct mongo_conn *b = get(m);
    assert_ptr_equal(a, b);
    pthread_join(t, NULL);
    mongo_conn_put(b);
    mongo_free(m);
}

/* ---- time ---- */

static void each_write_has_a_later_position(void **state)
{
    struct world *w = *state;
    assert_int_equal(mongo_conn_time(w->conn), 0);
    ts_t last = 0;
    for (int i = 0; i < 20; i++) {
        char id[16];
        snprintf(id, sizeof id, "%d", i);
        must_insert(w->conn, id, i);
        assert_true(mongo_conn_time(w->conn) > last);
        last = mongo_conn_time(w->conn);
    }
    ts_t now = 0;
    struct err e = {0};
    assert_int_equal(mongo_conn_fresh(w->conn, &now, &e), 0);
    assert_true(now >= last);
    assert_true(mongo_conn_time(w->conn) >= now);
}

static void p8_another_conn_reads_a_write_at_its_position(void **state)
{
    struct world *w = *state;
    struct mongo_conn *other = w->other;
    for (int i = 0; i < 200; i++) {
        char id[16];
        int64_t v = -1;
        snprintf(id, sizeof id, "%d", i);
        must_insert(w->conn, id, i);
        mongo_conn_after(other, mongo_conn_time(w->conn));
        assert_int_equal(must_find(other, id, &v), 1);
        assert_int_equal(v, i);
    }
}

static void a_fresh_conn_reads_every_write_acknowledged_before(void **state)
{
    struct world *w = *state;
    struct mongo_conn *other = w->other;
    struct err e = {0};
    for (int i = 0; i < 100; i++) {
        char id[16];
        int64_t v = -1;
        snprintf(id, sizeof id, "%d", i);
        must_insert(w->conn, id, i);
        assert_int_equal(mongo_conn_fresh(other, NULL, &e), 0);
        assert_int_equal(must_find(other, id, &v), 1);
    }
}

static void a_time_from_the_future_fails_one_read_and_not_the_next(void **state)
{
    struct world *w = *state;
    int64_t v;
    struct err e = {0};
    must_insert(w->conn, "a", 7);
    ts_t written = mongo_conn_time(w->conn);
    mongo_conn_after(w->conn, written + ((ts_t)3600 << 32));
    assert_int_equal(find(w->conn, "a", &v, &e), -1);
    assert_int_equal(e.code, ERR_INVALID);
    assert_int_equal(mongo_conn_time(w->conn), written);
    assert_int_equal(must_find(w->conn, "a", &v), 1);
    assert_int_equal(v, 7);
    assert_true(mongo_conn_time(w->conn) >= written);
    assert_true(mongo_conn_time(w->conn) < written + ((ts_t)1800 << 32));
    must_insert(w->conn, "b", 8);
    assert_int_equal(must_find(w->conn, "b", &v), 1);
}

/* ---- errors and deadlines ---- */

static void a_duplicate_key_is_a_conflict(void **state)
{
    struct world *w = *state;
    struct err e = {0};
    must_insert(w->conn, "a", 1);
    assert_int_equal(insert(w->conn, "a", 2, &e), -1);
    assert_int_equal(e.code, ERR_CONFLICT);
}

static void a_slow_read_ends_at_the_deadline(void **state)
{
    struct world *w = *state;
    must_insert(w->conn, "a", 1);
    must_insert(w->conn, "b", 1);
    bson_t *query = BCON_NEW("$where", BCON_UTF8("sleep(60000) || true"));
    bson_t opts = BSON_INITIALIZER;
    mongo_conn_deadline(w->conn, 100);
    mongo_read_opts(w->conn, &opts);
    mongoc_cursor_t *cursor =
        mongoc_collection_find_with_opts(mongo_coll(w->conn, COLL_SETTINGS), query, &opts, NULL);
    const bson_t *doc, *reply;
    bson_error_t be;
    struct err e = {0};
    assert_false(mongoc_cursor_next(cursor, &doc));
    assert_true(mongoc_cursor_error_document(cursor, &be, &reply));
    mongo_err(&e, &be, reply, "find");
    assert_int_equal(e.code, ERR_TIMEOUT);
    mongoc_cursor_destroy(cursor);
    bson_destroy(query);
    bson_destroy(&opts);
}

static void a_deadline_runs_down_and_never_below_one(void **state)
{
    struct world *w = *state;
    assert_int_equal(mongo_conn_left_ms(w->conn), 2000);
    mongo_conn_deadline(w->conn, 500);
    assert_in_range(mongo_conn_left_ms(w->conn), 1, 500);
    mongo_conn_deadline(w->conn, 1);
    int64_t until = clock_mono_ms() + 3;
    while (clock_mono_ms() < until) {
    }
    assert_int_equal(mongo_conn_left_ms(w->conn), 1);
    mongo_conn_put(w->conn);
    w->conn = get(w->mongo);
    assert_int_equal(mongo_conn_left_ms(w->conn), 2000);
}

struct attempt {
    struct mongo_conn *conn;
    int64_t v;
    struct err e;
};

static bool can_find_a(void *arg)
{
    struct attempt *a = arg;
    return find(a->conn, "a", &a->v, &a->e) == 1;
}

static void p1_a_conn_goes_on_after_the_server_was_killed_and_what_was_acknowledged_is_there(void **state)
{
    struct world *w = *state;
    must_insert(w->conn, "a", 5);
    server_kill(fixture_mongod(w->fixture));
    struct attempt a = {.conn = w->conn};
    struct err e = {0};
    assert_int_equal(find(w->conn, "a", &a.v, &e), -1);
    assert_int_equal(e.code, ERR_UNAVAILABLE);
    fixture_restart(w->fixture, fixture_mongod(w->fixture));
    assert_true(fixture_until(can_find_a, &a, 20000));
    assert_int_equal(a.v, 5);
    must_insert(w->conn, "b", 6);
}

/* ---- transactions ---- */

static int put_txn(struct mongo_conn *c, const char *id, int64_t v, struct err *e)
{
    bson_t query = BSON_INITIALIZER, update = BSON_INITIALIZER, set, opts = BSON_INITIALIZER, reply;
    bson_error_t be;
    BSON_APPEND_UTF8(&query, "_id", id);
    BSON_APPEND_DOCUMENT_BEGIN(&update, "$set", &set);
    BSON_APPEND_INT64(&set, "v", v);
    bson_append_document_end(&update, &set);
    mongo_txn_opts(c, &opts);
    BSON_APPEND_BOOL(&opts, "upsert", true);
    int rc = 0;
    if (!mongoc_collection_update_one(mongo_coll(c, COLL_SETTINGS), &query, &update, &opts, &reply, &be))
        rc = mongo_txn_err(c, e, &be, &reply, "update");
    bson_destroy(&query);
    bson_destroy(&update);
    bson_destroy(&opts);
    bson_destroy(&reply);
    return rc;
}

static int put_two(struct mongo_conn *c, void *arg, struct err *e)
{
    (void)arg;
    return put_txn(c, "x", 1, e) < 0 ? -1 : put_txn(c, "y", 2, e);
}

static void a_transaction_is_visible_at_its_position(void **state)
{
    struct world *w = *state;
    struct err e = {0};
    int64_t v;
    struct mongo_conn *other = w->other;
    if (mongo_transaction(w->conn, put_two, NULL, &e) < 0)
        fail_msg("%s", e.msg);
    assert_true(mongo_conn_time(w->conn) > 0);
    mongo_conn_after(other, mongo_conn_time(w->conn));
    assert_int_equal(must_find(other, "x", &v), 1);
    assert_int_equal(must_find(other, "y", &v), 1);
    assert_int_equal(v, 2);
}

static int put_and_give_up(struct mongo_conn *c, void *arg, struct err *e)
{
    ++*(int *)arg;
    if (put_txn(c, "x", 1, e) < 0)
        return -1;
    return err_set(e, ERR_CONFLICT, "10,000 follows");
}

static void an_aborted_transaction_leaves_nothing_and_keeps_its_reason(void **state)
{
    struct world *w = *state;
    struct err e = {0};
    int64_t v;
    int calls = 0;
    assert_int_equal(mongo_transaction(w->conn, put_and_give_up, &calls, &e), -1);
    assert_int_equal(calls, 1);
    assert_int_equal(e.code, ERR_CONFLICT);
    assert_string_equal(e.msg, "10,000 follows");
    assert_int_equal(must_find(w->conn, "x", &v), 0);
    assert_int_equal(mongo_transaction(w->conn, put_two, NULL, &e), 0);
}

static int always_transient(struct mongo_conn *c, void *arg, struct err *e)
{
    ++*(int *)arg;
    bson_error_t be = {.domain = MONGOC_ERROR_SERVER, .code = 112, .message = "WriteConflict"};
    bson_t *reply = BCON_NEW("errorLabels", "[", BCON_UTF8("TransientTransactionError"), "]");
    mongo_txn_err(c, e, &be, reply, "made up");
    bson_destroy(reply);
    return -1;
}

static void a_transaction_that_never_succeeds_is_tried_again_until_its_deadline(void **state)
{
    struct world *w = *state;
    struct err e = {0};
    int calls = 0;
    mongo_conn_deadline(w->conn, 200);
    assert_int_equal(mongo_transaction(w->conn, always_transient, &calls, &e), -1);
    assert_true(calls >= 2);
    assert_int_equal(e.code, ERR_BUSY);
}

#define THREADS   4
#define ADDITIONS 25

static int add_one(struct mongo_conn *c, void *arg, struct err *e)
{
    (void)arg;
    int64_t v = 0;
    if (find(c, "counter", &v, e) < 0)
        return -1;
    return put_txn(c, "counter", v + 1, e);
}

static void *add_many(void *arg)
{
    struct mongo_conn *c = NULL;
    struct err e = {0};
    char *failed = NULL;
    if (mongo_conn_get(arg, &c, &e) < 0)
        return mem_strdup(e.msg);
    for (int i = 0; i < ADDITIONS && failed == NULL; i++) {
        mongo_conn_deadline(c, 20000);
        if (mongo_transaction(c, add_one, NULL, &e) < 0)
            failed = mem_strdup(e.msg);
    }
    mongo_conn_put(c);
    return failed;
}

static void transactions_in_each_others_way_all_count_once(void **state)
{
    struct world *w = *state;
    pthread_t t[THREADS];
    int64_t v = 0;
    must_insert(w->conn, "counter", 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&t[i], NULL, add_many, w->mongo), 0);
    for (int i = 0; i < THREADS; i++) {
        void *failed;
        pthread_join(t[i], &failed);
        if (failed != NULL)
            fail_msg("%s", (char *)failed);
    }
    struct err e = {0};
    assert_int_equal(mongo_conn_fresh(w->conn, NULL, &e), 0);
    assert_int_equal(must_find(w->conn, "counter", &v), 1);
    assert_int_equal(v, THREADS * ADDITIONS);
}

/* ---- schema and settings ---- */

static void *ensure(void *arg)
{
    struct mongo_conn *c = NULL;
    struct err e = {0};
    if (mongo_conn_get(arg, &c, &e) < 0)
        return mem_strdup(e.msg);
    char *failed = mongo_schema_ensure(c, &e) < 0 ? mem_strdup(e.msg) : NULL;
    mongo_conn_put(c);
    return failed;
}

static void the_schema_is_made_by_several_at_once(void **state)
{
    struct world *w = *state;
    pthread_t t[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&t[i], NULL, ensure, w->mongo), 0);
    for (int i = 0; i < THREADS; i++) {
        void *failed;
        pthread_join(t[i], &failed);
        if (failed != NULL)
            fail_msg("%s", (char *)failed);
    }
    assert_null(ensure(w->mongo)); /* and again */
    mongoc_database_t *db = mongoc_client_get_database(mongo_client(w->conn), mongo_database(w->mongo));
    bson_error_t be;
    for (int i = 0; i < COLL_N; i++)
        assert_true(mongoc_database_has_collection(db, mongo_collection_name((enum mongo_collection)i), &be));
    mongoc_database_destroy(db);
}

static bool insert_item(struct mongo_conn *c, int64_t id, const char *publisher, const char *external_id)
{
    bson_t doc = BSON_INITIALIZER;
    bson_error_t be;
    BSON_APPEND_BOOL(&doc, "live", true);
    BSON_APPEND_INT64(&doc, "_id", id);
    BSON_APPEND_UTF8(&doc, "publisher", publisher);
    if (external_id != NULL)
        BSON_APPEND_UTF8(&doc, "external_id", external_id);
    bool ok = mongoc_collection_insert_one(mongo_coll(c, COLL_ITEMS), &doc, NULL, NULL, &be);
    bson_destroy(&doc);
    return ok;
}

static void p2_an_external_id_is_unique_within_its_publisher_and_may_be_absent(void **state)
{
    struct world *w = *state;
    struct err e = {0};
    assert_int_equal(mongo_schema_ensure(w->conn, &e), 0);
    assert_true(insert_item(w->conn, 1, "p", NULL));
    assert_true(insert_item(w->conn, 2, "p", NULL));
    assert_true(insert_item(w->conn, 3, "p", "x"));
    assert_true(insert_item(w->conn, 4, "q", "x"));
    assert_false(insert_item(w->conn, 5, "p", "x"));
}

/* The stage named somewhere in the winning plan of a find. */
static bool plan_has(struct mongo_conn *c, const char *find_json, const char *stage)
{
    bson_t *inner = bson_new_from_json((const uint8_t *)find_json, -1, NULL);
    bson_t *cmd = BCON_NEW("explain", BCON_DOCUMENT(inner), "verbosity", BCON_UTF8("queryPlanner"));
    bson_t reply;
    bson_error_t be;
    if (!mongoc_client_command_simple(mongo_client(c), mongo_conn_database(c), cmd, NULL, &reply, &be))
        fail_msg("explain: %s", be.message);
    bson_iter_t it, plan;
    const uint8_t *data;
    uint32_t n;
    bson_t winning;
    assert_true(bson_iter_init(&it, &reply) &&
                bson_iter_find_descendant(&it, "queryPlanner.winningPlan", &plan));
    bson_iter_document(&plan, &n, &data);
    assert_true(bson_init_static(&winning, data, n));
    char *text = bson_as_relaxed_extended_json(&winning, NULL);
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\"", stage);
    bool has = strstr(text, quoted) != NULL;
    bson_free(text);
    bson_destroy(&reply);
    bson_destroy(cmd);
    bson_destroy(inner);
    return has;
}

static void the_indexes_cover_the_hot_reads(void **state)
{
    struct world *w = *state;
    struct err e = {0};
    assert_int_equal(mongo_schema_ensure(w->conn, &e), 0);
    for (int i = 1; i <= 300; i++) /* a planner that has nothing to try may take any index */
        assert_true(insert_item(w->conn, i, i % 30 == 0 ? "a" : "c", NULL));
    static const char *const finds[] = {
        "{\"find\":\"follows\",\"filter\":{\"t\":\"p:a\",\"b\":{\"$gte\":0,\"$lt\":16}},\"sort\":{\"t\":1,"
        "\"b\":1,\"u\":1},"
        "\"projection\":{\"_id\":0,\"b\":1,\"u\":1}}",
        "{\"find\":\"items\",\"filter\":{\"publisher\":{\"$in\":[\"a\",\"b\"]},\"live\":true,\"_id\":{\"$"
        "lt\":9}},"
        "\"sort\":{\"_id\":-1},\"limit\":20,\"projection\":{\"_id\":1}}",
    };
    for (size_t i = 0; i < MEM_COUNT(finds); i++) {
        assert_true(plan_has(w->conn, finds[i], "IXSCAN"));
        assert_false(plan_has(w->conn, finds[i], "FETCH"));
        assert_false(plan_has(w->conn, finds[i], "SORT"));
    }
}

static void a_database_made_for_another_number_of_buckets_is_refused(void **state)
{
    struct world *w = *state;
    struct err e = {0};
    bson_t *doc = BCON_NEW("_id", BCON_UTF8("buckets"), "value", BCON_INT32(128));
    bson_error_t be;
    assert_true(mongoc_collection_insert_one(mongo_coll(w->conn, COLL_SETTINGS), doc, NULL, NULL, &be));
    bson_destroy(doc);
    assert_int_equal(mongo_schema_ensure(w->conn, &e), -1);
    assert_int_equal(e.code, ERR_CONFLICT);
    assert_non_null(strstr(e.msg, "128"));
}

struct secret {
    struct mongo *mongo;
    unsigned char bytes[32];
    bool ok;
};

static void *read_secret(void *arg)
{
    struct secret *s = arg;
    struct mongo_conn *c = NULL;
    struct err e;
    if (mongo_conn_get(s->mongo, &c, &e) < 0)
        return NULL;
    s->ok = mongo_setting_secret(c, "cursor", s->bytes, &e) == 0;
    mongo_conn_put(c);
    return NULL;
}

static void whoever_comes_first_makes_a_secret_and_all_read_the_same(void **state)
{
    struct world *w = *state;
    pthread_t t[THREADS];
    struct secret s[THREADS];
    for (int i = 0; i < THREADS; i++) {
        s[i] = (struct secret){.mongo = w->mongo};
        assert_int_equal(pthread_create(&t[i], NULL, read_secret, &s[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(t[i], NULL);
    for (int i = 0; i < THREADS; i++) {
        assert_true(s[i].ok);
        assert_memory_equal(s[i].bytes, s[0].bytes, 32);
    }
    unsigned char other[32], zero[32] = {0};
    struct err e = {0};
    assert_int_equal(mongo_setting_secret(w->conn, "other", other, &e), 0);
    assert_memory_not_equal(other, s[0].bytes, 32);
    assert_memory_not_equal(other, zero, 32);
}

static void a_secret_of_another_size_is_corrupt_and_not_used(void **state)
{
    struct world *w = *state;
    struct err e = {0};
    unsigned char out[32], before[32];
    memset(out, 1, sizeof out);
    memset(before, 1, sizeof before);
    bson_t *doc =
        BCON_NEW("_id", BCON_UTF8("secret:short"), "value", BCON_BIN(BSON_SUBTYPE_BINARY, before, 8));
    bson_error_t be;
    assert_true(mongoc_collection_insert_one(mongo_coll(w->conn, COLL_SETTINGS), doc, NULL, NULL, &be));
    bson_destroy(doc);
    assert_int_equal(mongo_setting_secret(w->conn, "short", out, &e), -1);
    assert_int_equal(e.code, ERR_CORRUPT);
    assert_memory_equal(out, before, 32);
}

/* ---- fields ---- */

static void fields_are_read_when_they_are_there_and_of_the_type(void **state)
{
    (void)state;
    bson_t d = BSON_INITIALIZER;
    BSON_APPEND_INT32(&d, "i32", -5);
    BSON_APPEND_INT64(&d, "i64", INT64_MIN);
    BSON_APPEND_DATE_TIME(&d, "date", 1234);
    BSON_APPEND_DOUBLE(&d, "double", 1.5);
    BSON_APPEND_UTF8(&d, "str", "text");
    BSON_APPEND_TIMESTAMP(&d, "ts", 0xfffffffe, 3);
    int64_t v = 9;
    ts_t t = 9;
    size_t n = 9;
    assert_true(mongo_get_i64(&d, "i32", &v));
    assert_int_equal(v, -5);
    assert_true(mongo_get_i64(&d, "i64", &v));
    assert_true(v == INT64_MIN);
    assert_true(mongo_get_i64(&d, "date", &v));
    assert_int_equal(v, 1234);
    assert_false(mongo_get_i64(&d, "double", &v));
    assert_false(mongo_get_i64(&d, "none", &v));
    assert_int_equal(v, 1234);
    assert_string_equal(mongo_get_str(&d, "str", &n), "text");
    assert_int_equal(n, 4);
    assert_string_equal(mongo_get_str(&d, "str", NULL), "text");
    assert_null(mongo_get_str(&d, "i32", &n));
    assert_null(mongo_get_str(&d, "none", &n));
    assert_true(mongo_get_ts(&d, "ts", &t));
    assert_true(t == ts_make(0xfffffffe, 3));
    assert_false(mongo_get_ts(&d, "date", &t));
    assert_false(mongo_get_ts(&d, "none", &t));
    bson_destroy(&d);
}

int main(void)
{
#define WITH_CONN(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wrong_address_is_refused_with_a_reason),
        cmocka_unit_test(the_database_is_the_option_then_the_address_then_feedmill),
        cmocka_unit_test(a_server_that_is_not_there_is_unavailable),
        WITH_CONN(more_conns_than_the_pool_holds_are_busy),
        WITH_CONN(who_waits_for_a_conn_gets_the_one_given_back),
        WITH_CONN(each_write_has_a_later_position),
        WITH_CONN(p8_another_conn_reads_a_write_at_its_position),
        WITH_CONN(a_fresh_conn_reads_every_write_acknowledged_before),
        WITH_CONN(a_time_from_the_future_fails_one_read_and_not_the_next),
        WITH_CONN(a_duplicate_key_is_a_conflict),
        WITH_CONN(a_slow_read_ends_at_the_deadline),
        WITH_CONN(a_deadline_runs_down_and_never_below_one),
        WITH_CONN(a_transaction_is_visible_at_its_position),
        WITH_CONN(an_aborted_transaction_leaves_nothing_and_keeps_its_reason),
        WITH_CONN(a_transaction_that_never_succeeds_is_tried_again_until_its_deadline),
        WITH_CONN(transactions_in_each_others_way_all_count_once),
        WITH_CONN(the_schema_is_made_by_several_at_once),
        WITH_CONN(p2_an_external_id_is_unique_within_its_publisher_and_may_be_absent),
        WITH_CONN(the_indexes_cover_the_hot_reads),
        WITH_CONN(a_database_made_for_another_number_of_buckets_is_refused),
        WITH_CONN(whoever_comes_first_makes_a_secret_and_all_read_the_same),
        WITH_CONN(a_secret_of_another_size_is_corrupt_and_not_used),
        cmocka_unit_test(fields_are_read_when_they_are_there_and_of_the_type),
        WITH_CONN(p1_a_conn_goes_on_after_the_server_was_killed_and_what_was_acknowledged_is_there),
    };
    return cmocka_run_group_tests_name("common/mongo", tests, group_setup, group_teardown);
}
