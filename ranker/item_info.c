/* A direct-mapped table: an item has one slot and takes it from whoever is there. That bounds the memory,
 * needs no order of use, and costs a few misses more than an LRU. */
#include "ranker/item_info.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "common/clock.h"
#include "common/mem.h"
#include "ranker/metrics.h"

#define REMEMBER_MS 60000

struct slot {
    struct item_info info;
    int64_t until; /* clock_mono_ms() */
};

struct item_infos {
    pthread_mutex_t lock;
    size_t n;
    struct slot *slots;
    struct metrics *metrics;
};

struct item_infos *item_infos_new(size_t max_items, struct metrics *m)
{
    struct item_infos *s = mem_zero(1, sizeof *s);
    pthread_mutex_init(&s->lock, NULL);
    s->n = max_items;
    s->slots = mem_zero(max_items, sizeof *s->slots);
    s->metrics = m;
    return s;
}

void item_infos_free(struct item_infos *s)
{
    if (s == NULL)
        return;
    for (size_t i = 0; i < s->n; i++)
        item_info_done(&s->slots[i].info);
    pthread_mutex_destroy(&s->lock);
    free(s->slots);
    free(s);
}

void item_info_done(struct item_info *info)
{
    free(info->targets);
    memset(info, 0, sizeof *info);
}

static struct slot *slot_of(struct item_infos *s, item_id id)
{
    return &s->slots[(id * UINT64_C(0x9E3779B97F4A7C15) >> 16) % s->n];
}

static void info_copy(struct item_info *to, const struct item_info *from)
{
    *to = *from;
    to->targets = mem_alloc(from->n_targets * sizeof *to->targets);
    memcpy(to->targets, from->targets, from->n_targets * sizeof *to->targets);
}

static bool recall(struct item_infos *s, item_id id, struct item_info *out)
{
    int64_t now = clock_mono_ms();
    pthread_mutex_lock(&s->lock);
    struct slot *slot = slot_of(s, id);
    bool hit = slot->info.id == id && slot->until > now;
    if (hit)
        info_copy(out, &slot->info);
    pthread_mutex_unlock(&s->lock);
    metrics_add(s->metrics, M_ITEM_CACHE, hit ? 0 : 1, 1);
    return hit;
}

static void remember(struct item_infos *s, const struct item_info *info)
{
    int64_t until = clock_mono_ms() + REMEMBER_MS;
    pthread_mutex_lock(&s->lock);
    struct slot *slot = slot_of(s, info->id);
    item_info_done(&slot->info);
    info_copy(&slot->info, info);
    slot->until = until;
    pthread_mutex_unlock(&s->lock);
}

static void add_target(struct item_info *info, enum target_kind kind, const char *name)
{
    if (strlen(name) > NAME_MAX_BYTES || info->n_targets > ITEM_INFO_TOPICS_MAX)
        return;
    info->targets = mem_grow(info->targets, info->n_targets + 1, sizeof *info->targets);
    target_format(kind, name, info->targets[info->n_targets++]);
}

static void info_from_bson(const bson_t *d, struct item_info *info)
{
    const char *publisher = mongo_get_str(d, "publisher", NULL);
    bson_iter_t it, topics;
    if (publisher)
        add_target(info, TARGET_PUBLISHER, publisher);
    if (bson_iter_init_find(&it, d, "topics") && BSON_ITER_HOLDS_ARRAY(&it) &&
        bson_iter_recurse(&it, &topics))
        while (bson_iter_next(&topics))
            if (BSON_ITER_HOLDS_UTF8(&topics))
                add_target(info, TARGET_TOPIC, bson_iter_utf8(&topics, NULL));
}

/* The same item may be asked for more than once, as when it got many events. */
static void fill_missing(struct item_info *out, size_t n, const struct item_info *found)
{
    for (size_t i = 0; i < n; i++)
        if (out[i].id == found->id && out[i].targets == NULL)
            info_copy(&out[i], found);
}

static mongoc_cursor_t *ask(struct mongo_conn *c, const struct item_info *out, size_t n)
{
    bson_t filter = BSON_INITIALIZER, opts = BSON_INITIALIZER, id, in, projection;
    char buf[16];
    const char *index;
    uint32_t k = 0;
    bson_append_document_begin(&filter, "_id", -1, &id);
    bson_append_array_begin(&id, "$in", -1, &in);
    for (size_t i = 0; i < n; i++) {
        if (out[i].targets)
            continue;
        size_t len = bson_uint32_to_string(k++, &index, buf, sizeof buf);
        bson_append_int64(&in, index, (int)len, (int64_t)out[i].id);
    }
    bson_append_array_end(&id, &in);
    bson_append_document_end(&filter, &id);
    bson_append_document_begin(&opts, "projection", -1, &projection);
    bson_append_int32(&projection, "publisher", -1, 1);
    bson_append_int32(&projection, "topics", -1, 1);
    bson_append_document_end(&opts, &projection);
    bson_append_int64(&opts, "batchSize", -1, (int64_t)k + 1);
    mongo_read_opts(c, &opts);
    mongoc_cursor_t *cursor =
        mongoc_collection_find_with_opts(mongo_coll(c, COLL_ITEMS), &filter, &opts, NULL);
    bson_destroy(&opts);
    bson_destroy(&filter);
    return cursor;
}

int item_infos_get(struct item_infos *s, struct mongo_conn *c, const item_id *ids, size_t n,
                   struct item_info *out, struct err *e)
{
    size_t missing = 0;
    memset(out, 0, n * sizeof *out);
    for (size_t i = 0; i < n; i++)
        if (!recall(s, ids[i], &out[i])) {
            out[i].id = ids[i];
            missing++;
        }
    if (missing == 0)
        return 0;
    if (c == NULL)
        return err_set(e, ERR_UNAVAILABLE, "no client of MongoDB is free");
    mongoc_cursor_t *cursor = ask(c, out, n);
    const bson_t *doc;
    while (mongoc_cursor_next(cursor, &doc)) {
        struct item_info info = {0};
        int64_t id;
        if (!mongo_get_i64(doc, "_id", &id))
            continue;
        info.id = (item_id)id;
        info_from_bson(doc, &info);
        fill_missing(out, n, &info);
        remember(s, &info);
        item_info_done(&info);
    }
    bson_error_t be;
    const bson_t *reply;
    int rc = 0;
    if (mongoc_cursor_error_document(cursor, &be, &reply))
        rc = mongo_err(e, &be, reply, "read items");
    mongoc_cursor_destroy(cursor);
    return rc;
}
