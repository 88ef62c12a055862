/* metrics.h - fanout's metrics, each a row in metrics.c. Any thread (see common/metrics.h). */
#ifndef FEEDMILL_FANOUT_METRICS_H
#define FEEDMILL_FANOUT_METRICS_H

#include "common/metrics.h"

enum fanout_metric {
    M_CHANGES,   /* index: enum change_kind */
    M_APPLY,     /* index: 0 item, 1 user, 2 turn */
    M_TIMELINES, /* index: enum script, DELIVER to DROP */
    M_SCRIPTS,   /* index: enum script, DELIVER to ADOPT */
    M_REFUSED,
    M_AUDIENCE,
    M_AUDIENCE_SKIPPED,
    M_REPLAYS,
    M_TRIES, /* index: enum trouble_kind */
    M_LETTERS,
    M_LETTERS_LOST,
    M_LETTERS_OPEN,
    M_SHARES, /* index: enum metric_share */
    M_BUCKETS_OWNED,
    M_MEMBERS,
    M_LAG,
    M_LAG_SECONDS,
    M_BACKLOG,
    M_READERS,
    M_LISTS,
    M_LISTS_BYTES,
    M_LISTS_TOO_LARGE,
    M_NEWBORNS,
    M_PULLED,
    M_REDIS_USED,
    M_REDIS_MAX,
    M_REDIS_EVICTED,
    M_EVICTED,
    M_AUDIT_CHECKS,   /* index: enum audit_verdict */
    M_AUDIT_FINDINGS, /* index: enum audit_kind */
    M_ERRORS,         /* index: enum metric_error */
    M_N
};

enum metric_share { SHARE_TAKEN, SHARE_LOST, SHARE_GIVEN, SHARE_RENEWED_EPOCH };
enum metric_error { ERROR_OF_MONGODB, ERROR_OF_REDIS, ERROR_OF_LOG_LOST, ERROR_OF_CORRUPT, ERROR_OF_OTHER };

struct metrics *fanout_metrics_new(void);

#endif
