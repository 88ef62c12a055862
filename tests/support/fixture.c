#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/support/fixture.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/mem.h"
#include "tests/support/fixture_private.h"

#define START_MS   30000
#define TAIL_BYTES 6000
#define UNTIL_MS   5 /* between two looks of fixture_until() */
#define OPLOG_MB   64
#define FORGET_MB  50 /* and a checkpoint a second: what the last one needs of the log is not let go */
#define CACHE_GB   0.25

/* For the signal handler: the directory of the newest fixture and its children. */
static struct fixture *live;

int fixture_slowness(void)
{
#if defined(__SANITIZE_THREAD__)
    return 6;
#elif defined(__SANITIZE_ADDRESS__)
    return 3;
#else
    return 1;
#endif
}

/* ---- the directory, and what happens to it ---- */

/* Only async-signal-safe calls: it is used by the signal handler too. */
static void remove_tree(const char *dir)
{
    pid_t pid = fork();
    if (pid == 0) {
        execl("/bin/rm", "rm", "-rf", "--", dir, (char *)NULL);
        _exit(127);
    }
    while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
    }
}

/* A test that is interrupted takes its children and its directory with it, then dies of the same signal. */
static void on_signal(int sig)
{
    if (live) {
        for (size_t i = 0; i < live->n; i++) {
            pid_t pid = server_pid(live->entries[i].server);
            if (pid > 0) {
                kill(pid, SIGKILL);
            }
        }
        if (live->owner == getpid()) {
            remove_tree(live->dir);
        }
    }
    signal(sig, SIG_DFL);
    raise(sig);
}

static void at_exit(void)
{
    if (live && live->owner == getpid()) {
        fixture_free(live);
    }
}

static void guard_against_interruption(void)
{
    static bool done;
    if (done) {
        return;
    }
    done = true;
    int sigs[] = {SIGINT, SIGTERM, SIGHUP};
    for (size_t i = 0; i < MEM_COUNT(sigs); i++) {
        struct sigaction a = {.sa_handler = on_signal};
        sigaction(sigs[i], &a, NULL);
    }
    signal(SIGPIPE, SIG_IGN);
    atexit(at_exit);
}

static char *make_dir(void)
{
    const char *tmp = getenv("TMPDIR");
    char *dir = mem_printf("%s/feedmill-test-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(dir)) {
        fail_msg("can't make a directory like %s: %s", dir, strerror(errno));
    }
    return dir;
}

static char *make_subdir(struct fixture *f, const char *name)
{
    char *dir = mem_printf("%s/%s", f->dir, name);
    if (mkdir(dir, 0700) != 0) {
        fixture_fail(f, "mkdir %s: %s", dir, strerror(errno));
    }
    return dir;
}

/* The runner sets FEEDMILL_TEST_LOGS: logs outlive the fixture there, and are shown if the test failed. */
static void keep_logs(struct fixture *f)
{
    const char *to = getenv("FEEDMILL_TEST_LOGS");
    for (size_t i = 0; to && *to && i < f->n; i++) {
        const char *from = server_log_path(f->entries[i].server);
        char *copy = mem_printf("%s/%s", to, strrchr(from, '/') + 1);
        pid_t pid = fork();
        if (pid == 0) {
            execl("/bin/mv", "mv", "--", from, copy, (char *)NULL);
            _exit(127);
        }
        while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
        }
        free(copy);
    }
}

/* ---- servers ---- */

struct fixture_entry *fixture_add(struct fixture *f, struct server *s, int port)
{
    f->entries = mem_grow(f->entries, f->n + 1, sizeof *f->entries);
    f->entries[f->n] = (struct fixture_entry){.server = s, .port = port};
    return &f->entries[f->n++];
}

