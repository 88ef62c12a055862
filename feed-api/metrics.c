/* The metrics of feed-api. The values of a label stand in the order of their enum in metrics.h. */
#include "feed-api/metrics.h"

#define COUNTER   METRIC_COUNTER
#define GAUGE     METRIC_GAUGE
#define HISTOGRAM METRIC_HISTOGRAM
#define ROUTES    "route", "feed,items,bulk,targets,graph,events,keys,status,none"
#define CACHE     "result", "hit,miss"

static const struct metric_row rows[] = {
    [M_REQUESTS] = {"feedmill_http_requests_total", COUNTER, "Requests answered.", ROUTES},
    [M_RESPONSES] = {"feedmill_http_responses_total", COUNTER, "Answers by class of status.", "class",
                     "1xx,2xx,3xx,4xx,5xx"},
    [M_FAILURES] = {"feedmill_http_failures_total", COUNTER, "Answers with a 5xx status.", ROUTES},
    [M_REQUEST_SECONDS] = {"feedmill_http_request_seconds", HISTOGRAM,
                           "From the complete head to the answer.", ROUTES},
    [M_RESPONSE_BYTES] = {"feedmill_http_response_bytes_total", COUNTER, "Bytes of bodies answered.", NULL,
                          NULL},
    [M_CONNECTIONS] = {"feedmill_http_connections", GAUGE, "Open client connections.", NULL, NULL},
    [M_IN_FLIGHT] = {"feedmill_http_in_flight", GAUGE, "Requests not answered yet.", NULL, NULL},
    [M_AUTH] = {"feedmill_auth_total", COUNTER, "Requests by what became of their credential.", "result",
                "ok,none,bad,forbidden"},
    [M_AUTH_KEY_CACHE] = {"feedmill_auth_key_cache_total", COUNTER, "Look-ups of API keys in memory.", CACHE},
    [M_RATE_LIMITED] = {"feedmill_rate_limited_total", COUNTER, "Requests answered 429, by whose limit.",
                        "limit", "key,user,address"},
    [M_SLOW_REQUESTS] = {"feedmill_slow_requests_total", COUNTER,
                         "Requests that took longer than --slow-request.", NULL, NULL},
    [M_ACCESS_LOG_DROPPED] = {"feedmill_access_log_dropped_total", COUNTER,
                              "Lines or blocks of the access log that could not be written.", NULL, NULL},

    [M_WORKERS_QUEUED] = {"feedmill_workers_queued", GAUGE, "Jobs that wait for a worker.", NULL, NULL},
    [M_WORKERS_BUSY] = {"feedmill_workers_busy", GAUGE, "Workers with a job.", NULL, NULL},
    [M_WORKERS_WAIT_SECONDS] = {"feedmill_workers_wait_seconds", HISTOGRAM, "Time a job waited for a worker.",
                                NULL, NULL},
    [M_WORKERS_RUN_SECONDS] = {"feedmill_workers_run_seconds", HISTOGRAM, "Time a job took.", NULL, NULL},
    [M_WORKERS_REFUSED] = {"feedmill_workers_refused_total", COUNTER,
                           "Jobs refused because the queue was full.", NULL, NULL},
    [M_WORKERS_EXPIRED] = {"feedmill_workers_expired_total", COUNTER,
                           "Jobs whose deadline passed in the queue.", NULL, NULL},
    [M_REDIS_ERRORS] = {"feedmill_redis_errors_total", COUNTER, "Failed calls of Redis.", "thread",
                        "loop,worker"},
    [M_REDIS_SECONDS] = {"feedmill_redis_read_seconds", HISTOGRAM, "Time to read a timeline.", NULL, NULL},
    [M_MONGO_ERRORS] = {"feedmill_mongo_errors_total", COUNTER, "Failed calls of MongoDB.", "kind",
                        "unavailable,timeout,other"},

    [M_TAIL_CHANGES] = {"feedmill_tail_changes_total", COUNTER, "Changes read from the log.", "kind",
                        "item,user,target,api_key,heartbeat,other"},
    [M_TAIL_LOST] = {"feedmill_tail_lost_total", COUNTER, "Times the tail lost its place and began anew.",
                     NULL, NULL},
    [M_TAIL_ALIVE] = {"feedmill_tail_alive", GAUGE, "1 when the tail is less than a second behind.", NULL,
                      NULL},
    [M_TAIL_LAG_MS] = {"feedmill_tail_lag_milliseconds", GAUGE, "How far the tail is behind the log.", NULL,
                       NULL},
    [M_USER_CHANGES] = {"feedmill_tail_users", GAUGE, "Users whose latest change is remembered.", NULL, NULL},

    [M_CONTENT] = {"feedmill_content_total", COUNTER, "Items looked up in the content cache.", CACHE},
    [M_CONTENT_ENTRIES] = {"feedmill_content_entries", GAUGE, "Items in the content cache.", NULL, NULL},
    [M_CONTENT_BYTES] = {"feedmill_content_bytes", GAUGE, "Bytes in the content cache.", NULL, NULL},
    [M_CONTENT_EVICTED] = {"feedmill_content_evicted_total", COUNTER, "Items dropped to make room.", NULL,
                           NULL},
    [M_CONTENT_STALE] = {"feedmill_content_stale_total", COUNTER,
                         "Bodies not kept, because a newer revision is known.", NULL, NULL},
    [M_CONTENT_JOINED] = {"feedmill_content_joined_total", COUNTER, "Fetches that waited for an equal one.",
                          NULL, NULL},

    [M_PAGES] = {"feedmill_pages_total", COUNTER, "Feed pages by state.", "state",
                 "complete,partial,rebuilding"},
    [M_PAGE_SOURCE] = {"feedmill_page_source_total", COUNTER, "Feed pages by where their ids came from.",
                       "source", "timeline,both,store,session"},
    [M_PAGE_ITEMS] = {"feedmill_page_items_total", COUNTER, "Items on feed pages.", NULL, NULL},
    [M_PAGE_SKIPPED] = {"feedmill_page_skipped_total", COUNTER, "Ids left out of pages.", "reason",
                        "missing,deleted,muted,not_followed,served"},
    [M_PAGE_REFILLS] = {"feedmill_page_refills_total", COUNTER, "Further rounds to fill a page.", NULL, NULL},
    [M_TURNS] = {"feedmill_target_turns_total", COUNTER, "Modes set: push to pull, or back.", NULL, NULL},
    [M_PULLED_TARGETS] = {"feedmill_pulled_targets", GAUGE,
                          "Pulled targets whose newest items are in memory.", NULL, NULL},
    [M_PULLED_LOADS] = {"feedmill_pulled_loads_total", COUNTER, "Pulled targets read from MongoDB.", NULL,
                        NULL},
    [M_PAGE_UNCACHED] = {"feedmill_page_uncached_total", COUNTER, "Pages that read past the content cache.",
                         NULL, NULL},
    [M_REBUILDS] = {"feedmill_rebuilds_total", COUNTER, "Timelines rebuilt.", "result",
                    "done,joined,lost,no_record,no_redis,failed"},
    [M_REBUILD_SECONDS] = {"feedmill_rebuild_seconds", HISTOGRAM, "Time of a rebuild.", NULL, NULL},
    [M_TOUCHES] = {"feedmill_timeline_touches_total", COUNTER,
                   "Timelines whose expiry was set anew, because they were read.", NULL, NULL},
    [M_POSITION_WAITS] = {"feedmill_position_waits_total", COUNTER, "Pages whose position was not there yet.",
                          "result", "met,rebuilt,unknown"},
    [M_CURSORS_REFUSED] = {"feedmill_cursors_refused_total", COUNTER, "Cursors that were not ours.", NULL,
                           NULL},
    [M_RANKED] = {"feedmill_ranked_total", COUNTER, "First pages asked for ranked, by what became of it.",
                  "result", "ranked,off,timeout,unavailable,busy,error,expired"},
    [M_RANK_SECONDS] = {"feedmill_rank_seconds", HISTOGRAM, "Time the ranker took.", NULL, NULL},

    [M_FANOUTS] = {"feedmill_fanouts", GAUGE, "Fanouts that are alive.", NULL, NULL},
    [M_FANOUT_LAG_MS] = {"feedmill_fanout_lag_milliseconds", GAUGE,
                         "How far the last of them is behind the log, as it told.", NULL, NULL},
    [M_FANOUT_BACKLOG] = {"feedmill_fanout_backlog_changes", GAUGE,
                          "Changes that the last of them has read and not delivered.", NULL, NULL},
    [M_PUBLISHING] = {"feedmill_publishing_accepted", GAUGE, "1 when publishing is accepted, 0 when refused.",
                      NULL, NULL},
    [M_PUBLISH_REFUSED] = {"feedmill_publish_refused_total", COUNTER,
                           "Requests to publish answered 503 because fanout is behind.", "reason",
                           "lag,backlog"},

    [M_ITEM_WRITES] = {"feedmill_item_writes_total", COUNTER, "Writes of items.", "result",
                       "created,revised,unchanged,deleted"},
    [M_ITEM_ID_RETRIES] = {"feedmill_item_id_retries_total", COUNTER, "Ids that were taken already.", NULL,
                           NULL},
    [M_GRAPH_CHANGES] = {"feedmill_graph_changes_total", COUNTER, "Edges made and taken away.", "kind",
                         "follow,unfollow,mute,unmute"},
    [M_EVENTS] = {"feedmill_events_total", COUNTER, "Engagement events.", "result",
                  "accepted,duplicate,rejected"},
    [M_RECOUNTS] = {"feedmill_recounts_total", COUNTER, "Targets whose followers or items were counted.",
                    NULL, NULL},
    [M_RECOUNT_DIRTY] = {"feedmill_recount_dirty", GAUGE, "Targets that wait to be counted.", NULL, NULL},
};

_Static_assert(sizeof rows / sizeof *rows == M_N, "every metric has a row");

struct metrics *feed_metrics_new(void)
{
    return metrics_new(rows, M_N);
}
