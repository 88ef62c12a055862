/* test_newer.c - what is newer: pages after a point, the reader's marker, how many items there are.
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
#include "common/mem.h"
#include "tests/support/e2e_stack.h"

static struct e2e_stack stack;
static struct rng chance = {.state = 1};
static unsigned names; /* each test has a reader and a publisher of its own */

static int start_stack(void **state)
{
    (void)state;
    e2e_stack_start(&stack, &(struct e2e_stack_options){.n_apis = 2, .ranker = true});
    return 0;
}

static int stop_stack(void **state)
{
    (void)state;
    return e2e_stack_stop(&stack);
}

/* ---- small things ---- */

#define ITEMS_MAX 400

struct reader {
    char user[32], publisher[32], feed[80];
    ts_t position;
    int64_t next_ms;        /* published_at of the next item */
    item_id ids[ITEMS_MAX]; /* as published: the newest last */
    size_t n;
};

static struct e2e_api *some_api(void)
{
    return &stack.apis[rng_below(&chance, 2)];
}

static struct reader new_reader(void)
{
    struct reader r = {.next_ms = clock_wall_ms() - (int64_t)ITEMS_MAX * 60000};
    snprintf(r.user, sizeof r.user, "newer-u%u", ++names);
    snprintf(r.publisher, sizeof r.publisher, "newer-p%u", names);
    snprintf(r.feed, sizeof r.feed, "/v1/users/%s/feed", r.user);
    r.position = e2e_write(&stack.apis[0], "PUT", "/v1/users/%s/follows/publisher/%s", r.user, r.publisher);
    return r;
}

/* n items, one a minute. */
static void publish(struct reader *r, size_t n)
{
    for (size_t i = 0; i < n; i++, r->next_ms += 30000)
        r->ids[r->n++] =
            e2e_publish(some_api(), r->publisher, NULL, "an item", NULL, r->next_ms, &r->position);
}

static void first_page(struct reader *r, const char *query, struct e2e_page *out)
{
    e2e_page(some_api(), r->feed, query, NULL, r->position, out);
}

