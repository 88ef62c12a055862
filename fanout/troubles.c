#include "fanout/troubles.h"

#include <stdlib.h>
#include <string.h>
#include "common/mem.h"

struct troubles {
    struct trouble_list all;
    unsigned n;
};

struct troubles *troubles_new(void)
{
    struct troubles *q = mem_zero(1, sizeof *q);
    TAILQ_INIT(&q->all);
    return q;
}

void troubles_free(struct troubles *q)
{
    if (!q)
        return;
    while (!TAILQ_EMPTY(&q->all))
        troubles_end(q, TAILQ_FIRST(&q->all));
    free(q);
}

/* A call is about a change and a script, whatever bucket of it came first; a timeline is a reader's. */
static bool is_about(const struct trouble *x, enum trouble_kind kind, const struct deliver_failure *about)
{
    if (x->kind != kind || x->about.t != about->t || x->about.item != about->item ||
        x->about.script != about->script)
        return false;
    return kind != TROUBLE_TIMELINE || strcmp(x->about.user, about->user) == 0;
}

static bool holds(const struct trouble *x)
{
    return x->given_up || x->kind == TROUBLE_TIMELINE || x->change || x->task;
}

static struct trouble *find(struct troubles *q, enum trouble_kind kind, const struct deliver_failure *about)
{
    struct trouble *x;
    TAILQ_FOREACH(x, &q->all, entry)
    {
        if (is_about(x, kind, about))
            return x;
    }
    return NULL;
}

/* The oldest memory of tries makes room. */
static bool make_room(struct troubles *q)
{
    struct trouble *x;
    TAILQ_FOREACH(x, &q->all, entry)
    {
        if (!holds(x)) {
            troubles_end(q, x);
            return true;
        }
    }
    return false;
}

static struct trouble *add(struct troubles *q, enum trouble_kind kind, const struct deliver_failure *about,
                           int64_t wall_ms)
{
    if (q->n >= TROUBLES_MAX && !make_room(q))
        return NULL;
    struct trouble *x = mem_zero(1, sizeof *x);
    x->kind = kind;
    x->first_ms = wall_ms;
    x->about = *about;
    TAILQ_INSERT_TAIL(&q->all, x, entry);
    q->n++;
    return x;
}

struct trouble *troubles_note(struct troubles *q, enum trouble_kind kind, const struct deliver_failure *about,
                              enum err_code code, int64_t mono_ms, int64_t wall_ms)
{
    struct trouble *x = find(q, kind, about);
    if (!x)
        x = add(q, kind, about, wall_ms);
    if (!x)
        return NULL;
    x->again = true;
    if (x->given_up)
        return x;
    x->about = *about;
    x->code = code;
    x->tried_ms = mono_ms;
    x->again_ms = mono_ms + ((int64_t)TROUBLE_FIRST_MS << x->tries);
    x->given_up = ++x->tries >= TROUBLE_TRIES;
    if (x->given_up)
        x->again_ms = mono_ms;
    return x;
}

void troubles_end(struct troubles *q, struct trouble *x)
{
    TAILQ_REMOVE(&q->all, x, entry);
    q->n--;
    free(x->change);
    free(x);
}

void troubles_end_task(struct troubles *q, const struct task *k)
{
    struct deliver_failure about = {.t = k->t, .item = k->id};
    struct trouble *x = TAILQ_EMPTY(&q->all) ? NULL : find(q, TROUBLE_TASK, &about);
    if (x && !x->given_up)
        troubles_end(q, x);
}

void troubles_keep(struct trouble *x, const struct change *c)
{
    if (!x->change)
        x->change = mem_zero(1, sizeof *x->change);
    *x->change = *c;
}

void troubles_let_go(struct troubles *q)
{
    struct trouble *x;
    TAILQ_FOREACH(x, &q->all, entry)
    {
        x->task = NULL;
        if (x->given_up)
            continue;
        free(x->change);
        x->change = NULL;
    }
}

struct trouble *troubles_due(struct troubles *q, int64_t mono_ms)
{
    struct trouble *x, *next;
    for (x = TAILQ_FIRST(&q->all); x; x = next) {
        next = TAILQ_NEXT(x, entry);
        if (holds(x)) {
            if (x->again_ms <= mono_ms)
                return x;
        } else if (mono_ms - x->tried_ms > TROUBLE_FADES_MS) {
            troubles_end(q, x);
        }
    }
    return NULL;
}

/* A task holds progress by itself, until it is given up. */
static bool holds_all(const struct trouble *x)
{
    return x->kind != TROUBLE_TIMELINE && (x->given_up || x->change);
}

ts_t troubles_oldest(const struct troubles *q)
{
    const struct trouble *x;
    ts_t oldest = 0;
    TAILQ_FOREACH(x, &q->all, entry)
    {
        if (holds_all(x) && (oldest == 0 || x->about.t < oldest))
            oldest = x->about.t;
    }
    return oldest;
}

bool troubles_held(const struct troubles *q, ts_t held[BUCKETS])
{
    const struct trouble *x;
    bool any = false;
    memset(held, 0, BUCKETS * sizeof *held);
    TAILQ_FOREACH(x, &q->all, entry)
    {
        ts_t *at = &held[x->about.bucket % BUCKETS];
        if (x->kind != TROUBLE_TIMELINE)
            continue;
        if (*at == 0 || x->about.t < *at)
            *at = x->about.t;
        any = true;
    }
    return any;
}

unsigned troubles_count(const struct troubles *q)
{
    const struct trouble *x;
    unsigned n = 0;
    TAILQ_FOREACH(x, &q->all, entry)
    {
        n += holds(x);
    }
    return n;
}
