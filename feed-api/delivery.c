#include "feed-api/delivery.h"

#include <stdlib.h>
#include <string.h>

#include "common/keys.h"
#include "feed-api/dead_letters.h"

#define HISTORY_DOCS 512
#define ALL_SHARES   ((1u << DELIVERY_SHARES) - 1)
#define TOO_OLD      239 /* SnapshotTooOld */
#define UNAVAILABLE  246 /* SnapshotUnavailable */

const char *delivery_state_name(enum delivery_state s)
{
    static const char *const names[] = {"pending", "delivered", "dead"};
    return names[s];
}

/* ---- the item ---- */

static void take_target(struct delivery_item *it, enum target_kind kind, const char *name, size_t n)
{
    if (name != NULL && names_check(name, n, NULL) == 0 && it->n_targets < 1 + ITEM_TOPICS_MAX)
        target_format(kind, name, it->targets[it->n_targets++]);
}

static void take_topics(const bson_t *d, struct delivery_item *it)
{
    bson_iter_t at, topic;
    if (!bson_iter_init_find(&at, d, "topics") || !BSON_ITER_HOLDS_ARRAY(&at) ||
        !bson_iter_recurse(&at, &topic))
        return;
    while (bson_iter_next(&topic)) {
        uint32_t n = 0;
        const char *name = BSON_ITER_HOLDS_UTF8(&topic) ? bson_iter_utf8(&topic, &n) : NULL;
        take_target(it, TARGET_TOPIC, name, n);
    }
}

static void take_item(const bson_t *d, struct delivery_item *it)
{
    static const char *const times[] = {"created_at", "edited_at", "touched_at"};
    bson_iter_t at;
    size_t n;
    const char *publisher = mongo_get_str(d, "publisher", &n);
    it->live = bson_iter_init_find(&at, d, "live") && bson_iter_as_bool(&at);
    mongo_get_i64(d, "revision", &it->revision);
    mongo_get_i64(d, "touches", &it->touches);
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        int64_t ms = 0;
        if (mongo_get_i64(d, times[i], &ms) && ms > it->changed_ms)
            it->changed_ms = ms;
    }
    take_target(it, TARGET_PUBLISHER, publisher, publisher != NULL ? n : 0);
    if (it->n_targets > 0)
        memcpy(it->publisher, publisher, n + 1);
    take_topics(d, it);
}

static int end(mongoc_cursor_t *cursor, const char *what, struct err *e)
{
    bson_error_t be;
    const bson_t *reply;
    int rc = mongoc_cursor_error_document(cursor, &be, &reply) ? mongo_err(e, &be, reply, what) : 0;
    mongoc_cursor_destroy(cursor);
    return rc;
}

static mongoc_cursor_t *find(struct mongo_conn *c, enum mongo_collection coll, bson_t *filter, bson_t *opts)
{
    mongo_read_opts(c, opts);
    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(mongo_coll(c, coll), filter, opts, NULL);
    bson_destroy(filter);
    bson_destroy(opts);
    return cursor;
}

static void put_projection(bson_t *d)
{
    BCON_APPEND(d, "projection", "{", "publisher", BCON_INT32(1), "topics", BCON_INT32(1), "live",
                BCON_INT32(1), "revision", BCON_INT32(1), "touches", BCON_INT32(1), "created_at",
                BCON_INT32(1), "edited_at", BCON_INT32(1), "touched_at", BCON_INT32(1), "}");
}

int delivery_item(struct mongo_conn *c, item_id id, struct delivery_item *out, struct err *e)
{
    struct delivery_item it = {.id = id};
    const bson_t *d;
    bson_t *opts = BCON_NEW("limit", BCON_INT64(1));
    put_projection(opts);
    mongoc_cursor_t *cursor = find(c, COLL_ITEMS, BCON_NEW("_id", BCON_INT64((int64_t)id)), opts);
    bool found = mongoc_cursor_next(cursor, &d);
    if (found)
        take_item(d, &it);
    if (end(cursor, "item", e) != 0)
        return -1;
    if (!found)
        return err_set(e, ERR_NOT_FOUND, "there is no such item");
    *out = it;
    return 0;
}

