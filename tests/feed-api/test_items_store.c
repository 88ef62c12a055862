/* Items in a real MongoDB: published once, revised, deleted, and found again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "common/clock.h"
#include "common/mem.h"
#include "feed-api/items_store.h"
#include "feed-api/metrics.h"
#include "tests/support/fixture.h"

#define DATE INT64_C(1700000000000)

/* What one test works with: a database of its own. */
struct world {
    struct fixture *f;
    struct mongo *mongo;
    struct item_ids *ids;
    struct content *content;
    struct metrics *metrics;
    struct items s;
};

static void world_open(struct world *w, void **state)
{
    struct err e;
    *w = (struct world){.f = *state};
    fixture_fresh(w->f);
    struct mongo_options o = {.uri = fixture_mongodb_uri(w->f), .app_name = "test", .pool_size = 20};
    assert_int_equal(mongo_new(&w->mongo, &o, &e), 0);
    w->ids = item_ids_new();
    w->metrics = feed_metrics_new();
    assert_int_equal(content_new(&w->content, 10 << 20, w->metrics, &e), 0);
    w->s = (struct items){
        .ids = w->ids, .content = w->content, .metrics = w->metrics, .now_ms = clock_wall_ms()};
    assert_int_equal(mongo_conn_get(w->mongo, &w->s.conn, &e), 0);
    mongo_conn_deadline(w->s.conn, 60000);
    if (mongo_schema_ensure(w->s.conn, &e) != 0)
        fail_msg("schema: %s", e.msg);
}

static void world_close(struct world *w)
{
    mongo_conn_put(w->s.conn);
    content_free(w->content);
    item_ids_free(w->ids);
    metrics_free(w->metrics);
    mongo_free(w->mongo);
}

static struct item make(const char *publisher, const char *external_id, const char *title, const char *topic)
{
    struct item it = {.revision = 1, .live = true, .published_ms = DATE};
    it.publisher = mem_strdup(publisher);
    it.external_id = mem_strdup(external_id);
    it.title = mem_strdup(title);
    it.body = mem_strdup("body");
    if (topic != NULL)
        snprintf(it.topics[it.n_topics++], sizeof it.topics[0], "%s", topic);
    return it;
}

static struct items_written post(struct items *s, const char *external_id, const char *title,
                                 const char *topic)
{
    struct item it = make("daily", external_id, title, topic);
    struct items_written w;
    struct err e;
    if (items_post(s, &it, &w, &e) != 0)
        fail_msg("post: %s", e.msg);
    item_done(&it);
    return w;
}

static int64_t count_items(struct world *w)
{
    bson_t filter = BSON_INITIALIZER, opts = BSON_INITIALIZER;
    bson_error_t be;
    mongo_read_opts(w->s.conn, &opts);
    int64_t n =
        mongoc_collection_count_documents(mongo_coll(w->s.conn, COLL_ITEMS), &filter, &opts, NULL, NULL, &be);
    bson_destroy(&filter);
    bson_destroy(&opts);
    return n;
}

static bson_t *document(struct world *w, item_id id)
{
    bson_t *filter = BCON_NEW("_id", BCON_INT64((int64_t)id)), opts = BSON_INITIALIZER;
    mongo_read_opts(w->s.conn, &opts);
    mongoc_cursor_t *cursor =
        mongoc_collection_find_with_opts(mongo_coll(w->s.conn, COLL_ITEMS), filter, &opts, NULL);
    const bson_t *doc;
    bson_t *copy = mongoc_cursor_next(cursor, &doc) ? bson_copy(doc) : NULL;
    mongoc_cursor_destroy(cursor);
    bson_destroy(filter);
    bson_destroy(&opts);
    assert_non_null(copy);
    return copy;
}

static void P2_a_repeat_is_the_same_item(void **state)
{
    struct world w;
    world_open(&w, state);
    struct items_written first = post(&w.s, "a", "one", "sport");
    assert_int_equal(first.result, ITEMS_CREATED);
    assert_int_equal(first.revision, 1);
    assert_true(first.position != 0);
    assert_int_equal(ids_time_ms(first.id), DATE);
    struct items_written again = post(&w.s, "a", "one", "sport");
    assert_int_equal(again.result, ITEMS_UNCHANGED);
    assert_true(again.id == first.id);
    assert_int_equal(again.revision, 1);
    assert_true(again.position >= first.position);
    struct items_written changed = post(&w.s, "a", "two", "sport");
    assert_int_equal(changed.result, ITEMS_REVISED);
    assert_true(changed.id == first.id);
    assert_int_equal(changed.revision, 2);
    assert_int_equal(count_items(&w), 1);
    assert_int_equal(metrics_get(w.metrics, M_ITEM_WRITES, MW_CREATED), 1);
    assert_int_equal(metrics_get(w.metrics, M_ITEM_WRITES, MW_UNCHANGED), 1);
    assert_int_equal(metrics_get(w.metrics, M_ITEM_WRITES, MW_REVISED), 1);
    world_close(&w);
}

