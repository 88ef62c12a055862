/* Counts and profiles of publishers and topics, in a real MongoDB. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "common/clock.h"
#include "common/mem.h"
#include "feed-api/counts.h"
#include "feed-api/graph_store.h"
#include "feed-api/items_store.h"
#include "feed-api/metrics.h"
#include "feed-api/targets.h"
#include "tests/support/fixture.h"

struct world {
    struct fixture *f;
    struct mongo *mongo;
    struct metrics *metrics;
    struct items s;
};

static void world_open(struct world *w, void **state)
{
    struct err e;
    *w = (struct world){.f = *state};
    fixture_fresh(w->f);
    struct mongo_options o = {.uri = fixture_mongodb_uri(w->f), .app_name = "test", .pool_size = 8};
    assert_int_equal(mongo_new(&w->mongo, &o, &e), 0);
    w->metrics = feed_metrics_new();
    w->s = (struct items){.ids = item_ids_new(), .metrics = w->metrics, .now_ms = clock_wall_ms()};
    assert_int_equal(mongo_conn_get(w->mongo, &w->s.conn, &e), 0);
    mongo_conn_deadline(w->s.conn, 60000);
    assert_int_equal(mongo_schema_ensure(w->s.conn, &e), 0);
}

static void world_close(struct world *w)
{
    mongo_conn_put(w->s.conn);
    item_ids_free(w->s.ids);
    metrics_free(w->metrics);
    mongo_free(w->mongo);
}

static item_id publish(struct world *w, const char *publisher, const char *topic)
{
    struct item it = {.published_ms = 1000};
    struct items_written out;
    struct err e;
    it.publisher = mem_strdup(publisher);
    it.title = mem_strdup("t");
    it.body = mem_strdup("b");
    snprintf(it.topics[it.n_topics++], sizeof it.topics[0], "%s", topic);
    mongo_conn_deadline(w->s.conn, 60000);
    if (items_post(&w->s, &it, &out, &e) != 0)
        fail_msg("post: %s", e.msg);
    item_done(&it);
    return out.id;
}

static void erase(struct world *w, item_id id)
{
    struct item it;
    struct items_written out;
    struct err e;
    mongo_conn_deadline(w->s.conn, 60000);
    assert_int_equal(items_get(&w->s, id, &it, &e), 0);
    assert_int_equal(items_delete(&w->s, &it, 0, &out, &e), 0);
    item_done(&it);
}

static void follow(struct world *w, const char *user, const char *target, bool remove)
{
    struct graph_line line = {.remove = remove, .since_ms = 1000};
    struct err e;
    snprintf(line.user, sizeof line.user, "%s", user);
    snprintf(line.target, sizeof line.target, "%s", target);
    mongo_conn_deadline(w->s.conn, 60000);
    if (graph_apply(w->s.conn, GRAPH_FOLLOWS, &line, 1, 10000, true, &e) != 0)
        fail_msg("follow: %s", e.msg);
    enum target_kind kind;
    const char *name;
    assert_int_equal(target_split(target, &kind, &name, &e), 0);
    counts_touch(w->s.counts, kind, name);
}

static struct target get(struct world *w, enum target_kind kind, const char *name)
{
    struct target t;
    struct err e;
    mongo_conn_deadline(w->s.conn, 60000);
    assert_int_equal(mongo_conn_fresh(w->s.conn, NULL, &e), 0);
    assert_int_equal(targets_get(w->s.conn, kind, name, &t, &e), 0);
    return t;
}

static void assert_counts(struct world *w, enum target_kind kind, const char *name, int64_t followers,
                          int64_t items)
{
    struct target t = get(w, kind, name);
    assert_int_equal(t.followers, followers);
    assert_int_equal(t.items, items);
    target_done(&t);
}

static void an_unknown_name_has_nulls_and_zeros(void **state)
{
    struct world w;
    struct buf b;
    world_open(&w, state);
    struct target t = get(&w, TARGET_TOPIC, "nobody");
    buf_init(&b, 1000);
    target_write_json(&t, &b);
    assert_string_equal(b.data,
                        "{\"topic\":\"nobody\",\"title\":null,\"icon\":null,\"url\":null,\"extra\":{},"
                        "\"followers\":0,\"items\":0,\"mode\":\"push\"}");
    buf_done(&b);
    world_close(&w);
}

static void a_recount_finds_what_there_is(void **state)
{
    struct world w;
    struct err e;
    bool changed = false;
    world_open(&w, state);
    item_id a = publish(&w, "daily", "sport");
    publish(&w, "daily", "news");
    publish(&w, "other", "sport");
    follow(&w, "ann", "p:daily", false);
    follow(&w, "bob", "p:daily", false);
    follow(&w, "bob", "t:sport", false);
    assert_int_equal(counts_recount(w.s.conn, "p:daily", &changed, &e), 0);
    assert_true(changed);
    assert_counts(&w, TARGET_PUBLISHER, "daily", 2, 2);
    assert_int_equal(counts_recount(w.s.conn, "t:sport", NULL, &e), 0);
    assert_counts(&w, TARGET_TOPIC, "sport", 1, 2);
    assert_int_equal(counts_recount(w.s.conn, "p:daily", &changed, &e), 0);
    assert_false(changed);
    erase(&w, a);
    follow(&w, "ann", "p:daily", true);
    assert_int_equal(counts_recount(w.s.conn, "p:daily", &changed, &e), 0);
    assert_true(changed);
    assert_counts(&w, TARGET_PUBLISHER, "daily", 1, 1);
    assert_int_equal(counts_recount(w.s.conn, "t:sport", NULL, &e), 0);
    assert_counts(&w, TARGET_TOPIC, "sport", 1, 1);
    /* a name that nobody uses gets no document */
    assert_int_equal(counts_recount(w.s.conn, "p:nobody", &changed, &e), 0);
    assert_false(changed);
    world_close(&w);
}

