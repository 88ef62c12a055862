/* audit_items.c - the items that a timeline is judged by: the newest that should be in it, and what is in it
 * and not among them. */
#include "common/audit_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

/* What a pull list brings need not be in the set; nor what one should bring: that is another fault. */
static bool is_delivered(const struct audit_follow *f)
{
    return !f->pulled && !f->listed;
}

/* ---- the newest of what is delivered ---- */

static void make_filter(const char *field, const char *const *names, size_t n, item_id above, bson_t *out)
{
    bson_t sub, in;
    char key[16];
    BSON_APPEND_DOCUMENT_BEGIN(out, field, &sub);
    BSON_APPEND_ARRAY_BEGIN(&sub, "$in", &in);
    for (size_t i = 0; i < n; i++) {
        const char *k;
        bson_uint32_to_string((uint32_t)i, &k, key, sizeof key);
        BSON_APPEND_UTF8(&in, k, names[i]);
    }
    bson_append_array_end(&sub, &in);
    bson_append_document_end(out, &sub);
    BSON_APPEND_BOOL(out, "live", true);
    BSON_APPEND_DOCUMENT_BEGIN(out, "_id", &sub);
    BSON_APPEND_INT64(&sub, "$gt", (int64_t)above);
    bson_append_document_end(out, &sub);
}

/* The newest found so far; read is as large again, for one chunk. */
struct newest {
    struct mongo_conn *c;
    item_id floor;
    item_id *ids, *read;
    size_t n, max;
};

