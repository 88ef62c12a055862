/* Routes, methods, roles, queries, bodies; keys and tokens; readiness and status: over HTTP, on a real stack.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "common/clock.h"
#include "common/mem.h"
#include "tests/support/api.h"

/* Says which problem a request is answered with. */
static void assert_problem(struct api *a, const char *method, const char *path, const char *extra,
                           const char *body, int status, const char *code)
{
    struct reply r;
    api_request(a, method, path, extra, body, &r);
    if (r.status != status)
        fail_msg("%s %s: %d instead of %d: %s", method, path, r.status, status, r.body);
    assert_string_equal(reply_header(&r, "Content-Type"), "application/problem+json");
    json_t *o = reply_json(&r);
    char *type = mem_printf("/problems/%s", code);
    assert_string_equal(json_string_value(json_object_get(o, "type")), type);
    assert_int_equal(json_integer_value(json_object_get(o, "status")), status);
    assert_string_equal(json_string_value(json_object_get(o, "instance")), reply_header(&r, "X-Request-Id"));
    if (status == 401)
        assert_string_equal(reply_header(&r, "WWW-Authenticate"), "Bearer");
    free(type);
    json_decref(o);
    reply_done(&r);
}

static void unknown_paths_are_404_and_other_methods_405(void **state)
{
    struct api *a = *state;
    static const char *const paths[] = {
        "/",           "/v1",        "/v1/nothing", "/v1/status/", "//v1/status",
        "/v1//status", "/V1/status", "/healthz/x",  "/v1/users",   "/a/b/c/d/e/f/g/h/i/j/k/l/m/n"};
    for (size_t i = 0; i < MEM_COUNT(paths); i++)
        assert_problem(a, "GET", paths[i], NULL, NULL, 404, "not_found");
    struct reply r;
    api_request(a, "POST", "/v1/status", NULL, "{}", &r);
    assert_int_equal(r.status, 405);
    assert_string_equal(reply_header(&r, "Allow"), "GET, HEAD");
    reply_done(&r);
    api_request(a, "DELETE", "/v1/keys", NULL, NULL, &r);
    assert_int_equal(r.status, 405);
    assert_string_equal(reply_header(&r, "Allow"), "GET, HEAD, POST");
    reply_done(&r);
    /* A literal wins over a parameter. */
    api_request(a, "GET", "/v1/items/bulk", NULL, NULL, &r);
    assert_int_equal(r.status, 405);
    assert_string_equal(reply_header(&r, "Allow"), "POST");
    reply_done(&r);
    assert_int_equal(api_status(a, "HEAD", "/healthz", NULL), 200);
    assert_int_equal(api_status(a, "HEAD", "/v1/keys", NULL), 200);
}

static void a_request_without_a_valid_credential_is_401(void **state)
{
    struct api *a = *state;
    static const char *const bad[] = {
        "Authorization: Bearer\r\n",
        "Authorization: Bearer fm_\r\n",
        "Authorization: Bearer fm_0123456789abcdef_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\r\n",
        "Authorization: Basic YTpi\r\n",
        "Authorization: Bearer x.y.z\r\n",
        "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n",
    };
    api_as(a, "");
    assert_problem(a, "GET", "/v1/status", NULL, NULL, 401, "unauthorized");
    for (size_t i = 0; i < MEM_COUNT(bad); i++)
        assert_problem(a, "GET", "/v1/status", bad[i], NULL, 401, "unauthorized");
    /* The right key given twice is not a valid credential either. */
    char *twice = mem_printf("Authorization: Bearer %s\r\n", fixture_admin_key(a->fixture));
    api_as(a, NULL);
    assert_problem(a, "GET", "/v1/status", twice, NULL, 401, "unauthorized");
    free(twice);
    /* A key whose secret differs in its last character. */
    char key[128];
    snprintf(key, sizeof key, "%s", fixture_admin_key(a->fixture));
    char *last = key + strlen(key) - 1;
    *last = *last == 'A' ? 'E' : 'A';
    api_as(a, key);
    assert_problem(a, "GET", "/v1/status", NULL, NULL, 401, "unauthorized");
    api_as(a, NULL);
    assert_int_equal(api_status(a, "GET", "/v1/status", NULL), 200);
}

