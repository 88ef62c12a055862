/* Edges are kept at both ends by numbers, each with its place at the other end, so that one is taken out
 * without looking for it: the last one of the target's list takes its place. */
#include "feed-api/stream_index.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/ids.h"
#include "common/mem.h"

#define FIRST_CHAINS 256
#define NOBODY       UINT32_MAX

struct target {
    uint32_t number, chain; /* chain: the next target of the same hash, NOBODY at the end */
    uint64_t hash;
    uint32_t n, cap;
    uint32_t *streams, *places; /* of each: the stream, and where the edge stands in its list */
    char name[];                /* with the kind's letter before it */
};

struct edge {
    uint32_t target, place;
};

struct listener {
    struct edge *edges; /* by target, ascending */
    uint32_t n;
};

struct stream_index {
    struct target **targets; /* by number; NULL: free */
    uint32_t n_targets, targets_cap;
    uint32_t *spare; /* numbers that are free */
    uint32_t n_spare, spare_cap;
    uint32_t *chains;
    size_t n_chains, living, edges;
    struct listener *listeners; /* by stream */
    uint32_t listeners_cap;
    uint64_t seed;
};

struct stream_index *stream_index_new(void)
{
    struct stream_index *x = mem_zero(1, sizeof *x);
    x->n_chains = FIRST_CHAINS;
    x->chains = mem_alloc(x->n_chains * sizeof *x->chains);
    memset(x->chains, 0xff, x->n_chains * sizeof *x->chains);
    x->seed = (uint64_t)ids_random_bits() << 32 | ids_random_bits();
    return x;
}

void stream_index_free(struct stream_index *x)
{
    if (x == NULL)
        return;
    for (uint32_t i = 0; i < x->listeners_cap; i++)
        free(x->listeners[i].edges);
    for (uint32_t i = 0; i < x->n_targets; i++) {
        if (x->targets[i] == NULL)
            continue;
        free(x->targets[i]->streams);
        free(x->targets[i]->places);
        free(x->targets[i]);
    }
    free(x->targets);
    free(x->spare);
    free(x->chains);
    free(x->listeners);
    free(x);
}

/* ---- targets ---- */

/* FNV-1a, begun at a random place. */
static uint64_t hash_of(const struct stream_index *x, char letter, const char *name)
{
    uint64_t h = UINT64_C(14695981039346656037) ^ x->seed ^ (unsigned char)letter;
    for (; *name != '\0'; name++)
        h = (h ^ (unsigned char)*name) * UINT64_C(1099511628211);
    return h ^ h >> 32;
}

static struct target *find(const struct stream_index *x, enum target_kind kind, const char *name)
{
    char letter = target_kind_letter(kind);
    uint64_t hash = hash_of(x, letter, name);
    uint32_t i = x->chains[hash & (x->n_chains - 1)];
    for (; i != NOBODY; i = x->targets[i]->chain) {
        struct target *t = x->targets[i];
        if (t->hash == hash && t->name[0] == letter && strcmp(t->name + 1, name) == 0)
            return t;
    }
    return NULL;
}

static void chain_in(struct stream_index *x, struct target *t)
{
    uint32_t *head = &x->chains[t->hash & (x->n_chains - 1)];
    t->chain = *head;
    *head = t->number;
}

static void grow_chains(struct stream_index *x)
{
    x->n_chains *= 2;
    x->chains = mem_grow(x->chains, x->n_chains, sizeof *x->chains);
    memset(x->chains, 0xff, x->n_chains * sizeof *x->chains);
    for (uint32_t i = 0; i < x->n_targets; i++) {
        if (x->targets[i] != NULL)
            chain_in(x, x->targets[i]);
    }
}

static uint32_t free_number(struct stream_index *x)
{
    if (x->n_spare > 0)
        return x->spare[--x->n_spare];
    if (x->n_targets == x->targets_cap) {
        x->targets_cap = x->targets_cap ? x->targets_cap * 2 : FIRST_CHAINS;
        x->targets = mem_grow(x->targets, x->targets_cap, sizeof(struct target *));
    }
    x->targets[x->n_targets] = NULL;
    return x->n_targets++;
}

static struct target *find_or_make(struct stream_index *x, enum target_kind kind, const char *name)
{
    struct target *t = find(x, kind, name);
    if (t != NULL)
        return t;
    size_t n = strlen(name) + 1;
    t = mem_zero(1, sizeof *t + n + 1);
    t->name[0] = target_kind_letter(kind);
    memcpy(t->name + 1, name, n);
    t->hash = hash_of(x, t->name[0], name);
    t->number = free_number(x);
    x->targets[t->number] = t;
    if (++x->living > x->n_chains)
        grow_chains(x);
    else
        chain_in(x, t);
    return t;
}

