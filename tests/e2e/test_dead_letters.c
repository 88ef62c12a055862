/* test_dead_letters.c - dead letters and receipts, as an operator and a publisher see them: the routes and
 * the tool. What fanout does with its tries is in tests/fanout/test_dead_letters.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "common/ids.h"
#include "common/mem.h"
#include "common/mongo.h"
#include "common/ts.h"
#include "tests/support/api.h"

#define OUTPUT_MAX  65536
#define DEADLINE_MS 30000

static struct api *a;
static struct mongo *mongo;
static struct mongo_conn *conn;

static int start(void **state)
{
    struct err e = {0};
    (void)state;
    a = api_start(API_FANOUT, NULL);
    struct mongo_options o = {.uri = fixture_mongodb_uri(a->fixture), .app_name = "test", .pool_size = 2};
    if (mongo_new(&mongo, &o, &e) != 0 || mongo_conn_get(mongo, &conn, &e) != 0)
        fail_msg("%s", e.msg);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    mongo_conn_put(conn);
    mongo_free(mongo);
    api_stop(a);
    return 0;
}

/* Each begins as the admin, without letters and with all that runs running. */
static int fresh(void **state)
{
    bson_t all = BSON_INITIALIZER;
    bson_error_t be;
    (void)state;
    api_as(a, NULL);
    if (!mongoc_collection_delete_many(mongo_coll(conn, COLL_DEAD_LETTERS), &all, NULL, NULL, &be))
        fail_msg("%s", be.message);
    return 0;
}

static int goes_on(void **state)
{
    (void)state;
    server_continue(a->fanout);
    return 0;
}

