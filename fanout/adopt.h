/* adopt.h - takes the records of a share's buckets over, under a new epoch, and learns from where the log has
 * to be applied to them.
 *
 * Blocking; engine thread only; nothing may be on its way on the connection.
 */
#ifndef FEEDMILL_FANOUT_ADOPT_H
#define FEEDMILL_FANOUT_ADOPT_H

#include "common/redis.h"
#include "fanout/buckets.h"
#include "fanout/metrics.h"

struct adoption {
    unsigned taken, made; /* records found, records made */
    ts_t least;           /* the least progress of those buckets */
    int64_t least_epoch;  /* 0; else a record holds this epoch, later than ours: nothing is owned, come back
                             with one above */
};

/* adopt_share() runs SCRIPT_ADOPT for each bucket of the share and owns them (buckets_own). now: a time of
 * MongoDB's, at which records that are missing begin. reset: all are made anew. A record whose progress is
 * later than now was written against another MongoDB, or is damaged: it is made anew too. m may be NULL.
 * ERR_UNAVAILABLE, ERR_TIMEOUT, ERR_INTERNAL: some may have been adopted, none is owned. */
int adopt_share(struct redis *r, struct buckets *b, struct metrics *m, unsigned share, int64_t epoch,
                ts_t now, bool reset, struct adoption *out, struct err *e) MUST_USE;

#endif