static void roles_may_what_the_table_says(void **state)
{
    struct api *a = *state;
    char *service = api_key(a, "service", NULL, NULL);
    char *publisher = api_key(a, "publisher", "[\"daily\"]", NULL);
    char *user = api_token(a, "ann");
    struct {
        const char *method, *path, *body;
        int admin, service, publisher, user;
    } rows[] = {
        {"GET", "/v1/status", NULL, 200, 403, 403, 403},
        {"GET", "/metrics", NULL, 200, 403, 403, 403},
        {"GET", "/v1/keys", NULL, 200, 403, 403, 403},
        {"POST", "/v1/tokens", "{\"user\":\"ann\",\"ttl_s\":60}", 200, 200, 403, 403},
        {"GET", "/v1/users/ann/follows", NULL, 200, 200, 403, 200},
        {"GET", "/v1/users/bob/follows", NULL, 200, 200, 403, 403},
        {"GET", "/v1/users/an%6e/follows", NULL, 200, 200, 403, 200},
        {"GET", "/v1/items/99", NULL, 404, 404, 404, 404},
        {"GET", "/healthz", NULL, 200, 200, 200, 200},
    };
    for (size_t i = 0; i < MEM_COUNT(rows); i++) {
        const struct {
            const char *credential;
            int status;
        } who[] = {{NULL, rows[i].admin},
                   {service, rows[i].service},
                   {publisher, rows[i].publisher},
                   {user, rows[i].user}};
        for (size_t k = 0; k < MEM_COUNT(who); k++) {
            api_as(a, who[k].credential);
            int status = api_status(a, rows[i].method, rows[i].path, rows[i].body);
            if (status != who[k].status)
                fail_msg("%s %s as number %zu: %d instead of %d", rows[i].method, rows[i].path, k, status,
                         who[k].status);
        }
    }
    api_as(a, NULL);
    free(service);
    free(publisher);
    free(user);
}

static void queries_and_path_parameters_are_checked(void **state)
{
    struct api *a = *state;
    assert_problem(a, "GET", "/v1/status?x=1", NULL, NULL, 400, "invalid_request");
    assert_problem(a, "GET", "/v1/users/ann/follows?limit=1&limit=2", NULL, NULL, 400, "invalid_request");
    assert_problem(a, "GET", "/v1/users/ann/follows?limit=0", NULL, NULL, 400, "invalid_request");
    assert_problem(a, "GET", "/v1/users/ann/follows?limit=101", NULL, NULL, 400, "invalid_request");
    assert_problem(a, "GET", "/v1/users/ann/follows?limit=+1", NULL, NULL, 400, "invalid_request");
    assert_problem(a, "GET", "/v1/users/ann/follows?position=12", NULL, NULL, 400, "invalid_position");
    assert_problem(a, "GET", "/v1/users/ann/follows?position=ffffffffffffffff", NULL, NULL, 400,
                   "invalid_position");
    assert_problem(a, "GET", "/v1/users/a%20b/follows", NULL, NULL, 400, "invalid_request");
    assert_problem(a, "GET", "/v1/users/%C0%AF/follows", NULL, NULL, 400, "invalid_request");
    assert_problem(a, "GET", "/v1/items/abc", NULL, NULL, 404, "not_found");
    assert_problem(a, "PUT", "/v1/users/ann/follows/colour/red", NULL, NULL, 404, "not_found");
}

