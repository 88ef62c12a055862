#include "feed-api/rebuild.h"

#include <assert.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/keys.h"
#include "common/mem.h"
#include "common/redis.h"
#include "common/sign.h"
#include "common/target_modes.h"
#include "feed-api/app.h"
#include "feed-api/store_ids.h"

#define TOKEN_SIZE 33

/* ---- the truth ---- */

void truth_unref(struct truth *t)
{
    if (!t || __atomic_sub_fetch(&t->refs, 1, __ATOMIC_ACQ_REL))
        return;
    follow_set_done(&t->follows);
    free(t->mutes);
    free(t->pulls);
    free(t->ids);
    free(t);
}

static struct truth *truth_ref(struct truth *t)
{
    __atomic_add_fetch(&t->refs, 1, __ATOMIC_RELAXED);
    return t;
}

/* ---- the pull list ---- */

struct pulls {
    const struct follow_set *follows;
    struct buf list;
};

static void take_pulled(void *arg, const char *target)
{
    struct pulls *p = arg;
    if (!follow_set_has(p->follows, target))
        return;
    if (p->list.len == 0)
        buf_add_char(&p->list, '\n');
    buf_add_str(&p->list, target);
    buf_add_char(&p->list, '\n');
}

/* Before the ids: those are as new as this then, so that they hold all that a target turned to push meanwhile
 * was not yet pushed. */
static int read_pulls(struct mongo_conn *c, struct truth *t, struct err *e)
{
    struct pulls p = {.follows = &t->follows};
    buf_init(&p.list, PULLED_TARGETS_MAX * TARGET_TEXT_SIZE);
    if (target_modes_pulled(c, take_pulled, &p, e)) {
        buf_done(&p.list);
        return -1;
    }
    t->pulls = buf_take(&p.list);
    return 0;
}

int truth_read(struct mongo_conn *c, const char *user, ts_t r, size_t n, struct truth **out, struct err *e)
{
    struct truth *t = mem_zero(1, sizeof *t);
    t->refs = 1;
    t->r = r;
    if (!r && mongo_conn_fresh(c, &t->r, e))
        goto bad;
    mongo_conn_after(c, t->r);
    /* One id more than asked for says whether there is a floor, and which. */
    t->ids = mem_alloc((n + 1) * sizeof *t->ids);
    if (follow_set_load(c, user, &t->follows, e) || follow_set_mutes(c, user, &t->mutes, e))
        goto bad;
    if (n && read_pulls(c, t, e))
        goto bad;
    if (n && store_ids(c, &t->follows, ITEM_ID_MAX + 1, n + 1, t->ids, &t->n, e))
        goto bad;
    t->floor = n ? 0 : ITEM_ID_MAX;
    if (t->n > n) {
        t->n = n;
        t->floor = t->ids[n];
    }
    *out = t;
    return 0;
bad:
    truth_unref(t);
    return -1;
}

/* ---- the two scripts ---- */

struct build {
    const char *user;
    unsigned bucket;
    char timeline[KEY_SIZE], meta[KEY_SIZE], record[KEY_SIZE];
    char token[TOKEN_SIZE];
};

static void build_init(struct build *b, const char *user)
{
    b->user = user;
    b->bucket = keys_bucket(user);
    keys_timeline(b->timeline, b->bucket, user);
    keys_timeline_meta(b->meta, b->bucket, user);
    keys_bucket_record(b->record, b->bucket);
    unsigned char random[(TOKEN_SIZE - 1) / 2];
    sign_random(random, sizeof random);
    for (size_t i = 0; i < sizeof random; i++)
        snprintf(b->token + 2 * i, 3, "%02x", random[i]);
}

static int run_script(struct redis *r, redisReply **out, enum script s, int nkeys, int argc,
                      const char **argv, struct err *e)
{
    size_t *len = mem_alloc((size_t)argc * sizeof *len);
    for (int i = 0; i < argc; i++)
        len[i] = strlen(argv[i]);
    int rc = redis_script(r, out, s, nkeys, argc, argv, len, e);
    free(len);
    return rc;
}

