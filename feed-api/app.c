/* Starting, draining and stopping the process. Nothing here needs a server to be there: Redis and MongoDB are
 * connected to as they come up (health.h), and /healthz and /readyz are answered meanwhile. */
#include "feed-api/app.h"

#include <assert.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "common/address.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/proc.h"
#include "feed-api/counts.h"
#include "feed-api/feed.h"
#include "feed-api/gate.h"
#include "feed-api/handlers_status.h"
#include "feed-api/item_ids.h"
#include "feed-api/redis_async.h"
#include "feed-api/router.h"
#include "feed-api/streams.h"

#define POOL_SPARE       16 /* clients besides the workers': the tail, its heartbeat, health, counts, streams */
#define ADMIN_CONNS      100
#define FILES_SPARE      100
#define STOP_MS          4800 /* from the signal to the exit, also when threads wait for a dead server */
#define STOP_LEAST_MS    500
#define MAX_BODY_DEFAULT 1024

/* ---- start ---- */

static int start_databases(struct app *app, struct err *e)
{
    struct mongo_options mo = {.uri = app->cfg.mongodb_uri,
                               .app_name = "feed-api",
                               .pool_size = (unsigned)app->cfg.workers + POOL_SPARE};
    if (redis_address_parse(app->cfg.redis, &app->redis_address, e) < 0)
        return err_prefix(e, "--redis");
    if (mongo_new(&app->mongo, &mo, e) < 0)
        return err_prefix(e, "--mongodb-uri");
    for (int64_t i = 0; i < app->cfg.loops; i++)
        app->loops[i].redis = redis_async_new(app->loops[i].base, &app->redis_address, 0, app->metrics);
    return 0;
}

static int start_caches(struct app *app, struct err *e)
{
    struct auth_options ao = {.jwt_keys_file = app->cfg.jwt_keys, .admin_key_file = app->cfg.admin_key_file};
    struct counts_options co = {.mongo = app->mongo,
                                .metrics = app->metrics,
                                .interval_ms = app->cfg.count_interval,
                                .sweep_ms = app->cfg.count_sweep,
                                .turns = {app->cfg.pull_threshold, app->cfg.pull_targets}};
    app->item_ids = item_ids_new();
    if (auth_new(&app->auth, &ao, app->metrics, e) < 0)
        return -1;
    app->pulled = pulled_new((size_t)app->cfg.pull_items, 2 * (size_t)app->cfg.pull_targets, app->metrics);
    if (content_new(&app->content, (size_t)app->cfg.content_cache_bytes, app->metrics, e) < 0)
        return -1;
    app->feed = feed_state_new();
    if (streams_start(&app->streams, app, e) < 0 || tail_start(&app->tail, app, e) < 0)
        return -1;
    return counts_start(&app->counts, &co, e);
}

static int start_workers(struct app *app, struct err *e)
{
    struct loop *first = &app->loops[0];
    if (workers_start(&first->workers, app, (unsigned)app->cfg.workers, (unsigned)app->cfg.worker_queue, e) <
        0)
        return -1;
    for (int64_t i = 1; i < app->cfg.loops; i++) {
        if (workers_share(&app->loops[i].workers, first->workers, app->loops[i].base, e) < 0)
            return -1;
    }
    return 0;
}

static int start_rankers(struct app *app, struct err *e)
{
    struct address a;
    if (app->cfg.ranker[0] == '\0')
        return 0;
    if (address_parse(app->cfg.ranker, &a, e) < 0)
        return err_prefix(e, "--ranker");
    struct http_client_options o = {.host = a.host, .port = a.port};
    for (int64_t i = 0; i < app->cfg.loops; i++) {
        app->loops[i].ranker = http_client_new(app->loops[i].base, &o, e);
        if (app->loops[i].ranker == NULL)
            return err_prefix(e, "--ranker");
    }
    return 0;
}

static int start_health(struct app *app, struct err *e)
{
    struct pressure_limits pl = {.lag_ms = app->cfg.publish_lag_max, .backlog = app->cfg.publish_backlog_max};
    app->pressure = pressure_new(&pl, app->metrics);
    return health_start(&app->health, app, e);
}

