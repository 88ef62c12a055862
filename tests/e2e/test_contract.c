/* test_contract.c - the HTTP API's contract, sentence by sentence, as a stranger and as a client's author
 * would try it. Each case is one sentence; see test_items.c and test_feed.c for what has to hold under kill
 * -9.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "common/base64url.h"
#include "common/buf.h"
#include "common/clock.h"
#include "common/mem.h"
#include "common/ts.h"
#include "tests/support/api.h"

#define FOLLOWS_MAX    "1200"
#define MUTES_MAX      "3"
#define NDJSON         "Content-Type: application/x-ndjson\r\n"
#define MERGE          "Content-Type: application/merge-patch+json\r\n"
#define LONG_MAX_BYTES (9 * 1024 * 1024)

static struct api *a;
static struct server *no_demo; /* a second feed-api, without --demo, and with --admin-listen */

static int start(void **state)
{
    (void)state;
    a = api_start(API_ALL, "--max-follows", FOLLOWS_MAX, "--max-mutes", MUTES_MAX, "--demo", "yes",
                  "--rank-deadline", "5000", "--request-deadline", "20s", "--count-interval", "200ms", NULL);
    no_demo = fixture_start(a->fixture, "feed-api", "feed-api-2", NULL);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    api_stop(a);
    return 0;
}

/* Each case begins as the admin. */
static int as_admin(void **state)
{
    (void)state;
    api_as(a, NULL);
    return 0;
}

/* ---- short forms ---- */

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

static bool is_null(const json_t *o, const char *member)
{
    return json_is_null(json_object_get(o, member));
}

static const char *first_pointer(const json_t *problem)
{
    return text(json_array_get(json_object_get(problem, "errors"), 0), "pointer");
}

/* What every problem has: RFC 9457's members, the request's id twice, and what its status asks for. */
static void check_problem(const struct reply *r, const char *code, const char *pointer, int line)
{
    char type[80];
    const char *content_type = reply_header(r, "Content-Type");
    if (content_type == NULL || strcmp(content_type, "application/problem+json") != 0)
        fail_msg("line %d: Content-Type is %s", line, content_type != NULL ? content_type : "missing");
    json_t *p = reply_json(r);
    snprintf(type, sizeof type, "/problems/%s", code);
    if (strcmp(text(p, "type"), type) != 0 || number(p, "status") != r->status)
        fail_msg("line %d: not %s: %s", line, type, r->body);
    if (!json_is_string(json_object_get(p, "title")) || !json_is_string(json_object_get(p, "detail")))
        fail_msg("line %d: title or detail is missing: %s", line, r->body);
    const char *id = reply_header(r, "X-Request-Id");
    if (id == NULL || strcmp(text(p, "instance"), id) != 0)
        fail_msg("line %d: instance is not X-Request-Id: %s", line, r->body);
    if (r->status == 401 && reply_header(r, "WWW-Authenticate") == NULL)
        fail_msg("line %d: a 401 without WWW-Authenticate", line);
    if (r->status == 405 && reply_header(r, "Allow") == NULL)
        fail_msg("line %d: a 405 without Allow", line);
    if (r->status == 503 && (reply_header(r, "Retry-After") == NULL || number(p, "retry_after_ms") < 1))
        fail_msg("line %d: a 503 without Retry-After or retry_after_ms", line);
    if (pointer != NULL && strcmp(first_pointer(p), pointer) != 0)
        fail_msg("line %d: the first error is at %s, not %s: %s", line, first_pointer(p), pointer, r->body);
    json_t *errors = json_object_get(p, "errors"), *error;
    size_t i;
    json_array_foreach(errors, i, error)
    {
        if (!json_is_string(json_object_get(error, "pointer")) ||
            !json_is_string(json_object_get(error, "detail")))
            fail_msg("line %d: an error without pointer or detail: %s", line, r->body);
    }
    json_decref(p);
}

/* pointer: of the first error, NULL for any or none. */
static void refused_at(const char *method, const char *path, const char *extra, const char *body, int status,
                       const char *code, const char *pointer, int line)
{
    struct reply r;
    api_request(a, method, path, extra, body, &r);
    if (r.status != status)
        fail_msg("line %d: %s %.120s %.120s answered %d, not %d: %.300s", line, method, path,
                 body != NULL ? body : "", r.status, status, r.body);
    check_problem(&r, code, pointer, line);
    reply_done(&r);
}

#define REFUSED(method, path, body, status, code, pointer)                                                   \
    refused_at(method, path, NULL, body, status, code, pointer, __LINE__)
#define REFUSED_WITH(method, path, extra, body, status, code, pointer)                                       \
    refused_at(method, path, extra, body, status, code, pointer, __LINE__)
#define INVALID(method, path, body, pointer)                                                                 \
    refused_at(method, path, NULL, body, 400, "invalid_request", pointer, __LINE__)

static void has_status(const char *method, const char *path, const char *extra, const char *body, int status,
                       int line)
{
    struct reply r;
    api_request(a, method, path, extra, body, &r);
    if (r.status != status)
        fail_msg("line %d: %s %.120s %.120s answered %d, not %d: %.300s", line, method, path,
                 body != NULL ? body : "", r.status, status, r.body);
    reply_done(&r);
}

#define STATUS(method, path, body, status) has_status(method, path, NULL, body, status, __LINE__)

static json_t *get(const char *path)
{
    return api_json(a, "GET", path, NULL, 200);
}

static char *repeat(const char *s, size_t times)
{
    struct buf b;
    buf_init(&b, LONG_MAX_BYTES);
    for (size_t i = 0; i < times; i++)
        buf_add_str(&b, s);
    buf_add_char(&b, '\0');
    assert_false(b.full);
    return buf_take(&b);
}

/* An item with a member more, or another value of one; takes over value. */
static char *item_with(const char *member, json_t *value)
{
    json_t *o = json_pack("{s:s, s:s, s:s}", "publisher", "caps", "title", "t", "body", "b");
    if (member != NULL)
        json_object_set_new(o, member, value);
    char *s = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    return s;
}

static void item_taken(const char *member, json_t *value, int line)
{
    char *body = item_with(member, value);
    has_status("POST", "/v1/items", NULL, body, 201, line);
    free(body);
}

static void item_refused(const char *member, json_t *value, const char *pointer, int line)
{
    char *body = item_with(member, value);
    refused_at("POST", "/v1/items", NULL, body, 400, "invalid_request", pointer, line);
    free(body);
}

#define TAKEN(member, value)              item_taken(member, value, __LINE__)
#define NOT_TAKEN(member, value, pointer) item_refused(member, value, pointer, __LINE__)

static json_t *long_string(const char *s, size_t times)
{
    char *value = repeat(s, times);
    json_t *v = json_string(value);
    free(value);
    assert_non_null(v);
    return v;
}

/* Publishes; body as in POST. id has 32 bytes, position TS_TEXT_SIZE; both may be NULL. */
static void publish(const char *body, char *id, char *position)
{
    json_t *o = api_json(a, "POST", "/v1/items", body, 201);
    if (id != NULL)
        snprintf(id, 32, "%s", text(o, "id"));
    if (position != NULL)
        snprintf(position, TS_TEXT_SIZE, "%s", text(o, "position"));
    json_decref(o);
}

/* n items of a publisher of its own that the user follows; position is of the last write. */
static void user_with_items(const char *user, int n, char *position)
{
    char path[200], body[200];
    snprintf(path, sizeof path, "/v1/users/%s/follows/publisher/of-%s", user, user);
    STATUS("PUT", path, NULL, 204);
    for (int i = 0; i < n; i++) {
        char at[CLOCK_RFC3339_SIZE]; /* a millisecond each: within one the order is any */
        clock_format(clock_wall_ms() - 1000 + i, at);
        snprintf(body, sizeof body,
                 "{\"publisher\":\"of-%s\",\"title\":\"t%d\",\"body\":\"b\",\"published_at\":\"%s\"}", user,
                 i, at);
        publish(body, NULL, position);
    }
}

/* ---- names ---- */

static void a_name_is_one_to_64_bytes_of_utf8_without_white_space(void **state)
{
    (void)state;
    static const char *const good[] = {"a",      "%C3%A4%C3%B6", "a%26b%3Fc%23d%25", "%F0%9F%98%80",
                                       "a%2Bb",  "a+b",          "%2E%2E",           "a:b",
                                       "%22%5C", "%E2%80%8B"};
    static const char *const bad[] = {"%20",   "a%20b",   "a%09",      "%C2%A0",  "%E3%80%80", "%00",
                                      "a%2Fb", "%7Bu%7D", "%1F",       "%7F",     "%C2%85",    "%E2%80%A8",
                                      "%FF",   "%C0%80",  "%ED%A0%80", "a%0D%0Ab"};
    char path[400];
    for (size_t i = 0; i < MEM_COUNT(good); i++) {
        snprintf(path, sizeof path, "/v1/publishers/%s", good[i]);
        STATUS("GET", path, NULL, 200);
        snprintf(path, sizeof path, "/v1/users/%s/feed", good[i]);
        STATUS("GET", path, NULL, 200);
    }
    for (size_t i = 0; i < MEM_COUNT(bad); i++) {
        static const char *const templates[] = {"/v1/publishers/%s", "/v1/topics/%s/items",
                                                "/v1/users/%s/feed", "/v1/users/u/follows/topic/%s"};
        for (size_t k = 0; k < MEM_COUNT(templates); k++) {
            const char *at = strstr(templates[k], "%s");
            snprintf(path, sizeof path, "%.*s%s%s", (int)(at - templates[k]), templates[k], bad[i], at + 2);
            REFUSED(k == 3 ? "PUT" : "GET", path, NULL, 400, "invalid_request", NULL);
        }
    }
    char *longest = repeat("%C3%A4", 32), *longer = mem_printf("%sx", longest);
    snprintf(path, sizeof path, "/v1/users/%s/feed", longest);
    STATUS("GET", path, NULL, 200);
    snprintf(path, sizeof path, "/v1/users/%s/feed", longer);
    REFUSED("GET", path, NULL, 400, "invalid_request", NULL);
    free(longest);
    free(longer);
}

static void a_name_in_a_path_is_percent_decoded_once(void **state)
{
    (void)state;
    char position[TS_TEXT_SIZE], path[300];
    publish("{\"publisher\":\"50%25\",\"title\":\"t\",\"body\":\"b\",\"topics\":[\"\xc3\xa4\"]}", NULL,
            position);
    snprintf(path, sizeof path, "/v1/publishers/50%%2525/items?position=%s", position);
    json_t *o = get(path);
    assert_int_equal(json_array_size(json_object_get(o, "items")), 1);
    json_decref(o);
    snprintf(path, sizeof path, "/v1/topics/%%c3%%A4/items?position=%s", position);
    o = get(path);
    assert_int_equal(json_array_size(json_object_get(o, "items")), 1);
    json_decref(o);
    o = get("/v1/publishers/a+b"); /* '+' is itself in a path */
    assert_string_equal(text(o, "publisher"), "a+b");
    json_decref(o);
}

static void unknown_names_give_empty_pages_and_zeros(void **state)
{
    (void)state;
    static const char *const pages[] = {"/v1/users/nobody/feed", "/v1/publishers/nobody/items",
                                        "/v1/topics/nobody/items"};
    for (size_t i = 0; i < MEM_COUNT(pages); i++) {
        json_t *o = get(pages[i]);
        assert_int_equal(json_array_size(json_object_get(o, "items")), 0);
        assert_true(is_null(o, "next"));
        json_decref(o);
    }
    json_t *o = get("/v1/users/nobody/follows");
    assert_int_equal(json_array_size(json_object_get(o, "follows")), 0);
    assert_true(is_null(o, "next"));
    json_decref(o);
    static const char *const kinds[] = {"publisher", "topic"};
    for (size_t i = 0; i < 2; i++) {
        char path[60];
        snprintf(path, sizeof path, "/v1/%ss/nobody", kinds[i]);
        o = get(path);
        assert_int_equal(json_object_size(o), 8);
        assert_string_equal(text(o, kinds[i]), "nobody");
        assert_true(is_null(o, "title") && is_null(o, "icon") && is_null(o, "url"));
        assert_true(json_is_object(json_object_get(o, "extra")));
        assert_int_equal(number(o, "followers"), 0);
        assert_int_equal(number(o, "items"), 0);
        assert_string_equal(text(o, "mode"), "push");
        json_decref(o);
    }
}

/* ---- problems ---- */

static void a_problem_names_the_request_whose_id_the_client_gave(void **state)
{
    (void)state;
    struct reply r;
    api_request(a, "GET", "/v1/nothing", "X-Request-Id: my-id-7\r\n", NULL, &r);
    assert_int_equal(r.status, 404);
    assert_string_equal(reply_header(&r, "X-Request-Id"), "my-id-7");
    check_problem(&r, "not_found", NULL, __LINE__);
    reply_done(&r);
    api_get(a, "/healthz", &r);
    assert_non_null(reply_header(&r, "X-Request-Id"));
    reply_done(&r);
}

static void what_belongs_to_later_milestones_is_not_found(void **state)
{
    (void)state;
    static const struct {
        const char *method, *path;
    } later[] = {
        {"GET", "/v1/users/u/reactions"},
        {"GET", "/v1/profiles/default"},
        {"PUT", "/v1/profiles/default"},
        {"PUT", "/v1/profiles/x/rollout"},
    };
    for (size_t i = 0; i < MEM_COUNT(later); i++)
        refused_at(later[i].method, later[i].path, NULL, NULL, 404, "not_found", NULL, (int)(1000 + i));
    INVALID("GET", "/v1/users/u/feed?catchup=1", NULL, "?catchup");
    INVALID("GET", "/v1/users/u/feed?terms=1", NULL, "?terms");
    INVALID("GET", "/v1/users/u/feed?access_token=x", NULL, "?access_token");
}

static void an_unknown_path_is_404_with_and_without_a_credential(void **state)
{
    (void)state;
    static const char *const paths[] = {
        "/",         "/v1",       "/v1/",          "/v1/items/",        "/v1//items",
        "/v2/items", "/V1/items", "/v1/items/1/2", "/v1/users/u/feed/", "/a/b/c/d/e/f/g/h/i/j/k"};
    for (int i = 0; i < 2; i++) {
        for (size_t k = 0; k < MEM_COUNT(paths); k++)
            refused_at("GET", paths[k], NULL, NULL, 404, "not_found", NULL, (int)(1000 + k));
        api_as(a, "");
    }
}

