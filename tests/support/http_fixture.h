/* http_fixture.h - an http_server on its own thread and a free port, for tests that talk to it from outside.
 */
#ifndef FEEDMILL_TESTS_HTTP_FIXTURE_H
#define FEEDMILL_TESTS_HTTP_FIXTURE_H

#include <stdbool.h>
#include <stdint.h>
#include "common/http_server.h"

struct event_base;

struct http_fixture {
    uint16_t port;
    struct event_base *base;
    struct http_server *server; /* touch it only in http_fixture_run() */
};

/* Starts the loop and the server; fails the test when it can't. */
struct http_fixture *http_fixture_start(const struct http_server_options *o);

/* Stops the loop, frees the server (unless *server was set to NULL) and the fixture. NULL is a no-op. */
void http_fixture_stop(struct http_fixture *f);

/* Calls fn on the loop's thread and waits until it has returned. */
void http_fixture_run(struct http_fixture *f, void (*fn)(struct http_fixture *f, void *arg), void *arg);

/* Waits until *flag (written by another thread, atomically) is at least n; fails the test after 20 s. */
void wait_until_at_least(const int *flag, int n);

#endif
