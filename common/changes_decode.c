/* changes_decode.c - which changes come, with which fields, and how they read. */
#include "common/changes.h"

#include "common/buf.h"
#include "common/changes_internal.h"
#include "common/mem.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define READ_MS   2000
#define ANY_WRITE "\"operationType\":{\"$in\":[\"insert\",\"update\",\"replace\",\"delete\"]}"

/* Counts of targets are written every few seconds and interest nobody here: the server leaves them out. */
#define TARGET_FACE                                                                                          \
    "{\"ns.coll\":\"targets\",\"$or\":["                                                                     \
    "{\"operationType\":{\"$in\":[\"replace\",\"delete\"]}},"                                                \
    "{\"operationType\":\"insert\",\"$or\":[{\"fullDocument.title\":{\"$exists\":true}},"                    \
    "{\"fullDocument.icon\":{\"$exists\":true}},{\"fullDocument.mode\":{\"$nin\":[\"push\",null]}}]},"       \
    "{\"operationType\":\"update\",\"$or\":[{\"updateDescription.updatedFields.title\":{\"$exists\":true}}," \
    "{\"updateDescription.updatedFields.icon\":{\"$exists\":true}},"                                         \
    "{\"updateDescription.updatedFields.mode\":{\"$exists\":true}},"                                         \
    "{\"updateDescription.removedFields\":{\"$in\":[\"title\",\"icon\",\"mode\"]}}]}]}"

/* An update that was written as an aggregation pipeline reports a changed array by its elements. */
#define SLICED                                                                                               \
    "{\"$or\":[{\"$in\":[\"topics_before\",{\"$ifNull\":[\"$updateDescription.truncatedArrays.field\",[]]}]" \
    "},"                                                                                                     \
    "{\"$in\":[0,{\"$map\":{\"input\":{\"$objectToArray\":{\"$ifNull\":[\"$updateDescription."               \
    "updatedFields\",{}]}},"                                                                                 \
    "\"in\":{\"$indexOfBytes\":[\"$$this.k\",\"topics_before.\"]}}}]}]}"

static const struct {
    enum change_kind kind;
    enum mongo_collection coll;
    const char *match;
} kind_rows[] = {
    {CHANGE_HEARTBEAT, COLL_HEARTBEAT,
     "{\"ns.coll\":\"heartbeat\",\"operationType\":{\"$in\":[\"insert\",\"update\",\"replace\"]}}"},
    {CHANGE_ITEM, COLL_ITEMS, "{\"ns.coll\":\"items\"," ANY_WRITE "}"},
    {CHANGE_USER, COLL_USERS, "{\"ns.coll\":\"users\"," ANY_WRITE "}"},
    {CHANGE_TARGET, COLL_TARGETS, TARGET_FACE},
    {CHANGE_API_KEY, COLL_API_KEYS, "{\"ns.coll\":\"api_keys\"," ANY_WRITE "}"},
    {CHANGE_TOKEN_END, COLL_TOKEN_ENDS, "{\"ns.coll\":\"token_ends\"," ANY_WRITE "}"},
};

/* Never the bodies. */
static const char told_of_items[] =
    "\"fullDocument.publisher\":1,\"fullDocument.topics\":1,\"fullDocument.live\":1,"
    "\"updateDescription.updatedFields.topics\":1,";

static const char project[] =
    "\"operationType\":1,\"clusterTime\":1,\"ns.coll\":1,\"documentKey._id\":1,"
    "\"fullDocument.revision\":1,\"fullDocument.deleted_at\":1,\"fullDocument.at\":1,\"fullDocument.mono\":1,"
    "\"updateDescription.updatedFields.revision\":1,\"updateDescription.updatedFields.deleted_at\":1,"
    "\"updateDescription.updatedFields.topics_before\":1,\"updateDescription.updatedFields.touches\":1,"
    "\"fullDocument.mode\":1,\"updateDescription.updatedFields.mode\":1,"
    "\"updateDescription.updatedFields.at\":1,\"updateDescription.updatedFields.mono\":1,\"sliced\":" SLICED
    "}}";

