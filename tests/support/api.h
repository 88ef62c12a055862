/* api.h - a whole stack for a test of the HTTP API: Redis, mongod, fanout, ranker and feed-api, with short
 * forms of requests.
 *
 * A request goes to feed-api with the stack's present credential (the admin key, until api_as()). What goes
 * wrong fails the test. Main thread only. See e2e.h for feeds read to their end.
 *
 *   struct api *a = api_start(API_ALL, "--timeline-entries", "8", NULL);
 *   struct reply r;
 *   api_post(a, "/v1/items", "{...}", &r);
 *   assert_int_equal(r.status, 201);
 *   reply_done(&r);
 *   json_decref(api_json(a, "GET", "/v1/users/ann/feed", NULL, 200));
 *   api_stop(a);
 */
#ifndef FEEDMILL_TESTS_API_H
#define FEEDMILL_TESTS_API_H

#include <jansson.h>
#include "tests/support/fixture.h"
#include "tests/support/rawhttp.h"

enum api_parts {
    API_ONLY = 0, /* Redis, mongod and feed-api */
    API_FANOUT = 1,
    API_RANKER = 2,
    API_ALL = 3,
};

struct api {
    struct fixture *fixture;
    struct server *feed_api, *fanout, *ranker; /* NULL when not asked for */
    int port;
    char auth[512]; /* the header line, ended by CRLF; "" for none */
};

/* api_start() starts the stack, ready to be used. Flags for feed-api follow, ended by NULL;
 * --timeline-entries is given to fanout too. */
struct api *api_start(unsigned parts, ...) __attribute__((sentinel));
void api_stop(struct api *a); /* NULL is fine */

/* api_group_setup(), _teardown(): cmocka group functions; *state is a stack with all parts.
 * api_group_setup_only(): API_ONLY. */
int api_group_setup(void **state);
int api_group_setup_only(void **state);
int api_group_teardown(void **state);

/* api_as() makes credential (a key or a token, NULL: the admin key, "": none) the one of the requests that
 * follow. */
void api_as(struct api *a, const char *credential);

/* api_request() sends; body NULL: none; it is application/json unless extra (more header lines, each ended by
 * CRLF, or NULL) names a Content-Type. */
void api_request(struct api *a, const char *method, const char *path, const char *extra, const char *body,
                 struct reply *out);
void api_get(struct api *a, const char *path, struct reply *out);
void api_post(struct api *a, const char *path, const char *json, struct reply *out);
void api_put(struct api *a, const char *path, const char *json, struct reply *out);
void api_patch(struct api *a, const char *path, const char *json, struct reply *out);
void api_delete(struct api *a, const char *path, struct reply *out);

/* api_json() sends, fails the test unless the answer has this status, and answers its body (json_decref()
 * it). api_status() answers the status only. */
json_t *api_json(struct api *a, const char *method, const char *path, const char *body, int status);
int api_status(struct api *a, const char *method, const char *path, const char *body);

/* api_key() makes a key as the admin: role "publisher" with names as a JSON array ("[\"daily\"]"), else names
 * NULL. id (may be NULL) gets 17 bytes. api_token() makes a user's token. Both are for the caller to free().
 */
char *api_key(struct api *a, const char *role, const char *names, char *id);
char *api_token(struct api *a, const char *user);

/* api_metric() answers the value of a line of feed-api's /metrics
 * ("feedmill_rebuilds_total{result=\"done\"}"); 0 when it is not there. */
double api_metric(struct api *a, const char *line);

#endif