static int newest_first(const void *a, const void *b)
{
    item_id x = *(const item_id *)a, y = *(const item_id *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

static void merge(struct newest *w, size_t got)
{
    size_t kept = 0;
    memcpy(w->ids + w->n, w->read, got * sizeof *w->ids);
    qsort(w->ids, w->n + got, sizeof *w->ids, newest_first);
    for (size_t i = 0; i < w->n + got && kept < w->max; i++) {
        if (kept == 0 || w->ids[i] != w->ids[kept - 1])
            w->ids[kept++] = w->ids[i];
    }
    w->n = kept;
}

/* One chunk of names, only as far down as it can still matter. The index is named, because the planner is
 * free to walk all of _id instead. */
static int read_chunk(struct newest *w, const char *field, const char *const *names, size_t n, struct err *e)
{
    bson_t filter = BSON_INITIALIZER;
    item_id above = w->n == w->max ? w->ids[w->max - 1] : w->floor;
    make_filter(field, names, n, above, &filter);
    bson_t *opts =
        BCON_NEW("sort", "{", "_id", BCON_INT32(-1), "}", "projection", "{", "_id", BCON_INT32(1), "}",
                 "hint", "{", field, BCON_INT32(1), "live", BCON_INT32(1), "_id", BCON_INT32(-1), "}",
                 "limit", BCON_INT64((int64_t)w->max), "batchSize", BCON_INT32((int32_t)w->max + 1));
    mongo_read_opts(w->c, opts);
    mongoc_cursor_t *cur =
        mongoc_collection_find_with_opts(mongo_coll(w->c, COLL_ITEMS), &filter, opts, NULL);
    const bson_t *doc, *reply;
    bson_error_t be;
    size_t got = 0;
    int64_t id;
    while (got < w->max && mongoc_cursor_next(cur, &doc)) {
        if (mongo_get_i64(doc, "_id", &id) && id > 0)
            w->read[got++] = (item_id)id;
    }
    int rc = mongoc_cursor_error_document(cur, &be, &reply)
                 ? mongo_err(e, &be, reply, "reading the newest items")
                 : 0;
    mongoc_cursor_destroy(cur);
    bson_destroy(&filter);
    bson_destroy(opts);
    if (rc == 0)
        merge(w, got);
    return rc;
}

static int read_kind(struct newest *w, const struct audit_truth *t, char kind, const char *field,
                     struct err *e)
{
    const char *names[AUDIT_CHUNK];
    size_t n = 0;
    for (size_t i = 0; i < t->n_follows; i++) {
        const struct audit_follow *f = &t->follows[i];
        if (f->target[0] == kind && is_delivered(f))
            names[n++] = f->target + 2;
        if (n == AUDIT_CHUNK || (n > 0 && i + 1 == t->n_follows)) {
            if (read_chunk(w, field, names, n, e) != 0)
                return -1;
            n = 0;
        }
    }
    return 0;
}

/* One id more than the set holds is missing from it: so this many are enough to see that something is. */
static int read_newest(struct mongo_conn *c, const struct audit_view *v, struct audit_truth *t, struct err *e)
{
    size_t max = v->n + AUDIT_SLACK;
    struct newest w = {.c = c, .floor = v->floor, .max = max};
    w.ids = mem_alloc(3 * max * sizeof *w.ids);
    w.read = w.ids + 2 * max;
    t->newest = w.ids;
    if (read_kind(&w, t, 'p', "publisher", e) != 0 || read_kind(&w, t, 't', "topics", e) != 0)
        return -1;
    t->n_newest = w.n;
    return 0;
}

/* ---- items ---- */

static int by_id(const void *a, const void *b)
{
    item_id x = ((const struct audit_item *)a)->id, y = ((const struct audit_item *)b)->id;
    return x < y ? -1 : x > y ? 1 : 0;
}

const struct audit_item *audit_truth_item(const struct audit_truth *t, item_id id)
{
    struct audit_item key = {.id = id};
    return t->n_items ? bsearch(&key, t->items, t->n_items, sizeof *t->items, by_id) : NULL;
}

static int ids_up(const void *a, const void *b)
{
    return -newest_first(a, b);
}

/* What is only in one of the two has to be looked at. */
static void choose_items(const struct audit_view *v, struct audit_truth *t)
{
    item_id *held = mem_alloc((v->n + 1) * sizeof *held);
    size_t n_held = 0;
    t->items = mem_zero(v->n + t->n_newest + 1, sizeof *t->items);
    for (size_t i = 0; i < v->n; i++) {
        item_id id = v->entries[i].id;
        if (id <= v->floor)
            continue;
        held[n_held++] = id;
        if (!t->n_newest || !bsearch(&id, t->newest, t->n_newest, sizeof id, newest_first))
            t->items[t->n_items++].id = id;
    }
    qsort(held, n_held, sizeof *held, ids_up);
    for (size_t i = 0; i < t->n_newest; i++) {
        if (!n_held || !bsearch(&t->newest[i], held, n_held, sizeof *held, ids_up))
            t->items[t->n_items++].id = t->newest[i];
    }
    free(held);
    qsort(t->items, t->n_items, sizeof *t->items, by_id);
}

static void match_target(const struct audit_truth *t, char kind, const char *name, struct audit_item *it)
{
    char target[TARGET_TEXT_SIZE];
    snprintf(target, sizeof target, "%c:%s", kind, name);
    const struct audit_follow *f = audit_truth_follow(t, target);
    if (!f)
        return;
    it->belongs = true;
    it->owed |= is_delivered(f);
}

static void take_item(const bson_t *doc, struct audit_truth *t)
{
    bson_iter_t it, topic;
    int64_t id = 0;
    struct audit_item *item =
        mongo_get_i64(doc, "_id", &id) ? (struct audit_item *)audit_truth_item(t, (item_id)id) : NULL;
    if (!item)
        return;
    item->exists = true;
    item->live = bson_iter_init_find(&it, doc, "live") && bson_iter_as_bool(&it);
    if (!mongo_get_i64(doc, "revision", &item->revision))
        item->revision = 0;
    const char *publisher = mongo_get_str(doc, "publisher", NULL);
    if (publisher)
        match_target(t, 'p', publisher, item);
    if (!bson_iter_init_find(&it, doc, "topics") || !bson_iter_recurse(&it, &topic))
        return;
    while (bson_iter_next(&topic)) {
        if (BSON_ITER_HOLDS_UTF8(&topic))
            match_target(t, 't', bson_iter_utf8(&topic, NULL), item);
    }
}

static int read_items(struct mongo_conn *c, struct audit_truth *t, size_t from, size_t n, struct err *e)
{
    bson_t filter = BSON_INITIALIZER, sub, in;
    char key[16];
    BSON_APPEND_DOCUMENT_BEGIN(&filter, "_id", &sub);
    BSON_APPEND_ARRAY_BEGIN(&sub, "$in", &in);
    for (size_t i = 0; i < n; i++) {
        const char *k;
        bson_uint32_to_string((uint32_t)i, &k, key, sizeof key);
        BSON_APPEND_INT64(&in, k, (int64_t)t->items[from + i].id);
    }
    bson_append_array_end(&sub, &in);
    bson_append_document_end(&filter, &sub);
    bson_t *opts =
        BCON_NEW("projection", "{", "publisher", BCON_INT32(1), "topics", BCON_INT32(1), "live",
                 BCON_INT32(1), "revision", BCON_INT32(1), "}", "batchSize", BCON_INT32((int32_t)n + 1));
    mongo_read_opts(c, opts);
    mongoc_cursor_t *cur = mongoc_collection_find_with_opts(mongo_coll(c, COLL_ITEMS), &filter, opts, NULL);
    const bson_t *doc, *reply;
    bson_error_t be;
    while (mongoc_cursor_next(cur, &doc))
        take_item(doc, t);
    int rc = mongoc_cursor_error_document(cur, &be, &reply) ? mongo_err(e, &be, reply, "reading items") : 0;
    mongoc_cursor_destroy(cur);
    bson_destroy(&filter);
    bson_destroy(opts);
    return rc;
}

int audit_items_read(struct mongo_conn *c, const struct audit_view *v, struct audit_truth *t, struct err *e)
{
    if (read_newest(c, v, t, e) != 0)
        return -1;
    choose_items(v, t);
    for (size_t i = 0; i < t->n_items; i += AUDIT_CHUNK) {
        size_t n = t->n_items - i < AUDIT_CHUNK ? t->n_items - i : AUDIT_CHUNK;
        if (read_items(c, t, i, n, e) != 0)
            return -1;
    }
    return 0;
}