static void start_redis(struct fixture *f)
{
    struct err e;
    char *dir = make_subdir(f, "redis");
    char *log = mem_printf("%s/redis.log", f->dir);
    /* What was done before a kill is there after it: harder than starting empty. */
    const char *options[] = {"--appendonly", "yes", "--save", "", NULL};
    f->redis = redis_server_new(dir, log, 0, options, &e);
    if (!f->redis) {
        fixture_fail(f, "%s", e.msg);
    }
    f->redis_address = mem_printf("unix:%s", redis_server_path(f->redis));
    fixture_add(f, f->redis, 0);
    if (server_start(f->redis, &e) != 0) {
        fixture_fail(f, "%s", e.msg);
    }
    free(dir);
    free(log);
}

static void start_mongod(struct fixture *f, bool forgetful)
{
    struct err e;
    char *dir = make_subdir(f, "mongod");
    char *log = mem_printf("%s/mongod.log", f->dir);
    struct mongod_options o = {
        .dir = dir,
        .log_path = log,
        .port = server_free_port(),
        .cache_gb = CACHE_GB,
        .oplog_mb = forgetful ? FORGET_MB : OPLOG_MB,
        .checkpoint_s = forgetful ? 1 : 0,
    };
    f->mongod = mongod_server_new(&o, &e);
    if (!f->mongod) {
        fixture_fail(f, "%s", e.msg);
    }
    fixture_add(f, f->mongod, o.port);
    if (server_start(f->mongod, &e) != 0) {
        fixture_fail(f, "%s", e.msg);
    }
    free(dir);
    free(log);
}

void fixture_wait(struct fixture *f, struct server *s)
{
    struct err e;
    if (server_wait(s, START_MS * fixture_slowness(), &e) != 0) {
        fixture_fail(f, "%s", e.msg);
    }
}

static void name_database(struct fixture *f)
{
    free(f->database);
    free(f->uri);
    f->database = mem_printf("feedmill_%u", ++f->databases);
    f->uri = f->mongod ? mongod_server_uri(f->mongod, f->database) : NULL;
}

struct fixture *fixture_new(unsigned what)
{
    guard_against_interruption();
    struct fixture *f = mem_zero(1, sizeof *f);
    f->dir = make_dir();
    f->owner = getpid();
    f->older = live;
    live = f;
    if (what & FIXTURE_MONGOD) {
        start_mongod(f, what & FIXTURE_FORGETFUL);
    }
    if (what & FIXTURE_REDIS) {
        start_redis(f);
        fixture_wait(f, f->redis);
    }
    if (what & FIXTURE_MONGOD) {
        fixture_wait(f, f->mongod);
    }
    name_database(f);
    return f;
}

static void unlink_live(struct fixture *f)
{
    struct fixture **p = &live;
    while (*p && *p != f) {
        p = &(*p)->older;
    }
    if (*p) {
        *p = f->older;
    }
}

/* Answers whether all of our processes ended cleanly. */
static bool stop_all(struct fixture *f)
{
    bool clean = true;
    /* Nothing in here is needed again, so the databases are killed, not asked. Our own processes end in
     * order, so that the sanitizers can speak. */
    for (size_t i = f->n; i > 0; i--) {
        struct server *s = f->entries[i - 1].server;
        if (s == f->redis || s == f->mongod) {
            server_kill(s);
        } else {
            clean = fixture_stop_process(s) && clean;
        }
    }
    return clean;
}

/* Frees f; answers whether all of our processes ended cleanly. */
static bool tear_down(struct fixture *f)
{
    bool clean = stop_all(f);
    keep_logs(f);
    unlink_live(f);
    for (size_t i = 0; i < f->n; i++) {
        server_free(f->entries[i].server);
    }
    remove_tree(f->dir);
    free(f->entries);
    free(f->redis_address);
    free(f->database);
    free(f->uri);
    free(f->admin_key);
    free(f->dir);
    free(f);
    return clean;
}

void fixture_free(struct fixture *f)
{
    if (f) {
        tear_down(f);
    }
}

static int group_setup(void **state, unsigned what)
{
    *state = fixture_new(what);
    return 0;
}

int fixture_group_setup(void **state)
{
    return group_setup(state, FIXTURE_BOTH);
}

int fixture_group_setup_redis(void **state)
{
    return group_setup(state, FIXTURE_REDIS);
}

