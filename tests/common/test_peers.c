#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "common/peers.h"

static struct ip ip(const char *s)
{
    struct ip out;
    assert_true(ip_parse(s, strlen(s), &out));
    return out;
}

static enum peers_answer enter(struct peers *p, const char *from)
{
    struct ip a = ip(from);
    return peers_enter(p, &a);
}

static void leave(struct peers *p, const char *from)
{
    struct ip a = ip(from);
    peers_leave(p, &a);
}

static void an_address_has_its_share_and_no_more(void **state)
{
    struct peers *p = peers_new(2, NULL);
    (void)state;
    assert_int_equal(enter(p, "192.0.2.1"), PEERS_OK);
    assert_int_equal(enter(p, "192.0.2.1"), PEERS_OK);
    assert_int_equal(enter(p, "192.0.2.1"), PEERS_REFUSE);
    assert_int_equal(enter(p, "192.0.2.2"), PEERS_OK);
    assert_int_equal(peers_addresses(p), 2);
    /* Being told so takes connections too, so there are few of them at a time. */
    int told = 1;
    while (enter(p, "192.0.2.1") == PEERS_REFUSE)
        told++;
    assert_in_range(told, 1, 16);
    for (int i = 0; i < told + 1; i++)
        leave(p, "192.0.2.1");
    assert_int_equal(enter(p, "192.0.2.1"), PEERS_OK);
    leave(p, "192.0.2.1");
    leave(p, "192.0.2.1");
    leave(p, "192.0.2.2");
    assert_int_equal(peers_addresses(p), 0);
    peers_free(p);
    peers_free(NULL);
}

static void an_ipv6_client_is_counted_by_its_64(void **state)
{
    struct peers *p = peers_new(1, NULL);
    (void)state;
    assert_int_equal(enter(p, "2001:db8::1"), PEERS_OK);
    assert_int_equal(enter(p, "2001:db8::ffff:2"), PEERS_REFUSE);
    assert_int_equal(enter(p, "2001:db8:0:1::1"), PEERS_OK);
    leave(p, "2001:db8::1");
    leave(p, "2001:db8::1");
    leave(p, "2001:db8:0:1::1");
    assert_int_equal(peers_addresses(p), 0);
    peers_free(p);
}

static void who_is_exempt_is_not_counted(void **state)
{
    struct ip_nets exempt;
    struct err e;
    (void)state;
    assert_int_equal(ip_nets_parse("127.0.0.0/8", &exempt, &e), 0);
    struct peers *p = peers_new(1, &exempt);
    for (int i = 0; i < 10; i++)
        assert_int_equal(enter(p, "127.0.0.1"), PEERS_OK);
    assert_int_equal(peers_addresses(p), 0);
    leave(p, "127.0.0.1");
    peers_free(p);
}

static void thousands_of_addresses_are_told_apart(void **state)
{
    struct peers *p = peers_new(1, NULL);
    char text[64];
    (void)state;
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 20000; i++) {
            snprintf(text, sizeof text, "10.%d.%d.1", i / 256, i % 256);
            assert_int_equal(enter(p, text), round ? PEERS_REFUSE : PEERS_OK);
        }
    }
    assert_int_equal(peers_addresses(p), 20000);
    for (int i = 0; i < 40000; i++) {
        snprintf(text, sizeof text, "10.%d.%d.1", i / 2 / 256, i / 2 % 256);
        leave(p, text);
    }
    assert_int_equal(peers_addresses(p), 0);
    peers_free(p);
}

static void *come_and_go(void *arg)
{
    for (int i = 0; i < 5000; i++) {
        if (enter(arg, "192.0.2.1") != PEERS_CLOSE)
            leave(arg, "192.0.2.1");
    }
    return NULL;
}

static void threads_share_the_counts(void **state)
{
    struct peers *p = peers_new(3, NULL);
    pthread_t t[4];
    (void)state;
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&t[i], NULL, come_and_go, p), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(peers_addresses(p), 0);
    peers_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_address_has_its_share_and_no_more),
        cmocka_unit_test(an_ipv6_client_is_counted_by_its_64),
        cmocka_unit_test(who_is_exempt_is_not_counted),
        cmocka_unit_test(thousands_of_addresses_are_told_apart),
        cmocka_unit_test(threads_share_the_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
