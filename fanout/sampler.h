/* sampler.h - checks a timeline by chance now and then, all the time: so that a fault shows as a metric
 * before somebody complains.
 *
 * A thread with a Redis connection and a MongoDB client of its own; the engine does not notice it. It takes
 * timelines of the buckets that this fanout owns, since it is their progress that a check may have to wait
 * for. What is found is logged and counted; it is repaired only where that is asked for, because what heals
 * silently is never mended. Counts of followers are not looked at here: feed-api compares all of them every
 * few minutes.
 */
#ifndef FEEDMILL_FANOUT_SAMPLER_H
#define FEEDMILL_FANOUT_SAMPLER_H

#include "common/mongo.h"
#include "common/redis.h"
#include "fanout/engine.h"
#include "fanout/metrics.h"

struct sampler;

struct sampler_options {
    struct mongo *mongo; /* borrowed; one client is taken */
    struct redis_address redis;
    int64_t redis_timeout_ms;
    struct engine *engine; /* borrowed: which buckets are owned */
    struct metrics *metrics;
    int64_t interval_ms; /* between two checks, at least 1 */
    bool repair;
};

/* sampler_start() starts the thread. sampler_stop_soon() asks it to end, without waiting, from any thread;
 * sampler_free() waits for that, at most a few seconds. NULL is fine for both. */
int sampler_start(struct sampler **out, const struct sampler_options *o, struct err *e) MUST_USE;
void sampler_stop_soon(struct sampler *s);
void sampler_free(struct sampler *s);

#endif
