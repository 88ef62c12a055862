/* timeline_model.h - a random life of one timeline, by the scripts, beside a plain model of the truth.
 *
 * The truth is a list of events, one a tick: an item joins the feed, leaves it, or the user's follows change.
 * An owner applies them late, is replaced, starts over; feed-api rebuilds and finishes later; Redis expires
 * and loses things. After each step the timeline is judged as a reader would: if it counts, it must hold
 * above its floor what belongs there.
 */
#ifndef FEEDMILL_TESTS_TIMELINE_MODEL_H
#define FEEDMILL_TESTS_TIMELINE_MODEL_H

#include <stddef.h>
#include "common/redis.h"

/* How often what happened, so that a test can see that it did. */
struct model_counts {
    long judged, floors_crossed, trimmed, finished, tokens_lost, dropped, refused, flushed, adopted,
        landed_while_building, together;
};

/* timeline_model_run() lives through steps with a random generator seeded by seed; Redis is empty. 0, or -1
 * with what is wrong in why. counts are added to. */
int timeline_model_run(struct redis *r, unsigned seed, int steps, struct model_counts *counts, char *why,
                       size_t why_size);

#endif
