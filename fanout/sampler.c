#include "fanout/sampler.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/audit.h"
#include "common/audit_pick.h"
#include "common/clock.h"
#include "common/ids.h"
#include "common/keys.h"
#include "common/log.h"
#include "common/mem.h"
#include "fanout/buckets.h"

#define DEADLINE_MS 2000 /* of one check */
#define STEPS       10   /* SCANs for one timeline, of STEP_KEYS each: about a millisecond of Redis in all */
#define STEP_KEYS   100
#define LOGGED_MAX  8 /* findings of one timeline that get a line of their own */

struct sampler {
    struct sampler_options o;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    atomic_bool stop;
    struct audit *audit;
    struct audit_pick pick;
    struct audit_report report;
    bool failing; /* the last check failed, and that was logged */
};

/* ---- choosing ---- */

/* One of the last step's timelines, by chance, whose bucket is owned; NULL when there is none. */
static const char *choose(struct sampler *s, const struct engine_status *owned)
{
    size_t n = s->pick.n, from = n ? ids_random_bits() % n : 0;
    for (size_t i = 0; i < n; i++) {
        const char *user = s->pick.users[(from + i) % n];
        if (owned->share[bucket_share(keys_bucket(user))].owned)
            return user;
    }
    return NULL;
}

/* Where one was found, the next is looked for anywhere; where not, the search goes on from there: so a Redis
 * with few timelines among much else is gone through too. */
static int pick(struct sampler *s, const char **user, struct err *e)
{
    struct engine_status owned;
    *user = NULL;
    engine_status(s->o.engine, &owned);
    if (owned.buckets == 0)
        return 0;
    for (int i = 0; i < STEPS && !*user; i++) {
        if (audit_pick_step(&s->pick, audit_redis(s->audit), STEP_KEYS, e) != 0)
            return -1;
        *user = choose(s, &owned);
    }
    if (*user)
        audit_pick_jump(&s->pick);
    return 0;
}

/* ---- checking ---- */

static void repair(struct sampler *s, const struct audit_report *r)
{
    struct err e;
    bool dropped;
    if (audit_repair(s->audit, r, &dropped, &e) == 0)
        log_event(LOG_INFO, "audit_repair", LOG_S("user", r->user),
                  LOG_S("timeline", dropped ? "dropped" : "rebuilt meanwhile"));
    else
        log_event(LOG_WARN, "audit_repair", LOG_S("user", r->user), LOG_ERR(&e));
}

static void tell(struct sampler *s, const struct audit_report *r)
{
    metrics_add(s->o.metrics, M_AUDIT_CHECKS, r->verdict, 1);
    for (size_t i = 0; i < r->n; i++) {
        const struct audit_finding *f = &r->findings[i];
        metrics_add(s->o.metrics, M_AUDIT_FINDINGS, f->kind, 1);
        if (i < LOGGED_MAX)
            log_event(LOG_ERROR, "audit_finding", LOG_S("user", r->user),
                      LOG_S("kind", audit_kind_name(f->kind)), LOG_S("what", f->what),
                      LOG_S("detail", f->detail));
    }
    if (r->verdict == AUDIT_WRONG && s->o.repair)
        repair(s, r);
}

/* An outage is told once. */
static void fail(struct sampler *s, const struct err *e)
{
    metrics_add(s->o.metrics, M_AUDIT_CHECKS, AUDIT_UNJUDGED, 1);
    if (!s->failing)
        log_event(LOG_WARN, "audit_failed", LOG_ERR(e));
    s->failing = true;
}

static void check_one(struct sampler *s)
{
    struct err e;
    const char *user;
    if (pick(s, &user, &e) != 0) {
        fail(s, &e);
        return;
    }
    if (!user)
        return;
    if (audit_timeline(s->audit, user, &s->report, &e) != 0) {
        fail(s, &e);
        return;
    }
    s->failing = false;
    tell(s, &s->report);
}

/* ---- the thread ---- */

static void wait_ms(struct sampler *s, int64_t ms)
{
    int64_t until_ms = clock_mono_ms() + ms;
    struct timespec until = {until_ms / 1000, until_ms % 1000 * 1000000};
    int rc = 0;
    pthread_mutex_lock(&s->lock);
    while (!atomic_load(&s->stop) && rc != ETIMEDOUT)
        rc = pthread_cond_timedwait(&s->changed, &s->lock, &until);
    pthread_mutex_unlock(&s->lock);
}

static void *run(void *arg)
{
    struct sampler *s = arg;
    audit_pick_jump(&s->pick);
    for (;;) {
        wait_ms(s, s->o.interval_ms);
        if (atomic_load(&s->stop))
            return NULL;
        check_one(s);
    }
}

static void release(struct sampler *s)
{
    audit_free(s->audit);
    audit_pick_done(&s->pick);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

int sampler_start(struct sampler **out, const struct sampler_options *o, struct err *e)
{
    struct sampler *s = mem_zero(1, sizeof *s);
    s->o = *o;
    struct audit_options ao = {.mongo = o->mongo,
                               .redis = o->redis,
                               .redis_timeout_ms = o->redis_timeout_ms,
                               .deadline_ms = DEADLINE_MS,
                               .stop = &s->stop};
    s->audit = audit_new(&ao);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, &attr);
    pthread_condattr_destroy(&attr);
    int rc = pthread_create(&s->thread, NULL, run, s);
    if (rc != 0) {
        release(s);
        return err_set(e, ERR_UNAVAILABLE, "the thread of the audit: %s", strerror(rc));
    }
    *out = s;
    return 0;
}

void sampler_stop_soon(struct sampler *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    atomic_store(&s->stop, true);
    pthread_cond_signal(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

void sampler_free(struct sampler *s)
{
    if (!s)
        return;
    sampler_stop_soon(s);
    pthread_join(s->thread, NULL);
    release(s);
}
