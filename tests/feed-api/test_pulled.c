/* test_pulled.c - items of pulled targets in memory: read from a real MongoDB, kept up from the log, merged.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "feed-api/metrics.h"
#include "feed-api/pulled.h"
#include "tests/support/fixture.h"

#define KEEP 5
#define MAX  3
#define ANY  (ITEM_ID_MAX + 1)

struct world {
    struct fixture *f;
    struct mongo *mongo;
    struct mongo_conn *conn;
    struct metrics *metrics;
    struct pulled *p;
    ts_t t;         /* of changes told */
    ts_t page_time; /* of the timelines that pages are made of */
};

static struct world w;

static int setup(void **state)
{
    struct err e;
    w = (struct world){.f = *state, .t = 1, .page_time = UINT64_MAX};
    fixture_fresh(w.f);
    struct mongo_options o = {.uri = fixture_mongodb_uri(w.f), .app_name = "test", .pool_size = 4};
    if (mongo_new(&w.mongo, &o, &e) != 0 || mongo_conn_get(w.mongo, &w.conn, &e) != 0)
        return -1;
    mongo_conn_deadline(w.conn, 60000);
    if (mongo_schema_ensure(w.conn, &e) != 0)
        return -1;
    w.metrics = feed_metrics_new();
    w.p = pulled_new(KEEP, MAX, w.metrics);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    pulled_free(w.p);
    metrics_free(w.metrics);
    mongo_conn_put(w.conn);
    mongo_free(w.mongo);
    return 0;
}

/* ---- the store and the log ---- */

static void store(item_id id, const char *publisher, const char *topic)
{
    bson_t *d = BCON_NEW("_id", BCON_INT64((int64_t)id), "publisher", BCON_UTF8(publisher), "topics", "[",
                         BCON_UTF8(topic), "]", "live", BCON_BOOL(true));
    bson_t opts = BSON_INITIALIZER;
    bson_error_t be;
    mongo_write_opts(w.conn, &opts);
    if (!mongoc_collection_insert_one(mongo_coll(w.conn, COLL_ITEMS), d, &opts, NULL, &be))
        fail_msg("%s", be.message);
    bson_destroy(d);
    bson_destroy(&opts);
}

static void add_topic(char (*at)[NAME_MAX_BYTES + 1], unsigned *n, const char *topic)
{
    if (topic)
        snprintf(at[(*n)++], sizeof *at, "%s", topic);
}

static void told_new(item_id id, const char *publisher, const char *topic)
{
    struct change *c = mem_zero(1, sizeof *c);
    *c = (struct change){.kind = CHANGE_ITEM, .t = ++w.t, .item = id, .inserted = true, .item_told = true};
    snprintf(c->publisher, sizeof c->publisher, "%s", publisher);
    add_topic(c->topics, &c->n_topics, topic);
    pulled_take(w.p, c);
    free(c);
}

static void told_edit(item_id id, const char *before, const char *topic, bool deleted, bool told)
{
    struct change *c = mem_zero(1, sizeof *c);
    *c = (struct change){.kind = CHANGE_ITEM,
                         .t = ++w.t,
                         .item = id,
                         .topics_changed = true,
                         .topics_told = told,
                         .deleted = deleted};
    add_topic(c->topics_before, &c->n_topics_before, before);
    if (told)
        add_topic(c->topics, &c->n_topics, topic);
    pulled_take(w.p, c);
    free(c);
}

/* ---- pages ---- */

static void load(const char *list)
{
    struct err e;
    mongo_conn_deadline(w.conn, 10000);
    if (pulled_load(w.p, w.conn, list, &e) != 0)
        fail_msg("%s", e.msg);
    w.t = ts_max(w.t, mongo_conn_time(w.conn)); /* what is told next is later */
}