static void forget(struct stream_index *x, struct target *t)
{
    uint32_t *at = &x->chains[t->hash & (x->n_chains - 1)];
    while (*at != t->number)
        at = &x->targets[*at]->chain;
    *at = t->chain;
    x->targets[t->number] = NULL;
    if (x->n_spare == x->spare_cap) {
        x->spare_cap = x->spare_cap ? x->spare_cap * 2 : FIRST_CHAINS;
        x->spare = mem_grow(x->spare, x->spare_cap, sizeof *x->spare);
    }
    x->spare[x->n_spare++] = t->number;
    x->living--;
    free(t->streams);
    free(t->places);
    free(t);
}

/* ---- edges ---- */

static uint32_t enlist(struct target *t, uint32_t stream, uint32_t place)
{
    if (t->n == t->cap) {
        t->cap = t->cap ? t->cap + t->cap / 2 + 1 : 2;
        t->streams = mem_grow(t->streams, t->cap, sizeof *t->streams);
        t->places = mem_grow(t->places, t->cap, sizeof *t->places);
    }
    t->streams[t->n] = stream;
    t->places[t->n] = place;
    return t->n++;
}

static void delist(struct stream_index *x, const struct edge *edge)
{
    struct target *t = x->targets[edge->target];
    uint32_t last = --t->n, place = edge->place;
    if (place != last) {
        t->streams[place] = t->streams[last];
        t->places[place] = t->places[last];
        x->listeners[t->streams[place]].edges[t->places[place]].place = place;
    }
    x->edges--;
    if (t->n == 0)
        forget(x, t);
}

void stream_index_drop(struct stream_index *x, uint32_t stream)
{
    if (stream >= x->listeners_cap)
        return;
    struct listener *l = &x->listeners[stream];
    for (uint32_t i = 0; i < l->n; i++)
        delist(x, &l->edges[i]);
    free(l->edges);
    *l = (struct listener){0};
}

static int by_target(const void *a, const void *b)
{
    uint32_t x = ((const struct edge *)a)->target, y = ((const struct edge *)b)->target;
    return x < y ? -1 : x > y;
}

static struct listener *make_listener(struct stream_index *x, uint32_t stream, size_t n)
{
    if (stream >= x->listeners_cap) {
        uint32_t cap = x->listeners_cap ? x->listeners_cap : 64;
        while (cap <= stream)
            cap *= 2;
        x->listeners = mem_grow(x->listeners, cap, sizeof *x->listeners);
        memset(x->listeners + x->listeners_cap, 0, (cap - x->listeners_cap) * sizeof *x->listeners);
        x->listeners_cap = cap;
    }
    struct listener *l = &x->listeners[stream];
    l->edges = n ? mem_alloc(n * sizeof *l->edges) : NULL;
    return l;
}

void stream_index_set(struct stream_index *x, uint32_t stream, const struct follow_set *f)
{
    stream_index_drop(x, stream);
    struct listener *l = make_listener(x, stream, f->n_publishers + f->n_topics);
    for (size_t i = 0; i < f->n_publishers; i++)
        l->edges[l->n++].target = find_or_make(x, TARGET_PUBLISHER, f->publishers[i])->number;
    for (size_t i = 0; i < f->n_topics; i++)
        l->edges[l->n++].target = find_or_make(x, TARGET_TOPIC, f->topics[i])->number;
    if (l->n > 1)
        qsort(l->edges, l->n, sizeof *l->edges, by_target);
    for (uint32_t i = 0; i < l->n; i++) {
        assert(i == 0 || l->edges[i].target != l->edges[i - 1].target); /* a follow is there once */
        l->edges[i].place = enlist(x->targets[l->edges[i].target], stream, i);
    }
    x->edges += l->n;
}

/* ---- questions ---- */

const uint32_t *stream_index_find(const struct stream_index *x, enum target_kind kind, const char *name,
                                  size_t *n)
{
    const struct target *t = find(x, kind, name);
    *n = t != NULL ? t->n : 0;
    return t != NULL ? t->streams : NULL;
}

bool stream_index_has(const struct stream_index *x, uint32_t stream, enum target_kind kind, const char *name)
{
    const struct target *t = find(x, kind, name);
    if (t == NULL || stream >= x->listeners_cap || x->listeners[stream].n == 0)
        return false;
    struct edge key = {.target = t->number};
    const struct listener *l = &x->listeners[stream];
    return bsearch(&key, l->edges, l->n, sizeof key, by_target) != NULL;
}

void stream_index_each(const struct stream_index *x, uint32_t stream,
                       void (*fn)(enum target_kind kind, const char *name, void *arg), void *arg)
{
    for (uint32_t i = 0; i < stream_index_count(x, stream); i++) {
        const char *name = x->targets[x->listeners[stream].edges[i].target]->name;
        fn(name[0] == target_kind_letter(TARGET_PUBLISHER) ? TARGET_PUBLISHER : TARGET_TOPIC, name + 1, arg);
    }
}

size_t stream_index_count(const struct stream_index *x, uint32_t stream)
{
    return stream < x->listeners_cap ? x->listeners[stream].n : 0;
}

size_t stream_index_targets(const struct stream_index *x)
{
    return x->living;
}

size_t stream_index_edges(const struct stream_index *x)
{
    return x->edges;
}
