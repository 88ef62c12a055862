#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "common/keys.h"
#include "common/mem.h"
#include "fanout/lists.h"
#include "fanout/readers.h"

#define ROOMY ((size_t)1 << 24)

static reader_idx add_reader(struct readers *r, const char *user)
{
    return readers_add(r, keys_bucket(user), user);
}

static struct list *load(struct lists *l, const char *target, const reader_idx *who, size_t n)
{
    struct list *list = lists_begin(l, target);
    assert_non_null(list);
    for (size_t i = 0; i < n; i++)
        lists_add(l, list, who[i]);
    return lists_end(l, list) ? list : NULL;
}

static bool holds(const struct list *list, const reader_idx *who, size_t n)
{
    return lists_count(list) == n && (n == 0 || memcmp(list->at, who, n * sizeof *who) == 0);
}

/* ---- readers ---- */

static void a_reader_is_found_by_name_until_he_retires(void **state)
{
    (void)state;
    struct readers *r = readers_new();
    assert_int_equal(readers_find(r, "ann"), READER_NONE);
    reader_idx ann = readers_add(r, 7, "ann"), bob = readers_add(r, 255, "bob");
    assert_int_not_equal(ann, bob);
    assert_int_equal(readers_add(r, 7, "ann"), ann);
    assert_int_equal(readers_find(r, "ann"), ann);
    assert_int_equal(readers_bucket(r, bob), 255);
    assert_string_equal(readers_name(r, bob), "bob");
    assert_true(readers_active(r, ann));
    assert_int_equal(readers_count(r), 2);
    readers_retire(r, ann);
    assert_int_equal(readers_find(r, "ann"), READER_NONE);
    assert_int_equal(readers_find(r, "bob"), bob);
    assert_int_equal(readers_count(r), 1);
    readers_free(r);
}

static void a_retired_reader_keeps_his_index_for_as_long_as_he_is_held(void **state)
{
    (void)state;
    struct readers *r = readers_new();
    reader_idx ann = readers_add(r, 1, "ann");
    readers_hold(r, ann);
    readers_hold(r, ann);
    readers_retire(r, ann);
    readers_retire(r, ann);
    reader_idx again = readers_add(r, 1, "ann");
    assert_int_not_equal(again, ann);
    assert_false(readers_active(r, ann));
    assert_true(readers_active(r, again));
    assert_string_equal(readers_name(r, ann), "ann");
    readers_release(r, ann);
    assert_int_equal(readers_add(r, 2, "bob") == ann, false);
    readers_release(r, ann);
    assert_int_equal(readers_add(r, 3, "cid"), ann);
    assert_true(readers_active(r, ann));
    assert_int_equal(readers_bucket(r, ann), 3);
    readers_free(r);
}

static void an_active_reader_stays_when_nobody_holds_him(void **state)
{
    (void)state;
    struct readers *r = readers_new();
    reader_idx ann = readers_add(r, 1, "ann");
    readers_hold(r, ann);
    readers_release(r, ann);
    assert_int_equal(readers_find(r, "ann"), ann);
    readers_free(r);
}

static void a_mark_is_new_once_a_task_and_for_who_takes_over_the_index(void **state)
{
    (void)state;
    struct readers *r = readers_new();
    reader_idx ann = readers_add(r, 1, "ann"), bob = readers_add(r, 1, "bob");
    assert_true(readers_mark(r, ann, 1));
    assert_false(readers_mark(r, ann, 1));
    assert_true(readers_mark(r, bob, 1));
    assert_true(readers_mark(r, ann, UINT32_MAX));
    assert_false(readers_mark(r, ann, UINT32_MAX));
    readers_retire(r, bob);
    assert_int_equal(readers_add(r, 1, "cid"), bob);
    assert_true(readers_mark(r, bob, 1));
    readers_forget_marks(r);
    assert_true(readers_mark(r, ann, UINT32_MAX));
    readers_free(r);
}

static void a_reader_is_met_once_a_round_also_when_rounds_have_come_round(void **state)
{
    (void)state;
    struct readers *r = readers_new();
    reader_idx ann = readers_add(r, 1, "ann");
    readers_begin_round(r);
    assert_true(readers_meet(r, ann));
    assert_false(readers_meet(r, ann));
    r->round = UINT32_MAX;
    readers_begin_round(r);
    assert_true(readers_meet(r, ann));
    readers_begin_round(r);
    assert_true(readers_meet(r, ann));
    readers_free(r);
}

static void names_of_1_and_of_64_bytes_are_kept_whole(void **state)
{
    (void)state;
    struct readers *r = readers_new();
    char a[NAME_MAX_BYTES + 1], b[NAME_MAX_BYTES + 1];
    memset(a, 'x', NAME_MAX_BYTES);
    memset(b, 'x', NAME_MAX_BYTES);
    a[NAME_MAX_BYTES] = b[NAME_MAX_BYTES] = '\0';
    b[NAME_MAX_BYTES - 1] = 'y';
    reader_idx ia = readers_add(r, 0, a), ib = readers_add(r, 0, b), ix = readers_add(r, 0, "x");
    assert_int_equal(readers_find(r, a), ia);
    assert_int_equal(readers_find(r, b), ib);
    assert_int_equal(readers_find(r, "x"), ix);
    assert_string_equal(readers_name(r, ia), a);
    assert_string_equal(readers_name(r, ib), b);
    assert_string_equal(readers_name(r, ix), "x");
    readers_retire(r, ia);
    readers_retire(r, ib);
    readers_retire(r, ix);
    assert_int_equal(readers_bytes(r), 0);
    readers_free(r);
}

