#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "common/ts.h"

static void a_time_is_sixteen_digits_and_reads_back(void **state)
{
    (void)state;
    const ts_t times[] = {0, 1, ts_make(0x65920080, 7), UINT64_MAX};
    const char *const texts[] = {"0000000000000000", "0000000000000001", "6592008000000007",
                                 "ffffffffffffffff"};
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        char text[TS_TEXT_SIZE];
        ts_t back = 42;
        ts_format(times[i], text);
        assert_string_equal(text, texts[i]);
        assert_int_equal(ts_parse(text, &back, NULL), 0);
        assert_true(back == times[i]);
    }
}

static void texts_compare_as_the_times_do(void **state)
{
    (void)state;
    char a[TS_TEXT_SIZE], b[TS_TEXT_SIZE];
    ts_format(ts_make(9, UINT32_MAX), a);
    ts_format(ts_make(10, 0), b);
    assert_true(strcmp(a, b) < 0);
    ts_format(ts_make(0x80000000, 1), b);
    assert_true(strcmp(a, b) < 0);
}

static void the_halves_come_back(void **state)
{
    (void)state;
    ts_t t = ts_make(UINT32_MAX, 5);
    assert_int_equal(ts_seconds(t), UINT32_MAX);
    assert_int_equal(ts_increment(t), 5);
    assert_true(ts_max(t, 3) == t);
    assert_true(ts_min(t, 3) == 3);
}

static void anything_but_sixteen_lower_case_digits_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "0",
        "000000000000000",
        "00000000000000000",
        "000000000000000A",
        "000000000000000g",
        " 000000000000001",
        "-000000000000001",
        "0x00000000000001",
        "000000000000001 ",
        "00000000\n0000000",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err e = {ERR_NONE, ""};
        ts_t t = 42;
        assert_int_equal(ts_parse(bad[i], &t, &e), -1);
        assert_int_equal(e.code, ERR_INVALID);
        assert_true(t == 42);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_time_is_sixteen_digits_and_reads_back),
        cmocka_unit_test(texts_compare_as_the_times_do),
        cmocka_unit_test(the_halves_come_back),
        cmocka_unit_test(anything_but_sixteen_lower_case_digits_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
