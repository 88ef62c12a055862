#include "tools/open_load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/mem.h"

#define HEAD_MAX       8192
#define REQUEST_MAX    16384
#define CONNECT_MS     2000
#define RECONNECT_US   50000
#define EVENTS_AT_ONCE 64 /* between two looks at the clock: about half a millisecond of answers */

enum conn_state { CONN_CLOSED, CONN_CONNECTING, CONN_IDLE, CONN_HEAD, CONN_BODY };

struct conn {
    int fd;
    enum conn_state state;
    bool listed; /* among the idle ones; it may have been closed since */
    bool closes; /* the server ends it after this answer */
    int status;
    double due; /* us */
    int64_t body_left;
    uint64_t body;
    size_t n_head;
    char head[HEAD_MAX + 1];
};

struct request {
    char *bytes;
    size_t len;
};

struct load {
    const struct open_load_options *o;
    struct open_load_result *r;
    int epoll;
    struct request *requests;
    struct conn *conns;
    unsigned *idle, idle_first, n_idle; /* a ring, so that all connections have their turn */
    double *waiting;                    /* a ring of moments */
    unsigned waiting_first, n_waiting;
    unsigned n_busy, n_closed;
    uint64_t random;
    double next, counts_from, end; /* us */
    int64_t reconnect_at;
};

/* ---- chance: splitmix64 (Steele, Lea and Flood, 2014) ---- */

static uint64_t random_next(struct load *l)
{
    uint64_t z = l->random += 0x9e3779b97f4a7c15ULL;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
    return z ^ z >> 31;
}

static double random_gap_us(struct load *l)
{
    double u = ((double)(random_next(l) >> 11) + 1) / 9007199254740992.0;
    return -log(u) * 1e6 / l->o->rate;
}

/* ---- requests ---- */

static int make_request(const struct open_load_options *o, const char *target, struct request *out,
                        struct err *e)
{
    struct buf b;
    size_t n = strcspn(target, "\t");
    buf_init(&b, REQUEST_MAX);
    buf_printf(&b, "GET %.*s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n%s", (int)n, target, o->port, o->headers);
    while (target[n] == '\t') {
        target += n + 1;
        n = strcspn(target, "\t");
        buf_add(&b, target, n);
        buf_add_str(&b, "\r\n");
    }
    buf_add_str(&b, "\r\n");
    if (b.full) {
        buf_done(&b);
        return err_set(e, ERR_INVALID, "a request is longer than %d bytes", REQUEST_MAX);
    }
    out->len = b.len;
    out->bytes = buf_take(&b);
    return 0;
}

/* ---- connections ---- */

static void watch(struct load *l, struct conn *c, int how, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.ptr = c};
    epoll_ctl(l->epoll, how, c->fd, &ev);
}

static void conn_close(struct load *l, struct conn *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    c->state = CONN_CLOSED;
    l->n_closed++;
}

static void conn_open(struct load *l, struct conn *c)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(l->o->port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        return;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    l->n_closed--;
    c->state = CONN_CONNECTING;
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) {
        conn_close(l, c);
        return;
    }
    watch(l, c, EPOLL_CTL_ADD, EPOLLOUT);
}

static void conn_idle(struct load *l, struct conn *c)
{
    c->state = CONN_IDLE;
    if (c->listed)
        return;
    c->listed = true;
    l->idle[(l->idle_first + l->n_idle++) % l->o->connections] = (unsigned)(c - l->conns);
}

static struct conn *idle_take(struct load *l)
{
    while (l->n_idle) {
        struct conn *c = &l->conns[l->idle[l->idle_first]];
        l->idle_first = (l->idle_first + 1) % l->o->connections;
        l->n_idle--;
        c->listed = false;
        if (c->state == CONN_IDLE)
            return c;
    }
    return NULL;
}

/* ---- one request ---- */

static bool counts(const struct load *l, double due)
{
    return due >= l->counts_from;
}

static void lose(struct load *l, struct conn *c)
{
    l->n_busy--;
    l->r->lost += counts(l, c->due);
    conn_close(l, c);
}

static void conn_send(struct load *l, struct conn *c, double due)
{
    const struct request *q = &l->requests[random_next(l) % l->o->n_targets];
    c->due = due;
    c->state = CONN_HEAD;
    c->n_head = 0;
    l->n_busy++;
    /* An idle connection has room for it. */
    if (send(c->fd, q->bytes, q->len, MSG_NOSIGNAL) != (ssize_t)q->len)
        lose(l, c);
}