#define CROWD 200000

static void crowd_name(char out[NAME_MAX_BYTES + 1], unsigned i)
{
    snprintf(out, NAME_MAX_BYTES + 1, "reader-%u", i);
}

static void two_hundred_thousand_come_half_go_and_all_are_found_rightly(void **state)
{
    (void)state;
    struct readers *r = readers_new();
    char name[NAME_MAX_BYTES + 1];
    for (unsigned i = 0; i < CROWD; i++) {
        crowd_name(name, i);
        assert_int_equal(readers_add(r, i % BUCKETS, name), i);
    }
    size_t full = readers_bytes(r);
    assert_true(full < (size_t)CROWD * 100);
    for (unsigned i = 0; i < CROWD; i += 2)
        readers_retire(r, i);
    assert_int_equal(readers_count(r), CROWD / 2);
    for (unsigned i = 0; i < CROWD; i++) {
        crowd_name(name, i);
        assert_int_equal(readers_find(r, name), i % 2 ? i : READER_NONE);
    }
    for (unsigned i = 0; i < CROWD; i += 2) {
        crowd_name(name, i);
        assert_true(readers_add(r, i % BUCKETS, name) < CROWD);
    }
    assert_int_equal(readers_bytes(r), full);
    for (unsigned i = 0; i < CROWD; i++) {
        crowd_name(name, i);
        reader_idx at = readers_find(r, name);
        assert_string_equal(readers_name(r, at), name);
        assert_int_equal(readers_bucket(r, at), i % BUCKETS);
    }
    readers_clear(r);
    assert_int_equal(readers_count(r), 0);
    assert_int_equal(readers_bytes(r), 0);
    readers_free(r);
}

static void coming_and_going_for_long_does_not_fill_the_table(void **state)
{
    (void)state;
    struct readers *r = readers_new();
    char name[NAME_MAX_BYTES + 1];
    for (unsigned i = 0; i < CROWD; i++) {
        crowd_name(name, i);
        reader_idx at = readers_add(r, 0, name);
        assert_true(at < 51);
        if (i >= 50) {
            crowd_name(name, i - 50);
            readers_retire(r, readers_find(r, name));
        }
    }
    assert_int_equal(readers_count(r), 50);
    assert_int_equal(r->mask, 127);
    readers_free(r);
}

static void clearing_readers_leaves_who_is_held_to_his_holders(void **state)
{
    (void)state;
    struct readers *r = readers_new();
    readers_add(r, 1, "ann");
    reader_idx bob = readers_add(r, 2, "bob");
    readers_hold(r, bob);
    readers_clear(r);
    assert_int_equal(readers_count(r), 0);
    assert_int_equal(readers_find(r, "bob"), READER_NONE);
    assert_string_equal(readers_name(r, bob), "bob");
    assert_int_not_equal(readers_add(r, 2, "bob"), bob);
    readers_clear(r);
    readers_release(r, bob);
    assert_int_equal(readers_bytes(r), 0);
    readers_free(r);
}

/* ---- lists ---- */

struct desk {
    struct readers *r;
    struct lists *l;
    reader_idx who[2000]; /* in bucket order: reader i is in bucket i * 256 / 2000 */
};

static void open_desk(struct desk *d, size_t max_bytes)
{
    char name[NAME_MAX_BYTES + 1];
    d->r = readers_new();
    d->l = lists_new(d->r, max_bytes);
    for (unsigned i = 0; i < MEM_COUNT(d->who); i++) {
        crowd_name(name, i);
        d->who[i] = readers_add(d->r, i * BUCKETS / MEM_COUNT(d->who), name);
    }
}

static void close_desk(struct desk *d)
{
    lists_clear(d->l);
    assert_int_equal(lists_bytes(d->l), 0);
    assert_int_equal(lists_count_lists(d->l), 0);
    readers_clear(d->r);
    assert_int_equal(readers_bytes(d->r), 0);
    lists_free(d->l);
    readers_free(d->r);
}

static void a_list_is_found_from_the_end_of_its_loading(void **state)
{
    (void)state;
    struct desk d;
    open_desk(&d, ROOMY);
    struct list *list = lists_begin(d.l, "p:daily");
    assert_null(lists_find(d.l, "p:daily"));
    assert_null(lists_begin(d.l, "p:daily"));
    for (unsigned i = 0; i < 100; i++)
        lists_add(d.l, list, d.who[i]);
    assert_null(lists_find(d.l, "p:daily"));
    assert_true(lists_end(d.l, list));
    assert_ptr_equal(lists_find(d.l, "p:daily"), list);
    assert_null(lists_begin(d.l, "p:daily"));
    assert_null(lists_find(d.l, "p:dail"));
    assert_null(lists_find(d.l, "t:daily"));
    assert_true(holds(list, d.who, 100));
    assert_int_equal(lists_at(list, 99), d.who[99]);
    assert_int_equal(lists_count_lists(d.l), 1);
    close_desk(&d);
}

