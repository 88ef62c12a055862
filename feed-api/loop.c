#include "feed-api/loop.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/http_server.h"
#include "feed-api/app.h"

static void end(void *arg)
{
    struct loop *l = arg;
    event_base_loopbreak(l->base);
}

static void on_order(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    struct loop *l = arg;
    uint64_t count;
    ssize_t n = read(fd, &count, sizeof count);
    (void)n;
    unsigned orders = atomic_exchange(&l->orders, 0);
    if (orders & LOOP_END)
        end(l);
    else if (orders & LOOP_DRAIN)
        http_server_drain(l->http, l->app->cfg.drain, end, l);
}

int loop_init(struct loop *l, struct app *app, unsigned number, struct err *e)
{
    l->app = app;
    l->number = number;
    TAILQ_INIT(&l->waiting);
    l->base = event_base_new();
    l->order_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (l->base == NULL || l->order_fd < 0)
        return err_set(e, ERR_INTERNAL, "no event loop: %s", strerror(errno));
    l->order = event_new(l->base, l->order_fd, EV_READ | EV_PERSIST, on_order, l);
    if (l->order == NULL || event_add(l->order, NULL) != 0)
        return err_set(e, ERR_INTERNAL, "the loop takes no event");
    return 0;
}

static void *loop_main(void *arg)
{
    struct loop *l = arg;
    event_base_dispatch(l->base);
    return NULL;
}

int loop_start(struct loop *l, struct err *e)
{
    int rc = pthread_create(&l->thread, NULL, loop_main, l);
    if (rc != 0)
        return err_set(e, ERR_UNAVAILABLE, "loop %u: %s", l->number, strerror(rc));
    l->runs = true;
    return 0;
}

void loop_done(struct loop *l)
{
    if (l->order != NULL)
        event_free(l->order);
    if (l->base != NULL) {
        close(l->order_fd);
        event_base_free(l->base);
    }
}

void loop_tell(struct loop *l, enum loop_order order)
{
    uint64_t one = 1;
    atomic_fetch_or(&l->orders, order);
    ssize_t n = write(l->order_fd, &one, sizeof one);
    (void)n; /* EAGAIN: it is awake */
}

void loop_join(struct loop *l)
{
    if (l->runs)
        pthread_join(l->thread, NULL);
    l->runs = false;
}
