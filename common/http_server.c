/* http_server.c - listeners, the sweep over deadlines, drain and end; what a request tells. See
 * http_internal.h. */
#include "common/http_server.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <unistd.h>
#include "common/clock.h"
#include "common/http_internal.h"
#include "common/mem.h"

#define REFUSED_MAX   64 /* connections over the limit that are told so; more are just closed */
#define SPARE_MAX     256
#define KEEP_BODY_CAP 4096
#define TICK_MAX_MS   250
#define BACKLOG       1024

/* --- exchanges --- */

/* splitmix64: the ids only have to differ. */
static void make_id(struct http_server *s, char *out)
{
    static const char digits[] = "0123456789abcdef";
    uint64_t z = s->id_state[0] += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    z ^= (z >> 31) ^ s->id_state[1];
    for (int i = 0; i < 16; i++, z >>= 4)
        out[i] = digits[z & 15];
    out[16] = '\0';
}

/* Only its own thread writes it, so this needs no lock on the bus. */
static size_t note_live(struct http_server *s, int n)
{
    size_t live = atomic_load_explicit(&s->live, memory_order_relaxed) + (size_t)n;
    atomic_store_explicit(&s->live, live, memory_order_relaxed);
    return live;
}

struct http_exchange *http_exchange_new(struct http_server *s, struct http_conn *c)
{
    struct http_exchange *x = s->spare;
    if (x) {
        s->spare = x->next;
        s->n_spare--;
    } else {
        x = mem_zero(1, sizeof *x);
        http_head_init(&x->head);
    }
    note_live(s, 1);
    x->server = s;
    x->conn = c;
    x->next = NULL;
    make_id(s, x->id);
    memcpy(x->client, c->client, sizeof x->client);
    x->pub = (struct http_request){
        .method = -1,
        .target = "",
        .path = "",
        .query = "",
        .segments = x->head.segments,
        .body = "",
        .id = x->id,
        .client = x->client,
        .max_body = s->o.max_body,
    };
    return x;
}

static void exchange_free(struct http_server *s, struct http_exchange *x)
{
    s->budget->body_bytes -= x->body_cap;
    http_head_done(&x->head);
    free(x->body);
    free(x->extra);
    free(x);
}

/* Empties x but keeps its memory, if it is not much. */
static void exchange_reset(struct http_exchange *x)
{
    if (x->body_cap > KEEP_BODY_CAP) {
        x->server->budget->body_bytes -= x->body_cap;
        free(x->body);
        x->body = NULL;
        x->body_cap = 0;
    }
    if (x->out)
        evbuffer_free(x->out);
    x->out = NULL;
    x->extra_len = x->sent_body = 0;
    x->on_abort = NULL;
    x->abort_arg = NULL;
    x->gone = x->queued = x->handed = x->in_callback = x->release_due = false;
    x->started = x->chunked_out = x->answered = x->close_after = false;
    x->status = 0;
    http_head_reset(&x->head);
}

static void server_destroy(struct http_server *s)
{
    while (s->spare) {
        struct http_exchange *x = s->spare;
        s->spare = x->next;
        exchange_free(s, x);
    }
    free(s);
}

void http_exchange_release(struct http_exchange *x)
{
    struct http_server *s = x->server;
    if (x->in_callback) {
        x->release_due = true;
        return;
    }
    exchange_reset(x);
    if (s->n_spare < SPARE_MAX) {
        x->next = s->spare;
        s->spare = x;
        s->n_spare++;
    } else {
        exchange_free(s, x);
    }
    if (note_live(s, -1) == 0 && s->freed)
        server_destroy(s);
}

/* --- connections --- */

void http_server_count(struct http_server *s, int n)
{
    s->n_conns += (size_t)n;
    s->budget->connections += (size_t)n;
}

void http_server_forget(struct http_server *s, struct http_conn *c)
{
    if (c->next)
        c->next->prev = c->prev;
    if (c->prev)
        c->prev->next = c->next;
    else
        s->conns = c->next;
    http_server_count(s, -1);
    if (s->draining && s->n_conns == 0 && s->drained)
        event_active(s->tick, EV_TIMEOUT, 0);
}

