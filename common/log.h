/* log.h - structured one-line logs on stderr.
 *
 *   2026-01-02T03:04:05.678Z info fanout[123] event=share_taken share=4 epoch=17 why="lease ran out"
 *
 * Each line is written by one write(2), at most LOG_LINE_MAX bytes, longer ones are cut and end in " cut=1".
 * Values are quoted when they hold a space, a quote, '=', a control character or nothing. Never give it a
 * secret. Any thread. common/ modules do not log, except long-running threads of their own (redis
 * reconnects, the tail), which have nobody to return an error to.
 */
#ifndef FEEDMILL_LOG_H
#define FEEDMILL_LOG_H

#include <stddef.h>
#include <stdint.h>
#include "common/err.h"

#define LOG_LINE_MAX 4096

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

struct log_field {
    const char *key;
    enum { LOG_FIELD_STR, LOG_FIELD_INT, LOG_FIELD_UINT, LOG_FIELD_DOUBLE, LOG_FIELD_HEX } type;
    union {
        const char *s;
        int64_t i;
        uint64_t u;
        double d;
    } v;
};

#define LOG_S(k, x) ((struct log_field){(k), LOG_FIELD_STR, {.s = (x)}}) /* NULL prints as "" */
#define LOG_I(k, x) ((struct log_field){(k), LOG_FIELD_INT, {.i = (x)}})
#define LOG_U(k, x) ((struct log_field){(k), LOG_FIELD_UINT, {.u = (x)}})
#define LOG_D(k, x) ((struct log_field){(k), LOG_FIELD_DOUBLE, {.d = (x)}})
#define LOG_X(k, x) ((struct log_field){(k), LOG_FIELD_HEX, {.u = (x)}}) /* 16 hex digits: a log time */
#define LOG_ERR(e)  LOG_S("code", err_code_name((e)->code)), LOG_S("error", (e)->msg)

/* log_init() names the process ("fanout"; not copied) and sets the lowest level written. Before it, lines
 * are written as "feedmill" from info on. */
void log_init(const char *process, enum log_level lowest);

/* log_level_parse() answers 0 for debug, info, warn, error; else -1. */
int log_level_parse(const char *s, enum log_level *out) MUST_USE;

void log_fields(enum log_level level, const char *event, const struct log_field *f, size_t n);

/* log_event(LOG_WARN, "redis_lost", LOG_S("addr", a), LOG_I("tries", 3)); the fields may be left out. */
#define log_event(level, ...) LOG_PICK(level, __VA_ARGS__)
#define LOG_PICK(level, event, ...)                                                                          \
    log_fields((level), (event),                                                                             \
               (const struct log_field[]){{"", LOG_FIELD_STR, {.s = ""}}, ##__VA_ARGS__} + 1,                \
               sizeof((const struct log_field[]){{"", LOG_FIELD_STR, {.s = ""}}, ##__VA_ARGS__}) /           \
                       sizeof(struct log_field) -                                                            \
                   1)

#endif
