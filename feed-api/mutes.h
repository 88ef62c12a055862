/* mutes.h - what a reader does not want to see, as a set that items are asked against. Pure; any thread reads
 * one.
 */
#ifndef FEEDMILL_MUTES_H
#define FEEDMILL_MUTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/buf.h"
#include "common/ids.h"
#include "feed-api/content.h"

struct mutes {
    char *text;              /* owned; what the pointers below point into */
    const char **publishers; /* sorted */
    const char **topics;     /* sorted */
    item_id *items;          /* sorted */
    uint64_t *words;         /* hashes */
    size_t n_publishers, n_topics, n_items, n_words;
};

#define MUTES_TEXT_MAX (100000 * (TARGET_TEXT_SIZE + 1)) /* bytes; --max-mutes goes to 100,000 */

/* mutes_parse() reads targets separated by '\n' ("p:daily\nt:sport\ni:123\nw:cat"), the form kept in Redis.
 * NULL and "" mute nothing. Lines that are no target are left out: they can't have passed validation. */
void mutes_parse(const char *text, struct mutes *out);
void mutes_done(struct mutes *m);

bool mutes_any(const struct mutes *m);

/* mutes_hide_id() and mutes_hide() say whether the item is muted; the first needs no body. */
bool mutes_hide_id(const struct mutes *m, item_id id);
bool mutes_hide(const struct mutes *m, struct content_entry *item);

/* mutes_hide_named() asks by what is known without a body: id, publisher and topics. mutes_hide_words() asks
 * for the rest. */
bool mutes_hide_words(const struct mutes *m, struct content_entry *item);
bool mutes_hide_named(const struct mutes *m, item_id id, const char *publisher, const char *const *topics,
                      size_t n_topics);

#endif