static void bodies_are_checked_by_type_size_and_form(void **state)
{
    struct api *a = *state;
    static const char *const bad[] = {
        "",
        "[]",
        "\"x\"",
        "{",
        "{}x",
        "{\"role\":\"admin\",\"role\":\"admin\"}",
        "{\"role\":\"admin\",\"rule\":1}",
        "{\"role\":\"king\"}",
        "{\"role\":null}",
        "{\"role\":\"publisher\"}",
        "{\"role\":\"publisher\",\"names\":[]}",
        "{\"role\":\"publisher\",\"names\":[\"a b\"]}",
        "{\"role\":\"publisher\",\"names\":[1]}",
        "{\"role\":\"publisher\",\"names\":{}}",
        "{\"role\":\"service\",\"names\":[\"a\"]}",
        "{\"role\":\"admin\",\"expires_at\":\"2001-01-01T00:00:00Z\"}",
        "{\"role\":\"admin\",\"expires_at\":\"soon\"}",
        "{\"role\":\"admin\",\"expires_at\":7}",
        "{\"role\":\"ad\\u0000min\"}",
        "{\"role\":\"\xff\"}",
    };
    for (size_t i = 0; i < MEM_COUNT(bad); i++)
        assert_problem(a, "POST", "/v1/keys", NULL, bad[i], 400, "invalid_request");
    char deep[200];
    memset(deep, '[', 100);
    memset(deep + 100, ']', 99);
    deep[199] = '\0';
    assert_problem(a, "POST", "/v1/keys", NULL, deep, 400, "invalid_request");
    assert_problem(a, "POST", "/v1/keys", "Content-Type: text/plain\r\n", "{}", 415,
                   "unsupported_media_type");
    assert_problem(a, "POST", "/v1/keys", "Content-Type: application/json; charset=latin1\r\n", "{}", 415,
                   "unsupported_media_type");
    assert_problem(a, "POST", "/v1/keys", "Content-Type: application/jsonx\r\n", "{}", 415,
                   "unsupported_media_type");
    char *large = mem_alloc(16386);
    memset(large, ' ', 16385);
    large[16385] = '\0';
    assert_problem(a, "POST", "/v1/keys", NULL, large, 413, "too_large");
    free(large);
    assert_problem(a, "GET", "/v1/keys", NULL, "{}", 400, "invalid_request");
    json_decref(
        api_json(a, "POST", "/v1/keys", "{\"role\":\"service\",\"names\":[],\"expires_at\":null}", 201));
    struct reply r;
    api_request(a, "POST", "/v1/tokens", "Content-Type: APPLICATION/JSON ; charset=\"UTF-8\"\r\n",
                "{\"user\":\"ann\",\"ttl_s\":60}", &r);
    assert_int_equal(r.status, 200);
    reply_done(&r);
}

/* Only the head is sent: the answer must come without the body. */
static void assert_refused_by_its_head(struct api *a, const char *head, int status)
{
    struct rawhttp *c = rawhttp_open((uint16_t)a->port);
    struct reply r;
    rawhttp_send_str(c, head);
    rawhttp_read(c, "POST", &r);
    assert_int_equal(r.status, status);
    reply_done(&r);
    rawhttp_close(c);
}

struct told {
    struct api *a;
    double changes;
};

static bool log_has_told_of_the_key(void *arg)
{
    struct told *t = arg;
    return api_metric(t->a, "feedmill_tail_changes_total{kind=\"api_key\"}") > t->changes;
}

/* A service key that the process knows, and does not forget again because the log tells of its making. */
static char *known_key(struct api *a)
{
    struct told t = {a, api_metric(a, "feedmill_tail_changes_total{kind=\"api_key\"}")};
    char *key = api_key(a, "service", NULL, NULL);
    assert_true(fixture_until(log_has_told_of_the_key, &t, 10000));
    api_as(a, key);
    assert_int_equal(api_status(a, "GET", "/v1/items/99", NULL), 404);
    api_as(a, NULL);
    return key;
}

