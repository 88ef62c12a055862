/* store_ids.h - the newest live ids of a set of targets, from MongoDB. Blocking: in a worker.
 *
 * MongoDB merges index scans for up to 200 values of an $in (internalQueryMaxScansToExplode); above that it
 * sorts in memory or walks all items. So a set is read in chunks of 200 and merged here, each chunk only as
 * far down as it can still matter.
 */
#ifndef FEEDMILL_STORE_IDS_H
#define FEEDMILL_STORE_IDS_H

#include <stddef.h>
#include "common/ids.h"
#include "common/mongo.h"
#include "feed-api/follow_set.h"

#define STORE_IDS_CHUNK 200
#define STORE_IDS_MAX   20000

/* store_ids() writes the newest n (1 to STORE_IDS_MAX) ids older than before, newest first, each once, into
 * out[n], and their count into *got: fewer than n means that there are no more. As c's session sees them, c's
 * deadline. */
int store_ids(struct mongo_conn *c, const struct follow_set *targets, item_id before, size_t n, item_id *out,
              size_t *got, struct err *e) MUST_USE;

/* store_ids_merge() merges two descending lists without repeats, keeps the first max; out[max] overlaps
 * neither. Answers the count. Pure. */
size_t store_ids_merge(const item_id *a, size_t na, const item_id *b, size_t nb, item_id *out, size_t max);

#endif
