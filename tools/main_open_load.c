/* open_load - asks a feed-api for pages in an open loop, and prints what came of it as one line of JSON. For
 * tools/bench/pages.py. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "common/buf.h"
#include "common/config.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/proc.h"
#include "tools/open_load.h"

#define LINE_BYTES_MAX 12000
#define TARGETS_MAX    1000000

struct options {
    char *requests, *bearer, *header;
    double rate, settle, seconds;
    int64_t port, connections, grace_ms, seed;
};

#define AT(field) offsetof(struct options, field)
static const struct config_row rows[] = {
    {"port", CONFIG_INT, AT(port), "8080", 1, 65535, "port of 127.0.0.1"},
    {"requests", CONFIG_STRING, AT(requests), "", 0, 4000,
     "file of targets, one a line; each may be followed by a tab and a header"},
    {"bearer", CONFIG_STRING, AT(bearer), "", 0, 2000,
     "credential; by the environment it is not seen in lists of processes"},
    {"header", CONFIG_STRING, AT(header), "", 0, 2000, "a header of all requests, as 'Name: value'"},
    {"rate", CONFIG_DOUBLE, AT(rate), "1000", 0.1, 1e6, "requests a second, at random moments"},
    {"settle", CONFIG_DOUBLE, AT(settle), "1", 0, 600, "seconds of the same load before it counts"},
    {"seconds", CONFIG_DOUBLE, AT(seconds), "5", 0.1, 3600, "seconds that count"},
    {"connections", CONFIG_INT, AT(connections), "256", 1, OPEN_LOAD_CONNECTIONS_MAX, "connections"},
    {"grace", CONFIG_MS, AT(grace_ms), "3s", 0, 60000, "how long the last answers are waited for"},
    {"seed", CONFIG_INT, AT(seed), "1", 0, 1e15, "of the moments and the order of requests"},
};

static int read_targets(const char *path, char ***out, size_t *n, struct err *e)
{
    char line[LINE_BYTES_MAX];
    FILE *f = fopen(path, "re");
    if (!f)
        return err_set(e, ERR_INVALID, "can't read --requests %.200s", path);
    char **all = NULL;
    size_t count = 0;
    while (count < TARGETS_MAX && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = '\0';
        if ((count & (count - 1)) == 0)
            all = mem_grow(all, count ? count * 2 : 1, sizeof *all);
        all[count++] = mem_strdup(line);
    }
    fclose(f);
    *out = all;
    *n = count;
    return count ? 0 : err_set(e, ERR_INVALID, "no requests in %.200s", path);
}

static double ms(const struct latency *l, double q)
{
    return (double)latency_quantile(l, q) / 1000;
}

static void print(const struct options *o, const struct open_load_result *r)
{
    printf("{\"due\": %llu, \"good\": %llu, \"refused\": %llu, \"failed\": %llu, \"lost\": %llu, \"unsent\": "
           "%llu, "
           "\"unanswered\": %llu, ",
           (unsigned long long)r->due, (unsigned long long)r->good, (unsigned long long)r->refused,
           (unsigned long long)r->failed, (unsigned long long)r->lost, (unsigned long long)r->unsent,
           (unsigned long long)r->unanswered);
    printf("\"goodput\": %.1f, \"bytes\": %llu, \"p50_ms\": %.3f, \"p90_ms\": %.3f, \"p99_ms\": %.3f, "
           "\"p999_ms\": %.3f, "
           "\"max_ms\": %.3f, ",
           (double)r->in_time / o->seconds, (unsigned long long)r->bytes, ms(&r->times, 0.5),
           ms(&r->times, 0.9), ms(&r->times, 0.99), ms(&r->times, 0.999), (double)r->times.max_us / 1000);
    printf("\"refused_p99_ms\": %.3f, \"own_p99_ms\": %.3f, \"own_max_ms\": %.3f}\n", ms(&r->refusals, 0.99),
           ms(&r->own, 0.99), (double)r->own.max_us / 1000);
}

static int run(const struct options *o, struct err *e)
{
    char **targets = NULL;
    size_t n = 0;
    struct open_load_result r;
    if (read_targets(o->requests, &targets, &n, e)) {
        free(targets);
        return -1;
    }
    char *headers = mem_printf("%s%s%s%s%s", o->bearer[0] ? "Authorization: Bearer " : "", o->bearer,
                               o->bearer[0] ? "\r\n" : "", o->header, o->header[0] ? "\r\n" : "");
    struct open_load_options load = {
        .port = (uint16_t)o->port,
        .targets = (const char *const *)targets,
        .n_targets = n,
        .headers = headers,
        .rate = o->rate,
        .settle_s = o->settle,
        .seconds = o->seconds,
        .connections = (unsigned)o->connections,
        .grace_ms = o->grace_ms,
        .seed = (uint64_t)o->seed,
    };
    int rc = open_load_run(&load, &r, e);
    if (rc == 0)
        print(o, &r);
    for (size_t i = 0; i < n; i++)
        free(targets[i]);
    free(targets);
    free(headers);
    return rc;
}

int main(int argc, char **argv)
{
    struct options o = {0};
    enum config_result result = CONFIG_RUN;
    struct err e = {0};
    proc_init("open_load");
    log_init("open_load", LOG_ERROR);
    int rc = config_load("open_load", "asks for pages at random moments, whether or not it was answered",
                         rows, MEM_COUNT(rows), argc, argv, &o, &result, &e);
    if (rc == 0 && result == CONFIG_RUN) {
        prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL); /* moments are microseconds apart */
        rc = run(&o, &e);
    }
    if (rc)
        fprintf(stderr, "open_load: %s\n", e.msg);
    config_free(rows, MEM_COUNT(rows), &o);
    proc_done();
    return rc ? 1 : 0;
}
