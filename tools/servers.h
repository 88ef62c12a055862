/* servers.h - child processes: a Redis, a mongod, and our own, each in a directory of the caller's.
 *
 * Used by the supervisor behind `make run` (tools/stack.c), by the test fixtures and by the benchmarks. A
 * child has its own process group (so that a Ctrl-C reaches only its parent, which stops things in order),
 * writes stdout and stderr to its log file, and is killed by the kernel when the thread that started it
 * ends (PR_SET_PDEATHSIG), so that kill -9 of a parent leaves nothing running. For that reason
 * server_start() belongs on a thread that lives as long as the child: the main thread.
 *
 * One thread at a time; not to be mixed with waitpid(-1) elsewhere. Nothing here logs.
 */
#ifndef FEEDMILL_TOOLS_SERVERS_H
#define FEEDMILL_TOOLS_SERVERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "common/err.h"

struct server;

/* server_new() prepares a child; nothing runs yet. name is for messages ("fanout-1"), log_path is appended to
 * and created with the first start (NULL: the child writes to our stdout), argv ends in NULL and argv[0] is
 * the program's path (no PATH search). All are copied. The caller frees with server_free(). */
struct server *server_new(const char *name, const char *log_path, const char *const *argv);

/* server_free() kills the child if it runs (SIGKILL, reaped) and frees s; NULL is fine. */
void server_free(struct server *s);

const char *server_name(const struct server *s);
const char *server_log_path(const struct server *s); /* may be NULL */
pid_t server_pid(const struct server *s);            /* 0 when it does not run */

/* server_start() forks and executes. It returns when the program runs (or could not be executed:
 * ERR_UNAVAILABLE), not when it is ready. It may be called again after the child ended: same command line,
 * same port, same directory. ERR_CONFLICT when it still runs. */
int server_start(struct server *s, struct err *e) MUST_USE;

/* server_running() reaps the child if it has ended; a paused child runs. */
bool server_running(struct server *s);

/* server_status() answers the wait(2) status of the last end; server_status_text() writes it for people
 * ("exit code 2", "signal 9 (Killed)") into out, size at least 64. */
int server_status(const struct server *s);
void server_status_text(const struct server *s, char *out, size_t size);

/* server_signal() sends sig to a running child; does nothing otherwise. */
void server_signal(struct server *s, int sig);

/* server_stop() continues the child if it is paused, sends SIGTERM, waits up to deadline_ms and then kills.
 * Reaped in any case. ERR_TIMEOUT when it had to be killed. Nothing to do: 0. */
int server_stop(struct server *s, int64_t deadline_ms, struct err *e);

void server_kill(struct server *s);  /* SIGKILL, and waits until it is reaped */
void server_pause(struct server *s); /* SIGSTOP, and waits until all of its threads stand still */
void server_continue(struct server *s);

/* server_log_tail() appends the last bytes (at most max) of the log file to stderr, framed by the name. */
void server_log_tail(const struct server *s, size_t max);

/* server_probe() asks once whether the child answers as ready, within about a second: 0 or the reason. A
 * child without a probe of its own (server_new) is ready when it runs. */
int server_probe(struct server *s, struct err *e) MUST_USE;

/* server_wait() probes until ready, or until deadline_ms passed (ERR_TIMEOUT) or the child ended
 * (ERR_UNAVAILABLE, with its status and the last line of its log). */
int server_wait(struct server *s, int64_t deadline_ms, struct err *e) MUST_USE;

/* server_set_http_probe() makes GET http://127.0.0.1:port/path == 200 the probe; path is copied. */
void server_set_http_probe(struct server *s, int port, const char *path);

/* ---- Redis ---- */

/* redis_server_new() prepares a Redis on <dir>/redis.sock, without a TCP port: a snapshot every five
 * minutes and at its end. dir must exist and be short enough for a socket path (ERR_INVALID). maxmemory in
 * bytes, 0 = none; what would expire next goes when it is full. extra: more options ("--loglevel", "debug",
 * NULL) or NULL. ERR_NOT_FOUND: no redis-server on this machine. Probe: PING answers PONG and the data is
 * loaded. */
struct server *redis_server_new(const char *dir, const char *log_path, int64_t maxmemory,
                                const char *const *extra, struct err *e) MUST_USE;

/* redis_server_path() answers the socket's path, owned by s. */
const char *redis_server_path(const struct server *s);

/* ---- MongoDB ---- */

#define MONGOD_REPLICA_SET "feedmill"

struct mongod_options {
    const char *dir; /* exists; its own files only */
    const char *log_path;
    int port;         /* on 127.0.0.1; may change between starts: the set is reconfigured */
    double cache_gb;  /* WiredTiger cache, at least 0.25 */
    int oplog_mb;     /* 0 = mongod's default; it counts only when dir is new; at least 50 */
    int checkpoint_s; /* between checkpoints, 0 = mongod's default; what the last one needs of the log stays
                       */
};

/* mongod_server_new() prepares a one-node replica set. ERR_NOT_FOUND: no mongod; make setup gets one. The
 * probe initiates the set when it is new, and is ready when the node is a writable primary. */
struct server *mongod_server_new(const struct mongod_options *o, struct err *e) MUST_USE;

/* mongod_server_uri() writes "mongodb://127.0.0.1:PORT/<database>?replicaSet=feedmill" into a new string. */
char *mongod_server_uri(const struct server *s, const char *database);

/* ---- Finding things ---- */

/* server_find_redis(), server_find_mongod() answer the path of the binary, for the caller to free: mongod is
 * $FEEDMILL_MONGOD, else on PATH, else .deps/mongod/mongod; redis-server is on PATH or
 * .deps/bin/redis-server. .deps is looked for beside build/ of this binary, then in the current directory.
 * ERR_NOT_FOUND. */
char *server_find_redis(struct err *e) MUST_USE;
char *server_find_mongod(struct err *e) MUST_USE;

/* server_root() answers the directory that holds build/ of this binary ("/srv/feedmill"), else "."; static.
 */
const char *server_root(void);

/* server_free_port() answers a port of 127.0.0.1 that nobody listens on, outside of the range that the kernel
 * takes for outgoing connections (so that it is still free when a server is started again on it), or -1. */
int server_free_port(void);

/* server_port_free() answers whether a server could listen on 127.0.0.1:port now. */
bool server_port_free(int port);

/* server_http_get() sends one GET to 127.0.0.1:port and answers the status (100 to 599) within deadline_ms,
 * or -1. body (may be NULL) receives at most size - 1 bytes of the answer's body and a NUL. key (may be NULL)
 * is sent as the bearer. */
int server_http_get(int port, const char *path, const char *key, int64_t deadline_ms, char *body, size_t size,
                    struct err *e) MUST_USE;

#endif
