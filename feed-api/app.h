/* app.h - what lives as long as the feed-api process. Made by main.c in this order, torn down in reverse.
 */
#ifndef FEEDMILL_APP_H
#define FEEDMILL_APP_H

#include <event2/event.h>
#include <signal.h>
#include "common/http_client.h"
#include "common/http_server.h"
#include "common/metrics.h"
#include "common/mongo.h"
#include "common/redis.h"
#include "feed-api/auth.h"
#include "feed-api/config.h"
#include "feed-api/content.h"
#include "feed-api/metrics.h"
#include "feed-api/tail.h"
#include "feed-api/workers.h"

struct redis_async; /* feed-api/redis_async.h: the loop's own pipelined connection */
struct counts;      /* feed-api/counts.h: follower and item counts of targets */

struct app {
    struct feed_config cfg;
    char instance[128];
    struct event_base *base;
    struct metrics *metrics;
    struct mongo *mongo;
    struct redis_address redis_address;
    struct redis_async *redis; /* loop's thread only */
    struct auth *auth;
    struct content *content;
    struct tail *tail;
    struct counts *counts;
    struct workers *workers;
    struct http_client *ranker; /* loop's thread only; NULL when none is configured */
    struct http_server *http;
    unsigned char cursor_key[32];
    bool up; /* the schema, the secrets and the admin key are there: requests are answered */
    bool served_redis, served_mongo; /* readiness: each has answered once */
    bool draining;
};

#endif
