#include "fanout/modes.h"

#include <stdlib.h>
#include <string.h>
#include "common/mem.h"
#include "common/target_modes.h"
#include "fanout/readers.h"

#define CHAINS 1024

struct pulled {
    struct pulled *chain;
    uint32_t hash;
    ts_t since;
    char target[TARGET_TEXT_SIZE];
};

struct modes {
    struct pulled *chains[CHAINS];
    unsigned n;
};

struct modes *modes_new(void)
{
    return mem_zero(1, sizeof(struct modes));
}

static void clear(struct modes *m)
{
    for (unsigned i = 0; i < CHAINS; i++) {
        while (m->chains[i]) {
            struct pulled *p = m->chains[i];
            m->chains[i] = p->chain;
            free(p);
        }
    }
    m->n = 0;
}

void modes_free(struct modes *m)
{
    if (!m)
        return;
    clear(m);
    free(m);
}

/* Where the target's entry hangs, or would. */
static struct pulled **place(struct modes *m, const char *target, uint32_t hash)
{
    struct pulled **at = &m->chains[hash % CHAINS];
    while (*at && ((*at)->hash != hash || strcmp((*at)->target, target) != 0))
        at = &(*at)->chain;
    return at;
}

void modes_set(struct modes *m, const char *target, bool pull, ts_t t)
{
    uint32_t hash = readers_hash(target);
    struct pulled **at = place(m, target, hash), *p = *at;
    if (!pull) {
        if (!p)
            return;
        *at = p->chain;
        free(p);
        m->n--;
        return;
    }
    if (!p) {
        p = *at = mem_zero(1, sizeof *p);
        p->hash = hash;
        strcpy(p->target, target);
        m->n++;
    }
    p->since = t;
}

bool modes_pulled(const struct modes *m, const char *target, ts_t t)
{
    if (m->n == 0)
        return false;
    const struct pulled *p = *place((struct modes *)m, target, readers_hash(target));
    return p && t > p->since;
}

static void take(void *arg, const char *target)
{
    modes_set(arg, target, true, 0); /* the time follows, when all are read */
}

int modes_load(struct modes *m, struct mongo_conn *c, struct err *e)
{
    struct modes *fresh = modes_new();
    if (target_modes_pulled(c, take, fresh, e) != 0) {
        modes_free(fresh);
        return -1;
    }
    ts_t now = mongo_conn_time(c);
    for (unsigned i = 0; i < CHAINS; i++) {
        for (struct pulled *p = fresh->chains[i]; p; p = p->chain)
            p->since = now;
    }
    struct modes old = *m;
    *m = *fresh;
    *fresh = old;
    modes_free(fresh);
    return 0;
}

unsigned modes_count(const struct modes *m)
{
    return m->n;
}