static bool wanted(enum change_kind kind, unsigned kinds)
{
    return kind == CHANGE_HEARTBEAT || (kinds & 1u << kind) != 0;
}

bson_t *changes_pipeline(unsigned kinds, bool tell_items)
{
    struct buf b;
    buf_init(&b, 64 * 1024);
    buf_add_str(&b, "[{\"$match\":{\"$or\":[");
    for (size_t i = 0; i < MEM_COUNT(kind_rows); i++) {
        if (!wanted(kind_rows[i].kind, kinds))
            continue;
        buf_add_str(&b, kind_rows[i].match);
        buf_add_char(&b, ',');
    }
    buf_add_str(&b, "{\"operationType\":{\"$in\":[\"dropDatabase\",\"invalidate\"]}},"
                    "{\"operationType\":{\"$in\":[\"drop\",\"rename\"]},\"ns.coll\":{\"$in\":[");
    for (size_t i = 0, n = 0; i < MEM_COUNT(kind_rows); i++)
        if (wanted(kind_rows[i].kind, kinds))
            buf_printf(&b, "%s\"%s\"", n++ ? "," : "", mongo_collection_name(kind_rows[i].coll));
    buf_printf(&b, "]}}]}},{\"$project\":{%s%s]", tell_items ? told_of_items : "", project);
    assert(!b.full);
    bson_error_t be;
    bson_t *array = bson_new_from_json((const uint8_t *)b.data, (ssize_t)b.len, &be);
    assert(array != NULL);
    buf_done(&b);
    return array;
}

/* ---- reading one ---- */

static bool find(const bson_t *d, const char *path, bson_iter_t *out)
{
    bson_iter_t it;
    return bson_iter_init(&it, d) && bson_iter_find_descendant(&it, path, out);
}

static bool find_i64(const bson_t *d, const char *path, int64_t *out)
{
    bson_iter_t it;
    if (!find(d, path, &it))
        return false;
    if (BSON_ITER_HOLDS_DATE_TIME(&it))
        *out = bson_iter_date_time(&it);
    else if (BSON_ITER_HOLDS_INT(&it))
        *out = bson_iter_as_int64(&it);
    else
        return false;
    return true;
}

static void copy_topics(bson_iter_t *array, struct change *out)
{
    bson_iter_t it;
    out->topics_changed = true;
    if (!BSON_ITER_HOLDS_ARRAY(array) || !bson_iter_recurse(array, &it))
        return;
    while (out->n_topics_before < CHANGE_TOPICS_MAX && bson_iter_next(&it)) {
        if (!BSON_ITER_HOLDS_UTF8(&it))
            continue;
        uint32_t n;
        const char *s = bson_iter_utf8(&it, &n);
        if (n > NAME_MAX_BYTES)
            continue;
        memcpy(out->topics_before[out->n_topics_before++], s, n + 1);
    }
}

static bool copy_told(char out[NAME_MAX_BYTES + 1], const bson_iter_t *it)
{
    uint32_t n = 0;
    const char *s = BSON_ITER_HOLDS_UTF8(it) ? bson_iter_utf8(it, &n) : NULL;
    if (s == NULL || n == 0 || n > NAME_MAX_BYTES || strlen(s) != n)
        return false;
    memcpy(out, s, n + 1);
    return true;
}

static bool copy_told_topics(const bson_iter_t *array, struct change *out)
{
    bson_iter_t it;
    out->n_topics = 0;
    if (!BSON_ITER_HOLDS_ARRAY(array) || !bson_iter_recurse(array, &it))
        return false;
    while (bson_iter_next(&it)) {
        if (out->n_topics == CHANGE_TOPICS_MAX || !copy_told(out->topics[out->n_topics], &it))
            return false;
        out->n_topics++;
    }
    return true;
}

