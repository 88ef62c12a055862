#include "feed-api/dead_letters.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"

/* ---- as JSON ---- */

static void add_text(struct buf *out, const char *name, const bson_t *d, const char *key)
{
    buf_printf(out, ",\"%s\":", name);
    buf_add_json(out, mongo_get_str(d, key, NULL));
}

static void add_time(struct buf *out, const char *name, const bson_t *d, const char *key)
{
    char text[CLOCK_RFC3339_SIZE];
    int64_t ms = 0;
    mongo_get_i64(d, key, &ms);
    clock_format(ms, text);
    buf_printf(out, ",\"%s\":\"%s\"", name, text);
}

static void add_number(struct buf *out, const char *name, const bson_t *d, const char *key)
{
    int64_t n;
    if (mongo_get_i64(d, key, &n))
        buf_printf(out, ",\"%s\":%lld", name, (long long)n);
    else
        buf_printf(out, ",\"%s\":null", name);
}

static void add_item(struct buf *out, const bson_t *d)
{
    char text[ITEM_ID_TEXT_SIZE];
    int64_t id = 0;
    mongo_get_i64(d, "item", &id);
    ids_format((item_id)id, text);
    buf_add_str(out, ",\"item\":");
    buf_add_json(out, id > 0 ? text : NULL);
}

static void add_letter(const bson_t *d, struct buf *out)
{
    buf_add_str(out, "{\"id\":");
    buf_add_json(out, mongo_get_str(d, "_id", NULL));
    add_text(out, "state", d, "state");
    add_text(out, "kind", d, "kind");
    add_item(out, d);
    add_text(out, "publisher", d, "publisher");
    add_text(out, "user", d, "user");
    add_number(out, "bucket", d, "bucket");
    add_text(out, "position", d, "t");
    add_text(out, "reason", d, "reason");
    add_number(out, "tries", d, "tries");
    add_text(out, "fanout", d, "fanout");
    add_time(out, "first_at", d, "first_at");
    add_time(out, "at", d, "at");
    add_number(out, "replays", d, "replays");
    buf_add_char(out, '}');
}

/* ---- reading ---- */

static mongoc_cursor_t *find(struct mongo_conn *c, const bson_t *filter, int64_t limit)
{
    bson_t opts = BSON_INITIALIZER;
    BCON_APPEND(&opts, "sort", "{", "at", BCON_INT32(-1), "_id", BCON_INT32(-1), "}", "limit",
                BCON_INT64(limit));
    mongo_read_opts(c, &opts);
    mongoc_cursor_t *cursor =
        mongoc_collection_find_with_opts(mongo_coll(c, COLL_DEAD_LETTERS), filter, &opts, NULL);
    bson_destroy(&opts);
    return cursor;
}

static int end(mongoc_cursor_t *cursor, struct err *e)
{
    bson_error_t be;
    const bson_t *reply;
    int rc = mongoc_cursor_error_document(cursor, &be, &reply) ? mongo_err(e, &be, reply, "dead_letters") : 0;
    mongoc_cursor_destroy(cursor);
    return rc;
}

static void behind(bson_t *filter, int64_t at_ms, const char *id)
{
    BCON_APPEND(filter, "$or", "[", "{", "at", "{", "$lt", BCON_DATE_TIME(at_ms), "}", "}", "{", "at",
                BCON_DATE_TIME(at_ms), "_id", "{", "$lt", BCON_UTF8(id), "}", "}", "]");
}

int dead_letters_list(struct mongo_conn *c, unsigned limit, int64_t after_ms, const char *after_id,
                      struct buf *out, bool *more, int64_t *last_ms, char last_id[DEAD_LETTER_ID_SIZE],
                      struct err *e)
{
    bson_t filter = BSON_INITIALIZER;
    const bson_t *d;
    unsigned n = 0;
    *more = false;
    if (after_id != NULL)
        behind(&filter, after_ms, after_id);
    mongoc_cursor_t *cursor = find(c, &filter, (int64_t)limit + 1);
    while (!*more && mongoc_cursor_next(cursor, &d)) {
        const char *id = mongo_get_str(d, "_id", NULL);
        if (n == limit) {
            *more = true;
            continue;
        }
        if (id == NULL || strlen(id) >= DEAD_LETTER_ID_SIZE) /* not ours */
            continue;
        if (n++ > 0)
            buf_add_char(out, ',');
        add_letter(d, out);
        *last_ms = 0;
        mongo_get_i64(d, "at", last_ms);
        strcpy(last_id, id);
    }
    bson_destroy(&filter);
    return end(cursor, e);
}

int dead_letters_get(struct mongo_conn *c, const char *id, struct buf *out, struct err *e)
{
    bson_t *filter = BCON_NEW("_id", BCON_UTF8(id));
    const bson_t *d;
    mongoc_cursor_t *cursor = find(c, filter, 1);
    bool found = mongoc_cursor_next(cursor, &d);
    if (found)
        add_letter(d, out);
    bson_destroy(filter);
    if (end(cursor, e) != 0)
        return -1;
    return found ? 0 : err_set(e, ERR_NOT_FOUND, "there is no such dead letter");
}

int dead_letters_of_item(struct mongo_conn *c, item_id item, bool *open, struct err *e)
{
    bson_t *filter = BCON_NEW("item", BCON_INT64((int64_t)item), "state", BCON_UTF8("dead"));
    bson_t opts = BSON_INITIALIZER;
    const bson_t *d;
    BCON_APPEND(&opts, "limit", BCON_INT64(1), "projection", "{", "_id", BCON_INT32(1), "}");
    mongo_read_opts(c, &opts);
    mongoc_cursor_t *cursor =
        mongoc_collection_find_with_opts(mongo_coll(c, COLL_DEAD_LETTERS), filter, &opts, NULL);
    *open = mongoc_cursor_next(cursor, &d);
    bson_destroy(&opts);
    bson_destroy(filter);
    return end(cursor, e);
}

