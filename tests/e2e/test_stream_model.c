/* test_stream_model.c - a list that a client keeps by its stream alone is its feed: after anything publishers
 * do, with connections broken off, resumed at any process, and processes killed in between. FEEDMILL_SEED,
 * FEEDMILL_STEPS.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "tests/support/e2e_stack.h"
#include "tests/support/sse.h"

#define READERS 5
#define ITEMS   2000
#define LIST    ITEMS

static struct e2e_stack stack;
static const struct e2e_stack_options options = {.n_apis = 2, .api_flags = {"--stream-heartbeat", "100ms"}};

/* What a reader follows and mutes, and the list he keeps. */
static struct reader {
    struct sse stream;
    const char *follows[4], *mutes[3]; /* "publisher/p0" */
    struct {
        item_id id;
        int revision;
        bool by_edit; /* it came as an edit: its topics were read when they had been changed once more */
    } list[LIST];
    size_t n;
} readers[READERS] = {
    {.follows = {"publisher/p0", "publisher/p1", "topic/t0"}},
    {.follows = {"topic/t0", "topic/t1"}},
    {.follows = {"publisher/p0", "publisher/p2", "topic/t2"}, .mutes = {"topic/t1", "publisher/p1"}},
    {.follows = {"publisher/p1", "topic/t1", "topic/t2"}, .mutes = {"word/turnip"}},
    {.follows = {"publisher/p3"}},
};

static item_id items[ITEMS];
static bool dead[ITEMS];
static size_t n_items;

static int start_stack(void **state)
{
    (void)state;
    e2e_stack_start(&stack, &options);
    return 0;
}

static int stop_stack(void **state)
{
    (void)state;
    return e2e_stack_stop(&stack);
}

static void set_up_reader(struct reader *r, unsigned number)
{
    snprintf(r->stream.user, sizeof r->stream.user, "model%u", number);
    for (size_t i = 0; r->follows[i] != NULL; i++)
        e2e_write(&stack.apis[0], "PUT", "/v1/users/%s/follows/%s", r->stream.user, r->follows[i]);
    e2e_write(&stack.apis[0], "PUT", "/v1/users/%s/follows/publisher/marks", r->stream.user);
    for (size_t i = 0; i < MEM_COUNT(r->mutes) && r->mutes[i] != NULL; i++)
        e2e_write(&stack.apis[0], "PUT", "/v1/users/%s/mutes/%s", r->stream.user, r->mutes[i]);
    sse_open(&r->stream, &stack.apis[number % 2]);
    sse_read_id(&r->stream);
}

/* ---- what publishers do ---- */

static const char *random_title(struct rng *g)
{
    return rng_percent(g, 30) ? "all about the turnip" : "something else";
}

static void random_topics(struct rng *g, char out[40])
{
    static const char *const choices[] = {
        "[]", "[\"t0\"]", "[\"t1\"]", "[\"t2\"]", "[\"t0\",\"t1\"]", "[\"t1\",\"t2\"]", "[\"t0\",\"t2\"]"};
    strcpy(out, choices[rng_below(g, MEM_COUNT(choices))]);
}

static void publish_one(struct rng *g)
{
    char publisher[8], topics[40];
    snprintf(publisher, sizeof publisher, "p%u", rng_below(g, 4));
    random_topics(g, topics);
    items[n_items++] = e2e_publish(&stack.apis[0], publisher, NULL, random_title(g), topics, 0, NULL);
}

static void change_one(struct rng *g)
{
    size_t i =
        n_items > 20 && rng_percent(g, 70) ? n_items - 1 - rng_below(g, 20) : rng_below(g, (unsigned)n_items);
    char path[64], body[200], topics[40];
    struct reply r;
    if (dead[i])
        return;
    snprintf(path, sizeof path, "/v1/items/%llu", (unsigned long long)items[i]);
    if (rng_percent(g, 30)) {
        e2e_write(&stack.apis[0], "DELETE", "%s", path);
        dead[i] = true;
        return;
    }
    random_topics(g, topics);
    if (rng_percent(g, 50))
        snprintf(body, sizeof body, "{\"topics\":%s}", topics);
    else if (rng_percent(g, 50))
        snprintf(body, sizeof body, "{\"title\":\"%s\"}", random_title(g));
    else
        snprintf(body, sizeof body, "{\"title\":\"%s\",\"topics\":%s}", random_title(g), topics);
    e2e_call(&stack.apis[0], "PATCH", path, body, 200, &r);
    reply_done(&r);
}

/* ---- what readers do ---- */

