/* node.h - a fanout inside the test's process, and waiting for it. Include after rig.h. */
#ifndef FEEDMILL_TESTS_FANOUT_NODE_H
#define FEEDMILL_TESTS_FANOUT_NODE_H

#include "common/changes.h"
#include "fanout/engine.h"
#include "tests/fanout/rig.h"

#define NODE_DEADLINE_MS 30000

#define UNTIL(rig, check, arg)                                                                               \
    do {                                                                                                     \
        if (!fixture_until((check), (arg), NODE_DEADLINE_MS))                                                \
            fixture_fail((rig)->f, "%s did not come true", #check);                                          \
    } while (0)

/* One fanout inside this process. */
struct node {
    const char *name;
    struct metrics *metrics;
    struct mongo *mongo;
    struct shares *shares;
    struct engine *engine;
    struct heartbeat *heartbeat;
    struct fixture *f;
};

RIG void node_start(struct node *n, struct rig *r, const char *name, int64_t lease_ms, int64_t entries)
{
    struct err e = {0};
    n->name = name;
    n->f = r->f;
    n->metrics = fanout_metrics_new();
    struct mongo_options mo = {.uri = fixture_mongodb_uri(n->f), .app_name = name, .pool_size = 8};
    RIG_OK(e, mongo_new(&n->mongo, &mo, &e));
    struct shares_options so = {.mongo = n->mongo, .name = name, .lease_ms = lease_ms, .metrics = n->metrics};
    n->shares = shares_new(&so);
    struct engine_options eo = {
        .mongo = n->mongo,
        .redis_timeout_ms = 2000,
        .shares = n->shares,
        .name = name,
        .metrics = n->metrics,
        .timeline_entries = entries,
        .batch_keys = 7,
        .audience_batch = 11,
        .pipeline_calls = 3,
        .drain_ms = 3000,
    };
    RIG_OK(e, redis_address_parse(fixture_redis_address(n->f), &eo.redis, &e));
    n->engine = engine_new(&eo);
    RIG_OK(e, heartbeat_start(&n->heartbeat, n->mongo, name, &e));
    RIG_OK(e, shares_start(n->shares, &e));
    RIG_OK(e, engine_start(n->engine, &e));
}

/* Ends in order: drains, releases the shares. */
RIG void node_stop(struct node *n)
{
    if (!n->engine)
        return;
    engine_stop(n->engine);
    engine_join(n->engine);
    engine_free(n->engine);
    shares_free(n->shares);
    heartbeat_stop(n->heartbeat);
    mongo_free(n->mongo);
    metrics_free(n->metrics);
    memset(n, 0, sizeof *n);
}

RIG struct engine_status node_look(struct node *n)
{
    struct engine_status s;
    engine_status(n->engine, &s);
    return s;
}

RIG bool node_is_ready(void *arg)
{
    return node_look(arg).ready;
}

struct node_wait {
    struct rig *r;
    ts_t t;
};

RIG bool node_all_progressed(void *arg)
{
    struct node_wait *w = arg;
    for (unsigned b = 0; b < BUCKETS; b++) { /* one with newborns is behind the others */
        if (rig_record_ts(w->r, b, "progress") < w->t)
            return false;
    }
    return true;
}

/* Waits until every bucket's record says that everything up to t is applied. */
RIG void node_progress_reaches(struct rig *r, ts_t t)
{
    struct node_wait w = {r, t};
    UNTIL(r, node_all_progressed, &w);
}

#endif
