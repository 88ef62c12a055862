/* test_explain.c - why an item is in a feed: a thousand random pairs of user and item, compared with a model,
 * and what is said of the timeline.
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

#include "common/mem.h"
#include "tests/support/e2e_stack.h"

#define ROUNDS      10
#define ROUND_OPS   25
#define ROUND_PAIRS 100

static struct e2e_stack stack;

static int start_stack(void **state)
{
    (void)state;
    e2e_stack_start(&stack, &(struct e2e_stack_options){.n_apis = 2});
    return 0;
}

/* Where targets are pulled from three followers on. */
static int start_pulling_stack(void **state)
{
    (void)state;
    e2e_stack_start(&stack,
                    &(struct e2e_stack_options){
                        .n_apis = 2, .api_flags = {"--pull-threshold", "3", "--count-interval", "100"}});
    return 0;
}

static int stop_stack(void **state)
{
    (void)state;
    return e2e_stack_stop(&stack);
}

/* ---- asking ---- */

static json_t *explain(struct e2e_api *a, const char *user, item_id id)
{
    char path[200];
    snprintf(path, sizeof path, "/v1/users/%s/feed/explain/%" PRIu64, user, id);
    return e2e_json(a, "GET", path, NULL, 200);
}

static const char *text(const json_t *o, const char *name)
{
    const char *s = json_string_value(json_object_get(o, name));
    return s ? s : "";
}

static void expect(struct driver *d, const json_t *o, bool right, const char *what)
{
    if (right)
        return;
    char *told = json_dumps(o, 0);
    driver_fail(d, "%s: %s", what, told);
}

static bool has_target(const json_t *targets, const char *member, const char *kind, const char *name)
{
    const json_t *one;
    size_t i;
    json_array_foreach(targets, i, one)
    {
        const json_t *target = member ? json_object_get(one, member) : one;
        if (strcmp(text(target, "kind"), kind) == 0 && strcmp(text(target, "name"), name) == 0)
            return true;
    }
    return false;
}

static bool has_reason(const json_t *hidden, const char *kind)
{
    return has_target(hidden, NULL, kind, "");
}

/* ---- against the model ---- */

/* Of a deleted item only its publisher is known. */
static void check_because(struct driver *d, unsigned user, const struct model_item *it, const json_t *o)
{
    const struct model_user *u = &d->model.users[user];
    const json_t *because = json_object_get(o, "because");
    uint32_t topics = it->live ? it->topics & u->sets[MODEL_FOLLOW_TOPIC] : 0;
    bool publisher = u->sets[MODEL_FOLLOW_PUBLISHER] >> it->publisher & 1;
    expect(d, o,
           json_array_size(because) == (size_t)__builtin_popcount(topics) + publisher &&
               publisher == has_target(because, NULL, "publisher", driver_publisher(d, it->publisher)),
           "because");
    for (unsigned t = 0; t < d->topics; t++)
        expect(d, o, (topics >> t & 1) == (unsigned)has_target(because, NULL, "topic", driver_topic(d, t)),
               "because of topics");
}

static void check_hidden(struct driver *d, unsigned user, const struct model_item *it, const json_t *o)
{
    const struct model_user *u = &d->model.users[user];
    const json_t *hidden = json_object_get(o, "hidden_by");
    uint32_t topics = it->live ? it->topics & u->sets[MODEL_MUTE_TOPIC] : 0;
    uint32_t words = it->live ? it->words & u->sets[MODEL_MUTE_WORD] : 0;
    bool publisher = u->sets[MODEL_MUTE_PUBLISHER] >> it->publisher & 1, not_followed;
    struct model_edge muted = {.user = user, .kind = MODEL_MUTE_ITEM, .item = it->id};
    bool item = model_has_edge(&d->model, &muted);
    char id[ITEM_ID_TEXT_SIZE];
    ids_format(it->id, id);
    not_followed = json_array_size(json_object_get(o, "because")) == 0;
    size_t n = (size_t)__builtin_popcount(topics) + (size_t)__builtin_popcount(words) + publisher + item +
               !it->live + not_followed;
    expect(d, o, json_array_size(hidden) == n, "the number of what hides it");
    expect(d, o, has_reason(hidden, "deleted") == !it->live, "deleted");
    expect(d, o, has_reason(hidden, "not_followed") == not_followed, "not_followed");
    expect(d, o, has_target(hidden, "target", "item", id) == item, "a muted item");
    expect(d, o, has_target(hidden, "target", "publisher", driver_publisher(d, it->publisher)) == publisher,
           "a muted publisher");
    for (unsigned t = 0; t < d->topics; t++)
        expect(d, o, (topics >> t & 1) == (unsigned)has_target(hidden, "target", "topic", driver_topic(d, t)),
               "a muted topic");
    for (unsigned w = 0; w < 32; w++)
        if (words >> w & 1)
            expect(d, o, has_target(hidden, "target", "word", driver_word(w)), "a muted word");
}

