#include "tests/support/interleave_private.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "feed-api/app.h"
#include "feed-api/pulled.h"
#include "feed-api/rebuild.h"
#include "feed-api/timeline.h"

#define PAGE (2 * ITEMS)

static struct feed_api {
    unsigned p;
    struct app app; /* its options */
    struct worker worker;
    struct mongo_conn conn;
    struct pulled *pulled;
    unsigned next; /* of the log, for the tail */
    ts_t tail, user_changed[USERS];
    unsigned busy; /* percent of its turns in which a request comes */
    bool stop;
    struct fiber *fiber;
} feeds[FEEDS];

int __real_redis_read(struct redis *r, redisReply **out, struct err *e);

/* ---- the tail ---- */

void feed_tail_step(unsigned p)
{
    struct feed_api *f = &feeds[p];
    if (f->next < world.truth.n) {
        const struct change *c = &world.truth.events[f->next++];
        if (c->kind == CHANGE_ITEM)
            pulled_take(f->pulled, c);
        if (c->kind == CHANGE_USER)
            feed_hears_of_own(p, truth_user_of(c->name), c->t);
    }
    if (f->next > 0)
        f->tail = ts_max(f->tail, FIRST_TICK + f->next - (f->next == world.truth.n));
}

bool feed_tail_done(unsigned p)
{
    return feeds[p].next == world.truth.n;
}

void feed_hears_of_own(unsigned p, unsigned user, ts_t t)
{
    feeds[p].user_changed[user] = ts_max(feeds[p].user_changed[user], t);
}

/* ---- judging ---- */

struct shown {
    unsigned p, user;
    const struct timeline *t;
    ts_t fresh; /* as new as this, says the page */
};

static bool shows(const struct timeline *t, item_id id)
{
    for (size_t i = 0; i < t->n; i++) {
        if (t->ids[i] == id)
            return true;
    }
    return false;
}

static void accuse(const struct shown *x, const char *what, item_id id)
{
    wrong("feed-api %u, %s: %s item %u above the floor %u, fresh at %u (R %u, progress %u), pulls %s", x->p,
          world.user[x->user], what, (unsigned)id, (unsigned)x->t->floor, (unsigned)x->fresh,
          (unsigned)x->t->r, (unsigned)x->t->progress, x->t->pulls ? "some" : "none");
}

/* What belonged from then on has to be there; what never did since must not. A rebuild reads follows first,
 * then ids: while this process does not know that the reader follows others now, and it was not applied
 * either, a page may hold what those whom he left published since, and lack what belongs only to one of whom
 * he follows now. So what counts there is whom he followed all the time, and at any time. Deleted items are
 * refused when they are hydrated. */
static void judge_item(const struct shown *x, unsigned item)
{
    uint8_t always = UINT8_MAX, ever = 0, in_any = 0;
    bool in_all = true;
    ts_t now = truth_now();
    for (ts_t t = x->fresh; t <= now; t++) {
        always &= truth_state(t)->follows[x->user];
        ever |= truth_state(t)->follows[x->user];
    }
    for (ts_t t = x->fresh; t <= now; t++) {
        in_all &= (truth_state(t)->targets[item] & always) != 0 && !truth_state(t)->deleted[item];
        in_any |= truth_state(t)->targets[item] & ever;
    }
    item_id id = world.truth.id[item];
    bool shown = shows(x->t, id);
    if (in_all && !shown)
        accuse(x, "misses", id);
    if (shown && !in_any && !truth_state(now)->deleted[item])
        accuse(x, "shows", id);
}

static void judge(const struct shown *x)
{
    const struct timeline *t = x->t;
    unsigned known = 0;
    world.counts->judged++;
    world.counts->trimmed += t->floor > 0;
    for (size_t i = 0; i + 1 < t->n; i++) {
        if (t->ids[i] <= t->ids[i + 1])
            accuse(x, "shows twice or out of order", t->ids[i]);
    }
    for (unsigned i = 0; i < world.truth.items; i++) {
        known += shows(t, world.truth.id[i]);
        if (world.truth.id[i] > t->floor)
            judge_item(x, i);
    }
    if (known < t->n)
        accuse(x, "shows something that is none, among them", t->n ? t->ids[0] : 0);
}

/* ---- pages ---- */

/* The four commands at once, and nobody in between. */
static int read_timeline(unsigned u, struct timeline_read *read, struct timeline *out, struct err *e)
{
    redisReply *each[TIMELINE_COMMANDS] = {NULL}, all = {.type = REDIS_REPLY_ARRAY};
    int rc = 0;
    timeline_read_init(read, world.user[u], ITEM_ID_MAX + 1, PAGE);
    for (unsigned i = 0; rc == 0 && i < TIMELINE_COMMANDS; i++)
        rc =
            redis_append(world.redis, read->commands[i].argc, (const char **)read->commands[i].argv, NULL, e);
    for (unsigned i = 0; rc == 0 && i < TIMELINE_COMMANDS; i++)
        rc = __real_redis_read(world.redis, &each[i], e);
    if (rc != 0) {
        wrong("reading a timeline: %s", e->msg);
    } else {
        all.elements = TIMELINE_COMMANDS;
        all.element = each;
        rc = timeline_parse(&all, read, out, e);
        if (rc != 0)
            wrong("a timeline does not read as one: %s", e->msg);
    }
    for (unsigned i = 0; i < TIMELINE_COMMANDS; i++)
        freeReplyObject(each[i]);
    if (rc == 0 && out->n > HIGH)
        wrong("%s has %zu ids", world.user[u], out->n);
    return rc;
}

