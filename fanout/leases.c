#include "fanout/leases.h"

#include <string.h>

/* An update of one document by a pipeline; parsed from JSON text with the placeholders filled by the caller.
 */
static int update_doc(const struct leases *l, enum mongo_collection coll, const bson_t *filter,
                      const bson_t *update, bool upsert, struct err *e)
{
    bson_t opts = BSON_INITIALIZER;
    bson_error_t be;
    bson_t reply;
    if (upsert)
        BSON_APPEND_BOOL(&opts, "upsert", true);
    mongo_write_opts(l->conn, &opts);
    bool ok = mongoc_collection_update_one(mongo_coll(l->conn, coll), filter, update, &opts, &reply, &be);
    int rc = ok ? 0 : mongo_err(e, &be, &reply, mongo_collection_name(coll));
    bson_destroy(&reply);
    bson_destroy(&opts);
    return rc;
}

int leases_ensure(const struct leases *l, struct err *e)
{
    for (unsigned i = 0; i < SHARES; i++) {
        bson_t *filter = BCON_NEW("_id", BCON_INT32((int32_t)i));
        bson_t *update = BCON_NEW("$setOnInsert", "{", "owner", BCON_UTF8(""), "epoch", BCON_INT64(0),
                                  "expires", BCON_DATE_TIME(0), "}");
        int rc = update_doc(l, COLL_SHARES, filter, update, true, e);
        bson_destroy(filter);
        bson_destroy(update);
        if (rc != 0 && e->code != ERR_CONFLICT) /* two made it at once */
            return -1;
    }
    return 0;
}

int leases_sign_on(const struct leases *l, const struct member_state *state, struct err *e)
{
    bson_t told = BSON_INITIALIZER;
    if (state != NULL)
        member_state_append(state, "$literal", &told);
    else
        BSON_APPEND_NULL(&told, "$literal");
    bson_t *filter = BCON_NEW("_id", BCON_UTF8(l->name));
    bson_t *update = BCON_NEW("0", "{", "$set", "{", "seen", BCON_UTF8("$$NOW"), "lease_ms",
                              BCON_INT64(l->lease_ms), "state", BCON_DOCUMENT(&told), "}", "}");
    int rc = update_doc(l, COLL_MEMBERS, filter, update, true, e);
    bson_destroy(filter);
    bson_destroy(update);
    bson_destroy(&told);
    return rc;
}

int leases_sign_off(const struct leases *l, struct err *e)
{
    bson_t *filter = BCON_NEW("_id", BCON_UTF8(l->name));
    bson_t opts = BSON_INITIALIZER, reply;
    bson_error_t be;
    mongo_write_opts(l->conn, &opts);
    bool ok = mongoc_collection_delete_one(mongo_coll(l->conn, COLL_MEMBERS), filter, &opts, &reply, &be);
    int rc = ok ? 0 : mongo_err(e, &be, &reply, "members");
    bson_destroy(&reply);
    bson_destroy(&opts);
    bson_destroy(filter);
    return rc;
}

int leases_count_members(const struct leases *l, unsigned *members, unsigned *rank, struct err *e)
{
    bson_t *filter = BCON_NEW("$expr", "{", "$gt", "[", BCON_UTF8("$seen"), "{", "$subtract", "[",
                              BCON_UTF8("$$NOW"), BCON_INT64(l->lease_ms), "]", "}", "]", "}");
    bson_t opts = BSON_INITIALIZER;
    mongo_read_opts(l->conn, &opts);
    mongoc_cursor_t *cur =
        mongoc_collection_find_with_opts(mongo_coll(l->conn, COLL_MEMBERS), filter, &opts, NULL);
    const bson_t *d;
    unsigned n = 0, before = 0;
    while (mongoc_cursor_next(cur, &d)) {
        const char *name = mongo_get_str(d, "_id", NULL);
        n++;
        before += name && strcmp(name, l->name) < 0;
    }
    bson_error_t be;
    const bson_t *reply = NULL;
    int rc = mongoc_cursor_error_document(cur, &be, &reply) ? mongo_err(e, &be, reply, "members") : 0;
    mongoc_cursor_destroy(cur);
    bson_destroy(&opts);
    bson_destroy(filter);
    if (rc == 0) {
        *members = n ? n : 1;
        *rank = before;
    }
    return rc;
}

int leases_read(const struct leases *l, struct lease out[SHARES], struct err *e)
{
    bson_t filter = BSON_INITIALIZER;
    bson_t *opts = BCON_NEW("projection", "{", "owner", BCON_INT32(1), "epoch", BCON_INT32(1), "expired", "{",
                            "$lte", "[", BCON_UTF8("$expires"), BCON_UTF8("$$NOW"), "]", "}", "}");
    mongo_read_opts(l->conn, opts);
    mongoc_cursor_t *cur =
        mongoc_collection_find_with_opts(mongo_coll(l->conn, COLL_SHARES), &filter, opts, NULL);
    const bson_t *d;
    memset(out, 0, SHARES * sizeof *out);
    while (mongoc_cursor_next(cur, &d)) {
        int64_t id, epoch;
        bson_iter_t it;
        const char *owner = mongo_get_str(d, "owner", NULL);
        if (!owner || !mongo_get_i64(d, "_id", &id) || id < 0 || id >= SHARES ||
            !mongo_get_i64(d, "epoch", &epoch))
            continue;
        out[id].there = true;
        out[id].epoch = epoch;
        out[id].mine = strcmp(owner, l->name) == 0;
        out[id].expired = bson_iter_init_find(&it, d, "expired") && bson_iter_as_bool(&it);
    }
    bson_error_t be;
    const bson_t *reply = NULL;
    int rc = mongoc_cursor_error_document(cur, &be, &reply) ? mongo_err(e, &be, reply, "shares") : 0;
    mongoc_cursor_destroy(cur);
    bson_destroy(opts);
    bson_destroy(&filter);
    return rc;
}

