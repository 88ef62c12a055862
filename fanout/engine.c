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
#define TASKS_KEPT           2000 /* finished ones, until progress is written */
#define CHANGES_AT_ONCE      64
#define BACKLOG              20000
#define AUDIENCE_CACHE       (256 << 20)
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

/* Up to where everything is applied, but for timelines that are not known yet. */
static ts_t progress_now(const struct engine *g)
{
    ts_t t = g->log ? log_reader_complete(g->log) : 0, oldest = tasks_oldest(g->tasks);
    ts_t held = troubles_oldest(g->troubles);
    if (g->has_change)
        t = ts_min(t, g->in_hand.t - 1);
    if (held)
        t = ts_min(t, held - 1);
    return oldest ? ts_min(t, oldest - 1) : t;
}

static bool has_progress(const struct engine *g, ts_t t)
{
    ts_t least;
    return buckets_least(&g->buckets, &least) &&
           (t > least || g->tail_at > g->told_seen || g->n_newborns > 0);
}

/* *newborns: some bucket took no progress, since it had births that were not known; now they are. All answers
 * are read before: they may tell what holds progress. */
static int tell_records(struct engine *g, ts_t t, bool *newborns, struct err *e)
{
    ts_t held[BUCKETS];
    if (deliver_drain(g->deliver, e) != 0 || engine_take_newborns(g, e) != 0 ||
        deliver_drain(g->deliver, e) != 0)
        return -1;
    bool any = troubles_held(g->troubles, held);
    if (deliver_progress(g->deliver, g->tail_at, t, any ? held : NULL, e) != 0)
        return -1;
    if (g->forget)
        engine_forget(g);
    *newborns = g->n_newborns > 0;
    return engine_take_newborns(g, e);
}

