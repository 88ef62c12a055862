#include "fanout/room.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "common/keys.h"
#include "common/log.h"
#include "common/clock.h"
#include "common/mem.h"

#define LOOK_EVERY_MS 250
#define LOOK_NEAR_MS  50 /* above ROOM_ENOUGH_PERCENT */
#define NAP_MS        2 /* between two steps: deliveries and pages want Redis too; none when it is nearly full */
#define HURRY_PERCENT 97
#define STEPS_MAX     500                  /* in a round; the next one looks anew */
#define SCAN_COUNT    "512"                /* keys, of which timelines are a part */
#define SCANS_MAX     64                   /* for one sample */
#define PICKS_MAX     (ROOM_SAMPLE + 1024) /* SCAN may answer more than it was asked for */

struct room {
    struct redis *redis;
    struct metrics *metrics;
    char cursor[24];           /* of the SCAN that goes round */
    uint64_t warned_of_policy; /* the connection on which it was told */

    /* a sample */
    size_t n;
    struct room_pick picks[PICKS_MAX];
    char (*keys)[KEY_SIZE]; /* pf of each */

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t stop;
    bool stopping, started;
    struct room_view view;
    pthread_t thread;
};

/* ---- pure ---- */

static bool find_number(const char *info, const char *field, int64_t *out)
{
    for (const char *at = info; (at = strstr(at, field)) != NULL; at++) {
        if (at != info && at[-1] != '\n')
            continue;
        *out = strtoll(at + strlen(field), NULL, 10);
        return true;
    }
    return false;
}

/* What Redis does not count against maxmemory (its buffers for replicas and the append-only file) does not
 * count here either. */
bool room_parse(const char *info, struct room_view *out)
{
    int64_t used, max, aside = 0;
    if (!find_number(info, "used_memory:", &used) || !find_number(info, "maxmemory:", &max))
        return false;
    find_number(info, "mem_not_counted_for_evict:", &aside);
    out->used = used > aside ? used - aside : 0;
    out->max = max;
    out->known = true;
    const char *policy = strstr(info, "maxmemory_policy:");
    if (policy != NULL) {
        policy += strlen("maxmemory_policy:");
        snprintf(out->policy, sizeof out->policy, "%.*s", (int)strcspn(policy, "\r\n"), policy);
    }
    return true;
}

int room_percent(const struct room_view *v)
{
    return v->max > 0 && v->used > 0 ? (int)((double)v->used * 100 / (double)v->max) : 0;
}

static int by_age(const void *a, const void *b)
{
    const struct room_pick *p = a, *q = b;
    return p->x < q->x ? -1 : p->x > q->x;
}

size_t room_pick_oldest(struct room_pick *picks, size_t n)
{
    qsort(picks, n, sizeof *picks, by_age);
    return n == 0 ? 0 : n < ROOM_PART ? 1 : n / ROOM_PART;
}

/* ---- looking ---- */

static void show(struct room *r, const struct room_view *v)
{
    pthread_mutex_lock(&r->lock);
    r->view = *v;
    pthread_mutex_unlock(&r->lock);
    metrics_set(r->metrics, M_REDIS_USED, 0, v->used > 0 ? v->used : 0);
    metrics_set(r->metrics, M_REDIS_MAX, 0, v->max);
    if (v->by_redis >= 0)
        metrics_set(r->metrics, M_REDIS_EVICTED, 0, v->by_redis);
}

void room_look(struct room *r, struct room_view *out)
{
    pthread_mutex_lock(&r->lock);
    *out = r->view;
    pthread_mutex_unlock(&r->lock);
}

/* Records have no expiry: only such a policy takes them, and with a record the timelines of its bucket. */
static void check_policy(struct room *r, const struct room_view *v)
{
    uint64_t generation = redis_generation(r->redis);
    if (v->max == 0 || strncmp(v->policy, "allkeys", 7) != 0 || r->warned_of_policy == generation)
        return;
    r->warned_of_policy = generation;
    log_event(LOG_WARN, "redis_policy", LOG_S("maxmemory_policy", v->policy),
              LOG_S("note", "it evicts records of buckets: take volatile-ttl or noeviction"));
}

static int ask(struct room *r, const char *section, redisReply **out, struct err *e)
{
    if (redis_commandf(r->redis, out, e, "INFO", section, NULL) != 0)
        return -1;
    if ((*out)->type == REDIS_REPLY_STRING)
        return 0;
    freeReplyObject(*out);
    return err_set(e, ERR_CORRUPT, "INFO answered something else than text");
}