/* Asks for a page with this query and expects a status. */
static void ask(const struct reader *r, int status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void ask(const struct reader *r, int status, const char *fmt, ...)
{
    char query[4000], *path;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(query, sizeof query, fmt, ap);
    va_end(ap);
    path = mem_printf("%s?%s", r->feed, query);
    json_decref(e2e_json(some_api(), "GET", path, NULL, status));
    free(path);
}

/* ---- after ---- */

/* Pages after newest to the end and compares them with the items from the `from`th on. */
static void check_after(struct reader *r, const char *newest, size_t from)
{
    char *cursor = NULL;
    size_t at = r->n;
    do {
        char query[900];
        struct e2e_page p;
        bool with_after = !cursor || rng_percent(&chance, 50);
        snprintf(query, sizeof query, "limit=%u%s%s", 1 + rng_below(&chance, 9), with_after ? "&after=" : "",
                 with_after ? newest : "");
        e2e_page(some_api(), r->feed, query, cursor, cursor ? 0 : r->position, &p);
        assert_string_equal(p.state, "complete");
        for (size_t i = 0; i < p.n; i++) {
            assert_true(at > from);
            assert_int_equal(p.items[i].id, r->ids[--at]);
        }
        free(cursor);
        cursor = mem_strdup(p.next);
        e2e_page_done(&p);
    } while (cursor);
    assert_int_equal(at, from);
}

static void pages_after_a_point_show_what_is_newer_and_end_there(void **state)
{
    (void)state;
    struct reader r = new_reader();
    struct e2e_page p;
    publish(&r, 30);
    first_page(&r, "limit=3", &p);
    check_after(&r, p.newest, 30);
    static const size_t more[] = {1, 5, 20, 40}; /* within and beyond what a timeline of 8 holds */
    for (size_t i = 0; i < MEM_COUNT(more); i++) {
        publish(&r, more[i]);
        check_after(&r, p.newest, 30);
    }
    struct e2e_page again;
    first_page(&r, "limit=1", &again);
    check_after(&r, again.newest, r.n);
    e2e_page_done(&again);
    e2e_page_done(&p);
}

static void a_page_after_a_point_does_not_read_the_store_for_what_the_timeline_has(void **state)
{
    (void)state;
    struct reader r = new_reader();
    struct e2e_page p;
    char path[1000];
    publish(&r, 30);
    first_page(&r, "limit=1", &p);
    publish(&r, 3);
    assert_true(e2e_caught_up(stack.redis, r.user, r.position));
    snprintf(path, sizeof path, "limit=100&after=%s", p.newest);
    struct e2e_page q;
    e2e_page(&stack.apis[0], r.feed, path, NULL, r.position, &q); /* so that bodies are cached */
    e2e_page_done(&q);
    static const char *const store = "feedmill_page_source_total{source=\"store\"}",
                             *const both = "feedmill_page_source_total{source=\"both\"}";
    double before = e2e_metric(&stack.apis[0], store) + e2e_metric(&stack.apis[0], both);
    e2e_page(&stack.apis[0], r.feed, path, NULL, 0, &q);
    assert_int_equal(q.n, 3);
    assert_null(q.next);
    assert_true(e2e_metric(&stack.apis[0], store) + e2e_metric(&stack.apis[0], both) == before);
    e2e_page_done(&q);
    e2e_page_done(&p);
}

static void after_is_refused_where_it_means_nothing(void **state)
{
    (void)state;
    struct reader r = new_reader(), other = new_reader();
    struct e2e_page p, later, foreign;
    publish(&r, 12);
    publish(&other, 2);
    first_page(&r, "limit=2", &p);
    first_page(&other, "limit=1", &foreign);
    publish(&r, 6);
    first_page(&r, "limit=2", &later);
    assert_string_not_equal(p.newest, later.newest);
    ask(&r, 200, "after=%s", p.newest);
    ask(&r, 200, "after=%s&order=latest", p.newest);
    ask(&r, 400, "after=%s&order=ranked", p.newest);
    ask(&r, 400, "after=%s", foreign.newest);
    ask(&r, 400, "after=%s", p.next);
    ask(&r, 400, "after=");
    ask(&r, 400, "cursor=%s", p.newest);
    p.newest[strlen(p.newest) - 3] ^= 1;
    ask(&r, 400, "after=%s", p.newest);
    p.newest[strlen(p.newest) - 3] ^= 1;
    /* a cursor of a paging without `after`, and of one with another */
    ask(&r, 400, "cursor=%s&after=%s", later.next, p.newest);
    struct e2e_page bounded;
    char query[1000];
    snprintf(query, sizeof query, "limit=2&after=%s", p.newest);
    first_page(&r, query, &bounded);
    assert_non_null(bounded.next);
    ask(&r, 200, "cursor=%s", bounded.next);
    ask(&r, 200, "cursor=%s&after=%s", bounded.next, p.newest);
    ask(&r, 400, "cursor=%s&after=%s", bounded.next, later.newest);
    e2e_page_done(&bounded);
    e2e_page_done(&p);
    e2e_page_done(&later);
    e2e_page_done(&foreign);
}

struct seen_ids {
    item_id ids[4 * ITEMS_MAX];
    size_t n;
};

static void note(struct seen_ids *s, item_id id)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->ids[i] == id)
            return;
    assert_true(s->n < MEM_COUNT(s->ids));
    s->ids[s->n++] = id;
}

/* Reads all that is newer than what *newest says, and moves it on, as a client does that keeps a list. */
static void poll(struct reader *r, char **newest, ts_t position, struct seen_ids *seen)
{
    char *cursor = NULL, *next_newest = NULL;
    do {
        struct e2e_page p;
        char query[1000];
        snprintf(query, sizeof query, "limit=%u&fields=ids%s%s", 1 + rng_below(&chance, 10),
                 cursor || !*newest ? "" : "&after=", cursor || !*newest ? "" : *newest);
        e2e_page(some_api(), r->feed, query, cursor, cursor ? 0 : position, &p);
        for (size_t i = 0; i < p.n; i++)
            note(seen, p.items[i].id);
        if (!next_newest)
            next_newest = mem_strdup(p.newest);
        assert_string_equal(p.newest, next_newest); /* later pages have the first one's */
        free(cursor);
        cursor = mem_strdup(p.next);
        e2e_page_done(&p);
    } while (cursor);
    free(*newest);
    *newest = next_newest;
}

/* Also of items that were published up to a second and a half before they were accepted. */
static void polling_after_the_newest_misses_nothing_that_is_published_meanwhile(void **state)
{
    (void)state;
    struct reader r = new_reader();
    struct seen_ids *seen = mem_zero(1, sizeof *seen);
    char *newest = NULL;
    publish(&r, 20);
    for (unsigned i = 0; i < 60; i++) {
        for (unsigned k = rng_below(&chance, 5); k > 0; k--) {
            r.next_ms = clock_wall_ms() - rng_below(&chance, 1500);
            publish(&r, 1);
        }
        poll(&r, &newest, 0, seen);
    }
    poll(&r, &newest, r.position, seen);
    for (size_t i = 0; i < r.n; i++) {
        size_t before = seen->n;
        note(seen, r.ids[i]);
        if (seen->n != before)
            fail_msg("item %" PRIu64 " (%zu of %zu) was never shown", r.ids[i], i, r.n);
    }
    free(newest);
    free(seen);
}

