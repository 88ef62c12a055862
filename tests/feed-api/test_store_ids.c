/* Tests of feed-api/store_ids.c: the newest ids of a set of targets, against a list in memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "feed-api/store_ids.h"
#include "tests/support/e2e.h"
#include "tests/support/fixture.h"

#define ANY    (ITEM_ID_MAX + 1)
#define ITEMS  4000
#define PEOPLE 450 /* publishers: more than two chunks */
#define TOPICS 230

struct row {
    item_id id;
    unsigned publisher, topics[2];
    bool live;
};

static struct mongo *mongo;
static struct mongo_conn *conn;
static struct row rows[ITEMS]; /* newest first */

static void merging_keeps_order_and_drops_repeats(void **state)
{
    (void)state;
    const item_id a[] = {90, 70, 50}, b[] = {80, 70, 60, 50, 10};
    item_id out[8];
    assert_int_equal(store_ids_merge(a, 3, b, 5, out, 8), 6);
    assert_memory_equal(out, ((item_id[]){90, 80, 70, 60, 50, 10}), 6 * sizeof *out);
    assert_int_equal(store_ids_merge(a, 3, b, 5, out, 2), 2);
    assert_int_equal(out[1], 80);
    assert_int_equal(store_ids_merge(a, 0, b, 0, out, 2), 0);
    assert_int_equal(store_ids_merge(a, 0, b, 5, out, 8), 5);
}

static bson_t *row_bson(const struct row *r)
{
    bson_t *d = bson_new(), list;
    char name[32];
    BSON_APPEND_INT64(d, "_id", (int64_t)r->id);
    snprintf(name, sizeof name, "p%u", r->publisher);
    BSON_APPEND_UTF8(d, "publisher", name);
    BSON_APPEND_ARRAY_BEGIN(d, "topics", &list);
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "t%u", r->topics[i]);
        BSON_APPEND_UTF8(&list, i ? "1" : "0", name);
    }
    bson_append_array_end(d, &list);
    if (r->live)
        BSON_APPEND_BOOL(d, "live", true);
    return d;
}

static int by_id_down(const void *a, const void *b)
{
    item_id x = ((const struct row *)a)->id, y = ((const struct row *)b)->id;
    return x > y ? -1 : x < y;
}

static void insert_rows(struct rng *r)
{
    bson_t **docs = mem_alloc(ITEMS * sizeof *docs);
    for (size_t i = 0; i < ITEMS; i++) {
        rows[i] = (struct row){.id = (i + 1) * 1000 + rng_below(r, 900),
                               .publisher = rng_below(r, PEOPLE),
                               .topics = {rng_below(r, TOPICS), rng_below(r, TOPICS)},
                               .live = !rng_percent(r, 10)};
        docs[i] = row_bson(&rows[i]);
    }
    bson_error_t be;
    if (!mongoc_collection_insert_many(mongo_coll(conn, COLL_ITEMS), (const bson_t **)docs, ITEMS, NULL, NULL,
                                       &be))
        fail_msg("insert: %s", be.message);
    for (size_t i = 0; i < ITEMS; i++)
        bson_destroy(docs[i]);
    free(docs);
    qsort(rows, ITEMS, sizeof *rows, by_id_down);
}

static int setup(void **state)
{
    if (fixture_group_setup_mongod(state))
        return -1;
    struct err e;
    struct mongo_options o = {.uri = fixture_mongodb_uri(*state), .app_name = "test", .pool_size = 2};
    struct rng r = {.state = 4711};
    if (mongo_new(&mongo, &o, &e) || mongo_conn_get(mongo, &conn, &e) || mongo_schema_ensure(conn, &e))
        fail_msg("%s", e.msg);
    mongo_conn_deadline(conn, 60000);
    insert_rows(&r);
    return mongo_conn_fresh(conn, NULL, &e);
}

static int teardown(void **state)
{
    mongo_conn_put(conn);
    mongo_free(mongo);
    return fixture_group_teardown(state);
}

/* ---- the model ---- */

static bool wanted_p[PEOPLE], wanted_t[TOPICS];

static void choose(struct rng *r, bool *wanted, size_t n, unsigned percent, char letter, char ***names,
                   size_t *n_names)
{
    *names = mem_alloc((n + 1) * sizeof **names);
    *n_names = 0;
    for (size_t i = 0; i < n; i++) {
        wanted[i] = rng_percent(r, percent);
        if (wanted[i])
            (*names)[(*n_names)++] = mem_printf("%c%zu", letter, i);
    }
}

static size_t model(item_id before, size_t n, item_id *out)
{
    size_t got = 0;
    for (size_t i = 0; i < ITEMS && got < n; i++) {
        const struct row *x = &rows[i];
        if (x->live && x->id < before &&
            (wanted_p[x->publisher] || wanted_t[x->topics[0]] || wanted_t[x->topics[1]]))
            out[got++] = x->id;
    }
    return got;
}

