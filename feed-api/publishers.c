#include "feed-api/publishers.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "common/buf.h"
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
    uint64_t hash;
    struct publisher_title *title; /* counted */
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

/* FNV-1a */
static uint64_t hash_bytes(const char *s, size_t n)
{
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ (unsigned char)s[i]) * 1099511628211u;
    return h;
}

uint64_t publishers_hash(const char *name)
{
    return hash_bytes(name, strlen(name));
}

static struct entry **find(struct publishers *p, const char *name, uint64_t hash)
{
    struct entry **at = &p->buckets[(hash ^ (hash >> 32)) & (p->n_buckets - 1)];
    while (*at && ((*at)->hash != hash || strcmp((*at)->name, name) != 0))
        at = &(*at)->next;
    return at;
}

static struct publisher_title *make_title(const char *name, const char *title, const char *icon)
{
    struct buf b;
    buf_init(&b, JSON_MAX);
    buf_add_json(&b, name);
    buf_add_str(&b, ":{\"title\":");
    buf_add_json(&b, title);
    buf_add_str(&b, ",\"icon\":");
    buf_add_json(&b, icon);
    buf_add_char(&b, '}');
    struct publisher_title *t = mem_alloc(sizeof *t + b.len);
    t->refs = 1;
    t->mark = hash_bytes(b.data, b.len);
    t->len = b.len;
    memcpy(t->json, b.data, b.len);
    buf_done(&b);
    return t;
}

static struct publisher_title *title_ref(struct publisher_title *t)
{
    __atomic_add_fetch(&t->refs, 1, __ATOMIC_RELAXED);
    return t;
}

struct publisher_title *publishers_untitled(const char *name)
{
    return make_title(name, NULL, NULL);
}

void publishers_unref(struct publisher_title *t)
{
    if (t && __atomic_sub_fetch(&t->refs, 1, __ATOMIC_ACQ_REL) == 0)
        free(t);
}

static void take_out(struct publishers *p, struct entry **at)
{
    struct entry *x = *at;
    *at = x->next;
    TAILQ_REMOVE(&p->ages, x, age);
    p->n--;
    publishers_unref(x->title);
    free(x);
}

static void take_oldest(struct publishers *p)
{
    const struct entry *x = TAILQ_FIRST(&p->ages);
    take_out(p, find(p, x->name, x->hash));
}

static void drop_all(struct publishers *p)
{
    while (!TAILQ_EMPTY(&p->ages))
        take_oldest(p);
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

size_t publishers_find(struct publishers *p, struct publisher_ask *asks, size_t n)
{
    size_t unknown = 0;
    int64_t since = clock_mono_ms() - KEEP_MS;
    pthread_mutex_lock(&p->lock);
    for (size_t i = 0; i < n; i++) {
        struct entry *x = *find(p, asks[i].name, asks[i].hash);
        asks[i].title = x && x->read_ms > since ? title_ref(x->title) : NULL;
        unknown += !asks[i].title;
    }
    pthread_mutex_unlock(&p->lock);
    return unknown;
}

static void keep(struct publishers *p, const struct publisher_ask *ask, int64_t read_ms)
{
    struct entry **at = find(p, ask->name, ask->hash);
    if (*at)
        take_out(p, at);
    if (p->n >= p->max)
        take_oldest(p);
    at = find(p, ask->name, ask->hash);
    struct entry *x = mem_zero(1, sizeof *x);
    snprintf(x->name, sizeof x->name, "%s", ask->name);
    x->hash = ask->hash;
    x->title = title_ref(ask->title);
    x->read_ms = read_ms;
    x->next = *at;
    *at = x;
    TAILQ_INSERT_TAIL(&p->ages, x, age);
    p->n++;
}

static mongoc_cursor_t *open_targets(struct mongo_conn *c, const struct publisher_ask *asks, size_t n)
{
    bson_t filter = BSON_INITIALIZER, opts = BSON_INITIALIZER, sub, in;
    BSON_APPEND_DOCUMENT_BEGIN(&filter, "_id", &sub);
    BSON_APPEND_ARRAY_BEGIN(&sub, "$in", &in);
    uint32_t count = 0;
    for (size_t i = 0; i < n; i++) {
        char key[16], target[TARGET_TEXT_SIZE];
        const char *k;
        if (asks[i].title)
            continue;
        bson_uint32_to_string(count++, &k, key, sizeof key);
        target_format(TARGET_PUBLISHER, asks[i].name, target);
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

/* Sets found[i] of those that have a document. */
static int read_targets(struct mongo_conn *c, const struct publisher_ask *asks, size_t n,
                        struct publisher_title **found, struct err *e)
{
    mongoc_cursor_t *cur = open_targets(c, asks, n);
    const bson_t *doc, *reply;
    while (mongoc_cursor_next(cur, &doc)) {
        const char *id = mongo_get_str(doc, "_id", NULL);
        for (size_t i = 0; id && i < n; i++) {
            if (!asks[i].title && !found[i] && strcmp(id + 2, asks[i].name) == 0)
                found[i] = make_title(asks[i].name, mongo_get_str(doc, "title", NULL),
                                      mongo_get_str(doc, "icon", NULL));
        }
    }
    bson_error_t be;
    int rc = 0;
    if (mongoc_cursor_error_document(cur, &be, &reply))
        rc = mongo_err(e, &be, reply, "reading publishers");
    mongoc_cursor_destroy(cur);
    return rc;
}

/* What changed while it was read is good enough for one page, but not for a minute. */
static void take_found(struct publishers *p, struct publisher_ask *asks, size_t n,
                       struct publisher_title **found, uint64_t changes, int64_t read_ms)
{
    pthread_mutex_lock(&p->lock);
    if (changes != p->changes)
        read_ms += 1000 - KEEP_MS;
    for (size_t i = 0; i < n; i++) {
        if (asks[i].title)
            continue;
        asks[i].title = found[i] ? found[i] : publishers_untitled(asks[i].name);
        keep(p, &asks[i], read_ms);
    }
    pthread_mutex_unlock(&p->lock);
}

int publishers_fetch(struct publishers *p, struct mongo_conn *c, struct publisher_ask *asks, size_t n,
                     struct err *e)
{
    assert(n >= 1 && n <= 200);
    struct publisher_title *found[200] = {NULL};
    pthread_mutex_lock(&p->lock);
    uint64_t changes = p->changes;
    pthread_mutex_unlock(&p->lock);
    int64_t now = clock_mono_ms();
    if (read_targets(c, asks, n, found, e) == 0) {
        take_found(p, asks, n, found, changes, now);
        return 0;
    }
    for (size_t i = 0; i < n; i++)
        publishers_unref(found[i]);
    return -1;
}

void publishers_changed(struct publishers *p, const char *name)
{
    pthread_mutex_lock(&p->lock);
    p->changes++;
    struct entry **at = find(p, name, publishers_hash(name));
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
