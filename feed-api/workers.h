/* workers.h - the few threads that may block: MongoDB and synchronous Redis, behind one bounded queue.
 *
 * Owned by the app. workers_submit() is called on the loop's thread; run() is called on a worker's thread
 * with that worker's clients; done() is called on the loop's thread afterwards. A job whose deadline passed
 * while it waited is not run: done() is told so by expired. A job that was accepted always gets its done(),
 * also while draining.
 */
#ifndef FEEDMILL_WORKERS_H
#define FEEDMILL_WORKERS_H

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

/* workers_start() makes threads (1 to 256) and a queue of queue_max jobs (1 to 100,000). The redis address
 * and mongo pool are the app's. */
int workers_start(struct workers **out, struct app *app, unsigned threads, unsigned queue_max,
                  struct err *e) MUST_USE;

/* workers_stop() finishes what is queued (or lets it expire), joins the threads and calls every done(). On
 * the loop's thread, when the loop does not run. NULL is a no-op. */
void workers_stop(struct workers *w);

/* workers_submit() queues a job; arg stays the caller's. deadline is on clock_mono_ms(). ERR_BUSY when the
 * queue is full, ERR_UNAVAILABLE while stopping: answer 503 with Retry-After; done() is not called then. */
int workers_submit(struct workers *w, int64_t deadline, worker_run_fn run, worker_done_fn done, void *arg,
                   struct err *e) MUST_USE;
unsigned workers_queued(const struct workers *w); /* jobs that wait; any thread */
unsigned workers_busy(const struct workers *w);   /* jobs that run; any thread */

#endif
