/* Workers: every job that was taken is done with on the loop, whatever happens. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <event2/event.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/mem.h"
#include "common/workers.h"

enum { M_WAIT, M_RUN, M_EXPIRED, M_REFUSED, M_N };
static const struct metric_row rows[] = {
    [M_WAIT] = {"t_wait_seconds", METRIC_HISTOGRAM, "Wait.", NULL, NULL},
    [M_RUN] = {"t_run_seconds", METRIC_HISTOGRAM, "Run.", NULL, NULL},
    [M_EXPIRED] = {"t_expired_total", METRIC_COUNTER, "Expired.", NULL, NULL},
    [M_REFUSED] = {"t_refused_total", METRIC_COUNTER, "Refused.", NULL, NULL},
};

struct rig {
    struct event_base *base;
    struct workers *workers;
    struct metrics *metrics;
    pthread_t loop;
    /* the jobs' */
    pthread_mutex_t gate; /* held by the test: jobs stand before it */
    atomic_uint started, ran;
    /* the loop's thread only */
    unsigned done, expired, wrong_thread;
    unsigned more; /* jobs that done() submits */
    unsigned refused;
};

static int setup(void **state)
{
    struct rig *r = mem_zero(1, sizeof *r);
    struct redis_address nowhere = {.path = "/nonexistent/redis.sock"};
    r->base = event_base_new();
    r->metrics = metrics_new(rows, M_N);
    r->loop = pthread_self();
    pthread_mutex_init(&r->gate, NULL);
    struct workers_options o = {.base = r->base,
                                .redis = &nowhere,
                                .threads = 3,
                                .queue_max = 10,
                                .metrics = r->metrics,
                                .wait_seconds = M_WAIT,
                                .run_seconds = M_RUN,
                                .expired = M_EXPIRED,
                                .refused = M_REFUSED};
    struct err e;
    assert_int_equal(workers_new(&r->workers, &o, &e), 0);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;
    workers_stop(r->workers);
    event_base_free(r->base);
    metrics_free(r->metrics);
    pthread_mutex_destroy(&r->gate);
    free(r);
    return 0;
}

static void run_job(struct worker *w, void *arg)
{
    struct rig *r = arg;
    atomic_fetch_add(&r->started, 1);
    if (w->mongo != NULL || w->redis == NULL)
        abort();
    pthread_mutex_lock(&r->gate);
    pthread_mutex_unlock(&r->gate);
    atomic_fetch_add(&r->ran, 1);
}

static int submit(struct rig *r, int64_t deadline, struct err *e);

static void job_done(void *arg, bool expired)
{
    struct rig *r = arg;
    struct err e;
    r->done++;
    r->expired += expired;
    r->wrong_thread += !pthread_equal(pthread_self(), r->loop);
    if (r->more > 0) {
        r->more--;
        r->refused += submit(r, clock_mono_ms() + 60000, &e) < 0;
    }
}

static int submit(struct rig *r, int64_t deadline, struct err *e)
{
    return workers_submit(r->workers, deadline, run_job, job_done, r, e);
}

