/* Items, bulk requests, publishers and topics through the HTTP API of real processes: the contract, and what
 * has to hold when processes are killed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "common/buf.h"
#include "common/mem.h"
#include "tests/support/e2e.h"

/* One feed-api for all tests of the binary, and a second one that knows of the first one's writes by the log
 * only. */
static struct {
    struct fixture *f;
    struct server *process, *other_process;
    struct e2e_api api, other;
} world;

static int start_world(void **state)
{
    if (fixture_group_setup(state) != 0)
        return -1;
    world.f = *state;
    world.process = fixture_start(world.f, "feed-api", "feed-api-1", "--count-interval", "100", NULL);
    world.other_process = fixture_start(world.f, "feed-api", "feed-api-2", NULL);
    e2e_api_init(&world.api, world.f, world.process);
    e2e_api_init(&world.other, world.f, world.other_process);
    return 0;
}

static int stop_world(void **state)
{
    e2e_api_done(&world.api);
    e2e_api_done(&world.other);
    return fixture_group_teardown(state);
}

/* ---- short forms ---- */

static const char *text(const json_t *o, const char *member)
{
    const char *s = json_string_value(json_object_get(o, member));
    return s != NULL ? s : "";
}

static int number(const json_t *o, const char *member)
{
    return (int)json_integer_value(json_object_get(o, member));
}

static json_t *post(const char *body, int status)
{
    return e2e_json(&world.api, "POST", "/v1/items", body, status);
}

/* Expects a problem: its code and, when not NULL, the pointer of its first error. */
static void assert_problem(struct e2e_api *a, const char *method, const char *path, const char *extra,
                           const char *body, int status, const char *code, const char *pointer)
{
    struct reply r;
    char *type = mem_printf("/problems/%s", code);
    if (e2e_try(a, method, path, extra, body, &r) != 0)
        fail_msg("%s %s: no answer", method, path);
    if (r.status != status)
        fail_msg("%s %s %.200s: %d, not %d: %s", method, path, body ? body : "", r.status, status, r.body);
    assert_string_equal(reply_header(&r, "Content-Type"), "application/problem+json");
    json_t *p = reply_json(&r);
    assert_string_equal(text(p, "type"), type);
    assert_string_equal(text(p, "instance"), reply_header(&r, "X-Request-Id"));
    if (pointer != NULL)
        assert_string_equal(text(json_array_get(json_object_get(p, "errors"), 0), "pointer"), pointer);
    json_decref(p);
    free(type);
    reply_done(&r);
}

static struct e2e_api with_key(const char *role, const char *names)
{
    char *body = names != NULL ? mem_printf("{\"role\":\"%s\",\"names\":%s}", role, names)
                               : mem_printf("{\"role\":\"%s\"}", role);
    json_t *key = e2e_json(&world.api, "POST", "/v1/keys", body, 201);
    struct e2e_api a = {.port = world.api.port};
    snprintf(a.auth, sizeof a.auth, "Authorization: Bearer %s\r\n", text(key, "key"));
    json_decref(key);
    free(body);
    return a;
}

static char *item_path(const char *id)
{
    return mem_printf("/v1/items/%s", id);
}

/* ---- one item ---- */

