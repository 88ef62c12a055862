/* session.h - one frozen ranked order: features in, scores, the sorted set that feed-api pages through.
 *
 * Called in a worker, blocking. The candidates come from feed-api, which alone knows what is in a reader's
 * feed.
 */
#ifndef FEEDMILL_RANKER_SESSION_H
#define FEEDMILL_RANKER_SESSION_H

#include "common/names.h"
#include "common/workers.h"
#include "ranker/config.h"
#include "ranker/item_info.h"
#include "ranker/score.h"

#define SESSION_CANDIDATES_MAX 1000
#define SESSION_ID_SIZE        17 /* 16 hex digits and the NUL */

struct session_request {
    char user[NAME_MAX_BYTES + 1];
    size_t n;
    item_id candidates[SESSION_CANDIDATES_MAX];
};

struct session_limits {
    struct score_weights weights;
    int64_t affinity_half_life_ms, engagement_half_life_ms, ttl_ms;
};

/* session_make() scores the candidates as of now_ms (wall), writes the session and fills id and *count
 * (repeated candidates count once). ERR_UNAVAILABLE, ERR_TIMEOUT from either database; nothing was written
 * then, or it expires unseen. */
int session_make(struct worker *w, struct item_infos *infos, const struct session_limits *limits,
                 const struct session_request *r, int64_t now_ms, char id[SESSION_ID_SIZE], size_t *count,
                 struct err *e) MUST_USE;

#endif
