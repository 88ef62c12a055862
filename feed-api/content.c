#include "feed-api/content_private.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/mem.h"
#include "feed-api/metrics.h"

#define FIRST_BUCKETS 256
#define PROVEN_PARTS  5 /* one part of so many is for what has not proven itself */

/* Found so often an item is proven. Once is not enough: who pages through a feed asks twice for what a page
 * looked at beyond its end. */
#define PROOF 2

/* ---- shards ---- */

static size_t hash(item_id id)
{
    return (size_t)(id * UINT64_C(0x9e3779b97f4a7c15) >> 20);
}

struct shard *content_shard(struct content *c, item_id id)
{
    return &c->shards[hash(id) % CONTENT_SHARDS];
}

static struct slot **bucket_of(struct shard *s, item_id id)
{
    return &s->buckets[hash(id) / CONTENT_SHARDS % s->n_buckets];
}

static void shard_init(struct shard *s)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->landed, &attr);
    pthread_condattr_destroy(&attr);
    s->n_buckets = FIRST_BUCKETS;
    s->buckets = mem_zero(s->n_buckets, sizeof(struct slot *));
}

static void shard_grow(struct shard *s)
{
    struct slot **old = s->buckets;
    size_t n = s->n_buckets;
    s->n_buckets = n * 2;
    s->buckets = mem_zero(s->n_buckets, sizeof(struct slot *));
    for (size_t i = 0; i < n; i++) {
        for (struct slot *slot = old[i], *next; slot != NULL; slot = next) {
            next = slot->next;
            struct slot **to = bucket_of(s, slot->id);
            slot->next = *to;
            *to = slot;
        }
    }
    free(old);
}

static void unlink_use(struct shard *s, struct slot *slot)
{
    struct uses *u = &s->uses[slot->proven];
    *(slot->newer != NULL ? &slot->newer->older : &u->newest) = slot->older;
    *(slot->older != NULL ? &slot->older->newer : &u->oldest) = slot->newer;
    u->bytes -= slot->bytes;
}

static void link_newest(struct shard *s, struct slot *slot)
{
    struct uses *u = &s->uses[slot->proven];
    slot->newer = NULL;
    slot->older = u->newest;
    *(u->newest != NULL ? &u->newest->newer : &u->oldest) = slot;
    u->newest = slot;
    u->bytes += slot->bytes;
}

static void account(struct content *c, struct shard *s, struct slot *slot, size_t bytes)
{
    size_t more = bytes - slot->bytes; /* wraps, and so do the sums */
    slot->bytes = bytes;
    s->bytes += more;
    s->uses[slot->proven].bytes += more;
    metrics_set(c->metrics, M_CONTENT_BYTES, 0, atomic_fetch_add(&c->bytes, (long)more) + (long)more);
}

static size_t slot_bytes(const struct slot *slot)
{
    return sizeof *slot + sizeof(struct slot *) +
           (slot->entry != NULL ? content_entry_bytes(slot->entry) : 0);
}

static void account_entry(struct content *c, long n)
{
    metrics_set(c->metrics, M_CONTENT_ENTRIES, 0, atomic_fetch_add(&c->entries, n) + n);
}

struct slot *content_slot(struct shard *s, item_id id)
{
    for (struct slot *slot = *bucket_of(s, id); slot != NULL; slot = slot->next)
        if (slot->id == id)
            return slot;
    return NULL;
}

static void use(struct shard *s, struct slot *slot)
{
    if (s->uses[slot->proven].newest == slot)
        return;
    unlink_use(s, slot);
    link_newest(s, slot);
}

/* Those proven longest ago become candidates again. */
static void limit_proven(struct content *c, struct shard *s)
{
    struct uses *u = &s->uses[true];
    while (u->bytes > c->proven_bytes && u->oldest != NULL) {
        struct slot *slot = u->oldest;
        unlink_use(s, slot);
        slot->proven = false;
        slot->hits = PROOF - 1;
        link_newest(s, slot);
    }
}

void content_slot_hit(struct content *c, struct shard *s, struct slot *slot)
{
    if (slot->proven || ++slot->hits < PROOF) {
        use(s, slot);
        return;
    }
    unlink_use(s, slot);
    slot->proven = true;
    link_newest(s, slot);
    limit_proven(c, s);
}

struct slot *content_slot_make(struct content *c, struct shard *s, item_id id)
{
    struct slot *slot = content_slot(s, id);
    if (slot != NULL) {
        use(s, slot);
        return slot;
    }
    if (s->n_slots >= s->n_buckets)
        shard_grow(s);
    slot = mem_zero(1, sizeof *slot);
    slot->id = id;
    struct slot **to = bucket_of(s, id);
    slot->next = *to;
    *to = slot;
    s->n_slots++;
    link_newest(s, slot);
    account(c, s, slot, slot_bytes(slot));
    return slot;
}

void content_slot_keep(struct content *c, struct shard *s, struct slot *slot, struct content_entry *entry)
{
    long n = (entry != NULL) - (slot->entry != NULL);
    content_unref(slot->entry);
    slot->entry = entry != NULL ? content_entry_ref(entry) : NULL;
    account(c, s, slot, slot_bytes(slot));
    if (n != 0)
        account_entry(c, n);
}

void content_flight_unref(struct flight *f)
{
    if (f == NULL || --f->refs > 0)
        return;
    content_unref(f->entry);
    free(f);
}

