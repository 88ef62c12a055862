/* Several servers on threads of their own, of which one accepts for all. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <event2/event.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/http_server.h"
#include "tests/support/rawhttp.h"

#define SERVERS 3
#define CONNS   12

struct world;

struct member {
    struct world *world;
    struct event_base *base;
    struct http_server *http;
    pthread_t thread;
    int drain_fd;
    struct event *drain;
    atomic_int handled;
};

struct world {
    struct http_budget budget;
    struct member at[SERVERS];
    uint16_t port;
};

static void on_request(struct http_request *r, void *arg)
{
    struct member *m = arg;
    m->handled++;
    http_reply(r, 200, "text/plain", "ok", 2);
}

static void end(void *arg)
{
    struct member *m = arg;
    event_base_loopbreak(m->base);
}

static void on_drain(evutil_socket_t fd, short what, void *arg)
{
    struct member *m = arg;
    (void)fd;
    (void)what;
    http_server_drain(m->http, 2000, end, m);
}

static void *run(void *arg)
{
    struct member *m = arg;
    event_base_dispatch(m->base);
    return NULL;
}

static void open_world(struct world *w, size_t max_connections)
{
    struct err e;
    struct http_server *others[SERVERS - 1];
    memset(w, 0, sizeof *w);
    for (int i = 0; i < SERVERS; i++) {
        struct member *m = &w->at[i];
        struct http_server_options o = {
            .handle = on_request, .arg = m, .budget = &w->budget, .max_connections = max_connections};
        m->world = w;
        m->base = event_base_new();
        m->http = http_server_new(m->base, &o);
        m->drain_fd = eventfd(0, EFD_NONBLOCK);
        m->drain = event_new(m->base, m->drain_fd, EV_READ, on_drain, m);
        event_add(m->drain, NULL);
        if (i > 0)
            others[i - 1] = m->http;
    }
    assert_int_equal(http_server_spread(w->at[0].http, others, SERVERS - 1, &e), 0);
    assert_int_equal(http_server_listen(w->at[0].http, "127.0.0.1", 0, &w->port, &e), 0);
    for (int i = 0; i < SERVERS; i++)
        assert_int_equal(pthread_create(&w->at[i].thread, NULL, run, &w->at[i]), 0);
}

static void close_world(struct world *w)
{
    uint64_t one = 1;
    for (int i = 0; i < SERVERS; i++)
        assert_int_equal(write(w->at[i].drain_fd, &one, sizeof one), (ssize_t)sizeof one);
    for (int i = 0; i < SERVERS; i++)
        assert_int_equal(pthread_join(w->at[i].thread, NULL), 0);
    for (int i = 0; i < SERVERS; i++) {
        struct member *m = &w->at[i];
        http_server_free(m->http);
        event_free(m->drain);
        close(m->drain_fd);
        event_base_free(m->base);
    }
    assert_int_equal(w->budget.connections, 0);
    assert_int_equal(w->budget.body_bytes, 0);
}

static void ask(struct rawhttp *c, int status)
{
    struct reply r;
    rawhttp_request(c, "POST", "/x", NULL, "some body", 9, &r);
    assert_int_equal(r.status, status);
    reply_done(&r);
}

static void open_and_ask(const struct world *w, struct rawhttp **c, int n)
{
    for (int i = 0; i < n; i++) {
        c[i] = rawhttp_open(w->port);
        ask(c[i], 200);
    }
}

static void close_each(struct rawhttp **c, int n)
{
    for (int i = 0; i < n; i++)
        rawhttp_close(c[i]);
}

static void connections_go_to_who_has_the_fewest(void **state)
{
    struct world w;
    struct rawhttp *c[CONNS];
    (void)state;
    open_world(&w, 0);
    open_and_ask(&w, c, CONNS);
    assert_int_equal(http_server_connections(w.at[0].http), CONNS);
    for (int i = 0; i < SERVERS; i++)
        assert_int_equal(w.at[i].handled, CONNS / SERVERS);
    for (int i = 0; i < CONNS; i++)
        ask(c[i], 200); /* they stay where they are */
    for (int i = 0; i < SERVERS; i++)
        assert_int_equal(w.at[i].handled, 2 * CONNS / SERVERS);
    close_each(c, CONNS);
    close_world(&w);
}

static void the_cap_is_about_all_of_them(void **state)
{
    struct world w;
    struct rawhttp *c[5];
    (void)state;
    open_world(&w, 4);
    open_and_ask(&w, c, 4);
    struct reply r;
    c[4] = rawhttp_open(w.port);
    rawhttp_read(c[4], "GET", &r);
    assert_int_equal(r.status, 503);
    reply_done(&r);
    close_each(c, 5);
    close_world(&w);
}

static void draining_ends_the_connections_of_all(void **state)
{
    struct world w;
    struct rawhttp *c[CONNS];
    (void)state;
    open_world(&w, 0);
    open_and_ask(&w, c, CONNS);
    close_world(&w);
    close_each(c, CONNS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(connections_go_to_who_has_the_fewest),
        cmocka_unit_test(the_cap_is_about_all_of_them),
        cmocka_unit_test(draining_ends_the_connections_of_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
