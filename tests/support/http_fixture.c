#include "tests/support/http_fixture.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <event2/event.h>
#include <event2/thread.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include "common/clock.h"
#include "common/mem.h"

struct running {
    struct http_fixture f; /* first */
    pthread_t thread;
};

struct call {
    struct http_fixture *f;
    void (*fn)(struct http_fixture *f, void *arg);
    void *arg;
    int done;
};

static void *loop(void *arg)
{
    struct running *r = arg;
    event_base_loop(r->f.base, EVLOOP_NO_EXIT_ON_EMPTY);
    return NULL;
}

struct http_fixture *http_fixture_start(const struct http_server_options *o)
{
    struct err e;
    struct running *r = mem_zero(1, sizeof *r);
    evthread_use_pthreads();
    r->f.base = event_base_new();
    r->f.server = http_server_new(r->f.base, o);
    if (http_server_listen(r->f.server, "127.0.0.1", 0, &r->f.port, &e) != 0)
        fail_msg("%s", e.msg);
    if (pthread_create(&r->thread, NULL, loop, r) != 0)
        fail_msg("no thread");
    return &r->f;
}

static void stop_loop(struct http_fixture *f, void *arg)
{
    (void)arg;
    event_base_loopbreak(f->base);
}

void http_fixture_stop(struct http_fixture *f)
{
    if (f == NULL)
        return;
    struct running *r = (struct running *)f;
    http_fixture_run(f, stop_loop, NULL);
    pthread_join(r->thread, NULL);
    http_server_free(f->server);
    event_base_free(f->base);
    free(r);
}

static void run_call(evutil_socket_t fd, short what, void *arg)
{
    struct call *c = arg;
    (void)fd;
    (void)what;
    c->fn(c->f, c->arg);
    __atomic_store_n(&c->done, 1, __ATOMIC_RELEASE);
}

void http_fixture_run(struct http_fixture *f, void (*fn)(struct http_fixture *f, void *arg), void *arg)
{
    struct call c = {.f = f, .fn = fn, .arg = arg};
    event_base_once(f->base, -1, EV_TIMEOUT, run_call, &c, &(struct timeval){0, 0});
    wait_until_at_least(&c.done, 1);
}

void wait_until_at_least(const int *flag, int n)
{
    int64_t deadline = clock_mono_ms() + 20000;
    while (__atomic_load_n(flag, __ATOMIC_ACQUIRE) < n) {
        if (clock_mono_ms() > deadline)
            fail_msg("waited 20 s for %d to become %d", __atomic_load_n(flag, __ATOMIC_ACQUIRE), n);
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
}
