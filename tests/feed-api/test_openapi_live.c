/* What a running stack answers is what openapi.yaml says: statuses, headers, content types, members, and the
 * caps of what it takes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/mongo.h"
#include "feed-api/openapi.h"
#include "tests/support/api.h"
#include "tests/support/spec.h"

struct live {
    struct api *api;
    json_t *spec;
    char id[24];       /* of an item of "daily" with external_id "one" */
    char position[24]; /* of its publication */
};

/* ---- looking up ---- */

static json_t *find_operation(struct live *l, const char *operation, const char **method, const char **path)
{
    json_t *item, *op;
    json_object_foreach(json_object_get(l->spec, "paths"), *path, item)
    {
        json_object_foreach(item, *method, op)
        {
            const char *id = json_string_value(json_object_get(op, "operationId"));
            if (id != NULL && strcmp(id, operation) == 0)
                return op;
        }
    }
    fail_msg("there is no operation %s", operation);
    return NULL;
}

static json_t *find_response(struct live *l, json_t *op, int status)
{
    char number[16];
    snprintf(number, sizeof number, "%d", status);
    json_t *all = json_object_get(op, "responses"), *one = json_object_get(all, number);
    return spec_deref(l->spec, one != NULL ? one : json_object_get(all, "default"));
}

/* ---- checks of an answer ---- */

static void check_value(struct live *l, const char *operation, json_t *schema, const json_t *value)
{
    char why[SPEC_WHY_SIZE];
    if (spec_matches(l->spec, schema, value, why))
        return;
    char *text = json_dumps(value, JSON_ENCODE_ANY);
    fail_msg("%s: %s in %.1500s", operation, why, text);
}

static void check_lines(struct live *l, const char *operation, json_t *schema, const struct reply *r)
{
    for (const char *s = r->body; *s != '\0';) {
        size_t n = strcspn(s, "\n");
        json_t *line = json_loadb(s, n, 0, NULL);
        assert_non_null(line);
        check_value(l, operation, schema, line);
        json_decref(line);
        s += n + (s[n] == '\n');
    }
}

static void check_content(struct live *l, const char *operation, json_t *response, const struct reply *r)
{
    json_t *content = json_object_get(response, "content"), *described = NULL;
    const char *type = reply_header(r, "Content-Type");
    if (content == NULL) {
        assert_int_equal(r->len, 0);
        return;
    }
    assert_non_null(type);
    char *plain = mem_strndup(type, strcspn(type, "; "));
    described = json_object_get(content, plain);
    if (described == NULL)
        fail_msg("%s: %d is of type %s, which is not described", operation, r->status, plain);
    json_t *lines = json_object_get(described, "x-line"), *schema = json_object_get(described, "schema");
    if (lines != NULL) {
        check_lines(l, operation, lines, r);
    } else {
        json_t *value = strstr(plain, "json") != NULL ? reply_json(r) : json_stringn(r->body, r->len);
        check_value(l, operation, schema, value);
        json_decref(value);
    }
    free(plain);
}

/* Every header that is described as required is there, and of those that mean something none that is not
 * described. */
static void check_headers(struct live *l, const char *operation, json_t *response, const struct reply *r)
{
    static const char *const ours[] = {"Feed-Position", "Location",         "Retry-After",   "Allow",
                                       "Vary",          "WWW-Authenticate", "Cache-Control", "X-Request-Id",
                                       "ETag",          "Content-Encoding"};
    json_t *described = json_object_get(response, "headers");
    for (size_t i = 0; i < MEM_COUNT(ours); i++) {
        const char *text = reply_header(r, ours[i]);
        json_t *header = spec_get(l->spec, described, ours[i]);
        if (text != NULL && header == NULL)
            fail_msg("%s: %d has %s, which is not described", operation, r->status, ours[i]);
        if (text == NULL && json_is_true(json_object_get(header, "required")))
            fail_msg("%s: %d has no %s", operation, r->status, ours[i]);
        if (text == NULL)
            continue;
        json_t *schema = spec_get(l->spec, header, "schema");
        const char *type = json_string_value(json_object_get(schema, "type"));
        json_t *value = strcmp(type, "integer") == 0 ? json_integer(atoll(text)) : json_string(text);
        check_value(l, operation, schema, value);
        json_decref(value);
    }
}

