/* handlers_bulk.c - POST /v1/items/bulk. All of it is done by a worker: reading 8 MiB of JSON would hold up
 * the loop. */
#include "common/clock.h"
#include "feed-api/app.h"
#include "feed-api/bulk.h"
#include "feed-api/handlers_items.h"
#include "feed-api/router.h"

#define BULK_BODY_MAX (8 * 1024 * 1024)
#define BULK_DEADLINE_MS                                                                                     \
    30000 /* a thousand lines that all name one item are as many updates behind one another */

static void refuse_foreign(struct call *c, struct bulk *b)
{
    for (size_t i = 0; i < b->n; i++)
        if (b->lines[i].state == BULK_WAITING && !identity_publishes(&c->who, b->lines[i].item.publisher))
            bulk_refuse(&b->lines[i], PROBLEM_FORBIDDEN, "this key may not publish as this publisher");
}

/* Before anything is done: half a request would only have to be sent again. */
static bool publishes(const struct bulk *b)
{
    for (size_t i = 0; i < b->n; i++)
        if (b->lines[i].state == BULK_WAITING && b->lines[i].op == BULK_POST)
            return true;
    return false;
}

static void bulk_work(struct worker *w, struct call *c)
{
    struct items s = handlers_items_store(w);
    struct bulk *b = NULL;
    struct err e;
    if (bulk_parse(c->http->body, c->http->body_len, s.now_ms, &b, &e) != 0) {
        call_fail_err(c, &e);
        return;
    }
    refuse_foreign(c, b);
    if (publishes(b) && handlers_items_held_back(c) != 0) {
        bulk_free(b);
        return;
    }
    if (bulk_run(&s, b, &e) != 0) {
        call_fail_err(c, &e);
    } else {
        c->position = bulk_write(b, c->http->id, &c->out);
        /* No line was acted on: then the present is a position that is right. */
        if (c->position == 0 && mongo_conn_fresh(w->mongo, &c->position, &e) != 0)
            call_fail_err(c, &e);
        c->content_type = "application/x-ndjson";
    }
    bulk_free(b);
}

static void bulk_items(struct call *c)
{
    c->deadline = clock_mono_ms() + BULK_DEADLINE_MS;
    call_work(c, bulk_work);
}

const struct route routes_bulk[] = {
    {"POST", "/v1/items/bulk", bulk_items, ACCESS_PUBLISHER, NULL, "application/x-ndjson", BULK_BODY_MAX,
     "bulkItems"},
    {0},
};
