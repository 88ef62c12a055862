/* changes_internal.h - what changes.c and changes_decode.c share. Nobody else includes it. */
#ifndef FEEDMILL_CHANGES_INTERNAL_H
#define FEEDMILL_CHANGES_INTERNAL_H

#include "common/changes.h"

/* changes_pipeline() answers the stages after $changeStream as a BSON array; the caller destroys it. kinds
 * and tell_items as in struct changes_options. */
bson_t *changes_pipeline(unsigned kinds, bool tell_items);

enum decoded {
    DECODED,
    DECODED_SLICED, /* topics_before came as single elements: it has to be read from the item */
    DECODED_LOST,   /* the truth itself was dropped */
};

/* changes_decode() fills *out from an event that passed the pipeline. What does not read as it should becomes
 * CHANGE_OTHER: a foreign hand in the database must not stop the log. tell_items as for the pipeline. Of the
 * large arrays only what is told is written. */
enum decoded changes_decode(const bson_t *event, bool tell_items, struct change *out);

/* changes_read_topics_before() fills the topics of a sliced change from the item, read at or after its time.
 */
int changes_read_topics_before(struct mongo_conn *c, struct change *out, struct err *e) MUST_USE;

#endif