static void a_sweep_finds_all_that_is_wrong_and_nothing_else(void **state)
{
    struct world w;
    struct err e;
    uint64_t fixed = 0;
    struct target_profile none = {0};
    struct target t;
    world_open(&w, state);
    item_id gone = publish(&w, "gone", "g");
    for (int i = 0; i < 250; i++) {
        char name[32], target[40];
        snprintf(name, sizeof name, "p%d", i);
        snprintf(target, sizeof target, "t:topic%d", i);
        publish(&w, name, "all");
        follow(&w, "ann", target, false);
    }
    assert_int_equal(counts_recount(w.s.conn, "p:gone", NULL, &e), 0);
    assert_int_equal(counts_recount(w.s.conn, "t:g", NULL, &e), 0);
    erase(&w, gone);
    assert_int_equal(targets_put(w.s.conn, TARGET_PUBLISHER, "p7", &none, &t, &e), 0);
    target_done(&t);
    assert_int_equal(counts_sweep(w.s.conn, NULL, NULL, &fixed, &e), 0);
    assert_int_equal(fixed, 250 + 250 + 1 + 2);
    assert_counts(&w, TARGET_PUBLISHER, "p7", 0, 1);
    assert_counts(&w, TARGET_PUBLISHER, "p249", 0, 1);
    assert_counts(&w, TARGET_TOPIC, "topic249", 1, 0);
    assert_counts(&w, TARGET_TOPIC, "all", 0, 250);
    assert_counts(&w, TARGET_PUBLISHER, "gone", 0, 0);
    assert_counts(&w, TARGET_TOPIC, "g", 0, 0);
    assert_int_equal(counts_sweep(w.s.conn, NULL, NULL, &fixed, &e), 0);
    assert_int_equal(fixed, 0);
    world_close(&w);
}

/* ---- more topics than the 16 MB of one answer hold ---- */

#define MANY_ITEMS  15000
#define MANY_TOPICS 16 /* each, of 64 bytes: 240,000 names */

static void insert_many_topics(struct world *w)
{
    bson_t **docs = mem_alloc(MANY_ITEMS * sizeof *docs), list;
    for (int i = 0; i < MANY_ITEMS; i++) {
        docs[i] = BCON_NEW("_id", BCON_INT64(i + 1), "publisher", "many", "live", BCON_BOOL(true));
        BSON_APPEND_ARRAY_BEGIN(docs[i], "topics", &list);
        for (int j = 0; j < MANY_TOPICS; j++) {
            char name[80], index[12];
            snprintf(name, sizeof name, "%064d", i * MANY_TOPICS + j);
            snprintf(index, sizeof index, "%d", j);
            BSON_APPEND_UTF8(&list, index, name);
        }
        bson_append_array_end(docs[i], &list);
    }
    bson_error_t be;
    if (!mongoc_collection_insert_many(mongo_coll(w->s.conn, COLL_ITEMS), (const bson_t **)docs, MANY_ITEMS,
                                       NULL, NULL, &be))
        fail_msg("insert: %s", be.message);
    for (int i = 0; i < MANY_ITEMS; i++)
        bson_destroy(docs[i]);
    free(docs);
}