int engine_write_progress(struct engine *g, struct err *e)
{
    ts_t t = progress_now(g);
    bool newborns;
    if (t == 0 || !has_progress(g, t))
        return 0;
    if (tell_records(g, t, &newborns, e) != 0 ||
        (newborns && tell_records(g, progress_now(g), &newborns, e) != 0))
        return -1;
    tasks_sweep(g->tasks);
    g->told_seen = g->tail_at;
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
    s.troubles = troubles_count(g->troubles);
    s.backlog = tasks_unfinished(g->tasks) + (g->log ? log_reader_queued(g->log) : 0);
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
    metrics_set(g->o.metrics, M_BACKLOG, 0, s.backlog);
    metrics_set(g->o.metrics, M_READERS, 0, g->apply.known ? (int64_t)readers_count(g->apply.readers) : 0);
    metrics_set(g->o.metrics, M_LISTS, 0, (int64_t)lists_count_lists(g->apply.lists));
    metrics_set(g->o.metrics, M_LISTS_BYTES, 0, (int64_t)lists_bytes(g->apply.lists));
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

static void trouble(struct engine *g, const struct err *e)
{
    if (e->code == ERR_LOG_LOST) {
        engine_log_lost(g, e);
        return;
    }
    if (deliver_broken(g->deliver)) {
        note_lost(g, &g->redis_lost, "redis_lost", ERROR_OF_REDIS, e);
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
    if (g->log && log_reader_down(g->log)) /* nothing came, and that does not say that nothing happened */
        return;
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

static int64_t until_progress_ms(const struct engine *g)
{
    int64_t since = clock_mono_ms() - g->written_ms;
    bool soon = tasks_unfinished(g->tasks) == 0 && g->log && log_reader_complete(g->log) >= g->applied_at;
    int64_t at = soon || tasks_finished(g->tasks) > TASKS_KEPT ? PROGRESS_AT_MOST_MS : PROGRESS_AT_LEAST_MS;
    return since < at ? at - since : 0;
}

enum applied { APPLIED_ITEM, APPLIED_USER, APPLIED_TURN };

static void note_applied(struct engine *g, enum applied what, ts_t t, item_id item, int64_t from_us)
{
    int64_t us = clock_mono_us() - from_us;
    static const char *const names[] = {"item", "user", "turn"};
    metrics_observe_us(g->o.metrics, M_APPLY, what, us);
    log_event(LOG_DEBUG, "applied", LOG_X("position", t), LOG_S("kind", names[what]), LOG_U("item", item),
              LOG_I("us", us));
}

/* From here on the log's items are for followers in the new mode. What the target's followers have to get for
 * that is a task: until it is done progress stays below the turn, and no page claims to be newer. */
static void take_turn(struct engine *g, const struct plan *turn, int64_t now_us)
{
    modes_set(g->apply.modes, turn->add[0], turn->what == PLAN_PULL, turn->t);
    tasks_add(g->tasks, turn->add[0], turn, now_us);
    metrics_set(g->o.metrics, M_PULLED, 0, modes_count(g->apply.modes));
    log_event(LOG_INFO, "target_turns", LOG_S("target", turn->add[0]),
              LOG_S("mode", turn->what == PLAN_PULL ? "pull" : "push"), LOG_X("position", turn->t));
}

/* Makes a task of the change in hand, or does what it asks for. */
static int handle_change(struct engine *g, struct err *e)
{
    const struct change *c = &g->in_hand;
    struct plan plan;
    char publisher[NAME_MAX_BYTES + 1];
    bool asks = false;
    int64_t now_us = clock_mono_us();
    if (c->kind == CHANGE_HEARTBEAT)
        note_pulse(g, c);
    else if (c->kind == CHANGE_USER && engine_drop_user(g, c, e) != 0)
        return -1;
    else if (c->kind == CHANGE_ITEM && apply_read(&g->apply, c, &plan, publisher, &asks, e) != 0 &&
             engine_put_aside(g, e) != 0)
        return -1;
    else if (plan_turn(c, &plan))
        take_turn(g, &plan, now_us);
    if (asks)
        tasks_add(g->tasks, publisher, &plan, now_us);
    if (c->kind == CHANGE_USER)
        note_applied(g, APPLIED_USER, c->t, c->item, now_us);
    if (c->kind != CHANGE_HEARTBEAT)
        g->applied_at = c->t;
    metrics_add(g->o.metrics, M_CHANGES, c->kind, 1);
    g->has_change = false;
    return 0;
}

static int64_t idle_ms(const struct engine *g)
{
    int64_t ms = until_progress_ms(g);
    return ms > 0 || has_progress(g, progress_now(g)) ? ms : PROGRESS_AT_MOST_MS;
}

/* Takes over what was read from the log; waits for it when there is nothing else to do. */
static int take_changes(struct engine *g, struct err *e)
{
    unsigned most = g->o.backlog ? g->o.backlog : BACKLOG;
    for (unsigned i = 0; i < CHANGES_AT_ONCE; i++) {
        if (g->has_change && handle_change(g, e) != 0)
            return -1;
        bool idle = i == 0 && g->apply.known && !tasks_ready(g->tasks);
        if (tasks_unfinished(g->tasks) >= most)
            return 0;
        int r = log_reader_next(g->log, &g->in_hand, idle ? idle_ms(g) : 0, e);
        if (r <= 0)
            return r;
        g->has_change = true;
        g->tail_at = g->apply.log_at = ts_max(g->tail_at, g->in_hand.t);
    }
    return g->has_change ? handle_change(g, e) : 0;
}

static int do_slice(struct engine *g, struct err *e)
{
    struct task *k = tasks_next(g->tasks);
    bool done;
    if (!k)
        return 0;
    if (apply_slice(&g->apply, k, &done, e) != 0)
        return engine_rest_task(g, k, e);
    if (!done)
        return 0;
    troubles_end_task(g->troubles, k);
    for (struct task *next; k; k = next) {
        next = apply_next_led(k);
        note_applied(g, k->what == PLAN_ITEM ? APPLIED_ITEM : APPLIED_TURN, k->t, k->id, k->read_us);
        tasks_done(g->tasks, k);
    }
    return 0;
}

static int one_round(struct engine *g, struct err *e)
{
    shares_alive(g->o.shares);
    if (engine_prepare(g, e) != 0)
        return -1;
    mongo_conn_deadline(g->conn, 2000);
    if (engine_sync_shares(g, e) != 0 || engine_open_tail(g, e) != 0)
        return -1;
    if (!g->log || buckets_owned(&g->buckets) == 0) {
        struct shares_view v;
        engine_close_tail(g);
        engine_publish_status(g);
        shares_look(g->o.shares, &v);
        shares_wait(g->o.shares, v.version, 100);
        return 0;
    }
    if (engine_retry(g, e) != 0 || engine_scan_step(g, e) != 0 || take_changes(g, e) != 0 ||
        do_slice(g, e) != 0)
        return -1;
    if (!tasks_ready(g->tasks) && deliver_drain(g->deliver, e) != 0)
        return -1;
    return until_progress_ms(g) == 0 ? engine_write_progress(g, e) : 0;
}

/* Finishes what was read from the log, as far as the time for it goes. */
static void finish_tasks(struct engine *g)
{
    struct err e;
    while (tasks_ready(g->tasks)) {
        if (clock_mono_ms() >= atomic_load(&g->stop_at_ms) + g->o.drain_ms) {
            log_event(LOG_WARN, "changes_left", LOG_U("changes", tasks_unfinished(g->tasks)));
            return;
        }
        shares_alive(g->o.shares);
        if (do_slice(g, &e) != 0) {
            log_event(LOG_WARN, "changes_left", LOG_U("changes", tasks_unfinished(g->tasks)), LOG_ERR(&e));
            return;
        }
    }
}

static void drain(struct engine *g)
{
    struct err e;
    if (!deliver_broken(g->deliver) && deliver_refused(g->deliver) == 0)
        finish_tasks(g);
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
        .gone = engine_note_gone,
        .dropped = engine_note_dropped,
        .born = engine_note_born,
        .births_lost = engine_note_births_lost,
        .left_out = engine_note_left_out,
        .arg = g,
    };
    g->deliver = deliver_new(&d);
    apply_init(&g->apply, o->audience_batch, o->timeline_entries);
    g->apply.modes = modes_new();
    g->apply.buckets = &g->buckets;
    g->apply.deliver = g->deliver;
    g->apply.metrics = o->metrics;
    g->apply.readers = readers_new();
    g->apply.lists = lists_new(g->apply.readers, o->audience_cache ? o->audience_cache : AUDIENCE_CACHE);
    g->tasks = tasks_new();
    g->troubles = troubles_new();
    g->drops = mem_zero(ENGINE_DROPS, sizeof *g->drops);
    g->scan_redis = redis_new(&o->redis, o->redis_timeout_ms);
    return g;
}

void engine_free(struct engine *g)
{
    if (!g)
        return;
    engine_stop(g);
    engine_join(g);
    engine_close_tail(g);
    troubles_free(g->troubles);
    tasks_free(g->tasks);
    lists_free(g->apply.lists);
    readers_free(g->apply.readers);
    modes_free(g->apply.modes);
    free(g->newborns);
    free(g->drops);
    apply_done(&g->apply);
    deliver_free(g->deliver);
    redis_free(g->scan_redis);
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
