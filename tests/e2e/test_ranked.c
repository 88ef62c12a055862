/* test_ranked.c - from engagement to order, through all three processes: likes go to feed-api, the ranker
 * learns, and the reader's next session shows it. Sessions are frozen, but for what has to leave.
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

#define PUBLISHERS 4
#define ITEMS      60 /* of all of them, in turn */
#define LIKED      3  /* the publisher */
#define LIKES      10
#define UNTIL_MS   20000

static struct e2e_stack stack;
static const struct e2e_stack_options with_affinity = {
    .ranker = true, .entries = "120", .api_flags = {"--rank-deadline", "2s"}};
static const struct e2e_stack_options without_affinity = {.ranker = true,
                                                          .entries = "120",
                                                          .api_flags = {"--rank-deadline", "2s"},
                                                          .ranker_flags = {"--weight-affinity", "0"}};

static int start_stack(void **state)
{
    (void)state;
    e2e_stack_start(&stack, &with_affinity);
    return 0;
}

static int stop_stack(void **state)
{
    (void)state;
    return e2e_stack_stop(&stack);
}

/* ---- a reader of four publishers ---- */

struct scene {
    char user[40], feed[80];
    item_id ids[ITEMS]; /* ids[i] is of publisher i % PUBLISHERS */
    ts_t at;
};

static const char *publisher(const struct scene *s, unsigned i)
{
    static char name[60];
    snprintf(name, sizeof name, "%s-p%u", s->user, i % PUBLISHERS);
    return name;
}

/* All are a few minutes of each other, a day old: freshness says little. */
static void make_scene(struct scene *s, const char *user)
{
    int64_t day_ago = clock_wall_ms() - 86400000;
    memset(s, 0, sizeof *s);
    snprintf(s->user, sizeof s->user, "%s", user);
    snprintf(s->feed, sizeof s->feed, "/v1/users/%s/feed", user);
    for (unsigned i = 0; i < PUBLISHERS; i++)
        s->at = e2e_write(&stack.apis[0], "PUT", "/v1/users/%s/follows/publisher/%s", user, publisher(s, i));
    for (unsigned i = 0; i < ITEMS; i++)
        s->ids[i] = e2e_publish(&stack.apis[0], publisher(s, i), NULL, "an item", NULL,
                                day_ago - (int64_t)i * 1000, &s->at);
}

static void like(const struct scene *s)
{
    struct reply r;
    json_t *events = json_array();
    for (unsigned i = 0, n = 0; n < LIKES; i++) {
        char id[ITEM_ID_TEXT_SIZE];
        if (i % PUBLISHERS != LIKED)
            continue;
        ids_format(s->ids[i], id);
        json_array_append_new(events, json_pack("{s:s,s:s,s:s}", "type", "like", "item", id, "event_id", id));
        n++;
    }
    json_t *o = json_pack("{s:o}", "events", events);
    char *body = json_dumps(o, 0), path[80];
    snprintf(path, sizeof path, "/v1/users/%s/events", s->user);
    for (int again = 0; again < 2; again++) { /* the second time they are known */
        e2e_call(&stack.apis[0], "POST", path, body, 202, &r);
        json_t *j = reply_json(&r);
        assert_int_equal(json_integer_value(json_object_get(j, again ? "duplicates" : "accepted")), LIKES);
        json_decref(j);
        reply_done(&r);
    }
    free(body);
    json_decref(o);
}

/* A whole session: its first page has position, so that all of the scene is in it. */
struct session {
    item_id ids[ITEMS + 20];
    size_t n;
    char *cursor; /* after the first page */
};

static void add_page(struct session *x, const struct e2e_page *p)
{
    for (size_t i = 0; i < p->n; i++) {
        for (size_t k = 0; k < x->n; k++)
            if (x->ids[k] == p->items[i].id)
                fail_msg("item %" PRIu64 " is twice in a session", p->items[i].id);
        assert_true(x->n < MEM_COUNT(x->ids));
        x->ids[x->n++] = p->items[i].id;
    }
}

static void first_page(const struct scene *s, const char *query, struct session *x)
{
    struct e2e_page p;
    memset(x, 0, sizeof *x);
    e2e_page(&stack.apis[0], s->feed, query, NULL, s->at, &p);
    if (p.fallback[0])
        fail_msg("not ranked: %s", p.fallback);
    assert_true(p.session[0]);
    add_page(x, &p);
    x->cursor = mem_strdup(p.next);
    e2e_page_done(&p);
}

static void other_pages(const struct scene *s, const char *query, struct session *x)
{
    while (x->cursor) {
        struct e2e_page p;
        e2e_page(&stack.apis[0], s->feed, query, x->cursor, 0, &p);
        add_page(x, &p);
        free(x->cursor);
        x->cursor = mem_strdup(p.next);
        e2e_page_done(&p);
    }
}

/* The mean place of the liked publisher's items. */
static double mean_place(const struct scene *s)
{
    struct session x;
    double sum = 0;
    unsigned n = 0;
    first_page(s, "limit=25&order=ranked&fields=ids", &x);
    other_pages(s, "limit=25&fields=ids", &x);
    assert_int_equal(x.n, ITEMS);
    for (size_t place = 0; place < x.n; place++)
        for (unsigned i = LIKED; i < ITEMS; i += PUBLISHERS)
            if (s->ids[i] == x.ids[place]) {
                sum += (double)place;
                n++;
            }
    assert_int_equal(n, ITEMS / PUBLISHERS);
    return sum / n;
}

