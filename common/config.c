/* Options as table rows. Sources are applied in the order of their precedence, lowest first, each value
 * checked as it comes: a wrong line in the file is told even where a flag would win over it. */
#include "common/config.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/mem.h"

#define STRING_MAX     4096
#define FILE_MAX_LINES 1000
#define ENV_PREFIX     "FEEDMILL_"

struct loader {
    const struct config_row *rows;
    size_t n;
    char *cfg;
    bool *set;     /* by row: some source named it */
    int *set_line; /* by row: line of the file, 0 = not in it */
};

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
    *max = none ? STRING_MAX : row->max;
}

/* Says in words what the row takes. */
static void row_range(const struct config_row *row, char *out, size_t size)
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

static void env_name(const struct config_row *row, char *out, size_t size)
{
    size_t n = (size_t)snprintf(out, size, ENV_PREFIX "%s", row->name);
    assert(n < size);
    for (size_t i = sizeof ENV_PREFIX - 1; i < n; i++)
        out[i] = out[i] == '-' ? '_' : (char)toupper((unsigned char)out[i]);
}

/* ---- values ---- */

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

/* Stores text in the field of the row; false when it does not fit the row. */
static bool store_value(const struct config_row *row, char *cfg, const char *text)
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

/* source names the option too: "--limit", "FEEDMILL_LIMIT", "feed.conf:3: limit", "default of limit". */
static int take_value(struct loader *l, size_t i, const char *text, const char *source, struct err *e)
{
    const struct config_row *row = &l->rows[i];
    if (store_value(row, l->cfg, text)) {
        l->set[i] = true;
        return 0;
    }
    char range[128];
    row_range(row, range, sizeof range);
    if (row->type == CONFIG_STRING) /* not shown: it may hold a password */
        return err_set(e, ERR_INVALID, "%.100s: must be %s, is %zu", source, range, strlen(text));
    return err_set(e, ERR_INVALID, "%.100s: must be %s, is \"%.40s\"", source, range, text);
}

static bool find_row(const struct loader *l, const char *name, size_t len, size_t *out)
{
    for (size_t i = 0; i < l->n; i++) {
        if (strlen(l->rows[i].name) == len && memcmp(l->rows[i].name, name, len) == 0) {
            *out = i;
            return true;
        }
    }
    return false;
}

/* ---- sources ---- */

static int take_defaults(struct loader *l, struct err *e)
{
    for (size_t i = 0; i < l->n; i++) {
        const struct config_row *row = &l->rows[i];
        const char *def = row->def != NULL ? row->def : "";
        if (l->set[i] || store_value(row, l->cfg, def))
            continue;
        char env[128];
        env_name(row, env, sizeof env);
        if (row->type == CONFIG_STRING && def[0] == '\0')
            return err_set(e, ERR_INVALID, "--%s (or %s) must be given", row->name, env);
        return err_set(e, ERR_INTERNAL, "the default of --%s does not fit its own range", row->name);
    }
    return 0;
}

static char *trim(char *s)
{
    while (isspace((unsigned char)*s))
        s++;
    size_t n = strlen(s);
    while (n > 0 && isspace((unsigned char)s[n - 1]))
        s[--n] = '\0';
    return s;
}

static int take_line(struct loader *l, const char *path, int number, char *line, struct err *e)
{
    line = trim(line);
    if (line[0] == '\0' || line[0] == '#')
        return 0;
    char *equals = strchr(line, '=');
    if (equals == NULL)
        return err_set(e, ERR_INVALID, "%.100s:%d: not of the form name = value", path, number);
    *equals = '\0';
    const char *name = trim(line);
    size_t i;
    if (!find_row(l, name, strlen(name), &i))
        return err_set(e, ERR_INVALID, "%.100s:%d: unknown option \"%.60s\"", path, number, name);
    if (l->set_line[i] != 0)
        return err_set(e, ERR_INVALID, "%.100s:%d: %s is there already, on line %d", path, number, name,
                       l->set_line[i]);
    l->set_line[i] = number;
    char source[256];
    snprintf(source, sizeof source, "%.60s:%d: %.60s", path, number, name);
    return take_value(l, i, trim(equals + 1), source, e);
}

static int take_file(struct loader *l, const char *path, struct err *e)
{
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return err_set(e, ERR_INVALID, "config file %.100s: %s", path, strerror(errno));
    char line[STRING_MAX + 256];
    int number = 0;
    int rc = 0;
    while (rc == 0 && fgets(line, sizeof line, f) != NULL) {
        number++;
        if (number > FILE_MAX_LINES)
            rc = err_set(e, ERR_INVALID, "config file %.100s: more than %d lines", path, FILE_MAX_LINES);
        else if (strchr(line, '\n') == NULL && !feof(f))
            rc = err_set(e, ERR_INVALID, "%.100s:%d: line too long, or not text", path, number);
        else
            rc = take_line(l, path, number, line, e);
    }
    if (rc == 0 && ferror(f))
        rc = err_set(e, ERR_INVALID, "config file %.100s: %s", path, strerror(errno));
    fclose(f);
    return rc;
}

static int take_environment(struct loader *l, struct err *e)
{
    for (size_t i = 0; i < l->n; i++) {
        char name[128];
        env_name(&l->rows[i], name, sizeof name);
        const char *text = getenv(name);
        if (text != NULL && take_value(l, i, text, name, e) < 0)
            return -1;
    }
    return 0;
}