#define RETRY_WITHIN_MS 100

/* A connection that Redis closed meanwhile (it was restarted) is only noticed when it is used: once more, on
 * a new one, unless it took long to fail. Beginning twice does no harm. */
static int run_build(struct redis *redis, redisReply **out, const char **argv, int argc)
{
    int64_t start = clock_mono_ms();
    if (run_script(redis, out, SCRIPT_BUILD, 3, argc, argv, NULL) == 0)
        return 0;
    if (clock_mono_ms() - start > RETRY_WITHIN_MS)
        return -1;
    return run_script(redis, out, SCRIPT_BUILD, 3, argc, argv, NULL);
}

/* Begins: *r becomes the time at which the truth has to be read; the answer says whether it may be written
 * afterwards (MRB_DONE) or why not. */
static enum metric_rebuild begin(struct redis *redis, const struct build *b, int64_t expiry_ms, ts_t least,
                                 ts_t *r)
{
    char least_text[TS_TEXT_SIZE], expiry[24];
    ts_format(least, least_text);
    snprintf(expiry, sizeof expiry, "%" PRId64, expiry_ms);
    const char *argv[] = {b->timeline, b->meta, b->record, least_text, b->token, expiry};
    redisReply *reply;
    if (run_build(redis, &reply, argv, MEM_COUNT(argv)))
        return MRB_NO_REDIS;
    enum metric_rebuild how = MRB_FAILED;
    if (reply->type == REDIS_REPLY_ARRAY && reply->elements >= 1) {
        long long code = reply->element[0]->integer;
        const redisReply *at = reply->elements > 1 ? reply->element[1] : NULL;
        bool has_r = at && at->type == REDIS_REPLY_STRING && ts_parse(at->str, r, NULL) == 0;
        if (code == -1)
            how = MRB_NO_RECORD;
        else if (has_r)
            how = code == 1 ? MRB_DONE : MRB_JOINED;
    }
    freeReplyObject(reply);
    return how;
}

static enum metric_rebuild finish(struct redis *redis, const struct build *b, const struct feed_config *cfg,
                                  const struct truth *t)
{
    enum { FIXED = 10 };
    int argc = FIXED + 2 * (int)t->n;
    const char **argv = mem_alloc((size_t)argc * sizeof *argv);
    char(*text)[24] = mem_alloc((size_t)(2 * t->n + 5) * sizeof *text);
    char(*number)[24] = text + 2 * t->n;
    snprintf(number[0], 24, "%" PRIu64, t->floor);
    snprintf(number[1], 24, "%s%" PRIu64, t->floor ? "-" : "", t->floor);
    snprintf(number[2], 24, "%" PRId64, cfg->timeline_entries);
    snprintf(number[3], 24, "%" PRId64, cfg->timeline_idle);
    snprintf(number[4], 24, "%" PRId64, clock_wall_ms() / 1000);
    const char *fixed[FIXED] = {b->timeline, b->meta,   b->token, number[0], number[1],
                                number[2],   number[3], t->mutes, number[4], t->pulls};
    memcpy(argv, fixed, sizeof fixed);
    for (size_t i = 0; i < t->n; i++) {
        snprintf(text[2 * i], 24, "-%" PRIu64, t->ids[i]);
        snprintf(text[2 * i + 1], 24, "%" PRIu64, t->ids[i]);
        argv[FIXED + 2 * i] = text[2 * i];
        argv[FIXED + 2 * i + 1] = text[2 * i + 1];
    }
    redisReply *reply;
    enum metric_rebuild how = MRB_NO_REDIS;
    if (run_script(redis, &reply, SCRIPT_FINISH, 2, argc, argv, NULL) == 0) {
        how = reply->type == REDIS_REPLY_INTEGER && reply->integer == 1 ? MRB_DONE : MRB_LOST;
        freeReplyObject(reply);
    }
    free(argv);
    free(text);
    return how;
}

