/* The content cache before a real MongoDB: what is kept, what is not, and what many threads see. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "common/clock.h"
#include "common/mem.h"
#include "feed-api/items_store.h"
#include "feed-api/metrics.h"
#include "tests/support/fixture.h"

#define CACHE_BYTES (1 << 20)

struct world {
    struct fixture *f;
    struct mongo *mongo;
    struct content *content;
    struct metrics *metrics;
    struct items s;
};

static struct mongo *mongo_open(struct fixture *f, const char *more)
{
    struct err e;
    struct mongo *m;
    char *uri = mem_printf("%s%s", fixture_mongodb_uri(f), more);
    struct mongo_options o = {.uri = uri, .app_name = "test", .pool_size = 20};
    assert_int_equal(mongo_new(&m, &o, &e), 0);
    free(uri);
    return m;
}

static void world_open(struct world *w, void **state)
{
    struct err e;
    *w = (struct world){.f = *state};
    fixture_fresh(w->f);
    w->mongo = mongo_open(w->f, "");
    w->metrics = feed_metrics_new();
    assert_int_equal(content_new(&w->content, CACHE_BYTES, w->metrics, &e), 0);
    w->s = (struct items){.ids = item_ids_new(), .now_ms = clock_wall_ms()};
    assert_int_equal(mongo_conn_get(w->mongo, &w->s.conn, &e), 0);
    mongo_conn_deadline(w->s.conn, 60000);
    assert_int_equal(mongo_schema_ensure(w->s.conn, &e), 0);
}

static void world_close(struct world *w)
{
    mongo_conn_put(w->s.conn);
    content_free(w->content);
    item_ids_free(w->s.ids);
    metrics_free(w->metrics);
    mongo_free(w->mongo);
}

static struct item make(const char *title, const char *body)
{
    struct item it = {.revision = 1, .live = true, .published_ms = 1000};
    it.publisher = mem_strdup("daily");
    it.title = mem_strdup(title);
    it.body = mem_strdup(body);
    snprintf(it.topics[it.n_topics++], sizeof it.topics[0], "sport");
    return it;
}

/* Stored behind the cache's back, unless s.content is set. */
static item_id store(struct world *w, const char *title)
{
    struct item it = make(title, "body");
    struct items_written out;
    struct err e;
    if (items_post(&w->s, &it, &out, &e) != 0)
        fail_msg("post: %s", e.msg);
    item_done(&it);
    return out.id;
}

static int32_t retitle(struct items *s, item_id id, const char *title)
{
    struct item it;
    struct items_written out;
    struct item_problem p = {0};
    struct err e;
    json_t *patch = json_pack("{s:s}", "title", title);
    if (items_get(s, id, &it, &e) != 0 || items_patch(s, &it, patch, 0, &out, &p, &e) != 0)
        return -1;
    item_done(&it);
    json_decref(patch);
    return out.revision;
}

static struct content_entry *fetch(struct world *w, item_id id, bool bypass)
{
    struct content_entry *entry;
    struct err e;
    if (content_fetch(w->content, w->s.conn, &id, 1, bypass, &entry, &e) != 0)
        fail_msg("fetch: %s", e.msg);
    return entry;
}

static void an_item_is_fetched_once_and_serialised_once(void **state)
{
    struct world w;
    world_open(&w, state);
    item_id id = store(&w, "Title");
    assert_null(content_find(w.content, id));
    struct content_entry *a = fetch(&w, id, false), *b = content_find(w.content, id),
                         *c = fetch(&w, id, false);
    assert_ptr_equal(a, b);
    assert_ptr_equal(a, c);
    assert_false(a->missing || a->deleted);
    assert_string_equal(a->publisher, "daily");
    assert_int_equal(a->n_topics, 1);
    assert_string_equal(a->topics[0], "sport");
    assert_int_equal(strlen(a->full), a->full_len);
    assert_int_equal(strlen(a->summary), a->summary_len);
    assert_non_null(strstr(a->full, "\"body\":\"body\""));
    assert_null(strstr(a->summary, "\"body\""));
    assert_int_equal(metrics_get(w.metrics, M_CONTENT, MC_MISS), 1);
    content_unref(a);
    content_unref(b);
    content_unref(c);
    world_close(&w);
}

