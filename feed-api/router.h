/* router.h - the routes, each declared once as a table row; dispatch, credentials, methods, content types,
 * query parameters.
 *
 * The table is what openapi.yaml is tested against (`feed-api --routes` prints it). Unknown paths are 404,
 * known ones with another method 405 with Allow (HEAD goes wherever GET does), unknown or repeated query
 * parameters 400, a body of another type 415, a body over body_max 413 before it is read. Loop's thread.
 */
#ifndef FEEDMILL_ROUTER_H
#define FEEDMILL_ROUTER_H

#include "feed-api/call.h"

/* Who may call: a mask. ACCESS_OPEN needs no credential; ACCESS_ANY any valid one. ACCESS_OWN: a user token
 * whose user is {u}, the first parameter. ACCESS_PUBLISHER: any publisher key; the handler checks the name by
 * identity_publishes() and answers 403. ADMIN may everything. ACCESS_DEMO: the path is there with --demo
 * only. ACCESS_QUERY_TOKEN: the credential may be the query parameter access_token (a browser's EventSource
 * sends no header).
 */
enum {
    ACCESS_OPEN = 1,
    ACCESS_ANY = 2,
    ACCESS_ADMIN = 4,
    ACCESS_SERVICE = 8,
    ACCESS_PUBLISHER = 16,
    ACCESS_OWN = 32,
    ACCESS_DEMO = 64,
    ACCESS_QUERY_TOKEN = 128
};

struct route {
    const char *method; /* "GET" (HEAD included), "POST", ... */
    const char *path;   /* "/v1/users/{u}/feed"; a segment in braces is a parameter; names {u},{p},{t},{name}
                           are checked as names,   {id} as an item id, {kind} as a target kind, {x} as 1 to 256
                           bytes of UTF-8 */
    void (*handler)(struct call *c);
    unsigned access;
    const char *query; /* allowed parameters by commas, or NULL */
    const char *body;  /* accepted content types by commas ("application/json"), or NULL: no body is expected
                          (a non-empty one is 400) */
    size_t body_max;   /* bytes; 0 with body NULL */
    const char *operation; /* the operationId in openapi.yaml */
};

/* The tables, one a handlers file; ended by a row of NULLs. */
extern const struct route routes_stream[], routes_items[], routes_bulk[], routes_targets[], routes_graph[],
    routes_feed[], routes_events[], routes_keys[], routes_status[], routes_dead_letters[], routes_delivery[],
    routes_marker[], routes_explain[], routes_users[];

struct loop;

/* router_init() compiles the tables. Once a process, before loops run. ERR_INTERNAL: a row is wrong.
 * router_options() fills the callbacks of the options of a loop's server. */
int router_init(struct err *e) MUST_USE;
void router_options(struct loop *l, struct http_server_options *o);
void router_done(void);

/* router_credential() answers what a request offers as its Authorization ("Bearer ..."), NULL for none or for
 * more than one; free() it. */
char *router_credential(const struct http_request *q, const struct route *route);

/* router_print() writes a line a route to stdout, fields by single spaces: method, path, operation, access
 * (by commas), query (by commas or "-"), body types (by commas or
 * "-"), body_max in bytes. */
int router_print(struct err *e) MUST_USE;

#endif