static void another_method_is_405_and_allow_names_those_that_are_there(void **state)
{
    (void)state;
    static const struct {
        const char *method, *path, *allow;
    } cases[] = {
        {"PUT", "/v1/items", "GET, HEAD, POST"},
        {"POST", "/v1/items/1", "GET, HEAD, PATCH, DELETE"},
        {"HEAD", "/v1/tokens", "POST"},
        {"GET", "/v1/items/bulk", "POST"},
        {"DELETE", "/v1/users/u/feed", "GET, HEAD"},
        {"OPTIONS", "/v1/users/u/follows", "GET, HEAD, POST"},
        {"POST", "/v1/users/u/mutes/word/x", "PUT, DELETE"},
        {"POST", "/healthz", "GET, HEAD"},
        {"PATCH", "/v1/publishers/p", "GET, HEAD, PUT"},
    };
    for (size_t i = 0; i < MEM_COUNT(cases); i++) {
        struct reply r;
        api_request(a, cases[i].method, cases[i].path, NULL, NULL, &r);
        assert_int_equal(r.status, 405);
        assert_string_equal(reply_header(&r, "Allow"), cases[i].allow);
        if (strcmp(cases[i].method, "HEAD") != 0)
            check_problem(&r, "method_not_allowed", NULL, __LINE__);
        reply_done(&r);
    }
}

static void head_goes_wherever_get_does(void **state)
{
    (void)state;
    char id[32], item[64];
    publish("{\"publisher\":\"head\",\"external_id\":\"h\",\"title\":\"t\",\"body\":\"b\"}", id, NULL);
    snprintf(item, sizeof item, "/v1/items/%s", id);
    const char *const paths[] = {item,
                                 "/v1/items?ids=1",
                                 "/v1/publishers/head/items/by-external/h",
                                 "/v1/publishers/head",
                                 "/v1/topics/x",
                                 "/v1/publishers",
                                 "/v1/topics",
                                 "/v1/publishers/head/items",
                                 "/v1/topics/x/items",
                                 "/v1/users/u/feed",
                                 "/v1/users/u/follows",
                                 "/v1/users/u/mutes",
                                 "/v1/keys",
                                 "/healthz",
                                 "/readyz",
                                 "/metrics",
                                 "/v1/status",
                                 "/openapi.yaml",
                                 "/v1/users/u/feed?order=ranked"};
    for (size_t i = 0; i < MEM_COUNT(paths); i++) {
        struct reply r;
        api_request(a, "HEAD", paths[i], NULL, NULL, &r);
        if (r.status != 200 || r.len != 0 || reply_header(&r, "Content-Length") == NULL ||
            reply_header(&r, "Content-Type") == NULL)
            fail_msg("HEAD %s: %d, %zu bytes", paths[i], r.status, r.len);
        reply_done(&r);
    }
    struct reply r;
    api_request(a, "HEAD", "/v1/items/1", NULL, NULL, &r);
    assert_int_equal(r.status, 404);
    reply_done(&r);
}

static void an_unknown_json_member_is_400_with_its_pointer(void **state)
{
    (void)state;
    INVALID("POST", "/v1/items", "{\"publisher\":\"p\",\"title\":\"t\",\"body\":\"b\",\"tags\":[]}", "/tags");
    INVALID(
        "POST", "/v1/items",
        "{\"publisher\":\"p\",\"title\":\"t\",\"body\":\"b\",\"media\":[{\"url\":\"https://x.y/\",\"type\":"
        "\"a/b\",\"size\":1}]}",
        "/media/0/size");
    INVALID("POST", "/v1/users/u/follows", "{\"added\":[]}", "/added");
    INVALID("POST", "/v1/users/u/mutes", "{\"a~b/c\":1}", "/a~0b~1c");
    INVALID("POST", "/v1/keys", "{\"role\":\"service\",\"a/b\":1}", "/a~1b");
    INVALID("POST", "/v1/tokens", "{\"user\":\"u\",\"ttl_s\":60,\"x\":1}", "/x");
    INVALID("PUT", "/v1/publishers/p", "{\"a/b~\":\"x\"}", "/a~1b~0");
    INVALID("PUT", "/v1/topics/p", "{\"name\":\"x\"}", "/name");
    INVALID("POST", "/v1/users/u/events", "{\"events\":[],\"x\":1}", "/x");
    INVALID("POST", "/v1/users/u/follows",
            "{\"add\":[{\"kind\":\"topic\",\"name\":\"x\",\"since\":\"now\"}]}", "/add/0/since");
    INVALID("POST", "/v1/demo/token", "{\"user\":\"u\",\"ttl_s\":60}", "/ttl_s");
}

static void the_pointer_of_a_long_unknown_member_is_valid_text(void **state)
{
    (void)state;
    static const char *const paths[] = {"/v1/items", "/v1/users/u/follows", "/v1/keys", "/v1/tokens",
                                        "/v1/users/u/events"};
    char *name = repeat("\xe2\x82\xac", 200), *body = mem_printf("{\"x%s\":1}", name),
         *query =
             mem_printf("/v1/users/u/feed?x%s=1", "%E2%82%AC%E2%82%AC%E2%82%AC%E2%82%AC%E2%82%AC%E2%82%AC"
                                                  "%E2%82%AC%E2%82%AC%E2%82%AC%E2%82%AC%E2%82%AC%E2%82%AC"
                                                  "%E2%82%AC%E2%82%AC%E2%82%AC%E2%82%AC%E2%82%AC%E2%82%AC"
                                                  "%E2%82%AC%E2%82%AC%E2%82%AC%E2%82%AC%E2%82%AC%E2%82%AC"
                                                  "%E2%82%AC%E2%82%AC%E2%82%AC%E2%82%AC%E2%82%AC%E2%82%AC");
    for (size_t i = 0; i < MEM_COUNT(paths); i++)
        INVALID("POST", paths[i], body, NULL);
    INVALID("PUT", "/v1/topics/p", body, NULL);
    INVALID("GET", query, NULL, NULL);
    free(name);
    free(body);
    free(query);
}

static void an_unknown_or_repeated_query_parameter_is_400(void **state)
{
    (void)state;
    INVALID("GET", "/v1/users/u/feed?limits=3", NULL, "?limits");
    INVALID("GET", "/v1/users/u/feed?limit=3&limit=3", NULL, NULL);
    INVALID("GET", "/v1/users/u/feed?Limit=3", NULL, "?Limit");
    INVALID("POST", "/v1/items?x=1", "{}", "?x");
    INVALID("GET", "/v1/items/1?fields=full", NULL, "?fields");
    INVALID("PUT", "/v1/users/u/follows/topic/x?since=1", NULL, "?since");
    INVALID("GET", "/v1/users/u/feed?&limit=3", NULL, NULL);
    INVALID("GET", "/v1/users/u/feed?limit=%zz", NULL, NULL);
    INVALID("GET", "/v1/users/u/feed?limit=3%00", NULL, NULL);
    INVALID("GET", "/v1/users/u/feed?fields=%FF", NULL, NULL);
    INVALID("GET", "/healthz?x=1", NULL, "?x");
    INVALID("GET", "/v1/publishers?position=0", NULL, "?position");
}

static void nul_duplicates_and_text_that_is_not_json_are_400(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "{\"publisher\":\"p\",\"title\":\"a\\u0000\",\"body\":\"b\"}",
        "{\"publisher\":\"p\",\"title\":\"t\",\"body\":\"b\",\"extra\":{\"a\\u0000b\":1}}",
        "{\"publisher\":\"p\",\"title\":\"t\",\"body\":\"b\",\"body\":\"c\"}",
        "{\"publisher\":\"p\",\"title\":\"t\",\"body\":\"b\",\"extra\":{\"a\":1,\"a\":1}}",
        "{\"publisher\":\"p\",\"title\":\"t\",\"body\":\"b\",\"extra\":{\"a\":1,\"\\u0061\":2}}",
        "{\"publisher\":\"p\",\"title\":\"\xff\",\"body\":\"b\"}",
        "{\"publisher\":\"p\",\"title\":\"\\ud800\",\"body\":\"b\"}",
        "{\"publisher\":\"p\",\"title\":\"t\",\"body\":\"b\"} x",
        "{\"publisher\":\"p\",\"title\":\"t\",\"body\":\"b\",}",
        "{\"publisher\":\"p\",\"title\":\"t\",\"body\":\"b\",\"extra\":{\"n\":NaN}}",
        "{\"publisher\":\"p\",\"title\":\"t\",\"body\":\"b\",\"extra\":{\"n\":1e999}}",
        "\xef\xbb\xbf{\"publisher\":\"p\",\"title\":\"t\",\"body\":\"b\"}",
        "[]",
        "null",
        "\"x\"",
        "",
        " ",
        "{",
        "{\"publisher\":1,\"title\":\"t\",\"body\":\"b\"}",
    };
    for (size_t i = 0; i < MEM_COUNT(bodies); i++)
        refused_at("POST", "/v1/items", NULL, bodies[i], 400, "invalid_request", NULL, (int)(1000 + i));
    char *deep = repeat("[", 100000);
    INVALID("POST", "/v1/items", deep, NULL);
    free(deep);
}

static void a_raw_nul_in_a_body_is_400(void **state)
{
    (void)state;
    static const char body[] = "{\"publisher\":\"p\",\"title\":\"t\",\"body\":\"b\"}\0";
    char headers[700];
    struct reply r;
    struct rawhttp *c = rawhttp_open((uint16_t)a->port);
    snprintf(headers, sizeof headers, "%sContent-Type: application/json\r\n", a->auth);
    rawhttp_request(c, "POST", "/v1/items", headers, body, sizeof body, &r);
    assert_int_equal(r.status, 400);
    check_problem(&r, "invalid_request", NULL, __LINE__);
    reply_done(&r);
    rawhttp_close(c);
}

static void another_content_type_is_415(void **state)
{
    (void)state;
    const char *good = "{\"publisher\":\"p\",\"title\":\"t\",\"body\":\"b\"}";
    static const char *const refused[] = {
        "Content-Type: text/plain\r\n", "Content-Type: application/jsonx\r\n",
        "Content-Type: application/json; charset=iso-8859-1\r\n", "Content-Type: application/xml\r\n",
        "Content-Type: application/x-ndjson\r\n"};
    for (size_t i = 0; i < MEM_COUNT(refused); i++)
        REFUSED_WITH("POST", "/v1/items", refused[i], good, 415, "unsupported_media_type", NULL);
    static const char *const taken[] = {"Content-Type: application/json; charset=utf-8\r\n",
                                        "Content-Type: Application/JSON;charset=\"UTF-8\"\r\n"};
    for (size_t i = 0; i < MEM_COUNT(taken); i++)
        has_status("POST", "/v1/items", taken[i], good, 201, __LINE__);
    REFUSED_WITH("POST", "/v1/items/bulk", NULL, good, 415, "unsupported_media_type", NULL);
    REFUSED_WITH("POST", "/v1/items", MERGE, good, 415, "unsupported_media_type", NULL);
    char headers[700];
    struct reply r;
    snprintf(headers, sizeof headers, "%s", a->auth); /* none at all */
    rawhttp_once((uint16_t)a->port, "POST", "/v1/items", headers, good, &r);
    assert_int_equal(r.status, 415);
    reply_done(&r);
}

static void a_body_where_none_is_expected_is_400(void **state)
{
    (void)state;
    INVALID("PUT", "/v1/users/u/follows/topic/x", "{}", NULL);
    INVALID("GET", "/v1/users/u/feed", "{}", NULL);
    INVALID("DELETE", "/v1/items/1", "{}", NULL);
}

static void a_body_over_its_cap_is_413(void **state)
{
    (void)state;
    static const struct {
        const char *method, *path, *extra;
        size_t max;
    } caps[] = {
        {"POST", "/v1/items", NULL, 128 * 1024},
        {"PATCH", "/v1/items/1", NULL, 128 * 1024},
        {"POST", "/v1/items/bulk", NDJSON, 8 * 1024 * 1024},
        {"POST", "/v1/follows/bulk", NDJSON, 8 * 1024 * 1024},
    };
    for (size_t i = 0; i < MEM_COUNT(caps); i++) {
        char *body = repeat(" ", caps[i].max + 1);
        refused_at(caps[i].method, caps[i].path, caps[i].extra, body, 413, "too_large", NULL,
                   (int)(1000 + i));
        free(body);
    }
    /* and a byte less is not too large */
    static const char item[] = "{\"publisher\":\"caps\",\"title\":\"t\",\"body\":\"b\"}";
    char *spaces = repeat(" ", 128 * 1024 - strlen(item)), *body = mem_printf("%s%s", item, spaces);
    assert_int_equal(strlen(body), 128 * 1024);
    STATUS("POST", "/v1/items", body, 201);
    free(spaces);
    free(body);
}

static void long_targets_are_414_and_long_headers_431(void **state)
{
    (void)state;
    char *x = repeat("x", 8200), *path = mem_printf("/v1/items?ids=%s", x),
         *header = mem_printf("X-Long: %s%s\r\n", x, x), *lines = repeat("X: y\r\n", 101);
    REFUSED("GET", path, NULL, 414, "uri_too_long", NULL);
    REFUSED_WITH("GET", "/healthz", header, NULL, 431, "headers_too_large", NULL);
    REFUSED_WITH("GET", "/healthz", lines, NULL, 431, "headers_too_large", NULL);
    free(x);
    free(path);
    free(header);
    free(lines);
}

static void another_version_of_http_is_505(void **state)
{
    (void)state;
    static const char *const lines[] = {"GET /healthz HTTP/2.0\r\nHost: x\r\n\r\n",
                                        "GET /healthz HTTP/3.1\r\nHost: x\r\n\r\n"};
    for (size_t i = 0; i < MEM_COUNT(lines); i++) {
        struct reply r;
        struct rawhttp *c = rawhttp_open((uint16_t)a->port);
        rawhttp_send_str(c, lines[i]);
        rawhttp_read(c, "GET", &r);
        assert_int_equal(r.status, 505);
        check_problem(&r, "version_not_supported", NULL, __LINE__);
        reply_done(&r);
        rawhttp_close(c);
    }
}

/* ---- who may ---- */

/* The letters of those who may: A admin, S service, P the publisher's own key, p another publisher's, u the
 * user's own token, U another user's. */
