/* A queue between the loops and a few threads, and a list of finished jobs back to each. */
#include "common/workers.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/admission.h"
#include "common/clock.h"
#include "common/mem.h"
#include "common/wake.h"

#define REDIS_TIMEOUT_MS 1000
#define THREADS_MAX      256
#define QUEUE_MAX        100000

struct job {
    struct job *next;
    struct workers *from;
    worker_run_fn run;
    worker_done_fn done;
    void *arg;
    int64_t deadline;
    int64_t queued_us;
    bool expired;
};

struct job_list {
    struct job *first, *last;
    unsigned n;
};

/* The threads, and what waits for them. */
struct pool {
    struct workers_options o;
    struct redis_address redis;
    unsigned n_threads;
    pthread_t *threads;
    unsigned loops; /* that have it */

    pthread_mutex_t lock; /* of what follows, and of `finished` */
    pthread_cond_t more;
    struct job_list queue;
    unsigned busy;
    int64_t run_us;   /* a job takes */
    int64_t since_us; /* since when somebody has been waiting; 0: nobody waits */
    bool stopping;
};

/* What one loop has of them. */
struct workers {
    struct pool *pool;
    struct wake *wake; /* something is in `finished` */
    struct job_list finished;
};

static void list_add(struct job_list *l, struct job *j)
{
    j->next = NULL;
    if (l->last != NULL)
        l->last->next = j;
    else
        l->first = j;
    l->last = j;
    l->n++;
}

static struct job *list_take(struct job_list *l)
{
    struct job *j = l->first;
    if (j == NULL)
        return NULL;
    l->first = j->next;
    if (l->first == NULL)
        l->last = NULL;
    l->n--;
    return j;
}

/* ---- on a worker's thread ---- */

/* Answers how long it took, 0 when it was too late to begin. */
static int64_t job_run(struct pool *p, struct worker *w, struct job *j)
{
    struct metrics *m = p->o.metrics;
    int64_t begun = clock_mono_us();
    metrics_observe_us(m, p->o.wait_seconds, 0, begun - j->queued_us);
    int64_t left = j->deadline - begun / 1000;
    j->expired = left <= 0;
    if (j->expired) {
        metrics_add(m, p->o.expired, 0, 1);
        return 0;
    }
    /* The pool has a client for each worker, so this neither waits nor fails unless somebody leaks one. */
    if (p->o.mongo != NULL && mongo_conn_get(p->o.mongo, &w->mongo, NULL) < 0)
        w->mongo = NULL;
    if (w->mongo != NULL)
        mongo_conn_deadline(w->mongo, left);
    j->run(w, j->arg);
    mongo_conn_put(w->mongo);
    w->mongo = NULL;
    int64_t us = clock_mono_us() - begun;
    metrics_observe_us(m, p->o.run_seconds, 0, us);
    return us;
}

static void *worker_main(void *arg)
{
    struct pool *p = arg;
    struct worker w = {.app = p->o.app, .redis = redis_new(&p->redis, REDIS_TIMEOUT_MS)};
    pthread_mutex_lock(&p->lock);
    for (;;) {
        struct job *j = list_take(&p->queue);
        if (j == NULL && p->stopping)
            break;
        if (j == NULL) {
            pthread_cond_wait(&p->more, &p->lock);
            continue;
        }
        p->busy++;
        if (p->queue.n == 0)
            p->since_us = 0;
        pthread_mutex_unlock(&p->lock);
        int64_t us = job_run(p, &w, j);
        pthread_mutex_lock(&p->lock);
        p->busy--;
        if (!j->expired)
            p->run_us = admission_run(p->run_us, us);
        bool first = j->from->finished.n == 0;
        list_add(&j->from->finished, j);
        if (first)
            wake_up(j->from->wake);
    }
    pthread_mutex_unlock(&p->lock);
    redis_free(w.redis);
    return NULL;
}

/* ---- on the loop's thread ---- */

/* Takes the finished jobs that are there now; what finishes meanwhile wakes the loop again. */
static void finish_jobs(void *arg)
{
    struct workers *ws = arg;
    pthread_mutex_lock(&ws->pool->lock);
    struct job_list done = ws->finished;
    memset(&ws->finished, 0, sizeof ws->finished);
    pthread_mutex_unlock(&ws->pool->lock);
    for (struct job *j; (j = list_take(&done)) != NULL;) {
        j->done(j->arg, j->expired);
        free(j);
    }
}

