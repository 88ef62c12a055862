#include "tests/support/interleave_private.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/log.h"
#include "common/mem.h"
#include "fanout/dead_letters.h"
#include "fanout/engine_private.h"

/* What a fanout believes to hold; the leases as MongoDB has them stand in `leases`. */
struct shares {
    unsigned owner;
    struct shares_view view;
};

struct log_reader {
    unsigned next;
    bool opened; /* something was handed out */
};

static struct owner {
    struct shares shares;
    struct engine *engine;
    struct mongo_conn conn;
    struct fiber *fiber;
} owners[OWNERS];

static struct {
    int owner; /* -1: nobody */
    int64_t epoch;
} leases[SHARES];

/* ---- the engine's thread is a fiber ---- */

static struct owner *being_started;

int __wrap_pthread_create(pthread_t *out, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);
int __real_pthread_create(pthread_t *out, const pthread_attr_t *attr, void *(*fn)(void *), void *arg);
int __wrap_pthread_join(pthread_t t, void **out);
int __real_pthread_join(pthread_t t, void **out);

static struct {
    void *(*fn)(void *);
    void *arg;
} mains[OWNERS];

static void run_engine(void *arg)
{
    unsigned o = (unsigned)((struct owner *)arg - owners);
    mains[o].fn(mains[o].arg);
}

int __wrap_pthread_create(pthread_t *out, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
    if (!being_started)
        return __real_pthread_create(out, attr, fn, arg);
    mains[being_started - owners].fn = fn;
    mains[being_started - owners].arg = arg;
    being_started->fiber = fiber_new(run_engine, being_started);
    return 0;
}

int __wrap_pthread_join(pthread_t t, void **out)
{
    return world.on ? 0 : __real_pthread_join(t, out);
}

int __wrap_engine_prepare(struct engine *g, struct err *e);

int __wrap_engine_prepare(struct engine *g, struct err *e)
{
    (void)e;
    g->conn = g->apply.conn = &owners[g->o.shares->owner].conn;
    g->prepared = true;
    return 0;
}

int __wrap_dead_letters_write(struct mongo_conn *c, const struct trouble *x, const char *fanout,
                              unsigned *lost, struct err *e);

int __wrap_dead_letters_write(struct mongo_conn *c, const struct trouble *x, const char *fanout,
                              unsigned *lost, struct err *e)
{
    (void)c;
    (void)e;
    (void)x;
    wrong("%s gave a change up", fanout);
    *lost = 0;
    return 0;
}

/* ---- leases ---- */

void __wrap_shares_alive(struct shares *s);
void __wrap_shares_look(struct shares *s, struct shares_view *out);
void __wrap_shares_wait(struct shares *s, uint64_t version, int64_t ms);
int __wrap_shares_retake(struct shares *s, unsigned share, int64_t least, int64_t *epoch, struct err *e);
int __wrap_shares_release(struct shares *s, unsigned share, struct err *e);
int __wrap_shares_leave(struct shares *s, struct err *e);

static void hear(struct shares *s, unsigned share)
{
    bool held = leases[share].owner == (int)s->owner;
    if (held == s->view.share[share].held && (!held || leases[share].epoch == s->view.share[share].epoch))
        return;
    s->view.share[share].held = held;
    s->view.share[share].giving = false;
    s->view.share[share].epoch = held ? leases[share].epoch : 0;
    s->view.version++;
    history("     fanout %u hears that it %s share %u, epoch %d", s->owner, held ? "holds" : "lost", share,
            (int)leases[share].epoch);
}

void __wrap_shares_alive(struct shares *s)
{
    (void)s;
    wait_turn();
}

void __wrap_shares_look(struct shares *s, struct shares_view *out)
{
    *out = s->view;
}

void __wrap_shares_wait(struct shares *s, uint64_t version, int64_t ms)
{
    (void)s;
    (void)version;
    (void)ms;
    wait_turn();
}

