/* http_conn.c - the life of a connection: its events, its deadlines, its end. See http_internal.h.
 */
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "common/clock.h"
#include "common/http_internal.h"
#include "common/mem.h"

void http_exchange_abandon(struct http_exchange *x)
{
    if (x->gone)
        return;
    x->gone = true;
    if (x->on_abort && !x->answered)
        x->on_abort(&x->pub, x->abort_arg);
}

/* Cuts the queue off; the exchanges live on until they are answered. */
static void orphan_queue(struct http_conn *c)
{
    struct http_exchange *x;
    while ((x = c->first) != NULL) {
        c->first = x->next;
        c->queued--;
        x->next = NULL;
        x->conn = NULL;
        x->queued = false;
        if (x->answered)
            http_exchange_release(x);
        else
            http_exchange_abandon(x);
    }
    c->last = NULL;
}

void conn_shut(struct http_conn *c)
{
    conn_drop_current(c);
    orphan_queue(c);
    free(c->pending);
    c->linger = c->linger || c->pending_len > 0;
    c->pending = NULL;
    c->pending_len = 0;
    c->read_deadline = 0;
    c->phase = HTTP_CLOSING;
    c->closing = true;
}

void conn_close(struct http_conn *c)
{
    if (c->dead)
        return;
    c->dead = true;
    event_del(&c->read_ev);
    event_del(&c->write_ev);
    close(c->fd);
    if (c->counted)
        peers_leave(c->server->o.peers, &c->ip);
    http_server_forget(c->server, c);
    conn_shut(c);
}

static void conn_free(struct http_conn *c)
{
    evbuffer_free(c->out);
    free(c->pending);
    free(c);
}

/* --- events --- */

static void set_reading(struct http_conn *c, bool on)
{
    if (on == c->reading)
        return;
    c->reading = on;
    if (on)
        event_add(&c->read_ev, NULL);
    else
        event_del(&c->read_ev);
}

bool conn_is_idle(const struct http_conn *c)
{
    return c->first == NULL && (c->cur == NULL || c->cur->head.len == 0) && c->phase == HTTP_READ_HEAD &&
           c->pending_len == 0 && conn_unsent(c) == 0;
}

/* The answer that closes is written. Closing with unread input would make the kernel send a reset, which can
 * overtake the answer; so our side is shut down first and the rest is read away for a while (RFC 9112, 9.6).
 */
static void finish_closing(struct http_conn *c)
{
    int unread = 0;
    if (c->eof || (!c->linger && (ioctl(c->fd, FIONREAD, &unread) != 0 || unread == 0))) {
        conn_close(c);
        return;
    }
    shutdown(c->fd, SHUT_WR);
    c->phase = HTTP_LINGER;
    c->read_deadline = clock_mono_ms() + c->server->o.linger_timeout_ms;
}

static void settle(struct http_conn *c)
{
    do {
        conn_flush(c);
    } while (!c->dead && conn_resume(c));
    if (c->dead)
        return;
    if (c->closing && c->phase != HTTP_LINGER && conn_unsent(c) == 0)
        finish_closing(c);
    else if (c->closing && c->eof && conn_unsent(c) == 0)
        conn_close(c);
    else if (c->server->draining && conn_is_idle(c))
        conn_close(c);
    if (c->dead)
        return;
    if (c->read_deadline == 0 && conn_is_idle(c))
        c->read_deadline = clock_mono_ms() + c->server->o.idle_timeout_ms;
    set_reading(c, !c->eof && c->pending_len == 0);
}

void conn_enter(struct http_conn *c)
{
    c->busy++;
}

void conn_leave(struct http_conn *c)
{
    if (c->busy == 1 && !c->dead)
        settle(c);
    if (--c->busy == 0 && c->dead)
        conn_free(c);
}

/* The client closed its sending side. Most have gone altogether, some wait for the answers: so the user is
 * told, and what is answered in spite of it is still sent. */
