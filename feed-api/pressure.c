#include "feed-api/pressure.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "feed-api/metrics.h"

#define LEASE_MS         5000 /* of a fanout that does not tell it */
#define RETRY_LEAST_MS   1000
#define RETRY_MOST_MS    30000
#define RETRY_UNKNOWN_MS 5000 /* while it does not come down */

struct pressure {
    struct pressure_limits limits;
    struct metrics *metrics;
    atomic_int reason;
    _Atomic int64_t retry_after_ms, valid_until_ms;

    pthread_mutex_t lock; /* guards what follows */
    struct pressure_view view;
};

const char *pressure_reason_name(enum pressure_reason r)
{
    static const char *const names[] = {NULL, "lag", "backlog"};
    return names[r];
}

/* ---- the decision ---- */

static bool counts(const struct pressure_fanout *f)
{
    return f->alive && f->told && f->state.redis_ok && f->state.mongodb_ok && f->state.buckets > 0;
}

static int64_t low_mark(int64_t limit)
{
    return limit - limit / 4;
}

static bool is_over(int64_t limit, int64_t value, bool was)
{
    return limit > 0 && value > (was ? low_mark(limit) : limit);
}

/* By how fast it came down since the last look. */
static int64_t retry_after(int64_t limit, int64_t before, int64_t now, int64_t between_ms)
{
    if (before <= now || between_ms <= 0)
        return RETRY_UNKNOWN_MS;
    double ms = (double)(now - low_mark(limit)) * (double)between_ms / (double)(before - now);
    return ms < RETRY_LEAST_MS ? RETRY_LEAST_MS : ms > RETRY_MOST_MS ? RETRY_MOST_MS : (int64_t)ms;
}

void pressure_decide(const struct pressure_limits *l, const struct pressure_view *before,
                     struct pressure_view *now)
{
    int64_t between_ms = before->at_ms > 0 ? now->at_ms - before->at_ms : 0;
    now->alive = 0;
    now->lag_ms = -1;
    now->backlog = 0;
    now->memory_tight = false;
    for (size_t i = 0; i < now->n; i++) {
        const struct pressure_fanout *f = &now->fanouts[i];
        now->alive += f->alive;
        now->memory_tight |= f->alive && f->told && f->state.memory_tight;
        if (!counts(f))
            continue;
        now->lag_ms = f->state.lag_ms > now->lag_ms ? f->state.lag_ms : now->lag_ms;
        now->backlog = f->state.backlog > now->backlog ? f->state.backlog : now->backlog;
    }
    now->reason = PRESSURE_NONE;
    now->retry_after_ms = 0;
    if (is_over(l->lag_ms, now->lag_ms, before->reason == PRESSURE_LAG)) {
        now->reason = PRESSURE_LAG;
        now->retry_after_ms = retry_after(l->lag_ms, before->lag_ms, now->lag_ms, between_ms);
    } else if (is_over(l->backlog, now->backlog, before->reason == PRESSURE_BACKLOG)) {
        now->reason = PRESSURE_BACKLOG;
        now->retry_after_ms = retry_after(l->backlog, before->backlog, now->backlog, between_ms);
    }
}

/* ---- reading ---- */

static void read_member(const bson_t *d, struct pressure_fanout *out)
{
    const char *name = mongo_get_str(d, "_id", NULL);
    int64_t lease_ms;
    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "%s", name != NULL ? name : "");
    if (!mongo_get_i64(d, "lease_ms", &lease_ms))
        lease_ms = LEASE_MS;
    out->alive = mongo_get_i64(d, "age_ms", &out->age_ms) && out->age_ms < lease_ms;
    out->told = member_state_read(d, "state", &out->state);
}