static int listen_on(struct http_server *s, const char *option, const char *text, bool loopback_only,
                     struct err *e)
{
    struct address a;
    uint16_t port;
    if (address_parse(text, &a, e) < 0)
        return err_prefix(e, "--%s", option);
    if (loopback_only && !address_is_loopback(&a))
        return err_set(e, ERR_INVALID, "--%s: needs no key, so only a loopback address will do", option);
    if (http_server_listen(s, a.host, a.port, &port, e) < 0)
        return err_prefix(e, "--%s", option);
    log_event(LOG_INFO, "listen", LOG_S("option", option), LOG_S("host", a.host), LOG_I("port", port));
    return 0;
}

/* Each loop has a server; the first one listens for all. */
static int start_servers(struct app *app, struct err *e)
{
    struct http_server *others[LOOPS_MAX];
    if (gate_new(&app->gate, &app->cfg, app->metrics, e) < 0)
        return -1;
    struct http_server_options o = {.max_connections = (size_t)app->cfg.max_connections,
                                    .max_body = MAX_BODY_DEFAULT,
                                    .max_body_total = (size_t)app->cfg.body_bytes,
                                    .budget = &app->budget,
                                    .peers = gate_peers(app->gate),
                                    .head_timeout_ms = app->cfg.head_timeout,
                                    .idle_timeout_ms = app->cfg.idle_timeout,
                                    .body_timeout_ms = app->cfg.body_timeout,
                                    .min_body_rate = (size_t)app->cfg.min_body_rate};
    if (router_init(e) < 0)
        return -1;
    for (int64_t i = 0; i < app->cfg.loops; i++) {
        struct loop *l = &app->loops[i];
        router_options(l, &o);
        l->http = http_server_new(l->base, &o);
        if (i > 0)
            others[i - 1] = l->http;
    }
    return http_server_spread(app->loops[0].http, others, (size_t)app->cfg.loops - 1, e);
}

static int start_http(struct app *app, struct err *e)
{
    struct event_base *base = app->loops[0].base;
    if (start_servers(app, e) < 0)
        return -1;
    status_options(app, &app->admin);
    if (app->cfg.admin_listen[0] != '\0') {
        struct http_server_options ao = {
            .handle = admin_handle, .arg = &app->admin, .max_connections = ADMIN_CONNS};
        app->admin_http = http_server_new(base, &ao);
        if (listen_on(app->admin_http, "admin-listen", app->cfg.admin_listen, true, e) < 0)
            return -1;
    }
    return listen_on(app->loops[0].http, "listen", app->cfg.listen, false, e);
}

/* As many as this process may use CPUs. */
static int64_t cpus(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return n < 1 ? 1 : n > LOOPS_MAX ? LOOPS_MAX : n;
}

static int start_loops(struct app *app, struct err *e)
{
    if (app->cfg.loops == 0)
        app->cfg.loops = cpus();
    app->loops = mem_zero((size_t)app->cfg.loops, sizeof *app->loops);
    for (int64_t i = 0; i < app->cfg.loops; i++) {
        if (loop_init(&app->loops[i], app, (unsigned)i, e) < 0)
            return -1;
    }
    return 0;
}

/* Last of all: from here on requests are served. */
static int run_loops(struct app *app, struct err *e)
{
    for (int64_t i = 1; i < app->cfg.loops; i++) {
        if (loop_start(&app->loops[i], e) < 0)
            return -1;
    }
    return 0;
}

static void check_files(const struct app *app)
{
    int64_t need = app->cfg.max_connections + 2 * app->cfg.workers + FILES_SPARE;
    if (proc_file_limit() < need)
        log_event(LOG_WARN, "few_files", LOG_I("limit", proc_file_limit()), LOG_I("wanted", need));
}

/* ---- end ---- */

/* In this order: what is accepted until then is still served. */
static void stop_listening(struct app *app)
{
    app->stopping_ms = clock_mono_ms();
    streams_drain(app->streams);
    for (int64_t i = 0; i < app->cfg.loops; i++)
        loop_tell(&app->loops[i], LOOP_DRAIN);
}

static void on_grace_over(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    stop_listening(arg);
}

