/* Tests of feed-api/cursor.c: what was sealed opens again, and nothing else does (P4). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "common/base64url.h"
#include "common/sign.h"
#include "feed-api/cursor.h"

static const unsigned char key[CURSOR_KEY_SIZE] = "0123456789abcdef0123456789abcde";
static const unsigned char other_key[CURSOR_KEY_SIZE] = "0123456789abcdef0123456789abcdf";

static struct cursor sample(void)
{
    struct cursor c = {.route = CURSOR_FEED,
                       .order = CURSOR_RANKED,
                       .served = 40,
                       .place = 41,
                       .last = ITEM_ID_MAX,
                       .last_number = -7,
                       .freshness = 0xfedcba9876543210u,
                       .newest = 123,
                       .after = 7,
                       .after_freshness = 0x123456789abcdef0u,
                       .basis = 99};
    strcpy(c.scope, "zo\xc3\xab");
    strcpy(c.profile, "default");
    strcpy(c.session, "s-1");
    strcpy(c.chain, "s-0");
    strcpy(c.fallback, "ranker_timeout");
    strcpy(c.last_key, "p:daily");
    return c;
}

static void a_sealed_cursor_opens_with_all_its_fields(void **state)
{
    (void)state;
    struct cursor c = sample(), d = {0};
    char text[CURSOR_TEXT_SIZE];
    struct err e;
    cursor_seal(key, &c, text);
    assert_int_equal(cursor_open(key, text, CURSOR_FEED, "zo\xc3\xab", &d, &e), 0);
    assert_memory_equal(&c, &d, sizeof c);
}

static void the_longest_cursor_fits(void **state)
{
    (void)state;
    struct cursor c = {.route = CURSOR_TOPICS,
                       .order = CURSOR_RANKED,
                       .served = UINT32_MAX,
                       .place = UINT32_MAX,
                       .basis = UINT64_MAX,
                       .last = UINT64_MAX,
                       .last_number = -1,
                       .freshness = UINT64_MAX,
                       .newest = UINT64_MAX,
                       .after = UINT64_MAX,
                       .after_freshness = UINT64_MAX},
                  d;
    memset(c.scope, 'a', sizeof c.scope - 1);
    memset(c.profile, 'b', sizeof c.profile - 1);
    memset(c.session, 'c', sizeof c.session - 1);
    memset(c.fallback, 'd', sizeof c.fallback - 1);
    memset(c.chain, 'e', sizeof c.chain - 1);
    memset(c.last_key, 'f', sizeof c.last_key - 1);
    char text[CURSOR_TEXT_SIZE];
    struct err e;
    cursor_seal(key, &c, text);
    assert_true(strlen(text) < CURSOR_TEXT_SIZE);
    assert_int_equal(cursor_open(key, text, CURSOR_TOPICS, c.scope, &d, &e), 0);
    assert_string_equal(d.last_key, c.last_key);
    assert_int_equal(d.last_number, -1);
}

static void P4_a_cursor_with_any_one_character_changed_is_refused(void **state)
{
    (void)state;
    struct cursor c = sample(), d;
    char text[CURSOR_TEXT_SIZE];
    struct err e;
    cursor_seal(key, &c, text);
    size_t n = strlen(text);
    for (size_t i = 0; i < n; i++) {
        for (int k = 1; k < 128; k += 5) {
            char was = text[i];
            text[i] = (char)((was + k) % 127 + 1);
            if (text[i] == was || text[i] == '\0') {
                text[i] = was;
                continue;
            }
            assert_int_equal(cursor_open(key, text, CURSOR_FEED, c.scope, &d, &e), -1);
            assert_int_equal(e.code, ERR_INVALID);
            text[i] = was;
        }
    }
}

static void P4_a_cut_or_longer_or_foreign_cursor_is_refused(void **state)
{
    (void)state;
    struct cursor c = sample(), d;
    char text[CURSOR_TEXT_SIZE + 8];
    struct err e;
    cursor_seal(key, &c, text);
    assert_int_equal(cursor_open(other_key, text, CURSOR_FEED, c.scope, &d, &e), -1);
    strcat(text, "AAAA");
    assert_int_equal(cursor_open(key, text, CURSOR_FEED, c.scope, &d, &e), -1);
    for (size_t n = strlen(text) - 5;; n--) {
        text[n] = '\0';
        assert_int_equal(cursor_open(key, text, CURSOR_FEED, c.scope, &d, &e), -1);
        if (n == 0)
            break;
    }
    assert_int_equal(cursor_open(key, "not a cursor", CURSOR_FEED, c.scope, &d, &e), -1);
}

static void P4_a_very_long_text_is_refused(void **state)
{
    (void)state;
    struct cursor d;
    struct err e;
    char *text = malloc(100001);
    memset(text, 'A', 100000);
    text[100000] = '\0';
    assert_int_equal(cursor_open(key, text, CURSOR_FEED, "u", &d, &e), -1);
    free(text);
}

static void a_cursor_of_another_route_or_reader_is_refused(void **state)
{
    (void)state;
    struct cursor c = sample(), d = {.last = 5};
    char text[CURSOR_TEXT_SIZE];
    struct err e;
    cursor_seal(key, &c, text);
    assert_int_equal(cursor_open(key, text, CURSOR_TOPIC_ITEMS, c.scope, &d, &e), -1);
    assert_int_equal(cursor_open(key, text, CURSOR_FEED, "zo", &d, &e), -1);
    assert_int_equal(d.last, 5);
}

/* Those of a paging without `after` have the layout that all had before there was one. */
static void a_cursor_without_after_is_as_it_always_was(void **state)
{
    (void)state;
    static const char old[] = "AQEAAXUAAAAAAAAABQAAAAdYlQDD8EaPEl7BJp0BgiQU";
    struct cursor c = {.route = CURSOR_FEED, .last = 5, .freshness = 0, .newest = 7}, d = {0};
    char text[CURSOR_TEXT_SIZE];
    struct err e;
    strcpy(c.scope, "u");
    cursor_seal(key, &c, text);
    assert_string_equal(text, old);
    assert_int_equal(cursor_open(key, old, CURSOR_FEED, "u", &d, &e), 0);
    assert_memory_equal(&c, &d, sizeof c);
}

