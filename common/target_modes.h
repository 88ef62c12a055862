/* target_modes.h - which targets are pulled: fanout does not write their items into timelines, whoever reads
 * a timeline adds them.
 *
 * The mode is a field of a target's document; setting it is a change on the log (CHANGE_TARGET). Blocking.
 */
#ifndef FEEDMILL_TARGET_MODES_H
#define FEEDMILL_TARGET_MODES_H

#include "common/err.h"
#include "common/mongo.h"
#include "common/names.h"

#define PULLED_TARGETS_MAX 10000 /* read at most; feed-api keeps the number of them far below */

/* target_modes_pulled() calls fn with each pulled target ("p:name"), in byte order, as c's session sees them.
 * ERR_UNAVAILABLE, ERR_TIMEOUT; ERR_TOO_LARGE when there are more than PULLED_TARGETS_MAX. */
int target_modes_pulled(struct mongo_conn *c, void (*fn)(void *arg, const char *target), void *arg,
                        struct err *e) MUST_USE;

#endif
