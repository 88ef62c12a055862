#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "common/clock.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

static void times_are_written_with_milliseconds_in_utc(void **state)
{
    (void)state;
    static const struct {
        int64_t ms;
        const char *text;
    } cases[] = {
        {0, "1970-01-01T00:00:00.000Z"},
        {1767323045678, "2026-01-02T03:04:05.678Z"},
        {951782400000, "2000-02-29T00:00:00.000Z"},
        {4107542399999, "2100-02-28T23:59:59.999Z"},
        {4107542400000, "2100-03-01T00:00:00.000Z"},
        {253402300799999, "9999-12-31T23:59:59.999Z"},
        {253402300800000, "9999-12-31T23:59:59.999Z"},
        {-1, "1970-01-01T00:00:00.000Z"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char text[CLOCK_RFC3339_SIZE];
        clock_format(cases[i].ms, text);
        assert_string_equal(text, cases[i].text);
    }
}

static void every_day_agrees_with_the_c_library_and_reads_back(void **state)
{
    (void)state;
    for (int64_t day = 0; day < 2932897; day += 1 + day % 3) { /* to 9999-12-31 */
        time_t s = (time_t)(day * 86400 + 86399);
        struct tm tm;
        gmtime_r(&s, &tm);
        char want[64], got[CLOCK_RFC3339_SIZE];
        snprintf(want, sizeof want, "%04d-%02d-%02dT23:59:59.000Z", tm.tm_year + 1900, tm.tm_mon + 1,
                 tm.tm_mday);
        clock_format((int64_t)s * 1000, got);
        assert_string_equal(got, want);
        int64_t back;
        assert_int_equal(clock_parse(got, &back, NULL), 0);
        assert_int_equal(back, (int64_t)s * 1000);
    }
}

static void what_rfc_3339_allows_is_read(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t ms;
    } cases[] = {
        {"1970-01-01T00:00:00Z", 0},
        {"1970-01-01t00:00:00z", 0},
        {"1970-01-01T00:00:00-00:00", 0},
        {"2026-01-02T03:04:05.678Z", 1767323045678},
        {"2026-01-02T03:04:05.6Z", 1767323045600},
        {"2026-01-02T03:04:05.67Z", 1767323045670},
        {"2026-01-02T03:04:05.678999999Z", 1767323045678},
        {"2026-01-02T05:34:05.678+02:30", 1767323045678},
        {"2026-01-01T22:04:05.678-05:00", 1767323045678},
        {"1969-12-31T23:59:59.999Z", -1},
        {"1969-12-31T23:59:59.001Z", -999},
        {"1970-01-01T00:00:00+23:59", -86340000},
        {"0000-01-01T00:00:00Z", -62167219200000},
        {"9999-12-31T23:59:59.999Z", 253402300799999},
        {"2000-02-29T00:00:00Z", 951782400000},
        {"1990-12-31T23:59:60Z", 662687999999},
        {"1990-12-31T15:59:60-08:00", 662687999999},
        {"1990-12-31T23:59:60.5Z", 662687999999},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        int64_t ms = 42;
        struct err e = {ERR_NONE, ""};
        if (clock_parse(cases[i].text, &ms, &e) != 0)
            fail_msg("%s: %s", cases[i].text, e.msg);
        if (ms != cases[i].ms)
            fail_msg("%s: %" PRId64 " is not %" PRId64, cases[i].text, ms, cases[i].ms);
    }
}

static void what_it_does_not_allow_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "now",
        "2026-01-02",
        "2026-01-02T03:04:05",
        "2026-01-02T03:04Z",
        "2026-01-02 03:04:05Z",
        "2026-01-02T03:04:05.Z",
        "2026-01-02T03:04:05.1234567890Z",
        "2026-01-02T03:04:05,5Z",
        "2026-1-2T03:04:05Z",
        "26-01-02T03:04:05Z",
        "2026-00-02T03:04:05Z",
        "2026-13-02T03:04:05Z",
        "2026-01-00T03:04:05Z",
        "2026-04-31T03:04:05Z",
        "2026-02-29T03:04:05Z",
        "2100-02-29T03:04:05Z",
        "2026-01-02T24:00:00Z",
        "2026-01-02T03:60:05Z",
        "2026-01-02T03:04:61Z",
        "2026-01-02T03:04:60Z",
        "2026-01-02T23:59:60+01:00",
        "2026-01-02T03:04:05+24:00",
        "2026-01-02T03:04:05+01:60",
        "2026-01-02T03:04:05+0100",
        "2026-01-02T03:04:05+01",
        "2026-01-02T03:04:05Zx",
        "2026-01-02T03:04:05Z ",
        " 2026-01-02T03:04:05Z",
        "+2026-01-02T03:04:05Z",
        "-026-01-02T03:04:05Z",
        "12026-01-02T03:04:05Z",
        "2026-01-02T03:04:05\342\210\22201:00",
    };
    for (size_t i = 0; i < COUNT(bad); i++) {
        int64_t ms = 42;
        struct err e = {ERR_NONE, ""};
        if (clock_parse(bad[i], &ms, &e) != -1)
            fail_msg("\"%s\" was read as %" PRId64, bad[i], ms);
        assert_int_equal(e.code, ERR_INVALID);
        assert_int_equal(ms, 42);
    }
}

static void the_monotonic_clock_does_not_go_back(void **state)
{
    (void)state;
    int64_t last = clock_mono_us();
    for (int i = 0; i < 10000; i++) {
        int64_t now = clock_mono_us();
        assert_true(now >= last);
        last = now;
    }
    assert_true(clock_mono_ms() >= last / 1000);
    assert_true(clock_wall_ms() > INT64_C(1700000000000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_are_written_with_milliseconds_in_utc),
        cmocka_unit_test(every_day_agrees_with_the_c_library_and_reads_back),
        cmocka_unit_test(what_rfc_3339_allows_is_read),
        cmocka_unit_test(what_it_does_not_allow_is_refused),
        cmocka_unit_test(the_monotonic_clock_does_not_go_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
