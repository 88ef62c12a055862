/* app.h - what lives as long as the feed-api process: made by app_start() in the order of the fields, torn
 * down in reverse.
 */
#ifndef FEEDMILL_APP_H
#define FEEDMILL_APP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "common/admin.h"
#include "common/http_client.h"
#include "common/http_server.h"
#include "common/metrics.h"
#include "common/mongo.h"
#include "common/redis.h"
#include "feed-api/auth.h"
#include "feed-api/config.h"
#include "feed-api/content.h"
#include "feed-api/health.h"
#include "feed-api/loop.h"
#include "feed-api/metrics.h"
#include "feed-api/pressure.h"
#include "feed-api/tail.h"
#include "feed-api/workers.h"

struct proc_signals;
struct gate;       /* feed-api/gate.h: limits, origins, logs of requests */
struct feed_state; /* feed-api/feed.h: what the feed's handlers keep */
struct counts;     /* feed-api/counts.h: follower and item counts of targets */
struct streams;    /* feed-api/streams.h: live streams of feeds */
struct item_ids;   /* feed-api/item_ids.h: ids for new items */

struct app {
    struct feed_config cfg;
    const char *instance; /* of this run of the process; nobody else has it */
    const char *name;     /* --name, else instance */
    int64_t started_ms;   /* clock_mono_ms() */
    struct loop *loops;   /* cfg.loops of them; the first one is the main thread's */
    struct proc_signals *signals;
    struct metrics *metrics;
    struct mongo *mongo;
    struct redis_address redis_address;
    struct auth *auth;
    struct gate *gate; /* what requests meet first */
    struct content *content;
    struct pulled *pulled;
    struct feed_state *feed;
    struct streams *streams;
    struct tail *tail;
    struct counts *counts;
    struct item_ids *item_ids;
    struct pressure *pressure; /* whether fanout keeps up */
    struct health *health;
    struct admin_options admin;     /* readiness, status, metrics */
    struct http_budget budget;      /* of all loops' servers */
    struct http_server *admin_http; /* NULL when not configured */
    unsigned char cursor_key[32];   /* valid when up */

    atomic_bool up;       /* the schema, the secrets and the admin key are there: requests are answered */
    atomic_bool draining; /* told to stop */

    /* the first loop's thread only */
    bool failed;         /* it can't get up: the loop ended because of that */
    int64_t stopping_ms; /* clock_mono_ms() at which it stopped listening */
};

/* app_start() takes cfg over and starts everything; on failure nothing is left running. ERR_INVALID for
 * options that can't be. */
int app_start(struct app *app, struct err *e) MUST_USE;

/* app_run() serves until a signal has drained the process; answers its exit status. */
int app_run(struct app *app);
void app_stop(struct app *app);

#endif
