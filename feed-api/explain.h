/* explain.h - why an item is in a reader's feed, or not: decided from what the reader follows and mutes, the
 * item, and his timeline as it is in Redis. Says the same as pages, because it asks the same functions. Pure;
 * any thread.
 */
#ifndef FEEDMILL_EXPLAIN_H
#define FEEDMILL_EXPLAIN_H

#include "common/buf.h"
#include "feed-api/content.h"
#include "feed-api/follow_set.h"
#include "feed-api/timeline.h"

#define EXPLAIN_FOLLOWS_MAX (ITEM_TOPICS_MAX + 1) /* its publisher and its topics */

struct explain {
    item_id id;
    bool in_feed, deleted;
    char follows[EXPLAIN_FOLLOWS_MAX][TARGET_TEXT_SIZE]; /* that match it, "p:daily" */
    unsigned n_follows;
    char **mutes; /* owned: those that hide it, "w:cat" */
    size_t n_mutes;
};

/* explain_decide() judges an item that is not missing. mutes: as mutes_parse() takes them. A tombstone has no
 * topics and no words any more, only its publisher. explain_done() frees and zeroes. */
void explain_decide(const struct follow_set *follows, const char *mutes, struct content_entry *item,
                    struct explain *out);
void explain_done(struct explain *x);

enum explain_state {
    EXPLAIN_READY,    /* pages are made of it */
    EXPLAIN_BUILDING, /* it is just being made */
    EXPLAIN_OUTDATED, /* it is there and does not count: the next page makes it anew */
    EXPLAIN_ABSENT,   /* the next page makes it */
    EXPLAIN_UNKNOWN,  /* Redis did not answer */
};

/* explain_state_of() says what a timeline is worth; t NULL: it could not be read. */
enum explain_state explain_state_of(const struct timeline *t, const struct timeline_question *q);

enum explain_delivery { EXPLAIN_PUSH, EXPLAIN_PULL, EXPLAIN_STORE };

/* explain_delivery_of() says how pages come to the item: pushed into the timeline by fanout, added by whoever
 * reads because it is of a target that is pulled, or read from the store because it lies at or below the
 * floor or there is no timeline. t: read for the newest id that is not later than the item. *holds: whether
 * the timeline has it. */
enum explain_delivery explain_delivery_of(const struct explain *x, const struct timeline *t,
                                          enum explain_state state, bool *holds);

struct explain_timeline {
    enum explain_state state;
    bool known; /* floor and r are */
    item_id floor;
    ts_t r;
    bool holds;
};

/* explain_write() appends the whole answer. */
void explain_write(const struct explain *x, enum explain_delivery how, const struct explain_timeline *t,
                   int64_t lag_ms, struct buf *out);

#endif
