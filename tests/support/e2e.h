/* e2e.h - what end-to-end tests need around the HTTP API: a seeded random source, a client with a key, feeds
 * read to their end, metrics, and looks into Redis.
 *
 * Main thread only; what goes wrong fails the test.
 */
#ifndef FEEDMILL_TESTS_E2E_H
#define FEEDMILL_TESTS_E2E_H

#include <hiredis/hiredis.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include "common/ids.h"
#include "common/ts.h"
#include "tests/support/fixture.h"
#include "tests/support/rawhttp.h"

/* ---- random, the same for a seed on every machine (splitmix64) ---- */

struct rng {
    uint64_t state;
};

uint64_t rng_next(struct rng *r);
unsigned rng_below(struct rng *r, unsigned n); /* 0 to n-1; n at least 1 */
bool rng_percent(struct rng *r, unsigned percent);

/* e2e_env() answers the number in an environment variable, or otherwise. */
int64_t e2e_env(const char *name, int64_t otherwise);

/* e2e_choose_tests() runs only the tests that match $FEEDMILL_TEST ("p4_*"), if it is set: for a look at one
 * of them. */
void e2e_choose_tests(void);

/* ---- a client of one feed-api ---- */

struct e2e_api {
    uint16_t port;
    struct rawhttp *conn; /* opened when needed, and again when it broke */
    char auth[600];       /* the header line */
};

void e2e_api_init(struct e2e_api *a, struct fixture *f, const struct server *feed_api);
void e2e_api_done(struct e2e_api *a);
void e2e_api_drop(struct e2e_api *a); /* closes the connection: the process was killed */

/* e2e_try() sends a request and answers 0 with the reply, or -1 when no complete answer came. extra: more
 * header lines or NULL; body: a string or NULL, JSON unless extra names a Content-Type. */
int e2e_try(struct e2e_api *a, const char *method, const char *path, const char *extra, const char *body,
            struct reply *out);

/* e2e_call() is the same and fails the test without an answer, or with another status than the one expected
 * (0: any). e2e_json() answers the parsed body. */
void e2e_call(struct e2e_api *a, const char *method, const char *path, const char *body, int status,
              struct reply *out);
json_t *e2e_json(struct e2e_api *a, const char *method, const char *path, const char *body, int status);

/* e2e_send() writes a request to a connection of its own and does not wait for the answer; NULL when it can't
 * connect. */
struct rawhttp *e2e_send(struct e2e_api *a, const char *method, const char *path, const char *extra,
                         const char *body);

/* The position of a write: its header; the later of it and *last goes into *last. */
void e2e_position(const struct reply *r, ts_t *last);

/* ---- short forms of writes, each fails the test unless it is answered as done; they answer the position
 * ---- */

item_id e2e_publish(struct e2e_api *a, const char *publisher, const char *external, const char *title,
                    const char *topics, int64_t published_ms,
                    ts_t *position); /* external, topics (JSON) may be NULL, published_ms 0 is now */
ts_t e2e_write(struct e2e_api *a, const char *method, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- pages ---- */

struct e2e_seen {
    item_id id;
    int revision;
    char title[160]; /* "" with fields=ids */
    char publisher[80];
};

struct e2e_page {
    struct e2e_seen *items;
    size_t n;
    char *next; /* NULL at the end */
    char state[16];
    char reason[200];  /* "" for null */
    char fallback[64]; /* "" for null */
    char session[64];  /* "" when there is none */
    char newest[400];
    int64_t lag_ms;
};

/* e2e_page() reads one page of path with a query ("limit=3&fields=ids" or ""); cursor and position may be
 * NULL and 0. A page that is still rebuilding is asked for again for a while. */
void e2e_page(struct e2e_api *a, const char *path, const char *query, const char *cursor, ts_t position,
              struct e2e_page *out);
void e2e_page_parse(const struct reply *r, struct e2e_page *out); /* a 200 */
void e2e_page_done(struct e2e_page *p);

struct e2e_list {
    struct e2e_seen *items;
    size_t n;
    unsigned pages, partial; /* partial: pages that were not complete */
};

/* e2e_read_all() pages to the end. Each page takes one of the n apis by chance, a limit of 1 to most by
 * chance, and fields; it fails the test when ids do not strictly fall. position goes with the first page only
 * (0: none). */
void e2e_read_all(struct e2e_api *apis, size_t n, struct rng *r, const char *path, unsigned most,
                  const char *fields, ts_t position, struct e2e_list *out);
void e2e_list_done(struct e2e_list *l);

/* ---- metrics ---- */

/* e2e_metric() answers the value of a line of /metrics, such as "feedmill_rebuilds_total{result=\"done\"}".
 * e2e_metric_on() asks any of our processes by its port. Not there: 0. */
double e2e_metric(struct e2e_api *a, const char *line);
double e2e_metric_on(uint16_t port, const char *auth, const char *line);

/* ---- Redis, as seen from outside ---- */

redisContext *e2e_redis(struct fixture *f); /* a new connection; redisFree() */
redisReply *e2e_redis_do(redisContext *c, const char *fmt,
                         ...);                        /* fails the test on an error; freeReplyObject() */
ts_t e2e_progress(redisContext *c, const char *user); /* of the user's bucket; 0: no record */

/* What is in Redis of a timeline. Answers false if it is not there (both keys). */
struct e2e_timeline {
    ts_t r;
    bool ready;
    item_id floor;
    size_t entries, above; /* members but the floor; those above it */
};
bool e2e_timeline(redisContext *c, const char *user, struct e2e_timeline *out);

/* e2e_tail_reached() waits until the process has taken in the log up to position: what it adds to pages by
 * itself (pulled items) is as new then. False after about 20 s. */
bool e2e_tail_reached(struct e2e_api *a, ts_t position);

/* e2e_caught_up() waits until the user's bucket has progress of at least position; false after about 20 s. */
bool e2e_caught_up(redisContext *c, const char *user, ts_t position);

#endif
