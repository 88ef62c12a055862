#include "fanout/shares.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "fanout/leases.h"

struct shares {
    struct shares_options o;
    char *name;
    shares_report_fn report;
    void *report_arg;

    pthread_mutex_t turn; /* held while talking to MongoDB; taken before `lock` */
    struct leases leases;
    bool ready;        /* the documents are there */
    bool first;        /* no step has succeeded yet */
    bool renew_failed; /* logged once */

    pthread_mutex_t lock; /* guards what follows, never held over I/O */
    pthread_cond_t changed;
    struct shares_view view;
    bool stopping, started;
    pthread_t thread;
    atomic_llong alive_ms;
};

unsigned shares_fair(unsigned members, unsigned rank)
{
    if (members == 0)
        return 0;
    return SHARES / members + (rank < SHARES % members);
}

struct shares *shares_new(const struct shares_options *o)
{
    struct shares *s = mem_zero(1, sizeof *s);
    s->o = *o;
    s->name = mem_strdup(o->name);
    s->first = true;
    s->leases.name = s->name;
    s->leases.lease_ms = o->lease_ms;
    pthread_mutex_init(&s->turn, NULL);
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_t a;
    pthread_condattr_init(&a);
    pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
    pthread_cond_init(&s->changed, &a);
    pthread_condattr_destroy(&a);
    shares_alive(s);
    return s;
}

void shares_report(struct shares *s, shares_report_fn fn, void *arg)
{
    s->report = fn;
    s->report_arg = arg;
}

void shares_free(struct shares *s)
{
    if (!s)
        return;
    shares_stop(s);
    mongo_conn_put(s->leases.conn);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    pthread_mutex_destroy(&s->turn);
    free(s->name);
    free(s);
}

/* ---- the view ---- */