static void an_item_that_comes_late_stands_above_newest_as_long_as_nothing_newer_was_shown(void **state)
{
    (void)state;
    struct reader r = new_reader();
    struct e2e_page p, q;
    char query[1000];
    publish(&r, 3);
    first_page(&r, "limit=1", &p);
    snprintf(query, sizeof query, "limit=5&after=%s", p.newest);
    first_page(&r, query, &q);
    assert_int_equal(q.n, 0);
    publish(&r, 1); /* hours ago, and accepted now */
    snprintf(query, sizeof query, "limit=5&after=%s", q.newest);
    e2e_page_done(&q);
    first_page(&r, query, &q);
    assert_int_equal(q.n, 1);
    assert_int_equal(q.items[0].id, r.ids[3]);
    e2e_page_done(&q);
    e2e_page_done(&p);
}

/* ---- the marker ---- */

static json_t *marker(const struct reader *r, const char *body, int status)
{
    char *path = mem_printf("%s/marker", r->feed);
    json_t *o = e2e_json(some_api(), body ? "PUT" : "GET", path, body, status);
    free(path);
    return o;
}

/* Sets it to ids[at] and expects that it is ids[expected] then, at any process. */
static void mark(const struct reader *r, size_t at, const char *force, size_t expected)
{
    char body[100], id[ITEM_ID_TEXT_SIZE];
    snprintf(body, sizeof body, "{\"id\":\"%" PRIu64 "\"%s}", r->ids[at], force);
    json_t *put = marker(r, body, 200), *get = marker(r, NULL, 200);
    ids_format(r->ids[expected], id);
    assert_string_equal(json_string_value(json_object_get(put, "id")), id);
    assert_true(json_equal(put, get));
    json_decref(put);
    json_decref(get);
}

static void a_marker_moves_forward_only_unless_it_is_forced(void **state)
{
    (void)state;
    struct reader r = new_reader();
    publish(&r, 4);
    json_t *o = marker(&r, NULL, 200);
    assert_true(json_is_null(json_object_get(o, "id")) && json_is_null(json_object_get(o, "updated_at")));
    assert_int_equal(json_object_size(o), 2);
    json_decref(o);
    mark(&r, 1, "", 1);
    mark(&r, 2, ",\"force\":false", 2);
    mark(&r, 0, "", 2);
    mark(&r, 2, "", 2);
    mark(&r, 0, ",\"force\":true", 0);
    mark(&r, 3, "", 3);
}

static void a_marker_answers_a_position_and_leaves_the_timeline_alone(void **state)
{
    (void)state;
    struct reader r = new_reader();
    struct e2e_page p;
    struct e2e_timeline before, after;
    struct reply reply;
    publish(&r, 2);
    first_page(&r, "limit=1", &p);
    e2e_page_done(&p);
    assert_true(e2e_timeline(stack.redis, r.user, &before));
    for (int i = 0; i < 2; i++) { /* the second changes nothing */
        char *path = mem_printf("%s/marker", r.feed);
        char *body = mem_printf("{\"id\":\"%" PRIu64 "\"}", r.ids[1 - i]);
        ts_t position = 0;
        e2e_call(&stack.apis[i], "PUT", path, body, 200, &reply);
        e2e_position(&reply, &position);
        assert_true(i == 0 ? position > r.position : position >= r.position);
        r.position = position;
        reply_done(&reply);
        free(path);
        free(body);
    }
    assert_true(e2e_caught_up(stack.redis, r.user, r.position));
    assert_true(e2e_timeline(stack.redis, r.user, &after));
    assert_true(before.r == after.r);
    for (int i = 0; i < 2; i++) {
        e2e_page(&stack.apis[i], r.feed, "limit=1", NULL, r.position, &p);
        assert_string_equal(p.state, "complete");
        e2e_page_done(&p);
    }
}

