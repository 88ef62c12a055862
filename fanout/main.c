/* main.c - fanout: the table of contents. The engine's thread does the work (engine.h), another keeps the
 * leases (shares.h), this one answers health, metrics and status, and takes the signals. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/address.h"
#include "common/changes.h"
#include "common/http_server.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/proc.h"
#include "fanout/config.h"
#include "fanout/status.h"

struct app {
    struct fanout_config cfg;
    const char *name;
    struct event_base *base;
    struct proc_signals *signals;
    struct metrics *metrics;
    struct mongo *mongo;
    struct shares *shares;
    struct engine *engine;
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
    const struct fanout_config *c = &a->cfg;
    struct mongo_options mo = {.uri = c->mongodb_uri, .app_name = "feedmill-fanout", .pool_size = 8};
    struct engine_options eo = {
        .redis_timeout_ms = c->redis_timeout_ms,
        .name = a->name,
        .metrics = a->metrics,
        .timeline_entries = c->timeline_entries,
        .batch_keys = (unsigned)c->batch_keys,
        .audience_batch = (unsigned)c->audience_batch,
        .pipeline_calls = (unsigned)c->pipeline_calls,
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
    return 0;
}

static int serve(struct app *a, struct err *e)
{
    struct address at;
    uint16_t bound;
    struct http_server_options ho = {.handle = admin_handle, .arg = &a->status.admin, .max_connections = 100};
    status_init(&a->status, a->engine, a->metrics, a->name);
    a->http = http_server_new(a->base, &ho);
    a->ended = event_new(a->base, -1, 0, end_loop, a);
    if (address_parse(a->cfg.listen, &at, e) != 0 ||
        http_server_listen(a->http, at.host, at.port, &bound, e) != 0 ||
        proc_signals_new(&a->signals, a->base, drain, a, e) != 0)
        return -1;
    log_event(LOG_INFO, "listening", LOG_S("address", at.host), LOG_U("port", bound), LOG_S("name", a->name));
    return 0;
}

static int run(struct app *a, struct err *e)
{
    a->metrics = fanout_metrics_new();
    if (make_engine(a, e) != 0 || serve(a, e) != 0 ||
        heartbeat_start(&a->heartbeat, a->mongo, a->name, e) != 0 || shares_start(a->shares, e) != 0 ||
        engine_start(a->engine, e) != 0)
        return -1;
    event_base_dispatch(a->base);
    return 0;
}

static void tear_down(struct app *a)
{
    engine_free(a->engine);
    shares_free(a->shares);
    heartbeat_stop(a->heartbeat);
    mongo_free(a->mongo);
    proc_signals_free(a->signals);
    http_server_free(a->http);
    if (a->ended)
        event_free(a->ended);
    metrics_free(a->metrics);
}

int main(int argc, char **argv)
{
    struct app a = {0};
    struct err e = {0};
    enum config_result result;
    enum log_level level;
    proc_init("fanout");
    if (fanout_config_load(argc, argv, &a.cfg, &result, &e) != 0) {
        fprintf(stderr, "fanout: %s\n", e.msg);
        return 2;
    }
    if (result == CONFIG_EXIT_OK)
        return 0;
    if (log_level_parse(a.cfg.log_level, &level) != 0) {
        fprintf(stderr, "fanout: --log-level: debug, info, warn or error, not \"%s\"\n", a.cfg.log_level);
        return 2;
    }
    log_init("fanout", level);
    a.name = a.cfg.name[0] ? a.cfg.name : proc_instance();
    a.base = event_base_new();
    int rc = run(&a, &e);
    if (rc != 0)
        log_event(LOG_ERROR, "start_failed", LOG_ERR(&e));
    tear_down(&a);
    event_base_free(a.base);
    fanout_config_free(&a.cfg);
    proc_done();
    return rc == 0 ? 0 : 1;
}
