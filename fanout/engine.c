#include "fanout/engine.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "fanout/engine_private.h"

/* Between two writings of progress, each of which costs Redis about a millisecond: never sooner than the one.
 * Until the other, what was applied last is waited for to be complete, which takes the tail some
 * milliseconds: so progress passes a lone publish at once. */
#define PROGRESS_AT_MOST_MS  20
#define PROGRESS_AT_LEAST_MS 100
#define BACK_OFF_FIRST_MS    50
#define BACK_OFF_MAX_MS      1000

static bool stopping(const struct engine *g)
{
    return atomic_load(&g->stop);
}

/* ---- progress ---- */

static void note_pulse(struct engine *g, const struct change *c)
{
    unsigned i = (g->first_pulse + g->n_pulses) % PULSES;
    g->pulses[i] = (struct pulse){c->t, c->at_ms};
    if (g->n_pulses < PULSES)
        g->n_pulses++;
    else
        g->first_pulse = (g->first_pulse + 1) % PULSES;
}

static void pass_pulses(struct engine *g, ts_t t)
{
    while (g->n_pulses && g->pulses[g->first_pulse].t <= t) {
        g->heartbeat_at_ms = g->pulses[g->first_pulse].at_ms;
        g->first_pulse = (g->first_pulse + 1) % PULSES;
        g->n_pulses--;
    }
}

int engine_write_progress(struct engine *g, struct err *e)
{
    ts_t t = g->tail && !g->has_change ? changes_complete(g->tail) : 0;
    if (t == 0 || t <= g->written)
        return 0;
    if (deliver_progress(g->deliver, t, t, e) != 0)
        return -1;
    g->written = t;
    g->written_ms = clock_mono_ms();
    g->progressed = true;
    pass_pulses(g, t);
    engine_publish_status(g);
    metrics_observe_us(g->o.metrics, M_LAG_SECONDS, 0, engine_lag_ms(&g->status, clock_wall_ms()) * 1000);
    return 0;
}

/* ---- status ---- */

static bool is_ready(const struct engine *g, const struct shares_view *v, unsigned owned)
{
    if (g->status.ready)
        return true;
    return v->known && owned >= v->fair * SHARE_BUCKETS && (g->progressed || v->fair == 0);
}

void engine_publish_status(struct engine *g)
{
    struct engine_status s = {.redis_ok = !g->redis_lost, .mongodb_ok = !g->mongodb_lost};
    struct shares_view v;
    shares_look(g->o.shares, &v);
    s.members = v.members;
    s.fair = v.fair;
    s.buckets = buckets_owned(&g->buckets);
    s.heartbeat_at_ms = g->heartbeat_at_ms;
    if (!buckets_least(&g->buckets, &s.progress))
        s.progress = 0;
    for (unsigned b = 0; b < BUCKETS; b++) {
        const struct bucket *x = &g->buckets.at[b];
        unsigned i = bucket_share(b);
        if (!x->owned)
            continue;
        s.share[i].progress = s.share[i].owned ? ts_min(s.share[i].progress, x->applied) : x->applied;
        s.share[i].owned = true;
        s.share[i].epoch = g->epoch[i];
    }
    s.ready = is_ready(g, &v, s.buckets);
    metrics_set(g->o.metrics, M_BUCKETS_OWNED, 0, s.buckets);
    pthread_mutex_lock(&g->lock);
    g->status = s;
    pthread_mutex_unlock(&g->lock);
}

void engine_status(struct engine *g, struct engine_status *out)
{
    pthread_mutex_lock(&g->lock);
    *out = g->status;
    pthread_mutex_unlock(&g->lock);
}

int64_t engine_lag_ms(const struct engine_status *s, int64_t now_ms)
{
    if (s->heartbeat_at_ms == 0)
        return -1;
    return now_ms > s->heartbeat_at_ms ? now_ms - s->heartbeat_at_ms : 0;
}

void engine_refresh_metrics(struct engine *g)
{
    struct engine_status s;
    engine_status(g, &s);
    int64_t lag = engine_lag_ms(&s, clock_wall_ms());
    metrics_set(g->o.metrics, M_LAG, 0, lag > 0 ? lag / 1000 : 0);
}

