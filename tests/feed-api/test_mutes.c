/* Tests of feed-api/mutes.c: what is muted is hidden, and nothing else. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "common/buf.h"
#include "feed-api/content_private.h"
#include "feed-api/mutes.h"

/* An item 500 of p "daily" on "sport" and "news". */
static struct content_entry *entry(const char *title, const char *body)
{
    struct item it = {.id = 500,
                      .revision = 1,
                      .live = true,
                      .publisher = (char *)"daily",
                      .title = (char *)title,
                      .body = (char *)body,
                      .n_topics = 2};
    strcpy(it.topics[0], "sport");
    strcpy(it.topics[1], "news");
    return content_entry_new(&it);
}

static bool hides(const char *mutes, const char *title, const char *body)
{
    struct mutes m;
    struct content_entry *x = entry(title, body);
    mutes_parse(mutes, &m);
    bool hidden = mutes_hide(&m, x);
    mutes_done(&m);
    content_unref(x);
    return hidden;
}

static void no_mutes_hide_nothing(void **state)
{
    (void)state;
    assert_false(hides(NULL, "a", "b"));
    assert_false(hides("", "a", "b"));
    struct mutes m;
    mutes_parse("", &m);
    assert_false(mutes_any(&m));
    mutes_done(&m);
}

static void a_muted_publisher_is_hidden(void **state)
{
    (void)state;
    assert_true(hides("p:daily", "a", "b"));
    assert_false(hides("p:dail", "a", "b"));
    assert_false(hides("p:dailyx", "a", "b"));
    assert_false(hides("t:daily", "a", "b"));
}

static void an_item_with_any_muted_topic_is_hidden(void **state)
{
    (void)state;
    assert_true(hides("t:news", "a", "b"));
    assert_true(hides("t:zebra\nt:sport\nt:alpha", "a", "b"));
    assert_false(hides("t:new", "a", "b"));
    assert_false(hides("p:news", "a", "b"));
}

static void a_muted_item_is_hidden_without_its_body(void **state)
{
    (void)state;
    assert_true(hides("i:499\ni:500\ni:7", "a", "b"));
    assert_false(hides("i:501", "a", "b"));
    struct mutes m;
    mutes_parse("i:9\ni:500", &m);
    assert_true(mutes_hide_id(&m, 500));
    assert_false(mutes_hide_id(&m, 50));
    mutes_done(&m);
}

static void a_muted_word_hides_in_title_or_body_in_any_case(void **state)
{
    (void)state;
    assert_true(hides("w:cat", "The CAT sat", "b"));
    assert_true(hides("w:cat", "a", "on a Cat."));
    assert_true(hides("w:\xc3\x84rger", "\xc3\xa4rger im Haus", "b")); /* Ärger, ärger */
    assert_false(hides("w:cat", "concatenate", "category"));
    assert_false(hides("w:daily", "a", "b"));
}

static void lines_that_are_no_targets_are_left_out(void **state)
{
    (void)state;
    assert_true(hides("nonsense\n\ni:x\nq:daily\np:daily\n", "a", "b"));
    assert_false(hides("nonsense\n\ni:x\nq:daily\n", "a", "b"));
}

static void a_thousand_mutes_are_found_each(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 1 << 20);
    for (int i = 0; i < 1000; i++)
        buf_printf(&b, "%c:%d\n", "pti"[i % 3], 100 + i);
    struct mutes m;
    mutes_parse(b.data, &m);
    assert_int_equal(m.n_publishers + m.n_topics + m.n_items, 1000);
    for (item_id i = 0; i < 1200; i++)
        assert_int_equal(mutes_hide_id(&m, i), i >= 102 && i < 1100 && (i - 100) % 3 == 2);
    mutes_done(&m);
    buf_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_mutes_hide_nothing),
        cmocka_unit_test(a_muted_publisher_is_hidden),
        cmocka_unit_test(an_item_with_any_muted_topic_is_hidden),
        cmocka_unit_test(a_muted_item_is_hidden_without_its_body),
        cmocka_unit_test(a_muted_word_hides_in_title_or_body_in_any_case),
        cmocka_unit_test(lines_that_are_no_targets_are_left_out),
        cmocka_unit_test(a_thousand_mutes_are_found_each),
    };
    return cmocka_run_group_tests_name("mutes", tests, NULL, NULL);
}