static void an_item_lives_from_post_to_delete(void **state)
{
    (void)state;
    struct reply r;
    e2e_call(&world.api, "POST", "/v1/items",
             "{\"publisher\":\"daily\",\"external_id\":\"life\",\"title\":\"One\",\"body\":\"B\",\"url\":"
             "\"https://x.org/1\","
             "\"topics\":[\"sport\"],\"lang\":\"en\",\"published_at\":\"2024-01-02T03:04:05.006+02:00\","
             "\"extra\":{\"k\":[1,2]},"
             "\"media\":[{\"url\":\"https://x.org/i.png\",\"type\":\"image/png\"}]}",
             201, &r);
    json_t *made = reply_json(&r);
    char *path = item_path(text(made, "id"));
    assert_string_equal(reply_header(&r, "Location"), path);
    assert_string_equal(reply_header(&r, "Feed-Position"), text(made, "position"));
    assert_string_equal(text(made, "result"), "created");
    reply_done(&r);

    json_t *got = e2e_json(&world.api, "GET", path, NULL, 200);
    char *expected = mem_printf(
        "{\"id\":\"%s\",\"publisher\":\"daily\",\"external_id\":\"life\",\"revision\":1,\"title\":\"One\","
        "\"body\":\"B\",\"url\":\"https://x.org/1\",\"media\":[{\"url\":\"https://x.org/i.png\",\"type\":"
        "\"image/png\"}],\"topics\":[\"sport\"],\"lang\":\"en\",\"published_at\":"
        "\"2024-01-02T01:04:05.006Z\",\"edited_at\":null,\"extra\":{\"k\":[1,2]}}",
        text(made, "id"));
    char *actual = json_dumps(got, JSON_COMPACT);
    assert_string_equal(actual, expected);
    free(actual);
    free(expected);
    json_decref(got);

    json_t *patched = e2e_json(&world.api, "PATCH", path, "{\"title\":\"Two\",\"url\":null}", 200);
    assert_int_equal(number(patched, "revision"), 2);
    assert_string_equal(text(patched, "result"), "revised");
    json_decref(patched);
    got = e2e_json(&world.api, "GET", path, NULL, 200);
    assert_string_equal(text(got, "title"), "Two");
    assert_true(json_is_null(json_object_get(got, "url")));
    assert_true(json_is_string(json_object_get(got, "edited_at")));
    json_decref(got);

    ts_t first = e2e_write(&world.api, "DELETE", "%s", path),
         again = e2e_write(&world.api, "DELETE", "%s", path);
    assert_true(again >= first);
    assert_problem(&world.api, "GET", path, NULL, NULL, 410, "gone", NULL);
    assert_problem(&world.api, "PATCH", path, NULL, "{\"title\":\"x\"}", 410, "gone", NULL);
    assert_problem(&world.api, "POST", "/v1/items", NULL,
                   "{\"publisher\":\"daily\",\"external_id\":\"life\",\"title\":\"One\",\"body\":\"B\"}", 410,
                   "gone", NULL);
    json_decref(made);
    free(path);
}

static void what_never_was_is_not_found(void **state)
{
    (void)state;
    assert_problem(&world.api, "GET", "/v1/items/12345", NULL, NULL, 404, "not_found", NULL);
    assert_problem(&world.api, "GET", "/v1/items/abc", NULL, NULL, 404, "not_found", NULL);
    assert_problem(&world.api, "PATCH", "/v1/items/12345", NULL, "{}", 404, "not_found", NULL);
    assert_problem(&world.api, "DELETE", "/v1/items/12345", NULL, NULL, 404, "not_found", NULL);
    assert_problem(&world.api, "GET", "/v1/publishers/daily/items/by-external/nope", NULL, NULL, 404,
                   "not_found", NULL);
    assert_problem(&world.api, "PUT", "/v1/items/12345", NULL, "{}", 405, "method_not_allowed", NULL);
}

static void wrong_input_is_named_and_changes_nothing(void **state)
{
    (void)state;
    static const struct {
        const char *body, *pointer;
    } cases[] = {
        {"{\"publisher\":\"d\",\"title\":\"t\",\"body\":\"b\",\"titel\":\"x\"}", "/titel"},
        {"{\"publisher\":\"d d\",\"title\":\"t\",\"body\":\"b\"}", "/publisher"},
        {"{\"publisher\":\"d\",\"title\":\"t\"}", "/body"},
        {"{\"publisher\":\"d\",\"title\":\"t\",\"body\":\"b\",\"media\":[{\"type\":\"a/b\"}]}",
         "/media/0/url"},
        {"{\"publisher\":\"d\",\"title\":\"t\",\"body\":\"b\",\"published_at\":\"2999-01-01T00:00:00Z\"}",
         "/published_at"},
        {"{\"publisher\":\"d\",\"title\":\"t\",\"title\":\"u\",\"body\":\"b\"}", ""},
        {"{\"publisher\":\"d\",\"title\":\"a\\u0000b\",\"body\":\"b\"}", ""},
        {"{\"publisher\":\"d\",\"title\":\"t\",\"body\":\"b\"", ""},
        {"[]", ""},
    };
    for (size_t i = 0; i < MEM_COUNT(cases); i++)
        assert_problem(&world.api, "POST", "/v1/items", NULL, cases[i].body, 400, "invalid_request",
                       cases[i].pointer);
    assert_problem(&world.api, "POST", "/v1/items", "Content-Type: text/plain\r\n", "{}", 415,
                   "unsupported_media_type", NULL);
    assert_problem(&world.api, "POST", "/v1/items?dry=1", NULL, "{}", 400, "invalid_request", "?dry");
    char *big = mem_alloc(140001);
    memset(big, ' ', 140000);
    big[140000] = '\0';
    assert_problem(&world.api, "POST", "/v1/items", NULL, big, 413, "too_large", NULL);
    free(big);
    json_t *page = e2e_json(&world.api, "GET", "/v1/publishers/d", NULL, 200);
    assert_int_equal(number(page, "items"), 0);
    json_decref(page);
}

