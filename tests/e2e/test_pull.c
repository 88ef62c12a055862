/* test_pull.c - big targets: they turn to pull at a number of followers and back, their items show all the
 * same, once and in order, and are written into no timeline meanwhile.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/keys.h"
#include "tests/support/e2e_stack.h"

#define THRESHOLD "4" /* so they turn back below 3 */
#define ITEMS     "10"
#define UNTIL_MS  20000

static struct e2e_stack stack;
static const struct e2e_stack_options options = {
    .n_apis = 2,
    .api_flags = {"--pull-threshold", THRESHOLD, "--count-interval", "100", "--pull-items", ITEMS}};

static int start_stack(void **state)
{
    (void)state;
    e2e_stack_start(&stack, &options);
    return 0;
}

static int fresh(void **state)
{
    (void)state;
    e2e_stack_fresh(&stack, &options);
    return 0;
}

static int stop_stack(void **state)
{
    (void)state;
    return e2e_stack_stop(&stack);
}

/* ---- targets and users ---- */

static void follow(const char *user, const char *target, bool on)
{
    const char *kind = target[0] == 'p' ? "publisher" : "topic";
    e2e_write(&stack.apis[0], on ? "PUT" : "DELETE", "/v1/users/%s/follows/%s/%s", user, kind, target + 2);
}

static void followed_by(const char *target, unsigned n)
{
    char user[16];
    for (unsigned i = 0; i < n; i++) {
        snprintf(user, sizeof user, "u%u", i);
        follow(user, target, true);
    }
}

struct mode {
    const char *target, *mode;
};

static bool has_mode(void *arg)
{
    const struct mode *m = arg;
    char path[100];
    snprintf(path, sizeof path, "/v1/%s/%s", m->target[0] == 'p' ? "publishers" : "topics", m->target + 2);
    json_t *j = e2e_json(&stack.apis[0], "GET", path, NULL, 200);
    const char *mode = json_string_value(json_object_get(j, "mode"));
    bool is = mode && strcmp(mode, m->mode) == 0;
    json_decref(j);
    return is;
}

static void until_mode(const char *target, const char *mode)
{
    struct mode m = {target, mode};
    if (!fixture_until(has_mode, &m, UNTIL_MS))
        fail_msg("%s does not turn to %s", target, mode);
}

struct listed {
    const char *user, *target;
    bool want;
};

static char *pull_list(const char *user)
{
    char key[KEY_SIZE];
    keys_timeline_meta(key, keys_bucket(user), user);
    redisReply *r = e2e_redis_do(stack.redis, "HGET %s p", key);
    char *list = strdup(r->str ? r->str : "");
    freeReplyObject(r);
    return list;
}

static bool is_listed(void *arg)
{
    const struct listed *l = arg;
    char *list = pull_list(l->user), entry[80];
    snprintf(entry, sizeof entry, "\n%s\n", l->target);
    bool is = strstr(list, entry) != NULL;
    free(list);
    return is == l->want;
}

static void until_listed(const char *user, const char *target, bool want)
{
    struct listed l = {user, target, want};
    if (!fixture_until(is_listed, &l, UNTIL_MS))
        fail_msg("%s is %s the pull list of %s", target, want ? "not put on" : "still on", user);
}

/* ---- pages ---- */

/* The titles of the whole feed, newest first, by pages of 3 at both processes; "?" behind when some were not
 * complete. */
static const char *feed(const char *user, ts_t position)
{
    static char out[4000];
    struct e2e_list l;
    struct rng rng = {7};
    char path[100];
    size_t len = 0;
    snprintf(path, sizeof path, "/v1/users/%s/feed", user);
    e2e_read_all(stack.apis, stack.n_apis, &rng, path, 3, "full", position, &l);
    out[0] = '\0';
    for (size_t i = 0; i < l.n; i++)
        len += (size_t)snprintf(out + len, sizeof out - len, "%s%s", len ? " " : "", l.items[i].title);
    if (l.partial)
        strcat(out, "?");
    e2e_list_done(&l);
    return out;
}

