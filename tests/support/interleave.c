#include "tests/support/interleave_private.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/keys.h"
#include "common/mem.h"
#include "fanout/buckets.h"

#define STEPS_MAX    4000  /* of the disordered part */
#define SETTLE_MAX   20000 /* steps until everything has to be applied, or ended */
#define HISTORY      48
#define HISTORY_LINE 200
#define CONNECTIONS  16
#define BUCKET_KEYS  (2 + 2 * USERS)

struct world world;

/* ---- chance ---- */

unsigned roll(unsigned n)
{
    world.random += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */
    uint64_t z = world.random;
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return (unsigned)((z ^ z >> 31) % n);
}

bool chance(unsigned percent)
{
    return roll(100) < percent;
}

/* ---- what happened ---- */

static struct {
    char line[HISTORY][HISTORY_LINE];
    unsigned n;
    bool trace;
} past;

static const char *who = "";

void history(const char *fmt, ...)
{
    char *line = past.line[past.n % HISTORY];
    va_list ap;
    if (world.why[0] && !past.trace) /* what came before it is of interest */
        return;
    past.n++;
    va_start(ap, fmt);
    int n = snprintf(line, HISTORY_LINE, "%-9s ", who);
    vsnprintf(line + n, HISTORY_LINE - (size_t)n, fmt, ap);
    va_end(ap);
    if (past.trace)
        fprintf(stderr, "%s\n", line);
}

void interleave_history(void)
{
    for (unsigned i = past.n > HISTORY ? past.n - HISTORY : 0; i < past.n; i++)
        fprintf(stderr, "    %s\n", past.line[i % HISTORY]);
}

void wrong(const char *fmt, ...)
{
    char text[sizeof world.why];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    history("WRONG: %s", text);
    if (!world.why[0])
        snprintf(world.why, sizeof world.why, "%s", text);
}

/* Until it goes on; now and then that takes longer. */
void wait_turn(void)
{
    fiber_yield();
    if (!fiber_is_inside() || world.ending || !chance(world.mix.slow))
        return;
    for (unsigned more = roll(world.mix.wait); more > 0 && !world.ending; more--)
        fiber_yield();
}

/* ---- Redis ---- */

static struct {
    struct redis *at[CONNECTIONS];
    unsigned n;
} idle;

struct redis *__wrap_redis_new(const struct redis_address *a, int64_t timeout_ms);
struct redis *__real_redis_new(const struct redis_address *a, int64_t timeout_ms);
void __wrap_redis_free(struct redis *r);
void __real_redis_free(struct redis *r);
int __wrap_redis_read(struct redis *r, redisReply **out, struct err *e);
int __real_redis_read(struct redis *r, redisReply **out, struct err *e);
int __wrap_redis_script(struct redis *r, redisReply **out, enum script s, int nkeys, int argc,
                        const char **argv, const size_t *len, struct err *e);
int __real_redis_script(struct redis *r, redisReply **out, enum script s, int nkeys, int argc,
                        const char **argv, const size_t *len, struct err *e);
int __wrap_redis_script_append(struct redis *r, enum script s, int nkeys, int argc, const char **argv,
                               const size_t *len, struct err *e);
int __real_redis_script_append(struct redis *r, enum script s, int nkeys, int argc, const char **argv,
                               const size_t *len, struct err *e);
int __wrap_redis_commandf(struct redis *r, redisReply **out, struct err *e, const char *first, ...);

struct redis *connection_take(void)
{
    return idle.n > 0 ? idle.at[--idle.n] : __real_redis_new(&world.address, 20000);
}

void connection_give(struct redis *r)
{
    if (idle.n < CONNECTIONS && redis_pending(r) == 0)
        idle.at[idle.n++] = r;
    else
        __real_redis_free(r);
}

void connections_close(void)
{
    while (idle.n > 0)
        __real_redis_free(idle.at[--idle.n]);
}

