#include "feed-api/graph_store.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/keys.h"
#include "common/mem.h"

static enum mongo_collection table_collection(enum graph_table t)
{
    return t == GRAPH_FOLLOWS ? COLL_FOLLOWS : COLL_MUTES;
}

static const char *table_count_field(enum graph_table t)
{
    return t == GRAPH_FOLLOWS ? "follows" : "mutes";
}

/* One edge of the request, sorted by key; the lines that name it act on it in order. */
struct edge_state {
    char key[GRAPH_EDGE_KEY_SIZE];
    bool existed, exists;
    size_t last_line; /* the line whose since counts, when it is to be inserted */
};

struct user_state {
    char user[NAME_MAX_BYTES + 1];
    int64_t count; /* edges before, then after */
    int64_t delta;
    bool known; /* there is a document */
    bool changed;
};

struct apply {
    enum graph_table table;
    struct graph_line *lines;
    size_t n;
    int64_t cap;
    bool strict;
    struct edge_state *edges;
    size_t n_edges;
    struct user_state *users;
    size_t n_users;
    bool nothing; /* the transaction was given up because nothing changes */
};

static int edge_compare(const void *a, const void *b)
{
    return strcmp(((const struct edge_state *)a)->key, ((const struct edge_state *)b)->key);
}

static int user_compare(const void *a, const void *b)
{
    return strcmp(((const struct user_state *)a)->user, ((const struct user_state *)b)->user);
}

static size_t unique(void *base, size_t n, size_t size, int (*compare)(const void *, const void *))
{
    qsort(base, n, size, compare);
    char *p = base;
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (kept > 0 && compare(p + (kept - 1) * size, p + i * size) == 0)
            continue;
        memmove(p + kept * size, p + i * size, size);
        kept++;
    }
    return kept;
}

static struct edge_state *edge_find(struct apply *a, const struct graph_line *line)
{
    struct edge_state want;
    snprintf(want.key, sizeof want.key, "%s %s", line->user, line->target);
    return bsearch(&want, a->edges, a->n_edges, sizeof *a->edges, edge_compare);
}

static struct user_state *user_find(struct apply *a, const char *user)
{
    struct user_state want;
    snprintf(want.user, sizeof want.user, "%s", user);
    return bsearch(&want, a->users, a->n_users, sizeof *a->users, user_compare);
}

static void apply_init(struct apply *a)
{
    a->edges = mem_zero(a->n, sizeof *a->edges);
    a->users = mem_zero(a->n, sizeof *a->users);
    for (size_t i = 0; i < a->n; i++) {
        snprintf(a->edges[i].key, sizeof a->edges[i].key, "%s %s", a->lines[i].user, a->lines[i].target);
        snprintf(a->users[i].user, sizeof a->users[i].user, "%s", a->lines[i].user);
    }
    a->n_edges = unique(a->edges, a->n, sizeof *a->edges, edge_compare);
    a->n_users = unique(a->users, a->n, sizeof *a->users, user_compare);
}

/* A transaction may be tried again: every try starts from what it reads itself. */
static void apply_restart(struct apply *a)
{
    a->nothing = false;
    for (size_t i = 0; i < a->n; i++)
        a->lines[i].result = GRAPH_PENDING;
    for (size_t i = 0; i < a->n_edges; i++)
        a->edges[i].existed = a->edges[i].exists = false;
    for (size_t i = 0; i < a->n_users; i++) {
        a->users[i].count = a->users[i].delta = 0;
        a->users[i].known = a->users[i].changed = false;
    }
}

/* {_id: {$in: [...]}}: of strings that lie `stride` bytes apart. */
static void in_filter(bson_t *filter, const char *first, size_t stride, size_t n)
{
    bson_t id, in;
    char buf[16];
    bson_init(filter);
    bson_append_document_begin(filter, "_id", 3, &id);
    bson_append_array_begin(&id, "$in", 3, &in);
    for (size_t i = 0; i < n; i++) {
        const char *index;
        size_t len = bson_uint32_to_string((uint32_t)i, &index, buf, sizeof buf);
        bson_append_utf8(&in, index, (int)len, first + i * stride, -1);
    }
    bson_append_array_end(&id, &in);
    bson_append_document_end(filter, &id);
}

