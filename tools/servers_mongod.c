#include <mongoc/mongoc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "tools/servers.h"
#include "tools/servers_private.h"

/* Server errors, from mongod's error_codes.yml. */
#define NOT_YET_INITIALIZED        94
#define INVALID_REPLICA_SET_CONFIG 93

#define PROBE_URI                                                                                            \
    "mongodb://127.0.0.1:%d/?directConnection=true&connectTimeoutMS=500&socketTimeoutMS=2000"                \
    "&serverSelectionTimeoutMS=500&serverSelectionTryOnce=true"

static int command(mongoc_client_t *c, const bson_t *cmd, bson_t *reply, struct err *e, uint32_t *code)
{
    bson_error_t why;
    *code = 0;
    if (mongoc_client_command_simple(c, "admin", cmd, NULL, reply, &why)) {
        return 0;
    }
    *code = why.code;
    return err_set(e, ERR_UNAVAILABLE, "mongod: %s", why.message);
}

static int initiate(struct server *s, mongoc_client_t *c, struct err *e)
{
    char host[32];
    snprintf(host, sizeof host, "127.0.0.1:%d", s->port);
    bson_t *cmd = BCON_NEW("replSetInitiate", "{", "_id", MONGOD_REPLICA_SET, "members", "[", "{", "_id",
                           BCON_INT32(0), "host", host, "}", "]", "}");
    bson_t reply;
    uint32_t code;
    int rc = command(c, cmd, &reply, e, &code);
    bson_destroy(&reply);
    bson_destroy(cmd);
    return rc;
}

/* The set's configuration names a port on which the node no longer is: it counts as removed from its own set
 * until it is told the new one by force. Nobody else votes, so nothing can be lost by that. */
static int move_member(struct server *s, mongoc_client_t *c, struct err *e)
{
    char host[32];
    snprintf(host, sizeof host, "127.0.0.1:%d", s->port);
    bson_t *get = BCON_NEW("replSetGetConfig", BCON_INT32(1));
    bson_t reply;
    uint32_t code;
    int rc = command(c, get, &reply, e, &code);
    bson_destroy(get);
    bson_iter_t it, version;
    if (rc == 0 && bson_iter_init(&it, &reply) &&
        bson_iter_find_descendant(&it, "config.version", &version)) {
        bson_t *set = BCON_NEW("replSetReconfig", "{", "_id", MONGOD_REPLICA_SET, "version",
                               BCON_INT32((int32_t)bson_iter_as_int64(&version) + 1), "members", "[", "{",
                               "_id", BCON_INT32(0), "host", host, "}", "]", "}", "force", BCON_BOOL(true));
        bson_t done;
        rc = command(c, set, &done, e, &code);
        bson_destroy(&done);
        bson_destroy(set);
    } else if (rc == 0) {
        rc = err_set(e, ERR_CORRUPT, "mongod shows no replica set configuration");
    }
    bson_destroy(&reply);
    return rc;
}

/* Makes sure that the set exists and names this port; once after each start of the child is enough. */
static int ensure_set(struct server *s, mongoc_client_t *c, struct err *e)
{
    bson_t *cmd = BCON_NEW("replSetGetStatus", BCON_INT32(1));
    bson_t reply;
    uint32_t code;
    int rc = command(c, cmd, &reply, e, &code);
    bson_destroy(&reply);
    bson_destroy(cmd);
    if (rc == 0) {
        return 0;
    }
    if (code == NOT_YET_INITIALIZED) {
        return initiate(s, c, e);
    }
    return code == INVALID_REPLICA_SET_CONFIG ? move_member(s, c, e) : -1;
}

static int ask_primary(mongoc_client_t *c, struct err *e)
{
    bson_t *cmd = BCON_NEW("hello", BCON_INT32(1));
    bson_t reply;
    uint32_t code;
    int rc = command(c, cmd, &reply, e, &code);
    bson_iter_t it;
    if (rc == 0 && !(bson_iter_init_find(&it, &reply, "isWritablePrimary") && bson_iter_as_bool(&it))) {
        rc = err_set(e, ERR_UNAVAILABLE, "mongod is not yet primary");
    }
    bson_destroy(&reply);
    bson_destroy(cmd);
    return rc;
}

static int mongod_probe(struct server *s, struct err *e)
{
    mongoc_init(); /* counts nothing and does it once */
    char uri[sizeof PROBE_URI + 16];
    snprintf(uri, sizeof uri, PROBE_URI, s->port);
    mongoc_client_t *c = mongoc_client_new(uri);
    if (!c) {
        return err_set(e, ERR_INTERNAL, "mongod's address is not understood: %s", uri);
    }
    mongoc_client_set_error_api(c, MONGOC_ERROR_API_VERSION_2);
    int rc = ask_primary(c, e);
    if (rc != 0 && ensure_set(s, c, e) == 0) {
        rc = ask_primary(c, e);
    }
    mongoc_client_destroy(c);
    return rc;
}

struct server *mongod_server_new(const struct mongod_options *o, struct err *e)
{
    char *binary = server_find_mongod(e);
    if (!binary) {
        return NULL;
    }
    char port[16], cache[32], oplog[16], checkpoint[16];
    snprintf(port, sizeof port, "%d", o->port);
    snprintf(cache, sizeof cache, "%.2f", o->cache_gb);
    snprintf(oplog, sizeof oplog, "%d", o->oplog_mb);
    snprintf(checkpoint, sizeof checkpoint, "%d", o->checkpoint_s);
    /* No unix socket: it would lie in /tmp, and members of a set are named by host and port anyway. A node
     * that is told to end waits 15 s for others to take over unless told otherwise; here there are no others.
     */
    const char *argv[] = {
        /* clang-format off */
        binary, "--replSet", MONGOD_REPLICA_SET, "--dbpath", o->dir, "--port", port, "--bind_ip", "127.0.0.1",
        "--nounixsocket", "--wiredTigerCacheSizeGB", cache,
        "--setParameter", "diagnosticDataCollectionEnabled=false",
        "--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100",
        /* A process killed within a transaction leaves it open, and its reader's follows locked, until it expires:
         * mongod's own limit is a minute. Ours take milliseconds and have two seconds. */
        "--setParameter", "transactionLifetimeLimitSeconds=3",
        NULL, NULL, NULL, NULL, NULL,
        /* clang-format on */
    };
    size_t n = 0;
    while (argv[n]) {
        n++;
    }
    if (o->oplog_mb) {
        argv[n++] = "--oplogSize";
        argv[n++] = oplog;
    }
    if (o->checkpoint_s) {
        argv[n++] = "--syncdelay";
        argv[n++] = checkpoint;
    }
    struct server *s = server_new("mongod", o->log_path, argv);
    s->port = o->port;
    s->probe = mongod_probe;
    free(binary);
    return s;
}

char *mongod_server_uri(const struct server *s, const char *database)
{
    return mem_printf("mongodb://127.0.0.1:%d/%s?replicaSet=%s", s->port, database, MONGOD_REPLICA_SET);
}
