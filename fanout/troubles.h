/* troubles.h - what could not be applied, though all servers are there: how often it was tried, and when it
 * is tried again.
 *
 * A trouble is found again by what it is about, so that its tries count on when the log is read again from an
 * earlier point. While something is kept for it (a change, a task, a timeline of its own) it holds progress
 * below its time, of one bucket or of all; without that it is only a memory of tries, which fades after a
 * minute. Tried TROUBLE_TRIES times it is given up: engine_troubles.c then writes a dead letter and lets go.
 *
 * Bounded by TROUBLES_MAX. Pure bookkeeping: no I/O, no clock. Engine thread only.
 */
#ifndef FEEDMILL_FANOUT_TROUBLES_H
#define FEEDMILL_FANOUT_TROUBLES_H

#include <sys/queue.h>
#include "common/changes.h"
#include "fanout/deliver.h"
#include "fanout/tasks.h"

#define TROUBLES_MAX     1000
#define TROUBLE_TRIES    5
#define TROUBLE_FIRST_MS 100   /* until the second try; doubled each time: 1.5 s in all */
#define TROUBLE_FADES_MS 60000 /* a memory of tries */

enum trouble_kind {
    TROUBLE_READ,     /* it can't be read whom a change of an item is for */
    TROUBLE_TASK,     /* followers could not be read, of a task that rests meanwhile */
    TROUBLE_TIMELINE, /* one timeline takes no item; all else goes on */
    TROUBLE_CALL, /* a whole call of a script failed: the shares are adopted again, the log tells it again */
};

struct trouble {
    TAILQ_ENTRY(trouble) entry;
    enum trouble_kind kind;
    struct deliver_failure
        about; /* script and bucket: of TROUBLE_TIMELINE and TROUBLE_CALL; user: where known */
    enum err_code code;
    unsigned tries;
    int64_t first_ms; /* wall clock of the first try */
    int64_t tried_ms; /* monotonic: of the last one */
    int64_t again_ms; /* monotonic: not before */
    bool given_up;    /* a letter is to be written */
    bool again;       /* it failed since it was tried */

    struct change *change; /* owned: to be read again; or what a letter needs to know of it; NULL: nothing */
    struct task *task;     /* borrowed, TROUBLE_TASK: it rests */
};

TAILQ_HEAD(trouble_list, trouble);

struct troubles;

struct troubles *troubles_new(void);
void troubles_free(struct troubles *q);

/* troubles_note() counts a try of what `about` says that failed: a new trouble, or one more try of the one
 * that is there. It is given up at the last one. NULL: there are TROUBLES_MAX that hold something. */
struct trouble *troubles_note(struct troubles *q, enum trouble_kind kind, const struct deliver_failure *about,
                              enum err_code code, int64_t mono_ms, int64_t wall_ms);

/* troubles_end() forgets one; troubles_end_task() the one of a task that went through after all. */
void troubles_end(struct troubles *q, struct trouble *x);
void troubles_end_task(struct troubles *q, const struct task *k);

/* troubles_keep() has a copy of the change kept. */
void troubles_keep(struct trouble *x, const struct change *c);

/* troubles_let_go() is for when the log is read again from an earlier point: what was kept of changes and
 * tasks is told again. What was given up stays. */
void troubles_let_go(struct troubles *q);

/* troubles_due() answers the next one that is to be tried or given up now, NULL when there is none. Memories
 * of tries that have faded are forgotten. */
struct trouble *troubles_due(struct troubles *q, int64_t mono_ms);

/* troubles_oldest() answers the least time that holds progress everywhere, 0: none does. troubles_held()
 * writes those that hold a bucket, 0 for none, and answers whether any does. */
ts_t troubles_oldest(const struct troubles *q);
bool troubles_held(const struct troubles *q, ts_t held[BUCKETS]);

unsigned troubles_count(const struct troubles *q); /* that hold something */

#endif
