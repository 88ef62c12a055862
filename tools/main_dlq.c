/* dlq - lists, shows and replays dead letters of a running feed-api. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config.h"
#include "common/mem.h"
#include "tools/dlq.h"

static const char help[] =
    "usage: dlq [OPTION...] list\n"
    "       dlq [OPTION...] show ID\n"
    "       dlq [OPTION...] replay ID|--all\n"
    "\n"
    "What fan-out could not apply after five tries, of a running feed-api: lists it, the newest first, shows "
    "one,\n"
    "or has it applied again.\n"
    "\n"
    "  --api URL        where feed-api listens; default http://127.0.0.1:8080\n"
    "  --key-file FILE  an admin's API key; default run/admin.key\n"
    "  --limit N        list at most so many, 0 for all; default 100\n"
    "  --open           list only those not replayed\n"
    "  --all            replay all that are open\n"
    "  --json           one JSON object a line\n"
    "  --help, --version\n"
    "\n"
    "Exit status: 0 done, 1 feed-api did not answer or said no, 2 the command line or key file is wrong.\n";

struct options {
    struct dlq_options dlq;
    unsigned limit;
    bool only_open, all;
};

enum {
    OPTION_API = 256,
    OPTION_KEY,
    OPTION_LIMIT,
    OPTION_OPEN,
    OPTION_ALL,
    OPTION_JSON,
    OPTION_HELP,
    OPTION_VERSION
};

static const struct option flags[] = {
    {"api", required_argument, NULL, OPTION_API},
    {"key-file", required_argument, NULL, OPTION_KEY},
    {"limit", required_argument, NULL, OPTION_LIMIT},
    {"open", no_argument, NULL, OPTION_OPEN},
    {"all", no_argument, NULL, OPTION_ALL},
    {"json", no_argument, NULL, OPTION_JSON},
    {"help", no_argument, NULL, OPTION_HELP},
    {"version", no_argument, NULL, OPTION_VERSION},
    {0},
};

static int wrong(const char *why)
{
    fprintf(stderr, "dlq: %s; see dlq --help\n", why);
    return 2;
}

/* -1: go on; else the exit status. */
static int take_option(int flag, struct options *o)
{
    char *end;
    switch (flag) {
    case OPTION_API:
        o->dlq.api = optarg;
        return -1;
    case OPTION_KEY:
        o->dlq.key_file = optarg;
        return -1;
    case OPTION_LIMIT:
        o->limit = (unsigned)strtoul(optarg, &end, 10);
        return optarg[0] >= '0' && optarg[0] <= '9' && *end == '\0' ? -1 : wrong("--limit is not a number");
    case OPTION_OPEN:
        o->only_open = true;
        return -1;
    case OPTION_ALL:
        o->all = true;
        return -1;
    case OPTION_JSON:
        o->dlq.json = true;
        return -1;
    case OPTION_HELP:
        fputs(help, stdout);
        return 0;
    case OPTION_VERSION:
        puts("dlq " FEEDMILL_VERSION);
        return 0;
    default:
        return 2; /* getopt has said why */
    }
}

/* What has to stand where; NULL: it does. */
static const char *check_words(int n, char **words, const struct options *o)
{
    const char *command = n > 0 ? words[0] : "";
    if (strcmp(command, "list") == 0)
        return n == 1 && !o->all ? NULL : "list takes no ID and no --all";
    if (strcmp(command, "show") == 0)
        return n == 2 && !o->all && words[1][0] ? NULL : "show takes one ID";
    if (strcmp(command, "replay") == 0)
        return (n == 2 && words[1][0]) != (n == 1 && o->all) && !(n == 2 && o->all)
                   ? NULL
                   : "replay takes one ID, or --all";
    return n > 0 ? "there is no such command" : "what shall it do: list, show or replay";
}

static int run(struct dlq *d, char **words, const struct options *o, struct err *e)
{
    if (strcmp(words[0], "list") == 0)
        return dlq_list(d, o->limit, o->only_open, e);
    if (strcmp(words[0], "show") == 0)
        return dlq_show(d, words[1], e);
    return o->all ? dlq_replay_all(d, e) : dlq_replay(d, words[1], e);
}

int main(int argc, char **argv)
{
    struct options o = {.dlq = {.api = "http://127.0.0.1:8080", .key_file = "run/admin.key"}, .limit = 100};
    struct dlq *d;
    struct err e;
    int flag, status;
    mem_hook_libraries();
    while ((flag = getopt_long(argc, argv, "", flags, NULL)) != -1) {
        if ((status = take_option(flag, &o)) >= 0)
            return status;
    }
    const char *why = check_words(argc - optind, argv + optind, &o);
    if (why)
        return wrong(why);
    if (dlq_open(&d, &o.dlq, &e) != 0) {
        fprintf(stderr, "dlq: %s\n", e.msg);
        return 2;
    }
    int rc = run(d, argv + optind, &o, &e);
    if (rc != 0)
        fprintf(stderr, "dlq: %s\n", e.msg);
    dlq_close(d);
    return rc == 0 ? 0 : 1;
}