/* Runs a find by ids in the transaction and hands each document to fn. */
static int find_ids(struct mongo_conn *c, struct apply *a, enum mongo_collection coll, const char *first,
                    size_t stride, size_t n, const char *field, void (*fn)(struct apply *, const bson_t *),
                    struct err *e)
{
    bson_t filter, opts = BSON_INITIALIZER, projection;
    in_filter(&filter, first, stride, n);
    bson_append_document_begin(&opts, "projection", -1, &projection);
    bson_append_int32(&projection, "_id", -1, 1);
    if (field)
        bson_append_int32(&projection, field, -1, 1);
    bson_append_document_end(&opts, &projection);
    bson_append_int32(&opts, "batchSize", -1, GRAPH_LINES_MAX + 1);
    mongo_txn_opts(c, &opts);
    mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(mongo_coll(c, coll), &filter, &opts, NULL);
    const bson_t *doc;
    while (mongoc_cursor_next(cursor, &doc))
        fn(a, doc);
    bson_error_t be;
    const bson_t *reply;
    int rc = 0;
    if (mongoc_cursor_error_document(cursor, &be, &reply))
        rc = mongo_txn_err(c, e, &be, reply, "read edges");
    mongoc_cursor_destroy(cursor);
    bson_destroy(&opts);
    bson_destroy(&filter);
    return rc;
}

static void note_edge(struct apply *a, const bson_t *doc)
{
    struct edge_state want;
    const char *id = mongo_get_str(doc, "_id", NULL);
    snprintf(want.key, sizeof want.key, "%s", id ? id : "");
    struct edge_state *edge = bsearch(&want, a->edges, a->n_edges, sizeof want, edge_compare);
    if (edge)
        edge->existed = edge->exists = true;
}

static void note_user(struct apply *a, const bson_t *doc)
{
    const char *id = mongo_get_str(doc, "_id", NULL);
    struct user_state *user = id ? user_find(a, id) : NULL;
    if (user) {
        user->known = true;
        mongo_get_i64(doc, table_count_field(a->table), &user->count);
    }
}

/* Decides every line, in order. ERR_CONFLICT only when strict. */
static int decide(struct apply *a, struct err *e)
{
    for (size_t i = 0; i < a->n; i++) {
        struct graph_line *line = &a->lines[i];
        struct edge_state *edge = edge_find(a, line);
        struct user_state *user = user_find(a, line->user);
        assert(edge && user);
        if (edge->exists != line->remove) {
            line->result = GRAPH_UNCHANGED;
        } else if (line->remove) {
            edge->exists = false;
            user->delta--;
            line->result = GRAPH_REMOVED;
        } else {
            edge->exists = true;
            edge->last_line = i;
            user->delta++;
            line->result = GRAPH_ADDED;
            if (!a->strict && user->count + user->delta > a->cap) {
                edge->exists = false;
                user->delta--;
                line->result = GRAPH_OVER_CAP;
            }
        }
        if (line->result == GRAPH_ADDED || line->result == GRAPH_REMOVED)
            user->changed = true;
    }
    /* removals of the same request make room, so a strict request is judged by where it ends */
    for (size_t i = 0; a->strict && i < a->n_users; i++) {
        struct user_state *user = &a->users[i];
        if (user->delta > 0 && user->count + user->delta > a->cap)
            return err_set(e, ERR_CONFLICT, "a user may have at most %lld %s; this would make %lld",
                           (long long)a->cap, table_count_field(a->table),
                           (long long)(user->count + user->delta));
    }
    return 0;
}

static int bulk_run(struct mongo_conn *c, mongoc_bulk_operation_t *bulk, const char *what, struct err *e)
{
    bson_t reply;
    bson_error_t be;
    int rc = 0;
    if (mongoc_bulk_operation_execute(bulk, &reply, &be) == 0)
        rc = mongo_txn_err(c, e, &be, &reply, what);
    bson_destroy(&reply);
    mongoc_bulk_operation_destroy(bulk);
    return rc;
}

static mongoc_bulk_operation_t *bulk_new(struct mongo_conn *c, enum mongo_collection coll)
{
    bson_t opts = BSON_INITIALIZER;
    mongo_txn_opts(c, &opts);
    mongoc_bulk_operation_t *bulk =
        mongoc_collection_create_bulk_operation_with_opts(mongo_coll(c, coll), &opts);
    bson_destroy(&opts);
    return bulk;
}

