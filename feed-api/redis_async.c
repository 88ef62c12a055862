#include "feed-api/redis_async.h"

#include <assert.h>
#include <event2/event.h>
#include <hiredis/async.h>
#include <hiredis/adapters/libevent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "common/clock.h"
#include "common/ids.h"
#include "common/log.h"
#include "common/mem.h"
#include "feed-api/metrics.h"
#include "feed-api/reply_arena.h"

#define TICK_MS        5    /* between looks at the deadlines, while something is in flight */
#define STALL_MS       1000 /* without any reply, with something in flight: the connection is dead */
#define CONNECT_MS     1000
#define BACKOFF_MIN_MS 20
#define BACKOFF_MAX_MS 1000
#define LENGTH_BYTES   23 /* a mark, digits, end of line */

/* A group outlives its deadline until its reply comes, because replies are told apart by their order only. */
struct group {
    TAILQ_ENTRY(group) link;
    struct redis_async *owner;
    redis_async_fn fn; /* NULL once answered */
    void *arg;
    int64_t deadline; /* clock_mono_ms() */
    int64_t sent_us;
};

TAILQ_HEAD(group_list, group);

struct redis_async {
    struct event_base *base;
    struct redis_address address;
    struct metrics *metrics;
    struct event *tick, *retry;
    struct reply_arena *replies;
    redisAsyncContext *ac; /* NULL: not even connecting */
    bool up, closing, complained;
    struct group_list groups; /* in the order sent */
    unsigned n, max;
    int64_t backoff_ms;
    int64_t since_ms; /* the last sign of life: connect begun, reply read, first group sent */
};

static void connect_now(struct redis_async *r);

static struct timeval in_ms(int64_t ms)
{
    return (struct timeval){.tv_sec = ms / 1000, .tv_usec = (ms % 1000) * 1000};
}

static void start_tick(struct redis_async *r)
{
    if (!event_pending(r->tick, EV_TIMEOUT, NULL)) {
        struct timeval t = in_ms(TICK_MS);
        event_add(r->tick, &t);
    }
}

static void connect_later(struct redis_async *r)
{
    if (r->closing)
        return;
    int64_t wait = r->backoff_ms / 2 + ids_random_bits() % (r->backoff_ms / 2 + 1);
    r->backoff_ms = r->backoff_ms * 2 < BACKOFF_MAX_MS ? r->backoff_ms * 2 : BACKOFF_MAX_MS;
    struct timeval t = in_ms(wait);
    event_add(r->retry, &t);
}

/* One line when the connection goes, one when it is back: not one a try. */
static void lost(struct redis_async *r, const char *why)
{
    r->up = false;
    r->ac = NULL;
    if (!r->complained && !r->closing)
        log_event(LOG_WARN, "redis_lost", LOG_S("thread", "loop"), LOG_S("error", why ? why : ""));
    r->complained = true;
    metrics_add(r->metrics, M_REDIS_ERRORS, MT_LOOP, 1);
    connect_later(r);
}

static void on_connect(const redisAsyncContext *ac, int status)
{
    struct redis_async *r = ac->data;
    if (status != REDIS_OK) { /* hiredis frees ac after this */
        lost(r, ac->errstr);
        return;
    }
    r->up = true;
    r->backoff_ms = BACKOFF_MIN_MS;
    r->since_ms = clock_mono_ms();
    if (r->complained)
        log_event(LOG_INFO, "redis_back", LOG_S("thread", "loop"));
    r->complained = false;
}

static void on_disconnect(const redisAsyncContext *ac, int status)
{
    lost(ac->data, status == REDIS_OK ? "closed" : ac->errstr);
}

static void connect_now(struct redis_async *r)
{
    const struct redis_address *a = &r->address;
    redisAsyncContext *ac = a->host[0] ? redisAsyncConnect(a->host, a->port) : redisAsyncConnectUnix(a->path);
    r->since_ms = clock_mono_ms();
    if (!ac || ac->err) {
        if (ac)
            redisAsyncFree(ac);
        lost(r, "can't connect");
        return;
    }
    ac->data = r;
    r->ac = ac;
    reply_arena_use(r->replies, ac->c.reader);
    redisLibeventAttach(ac, r->base);
    redisAsyncSetConnectCallback(ac, on_connect);
    redisAsyncSetDisconnectCallback(ac, on_disconnect);
    start_tick(r);
}

static void on_retry(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    connect_now(arg);
}

static void answer(struct group *g, const redisReply *reply, const struct err *e)
{
    redis_async_fn fn = g->fn;
    g->fn = NULL;
    if (fn)
        fn(reply, e, g->arg);
}

/* hiredis gives the reply of EXEC, or NULL when the connection went. */
static void on_exec(redisAsyncContext *ac, void *reply, void *arg)
{
    struct group *g = arg;
    struct redis_async *r = ac->data;
    redisReply *rep = reply;
    TAILQ_REMOVE(&r->groups, g, link);
    r->n--;
    struct err e;
    if (!rep) {
        r->up = false; /* so that an answer that tries again does not use the dying connection */
        err_set(&e, ERR_UNAVAILABLE, "the connection to Redis was lost");
        answer(g, NULL, &e);
    } else {
        r->since_ms = clock_mono_ms();
        metrics_observe_us(r->metrics, M_REDIS_SECONDS, 0, clock_mono_us() - g->sent_us);
        if (rep->type == REDIS_REPLY_ARRAY) {
            answer(g, rep, NULL);
        } else {
            err_set(&e, ERR_UNAVAILABLE, "Redis refused: %s", rep->str ? rep->str : "no array");
            metrics_add(r->metrics, M_REDIS_ERRORS, MT_LOOP, 1);
            answer(g, NULL, &e);
        }
    }
    free(g);
}

