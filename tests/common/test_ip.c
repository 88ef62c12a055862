#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/ip.h"
#include "common/mem.h"

static struct ip ip(const char *s)
{
    struct ip out;
    if (!ip_parse(s, strlen(s), &out))
        fail_msg("%s is no address", s);
    return out;
}

static struct ip_nets nets(const char *s)
{
    struct ip_nets out;
    struct err e;
    if (ip_nets_parse(s, &out, &e) < 0)
        fail_msg("%s: %s", s, e.msg);
    return out;
}

static void addresses_are_read_and_written(void **state)
{
    static const char *const good[] = {"192.0.2.1", "0.0.0.0", "::1", "2001:db8::1", "::"};
    static const char *const bad[] = {
        "",     "1.2.3",    "1.2.3.4.5",      "256.1.1.1", "::1%lo",
        "host", "1.2.3.4 ", "2001:db8::1::2", "[::1]",     "1111:2222:3333:4444:5555:6666:7777:8888:9999"};
    (void)state;
    for (size_t i = 0; i < MEM_COUNT(good); i++) {
        char text[IP_TEXT_SIZE];
        struct ip a = ip(good[i]);
        ip_format(&a, text);
        assert_string_equal(text, good[i]);
    }
    for (size_t i = 0; i < MEM_COUNT(bad); i++) {
        struct ip a;
        assert_false(ip_parse(bad[i], strlen(bad[i]), &a));
    }
    /* An IPv4 address in IPv6's clothes is the same. */
    struct ip mapped = ip("::ffff:192.0.2.1"), plain = ip("192.0.2.1");
    assert_memory_equal(mapped.b, plain.b, sizeof plain.b);
}

static void a_client_is_an_ipv4_address_or_the_64_of_an_ipv6_one(void **state)
{
    char text[IP_TEXT_SIZE];
    (void)state;
    struct ip a = ip("2001:db8:1:2:3:4:5:6"), client = ip_client(&a);
    ip_format(&client, text);
    assert_string_equal(text, "2001:db8:1:2::");
    a = ip("192.0.2.77");
    client = ip_client(&a);
    ip_format(&client, text);
    assert_string_equal(text, "192.0.2.77");
}

static void networks_hold_what_has_their_prefix(void **state)
{
    static const struct {
        const char *nets, *ip;
        bool in;
    } rows[] = {
        {"10.0.0.0/8", "10.255.0.1", true},
        {"10.0.0.0/8", "11.0.0.1", false},
        {"192.0.2.128/25", "192.0.2.128", true},
        {"192.0.2.128/25", "192.0.2.127", false},
        {"192.0.2.7", "192.0.2.7", true},
        {"192.0.2.7", "192.0.2.6", false},
        {"0.0.0.0/0", "203.0.113.9", true},
        {"0.0.0.0/0", "::1", false},
        {"::/0", "203.0.113.9", true}, /* IPv4 is a part of it */
        {"2001:db8::/33", "2001:db8:7fff::1", true},
        {"2001:db8::/33", "2001:db8:8000::1", false},
        {" 10.0.0.0/8 ,\t::1 ", "::1", true},
        {"127.0.0.0/8,::1", "127.0.0.5", true},
        {"", "127.0.0.1", false},
        {"  ", "127.0.0.1", false},
    };
    (void)state;
    for (size_t i = 0; i < MEM_COUNT(rows); i++) {
        struct ip_nets n = nets(rows[i].nets);
        struct ip a = ip(rows[i].ip);
        if (ip_nets_have(&n, &a) != rows[i].in)
            fail_msg("%s in %s", rows[i].ip, rows[i].nets);
    }
}

static void what_is_no_network_is_refused(void **state)
{
    static const char *const bad[] = {"10.0.0.0/33", "10.0.0.0/", "10.0.0.1/8",   "10.0.0.0/8,",  ",::1",
                                      "::1,,::2",    "host",      "10.0.0.0/-1",  "10.0.0.0/08x", "::/129",
                                      "10.0.0.0 /8", "10.0.0/8",  "10.0.0.0/8 x", "all"};
    char many[IP_NETS_MAX * 10 + 20] = "1.1.1.1";
    struct ip_nets out = {.n = 77};
    struct err e;
    (void)state;
    for (size_t i = 0; i < MEM_COUNT(bad); i++) {
        if (ip_nets_parse(bad[i], &out, &e) == 0)
            fail_msg("%s was taken", bad[i]);
        assert_int_equal(e.code, ERR_INVALID);
    }
    assert_int_equal(out.n, 77);
    for (int i = 1; i < IP_NETS_MAX; i++)
        strcat(many, ",1.1.1.1");
    assert_int_equal(ip_nets_parse(many, &out, &e), 0);
    strcat(many, ",1.1.1.1");
    assert_int_equal(ip_nets_parse(many, &out, &e), -1);
}

