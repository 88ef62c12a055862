/* handlers_explain.c - GET /v1/users/{u}/feed/explain/{id}. A worker reads follows, mutes and the item as
 * they are now, the timeline as it is in Redis, and explain.c says what follows from that. */
#include "common/log.h"
#include "common/mem.h"
#include "feed-api/app.h"
#include "feed-api/explain.h"
#include "feed-api/rebuild.h"
#include "feed-api/router.h"

/* One MULTI/EXEC, so that the parts belong together. Answers false when it can't be read. */
static bool read_timeline(struct worker *w, const char *user, item_id id, struct timeline *out)
{
    struct timeline_read r;
    const char *multi = "MULTI", *exec = "EXEC";
    struct err e;
    redisReply *reply = NULL;
    timeline_read_init(&r, user, id + 1, 1);
    bool sent = redis_append(w->redis, 1, &multi, NULL, &e) == 0;
    for (size_t i = 0; i < TIMELINE_COMMANDS && sent; i++)
        sent = redis_append(w->redis, r.commands[i].argc, (const char **)r.commands[i].argv, NULL, &e) == 0;
    sent = sent && redis_append(w->redis, 1, &exec, NULL, &e) == 0;
    while (redis_pending(w->redis) > 0) {
        freeReplyObject(reply);
        reply = NULL;
        if (redis_read(w->redis, &reply, &e) != 0)
            reply = NULL;
    }
    bool read = sent && reply && reply->type == REDIS_REPLY_ARRAY && timeline_parse(reply, &r, out, &e) == 0;
    freeReplyObject(reply);
    if (!read)
        metrics_add(w->app->metrics, M_REDIS_ERRORS, MT_WORKER, 1);
    return read;
}

static void answer(struct worker *w, struct call *c, const struct explain *x, ts_t now)
{
    const struct tail *tail = w->app->tail;
    const char *user = c->params[0];
    struct timeline timeline = {0};
    struct timeline_question q = {.user_changed = tail_user_changed(tail, user),
                                  .user_memory = tail_user_memory(tail)};
    const struct timeline *t = read_timeline(w, user, x->id, &timeline) ? &timeline : NULL;
    struct explain_timeline told = {.state = explain_state_of(t, &q), .known = t && t->exists};
    enum explain_delivery how = explain_delivery_of(x, t, told.state, &told.holds);
    if (told.known) {
        told.floor = t->floor;
        told.r = t->r;
    }
    /* What is not made of the timeline is read from MongoDB, as of now. */
    ts_t as_of = told.state == EXPLAIN_READY ? timeline_time(t) : now;
    explain_write(x, how, &told, tail_lag_ms(tail, as_of), &c->out);
    c->status = 200;
    timeline_done(&timeline);
}

static int read_truth(struct worker *w, struct call *c, item_id id, struct truth **truth,
                      struct content_entry **item, ts_t *now)
{
    struct err e;
    *truth = NULL;
    if (mongo_conn_fresh(w->mongo, now, &e) == 0 &&
        truth_read(w->mongo, c->params[0], *now, 0, truth, &e) == 0 &&
        content_fetch(w->app->content, w->mongo, &id, 1, true, item, &e) == 0)
        return 0;
    truth_unref(*truth);
    return call_fail_err(c, &e);
}

static void explain_work(struct worker *w, struct call *c)
{
    struct truth *truth;
    struct content_entry *item;
    struct explain x;
    item_id id;
    ts_t now;
    if (ids_parse(c->params[1], &id, NULL) != 0) {
        call_fail(c, PROBLEM_NOT_FOUND, "there is no such item");
        return;
    }
    if (read_truth(w, c, id, &truth, &item, &now) != 0)
        return;
    if (item->missing) {
        call_fail(c, PROBLEM_NOT_FOUND, "there is no such item");
    } else {
        explain_decide(&truth->follows, truth->mutes, item, &x);
        answer(w, c, &x, now);
        explain_done(&x);
    }
    content_unref(item);
    truth_unref(truth);
}

static void handle_explain(struct call *c)
{
    call_work(c, explain_work);
}

const struct route routes_explain[] = {
    {"GET", "/v1/users/{u}/feed/explain/{id}", handle_explain, ACCESS_SERVICE | ACCESS_OWN, NULL, NULL, 0,
     "explainItem"},
    {0},
};
