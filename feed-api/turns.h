/* turns.h - which targets are pulled: those with many followers.
 *
 * A target turns to pull at `threshold` followers and back below three quarters of that, so that one at the
 * border does not turn all the time. A turn is a change of its document; fanout meets it on the log and does
 * the rest. Any number of processes may decide at once. Blocking.
 */
#ifndef FEEDMILL_TURNS_H
#define FEEDMILL_TURNS_H

#include "common/err.h"
#include "common/mongo.h"

struct turns_options {
    int64_t threshold;   /* followers; 0: nothing is pulled */
    int64_t max_targets; /* pulled at once, at least 1: those with the most followers */
};

/* turns_decide() compares the stored counts of followers with the modes and sets those that have to change;
 * *turned (may be NULL) is how many. ERR_UNAVAILABLE, ERR_TIMEOUT. */
int turns_decide(struct mongo_conn *c, const struct turns_options *o, unsigned *turned,
                 struct err *e) MUST_USE;

#endif