static int read_members(struct mongo_conn *c, struct pressure_view *v, struct err *e)
{
    bson_t filter = BSON_INITIALIZER;
    bson_t *opts = BCON_NEW("projection", "{", "lease_ms", BCON_INT32(1), "state", BCON_INT32(1), "age_ms",
                            "{", "$subtract", "[", BCON_UTF8("$$NOW"), BCON_UTF8("$seen"), "]", "}", "}",
                            "sort", "{", "seen", BCON_INT32(-1), "}", "limit",
                            BCON_INT64(PRESSURE_FANOUTS_MAX), "batchSize", BCON_INT32(PRESSURE_FANOUTS_MAX));
    mongo_read_opts(c, opts);
    mongoc_cursor_t *cur = mongoc_collection_find_with_opts(mongo_coll(c, COLL_MEMBERS), &filter, opts, NULL);
    const bson_t *d;
    v->n = 0;
    while (v->n < PRESSURE_FANOUTS_MAX && mongoc_cursor_next(cur, &d))
        read_member(d, &v->fanouts[v->n++]);
    bson_error_t be;
    const bson_t *reply = NULL;
    int rc = mongoc_cursor_error_document(cur, &be, &reply) ? mongo_err(e, &be, reply, "members") : 0;
    mongoc_cursor_destroy(cur);
    bson_destroy(opts);
    bson_destroy(&filter);
    return rc;
}

/* ---- telling ---- */

static void log_turn(const struct pressure_view *before, const struct pressure_view *now)
{
    if (now->reason != PRESSURE_NONE && before->reason == PRESSURE_NONE)
        log_event(LOG_WARN, "publishing_refused", LOG_S("why", pressure_reason_name(now->reason)),
                  LOG_I("lag_ms", now->lag_ms), LOG_I("backlog", now->backlog));
    else if (now->reason == PRESSURE_NONE && before->reason != PRESSURE_NONE)
        log_event(LOG_INFO, "publishing_accepted", LOG_I("lag_ms", now->lag_ms),
                  LOG_I("backlog", now->backlog));
}

static void show(struct pressure *p, const struct pressure_view *v)
{
    atomic_store(&p->retry_after_ms, v->retry_after_ms);
    atomic_store(&p->valid_until_ms, v->at_ms + PRESSURE_VALID_MS);
    atomic_store(&p->reason, (int)v->reason);
    metrics_set(p->metrics, M_FANOUTS, 0, v->alive);
    metrics_set(p->metrics, M_FANOUT_LAG_MS, 0, v->lag_ms > 0 ? v->lag_ms : 0);
    metrics_set(p->metrics, M_FANOUT_BACKLOG, 0, v->backlog);
    metrics_set(p->metrics, M_PUBLISHING, 0, v->reason == PRESSURE_NONE);
}

int pressure_probe(struct pressure *p, struct mongo_conn *c, struct err *e)
{
    struct pressure_view *now = mem_zero(1, sizeof *now);
    if (read_members(c, now, e) != 0) {
        free(now);
        return -1;
    }
    now->at_ms = clock_mono_ms();
    /* Only this thread writes it, so that it may be read without the lock. */
    pressure_decide(&p->limits, &p->view, now);
    log_turn(&p->view, now);
    show(p, now);
    pthread_mutex_lock(&p->lock);
    p->view = *now;
    pthread_mutex_unlock(&p->lock);
    free(now);
    return 0;
}

enum pressure_reason pressure_refuses(const struct pressure *p, int64_t *retry_after_ms)
{
    enum pressure_reason r = (enum pressure_reason)atomic_load(&p->reason);
    if (r == PRESSURE_NONE || clock_mono_ms() > atomic_load(&p->valid_until_ms))
        return PRESSURE_NONE;
    *retry_after_ms = atomic_load(&p->retry_after_ms);
    return r;
}

void pressure_look(struct pressure *p, struct pressure_view *out)
{
    pthread_mutex_lock(&p->lock);
    *out = p->view;
    pthread_mutex_unlock(&p->lock);
}

/* ---- life ---- */

struct pressure *pressure_new(const struct pressure_limits *l, struct metrics *m)
{
    struct pressure *p = mem_zero(1, sizeof *p);
    p->limits = *l;
    p->metrics = m;
    p->view.lag_ms = -1;
    pthread_mutex_init(&p->lock, NULL);
    metrics_set(m, M_PUBLISHING, 0, 1);
    return p;
}

void pressure_free(struct pressure *p)
{
    if (p == NULL)
        return;
    pthread_mutex_destroy(&p->lock);
    free(p);
}
