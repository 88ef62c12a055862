/* loop.h - one event loop and what belongs to it alone: a thread, connections of clients, a pipelined
 * connection to Redis, a client of the ranker.
 *
 * A process has --loops of them. The first one runs on the main thread and accepts; the others serve what it
 * hands over (http_server_spread()). A request stays on its loop, but for its time in a worker. What all
 * loops use (caches, the tail, auth, metrics) is in struct app and may be used from any thread.
 */
#ifndef FEEDMILL_LOOP_H
#define FEEDMILL_LOOP_H

#include <event2/event.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/queue.h>
#include "common/err.h"

struct app;
struct feed;
struct http_client;
struct http_server;
struct http_server_options;
struct redis_async;
struct wake;
struct workers;

#define LOOPS_MAX 64

struct loop {
    struct app *app;
    unsigned number;
    struct event_base *base;
    struct redis_async *redis;
    struct http_client *ranker; /* NULL when none is configured */
    struct workers *workers;    /* this loop's way to the threads that all loops share */
    struct http_server *http;
    TAILQ_HEAD(, feed) waiting; /* pages that wait for the next look at a position */

    /* loop.c's own */
    pthread_t thread;
    bool runs;
    struct wake *order; /* there are orders */
    atomic_uint orders;
};

/* loop_init() makes the base and what does not depend on others; loop_start() has it run on a thread of its
 * own. loop_done() frees; the loop does not run (any more). */
int loop_init(struct loop *l, struct app *app, unsigned number, struct err *e) MUST_USE;
int loop_start(struct loop *l, struct err *e) MUST_USE;
void loop_done(struct loop *l);

/* loop_tell() has the loop do something, from any thread: end its requests (within --drain) and itself after
 * them, or itself at once. loop_join() waits for the end of one that was started. */
enum loop_order { LOOP_DRAIN = 1, LOOP_END = 2 };
void loop_tell(struct loop *l, enum loop_order order);
void loop_join(struct loop *l);

#endif
