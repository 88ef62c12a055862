#include "common/admin.h"

#include <string.h>
#include "common/clock.h"
#include "common/config.h"
#include "common/http_server.h"
#include "common/metrics.h"
#include "common/problem.h"

#define DEGRADED_MAX 4096
#define STATUS_MAX   (256 * 1024)
#define METRICS_MAX  (1024 * 1024)

static int64_t started_ms; /* of the process, near enough: when it was loaded */

__attribute__((constructor)) static void note_start(void)
{
    started_ms = clock_mono_ms();
}

static void reply_buf(struct http_request *r, int status, const char *type, struct buf *b)
{
    if (b->full) {
        buf_done(b);
        problem_simple(r, PROBLEM_INTERNAL, "the answer is larger than its cap");
        return;
    }
    size_t len = b->len;
    http_header_add(r, "Cache-Control", "no-store");
    http_reply_take(r, status, type, buf_take(b), len);
}

void admin_reply_health(struct http_request *r)
{
    http_reply(r, 200, "text/plain; charset=utf-8", "ok\n", 3);
}

void admin_reply_ready(struct http_request *r, const struct admin_options *o)
{
    struct buf degraded, out;
    buf_init(&degraded, DEGRADED_MAX);
    buf_init(&out, DEGRADED_MAX + 64);
    bool ready = o->ready == NULL || o->ready(&degraded, o->arg);
    buf_add_str(&out, ready ? "{\"ready\":true,\"degraded\":[" : "{\"ready\":false,\"degraded\":[");
    buf_add(&out, degraded.data ? degraded.data : "", degraded.len);
    buf_add_str(&out, "]}\n");
    buf_done(&degraded);
    reply_buf(r, ready ? 200 : 503, "application/json", &out);
}

void admin_reply_metrics(struct http_request *r, const struct admin_options *o)
{
    struct buf out;
    buf_init(&out, METRICS_MAX);
    if (o->refresh)
        o->refresh(o->arg);
    metrics_render(o->metrics, &out);
    reply_buf(r, 200, "text/plain; version=0.0.4; charset=utf-8", &out);
}

void admin_reply_status(struct http_request *r, const struct admin_options *o)
{
    struct buf out;
    buf_init(&out, STATUS_MAX);
    buf_add_str(&out, "{\"process\":");
    buf_add_json(&out, o->process);
    buf_add_str(&out, ",\"version\":");
    buf_add_json(&out, FEEDMILL_VERSION);
    buf_add_str(&out, ",\"uptime_ms\":");
    buf_add_i64(&out, clock_mono_ms() - started_ms);
    if (o->status)
        o->status(&out, o->arg);
    buf_add_str(&out, "}\n");
    reply_buf(r, 200, "application/json", &out);
}

void admin_handle(struct http_request *r, void *admin_options)
{
    static const char *const paths[] = {"/healthz", "/readyz", "/metrics", "/v1/status"};
    const struct admin_options *o = admin_options;
    size_t i = 0;
    while (i < 4 && strcmp(r->path, paths[i]) != 0)
        i++;
    if (i == 4) {
        problem_simple(r, PROBLEM_NOT_FOUND, NULL);
    } else if (r->method != HTTP_GET && r->method != HTTP_HEAD) {
        http_header_add(r, "Allow", "GET, HEAD");
        problem_simple(r, PROBLEM_METHOD_NOT_ALLOWED, NULL);
    } else if (i == 0) {
        admin_reply_health(r);
    } else if (i == 1) {
        admin_reply_ready(r, o);
    } else if (i == 2) {
        admin_reply_metrics(r, o);
    } else {
        admin_reply_status(r, o);
    }
}