static void without_an_external_id_each_post_is_an_item(void **state)
{
    struct world w;
    world_open(&w, state);
    struct items_written a = post(&w.s, NULL, "one", NULL), b = post(&w.s, NULL, "one", NULL);
    assert_int_equal(a.result, ITEMS_CREATED);
    assert_int_equal(b.result, ITEMS_CREATED);
    assert_true(a.id != b.id);
    world_close(&w);
}

struct racer {
    struct world *w;
    pthread_t thread;
    struct items_written out;
    struct err e;
    int rc;
    bool same; /* all send the same content */
    int number;
};

static void *race(void *arg)
{
    struct racer *r = arg;
    struct items s = r->w->s;
    char title[32];
    r->rc = mongo_conn_get(r->w->mongo, &s.conn, &r->e);
    if (r->rc != 0)
        return NULL;
    mongo_conn_deadline(s.conn, 60000);
    snprintf(title, sizeof title, "title %d", r->same ? 0 : r->number);
    struct item it = make("daily", "raced", title, NULL);
    r->rc = items_post(&s, &it, &r->out, &r->e);
    item_done(&it);
    mongo_conn_put(s.conn);
    return NULL;
}

static void run_race(struct world *w, struct racer *racers, int n, bool same)
{
    for (int i = 0; i < n; i++) {
        racers[i] = (struct racer){.w = w, .same = same, .number = i};
        assert_int_equal(pthread_create(&racers[i].thread, NULL, race, &racers[i]), 0);
    }
    for (int i = 0; i < n; i++) {
        pthread_join(racers[i].thread, NULL);
        if (racers[i].rc != 0)
            fail_msg("racer %d: %s", i, racers[i].e.msg);
        assert_true(racers[i].out.id == racers[0].out.id);
    }
}

static void P2_sixteen_equal_posts_at_once_are_one_item(void **state)
{
    struct world w;
    struct racer racers[16];
    int created = 0;
    world_open(&w, state);
    run_race(&w, racers, 16, true);
    for (int i = 0; i < 16; i++)
        created += racers[i].out.result == ITEMS_CREATED;
    assert_int_equal(created, 1);
    assert_int_equal(count_items(&w), 1);
    struct item it;
    struct err e;
    assert_int_equal(items_get(&w.s, racers[0].out.id, &it, &e), 0);
    assert_int_equal(it.revision, 1);
    item_done(&it);
    world_close(&w);
}

static void P2_sixteen_different_revisions_at_once_each_get_their_own(void **state)
{
    struct world w;
    struct racer racers[16];
    bool seen[17] = {false};
    world_open(&w, state);
    run_race(&w, racers, 16, false);
    for (int i = 0; i < 16; i++) {
        assert_in_range(racers[i].out.revision, 1, 16);
        assert_false(seen[racers[i].out.revision]);
        seen[racers[i].out.revision] = true;
    }
    assert_int_equal(count_items(&w), 1);
    world_close(&w);
}

static void the_date_of_the_first_acceptance_stays(void **state)
{
    struct world w;
    struct item it = make("daily", "a", "new", NULL);
    struct items_written out;
    struct err e;
    world_open(&w, state);
    post(&w.s, "a", "old", NULL);
    it.published_ms = DATE + 5000;
    assert_int_equal(items_post(&w.s, &it, &out, &e), 0);
    assert_int_equal(it.published_ms, DATE);
    assert_int_equal(ids_time_ms(out.id), DATE);
    assert_true(it.edited_ms >= w.s.now_ms);
    item_done(&it);
    world_close(&w);
}

static void changed_topics_leave_the_former_ones_in_the_document(void **state)
{
    struct world w;
    world_open(&w, state);
    struct items_written a = post(&w.s, "a", "one", "sport");
    post(&w.s, "a", "two", "sport");
    bson_t *d = document(&w, a.id);
    assert_false(bson_has_field(d, "topics_before"));
    bson_destroy(d);
    post(&w.s, "a", "two", "news");
    d = document(&w, a.id);
    bson_iter_t it, sub;
    assert_true(bson_iter_init(&it, d) && bson_iter_find_descendant(&it, "topics_before.0", &sub));
    assert_string_equal(bson_iter_utf8(&sub, NULL), "sport");
    assert_true(bson_iter_init(&it, d) && bson_iter_find_descendant(&it, "topics.0", &sub));
    assert_string_equal(bson_iter_utf8(&sub, NULL), "news");
    bson_destroy(d);
    world_close(&w);
}