/* ---- replaying ---- */

struct replay {
    const char *id;
    char before[TS_TEXT_SIZE]; /* a time before the change that is made: later failures are of that change */
    struct dead_letter_replay *out;
};

/* Answers the letter as it was, in *found. */
static int mark(struct mongo_conn *c, const struct replay *r, bson_t *found, struct err *e)
{
    bson_t *filter = BCON_NEW("_id", BCON_UTF8(r->id)), extra = BSON_INITIALIZER;
    bson_t *update = BCON_NEW("$set", "{", "state", BCON_UTF8("replayed"), "replayed_t", BCON_UTF8(r->before),
                              "}", "$inc", "{", "replays", BCON_INT32(1), "}");
    bson_error_t be;
    bson_iter_t it;
    uint32_t n;
    const uint8_t *data;
    bson_t reply, view;
    int rc = -1;
    mongoc_find_and_modify_opts_t *o = mongoc_find_and_modify_opts_new();
    mongo_txn_opts(c, &extra);
    mongoc_find_and_modify_opts_append(o, &extra);
    mongoc_find_and_modify_opts_set_update(o, update);
    if (!mongoc_collection_find_and_modify_with_opts(mongo_coll(c, COLL_DEAD_LETTERS), filter, o, &reply,
                                                     &be)) {
        mongo_txn_err(c, e, &be, &reply, "dead_letters");
    } else if (bson_iter_init_find(&it, &reply, "value") && BSON_ITER_HOLDS_DOCUMENT(&it)) {
        bson_iter_document(&it, &n, &data);
        if (bson_init_static(&view, data, n)) {
            bson_copy_to(&view, found);
            rc = 0;
        }
    } else {
        err_set(e, ERR_NOT_FOUND, "there is no such dead letter");
    }
    mongoc_find_and_modify_opts_destroy(o);
    bson_destroy(&reply);
    bson_destroy(&extra);
    bson_destroy(filter);
    bson_destroy(update);
    return rc;
}

static int touch(struct mongo_conn *c, enum mongo_collection coll, const bson_t *filter, const bson_t *update,
                 struct err *e)
{
    bson_t opts = BSON_INITIALIZER, reply;
    bson_error_t be;
    int rc = 0;
    mongo_txn_opts(c, &opts);
    if (!mongoc_collection_update_one(mongo_coll(c, coll), filter, update, &opts, &reply, &be))
        rc = mongo_txn_err(c, e, &be, &reply, "replay");
    bson_destroy(&reply);
    bson_destroy(&opts);
    return rc;
}

/* Its followers get it again, those of the topics that the letter names lose it (see changes_decode.c). A
 * deleted one asks for nothing. */
static int touch_item(struct mongo_conn *c, int64_t item, const bson_t *letter, struct err *e)
{
    bson_t *filter = BCON_NEW("_id", BCON_INT64(item), "live", BCON_BOOL(true));
    bson_t *update = BCON_NEW("$inc", "{", "touches", BCON_INT32(1), "}"), set = BSON_INITIALIZER;
    bson_iter_t it;
    BSON_APPEND_DATE_TIME(&set, "touched_at", clock_wall_ms());
    if (bson_iter_init_find(&it, letter, "topics_before") && BSON_ITER_HOLDS_ARRAY(&it))
        bson_append_iter(&set, "topics_before", -1, &it);
    BSON_APPEND_DOCUMENT(update, "$set", &set);
    int rc = touch(c, COLL_ITEMS, filter, update, e);
    bson_destroy(&set);
    bson_destroy(update);
    bson_destroy(filter);
    return rc;
}

/* His timeline is dropped, and rebuilt when he reads. Who is not known any more has none. */
static int touch_user(struct mongo_conn *c, const char *user, struct err *e)
{
    bson_t *filter = BCON_NEW("_id", BCON_UTF8(user));
    bson_t *update = BCON_NEW("$inc", "{", "rev", BCON_INT64(1), "}");
    int rc = touch(c, COLL_USERS, filter, update, e);
    bson_destroy(update);
    bson_destroy(filter);
    return rc;
}

static int replay_in_transaction(struct mongo_conn *c, void *arg, struct err *e)
{
    struct replay *r = arg;
    bson_t letter;
    int64_t item = 0;
    int rc = 0;
    if (mark(c, r, &letter, e) != 0)
        return -1;
    size_t n = 0;
    const char *user = mongo_get_str(&letter, "user", &n);
    r->out->user[0] = '\0';
    if (user != NULL && n > 0 && n <= NAME_MAX_BYTES) {
        memcpy(r->out->user, user, n + 1);
        rc = touch_user(c, user, e);
    } else if (mongo_get_i64(&letter, "item", &item)) {
        rc = touch_item(c, item, &letter, e);
    }
    bson_destroy(&letter);
    return rc;
}

int dead_letters_replay(struct mongo_conn *c, const char *id, struct dead_letter_replay *out, struct err *e)
{
    struct replay r = {.id = id, .out = out};
    ts_t now;
    if (mongo_conn_fresh(c, &now, e) != 0)
        return -1;
    ts_format(now, r.before);
    if (mongo_transaction(c, replay_in_transaction, &r, e) != 0)
        return -1;
    out->position = mongo_conn_time(c);
    return 0;
}
