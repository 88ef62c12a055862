/* beats.h - the heartbeats that were seen lately, so that a point on the log can be told as a time of day.
 * Pure; one thread at a time.
 */
#ifndef FEEDMILL_BEATS_H
#define FEEDMILL_BEATS_H

#include <stddef.h>
#include <stdint.h>
#include "common/ts.h"

#define BEATS_MAX      4096
#define BEATS_SPACE_MS 25 /* closer ones are left out: many processes would fill the ring within seconds */

struct beat {
    ts_t t;
    int64_t at_ms; /* the writer's wall clock */
};

struct beats {
    struct beat ring[BEATS_MAX];
    size_t first, n; /* ring[(first + i) % BEATS_MAX], i < n, ascending in t and in at_ms */
};

void beats_clear(struct beats *b);

/* beats_add() takes one heartbeat; ones that are not later than the last are left out. */
void beats_add(struct beats *b, ts_t t, int64_t at_ms);

/* beats_lag_ms() is wall_ms minus the time of the last heartbeat at or before t, less interval_ms, at least
 * 0. When t lies before all of them, its own seconds tell the time. t == 0: as if since 1970. */
int64_t beats_lag_ms(const struct beats *b, ts_t t, int64_t wall_ms, int64_t interval_ms);

#endif