static void behind_proxies_the_client_is_the_rightmost_that_is_not_trusted(void **state)
{
    static const struct {
        const char *peer, *field, *client;
        bool more;
    } rows[] = {
        /* Who is not trusted is the client, whatever he says. */
        {"203.0.113.9", "198.51.100.1", "203.0.113.9", false},
        {"10.0.0.1", "198.51.100.1", "198.51.100.1", false},
        /* What stands to the left was written by the client himself. */
        {"10.0.0.1", "1.1.1.1, 198.51.100.1", "198.51.100.1", false},
        {"10.0.0.1", "10.0.0.9, 198.51.100.1 ,10.0.0.2", "198.51.100.1", false},
        {"10.0.0.1", "10.0.0.3,10.0.0.2", "10.0.0.3", true},
        {"10.0.0.1", "", "10.0.0.1", true},
        {"10.0.0.1", "  \t", "10.0.0.1", true},
        {"10.0.0.1", "198.51.100.1,", "198.51.100.1", false},
        {"10.0.0.1", "unknown, 10.0.0.2", "10.0.0.2", false},
        {"10.0.0.1", "198.51.100.1, unknown", "10.0.0.1", false},
        {"10.0.0.1", "198.51.100.1, ,,", "198.51.100.1", false},
        {"10.0.0.1", ",", "10.0.0.1", true},
        {"10.0.0.1", "198.51.100.1:4711", "198.51.100.1", false},
        {"10.0.0.1", "[2001:db8::7]:4711", "2001:db8::7", false},
        {"10.0.0.1", "2001:db8::7", "2001:db8::7", false},
        {"10.0.0.1", "[2001:db8::7", "10.0.0.1", false},
    };
    struct ip_nets trusted = nets("10.0.0.0/8");
    (void)state;
    for (size_t i = 0; i < MEM_COUNT(rows); i++) {
        char text[IP_TEXT_SIZE];
        struct ip a = ip(rows[i].peer);
        bool more = ip_forwarded(&trusted, rows[i].field, &a);
        ip_format(&a, text);
        if (strcmp(text, rows[i].client) != 0 || more != rows[i].more)
            fail_msg("row %zu: %s, %s: %s %d", i, rows[i].peer, rows[i].field, text, more);
    }
}

/* Fields are the client's: whatever is in them, nothing is read beyond, and what comes out is an address. */
static void no_field_leads_astray(void **state)
{
    static const char letters[] = "0123456789abcdef::::....,,,,[[]] \t/%x-";
    struct ip_nets trusted = nets("10.0.0.0/8,::/64,1.0.0.0/8"), some;
    uint64_t seed = 4711;
    (void)state;
    for (int i = 0; i < 200000; i++) {
        char field[48], text[IP_TEXT_SIZE] = "";
        struct ip a = ip("10.0.0.1");
        struct err e;
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        size_t n = (size_t)(seed >> 33) % (sizeof field - 1);
        for (size_t k = 0; k < n; k++) {
            seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            field[k] = letters[(seed >> 33) % (sizeof letters - 1)];
        }
        field[n] = '\0';
        char *exact = mem_strdup(field); /* so that a sanitizer sees its end */
        ip_forwarded(&trusted, exact, &a);
        (void)!ip_nets_parse(exact, &some, &e);
        free(exact);
        ip_format(&a, text);
        assert_true(text[0] != '\0');
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_read_and_written),
        cmocka_unit_test(a_client_is_an_ipv4_address_or_the_64_of_an_ipv6_one),
        cmocka_unit_test(networks_hold_what_has_their_prefix),
        cmocka_unit_test(what_is_no_network_is_refused),
        cmocka_unit_test(behind_proxies_the_client_is_the_rightmost_that_is_not_trusted),
        cmocka_unit_test(no_field_leads_astray),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