static void an_idempotency_key_stands_in_for_an_external_id(void **state)
{
    (void)state;
    struct reply r;
    const char *body = "{\"publisher\":\"daily\",\"title\":\"once\",\"body\":\"b\"}";
    char id[32] = "";
    for (int i = 0; i < 3; i++) {
        assert_int_equal(e2e_try(&world.api, "POST", "/v1/items", "Idempotency-Key: order-66\r\n", body, &r),
                         0);
        assert_int_equal(r.status, i == 0 ? 201 : 200);
        json_t *o = reply_json(&r);
        if (i == 0)
            snprintf(id, sizeof id, "%s", text(o, "id"));
        assert_string_equal(text(o, "id"), id);
        assert_string_equal(text(o, "result"), i == 0 ? "created" : "unchanged");
        json_decref(o);
        reply_done(&r);
    }
    json_t *o = e2e_json(&world.api, "GET", "/v1/publishers/daily/items/by-external/order-66", NULL, 200);
    assert_string_equal(text(o, "id"), id);
    json_decref(o);
    char *longer = mem_printf("Idempotency-Key: %0300d\r\n", 1);
    assert_problem(&world.api, "POST", "/v1/items", longer, body, 400, "invalid_request", NULL);
    free(longer);
}

static void if_match_guards_a_patch(void **state)
{
    (void)state;
    struct reply r;
    json_t *made = post("{\"publisher\":\"daily\",\"title\":\"t\",\"body\":\"b\"}", 201);
    char *path = item_path(text(made, "id"));
#define MERGE "Content-Type: application/merge-patch+json\r\n"
    assert_problem(&world.api, "PATCH", path, MERGE "If-Match: \"2\"\r\n", "{\"title\":\"x\"}", 412,
                   "precondition_failed", NULL);
    assert_problem(&world.api, "PATCH", path, MERGE "If-Match: 1\r\n", "{\"title\":\"x\"}", 400,
                   "invalid_request", NULL);
    assert_problem(&world.api, "PATCH", path, MERGE, "{\"publisher\":\"x\"}", 400, "invalid_request",
                   "/publisher");
    assert_problem(&world.api, "PATCH", path, MERGE, "{\"published_at\":null}", 400, "invalid_request",
                   "/published_at");
    assert_int_equal(e2e_try(&world.api, "PATCH", path, MERGE "If-Match: \"1\"\r\n", "{\"title\":\"x\"}", &r),
                     0);
    assert_int_equal(r.status, 200);
    reply_done(&r);
    assert_int_equal(e2e_try(&world.api, "PATCH", path, "Content-Type: application/json\r\nIf-Match: *\r\n",
                             "{\"title\":\"x\"}", &r),
                     0);
    json_t *o = reply_json(&r);
    assert_string_equal(text(o, "result"), "unchanged");
    assert_int_equal(number(o, "revision"), 2);
    assert_non_null(reply_header(&r, "Feed-Position"));
    json_decref(o);
    reply_done(&r);
    json_decref(made);
    free(path);
}

static void external_ids_may_hold_anything(void **state)
{
    (void)state;
    json_t *made = post("{\"publisher\":\"zeit\\u00fcng\",\"external_id\":\"a/b "
                        "c?d=\\u00e4&%\",\"title\":\"t\",\"body\":\"b\"}",
                        201);
    const char *path = "/v1/publishers/zeit%C3%BCng/items/by-external/a%2Fb%20c%3Fd%3D%C3%A4%26%25";
    json_t *o = e2e_json(&world.api, "GET", path, NULL, 200);
    assert_string_equal(text(o, "id"), text(made, "id"));
    e2e_write(&world.api, "DELETE", "%s", path);
    e2e_write(&world.api, "DELETE", "%s", path);
    assert_problem(&world.api, "GET", path, NULL, NULL, 410, "gone", NULL);
    json_decref(o);
    json_decref(made);
}