/* ---- progress ---- */

/* The least of all buckets; 0: not known, since one has no record, or Redis does not answer. */
static ts_t read_progress(struct redis *r)
{
    char key[KEY_SIZE];
    ts_t least = 0, t;
    bool known = true;
    unsigned sent = 0;
    for (; sent < BUCKETS; sent++) {
        keys_bucket_record(key, sent);
        const char *argv[] = {"HGET", key, "progress"};
        if (redis_append(r, 3, argv, NULL, NULL) != 0)
            break;
    }
    known = sent == BUCKETS;
    while (redis_pending(r) > 0) {
        redisReply *reply = NULL;
        if (redis_read(r, &reply, NULL) != 0) {
            known = false;
            continue;
        }
        if (reply->type == REDIS_REPLY_STRING && ts_parse(reply->str, &t, NULL) == 0)
            least = least == 0 || t < least ? t : least;
        else
            known = false;
        freeReplyObject(reply);
    }
    return known ? least : 0;
}

/* ---- the item at the time of progress ---- */

enum answer { NO, YES, NOT_KNOWN };

static bson_t *snapshot_command(struct mongo_conn *c, item_id id, ts_t t)
{
    bson_t *cmd =
        BCON_NEW("find", BCON_UTF8(mongo_collection_name(COLL_ITEMS)), "filter", "{", "_id",
                 BCON_INT64((int64_t)id), "}", "limit", BCON_INT64(1), "singleBatch", BCON_BOOL(true),
                 "maxTimeMS", BCON_INT64(mongo_conn_left_ms(c)), "readConcern", "{", "level",
                 BCON_UTF8("snapshot"), "atClusterTime", BCON_TIMESTAMP(ts_seconds(t), (uint32_t)t), "}");
    put_projection(cmd);
    return cmd;
}

/* No session: one of ours carries a time that it reads after, which a read at a time must not have. */
static int read_at(struct mongo_conn *c, item_id id, ts_t t, struct delivery_item *out, enum answer *known,
                   struct err *e)
{
    bson_t *cmd = snapshot_command(c, id, t), reply, first;
    bson_error_t be;
    bson_iter_t it, doc;
    uint32_t n;
    const uint8_t *data;
    int rc = 0;
    *known = NO;
    if (!mongoc_client_command_simple(mongo_client(c), mongo_conn_database(c), cmd, NULL, &reply, &be)) {
        rc = mongo_err(e, &be, &reply, "item at a time");
        if (be.code == TOO_OLD || be.code == UNAVAILABLE || e->code == ERR_INTERNAL) {
            *known = NOT_KNOWN;
            rc = 0;
        }
    } else if (bson_iter_init(&it, &reply) && bson_iter_find_descendant(&it, "cursor.firstBatch.0", &doc) &&
               BSON_ITER_HOLDS_DOCUMENT(&doc)) {
        bson_iter_document(&doc, &n, &data);
        if (bson_init_static(&first, data, n)) {
            take_item(&first, out);
            *known = YES;
        }
    }
    bson_destroy(&reply);
    bson_destroy(cmd);
    return rc;
}

static int has_passed(struct mongo_conn *c, const struct delivery_item *it, ts_t t, enum answer *out,
                      struct err *e)
{
    struct delivery_item then = {.id = it->id};
    if (read_at(c, it->id, t, &then, out, e) != 0)
        return -1;
    if (*out == YES && (then.revision < it->revision || then.touches < it->touches))
        *out = NO;
    if (*out == NOT_KNOWN)
        *out = it->changed_ms + DELIVERY_SKEW_MS <= (int64_t)ts_seconds(t) * 1000 ? YES : NO;
    return 0;
}

/* ---- the history ---- */