static void a_refused_request_is_answered_before_its_body_is_read(void **state)
{
    struct api *a = *state;
    char head[1024];
    assert_refused_by_its_head(a, "POST /v1/keys HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n", 401);
    assert_refused_by_its_head(a, "POST /v1/nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n", 404);
    assert_refused_by_its_head(a, "POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n", 405);
    char *service = known_key(a);
    api_as(a, service);
    snprintf(head, sizeof head, "POST /v1/keys HTTP/1.1\r\nHost: x\r\n%sContent-Length: 100\r\n\r\n",
             a->auth);
    assert_refused_by_its_head(a, head, 403);
    api_as(a, NULL);
    snprintf(head, sizeof head,
             "POST /v1/keys HTTP/1.1\r\nHost: x\r\n%sContent-Type: text/plain\r\nContent-Length: 100\r\n\r\n",
             a->auth);
    assert_refused_by_its_head(a, head, 415);
    snprintf(head, sizeof head,
             "POST /v1/keys HTTP/1.1\r\nHost: x\r\n%sContent-Type: application/json\r\nContent-Length: "
             "99999\r\n\r\n",
             a->auth);
    assert_refused_by_its_head(a, head, 413);
    free(service);
}

static void a_key_is_shown_once_works_and_can_be_revoked(void **state)
{
    struct api *a = *state;
    char id[17];
    char *key = api_key(a, "publisher", "[\"daily\",\"weekly\"]", id);
    api_as(a, key);
    assert_int_equal(api_status(a, "GET", "/v1/items/99", NULL), 404);
    api_as(a, NULL);
    json_t *list = api_json(a, "GET", "/v1/keys", NULL, 200);
    char *text = json_dumps(list, 0);
    assert_non_null(strstr(text, id));
    assert_null(strstr(text, key + 20)); /* the secret */
    assert_null(strstr(text, "hash"));
    free(text);
    json_decref(list);
    char path[64];
    snprintf(path, sizeof path, "/v1/keys/%s", id);
    assert_int_equal(api_status(a, "DELETE", path, NULL), 204);
    assert_int_equal(api_status(a, "DELETE", path, NULL), 404);
    api_as(a, key);
    assert_problem(a, "GET", "/v1/items/99", NULL, NULL, 401, "unauthorized");
    api_as(a, NULL);
    free(key);
}

struct at_other {
    struct api *a;
    int port;
};

static bool refused_at_the_other(void *arg)
{
    struct at_other *o = arg;
    struct reply r;
    rawhttp_once((uint16_t)o->port, "GET", "/v1/items/99", o->a->auth, NULL, &r);
    int status = r.status;
    reply_done(&r);
    return status == 401;
}

static void a_key_revoked_at_one_process_is_refused_at_another_within_a_second(void **state)
{
    struct api *a = *state;
    struct server *other = fixture_start(a->fixture, "feed-api", "feed-api-2", NULL);
    struct at_other o = {a, fixture_port(a->fixture, other)};
    char id[17], path[64];
    char *key = api_key(a, "service", NULL, id);
    api_as(a, key);
    assert_false(refused_at_the_other(&o)); /* known there now, for a minute */
    api_as(a, NULL);
    snprintf(path, sizeof path, "/v1/keys/%s", id);
    assert_int_equal(api_status(a, "DELETE", path, NULL), 204);
    api_as(a, key);
    assert_true(fixture_until(refused_at_the_other, &o, 1000));
    api_as(a, NULL);
    fixture_forget(a->fixture, other);
    free(key);
}

static void tokens_are_for_their_user_and_within_bounds(void **state)
{
    struct api *a = *state;
    static const char *const bad[] = {
        "{\"user\":\"ann\",\"ttl_s\":59}",
        "{\"user\":\"ann\",\"ttl_s\":86401}",
        "{\"user\":\"ann\"}",
        "{\"ttl_s\":60}",
        "{\"user\":\"a b\",\"ttl_s\":60}",
        "{\"user\":\"ann\",\"ttl_s\":60.5}",
        "{\"user\":1,\"ttl_s\":60}",
        "{\"user\":\"ann\",\"ttl_s\":60,\"x\":1}",
    };
    for (size_t i = 0; i < MEM_COUNT(bad); i++)
        assert_problem(a, "POST", "/v1/tokens", NULL, bad[i], 400, "invalid_request");
    /* There is no demo without --demo. */
    assert_problem(a, "POST", "/v1/demo/token", NULL, "{\"user\":\"ann\"}", 404, "not_found");
}

