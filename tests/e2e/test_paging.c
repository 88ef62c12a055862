/* test_paging.c - P3, no holes and no duplicates, and P4, cursors: pages of one feed while others publish,
 * while what is followed and muted changes, and while everything that a page is made from is taken away or
 * restarted.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/keys.h"
#include "common/mem.h"
#include "tests/support/e2e_stack.h"
#include "tests/support/flights.h"

#define FIRST_ITEMS 80

static struct e2e_stack stack;

static int start_stack(void **state)
{
    (void)state;
    e2e_stack_start(&stack, &(struct e2e_stack_options){.n_apis = 2});
    return 0;
}

static int stop_stack(void **state)
{
    (void)state;
    return e2e_stack_stop(&stack);
}

static void begin(struct driver *d, uint64_t seed, const char *label)
{
    driver_init(d, seed, label, stack.apis, 2, stack.redis);
    driver_setup(d, FIRST_ITEMS);
    driver_catch_up(d);
}

/* ---- P3 ---- */

/* Pages through the first user's feed; a few writes before each page. Each page is compared with the model of
 * that moment, between the ends of the page before and its own: what stays is shown once, what left is not,
 * what entered is. */
static void page_while_writing(struct driver *d, unsigned flags, bool with_position)
{
    char path[200];
    snprintf(path, sizeof path, "/v1/users/%s/feed", driver_user(d, 0));
    item_id before = ITEM_ID_MAX + 1;
    char *cursor = NULL;
    unsigned pages = 0;
    d->writers = with_position ? 2 : 1;
    do {
        struct e2e_page p;
        char query[32], what[300];
        for (unsigned i = rng_below(&d->rng, 6); i > 0; i--)
            driver_step(d, flags);
        snprintf(query, sizeof query, "limit=%u", 1 + rng_below(&d->rng, 9));
        struct e2e_api *a = &stack.apis[with_position ? rng_below(&d->rng, 2) : 0];
        e2e_page(a, path, query, cursor, with_position ? d->position : 0, &p);
        item_id from = p.next && p.n > 0 ? p.items[p.n - 1].id : 0;
        snprintf(what, sizeof what, "page %u of %s", pages++, path);
        if (p.n > 0 && p.items[0].id >= before)
            driver_fail(d, "%s: item %" PRIu64 " again, or out of order", what, p.items[0].id);
        for (size_t i = 1; i < p.n; i++)
            if (p.items[i].id >= p.items[i - 1].id)
                driver_fail(d, "%s: item %" PRIu64 " is out of order", what, p.items[i].id);
        if (p.n > 0 || !p.next)
            driver_check_range(d, 0, p.items, p.n, before, from, with_position, what);
        before = p.n > 0 ? p.items[p.n - 1].id : before;
        free(cursor);
        cursor = mem_strdup(p.next);
        e2e_page_done(&p);
        assert_true(pages < 1000);
    } while (cursor);
    assert_true(pages > 3);
}

static void p3_pages_have_no_holes_and_no_duplicates_while_others_publish(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct driver d;
        begin(&d, seed, "publish");
        page_while_writing(&d, 0, seed % 2);
        driver_done(&d);
    }
}

static void p3_pages_have_no_holes_and_no_duplicates_while_the_graph_changes(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct driver d;
        begin(&d, seed, "graph");
        page_while_writing(&d, DRIVER_GRAPH, seed % 2);
        driver_done(&d);
    }
}

/* ---- pages while writes are under way ---- */

/* What was in the feed at every moment, and what was at any. */
struct seen_states {
    item_id *always, *ever;
    size_t n_always, n_ever;
};

static bool has_id(const item_id *ids, size_t n, item_id id)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] == id)
            return true;
    return false;
}