/* Adds what is pulled; false when that is not known. */
static bool merge(struct feed_api *f, struct timeline *t, ts_t *fresh)
{
    ts_t tail = f->tail;
    if (!t->pulls)
        return true;
    if (!pulled_merge(f->pulled, ITEM_ID_MAX + 1, PAGE, t))
        return false;
    *fresh = ts_min(*fresh, tail);
    world.counts->pulled++;
    return true;
}

static bool load(struct feed_api *f, const char *list)
{
    struct err e;
    f->conn = (struct mongo_conn){.after = f->tail};
    world.counts->loads++;
    history("     feed-api %u loads what is pulled, its tail is at %u", f->p, (unsigned)f->tail);
    bool all = pulled_load(f->pulled, &f->conn, list, &e) == 0;
    history("     feed-api %u has %sloaded it, its tail is at %u", f->p, all ? "" : "not ",
            (unsigned)f->tail);
    return all;
}

static void rebuild(struct feed_api *f, unsigned u, ts_t asked)
{
    struct rebuilds *alone =
        rebuilds_new(); /* whoever else rebuilds it is another worker, of another process */
    struct truth *t;
    struct err e;
    ts_t least = ts_max(asked, f->tail);
    f->conn = (struct mongo_conn){.after = asked};
    history("     feed-api %u rebuilds %s at %u or later", f->p, world.user[u], (unsigned)least);
    if (rebuild_run(alone, &f->worker, world.user[u], least, asked, &t, &e) == 0) {
        world.counts->rebuilt += t->how == MRB_DONE;
        world.counts->tokens_lost += t->how == MRB_LOST;
        history("     feed-api %u has rebuilt %s at %u: %s", f->p, world.user[u], (unsigned)t->r,
                t->how == MRB_DONE ? "done" : "not written");
        truth_unref(t);
    }
    rebuilds_free(alone);
}

static void page(struct feed_api *f, unsigned u, ts_t asked)
{
    struct timeline_read read;
    struct timeline t;
    struct err e;
    asked = ts_max(asked, f->user_changed[u]);
    if (chance(world.mix.evicted))
        timeline_goes(u);
    struct timeline_question q = {.asked = asked, .user_changed = f->user_changed[u]};
    if (read_timeline(u, &read, &t, &e) != 0)
        return;
    world.counts->pages++;
    switch (timeline_decide(&t, &q)) {
    case TIMELINE_USABLE:
        break;
    case TIMELINE_ABSENT:
    case TIMELINE_BEHIND:
        timeline_done(&t);
        rebuild(f, u, asked);
        return;
    case TIMELINE_NO_RECORD:
        timeline_done(&t);
        return;
    }
    struct shown x = {.p = f->p, .user = u, .t = &t, .fresh = timeline_time(&t)};
    wait_turn();
    bool all = merge(f, &t, &x.fresh);
    if (!all && load(f, t.pulls))
        all = merge(f, &t, &x.fresh);
    if (all)
        judge(&x);
    timeline_done(&t);
}

static void run_feed(void *arg)
{
    struct feed_api *f = arg;
    while (!f->stop) {
        unsigned u = roll(USERS);
        if (chance(f->busy))
            page(f, chance(50) ? 0 : u, chance(20) ? truth_now() - roll(6) : 0);
        wait_turn();
    }
}

void feeds_load(void)
{
    for (unsigned p = 0; p < FEEDS; p++) {
        for (unsigned u = 0; u < USERS; u++) {
            struct timeline_read read;
            struct timeline t;
            struct err e;
            if (read_timeline(u, &read, &t, &e) != 0)
                return;
            if (t.pulls)
                load(&feeds[p], t.pulls);
            timeline_done(&t);
        }
    }
}

void feeds_judge(bool exact)
{
    struct feed_api *f = &feeds[roll(FEEDS)];
    for (unsigned u = 0; u < USERS; u++) {
        struct timeline_read read;
        struct timeline t;
        struct err e;
        struct timeline_question q = {.user_changed = f->user_changed[u]};
        if (read_timeline(u, &read, &t, &e) != 0)
            return;
        struct shown x = {.p = f->p, .user = u, .t = &t, .fresh = timeline_time(&t)};
        bool usable = timeline_decide(&t, &q) == TIMELINE_USABLE;
        bool all = usable && merge(f, &t, &x.fresh);
        if (exact && usable && x.fresh < truth_now() - 1)
            wrong("%s is as new as %u, and %u has been", world.user[u], (unsigned)x.fresh,
                  (unsigned)truth_now());
        if (all)
            judge(&x);
        world.counts->exact += exact && all;
        timeline_done(&t);
    }
}

/* ---- life ---- */

bool feed_step(unsigned p)
{
    return !fiber_ended(feeds[p].fiber) && fiber_run(feeds[p].fiber);
}

void feeds_begin(void)
{
    memset(feeds, 0, sizeof feeds);
    for (unsigned p = 0; p < FEEDS; p++) {
        struct feed_api *f = &feeds[p];
        f->p = p;
        f->app.cfg.timeline_entries = CAP;
        f->app.cfg.timeline_idle = f->app.cfg.build_expiry = 3600000;
        f->worker = (struct worker){.app = &f->app, .mongo = &f->conn, .redis = connection_take()};
        f->busy = feed_is_slow(p) ? 100 : 5u << roll(4);
        f->pulled = pulled_new(PULLED, TARGETS - 1, NULL);
        pulled_drop_all(f->pulled, FIRST_TICK);
        f->fiber = fiber_new(run_feed, f);
    }
}

void feeds_stop(void)
{
    for (unsigned p = 0; p < FEEDS; p++)
        feeds[p].stop = true;
}

void feeds_end(void)
{
    for (unsigned p = 0; p < FEEDS; p++) {
        fiber_free(feeds[p].fiber);
        pulled_free(feeds[p].pulled);
        connection_give(feeds[p].worker.redis);
    }
}
