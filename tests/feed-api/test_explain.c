/* Tests of feed-api/explain.c: what an item's being in a feed is put down to. The whole is compared with a
 * model in tests/e2e/test_explain.c. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "feed-api/content_private.h"
#include "feed-api/explain.h"

/* An item 500 of "daily" on "sport" and "news". */
static struct content_entry *entry(bool live)
{
    struct item it = {.id = 500,
                      .revision = 1,
                      .live = live,
                      .publisher = (char *)"daily",
                      .title = (char *)"A wolf",
                      .body = (char *)"and a bear",
                      .n_topics = live ? 2 : 0};
    strcpy(it.topics[0], "sport");
    strcpy(it.topics[1], "news");
    return content_entry_new(&it);
}

static struct explain decide(bool live, char *publisher, char *topic, const char *mutes)
{
    struct follow_set f = {.publishers = &publisher,
                           .n_publishers = publisher != NULL,
                           .topics = &topic,
                           .n_topics = topic != NULL};
    struct content_entry *item = entry(live);
    struct explain x;
    explain_decide(&f, mutes, item, &x);
    content_unref(item);
    return x;
}

static void what_matches_and_what_hides_is_all_named(void **state)
{
    (void)state;
    struct explain x = decide(true, (char *)"daily", (char *)"news", NULL);
    assert_true(x.in_feed);
    assert_int_equal(x.n_follows, 2);
    assert_string_equal(x.follows[0], "p:daily");
    assert_string_equal(x.follows[1], "t:news");
    explain_done(&x);
    x = decide(true, (char *)"daily", NULL, "i:500\np:daily\np:other\nt:sport\nw:BEAR\nw:bea");
    assert_false(x.in_feed);
    assert_int_equal(x.n_mutes, 4);
    assert_string_equal(x.mutes[0], "i:500");
    assert_string_equal(x.mutes[3], "w:BEAR");
    explain_done(&x);
    x = decide(true, (char *)"weekly", (char *)"cats", "");
    assert_false(x.in_feed);
    assert_int_equal(x.n_follows, 0);
    explain_done(&x);
    x = decide(false, (char *)"daily", (char *)"news", "w:wolf\ni:500");
    assert_true(x.deleted && !x.in_feed);
    assert_int_equal(x.n_follows, 1);
    assert_int_equal(x.n_mutes, 1);
    explain_done(&x);
}

static void the_state_of_a_timeline_is_what_pages_make_of_it(void **state)
{
    (void)state;
    struct timeline t = {
        .has_record = true, .progress = 90, .born = 10, .exists = true, .ready = true, .r = 50};
    struct timeline_question q = {0};
    assert_int_equal(explain_state_of(NULL, &q), EXPLAIN_UNKNOWN);
    assert_int_equal(explain_state_of(&t, &q), EXPLAIN_READY);
    q.user_changed = 51;
    assert_int_equal(explain_state_of(&t, &q), EXPLAIN_OUTDATED);
    q.user_changed = 0;
    t.has_record = false;
    assert_int_equal(explain_state_of(&t, &q), EXPLAIN_OUTDATED);
    t.ready = false;
    assert_int_equal(explain_state_of(&t, &q), EXPLAIN_BUILDING);
    t.exists = false;
    assert_int_equal(explain_state_of(&t, &q), EXPLAIN_ABSENT);
}

static void an_item_is_pushed_pulled_or_read_from_the_store(void **state)
{
    (void)state;
    struct explain x = decide(true, (char *)"daily", (char *)"news", NULL);
    item_id other = 499, same = 500;
    struct timeline t = {.floor = 100, .ids = &other, .n = 1};
    bool holds;
    assert_int_equal(explain_delivery_of(&x, &t, EXPLAIN_READY, &holds), EXPLAIN_PUSH);
    assert_false(holds);
    t.pulls = (char *)"\nt:new\nt:newspaper\n";
    assert_int_equal(explain_delivery_of(&x, &t, EXPLAIN_READY, &holds), EXPLAIN_PUSH);
    t.pulls = (char *)"\np:other\nt:news\n";
    assert_int_equal(explain_delivery_of(&x, &t, EXPLAIN_READY, &holds), EXPLAIN_PULL);
    t.ids = &same;
    assert_int_equal(explain_delivery_of(&x, &t, EXPLAIN_READY, &holds), EXPLAIN_PUSH);
    assert_true(holds);
    assert_int_equal(explain_delivery_of(&x, &t, EXPLAIN_OUTDATED, &holds), EXPLAIN_STORE);
    t.floor = 500;
    assert_int_equal(explain_delivery_of(&x, &t, EXPLAIN_READY, &holds), EXPLAIN_STORE);
    assert_int_equal(explain_delivery_of(&x, NULL, EXPLAIN_UNKNOWN, &holds), EXPLAIN_STORE);
    assert_false(holds);
    explain_done(&x);
}

static json_t *written(const struct explain *x, enum explain_delivery how, bool known)
{
    struct explain_timeline t = {.state = known ? EXPLAIN_READY : EXPLAIN_UNKNOWN,
                                 .known = known,
                                 .floor = 7,
                                 .r = ts_make(1700000000, 1),
                                 .holds = known};
    struct buf out;
    buf_init(&out, 100000);
    explain_write(x, how, &t, 12, &out);
    json_t *o = json_loadb(out.data, out.len, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(o);
    buf_done(&out);
    return o;
}

static void the_answer_is_json_whatever_is_named(void **state)
{
    (void)state;
    struct explain x = decide(true, NULL, NULL, "p:daily\nt:news\nw:a\nw:wolf\nw:bear\nw:and\ni:500");
    json_t *o = written(&x, EXPLAIN_STORE, false);
    assert_int_equal(json_array_size(json_object_get(o, "hidden_by")), 8);
    assert_true(json_is_null(json_object_get(json_object_get(o, "timeline"), "built_at")));
    assert_string_equal(
        json_string_value(json_object_get(o, "summary")),
        "It is not in the feed: neither its publisher nor one of its topics is followed and the "
        "publisher daily, the topic news, the word a, the word wolf and 3 more are muted.");
    json_decref(o);
    explain_done(&x);
    char *odd = mem_strdup("a\"\\b");
    x = decide(true, odd, (char *)"sport", NULL);
    strcpy(x.follows[0], "p:a\"\\b");
    x.n_follows = 1;
    o = written(&x, EXPLAIN_PUSH, true);
    const json_t *because = json_array_get(json_object_get(o, "because"), 0);
    assert_string_equal(json_string_value(json_object_get(because, "name")), odd);
    assert_string_equal(json_string_value(json_object_get(json_object_get(o, "timeline"), "built_at")),
                        "2023-11-14T22:13:20.000Z");
    json_decref(o);
    explain_done(&x);
    free(odd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_matches_and_what_hides_is_all_named),
        cmocka_unit_test(the_state_of_a_timeline_is_what_pages_make_of_it),
        cmocka_unit_test(an_item_is_pushed_pulled_or_read_from_the_store),
        cmocka_unit_test(the_answer_is_json_whatever_is_named),
    };
    return cmocka_run_group_tests_name("explain", tests, NULL, NULL);
}
