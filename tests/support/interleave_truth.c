#include "tests/support/interleave_private.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/target_ids.h"
#include "common/target_modes.h"
#include "fanout/audience.h"
#include "feed-api/follow_set.h"
#include "feed-api/store_ids.h"

/* In byte order, as indexes have them. */
static const char *const targets[TARGETS] = {"p:a", "p:b", "p:c", "t:a", "t:b", "t:c"};

#define L (&world.truth)

ts_t truth_now(void)
{
    return FIRST_TICK + L->n;
}

const struct state *truth_state(ts_t t)
{
    assert(t <= truth_now());
    return &L->at[t > FIRST_TICK ? t - FIRST_TICK : 0];
}

unsigned truth_user_of(const char *name)
{
    unsigned u = 0;
    while (u < USERS && strcmp(world.user[u], name) != 0)
        u++;
    return u;
}

const char *truth_target(unsigned target)
{
    return targets[target];
}

unsigned truth_target_of(const char *text)
{
    unsigned t = 0;
    while (t < TARGETS && strcmp(targets[t], text) != 0)
        t++;
    return t;
}

/* ---- what happens ---- */

void truth_begin(void)
{
    memset(L, 0, sizeof *L);
    L->newest = 100;
    for (unsigned u = 0; u < USERS; u++) {
        for (unsigned t = 0; t < TARGETS; t++)
            L->at[0].follows[u] |= (uint8_t)(chance(world.mix.follows) << t);
    }
    if (chance(30) || world.mix.turn > 20)
        L->at[0].pulled = (uint8_t)(1u << roll(TARGETS) | 1u << roll(TARGETS));
}

static struct change *next_event(enum change_kind kind, struct state **s)
{
    assert(L->n < EVENTS);
    struct change *c = &L->events[L->n];
    memset(c, 0, sizeof *c);
    L->at[L->n + 1] = L->at[L->n];
    *s = &L->at[++L->n];
    c->kind = kind;
    c->t = truth_now();
    return c;
}

static void name_topics(uint8_t in, unsigned *n, char out[][NAME_MAX_BYTES + 1])
{
    *n = 0;
    for (unsigned t = PUBLISHERS; t < TARGETS; t++) {
        if (in & 1u << t)
            strcpy(out[(*n)++], targets[t] + 2);
    }
}

static uint8_t some_topics(void)
{
    return (uint8_t)(roll(1 << (TARGETS - PUBLISHERS)) << PUBLISHERS);
}

static unsigned item_of(item_id id)
{
    unsigned i = 0;
    while (i < L->items && L->id[i] != id)
        i++;
    return i;
}

/* Some come late: below what is there already. */
static item_id new_id(void)
{
    if (L->items > 0 && chance(world.mix.late)) {
        item_id id = L->newest - roll(chance(50) ? 8 : 30);
        if (item_of(id) == L->items) {
            world.counts->late++;
            return id;
        }
    }
    return L->newest += 1 + roll(3);
}

static void publish(void)
{
    struct state *s;
    if (L->items == ITEMS)
        return;
    struct change *c = next_event(CHANGE_ITEM, &s);
    unsigned i = L->items, publisher = chance(world.mix.hot) ? 0 : roll(PUBLISHERS);
    c->item = L->id[i] = new_id();
    L->items++;
    c->revision = 1;
    c->inserted = true;
    s->targets[i] = (uint8_t)(1u << publisher | some_topics());
    c->item_told = true;
    strcpy(c->publisher, targets[publisher] + 2);
    name_topics(s->targets[i], &c->n_topics, c->topics);
    history("%3u: item %u published, in %02x", (unsigned)c->t, (unsigned)c->item, s->targets[i]);
}

