#include "fanout/audience.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/mem.h"

/* How many _ids one look-up of follows may name: 17 for each of this many users. */
#define MATCH_USERS 100

void audience_batch_init(struct audience_batch *b, unsigned cap)
{
    memset(b, 0, sizeof *b);
    b->cap = cap ? cap : 1;
    b->at = mem_zero(b->cap, sizeof *b->at);
}

void audience_batch_done(struct audience_batch *b)
{
    free(b->at);
    memset(b, 0, sizeof *b);
}

void audience_begin(struct audience *a, const char *target, struct bucket_range range)
{
    memset(a, 0, sizeof *a);
    a->target = target;
    a->range = range;
}

/* The range is given as index bounds (min, max with a hint) and not as a filter: one straight scan of the
 * index, whatever the planner would think of an $or for "after (bucket, user)". min is inclusive, so the last
 * one comes again and is left out by the reader. */
static void next_opts(const struct audience *a, struct mongo_conn *c, unsigned limit, bson_t *opts)
{
    bson_t child;
    BSON_APPEND_DOCUMENT_BEGIN(opts, "hint", &child);
    BSON_APPEND_INT32(&child, "t", 1);
    BSON_APPEND_INT32(&child, "b", 1);
    BSON_APPEND_INT32(&child, "u", 1);
    bson_append_document_end(opts, &child);
    BSON_APPEND_DOCUMENT_BEGIN(opts, "min", &child);
    BSON_APPEND_UTF8(&child, "t", a->target);
    BSON_APPEND_INT32(&child, "b", (int32_t)(a->begun ? a->last.bucket : a->range.first));
    if (a->begun)
        BSON_APPEND_UTF8(&child, "u", a->last.user);
    else
        BSON_APPEND_MINKEY(&child, "u");
    bson_append_document_end(opts, &child);
    BSON_APPEND_DOCUMENT_BEGIN(opts, "max", &child);
    BSON_APPEND_UTF8(&child, "t", a->target);
    BSON_APPEND_INT32(&child, "b", (int32_t)a->range.last + 1);
    BSON_APPEND_MINKEY(&child, "u");
    bson_append_document_end(opts, &child);
    BSON_APPEND_DOCUMENT_BEGIN(opts, "projection", &child);
    BSON_APPEND_INT32(&child, "_id", 0);
    BSON_APPEND_INT32(&child, "b", 1);
    BSON_APPEND_INT32(&child, "u", 1);
    bson_append_document_end(opts, &child);
    BSON_APPEND_INT64(opts, "limit", limit);
    BSON_APPEND_INT64(opts, "batchSize", limit);
    mongo_read_opts(c, opts);
}

static bool read_follower(const bson_t *d, struct follower *out)
{
    int64_t bucket;
    size_t len;
    const char *user = mongo_get_str(d, "u", &len);
    if (!user || len == 0 || len > NAME_MAX_BYTES || strlen(user) != len || !mongo_get_i64(d, "b", &bucket) ||
        bucket < 0 || bucket >= BUCKETS)
        return false;
    out->bucket = (unsigned)bucket;
    memcpy(out->user, user, len + 1);
    return true;
}

/* Takes one document into the batch; answers false for the one that the batch before ended with. */
static void take_follower(const struct audience *a, const bson_t *d, struct audience_batch *b)
{
    struct follower f;
    if (!read_follower(d, &f)) {
        b->skipped++;
        return;
    }
    if (a->begun && f.bucket == a->last.bucket && strcmp(f.user, a->last.user) == 0)
        return;
    if (b->n < b->cap)
        b->at[b->n++] = f;
}

/* Both documents are destroyed: the cursor has copies. */
static mongoc_cursor_t *find_edges(struct mongo_conn *c, bson_t *filter, bson_t *opts)
{
    mongoc_cursor_t *cur = mongoc_collection_find_with_opts(mongo_coll(c, COLL_FOLLOWS), filter, opts, NULL);
    bson_destroy(filter);
    bson_destroy(opts);
    return cur;
}

static int end_edges(mongoc_cursor_t *cur, const char *what, struct err *e)
{
    bson_error_t be;
    const bson_t *reply = NULL;
    int rc = mongoc_cursor_error_document(cur, &be, &reply) ? mongo_err(e, &be, reply, what) : 0;
    mongoc_cursor_destroy(cur);
    return rc;
}

