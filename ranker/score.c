#include "ranker/score.h"

#include <math.h>
#include <stdlib.h>

static double finite_or_0(double v)
{
    return isfinite(v) ? v : 0;
}

double score_decay(double value, int64_t age_ms, int64_t half_life_ms)
{
    if (age_ms <= 0)
        return value;
    return value * exp2(-(double)age_ms / (double)half_life_ms);
}

double score_of(const struct score_weights *w, const struct score_features *f)
{
    double a = finite_or_0(f->publisher_affinity) + finite_or_0(f->topic_affinity) / 2;
    double others = fmax(0, finite_or_0(f->engagement) - 1);
    double freshness = score_decay(1, f->age_ms, w->freshness_half_life_ms);
    double affinity = a / (fabs(a) + 3);
    double engagement = fmin(1, log2(1 + others) / 10);
    return w->freshness * freshness + w->affinity * affinity + w->engagement * engagement;
}

static int compare(const void *x, const void *y)
{
    const struct score_entry *a = x, *b = y;
    if (a->score != b->score)
        return a->score < b->score ? 1 : -1;
    return a->id < b->id ? 1 : a->id > b->id ? -1 : 0;
}

void score_sort(struct score_entry *entries, size_t n)
{
    qsort(entries, n, sizeof *entries, compare);
}
