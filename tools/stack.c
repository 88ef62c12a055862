#include "tools/stack.h"

#include <event2/event.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/mem.h"
#include "tools/servers.h"
#include "tools/stack_data.h"
#include "tools/stack_member.h"
#include "tools/stack_words.h"

#define TICK_MS      50
#define EARLY_ENDS   5     /* ends before it was ever ready, after which a start is given up */
#define PROGRESS_MS  5000  /* between two lines on what a start waits for */
#define DEMO_LOOK_MS 1000  /* between two looks for the first demo reader */
#define DEMO_WAIT_MS 20000 /* how long after the loader a demo reader's page is looked for */

#define AT(field) offsetof(struct stack_options, field)

const struct config_row stack_rows[] = {
    {"port", CONFIG_INT, AT(port), "8080", 1, 65535, "port of the HTTP API on 127.0.0.1"},
    {"data", CONFIG_STRING, AT(data), "./run", 1, 4000, "directory for everything that is kept"},
    {"demo", CONFIG_BOOL, AT(demo), "no", 0, 0,
     "load the demo data: the changelogs of this machine's packages"},
    {"mongod-cache-gb", CONFIG_DOUBLE, AT(mongod_cache), "1", 0.25, 10000, "memory for MongoDB's cache, GB"},
    {"redis-maxmemory", CONFIG_BYTES, AT(redis_maxmemory), "0", 0, 1e15, "memory for Redis, 0 for no limit"},
    {"min-free", CONFIG_BYTES, AT(min_free), "500m", 0, 1e15,
     "free space that the directory's disk must have"},
    {"start-deadline", CONFIG_MS, AT(start_deadline), "3m", 1000, 86400000, "time until all must be ready"},
    {"log-level", CONFIG_STRING, AT(log_level), "info", 4, 5, "debug, info, warn or error"},
};
const size_t stack_rows_count = MEM_COUNT(stack_rows);

enum { REDIS, MONGOD, FANOUT, RANKER, FEED_API, MEMBERS };

/* In this order they are told to end, each until so long after the first was told; time that one does not
 * need is left for those after it. All together less than 10 s. */
static const struct {
    int member;
    int64_t until_ms;
} stop_order[] = {{FEED_API, 3500}, {RANKER, 4700}, {FANOUT, 6500}, {REDIS, 7500}, {MONGOD, 9500}};

enum phase { DATABASES, PROCESSES, READY, STOPPING };

struct stack {
    const struct stack_options *o;
    struct stack_data data;
    struct stack_member members[MEMBERS];
    struct server *loader; /* of the demo data; NULL without */
    bool loader_started, lines_shown;
    int64_t look_at, lines_until;
    enum phase phase;
    int64_t began, progress_at;
    size_t stop_step;   /* in stop_order */
    int64_t stop_began; /* clock_mono_ms(); 0: nobody was told yet */
    bool stop_told;     /* the child of the present step */
    struct event_base *base;
    struct event *events[5];
    int rc;
    struct err *err; /* of stack_run()'s caller */
};

/* ---- putting it together ---- */

static char *bin_path(const char *name)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(self, '/');
    return mem_printf("%.*s/%s", slash ? (int)(slash - self) : 0, self, name);
}

static char *log_path(const struct stack *s, const char *name)
{
    return mem_printf("%s/logs/%s.log", s->data.dir, name);
}

static int prepare_redis(struct stack *s)
{
    char *dir = stack_data_path(&s->data, "redis");
    char *log = log_path(s, "redis");
    struct server *server = redis_server_new(dir, log, s->o->redis_maxmemory, NULL, s->err);
    free(dir);
    free(log);
    if (!server) {
        return err_prefix(s->err, "step 'redis'");
    }
    stack_member_init(&s->members[REDIS], server);
    return 0;
}

