#include "common/clock.h"

#include <stdbool.h>
#include <stdio.h>
#include <time.h>

#define DAY_MS  INT64_C(86400000)
#define LAST_MS INT64_C(253402300799999) /* the end of year 9999 */

static int64_t clock_read_us(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t clock_wall_ms(void)
{
    return clock_read_us(CLOCK_REALTIME) / 1000;
}

int64_t clock_mono_ms(void)
{
    return clock_read_us(CLOCK_MONOTONIC) / 1000;
}

int64_t clock_mono_us(void)
{
    return clock_read_us(CLOCK_MONOTONIC);
}

struct timespec clock_deadline_in(int64_t ms)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += ms / 1000;
    t.tv_nsec += ms % 1000 * 1000000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000;
    }
    return t;
}

static void put_digits(char *out, int width, int64_t v)
{
    for (int i = width - 1; i >= 0; i--) {
        out[i] = (char)('0' + v % 10);
        v /= 10;
    }
}

/* Days since 1970-01-01 to a date and back, in eras of 400 years that start on 1 March: see H. Hinnant,
 * "chrono-Compatible Low-Level Date Algorithms". gmtime_r() would do for writing, but timegm() takes any
 * nonsense for reading. */
static int64_t days_of_date(int64_t year, int month, int day)
{
    year -= month <= 2;
    int64_t era = (year >= 0 ? year : year - 399) / 400;
    int64_t of_era = year - era * 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static void date_of_days(int64_t days, int64_t *year, int *month, int *day)
{
    days += 719468; /* days of ms >= 0 only */
    int64_t era = days / 146097;
    int64_t doe = days - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    int64_t mp = (5 * doy + 2) / 153;
    *day = (int)(doy - (153 * mp + 2) / 5 + 1);
    *month = (int)(mp < 10 ? mp + 3 : mp - 9);
    *year = yoe + era * 400 + (*month <= 2);
}

void clock_format(int64_t ms, char *out)
{
    if (ms < 0)
        ms = 0;
    if (ms > LAST_MS)
        ms = LAST_MS;
    int64_t year;
    int month, day;
    date_of_days(ms / DAY_MS, &year, &month, &day);
    int64_t of_day = ms % DAY_MS;
    static const char shape[] = "0000-00-00T00:00:00.000Z";
    for (size_t i = 0; i < sizeof shape; i++)
        out[i] = shape[i];
    put_digits(out, 4, year);
    put_digits(out + 5, 2, month);
    put_digits(out + 8, 2, day);
    put_digits(out + 11, 2, of_day / 3600000);
    put_digits(out + 14, 2, of_day / 60000 % 60);
    put_digits(out + 17, 2, of_day / 1000 % 60);
    put_digits(out + 20, 3, of_day % 1000);
}

/* Reads `width` digits at *s and moves on; false when they are not there or above max. */
static bool take_digits(const char **s, int width, int min, int max, int *out)
{
    int v = 0;
    for (int i = 0; i < width; i++) {
        char c = (*s)[i];
        if (c < '0' || c > '9')
            return false;
        v = v * 10 + (c - '0');
    }
    *s += width;
    *out = v;
    return v >= min && v <= max;
}

static bool take_char(const char **s, const char *any)
{
    for (; *any != '\0'; any++) {
        if (**s == *any) {
            (*s)++;
            return true;
        }
    }
    return false;
}

static int month_days(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return days[month - 1] + (month == 2 && leap);
}

static bool take_date(const char **s, int64_t *days)
{
    int year, month, day;
    if (!take_digits(s, 4, 0, 9999, &year) || !take_char(s, "-") || !take_digits(s, 2, 1, 12, &month) ||
        !take_char(s, "-") || !take_digits(s, 2, 1, month_days(year, month), &day))
        return false;
    *days = days_of_date(year, month, day);
    return true;
}

static bool take_fraction(const char **s, int *ms)
{
    *ms = 0;
    if (!take_char(s, "."))
        return true;
    int n = 0;
    for (; **s >= '0' && **s <= '9'; (*s)++, n++) {
        if (n < 3)
            *ms = *ms * 10 + (**s - '0');
    }
    for (int i = n; i < 3; i++)
        *ms *= 10;
    return n >= 1 && n <= 9;
}

static bool take_offset(const char **s, int *minutes)
{
    *minutes = 0;
    if (take_char(s, "Zz"))
        return true;
    bool west = **s == '-';
    int h, m;
    if (!take_char(s, "+-") || !take_digits(s, 2, 0, 23, &h) || !take_char(s, ":") ||
        !take_digits(s, 2, 0, 59, &m))
        return false;
    *minutes = west ? -(h * 60 + m) : h * 60 + m;
    return true;
}

int clock_parse(const char *s, int64_t *ms, struct err *e)
{
    int64_t days;
    int hour, minute, second, fraction, offset;
    if (!take_date(&s, &days) || !take_char(&s, "Tt") || !take_digits(&s, 2, 0, 23, &hour) ||
        !take_char(&s, ":") || !take_digits(&s, 2, 0, 59, &minute) || !take_char(&s, ":") ||
        !take_digits(&s, 2, 0, 60, &second) || !take_fraction(&s, &fraction) || !take_offset(&s, &offset) ||
        *s != '\0')
        return err_set(e, ERR_INVALID, "a time is written like 2026-01-02T03:04:05.678Z (RFC 3339)");
    int64_t utc_minute = days * 1440 + hour * 60 + minute - offset;
    if (second == 60) {
        /* Leap seconds end a day of UTC; others are typing errors. */
        if (((utc_minute + 1) % 1440) != 0)
            return err_set(e, ERR_INVALID, "only the last minute of a day (UTC) can have a second 60");
        second = 59;
        fraction = 999;
    }
    *ms = utc_minute * 60000 + second * 1000 + fraction;
    return 0;
}