static void many_ids_are_answered_in_their_order_also_twice(void **state)
{
    struct world w;
    struct content_entry *out[5];
    struct err e;
    world_open(&w, state);
    item_id a = store(&w, "a"), b = store(&w, "b");
    item_id ids[] = {b, 77, a, b, 77};
    for (int bypass = 0; bypass <= 1; bypass++) {
        assert_int_equal(content_fetch(w.content, w.s.conn, ids, 5, bypass, out, &e), 0);
        for (int i = 0; i < 5; i++) {
            assert_true(out[i]->id == ids[i]);
            assert_int_equal(out[i]->missing, ids[i] == 77);
            content_unref(out[i]);
        }
    }
    world_close(&w);
}

static void a_missing_item_is_not_remembered_as_missing(void **state)
{
    struct world w;
    world_open(&w, state);
    item_id id = store(&w, "a");
    struct content_entry *entry = fetch(&w, id + 1, false);
    assert_true(entry->missing);
    content_unref(entry);
    assert_null(content_find(w.content, id + 1));
    bson_t *copy =
        BCON_NEW("_id", BCON_INT64((int64_t)id + 1), "publisher", "p", "revision", BCON_INT32(1), "title",
                 "t", "body", "b", "published_at", BCON_DATE_TIME(1), "live", BCON_BOOL(true));
    bson_error_t be;
    assert_true(mongoc_collection_insert_one(mongo_coll(w.s.conn, COLL_ITEMS), copy, NULL, NULL, &be));
    bson_destroy(copy);
    entry = fetch(&w, id + 1, false);
    assert_false(entry->missing);
    content_unref(entry);
    world_close(&w);
}

static void an_older_body_never_takes_the_place_of_a_newer_one(void **state)
{
    struct world w;
    struct item it = make("three", "body");
    world_open(&w, state);
    it.id = 5;
    it.revision = 3;
    content_changed(w.content, 5, 3);
    content_put(w.content, &it);
    it.revision = 2;
    content_put(w.content, &it);
    struct content_entry *entry = content_find(w.content, 5);
    assert_int_equal(entry->revision, 3);
    content_unref(entry);
    content_changed(w.content, 5, 3);
    entry = content_find(w.content, 5);
    assert_non_null(entry);
    content_unref(entry);
    content_changed(w.content, 5, 4);
    assert_null(content_find(w.content, 5));
    it.revision = 3;
    content_put(w.content, &it);
    assert_null(content_find(w.content, 5));
    item_done(&it);
    world_close(&w);
}

static void past_the_cache_reads_what_is_stored(void **state)
{
    struct world w;
    world_open(&w, state);
    item_id id = store(&w, "one");
    content_unref(fetch(&w, id, false));
    assert_int_equal(retitle(&w.s, id, "two"), 2);
    struct content_entry *cached = fetch(&w, id, false), *read = fetch(&w, id, true);
    assert_int_equal(cached->revision, 1);
    assert_int_equal(read->revision, 2);
    content_unref(cached);
    content_unref(read);
    world_close(&w);
}

static void the_cache_stays_within_its_bytes(void **state)
{
    struct world w;
    char *body = mem_zero(1, 5001);
    memset(body, 'x', 5000);
    world_open(&w, state);
    struct item it = make("t", body);
    for (item_id id = 1; id <= 2000; id++) {
        it.id = id;
        content_put(w.content, &it);
        assert_true(metrics_get(w.metrics, M_CONTENT_BYTES, 0) <= CACHE_BYTES);
    }
    assert_true(metrics_get(w.metrics, M_CONTENT_EVICTED, 0) > 1000);
    assert_true(metrics_get(w.metrics, M_CONTENT_ENTRIES, 0) > 20);
    struct content_entry *newest = content_find(w.content, 2000);
    assert_non_null(newest);
    assert_null(content_find(w.content, 1));
    /* changes of items that nobody reads are bounded too, and new items leave nothing at all */
    for (item_id id = 10000; id < 60000; id++)
        content_changed(w.content, id, 2);
    assert_true(metrics_get(w.metrics, M_CONTENT_BYTES, 0) <= CACHE_BYTES);
    content_drop_all(w.content);
    for (item_id id = 10000; id < 60000; id++)
        content_changed(w.content, id, 1);
    assert_int_equal(metrics_get(w.metrics, M_CONTENT_BYTES, 0), 0);
    assert_int_equal(metrics_get(w.metrics, M_CONTENT_ENTRIES, 0), 0);
    assert_string_equal(newest->publisher, "daily"); /* who holds an entry keeps it */
    content_unref(newest);
    item_done(&it);
    free(body);
    world_close(&w);
}

