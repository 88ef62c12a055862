/* test_big_graphs.c - a topic with more followers than any batch holds, and a reader who follows as many as
 * he may.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/mem.h"
#include "tests/support/e2e_stack.h"

#define BULK_LINES 10000
#define FOLLOWERS  30000
#define ACTIVE     200 /* of them have timelines */
#define WATCHED    10000
#define ITEMS      1500
#define BACKLOG    300 /* fanout's: changes that it may have read and not delivered */
#define LATE       4000
#define LATE_USERS 40

static struct e2e_stack stack;

static int start_stack(void **state)
{
    (void)state;
    setenv("FEEDMILL_AUDIENCE_BATCH", "500", 1); /* fanout's: many batches for one audience */
    setenv("FEEDMILL_BACKLOG", "300", 1);
    e2e_stack_start(
        &stack, &(struct e2e_stack_options){.lease_ms = "60000", .api_flags = {"--count-interval", "200ms"}});
    return 0;
}

static int stop_stack(void **state)
{
    (void)state;
    return e2e_stack_stop(&stack);
}

/* ---- small things ---- */

/* Sends lines, and answers the answer's lines in an array (json_decref() it) and the position. */
static json_t *bulk(const char *path, const struct buf *lines, ts_t *position)
{
    struct reply r;
    if (e2e_try(&stack.apis[0], "POST", path, "Content-Type: application/x-ndjson\r\n", lines->data, &r) != 0)
        fail_msg("no answer to %s", path);
    if (r.status != 200)
        fail_msg("%s: %d %s", path, r.status, r.body);
    e2e_position(&r, position);
    json_t *out = json_array();
    for (const char *s = r.body, *end; (end = strchr(s, '\n')) != NULL; s = end + 1)
        json_array_append_new(out, json_loadb(s, (size_t)(end - s), 0, NULL));
    reply_done(&r);
    return out;
}

static int line_status(json_t *lines, size_t i)
{
    return (int)json_integer_value(json_object_get(json_array_get(lines, i), "status"));
}

static int follow_status(const char *user, const char *publisher)
{
    struct reply r;
    char path[200];
    snprintf(path, sizeof path, "/v1/users/%s/follows/publisher/%s", user, publisher);
    e2e_call(&stack.apis[0], "PUT", path, NULL, 0, &r);
    int status = r.status;
    reply_done(&r);
    return status;
}

/* ---- many followers ---- */

static void follow_the_topic(ts_t *position)
{
    struct buf b;
    for (int first = 0; first < FOLLOWERS; first += BULK_LINES) {
        buf_init(&b, 8 << 20);
        for (int i = first; i < first + BULK_LINES; i++)
            buf_printf(&b, "{\"user\":\"f%d\",\"kind\":\"topic\",\"name\":\"big\"}\n", i);
        json_t *lines = bulk("/v1/follows/bulk", &b, position);
        assert_int_equal(json_array_size(lines), BULK_LINES);
        for (size_t i = 0; i < BULK_LINES; i++)
            assert_int_equal(line_status(lines, i), 200);
        json_decref(lines);
        buf_done(&b);
    }
}

static bool all_are_counted(void *arg)
{
    (void)arg;
    json_t *o = e2e_json(&stack.apis[0], "GET", "/v1/topics/big", NULL, 200);
    bool counted = json_integer_value(json_object_get(o, "followers")) == FOLLOWERS;
    json_decref(o);
    return counted;
}

static void each_follower_of_a_big_topic_is_counted_and_the_active_ones_are_delivered_to(void **state)
{
    (void)state;
    ts_t position = 0;
    char user[32], path[80];
    follow_the_topic(&position);
    for (int i = 0; i < ACTIVE; i++) {
        struct e2e_page p;
        snprintf(path, sizeof path, "/v1/users/f%d/feed", i * (FOLLOWERS / ACTIVE));
        e2e_page(&stack.apis[0], path, "limit=1&fields=ids", NULL, i == 0 ? position : 0, &p);
        assert_int_equal(p.n, 0);
        e2e_page_done(&p);
    }
    for (int i = 0; i < 5; i++)
        e2e_publish(&stack.apis[0], "somebody", NULL, "For all", "[\"big\"]", 0, &position);
    for (int i = 0; i < ACTIVE; i++) {
        struct e2e_timeline t;
        snprintf(user, sizeof user, "f%d", i * (FOLLOWERS / ACTIVE));
        assert_true(e2e_caught_up(stack.redis, user, position));
        assert_true(e2e_timeline(stack.redis, user, &t));
        assert_int_equal(t.entries, 5);
        snprintf(user, sizeof user, "f%d", i * (FOLLOWERS / ACTIVE) + 1);
        assert_false(e2e_timeline(stack.redis, user, &t)); /* who does not read costs nothing */
    }
    assert_true(fixture_until(all_are_counted, NULL, 30000));
}

