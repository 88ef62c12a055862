/* wake.h - wakes an event loop from another thread, through an eventfd, so that event bases need no locks.
 *
 * Several wakings before the loop comes round are one call.
 */
#ifndef FEEDMILL_WAKE_H
#define FEEDMILL_WAKE_H

#include "common/err.h"

struct event_base;
struct wake;

/* wake_new() has fn called on base's thread after each wake_up(). ERR_UNAVAILABLE, ERR_INTERNAL. */
int wake_new(struct wake **out, struct event_base *base, void (*fn)(void *arg), void *arg,
             struct err *e) MUST_USE;
void wake_free(struct wake *w); /* on that thread, or when it does not run; NULL is a no-op */

void wake_up(struct wake *w); /* any thread */

#endif
