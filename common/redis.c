#include "common/redis.h"

#include "common/clock.h"
#include "common/ids.h"
#include "common/mem.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/time.h>

#define TIMEOUT_DEFAULT_MS 1000
#define BACKOFF_FIRST_MS   50
#define BACKOFF_MAX_MS     2000
#define FLUSH_BYTES        (256 * 1024) /* more than this is not kept here: Redis may already work on it */
#define SHA_SIZE           41
#define ARGS_ON_STACK      64

struct redis {
    struct redis_address address;
    int64_t timeout_ms;
    redisContext *ctx; /* NULL: not connected */
    uint64_t generation;
    unsigned pending;
    size_t unsent;       /* bytes of arguments appended since the last write, about */
    int64_t next_try_ms; /* monotonic; no connect before it */
    int64_t backoff_ms;
    struct err lost; /* why the connection is gone, for the calls that fail at once */
    char sha[SCRIPT_N][SHA_SIZE];
};

static int parse_port(const char *s, int *port)
{
    char *end;
    if (*s < '0' || *s > '9')
        return -1;
    errno = 0;
    long v = strtol(s, &end, 10);
    if (errno != 0 || *end != '\0' || v < 1 || v > 65535)
        return -1;
    *port = (int)v;
    return 0;
}

int redis_address_parse(const char *s, struct redis_address *out, struct err *e)
{
    struct redis_address a = {0};
    if (strncmp(s, "unix:", 5) == 0) {
        if (s[5] != '/' || strlen(s + 5) >= 108) /* sun_path */
            return err_set(e, ERR_INVALID,
                           "redis address: unix: needs an absolute path of at most 107 bytes");
        memcpy(a.path, s + 5, strlen(s + 5) + 1);
        *out = a;
        return 0;
    }
    const char *host = s, *host_end, *colon = strrchr(s, ':');
    if (s[0] == '[') {
        host = s + 1;
        host_end = strchr(s, ']');
        if (host_end == NULL || colon != host_end + 1)
            return err_set(e, ERR_INVALID, "redis address: expected [v6]:port");
    } else {
        host_end = colon;
        if (colon == NULL || strchr(s, ':') != colon)
            return err_set(e, ERR_INVALID, "redis address: expected unix:/path, host:port or [v6]:port");
    }
    size_t n = (size_t)(host_end - host);
    if (n == 0 || n >= sizeof a.host)
        return err_set(e, ERR_INVALID, "redis address: the host must be 1 to 255 bytes");
    if (parse_port(colon + 1, &a.port) < 0)
        return err_set(e, ERR_INVALID, "redis address: the port must be 1 to 65535");
    memcpy(a.host, host, n);
    *out = a;
    return 0;
}

struct redis *redis_new(const struct redis_address *a, int64_t timeout_ms)
{
    assert(timeout_ms >= 0);
    struct redis *r = mem_zero(1, sizeof *r);
    r->address = *a;
    r->timeout_ms = timeout_ms ? timeout_ms : TIMEOUT_DEFAULT_MS;
    return r;
}

void redis_free(struct redis *r)
{
    if (r == NULL)
        return;
    if (r->ctx != NULL)
        redisFree(r->ctx);
    free(r);
}

uint64_t redis_generation(const struct redis *r)
{
    return r->generation;
}

unsigned redis_pending(const struct redis *r)
{
    return r->pending;
}

static void disconnect(struct redis *r)
{
    if (r->ctx != NULL)
        redisFree(r->ctx);
    r->ctx = NULL;
    r->pending = 0;
    r->unsent = 0;
}

/* Equal jitter: half of the step is fixed, half random, so that many processes do not come back at once. */
static void back_off(struct redis *r)
{
    int64_t step = r->backoff_ms ? r->backoff_ms : BACKOFF_FIRST_MS;
    r->next_try_ms = clock_mono_ms() + step / 2 + (int64_t)(ids_random_bits() % (uint32_t)(step / 2 + 1));
    r->backoff_ms = step * 2 < BACKOFF_MAX_MS ? step * 2 : BACKOFF_MAX_MS;
}

