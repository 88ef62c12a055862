#include "fanout/buckets.h"

#include <assert.h>
#include <string.h>

void buckets_init(struct buckets *b)
{
    memset(b, 0, sizeof *b);
}

void buckets_own(struct buckets *b, unsigned bucket, int64_t epoch, ts_t applied)
{
    assert(bucket < BUCKETS && epoch > 0);
    struct bucket *x = &b->at[bucket];
    x->owned = true;
    x->applied = applied;
    x->n = 0;
    x->births = -1;
    ts_format((uint64_t)epoch, x->epoch);
}

void buckets_drop_share(struct buckets *b, unsigned share)
{
    assert(share < SHARES);
    memset(&b->at[share * SHARE_BUCKETS], 0, SHARE_BUCKETS * sizeof b->at[0]);
}

unsigned buckets_owned(const struct buckets *b)
{
    unsigned n = 0;
    for (unsigned i = 0; i < BUCKETS; i++)
        n += b->at[i].owned;
    return n;
}

bool buckets_least(const struct buckets *b, ts_t *least)
{
    bool any = false;
    ts_t min = 0;
    for (unsigned i = 0; i < BUCKETS; i++) {
        if (b->at[i].owned && (!any || b->at[i].applied < min)) {
            min = b->at[i].applied;
            any = true;
        }
    }
    if (any)
        *least = min;
    return any;
}

bool bucket_is_due(const struct buckets *b, unsigned bucket, ts_t t)
{
    return bucket < BUCKETS && b->at[bucket].owned && t > b->at[bucket].applied;
}

unsigned buckets_due(const struct buckets *b, ts_t t, struct bucket_range out[BUCKET_RANGES_MAX])
{
    unsigned n = 0;
    for (unsigned i = 0; i < BUCKETS; i++) {
        if (!bucket_is_due(b, i, t))
            continue;
        if (n && out[n - 1].last + 1 == i)
            out[n - 1].last = i;
        else
            out[n++] = (struct bucket_range){i, i};
    }
    return n;
}
