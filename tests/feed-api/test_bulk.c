/* Bulk requests: lines, turns, and what they cost in a real MongoDB. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "common/clock.h"
#include "common/mem.h"
#include "feed-api/bulk.h"
#include "feed-api/metrics.h"
#include "tests/support/fixture.h"

#define NOW INT64_C(1750000000000)

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
    struct mongo_options o = {.uri = fixture_mongodb_uri(w->f), .app_name = "bulk-test", .pool_size = 8};
    assert_int_equal(mongo_new(&w->mongo, &o, &e), 0);
    w->metrics = feed_metrics_new();
    w->s = (struct items){.ids = item_ids_new(), .metrics = w->metrics, .now_ms = NOW};
    assert_int_equal(content_new(&w->s.content, 10 << 20, w->metrics, &e), 0);
    assert_int_equal(mongo_conn_get(w->mongo, &w->s.conn, &e), 0);
    mongo_conn_deadline(w->s.conn, 60000);
    assert_int_equal(mongo_schema_ensure(w->s.conn, &e), 0);
}

static void world_close(struct world *w)
{
    mongo_conn_put(w->s.conn);
    content_free(w->s.content);
    item_ids_free(w->s.ids);
    metrics_free(w->metrics);
    mongo_free(w->mongo);
}

static struct bulk *parse(const char *text)
{
    struct bulk *b = NULL;
    struct err e;
    if (bulk_parse(text, strlen(text), NOW, &b, &e) != 0)
        fail_msg("parse: %s", e.msg);
    return b;
}

/* Runs a body; the answer's lines in an array of objects. */
static json_t *run(struct world *w, const char *text)
{
    struct bulk *b = parse(text);
    struct err e;
    struct buf out;
    if (bulk_run(&w->s, b, &e) != 0)
        fail_msg("run: %s", e.msg);
    buf_init(&out, 1 << 24);
    bulk_write(b, "b0b0b0b0b0b0b0b0", &out);
    json_t *lines = json_array();
    for (const char *s = out.data; s != NULL && *s != '\0'; s = strchr(s, '\n') + 1)
        json_array_append_new(lines, json_loadb(s, (size_t)(strchr(s, '\n') - s), 0, NULL));
    assert_int_equal(json_array_size(lines), b->n);
    for (size_t i = 0; i < b->n; i++)
        assert_int_equal(json_integer_value(json_object_get(json_array_get(lines, i), "line")), i + 1);
    buf_done(&out);
    bulk_free(b);
    return lines;
}

static int status(json_t *lines, size_t i)
{
    return (int)json_integer_value(json_object_get(json_array_get(lines, i), "status"));
}

static const char *text(json_t *lines, size_t i, const char *member)
{
    const char *s = json_string_value(json_object_get(json_array_get(lines, i), member));
    return s != NULL ? s : "";
}

static int revision(json_t *lines, size_t i)
{
    return (int)json_integer_value(json_object_get(json_array_get(lines, i), "revision"));
}

#define ITEM(external, title)                                                                                \
    "{\"publisher\":\"p\",\"external_id\":\"" external "\",\"title\":\"" title "\",\"body\":\"b\"}\n"
#define DELETE(external) "{\"op\":\"delete\",\"publisher\":\"p\",\"external_id\":\"" external "\"}\n"

static void bad_lines_are_told_apart(void **state)
{
    (void)state;
    struct bulk *b =
        parse(ITEM("a", "t") "\n"
                             "not json\r\n"
                             "[1]\n"
                             "{\"publisher\":\"p\",\"publisher\":\"p\",\"title\":\"t\",\"body\":\"b\"}\n"
                             "{\"op\":\"upsert\",\"publisher\":\"p\",\"external_id\":\"x\"}\n"
                             "{\"op\":\"delete\",\"publisher\":\"p\"}\n"
                             "{\"op\":\"delete\",\"publisher\":\"p\",\"external_id\":\"x\",\"title\":\"t\"}\n"
                             "{\"publisher\":\"p\",\"title\":\"\",\"body\":\"b\"}\n"
                             "{\"publisher\":\"p\",\"title\":\"\\u0000\",\"body\":\"b\"}\n"
                             "{\"publisher\":\"p\",\"title\":\"t\",\"body\":\"b\"}\r\n" DELETE("b"));
    assert_int_equal(b->n, 12);
    for (size_t i = 0; i < b->n; i++) {
        bool good = i == 0 || i >= 10;
        assert_int_equal(b->lines[i].state, good ? BULK_WAITING : BULK_FAILED);
        if (!good)
            assert_int_equal(b->lines[i].code, PROBLEM_INVALID_REQUEST);
    }
    assert_string_equal(b->lines[8].problem.pointer, "/title");
    assert_int_equal(b->turns, 1);
    bulk_free(b);
}