static void on_accept(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *peer, int len, void *arg)
{
    struct http_server *s = arg;
    (void)l;
    size_t open = s->budget->connections;
    if (open >= s->o.max_connections + REFUSED_MAX)
        close(fd);
    else
        http_spread_accept(s, fd, peer, len, open >= s->o.max_connections);
}

/* Out of descriptors: accepting would spin. The next tick tries again. */
static void on_accept_error(struct evconnlistener *l, void *arg)
{
    struct http_server *s = arg;
    evconnlistener_disable(l);
    s->accept_paused = true;
}

static void free_listeners(struct http_server *s)
{
    for (size_t i = 0; i < s->n_listeners; i++)
        evconnlistener_free(s->listeners[i]);
    s->n_listeners = 0;
}

/* One sweep over all connections instead of timers that every request would move about in a heap. */
static void sweep(struct http_server *s, int64_t now)
{
    struct http_conn *c = s->conns;
    while (c) {
        struct http_conn *next = c->next;
        if (next)
            next->busy++; /* a callback to the user may close any connection */
        conn_enter(c);
        conn_check(c, now);
        conn_leave(c);
        bool lost = next && next->dead;
        if (next) {
            next->busy--;
            if (lost && next->busy == 0) {
                conn_enter(next);
                conn_leave(next);
            }
        }
        c = lost ? s->conns : next;
    }
}

static void close_all(struct http_server *s)
{
    while (s->conns) {
        struct http_conn *c = s->conns;
        conn_enter(c);
        conn_close(c);
        conn_leave(c);
    }
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    struct http_server *s = arg;
    int64_t now = clock_mono_ms();
    (void)fd;
    (void)what;
    if (s->accept_paused) {
        s->accept_paused = false;
        for (size_t i = 0; i < s->n_listeners; i++)
            evconnlistener_enable(s->listeners[i]);
    }
    sweep(s, now);
    if (s->draining && now >= s->drain_deadline)
        close_all(s);
    if (s->draining && s->n_conns == 0 && s->drained) {
        void (*done)(void *) = s->drained;
        s->drained = NULL;
        done(s->drained_arg); /* may free s */
    }
}

/* --- the server --- */

static void fill_size(size_t *v, size_t def)
{
    if (*v == 0)
        *v = def;
}

static void fill_ms(int64_t *v, int64_t def)
{
    if (*v == 0)
        *v = def;
}

static void fill_defaults(struct http_server_options *o)
{
    fill_size(&o->max_connections, 10000);
    fill_size(&o->max_body, 128 * 1024);
    fill_size(&o->max_body_total, 256u * 1024 * 1024);
    fill_size(&o->max_pipelined, 16);
    fill_size(&o->max_unsent, 8u * 1024 * 1024);
    fill_ms(&o->head_timeout_ms, 10000);
    fill_ms(&o->idle_timeout_ms, 60000);
    fill_ms(&o->stall_timeout_ms, 10000);
    fill_ms(&o->body_timeout_ms, 60000);
    fill_ms(&o->body_grace_ms, 5000);
    fill_ms(&o->linger_timeout_ms, 2000);
}

static int64_t tick_ms(const struct http_server_options *o)
{
    int64_t t[] = {o->head_timeout_ms, o->idle_timeout_ms, o->stall_timeout_ms,
                   o->body_timeout_ms, o->body_grace_ms,   o->linger_timeout_ms};
    int64_t least = TICK_MAX_MS * 8;
    for (size_t i = 0; i < MEM_COUNT(t); i++)
        least = t[i] < least ? t[i] : least;
    return least / 8 > 0 ? least / 8 : 1;
}

struct http_server *http_server_new(struct event_base *base, const struct http_server_options *o)
{
    assert(o->handle);
    struct http_server *s = mem_zero(1, sizeof *s);
    s->base = base;
    s->o = *o;
    s->budget = o->budget ? o->budget : &s->own;
    fill_defaults(&s->o);
    if (getrandom(s->id_state, sizeof s->id_state, 0) != sizeof s->id_state)
        s->id_state[0] = (uint64_t)clock_mono_us() ^ (uint64_t)getpid() << 40;
    s->tick = event_new(base, -1, EV_PERSIST, on_tick, s);
    int64_t ms = tick_ms(&s->o);
    event_add(s->tick, &(struct timeval){ms / 1000, ms % 1000 * 1000});
    return s;
}