/* When everything is delivered, what is above the floor and pushed is in the timeline, and nothing else is.
 */
static void check_timeline(struct driver *d, const struct model_item *it, const json_t *o)
{
    const json_t *t = json_object_get(o, "timeline");
    const char *delivery = text(o, "delivery");
    expect(d, o, strcmp(text(t, "state"), "ready") == 0, "the timeline was just read");
    item_id floor = strtoull(text(t, "floor"), NULL, 10);
    bool followed = json_array_size(json_object_get(o, "because")) > 0;
    bool holds = json_is_true(json_object_get(t, "holds"));
    expect(d, o, (strcmp(delivery, "store") == 0) == (it->id <= floor), "from the store, or not");
    if (it->id <= floor)
        expect(d, o, !holds, "held below the floor");
    else if (it->live && followed)
        expect(d, o, holds || strcmp(delivery, "pull") == 0, "delivered and not held");
    else if (it->live)
        expect(d, o, !holds, "held and not followed");
}

struct pairs {
    unsigned n, in_feed, pulled, stored, pushed;
};

static void check_pair(struct driver *d, bool delivered, struct pairs *p)
{
    unsigned user = rng_below(&d->rng, d->users);
    const struct model_item *it = &d->model.items[rng_below(&d->rng, (unsigned)d->model.n)];
    char id[ITEM_ID_TEXT_SIZE];
    json_t *o = explain(&stack.apis[rng_below(&d->rng, 2)], driver_user(d, user), it->id);
    ids_format(it->id, id);
    expect(d, o, strcmp(text(o, "item"), id) == 0, "of which item");
    bool shows = model_shows(&d->model, user, it);
    expect(d, o, json_is_true(json_object_get(o, "in_feed")) == shows, "in the feed, or not");
    check_because(d, user, it, o);
    check_hidden(d, user, it, o);
    const char *begin = shows ? "It is in the feed because " : "It is not in the feed: ";
    const char *summary = text(o, "summary");
    expect(d, o, strncmp(summary, begin, strlen(begin)) == 0 && summary[strlen(summary) - 1] == '.',
           "the sentence");
    if (delivered)
        check_timeline(d, it, o);
    p->n++;
    p->in_feed += shows;
    p->pulled += strcmp(text(o, "delivery"), "pull") == 0;
    p->pushed += strcmp(text(o, "delivery"), "push") == 0;
    p->stored += strcmp(text(o, "delivery"), "store") == 0;
    json_decref(o);
}

static struct pairs check_pairs(uint64_t seed)
{
    struct driver d;
    struct pairs p = {0};
    driver_init(&d, seed, "why", stack.apis, 2, stack.redis);
    driver_setup(&d, 60);
    for (unsigned r = 0; r < ROUNDS; r++) {
        bool delivered = r % 2;
        for (unsigned i = 0; i < ROUND_OPS; i++)
            driver_step(&d, DRIVER_GRAPH);
        if (delivered) {
            driver_catch_up(&d);
            for (unsigned u = 0; u < d.users; u++)
                driver_check_feed(&d, u);
        }
        for (unsigned i = 0; i < ROUND_PAIRS; i++)
            check_pair(&d, delivered, &p);
    }
    driver_done(&d);
    return p;
}

static void what_is_explained_is_what_the_model_says_for_a_thousand_pairs(void **state)
{
    (void)state;
    struct pairs p = check_pairs((uint64_t)e2e_env("FEEDMILL_SEED", 1));
    assert_true(p.n >= 1000);
    assert_in_range(p.in_feed, 50, p.n - 50);
    assert_true(p.stored > 0 && p.pushed > 0);
}

static void what_is_explained_is_what_the_model_says_while_targets_are_pulled(void **state)
{
    (void)state;
    struct pairs p = check_pairs((uint64_t)e2e_env("FEEDMILL_SEED", 1) + 100);
    assert_true(p.n >= 1000);
    assert_true(p.pulled > 0);
}

