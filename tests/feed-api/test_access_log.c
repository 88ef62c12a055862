#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/mem.h"
#include "feed-api/access_log.h"
#include "feed-api/metrics.h"
#include "tests/support/fixture.h"

static const struct access_line line = {
    .at_ms = 1767323045678,
    .id = "r1",
    .client = "192.0.2.1",
    .who = "u:ann",
    .method = "GET",
    .path = "/v1/users/ann/feed",
    .op = "getFeed",
    .status = 200,
    .bytes = 1234,
    .us = 567,
    .agent = "app \"1\"",
};

static json_t *parse(const char *text)
{
    json_error_t why;
    json_t *o = json_loads(text, JSON_REJECT_DUPLICATES, &why);
    if (o == NULL)
        fail_msg("%s: %s", why.text, text);
    return o;
}

static void a_line_is_json_with_what_happened(void **state)
{
    struct buf out;
    (void)state;
    buf_init(&out, 4096);
    access_line_write(&line, &out);
    assert_string_equal(out.data,
                        "{\"at\":\"2026-01-02T03:04:05.678Z\",\"id\":\"r1\",\"client\":\"192.0.2.1\","
                        "\"who\":\"u:ann\",\"method\":\"GET\",\"path\":\"/v1/users/ann/feed\","
                        "\"op\":\"getFeed\",\"status\":200,\"bytes\":1234,\"us\":567,"
                        "\"agent\":\"app \\\"1\\\"\"}\n");
    buf_done(&out);
}

/* Paths and agents are the client's own: a line stays one line of valid JSON, and short. */
static void whatever_a_client_sends_a_line_stays_one_line_of_json(void **state)
{
    char big[3000];
    struct access_line l = line;
    struct buf out;
    (void)state;
    memset(big, '\n', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    l.path = big;
    l.agent = "caf\xc3";
    l.who = NULL;
    buf_init(&out, 8192);
    access_line_write(&l, &out);
    assert_false(out.full);
    assert_ptr_equal(strchr(out.data, '\n'), out.data + out.len - 1);
    json_t *o = parse(out.data);
    assert_string_equal(json_string_value(json_object_get(o, "agent")), "caf?");
    assert_true(json_is_null(json_object_get(o, "who")));
    assert_true(json_string_length(json_object_get(o, "path")) < 600);
    json_decref(o);
    buf_done(&out);
}

static unsigned count_lines(const char *file)
{
    char text[8192];
    unsigned n = 0;
    FILE *in = fopen(file, "r");
    if (in == NULL)
        return 0;
    while (fgets(text, sizeof text, in) != NULL) {
        json_decref(parse(text));
        n++;
    }
    fclose(in);
    return n;
}

struct place {
    struct fixture *f;
    struct metrics *m;
    char *file;
};

static int set_up(void **state)
{
    struct place *p = mem_zero(1, sizeof *p);
    p->f = fixture_new(FIXTURE_DIR);
    p->m = feed_metrics_new();
    p->file = mem_printf("%s/access.log", fixture_dir(p->f));
    *state = p;
    return 0;
}

static int tear_down(void **state)
{
    struct place *p = *state;
    free(p->file);
    metrics_free(p->m);
    fixture_free(p->f);
    free(p);
    return 0;
}

static void every_request_is_written_by_the_end(void **state)
{
    struct place *p = *state;
    struct access_log *l;
    struct err e;
    assert_int_equal(access_log_start(&l, p->file, 1, p->m, &e), 0);
    for (int i = 0; i < 1000; i++)
        access_log_add(l, &line);
    access_log_stop(l);
    assert_int_equal(count_lines(p->file), 1000);
    /* It is added to. */
    assert_int_equal(access_log_start(&l, p->file, 1, p->m, &e), 0);
    access_log_add(l, &line);
    access_log_stop(l);
    assert_int_equal(count_lines(p->file), 1001);
    assert_int_equal(metrics_get(p->m, M_ACCESS_LOG_DROPPED, 0), 0);
    access_log_stop(NULL);
}

static void a_sample_holds_its_share_and_all_failures(void **state)
{
    struct place *p = *state;
    struct access_log *l;
    struct access_line failed = line;
    struct err e;
    failed.status = 503;
    unlink(p->file);
    assert_int_equal(access_log_start(&l, p->file, 10, p->m, &e), 0);
    for (int i = 0; i < 2000; i++)
        access_log_add(l, &line);
    for (int i = 0; i < 50; i++)
        access_log_add(l, &failed);
    access_log_stop(l);
    assert_in_range(count_lines(p->file), 50 + 100, 50 + 320);
}

static bool has_lines(void *file)
{
    return count_lines(file) > 0;
}

static bool is_there(void *file)
{
    return access(file, F_OK) == 0;
}

static void a_file_that_was_moved_away_is_made_anew(void **state)
{
    struct place *p = *state;
    struct access_log *l;
    struct err e;
    char *moved = mem_printf("%s.1", p->file);
    unlink(p->file);
    assert_int_equal(access_log_start(&l, p->file, 1, p->m, &e), 0);
    access_log_add(l, &line);
    assert_true(fixture_until(has_lines, p->file, 5000));
    assert_int_equal(rename(p->file, moved), 0);
    assert_true(fixture_until(is_there, p->file, 10000));
    access_log_add(l, &line);
    assert_true(fixture_until(has_lines, p->file, 5000));
    access_log_stop(l);
    assert_int_equal(count_lines(moved) + count_lines(p->file), 2);
    free(moved);
}

static void a_file_that_can_not_be_opened_is_told(void **state)
{
    struct place *p = *state;
    struct access_log *l = NULL;
    struct err e;
    assert_int_equal(access_log_start(&l, "/nonexistent/access.log", 1, p->m, &e), -1);
    assert_int_equal(e.code, ERR_UNAVAILABLE);
    assert_null(l);
}

/* /dev/full refuses every write: requests go on, and what is lost is counted. */
static void a_full_disk_holds_nothing_up_and_is_counted(void **state)
{
    struct place *p = *state;
    struct access_log *l;
    struct err e;
    assert_int_equal(access_log_start(&l, "/dev/full", 1, p->m, &e), 0);
    for (int i = 0; i < 20000; i++)
        access_log_add(l, &line);
    access_log_stop(l);
    assert_true(metrics_get(p->m, M_ACCESS_LOG_DROPPED, 0) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_is_json_with_what_happened),
        cmocka_unit_test(whatever_a_client_sends_a_line_stays_one_line_of_json),
        cmocka_unit_test(every_request_is_written_by_the_end),
        cmocka_unit_test(a_sample_holds_its_share_and_all_failures),
        cmocka_unit_test(a_file_that_was_moved_away_is_made_anew),
        cmocka_unit_test(a_file_that_can_not_be_opened_is_told),
        cmocka_unit_test(a_full_disk_holds_nothing_up_and_is_counted),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
