#include "common/http_accept.h"

#include <string.h>
#include <strings.h>

#include "common/http_head.h"

#define UNSAID (-1)

static const char *skip_blanks(const char *s)
{
    return s + strspn(s, " \t");
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* 0, 1, 0.5, 0.123, 1.000 as thousandths; NULL: it is none of these. */
static const char *read_weight(const char *s, int *out)
{
    if (*s != '0' && *s != '1')
        return NULL;
    int w = (*s++ - '0') * 1000;
    if (*s == '.') {
        s++;
        for (int unit = 100; unit > 0 && is_digit(*s); unit /= 10)
            w += (*s++ - '0') * unit;
    }
    *out = w;
    return w <= 1000 && !is_digit(*s) ? s : NULL;
}

/* One element: its name and weight. NULL: it can't be read. */
static const char *read_coding(const char *s, const char **name, size_t *len, int *weight)
{
    *name = s;
    while (http_is_token_char((unsigned char)*s))
        s++;
    *len = (size_t)(s - *name);
    *weight = 1000;
    if (*len == 0)
        return NULL;
    s = skip_blanks(s);
    if (*s == ';') {
        s = skip_blanks(s + 1);
        if (strncasecmp(s, "q=", 2) != 0)
            return NULL;
        s = read_weight(s + 2, weight);
        if (s == NULL)
            return NULL;
        s = skip_blanks(s);
    }
    return *s == '\0' || *s == ',' ? s : NULL;
}

static bool is_named(const char *name, size_t len, const char *coding)
{
    return len == strlen(coding) && strncasecmp(name, coding, len) == 0;
}

bool http_accepts_gzip(const char *accept_encoding)
{
    int gzip = UNSAID, identity = UNSAID, any = UNSAID;
    if (accept_encoding == NULL)
        return false;
    for (const char *s = skip_blanks(accept_encoding); *s != '\0'; s = skip_blanks(s)) {
        const char *name;
        size_t len;
        int weight;
        if (*s == ',') {
            s++;
            continue;
        }
        s = read_coding(s, &name, &len, &weight);
        if (s == NULL)
            return false;
        if (is_named(name, len, "gzip") || is_named(name, len, "x-gzip"))
            gzip = weight > gzip ? weight : gzip;
        else if (is_named(name, len, "identity"))
            identity = weight;
        else if (is_named(name, len, "*"))
            any = weight;
    }
    if (gzip == UNSAID)
        gzip = any;
    return gzip > 0 && gzip >= identity;
}
