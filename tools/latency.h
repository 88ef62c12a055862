/* latency.h - a histogram of times in bounded memory: a quantile is at most 1/64 above the true one.
 *
 * Steps are single microseconds up to 127 us, then 64 of each power of two (as HdrHistogram has them). One
 * thread at a time; all zero is an empty one.
 */
#ifndef FEEDMILL_TOOLS_LATENCY_H
#define FEEDMILL_TOOLS_LATENCY_H

#include <stdint.h>

#define LATENCY_STEPS 1728 /* up to 2^32 us, more than an hour; what is longer counts as that */

struct latency {
    uint64_t count, steps[LATENCY_STEPS];
    int64_t max_us;
};

/* latency_add() counts one time; us below 0 counts as 0. */
void latency_add(struct latency *l, int64_t us);

/* latency_quantile() is the time in us that q (above 0, up to 1) of all do not exceed; 0 when there are
 * none. */
int64_t latency_quantile(const struct latency *l, double q);

#endif