static void reached(const char *user, ts_t position)
{
    assert_true(e2e_caught_up(stack.redis, user, position));
    for (size_t i = 0; i < stack.n_apis; i++)
        assert_true(e2e_tail_reached(&stack.apis[i], position));
}

static size_t entries(const char *user)
{
    struct e2e_timeline t;
    assert_true(e2e_timeline(stack.redis, user, &t));
    return t.entries;
}

/* Each later than the one before: within a millisecond ids are in no order. */
static int64_t next_ms(void)
{
    static int64_t last;
    if (last == 0)
        last = clock_wall_ms() - 5000;
    return ++last;
}

static void publish(const char *publisher, const char *title, const char *topics, ts_t *position)
{
    e2e_publish(&stack.apis[0], publisher, NULL, title, topics, next_ms(), position);
}

/* ---- tests ---- */

static void a_big_targets_items_show_and_are_written_into_no_timeline(void **state)
{
    (void)state;
    ts_t position = 0;
    followed_by("p:big", 4);
    follow("u0", "p:small", true);
    publish("big", "b1", NULL, &position);
    publish("small", "s1", NULL, &position);
    assert_string_equal(feed("u0", position), "s1 b1");
    until_mode("p:big", "pull");
    until_listed("u0", "p:big", true);
    size_t held = entries("u0");
    publish("big", "b2", NULL, &position);
    publish("small", "s2", NULL, &position);
    publish("big", "b3", NULL, &position);
    reached("u0", position);
    assert_int_equal(entries("u0"), held + 1);
    assert_string_equal(feed("u0", 0), "b3 s2 b2 s1 b1");
    assert_int_equal(entries("u0"), held + 1); /* the one read was of this timeline, not a rebuilt one */
    publish("big", "b4", NULL, &position);
    assert_string_equal(feed("u0", position), "b4 b3 s2 b2 s1 b1");
    assert_string_equal(feed("u1", position), "b4 b3 b2 b1"); /* built now, with its pull list */
    until_listed("u1", "p:big", true);
    publish("big", "b5", NULL, &position);
    reached("u1", position);
    assert_string_equal(feed("u1", 0), "b5 b4 b3 b2 b1");
}

static void a_target_that_turns_back_is_in_the_timelines_again(void **state)
{
    (void)state;
    ts_t position = 0;
    followed_by("t:big", 4);
    until_mode("t:big", "pull");
    publish("any", "x1", "[\"big\"]", &position);
    publish("any", "x2", "[\"big\"]", &position);
    assert_string_equal(feed("u0", position), "x2 x1");
    publish("any", "x3", "[\"big\"]", &position);
    reached("u0", position);
    size_t held = entries("u0");
    follow("u3", "t:big", false);
    follow("u2", "t:big", false);
    until_mode("t:big", "push");
    until_listed("u0", "t:big", false);
    assert_true(entries("u0") > held);
    assert_string_equal(feed("u0", 0), "x3 x2 x1");
    publish("any", "x4", "[\"big\"]", &position);
    reached("u0", position);
    assert_true(entries("u0") > held + 1);
    assert_string_equal(feed("u0", 0), "x4 x3 x2 x1");
}

