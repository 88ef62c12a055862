/* app.h - the parts of a fanout process, put together and taken apart in order: the engine's thread does the
 * work (engine.h), another keeps the leases (shares.h), a third sends heartbeats (changes.h), a fourth minds
 * Redis' memory (room.h), the main thread answers health, metrics and status, and takes the signals.
 *
 * Main thread only.
 */
#ifndef FEEDMILL_FANOUT_APP_H
#define FEEDMILL_FANOUT_APP_H

#include "fanout/config.h"

struct app;

/* app_new() makes all parts and starts listening; nothing else runs yet. cfg is borrowed. ERR_INVALID for an
 * address that does not parse, ERR_UNAVAILABLE when it can't listen. */
int app_new(struct app **out, const struct fanout_config *cfg, struct err *e) MUST_USE;
void app_free(struct app *a); /* NULL is fine */

/* app_run() starts the threads and serves until SIGTERM or SIGINT has been obeyed: the change in hand
 * applied, progress written, the shares released. Servers that can't be reached are waited for. */
int app_run(struct app *a, struct err *e) MUST_USE;

#endif
