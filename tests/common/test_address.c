/* Addresses as options name them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "common/address.h"
#include "common/mem.h"

static void addresses_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *text, *host;
        uint16_t port;
        bool loopback;
    } rows[] = {
        {"127.0.0.1:8080", "127.0.0.1", 8080, true},
        {"localhost:1", "127.0.0.1", 1, true},
        {"[::1]:65535", "::1", 65535, true},
        {"0.0.0.0:0", "0.0.0.0", 0, false},
        {"[2001:db8::7]:80", "2001:db8::7", 80, false},
    };
    for (size_t i = 0; i < MEM_COUNT(rows); i++) {
        struct address a;
        struct err e;
        assert_int_equal(address_parse(rows[i].text, &a, &e), 0);
        assert_string_equal(a.host, rows[i].host);
        assert_int_equal(a.port, rows[i].port);
        assert_int_equal(address_is_loopback(&a), rows[i].loopback);
    }
}

static void what_is_no_address_is_refused_and_leaves_the_output(void **state)
{
    (void)state;
    static const char *const rows[] = {
        "",
        ":",
        "8080",
        ":8080",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "127.0.0.1: 1",
        "::1:80",
        "[::1:80",
        "[]:80",
        "[127.0.0.1]:80",
        "example.org:80",
        "1.2.3.4.5:80",
        "[::1]80",
        "1111111111111111111111111111111111111111111111111111111111111111111:80"};
    for (size_t i = 0; i < MEM_COUNT(rows); i++) {
        struct address a = {"x", 7};
        struct err e = {0};
        assert_int_equal(address_parse(rows[i], &a, &e), -1);
        assert_int_equal(e.code, ERR_INVALID);
        assert_string_equal(a.host, "x");
        assert_int_equal(a.port, 7);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_read),
        cmocka_unit_test(what_is_no_address_is_refused_and_leaves_the_output),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
