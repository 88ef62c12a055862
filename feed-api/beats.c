#include "feed-api/beats.h"

void beats_clear(struct beats *b)
{
    b->first = b->n = 0;
}

static const struct beat *beat_at(const struct beats *b, size_t i)
{
    return &b->ring[(b->first + i) % BEATS_MAX];
}

void beats_add(struct beats *b, ts_t t, int64_t at_ms)
{
    if (b->n > 0) {
        const struct beat *last = beat_at(b, b->n - 1);
        if (t <= last->t || at_ms < last->at_ms + BEATS_SPACE_MS)
            return;
    }
    if (b->n == BEATS_MAX) {
        b->first = (b->first + 1) % BEATS_MAX;
        b->n--;
    }
    b->ring[(b->first + b->n++) % BEATS_MAX] = (struct beat){t, at_ms};
}

int64_t beats_lag_ms(const struct beats *b, ts_t t, int64_t wall_ms, int64_t interval_ms)
{
    size_t low = 0, high = b->n; /* beats before low are at or before t */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (beat_at(b, middle)->t <= t)
            low = middle + 1;
        else
            high = middle;
    }
    int64_t at = low > 0 ? beat_at(b, low - 1)->at_ms : (int64_t)ts_seconds(t) * 1000;
    int64_t lag = wall_ms - at - interval_ms;
    return lag > 0 ? lag : 0;
}
