/* learn.h - the learner: takes engagement events from the streams and keeps what they teach, in Redis.
 *
 * One thread of its own with its own clients. Streams are consumed in a group: events that were taken but not
 * learned when a ranker died are taken again, by the same name at once, by others after 15 s; SCRIPT_LEARN
 * acknowledges and applies in one step, so that each counts once. What it keeps is decayed sums: affinity of
 * a reader to publishers and topics (af), engagement of an item (ic).
 */
#ifndef FEEDMILL_RANKER_LEARN_H
#define FEEDMILL_RANKER_LEARN_H

#include <stdbool.h>
#include "common/metrics.h"
#include "common/mongo.h"
#include "common/redis.h"
#include "ranker/config.h"
#include "ranker/item_info.h"

struct learner;

struct learner_options {
    const struct ranker_config *cfg; /* borrowed */
    const char *name;                /* of the consumer; borrowed */
    struct mongo *mongo;
    struct redis_address redis;
    struct item_infos *infos;
    struct metrics *metrics;
};

int learner_start(struct learner **out, const struct learner_options *o, struct err *e) MUST_USE;
void learner_stop(struct learner *l); /* finishes the batch in hand and joins; NULL is a no-op */
bool learner_ready(
    const struct learner *l); /* it has talked to Redis at least once, and its last try worked */

/* How an event weighs: pure. dwell_ms counts for "dwell" only. Answers false for a type that is not known. */
struct event_weights {
    double affinity, engagement;
};
bool event_weights_of(const char *type, int64_t dwell_ms, struct event_weights *out);

#endif