/* The wire failed: what was sent may or may not have been done. */
static int wire_error(struct redis *r, struct err *e)
{
    bool late = r->ctx->err == REDIS_ERR_IO && (errno == EAGAIN || errno == EWOULDBLOCK);
    err_set(&r->lost, late ? ERR_TIMEOUT : ERR_UNAVAILABLE, "redis: %s",
            late ? "no answer within the time-out" : r->ctx->errstr);
    disconnect(r);
    if (e != NULL)
        *e = r->lost;
    r->lost.code = ERR_UNAVAILABLE;
    return -1;
}

static bool reply_starts(const redisReply *reply, const char *word)
{
    size_t n = strlen(word);
    return reply->len >= n && memcmp(reply->str, word, n) == 0 && (reply->len == n || reply->str[n] == ' ');
}

static int reply_error(struct err *e, const redisReply *reply)
{
    static const char *const passing[] = {"LOADING",     "MISCONF",  "OOM",  "READONLY",   "MASTERDOWN",
                                          "CLUSTERDOWN", "TRYAGAIN", "BUSY", "NOREPLICAS", "NOSCRIPT"};
    enum err_code code = ERR_INTERNAL;
    for (size_t i = 0; i < MEM_COUNT(passing); i++)
        if (reply_starts(reply, passing[i]))
            code = ERR_UNAVAILABLE;
    return err_set(e, code, "redis: %.*s", (int)reply->len, reply->str);
}