/* Often one of the last ones, often back to what it was. */
static void edit(bool deletes)
{
    struct state *s;
    if (L->items == 0)
        return;
    unsigned last = L->items < 2 ? L->items : 2;
    unsigned i = chance(world.mix.hot) ? L->items - 1 - roll(last) : roll(L->items);
    if (L->at[L->n].deleted[i])
        return;
    struct change *c = next_event(CHANGE_ITEM, &s);
    uint8_t before = s->targets[i], publisher = before & ((1u << PUBLISHERS) - 1);
    c->item = L->id[i];
    c->revision = 2;
    c->topics_changed = true;
    name_topics(before, &c->n_topics_before, c->topics_before);
    if (deletes) {
        c->deleted = s->deleted[i] = true;
        world.counts->deleted++;
    } else {
        s->targets[i] = publisher | (chance(world.mix.hot) && L->was[i] ? L->was[i] : some_topics());
        L->was[i] = before & (uint8_t)~publisher;
        c->topics_told = chance(85);
        if (c->topics_told)
            name_topics(s->targets[i], &c->n_topics, c->topics);
        world.counts->edited++;
    }
    history("%3u: item %u %s, was in %02x, is in %02x", (unsigned)c->t, (unsigned)c->item,
            deletes ? "deleted" : "edited", before, s->targets[i]);
}

/* Follows and unfollows of one user; the process that was asked knows it at once. */
static void graph(void)
{
    struct state *s;
    struct change *c = next_event(CHANGE_USER, &s);
    unsigned u = roll(USERS);
    strcpy(c->name, world.user[u]);
    s->follows[u] ^= (uint8_t)(1u << (chance(world.mix.hot) ? 0 : roll(TARGETS)));
    if (chance(30))
        s->follows[u] ^= (uint8_t)(1u << roll(TARGETS));
    history("%3u: %s follows %02x", (unsigned)c->t, c->name, s->follows[u]);
    if (chance(60))
        feed_hears_of_own(roll(FEEDS), u, c->t);
}

static void turn(void)
{
    struct state *s;
    struct change *c = next_event(CHANGE_TARGET, &s);
    unsigned t = chance(world.mix.hot) ? 0 : roll(TARGETS);
    s->pulled ^= (uint8_t)(1u << t);
    c->mode = s->pulled & 1u << t ? MODE_PULL : MODE_PUSH;
    strcpy(c->name, targets[t]);
    world.counts->turns++;
    history("%3u: %s turns to %s", (unsigned)c->t, c->name, c->mode == MODE_PULL ? "pull" : "push");
}

void truth_beats(void)
{
    struct state *s;
    struct change *c = next_event(CHANGE_HEARTBEAT, &s);
    strcpy(c->name, "beat");
    c->at_ms = c->mono_ms = world.clock_ms;
}

void truth_happens(void)
{
    if (L->n >= EVENTS - 20)
        return;
    unsigned sum = world.mix.publish + world.mix.edit + world.mix.erase + world.mix.graph + world.mix.turn +
                   world.mix.beat;
    unsigned what = roll(sum);
    if (what < (sum = world.mix.publish))
        publish();
    else if (what < (sum += world.mix.edit))
        edit(false);
    else if (what < (sum += world.mix.erase))
        edit(true);
    else if (what < (sum += world.mix.graph))
        graph();
    else if (what < (sum += world.mix.turn))
        turn();
    else
        truth_beats();
}

/* ---- reading it ---- */

/* A read: of a time between what the client has to see and now. A torn one sees what it meets later as it was
 * later, as a read of many documents does. */
struct look {
    ts_t at;
    bool torn;
};

static int look_begin(struct mongo_conn *c, struct look *l, const char *what, struct err *e)
{
    wait_turn();
    if (world.fail_reads && !world.ending && roll(world.fail_reads) == 0) {
        world.counts->reads_failed++;
        history("     reading %s fails", what);
        return err_set(e, ERR_UNAVAILABLE, "no answer");
    }
    ts_t least = ts_max(ts_max(c->after, c->time), FIRST_TICK), now = truth_now();
    assert(least <= now);
    l->at = now;
    if (now > least && chance(60))
        l->at = chance(50) ? least : least + roll((unsigned)(now - least) + 1);
    l->torn = chance(20);
    return 0;
}

