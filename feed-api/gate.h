/* gate.h - the door of feed-api: whose request it is behind proxies, which web pages may ask (cors.h), how
 * often somebody may ask (rate_limit.h), and what is logged of it afterwards (access_log.h, slow requests).
 *
 * The router leads each request through it: gate_enter() before anything else, gate_admit() once it is known
 * who asks, gate_done() when it is answered. One for all loops; what they share has locks of its own, so each
 * function may be called on any loop's thread.
 */
#ifndef FEEDMILL_FEED_API_GATE_H
#define FEEDMILL_FEED_API_GATE_H

#include <stdbool.h>
#include "common/err.h"
#include "common/http_server.h"
#include "common/metrics.h"
#include "common/peers.h"
#include "feed-api/auth.h"
#include "feed-api/config.h"

struct gate;

/* gate_new() takes what it needs out of cfg. ERR_INVALID for an option that can't be, ERR_UNAVAILABLE when
 * the access log can't be opened. gate_free() after the servers; NULL is a no-op. */
int gate_new(struct gate **out, const struct feed_config *cfg, struct metrics *m, struct err *e) MUST_USE;
void gate_free(struct gate *g);

/* gate_peers() is what counts the connections of each address, for the servers; NULL when that has no cap. */
struct peers *gate_peers(struct gate *g);

/* gate_enter() makes q->client the client behind trusted proxies, adds the fields for web pages of other
 * origins, answers their preflights, and 429 to an address that asks too often (but for health checks).
 * False: it has answered. A second call for the same request does nothing. */
bool gate_enter(struct gate *g, struct http_request *q);

/* gate_admit() notes who asks, and answers 429 when his bucket is empty: false. Answers of limited ones say
 * how much is left (RateLimit, RateLimit-Policy: draft-ietf-httpapi-ratelimit-headers-10). Once a request:
 * later calls answer true. */
bool gate_admit(struct gate *g, struct http_request *q, const struct identity *who);

/* Where the time of a request went, for the log of slow ones; what is not of these went by on the loop. */
enum gate_span {
    SPAN_QUEUE,  /* waiting for a worker */
    SPAN_WORKER, /* at work in one: MongoDB, Redis */
    SPAN_REDIS,  /* waiting for Redis on the loop */
    SPAN_RANKER, /* waiting for the ranker */
};
void gate_spent(struct http_request *q, enum gate_span span, int64_t us);

/* gate_done() logs. op: the operation's name, or NULL. */
void gate_done(struct gate *g, const struct http_request *q, const char *op, int status, size_t bytes,
               int64_t us);

#endif
