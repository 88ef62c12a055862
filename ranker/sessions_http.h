/* sessions_http.h - POST /v1/sessions, what feed-api asks; health, metrics and status beside it.
 *
 * {"user": name, "candidates": [id, ...] (1 to 1,000 strings), "profile"?: "default", "request_id"?: text,
 * "deadline_ms"?: 1 to 60,000} answers 200 {"session": 16 hex digits, "count": n}; 400 for anything else, 503
 * when it can't be done in time. For loopback and trusted networks only: there is no credential. On the
 * loop's thread; the work is done by workers.
 */
#ifndef FEEDMILL_RANKER_SESSIONS_HTTP_H
#define FEEDMILL_RANKER_SESSIONS_HTTP_H

#include "common/http_server.h"

/* The handlers for http_server_options; arg is the struct app. */
void sessions_http_head(struct http_request *r, void *app);
void sessions_http_handle(struct http_request *r, void *app);

#endif
