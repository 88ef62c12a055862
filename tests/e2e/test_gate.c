/* The door of feed-api, on real processes: rate limits, clients behind proxies, web pages of other origins,
 * connections of one address, slow senders, and what is logged of requests. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/mem.h"
#include "tests/support/api.h"
#include "tests/support/e2e.h"

static struct fixture *world;
static unsigned started;

/* One more feed-api on the same databases, with these flags. */
#define START(...) start_one((const char *const[]){__VA_ARGS__, NULL})

static struct api start_one(const char *const *flags)
{
    struct api a = {.fixture = world};
    char name[32];
    const char *f[9] = {NULL};
    for (size_t i = 0; i < 8 && flags[i] != NULL; i++)
        f[i] = flags[i];
    snprintf(name, sizeof name, "feed-api-%u", ++started);
    a.feed_api = fixture_start(world, "feed-api", name, f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7], NULL);
    a.port = fixture_port(world, a.feed_api);
    api_as(&a, NULL);
    return a;
}

static int set_up(void **state)
{
    (void)state;
    world = fixture_new(FIXTURE_BOTH);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    fixture_free(world);
    return 0;
}

static int status_of(struct api *a, const char *method, const char *path, const char *extra)
{
    struct reply r;
    api_request(a, method, path, extra, NULL, &r);
    int status = r.status;
    reply_done(&r);
    return status;
}

/* ---- rate limits ---- */

/* A bucket that gains nothing while a test runs: one token in a second is the least, so bursts are what is
 * tested. */
/* Only the head is sent. One that is let in after all (a token comes each second) waits for its body. */
static bool is_refused_by_its_head(struct api *a)
{
    char *head =
        mem_printf("POST /v1/users/ann/follows HTTP/1.1\r\nHost: x\r\n%sContent-Type: application/json\r\n"
                   "Content-Length: 100\r\n\r\n",
                   a->auth);
    bool refused = false;
    for (int i = 0; i < 20 && !refused; i++) {
        struct rawhttp *c = rawhttp_open((uint16_t)a->port);
        struct reply r;
        rawhttp_set_timeout(c, 200);
        rawhttp_send_str(c, head);
        if (rawhttp_try_read(c, "POST", &r) == 0) {
            refused = r.status == 429;
            reply_done(&r);
        }
        rawhttp_close(c);
    }
    free(head);
    return refused;
}

static void a_user_beyond_his_burst_is_429_and_told_when_to_come_again(void **state)
{
    struct api a = START("--rate-user", "1", "--rate-user-burst", "20", "--rate-key", "0");
    char *ann = api_token(&a, "ann"), *bob = api_token(&a, "bob"), *again = api_token(&a, "ann");
    struct reply r;
    int refused = 0;
    (void)state;
    api_as(&a, ann);
    api_get(&a, "/v1/users/ann/follows", &r);
    assert_int_equal(r.status, 200);
    assert_string_equal(reply_header(&r, "RateLimit-Policy"), "\"user\";q=20;w=20");
    assert_string_equal(reply_header(&r, "RateLimit"), "\"user\";r=19;t=1");
    reply_done(&r);
    /* What is refused for other reasons counts too, and so does what has a body, once. */
    assert_int_equal(status_of(&a, "GET", "/v1/users/bob/follows", NULL), 403);
    api_post(&a, "/v1/users/ann/follows", "{\"add\":[]}", &r);
    assert_non_null(strstr(reply_header(&r, "RateLimit"), ";r=1"));
    reply_done(&r);
    api_as(&a, again); /* another token of the same user */
    for (int i = 0; i < 200 && refused == 0; i++) {
        api_get(&a, "/v1/users/ann/follows", &r);
        if (r.status == 429) {
            refused = 1;
            assert_string_equal(reply_header(&r, "Content-Type"), "application/problem+json");
            assert_string_equal(reply_header(&r, "Retry-After"), "1");
            assert_string_equal(reply_header(&r, "RateLimit-Policy"), "\"user\";q=20;w=20");
            assert_non_null(strstr(reply_header(&r, "RateLimit"), "\"user\";r=0;t="));
            json_t *o = reply_json(&r);
            assert_string_equal(json_string_value(json_object_get(o, "type")), "/problems/too_many_requests");
            assert_in_range(json_integer_value(json_object_get(o, "retry_after_ms")), 1, 1000);
            json_decref(o);
        }
        reply_done(&r);
    }
    assert_true(refused);
    assert_true(is_refused_by_its_head(&a));
    assert_true(api_metric(&a, "feedmill_rate_limited_total{limit=\"user\"}") >= 1);
    /* Others are served; keys have no limit here, and say none. */
    api_as(&a, bob);
    assert_int_equal(status_of(&a, "GET", "/v1/users/bob/follows", NULL), 200);
    api_as(&a, NULL);
    api_get(&a, "/v1/status", &r);
    assert_int_equal(r.status, 200);
    assert_null(reply_header(&r, "RateLimit"));
    reply_done(&r);
    free(ann);
    free(bob);
    free(again);
}

