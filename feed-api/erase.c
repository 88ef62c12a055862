#include "feed-api/erase.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/keys.h"
#include "common/mem.h"
#include "common/names.h"
#include "feed-api/follow_set.h"

#define SCAN_COUNT    "500" /* keys a step: what others wait for in Redis */
#define STREAM_COUNT  "1000"
#define STREAM_GROUP  "ranker"
#define ENTRIES_CHUNK 100

/* ---- MongoDB ---- */

struct stored {
    const char *user;
};

static int delete_in_txn(struct mongo_conn *c, enum mongo_collection coll, bson_t *filter, struct err *e)
{
    bson_t opts = BSON_INITIALIZER, reply;
    bson_error_t be;
    int rc = 0;
    mongo_txn_opts(c, &opts);
    if (!mongoc_collection_delete_many(mongo_coll(c, coll), filter, &opts, &reply, &be))
        rc = mongo_txn_err(c, e, &be, &reply, "erase a user");
    bson_destroy(&reply);
    bson_destroy(&opts);
    bson_destroy(filter);
    return rc;
}

/* All edges of a user are a range of _id: names hold no white space, and '!' follows the space. */
static bson_t *edges_of(const char *user)
{
    char low[NAME_MAX_BYTES + 2], high[NAME_MAX_BYTES + 2];
    snprintf(low, sizeof low, "%s ", user);
    snprintf(high, sizeof high, "%s!", user);
    return BCON_NEW("_id", "{", "$gt", BCON_UTF8(low), "$lt", BCON_UTF8(high), "}");
}

/* The user's document first: whoever changes his follows or mutes meanwhile collides there. */
static int erase_in_txn(struct mongo_conn *c, void *arg, struct err *e)
{
    const struct stored *s = arg;
    if (delete_in_txn(c, COLL_USERS, BCON_NEW("_id", BCON_UTF8(s->user)), e) != 0 ||
        delete_in_txn(c, COLL_FOLLOWS, edges_of(s->user), e) != 0 ||
        delete_in_txn(c, COLL_MUTES, edges_of(s->user), e) != 0 ||
        delete_in_txn(c, COLL_MARKERS, BCON_NEW("_id", BCON_UTF8(s->user)), e) != 0)
        return -1;
    return delete_in_txn(c, COLL_DEAD_LETTERS, BCON_NEW("user", BCON_UTF8(s->user)), e);
}

int erase_stored(struct mongo_conn *c, struct counts *counts, const char *user, struct err *e)
{
    struct stored s = {user};
    struct follow_set follows;
    if (mongo_conn_fresh(c, NULL, e) != 0 || follow_set_load(c, user, &follows, e) != 0)
        return -1;
    int rc = mongo_transaction(c, erase_in_txn, &s, e);
    for (size_t i = 0; rc == 0 && i < follows.n_publishers; i++)
        counts_touch(counts, TARGET_PUBLISHER, follows.publishers[i]);
    for (size_t i = 0; rc == 0 && i < follows.n_topics; i++)
        counts_touch(counts, TARGET_TOPIC, follows.topics[i]);
    follow_set_done(&follows);
    return rc;
}

/* ---- Redis ---- */

void erase_pattern(const char *user, char out[ERASE_PATTERN_SIZE])
{
    size_t n = 0;
    memcpy(out, "*}:", 3);
    n = 3;
    for (const char *s = user; *s; s++) {
        if (strchr("*?[]\\", *s))
            out[n++] = '\\';
        out[n++] = *s;
    }
    memcpy(out + n, "/*", 3);
}

static int check_time(int64_t deadline, struct err *e)
{
    return clock_mono_ms() < deadline ? 0 : err_set(e, ERR_TIMEOUT, "no time left to erase a user");
}

static int run(struct redis *r, int argc, const char **argv, struct err *e)
{
    redisReply *reply;
    if (redis_command(r, &reply, argc, argv, NULL, e) != 0)
        return -1;
    freeReplyObject(reply);
    return 0;
}

/* The timeline, the affinities, and the name among the timelines built last: those are counted from the
 * list's end, so his place stays, under a name that nobody can have. */
static int erase_keys(struct redis *r, const char *user, struct err *e)
{
    unsigned b = keys_bucket(user);
    char timeline[KEY_SIZE], meta[KEY_SIZE], affinity[KEY_SIZE], births[KEY_SIZE];
    keys_timeline(timeline, b, user);
    keys_timeline_meta(meta, b, user);
    keys_affinity(affinity, b, user);
    keys_births(births, b);
    const char *argv[] = {timeline, meta, affinity, births, user};
    redisReply *reply;
    if (redis_script(r, &reply, SCRIPT_ERASE, 4, MEM_COUNT(argv), argv, NULL, e) != 0)
        return -1;
    freeReplyObject(reply);
    return 0;
}

