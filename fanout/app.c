#include "fanout/app.h"

#include <stdlib.h>
#include <string.h>
#include "common/address.h"
#include "common/changes.h"
#include "common/http_server.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/proc.h"
#include "fanout/receipts.h"
#include "fanout/sampler.h"
#include "fanout/status.h"

struct app {
    const struct fanout_config *cfg;
    const char *name;
    struct event_base *base;
    struct proc_signals *signals;
    struct metrics *metrics;
    struct mongo *mongo;
    struct shares *shares;
    struct engine *engine;
    struct room *room;
    struct receipts *receipts;
    struct sampler *sampler; /* NULL: --audit-interval is 0 */
    struct heartbeat *heartbeat;
    struct status status;
    struct http_server *http;
    struct event *ended;
};

static void drain(int signum, void *arg)
{
    struct app *a = arg;
    log_event(LOG_INFO, "draining", LOG_S("signal", strsignal(signum)));
    a->status.draining = true;
    sampler_stop_soon(a->sampler);
    shares_stop_soon(a->shares);
    engine_stop(a->engine);
}

static void engine_has_ended(void *arg)
{
    struct app *a = arg;
    event_active(a->ended, EV_READ, 0);
}

static void end_loop(evutil_socket_t fd, short what, void *arg)
{
    struct app *a = arg;
    (void)fd;
    (void)what;
    event_base_loopbreak(a->base);
}

static int make_engine(struct app *a, struct err *e)
{
    const struct fanout_config *c = a->cfg;
    struct mongo_options mo = {.uri = c->mongodb_uri, .app_name = "feedmill-fanout", .pool_size = 9};
    struct engine_options eo = {
        .redis_timeout_ms = c->redis_timeout_ms,
        .name = a->name,
        .metrics = a->metrics,
        .timeline_entries = c->timeline_entries,
        .batch_keys = (unsigned)c->batch_keys,
        .audience_batch = (unsigned)c->audience_batch,
        .pipeline_calls = (unsigned)c->pipeline_calls,
        .audience_cache = (size_t)c->audience_cache,
        .backlog = (unsigned)c->backlog,
        .drain_ms = c->drain_ms,
    };
    if (redis_address_parse(c->redis, &eo.redis, e) != 0 || mongo_new(&a->mongo, &mo, e) != 0)
        return -1;
    struct shares_options so = {
        .mongo = a->mongo, .name = a->name, .lease_ms = c->lease_ms, .metrics = a->metrics};
    a->shares = shares_new(&so);
    eo.mongo = a->mongo;
    eo.shares = a->shares;
    a->engine = engine_new(&eo);
    engine_on_end(a->engine, engine_has_ended, a);
    a->room = room_new(&eo.redis, c->redis_timeout_ms, a->metrics);
    return 0;
}

static int serve(struct app *a, struct err *e)
{
    struct address at;
    uint16_t bound;
    struct http_server_options ho = {.handle = admin_handle, .arg = &a->status.admin, .max_connections = 100};
    status_init(&a->status, a->engine, a->room, a->metrics, a->name);
    shares_report(a->shares, status_report, &a->status);
    a->http = http_server_new(a->base, &ho);
    a->ended = event_new(a->base, -1, 0, end_loop, a);
    if (address_parse(a->cfg->listen, &at, e) != 0 ||
        http_server_listen(a->http, at.host, at.port, &bound, e) != 0 ||
        proc_signals_new(&a->signals, a->base, drain, a, e) != 0)
        return -1;
    log_event(LOG_INFO, "listening", LOG_S("address", at.host), LOG_U("port", bound), LOG_S("name", a->name));
    return 0;
}

int app_new(struct app **out, const struct fanout_config *cfg, struct err *e)
{
    struct app *a = mem_zero(1, sizeof *a);
    a->cfg = cfg;
    a->name = cfg->name[0] ? cfg->name : proc_instance();
    a->metrics = fanout_metrics_new();
    a->base = event_base_new();
    if (make_engine(a, e) != 0 || serve(a, e) != 0) {
        app_free(a);
        return -1;
    }
    *out = a;
    return 0;
}

static int start_sampler(struct app *a, struct err *e)
{
    struct sampler_options o = {.mongo = a->mongo,
                                .redis_timeout_ms = a->cfg->redis_timeout_ms,
                                .engine = a->engine,
                                .metrics = a->metrics,
                                .interval_ms = a->cfg->audit_interval_ms,
                                .repair = a->cfg->audit_repair};
    if (o.interval_ms == 0)
        return 0;
    if (redis_address_parse(a->cfg->redis, &o.redis, e) != 0)
        return -1;
    return sampler_start(&a->sampler, &o, e);
}

static int start_receipts(struct app *a, struct err *e)
{
    struct receipts_options o = {
        .mongo = a->mongo, .engine = a->engine, .metrics = a->metrics, .name = a->name};
    return receipts_start(&a->receipts, &o, e);
}

int app_run(struct app *a, struct err *e)
{
    if (heartbeat_start(&a->heartbeat, a->mongo, a->name, e) != 0 || shares_start(a->shares, e) != 0 ||
        engine_start(a->engine, e) != 0 || room_start(a->room, e) != 0 || start_receipts(a, e) != 0 ||
        start_sampler(a, e) != 0)
        return -1;
    event_base_dispatch(a->base);
    return 0;
}

void app_free(struct app *a)
{
    if (!a)
        return;
    receipts_stop(a->receipts);
    sampler_free(a->sampler); /* asks the engine what is owned */
    if (a->shares)            /* its thread asks the engine how it is */
        shares_stop(a->shares);
    engine_free(a->engine);
    shares_free(a->shares);
    room_free(a->room);
    heartbeat_stop(a->heartbeat);
    mongo_free(a->mongo);
    proc_signals_free(a->signals);
    http_server_free(a->http);
    if (a->ended)
        event_free(a->ended);
    event_base_free(a->base);
    metrics_free(a->metrics);
    free(a);
}
