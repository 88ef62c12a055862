/* The ETag of a page: what it is made of, and what an If-None-Match says about it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "feed-api/page_tag.h"

#define TAG "W/\"0123456789abcdef\""

static uint64_t of_numbers(const uint64_t *v, size_t n)
{
    struct page_tag t;
    char text[PAGE_TAG_TEXT_SIZE];
    page_tag_init(&t);
    for (size_t i = 0; i < n; i++)
        page_tag_add(&t, v[i]);
    page_tag_write(&t, text);
    assert_int_equal(strlen(text), PAGE_TAG_TEXT_SIZE - 1);
    assert_memory_equal(text, "W/\"", 3);
    assert_int_equal(text[PAGE_TAG_TEXT_SIZE - 2], '"');
    return strtoull(text + 3, NULL, 16);
}

static void the_same_makes_the_same_tag_in_every_process(void **state)
{
    (void)state;
    struct page_tag t;
    char text[PAGE_TAG_TEXT_SIZE];
    page_tag_init(&t);
    page_tag_add(&t, 3676700774466685);
    page_tag_add_str(&t, "complete");
    page_tag_write(&t, text);
    assert_string_equal(text, "W/\"0b42a2931393c961\"");
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Pages that differ in one bit, in one revision, in the order of two items, or by an item more. */
static void another_page_has_another_tag(void **state)
{
    (void)state;
    uint64_t page[40], tags[64 * 40 + 40 + 40 + 1];
    size_t n = 0;
    for (size_t i = 0; i < 40; i++)
        page[i] = i % 2 ? 1 : UINT64_C(3676700774466685) + i * 2048;
    for (size_t i = 0; i < 40; i++) {
        for (int bit = 0; bit < 64; bit++) {
            page[i] ^= UINT64_C(1) << bit;
            tags[n++] = of_numbers(page, 40);
            page[i] ^= UINT64_C(1) << bit;
        }
        tags[n++] = of_numbers(page, i);
    }
    for (size_t i = 2; i < 40; i += 2) {
        uint64_t was = page[i];
        page[i] = page[0];
        page[0] = was;
        tags[n++] = of_numbers(page, 40);
        page[0] = page[i];
        page[i] = was;
    }
    tags[n++] = of_numbers(page, 40);
    qsort(tags, n, sizeof *tags, by_value);
    for (size_t i = 1; i < n; i++)
        assert_true(tags[i] != tags[i - 1]);
}

static uint64_t of_strings(const char *a, const char *b)
{
    struct page_tag t;
    char text[PAGE_TAG_TEXT_SIZE];
    page_tag_init(&t);
    page_tag_add_str(&t, a);
    page_tag_add_str(&t, b);
    page_tag_write(&t, text);
    return strtoull(text + 3, NULL, 16);
}

static void strings_end_where_they_end(void **state)
{
    (void)state;
    assert_true(of_strings("ab", "c") != of_strings("a", "bc"));
    assert_true(of_strings("", NULL) != of_strings(NULL, ""));
    assert_true(of_strings("12345678", "") != of_strings("", "12345678"));
    assert_true(of_strings("123456789", "x") == of_strings("123456789", "x"));
    assert_true(of_strings("123456789", "x") != of_strings("123456780", "x"));
}

static void a_list_with_the_tag_matches_weak_or_not(void **state)
{
    static const char *const yes[] = {
        TAG,
        "\"0123456789abcdef\"",
        "  " TAG "  ",
        "\"a\", " TAG,
        "\"a\",W/\"b\" ,\t" TAG ",\"c\"",
        ", ," TAG ",",
        "\"with, comma\", " TAG,
        "*",
        " * ",
    };
    (void)state;
    for (size_t i = 0; i < MEM_COUNT(yes); i++) {
        if (!page_tag_matches(yes[i], TAG))
            fail_msg("%s does not match", yes[i]);
    }
}

static void anything_else_does_not_match(void **state)
{
    static const char *const no[] = {
        NULL,
        "",
        "0123456789abcdef",
        "\"0123456789abcdee\"",
        "\"0123456789abcdef",
        "\"0123456789ABCDEF\"",
        "w/\"0123456789abcdef\"",
        "W/ \"0123456789abcdef\"",
        "\"\"",
        "\"a\"" TAG,
        TAG " x",
        TAG "; q=1",
        "*, " TAG,
        "**",
        "\"x\"*",
    };
    (void)state;
    for (size_t i = 0; i < MEM_COUNT(no); i++) {
        if (page_tag_matches(no[i], TAG))
            fail_msg("%s matches", no[i] ? no[i] : "nothing");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_makes_the_same_tag_in_every_process),
        cmocka_unit_test(another_page_has_another_tag),
        cmocka_unit_test(strings_end_where_they_end),
        cmocka_unit_test(a_list_with_the_tag_matches_weak_or_not),
        cmocka_unit_test(anything_else_does_not_match),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
