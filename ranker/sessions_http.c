#include "ranker/sessions_http.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/problem.h"
#include "ranker/app.h"
#include "ranker/metrics.h"

#define PATH     "/v1/sessions"
#define BODY_MAX (64 * 1024)

/* One request between the loop and a worker. */
struct ask {
    struct app *app;
    struct http_request *http;
    int64_t start_us;
    struct session_request request;
    char id[SESSION_ID_SIZE];
    size_t count;
    int rc;
    struct err err;
};

void sessions_http_head(struct http_request *r, void *app)
{
    (void)app;
    if (strcmp(r->path, PATH) != 0)
        return;
    if (r->method != HTTP_POST) {
        http_header_add(r, "Allow", "POST");
        problem_simple(r, PROBLEM_METHOD_NOT_ALLOWED, NULL);
        return;
    }
    r->max_body = BODY_MAX;
}

static int read_candidates(const json_t *list, struct session_request *out, struct err *e)
{
    const json_t *one;
    size_t i;
    if (!json_is_array(list) || json_array_size(list) == 0 || json_array_size(list) > SESSION_CANDIDATES_MAX)
        return err_set(e, ERR_INVALID, "candidates must be an array of 1 to %d ids", SESSION_CANDIDATES_MAX);
    json_array_foreach(list, i, one)
    {
        if (!json_is_string(one) || ids_parse(json_string_value(one), &out->candidates[i], e) < 0)
            return err_set(e, ERR_INVALID, "candidates[%zu] is not an item id", i);
    }
    out->n = json_array_size(list);
    return 0;
}

static int read_request(const char *body, size_t len, struct session_request *out, int64_t *deadline_ms,
                        struct err *e)
{
    json_error_t je;
    json_t *o = json_loadb(body, len, JSON_REJECT_DUPLICATES, &je);
    const char *user = NULL, *profile = "default", *request_id = NULL;
    json_t *candidates = NULL;
    json_int_t deadline = *deadline_ms;
    int rc = -1;
    if (json_unpack_ex(o, &je, JSON_STRICT, "{s:s, s:o, s?s, s?s, s?I}", "user", &user, "candidates",
                       &candidates, "profile", &profile, "request_id", &request_id, "deadline_ms",
                       &deadline) < 0)
        err_set(e, ERR_INVALID, "%s", je.text);
    else if (names_check(user, strlen(user), e) < 0)
        err_prefix(e, "user");
    else if (strcmp(profile, "default") != 0)
        err_set(e, ERR_INVALID, "there is no profile \"%.64s\"", profile);
    else if (deadline < 1 || deadline > 60000)
        err_set(e, ERR_INVALID, "deadline_ms must be 1 to 60000");
    else
        rc = read_candidates(candidates, out, e);
    if (rc == 0) {
        snprintf(out->user, sizeof out->user, "%s", user);
        *deadline_ms = deadline;
    }
    json_decref(o);
    return rc;
}

static void run(struct worker *w, void *arg)
{
    struct ask *a = arg;
    a->rc = session_make(w, a->app->infos, &a->app->limits, &a->request, clock_wall_ms(), a->id, &a->count,
                         &a->err);
}

static void count_result(struct ask *a, enum session_result result)
{
    metrics_add(a->app->metrics, M_SESSIONS, result, 1);
    metrics_observe_us(a->app->metrics, M_SESSION_SECONDS, 0, clock_mono_us() - a->start_us);
}

static void done(void *arg, bool expired)
{
    struct ask *a = arg;
    if (expired) {
        count_result(a, SESSION_LATE);
        problem_simple(a->http, PROBLEM_OVERLOADED, "the deadline passed while the request waited");
    } else if (a->rc < 0) {
        count_result(a, SESSION_FAILED);
        log_event(LOG_WARN, "session_failed", LOG_S("request", a->http->id), LOG_ERR(&a->err));
        problem_err(a->http, &a->err);
    } else {
        char body[96];
        int n = snprintf(body, sizeof body, "{\"session\":\"%s\",\"count\":%zu}", a->id, a->count);
        count_result(a, SESSION_MADE);
        metrics_add(a->app->metrics, M_CANDIDATES, 0, (int64_t)a->count);
        log_event(LOG_DEBUG, "session_made", LOG_S("request", a->http->id), LOG_U("candidates", a->count),
                  LOG_I("us", clock_mono_us() - a->start_us));
        http_reply(a->http, 200, "application/json", body, (size_t)n);
    }
    free(a);
}

static void handle_session(struct app *app, struct http_request *r)
{
    struct ask *a = mem_zero(1, sizeof *a);
    struct err e = {0};
    int64_t deadline_ms = app->cfg.request_deadline;
    a->app = app;
    a->http = r;
    a->start_us = clock_mono_us();
    if (read_request(r->body, r->body_len, &a->request, &deadline_ms, &e) < 0) {
        metrics_add(app->metrics, M_SESSIONS, SESSION_INVALID, 1);
        problem_err(r, &e);
        free(a);
    } else if (workers_submit(app->workers, clock_mono_ms() + deadline_ms, run, done, a, &e) < 0) {
        count_result(a, SESSION_FAILED);
        problem_err(r, &e);
        free(a);
    }
}

void sessions_http_handle(struct http_request *r, void *arg)
{
    struct app *app = arg;
    if (strcmp(r->path, PATH) == 0)
        handle_session(app, r);
    else
        admin_handle(r, &app->admin);
}
