#include "feed-api/store_ids.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

size_t store_ids_merge(const item_id *a, size_t na, const item_id *b, size_t nb, item_id *out, size_t max)
{
    size_t i = 0, j = 0, n = 0;
    while (n < max && (i < na || j < nb)) {
        if (j == nb || (i < na && a[i] >= b[j])) {
            if (j < nb && a[i] == b[j])
                j++;
            out[n++] = a[i++];
        } else {
            out[n++] = b[j++];
        }
    }
    return n;
}

/* One chunk: {publisher: {$in: [...]}, live: true, _id: {$lt: before, $gt: bound}}. */
static void make_filter(const char *field, char *const *names, size_t n, item_id before, item_id bound,
                        bson_t *out)
{
    bson_t sub, in;
    char key[16];
    BSON_APPEND_DOCUMENT_BEGIN(out, field, &sub);
    BSON_APPEND_ARRAY_BEGIN(&sub, "$in", &in);
    for (size_t i = 0; i < n; i++) {
        const char *k;
        bson_uint32_to_string((uint32_t)i, &k, key, sizeof key);
        BSON_APPEND_UTF8(&in, k, names[i]);
    }
    bson_append_array_end(&sub, &in);
    bson_append_document_end(out, &sub);
    BSON_APPEND_BOOL(out, "live", true);
    BSON_APPEND_DOCUMENT_BEGIN(out, "_id", &sub);
    BSON_APPEND_INT64(&sub, "$lt", (int64_t)before);
    if (bound)
        BSON_APPEND_INT64(&sub, "$gt", (int64_t)bound);
    bson_append_document_end(out, &sub);
}

/* The index is named, because the planner is free to walk all of _id instead. */
static void make_opts(struct mongo_conn *c, const char *field, size_t n, bson_t *out)
{
    bson_t sub;
    BSON_APPEND_DOCUMENT_BEGIN(out, "sort", &sub);
    BSON_APPEND_INT32(&sub, "_id", -1);
    bson_append_document_end(out, &sub);
    BSON_APPEND_DOCUMENT_BEGIN(out, "projection", &sub);
    BSON_APPEND_INT32(&sub, "_id", 1);
    bson_append_document_end(out, &sub);
    BSON_APPEND_DOCUMENT_BEGIN(out, "hint", &sub);
    BSON_APPEND_INT32(&sub, field, 1);
    BSON_APPEND_INT32(&sub, "live", 1);
    BSON_APPEND_INT32(&sub, "_id", -1);
    bson_append_document_end(out, &sub);
    BSON_APPEND_INT64(out, "limit", (int64_t)n);
    BSON_APPEND_INT32(out, "batchSize",
                      (int32_t)n + 1); /* one more: the server then closes the cursor at once */
    mongo_read_opts(c, out);
}

static int read_chunk(struct mongo_conn *c, const char *field, char *const *names, size_t n_names,
                      item_id before, item_id bound, size_t n, item_id *out, size_t *got, struct err *e)
{
    bson_t filter = BSON_INITIALIZER, opts = BSON_INITIALIZER;
    make_filter(field, names, n_names, before, bound, &filter);
    make_opts(c, field, n, &opts);
    mongoc_cursor_t *cur = mongoc_collection_find_with_opts(mongo_coll(c, COLL_ITEMS), &filter, &opts, NULL);
    const bson_t *doc, *reply;
    size_t k = 0;
    while (k < n && mongoc_cursor_next(cur, &doc)) {
        int64_t id;
        if (mongo_get_i64(doc, "_id", &id))
            out[k++] = (item_id)id;
    }
    bson_error_t be;
    int rc = 0;
    if (mongoc_cursor_error_document(cur, &be, &reply))
        rc = mongo_err(e, &be, reply, "reading the newest items");
    mongoc_cursor_destroy(cur);
    bson_destroy(&filter);
    bson_destroy(&opts);
    if (rc == 0)
        *got = k;
    return rc;
}

/* What was merged so far; read and merged are scratch of the same size. */
struct merge {
    item_id *top, *read, *merged;
    size_t n_top, n;
};

static int merge_names(struct mongo_conn *c, const char *field, char *const *names, size_t n_names,
                       item_id before, struct merge *m, struct err *e)
{
    for (size_t i = 0; i < n_names; i += STORE_IDS_CHUNK) {
        size_t take = n_names - i < STORE_IDS_CHUNK ? n_names - i : STORE_IDS_CHUNK, got;
        item_id bound = m->n_top == m->n ? m->top[m->n - 1] : 0;
        if (read_chunk(c, field, names + i, take, before, bound, m->n, m->read, &got, e))
            return -1;
        m->n_top = store_ids_merge(m->top, m->n_top, m->read, got, m->merged, m->n);
        item_id *was = m->top;
        m->top = m->merged;
        m->merged = was;
    }
    return 0;
}

int store_ids(struct mongo_conn *c, const struct follow_set *targets, item_id before, size_t n, item_id *out,
              size_t *got, struct err *e)
{
    assert(n >= 1 && n <= STORE_IDS_MAX);
    item_id *scratch = mem_alloc(3 * n * sizeof *scratch);
    struct merge m = {.top = scratch, .read = scratch + n, .merged = scratch + 2 * n, .n = n};
    int rc = merge_names(c, "publisher", targets->publishers, targets->n_publishers, before, &m, e);
    if (rc == 0)
        rc = merge_names(c, "topics", targets->topics, targets->n_topics, before, &m, e);
    if (rc == 0) {
        memcpy(out, m.top, m.n_top * sizeof *out);
        *got = m.n_top;
    }
    free(scratch);
    return rc;
}