static void take_point(struct delivery_history *h, const bson_t *point)
{
    int64_t at = 0, heartbeat = 0, mask = 0;
    if (!mongo_get_i64(point, "a", &at) || !mongo_get_i64(point, "h", &heartbeat) ||
        !mongo_get_i64(point, "m", &mask) || heartbeat < h->wanted_ms)
        return;
    uint32_t new = (uint32_t)mask &ALL_SHARES & ~h->passed;
    h->passed |= new;
    if (new != 0 && at > h->last_ms)
        h->last_ms = at;
}

bool delivery_history_add(struct delivery_history *h, const bson_t *d)
{
    bson_iter_t it, point;
    if (bson_iter_init_find(&it, d, "points") && BSON_ITER_HOLDS_ARRAY(&it) &&
        bson_iter_recurse(&it, &point)) {
        while (bson_iter_next(&point)) {
            uint32_t n;
            const uint8_t *data;
            bson_t one;
            if (!BSON_ITER_HOLDS_DOCUMENT(&point))
                continue;
            bson_iter_document(&point, &n, &data);
            if (bson_init_static(&one, data, n))
                take_point(h, &one);
        }
    }
    return h->passed == ALL_SHARES;
}

/* Whether there is a history of that time at all: it is kept for a week. */
static int reaches_back(struct mongo_conn *c, int64_t ms, bool *yes, struct err *e)
{
    const bson_t *d;
    mongoc_cursor_t *cursor =
        find(c, COLL_RECEIPTS, BCON_NEW("at", "{", "$lte", BCON_DATE_TIME(ms), "}"),
             BCON_NEW("limit", BCON_INT64(1), "projection", "{", "_id", BCON_INT32(1), "}"));
    *yes = mongoc_cursor_next(cursor, &d);
    return end(cursor, "receipts", e);
}

/* When all shares had passed a heartbeat of ms; 0: that is not known. */
static int read_history(struct mongo_conn *c, int64_t ms, int64_t *out, struct err *e)
{
    struct delivery_history h = {.wanted_ms = ms};
    const bson_t *d;
    bool all = false;
    mongoc_cursor_t *cursor = find(c, COLL_RECEIPTS, BCON_NEW("h", "{", "$gte", BCON_DATE_TIME(ms), "}"),
                                   BCON_NEW("sort", "{", "h", BCON_INT32(1), "}", "limit",
                                            BCON_INT64(HISTORY_DOCS), "batchSize", BCON_INT64(64)));
    while (!all && mongoc_cursor_next(cursor, &d))
        all = delivery_history_add(&h, d);
    if (end(cursor, "receipts", e) != 0)
        return -1;
    *out = all ? h.last_ms : 0;
    return 0;
}

static int find_when(struct mongo_conn *c, const struct delivery_item *it, struct delivery *out,
                     struct err *e)
{
    bool known;
    if (reaches_back(c, it->changed_ms, &known, e) != 0)
        return -1;
    if (!known)
        return 0;
    if (read_history(c, it->changed_ms, &out->delivered_ms, e) != 0)
        return -1;
    if (out->delivered_ms != 0 && out->delivered_ms < it->changed_ms) /* two clocks */
        out->delivered_ms = it->changed_ms;
    return 0;
}

/* ---- the audience ---- */

static bson_t *audience_pipeline(const struct delivery_item *it)
{
    bson_t in = BSON_INITIALIZER;
    char index[16];
    const char *key;
    for (unsigned i = 0; i < it->n_targets; i++) {
        size_t n = bson_uint32_to_string(i, &key, index, sizeof index);
        bson_append_utf8(&in, key, (int)n, it->targets[i], -1);
    }
    bson_t *p = BCON_NEW("pipeline", "[", "{", "$match", "{", "t", "{", "$in", BCON_ARRAY(&in), "}", "}", "}",
                         "{", "$limit", BCON_INT64(DELIVERY_AUDIENCE_MAX + 1), "}", "{", "$group", "{", "_id",
                         BCON_UTF8("$u"), "n", "{", "$sum", BCON_INT32(1), "}", "}", "}", "{", "$group", "{",
                         "_id", BCON_NULL, "users", "{", "$sum", BCON_INT32(1), "}", "edges", "{", "$sum",
                         BCON_UTF8("$n"), "}", "}", "}", "]");
    bson_destroy(&in);
    return p;
}

