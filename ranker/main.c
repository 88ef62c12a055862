/* main.c - ranker: the table of contents. The learner's thread takes events (learn.h), workers make sessions
 * (session.h), this thread serves HTTP (sessions_http.h) and takes the signals. */
#include <stdio.h>
#include <string.h>
#include "common/address.h"
#include "common/log.h"
#include "ranker/app.h"
#include "ranker/metrics.h"
#include "ranker/sessions_http.h"

static void loop_over(void *arg)
{
    event_base_loopbreak(((struct app *)arg)->base);
}

static void drain(int signum, void *arg)
{
    struct app *a = arg;
    log_event(LOG_INFO, "draining", LOG_S("signal", strsignal(signum)));
    a->draining = true;
    http_server_drain(a->http, a->cfg.drain, loop_over, a);
}

static bool ready(struct buf *degraded, void *arg)
{
    const struct app *a = arg;
    if (!learner_ready(a->learner))
        buf_add_str(degraded, "\"redis\"");
    return !a->draining && learner_ready(a->learner);
}

static void status(struct buf *out, void *arg)
{
    const struct app *a = arg;
    buf_add_str(out, ",\"name\":");
    buf_add_json(out, a->name);
    buf_printf(out, ",\"draining\":%s,\"learning\":%s,\"queued\":%u,\"busy\":%u",
               a->draining ? "true" : "false", learner_ready(a->learner) ? "true" : "false",
               workers_queued(a->workers), workers_busy(a->workers));
    buf_printf(out, ",\"weights\":{\"freshness\":%g,\"affinity\":%g,\"engagement\":%g}",
               a->limits.weights.freshness, a->limits.weights.affinity, a->limits.weights.engagement);
}

static int make_clients(struct app *a, struct err *e)
{
    struct mongo_options mo = {
        .uri = a->cfg.mongodb_uri, .app_name = "feedmill-ranker", .pool_size = (unsigned)a->cfg.workers + 2};
    a->limits = (struct session_limits){
        .weights = {a->cfg.weight_freshness, a->cfg.weight_affinity, a->cfg.weight_engagement,
                    a->cfg.freshness_half_life},
        .affinity_half_life_ms = a->cfg.affinity_half_life,
        .engagement_half_life_ms = a->cfg.engagement_half_life,
        .ttl_ms = a->cfg.session_ttl,
    };
    a->infos = item_infos_new((size_t)a->cfg.item_cache, a->metrics);
    if (redis_address_parse(a->cfg.redis, &a->redis, e) < 0 || mongo_new(&a->mongo, &mo, e) < 0)
        return -1;
    struct workers_options wo = {.app = a,
                                 .base = a->base,
                                 .mongo = a->mongo,
                                 .redis = &a->redis,
                                 .threads = (unsigned)a->cfg.workers,
                                 .queue_max = (unsigned)a->cfg.worker_queue,
                                 .metrics = a->metrics,
                                 .wait_seconds = M_WORKERS_WAIT,
                                 .run_seconds = M_WORKERS_RUN,
                                 .expired = M_WORKERS_EXPIRED,
                                 .refused = M_WORKERS_REFUSED};
    struct learner_options lo = {.cfg = &a->cfg,
                                 .name = a->name,
                                 .mongo = a->mongo,
                                 .redis = a->redis,
                                 .infos = a->infos,
                                 .metrics = a->metrics};
    if (workers_new(&a->workers, &wo, e) < 0)
        return -1;
    return learner_start(&a->learner, &lo, e);
}

static int serve(struct app *a, struct err *e)
{
    struct address at;
    uint16_t bound;
    struct http_server_options ho = {.head = sessions_http_head, .handle = sessions_http_handle, .arg = a};
    a->admin = (struct admin_options){
        .process = "ranker", .metrics = a->metrics, .ready = ready, .status = status, .arg = a};
    a->http = http_server_new(a->base, &ho);
    if (address_parse(a->cfg.listen, &at, e) < 0 ||
        http_server_listen(a->http, at.host, at.port, &bound, e) < 0 ||
        proc_signals_new(&a->signals, a->base, drain, a, e) < 0)
        return -1;
    log_event(LOG_INFO, "listening", LOG_S("address", at.host), LOG_U("port", bound), LOG_S("name", a->name));
    return 0;
}

static void tear_down(struct app *a)
{
    workers_stop(a->workers); /* answers what is in work, so before the server goes */
    http_server_free(a->http);
    learner_stop(a->learner);
    proc_signals_free(a->signals);
    item_infos_free(a->infos);
    mongo_free(a->mongo);
    metrics_free(a->metrics);
}

int main(int argc, char **argv)
{
    struct app a = {0};
    struct err e = {0};
    enum config_result result;
    enum log_level level;
    proc_init("ranker");
    if (ranker_config_load(argc, argv, &a.cfg, &result, &e) < 0) {
        fprintf(stderr, "ranker: %s\n", e.msg);
        return 2;
    }
    if (result == CONFIG_EXIT_OK)
        return 0;
    if (log_level_parse(a.cfg.log_level, &level) < 0) {
        fprintf(stderr, "ranker: --log-level: debug, info, warn or error, not \"%s\"\n", a.cfg.log_level);
        return 2;
    }
    log_init("ranker", level);
    a.name = a.cfg.name[0] ? a.cfg.name : proc_instance();
    a.metrics = ranker_metrics_new();
    a.base = event_base_new();
    int rc = make_clients(&a, &e) < 0 || serve(&a, &e) < 0 ? -1 : 0;
    if (rc == 0)
        event_base_dispatch(a.base);
    else
        log_event(LOG_ERROR, "start_failed", LOG_ERR(&e));
    tear_down(&a);
    event_base_free(a.base);
    ranker_config_free(&a.cfg);
    proc_done();
    return rc == 0 ? 0 : 1;
}
