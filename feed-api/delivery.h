/* delivery.h - the receipt of an item: whether all timelines that it belongs to have it, since when, how many
 * readers that concerns.
 *
 * Nothing is stored for it with the item. fanout's progress says up to which time everything is applied; the
 * item as it was at that very time is read from MongoDB (a snapshot): if its last change is in that, it is
 * delivered, exactly, whatever the clocks say. Only where that can't be asked (Redis is away, or progress is
 * older than what MongoDB keeps, five minutes) wall clocks decide, with DELIVERY_SKEW_MS to spare: then a
 * delivered item may still be told as pending, never the other way round.
 *
 * In a worker. */
#ifndef FEEDMILL_DELIVERY_H
#define FEEDMILL_DELIVERY_H

#include "common/ids.h"
#include "common/mongo.h"
#include "common/names.h"
#include "common/redis.h"
#include "feed-api/item.h"

#define DELIVERY_SKEW_MS      60000  /* by how much the clocks of the machines may differ */
#define DELIVERY_AUDIENCE_MAX 100000 /* follows that are looked at, to count each reader once */

/* What a receipt has to know of an item; unlike item_from_bson() it reads damaged ones. */
struct delivery_item {
    item_id id;
    bool live;
    char publisher[NAME_MAX_BYTES + 1]; /* "" where it does not read as a name */
    int64_t revision, touches;          /* how often it was changed, and replayed */
    int64_t changed_ms;                 /* wall clock of the last of these */
    unsigned n_targets;
    char targets[1 + ITEM_TOPICS_MAX][TARGET_TEXT_SIZE];
};

enum delivery_state { DELIVERY_PENDING, DELIVERY_DELIVERED, DELIVERY_DEAD };

struct delivery {
    enum delivery_state state;
    int64_t delivered_ms; /* wall clock, to about half a second; 0: not known */
    int64_t audience; /* beyond DELIVERY_AUDIENCE_MAX: the followers of the most followed of its targets */
};

/* delivery_item() reads the item as of what c has seen; ERR_NOT_FOUND. */
int delivery_item(struct mongo_conn *c, item_id id, struct delivery_item *out, struct err *e) MUST_USE;

/* delivery_find() fills *out. ERR_UNAVAILABLE, ERR_TIMEOUT: MongoDB's; without Redis it goes on. */
int delivery_find(struct mongo_conn *c, struct redis *r, const struct delivery_item *it, struct delivery *out,
                  struct err *e) MUST_USE;

const char *delivery_state_name(enum delivery_state s);

/* ---- the history of progress (fanout/receipts.h) ---- */

#define DELIVERY_SHARES 16

/* What documents of `receipts`, the earliest first, say about when each share had passed a heartbeat of
 * wanted_ms or later. Pure. */
struct delivery_history {
    int64_t wanted_ms;
    uint32_t passed; /* mask of shares */
    int64_t last_ms; /* when the last of them had */
};

/* delivery_history_add() takes a document; answers true when all shares have passed. */
bool delivery_history_add(struct delivery_history *h, const bson_t *d);

#endif
