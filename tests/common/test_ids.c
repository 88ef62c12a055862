#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <string.h>

#include "common/ids.h"

static void the_order_of_ids_is_the_order_of_time(void **state)
{
    (void)state;
    assert_true(ids_make(1000, UINT32_MAX) < ids_make(1001, 0));
    assert_int_equal(ids_time_ms(ids_make(1767323045678, 77)), 1767323045678);
    assert_int_equal(ids_make(1767323045678, 77) & 2047, 77);
}

static void only_eleven_bits_are_random(void **state)
{
    (void)state;
    assert_true(ids_make(5, 0xfffff800u) == ids_make(5, 0));
    assert_true(ids_make(5, UINT32_MAX) == (5u << 11 | 2047));
}

static void an_id_is_never_zero_and_never_above_53_bits(void **state)
{
    (void)state;
    assert_true(ids_make(0, 0) == 1);
    assert_true(ids_make((INT64_C(1) << 42) - 1, UINT32_MAX) == ITEM_ID_MAX);
    assert_true((double)ITEM_ID_MAX == 9007199254740991.0);
}

static void an_id_reads_back_from_its_text(void **state)
{
    (void)state;
    const item_id ids[] = {1, 9, 10, 123456789, ITEM_ID_MAX - 1, ITEM_ID_MAX};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        char text[ITEM_ID_TEXT_SIZE];
        item_id back = 0;
        ids_format(ids[i], text);
        assert_int_equal(ids_parse(text, &back, NULL), 0);
        assert_true(back == ids[i]);
    }
    char text[ITEM_ID_TEXT_SIZE];
    ids_format(ITEM_ID_MAX, text);
    assert_string_equal(text, "9007199254740991");
}

static void what_is_no_id_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "0",
        "01",
        "-1",
        "+1",
        " 1",
        "1 ",
        "1.0",
        "1e3",
        "abc",
        "0x10",
        "9007199254740992",
        "9999999999999999",
        "10000000000000000",
        "18446744073709551617",
        "99999999999999999999999999999",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err e = {ERR_NONE, ""};
        item_id id = 42;
        assert_int_equal(ids_parse(bad[i], &id, &e), -1);
        assert_int_equal(e.code, ERR_INVALID);
        assert_true(id == 42);
    }
}

static void *draw_four(void *out)
{
    for (int i = 0; i < 4; i++)
        ((uint32_t *)out)[i] = ids_random_bits();
    return NULL;
}

static void threads_draw_different_bits(void **state)
{
    (void)state;
    uint32_t mine[4], theirs[4];
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, draw_four, theirs), 0);
    draw_four(mine);
    pthread_join(t, NULL);
    assert_memory_not_equal(mine, theirs, sizeof mine);
}

static void every_low_bit_is_drawn_both_ways(void **state)
{
    (void)state;
    uint32_t ones = 0, zeros = 0;
    for (int i = 0; i < 1000; i++) {
        uint32_t v = ids_random_bits();
        ones |= v;
        zeros |= ~v;
    }
    assert_int_equal(ones, UINT32_MAX);
    assert_int_equal(zeros, UINT32_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_order_of_ids_is_the_order_of_time),
        cmocka_unit_test(only_eleven_bits_are_random),
        cmocka_unit_test(an_id_is_never_zero_and_never_above_53_bits),
        cmocka_unit_test(an_id_reads_back_from_its_text),
        cmocka_unit_test(what_is_no_id_is_refused),
        cmocka_unit_test(threads_draw_different_bits),
        cmocka_unit_test(every_low_bit_is_drawn_both_ways),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