static struct timeval to_timeval(int64_t ms)
{
    return (struct timeval){.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
}

/* One trip for all scripts; the server's answer is their SHA-1. */
static int load_scripts(struct redis *r, struct err *e)
{
    for (int i = 0; i < SCRIPT_N; i++) {
        const char *argv[] = {"SCRIPT", "LOAD", script_source((enum script)i)};
        if (redisAppendCommandArgv(r->ctx, 3, argv, NULL) != REDIS_OK)
            return wire_error(r, e);
    }
    for (int i = 0; i < SCRIPT_N; i++) {
        redisReply *reply = NULL;
        if (redisGetReply(r->ctx, (void **)&reply) != REDIS_OK)
            return wire_error(r, e);
        int rc = 0;
        if (reply->type == REDIS_REPLY_ERROR)
            rc = reply_error(e, reply);
        else if (reply->type != REDIS_REPLY_STRING || reply->len != SHA_SIZE - 1)
            rc = err_set(e, ERR_INTERNAL, "redis: SCRIPT LOAD answered something else than a hash");
        else
            memcpy(r->sha[i], reply->str, SHA_SIZE);
        freeReplyObject(reply);
        if (rc < 0) {
            err_prefix(e, "loading script %s", script_name((enum script)i));
            disconnect(r);
            return -1;
        }
    }
    return 0;
}

static int connect_now(struct redis *r, struct err *e)
{
    struct timeval tv = to_timeval(r->timeout_ms);
    if (r->address.host[0] == '\0')
        r->ctx = redisConnectUnixWithTimeout(r->address.path, tv);
    else
        r->ctx = redisConnectWithTimeout(r->address.host, r->address.port, tv);
    if (r->ctx == NULL)
        return err_set(e, ERR_UNAVAILABLE, "redis: no connection context");
    if (r->ctx->err != 0 || redisSetTimeout(r->ctx, tv) != REDIS_OK) {
        err_set(e, ERR_UNAVAILABLE, "redis: can't connect: %s", r->ctx->errstr);
        disconnect(r);
        return -1;
    }
    if (r->address.host[0] != '\0')
        redisEnableKeepAlive(r->ctx);
    return load_scripts(r, e);
}

static int ensure_connected(struct redis *r, struct err *e)
{
    if (r->ctx != NULL)
        return 0;
    if (clock_mono_ms() < r->next_try_ms) {
        if (e != NULL)
            *e = r->lost;
        return -1;
    }
    struct err why = {0};
    if (connect_now(r, &why) < 0) {
        back_off(r);
        r->lost = why;
        r->lost.code = ERR_UNAVAILABLE;
        if (e != NULL)
            *e = r->lost;
        return -1;
    }
    r->backoff_ms = 0;
    r->next_try_ms = 0;
    r->generation++;
    return 0;
}

static int flush(struct redis *r, struct err *e)
{
    int done = 0;
    while (!done)
        if (redisBufferWrite(r->ctx, &done) != REDIS_OK)
            return wire_error(r, e);
    r->unsent = 0;
    return 0;
}

int redis_append(struct redis *r, int argc, const char **argv, const size_t *len, struct err *e)
{
    if (r->pending >= REDIS_PIPELINE_MAX)
        return err_set(e, ERR_TOO_LARGE, "redis: more than %d commands without reading", REDIS_PIPELINE_MAX);
    if (ensure_connected(r, e) < 0)
        return -1;
    if (redisAppendCommandArgv(r->ctx, argc, argv, len) != REDIS_OK)
        return wire_error(r, e);
    for (int i = 0; i < argc; i++)
        r->unsent += len ? len[i] : strlen(argv[i]);
    if (r->unsent >= FLUSH_BYTES && flush(r, e) < 0)
        return -1;
    r->pending++;
    return 0;
}

int redis_read(struct redis *r, redisReply **out, struct err *e)
{
    if (r->pending == 0)
        return err_set(e, ERR_UNAVAILABLE, "redis: nothing is on its way%s%s", r->ctx ? "" : ": ",
                       r->ctx ? "" : r->lost.msg);
    redisReply *reply = NULL;
    if (redisGetReply(r->ctx, (void **)&reply) != REDIS_OK)
        return wire_error(r, e);
    r->pending--;
    r->unsent = 0;
    if (reply->type != REDIS_REPLY_ERROR) {
        *out = reply;
        return 0;
    }
    reply_error(e, reply);
    if (reply_starts(reply, "NOSCRIPT")) { /* someone flushed them: a new connection loads them again */
        err_set(&r->lost, ERR_UNAVAILABLE, "redis: the scripts were flushed");
        disconnect(r);
    }
    freeReplyObject(reply);
    return -1;
}

int redis_command(struct redis *r, redisReply **out, int argc, const char **argv, const size_t *len,
                  struct err *e)
{
    assert(r->pending == 0);
    if (redis_append(r, argc, argv, len, e) < 0)
        return -1;
    return redis_read(r, out, e);
}

int redis_commandf(struct redis *r, redisReply **out, struct err *e, const char *first, ...)
{
    const char *argv[ARGS_ON_STACK];
    int argc = 0;
    va_list ap;
    va_start(ap, first);
    for (const char *s = first; s != NULL; s = va_arg(ap, const char *)) {
        assert(argc < ARGS_ON_STACK);
        argv[argc++] = s;
    }
    va_end(ap);
    return redis_command(r, out, argc, argv, NULL, e);
}

int redis_script_append(struct redis *r, enum script s, int nkeys, int argc, const char **argv,
                        const size_t *len, struct err *e)
{
    assert(s < SCRIPT_N && nkeys >= 0 && nkeys <= argc);
    if (ensure_connected(r, e) < 0) /* before sha is looked at: connecting fills it */
        return -1;
    const char *small[ARGS_ON_STACK];
    size_t small_len[ARGS_ON_STACK];
    size_t n = (size_t)argc + 3;
    bool big = n > ARGS_ON_STACK;
    const char **all = big ? mem_grow(NULL, n, sizeof *all) : small;
    size_t *lens = big ? mem_grow(NULL, n, sizeof *lens) : small_len;
    char count[12];
    snprintf(count, sizeof count, "%d", nkeys);
    all[0] = "EVALSHA";
    all[1] = r->sha[s];
    all[2] = count;
    for (int i = 0; i < 3; i++)
        lens[i] = strlen(all[i]);
    for (int i = 0; i < argc; i++) {
        all[i + 3] = argv[i];
        lens[i + 3] = len ? len[i] : strlen(argv[i]);
    }
    int rc = redis_append(r, (int)n, all, lens, e);
    if (big) {
        free(all);
        free(lens);
    }
    return rc;
}

int redis_script(struct redis *r, redisReply **out, enum script s, int nkeys, int argc, const char **argv,
                 const size_t *len, struct err *e)
{
    assert(r->pending == 0);
    if (redis_script_append(r, s, nkeys, argc, argv, len, e) < 0)
        return -1;
    return redis_read(r, out, e);
}
