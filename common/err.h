/* err.h - why something failed.
 *
 * A fallible function returns 0 or -1 and takes a trailing struct err, which it fills only on
 * failure; its other outputs stay untouched then. Library code never logs an error: it returns it,
 * and whoever handles it logs it once. Any thread; an err belongs to its caller's stack.
 */
#ifndef FEEDMILL_ERR_H
#define FEEDMILL_ERR_H

#define MUST_USE __attribute__((warn_unused_result))

/* Where an error has to be told apart by a program; the text is for people. */
enum err_code {
    ERR_NONE = 0,
    ERR_INVALID,     /* the input is wrong; nothing was changed */
    ERR_NOT_FOUND,   /* what was named does not exist */
    ERR_GONE,        /* it existed and was deleted */
    ERR_CONFLICT,    /* a cap or a state stands against it */
    ERR_MISMATCH,    /* a precondition (revision, epoch, token) does not hold */
    ERR_TOO_LARGE,   /* over a cap in bytes or count */
    ERR_UNAVAILABLE, /* a server can't be reached or is not ready: worth another try later */
    ERR_TIMEOUT,     /* the deadline passed; a write may or may not have happened */
    ERR_BUSY,        /* a queue is full or somebody else is at it */
    ERR_LOG_LOST,    /* the change stream no longer reaches back that far */
    ERR_CORRUPT,     /* data that we wrote does not read as it should */
    ERR_INTERNAL,    /* anything else */
};

struct err {
    enum err_code code;
    char msg[256]; /* one line, NUL-terminated, no trailing newline or period */
};

/* err_set() fills e (may be NULL) with code and a printf text, cut at the size of msg; returns -1, so
 * that `return err_set(e, ...)` reads well. */
int err_set(struct err *e, enum err_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* err_prefix() puts "<text>: " before the message of an error on its way up; returns -1. */
int err_prefix(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* err_code_name() answers a stable lower-case word ("unavailable") for logs and metrics; static. */
const char *err_code_name(enum err_code code);

#endif