static void an_empty_list_is_a_list(void **state)
{
    (void)state;
    struct desk d;
    open_desk(&d, ROOMY);
    struct list *list = load(d.l, "t:none", NULL, 0);
    size_t n = 1;
    assert_ptr_equal(lists_find(d.l, "t:none"), list);
    assert_null(lists_order(d.l, list, &n));
    assert_int_equal(n, 0);
    lists_newborn(d.l, d.who[5], "t:none");
    assert_int_equal(*lists_order(d.l, list, &n), d.who[5]);
    assert_int_equal(n, 1);
    close_desk(&d);
}

static void a_longest_target_is_kept_whole(void **state)
{
    (void)state;
    struct desk d;
    open_desk(&d, ROOMY);
    char a[TARGET_TEXT_SIZE], b[TARGET_TEXT_SIZE];
    snprintf(a, sizeof a, "p:%064d", 1);
    snprintf(b, sizeof b, "p:%064d", 2);
    struct list *list = load(d.l, a, d.who, 1);
    assert_ptr_equal(lists_find(d.l, a), list);
    assert_null(lists_find(d.l, b));
    close_desk(&d);
}

static void an_aborted_list_is_forgotten_and_lets_go_of_its_readers(void **state)
{
    (void)state;
    struct desk d;
    open_desk(&d, ROOMY);
    struct list *list = lists_begin(d.l, "p:daily");
    lists_add(d.l, list, d.who[0]);
    lists_add(d.l, list, d.who[1]);
    readers_retire(d.r, d.who[0]);
    assert_string_equal(readers_name(d.r, d.who[0]), "reader-0");
    lists_abort(d.l, list);
    lists_abort(d.l, NULL);
    assert_int_equal(lists_bytes(d.l), 0);
    assert_null(lists_find(d.l, "p:daily"));
    assert_int_equal(add_reader(d.r, "new"), d.who[0]);
    assert_non_null(load(d.l, "p:daily", d.who + 1, 1));
    close_desk(&d);
}

static void newborns_come_behind_and_are_put_in_their_place_before_a_walk(void **state)
{
    (void)state;
    struct desk d;
    size_t n;
    open_desk(&d, ROOMY);
    reader_idx early = readers_add(d.r, 0, "early"), late = readers_add(d.r, 255, "late"),
               middle = readers_add(d.r, readers_bucket(d.r, d.who[1000]), "middle");
    struct list *list = load(d.l, "p:daily", d.who, 2000);
    lists_newborn(d.l, late, "p:daily");
    lists_newborn(d.l, middle, "p:daily");
    lists_newborn(d.l, early, "p:daily");
    lists_newborn(d.l, early, "p:other");
    assert_int_equal(lists_count(list), 2003);
    assert_int_equal(lists_at(list, 2002), early);
    const reader_idx *at = lists_order(d.l, list, &n);
    assert_int_equal(n, 2003);
    assert_int_equal(at[2002], late);
    unsigned old = 0, found = 0;
    for (size_t i = 0; i < n; i++) {
        assert_true(i == 0 || readers_bucket(d.r, at[i]) >= readers_bucket(d.r, at[i - 1]));
        if (at[i] == early || at[i] == middle) {
            found++;
            assert_true(readers_bucket(d.r, at[i + 1]) > readers_bucket(d.r, at[i]));
        } else if (at[i] != late) {
            assert_int_equal(at[i], d.who[old++]);
        }
    }
    assert_int_equal(found, 2);
    assert_int_equal(old, 2000);
    close_desk(&d);
}

static void a_newborn_during_loading_is_on_the_list_once(void **state)
{
    (void)state;
    struct desk d;
    size_t n;
    open_desk(&d, ROOMY);
    struct list *list = lists_begin(d.l, "p:daily");
    lists_add(d.l, list, d.who[0]);
    lists_newborn(d.l, d.who[1500], "p:daily");
    lists_add(d.l, list, d.who[1000]);
    lists_add(d.l, list, d.who[1500]);
    lists_newborn(d.l, d.who[0], "p:daily");
    assert_true(lists_end(d.l, list));
    const reader_idx want[] = {d.who[0], d.who[1000], d.who[1500]};
    assert_memory_equal(lists_order(d.l, list, &n), want, sizeof want);
    assert_int_equal(n, 3);
    close_desk(&d);
}

static void the_retired_stay_until_a_walk_has_seen_an_eighth(void **state)
{
    (void)state;
    struct desk d;
    size_t n;
    open_desk(&d, ROOMY);
    struct list *list = load(d.l, "p:daily", d.who, 800);
    size_t before = lists_bytes(d.l);
    for (unsigned i = 0; i < 100; i++)
        readers_retire(d.r, d.who[i]);
    lists_order(d.l, list, &n);
    assert_int_equal(n, 800);
    lists_note_retired_seen(list, 99);
    lists_order(d.l, list, &n);
    assert_int_equal(n, 800);
    lists_note_retired_seen(list, 100);
    lists_note_retired_seen(list, 3);
    lists_order(d.l, list, &n);
    assert_int_equal(n, 700);
    assert_true(holds(list, d.who + 100, 700));
    assert_int_equal(lists_bytes(d.l), before - 100 * sizeof(reader_idx));
    assert_true(add_reader(d.r, "new") < 100);
    close_desk(&d);
}