static void give_up_late(struct redis_async *r, int64_t now)
{
    struct err e;
    err_set(&e, ERR_TIMEOUT, "Redis did not answer in time");
    for (struct group *g = TAILQ_FIRST(&r->groups), *next; g; g = next) {
        next = TAILQ_NEXT(g, link);
        if (g->fn && now >= g->deadline) {
            metrics_add(r->metrics, M_REDIS_ERRORS, MT_LOOP, 1);
            answer(g, NULL, &e); /* may send, which only appends to the list */
        }
    }
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct redis_async *r = arg;
    int64_t now = clock_mono_ms();
    give_up_late(r, now);
    bool waiting = r->ac && !r->up;
    if ((waiting && now - r->since_ms > CONNECT_MS) || (r->up && r->n && now - r->since_ms > STALL_MS)) {
        redisAsyncContext *ac = r->ac;
        bool told = r->up; /* hiredis calls on_disconnect only if it was connected */
        redisAsyncFree(ac);
        if (!told && r->ac == ac)
            lost(r, "no connection within the time-out");
    }
    if (r->n || (r->ac && !r->up))
        start_tick(r);
}

struct redis_async *redis_async_new(struct event_base *base, const struct redis_address *a,
                                    unsigned max_in_flight, struct metrics *m)
{
    struct redis_async *r = mem_zero(1, sizeof *r);
    r->base = base;
    r->address = *a;
    r->metrics = m;
    r->max = max_in_flight ? max_in_flight : 4096;
    r->backoff_ms = BACKOFF_MIN_MS;
    TAILQ_INIT(&r->groups);
    r->replies = reply_arena_new();
    r->tick = event_new(base, -1, 0, on_tick, r);
    r->retry = event_new(base, -1, 0, on_retry, r);
    connect_now(r);
    return r;
}

void redis_async_free(struct redis_async *r)
{
    if (!r)
        return;
    r->closing = true;
    if (r->ac)
        redisAsyncFree(r->ac);
    event_free(r->tick);
    event_free(r->retry);
    reply_arena_free(r->replies);
    free(r);
}

bool redis_async_is_up(const struct redis_async *r)
{
    return r->up;
}

unsigned redis_async_in_flight(const struct redis_async *r)
{
    return r->n;
}

static char *put_length(char *at, char mark, size_t n)
{
    char digits[24];
    size_t k = sizeof digits;
    do
        digits[--k] = (char)('0' + n % 10);
    while (n /= 10);
    *at++ = mark;
    memcpy(at, digits + k, sizeof digits - k);
    at += sizeof digits - k;
    memcpy(at, "\r\n", 2);
    return at + 2;
}

/* The bytes of a command; 0: it does not fit. hiredis' own formatting is a third of what sending takes. */
static size_t format(const struct redis_command *c, const size_t *len, char *out, size_t size)
{
    size_t need = LENGTH_BYTES;
    for (int i = 0; i < c->argc; i++)
        need += LENGTH_BYTES + len[i] + 2;
    if (need > size)
        return 0;
    char *at = put_length(out, '*', (size_t)c->argc);
    for (int i = 0; i < c->argc; i++) {
        at = put_length(at, '$', len[i]);
        memcpy(at, c->argv[i], len[i]);
        memcpy(at + len[i], "\r\n", 2);
        at += len[i] + 2;
    }
    return (size_t)(at - out);
}

static int send_command(struct redis_async *r, const struct redis_command *c, redisCallbackFn *fn, void *arg)
{
    size_t len[REDIS_COMMAND_ARGS];
    char bytes[1024];
    for (int i = 0; i < c->argc; i++)
        len[i] = strlen(c->argv[i]);
    size_t n = format(c, len, bytes, sizeof bytes);
    if (n > 0)
        return redisAsyncFormattedCommand(r->ac, fn, arg, bytes, n);
    const char *argv[REDIS_COMMAND_ARGS];
    memcpy(argv, c->argv, sizeof argv);
    return redisAsyncCommandArgv(r->ac, fn, arg, c->argc, argv, len);
}

int redis_async_group(struct redis_async *r, const struct redis_command *cmds, size_t n, int64_t timeout_ms,
                      redis_async_fn fn, void *arg, struct err *e)
{
    static const struct redis_command multi = {1, {"MULTI"}}, exec = {1, {"EXEC"}};
    if (!r->up)
        return err_set(e, ERR_UNAVAILABLE, "Redis is not connected");
    if (r->n >= r->max)
        return err_set(e, ERR_BUSY, "%u reads of Redis are under way", r->n);

    struct group *g = mem_zero(1, sizeof *g);
    int64_t now = clock_mono_ms();
    *g = (struct group){
        .owner = r, .fn = fn, .arg = arg, .deadline = now + timeout_ms, .sent_us = clock_mono_us()};
    int bad = send_command(r, &multi, NULL, NULL);
    for (size_t i = 0; !bad && i < n; i++)
        bad = send_command(r, &cmds[i], NULL, NULL);
    if (!bad)
        bad = send_command(r, &exec, on_exec, g);
    if (bad) { /* the context is on its way out */
        free(g);
        return err_set(e, ERR_UNAVAILABLE, "Redis is being disconnected");
    }
    if (r->n == 0)
        r->since_ms = now;
    TAILQ_INSERT_TAIL(&r->groups, g, link);
    r->n++;
    start_tick(r);
    return 0;
}