/* All or nothing: half of an item would be taken for the whole. */
static void tell_item(const bson_t *event, struct change *out)
{
    bson_iter_t full, it;
    if (!find(event, "fullDocument", &full) || !BSON_ITER_HOLDS_DOCUMENT(&full) ||
        !bson_iter_recurse(&full, &it))
        return;
    bool ok = true, live = false;
    while (ok && bson_iter_next(&it)) {
        const char *key = bson_iter_key(&it);
        if (strcmp(key, "publisher") == 0)
            ok = copy_told(out->publisher, &it);
        else if (strcmp(key, "topics") == 0)
            ok = copy_told_topics(&it, out);
        else if (strcmp(key, "live") == 0)
            live = bson_iter_as_bool(&it);
    }
    out->item_told = ok && live && out->publisher[0] != '\0';
    if (!out->item_told) {
        out->publisher[0] = '\0';
        out->n_topics = 0;
    }
}

static enum decoded decode_item(const bson_t *event, const char *op, bool tell, struct change *out)
{
    int64_t id, revision = 0;
    bson_iter_t it;
    if (!find_i64(event, "documentKey._id", &id) || id < 1 || (uint64_t)id > ITEM_ID_MAX)
        return DECODED;
    out->kind = CHANGE_ITEM;
    out->item = (item_id)id;
    out->inserted = strcmp(op, "insert") == 0;
    bool update = strcmp(op, "update") == 0;
    if (find_i64(event, update ? "updateDescription.updatedFields.revision" : "fullDocument.revision",
                 &revision) &&
        revision > 0 && revision <= INT32_MAX)
        out->revision = (int32_t)revision;
    out->deleted =
        strcmp(op, "delete") == 0 ||
        find(event, update ? "updateDescription.updatedFields.deleted_at" : "fullDocument.deleted_at", &it);
    if (tell && out->inserted)
        tell_item(event, out);
    /* A replay: the item is to be delivered again as it is, whatever was changed. */
    if (find(event, "updateDescription.updatedFields.touches", &it))
        out->topics_changed = true;
    if (find(event, "updateDescription.updatedFields.topics_before", &it)) {
        copy_topics(&it, out);
        out->topics_told =
            tell && find(event, "updateDescription.updatedFields.topics", &it) && copy_told_topics(&it, out);
        if (!out->topics_told)
            out->n_topics = 0;
        return DECODED;
    }
    if (find(event, "sliced", &it) && bson_iter_as_bool(&it))
        return DECODED_SLICED;
    return DECODED;
}

static void decode_heartbeat(const bson_t *event, const char *op, struct change *out)
{
    bool update = strcmp(op, "update") == 0;
    int64_t at, mono;
    /* Two in the same millisecond: what was set to the same is not among the updated fields; it only moves
     * time then. */
    if (!find_i64(event, update ? "updateDescription.updatedFields.at" : "fullDocument.at", &at) ||
        !find_i64(event, update ? "updateDescription.updatedFields.mono" : "fullDocument.mono", &mono))
        return;
    out->kind = CHANGE_HEARTBEAT;
    out->at_ms = at;
    out->mono_ms = mono;
}

static void decode_token_end(const bson_t *event, const char *op, struct change *out)
{
    bool update = strcmp(op, "update") == 0;
    if (find_i64(event, update ? "updateDescription.updatedFields.at" : "fullDocument.at", &out->at_ms))
        out->kind = CHANGE_TOKEN_END;
}

/* A target without a document is one that is pushed. */
static void decode_target(const bson_t *event, const char *op, struct change *out)
{
    bool update = strcmp(op, "update") == 0;
    bson_iter_t it;
    out->kind = CHANGE_TARGET;
    if (find(event, update ? "updateDescription.updatedFields.mode" : "fullDocument.mode", &it))
        out->mode = BSON_ITER_HOLDS_UTF8(&it) && strcmp(bson_iter_utf8(&it, NULL), "pull") == 0 ? MODE_PULL
                                                                                                : MODE_PUSH;
    else if (!update)
        out->mode = MODE_PUSH;
}

