#include "fanout/config.h"

#include <string.h>
#include "common/mem.h"

#define AT(field) offsetof(struct fanout_config, field)

static const struct config_row rows[] = {
    {"mongodb-uri", CONFIG_STRING, AT(mongodb_uri), "mongodb://127.0.0.1:27017/feedmill?replicaSet=feedmill",
     1, 2048, "MongoDB: content, graph and the log"},
    {"redis", CONFIG_STRING, AT(redis), "127.0.0.1:6379", 1, 300, "Redis: host:port or unix:/path"},
    {"listen", CONFIG_STRING, AT(listen), "127.0.0.1:0", 1, 300,
     "address of health, metrics and status; port 0 takes a free one"},
    {"name", CONFIG_STRING, AT(name), "", 0, 120,
     "name of this process among all fanouts; one that stays the same over restarts gets its shares back at "
     "once"},
    {"timeline-entries", CONFIG_INT, AT(timeline_entries), "120", 4, 10000,
     "items a timeline keeps in Redis; the same for feed-api"},
    {"lease-ms", CONFIG_MS, AT(lease_ms), "5000", 200, 600000, "how long a silent fanout keeps its shares"},
    {"batch-keys", CONFIG_INT, AT(batch_keys), "500", 1, 5000, "timelines in one script call"},
    {"audience-batch", CONFIG_INT, AT(audience_batch), "2000", 1, 100000,
     "followers read from MongoDB at a time"},
    {"pipeline-calls", CONFIG_INT, AT(pipeline_calls), "64", 1, 1000,
     "script calls sent and not yet answered, at most"},
    {"audience-cache", CONFIG_BYTES, AT(audience_cache), "256m", 65536, 1e12,
     "memory for the lists of active followers of targets published to lately"},
    {"backlog", CONFIG_INT, AT(backlog), "20000", 1, 1000000,
     "changes that may wait for their turn; beyond it the log is not read on"},
    {"redis-timeout", CONFIG_MS, AT(redis_timeout_ms), "2000", 10, 60000,
     "how long Redis may take to connect or answer"},
    {"drain", CONFIG_MS, AT(drain_ms), "3000", 0, 60000,
     "how long what was read from the log may take to be delivered on SIGTERM"},
    {"audit-interval", CONFIG_MS, AT(audit_interval_ms), "1000", 0, 86400000,
     "how often a timeline, by chance, is compared with MongoDB; 0: never"},
    {"audit-repair", CONFIG_BOOL, AT(audit_repair), "no", 0, 0,
     "drop a timeline that the audit finds wrong, so that the next read rebuilds it; else it is only logged "
     "and "
     "counted, for what heals silently is never mended"},
    {"log-level", CONFIG_STRING, AT(log_level), "info", 1, 10, "debug, info, warn or error"},
};

int fanout_config_load(int argc, char **argv, struct fanout_config *out, enum config_result *result,
                       struct err *e)
{
    memset(out, 0, sizeof *out);
    return config_load("fanout", "applies the log to the timelines of its share of the readers", rows,
                       MEM_COUNT(rows), argc, argv, out, result, e);
}

void fanout_config_free(struct fanout_config *c)
{
    config_free(rows, MEM_COUNT(rows), c);
}