static void note_state(struct seen_states *s, const struct driver *d, bool first)
{
    size_t n, left = 0;
    const struct model_item **feed = model_feed(&d->model, 0, &n);
    item_id *ids = mem_alloc((n + 1) * sizeof *ids);
    for (size_t i = 0; i < n; i++) {
        ids[i] = feed[i]->id;
        if (has_id(s->ever, s->n_ever, ids[i]))
            continue;
        s->ever = mem_grow(s->ever, s->n_ever + 1, sizeof *s->ever);
        s->ever[s->n_ever++] = ids[i];
    }
    if (first) {
        s->always = mem_grow(NULL, n + 1, sizeof *s->always);
        memcpy(s->always, ids, n * sizeof *ids);
        s->n_always = n;
    }
    for (size_t i = 0; i < s->n_always; i++)
        if (has_id(ids, n, s->always[i]))
            s->always[left++] = s->always[i];
    s->n_always = left;
    free(ids);
    free(feed);
}

static void page_under_writes(struct driver *d, unsigned flags)
{
    char path[200];
    struct seen_states states = {0};
    item_id *shown = NULL;
    size_t n_shown = 0;
    char *cursor = NULL;
    snprintf(path, sizeof path, "/v1/users/%s/feed", driver_user(d, 0));
    note_state(&states, d, true);
    do {
        struct flights f;
        struct e2e_page p;
        char query[64];
        flights_send(d, flags, 1 + rng_below(&d->rng, 4), &f);
        snprintf(query, sizeof query, "limit=%u&fields=ids", 1 + rng_below(&d->rng, 9));
        e2e_page(&stack.apis[rng_below(&d->rng, 2)], path, query, cursor, cursor ? 0 : d->delivered, &p);
        flights_read(d, &f);
        assert_int_equal(f.n, 0);
        note_state(&states, d, false);
        shown = mem_grow(shown, n_shown + p.n + 1, sizeof *shown);
        for (size_t i = 0; i < p.n; i++) {
            if (n_shown > 0 && p.items[i].id >= shown[n_shown - 1])
                driver_fail(d, "%s: item %" PRIu64 " again, or out of order", path, p.items[i].id);
            shown[n_shown++] = p.items[i].id;
        }
        free(cursor);
        cursor = mem_strdup(p.next);
        e2e_page_done(&p);
    } while (cursor);
    for (size_t i = 0; i < states.n_always; i++)
        if (!has_id(shown, n_shown, states.always[i]))
            driver_fail(d, "%s: item %" PRIu64 " was there all the time and is on no page", path,
                        states.always[i]);
    for (size_t i = 0; i < n_shown; i++)
        if (!has_id(states.ever, states.n_ever, shown[i]))
            driver_fail(d, "%s: item %" PRIu64 " was never in the feed and is on a page", path, shown[i]);
    assert_true(states.n_always > 10);
    free(states.always);
    free(states.ever);
    free(shown);
}

static void p3_pages_have_no_holes_and_no_duplicates_while_writes_are_under_way(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct driver d;
        begin(&d, seed, "under");
        page_under_writes(&d, seed % 2 ? DRIVER_GRAPH : 0);
        driver_done(&d);
    }
}

/* fanout stands still, so what was published after is in no timeline; the cursor of a page that shows it has
 * to carry on as new, at the other process too. */
static void p3_later_pages_are_as_new_as_the_first_one_at_any_process(void **state)
{
    (void)state;
    struct driver d;
    begin(&d, 77, "asnew");
    d.writers = 1;
    driver_check_delivered(&d, 0);
    server_pause(stack.fanout);
    for (unsigned i = 0; i < 40; i++)
        driver_step(&d, 0);
    char path[200], what[] = "pages at two processes";
    snprintf(path, sizeof path, "/v1/users/%s/feed", driver_user(&d, 0));
    item_id before = ITEM_ID_MAX + 1;
    char *cursor = NULL;
    for (unsigned i = 0; i == 0 || cursor; i++) {
        struct e2e_page p;
        e2e_page(&stack.apis[i % 2], path, "limit=6", cursor, i == 0 ? d.position : 0, &p);
        driver_check_range(&d, 0, p.items, p.n, before, p.next ? p.items[p.n - 1].id : 0, true, what);
        before = p.n > 0 ? p.items[p.n - 1].id : before;
        free(cursor);
        cursor = mem_strdup(p.next);
        e2e_page_done(&p);
    }
    server_continue(stack.fanout);
    driver_check_delivered(&d, 0);
    driver_done(&d);
}

