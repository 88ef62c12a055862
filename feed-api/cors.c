#include "feed-api/cors.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

#define METHODS "GET, HEAD, POST, PUT, PATCH, DELETE"
#define HEADERS                                                                                              \
    "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID, X-Request-Id"
#define EXPOSED                                                                                              \
    "ETag, Feed-Position, Location, RateLimit, RateLimit-Policy, Retry-After, WWW-Authenticate, "            \
    "X-Request-Id"
#define MAX_AGE_S "7200"

/* scheme://host or scheme://host:port in small letters, as browsers write it: compared as text, anything else
 * would never match. */
static bool is_origin(const char *s)
{
    const char *host = strstr(s, "://");
    if (host == NULL || (strncmp(s, "http://", 7) != 0 && strncmp(s, "https://", 8) != 0))
        return false;
    host += 3;
    return *host != '\0' && strspn(host, "abcdefghijklmnopqrstuvwxyz0123456789.-_:[]") == strlen(host) &&
           *host != ':';
}

static char *trim(char *s)
{
    s += strspn(s, " \t");
    size_t n = strlen(s);
    while (n > 0 && (s[n - 1] == ' ' || s[n - 1] == '\t'))
        s[--n] = '\0';
    return s;
}

int cors_parse(struct cors *out, const char *s, struct err *e)
{
    struct cors c = {.any = strcmp(s, "*") == 0};
    if (c.any || s[strspn(s, " \t")] == '\0') {
        *out = c;
        return 0;
    }
    c.text = mem_strdup(s);
    char *rest = c.text;
    for (char *part; (part = strsep(&rest, ",")) != NULL;) {
        part = trim(part);
        int rc = 0;
        if (!is_origin(part))
            rc = err_set(e, ERR_INVALID, "\"%.80s\" is no origin (such as https://app.example.com)", part);
        else if (c.n == CORS_ORIGINS_MAX)
            rc = err_set(e, ERR_INVALID, "more than %d origins", CORS_ORIGINS_MAX);
        if (rc < 0) {
            cors_done(&c);
            return -1;
        }
        c.origins[c.n++] = part;
    }
    *out = c;
    return 0;
}

void cors_done(struct cors *c)
{
    free(c->text);
    c->text = NULL;
    c->n = 0;
}

bool cors_allows(const struct cors *c, const char *origin)
{
    for (size_t i = 0; i < c->n; i++) {
        if (strcmp(c->origins[i], origin) == 0)
            return true;
    }
    return c->any;
}

bool cors_apply(const struct cors *c, struct http_request *q)
{
    if (!c->any && c->n == 0)
        return false;
    if (!c->any)
        http_header_add(q, "Vary", "Origin"); /* also without: a cache must not give that answer to a page */
    const char *origin = http_request_header(q, "Origin");
    if (origin == NULL || http_request_header_count(q, "Origin") > 1 || !cors_allows(c, origin))
        return false;
    http_header_add(q, "Access-Control-Allow-Origin", c->any ? "*" : origin);
    if (q->method != HTTP_OPTIONS || http_request_header(q, "Access-Control-Request-Method") == NULL) {
        http_header_add(q, "Access-Control-Expose-Headers", EXPOSED);
        return false;
    }
    http_header_add(q, "Access-Control-Allow-Methods", METHODS);
    http_header_add(q, "Access-Control-Allow-Headers", HEADERS);
    http_header_add(q, "Access-Control-Max-Age", MAX_AGE_S);
    http_reply(q, 204, NULL, NULL, 0);
    return true;
}
