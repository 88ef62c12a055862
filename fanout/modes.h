/* modes.h - which targets are pulled, at each point of the log.
 *
 * A target is pulled for the items later than its turn. What was read from MongoDB at some time counts from
 * that time on: an item between the turn and then is delivered needlessly, which does no harm; never the
 * other way round. Pure bookkeeping but for modes_load(); engine thread only.
 */
#ifndef FEEDMILL_FANOUT_MODES_H
#define FEEDMILL_FANOUT_MODES_H

#include <stdbool.h>
#include "common/mongo.h"
#include "common/ts.h"

struct modes;

struct modes *modes_new(void);
void modes_free(struct modes *m); /* NULL is fine */

/* modes_load() forgets all and takes what MongoDB says now. It comes when the log is opened, before any of
 * its changes. ERR_UNAVAILABLE, ERR_TIMEOUT, ERR_TOO_LARGE: then it is as it was. */
int modes_load(struct modes *m, struct mongo_conn *c, struct err *e) MUST_USE;

/* modes_set() takes a turn of the log over: pulled from t on, or pushed. */
void modes_set(struct modes *m, const char *target, bool pull, ts_t t);

/* modes_pulled() says whether an item of time t is not delivered to the target's followers. */
bool modes_pulled(const struct modes *m, const char *target, ts_t t);

unsigned modes_count(const struct modes *m);

#endif
