#include "tests/support/flights.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <poll.h>
#include <stdio.h>
#include <string.h>

#define ACKNOWLEDGED_MS 30000

static bool fits(const struct flights *f, const struct op *op)
{
    for (size_t i = 0; i < f->n; i++)
        if (op_conflicts(&f->flights[i].op, op))
            return false;
    return true;
}

static struct e2e_api *some_writer(struct driver *d)
{
    return &d->apis[rng_below(&d->rng, (unsigned)d->writers)];
}

void flights_send(struct driver *d, unsigned flags, size_t n, struct flights *f)
{
    f->n = 0;
    while (f->n < n) {
        struct flight *x = &f->flights[f->n];
        op_make(d, flags | DRIVER_NAMED, &x->op);
        if (!fits(f, &x->op)) {
            op_done(&x->op);
            continue;
        }
        x->conn = e2e_send(some_writer(d), x->op.method, x->op.path, x->op.extra, x->op.body);
        if (!x->conn)
            driver_fail(d, "can't connect to feed-api");
        f->n++;
    }
}

bool flights_unanswered(const struct rawhttp *conn)
{
    struct pollfd p = {.fd = rawhttp_fd(conn), .events = POLLIN};
    return poll(&p, 1, 0) == 0;
}

size_t flights_open(const struct flights *f)
{
    size_t n = 0;
    for (size_t i = 0; i < f->n; i++)
        n += flights_unanswered(f->flights[i].conn);
    return n;
}

/* A bulk request may be answered as a whole and refuse some lines because the database went away under it. */
static bool is_acknowledged(struct driver *d, const struct op *op, const struct reply *r)
{
    if (r->status == 503)
        return false;
    if (r->status >= 500)
        driver_fail(d, "%s %s: %d %.400s", op->method, op->path, r->status, r->body);
    bool lines = op->kind == OP_ITEMS || op->kind == OP_FOLLOWS;
    return !lines || !strstr(r->body, "\"status\":503");
}

void flights_read(struct driver *d, struct flights *f)
{
    size_t left = 0;
    for (size_t i = 0; i < f->n; i++) {
        struct flight *x = &f->flights[i];
        struct reply r;
        bool acknowledged = false;
        if (rawhttp_try_read(x->conn, x->op.method, &r) == 0) {
            acknowledged = is_acknowledged(d, &x->op, &r);
            if (acknowledged)
                op_apply(d, &x->op, &r);
            reply_done(&r);
        }
        rawhttp_close(x->conn);
        x->conn = NULL;
        if (acknowledged)
            op_done(&x->op);
        else
            f->flights[left++] = *x;
    }
    f->n = left;
}

struct attempt {
    struct driver *d;
    struct op *op;
    char last[400];
};

static bool try_again(void *arg)
{
    struct attempt *a = arg;
    struct reply r;
    if (e2e_try(some_writer(a->d), a->op->method, a->op->path, a->op->extra, a->op->body, &r) != 0)
        return false;
    bool acknowledged = is_acknowledged(a->d, a->op, &r);
    snprintf(a->last, sizeof a->last, "%d %s", r.status, r.body);
    if (acknowledged)
        op_apply(a->d, a->op, &r);
    reply_done(&r);
    return acknowledged;
}

void flights_again(struct driver *d, struct flights *f)
{
    for (size_t i = 0; i < f->n; i++) {
        struct op *op = &f->flights[i].op;
        struct attempt a = {.d = d, .op = op};
        op->repeated = true;
        if (!fixture_until(try_again, &a, ACKNOWLEDGED_MS))
            driver_fail(d, "%s %s is not taken any more: %s", op->method, op->path, a.last);
        op_done(op);
    }
    f->n = 0;
}
