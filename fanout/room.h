/* room.h - Redis' memory: looked at some times a second, and room made before Redis refuses a write.
 *
 * Above ROOM_TIGHT_PERCENT of `maxmemory` the memory counts as tight, until it is below ROOM_ENOUGH_PERCENT:
 * that is logged once and told (status, metrics, readiness). Above ROOM_FULL_PERCENT the timelines read least
 * recently go, in small steps, until it is below ROOM_TIGHT_PERCENT again. Who was read least recently is
 * told by `x` of pf, which feed-api sets anew as it reads (SCRIPT_TOUCH); the idle time of the keys would not
 * do, because deliveries touch them.
 *
 * The least recent are found as Redis finds them for its own LRU: by samples. A step takes the next
 * ROOM_SAMPLE timelines of a SCAN that goes round and round, and drops the ROOM_PART-th part of them with the
 * oldest x. SCRIPT_EVICT spares one that was read meanwhile, and an absent timeline is right at any time, so
 * neither ownership nor the engine's knowledge matters here: the engine hears of it as of one that expired.
 *
 * A thread and a connection of its own: it goes on when the engine waits for a Redis that refuses writes.
 * Several fanouts on one Redis each make room until there is enough. room_look() may be called from any
 * thread.
 */
#ifndef FEEDMILL_FANOUT_ROOM_H
#define FEEDMILL_FANOUT_ROOM_H

#include "common/redis.h"
#include "fanout/metrics.h"

#define ROOM_ENOUGH_PERCENT 80
#define ROOM_TIGHT_PERCENT  85
#define ROOM_FULL_PERCENT   90
#define ROOM_SAMPLE         256
#define ROOM_PART           16

struct room;

struct room_view {
    bool known;       /* Redis has told at least once */
    int64_t used;     /* bytes, of what counts against max; -1: unknown */
    int64_t max;      /* maxmemory in bytes; 0: none */
    char policy[24];  /* maxmemory-policy */
    int64_t by_redis; /* keys that Redis itself evicted; -1: unknown */
    int64_t evicted;  /* timelines dropped here since the start */
    bool tight;
};

/* room_new() does not connect. timeout_ms for each call of Redis; metrics are borrowed, NULL: not counted. */
struct room *room_new(const struct redis_address *a, int64_t timeout_ms, struct metrics *m);
void room_free(struct room *r); /* NULL is fine; stops the thread first */

/* room_start() starts the thread; room_stop() ends and joins it: at most one call of Redis is waited for. */
int room_start(struct room *r, struct err *e) MUST_USE;
void room_stop(struct room *r);

/* room_step() does one round at once, as the thread does: looks, and makes room if there is too little. Not
 * while the thread runs. ERR_UNAVAILABLE, ERR_TIMEOUT of Redis. */
int room_step(struct room *r, struct err *e) MUST_USE;

void room_look(struct room *r, struct room_view *out);

/* ---- pure ---- */

/* room_parse() reads what INFO memory answers into *out; the rest of *out stays. False: it says nothing of
 * it. */
bool room_parse(const char *info, struct room_view *out);

/* room_percent() answers used of max in percent, 0 without a max. */
int room_percent(const struct room_view *v);

/* A timeline of a sample: when it was read, and which one. */
struct room_pick {
    int64_t x;
    size_t i;
};

/* room_pick_oldest() puts those to be dropped (at least 1 of any) first and answers how many these are. */
size_t room_pick_oldest(struct room_pick *picks, size_t n);

#endif