static void a_newest_token_is_no_cursor(void **state)
{
    (void)state;
    struct cursor c = {.route = CURSOR_NEWEST, .newest = 9}, d;
    strcpy(c.scope, "u");
    char text[CURSOR_TEXT_SIZE];
    struct err e;
    cursor_seal(key, &c, text);
    assert_int_equal(cursor_open(key, text, CURSOR_FEED, "u", &d, &e), -1);
    assert_int_equal(cursor_open(key, text, CURSOR_NEWEST, "u", &d, &e), 0);
    assert_int_equal(d.newest, 9);
}

/* Signs packed bytes as they are, as only somebody with the key can. */
static void seal_packed(const uint8_t *packed, size_t n, char out[CURSOR_TEXT_SIZE])
{
    uint8_t bytes[CURSOR_TEXT_SIZE / 2];
    uint8_t mac[SIGN_MAC_SIZE];
    memcpy(bytes, packed, n);
    sign_hmac(key, bytes, n, mac);
    memcpy(bytes + n, mac, 16);
    base64url_encode(bytes, n + 16, out);
}

/* What a fuzzer found: numbers of more bytes than they need, and beyond what their field holds, were taken.
 */
static void one_place_has_one_cursor(void **state)
{
    (void)state;
    struct cursor c = {.route = CURSOR_FEED, .last = 5, .newest = 7, .served = 1}, d;
    char text[CURSOR_TEXT_SIZE], again[CURSOR_TEXT_SIZE];
    uint8_t bytes[CURSOR_TEXT_SIZE];
    size_t n;
    struct err e;
    cursor_seal(key, &c, text);
    assert_int_equal(base64url_decode(text, strlen(text), bytes, sizeof bytes, &n, NULL), 0);
    n -= 16;
    seal_packed(bytes, n, again);
    assert_string_equal(again, text);
    assert_int_equal(bytes[n - 1], 7); /* newest is the last number */
    bytes[n - 1] = 0x87;
    bytes[n] = 0;
    seal_packed(bytes, n + 1, again);
    assert_int_equal(cursor_open(key, again, CURSOR_FEED, NULL, &d, &e), -1);
    bytes[n - 1] = 7;
    bytes[2] = 2; /* an order that there is not */
    seal_packed(bytes, n, again);
    assert_int_equal(cursor_open(key, again, CURSOR_FEED, NULL, &d, &e), -1);
    bytes[2] = CURSOR_RANKED;
    seal_packed(bytes, n, again);
    assert_int_equal(cursor_open(key, again, CURSOR_FEED, NULL, &d, &e), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sealed_cursor_opens_with_all_its_fields),
        cmocka_unit_test(the_longest_cursor_fits),
        cmocka_unit_test(P4_a_cursor_with_any_one_character_changed_is_refused),
        cmocka_unit_test(P4_a_cut_or_longer_or_foreign_cursor_is_refused),
        cmocka_unit_test(P4_a_very_long_text_is_refused),
        cmocka_unit_test(a_cursor_of_another_route_or_reader_is_refused),
        cmocka_unit_test(a_cursor_without_after_is_as_it_always_was),
        cmocka_unit_test(a_newest_token_is_no_cursor),
        cmocka_unit_test(one_place_has_one_cursor),
    };
    return cmocka_run_group_tests_name("cursor", tests, NULL, NULL);
}