static void set_share(struct shares *s, unsigned i, bool held, int64_t epoch)
{
    pthread_mutex_lock(&s->lock);
    if (s->view.share[i].held != held || s->view.share[i].epoch != epoch) {
        s->view.share[i].held = held;
        s->view.share[i].epoch = epoch;
        if (!held)
            s->view.share[i].giving = false;
        s->view.version++;
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
}

void shares_look(struct shares *s, struct shares_view *out)
{
    pthread_mutex_lock(&s->lock);
    *out = s->view;
    pthread_mutex_unlock(&s->lock);
}

void shares_wait(struct shares *s, uint64_t version, int64_t ms)
{
    struct timespec until = clock_deadline_in(ms);
    pthread_mutex_lock(&s->lock);
    while (s->view.version == version && !s->stopping) {
        if (pthread_cond_timedwait(&s->changed, &s->lock, &until) != 0)
            break;
    }
    pthread_mutex_unlock(&s->lock);
}

void shares_alive(struct shares *s)
{
    atomic_store(&s->alive_ms, clock_mono_ms());
}

static int connect_mongo(struct shares *s, struct err *e)
{
    if (!s->leases.conn && mongo_conn_get(s->o.mongo, &s->leases.conn, e) != 0)
        return -1;
    mongo_conn_deadline(s->leases.conn, 2000);
    return 0;
}

/* ---- one round; with `turn` held ---- */

static int take_share(struct shares *s, unsigned share, const struct lease *doc, bool own, int64_t *epoch,
                      struct err *e)
{
    int rc = leases_take(&s->leases, share, doc->epoch, epoch, e);
    if (rc == 1) {
        metrics_add(s->o.metrics, M_SHARES, SHARE_TAKEN, 1);
        log_event(LOG_INFO, "share_taken", LOG_U("share", share), LOG_I("epoch", *epoch),
                  LOG_S("why", own          ? "stood under this name"
                               : doc->epoch ? "lease ran out or was given"
                                            : "first"));
    }
    return rc;
}

/* What others took meanwhile is no longer held. */
static unsigned note_lost(struct shares *s, const struct lease docs[SHARES])
{
    struct shares_view v;
    unsigned held = 0;
    shares_look(s, &v);
    for (unsigned i = 0; i < SHARES; i++) {
        s->ready = s->ready && docs[i].there; /* a dropped collection is made again in the next round */
        if (!v.share[i].held)
            continue;
        if (docs[i].there && docs[i].mine && docs[i].epoch == v.share[i].epoch) {
            held++;
            continue;
        }
        set_share(s, i, false, 0);
        metrics_add(s->o.metrics, M_SHARES, SHARE_LOST, 1);
        log_event(LOG_WARN, "share_lost", LOG_U("share", i), LOG_I("epoch", v.share[i].epoch),
                  LOG_S("why", "taken over by another"));
    }
    return held;
}

/* What is taken in one round shows at once, so that the engine looks for the place to read from only once. */
static void show_taken(struct shares *s, const int64_t epochs[SHARES])
{
    pthread_mutex_lock(&s->lock);
    for (unsigned i = 0; i < SHARES; i++) {
        if (epochs[i] == 0)
            continue;
        s->view.share[i].held = true;
        s->view.share[i].epoch = epochs[i];
        s->view.version++;
    }
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static int take_missing(struct shares *s, const struct lease docs[SHARES], unsigned held, unsigned fair,
                        struct err *e)
{
    struct shares_view v;
    int64_t taken[SHARES] = {0}, epoch;
    int rc = 0;
    shares_look(s, &v);
    for (unsigned i = 0; i < SHARES && rc >= 0; i++) {
        bool own = s->first && docs[i].mine;
        if (!docs[i].there || v.share[i].held || !(own || (docs[i].expired && held < fair)))
            continue;
        rc = take_share(s, i, &docs[i], own, &epoch, e);
        if (rc == 1)
            taken[i] = epoch;
        held += rc == 1;
    }
    show_taken(s, taken);
    return rc < 0 ? -1 : 0;
}

static void mark_giving(struct shares *s, unsigned members, unsigned fair)
{
    pthread_mutex_lock(&s->lock);
    unsigned kept = 0;
    bool differs = !s->view.known || s->view.members != members || s->view.fair != fair;
    for (unsigned i = 0; i < SHARES; i++) {
        bool giving = s->view.share[i].held && ++kept > fair;
        differs = differs || giving != s->view.share[i].giving;
        s->view.share[i].giving = giving;
    }
    s->view.known = true;
    s->view.members = members;
    s->view.fair = fair;
    if (differs) {
        s->view.version++;
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
    metrics_set(s->o.metrics, M_MEMBERS, 0, members);
}

static int renew(struct shares *s, struct err *e)
{
    struct shares_view v;
    int64_t epochs[SHARES];
    shares_look(s, &v);
    for (unsigned i = 0; i < SHARES; i++)
        epochs[i] = v.share[i].held ? v.share[i].epoch : 0;
    return leases_renew(&s->leases, epochs, e);
}

static int prepare(struct shares *s, struct err *e)
{
    if (connect_mongo(s, e) != 0)
        return -1;
    if (!s->ready && leases_ensure(&s->leases, e) != 0)
        return -1;
    s->ready = true;
    return 0;
}

static int sign_on(struct shares *s, struct err *e)
{
    struct member_state state;
    if (!s->report)
        return leases_sign_on(&s->leases, NULL, e);
    s->report(s->report_arg, &state);
    return leases_sign_on(&s->leases, &state, e);
}

static int round_locked(struct shares *s, struct err *e)
{
    struct lease docs[SHARES];
    unsigned members, rank;
    if (prepare(s, e) != 0 || sign_on(s, e) != 0 || renew(s, e) != 0 ||
        leases_count_members(&s->leases, &members, &rank, e) != 0 || leases_read(&s->leases, docs, e) != 0)
        return -1;
    unsigned fair = shares_fair(members, rank);
    unsigned held = note_lost(s, docs);
    if (take_missing(s, docs, held, fair, e) != 0)
        return -1;
    s->first = false;
    mark_giving(s, members, fair);
    return 0;
}

int shares_step(struct shares *s, struct err *e)
{
    pthread_mutex_lock(&s->turn);
    int rc = round_locked(s, e);
    pthread_mutex_unlock(&s->turn);
    return rc;
}

static int retake_locked(struct shares *s, unsigned share, int64_t least, int64_t *epoch, struct err *e)
{
    struct shares_view v;
    int64_t now;
    shares_look(s, &v);
    if (!v.share[share].held)
        return err_set(e, ERR_MISMATCH, "share %u is not held", share);
    if (connect_mongo(s, e) != 0)
        return -1;
    int rc = leases_retake(&s->leases, share, v.share[share].epoch, least, &now, e);
    if (rc < 0)
        return -1;
    set_share(s, share, rc == 1, rc == 1 ? now : 0);
    metrics_add(s->o.metrics, M_SHARES, rc == 1 ? SHARE_RENEWED_EPOCH : SHARE_LOST, 1);
    if (rc == 0)
        return err_set(e, ERR_MISMATCH, "share %u was taken over by another", share);
    *epoch = now;
    return 0;
}

int shares_retake(struct shares *s, unsigned share, int64_t least, int64_t *epoch, struct err *e)
{
    pthread_mutex_lock(&s->turn);
    int rc = retake_locked(s, share, least, epoch, e);
    pthread_mutex_unlock(&s->turn);
    return rc;
}

int shares_release(struct shares *s, unsigned share, struct err *e)
{
    struct shares_view v;
    int rc = 0;
    pthread_mutex_lock(&s->turn);
    shares_look(s, &v);
    if (v.share[share].held) {
        set_share(s, share, false, 0);
        metrics_add(s->o.metrics, M_SHARES, SHARE_GIVEN, 1);
        rc = connect_mongo(s, e) == 0 ? leases_release(&s->leases, share, v.share[share].epoch, e) : -1;
    }
    pthread_mutex_unlock(&s->turn);
    return rc;
}

int shares_leave(struct shares *s, struct err *e)
{
    for (unsigned i = 0; i < SHARES; i++) {
        if (shares_release(s, i, e) != 0)
            return -1;
    }
    pthread_mutex_lock(&s->turn);
    int rc = connect_mongo(s, e) == 0 ? leases_sign_off(&s->leases, e) : -1;
    pthread_mutex_unlock(&s->turn);
    return rc;
}

/* ---- the thread ---- */

static void tell(struct shares *s, int rc, const struct err *e)
{
    if (rc != 0 && !s->renew_failed)
        log_event(LOG_WARN, "leases_not_renewed", LOG_ERR(e));
    else if (rc == 0 && s->renew_failed)
        log_event(LOG_INFO, "leases_renewed_again");
    if (rc != 0)
        metrics_add(s->o.metrics, M_ERRORS, ERROR_OF_MONGODB, 1);
    s->renew_failed = rc != 0;
}

static bool stopping(struct shares *s)
{
    pthread_mutex_lock(&s->lock);
    bool yes = s->stopping;
    pthread_mutex_unlock(&s->lock);
    return yes;
}

static void pause_for(struct shares *s, int64_t ms)
{
    struct timespec until = clock_deadline_in(ms);
    pthread_mutex_lock(&s->lock);
    while (!s->stopping && pthread_cond_timedwait(&s->changed, &s->lock, &until) == 0)
        ;
    pthread_mutex_unlock(&s->lock);
}

static void *thread_main(void *arg)
{
    struct shares *s = arg;
    struct err e = {0};
    while (!stopping(s)) {
        if (clock_mono_ms() - atomic_load(&s->alive_ms) > SHARES_ALIVE_MS)
            tell(s, err_set(&e, ERR_BUSY, "the engine has hung for %d s", SHARES_ALIVE_MS / 1000), &e);
        else
            tell(s, shares_step(s, &e), &e);
        pause_for(s, s->renew_failed ? 100 : s->o.lease_ms / 5);
    }
    return NULL;
}

int shares_start(struct shares *s, struct err *e)
{
    if (pthread_create(&s->thread, NULL, thread_main, s) != 0)
        return err_set(e, ERR_INTERNAL, "no thread for the leases");
    s->started = true;
    return 0;
}

void shares_stop_soon(struct shares *s)
{
    pthread_mutex_lock(&s->lock);
    s->stopping = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

void shares_stop(struct shares *s)
{
    shares_stop_soon(s);
    if (s->started)
        pthread_join(s->thread, NULL);
    s->started = false;
}
