/* Counting followers and items in MongoDB, one target or all of them. */
#include "feed-api/counts.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/mem.h"

#define TARGET_DEADLINE_MS 4000 /* one count; the socket gives up at 5,000 */
#define BATCH              100
#define BAD_VALUE          2   /* MongoDB's code of a hint at an index that is not there */
#define KEY_MAX            256 /* bytes of a value in an index that are looked at; names have 64 */

/* ---- one target ---- */

/* The count command, and not an aggregation: on these indexes it only walks keys (COUNT_SCAN). */
static int count(struct mongo_conn *conn, enum mongo_collection coll, const bson_t *query, int64_t *out,
                 struct err *e)
{
    bson_t cmd = BSON_INITIALIZER, opts = BSON_INITIALIZER, reply;
    bson_error_t be;
    bson_iter_t it;
    BSON_APPEND_UTF8(&cmd, "count", mongo_collection_name(coll));
    BSON_APPEND_DOCUMENT(&cmd, "query", query);
    mongo_conn_deadline(conn, TARGET_DEADLINE_MS);
    mongo_read_opts(conn, &opts);
    bool ok =
        mongoc_collection_read_command_with_opts(mongo_coll(conn, coll), &cmd, NULL, &opts, &reply, &be);
    int rc = 0;
    if (!ok)
        rc = mongo_err(e, &be, &reply, "counting");
    else if (bson_iter_init_find(&it, &reply, "n"))
        *out = bson_iter_as_int64(&it);
    else
        rc = err_set(e, ERR_INTERNAL, "MongoDB: a count without a number");
    bson_destroy(&cmd);
    bson_destroy(&opts);
    bson_destroy(&reply);
    return rc;
}

static int count_target(struct mongo_conn *conn, const char *target, enum target_kind kind, const char *name,
                        int64_t *followers, int64_t *items, struct err *e)
{
    bson_t *followed = BCON_NEW("t", BCON_UTF8(target));
    bson_t *holding =
        BCON_NEW(kind == TARGET_PUBLISHER ? "publisher" : "topics", BCON_UTF8(name), "live", BCON_BOOL(true));
    int rc = count(conn, COLL_FOLLOWS, followed, followers, e);
    if (rc == 0)
        rc = count(conn, COLL_ITEMS, holding, items, e);
    bson_destroy(followed);
    bson_destroy(holding);
    return rc;
}

/* An update that sets what is there already is not written to the log, so nobody hears of a count that has
 * not changed. */
static int store(struct mongo_conn *conn, const char *target, enum target_kind kind, const char *name,
                 int64_t followers, int64_t items, bool *changed, struct err *e)
{
    char letter[2] = {target_kind_letter(kind), '\0'};
    bson_t *filter = BCON_NEW("_id", BCON_UTF8(target));
    bson_t *update = BCON_NEW("$set", "{", "followers", BCON_INT64(followers), "items", BCON_INT64(items),
                              "}", "$setOnInsert", "{", "kind", BCON_UTF8(letter), "name", BCON_UTF8(name),
                              "mode", BCON_UTF8("push"), "rev", BCON_INT64(0), "}");
    bson_t opts = BSON_INITIALIZER, reply;
    bson_error_t be;
    BSON_APPEND_BOOL(&opts, "upsert", followers != 0 || items != 0);
    mongo_write_opts(conn, &opts);
    bool ok =
        mongoc_collection_update_one(mongo_coll(conn, COLL_TARGETS), filter, update, &opts, &reply, &be);
    int64_t modified = 0;
    int rc = ok ? 0 : mongo_err(e, &be, &reply, "storing a count");
    if (rc == 0 && changed != NULL)
        *changed = (mongo_get_i64(&reply, "modifiedCount", &modified) && modified > 0) ||
                   bson_has_field(&reply, "upsertedId");
    bson_destroy(filter);
    bson_destroy(update);
    bson_destroy(&opts);
    bson_destroy(&reply);
    return rc;
}