int __wrap_shares_retake(struct shares *s, unsigned share, int64_t least, int64_t *epoch, struct err *e)
{
    wait_turn();
    world.counts->refused++;
    if (leases[share].owner != (int)s->owner || leases[share].epoch != s->view.share[share].epoch) {
        hear(s, share);
        return err_set(e, ERR_MISMATCH, "somebody else has it");
    }
    leases[share].epoch = (leases[share].epoch > least ? leases[share].epoch : least) + 1;
    hear(s, share);
    *epoch = leases[share].epoch;
    return 0;
}

int __wrap_shares_release(struct shares *s, unsigned share, struct err *e)
{
    (void)e;
    wait_turn();
    if (leases[share].owner == (int)s->owner && leases[share].epoch == s->view.share[share].epoch)
        leases[share].owner = -1;
    hear(s, share);
    world.counts->given++;
    return 0;
}

int __wrap_shares_leave(struct shares *s, struct err *e)
{
    (void)s;
    (void)e;
    return 0;
}

static void take(unsigned share, unsigned o)
{
    leases[share].owner = (int)o;
    leases[share].epoch++;
    history("     share %u goes to fanout %u, epoch %d", share, o, (int)leases[share].epoch);
    hear(&owners[o].shares, share); /* the other one goes on, as far as it knows */
    world.counts->taken_over++;
}

void owners_leases(void)
{
    unsigned share = world.shares[roll(2)], what = roll(100);
    int owner = leases[share].owner;
    if (owner < 0)
        take(share, roll(OWNERS));
    else if (what < 30)
        take(share, 1 - (unsigned)owner);
    else if (what < 40 && owners[owner].shares.view.share[share].held)
        owners[owner].shares.view.share[share].giving = true;
    else
        hear(&owners[roll(OWNERS)].shares, share);
}

void owners_settle(void)
{
    for (unsigned i = 0; i < 2; i++) {
        if (leases[world.shares[i]].owner < 0)
            take(world.shares[i], 0);
        for (unsigned o = 0; o < OWNERS; o++) {
            owners[o].shares.view.share[world.shares[i]].giving = false;
            hear(&owners[o].shares, world.shares[i]);
        }
    }
}

/* ---- the log ---- */

int __wrap_log_reader_open(struct log_reader **out, const struct log_reader_options *o, struct err *e);
void __wrap_log_reader_close(struct log_reader *r);
int __wrap_log_reader_next(struct log_reader *r, struct change *out, int64_t wait_ms, struct err *e);
ts_t __wrap_log_reader_complete(struct log_reader *r);
unsigned __wrap_log_reader_queued(struct log_reader *r);
bool __wrap_log_reader_down(struct log_reader *r);

int __wrap_log_reader_open(struct log_reader **out, const struct log_reader_options *o, struct err *e)
{
    (void)e;
    *out = mem_zero(1, sizeof **out);
    (*out)->next = o->start > FIRST_TICK ? (unsigned)(o->start - FIRST_TICK - 1) : 0;
    history("     reads the log from %u", (unsigned)o->start);
    world.counts->adopted++;
    return 0;
}

void __wrap_log_reader_close(struct log_reader *r)
{
    free(r);
}

int __wrap_log_reader_next(struct log_reader *r, struct change *out, int64_t wait_ms, struct err *e)
{
    (void)e;
    if (r->next == world.truth.n || (!world.ending && chance(40))) { /* it may not have come yet */
        if (wait_ms > 0)
            wait_turn();
        return 0;
    }
    *out = world.truth.events[r->next++];
    r->opened = true;
    return 1;
}

/* The last one is complete when something later was read. */
ts_t __wrap_log_reader_complete(struct log_reader *r)
{
    if (!r->opened)
        return 0;
    return FIRST_TICK + r->next - (r->next == world.truth.n);
}

unsigned __wrap_log_reader_queued(struct log_reader *r)
{
    return world.truth.n - r->next;
}

bool __wrap_log_reader_down(struct log_reader *r)
{
    (void)r;
    return false;
}

/* ---- clocks, logs ---- */