static int erase_found(struct redis *r, const redisReply *keys, struct err *e)
{
    for (size_t i = 0; i < keys->elements; i++) {
        const char *argv[] = {"UNLINK", keys->element[i]->str};
        size_t len[] = {6, keys->element[i]->len};
        redisReply *reply;
        if (redis_command(r, &reply, 2, argv, len, e) != 0)
            return -1;
        freeReplyObject(reply);
    }
    return 0;
}

/* Sessions and events seen: keys of his that nobody has a list of. */
static int erase_listed_nowhere(struct redis *r, const char *user, int64_t deadline, struct err *e)
{
    char pattern[ERASE_PATTERN_SIZE], cursor[32] = "0";
    erase_pattern(user, pattern);
    do {
        const char *argv[] = {"SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT};
        redisReply *reply;
        if (check_time(deadline, e) != 0 || redis_command(r, &reply, MEM_COUNT(argv), argv, NULL, e) != 0)
            return -1;
        int rc = -1;
        if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2)
            err_set(e, ERR_INTERNAL, "redis: SCAN answered something else");
        else
            rc = erase_found(r, reply->element[1], e);
        if (rc == 0)
            snprintf(cursor, sizeof cursor, "%s", reply->element[0]->str);
        freeReplyObject(reply);
        if (rc != 0)
            return -1;
    } while (strcmp(cursor, "0") != 0);
    return 0;
}

static bool is_of(const redisReply *entry, const char *user)
{
    if (entry->type != REDIS_REPLY_ARRAY || entry->elements != 2 ||
        entry->element[1]->type != REDIS_REPLY_ARRAY)
        return false;
    const redisReply *fields = entry->element[1];
    for (size_t i = 0; i + 1 < fields->elements; i += 2)
        if (strcmp(fields->element[i]->str, "u") == 0)
            return strcmp(fields->element[i + 1]->str, user) == 0;
    return false;
}

/* Acknowledged first: what the ranker has taken and not learned yet is skipped then. */
static int erase_entries(struct redis *r, const char *stream, const char **ids, int n, struct err *e)
{
    const char *ack[ENTRIES_CHUNK + 3] = {"XACK", stream, STREAM_GROUP};
    const char *del[ENTRIES_CHUNK + 2] = {"XDEL", stream};
    memcpy(ack + 3, ids, (size_t)n * sizeof *ids);
    memcpy(del + 2, ids, (size_t)n * sizeof *ids);
    return run(r, n + 3, ack, e) != 0 || run(r, n + 2, del, e) != 0 ? -1 : 0;
}

static int erase_in_range(struct redis *r, const char *stream, const redisReply *range, const char *user,
                          struct err *e)
{
    const char *ids[ENTRIES_CHUNK];
    int n = 0;
    for (size_t i = 0; i < range->elements; i++) {
        if (is_of(range->element[i], user))
            ids[n++] = range->element[i]->element[0]->str;
        bool last = i + 1 == range->elements;
        if (n == ENTRIES_CHUNK || (last && n > 0)) {
            if (erase_entries(r, stream, ids, n, e) != 0)
                return -1;
            n = 0;
        }
    }
    return 0;
}

static int erase_events(struct redis *r, const char *user, int64_t deadline, struct err *e)
{
    char stream[KEY_SIZE], from[64] = "-";
    keys_event_stream(stream, keys_bucket(user) % EVENT_STREAMS);
    for (;;) {
        const char *argv[] = {"XRANGE", stream, from, "+", "COUNT", STREAM_COUNT};
        redisReply *reply;
        if (check_time(deadline, e) != 0 || redis_command(r, &reply, MEM_COUNT(argv), argv, NULL, e) != 0)
            return -1;
        size_t n = reply->type == REDIS_REPLY_ARRAY ? reply->elements : 0;
        int rc = erase_in_range(r, stream, reply, user, e);
        if (n > 0)
            snprintf(from, sizeof from, "(%s", reply->element[n - 1]->element[0]->str);
        freeReplyObject(reply);
        if (rc != 0 || n == 0)
            return rc;
    }
}

static pthread_mutex_t scanning = PTHREAD_MUTEX_INITIALIZER;

int erase_derived(struct redis *r, const char *user, int64_t deadline, struct err *e)
{
    if (pthread_mutex_trylock(&scanning) != 0)
        return err_set(e, ERR_BUSY, "another user is just being erased");
    int rc = erase_events(r, user, deadline, e);
    if (rc == 0)
        rc = erase_keys(r, user, e);
    if (rc == 0)
        rc = erase_listed_nowhere(r, user, deadline, e);
    pthread_mutex_unlock(&scanning);
    return rc;
}
