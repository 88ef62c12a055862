#include "fanout/receipts.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"

#define LOOK_MS     500
#define WRITE_MS    1000
#define COUNT_MS    10000
#define DEADLINE_MS 2000

struct point {
    int64_t at_ms, heartbeat_ms;
    uint32_t shares;
};

struct receipts {
    struct receipts_options o;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stop; /* under lock */

    /* the thread's */
    struct mongo_conn *conn;
    struct point points[RECEIPTS_POINTS];
    unsigned n;
    int64_t begun_ms; /* wall clock of the present document */
    bool unwritten, failing;
    int64_t wrote_ms, counted_ms; /* monotonic */
};

/* ---- points ---- */

static uint32_t shares_of(const struct engine_status *s)
{
    uint32_t mask = 0;
    for (unsigned i = 0; i < SHARES; i++)
        mask |= (uint32_t)s->share[i].owned << i;
    return mask;
}

static void look(struct receipts *r)
{
    struct engine_status s;
    int64_t now = clock_wall_ms();
    engine_status(r->o.engine, &s);
    struct point p = {now, s.heartbeat_at_ms, shares_of(&s)};
    if (s.heartbeat_at_ms == 0 || s.progress == 0 || s.troubles > 0 || p.shares == 0)
        return;
    const struct point *last = r->n ? &r->points[r->n - 1] : NULL;
    if (last && last->heartbeat_ms == p.heartbeat_ms && last->shares == p.shares)
        return;
    if (r->n == RECEIPTS_POINTS || now - r->begun_ms >= RECEIPTS_MS || now < r->begun_ms) {
        r->n = 0;
        r->begun_ms = now;
    }
    r->points[r->n++] = p;
    r->unwritten = true;
}

/* ---- MongoDB ---- */

static void put_points(const struct receipts *r, bson_t *set)
{
    bson_t list, one;
    char index[16];
    const char *key;
    BSON_APPEND_ARRAY_BEGIN(set, "points", &list);
    for (unsigned i = 0; i < r->n; i++) {
        size_t n = bson_uint32_to_string(i, &key, index, sizeof index);
        bson_append_document_begin(&list, key, (int)n, &one);
        BSON_APPEND_DATE_TIME(&one, "a", r->points[i].at_ms);
        BSON_APPEND_DATE_TIME(&one, "h", r->points[i].heartbeat_ms);
        BSON_APPEND_INT32(&one, "m", (int32_t)r->points[i].shares);
        bson_append_document_end(&list, &one);
    }
    bson_append_array_end(set, &list);
}

static int write_points(struct receipts *r, struct err *e)
{
    char id[160];
    bson_t set = BSON_INITIALIZER, opts = BSON_INITIALIZER, reply;
    bson_error_t be;
    int rc = 0;
    snprintf(id, sizeof id, "%s %lld", r->o.name, (long long)r->begun_ms);
    BSON_APPEND_DATE_TIME(&set, "at", r->begun_ms);
    BSON_APPEND_DATE_TIME(&set, "h", r->points[r->n - 1].heartbeat_ms);
    put_points(r, &set);
    bson_t *filter = BCON_NEW("_id", BCON_UTF8(id)), *update = BCON_NEW("$set", BCON_DOCUMENT(&set));
    BSON_APPEND_BOOL(&opts, "upsert", true);
    mongo_write_opts(r->conn, &opts);
    if (!mongoc_collection_update_one(mongo_coll(r->conn, COLL_RECEIPTS), filter, update, &opts, &reply, &be))
        rc = mongo_err(e, &be, &reply, "receipts");
    bson_destroy(&reply);
    bson_destroy(&opts);
    bson_destroy(&set);
    bson_destroy(filter);
    bson_destroy(update);
    return rc;
}

static int count_letters(struct receipts *r, struct err *e)
{
    bson_t opts = BSON_INITIALIZER, reply, *filter = BCON_NEW("state", BCON_UTF8("dead"));
    bson_error_t be;
    mongo_read_opts(r->conn, &opts);
    int64_t n = mongoc_collection_count_documents(mongo_coll(r->conn, COLL_DEAD_LETTERS), filter, &opts, NULL,
                                                  &reply, &be);
    int rc = n < 0 ? mongo_err(e, &be, &reply, "dead_letters") : 0;
    if (n >= 0)
        metrics_set(r->o.metrics, M_LETTERS_OPEN, 0, n);
    bson_destroy(&reply);
    bson_destroy(&opts);
    bson_destroy(filter);
    return rc;
}

static int do_due(struct receipts *r, struct err *e)
{
    int64_t now = clock_mono_ms();
    bool write = r->unwritten && now - r->wrote_ms >= WRITE_MS;
    bool count = r->counted_ms == 0 || now - r->counted_ms >= COUNT_MS;
    if (!write && !count)
        return 0;
    if (!r->conn && mongo_conn_get(r->o.mongo, &r->conn, e) != 0)
        return -1;
    mongo_conn_deadline(r->conn, DEADLINE_MS);
    if (write) {
        r->wrote_ms = now;
        if (write_points(r, e) != 0)
            return -1;
        r->unwritten = false;
    }
    if (count && count_letters(r, e) != 0)
        return -1;
    if (count)
        r->counted_ms = now;
    return 0;
}

/* ---- the thread ---- */

/* Answers whether to go on. */
static bool wait_until(struct receipts *r, int64_t mono_ms)
{
    struct timespec ts = {.tv_sec = mono_ms / 1000, .tv_nsec = mono_ms % 1000 * 1000000};
    int rc = 0;
    pthread_mutex_lock(&r->lock);
    while (!r->stop && rc != ETIMEDOUT)
        rc = pthread_cond_timedwait(&r->wake, &r->lock, &ts);
    bool stop = r->stop;
    pthread_mutex_unlock(&r->lock);
    return !stop;
}

static void *run(void *arg)
{
    struct receipts *r = arg;
    int64_t next;
    do {
        struct err e;
        next = clock_mono_ms() + LOOK_MS;
        look(r);
        bool ok = do_due(r, &e) == 0;
        if (!ok && !r->failing)
            log_event(LOG_WARN, "receipts_not_written", LOG_ERR(&e));
        r->failing = !ok;
    } while (wait_until(r, next));
    mongo_conn_put(r->conn);
    return NULL;
}

static void receipts_free(struct receipts *r)
{
    pthread_cond_destroy(&r->wake);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

int receipts_start(struct receipts **out, const struct receipts_options *o, struct err *e)
{
    struct receipts *r = mem_zero(1, sizeof *r);
    pthread_condattr_t attr;
    r->o = *o;
    pthread_mutex_init(&r->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&r->wake, &attr);
    pthread_condattr_destroy(&attr);
    int rc = pthread_create(&r->thread, NULL, run, r);
    if (rc != 0) {
        receipts_free(r);
        return err_set(e, ERR_UNAVAILABLE, "no thread for receipts: %s", strerror(rc));
    }
    *out = r;
    return 0;
}

void receipts_stop(struct receipts *r)
{
    if (!r)
        return;
    pthread_mutex_lock(&r->lock);
    r->stop = true;
    pthread_cond_signal(&r->wake);
    pthread_mutex_unlock(&r->lock);
    pthread_join(r->thread, NULL);
    receipts_free(r);
}