static bool count_hundreds(void *arg)
{
    return ++*(int *)arg < 3;
}

static void a_sweep_before_the_indexes_are_made_finds_nothing(void **state)
{
    struct world w;
    struct err e;
    uint64_t fixed = 7;
    world_open(&w, state);
    static const enum mongo_collection bare[] = {COLL_FOLLOWS, COLL_ITEMS};
    for (size_t i = 0; i < MEM_COUNT(bare); i++) {
        bson_error_t be;
        if (!mongoc_collection_drop_index(mongo_coll(w.s.conn, bare[i]), "*", &be))
            fail_msg("%s", be.message);
    }
    if (counts_sweep(w.s.conn, NULL, NULL, &fixed, &e) != 0)
        fail_msg("%s", e.msg);
    assert_int_equal(fixed, 0);
    world_close(&w);
}

static void a_sweep_walks_more_topics_than_one_answer_holds(void **state)
{
    struct world w;
    struct err e;
    int hundreds = 0;
    uint64_t fixed = 0;
    world_open(&w, state);
    insert_many_topics(&w);
    mongo_conn_deadline(w.s.conn, 60000);
    assert_int_equal(mongo_conn_fresh(w.s.conn, NULL, &e), 0);
    if (counts_sweep(w.s.conn, count_hundreds, &hundreds, &fixed, &e) != 0) /* the first few are enough */
        fail_msg("%s", e.msg);
    assert_int_equal(fixed, 1 + 200); /* the publisher and two hundred topics */
    char name[80];
    snprintf(name, sizeof name, "%064d", 199);
    assert_counts(&w, TARGET_TOPIC, name, 0, 1);
    world_close(&w);
}

struct wanted {
    struct world *w;
    int64_t followers, items;
};

static bool is_counted(void *arg)
{
    struct wanted *want = arg;
    struct target t = get(want->w, TARGET_PUBLISHER, "daily");
    bool counted = t.followers == want->followers && t.items == want->items;
    target_done(&t);
    return counted;
}

static void what_a_write_marked_is_counted_by_the_thread(void **state)
{
    struct world w;
    struct err e;
    world_open(&w, state);
    struct counts_options o = {
        .mongo = w.mongo, .metrics = w.metrics, .interval_ms = 20, .sweep_ms = 86400000};
    assert_int_equal(counts_start(&w.s.counts, &o, &e), 0);
    item_id a = publish(&w, "daily", "sport");
    follow(&w, "ann", "p:daily", false);
    struct wanted want = {&w, 1, 1};
    assert_true(fixture_until(is_counted, &want, 10000));
    erase(&w, a);
    publish(&w, "daily", "sport");
    publish(&w, "daily", "sport");
    follow(&w, "bob", "p:daily", false);
    want = (struct wanted){&w, 2, 2};
    assert_true(fixture_until(is_counted, &want, 10000));
    counts_stop(w.s.counts);
    world_close(&w);
}

static void a_first_sweep_mends_what_a_killed_process_left(void **state)
{
    struct world w;
    struct err e;
    world_open(&w, state);
    publish(&w, "daily", "sport"); /* nobody was told */
    follow(&w, "ann", "p:daily", false);
    struct counts_options o = {.mongo = w.mongo, .interval_ms = 50, .sweep_ms = 86400000};
    struct wanted want = {&w, 1, 1};
    struct counts *first, *second;
    assert_int_equal(counts_start(&first, &o, &e), 0);
    assert_true(fixture_until(is_counted, &want, 10000));
    counts_stop(first);
    publish(&w, "daily", "sport");
    want.items = 2;
    assert_int_equal(counts_start(&second, &o, &e), 0); /* although a sweep was just made */
    assert_true(fixture_until(is_counted, &want, 10000));
    counts_stop(second);
    world_close(&w);
}