static const struct {
    const char *method, *path, *extra, *body, *who;
} matrix[] = {
    {"GET", "/v1/users/ann/feed", NULL, NULL, "ASu"},
    {"GET", "/v1/users/ann/feed?order=ranked", NULL, NULL, "ASu"},
    {"HEAD", "/v1/users/ann/feed", NULL, NULL, "ASu"},
    {"GET", "/v1/publishers/mine/items", NULL, NULL, "ASPpuU"},
    {"GET", "/v1/topics/t/items", NULL, NULL, "ASPpuU"},
    {"POST", "/v1/items", NULL,
     "{\"publisher\":\"mine\",\"external_id\":\"1\",\"title\":\"t\",\"body\":\"b\"}", "AP"},
    {"GET", "/v1/items?ids=1", NULL, NULL, "ASPpuU"},
    {"GET", "/v1/items/{item}", NULL, NULL, "ASPpuU"},
    {"PATCH", "/v1/items/{item}", NULL, "{\"title\":\"u\"}", "AP"},
    {"GET", "/v1/publishers/mine/items/by-external/1", NULL, NULL, "ASPpuU"},
    {"POST", "/v1/items/bulk", NDJSON, "{}", "APp"}, /* each line is judged by itself */
    {"GET", "/v1/publishers", NULL, NULL, "ASPpuU"},
    {"GET", "/v1/publishers/mine", NULL, NULL, "ASPpuU"},
    {"PUT", "/v1/publishers/mine", NULL, "{}", "AP"},
    {"GET", "/v1/topics", NULL, NULL, "ASPpuU"},
    {"GET", "/v1/topics/t", NULL, NULL, "ASPpuU"},
    {"PUT", "/v1/topics/t", NULL, "{}", "A"},
    {"GET", "/v1/users/ann/follows", NULL, NULL, "ASu"},
    {"POST", "/v1/users/ann/follows", NULL, "{}", "ASu"},
    {"PUT", "/v1/users/ann/follows/topic/t", NULL, NULL, "ASu"},
    {"DELETE", "/v1/users/ann/follows/topic/t", NULL, NULL, "ASu"},
    {"GET", "/v1/users/ann/mutes", NULL, NULL, "ASu"},
    {"POST", "/v1/users/ann/mutes", NULL, "{}", "ASu"},
    {"PUT", "/v1/users/ann/mutes/word/w", NULL, NULL, "ASu"},
    {"DELETE", "/v1/users/ann/mutes/word/w", NULL, NULL, "ASu"},
    {"POST", "/v1/follows/bulk", NDJSON, "{}", "AS"},
    {"POST", "/v1/users/ann/events", NULL, "{\"events\":[{\"type\":\"open\",\"item\":\"1\"}]}", "ASu"},
    {"GET", "/v1/keys", NULL, NULL, "A"},
    {"POST", "/v1/keys", NULL, "{\"role\":\"service\"}", "A"},
    {"DELETE", "/v1/keys/0123456789abcdef", NULL, NULL, "A"},
    {"POST", "/v1/tokens", NULL, "{\"user\":\"ann\",\"ttl_s\":60}", "AS"},
    {"GET", "/metrics", NULL, NULL, "A"},
    {"GET", "/v1/status", NULL, NULL, "A"},
    {"DELETE", "/v1/publishers/mine/items/by-external/1", NULL, NULL, "AP"},
    {"DELETE", "/v1/items/{item}", NULL, NULL, "AP"},
};

static void row_answers(size_t row, const char *path, char who, const char *credential, int line)
{
    struct reply r;
    api_as(a, credential);
    api_request(a, matrix[row].method, path, matrix[row].extra, matrix[row].body, &r);
    bool allowed = who != '0' && strchr(matrix[row].who, who) != NULL;
    int expected = who == '0' ? 401 : 403;
    if (allowed ? r.status == 401 || r.status == 403 || r.status >= 500 : r.status != expected)
        fail_msg("line %d: %s %s as %c answered %d: %.200s", line, matrix[row].method, path, who, r.status,
                 r.body);
    if (!allowed && strcmp(matrix[row].method, "HEAD") != 0)
        check_problem(&r, who == '0' ? "unauthorized" : "forbidden", NULL, (int)row);
    reply_done(&r);
}

static void each_role_may_what_the_table_says_and_no_more(void **state)
{
    (void)state;
    char id[32];
    publish("{\"publisher\":\"mine\",\"title\":\"t\",\"body\":\"b\"}", id, NULL);
    struct {
        char who;
        char *credential;
    } all[] = {{'S', api_key(a, "service", NULL, NULL)},
               {'P', api_key(a, "publisher", "[\"other\",\"mine\"]", NULL)},
               {'p', api_key(a, "publisher", "[\"theirs\"]", NULL)},
               {'u', api_token(a, "ann")},
               {'U', api_token(a, "bob")},
               {'0', mem_strdup("")},
               {'0', mem_strdup("garbage")},
               {'0', mem_strdup("fm_0123456789abcdef_0123456789abcdef0123456789abcdef")},
               {'A', NULL}};
    for (size_t row = 0; row < MEM_COUNT(matrix); row++) {
        const char *brace = strstr(matrix[row].path, "{item}");
        char *path = brace != NULL ? mem_printf("/v1/items/%s", id) : mem_strdup(matrix[row].path);
        for (size_t i = 0; i < MEM_COUNT(all); i++)
            row_answers(row, path, all[i].who, all[i].credential, __LINE__);
        free(path);
    }
    for (size_t i = 0; i < MEM_COUNT(all); i++)
        free(all[i].credential);
}

static void a_user_token_of_a_name_with_escapes_is_for_that_user_only(void **state)
{
    (void)state;
    char *umlaut = api_token(a, "\xc3\xa4nn%20");
    api_as(a, umlaut);
    STATUS("GET", "/v1/users/%C3%A4nn%2520/feed", NULL, 200);
    STATUS("GET", "/v1/users/%c3%a4%6En%2520/feed", NULL, 200);
    STATUS("GET", "/v1/users/%C3%A4nn%2521/feed", NULL, 403);
    free(umlaut);
}

static void health_readiness_and_the_document_are_open(void **state)
{
    (void)state;
    static const char *const open[] = {"/healthz", "/readyz", "/openapi.yaml"};
    api_as(a, "");
    for (size_t i = 0; i < MEM_COUNT(open); i++)
        STATUS("GET", open[i], NULL, 200);
    json_t *o = get("/readyz");
    assert_true(json_is_array(json_object_get(o, "degraded")));
    assert_int_equal(json_array_size(json_object_get(o, "degraded")), 0);
    json_decref(o);
    api_as(a, "garbage");
    for (size_t i = 0; i < MEM_COUNT(open); i++)
        STATUS("GET", open[i], NULL, 200);
    REFUSED("GET", "/metrics", NULL, 401, "unauthorized", NULL);
    REFUSED("GET", "/v1/status", NULL, 401, "unauthorized", NULL);
}

static void other_schemes_and_two_credentials_are_401(void **state)
{
    (void)state;
    char key[400], extra[1000];
    snprintf(key, sizeof key, "%s", fixture_admin_key(a->fixture));
    api_as(a, "");
    static const char *const forms[] = {"Authorization: Basic %s\r\n", "Authorization: %s\r\n",
                                        "Authorization: Bearer\r\n",   "Authorization: Bearer %s x\r\n",
                                        "Authorization: Bearer%s\r\n", "Authorization: Bearer \"%s\"\r\n"};
    for (size_t i = 0; i < MEM_COUNT(forms); i++) {
        const char *at = strstr(forms[i], "%s");
        if (at != NULL)
            snprintf(extra, sizeof extra, "%.*s%s%s", (int)(at - forms[i]), forms[i], key, at + 2);
        else
            snprintf(extra, sizeof extra, "%s", forms[i]);
        refused_at("GET", "/v1/keys", extra, NULL, 401, "unauthorized", NULL, (int)(1000 + i));
    }
    snprintf(extra, sizeof extra, "Authorization: Bearer %s\r\nAuthorization: Bearer %s\r\n", key, key);
    REFUSED_WITH("GET", "/v1/keys", extra, NULL, 401, "unauthorized", NULL);
    snprintf(extra, sizeof extra, "authorization: bearer %s\r\n", key);
    has_status("GET", "/v1/keys", extra, NULL, 200, __LINE__);
    snprintf(extra, sizeof extra, "Authorization: Bearer %.*sx\r\n", (int)strlen(key) - 1, key);
    REFUSED_WITH("GET", "/v1/keys", extra, NULL, 401, "unauthorized", NULL);
}

/* ---- tokens that others sign ---- */

static struct {
    char kid[100];
    unsigned char secret[200];
    size_t len;
} signer;

/* The key of $DATA/jwt.keys: "kid secret" (base64url) a line, so that a backend can sign its own. */
static void read_signer(void)
{
    char *path = mem_printf("%s/jwt.keys", fixture_dir(a->fixture)), line[400], secret[300];
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f) != NULL && (line[0] == '#' || line[0] == '\n'))
        ;
    fclose(f);
    free(path);
    assert_int_equal(sscanf(line, "%99s %299s", signer.kid, secret), 2);
    assert_int_equal(
        base64url_decode(secret, strlen(secret), signer.secret, sizeof signer.secret, &signer.len, NULL), 0);
}

static char *encode(const void *p, size_t n)
{
    char *out = mem_alloc(BASE64URL_SIZE(n));
    base64url_encode(p, n, out);
    return out;
}

