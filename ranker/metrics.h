/* metrics.h - ranker's metrics, each a row in metrics.c. Any thread (see common/metrics.h). */
#ifndef FEEDMILL_RANKER_METRICS_H
#define FEEDMILL_RANKER_METRICS_H

#include "common/metrics.h"

enum ranker_metric {
    M_SESSIONS, /* index: enum session_result */
    M_SESSION_SECONDS,
    M_CANDIDATES,
    M_WORKERS_WAIT,
    M_WORKERS_RUN,
    M_WORKERS_EXPIRED,
    M_WORKERS_REFUSED,
    M_EVENTS, /* index: enum event_result */
    M_EVENTS_LOST,
    M_ITEM_CACHE, /* index: 0 hit, 1 miss */
    M_ERRORS,     /* index: 0 mongodb, 1 redis */
    M_N
};

enum session_result { SESSION_MADE, SESSION_INVALID, SESSION_LATE, SESSION_FAILED };
enum event_result { EVENT_LEARNED, EVENT_REPEATED, EVENT_UNKNOWN_ITEM, EVENT_MALFORMED };
enum { ERROR_OF_MONGODB, ERROR_OF_REDIS };

struct metrics *ranker_metrics_new(void);

#endif
