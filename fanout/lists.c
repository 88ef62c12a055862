#include "fanout/lists.h"

#include <stdlib.h>
#include <string.h>
#include "common/keys.h"
#include "common/mem.h"

#define FIRST_SLOTS 64

TAILQ_HEAD(list_queue, list);

struct lists {
    struct readers *readers;
    size_t max_bytes, bytes;
    struct list_queue queues[LIST_GONE + 1]; /* by state */
    struct list **slots;                     /* chains of the lists of targets */
    size_t n_slots;                          /* a power of two; 0: none yet */
    size_t in_slots, cached;
    uint64_t evictions;
};

struct lists *lists_new(struct readers *r, size_t max_bytes)
{
    struct lists *l = mem_zero(1, sizeof *l);
    l->readers = r;
    l->max_bytes = max_bytes;
    for (size_t i = 0; i < MEM_COUNT(l->queues); i++)
        TAILQ_INIT(&l->queues[i]);
    return l;
}

/* ---- by target ---- */

static struct list **slot_of(const struct lists *l, uint32_t hash)
{
    return &l->slots[hash & (l->n_slots - 1)];
}

static struct list *find(const struct lists *l, const char *target)
{
    if (l->n_slots == 0)
        return NULL;
    uint32_t hash = readers_hash(target);
    struct list *list = *slot_of(l, hash);
    while (list && (list->hash != hash || strcmp(list->target, target) != 0))
        list = list->chain;
    return list;
}

static void resize_slots(struct lists *l, size_t n)
{
    struct list **old = l->slots;
    size_t was = l->n_slots;
    l->slots = n ? mem_zero(n, sizeof(struct list *)) : NULL;
    l->n_slots = n;
    l->bytes = l->bytes + n * sizeof(struct list *) - was * sizeof(struct list *);
    for (size_t i = 0; n && i < was; i++) {
        for (struct list *list = old[i], *next; list; list = next) {
            struct list **slot = slot_of(l, list->hash);
            next = list->chain;
            list->chain = *slot;
            *slot = list;
        }
    }
    free(old);
}

static void slots_insert(struct lists *l, struct list *list)
{
    if (l->in_slots == l->n_slots)
        resize_slots(l, l->n_slots ? l->n_slots * 2 : FIRST_SLOTS);
    struct list **slot = slot_of(l, list->hash);
    list->chain = *slot;
    *slot = list;
    l->in_slots++;
}

static void slots_remove(struct lists *l, struct list *list)
{
    struct list **p = slot_of(l, list->hash);
    while (*p != list)
        p = &(*p)->chain;
    *p = list->chain;
    if (--l->in_slots == 0)
        resize_slots(l, 0);
}

/* ---- room ---- */

static size_t size_for(size_t readers)
{
    return sizeof(struct list) + readers * sizeof(reader_idx);
}

/* The most readers that a list may have: a quarter of the cap. */
static size_t most_readers(const struct lists *l)
{
    size_t quarter = l->max_bytes / 4;
    return quarter < size_for(0) ? 0 : (quarter - size_for(0)) / sizeof(reader_idx);
}

static bool too_large(const struct lists *l, const struct list *list)
{
    return size_for(list->n) > l->max_bytes / 4;
}

static void resize(struct lists *l, struct list *list, size_t cap)
{
    l->bytes = l->bytes + cap * sizeof(reader_idx) - list->cap * sizeof(reader_idx);
    if (cap == 0) {
        free(list->at);
        list->at = NULL;
    } else {
        list->at = mem_grow(list->at, cap, sizeof(reader_idx));
    }
    list->cap = (uint32_t)cap;
}

static void let_go(struct lists *l, struct list *list)
{
    for (uint32_t i = 0; i < list->n; i++)
        readers_release(l->readers, list->at[i]);
    list->n = 0;
    resize(l, list, 0);
}

