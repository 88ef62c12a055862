/* rebuild.h - makes a reader's timeline from the truth: follows, mutes and newest items, read from MongoDB at
 * a time R.
 *
 * Rebuilding is the one way a timeline comes to be: first read, return after absence, after every change of
 * follows or mutes, after Redis lost it. What was read is also what the page is made from, whether or not it
 * could be written: another process may be at it, Redis may be gone. Readers that ask for the same user at
 * the same time in this process share one rebuild. Blocking: in a worker.
 */
#ifndef FEEDMILL_REBUILD_H
#define FEEDMILL_REBUILD_H

#include <stddef.h>
#include "common/ids.h"
#include "common/ts.h"
#include "feed-api/follow_set.h"
#include "feed-api/metrics.h"
#include "feed-api/workers.h"

/* What MongoDB said of a reader at time r. Counted and immutable. */
struct truth {
    ts_t r;
    struct follow_set follows;
    char *mutes;  /* as mutes_parse() takes it */
    item_id *ids; /* the newest, newest first */
    size_t n;
    char *pulls;             /* the pull list: those of follows that are pulled; "" for none */
    item_id floor;           /* below the ids there is more from here on down; 0: they are all */
    enum metric_rebuild how; /* what became of the timeline */
    unsigned refs;           /* private */
};

void truth_unref(struct truth *t); /* any thread; NULL is fine */

struct rebuilds; /* those under way in this process */
struct rebuilds *rebuilds_new(void);
void rebuilds_free(struct rebuilds *r);

/* truth_read() reads at least the newest n ids and everything else as of time r (0: now), writes nothing. */
int truth_read(struct mongo_conn *c, const char *user, ts_t r, size_t n, struct truth **out,
               struct err *e) MUST_USE;

/* rebuild_run() reads the truth of user at R >= least and makes it the timeline in Redis, if it may. needed
 * (at most least) is what an answer of another rebuild of this process under way has to reach to do as well.
 * The caller unrefs *out. ERR_UNAVAILABLE, ERR_TIMEOUT of MongoDB; Redis' errors only show in how. */
int rebuild_run(struct rebuilds *all, struct worker *w, const char *user, ts_t least, ts_t needed,
                struct truth **out, struct err *e) MUST_USE;

#endif
