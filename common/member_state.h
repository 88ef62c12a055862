/* member_state.h - what a fanout tells of itself in its document of `members`, about once a second, and
 * feed-api reads there: how far it is, what waits, how its servers are.
 *
 * Pure; any thread. A fanout that says nothing (an older one) has no `state`.
 */
#ifndef FEEDMILL_MEMBER_STATE_H
#define FEEDMILL_MEMBER_STATE_H

#include <bson/bson.h>
#include <stdbool.h>
#include <stdint.h>
#include "common/ts.h"

struct member_state {
    bool ready;
    bool redis_ok, mongodb_ok; /* answered it when they were used last */
    unsigned buckets;          /* that it owns */
    ts_t progress;             /* least of them; 0: none */
    int64_t lag_ms;            /* age of the newest heartbeat within progress; -1: unknown */
    int64_t backlog;           /* changes read from the log that are not delivered to everybody */
    int64_t memory_used;       /* of its Redis, in bytes; -1: unknown */
    int64_t memory_max;        /* maxmemory; 0: none */
    bool memory_tight;         /* nearly all of it is used (fanout/room.h) */
    int64_t evicted;           /* timelines that it dropped to make room */
};

/* member_state_append() appends s as a document called name. */
void member_state_append(const struct member_state *s, const char *name, bson_t *d);

/* member_state_read() reads that document of d; false when there is none. Fields that are missing or of
 * another type are as unknown (false, 0 or -1). */
bool member_state_read(const bson_t *d, const char *name, struct member_state *out);

#endif