static void the_demo_gives_tokens_to_whoever_is_on_this_machine(void **state)
{
    struct api *a = *state;
    struct server *demo = fixture_start(a->fixture, "feed-api", "feed-api-demo", "--demo", NULL);
    uint16_t port = (uint16_t)fixture_port(a->fixture, demo);
    struct reply r;
    rawhttp_once(port, "POST", "/v1/demo/token", "Content-Type: application/json\r\n", "{\"user\":\"demo1\"}",
                 &r);
    assert_int_equal(r.status, 200);
    json_t *o = reply_json(&r);
    reply_done(&r);
    char *auth = mem_printf("Authorization: Bearer %s\r\n", json_string_value(json_object_get(o, "token")));
    rawhttp_once(port, "GET", "/v1/users/demo1/follows", auth, NULL, &r);
    assert_int_equal(r.status, 200);
    reply_done(&r);
    rawhttp_once(port, "GET", "/v1/users/demo2/follows", auth, NULL, &r);
    assert_int_equal(r.status, 403);
    reply_done(&r);
    free(auth);
    json_decref(o);
    fixture_forget(a->fixture, demo);
}

static void status_and_metrics_say_what_is_going_on(void **state)
{
    struct api *a = *state;
    double before = api_metric(a, "feedmill_http_requests_total{route=\"status\"}");
    json_t *o = api_json(a, "GET", "/v1/status", NULL, 200);
    json_t *servers = json_object_get(o, "dependencies");
    assert_string_equal(json_string_value(json_object_get(o, "process")), "feed-api");
    assert_true(json_is_true(json_object_get(json_object_get(servers, "redis"), "up")));
    assert_true(json_is_true(json_object_get(json_object_get(servers, "mongodb"), "up")));
    assert_non_null(json_string_value(json_object_get(json_object_get(servers, "redis"), "version")));
    assert_true(json_is_integer(json_object_get(o, "lag_ms")));
    assert_true(json_is_true(json_object_get(json_object_get(o, "tail"), "alive")));
    json_decref(o);
    double after = api_metric(a, "feedmill_http_requests_total{route=\"status\"}");
    assert_true(after >= before + 2);
    assert_true(api_metric(a, "feedmill_auth_total{result=\"none\"}") >= 1);
    struct reply r;
    api_as(a, "");
    api_get(a, "/openapi.yaml", &r);
    assert_int_equal(r.status, 200);
    assert_non_null(strstr(r.body, "openapi: 3.1"));
    reply_done(&r);
    api_as(a, NULL);
}

static bool degraded_by_redis(void *arg)
{
    struct api *a = arg;
    struct reply r;
    api_get(a, "/readyz", &r);
    bool yes = r.status == 200 && strstr(r.body, "\"redis\"") != NULL;
    reply_done(&r);
    return yes;
}

static bool not_degraded(void *arg)
{
    struct api *a = arg;
    struct reply r;
    api_get(a, "/readyz", &r);
    bool yes = r.status == 200 && strstr(r.body, "\"redis\"") == NULL;
    reply_done(&r);
    return yes;
}

static void a_lost_redis_is_degraded_and_not_down(void **state)
{
    struct api *a = *state;
    server_kill(fixture_redis(a->fixture));
    assert_true(fixture_until(degraded_by_redis, a, 10000));
    fixture_restart(a->fixture, fixture_redis(a->fixture));
    assert_true(fixture_until(not_degraded, a, 10000));
}