/* Renews every lease that is held under the epoch it is held by, in one command. Those that did not match
 * show when the documents are read afterwards. */
int leases_renew(const struct leases *l, const int64_t epochs[SHARES], struct err *e)
{
    bson_t filter = BSON_INITIALIZER, any, one;
    char buf[16];
    const char *key;
    uint32_t n = 0;
    BSON_APPEND_UTF8(&filter, "owner", l->name);
    BSON_APPEND_ARRAY_BEGIN(&filter, "$or", &any);
    for (unsigned i = 0; i < SHARES; i++) {
        if (epochs[i] == 0)
            continue;
        size_t len = bson_uint32_to_string(n++, &key, buf, sizeof buf);
        bson_append_document_begin(&any, key, (int)len, &one);
        BSON_APPEND_INT32(&one, "_id", (int32_t)i);
        BSON_APPEND_INT64(&one, "epoch", epochs[i]);
        bson_append_document_end(&any, &one);
    }
    bson_append_array_end(&filter, &any);
    int rc = 0;
    if (n) {
        bson_t *update = BCON_NEW("0", "{", "$set", "{", "expires", "{", "$add", "[", BCON_UTF8("$$NOW"),
                                  BCON_INT64(l->lease_ms), "]", "}", "}", "}");
        bson_t opts = BSON_INITIALIZER, reply;
        bson_error_t be;
        mongo_write_opts(l->conn, &opts);
        if (!mongoc_collection_update_many(mongo_coll(l->conn, COLL_SHARES), &filter, update, &opts, &reply,
                                           &be))
            rc = mongo_err(e, &be, &reply, "leases");
        bson_destroy(&reply);
        bson_destroy(&opts);
        bson_destroy(update);
    }
    bson_destroy(&filter);
    return rc;
}

/* Takes a share if filter still holds: the owner becomes this one, the epoch grows to above least. 1 taken, 0
 * not. */
static int take(const struct leases *l, const bson_t *filter, int64_t least, int64_t *epoch, struct err *e)
{
    bson_t *update = BCON_NEW("0", "{", "$set", "{", "owner", "{", "$literal", BCON_UTF8(l->name), "}",
                              "epoch", "{", "$add", "[", "{", "$max", "[", BCON_UTF8("$epoch"),
                              BCON_INT64(least), "]", "}", BCON_INT64(1), "]", "}", "expires", "{", "$add",
                              "[", BCON_UTF8("$$NOW"), BCON_INT64(l->lease_ms), "]", "}", "}", "}");
    mongoc_find_and_modify_opts_t *o = mongoc_find_and_modify_opts_new();
    bson_t extra = BSON_INITIALIZER, reply, value;
    bson_error_t be;
    bson_iter_t it;
    mongo_write_opts(l->conn, &extra);
    mongoc_find_and_modify_opts_append(o, &extra);
    mongoc_find_and_modify_opts_set_update(o, update);
    mongoc_find_and_modify_opts_set_flags(o, MONGOC_FIND_AND_MODIFY_RETURN_NEW);
    int rc = 0;
    if (!mongoc_collection_find_and_modify_with_opts(mongo_coll(l->conn, COLL_SHARES), filter, o, &reply,
                                                     &be)) {
        rc = mongo_err(e, &be, &reply, "share");
    } else if (bson_iter_init_find(&it, &reply, "value") && BSON_ITER_HOLDS_DOCUMENT(&it)) {
        const uint8_t *data;
        uint32_t len;
        bson_iter_document(&it, &len, &data);
        rc = bson_init_static(&value, data, len) && mongo_get_i64(&value, "epoch", epoch)
                 ? 1
                 : err_set(e, ERR_CORRUPT, "share: the document does not read as it should");
    }
    bson_destroy(&reply);
    bson_destroy(&extra);
    bson_destroy(update);
    mongoc_find_and_modify_opts_destroy(o);
    return rc;
}

int leases_take(const struct leases *l, unsigned share, int64_t epoch, int64_t *out, struct err *e)
{
    bson_t *filter =
        BCON_NEW("_id", BCON_INT32((int32_t)share), "epoch", BCON_INT64(epoch), "$expr", "{", "$or", "[", "{",
                 "$lte", "[", BCON_UTF8("$expires"), BCON_UTF8("$$NOW"), "]", "}", "{", "$eq", "[",
                 BCON_UTF8("$owner"), "{", "$literal", BCON_UTF8(l->name), "}", "]", "}", "]", "}");
    int rc = take(l, filter, 0, out, e);
    bson_destroy(filter);
    return rc;
}

static bson_t *held_filter(const struct leases *l, unsigned share, int64_t epoch)
{
    return BCON_NEW("_id", BCON_INT32((int32_t)share), "owner", BCON_UTF8(l->name), "epoch",
                    BCON_INT64(epoch));
}

int leases_retake(const struct leases *l, unsigned share, int64_t epoch, int64_t least, int64_t *out,
                  struct err *e)
{
    bson_t *filter = held_filter(l, share, epoch);
    int rc = take(l, filter, least, out, e);
    bson_destroy(filter);
    return rc;
}

int leases_release(const struct leases *l, unsigned share, int64_t epoch, struct err *e)
{
    bson_t *filter = held_filter(l, share, epoch);
    bson_t *update = BCON_NEW("$set", "{", "owner", BCON_UTF8(""), "expires", BCON_DATE_TIME(0), "}");
    int rc = update_doc(l, COLL_SHARES, filter, update, false, e);
    bson_destroy(filter);
    bson_destroy(update);
    return rc;
}
