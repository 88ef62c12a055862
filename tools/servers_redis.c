#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "common/mem.h"
#include "tools/servers.h"
#include "tools/servers_private.h"

#define EXTRA_MAX 32

static int redis_probe(struct server *s, struct err *e)
{
    struct timeval limit = {.tv_sec = 1};
    redisContext *c = redisConnectUnixWithTimeout(s->path, limit);
    if (!c || c->err) {
        err_set(e, ERR_UNAVAILABLE, "%s: %s", s->path, c ? c->errstr : "out of memory");
        if (c) {
            redisFree(c);
        }
        return -1;
    }
    int rc = -1;
    const char *ping[] = {"PING"};
    redisReply *r = NULL;
    if (redisSetTimeout(c, limit) == REDIS_OK) {
        r = redisCommandArgv(c, 1, ping, NULL);
    }
    /* While it loads its file it answers -LOADING. */
    if (r && r->type == REDIS_REPLY_STATUS && strcmp(r->str, "PONG") == 0) {
        rc = 0;
    } else {
        err_set(e, ERR_UNAVAILABLE, "redis: %s", r && r->str ? r->str : c->errstr);
    }
    if (r) {
        freeReplyObject(r);
    }
    redisFree(c);
    return rc;
}

struct server *redis_server_new(const char *dir, const char *log_path, int64_t maxmemory,
                                const char *const *extra, struct err *e)
{
    char *socket_path = mem_printf("%s/redis.sock", dir);
    if (strlen(socket_path) >= sizeof((struct sockaddr_un *)0)->sun_path) {
        err_set(e, ERR_INVALID, "%.150s is too long for a unix socket: use a shorter directory", socket_path);
        free(socket_path);
        return NULL;
    }
    char *binary = server_find_redis(e);
    if (!binary) {
        free(socket_path);
        return NULL;
    }
    char bytes[32];
    snprintf(bytes, sizeof bytes, "%lld", (long long)maxmemory);
    /* fanout makes room in time; should something fill the rest faster than that, the timelines read least
     * recently are the next to expire. Everything that must not go has no expiry. */
    /* Timelines are made from MongoDB: what Redis had a few minutes ago is as good, since fanout goes on from
     * there. A log of all commands is 25 MB a second at full rate, and its fsync is what MongoDB's waits for
     * on the same disk. A snapshot is written at the end too. */
    const char *argv[40 + EXTRA_MAX] = {
        /* clang-format off */
        binary, "--port", "0", "--unixsocket", socket_path, "--unixsocketperm", "700", "--dir", dir,
        "--daemonize", "no", "--appendonly", "no", "--save", "300 1", "--maxmemory-policy", "volatile-ttl",
        "--maxmemory", bytes,
        /* clang-format on */
    };
    size_t n = 0, k = 0;
    while (argv[n]) {
        n++;
    }
    while (extra && extra[k] && k < EXTRA_MAX) {
        argv[n++] = extra[k++];
    }
    struct server *s = server_new("redis", log_path, argv);
    s->path = socket_path;
    s->probe = redis_probe;
    free(binary);
    return s;
}

const char *redis_server_path(const struct server *s)
{
    return s->path;
}
