#include "common/target_ids.h"

#include <assert.h>

/* The index is named, because the planner is free to walk all of _id instead. */
static mongoc_cursor_t *open_newest(struct mongo_conn *c, const char *field, const char *name, size_t n)
{
    bson_t *filter = BCON_NEW(field, BCON_UTF8(name), "live", BCON_BOOL(true));
    bson_t *opts =
        BCON_NEW("sort", "{", "_id", BCON_INT32(-1), "}", "projection", "{", "_id", BCON_INT32(1), "}",
                 "hint", "{", field, BCON_INT32(1), "live", BCON_INT32(1), "_id", BCON_INT32(-1), "}",
                 "limit", BCON_INT64((int64_t)n), "batchSize", BCON_INT32((int32_t)n + 1));
    mongo_read_opts(c, opts);
    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(mongo_coll(c, COLL_ITEMS), filter, opts, NULL);
    bson_destroy(filter);
    bson_destroy(opts);
    return cursor;
}

int target_ids_newest(struct mongo_conn *c, const char *target, size_t n, item_id *out, size_t *got,
                      struct err *e)
{
    enum target_kind kind;
    const char *name;
    assert(n >= 1 && n <= TARGET_IDS_MAX);
    if (target_split(target, &kind, &name, e) != 0)
        return -1;
    mongoc_cursor_t *cursor = open_newest(c, kind == TARGET_PUBLISHER ? "publisher" : "topics", name, n);
    const bson_t *doc, *reply;
    bson_error_t be;
    size_t k = 0;
    while (k < n && mongoc_cursor_next(cursor, &doc)) {
        int64_t id;
        if (mongo_get_i64(doc, "_id", &id) && id > 0 && (uint64_t)id <= ITEM_ID_MAX)
            out[k++] = (item_id)id;
    }
    int rc = mongoc_cursor_error_document(cursor, &be, &reply)
                 ? mongo_err(e, &be, reply, "a target's newest items")
                 : 0;
    mongoc_cursor_destroy(cursor);
    *got = k;
    return rc;
}
