/* audit_truth.c - what MongoDB says of a reader, as much of it as a timeline can be judged by. */
#include "common/audit_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

#define NAMES_MAX (8 * 1024 * 1024) /* AUDIT_FOLLOWS_MAX of the longest ones */

/* ---- edges and numbers ---- */

int audit_user_rev(struct mongo_conn *c, const char *user, int64_t *out, struct err *e)
{
    bson_t *filter = BCON_NEW("_id", BCON_UTF8(user));
    bson_t *opts = BCON_NEW("projection", "{", "rev", BCON_INT32(1), "}", "limit", BCON_INT64(1));
    mongo_read_opts(c, opts);
    mongoc_cursor_t *cur = mongoc_collection_find_with_opts(mongo_coll(c, COLL_USERS), filter, opts, NULL);
    const bson_t *doc, *reply;
    bson_error_t be;
    int64_t rev = 0;
    int rc = 0;
    if (mongoc_cursor_next(cur, &doc)) {
        if (!mongo_get_i64(doc, "rev", &rev))
            rev = 0;
    } else if (mongoc_cursor_error_document(cur, &be, &reply)) {
        rc = mongo_err(e, &be, reply, "reading the user");
    }
    mongoc_cursor_destroy(cur);
    bson_destroy(filter);
    bson_destroy(opts);
    if (rc == 0)
        *out = rev;
    return rc;
}

/* Fanouts note each cap that they work with; the least counts, for timelines of its time live on. */
int audit_cap(struct mongo_conn *c, int64_t *out, struct err *e)
{
    bson_t *filter = BCON_NEW("_id", BCON_UTF8("timeline_entries"));
    bson_t *opts = BCON_NEW("limit", BCON_INT64(1));
    mongo_read_opts(c, opts);
    mongoc_cursor_t *cur = mongoc_collection_find_with_opts(mongo_coll(c, COLL_SETTINGS), filter, opts, NULL);
    const bson_t *doc, *reply;
    bson_error_t be;
    int64_t cap = 0;
    int rc = 0;
    if (mongoc_cursor_next(cur, &doc)) {
        if (!mongo_get_i64(doc, "least", &cap) && !mongo_get_i64(doc, "value", &cap))
            cap = 0;
    } else if (mongoc_cursor_error_document(cur, &be, &reply)) {
        rc = mongo_err(e, &be, reply, "reading the settings");
    }
    mongoc_cursor_destroy(cur);
    bson_destroy(filter);
    bson_destroy(opts);
    if (rc == 0)
        *out = cap;
    return rc;
}

/* The _id of an edge is "user target", and no name holds a space. */
static mongoc_cursor_t *open_edges(struct mongo_conn *c, enum mongo_collection which, const char *user)
{
    char from[NAME_MAX_BYTES + 2], to[NAME_MAX_BYTES + 2];
    snprintf(from, sizeof from, "%s ", user);
    snprintf(to, sizeof to, "%s!", user);
    bson_t *filter = BCON_NEW("_id", "{", "$gt", BCON_UTF8(from), "$lt", BCON_UTF8(to), "}");
    bson_t *opts = BCON_NEW("projection", "{", "_id", BCON_INT32(1), "}", "sort", "{", "_id", BCON_INT32(1),
                            "}", "limit", BCON_INT64(AUDIT_FOLLOWS_MAX + 1), "batchSize", BCON_INT32(5000));
    mongo_read_opts(c, opts);
    mongoc_cursor_t *cur = mongoc_collection_find_with_opts(mongo_coll(c, which), filter, opts, NULL);
    bson_destroy(filter);
    bson_destroy(opts);
    return cur;
}

/* Appends each edge's target to out, a separator behind each. */
static int read_edges(struct mongo_conn *c, enum mongo_collection which, const char *user, char separator,
                      struct buf *out, size_t *n, struct err *e)
{
    mongoc_cursor_t *cur = open_edges(c, which, user);
    const bson_t *doc, *reply;
    bson_error_t be;
    size_t skip = strlen(user) + 1, len;
    int rc = 0;
    while (mongoc_cursor_next(cur, &doc)) {
        const char *id = mongo_get_str(doc, "_id", &len);
        if (!id || len <= skip)
            continue;
        buf_add(out, id + skip, len - skip);
        buf_add_char(out, separator);
        (*n)++;
    }
    if (mongoc_cursor_error_document(cur, &be, &reply))
        rc = mongo_err(e, &be, reply, which == COLL_FOLLOWS ? "reading follows" : "reading mutes");
    mongoc_cursor_destroy(cur);
    return rc;
}