static bool is_served(void *arg)
{
    struct api *a = arg;
    return api_status(a, "GET", "/v1/users/ann/follows", NULL) == 200;
}

/* Whatever came of the case that paused it. */
static int mongodb_goes_on(void **state)
{
    struct api *a = *state;
    server_continue(fixture_mongod(a->fixture));
    return 0;
}

/* P9: nothing waits for ever, and who is turned away is told when to come again. */
static void p9_a_hanging_mongodb_is_answered_for(void **state)
{
    struct api *a = *state;
    struct reply r;
    assert_true(is_served(a)); /* the admin key is known */
    server_pause(fixture_mongod(a->fixture));
    api_get(a, "/v1/users/ann/follows", &r);
    assert_int_equal(r.status, 503);
    assert_string_equal(reply_header(&r, "Retry-After"), "1");
    json_t *o = reply_json(&r);
    assert_true(json_integer_value(json_object_get(o, "retry_after_ms")) > 0);
    json_decref(o);
    reply_done(&r);
    assert_int_equal(api_status(a, "GET", "/healthz", NULL), 200);
    server_continue(fixture_mongod(a->fixture));
    assert_true(fixture_until(is_served, a, 15000));
    assert_true(api_metric(a, "feedmill_mongo_errors_total{kind=\"timeout\"}") +
                    api_metric(a, "feedmill_mongo_errors_total{kind=\"unavailable\"}") >=
                1);
}

static void p9_more_requests_than_the_queue_holds_are_turned_away(void **state)
{
    struct api *a = *state;
    struct server *s = fixture_start(a->fixture, "feed-api", "feed-api-small", "--workers", "1",
                                     "--worker-queue", "1", NULL);
    struct rawhttp *conns[8];
    uint16_t port = (uint16_t)fixture_port(a->fixture, s);
    char *get = mem_printf("GET /v1/users/ann/follows HTTP/1.1\r\nHost: x\r\n%s\r\n", a->auth);
    struct reply r;
    rawhttp_once(port, "GET", "/v1/users/ann/follows", a->auth, NULL, &r);
    assert_int_equal(r.status, 200);
    reply_done(&r);
    server_pause(fixture_mongod(a->fixture));
    for (size_t i = 0; i < MEM_COUNT(conns); i++) {
        conns[i] = rawhttp_open(port);
        rawhttp_send_str(conns[i], get);
    }
    unsigned overloaded = 0;
    for (size_t i = 0; i < MEM_COUNT(conns); i++) {
        rawhttp_read(conns[i], "GET", &r);
        assert_int_equal(r.status, 503);
        assert_non_null(reply_header(&r, "Retry-After"));
        overloaded += strstr(r.body, "/problems/overloaded") != NULL;
        reply_done(&r);
        rawhttp_close(conns[i]);
    }
    assert_true(overloaded >= MEM_COUNT(conns) - 2); /* one runs, one waits */
    server_continue(fixture_mongod(a->fixture));
    free(get);
    fixture_forget(a->fixture, s);
    assert_true(fixture_until(is_served, a, 15000));
}

static void a_process_that_drains_is_not_ready_before_it_stops_listening(void **state)
{
    struct api *a = *state;
    struct server *s = fixture_start(a->fixture, "feed-api", "feed-api-grace", "--drain-grace", "60s", NULL);
    uint16_t port = (uint16_t)fixture_port(a->fixture, s);
    struct reply r;
    server_signal(s, SIGTERM);
    int status = 200;
    for (int64_t until = clock_mono_ms() + 10000 * fixture_slowness();
         status != 503 && clock_mono_ms() < until;) {
        rawhttp_once(port, "GET", "/readyz", NULL, NULL, &r);
        status = r.status;
        reply_done(&r);
    }
    assert_int_equal(status, 503);
    rawhttp_once(port, "GET", "/v1/status", a->auth, NULL, &r);
    assert_int_equal(r.status, 200);
    reply_done(&r);
    server_kill(s);
    fixture_forget(a->fixture, s);
}