/* Ends the threads that were started; everything queued is run (or has expired) first. */
static void join_threads(struct pool *p)
{
    pthread_mutex_lock(&p->lock);
    p->stopping = true;
    pthread_cond_broadcast(&p->more);
    pthread_mutex_unlock(&p->lock);
    for (unsigned i = 0; i < p->n_threads; i++)
        pthread_join(p->threads[i], NULL);
    p->n_threads = 0;
}

static void pool_free(struct pool *p)
{
    pthread_cond_destroy(&p->more);
    pthread_mutex_destroy(&p->lock);
    free(p->threads);
    free(p);
}

static int front_new(struct workers **out, struct pool *p, struct event_base *base, struct err *e)
{
    struct workers *ws = mem_zero(1, sizeof *ws);
    ws->pool = p;
    if (wake_new(&ws->wake, base, finish_jobs, ws, e) != 0) {
        free(ws);
        return -1;
    }
    p->loops++;
    *out = ws;
    return 0;
}

static int start_threads(struct pool *p, struct err *e)
{
    for (; p->n_threads < p->o.threads; p->n_threads++) {
        int rc = pthread_create(&p->threads[p->n_threads], NULL, worker_main, p);
        if (rc != 0)
            return err_set(e, ERR_UNAVAILABLE, "worker thread %u: %s", p->n_threads, strerror(rc));
    }
    return 0;
}

int workers_new(struct workers **out, const struct workers_options *o, struct err *e)
{
    assert(o->threads >= 1 && o->threads <= THREADS_MAX && o->queue_max >= 1 && o->queue_max <= QUEUE_MAX);
    struct pool *p = mem_zero(1, sizeof *p);
    struct workers *ws;
    p->o = *o;
    p->redis = *o->redis;
    p->threads = mem_zero(o->threads, sizeof *p->threads);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->more, NULL);
    if (front_new(&ws, p, o->base, e) != 0) {
        pool_free(p);
        return -1;
    }
    if (start_threads(p, e) != 0) {
        workers_stop(ws);
        return -1;
    }
    *out = ws;
    return 0;
}

int workers_share(struct workers **out, struct workers *of, struct event_base *base, struct err *e)
{
    return front_new(out, of->pool, base, e);
}

void workers_close(struct workers *ws)
{
    if (ws == NULL)
        return;
    join_threads(ws->pool);
    finish_jobs(ws); /* no done() can add another job: stopping refuses it */
}

void workers_stop(struct workers *ws)
{
    if (ws == NULL)
        return;
    struct pool *p = ws->pool;
    workers_close(ws);
    wake_free(ws->wake);
    free(ws);
    if (--p->loops == 0)
        pool_free(p);
}

/* Under the lock. What was signalled and not yet taken by an idle thread is in the queue. */
static bool has_room(const struct pool *p, const struct job *j)
{
    struct admission a = {p->o.threads, p->busy, p->queue.n, p->run_us, p->since_us};
    int64_t now = j->queued_us;
    return p->queue.n < p->o.queue_max &&
           admission_takes(&a, j->deadline * 1000 - now, p->o.wait_ms * 1000, now);
}

int workers_submit(struct workers *ws, int64_t deadline, worker_run_fn run, worker_done_fn done, void *arg,
                   struct err *e)
{
    struct pool *p = ws->pool;
    struct job *j = mem_zero(1, sizeof *j);
    *j = (struct job){
        .from = ws, .run = run, .done = done, .arg = arg, .deadline = deadline, .queued_us = clock_mono_us()};
    pthread_mutex_lock(&p->lock);
    bool stopping = p->stopping;
    bool full = !stopping && !has_room(p, j);
    if (!stopping && !full) {
        list_add(&p->queue, j);
        if (p->since_us == 0)
            p->since_us = j->queued_us;
        pthread_cond_signal(&p->more);
    }
    pthread_mutex_unlock(&p->lock);
    if (!stopping && !full)
        return 0;
    free(j);
    if (stopping)
        return err_set(e, ERR_UNAVAILABLE, "the process is stopping");
    metrics_add(p->o.metrics, p->o.refused, 0, 1);
    return err_set(e, ERR_BUSY, "too many requests wait already");
}

unsigned workers_queued(const struct workers *ws)
{
    pthread_mutex_lock(&ws->pool->lock);
    unsigned n = ws->pool->queue.n;
    pthread_mutex_unlock(&ws->pool->lock);
    return n;
}

unsigned workers_busy(const struct workers *ws)
{
    pthread_mutex_lock(&ws->pool->lock);
    unsigned n = ws->pool->busy;
    pthread_mutex_unlock(&ws->pool->lock);
    return n;
}