static void conn_next(struct load *l, struct conn *c)
{
    if (!l->n_waiting) {
        conn_idle(l, c);
        return;
    }
    double due = l->waiting[l->waiting_first];
    l->waiting_first = (l->waiting_first + 1) % OPEN_LOAD_WAITING_MAX;
    l->n_waiting--;
    conn_send(l, c, due);
}

static void fall_due(struct load *l, double due)
{
    struct conn *c = idle_take(l);
    l->r->due += counts(l, due);
    if (c) {
        conn_send(l, c, due);
    } else if (l->n_waiting < OPEN_LOAD_WAITING_MAX) {
        l->waiting[(l->waiting_first + l->n_waiting++) % OPEN_LOAD_WAITING_MAX] = due;
    } else {
        l->r->unsent += counts(l, due);
    }
}

static void answered(struct load *l, struct conn *c)
{
    double now = (double)clock_mono_us();
    bool good = (c->status >= 200 && c->status < 300) || c->status == 304;
    struct open_load_result *r = l->r;
    l->n_busy--;
    r->in_time += good && now >= l->counts_from && now < l->end;
    if (counts(l, c->due)) {
        bool refused = c->status == 429 || c->status == 503;
        r->good += good;
        r->refused += refused;
        r->failed += !good && !refused;
        r->bytes += good ? c->body : 0;
        if (good || refused)
            latency_add(good ? &r->times : &r->refusals, (int64_t)(now - c->due));
    }
    if (c->closes) {
        conn_close(l, c);
    } else {
        conn_next(l, c);
    }
}

/* ---- reading ---- */

/* The value of a field of a head, or NULL. name with its colon. */
static const char *field(const char *head, const char *name)
{
    size_t n = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, name, n) == 0)
            return line + 2 + n + strspn(line + 2 + n, " ");
    }
    return NULL;
}

/* Whether the head is complete: 1, or 0; -1 when it is none of an answer. */
static int take_head(struct conn *c)
{
    c->head[c->n_head] = '\0';
    char *end = strstr(c->head, "\r\n\r\n");
    if (!end)
        return c->n_head < HEAD_MAX ? 0 : -1;
    size_t more = c->n_head - (size_t)(end + 4 - c->head);
    end[2] = '\0';
    if (strncmp(c->head, "HTTP/1.1 ", 9) != 0)
        return -1;
    const char *length = field(c->head, "Content-Length:"), *closes = field(c->head, "Connection:");
    c->status = (int)strtol(c->head + 9, NULL, 10);
    c->closes = closes && strncasecmp(closes, "close", 5) == 0;
    bool bare = c->status == 204 || c->status == 304;
    if (!length && !bare)
        return -1;
    int64_t body = bare ? 0 : strtoll(length, NULL, 10);
    c->body = (uint64_t)body;
    c->body_left = body - (int64_t)more;
    return body < 0 || c->body_left < 0 ? -1 : 1;
}

/* 1: an answer is complete, 0: more is to come, -1: the connection ended or makes no sense. */
static int read_some(struct conn *c)
{
    ssize_t n;
    if (c->state == CONN_HEAD) {
        n = recv(c->fd, c->head + c->n_head, HEAD_MAX - c->n_head, 0);
        if (n > 0) {
            c->n_head += (size_t)n;
            int whole = take_head(c);
            if (whole <= 0)
                return whole;
            c->state = CONN_BODY;
            return c->body_left == 0;
        }
    } else {
        /* tcp(7): what MSG_TRUNC receives is thrown away in the kernel. */
        /* cppcheck-suppress nullPointer */
        n = recv(c->fd, NULL, (size_t)c->body_left, MSG_TRUNC);
        if (n > 0) {
            c->body_left -= n;
            return c->body_left == 0;
        }
    }
    return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}

static void on_connected(struct load *l, struct conn *c)
{
    int error = 0;
    socklen_t n = sizeof error;
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &n) || error) {
        conn_close(l, c);
        return;
    }
    watch(l, c, EPOLL_CTL_MOD, EPOLLIN);
    conn_next(l, c);
}

static void on_event(struct load *l, struct conn *c)
{
    switch (c->state) {
    case CONN_CLOSED:
        return;
    case CONN_CONNECTING:
        on_connected(l, c);
        return;
    case CONN_IDLE: /* nothing was asked: it is the end */
        conn_close(l, c);
        return;
    case CONN_HEAD:
    case CONN_BODY: {
        int rc = read_some(c);
        if (rc < 0)
            lose(l, c);
        else if (rc > 0)
            answered(l, c);
    }
    }
}

/* ---- the whole ---- */

static void take_events(struct load *l, double until)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    double wait = until - (double)clock_mono_us();
    if (wait < 0)
        wait = 0;
    struct timespec limit = {.tv_sec = (time_t)(wait / 1e6), .tv_nsec = (long)(fmod(wait, 1e6) * 1000)};
    int n = epoll_pwait2(l->epoll, events, EVENTS_AT_ONCE, &limit, NULL);
    for (int i = 0; i < n; i++)
        on_event(l, events[i].data.ptr);
}

