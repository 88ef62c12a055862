/* metrics.h - the metrics of feed-api: a row number here, a row in metrics.c. Any thread.
 *
 * The value of a row with a label is the index in its list: an enum stands beside it, in the same order.
 */
#ifndef FEEDMILL_FEED_API_METRICS_H
#define FEEDMILL_FEED_API_METRICS_H

#include "common/metrics.h"

enum feed_metric {
    M_REQUESTS,        /* by enum metric_route */
    M_RESPONSES,       /* by enum metric_status */
    M_FAILURES,        /* 5xx, by enum metric_route */
    M_REQUEST_SECONDS, /* by enum metric_route */
    M_RESPONSE_BYTES,
    M_CONNECTIONS,
    M_IN_FLIGHT,
    M_AUTH,           /* by enum metric_auth */
    M_AUTH_KEY_CACHE, /* by enum metric_cache */
    M_RATE_LIMITED,   /* by enum metric_rate */
    M_SLOW_REQUESTS,
    M_ACCESS_LOG_DROPPED,

    M_WORKERS_QUEUED,
    M_WORKERS_BUSY,
    M_WORKERS_WAIT_SECONDS,
    M_WORKERS_RUN_SECONDS,
    M_WORKERS_REFUSED,
    M_WORKERS_EXPIRED,
    M_REDIS_ERRORS,  /* by enum metric_thread */
    M_REDIS_SECONDS, /* the loop's page reads */
    M_MONGO_ERRORS,  /* by enum metric_mongo */

    M_TAIL_CHANGES, /* by enum metric_change */
    M_TAIL_LOST,
    M_TAIL_ALIVE,
    M_TAIL_LAG_MS,
    M_USER_CHANGES, /* users in the map */

    M_CONTENT, /* by enum metric_cache */
    M_CONTENT_ENTRIES,
    M_CONTENT_BYTES,
    M_CONTENT_EVICTED,
    M_CONTENT_STALE,  /* bodies that were older than what the log had told */
    M_CONTENT_JOINED, /* fetches that waited for an equal one */

    M_PAGES,       /* by enum metric_page */
    M_PAGE_SOURCE, /* by enum metric_source */
    M_PAGE_ITEMS,
    M_PAGES_NOT_MODIFIED, /* answered 304 */
    M_PAGES_GZIP,
    M_GZIP_BLOCKS,  /* by enum metric_block */
    M_PAGE_SKIPPED, /* by enum metric_skipped */
    M_PAGE_REFILLS,
    M_TURNS,
    M_PULLED_TARGETS,
    M_PULLED_LOADS,
    M_PAGE_UNCACHED, /* pages that checked revisions in MongoDB, because the own tail is behind */
    M_REBUILDS,      /* by enum metric_rebuild */
    M_REBUILD_SECONDS,
    M_TOUCHES,
    M_POSITION_WAITS, /* by enum metric_position */
    M_CURSORS_REFUSED,
    M_RANKED, /* by enum metric_ranked */
    M_RANK_SECONDS,

    M_STREAMS, /* open now */
    M_STREAM_FRAMES,
    M_STREAM_RESETS,
    M_STREAM_READ_BACK,
    M_STREAMS_CUT,
    M_STREAM_LOG_BYTES,

    M_FANOUTS, /* that are alive */
    M_FANOUT_LAG_MS,
    M_FANOUT_BACKLOG,
    M_PUBLISHING,      /* 1: accepted, 0: refused */
    M_PUBLISH_REFUSED, /* by enum metric_refused */

    M_ITEM_WRITES, /* by enum metric_write */
    M_ITEM_ID_RETRIES,
    M_GRAPH_CHANGES, /* by enum metric_graph */
    M_EVENTS,        /* by enum metric_event */
    M_RECOUNTS,      /* targets counted */
    M_RECOUNT_DIRTY, /* targets waiting to be counted */
    M_N
};

enum metric_route {
    MR_FEED,
    MR_ITEMS,
    MR_BULK,
    MR_TARGETS,
    MR_GRAPH,
    MR_EVENTS,
    MR_KEYS,
    MR_STATUS,
    MR_STREAM,
    MR_NONE
};
enum metric_status { MS_1XX, MS_2XX, MS_3XX, MS_4XX, MS_5XX };
enum metric_auth { MA_OK, MA_NONE, MA_BAD, MA_FORBIDDEN };
enum metric_cache { MC_HIT, MC_MISS };
enum metric_rate { MRL_KEY, MRL_USER, MRL_ADDRESS, MRL_N };
enum metric_thread { MT_LOOP, MT_WORKER };
enum metric_mongo { MM_UNAVAILABLE, MM_TIMEOUT, MM_OTHER };
enum metric_change {
    MCH_ITEM,
    MCH_USER,
    MCH_TARGET,
    MCH_API_KEY,
    MCH_TOKEN_END,
    MCH_HEARTBEAT,
    MCH_OTHER
}; /* as enum change_kind */
enum metric_page { MP_COMPLETE, MP_PARTIAL, MP_REBUILDING };
enum metric_source { MSRC_TIMELINE, MSRC_BOTH, MSRC_STORE, MSRC_SESSION };
enum metric_skipped { MSK_MISSING, MSK_DELETED, MSK_MUTED, MSK_NOT_FOLLOWED, MSK_SERVED };
enum metric_block { MBL_READY, MBL_MADE, MBL_LEFT, MBL_N };
enum metric_rebuild { MRB_DONE, MRB_JOINED, MRB_LOST, MRB_NO_RECORD, MRB_NO_REDIS, MRB_FAILED };
enum metric_position { MPO_MET, MPO_REBUILT, MPO_UNKNOWN };
enum metric_ranked { MRK_RANKED, MRK_OFF, MRK_TIMEOUT, MRK_UNAVAILABLE, MRK_BUSY, MRK_ERROR, MRK_EXPIRED };
enum metric_refused { MRF_LAG, MRF_BACKLOG };
enum metric_write { MW_CREATED, MW_REVISED, MW_UNCHANGED, MW_DELETED };
enum metric_graph { MG_FOLLOW, MG_UNFOLLOW, MG_MUTE, MG_UNMUTE };
enum metric_event { ME_ACCEPTED, ME_DUPLICATE, ME_REJECTED };

/* feed_metrics_new() makes the process' metrics; metrics_free() ends them. */
struct metrics *feed_metrics_new(void);

#endif
