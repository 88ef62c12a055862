#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "common/sign.h"

static void expect_hex(const uint8_t *got, const char *want)
{
    char text[2 * SIGN_MAC_SIZE + 1];
    for (size_t i = 0; i < SIGN_MAC_SIZE; i++)
        snprintf(text + 2 * i, 3, "%02x", got[i]);
    assert_string_equal(text, want);
}

/* HMAC fills a short key up with zeros to its block of 64 bytes, and hashes one longer than that: so each key
 * of RFC 4231 has an equal one of 32 bytes. */
static void key_of(uint8_t key[SIGN_KEY_SIZE], const void *p, size_t n)
{
    memset(key, 0, SIGN_KEY_SIZE);
    if (n > 64)
        sign_sha256(p, n, key);
    else
        memcpy(key, p, n);
}

static void the_vectors_of_rfc_4231_hold(void **state)
{
    (void)state;
    uint8_t bytes[131], key[SIGN_KEY_SIZE], mac[SIGN_MAC_SIZE], data[50];

    memset(bytes, 0x0b, 20);
    key_of(key, bytes, 20);
    sign_hmac(key, "Hi There", 8, mac);
    expect_hex(mac, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");

    key_of(key, "Jefe", 4);
    sign_hmac(key, "what do ya want for nothing?", 28, mac);
    expect_hex(mac, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");

    memset(bytes, 0xaa, 131);
    key_of(key, bytes, 20);
    memset(data, 0xdd, 50);
    sign_hmac(key, data, 50, mac);
    expect_hex(mac, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe");

    for (int i = 0; i < 25; i++)
        bytes[i] = (uint8_t)(i + 1);
    key_of(key, bytes, 25);
    memset(data, 0xcd, 50);
    sign_hmac(key, data, 50, mac);
    expect_hex(mac, "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b");

    memset(bytes, 0xaa, 131);
    key_of(key, bytes, 131);
    static const char text[] = "Test Using Larger Than Block-Size Key - Hash Key First";
    sign_hmac(key, text, sizeof text - 1, mac);
    expect_hex(mac, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    static const char longer[] =
        "This is a test using a larger than block-size key and a larger than block-size data. The key "
        "needs to be hashed before being used by the HMAC algorithm.";
    sign_hmac(key, longer, sizeof longer - 1, mac);
    expect_hex(mac, "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2");
}

static void the_vectors_of_sha_256_hold(void **state)
{
    (void)state;
    uint8_t hash[SIGN_MAC_SIZE];
    sign_sha256("abc", 3, hash);
    expect_hex(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    sign_sha256("", 0, hash);
    expect_hex(hash, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

static void one_changed_bit_of_key_or_data_changes_the_mac(void **state)
{
    (void)state;
    uint8_t key[SIGN_KEY_SIZE] = {1, 2, 3}, a[SIGN_MAC_SIZE], b[SIGN_MAC_SIZE];
    sign_hmac(key, "data", 4, a);
    sign_hmac(key, "dat`", 4, b);
    assert_false(sign_equal(a, b, sizeof a));
    key[31] ^= 1;
    sign_hmac(key, "data", 4, b);
    assert_false(sign_equal(a, b, sizeof a));
    key[31] ^= 1;
    sign_hmac(key, "data", 4, b);
    assert_true(sign_equal(a, b, sizeof a));
}

static void equality_sees_every_byte(void **state)
{
    (void)state;
    uint8_t a[SIGN_MAC_SIZE] = {0}, b[SIGN_MAC_SIZE] = {0};
    assert_true(sign_equal(a, b, sizeof a));
    assert_true(sign_equal(a, b, 0));
    for (size_t i = 0; i < sizeof a; i++) {
        b[i] = 0x80;
        assert_false(sign_equal(a, b, sizeof a));
        assert_true(sign_equal(a, b, i));
        b[i] = 0;
    }
}

static void random_bytes_fill_all_and_differ(void **state)
{
    (void)state;
    static uint8_t a[1000], b[1000];
    sign_random(a, 0);
    sign_random(a, sizeof a);
    sign_random(b, sizeof b);
    assert_memory_not_equal(a, b, sizeof a);
    assert_memory_not_equal(a + sizeof a - 16, b + sizeof b - 16, 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_vectors_of_rfc_4231_hold),
        cmocka_unit_test(the_vectors_of_sha_256_hold),
        cmocka_unit_test(one_changed_bit_of_key_or_data_changes_the_mac),
        cmocka_unit_test(equality_sees_every_byte),
        cmocka_unit_test(random_bytes_fill_all_and_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