static void a_retired_reader_is_neither_loaded_nor_born(void **state)
{
    (void)state;
    struct desk d;
    open_desk(&d, ROOMY);
    readers_hold(d.r, d.who[0]);
    readers_retire(d.r, d.who[0]);
    struct list *list = load(d.l, "p:daily", d.who, 3);
    lists_newborn(d.l, d.who[0], "p:daily");
    assert_true(holds(list, d.who + 1, 2));
    readers_release(d.r, d.who[0]);
    close_desk(&d);
}

/* A list that is loading has room for up to a quarter more than it needs. */
#define LOADING_SLACK 200

/* Room for `lists` lists of `n` readers each, and the slots. */
static size_t room_for(size_t lists, size_t n)
{
    return 64 * sizeof(void *) + lists * (sizeof(struct list) + n * sizeof(reader_idx));
}

static void the_least_recently_used_list_makes_room(void **state)
{
    (void)state;
    struct desk d;
    open_desk(&d, room_for(6, 200) + LOADING_SLACK);
    const char *targets[] = {"p:0", "p:1", "p:2", "p:3", "p:4", "p:5", "p:6"};
    for (unsigned i = 0; i < 6; i++)
        assert_non_null(load(d.l, targets[i], d.who, 200));
    assert_int_equal(lists_count_lists(d.l), 6);
    assert_int_equal(lists_evictions(d.l), 0);
    assert_non_null(lists_find(d.l, "p:0"));
    assert_non_null(load(d.l, "p:6", d.who, 200));
    assert_int_equal(lists_evictions(d.l), 1);
    assert_null(lists_find(d.l, "p:1"));
    for (unsigned i = 0; i < 7; i++)
        if (i != 1)
            assert_non_null(lists_find(d.l, targets[i]));
    assert_true(lists_bytes(d.l) <= room_for(6, 200) + LOADING_SLACK);
    close_desk(&d);
}

static void a_list_above_a_quarter_of_the_cap_is_not_kept_and_throws_nobody_out(void **state)
{
    (void)state;
    struct desk d;
    size_t quarter = sizeof(struct list) + 500 * sizeof(reader_idx);
    open_desk(&d, quarter * 4);
    assert_non_null(load(d.l, "p:small", d.who, 100));
    assert_null(load(d.l, "p:large", d.who, 501));
    assert_null(load(d.l, "p:huge", d.who, 2000));
    assert_null(lists_find(d.l, "p:large"));
    assert_non_null(lists_find(d.l, "p:small"));
    assert_non_null(load(d.l, "p:just", d.who, 500));
    assert_int_equal(lists_evictions(d.l), 0);
    lists_newborn(d.l, d.who[500], "p:just");
    assert_null(lists_find(d.l, "p:just"));
    assert_int_equal(lists_evictions(d.l), 1);
    close_desk(&d);
}

static void a_list_too_large_takes_no_memory_while_its_loading_goes_on(void **state)
{
    (void)state;
    struct desk d;
    open_desk(&d, 4000);
    struct list *list = lists_begin(d.l, "p:large");
    for (unsigned i = 0; i < 2000; i++) {
        lists_add(d.l, list, d.who[i]);
        assert_true(lists_bytes(d.l) <= 4000 / 4 + 64 * sizeof(void *));
    }
    assert_int_equal(lists_bytes(d.l), sizeof(struct list));
    lists_newborn(d.l, d.who[0], "p:large");
    assert_int_equal(lists_count(list), 0);
    assert_false(lists_end(d.l, list));
    close_desk(&d);
}

static void without_room_nothing_is_kept(void **state)
{
    (void)state;
    struct desk d;
    open_desk(&d, 0);
    assert_null(load(d.l, "p:daily", d.who, 0));
    assert_null(load(d.l, "p:daily", d.who, 100));
    assert_int_equal(lists_bytes(d.l), 0);
    close_desk(&d);
}

static void loading_lists_together_keep_to_the_cap(void **state)
{
    (void)state;
    struct desk d;
    size_t max = room_for(6, 200);
    struct list *list[8];
    char target[TARGET_TEXT_SIZE];
    unsigned kept = 0;
    open_desk(&d, max);
    for (unsigned k = 0; k < 8; k++) {
        snprintf(target, sizeof target, "p:%u", k);
        list[k] = lists_begin(d.l, target);
    }
    for (unsigned i = 0; i < 200; i++) {
        for (unsigned k = 0; k < 8; k++)
            lists_add(d.l, list[k], d.who[i]);
        assert_true(lists_bytes(d.l) <= max);
    }
    for (unsigned k = 0; k < 8; k++) {
        if (!lists_end(d.l, list[k]))
            continue;
        kept++;
        assert_true(holds(list[k], d.who, 200));
    }
    assert_in_range(kept, 1, 6);
    assert_int_equal(lists_count_lists(d.l), kept);
    close_desk(&d);
}