static void check_problem(const char *operation, json_t *response, const struct reply *r)
{
    json_t *words = json_object_get(response, "x-problems"), *word;
    size_t i;
    if (words == NULL)
        return;
    json_t *o = reply_json(r);
    const char *type = json_string_value(json_object_get(o, "type"));
    bool found = false;
    json_array_foreach(words, i, word)
    {
        found |= strcmp(type + strlen("/problems/"), json_string_value(word)) == 0;
    }
    if (!found)
        fail_msg("%s: %s is not described for %d", operation, type, r->status);
    json_decref(o);
}

/* ---- asking ---- */

/* Sends a request of an operation and checks the answer against its description. target is the path and query
 * as sent; status 0: any. */
static void ask_into(struct live *l, const char *operation, const char *target, const char *extra,
                     const char *body, int status, struct reply *r)
{
    const char *method, *path;
    char upper[8];
    json_t *op = find_operation(l, operation, &method, &path);
    for (size_t i = 0; i <= strlen(method); i++)
        upper[i] = (char)(method[i] >= 'a' ? method[i] - 32 : method[i]);
    api_request(l->api, upper, target, extra, body, r);
    if (status != 0 && r->status != status)
        fixture_fail(l->api->fixture, "%s %s answered %d instead of %d: %.400s", operation, target, r->status,
                     status, r->body);
    json_t *response = find_response(l, op, r->status);
    check_headers(l, operation, response, r);
    check_content(l, operation, response, r);
    check_problem(operation, response, r);
}

static void ask(struct live *l, const char *operation, const char *target, const char *body, int status)
{
    struct reply r;
    ask_into(l, operation, target, NULL, body, status, &r);
    reply_done(&r);
}

static void ask_with(struct live *l, const char *operation, const char *target, const char *extra,
                     const char *body, int status)
{
    struct reply r;
    ask_into(l, operation, target, extra, body, status, &r);
    reply_done(&r);
}

static int set_up(void **state)
{
    struct live *l = mem_zero(1, sizeof *l);
    struct reply r;
    l->api = api_start(API_ALL, "--demo", "yes", NULL);
    l->spec = spec_parse(openapi_yaml, openapi_yaml_len());
    ask_into(
        l, "publishItem", "/v1/items", NULL,
        "{\"publisher\":\"daily\",\"external_id\":\"one\",\"title\":\"t\",\"body\":\"b\",\"url\":"
        "\"https://example.org/\",\"media\":[{\"url\":\"https://example.org/a.png\",\"type\":\"image/"
        "png\",\"width\":1,\"alt\":\"\"}],\"topics\":[\"sport\"],\"lang\":\"en\",\"extra\":{\"a\":[1,{}]}}",
        201, &r);
    json_t *o = reply_json(&r);
    snprintf(l->id, sizeof l->id, "%s", json_string_value(json_object_get(o, "id")));
    snprintf(l->position, sizeof l->position, "%s", reply_header(&r, "Feed-Position"));
    json_decref(o);
    reply_done(&r);
    *state = l;
    return 0;
}

static int tear_down(void **state)
{
    struct live *l = *state;
    json_decref(l->spec);
    api_stop(l->api);
    free(l);
    return 0;
}

static int as_admin(void **state)
{
    struct live *l = *state;
    api_as(l->api, NULL);
    return 0;
}

/* ---- answers ---- */

static void the_document_is_served(void **state)
{
    struct live *l = *state;
    struct reply r;
    api_as(l->api, "");
    ask_into(l, "getOpenapi", "/openapi.yaml", NULL, NULL, 200, &r);
    assert_int_equal(r.len, openapi_yaml_len());
    assert_memory_equal(r.body, openapi_yaml, r.len);
    reply_done(&r);
}

