#include "feed-api/items_store.h"

#include <stdlib.h>

#include "feed-api/metrics.h"

#define INSERT_TRIES 4096 /* ids for one item; the deadline ends it earlier */
#define CAS_TRIES    64

static int check_time(struct items *s, struct err *e)
{
    return mongo_conn_left_ms(s->conn) > 1 ? 0 : err_set(e, ERR_TIMEOUT, "no time left for this write");
}

static void written(struct items *s, const struct item *it, enum items_result r, struct items_written *out)
{
    *out = (struct items_written){it->id, it->revision, r, mongo_conn_time(s->conn)};
    items_counted(s, r);
}

/* ---- reading ---- */

static int read_one(struct items *s, const bson_t *filter, struct item *out, struct err *e)
{
    bson_t opts = BSON_INITIALIZER;
    BSON_APPEND_INT64(&opts, "limit", 1);
    BSON_APPEND_BOOL(&opts, "singleBatch", true);
    mongo_read_opts(s->conn, &opts);
    mongoc_cursor_t *cursor =
        mongoc_collection_find_with_opts(mongo_coll(s->conn, COLL_ITEMS), filter, &opts, NULL);
    const bson_t *doc, *reply;
    bson_error_t be;
    int rc;
    if (mongoc_cursor_next(cursor, &doc))
        rc = item_from_bson(doc, out, e);
    else if (mongoc_cursor_error_document(cursor, &be, &reply))
        rc = mongo_err(e, &be, reply, "reading an item");
    else
        rc = err_set(e, ERR_NOT_FOUND, "there is no such item");
    mongoc_cursor_destroy(cursor);
    bson_destroy(&opts);
    return rc;
}

static int read_id(struct items *s, item_id id, struct item *out, struct err *e)
{
    bson_t filter = BSON_INITIALIZER;
    BSON_APPEND_INT64(&filter, "_id", (int64_t)id);
    int rc = read_one(s, &filter, out, e);
    bson_destroy(&filter);
    return rc;
}

static int read_external(struct items *s, const char *publisher, const char *external_id, struct item *out,
                         struct err *e)
{
    bson_t filter = BSON_INITIALIZER;
    BSON_APPEND_UTF8(&filter, "publisher", publisher);
    /* The partial index is only used for who says that it is a string. */
    BCON_APPEND(&filter, "external_id", "{", "$eq", BCON_UTF8(external_id), "$type", "string", "}");
    int rc = read_one(s, &filter, out, e);
    bson_destroy(&filter);
    return rc;
}

int items_get(struct items *s, item_id id, struct item *out, struct err *e)
{
    if (mongo_conn_fresh(s->conn, NULL, e) != 0)
        return -1;
    return read_id(s, id, out, e);
}

int items_get_external(struct items *s, const char *publisher, const char *external_id, struct item *out,
                       struct err *e)
{
    if (mongo_conn_fresh(s->conn, NULL, e) != 0)
        return -1;
    return read_external(s, publisher, external_id, out, e);
}

/* ---- compare and set ---- */

/* Answers 1 when it was set, 0 when the stored one is no longer *old, -1 on errors. */
static int set_if(struct items *s, const bson_t *filter, const bson_t *update, struct err *e)
{
    bson_t opts = BSON_INITIALIZER, reply;
    bson_error_t be;
    mongo_write_opts(s->conn, &opts);
    bool ok =
        mongoc_collection_update_one(mongo_coll(s->conn, COLL_ITEMS), filter, update, &opts, &reply, &be);
    int64_t n = 0;
    int rc = -1;
    if (!ok)
        mongo_err(e, &be, &reply, "changing an item");
    else
        rc = mongo_get_i64(&reply, "modifiedCount", &n) && n > 0;
    bson_destroy(&opts);
    bson_destroy(&reply);
    return rc;
}

