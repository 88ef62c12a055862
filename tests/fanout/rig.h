/* rig.h - what the tests of fanout share: real servers, the documents that feed-api would write, timelines as
 * it would build them. Static functions, since every test is one binary; include after cmocka's headers. */
#ifndef FEEDMILL_TESTS_FANOUT_RIG_H
#define FEEDMILL_TESTS_FANOUT_RIG_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/keys.h"
#include "common/mem.h"
#include "common/mongo.h"
#include "common/names.h"
#include "common/redis.h"
#include "tests/support/fixture.h"

#define RIG __attribute__((unused)) static

struct rig {
    struct fixture *f;
    struct redis *redis;
    struct mongo *mongo;
    struct mongo_conn *conn;
};

#define RIG_OK(e, call)                                                                                      \
    do {                                                                                                     \
        if ((call) != 0)                                                                                     \
            fail_msg("%s: %s", #call, (e).msg);                                                              \
    } while (0)

RIG void rig_open_redis(struct rig *r, struct fixture *f)
{
    struct redis_address a;
    struct err e = {0};
    r->f = f;
    RIG_OK(e, redis_address_parse(fixture_redis_address(f), &a, &e));
    r->redis = redis_new(&a, 2000 * fixture_slowness());
}

/* A new, empty database and an empty Redis. */
RIG void rig_open(struct rig *r, struct fixture *f)
{
    struct err e = {0};
    memset(r, 0, sizeof *r);
    fixture_fresh(f);
    rig_open_redis(r, f);
    struct mongo_options o = {.uri = fixture_mongodb_uri(f), .app_name = "test", .pool_size = 20};
    RIG_OK(e, mongo_new(&r->mongo, &o, &e));
    RIG_OK(e, mongo_conn_get(r->mongo, &r->conn, &e));
    mongo_conn_deadline(r->conn, 30000);
    RIG_OK(e, mongo_schema_ensure(r->conn, &e));
}

RIG void rig_close(struct rig *r)
{
    redis_free(r->redis);
    mongo_conn_put(r->conn);
    mongo_free(r->mongo);
    memset(r, 0, sizeof *r);
}

/* ---- MongoDB, as feed-api writes it ---- */

RIG ts_t rig_update(struct rig *r, enum mongo_collection coll, const bson_t *filter, const bson_t *update)
{
    bson_t opts = BSON_INITIALIZER, reply;
    bson_error_t be;
    mongo_conn_deadline(r->conn, 10000);
    BSON_APPEND_BOOL(&opts, "upsert", true);
    mongo_write_opts(r->conn, &opts);
    if (!mongoc_collection_update_one(mongo_coll(r->conn, coll), filter, update, &opts, &reply, &be))
        fail_msg("update: %s", be.message);
    bson_destroy(&reply);
    bson_destroy(&opts);
    return mongo_conn_time(r->conn);
}

/* "a b" as an array field. */
RIG void rig_append_words(bson_t *d, const char *key, const char *words)
{
    bson_t array;
    char *copy = mem_strdup(words), *save = NULL, index[16];
    const char *k;
    uint32_t i = 0;
    BSON_APPEND_ARRAY_BEGIN(d, key, &array);
    for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
        bson_uint32_to_string(i++, &k, index, sizeof index);
        BSON_APPEND_UTF8(&array, k, w);
    }
    bson_append_array_end(d, &array);
    free(copy);
}

RIG ts_t rig_publish(struct rig *r, item_id id, const char *publisher, const char *topics)
{
    bson_t d = BSON_INITIALIZER, opts = BSON_INITIALIZER, reply;
    bson_error_t be;
    mongo_conn_deadline(r->conn, 10000);
    BSON_APPEND_INT64(&d, "_id", (int64_t)id);
    BSON_APPEND_UTF8(&d, "publisher", publisher);
    BSON_APPEND_INT32(&d, "revision", 1);
    BSON_APPEND_UTF8(&d, "title", "title");
    BSON_APPEND_UTF8(&d, "body", "body");
    rig_append_words(&d, "topics", topics);
    BSON_APPEND_BOOL(&d, "live", true);
    mongo_write_opts(r->conn, &opts);
    if (!mongoc_collection_insert_one(mongo_coll(r->conn, COLL_ITEMS), &d, &opts, &reply, &be))
        fail_msg("publish: %s", be.message);
    bson_destroy(&reply);
    bson_destroy(&opts);
    bson_destroy(&d);
    return mongo_conn_time(r->conn);
}

RIG ts_t rig_edit_topics(struct rig *r, item_id id, const char *before, const char *after)
{
    bson_t *filter = BCON_NEW("_id", BCON_INT64((int64_t)id)), update = BSON_INITIALIZER, set;
    BSON_APPEND_DOCUMENT_BEGIN(&update, "$set", &set);
    rig_append_words(&set, "topics", after);
    rig_append_words(&set, "topics_before", before);
    bson_append_document_end(&update, &set);
    BCON_APPEND(&update, "$inc", "{", "revision", BCON_INT32(1), "}");
    ts_t t = rig_update(r, COLL_ITEMS, filter, &update);
    bson_destroy(filter);
    bson_destroy(&update);
    return t;
}

