#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/config.h"
#include "common/metrics.h"

enum { M_REQUESTS, M_OPEN, M_LATENCY, M_STAGE, M_ODD, M_N };

static const struct metric_row rows[] = {
    [M_REQUESTS] = {"feedmill_http_requests_total", METRIC_COUNTER, "Requests answered.", "class",
                    "2xx,4xx,5xx"},
    [M_OPEN] = {"feedmill_http_connections", METRIC_GAUGE, "Connections open.", NULL, NULL},
    [M_LATENCY] = {"feedmill_http_request_seconds", METRIC_HISTOGRAM, "Time to answer.", NULL, NULL},
    [M_STAGE] = {"feedmill_stage_seconds", METRIC_HISTOGRAM, "Time of a stage.", "stage", "read,write"},
    [M_ODD] = {"feedmill_odd_total", METRIC_COUNTER, "Back\\slash \"and\"\nline.", "odd", "a\"b,c\\d,e\nf"},
};

static struct metrics *m;
static struct buf out;

static int setup(void **state)
{
    (void)state;
    m = metrics_new(rows, M_N);
    buf_init(&out, 1 << 20);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    metrics_free(m);
    buf_done(&out);
    return 0;
}

static const char *rendered(void)
{
    buf_reset(&out);
    metrics_render(m, &out);
    assert_false(out.full);
    return out.data;
}

static void expect_text(const char *part)
{
    if (strstr(rendered(), part) == NULL)
        fail_msg("not rendered: %s", part);
}

static void everything_starts_at_zero_and_is_there(void **state)
{
    (void)state;
    expect_text("# HELP feedmill_http_requests_total Requests answered.\n"
                "# TYPE feedmill_http_requests_total counter\n"
                "feedmill_http_requests_total{class=\"2xx\"} 0\n"
                "feedmill_http_requests_total{class=\"4xx\"} 0\n"
                "feedmill_http_requests_total{class=\"5xx\"} 0\n"
                "# HELP feedmill_http_connections Connections open.\n"
                "# TYPE feedmill_http_connections gauge\n"
                "feedmill_http_connections 0\n");
}

static void counters_add_up_by_label(void **state)
{
    (void)state;
    metrics_add(m, M_REQUESTS, 0, 1);
    metrics_add(m, M_REQUESTS, 0, 2);
    metrics_add(m, M_REQUESTS, 2, 7);
    assert_int_equal(metrics_get(m, M_REQUESTS, 0), 3);
    assert_int_equal(metrics_get(m, M_REQUESTS, 1), 0);
    assert_int_equal(metrics_get(m, M_REQUESTS, 2), 7);
    expect_text("{class=\"2xx\"} 3\n");
    expect_text("{class=\"5xx\"} 7\n");
}

static void a_value_beyond_the_list_is_counted_at_the_last(void **state)
{
    (void)state;
    metrics_add(m, M_REQUESTS, 3, 1);
    metrics_add(m, M_REQUESTS, SIZE_MAX, 1);
    metrics_add(m, M_OPEN, 9, 5);
    metrics_observe_us(m, M_STAGE, 9, 5);
    assert_int_equal(metrics_get(m, M_REQUESTS, 2), 2);
    assert_int_equal(metrics_get(m, M_OPEN, 0), 5);
    assert_int_equal(metrics_get(m, M_STAGE, 0), 0);
    assert_int_equal(metrics_get(m, M_STAGE, 1), 1);
}

static void gauges_go_up_and_down_and_are_set(void **state)
{
    (void)state;
    metrics_add(m, M_OPEN, 0, 3);
    metrics_add(m, M_OPEN, 0, -5);
    expect_text("feedmill_http_connections -2\n");
    metrics_set(m, M_OPEN, 0, 12);
    expect_text("feedmill_http_connections 12\n");
}

