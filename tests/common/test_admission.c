#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "common/admission.h"

#define MS     1000LL
#define SECOND 1000000LL
#define NOW    (77 * SECOND)

static struct admission state_of(unsigned busy, unsigned queued, int64_t run_us, int64_t stood_us)
{
    return (struct admission){.threads = 16,
                              .busy = busy,
                              .queued = queued,
                              .run_us = run_us,
                              .since_us = stood_us ? NOW - stood_us : 0};
}

static void who_finds_an_idle_thread_is_taken(void **state)
{
    struct admission a = state_of(15, 0, 10 * SECOND, 0);
    (void)state;
    assert_true(admission_takes(&a, 1, 1, NOW));
    /* Jobs that threads are about to take do not stand before anybody. */
    a = state_of(3, 12, 10 * SECOND, SECOND);
    assert_true(admission_takes(&a, 1, 1, NOW));
}

static void what_can_not_be_done_in_time_is_refused(void **state)
{
    struct admission a = state_of(16, 159, 10 * MS, 0); /* 160 before it, 1,600 a second */
    (void)state;
    assert_int_equal(admission_wait_us(&a), 100 * MS);
    assert_true(admission_takes(&a, 120 * MS, 0, NOW));
    assert_false(admission_takes(&a, 120 * MS - 1, 0, NOW));
    a.queued = 3000;
    assert_false(admission_takes(&a, SECOND, 0, NOW));
}

static void a_burst_may_wait_and_a_standing_queue_may_not(void **state)
{
    struct admission a = state_of(16, 319, 10 * MS, 99 * MS); /* a wait of 200 ms */
    (void)state;
    assert_true(admission_takes(&a, 2 * SECOND, 50 * MS, NOW));
    a = state_of(16, 319, 10 * MS, 100 * MS);
    assert_false(admission_takes(&a, 2 * SECOND, 50 * MS, NOW));
    assert_true(admission_takes(&a, 2 * SECOND, 0, NOW));
    a.queued = 79;
    assert_true(admission_takes(&a, 2 * SECOND, 50 * MS, NOW));
    a.queued = 80;
    assert_false(admission_takes(&a, 2 * SECOND, 50 * MS, NOW));
}

static void nothing_is_refused_before_anything_is_known(void **state)
{
    struct admission a = state_of(16, 500, 0, 0);
    (void)state;
    assert_true(admission_takes(&a, 2 * SECOND, 50 * MS, NOW));
    assert_true(admission_takes(&a, -1, 50 * MS, NOW)); /* its turn decides */
}

static void the_time_of_a_job_follows_what_jobs_take(void **state)
{
    int64_t run = 0;
    (void)state;
    run = admission_run(run, 5000);
    assert_int_equal(run, 5000);
    for (int i = 0; i < 100; i++)
        run = admission_run(run, 2 * SECOND);
    assert_in_range(run, 1900 * MS, 2 * SECOND);
    for (int i = 0; i < 200; i++)
        run = admission_run(run, 1000);
    assert_in_range(run, 1000, 1100);
    assert_true(admission_run(0, 0) > 0);
}

/* ---- a server in which time is a number: jobs come evenly, each takes as long ---- */

#define THREADS 16
#define RUN_US  (8 * MS) /* 2,000 a second */
#define WAITING 4096

struct outcome {
    int done, refused, late; /* late: done behind the deadline */
    int64_t worst_wait;
};

static struct outcome simulate(int rate, int64_t deadline, int64_t target, int64_t length)
{
    int64_t free_at[THREADS] = {0}, queue[WAITING], run = RUN_US, since = 0;
    unsigned first = 0, n = 0;
    struct outcome o = {0};
    for (int64_t k = 0; k * SECOND / rate < length; k++) {
        int64_t now = k * SECOND / rate;
        unsigned busy = 0;
        for (int t = 0; t < THREADS; t++) {
            while (n > 0 && free_at[t] <= now) {
                int64_t begun = free_at[t] > queue[first] ? free_at[t] : queue[first];
                int64_t wait = begun - queue[first];
                free_at[t] = begun + RUN_US;
                first = (first + 1) % WAITING;
                n--;
                o.worst_wait = wait > o.worst_wait ? wait : o.worst_wait;
                o.late += wait + RUN_US > deadline;
                o.done += wait + RUN_US <= deadline;
                run = admission_run(run, RUN_US);
                if (n == 0)
                    since = 0;
            }
            busy += free_at[t] > now;
        }
        struct admission a = {THREADS, busy, n, run, since};
        if (n < WAITING - 1 && admission_takes(&a, deadline, target, now)) {
            queue[(first + n++) % WAITING] = now;
            since = since == 0 ? now : since;
        } else {
            o.refused++;
        }
    }
    return o;
}

static void at_half_load_nothing_is_refused(void **state)
{
    struct outcome o = simulate(1000, 2 * SECOND, 50 * MS, 10 * SECOND);
    (void)state;
    assert_int_equal(o.refused, 0);
    assert_true(o.worst_wait <= RUN_US);
}

static void at_twice_the_maximum_load_all_that_can_be_done_is_done_and_soon(void **state)
{
    struct outcome o = simulate(4000, 2 * SECOND, 50 * MS, 10 * SECOND);
    (void)state;
    assert_int_equal(o.late, 0);
    assert_true(o.done >= 2000 * 10 * 95 / 100);
    /* What is waiting when the queue turns out to stand is as long as the burst that it was taken for. */
    assert_true(o.worst_wait <= ADMISSION_STANDING_US + 60 * MS);
}

static void with_deadlines_alone_nothing_that_was_begun_is_late(void **state)
{
    struct outcome o = simulate(4000, 500 * MS, 0, 10 * SECOND);
    (void)state;
    assert_int_equal(o.late, 0);
    assert_true(o.done >= 2000 * 10 * 95 / 100);
    assert_true(o.refused > 15000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_finds_an_idle_thread_is_taken),
        cmocka_unit_test(what_can_not_be_done_in_time_is_refused),
        cmocka_unit_test(a_burst_may_wait_and_a_standing_queue_may_not),
        cmocka_unit_test(nothing_is_refused_before_anything_is_known),
        cmocka_unit_test(the_time_of_a_job_follows_what_jobs_take),
        cmocka_unit_test(at_half_load_nothing_is_refused),
        cmocka_unit_test(at_twice_the_maximum_load_all_that_can_be_done_is_done_and_soon),
        cmocka_unit_test(with_deadlines_alone_nothing_that_was_begun_is_late),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
