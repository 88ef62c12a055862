/* handlers_delivery.c - GET /v1/items/{id}/delivery: the receipt of an item, for its publisher. */
#include "common/clock.h"
#include "feed-api/app.h"
#include "feed-api/delivery.h"
#include "feed-api/router.h"

static int check_item(struct call *c, const struct delivery_item *it)
{
    if (!identity_publishes(&c->who, it->publisher))
        return call_fail(c, PROBLEM_FORBIDDEN, "this key is not bound to the publisher of this item");
    if (!it->live)
        return call_fail(c, PROBLEM_GONE, "this item was deleted");
    return 0;
}

static void write_delivery(struct call *c, const struct delivery *d)
{
    char at[CLOCK_RFC3339_SIZE];
    buf_printf(&c->out, "{\"state\":\"%s\",\"delivered_at\":", delivery_state_name(d->state));
    if (d->delivered_ms != 0)
        clock_format(d->delivered_ms, at);
    buf_add_json(&c->out, d->delivered_ms != 0 ? at : NULL);
    buf_printf(&c->out, ",\"audience\":%lld}", (long long)d->audience);
}

static void get_work(struct worker *w, struct call *c)
{
    struct delivery_item it;
    struct delivery d;
    struct err e;
    item_id id;
    if (ids_parse(c->params[0], &id, &e) != 0 || mongo_conn_fresh(w->mongo, NULL, &e) != 0 ||
        delivery_item(w->mongo, id, &it, &e) != 0) {
        call_fail_err(c, &e);
        return;
    }
    if (check_item(c, &it) != 0)
        return;
    if (delivery_find(w->mongo, w->redis, &it, &d, &e) != 0)
        call_fail_err(c, &e);
    else
        write_delivery(c, &d);
}

static void get_delivery(struct call *c)
{
    call_work(c, get_work);
}

const struct route routes_delivery[] = {
    {"GET", "/v1/items/{id}/delivery", get_delivery, ACCESS_PUBLISHER, NULL, NULL, 0, "getDelivery"},
    {0},
};