struct redis *__wrap_redis_new(const struct redis_address *a, int64_t timeout_ms)
{
    return world.on ? connection_take() : __real_redis_new(a, timeout_ms);
}

void __wrap_redis_free(struct redis *r)
{
    if (world.on)
        connection_give(r);
    else
        __real_redis_free(r);
}

static struct redis *appended_to; /* since something was read */

/* What was appended goes out with the first read: until then it is on its way, and so is the answer after it.
 */
int __wrap_redis_read(struct redis *r, redisReply **out, struct err *e)
{
    if (appended_to == r)
        wait_turn();
    appended_to = NULL;
    int rc = __real_redis_read(r, out, e);
    world.touched = true;
    if (world.on && chance(10))
        wait_turn();
    return rc;
}

static void tell_script(enum script s, int nkeys, int argc, const char **argv)
{
    char text[HISTORY_LINE] = "";
    size_t n = 0;
    for (int i = 0; i < argc && n < sizeof text - 40 && s != SCRIPT_ADOPT && s != SCRIPT_PROGRESS; i++) {
        const char *x = argv[i];
        size_t len = strlen(x);
        if (i >= nkeys && len == 16) /* a time */
            x += 12;
        n += (size_t)snprintf(text + n, sizeof text - n, " %.20s%s", x, i + 1 == nkeys ? " |" : "");
    }
    for (char *c = text; (c = strchr(c, '\n'));) /* pull lists */
        *c = ',';
    world.counts->progress += s == SCRIPT_PROGRESS;
    if (s != SCRIPT_ADOPT || strtoul(argv[0] + 4, NULL, 10) % SHARE_BUCKETS == 0)
        history("     %s%s", script_name(s), text);
}

int __wrap_redis_script_append(struct redis *r, enum script s, int nkeys, int argc, const char **argv,
                               const size_t *len, struct err *e)
{
    if (world.on)
        tell_script(s, nkeys, argc, argv);
    appended_to = r;
    return __real_redis_script_append(r, s, nkeys, argc, argv, len, e);
}

int __wrap_redis_script(struct redis *r, redisReply **out, enum script s, int nkeys, int argc,
                        const char **argv, const size_t *len, struct err *e)
{
    wait_turn();
    if (world.on)
        tell_script(s, nkeys, argc, argv);
    int rc = __real_redis_script(r, out, s, nkeys, argc, argv, len, e);
    world.touched = true;
    if (world.on && chance(50))
        wait_turn();
    return rc;
}

static int by_text(const void *a, const void *b)
{
    const redisReply *const *x = a, *const *y = b;
    return strcmp((*x)->str, (*y)->str);
}

static bool is_inhabited(const char *record)
{
    char key[KEY_SIZE];
    bool is = false;
    for (unsigned u = 0; u < USERS; u += USERS - 1) {
        keys_bucket_record(key, world.bucket[u]);
        is |= strcmp(record, key) == 0;
    }
    return is;
}

/* The order of keys in a SCAN is the server's own, another one each time it is started. Of buckets where
 * nobody lives nobody was born: not asking each time makes the whole twice as fast. */
int __wrap_redis_commandf(struct redis *r, redisReply **out, struct err *e, const char *first, ...)
{
    const char *argv[16];
    int argc = 0;
    va_list ap;
    va_start(ap, first);
    for (const char *s = first; s && argc < 16; s = va_arg(ap, const char *))
        argv[argc++] = s;
    va_end(ap);
    if (world.on && argc == 3 && strcmp(argv[2], "births") == 0 && !is_inhabited(argv[1])) {
        *out = mem_zero(1, sizeof **out);
        (*out)->type = REDIS_REPLY_NIL;
        return 0;
    }
    wait_turn();
    int rc = redis_command(r, out, argc, argv, NULL, e);
    if (rc == 0 && strcmp(first, "SCAN") == 0 && (*out)->elements == 2 && (*out)->element[1]->elements > 1)
        qsort((*out)->element[1]->element, (*out)->element[1]->elements, sizeof(redisReply *), by_text);
    return rc;
}

