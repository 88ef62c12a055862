#include "feed-api/stream_posts.h"

#include <stdlib.h>
#include <string.h>

#include "common/ids.h"
#include "common/mem.h"

#define FIRST_CHAINS 256

struct list {
    struct list *chain;
    uint64_t hash;
    size_t start, end, cap; /* of seqs */
    uint64_t *seqs;
    char name[]; /* with the kind's letter before it */
};

struct stream_posts {
    struct list **chains;
    size_t n_chains, n, bytes;
    uint64_t seed;
};

struct stream_posts *stream_posts_new(void)
{
    struct stream_posts *p = mem_zero(1, sizeof *p);
    p->n_chains = FIRST_CHAINS;
    p->chains = mem_zero(p->n_chains, sizeof(struct list *));
    p->seed = (uint64_t)ids_random_bits() << 32 | ids_random_bits();
    return p;
}

/* FNV-1a, begun at a random place. */
static uint64_t hash_of(const struct stream_posts *p, char letter, const char *name)
{
    uint64_t h = UINT64_C(14695981039346656037) ^ p->seed ^ (unsigned char)letter;
    for (; *name != '\0'; name++)
        h = (h ^ (unsigned char)*name) * UINT64_C(1099511628211);
    return h ^ h >> 32;
}

static struct list **place(const struct stream_posts *p, enum target_kind kind, const char *name,
                           uint64_t *hash)
{
    char letter = target_kind_letter(kind);
    *hash = hash_of(p, letter, name);
    struct list **at = &p->chains[*hash & (p->n_chains - 1)];
    while (*at != NULL &&
           ((*at)->hash != *hash || (*at)->name[0] != letter || strcmp((*at)->name + 1, name) != 0))
        at = &(*at)->chain;
    return at;
}

static size_t list_bytes(const struct list *l)
{
    return sizeof *l + strlen(l->name) + 32 + l->cap * sizeof *l->seqs;
}

static void forget(struct stream_posts *p, struct list **at)
{
    struct list *l = *at;
    *at = l->chain;
    p->n--;
    p->bytes -= list_bytes(l);
    free(l->seqs);
    free(l);
}

void stream_posts_free(struct stream_posts *p)
{
    if (p == NULL)
        return;
    for (size_t i = 0; i < p->n_chains; i++) {
        while (p->chains[i] != NULL)
            forget(p, &p->chains[i]);
    }
    free(p->chains);
    free(p);
}

static void grow_table(struct stream_posts *p)
{
    struct list **old = p->chains;
    size_t n = p->n_chains;
    p->n_chains *= 2;
    p->chains = mem_zero(p->n_chains, sizeof(struct list *));
    for (size_t i = 0; i < n; i++) {
        for (struct list *l = old[i], *next; l != NULL; l = next) {
            struct list **to = &p->chains[l->hash & (p->n_chains - 1)];
            next = l->chain;
            l->chain = *to;
            *to = l;
        }
    }
    free(old);
}

static struct list *find_or_make(struct stream_posts *p, enum target_kind kind, const char *name)
{
    uint64_t hash;
    struct list **at = place(p, kind, name, &hash);
    if (*at != NULL)
        return *at;
    size_t n = strlen(name) + 1;
    struct list *l = mem_zero(1, sizeof *l + n + 1);
    l->hash = hash;
    l->name[0] = target_kind_letter(kind);
    memcpy(l->name + 1, name, n);
    *at = l;
    p->bytes += list_bytes(l);
    if (++p->n > p->n_chains)
        grow_table(p);
    return l;
}

/* The place of the first one at or after seq. */
static size_t lower(const struct list *l, uint64_t seq)
{
    size_t low = l->start, high = l->end;
    if (low < high && l->seqs[high - 1] < seq)
        return high;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (l->seqs[mid] < seq)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* Room for one more at the end: what is free at the start is used first, when it is half of all. */
static void make_room(struct stream_posts *p, struct list *l)
{
    if (l->end < l->cap)
        return;
    if (l->start > l->cap / 2) {
        memmove(l->seqs, l->seqs + l->start, (l->end - l->start) * sizeof *l->seqs);
        l->end -= l->start;
        l->start = 0;
        return;
    }
    size_t cap = l->cap ? l->cap * 2 : 2;
    l->seqs = mem_grow(l->seqs, cap, sizeof *l->seqs);
    p->bytes += (cap - l->cap) * sizeof *l->seqs;
    l->cap = cap;
}

void stream_posts_add(struct stream_posts *p, enum target_kind kind, const char *name, uint64_t seq)
{
    struct list *l = find_or_make(p, kind, name);
    make_room(p, l);
    size_t at = lower(l, seq);
    if (at < l->end && l->seqs[at] == seq)
        return; /* a former topic that is a present one too */
    memmove(l->seqs + at + 1, l->seqs + at, (l->end - at) * sizeof *l->seqs);
    l->seqs[at] = seq;
    l->end++;
}

void stream_posts_drop(struct stream_posts *p, enum target_kind kind, const char *name, uint64_t seq)
{
    uint64_t hash;
    struct list **where = place(p, kind, name, &hash), *l = *where;
    if (l == NULL)
        return;
    size_t at = lower(l, seq);
    if (at == l->end || l->seqs[at] != seq)
        return;
    if (at == l->start) {
        l->start++;
    } else {
        memmove(l->seqs + at, l->seqs + at + 1, (l->end - at - 1) * sizeof *l->seqs);
        l->end--;
    }
    if (l->start == l->end)
        forget(p, where);
}

const uint64_t *stream_posts_from(const struct stream_posts *p, enum target_kind kind, const char *name,
                                  uint64_t seq, size_t *n)
{
    uint64_t hash;
    const struct list *l = *place(p, kind, name, &hash);
    *n = 0;
    if (l == NULL)
        return NULL;
    size_t at = lower(l, seq);
    *n = l->end - at;
    return l->seqs + at;
}

size_t stream_posts_bytes(const struct stream_posts *p)
{
    return p->bytes;
}
