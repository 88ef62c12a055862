/* engine.h - the engine: one thread that follows the log and keeps the timelines of the owned buckets fresh.
 *
 * A round of it: see which shares are held and adopt or drop their buckets; open the log where the least
 * progress of them is; make tasks of what was read from it (tasks.h); do a slice of the next publisher's;
 * write progress, which stands just below the oldest unfinished task. Whatever fails is tried again with a
 * back-off, nothing is skipped while a server is away; what fails though all are there is tried five times
 * and then a dead letter (engine_troubles.c):
 * - MongoDB does not answer: the slice is done again later.
 * - Redis does not answer, or a record refused a group: the shares come back under new epochs, and the log is
 * read again from the progress that their records hold.
 * - the log no longer reaches back: all records are made anew, timelines of before count as absent.
 *
 * The engine owns its reader of the log, its MongoDB client and its Redis connections; shares.h has a thread
 * of its own. engine_status(), engine_stop() and engine_ended() may be called from any thread.
 */
#ifndef FEEDMILL_FANOUT_ENGINE_H
#define FEEDMILL_FANOUT_ENGINE_H

#include "common/mongo.h"
#include "common/redis.h"
#include "fanout/metrics.h"
#include "fanout/shares.h"

struct engine;

struct engine_options {
    struct mongo *mongo; /* borrowed */
    struct redis_address redis;
    int64_t redis_timeout_ms;
    struct shares *shares; /* borrowed; started by the caller */
    const char *name;      /* of this fanout; borrowed */
    struct metrics *metrics;
    int64_t timeline_entries;
    unsigned batch_keys, audience_batch, pipeline_calls;
    size_t audience_cache; /* bytes of the lists of active followers; 0: 256 MiB */
    unsigned backlog;      /* changes waiting at most; 0: 20,000 */
    int64_t drain_ms;      /* for what was read from the log, after engine_stop() */
};

struct engine_status {
    bool ready; /* has owned its part and written progress once */
    bool redis_ok, mongodb_ok;
    unsigned members, fair, buckets;
    unsigned troubles; /* what waits for another try, or for its dead letter */
    unsigned backlog;  /* changes read from the log that are not delivered to everybody yet */
    struct {
        bool owned;
        int64_t epoch;
        ts_t progress; /* least of its buckets, as Redis confirmed it */
    } share[SHARES];
    ts_t progress;           /* least of all owned */
    int64_t heartbeat_at_ms; /* wall clock of the newest heartbeat at or before `progress`; 0: none yet */
};

struct engine *engine_new(const struct engine_options *o);
void engine_free(struct engine *g); /* NULL is fine; the thread must have been joined */

int engine_start(struct engine *g, struct err *e) MUST_USE;

/* engine_stop() asks the thread to finish what it has read of the log, write progress, release the shares and
 * end; on_end (may be NULL) is called on the engine's thread right before it ends. engine_join() waits for
 * that.
 */
void engine_stop(struct engine *g);
void engine_on_end(struct engine *g, void (*on_end)(void *arg), void *arg); /* before engine_start() */
void engine_join(struct engine *g);

void engine_status(struct engine *g, struct engine_status *out);

/* engine_lag_ms() answers how old the newest heartbeat behind progress is, at wall time now_ms; -1: unknown.
 */
int64_t engine_lag_ms(const struct engine_status *s, int64_t now_ms);

/* engine_refresh_metrics() sets the gauge of the lag to what it is now: it grows by itself while nothing is
 * written. */
void engine_refresh_metrics(struct engine *g);

#endif
