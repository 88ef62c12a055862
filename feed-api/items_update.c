/* The documents of compare-and-set updates, and what a duplicate key was about. */
#include "feed-api/items_store.h"

#include <string.h>

#include "feed-api/metrics.h"

static void append_filter(const struct item *old, bson_t *filter)
{
    BSON_APPEND_INT64(filter, "_id", (int64_t)old->id);
    BSON_APPEND_INT32(filter, "revision", old->revision);
    BSON_APPEND_BOOL(filter, "live", true);
}

/* A member is set when it is there, else taken away. */
static void put(bson_t *set, bson_t *unset, const char *key, const char *text)
{
    if (text != NULL)
        BSON_APPEND_UTF8(set, key, text);
    else
        BSON_APPEND_UTF8(unset, key, "");
}

void items_revision(const struct item *old, const struct item *next, int64_t now_ms, bson_t *filter,
                    bson_t *update)
{
    append_filter(old, filter);
    bson_t set = BSON_INITIALIZER, unset = BSON_INITIALIZER;
    BSON_APPEND_INT32(&set, "revision", old->revision + 1);
    BSON_APPEND_DATE_TIME(&set, "edited_at", now_ms);
    put(&set, &unset, "title", next->title);
    put(&set, &unset, "body", next->body);
    put(&set, &unset, "url", next->url);
    put(&set, &unset, "media", next->media);
    put(&set, &unset, "lang", next->lang);
    put(&set, &unset, "extra", next->extra);
    /* fanout takes topics_before in an update for "the topics have changed": only then is it written */
    if (!item_same_topics(old, next)) {
        item_append_topics(next, "topics", &set);
        item_append_topics(old, "topics_before", &set);
    }
    BSON_APPEND_DOCUMENT(update, "$set", &set);
    if (!bson_empty(&unset))
        BSON_APPEND_DOCUMENT(update, "$unset", &unset);
    bson_destroy(&set);
    bson_destroy(&unset);
}

void items_tombstone(const struct item *old, int64_t now_ms, bson_t *filter, bson_t *update)
{
    static const char *const gone[] = {"live", "title", "body", "url", "media", "extra", "lang", "topics"};
    append_filter(old, filter);
    bson_t part;
    BSON_APPEND_DOCUMENT_BEGIN(update, "$unset", &part);
    for (size_t i = 0; i < sizeof gone / sizeof *gone; i++)
        BSON_APPEND_UTF8(&part, gone[i], "");
    bson_append_document_end(update, &part);
    BSON_APPEND_DOCUMENT_BEGIN(update, "$set", &part);
    BSON_APPEND_INT32(&part, "revision", old->revision + 1);
    BSON_APPEND_DATE_TIME(&part, "deleted_at", now_ms);
    item_append_topics(old, "topics_before", &part);
    bson_append_document_end(update, &part);
}

enum items_duplicate items_duplicate_of(const bson_t *write_error)
{
    int64_t code = 0;
    bson_iter_t it, key;
    if (!mongo_get_i64(write_error, "code", &code) || (code != 11000 && code != 11001))
        return ITEMS_DUPLICATE_NONE;
    if (bson_iter_init_find(&it, write_error, "keyPattern") && BSON_ITER_HOLDS_DOCUMENT(&it) &&
        bson_iter_recurse(&it, &key) && bson_iter_next(&key))
        return strcmp(bson_iter_key(&key), "_id") == 0 ? ITEMS_DUPLICATE_ID : ITEMS_DUPLICATE_EXTERNAL;
    const char *text = mongo_get_str(write_error, "errmsg", NULL);
    return text != NULL && strstr(text, "index: _id_") != NULL ? ITEMS_DUPLICATE_ID
                                                               : ITEMS_DUPLICATE_EXTERNAL;
}

const char *items_result_name(enum items_result r)
{
    static const char *const names[] = {"created", "unchanged", "revised", "deleted"};
    return names[r];
}

void items_counted(struct items *s, enum items_result r)
{
    static const enum metric_write rows[] = {MW_CREATED, MW_UNCHANGED, MW_REVISED, MW_DELETED};
    metrics_add(s->metrics, M_ITEM_WRITES, rows[r], 1);
}

static void touch_topics(struct items *s, const struct item *it)
{
    for (unsigned i = 0; i < it->n_topics; i++)
        counts_touch(s->counts, TARGET_TOPIC, it->topics[i]);
}

void items_noted(struct items *s, const struct item *now, const struct item *before, bool keep)
{
    if (s->content != NULL) {
        content_seen(s->content, mongo_conn_time(s->conn)); /* first: what is fetched from here on is newer */
        content_changed(s->content, now->id, now->revision);
        if (keep)
            content_put(s->content, now);
    }
    if (before == NULL || before->live != now->live)
        counts_touch(s->counts, TARGET_PUBLISHER, now->publisher);
    if (before != NULL && before->live == now->live && item_same_topics(before, now))
        return;
    touch_topics(s, now);
    if (before != NULL)
        touch_topics(s, before);
}