static int make_address(const char *text, uint16_t port, struct sockaddr_storage *out, struct err *e)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)out;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)(void *)out;
    memset(out, 0, sizeof *out);
    if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        return (int)sizeof *v4;
    }
    if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        return (int)sizeof *v6;
    }
    return err_set(e, ERR_INVALID, "%s is not an IP address", text);
}

static uint16_t bound_port(struct evconnlistener *l)
{
    struct sockaddr_storage a;
    socklen_t n = sizeof a;
    if (getsockname(evconnlistener_get_fd(l), (struct sockaddr *)&a, &n) != 0)
        return 0;
    if (a.ss_family == AF_INET6)
        return ntohs(((struct sockaddr_in6 *)(void *)&a)->sin6_port);
    return ntohs(((struct sockaddr_in *)(void *)&a)->sin_port);
}

int http_server_listen(struct http_server *s, const char *address, uint16_t port, uint16_t *bound,
                       struct err *e)
{
    struct sockaddr_storage a;
    int len = make_address(address, port, &a, e);
    if (len < 0)
        return -1;
    if (s->n_listeners == HTTP_MAX_LISTENERS)
        return err_set(e, ERR_INVALID, "more than %d listeners", HTTP_MAX_LISTENERS);
    unsigned flags = LEV_OPT_REUSEABLE | LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC;
    struct evconnlistener *l =
        evconnlistener_new_bind(s->base, on_accept, s, flags, BACKLOG, (struct sockaddr *)&a, len);
    if (l == NULL)
        return err_set(e, ERR_UNAVAILABLE, "can't listen on %s port %u: %s", address, port, strerror(errno));
    evconnlistener_set_error_cb(l, on_accept_error);
    s->listeners[s->n_listeners++] = l;
    if (bound)
        *bound = bound_port(l);
    return 0;
}

void http_server_drain(struct http_server *s, int64_t deadline_ms, void (*done)(void *arg), void *arg)
{
    s->draining = true;
    s->drain_deadline = clock_mono_ms() + deadline_ms;
    s->drained = done;
    s->drained_arg = arg;
    free_listeners(s);
    event_active(s->tick, EV_TIMEOUT, 0); /* its sweep closes what is idle */
}

bool http_server_is_draining(const struct http_server *s)
{
    return s->draining;
}

void http_server_free(struct http_server *s)
{
    if (s == NULL)
        return;
    s->drained = NULL;
    free_listeners(s);
    close_all(s);
    http_inbox_free(s);
    free(s->others);
    event_free(s->tick);
    s->freed = true;
    if (s->live == 0)
        server_destroy(s);
}

size_t http_server_connections(const struct http_server *s)
{
    return s->budget->connections;
}

size_t http_server_in_flight(const struct http_server *s)
{
    return s->live;
}

/* --- what a request tells --- */

const char *http_request_header(const struct http_request *r, const char *name)
{
    const struct http_head *h = &http_exchange_of(r)->head;
    int i = http_head_find(h, name, 0);
    return i < 0 ? NULL : h->buf + h->fields[i].value;
}

size_t http_request_header_count(const struct http_request *r, const char *name)
{
    const struct http_head *h = &http_exchange_of(r)->head;
    size_t n = 0;
    for (int i = http_head_find(h, name, 0); i >= 0; i = http_head_find(h, name, (size_t)i + 1))
        n++;
    return n;
}

const char *http_request_header_at(const struct http_request *r, const char *name, size_t n)
{
    const struct http_head *h = &http_exchange_of(r)->head;
    int i = http_head_find(h, name, 0);
    while (i >= 0 && n-- > 0)
        i = http_head_find(h, name, (size_t)i + 1);
    return i < 0 ? NULL : h->buf + h->fields[i].value;
}

void http_request_set_client(struct http_request *r, const char *address)
{
    struct http_exchange *x = http_exchange_of(r);
    size_t n = strnlen(address, sizeof x->client - 1);
    memcpy(x->client, address, n);
    x->client[n] = '\0';
}

bool http_request_is_gone(const struct http_request *r)
{
    return http_exchange_of(r)->gone;
}

void http_request_on_abort(struct http_request *r, http_request_fn fn, void *arg)
{
    struct http_exchange *x = http_exchange_of(r);
    x->on_abort = fn;
    x->abort_arg = arg;
}