/* The merge of a timeline with these ids (0 at the end) and the list; "-" when something is not held. */
static const char *merged(const char *list, item_id before, size_t n, item_id floor, bool at_floor,
                          const item_id *ids)
{
    static char out[400];
    struct timeline t = {
        .exists = true, .ready = true, .floor = floor, .at_floor = at_floor, .r = w.page_time};
    while (ids[t.n])
        t.n++;
    t.ids = mem_alloc((t.n + 1) * sizeof *t.ids);
    memcpy(t.ids, ids, t.n * sizeof *t.ids);
    t.pulls = mem_strdup(list);
    size_t len = 0;
    strcpy(out, "-");
    if (pulled_merge(w.p, before, n, &t)) {
        out[0] = '\0';
        for (size_t i = 0; i < t.n; i++)
            len += (size_t)snprintf(out + len, sizeof out - len, "%llu ", (unsigned long long)t.ids[i]);
        snprintf(out + len, sizeof out - len, "%s%llu", t.at_floor ? "f" : "...f",
                 (unsigned long long)t.floor);
    }
    timeline_done(&t);
    return out;
}

#define MERGED(list, before, n, floor, at_floor, ...)                                                        \
    merged(list, before, n, floor, at_floor, (const item_id[]){__VA_ARGS__})

static void what_is_not_held_is_told_and_leaves_the_timeline_alone(void **state)
{
    (void)state;
    assert_string_equal(MERGED("\np:big\n", ANY, 10, 0, true, 50, 40, 0), "-");
    store(45, "big", "x");
    store(60, "big", "x");
    store(61, "other", "big");
    load("\np:big\n");
    assert_string_equal(MERGED("\np:big\n", ANY, 10, 0, true, 50, 40, 0), "60 50 45 40 f0");
    assert_string_equal(MERGED("\np:big\nt:big\n", ANY, 10, 0, true, 50, 40, 0), "-");
    load("\np:big\nt:big\n");
    assert_string_equal(MERGED("\np:big\nt:big\n", ANY, 10, 0, true, 50, 40, 0), "61 60 50 45 40 f0");
    assert_int_equal(metrics_get(w.metrics, M_PULLED_LOADS, 0), 2);
    assert_int_equal(metrics_get(w.metrics, M_PULLED_TARGETS, 0), 2);
}

static void an_item_that_is_pushed_and_pulled_shows_once(void **state)
{
    (void)state;
    store(60, "big", "x");
    store(50, "big", "x");
    load("\np:big\nt:x\n");
    assert_string_equal(MERGED("\np:big\nt:x\n", ANY, 10, 0, true, 60, 50, 40, 0), "60 50 40 f0");
}

static void the_page_is_complete_above_the_largest_floor(void **state)
{
    (void)state;
    for (item_id id = 10; id <= 80; id += 10)
        store(id, "big", "x");
    load("\np:big\n");
    /* of 80 to 10 the newest five are kept: what is at or below 30 is not known to be all */
    assert_string_equal(MERGED("\np:big\n", ANY, 10, 5, true, 75, 35, 25, 0), "80 75 70 60 50 40 35 f30");
    assert_string_equal(MERGED("\np:big\n", ANY, 10, 45, true, 75, 46, 0), "80 75 70 60 50 46 f45");
    assert_string_equal(MERGED("\np:big\n", 31, 10, 5, true, 25, 0), "f30");
    assert_string_equal(MERGED("\np:big\n", 30, 10, 5, true, 0), "f30");
}

static void only_what_the_timeline_covers_is_merged(void **state)
{
    (void)state;
    store(79, "big", "x");
    store(20, "big", "x");
    load("\np:big\n");
    /* three were asked for, three came: below 60 the timeline was not read */
    assert_string_equal(MERGED("\np:big\n", ANY, 3, 0, false, 80, 70, 60, 0), "80 79 70 ...f0");
    assert_string_equal(MERGED("\np:big\n", 70, 3, 0, false, 60, 50, 40, 0), "60 50 40 ...f0");
    assert_string_equal(MERGED("\np:big\n", 40, 3, 0, true, 30, 0), "30 20 f0");
    assert_string_equal(MERGED("\np:big\n", ANY, 3, 0, true, 80, 70, 0), "80 79 70 ...f0");
}