static void put(struct world *w, item_id id, const char *body)
{
    struct item it = make("t", body);
    it.id = id;
    content_put(w->content, &it);
    item_done(&it);
}

static unsigned found(struct world *w, item_id from, item_id to)
{
    unsigned n = 0;
    for (item_id id = from; id < to; id++) {
        struct content_entry *entry = content_find(w->content, id);
        n += entry != NULL;
        if (entry != NULL)
            content_unref(entry);
    }
    return n;
}

/* A fifth of the cache or more is read by many; then somebody reads ten times the cache. asks: how often he
 * asks for each item; paging asks twice for what lies behind the end of a page. */
static void scan(void **state, int asks)
{
    struct world w;
    char *body = mem_zero(1, 1001);
    memset(body, 'x', 1000);
    world_open(&w, state);
    for (item_id id = 1; id <= 100; id++)
        put(&w, id, body);
    int64_t hundred = metrics_get(w.metrics, M_CONTENT_BYTES, 0);
    assert_true(hundred > CACHE_BYTES / 5 && hundred < CACHE_BYTES / 2);
    for (int i = 0; i < 2; i++)
        assert_int_equal(found(&w, 1, 101), 100);
    item_id end = 1000 + (item_id)(10 * 100 * CACHE_BYTES / hundred);
    for (item_id id = 1000; id < end; id++) {
        put(&w, id, body);
        assert_int_equal(found(&w, id, id + (asks > 1)), asks > 1);
        assert_true(metrics_get(w.metrics, M_CONTENT_BYTES, 0) <= CACHE_BYTES);
    }
    assert_int_equal(found(&w, 1, 101), 100);
    assert_true(found(&w, 1000, end) > 100); /* the rest of the cache is of use too */
    free(body);
    world_close(&w);
}

static void what_many_read_survives_a_scan(void **state)
{
    scan(state, 1);
}

static void what_many_read_survives_paging_through_everything(void **state)
{
    scan(state, 2);
}

/* Others are read, and again others: what nobody reads any more makes room for what they read now. */
static void what_is_read_no_more_goes_in_the_end(void **state)
{
    struct world w;
    char *body = mem_zero(1, 1001);
    memset(body, 'x', 1000);
    world_open(&w, state);
    for (item_id first = 1000; first < 11000; first += 50) {
        for (item_id id = first; id < first + 50; id++) {
            put(&w, id, body);
            assert_int_equal(found(&w, id, id + 1) + found(&w, id, id + 1), 2);
        }
        if (first > 1000)
            assert_int_equal(found(&w, first - 50, first + 50), 100);
        assert_true(metrics_get(w.metrics, M_CONTENT_BYTES, 0) <= CACHE_BYTES);
    }
    assert_int_equal(found(&w, 1000, 9000), 0);
    free(body);
    world_close(&w);
}

static void an_item_is_deflated_at_its_first_need_and_counted(void **state)
{
    struct world w;
    char *body = mem_zero(1, 3001);
    for (int i = 0; i < 3000; i++)
        body[i] = " deflate"[i * i / 7 % 8];
    world_open(&w, state);
    put(&w, 7, body);
    struct content_entry *entry = content_find(w.content, 7);
    int64_t before = metrics_get(w.metrics, M_CONTENT_BYTES, 0);
    assert_null(content_gzip(w.content, entry, false, false));
    const struct gzip_block *full = content_gzip(w.content, entry, false, true),
                            *summary = content_gzip(w.content, entry, true, true);
    assert_ptr_equal(content_gzip(w.content, entry, false, false), full);
    assert_ptr_equal(content_gzip(w.content, entry, false, true), full);
    assert_int_equal(full->plain_len, entry->full_len);
    assert_int_equal(summary->plain_len, entry->summary_len);
    assert_int_equal(metrics_get(w.metrics, M_CONTENT_BYTES, 0),
                     before + (int64_t)(gzip_block_bytes(full) + gzip_block_bytes(summary)));
    content_changed(w.content, 7, 2);
    assert_int_equal(metrics_get(w.metrics, M_CONTENT_BYTES, 0) < before, true);
    assert_int_equal(full->plain_len, entry->full_len); /* who holds the entry holds its blocks */
    content_unref(entry);
    /* of what is not in the cache any more nothing is counted */
    put(&w, 8, body);
    entry = content_find(w.content, 8);
    content_drop_all(w.content);
    assert_non_null(content_gzip(w.content, entry, false, true));
    assert_int_equal(metrics_get(w.metrics, M_CONTENT_BYTES, 0), 0);
    content_unref(entry);
    free(body);
    world_close(&w);
}

