/* audit_pick.h - finding timelines in Redis, a step of SCAN at a time. Blocking, one thread.
 *
 * A scan that begins at 0 and ends there again tells every timeline that was there all the while, perhaps
 * twice. Any cursor may be begun at: what follows it is as good as random, for keys lie in the order of their
 * hashes.
 */
#ifndef FEEDMILL_AUDIT_PICK_H
#define FEEDMILL_AUDIT_PICK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/err.h"
#include "common/names.h"
#include "common/redis.h"

struct audit_pick {
    uint64_t cursor;                   /* where the next step begins */
    bool at_end;                       /* the last step came to the end: the next one begins at 0 */
    char (*users)[NAME_MAX_BYTES + 1]; /* owned; whose timelines the last step met */
    size_t n, cap;
};

/* audit_pick_step() goes about count keys (1 to 10,000) on. A zeroed audit_pick begins at 0. */
int audit_pick_step(struct audit_pick *p, struct redis *r, unsigned count, struct err *e) MUST_USE;
void audit_pick_done(struct audit_pick *p);

/* audit_pick_jump() sets the cursor anywhere. */
void audit_pick_jump(struct audit_pick *p);

#endif
