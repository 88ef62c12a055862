/* deliver.h - from (timeline, what to do) to script calls on Redis: groups by bucket, a pipeline, and the
 * check of each answer.
 *
 * Every group carries its bucket's epoch and n and is refused by the record on a mismatch (see
 * common/scripts.h). A refused group's share is noted (deliver_refused) and nothing more is sent for it; the
 * other shares go on. A failed call (the connection, an error reply) makes the whole state unknown
 * (deliver_broken): the engine then adopts all shares again. At most `window` calls are unanswered. Engine
 * thread only.
 */
#ifndef FEEDMILL_FANOUT_DELIVER_H
#define FEEDMILL_FANOUT_DELIVER_H

#include "common/ids.h"
#include "common/names.h"
#include "common/redis.h"
#include "fanout/buckets.h"
#include "fanout/metrics.h"
#include "fanout/readers.h"

#define DELIVER_GROUPS                                                                                       \
    16 /* buckets in one call; more gain nothing (facts: 329-349 thousand a second at sixteen) */

/* What a small delivery may find before it: no call is sent while more than so much is unanswered, in visits
 * of a timeline with one item, each some 4 us of Redis. Enough to keep Redis at work. */
#define DELIVER_IN_FLIGHT   120
#define DELIVER_CALL        60
#define DELIVER_PUSH_WEIGHT 20             /* of a visit that merges a whole target */
unsigned deliver_items_weight(unsigned n); /* of a visit with n items */

struct deliver;

/* What Redis refused for a reason of its own, other than not being available. */
struct deliver_failure {
    enum script script;
    ts_t t; /* of the change; 0: nothing failed */
    item_id item;
    unsigned bucket;
    char user[NAME_MAX_BYTES + 1]; /* "": not known which of the call's */
    char why[200];
};

struct deliver_options {
    struct redis *redis;     /* borrowed */
    struct buckets *buckets; /* borrowed; n and applied are kept up to date here */
    struct metrics *metrics; /* borrowed; NULL: not counted */
    int64_t timeline_cap;    /* --timeline-entries */
    unsigned batch_keys;     /* timelines in one call, from 1 */
    unsigned window;         /* calls unanswered at most, from 1 */

    /* What answers tell; called while answers are read, in the order in which Redis worked. gone: a reader
     * named to deliver_add() has no timeline. dropped: the same for SCRIPT_DROP, where `who` is any number of
     * the caller's but READER_NONE: the timeline is gone, or stays since it was built later (of a call with
     * several in a bucket: one of them). born: a timeline was begun that the bucket's births did not count
     * yet, at R = r. births_lost: there were some that can't be told. May be NULL as long as no bucket's
     * births are watched. */
    void (*gone)(void *arg, reader_idx who);
    void (*dropped)(void *arg, uint32_t who, bool stays);
    void (*born)(void *arg, unsigned bucket, ts_t r, const char *user);
    void (*births_lost)(void *arg, unsigned bucket);

    /* A timeline was left out, because a key of it has another type; all else of its call was applied. */
    void (*left_out)(void *arg, const struct deliver_failure *f);
    void *arg;
};

/* deliver_timeline_high() answers how many members a timeline holds at most before a delivery trims it to
 * `cap`: trimming in steps is cheaper than each time, and the sum stays below Redis' listpack limit of 128
 * for the default of 120. */
int64_t deliver_timeline_high(int64_t cap);

struct deliver *deliver_new(const struct deliver_options *o);
void deliver_free(struct deliver *d);

/* deliver_begin() says what the next timelines are for: s is SCRIPT_DELIVER, SCRIPT_REMOVE (id is used) or
 * SCRIPT_DROP; t the change's time. */
void deliver_begin(struct deliver *d, enum script s, ts_t t, item_id id);

/* deliver_begin_items() is for n items (1 to deliver_items_max()) that go to the same timelines, in the order
 * of their times. */
struct deliver_item {
    ts_t t;
    item_id id;
};
#define DELIVER_ITEMS_MAX 24
void deliver_begin_items(struct deliver *d, const struct deliver_item *at, unsigned n);
unsigned deliver_items_max(int64_t cap);

/* deliver_begin_pull() and deliver_begin_push() say that the next timelines are those of a target that turned
 * at t (SCRIPT_PULL, SCRIPT_PUSH). ids: its newest n (at most timeline_cap), copied; floor: the next older
 * one, 0 for none. */
void deliver_begin_pull(struct deliver *d, ts_t t, const char *target);
void deliver_begin_push(struct deliver *d, ts_t t, const char *target, const item_id *ids, size_t n,
                        item_id floor);

/* deliver_add() names a timeline, and whose it is if that is a known reader (READER_NONE); ignored unless its
 * bucket is owned, not refused, and t is later than what it has applied. Calls that are full are sent. */
int deliver_add(struct deliver *d, unsigned bucket, const char *user, reader_idx who, struct err *e) MUST_USE;

/* deliver_end() sends what is left; deliver_drain() reads all answers. */
int deliver_end(struct deliver *d, struct err *e) MUST_USE;
int deliver_drain(struct deliver *d, struct err *e) MUST_USE;

/* deliver_progress() sends t as the progress of all owned buckets, and `seen` (the latest time of which
 * anything was begun) to their records, after everything sent before, and drains. A bucket with births that
 * were not known takes no progress: its `applied` tells. held (may be NULL) has a time for each bucket whose
 * progress has to stay below it, 0 for the others. */
int deliver_progress(struct deliver *d, ts_t seen, ts_t t, const ts_t *held, struct err *e) MUST_USE;

/* deliver_refused() answers the mask of shares for which nothing is sent: a group of theirs was refused, or
 * the engine said so by deliver_refuse() (the lease is gone). deliver_allow() forgets that. */
uint32_t deliver_refused(const struct deliver *d);
void deliver_refuse(struct deliver *d, uint32_t shares);
void deliver_allow(struct deliver *d, uint32_t shares);

/* deliver_broken() says whether a call failed, so that nobody knows what was applied; every call here fails
 * from then on until deliver_mend(), after which all shares have to be adopted again under new epochs (what
 * was sent may still arrive). */
bool deliver_broken(const struct deliver *d);
void deliver_break(struct deliver *d); /* the caller met a failure of the connection */
void deliver_mend(struct deliver *d);

/* deliver_failed() answers, as flags, the buckets of a call that got an error reply of its own, and what it
 * was about; cleared by deliver_mend(). */
const bool *deliver_failed(const struct deliver *d, struct deliver_failure *out);

#endif
