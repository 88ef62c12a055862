#include "fanout/status.h"

#include "common/clock.h"

static bool ready(struct buf *degraded, void *arg)
{
    struct status *s = arg;
    struct engine_status st;
    engine_status(s->engine, &st);
    if (!st.redis_ok)
        buf_add_str(degraded, "\"redis\"");
    if (!st.mongodb_ok)
        buf_add_str(degraded, st.redis_ok ? "\"mongodb\"" : ",\"mongodb\"");
    return st.ready && !s->draining;
}

static void add_ts(struct buf *out, ts_t t)
{
    char text[TS_TEXT_SIZE];
    ts_format(t, text);
    buf_printf(out, "\"%s\"", text);
}

static void add_shares(const struct engine_status *st, struct buf *out)
{
    const char *comma = "";
    buf_add_str(out, ",\"shares\":[");
    for (unsigned i = 0; i < SHARES; i++) {
        if (!st->share[i].owned)
            continue;
        buf_printf(out, "%s{\"share\":%u,\"epoch\":%lld,\"progress\":", comma, i,
                   (long long)st->share[i].epoch);
        add_ts(out, st->share[i].progress);
        buf_add_char(out, '}');
        comma = ",";
    }
    buf_add_char(out, ']');
}

void status_render(const struct engine_status *st, const char *name, bool draining, int64_t now_ms,
                   struct buf *out)
{
    int64_t lag = engine_lag_ms(st, now_ms);
    buf_add_str(out, ",\"name\":");
    buf_add_json(out, name);
    buf_printf(out, ",\"ready\":%s,\"draining\":%s", st->ready && !draining ? "true" : "false",
               draining ? "true" : "false");
    buf_printf(out, ",\"redis\":\"%s\",\"mongodb\":\"%s\"", st->redis_ok ? "ok" : "lost",
               st->mongodb_ok ? "ok" : "lost");
    buf_printf(out, ",\"members\":%u,\"fair_shares\":%u,\"buckets\":%u,\"progress\":", st->members, st->fair,
               st->buckets);
    add_ts(out, st->progress);
    if (lag < 0)
        buf_add_str(out, ",\"lag_ms\":null");
    else
        buf_printf(out, ",\"lag_ms\":%lld", (long long)lag);
    add_shares(st, out);
}

static void render(struct buf *out, void *arg)
{
    struct status *s = arg;
    struct engine_status st;
    engine_status(s->engine, &st);
    status_render(&st, s->name, s->draining, clock_wall_ms(), out);
}

static void refresh(void *arg)
{
    struct status *s = arg;
    engine_refresh_metrics(s->engine);
}

void status_init(struct status *s, struct engine *engine, const struct metrics *m, const char *name)
{
    *s = (struct status){.engine = engine, .name = name};
    s->admin = (struct admin_options){
        .process = "fanout",
        .metrics = m,
        .ready = ready,
        .status = render,
        .refresh = refresh,
        .arg = s,
    };
}
