#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include "common/mem.h"
#include "common/query.h"

static void decodes(const char *s, bool plus, const char *expected)
{
    char out[100];
    size_t len = 99;
    struct err e;
    assert_int_equal(percent_decode(s, strlen(s), plus, out, &len, &e), 0);
    assert_string_equal(out, expected);
    assert_int_equal(len, strlen(expected));
}

static void escapes_are_decoded(void **state)
{
    (void)state;
    decodes("", false, "");
    decodes("a%20b%2Fc%2f%C3%a9", false, "a b/c/\xc3\xa9");
    decodes("a+b", false, "a+b");
    decodes("a+b%2B", true, "a b+");
    decodes("%25%32%30", false, "%20"); /* once, not twice */
}

static void bad_escapes_are_refused(void **state)
{
    static const char *const bad[] = {"%",   "%2",  "a%",  "%zz",   "%2g", "%g2",
                                      "% 2", "%+1", "%00", "a%00b", "%-1"};
    (void)state;
    for (size_t i = 0; i < MEM_COUNT(bad); i++) {
        char out[100];
        size_t len = 99;
        struct err e;
        assert_int_equal(percent_decode(bad[i], strlen(bad[i]), true, out, &len, &e), -1);
        assert_int_equal(e.code, ERR_INVALID);
        assert_int_equal(len, 99);
    }
    char out[10];
    size_t len;
    assert_int_equal(percent_decode("a\0b", 3, false, out, &len, NULL), -1);
    assert_int_equal(percent_decode("%20", 2, false, out, &len, NULL), -1); /* the third byte is not ours */
}

static void what_is_encoded_decodes_to_itself(void **state)
{
    char all[256], out[3 * 255 + 1], back[3 * 255 + 1];
    size_t len;
    (void)state;
    for (int i = 1; i < 256; i++)
        all[i - 1] = (char)i;
    all[255] = '\0';
    size_t n = percent_encode(all, out);
    assert_int_equal(n, strlen(out));
    assert_int_equal(percent_decode(out, n, true, back, &len, NULL), 0);
    assert_int_equal(len, 255);
    assert_string_equal(back, all);
    percent_encode("a-b._~Z9/\xc3\xa9 ", out);
    assert_string_equal(out, "a-b._~Z9%2F%C3%A9%20");
}

static void parameters_are_found_by_name(void **state)
{
    struct query q;
    struct err e;
    (void)state;
    assert_int_equal(query_parse("limit=20&cursor=a%3Db+c&x=&y&z=1=2", &q, &e), 0);
    assert_int_equal(q.n, 5);
    assert_string_equal(query_get(&q, "limit"), "20");
    assert_string_equal(query_get(&q, "cursor"), "a=b c");
    assert_string_equal(query_get(&q, "x"), "");
    assert_string_equal(query_get(&q, "y"), "");
    assert_string_equal(query_get(&q, "z"), "1=2");
    assert_null(query_get(&q, "w"));
    assert_null(query_get(&q, "Limit"));
    query_done(&q);
    assert_int_equal(query_parse("", &q, &e), 0);
    assert_int_equal(q.n, 0);
    query_done(&q);
    assert_int_equal(query_parse(NULL, &q, &e), 0);
    query_done(&q);
}

static void a_doubtful_query_is_refused_as_a_whole(void **state)
{
    static const char *const bad[] = {"a=1&a=1", "a=1&%61=2", "=1",    "&",     "a=1&",  "a=1&&b=2",   "a=%",
                                      "a%2=1",   "a=%00",     "a=%ff", "%ff=1", "a=%c3", "a=%ed%a0%80"};
    (void)state;
    for (size_t i = 0; i < MEM_COUNT(bad); i++) {
        struct query q = {.n = 77};
        struct err e;
        if (query_parse(bad[i], &q, &e) != -1)
            fail_msg("%s was taken", bad[i]);
        assert_int_equal(e.code, ERR_INVALID);
        assert_int_equal(q.n, 77);
    }
}

static void no_more_than_32_parameters_are_taken(void **state)
{
    char text[400];
    size_t n = 0;
    struct query q;
    struct err e;
    (void)state;
    for (int i = 0; i < QUERY_MAX_PARAMS; i++)
        n += (size_t)sprintf(text + n, "%sp%d=%d", i ? "&" : "", i, i);
    assert_int_equal(query_parse(text, &q, &e), 0);
    assert_string_equal(query_get(&q, "p31"), "31");
    query_done(&q);
    strcat(text, "&more=1");
    assert_int_equal(query_parse(text, &q, &e), -1);
}

static void unknown_parameters_are_named(void **state)
{
    static const char *const known[] = {"limit", "cursor"};
    struct query q;
    struct err e;
    (void)state;
    assert_int_equal(query_parse("limit=1&cursr=2", &q, &e), 0);
    assert_int_equal(query_check_known(&q, known, 2, &e), -1);
    assert_non_null(strstr(e.msg, "cursr"));
    query_done(&q);
    assert_int_equal(query_parse("limit=1&cursor=2", &q, &e), 0);
    assert_int_equal(query_check_known(&q, known, 2, &e), 0);
    query_done(&q);
}

static void numbers_are_whole_and_within_their_range(void **state)
{
    static const char *const bad[] = {"n=",   "n=0",  "n=101", "n=1.5", "n=1e1",  "n=+1",
                                      "n=01", "n=-1", "n=a",   "n=1a",  "n=%201", "n=99999999999999999999"};
    struct query q;
    struct err e;
    int64_t v = 20;
    (void)state;
    for (size_t i = 0; i < MEM_COUNT(bad); i++) {
        assert_int_equal(query_parse(bad[i], &q, &e), 0);
        if (query_get_int(&q, "n", 1, 100, &v, &e) != -1)
            fail_msg("%s was taken", bad[i]);
        assert_int_equal(v, 20);
        query_done(&q);
    }
    assert_int_equal(query_parse("n=100&m=-5&z=0", &q, &e), 0);
    assert_int_equal(query_get_int(&q, "absent", 1, 100, &v, &e), 0);
    assert_int_equal(v, 20);
    assert_int_equal(query_get_int(&q, "n", 1, 100, &v, &e), 0);
    assert_int_equal(v, 100);
    assert_int_equal(query_get_int(&q, "m", -5, 5, &v, &e), 0);
    assert_int_equal(v, -5);
    assert_int_equal(query_get_int(&q, "z", 0, 5, &v, &e), 0);
    assert_int_equal(v, 0);
    query_done(&q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(escapes_are_decoded),
        cmocka_unit_test(bad_escapes_are_refused),
        cmocka_unit_test(what_is_encoded_decodes_to_itself),
        cmocka_unit_test(parameters_are_found_by_name),
        cmocka_unit_test(a_doubtful_query_is_refused_as_a_whole),
        cmocka_unit_test(no_more_than_32_parameters_are_taken),
        cmocka_unit_test(unknown_parameters_are_named),
        cmocka_unit_test(numbers_are_whole_and_within_their_range),
    };
    return cmocka_run_group_tests_name("query", tests, NULL, NULL);
}