static void move_to(struct lists *l, struct list *list, enum list_state state)
{
    TAILQ_REMOVE(&l->queues[list->state], list, queue);
    l->cached -= list->state == LIST_CACHED;
    list->state = state;
    l->cached += state == LIST_CACHED;
    TAILQ_INSERT_TAIL(&l->queues[state], list, queue);
}

/* Frees a gone list as far as nobody needs it: its readers with the last pin, itself when it is not loading
 * either. */
static void settle(struct lists *l, struct list *list)
{
    if (list->pins > 0)
        return;
    let_go(l, list);
    if (list->open)
        return;
    TAILQ_REMOVE(&l->queues[LIST_GONE], list, queue);
    l->bytes -= size_for(0);
    free(list);
}

/* The list is its target's no more. */
static void drop(struct lists *l, struct list *list)
{
    if (list->state != LIST_GONE) {
        slots_remove(l, list);
        move_to(l, list, LIST_GONE);
    }
    settle(l, list);
}

static void evict(struct lists *l, struct list *list)
{
    l->evictions++;
    drop(l, list);
}

/* Drops the least recently used lists until the cap is kept: false when pinned and loading ones, which stay,
 * take more than that. */
static bool make_room(struct lists *l)
{
    struct list *list = TAILQ_FIRST(&l->queues[LIST_CACHED]), *next;
    for (; list && l->bytes > l->max_bytes; list = next) {
        next = TAILQ_NEXT(list, queue);
        if (list->pins == 0)
            evict(l, list);
    }
    return l->bytes <= l->max_bytes;
}

/* ---- the lives of lists ---- */

static void forget_all(struct lists *l, bool freeing)
{
    for (int state = LIST_LOADING; state <= LIST_GONE; state++) {
        struct list *list = TAILQ_FIRST(&l->queues[state]), *next;
        for (; list && (freeing || state != LIST_GONE); list = next) {
            next = TAILQ_NEXT(list, queue);
            list->pins = freeing ? 0 : list->pins;
            list->open = list->open && !freeing;
            drop(l, list);
        }
    }
}

void lists_clear(struct lists *l)
{
    forget_all(l, false);
}

void lists_free(struct lists *l)
{
    if (!l)
        return;
    forget_all(l, true);
    assert(l->bytes == 0);
    free(l);
}

struct list *lists_find(struct lists *l, const char *target)
{
    struct list *list = find(l, target);
    if (!list || list->state != LIST_CACHED)
        return NULL;
    move_to(l, list, LIST_CACHED);
    return list;
}

struct list *lists_begin(struct lists *l, const char *target)
{
    size_t len = strlen(target);
    assert(len >= 1 && len < TARGET_TEXT_SIZE);
    if (find(l, target))
        return NULL;
    struct list *list = mem_zero(1, sizeof *list);
    memcpy(list->target, target, len + 1);
    list->hash = readers_hash(target);
    list->open = true;
    list->state = LIST_LOADING;
    TAILQ_INSERT_TAIL(&l->queues[LIST_LOADING], list, queue);
    l->bytes += size_for(0);
    slots_insert(l, list);
    if (!make_room(l))
        drop(l, list);
    return list;
}

static size_t grown(size_t cap)
{
    size_t n = cap + cap / 4 + 16;
    assert(n < UINT32_MAX);
    return n;
}

static void append(struct lists *l, struct list *list, reader_idx i)
{
    readers_hold(l->readers, i);
    list->at[list->n++] = i;
}

/* Room for one more on a list that is loading. It gives up at a quarter of the cap, or when the others that
 * are loading or pinned leave no room: so what is never going to be kept does not throw out what is. */
static bool room_to_load(struct lists *l, struct list *list)
{
    size_t most = most_readers(l);
    if (list->n < list->cap)
        return true;
    if (list->n >= most)
        return false;
    size_t cap = grown(list->cap);
    resize(l, list, cap < most ? cap : most);
    return make_room(l);
}

