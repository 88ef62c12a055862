#include "fanout/readers.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "common/keys.h"
#include "common/mem.h"
#include "common/names.h"

#define FIRST_READERS 64
#define FIRST_SLOTS   128

/* Slots are at most 5/8 full: linear probing stays at two or three steps. */
#define SLOTS_FULL(slots) ((slots) / 8 * 5)

_Static_assert(BUCKETS - 1 <= UINT8_MAX, "struct reader keeps the bucket in a byte");

/* FNV-1a, and SplitMix64's last mix, since the low bits choose the slot. */
uint32_t readers_hash(const char *s)
{
    uint64_t h = UINT64_C(14695981039346656037);
    for (; *s; s++)
        h = (h ^ (unsigned char)*s) * UINT64_C(1099511628211);
    h = (h ^ (h >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    h = (h ^ (h >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)(h ^ (h >> 31));
}

/* What malloc takes for a name: its word before, in steps of 16, from 32. */
static size_t name_cost(size_t len)
{
    size_t n = (len + 1 + sizeof(size_t) + 15) / 16 * 16;
    return n < 32 ? 32 : n;
}

struct readers *readers_new(void)
{
    struct readers *r = mem_zero(1, sizeof *r);
    r->free = READER_NONE;
    return r;
}

/* Nobody is left: nothing is kept, so that a great crowd does not leave its memory behind. */
static void give_back(struct readers *r)
{
    assert(r->used == 0 && r->active == 0 && r->name_bytes == 0);
    free(r->at);
    free(r->slots);
    r->at = NULL;
    r->slots = NULL;
    r->n = r->cap = r->mask = 0;
    r->free = READER_NONE;
}

void readers_free(struct readers *r)
{
    if (!r)
        return;
    for (uint32_t i = 0; i < r->n; i++)
        free(r->at[i].name);
    free(r->at);
    free(r->slots);
    free(r);
}

/* The slot of that name, or the empty one where it would be. There is always an empty one. */
static uint32_t slot_of(const struct readers *r, uint32_t hash, const char *user)
{
    for (uint32_t s = hash & r->mask;; s = (s + 1) & r->mask) {
        const struct reader_slot *slot = &r->slots[s];
        if (slot->idx == READER_NONE)
            return s;
        if (slot->hash == hash && strcmp(r->at[slot->idx].name, user) == 0)
            return s;
    }
}

reader_idx readers_find(const struct readers *r, const char *user)
{
    return r->slots ? r->slots[slot_of(r, readers_hash(user), user)].idx : READER_NONE;
}

static void grow_slots(struct readers *r)
{
    size_t was = r->slots ? (size_t)r->mask + 1 : 0;
    size_t now = was ? was * 2 : FIRST_SLOTS;
    assert(now <= UINT64_C(1) << 32);
    struct reader_slot *old = r->slots;
    r->slots = mem_grow(NULL, now, sizeof *r->slots);
    r->mask = (uint32_t)(now - 1);
    for (size_t i = 0; i < now; i++)
        r->slots[i] = (struct reader_slot){.idx = READER_NONE};
    for (size_t i = 0; i < was; i++) {
        if (old[i].idx == READER_NONE)
            continue;
        uint32_t s = old[i].hash & r->mask;
        while (r->slots[s].idx != READER_NONE)
            s = (s + 1) & r->mask;
        r->slots[s] = old[i];
    }
    free(old);
}

/* Takes a slot out and moves back those behind it that could not have their own place: no tombstones, so that
 * coming and going for weeks does not slow the search. */
static void empty_slot(struct readers *r, uint32_t hole)
{
    for (uint32_t s = (hole + 1) & r->mask; r->slots[s].idx != READER_NONE; s = (s + 1) & r->mask) {
        uint32_t from_home = (s - r->slots[s].hash) & r->mask, from_hole = (s - hole) & r->mask;
        if (from_home >= from_hole) {
            r->slots[hole] = r->slots[s];
            hole = s;
        }
    }
    r->slots[hole].idx = READER_NONE;
}

static reader_idx take_index(struct readers *r)
{
    reader_idx i = r->free;
    if (i != READER_NONE) {
        r->free = r->at[i].refs;
        return i;
    }
    assert(r->n < READER_NONE);
    if (r->n == r->cap) {
        uint64_t cap = r->cap ? (uint64_t)r->cap * 2 : FIRST_READERS;
        r->cap = cap < READER_NONE ? (uint32_t)cap : READER_NONE;
        r->at = mem_grow(r->at, r->cap, sizeof *r->at);
    }
    return r->n++;
}

reader_idx readers_add(struct readers *r, unsigned bucket, const char *user)
{
    size_t len = strlen(user);
    assert(bucket < BUCKETS && len >= 1 && len <= NAME_MAX_BYTES);
    if (!r->slots || r->active >= SLOTS_FULL((uint64_t)r->mask + 1))
        grow_slots(r);
    uint32_t hash = readers_hash(user), s = slot_of(r, hash, user);
    if (r->slots[s].idx != READER_NONE)
        return r->slots[s].idx;
    reader_idx i = take_index(r);
    r->at[i] = (struct reader){.name = mem_strndup(user, len), .bucket = (uint8_t)bucket, .active = true};
    r->slots[s] = (struct reader_slot){.hash = hash, .idx = i};
    r->used++;
    r->active++;
    r->name_bytes += name_cost(len);
    return i;
}

static void free_index(struct readers *r, reader_idx i)
{
    struct reader *x = &r->at[i];
    r->name_bytes -= name_cost(strlen(x->name));
    free(x->name);
    *x = (struct reader){.refs = r->free};
    r->free = i;
    if (--r->used == 0)
        give_back(r);
}

void readers_retire(struct readers *r, reader_idx i)
{
    assert(i < r->n && r->at[i].name);
    struct reader *x = &r->at[i];
    if (!x->active)
        return;
    empty_slot(r, slot_of(r, readers_hash(x->name), x->name));
    x->active = false;
    r->active--;
    if (x->refs == 0)
        free_index(r, i);
}

void readers_clear(struct readers *r)
{
    /* The last one to go takes the arrays along: then n is 0. */
    for (reader_idx i = 0; i < r->n; i++)
        if (r->at[i].active)
            readers_retire(r, i);
}

void readers_hold(struct readers *r, reader_idx i)
{
    assert(i < r->n && r->at[i].name);
    r->at[i].refs++;
}

void readers_release(struct readers *r, reader_idx i)
{
    assert(i < r->n && r->at[i].name && r->at[i].refs > 0);
    struct reader *x = &r->at[i];
    if (--x->refs == 0 && !x->active)
        free_index(r, i);
}

void readers_begin_round(struct readers *r)
{
    if (++r->round != 0)
        return;
    for (uint32_t i = 0; i < r->n; i++)
        r->at[i].seen = 0;
    r->round = 1;
}

bool readers_meet(struct readers *r, reader_idx i)
{
    if (r->at[i].seen == r->round)
        return false;
    r->at[i].seen = r->round;
    return true;
}

void readers_forget_marks(struct readers *r)
{
    for (uint32_t i = 0; i < r->n; i++)
        r->at[i].mark = 0;
}

size_t readers_bytes(const struct readers *r)
{
    size_t slots = r->slots ? (size_t)r->mask + 1 : 0;
    return r->cap * sizeof *r->at + slots * sizeof *r->slots + r->name_bytes;
}
