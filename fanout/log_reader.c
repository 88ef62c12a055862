#include "fanout/log_reader.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "common/clock.h"
#include "common/mem.h"

#define FAILED_PAUSE_MS 10 /* the tail backs off by itself when mongod is gone, but not after every error */

/* Each change carries what was complete after it was read, so that completeness is known for what was handed
 * out and not for what the thread has read since. */
struct entry {
    struct change change;
    ts_t complete;
};

struct log_reader {
    struct changes *log; /* the thread's, once it runs */
    unsigned cap;
    struct entry *ring;
    pthread_t thread;

    pthread_mutex_t lock; /* guards what follows; never held over I/O */
    pthread_cond_t more;  /* the consumer waits for a change or an error */
    pthread_cond_t room;  /* the thread waits for room, or to be stopped */
    bool stop;
    uint64_t put, taken; /* changes so far; put - taken are queued, number i is at ring[i % cap] */
    ts_t complete;       /* as of the last one taken */
    bool down;           /* the last look at the log failed */
    bool has_failed;     /* `failed` is to be told when `failed_after` changes were taken */
    uint64_t failed_after;
    struct err failed;
    bool lost; /* the thread has ended; `why_lost` comes after all else */
    struct err why_lost;
};

static unsigned queued(const struct log_reader *r)
{
    return (unsigned)(r->put - r->taken);
}

/* ---- the thread ---- */

/* The next free place, which is the thread's alone until it is put; NULL: to be stopped. Once full it waits
 * for half of the queue, and is not woken for each change taken. */
static struct entry *wait_for_room(struct log_reader *r)
{
    struct entry *free_one = NULL;
    pthread_mutex_lock(&r->lock);
    if (queued(r) == r->cap) {
        while (!r->stop && queued(r) > r->cap / 2)
            pthread_cond_wait(&r->room, &r->lock);
    }
    if (!r->stop)
        free_one = &r->ring[r->put % r->cap];
    pthread_mutex_unlock(&r->lock);
    return free_one;
}

static void note_read(struct log_reader *r, bool with_change)
{
    pthread_mutex_lock(&r->lock);
    r->down = false;
    if (with_change) {
        r->put++;
        if (queued(r) == 1)
            pthread_cond_signal(&r->more);
    }
    pthread_mutex_unlock(&r->lock);
}

/* Answers whether to go on. */
static bool note_failed(struct log_reader *r, const struct err *why)
{
    struct timespec until;
    pthread_mutex_lock(&r->lock);
    if (why->code == ERR_LOG_LOST) {
        r->lost = true;
        r->why_lost = *why;
    } else if (!r->down && !r->has_failed) {
        r->has_failed = true;
        r->failed = *why;
        r->failed_after = r->put;
    }
    r->down = true;
    pthread_cond_signal(&r->more);
    until = clock_deadline_in(FAILED_PAUSE_MS);
    while (!r->stop && !r->lost) {
        if (pthread_cond_timedwait(&r->room, &r->lock, &until) != 0)
            break;
    }
    bool go_on = !r->lost;
    pthread_mutex_unlock(&r->lock);
    return go_on;
}

static void *thread_main(void *arg)
{
    struct log_reader *r = arg;
    bool go_on = true;
    while (go_on) {
        struct err e;
        struct entry *at = wait_for_room(r);
        if (at == NULL)
            break;
        int rc = changes_next(r->log, &at->change, &e);
        if (rc < 0) {
            go_on = note_failed(r, &e);
            continue;
        }
        at->complete = changes_complete(r->log);
        note_read(r, rc > 0);
    }
    return NULL;
}

/* ---- opening and closing ---- */

static void reader_free(struct log_reader *r)
{
    changes_close(r->log);
    pthread_cond_destroy(&r->room);
    pthread_cond_destroy(&r->more);
    pthread_mutex_destroy(&r->lock);
    free(r->ring);
    free(r);
}

static struct log_reader *reader_new(unsigned cap)
{
    struct log_reader *r = mem_zero(1, sizeof *r);
    r->cap = cap;
    r->ring = mem_zero(cap, sizeof *r->ring);
    pthread_mutex_init(&r->lock, NULL);
    pthread_condattr_t a;
    pthread_condattr_init(&a);
    pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
    pthread_cond_init(&r->more, &a);
    pthread_cond_init(&r->room, &a);
    pthread_condattr_destroy(&a);
    return r;
}

int log_reader_open(struct log_reader **out, const struct log_reader_options *o, struct err *e)
{
    assert(o->cap >= 1 && o->cap <= LOG_READER_CAP_MAX);
    struct log_reader *r = reader_new(o->cap);
    struct changes_options log = {.mongo = o->mongo,
                                  .instance = o->instance,
                                  .kinds = o->kinds,
                                  .start = o->start,
                                  .tell_items = o->tell_items};
    if (changes_open(&r->log, &log, e) < 0) {
        reader_free(r);
        return -1;
    }
    r->complete = changes_complete(r->log);
    int rc = pthread_create(&r->thread, NULL, thread_main, r);
    if (rc != 0) {
        reader_free(r);
        return err_set(e, ERR_UNAVAILABLE, "no thread for the log: %s", strerror(rc));
    }
    *out = r;
    return 0;
}

void log_reader_close(struct log_reader *r)
{
    if (r == NULL)
        return;
    pthread_mutex_lock(&r->lock);
    r->stop = true;
    pthread_cond_signal(&r->room);
    pthread_mutex_unlock(&r->lock);
    pthread_join(r->thread, NULL);
    reader_free(r);
}

/* ---- the consumer ---- */

static bool has_news(const struct log_reader *r)
{
    return queued(r) > 0 || r->has_failed || r->lost;
}

static void take(struct log_reader *r, struct change *out)
{
    const struct entry *first = &r->ring[r->taken % r->cap];
    *out = first->change;
    r->complete = first->complete;
    r->taken++;
    if (queued(r) == r->cap / 2)
        pthread_cond_signal(&r->room);
}

/* An error is told where it happened: after what was read before it, before what was read since. */
static int take_news(struct log_reader *r, struct change *out, struct err *e)
{
    if (r->has_failed && r->taken == r->failed_after) {
        r->has_failed = false;
        *e = r->failed;
        return -1;
    }
    if (queued(r) > 0) {
        take(r, out);
        return 1;
    }
    if (!r->lost)
        return 0;
    *e = r->why_lost;
    return -1;
}

int log_reader_next(struct log_reader *r, struct change *out, int64_t wait_ms, struct err *e)
{
    struct timespec until;
    pthread_mutex_lock(&r->lock);
    if (wait_ms > 0 && !has_news(r)) {
        until = clock_deadline_in(wait_ms);
        while (!has_news(r) && pthread_cond_timedwait(&r->more, &r->lock, &until) == 0) {
        }
    }
    int rc = take_news(r, out, e);
    pthread_mutex_unlock(&r->lock);
    return rc;
}

ts_t log_reader_complete(struct log_reader *r)
{
    pthread_mutex_lock(&r->lock);
    ts_t t = r->complete;
    pthread_mutex_unlock(&r->lock);
    return t;
}

unsigned log_reader_queued(struct log_reader *r)
{
    pthread_mutex_lock(&r->lock);
    unsigned n = queued(r);
    pthread_mutex_unlock(&r->lock);
    return n;
}

bool log_reader_down(struct log_reader *r)
{
    pthread_mutex_lock(&r->lock);
    bool down = r->down;
    pthread_mutex_unlock(&r->lock);
    return down;
}
