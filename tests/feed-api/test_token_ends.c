/* Whose tokens were ended: in memory, and the pattern by which a user's keys are found. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "feed-api/erase.h"
#include "feed-api/token_ends.h"

static void take(struct token_ends *t, const char *user, int64_t at_ms)
{
    char id[TOKEN_ENDS_ID_SIZE];
    token_ends_id(user, id);
    token_ends_take(t, id, at_ms);
}

static void a_token_issued_at_or_before_the_end_is_refused(void **state)
{
    (void)state;
    struct token_ends *t = token_ends_new();
    assert_false(token_ends_refuses(t, "ann", 0));
    take(t, "ann", 1000);
    assert_true(token_ends_refuses(t, "ann", 0)); /* it does not say when */
    assert_true(token_ends_refuses(t, "ann", 999));
    assert_true(token_ends_refuses(t, "ann", 1000));
    assert_false(token_ends_refuses(t, "ann", 1001));
    assert_false(token_ends_refuses(t, "an", 0));
    take(t, "ann", 900); /* told late */
    assert_true(token_ends_refuses(t, "ann", 1000));
    take(t, "ann", 2000);
    assert_true(token_ends_refuses(t, "ann", 1001));
    token_ends_free(t);
    token_ends_free(NULL);
}

static void what_is_no_id_is_left_alone(void **state)
{
    (void)state;
    struct token_ends *t = token_ends_new();
    token_ends_take(t, "", 5);
    token_ends_take(t, "ann", 5);
    token_ends_take(t, "0123456789abcdef0123456789abcdeX", 5);
    token_ends_take(t, "0123456789abcdef0123456789abcdef0", 5);
    take(t, "ann", 0);
    take(t, "ann", -1);
    assert_false(token_ends_refuses(t, "ann", 0));
    token_ends_free(t);
}

static void thousands_of_users_are_kept_apart(void **state)
{
    (void)state;
    struct token_ends *t = token_ends_new();
    char user[32];
    for (int i = 0; i < 5000; i++) {
        snprintf(user, sizeof user, "user%d", i);
        take(t, user, 1000 + i);
    }
    for (int i = 0; i < 5000; i++) {
        snprintf(user, sizeof user, "user%d", i);
        assert_true(token_ends_refuses(t, user, 1000 + i));
        assert_false(token_ends_refuses(t, user, 1001 + i));
        snprintf(user, sizeof user, "other%d", i);
        assert_false(token_ends_refuses(t, user, 0));
    }
    token_ends_free(t);
}

static void a_name_stands_for_itself_in_the_pattern_of_its_keys(void **state)
{
    (void)state;
    char out[ERASE_PATTERN_SIZE], longest[NAME_MAX_BYTES + 1];
    erase_pattern("ann", out);
    assert_string_equal(out, "*}:ann/*");
    erase_pattern("a*?[b]\\^-", out);
    assert_string_equal(out, "*}:a\\*\\?\\[b\\]\\\\^-/*");
    memset(longest, '*', NAME_MAX_BYTES);
    longest[NAME_MAX_BYTES] = '\0';
    erase_pattern(longest, out);
    assert_int_equal(strlen(out), 2 * NAME_MAX_BYTES + 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_issued_at_or_before_the_end_is_refused),
        cmocka_unit_test(what_is_no_id_is_left_alone),
        cmocka_unit_test(thousands_of_users_are_kept_apart),
        cmocka_unit_test(a_name_stands_for_itself_in_the_pattern_of_its_keys),
    };
    return cmocka_run_group_tests_name("token ends", tests, NULL, NULL);
}
