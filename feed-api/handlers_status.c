/* GET /healthz, /readyz, /metrics, /v1/status, /openapi.yaml. */
#include "feed-api/handlers_status.h"

#include <string.h>

#include "common/clock.h"
#include "feed-api/app.h"
#include "feed-api/openapi.h"
#include "feed-api/router.h"

/* ---- readiness ---- */

static bool server_is_wanted(const struct app *app, enum health_server s)
{
    return s != HEALTH_RANKER || app->loops[0].ranker != NULL;
}

static void add_degraded(struct buf *out, const char *name)
{
    if (out->len > 0)
        buf_add_char(out, ',');
    buf_add_json(out, name);
}

/* Ready once everything that a page or a write needs has served; from then on what fails is degraded, because
 * pages go on without it. The ranker is never needed. */
static bool app_ready(struct buf *degraded, void *arg)
{
    struct app *app = arg;
    bool served = true;
    for (enum health_server s = 0; s < HEALTH_SERVERS; s++) {
        struct health_state state;
        if (!server_is_wanted(app, s))
            continue;
        health_get(app->health, s, &state);
        if (!state.up)
            add_degraded(degraded, health_name(s));
        if (s != HEALTH_RANKER)
            served = served && state.served;
    }
    if (!tail_alive(app->tail))
        add_degraded(degraded, "tail");
    struct pressure_view v;
    pressure_look(app->pressure, &v);
    if (v.reason != PRESSURE_NONE)
        add_degraded(degraded, "fanout");
    if (v.memory_tight)
        add_degraded(degraded, "redis_memory");
    return served && app->up && !app->draining && tail_position(app->tail) != 0;
}

/* ---- status ---- */

static void add_time(struct buf *out, int64_t ms)
{
    char text[CLOCK_RFC3339_SIZE];
    if (ms == 0) {
        buf_add_str(out, "null");
        return;
    }
    clock_format(ms, text);
    buf_add_json(out, text);
}

static void add_server(struct buf *out, const struct app *app, enum health_server s)
{
    struct health_state state;
    health_get(app->health, s, &state);
    buf_printf(out, "\"%s\":{\"up\":%s,\"since\":", health_name(s), state.up ? "true" : "false");
    add_time(out, state.since_ms);
    buf_add_str(out, ",\"version\":");
    buf_add_json(out, state.version[0] != '\0' ? state.version : NULL);
    buf_add_str(out, ",\"error\":");
    buf_add_json(out, state.error[0] != '\0' ? state.error : NULL);
    buf_add_char(out, '}');
}

static void add_servers(struct buf *out, const struct app *app)
{
    buf_add_str(out, ",\"dependencies\":{");
    for (enum health_server s = 0; s < HEALTH_SERVERS; s++) {
        if (!server_is_wanted(app, s))
            continue;
        if (s > 0)
            buf_add_char(out, ',');
        add_server(out, app, s);
    }
    buf_add_char(out, '}');
}

static void add_tail(struct buf *out, const struct app *app)
{
    char text[TS_TEXT_SIZE];
    ts_t t = tail_position(app->tail);
    ts_format(t, text);
    buf_printf(out, ",\"lag_ms\":%lld", (long long)tail_lag_ms(app->tail, t));
    buf_printf(out, ",\"tail\":{\"alive\":%s,\"position\":", tail_alive(app->tail) ? "true" : "false");
    buf_add_json(out, t != 0 ? text : NULL);
    buf_printf(out, ",\"users\":%lld,\"lost\":%lld}", (long long)metrics_get(app->metrics, M_USER_CHANGES, 0),
               (long long)metrics_get(app->metrics, M_TAIL_LOST, 0));
}

static size_t in_flight(const struct app *app)
{
    size_t n = 0;
    for (int64_t i = 0; i < app->cfg.loops; i++)
        n += http_server_in_flight(app->loops[i].http);
    return n;
}

static void add_queues(struct buf *out, const struct app *app)
{
    buf_printf(out, ",\"workers\":{\"threads\":%lld,\"busy\":%u,\"queued\":%u,\"queue_max\":%lld}",
               (long long)app->cfg.workers, workers_busy(app->loops[0].workers),
               workers_queued(app->loops[0].workers), (long long)app->cfg.worker_queue);
    buf_printf(out, ",\"loops\":%lld", (long long)app->cfg.loops);
    buf_printf(out, ",\"http\":{\"connections\":%zu,\"max_connections\":%lld,\"in_flight\":%zu}",
               http_server_connections(app->loops[0].http), (long long)app->cfg.max_connections,
               in_flight(app));
    buf_printf(out, ",\"content_cache\":{\"entries\":%lld,\"bytes\":%lld,\"max_bytes\":%lld}",
               (long long)metrics_get(app->metrics, M_CONTENT_ENTRIES, 0),
               (long long)metrics_get(app->metrics, M_CONTENT_BYTES, 0),
               (long long)app->cfg.content_cache_bytes);
}

/* null when it is not known. */
static void add_number(struct buf *out, const char *name, bool known, int64_t n)
{
    buf_printf(out, "\"%s\":", name);
    if (known)
        buf_printf(out, "%lld", (long long)n);
    else
        buf_add_str(out, "null");
}

