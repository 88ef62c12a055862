#include "feed-api/counts.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "feed-api/metrics.h"

#define DIRTY_MAX       16384 /* a power of two; beyond it a sweep is made soon instead */
#define DIRTY_SLOTS     (DIRTY_MAX * 2)
#define ROUND_MS        2000 /* a round ends after this; what is left waits for the next */
#define SLOW_MAX        256
#define SLOW_MS         50 /* a count that takes longer is made at most for a twentieth of the time */
#define SLOW_FACTOR     20
#define SLOW_TIMEOUT_MS 600000
#define SWEEP_RETRY_MS  10000

/* A set of names: open addressing, filled up to half and emptied as a whole. */
struct dirty {
    size_t n;
    char (*names)[TARGET_TEXT_SIZE]; /* DIRTY_SLOTS of them; "" is free */
};

struct slow {
    char target[TARGET_TEXT_SIZE];
    int64_t not_before;
};

struct counts {
    struct counts_options o;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool stop, wake;     /* under lock */
    bool overflow;       /* under lock: something could not be marked */
    struct dirty marked; /* under lock */
    struct dirty round;  /* the thread's own */
    struct slow slow[SLOW_MAX];
    int64_t next_round, next_sweep;
    bool swept; /* once at least */
};

/* ---- the set ---- */

static size_t hash(const char *s)
{
    uint64_t h = UINT64_C(14695981039346656037); /* FNV-1a */
    for (; *s != '\0'; s++)
        h = (h ^ (unsigned char)*s) * UINT64_C(1099511628211);
    return (size_t)(h ^ h >> 32);
}

static bool dirty_add(struct dirty *d, const char *target)
{
    size_t i = hash(target) % DIRTY_SLOTS;
    for (; d->names[i][0] != '\0'; i = (i + 1) % DIRTY_SLOTS)
        if (strcmp(d->names[i], target) == 0)
            return true;
    if (d->n == DIRTY_MAX)
        return false;
    snprintf(d->names[i], TARGET_TEXT_SIZE, "%s", target);
    d->n++;
    return true;
}

static void dirty_clear(struct dirty *d)
{
    if (d->n > 0)
        memset(d->names, 0, DIRTY_SLOTS * sizeof *d->names);
    d->n = 0;
}

static void mark(struct counts *c, const char *target)
{
    pthread_mutex_lock(&c->lock);
    if (!dirty_add(&c->marked, target))
        c->overflow = true;
    metrics_set(c->o.metrics, M_RECOUNT_DIRTY, 0, (int64_t)c->marked.n);
    pthread_mutex_unlock(&c->lock);
}

void counts_touch(struct counts *c, enum target_kind kind, const char *name)
{
    char target[TARGET_TEXT_SIZE];
    if (c == NULL)
        return;
    target_format(kind, name, target);
    mark(c, target);
}

/* ---- targets that take long ---- */

static struct slow *slow_find(struct counts *c, const char *target)
{
    for (size_t i = 0; i < SLOW_MAX; i++)
        if (strcmp(c->slow[i].target, target) == 0)
            return &c->slow[i];
    return NULL;
}

static void slow_note(struct counts *c, const char *target, int64_t took_ms, int64_t now)
{
    struct slow *s = slow_find(c, target);
    if (s == NULL && took_ms < SLOW_MS)
        return;
    for (size_t i = 0; s == NULL && i < SLOW_MAX; i++)
        if (c->slow[i].not_before <= now)
            s = &c->slow[i];
    if (s == NULL)
        return; /* 256 slower ones are remembered; this one is counted each time */
    snprintf(s->target, sizeof s->target, "%s", target);
    s->not_before = now + took_ms * SLOW_FACTOR;
}

/* ---- rounds ---- */

static bool stopping(struct counts *c)
{
    pthread_mutex_lock(&c->lock);
    bool stop = c->stop;
    pthread_mutex_unlock(&c->lock);
    return stop;
}

