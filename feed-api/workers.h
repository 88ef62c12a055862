/* workers.h - feed-api's workers: common/workers.h with the app's clients, options and metrics.
 */
#ifndef FEEDMILL_WORKERS_H
#define FEEDMILL_WORKERS_H

#include "common/workers.h"

/* workers_start() makes threads (1 to 256) and a queue of queue_max jobs (1 to 100,000). The redis address
 * and mongo pool are the app's. */
int workers_start(struct workers **out, struct app *app, unsigned threads, unsigned queue_max,
                  struct err *e) MUST_USE;

#endif