int counts_recount(struct mongo_conn *conn, const char *target, bool *changed, struct err *e)
{
    enum target_kind kind;
    const char *name;
    int64_t followers = 0, items = 0;
    if (target_split(target, &kind, &name, e) != 0)
        return -1;
    if (count_target(conn, target, kind, name, &followers, &items, e) != 0)
        return -1;
    return store(conn, target, kind, name, followers, items, changed, e);
}

/* ---- all of them ---- */

struct sweep {
    struct mongo_conn *conn;
    bool (*between)(void *arg);
    void *arg;
    uint64_t fixed;
    bool stopped;
    char names[BATCH][TARGET_TEXT_SIZE]; /* waiting to be looked at */
    bool known[BATCH];
    size_t n;
    bool recount_known; /* the pass over `targets` itself: each; the others: only those without a document */
};

/* An index by whose first field the names of targets are found. */
struct walk {
    enum mongo_collection coll;
    const char *field, *index, *prefix;
};

static int find_known(struct sweep *s, struct err *e)
{
    bson_t filter = BSON_INITIALIZER, id, in, opts = BSON_INITIALIZER;
    BSON_APPEND_DOCUMENT_BEGIN(&filter, "_id", &id);
    BSON_APPEND_ARRAY_BEGIN(&id, "$in", &in);
    for (size_t i = 0; i < s->n; i++) {
        char text[16];
        const char *index;
        bson_uint32_to_string((uint32_t)i, &index, text, sizeof text);
        BSON_APPEND_UTF8(&in, index, s->names[i]);
        s->known[i] = false;
    }
    bson_append_array_end(&id, &in);
    bson_append_document_end(&filter, &id);
    BCON_APPEND(&opts, "projection", "{", "_id", BCON_INT32(1), "}", "batchSize", BCON_INT32(BATCH + 1));
    mongo_conn_deadline(s->conn, TARGET_DEADLINE_MS);
    mongo_read_opts(s->conn, &opts);
    mongoc_cursor_t *cursor =
        mongoc_collection_find_with_opts(mongo_coll(s->conn, COLL_TARGETS), &filter, &opts, NULL);
    const bson_t *doc, *reply;
    bson_error_t be;
    while (mongoc_cursor_next(cursor, &doc)) {
        const char *found = mongo_get_str(doc, "_id", NULL);
        for (size_t i = 0; i < s->n && found != NULL; i++)
            s->known[i] |= strcmp(s->names[i], found) == 0;
    }
    int rc =
        mongoc_cursor_error_document(cursor, &be, &reply) ? mongo_err(e, &be, reply, "reading targets") : 0;
    mongoc_cursor_destroy(cursor);
    bson_destroy(&filter);
    bson_destroy(&opts);
    return rc;
}

static int flush(struct sweep *s, struct err *e)
{
    if (s->n == 0 || s->stopped)
        return 0;
    if (!s->recount_known && find_known(s, e) != 0)
        return -1;
    for (size_t i = 0; i < s->n; i++) {
        bool changed = false;
        struct err why;
        if (!s->recount_known && s->known[i])
            continue;
        if (counts_recount(s->conn, s->names[i], &changed, &why) == 0)
            s->fixed += changed;
        else if (why.code == ERR_UNAVAILABLE) {
            *e = why;
            return -1;
        } /* else one target that can't be counted in time, or is damaged: what was stored of it stays */
    }
    s->n = 0;
    s->stopped = s->between != NULL && !s->between(s->arg);
    return 0;
}

static int add(struct sweep *s, const char *prefix, const char *name, struct err *e)
{
    if (name == NULL || strlen(prefix) + strlen(name) >= TARGET_TEXT_SIZE)
        return 0;
    snprintf(s->names[s->n++], TARGET_TEXT_SIZE, "%s%s", prefix, name);
    return s->n == BATCH ? flush(s, e) : 0;
}

/* {first field: behind `after`, the others: as low as they go}. No name holds a control character, so U+0001
 * leads behind all keys of `after` and before those of any longer name. */
