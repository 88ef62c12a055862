#include "common/problem.h"

#include <stdio.h>
#include <stdlib.h>
#include "common/http_server.h"
#include "common/mem.h"

#define OVERLOAD_RETRY_MS 1000

static const struct {
    const char *word;
    int status;
    const char *title;
} rows[PROBLEM_N] = {
    [PROBLEM_INVALID_REQUEST] = {"invalid_request", 400, "The request is not valid"},
    [PROBLEM_INVALID_CURSOR] = {"invalid_cursor", 400, "The cursor is not valid here"},
    [PROBLEM_INVALID_POSITION] = {"invalid_position", 400, "The position is not valid"},
    [PROBLEM_UNAUTHORIZED] = {"unauthorized", 401, "A valid credential is needed"},
    [PROBLEM_FORBIDDEN] = {"forbidden", 403, "The credential does not allow this"},
    [PROBLEM_NOT_FOUND] = {"not_found", 404, "Not found"},
    [PROBLEM_METHOD_NOT_ALLOWED] = {"method_not_allowed", 405, "The method is not allowed here"},
    [PROBLEM_REQUEST_TIMEOUT] = {"request_timeout", 408, "The request took too long to arrive"},
    [PROBLEM_CONFLICT] = {"conflict", 409, "The request conflicts with the present state"},
    [PROBLEM_TOO_MANY_FOLLOWS] = {"too_many_follows", 409, "The user follows too much already"},
    [PROBLEM_TOO_MANY_MUTES] = {"too_many_mutes", 409, "The user mutes too much already"},
    [PROBLEM_GONE] = {"gone", 410, "It was deleted"},
    [PROBLEM_PRECONDITION_FAILED] = {"precondition_failed", 412, "The precondition does not hold"},
    [PROBLEM_TOO_LARGE] = {"too_large", 413, "The request is too large"},
    [PROBLEM_URI_TOO_LONG] = {"uri_too_long", 414, "The target is too long"},
    [PROBLEM_UNSUPPORTED_MEDIA_TYPE] = {"unsupported_media_type", 415, "The content type is not taken here"},
    [PROBLEM_EXPECTATION_FAILED] = {"expectation_failed", 417, "The expectation can't be met"},
    [PROBLEM_TOO_MANY_REQUESTS] = {"too_many_requests", 429, "Too many requests"},
    [PROBLEM_HEADERS_TOO_LARGE] = {"headers_too_large", 431, "The header section is too large"},
    [PROBLEM_INTERNAL] = {"internal", 500, "The server failed"},
    [PROBLEM_NOT_IMPLEMENTED] = {"not_implemented", 501, "Not implemented"},
    [PROBLEM_UNAVAILABLE] = {"unavailable", 503, "Not available at the moment"},
    [PROBLEM_OVERLOADED] = {"overloaded", 503, "Too busy at the moment"},
    [PROBLEM_VERSION_NOT_SUPPORTED] = {"version_not_supported", 505, "The HTTP version is not supported"},
};

static enum problem_code known(enum problem_code c)
{
    return (unsigned)c < PROBLEM_N ? c : PROBLEM_INTERNAL;
}

const char *problem_word(enum problem_code c)
{
    return rows[known(c)].word;
}

const char *problem_title(enum problem_code c)
{
    return rows[known(c)].title;
}

int problem_status(enum problem_code c)
{
    return rows[known(c)].status;
}

void problem_pointer(const char *parent, const char *name, char *out, size_t size)
{
    size_t n = (size_t)snprintf(out, size, "%s/", parent);
    if (n >= size)
        return;
    for (const char *s = name; *s != '\0' && n + 6 < size; s++) {
        if (*s == '~' || *s == '/') {
            out[n++] = '~';
            out[n++] = *s == '~' ? '0' : '1';
            continue;
        }
        out[n++] = *s;
        /* the rest of a multi-byte character goes with its head: n + 6 leaves room */
        while ((s[1] & 0xc0) == 0x80)
            out[n++] = *++s;
    }
    out[n] = '\0';
}