static size_t find(const struct reader *r, item_id id)
{
    size_t i = 0;
    while (i < r->n && r->list[i].id != id)
        i++;
    return i;
}

static int revision_in_event(void)
{
    json_t *o = json_loads(sse_event.data, 0, NULL);
    int revision = (int)json_integer_value(json_object_get(o, "revision"));
    json_decref(o);
    return revision;
}

static void take_event(struct reader *r)
{
    size_t i = find(r, sse_event.item);
    if (strcmp(sse_event.type, "delete") == 0) {
        if (i < r->n)
            r->list[i] = r->list[--r->n];
        return;
    }
    if (strcmp(sse_event.type, "item") != 0 && strcmp(sse_event.type, "edit") != 0)
        fail_msg("%s for %s", sse_event.type, r->stream.user);
    int revision = revision_in_event();
    if (i == r->n) {
        assert_true(r->n < LIST);
        r->n++;
        r->list[i].by_edit = strcmp(sse_event.type, "edit") == 0;
    } else if (strcmp(sse_event.type, "item") == 0 && !r->list[i].by_edit) {
        fail_msg("%s is told of item %llu as new twice", r->stream.user, (unsigned long long)sse_event.item);
    }
    r->list[i].id = sse_event.item;
    r->list[i].revision = revision;
}

/* Takes in everything up to the mark, which all are told of. */
static void read_up_to(struct reader *r, item_id mark)
{
    do {
        if (!sse_try_event(&r->stream))
            fail_msg("the stream of %s has ended", r->stream.user);
        take_event(r);
    } while (sse_event.item != mark);
}

static void compare_with_feed(struct reader *r, struct rng *g, ts_t position)
{
    struct e2e_list feed;
    char path[100];
    snprintf(path, sizeof path, "/v1/users/%s/feed", r->stream.user);
    e2e_read_all(stack.apis, stack.n_apis, g, path, 50, "ids", position, &feed);
    for (size_t i = 0; i < feed.n; i++) {
        size_t at = find(r, feed.items[i].id);
        if (at == r->n)
            fail_msg("%s was not told of %llu", r->stream.user, (unsigned long long)feed.items[i].id);
        assert_int_equal(r->list[at].revision, feed.items[i].revision);
    }
    if (r->n != feed.n)
        fail_msg("%s has a list of %zu and a feed of %zu", r->stream.user, r->n, feed.n);
    e2e_list_done(&feed);
}

static void kill_one(struct rng *g)
{
    unsigned i = rng_below(g, 2);
    server_kill(stack.servers[i]);
    for (unsigned k = 0; k < READERS; k++)
        sse_close(&readers[k].stream);
    fixture_restart(stack.f, stack.servers[i]);
    e2e_api_drop(&stack.apis[i]);
}

static void a_list_kept_by_the_stream_is_the_feed(void **state)
{
    (void)state;
    struct rng g = {(uint64_t)e2e_env("FEEDMILL_SEED", 5)};
    int64_t steps = e2e_env("FEEDMILL_STEPS", 800);
    unsigned rounds = 0;
    for (unsigned i = 0; i < READERS; i++)
        set_up_reader(&readers[i], i);
    for (int64_t step = 0; step < steps && n_items < ITEMS - 1; step++) {
        struct reader *r = &readers[rng_below(&g, READERS)];
        if (n_items < 5 || rng_percent(&g, 45))
            publish_one(&g);
        else
            change_one(&g);
        if (rng_percent(&g, 5))
            sse_close(&r->stream);
        else if (r->stream.conn == NULL && rng_percent(&g, 50))
            sse_open(&r->stream, &stack.apis[rng_below(&g, 2)]);
        if (rng_percent(&g, 1) && rounds < 4)
            kill_one(&g);
        if (step % 100 != 99)
            continue;
        ts_t position;
        item_id mark = e2e_publish(&stack.apis[0], "marks", NULL, "a mark", NULL, 0, &position);
        rounds++;
        for (unsigned i = 0; i < READERS; i++) {
            if (readers[i].stream.conn == NULL)
                sse_open(&readers[i].stream, &stack.apis[rng_below(&g, 2)]);
            read_up_to(&readers[i], mark);
            compare_with_feed(&readers[i], &g, position);
        }
    }
    for (unsigned i = 0; i < READERS; i++)
        sse_close(&readers[i].stream);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_list_kept_by_the_stream_is_the_feed)};
    return cmocka_run_group_tests_name("e2e/stream_model", tests, start_stack, stop_stack);
}
