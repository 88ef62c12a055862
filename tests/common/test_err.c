#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "common/err.h"

static void a_failure_answers_minus_one_and_keeps_code_and_text(void **state)
{
    (void)state;
    struct err e = {ERR_NONE, ""};
    assert_int_equal(err_set(&e, ERR_BUSY, "queue %d full", 3), -1);
    assert_int_equal(e.code, ERR_BUSY);
    assert_string_equal(e.msg, "queue 3 full");
}

static void an_err_of_null_is_nobody_asking(void **state)
{
    (void)state;
    assert_int_equal(err_set(NULL, ERR_BUSY, "x"), -1);
    assert_int_equal(err_prefix(NULL, "x"), -1);
}

static void a_long_text_is_cut_and_terminated(void **state)
{
    (void)state;
    struct err e;
    char text[1000];
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    (void)err_set(&e, ERR_INTERNAL, "%s", text);
    assert_int_equal(strlen(e.msg), sizeof e.msg - 1);
}

static void a_prefix_stands_before_the_old_text_and_keeps_the_code(void **state)
{
    (void)state;
    struct err e;
    (void)err_set(&e, ERR_TIMEOUT, "no answer");
    assert_int_equal(err_prefix(&e, "shard %d", 4), -1);
    assert_int_equal(e.code, ERR_TIMEOUT);
    assert_string_equal(e.msg, "shard 4: no answer");
    (void)err_prefix(&e, "read");
    assert_string_equal(e.msg, "read: shard 4: no answer");
}

static void a_prefix_may_print_the_old_text(void **state)
{
    (void)state;
    struct err e;
    (void)err_set(&e, ERR_TIMEOUT, "no");
    (void)err_prefix(&e, "<%s>", e.msg);
    assert_string_equal(e.msg, "<no>: no");
}

static void a_prefix_pushes_the_end_of_a_long_text_out(void **state)
{
    (void)state;
    struct err e;
    char text[sizeof e.msg];
    memset(text, 'b', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    (void)err_set(&e, ERR_CORRUPT, "%s", text);
    (void)err_prefix(&e, "where");
    assert_int_equal(strlen(e.msg), sizeof e.msg - 1);
    assert_memory_equal(e.msg, "where: bbb", 10);
    for (size_t fill = sizeof text - 5; fill < sizeof text; fill++) { /* the prefix alone reaches the end */
        (void)err_set(&e, ERR_CORRUPT, "tail");
        (void)err_prefix(&e, "%.*s", (int)fill, text);
        assert_true(strlen(e.msg) <= sizeof e.msg - 1);
        assert_memory_equal(e.msg, text, fill);
    }
    assert_string_equal(e.msg, text);
}

static void every_code_has_a_name_of_its_own(void **state)
{
    (void)state;
    for (int i = ERR_NONE; i <= ERR_INTERNAL; i++) {
        assert_string_not_equal(err_code_name(i), "unknown");
        for (int j = ERR_NONE; j < i; j++)
            assert_string_not_equal(err_code_name(i), err_code_name(j));
    }
    assert_string_equal(err_code_name(ERR_UNAVAILABLE), "unavailable");
    assert_string_equal(err_code_name((enum err_code)99), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failure_answers_minus_one_and_keeps_code_and_text),
        cmocka_unit_test(an_err_of_null_is_nobody_asking),
        cmocka_unit_test(a_long_text_is_cut_and_terminated),
        cmocka_unit_test(a_prefix_stands_before_the_old_text_and_keeps_the_code),
        cmocka_unit_test(a_prefix_may_print_the_old_text),
        cmocka_unit_test(a_prefix_pushes_the_end_of_a_long_text_out),
        cmocka_unit_test(every_code_has_a_name_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
