#include "feed-api/markers.h"

static int from_bson(const bson_t *d, struct marker *out, struct err *e)
{
    int64_t id = 0, at = 0;
    if (!mongo_get_i64(d, "item", &id) || !mongo_get_i64(d, "at", &at) || id < 1 || (item_id)id > ITEM_ID_MAX)
        return err_set(e, ERR_CORRUPT, "a stored marker is damaged");
    *out = (struct marker){(item_id)id, at};
    return 0;
}

int markers_find(struct mongo_conn *c, const char *user, struct marker *out, struct err *e)
{
    bson_t opts = BSON_INITIALIZER, *filter = BCON_NEW("_id", BCON_UTF8(user));
    BSON_APPEND_INT64(&opts, "limit", 1);
    BSON_APPEND_BOOL(&opts, "singleBatch", true);
    mongo_read_opts(c, &opts);
    mongoc_cursor_t *cursor =
        mongoc_collection_find_with_opts(mongo_coll(c, COLL_MARKERS), filter, &opts, NULL);
    const bson_t *doc, *reply;
    bson_error_t be;
    int rc = 0;
    if (mongoc_cursor_next(cursor, &doc))
        rc = from_bson(doc, out, e);
    else if (mongoc_cursor_error_document(cursor, &be, &reply))
        rc = mongo_err(e, &be, reply, "markers");
    else
        *out = (struct marker){0};
    mongoc_cursor_destroy(cursor);
    bson_destroy(&opts);
    bson_destroy(filter);
    return rc;
}

/* Sets it where filter matches, or makes it. ERR_CONFLICT: it is there and does not match. */
static int set(struct mongo_conn *c, const bson_t *filter, item_id id, int64_t now_ms, struct err *e)
{
    bson_t opts = BSON_INITIALIZER, reply;
    bson_t *update =
        BCON_NEW("$set", "{", "item", BCON_INT64((int64_t)id), "at", BCON_DATE_TIME(now_ms), "}");
    bson_error_t be;
    int rc = 0;
    mongo_write_opts(c, &opts);
    BSON_APPEND_BOOL(&opts, "upsert", true);
    if (!mongoc_collection_update_one(mongo_coll(c, COLL_MARKERS), filter, update, &opts, &reply, &be))
        rc = mongo_err(e, &be, &reply, "markers");
    bson_destroy(&reply);
    bson_destroy(&opts);
    bson_destroy(update);
    return rc;
}

/* Two first ones at once: the later one may have lost against the unique _id, and is tried again, for then
 * there is one to compare with. */
int markers_put(struct mongo_conn *c, const char *user, item_id id, bool force, int64_t now_ms,
                struct marker *out, struct err *e)
{
    bson_t *filter = force
                         ? BCON_NEW("_id", BCON_UTF8(user))
                         : BCON_NEW("_id", BCON_UTF8(user), "item", "{", "$lt", BCON_INT64((int64_t)id), "}");
    struct err why = {0};
    int rc = set(c, filter, id, now_ms, &why);
    if (rc != 0 && why.code == ERR_CONFLICT)
        rc = set(c, filter, id, now_ms, &why);
    bson_destroy(filter);
    if (rc != 0 && (why.code != ERR_CONFLICT || force)) {
        if (e)
            *e = why;
        return -1;
    }
    return markers_find(c, user, out, e);
}

int markers_erase(struct mongo_conn *c, const char *user, struct err *e)
{
    bson_t opts = BSON_INITIALIZER, reply, *filter = BCON_NEW("_id", BCON_UTF8(user));
    bson_error_t be;
    int rc = 0;
    mongo_write_opts(c, &opts);
    if (!mongoc_collection_delete_one(mongo_coll(c, COLL_MARKERS), filter, &opts, &reply, &be))
        rc = mongo_err(e, &be, &reply, "markers");
    bson_destroy(&reply);
    bson_destroy(&opts);
    bson_destroy(filter);
    return rc;
}