/* The _id of an edge says all of it. */
static void only_ids(struct mongo_conn *c, int64_t batch, bson_t *opts)
{
    bson_t projection;
    BSON_APPEND_DOCUMENT_BEGIN(opts, "projection", &projection);
    BSON_APPEND_INT32(&projection, "_id", 1);
    bson_append_document_end(opts, &projection);
    BSON_APPEND_INT64(opts, "batchSize", batch);
    mongo_read_opts(c, opts);
}

int audience_next(struct audience *a, struct mongo_conn *c, struct audience_batch *b, struct err *e)
{
    b->n = b->skipped = 0;
    if (a->ended)
        return 0;
    unsigned limit = b->cap + 1, seen = 0;
    bson_t filter = BSON_INITIALIZER, opts = BSON_INITIALIZER;
    next_opts(a, c, limit, &opts);
    mongoc_cursor_t *cur = find_edges(c, &filter, &opts);
    const bson_t *d;
    while (mongoc_cursor_next(cur, &d)) {
        seen++;
        take_follower(a, d, b);
    }
    if (end_edges(cur, "audience", e) != 0)
        return -1;
    /* Nothing but unreadable documents in a full batch would be read for ever: then this target's rest is
     * left out. */
    a->ended = seen < limit || b->n == 0;
    if (b->n == 0)
        return 0;
    a->last = b->at[b->n - 1];
    a->begun = true;
    return 1;
}

static void few_query(struct mongo_conn *c, const char (*targets)[TARGET_TEXT_SIZE], unsigned n,
                      struct bucket_range range, unsigned limit, bson_t *filter, bson_t *opts)
{
    bson_t child, in;
    char index[16];
    const char *key;
    BSON_APPEND_DOCUMENT_BEGIN(filter, "t", &child);
    BSON_APPEND_ARRAY_BEGIN(&child, "$in", &in);
    for (unsigned i = 0; i < n; i++) {
        size_t len = bson_uint32_to_string(i, &key, index, sizeof index);
        bson_append_utf8(&in, key, (int)len, targets[i], -1);
    }
    bson_append_array_end(&child, &in);
    bson_append_document_end(filter, &child);
    BSON_APPEND_DOCUMENT_BEGIN(filter, "b", &child);
    BSON_APPEND_INT32(&child, "$gte", (int32_t)range.first);
    BSON_APPEND_INT32(&child, "$lte", (int32_t)range.last);
    bson_append_document_end(filter, &child);
    BSON_APPEND_DOCUMENT_BEGIN(opts, "hint", &child);
    BSON_APPEND_INT32(&child, "t", 1);
    BSON_APPEND_INT32(&child, "b", 1);
    BSON_APPEND_INT32(&child, "u", 1);
    bson_append_document_end(opts, &child);
    BSON_APPEND_DOCUMENT_BEGIN(opts, "projection", &child);
    BSON_APPEND_INT32(&child, "_id", 0);
    BSON_APPEND_INT32(&child, "b", 1);
    BSON_APPEND_INT32(&child, "u", 1);
    bson_append_document_end(opts, &child);
    BSON_APPEND_INT64(opts, "limit", limit);
    BSON_APPEND_INT64(opts, "batchSize", (int64_t)limit + 1);
    mongo_read_opts(c, opts);
}

static int by_place(const void *a, const void *b)
{
    const struct follower *x = a, *y = b;
    return x->bucket != y->bucket ? (x->bucket < y->bucket ? -1 : 1) : strcmp(x->user, y->user);
}

/* Who follows more than one of the targets comes more than once. */
static void keep_once(struct audience_batch *b)
{
    unsigned kept = 0;
    qsort(b->at, b->n, sizeof b->at[0], by_place);
    for (unsigned i = 0; i < b->n; i++) {
        if (kept && by_place(&b->at[kept - 1], &b->at[i]) == 0)
            continue;
        b->at[kept++] = b->at[i];
    }
    b->n = kept;
}

int audience_few(struct mongo_conn *c, const char (*targets)[TARGET_TEXT_SIZE], unsigned n,
                 struct bucket_range range, struct audience_batch *b, bool *all, struct err *e)
{
    struct audience none = {.begun = false};
    bson_t filter = BSON_INITIALIZER, opts = BSON_INITIALIZER;
    unsigned seen = 0;
    b->n = b->skipped = 0;
    few_query(c, targets, n, range, b->cap + 1, &filter, &opts);
    mongoc_cursor_t *cur = find_edges(c, &filter, &opts);
    const bson_t *d;
    while (mongoc_cursor_next(cur, &d)) {
        seen++;
        take_follower(&none, d, b);
    }
    if (end_edges(cur, "audience", e) != 0)
        return -1;
    *all = seen <= b->cap;
    keep_once(b);
    return 0;
}