/* hash NULL: an empty signature. */
static char *sign_jwt(const char *header, const char *claims, const EVP_MD *hash)
{
    char *h = encode(header, strlen(header)), *c = encode(claims, strlen(claims)),
         *input = mem_printf("%s.%s", h, c), *signature = mem_strdup("");
    unsigned char mac[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    if (hash != NULL) {
        HMAC(hash, signer.secret, (int)signer.len, (const unsigned char *)input, strlen(input), mac, &n);
        free(signature);
        signature = encode(mac, n);
    }
    char *token = mem_printf("%s.%s", input, signature);
    free(h);
    free(c);
    free(input);
    free(signature);
    return token;
}

static void a_token_needs_hs256_a_known_kid_a_user_and_time_left(void **state)
{
    (void)state;
    read_signer();
    long long now = (long long)(clock_wall_ms() / 1000);
    char good[300], header[300], claims[300];
    snprintf(good, sizeof good, "{\"alg\":\"HS256\",\"typ\":\"JWT\",\"kid\":\"%s\"}", signer.kid);
    snprintf(claims, sizeof claims, "{\"sub\":\"ann\",\"exp\":%lld}", now + 600);
    char *token = sign_jwt(good, claims, EVP_sha256());
    api_as(a, token);
    STATUS("GET", "/v1/users/ann/feed", NULL, 200);
    STATUS("GET", "/v1/users/bob/feed", NULL, 403);
    size_t last = strlen(token) - 5;
    token[last] = token[last] == 'A' ? 'B' : 'A';
    api_as(a, token);
    REFUSED("GET", "/v1/users/ann/feed", NULL, 401, "unauthorized", NULL);
    free(token);
    struct {
        const char *header, *claims;
        const EVP_MD *hash;
    } bad[] = {
        {"{\"alg\":\"none\",\"kid\":\"%s\"}", NULL, NULL},
        {"{\"alg\":\"none\",\"kid\":\"%s\"}", NULL, EVP_sha256()},
        {"{\"alg\":\"HS512\",\"kid\":\"%s\"}", NULL, EVP_sha512()},
        {"{\"alg\":\"HS256\",\"kid\":\"%s\"}", NULL, NULL},
        {"{\"alg\":\"HS256\",\"kid\":\"%s-x\"}", NULL, EVP_sha256()},
        {"{\"alg\":\"HS256\"}", NULL, EVP_sha256()},
        {"{\"alg\":\"hs256\",\"kid\":\"%s\"}", NULL, EVP_sha256()},
        {"{\"alg\":\"HS256\",\"kid\":\"%s\",\"crit\":[\"exp\"]}", NULL, EVP_sha256()},
        {NULL, "{\"sub\":\"ann\",\"exp\":1000}", EVP_sha256()},
        {NULL, "{\"sub\":\"ann\"}", EVP_sha256()},
        {NULL, "{\"sub\":\"ann\",\"exp\":\"9999999999\"}", EVP_sha256()},
        {NULL, "{\"sub\":\"ann\",\"exp\":9999999999,\"nbf\":9999999998}", EVP_sha256()},
        {NULL, "{\"exp\":9999999999}", EVP_sha256()},
        {NULL, "{\"sub\":\"a b\",\"exp\":9999999999}", EVP_sha256()},
        {NULL, "{\"sub\":[\"ann\"],\"exp\":9999999999}", EVP_sha256()},
        {NULL, "[]", EVP_sha256()},
    };
    for (size_t i = 0; i < MEM_COUNT(bad); i++) {
        const char *at = bad[i].header != NULL ? strstr(bad[i].header, "%s") : NULL;
        if (at != NULL)
            snprintf(header, sizeof header, "%.*s%s%s", (int)(at - bad[i].header), bad[i].header, signer.kid,
                     at + 2);
        else
            snprintf(header, sizeof header, "%s", bad[i].header != NULL ? bad[i].header : good);
        token = sign_jwt(header, bad[i].claims != NULL ? bad[i].claims : claims, bad[i].hash);
        api_as(a, token);
        refused_at("GET", "/v1/users/ann/feed", NULL, NULL, 401, "unauthorized", NULL, (int)(1000 + i));
        free(token);
    }
}

static void a_token_is_for_60_to_86400_seconds(void **state)
{
    (void)state;
    struct reply r;
    api_post(a, "/v1/tokens", "{\"user\":\"ann\",\"ttl_s\":60}", &r);
    assert_int_equal(r.status, 200);
    assert_null(reply_header(&r, "Feed-Position"));
    json_t *o = reply_json(&r);
    assert_int_equal(json_object_size(o), 2);
    int64_t expires;
    assert_int_equal(clock_parse(text(o, "expires_at"), &expires, NULL), 0);
    assert_true(expires > clock_wall_ms() + 30000 && expires <= clock_wall_ms() + 60000);
    json_decref(o);
    reply_done(&r);
    STATUS("POST", "/v1/tokens", "{\"user\":\"ann\",\"ttl_s\":86400}", 200);
    INVALID("POST", "/v1/tokens", "{\"user\":\"ann\",\"ttl_s\":59}", "/ttl_s");
    INVALID("POST", "/v1/tokens", "{\"user\":\"ann\",\"ttl_s\":86401}", "/ttl_s");
    INVALID("POST", "/v1/tokens", "{\"user\":\"ann\",\"ttl_s\":\"60\"}", "/ttl_s");
    INVALID("POST", "/v1/tokens", "{\"user\":\"ann\"}", "/ttl_s");
    INVALID("POST", "/v1/tokens", "{\"ttl_s\":60}", "/user");
    INVALID("POST", "/v1/tokens", "{\"user\":\"a b\",\"ttl_s\":60}", "/user");
}

static void a_key_is_shown_once_and_ends_when_it_is_deleted(void **state)
{
    (void)state;
    struct reply r;
    api_post(a, "/v1/keys", "{\"role\":\"publisher\",\"names\":[\"a\",\"\xc3\xa4\"]}", &r);
    assert_int_equal(r.status, 201);
    assert_null(reply_header(&r, "Feed-Position"));
    json_t *key = reply_json(&r);
    reply_done(&r);
    assert_int_equal(json_object_size(key), 5);
    assert_int_equal(json_array_size(json_object_get(key, "names")), 2);
    assert_true(is_null(key, "expires_at"));
    char start_of_key[64];
    snprintf(start_of_key, sizeof start_of_key, "fm_%s_", text(key, "id"));
    assert_int_equal(strncmp(text(key, "key"), start_of_key, strlen(start_of_key)), 0);
    api_get(a, "/v1/keys", &r);
    assert_non_null(strstr(r.body, text(key, "id")));
    assert_null(strstr(r.body, text(key, "key") + strlen(start_of_key)));
    reply_done(&r);
    api_as(a, text(key, "key"));
    STATUS("GET", "/v1/items?ids=1", NULL, 200);
    api_as(a, NULL);
    char path[80];
    snprintf(path, sizeof path, "/v1/keys/%s", text(key, "id"));
    api_delete(a, path, &r);
    assert_int_equal(r.status, 204);
    assert_null(reply_header(&r, "Feed-Position"));
    reply_done(&r);
    REFUSED("DELETE", path, NULL, 404, "not_found", NULL);
    api_as(a, text(key, "key"));
    REFUSED("GET", "/v1/items?ids=1", NULL, 401, "unauthorized", NULL);
    json_decref(key);
}

static void keys_need_a_role_names_only_for_publishers_and_a_future(void **state)
{
    (void)state;
    INVALID("POST", "/v1/keys", "{}", "/role");
    INVALID("POST", "/v1/keys", "{\"role\":\"user\"}", "/role");
    INVALID("POST", "/v1/keys", "{\"role\":1}", "/role");
    INVALID("POST", "/v1/keys", "{\"role\":\"publisher\"}", "/names");
    INVALID("POST", "/v1/keys", "{\"role\":\"publisher\",\"names\":[]}", "/names");
    INVALID("POST", "/v1/keys", "{\"role\":\"publisher\",\"names\":[\"a\",\"b c\"]}", "/names/1");
    INVALID("POST", "/v1/keys", "{\"role\":\"service\",\"names\":[\"a\"]}", "/names");
    INVALID("POST", "/v1/keys", "{\"role\":\"service\",\"expires_at\":\"2001-01-01T00:00:00Z\"}",
            "/expires_at");
    INVALID("POST", "/v1/keys", "{\"role\":\"service\",\"expires_at\":\"soon\"}", "/expires_at");
    INVALID("POST", "/v1/keys", "{\"role\":\"service\",\"expires_at\":99}", "/expires_at");
}

static bool key_is_refused(void *arg)
{
    api_as(a, arg);
    return api_status(a, "GET", "/v1/items?ids=1", NULL) == 401;
}

static void a_key_ends_at_its_time(void **state)
{
    (void)state;
    char at[CLOCK_RFC3339_SIZE], body[120];
    clock_format(clock_wall_ms() + 1500, at);
    snprintf(body, sizeof body, "{\"role\":\"service\",\"expires_at\":\"%s\"}", at);
    json_t *key = api_json(a, "POST", "/v1/keys", body, 201);
    assert_string_equal(text(key, "expires_at"), at);
    char *credential = mem_strdup(text(key, "key"));
    json_decref(key);
    assert_true(fixture_until(key_is_refused, credential, 10000));
    int64_t end;
    assert_int_equal(clock_parse(at, &end, NULL), 0);
    assert_true(clock_wall_ms() >= end);
    free(credential);
}

static void the_demo_token_is_there_with_demo_only(void **state)
{
    (void)state;
    api_as(a, "");
    json_t *o = api_json(a, "POST", "/v1/demo/token", "{\"user\":\"demo\"}", 200);
    char *token = mem_strdup(text(o, "token"));
    json_decref(o);
    api_as(a, token);
    STATUS("GET", "/v1/users/demo/feed", NULL, 200);
    STATUS("GET", "/v1/users/other/feed", NULL, 403);
    free(token);
    struct reply r;
    static const char *const methods[] = {"POST", "GET", "DELETE"};
    for (size_t i = 0; i < MEM_COUNT(methods); i++) {
        bool post = i == 0;
        rawhttp_once((uint16_t)fixture_port(a->fixture, no_demo), methods[i], "/v1/demo/token",
                     post ? "Content-Type: application/json\r\n" : NULL, post ? "{\"user\":\"demo\"}" : NULL,
                     &r);
        assert_int_equal(r.status, 404);
        check_problem(&r, "not_found", NULL, __LINE__);
        reply_done(&r);
    }
}

/* ---- items ---- */

static void an_item_answers_all_its_members(void **state)
{
    (void)state;
    char id[32], path[80];
    publish("{\"publisher\":\"bare\",\"title\":\"t\",\"body\":\"\"}", id, NULL);
    snprintf(path, sizeof path, "/v1/items/%s", id);
    json_t *o = get(path);
    assert_int_equal(json_object_size(o), 13);
    assert_string_equal(text(o, "id"), id);
    assert_int_equal(strspn(id, "0123456789"), strlen(id));
    assert_int_equal(number(o, "revision"), 1);
    assert_string_equal(text(o, "publisher"), "bare");
    assert_string_equal(text(o, "title"), "t");
    assert_string_equal(text(o, "body"), "");
    assert_true(is_null(o, "external_id") && is_null(o, "url") && is_null(o, "lang") &&
                is_null(o, "edited_at"));
    assert_true(json_is_array(json_object_get(o, "media")) && json_is_array(json_object_get(o, "topics")));
    assert_int_equal(json_object_size(json_object_get(o, "extra")), 0);
    assert_true(json_is_object(json_object_get(o, "extra")));
    int64_t at;
    assert_int_equal(clock_parse(text(o, "published_at"), &at, NULL), 0);
    assert_int_equal(strlen(text(o, "published_at")), strlen("2026-01-02T03:04:05.678Z"));
    assert_true(at <= clock_wall_ms() && at > clock_wall_ms() - 60000);
    json_decref(o);
}

static void each_text_of_an_item_is_taken_up_to_its_cap(void **state)
{
    (void)state;
    TAKEN("title", long_string("x", 512));
    NOT_TAKEN("title", long_string("x", 513), "/title");
    TAKEN("title", long_string("\xc3\xa4", 256)); /* bytes are counted, not characters */
    NOT_TAKEN("title", long_string("\xc3\xa4", 257), "/title");
    NOT_TAKEN("title", json_string(""), "/title");
    TAKEN("body", long_string("x", 64 * 1024));
    NOT_TAKEN("body", long_string("x", 64 * 1024 + 1), "/body");
    TAKEN("external_id", long_string("e", 256));
    NOT_TAKEN("external_id", long_string("e", 257), "/external_id");
    NOT_TAKEN("external_id", json_string(""), "/external_id");
    TAKEN("publisher", long_string("p", 64));
    NOT_TAKEN("publisher", long_string("p", 65), "/publisher");
    NOT_TAKEN("lang", json_string("e n"), "/lang");
    TAKEN("lang", json_string("pt-BR"));
}

static char *url_of(size_t n)
{
    char *rest = repeat("u", n - 12), *url = mem_printf("https://x.y/%s", rest);
    free(rest);
    assert_int_equal(strlen(url), n);
    return url;
}

static void a_url_has_up_to_2_kib_and_is_of_the_web(void **state)
{
    (void)state;
    char *fits = url_of(2048), *over = url_of(2049);
    TAKEN("url", json_string(fits));
    NOT_TAKEN("url", json_string(over), "/url");
    NOT_TAKEN("url", json_string("javascript:alert(1)"), "/url");
    NOT_TAKEN("url", json_string("/relative"), "/url");
    NOT_TAKEN("url", json_string("https://x.y/a b"), "/url");
    NOT_TAKEN("url", json_integer(1), "/url");
    TAKEN("url", json_null());
    free(fits);
    free(over);
}

static json_t *media_of(size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, json_pack("{s:s, s:s, s:i}", "url", "https://x.y/i.png", "type",
                                              "image/png", "width", 100));
    return list;
}

static json_t *names_of(size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        char name[32];
        snprintf(name, sizeof name, "topic-%zu", i);
        json_array_append_new(list, json_string(name));
    }
    return list;
}

static void sixteen_media_and_sixteen_topics_are_taken(void **state)
{
    (void)state;
    TAKEN("media", media_of(16));
    NOT_TAKEN("media", media_of(17), "/media");
    NOT_TAKEN("media", json_object(), "/media");
    NOT_TAKEN("media", json_pack("[{s:s}]", "url", "https://x.y/"), "/media/0/type");
    NOT_TAKEN("media", json_pack("[{s:s}]", "type", "image/png"), "/media/0/url");
    NOT_TAKEN("media", json_pack("[{s:s,s:s,s:i}]", "url", "https://x.y/", "type", "a/b", "width", -1),
              "/media/0/width");
    NOT_TAKEN("media", json_pack("[{s:s,s:s,s:f}]", "url", "https://x.y/", "type", "a/b", "bytes", 1.5),
              "/media/0/bytes");
    NOT_TAKEN("media", json_pack("[{s:s,s:s,s:s}]", "url", "https://x.y/", "type", "a/b", "preview_url", "x"),
              "/media/0/preview_url");
    TAKEN("topics", names_of(16));
    NOT_TAKEN("topics", names_of(17), "/topics");
    NOT_TAKEN("topics", json_pack("[s,s]", "a", "b c"), "/topics/1");
    NOT_TAKEN("topics", json_pack("[i]", 1), "/topics/0");
    NOT_TAKEN("topics", json_string("a"), "/topics");
}

static void all_members_of_media_are_answered_as_given(void **state)
{
    (void)state;
    char id[32], path[80];
    json_t *medium = json_pack("{s:s,s:s,s:i,s:i,s:i,s:i,s:s,s:s,s:s}", "url", "https://x.y/v.mp4", "type",
                               "video/mp4", "width", 1, "height", 2, "bytes", 3, "duration_ms", 4,
                               "preview_url", "https://x.y/p.jpg", "placeholder", "LKO2", "alt", "a view");
    json_t *list = json_array();
    json_array_append(list, medium);
    char *body = item_with("media", list);
    publish(body, id, NULL);
    snprintf(path, sizeof path, "/v1/items/%s", id);
    json_t *o = get(path);
    assert_true(json_equal(json_array_get(json_object_get(o, "media"), 0), medium));
    json_decref(o);
    json_decref(medium);
    free(body);
}

static void extra_has_up_to_4_kib(void **state)
{
    (void)state;
    json_t *fits = json_object(), *over = json_object();
    json_object_set_new(fits, "k", long_string("x", 4096 - 8)); /* {"k":"..."} */
    json_object_set_new(over, "k", long_string("x", 4096 - 7));
    TAKEN("extra", fits);
    NOT_TAKEN("extra", over, "/extra");
    NOT_TAKEN("extra", json_array(), "/extra");
    NOT_TAKEN("extra", json_string("x"), "/extra");
}

static void published_at_is_from_1970_to_60_s_ahead(void **state)
{
    (void)state;
    char at[CLOCK_RFC3339_SIZE], id[32], path[80];
    NOT_TAKEN("published_at", json_string("1969-12-31T23:59:59.999Z"), "/published_at");
    TAKEN("published_at", json_string("1970-01-01T00:00:00Z"));
    NOT_TAKEN("published_at", json_string("1970-01-01T00:00:00+00:01"), "/published_at");
    NOT_TAKEN("published_at", json_string("2026-13-01T00:00:00Z"), "/published_at");
    NOT_TAKEN("published_at", json_string("2025-02-29T00:00:00Z"), "/published_at");
    NOT_TAKEN("published_at", json_string("2025-02-28"), "/published_at");
    NOT_TAKEN("published_at", json_string("2025-02-28T00:00:00"), "/published_at");
    NOT_TAKEN("published_at", json_integer(1700000000), "/published_at");
    clock_format(clock_wall_ms() + 120000, at);
    NOT_TAKEN("published_at", json_string(at), "/published_at");
    clock_format(clock_wall_ms() + 50000, at); /* counts as now */
    char *body = item_with("published_at", json_string(at));
    publish(body, id, NULL);
    snprintf(path, sizeof path, "/v1/items/%s", id);
    json_t *o = get(path);
    int64_t taken;
    assert_int_equal(clock_parse(text(o, "published_at"), &taken, NULL), 0);
    assert_true(taken <= clock_wall_ms());
    json_decref(o);
    free(body);
    body = item_with("published_at", json_string("2024-02-29T23:30:00.1234-05:00"));
    publish(body, id, NULL);
    snprintf(path, sizeof path, "/v1/items/%s", id);
    o = get(path);
    assert_string_equal(text(o, "published_at"), "2024-03-01T04:30:00.123Z");
    json_decref(o);
    free(body);
}

static void a_repeated_post_is_unchanged_or_revised_and_ignores_published_at(void **state)
{
    (void)state;
    struct reply r;
    char id[32];
    api_post(a, "/v1/items",
             "{\"publisher\":\"rep\",\"external_id\":\"x\",\"title\":\"t\",\"body\":\"b\",\"published_at\":"
             "\"2020-01-01T00:00:00Z\"}",
             &r);
    assert_int_equal(r.status, 201);
    json_t *o = reply_json(&r);
    snprintf(id, sizeof id, "%s", text(o, "id"));
    char location[64];
    snprintf(location, sizeof location, "/v1/items/%s", id);
    assert_string_equal(reply_header(&r, "Location"), location);
    assert_string_equal(reply_header(&r, "Feed-Position"), text(o, "position"));
    assert_int_equal(json_object_size(o), 4);
    json_decref(o);
    reply_done(&r);
    static const struct {
        const char *body, *result;
        int revision;
    } again[] = {
        {"{\"publisher\":\"rep\",\"external_id\":\"x\",\"title\":\"t\",\"body\":\"b\"}", "unchanged", 1},
        {"{\"publisher\":\"rep\",\"external_id\":\"x\",\"title\":\"t\",\"body\":\"b\",\"published_at\":"
         "\"2021-01-01T00:00:00Z\"}",
         "unchanged", 1},
        {"{\"body\":\"b\",\"title\":\"t\",\"external_id\":\"x\",\"publisher\":\"rep\",\"topics\":[],\"url\":"
         "null,"
         "\"media\":[],\"extra\":{}}",
         "unchanged", 1},
        {"{\"publisher\":\"rep\",\"external_id\":\"x\",\"title\":\"t2\",\"body\":\"b\"}", "revised", 2},
        {"{\"publisher\":\"rep\",\"external_id\":\"x\",\"title\":\"t2\",\"body\":\"b\"}", "unchanged", 2},
    };
    for (size_t i = 0; i < MEM_COUNT(again); i++) {
        o = api_json(a, "POST", "/v1/items", again[i].body, 200);
        assert_string_equal(text(o, "id"), id);
        assert_string_equal(text(o, "result"), again[i].result);
        assert_int_equal(number(o, "revision"), again[i].revision);
        json_decref(o);
    }
    o = get(location);
    assert_string_equal(text(o, "published_at"), "2020-01-01T00:00:00.000Z");
    assert_false(is_null(o, "edited_at"));
    json_decref(o);
}