static void a_process_that_has_not_been_up_is_not_ready(void **state)
{
    struct api *a = *state;
    int port = server_free_port();
    char *nowhere = mem_printf("mongodb://127.0.0.1:%d/x?replicaSet=feedmill", port);
    struct server *s =
        fixture_start_only(a->fixture, "feed-api", "feed-api-alone", "--mongodb-uri", nowhere, NULL);
    uint16_t at = (uint16_t)fixture_port(a->fixture, s);
    struct rawhttp *c = NULL;
    for (int64_t until = clock_mono_ms() + 10000 * fixture_slowness(); c == NULL && clock_mono_ms() < until;)
        c = rawhttp_try_open(at);
    assert_non_null(c);
    rawhttp_close(c);
    struct reply r;
    rawhttp_once(at, "GET", "/healthz", NULL, NULL, &r);
    assert_int_equal(r.status, 200);
    reply_done(&r);
    rawhttp_once(at, "GET", "/readyz", NULL, NULL, &r);
    assert_int_equal(r.status, 503);
    reply_done(&r);
    rawhttp_once(at, "GET", "/v1/status", a->auth, NULL, &r);
    assert_int_equal(r.status, 503);
    assert_non_null(reply_header(&r, "Retry-After"));
    reply_done(&r);
    struct err e;
    assert_int_equal(server_stop(s, 5000 * fixture_slowness(), &e), 0);
    assert_true(WIFEXITED(server_status(s)));
    assert_int_equal(WEXITSTATUS(server_status(s)), 0);
    fixture_forget(a->fixture, s);
    free(nowhere);
}

static void wrong_options_end_the_process_with_a_reason(void **state)
{
    struct api *a = *state;
    static const char *const rows[][2] = {
        {"--listen", "nowhere"},        {"--admin-listen", "0.0.0.0:0"},
        {"--redis", "unix:relative"},   {"--mongodb-uri", "http://a.b/"},
        {"--log-level", "loud"},        {"--workers", "0"},
        {"--ranker", "example.org:80"}, {"--no-such", "x"},
    };
    for (size_t i = 0; i < MEM_COUNT(rows); i++) {
        struct server *s =
            fixture_start_only(a->fixture, "feed-api", "feed-api-wrong", rows[i][0], rows[i][1], NULL);
        for (int64_t until = clock_mono_ms() + 10000 * fixture_slowness(); server_running(s);)
            assert_true(clock_mono_ms() < until);
        assert_true(WIFEXITED(server_status(s)));
        assert_int_equal(WEXITSTATUS(server_status(s)), 1);
        fixture_forget(a->fixture, s);
    }
}

static void the_admin_address_needs_no_key_and_has_nothing_else(void **state)
{
    struct api *a = *state;
    char address[32];
    uint16_t port = (uint16_t)server_free_port();
    snprintf(address, sizeof address, "127.0.0.1:%d", port);
    struct server *s =
        fixture_start(a->fixture, "feed-api", "feed-api-admin", "--admin-listen", address, NULL);
    static const struct {
        const char *path, *part;
        int status;
    } rows[] = {
        {"/healthz", "ok", 200},
        {"/readyz", "\"ready\":true", 200},
        {"/metrics", "feedmill_tail_alive 1", 200},
        {"/v1/status", "\"name\":\"feed-api-admin\"", 200},
        {"/v1/keys", "not_found", 404},
        {"/v1/items/1", "not_found", 404},
    };
    for (size_t i = 0; i < MEM_COUNT(rows); i++) {
        struct reply r;
        rawhttp_once(port, "GET", rows[i].path, NULL, NULL, &r);
        assert_int_equal(r.status, rows[i].status);
        assert_non_null(strstr(r.body, rows[i].part));
        reply_done(&r);
    }
    fixture_forget(a->fixture, s);
}