static const struct state *look_next(struct look *l)
{
    ts_t now = truth_now();
    if (l->torn && now > l->at && chance(30))
        l->at += 1 + roll((unsigned)(now - l->at));
    return truth_state(l->at);
}

static void look_end(struct mongo_conn *c, const struct look *l, const char *what)
{
    history("     reads %s as of %u%s", what, (unsigned)l->at, l->torn ? ", torn" : "");
    c->time = ts_max(c->time, l->at);
}

void __wrap_mongo_conn_after(struct mongo_conn *c, ts_t t);
void __wrap_mongo_conn_deadline(struct mongo_conn *c, int64_t ms);
int64_t __wrap_mongo_conn_left_ms(const struct mongo_conn *c);
ts_t __wrap_mongo_conn_time(const struct mongo_conn *c);
int __wrap_mongo_conn_fresh(struct mongo_conn *c, ts_t *now, struct err *e);
void __wrap_mongo_conn_put(struct mongo_conn *c);

void __wrap_mongo_conn_after(struct mongo_conn *c, ts_t t)
{
    c->after = ts_max(c->after, t);
}

void __wrap_mongo_conn_deadline(struct mongo_conn *c, int64_t ms)
{
    (void)c;
    (void)ms;
}

int64_t __wrap_mongo_conn_left_ms(const struct mongo_conn *c)
{
    (void)c;
    return 10000;
}

ts_t __wrap_mongo_conn_time(const struct mongo_conn *c)
{
    return c->time;
}

int __wrap_mongo_conn_fresh(struct mongo_conn *c, ts_t *now, struct err *e)
{
    struct look l;
    if (look_begin(c, &l, "the time", e) != 0)
        return -1;
    *now = c->time = truth_now();
    return 0;
}

void __wrap_mongo_conn_put(struct mongo_conn *c)
{
    (void)c; /* whoever has it frees it */
}

/* ---- items ---- */

/* Places of all items, newest first. */
static unsigned newest_first(unsigned out[ITEMS])
{
    for (unsigned i = 0; i < L->items; i++) {
        unsigned k = i;
        for (; k > 0 && L->id[out[k - 1]] < L->id[i]; k--)
            out[k] = out[k - 1];
        out[k] = i;
    }
    return L->items;
}

static size_t newest_of(struct look *l, uint8_t in, item_id before, size_t n, item_id *out)
{
    unsigned order[ITEMS], items = newest_first(order);
    size_t got = 0;
    for (unsigned i = 0; i < items && got < n; i++) {
        const struct state *s = look_next(l);
        if (L->id[order[i]] < before && s->targets[order[i]] & in && !s->deleted[order[i]])
            out[got++] = L->id[order[i]];
    }
    return got;
}

int __wrap_target_ids_newest(struct mongo_conn *c, const char *target, size_t n, item_id *out, size_t *got,
                             struct err *e);

int __wrap_target_ids_newest(struct mongo_conn *c, const char *target, size_t n, item_id *out, size_t *got,
                             struct err *e)
{
    struct look l;
    if (look_begin(c, &l, "a target's newest", e) != 0)
        return -1;
    *got = newest_of(&l, (uint8_t)(1u << truth_target_of(target)), IDS, n, out);
    look_end(c, &l, "a target's newest");
    return 0;
}

static uint8_t bits_of(char letter, char **names, size_t n)
{
    uint8_t bits = 0;
    for (size_t i = 0; i < n; i++)
        bits |= (uint8_t)(1u << truth_target_of((char[]){letter, ':', names[i][0], '\0'}));
    return bits;
}

int __wrap_store_ids(struct mongo_conn *c, const struct follow_set *f, item_id before, size_t n, item_id *out,
                     size_t *got, struct err *e);

