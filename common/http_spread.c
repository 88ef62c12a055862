/* http_spread.c - connections that one server accepts and others serve, each on its own thread. The kernel's
 * SO_REUSEPORT spreads by a hash: of 32 connections on two threads one gets 20 as often as not, and two
 * processes on the same port by mistake go unnoticed. One that accepts knows who has how many. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "common/http_internal.h"
#include "common/mem.h"
#include "common/wake.h"

#define INBOX_MAX 1024

struct handed {
    int fd;
    bool refuse;
    struct sockaddr_storage peer;
};

struct http_inbox {
    struct wake *wake;
    pthread_mutex_t lock;
    unsigned n;
    struct handed at[INBOX_MAX];
};

static bool take(struct http_inbox *in, struct handed *out)
{
    pthread_mutex_lock(&in->lock);
    bool any = in->n > 0;
    if (any)
        *out = in->at[--in->n];
    pthread_mutex_unlock(&in->lock);
    return any;
}

static void serve_handed(void *arg)
{
    struct http_server *s = arg;
    struct handed h;
    while (take(s->inbox, &h)) {
        if (s->draining) {
            close(h.fd);
            http_server_count(s, -1);
        } else {
            conn_new(s, h.fd, (struct sockaddr *)&h.peer, h.refuse);
        }
    }
    if (s->draining)
        event_active(s->tick, EV_TIMEOUT, 0);
}

static int inbox_new(struct http_server *s, struct err *e)
{
    struct http_inbox *in = s->inbox = mem_zero(1, sizeof *in);
    pthread_mutex_init(&in->lock, NULL);
    return wake_new(&in->wake, s->base, serve_handed, s, e);
}

void http_inbox_free(struct http_server *s)
{
    struct http_inbox *in = s->inbox;
    struct handed h;
    if (in == NULL)
        return;
    while (take(in, &h)) {
        close(h.fd);
        http_server_count(s, -1);
    }
    wake_free(in->wake);
    pthread_mutex_destroy(&in->lock);
    free(in);
    s->inbox = NULL;
}

int http_server_spread(struct http_server *s, struct http_server *const *others, size_t n, struct err *e)
{
    s->others = mem_zero(n, sizeof *s->others);
    memcpy(s->others, others, n * sizeof *others);
    s->n_others = n;
    for (size_t i = 0; i < n; i++) {
        if (inbox_new(others[i], e) != 0)
            return -1;
    }
    return 0;
}

/* Who has the fewest; the one after the last one that got one, among equals. */
static struct http_server *choose(struct http_server *s)
{
    struct http_server *best = NULL;
    size_t least = SIZE_MAX;
    for (size_t i = 0; i <= s->n_others; i++) {
        size_t at = (s->turn + i) % (s->n_others + 1);
        struct http_server *x = at == 0 ? s : s->others[at - 1];
        if (x->n_conns < least) {
            least = x->n_conns;
            best = x;
        }
    }
    s->turn++;
    return best;
}

static bool hand_over(struct http_inbox *in, int fd, const struct sockaddr *peer, int len, bool refuse)
{
    pthread_mutex_lock(&in->lock);
    bool room = in->n < INBOX_MAX && (size_t)len <= sizeof in->at[0].peer;
    if (room) {
        struct handed *h = &in->at[in->n++];
        h->fd = fd;
        h->refuse = refuse;
        memcpy(&h->peer, peer, (size_t)len);
    }
    pthread_mutex_unlock(&in->lock);
    wake_up(in->wake);
    return room;
}

void http_spread_accept(struct http_server *s, int fd, const struct sockaddr *peer, int len, bool refuse)
{
    struct http_server *to = choose(s);
    http_server_count(to, 1);
    if (to == s) {
        conn_new(s, fd, peer, refuse);
    } else if (!hand_over(to->inbox, fd, peer, len, refuse)) {
        close(fd);
        http_server_count(to, -1);
    }
}