#define UNTIL(check, arg)                                                                                    \
    do {                                                                                                     \
        if (!fixture_until((check), (arg), DEADLINE_MS))                                                     \
            fixture_fail(a->fixture, "%s did not come true", #check);                                        \
    } while (0)

/* ---- what is in MongoDB ---- */

static void update(enum mongo_collection coll, bson_t *filter, bson_t *change)
{
    bson_error_t be;
    bson_t opts = BSON_INITIALIZER;
    BSON_APPEND_BOOL(&opts, "upsert", true);
    if (!mongoc_collection_update_one(mongo_coll(conn, coll), filter, change, &opts, NULL, &be))
        fail_msg("%s", be.message);
    bson_destroy(&opts);
    bson_destroy(filter);
    bson_destroy(change);
}

static void plant_letter(const char *id, int64_t at_ms, const char *state)
{
    update(COLL_DEAD_LETTERS, BCON_NEW("_id", BCON_UTF8(id)),
           BCON_NEW("$set", "{", "kind", BCON_UTF8("user"), "user", BCON_UTF8("zoe"), "t",
                    BCON_UTF8("0000000500000001"), "reason", BCON_UTF8("redis: no"), "tries", BCON_INT32(5),
                    "fanout", BCON_UTF8("fanout-9"), "first_at", BCON_DATE_TIME(at_ms), "at",
                    BCON_DATE_TIME(at_ms), "state", BCON_UTF8(state), "replays", BCON_INT32(0), "}"));
}

static const char *text(const json_t *o, const char *member)
{
    const char *s = json_string_value(json_object_get(o, member));
    return s != NULL ? s : "(none)";
}

static int number(const json_t *o, const char *member)
{
    const json_t *v = json_object_get(o, member);
    return json_is_integer(v) ? (int)json_integer_value(v) : -1;
}

/* ---- items ---- */

static char *publish(const char *publisher, const char *topics)
{
    char *body =
        mem_printf("{\"publisher\":\"%s\",\"title\":\"t\",\"body\":\"b\",\"topics\":%s}", publisher, topics);
    json_t *o = api_json(a, "POST", "/v1/items", body, 201);
    char *id = mem_strdup(text(o, "id"));
    json_decref(o);
    free(body);
    return id;
}

/* An item that fanout can't read: its topics are no array. */
static char *publish_damaged(const char *publisher)
{
    char *id = publish(publisher, "[]");
    update(COLL_ITEMS, BCON_NEW("_id", BCON_INT64(atoll(id))),
           BCON_NEW("$set", "{", "topics", BCON_INT32(7), "topics_before", "[", "]", "}", "$inc", "{",
                    "revision", BCON_INT32(1), "}"));
    return id;
}

static void mend(const char *id)
{
    update(COLL_ITEMS, BCON_NEW("_id", BCON_INT64(atoll(id))),
           BCON_NEW("$set", "{", "topics", "[", BCON_UTF8("sport"), "]", "}"));
}

static json_t *receipt(const char *id, int status)
{
    char *path = mem_printf("/v1/items/%s/delivery", id);
    json_t *o = api_json(a, "GET", path, NULL, status);
    free(path);
    return o;
}

static bool is_in_state(const char *id, const char *state)
{
    json_t *o = receipt(id, 200);
    bool yes = strcmp(text(o, "state"), state) == 0;
    json_decref(o);
    return yes;
}

static bool is_delivered(void *id)
{
    return is_in_state(id, "delivered");
}

static bool is_dead(void *id)
{
    return is_in_state(id, "dead");
}

static bool has_a_time(void *id)
{
    json_t *o = receipt(id, 200);
    bool yes = json_is_string(json_object_get(o, "delivered_at"));
    json_decref(o);
    return yes;
}

static bool there_is_a_history(void *arg)
{
    bson_t reply;
    bson_error_t be;
    (void)arg;
    int64_t n =
        mongoc_collection_estimated_document_count(mongo_coll(conn, COLL_RECEIPTS), NULL, NULL, &reply, &be);
    bson_destroy(&reply);
    return n > 0;
}

static void assert_status(const char *method, const char *path, int status)
{
    int is = api_status(a, method, path, NULL);
    if (is != status)
        fail_msg("%s %s is %d, not %d", method, path, is, status);
}

static void follow(const char *user, const char *kind, const char *name)
{
    char *path = mem_printf("/v1/users/%s/follows/%s/%s", user, kind, name);
    assert_status("PUT", path, 204);
    free(path);
}

/* ---- the routes ---- */

static void dead_letters_are_for_admins_only(void **state)
{
    (void)state;
    char *others[] = {api_key(a, "service", NULL, NULL), api_key(a, "publisher", "[\"daily\"]", NULL),
                      api_token(a, "ann")};
    plant_letter("user-zoe", 1, "dead");
    for (size_t i = 0; i < MEM_COUNT(others); i++) {
        api_as(a, others[i]);
        assert_status("GET", "/v1/dead-letters", 403);
        assert_status("GET", "/v1/dead-letters/user-zoe", 403);
        assert_status("POST", "/v1/dead-letters/user-zoe/replay", 403);
        free(others[i]);
    }
    api_as(a, "");
    assert_status("GET", "/v1/dead-letters", 401);
    api_as(a, NULL);
    assert_status("GET", "/v1/dead-letters", 200);
}

static void what_is_asked_wrongly_is_refused(void **state)
{
    (void)state;
    assert_status("GET", "/v1/dead-letters?state=dead", 400);
    assert_status("GET", "/v1/dead-letters?limit=0", 400);
    assert_status("GET", "/v1/dead-letters?limit=101", 400);
    assert_status("GET", "/v1/dead-letters?cursor=", 400);
    assert_status("GET", "/v1/dead-letters?cursor=abc", 400);
    assert_status("GET", "/v1/dead-letters/none?x=1", 400);
    assert_status("GET", "/v1/dead-letters/none", 404);
    assert_status("POST", "/v1/dead-letters/none/replay", 404);
    assert_status("GET", "/v1/dead-letters/none/replay", 405);
    assert_status("DELETE", "/v1/dead-letters/none", 405);
}

static void pages_hold_each_letter_once_the_newest_first(void **state)
{
    (void)state;
    /* two of the same millisecond */
    const char *ids[] = {"user-a", "user-b", "user-c", "user-d", "user-e"};
    const int64_t at[] = {1000, 3000, 3000, 2000, 5000};
    static const char *const expected[] = {"user-e", "user-c", "user-b", "user-d", "user-a"};
    char *next = NULL;
    size_t seen = 0, pages = 0;
    for (size_t i = 0; i < MEM_COUNT(ids); i++)
        plant_letter(ids[i], at[i], "dead");
    do {
        char *path = next != NULL ? mem_printf("/v1/dead-letters?limit=2&cursor=%s", next)
                                  : mem_strdup("/v1/dead-letters?limit=2");
        json_t *o = api_json(a, "GET", path, NULL, 200), *list = json_object_get(o, "dead_letters"), *one;
        size_t i;
        json_array_foreach(list, i, one)
        {
            assert_true(seen < MEM_COUNT(expected));
            assert_string_equal(text(one, "id"), expected[seen++]);
        }
        free(next);
        const char *more = json_string_value(json_object_get(o, "next"));
        next = more != NULL ? mem_strdup(more) : NULL;
        pages++;
        json_decref(o);
        free(path);
    } while (next != NULL);
    assert_int_equal(seen, 5);
    assert_int_equal(pages, 3);
}

static void a_damaged_item_is_shown_and_replayed_after_mending(void **state)
{
    (void)state;
    follow("ann", "publisher", "daily");
    follow("ann", "topic", "sport");
    json_decref(api_json(a, "GET", "/v1/users/ann/feed", NULL, 200)); /* a timeline to deliver to */
    char *id = publish_damaged("daily");
    UNTIL(is_dead, id);
    char *path = mem_printf("/v1/dead-letters/item-%s", id), *replay = mem_printf("%s/replay", path);
    json_t *o = api_json(a, "GET", path, NULL, 200);
    assert_string_equal(text(o, "kind"), "item");
    assert_string_equal(text(o, "state"), "dead");
    assert_string_equal(text(o, "item"), id);
    assert_string_equal(text(o, "publisher"), "daily");
    assert_int_equal(number(o, "tries"), 5);
    assert_int_equal(number(o, "replays"), 0);
    assert_non_null(strstr(text(o, "reason"), "do not read"));
    assert_int_equal(strlen(text(o, "position")), TS_TEXT_SIZE - 1);
    assert_true(json_is_null(json_object_get(o, "user")) && json_is_null(json_object_get(o, "bucket")));
    json_decref(o);
    mend(id);
    struct reply r;
    api_post(a, replay, NULL, &r);
    assert_int_equal(r.status, 200);
    o = reply_json(&r);
    assert_string_equal(text(o, "state"), "replayed");
    assert_string_equal(text(o, "position"), reply_header(&r, "Feed-Position"));
    json_decref(o);
    reply_done(&r);
    UNTIL(is_delivered, id);
    o = api_json(a, "GET", path, NULL, 200);
    assert_string_equal(text(o, "state"), "replayed");
    assert_int_equal(number(o, "replays"), 1);
    json_decref(o);
    o = api_json(a, "GET", "/v1/users/ann/feed?fields=ids", NULL, 200);
    assert_string_equal(text(json_array_get(json_object_get(o, "items"), 0), "id"), id);
    json_decref(o);
    free(path);
    free(replay);
    free(id);
}

static bool is_dead_again(void *path)
{
    json_t *o = api_json(a, "GET", path, NULL, 200);
    bool yes = strcmp(text(o, "state"), "dead") == 0 && number(o, "replays") == 1;
    json_decref(o);
    return yes;
}

static void a_replay_of_what_is_still_damaged_is_dead_again(void **state)
{
    (void)state;
    char *id = publish_damaged("weekly");
    UNTIL(is_dead, id);
    char *path = mem_printf("/v1/dead-letters/item-%s", id), *replay = mem_printf("%s/replay", path);
    assert_status("POST", replay, 200);
    UNTIL(is_dead_again, path);
    free(path);
    free(replay);
    free(id);
}

static void a_replay_of_what_is_gone_does_no_harm(void **state)
{
    (void)state;
    char *id = publish("daily", "[\"sport\"]");
    char *item = mem_printf("/v1/items/%s", id), *letter = mem_printf("item-%s", id);
    assert_status("DELETE", item, 204);
    plant_letter(letter, 1, "dead");
    update(
        COLL_DEAD_LETTERS, BCON_NEW("_id", BCON_UTF8(letter)),
        BCON_NEW("$set", "{", "item", BCON_INT64(atoll(id)), "}", "$unset", "{", "user", BCON_INT32(1), "}"));
    char *path = mem_printf("/v1/dead-letters/%s/replay", letter);
    assert_status("POST", path, 200);
    assert_status("GET", item, 410);
    plant_letter("user-nobody-knows", 2, "dead");
    assert_status("POST", "/v1/dead-letters/user-nobody-knows/replay", 200);
    free(path);
    free(letter);
    free(item);
    free(id);
}

static bool is_newer(void *arg)
{
    char *path = mem_printf("/v1/users/zoe/feed?position=%s", (const char *)arg);
    json_t *o = api_json(a, "GET", path, NULL, 200);
    bool yes = strcmp(text(o, "state"), "complete") == 0;
    json_decref(o);
    free(path);
    return yes;
}

static void a_replay_for_a_reader_has_the_feed_rebuilt(void **state)
{
    (void)state;
    follow("zoe", "publisher", "monthly");
    char *id = publish("monthly", "[]");
    UNTIL(is_delivered, id);
    json_decref(api_json(a, "GET", "/v1/users/zoe/feed", NULL, 200));
    double before = api_metric(a, "feedmill_rebuilds_total{result=\"done\"}");
    plant_letter("timeline-1-zoe", 1, "dead");
    json_t *o = api_json(a, "POST", "/v1/dead-letters/timeline-1-zoe/replay", NULL, 200);
    UNTIL(is_newer, (char *)text(o, "position"));
    json_decref(o);
    assert_true(api_metric(a, "feedmill_rebuilds_total{result=\"done\"}") > before);
    o = api_json(a, "GET", "/v1/users/zoe/feed?fields=ids", NULL, 200);
    assert_string_equal(text(json_array_get(json_object_get(o, "items"), 0), "id"), id);
    json_decref(o);
    free(id);
}

/* ---- receipts ---- */

static void a_receipt_is_pending_while_fanout_stands_still_and_then_delivered(void **state)
{
    (void)state;
    follow("eve", "publisher", "paper");
    follow("eve", "topic", "chess");
    follow("tom", "topic", "chess");
    follow("kim", "topic", "other");
    UNTIL(there_is_a_history, NULL);
    char *first = publish("paper", "[]");
    UNTIL(has_a_time, first);
    server_pause(a->fanout);
    char *id = publish("paper", "[\"chess\"]");
    for (int i = 0; i < 3; i++)
        assert_true(is_in_state(id, "pending"));
    assert_true(is_delivered(first));
    json_t *o = receipt(id, 200);
    assert_true(json_is_null(json_object_get(o, "delivered_at")));
    assert_int_equal(number(o, "audience"), 2);
    json_decref(o);
    server_continue(a->fanout);
    UNTIL(is_delivered, id);
    UNTIL(has_a_time, id);
    char *path = mem_printf("/v1/items/%s", id);
    json_t *item = api_json(a, "GET", path, NULL, 200);
    o = receipt(id, 200);
    assert_true(strcmp(text(o, "delivered_at"), text(item, "published_at")) >= 0);
    json_decref(item);
    json_decref(o);
    server_pause(a->fanout);
    json_decref(api_json(a, "PATCH", path, "{\"title\":\"another\"}", 200));
    assert_true(is_in_state(id, "pending")); /* of its last change */
    server_continue(a->fanout);
    UNTIL(is_delivered, id);
    free(path);
    free(first);
    free(id);
}

static void receipts_are_for_the_publisher_of_the_item(void **state)
{
    (void)state;
    char *id = publish("daily", "[]"), *path = mem_printf("/v1/items/%s/delivery", id);
    char *own = api_key(a, "publisher", "[\"x\",\"daily\"]", NULL);
    char *others[] = {api_key(a, "service", NULL, NULL), api_key(a, "publisher", "[\"weekly\"]", NULL),
                      api_token(a, "ann")};
    assert_status("GET", path, 200);
    api_as(a, own);
    assert_status("GET", path, 200);
    assert_status("GET", "/v1/items/1/delivery", 404);
    assert_status("GET", "/v1/items/x/delivery", 404);
    for (size_t i = 0; i < MEM_COUNT(others); i++) {
        api_as(a, others[i]);
        assert_status("GET", path, 403);
        free(others[i]);
    }
    api_as(a, "");
    assert_status("GET", path, 401);
    api_as(a, own);
    char *item = mem_printf("/v1/items/%s", id), *query = mem_printf("%s?x=1", path);
    assert_status("GET", query, 400);
    assert_status("POST", path, 405);
    assert_status("DELETE", item, 204);
    assert_status("GET", path, 410);
    free(query);
    free(item);
    free(own);
    free(path);
    free(id);
}

static bool is_up(void *arg)
{
    (void)arg;
    struct reply r;
    api_get(a, "/readyz", &r);
    bool yes = r.status == 200 && strstr(r.body, "redis") == NULL;
    reply_done(&r);
    return yes;
}

static void without_redis_a_receipt_says_what_is_known(void **state)
{
    (void)state;
    char *id = publish("daily", "[]");
    UNTIL(is_delivered, id);
    server_kill(fixture_redis(a->fixture));
    assert_true(is_in_state(id, "pending")); /* never the other way round */
    fixture_restart(a->fixture, fixture_redis(a->fixture));
    UNTIL(is_up, NULL);
    UNTIL(is_delivered, id);
    free(id);
}

/* ---- the tool ---- */

struct run {
    int status;
    char out[OUTPUT_MAX];
};

/* Runs the tool with these words behind the options; standard error with the rest. */
static struct run *run_tool(const char *key_file, int port, const char *words)
{
    struct run *r = mem_zero(1, sizeof *r);
    char *bin = fixture_bin("dlq");
    char *command =
        mem_printf("%s --api http://127.0.0.1:%d --key-file '%s' %s 2>&1", bin, port, key_file, words);
    FILE *p = popen(command, "re");
    assert_non_null(p);
    size_t n = fread(r->out, 1, OUTPUT_MAX - 1, p);
    r->out[n] = '\0';
    int status = pclose(p);
    assert_true(WIFEXITED(status));
    r->status = WEXITSTATUS(status);
    free(command);
    free(bin);
    return r;
}

static char *admin_key_file(void)
{
    char *path = mem_printf("%s/key", fixture_dir(a->fixture));
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    fprintf(f, "%s\n", fixture_admin_key(a->fixture));
    fclose(f);
    return path;
}

static void tool_says(const char *words, int status, const char *holds, const char * not )
{
    char *key = admin_key_file();
    struct run *r = run_tool(key, a->port, words);
    if (r->status != status || strstr(r->out, holds) == NULL || (not != NULL && strstr(r->out, not ) != NULL))
        fail_msg("dlq %s: status %d: %s", words, r->status, r->out);
    free(r);
    free(key);
}

static void the_tool_lists_shows_and_replays(void **state)
{
    (void)state;
    tool_says("list", 0, "no dead letters", NULL);
    plant_letter("user-a b/c?", 1000, "dead"); /* what has to be escaped */
    plant_letter("user-old", 2000, "replayed");
    plant_letter("user-new", 3000, "dead");
    tool_says("list", 0, "user-old", NULL);
    tool_says("list --open", 0, "user-new", "user-old");
    tool_says("list --limit 1", 0, "user-new", "user-old");
    tool_says("--json list", 0, "{\"id\":\"user-new\",\"state\":\"dead\"", "STATE");
    tool_says("show 'user-a b/c?'", 0, "redis: no", NULL);
    tool_says("show user-new --json", 0, "\"fanout\":\"fanout-9\"", NULL);
    tool_says("replay 'user-a b/c?'", 0, "replayed user-a b/c?", NULL);
    tool_says("replay --all", 0, "dlq: 1 of 1", "user-old");
    tool_says("list --open", 0, "no open dead letters", NULL);
    tool_says("replay --all", 0, "no open dead letters", NULL);
}

static void the_tool_pages_through_all_of_them(void **state)
{
    (void)state;
    char id[32];
    for (int i = 0; i < 230; i++) {
        snprintf(id, sizeof id, "user-n%d", i);
        plant_letter(id, 1000 + i, "dead");
    }
    tool_says("list --limit 0", 0, "user-n0\n", NULL);
    tool_says("--json replay --all", 0, "dlq: 230 of 230", NULL);
    tool_says("list --open", 0, "no open dead letters", NULL);
}

static void the_tool_says_what_is_wrong(void **state)
{
    (void)state;
    tool_says("", 2, "what shall it do", NULL);
    tool_says("lost", 2, "no such command", NULL);
    tool_says("list --limit x", 2, "--limit", NULL);
    tool_says("show", 2, "one ID", NULL);
    tool_says("replay", 2, "--all", NULL);
    tool_says("replay x --all", 2, "--all", NULL);
    tool_says("show none", 1, "404", NULL);
    tool_says("replay none", 1, "no such dead letter", NULL);
    tool_says("--help", 0, "usage", NULL);
    char *key = admin_key_file();
    struct run *r = run_tool(key, server_free_port(), "list");
    assert_int_equal(r->status, 1);
    assert_non_null(strstr(r->out, "feed-api"));
    free(r);
    r = run_tool("/nowhere", a->port, "list");
    assert_int_equal(r->status, 2);
    assert_non_null(strstr(r->out, "/nowhere"));
    free(r);
    FILE *f = fopen(key, "we");
    fprintf(f, "fm_0000000000000000_nokey\n");
    fclose(f);
    r = run_tool(key, a->port, "list");
    assert_int_equal(r->status, 1);
    assert_non_null(strstr(r->out, "401"));
    free(r);
    free(key);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, fresh, goes_on)
    const struct CMUnitTest tests[] = {
        T(dead_letters_are_for_admins_only),
        T(what_is_asked_wrongly_is_refused),
        T(pages_hold_each_letter_once_the_newest_first),
        T(a_damaged_item_is_shown_and_replayed_after_mending),
        T(a_replay_of_what_is_still_damaged_is_dead_again),
        T(a_replay_of_what_is_gone_does_no_harm),
        T(a_replay_for_a_reader_has_the_feed_rebuilt),
        T(a_receipt_is_pending_while_fanout_stands_still_and_then_delivered),
        T(receipts_are_for_the_publisher_of_the_item),
        T(without_redis_a_receipt_says_what_is_known),
        T(the_tool_lists_shows_and_replays),
        T(the_tool_pages_through_all_of_them),
        T(the_tool_says_what_is_wrong),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