/* Answers false when the server is gone: the target stays marked. */
static bool count_one(struct counts *c, struct mongo_conn *conn, const char *target)
{
    struct err e;
    int64_t start = clock_mono_ms();
    struct slow *s = slow_find(c, target);
    if (s != NULL && s->not_before > start) {
        mark(c, target);
        return true;
    }
    int rc = counts_recount(conn, target, NULL, &e);
    int64_t now = clock_mono_ms();
    if (rc == 0) {
        slow_note(c, target, now - start, now);
        metrics_add(c->o.metrics, M_RECOUNTS, 0, 1);
        return true;
    }
    if (e.code == ERR_TIMEOUT)
        slow_note(c, target, SLOW_TIMEOUT_MS / SLOW_FACTOR, now);
    if (e.code == ERR_TIMEOUT || e.code == ERR_UNAVAILABLE)
        mark(c, target);
    else
        log_event(LOG_WARN, "recount", LOG_S("target", target), LOG_ERR(&e));
    return e.code != ERR_UNAVAILABLE;
}

static void count_marked(struct counts *c, struct mongo_conn *conn)
{
    int64_t end = clock_mono_ms() + ROUND_MS;
    bool up = true;
    for (size_t i = 0; i < DIRTY_SLOTS; i++) {
        const char *target = c->round.names[i];
        if (target[0] == '\0')
            continue;
        if (up && clock_mono_ms() < end && !stopping(c))
            up = count_one(c, conn, target);
        else
            mark(c, target);
    }
}

static void decide_turns(struct counts *c, struct mongo_conn *conn)
{
    struct err e;
    unsigned turned = 0;
    if (turns_decide(conn, &c->o.turns, &turned, &e) != 0)
        log_event(LOG_WARN, "turns", LOG_ERR(&e));
    metrics_add(c->o.metrics, M_TURNS, 0, turned);
}

/* First the set is taken, then the time is asked for: so the counts see every write that marked something. */
static void make_round(struct counts *c)
{
    struct mongo_conn *conn = NULL;
    c->next_round = clock_mono_ms() + c->o.interval_ms;
    pthread_mutex_lock(&c->lock);
    struct dirty taken = c->marked;
    c->marked = c->round;
    c->round = taken;
    pthread_mutex_unlock(&c->lock);
    if (mongo_conn_get(c->o.mongo, &conn, NULL) == 0 && mongo_conn_fresh(conn, NULL, NULL) == 0) {
        count_marked(c, conn);
        decide_turns(c, conn);
    } else {
        for (size_t i = 0; i < DIRTY_SLOTS; i++)
            if (c->round.names[i][0] != '\0')
                mark(c, c->round.names[i]);
    }
    mongo_conn_put(conn);
    dirty_clear(&c->round);
    pthread_mutex_lock(&c->lock);
    metrics_set(c->o.metrics, M_RECOUNT_DIRTY, 0, (int64_t)c->marked.n);
    pthread_mutex_unlock(&c->lock);
}

/* ---- sweeps ---- */

/* One process of all sweeps: whoever moves the date on. The first sweep of a process is made in any case,
 * because what a process had marked when it was killed nobody else knows. */
static bool claim_sweep(struct counts *c, struct mongo_conn *conn)
{
    int64_t now = clock_wall_ms();
    bson_t *filter = BCON_NEW("_id", "counts_sweep", "at", "{", "$lt",
                              BCON_DATE_TIME(now - (c->swept ? c->o.sweep_ms * 9 / 10 : 0)), "}");
    bson_t *update = BCON_NEW("$set", "{", "at", BCON_DATE_TIME(now), "}");
    bson_t opts = BSON_INITIALIZER, reply;
    bson_error_t be;
    struct err e;
    BSON_APPEND_BOOL(&opts, "upsert", true);
    mongo_write_opts(conn, &opts);
    bool ok =
        mongoc_collection_update_one(mongo_coll(conn, COLL_SETTINGS), filter, update, &opts, &reply, &be);
    /* Somebody else's date is newer: the upsert met the unique _id. */
    bool mine = ok || (mongo_err(&e, &be, &reply, "claiming the sweep"), e.code == ERR_CONFLICT && !c->swept);
    bson_destroy(filter);
    bson_destroy(update);
    bson_destroy(&opts);
    bson_destroy(&reply);
    return mine;
}

