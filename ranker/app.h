/* app.h - what lives as long as the ranker process. Made by main.c, torn down in reverse. */
#ifndef FEEDMILL_RANKER_APP_H
#define FEEDMILL_RANKER_APP_H

#include <event2/event.h>
#include "common/admin.h"
#include "common/http_server.h"
#include "common/metrics.h"
#include "common/mongo.h"
#include "common/proc.h"
#include "common/redis.h"
#include "common/workers.h"
#include "ranker/config.h"
#include "ranker/item_info.h"
#include "ranker/learn.h"
#include "ranker/session.h"

struct app {
    struct ranker_config cfg;
    const char *name;
    struct event_base *base;
    struct proc_signals *signals;
    struct metrics *metrics;
    struct mongo *mongo;
    struct redis_address redis;
    struct item_infos *infos;
    struct learner *learner;
    struct workers *workers;
    struct session_limits limits;
    struct admin_options admin;
    struct http_server *http;
    bool draining;
};

#endif
