/* counts.h - how many follow a target and how many items it has, kept in its document in `targets`.
 *
 * Counts are never incremented, which would drift with every lost answer: they are counted again from the
 * indexes. A write marks its targets by counts_touch(); one thread counts what was marked every few seconds,
 * and compares all targets with the truth now and then (one process of all, by a lease in `settings`). A
 * target whose count takes long is counted more rarely, and what was known of it stays meanwhile. After each
 * round it is decided which targets are pulled (turns.h). Owned by the app.
 */
#ifndef FEEDMILL_COUNTS_H
#define FEEDMILL_COUNTS_H

#include <stdbool.h>
#include <stdint.h>
#include "common/err.h"
#include "common/metrics.h"
#include "common/mongo.h"
#include "common/names.h"
#include "feed-api/turns.h"

struct counts;

struct counts_options {
    struct mongo *mongo;     /* borrowed; one client is taken for each round */
    struct metrics *metrics; /* may be NULL */
    int64_t interval_ms;     /* between rounds, 10 to 3,600,000 */
    int64_t sweep_ms;        /* between sweeps, 1,000 to 86,400,000 */
    struct turns_options turns;
};

/* counts_start() starts the thread; the first sweep is made at once, unless another process made one lately.
 */
int counts_start(struct counts **out, const struct counts_options *o, struct err *e) MUST_USE;
void counts_stop(
    struct counts *c); /* joins; what is marked and not counted yet is left to the next sweep; NULL is fine */

/* counts_touch() marks a publisher or topic as changed. Any thread, never blocks for long; c NULL does
 * nothing. */
void counts_touch(struct counts *c, enum target_kind kind, const char *name);

/* counts_wake() begins a round now. For tests. */
void counts_wake(struct counts *c);

/* counts_recount() counts one target ("p:name") as of what conn has seen, and writes its document if that
 * changes it; *changed (may be NULL) says so. ERR_UNAVAILABLE, ERR_TIMEOUT (what was stored stays). Blocking.
 */
int counts_recount(struct mongo_conn *conn, const char *target, bool *changed, struct err *e) MUST_USE;

/* counts_sweep() recounts every target that has a document, a follower or an item; *fixed (may be NULL) is
 * the number of those that were wrong. Blocking, takes about a millisecond a target. between (may be NULL) is
 * called after every hundred and ends the sweep by answering false. */
int counts_sweep(struct mongo_conn *conn, bool (*between)(void *arg), void *arg, uint64_t *fixed,
                 struct err *e) MUST_USE;

#endif
