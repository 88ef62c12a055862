/* stack.h - the supervisor behind `make run`: one Redis, one mongod, fanout, ranker and feed-api under one
 * directory, in the foreground.
 *
 * One thread, a libevent loop. What ends is started again with back-off and said so on stdout; SIGINT,
 * SIGTERM or SIGHUP stops all in order (feed-api, ranker, fanout, Redis, mongod) within 10 s, a second one
 * kills. It does not survive its own kill -9, and neither do the children (servers.h); the next start
 * recovers.
 */
#ifndef FEEDMILL_TOOLS_STACK_H
#define FEEDMILL_TOOLS_STACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/config.h"
#include "common/err.h"

struct stack_options {
    int64_t port;            /* of feed-api, on 127.0.0.1 */
    char *data;              /* the directory */
    bool demo;               /* load the demo data */
    double mongod_cache;     /* GB */
    int64_t redis_maxmemory; /* bytes, 0 = no limit */
    int64_t min_free;        /* bytes that the disk of data must have free */
    int64_t start_deadline;  /* ms until everything has to be ready the first time */
    char *log_level;         /* of the three processes */
};

extern const struct config_row stack_rows[];
extern const size_t stack_rows_count;

/* stack_run() runs until told to stop: 0. A start that fails answers -1 and "step '...': what, what to do",
 * after it has stopped what it had started. */
int stack_run(const struct stack_options *o, struct err *e) MUST_USE;

#endif