static void input_ended(struct http_conn *c)
{
    c->eof = true;
    if (c->phase != HTTP_HELD) {
        conn_drop_current(c);
        c->read_deadline = 0;
        c->phase = c->phase == HTTP_LINGER ? HTTP_LINGER : HTTP_CLOSING;
    }
    struct http_exchange *x = c->first;
    while (x) {
        if (x->gone) {
            x = x->next;
        } else {
            http_exchange_abandon(x);
            x = c->first; /* the user may have answered others meanwhile */
        }
    }
    if (c->first == NULL)
        c->closing = true;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct http_conn *c = arg;
    struct http_server *s = c->server;
    (void)what;
    ssize_t n = recv(fd, s->scratch, sizeof s->scratch, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    conn_enter(c);
    if (n < 0) {
        conn_close(c);
    } else if (n == 0) {
        input_ended(c);
    } else {
        conn_take(c, s->scratch, (size_t)n);
    }
    conn_leave(c);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct http_conn *c = arg;
    (void)fd;
    (void)what;
    conn_enter(c);
    conn_leave(c); /* settling writes */
}

/* A byte now and then would keep a connection and what is held for its body as long as the body may take. */
static bool body_is_slow(const struct http_conn *c, int64_t now)
{
    const struct http_server_options *o = &c->server->o;
    int64_t ms = now - c->body_began - o->body_grace_ms;
    return o->min_body_rate != 0 && ms > 0 && c->cur->pub.body_len < (size_t)ms * o->min_body_rate / 1000;
}

void conn_check(struct http_conn *c, int64_t now)
{
    bool in_body = c->phase == HTTP_READ_LENGTH || c->phase == HTTP_READ_CHUNKS;
    bool late = c->read_deadline != 0 && now >= c->read_deadline;
    if (in_body && c->body_deadline != 0 && (now >= c->body_deadline || body_is_slow(c, now)))
        late = true;
    if (c->write_deadline != 0 && now >= c->write_deadline) {
        conn_close(c);
    } else if (late && in_body) {
        conn_fail(c, PROBLEM_REQUEST_TIMEOUT, "the body did not arrive in time");
    } else if (late && c->phase == HTTP_READ_HEAD && c->cur && c->cur->head.len > 0) {
        conn_fail(c, PROBLEM_REQUEST_TIMEOUT, "the head did not arrive in time");
    } else if (late) {
        conn_close(c);
    }
}

static void name_peer(struct http_conn *c, const struct sockaddr *peer)
{
    const void *a = NULL;
    if (peer->sa_family == AF_INET)
        a = &((const struct sockaddr_in *)(const void *)peer)->sin_addr;
    else if (peer->sa_family == AF_INET6)
        a = &((const struct sockaddr_in6 *)(const void *)peer)->sin6_addr;
    if (a)
        inet_ntop(peer->sa_family, a, c->client, sizeof c->client);
}

static enum peers_answer enter(struct http_conn *c)
{
    struct peers *p = c->server->o.peers;
    if (p == NULL || !ip_parse(c->client, strlen(c->client), &c->ip))
        return PEERS_OK;
    enum peers_answer answer = peers_enter(p, &c->ip);
    c->counted = answer != PEERS_CLOSE;
    return answer;
}

void conn_new(struct http_server *s, int fd, const struct sockaddr *peer, bool refuse)
{
    struct http_conn *c = mem_zero(1, sizeof *c);
    int on = 1;
    c->server = s;
    c->fd = fd;
    c->out = evbuffer_new();
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    name_peer(c, peer);
    enum peers_answer room = enter(c);
    if (room == PEERS_CLOSE) {
        close(fd);
        http_server_count(s, -1);
        conn_free(c);
        return;
    }
    event_assign(&c->read_ev, s->base, fd, EV_READ | EV_PERSIST, on_readable, c);
    event_assign(&c->write_ev, s->base, fd, EV_WRITE | EV_PERSIST, on_writable, c);
    c->next = s->conns;
    if (s->conns)
        s->conns->prev = c;
    s->conns = c;
    conn_enter(c);
    if (refuse)
        conn_fail(c, PROBLEM_OVERLOADED, "too many connections");
    else if (room == PEERS_REFUSE)
        conn_fail(c, PROBLEM_TOO_MANY_REQUESTS, "too many connections from this address");
    else
        c->read_deadline = clock_mono_ms() + s->o.head_timeout_ms;
    conn_leave(c);
}
