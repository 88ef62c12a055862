#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>
#include "common/admin.h"
#include "common/metrics.h"
#include "tests/support/http_fixture.h"
#include "tests/support/rawhttp.h"

enum { M_THINGS };
static const struct metric_row rows[] = {
    [M_THINGS] = {"feedmill_things_total", METRIC_COUNTER, "Things.", NULL, NULL},
};

static bool is_ready = true;
static struct metrics *metrics;

static bool ready(struct buf *degraded, void *arg)
{
    (void)arg;
    buf_add_str(degraded, "\"redis\",\"ranker\"");
    return is_ready;
}

static void status(struct buf *out, void *arg)
{
    (void)arg;
    buf_add_str(out, ",\"lag_ms\":4");
}

static void refresh(void *arg)
{
    (void)arg;
    metrics_add(metrics, M_THINGS, 0, 7);
}

static struct admin_options options = {
    .process = "fanout", .ready = ready, .status = status, .refresh = refresh};
static struct http_fixture *server;

static int start(void **state)
{
    (void)state;
    metrics = metrics_new(rows, 1);
    options.metrics = metrics;
    server = http_fixture_start(&(struct http_server_options){.handle = admin_handle, .arg = &options});
    return 0;
}

static int stop(void **state)
{
    (void)state;
    http_fixture_stop(server);
    metrics_free(metrics);
    return 0;
}

static void a_living_process_is_healthy(void **state)
{
    struct reply r;
    (void)state;
    rawhttp_once(server->port, "GET", "/healthz", NULL, NULL, &r);
    assert_int_equal(r.status, 200);
    reply_done(&r);
    rawhttp_once(server->port, "HEAD", "/healthz", NULL, NULL, &r);
    assert_int_equal(r.status, 200);
    reply_done(&r);
}

static void readiness_names_what_is_degraded(void **state)
{
    struct reply r;
    (void)state;
    for (int i = 0; i < 2; i++) {
        is_ready = i == 0;
        rawhttp_once(server->port, "GET", "/readyz", NULL, NULL, &r);
        assert_int_equal(r.status, is_ready ? 200 : 503);
        json_t *j = reply_json(&r);
        assert_int_equal(json_is_true(json_object_get(j, "ready")), is_ready);
        assert_string_equal(json_string_value(json_array_get(json_object_get(j, "degraded"), 1)), "ranker");
        json_decref(j);
        reply_done(&r);
    }
}

static void metrics_are_refreshed_and_rendered(void **state)
{
    struct reply r;
    (void)state;
    rawhttp_once(server->port, "GET", "/metrics", NULL, NULL, &r);
    assert_int_equal(r.status, 200);
    assert_non_null(strstr(r.body, "feedmill_things_total 7"));
    reply_done(&r);
}

static void the_status_has_the_members_of_the_process(void **state)
{
    struct reply r;
    (void)state;
    rawhttp_once(server->port, "GET", "/v1/status?x", NULL, NULL, &r);
    json_t *j = reply_json(&r);
    assert_string_equal(json_string_value(json_object_get(j, "process")), "fanout");
    assert_int_equal(json_integer_value(json_object_get(j, "lag_ms")), 4);
    assert_true(json_is_integer(json_object_get(j, "uptime_ms")));
    json_decref(j);
    reply_done(&r);
}

static void other_paths_and_methods_are_problems(void **state)
{
    struct reply r;
    (void)state;
    rawhttp_once(server->port, "GET", "/other", NULL, NULL, &r);
    assert_int_equal(r.status, 404);
    reply_done(&r);
    rawhttp_once(server->port, "POST", "/metrics", NULL, "x", &r);
    assert_int_equal(r.status, 405);
    assert_string_equal(reply_header(&r, "Allow"), "GET, HEAD");
    reply_done(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_living_process_is_healthy),
        cmocka_unit_test(readiness_names_what_is_degraded),
        cmocka_unit_test(metrics_are_refreshed_and_rendered),
        cmocka_unit_test(the_status_has_the_members_of_the_process),
        cmocka_unit_test(other_paths_and_methods_are_problems),
    };
    return cmocka_run_group_tests_name("admin", tests, start, stop);
}