static int by_user(const void *a, const void *b)
{
    return strcmp((*(struct follower *const *)a)->user, (*(struct follower *const *)b)->user);
}

static struct follower **find_user(struct follower **sorted, unsigned n, const char *user, size_t len)
{
    struct follower key;
    if (len > NAME_MAX_BYTES)
        return NULL;
    memcpy(key.user, user, len);
    key.user[len] = '\0';
    const struct follower *k = &key;
    return bsearch(&k, sorted, n, sizeof *sorted, by_user);
}

static void match_filter(struct follower **users, unsigned n_users, const char (*targets)[TARGET_TEXT_SIZE],
                         unsigned n, bson_t *filter)
{
    bson_t id, in;
    char index[16], text[NAME_MAX_BYTES + TARGET_TEXT_SIZE + 2];
    const char *key;
    uint32_t i = 0;
    BSON_APPEND_DOCUMENT_BEGIN(filter, "_id", &id);
    BSON_APPEND_ARRAY_BEGIN(&id, "$in", &in);
    for (unsigned u = 0; u < n_users; u++) {
        for (unsigned t = 0; t < n; t++) {
            size_t len = bson_uint32_to_string(i++, &key, index, sizeof index);
            snprintf(text, sizeof text, "%s %s", users[u]->user, targets[t]);
            bson_append_utf8(&in, key, (int)len, text, -1);
        }
    }
    bson_append_array_end(&id, &in);
    bson_append_document_end(filter, &id);
}

/* Sets matched[i] for each of the sorted users who follows one of the targets. */
static int match_some(struct mongo_conn *c, struct follower **sorted, unsigned n_users,
                      const char (*targets)[TARGET_TEXT_SIZE], unsigned n, bool *matched, struct err *e)
{
    bson_t filter = BSON_INITIALIZER, opts = BSON_INITIALIZER;
    match_filter(sorted, n_users, targets, n, &filter);
    only_ids(c, (int64_t)n_users * n + 1, &opts);
    mongoc_cursor_t *cur = find_edges(c, &filter, &opts);
    const bson_t *d;
    while (mongoc_cursor_next(cur, &d)) {
        const char *id = mongo_get_str(d, "_id", NULL);
        const char *space = id ? strchr(id, ' ') : NULL;
        struct follower **hit = space ? find_user(sorted, n_users, id, (size_t)(space - id)) : NULL;
        if (hit)
            matched[hit - sorted] = true;
    }
    return end_edges(cur, "follows", e);
}

int audience_keep_unmatched(struct mongo_conn *c, struct audience_batch *b,
                            const char (*targets)[TARGET_TEXT_SIZE], unsigned n, struct err *e)
{
    struct follower *sorted[MATCH_USERS];
    unsigned kept = 0;
    for (unsigned from = 0; from < b->n; from += MATCH_USERS) {
        unsigned k = b->n - from < MATCH_USERS ? b->n - from : MATCH_USERS;
        bool matched[MATCH_USERS] = {false}, gone[MATCH_USERS] = {false};
        for (unsigned i = 0; i < k; i++)
            sorted[i] = &b->at[from + i];
        qsort(sorted, k, sizeof sorted[0], by_user);
        if (match_some(c, sorted, k, targets, n, matched, e) != 0)
            return -1;
        for (unsigned i = 0; i < k; i++)
            gone[sorted[i] - &b->at[from]] = matched[i];
        for (unsigned i = 0; i < k; i++) {
            if (!gone[i])
                b->at[kept++] = b->at[from + i];
        }
    }
    b->n = kept;
    return 0;
}

/* The _id of an edge is "user target", and no name holds a space: a user's edges lie between "user " and
 * "user!". */
static void follows_filter(const char *const *users, unsigned n, bson_t *filter)
{
    bson_t any, one, id;
    char index[16], bound[NAME_MAX_BYTES + 2];
    const char *key;
    BSON_APPEND_ARRAY_BEGIN(filter, "$or", &any);
    for (unsigned i = 0; i < n; i++) {
        size_t len = bson_uint32_to_string(i, &key, index, sizeof index);
        bson_append_document_begin(&any, key, (int)len, &one);
        BSON_APPEND_DOCUMENT_BEGIN(&one, "_id", &id);
        snprintf(bound, sizeof bound, "%s ", users[i]);
        BSON_APPEND_UTF8(&id, "$gt", bound);
        snprintf(bound, sizeof bound, "%s!", users[i]);
        BSON_APPEND_UTF8(&id, "$lt", bound);
        bson_append_document_end(&one, &id);
        bson_append_document_end(&any, &one);
    }
    bson_append_array_end(filter, &any);
}

