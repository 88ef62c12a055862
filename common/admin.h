/* admin.h - the handlers that every process has for those who run it: GET and HEAD of
 *   /healthz     200 "ok": the process is alive
 *   /readyz      200 or 503 {"ready": true, "degraded": ["redis"]}
 *   /metrics     Prometheus' text format
 *   /v1/status   JSON: {"process": "fanout", "version": "...", "uptime_ms": 12, ...what the process adds}
 * Anything else is 404, another method 405. No authentication: for loopback listeners. On the thread of the
 * server.
 */
#ifndef FEEDMILL_ADMIN_H
#define FEEDMILL_ADMIN_H

#include <stdbool.h>
#include "common/buf.h"

struct http_request;
struct metrics;

struct admin_options {
    const char *process;           /* "fanout" */
    const struct metrics *metrics; /* rendered at /metrics */
    /* ready() says whether the process is ready, and appends the names of what is degraded as the elements of
     * a JSON array
     * ("\"redis\",\"ranker\""; nothing when all is well). NULL: always ready. */
    bool (*ready)(struct buf *degraded, void *arg);
    /* status() appends further members of the status object, each with a leading comma: ",\"lag_ms\":4".
     * NULL: none. */
    void (*status)(struct buf *out, void *arg);
    /* refresh() is called before /metrics is rendered, to set gauges. NULL: none. */
    void (*refresh)(void *arg);
    void *arg;
};

/* admin_handle() answers r; it has the shape of http_server_options.handle, with a struct admin_options * as
 * arg. */
void admin_handle(struct http_request *r, void *admin_options);

/* The single answers, for a process that routes by itself. */
void admin_reply_health(struct http_request *r);
void admin_reply_ready(struct http_request *r, const struct admin_options *o);
void admin_reply_metrics(struct http_request *r, const struct admin_options *o);
void admin_reply_status(struct http_request *r, const struct admin_options *o);

#endif
