/* content.h - items, already serialised, by id: the content cache.
 *
 * Any thread; entries are immutable and counted. Bounded by bytes: what was not found there twice goes first,
 * then what was asked for longest ago, so that a scan does not drive out what many read. An entry is
 * never older than what the tail or a local write said of its item: content_changed() raises the least
 * revision of an id, which also reaches fetches under way: their older bodies are handed to those who asked
 * before the change only, and are not kept.
 */
#ifndef FEEDMILL_CONTENT_H
#define FEEDMILL_CONTENT_H

#include <stdbool.h>
#include <stddef.h>
#include "common/gzip_page.h"
#include "common/ids.h"
#include "common/metrics.h"
#include "common/mongo.h"
#include "common/text.h"
#include "feed-api/item.h"

struct content;

struct content_entry {
    item_id id;
    int32_t revision;
    bool missing; /* there is no such item (never kept) */
    bool deleted; /* a tombstone */
    const char *publisher;
    uint64_t publisher_hash; /* publishers_hash() */
    unsigned n_topics;
    const char *const *topics;
    const char *full; /* {"id":...} as api.md's item, all fields */
    size_t full_len;
    const char *summary; /* without body and extra */
    size_t summary_len;
    /* private */
    unsigned refs;
    struct word_set *words;     /* made at first need: content_words() */
    struct gzip_block *gzip[2]; /* of full and of summary; the same: content_gzip() */
};

int content_new(struct content **out, size_t max_bytes, struct metrics *m, struct err *e) MUST_USE;
void content_free(struct content *c);

/* content_find() answers a counted entry, or NULL when it has to be fetched. Does not block. */
struct content_entry *content_find(struct content *c, item_id id);
void content_unref(struct content_entry *entry);

/* content_fetch() answers n counted entries in out for n ids (1 to 500): those in the cache and, in one
 * query, the rest, asked for once however many ask at the same time. Missing items get an entry with missing
 * = true. bypass: don't trust the cache (the tail is not alive, or a position lies beyond it): all are read
 * afresh on conn, which the caller has made causally late enough (mongo_conn_after or mongo_conn_fresh). In a
 * worker. */
int content_fetch(struct content *c, struct mongo_conn *conn, const item_id *ids, size_t n, bool bypass,
                  struct content_entry **out, struct err *e) MUST_USE;

/* content_changed(): revision is now the least that may be served of id; 0: unknown, drop it. */
void content_changed(struct content *c, item_id id, int32_t revision);
void content_drop_all(struct content *c);

/* content_seen() says that everything up to t has been told by content_changed(): later fetches read at or
 * after t, so that no read can bring back an older body, whatever was forgotten meanwhile. t is a time that
 * MongoDB gave out. To be called before content_changed(). For the tail (each change, and its start before it
 * drops everything) and for writers, before they answer. */
void content_seen(struct content *c, ts_t t);

/* content_put() keeps an item that was just written, after content_changed(). */
void content_put(struct content *c, const struct item *it);

/* content_gzip() answers the deflated form of an entry, full or summary; it lives as long as the entry. It is
 * made at first need, which takes some 20 us a KiB, and counted in the bytes of the cache; NULL when it has
 * not been made and is not to be. Any thread. */
const struct gzip_block *content_gzip(struct content *c, struct content_entry *entry, bool summary,
                                      bool make);

/* content_words() answers the case-folded words of title and body, for word mutes. Any thread. */
const struct word_set *content_words(struct content_entry *entry);

#endif
