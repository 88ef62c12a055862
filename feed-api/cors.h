/* cors.h - which web pages of other origins may use the API (the Fetch standard's CORS protocol). Credentials
 * are in the Authorization header, which a page has to send on purpose; cookies are not used, so
 * Access-Control-Allow-Credentials is never answered. Loop's thread; the lists are read-only.
 */
#ifndef FEEDMILL_FEED_API_CORS_H
#define FEEDMILL_FEED_API_CORS_H

#include <stdbool.h>
#include "common/err.h"
#include "common/http_server.h"

#define CORS_ORIGINS_MAX 64

struct cors {
    bool any; /* "*" */
    size_t n;
    char *text; /* what the origins point into */
    const char *origins[CORS_ORIGINS_MAX];
};

/* cors_parse() reads "*", or origins by commas as browsers send them: "https://app.example.com,
 * http://localhost:3000"; "" is none. ERR_INVALID. */
int cors_parse(struct cors *out, const char *s, struct err *e) MUST_USE;
void cors_done(struct cors *c);

/* cors_allows() says whether pages of this origin may. */
bool cors_allows(const struct cors *c, const char *origin);

/* cors_apply() adds the fields to the coming answer, and answers a preflight by itself: true, and q is gone.
 */
bool cors_apply(const struct cors *c, struct http_request *q);

#endif