static void a_profile_is_replaced_as_a_whole_and_keeps_the_counts(void **state)
{
    struct world w;
    struct err e;
    struct item_problem p = {0};
    struct target_profile profile;
    struct target t;
    world_open(&w, state);
    publish(&w, "daily", "sport");
    assert_int_equal(counts_recount(w.s.conn, "p:daily", NULL, &e), 0);
    json_t *o = json_loads(
        "{\"title\":\"The Daily\",\"icon\":\"https://x.org/i\",\"url\":null,\"extra\":{\"a\":1}}", 0, NULL);
    assert_int_equal(target_profile_from_json(o, &profile, &p), 0);
    assert_int_equal(targets_put(w.s.conn, TARGET_PUBLISHER, "daily", &profile, &t, &e), 0);
    assert_string_equal(t.profile.title, "The Daily");
    assert_string_equal(t.profile.extra, "{\"a\":1}");
    assert_null(t.profile.url);
    assert_int_equal(t.items, 1);
    target_done(&t);
    target_profile_done(&profile);
    json_decref(o);
    o = json_loads("{\"url\":\"https://x.org/\"}", 0, NULL);
    assert_int_equal(target_profile_from_json(o, &profile, &p), 0);
    assert_int_equal(targets_put(w.s.conn, TARGET_PUBLISHER, "daily", &profile, &t, &e), 0);
    assert_null(t.profile.title);
    assert_null(t.profile.extra);
    assert_string_equal(t.profile.url, "https://x.org/");
    assert_int_equal(t.items, 1);
    target_done(&t);
    target_profile_done(&profile);
    json_decref(o);
    static const char *const wrong[] = {"{\"name\":\"x\"}", "{\"title\":5}", "{\"title\":\"\"}",
                                        "{\"icon\":\"x\"}", "{\"url\":[]}",  "{\"extra\":5}"};
    for (size_t i = 0; i < MEM_COUNT(wrong); i++) {
        o = json_loads(wrong[i], 0, NULL);
        assert_int_equal(target_profile_from_json(o, &profile, &p), -1);
        json_decref(o);
    }
    world_close(&w);
}

static void seed_list(struct world *w)
{
    static const struct {
        const char *id, *kind, *name;
        int followers;
    } rows[] = {{"p:alpha", "p", "alpha", 5}, {"p:al.x", "p", "al.x", 9}, {"p:beta", "p", "beta", 5},
                {"p:alma", "p", "alma", 5},   {"p:alXx", "p", "alXx", 1}, {"t:alpha", "t", "alpha", 7}};
    for (size_t i = 0; i < MEM_COUNT(rows); i++) {
        bson_error_t be;
        bson_t *d = BCON_NEW("_id", BCON_UTF8(rows[i].id), "kind", BCON_UTF8(rows[i].kind), "name",
                             BCON_UTF8(rows[i].name), "followers", BCON_INT64(rows[i].followers), "items",
                             BCON_INT64(0));
        assert_true(mongoc_collection_insert_one(mongo_coll(w->s.conn, COLL_TARGETS), d, NULL, NULL, &be));
        bson_destroy(d);
    }
}

static void assert_list(struct world *w, const char *prefix, size_t page, const char *expected)
{
    struct target out[10];
    struct buf names;
    struct err e;
    size_t n = page;
    char after[NAME_MAX_BYTES + 1] = "";
    int64_t followers = 0;
    buf_init(&names, 1000);
    assert_int_equal(mongo_conn_fresh(w->s.conn, NULL, &e), 0);
    while (n == page) {
        if (targets_list(w->s.conn, TARGET_PUBLISHER, prefix, followers, after[0] ? after : NULL, page, out,
                         &n, &e) != 0)
            fail_msg("list: %s", e.msg);
        for (size_t i = 0; i < n; i++) {
            buf_printf(&names, "%s ", out[i].name);
            snprintf(after, sizeof after, "%s", out[i].name);
            followers = out[i].followers;
            target_done(&out[i]);
        }
    }
    assert_string_equal(names.data != NULL ? names.data : "", expected);
    buf_done(&names);
}

static void a_list_goes_from_the_most_followed_down_page_by_page(void **state)
{
    struct world w;
    world_open(&w, state);
    seed_list(&w);
    for (size_t page = 1; page <= 6; page++) {
        assert_list(&w, "", page, "al.x alma alpha beta alXx ");
        assert_list(&w, "al", page, "al.x alma alpha alXx ");
        assert_list(&w, "al.", page, "al.x ");
        assert_list(&w, "\\", page, "");
        assert_list(&w, "z", page, "");
    }
    world_close(&w);
}

/* ---- turns ---- */