static void deflated_items_are_bounded_too(void **state)
{
    struct world w;
    char *body = mem_zero(1, 5001);
    for (int i = 0; i < 5000; i++)
        body[i] = (char)('0' + i * (i % 91) % 71);
    world_open(&w, state);
    for (item_id id = 1; id <= 500; id++) {
        put(&w, id, body);
        struct content_entry *entry = content_find(w.content, id);
        if (entry == NULL)
            continue;
        assert_non_null(content_gzip(w.content, entry, false, true));
        content_unref(entry);
        assert_true(metrics_get(w.metrics, M_CONTENT_BYTES, 0) <= CACHE_BYTES);
    }
    assert_true(metrics_get(w.metrics, M_CONTENT_EVICTED, 0) > 100);
    content_drop_all(w.content);
    assert_int_equal(metrics_get(w.metrics, M_CONTENT_BYTES, 0), 0);
    free(body);
    world_close(&w);
}

#define GZIP_THREADS 4
#define GZIP_ITEMS   50

static void *deflate_all(void *arg)
{
    struct world *w = arg;
    for (item_id id = 1; id <= GZIP_ITEMS; id++) {
        struct content_entry *entry = content_find(w->content, id);
        if (entry == NULL)
            continue;
        const struct gzip_block *b = content_gzip(w->content, entry, id % 2, true);
        if (b == NULL || b != content_gzip(w->content, entry, id % 2, false))
            abort();
        content_unref(entry);
    }
    return NULL;
}

static void threads_that_deflate_the_same_item_share_it(void **state)
{
    struct world w;
    pthread_t threads[GZIP_THREADS];
    world_open(&w, state);
    for (item_id id = 1; id <= GZIP_ITEMS; id++)
        put(&w, id, "the same body of the same item, the same body of the same item");
    for (int i = 0; i < GZIP_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, deflate_all, &w), 0);
    for (int i = 0; i < GZIP_THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(found(&w, 1, GZIP_ITEMS + 1), GZIP_ITEMS);
    content_drop_all(w.content);
    assert_int_equal(metrics_get(w.metrics, M_CONTENT_BYTES, 0), 0);
    world_close(&w);
}

static void words_are_those_of_title_and_body(void **state)
{
    struct world w;
    uint64_t hash;
    world_open(&w, state);
    struct item it = make("The \"CAT\"", "sat\non a mat");
    it.id = 9;
    content_put(w.content, &it);
    struct content_entry *entry = content_find(w.content, 9);
    assert_int_equal(text_word_hash("cat", &hash), 0);
    assert_true(word_set_has(content_words(entry), hash));
    assert_int_equal(text_word_hash("Mat", &hash), 0);
    assert_true(word_set_has(content_words(entry), hash));
    assert_int_equal(text_word_hash("sport", &hash), 0); /* a topic is no word */
    assert_false(word_set_has(content_words(entry), hash));
    assert_ptr_equal(content_words(entry), content_words(entry));
    content_unref(entry);
    item_done(&it);
    world_close(&w);
}

/* ---- with other threads ---- */