/* ---- many follows ---- */

struct written {
    item_id id;
    int publisher;
};

static int newer_first(const void *a, const void *b)
{
    item_id x = ((const struct written *)a)->id, y = ((const struct written *)b)->id;
    return x > y ? -1 : x < y;
}

/* One in nine is of a publisher whom nobody follows. */
static void write_items(struct written *items, ts_t *position)
{
    int64_t base = clock_wall_ms() - 10000000;
    for (int first = 0; first < ITEMS; first += ITEMS / 2) {
        struct buf b;
        buf_init(&b, 8 << 20);
        for (int i = first; i < first + ITEMS / 2; i++) {
            char when[CLOCK_RFC3339_SIZE];
            items[i].publisher = i * 7919 % (WATCHED + WATCHED / 8);
            clock_format(base + (int64_t)(i * 31 % ITEMS) * 1000, when);
            buf_printf(&b,
                       "{\"publisher\":\"w%d\",\"external_id\":\"x%d\",\"title\":\"T\",\"body\":\"b\","
                       "\"published_at\":\"%s\"}\n",
                       items[i].publisher, i, when);
        }
        json_t *lines = bulk("/v1/items/bulk", &b, position);
        for (int i = first; i < first + ITEMS / 2; i++) {
            json_t *line = json_array_get(lines, (size_t)(i - first));
            struct err e;
            assert_int_equal(json_integer_value(json_object_get(line, "status")), 201);
            assert_int_equal(ids_parse(json_string_value(json_object_get(line, "id")), &items[i].id, &e), 0);
        }
        json_decref(lines);
        buf_done(&b);
    }
    qsort(items, ITEMS, sizeof *items, newer_first);
}

static void assert_feed(const struct written *items, int without, ts_t position)
{
    struct e2e_list l;
    struct rng r = {.state = 11};
    size_t at = 0;
    e2e_read_all(stack.apis, 1, &r, "/v1/users/watcher/feed", 100, "ids", position, &l);
    assert_int_equal(l.partial, 0);
    for (size_t i = 0; i < ITEMS; i++) {
        if (items[i].publisher >= WATCHED || items[i].publisher == without)
            continue;
        assert_true(at < l.n);
        assert_int_equal(l.items[at++].id, items[i].id);
    }
    assert_int_equal(at, l.n);
    e2e_list_done(&l);
}

static void a_reader_of_ten_thousand_reads_them_all_and_may_follow_no_more(void **state)
{
    (void)state;
    ts_t position = 0;
    struct written *items = mem_zero(ITEMS, sizeof *items);
    struct buf b;
    buf_init(&b, 8 << 20);
    for (int i = 0; i < WATCHED; i++)
        buf_printf(&b, "{\"user\":\"watcher\",\"kind\":\"publisher\",\"name\":\"w%d\"}\n", i);
    json_t *lines = bulk("/v1/follows/bulk", &b, &position);
    for (size_t i = 0; i < WATCHED; i++)
        assert_int_equal(line_status(lines, i), 200);
    json_decref(lines);
    buf_done(&b);
    write_items(items, &position);
    assert_feed(items, -1, position);

    assert_int_equal(follow_status("watcher", "one-more"), 409);
    buf_add_str(&b, "{\"user\":\"watcher\",\"kind\":\"publisher\",\"name\":\"one-more\"}\n"
                    "{\"user\":\"other\",\"kind\":\"publisher\",\"name\":\"one-more\"}\n");
    lines = bulk("/v1/follows/bulk", &b, &position);
    assert_int_equal(line_status(lines, 0), 409);
    assert_int_equal(line_status(lines, 1), 200);
    json_decref(lines);
    buf_done(&b);

    int leaves = items[10].publisher < WATCHED ? items[10].publisher : items[11].publisher;
    position = e2e_write(&stack.apis[0], "DELETE", "/v1/users/watcher/follows/publisher/w%d", leaves);
    assert_feed(items, leaves, position);
    char name[32];
    snprintf(name, sizeof name, "w%d", leaves);
    assert_int_equal(follow_status("watcher", name), 204);
    assert_feed(items, -1, 0);
    free(items);
}

