/* tail.h - feed-api's own tail of the log: one thread that tells the caches what changed, and how far it has
 * come.
 *
 * On a CHANGE_ITEM: content_changed(); CHANGE_USER: the user_changes map; CHANGE_API_KEY: auth_forget_key();
 * CHANGE_TOKEN_END: auth_tokens_ended(); CHANGE_TARGET: the targets' cache. After ERR_LOG_LOST everything
 * that was cached is dropped and the tail begins anew at the present. All questions may be asked from any
 * thread and never block for long (a mutex).
 */
#ifndef FEEDMILL_TAIL_H
#define FEEDMILL_TAIL_H

#include <stdbool.h>
#include "common/err.h"
#include "common/ts.h"

struct app;
struct tail;

/* tail_start() begins a little in the past (10 s), so that a restarted process knows recent changes of users.
 */
int tail_start(struct tail **out, struct app *app, struct err *e) MUST_USE;

/* tail_halt() ends the thread; what it knew can still be asked for. tail_stop() halts and frees. NULL is a
 * no-op for both. */
void tail_halt(struct tail *t);
void tail_stop(struct tail *t);

ts_t tail_position(
    const struct tail *t); /* everything at or before it has been taken in; 0 before the first */

/* tail_alive() says whether everything that was acknowledged anywhere a second ago has been taken in (P5):
 * the newest own heartbeat seen was sent within the last 1,000 ms. */
bool tail_alive(const struct tail *t);

/* tail_lag_ms(): how far a page of that freshness is behind (api.md, lag_ms): wall now minus the wall time of
 * the last heartbeat at or before it, less the heartbeat's interval; at least 0. */
int64_t tail_lag_ms(const struct tail *t, ts_t freshness);

/* user changes: the newest change of follows or mutes of a user that this process knows, 0 when none since
 * tail_user_memory(). A timeline with R before it counts as absent. Bounded: 10 minutes, 1,000,000 users (the
 * oldest go first and move tail_user_memory() up). */
ts_t tail_user_changed(const struct tail *t, const char *user);
ts_t tail_user_memory(const struct tail *t); /* changes at or after this time are remembered */
void tail_note_user(struct tail *t, const char *user,
                    ts_t when); /* by the process that answered the write, before it answers */

#endif
