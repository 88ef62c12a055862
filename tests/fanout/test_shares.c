#include "tests/fanout/rig.h"

#include "fanout/shares.h"

#define LEASE_MS 500

static struct rig rig;
static struct shares *owners[5];

static int open_rig(void **state)
{
    rig_open(&rig, *state);
    return 0;
}

static int close_rig(void **state)
{
    (void)state;
    for (size_t i = 0; i < MEM_COUNT(owners); i++) {
        shares_free(owners[i]);
        owners[i] = NULL;
    }
    rig_close(&rig);
    return 0;
}

/* lease_ms for its own leases and for how long it takes others for alive. */
static struct shares *owner(unsigned i, const char *name, int64_t lease_ms)
{
    struct shares_options o = {.mongo = rig.mongo, .name = name, .lease_ms = lease_ms};
    shares_free(owners[i]);
    owners[i] = shares_new(&o);
    return owners[i];
}

static struct shares_view look(struct shares *s)
{
    struct shares_view v;
    shares_look(s, &v);
    return v;
}

static unsigned held(struct shares *s)
{
    struct shares_view v = look(s);
    unsigned n = 0;
    for (unsigned i = 0; i < SHARES; i++)
        n += v.share[i].held;
    return n;
}

/* A round, and what an engine does with shares to be given. */
static void step(struct shares *s)
{
    struct err e = {0};
    RIG_OK(e, shares_step(s, &e));
    struct shares_view v = look(s);
    for (unsigned i = 0; i < SHARES; i++) {
        if (v.share[i].giving)
            RIG_OK(e, shares_release(s, i, &e));
    }
}

/* Nobody holds the same share as another. */
static void disjoint(void)
{
    bool taken[SHARES] = {false};
    for (size_t k = 0; k < MEM_COUNT(owners) && owners[k]; k++) {
        struct shares_view v = look(owners[k]);
        for (unsigned i = 0; i < SHARES; i++) {
            assert_false(v.share[i].held && taken[i]);
            taken[i] = taken[i] || v.share[i].held;
        }
    }
}

static void fair_parts_add_up_to_all_shares(void **state)
{
    (void)state;
    for (unsigned members = 1; members <= 20; members++) {
        unsigned sum = 0;
        for (unsigned rank = 0; rank < members; rank++) {
            unsigned fair = shares_fair(members, rank);
            assert_true(fair >= SHARES / members && fair <= SHARES / members + 1);
            sum += fair;
        }
        assert_int_equal(sum, SHARES);
    }
}

static void the_first_owner_takes_all_at_once(void **state)
{
    (void)state;
    struct shares *a = owner(0, "a", 60000);
    assert_false(look(a).known);
    step(a);
    assert_int_equal(held(a), SHARES);
    struct shares_view v = look(a);
    assert_true(v.known && v.members == 1 && v.fair == SHARES);
    for (unsigned i = 0; i < SHARES; i++)
        assert_int_equal(v.share[i].epoch, 1);
    uint64_t version = v.version;
    step(a);
    assert_true(look(a).version == version);
}

static void a_second_owner_gets_half_and_the_epochs_of_what_moved_grow(void **state)
{
    (void)state;
    struct shares *a = owner(0, "a", 60000), *b = owner(1, "b", 60000);
    step(a);
    step(b);
    assert_int_equal(held(b), 0);
    step(a);
    step(b);
    disjoint();
    assert_int_equal(held(a), 8);
    assert_int_equal(held(b), 8);
    struct shares_view v = look(b);
    for (unsigned i = 0; i < SHARES; i++) {
        if (v.share[i].held)
            assert_int_equal(v.share[i].epoch, 2);
    }
}

static void any_number_of_owners_comes_to_fair_parts(void **state)
{
    (void)state;
    const char *names[] = {"e", "d", "c", "b", "a"};
    for (unsigned n = 1; n <= MEM_COUNT(names); n++) {
        owner(n - 1, names[n - 1], 60000);
        for (int round = 0; round < 4; round++) {
            for (unsigned i = 0; i < n; i++)
                step(owners[i]);
            disjoint();
        }
        unsigned sum = 0;
        for (unsigned i = 0; i < n; i++) {
            assert_true(held(owners[i]) >= SHARES / n && held(owners[i]) <= SHARES / n + 1);
            sum += held(owners[i]);
        }
        assert_int_equal(sum, SHARES);
    }
}

static bool b_has_all(void *arg)
{
    step(arg);
    return held(arg) == SHARES;
}

