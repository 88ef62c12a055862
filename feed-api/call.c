/* The life of a call after the router, and the checks that handlers share. */
#include "feed-api/call.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/names.h"
#include "feed-api/app.h"
#include "feed-api/gate.h"
#include "feed-api/router.h"

#define OUT_MAX        (32 * 1024 * 1024) /* an answer of the largest bulk request */
#define DETAIL_SIZE    512
#define POINTER_SIZE   96
#define ERROR_SIZE     256
#define JSON_DEPTH_MAX 32
#define RETRY_MS       1000
#define LINES_A_SECOND 20

struct call_answer {
    struct problem problem;
    struct problem_error errors[PROBLEM_MAX_ERRORS];
    char pointers[PROBLEM_MAX_ERRORS][POINTER_SIZE];
    char details[PROBLEM_MAX_ERRORS][ERROR_SIZE];
    char detail[DETAIL_SIZE];
};

struct call *call_new(struct loop *loop, struct http_request *http, const struct route *route)
{
    struct call *c = mem_zero(1, sizeof *c);
    struct app *app = loop->app;
    c->app = app;
    c->loop = loop;
    c->http = http;
    c->route = route;
    c->start_us = http->arrived_us;
    /* Not from the head's arrival: a slow upload is the client's time, with limits of its own. */
    c->deadline = clock_mono_ms() + app->cfg.request_deadline;
    buf_init(&c->out, OUT_MAX);
    return c;
}

void call_drop(struct call *c)
{
    if (c->data_free != NULL)
        c->data_free(c->data);
    for (unsigned i = 0; i < CALL_PARAMS_MAX; i++)
        free(c->params[i]);
    query_done(&c->query);
    identity_done(&c->who);
    buf_done(&c->out);
    free(c->answer);
    free(c);
}

/* ---- problems ---- */

/* Input that is quoted in a message may have been cut inside of a character, or be no UTF-8 at all. */
static void clean_text(char *s)
{
    if (utf8_valid(s, strlen(s)))
        return;
    for (; *s != '\0'; s++) {
        if ((unsigned char)*s >= 0x80)
            *s = '?';
    }
}

/* Answers false when another problem is the answer already. */
static bool begin_problem(struct call *c, enum problem_code code)
{
    if (c->problem != NULL)
        return false;
    if (c->answer == NULL)
        c->answer = mem_zero(1, sizeof *c->answer);
    c->problem = &c->answer->problem;
    c->problem->code = code;
    int status = problem_status(code);
    if (status == 503 || status == 429)
        c->problem->retry_after_ms = RETRY_MS;
    return true;
}

int call_fail(struct call *c, enum problem_code code, const char *fmt, ...)
{
    if (!begin_problem(c, code))
        return -1;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(c->answer->detail, sizeof c->answer->detail, fmt, ap);
    va_end(ap);
    clean_text(c->answer->detail);
    c->problem->detail = c->answer->detail;
    return -1;
}

void call_retry_after(struct call *c, int64_t ms)
{
    if (c->problem != NULL)
        c->problem->retry_after_ms = ms;
}

static void count_mongo(struct call *c, enum err_code code)
{
    unsigned kind = code == ERR_UNAVAILABLE ? MM_UNAVAILABLE : code == ERR_TIMEOUT ? MM_TIMEOUT : MM_OTHER;
    metrics_add(c->app->metrics, M_MONGO_ERRORS, kind, 1);
}

/* A server that is gone fails thousands of calls a second: of these, some a second are enough. The rest is
 * counted by the metrics. Any thread; an odd line more or less between threads does no harm. */
static bool log_has_room(void)
{
    static _Atomic int64_t second;
    static _Atomic unsigned lines;
    int64_t now = clock_mono_ms() / 1000;
    if (atomic_exchange(&second, now) != now)
        atomic_store(&lines, 0);
    return atomic_fetch_add(&lines, 1) < LINES_A_SECOND;
}

static int fail_server(struct call *c, const struct err *e, enum problem_code code)
{
    int status = problem_status(code);
    if (status != 503 || log_has_room())
        log_event(status == 503 ? LOG_WARN : LOG_ERROR, "call_failed", LOG_S("id", c->http->id),
                  LOG_S("op", c->route->operation), LOG_ERR(e));
    if (status != 503)
        return call_fail(c, code, "something went wrong here; the log names this request's id");
    if (e->code == ERR_BUSY)
        return call_fail(c, code, "too much is going on at the moment");
    return call_fail(c, code,
                     e->code == ERR_TIMEOUT ? "it was not done in time" : "a database can't be reached");
}

