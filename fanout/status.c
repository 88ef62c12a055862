#include "fanout/status.h"

#include "common/clock.h"

static void add_degraded(struct buf *out, bool is, const char *name)
{
    if (is)
        buf_printf(out, "%s\"%s\"", out->len > 0 ? "," : "", name);
}

static bool ready(struct buf *degraded, void *arg)
{
    struct status *s = arg;
    struct engine_status st;
    struct room_view room;
    engine_status(s->engine, &st);
    room_look(s->room, &room);
    add_degraded(degraded, !st.redis_ok, "redis");
    add_degraded(degraded, !st.mongodb_ok, "mongodb");
    add_degraded(degraded, room.tight, "redis_memory");
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

/* null where it is not known. */
static void add_number(struct buf *out, const char *name, bool known, int64_t n)
{
    buf_printf(out, ",\"%s\":", name);
    if (known)
        buf_printf(out, "%lld", (long long)n);
    else
        buf_add_str(out, "null");
}

static void add_memory(const struct room_view *room, struct buf *out)
{
    buf_printf(out, ",\"redis_memory\":{\"tight\":%s", room->tight ? "true" : "false");
    add_number(out, "used_bytes", room->known, room->used);
    add_number(out, "max_bytes", room->known && room->max > 0, room->max);
    buf_add_str(out, ",\"policy\":");
    buf_add_json(out, room->known ? room->policy : NULL);
    add_number(out, "evicted_keys", room->by_redis >= 0, room->by_redis);
    add_number(out, "evicted_timelines", true, room->evicted);
    buf_add_char(out, '}');
}

void status_render(const struct engine_status *st, const struct room_view *room, const char *name,
                   bool draining, int64_t now_ms, struct buf *out)
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
    add_number(out, "lag_ms", lag >= 0, lag);
    add_number(out, "backlog", true, st->backlog);
    add_memory(room, out);
    add_shares(st, out);
}

void status_report(void *status, struct member_state *out)
{
    const struct status *s = status;
    struct engine_status st;
    struct room_view room;
    engine_status(s->engine, &st);
    room_look(s->room, &room);
    *out = (struct member_state){
        .ready = st.ready,
        .redis_ok = st.redis_ok,
        .mongodb_ok = st.mongodb_ok,
        .buckets = st.buckets,
        .progress = st.progress,
        .lag_ms = engine_lag_ms(&st, clock_wall_ms()),
        .backlog = st.backlog,
        .memory_used = room.known ? room.used : -1,
        .memory_max = room.max,
        .memory_tight = room.tight,
        .evicted = room.evicted,
    };
}

static void add_letters(const struct metrics *m, const struct engine_status *st, struct buf *out)
{
    buf_printf(out, ",\"dead_letters\":{\"open\":%lld,\"written\":%lld,\"lost\":%lld,\"tried_again\":%u}",
               (long long)metrics_get(m, M_LETTERS_OPEN, 0), (long long)metrics_get(m, M_LETTERS, 0),
               (long long)metrics_get(m, M_LETTERS_LOST, 0), st->troubles);
}

static void render(struct buf *out, void *arg)
{
    struct status *s = arg;
    struct engine_status st;
    struct room_view room;
    engine_status(s->engine, &st);
    room_look(s->room, &room);
    status_render(&st, &room, s->name, s->draining, clock_wall_ms(), out);
    add_letters(s->admin.metrics, &st, out);
}

static void refresh(void *arg)
{
    struct status *s = arg;
    engine_refresh_metrics(s->engine);
}

void status_init(struct status *s, struct engine *engine, struct room *room, const struct metrics *m,
                 const char *name)
{
    *s = (struct status){.engine = engine, .room = room, .name = name};
    s->admin = (struct admin_options){
        .process = "fanout",
        .metrics = m,
        .ready = ready,
        .status = render,
        .refresh = refresh,
        .arg = s,
    };
}
