/* plan.h - what a change of an item asks for: whose timelines get it and whose lose it. Pure: no I/O, no
 * clock, any thread.
 *
 * A change names only the item: its present revision is what is applied, so that a change read late, or
 * again, leads to the same timelines. The former topics are the change's own (topics_before), also when the
 * present ones differ again.
 */
#ifndef FEEDMILL_FANOUT_PLAN_H
#define FEEDMILL_FANOUT_PLAN_H

#include "common/changes.h"

enum plan_what {
    PLAN_ITEM, /* an item, to the followers of `add`, and away from those of `remove` */
    PLAN_PULL, /* the target add[0] turned to pull */
    PLAN_PUSH, /* ... and back */
};

/* An item as it is now. */
struct item_now {
    bool live; /* false: deleted, or never there */
    char publisher[NAME_MAX_BYTES + 1];
    unsigned n_topics;
    char topics[CHANGE_TOPICS_MAX][NAME_MAX_BYTES + 1];
};

struct plan {
    enum plan_what what;
    ts_t t;
    item_id id;     /* PLAN_ITEM */
    unsigned n_add; /* followers of these get the item; the publisher is the first */
    char add[1 + CHANGE_TOPICS_MAX][TARGET_TEXT_SIZE];
    bool pulled[1 + CHANGE_TOPICS_MAX]; /* those of `add` whose followers are not delivered to */
    unsigned n_remove;                  /* followers of these who follow none of `add` lose it */
    char remove[CHANGE_TOPICS_MAX][TARGET_TEXT_SIZE];
};

/* plan_reads_item() says whether the change asks for anything: a new item or one with other topics. Other
 * edits leave ids where they are, and what is deleted is refused when it is hydrated. */
bool plan_reads_item(const struct change *c);

/* plan_item() fills *out from the change and the item as it is now; nothing to add and to remove for one that
 * is not live. */
void plan_item(const struct change *c, const struct item_now *now, struct plan *out);

/* plan_turn() fills *out from a change that sets a target's mode; false when it sets none. */
bool plan_turn(const struct change *c, struct plan *out);

#endif