static void an_idempotency_key_becomes_the_external_id(void **state)
{
    (void)state;
    struct reply r;
    const char *body = "{\"publisher\":\"idem\",\"title\":\"t\",\"body\":\"b\"}";
    has_status("POST", "/v1/items", "Idempotency-Key: k-1\r\n", body, 201, __LINE__);
    has_status("POST", "/v1/items", "Idempotency-Key: k-1\r\n", body, 200, __LINE__);
    json_t *o = get("/v1/publishers/idem/items/by-external/k-1");
    assert_string_equal(text(o, "external_id"), "k-1");
    json_decref(o);
    /* with an external_id of its own, that one counts */
    api_request(a, "POST", "/v1/items", "Idempotency-Key: k-1\r\n",
                "{\"publisher\":\"idem\",\"external_id\":\"own\",\"title\":\"t\",\"body\":\"b\"}", &r);
    assert_int_equal(r.status, 201);
    reply_done(&r);
    REFUSED_WITH("POST", "/v1/items", "Idempotency-Key:\r\n", body, 400, "invalid_request", NULL);
    REFUSED_WITH("POST", "/v1/items", "Idempotency-Key: a\r\nIdempotency-Key: b\r\n", body, 400,
                 "invalid_request", NULL);
    char *key = repeat("k", 256), *fits = mem_printf("Idempotency-Key: %s\r\n", key),
         *over = mem_printf("Idempotency-Key: %sk\r\n", key);
    has_status("POST", "/v1/items", fits, body, 201, __LINE__);
    REFUSED_WITH("POST", "/v1/items", over, body, 400, "invalid_request", NULL);
    REFUSED_WITH("POST", "/v1/items", over,
                 "{\"publisher\":\"p\",\"title\":\"t\",\"body\":\"b\",\"external_id\":\"its-own\"}", 400,
                 "invalid_request", NULL);
    free(key);
    free(fits);
    free(over);
}

static void a_merge_patch_follows_rfc_7396(void **state)
{
    (void)state;
    char id[32], path[80];
    publish(
        "{\"publisher\":\"patch\",\"external_id\":\"m\",\"title\":\"t\",\"body\":\"b\",\"url\":\"https://"
        "x.y/\",\"lang\":\"en\",\"topics\":[\"a\",\"b\"],\"extra\":{\"k\":{\"x\":1,\"y\":2},\"l\":[1,2]}}",
        id, NULL);
    snprintf(path, sizeof path, "/v1/items/%s", id);
    struct reply r;
    api_request(a, "PATCH", path, MERGE,
                "{\"url\":null,\"topics\":[\"c\"],\"extra\":{\"k\":{\"x\":null,\"z\":3},\"l\":[3]}}", &r);
    assert_int_equal(r.status, 200);
    json_t *o = reply_json(&r);
    assert_string_equal(text(o, "result"), "revised");
    assert_int_equal(number(o, "revision"), 2);
    assert_string_equal(reply_header(&r, "Feed-Position"), text(o, "position"));
    json_decref(o);
    reply_done(&r);
    o = get(path);
    json_t *extra = json_loads("{\"k\":{\"y\":2,\"z\":3},\"l\":[3]}", 0, NULL),
           *topics = json_loads("[\"c\"]", 0, NULL);
    assert_true(json_equal(json_object_get(o, "extra"), extra));
    assert_true(json_equal(json_object_get(o, "topics"), topics));
    assert_true(is_null(o, "url"));
    assert_string_equal(text(o, "lang"), "en");
    assert_string_equal(text(o, "title"), "t");
    json_decref(extra);
    json_decref(topics);
    json_decref(o);
    o = api_json(a, "PATCH", path, "{}", 200); /* plain JSON is taken too */
    assert_string_equal(text(o, "result"), "unchanged");
    json_decref(o);
    o = api_json(a, "PATCH", path, "{\"extra\":null,\"media\":null,\"topics\":null}", 200);
    assert_int_equal(number(o, "revision"), 3);
    json_decref(o);
    o = get(path);
    assert_int_equal(json_object_size(json_object_get(o, "extra")), 0);
    assert_true(json_is_object(json_object_get(o, "extra")));
    assert_int_equal(json_array_size(json_object_get(o, "topics")), 0);
    json_decref(o);
}

static void a_patch_of_what_is_fixed_is_400_and_changes_nothing(void **state)
{
    (void)state;
    char id[32], path[80];
    publish("{\"publisher\":\"patch\",\"title\":\"t\",\"body\":\"b\"}", id, NULL);
    snprintf(path, sizeof path, "/v1/items/%s", id);
    INVALID("PATCH", path, "{\"title\":\"n\",\"publisher\":\"x\"}", "/publisher");
    INVALID("PATCH", path, "{\"title\":\"n\",\"publisher\":\"patch\"}", "/publisher");
    INVALID("PATCH", path, "{\"external_id\":\"e\"}", "/external_id");
    INVALID("PATCH", path, "{\"published_at\":\"2020-01-01T00:00:00Z\"}", "/published_at");
    INVALID("PATCH", path, "{\"title\":null}", "/title");
    INVALID("PATCH", path, "{\"body\":null}", "/body");
    INVALID("PATCH", path, "{\"title\":7}", "/title");
    INVALID("PATCH", path, "{\"nope\":null}", "/nope");
    INVALID("PATCH", path, "{\"extra\":[1]}", "/extra");
    INVALID("PATCH", path, "[]", NULL);
    INVALID("PATCH", path, "", NULL);
    json_t *o = get(path);
    assert_int_equal(number(o, "revision"), 1);
    assert_string_equal(text(o, "title"), "t");
    json_decref(o);
}

static void if_match_is_honoured(void **state)
{
    (void)state;
    char id[32], path[80];
    publish("{\"publisher\":\"match\",\"title\":\"t\",\"body\":\"b\"}", id, NULL);
    snprintf(path, sizeof path, "/v1/items/%s", id);
    REFUSED_WITH("PATCH", path, "If-Match: \"2\"\r\n", "{\"title\":\"n\"}", 412, "precondition_failed", NULL);
    has_status("PATCH", path, "If-Match: \"1\"\r\n", "{\"title\":\"n\"}", 200, __LINE__);
    REFUSED_WITH("PATCH", path, "If-Match: \"1\"\r\n", "{\"title\":\"o\"}", 412, "precondition_failed", NULL);
    has_status("PATCH", path, "If-Match: *\r\n", "{\"title\":\"o\"}", 200, __LINE__);
    static const char *const bad[] = {"If-Match: 3\r\n",     "If-Match: \"03\"\r\n",
                                      "If-Match: \"x\"\r\n", "If-Match: \"99999999999\"\r\n",
                                      "If-Match:\r\n",       "If-Match: \"3\"\r\nIf-Match: \"3\"\r\n"};
    for (size_t i = 0; i < MEM_COUNT(bad); i++)
        refused_at("PATCH", path, bad[i], "{\"title\":\"p\"}", 400, "invalid_request", NULL, (int)(1000 + i));
    REFUSED_WITH("DELETE", path, "If-Match: \"1\"\r\n", NULL, 412, "precondition_failed", NULL);
    has_status("DELETE", path, "If-Match: \"3\"\r\n", NULL, 204, __LINE__);
}

static void a_delete_is_204_twice_and_then_everything_is_410(void **state)
{
    (void)state;
    char id[32], path[80];
    const char *body = "{\"publisher\":\"gone\",\"external_id\":\"g\",\"title\":\"t\",\"body\":\"b\"}";
    const char *external = "/v1/publishers/gone/items/by-external/g";
    publish(body, id, NULL);
    snprintf(path, sizeof path, "/v1/items/%s", id);
    for (int i = 0; i < 2; i++) {
        struct reply r;
        api_delete(a, i == 0 ? path : external, &r);
        assert_int_equal(r.status, 204);
        assert_int_equal(r.len, 0);
        ts_t at;
        assert_non_null(reply_header(&r, "Feed-Position"));
        assert_int_equal(ts_parse(reply_header(&r, "Feed-Position"), &at, NULL), 0);
        reply_done(&r);
    }
    REFUSED("GET", path, NULL, 410, "gone", NULL);
    REFUSED("GET", external, NULL, 410, "gone", NULL);
    REFUSED("PATCH", path, "{\"title\":\"n\"}", 410, "gone", NULL);
    REFUSED("POST", "/v1/items", body, 410, "gone", NULL);
    REFUSED("DELETE", "/v1/items/123", NULL, 404, "not_found", NULL);
    REFUSED("DELETE", "/v1/publishers/gone/items/by-external/never", NULL, 404, "not_found", NULL);
    char list[80];
    snprintf(list, sizeof list, "/v1/items?ids=%s,123", id);
    json_t *o = get(list);
    assert_int_equal(json_array_size(json_object_get(o, "items")), 0);
    json_decref(o);
}

static void an_id_that_is_no_id_is_404_and_in_a_list_400(void **state)
{
    (void)state;
    static const char *const ids[] = {"abc", "-1", "0x10", "1.0", "99999999999999999999", "01", "%31%32"};
    for (size_t i = 0; i < MEM_COUNT(ids); i++) {
        char path[80];
        snprintf(path, sizeof path, "/v1/items/%s", ids[i]);
        refused_at("GET", path, NULL, NULL, 404, "not_found", NULL, (int)(1000 + i));
    }
    INVALID("GET", "/v1/items", NULL, "?ids");
    INVALID("GET", "/v1/items?ids=", NULL, "?ids");
    INVALID("GET", "/v1/items?ids=1,x", NULL, "?ids");
    INVALID("GET", "/v1/items?ids=1,", NULL, "?ids");
    struct buf list;
    buf_init(&list, 8000);
    buf_add_str(&list, "/v1/items?ids=1");
    for (int i = 2; i <= 100; i++)
        buf_printf(&list, ",%d", i);
    STATUS("GET", list.data, NULL, 200);
    buf_add_str(&list, ",101");
    INVALID("GET", list.data, NULL, "?ids");
    buf_reset(&list);
    buf_add_str(&list, "/v1/items?ids=1");
    for (int i = 2; i <= 101; i++)
        buf_add_str(&list, ",1");
    INVALID("GET", list.data, NULL, "?ids"); /* as many as were asked for count, not as many as differ */
    buf_done(&list);
}

/* ---- bulk ---- */

/* The lines of an NDJSON answer as an array. */
static json_t *lines_of(const struct reply *r)
{
    json_t *all = json_array();
    for (const char *p = r->body; *p != '\0';) {
        size_t n = strcspn(p, "\n");
        json_t *o = json_loadb(p, n, JSON_REJECT_DUPLICATES, NULL);
        assert_non_null(o);
        json_array_append_new(all, o);
        assert_int_equal(p[n], '\n');
        p += n + 1;
    }
    return all;
}

static json_t *bulk(const char *path, const char *body, size_t lines)
{
    struct reply r;
    api_request(a, "POST", path, NDJSON, body, &r);
    if (r.status != 200)
        fail_msg("%s answered %d: %.300s", path, r.status, r.body);
    assert_string_equal(reply_header(&r, "Content-Type"), "application/x-ndjson");
    assert_non_null(reply_header(&r, "Feed-Position"));
    json_t *all = lines_of(&r), *o;
    size_t i;
    assert_int_equal(json_array_size(all), lines);
    json_array_foreach(all, i, o)
    {
        assert_int_equal(number(o, "line"), i + 1);
        json_t *problem = json_object_get(o, "problem");
        if (problem != NULL) {
            assert_int_equal(json_object_size(o), 3);
            assert_int_equal(number(problem, "status"), number(o, "status"));
            assert_int_equal(strncmp(text(problem, "type"), "/problems/", 10), 0);
            assert_string_equal(text(problem, "instance"), reply_header(&r, "X-Request-Id"));
        } else {
            assert_true(json_is_string(json_object_get(o, "position")));
        }
    }
    reply_done(&r);
    return all;
}

static int line_status(const json_t *all, size_t i)
{
    return number(json_array_get(all, i), "status");
}

static const char *line_result(const json_t *all, size_t i)
{
    return text(json_array_get(all, i), "result");
}

static void bulk_lines_are_acted_on_in_order_and_one_bad_line_harms_no_other(void **state)
{
    (void)state;
    json_t *all = bulk("/v1/items/bulk",
                       "{\"publisher\":\"bulk\",\"external_id\":\"1\",\"title\":\"t\",\"body\":\"b\"}\n"
                       "not json\n"
                       "{\"publisher\":\"bulk\",\"external_id\":\"1\",\"title\":\"u\",\"body\":\"b\"}\r\n"
                       "{\"op\":\"delete\",\"publisher\":\"bulk\",\"external_id\":\"1\"}\n"
                       "{\"publisher\":\"bulk\",\"external_id\":\"1\",\"title\":\"u\",\"body\":\"b\"}\n"
                       "{\"op\":\"delete\",\"publisher\":\"bulk\",\"external_id\":\"1\"}\n"
                       "{\"op\":\"delete\",\"publisher\":\"bulk\",\"external_id\":\"never\"}\n"
                       "{\"op\":\"remove\",\"publisher\":\"bulk\",\"external_id\":\"1\"}\n"
                       "{\"op\":\"delete\",\"publisher\":\"bulk\"}\n"
                       "{\"op\":\"delete\",\"publisher\":\"bulk\",\"external_id\":\"1\",\"title\":\"t\"}\n"
                       "{\"publisher\":\"bulk\",\"title\":\"t\",\"body\":\"b\",\"nope\":1}\n"
                       "\n"
                       "{\"publisher\":\"bulk\",\"title\":\"t\\u0000\",\"body\":\"b\"}\n"
                       "{\"publisher\":\"bulk\",\"title\":\"t\",\"title\":\"t\",\"body\":\"b\"}\n"
                       "[]\n"
                       "{\"publisher\":\"bulk\",\"external_id\":\"2\",\"title\":\"t\",\"body\":\"b\"}",
                       16);
    static const int statuses[] = {201, 400, 200, 200, 410, 200, 404, 400,
                                   400, 400, 400, 400, 400, 400, 400, 201};
    for (size_t i = 0; i < MEM_COUNT(statuses); i++) {
        if (line_status(all, i) != statuses[i])
            fail_msg("line %zu: %d, not %d", i + 1, line_status(all, i), statuses[i]);
    }
    assert_string_equal(line_result(all, 0), "created");
    assert_string_equal(line_result(all, 2), "revised");
    assert_string_equal(line_result(all, 3), "deleted");
    assert_string_equal(line_result(all, 5), "deleted");
    assert_string_equal(first_pointer(json_object_get(json_array_get(all, 10), "problem")), "/nope");
    assert_int_equal(json_object_size(json_array_get(all, 0)), 6);
    assert_int_equal(number(json_array_get(all, 2), "revision"), 2);
    json_decref(all);
}

static char *bulk_body(const char *publisher, size_t n)
{
    struct buf b;
    buf_init(&b, LONG_MAX_BYTES);
    for (size_t i = 0; i < n; i++)
        buf_printf(&b, "{\"publisher\":\"%s\",\"external_id\":\"%zu\",\"title\":\"t\",\"body\":\"b\"}\n",
                   publisher, i);
    buf_add_char(&b, '\0');
    return buf_take(&b);
}

