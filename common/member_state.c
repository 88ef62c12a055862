#include "common/member_state.h"

#include "common/mongo.h"

void member_state_append(const struct member_state *s, const char *name, bson_t *d)
{
    bson_t o;
    BSON_APPEND_DOCUMENT_BEGIN(d, name, &o);
    BSON_APPEND_BOOL(&o, "ready", s->ready);
    BSON_APPEND_BOOL(&o, "redis_ok", s->redis_ok);
    BSON_APPEND_BOOL(&o, "mongodb_ok", s->mongodb_ok);
    BSON_APPEND_INT64(&o, "buckets", s->buckets);
    BSON_APPEND_TIMESTAMP(&o, "progress", ts_seconds(s->progress), ts_increment(s->progress));
    BSON_APPEND_INT64(&o, "lag_ms", s->lag_ms);
    BSON_APPEND_INT64(&o, "backlog", s->backlog);
    BSON_APPEND_INT64(&o, "memory_used", s->memory_used);
    BSON_APPEND_INT64(&o, "memory_max", s->memory_max);
    BSON_APPEND_BOOL(&o, "memory_tight", s->memory_tight);
    BSON_APPEND_INT64(&o, "evicted", s->evicted);
    bson_append_document_end(d, &o);
}

static bool is_true(const bson_t *d, const char *key)
{
    bson_iter_t it;
    return bson_iter_init_find(&it, d, key) && BSON_ITER_HOLDS_BOOL(&it) && bson_iter_bool(&it);
}

static int64_t number(const bson_t *d, const char *key, int64_t otherwise)
{
    int64_t v;
    return mongo_get_i64(d, key, &v) ? v : otherwise;
}

bool member_state_read(const bson_t *d, const char *name, struct member_state *out)
{
    bson_iter_t it;
    const uint8_t *data;
    uint32_t n;
    bson_t o;
    if (!bson_iter_init_find(&it, d, name) || !BSON_ITER_HOLDS_DOCUMENT(&it))
        return false;
    bson_iter_document(&it, &n, &data);
    if (!bson_init_static(&o, data, n))
        return false;
    *out = (struct member_state){
        .ready = is_true(&o, "ready"),
        .redis_ok = is_true(&o, "redis_ok"),
        .mongodb_ok = is_true(&o, "mongodb_ok"),
        .buckets = (unsigned)number(&o, "buckets", 0),
        .lag_ms = number(&o, "lag_ms", -1),
        .backlog = number(&o, "backlog", 0),
        .memory_used = number(&o, "memory_used", -1),
        .memory_max = number(&o, "memory_max", 0),
        .memory_tight = is_true(&o, "memory_tight"),
        .evicted = number(&o, "evicted", 0),
    };
    if (!mongo_get_ts(&o, "progress", &out->progress))
        out->progress = 0;
    return true;
}
