/* audit_counts.h - whether the followers that a target's document tells are as many as its edges.
 *
 * feed-api counts again what changed every few seconds, and what takes long more rarely; so the two may
 * differ for a while. A difference is a finding when both numbers stay what they are for longer than that, at
 * each of a dozen looks: a target that is followed and unfollowed changes one of them. Blocking, one thread.
 */
#ifndef FEEDMILL_AUDIT_COUNTS_H
#define FEEDMILL_AUDIT_COUNTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/err.h"
#include "common/mongo.h"
#include "common/names.h"

struct audit_count {
    char target[TARGET_TEXT_SIZE];
    int64_t stored;  /* -1: no document */
    int64_t counted; /* edges in `follows` */
};

/* audit_count_read() reads both of one target as they are now, under c's deadline. */
int audit_count_read(struct mongo_conn *c, const char *target, struct audit_count *out,
                     struct err *e) MUST_USE;

/* audit_count_targets() writes the next at most max targets after `after` ("" for the first), by name, into
 * out, and their number into *n. */
int audit_count_targets(struct mongo_conn *c, const char *after, char (*out)[TARGET_TEXT_SIZE], size_t max,
                        size_t *n, struct err *e) MUST_USE;

/* audit_count_repair() counts again and stores that, unless somebody has stored another number than the wrong
 * one since; *repaired says whether the document is right now. */
int audit_count_repair(struct mongo_conn *c, const struct audit_count *wrong, bool *repaired,
                       struct err *e) MUST_USE;

struct audit_counter; /* targets that differ, until that is settled */

struct audit_counter_result {
    uint64_t checked, unjudged, found;
};

/* lag_ms: how long a count may be behind. At most max targets are waited for at a time; beyond that a target
 * that differs is unjudged. fn is called with each finding. */
typedef void (*audit_count_fn)(void *arg, const struct audit_count *found);
struct audit_counter *audit_counter_new(int64_t lag_ms, size_t max, audit_count_fn fn, void *arg);
void audit_counter_free(struct audit_counter *w); /* NULL is fine */

/* audit_counter_add() looks at a target for the first time. A target that can't be counted in time is
 * unjudged. ERR_UNAVAILABLE. */
int audit_counter_add(struct audit_counter *w, struct mongo_conn *c, const char *target,
                      struct err *e) MUST_USE;

/* audit_counter_step() looks again at what is due, each with deadline_ms. *wait_ms is when something will be
 * due again (0 to 1,000), -1 when all is settled. */
int audit_counter_step(struct audit_counter *w, struct mongo_conn *c, int64_t deadline_ms, int64_t *wait_ms,
                       struct err *e) MUST_USE;

void audit_counter_result(const struct audit_counter *w, struct audit_counter_result *out);
size_t audit_counter_open(const struct audit_counter *w); /* not settled yet */
void audit_counter_give_up(struct audit_counter *w);      /* what is open is unjudged */

#endif
