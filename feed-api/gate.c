#include "feed-api/gate.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/ip.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/problem.h"
#include "feed-api/access_log.h"
#include "feed-api/cors.h"
#include "feed-api/metrics.h"
#include "feed-api/rate_limit.h"

#define BUCKETS        65536
#define NS_A_US        1000
#define FORWARDED_MAX  16 /* X-Forwarded-For fields that are looked at */
#define LINES_A_SECOND 20

enum { ENTERED = 1, ADMITTED = 2 }; /* marks of a request */

struct rule {
    struct rate_rule rate;
    const char *whose; /* for people */
    char policy[56];   /* RateLimit-Policy */
};

struct gate {
    struct metrics *metrics;
    struct ip_nets trusted;
    struct cors cors;
    struct rule rules[MRL_N];
    struct rate_limit *buckets; /* NULL: there is no limit */
    struct peers *peers;
    struct access_log *log; /* NULL: off */
    int64_t slow_us;        /* 0: off */
    _Atomic int64_t second; /* of the slow requests logged */
    _Atomic unsigned lines; /* of them in that second */
};

/* ---- making it ---- */

static void set_rule(struct gate *g, enum metric_rate kind, const char *name, const char *whose,
                     int64_t per_second, int64_t burst)
{
    struct rule *r = &g->rules[kind];
    r->rate = (struct rate_rule){per_second, burst};
    r->whose = whose;
    if (per_second == 0)
        return;
    int64_t quota = rate_rule_burst(&r->rate);
    /* A bucket is full again after w seconds, so no w seconds see more than twice q. */
    snprintf(r->policy, sizeof r->policy, "\"%s\";q=%lld;w=%lld", name, (long long)quota,
             (long long)((quota + per_second - 1) / per_second));
}

static void set_rules(struct gate *g, const struct feed_config *cfg)
{
    set_rule(g, MRL_KEY, "key", "this key", cfg->rate_key, cfg->rate_key_burst);
    set_rule(g, MRL_USER, "user", "this user", cfg->rate_user, cfg->rate_user_burst);
    set_rule(g, MRL_ADDRESS, "address", "this address", cfg->rate_address, cfg->rate_address_burst);
    for (size_t i = 0; i < MRL_N; i++) {
        if (g->rules[i].rate.per_second != 0 && g->buckets == NULL)
            g->buckets = rate_limit_new(BUCKETS);
    }
}

int gate_new(struct gate **out, const struct feed_config *cfg, struct metrics *m, struct err *e)
{
    struct gate *g = mem_zero(1, sizeof *g);
    int rc = 0;
    g->metrics = m;
    g->slow_us = cfg->slow_request * 1000;
    if (ip_nets_parse(cfg->trusted_proxy, &g->trusted, e) < 0)
        rc = err_prefix(e, "--trusted-proxy");
    else if (cors_parse(&g->cors, cfg->cors_origin, e) < 0)
        rc = err_prefix(e, "--cors-origin");
    else if (cfg->access_log[0] != '\0' &&
             access_log_start(&g->log, cfg->access_log, cfg->access_log_every, m, e) < 0)
        rc = err_prefix(e, "--access-log");
    if (rc < 0) {
        gate_free(g);
        return -1;
    }
    set_rules(g, cfg);
    if (cfg->max_connections_per_address != 0)
        g->peers = peers_new((size_t)cfg->max_connections_per_address, &g->trusted);
    *out = g;
    return 0;
}

void gate_free(struct gate *g)
{
    if (g == NULL)
        return;
    access_log_stop(g->log);
    cors_done(&g->cors);
    rate_limit_free(g->buckets);
    peers_free(g->peers);
    free(g);
}

struct peers *gate_peers(struct gate *g)
{
    return g->peers;
}

/* ---- whose it is ---- */

/* The fields from the last one to the first, as if they were one list. */
static void find_client(const struct gate *g, struct http_request *q)
{
    char text[IP_TEXT_SIZE];
    struct ip ip;
    size_t n = http_request_header_count(q, "X-Forwarded-For");
    if (n == 0 || n > FORWARDED_MAX || !ip_parse(q->client, strlen(q->client), &ip))
        return;
    while (n-- > 0 && ip_forwarded(&g->trusted, http_request_header_at(q, "X-Forwarded-For", n), &ip))
        ;
    ip_format(&ip, text);
    http_request_set_client(q, text);
}

/* ---- how often ---- */

static char *put_text(char *p, const char *s, size_t n)
{
    memcpy(p, s, n);
    return p + n;
}

static char *put_number(char *p, int64_t v)
{
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    return put_text(p, digits + at, sizeof digits - at);
}

/* For every request of a limited credential, so without the C library's formats. */
static void add_policy(const struct rule *r, const struct rate_verdict *v, struct http_request *q)
{
    char left[80], *p = put_text(left, r->policy, strcspn(r->policy, ";"));
    p = put_number(put_text(p, ";r=", 3), v->remaining);
    p = put_number(put_text(p, ";t=", 3), (v->reset_ms + 999) / 1000);
    *p = '\0';
    http_header_add(q, "RateLimit-Policy", r->policy);
    http_header_add(q, "RateLimit", left);
}

