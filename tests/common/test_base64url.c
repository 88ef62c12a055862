#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "common/base64url.h"

static void the_vectors_of_rfc_4648_hold_without_padding(void **state)
{
    (void)state;
    static const char *const plain[] = {"", "f", "fo", "foo", "foob", "fooba", "foobar"};
    static const char *const coded[] = {"", "Zg", "Zm8", "Zm9v", "Zm9vYg", "Zm9vYmE", "Zm9vYmFy"};
    for (size_t i = 0; i < 7; i++) {
        char text[BASE64URL_SIZE(6)], back[6];
        size_t len = 99;
        assert_int_equal(base64url_encode(plain[i], i, text), strlen(coded[i]));
        assert_string_equal(text, coded[i]);
        assert_int_equal(base64url_decode(text, strlen(text), back, sizeof back, &len, NULL), 0);
        assert_int_equal(len, i);
        assert_memory_equal(back, plain[i], i);
    }
}

static void the_two_letters_of_urls_are_used(void **state)
{
    (void)state;
    char text[BASE64URL_SIZE(3)];
    base64url_encode("\xfb\xff\xfe", 3, text);
    assert_string_equal(text, "-__-");
}

static void every_length_and_byte_comes_back(void **state)
{
    (void)state;
    uint8_t bytes[256], back[256];
    char text[BASE64URL_SIZE(256)];
    for (int i = 0; i < 256; i++)
        bytes[i] = (uint8_t)(i * 7 + 3);
    for (size_t n = 0; n <= sizeof bytes; n++) {
        size_t len = 0;
        size_t chars = base64url_encode(bytes, n, text);
        assert_int_equal(chars + 1, BASE64URL_SIZE(n));
        assert_int_equal(base64url_decode(text, chars, back, n, &len, NULL), 0);
        assert_int_equal(len, n);
        assert_memory_equal(back, bytes, n);
    }
}

static void any_second_spelling_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "Zg==",   "Zg=",  "Zm8=", "Zh",   "Zn",    "Zm9",        "Z",    "Zm9vY",
        "Zm9v\n", " Zm9", "Zm+v", "Zm/v", "Zm9v.", "Zm\xc3\xa9", "====",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err e = {ERR_NONE, ""};
        char back[16];
        size_t len = 99;
        if (base64url_decode(bad[i], strlen(bad[i]), back, sizeof back, &len, &e) != -1)
            fail_msg("\"%s\" was taken", bad[i]);
        assert_int_equal(e.code, ERR_INVALID);
        assert_int_equal(len, 99);
    }
    char back[16];
    size_t len;
    assert_int_equal(base64url_decode("Zg\0v", 4, back, sizeof back, &len, NULL), -1);
}

static void only_one_of_the_sixteen_last_letters_is_taken(void **state)
{
    (void)state;
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    int taken = 0;
    for (size_t i = 0; i < 64; i++) {
        char text[2] = {'Q', letters[i]}, back[1];
        size_t len;
        taken += base64url_decode(text, 2, back, sizeof back, &len, NULL) == 0;
    }
    assert_int_equal(taken, 4);
}

static void nothing_is_written_beyond_the_cap(void **state)
{
    (void)state;
    struct err e = {ERR_NONE, ""};
    char back[4] = "....";
    size_t len = 99;
    assert_int_equal(base64url_decode("Zm9v", 4, back, 2, &len, &e), -1);
    assert_int_equal(e.code, ERR_TOO_LARGE);
    assert_memory_equal(back, "....", 4);
    assert_int_equal(base64url_decode("Zm9v", 4, back, 3, &len, &e), 0);
    assert_memory_equal(back, "foo.", 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_vectors_of_rfc_4648_hold_without_padding),
        cmocka_unit_test(the_two_letters_of_urls_are_used),
        cmocka_unit_test(every_length_and_byte_comes_back),
        cmocka_unit_test(any_second_spelling_is_refused),
        cmocka_unit_test(only_one_of_the_sixteen_last_letters_is_taken),
        cmocka_unit_test(nothing_is_written_beyond_the_cap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