static bool insert_users(mongoc_bulk_operation_t *bulk, const struct apply *a, bson_error_t *be)
{
    bool ok = true;
    for (size_t i = 0; ok && i < a->n_users; i++) {
        const struct user_state *user = &a->users[i];
        if (!user->changed || user->known)
            continue;
        bson_t *doc = BCON_NEW("_id", BCON_UTF8(user->user), "rev", BCON_INT64(1),
                               table_count_field(a->table), BCON_INT64(user->delta));
        ok = mongoc_bulk_operation_insert_with_opts(bulk, doc, NULL, be);
        bson_destroy(doc);
    }
    return ok;
}

static int delta_compare(const void *a, const void *b)
{
    const struct user_state *x = *(const struct user_state *const *)a,
                            *y = *(const struct user_state *const *)b;
    return (x->delta > y->delta) - (x->delta < y->delta);
}

/* One update for the users from at on whose number of edges changes by as much; answers where it ended. */
static size_t update_alike(mongoc_bulk_operation_t *bulk, const struct apply *a,
                           struct user_state *const *users, size_t at, size_t n, bool *ok, bson_error_t *be)
{
    bson_t filter = BSON_INITIALIZER, id, in;
    const char *index;
    char buf[16];
    size_t end = at;
    bson_append_document_begin(&filter, "_id", 3, &id);
    bson_append_array_begin(&id, "$in", 3, &in);
    for (; end < n && users[end]->delta == users[at]->delta; end++) {
        size_t len = bson_uint32_to_string((uint32_t)(end - at), &index, buf, sizeof buf);
        bson_append_utf8(&in, index, (int)len, users[end]->user, -1);
    }
    bson_append_array_end(&id, &in);
    bson_append_document_end(&filter, &id);
    bson_t *update = BCON_NEW("$inc", "{", "rev", BCON_INT64(1), table_count_field(a->table),
                              BCON_INT64(users[at]->delta), "}");
    *ok = mongoc_bulk_operation_update_many_with_opts(bulk, &filter, update, NULL, be);
    bson_destroy(update);
    bson_destroy(&filter);
    return end;
}

static bool update_users(mongoc_bulk_operation_t *bulk, const struct apply *a, bson_error_t *be)
{
    struct user_state **users = mem_alloc(a->n_users * sizeof *users);
    size_t n = 0;
    bool ok = true;
    for (size_t i = 0; i < a->n_users; i++)
        if (a->users[i].changed && a->users[i].known)
            users[n++] = &a->users[i];
    qsort(users, n, sizeof *users, delta_compare);
    for (size_t at = 0; ok && at < n;)
        at = update_alike(bulk, a, users, at, n, &ok, be);
    free(users);
    return ok;
}

/* The users' documents first: two requests for the same user collide here, before they have written edges.
 * When a thousand users move in by a few edges each, their documents are most of the work: an insert takes
 * the server a third of what an upsert does, and one update of many by $in half of as many updates. */
static int write_users(struct mongo_conn *c, struct apply *a, struct err *e)
{
    mongoc_bulk_operation_t *bulk = bulk_new(c, COLL_USERS);
    bson_error_t be;
    if (!insert_users(bulk, a, &be) || !update_users(bulk, a, &be)) {
        mongoc_bulk_operation_destroy(bulk);
        return mongo_txn_err(c, e, &be, NULL, "write users");
    }
    return bulk_run(c, bulk, "write users", e);
}

static void edge_document(const struct apply *a, const struct edge_state *edge, bson_t *doc)
{
    const struct graph_line *line = &a->lines[edge->last_line];
    bson_init(doc);
    bson_append_utf8(doc, "_id", -1, edge->key, -1);
    if (a->table == GRAPH_FOLLOWS) {
        bson_append_utf8(doc, "t", -1, line->target, -1);
        bson_append_int32(doc, "b", -1, (int32_t)keys_bucket(line->user));
        bson_append_utf8(doc, "u", -1, line->user, -1);
    }
    bson_append_date_time(doc, "s", -1, line->since_ms);
}

static int write_edges(struct mongo_conn *c, struct apply *a, struct err *e)
{
    mongoc_bulk_operation_t *bulk = bulk_new(c, table_collection(a->table));
    size_t writes = 0;
    bool ok = true;
    bson_error_t be;
    for (size_t i = 0; ok && i < a->n_edges; i++) {
        struct edge_state *edge = &a->edges[i];
        if (edge->existed == edge->exists)
            continue;
        bson_t doc;
        if (edge->exists) {
            edge_document(a, edge, &doc);
            ok = mongoc_bulk_operation_insert_with_opts(bulk, &doc, NULL, &be);
        } else {
            bson_init(&doc);
            bson_append_utf8(&doc, "_id", -1, edge->key, -1);
            ok = mongoc_bulk_operation_remove_one_with_opts(bulk, &doc, NULL, &be);
        }
        bson_destroy(&doc);
        writes++;
    }
    if (!ok || writes == 0) {
        mongoc_bulk_operation_destroy(bulk);
        return ok ? 0 : mongo_txn_err(c, e, &be, NULL, "write edges");
    }
    return bulk_run(c, bulk, "write edges", e);
}