/* One flag of argv at *at; moves *at behind it. *name is without "--"; *value is NULL when there is none. */
static int next_flag(int argc, char **argv, int *at, const char **name, size_t *len, const char **value,
                     struct err *e)
{
    const char *arg = argv[*at];
    if (strncmp(arg, "--", 2) != 0 || arg[2] == '\0')
        return err_set(e, ERR_INVALID, "unexpected argument \"%.60s\"; see --help", arg);
    *name = arg + 2;
    *len = strcspn(*name, "=");
    *value = NULL;
    if ((*name)[*len] == '=') {
        *value = *name + *len + 1;
    } else if (*at + 1 < argc && strncmp(argv[*at + 1], "--", 2) != 0) {
        *value = argv[*at + 1];
        (*at)++;
    }
    (*at)++;
    return 0;
}

static bool flag_is(const char *name, size_t len, const char *what)
{
    return len == strlen(what) && memcmp(name, what, len) == 0;
}

static int take_flags(struct loader *l, int argc, char **argv, struct err *e)
{
    for (int at = 1; at < argc;) {
        const char *name, *value;
        size_t len, i;
        if (next_flag(argc, argv, &at, &name, &len, &value, e) < 0)
            return -1;
        if (flag_is(name, len, "config"))
            continue; /* read already */
        if (!find_row(l, name, len, &i))
            return err_set(e, ERR_INVALID, "unknown option --%.*s; see --help", (int)(len < 60 ? len : 60),
                           name);
        if (value == NULL && l->rows[i].type != CONFIG_BOOL)
            return err_set(e, ERR_INVALID, "--%s needs a value", l->rows[i].name);
        char source[128];
        snprintf(source, sizeof source, "--%s", l->rows[i].name);
        if (take_value(l, i, value != NULL ? value : "yes", source, e) < 0)
            return -1;
    }
    return 0;
}

/* The config file's path is needed before the other flags are applied. */
static int find_file(int argc, char **argv, const char **path, struct err *e)
{
    *path = getenv(ENV_PREFIX "CONFIG");
    for (int at = 1; at < argc;) {
        const char *name, *value;
        size_t len;
        if (next_flag(argc, argv, &at, &name, &len, &value, e) < 0)
            return -1;
        if (!flag_is(name, len, "config"))
            continue;
        if (value == NULL || value[0] == '\0')
            return err_set(e, ERR_INVALID, "--config needs a value");
        *path = value;
    }
    if (*path != NULL && (*path)[0] == '\0')
        *path = NULL;
    return 0;
}

/* ---- help ---- */

static void print_help(const char *program, const char *usage, const struct config_row *rows, size_t n)
{
    static const char *const value_names[] = {
        [CONFIG_STRING] = "TEXT", [CONFIG_INT] = "N",    [CONFIG_BYTES] = "BYTES",
        [CONFIG_MS] = "TIME",     [CONFIG_DOUBLE] = "X", [CONFIG_BOOL] = "yes|no",
    };
    printf("%s %s\n\nusage: %s [--option VALUE]...\n\nOptions, each also as a line `option = VALUE` of the "
           "config file and "
           "as environment\nvariable " ENV_PREFIX
           "OPTION; flags win over the environment, that over the file:\n\n",
           program, usage, program);
    for (size_t i = 0; i < n; i++) {
        const struct config_row *r = &rows[i];
        char range[128];
        row_range(r, range, sizeof range);
        printf("  --%s %s\n      %s\n      ", r->name, value_names[r->type], r->help);
        if (r->type != CONFIG_STRING || r->min != 0 || r->max != 0)
            printf("%s; ", range);
        printf("default %s\n", r->def != NULL && r->def[0] != '\0' ? r->def : "empty");
    }
    printf("  --config FILE\n      the config file (" ENV_PREFIX "CONFIG)\n"
           "  --help\n      print this and exit\n  --version\n      print the version and exit\n");
}

static bool asked_for(int argc, char **argv, const char *flag)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], flag) == 0)
            return true;
    }
    return false;
}

int config_load(const char *program, const char *usage, const struct config_row *rows, size_t n, int argc,
                char **argv, void *cfg, enum config_result *result, struct err *e)
{
    if (asked_for(argc, argv, "--help") || asked_for(argc, argv, "-h")) {
        print_help(program, usage, rows, n);
        *result = CONFIG_EXIT_OK;
        return 0;
    }
    if (asked_for(argc, argv, "--version")) {
        printf("%s %s\n", program, FEEDMILL_VERSION);
        *result = CONFIG_EXIT_OK;
        return 0;
    }
    struct loader l = {.rows = rows, .n = n, .cfg = cfg};
    l.set = mem_zero(n, sizeof *l.set);
    l.set_line = mem_zero(n, sizeof *l.set_line);
    const char *path;
    int rc = find_file(argc, argv, &path, e);
    if (rc == 0 && path != NULL)
        rc = take_file(&l, path, e);
    if (rc == 0)
        rc = take_environment(&l, e);
    if (rc == 0)
        rc = take_flags(&l, argc, argv, e);
    if (rc == 0)
        rc = take_defaults(&l, e);
    free(l.set);
    free(l.set_line);
    if (rc < 0)
        config_free(rows, n, cfg);
    else
        *result = CONFIG_RUN;
    return rc;
}

void config_free(const struct config_row *rows, size_t n, void *cfg)
{
    for (size_t i = 0; i < n; i++) {
        if (rows[i].type != CONFIG_STRING)
            continue;
        char *s;
        void *field = (char *)cfg + rows[i].offset;
        memcpy(&s, field, sizeof s);
        free(s);
        memset(field, 0, sizeof s);
    }
}
