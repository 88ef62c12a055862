#include "tools/latency.h"

#include <math.h>

#define SUB_BITS 6
#define SUB      (1 << SUB_BITS)
#define TOP_US   UINT32_MAX

static unsigned step_of(uint64_t us)
{
    if (us < 2 * SUB)
        return (unsigned)us;
    unsigned shift = 63U - (unsigned)__builtin_clzll(us) - SUB_BITS;
    return shift * SUB + (unsigned)(us >> shift);
}

static int64_t end_of(unsigned step)
{
    if (step < 2 * SUB)
        return step;
    unsigned shift = step / SUB - 1;
    return (((int64_t)(step - shift * SUB) + 1) << shift) - 1;
}

void latency_add(struct latency *l, int64_t us)
{
    uint64_t v = us < 0 ? 0 : us > TOP_US ? TOP_US : (uint64_t)us;
    l->steps[step_of(v)]++;
    l->count++;
    if (us > l->max_us)
        l->max_us = us;
}

int64_t latency_quantile(const struct latency *l, double q)
{
    uint64_t wanted = (uint64_t)ceil(q * (double)l->count), seen = 0;
    for (unsigned i = 0; i < LATENCY_STEPS; i++) {
        seen += l->steps[i];
        if (l->count > 0 && seen >= (wanted ? wanted : 1))
            return end_of(i) < l->max_us ? end_of(i) : l->max_us;
    }
    return 0;
}