static void a_thousand_lines_are_taken_and_one_more_is_413(void **state)
{
    (void)state;
    char *fits = bulk_body("thousand", 1000), *over = bulk_body("too-many", 1001);
    json_t *all = bulk("/v1/items/bulk", fits, 1000);
    for (size_t i = 0; i < 1000; i++)
        assert_int_equal(line_status(all, i), 201);
    json_decref(all);
    REFUSED_WITH("POST", "/v1/items/bulk", NDJSON, over, 413, "too_large", NULL);
    json_t *o = get("/v1/publishers/too-many/items");
    assert_int_equal(json_array_size(json_object_get(o, "items")), 0);
    json_decref(o);
    REFUSED_WITH("POST", "/v1/items/bulk", NDJSON, "", 400, "invalid_request", NULL);
    free(fits);
    free(over);
}

static void a_bulk_line_of_another_publisher_is_403_by_itself(void **state)
{
    (void)state;
    char *key = api_key(a, "publisher", "[\"inside\"]", NULL);
    api_as(a, key);
    json_t *all = bulk("/v1/items/bulk",
                       "{\"publisher\":\"outside\",\"title\":\"t\",\"body\":\"b\"}\n"
                       "{\"publisher\":\"inside\",\"title\":\"t\",\"body\":\"b\"}\n"
                       "{\"op\":\"delete\",\"publisher\":\"outside\",\"external_id\":\"1\"}\n",
                       3);
    assert_int_equal(line_status(all, 0), 403);
    assert_int_equal(line_status(all, 1), 201);
    assert_int_equal(line_status(all, 2), 403);
    json_decref(all);
    free(key);
}

static void a_bulk_request_without_a_good_line_still_tells_a_position(void **state)
{
    (void)state;
    json_decref(bulk("/v1/items/bulk", "x\n", 1));
    json_decref(bulk("/v1/follows/bulk", "x\n", 1));
}

static void follows_in_bulk_answer_line_by_line(void **state)
{
    (void)state;
    json_t *all =
        bulk("/v1/follows/bulk",
             "{\"user\":\"mover\",\"kind\":\"publisher\",\"name\":\"a\",\"since\":\"2020-01-01T00:00:00Z\"}\n"
             "{\"user\":\"mover\",\"kind\":\"publisher\",\"name\":\"a\"}\n"
             "{\"user\":\"mover\",\"kind\":\"word\",\"name\":\"a\"}\n"
             "{\"user\":\"mover\",\"kind\":\"item\",\"name\":\"1\"}\n"
             "{\"user\":\"m over\",\"kind\":\"topic\",\"name\":\"a\"}\n"
             "{\"user\":\"mover\",\"kind\":\"topic\",\"name\":\"\"}\n"
             "{\"user\":\"mover\",\"kind\":\"topic\",\"name\":\"b\",\"since\":\"yesterday\"}\n"
             "{\"user\":\"mover\",\"kind\":\"topic\",\"name\":\"b\",\"x\":1}\n"
             "{\"user\":\"mover\",\"kind\":\"topic\"}\n"
             "\n"
             "{\"user\":\"mover\",\"user\":\"m\",\"kind\":\"topic\",\"name\":\"b\"}\n"
             "{\"user\":\"mover\",\"kind\":\"topic\",\"name\":\"b\"}\r\n",
             12);
    static const int statuses[] = {200, 200, 400, 400, 400, 400, 400, 400, 400, 400, 400, 200};
    for (size_t i = 0; i < MEM_COUNT(statuses); i++)
        assert_int_equal(line_status(all, i), statuses[i]);
    assert_string_equal(line_result(all, 0), "added");
    assert_string_equal(line_result(all, 1), "unchanged");
    assert_string_equal(line_result(all, 11), "added");
    json_decref(all);
    json_t *o = get("/v1/users/mover/follows"), *list = json_object_get(o, "follows");
    assert_int_equal(json_array_size(list), 2);
    assert_string_equal(text(json_array_get(list, 0), "since"), "2020-01-01T00:00:00.000Z");
    json_decref(o);
}

static void follows_in_bulk_take_10000_lines_and_the_cap_is_per_user(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, LONG_MAX_BYTES);
    for (int i = 0; i < 1201; i++)
        buf_printf(&b, "{\"user\":\"full\",\"kind\":\"topic\",\"name\":\"t%d\"}\n", i);
    buf_add_str(&b, "{\"user\":\"free\",\"kind\":\"topic\",\"name\":\"t\"}\n");
    json_t *all = bulk("/v1/follows/bulk", b.data, 1202);
    assert_int_equal(line_status(all, 1199), 200);
    assert_int_equal(line_status(all, 1200), 409);
    assert_string_equal(text(json_object_get(json_array_get(all, 1200), "problem"), "type"),
                        "/problems/too_many_follows");
    assert_int_equal(line_status(all, 1201), 200);
    json_decref(all);
    for (int i = 1202; i < 10000; i++)
        buf_add_str(&b, "{}\n");
    json_decref(bulk("/v1/follows/bulk", b.data, 10000));
    buf_add_str(&b, "{}\n");
    REFUSED_WITH("POST", "/v1/follows/bulk", NDJSON, b.data, 413, "too_large", NULL);
    buf_done(&b);
}

/* ---- the graph ---- */

static void a_follow_is_204_again_and_again_with_a_position(void **state)
{
    (void)state;
    static const char *const steps[] = {"PUT", "PUT", "DELETE", "DELETE"};
    static const char *const paths[] = {
        "/v1/users/edge/follows/publisher/p", "/v1/users/edge/follows/topic/t",
        "/v1/users/edge/mutes/publisher/p",   "/v1/users/edge/mutes/topic/t",
        "/v1/users/edge/mutes/item/123",      "/v1/users/edge/mutes/word/caf%C3%A9"};
    for (size_t k = 0; k < MEM_COUNT(paths); k++) {
        ts_t before = 0, at;
        for (size_t i = 0; i < MEM_COUNT(steps); i++) {
            struct reply r;
            api_request(a, steps[i], paths[k], NULL, NULL, &r);
            assert_int_equal(r.status, 204);
            assert_int_equal(r.len, 0);
            assert_non_null(reply_header(&r, "Feed-Position"));
            assert_int_equal(ts_parse(reply_header(&r, "Feed-Position"), &at, NULL), 0);
            assert_true(at >= before);
            before = at;
            reply_done(&r);
        }
    }
}

static void only_publishers_and_topics_can_be_followed(void **state)
{
    (void)state;
    INVALID("PUT", "/v1/users/u/follows/item/1", NULL, "");
    INVALID("PUT", "/v1/users/u/follows/word/x", NULL, "");
    INVALID("PUT", "/v1/users/u/mutes/item/x", NULL, "");
    REFUSED("PUT", "/v1/users/u/follows/user/x", NULL, 404, "not_found", NULL);
    REFUSED("PUT", "/v1/users/u/mutes/Publisher/x", NULL, 404, "not_found", NULL);
    INVALID("POST", "/v1/users/u/follows", "{\"add\":[{\"kind\":\"word\",\"name\":\"x\"}]}", "/add/0");
    INVALID("POST", "/v1/users/u/follows", "{\"remove\":[{\"kind\":\"topic\",\"name\":\"x\"},{\"kind\":1}]}",
            "/remove/1");
    INVALID("POST", "/v1/users/u/follows", "{\"add\":{}}", "/add");
    INVALID("POST", "/v1/users/u/follows", "{\"add\":[7]}", "/add/0");
    INVALID("POST", "/v1/users/u/follows", "{\"add\":[{\"kind\":\"topic\",\"name\":\"a b\"}]}", "/add/0");
}

static void a_change_counts_what_was_added_removed_and_unchanged(void **state)
{
    (void)state;
    struct reply r;
    STATUS("PUT", "/v1/users/chg/follows/topic/old", NULL, 204);
    api_post(
        a, "/v1/users/chg/follows",
        "{\"add\":[{\"kind\":\"topic\",\"name\":\"old\"},{\"kind\":\"topic\",\"name\":\"new\"},{\"kind\":"
        "\"publisher\",\"name\":\"new\"},{\"kind\":\"topic\",\"name\":\"new\"}],\"remove\":[{\"kind\":"
        "\"topic\",\"name\":\"never\"}]}",
        &r);
    assert_int_equal(r.status, 200);
    json_t *o = reply_json(&r);
    assert_int_equal(json_object_size(o), 4);
    assert_int_equal(number(o, "added"), 2);
    assert_int_equal(number(o, "removed"), 0);
    assert_int_equal(number(o, "unchanged"), 3);
    assert_string_equal(text(o, "position"), reply_header(&r, "Feed-Position"));
    json_decref(o);
    reply_done(&r);
    o = api_json(a, "POST", "/v1/users/chg/follows",
                 "{\"add\":[],\"remove\":[{\"kind\":\"topic\",\"name\":\"old\"}]}", 200);
    assert_int_equal(number(o, "removed"), 1);
    json_decref(o);
    o = api_json(a, "POST", "/v1/users/chg/follows", "{}", 200);
    assert_int_equal(number(o, "unchanged"), 0);
    json_decref(o);
    o = get("/v1/users/chg/follows");
    assert_int_equal(json_array_size(json_object_get(o, "follows")), 2);
    json_decref(o);
}

static char *change_body(const char *member, const char *prefix, int n)
{
    struct buf b;
    buf_init(&b, LONG_MAX_BYTES);
    buf_printf(&b, "{\"%s\":[", member);
    for (int i = 0; i < n; i++)
        buf_printf(&b, "%s{\"kind\":\"topic\",\"name\":\"%s%d\"}", i > 0 ? "," : "", prefix, i);
    buf_add_str(&b, "]}");
    buf_add_char(&b, '\0');
    return buf_take(&b);
}

static void follows_over_the_cap_are_409_and_change_nothing(void **state)
{
    (void)state;
    char *thousand = change_body("add", "a", 1000), *over = change_body("add", "a", 1001),
         *more = change_body("add", "b", 201), *fits = change_body("add", "b", 200);
    json_t *o = api_json(a, "POST", "/v1/users/capped/follows", thousand, 200);
    assert_int_equal(number(o, "added"), 1000);
    json_decref(o);
    INVALID("POST", "/v1/users/capped/follows", over, "/add");
    REFUSED("POST", "/v1/users/capped/follows", more, 409, "too_many_follows", NULL);
    o = api_json(a, "POST", "/v1/users/capped/follows", fits, 200);
    assert_int_equal(number(o, "added"), 200); /* so the refused one added nothing */
    json_decref(o);
    REFUSED("PUT", "/v1/users/capped/follows/topic/one-more", NULL, 409, "too_many_follows", NULL);
    STATUS("PUT", "/v1/users/capped/follows/topic/a0", NULL, 204); /* is there */
    STATUS("DELETE", "/v1/users/capped/follows/topic/a0", NULL, 204);
    STATUS("PUT", "/v1/users/capped/follows/topic/one-more", NULL, 204);
    free(thousand);
    free(over);
    free(more);
    free(fits);
}

static void mutes_over_the_cap_are_409(void **state)
{
    (void)state;
    STATUS("PUT", "/v1/users/muter/mutes/word/a", NULL, 204);
    STATUS("PUT", "/v1/users/muter/mutes/word/b", NULL, 204);
    STATUS("PUT", "/v1/users/muter/mutes/item/3", NULL, 204);
    REFUSED("PUT", "/v1/users/muter/mutes/topic/d", NULL, 409, "too_many_mutes", NULL);
    STATUS("PUT", "/v1/users/muter/mutes/word/a", NULL, 204);
    json_t *o =
        api_json(a, "POST", "/v1/users/muter/mutes",
                 "{\"add\":[{\"kind\":\"topic\",\"name\":\"d\"}],\"remove\":[{\"kind\":\"word\",\"name\":"
                 "\"a\"}]}",
                 200); /* in one change there is room */
    assert_int_equal(number(o, "added"), 1);
    assert_int_equal(number(o, "removed"), 1);
    json_decref(o);
    o = get("/v1/users/muter/mutes");
    json_t *list = json_object_get(o, "mutes"), *edge;
    size_t i;
    assert_int_equal(json_array_size(list), 3);
    json_array_foreach(list, i, edge)
    {
        int64_t since;
        assert_int_equal(json_object_size(edge), 3);
        assert_int_equal(clock_parse(text(edge, "since"), &since, NULL), 0);
    }
    json_decref(o);
}

static void lists_of_follows_page_to_their_end(void **state)
{
    (void)state;
    char *body = change_body("add", "n", 45), path[900] = "/v1/users/lister/follows?limit=20";
    json_decref(api_json(a, "POST", "/v1/users/lister/follows", body, 200));
    free(body);
    static const size_t sizes[] = {20, 20, 5};
    json_t *seen = json_object();
    char cursor[700] = "";
    for (size_t i = 0; i < 3; i++) {
        json_t *o = get(path), *list = json_object_get(o, "follows"), *edge;
        size_t k;
        assert_int_equal(json_array_size(list), sizes[i]);
        json_array_foreach(list, k, edge)
        {
            json_object_set_new(seen, text(edge, "name"), json_true());
        }
        if (i < 2) {
            snprintf(cursor, sizeof cursor, "%s", text(o, "next"));
            snprintf(path, sizeof path, "/v1/users/lister/follows?limit=20&cursor=%s", cursor);
        } else {
            assert_true(is_null(o, "next"));
        }
        json_decref(o);
    }
    assert_int_equal(json_object_size(seen), 45);
    json_decref(seen);
    snprintf(path, sizeof path, "/v1/users/other/follows?cursor=%s", cursor);
    REFUSED("GET", path, NULL, 400, "invalid_cursor", NULL);
    snprintf(path, sizeof path, "/v1/users/lister/mutes?cursor=%s", cursor);
    REFUSED("GET", path, NULL, 400, "invalid_cursor", NULL);
    REFUSED("GET", "/v1/users/lister/follows?cursor=", NULL, 400, "invalid_cursor", NULL);
    INVALID("GET", "/v1/users/lister/follows?limit=0", NULL, "?limit");
    INVALID("GET", "/v1/users/lister/follows?limit=101", NULL, "?limit");
}

/* ---- publishers and topics ---- */

