#include "feed-api/follow_set.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/mem.h"
#include "feed-api/mutes.h"

#define BATCH 1000

/* All edges of a user are the _id range ["<user> ", "<user>!"): names hold no white space. Only _id is read,
 * so that its index is enough. */
static mongoc_cursor_t *open_edges(struct mongo_conn *c, enum mongo_collection which, const char *user)
{
    char from[NAME_MAX_BYTES + 2], to[NAME_MAX_BYTES + 2];
    snprintf(from, sizeof from, "%s ", user);
    snprintf(to, sizeof to, "%s!", user);
    bson_t filter = BSON_INITIALIZER, opts = BSON_INITIALIZER, b;
    BSON_APPEND_DOCUMENT_BEGIN(&filter, "_id", &b);
    BSON_APPEND_UTF8(&b, "$gte", from);
    BSON_APPEND_UTF8(&b, "$lt", to);
    bson_append_document_end(&filter, &b);
    BSON_APPEND_DOCUMENT_BEGIN(&opts, "projection", &b);
    BSON_APPEND_INT32(&b, "_id", 1);
    bson_append_document_end(&opts, &b);
    BSON_APPEND_DOCUMENT_BEGIN(&opts, "sort", &b);
    BSON_APPEND_INT32(&b, "_id", 1);
    bson_append_document_end(&opts, &b);
    BSON_APPEND_INT32(&opts, "batchSize", BATCH);
    mongo_read_opts(c, &opts);
    mongoc_cursor_t *cur = mongoc_collection_find_with_opts(mongo_coll(c, which), &filter, &opts, NULL);
    bson_destroy(&filter);
    bson_destroy(&opts);
    return cur;
}

/* Calls fn with each edge's target ("p:name"). */
static int each_edge(struct mongo_conn *c, enum mongo_collection which, const char *user,
                     void (*fn)(const char *target, void *arg), void *arg, struct err *e)
{
    mongoc_cursor_t *cur = open_edges(c, which, user);
    const bson_t *doc, *reply;
    size_t skip = strlen(user) + 1;
    while (mongoc_cursor_next(cur, &doc)) {
        size_t len;
        const char *id = mongo_get_str(doc, "_id", &len);
        if (id && len > skip)
            fn(id + skip, arg);
    }
    bson_error_t be;
    int rc = 0;
    if (mongoc_cursor_error_document(cur, &be, &reply))
        rc = mongo_err(e, &be, reply, which == COLL_FOLLOWS ? "reading follows" : "reading mutes");
    mongoc_cursor_destroy(cur);
    return rc;
}

static void append_name(char ***names, size_t *n, const char *name)
{
    if ((*n & (*n - 1)) == 0) /* room doubles at powers of two */
        *names = mem_grow(*names, *n ? *n * 2 : 1, sizeof **names);
    (*names)[(*n)++] = mem_strdup(name);
}

static void add_follow(const char *target, void *arg)
{
    struct follow_set *f = arg;
    enum target_kind kind;
    const char *name;
    if (target_split(target, &kind, &name, NULL))
        return;
    if (kind == TARGET_PUBLISHER)
        append_name(&f->publishers, &f->n_publishers, name);
    else if (kind == TARGET_TOPIC)
        append_name(&f->topics, &f->n_topics, name);
}

int follow_set_load(struct mongo_conn *c, const char *user, struct follow_set *out, struct err *e)
{
    struct follow_set f = {0};
    if (each_edge(c, COLL_FOLLOWS, user, add_follow, &f, e)) {
        follow_set_done(&f);
        return -1;
    }
    *out = f;
    return 0;
}

void follow_set_one(enum target_kind kind, const char *name, struct follow_set *out)
{
    memset(out, 0, sizeof *out);
    if (kind == TARGET_PUBLISHER)
        append_name(&out->publishers, &out->n_publishers, name);
    else
        append_name(&out->topics, &out->n_topics, name);
}

static void free_names(char **names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(names[i]);
    free(names);
}

void follow_set_done(struct follow_set *f)
{
    free_names(f->publishers, f->n_publishers);
    free_names(f->topics, f->n_topics);
    memset(f, 0, sizeof *f);
}

static int by_string(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool has_name(char **names, size_t n, const char *name)
{
    return n && bsearch(&name, names, n, sizeof *names, by_string);
}

bool follow_set_matches(const struct follow_set *f, const char *publisher, const char *const *topics,
                        size_t n_topics)
{
    if (publisher && has_name(f->publishers, f->n_publishers, publisher))
        return true;
    for (size_t i = 0; i < n_topics; i++) {
        if (has_name(f->topics, f->n_topics, topics[i]))
            return true;
    }
    return false;
}

bool follow_set_has(const struct follow_set *f, const char *target)
{
    enum target_kind kind;
    const char *name;
    if (target_split(target, &kind, &name, NULL))
        return false;
    return kind == TARGET_PUBLISHER ? has_name(f->publishers, f->n_publishers, name)
                                    : has_name(f->topics, f->n_topics, name);
}

static void add_mute(const char *target, void *arg)
{
    struct buf *b = arg;
    if (b->len)
        buf_add_char(b, '\n');
    buf_add_str(b, target);
}

int follow_set_mutes(struct mongo_conn *c, const char *user, char **out, struct err *e)
{
    struct buf b;
    buf_init(&b, MUTES_TEXT_MAX);
    if (each_edge(c, COLL_MUTES, user, add_mute, &b, e)) {
        buf_done(&b);
        return -1;
    }
    *out = buf_take(&b);
    return 0;
}