/* ---- items moved in where readers follow already ---- */

static void move_old_items_in(ts_t *position)
{
    for (int first = 0; first < LATE; first += 1000) {
        struct buf b;
        buf_init(&b, 8 << 20);
        for (int i = first; i < first + 1000; i++)
            buf_printf(&b,
                       "{\"publisher\":\"old%d\",\"external_id\":\"x%d\",\"title\":\"T\",\"body\":\"b\","
                       "\"published_at\":\"2020-01-%02dT%02d:%02d:00Z\"}\n",
                       i % 7, i, 1 + i / 1440, i / 60 % 24, i % 60);
        json_decref(bulk("/v1/items/bulk", &b, position));
        buf_done(&b);
    }
}

static bool late_ones_are_delivered(void *arg)
{
    static char auth[600];
    snprintf(auth, sizeof auth, "%s", stack.apis[0].auth);
    double backlog =
        e2e_metric_on((uint16_t)fixture_port(stack.f, stack.fanout), auth, "feedmill_fanout_backlog");
    assert_true(backlog <= 2 * BACKLOG); /* what is in turn, and what was read ahead of it */
    return e2e_progress(stack.redis, "late0") >= *(ts_t *)arg;
}

/* The newest of 4,000 old items of followed publishers, brought in while fanout stood still: it takes from
 * the log what it has room for, and timelines end with the newest. */
static void old_items_moved_in_at_once_are_delivered_within_the_backlog(void **state)
{
    (void)state;
    ts_t position = 0;
    char path[80];
    for (int u = 0; u < LATE_USERS; u++) {
        struct e2e_page p;
        for (int i = 0; i < 7; i += 1 + u % 2)
            e2e_write(&stack.apis[0], "PUT", "/v1/users/late%d/follows/publisher/old%d", u, i);
        snprintf(path, sizeof path, "/v1/users/late%d/feed", u);
        e2e_page(&stack.apis[0], path, "limit=1&fields=ids", NULL, 0, &p);
        e2e_page_done(&p);
    }
    server_pause(stack.fanout);
    move_old_items_in(&position);
    server_continue(stack.fanout);
    assert_true(fixture_until(late_ones_are_delivered, &position, 60000));
    for (int u = 0; u < LATE_USERS; u++) {
        struct e2e_page p;
        struct e2e_timeline t;
        snprintf(path, sizeof path, "late%d", u);
        assert_true(e2e_caught_up(stack.redis, path, position));
        assert_true(e2e_timeline(stack.redis, path, &t));
        assert_in_range(t.entries, 8, 11);
        snprintf(path, sizeof path, "/v1/users/late%d/feed", u);
        e2e_page(&stack.apis[0], path, "limit=5", NULL, 0, &p);
        assert_int_equal(p.n, 5);
        int i = LATE - 1;
        for (size_t k = 0; k < p.n; k++, i--) {
            while (u % 2 == 1 && i % 7 % 2 == 1)
                i--;
            char publisher[16];
            snprintf(publisher, sizeof publisher, "old%d", i % 7);
            assert_string_equal(p.items[k].publisher, publisher);
        }
        e2e_page_done(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(old_items_moved_in_at_once_are_delivered_within_the_backlog),
        cmocka_unit_test(each_follower_of_a_big_topic_is_counted_and_the_active_ones_are_delivered_to),
        cmocka_unit_test(a_reader_of_ten_thousand_reads_them_all_and_may_follow_no_more),
    };
    e2e_choose_tests();
    return cmocka_run_group_tests(tests, start_stack, stop_stack);
}
