/* apply.h - delivers the changes of the log to the timelines of the owned buckets, a slice at a time.
 *
 * While it is known who has a timeline (`known`), an item goes to the active followers of its targets: from
 * their cached lists, or read from MongoDB once, which fills the list. Otherwise it goes to all followers,
 * and the scripts leave out those without a timeline. Followers of a pulled target are not delivered to; when
 * a target turns, its pull-list entries and newest items are delivered in the same way.
 *
 * Doing anything again, or late, does no harm. Engine thread only.
 */
#ifndef FEEDMILL_FANOUT_APPLY_H
#define FEEDMILL_FANOUT_APPLY_H

#include "fanout/audience.h"
#include "fanout/deliver.h"
#include "fanout/lists.h"
#include "fanout/modes.h"
#include "fanout/tasks.h"

struct apply {
    struct mongo_conn *conn;
    struct buckets *buckets;
    struct deliver *deliver;
    struct metrics *metrics;
    struct readers *readers;
    struct lists *lists;
    struct modes *modes;
    item_id *newest; /* room for those of a target that turned to push */
    size_t newest_cap;
    ts_t log_at;   /* followers are read as of then or later: what the log told of them is in it */
    bool known;    /* `readers` holds everybody who has a timeline in an owned bucket, but for
                      those whom engine_births.c still has to be told of */
    uint32_t mark; /* of the last task that was begun */
    struct audience_batch batch; /* for deliveries */
    struct audience_batch small; /* for removals, which look up each follower's other follows */
};

void apply_init(struct apply *a, unsigned audience_batch, int64_t timeline_entries);
void apply_done(struct apply *a);

/* apply_read() makes of a change what has to be done: *asks is false when that is nothing. publisher
 * (NAME_MAX_BYTES + 1) is whose turn it takes. ERR_UNAVAILABLE, ERR_TIMEOUT: MongoDB did not tell;
 * ERR_CORRUPT: the item does not read as one. */
int apply_read(struct apply *a, const struct change *c, struct plan *out, char *publisher, bool *asks,
               struct err *e) MUST_USE;

/* apply_begin_script() says what the next timelines of the task are for, which for a turn to push means to
 * read the target's newest items: they are as new as the log that was handed out, so that what leaves the
 * target later is taken out after they were put in. ERR_UNAVAILABLE, ERR_TIMEOUT. */
int apply_begin_script(struct apply *a, const struct task *k, struct err *e) MUST_USE;

/* Items of a publisher that wait behind one another for the same audience are done together: to visit a
 * timeline once for six of them costs little more than for one. apply_next_led() answers the next of those
 * that a task leads: it is given the task, then what it answered; NULL at the end. */
struct task *apply_next_led(struct task *k);

/* apply_slice() does a part of the task that takes some milliseconds: *done when all of it was sent (the
 * answers come later: see deliver_drain()). ERR_UNAVAILABLE, ERR_TIMEOUT: a server did not answer; it may be
 * called again unless deliver_broken(). */
int apply_slice(struct apply *a, struct task *k, bool *done, struct err *e) MUST_USE;

/* apply_abandon() forgets how far a task was, and whom it leads; all may be begun again. */
void apply_abandon(struct apply *a, struct task *k);

/* apply_user() sends what a change of a user asks for: his timeline goes; `who` comes back with the answer
 * (see deliver.h). */
int apply_user(struct apply *a, const struct change *c, uint32_t who, struct err *e) MUST_USE;

#endif