static int look(struct room *r, struct room_view *v, struct err *e)
{
    redisReply *reply;
    room_look(r, v);
    if (ask(r, "memory", &reply, e) != 0)
        return -1;
    bool told = room_parse(reply->str, v);
    freeReplyObject(reply);
    if (!told)
        return err_set(e, ERR_CORRUPT, "INFO says nothing of memory");
    int percent = room_percent(v);
    if (percent > ROOM_TIGHT_PERCENT && !v->tight)
        log_event(LOG_WARN, "redis_memory_tight", LOG_I("used", v->used), LOG_I("maxmemory", v->max));
    else if (percent <= ROOM_ENOUGH_PERCENT && v->tight)
        log_event(LOG_INFO, "redis_memory_enough", LOG_I("used", v->used), LOG_I("maxmemory", v->max));
    v->tight = percent > (v->tight ? ROOM_ENOUGH_PERCENT : ROOM_TIGHT_PERCENT);
    show(r, v);
    return 0;
}

static int look_at_evicted_keys(struct room *r, struct err *e)
{
    redisReply *reply;
    struct room_view v;
    if (ask(r, "stats", &reply, e) != 0)
        return -1;
    room_look(r, &v);
    if (!find_number(reply->str, "evicted_keys:", &v.by_redis))
        v.by_redis = -1;
    freeReplyObject(reply);
    show(r, &v);
    return 0;
}

/* ---- a sample ---- */

static void add_key(struct room *r, const redisReply *key)
{
    if (key->type != REDIS_REPLY_STRING || key->len >= KEY_SIZE || r->n == PICKS_MAX)
        return;
    memcpy(r->keys[r->n], key->str, key->len + 1);
    r->n++;
}

/* Goes on with the SCAN; *round: it has come to its end. */
static int scan(struct room *r, bool *round, struct err *e)
{
    redisReply *reply;
    if (redis_commandf(r->redis, &reply, e, "SCAN", r->cursor, "MATCH", "pf:{*", "COUNT", SCAN_COUNT, NULL) !=
        0)
        return -1;
    int rc = 0;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 ||
        reply->element[0]->type != REDIS_REPLY_STRING || reply->element[0]->len >= sizeof r->cursor ||
        reply->element[1]->type != REDIS_REPLY_ARRAY) {
        rc = err_set(e, ERR_CORRUPT, "SCAN answered something else than a cursor and keys");
    } else {
        strcpy(r->cursor, reply->element[0]->str);
        for (size_t i = 0; i < reply->element[1]->elements; i++)
            add_key(r, reply->element[1]->element[i]);
    }
    freeReplyObject(reply);
    *round = rc == 0 && strcmp(r->cursor, "0") == 0;
    return rc;
}

/* When each of the sample was read; those that are gone or just being built have no x and are left out.
 * Answers how many have one, or -1. */
static long read_ages(struct room *r, struct err *e)
{
    size_t n = 0, i = 0;
    for (size_t k = 0; k < r->n; k++) {
        const char *argv[] = {"HGET", r->keys[k], "x"};
        if (redis_append(r->redis, 3, argv, NULL, e) != 0)
            return -1;
    }
    for (; redis_pending(r->redis) > 0; i++) {
        redisReply *reply;
        if (redis_read(r->redis, &reply, e) != 0)
            continue; /* a key of another type; or the connection is gone, and with it what is pending */
        if (reply->type == REDIS_REPLY_STRING)
            r->picks[n++] = (struct room_pick){strtoll(reply->str, NULL, 10), i};
        freeReplyObject(reply);
    }
    return i < r->n ? -1 : (long)n;
}

static int send_evict(struct room *r, const struct room_pick *p, struct err *e)
{
    char tl[KEY_SIZE], x[24];
    snprintf(tl, sizeof tl, "tl%s", r->keys[p->i] + 2);
    snprintf(x, sizeof x, "%lld", (long long)p->x);
    const char *argv[] = {tl, r->keys[p->i], x};
    return redis_script_append(r->redis, SCRIPT_EVICT, 2, 3, argv, NULL, e);
}

/* Answers how many went, or -1. */
static long evict(struct room *r, size_t n, struct err *e)
{
    long gone = 0;
    bool failed = false;
    for (size_t i = 0; i < n; i++) {
        if (send_evict(r, &r->picks[i], e) != 0)
            return -1;
    }
    while (redis_pending(r->redis) > 0) {
        redisReply *reply;
        if (redis_read(r->redis, &reply, e) != 0) {
            failed = true;
            continue;
        }
        gone += reply->type == REDIS_REPLY_INTEGER && reply->integer == 1;
        freeReplyObject(reply);
    }
    return failed ? -1 : gone;
}

/* One step of making room: *gone timelines were dropped, *none: there is none to be found. */
static int step(struct room *r, long *gone, bool *none, struct err *e)
{
    unsigned rounds = 0;
    r->n = 0;
    /* What is left of a round would be a small sample, whose oldest may be no old ones: so on into the next.
     */
    for (unsigned i = 0; i < SCANS_MAX && r->n < ROOM_SAMPLE && rounds < 2; i++) {
        bool round;
        if (scan(r, &round, e) != 0)
            return -1;
        rounds += round;
    }
    long n = read_ages(r, e);
    if (n < 0)
        return -1;
    *none = n == 0;
    *gone = evict(r, room_pick_oldest(r->picks, (size_t)n), e);
    return *gone < 0 ? -1 : 0;
}

