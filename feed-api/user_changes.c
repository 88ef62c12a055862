#include "feed-api/user_changes.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/ids.h"
#include "common/mem.h"

#define FIRST_CHAINS 256

struct change_of_user {
    struct change_of_user *chain;         /* with the same place in the table */
    struct change_of_user *older, *newer; /* by when it was noted */
    uint64_t hash;
    ts_t when;
    int64_t noted_ms;
    char user[];
};

struct user_changes {
    size_t max, n;
    int64_t keep_ms;
    ts_t memory;
    uint64_t seed;
    struct change_of_user **chains;
    size_t n_chains; /* a power of two */
    struct change_of_user *oldest, *newest;
};

struct user_changes *user_changes_new(size_t max, int64_t keep_ms)
{
    assert(max > 0);
    struct user_changes *u = mem_zero(1, sizeof *u);
    u->max = max;
    u->keep_ms = keep_ms;
    u->memory = UINT64_MAX;
    u->seed = (uint64_t)ids_random_bits() << 32 | ids_random_bits();
    u->n_chains = FIRST_CHAINS;
    u->chains = mem_zero(u->n_chains, sizeof *u->chains);
    return u;
}

/* FNV-1a, begun at a random place. */
static uint64_t hash_user(const struct user_changes *u, const char *user)
{
    uint64_t h = UINT64_C(14695981039346656037) ^ u->seed;
    for (; *user != '\0'; user++)
        h = (h ^ (unsigned char)*user) * UINT64_C(1099511628211);
    return h ^ h >> 32;
}

static struct change_of_user **find_place(const struct user_changes *u, const char *user, uint64_t hash)
{
    struct change_of_user **at = &u->chains[hash & (u->n_chains - 1)];
    while (*at != NULL && ((*at)->hash != hash || strcmp((*at)->user, user) != 0))
        at = &(*at)->chain;
    return at;
}

static void unlink_age(struct user_changes *u, struct change_of_user *c)
{
    if (c->older != NULL)
        c->older->newer = c->newer;
    else
        u->oldest = c->newer;
    if (c->newer != NULL)
        c->newer->older = c->older;
    else
        u->newest = c->older;
}

static void link_newest(struct user_changes *u, struct change_of_user *c)
{
    c->newer = NULL;
    c->older = u->newest;
    if (u->newest != NULL)
        u->newest->newer = c;
    else
        u->oldest = c;
    u->newest = c;
}

static void forget(struct user_changes *u, struct change_of_user *c)
{
    struct change_of_user **at = find_place(u, c->user, c->hash);
    *at = c->chain;
    unlink_age(u, c);
    u->memory = ts_max(u->memory, c->when + 1);
    u->n--;
    free(c);
}

static void grow_table(struct user_changes *u)
{
    free(u->chains);
    u->n_chains *= 2;
    u->chains = mem_zero(u->n_chains, sizeof *u->chains);
    for (struct change_of_user *c = u->oldest; c != NULL; c = c->newer) {
        struct change_of_user **at = &u->chains[c->hash & (u->n_chains - 1)];
        c->chain = *at;
        *at = c;
    }
}

void user_changes_begin(struct user_changes *u, ts_t from)
{
    struct change_of_user *newer;
    for (struct change_of_user *c = u->oldest; c != NULL; c = newer) {
        newer = c->newer;
        if (c->when < from)
            forget(u, c);
    }
    u->memory = from;
}

void user_changes_free(struct user_changes *u)
{
    if (u == NULL)
        return;
    user_changes_begin(u, UINT64_MAX);
    free(u->chains);
    free(u);
}

void user_changes_expire(struct user_changes *u, int64_t mono_ms)
{
    while (u->oldest != NULL && (u->n > u->max || mono_ms - u->oldest->noted_ms > u->keep_ms))
        forget(u, u->oldest);
}

void user_changes_note(struct user_changes *u, const char *user, ts_t when, int64_t mono_ms)
{
    uint64_t hash = hash_user(u, user);
    struct change_of_user **at = find_place(u, user, hash);
    struct change_of_user *c = *at;
    if (c != NULL) {
        unlink_age(u, c);
        c->when = ts_max(c->when, when);
    } else {
        size_t n = strlen(user) + 1;
        c = mem_alloc(sizeof *c + n);
        *c = (struct change_of_user){.hash = hash, .when = when};
        memcpy(c->user, user, n);
        *at = c;
        u->n++;
    }
    c->noted_ms = mono_ms;
    link_newest(u, c);
    user_changes_expire(u, mono_ms);
    if (u->n > u->n_chains)
        grow_table(u);
}

ts_t user_changes_find(const struct user_changes *u, const char *user)
{
    const struct change_of_user *c = *find_place(u, user, hash_user(u, user));
    return c != NULL ? c->when : 0;
}

ts_t user_changes_memory(const struct user_changes *u)
{
    return u->memory;
}

size_t user_changes_count(const struct user_changes *u)
{
    return u->n;
}