static void one_set(struct rng *r, unsigned percent_p, unsigned percent_t)
{
    static item_id want[ITEMS], out[ITEMS];
    struct follow_set f = {0};
    choose(r, wanted_p, PEOPLE, percent_p, 'p', &f.publishers, &f.n_publishers);
    choose(r, wanted_t, TOPICS, percent_t, 't', &f.topics, &f.n_topics);
    for (int i = 0; i < 6; i++) {
        size_t n = 1 + rng_below(r, i < 4 ? 150 : ITEMS - 1), got = 99;
        item_id before = i == 0 ? ANY : rows[rng_below(r, ITEMS)].id + rng_below(r, 2);
        struct err e;
        if (store_ids(conn, &f, before, n, out, &got, &e))
            fail_msg("%s", e.msg);
        size_t n_want = model(before, n, want);
        assert_int_equal(got, n_want);
        assert_memory_equal(out, want, got * sizeof *out);
    }
    follow_set_done(&f);
}

static void sets_of_any_size_give_the_newest_ids_of_all(void **state)
{
    (void)state;
    struct rng r = {.state = (uint64_t)e2e_env("SEED", 1)};
    one_set(&r, 0, 0);
    one_set(&r, 1, 0);
    one_set(&r, 0, 1);
    one_set(&r, 100, 100);
    for (int i = 0; i < 12; i++)
        one_set(&r, rng_below(&r, 101), rng_below(&r, 101));
}

static void an_item_that_several_follows_match_comes_once(void **state)
{
    (void)state;
    struct follow_set f = {0};
    item_id out[100];
    size_t got;
    struct err e;
    char *publishers[1], *topics[2];
    publishers[0] = mem_printf("p%u", rows[0].publisher);
    topics[0] = mem_printf("t%u", rows[0].topics[0]);
    topics[1] = mem_printf("t%u", rows[0].topics[1]);
    f = (struct follow_set){.publishers = publishers, .n_publishers = 1, .topics = topics, .n_topics = 2};
    assert_int_equal(store_ids(conn, &f, ANY, 100, out, &got, &e), 0);
    for (size_t i = 1; i < got; i++)
        assert_true(out[i] < out[i - 1]);
    free(publishers[0]);
    free(topics[0]);
    free(topics[1]);
}

/* ---- follows ---- */

static void add_edge(enum mongo_collection which, const char *id)
{
    bson_t d = BSON_INITIALIZER;
    bson_error_t be;
    BSON_APPEND_UTF8(&d, "_id", id);
    if (!mongoc_collection_insert_one(mongo_coll(conn, which), &d, NULL, NULL, &be))
        fail_msg("insert: %s", be.message);
    bson_destroy(&d);
}

static void the_edges_of_a_user_are_his_alone(void **state)
{
    (void)state;
    static const char *const edges[] = {"bo p:b", "bo p:a",  "bo t:x",    "bob p:c",
                                        "b p:d",  "bo! p:e", "bo\x7f p:f"};
    struct follow_set f;
    struct err e;
    char *mutes;
    for (size_t i = 0; i < MEM_COUNT(edges); i++)
        add_edge(COLL_FOLLOWS, edges[i]);
    add_edge(COLL_MUTES, "bo w:cat");
    add_edge(COLL_MUTES, "bo i:12");
    add_edge(COLL_MUTES, "bob w:dog");
    assert_int_equal(mongo_conn_fresh(conn, NULL, &e), 0);
    assert_int_equal(follow_set_load(conn, "bo", &f, &e), 0);
    assert_int_equal(f.n_publishers, 2);
    assert_string_equal(f.publishers[0], "a");
    assert_string_equal(f.publishers[1], "b");
    assert_int_equal(f.n_topics, 1);
    const char *topics[] = {"y", "x"};
    assert_true(follow_set_matches(&f, "b", NULL, 0));
    assert_true(follow_set_matches(&f, "z", topics, 2));
    assert_false(follow_set_matches(&f, "z", topics, 1));
    assert_false(follow_set_matches(&f, "c", NULL, 0));
    follow_set_done(&f);
    assert_int_equal(follow_set_mutes(conn, "bo", &mutes, &e), 0);
    assert_string_equal(mutes, "i:12\nw:cat");
    free(mutes);
    assert_int_equal(follow_set_load(conn, "nobody", &f, &e), 0);
    assert_int_equal(f.n_publishers + f.n_topics, 0);
    follow_set_done(&f);
    assert_int_equal(follow_set_mutes(conn, "nobody", &mutes, &e), 0);
    assert_string_equal(mutes, "");
    free(mutes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merging_keeps_order_and_drops_repeats),
        cmocka_unit_test(sets_of_any_size_give_the_newest_ids_of_all),
        cmocka_unit_test(an_item_that_several_follows_match_comes_once),
        cmocka_unit_test(the_edges_of_a_user_are_his_alone),
    };
    return cmocka_run_group_tests_name("store_ids", tests, setup, teardown);
}