static void a_pinned_list_is_neither_evicted_nor_ordered_and_still_gets_newborns(void **state)
{
    (void)state;
    struct desk d;
    size_t n;
    open_desk(&d, room_for(5, 200));
    struct list *list = load(d.l, "p:pinned", d.who, 150);
    lists_pin(d.l, list);
    lists_pin(d.l, list);
    for (unsigned i = 0; i < 20; i++) {
        char target[TARGET_TEXT_SIZE];
        snprintf(target, sizeof target, "p:%u", i);
        assert_non_null(load(d.l, target, d.who, 200));
    }
    assert_ptr_equal(lists_find(d.l, "p:pinned"), list);
    for (unsigned i = 0; i < 50; i++)
        readers_retire(d.r, d.who[i]);
    lists_note_retired_seen(list, 50);
    for (unsigned i = 299; i >= 200; i--)
        lists_newborn(d.l, d.who[i], "p:pinned");
    for (unsigned pass = 0; pass < 2; pass++) {
        lists_order(d.l, list, &n);
        assert_int_equal(n, 250);
        assert_memory_equal(list->at, d.who, 150 * sizeof(reader_idx));
        assert_int_equal(lists_at(list, 249), d.who[200]);
        assert_string_equal(readers_name(d.r, lists_at(list, 0)), "reader-0");
        if (pass == 0)
            lists_unpin(d.l, list);
    }
    lists_unpin(d.l, list);
    lists_order(d.l, list, &n);
    assert_int_equal(n, 200);
    assert_int_equal(lists_at(list, 0), d.who[50]);
    close_desk(&d);
}

static void a_pinned_list_that_grew_too_large_goes_with_its_last_pin(void **state)
{
    (void)state;
    struct desk d;
    open_desk(&d, (sizeof(struct list) + 500 * sizeof(reader_idx)) * 4);
    struct list *list = load(d.l, "p:daily", d.who, 500);
    lists_pin(d.l, list);
    for (unsigned i = 500; i < 700; i++)
        lists_newborn(d.l, d.who[i], "p:daily");
    assert_ptr_equal(lists_find(d.l, "p:daily"), list);
    assert_true(holds(list, d.who, 700));
    lists_unpin(d.l, list);
    assert_null(lists_find(d.l, "p:daily"));
    assert_int_equal(lists_evictions(d.l), 1);
    assert_int_equal(lists_bytes(d.l), 0);
    close_desk(&d);
}

static void clearing_leaves_pinned_lists_to_their_walkers_and_loading_ones_to_their_ends(void **state)
{
    (void)state;
    struct desk d;
    open_desk(&d, ROOMY);
    struct list *walked = load(d.l, "p:walked", d.who, 100);
    load(d.l, "p:idle", d.who, 100);
    struct list *loading = lists_begin(d.l, "p:loading"), *aborted = lists_begin(d.l, "p:aborted");
    lists_add(d.l, loading, d.who[0]);
    lists_pin(d.l, walked);
    lists_clear(d.l);
    readers_clear(d.r);
    assert_int_equal(lists_count_lists(d.l), 0);
    assert_null(lists_find(d.l, "p:walked"));
    assert_null(lists_find(d.l, "p:idle"));
    assert_true(holds(walked, d.who, 100));
    assert_string_equal(readers_name(d.r, lists_at(walked, 99)), "reader-99");
    assert_false(readers_active(d.r, lists_at(walked, 99)));
    reader_idx ann = add_reader(d.r, "ann");
    struct list *again = load(d.l, "p:walked", &ann, 1);
    assert_ptr_not_equal(again, walked);
    lists_add(d.l, loading, ann);
    assert_int_equal(lists_count(loading), 0);
    assert_false(lists_end(d.l, loading));
    lists_abort(d.l, aborted);
    lists_unpin(d.l, walked);
    assert_ptr_equal(lists_find(d.l, "p:walked"), again);
    assert_int_equal(lists_bytes(d.l), room_for(1, 1));
    close_desk(&d);
}

static void lists_are_freed_with_pins_and_while_loading(void **state)
{
    (void)state;
    struct desk d;
    open_desk(&d, ROOMY);
    lists_pin(d.l, load(d.l, "p:pinned", d.who, 100));
    lists_add(d.l, lists_begin(d.l, "p:loading"), d.who[0]);
    lists_clear(d.l);
    lists_pin(d.l, load(d.l, "p:pinned", d.who, 100));
    lists_add(d.l, lists_begin(d.l, "p:loading"), d.who[0]);
    lists_free(d.l);
    lists_free(NULL);
    readers_clear(d.r);
    assert_int_equal(readers_bytes(d.r), 0);
    readers_free(d.r);
    readers_free(NULL);
}

static void thousands_of_lists_are_told_apart(void **state)
{
    (void)state;
    struct desk d;
    char target[TARGET_TEXT_SIZE];
    open_desk(&d, ROOMY);
    for (unsigned i = 0; i < 5000; i++) {
        snprintf(target, sizeof target, "t:%u", i);
        assert_non_null(load(d.l, target, d.who + i % 2000, 1));
    }
    for (unsigned i = 0; i < 5000; i++) {
        snprintf(target, sizeof target, "t:%u", i);
        assert_int_equal(lists_at(lists_find(d.l, target), 0), d.who[i % 2000]);
    }
    assert_int_equal(lists_count_lists(d.l), 5000);
    close_desk(&d);
}

/* ---- a model, and random operations on both ---- */

#define NAMES      250
#define TARGETS    12
#define LIFE_LIMIT 40000
#define LIST_LIMIT 60000
#define OPERATIONS 20000

/* One life of a name: from an add to the retirement. */
struct life {
    unsigned name;
    reader_idx idx;
    bool active;
};

