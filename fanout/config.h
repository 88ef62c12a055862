/* config.h - fanout's options, each a row in config.c. Filled once at start by main(), read-only afterwards.
 */
#ifndef FEEDMILL_FANOUT_CONFIG_H
#define FEEDMILL_FANOUT_CONFIG_H

#include "common/config.h"

struct fanout_config {
    char *mongodb_uri;
    char *redis;
    char *listen;
    char *name; /* "": made of host and process id */
    char *log_level;
    int64_t timeline_entries;
    int64_t lease_ms;
    int64_t batch_keys;
    int64_t audience_batch;
    int64_t pipeline_calls;
    int64_t audience_cache;
    int64_t backlog;
    int64_t redis_timeout_ms;
    int64_t drain_ms;
    int64_t audit_interval_ms;
    bool audit_repair;
};

/* fanout_config_load() as config_load(); fanout_config_free() releases what it filled. */
int fanout_config_load(int argc, char **argv, struct fanout_config *out, enum config_result *result,
                       struct err *e) MUST_USE;
void fanout_config_free(struct fanout_config *c);

#endif
