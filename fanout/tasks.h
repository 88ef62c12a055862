/* tasks.h - the changes that are being delivered: one task each, in a queue a publisher, and publishers take
 * turns.
 *
 * A publisher's tasks run one after the other, in the order of the log; between publishers nobody waits for
 * another's audience, nor for one who publishes without pause: each turn is one slice of work. A finished
 * task is kept until tasks_sweep(): who gets a timeline until then may have to be given its item too (see
 * engine_births.c). Engine thread only; the caller bounds how many there are.
 */
#ifndef FEEDMILL_FANOUT_TASKS_H
#define FEEDMILL_FANOUT_TASKS_H

#include <sys/queue.h>
#include "fanout/audience.h"
#include "fanout/lists.h"
#include "fanout/plan.h"

enum task_state { TASK_WAITING, TASK_BEGUN, TASK_DONE };

/* Where the delivering stands; apply.c's. */
struct task_work {
    bool whole;      /* to all followers, since it is not known who has a timeline */
    bool started;    /* the present target */
    unsigned target; /* the present one of `targets` */
    uint32_t mark;   /* of the readers whom it has met */
    ts_t last;       /* its time, or that of the last one that is done with it */
    unsigned bucket; /* where the next range begins */
    bool in_range;
    struct audience audience; /* reading from MongoDB ... */
    struct list *loading;     /* ... and filling this */
    struct list *list;        /* or walking this, which is pinned */
    size_t at, retired;
};

struct task {
    TAILQ_ENTRY(task) in_log;
    TAILQ_ENTRY(task) in_turn;
    struct turn *turn;
    enum task_state state;
    enum plan_what what;
    ts_t t;
    item_id id;
    int64_t read_us;     /* monotonic: when it was read from the log */
    struct task *leader; /* it is done together with this one, which is before it in the queue */
    struct task_work work;
    unsigned n_add, n_remove; /* of targets: the first, and those behind them */
    struct task_target {
        uint32_t hash; /* readers_hash() */
        bool pulled;   /* of the first n_add: its followers are not delivered to */
        const char *text;
    } targets[];
};

TAILQ_HEAD(task_list, task);

struct tasks;

struct tasks *tasks_new(void);
void tasks_free(struct tasks *q);

/* tasks_add() takes what the plan says (copied) to the end of the publisher's queue (less than
 * TARGET_TEXT_SIZE bytes: the turns of a target have a queue of their own). A time before others is fine: the
 * order of the log is kept. */
void tasks_add(struct tasks *q, const char *publisher, const struct plan *p, int64_t now_us);

/* tasks_next() turns to the next publisher and answers the first of his unfinished tasks; NULL: there is
 * none. */
struct task *tasks_next(struct tasks *q);

void tasks_done(struct tasks *q, struct task *k);

/* tasks_rest() has the publisher of an unfinished task pause, with all that he has, until tasks_go_on().
 * tasks_ready() says whether tasks_next() has one. */
void tasks_rest(struct tasks *q, struct task *k);
void tasks_go_on(struct tasks *q, struct task *k);
bool tasks_ready(const struct tasks *q);

/* tasks_restart() makes all tasks wait again, the finished ones too, in their order. */
void tasks_restart(struct tasks *q);

void tasks_sweep(struct tasks *q); /* frees the finished */
void tasks_clear(struct tasks *q); /* frees all */

struct task_list *tasks_all(struct tasks *q); /* in the order of the log */
unsigned tasks_unfinished(const struct tasks *q);
unsigned tasks_finished(const struct tasks *q);

/* tasks_oldest() answers the least time of an unfinished one; 0: there is none. */
ts_t tasks_oldest(const struct tasks *q);

#endif
