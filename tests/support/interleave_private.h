/* interleave_private.h - the inside of interleave.h: interleave.c (the order, losses, the seed's life),
 * interleave_truth.c (what MongoDB would say), interleave_fanout.c, interleave_feed.c, interleave_scripts.c.
 */
#ifndef FEEDMILL_TESTS_INTERLEAVE_PRIVATE_H
#define FEEDMILL_TESTS_INTERLEAVE_PRIVATE_H

#include <stdint.h>
#include "common/changes.h"
#include "common/ts.h"
#include "tests/support/fiber.h"
#include "tests/support/interleave.h"

#define USERS      4
#define PUBLISHERS 3
#define TARGETS    6 /* the publishers first */
#define ITEMS      64
#define EVENTS     160
#define IDS        2000
#define OWNERS     2
#define FEEDS      2
#define CAP        4
#define HIGH       6
#define PULLED     5   /* items kept of a pulled target */
#define FIRST_TICK 100 /* the time before anything happened */

/* ---- the truth: interleave_truth.c ---- */

struct state {
    uint8_t follows[USERS], pulled; /* bits of targets */
    uint8_t targets[ITEMS];         /* bits of what the item is in; 0: it is not there yet */
    bool deleted[ITEMS];
};

struct truth_log {
    struct state at[EVENTS + 1]; /* at[i]: when the first i events had happened, at tick FIRST_TICK + i */
    struct change events[EVENTS];
    unsigned n, items;
    item_id id[ITEMS];
    uint8_t was[ITEMS]; /* the topics before the last edit */
    item_id newest;
};

/* What stands for a client of MongoDB. */
struct mongo_conn {
    ts_t after, time;
};

ts_t truth_now(void);
const struct state *truth_state(ts_t t);
unsigned truth_user_of(const char *name); /* USERS: nobody */
const char *truth_target(unsigned target);
unsigned truth_target_of(const char *text); /* TARGETS: none */
void truth_begin(void);
void truth_happens(void); /* the next event */
void truth_beats(void);   /* ... nothing but time passes */

/* ---- the world: interleave.c ---- */

struct world {
    bool on; /* a seed is being lived through */
    bool ending;
    uint64_t random;
    int64_t clock_ms;
    struct redis_address address;
    struct redis *redis; /* of the test itself */
    struct truth_log truth;
    char user[USERS][16];
    unsigned bucket[USERS], shares[2];
    struct {
        unsigned publish, edit, erase, graph, turn, beat; /* how often which */
        /* percent: of new items, of all edges, of what is done to the same again, of what is waited for */
        unsigned late, follows, hot, slow;
        unsigned wait;    /* turns that this takes at most */
        unsigned lag;     /* progress that is further behind is waited for */
        unsigned evicted; /* percent of pages before which their timeline goes */
    } mix;
    unsigned fail_reads; /* one of so many reads of the truth fails; 0: none does */
    bool touched;        /* Redis was, since the timelines were judged */
    struct interleave_counts *counts;
    char why[400];
};

extern struct world world;

unsigned roll(unsigned n); /* 0 to n - 1 */
bool chance(unsigned percent);
void history(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void wrong(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* the first one counts */
void wait_turn(void);

bool feed_is_slow(unsigned p);
void timeline_goes(unsigned user); /* it expires, or has to make room */

/* Connections outlive seeds: connecting loads all scripts. */
struct redis *connection_take(void);
void connection_give(struct redis *r);
void connections_close(void);

/* ---- fanouts: interleave_fanout.c ---- */

void owners_begin(void);
bool owner_step(unsigned o); /* false: it has ended */
void owners_leases(void);    /* a share changes hands, or somebody hears of it */
void owner_loses_answers(unsigned o);
void owners_settle(void);  /* everybody hears of who has what; nothing changes hands any more */
unsigned owners_lag(void); /* how many events the least progress is behind */
bool owners_done(void);    /* all is applied and progress written, as far as they know */
void owners_stop(void);
void owners_end(void);

/* ---- feed-apis: interleave_feed.c ---- */

void feeds_begin(void);
bool feed_step(unsigned p); /* the worker that makes pages */
void feed_tail_step(unsigned p);
bool feed_tail_done(unsigned p);
void feed_hears_of_own(unsigned p, unsigned user, ts_t t);
void feeds_load(void);        /* reads what is pulled, for the last judgement */
void feeds_judge(bool exact); /* all timelines; exact: they hold just what the truth holds now */
void feeds_stop(void);
void feeds_end(void);

#endif