static void items_are_answered_as_described(void **state)
{
    struct live *l = *state;
    char path[64], query[64];
    snprintf(path, sizeof path, "/v1/items/%s", l->id);
    snprintf(query, sizeof query, "/v1/items?ids=%s,1", l->id);
    ask(l, "getItem", path, NULL, 200);
    ask(l, "listItems", query, NULL, 200);
    ask(l, "listItems", "/v1/items", NULL, 400);
    ask(l, "getItemByExternalId", "/v1/publishers/daily/items/by-external/one", NULL, 200);
    ask(l, "patchItem", path, "{\"url\":null,\"extra\":{\"b\":1.5}}", 200);
    ask(l, "getItem", path, NULL, 200);
    ask_with(l, "patchItem", path, "If-Match: \"77\"\r\n", "{\"title\":\"x\"}", 412);
    ask(l, "patchItem", path, "{\"publisher\":\"x\"}", 400);
    ask_with(l, "patchItem", path, "Content-Type: text/plain\r\n", "x", 415);
    ask(l, "publishItem", "/v1/items",
        "{\"publisher\":\"daily\",\"external_id\":\"one\",\"title\":\"t2\",\"body\":\"b\"}", 200);
    ask(l, "publishItem", "/v1/items", "{\"publisher\":\"daily\"}", 400);
    ask_with(l, "publishItem", "/v1/items", "Idempotency-Key: two\r\n",
             "{\"publisher\":\"daily\",\"title\":\"t\",\"body\":\"\"}", 201);
    ask(l, "deleteItemByExternalId", "/v1/publishers/daily/items/by-external/two", NULL, 204);
    ask(l, "getItemByExternalId", "/v1/publishers/daily/items/by-external/two", NULL, 410);
    ask(l, "getItem", "/v1/items/1", NULL, 404);
    ask(l, "getItem", "/v1/items/x", NULL, 404);
    ask(l, "deleteItem", "/v1/items/1", NULL, 404);
}

static void bulk_answers_are_described_line_by_line(void **state)
{
    static const char type[] = "Content-Type: application/x-ndjson\r\n";
    struct live *l = *state;
    ask_with(l, "bulkItems", "/v1/items/bulk", type,
             "{\"publisher\":\"bulk\",\"external_id\":\"a\",\"title\":\"t\",\"body\":\"b\"}\n"
             "{\"publisher\":\"bulk\",\"external_id\":\"a\",\"title\":\"t2\",\"body\":\"b\"}\n"
             "{\"op\":\"delete\",\"publisher\":\"bulk\",\"external_id\":\"a\"}\n"
             "{\"op\":\"delete\",\"publisher\":\"bulk\",\"external_id\":\"none\"}\n"
             "{\"publisher\":\"bulk\"}\nx\n",
             200);
    ask_with(l, "bulkFollow", "/v1/follows/bulk", type,
             "{\"user\":\"mover\",\"kind\":\"topic\",\"name\":\"sport\",\"since\":\"2020-01-01T00:00:00Z\"}\n"
             "{\"user\":\"mover\",\"kind\":\"topic\",\"name\":\"sport\"}\n{\"user\":\"mover\"}\n",
             200);
    const struct {
        const char *operation, *target;
    } bulks[] = {{"bulkItems", "/v1/items/bulk"}, {"bulkFollow", "/v1/follows/bulk"}};
    for (size_t i = 0; i < MEM_COUNT(bulks); i++) {
        const char *method, *path;
        json_t *body = json_object_get(find_operation(l, bulks[i].operation, &method, &path), "requestBody");
        size_t max = (size_t)json_integer_value(json_object_get(body, "x-max-lines"));
        char *lines = mem_zero(max + 2, 1);
        memset(lines, '\n', max);
        ask_with(l, bulks[i].operation, bulks[i].target, type, lines, 200);
        lines[max] = '\n';
        ask_with(l, bulks[i].operation, bulks[i].target, type, lines, 413);
        free(lines);
    }
}

