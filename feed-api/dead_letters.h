/* dead_letters.h - what fanout could not apply (fanout/dead_letters.h has the document): listing, showing,
 * replaying. In a worker; reads see what c has seen.
 */
#ifndef FEEDMILL_DEAD_LETTERS_H
#define FEEDMILL_DEAD_LETTERS_H

#include <stddef.h>
#include "common/buf.h"
#include "common/ids.h"
#include "common/mongo.h"
#include "common/names.h"

#define DEAD_LETTER_ID_SIZE 257 /* those of fanout have at most 100 bytes */

/* dead_letters_list() appends up to limit letters, the newest first, as JSON objects by commas; those behind
 * (after_ms, after_id) when after_id is not NULL. *more: there are further ones, behind (*last_ms, last_id).
 */
int dead_letters_list(struct mongo_conn *c, unsigned limit, int64_t after_ms, const char *after_id,
                      struct buf *out, bool *more, int64_t *last_ms, char last_id[DEAD_LETTER_ID_SIZE],
                      struct err *e) MUST_USE;

/* dead_letters_get() appends one; ERR_NOT_FOUND. */
int dead_letters_get(struct mongo_conn *c, const char *id, struct buf *out, struct err *e) MUST_USE;

struct dead_letter_replay {
    ts_t position;                 /* of the change that was made */
    char user[NAME_MAX_BYTES + 1]; /* whose timeline it drops; "" for an item */
};

/* dead_letters_replay() has fanout apply the present state again, and says so in the letter: one transaction.
 * What does not exist any more is applied by that. ERR_NOT_FOUND: no such letter. */
int dead_letters_replay(struct mongo_conn *c, const char *id, struct dead_letter_replay *out,
                        struct err *e) MUST_USE;

/* dead_letters_of_item() says whether there is one that is not replayed. */
int dead_letters_of_item(struct mongo_conn *c, item_id item, bool *open, struct err *e) MUST_USE;

#endif