static int count_readers(struct mongo_conn *c, const struct delivery_item *it, int64_t *users, int64_t *edges,
                         struct err *e)
{
    bson_t *pipeline = audience_pipeline(it), opts = BSON_INITIALIZER;
    const bson_t *d;
    BCON_APPEND(&opts, "hint", "{", "t", BCON_INT32(1), "b", BCON_INT32(1), "u", BCON_INT32(1), "}");
    mongo_read_opts(c, &opts);
    mongoc_cursor_t *cursor =
        mongoc_collection_aggregate(mongo_coll(c, COLL_FOLLOWS), MONGOC_QUERY_NONE, pipeline, &opts, NULL);
    *users = *edges = 0;
    if (mongoc_cursor_next(cursor, &d)) {
        mongo_get_i64(d, "users", users);
        mongo_get_i64(d, "edges", edges);
    }
    bson_destroy(&opts);
    bson_destroy(pipeline);
    return end(cursor, "audience", e);
}

/* What counts.h keeps up to date. */
static int most_followers(struct mongo_conn *c, const struct delivery_item *it, int64_t *out, struct err *e)
{
    bson_t in = BSON_INITIALIZER;
    char index[16];
    const char *key;
    const bson_t *d;
    for (unsigned i = 0; i < it->n_targets; i++) {
        size_t n = bson_uint32_to_string(i, &key, index, sizeof index);
        bson_append_utf8(&in, key, (int)n, it->targets[i], -1);
    }
    mongoc_cursor_t *cursor = find(c, COLL_TARGETS, BCON_NEW("_id", "{", "$in", BCON_ARRAY(&in), "}"),
                                   BCON_NEW("projection", "{", "followers", BCON_INT32(1), "}"));
    bson_destroy(&in);
    while (mongoc_cursor_next(cursor, &d)) {
        int64_t n = 0;
        if (mongo_get_i64(d, "followers", &n) && n > *out)
            *out = n;
    }
    return end(cursor, "targets", e);
}

static int count_audience(struct mongo_conn *c, const struct delivery_item *it, int64_t *out, struct err *e)
{
    int64_t users, edges;
    if (count_readers(c, it, &users, &edges, e) != 0)
        return -1;
    *out = users;
    return edges > DELIVERY_AUDIENCE_MAX ? most_followers(c, it, out, e) : 0;
}

/* ---- all of it ---- */

static int find_state(struct mongo_conn *c, struct redis *r, const struct delivery_item *it,
                      enum delivery_state *out, struct err *e)
{
    bool dead;
    enum answer passed = NO;
    int64_t when = 0;
    *out = DELIVERY_PENDING;
    if (dead_letters_of_item(c, it->id, &dead, e) != 0)
        return -1;
    ts_t t = dead ? 0 : read_progress(r);
    if (dead)
        *out = DELIVERY_DEAD;
    else if (t != 0 && has_passed(c, it, t, &passed, e) != 0)
        return -1;
    else if (t == 0 && read_history(c, it->changed_ms + DELIVERY_SKEW_MS, &when, e) != 0)
        return -1;
    if (passed == YES || when != 0)
        *out = DELIVERY_DELIVERED;
    return 0;
}

int delivery_find(struct mongo_conn *c, struct redis *r, const struct delivery_item *it, struct delivery *out,
                  struct err *e)
{
    struct delivery d = {.state = DELIVERY_PENDING};
    if (find_state(c, r, it, &d.state, e) != 0 || count_audience(c, it, &d.audience, e) != 0)
        return -1;
    if (d.state == DELIVERY_DELIVERED && find_when(c, it, &d, e) != 0)
        return -1;
    *out = d;
    return 0;
}
