#include "feed-api/publishers.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "common/clock.h"
#include "common/mem.h"
#include "common/names.h"

#define KEEP_MS     60000
#define BUCKETS_MIN 64
#define JSON_MAX    32768

struct entry {
    struct entry *next; /* in the bucket */
    TAILQ_ENTRY(entry) age;
    int64_t read_ms; /* clock_mono_ms() before it was read */
    char *json;
    char name[NAME_MAX_BYTES + 1];
};

struct publishers {
    pthread_mutex_t lock;
    struct entry **buckets;
    size_t n_buckets, n, max;
    TAILQ_HEAD(, entry) ages; /* the oldest first */
    uint64_t changes; /* how often something was told to have changed: what was read before is not kept */
};

struct publishers *publishers_new(size_t max_entries)
{
    struct publishers *p = mem_zero(1, sizeof *p);
    p->max = max_entries;
    for (p->n_buckets = BUCKETS_MIN; p->n_buckets < max_entries; p->n_buckets *= 2)
        ;
    p->buckets = mem_zero(p->n_buckets, sizeof *p->buckets);
    TAILQ_INIT(&p->ages);
    pthread_mutex_init(&p->lock, NULL);
    return p;
}

static struct entry **find(struct publishers *p, const char *name)
{
    uint64_t h = 14695981039346656037u; /* FNV-1a */
    for (const char *s = name; *s; s++)
        h = (h ^ (unsigned char)*s) * 1099511628211u;
    struct entry **at = &p->buckets[(h ^ (h >> 32)) & (p->n_buckets - 1)];
    while (*at && strcmp((*at)->name, name) != 0)
        at = &(*at)->next;
    return at;
}

static void take_out(struct publishers *p, struct entry **at)
{
    struct entry *x = *at;
    *at = x->next;
    TAILQ_REMOVE(&p->ages, x, age);
    p->n--;
    free(x->json);
    free(x);
}

static void drop_all(struct publishers *p)
{
    while (!TAILQ_EMPTY(&p->ages))
        take_out(p, find(p, TAILQ_FIRST(&p->ages)->name));
}

void publishers_free(struct publishers *p)
{
    if (!p)
        return;
    drop_all(p);
    free(p->buckets);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

bool publishers_write(struct publishers *p, const char *name, struct buf *out)
{
    pthread_mutex_lock(&p->lock);
    struct entry *x = *find(p, name);
    bool known = x && clock_mono_ms() - x->read_ms < KEEP_MS;
    if (known)
        buf_add_str(out, x->json);
    pthread_mutex_unlock(&p->lock);
    return known;
}

static void keep(struct publishers *p, const char *name, const char *json, int64_t read_ms)
{
    struct entry **at = find(p, name);
    if (*at)
        take_out(p, at);
    if (p->n >= p->max)
        take_out(p, find(p, TAILQ_FIRST(&p->ages)->name));
    at = find(p, name);
    struct entry *x = mem_zero(1, sizeof *x);
    snprintf(x->name, sizeof x->name, "%s", name);
    x->json = mem_strdup(json);
    x->read_ms = read_ms;
    x->next = *at;
    *at = x;
    TAILQ_INSERT_TAIL(&p->ages, x, age);
    p->n++;
}

static mongoc_cursor_t *open_targets(struct mongo_conn *c, const char *const *names, size_t n)
{
    bson_t filter = BSON_INITIALIZER, opts = BSON_INITIALIZER, sub, in;
    BSON_APPEND_DOCUMENT_BEGIN(&filter, "_id", &sub);
    BSON_APPEND_ARRAY_BEGIN(&sub, "$in", &in);
    for (size_t i = 0; i < n; i++) {
        char key[16], target[TARGET_TEXT_SIZE];
        const char *k;
        bson_uint32_to_string((uint32_t)i, &k, key, sizeof key);
        target_format(TARGET_PUBLISHER, names[i], target);
        BSON_APPEND_UTF8(&in, k, target);
    }
    bson_append_array_end(&sub, &in);
    bson_append_document_end(&filter, &sub);
    BSON_APPEND_DOCUMENT_BEGIN(&opts, "projection", &sub);
    BSON_APPEND_INT32(&sub, "title", 1);
    BSON_APPEND_INT32(&sub, "icon", 1);
    bson_append_document_end(&opts, &sub);
    BSON_APPEND_INT32(&opts, "batchSize", (int32_t)n + 1);
    mongo_read_opts(c, &opts);
    mongoc_cursor_t *cur =
        mongoc_collection_find_with_opts(mongo_coll(c, COLL_TARGETS), &filter, &opts, NULL);
    bson_destroy(&filter);
    bson_destroy(&opts);
    return cur;
}

static char *make_json(const char *title, const char *icon)
{
    struct buf b;
    buf_init(&b, JSON_MAX);
    buf_add_str(&b, "{\"title\":");
    buf_add_json(&b, title);
    buf_add_str(&b, ",\"icon\":");
    buf_add_json(&b, icon);
    buf_add_char(&b, '}');
    return buf_take(&b);
}

/* Fills json[i] of those that have a document. */
static int read_targets(struct mongo_conn *c, const char *const *names, size_t n, char **json, struct err *e)
{
    mongoc_cursor_t *cur = open_targets(c, names, n);
    const bson_t *doc, *reply;
    while (mongoc_cursor_next(cur, &doc)) {
        const char *id = mongo_get_str(doc, "_id", NULL);
        for (size_t i = 0; id && i < n; i++) {
            if (!json[i] && strcmp(id + 2, names[i]) == 0)
                json[i] = make_json(mongo_get_str(doc, "title", NULL), mongo_get_str(doc, "icon", NULL));
        }
    }
    bson_error_t be;
    int rc = 0;
    if (mongoc_cursor_error_document(cur, &be, &reply))
        rc = mongo_err(e, &be, reply, "reading publishers");
    mongoc_cursor_destroy(cur);
    return rc;
}

int publishers_fetch(struct publishers *p, struct mongo_conn *c, const char *const *names, size_t n,
                     struct err *e)
{
    assert(n >= 1 && n <= 200);
    char *json[200] = {NULL};
    pthread_mutex_lock(&p->lock);
    uint64_t changes = p->changes;
    pthread_mutex_unlock(&p->lock);
    int64_t now = clock_mono_ms();
    int rc = read_targets(c, names, n, json, e);
    if (rc == 0) {
        pthread_mutex_lock(&p->lock);
        /* Something changed meanwhile: good enough for one page, but not for a minute. */
        int64_t read_ms = changes == p->changes ? now : now - KEEP_MS + 1000;
        for (size_t i = 0; i < n; i++)
            keep(p, names[i], json[i] ? json[i] : "{\"title\":null,\"icon\":null}", read_ms);
        pthread_mutex_unlock(&p->lock);
    }
    for (size_t i = 0; i < n; i++)
        free(json[i]);
    return rc;
}

void publishers_changed(struct publishers *p, const char *name)
{
    pthread_mutex_lock(&p->lock);
    p->changes++;
    struct entry **at = find(p, name);
    if (*at)
        take_out(p, at);
    pthread_mutex_unlock(&p->lock);
}

void publishers_drop_all(struct publishers *p)
{
    pthread_mutex_lock(&p->lock);
    p->changes++;
    drop_all(p);
    pthread_mutex_unlock(&p->lock);
}