static void a_line_over_the_cap_harms_only_itself(void **state)
{
    (void)state;
    struct buf body;
    buf_init(&body, 1 << 20);
    buf_add_str(&body, ITEM("a", "t") "{\"publisher\":\"p\",\"title\":\"t\",\"body\":\"");
    for (int i = 0; i < BULK_LINE_MAX; i++)
        buf_add_char(&body, 'x');
    buf_add_str(&body, "\"}\n" ITEM("b", "t"));
    struct bulk *b = parse(body.data);
    assert_int_equal(b->n, 3);
    assert_int_equal(b->lines[0].state, BULK_WAITING);
    assert_int_equal(b->lines[1].code, PROBLEM_TOO_LARGE);
    assert_int_equal(b->lines[2].state, BULK_WAITING);
    bulk_free(b);
    buf_done(&body);
}

static void a_thousand_lines_and_no_more(void **state)
{
    (void)state;
    struct buf body;
    struct bulk *b;
    struct err e;
    buf_init(&body, 1 << 20);
    for (int i = 0; i < BULK_LINES_MAX; i++)
        buf_add_str(&body, "{}\n");
    b = parse(body.data);
    assert_int_equal(b->n, BULK_LINES_MAX);
    bulk_free(b);
    buf_add_str(&body, "{}");
    assert_int_equal(bulk_parse(body.data, body.len, NOW, &b, &e), -1);
    assert_int_equal(e.code, ERR_TOO_LARGE);
    assert_int_equal(bulk_parse("", 0, NOW, &b, &e), -1);
    assert_int_equal(e.code, ERR_INVALID);
    buf_done(&body);
}

static void lines_of_the_same_item_act_in_order(void **state)
{
    struct world w;
    world_open(&w, state);
    json_t *l = run(&w, ITEM("a", "1") ITEM("b", "x") ITEM("a", "2") ITEM("a", "2") "oops\n" DELETE("a")
                            ITEM("a", "3") DELETE("a") DELETE("zz") ITEM("b", "x"));
    static const struct {
        int status, revision;
        const char *result;
    } want[] = {{201, 1, "created"}, {201, 1, "created"},  {200, 2, "revised"}, {200, 2, "unchanged"},
                {400, 0, ""},        {200, 3, "deleted"},  {410, 0, ""},        {200, 3, "deleted"},
                {404, 0, ""},        {200, 1, "unchanged"}};
    for (size_t i = 0; i < MEM_COUNT(want); i++) {
        assert_int_equal(status(l, i), want[i].status);
        assert_int_equal(revision(l, i), want[i].revision);
        assert_string_equal(text(l, i, "result"), want[i].result);
        bool failed = want[i].status >= 400;
        assert_int_equal(json_object_get(json_array_get(l, i), "problem") != NULL, failed);
        assert_int_equal(strlen(text(l, i, "position")), failed ? 0 : 16);
    }
    assert_string_equal(text(l, 0, "id"), text(l, 5, "id"));
    json_decref(l);
    world_close(&w);
}

static char *thousand(const char *title)
{
    struct buf b;
    buf_init(&b, 8 << 20);
    for (int i = 0; i < 1000; i++)
        buf_printf(
            &b,
            "{\"publisher\":\"p%d\",\"external_id\":\"e%d\",\"title\":\"%s\",\"body\":\"b\",\"published_at\":"
            "\"2020-01-01T00:00:00Z\",\"topics\":[\"t\"]}\n",
            i % 7, i, i % 10 == 0 ? title : "same");
    return buf_take(&b);
}

/* Commands that the server has run for clients of this test. */
static int64_t commands(struct world *w)
{
    bson_t *cmd = BCON_NEW("serverStatus", BCON_INT32(1)), reply;
    bson_error_t be;
    bson_iter_t it, at;
    int64_t n = 0;
    assert_true(mongoc_client_command_simple(mongo_client(w->s.conn), "admin", cmd, NULL, &reply, &be));
    static const char *const names[] = {"insert", "update", "find", "getMore"};
    for (size_t i = 0; i < MEM_COUNT(names); i++) {
        char path[64];
        snprintf(path, sizeof path, "metrics.commands.%s.total", names[i]);
        if (bson_iter_init(&it, &reply) && bson_iter_find_descendant(&it, path, &at))
            n += bson_iter_as_int64(&at);
    }
    bson_destroy(cmd);
    bson_destroy(&reply);
    return n;
}