int __wrap_store_ids(struct mongo_conn *c, const struct follow_set *f, item_id before, size_t n, item_id *out,
                     size_t *got, struct err *e)
{
    struct look l;
    if (look_begin(c, &l, "ids", e) != 0)
        return -1;
    uint8_t in = bits_of('p', f->publishers, f->n_publishers) | bits_of('t', f->topics, f->n_topics);
    *got = newest_of(&l, in, before, n, out);
    look_end(c, &l, "ids");
    return 0;
}

int __wrap_audience_item(struct mongo_conn *c, item_id id, struct item_now *out, struct err *e);

int __wrap_audience_item(struct mongo_conn *c, item_id id, struct item_now *out, struct err *e)
{
    struct look l;
    if (look_begin(c, &l, "an item", e) != 0)
        return -1;
    const struct state *s = truth_state(l.at);
    unsigned i = item_of(id);
    memset(out, 0, sizeof *out);
    out->live = i < L->items && s->targets[i] && !s->deleted[i];
    for (unsigned p = 0; out->live && p < PUBLISHERS; p++) {
        if (s->targets[i] & 1u << p)
            strcpy(out->publisher, targets[p] + 2);
    }
    if (out->live)
        name_topics(s->targets[i], &out->n_topics, out->topics);
    look_end(c, &l, "an item");
    return 0;
}

/* ---- modes, follows ---- */

int __wrap_target_modes_pulled(struct mongo_conn *c, void (*fn)(void *arg, const char *target), void *arg,
                               struct err *e);

int __wrap_target_modes_pulled(struct mongo_conn *c, void (*fn)(void *arg, const char *target), void *arg,
                               struct err *e)
{
    struct look l;
    if (look_begin(c, &l, "modes", e) != 0)
        return -1;
    for (unsigned t = 0; t < TARGETS; t++) {
        if (look_next(&l)->pulled & 1u << t)
            fn(arg, targets[t]);
    }
    look_end(c, &l, "modes");
    return 0;
}

static void add_name(char ***names, size_t *n, const char *name)
{
    *names = mem_grow(*names, *n + 1, sizeof **names);
    (*names)[(*n)++] = mem_strdup(name);
}

int __wrap_follow_set_load(struct mongo_conn *c, const char *user, struct follow_set *out, struct err *e);
int __wrap_follow_set_mutes(struct mongo_conn *c, const char *user, char **out, struct err *e);

int __wrap_follow_set_load(struct mongo_conn *c, const char *user, struct follow_set *out, struct err *e)
{
    struct look l;
    unsigned u = truth_user_of(user);
    if (look_begin(c, &l, "follows", e) != 0)
        return -1;
    memset(out, 0, sizeof *out);
    for (unsigned t = 0; t < TARGETS; t++) {
        if (!(look_next(&l)->follows[u] & 1u << t))
            continue;
        if (t < PUBLISHERS)
            add_name(&out->publishers, &out->n_publishers, targets[t] + 2);
        else
            add_name(&out->topics, &out->n_topics, targets[t] + 2);
    }
    look_end(c, &l, "follows");
    return 0;
}

int __wrap_follow_set_mutes(struct mongo_conn *c, const char *user, char **out, struct err *e)
{
    (void)c;
    (void)user;
    (void)e;
    *out = mem_strdup("");
    return 0;
}

/* ---- audiences ---- */

/* Users stand in the order of (bucket, name). */
static bool is_after(const struct audience *a, unsigned u)
{
    if (!a->begun || world.bucket[u] != a->last.bucket)
        return !a->begun || world.bucket[u] > a->last.bucket;
    return strcmp(world.user[u], a->last.user) > 0;
}

static void put(struct audience_batch *b, unsigned u)
{
    b->at[b->n].bucket = world.bucket[u];
    strcpy(b->at[b->n].user, world.user[u]);
    b->n++;
}