static void slot_free(struct content *c, struct shard *s, struct slot *slot)
{
    struct slot **at = bucket_of(s, slot->id);
    while (*at != slot)
        at = &(*at)->next;
    *at = slot->next;
    content_slot_keep(c, s, slot, NULL);
    account(c, s, slot, 0);
    unlink_use(s, slot);
    content_flight_unref(slot->flight);
    s->n_slots--;
    free(slot);
}

/* Slots of fetches under way stay: there are at most as many as the workers have asked for. */
static void trim_uses(struct content *c, struct shard *s, struct uses *u)
{
    for (struct slot *slot = u->oldest, *newer; slot != NULL && s->bytes > c->shard_bytes; slot = newer) {
        newer = slot->newer;
        if (slot->flight != NULL)
            continue;
        if (slot->entry != NULL)
            metrics_add(c->metrics, M_CONTENT_EVICTED, 0, 1);
        slot_free(c, s, slot);
    }
}

/* Segmented LRU (Karedla et al., 1994): what nobody asked for a second time goes first. Whoever reads
 * everything once passes through a part of the cache, and what many ask for stays. */
void content_trim(struct content *c, struct shard *s)
{
    limit_proven(c, s);
    trim_uses(c, s, &s->uses[false]);
    trim_uses(c, s, &s->uses[true]);
}

static void drop_shard(struct content *c, struct shard *s)
{
    for (int i = 0; i < 2; i++) {
        while (s->uses[i].oldest != NULL)
            slot_free(c, s, s->uses[i].oldest);
    }
}

/* ---- the cache ---- */

int content_new(struct content **out, size_t max_bytes, struct metrics *m, struct err *e)
{
    if (max_bytes < CONTENT_SHARDS * 1024)
        return err_set(e, ERR_INVALID, "a content cache needs at least %d bytes", CONTENT_SHARDS * 1024);
    struct content *c = mem_zero(1, sizeof *c);
    c->shard_bytes = max_bytes / CONTENT_SHARDS;
    c->proven_bytes = c->shard_bytes / PROVEN_PARTS * (PROVEN_PARTS - 1);
    c->metrics = m;
    for (int i = 0; i < CONTENT_SHARDS; i++)
        shard_init(&c->shards[i]);
    *out = c;
    return 0;
}

void content_free(struct content *c)
{
    if (c == NULL)
        return;
    for (int i = 0; i < CONTENT_SHARDS; i++) {
        struct shard *s = &c->shards[i];
        drop_shard(c, s);
        free(s->buckets);
        pthread_cond_destroy(&s->landed);
        pthread_mutex_destroy(&s->lock);
    }
    free(c);
}

struct content_entry *content_find(struct content *c, item_id id)
{
    struct shard *s = content_shard(c, id);
    struct content_entry *entry = NULL;
    pthread_mutex_lock(&s->lock);
    struct slot *slot = content_slot(s, id);
    if (slot != NULL && slot->entry != NULL) {
        content_slot_hit(c, s, slot);
        entry = content_entry_ref(slot->entry);
    }
    pthread_mutex_unlock(&s->lock);
    if (entry != NULL) /* a miss is counted when it is fetched */
        metrics_add(c->metrics, M_CONTENT, MC_HIT, 1);
    return entry;
}

void content_recount(struct content *c, const struct content_entry *entry)
{
    struct shard *s = content_shard(c, entry->id);
    pthread_mutex_lock(&s->lock);
    struct slot *slot = content_slot(s, entry->id);
    if (slot != NULL && slot->entry == entry) {
        account(c, s, slot, slot_bytes(slot));
        content_trim(c, s);
    }
    pthread_mutex_unlock(&s->lock);
}

/* A slot is made even for an id that nobody has asked for: a fetch that begins now may still read the older
 * body. Of a first revision there is no older one. */
void content_changed(struct content *c, item_id id, int32_t revision)
{
    struct shard *s = content_shard(c, id);
    pthread_mutex_lock(&s->lock);
    struct slot *slot = revision == 1 ? content_slot(s, id) : content_slot_make(c, s, id);
    if (slot != NULL) {
        if (revision > slot->least)
            slot->least = revision;
        if (slot->entry != NULL && (revision == 0 || slot->entry->revision < slot->least))
            content_slot_keep(c, s, slot, NULL);
        content_flight_unref(slot->flight);
        slot->flight = NULL;
        content_trim(c, s);
    }
    pthread_mutex_unlock(&s->lock);
}

void content_put(struct content *c, const struct item *it)
{
    struct content_entry *entry = content_entry_new(it);
    struct shard *s = content_shard(c, it->id);
    pthread_mutex_lock(&s->lock);
    struct slot *slot = content_slot_make(c, s, it->id);
    if (it->revision >= slot->least && (slot->entry == NULL || slot->entry->revision < it->revision)) {
        slot->least = it->revision;
        content_slot_keep(c, s, slot, entry);
    }
    content_trim(c, s);
    pthread_mutex_unlock(&s->lock);
    content_unref(entry);
}

void content_drop_all(struct content *c)
{
    for (int i = 0; i < CONTENT_SHARDS; i++) {
        struct shard *s = &c->shards[i];
        pthread_mutex_lock(&s->lock);
        drop_shard(c, s);
        pthread_mutex_unlock(&s->lock);
    }
}

void content_seen(struct content *c, ts_t t)
{
    uint64_t now = atomic_load(&c->seen);
    while (t > now && !atomic_compare_exchange_weak(&c->seen, &now, t))
        ;
}
