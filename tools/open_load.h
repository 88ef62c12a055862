/* open_load.h - GET requests at given moments, whether or not earlier ones were answered: an open loop.
 *
 * A closed loop (wrk) waits for a slow server and so leaves out exactly the requests that would have seen it
 * slow. Here moments are drawn before (a Poisson process), each time is counted from the intended moment,
 * and a request that finds all connections busy waits for one: that counts too. What the client itself is
 * late by is measured apart. Loopback only, IPv4; answers need a Content-Length and their bodies are thrown
 * away unseen, so that the client costs little. Everything is on the calling thread.
 */
#ifndef FEEDMILL_TOOLS_OPEN_LOAD_H
#define FEEDMILL_TOOLS_OPEN_LOAD_H

#include <stddef.h>
#include <stdint.h>
#include "common/err.h"
#include "tools/latency.h"

#define OPEN_LOAD_CONNECTIONS_MAX 16384
#define OPEN_LOAD_WAITING_MAX     65536 /* requests that wait for a connection; beyond it they are not sent */

struct open_load_options {
    uint16_t port;
    const char *const *targets; /* "/v1/...", asked for in random order; each may be followed by lines of */
    size_t n_targets;           /* headers of its own, each as "\tName: value" */
    const char *headers;        /* of all requests: "Name: value\r\n"...; may be "" */
    double rate;                /* requests a second, above 0 */
    double settle_s, seconds; /* what is due in the first settle_s is sent and not counted; then it counts */
    unsigned connections;     /* 1 to OPEN_LOAD_CONNECTIONS_MAX, made before it begins */
    int64_t grace_ms;         /* how long the last answers are waited for */
    uint64_t seed;
};

/* Of the requests whose moment came while it counted. due is the sum of good to unanswered. */
struct open_load_result {
    uint64_t due;
    uint64_t good;       /* 2xx or 304 */
    uint64_t refused;    /* 429 or 503 */
    uint64_t failed;     /* another status */
    uint64_t lost;       /* the connection ended, or what came was no answer */
    uint64_t unsent;     /* no connection was free */
    uint64_t unanswered; /* at the end of the grace */
    uint64_t in_time;    /* good answers that came while it counted, whenever they were due: the goodput */
    uint64_t bytes;      /* of bodies of good answers */
    struct latency times, refusals, own; /* good, refused; how late the client itself looked at a moment */
};

/* open_load_run() does it, in settle_s + seconds + at most grace_ms. ERR_UNAVAILABLE: it can't connect;
 * ERR_INVALID: options. */
int open_load_run(const struct open_load_options *o, struct open_load_result *out, struct err *e) MUST_USE;

#endif
