#include "ranker/config.h"

#include <string.h>
#include "common/mem.h"

#define AT(field) offsetof(struct ranker_config, field)

static const struct config_row rows[] = {
    {"mongodb-uri", CONFIG_STRING, AT(mongodb_uri), "mongodb://127.0.0.1:27017/feedmill?replicaSet=feedmill",
     1, 2048, "MongoDB: publishers and topics of items"},
    {"redis", CONFIG_STRING, AT(redis), "127.0.0.1:6379", 1, 300, "Redis: host:port or unix:/path"},
    {"listen", CONFIG_STRING, AT(listen), "127.0.0.1:8082", 1, 300,
     "address for feed-api, health, metrics and status; port 0 takes a free one"},
    {"name", CONFIG_STRING, AT(name), "", 0, 120,
     "name of this process among all rankers; one that stays the same over restarts goes on with its own "
     "events at once"},
    {"workers", CONFIG_INT, AT(workers), "4", 1, 256, "threads that make sessions"},
    {"worker-queue", CONFIG_INT, AT(worker_queue), "256", 1, 100000, "sessions that may wait for a thread"},
    {"request-deadline", CONFIG_MS, AT(request_deadline), "1000", 1, 60000,
     "longest time for one session where the request names none"},
    {"drain", CONFIG_MS, AT(drain), "3000", 0, 60000, "how long requests may take to finish on SIGTERM"},
    {"session-ttl", CONFIG_MS, AT(session_ttl), "1h", 1000, 604800000,
     "how long a frozen session can be paged through"},
    {"item-cache", CONFIG_INT, AT(item_cache), "200000", 100, 100000000,
     "items whose publisher and topics are remembered"},
    {"weight-freshness", CONFIG_DOUBLE, AT(weight_freshness), "1", 0, 1000,
     "weight of freshness in the score"},
    {"weight-affinity", CONFIG_DOUBLE, AT(weight_affinity), "1", 0, 1000,
     "weight of the reader's affinity to publisher and topics"},
    {"weight-engagement", CONFIG_DOUBLE, AT(weight_engagement), "0.5", 0, 1000,
     "weight of what other readers did with the item"},
    {"freshness-half-life", CONFIG_MS, AT(freshness_half_life), "24h", 1000, 31536000000.0,
     "age at which freshness is one half"},
    {"affinity-half-life", CONFIG_MS, AT(affinity_half_life), "14d", 1000, 31536000000.0,
     "time in which an affinity halves"},
    {"engagement-half-life", CONFIG_MS, AT(engagement_half_life), "24h", 1000, 31536000000.0,
     "time in which the engagement of an item halves"},
    {"affinity-fields", CONFIG_INT, AT(affinity_fields), "400", 10, 100000,
     "publishers and topics remembered of one reader; the weakest go first"},
    {"event-batch", CONFIG_INT, AT(event_batch), "200", 1, 10000, "events taken from one stream at a time"},
    {"log-level", CONFIG_STRING, AT(log_level), "info", 1, 10, "debug, info, warn or error"},
};

int ranker_config_load(int argc, char **argv, struct ranker_config *out, enum config_result *result,
                       struct err *e)
{
    memset(out, 0, sizeof *out);
    return config_load("ranker", "learns from engagement and makes ranked sessions", rows, MEM_COUNT(rows),
                       argc, argv, out, result, e);
}

void ranker_config_free(struct ranker_config *c)
{
    config_free(rows, MEM_COUNT(rows), c);
}