static double learned(void)
{
    return e2e_metric_on((uint16_t)fixture_port(stack.f, stack.ranker), stack.apis[0].auth,
                         "feedmill_ranker_events_total{result=\"learned\"}");
}

static bool has_learned(void *arg)
{
    return learned() >= *(const double *)arg;
}

static void like_and_wait(const struct scene *s)
{
    double all = learned() + LIKES;
    like(s);
    assert_true(fixture_until(has_learned, &all, UNTIL_MS));
    assert_true(learned() == all); /* each counts once, though they were sent twice */
}

/* ---- tests ---- */

static void after_ten_likes_of_a_publisher_its_items_rise_in_the_next_session(void **state)
{
    (void)state;
    struct scene s, other;
    make_scene(&s, "likes");
    make_scene(&other, "likes-nothing");
    double before = mean_place(&s), of_other = mean_place(&other);
    like_and_wait(&s);
    double after = mean_place(&s);
    printf("mean place of the liked publisher's %d items: %.1f, after %d likes %.1f\n", ITEMS / PUBLISHERS,
           before, LIKES, after);
    assert_true(after < before - 10);
    assert_true(mean_place(&other) == of_other);
}

static void without_the_weight_of_affinity_likes_change_nothing(void **state)
{
    (void)state;
    struct scene s;
    e2e_stack_fresh(&stack, &without_affinity);
    make_scene(&s, "weightless");
    double before = mean_place(&s);
    like_and_wait(&s);
    double after = mean_place(&s);
    e2e_stack_fresh(&stack, &with_affinity);
    if (after < before - 0.5 || after > before + 0.5)
        fail_msg("the mean place went from %.1f to %.1f", before, after);
}

static void a_session_is_frozen_while_others_publish(void **state)
{
    (void)state;
    struct scene s;
    struct session x, y;
    make_scene(&s, "frozen");
    first_page(&s, "limit=7&order=ranked&fields=ids", &x);
    for (unsigned i = 0; i < 20; i++)
        e2e_publish(&stack.apis[0], publisher(&s, i), NULL, "meanwhile", NULL, 0, &s.at);
    other_pages(&s, "limit=7&fields=ids", &x);
    assert_int_equal(x.n, ITEMS);
    for (unsigned i = 0; i < ITEMS; i++) {
        bool there = false;
        for (size_t k = 0; k < x.n; k++)
            there = there || x.ids[k] == s.ids[i];
        assert_true(there);
    }
    first_page(&s, "limit=50&order=ranked&fields=ids", &y);
    other_pages(&s, "limit=50&fields=ids", &y);
    assert_int_equal(y.n, ITEMS + 20);
}

static void what_is_deleted_muted_or_unfollowed_leaves_a_session_at_once(void **state)
{
    (void)state;
    struct scene s;
    struct session x;
    make_scene(&s, "leaves");
    first_page(&s, "limit=5&order=ranked&fields=ids", &x);
    size_t first = x.n;
    item_id deleted = 0, muted = 0;
    for (unsigned i = 0; i < ITEMS && !muted; i++) {
        bool shown = false;
        for (size_t k = 0; k < first; k++)
            shown = shown || x.ids[k] == s.ids[i];
        if (!shown && i % PUBLISHERS != 1) {
            muted = deleted ? s.ids[i] : 0;
            deleted = deleted ? deleted : s.ids[i];
        }
    }
    e2e_write(&stack.apis[0], "DELETE", "/v1/items/%" PRIu64, deleted);
    e2e_write(&stack.apis[0], "PUT", "/v1/users/%s/mutes/item/%" PRIu64, s.user, muted);
    e2e_write(&stack.apis[0], "DELETE", "/v1/users/%s/follows/publisher/%s", s.user, publisher(&s, 1));
    other_pages(&s, "limit=5&fields=ids", &x);
    size_t of_unfollowed = 0;
    for (size_t k = first; k < x.n; k++) {
        assert_true(x.ids[k] != deleted && x.ids[k] != muted);
        for (unsigned i = 1; i < ITEMS; i += PUBLISHERS)
            assert_true(x.ids[k] != s.ids[i]);
    }
    for (size_t k = 0; k < first; k++)
        for (unsigned i = 1; i < ITEMS; i += PUBLISHERS)
            of_unfollowed += x.ids[k] == s.ids[i];
    assert_int_equal(x.n, ITEMS - ITEMS / PUBLISHERS + of_unfollowed - 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(after_ten_likes_of_a_publisher_its_items_rise_in_the_next_session),
        cmocka_unit_test(without_the_weight_of_affinity_likes_change_nothing),
        cmocka_unit_test(a_session_is_frozen_while_others_publish),
        cmocka_unit_test(what_is_deleted_muted_or_unfollowed_leaves_a_session_at_once),
    };
    e2e_choose_tests();
    return cmocka_run_group_tests_name("ranked", tests, start_stack, stop_stack);
}