static void lower_bound(const bson_t *index, const char *after, bson_t *min)
{
    char behind[KEY_MAX + 1];
    bson_iter_t it;
    snprintf(behind, sizeof behind, "%s\001", after);
    assert(bson_iter_init(&it, index));
    for (bool first = true; bson_iter_next(&it); first = false) {
        if (first)
            BSON_APPEND_UTF8(min, bson_iter_key(&it), behind);
        else if (bson_iter_as_int64(&it) > 0)
            BSON_APPEND_MINKEY(min, bson_iter_key(&it));
        else
            BSON_APPEND_MAXKEY(min, bson_iter_key(&it));
    }
}

/* Indexes are made while the first sweep of an empty database runs: nothing is there yet to be counted. */
static bool lacks_index(const bson_error_t *be)
{
    return be->code == BAD_VALUE && strstr(be->message, "hint provided does not correspond") != NULL;
}

/* The first string key of an index behind those of key[KEY_MAX], into key. Answers 1, 0 at the end, -1.
 * Walking the index itself by returnKey is the one way to the values of an array (topics) that has no 16 MB
 * limit and no cursor that lives as long as a sweep. */
static int next_key(struct sweep *s, const struct walk *w, char *key, struct err *e)
{
    bson_t *hint = bson_new_from_json((const uint8_t *)w->index, -1, NULL);
    bson_t min = BSON_INITIALIZER, any = BSON_INITIALIZER, opts = BSON_INITIALIZER;
    assert(hint != NULL);
    lower_bound(hint, key, &min);
    BCON_APPEND(&opts, "hint", BCON_DOCUMENT(hint), "min", BCON_DOCUMENT(&min), "returnKey", BCON_BOOL(true),
                "limit", BCON_INT64(1), "singleBatch", BCON_BOOL(true));
    mongo_conn_deadline(s->conn, TARGET_DEADLINE_MS);
    mongo_read_opts(s->conn, &opts);
    mongoc_cursor_t *cursor =
        mongoc_collection_find_with_opts(mongo_coll(s->conn, w->coll), &any, &opts, NULL);
    const bson_t *doc, *reply;
    bson_error_t be;
    int rc = 0;
    if (mongoc_cursor_next(cursor, &doc)) {
        const char *found = mongo_get_str(doc, w->field, NULL);
        rc = found != NULL; /* behind the strings come other types: nobody's name */
        if (found != NULL && snprintf(key, KEY_MAX, "%s", found) >= KEY_MAX)
            key[KEY_MAX - 2] = '\xff'; /* no name: on behind all that begin like it */
    } else if (mongoc_cursor_error_document(cursor, &be, &reply) && !lacks_index(&be)) {
        rc = mongo_err(e, &be, reply, "sweeping targets");
    }
    mongoc_cursor_destroy(cursor);
    bson_destroy(hint);
    bson_destroy(&min);
    bson_destroy(&opts);
    return rc;
}

/* From value to value, a look-up each. */
static int sweep_values(struct sweep *s, const struct walk *w, struct err *e)
{
    char key[KEY_MAX] = "";
    int rc = 0;
    s->recount_known = w->coll == COLL_TARGETS;
    while (!s->stopped && (rc = next_key(s, w, key, e)) > 0)
        if (add(s, w->prefix, key, e) != 0)
            return -1;
    return rc < 0 ? -1 : flush(s, e);
}

static const struct walk walks[] = {
    {COLL_TARGETS, "_id", "{\"_id\":1}", ""},
    {COLL_FOLLOWS, "t", "{\"t\":1,\"b\":1,\"u\":1}", ""},
    {COLL_ITEMS, "publisher", "{\"publisher\":1,\"live\":1,\"_id\":-1}", "p:"},
    {COLL_ITEMS, "topics", "{\"topics\":1,\"live\":1,\"_id\":-1}", "t:"},
};

int counts_sweep(struct mongo_conn *conn, bool (*between)(void *arg), void *arg, uint64_t *fixed,
                 struct err *e)
{
    struct sweep *s = mem_zero(1, sizeof *s);
    s->conn = conn;
    s->between = between;
    s->arg = arg;
    int rc = 0;
    for (size_t i = 0; i < MEM_COUNT(walks) && rc == 0 && !s->stopped; i++)
        rc = sweep_values(s, &walks[i], e);
    if (rc == 0 && fixed != NULL)
        *fixed = s->fixed;
    free(s);
    return rc;
}