static void pages_are_answered_as_described(void **state)
{
    struct live *l = *state;
    static const char *const fields[] = {"full", "summary", "ids"};
    char target[256];
    ask(l, "follow", "/v1/users/ann/follows/publisher/daily", NULL, 204);
    for (size_t i = 0; i < MEM_COUNT(fields); i++) {
        snprintf(target, sizeof target, "/v1/users/ann/feed?fields=%s&position=%s", fields[i], l->position);
        ask(l, "getFeed", target, NULL, 200);
        snprintf(target, sizeof target, "/v1/publishers/daily/items?fields=%s&limit=1", fields[i]);
        ask(l, "listPublisherItems", target, NULL, 200);
        snprintf(target, sizeof target, "/v1/topics/sport/items?fields=%s", fields[i]);
        ask(l, "listTopicItems", target, NULL, 200);
    }
    ask(l, "getFeed", "/v1/users/ann/feed?order=ranked", NULL, 200);
    ask(l, "getFeed", "/v1/users/nobody/feed?order=ranked&limit=100", NULL, 200);
    ask(l, "getFeed", "/v1/users/ann/feed?limit=0", NULL, 400);
    ask(l, "getFeed", "/v1/users/ann/feed?limit=101", NULL, 400);
    ask(l, "getFeed", "/v1/users/ann/feed?cursor=x", NULL, 400);
    ask(l, "getFeed", "/v1/users/ann/feed?position=ffffffffffffffff", NULL, 400);
    ask(l, "getFeed", "/v1/users/ann/feed?profile=x", NULL, 400);
    ask(l, "listPublishers", "/v1/publishers?cursor=x", NULL, 400);
}

static void pages_that_a_client_has_are_answered_as_described(void **state)
{
    struct live *l = *state;
    static const char *const pages[][2] = {
        {"getFeed", "/v1/users/una/feed"},
        {"listPublisherItems", "/v1/publishers/daily/items"},
        {"listTopicItems", "/v1/topics/news/items"},
    };
    for (size_t i = 0; i < MEM_COUNT(pages); i++) {
        struct reply r;
        ask_into(l, pages[i][0], pages[i][1], NULL, NULL, 200, &r);
        char *extra = mem_printf("If-None-Match: %s\r\n", reply_header(&r, "ETag"));
        reply_done(&r);
        ask_into(l, pages[i][0], pages[i][1], extra, NULL, 304, &r);
        reply_done(&r);
        free(extra);
    }
}

static void what_belongs_to_a_user_is_answered_as_described(void **state)
{
    struct live *l = *state;
    char target[512];
    struct reply r;
    ask_into(l, "getFeed", "/v1/users/una/feed", NULL, NULL, 200, &r);
    json_t *page = reply_json(&r);
    const char *newest = json_string_value(json_object_get(page, "newest"));
    reply_done(&r);
    snprintf(target, sizeof target, "/v1/users/una/feed?after=%s", newest);
    ask(l, "getFeed", target, NULL, 200);
    snprintf(target, sizeof target, "/v1/users/una/feed?order=ranked&after=%s", newest);
    ask(l, "getFeed", target, NULL, 400);
    snprintf(target, sizeof target, "/v1/users/una/feed/count?after=%s", newest);
    ask(l, "countFeed", target, NULL, 200);
    json_decref(page);
    ask(l, "countFeed", "/v1/users/una/feed/count", NULL, 200);
    ask(l, "countFeed", "/v1/users/una/feed/count?after=x", NULL, 400);
    ask(l, "getMarker", "/v1/users/una/feed/marker", NULL, 200);
    ask(l, "putMarker", "/v1/users/una/feed/marker", "{\"id\":\"5\"}", 200);
    ask(l, "putMarker", "/v1/users/una/feed/marker", "{\"id\":\"4\",\"force\":true}", 200);
    ask(l, "putMarker", "/v1/users/una/feed/marker", "{\"id\":4}", 400);
    ask(l, "getMarker", "/v1/users/una/feed/marker", NULL, 200);
    snprintf(target, sizeof target, "/v1/users/una/feed/explain/%s", l->id);
    ask(l, "explainItem", target, NULL, 200);
    ask(l, "follow", "/v1/users/una/follows/publisher/daily", NULL, 204);
    ask(l, "mute", "/v1/users/una/mutes/word/t", NULL, 204);
    ask(l, "explainItem", target, NULL, 200);
    ask(l, "explainItem", "/v1/users/una/feed/explain/1", NULL, 404);
    ask(l, "explainItem", "/v1/users/una/feed/explain/x", NULL, 404);
    ask_into(l, "streamFeed", "/v1/users/una/feed/stream", "Last-Event-ID: x\r\n", NULL, 400, &r);
    reply_done(&r);
    ask(l, "endTokens", "/v1/users/una/tokens", NULL, 204);
    ask(l, "eraseUser", "/v1/users/una", NULL, 204);
    ask(l, "eraseUser", "/v1/users/una", NULL, 204);
}