static void the_shares_of_a_silent_owner_are_taken_when_its_lease_ran_out(void **state)
{
    (void)state;
    struct err e = {0};
    int64_t epoch;
    struct shares *a = owner(0, "a", LEASE_MS), *b = owner(1, "b", LEASE_MS);
    step(a);
    assert_true(fixture_until(b_has_all, b, 10000));
    assert_int_equal(held(a), SHARES); /* it does not know yet */
    assert_int_equal(shares_retake(a, 3, 0, &epoch, &e), -1);
    assert_int_equal(e.code, ERR_MISMATCH);
    assert_int_equal(held(a), SHARES - 1);
    step(a);
    assert_int_equal(held(a), 0);
    disjoint();
    step(b);
    step(a);
    assert_int_equal(held(a), 8);
    disjoint();
}

static void a_lease_that_is_renewed_is_not_taken(void **state)
{
    (void)state;
    struct shares *a = owner(0, "a", 60000), *b = owner(1, "b", 200);
    step(a);
    for (int i = 0; i < 5; i++)
        step(b);
    assert_int_equal(held(b), 0);
    assert_int_equal(held(a), SHARES);
}

static void what_stands_under_the_own_name_is_taken_over_at_once(void **state)
{
    (void)state;
    step(owner(0, "a", 60000));
    struct shares *again = owner(1, "a", 60000);
    step(again);
    assert_int_equal(held(again), SHARES);
    assert_int_equal(look(again).share[5].epoch, 2);
    step(owners[0]); /* the process before it, still alive: it has lost them, and takes none back */
    assert_int_equal(held(owners[0]), 0);
    step(again);
    assert_int_equal(held(again), SHARES);
    assert_int_equal(look(again).share[5].epoch, 2);
}

static void a_share_is_retaken_above_the_epoch_asked_for(void **state)
{
    (void)state;
    struct err e = {0};
    int64_t epoch = 0;
    struct shares *a = owner(0, "a", 60000);
    step(a);
    RIG_OK(e, shares_retake(a, 3, 0, &epoch, &e));
    assert_int_equal(epoch, 2);
    RIG_OK(e, shares_retake(a, 3, 40, &epoch, &e));
    assert_int_equal(epoch, 41);
    assert_int_equal(look(a).share[3].epoch, 41);
    step(a);
    assert_int_equal(held(a), SHARES);
    assert_int_equal(look(a).share[3].epoch, 41);
}

static void who_leaves_makes_room_at_once(void **state)
{
    (void)state;
    struct err e = {0};
    struct shares *a = owner(0, "a", 60000), *b = owner(1, "b", 60000);
    step(a);
    step(b);
    step(a);
    step(b);
    RIG_OK(e, shares_leave(a, &e));
    assert_int_equal(held(a), 0);
    step(b);
    assert_int_equal(held(b), SHARES);
    assert_int_equal(look(b).members, 1);
}

static bool all_held(void *arg)
{
    return held(arg) == SHARES;
}

static void the_thread_takes_renews_and_takes_over(void **state)
{
    (void)state;
    struct err e = {0};
    struct shares *a = owner(0, "a", LEASE_MS), *b = owner(1, "b", LEASE_MS);
    RIG_OK(e, shares_start(a, &e));
    assert_true(fixture_until(all_held, a, 10000));
    shares_stop(a);
    RIG_OK(e, shares_start(b, &e));
    uint64_t version = look(b).version;
    shares_wait(b, version, 10000);
    assert_true(look(b).version != version);
    assert_true(fixture_until(all_held, b, 10000));
}

static void without_mongodb_a_round_fails_and_nothing_is_forgotten(void **state)
{
    (void)state;
    struct err e = {0};
    struct shares *a = owner(0, "a", 60000);
    step(a);
    server_kill(fixture_mongod(rig.f));
    assert_int_equal(shares_step(a, &e), -1);
    assert_true(e.code == ERR_UNAVAILABLE || e.code == ERR_TIMEOUT);
    assert_int_equal(held(a), SHARES);
    fixture_restart(rig.f, fixture_mongod(rig.f));
    step(a);
    assert_int_equal(held(a), SHARES);
    assert_int_equal(look(a).share[0].epoch, 1);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, open_rig, close_rig)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fair_parts_add_up_to_all_shares),
        T(the_first_owner_takes_all_at_once),
        T(a_second_owner_gets_half_and_the_epochs_of_what_moved_grow),
        T(any_number_of_owners_comes_to_fair_parts),
        T(the_shares_of_a_silent_owner_are_taken_when_its_lease_ran_out),
        T(a_lease_that_is_renewed_is_not_taken),
        T(what_stands_under_the_own_name_is_taken_over_at_once),
        T(a_share_is_retaken_above_the_epoch_asked_for),
        T(who_leaves_makes_room_at_once),
        T(the_thread_takes_renews_and_takes_over),
        T(without_mongodb_a_round_fails_and_nothing_is_forgotten),
    };
    return cmocka_run_group_tests(tests, fixture_group_setup, fixture_group_teardown);
}
