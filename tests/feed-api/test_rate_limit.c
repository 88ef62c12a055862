#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "feed-api/rate_limit.h"

#define MS     1000000LL
#define SECOND (1000 * MS)
#define START  (1234567 * SECOND)

static const struct rate_rule ten = {.per_second = 10, .burst = 5};

/* Takes until it is refused and says how many there were. */
static int drain(int64_t *full, const struct rate_rule *r, int64_t now)
{
    struct rate_verdict v;
    int n = 0;
    for (;;) {
        rate_bucket_take(full, r, now, &v);
        if (!v.ok)
            return n;
        n++;
    }
}

static void a_new_bucket_holds_its_burst_and_no_more(void **state)
{
    int64_t full = 0;
    (void)state;
    assert_int_equal(drain(&full, &ten, START), 5);
    const struct rate_rule twice = {.per_second = 50};
    full = 0;
    assert_int_equal(rate_rule_burst(&twice), 100);
    assert_int_equal(drain(&full, &twice, START), 100);
}

static void tokens_come_back_one_by_one(void **state)
{
    int64_t full = 0;
    struct rate_verdict v;
    (void)state;
    drain(&full, &ten, START);
    rate_bucket_take(&full, &ten, START + 99 * MS, &v);
    assert_false(v.ok);
    assert_int_equal(v.retry_ms, 1);
    rate_bucket_take(&full, &ten, START + 100 * MS, &v);
    assert_true(v.ok);
    assert_int_equal(drain(&full, &ten, START + 100 * MS), 0);
    assert_int_equal(drain(&full, &ten, START + 400 * MS), 3);
    /* It never holds more than the burst, however long nobody came. */
    assert_int_equal(drain(&full, &ten, START + 3600 * SECOND), 5);
}

static void a_refusal_takes_nothing_and_says_when_to_come_again(void **state)
{
    int64_t full = 0, before;
    struct rate_verdict v;
    (void)state;
    drain(&full, &ten, START);
    before = full;
    for (int i = 0; i < 100; i++)
        rate_bucket_take(&full, &ten, START, &v);
    assert_int_equal(full, before);
    assert_false(v.ok);
    assert_int_equal(v.remaining, 0);
    assert_int_equal(v.retry_ms, 100);
    assert_int_equal(v.reset_ms, 500);
    rate_bucket_take(&full, &ten, START + v.retry_ms * MS, &v);
    assert_true(v.ok);
}

static void an_answer_says_what_is_left_and_when_all_is_back(void **state)
{
    int64_t full = 0;
    struct rate_verdict v;
    (void)state;
    rate_bucket_take(&full, &ten, START, &v);
    assert_true(v.ok);
    assert_int_equal(v.remaining, 4);
    assert_int_equal(v.reset_ms, 100);
    assert_int_equal(v.retry_ms, 0);
    rate_bucket_take(&full, &ten, START + 1, &v);
    assert_int_equal(v.remaining, 3);
    assert_int_equal(v.reset_ms, 200);
}

static void over_a_long_time_the_rate_is_kept(void **state)
{
    (void)state;
    static const struct rate_rule rules[] = {{1, 1}, {3, 7}, {50, 100}, {999, 1}, {1000000, 1000000}};
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        int64_t full = 0, taken = 0, step = SECOND / rules[i].per_second / 3 + 1;
        struct rate_verdict v;
        for (int64_t k = 0; k < 3000; k++) {
            rate_bucket_take(&full, &rules[i], START + k * step, &v);
            taken += v.ok;
        }
        int64_t due = 3000 * step / (SECOND / rules[i].per_second) + rules[i].burst;
        if (due > 3000)
            due = 3000;
        assert_in_range(taken, due - 2, due + 2);
    }
}

static bool take(struct rate_limit *l, const char *id, int64_t now)
{
    struct rate_verdict v;
    rate_limit_take(l, &ten, id, now, &v);
    return v.ok;
}

static void each_id_has_a_bucket_of_its_own(void **state)
{
    struct rate_limit *l = rate_limit_new(1000);
    (void)state;
    for (int i = 0; i < 5; i++) {
        assert_true(take(l, "uann", START));
        assert_true(take(l, "kann", START));
        assert_true(take(l, "uanna", START));
    }
    assert_false(take(l, "uann", START));
    assert_false(take(l, "kann", START));
    assert_false(take(l, "uanna", START));
    assert_true(take(l, "uan", START));
    assert_true(take(l, "uann", START + SECOND));
    rate_limit_free(l);
    rate_limit_free(NULL);
}

static void without_a_limit_nothing_is_refused_or_kept(void **state)
{
    struct rate_limit *l = rate_limit_new(1);
    const struct rate_rule off = {0, 5};
    struct rate_verdict v;
    (void)state;
    for (int i = 0; i < 1000; i++) {
        rate_limit_take(l, &off, "uann", START, &v);
        assert_true(v.ok);
        assert_int_equal(v.retry_ms, 0);
    }
    rate_limit_free(l);
}

static void long_ids_are_cut_and_still_limited(void **state)
{
    struct rate_limit *l = rate_limit_new(100);
    char id[201];
    (void)state;
    memset(id, 'x', 200);
    id[200] = '\0';
    for (int i = 0; i < 5; i++)
        assert_true(take(l, id, START));
    assert_false(take(l, id, START));
    rate_limit_free(l);
}

/* 8 x 16 buckets in all: whoever is limited stays so among names that come once each. */
static void a_flood_of_names_does_not_free_who_is_limited(void **state)
{
    struct rate_limit *l = rate_limit_new(1);
    char name[32];
    (void)state;
    while (take(l, "ubusy", START))
        ;
    for (int i = 0; i < 100000; i++) {
        snprintf(name, sizeof name, "u%d", i);
        assert_true(take(l, name, START));
        assert_false(take(l, "ubusy", START));
    }
    rate_limit_free(l);
}

struct shared {
    struct rate_limit *l;
    int taken;
};

static void *take_many(void *arg)
{
    struct shared *s = arg;
    for (int i = 0; i < 2000; i++) {
        if (take(s->l, "ushared", START))
            __atomic_add_fetch(&s->taken, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

static void threads_share_one_bucket(void **state)
{
    struct shared s = {.l = rate_limit_new(100)};
    pthread_t t[4];
    (void)state;
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&t[i], NULL, take_many, &s), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(s.taken, 5);
    rate_limit_free(s.l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_bucket_holds_its_burst_and_no_more),
        cmocka_unit_test(tokens_come_back_one_by_one),
        cmocka_unit_test(a_refusal_takes_nothing_and_says_when_to_come_again),
        cmocka_unit_test(an_answer_says_what_is_left_and_when_all_is_back),
        cmocka_unit_test(over_a_long_time_the_rate_is_kept),
        cmocka_unit_test(each_id_has_a_bucket_of_its_own),
        cmocka_unit_test(without_a_limit_nothing_is_refused_or_kept),
        cmocka_unit_test(long_ids_are_cut_and_still_limited),
        cmocka_unit_test(a_flood_of_names_does_not_free_who_is_limited),
        cmocka_unit_test(threads_share_one_bucket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