static void add_fanout(struct buf *out, const struct pressure_fanout *f)
{
    const struct member_state *s = &f->state;
    char progress[TS_TEXT_SIZE];
    ts_format(s->progress, progress);
    buf_add_str(out, "{\"name\":");
    buf_add_json(out, f->name);
    buf_printf(out, ",\"age_ms\":%lld,\"ready\":%s,\"redis\":%s,\"mongodb\":%s,\"buckets\":%u,\"progress\":",
               (long long)(f->age_ms > 0 ? f->age_ms : 0), s->ready ? "true" : "false",
               s->redis_ok ? "true" : "false", s->mongodb_ok ? "true" : "false", s->buckets);
    buf_add_json(out, s->progress != 0 ? progress : NULL);
    buf_add_char(out, ',');
    add_number(out, "lag_ms", s->lag_ms >= 0, s->lag_ms);
    buf_printf(out, ",\"backlog\":%lld,\"redis_memory\":{\"tight\":%s,", (long long)s->backlog,
               s->memory_tight ? "true" : "false");
    add_number(out, "used_bytes", s->memory_used >= 0, s->memory_used);
    buf_add_char(out, ',');
    add_number(out, "max_bytes", s->memory_max > 0, s->memory_max);
    buf_printf(out, ",\"evicted_timelines\":%lld}}", (long long)s->evicted);
}

static void add_fanouts(struct buf *out, const struct app *app)
{
    struct pressure_view v;
    int64_t retry_after_ms = 0;
    pressure_look(app->pressure, &v);
    enum pressure_reason why = pressure_refuses(app->pressure, &retry_after_ms);
    buf_printf(out, ",\"publishing\":{\"accepting\":%s,\"reason\":", why == PRESSURE_NONE ? "true" : "false");
    buf_add_json(out, pressure_reason_name(why));
    buf_add_char(out, ',');
    add_number(out, "retry_after_ms", why != PRESSURE_NONE, retry_after_ms);
    buf_add_char(out, ',');
    add_number(out, "lag_ms", v.lag_ms >= 0, v.lag_ms);
    buf_printf(out, ",\"lag_max_ms\":%lld,\"backlog\":%lld,\"backlog_max\":%lld},\"fanouts\":[",
               (long long)app->cfg.publish_lag_max, (long long)v.backlog,
               (long long)app->cfg.publish_backlog_max);
    const char *comma = "";
    for (size_t i = 0; i < v.n; i++) {
        if (!v.fanouts[i].alive || !v.fanouts[i].told)
            continue;
        buf_add_str(out, comma);
        add_fanout(out, &v.fanouts[i]);
        comma = ",";
    }
    buf_add_char(out, ']');
}

static void app_status(struct buf *out, void *arg)
{
    struct app *app = arg;
    buf_add_str(out, ",\"name\":");
    buf_add_json(out, app->name);
    buf_add_str(out, ",\"instance\":");
    buf_add_json(out, app->instance);
    buf_printf(out, ",\"up\":%s,\"draining\":%s", app->up ? "true" : "false",
               app->draining ? "true" : "false");
    add_tail(out, app);
    add_queues(out, app);
    add_fanouts(out, app);
    add_servers(out, app);
}

static void app_refresh(void *arg)
{
    struct app *app = arg;
    struct metrics *m = app->metrics;
    metrics_set(m, M_CONNECTIONS, 0, (int64_t)http_server_connections(app->loops[0].http));
    metrics_set(m, M_IN_FLIGHT, 0, (int64_t)in_flight(app));
    metrics_set(m, M_WORKERS_QUEUED, 0, workers_queued(app->loops[0].workers));
    metrics_set(m, M_WORKERS_BUSY, 0, workers_busy(app->loops[0].workers));
    metrics_set(m, M_TAIL_ALIVE, 0, tail_alive(app->tail));
    metrics_set(m, M_TAIL_LAG_MS, 0, tail_lag_ms(app->tail, tail_position(app->tail)));
}

void status_options(struct app *app, struct admin_options *out)
{
    *out = (struct admin_options){.process = "feed-api",
                                  .metrics = app->metrics,
                                  .ready = app_ready,
                                  .status = app_status,
                                  .refresh = app_refresh,
                                  .arg = app};
}

/* ---- handlers ---- */

static void get_health(struct call *c)
{
    admin_reply_health(c->http);
    call_drop(c);
}

static void get_ready(struct call *c)
{
    admin_reply_ready(c->http, &c->app->admin);
    call_drop(c);
}

static void get_metrics(struct call *c)
{
    admin_reply_metrics(c->http, &c->app->admin);
    call_drop(c);
}

static void get_status(struct call *c)
{
    admin_reply_status(c->http, &c->app->admin);
    call_drop(c);
}

static void get_openapi(struct call *c)
{
    http_reply(c->http, 200, "application/yaml", openapi_yaml, openapi_yaml_len());
    call_drop(c);
}

const struct route routes_status[] = {
    {"GET", "/healthz", get_health, ACCESS_OPEN, NULL, NULL, 0, "getHealth"},
    {"GET", "/readyz", get_ready, ACCESS_OPEN, NULL, NULL, 0, "getReadiness"},
    {"GET", "/openapi.yaml", get_openapi, ACCESS_OPEN, NULL, NULL, 0, "getOpenapi"},
    {"GET", "/metrics", get_metrics, ACCESS_ADMIN, NULL, NULL, 0, "getMetrics"},
    {"GET", "/v1/status", get_status, ACCESS_ADMIN, NULL, NULL, 0, "getStatus"},
    {0},
};
