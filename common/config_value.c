#include "common/config_value.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/mem.h"

struct suffix {
    const char *text;
    int64_t factor;
};
/* Largest first, for writing. */
static const struct suffix byte_suffixes[] = {
    {"g", INT64_C(1) << 30}, {"m", 1 << 20}, {"k", 1 << 10}, {"", 1}};
static const struct suffix ms_suffixes[] = {
    {"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};

static const struct suffix *suffixes_of(enum config_type type, size_t *n)
{
    *n = 0;
    if (type == CONFIG_BYTES) {
        *n = MEM_COUNT(byte_suffixes);
        return byte_suffixes;
    }
    if (type == CONFIG_MS) {
        *n = MEM_COUNT(ms_suffixes);
        return ms_suffixes;
    }
    return NULL;
}

/* Writes a number of the row's type the way that people would: "2s", "64k", "0.5". */
static void number_text(enum config_type type, double v, char *out, size_t size)
{
    size_t n;
    const struct suffix *s = suffixes_of(type, &n);
    for (size_t i = 0; i < n && v != 0; i++) {
        double whole = v / (double)s[i].factor;
        if (whole == floor(whole)) {
            snprintf(out, size, "%.0f%s", whole, s[i].text);
            return;
        }
    }
    snprintf(out, size, type == CONFIG_DOUBLE ? "%g" : "%.0f", v);
}

static void string_range(const struct config_row *row, double *min, double *max)
{
    bool none = row->min == 0 && row->max == 0;
    *min = none ? 0 : row->min;
    *max = none ? CONFIG_STRING_MAX : row->max;
}

void config_value_range(const struct config_row *row, char *out, size_t size)
{
    double min = row->min, max = row->max;
    if (row->type == CONFIG_BOOL) {
        snprintf(out, size, "yes or no");
        return;
    }
    if (row->type == CONFIG_STRING) {
        string_range(row, &min, &max);
        snprintf(out, size, "%.0f to %.0f bytes long", min, max);
        return;
    }
    char low[32], high[32];
    number_text(row->type, min, low, sizeof low);
    number_text(row->type, max, high, sizeof high);
    static const char *const what[] = {
        [CONFIG_INT] = "a whole number from",
        [CONFIG_BYTES] = "bytes (or k, m, g) from",
        [CONFIG_MS] = "ms (or s, m, h, d) from",
        [CONFIG_DOUBLE] = "a number from",
    };
    snprintf(out, size, "%s %s to %s", what[row->type], low, high);
}

static bool parse_bool(const char *s, bool *out)
{
    static const char *const yes[] = {"yes", "true", "1", "on"};
    static const char *const no[] = {"no", "false", "0", "off"};
    for (size_t i = 0; i < MEM_COUNT(yes); i++) {
        if (strcasecmp(s, yes[i]) == 0 || strcasecmp(s, no[i]) == 0) {
            *out = strcasecmp(s, yes[i]) == 0;
            return true;
        }
    }
    return false;
}

static bool parse_int(enum config_type type, const char *s, int64_t *out)
{
    char *end;
    if (!isdigit((unsigned char)s[0]) && !(s[0] == '-' && isdigit((unsigned char)s[1])))
        return false;
    errno = 0;
    long long v = strtoll(s, &end, 10);
    if (errno != 0)
        return false;
    int64_t factor = 0;
    size_t n;
    const struct suffix *suffixes = suffixes_of(type, &n);
    if (*end == '\0')
        factor = 1;
    for (size_t i = 0; i < n && factor == 0; i++) {
        if (strcasecmp(end, suffixes[i].text) == 0)
            factor = suffixes[i].factor;
    }
    return factor != 0 && !__builtin_mul_overflow((int64_t)v, factor, out);
}

static bool parse_double(const char *s, double *out)
{
    /* strtod() also takes hex, "inf", "nan" and leading blanks. */
    if (s[0] == '\0' || s[strspn(s, "0123456789.eE+-")] != '\0')
        return false;
    char *end;
    errno = 0;
    *out = strtod(s, &end);
    return *end == '\0' && end != s && isfinite(*out);
}

static bool in_range(const struct config_row *row, double v)
{
    return v >= row->min && v <= row->max;
}

bool config_value_store(const struct config_row *row, char *cfg, const char *text)
{
    void *field = cfg + row->offset;
    double min, max, d;
    int64_t i;
    switch (row->type) {
    case CONFIG_STRING: {
        char *old;
        double len = (double)strlen(text);
        string_range(row, &min, &max);
        if (len < min || len > max)
            return false;
        memcpy(&old, field, sizeof old);
        free(old);
        memcpy(field, &(char *){mem_strdup(text)}, sizeof old);
        return true;
    }
    case CONFIG_INT:
    case CONFIG_BYTES:
    case CONFIG_MS:
        if (!parse_int(row->type, text, &i) || !in_range(row, (double)i))
            return false;
        memcpy(field, &i, sizeof i);
        return true;
    case CONFIG_DOUBLE:
        if (!parse_double(text, &d) || !in_range(row, d))
            return false;
        memcpy(field, &d, sizeof d);
        return true;
    case CONFIG_BOOL:
        return parse_bool(text, (bool *)field);
    }
    return false;
}
