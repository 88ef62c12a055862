/* config.h - the options of feed-api, one table row each (config.c). Filled once in main(), read-only
 * afterwards: any thread.
 */
#ifndef FEEDMILL_FEED_API_CONFIG_H
#define FEEDMILL_FEED_API_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include "common/config.h"
#include "common/err.h"

struct feed_config {
    /* where */
    char *listen;       /* "host:port" */
    char *admin_listen; /* "host:port", loopback, without credentials; "" = none */
    char *mongodb_uri;
    char *redis;
    char *ranker; /* "host:port"; "" = time order only */
    char *name;   /* of this instance; "" = made from host and pid */
    char *admin_key_file;
    char *jwt_keys; /* a file */
    bool demo;
    char *log_level;

    /* requests; all durations in ms */
    int64_t request_deadline;
    int64_t loops;        /* threads that serve; 0 until app_start(): one for each CPU */
    int64_t workers;      /* threads */
    int64_t worker_queue; /* jobs */
    int64_t worker_wait;  /* in a queue that stands; 0: up to the deadline */
    int64_t max_connections;
    int64_t max_connections_per_address; /* 0: no cap */
    int64_t head_timeout;
    int64_t idle_timeout;
    int64_t body_timeout;
    int64_t min_body_rate; /* bytes a second; 0: any */
    int64_t body_bytes;    /* of all requests together */
    int64_t drain_grace;   /* between not ready and not listening, after SIGTERM */
    int64_t drain;         /* for what is in flight, after SIGTERM */

    /* who may ask how often: requests a second, and in a burst (0: twice that) */
    int64_t rate_key; /* 0: no limit, as the others */
    int64_t rate_key_burst;
    int64_t rate_user;
    int64_t rate_user_burst;
    int64_t rate_address;
    int64_t rate_address_burst;
    char *trusted_proxy; /* networks by commas */
    char *cors_origin;   /* origins by commas, "*" or "" */

    /* what is logged of requests */
    char *access_log; /* a file, "-" or "" */
    int64_t access_log_every;
    int64_t slow_request; /* 0: none is slow */

    /* pages */
    int64_t timeline_entries;
    int64_t timeline_idle;
    int64_t position_wait;
    int64_t build_expiry;
    int64_t page_scan_max; /* ids looked at for one page */
    int64_t rank_deadline;
    int64_t rank_candidates; /* newest items of a reader that are ranked */

    /* streams */
    int64_t max_streams;
    int64_t streams_per_user;
    int64_t stream_keep;      /* what happened is remembered for so long, */
    int64_t stream_memory;    /* and in so many bytes */
    int64_t stream_heartbeat; /* between two of one stream */
    int64_t stream_unsent;    /* bytes that may wait for a client */

    /* push and pull */
    int64_t pull_threshold; /* followers from which on a target is pulled; 0: none */
    int64_t pull_targets;   /* pulled ones at most, in the whole system */
    int64_t pull_items;     /* kept in memory of each that is met */

    /* publishing is refused while a fanout is behind by more than this; 0: never */
    int64_t publish_lag_max;
    int64_t publish_backlog_max; /* changes */

    /* caps */
    int64_t content_cache_bytes;
    int64_t max_follows;
    int64_t max_mutes;
    int64_t count_interval; /* between recounts of changed targets */
    int64_t count_sweep;    /* between recounts of all targets */
};

/* feed_config_load() fills *cfg from flags, environment and file; see config_load(). */
int feed_config_load(struct feed_config *cfg, int argc, char **argv, enum config_result *result,
                     struct err *e) MUST_USE;
void feed_config_free(struct feed_config *cfg);

/* feed_config_defaults() fills *cfg with the defaults, as tests want it. */
void feed_config_defaults(struct feed_config *cfg);

#endif