static void tell_follow(const char *const *users, unsigned n, const char *id,
                        void (*fn)(void *arg, unsigned i, const char *target), void *arg)
{
    const char *space = id ? strchr(id, ' ') : NULL;
    for (unsigned i = 0; space && i < n; i++) {
        size_t len = strlen(users[i]);
        if (len == (size_t)(space - id) && memcmp(users[i], id, len) == 0 &&
            strlen(space + 1) < TARGET_TEXT_SIZE)
            fn(arg, i, space + 1);
    }
}

int audience_follows(struct mongo_conn *c, const char *const *users, unsigned n,
                     void (*fn)(void *arg, unsigned i, const char *target), void *arg, struct err *e)
{
    bson_t filter = BSON_INITIALIZER, opts = BSON_INITIALIZER;
    follows_filter(users, n, &filter);
    only_ids(c, 5000, &opts);
    mongoc_cursor_t *cur = find_edges(c, &filter, &opts);
    const bson_t *d;
    while (mongoc_cursor_next(cur, &d))
        tell_follow(users, n, mongo_get_str(d, "_id", NULL), fn, arg);
    return end_edges(cur, "follows", e);
}

static bool copy_name(char out[NAME_MAX_BYTES + 1], const char *s, size_t len)
{
    if (!s || len == 0 || len > NAME_MAX_BYTES || strlen(s) != len)
        return false;
    memcpy(out, s, len + 1);
    return true;
}

static bool read_topics(const bson_t *d, struct item_now *out)
{
    bson_iter_t it, topic;
    if (!bson_iter_init_find(&it, d, "topics"))
        return true;
    if (!BSON_ITER_HOLDS_ARRAY(&it) || !bson_iter_recurse(&it, &topic))
        return false;
    while (bson_iter_next(&topic)) {
        uint32_t len = 0;
        const char *s = BSON_ITER_HOLDS_UTF8(&topic) ? bson_iter_utf8(&topic, &len) : NULL;
        if (out->n_topics == CHANGE_TOPICS_MAX || !copy_name(out->topics[out->n_topics], s, len))
            return false;
        out->n_topics++;
    }
    return true;
}

static int read_item(const bson_t *d, item_id id, struct item_now *out, struct err *e)
{
    bson_iter_t it;
    struct item_now now = {.live = bson_iter_init_find(&it, d, "live") && bson_iter_as_bool(&it)};
    size_t len = 0;
    const char *publisher = mongo_get_str(d, "publisher", &len);
    if (now.live && (!copy_name(now.publisher, publisher, len) || !read_topics(d, &now)))
        return err_set(e, ERR_CORRUPT, "item %llu: publisher or topics do not read as they should",
                       (unsigned long long)id);
    *out = now;
    return 0;
}

int audience_item(struct mongo_conn *c, item_id id, struct item_now *out, struct err *e)
{
    bson_t filter = BSON_INITIALIZER, opts = BSON_INITIALIZER, projection;
    BSON_APPEND_INT64(&filter, "_id", (int64_t)id);
    BSON_APPEND_DOCUMENT_BEGIN(&opts, "projection", &projection);
    BSON_APPEND_INT32(&projection, "publisher", 1);
    BSON_APPEND_INT32(&projection, "topics", 1);
    BSON_APPEND_INT32(&projection, "live", 1);
    bson_append_document_end(&opts, &projection);
    BSON_APPEND_INT64(&opts, "limit", 1);
    mongo_read_opts(c, &opts);
    mongoc_cursor_t *cur = mongoc_collection_find_with_opts(mongo_coll(c, COLL_ITEMS), &filter, &opts, NULL);
    const bson_t *d;
    bson_error_t be;
    const bson_t *reply = NULL;
    int rc = 0;
    if (mongoc_cursor_next(cur, &d))
        rc = read_item(d, id, out, e);
    else if (mongoc_cursor_error_document(cur, &be, &reply))
        rc = mongo_err(e, &be, reply, "item");
    else
        out->live = false;
    mongoc_cursor_destroy(cur);
    bson_destroy(&filter);
    bson_destroy(&opts);
    return rc;
}
