/* interleave.h - two fanouts and two feed-apis, as they are built, in one thread and in an order that a seed
 * decides.
 *
 * What runs is production code: fanout's engines whole (each on a fiber), feed-api's rebuild, timeline and
 * pulled items, all scripts, on a real Redis. The linker (--wrap, see the Makefile) puts this in the place of
 * what would make an order random: MongoDB, its log, the leases, the clocks. The truth is a list of events,
 * one a tick; what is read of it is as new as the reader asked for, or newer, as the seed has it. At each
 * read of the truth and each trip to Redis a fiber may have to wait while the others go on: writes, the log,
 * pages, rebuilds, take-overs, losses of Redis.
 *
 * Whenever a page may be made of a timeline, it has to hold above its floor what belongs there; at the end of
 * a seed, when everything was applied, exactly that. One world at a time, one thread.
 */
#ifndef FEEDMILL_TESTS_INTERLEAVE_H
#define FEEDMILL_TESTS_INTERLEAVE_H

#include <stdbool.h>
#include <stddef.h>
#include "common/redis.h"

/* How often what happened, so that a test can see that it did. */
struct interleave_counts {
    long steps, progress, pages, judged, exact, pulled, loads, rebuilt, tokens_lost, adopted, refused,
        taken_over, given, flushed, restored, keys_lost, answers_lost, trimmed, turns, deleted, edited, late,
        reads_failed;
};

/* The seed modulo INTERLEAVE_KINDS says what happens most: items that go to and fro between topics; targets
 * that turn to and fro; much that is published, and late; losses and take-overs; follows and unfollows. */
enum interleave_kind {
    INTERLEAVE_EDITS,
    INTERLEAVE_TURNS,
    INTERLEAVE_BURSTS,
    INTERLEAVE_LOSSES,
    INTERLEAVE_GRAPH,
    INTERLEAVE_KINDS
};

/* interleave_run() lives through the seed: 0, or -1 with what is wrong in why (what happened last stands in
 * interleave_history()). The Redis at `a` is emptied. trace: each step is printed. counts are added to. */
int interleave_run(const struct redis_address *a, unsigned seed, bool trace, struct interleave_counts *counts,
                   char *why, size_t why_size);

/* interleave_history() prints what happened last. */
void interleave_history(void);

/* ---- scripts that lack something ---- */

/* A piece of the scripts, and what stands in its place when it is taken out. */
struct interleave_mutation {
    const char *name;
    enum script script, also; /* where it stands; `also` may be the same */
    const char *piece, *instead;
    enum interleave_kind kind; /* the seeds that need it most */
};

/* interleave_mutate() has everybody use scripts without that from now on (NULL: as they are). False: the
 * piece is not there. */
bool interleave_mutate(const struct interleave_mutation *m);

/* interleave_end() closes what is kept open between runs. */
void interleave_end(void);

#endif
