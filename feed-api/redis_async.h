/* redis_async.h - the loop's own connection to Redis: one, pipelined, asynchronous.
 *
 * hiredis 0.14 knows no time-outs, so they are kept here: a group of commands whose deadline passes is
 * answered by ERR_TIMEOUT and its late reply is thrown away; a connection that answers nothing for a second
 * is closed. A lost connection comes back by itself with jittered back-off; in between everything fails at
 * once with ERR_UNAVAILABLE. What is in flight is bounded (ERR_BUSY). Loop's thread only.
 */
#ifndef FEEDMILL_REDIS_ASYNC_H
#define FEEDMILL_REDIS_ASYNC_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stdint.h>
#include "common/err.h"
#include "common/redis.h"

struct event_base;
struct metrics;
struct redis_async;

#define REDIS_COMMAND_ARGS 8

struct redis_command {
    int argc;
    const char *argv[REDIS_COMMAND_ARGS]; /* NUL-terminated, borrowed for the call */
};

/* redis_async_new() begins to connect. max_in_flight groups at most (0: 4,096). metrics may be NULL. */
struct redis_async *redis_async_new(struct event_base *base, const struct redis_address *a,
                                    unsigned max_in_flight, struct metrics *m);

/* redis_async_free() answers what is in flight with ERR_UNAVAILABLE. NULL is fine. */
void redis_async_free(struct redis_async *r);

bool redis_async_is_up(const struct redis_async *r);
unsigned redis_async_in_flight(const struct redis_async *r);

/* reply is an array with one reply a command (each may be an error), and valid during the call only; NULL on
 * failure, e says why then. */
typedef void (*redis_async_fn)(const redisReply *reply, const struct err *e, void *arg);

/* redis_async_group() sends n commands (at least 1) as one MULTI/EXEC: nothing comes in between. fn is called
 * exactly once, never from within this call, at the latest about timeout_ms (above 0) from now.
 * ERR_UNAVAILABLE, ERR_BUSY: fn is not called. */
int redis_async_group(struct redis_async *r, const struct redis_command *cmds, size_t n, int64_t timeout_ms,
                      redis_async_fn fn, void *arg, struct err *e) MUST_USE;

#endif