static void a_marker_that_can_not_be_is_refused(void **state)
{
    (void)state;
    struct reader r = new_reader();
    static const char *const bodies[] = {"{}",
                                         "{\"id\":null}",
                                         "{\"id\":5}",
                                         "{\"id\":\"\"}",
                                         "{\"id\":\"0\"}",
                                         "{\"id\":\"x\"}",
                                         "{\"id\":\"1\",\"force\":1}",
                                         "{\"id\":\"1\",\"at\":1}",
                                         "[]",
                                         "{\"id\":\"1\",\"id\":\"2\"}",
                                         "{\"id\":\"9007199254740992\"}"};
    for (size_t i = 0; i < MEM_COUNT(bodies); i++)
        json_decref(marker(&r, bodies[i], 400));
    json_t *o = marker(&r, NULL, 200);
    assert_true(json_is_null(json_object_get(o, "id")));
    json_decref(o);
}

/* ---- counting ---- */

static void check_count(struct reader *r, const char *after, unsigned count, bool more)
{
    char position[TS_TEXT_SIZE];
    ts_format(r->position, position);
    char *path =
        mem_printf("%s/count?position=%s%s%s", r->feed, position, after ? "&after=" : "", after ? after : "");
    json_t *o = e2e_json(some_api(), "GET", path, NULL, 200);
    assert_int_equal(json_integer_value(json_object_get(o, "count")), count);
    assert_int_equal(json_is_true(json_object_get(o, "more")), more);
    assert_int_equal(json_object_size(o), 2);
    json_decref(o);
    free(path);
}

static void what_is_newer_is_counted_to_a_hundred(void **state)
{
    (void)state;
    struct reader r = new_reader();
    struct e2e_page p;
    check_count(&r, NULL, 0, false);
    publish(&r, 5);
    first_page(&r, "limit=1", &p);
    check_count(&r, NULL, 5, false);
    check_count(&r, p.newest, 0, false);
    publish(&r, 95);
    check_count(&r, p.newest, 95, false);
    check_count(&r, NULL, 100, false);
    publish(&r, 1);
    check_count(&r, NULL, 100, true);
    publish(&r, 5);
    check_count(&r, p.newest, 100, true);
    e2e_page_done(&p);
}

static void a_count_begins_at_the_marker_and_leaves_out_what_a_page_would(void **state)
{
    (void)state;
    struct reader r = new_reader();
    publish(&r, 20);
    mark(&r, 9, "", 9);
    check_count(&r, NULL, 10, false);
    r.position = e2e_write(&stack.apis[0], "DELETE", "/v1/items/%" PRIu64, r.ids[12]);
    check_count(&r, NULL, 9, false);
    r.position = e2e_write(&stack.apis[1], "PUT", "/v1/users/%s/mutes/item/%" PRIu64, r.user, r.ids[15]);
    check_count(&r, NULL, 8, false);
    r.position = e2e_write(&stack.apis[1], "PUT", "/v1/users/%s/mutes/publisher/%s", r.user, r.publisher);
    check_count(&r, NULL, 0, false);
}

static void a_count_refuses_what_a_page_refuses(void **state)
{
    (void)state;
    struct reader r = new_reader(), other = new_reader();
    struct e2e_page p;
    first_page(&other, "limit=1", &p);
    static const char *const queries[] = {"after=x",      "after=", "limit=5",
                                          "order=latest", "x=1",    "position=ffffffffffffffff"};
    for (size_t i = 0; i < MEM_COUNT(queries); i++) {
        char *path = mem_printf("%s/count?%s", r.feed, queries[i]);
        json_decref(e2e_json(some_api(), "GET", path, NULL, 400));
        free(path);
    }
    char *path = mem_printf("%s/count?after=%s", r.feed, p.newest);
    json_decref(e2e_json(some_api(), "GET", path, NULL, 400));
    free(path);
    e2e_page_done(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_after_a_point_show_what_is_newer_and_end_there),
        cmocka_unit_test(a_page_after_a_point_does_not_read_the_store_for_what_the_timeline_has),
        cmocka_unit_test(after_is_refused_where_it_means_nothing),
        cmocka_unit_test(polling_after_the_newest_misses_nothing_that_is_published_meanwhile),
        cmocka_unit_test(an_item_that_comes_late_stands_above_newest_as_long_as_nothing_newer_was_shown),
        cmocka_unit_test(a_marker_moves_forward_only_unless_it_is_forced),
        cmocka_unit_test(a_marker_answers_a_position_and_leaves_the_timeline_alone),
        cmocka_unit_test(a_marker_that_can_not_be_is_refused),
        cmocka_unit_test(what_is_newer_is_counted_to_a_hundred),
        cmocka_unit_test(a_count_begins_at_the_marker_and_leaves_out_what_a_page_would),
        cmocka_unit_test(a_count_refuses_what_a_page_refuses),
    };
    e2e_choose_tests();
    return cmocka_run_group_tests_name("newer", tests, start_stack, stop_stack);
}