int call_fail_err(struct call *c, const struct err *e)
{
    enum problem_code code = problem_of_err(e->code);
    if (c->problem != NULL)
        return -1;
    if (problem_status(code) < 500)
        return call_fail(c, code, "%s", e->msg);
    if (e->code != ERR_BUSY)
        count_mongo(c, e->code);
    return fail_server(c, e, code);
}

int call_fail_redis(struct call *c, const struct err *e)
{
    if (c->problem != NULL)
        return -1;
    metrics_add(c->app->metrics, M_REDIS_ERRORS, MT_WORKER, 1);
    enum problem_code code = problem_of_err(e->code);
    return fail_server(c, e, problem_status(code) < 500 ? PROBLEM_INTERNAL : code);
}

__attribute__((format(printf, 4, 0))) static int add_invalid(struct call *c, enum problem_code code,
                                                             const char *pointer, const char *fmt, va_list ap)
{
    if (begin_problem(c, code)) {
        snprintf(c->answer->detail, sizeof c->answer->detail, "the request is not valid");
        c->problem->detail = c->answer->detail;
        c->problem->errors = c->answer->errors;
    }
    size_t i = c->problem->n_errors;
    if (c->problem->errors == NULL || i == PROBLEM_MAX_ERRORS)
        return -1;
    vsnprintf(c->answer->details[i], ERROR_SIZE, fmt, ap);
    snprintf(c->answer->pointers[i], POINTER_SIZE, "%s", pointer);
    clean_text(c->answer->details[i]);
    clean_text(c->answer->pointers[i]);
    c->answer->errors[i] = (struct problem_error){c->answer->pointers[i], c->answer->details[i]};
    c->problem->n_errors++;
    return -1;
}

int call_invalid(struct call *c, const char *pointer, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    add_invalid(c, PROBLEM_INVALID_REQUEST, pointer, fmt, ap);
    va_end(ap);
    return -1;
}

int call_invalid_as(struct call *c, enum problem_code code, const char *pointer, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    add_invalid(c, code, pointer, fmt, ap);
    va_end(ap);
    return -1;
}

int call_unknown_member(struct call *c, const char *parent, const char *name)
{
    char pointer[POINTER_SIZE];
    problem_pointer(parent, name, pointer, sizeof pointer);
    return call_invalid(c, pointer, "is not known here");
}

/* ---- input ---- */

/* jansson would recurse up to 2,048 levels; nothing of ours is deeper than a few. */
static bool json_is_flat(const char *s, size_t n)
{
    int depth = 0;
    bool text = false;
    for (size_t i = 0; i < n; i++) {
        if (text) {
            if (s[i] == '\\')
                i++;
            else if (s[i] == '"')
                text = false;
        } else if (s[i] == '"') {
            text = true;
        } else if (s[i] == '{' || s[i] == '[') {
            if (++depth > JSON_DEPTH_MAX)
                return false;
        } else if (s[i] == '}' || s[i] == ']') {
            depth--;
        }
    }
    return true;
}

json_t *call_json(struct call *c)
{
    const char *body = c->http->body;
    size_t n = c->http->body_len;
    if (n == 0) {
        call_invalid(c, "", "the body is empty, a JSON object is expected");
        return NULL;
    }
    if (!json_is_flat(body, n)) {
        call_invalid(c, "", "nested deeper than %d levels", JSON_DEPTH_MAX);
        return NULL;
    }
    json_error_t why;
    json_t *o = json_loadb(body, n, JSON_REJECT_DUPLICATES, &why);
    if (o == NULL) {
        call_invalid(c, "", "not valid JSON at line %d, column %d: %.120s", why.line, why.column, why.text);
        return NULL;
    }
    if (!json_is_object(o)) {
        json_decref(o);
        call_invalid(c, "", "a JSON object is expected");
        return NULL;
    }
    return o;
}

int call_check_name(struct call *c, const char *pointer, const char *s, size_t n)
{
    struct err e;
    if (names_check(s, n, &e) < 0)
        return call_invalid(c, pointer, "%s", e.msg);
    return 0;
}

const char *call_query(const struct call *c, const char *name)
{
    return query_get(&c->query, name);
}

int call_query_limit(struct call *c, unsigned *out)
{
    struct err e;
    int64_t v = 20;
    if (query_get_int(&c->query, "limit", 1, 100, &v, &e) < 0)
        return call_invalid(c, "?limit", "%s", e.msg);
    *out = (unsigned)v;
    return 0;
}

