#include "common/query.h"

#include <stdlib.h>
#include <string.h>
#include "common/mem.h"
#include "common/names.h"

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int percent_decode(const char *s, size_t n, bool plus, char *out, size_t *len, struct err *e)
{
    size_t w = 0;
    for (size_t i = 0; i < n; i++) {
        char c = s[i];
        if (c == '%') {
            int hi = n - i > 2 ? hex(s[i + 1]) : -1;
            int lo = hi >= 0 ? hex(s[i + 2]) : -1;
            if (lo < 0)
                return err_set(e, ERR_INVALID, "a percent escape is not two hex digits");
            c = (char)(hi << 4 | lo);
            i += 2;
        } else if (c == '+' && plus) {
            c = ' ';
        }
        if (c == '\0')
            return err_set(e, ERR_INVALID, "NUL is not allowed");
        out[w++] = c;
    }
    out[w] = '\0';
    *len = w;
    return 0;
}

size_t percent_encode(const char *s, char *out)
{
    static const char digits[] = "0123456789ABCDEF";
    size_t w = 0;
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
                     c == '.' || c == '_' || c == '~';
        if (plain) {
            out[w++] = (char)c;
        } else {
            out[w++] = '%';
            out[w++] = digits[c >> 4];
            out[w++] = digits[c & 15];
        }
    }
    out[w] = '\0';
    return w;
}

/* Decodes s[0..n) in place and adds it; the byte behind it may be overwritten. */
static int add_param(struct query *q, char *s, size_t n, struct err *e)
{
    char *eq = memchr(s, '=', n);
    size_t name_len = eq ? (size_t)(eq - s) : n;
    size_t value_len = eq ? n - name_len - 1 : 0;
    char *value = eq ? eq + 1 : s + n;
    if (q->n == QUERY_MAX_PARAMS)
        return err_set(e, ERR_INVALID, "more than %d query parameters", QUERY_MAX_PARAMS);
    /* The value first: ending the name with its NUL overwrites the '='; without one, both end in the same
     * place. */
    if (percent_decode(value, value_len, true, value, &value_len, e) != 0 ||
        percent_decode(s, name_len, true, s, &name_len, e) != 0)
        return err_prefix(e, "query");
    if (name_len == 0)
        return err_set(e, ERR_INVALID, "a query parameter has no name");
    if (!utf8_valid(s, name_len) || !utf8_valid(value, value_len))
        return err_set(e, ERR_INVALID, "the query is not UTF-8");
    if (query_get(q, s) != NULL)
        return err_set(e, ERR_INVALID, "query parameter %.64s is given twice", s);
    q->params[q->n++] = (struct query_param){s, value_len ? value : ""};
    return 0;
}

int query_parse(const char *raw, struct query *q, struct err *e)
{
    struct query out = {.n = 0, .text = NULL};
    size_t n = raw ? strlen(raw) : 0;
    if (n > 0) {
        out.text = mem_strndup(raw, n);
        char *s = out.text, *end = out.text + n;
        for (;;) {
            char *amp = memchr(s, '&', (size_t)(end - s));
            char *stop = amp ? amp : end;
            if (add_param(&out, s, (size_t)(stop - s), e) != 0) {
                free(out.text);
                return -1;
            }
            if (amp == NULL)
                break;
            s = amp + 1;
        }
    }
    *q = out;
    return 0;
}

void query_done(struct query *q)
{
    free(q->text);
    q->text = NULL;
    q->n = 0;
}

const char *query_get(const struct query *q, const char *name)
{
    for (size_t i = 0; i < q->n; i++) {
        if (strcmp(q->params[i].name, name) == 0)
            return q->params[i].value;
    }
    return NULL;
}

int query_check_known(const struct query *q, const char *const *list, size_t n, struct err *e)
{
    for (size_t i = 0; i < q->n; i++) {
        size_t k = 0;
        while (k < n && strcmp(q->params[i].name, list[k]) != 0)
            k++;
        if (k == n)
            return err_set(e, ERR_INVALID, "query parameter %.64s is not known here", q->params[i].name);
    }
    return 0;
}

int query_get_int(const struct query *q, const char *name, int64_t min, int64_t max, int64_t *out,
                  struct err *e)
{
    const char *s = query_get(q, name);
    if (s == NULL)
        return 0;
    const char *d = *s == '-' ? s + 1 : s;
    size_t digits = strspn(d, "0123456789");
    if (digits == 0 || digits > 18 || d[digits] != '\0' || (d[0] == '0' && (digits > 1 || d != s)))
        return err_set(e, ERR_INVALID, "%s must be a whole number", name);
    int64_t v = strtoll(s, NULL, 10);
    if (v < min || v > max)
        return err_set(e, ERR_INVALID, "%s must be between %lld and %lld", name, (long long)min,
                       (long long)max);
    *out = v;
    return 0;
}
