/* http_client.c - a pool of links to one place; a link carries one call at a time, further calls wait in a
 * queue. See http_client.h.
 */
#include "common/http_client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/clock.h"
#include "common/http_link.h"
#include "common/mem.h"

/* --- the end of calls and links --- */

static void call_free(struct call *k)
{
    evtimer_del(&k->timer);
    free(k->bytes);
    free(k);
}

/* Hands the outcome to the caller, who may make new requests in the callback. */
static void call_finish(struct call *k, const struct http_response *r, const struct err *e)
{
    struct http_client *c = k->client;
    http_client_fn fn = k->fn;
    void *arg = k->arg;
    c->in_flight--;
    call_free(k);
    if (c->first)
        event_active(c->kick, EV_TIMEOUT, 0);
    fn(r, e, arg);
}

static void call_fail(struct call *k, enum err_code code, const char *why)
{
    struct err e;
    err_set(&e, code, "%s %s: %s", "request to", k->client->host_header, why);
    call_finish(k, NULL, &e);
}

void call_answered(struct call *k, const struct http_response *r)
{
    call_finish(k, r, NULL);
}

static void enqueue(struct http_client *c, struct call *k)
{
    k->next = NULL;
    k->link = NULL;
    k->sent = 0;
    *c->last = k;
    c->last = &k->next;
    event_active(c->kick, EV_TIMEOUT, 0);
}

/* The call goes to another link when this one was most likely closed before it heard of it, and repeating is
 * safe. */
void link_fail(struct link *l, enum err_code code, const char *why)
{
    struct call *k = l->call;
    bool again = k && code == ERR_UNAVAILABLE && l->used_before && !l->heard && k->may_repeat && !k->repeated;
    struct http_client *c = l->client;
    link_close(l);
    if (k == NULL)
        return;
    if (again) {
        k->repeated = true;
        enqueue(c, k);
    } else {
        call_fail(k, code, why);
    }
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    struct call *k = arg;
    struct http_client *c = k->client;
    (void)fd;
    (void)what;
    if (k->link) {
        link_close(k->link); /* its answer may still come: the link can't be used for another call */
    } else {
        struct call **p = &c->first;
        while (*p != k)
            p = &(*p)->next;
        *p = k->next;
        if (*p == NULL)
            c->last = p;
    }
    call_fail(k, ERR_TIMEOUT, "the deadline passed");
}

/* --- waiting calls --- */

/* An idle link that is not too old, else NULL; old ones are closed on the way. */
static struct link *find_idle(struct http_client *c)
{
    int64_t oldest = clock_mono_ms() - c->o.idle_ms;
    struct link *next;
    for (struct link *l = c->links; l; l = next) {
        next = l->next;
        if (l->call == NULL && l->idle_since_ms >= oldest)
            return l;
        if (l->call == NULL)
            link_close(l);
    }
    return NULL;
}

static struct call *dequeue(struct http_client *c)
{
    struct call *k = c->first;
    c->first = k->next;
    if (c->first == NULL)
        c->last = &c->first;
    return k;
}

/* Gives waiting calls to links. A repeated call gets a new one: the other idle ones are probably as dead. */
static void on_kick(evutil_socket_t fd, short what, void *arg)
{
    struct http_client *c = arg;
    (void)fd;
    (void)what;
    while (c->first) {
        struct link *l = find_idle(c);
        while (l && c->first->repeated) {
            link_close(l);
            l = find_idle(c);
        }
        if (l == NULL && c->n_links >= c->o.max_connections)
            return; /* the end of a call kicks again */
        struct call *k = dequeue(c);
        if (l) {
            link_start(l, k, true);
        } else if ((l = link_new(c)) != NULL) {
            link_start(l, k, false);
        } else {
            call_fail(k, ERR_UNAVAILABLE, strerror(errno));
        }
    }
}

/* --- the client --- */

static int parse_host(struct http_client *c, const char *host, struct err *e)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)&c->addr;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)(void *)&c->addr;
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(c->o.port);
        c->addr_len = sizeof *v4;
        snprintf(c->host_header, sizeof c->host_header, "%s:%u", host, c->o.port);
    } else if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(c->o.port);
        c->addr_len = sizeof *v6;
        snprintf(c->host_header, sizeof c->host_header, "[%s]:%u", host, c->o.port);
    } else {
        return err_set(e, ERR_INVALID, "%s is not an IP address", host);
    }
    return 0;
}

struct http_client *http_client_new(struct event_base *base, const struct http_client_options *o,
                                    struct err *e)
{
    struct http_client *c = mem_zero(1, sizeof *c);
    c->o = *o;
    c->o.host = NULL;
    if (parse_host(c, o->host, e) != 0) {
        free(c);
        return NULL;
    }
    c->o.max_connections = o->max_connections ? o->max_connections : 8;
    c->o.max_in_flight = o->max_in_flight ? o->max_in_flight : 256;
    c->o.max_response = o->max_response ? o->max_response : 4u * 1024 * 1024;
    c->o.idle_ms = o->idle_ms ? o->idle_ms : 30000;
    c->base = base;
    c->last = &c->first;
    c->kick = event_new(base, -1, 0, on_kick, c);
    return c;
}

void http_client_free(struct http_client *c)
{
    if (c == NULL)
        return;
    while (c->links) {
        if (c->links->call)
            call_free(c->links->call);
        link_close(c->links);
    }
    while (c->first)
        call_free(dequeue(c));
    event_free(c->kick);
    free(c);
}

int http_client_request(struct http_client *c, const char *method, const char *path, const char *headers,
                        const void *body, size_t len, int64_t timeout_ms, http_client_fn fn, void *arg,
                        struct err *e)
{
    if (c->in_flight >= c->o.max_in_flight)
        return err_set(e, ERR_BUSY, "%zu requests to %s are in flight", c->in_flight, c->host_header);
    struct call *k = mem_zero(1, sizeof *k);
    char *head = mem_printf("%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %zu\r\n%s\r\n", method, path,
                            c->host_header, len, headers ? headers : "");
    size_t head_len = strlen(head);
    k->bytes = mem_grow(head, head_len + len + 1, 1);
    if (len)
        memcpy(k->bytes + head_len, body, len);
    k->len = head_len + len;
    k->client = c;
    k->is_head = strcmp(method, "HEAD") == 0;
    k->may_repeat = k->is_head || strcmp(method, "GET") == 0;
    k->fn = fn;
    k->arg = arg;
    evtimer_assign(&k->timer, c->base, on_deadline, k);
    int64_t ms = timeout_ms > 0 ? timeout_ms : 1;
    struct timeval tv = {ms / 1000, ms % 1000 * 1000};
    evtimer_add(&k->timer, &tv);
    c->in_flight++;
    enqueue(c, k);
    return 0;
}

size_t http_client_in_flight(const struct http_client *c)
{
    return c->in_flight;
}
