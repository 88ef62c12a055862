#include "ranker/metrics.h"

static const struct metric_row rows[M_N] = {
    [M_SESSIONS] = {"feedmill_ranker_sessions_total", METRIC_COUNTER, "Sessions asked for.", "result",
                    "made,invalid,late,failed"},
    [M_SESSION_SECONDS] = {"feedmill_ranker_session_seconds", METRIC_HISTOGRAM,
                           "Time from the request to the written session.", NULL, NULL},
    [M_CANDIDATES] = {"feedmill_ranker_candidates_total", METRIC_COUNTER, "Candidates scored.", NULL, NULL},
    [M_WORKERS_WAIT] = {"feedmill_ranker_workers_wait_seconds", METRIC_HISTOGRAM, "Time in the queue.", NULL,
                        NULL},
    [M_WORKERS_RUN] = {"feedmill_ranker_workers_run_seconds", METRIC_HISTOGRAM, "Time at work.", NULL, NULL},
    [M_WORKERS_EXPIRED] = {"feedmill_ranker_workers_expired_total", METRIC_COUNTER,
                           "Sessions whose deadline passed in the queue.", NULL, NULL},
    [M_WORKERS_REFUSED] = {"feedmill_ranker_workers_refused_total", METRIC_COUNTER,
                           "Sessions refused because the queue was full.", NULL, NULL},
    [M_EVENTS] = {"feedmill_ranker_events_total", METRIC_COUNTER, "Engagement events taken from the streams.",
                  "result", "learned,repeated,unknown_item,malformed"},
    [M_EVENTS_LOST] = {"feedmill_ranker_events_lost_total", METRIC_COUNTER,
                       "Events that were trimmed from a stream before they were learned.", NULL, NULL},
    [M_ITEM_CACHE] = {"feedmill_ranker_item_cache_total", METRIC_COUNTER,
                      "Look-ups of an item's publisher and topics.", "result", "hit,miss"},
    [M_ERRORS] = {"feedmill_ranker_errors_total", METRIC_COUNTER, "Failed calls to the databases.", "server",
                  "mongodb,redis"},
};

struct metrics *ranker_metrics_new(void)
{
    return metrics_new(rows, M_N);
}