static void a_thousand_new_items_cost_a_few_round_trips(void **state)
{
    struct world w;
    world_open(&w, state);
    char *body = thousand("x"), *changed = thousand("y");
    int64_t before = commands(&w);
    json_t *l = run(&w, body);
    assert_in_range(commands(&w) - before, 2, 6);
    for (size_t i = 0; i < 1000; i++)
        assert_int_equal(status(l, i), 201);
    assert_int_equal(metrics_get(w.metrics, M_ITEM_ID_RETRIES, 0), 0);
    json_t *again = run(&w, body);
    for (size_t i = 0; i < 1000; i++) {
        assert_string_equal(text(again, i, "result"), "unchanged");
        assert_string_equal(text(again, i, "id"), text(l, i, "id"));
    }
    before = commands(&w);
    json_t *third = run(&w, changed);
    assert_in_range(commands(&w) - before, 2, 6);
    for (size_t i = 0; i < 1000; i++) {
        assert_string_equal(text(third, i, "result"), i % 10 == 0 ? "revised" : "unchanged");
        assert_int_equal(revision(third, i), i % 10 == 0 ? 2 : 1);
    }
    json_decref(l);
    json_decref(again);
    json_decref(third);
    free(body);
    free(changed);
    world_close(&w);
}

/* Whoever tails the log gets them as they stand in the request, whatever their names are. */
static void new_items_are_stored_in_the_order_of_the_lines(void **state)
{
    struct world w;
    world_open(&w, state);
    json_t *l = run(&w, ITEM("b10", "1") ITEM("b9", "2") ITEM("c", "3") ITEM("a", "4") ITEM("b1", "5"));
    bson_t filter = BSON_INITIALIZER, *opts = BCON_NEW("sort", "{", "$natural", BCON_INT32(1), "}",
                                                       "projection", "{", "t", BCON_INT32(1), "}");
    mongoc_cursor_t *c =
        mongoc_collection_find_with_opts(mongo_coll(w.s.conn, COLL_ITEMS), &filter, opts, NULL);
    const bson_t *doc;
    size_t n = 0;
    for (; mongoc_cursor_next(c, &doc); n++) {
        int64_t id = 0;
        assert_true(mongo_get_i64(doc, "_id", &id));
        char want[24];
        snprintf(want, sizeof want, "%" PRId64, id);
        assert_string_equal(text(l, n, "id"), want);
    }
    assert_int_equal(n, 5);
    mongoc_cursor_destroy(c);
    bson_destroy(opts);
    bson_destroy(&filter);
    json_decref(l);
    world_close(&w);
}

/* A few of many lines are looked up beforehand; those known lines which were not among them are found by the
 * index. */
static void known_lines_among_many_new_ones_are_found_without_looking_all_up(void **state)
{
    struct world w;
    world_open(&w, state);
    json_decref(run(&w, ITEM("k101", "old") ITEM("k103", "old") ITEM("k106", "old") DELETE("k106")));
    struct buf body;
    buf_init(&body, 1 << 20);
    for (int i = 0; i < 200; i++)
        buf_printf(&body, "{\"publisher\":\"p\",\"external_id\":\"k%03d\",\"title\":\"%s\",\"body\":\"b\"}\n",
                   i, i == 103 ? "new" : "old");
    json_t *l = run(&w, body.data);
    for (size_t i = 0; i < 200; i++)
        assert_int_equal(status(l, i), i == 101 || i == 103 ? 200 : i == 106 ? 410 : 201);
    assert_string_equal(text(l, 101, "result"), "unchanged");
    assert_string_equal(text(l, 103, "result"), "revised");
    json_decref(l);
    buf_done(&body);
    world_close(&w);
}

struct importer {
    struct world *w;
    pthread_t thread;
    const char *body;
    json_t *lines;
};

static void *import(void *arg)
{
    struct importer *im = arg;
    struct world w = *im->w;
    struct err e;
    if (mongo_conn_get(w.mongo, &w.s.conn, &e) != 0)
        return NULL;
    mongo_conn_deadline(w.s.conn, 60000);
    im->lines = run(&w, im->body);
    mongo_conn_put(w.s.conn);
    return NULL;
}

