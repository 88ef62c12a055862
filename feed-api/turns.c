#include "feed-api/turns.h"

#include <stdio.h>

#include "common/log.h"
#include "common/mem.h"
#include "common/names.h"

#define DEADLINE_MS 2000
#define AT_ONCE     100 /* of one round; the rest follows in the next */

struct found {
    char target[TARGET_TEXT_SIZE];
    int64_t followers;
};

/* Reads the targets of filter, those with the most followers first. Takes filter over. */
static int find(struct mongo_conn *c, bson_t *filter, bool most_first, size_t most, struct found *out,
                size_t *n, struct err *e)
{
    bson_t *opts =
        BCON_NEW("projection", "{", "_id", BCON_INT32(1), "followers", BCON_INT32(1), "}", "sort", "{",
                 "followers", BCON_INT32(most_first ? -1 : 1), "}", "limit", BCON_INT64((int64_t)most));
    mongo_read_opts(c, opts);
    mongoc_cursor_t *cursor =
        mongoc_collection_find_with_opts(mongo_coll(c, COLL_TARGETS), filter, opts, NULL);
    const bson_t *doc, *reply;
    bson_error_t be;
    size_t len;
    *n = 0;
    while (*n < most && mongoc_cursor_next(cursor, &doc)) {
        struct found *f = &out[*n];
        const char *target = mongo_get_str(doc, "_id", &len);
        if (!target || len >= sizeof f->target || !mongo_get_i64(doc, "followers", &f->followers))
            continue;
        snprintf(f->target, sizeof f->target, "%s", target);
        (*n)++;
    }
    int rc =
        mongoc_cursor_error_document(cursor, &be, &reply) ? mongo_err(e, &be, reply, "reading modes") : 0;
    mongoc_cursor_destroy(cursor);
    bson_destroy(filter);
    bson_destroy(opts);
    return rc;
}

/* Only when it is still as it was found. */
static int set_mode(struct mongo_conn *c, const struct found *f, const char *mode, unsigned *turned,
                    struct err *e)
{
    bson_t *filter = BCON_NEW("_id", BCON_UTF8(f->target), "followers", BCON_INT64(f->followers), "mode", "{",
                              "$ne", BCON_UTF8(mode), "}");
    bson_t *update =
        BCON_NEW("$set", "{", "mode", BCON_UTF8(mode), "}", "$inc", "{", "rev", BCON_INT64(1), "}");
    bson_t opts = BSON_INITIALIZER, reply;
    bson_error_t be;
    int64_t n = 0;
    mongo_write_opts(c, &opts);
    bool ok = mongoc_collection_update_one(mongo_coll(c, COLL_TARGETS), filter, update, &opts, &reply, &be);
    int rc = ok ? 0 : mongo_err(e, &be, &reply, "setting a mode");
    if (ok && mongo_get_i64(&reply, "modifiedCount", &n) && n > 0) {
        (*turned)++;
        log_event(LOG_INFO, "target_turned", LOG_S("target", f->target), LOG_S("mode", mode),
                  LOG_I("followers", f->followers));
    }
    bson_destroy(filter);
    bson_destroy(update);
    bson_destroy(&opts);
    bson_destroy(&reply);
    return rc;
}

static int set_all(struct mongo_conn *c, const struct found *f, size_t n, const char *mode, unsigned *turned,
                   struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        if (set_mode(c, &f[i], mode, turned, e) != 0)
            return -1;
    }
    return 0;
}

static int turn_back(struct mongo_conn *c, const struct turns_options *o, unsigned *turned, struct err *e)
{
    struct found at[AT_ONCE];
    size_t n;
    bson_t *filter = BCON_NEW("mode", "pull");
    if (o->threshold > 0)
        BCON_APPEND(filter, "followers", "{", "$lt", BCON_INT64(o->threshold - o->threshold / 4), "}");
    return find(c, filter, false, MEM_COUNT(at), at, &n, e) != 0 ? -1 : set_all(c, at, n, "push", turned, e);
}

static int count_pulled(struct mongo_conn *c, int64_t *out, struct err *e)
{
    bson_t *filter = BCON_NEW("mode", "pull");
    bson_t opts = BSON_INITIALIZER;
    bson_error_t be;
    mongo_read_opts(c, &opts);
    *out = mongoc_collection_count_documents(mongo_coll(c, COLL_TARGETS), filter, &opts, NULL, NULL, &be);
    bson_destroy(filter);
    bson_destroy(&opts);
    return *out < 0 ? mongo_err(e, &be, NULL, "counting what is pulled") : 0;
}

static int turn_to_pull(struct mongo_conn *c, const struct turns_options *o, const char *kind, int64_t room,
                        unsigned *turned, struct err *e)
{
    struct found at[AT_ONCE];
    size_t n, most = room < AT_ONCE ? (size_t)room : AT_ONCE;
    if (room <= 0)
        return 0;
    bson_t *filter = BCON_NEW("kind", BCON_UTF8(kind), "followers", "{", "$gte", BCON_INT64(o->threshold),
                              "}", "mode", "{", "$ne", "pull", "}");
    return find(c, filter, true, most, at, &n, e) != 0 ? -1 : set_all(c, at, n, "pull", turned, e);
}

int turns_decide(struct mongo_conn *c, const struct turns_options *o, unsigned *turned, struct err *e)
{
    static const char *const kinds[] = {"p", "t"};
    unsigned n = 0;
    int64_t pulled = 0;
    int rc = 0;
    mongo_conn_deadline(c, DEADLINE_MS);
    rc = turn_back(c, o, &n, e);
    for (size_t i = 0; rc == 0 && o->threshold > 0 && i < MEM_COUNT(kinds); i++) {
        rc = count_pulled(c, &pulled, e);
        if (rc == 0)
            rc = turn_to_pull(c, o, kinds[i], o->max_targets - pulled, &n, e);
    }
    if (turned != NULL)
        *turned = n;
    return rc;
}