RIG ts_t rig_edit_title(struct rig *r, item_id id, const char *title)
{
    bson_t *filter = BCON_NEW("_id", BCON_INT64((int64_t)id));
    bson_t *update =
        BCON_NEW("$set", "{", "title", BCON_UTF8(title), "}", "$inc", "{", "revision", BCON_INT32(1), "}");
    ts_t t = rig_update(r, COLL_ITEMS, filter, update);
    bson_destroy(filter);
    bson_destroy(update);
    return t;
}

RIG ts_t rig_delete(struct rig *r, item_id id, const char *topics)
{
    bson_t *filter = BCON_NEW("_id", BCON_INT64((int64_t)id)), update = BSON_INITIALIZER, set;
    BCON_APPEND(&update, "$unset", "{", "live", BCON_UTF8(""), "title", BCON_UTF8(""), "body", BCON_UTF8(""),
                "topics", BCON_UTF8(""), "}", "$inc", "{", "revision", BCON_INT32(1), "}");
    BSON_APPEND_DOCUMENT_BEGIN(&update, "$set", &set);
    BSON_APPEND_DATE_TIME(&set, "deleted_at", 1);
    rig_append_words(&set, "topics_before", topics);
    bson_append_document_end(&update, &set);
    ts_t t = rig_update(r, COLL_ITEMS, filter, &update);
    bson_destroy(filter);
    bson_destroy(&update);
    return t;
}

/* Only the edge: what is there before a timeline is built. */
RIG void rig_edge(struct rig *r, const char *user, const char *target)
{
    char id[200];
    snprintf(id, sizeof id, "%s %s", user, target);
    bson_t *filter = BCON_NEW("_id", BCON_UTF8(id));
    bson_t *update =
        BCON_NEW("$set", "{", "t", BCON_UTF8(target), "b", BCON_INT32((int32_t)keys_bucket(user)), "u",
                 BCON_UTF8(user), "s", BCON_DATE_TIME(1), "}");
    rig_update(r, COLL_FOLLOWS, filter, update);
    bson_destroy(filter);
    bson_destroy(update);
}

RIG void rig_unedge(struct rig *r, const char *user, const char *target)
{
    char id[200];
    bson_error_t be;
    snprintf(id, sizeof id, "%s %s", user, target);
    bson_t opts = BSON_INITIALIZER, *filter = BCON_NEW("_id", BCON_UTF8(id));
    mongo_conn_deadline(r->conn, 30000);
    mongo_write_opts(r->conn, &opts);
    if (!mongoc_collection_delete_one(mongo_coll(r->conn, COLL_FOLLOWS), filter, &opts, NULL, &be))
        fail_msg("unedge: %s", be.message);
    bson_destroy(&opts);
    bson_destroy(filter);
}

/* Many edges in few round trips: users "<prefix>0" to "<prefix>n-1". */
RIG void rig_edges(struct rig *r, const char *prefix, unsigned n, const char *target)
{
    bson_error_t be;
    for (unsigned from = 0; from < n;) {
        bson_t opts = BSON_INITIALIZER, reply;
        mongo_conn_deadline(r->conn, 30000);
        mongo_write_opts(r->conn, &opts);
        mongoc_bulk_operation_t *bulk =
            mongoc_collection_create_bulk_operation_with_opts(mongo_coll(r->conn, COLL_FOLLOWS), &opts);
        for (unsigned i = 0; i < 1000 && from < n; i++, from++) {
            char user[80], id[200];
            snprintf(user, sizeof user, "%s%u", prefix, from);
            snprintf(id, sizeof id, "%s %s", user, target);
            bson_t *d = BCON_NEW("_id", BCON_UTF8(id), "t", BCON_UTF8(target), "b",
                                 BCON_INT32((int32_t)keys_bucket(user)), "u", BCON_UTF8(user), "s",
                                 BCON_DATE_TIME(1));
            mongoc_bulk_operation_insert(bulk, d);
            bson_destroy(d);
        }
        if (!mongoc_bulk_operation_execute(bulk, &reply, &be))
            fail_msg("edges: %s", be.message);
        bson_destroy(&reply);
        bson_destroy(&opts);
        mongoc_bulk_operation_destroy(bulk);
    }
}

/* The user's document: one change on the log. */
RIG ts_t rig_touch_user(struct rig *r, const char *user)
{
    bson_t *filter = BCON_NEW("_id", BCON_UTF8(user));
    bson_t *update = BCON_NEW("$inc", "{", "rev", BCON_INT64(1), "}");
    ts_t t = rig_update(r, COLL_USERS, filter, update);
    bson_destroy(filter);
    bson_destroy(update);
    return t;
}