static void P2_the_same_import_four_times_at_once_stores_each_item_once(void **state)
{
    struct world w;
    struct importer im[4];
    world_open(&w, state);
    char *body = thousand("x");
    for (int i = 0; i < 4; i++) {
        im[i] = (struct importer){.w = &w, .body = body};
        assert_int_equal(pthread_create(&im[i].thread, NULL, import, &im[i]), 0);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(im[i].thread, NULL);
    for (size_t n = 0; n < 1000; n++) {
        int created = 0;
        for (int i = 0; i < 4; i++) {
            assert_non_null(im[i].lines);
            assert_true(status(im[i].lines, n) == 200 || status(im[i].lines, n) == 201);
            assert_string_equal(text(im[i].lines, n, "id"), text(im[0].lines, n, "id"));
            created += status(im[i].lines, n) == 201;
        }
        assert_int_equal(created, 1);
    }
    for (int i = 0; i < 4; i++)
        json_decref(im[i].lines);
    free(body);
    world_close(&w);
}

/* What the store has under a name is changed behind the back of a bulk by another writer, many times over. */
static void *meddle(void *arg)
{
    struct importer *im = arg;
    struct world w = *im->w;
    struct err e;
    if (mongo_conn_get(w.mongo, &w.s.conn, &e) != 0)
        return NULL;
    mongo_conn_deadline(w.s.conn, 60000);
    for (int i = 0; i < 200; i++) {
        char *line =
            mem_printf("{\"publisher\":\"p%d\",\"external_id\":\"e%d\",\"title\":\"m%d\",\"body\":\"b\"}\n",
                       i % 7, i, i);
        json_decref(run(&w, line));
        free(line);
    }
    mongo_conn_put(w.s.conn);
    return NULL;
}

static void lines_that_lose_a_race_settle_on_their_own(void **state)
{
    struct world w;
    struct importer im;
    world_open(&w, state);
    char *body = thousand("x");
    json_decref(run(&w, body));
    im = (struct importer){.w = &w};
    assert_int_equal(pthread_create(&im.thread, NULL, meddle, &im), 0);
    for (int round = 0; round < 10; round++) {
        char title[16];
        snprintf(title, sizeof title, "r%d", round);
        char *changed = thousand(title);
        json_t *l = run(&w, changed);
        for (size_t i = 0; i < 1000; i++)
            assert_int_equal(status(l, i), 200);
        json_decref(l);
        free(changed);
    }
    pthread_join(im.thread, NULL);
    char *last = thousand("r9");
    json_decref(run(&w, last));
    json_t *l = run(&w, last);
    for (size_t i = 0; i < 1000; i++)
        assert_string_equal(text(l, i, "result"), "unchanged");
    json_decref(l);
    free(last);
    free(body);
    world_close(&w);
}

static void without_a_database_nothing_is_claimed(void **state)
{
    struct world w;
    struct err e;
    world_open(&w, state);
    struct bulk *b = parse(ITEM("a", "1"));
    mongo_conn_deadline(w.s.conn, 1000);
    server_pause(fixture_mongod(w.f));
    assert_int_equal(bulk_run(&w.s, b, &e), -1);
    server_continue(fixture_mongod(w.f));
    assert_true(e.code == ERR_UNAVAILABLE || e.code == ERR_TIMEOUT);
    assert_int_equal(problem_status(b->lines[0].code), 503);
    bulk_free(b);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_lines_are_told_apart),
        cmocka_unit_test(a_line_over_the_cap_harms_only_itself),
        cmocka_unit_test(a_thousand_lines_and_no_more),
        cmocka_unit_test(lines_of_the_same_item_act_in_order),
        cmocka_unit_test(new_items_are_stored_in_the_order_of_the_lines),
        cmocka_unit_test(a_thousand_new_items_cost_a_few_round_trips),
        cmocka_unit_test(known_lines_among_many_new_ones_are_found_without_looking_all_up),
        cmocka_unit_test(P2_the_same_import_four_times_at_once_stores_each_item_once),
        cmocka_unit_test(lines_that_lose_a_race_settle_on_their_own),
        cmocka_unit_test(without_a_database_nothing_is_claimed),
    };
    return cmocka_run_group_tests(tests, fixture_group_setup_mongod, fixture_group_teardown);
}
