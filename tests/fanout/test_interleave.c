/* test_interleave.c - thousands of orders of everything that touches timelines, and each check of the scripts
 * taken out once. See tests/support/interleave.h.
 *
 *   FEEDMILL_SEED=n   lives through this seed alone, and prints each step
 *   FEEDMILL_SEEDS=n  that many seeds
 *   FEEDMILL_WITHOUT=n  only the n-th of the checks is taken out (with FEEDMILL_SEEDS: of so many seeds)
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

#define SEEDS         2000
#define SEEDS_WITHOUT 10000 /* at most; the first that goes wrong will do, and most need few */

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
    print_message(
        "%u seeds: %ld steps, %ld progress, %ld pages, %ld judged (%ld at the end, %ld with pulled items, "
        "%ld floors), "
        "%ld rebuilt, %ld tokens lost, %ld take-overs, %ld given, %ld refused, %ld logs, %ld flushed, "
        "%ld set back, %ld keys lost, %ld answers lost, %ld turns, %ld edits, %ld deletes, %ld late, "
        "%ld reads failed, %ld loads\n",
        seeds, c->steps, c->progress, c->pages, c->judged, c->exact, c->pulled, c->trimmed, c->rebuilt,
        c->tokens_lost, c->taken_over, c->given, c->refused, c->adopted, c->flushed, c->restored,
        c->keys_lost, c->answers_lost, c->turns, c->edited, c->deleted, c->late, c->reads_failed, c->loads);
}

static void every_order_ends_in_the_exact_timeline(void **state)
{
    struct interleave_counts c = {0};
    struct redis_address a;
    char why[400];
    unsigned only = number("FEEDMILL_SEED"), seeds = number("FEEDMILL_SEEDS");
    if (number("FEEDMILL_WITHOUT"))
        skip();
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

/* Each is a check without which some order goes wrong. */
static const struct interleave_mutation mutations[] = {
    {"the epoch", SCRIPT_DELIVER, SCRIPT_PROGRESS, "if r[1] ~= epoch or r[2] ~= n then", "if r[2] ~= n then",
     INTERLEAVE_LOSSES},
    {"the count n", SCRIPT_DELIVER, SCRIPT_PROGRESS, "if r[1] ~= epoch or r[2] ~= n then",
     "if r[1] ~= epoch then", INTERLEAVE_LOSSES},
    {"the R of a delivery", SCRIPT_DELIVER, SCRIPT_DELIVER,
     "if all or T > (redis.call('HGET', 'pf' .. string.sub(k, 3), 'r') or 'z') then", "do", INTERLEAVE_EDITS},
    {"the R of a removal", SCRIPT_REMOVE, SCRIPT_REMOVE, "if m[1] and T > m[1] then", "if m[1] then",
     INTERLEAVE_EDITS},
    {"the R of a drop", SCRIPT_DROP, SCRIPT_DROP, "if type(r) ~= 'string' or r < T then",
     "if type(r) ~= 'string' then", INTERLEAVE_GRAPH},
    {"the R of a turn", SCRIPT_PULL, SCRIPT_PUSH, "if m[1] and T > m[1] then", "if m[1] then",
     INTERLEAVE_TURNS},
    {"the token", SCRIPT_FINISH, SCRIPT_FINISH,
     "if redis.call('HGET', KEYS[2], 'tk') ~= token then return 0 end\n", "", INTERLEAVE_GRAPH},
    {"the floor of a trim", SCRIPT_DELIVER, SCRIPT_DELIVER, "redis.call('ZADD', k, 'LT', tail[2], 'f')",
     "redis.call('ZADD', k, 'LT', '0', 'f')", INTERLEAVE_BURSTS},
    {"the floor of a rebuild", SCRIPT_FINISH, SCRIPT_FINISH,
     "if #ids > cap then f = '-' .. ids[cap + 1] end\n", "", INTERLEAVE_BURSTS},
    {"the floor that rose in a rebuild", SCRIPT_FINISH, SCRIPT_FINISH,
     "if tonumber(ARGV[3]) < tonumber(f) then f =", "do f =", INTERLEAVE_BURSTS},
    {"the floor of a turn to push", SCRIPT_PUSH, SCRIPT_PUSH,
     "if tonumber(ARGV[4]) < tonumber(f) then f = ARGV[4] end\n", "", INTERLEAVE_TURNS},
    {"births", SCRIPT_PROGRESS, SCRIPT_PROGRESS, "if known == '-' or known == births then", "do",
     INTERLEAVE_GRAPH},
    {"a removal that meets a rebuild", SCRIPT_REMOVE, SCRIPT_REMOVE, "if m[2] == 'b' then", "if false then",
     INTERLEAVE_EDITS},
    {"a turn that meets a rebuild", SCRIPT_PULL, SCRIPT_PUSH, "if m[2] == 'b' then", "if false then",
     INTERLEAVE_TURNS},
    {"what a rebuild has to have seen", SCRIPT_BUILD, SCRIPT_BUILD, "if rec[2] > R then R = rec[2] end\n", "",
     INTERLEAVE_GRAPH},
    {"the stamp that a rebuild raises", SCRIPT_BUILD, SCRIPT_BUILD,
     "redis.call('HSET', KEYS[3], 'stamp', R)\n", "", INTERLEAVE_EDITS},
    {"when a record was made", SCRIPT_ADOPT, SCRIPT_ADOPT, "'born', now", "'born', '0000000000000000'",
     INTERLEAVE_LOSSES},
    {"the list of births", SCRIPT_BUILD, SCRIPT_BUILD, "redis.call('HINCRBY', KEYS[3], 'births', 1)\n", "",
     INTERLEAVE_GRAPH},
};

static void without_any_of_the_checks_some_order_goes_wrong(void **state)
{
    struct redis_address a;
    unsigned seeds = number("FEEDMILL_SEEDS"), missed = 0;
    if (number("FEEDMILL_SEED") || (seeds && !number("FEEDMILL_WITHOUT")))
        skip();
    address(state, &a);
    seeds = seeds ? seeds : SEEDS_WITHOUT;
    for (size_t i = 0; i < MEM_COUNT(mutations); i++) {
        if (number("FEEDMILL_WITHOUT") && number("FEEDMILL_WITHOUT") != i + 1)
            continue;
        struct interleave_counts c = {0};
        char why[400] = "";
        unsigned seed = INTERLEAVE_KINDS + mutations[i].kind;
        assert_true(interleave_mutate(&mutations[i]));
        while (seed <= seeds && interleave_run(&a, seed, false, &c, why, sizeof why) == 0)
            seed += INTERLEAVE_KINDS;
        missed += seed > seeds;
        if (seed > seeds)
            print_error("without %s all %u seeds end well\n", mutations[i].name, seeds);
        else
            print_message("without %s seed %u goes wrong: %s\n", mutations[i].name, seed, why);
    }
    interleave_end();
    assert_int_equal(missed, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_order_ends_in_the_exact_timeline),
        cmocka_unit_test(without_any_of_the_checks_some_order_goes_wrong),
    };
    return cmocka_run_group_tests_name("interleaved orders", tests, fixture_group_setup_redis,
                                       fixture_group_teardown);
}