static int rebuild_now(struct worker *w, const char *user, ts_t least, struct truth **out, struct err *e)
{
    const struct feed_config *cfg = &w->app->cfg;
    struct build b;
    build_init(&b, user);
    int64_t start = clock_mono_us();
    if (!least && mongo_conn_fresh(w->mongo, &least, e))
        return -1;
    ts_t r = least;
    enum metric_rebuild how = begin(w->redis, &b, cfg->build_expiry, least, &r);
    struct truth *t;
    if (truth_read(w->mongo, user, r, (size_t)cfg->timeline_entries, &t, e)) {
        metrics_add(w->app->metrics, M_REBUILDS, MRB_FAILED, 1);
        return -1;
    }
    if (how == MRB_DONE)
        how = finish(w->redis, &b, cfg, t);
    t->how = how;
    metrics_add(w->app->metrics, M_REBUILDS, how, 1);
    metrics_observe_us(w->app->metrics, M_REBUILD_SECONDS, 0, clock_mono_us() - start);
    *out = t;
    return 0;
}

/* ---- one at a time for a user ---- */

struct flight {
    struct flight *next;
    const char *user; /* of the one who flies */
    unsigned waiters;
    bool landed;
    struct truth *truth; /* NULL when it failed; one count for each waiter */
};

/* As many flights as workers at most: a list is enough. */
struct rebuilds {
    pthread_mutex_t lock;
    pthread_cond_t landed;
    struct flight *flights;
};

struct rebuilds *rebuilds_new(void)
{
    struct rebuilds *r = mem_zero(1, sizeof *r);
    pthread_mutex_init(&r->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&r->landed, &attr);
    pthread_condattr_destroy(&attr);
    return r;
}

void rebuilds_free(struct rebuilds *r)
{
    if (!r)
        return;
    assert(!r->flights);
    pthread_cond_destroy(&r->landed);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

/* Waits for the flight of the same user, if there is one. *found says so; answers its truth or NULL. */
static struct truth *join(struct rebuilds *all, const char *user, int64_t wait_ms, bool *found)
{
    struct flight *f = all->flights;
    while (f && strcmp(f->user, user) != 0)
        f = f->next;
    *found = f != NULL;
    if (!f)
        return NULL;
    int64_t until = clock_mono_ms() + wait_ms;
    struct timespec ts = {.tv_sec = until / 1000, .tv_nsec = until % 1000 * 1000000};
    f->waiters++;
    while (!f->landed && pthread_cond_timedwait(&all->landed, &all->lock, &ts) == 0)
        ;
    struct truth *t = f->landed && f->truth ? truth_ref(f->truth) : NULL;
    if (--f->waiters == 0 && f->landed) {
        truth_unref(f->truth);
        free(f);
    }
    return t;
}

static void land(struct rebuilds *all, struct flight *f, struct truth *t)
{
    struct flight **at = &all->flights;
    while (*at != f)
        at = &(*at)->next;
    *at = f->next;
    f->landed = true;
    if (f->waiters == 0) {
        free(f);
        return;
    }
    f->truth = t ? truth_ref(t) : NULL;
    pthread_cond_broadcast(&all->landed);
}

int rebuild_run(struct rebuilds *all, struct worker *w, const char *user, ts_t least, ts_t needed,
                struct truth **out, struct err *e)
{
    pthread_mutex_lock(&all->lock);
    bool found;
    struct truth *joined = join(all, user, mongo_conn_left_ms(w->mongo) / 2, &found);
    if (joined && joined->r >= needed) {
        pthread_mutex_unlock(&all->lock);
        metrics_add(w->app->metrics, M_REBUILDS, MRB_JOINED, 1);
        *out = joined;
        return 0;
    }
    struct flight *f = mem_zero(1, sizeof *f);
    f->user = user;
    f->next = all->flights;
    all->flights = f;
    pthread_mutex_unlock(&all->lock);
    truth_unref(joined);

    struct truth *t = NULL;
    int rc = rebuild_now(w, user, least, &t, e);
    pthread_mutex_lock(&all->lock);
    land(all, f, t);
    pthread_mutex_unlock(&all->lock);
    if (rc == 0)
        *out = t;
    return rc;
}