int fixture_group_setup_mongod(void **state)
{
    return group_setup(state, FIXTURE_MONGOD);
}

int fixture_group_teardown(void **state)
{
    bool clean = !*state || tear_down(*state);
    *state = NULL;
    return clean ? 0 : -1;
}

const char *fixture_dir(const struct fixture *f)
{
    return f->dir;
}

const char *fixture_redis_path(const struct fixture *f)
{
    return f->redis ? redis_server_path(f->redis) : NULL;
}

const char *fixture_redis_address(const struct fixture *f)
{
    return f->redis_address;
}

const char *fixture_mongodb_uri(const struct fixture *f)
{
    return f->uri;
}

const char *fixture_database(const struct fixture *f)
{
    return f->database;
}

struct server *fixture_redis(struct fixture *f)
{
    return f->redis;
}

struct server *fixture_mongod(struct fixture *f)
{
    return f->mongod;
}

void fixture_restart(struct fixture *f, struct server *s)
{
    struct err e;
    if (server_start(s, &e) != 0) {
        fixture_fail(f, "%s", e.msg);
    }
    fixture_wait(f, s);
}

/* ---- fresh data, old data ---- */

static void redis_flush(struct fixture *f)
{
    struct timeval limit = {.tv_sec = 10};
    redisContext *c = redisConnectUnixWithTimeout(fixture_redis_path(f), limit);
    const char *argv[] = {"FLUSHALL"};
    redisReply *r = c && !c->err ? redisCommandArgv(c, 1, argv, NULL) : NULL;
    bool ok = r && r->type == REDIS_REPLY_STATUS;
    if (r) {
        freeReplyObject(r);
    }
    if (c) {
        redisFree(c);
    }
    if (!ok) {
        fixture_fail(f, "FLUSHALL failed");
    }
}

void fixture_fresh(struct fixture *f)
{
    bool clean = true;
    for (size_t i = f->n; i > 0; i--) {
        struct server *s = f->entries[i - 1].server;
        if (s != f->redis && s != f->mongod) {
            clean = fixture_stop_process(s) && clean;
            fixture_forget(f, s);
        }
    }
    if (f->redis) {
        if (!server_running(f->redis)) {
            fixture_restart(f, f->redis);
        }
        redis_flush(f);
    }
    if (f->mongod && !server_running(f->mongod)) {
        fixture_restart(f, f->mongod);
    }
    name_database(f);
    if (!clean) {
        fixture_fail(f, "a process of the test before did not end cleanly (see above)");
    }
}

static void run(struct fixture *f, const char *command)
{
    int status = system(command);
    if (status != 0) {
        fixture_fail(f, "%s: status %d", command, status);
    }
}

void fixture_redis_keep(struct fixture *f)
{
    /* A copy taken from a running server may end in the middle of a command, as after a power cut: Redis
     * loads what is whole. */
    char *command = mem_printf("cd '%s' && rm -rf redis.kept && cp -a redis redis.kept", f->dir);
    run(f, command);
    free(command);
}

void fixture_redis_bring_back(struct fixture *f)
{
    server_kill(f->redis);
    char *command =
        mem_printf("cd '%s' && rm -rf redis && cp -a redis.kept redis && rm -f redis/redis.sock", f->dir);
    run(f, command);
    free(command);
    fixture_restart(f, f->redis);
}

/* ---- waiting and failing ---- */

bool fixture_until(bool (*check)(void *arg), void *arg, int64_t deadline_ms)
{
    int64_t end = clock_mono_ms() + deadline_ms * fixture_slowness();
    while (!check(arg)) {
        if (clock_mono_ms() >= end) {
            return false;
        }
        struct timespec t = {.tv_nsec = UNTIL_MS * 1000000L};
        nanosleep(&t, NULL);
    }
    return true;
}

void fixture_fail(struct fixture *f, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    for (size_t i = 0; i < f->n; i++) {
        server_log_tail(f->entries[i].server, TAIL_BYTES);
    }
    fail_msg("%s", text);
}