static int prepare_mongod(struct stack *s)
{
    char *dir = stack_data_path(&s->data, "mongod");
    char *log = log_path(s, "mongod");
    struct mongod_options o = {.dir = dir,
                               .log_path = log,
                               .port = s->data.ports[STACK_PORT_MONGOD],
                               .cache_gb = s->o->mongod_cache};
    struct server *server = mongod_server_new(&o, s->err);
    free(dir);
    free(log);
    if (!server) {
        return err_prefix(s->err, "step 'mongod'");
    }
    stack_member_init(&s->members[MONGOD], server);
    return 0;
}

/* Our own: the common flags, then those of extra, up to a NULL. */
static void prepare_process(struct stack *s, int which, const char *program, int port,
                            const char *const *extra)
{
    char *bin = bin_path(program);
    char *name = mem_printf("%s-1", program);
    char *log = log_path(s, name);
    char *uri = mongod_server_uri(s->members[MONGOD].server, "feedmill");
    char *redis = mem_printf("unix:%s", redis_server_path(s->members[REDIS].server));
    char *address = mem_printf("127.0.0.1:%d", port);
    const char *argv[32] = {bin,      "--listen", address,       "--mongodb-uri", uri, "--redis", redis,
                            "--name", name,       "--log-level", s->o->log_level};
    size_t n = 0;
    while (argv[n]) {
        n++;
    }
    while (*extra) {
        argv[n++] = *extra++;
    }
    struct server *server = server_new(program, log, argv);
    server_set_http_probe(server, port, "/readyz");
    stack_member_init(&s->members[which], server);
    free(bin);
    free(name);
    free(log);
    free(uri);
    free(redis);
    free(address);
}

static void prepare_processes(struct stack *s)
{
    /* The times to drain fit into stop_order. */
    const char *fanout[] = {"--drain", "1800ms", NULL};
    const char *ranker[] = {NULL};
    prepare_process(s, FANOUT, "fanout", s->data.ports[STACK_PORT_FANOUT], fanout);
    prepare_process(s, RANKER, "ranker", s->data.ports[STACK_PORT_RANKER], ranker);
    char *address = mem_printf("127.0.0.1:%d", s->data.ports[STACK_PORT_RANKER]);
    char *key = stack_data_path(&s->data, "admin.key");
    char *jwt = stack_data_path(&s->data, "jwt.keys");
    const char *api[] = {"--ranker", address,  "--admin-key-file",           key, "--jwt-keys", jwt,
                         "--drain",  "2500ms", s->o->demo ? "--demo" : NULL, NULL};
    prepare_process(s, FEED_API, "feed-api", (int)s->o->port, api);
    free(address);
    free(key);
    free(jwt);
}

static void prepare_loader(struct stack *s)
{
    char *script = mem_printf("%s/tools/demo_load.py", server_root());
    char *url = mem_printf("http://127.0.0.1:%d", (int)s->o->port);
    char *key = stack_data_path(&s->data, "admin.key");
    char *state = stack_data_path(&s->data, "demo.state");
    char *reader = stack_data_path(&s->data, "demo.reader");
    const char *argv[] = {"/usr/bin/env", "python3", script,          "--url", url, "--key-file", key,
                          "--state",      state,     "--reader-file", reader,  NULL};
    s->loader = server_new("demo loader", NULL, argv);
    free(script);
    free(url);
    free(key);
    free(state);
    free(reader);
}

static int check_port(struct stack *s)
{
    if (server_port_free((int)s->o->port)) {
        return 0;
    }
    return err_set(
        s->err, ERR_BUSY,
        "step 'port': 127.0.0.1:%d is taken by another program. Stop it, or give another with PORT=<port>",
        (int)s->o->port);
}

static int prepare(struct stack *s)
{
    if (stack_data_open(&s->data, s->o->data, s->o->min_free, s->err) != 0 || check_port(s) != 0 ||
        prepare_redis(s) != 0 || prepare_mongod(s) != 0) {
        return -1;
    }
    prepare_processes(s);
    if (s->o->demo) {
        prepare_loader(s);
    }
    return 0;
}

/* ---- stopping ---- */

static void begin_stop(struct stack *s)
{
    s->phase = STOPPING;
    s->stop_began = clock_mono_ms();
    if (s->loader) {
        server_signal(s->loader, SIGTERM);
    }
}

