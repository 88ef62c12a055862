/* main.c - fanout: the table of contents. */
#include <stdio.h>
#include "common/log.h"
#include "common/proc.h"
#include "fanout/app.h"

static int load(int argc, char **argv, struct fanout_config *cfg, enum config_result *result)
{
    struct err e = {0};
    enum log_level level = LOG_INFO;
    if (fanout_config_load(argc, argv, cfg, result, &e) != 0) {
        fprintf(stderr, "fanout: %s\n", e.msg);
        return -1;
    }
    if (*result == CONFIG_RUN && log_level_parse(cfg->log_level, &level) != 0) {
        fprintf(stderr, "fanout: log-level: debug, info, warn or error, not \"%s\"\n", cfg->log_level);
        fanout_config_free(cfg);
        return -1;
    }
    log_init("fanout", level);
    return 0;
}

int main(int argc, char **argv)
{
    struct fanout_config cfg = {0};
    struct app *app = NULL;
    struct err e = {0};
    enum config_result result = CONFIG_RUN;
    proc_init("fanout");
    if (load(argc, argv, &cfg, &result) != 0)
        return 2;
    int rc = 0;
    if (result == CONFIG_RUN) {
        rc = app_new(&app, &cfg, &e);
        if (rc == 0)
            rc = app_run(app, &e);
        if (rc != 0)
            log_event(LOG_ERROR, "start_failed", LOG_ERR(&e));
        app_free(app);
    }
    fanout_config_free(&cfg);
    proc_done();
    return rc == 0 ? 0 : 1;
}
