/* dead_letters.h - the collection `dead_letters`: what fanout could not apply, one document each.
 *
 * {_id, kind, item?, publisher?, user?, bucket?, t, reason, tries, fanout, first_at, at, state, replays,
 * topics_before?}; t is the change's position as text. The _id says what could not be applied ("item-<id>",
 * "timeline-<id>-<user>", "user-<user>", "other-<t>"), so that several fanouts, or the same failing again,
 * write one letter. It is "dead" unless a replay of it (replayed_t) is later than the change: whoever is late
 * with an older one does not open it again. At most DEAD_LETTERS_MAX are kept, whatever their state; the
 * oldest go. feed-api reads and replays them (feed-api/dead_letters.h). Engine thread only.
 */
#ifndef FEEDMILL_FANOUT_DEAD_LETTERS_H
#define FEEDMILL_FANOUT_DEAD_LETTERS_H

#include "common/mongo.h"
#include "fanout/troubles.h"

#define DEAD_LETTERS_MAX 10000

/* dead_letters_write() writes the letter of a trouble that is given up; fanout is this one's name. *lost: how
 * many old ones went for it. ERR_UNAVAILABLE, ERR_TIMEOUT, ERR_BUSY: to be called again. */
int dead_letters_write(struct mongo_conn *c, const struct trouble *x, const char *fanout, unsigned *lost,
                       struct err *e) MUST_USE;

/* dead_letters_kind() answers "item", "timeline", "user" or "other". */
const char *dead_letters_kind(const struct trouble *x);

#endif