static redisReply *ask(int argc, const char **argv, const size_t *len)
{
    struct err e;
    redisReply *r = NULL;
    if (redis_command(world.redis, &r, argc, argv, len, &e) != 0)
        wrong("%s: %s", argv[0], e.msg);
    world.touched = true;
    return r;
}

static void command(const char *a, const char *b, const char *c)
{
    const char *argv[] = {a, b, c};
    freeReplyObject(ask(!b ? 1 : !c ? 2 : 3, argv, NULL));
}

/* ---- losses ---- */

/* All keys of a bucket as they were at some time. */
static struct kept {
    bool there;
    redisReply *dump[BUCKET_KEYS];
} kept[2];

static unsigned bucket_keys(unsigned share, char out[BUCKET_KEYS][KEY_SIZE])
{
    unsigned n = 2, bucket = BUCKETS;
    for (unsigned u = 0; u < USERS; u++) {
        if (bucket_share(world.bucket[u]) != world.shares[share])
            continue;
        bucket = world.bucket[u];
        keys_timeline(out[n++], bucket, world.user[u]);
        keys_timeline_meta(out[n++], bucket, world.user[u]);
    }
    keys_bucket_record(out[0], bucket);
    snprintf(out[1], KEY_SIZE, "bn:{%u}", bucket);
    return n;
}

static void forget_kept(unsigned share)
{
    for (unsigned i = 0; i < BUCKET_KEYS; i++) {
        freeReplyObject(kept[share].dump[i]);
        kept[share].dump[i] = NULL;
    }
    kept[share].there = false;
}

static void keep_state(unsigned share)
{
    char keys[BUCKET_KEYS][KEY_SIZE];
    unsigned n = bucket_keys(share, keys);
    forget_kept(share);
    for (unsigned i = 0; i < n; i++) {
        const char *argv[] = {"DUMP", keys[i]};
        kept[share].dump[i] = ask(2, argv, NULL);
    }
    kept[share].there = true;
    history("     the state of share %u is kept", world.shares[share]);
}

/* What identifies the record of a bucket, or "". */
static void read_record(const char *key, char out[64])
{
    const char *argv[] = {"HMGET", key, "epoch", "n"};
    redisReply *r = ask(4, argv, NULL);
    snprintf(out, 64, "%s %s", r && r->element[0]->str ? r->element[0]->str : "",
             r && r->element[1]->str ? r->element[1]->str : "");
    freeReplyObject(r);
}

/* All of a share goes back to one moment. A server that comes back so has lost its connections, too, which
 * alone makes an owner adopt anew. Here he does not notice that, as long as the record tells; it does not
 * when none of his scripts ran since, yet a timeline that expired since is back. */
static void restore_state(unsigned share)
{
    char keys[BUCKET_KEYS][KEY_SIZE], before[64], after[64];
    unsigned n = bucket_keys(share, keys);
    if (!kept[share].there)
        return;
    read_record(keys[0], before);
    for (unsigned i = 0; i < n; i++) {
        const redisReply *d = kept[share].dump[i];
        command("DEL", keys[i], NULL);
        if (!d || d->type != REDIS_REPLY_STRING)
            continue;
        const char *argv[] = {"RESTORE", keys[i], "0", d->str};
        size_t len[] = {7, strlen(keys[i]), 1, d->len};
        freeReplyObject(ask(4, argv, len));
    }
    read_record(keys[0], after);
    history("     share %u is as it was when it was kept, its record at %s, was at %s", world.shares[share],
            after, before);
    for (unsigned o = 0; o < OWNERS && strcmp(before, after) == 0; o++)
        owner_loses_answers(o);
    world.counts->restored++;
}

