/* score.h - what an item is worth to a reader at a moment. Pure: no I/O, no clock. Any thread.
 *
 *   score = weight_freshness * freshness + weight_affinity * affinity + weight_engagement * engagement
 *   freshness  = 2^(-age / half-life), 1 for a new item
 *   affinity   = a / (|a| + 3), a = affinity to the publisher + half of the mean affinity to the topics; -1
 * to 1 engagement = log2(1 + max(0, e - 1)) / 10, at most 1, e = decayed engagement of all readers. The 1 is
 * what one reader's like adds: a single reader moves nobody's ranking by it, his own included.
 */
#ifndef FEEDMILL_RANKER_SCORE_H
#define FEEDMILL_RANKER_SCORE_H

#include <stddef.h>
#include <stdint.h>
#include "common/ids.h"

struct score_weights {
    double freshness, affinity, engagement;
    int64_t freshness_half_life_ms; /* above 0 */
};

struct score_features {
    int64_t age_ms;            /* negative counts as 0 */
    double publisher_affinity; /* decayed sums; 0 when nothing is known */
    double topic_affinity;     /* the mean over the item's topics */
    double engagement;
};

/* score_of() is finite for all inputs: a feature that is not counts as 0. */
double score_of(const struct score_weights *w, const struct score_features *f);

struct score_entry {
    item_id id;
    double score;
};

/* score_sort() orders by falling score, equal ones newest first. */
void score_sort(struct score_entry *entries, size_t n);

/* score_decay() is value after age_ms of a quantity that halves every half_life_ms. */
double score_decay(double value, int64_t age_ms, int64_t half_life_ms);

#endif