/* What belongs to later milestones is unknown until then. */
static void what_is_not_described_is_refused(void **state)
{
    struct live *l = *state;
    static const char *const queries[] = {"after=x", "catchup=1", "terms=1", "stream=1"};
    static const char *const paths[] = {"/v1/users/ann/reactions?items=1", "/v1/profiles/default"};
    for (size_t i = 0; i < MEM_COUNT(queries); i++) {
        char *target = mem_printf("/v1/users/ann/feed?%s", queries[i]);
        ask(l, "getFeed", target, NULL, 400);
        free(target);
    }
    for (size_t i = 0; i < MEM_COUNT(paths); i++)
        assert_int_equal(api_status(l->api, "GET", paths[i], NULL), 404);
}

static void targets_are_answered_as_described(void **state)
{
    struct live *l = *state;
    ask(l, "getPublisher", "/v1/publishers/nobody", NULL, 200);
    ask(l, "putPublisher", "/v1/publishers/daily",
        "{\"title\":\"Daily\",\"icon\":\"https://example.org/i.png\",\"extra\":{\"a\":1}}", 200);
    ask(l, "getPublisher", "/v1/publishers/daily", NULL, 200);
    ask(l, "putTopic", "/v1/topics/sport", "{\"url\":\"https://example.org/\"}", 200);
    ask(l, "getTopic", "/v1/topics/sport", NULL, 200);
    ask(l, "putTopic", "/v1/topics/sport", "{\"name\":1}", 400);
    ask(l, "listPublishers", "/v1/publishers?limit=1", NULL, 200);
    ask(l, "listTopics", "/v1/topics?prefix=sp", NULL, 200);
}

static void the_graph_is_answered_as_described(void **state)
{
    struct live *l = *state;
    ask(l, "changeFollows", "/v1/users/bob/follows",
        "{\"add\":[{\"kind\":\"topic\",\"name\":\"sport\"}],\"remove\":[{\"kind\":\"publisher\",\"name\":"
        "\"x\"}]}",
        200);
    ask(l, "listFollows", "/v1/users/bob/follows?limit=1", NULL, 200);
    ask(l, "unfollow", "/v1/users/bob/follows/topic/sport", NULL, 204);
    ask(l, "follow", "/v1/users/bob/follows/person/x", NULL, 404);
    ask(l, "follow", "/v1/users/bob/follows/word/x", NULL, 400);
    ask(l, "changeMutes", "/v1/users/bob/mutes",
        "{\"add\":[{\"kind\":\"word\",\"name\":\"spoiler\"},{\"kind\":\"item\",\"name\":\"7\"}]}", 200);
    ask(l, "mute", "/v1/users/bob/mutes/publisher/daily", NULL, 204);
    ask(l, "unmute", "/v1/users/bob/mutes/publisher/daily", NULL, 204);
    ask(l, "listMutes", "/v1/users/bob/mutes", NULL, 200);
    ask(l, "listMutes", "/v1/users/bob/mutes?cursor=", NULL, 400);
}

static void events_keys_and_tokens_are_answered_as_described(void **state)
{
    struct live *l = *state;
    ask(l, "sendEvents", "/v1/users/bob/events",
        "{\"events\":[{\"type\":\"like\",\"item\":\"7\",\"event_id\":\"e\"},{\"type\":\"like\",\"item\":"
        "\"7\","
        "\"event_id\":\"e\"},{\"type\":\"no\",\"item\":\"7\"}]}",
        202);
    ask(l, "sendEvents", "/v1/users/bob/events", "{\"events\":[]}", 400);
    struct reply r;
    ask_into(l, "createKey", "/v1/keys", NULL, "{\"role\":\"publisher\",\"names\":[\"daily\"]}", 201, &r);
    json_t *o = reply_json(&r);
    char *path = mem_printf("/v1/keys/%s", json_string_value(json_object_get(o, "id")));
    api_as(l->api, json_string_value(json_object_get(o, "key")));
    ask(l, "getStatus", "/v1/status", NULL, 403);
    ask(l, "publishItem", "/v1/items", "{\"publisher\":\"other\",\"title\":\"t\",\"body\":\"\"}", 403);
    api_as(l->api, "");
    ask(l, "listKeys", "/v1/keys", NULL, 401);
    api_as(l->api, NULL);
    ask(l, "listKeys", "/v1/keys", NULL, 200);
    ask(l, "deleteKey", path, NULL, 204);
    ask(l, "deleteKey", path, NULL, 404);
    ask(l, "createToken", "/v1/tokens", "{\"user\":\"ann\",\"ttl_s\":60}", 200);
    ask(l, "createDemoToken", "/v1/demo/token", "{\"user\":\"ann\"}", 200);
    free(path);
    json_decref(o);
    reply_done(&r);
}

