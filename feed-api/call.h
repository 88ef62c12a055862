/* call.h - one API request on its way through a handler.
 *
 * The router makes it when the whole request is here and the credential was accepted, and calls the route's
 * handler on the loop's thread. A handler checks the input (call_invalid(), call_fail()), then either answers
 * at once (fill out, call_finish()) or hands blocking work to the workers (call_work()), whose function fills
 * status/out/position/problem, after which the call finishes by itself on the loop. While work runs, nobody
 * else touches the call. call_finish() sends the answer and frees the call; it is right also when the client
 * is gone.
 */
#ifndef FEEDMILL_CALL_H
#define FEEDMILL_CALL_H

#include <jansson.h>
#include "common/buf.h"
#include "common/http_server.h"
#include "common/problem.h"
#include "common/query.h"
#include "common/ts.h"
#include "feed-api/auth.h"
#include "feed-api/workers.h"

struct app;
struct loop;
struct route;
struct call_answer; /* call.c: the texts of the problem */

#define CALL_PARAMS_MAX 3

struct call {
    struct app *app;
    struct loop *loop; /* on whose thread it is, when it is not in a worker */
    struct http_request *http;
    const struct route *route;
    struct identity who;
    char *params[CALL_PARAMS_MAX]; /* decoded path parameters in order of the template; {u} {p} {t} {name} are
                                      checked names */
    struct query query;            /* only parameters that the route allows, each at most once */
    int64_t start_us;              /* clock_mono_us() at arrival */
    int64_t deadline;              /* clock_mono_ms() by which the answer has to be out */

    /* the answer */
    int status;     /* 0 until set; 200 when left */
    struct buf out; /* body; application/json unless content_type is set */
    const char *content_type;
    const char *content_encoding; /* Content-Encoding header when not NULL; static */
    char location[128];           /* Location header when not empty */
    char etag[64];                /* ETag header when not empty */
    ts_t position;                /* Feed-Position header when not 0 */
    struct problem *problem;      /* when set, it is the answer */

    void *data;                /* the handler's own */
    void (*data_free)(void *); /* called with data when the call is freed; may be NULL */

    bool
        needs_mongo; /* set by the router: no worker is kept waiting for a MongoDB that is known to be down */

    /* call.c's own */
    void (*then)(struct call *);
    void (*work)(struct worker *, struct call *);
    int64_t submitted_us; /* when the work was handed to the workers */
    struct call_answer *answer;
};

/* For the router. call_new() makes a call for a request; its deadline starts now; the router fills the rest.
 * call_drop() frees a call whose request is answered, or not to be answered yet. */
struct call *call_new(struct loop *loop, struct http_request *http, const struct route *route);
void call_drop(struct call *c);

/* call_fail() makes a problem the answer (the first one stays); returns -1. 429 and 503 get a retry hint of 1
 * s; call_retry_after() sets another one (ms). */
int call_fail(struct call *c, enum problem_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* call_fail_err() maps an err: INVALID 400, NOT_FOUND 404, GONE 410, CONFLICT 409, MISMATCH 412, TOO_LARGE
 * 413, UNAVAILABLE, TIMEOUT and BUSY 503 with a retry hint, else 500. The text of 500s and 503s is logged
 * with the request id and not shown to the client. Any thread that has the call. Returns -1. */
int call_fail_err(struct call *c, const struct err *e);
int call_fail_redis(struct call *c,
                    const struct err *e); /* the same, counted as Redis' error and not MongoDB's */

void call_retry_after(struct call *c, int64_t ms);

/* call_invalid() adds {pointer, detail} to a 400; several may be added before call_finish(). pointer is a
 * JSON pointer ("/title") or, for query parameters, "?limit". Returns -1. */
int call_invalid(struct call *c, const char *pointer, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* call_invalid_as() is the same with another code of status 400 (an invalid cursor or position). */
int call_invalid_as(struct call *c, enum problem_code code, const char *pointer, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* call_unknown_member() is call_invalid() for a member that is not known in the object at parent ("" for the
 * body itself, "/add/0"). */
int call_unknown_member(struct call *c, const char *parent, const char *name);

/* call_json() parses the body: an object, no duplicate members, no U+0000, depth at most 32, else it sets a
 * 400 and answers NULL. The caller owns it. */
json_t *call_json(struct call *c);

/* call_check_name() checks a string as a name and sets a 400 with the pointer. */
int call_check_name(struct call *c, const char *pointer, const char *s, size_t n);

/* Query: call_query() answers NULL when absent. call_query_limit(): 1 to 100, default 20.
 * call_query_position(): 0 when absent; a malformed one is a 400. Whether it lies in the future is for
 * call_position_known() to say, which blocks: in a worker. */
const char *call_query(const struct call *c, const char *name);
int call_query_limit(struct call *c, unsigned *out);
int call_query_position(struct call *c, ts_t *out);

/* call_position_known() makes w's reads see position t, or sets a 400 when MongoDB never gave out t. 0:
 * nothing to do. In a worker. */
int call_position_known(struct worker *w, struct call *c, ts_t t);

/* call_work() has fn called in a worker, with w->mongo never NULL and its deadline set to the call's, and
 * finishes the call afterwards. When no worker takes it (the queue is full, the deadline passed before its
 * turn) the call is finished with a 503. The caller must not touch c any more. */
void call_work(struct call *c, void (*fn)(struct worker *w, struct call *c));

/* call_work_then(): `then` runs on the loop after the work and has to call call_finish(), call_work() or
 * call_work_then(). It is not called when fn was not. */
void call_work_then(struct call *c, void (*fn)(struct worker *w, struct call *c),
                    void (*then)(struct call *c));
void call_finish(struct call *c);

#endif
