/* target_ids.h - the newest items of one publisher or topic. Blocking. */
#ifndef FEEDMILL_TARGET_IDS_H
#define FEEDMILL_TARGET_IDS_H

#include <stddef.h>
#include "common/ids.h"
#include "common/mongo.h"
#include "common/names.h"

#define TARGET_IDS_MAX 10001

/* target_ids_newest() writes the newest n (1 to TARGET_IDS_MAX) live ids of target ("p:name"), newest first,
 * into out[n], and their count into *got: fewer than n means that there are no more. As c's session sees
 * them, c's deadline. ERR_INVALID for what is no target, ERR_UNAVAILABLE, ERR_TIMEOUT. */
int target_ids_newest(struct mongo_conn *c, const char *target, size_t n, item_id *out, size_t *got,
                      struct err *e) MUST_USE;

#endif