static void a_list_of_ids_leaves_out_what_is_not_there(void **state)
{
    (void)state;
    json_t *a = post("{\"publisher\":\"daily\",\"title\":\"a\",\"body\":\"b\"}", 201);
    json_t *b = post("{\"publisher\":\"daily\",\"title\":\"b\",\"body\":\"b\"}", 201);
    json_t *c = post("{\"publisher\":\"daily\",\"title\":\"c\",\"body\":\"b\"}", 201);
    e2e_write(&world.api, "DELETE", "/v1/items/%s", text(b, "id"));
    char *path = mem_printf("/v1/items?ids=%s,%s,17,%s,%s", text(c, "id"), text(b, "id"), text(a, "id"),
                            text(c, "id"));
    for (int i = 0; i < 2; i++) {
        json_t *o = e2e_json(i == 0 ? &world.api : &world.other, "GET", path, NULL, 200),
               *items = json_object_get(o, "items");
        assert_int_equal(json_array_size(items), 2);
        assert_string_equal(text(json_array_get(items, 0), "title"), "c");
        assert_string_equal(text(json_array_get(items, 1), "title"), "a");
        json_decref(o);
    }
    assert_problem(&world.api, "GET", "/v1/items", NULL, NULL, 400, "invalid_request", "?ids");
    assert_problem(&world.api, "GET", "/v1/items?ids=", NULL, NULL, 400, "invalid_request", "?ids");
    assert_problem(&world.api, "GET", "/v1/items?ids=1,,2", NULL, NULL, 400, "invalid_request", "?ids");
    struct buf many;
    buf_init(&many, 10000);
    buf_add_str(&many, "/v1/items?ids=1");
    for (int i = 2; i <= 101; i++)
        buf_printf(&many, ",%d", i);
    assert_problem(&world.api, "GET", many.data, NULL, NULL, 400, "invalid_request", "?ids");
    buf_done(&many);
    json_decref(a);
    json_decref(b);
    json_decref(c);
    free(path);
}

static void a_publisher_key_writes_for_its_own_names_only(void **state)
{
    (void)state;
    struct e2e_api mine = with_key("publisher", "[\"mine\",\"mine-too\"]"),
                   service = with_key("service", NULL);
    const char *own = "{\"publisher\":\"mine\",\"external_id\":\"1\",\"title\":\"t\",\"body\":\"b\"}";
    const char *foreign = "{\"publisher\":\"theirs\",\"external_id\":\"1\",\"title\":\"t\",\"body\":\"b\"}";
    json_t *o = e2e_json(&mine, "POST", "/v1/items", own, 201), *theirs = post(foreign, 201);
    char *path = item_path(text(o, "id")), *their_path = item_path(text(theirs, "id"));
    assert_problem(&mine, "POST", "/v1/items", NULL, foreign, 403, "forbidden", NULL);
    assert_problem(&mine, "PATCH", their_path, NULL, "{\"title\":\"x\"}", 403, "forbidden", NULL);
    assert_problem(&mine, "DELETE", their_path, NULL, NULL, 403, "forbidden", NULL);
    assert_problem(&mine, "DELETE", "/v1/publishers/theirs/items/by-external/1", NULL, NULL, 403, "forbidden",
                   NULL);
    assert_problem(&mine, "PUT", "/v1/publishers/theirs", NULL, "{}", 403, "forbidden", NULL);
    assert_problem(&mine, "PUT", "/v1/topics/sport", NULL, "{}", 403, "forbidden", NULL);
    assert_problem(&service, "POST", "/v1/items", NULL, own, 403, "forbidden", NULL);
    assert_problem(&service, "PATCH", path, NULL, "{\"title\":\"x\"}", 403, "forbidden", NULL);
    json_decref(e2e_json(&mine, "PUT", "/v1/publishers/mine-too", "{\"title\":\"Mine\"}", 200));
    json_decref(e2e_json(&mine, "GET", their_path, NULL, 200));
    json_decref(e2e_json(&service, "GET", their_path, NULL, 200));
    struct e2e_api nobody = {.port = world.api.port};
    assert_problem(&nobody, "GET", their_path, NULL, NULL, 401, "unauthorized", NULL);
    e2e_write(&mine, "DELETE", "%s", path);
    e2e_api_done(&mine);
    e2e_api_done(&service);
    e2e_api_done(&nobody);
    json_decref(o);
    json_decref(theirs);
    free(path);
    free(their_path);
}

/* ---- bulk ---- */

static json_t *bulk(struct e2e_api *a, const char *body, struct reply *r)
{
    assert_int_equal(e2e_try(a, "POST", "/v1/items/bulk", "Content-Type: application/x-ndjson\r\n", body, r),
                     0);
    if (r->status != 200)
        fail_msg("bulk: %d %s", r->status, r->body);
    assert_string_equal(reply_header(r, "Content-Type"), "application/x-ndjson");
    json_t *lines = json_array();
    for (char *s = r->body, *end; *s != '\0'; s = end + 1) {
        end = strchr(s, '\n');
        assert_non_null(end);
        json_array_append_new(lines, json_loadb(s, (size_t)(end - s), 0, NULL));
    }
    return lines;
}