void timeline_goes(unsigned u)
{
    char tl[KEY_SIZE], pf[KEY_SIZE];
    keys_timeline(tl, world.bucket[u], world.user[u]);
    keys_timeline_meta(pf, world.bucket[u], world.user[u]);
    command("DEL", tl, pf);
}

static void lose_keys(void)
{
    char tl[KEY_SIZE], pf[KEY_SIZE], other[KEY_SIZE];
    unsigned u = roll(USERS), what = roll(100);
    keys_timeline(tl, world.bucket[u], world.user[u]);
    keys_timeline_meta(pf, world.bucket[u], world.user[u]);
    if (what < 50)
        command("DEL", tl, pf);
    else if (what < 70)
        command("DEL", tl, NULL);
    else if (what < 85)
        command("DEL", pf, NULL);
    else if (what < 95) {
        snprintf(other, sizeof other, "bn:{%u}", world.bucket[u]);
        command("DEL", other, NULL);
    } else {
        keys_bucket_record(other, world.bucket[u]);
        command("DEL", other, NULL);
    }
    history("     lost of %s: %s", world.user[u],
            what < 50   ? "both keys"
            : what < 70 ? "tl"
            : what < 85 ? "pf"
            : what < 95 ? "bn"
                        : "bk");
    world.counts->keys_lost++;
}

static void lose_something(void)
{
    unsigned what = roll(100);
    if (what < 35) {
        keep_state(roll(2));
    } else if (what < 60) {
        restore_state(roll(2));
    } else if (what < 85) {
        lose_keys();
    } else if (what < 95) {
        unsigned o = roll(OWNERS);
        history("     fanout %u loses answers", o);
        owner_loses_answers(o);
        world.counts->answers_lost++;
    } else {
        history("     FLUSHALL");
        command("FLUSHALL", NULL, NULL);
        world.counts->flushed++;
    }
}

/* ---- who goes on ---- */

enum actor { WRITER, LEASES, LOSSES, JUDGE, TAIL_0, TAIL_1, FEED_0, FEED_1, OWNER_0, OWNER_1, ACTORS };

static const char *const names[ACTORS] = {"writer", "leases", "losses", "judge",    "tail 0",
                                          "tail 1", "feed 0", "feed 1", "fanout 0", "fanout 1"};

static struct {
    unsigned weight[ACTORS];
    long frozen_until[ACTORS];
    long step;
} turns;

static void act(enum actor a)
{
    who = names[a];
    switch (a) {
    case WRITER:
        if (owners_lag() <= world.mix.lag || chance(2))
            truth_happens();
        break;
    case LEASES:
        owners_leases();
        break;
    case LOSSES:
        lose_something();
        break;
    case JUDGE:
        if (world.touched)
            feeds_judge(false);
        world.touched = false;
        break;
    case TAIL_0:
    case TAIL_1:
        feed_tail_step(a - TAIL_0);
        break;
    case FEED_0:
    case FEED_1:
        feed_step(a - FEED_0);
        break;
    case OWNER_0:
    case OWNER_1:
        owner_step(a - OWNER_0);
        break;
    case ACTORS:
        break;
    }
}

static enum actor next_actor(void)
{
    unsigned sum = 0, a;
    for (a = 0; a < ACTORS; a++)
        sum += turns.frozen_until[a] <= turns.step ? turns.weight[a] : 0;
    if (sum == 0)
        return WRITER;
    unsigned at = roll(sum);
    for (a = 0; a < ACTORS; a++) {
        unsigned w = turns.frozen_until[a] <= turns.step ? turns.weight[a] : 0;
        if (at < w)
            break;
        at -= w;
    }
    return (enum actor)a;
}

/* Now and then somebody stands still for a while: a process that is paused, a request that is slow. */
static void step(void)
{
    turns.step++;
    world.counts->steps++;
    world.clock_ms += roll(4);
    if (chance(1)) {
        enum actor a = (enum actor)(TAIL_0 + roll(ACTORS - TAIL_0));
        turns.frozen_until[a] = turns.step + 20 + roll(150);
        who = names[a];
        history("     stands still");
    }
    act(next_actor());
}