static void a_profile_is_set_as_a_whole_and_answered(void **state)
{
    (void)state;
    struct reply r;
    api_put(a, "/v1/publishers/prof",
            "{\"title\":\"The "
            "Prof\",\"icon\":\"https://x.y/i.png\",\"url\":\"https://x.y/\",\"extra\":{\"k\":1}}",
            &r);
    assert_int_equal(r.status, 200);
    reply_done(&r);
    json_t *o = get("/v1/publishers/prof");
    assert_int_equal(json_object_size(o), 8);
    assert_string_equal(text(o, "title"), "The Prof");
    assert_int_equal(number(json_object_get(o, "extra"), "k"), 1);
    json_decref(o);
    json_decref(api_json(a, "PUT", "/v1/publishers/prof", "{\"url\":\"https://x.z/\"}", 200));
    o = get("/v1/publishers/prof");
    assert_true(is_null(o, "title") && is_null(o, "icon"));
    assert_string_equal(text(o, "url"), "https://x.z/");
    assert_int_equal(json_object_size(json_object_get(o, "extra")), 0);
    json_decref(o);
    json_decref(api_json(a, "PUT", "/v1/topics/prof", "{\"title\":\"T\"}", 200));
    o = get("/v1/topics/prof");
    assert_string_equal(text(o, "topic"), "prof");
    assert_string_equal(text(o, "title"), "T");
    json_decref(o);
    char *x = repeat("x", 4096 - 7), *extra = mem_printf("{\"extra\":{\"k\":\"%s\"}}", x);
    INVALID("PUT", "/v1/publishers/prof", extra, "/extra");
    free(x);
    free(extra);
    INVALID("PUT", "/v1/publishers/prof", "{\"title\":1}", "/title");
    INVALID("PUT", "/v1/publishers/prof", "{\"icon\":\"x\"}", "/icon");
    INVALID("PUT", "/v1/publishers/prof", "{\"url\":\"ftp://x\"}", "/url");
    INVALID("PUT", "/v1/publishers/prof", "{\"extra\":[]}", "/extra");
}

static bool followers_are_counted(void *arg)
{
    json_t *o = get(arg);
    bool yes = number(o, "followers") == 2;
    json_decref(o);
    return yes;
}

static void lists_by_prefix_are_pages_most_followed_first(void **state)
{
    (void)state;
    static const char *const names[] = {"pre-a", "pre-b", "pre-c", "other"};
    char path[900], body[200];
    for (size_t i = 0; i < MEM_COUNT(names); i++) {
        snprintf(body, sizeof body,
                 "{\"publisher\":\"%s\",\"title\":\"t\",\"body\":\"b\",\"topics\":[\"%s\"]}", names[i],
                 names[i]);
        publish(body, NULL, NULL);
    }
    STATUS("PUT", "/v1/users/f1/follows/publisher/pre-b", NULL, 204);
    STATUS("PUT", "/v1/users/f2/follows/publisher/pre-b", NULL, 204);
    STATUS("PUT", "/v1/users/f2/follows/publisher/pre-c", NULL, 204);
    assert_true(fixture_until(followers_are_counted, "/v1/publishers/pre-b", 20000));
    static const char *const order[] = {"pre-b", "pre-c", "pre-a"};
    char cursor[700] = "";
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "/v1/publishers?limit=1%s%s%s", i == 0 ? "&prefix=pre-" : "",
                 i > 0 ? "&cursor=" : "", cursor);
        json_t *o = get(path), *list = json_object_get(o, "publishers");
        assert_int_equal(json_object_size(o), 2);
        assert_int_equal(json_array_size(list), 1);
        assert_string_equal(text(json_array_get(list, 0), "publisher"), order[i]);
        assert_int_equal(json_object_size(json_array_get(list, 0)), 8);
        assert_int_equal(is_null(o, "next"), i == 2);
        if (i < 2)
            snprintf(cursor, sizeof cursor, "%s", text(o, "next"));
        json_decref(o);
    }
    snprintf(path, sizeof path, "/v1/publishers?prefix=pre-&cursor=%s", cursor);
    STATUS("GET", path, NULL, 200);
    snprintf(path, sizeof path, "/v1/publishers?prefix=pre&cursor=%s", cursor);
    REFUSED("GET", path, NULL, 400, "invalid_cursor", NULL);
    snprintf(path, sizeof path, "/v1/publishers?prefix=&cursor=%s", cursor);
    REFUSED("GET", path, NULL, 400, "invalid_cursor", NULL);
    snprintf(path, sizeof path, "/v1/topics?prefix=pre-&cursor=%s", cursor);
    REFUSED("GET", path, NULL, 400, "invalid_cursor", NULL);
    STATUS("GET", "/v1/topics?prefix=", NULL, 200);
    STATUS("GET", "/v1/topics", NULL, 200);
    INVALID("GET", "/v1/publishers?prefix=a%20b", NULL, "?prefix");
    INVALID("GET", "/v1/publishers?limit=0", NULL, "?limit");
    REFUSED("GET", "/v1/publishers?cursor=", NULL, 400, "invalid_cursor", NULL);
}

/* ---- the feed ---- */

static json_t *feed(const char *user, const char *query)
{
    char path[1500];
    snprintf(path, sizeof path, "/v1/users/%s/feed?%s", user, query);
    return get(path);
}

static void a_page_has_every_member_with_its_type(void **state)
{
    (void)state;
    char position[TS_TEXT_SIZE], query[100];
    user_with_items("shape", 3, position);
    snprintf(query, sizeof query, "limit=2&position=%s", position);
    json_t *o = feed("shape", query);
    assert_int_equal(json_object_size(o), 9);
    assert_int_equal(json_array_size(json_object_get(o, "items")), 2);
    json_t *item = json_array_get(json_object_get(o, "items"), 0);
    assert_int_equal(json_object_size(item), 13);
    assert_string_equal(text(item, "title"), "t2"); /* newest first */
    assert_true(is_null(item, "external_id") && is_null(item, "url") && is_null(item, "lang") &&
                is_null(item, "edited_at"));
    assert_true(json_is_array(json_object_get(item, "media")) &&
                json_is_array(json_object_get(item, "topics")) &&
                json_is_object(json_object_get(item, "extra")));
    json_t *about = json_object_get(json_object_get(o, "publishers"), "of-shape");
    assert_int_equal(json_object_size(about), 2);
    assert_true(is_null(about, "title") && is_null(about, "icon"));
    assert_true(json_is_string(json_object_get(o, "next")) && json_is_string(json_object_get(o, "newest")));
    assert_string_equal(text(o, "state"), "complete");
    assert_true(is_null(o, "reason") && is_null(o, "fallback"));
    assert_true(number(o, "lag_ms") >= 0);
    assert_string_equal(text(o, "order"), "latest");
    json_decref(o);
    o = feed("shape-of-nobody", ""); /* an empty page has them too */
    assert_int_equal(json_object_size(o), 9);
    assert_true(json_is_string(json_object_get(o, "newest")));
    assert_int_equal(json_object_size(json_object_get(o, "publishers")), 0);
    json_decref(o);
}

static void fields_say_what_an_item_has(void **state)
{
    (void)state;
    char position[TS_TEXT_SIZE], query[100];
    user_with_items("fields", 1, position);
    static const struct {
        const char *fields;
        size_t members, publishers;
    } cases[] = {{"full", 13, 1}, {"summary", 11, 1}, {"ids", 2, 0}};
    for (size_t i = 0; i < MEM_COUNT(cases); i++) {
        snprintf(query, sizeof query, "fields=%s&position=%s", cases[i].fields, position);
        json_t *o = feed("fields", query), *item = json_array_get(json_object_get(o, "items"), 0);
        assert_int_equal(json_object_size(item), cases[i].members);
        assert_int_equal(json_object_size(json_object_get(o, "publishers")), cases[i].publishers);
        assert_int_equal(number(item, "revision"), 1);
        if (i == 1) {
            assert_null(json_object_get(item, "body"));
            assert_null(json_object_get(item, "extra"));
        }
        json_decref(o);
    }
    INVALID("GET", "/v1/users/fields/feed?fields=", NULL, "?fields");
    INVALID("GET", "/v1/users/fields/feed?fields=FULL", NULL, "?fields");
    INVALID("GET", "/v1/publishers/of-fields/items?fields=some", NULL, "?fields");
}

static void limit_is_1_to_100_and_20_by_default(void **state)
{
    (void)state;
    char position[TS_TEXT_SIZE], query[100];
    user_with_items("limits", 21, position);
    snprintf(query, sizeof query, "position=%s", position);
    json_t *o = feed("limits", query);
    assert_int_equal(json_array_size(json_object_get(o, "items")), 20);
    json_decref(o);
    o = feed("limits", "limit=1");
    assert_int_equal(json_array_size(json_object_get(o, "items")), 1);
    json_decref(o);
    o = feed("limits", "limit=100");
    assert_int_equal(json_array_size(json_object_get(o, "items")), 21);
    assert_true(is_null(o, "next"));
    json_decref(o);
    static const char *const bad[] = {"0",   "101", "-1", "1.5", "x", "", "01", "+1", "99999999999999999999",
                                      "1e1", "%201"};
    static const char *const paths[] = {"/v1/users/limits/feed", "/v1/publishers/p/items",
                                        "/v1/topics/t/items", "/v1/users/u/mutes", "/v1/topics"};
    for (size_t i = 0; i < MEM_COUNT(bad); i++) {
        for (size_t k = 0; k < MEM_COUNT(paths); k++) {
            char path[100];
            snprintf(path, sizeof path, "%s?limit=%s", paths[k], bad[i]);
            INVALID("GET", path, NULL, "?limit");
        }
    }
}

static void a_cursor_that_is_empty_changed_or_foreign_is_400(void **state)
{
    (void)state;
    char position[TS_TEXT_SIZE], query[100], path[1500];
    user_with_items("cursors", 5, position);
    snprintf(query, sizeof query, "limit=2&position=%s", position);
    json_t *o = feed("cursors", query);
    char *cursor = mem_strdup(text(o, "next")), *newest = mem_strdup(text(o, "newest"));
    json_decref(o);
    REFUSED("GET", "/v1/users/cursors/feed?cursor=", NULL, 400, "invalid_cursor", NULL);
    REFUSED("GET", "/v1/users/cursors/feed?cursor=x", NULL, 400, "invalid_cursor", NULL);
    snprintf(path, sizeof path, "/v1/users/cursors/feed?cursor=%s", newest);
    REFUSED("GET", path, NULL, 400, "invalid_cursor", NULL);
    snprintf(path, sizeof path, "/v1/users/else/feed?cursor=%s", cursor);
    REFUSED("GET", path, NULL, 400, "invalid_cursor", NULL);
    snprintf(path, sizeof path, "/v1/publishers/cursors/items?cursor=%s", cursor);
    REFUSED("GET", path, NULL, 400, "invalid_cursor", NULL);
    snprintf(path, sizeof path, "/v1/users/cursors/feed?cursor=%s=", cursor);
    REFUSED("GET", path, NULL, 400, "invalid_cursor", NULL);
    for (size_t i = 0; i < strlen(cursor); i++) { /* each character counts */
        char *changed = mem_strdup(cursor);
        changed[i] = changed[i] == 'A' ? 'B' : 'A';
        snprintf(path, sizeof path, "/v1/users/cursors/feed?cursor=%s", changed);
        REFUSED("GET", path, NULL, 400, "invalid_cursor", NULL);
        free(changed);
    }
    free(cursor);
    free(newest);
}

static void what_a_cursor_carries_may_be_repeated_and_not_changed(void **state)
{
    (void)state;
    char position[TS_TEXT_SIZE], query[1200], path[1500];
    user_with_items("bound", 6, position);
    snprintf(query, sizeof query, "limit=2&position=%s", position);
    json_t *o = feed("bound", query);
    char *cursor = mem_strdup(text(o, "next"));
    json_decref(o);
    static const char *const good[] = {"limit=2", "limit=3&fields=ids", "order=latest", "fields=summary",
                                       "order=latest&profile=default"};
    for (size_t i = 0; i < MEM_COUNT(good); i++) {
        snprintf(query, sizeof query, "%s&cursor=%s", good[i], cursor);
        o = feed("bound", query);
        assert_true(json_array_size(json_object_get(o, "items")) >= 2);
        json_decref(o);
    }
    snprintf(query, sizeof query, "position=%s&cursor=%s", position, cursor);
    json_decref(feed("bound", query));
    snprintf(path, sizeof path, "/v1/users/bound/feed?order=ranked&cursor=%s", cursor);
    REFUSED("GET", path, NULL, 400, "invalid_request", "?order");
    snprintf(path, sizeof path, "/v1/users/bound/feed?profile=latest&cursor=%s", cursor);
    REFUSED("GET", path, NULL, 400, "invalid_request", "?profile");
    INVALID("GET", "/v1/users/bound/feed?profile=nobody", NULL, "?profile");
    INVALID("GET", "/v1/users/bound/feed?profile=", NULL, "?profile");
    INVALID("GET", "/v1/users/bound/feed?order=oldest", NULL, "?order");
    INVALID("GET", "/v1/users/bound/feed?order=", NULL, "?order");
    free(cursor);
}

static void pages_go_to_the_end_without_gap_or_repeat(void **state)
{
    (void)state;
    char position[TS_TEXT_SIZE], query[1200], cursor[700] = "";
    user_with_items("walker", 25, position);
    int expected = 24;
    for (int page = 0;; page++) {
        assert_true(page < 30);
        snprintf(query, sizeof query, "limit=%d&position=%s%s%s", 1 + page % 4, position,
                 cursor[0] != '\0' ? "&cursor=" : "", cursor);
        json_t *o = feed("walker", query), *item;
        size_t i;
        json_array_foreach(json_object_get(o, "items"), i, item)
        {
            char title[16];
            snprintf(title, sizeof title, "t%d", expected--);
            assert_string_equal(text(item, "title"), title);
        }
        bool end = is_null(o, "next");
        snprintf(cursor, sizeof cursor, "%s", text(o, "next"));
        json_decref(o);
        if (end)
            break;
    }
    assert_int_equal(expected, -1);
}

static void newest_is_the_same_on_later_pages(void **state)
{
    (void)state;
    char position[TS_TEXT_SIZE], query[1200], first[700], ignored[TS_TEXT_SIZE];
    user_with_items("newest", 4, position);
    snprintf(query, sizeof query, "limit=2&position=%s", position);
    json_t *o = feed("newest", query);
    snprintf(first, sizeof first, "%s", text(o, "newest"));
    snprintf(query, sizeof query, "limit=1&cursor=%s", text(o, "next"));
    json_decref(o);
    publish("{\"publisher\":\"of-newest\",\"title\":\"later\",\"body\":\"b\"}", NULL, ignored);
    o = feed("newest", query);
    assert_string_equal(text(o, "newest"), first);
    snprintf(query, sizeof query, "limit=1&position=%s&cursor=%s", ignored, text(o, "next"));
    json_decref(o);
    o = feed("newest", query);
    assert_string_equal(text(o, "newest"), first);
    json_decref(o);
}

static void a_position_that_was_never_given_is_400(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "ffffffffffffffff", "7fffffffffffffff", "x", "", "0", "123", "zzzzzzzzzzzzzzzz",
        "-000000000000001", "00000000000000001"};
    static const char *const paths[] = {"/v1/users/u/feed", "/v1/publishers/p/items", "/v1/topics/t/items",
                                        "/v1/users/u/follows", "/v1/users/u/mutes"};
    for (size_t i = 0; i < MEM_COUNT(bad); i++) {
        for (size_t k = 0; k < MEM_COUNT(paths); k++) {
            char path[100];
            snprintf(path, sizeof path, "%s?position=%s", paths[k], bad[i]);
            refused_at("GET", path, NULL, NULL, 400, "invalid_position", "?position", (int)(1000 + i));
        }
    }
    STATUS("GET", "/v1/users/u/feed", NULL, 200); /* and none of them broke anything */
}