static bool has_stopped(void *arg)
{
    const struct server *s = arg;
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", (int)server_pid(s));
    DIR *tasks = opendir(path);
    assert_non_null(tasks);
    bool stopped = true;
    for (struct dirent *d; (d = readdir(tasks)) != NULL && stopped;) {
        char stat[128], state = 'T';
        if (d->d_name[0] == '.')
            continue;
        snprintf(stat, sizeof stat, "%s/%.20s/stat", path, d->d_name);
        FILE *f = fopen(stat, "r");
        if (f != NULL && fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
            state = '?';
        if (f != NULL)
            fclose(f);
        stopped = state == 'T';
    }
    closedir(tasks);
    return stopped;
}

/* A signal takes its time to reach all threads: nothing is answered any more after this. */
static void pause_mongod(struct world *w)
{
    server_pause(fixture_mongod(w->f));
    assert_true(fixture_until(has_stopped, fixture_mongod(w->f), 10000));
}

struct asker {
    struct world *w;
    struct mongo *mongo;
    pthread_t thread;
    item_id id;
    int rc;
    struct content_entry *entry;
    struct err e;
};

static void *ask(void *arg)
{
    struct asker *a = arg;
    struct mongo_conn *conn;
    a->rc = mongo_conn_get(a->mongo, &conn, &a->e);
    if (a->rc != 0)
        return NULL;
    mongo_conn_deadline(conn, 20000);
    a->rc = content_fetch(a->w->content, conn, &a->id, 1, false, &a->entry, &a->e);
    mongo_conn_put(conn);
    return NULL;
}

static void start(struct asker *a, struct world *w, struct mongo *m, item_id id)
{
    *a = (struct asker){.w = w, .mongo = m, .id = id};
    assert_int_equal(pthread_create(&a->thread, NULL, ask, a), 0);
}

struct count {
    struct world *w;
    size_t row, value;
    int64_t least;
};

static bool counted(void *arg)
{
    struct count *c = arg;
    return metrics_get(c->w->metrics, c->row, c->value) >= c->least;
}

static void wait_for(struct world *w, size_t row, size_t value, int64_t least)
{
    struct count c = {w, row, value, least};
    assert_true(fixture_until(counted, &c, 10000));
}

static void equal_fetches_are_one(void **state)
{
    struct world w;
    struct asker a[4];
    world_open(&w, state);
    item_id id = store(&w, "one");
    pause_mongod(&w);
    start(&a[0], &w, w.mongo, id);
    wait_for(&w, M_CONTENT, MC_MISS, 1);
    for (int i = 1; i < 4; i++)
        start(&a[i], &w, w.mongo, id);
    wait_for(&w, M_CONTENT_JOINED, 0, 3);
    server_continue(fixture_mongod(w.f));
    for (int i = 0; i < 4; i++) {
        pthread_join(a[i].thread, NULL);
        assert_int_equal(a[i].rc, 0);
        assert_ptr_equal(a[i].entry, a[0].entry);
    }
    for (int i = 0; i < 4; i++)
        content_unref(a[i].entry);
    world_close(&w);
}

static void what_was_read_before_a_change_is_not_kept(void **state)
{
    struct world w;
    struct asker before, after;
    world_open(&w, state);
    item_id id = store(&w, "one");
    pause_mongod(&w);
    start(&before, &w, w.mongo, id);
    wait_for(&w, M_CONTENT, MC_MISS, 1);
    content_changed(w.content, id, 0);
    start(&after, &w, w.mongo, id);
    wait_for(&w, M_CONTENT, MC_MISS, 2);
    assert_int_equal(metrics_get(w.metrics, M_CONTENT_JOINED, 0),
                     0); /* who asks later is not handed the older body */
    content_changed(w.content, id, 0);
    server_continue(fixture_mongod(w.f));
    pthread_join(before.thread, NULL);
    pthread_join(after.thread, NULL);
    assert_int_equal(before.rc, 0);
    assert_int_equal(after.rc, 0);
    assert_null(content_find(w.content, id));
    content_unref(before.entry);
    content_unref(after.entry);
    world_close(&w);
}

static void whoever_joined_a_fetch_that_failed_reads_for_itself(void **state)
{
    struct world w;
    struct asker hasty, patient;
    world_open(&w, state);
    item_id id = store(&w, "one");
    const char *sep = strchr(fixture_mongodb_uri(w.f), '?') != NULL ? "&" : "?";
    char *more = mem_printf("%ssocketTimeoutMS=2000&serverSelectionTimeoutMS=500&connectTimeoutMS=500", sep);
    struct mongo *m = mongo_open(w.f, more);
    struct mongo_conn *warm;
    struct err e;
    assert_int_equal(mongo_conn_get(m, &warm, &e), 0);
    assert_int_equal(mongo_conn_fresh(warm, NULL, &e), 0);
    mongo_conn_put(warm);
    pause_mongod(&w);
    start(&hasty, &w, m, id);
    wait_for(&w, M_CONTENT, MC_MISS, 1);
    start(&patient, &w, w.mongo, id);
    wait_for(&w, M_CONTENT_JOINED, 0, 1);
    pthread_join(hasty.thread, NULL);
    assert_int_equal(hasty.rc, -1);
    server_continue(fixture_mongod(w.f));
    pthread_join(patient.thread, NULL);
    if (patient.rc != 0)
        fail_msg("%s", patient.e.msg);
    assert_int_equal(patient.entry->revision, 1);
    content_unref(patient.entry);
    mongo_free(m);
    free(more);
    world_close(&w);
}

#define RACE_ITEMS   8
#define RACE_WRITES  60
#define RACE_READERS 3

struct race {
    struct world *w;
    item_id ids[RACE_ITEMS];
    _Atomic int32_t acknowledged[RACE_ITEMS];
    atomic_bool over;
    atomic_int too_old, failed;
};

static void *read_race(void *arg)
{
    struct race *r = arg;
    struct mongo_conn *conn;
    struct err e;
    if (mongo_conn_get(r->w->mongo, &conn, &e) != 0)
        return NULL;
    while (!atomic_load(&r->over)) {
        int32_t least[RACE_ITEMS];
        struct content_entry *out[RACE_ITEMS];
        for (int i = 0; i < RACE_ITEMS; i++)
            least[i] = atomic_load(&r->acknowledged[i]);
        mongo_conn_deadline(conn, 10000);
        if (content_fetch(r->w->content, conn, r->ids, RACE_ITEMS, false, out, &e) != 0) {
            atomic_fetch_add(&r->failed, 1);
            continue;
        }
        for (int i = 0; i < RACE_ITEMS; i++) {
            if (out[i]->revision < least[i])
                atomic_fetch_add(&r->too_old, 1);
            content_unref(out[i]);
        }
    }
    mongo_conn_put(conn);
    return NULL;
}

static void P5_no_read_is_older_than_a_write_answered_before_it(void **state)
{
    struct world w;
    struct race *r = mem_zero(1, sizeof *r);
    pthread_t readers[RACE_READERS];
    world_open(&w, state);
    r->w = &w;
    w.s.content = w.content;
    for (int i = 0; i < RACE_ITEMS; i++) {
        r->ids[i] = store(&w, "first");
        r->acknowledged[i] = 1;
    }
    for (int i = 0; i < RACE_READERS; i++)
        assert_int_equal(pthread_create(&readers[i], NULL, read_race, r), 0);
    for (int n = 0; n < RACE_WRITES; n++) {
        char title[32];
        int i = n % RACE_ITEMS;
        snprintf(title, sizeof title, "title %d", n);
        int32_t revision = retitle(&w.s, r->ids[i], title);
        assert_true(revision > 1);
        atomic_store(&r->acknowledged[i], revision);
        /* half of the time the cache has forgotten all: then only the time of the reads keeps them new enough
         */
        if (n % 2 == 0)
            content_drop_all(w.content);
    }
    atomic_store(&r->over, true);
    for (int i = 0; i < RACE_READERS; i++)
        pthread_join(readers[i], NULL);
    assert_int_equal(atomic_load(&r->too_old), 0);
    assert_int_equal(atomic_load(&r->failed), 0);
    free(r);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_item_is_fetched_once_and_serialised_once),
        cmocka_unit_test(many_ids_are_answered_in_their_order_also_twice),
        cmocka_unit_test(a_missing_item_is_not_remembered_as_missing),
        cmocka_unit_test(an_older_body_never_takes_the_place_of_a_newer_one),
        cmocka_unit_test(past_the_cache_reads_what_is_stored),
        cmocka_unit_test(the_cache_stays_within_its_bytes),
        cmocka_unit_test(what_many_read_survives_a_scan),
        cmocka_unit_test(what_many_read_survives_paging_through_everything),
        cmocka_unit_test(what_is_read_no_more_goes_in_the_end),
        cmocka_unit_test(an_item_is_deflated_at_its_first_need_and_counted),
        cmocka_unit_test(deflated_items_are_bounded_too),
        cmocka_unit_test(threads_that_deflate_the_same_item_share_it),
        cmocka_unit_test(words_are_those_of_title_and_body),
        cmocka_unit_test(equal_fetches_are_one),
        cmocka_unit_test(what_was_read_before_a_change_is_not_kept),
        cmocka_unit_test(whoever_joined_a_fetch_that_failed_reads_for_itself),
        cmocka_unit_test(P5_no_read_is_older_than_a_write_answered_before_it),
    };
    return cmocka_run_group_tests(tests, fixture_group_setup_mongod, fixture_group_teardown);
}
