/* fixture.h - real servers for tests: a Redis, a mongod, and our processes, in a directory of their own.
 *
 * A fixture dies with its test binary, however that ends, and removes its directory. What goes wrong here
 * prints the tails of the logs and fails the running cmocka test. Usual shape: one fixture a binary (group
 * set-up; a mongod takes about 1.5 s), fixture_fresh() before each test that minds what others left.
 *
 * Main thread only. Include cmocka's headers first, as everywhere.
 */
#ifndef FEEDMILL_TESTS_FIXTURE_H
#define FEEDMILL_TESTS_FIXTURE_H

#include <stdbool.h>
#include <stdint.h>
#include "common/err.h"
#include "tools/servers.h"

enum fixture_what {
    FIXTURE_DIR = 0, /* only the directory */
    FIXTURE_REDIS = 1,
    FIXTURE_MONGOD = 2,
    FIXTURE_BOTH = 3,
    FIXTURE_FORGETFUL = 4, /* with MONGOD: its log is small, and soon reaches back no more */
};

struct fixture;

/* fixture_new() makes the directory and starts what is asked for, ready to be used. Never NULL. */
struct fixture *fixture_new(unsigned what);
void fixture_free(
    struct fixture *f); /* stops everything, newest first, and removes the directory; NULL is fine */

/* fixture_group_setup() and _teardown() are cmocka group functions: *state is a fixture with both. The
 * tear-down fails if one of our processes crashed, did not drain, or a sanitizer had something to say at its
 * end. */
int fixture_group_setup(void **state);
int fixture_group_setup_redis(void **state);
int fixture_group_setup_mongod(void **state);
int fixture_group_teardown(void **state);

const char *fixture_dir(const struct fixture *f);
const char *fixture_redis_path(const struct fixture *f);    /* of the socket: "/tmp/.../redis.sock" */
const char *fixture_redis_address(const struct fixture *f); /* as in --redis: "unix:/tmp/.../redis.sock" */
const char *
fixture_mongodb_uri(const struct fixture *f);          /* with a database of this fixture's own in its path */
const char *fixture_database(const struct fixture *f); /* that database's name */

/* fixture_fresh() ends our processes (SIGTERM; one that ends uncleanly fails the test) but not the servers,
 * empties Redis and turns to a new, empty database: fixture_mongodb_uri() and fixture_database() change;
 * pointers got earlier are dead. */
void fixture_fresh(struct fixture *f);

/* The servers, for server_kill(), server_pause() and so on; NULL when not asked for. */
struct server *fixture_redis(struct fixture *f);
struct server *fixture_mongod(struct fixture *f);

/* fixture_restart() starts a server or process that ended (kill -9, stop) and waits until it is ready. */
void fixture_restart(struct fixture *f, struct server *s);

/* fixture_redis_keep() puts Redis' data aside; fixture_redis_bring_back() stops Redis, puts the data kept in
 * place of its own, and starts it again: a server restored from an old dump. */
void fixture_redis_keep(struct fixture *f);
void fixture_redis_bring_back(struct fixture *f);

/* ---- our processes ---- */

/* fixture_start() starts one of the built processes of this variant ("feed-api", "fanout", "ranker") and
 * waits until its /readyz is 200. instance names it ("fanout-1") and its log. More flags follow, ended by
 * NULL; the fixture gives --mongodb-uri, --redis, --listen (a free port), --name, --log-level info, and to a
 * feed-api --admin-key-file, --jwt-keys and --ranker (the last ranker started, else a port where nobody
 * listens), each only if the flags that follow don't. The answer belongs to the fixture. */
struct server *fixture_start(struct fixture *f, const char *program, const char *instance, ...)
    __attribute__((sentinel));

/* fixture_start_only() does not wait. */
struct server *fixture_start_only(struct fixture *f, const char *program, const char *instance, ...)
    __attribute__((sentinel));

/* fixture_port() answers the --listen port of a process started here. */
int fixture_port(const struct fixture *f, const struct server *s);

/* fixture_forget() kills a process and forgets it: its name may be used again. */
void fixture_forget(struct fixture *f, struct server *s);

/* fixture_admin_key() answers the admin key that the first feed-api wrote; it stays the same for the
 * fixture's life (also through fixture_fresh(): the file is kept and given to the next). */
const char *fixture_admin_key(struct fixture *f);

/* fixture_bin() answers the path of a built program of this variant ("build/asan/bin/fanout"):
 * $FEEDMILL_BIN/name if set, else bin/ beside this binary's tests/. Free with free(). */
char *fixture_bin(const char *name);

/* ---- waiting ---- */

/* How much slower than a release build this variant may be (1; sanitizers more): multiply deadlines by it. */
int fixture_slowness(void);

/* fixture_until() calls check(arg) every few ms until it answers true; false after deadline_ms (times the
 * slowness). */
bool fixture_until(bool (*check)(void *arg), void *arg, int64_t deadline_ms);

/* fixture_fail() prints the logs' tails and fails the test with the text. */
void fixture_fail(struct fixture *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
