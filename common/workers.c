/* A queue between the loop and a few threads, and a list of finished jobs back. The loop is woken through an
 * eventfd rather than by activating an event from another thread, so that its event base needs no locks. */
#include "common/workers.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/mem.h"

#define REDIS_TIMEOUT_MS 1000
#define THREADS_MAX      256
#define QUEUE_MAX        100000

struct job {
    struct job *next;
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

struct workers {
    struct workers_options o;
    struct redis_address redis;
    unsigned n_threads;
    pthread_t *threads;
    int wake_fd;        /* an eventfd: something is in `finished` */
    struct event *wake; /* on the loop */

    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t more;
    struct job_list queue, finished;
    unsigned busy;
    bool stopping;
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

static void job_run(struct workers *ws, struct worker *w, struct job *j)
{
    struct metrics *m = ws->o.metrics;
    int64_t begun = clock_mono_us();
    metrics_observe_us(m, ws->o.wait_seconds, 0, begun - j->queued_us);
    int64_t left = j->deadline - begun / 1000;
    j->expired = left <= 0;
    if (j->expired) {
        metrics_add(m, ws->o.expired, 0, 1);
        return;
    }
    /* The pool has a client for each worker, so this neither waits nor fails unless somebody leaks one. */
    if (ws->o.mongo != NULL && mongo_conn_get(ws->o.mongo, &w->mongo, NULL) < 0)
        w->mongo = NULL;
    if (w->mongo != NULL)
        mongo_conn_deadline(w->mongo, left);
    j->run(w, j->arg);
    mongo_conn_put(w->mongo);
    w->mongo = NULL;
    metrics_observe_us(m, ws->o.run_seconds, 0, clock_mono_us() - begun);
}

static void wake_loop(struct workers *ws)
{
    uint64_t one = 1;
    ssize_t n;
    do {
        n = write(ws->wake_fd, &one, sizeof one);
    } while (n < 0 && errno == EINTR);
    assert(n == (ssize_t)sizeof one || errno == EAGAIN); /* EAGAIN: the counter is full, so it is awake */
}

static void *worker_main(void *arg)
{
    struct workers *ws = arg;
    struct worker w = {.app = ws->o.app, .redis = redis_new(&ws->redis, REDIS_TIMEOUT_MS)};
    pthread_mutex_lock(&ws->lock);
    for (;;) {
        struct job *j = list_take(&ws->queue);
        if (j == NULL && ws->stopping)
            break;
        if (j == NULL) {
            pthread_cond_wait(&ws->more, &ws->lock);
            continue;
        }
        ws->busy++;
        pthread_mutex_unlock(&ws->lock);
        job_run(ws, &w, j);
        pthread_mutex_lock(&ws->lock);
        ws->busy--;
        bool first = ws->finished.n == 0;
        list_add(&ws->finished, j);
        if (first)
            wake_loop(ws);
    }
    pthread_mutex_unlock(&ws->lock);
    redis_free(w.redis);
    return NULL;
}

/* ---- on the loop's thread ---- */

/* Takes the finished jobs that are there now; what finishes meanwhile wakes the loop again. */
static void finish_jobs(struct workers *ws)
{
    pthread_mutex_lock(&ws->lock);
    struct job_list done = ws->finished;
    memset(&ws->finished, 0, sizeof ws->finished);
    pthread_mutex_unlock(&ws->lock);
    for (struct job *j; (j = list_take(&done)) != NULL;) {
        j->done(j->arg, j->expired);
        free(j);
    }
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    uint64_t count;
    ssize_t n = read(fd, &count, sizeof count);
    (void)n; /* EAGAIN is fine: somebody else has emptied it */
    finish_jobs(arg);
}

/* Ends the threads that were started; everything queued is run (or has expired) first. */
static void join_threads(struct workers *ws)
{
    pthread_mutex_lock(&ws->lock);
    ws->stopping = true;
    pthread_cond_broadcast(&ws->more);
    pthread_mutex_unlock(&ws->lock);
    for (unsigned i = 0; i < ws->n_threads; i++)
        pthread_join(ws->threads[i], NULL);
    ws->n_threads = 0;
}

static void workers_free(struct workers *ws)
{
    if (ws->wake != NULL)
        event_free(ws->wake);
    if (ws->wake_fd >= 0)
        close(ws->wake_fd);
    pthread_cond_destroy(&ws->more);
    pthread_mutex_destroy(&ws->lock);
    free(ws->threads);
    free(ws);
}

int workers_new(struct workers **out, const struct workers_options *o, struct err *e)
{
    unsigned threads = o->threads;
    assert(threads >= 1 && threads <= THREADS_MAX && o->queue_max >= 1 && o->queue_max <= QUEUE_MAX);
    struct workers *ws = mem_zero(1, sizeof *ws);
    ws->o = *o;
    ws->redis = *o->redis;
    ws->threads = mem_zero(threads, sizeof *ws->threads);
    pthread_mutex_init(&ws->lock, NULL);
    pthread_cond_init(&ws->more, NULL);
    ws->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (ws->wake_fd < 0) {
        err_set(e, ERR_UNAVAILABLE, "eventfd: %s", strerror(errno));
        goto fail;
    }
    ws->wake = event_new(o->base, ws->wake_fd, EV_READ | EV_PERSIST, on_wake, ws);
    if (ws->wake == NULL || event_add(ws->wake, NULL) != 0) {
        err_set(e, ERR_INTERNAL, "the loop takes no event for the workers");
        goto fail;
    }
    for (; ws->n_threads < threads; ws->n_threads++) {
        int rc = pthread_create(&ws->threads[ws->n_threads], NULL, worker_main, ws);
        if (rc != 0) {
            err_set(e, ERR_UNAVAILABLE, "worker thread %u: %s", ws->n_threads, strerror(rc));
            goto fail;
        }
    }
    *out = ws;
    return 0;
fail:
    join_threads(ws);
    workers_free(ws);
    return -1;
}

void workers_close(struct workers *ws)
{
    if (ws == NULL)
        return;
    join_threads(ws);
    finish_jobs(ws); /* no done() can add another job: stopping refuses it */
}

void workers_stop(struct workers *ws)
{
    if (ws == NULL)
        return;
    workers_close(ws);
    workers_free(ws);
}

int workers_submit(struct workers *ws, int64_t deadline, worker_run_fn run, worker_done_fn done, void *arg,
                   struct err *e)
{
    pthread_mutex_lock(&ws->lock);
    bool stopping = ws->stopping;
    bool full = ws->queue.n >= ws->o.queue_max;
    if (!stopping && !full) {
        struct job *j = mem_zero(1, sizeof *j);
        *j = (struct job){
            .run = run, .done = done, .arg = arg, .deadline = deadline, .queued_us = clock_mono_us()};
        list_add(&ws->queue, j);
        pthread_cond_signal(&ws->more);
    }
    pthread_mutex_unlock(&ws->lock);
    if (stopping)
        return err_set(e, ERR_UNAVAILABLE, "the process is stopping");
    if (full) {
        metrics_add(ws->o.metrics, ws->o.refused, 0, 1);
        return err_set(e, ERR_BUSY, "%u requests wait already", ws->o.queue_max);
    }
    return 0;
}

unsigned workers_queued(const struct workers *ws)
{
    struct workers *w = (struct workers *)ws; /* the lock is not part of what the caller sees */
    pthread_mutex_lock(&w->lock);
    unsigned n = w->queue.n;
    pthread_mutex_unlock(&w->lock);
    return n;
}

unsigned workers_busy(const struct workers *ws)
{
    struct workers *w = (struct workers *)ws;
    pthread_mutex_lock(&w->lock);
    unsigned n = w->busy;
    pthread_mutex_unlock(&w->lock);
    return n;
}
