#include "feed-api/tail.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/changes.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "feed-api/app.h"
#include "feed-api/beats.h"
#include "feed-api/feed.h"
#include "feed-api/streams.h"
#include "feed-api/user_changes.h"

#define START_BACK_S   10
#define ALIVE_MS       1000
#define USERS_MAX      1000000
#define USERS_KEEP_MS  600000
#define OPEN_MS        2000
#define BACKOFF_MIN_MS 50
#define BACKOFF_MAX_MS 1000

struct tail {
    struct app *app;
    struct heartbeat *heartbeat;
    pthread_t thread;
    atomic_bool stopping;

    pthread_mutex_t lock; /* of what follows */
    ts_t position;
    int64_t own_beat_ms; /* clock_mono_ms() at which the newest own heartbeat seen was sent; 0: none */
    struct beats beats;
    struct user_changes *users;
};

/* ---- questions, any thread ---- */

static void lock_tail(const struct tail *t)
{
    pthread_mutex_lock(&((struct tail *)t)->lock); /* the lock is not part of what the caller sees */
}

static void unlock_tail(const struct tail *t)
{
    pthread_mutex_unlock(&((struct tail *)t)->lock);
}

ts_t tail_position(const struct tail *t)
{
    lock_tail(t);
    ts_t position = t->position;
    unlock_tail(t);
    return position;
}

bool tail_alive(const struct tail *t)
{
    lock_tail(t);
    int64_t beat = t->own_beat_ms;
    unlock_tail(t);
    return beat != 0 && clock_mono_ms() - beat <= ALIVE_MS;
}

int64_t tail_lag_ms(const struct tail *t, ts_t freshness)
{
    lock_tail(t);
    int64_t lag = beats_lag_ms(&t->beats, freshness, clock_wall_ms(), HEARTBEAT_INTERVAL_MS);
    unlock_tail(t);
    return lag;
}

ts_t tail_user_changed(const struct tail *t, const char *user)
{
    lock_tail(t);
    ts_t when = user_changes_find(t->users, user);
    unlock_tail(t);
    return when;
}

ts_t tail_user_memory(const struct tail *t)
{
    lock_tail(t);
    ts_t memory = user_changes_memory(t->users);
    unlock_tail(t);
    return memory;
}

void tail_note_user(struct tail *t, const char *user, ts_t when)
{
    lock_tail(t);
    user_changes_note(t->users, user, when, clock_mono_ms());
    size_t n = user_changes_count(t->users);
    unlock_tail(t);
    metrics_set(t->app->metrics, M_USER_CHANGES, 0, (int64_t)n);
}

/* ---- the thread ---- */

static void take_heartbeat(struct tail *t, const struct change *c)
{
    lock_tail(t);
    beats_add(&t->beats, c->t, c->at_ms);
    if (strcmp(c->name, t->app->instance) == 0 && c->mono_ms > t->own_beat_ms)
        t->own_beat_ms = c->mono_ms;
    user_changes_expire(t->users, clock_mono_ms());
    size_t n = user_changes_count(t->users);
    unlock_tail(t);
    metrics_set(t->app->metrics, M_USER_CHANGES, 0, (int64_t)n);
}

static void take_target(struct tail *t, const char *target)
{
    enum target_kind kind;
    const char *name;
    if (target_split(target, &kind, &name, NULL) == 0 && kind == TARGET_PUBLISHER)
        publishers_changed(t->app->feed->publishers, name);
}

static void take_change(struct tail *t, const struct change *c)
{
    struct app *app = t->app;
    metrics_add(app->metrics, M_TAIL_CHANGES, c->kind, 1);
    switch (c->kind) {
    case CHANGE_ITEM:
        content_seen(app->content, c->t);
        content_changed(app->content, c->item, c->revision);
        pulled_take(app->pulled, c);
        break;
    case CHANGE_USER:
        tail_note_user(t, c->name, c->t);
        break;
    case CHANGE_API_KEY:
        auth_forget_key(app->auth, c->name);
        break;
    case CHANGE_TOKEN_END:
        auth_tokens_ended(app->auth, c->name, c->at_ms);
        break;
    case CHANGE_HEARTBEAT:
        take_heartbeat(t, c);
        break;
    case CHANGE_TARGET:
        take_target(t, c->name);
        break;
    case CHANGE_OTHER:
        break;
    }
}

/* What a cache holds from before `from` is no longer told about. The tail is not alive until it has seen a
 * heartbeat from after it. */
static void begin_at(struct tail *t, ts_t from)
{
    lock_tail(t);
    user_changes_begin(t->users, from);
    beats_clear(&t->beats);
    t->position = 0;
    t->own_beat_ms = 0;
    unlock_tail(t);
    content_seen(t->app->content, from);
    content_drop_all(t->app->content);
    pulled_drop_all(t->app->pulled, from);
    streams_begin(t->app->streams, from);
    publishers_drop_all(t->app->feed->publishers);
    auth_forget_all(t->app->auth);
}

static int time_now(struct tail *t, ts_t *now, struct err *e)
{
    struct mongo_conn *c;
    if (mongo_conn_get(t->app->mongo, &c, e) < 0)
        return -1;
    mongo_conn_deadline(c, OPEN_MS);
    int rc = mongo_conn_fresh(c, now, e);
    mongo_conn_put(c);
    return rc;
}

