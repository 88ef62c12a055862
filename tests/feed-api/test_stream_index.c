/* Who listens to what. */
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
#include "feed-api/stream_index.h"

#define STREAMS 60
#define NAMES   40

static void set(struct stream_index *x, uint32_t stream, const char *publishers, const char *topics)
{
    char *p[NAMES], *t[NAMES], *a = mem_strdup(publishers), *b = mem_strdup(topics), *save;
    struct follow_set f = {.publishers = p, .topics = t};
    for (char *s = strtok_r(a, " ", &save); s != NULL; s = strtok_r(NULL, " ", &save))
        p[f.n_publishers++] = s;
    for (char *s = strtok_r(b, " ", &save); s != NULL; s = strtok_r(NULL, " ", &save))
        t[f.n_topics++] = s;
    stream_index_set(x, stream, &f);
    free(a);
    free(b);
}

static bool listens(const struct stream_index *x, uint32_t stream, enum target_kind kind, const char *name)
{
    size_t n, found = 0;
    const uint32_t *all = stream_index_find(x, kind, name, &n);
    for (size_t i = 0; i < n; i++)
        found += all[i] == stream;
    assert_true(found <= 1);
    assert_int_equal(stream_index_has(x, stream, kind, name), found);
    return found == 1;
}

static void a_publisher_and_a_topic_of_one_name_are_two(void **state)
{
    (void)state;
    struct stream_index *x = stream_index_new();
    set(x, 1, "chess", "");
    set(x, 2, "", "chess");
    assert_true(listens(x, 1, TARGET_PUBLISHER, "chess"));
    assert_false(listens(x, 1, TARGET_TOPIC, "chess"));
    assert_true(listens(x, 2, TARGET_TOPIC, "chess"));
    assert_false(listens(x, 2, TARGET_PUBLISHER, "chess"));
    assert_false(listens(x, 3, TARGET_TOPIC, "chess"));
    stream_index_free(x);
}

static void nobody_listens_to_what_nobody_follows(void **state)
{
    (void)state;
    struct stream_index *x = stream_index_new();
    size_t n = 9;
    assert_null(stream_index_find(x, TARGET_TOPIC, "chess", &n));
    assert_int_equal(n, 0);
    set(x, 1, "", "");
    stream_index_drop(x, 1);
    stream_index_drop(x, 77); /* was never there */
    stream_index_free(x);
}

static void what_was_followed_before_is_replaced(void **state)
{
    (void)state;
    struct stream_index *x = stream_index_new();
    set(x, 5, "a b", "c");
    set(x, 5, "b d", "");
    assert_false(listens(x, 5, TARGET_PUBLISHER, "a"));
    assert_true(listens(x, 5, TARGET_PUBLISHER, "b"));
    assert_true(listens(x, 5, TARGET_PUBLISHER, "d"));
    assert_false(listens(x, 5, TARGET_TOPIC, "c"));
    assert_int_equal(stream_index_edges(x), 2);
    assert_int_equal(stream_index_targets(x), 2);
    stream_index_drop(x, 5);
    assert_int_equal(stream_index_edges(x), 0);
    assert_int_equal(stream_index_targets(x), 0);
    stream_index_free(x);
}

/* Against a table, in thousands of random steps. */
static void it_agrees_with_a_table_after_any_changes(void **state)
{
    (void)state;
    struct stream_index *x = stream_index_new();
    static bool follows[STREAMS][NAMES];
    memset(follows, 0, sizeof follows);
    for (unsigned step = 0; step < 20000; step++) {
        uint32_t s = ids_random_bits() % STREAMS;
        char names[NAMES][8], *list[NAMES];
        struct follow_set f = {.publishers = list};
        bool drop = ids_random_bits() % 4 == 0;
        for (unsigned i = 0; i < NAMES; i++) {
            follows[s][i] = !drop && ids_random_bits() % 8 == 0;
            snprintf(names[i], sizeof names[i], "n%u", i);
            if (follows[s][i])
                list[f.n_publishers++] = names[i];
        }
        if (drop)
            stream_index_drop(x, s);
        else
            stream_index_set(x, s, &f);
        unsigned i = ids_random_bits() % NAMES;
        size_t n, want = 0;
        stream_index_find(x, TARGET_PUBLISHER, names[i], &n);
        for (uint32_t k = 0; k < STREAMS; k++) {
            assert_int_equal(listens(x, k, TARGET_PUBLISHER, names[i]), follows[k][i]);
            want += follows[k][i];
        }
        assert_int_equal(n, want);
    }
    stream_index_free(x);
}

/* What a name costs does not depend on how many others there are: the table grows. */
static void thousands_of_names_are_found(void **state)
{
    (void)state;
    struct stream_index *x = stream_index_new();
    char name[32], *list[] = {name};
    struct follow_set f = {.topics = list, .n_topics = 1};
    for (uint32_t i = 0; i < 5000; i++) {
        snprintf(name, sizeof name, "topic-%u", i);
        stream_index_set(x, i, &f);
    }
    for (uint32_t i = 0; i < 5000; i++) {
        size_t n;
        snprintf(name, sizeof name, "topic-%u", i);
        const uint32_t *who = stream_index_find(x, TARGET_TOPIC, name, &n);
        assert_int_equal(n, 1);
        assert_int_equal(who[0], i);
    }
    assert_int_equal(stream_index_targets(x), 5000);
    stream_index_free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_publisher_and_a_topic_of_one_name_are_two),
        cmocka_unit_test(nobody_listens_to_what_nobody_follows),
        cmocka_unit_test(what_was_followed_before_is_replaced),
        cmocka_unit_test(it_agrees_with_a_table_after_any_changes),
        cmocka_unit_test(thousands_of_names_are_found),
    };
    return cmocka_run_group_tests_name("feed-api/stream_index", tests, NULL, NULL);
}
