#include "feed-api/loop.h"

#include <string.h>

#include "common/http_server.h"
#include "common/wake.h"
#include "feed-api/app.h"

static void end(void *arg)
{
    struct loop *l = arg;
    event_base_loopbreak(l->base);
}

static void take_orders(void *arg)
{
    struct loop *l = arg;
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
    if (l->base == NULL)
        return err_set(e, ERR_INTERNAL, "no event loop");
    return wake_new(&l->order, l->base, take_orders, l, e);
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
    wake_free(l->order);
    if (l->base != NULL)
        event_base_free(l->base);
}

void loop_tell(struct loop *l, enum loop_order order)
{
    atomic_fetch_or(&l->orders, order);
    wake_up(l->order);
}

void loop_join(struct loop *l)
{
    if (l->runs)
        pthread_join(l->thread, NULL);
    l->runs = false;
}