/* ---- the life of a seed ---- */

static int by_bucket(const void *a, const void *b)
{
    const char *x = a, *y = b;
    unsigned i = keys_bucket(x), k = keys_bucket(y);
    return i != k ? (i < k ? -1 : 1) : strcmp(x, y);
}

/* Two users in each of two buckets of different shares, in the order of (bucket, name). */
static void name_users(void)
{
    unsigned n = 0;
    for (unsigned i = 0; n < USERS; i++) {
        char name[16];
        snprintf(name, sizeof name, "u%u", i);
        unsigned b = keys_bucket(name), first = n > 0 ? keys_bucket(world.user[0]) : b;
        unsigned third = n > 2 ? keys_bucket(world.user[2]) : BUCKETS;
        if (n < 2 ? b == first : n == 2 ? bucket_share(b) != bucket_share(first) : b == third)
            strcpy(world.user[n++], name);
    }
    qsort(world.user, USERS, sizeof world.user[0], by_bucket);
    for (unsigned u = 0; u < USERS; u++)
        world.bucket[u] = keys_bucket(world.user[u]);
    world.shares[0] = bucket_share(world.bucket[0]);
    world.shares[1] = bucket_share(world.bucket[USERS - 1]);
}

static void choose_events(enum interleave_kind kind)
{
    world.mix.publish = kind == INTERLEAVE_EDITS ? 20 + roll(20) : 30 + roll(60);
    world.mix.edit = kind == INTERLEAVE_EDITS ? 60 : chance(40) ? 0 : roll(30);
    world.mix.erase = roll(6);
    world.mix.graph = kind == INTERLEAVE_GRAPH ? 30 : kind == INTERLEAVE_BURSTS || chance(30) ? 0 : roll(12);
    world.mix.turn = kind == INTERLEAVE_TURNS ? 40 : chance(40) ? 0 : roll(20);
    world.mix.beat = 6;
    if (kind == INTERLEAVE_BURSTS && chance(70))
        world.mix.edit = world.mix.turn = 0; /* they would end the rebuilds that they meet */
    world.mix.late = kind == INTERLEAVE_BURSTS ? 70 : 5 + roll(40);
    world.mix.follows = chance(50) ? 25 : 50;
    world.mix.hot = chance(70) ? 85 : 40;
    world.mix.slow = chance(50) ? 0 : roll(20);
    world.mix.evicted = chance(50) ? 0 : roll(30);
    world.mix.lag = kind != INTERLEAVE_TURNS || chance(50) ? EVENTS : 3 + roll(8);
    world.mix.wait = 8;
    if (kind == INTERLEAVE_TURNS && world.mix.lag == EVENTS) { /* somebody unfollows what turns meanwhile */
        world.mix.graph = 20;
        world.mix.slow = 10;
        world.mix.wait = 40;
        world.mix.evicted = 30;
    }
    turns.weight[WRITER] = 1 + roll(6);
    turns.weight[JUDGE] = 3;
    turns.weight[LEASES] = kind == INTERLEAVE_LOSSES ? 2 : roll(2);
    turns.weight[LOSSES] = kind == INTERLEAVE_LOSSES ? 3 : chance(60) ? 0 : 1;
}