static bool in_range(const struct bucket_range *r, unsigned u)
{
    return world.bucket[u] >= r->first && world.bucket[u] <= r->last;
}

int __wrap_audience_next(struct audience *a, struct mongo_conn *c, struct audience_batch *b, struct err *e);
int __wrap_audience_few(struct mongo_conn *c, const char (*names)[TARGET_TEXT_SIZE], unsigned n,
                        struct bucket_range range, struct audience_batch *b, bool *all, struct err *e);
int __wrap_audience_keep_unmatched(struct mongo_conn *c, struct audience_batch *b,
                                   const char (*names)[TARGET_TEXT_SIZE], unsigned n, struct err *e);
int __wrap_audience_follows(struct mongo_conn *c, const char *const *users, unsigned n,
                            void (*fn)(void *arg, unsigned i, const char *target), void *arg, struct err *e);

int __wrap_audience_next(struct audience *a, struct mongo_conn *c, struct audience_batch *b, struct err *e)
{
    struct look l;
    uint8_t bit = (uint8_t)(1u << truth_target_of(a->target));
    b->n = b->skipped = 0;
    if (a->ended)
        return 0;
    if (look_begin(c, &l, "followers", e) != 0)
        return -1;
    for (unsigned u = 0; u < USERS && b->n < b->cap; u++) {
        if (in_range(&a->range, u) && is_after(a, u) && look_next(&l)->follows[u] & bit)
            put(b, u);
    }
    look_end(c, &l, "followers");
    a->ended = b->n < b->cap;
    if (b->n == 0)
        return 0;
    a->begun = true;
    a->last = b->at[b->n - 1];
    return 1;
}

static uint8_t bits(const char (*names)[TARGET_TEXT_SIZE], unsigned n)
{
    uint8_t all = 0;
    for (unsigned i = 0; i < n; i++)
        all |= (uint8_t)(1u << truth_target_of(names[i]));
    return all;
}

int __wrap_audience_few(struct mongo_conn *c, const char (*names)[TARGET_TEXT_SIZE], unsigned n,
                        struct bucket_range range, struct audience_batch *b, bool *all, struct err *e)
{
    struct look l;
    uint8_t any = bits(names, n);
    b->n = b->skipped = 0;
    *all = true;
    if (look_begin(c, &l, "the few followers", e) != 0)
        return -1;
    for (unsigned u = 0; u < USERS && *all; u++) {
        if (!in_range(&range, u) || !(look_next(&l)->follows[u] & any))
            continue;
        *all = b->n < b->cap;
        if (*all)
            put(b, u);
    }
    look_end(c, &l, "the few followers");
    return 0;
}

int __wrap_audience_keep_unmatched(struct mongo_conn *c, struct audience_batch *b,
                                   const char (*names)[TARGET_TEXT_SIZE], unsigned n, struct err *e)
{
    struct look l;
    uint8_t any = bits(names, n);
    unsigned kept = 0;
    if (look_begin(c, &l, "other follows", e) != 0)
        return -1;
    for (unsigned i = 0; i < b->n; i++) {
        if (!(look_next(&l)->follows[truth_user_of(b->at[i].user)] & any))
            b->at[kept++] = b->at[i];
    }
    b->n = kept;
    look_end(c, &l, "other follows");
    return 0;
}

int __wrap_audience_follows(struct mongo_conn *c, const char *const *users, unsigned n,
                            void (*fn)(void *arg, unsigned i, const char *target), void *arg, struct err *e)
{
    struct look l;
    if (look_begin(c, &l, "follows of the newborn", e) != 0)
        return -1;
    for (unsigned i = 0; i < n; i++) {
        unsigned u = truth_user_of(users[i]);
        for (unsigned t = 0; u < USERS && t < TARGETS; t++) {
            if (look_next(&l)->follows[u] & 1u << t)
                fn(arg, i, targets[t]);
        }
    }
    look_end(c, &l, "follows of the newborn");
    return 0;
}