RIG ts_t rig_now(struct rig *r)
{
    struct err e = {0};
    ts_t t = 0;
    RIG_OK(e, mongo_conn_fresh(r->conn, &t, &e));
    return t;
}

/* ---- Redis, as feed-api writes it ---- */

RIG redisReply *rig_script(struct rig *r, enum script s, int nkeys, int argc, const char **argv)
{
    struct err e = {0};
    redisReply *reply = NULL;
    if (redis_script(r->redis, &reply, s, nkeys, argc, argv, NULL, &e) == 0)
        return reply;
    /* NOSCRIPT: a test flushed them; the next connection loads them again. */
    if (redis_script(r->redis, &reply, s, nkeys, argc, argv, NULL, &e) != 0)
        fail_msg("script %s: %s", script_name(s), e.msg);
    return reply;
}

struct rig_keys {
    unsigned bucket;
    char tl[KEY_SIZE], pf[KEY_SIZE], bk[KEY_SIZE];
};

RIG struct rig_keys rig_keys(const char *user)
{
    struct rig_keys k = {.bucket = keys_bucket(user)};
    keys_timeline(k.tl, k.bucket, user);
    keys_timeline_meta(k.pf, k.bucket, user);
    keys_bucket_record(k.bk, k.bucket);
    return k;
}

/* Begins a timeline with at least this R; answers R, or 0 when the bucket has no record. */
RIG ts_t rig_build(struct rig *r, const char *user, ts_t least)
{
    struct rig_keys k = rig_keys(user);
    char text[TS_TEXT_SIZE];
    ts_format(least, text);
    const char *argv[] = {k.tl, k.pf, k.bk, text, "token", "600000"};
    redisReply *reply = rig_script(r, SCRIPT_BUILD, 3, 6, argv);
    ts_t R = 0;
    struct err e = {0};
    if (reply->elements > 1)
        RIG_OK(e, ts_parse(reply->element[1]->str, &R, &e));
    freeReplyObject(reply);
    return R;
}

RIG bool rig_finish(struct rig *r, const char *user)
{
    struct rig_keys k = rig_keys(user);
    const char *argv[] = {k.tl, k.pf, "token", "0", "0", "120", "600000", "", "1", ""};
    redisReply *reply = rig_script(r, SCRIPT_FINISH, 2, 10, argv);
    bool done = reply->integer == 1;
    freeReplyObject(reply);
    return done;
}

/* A ready, empty timeline that saw everything up to now. False: the bucket has no record yet. */
RIG bool rig_timeline(struct rig *r, const char *user)
{
    return rig_build(r, user, rig_now(r)) != 0 && rig_finish(r, user);
}

RIG redisReply *rig_command(struct rig *r, const char *a, const char *b, const char *c)
{
    struct err e = {0};
    redisReply *reply = NULL;
    if (redis_commandf(r->redis, &reply, &e, a, b, c, NULL) != 0)
        fail_msg("%s %s: %s", a, b ? b : "", e.msg);
    return reply;
}

RIG bool rig_holds(struct rig *r, const char *user, item_id id)
{
    char text[ITEM_ID_TEXT_SIZE];
    struct rig_keys k = rig_keys(user);
    ids_format(id, text);
    redisReply *reply = rig_command(r, "ZSCORE", k.tl, text);
    bool yes = reply->type == REDIS_REPLY_STRING;
    if (yes)
        assert_true(strtod(reply->str, NULL) == -(double)id);
    freeReplyObject(reply);
    return yes;
}

RIG long long rig_count(struct rig *r, const char *user)
{
    struct rig_keys k = rig_keys(user);
    redisReply *reply = rig_command(r, "ZCARD", k.tl, NULL);
    long long n = reply->integer;
    freeReplyObject(reply);
    return n;
}

RIG bool rig_exists(struct rig *r, const char *user)
{
    struct rig_keys k = rig_keys(user);
    redisReply *reply = rig_command(r, "EXISTS", k.tl, k.pf);
    long long n = reply->integer;
    freeReplyObject(reply);
    return n == 2;
}

/* A field of a bucket's record as text; "" when it is not there. Static. */
RIG const char *rig_record(struct rig *r, unsigned bucket, const char *field)
{
    static char out[64];
    char bk[KEY_SIZE];
    keys_bucket_record(bk, bucket);
    redisReply *reply = rig_command(r, "HGET", bk, field);
    snprintf(out, sizeof out, "%s", reply->type == REDIS_REPLY_STRING ? reply->str : "");
    freeReplyObject(reply);
    return out;
}

RIG ts_t rig_record_ts(struct rig *r, unsigned bucket, const char *field)
{
    ts_t t = 0;
    if (ts_parse(rig_record(r, bucket, field), &t, NULL) != 0)
        return 0;
    return t;
}

#endif