struct model_list {
    enum { NO_LIST, IS_LOADING, IS_CACHED, IS_CLEARED } state; /* cleared: still pinned or loading */
    struct list *list;
    bool loaded;
    unsigned pins, n, n_pinned; /* n_pinned: how many there were at the first pin */
    unsigned *lives;            /* in the order they came, LIST_LIMIT */
};

struct model {
    struct readers *r;
    struct lists *l;
    size_t max_bytes;
    uint64_t random, evicted;
    unsigned refused;
    struct life lives[LIFE_LIMIT];
    unsigned n_lives, now[NAMES]; /* the life of a name; LIFE_LIMIT: none */
    struct model_list lists[TARGETS];
};

static unsigned pick(struct model *m, unsigned below)
{
    m->random ^= m->random << 13;
    m->random ^= m->random >> 7;
    m->random ^= m->random << 17;
    return (unsigned)((m->random >> 20) % below);
}

static const char *name_of(unsigned name)
{
    static char out[NAME_MAX_BYTES + 1];
    memset(out, 'n', NAME_MAX_BYTES);
    int n = snprintf(out, sizeof out, "%u", name);
    if (name % 3 == 0)
        out[n] = '-';
    out[NAME_MAX_BYTES] = '\0';
    return out;
}

static const char *target_of(unsigned t)
{
    static char out[TARGET_TEXT_SIZE];
    snprintf(out, sizeof out, "%c:target%u", t % 2 ? 'p' : 't', t);
    return out;
}

static unsigned bucket_of(unsigned name)
{
    return name * 37 % 50 * 5;
}

static void check_readers(struct model *m)
{
    unsigned active = 0;
    for (unsigned k = 0; k < NAMES; k++) {
        reader_idx i = readers_find(m->r, name_of(k));
        assert_int_equal(i, m->now[k] == LIFE_LIMIT ? READER_NONE : m->lives[m->now[k]].idx);
        if (i == READER_NONE)
            continue;
        active++;
        assert_true(readers_active(m->r, i));
        assert_string_equal(readers_name(m->r, i), name_of(k));
        assert_int_equal(readers_bucket(m->r, i), bucket_of(k));
    }
    assert_int_equal(readers_count(m->r), active);
}

/* The cached list as lists_find() knows it; learns of an eviction. */
static struct list *look_up(struct model *m, unsigned t)
{
    struct model_list *x = &m->lists[t];
    struct list *list = lists_find(m->l, target_of(t));
    if (x->state != IS_CACHED) {
        assert_null(list);
    } else if (list) {
        assert_ptr_equal(list, x->list);
    } else {
        assert_int_equal(x->pins, 0);
        x->state = NO_LIST;
        m->evicted++;
    }
    return list;
}

static int by_bucket_then_came(const void *a, const void *b)
{
    const unsigned *x = a, *y = b;
    return x[0] != y[0] ? (x[0] < y[0] ? -1 : 1) : (x[1] > y[1]) - (x[1] < y[1]);
}

/* Nobody knows when retired ones are thrown out: compares the active ones, in their order, each once. */
static void check_ordered(struct model *m, unsigned t)
{
    struct model_list *x = &m->lists[t];
    static bool met[LIFE_LIMIT];
    static unsigned want[NAMES][2];
    unsigned n_want = 0, got = 0, retired = 0;
    size_t n;
    for (unsigned i = 0; i < x->n; i++) {
        unsigned life = x->lives[i];
        if (!m->lives[life].active || met[life])
            continue;
        met[life] = true;
        want[n_want][0] = bucket_of(m->lives[life].name);
        want[n_want++][1] = i;
    }
    for (unsigned i = 0; i < x->n; i++)
        met[x->lives[i]] = false;
    qsort(want, n_want, sizeof want[0], by_bucket_then_came);
    const reader_idx *at = lists_order(m->l, x->list, &n);
    for (size_t i = 0; i < n; i++) {
        if (!readers_active(m->r, at[i])) {
            retired++;
            continue;
        }
        assert_true(got < n_want);
        assert_int_equal(at[i], m->lives[x->lives[want[got++][1]]].idx);
    }
    assert_int_equal(got, n_want);
    if (pick(m, 2))
        lists_note_retired_seen(x->list, retired);
    /* from now on this is the order in which they came */
    static unsigned kept[NAMES];
    for (unsigned i = 0; i < n_want; i++)
        kept[i] = x->lives[want[i][1]];
    memcpy(x->lives, kept, n_want * sizeof kept[0]);
    x->n = n_want;
}

/* A pinned list is still what it was, retired ones with their names. */
static void check_pinned(struct model *m, unsigned t)
{
    struct model_list *x = &m->lists[t];
    size_t n = lists_count(x->list), behind = x->n - x->n_pinned;
    assert_true(n >= behind);
    for (size_t i = 0; i < behind; i++) {
        const struct life *life = &m->lives[x->lives[x->n_pinned + i]];
        reader_idx idx = lists_at(x->list, n - behind + i);
        assert_int_equal(idx, life->idx);
        assert_string_equal(readers_name(m->r, idx), name_of(life->name));
        assert_int_equal(readers_active(m->r, idx), life->active);
    }
    size_t i = 0;
    for (unsigned k = 0; k < x->n_pinned; k++) {
        const struct life *life = &m->lives[x->lives[k]];
        while (i < n && lists_at(x->list, i) != life->idx)
            i++;
        assert_true(i < n - behind);
        assert_string_equal(readers_name(m->r, life->idx), name_of(life->name));
    }
}

