/* pulled.h - the newest items of pulled targets, in memory, for the pages of those who follow them.
 *
 * What is held follows the pull lists that pages meet, not the mode: a target is read from MongoDB when the
 * first pull list that names it is met, kept up to date from the log by the tail, and forgotten when it was
 * not met for the longest time and there are too many. Of each target the newest items above a floor of its
 * own are complete; a page is complete above the largest floor that it met. An item that went from a pulled
 * topic to a pushed one is here for timelines that are older than that, for those do not have it yet.
 *
 * Any thread; a mutex that is held for microseconds. pulled_load() blocks: in a worker.
 */
#ifndef FEEDMILL_PULLED_H
#define FEEDMILL_PULLED_H

#include <stdbool.h>
#include <stddef.h>
#include "common/changes.h"
#include "common/metrics.h"
#include "common/mongo.h"
#include "feed-api/timeline.h"

struct pulled;

/* pulled_new(): `keep` items of a target (at least 1), max_targets targets. metrics is borrowed, may be NULL.
 */
struct pulled *pulled_new(size_t keep, size_t max_targets, struct metrics *metrics);
void pulled_free(struct pulled *p); /* NULL is fine */

/* pulled_take() takes in a change of an item; from the tail's thread, in the order of the log, before it says
 * how far it has come. */
void pulled_take(struct pulled *p, const struct change *c);

/* pulled_drop_all() forgets everything: the log goes on at `from`, what was before is not told. */
void pulled_drop_all(struct pulled *p, ts_t from);

/* pulled_merge() adds to the ids of t, which were read for the newest n below `before`, those of all targets
 * on its pull list, and raises its floor to theirs. False: something on the list is not held, or was read
 * later than t is and so may lack what t lacks too; t is as it was. The ids are then as new as t, and at most
 * as the tail was when this was called. */
bool pulled_merge(struct pulled *p, item_id before, size_t n, struct timeline *t);

/* pulled_load() reads what is not held of a pull list. Equal misses are read once. ERR_UNAVAILABLE,
 * ERR_TIMEOUT. */
int pulled_load(struct pulled *p, struct mongo_conn *c, const char *list, struct err *e) MUST_USE;

#endif
