/* erase.h - everything that is kept of a user, taken away: in MongoDB his follows, mutes, marker, document
 * and dead letters; in Redis his timeline, affinities, ranked sessions, events under way and events seen.
 *
 * The first is one transaction, and one change on the log. The second looks at every key, because sessions
 * and seen events are listed nowhere: one at a time in a process. What counts others' behaviour keeps no
 * names. Doing it again does no harm, so what failed half-way is done by asking again. Blocking: in a worker.
 */
#ifndef FEEDMILL_ERASE_H
#define FEEDMILL_ERASE_H

#include "common/mongo.h"
#include "common/redis.h"
#include "feed-api/counts.h"

/* erase_stored() erases what MongoDB has; mongo_conn_time(c) is the position then. counts (may be NULL) is
 * told of whom he followed. ERR_UNAVAILABLE, ERR_TIMEOUT: nothing was done, or all. */
int erase_stored(struct mongo_conn *c, struct counts *counts, const char *user, struct err *e) MUST_USE;

/* erase_derived() erases what Redis has, until deadline (clock_mono_ms()). ERR_BUSY: another one is under
 * way; ERR_UNAVAILABLE, ERR_TIMEOUT. */
int erase_derived(struct redis *r, const char *user, int64_t deadline, struct err *e) MUST_USE;

/* erase_pattern() writes what matches the keys that begin with a hash tag, the user's name and a slash, in
 * Redis' glob syntax. Pure. */
#define ERASE_PATTERN_SIZE 160
void erase_pattern(const char *user, char out[ERASE_PATTERN_SIZE]);

#endif
