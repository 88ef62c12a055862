/* audience.h - what fanout reads from MongoDB to apply a change: the item as it is now, who follows a target,
 * who of them follows something else.
 *
 * Followers come in batches of (bucket, user), ascending, from the covered index {t, b, u}, each batch going
 * on after the last one of the one before (keyset): a million followers never lie in memory at once. All
 * reads are majority reads on the caller's conn, which has been told by mongo_conn_after() what they have to
 * see. Engine thread only.
 */
#ifndef FEEDMILL_FANOUT_AUDIENCE_H
#define FEEDMILL_FANOUT_AUDIENCE_H

#include "common/mongo.h"
#include "fanout/buckets.h"
#include "fanout/plan.h"

struct audience_batch {
    unsigned n, cap;
    unsigned skipped; /* documents that do not read as they should: counted and left out */
    struct follower {
        unsigned bucket;
        char user[NAME_MAX_BYTES + 1];
    } * at;
};

void audience_batch_init(struct audience_batch *b, unsigned cap); /* cap: followers, from 1 */
void audience_batch_done(struct audience_batch *b);

/* Where the reading of one target's followers in one range of buckets stands. */
struct audience {
    const char *target; /* borrowed: "p:daily" */
    struct bucket_range range;
    bool begun, ended;
    struct follower last;
};

void audience_begin(struct audience *a, const char *target, struct bucket_range range);

/* audience_next() fills *b with the next followers: 1, or 0 when there are no more. ERR_UNAVAILABLE,
 * ERR_TIMEOUT: it may be called again. */
int audience_next(struct audience *a, struct mongo_conn *c, struct audience_batch *b, struct err *e) MUST_USE;

/* audience_few() reads everybody in the range who follows any of the n targets (1 to 1 + CHANGE_TOPICS_MAX)
 * into *b at once, in the order of (bucket, user), each one once: one trip where walking would take one a
 * target. *all is false when *b has no room for all of them: then it holds nothing of use, and the targets
 * have to be walked. */
int audience_few(struct mongo_conn *c, const char (*targets)[TARGET_TEXT_SIZE], unsigned n,
                 struct bucket_range range, struct audience_batch *b, bool *all, struct err *e) MUST_USE;

/* audience_keep_unmatched() takes everybody out of *b who follows one of the n targets (at most 1 +
 * CHANGE_TOPICS_MAX). The order of *b is kept. */
int audience_keep_unmatched(struct mongo_conn *c, struct audience_batch *b,
                            const char (*targets)[TARGET_TEXT_SIZE], unsigned n, struct err *e) MUST_USE;

/* audience_follows() tells whom each of the n users (1 to AUDIENCE_FOLLOWS_USERS, distinct) follows: fn(arg,
 * place of the user, "p:daily"), in no order. */
#define AUDIENCE_FOLLOWS_USERS 20
int audience_follows(struct mongo_conn *c, const char *const *users, unsigned n,
                     void (*fn)(void *arg, unsigned i, const char *target), void *arg,
                     struct err *e) MUST_USE;

/* audience_item() reads an item. ERR_CORRUPT when the document is not what feed-api writes. */
int audience_item(struct mongo_conn *c, item_id id, struct item_now *out, struct err *e) MUST_USE;

#endif
