/* test_audit.c - where a timeline and the truth differ, without servers. The rest is in
 * tests/e2e/test_audit.c. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/audit_private.h"
#include "common/mem.h"

#define CAP 3
#define NOW ts_make(1700000000, 5)

/* A timeline of CAP entries, 60 50 40, above the floor 30; its reader follows p:a. */
struct world {
    struct audit_view view;
    struct audit_truth truth;
    struct audit_entry entries[16];
    struct audit_follow follows[4];
    struct audit_item items[16];
    item_id newest[16];
    struct audit_list found;
};

static void entry(struct world *w, item_id id, double score)
{
    w->entries[w->view.n++] = (struct audit_entry){id, score};
}

/* Items are known by id, ascending. */
static void item(struct world *w, item_id id, bool live, bool belongs, bool owed)
{
    w->items[w->truth.n_items++] = (struct audit_item){
        .id = id, .exists = true, .live = live, .revision = 7, .belongs = belongs, .owed = owed};
}

static int set_up(void **state)
{
    struct world *w = mem_zero(1, sizeof *w);
    w->view = (struct audit_view){.has_record = true,
                                  .progress = NOW,
                                  .born = ts_make(1600000000, 1),
                                  .stamp = NOW,
                                  .exists = true,
                                  .ready = true,
                                  .r = ts_make(1690000000, 1),
                                  .r_text = "R",
                                  .mutes = "w:word",
                                  .pulls = "",
                                  .floor_text = "-30",
                                  .floor_ok = true,
                                  .floor = 30,
                                  .entries = w->entries};
    w->truth = (struct audit_truth){.now = NOW,
                                    .user_rev = 3,
                                    .follows = w->follows,
                                    .n_follows = 1,
                                    .mutes = "w:word",
                                    .items = w->items,
                                    .newest = w->newest,
                                    .n_newest = 3};
    w->follows[0] = (struct audit_follow){.target = "p:a"};
    for (item_id id = 60; id >= 40; id -= 10) {
        w->newest[w->view.n] = id;
        entry(w, id, -(double)id);
    }
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    free(*state);
    return 0;
}

static void compare(struct world *w)
{
    audit_compare(&w->view, &w->truth, CAP, &w->found);
}

static void expect_none(struct world *w)
{
    compare(w);
    if (w->found.n > 0)
        fail_msg("%s %s: %s", audit_kind_name(w->found.at[0].kind), w->found.at[0].what,
                 w->found.at[0].detail);
}

/* Exactly one finding. */
static struct audit_finding *expect_one(struct world *w, enum audit_kind kind, const char *what)
{
    compare(w);
    assert_int_equal(w->found.n, 1);
    assert_string_equal(audit_kind_name(w->found.at[0].kind), audit_kind_name(kind));
    assert_string_equal(w->found.at[0].what, what);
    return &w->found.at[0];
}

/* ---- what is right ---- */

static void equal_ones_differ_in_nothing(void **state)
{
    expect_none(*state);
}

static void below_the_floor_anything_may_lie(void **state)
{
    struct world *w = *state;
    entry(w, 30, -30);
    entry(w, 20, -20);
    entry(w, 10, -3); /* also at a score of its own, as long as that is below */
    expect_none(w);
}

static void what_was_deleted_or_came_while_looking_is_right(void **state)
{
    struct world *w = *state;
    item(w, 70, false, false, false); /* deleted */
    item(w, 80, true, true, true);    /* published since the truth was read */
    entry(w, 70, -70);
    entry(w, 80, -80);
    expect_none(w);
}

static void what_a_pull_list_brings_is_not_missing(void **state)
{
    struct world *w = *state;
    w->view.pulls = "\np:a\n";
    w->follows[0].pulled = w->follows[0].listed = true;
    item(w, 70, true, true, false);
    w->newest[w->truth.n_newest++] = 70;
    expect_none(w);
}

static void no_floor_needs_no_entries(void **state)
{
    struct world *w = *state;
    w->view.floor = 0;
    strcpy(w->view.floor_text, "-0");
    w->view.n = 1;
    w->truth.n_newest = 1;
    expect_none(w);
}

static void entries_that_were_removed_are_not_held_against_the_floor(void **state)
{
    struct world *w = *state;
    w->view.n = w->truth.n_newest = 1;
    w->view.removed = 2;
    expect_none(w);
    w->view.removed = 1;
    expect_one(w, AUDIT_FLOOR_TOO_HIGH, "30");
}