static bool refuse(struct gate *g, enum metric_rate kind, const struct rate_verdict *v,
                   struct http_request *q)
{
    const struct rule *r = &g->rules[kind];
    char detail[120];
    metrics_add(g->metrics, M_RATE_LIMITED, kind, 1);
    snprintf(detail, sizeof detail, "more than %lld requests a second, in bursts of up to %lld, by %s",
             (long long)r->rate.per_second, (long long)rate_rule_burst(&r->rate), r->whose);
    struct problem p = {.code = PROBLEM_TOO_MANY_REQUESTS, .detail = detail, .retry_after_ms = v->retry_ms};
    problem_reply(q, &p);
    return false;
}

/* Health checks come often, all from one address, and are what is asked when much else fails. */
static bool is_health_check(const struct http_request *q)
{
    return strcmp(q->path, "/healthz") == 0 || strcmp(q->path, "/readyz") == 0;
}

static bool address_may(struct gate *g, struct http_request *q)
{
    const struct rule *r = &g->rules[MRL_ADDRESS];
    char id[IP_TEXT_SIZE + 1] = "a";
    struct rate_verdict v;
    struct ip ip;
    if (r->rate.per_second == 0 || is_health_check(q) || !ip_parse(q->client, strlen(q->client), &ip))
        return true;
    ip = ip_client(&ip);
    ip_format(&ip, id + 1);
    rate_limit_take(g->buckets, &r->rate, id, clock_mono_us() * NS_A_US, &v);
    if (v.ok)
        return true;
    add_policy(r, &v, q);
    return refuse(g, MRL_ADDRESS, &v, q);
}

bool gate_enter(struct gate *g, struct http_request *q)
{
    if (q->marks & ENTERED)
        return true;
    q->marks |= ENTERED;
    if (g->trusted.n > 0)
        find_client(g, q);
    return !cors_apply(&g->cors, q) && address_may(g, q);
}

bool gate_admit(struct gate *g, struct http_request *q, const struct identity *who)
{
    if (who->role == ROLE_NONE || q->marks & ADMITTED)
        return true;
    q->marks |= ADMITTED;
    bool is_user = who->role == ROLE_USER;
    enum metric_rate kind = is_user ? MRL_USER : MRL_KEY;
    const struct rule *r = &g->rules[kind];
    size_t n = strnlen(who->id, sizeof q->who - 3);
    char *end = put_text(put_text(q->who, is_user ? "u:" : "k:", 2), who->id, n);
    *end = '\0';
    if (r->rate.per_second == 0)
        return true;
    struct rate_verdict v;
    rate_limit_take(g->buckets, &r->rate, q->who, clock_mono_us() * NS_A_US, &v);
    add_policy(r, &v, q);
    return v.ok || refuse(g, kind, &v, q);
}

/* ---- what is logged ---- */

void gate_spent(struct http_request *q, enum gate_span span, int64_t us)
{
    q->spent_us[span] += us > 0 ? us : 0;
}

/* A server that is slow makes thousands of requests slow: of these, some a second are enough. */
static bool log_has_room(struct gate *g)
{
    int64_t now = clock_mono_ms() / 1000;
    if (atomic_exchange(&g->second, now) != now)
        atomic_store(&g->lines, 0);
    return atomic_fetch_add(&g->lines, 1) < LINES_A_SECOND;
}

static void log_slow(struct gate *g, const struct http_request *q, const char *op, int status, int64_t us)
{
    const int64_t *spent = q->spent_us;
    int64_t known = 0;
    for (size_t i = 0; i < HTTP_SPANS; i++)
        known += spent[i];
    metrics_add(g->metrics, M_SLOW_REQUESTS, 0, 1);
    if (!log_has_room(g))
        return;
    log_event(LOG_WARN, "request_slow", LOG_S("id", q->id), LOG_S("op", op != NULL ? op : "none"),
              LOG_S("who", q->who), LOG_S("client", q->client), LOG_I("status", status),
              LOG_I("ms", us / 1000), LOG_I("queue_ms", spent[SPAN_QUEUE] / 1000),
              LOG_I("worker_ms", spent[SPAN_WORKER] / 1000), LOG_I("redis_ms", spent[SPAN_REDIS] / 1000),
              LOG_I("ranker_ms", spent[SPAN_RANKER] / 1000),
              LOG_I("rest_ms", (us > known ? us - known : 0) / 1000));
}

void gate_done(struct gate *g, const struct http_request *q, const char *op, int status, size_t bytes,
               int64_t us)
{
    /* A stream is open as long as its reader wants. */
    if (g->slow_us != 0 && us > g->slow_us && !q->streamed)
        log_slow(g, q, op, status, us);
    if (g->log == NULL)
        return;
    struct access_line line = {
        .at_ms = clock_wall_ms(),
        .id = q->id,
        .client = q->client,
        .who = q->who[0] != '\0' ? q->who : NULL,
        .method = q->method >= 0 ? http_method_str((enum http_method)q->method) : NULL,
        .path = q->method >= 0 ? q->path : NULL,
        .op = op,
        .status = status,
        .bytes = (int64_t)bytes,
        .us = us,
        .agent = http_request_header(q, "User-Agent"),
    };
    access_log_add(g->log, &line);
}
