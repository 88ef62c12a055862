#include "common/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *e, enum err_code code, const char *fmt, ...)
{
    if (e == NULL)
        return -1;
    e->code = code;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    return -1;
}

int err_prefix(struct err *e, const char *fmt, ...)
{
    if (e == NULL)
        return -1;
    char msg[sizeof e->msg];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    /* Appended by hand: the old message is expected not to fit at times, and is cut then. */
    size_t len = n < 0 ? 0 : strlen(msg);
    const char *parts[] = {": ", e->msg};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        size_t room = sizeof msg - 1 - len;
        size_t take = strnlen(parts[i], room);
        memcpy(msg + len, parts[i], take);
        len += take;
    }
    msg[len] = '\0';
    memcpy(e->msg, msg, len + 1);
    return -1;
}

const char *err_code_name(enum err_code code)
{
    static const char *const names[] = {
        [ERR_NONE] = "none",           [ERR_INVALID] = "invalid",         [ERR_NOT_FOUND] = "not_found",
        [ERR_GONE] = "gone",           [ERR_CONFLICT] = "conflict",       [ERR_MISMATCH] = "mismatch",
        [ERR_TOO_LARGE] = "too_large", [ERR_UNAVAILABLE] = "unavailable", [ERR_TIMEOUT] = "timeout",
        [ERR_BUSY] = "busy",           [ERR_LOG_LOST] = "log_lost",       [ERR_CORRUPT] = "corrupt",
        [ERR_INTERNAL] = "internal",
    };
    if ((unsigned)code >= sizeof names / sizeof *names)
        return "unknown";
    return names[code];
}
