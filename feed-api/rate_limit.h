/* rate_limit.h - how often somebody may ask: a token bucket for each key, each user and each client address.
 *
 * A bucket holds at most `burst` tokens and gains `per_second` of them a second; a request takes one. It is
 * kept as one number, the time at which it will be full (the generic cell rate algorithm, ITU-T I.371: the
 * same as a token bucket, and nothing has to be refilled). A full bucket is the same as none, so forgetting
 * one is free.
 *
 * Memory is fixed: a table of sets of RATE_WAYS buckets, shared by all loops, a mutex for each part of it.
 * When a set is full, the bucket that is fullest goes: nearly always one that is full anyway; under a flood
 * of names somebody may get a few tokens more than his due. Nothing is allocated after rate_limit_new(). Any
 * thread. The limits are this process's: n of them allow n times as much.
 */
#ifndef FEEDMILL_RATE_LIMIT_H
#define FEEDMILL_RATE_LIMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rate_rule {
    int64_t per_second; /* 1 to 1,000,000; 0: no limit */
    int64_t burst;      /* tokens of a full bucket, 1 to 1,000,000; 0: twice per_second */
};

struct rate_verdict {
    bool ok;
    int64_t remaining; /* tokens left */
    int64_t reset_ms;  /* until the bucket is full, rounded up */
    int64_t retry_ms;  /* until there is a token, at least 1; 0 when ok */
};

/* rate_rule_burst() is what the rule's bucket holds. */
int64_t rate_rule_burst(const struct rate_rule *r);

/* rate_bucket_take() takes a token out of the bucket that is full at *full_ns (0: always was), if there is
 * one. now_ns is on a monotonic clock. The rule has a limit. Pure. */
void rate_bucket_take(int64_t *full_ns, const struct rate_rule *r, int64_t now_ns, struct rate_verdict *out);

#define RATE_ID_MAX 67 /* bytes of an id */
#define RATE_WAYS   8

struct rate_limit;

/* rate_limit_new() has room for at least `buckets` of them (1 to 16,777,216). */
struct rate_limit *rate_limit_new(size_t buckets);
void rate_limit_free(struct rate_limit *l); /* NULL is a no-op */

/* rate_limit_take() takes a token of the bucket of `id` (1 to RATE_ID_MAX bytes; what is longer is cut); ids
 * of different rules have to differ, so they begin with a letter of their kind. Without a limit *out is ok
 * and otherwise 0. */
void rate_limit_take(struct rate_limit *l, const struct rate_rule *r, const char *id, int64_t now_ns,
                     struct rate_verdict *out);

#endif