static void kill_all(struct stack *s)
{
    for (size_t i = 0; i < MEM_COUNT(stop_order); i++) {
        if (s->members[stop_order[i].member].server) {
            server_kill(s->members[stop_order[i].member].server);
        }
    }
}

/* Answers whether the child of the present step is gone, after telling it to go or, out of time, killing it.
 */
static bool stop_one(struct stack *s, int64_t now)
{
    struct server *server = s->members[stop_order[s->stop_step].member].server;
    if (!server || !server_running(server)) {
        return true;
    }
    if (!s->stop_began) {
        s->stop_began = now;
    }
    if (!s->stop_told) {
        s->stop_told = true;
        server_signal(server, SIGTERM);
        server_signal(server, SIGCONT);
        return false;
    }
    if (now < s->stop_began + stop_order[s->stop_step].until_ms) {
        return false;
    }
    stack_words_say("%s did not end in time: killed", server_name(server));
    server_kill(server);
    return true;
}

static void stop_tick(struct stack *s, int64_t now)
{
    while (s->stop_step < MEM_COUNT(stop_order) && stop_one(s, now)) {
        s->stop_step++;
        s->stop_told = false;
    }
    if (s->stop_step == MEM_COUNT(stop_order)) {
        event_base_loopbreak(s->base);
    }
}

static void give_up(struct stack *s, const struct stack_member *m, const char *what)
{
    s->rc = err_set(s->err, ERR_UNAVAILABLE, "step '%s': %.130s. The log that tells more: %.90s",
                    server_name(m->server), what, server_log_path(m->server));
    stack_words_why(m->server);
    begin_stop(s);
}

/* ---- running ---- */

static void on_ended(struct stack *s, struct stack_member *m)
{
    if (!m->was_up && m->ends >= EARLY_ENDS) {
        give_up(s, m, m->why.msg);
        return;
    }
    stack_words_say("%s; starting it again in %lld.%lld s", m->why.msg, (long long)(m->backoff_ms / 1000),
                    (long long)(m->backoff_ms % 1000 / 100));
}

static void member_tick(struct stack *s, struct stack_member *m, int64_t now)
{
    bool again = m->was_up;
    switch (stack_member_tick(m, now)) {
    case STACK_MEMBER_NOTHING:
        break;
    case STACK_MEMBER_READY:
        stack_words_say("%s is %s", server_name(m->server), again ? "back" : "up");
        break;
    case STACK_MEMBER_ENDED:
        on_ended(s, m);
        break;
    }
}

static bool were_up(const struct stack *s, int first, int last)
{
    for (int i = first; i <= last; i++) {
        if (!s->members[i].was_up) {
            return false;
        }
    }
    return true;
}

static void start_tick(struct stack *s, int64_t now)
{
    if (s->phase == DATABASES && were_up(s, REDIS, MONGOD)) {
        s->phase = PROCESSES;
        for (int i = FANOUT; i <= FEED_API; i++) {
            stack_member_want(&s->members[i]);
        }
    }
    if (s->phase == PROCESSES && were_up(s, FANOUT, FEED_API)) {
        s->phase = READY;
        stack_words_ready(&s->data, (int)s->o->port, now - s->began);
        return;
    }
    bool late = now - s->began >= s->o->start_deadline, tell = now >= s->progress_at;
    for (int i = 0; (late || tell) && i < MEMBERS; i++) {
        struct stack_member *m = &s->members[i];
        if (m->state == STACK_MEMBER_IDLE || m->was_up) {
            continue;
        }
        if (late) {
            give_up(s, m, m->why.msg[0] ? m->why.msg : "it is not ready in time");
            return;
        }
        stack_words_say("waiting for %s: %s", server_name(m->server), m->why.msg);
    }
    s->progress_at = tell ? now + PROGRESS_MS : s->progress_at;
}

static void loader_ended(struct stack *s)
{
    if (server_status(s->loader) != 0) {
        char status[64];
        server_status_text(s->loader, status, sizeof status);
        stack_words_say("the demo loader ended with %s; it goes on where it stopped with the next start",
                        status);
    }
    server_free(s->loader);
    s->loader = NULL;
}