static void an_item_leaves_a_pulled_topic_and_comes_back(void **state)
{
    (void)state;
    ts_t position = 0;
    struct reply r;
    char path[100];
    followed_by("t:big", 4);
    until_mode("t:big", "pull");
    assert_string_equal(feed("u0", 0), "");
    item_id id = e2e_publish(&stack.apis[0], "any", NULL, "x1", "[\"big\"]", next_ms(), &position);
    publish("any", "x2", "[\"big\"]", &position);
    reached("u0", position);
    assert_string_equal(feed("u0", 0), "x2 x1");
    snprintf(path, sizeof path, "/v1/items/%llu", (unsigned long long)id);
    static const char *const topics[] = {"{\"topics\":[\"other\"]}", "{\"topics\":[\"other\",\"big\"]}"};
    static const char *const want[] = {"x2", "x2 x1"};
    for (int i = 0; i < 2; i++) {
        e2e_call(&stack.apis[0], "PATCH", path, topics[i], 200, &r);
        e2e_position(&r, &position);
        reply_done(&r);
        assert_string_equal(feed("u0", position), want[i]);
        reached("u0", position);
        assert_string_equal(feed("u0", 0), want[i]);
    }
    e2e_write(&stack.apis[0], "DELETE", "%s", path);
    assert_string_equal(feed("u0", 0), "x2");
}

static void pages_go_on_below_what_memory_holds_of_a_pulled_target(void **state)
{
    (void)state;
    ts_t position = 0;
    char title[16], want[1000] = "";
    followed_by("p:big", 4);
    follow("u0", "p:small", true);
    until_mode("p:big", "pull");
    assert_string_equal(feed("u0", 0), "");
    for (int i = 1; i <= 40; i++) { /* of big's 27 only 10 are in memory */
        snprintf(title, sizeof title, "i%d", i);
        publish(i % 3 ? "big" : "small", title, NULL, &position);
    }
    for (int i = 40; i >= 1; i--)
        snprintf(want + strlen(want), sizeof want - strlen(want), "%si%d", i < 40 ? " " : "", i);
    reached("u0", position);
    assert_string_equal(feed("u0", 0), want);
    freeReplyObject(e2e_redis_do(stack.redis, "FLUSHALL"));
    assert_string_equal(feed("u0", position), want);
}

struct wanted {
    const char *user, *titles;
    ts_t position;
};

static bool reads(void *arg)
{
    const struct wanted *x = arg;
    return strcmp(feed(x->user, x->position), x->titles) == 0;
}

static void p10_without_mongodb_what_memory_holds_of_a_pulled_target_shows(void **state)
{
    (void)state;
    ts_t position = 0;
    struct e2e_page p;
    followed_by("p:big", 4);
    until_mode("p:big", "pull");
    assert_string_equal(feed("u0", 0), "");
    publish("big", "b1", NULL, &position);
    reached("u0", position);
    e2e_page(&stack.apis[0], "/v1/users/u0/feed", "", NULL, 0, &p);
    assert_int_equal(p.n, 1);
    assert_string_equal(p.state, "complete");
    e2e_page_done(&p);
    server_kill(fixture_mongod(stack.f));
    e2e_page(&stack.apis[0], "/v1/users/u0/feed", "", NULL, 0, &p);
    assert_int_equal(p.n, 1);
    assert_string_equal(p.items[0].title, "b1");
    e2e_page_done(&p);
    fixture_restart(stack.f, fixture_mongod(stack.f));
    /* one that starts now holds nothing yet, and finds all again */
    server_kill(stack.servers[0]);
    e2e_api_drop(&stack.apis[0]);
    fixture_restart(stack.f, stack.servers[0]);
    publish("big", "b2", NULL, &position);
    struct wanted all = {"u0", "b2 b1", position};
    assert_true(fixture_until(reads, &all, UNTIL_MS)); /* until it is known that MongoDB is back */
}

int main(void)
{
#define FRESH(f) cmocka_unit_test_setup(f, fresh)
    const struct CMUnitTest tests[] = {
        FRESH(a_big_targets_items_show_and_are_written_into_no_timeline),
        FRESH(a_target_that_turns_back_is_in_the_timelines_again),
        FRESH(an_item_leaves_a_pulled_topic_and_comes_back),
        FRESH(pages_go_on_below_what_memory_holds_of_a_pulled_target),
        FRESH(p10_without_mongodb_what_memory_holds_of_a_pulled_target_shows),
    };
    e2e_choose_tests();
    return cmocka_run_group_tests_name("push and pull", tests, start_stack, stop_stack);
}