static void a_key_has_a_limit_of_its_own(void **state)
{
    struct api free_one = START("--rate-key", "0");
    struct api a = START("--rate-key", "1", "--rate-key-burst", "5");
    char *first = api_key(&free_one, "service", NULL, NULL),
         *second = api_key(&free_one, "service", NULL, NULL);
    struct reply r;
    (void)state;
    api_as(&a, first);
    int status = 200, n = 0;
    for (; n < 100 && status == 200; n++)
        status = status_of(&a, "GET", "/v1/users/ann/follows", NULL);
    assert_int_equal(status, 429);
    assert_true(n > 5);
    api_as(&a, second);
    api_get(&a, "/v1/users/ann/follows", &r);
    assert_int_equal(r.status, 200);
    assert_string_equal(reply_header(&r, "RateLimit-Policy"), "\"key\";q=5;w=5");
    reply_done(&r);
    free(first);
    free(second);
}

static void an_address_is_the_one_behind_trusted_proxies(void **state)
{
    struct api a =
        START("--rate-address", "1", "--rate-address-burst", "5", "--trusted-proxy", "127.0.0.0/8");
    static const char *const forged[] = {
        "X-Forwarded-For: 192.0.2.1\r\n", "X-Forwarded-For: 8.8.8.8, 192.0.2.1\r\n",
        "X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-For: 192.0.2.1, 127.0.0.9\r\n"};
    (void)state;
    int status = 401, n = 0;
    api_as(&a, "");
    for (; n < 100 && status == 401; n++)
        status = status_of(&a, "GET", "/v1/status", forged[n % 3]);
    assert_int_equal(status, 429);
    assert_in_range(n, 6, 90);
    assert_int_equal(status_of(&a, "GET", "/v1/status", "X-Forwarded-For: 192.0.2.2\r\n"), 401);
    /* Health checks are answered whatever else is asked from there. */
    for (int i = 0; i < 50; i++) {
        assert_int_equal(status_of(&a, "GET", "/healthz", forged[0]), 200);
        assert_int_equal(status_of(&a, "GET", "/readyz", forged[0]), 200);
    }
}

static void who_is_not_trusted_is_not_believed(void **state)
{
    struct api a = START("--rate-address", "1", "--rate-address-burst", "5", "--trusted-proxy", "");
    char header[64];
    (void)state;
    int status = 401, n = 0;
    api_as(&a, "");
    for (; n < 100 && status == 401; n++) {
        snprintf(header, sizeof header, "X-Forwarded-For: 192.0.2.%d\r\n", n);
        status = status_of(&a, "GET", "/v1/status", header);
    }
    assert_int_equal(status, 429);
}

/* ---- other origins ---- */

static void web_pages_of_listed_origins_may_ask(void **state)
{
    struct api a = START("--cors-origin", "https://app.example.com");
    struct reply r;
    (void)state;
    api_as(&a, "");
    api_request(&a, "OPTIONS", "/v1/users/ann/feed",
                "Origin: https://app.example.com\r\nAccess-Control-Request-Method: GET\r\n", NULL, &r);
    assert_int_equal(r.status, 204);
    assert_string_equal(reply_header(&r, "Access-Control-Allow-Origin"), "https://app.example.com");
    reply_done(&r);
    /* Errors are readable too: a page has to see why it was refused. */
    api_request(&a, "GET", "/v1/users/ann/feed", "Origin: https://app.example.com\r\n", NULL, &r);
    assert_int_equal(r.status, 401);
    assert_string_equal(reply_header(&r, "Access-Control-Allow-Origin"), "https://app.example.com");
    reply_done(&r);
    api_as(&a, NULL);
    api_request(&a, "POST", "/v1/users/ann/follows", "Origin: https://app.example.com\r\n",
                "{\"add\":[{\"kind\":\"topic\",\"name\":\"x\"}]}", &r);
    assert_int_equal(r.status, 200);
    unsigned n = 0;
    for (size_t i = 0; i < r.n_headers; i++)
        n += strcasecmp(r.headers[i].name, "Access-Control-Allow-Origin") == 0;
    assert_int_equal(n, 1); /* a request with a body is looked at twice */
    reply_done(&r);
    api_request(&a, "GET", "/v1/users/ann/feed", "Origin: https://evil.example.com\r\n", NULL, &r);
    assert_null(reply_header(&r, "Access-Control-Allow-Origin"));
    reply_done(&r);
}