/* Between hundreds of a sweep: marked targets keep their turn, and the sweep takes half of the time at most.
 */
static bool between(void *arg)
{
    struct counts *c = arg;
    if (clock_mono_ms() >= c->next_round)
        make_round(c);
    struct timespec pause = {0, 50 * 1000000};
    nanosleep(&pause, NULL);
    return !stopping(c);
}

static void make_sweep(struct counts *c)
{
    struct mongo_conn *conn = NULL;
    struct err e;
    uint64_t fixed = 0;
    int64_t start = clock_mono_ms();
    c->next_sweep = start + SWEEP_RETRY_MS;
    if (mongo_conn_get(c->o.mongo, &conn, NULL) == 0 && mongo_conn_fresh(conn, NULL, NULL) == 0) {
        if (!claim_sweep(c, conn)) {
            c->next_sweep = start + c->o.sweep_ms;
        } else if (counts_sweep(conn, between, c, &fixed, &e) == 0) {
            c->swept = true;
            c->next_sweep = start + c->o.sweep_ms;
            log_event(LOG_INFO, "counts_swept", LOG_I("fixed", (int64_t)fixed),
                      LOG_I("ms", clock_mono_ms() - start));
        } else {
            log_event(LOG_WARN, "counts_sweep", LOG_ERR(&e));
        }
    }
    mongo_conn_put(conn);
}

/* ---- the thread ---- */

static void wait_until(struct counts *c, int64_t until_ms)
{
    struct timespec until = {until_ms / 1000, until_ms % 1000 * 1000000};
    int rc = 0;
    pthread_mutex_lock(&c->lock);
    while (!c->stop && !c->wake && rc != ETIMEDOUT)
        rc = pthread_cond_timedwait(&c->changed, &c->lock, &until);
    c->wake = false;
    if (c->overflow && c->next_sweep > clock_mono_ms() + SWEEP_RETRY_MS) {
        c->next_sweep = clock_mono_ms() + SWEEP_RETRY_MS;
        c->swept = false; /* it is ours to make, whoever made the last one */
    }
    c->overflow = false;
    pthread_mutex_unlock(&c->lock);
}

static void *run(void *arg)
{
    struct counts *c = arg;
    c->next_sweep = c->next_round = clock_mono_ms();
    while (!stopping(c)) {
        make_round(c);
        if (clock_mono_ms() >= c->next_sweep)
            make_sweep(c);
        wait_until(c, c->next_round);
    }
    return NULL;
}

static void counts_free(struct counts *c)
{
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->lock);
    free(c->marked.names);
    free(c->round.names);
    free(c);
}

int counts_start(struct counts **out, const struct counts_options *o, struct err *e)
{
    struct counts *c = mem_zero(1, sizeof *c);
    c->o = *o;
    c->marked.names = mem_zero(DIRTY_SLOTS, sizeof *c->marked.names);
    c->round.names = mem_zero(DIRTY_SLOTS, sizeof *c->round.names);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->changed, &attr);
    pthread_condattr_destroy(&attr);
    int rc = pthread_create(&c->thread, NULL, run, c);
    if (rc != 0) {
        counts_free(c);
        return err_set(e, ERR_UNAVAILABLE, "the thread for counts: %s", strerror(rc));
    }
    *out = c;
    return 0;
}

static void poke(struct counts *c, bool stop)
{
    pthread_mutex_lock(&c->lock);
    c->stop |= stop;
    c->wake = true;
    pthread_cond_signal(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

void counts_wake(struct counts *c)
{
    poke(c, false);
}

void counts_stop(struct counts *c)
{
    if (c == NULL)
        return;
    poke(c, true);
    pthread_join(c->thread, NULL);
    counts_free(c);
}
