/* test_troubles.c - how often something was tried, and what it holds up meanwhile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "fanout/troubles.h"

static int make(void **state)
{
    *state = troubles_new();
    return 0;
}

static int end(void **state)
{
    troubles_free(*state);
    return 0;
}

static struct deliver_failure timeline(const char *user, ts_t t)
{
    struct deliver_failure f = {.script = SCRIPT_DELIVER, .t = t, .item = 9, .bucket = 7};
    snprintf(f.user, sizeof f.user, "%s", user);
    return f;
}

static struct trouble *failed(struct troubles *q, enum trouble_kind kind, const struct deliver_failure *f,
                              int64_t now)
{
    return troubles_note(q, kind, f, ERR_CORRUPT, now, 1000 + now);
}

static void the_fifth_try_is_the_last(void **state)
{
    struct troubles *q = *state;
    struct deliver_failure f = timeline("ann", 5);
    int64_t now = 0;
    struct trouble *x = failed(q, TROUBLE_TIMELINE, &f, now);
    for (unsigned tries = 1; tries < TROUBLE_TRIES; tries++) {
        int64_t wait = (int64_t)TROUBLE_FIRST_MS << (tries - 1);
        assert_int_equal(x->tries, tries);
        assert_false(x->given_up);
        assert_null(troubles_due(q, now + wait - 1));
        now += wait;
        assert_ptr_equal(troubles_due(q, now), x);
        assert_ptr_equal(failed(q, TROUBLE_TIMELINE, &f, now), x);
    }
    assert_true(x->given_up);
    assert_int_equal(x->first_ms, 1000);
    assert_ptr_equal(troubles_due(q, now), x);
    assert_ptr_equal(failed(q, TROUBLE_TIMELINE, &f, now), x);
    assert_int_equal(x->tries, TROUBLE_TRIES);
    troubles_end(q, x);
    assert_null(troubles_due(q, now));
}

static void each_timeline_and_each_change_has_tries_of_its_own(void **state)
{
    struct troubles *q = *state;
    struct deliver_failure ann = timeline("ann", 5), bob = timeline("bob", 5), later = timeline("ann", 6);
    failed(q, TROUBLE_TIMELINE, &ann, 0);
    failed(q, TROUBLE_TIMELINE, &bob, 0);
    failed(q, TROUBLE_TIMELINE, &later, 0);
    failed(q, TROUBLE_READ, &ann, 0);
    assert_int_equal(failed(q, TROUBLE_TIMELINE, &ann, 1)->tries, 2);
    assert_int_equal(failed(q, TROUBLE_TIMELINE, &bob, 1)->tries, 2);
    assert_int_equal(failed(q, TROUBLE_TIMELINE, &later, 1)->tries, 2);
    assert_int_equal(failed(q, TROUBLE_READ, &ann, 1)->tries, 2);
}

static void a_timeline_holds_its_bucket_and_a_change_holds_all(void **state)
{
    struct troubles *q = *state;
    struct deliver_failure early = timeline("ann", 5), late = timeline("bob", 8), read = {.t = 6, .item = 3};
    struct change c = {.kind = CHANGE_ITEM, .t = 6, .item = 3};
    ts_t held[BUCKETS];
    assert_false(troubles_held(q, held));
    assert_int_equal(troubles_oldest(q), 0);
    failed(q, TROUBLE_TIMELINE, &late, 0);
    struct trouble *x = failed(q, TROUBLE_TIMELINE, &early, 0);
    assert_true(troubles_held(q, held));
    assert_int_equal(held[7], 5);
    assert_int_equal(held[8], 0);
    assert_int_equal(troubles_oldest(q), 0);
    troubles_end(q, x);
    assert_true(troubles_held(q, held));
    assert_int_equal(held[7], 8);
    troubles_keep(failed(q, TROUBLE_READ, &read, 0), &c);
    assert_int_equal(troubles_oldest(q), 6);
}

static void what_the_log_tells_again_holds_nothing_and_is_remembered_for_a_minute(void **state)
{
    struct troubles *q = *state;
    struct deliver_failure f = {.t = 6, .item = 3};
    struct change c = {.kind = CHANGE_ITEM, .t = 6, .item = 3};
    troubles_keep(failed(q, TROUBLE_READ, &f, 0), &c);
    troubles_let_go(q);
    assert_int_equal(troubles_oldest(q), 0);
    assert_int_equal(troubles_count(q), 0);
    assert_null(troubles_due(q, 1000));
    struct trouble *x = failed(q, TROUBLE_READ, &f, 1000);
    assert_int_equal(x->tries, 2);
    troubles_let_go(q);
    assert_null(troubles_due(q, 1001 + TROUBLE_FADES_MS));
    assert_int_equal(failed(q, TROUBLE_READ, &f, 100000)->tries, 1);
}

static void a_call_is_only_remembered_until_it_is_given_up(void **state)
{
    struct troubles *q = *state;
    struct deliver_failure f = {.script = SCRIPT_DELIVER, .t = 6, .item = 3, .bucket = 1};
    for (unsigned i = 1; i < TROUBLE_TRIES; i++) {
        f.bucket = i; /* whichever bucket comes first in the call */
        assert_int_equal(failed(q, TROUBLE_CALL, &f, i)->tries, i);
        assert_int_equal(troubles_oldest(q), 0);
        assert_null(troubles_due(q, 10000));
    }
    struct trouble *x = failed(q, TROUBLE_CALL, &f, 10);
    assert_true(x->given_up);
    troubles_let_go(q);
    assert_int_equal(troubles_oldest(q), 6);
    assert_ptr_equal(troubles_due(q, 10), x);
}

static void p11_no_more_than_the_cap_is_kept_and_memories_make_room(void **state)
{
    struct troubles *q = *state;
    struct deliver_failure call = {.script = SCRIPT_DROP, .t = 1};
    failed(q, TROUBLE_CALL, &call, 0);
    for (unsigned i = 0; i < TROUBLES_MAX; i++) {
        char user[32];
        snprintf(user, sizeof user, "u%u", i);
        struct deliver_failure f = timeline(user, 5);
        assert_non_null(failed(q, TROUBLE_TIMELINE, &f, 0));
    }
    struct deliver_failure f = timeline("one-more", 5);
    assert_null(failed(q, TROUBLE_TIMELINE, &f, 0));
    assert_int_equal(troubles_count(q), TROUBLES_MAX);
    f = timeline("u7", 5);
    assert_int_equal(failed(q, TROUBLE_TIMELINE, &f, 0)->tries, 2);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, make, end)
    const struct CMUnitTest tests[] = {
        T(the_fifth_try_is_the_last),
        T(each_timeline_and_each_change_has_tries_of_its_own),
        T(a_timeline_holds_its_bucket_and_a_change_holds_all),
        T(what_the_log_tells_again_holds_nothing_and_is_remembered_for_a_minute),
        T(a_call_is_only_remembered_until_it_is_given_up),
        T(p11_no_more_than_the_cap_is_kept_and_memories_make_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