static void without_the_option_no_origin_is_let_in(void **state)
{
    struct api a = START("--rate-key", "0");
    struct reply r;
    (void)state;
    api_request(&a, "OPTIONS", "/v1/users/ann/feed",
                "Origin: https://app.example.com\r\nAccess-Control-Request-Method: GET\r\n", NULL, &r);
    assert_int_equal(r.status, 405);
    assert_null(reply_header(&r, "Access-Control-Allow-Origin"));
    reply_done(&r);
}

/* ---- connections ---- */

static int connect_from(const char *address, int port)
{
    struct sockaddr_in from = {.sin_family = AF_INET},
                       to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct timeval limit = {.tv_sec = 20};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(inet_pton(AF_INET, address, &from.sin_addr), 1);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&from, sizeof from), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    return fd;
}

static int health_over(int fd)
{
    static const char text[] = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
    char answer[1024] = "";
    (void)!send(fd, text, sizeof text - 1, MSG_NOSIGNAL);
    ssize_t n = recv(fd, answer, sizeof answer - 1, 0);
    return n > 12 ? atoi(answer + strlen("HTTP/1.1 ")) : 0;
}

static void one_address_does_not_get_all_connections_whichever_loop_serves_them(void **state)
{
    struct api a = START("--max-connections-per-address", "4", "--trusted-proxy", "", "--loops", "2");
    int fds[4];
    (void)state;
    for (int i = 0; i < 4; i++) {
        fds[i] = connect_from("127.0.0.7", a.port);
        assert_int_equal(health_over(fds[i]), 200);
    }
    int over = connect_from("127.0.0.7", a.port), other = connect_from("127.0.0.8", a.port);
    assert_int_equal(health_over(over), 429);
    assert_int_equal(health_over(other), 200);
    close(over);
    close(other);
    for (int i = 0; i < 4; i++)
        close(fds[i]);
    /* Proxies are not counted. */
    struct api b = START("--max-connections-per-address", "1", "--trusted-proxy", "127.0.0.7");
    for (int i = 0; i < 4; i++) {
        fds[i] = connect_from("127.0.0.7", b.port);
        assert_int_equal(health_over(fds[i]), 200);
    }
    for (int i = 0; i < 4; i++)
        close(fds[i]);
}

static void slow_heads_are_cut_as_the_options_say(void **state)
{
    struct api a = START("--head-timeout", "200ms", "--idle-timeout", "200ms");
    struct rawhttp *c = rawhttp_open((uint16_t)a.port);
    struct reply r;
    (void)state;
    rawhttp_send_str(c, "GET /healthz HTTP/1.1\r\nHost");
    rawhttp_read(c, "GET", &r);
    assert_int_equal(r.status, 408);
    reply_done(&r);
    rawhttp_close(c);
    c = rawhttp_open((uint16_t)a.port);
    assert_true(rawhttp_at_eof(c)); /* idle */
    rawhttp_close(c);
}

/* ---- logs ---- */

static char *read_all(const char *file)
{
    size_t cap = 1 << 20, n = 0;
    char *text = mem_alloc(cap);
    FILE *in = fopen(file, "r");
    if (in != NULL) {
        n = fread(text, 1, cap - 1, in);
        fclose(in);
    }
    text[n] = '\0';
    return text;
}

struct search {
    const char *file, *text;
};

static bool holds(void *arg)
{
    const struct search *s = arg;
    char *text = read_all(s->file);
    bool found = strstr(text, s->text) != NULL;
    free(text);
    return found;
}

static json_t *line_with(const char *file, const char *id)
{
    char *text = read_all(file), *rest = text, *line;
    json_t *found = NULL;
    while ((line = strsep(&rest, "\n")) != NULL && found == NULL) {
        if (strstr(line, id) != NULL)
            found = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
    }
    free(text);
    return found;
}