static int apply_in_transaction(struct mongo_conn *c, void *arg, struct err *e)
{
    struct apply *a = arg;
    apply_restart(a);
    if (find_ids(c, a, table_collection(a->table), a->edges->key, sizeof *a->edges, a->n_edges, NULL,
                 note_edge, e) < 0 ||
        find_ids(c, a, COLL_USERS, a->users->user, sizeof *a->users, a->n_users, table_count_field(a->table),
                 note_user, e) < 0 ||
        decide(a, e) < 0)
        return -1;
    a->nothing = true;
    for (size_t i = 0; i < a->n_users; i++)
        if (a->users[i].changed)
            a->nothing = false;
    if (a->nothing) /* nothing to commit: give the transaction up and stay off the log */
        return err_set(e, ERR_NONE, "nothing changes");
    if (write_users(c, a, e) < 0)
        return -1;
    return write_edges(c, a, e);
}

int graph_apply(struct mongo_conn *c, enum graph_table table, struct graph_line *lines, size_t n, int64_t cap,
                bool strict, struct err *e)
{
    assert(n > 0 && n <= GRAPH_LINES_MAX);
    struct apply a = {.table = table, .lines = lines, .n = n, .cap = cap, .strict = strict};
    apply_init(&a);
    int rc = mongo_transaction(c, apply_in_transaction, &a, e);
    if (rc < 0 && a.nothing)
        rc = 0;
    for (size_t i = 0; rc < 0 && i < n; i++)
        lines[i].result = GRAPH_PENDING;
    free(a.edges);
    free(a.users);
    return rc;
}

/* The range of _id that holds a user's edges after one target: "user target" < _id < "user!" ('!' follows the
 * space). */
static void range_filter(const char *user, const char *after, bson_t *filter)
{
    char low[GRAPH_EDGE_KEY_SIZE], high[NAME_MAX_BYTES + 2];
    bson_t id;
    snprintf(low, sizeof low, "%s %s", user, after);
    snprintf(high, sizeof high, "%s!", user);
    bson_init(filter);
    bson_append_document_begin(filter, "_id", 3, &id);
    bson_append_utf8(&id, "$gt", -1, low, -1);
    bson_append_utf8(&id, "$lt", -1, high, -1);
    bson_append_document_end(filter, &id);
}

int graph_list(struct mongo_conn *c, enum graph_table table, const char *user, const char *after,
               size_t limit, struct graph_edge *out, size_t *n, struct err *e)
{
    bson_t filter, opts = BSON_INITIALIZER, sort;
    range_filter(user, after, &filter);
    bson_append_document_begin(&opts, "sort", -1, &sort);
    bson_append_int32(&sort, "_id", -1, 1);
    bson_append_document_end(&opts, &sort);
    bson_append_int64(&opts, "limit", -1, (int64_t)limit);
    bson_append_int64(&opts, "batchSize", -1, (int64_t)limit + 1);
    mongo_read_opts(c, &opts);
    mongoc_cursor_t *cursor =
        mongoc_collection_find_with_opts(mongo_coll(c, table_collection(table)), &filter, &opts, NULL);
    const bson_t *doc;
    size_t got = 0, skip = strlen(user) + 1;
    while (got < limit && mongoc_cursor_next(cursor, &doc)) {
        size_t len;
        const char *id = mongo_get_str(doc, "_id", &len);
        if (id == NULL || len <= skip || len - skip >= sizeof out->target)
            continue;
        memcpy(out[got].target, id + skip, len - skip + 1);
        out[got].since_ms = 0;
        mongo_get_i64(doc, "s", &out[got].since_ms);
        got++;
    }
    bson_error_t be;
    const bson_t *reply;
    int rc = 0;
    if (mongoc_cursor_error_document(cursor, &be, &reply))
        rc = mongo_err(e, &be, reply, "list edges");
    else
        *n = got;
    mongoc_cursor_destroy(cursor);
    bson_destroy(&opts);
    bson_destroy(&filter);
    return rc;
}