static void invalid_cursors_are_named_as_the_parameter(void **state)
{
    (void)state;
    static const char *const paths[] = {"/v1/users/u/feed",    "/v1/publishers/p/items", "/v1/topics/t/items",
                                        "/v1/users/u/follows", "/v1/publishers",         "/v1/topics"};
    for (size_t i = 0; i < MEM_COUNT(paths); i++) {
        char path[100];
        snprintf(path, sizeof path, "%s?cursor=AAAA", paths[i]);
        REFUSED("GET", path, NULL, 400, "invalid_cursor", "?cursor");
    }
}

static void headers_that_are_wrong_are_named(void **state)
{
    (void)state;
    REFUSED_WITH("POST", "/v1/items", "Idempotency-Key:\r\n",
                 "{\"publisher\":\"idem\",\"title\":\"t\",\"body\":\"b\"}", 400, "invalid_request",
                 "Idempotency-Key");
    REFUSED_WITH("PATCH", "/v1/items/1", "If-Match: 1\r\n", "{}", 400, "invalid_request", "If-Match");
}

static void a_page_is_private_and_not_cached(void **state)
{
    (void)state;
    struct reply r;
    api_get(a, "/v1/users/u/feed", &r);
    assert_string_equal(reply_header(&r, "Cache-Control"), "private, no-cache");
    assert_string_equal(reply_header(&r, "Vary"), "Authorization, Accept-Encoding");
    assert_string_equal(reply_header(&r, "Content-Type"), "application/json");
    assert_non_null(reply_header(&r, "ETag"));
    reply_done(&r);
    api_request(a, "GET", "/v1/users/u/feed", "Accept-Encoding: gzip\r\nIf-None-Match: \"other\"\r\n", NULL,
                &r);
    assert_int_equal(r.status, 200);
    assert_null(reply_header(&r, "Content-Encoding"));
    json_decref(reply_json(&r));
    reply_done(&r);
}

static void an_item_is_in_the_feed_once_and_not_when_muted(void **state)
{
    (void)state;
    char position[TS_TEXT_SIZE], path[200];
    STATUS("PUT", "/v1/users/once/follows/publisher/multi", NULL, 204);
    STATUS("PUT", "/v1/users/once/follows/topic/m1", NULL, 204);
    STATUS("PUT", "/v1/users/once/follows/topic/m2", NULL, 204);
    publish(
        "{\"publisher\":\"multi\",\"title\":\"Storm, at noon\",\"body\":\"b\",\"topics\":[\"m1\",\"m2\"]}",
        NULL, position);
    snprintf(path, sizeof path, "position=%s", position);
    json_t *o = feed("once", path);
    assert_int_equal(json_array_size(json_object_get(o, "items")), 1);
    json_decref(o);
    STATUS("PUT", "/v1/users/once/mutes/word/stor", NULL, 204); /* a part of a word is none */
    o = feed("once", "");
    assert_int_equal(json_array_size(json_object_get(o, "items")), 1);
    json_decref(o);
    STATUS("PUT", "/v1/users/once/mutes/word/STORM", NULL, 204);
    o = feed("once", "");
    assert_int_equal(json_array_size(json_object_get(o, "items")), 0);
    json_decref(o);
}

static void a_ranked_page_has_a_session_and_pages_through_it_once(void **state)
{
    (void)state;
    char position[TS_TEXT_SIZE], query[1200], session[100];
    user_with_items("ranked", 30, position);
    snprintf(query, sizeof query, "order=ranked&limit=12&position=%s", position);
    json_t *seen = json_object();
    for (int page = 0;; page++) {
        json_t *o = feed("ranked", query), *item;
        size_t i;
        assert_int_equal(json_object_size(o), 10);
        assert_true(is_null(o, "fallback"));
        assert_string_equal(text(o, "order"), "ranked");
        if (page == 0)
            snprintf(session, sizeof session, "%s", text(o, "session"));
        assert_string_not_equal(session, "(none)");
        assert_string_equal(text(o, "session"), session);
        json_array_foreach(json_object_get(o, "items"), i, item)
        {
            assert_null(json_object_get(seen, text(item, "id")));
            json_object_set_new(seen, text(item, "id"), json_true());
        }
        bool end = is_null(o, "next");
        if (page == 0) {
            char path[1500];
            snprintf(path, sizeof path, "/v1/users/ranked/feed?order=latest&cursor=%s", text(o, "next"));
            REFUSED("GET", path, NULL, 400, "invalid_request", "?order");
        }
        snprintf(query, sizeof query, "order=ranked&limit=12&cursor=%s", text(o, "next"));
        json_decref(o);
        if (end)
            break;
        assert_true(page < 10);
    }
    assert_int_equal(json_object_size(seen), 30);
    json_decref(seen);
}

/* ---- engagement ---- */

static json_t *send_events(const char *user, const char *body)
{
    char path[100];
    struct reply r;
    snprintf(path, sizeof path, "/v1/users/%s/events", user);
    api_post(a, path, body, &r);
    if (r.status != 202)
        fail_msg("events answered %d: %.300s", r.status, r.body);
    assert_null(reply_header(&r, "Feed-Position"));
    json_t *o = reply_json(&r);
    assert_int_equal(json_object_size(o), 3);
    reply_done(&r);
    return o;
}

static void accepted_duplicates_and_rejected_add_up_to_what_was_sent(void **state)
{
    (void)state;
    const char *body = "{\"events\":["
                       "{\"type\":\"impression\",\"item\":\"1\",\"event_id\":\"e1\"},"
                       "{\"type\":\"impression\",\"item\":\"1\",\"event_id\":\"e1\"},"
                       "{\"type\":\"open\",\"item\":\"2\"},"
                       "{\"type\":\"open\",\"item\":\"2\"},"
                       "{\"type\":\"view\",\"item\":\"2\"},"
                       "{\"type\":\"open\"},"
                       "{\"type\":\"open\",\"item\":2},"
                       "{\"type\":\"dwell\",\"item\":\"2\"},"
                       "{\"type\":\"dwell\",\"item\":\"2\",\"dwell_ms\":-1},"
                       "{\"type\":\"dwell\",\"item\":\"2\",\"dwell_ms\":5,\"at\":\"2026-01-01T00:00:00Z\","
                       "\"session\":\"s\",\"position\":3,\"event_id\":\"e2\"},"
                       "{\"type\":\"open\",\"item\":\"2\",\"at\":\"noon\"},"
                       "{\"type\":\"open\",\"item\":\"2\",\"extra\":1},"
                       "7]}";
    static const int rejected[] = {4, 5, 6, 7, 8, 10, 11, 12};
    for (int round = 0; round < 2; round++) {
        json_t *o = send_events("eve", body), *list = json_object_get(o, "rejected");
        assert_int_equal(number(o, "accepted"), round == 0 ? 4 : 2);
        assert_int_equal(number(o, "duplicates"), round == 0 ? 1 : 3);
        assert_int_equal(json_array_size(list), MEM_COUNT(rejected));
        for (size_t i = 0; i < MEM_COUNT(rejected); i++) {
            assert_int_equal(number(json_array_get(list, i), "index"), rejected[i]);
            assert_int_equal(json_object_size(json_array_get(list, i)), 2);
        }
        json_decref(o);
    }
    json_t *o = send_events("eva", body); /* an event_id is the user's own */
    assert_int_equal(number(o, "accepted"), 4);
    json_decref(o);
}

static void a_request_has_up_to_500_events(void **state)
{
    (void)state;
    char *many = repeat("{\"type\":\"like\",\"item\":\"5\"},", 500),
         *fits = mem_printf("{\"events\":[%.*s]}", (int)strlen(many) - 1, many),
         *over = mem_printf("{\"events\":[%s{}]}", many);
    json_t *o = send_events("many", fits);
    assert_int_equal(number(o, "accepted"), 500);
    json_decref(o);
    INVALID("POST", "/v1/users/many/events", over, "/events");
    INVALID("POST", "/v1/users/many/events", "{}", "/events");
    INVALID("POST", "/v1/users/many/events", "{\"events\":{}}", "/events");
    free(many);
    free(fits);
    free(over);
}

static void the_detail_of_a_rejected_event_is_valid_text(void **state)
{
    (void)state;
    char *name = repeat("\xe2\x82\xac", 60),
         *body = mem_printf(
             "{\"events\":[{\"type\":\"open\",\"item\":\"1\",\"%s\":1},{\"type\":\"open\",\"item\":"
             "\"1\",\"x%s\":1},{\"type\":\"open\",\"item\":\"1\",\"xx%s\":1}]}",
             name, name, name);
    json_t *o = send_events("text", body);
    assert_int_equal(json_array_size(json_object_get(o, "rejected")), 3);
    json_decref(o);
    free(name);
    free(body);
}

/* ---- running it ---- */

static void the_status_tells_lag_queues_and_dependencies(void **state)
{
    (void)state;
    json_t *o = get("/v1/status");
    assert_true(number(o, "lag_ms") >= 0);
    json_t *servers = json_object_get(o, "dependencies");
    assert_true(json_is_true(json_object_get(json_object_get(servers, "mongodb"), "up")));
    assert_true(json_is_true(json_object_get(json_object_get(servers, "redis"), "up")));
    assert_true(json_is_object(json_object_get(o, "workers")));
    json_decref(o);
    struct reply r;
    api_get(a, "/metrics", &r);
    assert_int_equal(strncmp(reply_header(&r, "Content-Type"), "text/plain", 10), 0);
    assert_non_null(strstr(r.body, "# TYPE "));
    reply_done(&r);
    api_get(a, "/openapi.yaml", &r);
    assert_non_null(strstr(r.body, "openapi: 3.1"));
    reply_done(&r);
}

#define CASE(name) cmocka_unit_test_setup(name, as_admin)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_name_is_one_to_64_bytes_of_utf8_without_white_space),
        CASE(a_name_in_a_path_is_percent_decoded_once),
        CASE(unknown_names_give_empty_pages_and_zeros),
        CASE(a_problem_names_the_request_whose_id_the_client_gave),
        CASE(what_belongs_to_later_milestones_is_not_found),
        CASE(an_unknown_path_is_404_with_and_without_a_credential),
        CASE(another_method_is_405_and_allow_names_those_that_are_there),
        CASE(head_goes_wherever_get_does),
        CASE(an_unknown_json_member_is_400_with_its_pointer),
        CASE(the_pointer_of_a_long_unknown_member_is_valid_text),
        CASE(an_unknown_or_repeated_query_parameter_is_400),
        CASE(nul_duplicates_and_text_that_is_not_json_are_400),
        CASE(a_raw_nul_in_a_body_is_400),
        CASE(another_content_type_is_415),
        CASE(a_body_where_none_is_expected_is_400),
        CASE(a_body_over_its_cap_is_413),
        CASE(long_targets_are_414_and_long_headers_431),
        CASE(another_version_of_http_is_505),
        CASE(each_role_may_what_the_table_says_and_no_more),
        CASE(a_user_token_of_a_name_with_escapes_is_for_that_user_only),
        CASE(health_readiness_and_the_document_are_open),
        CASE(other_schemes_and_two_credentials_are_401),
        CASE(a_token_needs_hs256_a_known_kid_a_user_and_time_left),
        CASE(a_token_is_for_60_to_86400_seconds),
        CASE(a_key_is_shown_once_and_ends_when_it_is_deleted),
        CASE(keys_need_a_role_names_only_for_publishers_and_a_future),
        CASE(a_key_ends_at_its_time),
        CASE(the_demo_token_is_there_with_demo_only),
        CASE(an_item_answers_all_its_members),
        CASE(each_text_of_an_item_is_taken_up_to_its_cap),
        CASE(a_url_has_up_to_2_kib_and_is_of_the_web),
        CASE(sixteen_media_and_sixteen_topics_are_taken),
        CASE(all_members_of_media_are_answered_as_given),
        CASE(extra_has_up_to_4_kib),
        CASE(published_at_is_from_1970_to_60_s_ahead),
        CASE(a_repeated_post_is_unchanged_or_revised_and_ignores_published_at),
        CASE(an_idempotency_key_becomes_the_external_id),
        CASE(a_merge_patch_follows_rfc_7396),
        CASE(a_patch_of_what_is_fixed_is_400_and_changes_nothing),
        CASE(if_match_is_honoured),
        CASE(a_delete_is_204_twice_and_then_everything_is_410),
        CASE(an_id_that_is_no_id_is_404_and_in_a_list_400),
        CASE(bulk_lines_are_acted_on_in_order_and_one_bad_line_harms_no_other),
        CASE(a_thousand_lines_are_taken_and_one_more_is_413),
        CASE(a_bulk_line_of_another_publisher_is_403_by_itself),
        CASE(a_bulk_request_without_a_good_line_still_tells_a_position),
        CASE(lists_by_prefix_are_pages_most_followed_first),
        CASE(follows_in_bulk_answer_line_by_line),
        CASE(follows_in_bulk_take_10000_lines_and_the_cap_is_per_user),
        CASE(a_follow_is_204_again_and_again_with_a_position),
        CASE(only_publishers_and_topics_can_be_followed),
        CASE(a_change_counts_what_was_added_removed_and_unchanged),
        CASE(follows_over_the_cap_are_409_and_change_nothing),
        CASE(mutes_over_the_cap_are_409),
        CASE(lists_of_follows_page_to_their_end),
        CASE(a_profile_is_set_as_a_whole_and_answered),
        CASE(a_page_has_every_member_with_its_type),
        CASE(fields_say_what_an_item_has),
        CASE(limit_is_1_to_100_and_20_by_default),
        CASE(a_cursor_that_is_empty_changed_or_foreign_is_400),
        CASE(what_a_cursor_carries_may_be_repeated_and_not_changed),
        CASE(pages_go_to_the_end_without_gap_or_repeat),
        CASE(newest_is_the_same_on_later_pages),
        CASE(a_position_that_was_never_given_is_400),
        CASE(invalid_cursors_are_named_as_the_parameter),
        CASE(headers_that_are_wrong_are_named),
        CASE(a_page_is_private_and_not_cached),
        CASE(an_item_is_in_the_feed_once_and_not_when_muted),
        CASE(a_ranked_page_has_a_session_and_pages_through_it_once),
        CASE(accepted_duplicates_and_rejected_add_up_to_what_was_sent),
        CASE(a_request_has_up_to_500_events),
        CASE(the_detail_of_a_rejected_event_is_valid_text),
        CASE(the_status_tells_lag_queues_and_dependencies),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