static int set_content(struct items *s, const struct item *old, const struct item *next, struct err *e)
{
    bson_t filter = BSON_INITIALIZER, update = BSON_INITIALIZER;
    items_revision(old, next, s->now_ms, &filter, &update);
    int rc = set_if(s, &filter, &update, e);
    bson_destroy(&filter);
    bson_destroy(&update);
    return rc;
}

/* Somebody else was faster: what is stored now takes old's place. The update that found nothing has carried
 * the session beyond the other's write, so this read sees it. */
static int read_again(struct items *s, struct item *old, int tries, struct err *e)
{
    struct item now;
    if (tries + 1 >= CAS_TRIES)
        return err_set(e, ERR_BUSY, "others keep changing this item");
    if (check_time(s, e) != 0 || read_id(s, old->id, &now, e) != 0)
        return -1;
    item_done(old);
    *old = now;
    return 0;
}

static void revised(struct items *s, struct item *old, const struct item *next, struct items_written *out)
{
    struct item before = *old; /* for its topics only; the strings stay old's */
    item_copy_content(old, next);
    old->revision++;
    old->edited_ms = s->now_ms;
    items_noted(s, old, &before, true);
    written(s, old, ITEMS_REVISED, out);
}

static int check_live(const struct item *it, struct err *e)
{
    return it->live ? 0 : err_set(e, ERR_GONE, "this item was deleted");
}

int items_revise(struct items *s, struct item *old, const struct item *it, struct items_written *out,
                 struct err *e)
{
    for (int tries = 0;; tries++) {
        if (check_live(old, e) != 0)
            return -1;
        if (item_same_content(old, it)) {
            written(s, old, ITEMS_UNCHANGED, out);
            return 0;
        }
        int set = set_content(s, old, it, e);
        if (set < 0)
            return -1;
        if (set > 0) {
            revised(s, old, it, out);
            return 0;
        }
        if (read_again(s, old, tries, e) != 0)
            return -1;
    }
}

/* ---- publishing ---- */

static enum items_duplicate duplicate_in(const bson_t *reply)
{
    bson_iter_t it, errors;
    if (!bson_iter_init_find(&it, reply, "writeErrors") || !BSON_ITER_HOLDS_ARRAY(&it) ||
        !bson_iter_recurse(&it, &errors) || !bson_iter_next(&errors) || !BSON_ITER_HOLDS_DOCUMENT(&errors))
        return ITEMS_DUPLICATE_NONE;
    uint32_t n;
    const uint8_t *data;
    bson_t doc;
    bson_iter_document(&errors, &n, &data);
    return bson_init_static(&doc, data, n) ? items_duplicate_of(&doc) : ITEMS_DUPLICATE_NONE;
}

static int insert(struct items *s, const struct item *it, enum items_duplicate *duplicate, struct err *e)
{
    bson_t doc = BSON_INITIALIZER, opts = BSON_INITIALIZER, reply;
    bson_error_t be;
    item_to_bson(it, &doc);
    mongo_write_opts(s->conn, &opts);
    bool ok = mongoc_collection_insert_one(mongo_coll(s->conn, COLL_ITEMS), &doc, &opts, &reply, &be);
    *duplicate = ITEMS_DUPLICATE_NONE;
    if (!ok) {
        *duplicate = duplicate_in(&reply);
        mongo_err(e, &be, &reply, "publishing an item");
    }
    bson_destroy(&doc);
    bson_destroy(&opts);
    bson_destroy(&reply);
    return ok ? 0 : -1;
}

/* The refused insert has carried the session beyond the other one, so this read sees it. */
static int post_known(struct items *s, struct item *it, struct items_written *out, struct err *e)
{
    struct item old;
    if (read_external(s, it->publisher, it->external_id, &old, e) != 0)
        return -1;
    if (items_revise(s, &old, it, out, e) != 0) {
        item_done(&old);
        return -1;
    }
    item_done(it);
    *it = old;
    return 0;
}

/* Within one call libmongoc repeats an insert at most once, as the same retryable write, which the server
 * counts once: an _id that is taken was taken by another item. An answer that was lost altogether is the
 * caller's error. */
