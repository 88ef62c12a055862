/* Weak empty tables and functions of modules that are being written; to be removed when the real ones exist. */
#include <stdlib.h>

#include "common/mem.h"
#include "feed-api/feed.h"
#include "feed-api/router.h"

#define WEAK __attribute__((weak))
WEAK const struct route routes_items[] = {{0}};
WEAK const struct route routes_bulk[] = {{0}};
WEAK const struct route routes_targets[] = {{0}};
WEAK const struct route routes_feed[] = {{0}};
WEAK const struct route routes_events[] = {{0}};

WEAK struct feed_state *feed_state_new(void)
{
    struct feed_state *s = mem_zero(1, sizeof *s);
    s->publishers = publishers_new(10000);
    return s;
}

WEAK void feed_state_free(struct feed_state *s)
{
    if (s != NULL)
        publishers_free(s->publishers);
    free(s);
}

WEAK void feed_start_latest(struct feed *f)
{
    call_fail(f->call, PROBLEM_UNAVAILABLE, "not there yet");
    call_finish(f->call);
}