static void plant_letter(struct live *l)
{
    struct err e;
    struct mongo *m = NULL;
    struct mongo_conn *c = NULL;
    bson_error_t be;
    struct mongo_options o = {
        .uri = fixture_mongodb_uri(l->api->fixture), .app_name = "test", .pool_size = 1};
    if (mongo_new(&m, &o, &e) != 0 || mongo_conn_get(m, &c, &e) != 0)
        fail_msg("%s", e.msg);
    bson_t *d =
        BCON_NEW("_id", BCON_UTF8("timeline-7-ann"), "kind", BCON_UTF8("timeline"), "item", BCON_INT64(7),
                 "publisher", BCON_UTF8("daily"), "user", BCON_UTF8("ann"), "bucket", BCON_INT32(3), "t",
                 BCON_UTF8("0000000500000001"), "reason", BCON_UTF8("redis: no"), "tries", BCON_INT32(5),
                 "fanout", BCON_UTF8("fanout-9"), "first_at", BCON_DATE_TIME(1), "at", BCON_DATE_TIME(2),
                 "state", BCON_UTF8("dead"), "replays", BCON_INT32(0));
    if (!mongoc_collection_insert_one(mongo_coll(c, COLL_DEAD_LETTERS), d, NULL, NULL, &be))
        fail_msg("%s", be.message);
    bson_destroy(d);
    mongo_conn_put(c);
    mongo_free(m);
}

static void dead_letters_and_receipts_are_answered_as_described(void **state)
{
    struct live *l = *state;
    char path[64];
    plant_letter(l);
    ask(l, "listDeadLetters", "/v1/dead-letters?limit=1", NULL, 200);
    ask(l, "listDeadLetters", "/v1/dead-letters?cursor=x", NULL, 400);
    ask(l, "getDeadLetter", "/v1/dead-letters/timeline-7-ann", NULL, 200);
    ask(l, "getDeadLetter", "/v1/dead-letters/none", NULL, 404);
    ask(l, "replayDeadLetter", "/v1/dead-letters/timeline-7-ann/replay", NULL, 200);
    ask(l, "replayDeadLetter", "/v1/dead-letters/none/replay", NULL, 404);
    snprintf(path, sizeof path, "/v1/items/%s/delivery", l->id);
    ask(l, "getDelivery", path, NULL, 200);
    ask(l, "getDelivery", "/v1/items/1/delivery", NULL, 404);
    api_as(l->api, "");
    ask(l, "getDelivery", path, NULL, 401);
    ask(l, "listDeadLetters", "/v1/dead-letters", NULL, 401);
    api_as(l->api, NULL);
}

static void health_is_answered_as_described(void **state)
{
    struct live *l = *state;
    ask(l, "getHealth", "/healthz", NULL, 200);
    ask(l, "getHealth", "/healthz?x=1", NULL, 400);
    ask(l, "getReadiness", "/readyz", NULL, 200);
    ask(l, "getMetrics", "/metrics", NULL, 200);
    ask(l, "getStatus", "/v1/status", NULL, 200);
}

