#include <stdlib.h>
#include "common/log.h"
#include "fanout/engine_private.h"

/* A timeline above Redis' listpack limit takes five times the memory, for ever. */
static int check_redis_limit(struct engine *g, struct err *e)
{
    redisReply *r;
    if (redis_commandf(g->redis, &r, e, "CONFIG", "GET", "zset-max-listpack-entries", NULL) != 0)
        return e->code == ERR_INTERNAL ? 0 : -1; /* CONFIG may be forbidden */
    if (r->type == REDIS_REPLY_ARRAY && r->elements == 2 && r->element[1]->type == REDIS_REPLY_STRING) {
        long long limit = atoll(r->element[1]->str);
        int64_t high = deliver_timeline_high(g->o.timeline_entries);
        if (limit < high)
            log_event(LOG_WARN, "timelines_not_compact", LOG_I("zset_max_listpack_entries", limit),
                      LOG_I("members_up_to", high));
    }
    freeReplyObject(r);
    return 0;
}

/* The cap of timelines belongs to feed-api and fanout alike. It stands in `settings`; another value than
 * before is taken, and said: timelines come to it as they are trimmed and rebuilt, and are complete above
 * their floors meanwhile. */
static int note_timeline_entries(struct engine *g, struct err *e)
{
    bson_t *filter = BCON_NEW("_id", BCON_UTF8("timeline_entries"));
    /* The least one ever is what a floor can be judged by (common/audit.h). */
    bson_t *update = BCON_NEW("$set", "{", "value", BCON_INT64(g->o.timeline_entries), "}", "$min", "{",
                              "least", BCON_INT64(g->o.timeline_entries), "}");
    mongoc_find_and_modify_opts_t *o = mongoc_find_and_modify_opts_new();
    bson_t extra = BSON_INITIALIZER, reply;
    bson_error_t be;
    bson_iter_t it, value;
    int rc = 0;
    mongo_write_opts(g->conn, &extra);
    mongoc_find_and_modify_opts_append(o, &extra);
    mongoc_find_and_modify_opts_set_update(o, update);
    mongoc_find_and_modify_opts_set_flags(o, MONGOC_FIND_AND_MODIFY_UPSERT);
    if (!mongoc_collection_find_and_modify_with_opts(mongo_coll(g->conn, COLL_SETTINGS), filter, o, &reply,
                                                     &be))
        rc = mongo_err(e, &be, &reply, "settings");
    else if (bson_iter_init(&it, &reply) && bson_iter_find_descendant(&it, "value.value", &value) &&
             bson_iter_as_int64(&value) != g->o.timeline_entries)
        log_event(LOG_WARN, "timeline_entries_changed", LOG_I("before", bson_iter_as_int64(&value)),
                  LOG_I("now", g->o.timeline_entries),
                  LOG_S("note", "feed-api needs the same --timeline-entries"));
    bson_destroy(&reply);
    bson_destroy(&extra);
    bson_destroy(filter);
    bson_destroy(update);
    mongoc_find_and_modify_opts_destroy(o);
    return rc;
}

int engine_prepare(struct engine *g, struct err *e)
{
    if (!g->conn && mongo_conn_get(g->o.mongo, &g->conn, e) != 0)
        return -1;
    g->apply.conn = g->conn;
    if (g->prepared)
        return 0;
    mongo_conn_deadline(g->conn, 30000);
    if (mongo_schema_ensure(g->conn, e) != 0 || note_timeline_entries(g, e) != 0)
        return -1;
    if (check_redis_limit(g, e) != 0) {
        deliver_break(g->deliver);
        return -1;
    }
    g->prepared = true;
    return 0;
}
