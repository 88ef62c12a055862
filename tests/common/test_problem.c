#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include "common/mem.h"
#include "common/problem.h"
#include "tests/support/http_fixture.h"
#include "tests/support/rawhttp.h"

static const char *text_of(json_t *j, const char *key)
{
    return json_string_value(json_object_get(j, key));
}

static json_t *written(const struct problem *p, const char *instance)
{
    struct buf b;
    buf_init(&b, PROBLEM_BODY_MAX);
    problem_write(p, instance, &b);
    assert_false(b.full);
    json_t *j = json_loads(b.data, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(j);
    buf_done(&b);
    return j;
}

static void every_code_has_a_word_a_title_and_an_error_status(void **state)
{
    (void)state;
    for (int i = 0; i < PROBLEM_N; i++) {
        enum problem_code c = (enum problem_code)i;
        assert_non_null(problem_word(c));
        assert_true(strspn(problem_word(c), "abcdefghijklmnopqrstuvwxyz_") == strlen(problem_word(c)));
        assert_non_null(problem_title(c));
        assert_in_range(problem_status(c), 400, 505);
        assert_int_not_equal(problem_status(c), 422);
        for (int k = 0; k < i; k++)
            assert_string_not_equal(problem_word(c), problem_word((enum problem_code)k));
    }
}

static void a_problem_says_what_rfc_9457_asks_for(void **state)
{
    struct problem_error errors[] = {{"/title", "is missing"}, {"/media/0/url", "is \"odd\""}};
    struct problem p = {
        .code = PROBLEM_TOO_MANY_FOLLOWS, .detail = "10,000 is the most", .retry_after_ms = 1500};
    (void)state;
    p.errors = errors;
    p.n_errors = 2;
    json_t *j = written(&p, "abc");
    assert_string_equal(text_of(j, "type"), "/problems/too_many_follows");
    assert_string_equal(text_of(j, "detail"), "10,000 is the most");
    assert_string_equal(text_of(j, "instance"), "abc");
    assert_int_equal(json_integer_value(json_object_get(j, "status")), 409);
    assert_int_equal(json_integer_value(json_object_get(j, "retry_after_ms")), 1500);
    json_t *second = json_array_get(json_object_get(j, "errors"), 1);
    assert_string_equal(text_of(second, "pointer"), "/media/0/url");
    assert_string_equal(text_of(second, "detail"), "is \"odd\"");
    json_decref(j);
    j = written(&(struct problem){.code = PROBLEM_NOT_FOUND}, NULL);
    assert_string_equal(text_of(j, "detail"), text_of(j, "title"));
    assert_null(json_object_get(j, "instance"));
    assert_null(json_object_get(j, "errors"));
    assert_null(json_object_get(j, "retry_after_ms"));
    json_decref(j);
}

static void errors_beyond_the_most_are_left_out(void **state)
{
    struct problem_error errors[100];
    (void)state;
    for (size_t i = 0; i < 100; i++)
        errors[i] = (struct problem_error){"/x", "is wrong"};
    struct problem p = {.code = PROBLEM_INVALID_REQUEST, .errors = errors, .n_errors = 100};
    json_t *j = written(&p, NULL);
    assert_int_equal(json_array_size(json_object_get(j, "errors")), PROBLEM_MAX_ERRORS);
    json_decref(j);
}

static void answer(struct http_request *r, void *arg)
{
    static char huge[PROBLEM_BODY_MAX];
    (void)arg;
    if (strcmp(r->path, "/busy") == 0) {
        struct err e;
        err_set(&e, ERR_BUSY, "the queue is full");
        problem_err(r, &e);
    } else if (strcmp(r->path, "/bug") == 0) {
        struct err e;
        err_set(&e, ERR_INTERNAL, "secret text");
        problem_err(r, &e);
    } else if (strcmp(r->path, "/later") == 0) {
        problem_reply(r, &(struct problem){.code = PROBLEM_TOO_MANY_REQUESTS, .retry_after_ms = 1001});
    } else {
        memset(huge, 'x', sizeof huge - 1);
        problem_simple(r, PROBLEM_CONFLICT, huge);
    }
}

static void replies_carry_the_fields_that_go_with_them(void **state)
{
    struct http_fixture *f = http_fixture_start(&(struct http_server_options){.handle = answer});
    struct reply r;
    (void)state;
    rawhttp_once(f->port, "GET", "/busy", NULL, NULL, &r);
    assert_int_equal(r.status, 503);
    assert_string_equal(reply_header(&r, "Retry-After"), "1");
    assert_non_null(strstr(r.body, "the queue is full"));
    reply_done(&r);
    rawhttp_once(f->port, "GET", "/bug", NULL, NULL, &r);
    assert_int_equal(r.status, 500);
    assert_null(strstr(r.body, "secret"));
    reply_done(&r);
    rawhttp_once(f->port, "GET", "/later", NULL, NULL, &r);
    assert_int_equal(r.status, 429);
    assert_string_equal(reply_header(&r, "Retry-After"), "2"); /* rounded up */
    reply_done(&r);
    rawhttp_once(f->port, "GET", "/huge", NULL, NULL, &r);
    json_t *j = reply_json(&r);
    assert_int_equal(r.status, 409);
    assert_string_equal(text_of(j, "instance"), reply_header(&r, "X-Request-Id"));
    json_decref(j);
    reply_done(&r);
    http_fixture_stop(f);
}

static void each_error_has_its_status(void **state)
{
    static const struct {
        enum err_code e;
        int status;
    } rows[] = {{ERR_INVALID, 400},  {ERR_NOT_FOUND, 404}, {ERR_GONE, 410},    {ERR_CONFLICT, 409},
                {ERR_MISMATCH, 412}, {ERR_TOO_LARGE, 413}, {ERR_BUSY, 503},    {ERR_UNAVAILABLE, 503},
                {ERR_TIMEOUT, 503},  {ERR_LOG_LOST, 503},  {ERR_CORRUPT, 500}, {ERR_INTERNAL, 500}};
    (void)state;
    for (size_t i = 0; i < MEM_COUNT(rows); i++)
        assert_int_equal(problem_status(problem_of_err(rows[i].e)), rows[i].status);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_has_a_word_a_title_and_an_error_status),
        cmocka_unit_test(a_problem_says_what_rfc_9457_asks_for),
        cmocka_unit_test(errors_beyond_the_most_are_left_out),
        cmocka_unit_test(replies_carry_the_fields_that_go_with_them),
        cmocka_unit_test(each_error_has_its_status),
    };
    return cmocka_run_group_tests_name("problem", tests, NULL, NULL);
}