static void loader_tick(struct stack *s)
{
    struct err e;
    if (s->loader_started) {
        if (!server_running(s->loader)) {
            loader_ended(s);
        }
        return;
    }
    s->loader_started = true;
    if (server_start(s->loader, &e) != 0) {
        stack_words_say("no demo data: %s", e.msg);
        server_free(s->loader);
        s->loader = NULL;
    }
}

/* The lines to paste are shown once they show something: a reader of the demo, or, without a demo or some
 * time after its loader ended without one, what it takes to publish something. */
static void ready_tick(struct stack *s, int64_t now)
{
    if (s->loader) {
        loader_tick(s);
        s->lines_until = now + DEMO_WAIT_MS;
    }
    if (s->lines_shown || now < s->look_at) {
        return;
    }
    s->look_at = now + DEMO_LOOK_MS;
    s->lines_shown = s->o->demo && stack_words_demo(&s->data, (int)s->o->port);
    if (!s->lines_shown && !s->loader && now >= s->lines_until) {
        stack_words_empty(&s->data, (int)s->o->port);
        s->lines_shown = true;
    }
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct stack *s = arg;
    for (int i = 0; i < MEMBERS && s->phase != STOPPING; i++) {
        member_tick(s, &s->members[i], clock_mono_ms());
    }
    int64_t now = clock_mono_ms();
    if (s->phase == STOPPING) {
        stop_tick(s, now);
    } else if (s->phase == READY) {
        ready_tick(s, now);
    } else {
        start_tick(s, now);
    }
}

static void on_stop_signal(evutil_socket_t sig, short what, void *arg)
{
    (void)what;
    struct stack *s = arg;
    if (s->phase == STOPPING) {
        stack_words_say("killing what still runs");
        kill_all(s);
        return;
    }
    stack_words_say("%s: stopping", strsignal((int)sig));
    begin_stop(s);
}

static void add_events(struct stack *s)
{
    struct timeval tick = {.tv_usec = TICK_MS * 1000};
    int stop[] = {SIGINT, SIGTERM, SIGHUP};
    s->base = event_base_new();
    for (size_t i = 0; i < MEM_COUNT(stop); i++) {
        s->events[i] = event_new(s->base, stop[i], EV_SIGNAL | EV_PERSIST, on_stop_signal, s);
        event_add(s->events[i], NULL);
    }
    s->events[3] = event_new(s->base, SIGCHLD, EV_SIGNAL | EV_PERSIST, on_tick, s);
    event_add(s->events[3], NULL);
    s->events[4] = event_new(s->base, -1, EV_PERSIST, on_tick, s);
    event_add(s->events[4], &tick);
}

static void tear_down(struct stack *s)
{
    for (size_t i = 0; i < MEM_COUNT(s->events); i++) {
        if (s->events[i]) {
            event_free(s->events[i]);
        }
    }
    if (s->base) {
        event_base_free(s->base);
    }
    server_free(s->loader);
    if (s->members[REDIS].server) {
        /* It removes its socket itself, unless it was killed. */
        unlink(redis_server_path(s->members[REDIS].server));
    }
    for (int i = MEMBERS; i > 0; i--) {
        stack_member_done(&s->members[i - 1]);
    }
    stack_data_close(&s->data);
}

int stack_run(const struct stack_options *o, struct err *e)
{
    struct stack s = {.o = o, .err = e, .began = clock_mono_ms(), .data = {.lock_fd = -1}};
    s.progress_at = s.began + PROGRESS_MS;
    signal(SIGPIPE, SIG_IGN);
    s.rc = prepare(&s);
    if (s.rc == 0) {
        stack_words_say("starting on %s", s.data.dir);
        add_events(&s);
        stack_member_want(&s.members[REDIS]);
        stack_member_want(&s.members[MONGOD]);
        event_base_dispatch(s.base);
        stack_words_say("stopped");
    }
    tear_down(&s);
    return s.rc;
}