/* Runs the loop until n jobs are done with. */
static void run_until_done(struct rig *r, unsigned n)
{
    int64_t until = clock_mono_ms() + 20000;
    while (r->done < n && clock_mono_ms() < until)
        event_base_loop(r->base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
    assert_int_equal(r->done, n);
}

static void wait_until_started(struct rig *r, unsigned n)
{
    int64_t until = clock_mono_ms() + 20000;
    while (atomic_load(&r->started) < n)
        assert_true(clock_mono_ms() < until);
}

static void a_job_runs_on_a_worker_and_is_done_on_the_loop(void **state)
{
    struct rig *r = *state;
    struct err e;
    for (unsigned round = 1; round <= 50; round++) {
        for (unsigned i = 0; i < 10; i++)
            assert_int_equal(submit(r, clock_mono_ms() + 60000, &e), 0);
        run_until_done(r, round * 10);
    }
    assert_int_equal(atomic_load(&r->ran), 500);
    assert_int_equal(r->wrong_thread, 0);
    assert_int_equal(r->expired, 0);
    assert_int_equal(metrics_get(r->metrics, M_RUN, 0), 500);
    assert_int_equal(workers_queued(r->workers), 0);
    assert_int_equal(workers_busy(r->workers), 0);
}

static void a_full_queue_refuses(void **state)
{
    struct rig *r = *state;
    struct err e;
    pthread_mutex_lock(&r->gate);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(submit(r, clock_mono_ms() + 60000, &e), 0);
    wait_until_started(r, 3);
    assert_int_equal(workers_busy(r->workers), 3);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(submit(r, clock_mono_ms() + 60000, &e), 0);
    assert_int_equal(workers_queued(r->workers), 10);
    assert_int_equal(submit(r, clock_mono_ms() + 60000, &e), -1);
    assert_int_equal(e.code, ERR_BUSY);
    assert_int_equal(metrics_get(r->metrics, M_REFUSED, 0), 1);
    pthread_mutex_unlock(&r->gate);
    run_until_done(r, 13);
    assert_int_equal(submit(r, clock_mono_ms() + 60000, &e), 0);
    run_until_done(r, 14);
}

static void run_slowly(struct worker *w, void *arg)
{
    (void)w;
    (void)arg;
    nanosleep(&(struct timespec){.tv_nsec = 30000000}, NULL);
}

/* All threads are busy, and jobs are known to take 30 ms. */
static void a_job_that_can_not_be_done_in_time_is_refused_at_the_door(void **state)
{
    struct rig *r = *state;
    struct err e;
    assert_int_equal(workers_submit(r->workers, clock_mono_ms() + 60000, run_slowly, job_done, r, &e), 0);
    run_until_done(r, 1);
    pthread_mutex_lock(&r->gate);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(submit(r, clock_mono_ms() + 60000, &e), 0);
    wait_until_started(r, 3);
    assert_int_equal(submit(r, clock_mono_ms() + 20, &e), -1);
    assert_int_equal(e.code, ERR_BUSY);
    assert_int_equal(metrics_get(r->metrics, M_REFUSED, 0), 1);
    assert_int_equal(submit(r, clock_mono_ms() + 60000, &e), 0);
    pthread_mutex_unlock(&r->gate);
    run_until_done(r, 5);
    assert_int_equal(r->expired, 0);
}

static void a_job_whose_deadline_passed_in_the_queue_is_not_run(void **state)
{
    struct rig *r = *state;
    struct err e;
    pthread_mutex_lock(&r->gate);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(submit(r, clock_mono_ms() + 60000, &e), 0);
    wait_until_started(r, 3);
    assert_int_equal(submit(r, clock_mono_ms(), &e), 0);
    assert_int_equal(submit(r, clock_mono_ms() + 60000, &e), 0);
    pthread_mutex_unlock(&r->gate);
    run_until_done(r, 5);
    assert_int_equal(r->expired, 1);
    assert_int_equal(atomic_load(&r->ran), 4);
    assert_int_equal(metrics_get(r->metrics, M_EXPIRED, 0), 1);
}

static void closing_finishes_what_was_taken_and_takes_nothing_more(void **state)
{
    struct rig *r = *state;
    struct err e;
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(submit(r, clock_mono_ms() + 60000, &e), 0);
    r->more = 5; /* done() may try, and is refused */
    workers_close(r->workers);
    assert_int_equal(r->done, 10);
    assert_int_equal(atomic_load(&r->ran), 10);
    assert_int_equal(r->refused, 5);
    assert_int_equal(submit(r, clock_mono_ms() + 60000, &e), -1);
    assert_int_equal(e.code, ERR_UNAVAILABLE);
    workers_close(r->workers);
    workers_close(NULL);
    workers_stop(NULL);
}

static void done_may_submit_another_job(void **state)
{
    struct rig *r = *state;
    struct err e;
    r->more = 200;
    assert_int_equal(submit(r, clock_mono_ms() + 60000, &e), 0);
    run_until_done(r, 201);
    assert_int_equal(r->refused, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_job_runs_on_a_worker_and_is_done_on_the_loop, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_queue_refuses, setup, teardown),
        cmocka_unit_test_setup_teardown(a_job_that_can_not_be_done_in_time_is_refused_at_the_door, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_job_whose_deadline_passed_in_the_queue_is_not_run, setup, teardown),
        cmocka_unit_test_setup_teardown(closing_finishes_what_was_taken_and_takes_nothing_more, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(done_may_submit_another_job, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
