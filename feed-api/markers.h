/* markers.h - how far each user has read, in MongoDB: the same on all devices and processes.
 *
 *   markers {_id: user, item: id, at: when it was set}
 *
 * Not in the user's document: each change of that is on the log and drops his timeline. A marker only grows,
 * unless it is forced, so that devices may send theirs in any order. Blocking: in a worker.
 */
#ifndef FEEDMILL_MARKERS_H
#define FEEDMILL_MARKERS_H

#include <stdbool.h>
#include <stdint.h>
#include "common/ids.h"
#include "common/mongo.h"

struct marker {
    item_id id;    /* 0: none is set */
    int64_t at_ms; /* wall clock, when it was set */
};

/* markers_find() reads the marker of user as c's session sees it. ERR_UNAVAILABLE, ERR_TIMEOUT, ERR_CORRUPT.
 */
int markers_find(struct mongo_conn *c, const char *user, struct marker *out, struct err *e) MUST_USE;

/* markers_put() sets it to id (1 to ITEM_ID_MAX) at now_ms, when id is later than what is set or with force.
 * *out is what is set then; mongo_conn_time(c) the position, also when nothing changed. */
int markers_put(struct mongo_conn *c, const char *user, item_id id, bool force, int64_t now_ms,
                struct marker *out, struct err *e) MUST_USE;

/* markers_erase() removes it; there need not be one. */
int markers_erase(struct mongo_conn *c, const char *user, struct err *e) MUST_USE;

#endif
