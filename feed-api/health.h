/* health.h - brings the process up, and knows how the servers that it depends on are, and by pressure.h how
 * far fanout is.
 *
 * One thread. First it does, again and again until it works, what has to be done in MongoDB before a request
 * can be answered: collections and indexes, the key that signs cursors, the admin key; then the loop sets
 * app->up. From then on it asks Redis and MongoDB twice a second how they are. The ranker is asked from the
 * first loop, once a second. health_get() may be called on any thread.
 */
#ifndef FEEDMILL_HEALTH_H
#define FEEDMILL_HEALTH_H

#include <stdbool.h>
#include <stdint.h>
#include "common/err.h"

struct app;
struct health;

enum health_server { HEALTH_REDIS, HEALTH_MONGODB, HEALTH_RANKER, HEALTH_SERVERS };

struct health_state {
    bool served;      /* it has answered once */
    bool up;          /* it answered when it was asked last */
    int64_t since_ms; /* wall clock of the last turn of `up`; 0: none yet */
    char version[32]; /* "" until known */
    char error[160];  /* why it is not up, "" when it is */
};

/* health_start() begins; what can't work by trying again (a database made with other settings, an unreadable
 * admin key file) ends the loop with app->failed set. On the loop's thread. */
int health_start(struct health **out, struct app *app, struct err *e) MUST_USE;
void health_stop(struct health *h); /* NULL is a no-op */

void health_get(const struct health *h, enum health_server which, struct health_state *out);
bool health_is_down(const struct health *h, enum health_server which); /* it has served, and does not now */
const char *health_name(enum health_server which);                     /* "redis", "mongodb", "ranker" */

#endif