int items_post(struct items *s, struct item *it, struct items_written *out, struct err *e)
{
    it->revision = 1;
    it->live = true;
    it->created_ms = s->now_ms;
    if (it->published_ms < 0)
        it->published_ms = s->now_ms;
    for (int tries = 0; tries < INSERT_TRIES; tries++) {
        enum items_duplicate duplicate;
        if (check_time(s, e) != 0)
            return -1;
        it->id = item_ids_next(s->ids, it->published_ms);
        int rc = insert(s, it, &duplicate, e);
        if (rc == 0) {
            item_ids_result(s->ids, it->published_ms, it->id, true);
            items_noted(s, it, NULL, true);
            written(s, it, ITEMS_CREATED, out);
            return 0;
        }
        if (duplicate == ITEMS_DUPLICATE_EXTERNAL) {
            item_ids_unused(s->ids, it->published_ms, it->id);
            return post_known(s, it, out, e);
        }
        if (duplicate != ITEMS_DUPLICATE_ID)
            return -1;
        item_ids_result(s->ids, it->published_ms, it->id, false);
        metrics_add(s->metrics, M_ITEM_ID_RETRIES, 0, 1);
    }
    return err_set(e, ERR_BUSY, "all ids near this item's time are taken");
}

/* ---- patch and delete ---- */

static int check_revision(const struct item *it, int32_t if_match, struct err *e)
{
    if (if_match == 0 || if_match == it->revision)
        return 0;
    return err_set(e, ERR_MISMATCH, "the item's revision is %d", it->revision);
}

/* Answers 1 with *next patched, 0 when the patch changes nothing, -1 on errors. */
static int patched(const struct item *it, const json_t *patch, int32_t if_match, struct item *next,
                   struct item_problem *p, struct err *e)
{
    bool changed = false;
    if (check_live(it, e) != 0)
        return -1;
    if (check_revision(it, if_match, e) != 0)
        return -1;
    item_copy_content(next, it);
    if (item_patch(next, patch, &changed, p) != 0)
        return err_set(e, ERR_INVALID, "%s", p->detail);
    return changed;
}

int items_patch(struct items *s, struct item *it, const json_t *patch, int32_t if_match,
                struct items_written *out, struct item_problem *p, struct err *e)
{
    for (int tries = 0;; tries++) {
        struct item next = {0};
        int rc = patched(it, patch, if_match, &next, p, e);
        if (rc == 0)
            written(s, it, ITEMS_UNCHANGED, out);
        if (rc <= 0) {
            item_done(&next);
            return rc;
        }
        rc = set_content(s, it, &next, e);
        if (rc > 0)
            revised(s, it, &next, out);
        item_done(&next);
        if (rc != 0)
            return rc > 0 ? 0 : -1;
        if (read_again(s, it, tries, e) != 0)
            return -1;
    }
}

void items_bury(struct item *it)
{
    char **const content[] = {&it->title, &it->body, &it->url, &it->media, &it->lang, &it->extra};
    for (size_t i = 0; i < sizeof content / sizeof *content; i++) {
        free(*content[i]);
        *content[i] = NULL;
    }
    it->n_topics = 0;
    it->live = false;
    it->revision++;
}

int items_delete(struct items *s, struct item *it, int32_t if_match, struct items_written *out, struct err *e)
{
    for (int tries = 0; it->live; tries++) {
        if (check_revision(it, if_match, e) != 0)
            return -1;
        bson_t filter = BSON_INITIALIZER, update = BSON_INITIALIZER;
        items_tombstone(it, s->now_ms, &filter, &update);
        int set = set_if(s, &filter, &update, e);
        bson_destroy(&filter);
        bson_destroy(&update);
        if (set < 0)
            return -1;
        if (set > 0) {
            struct item before = *it;
            items_bury(it);
            items_noted(s, it, &before, true);
            break;
        }
        if (read_again(s, it, tries, e) != 0)
            return -1;
    }
    written(s, it, ITEMS_DELETED, out);
    return 0;
}
