/* query.h - percent-decoding and query strings, strict: nothing that is not understood passes. Pure; any
 * thread.
 */
#ifndef FEEDMILL_QUERY_H
#define FEEDMILL_QUERY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/err.h"

#define QUERY_MAX_PARAMS 32

/* percent_decode() decodes n bytes of s into out (n + 1 bytes; may be s itself) and ends them with a NUL.
 * plus: '+' is a space (query strings; not paths). ERR_INVALID for an escape that is cut or not hex, for %00
 * and for a NUL byte; out is then unspecified, *len untouched. The result need not be UTF-8. */
int percent_decode(const char *s, size_t n, bool plus, char *out, size_t *len, struct err *e) MUST_USE;

/* percent_encode() writes the NUL-terminated s with all but A-Z a-z 0-9 - . _ ~ escaped; out has 3 *
 * strlen(s) + 1 bytes. Answers the length. */
size_t percent_encode(const char *s, char *out);

struct query_param {
    const char *name;  /* decoded, not empty */
    const char *value; /* decoded, "" for "a=" and "a" */
};

struct query {
    struct query_param params[QUERY_MAX_PARAMS]; /* in the order given */
    size_t n;
    char *text; /* what the params point into */
};

/* query_parse() reads "a=b&c=d" (NULL and "" give no params). ERR_INVALID for bad escapes, an empty name
 * ("=x", "&&"), bytes that are not UTF-8, a name given twice, more than QUERY_MAX_PARAMS; q then needs no
 * query_done(). */
int query_parse(const char *raw, struct query *q, struct err *e) MUST_USE;
void query_done(struct query *q);

/* query_get() answers the value or NULL. */
const char *query_get(const struct query *q, const char *name);

/* query_check_known() answers ERR_INVALID, naming it, when a parameter is not in the list (known[n]). */
int query_check_known(const struct query *q, const char *const *known, size_t n, struct err *e) MUST_USE;

/* query_get_int() reads a decimal number between min and max (no sign but '-', no leading zeros) into *out,
 * which stays untouched when the parameter is absent. ERR_INVALID. */
int query_get_int(const struct query *q, const char *name, int64_t min, int64_t max, int64_t *out,
                  struct err *e) MUST_USE;

#endif