static void a_bulk_request_answers_line_by_line(void **state)
{
    (void)state;
    struct e2e_api key = with_key("publisher", "[\"bulky\"]");
    struct reply r;
    json_t *l = bulk(&key,
                     "{\"publisher\":\"bulky\",\"external_id\":\"1\",\"title\":\"t\",\"body\":\"b\"}\n"
                     "{\"publisher\":\"other\",\"external_id\":\"1\",\"title\":\"t\",\"body\":\"b\"}\n"
                     "{\"publisher\":\"bulky\",\"title\":5,\"body\":\"b\"}\n"
                     "\n"
                     "{\"op\":\"delete\",\"publisher\":\"bulky\",\"external_id\":\"1\"}\n"
                     "{\"publisher\":\"bulky\",\"external_id\":\"2\",\"title\":\"t\",\"body\":\"b\"}",
                     &r);
    static const int statuses[] = {201, 403, 400, 400, 200, 201};
    ts_t newest = 0;
    assert_int_equal(json_array_size(l), 6);
    for (size_t i = 0; i < 6; i++) {
        json_t *line = json_array_get(l, i), *problem = json_object_get(line, "problem");
        ts_t t;
        assert_int_equal(number(line, "line"), i + 1);
        assert_int_equal(number(line, "status"), statuses[i]);
        if (statuses[i] >= 400) {
            assert_int_equal(number(problem, "status"), statuses[i]);
        } else {
            assert_int_equal(ts_parse(text(line, "position"), &t, NULL), 0);
            newest = ts_max(newest, t);
        }
    }
    assert_string_equal(text(json_array_get(l, 4), "result"), "deleted");
    assert_string_equal(
        text(json_array_get(json_object_get(json_object_get(json_array_get(l, 2), "problem"), "errors"), 0),
             "pointer"),
        "/title");
    ts_t header = 0;
    e2e_position(&r, &header);
    assert_true(header == newest);
    char *path = item_path(text(json_array_get(l, 0), "id"));
    assert_problem(&world.api, "GET", path, NULL, NULL, 410, "gone", NULL);
    free(path);
    json_decref(l);
    reply_done(&r);
    e2e_api_done(&key);
}

static void a_bulk_request_of_more_than_a_thousand_lines_does_nothing(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 1 << 20);
    for (int i = 0; i < 1001; i++)
        buf_printf(&b, "{\"publisher\":\"toomany\",\"external_id\":\"%d\",\"title\":\"t\",\"body\":\"b\"}\n",
                   i);
    assert_problem(&world.api, "POST", "/v1/items/bulk", "Content-Type: application/x-ndjson\r\n", b.data,
                   413, "too_large", NULL);
    assert_problem(&world.api, "GET", "/v1/publishers/toomany/items/by-external/0", NULL, NULL, 404,
                   "not_found", NULL);
    assert_problem(&world.api, "POST", "/v1/items/bulk", NULL, b.data, 415, "unsupported_media_type", NULL);
    buf_done(&b);
}

/* ---- publishers and topics ---- */

struct counted {
    const char *path;
    int followers, items;
};

static bool is_counted(void *arg)
{
    const struct counted *want = arg;
    json_t *o = e2e_json(&world.api, "GET", want->path, NULL, 200);
    bool done = number(o, "followers") == want->followers && number(o, "items") == want->items;
    json_decref(o);
    return done;
}