static enum change_kind kind_of(const char *coll)
{
    for (size_t i = 0; i < MEM_COUNT(kind_rows); i++)
        if (strcmp(mongo_collection_name(kind_rows[i].coll), coll) == 0)
            return kind_rows[i].kind;
    return CHANGE_OTHER;
}

/* The key as text, where it is one and fits. */
static bool copy_name(const bson_t *event, struct change *out)
{
    bson_iter_t it;
    uint32_t n;
    if (!find(event, "documentKey._id", &it) || !BSON_ITER_HOLDS_UTF8(&it))
        return false;
    const char *s = bson_iter_utf8(&it, &n);
    if (n >= sizeof out->name)
        return false;
    memcpy(out->name, s, n + 1);
    return true;
}

/* Not by memset: the arrays are kilobytes, and counted. */
static void clear(struct change *out)
{
    out->kind = CHANGE_OTHER;
    out->t = 0;
    out->item = 0;
    out->revision = 0;
    out->deleted = out->inserted = out->topics_changed = false;
    out->n_topics_before = 0;
    out->item_told = false;
    out->publisher[0] = '\0';
    out->topics_told = false;
    out->n_topics = 0;
    out->mode = MODE_NOT_TOLD;
    out->name[0] = '\0';
    out->at_ms = out->mono_ms = 0;
}

enum decoded changes_decode(const bson_t *event, bool tell_items, struct change *out)
{
    clear(out);
    mongo_get_ts(event, "clusterTime", &out->t);
    const char *op = mongo_get_str(event, "operationType", NULL);
    if (op == NULL)
        return DECODED;
    if (strcmp(op, "drop") == 0 || strcmp(op, "rename") == 0 || strcmp(op, "dropDatabase") == 0 ||
        strcmp(op, "invalidate") == 0)
        return DECODED_LOST;
    bson_iter_t it;
    if (!find(event, "ns.coll", &it) || !BSON_ITER_HOLDS_UTF8(&it))
        return DECODED;
    enum change_kind kind = kind_of(bson_iter_utf8(&it, NULL));
    if (kind == CHANGE_ITEM)
        return decode_item(event, op, tell_items, out);
    if (!copy_name(event, out))
        return DECODED;
    if (kind == CHANGE_HEARTBEAT)
        decode_heartbeat(event, op, out);
    else if (kind == CHANGE_TARGET)
        decode_target(event, op, out);
    else if (kind == CHANGE_TOKEN_END)
        decode_token_end(event, op, out);
    else
        out->kind = kind;
    return DECODED;
}

int changes_read_topics_before(struct mongo_conn *c, struct change *out, struct err *e)
{
    bson_t query = BSON_INITIALIZER, opts = BSON_INITIALIZER, fields;
    BSON_APPEND_INT64(&query, "_id", (int64_t)out->item);
    mongo_conn_after(c, out->t);
    mongo_conn_deadline(c, READ_MS); /* the one of opening the log may be long past */
    mongo_read_opts(c, &opts);
    BSON_APPEND_INT64(&opts, "limit", 1);
    BSON_APPEND_DOCUMENT_BEGIN(&opts, "projection", &fields);
    BSON_APPEND_INT32(&fields, "topics_before", 1);
    bson_append_document_end(&opts, &fields);
    mongoc_cursor_t *cursor =
        mongoc_collection_find_with_opts(mongo_coll(c, COLL_ITEMS), &query, &opts, NULL);
    const bson_t *doc;
    bson_iter_t it;
    bson_error_t be;
    const bson_t *reply;
    int rc = 0;
    out->topics_changed = true;
    if (mongoc_cursor_next(cursor, &doc)) {
        if (bson_iter_init_find(&it, doc, "topics_before"))
            copy_topics(&it, out);
    } else if (mongoc_cursor_error_document(cursor, &be, &reply)) {
        rc = mongo_err(e, &be, reply, "topics before a change");
    }
    mongoc_cursor_destroy(cursor);
    bson_destroy(&query);
    bson_destroy(&opts);
    return rc;
}
