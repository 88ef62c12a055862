/* config.h - the options of ranker, one table row each (config.c). Filled once in main(), read-only
 * afterwards. */
#ifndef FEEDMILL_RANKER_CONFIG_H
#define FEEDMILL_RANKER_CONFIG_H

#include <stdint.h>
#include "common/config.h"

struct ranker_config {
    char *listen, *mongodb_uri, *redis, *name, *log_level;
    int64_t workers, worker_queue;
    int64_t request_deadline; /* ms */
    int64_t drain;            /* ms */
    int64_t session_ttl;      /* ms */
    int64_t item_cache;       /* items whose publisher and topics are remembered */
    double weight_freshness, weight_affinity, weight_engagement;
    int64_t freshness_half_life, affinity_half_life, engagement_half_life; /* ms */
    int64_t affinity_fields; /* publishers and topics remembered of a reader */
    int64_t event_batch;
};

int ranker_config_load(int argc, char **argv, struct ranker_config *out, enum config_result *result,
                       struct err *e) MUST_USE;
void ranker_config_free(struct ranker_config *c);

#endif
