/* pressure.h - whether fanout keeps up, and with that whether publishing goes on.
 *
 * Every fanout writes its state into `members` about once a second (common/member_state.h). The thread of
 * health.h reads these documents with one small query and decides; a request only looks at an atomic. Beyond
 * a limit, of lag or of changes read and not delivered, whatever costs fan-out is answered 503 with a
 * Retry-After until it has come down to three quarters of it.
 *
 * Only fanouts count that are alive and whose servers answer: without Redis, or without any fanout,
 * publishing goes on (P10), for the log is the buffer then. That holds also when the log may not reach back
 * far enough in the end: timelines are made anew then, nothing is lost, so refusing would buy nothing.
 */
#ifndef FEEDMILL_PRESSURE_H
#define FEEDMILL_PRESSURE_H

#include "common/member_state.h"
#include "common/metrics.h"
#include "common/mongo.h"

#define PRESSURE_FANOUTS_MAX 64    /* the latest ones; there is work for 16 */
#define PRESSURE_VALID_MS    10000 /* how long what was read holds when MongoDB does not answer any more */

enum pressure_reason { PRESSURE_NONE, PRESSURE_LAG, PRESSURE_BACKLOG };

struct pressure_limits {
    int64_t lag_ms;  /* 0: no limit */
    int64_t backlog; /* changes; 0: no limit */
};

struct pressure_fanout {
    char name[128];
    bool alive;     /* it signed on within its lease */
    int64_t age_ms; /* since then, by MongoDB's clock */
    bool told;      /* state is there */
    struct member_state state;
};

struct pressure_view {
    int64_t at_ms; /* clock_mono_ms() when it was read; 0: never */
    size_t n;      /* the latest first */
    struct pressure_fanout fanouts[PRESSURE_FANOUTS_MAX];

    /* what was decided */
    unsigned alive;
    int64_t lag_ms;  /* the largest of those that count; -1: unknown */
    int64_t backlog; /* the same */
    bool memory_tight;
    enum pressure_reason reason;
    int64_t retry_after_ms; /* with a reason */
};

/* pressure_decide() fills the second half of *now from its first and from what was decided before. Pure. */
void pressure_decide(const struct pressure_limits *l, const struct pressure_view *before,
                     struct pressure_view *now);

const char *pressure_reason_name(enum pressure_reason r); /* "lag", "backlog"; NULL for none */

struct pressure;

/* pressure_new() begins with nothing known: publishing goes on. metrics are borrowed. */
struct pressure *pressure_new(const struct pressure_limits *l, struct metrics *m);
void pressure_free(struct pressure *p); /* NULL is fine */

/* pressure_probe() reads the fanouts' states and decides. One thread at a time; blocks until the conn's
 * deadline. ERR_UNAVAILABLE, ERR_TIMEOUT: what was decided before holds for PRESSURE_VALID_MS. */
int pressure_probe(struct pressure *p, struct mongo_conn *c, struct err *e) MUST_USE;

/* pressure_refuses() answers why publishing is refused, and when to try again. Any thread, no lock. */
enum pressure_reason pressure_refuses(const struct pressure *p, int64_t *retry_after_ms);

void pressure_look(struct pressure *p, struct pressure_view *out); /* any thread */

#endif