static bool is_pulled(struct world *w, enum target_kind kind, const char *name)
{
    struct target t = get(w, kind, name);
    bool pull = t.pull;
    target_done(&t);
    return pull;
}

static unsigned decide(struct world *w, int64_t threshold, int64_t most)
{
    struct turns_options o = {threshold, most};
    struct err e;
    unsigned n = 0;
    assert_int_equal(mongo_conn_fresh(w->s.conn, NULL, &e), 0);
    if (turns_decide(w->s.conn, &o, &n, &e) != 0)
        fail_msg("%s", e.msg);
    return n;
}

static void followed_by(struct world *w, const char *target, int from, int to)
{
    struct err e;
    char user[16];
    for (int i = from; i != to; i += from < to ? 1 : -1) {
        snprintf(user, sizeof user, "u%d", from < to ? i : i - 1);
        follow(w, user, target, from > to);
    }
    assert_int_equal(counts_recount(w->s.conn, target, NULL, &e), 0);
}

static void a_target_turns_at_the_threshold_and_back_well_below_it(void **state)
{
    struct world w;
    world_open(&w, state);
    followed_by(&w, "p:big", 0, 7);
    followed_by(&w, "t:big", 0, 8);
    assert_int_equal(decide(&w, 8, 10), 1);
    assert_false(is_pulled(&w, TARGET_PUBLISHER, "big"));
    assert_true(is_pulled(&w, TARGET_TOPIC, "big"));
    assert_int_equal(decide(&w, 8, 10), 0);
    followed_by(&w, "t:big", 8, 6);
    assert_int_equal(decide(&w, 8, 10), 0);
    assert_true(is_pulled(&w, TARGET_TOPIC, "big"));
    followed_by(&w, "t:big", 6, 5);
    assert_int_equal(decide(&w, 8, 10), 1);
    assert_false(is_pulled(&w, TARGET_TOPIC, "big"));
    followed_by(&w, "t:big", 5, 7);
    assert_int_equal(decide(&w, 8, 10), 0);
    world_close(&w);
}

static void the_largest_targets_are_pulled_when_there_are_too_many(void **state)
{
    struct world w;
    world_open(&w, state);
    followed_by(&w, "p:small", 0, 3);
    followed_by(&w, "p:large", 0, 5);
    followed_by(&w, "p:middle", 0, 4);
    assert_int_equal(decide(&w, 3, 2), 2);
    assert_true(is_pulled(&w, TARGET_PUBLISHER, "large"));
    assert_true(is_pulled(&w, TARGET_PUBLISHER, "middle"));
    assert_false(is_pulled(&w, TARGET_PUBLISHER, "small"));
    assert_int_equal(decide(&w, 0, 2), 2); /* no threshold: nothing is pulled */
    assert_false(is_pulled(&w, TARGET_PUBLISHER, "large"));
    world_close(&w);
}

static void turning_keeps_profile_and_counts(void **state)
{
    struct world w;
    world_open(&w, state);
    publish(&w, "big", "x");
    followed_by(&w, "p:big", 0, 3);
    assert_int_equal(decide(&w, 2, 10), 1);
    assert_counts(&w, TARGET_PUBLISHER, "big", 3, 1);
    followed_by(&w, "p:big", 3, 4);
    assert_true(is_pulled(&w, TARGET_PUBLISHER, "big"));
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_unknown_name_has_nulls_and_zeros),
        cmocka_unit_test(a_recount_finds_what_there_is),
        cmocka_unit_test(a_sweep_finds_all_that_is_wrong_and_nothing_else),
        cmocka_unit_test(what_a_write_marked_is_counted_by_the_thread),
        cmocka_unit_test(a_sweep_before_the_indexes_are_made_finds_nothing),
        cmocka_unit_test(a_sweep_walks_more_topics_than_one_answer_holds),
        cmocka_unit_test(a_first_sweep_mends_what_a_killed_process_left),
        cmocka_unit_test(a_profile_is_replaced_as_a_whole_and_keeps_the_counts),
        cmocka_unit_test(a_target_turns_at_the_threshold_and_back_well_below_it),
        cmocka_unit_test(the_largest_targets_are_pulled_when_there_are_too_many),
        cmocka_unit_test(turning_keeps_profile_and_counts),
        cmocka_unit_test(a_list_goes_from_the_most_followed_down_page_by_page),
    };
    return cmocka_run_group_tests(tests, fixture_group_setup_mongod, fixture_group_teardown);
}