static void a_cap_that_nobody_has_told_yet_judges_no_floor(void **state)
{
    struct world *w = *state;
    w->view.n = w->truth.n_newest = 1;
    audit_compare(&w->view, &w->truth, 0, &w->found);
    assert_int_equal(w->found.n, 0);
}

/* ---- what is wrong ---- */

static void an_item_that_is_owed_is_missing(void **state)
{
    struct world *w = *state;
    item(w, 50, true, true, true);
    w->entries[1] = w->entries[2]; /* 50 is gone, and the floor is not blamed for it */
    w->view.n = 2;
    struct audit_finding *f = expect_one(w, AUDIT_MISSING, "50");
    assert_int_equal(f->evidence, 7);
    assert_false(f->sure);
}

static void an_item_that_nothing_followed_asks_for_is_extra(void **state)
{
    struct world *w = *state;
    item(w, 70, true, false, false);
    entry(w, 70, -70);
    assert_int_equal(expect_one(w, AUDIT_EXTRA, "70")->evidence, 7);
}

static void a_pulled_target_that_is_not_followed_is_extra(void **state)
{
    struct world *w = *state;
    w->view.pulls = "\nt:else\n";
    assert_int_equal(expect_one(w, AUDIT_EXTRA, "t:else")->evidence, 3);
}

static void an_id_without_an_item_is_foreign(void **state)
{
    struct world *w = *state;
    w->items[w->truth.n_items++] = (struct audit_item){.id = 70};
    entry(w, 70, -70);
    assert_false(expect_one(w, AUDIT_FOREIGN_ID, "70")->sure);
}

static void a_member_that_is_no_id_is_foreign_wherever_it_stands(void **state)
{
    struct world *w = *state;
    strcpy(w->view.foreign[w->view.n_foreign++], "x");
    assert_true(expect_one(w, AUDIT_FOREIGN_ID, "x")->sure);
}

static void a_member_elsewhere_than_at_its_id_has_a_wrong_score(void **state)
{
    struct world *w = *state;
    w->entries[1].score = -49;
    assert_true(expect_one(w, AUDIT_WRONG_SCORE, "50")->sure);
    w->entries[1].score = -50;
    entry(w, 20, -55); /* below the floor by its id, above it by its score: a page would end there */
    expect_one(w, AUDIT_WRONG_SCORE, "20");
}

static void a_floor_with_too_few_above_it_is_too_high(void **state)
{
    struct world *w = *state;
    w->view.floor = 50;
    w->truth.n_newest = 1; /* only what is above the floor is read */
    assert_true(expect_one(w, AUDIT_FLOOR_TOO_HIGH, "50")->sure);
}

static void a_floor_that_is_no_id_is_named(void **state)
{
    struct world *w = *state;
    w->view.floor_ok = false;
    strcpy(w->view.floor_text, "-inf");
    expect_one(w, AUDIT_FLOOR_TOO_HIGH, "f");
    strcpy(w->view.floor_text, "12.5");
    expect_one(w, AUDIT_WRONG_SCORE, "f");
}

/* And what would have come by it is not blamed for that. */
static void a_pulled_target_that_is_not_listed_is_lost(void **state)
{
    struct world *w = *state;
    w->follows[0].pulled = true;
    w->follows[0].rev = 9;
    item(w, 70, true, true, false);
    w->newest[w->truth.n_newest++] = 70;
    assert_int_equal(expect_one(w, AUDIT_LOST_PULL_ENTRY, "p:a")->evidence, 9);
}

static void an_r_that_no_script_writes_is_wrong(void **state)
{
    struct world *w = *state;
    const ts_t wrong[] = {0, 1, NOW + 1, NOW - 1};
    for (size_t i = 0; i < MEM_COUNT(wrong); i++) {
        w->view.r = wrong[i];
        w->view.stamp = i == 3 ? NOW - 2 : NOW;
        assert_true(expect_one(w, AUDIT_WRONG_R, "R")->sure);
        assert_true(audit_view_counts(&w->view));
    }
    w->view.stamp = NOW + 10; /* the record is as wrong as R */
    w->view.r = NOW + 1;
    expect_one(w, AUDIT_WRONG_R, "R");
}

static void an_r_before_its_record_makes_it_absent(void **state)
{
    struct world *w = *state;
    assert_true(audit_view_counts(&w->view));
    w->view.r = w->view.born - 1;
    assert_false(audit_view_counts(&w->view));
    w->view.r = w->view.born;
    w->view.ready = false;
    assert_false(audit_view_counts(&w->view));
}