static void put(struct model_list *x, unsigned life)
{
    assert_true(x->n < LIST_LIMIT);
    x->lives[x->n++] = life;
}

static void do_add_or_retire(struct model *m, bool retire)
{
    unsigned k = pick(m, NAMES);
    if (!retire && m->now[k] == LIFE_LIMIT) {
        assert_true(m->n_lives < LIFE_LIMIT);
        m->now[k] = m->n_lives++;
        m->lives[m->now[k]] =
            (struct life){.name = k, .idx = readers_add(m->r, bucket_of(k), name_of(k)), .active = true};
    } else if (!retire) {
        assert_int_equal(readers_add(m->r, bucket_of(k), name_of(k)), m->lives[m->now[k]].idx);
    } else if (m->now[k] != LIFE_LIMIT) {
        readers_retire(m->r, m->lives[m->now[k]].idx);
        m->lives[m->now[k]].active = false;
        m->now[k] = LIFE_LIMIT;
    }
}

static void do_newborn(struct model *m)
{
    unsigned k = pick(m, NAMES), t = pick(m, TARGETS);
    if (m->now[k] == LIFE_LIMIT)
        return;
    lists_newborn(m->l, m->lives[m->now[k]].idx, target_of(t));
    if (m->lists[t].state == IS_LOADING || m->lists[t].state == IS_CACHED)
        put(&m->lists[t], m->now[k]);
}

/* Begins a list that is not there; now and then one that is. */
static void do_begin(struct model *m, unsigned t)
{
    struct model_list *x = &m->lists[t];
    if (x->state == IS_CLEARED || look_up(m, t))
        return;
    struct list *list = lists_begin(m->l, target_of(t));
    if (x->state == IS_LOADING) {
        /* unless it grew too large, somebody is loading it */
        if (list)
            lists_abort(m->l, list);
        return;
    }
    assert_non_null(list);
    x->state = IS_LOADING;
    x->list = list;
    x->loaded = false;
    x->n = 0;
}

static void do_load(struct model *m, unsigned t)
{
    struct model_list *x = &m->lists[t];
    unsigned stride = 1 + pick(m, 12);
    if (x->state != IS_LOADING || x->loaded)
        return;
    x->loaded = true;
    for (unsigned b = 0; b < BUCKETS; b++) {
        for (unsigned k = 0; k < NAMES; k++) {
            if (bucket_of(k) != b || k % stride || m->now[k] == LIFE_LIMIT)
                continue;
            lists_add(m->l, x->list, m->lives[m->now[k]].idx);
            put(x, m->now[k]);
        }
    }
}

static void do_finish(struct model *m, unsigned t, bool abort)
{
    struct model_list *x = &m->lists[t];
    if (x->state != IS_LOADING)
        return;
    x->state = NO_LIST;
    size_t size = sizeof(struct list) + x->n * sizeof(reader_idx), others = 0;
    for (unsigned i = 0; i < TARGETS; i++)
        others += i != t && (m->lists[i].state == IS_LOADING || m->lists[i].pins > 0);
    if (abort) {
        lists_abort(m->l, x->list);
    } else if (lists_end(m->l, x->list)) {
        x->state = IS_CACHED;
        assert_true(x->list->n * sizeof(reader_idx) + sizeof(struct list) <= m->max_bytes / 4);
    } else {
        assert_true(size > m->max_bytes / 4 || others > 0);
        m->refused++;
    }
}

static void do_order(struct model *m, unsigned t)
{
    if (m->lists[t].pins == 0 && m->lists[t].state == IS_CACHED && look_up(m, t))
        check_ordered(m, t);
}

static void do_pin(struct model *m, unsigned t)
{
    struct model_list *x = &m->lists[t];
    if (x->state != IS_CACHED || !look_up(m, t))
        return;
    if (x->pins == 0) {
        check_ordered(m, t);
        x->n_pinned = x->n;
    }
    lists_pin(m->l, x->list);
    x->pins++;
}

static void do_unpin(struct model *m, unsigned t)
{
    struct model_list *x = &m->lists[t];
    if (x->pins == 0)
        return;
    check_pinned(m, t);
    lists_unpin(m->l, x->list);
    if (--x->pins == 0 && x->state == IS_CLEARED)
        x->state = NO_LIST;
}

static void do_clear(struct model *m)
{
    for (unsigned t = 0; t < TARGETS; t++)
        look_up(m, t);
    lists_clear(m->l);
    assert_int_equal(lists_count_lists(m->l), 0);
    for (unsigned t = 0; t < TARGETS; t++) {
        struct model_list *x = &m->lists[t];
        if (x->state == IS_LOADING) {
            assert_false(lists_end(m->l, x->list));
            x->state = NO_LIST;
        } else if (x->state == IS_CACHED) {
            x->state = x->pins > 0 ? IS_CLEARED : NO_LIST;
        }
    }
    if (pick(m, 2))
        return;
    readers_clear(m->r);
    for (unsigned k = 0; k < NAMES; k++) {
        if (m->now[k] != LIFE_LIMIT)
            m->lives[m->now[k]].active = false;
        m->now[k] = LIFE_LIMIT;
    }
}