static void profiles_and_counts_of_publishers_and_topics(void **state)
{
    (void)state;
    json_t *o = e2e_json(&world.api, "GET", "/v1/publishers/unheard-of", NULL, 200);
    char *s = json_dumps(o, JSON_COMPACT);
    assert_string_equal(s, "{\"publisher\":\"unheard-of\",\"title\":null,\"icon\":null,\"url\":null,"
                           "\"extra\":{},\"followers\":0,"
                           "\"items\":0,\"mode\":\"push\"}");
    free(s);
    json_decref(o);
    struct reply r;
    e2e_call(&world.api, "PUT", "/v1/publishers/counted",
             "{\"title\":\"The C\",\"icon\":\"https://x.org/c\"}", 200, &r);
    assert_non_null(reply_header(&r, "Feed-Position"));
    reply_done(&r);
    o = e2e_json(&world.api, "GET", "/v1/publishers/counted", NULL, 200);
    assert_string_equal(text(o, "title"), "The C");
    json_decref(o);
    o = post("{\"publisher\":\"counted\",\"title\":\"t\",\"body\":\"b\",\"topics\":[\"ct\"]}", 201);
    e2e_write(&world.api, "PUT", "/v1/users/ann/follows/publisher/counted");
    e2e_write(&world.api, "PUT", "/v1/users/ann/follows/topic/ct");
    e2e_write(&world.api, "PUT", "/v1/users/bob/follows/topic/ct");
    struct counted publisher = {"/v1/publishers/counted", 1, 1}, topic = {"/v1/topics/ct", 2, 1};
    assert_true(fixture_until(is_counted, &publisher, 10000));
    assert_true(fixture_until(is_counted, &topic, 10000));
    e2e_write(&world.api, "DELETE", "/v1/items/%s", text(o, "id"));
    e2e_write(&world.api, "DELETE", "/v1/users/bob/follows/topic/ct");
    topic = (struct counted){"/v1/topics/ct", 1, 0};
    assert_true(fixture_until(is_counted, &topic, 10000));
    json_decref(o);
    assert_problem(&world.api, "PUT", "/v1/publishers/counted", NULL, "{\"name\":\"x\"}", 400,
                   "invalid_request", "/name");
    assert_problem(&world.api, "PUT", "/v1/topics/ct", NULL, "{\"icon\":\"x\"}", 400, "invalid_request",
                   "/icon");
}

static void a_list_of_publishers_pages_by_cursor(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++) {
        char *path = mem_printf("/v1/publishers/listed-%d", i);
        json_decref(e2e_json(&world.api, "PUT", path, "{}", 200));
        free(path);
    }
    char cursor[1500] = "";
    int seen = 0, pages = 0;
    do {
        char *path =
            mem_printf("/v1/publishers?prefix=listed-&limit=2%s%s", cursor[0] ? "&cursor=" : "", cursor);
        json_t *o = e2e_json(&world.api, "GET", path, NULL, 200), *list = json_object_get(o, "publishers");
        for (size_t i = 0; i < json_array_size(list); i++) {
            char want[32];
            snprintf(want, sizeof want, "listed-%d", seen++);
            assert_string_equal(text(json_array_get(list, i), "publisher"), want);
        }
        snprintf(cursor, sizeof cursor, "%s", text(o, "next"));
        pages++;
        json_decref(o);
        free(path);
        if (cursor[0] != '\0') {
            char *other = mem_printf("/v1/publishers?prefix=other&cursor=%s", cursor),
                 *topics = mem_printf("/v1/topics?cursor=%s", cursor);
            char *without = mem_printf("/v1/publishers?cursor=%s", cursor);
            assert_problem(&world.api, "GET", other, NULL, NULL, 400, "invalid_cursor", NULL);
            assert_problem(&world.api, "GET", topics, NULL, NULL, 400, "invalid_cursor", NULL);
            json_decref(e2e_json(&world.other, "GET", without, NULL, 200));
            free(other);
            free(topics);
            free(without);
        }
    } while (cursor[0] != '\0');
    assert_int_equal(seen, 5);
    assert_int_equal(pages, 3);
    assert_problem(&world.api, "GET", "/v1/publishers?cursor=", NULL, NULL, 400, "invalid_cursor", NULL);
    assert_problem(&world.api, "GET", "/v1/publishers?limit=0", NULL, NULL, 400, "invalid_request", "?limit");
    assert_problem(&world.api, "GET", "/v1/publishers?prefix=a%20b", NULL, NULL, 400, "invalid_request",
                   "?prefix");
}

/* ---- the promises ---- */

static void P1_an_item_that_was_answered_survives_kill_9_of_feed_api(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++) {
        char title[32];
        snprintf(title, sizeof title, "durable %d", i);
        char *body = mem_printf("{\"publisher\":\"durable\",\"title\":\"%s\",\"body\":\"b\"}", title);
        json_t *made = post(body, 201);
        server_kill(world.process);
        e2e_api_drop(&world.api);
        fixture_restart(world.f, world.process);
        char *path = item_path(text(made, "id"));
        json_t *got = e2e_json(&world.api, "GET", path, NULL, 200);
        assert_string_equal(text(got, "title"), title);
        json_decref(got);
        json_decref(made);
        free(path);
        free(body);
    }
}

struct asked {
    const char *path;
    int status; /* the one hoped for */
    char title[64];
};

