/* test_interleave.c - thousands of orders of everything that touches timelines, and each check of the scripts
 * taken out once. See tests/support/interleave.h.
 *
 *   FEEDMILL_SEED=n   lives through this seed alone, and prints each step
 *   FEEDMILL_SEEDS=n  that many seeds
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "tests/support/fixture.h"
#include "tests/support/interleave.h"

#define SEEDS 2000

static unsigned number(const char *name)
{
    const char *s = getenv(name);
    return s ? (unsigned)strtoul(s, NULL, 10) : 0;
}

static void address(void **state, struct redis_address *a)
{
    struct err e;
    assert_int_equal(redis_address_parse(fixture_redis_address(*state), a, &e), 0);
}

static void report(const struct interleave_counts *c, unsigned seeds)
{
    print_message("%u seeds: %ld steps, %ld pages, %ld judged (%ld at the end, %ld with pulled items, %ld floors), "
                  "%ld rebuilt, %ld tokens lost, %ld take-overs, %ld given, %ld refused, %ld logs, %ld flushed, "
                  "%ld set back, %ld keys lost, %ld answers lost, %ld turns, %ld edits, %ld deletes, %ld late, "
                  "%ld reads failed, %ld loads\n",
                  seeds, c->steps, c->pages, c->judged, c->exact, c->pulled, c->trimmed, c->rebuilt, c->tokens_lost,
                  c->taken_over, c->given, c->refused, c->adopted, c->flushed, c->restored, c->keys_lost,
                  c->answers_lost, c->turns, c->edited, c->deleted, c->late, c->reads_failed, c->loads);
}

static void every_order_ends_in_the_exact_timeline(void **state)
{
    struct interleave_counts c = {0};
    struct redis_address a;
    char why[400];
    unsigned only = number("FEEDMILL_SEED"), seeds = number("FEEDMILL_SEEDS");
    address(state, &a);
    if (seeds == 0)
        seeds = only ? 1 : SEEDS / (unsigned)fixture_slowness();
    for (unsigned i = 1; i <= seeds; i++) {
        unsigned seed = only ? only : i;
        if (interleave_run(&a, seed, only != 0, &c, why, sizeof why) == 0)
            continue;
        interleave_history();
        interleave_end();
        fail_msg("seed %u: %s (FEEDMILL_SEED=%u lives through it alone)", seed, why, seed);
    }
    report(&c, seeds);
    interleave_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_order_ends_in_the_exact_timeline),
    };
    return cmocka_run_group_tests_name("interleaved orders", tests, fixture_group_setup_redis,
                                       fixture_group_teardown);
}