static bool any_pinned(const struct model *m)
{
    for (unsigned t = 0; t < TARGETS; t++)
        if (m->lists[t].pins > 0)
            return true;
    return false;
}

static void step(struct model *m)
{
    unsigned t = pick(m, TARGETS), what = pick(m, 1000);
    if (what < 250)
        do_add_or_retire(m, false);
    else if (what < 400)
        do_add_or_retire(m, true);
    else if (what < 600)
        do_newborn(m);
    else if (what < 700)
        do_begin(m, t);
    else if (what < 750)
        do_load(m, t);
    else if (what < 820)
        do_finish(m, t, what < 755);
    else if (what < 900)
        do_order(m, t);
    else if (what < 940)
        do_pin(m, t);
    else if (what < 998 || pick(m, 5) > 0)
        do_unpin(m, t);
    else
        do_clear(m);
    if (!any_pinned(m))
        assert_in_range(lists_bytes(m->l), 0, m->max_bytes + TARGETS * sizeof(struct list));
}

static void run_model(uint64_t seed, size_t max_bytes)
{
    struct model *m = mem_zero(1, sizeof *m);
    printf("seed %llu, cap %zu bytes\n", (unsigned long long)seed, max_bytes);
    fflush(stdout);
    m->random = seed;
    m->max_bytes = max_bytes;
    m->r = readers_new();
    m->l = lists_new(m->r, max_bytes);
    for (unsigned k = 0; k < NAMES; k++)
        m->now[k] = LIFE_LIMIT;
    for (unsigned t = 0; t < TARGETS; t++)
        m->lists[t].lives = mem_zero(LIST_LIMIT, sizeof(unsigned));
    for (unsigned i = 0; i < OPERATIONS; i++) {
        step(m);
        if (i % 100 == 0)
            check_readers(m);
    }
    for (unsigned t = 0; t < TARGETS; t++) {
        while (m->lists[t].pins > 0)
            do_unpin(m, t);
        look_up(m, t);
        do_finish(m, t, true);
        free(m->lists[t].lives);
    }
    assert_int_equal(lists_evictions(m->l), m->evicted);
    printf("  %llu evictions, %u refused, %u lives, %u indices\n", (unsigned long long)m->evicted, m->refused,
           m->n_lives, m->r->n);
    lists_clear(m->l);
    assert_int_equal(lists_bytes(m->l), 0);
    readers_clear(m->r);
    assert_int_equal(readers_bytes(m->r), 0);
    lists_free(m->l);
    readers_free(m->r);
    free(m);
}

static void random_operations_agree_with_a_simple_model(void **state)
{
    (void)state;
    const size_t caps[] = {1500, 2500, 4000, 1 << 20};
    for (size_t i = 0; i < MEM_COUNT(caps); i++)
        run_model(20261121 + i, caps[i]);
    run_model((uint64_t)time(NULL) << 8 | 1, 3000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reader_is_found_by_name_until_he_retires),
        cmocka_unit_test(a_retired_reader_keeps_his_index_for_as_long_as_he_is_held),
        cmocka_unit_test(an_active_reader_stays_when_nobody_holds_him),
        cmocka_unit_test(a_mark_is_new_once_a_task_and_for_who_takes_over_the_index),
        cmocka_unit_test(a_reader_is_met_once_a_round_also_when_rounds_have_come_round),
        cmocka_unit_test(names_of_1_and_of_64_bytes_are_kept_whole),
        cmocka_unit_test(two_hundred_thousand_come_half_go_and_all_are_found_rightly),
        cmocka_unit_test(coming_and_going_for_long_does_not_fill_the_table),
        cmocka_unit_test(clearing_readers_leaves_who_is_held_to_his_holders),
        cmocka_unit_test(a_list_is_found_from_the_end_of_its_loading),
        cmocka_unit_test(an_empty_list_is_a_list),
        cmocka_unit_test(a_longest_target_is_kept_whole),
        cmocka_unit_test(an_aborted_list_is_forgotten_and_lets_go_of_its_readers),
        cmocka_unit_test(newborns_come_behind_and_are_put_in_their_place_before_a_walk),
        cmocka_unit_test(a_newborn_during_loading_is_on_the_list_once),
        cmocka_unit_test(the_retired_stay_until_a_walk_has_seen_an_eighth),
        cmocka_unit_test(a_retired_reader_is_neither_loaded_nor_born),
        cmocka_unit_test(the_least_recently_used_list_makes_room),
        cmocka_unit_test(a_list_above_a_quarter_of_the_cap_is_not_kept_and_throws_nobody_out),
        cmocka_unit_test(a_list_too_large_takes_no_memory_while_its_loading_goes_on),
        cmocka_unit_test(without_room_nothing_is_kept),
        cmocka_unit_test(loading_lists_together_keep_to_the_cap),
        cmocka_unit_test(a_pinned_list_is_neither_evicted_nor_ordered_and_still_gets_newborns),
        cmocka_unit_test(a_pinned_list_that_grew_too_large_goes_with_its_last_pin),
        cmocka_unit_test(clearing_leaves_pinned_lists_to_their_walkers_and_loading_ones_to_their_ends),
        cmocka_unit_test(lists_are_freed_with_pins_and_while_loading),
        cmocka_unit_test(thousands_of_lists_are_told_apart),
        cmocka_unit_test(random_operations_agree_with_a_simple_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
