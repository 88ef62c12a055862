/* readers.h - the readers who have a timeline, by index: a small number that stands for a name wherever many
 * readers are listed.
 *
 * A reader is active from readers_add() until readers_retire(): his timeline is gone, or whom he follows has
 * changed, so that the lists he is on are not right for him any more. A retired reader is not found by name,
 * and readers_add() of the same name makes another index. His own index stays good for as long as somebody
 * holds it (readers_hold), then it is used for somebody else. Whoever keeps an index beyond the next call
 * here holds it, or asks for the reader by name again.
 *
 * Pure bookkeeping, no I/O; engine thread only. A million readers with names of up to 24 bytes take about
 * 75 MB, with names of 64 bytes 120 MB.
 */
#ifndef FEEDMILL_FANOUT_READERS_H
#define FEEDMILL_FANOUT_READERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/err.h"

typedef uint32_t reader_idx;
#define READER_NONE UINT32_MAX

/* Read it through the functions below. Small, since walking a list of followers touches one of these each. */
struct reader {
    char *name;    /* NULL: the index is free */
    uint32_t refs; /* who holds it; of a free one: the next free index */
    uint32_t mark; /* the last task that met him; 0: none */
    uint32_t seen; /* the last round that met him; 0: none */
    uint8_t bucket;
    bool active;
};

struct reader_slot {
    uint32_t hash;
    reader_idx idx; /* READER_NONE: an empty slot */
};

struct readers {
    struct reader *at;
    uint32_t n, cap; /* indices ever used since the last time nobody was left; room */
    reader_idx free; /* the first free index below n */
    uint32_t used;   /* indices that are not free */
    uint32_t active;
    struct reader_slot *slots; /* open addressing, linear; the active ones */
    uint32_t mask;             /* slots less one; 0: there are none */
    uint32_t round;
    size_t name_bytes;
};

struct readers *readers_new(void);
void readers_free(struct readers *r); /* holders or not; NULL is fine */

/* readers_clear() retires everybody. Indices that nobody holds are free at once, the others when they are let
 * go. */
void readers_clear(struct readers *r);

/* readers_find() answers the active reader of that name, or READER_NONE. */
reader_idx readers_find(const struct readers *r, const char *user);

/* readers_add() finds or makes the active reader: user is 1 to NAME_MAX_BYTES bytes (copied), bucket is his.
 */
reader_idx readers_add(struct readers *r, unsigned bucket, const char *user);

/* readers_retire() of one who is retired does nothing. When nobody holds him the index is free on return. */
void readers_retire(struct readers *r, reader_idx i);

void readers_hold(struct readers *r, reader_idx i);
void readers_release(struct readers *r, reader_idx i); /* frees a retired one whom nobody else holds */

/* readers_begin_round() and readers_meet() find who comes twice: meet answers true the first time in a round.
 * One round at a time. */
void readers_begin_round(struct readers *r);
bool readers_meet(struct readers *r, reader_idx i);

/* readers_forget_marks() is called before task numbers are used a second time (they have come round). */
void readers_forget_marks(struct readers *r);

uint32_t readers_hash(const char *s); /* of a name or a target; all 32 bits are good */

static inline bool readers_active(const struct readers *r, reader_idx i)
{
    return r->at[i].active;
}

/* readers_still_active() is the same for an index that may be free by now, but is not another reader's
 * (nobody was added since it was good). */
static inline bool readers_still_active(const struct readers *r, reader_idx i)
{
    return i < r->n && r->at[i].active;
}

static inline unsigned readers_bucket(const struct readers *r, reader_idx i)
{
    return r->at[i].bucket;
}

/* readers_name() is the readers': good until the index is free. */
static inline const char *readers_name(const struct readers *r, reader_idx i)
{
    return r->at[i].name;
}

/* readers_mark() answers whether `task` (from 1) meets the reader for the first time. Only the last task is
 * remembered: where two take turns at the same reader, both may meet him twice. */
static inline bool readers_mark(struct readers *r, reader_idx i, uint32_t task)
{
    if (r->at[i].mark == task)
        return false;
    r->at[i].mark = task;
    return true;
}

static inline size_t readers_count(const struct readers *r) /* the active ones */
{
    return r->active;
}

/* readers_bytes() is what all of them take on the heap; 0 when nobody is left, neither active nor held. */
size_t readers_bytes(const struct readers *r);

#endif