static void the_access_log_says_who_asked_and_never_a_secret(void **state)
{
    char *file = mem_printf("%s/access.log", fixture_dir(world));
    struct api a = START("--access-log", file, "--trusted-proxy", "127.0.0.1", "--log-level", "debug");
    char *token = api_token(&a, "ann"), *path = mem_printf("/v1/users/ann/feed?access_token=%s", token);
    struct reply r;
    (void)state;
    api_as(&a, token);
    api_request(&a, "GET", "/v1/users/ann/follows",
                "X-Forwarded-For: 192.0.2.77\r\nX-Request-Id: one\r\nUser-Agent: tests/1\r\n", NULL, &r);
    assert_int_equal(r.status, 200);
    reply_done(&r);
    /* Wherever a token was put. */
    api_request(&a, "GET", path, "X-Request-Id: two\r\n", NULL, &r);
    reply_done(&r);
    api_as(&a, "");
    api_request(&a, "GET", path, "X-Request-Id: three\r\n", NULL, &r);
    assert_true(r.status >= 400);
    reply_done(&r);
    char *stream =
        mem_printf("GET /v1/users/ann/feed/stream?access_token=%s HTTP/1.1\r\nHost: x\r\n\r\n", token);
    struct rawhttp *c = rawhttp_open((uint16_t)a.port);
    rawhttp_send_str(c, stream);
    rawhttp_read_head(c, &r);
    assert_int_equal(r.status, 200);
    reply_done(&r);
    rawhttp_close(c);
    free(stream);
    rawhttp_once((uint16_t)a.port, "BREW", "/pot", "X-Request-Id: four\r\n", NULL, &r);
    assert_true(r.status >= 400);
    reply_done(&r);
    assert_true(fixture_until(holds, &(struct search){file, "\"three\""}, 10000));
    assert_true(fixture_until(holds, &(struct search){file, "\"streamFeed\""}, 30000));
    json_t *o = line_with(file, "\"one\"");
    assert_non_null(o);
    assert_string_equal(json_string_value(json_object_get(o, "client")), "192.0.2.77");
    assert_string_equal(json_string_value(json_object_get(o, "who")), "u:ann");
    assert_string_equal(json_string_value(json_object_get(o, "path")), "/v1/users/ann/follows");
    assert_string_equal(json_string_value(json_object_get(o, "method")), "GET");
    assert_string_equal(json_string_value(json_object_get(o, "agent")), "tests/1");
    assert_int_equal(json_integer_value(json_object_get(o, "status")), 200);
    assert_true(json_integer_value(json_object_get(o, "bytes")) > 0);
    json_decref(o);
    o = line_with(file, "\"three\"");
    assert_true(json_is_null(json_object_get(o, "who")));
    json_decref(o);
    char *access = read_all(file), *own = read_all(server_log_path(a.feed_api));
    assert_null(strstr(access, token));
    assert_null(strstr(own, token));
    assert_null(strstr(access, fixture_admin_key(world)));
    assert_null(strstr(own, fixture_admin_key(world)));
    assert_null(strstr(access, "earer"));
    free(access);
    free(own);
    free(path);
    free(token);
    free(file);
}

static void a_slow_request_is_logged_with_where_the_time_went(void **state)
{
    struct api a = START("--slow-request", "1ms");
    const char *log = server_log_path(a.feed_api);
    struct reply r;
    char *line = NULL;
    (void)state;
    /* A durable write takes longer than a millisecond, nearly always. */
    for (int i = 0; i < 50 && line == NULL; i++) {
        char *json = mem_printf("{\"publisher\":\"daily\",\"title\":\"t%d\",\"body\":\"b\"}", i);
        api_post(&a, "/v1/items", json, &r);
        assert_int_equal(r.status, 201);
        reply_done(&r);
        free(json);
        char *text = read_all(log), *at = strstr(text, "event=request_slow");
        while (at != NULL && strstr(at, "op=publishItem") == NULL)
            at = NULL;
        if (at != NULL)
            line = mem_strdup(strstr(text, "op=publishItem"));
        free(text);
    }
    assert_non_null(line);
    line[strcspn(line, "\n")] = '\0';
    static const char *const fields[] = {"who=k:",     "client=127.0.0.1", "status=201",
                                         " ms=",       "queue_ms=",        "worker_ms=",
                                         "redis_ms=0", "ranker_ms=0",      "rest_ms="};
    for (size_t i = 0; i < MEM_COUNT(fields); i++) {
        if (strstr(line, fields[i]) == NULL)
            fail_msg("no %s in: %s", fields[i], line);
    }
    /* The write was a worker's. */
    assert_true(atoi(strstr(line, "worker_ms=") + strlen("worker_ms=")) + 1 >=
                atoi(strstr(line, " ms=") + strlen(" ms=")) / 4);
    assert_true(api_metric(&a, "feedmill_slow_requests_total") >= 1);
    free(line);
}

