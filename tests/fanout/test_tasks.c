/* test_tasks.c - whose turn it is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "fanout/tasks.h"

static int make(void **state)
{
    *state = tasks_new();
    return 0;
}

static int end(void **state)
{
    tasks_free(*state);
    return 0;
}

static void add(struct tasks *q, const char *publisher, ts_t t)
{
    struct plan p = {.t = t, .id = t, .n_add = 2, .n_remove = 1};
    snprintf(p.add[0], sizeof p.add[0], "p:%s", publisher);
    strcpy(p.add[1], "t:news");
    strcpy(p.remove[0], "t:old");
    tasks_add(q, publisher, &p, 7);
}

static ts_t turn(struct tasks *q)
{
    struct task *k = tasks_next(q);
    return k ? k->t : 0;
}

static void a_task_holds_what_its_plan_says(void **state)
{
    struct tasks *q = *state;
    assert_null(tasks_next(q));
    add(q, "daily", 5);
    struct task *k = tasks_next(q);
    assert_int_equal(k->t, 5);
    assert_int_equal(k->id, 5);
    assert_int_equal(k->read_us, 7);
    assert_int_equal(k->state, TASK_WAITING);
    assert_int_equal(k->n_add, 2);
    assert_int_equal(k->n_remove, 1);
    assert_string_equal(k->targets[0].text, "p:daily");
    assert_string_equal(k->targets[1].text, "t:news");
    assert_string_equal(k->targets[2].text, "t:old");
    assert_int_equal(k->targets[2].hash, readers_hash("t:old"));
}

static void publishers_take_turns_and_each_keeps_its_order(void **state)
{
    struct tasks *q = *state;
    for (ts_t t = 1; t <= 100; t++)
        add(q, "busy", t);
    add(q, "small", 101);
    add(q, "other", 102);
    add(q, "small", 103);
    assert_int_equal(turn(q), 1);
    assert_int_equal(turn(q), 101);
    assert_int_equal(turn(q), 102);
    struct task *k = tasks_next(q); /* unfinished, it comes again */
    assert_int_equal(k->t, 1);
    tasks_done(q, k);
    k = tasks_next(q);
    assert_int_equal(k->t, 101);
    tasks_done(q, k);
    assert_int_equal(turn(q), 102);
    assert_int_equal(turn(q), 2);
    assert_int_equal(turn(q), 103);
}

static void progress_stands_below_the_oldest_unfinished(void **state)
{
    struct tasks *q = *state;
    assert_int_equal(tasks_oldest(q), 0);
    add(q, "slow", 1);
    add(q, "quick", 2);
    add(q, "quick", 3);
    struct task *slow = tasks_next(q);
    tasks_done(q, tasks_next(q));
    assert_int_equal(tasks_oldest(q), 1);
    assert_int_equal(tasks_unfinished(q), 2);
    assert_int_equal(tasks_finished(q), 1);
    tasks_done(q, slow);
    assert_int_equal(tasks_oldest(q), 3);
    tasks_sweep(q);
    assert_int_equal(tasks_finished(q), 0);
    assert_int_equal(tasks_unfinished(q), 1);
    assert_int_equal(turn(q), 3);
}

static void a_restart_brings_back_what_was_done_in_its_order(void **state)
{
    struct tasks *q = *state;
    add(q, "daily", 1);
    add(q, "daily", 2);
    add(q, "weekly", 3);
    add(q, "daily", 4);
    for (int i = 0; i < 3; i++) {
        struct task *k = tasks_next(q);
        k->state = TASK_BEGUN;
        tasks_done(q, k);
    }
    assert_int_equal(tasks_finished(q), 3);
    tasks_next(q)->state = TASK_BEGUN;
    tasks_restart(q);
    assert_int_equal(tasks_finished(q), 0);
    assert_int_equal(tasks_unfinished(q), 4);
    assert_int_equal(tasks_oldest(q), 1);
    ts_t daily[3], n = 0;
    while (tasks_unfinished(q) > 0) {
        struct task *k = tasks_next(q);
        assert_int_equal(k->state, TASK_WAITING);
        if (k->t != 3)
            daily[n++] = k->t;
        tasks_done(q, k);
    }
    assert_int_equal(n, 3);
    assert_true(daily[0] == 1 && daily[1] == 2 && daily[2] == 4);
}

static void thousands_of_publishers_come_and_go(void **state)
{
    struct tasks *q = *state;
    char name[24];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 5000; i++) {
            snprintf(name, sizeof name, "p%d", i);
            add(q, name, (ts_t)i + 1);
        }
        for (ts_t t = 1; t <= 5000; t++) {
            struct task *k = tasks_next(q);
            assert_int_equal(k->t, t);
            tasks_done(q, k);
        }
        assert_null(tasks_next(q));
        tasks_sweep(q);
        assert_true(TAILQ_EMPTY(tasks_all(q)));
    }
    add(q, "left", 1);
    tasks_clear(q);
    assert_int_equal(tasks_unfinished(q), 0);
    assert_null(tasks_next(q));
    add(q, "left", 2); /* and one is there when it is freed */
}

int main(void)
{
#define FRESH(f) cmocka_unit_test_setup_teardown(f, make, end)
    const struct CMUnitTest tests[] = {
        FRESH(a_task_holds_what_its_plan_says),
        FRESH(publishers_take_turns_and_each_keeps_its_order),
        FRESH(progress_stands_below_the_oldest_unfinished),
        FRESH(a_restart_brings_back_what_was_done_in_its_order),
        FRESH(thousands_of_publishers_come_and_go),
    };
    return cmocka_run_group_tests_name("fanout tasks", tests, NULL, NULL);
}
