/* redis.h - Redis, blocking: one connection for one thread (fanout's engine, ranker, feed-api's workers).
 *
 * Connects on first use and again after a failure with jittered back-off (calls in between fail at once with
 * ERR_UNAVAILABLE). Loads all scripts of scripts.h after each connect. Any error on the wire closes the
 * connection: the state of what was sent is unknown then.
 */
#ifndef FEEDMILL_REDIS_H
#define FEEDMILL_REDIS_H

#include <hiredis/hiredis.h>
#include "common/err.h"
#include "common/scripts.h"

struct redis;

struct redis_address {
    char host[256]; /* empty: a unix socket */
    int port;
    char path[256];
};

/* redis_address_parse() reads "unix:/path" or "host:port" or "[v6]:port". ERR_INVALID. */
int redis_address_parse(const char *s, struct redis_address *out, struct err *e) MUST_USE;

/* timeout_ms is for the connect and for each reply (default 1,000 for 0). Does not connect. */
struct redis *redis_new(const struct redis_address *a, int64_t timeout_ms);
void redis_free(struct redis *r);

/* redis_generation() grows with each new connection: what was cached about the server may be stale when it
 * changed. */
uint64_t redis_generation(const struct redis *r);

/* redis_command() sends one command and answers its reply (freeReplyObject), never NULL on success. An error
 * reply (-ERR ...) is ERR_INTERNAL with the text, -LOADING, -MISCONF, -OOM, -READONLY are ERR_UNAVAILABLE;
 * the connection stays. */
int redis_command(struct redis *r, redisReply **out, int argc, const char **argv, const size_t *len,
                  struct err *e) MUST_USE;
int redis_commandf(struct redis *r, redisReply **out, struct err *e, const char *first,
                   ...) MUST_USE; /* strings, ended by NULL */

/* Pipelining: append any number (at most REDIS_PIPELINE_MAX unread), then read as many replies in order. An
 * error reply is an error of its own read only; the others can still be read. */
#define REDIS_PIPELINE_MAX 10000
int redis_append(struct redis *r, int argc, const char **argv, const size_t *len, struct err *e) MUST_USE;
int redis_read(struct redis *r, redisReply **out, struct err *e) MUST_USE;
unsigned redis_pending(const struct redis *r);

/* redis_script_append() appends EVALSHA of a script; argv holds nkeys keys, then the arguments. NOSCRIPT on
 * read closes the connection (ERR_UNAVAILABLE): the next one loads the scripts again. */
int redis_script_append(struct redis *r, enum script s, int nkeys, int argc, const char **argv,
                        const size_t *len, struct err *e) MUST_USE;
int redis_script(struct redis *r, redisReply **out, enum script s, int nkeys, int argc, const char **argv,
                 const size_t *len, struct err *e) MUST_USE;

#endif