void lists_add(struct lists *l, struct list *list, reader_idx i)
{
    assert(list->open);
    if (list->state == LIST_GONE || !readers_active(l->readers, i))
        return;
    if (room_to_load(l, list))
        append(l, list, i);
    else
        drop(l, list);
}

bool lists_end(struct lists *l, struct list *list)
{
    assert(list->open);
    list->open = false;
    if (list->state == LIST_LOADING) {
        resize(l, list, list->n);
        if (!too_large(l, list) && make_room(l)) {
            move_to(l, list, LIST_CACHED);
            return true;
        }
    }
    drop(l, list);
    return false;
}

void lists_abort(struct lists *l, struct list *list)
{
    if (!list)
        return;
    assert(list->open);
    list->open = false;
    drop(l, list);
}

void lists_newborn(struct lists *l, reader_idx i, const char *target)
{
    struct list *list = find(l, target);
    if (!list || !readers_active(l->readers, i))
        return;
    if (list->state == LIST_LOADING) {
        lists_add(l, list, i);
        list->mixed = true;
        return;
    }
    if (list->n == list->cap)
        resize(l, list, grown(list->cap));
    append(l, list, i);
    list->mixed = true;
    if (list->pins == 0 && too_large(l, list))
        evict(l, list);
    make_room(l);
}

/* ---- order ---- */

/* Throws out the retired and whoever comes a second time; counts those who stay by bucket. */
static void sweep(struct lists *l, struct list *list, uint32_t counts[BUCKETS])
{
    struct readers *r = l->readers;
    uint32_t kept = 0;
    readers_begin_round(r);
    for (uint32_t i = 0; i < list->n; i++) {
        reader_idx x = list->at[i];
        if (readers_active(r, x) && readers_meet(r, x)) {
            counts[readers_bucket(r, x)]++;
            list->at[kept++] = x;
        } else {
            readers_release(r, x);
        }
    }
    list->n = kept;
    list->retired_seen = 0;
}

/* A counting sort, stable, into an array of its own. */
static void sort(struct lists *l, struct list *list, uint32_t counts[BUCKETS])
{
    reader_idx *to = mem_grow(NULL, list->n, sizeof *to);
    uint32_t place = 0;
    for (unsigned b = 0; b < BUCKETS; b++) {
        uint32_t n = counts[b];
        counts[b] = place;
        place += n;
    }
    for (uint32_t i = 0; i < list->n; i++)
        to[counts[readers_bucket(l->readers, list->at[i])]++] = list->at[i];
    free(list->at);
    list->at = to;
    l->bytes = l->bytes + list->n * sizeof *to - list->cap * sizeof *to;
    list->cap = list->n;
}

const reader_idx *lists_order(struct lists *l, struct list *list, size_t *n)
{
    bool many_retired = list->retired_seen > 0 && list->retired_seen >= list->n / 8;
    if (list->pins == 0 && (list->mixed || many_retired)) {
        uint32_t counts[BUCKETS] = {0};
        sweep(l, list, counts);
        if (list->mixed && list->n > 0)
            sort(l, list, counts);
        else
            resize(l, list, list->n);
        list->mixed = false;
    }
    *n = list->n;
    return list->at;
}

void lists_pin(struct lists *l, struct list *list)
{
    (void)l;
    list->pins++;
}

void lists_unpin(struct lists *l, struct list *list)
{
    assert(list->pins > 0);
    if (--list->pins > 0)
        return;
    if (list->state == LIST_GONE)
        settle(l, list);
    else if (list->state == LIST_CACHED && too_large(l, list))
        evict(l, list);
    make_room(l);
}

size_t lists_bytes(const struct lists *l)
{
    return l->bytes;
}

size_t lists_count_lists(const struct lists *l)
{
    return l->cached;
}

uint64_t lists_evictions(const struct lists *l)
{
    return l->evictions;
}