/* ---- more than can be done ---- */

#define FLOOD 60

static void
while_nothing_gets_done_health_checks_are_answered_and_the_rest_is_told_when_to_come_again(void **state)
{
    struct api a = START("--workers", "2", "--worker-queue", "20", "--request-deadline", "1s");
    struct rawhttp *c[FLOOD];
    struct reply r;
    unsigned done = 0, refused = 0;
    (void)state;
    static const char item[] = "{\"publisher\":\"daily\",\"title\":\"t\",\"body\":\"b\"}";
    api_post(&a, "/v1/items", item, &r);
    assert_int_equal(r.status, 201);
    reply_done(&r);
    char *text = mem_printf("POST /v1/items HTTP/1.1\r\nHost: x\r\n%sContent-Type: application/json\r\n"
                            "Content-Length: %zu\r\n\r\n%s",
                            a.auth, strlen(item), item);
    server_pause(fixture_mongod(world));
    for (int i = 0; i < FLOOD; i++) {
        c[i] = rawhttp_open((uint16_t)a.port);
        rawhttp_send_str(c[i], text);
        assert_int_equal(status_of(&a, "GET", "/healthz", NULL), 200);
        int ready = status_of(&a, "GET", "/readyz", NULL);
        assert_true(ready == 200 || ready == 503);
    }
    for (int i = 0; i < FLOOD; i++) {
        if (i == FLOOD / 2)
            server_continue(fixture_mongod(world));
        rawhttp_read(c[i], "POST", &r);
        done += r.status == 201;
        refused += r.status == 503;
        if (r.status == 503)
            assert_non_null(reply_header(&r, "Retry-After"));
        reply_done(&r);
        rawhttp_close(c[i]);
    }
    assert_int_equal(done + refused, FLOOD);
    assert_true(refused >= FLOOD - 2 - 20 - 2);
    assert_true(api_metric(&a, "feedmill_workers_refused_total") >= 1);
    free(text);
}

/* ---- options ---- */

static void options_that_can_not_be_end_the_start(void **state)
{
    static const char *const bad[][2] = {{"--trusted-proxy", "10.0.0.1/8"},
                                         {"--cors-origin", "app.example.com"},
                                         {"--access-log", "/nonexistent/access.log"},
                                         {"--rate-user", "-1"},
                                         {"--access-log-every", "0"}};
    (void)state;
    for (size_t i = 0; i < MEM_COUNT(bad); i++) {
        char name[32];
        snprintf(name, sizeof name, "feed-api-%u", ++started);
        struct server *s = fixture_start_only(world, "feed-api", name, bad[i][0], bad[i][1], NULL);
        struct search find = {server_log_path(s), bad[i][0] + 2};
        assert_true(fixture_until(holds, &find, 10000));
        fixture_forget(world, s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_user_beyond_his_burst_is_429_and_told_when_to_come_again),
        cmocka_unit_test(a_key_has_a_limit_of_its_own),
        cmocka_unit_test(an_address_is_the_one_behind_trusted_proxies),
        cmocka_unit_test(who_is_not_trusted_is_not_believed),
        cmocka_unit_test(web_pages_of_listed_origins_may_ask),
        cmocka_unit_test(without_the_option_no_origin_is_let_in),
        cmocka_unit_test(one_address_does_not_get_all_connections_whichever_loop_serves_them),
        cmocka_unit_test(slow_heads_are_cut_as_the_options_say),
        cmocka_unit_test(the_access_log_says_who_asked_and_never_a_secret),
        cmocka_unit_test(a_slow_request_is_logged_with_where_the_time_went),
        cmocka_unit_test(options_that_can_not_be_end_the_start),
        cmocka_unit_test(
            while_nothing_gets_done_health_checks_are_answered_and_the_rest_is_told_when_to_come_again),
    };
    e2e_choose_tests();
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
