/* What one address may hold, and how slowly it may send; whose request it is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "common/http_server.h"
#include "common/mem.h"
#include "common/peers.h"
#include "tests/support/http_fixture.h"
#include "tests/support/rawhttp.h"

#define HOST "Host: a\r\n"

static int n_handled;

static void echo(struct http_request *r, void *arg)
{
    (void)arg;
    __atomic_add_fetch(&n_handled, 1, __ATOMIC_RELAXED);
    http_reply(r, 200, "text/plain", r->body, r->body_len);
}

static struct http_fixture *start_with(struct http_server_options o)
{
    n_handled = 0;
    o.handle = echo;
    return http_fixture_start(&o);
}

/* A connection from another address of this machine: all of 127.0.0.0/8 is. */
static int connect_from(const char *address, uint16_t port)
{
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct timeval limit = {.tv_sec = 20};
    assert_true(fd >= 0);
    assert_int_equal(inet_pton(AF_INET, address, &from.sin_addr), 1);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&from, sizeof from), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    return fd;
}

/* Asks for /x and answers the status, or 0 when the connection was closed without an answer. */
static int ask(int fd)
{
    static const char text[] = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
    char answer[2048] = "";
    size_t n = 0;
    (void)!send(fd, text, sizeof text - 1, MSG_NOSIGNAL);
    while (strstr(answer, "\r\n\r\n") == NULL) {
        ssize_t got = recv(fd, answer + n, sizeof answer - 1 - n, 0);
        if (got <= 0)
            return 0;
        n += (size_t)got;
        answer[n] = '\0';
    }
    return atoi(answer + strlen("HTTP/1.1 "));
}

static void an_address_over_its_share_is_429_and_others_are_served(void **state)
{
    struct peers *p = peers_new(3, NULL);
    struct http_fixture *f = start_with((struct http_server_options){.peers = p, .linger_timeout_ms = 100});
    int fds[3];
    (void)state;
    for (int i = 0; i < 3; i++) {
        fds[i] = connect_from("127.0.0.2", f->port);
        assert_int_equal(ask(fds[i]), 200);
    }
    int over = connect_from("127.0.0.2", f->port);
    assert_int_equal(ask(over), 429);
    int other = connect_from("127.0.0.3", f->port);
    assert_int_equal(ask(other), 200);
    for (int i = 0; i < 3; i++)
        assert_int_equal(ask(fds[i]), 200);
    close(over);
    close(other);
    close(fds[0]);
    /* What was closed makes room again. */
    int status = 0;
    for (int i = 0; i < 1000 && status != 200; i++) {
        int fd = connect_from("127.0.0.2", f->port);
        status = ask(fd);
        close(fd);
    }
    assert_int_equal(status, 200);
    close(fds[1]);
    close(fds[2]);
    http_fixture_stop(f);
    peers_free(p);
}

/* Refusals take connections too, and each lingers: an address must not get the others' by being refused. */
static void a_flood_of_one_address_leaves_room_for_others(void **state)
{
    struct peers *p = peers_new(2, NULL);
    struct http_fixture *f = start_with((struct http_server_options){.peers = p, .max_connections = 20});
    int fds[100], answered = 0;
    (void)state;
    for (int i = 0; i < 100; i++)
        fds[i] = connect_from("127.0.0.2", f->port);
    int other = connect_from("127.0.0.3", f->port);
    assert_int_equal(ask(other), 200);
    for (int i = 0; i < 100; i++) {
        answered += ask(fds[i]) != 0;
        close(fds[i]);
    }
    assert_in_range(answered, 2, 20);
    close(other);
    http_fixture_stop(f);
    peers_free(p);
}

static void a_body_slower_than_the_least_rate_is_408(void **state)
{
    struct http_fixture *f = start_with((struct http_server_options){
        .min_body_rate = 100000, .body_grace_ms = 50, .stall_timeout_ms = 60000, .max_body = 100000});
    struct rawhttp *c = rawhttp_open(f->port);
    struct reply r = {0};
    int sent = 0, rc = -1;
    (void)state;
    rawhttp_send_str(c, "POST /x HTTP/1.1\r\n" HOST "Content-Length: 50000\r\n\r\n");
    rawhttp_set_timeout(c, 10);
    /* A byte now and then: it never stalls, and would take an hour. */
    for (; sent < 2000 && rc != 0; sent++) {
        rawhttp_send_str(c, "x");
        rc = rawhttp_try_read(c, "POST", &r);
    }
    assert_int_equal(rc, 0);
    assert_int_equal(r.status, 408);
    assert_int_equal(__atomic_load_n(&n_handled, __ATOMIC_RELAXED), 0);
    reply_done(&r);
    rawhttp_close(c);
    http_fixture_stop(f);
}

static void a_body_that_is_fast_enough_is_taken(void **state)
{
    struct http_fixture *f = start_with((struct http_server_options){
        .min_body_rate = 1, .body_grace_ms = 1, .stall_timeout_ms = 60000, .max_body = 100000});
    struct rawhttp *c = rawhttp_open(f->port);
    char *body = mem_alloc(50000);
    struct reply r;
    (void)state;
    memset(body, 'y', 50000);
    rawhttp_request(c, "POST", "/x", NULL, body, 50000, &r);
    assert_int_equal(r.status, 200);
    assert_int_equal(r.len, 50000);
    reply_done(&r);
    free(body);
    rawhttp_close(c);
    http_fixture_stop(f);
}

static char seen[4][64];

static void look(struct http_request *r, void *arg)
{
    (void)arg;
    for (size_t i = 0; i < 3; i++) {
        const char *v = http_request_header_at(r, "x-forwarded-for", i);
        snprintf(seen[i], sizeof seen[i], "%s", v != NULL ? v : "none");
    }
    http_request_set_client(r, "203.0.113.9");
    snprintf(seen[3], sizeof seen[3], "%s", r->client);
    http_reply(r, 200, "text/plain", "ok", 2);
}

static void fields_given_twice_are_found_in_order(void **state)
{
    struct http_fixture *f = http_fixture_start(&(struct http_server_options){.handle = look});
    struct reply r;
    (void)state;
    rawhttp_once(f->port, "GET", "/x", "X-Forwarded-For: a\r\nAccept: b\r\nX-FORWARDED-FOR: c, d\r\n", NULL,
                 &r);
    reply_done(&r);
    http_fixture_stop(f);
    assert_string_equal(seen[0], "a");
    assert_string_equal(seen[1], "c, d");
    assert_string_equal(seen[2], "none");
    assert_string_equal(seen[3], "203.0.113.9");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_address_over_its_share_is_429_and_others_are_served),
        cmocka_unit_test(a_flood_of_one_address_leaves_room_for_others),
        cmocka_unit_test(a_body_slower_than_the_least_rate_is_408),
        cmocka_unit_test(a_body_that_is_fast_enough_is_taken),
        cmocka_unit_test(fields_given_twice_are_found_in_order),
    };
    return cmocka_run_group_tests_name("http_server_caps", tests, NULL, NULL);
}
