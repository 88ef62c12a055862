/* access_log.h - one line of JSON a request, in a file of its own or on stdout.
 *
 * Lines are collected in memory and written by a thread, so a slow disk holds up no request: when a megabyte
 * waits, further lines are dropped and counted (M_ACCESS_LOG_DROPPED). A file that was moved or removed (log
 * rotation) is made anew within a second. No query and no header but User-Agent is written: tokens may be in
 * the one, and are in the other.
 */
#ifndef FEEDMILL_FEED_API_ACCESS_LOG_H
#define FEEDMILL_FEED_API_ACCESS_LOG_H

#include <stdint.h>
#include "common/buf.h"
#include "common/err.h"
#include "common/metrics.h"

struct access_log;

/* All strings are borrowed; NULL is null. */
struct access_line {
    int64_t at_ms; /* of the answer; wall clock */
    const char *id, *client, *who;
    const char *method, *path; /* path without the query */
    const char *op;            /* the operation's name */
    int status;
    int64_t bytes; /* of the answer's body */
    int64_t us;
    const char *agent;
};

/* access_line_write() appends the line with its newline. Bytes that are no UTF-8 are written as '?', long
 * texts are cut. Pure. */
void access_line_write(const struct access_line *l, struct buf *out);

/* access_log_start() opens the file ("-": stdout) and starts the thread. every: one of so many requests is
 * written, by chance, and all answers of 500 and above; at least 1. ERR_UNAVAILABLE. */
int access_log_start(struct access_log **out, const char *file, int64_t every, struct metrics *m,
                     struct err *e) MUST_USE;
void access_log_stop(struct access_log *l); /* writes what is left; NULL is a no-op */

/* access_log_add() takes the line if its turn comes. Any thread. */
void access_log_add(struct access_log *l, const struct access_line *line);

#endif
