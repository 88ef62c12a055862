/* stack_member.h - one supervised child: started, probed until it is ready, started again with back-off when
 * it ends. Knows nothing of the others and prints nothing: what happened is the answer of
 * stack_member_tick(). Main thread of tools/main_stack.c.
 */
#ifndef FEEDMILL_TOOLS_STACK_MEMBER_H
#define FEEDMILL_TOOLS_STACK_MEMBER_H

#include <stdbool.h>
#include <stdint.h>
#include "common/err.h"
#include "tools/servers.h"

#define STACK_BACKOFF_FIRST_MS 200
#define STACK_BACKOFF_MAX_MS   10000
#define STACK_STEADY_MS        30000 /* so long up, and the back-off starts anew */

enum stack_member_state {
    STACK_MEMBER_IDLE,     /* not yet wanted */
    STACK_MEMBER_STARTING, /* runs, not ready yet */
    STACK_MEMBER_UP,
    STACK_MEMBER_WAITING, /* ended, to be started at retry_at */
};

enum stack_member_event {
    STACK_MEMBER_NOTHING,
    STACK_MEMBER_READY, /* it became ready now */
    STACK_MEMBER_ENDED, /* it ended, or could not be started: why and backoff_ms say more */
};

struct stack_member {
    struct server *server; /* owned */
    enum stack_member_state state;
    bool was_up;        /* has been ready at least once */
    int ends;           /* ends since it was last ready */
    int64_t backoff_ms; /* before the next start */
    int64_t up_at;      /* monotonic ms */
    int64_t retry_at;
    struct err why; /* of the last end, or why it is not ready yet */
};

void stack_member_init(struct stack_member *m, struct server *server); /* takes the server */
void stack_member_done(struct stack_member *m);

/* stack_member_want() starts it with the next tick. */
void stack_member_want(struct stack_member *m);

/* stack_member_tick() does what is due; now is clock_mono_ms(). A probe may take two seconds. */
enum stack_member_event stack_member_tick(struct stack_member *m, int64_t now);

/* stack_backoff_next() answers the ms before the next start: doubled from the one before (0: none yet) up to
 * the maximum, and the first again after STACK_STEADY_MS of service. Pure. */
int64_t stack_backoff_next(int64_t before_ms, int64_t up_ms);

#endif
