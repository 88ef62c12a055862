/* The options of feed-api. A new option is a field in config.h and a row here, nothing else. */
#include "feed-api/config.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

#include "common/mem.h"
#include "feed-api/loop.h"

#define AT(field) offsetof(struct feed_config, field)
#define MS_MIN    60000.0
#define MS_DAY    86400000.0
#define MIB       1048576.0

static const struct config_row rows[] = {
    {"listen", CONFIG_STRING, AT(listen), "127.0.0.1:8080", 3, 255, "address and port to serve on"},
    {"admin-listen", CONFIG_STRING, AT(admin_listen), "", 0, 255,
     "loopback address and port for health, metrics and status without a key"},
    {"mongodb-uri", CONFIG_STRING, AT(mongodb_uri), "mongodb://127.0.0.1:27017/feedmill?replicaSet=feedmill",
     1, 4096, "the MongoDB replica set; its database, if named, is used"},
    {"redis", CONFIG_STRING, AT(redis), "127.0.0.1:6379", 1, 255, "Redis, as host:port or unix:/path"},
    {"ranker", CONFIG_STRING, AT(ranker), "", 0, 255,
     "the ranker, as host:port; without one, time order only"},
    {"name", CONFIG_STRING, AT(name), "", 0, 100, "name of this instance; by default host and process id"},
    {"admin-key-file", CONFIG_STRING, AT(admin_key_file), "admin.key", 1, 4000,
     "file of the admin key, made at the first start"},
    {"jwt-keys", CONFIG_STRING, AT(jwt_keys), "jwt.keys", 1, 4000,
     "file of the keys that sign user tokens, made at the first start"},
    {"demo", CONFIG_BOOL, AT(demo), "no", 0, 0, "let loopback clients sign in as any demo user"},
    {"log-level", CONFIG_STRING, AT(log_level), "info", 1, 8,
     "lowest level logged: debug, info, warn or error"},

    {"request-deadline", CONFIG_MS, AT(request_deadline), "2000", 50, MS_MIN,
     "time by which a request is answered"},
    {"loops", CONFIG_INT, AT(loops), "0", 0, LOOPS_MAX,
     "threads that serve connections; 0: one for each CPU"},
    {"workers", CONFIG_INT, AT(workers), "16", 1, 256, "threads that talk to MongoDB"},
    {"worker-queue", CONFIG_INT, AT(worker_queue), "1024", 1, 100000, "requests that may wait for a worker"},
    {"worker-wait", CONFIG_MS, AT(worker_wait), "50ms", 0, MS_MIN,
     "wait for a worker beyond which requests are refused while the queue never gets empty; 0: none but the "
     "deadline"},
    {"max-connections", CONFIG_INT, AT(max_connections), "10000", 1, 1000000, "client connections"},
    {"max-connections-per-address", CONFIG_INT, AT(max_connections_per_address), "1000", 0, 1000000,
     "connections of one client address (IPv6: of a /64), trusted proxies excepted; 0: no cap"},
    {"head-timeout", CONFIG_MS, AT(head_timeout), "10s", 100, MS_MIN, "time for a request's head to arrive"},
    {"idle-timeout", CONFIG_MS, AT(idle_timeout), "60s", 100, MS_DAY,
     "a connection without a request is closed after"},
    {"body-timeout", CONFIG_MS, AT(body_timeout), "60s", 100, MS_DAY, "time for a request's body to arrive"},
    {"min-body-rate", CONFIG_BYTES, AT(min_body_rate), "500", 0, 65536 * MIB,
     "bytes a second that a body has to arrive with, after 5 s; 0: any"},
    {"body-bytes", CONFIG_BYTES, AT(body_bytes), "256m", MIB, 65536 * MIB,
     "memory for the bodies of all requests together"},
    {"drain-grace", CONFIG_MS, AT(drain_grace), "0", 0, MS_MIN,
     "time between telling not to be ready and taking no more connections"},
    {"drain", CONFIG_MS, AT(drain), "2500ms", 0, MS_MIN, "time for requests in flight when told to stop"},

    {"rate-key", CONFIG_INT, AT(rate_key), "0", 0, 1000000,
     "requests a second of one API key, beyond it 429; 0: no limit"},
    {"rate-key-burst", CONFIG_INT, AT(rate_key_burst), "0", 0, 1000000,
     "requests of a key at once after a pause; 0: twice the rate"},
    {"rate-user", CONFIG_INT, AT(rate_user), "50", 0, 1000000,
     "requests a second with the tokens of one user, beyond it 429; 0: no limit"},
    {"rate-user-burst", CONFIG_INT, AT(rate_user_burst), "0", 0, 1000000,
     "requests of a user at once after a pause; 0: twice the rate"},
    {"rate-address", CONFIG_INT, AT(rate_address), "0", 0, 1000000,
     "requests a second of one client address, with and without a credential, beyond it 429; 0: no limit"},
    {"rate-address-burst", CONFIG_INT, AT(rate_address_burst), "0", 0, 1000000,
     "requests of an address at once after a pause; 0: twice the rate"},
    {"trusted-proxy", CONFIG_STRING, AT(trusted_proxy), "127.0.0.0/8,::1", 0, 4096,
     "networks by commas whose X-Forwarded-For is believed"},
    {"cors-origin", CONFIG_STRING, AT(cors_origin), "", 0, 4096,
     "origins by commas whose web pages may use the API, such as https://app.example.com; *: all"},
    {"access-log", CONFIG_STRING, AT(access_log), "", 0, 4000,
     "file for a line of JSON a request; -: stdout"},
    {"access-log-every", CONFIG_INT, AT(access_log_every), "1", 1, 1000000,
     "one of so many requests is in the access log, and all answers of 500 and above"},
    {"slow-request", CONFIG_MS, AT(slow_request), "1s", 0, MS_DAY,
     "requests that take longer are logged with where the time went; 0: none"},

    {"timeline-entries", CONFIG_INT, AT(timeline_entries), "120", 4, 10000,
     "items kept of a timeline; as fanout's"},
    {"timeline-idle", CONFIG_MS, AT(timeline_idle), "7d", 2000, 365 * MS_DAY,
     "a timeline not read for so long disappears"},
    {"position-wait", CONFIG_MS, AT(position_wait), "25ms", 0, 10000,
     "wait for fanout to reach an asked position before the page is rebuilt"},
    {"build-expiry", CONFIG_MS, AT(build_expiry), "5s", 100, MS_MIN,
     "a timeline in the making is given up after"},
    {"page-scan-max", CONFIG_INT, AT(page_scan_max), "1000", 100, 100000, "ids looked at for one page"},
    {"rank-deadline", CONFIG_MS, AT(rank_deadline), "30ms", 1, 10000, "time for the ranker, then time order"},
    {"rank-candidates", CONFIG_INT, AT(rank_candidates), "200", 120, 1000,
     "newest items of a reader that are ranked"},

    {"max-streams", CONFIG_INT, AT(max_streams), "50000", 0, 1000000, "live streams at a time"},
    {"streams-per-user", CONFIG_INT, AT(streams_per_user), "20", 1, 10000,
     "live streams of one reader; beyond it the oldest ends"},
    {"stream-keep", CONFIG_MS, AT(stream_keep), "1h", 1000, MS_DAY,
     "a stream that was broken off for no longer goes on without a gap"},
    {"stream-memory", CONFIG_BYTES, AT(stream_memory), "64m", 4096, 65536 * MIB,
     "memory for what happened in that time"},
    {"stream-heartbeat", CONFIG_MS, AT(stream_heartbeat), "15s", 100, MS_MIN,
     "between signs of life on a stream"},
    {"stream-unsent", CONFIG_BYTES, AT(stream_unsent), "256k", 16384, 1024 * MIB,
     "a stream is cut when its client leaves more than this unread"},

    {"pull-threshold", CONFIG_INT, AT(pull_threshold), "100000", 0, 1e12,
     "followers from which on a publisher's or topic's items are added when a page is read, not when they "
     "are "
     "published; 0: never"},
    {"pull-targets", CONFIG_INT, AT(pull_targets), "1000", 1, 5000,
     "publishers and topics of that kind at most"},
    {"pull-items", CONFIG_INT, AT(pull_items), "500", 10, 10000,
     "newest items kept in memory of each of them"},

    {"publish-lag-max", CONFIG_MS, AT(publish_lag_max), "60s", 0, MS_DAY,
     "how far fanout may be behind before publishing is answered 503; 0: never"},
    {"publish-backlog-max", CONFIG_INT, AT(publish_backlog_max), "15000", 0, 1000000,
     "changes that a fanout may hold undelivered before publishing is answered 503 (see its --backlog); 0: "
     "never"},

    {"content-cache-bytes", CONFIG_BYTES, AT(content_cache_bytes), "64m", MIB, 65536 * MIB,
     "memory for item bodies"},
    {"max-follows", CONFIG_INT, AT(max_follows), "10000", 1, 1000000, "follows of one user"},
    {"max-mutes", CONFIG_INT, AT(max_mutes), "1000", 1, 100000, "mutes of one user"},
    {"count-interval", CONFIG_MS, AT(count_interval), "5s", 100, MS_DAY,
     "time between recounts of changed targets"},
    {"count-sweep", CONFIG_MS, AT(count_sweep), "10m", 1000, MS_DAY, "time between recounts of all targets"},
};

int feed_config_load(struct feed_config *cfg, int argc, char **argv, enum config_result *result,
                     struct err *e)
{
    return config_load("feed-api", "serves feeds over HTTP", rows, MEM_COUNT(rows), argc, argv, cfg, result,
                       e);
}

void feed_config_free(struct feed_config *cfg)
{
    config_free(rows, MEM_COUNT(rows), cfg);
}

void feed_config_defaults(struct feed_config *cfg)
{
    char *argv[] = {"feed-api", NULL};
    enum config_result result;
    struct err e;
    memset(cfg, 0, sizeof *cfg);
    int rc = feed_config_load(cfg, 1, argv, &result, &e);
    assert(rc == 0);
    (void)rc;
}
