/* apply.h - applies one change of the log to the timelines of the owned buckets: plan, audience, deliver.
 *
 * Applying a change again, or late, does no harm; so a failure is answered by applying the whole change
 * again. Engine thread only.
 */
#ifndef FEEDMILL_FANOUT_APPLY_H
#define FEEDMILL_FANOUT_APPLY_H

#include "fanout/audience.h"
#include "fanout/deliver.h"

struct apply {
    struct mongo_conn *conn;
    struct buckets *buckets;
    struct deliver *deliver;
    struct metrics *metrics;
    struct audience_batch batch; /* for deliveries */
    struct audience_batch small; /* for removals, which look up each follower's other follows */

    /* Called between batches: false ends the change early with ERR_BUSY (the process is to stop), to be
     * applied again by the next owner. */
    bool (*go_on)(void *arg);
    void *arg;
};

void apply_init(struct apply *a, unsigned audience_batch);
void apply_done(struct apply *a);

/* apply_change() returns 0 when Redis has answered for all of it (deliver_refused() tells of shares for which
 * it was refused). ERR_UNAVAILABLE, ERR_TIMEOUT: a server did not answer (see deliver_broken()); ERR_CORRUPT:
 * the item in MongoDB does not read as one; ERR_BUSY: see go_on. */
int apply_change(struct apply *a, const struct change *c, struct err *e) MUST_USE;

#endif