/* ---- making room ---- */

static bool stopping(struct room *r)
{
    pthread_mutex_lock(&r->lock);
    bool yes = r->stopping;
    pthread_mutex_unlock(&r->lock);
    return yes;
}

/* Sleeps; answers false when the thread has to end. */
static bool pause_ms(struct room *r, int64_t ms)
{
    struct timespec until = clock_deadline_in(ms);
    pthread_mutex_lock(&r->lock);
    while (!r->stopping && pthread_cond_timedwait(&r->stop, &r->lock, &until) != ETIMEDOUT)
        ;
    bool go_on = !r->stopping;
    pthread_mutex_unlock(&r->lock);
    return go_on;
}

static void count(struct room *r, long gone)
{
    metrics_add(r->metrics, M_EVICTED, 0, gone);
    pthread_mutex_lock(&r->lock);
    r->view.evicted += gone;
    pthread_mutex_unlock(&r->lock);
}

/* *none: whatever fills Redis, it is not timelines. */
static int make_room(struct room *r, struct room_view *v, bool *none, struct err *e)
{
    int64_t before = v->used, all = 0;
    unsigned fruitless = 0;
    for (unsigned i = 0; i < STEPS_MAX && room_percent(v) > ROOM_TIGHT_PERCENT && fruitless < 2; i++) {
        long gone;
        bool nothing;
        if (step(r, &gone, &nothing, e) != 0)
            return -1;
        count(r, gone);
        all += gone;
        fruitless = nothing ? fruitless + 1 : 0;
        if (look(r, v, e) != 0)
            return -1;
        if (room_percent(v) < HURRY_PERCENT ? !pause_ms(r, NAP_MS) : stopping(r))
            break;
    }
    *none = fruitless >= 2;
    if (all > 0)
        log_event(LOG_INFO, "timelines_evicted", LOG_I("timelines", all), LOG_I("used_before", before),
                  LOG_I("used", v->used), LOG_I("maxmemory", v->max));
    return 0;
}

int room_step(struct room *r, struct err *e)
{
    struct room_view v;
    bool none;
    if (look(r, &v, e) != 0 || look_at_evicted_keys(r, e) != 0)
        return -1;
    check_policy(r, &v);
    if (room_percent(&v) <= ROOM_FULL_PERCENT)
        return 0;
    if (make_room(r, &v, &none, e) != 0)
        return -1;
    if (none)
        log_event(LOG_WARN, "redis_full", LOG_I("used", v.used), LOG_I("maxmemory", v.max),
                  LOG_S("note", "no timelines are left to be dropped"));
    return none ? err_set(e, ERR_TOO_LARGE, "no timelines are left to be dropped") : 0;
}

#define AFTER_NONE_MS 5000

/* Trouble with Redis is the engine's to tell. */
static void *thread_main(void *arg)
{
    struct room *r = arg;
    struct err e;
    int64_t wait;
    do {
        e.code = ERR_NONE;
        bool failed = room_step(r, &e) != 0;
        bool near = room_percent(&r->view) > ROOM_ENOUGH_PERCENT;
        wait = failed && e.code == ERR_TOO_LARGE ? AFTER_NONE_MS : near ? LOOK_NEAR_MS : LOOK_EVERY_MS;
    } while (pause_ms(r, wait));
    return NULL;
}

/* ---- life ---- */

struct room *room_new(const struct redis_address *a, int64_t timeout_ms, struct metrics *m)
{
    struct room *r = mem_zero(1, sizeof *r);
    pthread_condattr_t attr;
    r->redis = redis_new(a, timeout_ms);
    r->metrics = m;
    strcpy(r->cursor, "0");
    r->keys = mem_alloc(PICKS_MAX * sizeof *r->keys);
    r->view.used = r->view.by_redis = -1;
    pthread_mutex_init(&r->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&r->stop, &attr);
    pthread_condattr_destroy(&attr);
    return r;
}

void room_free(struct room *r)
{
    if (!r)
        return;
    room_stop(r);
    redis_free(r->redis);
    free(r->keys);
    pthread_cond_destroy(&r->stop);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

int room_start(struct room *r, struct err *e)
{
    if (pthread_create(&r->thread, NULL, thread_main, r) != 0)
        return err_set(e, ERR_INTERNAL, "no thread for Redis' memory");
    r->started = true;
    return 0;
}

void room_stop(struct room *r)
{
    pthread_mutex_lock(&r->lock);
    r->stopping = true;
    pthread_cond_broadcast(&r->stop);
    pthread_mutex_unlock(&r->lock);
    if (r->started)
        pthread_join(r->thread, NULL);
    r->started = false;
}
