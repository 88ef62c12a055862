/* receipts.h - a short history of progress, so that feed-api can say when an item was delivered.
 *
 * A thread looks at the engine twice a second and notes points (wall clock, newest heartbeat that progress
 * has passed, mask of the shares that were held then); once a second it writes those of the present ten
 * seconds to `receipts`: {_id: "<fanout> <ms>", at, h: the last point's heartbeat, points: [{a, h, m}]}. So a
 * fanout writes one small document a second, of which one in ten stays, for a week. While something waits for
 * another try (troubles.h) nothing is noted: one share is further back than the others then. Beside that it
 * counts the open dead letters every ten seconds, for metrics and status.
 *
 * When MongoDB does not answer, points are left out; the history has a gap. Any thread.
 */
#ifndef FEEDMILL_FANOUT_RECEIPTS_H
#define FEEDMILL_FANOUT_RECEIPTS_H

#include "fanout/engine.h"

#define RECEIPTS_POINTS 20
#define RECEIPTS_MS     10000

struct receipts;

struct receipts_options {
    struct mongo *mongo;     /* borrowed */
    struct engine *engine;   /* borrowed */
    struct metrics *metrics; /* borrowed */
    const char *name;        /* of this fanout; borrowed */
};

int receipts_start(struct receipts **out, const struct receipts_options *o, struct err *e) MUST_USE;
void receipts_stop(struct receipts *r); /* NULL is fine */

#endif