static void a_histogram_has_cumulative_buckets_with_inf_sum_and_count(void **state)
{
    (void)state;
    metrics_observe_us(m, M_LATENCY, 0, 0);
    metrics_observe_us(m, M_LATENCY, 0, 500); /* a bound belongs to its bucket */
    metrics_observe_us(m, M_LATENCY, 0, 501);
    metrics_observe_us(m, M_LATENCY, 0, 10000000);
    metrics_observe_us(m, M_LATENCY, 0, 10000001);
    metrics_observe_us(m, M_LATENCY, 0, -7); /* a clock that went wrong */
    assert_int_equal(metrics_get(m, M_LATENCY, 0), 6);
    expect_text("# TYPE feedmill_http_request_seconds histogram\n"
                "feedmill_http_request_seconds_bucket{le=\"0.0005\"} 3\n"
                "feedmill_http_request_seconds_bucket{le=\"0.001\"} 4\n"
                "feedmill_http_request_seconds_bucket{le=\"0.0025\"} 4\n"
                "feedmill_http_request_seconds_bucket{le=\"0.005\"} 4\n"
                "feedmill_http_request_seconds_bucket{le=\"0.01\"} 4\n"
                "feedmill_http_request_seconds_bucket{le=\"0.025\"} 4\n"
                "feedmill_http_request_seconds_bucket{le=\"0.05\"} 4\n"
                "feedmill_http_request_seconds_bucket{le=\"0.1\"} 4\n"
                "feedmill_http_request_seconds_bucket{le=\"0.25\"} 4\n"
                "feedmill_http_request_seconds_bucket{le=\"0.5\"} 4\n"
                "feedmill_http_request_seconds_bucket{le=\"1\"} 4\n"
                "feedmill_http_request_seconds_bucket{le=\"2.5\"} 4\n"
                "feedmill_http_request_seconds_bucket{le=\"5\"} 4\n"
                "feedmill_http_request_seconds_bucket{le=\"10\"} 5\n"
                "feedmill_http_request_seconds_bucket{le=\"+Inf\"} 6\n"
                "feedmill_http_request_seconds_sum 20.001002\n"
                "feedmill_http_request_seconds_count 6\n");
}

static void a_labelled_histogram_names_the_label_before_the_bound(void **state)
{
    (void)state;
    metrics_observe_us(m, M_STAGE, 1, 1500000);
    expect_text("feedmill_stage_seconds_bucket{stage=\"read\",le=\"+Inf\"} 0\n"
                "feedmill_stage_seconds_sum{stage=\"read\"} 0.000000\n"
                "feedmill_stage_seconds_count{stage=\"read\"} 0\n"
                "feedmill_stage_seconds_bucket{stage=\"write\",le=\"0.0005\"} 0\n");
    expect_text("feedmill_stage_seconds_bucket{stage=\"write\",le=\"2.5\"} 1\n");
    expect_text("feedmill_stage_seconds_sum{stage=\"write\"} 1.500000\n");
}

static void labels_and_help_are_escaped(void **state)
{
    (void)state;
    expect_text("# HELP feedmill_odd_total Back\\\\slash \"and\"\\nline.\n");
    expect_text("feedmill_odd_total{odd=\"a\\\"b\"} 0\n"
                "feedmill_odd_total{odd=\"c\\\\d\"} 0\n"
                "feedmill_odd_total{odd=\"e\\nf\"} 0\n");
}

static double number_behind(const char *name)
{
    const char *p = strstr(rendered(), name);
    assert_non_null(p);
    return strtod(p + strlen(name), NULL);
}

static void the_process_tells_of_itself(void **state)
{
    (void)state;
    assert_true(number_behind("\nprocess_resident_memory_bytes ") > 100000);
    double before = number_behind("\nprocess_open_fds ");
    FILE *f = tmpfile();
    assert_true(number_behind("\nprocess_open_fds ") == before + 1);
    fclose(f);
    double started = number_behind("\nprocess_start_time_seconds ");
    double now = (double)time(NULL);
    assert_true(started > now - 3600 && started <= now + 1);
    expect_text("feedmill_build_info{version=\"" FEEDMILL_VERSION "\"} 1\n");
}

