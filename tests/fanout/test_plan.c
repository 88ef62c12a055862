#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include "common/mem.h"
#include "fanout/buckets.h"
#include "fanout/plan.h"

static struct change item_change(bool inserted)
{
    return (struct change){.kind = CHANGE_ITEM, .t = ts_make(9, 1), .item = 77, .inserted = inserted};
}

static void before(struct change *c, const char *topic)
{
    c->topics_changed = true;
    snprintf(c->topics_before[c->n_topics_before++], sizeof c->topics_before[0], "%s", topic);
}

static struct item_now item_now(const char *publisher, const char *a, const char *b)
{
    struct item_now now = {.live = true};
    snprintf(now.publisher, sizeof now.publisher, "%s", publisher);
    if (a)
        snprintf(now.topics[now.n_topics++], sizeof now.topics[0], "%s", a);
    if (b)
        snprintf(now.topics[now.n_topics++], sizeof now.topics[0], "%s", b);
    return now;
}

static void a_new_item_goes_to_the_followers_of_its_publisher_and_topics(void **state)
{
    (void)state;
    struct change c = item_change(true);
    struct item_now now = item_now("daily", "sport", "chess");
    struct plan p;
    assert_true(plan_reads_item(&c));
    plan_item(&c, &now, &p);
    assert_int_equal(p.n_add, 3);
    assert_string_equal(p.add[0], "p:daily");
    assert_string_equal(p.add[1], "t:sport");
    assert_string_equal(p.add[2], "t:chess");
    assert_int_equal(p.n_remove, 0);
    assert_true(p.t == c.t && p.id == 77);
}

static void an_edit_that_changes_no_topics_asks_for_nothing(void **state)
{
    (void)state;
    struct change c = item_change(false);
    struct item_now now = item_now("daily", "sport", NULL);
    struct plan p;
    assert_false(plan_reads_item(&c));
    plan_item(&c, &now, &p);
    assert_int_equal(p.n_add + p.n_remove, 0);
}

static void a_deleted_item_asks_for_nothing(void **state)
{
    (void)state;
    struct change c = item_change(false);
    before(&c, "sport");
    c.deleted = true;
    assert_false(plan_reads_item(&c));
}

static void an_item_deleted_since_its_change_is_not_delivered(void **state)
{
    (void)state;
    struct change c = item_change(true);
    before(&c, "sport");
    struct item_now now = {.live = false};
    struct plan p;
    plan_item(&c, &now, &p);
    assert_int_equal(p.n_add + p.n_remove, 0);
}

static void a_topic_edit_adds_for_the_present_and_removes_for_the_former_topics(void **state)
{
    (void)state;
    struct change c = item_change(false);
    before(&c, "sport");
    before(&c, "chess");
    struct item_now now = item_now("daily", "chess", "go");
    struct plan p;
    assert_true(plan_reads_item(&c));
    plan_item(&c, &now, &p);
    assert_int_equal(p.n_add, 3);
    assert_string_equal(p.add[2], "t:go");
    assert_int_equal(p.n_remove, 1);
    assert_string_equal(p.remove[0], "t:sport");
}

static void a_topic_that_came_back_in_a_later_edit_is_not_removed(void **state)
{
    (void)state;
    struct change c = item_change(false);
    before(&c, "sport");
    struct item_now now = item_now("daily", "sport", NULL);
    struct plan p;
    plan_item(&c, &now, &p);
    assert_int_equal(p.n_remove, 0);
    assert_int_equal(p.n_add, 2);
}

static void an_edit_that_took_the_last_topic_keeps_the_publishers_followers(void **state)
{
    (void)state;
    struct change c = item_change(false);
    before(&c, "sport");
    struct item_now now = item_now("daily", NULL, NULL);
    struct plan p;
    plan_item(&c, &now, &p);
    assert_int_equal(p.n_add, 1);
    assert_string_equal(p.add[0], "p:daily");
    assert_int_equal(p.n_remove, 1);
}

static void changes_of_other_kinds_read_no_item(void **state)
{
    (void)state;
    enum change_kind kinds[] = {CHANGE_USER, CHANGE_TARGET, CHANGE_API_KEY, CHANGE_HEARTBEAT, CHANGE_OTHER};
    for (size_t i = 0; i < MEM_COUNT(kinds); i++) {
        struct change c = {.kind = kinds[i], .inserted = true, .topics_changed = true};
        assert_false(plan_reads_item(&c));
    }
}

static void due_buckets_come_as_ranges_without_gaps_inside(void **state)
{
    (void)state;
    struct buckets b;
    struct bucket_range r[BUCKET_RANGES_MAX];
    buckets_init(&b);
    assert_int_equal(buckets_due(&b, 100, r), 0);
    for (unsigned i = 0; i < 3 * SHARE_BUCKETS; i++)
        buckets_own(&b, i, 1, i < SHARE_BUCKETS ? 10 : 50);
    buckets_own(&b, 255, 1, 10);
    buckets_drop_share(&b, 1);
    assert_int_equal(buckets_owned(&b), 33);
    assert_int_equal(buckets_due(&b, 100, r), 3);
    assert_true(r[0].first == 0 && r[0].last == 15 && r[1].first == 32 && r[1].last == 47 &&
                r[2].first == 255 && r[2].last == 255);
    assert_int_equal(buckets_due(&b, 50, r), 2);
    assert_int_equal(buckets_due(&b, 10, r), 0);
    for (unsigned i = 0; i < BUCKETS; i += 2)
        buckets_own(&b, i, 1, 1);
    for (unsigned i = 1; i < BUCKETS; i += 2)
        buckets_own(&b, i, 1, 1000);
    assert_int_equal(buckets_due(&b, 100, r), BUCKET_RANGES_MAX);
}

static void the_log_is_read_from_the_least_progress_of_all_owned(void **state)
{
    (void)state;
    struct buckets b;
    ts_t least = 7;
    buckets_init(&b);
    assert_false(buckets_least(&b, &least));
    assert_true(least == 7);
    buckets_own(&b, 3, 1, 50);
    buckets_own(&b, 200, 1, 20);
    assert_true(buckets_least(&b, &least));
    assert_true(least == 20);
    buckets_drop_share(&b, bucket_share(200));
    assert_true(buckets_least(&b, &least));
    assert_true(least == 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_item_goes_to_the_followers_of_its_publisher_and_topics),
        cmocka_unit_test(an_edit_that_changes_no_topics_asks_for_nothing),
        cmocka_unit_test(a_deleted_item_asks_for_nothing),
        cmocka_unit_test(an_item_deleted_since_its_change_is_not_delivered),
        cmocka_unit_test(a_topic_edit_adds_for_the_present_and_removes_for_the_former_topics),
        cmocka_unit_test(a_topic_that_came_back_in_a_later_edit_is_not_removed),
        cmocka_unit_test(an_edit_that_took_the_last_topic_keeps_the_publishers_followers),
        cmocka_unit_test(changes_of_other_kinds_read_no_item),
        cmocka_unit_test(due_buckets_come_as_ranges_without_gaps_inside),
        cmocka_unit_test(the_log_is_read_from_the_least_progress_of_all_owned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
