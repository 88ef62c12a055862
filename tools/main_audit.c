/* audit - compares timelines and counts with MongoDB; see README.md. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "common/config.h"
#include "common/log.h"
#include "common/proc.h"
#include "tools/audit.h"

static atomic_bool stop;

static void on_signal(int signum)
{
    (void)signum;
    atomic_store(&stop, true);
}

/* The first one ends the audit with its report, the second one at once. */
static void catch_signals(void)
{
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART | SA_RESETHAND};
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
}

int main(int argc, char **argv)
{
    struct auditor_options options;
    enum config_result result = CONFIG_RUN;
    struct err e = {0};
    memset(&options, 0, sizeof options);
    proc_init("audit");
    log_init("audit", LOG_ERROR);
    if (config_load("audit", "compares timelines in Redis and counts of followers with MongoDB", auditor_rows,
                    auditor_rows_count, argc, argv, &options, &result, &e) != 0) {
        fprintf(stderr, "audit: %s\n", e.msg);
        proc_done();
        return AUDITOR_FAILED;
    }
    enum auditor_result rc = AUDITOR_NONE;
    if (result == CONFIG_RUN) {
        catch_signals();
        rc = auditor_run(&options, &stop, &e);
        if (rc == AUDITOR_FAILED)
            fprintf(stderr, "audit: %s\n", e.msg);
    }
    config_free(auditor_rows, auditor_rows_count, &options);
    proc_done();
    return (int)rc;
}
