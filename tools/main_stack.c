/* stack - runs feedmill with its databases in the foreground; what `make run` calls. */
#include <stdio.h>
#include <stdlib.h>

#include "common/config.h"
#include "common/log.h"
#include "common/mem.h"
#include "tools/stack.h"

int main(int argc, char **argv)
{
    mem_hook_libraries();
    struct stack_options options = {0};
    enum config_result result = CONFIG_RUN;
    enum log_level level;
    struct err e;
    if (config_load("stack", "runs feed-api, fanout, ranker, Redis and MongoDB in the foreground", stack_rows,
                    stack_rows_count, argc, argv, &options, &result, &e) != 0) {
        fprintf(stderr, "feedmill: FAILED: %s\n", e.msg);
        return 2;
    }
    int rc = 0;
    if (result == CONFIG_RUN && log_level_parse(options.log_level, &level) != 0) {
        fprintf(stderr, "feedmill: FAILED: --log-level: must be debug, info, warn or error\n");
        rc = 2;
    } else if (result == CONFIG_RUN && stack_run(&options, &e) != 0) {
        fprintf(stderr, "feedmill: FAILED at %s\n", e.msg);
        rc = 1;
    }
    config_free(stack_rows, stack_rows_count, &options);
    return rc;
}