/* ---- trouble ---- */

static void wait_a_little(struct engine *g)
{
    struct timespec step = {.tv_nsec = 10 * 1000000};
    g->back_off_ms = g->back_off_ms ? g->back_off_ms * 2 : BACK_OFF_FIRST_MS;
    if (g->back_off_ms > BACK_OFF_MAX_MS)
        g->back_off_ms = BACK_OFF_MAX_MS;
    int64_t until = clock_mono_ms() + g->back_off_ms;
    while (!stopping(g) && clock_mono_ms() < until)
        nanosleep(&step, NULL);
}

static void note_lost(struct engine *g, bool *lost, const char *event, enum metric_error of,
                      const struct err *e)
{
    metrics_add(g->o.metrics, M_ERRORS, of, 1);
    if (!*lost)
        log_event(LOG_WARN, event, LOG_ERR(e));
    *lost = true;
    engine_publish_status(g);
}

/* A change that can't be understood is reported and passed over: to wait for it would stop all others for
 * ever. */
static void pass_over(struct engine *g, const struct err *e)
{
    log_event(LOG_ERROR, "item_passed_over", LOG_U("item", g->in_hand.item), LOG_X("position", g->in_hand.t),
              LOG_ERR(e));
    metrics_add(g->o.metrics, M_ERRORS, ERROR_OF_CORRUPT, 1);
    g->has_change = false;
}

static void trouble(struct engine *g, const struct err *e)
{
    if (e->code == ERR_LOG_LOST) {
        engine_log_lost(g, e);
        return;
    }
    if (e->code == ERR_BUSY && stopping(g))
        return;
    if (deliver_broken(g->deliver)) {
        note_lost(g, &g->redis_lost, "redis_lost", ERROR_OF_REDIS, e);
    } else if (e->code == ERR_CORRUPT && g->has_change) {
        pass_over(g, e);
        return;
    } else if (e->code == ERR_BUSY) {
        log_event(LOG_WARN, "share_behind", LOG_ERR(e));
        metrics_add(g->o.metrics, M_ERRORS, ERROR_OF_OTHER, 1);
    } else {
        note_lost(g, &g->mongodb_lost, "mongodb_lost", ERROR_OF_MONGODB, e);
    }
    wait_a_little(g);
}

static void all_well(struct engine *g)
{
    g->back_off_ms = 0;
    if (!g->redis_lost && !g->mongodb_lost)
        return;
    if (g->redis_lost)
        log_event(LOG_INFO, "redis_back");
    if (g->mongodb_lost)
        log_event(LOG_INFO, "mongodb_back");
    g->redis_lost = g->mongodb_lost = false;
    engine_publish_status(g);
}

/* ---- rounds ---- */

static int take_change(struct engine *g, struct err *e)
{
    if (g->has_change)
        return 0;
    int r = changes_next(g->tail, &g->in_hand, e);
    if (r < 0)
        return -1;
    g->has_change = r == 1;
    if (r == 1)
        g->tail_at = ts_max(g->tail_at, g->in_hand.t);
    return 0;
}

static int handle_change(struct engine *g, struct err *e)
{
    if (!g->has_change)
        return 0;
    if (apply_change(&g->apply, &g->in_hand, e) != 0)
        return -1;
    if (g->in_hand.kind == CHANGE_HEARTBEAT)
        note_pulse(g, &g->in_hand);
    else
        g->applied_at = g->in_hand.t;
    g->has_change = false;
    return 0;
}

static bool progress_is_due(const struct engine *g)
{
    int64_t since = clock_mono_ms() - g->written_ms;
    if (since < PROGRESS_AT_MOST_MS)
        return false;
    return since >= PROGRESS_AT_LEAST_MS || changes_complete(g->tail) >= g->applied_at;
}

