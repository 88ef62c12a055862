/* feed-api: serves feeds over HTTP. */
#include <malloc.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "common/proc.h"
#include "feed-api/app.h"
#include "feed-api/router.h"

static int fail(const char *event, const struct err *e)
{
    log_event(LOG_ERROR, event, LOG_ERR(e));
    return 1;
}

static int serve(struct app *app)
{
    struct err e;
    enum log_level level;
    if (log_level_parse(app->cfg.log_level, &level) < 0) {
        err_set(&e, ERR_INVALID, "--log-level: must be debug, info, warn or error");
        feed_config_free(&app->cfg);
        return fail("bad_options", &e);
    }
    log_init("feed-api", level);
    if (app_start(app, &e) < 0)
        return fail("start_failed", &e);
    int status = app_run(app);
    app_stop(app);
    log_event(LOG_INFO, "stopped", LOG_I("status", status));
    return status;
}

/* What a thread frees stays with its arena: with one for each of some twenty threads that is more than what
 * is in use. */
#define ARENAS 4

int main(int argc, char **argv)
{
    struct app app = {0};
    struct err e;
    enum config_result what;
    mallopt(M_ARENA_MAX, ARENAS);
    proc_init("feed-api");
    if (argc == 2 && strcmp(argv[1], "--routes") == 0) {
        int rc = router_print(&e) < 0 ? fail("bad_routes", &e) : 0;
        proc_done();
        return rc;
    }
    if (feed_config_load(&app.cfg, argc, argv, &what, &e) < 0)
        return fail("bad_options", &e);
    int status = 0;
    if (what == CONFIG_RUN)
        status = serve(&app);
    proc_done();
    return status;
}