int64_t __wrap_clock_mono_ms(void);
int64_t __real_clock_mono_ms(void);
int64_t __wrap_clock_mono_us(void);
int64_t __real_clock_mono_us(void);
int64_t __wrap_clock_wall_ms(void);
int64_t __real_clock_wall_ms(void);
int __wrap_nanosleep(const struct timespec *t, struct timespec *left);
int __real_nanosleep(const struct timespec *t, struct timespec *left);
void __wrap_log_fields(enum log_level level, const char *event, const struct log_field *f, size_t n);
void __real_log_fields(enum log_level level, const char *event, const struct log_field *f, size_t n);

int64_t __wrap_clock_mono_ms(void)
{
    return world.on ? world.clock_ms : __real_clock_mono_ms();
}

int64_t __wrap_clock_mono_us(void)
{
    return world.on ? world.clock_ms * 1000 : __real_clock_mono_us();
}

int64_t __wrap_clock_wall_ms(void)
{
    return world.on ? world.clock_ms : __real_clock_wall_ms();
}

int __wrap_nanosleep(const struct timespec *t, struct timespec *left)
{
    if (!world.on)
        return __real_nanosleep(t, left);
    world.clock_ms += t->tv_nsec / 1000000;
    wait_turn();
    return 0;
}

void __wrap_log_fields(enum log_level level, const char *event, const struct log_field *f, size_t n)
{
    if (!world.on)
        __real_log_fields(level, event, f, n);
    else if (level >= LOG_INFO)
        history("     says %s", event);
}

/* ---- life ---- */

void owners_begin(void)
{
    static const char *const names[OWNERS] = {"fanout 0", "fanout 1"};
    struct err e;
    memset(leases, 0, sizeof leases);
    memset(owners, 0, sizeof owners);
    for (unsigned i = 0; i < SHARES; i++)
        leases[i].owner = -1;
    for (unsigned o = 0; o < OWNERS; o++) {
        owners[o].shares.owner = o;
        owners[o].shares.view.known = true;
        owners[o].shares.view.members = owners[o].shares.view.fair = OWNERS;
        struct engine_options options = {
            .redis = world.address,
            .shares = &owners[o].shares,
            .name = names[o],
            .timeline_entries = CAP,
            .batch_keys = 1 + roll(3),
            .audience_batch = 1 + roll(4),
            .pipeline_calls = 1 + roll(4),
            .drain_ms = 1000,
        };
        owners[o].engine = engine_new(&options);
        being_started = &owners[o];
        int rc = engine_start(owners[o].engine, &e);
        being_started = NULL;
        assert(rc == 0);
    }
    take(world.shares[0], 0);
    take(world.shares[1], roll(OWNERS));
}

bool owner_step(unsigned o)
{
    return !fiber_ended(owners[o].fiber) && fiber_run(owners[o].fiber);
}

/* As after a call that timed out: what was sent may have been done. */
void owner_loses_answers(unsigned o)
{
    deliver_break(owners[o].engine->deliver);
}

unsigned owners_lag(void)
{
    ts_t least = truth_now();
    for (unsigned i = 0; i < 2; i++) {
        struct engine_status s;
        int o = leases[world.shares[i]].owner;
        if (o < 0)
            continue;
        engine_status(owners[o].engine, &s);
        least = ts_min(least, ts_max(FIRST_TICK, s.share[world.shares[i]].progress));
    }
    return (unsigned)(truth_now() - least);
}

bool owners_done(void)
{
    for (unsigned i = 0; i < 2; i++) {
        struct engine_status s;
        int o = leases[world.shares[i]].owner;
        engine_status(owners[o].engine, &s);
        if (!s.share[world.shares[i]].owned || s.share[world.shares[i]].progress < truth_now() - 1 ||
            s.share[world.shares[i]].epoch != leases[world.shares[i]].epoch)
            return false;
    }
    return true;
}

void owners_stop(void)
{
    for (unsigned o = 0; o < OWNERS; o++)
        engine_stop(owners[o].engine);
}

void owners_end(void)
{
    for (unsigned o = 0; o < OWNERS; o++) {
        engine_free(owners[o].engine);
        fiber_free(owners[o].fiber);
    }
}
