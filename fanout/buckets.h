/* buckets.h - what the engine knows of the records of its buckets: whose epoch, how many scripts, how far
 * applied.
 *
 * Pure bookkeeping, no I/O; engine thread only. A bucket is owned from its adoption until its share is
 * dropped. `n` is the count of the record in Redis as it will be when everything sent so far was applied.
 * `applied` is a progress that Redis has confirmed: changes at or before it need not be applied to the bucket
 * again.
 */
#ifndef FEEDMILL_FANOUT_BUCKETS_H
#define FEEDMILL_FANOUT_BUCKETS_H

#include <stdbool.h>
#include <stdint.h>
#include "common/keys.h"
#include "common/ts.h"

#define SHARES        16
#define SHARE_BUCKETS (BUCKETS / SHARES)

struct bucket {
    bool owned;
    ts_t applied;
    uint64_t n;
    int64_t births; /* timelines of which we know that they were begun; -1: not watched */
    char epoch[TS_TEXT_SIZE];
};

struct buckets {
    struct bucket at[BUCKETS];
};

struct bucket_range {
    unsigned first, last; /* both included */
};

static inline unsigned bucket_share(unsigned bucket)
{
    return bucket / SHARE_BUCKETS;
}

void buckets_init(struct buckets *b);

/* buckets_own() notes an adoption: n starts at 0 (as SCRIPT_ADOPT sets it). */
void buckets_own(struct buckets *b, unsigned bucket, int64_t epoch, ts_t applied);
void buckets_drop_share(struct buckets *b, unsigned share);

unsigned buckets_owned(const struct buckets *b);

/* buckets_least() answers false when none is owned, else *least is the least `applied` of all owned: where
 * the log has to be read from. */
bool buckets_least(const struct buckets *b, ts_t *least);

/* buckets_due() writes the ranges of owned buckets to which a change at t has still to be applied, ascending,
 * and answers how many. */
#define BUCKET_RANGES_MAX (BUCKETS / 2)
unsigned buckets_due(const struct buckets *b, ts_t t, struct bucket_range out[BUCKET_RANGES_MAX]);
bool bucket_is_due(const struct buckets *b, unsigned bucket, ts_t t);

#endif