static bool is_answered(void *arg)
{
    struct asked *a = arg;
    struct reply r;
    if (e2e_try(&world.other, "GET", a->path, NULL, NULL, &r) != 0)
        return false;
    bool good = r.status == a->status;
    if (good && r.status == 200) {
        json_t *o = reply_json(&r);
        snprintf(a->title, sizeof a->title, "%s", text(o, "title"));
        json_decref(o);
    }
    reply_done(&r);
    return good;
}

#define PROBE "{\"publisher\":\"probe\",\"external_id\":\"1\",\"title\":\"t\",\"body\":\"b\"}"

static bool can_post(void *arg)
{
    struct reply r;
    if (e2e_try(&world.api, "POST", "/v1/items", NULL, arg, &r) != 0)
        return false;
    bool good = r.status < 300;
    assert_true(good || r.status == 503);
    if (!good)
        assert_non_null(reply_header(&r, "Retry-After"));
    reply_done(&r);
    return good;
}

static void P1_an_item_that_was_answered_survives_kill_9_of_mongod(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        char title[32];
        snprintf(title, sizeof title, "journaled %d", i);
        char *body = mem_printf("{\"publisher\":\"durable\",\"title\":\"%s\",\"body\":\"b\"}", title);
        json_t *made = post(body, 201);
        server_kill(fixture_mongod(world.f));
        fixture_restart(world.f, fixture_mongod(world.f));
        char *path = item_path(text(made, "id"));
        /* asked at the other process, which has not cached it */
        struct asked a = {.path = path, .status = 200};
        assert_true(fixture_until(is_answered, &a, 20000));
        assert_string_equal(a.title, title);
        assert_true(fixture_until(can_post, (void *)(uintptr_t)PROBE, 20000));
        json_decref(made);
        free(path);
        free(body);
    }
}

static void P2_a_retry_after_a_lost_answer_stores_nothing_twice(void **state)
{
    (void)state;
    for (int i = 0; i < 6; i++) {
        char *body =
            mem_printf("{\"publisher\":\"retry\",\"external_id\":\"r%d\",\"title\":\"t\",\"body\":\"b\"}", i);
        struct rawhttp *lost = e2e_send(&world.api, "POST", "/v1/items", NULL, body);
        if (i % 2 == 0)
            server_kill(world.process);
        else
            server_kill(fixture_mongod(world.f));
        rawhttp_close(lost);
        e2e_api_drop(&world.api);
        fixture_restart(world.f, i % 2 == 0 ? world.process : fixture_mongod(world.f));
        assert_true(fixture_until(can_post, body, 20000));
        json_t *again = post(body, 200);
        assert_string_equal(text(again, "result"), "unchanged");
        assert_int_equal(number(again, "revision"), 1);
        json_decref(again);
        free(body);
    }
    struct e2e_page page;
    e2e_page(&world.api, "/v1/publishers/retry/items", "limit=100", NULL, 0, &page);
    assert_int_equal(page.n, 6);
    e2e_page_done(&page);
}

static void P2_sixteen_equal_posts_at_once_are_one_item(void **state)
{
    (void)state;
    const char *body = "{\"publisher\":\"crowd\",\"external_id\":\"one\",\"title\":\"t\",\"body\":\"b\"}";
    struct rawhttp *conns[16];
    char id[32] = "";
    int created = 0;
    for (int i = 0; i < 16; i++)
        conns[i] = e2e_send(i % 2 == 0 ? &world.api : &world.other, "POST", "/v1/items", NULL, body);
    for (int i = 0; i < 16; i++) {
        struct reply r;
        assert_non_null(conns[i]);
        rawhttp_read(conns[i], "POST", &r);
        if (r.status != 200 && r.status != 201)
            fail_msg("%d %s", r.status, r.body);
        created += r.status == 201;
        json_t *o = reply_json(&r);
        if (id[0] == '\0')
            snprintf(id, sizeof id, "%s", text(o, "id"));
        assert_string_equal(text(o, "id"), id);
        assert_int_equal(number(o, "revision"), 1);
        json_decref(o);
        reply_done(&r);
        rawhttp_close(conns[i]);
    }
    assert_int_equal(created, 1);
}