static void the_log_keeps_it_up_to_date(void **state)
{
    (void)state;
    store(50, "big", "x");
    load("\np:big\nt:x\nt:y\n");
    told_new(60, "big", "x");
    told_new(60, "big", "x");
    told_new(55, "big", "y"); /* late */
    told_new(70, "other", "z");
    assert_string_equal(MERGED("\np:big\n", ANY, 10, 0, true, 0), "60 55 50 f0");
    assert_string_equal(MERGED("\nt:x\n", ANY, 10, 0, true, 0), "60 50 f0");
    told_edit(60, "x", "y", false, true);
    assert_string_equal(MERGED("\nt:x\n", ANY, 10, 0, true, 0), "50 f0");
    assert_string_equal(MERGED("\nt:y\n", ANY, 10, 0, true, 0), "60 55 f0");
    told_edit(55, "y", NULL, true, false);
    assert_string_equal(MERGED("\nt:y\n", ANY, 10, 0, true, 0), "60 f0");
}

/* It may be pushed as what it is in now, and the timeline says by its time that this was not done in it. */
static void what_went_to_other_topics_stays_for_older_timelines(void **state)
{
    (void)state;
    store(50, "big", "x");
    store(40, "big", "x");
    load("\nt:x\n");
    told_new(60, "big", "x");
    told_edit(50, "x", "y", false, true);
    told_edit(40, "x", NULL, true, false); /* nobody will see it again */
    w.page_time = w.t - 2;
    assert_string_equal(MERGED("\nt:x\n", ANY, 10, 0, true, 45, 0), "60 50 45 f0");
    assert_string_equal(MERGED("\nt:x\n", ANY, 10, 0, true, 50, 0), "60 50 f0");
    assert_string_equal(MERGED("\nt:x\n", ANY, 2, 0, true, 45, 0), "60 50 ...f0");
    assert_string_equal(MERGED("\nt:x\n", ANY, 1, 0, true, 45, 0), "60 ...f0");
    assert_string_equal(MERGED("\nt:x\n", 50, 10, 0, true, 45, 0), "45 f0");
    assert_string_equal(MERGED("\nt:x\n", ANY, 10, 50, true, 0), "60 f50");
    w.page_time = w.t - 1;
    assert_string_equal(MERGED("\nt:x\n", ANY, 10, 0, true, 45, 0), "60 45 f0");
}

static void what_was_read_later_than_the_timeline_is_not_merged(void **state)
{
    (void)state;
    store(50, "big", "x");
    told_new(60, "big", "x");
    ts_t early = w.t;
    load("\nt:x\n");
    assert_string_equal(MERGED("\nt:x\n", ANY, 10, 0, true, 0), "50 f0");
    w.page_time = early; /* what left before it was read may not be told yet */
    assert_string_equal(MERGED("\nt:x\n", ANY, 10, 0, true, 0), "-");
    told_edit(55, "x", "y", false, true);
    assert_string_equal(MERGED("\nt:x\n", ANY, 10, 0, true, 0), "55 50 f0");
    w.page_time = early - 1; /* what left in between never will */
    assert_string_equal(MERGED("\nt:x\n", ANY, 10, 0, true, 0), "-");
    for (item_id id = 100; id < 140; id++) /* too many to remember */
        told_edit(id, "x", "y", false, true);
    w.page_time = early;
    assert_string_equal(MERGED("\nt:x\n", ANY, 10, 0, true, 0), "-");
    w.page_time = w.t - 2;
    assert_string_equal(MERGED("\nt:x\n", ANY, 10, 0, true, 0), "139 138 50 f0");
}

static void topics_that_are_not_told_make_topics_be_read_again(void **state)
{
    (void)state;
    store(50, "big", "x");
    load("\np:big\nt:x\nt:y\n");
    told_edit(50, "x", NULL, false, false);
    assert_string_equal(MERGED("\np:big\n", ANY, 10, 0, true, 0), "50 f0");
    assert_string_equal(MERGED("\nt:y\n", ANY, 10, 0, true, 0), "-");
}

