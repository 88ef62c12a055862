/* content_private.h - the parts of the content cache: entries (content_entry.c), shards (content.c), fetching
 * (content_fetch.c).
 */
#ifndef FEEDMILL_CONTENT_PRIVATE_H
#define FEEDMILL_CONTENT_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>
#include "feed-api/content.h"

#define CONTENT_SHARDS 16

/* A fetch of one id under way. It belongs to whoever began it; those who join wait for its end. Once a change
 * of its item was told it is taken out of its slot, so that nobody who asks after the change is handed what
 * was read before it. */
struct flight {
    unsigned refs; /* under the shard's lock */
    bool done;
    bool failed;
    struct content_entry *entry; /* counted, once done and not failed */
};

/* What is known of one id: at most one of entry and flight, and the least revision that may be served. */
struct slot {
    item_id id;
    int32_t least;
    struct content_entry *entry;
    struct flight *flight;
    unsigned char hits;         /* how often it was found, up to the proof */
    bool proven;                /* it was found often enough */
    size_t bytes;               /* of this slot and its entry */
    struct slot *next;          /* in the bucket */
    struct slot *newer, *older; /* by use, among those that are proven or those that are not */
};

struct uses {
    struct slot *newest, *oldest;
    size_t bytes;
};

struct shard {
    pthread_mutex_t lock;
    pthread_cond_t landed; /* a flight of this shard is done */
    struct slot **buckets;
    size_t n_buckets, n_slots, bytes;
    struct uses uses[2]; /* by `proven` */
};

struct content {
    struct shard shards[CONTENT_SHARDS];
    size_t shard_bytes, proven_bytes; /* a shard's, and at most so many of those for what is proven */
    struct metrics *metrics;
    _Atomic uint64_t seen; /* content_seen() */
    _Atomic long entries, bytes;
};

/* Entries. A new one has one reference. */
struct content_entry *content_entry_new(const struct item *it);
struct content_entry *content_entry_missing(item_id id);
struct content_entry *content_entry_ref(struct content_entry *entry);
size_t content_entry_bytes(const struct content_entry *entry);

/* All with the shard's lock held. */
struct shard *content_shard(struct content *c, item_id id);
struct slot *content_slot(struct shard *s, item_id id); /* NULL: none */
struct slot *content_slot_make(struct content *c, struct shard *s,
                               item_id id); /* finds or makes; it becomes the newest of its kind */
void content_slot_hit(struct content *c, struct shard *s, struct slot *slot); /* its entry is asked for */
void content_slot_keep(struct content *c, struct shard *s, struct slot *slot,
                       struct content_entry *entry);   /* takes a reference; NULL empties */
void content_trim(struct content *c, struct shard *s); /* may free any slot that has no flight */
void content_flight_unref(struct flight *f);

/* content_recount() counts the bytes of an entry anew, if the cache has it. Takes the lock. */
void content_recount(struct content *c, const struct content_entry *entry);

#endif