static void a_deleted_item_leaves_a_tombstone(void **state)
{
    struct world w;
    struct item it;
    struct items_written out, again;
    struct err e;
    world_open(&w, state);
    struct items_written a = post(&w.s, "a", "one", "sport");
    assert_int_equal(items_get(&w.s, a.id, &it, &e), 0);
    assert_int_equal(items_delete(&w.s, &it, 0, &out, &e), 0);
    assert_int_equal(out.revision, 2);
    assert_true(out.position > a.position);
    item_done(&it);
    bson_t *d = document(&w, a.id);
    static const char *const gone[] = {"live", "title", "body", "topics", "url", "media", "extra", "lang"};
    for (size_t i = 0; i < MEM_COUNT(gone); i++)
        assert_false(bson_has_field(d, gone[i]));
    assert_true(bson_has_field(d, "deleted_at") && bson_has_field(d, "topics_before") &&
                bson_has_field(d, "external_id"));
    bson_destroy(d);
    assert_int_equal(items_get(&w.s, a.id, &it, &e), 0);
    assert_false(it.live);
    assert_int_equal(items_delete(&w.s, &it, 0, &again, &e), 0);
    assert_int_equal(again.revision, 2);
    item_done(&it);
    it = make("daily", "a", "one", NULL);
    assert_int_equal(items_post(&w.s, &it, &out, &e), -1);
    assert_int_equal(e.code, ERR_GONE);
    item_done(&it);
    assert_int_equal(items_get(&w.s, 12345, &it, &e), -1);
    assert_int_equal(e.code, ERR_NOT_FOUND);
    world_close(&w);
}

static int patch(struct world *w, item_id id, const char *text, int32_t if_match, struct items_written *out,
                 struct err *e)
{
    struct item it;
    struct item_problem p = {{0}, {0}};
    json_t *o = json_loads(text, 0, NULL);
    assert_non_null(o);
    assert_int_equal(items_get(&w->s, id, &it, e), 0);
    int rc = items_patch(&w->s, &it, o, if_match, out, &p, e);
    item_done(&it);
    json_decref(o);
    return rc;
}

static void a_patch_keeps_to_the_revision_it_was_made_for(void **state)
{
    struct world w;
    struct items_written out;
    struct err e;
    world_open(&w, state);
    struct items_written a = post(&w.s, "a", "one", NULL);
    assert_int_equal(patch(&w, a.id, "{\"title\":\"two\"}", 1, &out, &e), 0);
    assert_int_equal(out.result, ITEMS_REVISED);
    assert_int_equal(out.revision, 2);
    assert_int_equal(patch(&w, a.id, "{\"title\":\"three\"}", 1, &out, &e), -1);
    assert_int_equal(e.code, ERR_MISMATCH);
    assert_int_equal(patch(&w, a.id, "{\"title\":\"two\"}", 2, &out, &e), 0);
    assert_int_equal(out.result, ITEMS_UNCHANGED);
    assert_int_equal(out.revision, 2);
    assert_int_equal(patch(&w, a.id, "{\"publisher\":\"x\"}", 0, &out, &e), -1);
    assert_int_equal(e.code, ERR_INVALID);
    world_close(&w);
}

static void an_outdated_patch_is_applied_to_what_is_stored_now(void **state)
{
    struct world w;
    struct item stale;
    struct items_written out;
    struct item_problem p = {0};
    struct err e;
    world_open(&w, state);
    struct items_written a = post(&w.s, "a", "one", NULL);
    assert_int_equal(items_get(&w.s, a.id, &stale, &e), 0);
    post(&w.s, "a", "somebody else's", "news");
    json_t *o = json_loads("{\"body\":\"patched\"}", 0, NULL);
    assert_int_equal(items_patch(&w.s, &stale, o, 0, &out, &p, &e), 0);
    assert_int_equal(out.revision, 3);
    assert_string_equal(stale.title, "somebody else's");
    assert_string_equal(stale.body, "patched");
    assert_int_equal(stale.n_topics, 1);
    json_decref(o);
    item_done(&stale);
    world_close(&w);
}

