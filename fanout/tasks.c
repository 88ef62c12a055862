#include "fanout/tasks.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "common/mem.h"

#define CHAINS 1024

/* A publisher with tasks. */
struct turn {
    struct turn *chain;
    TAILQ_ENTRY(turn) ring; /* while it has unfinished ones */
    struct task_list tasks; /* the unfinished */
    unsigned n;             /* finished ones too */
    bool rests;             /* not in the ring, though it has unfinished ones */
    uint32_t hash;
    char publisher[TARGET_TEXT_SIZE];
};

struct tasks {
    struct task_list all;
    TAILQ_HEAD(, turn) ring;
    struct turn *chains[CHAINS];
    unsigned unfinished, finished;
};

struct tasks *tasks_new(void)
{
    struct tasks *q = mem_zero(1, sizeof *q);
    TAILQ_INIT(&q->all);
    TAILQ_INIT(&q->ring);
    return q;
}

void tasks_free(struct tasks *q)
{
    if (!q)
        return;
    tasks_clear(q);
    free(q);
}

static struct turn *turn_of(struct tasks *q, const char *publisher)
{
    uint32_t hash = readers_hash(publisher);
    struct turn **at = &q->chains[hash % CHAINS];
    for (; *at; at = &(*at)->chain) {
        if ((*at)->hash == hash && strcmp((*at)->publisher, publisher) == 0)
            return *at;
    }
    struct turn *t = *at = mem_zero(1, sizeof *t);
    t->hash = hash;
    strcpy(t->publisher, publisher);
    TAILQ_INIT(&t->tasks);
    return t;
}

static void leave_turn(struct tasks *q, struct turn *t)
{
    if (--t->n > 0)
        return;
    struct turn **at = &q->chains[t->hash % CHAINS];
    while (*at != t)
        at = &(*at)->chain;
    *at = t->chain;
    free(t);
}

static void wait_for_turn(struct tasks *q, struct task *k, bool at_the_end)
{
    struct turn *t = k->turn;
    if (TAILQ_EMPTY(&t->tasks) && !t->rests)
        TAILQ_INSERT_TAIL(&q->ring, t, ring);
    if (at_the_end)
        TAILQ_INSERT_TAIL(&t->tasks, k, in_turn);
    else
        TAILQ_INSERT_HEAD(&t->tasks, k, in_turn);
    k->state = TASK_WAITING;
    q->unfinished++;
}

/* One that could not be read at first comes late. */
static void insert_by_time(struct tasks *q, struct task *k)
{
    struct task *before = TAILQ_LAST(&q->all, task_list);
    while (before && before->t > k->t)
        before = TAILQ_PREV(before, task_list, in_log);
    if (before)
        TAILQ_INSERT_AFTER(&q->all, before, k, in_log);
    else
        TAILQ_INSERT_HEAD(&q->all, k, in_log);
}

void tasks_add(struct tasks *q, const char *publisher, const struct plan *p, int64_t now_us)
{
    assert(strlen(publisher) < TARGET_TEXT_SIZE);
    unsigned n = p->n_add + p->n_remove;
    size_t size = sizeof(struct task) + n * sizeof(struct task_target), text = size;
    for (unsigned i = 0; i < n; i++)
        size += strlen(i < p->n_add ? p->add[i] : p->remove[i - p->n_add]) + 1;
    struct task *k = mem_zero(1, size);
    for (unsigned i = 0; i < n; i++) {
        const char *target = i < p->n_add ? p->add[i] : p->remove[i - p->n_add];
        k->targets[i] = (struct task_target){
            .hash = readers_hash(target),
            .pulled = i < p->n_add && p->pulled[i],
            .text = strcpy((char *)k + text, target),
        };
        text += strlen(target) + 1;
    }
    k->what = p->what;
    k->t = p->t;
    k->id = p->id;
    k->n_add = p->n_add;
    k->n_remove = p->n_remove;
    k->read_us = now_us;
    k->turn = turn_of(q, publisher);
    k->turn->n++;
    insert_by_time(q, k);
    wait_for_turn(q, k, true);
}

struct task *tasks_next(struct tasks *q)
{
    struct turn *t = TAILQ_FIRST(&q->ring);
    if (!t)
        return NULL;
    TAILQ_REMOVE(&q->ring, t, ring);
    TAILQ_INSERT_TAIL(&q->ring, t, ring);
    return TAILQ_FIRST(&t->tasks);
}

static void leave_queue(struct tasks *q, struct task *k)
{
    struct turn *t = k->turn;
    TAILQ_REMOVE(&t->tasks, k, in_turn);
    if (TAILQ_EMPTY(&t->tasks)) {
        if (!t->rests)
            TAILQ_REMOVE(&q->ring, t, ring);
        t->rests = false;
    }
    q->unfinished--;
}

void tasks_rest(struct tasks *q, struct task *k)
{
    assert(k->state != TASK_DONE);
    if (!k->turn->rests)
        TAILQ_REMOVE(&q->ring, k->turn, ring);
    k->turn->rests = true;
}

void tasks_go_on(struct tasks *q, struct task *k)
{
    if (k->turn->rests)
        TAILQ_INSERT_TAIL(&q->ring, k->turn, ring);
    k->turn->rests = false;
}

bool tasks_ready(const struct tasks *q)
{
    return !TAILQ_EMPTY(&q->ring);
}

void tasks_done(struct tasks *q, struct task *k)
{
    assert(k->state != TASK_DONE);
    leave_queue(q, k);
    k->state = TASK_DONE;
    q->finished++;
}

void tasks_restart(struct tasks *q)
{
    struct task *k;
    TAILQ_FOREACH_REVERSE(k, &q->all, task_list, in_log)
    {
        if (k->state == TASK_DONE) {
            q->finished--;
            wait_for_turn(q, k, false);
        }
        k->state = TASK_WAITING;
        k->leader = NULL;
    }
}

static void end_task(struct tasks *q, struct task *k)
{
    if (k->state == TASK_DONE)
        q->finished--;
    else
        leave_queue(q, k);
    TAILQ_REMOVE(&q->all, k, in_log);
    leave_turn(q, k->turn);
    free(k);
}

void tasks_sweep(struct tasks *q)
{
    struct task *k, *next;
    for (k = TAILQ_FIRST(&q->all); k && q->finished > 0; k = next) {
        next = TAILQ_NEXT(k, in_log);
        if (k->state == TASK_DONE)
            end_task(q, k);
    }
}

void tasks_clear(struct tasks *q)
{
    while (!TAILQ_EMPTY(&q->all))
        end_task(q, TAILQ_FIRST(&q->all));
}

struct task_list *tasks_all(struct tasks *q)
{
    return &q->all;
}

unsigned tasks_unfinished(const struct tasks *q)
{
    return q->unfinished;
}

unsigned tasks_finished(const struct tasks *q)
{
    return q->finished;
}

ts_t tasks_oldest(const struct tasks *q)
{
    const struct task *k;
    TAILQ_FOREACH(k, &q->all, in_log)
    {
        if (k->state != TASK_DONE)
            return k->t;
    }
    return 0;
}
