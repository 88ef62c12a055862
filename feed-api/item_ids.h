/* item_ids.h - which id a new item gets: published_at's millisecond and bits that are free there.
 *
 * The unique _id decides whether an id was free. This only chooses well: within a millisecond it walks
 * through all 2,048 ids in a random order without repeating one, and remembers of crowded milliseconds into
 * which following one they have spilled, so that 100,000 items of one date (an import) cost no more probing
 * than others. Bounded memory; what is forgotten costs a few tries. Any thread.
 */
#ifndef FEEDMILL_ITEM_IDS_H
#define FEEDMILL_ITEM_IDS_H

#include <stdbool.h>
#include <stdint.h>
#include "common/ids.h"

#define ITEM_IDS_TRIES 8 /* taken ids in a row, after which the next millisecond's turn has come */

struct item_ids;

struct item_ids *item_ids_new(void); /* about 200 KB */
void item_ids_free(struct item_ids *g);

/* item_ids_next() answers an id to try for an item published at ms (0 to 2^42-1). */
item_id item_ids_next(struct item_ids *g, int64_t published_ms);

/* item_ids_result() tells whether it was free. */
void item_ids_result(struct item_ids *g, int64_t published_ms, item_id id, bool was_free);

/* item_ids_unused() gives an id back that was not needed after all, so that repeating an import does not use
 * up milliseconds. */
void item_ids_unused(struct item_ids *g, int64_t published_ms, item_id id);

#endif