/* Opens the log a little in the past the first time, where it reaches back that far, else at the present. */
static int open_stream(struct tail *t, bool first, struct changes **out, struct err *e)
{
    ts_t now;
    if (time_now(t, &now, e) < 0)
        return -1;
    struct changes_options o = {
        .mongo = t->app->mongo,
        .instance = t->app->instance,
        .kinds = 1u << CHANGE_ITEM | 1u << CHANGE_USER | 1u << CHANGE_TARGET | 1u << CHANGE_API_KEY |
                 1u << CHANGE_TOKEN_END,
        .start = now,
        .tell_items = true,
    };
    if (first && ts_seconds(now) > START_BACK_S) {
        o.start = ts_make(ts_seconds(now) - START_BACK_S, 0);
        begin_at(t, o.start);
        struct err why;
        if (changes_open(out, &o, &why) == 0)
            return 0;
        if (why.code != ERR_LOG_LOST) {
            if (e != NULL)
                *e = why;
            return -1;
        }
        o.start = now;
    }
    begin_at(t, o.start);
    return changes_open(out, &o, e);
}

/* After the log is open: what ends between the two is told twice, not never. */
static int load_token_ends(struct tail *t, struct err *e)
{
    struct mongo_conn *c;
    if (mongo_conn_get(t->app->mongo, &c, e) < 0)
        return -1;
    mongo_conn_deadline(c, OPEN_MS);
    int rc = auth_load_token_ends(t->app->auth, c, e);
    mongo_conn_put(c);
    return rc;
}

static int open_log(struct tail *t, bool first, struct changes **out, struct err *e)
{
    if (open_stream(t, first, out, e) < 0)
        return -1;
    if (load_token_ends(t, e) == 0)
        return 0;
    changes_close(*out);
    return -1;
}

static void pause_ms(int64_t ms)
{
    struct timespec d = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&d, NULL);
}

/* Follows an open log; returns when it is lost or the thread has to end. */
static void follow_log(struct tail *t, struct changes *log)
{
    struct change *c = mem_zero(1, sizeof *c);
    bool down = false;
    while (!atomic_load(&t->stopping)) {
        struct err e;
        int rc = changes_next(log, c, &e);
        if (rc < 0 && e.code == ERR_LOG_LOST) {
            lock_tail(t);
            t->own_beat_ms = 0; /* not alive, from here on */
            unlock_tail(t);
            metrics_add(t->app->metrics, M_TAIL_LOST, 0, 1);
            log_event(LOG_WARN, "tail_lost", LOG_ERR(&e));
            break;
        }
        if (rc < 0 && !down)
            log_event(LOG_WARN, "tail_waits", LOG_ERR(&e));
        else if (rc >= 0 && down)
            log_event(LOG_INFO, "tail_goes_on", LOG_X("position", changes_complete(log)));
        down = rc < 0;
        if (rc > 0) {
            take_change(t, c);
            streams_take(t->app->streams, c); /* last, for it is asked of the others */
        }
        lock_tail(t);
        t->position = ts_max(t->position, changes_complete(log));
        unlock_tail(t);
        streams_reached(t->app->streams, changes_complete(log));
    }
    free(c);
}

static void *tail_main(void *arg)
{
    struct tail *t = arg;
    bool first = true;
    int64_t wait = BACKOFF_MIN_MS;
    while (!atomic_load(&t->stopping)) {
        struct err e;
        struct changes *log;
        if (open_log(t, first, &log, &e) < 0) {
            if (wait == BACKOFF_MIN_MS)
                log_event(LOG_WARN, "tail_not_open", LOG_ERR(&e));
            pause_ms(wait);
            wait = wait * 2 < BACKOFF_MAX_MS ? wait * 2 : BACKOFF_MAX_MS;
            continue;
        }
        log_event(LOG_INFO, "tail_open", LOG_X("from", tail_user_memory(t)));
        first = false;
        wait = BACKOFF_MIN_MS;
        follow_log(t, log);
        changes_close(log);
    }
    return NULL;
}

static void tail_free(struct tail *t)
{
    heartbeat_stop(t->heartbeat);
    user_changes_free(t->users);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

int tail_start(struct tail **out, struct app *app, struct err *e)
{
    struct tail *t = mem_zero(1, sizeof *t);
    t->app = app;
    pthread_mutex_init(&t->lock, NULL);
    t->users = user_changes_new(USERS_MAX, USERS_KEEP_MS);
    if (heartbeat_start(&t->heartbeat, app->mongo, app->instance, e) < 0) {
        tail_free(t);
        return -1;
    }
    int rc = pthread_create(&t->thread, NULL, tail_main, t);
    if (rc != 0) {
        tail_free(t);
        return err_set(e, ERR_UNAVAILABLE, "tail thread: %s", strerror(rc));
    }
    *out = t;
    return 0;
}

void tail_halt(struct tail *t)
{
    if (t == NULL || atomic_exchange(&t->stopping, true))
        return;
    pthread_join(t->thread, NULL);
}

void tail_stop(struct tail *t)
{
    if (t == NULL)
        return;
    tail_halt(t);
    tail_free(t);
}