static void other_mutes_are_wrong(void **state)
{
    struct world *w = *state;
    w->view.mutes = "";
    assert_int_equal(expect_one(w, AUDIT_WRONG_MUTES, "")->evidence, 3);
}

static void more_than_fits_is_said(void **state)
{
    struct world *w = *state;
    size_t n = AUDIT_CANDIDATES_MAX + 5;
    w->view.entries = mem_alloc((n + 3) * sizeof *w->view.entries);
    w->view.n = n;
    for (size_t i = 0; i < n; i++)
        w->view.entries[i] = (struct audit_entry){100 + i, -1};
    compare(w);
    assert_int_equal(w->found.n, AUDIT_CANDIDATES_MAX);
    assert_true(w->found.more);
    free(w->view.entries);
}

/* ---- two looks ---- */

static void only_what_two_looks_agree_on_is_kept(void **state)
{
    (void)state;
    static struct audit_list a, b;
    a.n = 2;
    b.n = 3;
    a.at[0] = (struct audit_finding){.kind = AUDIT_MISSING, .what = "12", .evidence = 1};
    a.at[1] = (struct audit_finding){.kind = AUDIT_EXTRA, .what = "13", .evidence = 1};
    b.at[0] = (struct audit_finding){.kind = AUDIT_EXTRA, .what = "12", .evidence = 1};
    b.at[1] =
        (struct audit_finding){.kind = AUDIT_EXTRA, .what = "13", .evidence = 2}; /* edited in between */
    b.at[2] = (struct audit_finding){.kind = AUDIT_MISSING, .what = "12", .evidence = 1};
    audit_agree(&a, &b);
    assert_int_equal(b.n, 1);
    assert_int_equal(b.at[0].kind, AUDIT_MISSING);
}

static void a_pull_list_is_searched_by_whole_names(void **state)
{
    (void)state;
    static const char list[] = "\np:daily\nt:news\n";
    assert_true(audit_listed(list, "p:daily"));
    assert_true(audit_listed(list, "t:news"));
    assert_false(audit_listed(list, "p:dail"));
    assert_false(audit_listed(list, ":daily"));
    assert_false(audit_listed("", "p:daily"));
}

static void names_and_the_labels_of_metrics_agree(void **state)
{
    (void)state;
    char kinds[300] = "", verdicts[100] = "";
    for (unsigned i = 0; i < AUDIT_KINDS; i++)
        snprintf(kinds + strlen(kinds), sizeof kinds - strlen(kinds), "%s%s", i ? "," : "",
                 audit_kind_name(i));
    for (unsigned i = 0; i < AUDIT_VERDICTS; i++)
        snprintf(verdicts + strlen(verdicts), sizeof verdicts - strlen(verdicts), "%s%s", i ? "," : "",
                 audit_verdict_name(i));
    assert_string_equal(kinds, AUDIT_KIND_NAMES);
    assert_string_equal(verdicts, AUDIT_VERDICT_NAMES);
}

#define EACH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH(equal_ones_differ_in_nothing),
        EACH(below_the_floor_anything_may_lie),
        EACH(what_was_deleted_or_came_while_looking_is_right),
        EACH(what_a_pull_list_brings_is_not_missing),
        EACH(no_floor_needs_no_entries),
        EACH(entries_that_were_removed_are_not_held_against_the_floor),
        EACH(a_cap_that_nobody_has_told_yet_judges_no_floor),
        EACH(an_item_that_is_owed_is_missing),
        EACH(an_item_that_nothing_followed_asks_for_is_extra),
        EACH(a_pulled_target_that_is_not_followed_is_extra),
        EACH(an_id_without_an_item_is_foreign),
        EACH(a_member_that_is_no_id_is_foreign_wherever_it_stands),
        EACH(a_member_elsewhere_than_at_its_id_has_a_wrong_score),
        EACH(a_floor_with_too_few_above_it_is_too_high),
        EACH(a_floor_that_is_no_id_is_named),
        EACH(a_pulled_target_that_is_not_listed_is_lost),
        EACH(an_r_that_no_script_writes_is_wrong),
        EACH(an_r_before_its_record_makes_it_absent),
        EACH(other_mutes_are_wrong),
        EACH(more_than_fits_is_said),
        cmocka_unit_test(only_what_two_looks_agree_on_is_kept),
        cmocka_unit_test(a_pull_list_is_searched_by_whole_names),
        cmocka_unit_test(names_and_the_labels_of_metrics_agree),
    };
    return cmocka_run_group_tests_name("common/audit", tests, NULL, NULL);
}