/* ---- the timeline ---- */

static void check_state(const char *user, item_id id, const char *state, const char *delivery)
{
    json_t *o = explain(&stack.apis[0], user, id);
    json_t *t = json_object_get(o, "timeline");
    assert_string_equal(text(t, "state"), state);
    assert_string_equal(text(o, "delivery"), delivery);
    bool known = strcmp(state, "absent") != 0;
    assert_int_equal(json_is_string(json_object_get(t, "floor")), known);
    assert_int_equal(json_is_string(json_object_get(t, "built_at")), known);
    assert_true(json_is_null(json_object_get(o, "ranking")));
    json_decref(o);
}

static void a_timeline_is_absent_then_ready_and_outdated_after_a_follow(void **state)
{
    (void)state;
    ts_t position = e2e_write(&stack.apis[0], "PUT", "/v1/users/seen/follows/publisher/told");
    item_id id = e2e_publish(&stack.apis[0], "told", NULL, "an item", "[\"news\"]", 0, &position);
    struct e2e_page p;
    check_state("seen", id, "absent", "store");
    e2e_page(&stack.apis[0], "/v1/users/seen/feed", "", NULL, position, &p);
    e2e_page_done(&p);
    check_state("seen", id, "ready", "push");
    json_t *o = explain(&stack.apis[0], "seen", id);
    assert_string_equal(text(o, "summary"),
                        "It is in the feed because the publisher told is followed; it was pushed into the "
                        "timeline.");
    json_decref(o);
    /* fanout drops it when it meets the change: either is right until the next page */
    e2e_write(&stack.apis[0], "PUT", "/v1/users/seen/mutes/topic/news");
    o = explain(&stack.apis[0], "seen", id);
    const char *now = text(json_object_get(o, "timeline"), "state");
    assert_true(strcmp(now, "outdated") == 0 || strcmp(now, "absent") == 0);
    assert_string_equal(text(o, "delivery"), "store");
    assert_string_equal(text(o, "summary"), "It is not in the feed: the topic news is muted.");
    json_decref(o);
}

static void several_reasons_are_one_sentence(void **state)
{
    (void)state;
    struct e2e_api *a = &stack.apis[0];
    item_id id = e2e_publish(a, "loud", NULL, "Wolf and bear", "[\"wild\"]", 0, NULL);
    e2e_write(a, "PUT", "/v1/users/picky/mutes/word/WOLF");
    e2e_write(a, "PUT", "/v1/users/picky/mutes/topic/wild");
    json_t *o = explain(a, "picky", id);
    assert_string_equal(
        text(o, "summary"),
        "It is not in the feed: neither its publisher nor one of its topics is followed and the "
        "topic wild and the word WOLF are muted.");
    json_decref(o);
    e2e_write(a, "DELETE", "/v1/items/%" PRIu64, id);
    e2e_write(a, "PUT", "/v1/users/picky/follows/publisher/loud");
    o = explain(&stack.apis[1], "picky", id);
    assert_string_equal(text(o, "summary"), "It is not in the feed: it was deleted.");
    json_decref(o);
}

static void what_is_not_there_can_not_be_explained(void **state)
{
    (void)state;
    json_decref(e2e_json(&stack.apis[0], "GET", "/v1/users/seen/feed/explain/12345", NULL, 404));
    json_decref(e2e_json(&stack.apis[0], "GET", "/v1/users/seen/feed/explain/x", NULL, 404));
    json_decref(e2e_json(&stack.apis[0], "GET", "/v1/users/seen/feed/explain/1?x=1", NULL, 400));
}

int main(void)
{
    const struct CMUnitTest plain[] = {
        cmocka_unit_test(what_is_explained_is_what_the_model_says_for_a_thousand_pairs),
        cmocka_unit_test(a_timeline_is_absent_then_ready_and_outdated_after_a_follow),
        cmocka_unit_test(several_reasons_are_one_sentence),
        cmocka_unit_test(what_is_not_there_can_not_be_explained),
    };
    const struct CMUnitTest pulling[] = {
        cmocka_unit_test(what_is_explained_is_what_the_model_says_while_targets_are_pulled),
    };
    e2e_choose_tests();
    int failed = cmocka_run_group_tests_name("explain", plain, start_stack, stop_stack);
    return failed + cmocka_run_group_tests_name("explain, pulled", pulling, start_pulling_stack, stop_stack);
}