/* ---- P4 ---- */

struct place {
    struct driver d;
    char path[200];
    char *cursor;          /* after ten items */
    struct e2e_page after; /* what it has to show, whatever happens */
};

static void make_place(struct place *p, uint64_t seed)
{
    struct e2e_page first;
    memset(p, 0, sizeof *p);
    begin(&p->d, seed, "place");
    snprintf(p->path, sizeof p->path, "/v1/users/%s/feed", driver_user(&p->d, 0));
    e2e_page(&stack.apis[0], p->path, "limit=10", NULL, p->d.position, &first);
    assert_int_equal(first.n, 10);
    p->cursor = mem_strdup(first.next);
    assert_non_null(p->cursor);
    e2e_page_done(&first);
    e2e_page(&stack.apis[0], p->path, "limit=15", p->cursor, 0, &p->after);
    assert_int_equal(p->after.n, 15);
}

static void check_place(struct place *p, const char *when)
{
    for (size_t i = 0; i < 2; i++) {
        struct e2e_page now;
        e2e_page(&stack.apis[i], p->path, "limit=15", p->cursor, 0, &now);
        if (now.n != p->after.n)
            driver_fail(&p->d, "%s: the cursor shows %zu items, not %zu", when, now.n, p->after.n);
        for (size_t k = 0; k < now.n; k++)
            if (now.items[k].id != p->after.items[k].id)
                driver_fail(&p->d, "%s: the cursor shows %" PRIu64 " in place %zu, not %" PRIu64, when,
                            now.items[k].id, k, p->after.items[k].id);
        e2e_page_done(&now);
    }
}

static void place_done(struct place *p)
{
    e2e_page_done(&p->after);
    free(p->cursor);
    driver_done(&p->d);
}

static void p4_a_cursor_stays_valid_through_trims_and_rebuilds(void **state)
{
    (void)state;
    struct place p;
    struct e2e_timeline tl;
    char key[KEY_SIZE];
    make_place(&p, 5);
    for (unsigned i = 0; i < 30; i++)
        e2e_publish(&stack.apis[0], driver_publisher(&p.d, 0), NULL, "newer", NULL, 0, &p.d.position);
    driver_catch_up(&p.d);
    assert_true(e2e_timeline(stack.redis, driver_user(&p.d, 0), &tl));
    assert_true(tl.floor > p.after.items[0].id); /* trimmed to above the cursor */
    check_place(&p, "after trims");
    keys_timeline(key, keys_bucket(driver_user(&p.d, 0)), driver_user(&p.d, 0));
    freeReplyObject(e2e_redis_do(stack.redis, "DEL %s", key));
    check_place(&p, "after the timeline was lost");
    ts_t t = e2e_write(&stack.apis[0], "PUT", "/v1/users/%s/follows/topic/another", driver_user(&p.d, 0));
    assert_true(t > 0);
    check_place(&p, "after a follow");
    place_done(&p);
}

static void p4_a_cursor_stays_valid_when_redis_is_flushed(void **state)
{
    (void)state;
    struct place p;
    make_place(&p, 6);
    freeReplyObject(e2e_redis_do(stack.redis, "FLUSHALL"));
    check_place(&p, "right after FLUSHALL");
    driver_catch_up(&p.d);
    check_place(&p, "later after FLUSHALL");
    place_done(&p);
}

static void p4_a_cursor_stays_valid_when_feed_api_restarts(void **state)
{
    (void)state;
    struct place p;
    struct err e;
    make_place(&p, 7);
    for (size_t i = 0; i < 2; i++) {
        if (i == 0)
            assert_int_equal(server_stop(stack.servers[i], 20000, &e), 0);
        else
            server_kill(stack.servers[i]);
        e2e_api_drop(&stack.apis[i]);
        fixture_restart(stack.f, stack.servers[i]);
        check_place(&p, i == 0 ? "after a restart" : "after kill -9");
    }
    place_done(&p);
}

