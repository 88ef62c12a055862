#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "common/keys.h"
#include "common/names.h"

static void the_checksum_is_that_of_redis_cluster(void **state)
{
    (void)state;
    assert_int_equal(keys_crc16("123456789", 9), 0x31c3);
    assert_int_equal(keys_crc16("", 0), 0);
    assert_int_equal(keys_crc16("foo", 3) % 16384, 12182); /* CLUSTER KEYSLOT foo */
}

static uint16_t crc_bit_by_bit(const char *s, size_t n)
{
    uint16_t crc = 0;
    for (size_t i = 0; i < n; i++) {
        crc = (uint16_t)(crc ^ (unsigned char)s[i] << 8);
        for (int bit = 0; bit < 8; bit++)
            crc = (uint16_t)(crc & 0x8000 ? crc << 1 ^ 0x1021 : crc << 1);
    }
    return crc;
}

static void the_checksum_agrees_with_the_definition_for_all_pairs_of_bytes(void **state)
{
    (void)state;
    for (int a = 0; a < 256; a++) {
        for (int b = 0; b < 256; b++) {
            const char s[3] = {(char)a, (char)b, (char)(a ^ 0x5a)};
            assert_int_equal(keys_crc16(s, sizeof s), crc_bit_by_bit(s, sizeof s));
        }
    }
}

static void users_are_spread_over_all_buckets(void **state)
{
    (void)state;
    int seen[BUCKETS] = {0};
    for (int i = 0; i < 25600; i++) {
        char user[32];
        snprintf(user, sizeof user, "user-%d", i);
        unsigned b = keys_bucket(user);
        assert_true(b < BUCKETS);
        seen[b]++;
    }
    for (int b = 0; b < BUCKETS; b++)
        assert_in_range(seen[b], 40, 200); /* 100 on average */
    assert_int_equal(keys_bucket("123456789"), 0xc3);
}

static void every_key_has_its_form(void **state)
{
    (void)state;
    char k[KEY_SIZE];
    assert_int_equal(keys_timeline(k, 7, "ann"), strlen("tl:{7}:ann"));
    assert_string_equal(k, "tl:{7}:ann");
    keys_timeline_meta(k, 255, "ann");
    assert_string_equal(k, "pf:{255}:ann");
    keys_bucket_record(k, 0);
    assert_string_equal(k, "bk:{0}");
    keys_event_stream(k, 15);
    assert_string_equal(k, "en:{15}");
    keys_event_seen(k, 3, "ann", "e-1");
    assert_string_equal(k, "ee:{3}:ann/e-1");
    keys_session(k, 10, "ann", "s1");
    assert_string_equal(k, "rk:{10}:ann/s1");
    keys_affinity(k, 100, "ann");
    assert_string_equal(k, "af:{100}:ann");
    keys_item_counters(k, 33);
    assert_string_equal(k, "ic:{1}:33");
}

static void no_two_users_share_a_key_by_the_colon_in_their_names(void **state)
{
    (void)state;
    char a[KEY_SIZE], b[KEY_SIZE];
    keys_event_seen(a, 1, "x:y", "z");
    keys_event_seen(b, 1, "x", "y:z");
    assert_string_not_equal(a, b);
    keys_session(a, 1, "x:y", "z");
    keys_session(b, 1, "x", "y:z");
    assert_string_not_equal(a, b);
}

static void the_longest_key_fits(void **state)
{
    (void)state;
    char user[NAME_MAX_BYTES + 1], event[257], k[KEY_SIZE];
    memset(user, 'u', sizeof user);
    user[NAME_MAX_BYTES] = '\0';
    memset(event, 'e', sizeof event);
    event[256] = '\0';
    size_t n = keys_event_seen(k, 15, user, event);
    assert_int_equal(n, strlen(k));
    assert_true(n < KEY_SIZE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_checksum_is_that_of_redis_cluster),
        cmocka_unit_test(the_checksum_agrees_with_the_definition_for_all_pairs_of_bytes),
        cmocka_unit_test(users_are_spread_over_all_buckets),
        cmocka_unit_test(every_key_has_its_form),
        cmocka_unit_test(no_two_users_share_a_key_by_the_colon_in_their_names),
        cmocka_unit_test(the_longest_key_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