static void P5_the_process_that_answered_shows_a_write_at_once(void **state)
{
    (void)state;
    json_t *made = post("{\"publisher\":\"daily\",\"title\":\"0\",\"body\":\"b\"}", 201);
    char *path = item_path(text(made, "id"));
    for (int i = 1; i <= 50; i++) {
        char *patch = mem_printf("{\"title\":\"%d\"}", i), title[16];
        snprintf(title, sizeof title, "%d", i);
        json_decref(e2e_json(&world.api, "PATCH", path, patch, 200));
        json_t *got = e2e_json(&world.api, "GET", path, NULL, 200);
        assert_string_equal(text(got, "title"), title);
        json_decref(got);
        free(patch);
    }
    e2e_write(&world.api, "DELETE", "%s", path);
    assert_problem(&world.api, "GET", path, NULL, NULL, 410, "gone", NULL);
    json_decref(made);
    free(path);
}

static bool is_gone_at_other(void *arg)
{
    struct reply r;
    if (e2e_try(&world.other, "GET", arg, NULL, NULL, &r) != 0)
        return false;
    bool gone = r.status == 410;
    reply_done(&r);
    return gone;
}

static void P5_another_process_shows_a_delete_within_a_second(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++) {
        json_t *made = post("{\"publisher\":\"daily\",\"title\":\"t\",\"body\":\"b\"}", 201);
        char *path = item_path(text(made, "id"));
        json_decref(e2e_json(&world.other, "GET", path, NULL, 200)); /* it is in that one's cache now */
        e2e_write(&world.api, "DELETE", "%s", path);
        /* usually within milliseconds; a request that is sent after a second must not show it, whatever
         * happens */
        if (!fixture_until(is_gone_at_other, path, 1000))
            assert_true(is_gone_at_other(path));
        json_decref(made);
        free(path);
    }
}

static void P10_without_mongod_writes_are_503_and_what_is_cached_is_read(void **state)
{
    (void)state;
    const char *body = "{\"publisher\":\"daily\",\"external_id\":\"dark\",\"title\":\"t\",\"body\":\"b\"}";
    json_t *made = post("{\"publisher\":\"daily\",\"title\":\"kept\",\"body\":\"b\"}", 201);
    server_kill(fixture_mongod(world.f));
    struct reply r;
    assert_int_equal(e2e_try(&world.api, "POST", "/v1/items", NULL, body, &r), 0);
    assert_int_equal(r.status, 503);
    assert_non_null(reply_header(&r, "Retry-After"));
    reply_done(&r);
    assert_int_equal(
        e2e_try(&world.api, "POST", "/v1/items/bulk", "Content-Type: application/x-ndjson\r\n", body, &r), 0);
    assert_int_equal(r.status, 503);
    reply_done(&r);
    char *path = item_path(text(made, "id"));
    json_decref(e2e_json(&world.api, "GET", path, NULL, 200));
    assert_problem(&world.api, "GET", "/v1/items/4711", NULL, NULL, 503, "unavailable", NULL);
    fixture_restart(world.f, fixture_mongod(world.f));
    assert_true(fixture_until(can_post, (void *)(uintptr_t)body, 20000));
    json_decref(e2e_json(&world.api, "GET", path, NULL, 200));
    json_decref(made);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_item_lives_from_post_to_delete),
        cmocka_unit_test(what_never_was_is_not_found),
        cmocka_unit_test(wrong_input_is_named_and_changes_nothing),
        cmocka_unit_test(an_idempotency_key_stands_in_for_an_external_id),
        cmocka_unit_test(if_match_guards_a_patch),
        cmocka_unit_test(external_ids_may_hold_anything),
        cmocka_unit_test(a_list_of_ids_leaves_out_what_is_not_there),
        cmocka_unit_test(a_publisher_key_writes_for_its_own_names_only),
        cmocka_unit_test(a_bulk_request_answers_line_by_line),
        cmocka_unit_test(a_bulk_request_of_more_than_a_thousand_lines_does_nothing),
        cmocka_unit_test(profiles_and_counts_of_publishers_and_topics),
        cmocka_unit_test(a_list_of_publishers_pages_by_cursor),
        cmocka_unit_test(P2_sixteen_equal_posts_at_once_are_one_item),
        cmocka_unit_test(P5_the_process_that_answered_shows_a_write_at_once),
        cmocka_unit_test(P5_another_process_shows_a_delete_within_a_second),
        cmocka_unit_test(P1_an_item_that_was_answered_survives_kill_9_of_feed_api),
        cmocka_unit_test(P1_an_item_that_was_answered_survives_kill_9_of_mongod),
        cmocka_unit_test(P2_a_retry_after_a_lost_answer_stores_nothing_twice),
        cmocka_unit_test(P10_without_mongod_writes_are_503_and_what_is_cached_is_read),
    };
    return cmocka_run_group_tests(tests, start_world, stop_world);
}