static int status_with_cursor(const char *path, const char *cursor)
{
    struct reply r;
    char *full = mem_printf("%s?limit=5&cursor=%s", path, cursor);
    e2e_call(&stack.apis[0], "GET", full, NULL, 0, &r);
    int status = r.status;
    if (status == 400) {
        json_t *j = reply_json(&r);
        assert_string_equal(json_string_value(json_object_get(j, "type")), "/problems/invalid_cursor");
        json_decref(j);
    }
    reply_done(&r);
    free(full);
    return status;
}

static void p4_a_cursor_with_any_character_changed_is_refused(void **state)
{
    (void)state;
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    struct place p;
    make_place(&p, 8);
    char *changed = mem_strdup(p.cursor);
    for (size_t i = 0; i < strlen(changed); i++) {
        const char *at = strchr(alphabet, changed[i]);
        assert_non_null(at);
        char was = changed[i];
        /* the neighbour too: the last character of base64 has bits that say nothing */
        static const unsigned steps[] = {1, 2, 32, 63};
        for (size_t k = 0; k < MEM_COUNT(steps); k++) {
            changed[i] = alphabet[((size_t)(at - alphabet) ^ steps[k]) % 64];
            if (status_with_cursor(p.path, changed) != 400)
                fail_msg("a cursor with character %zu changed from %c to %c is taken", i, was, changed[i]);
        }
        changed[i] = was;
    }
    assert_int_equal(status_with_cursor(p.path, changed), 200);
    for (size_t n = 0; n < strlen(p.cursor); n += 7) {
        char *part = mem_strndup(p.cursor, n);
        assert_int_equal(status_with_cursor(p.path, part), 400);
        free(part);
    }
    char *longer = mem_printf("%sA", p.cursor);
    assert_int_equal(status_with_cursor(p.path, longer), 400);
    free(longer);
    free(changed);
    place_done(&p);
}

static void p4_a_cursor_of_another_reader_or_route_is_refused(void **state)
{
    (void)state;
    struct place p;
    make_place(&p, 9);
    char path[200];
    snprintf(path, sizeof path, "/v1/users/%s/feed", driver_user(&p.d, 1));
    assert_int_equal(status_with_cursor(path, p.cursor), 400);
    snprintf(path, sizeof path, "/v1/publishers/%s/items", driver_publisher(&p.d, 0));
    assert_int_equal(status_with_cursor(path, p.cursor), 400);
    struct e2e_page items;
    e2e_page(&stack.apis[0], path, "limit=1", NULL, p.d.position, &items);
    assert_non_null(items.next);
    assert_int_equal(status_with_cursor(path, items.next), 200);
    assert_int_equal(status_with_cursor(p.path, items.next), 400);
    snprintf(path, sizeof path, "/v1/topics/%s/items", driver_publisher(&p.d, 0));
    assert_int_equal(status_with_cursor(path, items.next), 400);
    e2e_page_done(&items);
    char *ranked = mem_printf("%s&order=ranked", p.cursor);
    struct reply r;
    char *full = mem_printf("%s?cursor=%s", p.path, ranked);
    e2e_call(&stack.apis[0], "GET", full, NULL, 400, &r);
    reply_done(&r);
    free(full);
    free(ranked);
    assert_int_equal(status_with_cursor(p.path, ""), 400);
    place_done(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(p3_pages_have_no_holes_and_no_duplicates_while_others_publish),
        cmocka_unit_test(p3_pages_have_no_holes_and_no_duplicates_while_the_graph_changes),
        cmocka_unit_test(p3_pages_have_no_holes_and_no_duplicates_while_writes_are_under_way),
        cmocka_unit_test(p3_later_pages_are_as_new_as_the_first_one_at_any_process),
        cmocka_unit_test(p4_a_cursor_stays_valid_through_trims_and_rebuilds),
        cmocka_unit_test(p4_a_cursor_stays_valid_when_redis_is_flushed),
        cmocka_unit_test(p4_a_cursor_stays_valid_when_feed_api_restarts),
        cmocka_unit_test(p4_a_cursor_with_any_character_changed_is_refused),
        cmocka_unit_test(p4_a_cursor_of_another_reader_or_route_is_refused),
    };
    e2e_choose_tests();
    return cmocka_run_group_tests_name("paging", tests, start_stack, stop_stack);
}
