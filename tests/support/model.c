#include "tests/support/model.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

void model_init(struct model *m)
{
    memset(m, 0, sizeof *m);
}

void model_done(struct model *m)
{
    free(m->items);
    for (size_t i = 0; i < MODEL_USERS_MAX; i++)
        free(m->users[i].muted);
    model_init(m);
}

/* The place of id, or where it would have to go. */
static size_t place_of(const struct model *m, item_id id)
{
    size_t lo = 0, hi = m->n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (m->items[mid].id < id)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

void model_put(struct model *m, const struct model_item *it)
{
    struct model_item copy = *it; /* may be one of ours */
    size_t at = place_of(m, copy.id);
    if (at == m->n || m->items[at].id != copy.id) {
        if (m->n == m->cap) {
            m->cap = m->cap ? 2 * m->cap : 64;
            m->items = mem_grow(m->items, m->cap, sizeof *m->items);
        }
        memmove(m->items + at + 1, m->items + at, (m->n - at) * sizeof *m->items);
        m->n++;
    }
    m->items[at] = copy;
}

struct model_item *model_find(const struct model *m, item_id id)
{
    size_t at = place_of(m, id);
    return at < m->n && m->items[at].id == id ? &m->items[at] : NULL;
}

struct model_item *model_find_external(const struct model *m, unsigned publisher, const char *external)
{
    for (size_t i = 0; *external && i < m->n; i++) {
        if (m->items[i].publisher == publisher && strcmp(m->items[i].external, external) == 0)
            return &m->items[i];
    }
    return NULL;
}

static size_t muted_at(const struct model_user *u, item_id id)
{
    size_t i = 0;
    while (i < u->n_muted && u->muted[i] != id)
        i++;
    return i;
}

bool model_has_edge(const struct model *m, const struct model_edge *e)
{
    const struct model_user *u = &m->users[e->user];
    if (e->kind == MODEL_MUTE_ITEM)
        return muted_at(u, e->item) < u->n_muted;
    return u->sets[e->kind] >> e->what & 1;
}

bool model_edge(struct model *m, const struct model_edge *e)
{
    struct model_user *u = &m->users[e->user];
    if (model_has_edge(m, e) != e->remove)
        return false;
    if (e->kind != MODEL_MUTE_ITEM) {
        u->sets[e->kind] ^= UINT32_C(1) << e->what;
    } else if (e->remove) {
        u->muted[muted_at(u, e->item)] = u->muted[u->n_muted - 1];
        u->n_muted--;
    } else {
        u->muted = mem_grow(u->muted, u->n_muted + 1, sizeof *u->muted);
        u->muted[u->n_muted++] = e->item;
    }
    return true;
}

bool model_follows(const struct model *m, unsigned user, const struct model_item *it)
{
    const struct model_user *u = &m->users[user];
    return (u->sets[MODEL_FOLLOW_PUBLISHER] >> it->publisher & 1) ||
           (u->sets[MODEL_FOLLOW_TOPIC] & it->topics);
}

bool model_mutes(const struct model *m, unsigned user, const struct model_item *it)
{
    const struct model_user *u = &m->users[user];
    return (u->sets[MODEL_MUTE_PUBLISHER] >> it->publisher & 1) || (u->sets[MODEL_MUTE_TOPIC] & it->topics) ||
           (u->sets[MODEL_MUTE_WORD] & it->words) || muted_at(u, it->id) < u->n_muted;
}

bool model_shows(const struct model *m, unsigned user, const struct model_item *it)
{
    return it->live && model_follows(m, user, it) && !model_mutes(m, user, it);
}

enum list_kind { LIST_FEED, LIST_PUBLISHER, LIST_TOPIC };

static const struct model_item **list(const struct model *m, enum list_kind kind, unsigned what, size_t *n)
{
    const struct model_item **out = mem_alloc((m->n + 1) * sizeof *out);
    *n = 0;
    for (size_t i = m->n; i > 0; i--) {
        const struct model_item *it = &m->items[i - 1];
        bool in = kind == LIST_FEED        ? model_shows(m, what, it)
                  : kind == LIST_PUBLISHER ? it->live && it->publisher == what
                                           : it->live && (it->topics >> what & 1);
        if (in)
            out[(*n)++] = it;
    }
    return out;
}

const struct model_item **model_feed(const struct model *m, unsigned user, size_t *n)
{
    return list(m, LIST_FEED, user, n);
}

const struct model_item **model_publisher(const struct model *m, unsigned publisher, size_t *n)
{
    return list(m, LIST_PUBLISHER, publisher, n);
}

const struct model_item **model_topic(const struct model *m, unsigned topic, size_t *n)
{
    return list(m, LIST_TOPIC, topic, n);
}