static void items_of_one_crowded_millisecond_all_find_an_id(void **state)
{
    struct world w;
    world_open(&w, state);
    /* another process has taken the whole millisecond */
    mongoc_bulk_operation_t *op =
        mongoc_collection_create_bulk_operation_with_opts(mongo_coll(w.s.conn, COLL_ITEMS), NULL);
    for (uint32_t i = 0; i < 2048; i++) {
        bson_t *d = BCON_NEW("_id", BCON_INT64((int64_t)ids_make(DATE, i)));
        mongoc_bulk_operation_insert(op, d);
        bson_destroy(d);
    }
    bson_error_t be;
    assert_true(mongoc_bulk_operation_execute(op, NULL, &be));
    mongoc_bulk_operation_destroy(op);
    for (int i = 0; i < 50; i++)
        assert_int_equal(ids_time_ms(post(&w.s, NULL, "x", NULL).id), DATE + 1);
    /* only the first had to try eight times */
    assert_int_equal(metrics_get(w.metrics, M_ITEM_ID_RETRIES, 0), ITEM_IDS_TRIES);
    world_close(&w);
}

static void what_was_written_is_in_the_cache_at_once(void **state)
{
    struct world w;
    struct item it;
    struct items_written out;
    struct err e;
    world_open(&w, state);
    struct items_written a = post(&w.s, "a", "one", NULL);
    struct content_entry *entry = content_find(w.content, a.id);
    assert_non_null(entry);
    assert_int_equal(entry->revision, 1);
    content_unref(entry);
    post(&w.s, "a", "two", NULL);
    entry = content_find(w.content, a.id);
    assert_int_equal(entry->revision, 2);
    assert_non_null(strstr(entry->full, "\"title\":\"two\""));
    content_unref(entry);
    assert_int_equal(items_get(&w.s, a.id, &it, &e), 0);
    assert_int_equal(items_delete(&w.s, &it, 0, &out, &e), 0);
    item_done(&it);
    entry = content_find(w.content, a.id);
    assert_true(entry->deleted);
    content_unref(entry);
    world_close(&w);
}

static void looking_up_an_external_id_walks_one_key(void **state)
{
    struct world w;
    struct item it;
    struct err e;
    bson_error_t be;
    bson_t reply;
    world_open(&w, state);
    for (int i = 0; i < 50; i++) {
        char external[16];
        snprintf(external, sizeof external, "x%d", i);
        post(&w.s, external, "t", NULL);
    }
    bson_t *profile = BCON_NEW("profile", BCON_INT32(2));
    mongoc_database_t *db = mongoc_client_get_database(mongo_client(w.s.conn), fixture_database(w.f));
    assert_true(mongoc_database_command_simple(db, profile, NULL, &reply, &be));
    bson_destroy(&reply);
    assert_int_equal(items_get_external(&w.s, "daily", "x7", &it, &e), 0);
    assert_string_equal(it.external_id, "x7");
    item_done(&it);
    mongoc_collection_t *log = mongoc_database_get_collection(db, "system.profile");
    bson_t *filter = BCON_NEW("op", "query", "command.find", "items"),
           *opts = BCON_NEW("sort", "{", "ts", BCON_INT32(-1), "}");
    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(log, filter, opts, NULL);
    const bson_t *doc;
    int64_t examined = -1;
    assert_true(mongoc_cursor_next(cursor, &doc));
    assert_true(mongo_get_i64(doc, "keysExamined", &examined));
    assert_in_range(examined, 1, 2);
    mongoc_cursor_destroy(cursor);
    mongoc_collection_destroy(log);
    mongoc_database_destroy(db);
    bson_destroy(filter);
    bson_destroy(opts);
    bson_destroy(profile);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(P2_a_repeat_is_the_same_item),
        cmocka_unit_test(without_an_external_id_each_post_is_an_item),
        cmocka_unit_test(P2_sixteen_equal_posts_at_once_are_one_item),
        cmocka_unit_test(P2_sixteen_different_revisions_at_once_each_get_their_own),
        cmocka_unit_test(the_date_of_the_first_acceptance_stays),
        cmocka_unit_test(changed_topics_leave_the_former_ones_in_the_document),
        cmocka_unit_test(a_deleted_item_leaves_a_tombstone),
        cmocka_unit_test(a_patch_keeps_to_the_revision_it_was_made_for),
        cmocka_unit_test(an_outdated_patch_is_applied_to_what_is_stored_now),
        cmocka_unit_test(items_of_one_crowded_millisecond_all_find_an_id),
        cmocka_unit_test(what_was_written_is_in_the_cache_at_once),
        cmocka_unit_test(looking_up_an_external_id_walks_one_key),
    };
    return cmocka_run_group_tests(tests, fixture_group_setup_mongod, fixture_group_teardown);
}
