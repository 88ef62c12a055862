/* config.h - options, declared once as table rows.
 *
 * From the rows come the flags (--request-deadline 2000 or --request-deadline=2000), the environment
 * (FEEDMILL_REQUEST_DEADLINE), the config file (--config FILE; lines `request-deadline = 2000`, '#' comments)
 * and --help. Three options are always there: --config (FEEDMILL_CONFIG), --help, --version. Flags win over
 * the environment, that over the file, that over the default. An unknown name, a value out of range or an
 * unreadable file is an error that names the option, the source and the range. Every source is checked, also
 * where a stronger one wins. Variables FEEDMILL_... of no row are left alone: the processes share an
 * environment. Of equal flags the last counts; equal lines in the file are an error. Strings are never shown.
 */
#ifndef FEEDMILL_CONFIG_H
#define FEEDMILL_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/err.h"

enum config_type {
    CONFIG_STRING, /* char *, owned by the config struct (heap); "" is kept as "" */
    CONFIG_INT,    /* int64_t */
    CONFIG_BYTES,  /* int64_t; k, m, g suffixes of 1024 */
    CONFIG_MS,     /* int64_t in ms; suffixes ms, s, m, h, d; a bare number is ms */
    CONFIG_DOUBLE, /* double */
    CONFIG_BOOL,   /* bool; yes/no, true/false, 1/0, on/off; the flag alone means yes */
};

struct config_row {
    const char *name; /* "request-deadline" */
    enum config_type type;
    size_t offset;    /* of the field in the config struct */
    const char *def;  /* the default, as text */
    double min, max;  /* numbers, bytes, ms; for strings the length in bytes (0, 0 = 0 to 4096) */
    const char *help; /* one line; the unit and range are added from the row */
};

enum config_result { CONFIG_RUN, CONFIG_EXIT_OK };

/* config_load() fills *cfg (zeroed by the caller) from argv, environment, file and defaults. With --help it
 * prints to stdout and sets *result to CONFIG_EXIT_OK; --version likewise. usage is the line of the help
 * after the program's name, e.g. "serves feeds over HTTP". ERR_INVALID: nothing in *cfg needs freeing. */
int config_load(const char *program, const char *usage, const struct config_row *rows, size_t n, int argc,
                char **argv, void *cfg, enum config_result *result, struct err *e) MUST_USE;

/* config_free() releases the strings. */
void config_free(const struct config_row *rows, size_t n, void *cfg);

#define FEEDMILL_VERSION "0.1.0"

#endif
