/* The map of users' latest changes, and the ring of heartbeats. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/ids.h"
#include "common/mem.h"
#include "feed-api/beats.h"
#include "feed-api/user_changes.h"

static const char *name_of(unsigned i)
{
    static char name[32];
    snprintf(name, sizeof name, "user-%u", i);
    return name;
}

static void nothing_is_remembered_before_it_begins(void **state)
{
    (void)state;
    struct user_changes *u = user_changes_new(10, 1000);
    assert_true(user_changes_memory(u) == UINT64_MAX);
    assert_true(user_changes_find(u, "ann") == 0);
    user_changes_begin(u, 100);
    assert_true(user_changes_memory(u) == 100);
    user_changes_free(u);
    user_changes_free(NULL);
}

static void the_latest_change_of_a_user_counts(void **state)
{
    (void)state;
    struct user_changes *u = user_changes_new(10, 1000);
    user_changes_begin(u, 100);
    user_changes_note(u, "ann", 120, 1);
    user_changes_note(u, "bob", 110, 2);
    user_changes_note(u, "ann", 115, 3); /* the log tells what this process has noted before */
    assert_true(user_changes_find(u, "ann") == 120);
    user_changes_note(u, "ann", 130, 4);
    assert_true(user_changes_find(u, "ann") == 130);
    assert_true(user_changes_find(u, "bob") == 110);
    assert_true(user_changes_find(u, "an") == 0);
    assert_int_equal(user_changes_count(u), 2);
    user_changes_free(u);
}

static void what_is_forgotten_for_room_moves_the_memory_up(void **state)
{
    (void)state;
    struct user_changes *u = user_changes_new(3, 1000);
    user_changes_begin(u, 100);
    user_changes_note(u, "a", 200, 1);
    user_changes_note(u, "b", 150, 2);
    user_changes_note(u, "c", 160, 3);
    assert_true(user_changes_memory(u) == 100);
    user_changes_note(u, "d", 170, 4); /* a goes: it was noted first */
    assert_true(user_changes_find(u, "a") == 0);
    assert_true(user_changes_memory(u) == 201);
    user_changes_note(u, "e", 180, 5); /* b goes; the memory does not come back down */
    assert_true(user_changes_memory(u) == 201);
    assert_int_equal(user_changes_count(u), 3);
    user_changes_free(u);
}

static void what_is_too_old_is_forgotten(void **state)
{
    (void)state;
    struct user_changes *u = user_changes_new(10, 1000);
    user_changes_begin(u, 100);
    user_changes_note(u, "a", 110, 0);
    user_changes_note(u, "b", 120, 500);
    user_changes_expire(u, 1000);
    assert_true(user_changes_find(u, "a") == 110);
    user_changes_expire(u, 1001);
    assert_true(user_changes_find(u, "a") == 0);
    assert_true(user_changes_find(u, "b") == 120);
    assert_true(user_changes_memory(u) == 111);
    user_changes_note(u, "b", 125, 1400); /* noted again: it lives on */
    user_changes_expire(u, 2000);
    assert_true(user_changes_find(u, "b") == 125);
    user_changes_free(u);
}

static void beginning_anew_keeps_what_is_later(void **state)
{
    (void)state;
    struct user_changes *u = user_changes_new(10, 1000);
    user_changes_note(u, "early", 90, 1);
    user_changes_note(u, "late", 110, 1); /* a write answered before the log was open */
    user_changes_begin(u, 100);
    assert_true(user_changes_find(u, "early") == 0);
    assert_true(user_changes_find(u, "late") == 110);
    assert_true(user_changes_memory(u) == 100);
    user_changes_free(u);
}

/* The rule that pages rely on: what happened at or after the memory's beginning is found. */
static void nothing_at_or_after_the_memory_is_ever_missing(void **state)
{
    (void)state;
    enum { USERS = 3000, STEPS = 60000 };
    struct user_changes *u = user_changes_new(1000, 5000);
    ts_t *truth = mem_zero(USERS, sizeof *truth);
    user_changes_begin(u, 1);
    for (unsigned i = 0; i < STEPS; i++) {
        unsigned user = ids_random_bits() % (i % 2 ? USERS : 500);
        ts_t when = 1000 + i + ids_random_bits() % 50;
        user_changes_note(u, name_of(user), when, i);
        truth[user] = ts_max(truth[user], when);
        if (i % 997 == 0) {
            for (unsigned k = 0; k < USERS; k++) {
                ts_t found = user_changes_find(u, name_of(k));
                assert_true(found == truth[k] || (found == 0 && truth[k] < user_changes_memory(u)));
            }
        }
    }
    assert_true(user_changes_count(u) <= 1000);
    free(truth);
    user_changes_free(u);
}

static struct beats *new_beats(void)
{
    return mem_zero(1, sizeof(struct beats));
}

static void lag_is_counted_from_the_last_beat_that_the_page_has_seen(void **state)
{
    (void)state;
    struct beats *b = new_beats();
    beats_add(b, ts_make(100, 1), 100000);
    beats_add(b, ts_make(100, 5), 100100);
    beats_add(b, ts_make(101, 2), 101000);
    assert_int_equal(beats_lag_ms(b, ts_make(101, 2), 101050, 100), 0);
    assert_int_equal(beats_lag_ms(b, ts_make(101, 1), 101050, 100), 850);
    assert_int_equal(beats_lag_ms(b, ts_make(100, 5), 101050, 100), 850);
    assert_int_equal(beats_lag_ms(b, ts_make(100, 4), 101050, 100), 950);
    assert_int_equal(beats_lag_ms(b, ts_make(200, 0), 105100, 100), 4000);
    /* Before all of them: by its own seconds. */
    assert_int_equal(beats_lag_ms(b, ts_make(90, 3), 101000, 100), 10900);
    /* A clock that was set back is not a negative lag. */
    assert_int_equal(beats_lag_ms(b, ts_make(101, 2), 50000, 100), 0);
    beats_clear(b);
    assert_int_equal(beats_lag_ms(b, ts_make(100, 5), 101000, 100), 900);
    free(b);
}

static void close_beats_are_left_out_and_old_ones_give_way(void **state)
{
    (void)state;
    struct beats *b = new_beats();
    for (unsigned i = 0; i < 100; i++)
        beats_add(b, ts_make(100, i), 100000 + i); /* a hundred processes within 100 ms */
    assert_int_equal(b->n, 4);
    for (unsigned i = 0; i < BEATS_MAX * 2; i++)
        beats_add(b, ts_make(200 + i / 10, i % 10), 200000 + (int64_t)i * 100);
    assert_int_equal(b->n, BEATS_MAX);
    int64_t last = 200000 + (BEATS_MAX * 2 - 1) * INT64_C(100);
    assert_int_equal(beats_lag_ms(b, ts_make(10000, 0), last + 100, 100), 0);
    unsigned earlier = BEATS_MAX * 2 - 11; /* ten before the last */
    assert_int_equal(beats_lag_ms(b, ts_make(200 + earlier / 10, earlier % 10), last + 100, 100), 1000);
    free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_remembered_before_it_begins),
        cmocka_unit_test(the_latest_change_of_a_user_counts),
        cmocka_unit_test(what_is_forgotten_for_room_moves_the_memory_up),
        cmocka_unit_test(what_is_too_old_is_forgotten),
        cmocka_unit_test(beginning_anew_keeps_what_is_later),
        cmocka_unit_test(nothing_at_or_after_the_memory_is_ever_missing),
        cmocka_unit_test(lag_is_counted_from_the_last_beat_that_the_page_has_seen),
        cmocka_unit_test(close_beats_are_left_out_and_old_ones_give_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
