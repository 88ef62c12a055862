/* Options as table rows. Sources are applied in the order of their precedence, lowest first, each value
 * checked as it comes: a wrong line in the file is told even where a flag would win over it. */
#include "common/config.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_value.h"
#include "common/mem.h"

#define FILE_MAX_LINES 1000
#define ENV_PREFIX     "FEEDMILL_"

struct loader {
    const struct config_row *rows;
    size_t n;
    char *cfg;
    bool *set;     /* by row: some source named it */
    int *set_line; /* by row: line of the file, 0 = not in it */
};

static void env_name(const struct config_row *row, char *out, size_t size)
{
    size_t n = (size_t)snprintf(out, size, ENV_PREFIX "%s", row->name);
    assert(n < size);
    for (size_t i = sizeof ENV_PREFIX - 1; i < n; i++)
        out[i] = out[i] == '-' ? '_' : (char)toupper((unsigned char)out[i]);
}

/* source names the option too: "--limit", "FEEDMILL_LIMIT", "feed.conf:3: limit", "default of limit". */
static int take_value(struct loader *l, size_t i, const char *text, const char *source, struct err *e)
{
    const struct config_row *row = &l->rows[i];
    if (config_value_store(row, l->cfg, text)) {
        l->set[i] = true;
        return 0;
    }
    char range[128];
    config_value_range(row, range, sizeof range);
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
        if (l->set[i] || config_value_store(row, l->cfg, def))
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
    char line[CONFIG_STRING_MAX + 256];
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
        config_value_range(r, range, sizeof range);
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
