#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"

static void what_is_appended_is_there_and_terminated(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 1000);
    assert_null(b.data);
    buf_add(&b, "ab\0c", 4);
    buf_add_str(&b, "de");
    buf_add_char(&b, 'f');
    assert_int_equal(b.len, 7);
    assert_memory_equal(b.data, "ab\0cdef", 8);
    assert_false(b.full);
    buf_done(&b);
    assert_null(b.data);
    assert_int_equal(b.len, 0);
    buf_add_str(&b, "again");
    assert_string_equal(b.data, "again");
    buf_done(&b);
}

static void appending_nothing_to_an_empty_buf_leaves_it_readable(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 10);
    buf_add(&b, NULL, 0);
    buf_add_str(&b, "");
    assert_int_equal(b.len, 0);
    assert_false(b.full);
    assert_true(b.data == NULL || b.data[0] == '\0');
    buf_done(&b);
}

static void what_was_expected_is_not_moved(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 100000);
    buf_expect(&b, 100001); /* can't come: nothing is reserved, nothing refused */
    assert_false(b.full);
    assert_null(b.data);
    buf_add_char(&b, '[');
    buf_expect(&b, 50000);
    const char *data = b.data;
    for (int i = 0; i < 50000; i++)
        buf_add_char(&b, 'x');
    assert_ptr_equal(b.data, data);
    assert_int_equal(b.len, 50001);
    assert_int_equal(b.data[0], '[');
    buf_done(&b);
}

static void numbers_are_written_in_decimal_to_their_ends(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 1000);
    buf_add_u64(&b, 0);
    buf_add_char(&b, ' ');
    buf_add_u64(&b, UINT64_MAX);
    buf_add_char(&b, ' ');
    buf_add_i64(&b, INT64_MIN);
    buf_add_char(&b, ' ');
    buf_add_i64(&b, INT64_MAX);
    buf_add_char(&b, ' ');
    buf_add_i64(&b, -1);
    assert_string_equal(b.data, "0 18446744073709551615 -9223372036854775808 9223372036854775807 -1");
    buf_done(&b);
}

static void a_buf_can_be_filled_to_its_very_maximum(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 5);
    buf_add_str(&b, "abcde");
    assert_false(b.full);
    assert_string_equal(b.data, "abcde");
    buf_add_char(&b, 'f');
    assert_true(b.full);
    assert_string_equal(b.data, "abcde");
    buf_done(&b);
}

static void after_the_first_append_that_does_not_fit_none_is_added(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 5);
    buf_add_str(&b, "abc");
    buf_add_str(&b, "def");
    assert_true(b.full);
    buf_add_char(&b, 'x');
    buf_printf(&b, "%d", 1);
    buf_add_u64(&b, 1);
    buf_add_json(&b, "");
    assert_string_equal(b.data, "abc");
    buf_reset(&b);
    assert_false(b.full);
    assert_int_equal(b.len, 0);
    assert_string_equal(b.data, "");
    buf_add_str(&b, "def");
    assert_string_equal(b.data, "def");
    buf_done(&b);
}

static void a_huge_append_does_not_wrap_around(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 100);
    buf_add_str(&b, "abc");
    buf_add(&b, "x", SIZE_MAX);
    assert_true(b.full);
    assert_string_equal(b.data, "abc");
    buf_done(&b);
}

static void memory_never_exceeds_the_maximum_and_the_nul(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 300);
    for (int i = 0; i < 300; i++)
        buf_add_char(&b, 'x');
    assert_false(b.full);
    assert_true(b.cap <= 301);
    buf_done(&b);
}

static void a_formatted_text_is_all_or_nothing(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 8);
    buf_printf(&b, "%s-%d", "ab", 12);
    assert_string_equal(b.data, "ab-12");
    buf_printf(&b, "%d", 1000);
    assert_true(b.full);
    assert_string_equal(b.data, "ab-12");
    buf_done(&b);
}

static void taking_gives_the_bytes_away_and_leaves_an_empty_buf(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 3);
    char *nothing = buf_take(&b);
    assert_string_equal(nothing, "");
    buf_add_str(&b, "abc");
    buf_add_str(&b, "d");
    char *s = buf_take(&b);
    assert_string_equal(s, "abc");
    assert_null(b.data);
    assert_int_equal(b.len, 0);
    assert_false(b.full);
    buf_add_str(&b, "xyz");
    assert_string_equal(b.data, "xyz");
    assert_string_equal(s, "abc");
    free(s);
    free(nothing);
    buf_done(&b);
}

static void json_escapes_what_rfc_8259_wants_escaped_and_no_more(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 1000);
    buf_add_json(&b, "a\"b\\c/d\b\f\n\r\t\x01\x1f\x7f\xc3\xa9");
    assert_string_equal(b.data, "\"a\\\"b\\\\c/d\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\xc3\xa9\"");
    buf_reset(&b);
    buf_add_json(&b, NULL);
    buf_add_json(&b, "");
    buf_add_json_n(&b, NULL, 0);
    assert_string_equal(b.data, "null\"\"null");
    buf_reset(&b);
    buf_add_json_n(&b, "a\0b", 3);
    assert_string_equal(b.data, "\"a\\u0000b\"");
    buf_done(&b);
}

static void every_control_character_survives_a_json_parser(void **state)
{
    (void)state;
    for (int c = 1; c < 0x80; c++) {
        char text[4] = {'x', (char)c, 'y', '\0'};
        struct buf b;
        buf_init(&b, 100);
        buf_add_json(&b, text);
        json_t *j = json_loads(b.data, JSON_DECODE_ANY, NULL);
        assert_non_null(j);
        assert_string_equal(json_string_value(j), text);
        json_decref(j);
        buf_done(&b);
    }
}

static void a_json_string_that_does_not_fit_leaves_nothing_of_itself(void **state)
{
    (void)state;
    for (size_t max = 1; max < 12; max++) { /* the whole is "k" and 11 more */
        struct buf b;
        buf_init(&b, max);
        buf_add_char(&b, 'k');
        buf_add_json(&b, "ab\ncd\x01");
        assert_true(b.full);
        assert_string_equal(b.data, "k");
        assert_int_equal(b.len, 1);
        buf_done(&b);
    }
    struct buf b;
    buf_init(&b, 15);
    buf_add_char(&b, 'k');
    buf_add_json(&b, "ab\ncd\x01");
    assert_false(b.full);
    assert_int_equal(b.len, 15);
    buf_done(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_appended_is_there_and_terminated),
        cmocka_unit_test(appending_nothing_to_an_empty_buf_leaves_it_readable),
        cmocka_unit_test(what_was_expected_is_not_moved),
        cmocka_unit_test(numbers_are_written_in_decimal_to_their_ends),
        cmocka_unit_test(a_buf_can_be_filled_to_its_very_maximum),
        cmocka_unit_test(after_the_first_append_that_does_not_fit_none_is_added),
        cmocka_unit_test(a_huge_append_does_not_wrap_around),
        cmocka_unit_test(memory_never_exceeds_the_maximum_and_the_nul),
        cmocka_unit_test(a_formatted_text_is_all_or_nothing),
        cmocka_unit_test(taking_gives_the_bytes_away_and_leaves_an_empty_buf),
        cmocka_unit_test(json_escapes_what_rfc_8259_wants_escaped_and_no_more),
        cmocka_unit_test(every_control_character_survives_a_json_parser),
        cmocka_unit_test(a_json_string_that_does_not_fit_leaves_nothing_of_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
