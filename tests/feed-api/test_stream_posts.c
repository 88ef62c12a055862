/* Where in the memory of the log each target is named. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/ids.h"
#include "common/mem.h"
#include "feed-api/stream_log.h"
#include "feed-api/stream_posts.h"

#define NAMES 12

static size_t from(const struct stream_posts *p, const char *name, uint64_t seq)
{
    size_t n;
    stream_posts_from(p, TARGET_TOPIC, name, seq, &n);
    return n;
}

static void what_is_added_in_any_order_is_ascending(void **state)
{
    (void)state;
    struct stream_posts *p = stream_posts_new();
    static const uint64_t seqs[] = {5, 9, 3, 7, 9, 1};
    size_t n;
    for (size_t i = 0; i < MEM_COUNT(seqs); i++)
        stream_posts_add(p, TARGET_TOPIC, "a", seqs[i]);
    const uint64_t *all = stream_posts_from(p, TARGET_TOPIC, "a", 0, &n);
    assert_int_equal(n, 5);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(all[i], 1 + 2 * i);
    assert_int_equal(from(p, "a", 4), 3);
    assert_int_equal(from(p, "a", 9), 1);
    assert_int_equal(from(p, "a", 10), 0);
    stream_posts_from(p, TARGET_PUBLISHER, "a", 0, &n);
    assert_int_equal(n, 0);
    stream_posts_free(p);
}

static void what_is_dropped_leaves_nothing_behind(void **state)
{
    (void)state;
    struct stream_posts *p = stream_posts_new();
    for (uint64_t i = 0; i < 1000; i++)
        stream_posts_add(p, TARGET_TOPIC, i % 2 ? "odd" : "even", i);
    assert_true(stream_posts_bytes(p) > 8000);
    for (uint64_t i = 0; i < 1000; i++) {
        stream_posts_drop(p, TARGET_TOPIC, i % 2 ? "odd" : "even", i);
        stream_posts_drop(p, TARGET_TOPIC, "neither", i);
        assert_int_equal(from(p, "odd", 0) + from(p, "even", 0), 999 - i);
    }
    assert_int_equal(stream_posts_bytes(p), 0);
    stream_posts_free(p);
}

/* A list that is always used at both ends does not grow. */
static void a_list_stays_as_large_as_what_is_in_it(void **state)
{
    (void)state;
    struct stream_posts *p = stream_posts_new();
    for (uint64_t i = 0; i < 100000; i++) {
        stream_posts_add(p, TARGET_TOPIC, "a", i);
        if (i >= 100)
            stream_posts_drop(p, TARGET_TOPIC, "a", i - 100);
        assert_true(stream_posts_bytes(p) < 5000);
    }
    stream_posts_free(p);
}

/* ---- as a part of the log ---- */

static struct change random_change(ts_t t, item_id id)
{
    struct change c = {
        .kind = CHANGE_ITEM, .t = t, .item = id, .revision = 1 + (int32_t)(ids_random_bits() % 3)};
    c.inserted = c.item_told = c.revision == 1;
    if (c.item_told)
        snprintf(c.publisher, sizeof c.publisher, "n%u", ids_random_bits() % NAMES);
    c.topics_changed = c.topics_told = c.revision == 2;
    if (c.inserted || c.topics_told)
        snprintf(c.topics[c.n_topics++], sizeof c.topics[0], "n%u", ids_random_bits() % NAMES);
    if (c.topics_changed)
        snprintf(c.topics_before[c.n_topics_before++], sizeof c.topics[0], "n%u", ids_random_bits() % NAMES);
    return c;
}

static bool names_topic(const struct stream_entry *e, const char *name)
{
    struct stream_names n;
    stream_entry_names(e, &n);
    for (size_t i = 0; i < n.n_topics; i++) {
        if (strcmp(n.topics[i], name) == 0)
            return true;
    }
    for (size_t i = 0; i < n.n_before; i++) {
        if (strcmp(n.before[i], name) == 0)
            return true;
    }
    return false;
}

static void check_agrees(const struct stream_log *l)
{
    for (unsigned i = 0; i < NAMES; i++) {
        char name[8];
        size_t n[3], k[3] = {0};
        snprintf(name, sizeof name, "n%u", i);
        uint64_t first = stream_log_first(l);
        const uint64_t *by_publisher = stream_log_naming(l, TARGET_PUBLISHER, name, first, &n[0]);
        const uint64_t *by_topic = stream_log_naming(l, TARGET_TOPIC, name, first, &n[1]);
        const uint64_t *open = stream_log_naming(l, TARGET_ITEM, "", first, &n[2]);
        for (uint64_t seq = first; seq < stream_log_end(l); seq++) {
            const struct stream_entry *e = stream_log_at(l, seq);
            struct stream_names names;
            stream_entry_names(e, &names);
            if (!e->resolved)
                assert_true(k[2] < n[2] && open[k[2]++] == seq);
            if (e->resolved && strcmp(names.publisher, name) == 0)
                assert_true(k[0] < n[0] && by_publisher[k[0]++] == seq);
            if (e->resolved && names_topic(e, name))
                assert_true(k[1] < n[1] && by_topic[k[1]++] == seq);
        }
        assert_true(k[0] == n[0] && k[1] == n[1] && k[2] == n[2]);
    }
}

static void resolve_some(struct stream_log *l)
{
    static const char *const topics[] = {"n3"};
    for (int i = 0; i < 20; i++) {
        uint64_t span = stream_log_end(l) - stream_log_first(l);
        if (span > 0)
            stream_log_resolve(l, stream_log_first(l) + ids_random_bits() % span, "n5", topics, 1);
    }
}

static void the_log_finds_by_name_what_a_look_at_all_finds(void **state)
{
    (void)state;
    struct stream_log *l = stream_log_new(12000, 3600), *older = stream_log_new(1 << 20, 3600);
    stream_log_begin(l, ts_make(1000, 0));
    for (unsigned i = 0; i < 2000; i++) {
        struct change c = random_change(ts_make(1000 + i / 100, i % 100), i + 1);
        assert_true(stream_log_add(l, &c));
        assert_true(stream_log_bytes(l) <= 12000);
        if (i % 50 == 0) {
            resolve_some(l);
            check_agrees(l);
        }
    }
    stream_log_free(l);
    l = stream_log_new(1 << 20, 3600);
    stream_log_begin(l, ts_make(1010, 0));
    stream_log_begin(older, ts_make(1000, 0));
    for (unsigned i = 0; i < 300; i++) {
        struct change c = random_change(ts_make(1000 + i / 20, i % 20), i + 1);
        assert_true(stream_log_add(older, &c));
        c = random_change(ts_make(1010 + i / 20, i % 20), 1000 + i);
        assert_true(stream_log_add(l, &c));
    }
    resolve_some(older);
    assert_true(stream_log_join(l, older, ts_make(1010, 0)));
    assert_int_equal(stream_log_bytes(older), 0);
    check_agrees(l);
    resolve_some(l);
    check_agrees(l);
    stream_log_free(older);
    stream_log_free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_added_in_any_order_is_ascending),
        cmocka_unit_test(what_is_dropped_leaves_nothing_behind),
        cmocka_unit_test(a_list_stays_as_large_as_what_is_in_it),
        cmocka_unit_test(the_log_finds_by_name_what_a_look_at_all_finds),
    };
    return cmocka_run_group_tests_name("feed-api/stream_posts", tests, NULL, NULL);
}
