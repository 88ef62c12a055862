/* e2e_stack.h - a whole stack for end-to-end tests: Redis, mongod, fanout, feed-apis, and a ranker when
 * wanted. */
#ifndef FEEDMILL_TESTS_E2E_STACK_H
#define FEEDMILL_TESTS_E2E_STACK_H

#include "tests/support/driver.h"
#include "tests/support/e2e.h"

#define E2E_APIS_MAX 2

struct e2e_stack {
    struct fixture *f;
    struct server *fanout, *other_fanout, *ranker, *servers[E2E_APIS_MAX];
    struct e2e_api apis[E2E_APIS_MAX];
    size_t n_apis;
    redisContext *redis;
};

struct e2e_stack_options {
    const char *entries;  /* --timeline-entries; NULL: 8 */
    const char *lease_ms; /* of fanout; NULL: as fanout has it */
    size_t n_apis;        /* 1 or 2; 0: 1 */
    bool two_fanouts;     /* they share the buckets */
    bool ranker;
    bool forgetful;                             /* FIXTURE_FORGETFUL */
    const char *api_flags[6], *ranker_flags[6]; /* more flags and their values */
};

/* e2e_stack_start() starts all and waits until it is ready. e2e_stack_stop() stops all; it answers 0, or -1
 * when a process did not end cleanly: what a group tear-down answers. */
void e2e_stack_start(struct e2e_stack *s, const struct e2e_stack_options *o);
int e2e_stack_stop(struct e2e_stack *s);

/* e2e_stack_fresh() starts the processes anew on empty databases. */
void e2e_stack_fresh(struct e2e_stack *s, const struct e2e_stack_options *o);

/* e2e_stack_redis_again() connects to Redis again after it was restarted. */
void e2e_stack_redis_again(struct e2e_stack *s);

#endif