static int one_round(struct engine *g, struct err *e)
{
    shares_alive(g->o.shares);
    if (engine_prepare(g, e) != 0)
        return -1;
    mongo_conn_deadline(g->conn, 2000);
    if (engine_sync_shares(g, e) != 0 || engine_open_tail(g, e) != 0)
        return -1;
    if (!g->tail || buckets_owned(&g->buckets) == 0) {
        struct shares_view v;
        engine_close_tail(g);
        engine_publish_status(g);
        shares_look(g->o.shares, &v);
        shares_wait(g->o.shares, v.version, 100);
        return 0;
    }
    if (take_change(g, e) != 0 || handle_change(g, e) != 0)
        return -1;
    return progress_is_due(g) ? engine_write_progress(g, e) : 0;
}

/* Called between batches of a long audience: shares that went meanwhile get no more, and the leases stay
 * alive. */
static bool go_on(void *arg)
{
    struct engine *g = arg;
    struct shares_view v;
    shares_alive(g->o.shares);
    shares_look(g->o.shares, &v);
    for (unsigned i = 0; i < SHARES; i++) {
        if (g->epoch[i] && (!v.share[i].held || v.share[i].epoch != g->epoch[i]))
            deliver_refuse(g->deliver, 1u << i);
    }
    return !stopping(g) || clock_mono_ms() < atomic_load(&g->stop_at_ms) + g->o.drain_ms;
}

static void drain(struct engine *g)
{
    struct err e;
    bool fine = !deliver_broken(g->deliver) && deliver_refused(g->deliver) == 0;
    if (fine && g->has_change && handle_change(g, &e) != 0)
        log_event(LOG_WARN, "change_left", LOG_X("position", g->in_hand.t), LOG_ERR(&e));
    if (!deliver_broken(g->deliver) && engine_write_progress(g, &e) != 0)
        log_event(LOG_WARN, "progress_not_written", LOG_ERR(&e));
    if (!g->mongodb_lost && shares_leave(g->o.shares, &e) != 0) /* else the leases run out by themselves */
        log_event(LOG_WARN, "shares_not_released", LOG_ERR(&e));
    log_event(LOG_INFO, "engine_ended", LOG_X("progress", g->written));
}

static void *thread_main(void *arg)
{
    struct engine *g = arg;
    struct err e = {0};
    while (!stopping(g)) {
        if (one_round(g, &e) == 0)
            all_well(g);
        else
            trouble(g, &e);
    }
    drain(g);
    engine_close_tail(g);
    if (g->on_end)
        g->on_end(g->on_end_arg);
    return NULL;
}

/* ---- life ---- */

struct engine *engine_new(const struct engine_options *o)
{
    struct engine *g = mem_zero(1, sizeof *g);
    g->o = *o;
    pthread_mutex_init(&g->lock, NULL);
    buckets_init(&g->buckets);
    g->redis = redis_new(&o->redis, o->redis_timeout_ms);
    struct deliver_options d = {
        .redis = g->redis,
        .buckets = &g->buckets,
        .metrics = o->metrics,
        .timeline_cap = o->timeline_entries,
        .batch_keys = o->batch_keys,
        .window = o->pipeline_calls,
    };
    g->deliver = deliver_new(&d);
    apply_init(&g->apply, o->audience_batch);
    g->apply.buckets = &g->buckets;
    g->apply.deliver = g->deliver;
    g->apply.metrics = o->metrics;
    g->apply.go_on = go_on;
    g->apply.arg = g;
    return g;
}

void engine_free(struct engine *g)
{
    if (!g)
        return;
    engine_stop(g);
    engine_join(g);
    apply_done(&g->apply);
    deliver_free(g->deliver);
    redis_free(g->redis);
    mongo_conn_put(g->conn);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

void engine_on_end(struct engine *g, void (*on_end)(void *arg), void *arg)
{
    g->on_end = on_end;
    g->on_end_arg = arg;
}

int engine_start(struct engine *g, struct err *e)
{
    if (pthread_create(&g->thread, NULL, thread_main, g) != 0)
        return err_set(e, ERR_INTERNAL, "no thread for the engine");
    g->started = true;
    return 0;
}

void engine_stop(struct engine *g)
{
    atomic_store(&g->stop_at_ms, clock_mono_ms());
    atomic_store(&g->stop, true);
}

void engine_join(struct engine *g)
{
    if (g->started)
        pthread_join(g->thread, NULL);
    g->started = false;
}