static void write_errors(const struct problem *p, struct buf *out)
{
    size_t n = p->n_errors < PROBLEM_MAX_ERRORS ? p->n_errors : PROBLEM_MAX_ERRORS;
    buf_add_str(out, ",\"errors\":[");
    for (size_t i = 0; i < n; i++) {
        buf_add_str(out, i ? ",{\"pointer\":" : "{\"pointer\":");
        buf_add_json(out, p->errors[i].pointer ? p->errors[i].pointer : "");
        buf_add_str(out, ",\"detail\":");
        buf_add_json(out, p->errors[i].detail ? p->errors[i].detail : "");
        buf_add_char(out, '}');
    }
    buf_add_char(out, ']');
}

void problem_write(const struct problem *p, const char *instance, struct buf *out)
{
    buf_add_str(out, "{\"type\":\"/problems/");
    buf_add_str(out, problem_word(p->code));
    buf_add_str(out, "\",\"title\":");
    buf_add_json(out, problem_title(p->code));
    buf_add_str(out, ",\"status\":");
    buf_add_i64(out, problem_status(p->code));
    buf_add_str(out, ",\"detail\":");
    buf_add_json(out, p->detail ? p->detail : problem_title(p->code));
    if (instance) {
        buf_add_str(out, ",\"instance\":");
        buf_add_json(out, instance);
    }
    if (p->n_errors)
        write_errors(p, out);
    if (p->retry_after_ms > 0) {
        buf_add_str(out, ",\"retry_after_ms\":");
        buf_add_i64(out, p->retry_after_ms);
    }
    buf_add_char(out, '}');
}

void problem_reply(struct http_request *r, const struct problem *p)
{
    struct buf body;
    buf_init(&body, PROBLEM_BODY_MAX);
    problem_write(p, r->id, &body);
    if (body.full) { /* long pointers or details: what matters must still arrive whole */
        struct problem brief = {.code = p->code, .retry_after_ms = p->retry_after_ms};
        buf_reset(&body);
        problem_write(&brief, r->id, &body);
    }
    if (p->retry_after_ms > 0) {
        char seconds[24];
        snprintf(seconds, sizeof seconds, "%lld", ((long long)p->retry_after_ms + 999) / 1000);
        http_header_add(r, "Retry-After", seconds);
    }
    int status = problem_status(p->code);
    if (status == 401)
        http_header_add(r, "WWW-Authenticate", "Bearer");
    size_t len = body.len;
    http_reply_take(r, status, PROBLEM_TYPE, buf_take(&body), len);
}

void problem_simple(struct http_request *r, enum problem_code c, const char *detail)
{
    struct problem p = {.code = c, .detail = detail};
    problem_reply(r, &p);
}

enum problem_code problem_of_err(enum err_code c)
{
    switch (c) {
    case ERR_INVALID:
        return PROBLEM_INVALID_REQUEST;
    case ERR_NOT_FOUND:
        return PROBLEM_NOT_FOUND;
    case ERR_GONE:
        return PROBLEM_GONE;
    case ERR_CONFLICT:
        return PROBLEM_CONFLICT;
    case ERR_MISMATCH:
        return PROBLEM_PRECONDITION_FAILED;
    case ERR_TOO_LARGE:
        return PROBLEM_TOO_LARGE;
    case ERR_UNAVAILABLE:
    case ERR_TIMEOUT:
    case ERR_LOG_LOST:
        return PROBLEM_UNAVAILABLE;
    case ERR_BUSY:
        return PROBLEM_OVERLOADED;
    default:
        return PROBLEM_INTERNAL;
    }
}

void problem_err(struct http_request *r, const struct err *e)
{
    struct problem p = {.code = problem_of_err(e->code)};
    if (p.code != PROBLEM_INTERNAL && e->msg[0] != '\0')
        p.detail = e->msg;
    if (problem_status(p.code) == 503)
        p.retry_after_ms = OVERLOAD_RETRY_MS;
    problem_reply(r, &p);
}