static int read_mutes(struct mongo_conn *c, const char *user, struct audit_truth *t, struct err *e)
{
    struct buf b;
    size_t n = 0;
    buf_init(&b, AUDIT_MUTES_MAX);
    if (read_edges(c, COLL_MUTES, user, '\n', &b, &n, e) != 0) {
        buf_done(&b);
        return -1;
    }
    t->mutes = buf_take(&b);
    size_t len = strlen(t->mutes);
    if (len > 0)
        t->mutes[len - 1] = '\0'; /* a list has separators, not ends */
    return 0;
}

/* ---- follows and their modes ---- */

static int read_follows(struct mongo_conn *c, const char *user, const struct audit_view *v,
                        struct audit_truth *t, struct err *e)
{
    size_t n = 0, skip = 0;
    if (read_edges(c, COLL_FOLLOWS, user, '\0', &t->names, &n, e) != 0)
        return -1;
    t->too_many = n > AUDIT_FOLLOWS_MAX || t->names.full;
    if (t->too_many)
        return 0;
    t->follows = mem_alloc((n + 1) * sizeof *t->follows);
    for (size_t i = 0; i < n; i++) {
        const char *target = t->names.data + skip;
        skip += strlen(target) + 1;
        if (target[0] == 'p' || target[0] == 't')
            t->follows[t->n_follows++] =
                (struct audit_follow){.target = target, .listed = audit_listed(v->pulls, target)};
    }
    return 0;
}

static int by_target(const void *key, const void *follow)
{
    return strcmp(key, ((const struct audit_follow *)follow)->target);
}

const struct audit_follow *audit_truth_follow(const struct audit_truth *t, const char *target)
{
    return t->n_follows ? bsearch(target, t->follows, t->n_follows, sizeof *t->follows, by_target) : NULL;
}

/* The pulled ones are few, and in an index of their own. */
static int read_modes(struct mongo_conn *c, struct audit_truth *t, struct err *e)
{
    bson_t *filter = BCON_NEW("mode", "pull");
    bson_t *opts = BCON_NEW("projection", "{", "rev", BCON_INT32(1), "}", "batchSize", BCON_INT32(5000));
    mongo_read_opts(c, opts);
    mongoc_cursor_t *cur = mongoc_collection_find_with_opts(mongo_coll(c, COLL_TARGETS), filter, opts, NULL);
    const bson_t *doc, *reply;
    bson_error_t be;
    while (mongoc_cursor_next(cur, &doc)) {
        const char *target = mongo_get_str(doc, "_id", NULL);
        struct audit_follow *f = target ? (struct audit_follow *)audit_truth_follow(t, target) : NULL;
        if (!f)
            continue;
        f->pulled = true;
        if (!mongo_get_i64(doc, "rev", &f->rev))
            f->rev = 0;
    }
    int rc = mongoc_cursor_error_document(cur, &be, &reply) ? mongo_err(e, &be, reply, "reading modes") : 0;
    mongoc_cursor_destroy(cur);
    bson_destroy(filter);
    bson_destroy(opts);
    return rc;
}

/* ---- all of it ---- */

static int read_all(struct mongo_conn *c, const char *user, const struct audit_view *v, struct audit_truth *t,
                    struct err *e)
{
    if (mongo_conn_fresh(c, &t->now, e) != 0 || audit_user_rev(c, user, &t->user_rev, e) != 0 ||
        read_follows(c, user, v, t, e) != 0)
        return -1;
    if (t->too_many)
        return 0;
    if (read_modes(c, t, e) != 0 || read_mutes(c, user, t, e) != 0)
        return -1;
    return audit_items_read(c, v, t, e);
}

int audit_truth_read(struct mongo_conn *c, const char *user, const struct audit_view *v,
                     struct audit_truth *out, struct err *e)
{
    struct audit_truth t = {.now = 0};
    buf_init(&t.names, NAMES_MAX);
    if (read_all(c, user, v, &t, e) != 0) {
        audit_truth_done(&t);
        return -1;
    }
    *out = t;
    return 0;
}

void audit_truth_done(struct audit_truth *t)
{
    if (t->names.max == 0) /* nothing was read into it */
        return;
    free(t->follows);
    buf_done(&t->names);
    free(t->mutes);
    free(t->newest);
    free(t->items);
    memset(t, 0, sizeof *t);
}
