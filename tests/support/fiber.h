/* fiber.h - functions that run in turns on one thread, each on a stack of its own, so that a test decides
 * after every step who goes on.
 *
 * fiber_run() lets one go on until it calls fiber_yield() or returns; both sanitizers are told. One thread,
 * no nesting: a fiber does not run another one.
 */
#ifndef FEEDMILL_TESTS_FIBER_H
#define FEEDMILL_TESTS_FIBER_H

#include <stdbool.h>

struct fiber;

struct fiber *fiber_new(void (*fn)(void *arg), void *arg);
void fiber_free(struct fiber *f); /* it has ended; NULL is fine */

/* fiber_run() answers whether it is still alive. */
bool fiber_run(struct fiber *f);
bool fiber_ended(const struct fiber *f);

void fiber_yield(void);     /* outside of any fiber it does nothing */
bool fiber_is_inside(void); /* called from one */

#endif
