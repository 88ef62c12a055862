/* Tests of feed-api/page.c: cutting, filtering, refilling; against a model at random. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "feed-api/page.h"

#define ANY (ITEM_ID_MAX + 1)

static char body; /* bodies are opaque to a page: any pointer will do */

/* Drives p over a descending list in chunks; hidden says which ids are not shown. */
static void drive(struct page *p, const item_id *all, size_t n, size_t chunk, bool (*hidden)(item_id))
{
    size_t at = 0;
    while (at < n && all[at] >= p->before)
        at++;
    for (;;) {
        enum page_need need = page_next(p);
        if (need == PAGE_DONE)
            return;
        if (need == PAGE_IDS) {
            size_t take = n - at < chunk ? n - at : chunk;
            page_add_ids(p, all + at, take, at + take == n);
            at += take;
            continue;
        }
        size_t wanted;
        const item_id *ids = page_wanted(p, &wanted);
        assert_true(wanted > 0);
        item_id first = ids[0];
        page_decide(p, !hidden(first), &body);
    }
}

static bool none(item_id id)
{
    (void)id;
    return false;
}
static bool all_of_them(item_id id)
{
    (void)id;
    return true;
}
static bool every_third(item_id id)
{
    return id % 3 == 0;
}

static void a_page_holds_the_newest_ids_and_says_where_to_go_on(void **state)
{
    (void)state;
    const item_id ids[] = {90, 80, 70, 60, 50};
    struct page p;
    page_init(&p, 2, 100, ANY);
    drive(&p, ids, 5, 5, none);
    assert_int_equal(p.n_shown, 2);
    assert_int_equal(p.shown[0].id, 90);
    assert_int_equal(p.shown[1].id, 80);
    assert_true(p.more);
    assert_int_equal(p.last, 80);
    assert_int_equal(p.spare.id, 70);
    page_done(&p);
}

static void the_last_full_page_knows_that_it_is_the_last(void **state)
{
    (void)state;
    const item_id ids[] = {90, 80, 70, 60};
    struct page p;
    page_init(&p, 2, 100, 80);
    drive(&p, ids, 4, 1, none);
    assert_int_equal(p.n_shown, 2);
    assert_int_equal(p.shown[1].id, 60);
    assert_false(p.more);
    assert_null(p.spare.body);
    page_done(&p);
}

static void a_page_before_hidden_items_only_is_the_last(void **state)
{
    (void)state;
    const item_id ids[] = {91, 89, 66, 63, 60};
    struct page p;
    page_init(&p, 2, 100, ANY);
    drive(&p, ids, 5, 2, every_third);
    assert_int_equal(p.n_shown, 2);
    assert_int_equal(p.n_hidden, 3);
    assert_false(p.more);
    page_done(&p);
}

static void hidden_items_are_refilled(void **state)
{
    (void)state;
    const item_id ids[] = {99, 96, 95, 93, 92, 90, 88};
    struct page p;
    page_init(&p, 2, 100, ANY);
    drive(&p, ids, 7, 2, every_third);
    assert_int_equal(p.n_shown, 2);
    assert_int_equal(p.shown[0].id, 95);
    assert_int_equal(p.shown[1].id, 92);
    assert_true(p.more);
    assert_int_equal(p.last, 92);
    page_done(&p);
}

static void an_empty_feed_is_an_empty_last_page(void **state)
{
    (void)state;
    struct page p;
    page_init(&p, 20, 100, ANY);
    drive(&p, NULL, 0, 10, none);
    assert_int_equal(p.n_shown, 0);
    assert_false(p.more);
    page_done(&p);
}

static void a_page_gives_up_after_the_scan_bound_and_goes_on_behind_it(void **state)
{
    (void)state;
    item_id ids[50];
    for (size_t i = 0; i < 50; i++)
        ids[i] = 1000 - i;
    struct page p;
    page_init(&p, 2, 10, ANY);
    drive(&p, ids, 50, 7, all_of_them);
    assert_int_equal(p.n_shown, 0);
    assert_int_equal(p.n_decided, 10);
    assert_true(p.more);
    assert_int_equal(p.last, 991);
    page_done(&p);
}

static void a_stopped_page_goes_on_where_it_began_when_nothing_was_decided(void **state)
{
    (void)state;
    struct page p;
    page_init(&p, 2, 10, 500);
    assert_int_equal(page_next(&p), PAGE_IDS);
    page_stop(&p);
    assert_int_equal(page_next(&p), PAGE_DONE);
    assert_true(p.more);
    assert_int_equal(p.last, 500);
    page_done(&p);
}