static void reconnect(struct load *l)
{
    int64_t now = clock_mono_us();
    if (!l->n_closed || now < l->reconnect_at)
        return;
    l->reconnect_at = now + RECONNECT_US;
    for (unsigned i = 0; i < l->o->connections; i++) {
        if (l->conns[i].state == CONN_CLOSED)
            conn_open(l, &l->conns[i]);
    }
}

static int connect_all(struct load *l, struct err *e)
{
    double until = (double)clock_mono_us() + CONNECT_MS * 1e3;
    while (l->n_idle < l->o->connections) {
        reconnect(l);
        take_events(l, (double)clock_mono_us() + RECONNECT_US);
        if ((double)clock_mono_us() > until)
            return err_set(e, ERR_UNAVAILABLE, "%u of %u connections to port %u within %d ms", l->n_idle,
                           l->o->connections, l->o->port, CONNECT_MS);
    }
    return 0;
}

static void offer(struct load *l)
{
    while (l->next < l->end) {
        double now = (double)clock_mono_us();
        while (l->next <= now && l->next < l->end) {
            if (counts(l, l->next))
                latency_add(&l->r->own, (int64_t)(now - l->next));
            fall_due(l, l->next);
            l->next += random_gap_us(l);
        }
        reconnect(l);
        take_events(l, l->next < l->end ? l->next : l->end);
    }
}

static void wait_for_rest(struct load *l)
{
    double until = l->end + (double)l->o->grace_ms * 1e3;
    while ((l->n_busy || l->n_waiting) && (double)clock_mono_us() < until) {
        reconnect(l);
        take_events(l, fmin(until, (double)clock_mono_us() + RECONNECT_US));
    }
    for (; l->n_waiting; l->n_waiting--) {
        l->r->unsent += counts(l, l->waiting[l->waiting_first]);
        l->waiting_first = (l->waiting_first + 1) % OPEN_LOAD_WAITING_MAX;
    }
    for (unsigned i = 0; i < l->o->connections; i++) {
        const struct conn *c = &l->conns[i];
        l->r->unanswered += (c->state == CONN_HEAD || c->state == CONN_BODY) && counts(l, c->due);
    }
}

static int begin(struct load *l, struct err *e)
{
    const struct open_load_options *o = l->o;
    if (o->n_targets == 0 || !(o->rate > 0) || o->connections == 0 ||
        o->connections > OPEN_LOAD_CONNECTIONS_MAX)
        return err_set(e, ERR_INVALID, "no targets, no rate, or not 1 to %d connections",
                       OPEN_LOAD_CONNECTIONS_MAX);
    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (l->epoll < 0)
        return err_set(e, ERR_INTERNAL, "epoll: %s", strerror(errno));
    l->requests = mem_zero(o->n_targets, sizeof *l->requests);
    l->conns = mem_zero(o->connections, sizeof *l->conns);
    l->idle = mem_zero(o->connections, sizeof *l->idle);
    l->waiting = mem_zero(OPEN_LOAD_WAITING_MAX, sizeof *l->waiting);
    l->n_closed = o->connections;
    for (unsigned i = 0; i < o->connections; i++)
        l->conns[i].fd = -1;
    for (size_t i = 0; i < o->n_targets; i++) {
        if (make_request(o, o->targets[i], &l->requests[i], e))
            return -1;
    }
    return connect_all(l, e);
}

static void end(struct load *l)
{
    for (size_t i = 0; l->requests && i < l->o->n_targets; i++)
        free(l->requests[i].bytes);
    for (unsigned i = 0; l->conns && i < l->o->connections; i++) {
        if (l->conns[i].fd >= 0)
            close(l->conns[i].fd);
    }
    if (l->epoll >= 0)
        close(l->epoll);
    free(l->requests);
    free(l->conns);
    free(l->idle);
    free(l->waiting);
}

int open_load_run(const struct open_load_options *o, struct open_load_result *out, struct err *e)
{
    struct open_load_result r = {0};
    struct load l = {.o = o, .r = &r, .epoll = -1, .random = o->seed};
    int rc = begin(&l, e);
    if (rc == 0) {
        l.next = (double)clock_mono_us() + random_gap_us(&l);
        l.counts_from = (double)clock_mono_us() + o->settle_s * 1e6;
        l.end = l.counts_from + o->seconds * 1e6;
        offer(&l);
        wait_for_rest(&l);
        *out = r;
    }
    end(&l);
    return rc;
}
