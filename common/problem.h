/* problem.h - error answers: RFC 9457 application/problem+json, every code declared once as a table row
 * (problem.c).
 *
 *   {"type": "/problems/not_found", "title": "Not found", "status": 404, "detail": "no such item",
 *    "instance": "<request id>", "errors": [{"pointer": "/title", "detail": "is missing"}], "retry_after_ms":
 * 1500}
 *
 * Any thread, except problem_reply(): the loop of its request.
 */
#ifndef FEEDMILL_PROBLEM_H
#define FEEDMILL_PROBLEM_H

#include <stddef.h>
#include <stdint.h>
#include "common/buf.h"
#include "common/err.h"

struct http_request;

enum problem_code {
    PROBLEM_INVALID_REQUEST,        /* 400 */
    PROBLEM_INVALID_CURSOR,         /* 400 */
    PROBLEM_INVALID_POSITION,       /* 400 */
    PROBLEM_UNAUTHORIZED,           /* 401 */
    PROBLEM_FORBIDDEN,              /* 403 */
    PROBLEM_NOT_FOUND,              /* 404 */
    PROBLEM_METHOD_NOT_ALLOWED,     /* 405; the caller adds Allow */
    PROBLEM_REQUEST_TIMEOUT,        /* 408 */
    PROBLEM_CONFLICT,               /* 409 */
    PROBLEM_TOO_MANY_FOLLOWS,       /* 409 */
    PROBLEM_TOO_MANY_MUTES,         /* 409 */
    PROBLEM_GONE,                   /* 410 */
    PROBLEM_PRECONDITION_FAILED,    /* 412 */
    PROBLEM_TOO_LARGE,              /* 413 */
    PROBLEM_URI_TOO_LONG,           /* 414 */
    PROBLEM_UNSUPPORTED_MEDIA_TYPE, /* 415 */
    PROBLEM_EXPECTATION_FAILED,     /* 417 */
    PROBLEM_TOO_MANY_REQUESTS,      /* 429 */
    PROBLEM_HEADERS_TOO_LARGE,      /* 431 */
    PROBLEM_INTERNAL,               /* 500 */
    PROBLEM_NOT_IMPLEMENTED,        /* 501 */
    PROBLEM_UNAVAILABLE,            /* 503 */
    PROBLEM_OVERLOADED,             /* 503 */
    PROBLEM_VERSION_NOT_SUPPORTED,  /* 505 */
    PROBLEM_N
};

#define PROBLEM_TYPE       "application/problem+json"
#define PROBLEM_BODY_MAX   (16 * 1024) /* bytes a problem may take */
#define PROBLEM_MAX_ERRORS 32

struct problem_error {
    const char *pointer; /* RFC 6901 pointer into the body ("/media/0/url"), or the query parameter's name */
    const char *detail;
};

/* All strings are borrowed, valid UTF-8. Only code is required. */
struct problem {
    enum problem_code code;
    const char *detail;                 /* one sentence for people; NULL: the title */
    const struct problem_error *errors; /* n_errors of them (those above PROBLEM_MAX_ERRORS are left out) */
    size_t n_errors;
    int64_t
        retry_after_ms; /* 0: none; else retry_after_ms in the body and Retry-After, rounded up to seconds */
};

/* problem_pointer() writes the JSON pointer of an object's member: parent ("" or "/media/0"), "/" and the
 * name escaped as RFC 6901 has it. What does not fit in size (at least 16) is cut between characters. */
void problem_pointer(const char *parent, const char *name, char *out, size_t size);

const char *problem_word(enum problem_code c);  /* "not_found" */
const char *problem_title(enum problem_code c); /* "Not found" */
int problem_status(enum problem_code c);        /* 404 */

/* problem_write() appends the JSON object; instance is the request id or NULL. Used for answers and for the
 * lines of bulk answers. */
void problem_write(const struct problem *p, const char *instance, struct buf *out);

/* problem_reply() answers r with it (and Retry-After, and WWW-Authenticate: Bearer on 401). r is gone after
 * it. */
void problem_reply(struct http_request *r, const struct problem *p);

/* problem_simple() is problem_reply() with a code and a detail (NULL: the title). */
void problem_simple(struct http_request *r, enum problem_code c, const char *detail);

/* problem_of_err() is the code that fits an error: ERR_INVALID 400, NOT_FOUND 404, GONE 410, CONFLICT 409,
 * MISMATCH 412, TOO_LARGE 413, UNAVAILABLE/TIMEOUT/LOG_LOST 503, BUSY overloaded 503, anything else 500. */
enum problem_code problem_of_err(enum err_code c);

/* problem_err() answers r with problem_of_err(); 500s do not show the text of the error; 503s say
 * retry_after_ms 1000. */
void problem_err(struct http_request *r, const struct err *e);

#endif
