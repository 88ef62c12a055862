/* item_info.h - publisher and topics of items, from MongoDB, remembered for a minute.
 *
 * Owned by the app; shared by the sessions' workers and the learner. The publisher of an item never changes,
 * its topics seldom: a minute's old topics only move a score a little. Bounded by a count of items. Any
 * thread.
 */
#ifndef FEEDMILL_RANKER_ITEM_INFO_H
#define FEEDMILL_RANKER_ITEM_INFO_H

#include <stddef.h>
#include "common/ids.h"
#include "common/metrics.h"
#include "common/mongo.h"
#include "common/names.h"

#define ITEM_INFO_TOPICS_MAX 16

struct item_info {
    item_id id;
    unsigned n_targets;                /* 0: there is no such item, or it was deleted */
    char (*targets)[TARGET_TEXT_SIZE]; /* "p:publisher", then "t:topic"s; owned: item_info_done() */
};

struct item_infos;
struct item_infos *item_infos_new(size_t max_items, struct metrics *m);
void item_infos_free(struct item_infos *s);

/* item_infos_get() fills out[n] for n ids (1 to 10,000): what is remembered, the rest by one query. All of
 * out needs item_info_done(), also after a failure. */
int item_infos_get(struct item_infos *s, struct mongo_conn *c, const item_id *ids, size_t n,
                   struct item_info *out, struct err *e) MUST_USE;
void item_info_done(struct item_info *info);

#endif