static void more_than_is_kept_raises_the_floor(void **state)
{
    (void)state;
    store(50, "big", "x");
    load("\np:big\n");
    for (item_id id = 60; id <= 100; id += 10)
        told_new(id, "big", "x");
    assert_string_equal(MERGED("\np:big\n", ANY, 10, 0, true, 0), "100 90 80 70 60 f50");
    told_new(45, "big", "x"); /* below: whoever asks reads it from the store */
    told_new(50, "big", "x");
    assert_string_equal(MERGED("\np:big\n", ANY, 10, 0, true, 0), "100 90 80 70 60 f50");
}

static void the_least_recently_met_make_room(void **state)
{
    (void)state;
    load("\np:a\np:b\np:c\n");
    assert_string_equal(MERGED("\np:a\n", ANY, 10, 0, true, 0), "f0");
    load("\np:d\n");
    assert_string_equal(MERGED("\np:b\n", ANY, 10, 0, true, 0), "-");
    assert_string_equal(MERGED("\np:a\np:c\np:d\n", ANY, 10, 0, true, 0), "f0");
    assert_int_equal(metrics_get(w.metrics, M_PULLED_TARGETS, 0), MAX);
}

static void a_lost_log_forgets_everything(void **state)
{
    (void)state;
    store(50, "big", "x");
    load("\np:big\n");
    pulled_drop_all(w.p, mongo_conn_time(w.conn));
    assert_string_equal(MERGED("\np:big\n", ANY, 10, 0, true, 0), "-");
    load("\np:big\n");
    assert_string_equal(MERGED("\np:big\n", ANY, 10, 0, true, 0), "50 f0");
}

/* A loader waits for MongoDB while the log goes on: what it tells meanwhile is not lost, nor is what it takes
 * away. */
struct loading {
    pthread_t thread;
    int rc;
};

static void *load_in_a_thread(void *arg)
{
    struct loading *l = arg;
    struct mongo_conn *c;
    struct err e;
    l->rc = -1;
    if (mongo_conn_get(w.mongo, &c, &e) != 0)
        return NULL;
    mongo_conn_deadline(c, 20000);
    l->rc = pulled_load(w.p, c, "\np:big\nt:x\n", &e);
    mongo_conn_put(c);
    return NULL;
}

static void what_the_log_tells_while_loading_is_kept(void **state)
{
    (void)state;
    store(50, "big", "x");
    store(40, "big", "x");
    for (int round = 0; round < 20; round++) {
        struct loading l[2];
        pulled_drop_all(w.p, mongo_conn_time(w.conn));
        w.t = 1; /* or so much would be told that it is later than MongoDB's time */
        for (int i = 0; i < 2; i++)
            assert_int_equal(pthread_create(&l[i].thread, NULL, load_in_a_thread, &l[i]), 0);
        for (int i = 0; i < 400; i++) {
            told_new(60, "big", "x");
            told_edit(60, "x", NULL, true, false);
            told_new(70, "big", "x");
        }
        for (int i = 0; i < 2; i++) {
            pthread_join(l[i].thread, NULL);
            assert_int_equal(l[i].rc, 0);
        }
        load("\np:big\nt:x\n"); /* one that met too much meanwhile was given up */
        told_new(70, "big", "x");
        assert_string_equal(MERGED("\nt:x\n", ANY, 10, 0, true, 0), "70 50 40 f0");
    }
}

int main(void)
{
#define FRESH(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        FRESH(what_is_not_held_is_told_and_leaves_the_timeline_alone),
        FRESH(an_item_that_is_pushed_and_pulled_shows_once),
        FRESH(the_page_is_complete_above_the_largest_floor),
        FRESH(only_what_the_timeline_covers_is_merged),
        FRESH(the_log_keeps_it_up_to_date),
        FRESH(what_went_to_other_topics_stays_for_older_timelines),
        FRESH(what_was_read_later_than_the_timeline_is_not_merged),
        FRESH(topics_that_are_not_told_make_topics_be_read_again),
        FRESH(more_than_is_kept_raises_the_floor),
        FRESH(the_least_recently_met_make_room),
        FRESH(a_lost_log_forgets_everything),
        FRESH(what_the_log_tells_while_loading_is_kept),
    };
    return cmocka_run_group_tests_name("feed-api/pulled", tests, fixture_group_setup_mongod,
                                       fixture_group_teardown);
}