int call_query_position(struct call *c, ts_t *out)
{
    const char *text = call_query(c, "position");
    struct err e;
    ts_t t = 0;
    if (text != NULL && ts_parse(text, &t, &e) < 0)
        return call_invalid_as(c, PROBLEM_INVALID_POSITION, "?position", "%s", e.msg);
    *out = t;
    return 0;
}

int call_position_known(struct worker *w, struct call *c, ts_t t)
{
    if (t == 0)
        return 0;
    if (t > tail_position(c->app->tail)) {
        struct err e;
        ts_t now;
        if (mongo_conn_fresh(w->mongo, &now, &e) < 0)
            return call_fail_err(c, &e);
        if (t > now) {
            metrics_add(c->app->metrics, M_POSITION_WAITS, MPO_UNKNOWN, 1);
            return call_invalid_as(c, PROBLEM_INVALID_POSITION, "?position",
                                   "no write was ever answered with this one");
        }
    }
    mongo_conn_after(w->mongo, t);
    return 0;
}

/* ---- work ---- */

static void work_run(struct worker *w, void *arg)
{
    struct call *c = arg;
    int64_t begun = clock_mono_us();
    gate_spent(c->http, SPAN_QUEUE, begun - c->submitted_us);
    if (w->mongo != NULL && !(c->needs_mongo && health_is_down(c->app->health, HEALTH_MONGODB))) {
        c->work(w, c);
        gate_spent(c->http, SPAN_WORKER, clock_mono_us() - begun);
        return;
    }
    c->then = NULL;
    call_fail(c, PROBLEM_UNAVAILABLE, "a database can't be reached");
}

static void work_done(void *arg, bool expired)
{
    struct call *c = arg;
    void (*then)(struct call *) = c->then;
    c->then = NULL;
    if (expired) {
        gate_spent(c->http, SPAN_QUEUE, clock_mono_us() - c->submitted_us);
        call_fail(c, PROBLEM_OVERLOADED, "the request's turn did not come in time");
    }
    if (then != NULL && !expired)
        then(c);
    else
        call_finish(c);
}

void call_work_then(struct call *c, void (*fn)(struct worker *w, struct call *c),
                    void (*then)(struct call *c))
{
    struct err e;
    c->work = fn;
    c->then = then;
    c->submitted_us = clock_mono_us();
    if (workers_submit(c->loop->workers, c->deadline, work_run, work_done, c, &e) == 0)
        return;
    c->then = NULL;
    /* Not logged: under overload that would be a line a request. The metrics count them. */
    call_fail(c, e.code == ERR_BUSY ? PROBLEM_OVERLOADED : PROBLEM_UNAVAILABLE, "%s", e.msg);
    call_finish(c);
}

void call_work(struct call *c, void (*fn)(struct worker *w, struct call *c))
{
    call_work_then(c, fn, NULL);
}

/* ---- the answer ---- */

/* One line a call ties the request id to the position of what it wrote: the ranker logs the one, fanout the
 * other. */
static void log_answer(const struct call *c)
{
    log_event(LOG_DEBUG, "answered", LOG_S("request", c->http->id), LOG_S("operation", c->route->operation),
              LOG_I("status", c->problem  ? problem_status(c->problem->code)
                              : c->status ? c->status
                                          : 200),
              LOG_X("position", c->position), LOG_I("us", clock_mono_us() - c->start_us));
}

void call_finish(struct call *c)
{
    if (c->problem == NULL && c->out.full)
        call_fail(c, PROBLEM_INTERNAL, "the answer is larger than %d bytes", OUT_MAX);
    log_answer(c);
    if (c->problem != NULL) {
        problem_reply(c->http, c->problem);
        call_drop(c);
        return;
    }
    if (c->position != 0) {
        char text[TS_TEXT_SIZE];
        ts_format(c->position, text);
        http_header_add(c->http, "Feed-Position", text);
    }
    if (c->location[0] != '\0')
        http_header_add(c->http, "Location", c->location);
    if (c->etag[0] != '\0')
        http_header_add(c->http, "ETag", c->etag);
    int status = c->status != 0 ? c->status : 200;
    const char *type = c->content_type != NULL ? c->content_type : "application/json";
    if (status == 204 || status == 304) {
        http_reply(c->http, status, NULL, NULL, 0);
    } else {
        size_t len = c->out.len;
        if (c->content_encoding != NULL)
            http_header_add(c->http, "Content-Encoding", c->content_encoding);
        http_reply_take(c->http, status, type, buf_take(&c->out), len);
    }
    call_drop(c);
}
