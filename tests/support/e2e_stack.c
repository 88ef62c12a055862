#include "tests/support/e2e_stack.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

static void start_processes(struct e2e_stack *s, const struct e2e_stack_options *o)
{
    const char *entries = o->entries ? o->entries : "8";
    s->n_apis = o->n_apis ? o->n_apis : 1;
    assert_true(s->n_apis <= E2E_APIS_MAX);
    s->fanout = fixture_start(s->f, "fanout", "fanout-1", "--timeline-entries", entries,
                              o->lease_ms ? "--lease-ms" : NULL, o->lease_ms, NULL);
    s->other_fanout = o->two_fanouts
                          ? fixture_start(s->f, "fanout", "fanout-2", "--timeline-entries", entries,
                                          o->lease_ms ? "--lease-ms" : NULL, o->lease_ms, NULL)
                          : NULL;
    const char *const *r = o->ranker_flags, *const *a = o->api_flags;
    s->ranker = o->ranker
                    ? fixture_start(s->f, "ranker", "ranker-1", r[0], r[1], r[2], r[3], r[4], r[5], NULL)
                    : NULL;
    for (size_t i = 0; i < s->n_apis; i++) {
        char name[32];
        snprintf(name, sizeof name, "feed-api-%zu", i + 1);
        s->servers[i] = fixture_start(s->f, "feed-api", name, "--timeline-entries", entries, a[0], a[1], a[2],
                                      a[3], a[4], a[5], NULL);
        e2e_api_init(&s->apis[i], s->f, s->servers[i]);
    }
    s->redis = e2e_redis(s->f);
}

void e2e_stack_start(struct e2e_stack *s, const struct e2e_stack_options *o)
{
    memset(s, 0, sizeof *s);
    s->f = fixture_new(FIXTURE_BOTH | (o->forgetful ? FIXTURE_FORGETFUL : 0));
    start_processes(s, o);
}

static void disconnect(struct e2e_stack *s)
{
    for (size_t i = 0; i < s->n_apis; i++)
        e2e_api_done(&s->apis[i]);
    if (s->redis)
        redisFree(s->redis);
    s->redis = NULL;
}

int e2e_stack_stop(struct e2e_stack *s)
{
    disconnect(s);
    void *f = s->f;
    s->f = NULL;
    return fixture_group_teardown(&f);
}

void e2e_stack_fresh(struct e2e_stack *s, const struct e2e_stack_options *o)
{
    disconnect(s);
    fixture_fresh(s->f);
    start_processes(s, o);
}

void e2e_stack_redis_again(struct e2e_stack *s)
{
    if (s->redis)
        redisFree(s->redis);
    s->redis = e2e_redis(s->f);
}
