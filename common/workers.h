/* workers.h - the few threads that may block: MongoDB and synchronous Redis, behind one bounded queue, into
 * which only what can be done in time is taken.
 *
 * Each process that has them has its own struct app (opaque here). workers_submit() is called on the loop's
 * thread; run() is called on a worker's thread with that worker's clients; done() is called on the thread of
 * the same loop afterwards. Several loops may have the same threads (workers_share()). A job whose deadline
 * passed while it waited is not run: done() is told so by expired. A job that was accepted always gets its
 * done(), also while draining.
 */
#ifndef FEEDMILL_COMMON_WORKERS_H
#define FEEDMILL_COMMON_WORKERS_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include "common/metrics.h"
#include "common/mongo.h"
#include "common/redis.h"

struct app;

struct worker {
    struct app *app;
    struct mongo_conn
        *mongo; /* checked out for this job, its deadline set to the job's; NULL when none could be had */
    struct redis *redis; /* the worker's own, always there (may be disconnected) */
};

typedef void (*worker_run_fn)(struct worker *w, void *arg);
typedef void (*worker_done_fn)(void *arg, bool expired);

struct workers;

struct workers_options {
    struct app *app; /* the process's own, handed to run() in the worker; may be NULL */
    struct event_base *base;
    struct mongo *mongo; /* the pool needs a client for each thread; NULL: none is checked out */
    const struct redis_address *redis; /* copied */
    unsigned threads;                  /* 1 to 256 */
    unsigned queue_max;                /* jobs that may wait, 1 to 100,000 */
    int64_t wait_ms; /* a job may have to wait in a queue that stands (admission.h); 0: up to its deadline */
    struct metrics *metrics;          /* may be NULL; and its rows: */
    size_t wait_seconds, run_seconds; /* histograms: in the queue, at work */
    size_t expired, refused;          /* counters: not run in time, not taken */
};

/* workers_new() makes the threads. ERR_UNAVAILABLE, ERR_INTERNAL. */
int workers_new(struct workers **out, const struct workers_options *o, struct err *e) MUST_USE;

/* workers_share() gives another loop the same threads and queue; `base` of the options was the first one's.
 * When no loop runs yet. */
int workers_share(struct workers **out, struct workers *of, struct event_base *base, struct err *e) MUST_USE;

/* workers_close() finishes what is queued (or lets it expire), joins the threads and calls every done() of
 * this loop; from then on workers_submit() refuses. workers_stop() does the same and frees w; the last one
 * frees the rest. When no loop runs any more, and workers_close() of all of them before the first
 * workers_stop(). NULL is a no-op for both. */
void workers_close(struct workers *w);
void workers_stop(struct workers *w);

/* workers_submit() queues a job; arg stays the caller's. deadline is on clock_mono_ms(). ERR_BUSY when the
 * queue is full or the job can't be done in time (admission.h), ERR_UNAVAILABLE while stopping: answer 503
 * with Retry-After; done() is not called then. */
int workers_submit(struct workers *w, int64_t deadline, worker_run_fn run, worker_done_fn done, void *arg,
                   struct err *e) MUST_USE;
unsigned workers_queued(const struct workers *w); /* jobs that wait; any thread */
unsigned workers_busy(const struct workers *w);   /* jobs that run; any thread */

#endif
