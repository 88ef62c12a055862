#include "feed-api/workers.h"

#include "feed-api/app.h"

int workers_start(struct workers **out, struct app *app, unsigned threads, unsigned queue_max, struct err *e)
{
    struct workers_options o = {
        .app = app,
        .base = app->loops[0].base,
        .mongo = app->mongo,
        .redis = &app->redis_address,
        .threads = threads,
        .queue_max = queue_max,
        .wait_ms = app->cfg.worker_wait,
        .metrics = app->metrics,
        .wait_seconds = M_WORKERS_WAIT_SECONDS,
        .run_seconds = M_WORKERS_RUN_SECONDS,
        .expired = M_WORKERS_EXPIRED,
        .refused = M_WORKERS_REFUSED,
    };
    return workers_new(out, &o, e);
}
