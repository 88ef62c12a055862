#include "feed-api/item_ids.h"

#include <pthread.h>
#include <stdlib.h>

#include "common/mem.h"

#define WAYS    4
#define SETS    1024
#define PER_MS  (1u << ITEM_ID_RANDOM_BITS)
#define LAST_MS ((INT64_C(1) << 42) - 1)

/* One published_at. Its ids are base + k * stride (mod 2,048): with an odd stride that visits each once. */
struct crowd {
    int64_t published_ms; /* -1: unused */
    int64_t ms;           /* where its items go at present */
    uint32_t base, stride;
    uint32_t used;  /* ids handed out in ms */
    uint32_t taken; /* in a row that were not free */
    uint64_t last;  /* tick of its latest use */
};

struct item_ids {
    pthread_mutex_t lock;
    uint64_t tick;
    struct crowd crowds[SETS][WAYS];
};

struct item_ids *item_ids_new(void)
{
    struct item_ids *g = mem_zero(1, sizeof *g);
    pthread_mutex_init(&g->lock, NULL);
    for (int i = 0; i < SETS; i++)
        for (int j = 0; j < WAYS; j++)
            g->crowds[i][j].published_ms = g->crowds[i][j].ms = -1;
    return g;
}

void item_ids_free(struct item_ids *g)
{
    if (g == NULL)
        return;
    pthread_mutex_destroy(&g->lock);
    free(g);
}

static void crowd_enter(struct crowd *c, int64_t ms)
{
    c->ms = ms < LAST_MS ? ms : LAST_MS;
    c->base = ids_random_bits();
    c->stride = ids_random_bits() | 1;
    c->used = 0;
    c->taken = 0;
}

static struct crowd *crowd_find(struct item_ids *g, int64_t published_ms)
{
    struct crowd *set = g->crowds[(uint64_t)published_ms * UINT64_C(0x9e3779b97f4a7c15) >> 54];
    for (int i = 0; i < WAYS; i++)
        if (set[i].published_ms == published_ms)
            return &set[i];
    return NULL;
}

/* What is least worth remembering goes: milliseconds that have not spilled, then the one used longest ago. */
static struct crowd *crowd_make(struct item_ids *g, int64_t published_ms)
{
    struct crowd *set = g->crowds[(uint64_t)published_ms * UINT64_C(0x9e3779b97f4a7c15) >> 54];
    struct crowd *worst = &set[0];
    for (int i = 1; i < WAYS; i++) {
        bool spilled = set[i].ms != set[i].published_ms;
        bool worst_spilled = worst->ms != worst->published_ms;
        if (spilled != worst_spilled ? worst_spilled : set[i].last < worst->last)
            worst = &set[i];
    }
    worst->published_ms = published_ms;
    crowd_enter(worst, published_ms);
    return worst;
}

item_id item_ids_next(struct item_ids *g, int64_t published_ms)
{
    pthread_mutex_lock(&g->lock);
    struct crowd *c = crowd_find(g, published_ms);
    if (c == NULL)
        c = crowd_make(g, published_ms);
    if (c->used == PER_MS)
        crowd_enter(c, c->ms + 1);
    c->last = ++g->tick;
    item_id id = ids_make(c->ms, c->base + c->used++ * c->stride);
    pthread_mutex_unlock(&g->lock);
    return id;
}

void item_ids_result(struct item_ids *g, int64_t published_ms, item_id id, bool was_free)
{
    pthread_mutex_lock(&g->lock);
    struct crowd *c = crowd_find(g, published_ms);
    /* answers about a millisecond that was left meanwhile say nothing about the present one */
    if (c != NULL && c->ms == ids_time_ms(id)) {
        c->taken = was_free ? 0 : c->taken + 1;
        if (c->taken >= ITEM_IDS_TRIES)
            crowd_enter(c, c->ms + 1);
    }
    pthread_mutex_unlock(&g->lock);
}

void item_ids_unused(struct item_ids *g, int64_t published_ms, item_id id)
{
    pthread_mutex_lock(&g->lock);
    struct crowd *c = crowd_find(g, published_ms);
    /* only the latest can be handed out again; with many threads some are lost, which does no harm */
    if (c != NULL && c->used > 0 && id == ids_make(c->ms, c->base + (c->used - 1) * c->stride))
        c->used--;
    pthread_mutex_unlock(&g->lock);
}
