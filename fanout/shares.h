/* shares.h - which shares of the buckets this fanout holds: leases in MongoDB, each with an epoch that only
 * grows.
 *
 * `shares` has a document {_id: 0..15, owner, epoch, expires} for each share, `members` one {_id: name, seen,
 * lease_ms, state} for each fanout (common/member_state.h). Every fifth of a lease a thread of its own renews
 * what is held (never waiting for the engine's work), takes what is free or expired up to its fair part, and
 * marks as `giving` what is beyond it. Expiry is judged by MongoDB's clock alone. The lease decides who may
 * try; the epoch in the records of Redis decides who can (common/scripts.h): so a holder that comes late does
 * no harm.
 *
 * Fair part: 16 / members, the rest to the first by name; so the parts add up to 16 whoever computes them.
 *
 * Functions may be called from any thread. Those that talk to MongoDB (step, retake, release, leave) take
 * turns and block, at most a few seconds.
 */
#ifndef FEEDMILL_FANOUT_SHARES_H
#define FEEDMILL_FANOUT_SHARES_H

#include "common/member_state.h"
#include "common/mongo.h"
#include "fanout/buckets.h"
#include "fanout/metrics.h"

struct shares;

struct shares_options {
    struct mongo *mongo;     /* borrowed */
    const char *name;        /* of this fanout; borrowed */
    int64_t lease_ms;        /* how long others wait for a silent one */
    struct metrics *metrics; /* borrowed; NULL: not counted */
};

/* What this fanout tells of itself with each renewal; called on the thread that renews. */
typedef void (*shares_report_fn)(void *arg, struct member_state *out);

struct shares_view {
    uint64_t version; /* grows with each difference */
    bool known;       /* MongoDB has been asked at least once */
    unsigned members, fair;
    struct {
        bool held;
        bool giving; /* finish what is in hand for it, then shares_release() */
        int64_t epoch;
    } share[SHARES];
};

struct shares *shares_new(const struct shares_options *o);
void shares_free(struct shares *s); /* stops the thread; leases stay as they are (see shares_leave) */

/* shares_report() has fn say how this fanout is. Before shares_start(). */
void shares_report(struct shares *s, shares_report_fn fn, void *arg);

/* shares_start() starts the thread; shares_stop() ends and joins it; shares_stop_soon() asks it to end,
 * without waiting (a round may be waiting for MongoDB): leases are not renewed any more. */
int shares_start(struct shares *s, struct err *e) MUST_USE;
void shares_stop_soon(struct shares *s);
void shares_stop(struct shares *s);

/* shares_step() does one round at once, as the thread does. The first one that succeeds takes over whatever
 * stands under this name, expired or not: the process of that name before this one is dead or fenced off.
 * ERR_UNAVAILABLE, ERR_TIMEOUT: nothing is known to have changed. */
int shares_step(struct shares *s, struct err *e) MUST_USE;

void shares_look(struct shares *s, struct shares_view *out);

/* shares_wait() waits until the view's version is no longer `version`, at most ms. */
void shares_wait(struct shares *s, uint64_t version, int64_t ms);

/* shares_alive() is to be called by the engine at least every SHARES_ALIVE_MS; an engine that hangs for
 * longer loses its leases. */
#define SHARES_ALIVE_MS 30000
void shares_alive(struct shares *s);

/* shares_retake() gives a held share a later epoch, above least, and answers it. ERR_MISMATCH: somebody else
 * has it; it is no longer held then. */
int shares_retake(struct shares *s, unsigned share, int64_t least, int64_t *epoch, struct err *e) MUST_USE;

/* shares_release() gives a held share back at once; when MongoDB does not answer it runs out by itself. Not
 * held in any case. */
int shares_release(struct shares *s, unsigned share, struct err *e);

/* shares_leave() releases all and signs off as a member: for the end of a process. */
int shares_leave(struct shares *s, struct err *e);

/* shares_fair() is the fair part of the member at `rank` (from 0) of `members` sorted by name. */
unsigned shares_fair(unsigned members, unsigned rank);

#endif