struct under_way {
    struct api *a;
    uint16_t port;
    int in_flight;
};

static bool is_under_way(void *arg)
{
    struct under_way *u = arg;
    struct reply r;
    rawhttp_once(u->port, "GET", "/v1/status", u->a->auth, NULL, &r);
    json_t *o = reply_json(&r);
    reply_done(&r);
    bool yes = json_integer_value(json_object_get(json_object_get(o, "http"), "in_flight")) >= u->in_flight;
    json_decref(o);
    return yes;
}

static bool takes_no_connection(void *arg)
{
    struct under_way *u = arg;
    struct rawhttp *c = rawhttp_try_open(u->port);
    rawhttp_close(c);
    return c == NULL;
}

static void a_process_told_to_stop_answers_what_it_has_and_exits_cleanly(void **state)
{
    struct api *a = *state;
    struct server *s = fixture_start(a->fixture, "feed-api", "feed-api-drained", NULL);
    struct under_way u = {a, (uint16_t)fixture_port(a->fixture, s), 2};
    struct rawhttp *c = rawhttp_open(u.port);
    static const char body[] = "{\"user\":\"ann\",\"ttl_s\":60}";
    char *head = mem_printf("POST /v1/tokens HTTP/1.1\r\nHost: x\r\n%sContent-Type: application/json\r\n"
                            "Content-Length: %zu\r\n\r\n",
                            a->auth, strlen(body));
    rawhttp_send_str(c, head);
    assert_true(fixture_until(is_under_way, &u, 5000));
    server_signal(s, SIGTERM);
    assert_true(fixture_until(takes_no_connection, &u, 5000));
    rawhttp_send_str(c, body);
    struct reply r;
    rawhttp_read(c, "POST", &r);
    assert_int_equal(r.status, 200);
    assert_true(r.close);
    reply_done(&r);
    rawhttp_close(c);
    struct err e;
    assert_int_equal(server_stop(s, 5000 * fixture_slowness(), &e), 0);
    assert_true(WIFEXITED(server_status(s)));
    assert_int_equal(WEXITSTATUS(server_status(s)), 0);
    fixture_forget(a->fixture, s);
    free(head);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_paths_are_404_and_other_methods_405),
        cmocka_unit_test(a_request_without_a_valid_credential_is_401),
        cmocka_unit_test(roles_may_what_the_table_says),
        cmocka_unit_test(queries_and_path_parameters_are_checked),
        cmocka_unit_test(bodies_are_checked_by_type_size_and_form),
        cmocka_unit_test(a_refused_request_is_answered_before_its_body_is_read),
        cmocka_unit_test(a_key_is_shown_once_works_and_can_be_revoked),
        cmocka_unit_test(a_key_revoked_at_one_process_is_refused_at_another_within_a_second),
        cmocka_unit_test(tokens_are_for_their_user_and_within_bounds),
        cmocka_unit_test(the_demo_gives_tokens_to_whoever_is_on_this_machine),
        cmocka_unit_test(status_and_metrics_say_what_is_going_on),
        cmocka_unit_test(a_lost_redis_is_degraded_and_not_down),
        cmocka_unit_test_teardown(p9_a_hanging_mongodb_is_answered_for, mongodb_goes_on),
        cmocka_unit_test_teardown(p9_more_requests_than_the_queue_holds_are_turned_away, mongodb_goes_on),
        cmocka_unit_test(a_process_that_drains_is_not_ready_before_it_stops_listening),
        cmocka_unit_test(a_process_that_has_not_been_up_is_not_ready),
        cmocka_unit_test(wrong_options_end_the_process_with_a_reason),
        cmocka_unit_test(the_admin_address_needs_no_key_and_has_nothing_else),
        cmocka_unit_test(a_process_told_to_stop_answers_what_it_has_and_exits_cleanly),
    };
    return cmocka_run_group_tests(tests, api_group_setup_only, api_group_teardown);
}