static void drain(int signum, void *arg)
{
    (void)signum;
    struct app *app = arg;
    struct timeval grace = {.tv_sec = app->cfg.drain_grace / 1000,
                            .tv_usec = app->cfg.drain_grace % 1000 * 1000};
    app->draining = true; /* /readyz is 503 from here on */
    if (app->cfg.drain_grace == 0 ||
        event_base_once(app->loops[0].base, -1, EV_TIMEOUT, on_grace_over, app, &grace) != 0)
        stop_listening(app);
}

/* Every request is answered by now; what is left are threads that may be waiting for a server that is gone.
 */
static void stop_took_too_long(int signum)
{
    (void)signum;
    static const char text[] = "feed-api: threads still waiting for a server were left behind\n";
    ssize_t n = write(STDERR_FILENO, text, sizeof text - 1);
    (void)n;
    _exit(0);
}

int app_start(struct app *app, struct err *e)
{
    app->started_ms = clock_mono_ms();
    app->instance = proc_instance();
    app->name = app->cfg.name[0] != '\0' ? app->cfg.name : app->instance;
    app->metrics = feed_metrics_new();
    check_files(app);
    if (start_loops(app, e) < 0 || proc_signals_new(&app->signals, app->loops[0].base, drain, app, e) < 0 ||
        start_databases(app, e) < 0 || start_caches(app, e) < 0 || start_workers(app, e) < 0 ||
        start_rankers(app, e) < 0 || start_health(app, e) < 0 || start_http(app, e) < 0 ||
        run_loops(app, e) < 0) {
        app_stop(app);
        return -1;
    }
    return 0;
}

static void end_loops(struct app *app, bool at_once)
{
    for (int64_t i = 1; app->loops != NULL && i < app->cfg.loops; i++) {
        if (at_once && app->loops[i].runs)
            loop_tell(&app->loops[i], LOOP_END);
        loop_join(&app->loops[i]);
    }
}

int app_run(struct app *app)
{
    event_base_dispatch(app->loops[0].base);
    end_loops(app, app->failed);
    int64_t left = STOP_MS - (clock_mono_ms() - app->stopping_ms);
    if (left < STOP_LEAST_MS)
        left = STOP_LEAST_MS;
    struct itimerval limit = {.it_value = {.tv_sec = left / 1000, .tv_usec = left % 1000 * 1000}};
    signal(SIGALRM, stop_took_too_long);
    if (!app->failed)
        setitimer(ITIMER_REAL, &limit, NULL);
    return app->failed ? 1 : 0;
}

static void each_loop(struct app *app, void (*fn)(struct loop *l))
{
    for (int64_t i = 0; app->loops != NULL && i < app->cfg.loops; i++)
        fn(&app->loops[i]);
}

static void close_workers(struct loop *l)
{
    workers_close(l->workers); /* answers what is left, but for what waits for Redis or a position */
}

static void close_redis(struct loop *l)
{
    redis_async_free(l->redis);
}

static void free_server(struct loop *l)
{
    http_server_free(l->http);
}

static void free_ranker(struct loop *l)
{
    http_client_free(l->ranker);
}

static void stop_workers(struct loop *l)
{
    workers_stop(l->workers);
}

void app_stop(struct app *app)
{
    end_loops(app, true);
    each_loop(app, close_workers);
    each_loop(app, close_redis);
    tail_halt(app->tail);
    each_loop(app, feed_end_waiting);
    each_loop(app, free_server);
    streams_free(app->streams);
    http_server_free(app->admin_http);
    router_done();
    health_stop(app->health);
    each_loop(app, free_ranker);
    counts_stop(app->counts);
    tail_stop(app->tail);
    each_loop(app, stop_workers);
    feed_state_free(app->feed);
    pressure_free(app->pressure);
    content_free(app->content);
    pulled_free(app->pulled);
    auth_free(app->auth);
    item_ids_free(app->item_ids);
    mongo_free(app->mongo);
    proc_signals_free(app->signals);
    each_loop(app, loop_done);
    free(app->loops);
    gate_free(app->gate);
    metrics_free(app->metrics);
    feed_config_free(&app->cfg);
    alarm(0);
}