static void a_stopped_page_goes_on_after_what_it_shows(void **state)
{
    (void)state;
    struct page p;
    page_init(&p, 5, 10, 500);
    assert_int_equal(page_next(&p), PAGE_IDS);
    page_add_ids(&p, (const item_id[]){400, 300, 200}, 3, true);
    assert_int_equal(page_next(&p), PAGE_BODIES);
    assert_true(page_decide(&p, true, &body));
    page_stop(&p);
    assert_int_equal(page_next(&p), PAGE_DONE);
    assert_int_equal(p.n_shown, 1);
    assert_true(p.more);
    assert_int_equal(p.last, 400);
    page_done(&p);
}

static void repeats_and_ids_out_of_order_are_left_out(void **state)
{
    (void)state;
    struct page p;
    page_init(&p, 9, 100, 100);
    assert_int_equal(page_next(&p), PAGE_IDS);
    page_add_ids(&p, (const item_id[]){100, 90, 90, 80, 85, 70}, 6, false);
    page_add_ids(&p, (const item_id[]){75, 70, 60}, 3, true);
    size_t n;
    const item_id *w = page_wanted(&p, &n);
    assert_int_equal(n, 4);
    assert_memory_equal(w, ((item_id[]){90, 80, 70, 60}), 4 * sizeof *w);
    page_done(&p);
}

/* ---- the model: pages of random sizes over random sources are exactly the visible ids, in order ---- */

static uint64_t rnd_state;
static uint32_t rnd(uint32_t below)
{
    rnd_state = rnd_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(rnd_state >> 33) % below;
}

static uint64_t hide_seed, hide_of_ten;
static bool hidden_at_random(item_id id)
{
    return ((id * 2654435761u + hide_seed) >> 7) % 10 < hide_of_ten;
}

static void one_model_run(uint64_t seed)
{
    rnd_state = seed * 77777 + 1;
    hide_seed = seed;
    hide_of_ten = rnd(11);
    item_id all[200], want[200];
    size_t n = rnd(201), n_want = 0;
    item_id id = 10000;
    for (size_t i = 0; i < n; i++) {
        id -= 1 + rnd(40);
        all[i] = id;
        if (!hidden_at_random(id))
            want[n_want++] = id;
    }
    item_id before = ANY;
    size_t seen = 0, pages = 0;
    for (bool more = true; more; pages++) {
        struct page p;
        unsigned limit = 1 + rnd(30);
        page_init(&p, limit, 20 + rnd(60), before);
        drive(&p, all, n, 1 + rnd(25), hidden_at_random);
        assert_true(p.n_shown <= limit);
        for (unsigned i = 0; i < p.n_shown; i++) {
            assert_true(seen < n_want);
            assert_int_equal(p.shown[i].id, want[seen++]);
            assert_ptr_equal(p.shown[i].body, &body);
        }
        more = p.more;
        assert_true(!more || p.last < before);
        before = p.last;
        page_done(&p);
        assert_true(pages < 300);
    }
    assert_int_equal(seen, n_want);
}

static void pages_at_random_are_exactly_the_model(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3000; seed++)
        one_model_run(seed);
}

static void a_page_ends_with_the_first_id_that_is_not_newer_than_after(void **state)
{
    (void)state;
    const item_id ids[] = {90, 80, 70, 60, 50};
    const struct {
        item_id after;
        unsigned limit, shown;
        bool more;
    } rows[] = {{70, 5, 2, false}, {71, 5, 2, false}, {69, 5, 3, false}, {70, 2, 2, false}, {70, 1, 1, true},
                {95, 5, 0, false}, {90, 5, 0, false}, {1, 5, 5, false},  {1, 4, 4, true}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (size_t chunk = 1; chunk <= 5; chunk++) {
            struct page p;
            page_init(&p, rows[i].limit, 100, ANY);
            p.after = rows[i].after;
            drive(&p, ids, 5, chunk, none);
            assert_int_equal(p.n_shown, rows[i].shown);
            assert_int_equal(p.more, rows[i].more);
            page_done(&p);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_page_holds_the_newest_ids_and_says_where_to_go_on),
        cmocka_unit_test(the_last_full_page_knows_that_it_is_the_last),
        cmocka_unit_test(a_page_before_hidden_items_only_is_the_last),
        cmocka_unit_test(hidden_items_are_refilled),
        cmocka_unit_test(an_empty_feed_is_an_empty_last_page),
        cmocka_unit_test(a_page_gives_up_after_the_scan_bound_and_goes_on_behind_it),
        cmocka_unit_test(a_stopped_page_goes_on_where_it_began_when_nothing_was_decided),
        cmocka_unit_test(a_stopped_page_goes_on_after_what_it_shows),
        cmocka_unit_test(repeats_and_ids_out_of_order_are_left_out),
        cmocka_unit_test(pages_at_random_are_exactly_the_model),
        cmocka_unit_test(a_page_ends_with_the_first_id_that_is_not_newer_than_after),
    };
    return cmocka_run_group_tests_name("page", tests, NULL, NULL);
}