/* Who is slow, too. */
static void choose_pace(enum interleave_kind kind)
{
    memset(&turns, 0, sizeof turns);
    for (unsigned i = TAIL_0; i <= FEED_1; i++)
        turns.weight[i] = 2u << roll(4);
    for (unsigned i = OWNER_0; i <= OWNER_1; i++)
        turns.weight[i] = 8u << roll(3);
    choose_events(kind);
    if (kind == INTERLEAVE_TURNS && world.mix.graph == 20) { /* rebuilds overtake what is on its way */
        for (unsigned i = 0; i < 2; i++) {
            turns.weight[OWNER_0 + i] = 6;
            turns.weight[FEED_0 + i] = turns.weight[TAIL_0 + i] = 16;
        }
    }
    bool few = kind == INTERLEAVE_BURSTS || (kind == INTERLEAVE_EDITS && chance(60)) ||
               (kind == INTERLEAVE_TURNS && world.mix.graph < 20);
    if (few) { /* rebuilds, and they take long */
        turns.weight[FEED_0] = turns.weight[FEED_1] = 1 + roll(2);
        turns.weight[WRITER] = 4 + roll(6);
        world.mix.evicted = 10;
        world.mix.slow = 0;
    }
}

bool feed_is_slow(unsigned p)
{
    return turns.weight[FEED_0 + p] < 3;
}

static void begin(const struct redis_address *a, unsigned seed)
{
    world.random = seed * UINT64_C(0x2545f4914f6cdd1d);
    world.clock_ms = 1000;
    world.address = *a;
    world.why[0] = '\0';
    world.ending = false;
    world.on = true;
    world.fail_reads = chance(40) ? 20 + roll(80) : 0;
    choose_pace((enum interleave_kind)(seed % INTERLEAVE_KINDS));
    world.redis = connection_take();
    if (!world.user[0][0]) { /* the first one */
        const char *no_file[] = {"CONFIG", "SET", "appendonly", "no"};
        freeReplyObject(ask(4, no_file, NULL));
        name_users();
    }
    command("FLUSHALL", NULL, NULL);
    truth_begin();
    feeds_begin();
    owners_begin();
}

/* Runs everybody but those who disturb until done() or for too long. */
static bool run_until(bool (*done)(void))
{
    for (unsigned i = 0; i < SETTLE_MAX; i++) {
        if (done())
            return true;
        world.clock_ms += roll(4);
        turns.step++;
        act((enum actor)(TAIL_0 + roll(ACTORS - TAIL_0)));
    }
    return done();
}

static bool settled(void)
{
    owners_settle(); /* one that was being given is free now */
    return (owners_done() && feed_tail_done(0) && feed_tail_done(1)) || world.why[0];
}

static void settle(void)
{
    truth_beats();
    if (!world.why[0] && !run_until(settled))
        wrong("it does not come to an end");
    feed_tail_step(0);
    feed_tail_step(1);
}

/* What is applied is exact; so it is with what is pulled, once time went by since that was read. */
static void finish(void)
{
    world.ending = true;
    settle();
    who = "end";
    feeds_load();
    settle();
    if (!world.why[0])
        feeds_judge(true);
}

static bool all_ended(void)
{
    bool alive = false;
    who = "end";
    for (unsigned i = 0; i < 2; i++) {
        alive |= feed_step(i);
        alive |= owner_step(i);
    }
    return !alive;
}

static void end(void)
{
    world.ending = true;
    feeds_stop();
    owners_stop();
    if (!run_until(all_ended)) {
        fprintf(stderr, "somebody does not end: %s\n", world.why);
        interleave_history();
        abort();
    }
    owners_end();
    feeds_end();
    connection_give(world.redis);
    for (unsigned i = 0; i < 2; i++)
        forget_kept(i);
    world.on = false;
}

int interleave_run(const struct redis_address *a, unsigned seed, bool trace, struct interleave_counts *counts,
                   char *why, size_t why_size)
{
    past.n = 0;
    past.trace = trace;
    world.counts = counts;
    begin(a, seed);
    unsigned events = 20 + roll(60);
    while (world.truth.n < events && turns.step < STEPS_MAX && !world.why[0])
        step();
    who = "";
    history("     nothing more happens");
    if (!world.why[0]) {
        finish();
    }
    end();
    snprintf(why, why_size, "%s", world.why);
    return world.why[0] ? -1 : 0;
}

void interleave_end(void)
{
    interleave_mutate(NULL);
}
