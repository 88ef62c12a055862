#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>
#include "common/mem.h"
#include "ranker/learn.h"
#include "ranker/score.h"

static const struct score_weights weights = {1, 1, 0.5, 1000};

static void freshness_halves_with_each_half_life(void **state)
{
    (void)state;
    struct score_features f = {0};
    assert_true(fabs(score_of(&weights, &f) - 1) < 1e-9);
    f.age_ms = 1000;
    assert_true(fabs(score_of(&weights, &f) - 0.5) < 1e-9);
    f.age_ms = 3000;
    assert_true(fabs(score_of(&weights, &f) - 0.125) < 1e-9);
    f.age_ms = -5;
    assert_true(fabs(score_of(&weights, &f) - 1) < 1e-9);
}

static void affinity_raises_and_dislike_lowers_within_bounds(void **state)
{
    (void)state;
    struct score_features none = {.age_ms = 1000}, liked = none, loved = none, hidden = none;
    liked.publisher_affinity = 3;
    loved.publisher_affinity = 1e12;
    hidden.publisher_affinity = -1e12;
    assert_true(fabs(score_of(&weights, &liked) - score_of(&weights, &none) - 0.5) < 1e-9);
    assert_true(score_of(&weights, &loved) > score_of(&weights, &liked));
    assert_true(score_of(&weights, &loved) <= 1.5);
    assert_true(score_of(&weights, &hidden) >= -0.5);
}

static void a_weight_of_zero_takes_a_feature_out(void **state)
{
    (void)state;
    struct score_weights w = weights;
    struct score_features liked = {.publisher_affinity = 10, .topic_affinity = 5}, plain = {0};
    w.affinity = 0;
    assert_true(score_of(&w, &liked) == score_of(&w, &plain));
}

static void one_reader_does_not_move_engagement(void **state)
{
    (void)state;
    struct score_features none = {0}, one = {.engagement = 1}, many = {.engagement = 500},
                          all = {.engagement = 1e300};
    assert_true(score_of(&weights, &one) == score_of(&weights, &none));
    assert_true(score_of(&weights, &many) > score_of(&weights, &one));
    assert_true(score_of(&weights, &all) <= 1.5);
}

static void a_score_is_finite_whatever_the_features_are(void **state)
{
    (void)state;
    const double odd[] = {NAN, INFINITY, -INFINITY, 1e308, -1e308};
    for (size_t i = 0; i < MEM_COUNT(odd); i++)
        for (size_t k = 0; k < MEM_COUNT(odd); k++) {
            struct score_features f = {INT64_MAX, odd[i], odd[k], odd[(i + k) % MEM_COUNT(odd)]};
            assert_true(isfinite(score_of(&weights, &f)));
        }
}

static void equal_scores_are_ordered_newest_first(void **state)
{
    (void)state;
    struct score_entry e[] = {{5, 1}, {9, 1}, {7, 2}, {1, -1}};
    score_sort(e, 4);
    assert_int_equal(e[0].id, 7);
    assert_int_equal(e[1].id, 9);
    assert_int_equal(e[2].id, 5);
    assert_int_equal(e[3].id, 1);
}

static void events_weigh_by_their_type(void **state)
{
    (void)state;
    struct event_weights like, hide, dwell, impression, none = {7, 7};
    assert_true(event_weights_of("like", 0, &like) && event_weights_of("hide", 0, &hide));
    assert_true(event_weights_of("impression", 0, &impression));
    assert_true(like.affinity > 0 && hide.affinity < 0 && impression.affinity == 0);
    assert_true(event_weights_of("dwell", 15000, &dwell));
    assert_true(dwell.affinity > 0.14 && dwell.affinity < 0.16);
    assert_false(event_weights_of("liked", 0, &none));
    assert_true(none.affinity == 7); /* untouched */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(freshness_halves_with_each_half_life),
        cmocka_unit_test(affinity_raises_and_dislike_lowers_within_bounds),
        cmocka_unit_test(a_weight_of_zero_takes_a_feature_out),
        cmocka_unit_test(one_reader_does_not_move_engagement),
        cmocka_unit_test(a_score_is_finite_whatever_the_features_are),
        cmocka_unit_test(equal_scores_are_ordered_newest_first),
        cmocka_unit_test(events_weigh_by_their_type),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