static void what_any_request_can_meet_is_described(void **state)
{
    struct live *l = *state;
    struct reply r;
    const char *method, *path;
    json_t *op = find_operation(l, "getItem", &method, &path);
    char *big = mem_zero(20000, 1);
    memset(big, 'a', 19000);
    char *long_header = mem_printf("X-A: %s\r\n", big);
    char *long_target = mem_printf("/v1/items/%s", big);
    const struct {
        const char *method, *target, *extra;
        int status;
    } rows[] = {
        {"POST", "/v1/items/1", NULL, 405},       {"GET", long_target, NULL, 414},
        {"GET", "/v1/items/1", long_header, 431}, {"GET", "/v1/items/1", "Expect: tea\r\n", 417},
        {"BREW", "/v1/items/1", NULL, 501},
    };
    for (size_t i = 0; i < MEM_COUNT(rows); i++) {
        api_request(l->api, rows[i].method, rows[i].target, rows[i].extra, NULL, &r);
        assert_int_equal(r.status, rows[i].status);
        json_t *response = find_response(l, op, r.status);
        check_headers(l, rows[i].method, response, &r);
        check_content(l, rows[i].method, response, &r);
        check_problem(rows[i].method, response, &r);
        reply_done(&r);
    }
    free(long_target);
    free(long_header);
    free(big);
}

/* ---- caps ---- */

/* Text of n bytes that a schema's pattern allows. */
static json_t *make_text(const json_t *schema, size_t n)
{
    const char *pattern = json_string_value(json_object_get(schema, "pattern")), *head = "";
    if (pattern != NULL && strncmp(pattern, "^[Hh][Tt]", 9) == 0)
        head = "https://example.org/";
    else if (pattern != NULL && strncmp(pattern, "^[!-", 4) == 0)
        head = "a/";
    char *text = mem_zero(n + 32, 1);
    memset(text, 'a', n);
    memcpy(text, head, strlen(head) < n ? strlen(head) : n);
    json_t *v = json_string(text);
    free(text);
    return v;
}

/* A small value that the schema allows. */
static json_t *make_small(struct live *l, json_t *schema)
{
    schema = spec_deref(l->spec, schema);
    const json_t *type = json_object_get(schema, "type");
    const char *name = json_string_value(json_is_array(type) ? json_array_get(type, 0) : type);
    json_t *list = json_object_get(schema, "enum"), *o, *one;
    size_t i;
    if (list != NULL)
        return json_deep_copy(json_array_get(list, 0));
    if (strcmp(name, "string") == 0) {
        const char *pattern = json_string_value(json_object_get(schema, "pattern"));
        return pattern != NULL && strncmp(pattern, "^([1-9][0-9]{", 13) == 0 ? json_string("7")
                                                                             : make_text(schema, 30);
    }
    if (strcmp(name, "integer") == 0)
        return json_integer(json_integer_value(json_object_get(schema, "minimum")));
    o = json_object();
    json_array_foreach(json_object_get(schema, "required"), i, one)
    {
        json_t *member = spec_get(l->spec, json_object_get(schema, "properties"), json_string_value(one));
        json_object_set_new(o, json_string_value(one), make_small(l, member));
    }
    return o;
}

/* A value as large as the schema's cap and by more than that; NULL: it has none that can be tried. Names of
 * arrays' elements differ, because repeats may be taken for one. */
static json_t *make_at_cap(struct live *l, json_t *schema, size_t more)
{
    json_int_t cap;
    if (json_object_get(schema, "maxLength") != NULL) {
        cap = json_integer_value(json_object_get(schema, "maxLength"));
        return make_text(schema, (size_t)cap + more);
    }
    if (json_object_get(schema, "maximum") != NULL && more <= 1) {
        cap = json_integer_value(json_object_get(schema, "maximum"));
        return json_integer(cap + (json_int_t)more);
    }
    if (json_object_get(schema, "x-max-bytes") != NULL) {
        cap = json_integer_value(json_object_get(schema, "x-max-bytes"));
        return json_pack("{s:o}", "a", make_text(schema, (size_t)cap + more - strlen("{\"a\":\"\"}")));
    }
    if (json_object_get(schema, "maxItems") == NULL)
        return NULL;
    json_t *list = json_array();
    cap = json_integer_value(json_object_get(schema, "maxItems"));
    for (json_int_t i = 0; i < cap + (json_int_t)more; i++) {
        json_t *one = make_small(l, json_object_get(schema, "items"));
        char name[24];
        snprintf(name, sizeof name, "name-%lld", (long long)i);
        if (json_is_string(one))
            json_string_set(one, name);
        else if (json_object_get(one, "name") != NULL)
            json_object_set_new(one, "name", json_string(name));
        json_array_append_new(list, one);
    }
    return list;
}