static void every_line_is_a_comment_or_a_sample(void **state)
{
    (void)state;
    char *text = strdup(rendered());
    assert_int_equal(text[strlen(text) - 1], '\n');
    for (char *save = NULL, *line = strtok_r(text, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save)) {
        if (strncmp(line, "# HELP ", 7) == 0 || strncmp(line, "# TYPE ", 7) == 0)
            continue;
        char *space = strrchr(line, ' ');
        char *end;
        assert_non_null(space);
        strtod(space + 1, &end);
        assert_int_equal(*end, '\0');
        assert_true(line[0] == 'f' || line[0] == 'p');
    }
    free(text);
}

static void a_buf_that_is_too_small_is_full_and_not_overrun(void **state)
{
    (void)state;
    struct buf small;
    buf_init(&small, 100);
    metrics_render(m, &small);
    assert_true(small.full);
    assert_true(small.len <= 100);
    buf_done(&small);
}

static void without_metrics_nothing_is_counted(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 100);
    metrics_add(NULL, M_REQUESTS, 0, 1);
    metrics_set(NULL, M_OPEN, 0, 1);
    metrics_observe_us(NULL, M_LATENCY, 0, 1);
    assert_int_equal(metrics_get(NULL, M_REQUESTS, 0), 0);
    metrics_render(NULL, &b);
    assert_int_equal(b.len, 0);
    metrics_free(NULL);
    buf_done(&b);
}

#define ROUNDS  20000
#define THREADS 4

static void *count(void *arg)
{
    (void)arg;
    for (int i = 0; i < ROUNDS; i++) {
        metrics_add(m, M_REQUESTS, (size_t)i % 3, 1);
        metrics_add(m, M_OPEN, 0, i % 2 ? -1 : 1);
        metrics_observe_us(m, M_LATENCY, 0, i);
    }
    return NULL;
}

static void updates_of_threads_are_not_lost(void **state)
{
    (void)state;
    pthread_t t[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&t[i], NULL, count, NULL), 0);
    for (int i = 0; i < 20; i++) { /* while they count */
        const char *text = rendered();
        const char *inf = strstr(text, "request_seconds_bucket{le=\"+Inf\"} ");
        const char *total = strstr(text, "request_seconds_count ");
        assert_int_equal(atoll(strchr(inf, ' ')), atoll(strchr(total, ' ')));
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(t[i], NULL);
    int64_t sum =
        metrics_get(m, M_REQUESTS, 0) + metrics_get(m, M_REQUESTS, 1) + metrics_get(m, M_REQUESTS, 2);
    assert_int_equal(sum, THREADS * ROUNDS);
    assert_int_equal(metrics_get(m, M_OPEN, 0), 0);
    assert_int_equal(metrics_get(m, M_LATENCY, 0), THREADS * ROUNDS);
    expect_text("feedmill_http_request_seconds_sum 799.960000\n"); /* 4 x the sum of 0 to 19999 us */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(everything_starts_at_zero_and_is_there),
        TEST(counters_add_up_by_label),
        TEST(a_value_beyond_the_list_is_counted_at_the_last),
        TEST(gauges_go_up_and_down_and_are_set),
        TEST(a_histogram_has_cumulative_buckets_with_inf_sum_and_count),
        TEST(a_labelled_histogram_names_the_label_before_the_bound),
        TEST(labels_and_help_are_escaped),
        TEST(the_process_tells_of_itself),
        TEST(every_line_is_a_comment_or_a_sample),
        TEST(a_buf_that_is_too_small_is_full_and_not_overrun),
        TEST(without_metrics_nothing_is_counted),
        TEST(updates_of_threads_are_not_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