/* Sends value as the member of a small body, and answers the status. */
static int try_member(struct live *l, const char *operation, const char *target, json_t *small,
                      const char *member, json_t *value)
{
    struct reply r;
    json_t *o = json_deep_copy(small);
    json_object_set_new(o, member, value);
    char *body = json_dumps(o, JSON_COMPACT);
    ask_into(l, operation, target, NULL, body, 0, &r);
    int status = r.status;
    reply_done(&r);
    free(body);
    json_decref(o);
    return status;
}

/* Every cap of a member is one that is taken, and one more is not. more: what the body has beyond what is
 * required. Answers how many caps there were. */
static unsigned check_caps(struct live *l, const char *operation, const char *target, const char *more)
{
    const char *method, *path, *member;
    json_t *op = find_operation(l, operation, &method, &path), *property;
    json_t *contents = json_object_get(json_object_get(op, "requestBody"), "content");
    json_t *content = json_object_iter_value(json_object_iter(contents));
    json_t *schema = spec_get(l->spec, content, "schema"), *small = make_small(l, schema);
    json_t *extra = json_loads(more, 0, NULL);
    unsigned n = 0;
    json_object_update(small, extra);
    json_object_foreach(json_object_get(schema, "properties"), member, property)
    {
        json_t *at = make_at_cap(l, spec_deref(l->spec, property), 0);
        if (at == NULL)
            continue;
        n++;
        int taken = try_member(l, operation, target, small, member, at);
        if (taken >= 300)
            fail_msg("%s: %s at its cap is answered %d", operation, member, taken);
        json_t *over = make_at_cap(l, spec_deref(l->spec, property), 1);
        int refused = try_member(l, operation, target, small, member, over);
        if (refused != 400)
            fail_msg("%s: %s over its cap is answered %d", operation, member, refused);
    }
    json_decref(extra);
    json_decref(small);
    return n;
}

static void what_is_taken_has_the_caps_that_are_described(void **state)
{
    struct live *l = *state;
    char *item = mem_printf("/v1/items/%s", l->id);
    assert_int_equal(check_caps(l, "publishItem", "/v1/items", "{}"), 9);
    assert_int_equal(check_caps(l, "patchItem", item, "{}"), 7);
    assert_int_equal(check_caps(l, "putPublisher", "/v1/publishers/capped", "{}"), 4);
    assert_int_equal(check_caps(l, "putTopic", "/v1/topics/capped", "{}"), 4);
    assert_int_equal(check_caps(l, "changeFollows", "/v1/users/capped/follows", "{}"), 2);
    assert_int_equal(check_caps(l, "changeMutes", "/v1/users/capped/mutes", "{}"), 2);
    assert_int_equal(check_caps(l, "sendEvents", "/v1/users/capped/events", "{}"), 1);
    assert_int_equal(check_caps(l, "createKey", "/v1/keys", "{\"role\":\"publisher\"}"), 1);
    assert_int_equal(check_caps(l, "createToken", "/v1/tokens", "{}"), 2);
    assert_int_equal(check_caps(l, "createDemoToken", "/v1/demo/token", "{}"), 1);
    free(item);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_document_is_served, as_admin),
        cmocka_unit_test_setup(items_are_answered_as_described, as_admin),
        cmocka_unit_test_setup(bulk_answers_are_described_line_by_line, as_admin),
        cmocka_unit_test_setup(pages_are_answered_as_described, as_admin),
        cmocka_unit_test_setup(pages_that_a_client_has_are_answered_as_described, as_admin),
        cmocka_unit_test_setup(what_belongs_to_a_user_is_answered_as_described, as_admin),
        cmocka_unit_test_setup(what_is_not_described_is_refused, as_admin),
        cmocka_unit_test_setup(targets_are_answered_as_described, as_admin),
        cmocka_unit_test_setup(the_graph_is_answered_as_described, as_admin),
        cmocka_unit_test_setup(events_keys_and_tokens_are_answered_as_described, as_admin),
        cmocka_unit_test_setup(dead_letters_and_receipts_are_answered_as_described, as_admin),
        cmocka_unit_test_setup(health_is_answered_as_described, as_admin),
        cmocka_unit_test_setup(what_any_request_can_meet_is_described, as_admin),
        cmocka_unit_test_setup(what_is_taken_has_the_caps_that_are_described, as_admin),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
