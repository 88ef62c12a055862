/* flights.h - writes of a driver that are under way at the same time, each on a connection of its own.
 *
 * They do not touch the same item or the same user, so that the model need not know in which order they are
 * done. What is acknowledged goes into the model; what is not may be sent again until it is.
 */
#ifndef FEEDMILL_TESTS_FLIGHTS_H
#define FEEDMILL_TESTS_FLIGHTS_H

#include "tests/support/driver.h"

#define FLIGHTS_MAX 8

struct flight {
    struct op op;
    struct rawhttp *conn;
};

struct flights {
    struct flight flights[FLIGHTS_MAX];
    size_t n;
};

/* flights_send() makes n ops (1 to FLIGHTS_MAX) and sends each to one of the driver's writers. */
void flights_send(struct driver *d, unsigned flags, size_t n, struct flights *f);

size_t flights_open(const struct flights *f); /* how many have no answer yet */

/* flights_read() takes the answers; what was not acknowledged (503, or no answer) stays in f. */
void flights_read(struct driver *d, struct flights *f);

/* flights_again() sends what stayed again, until it is acknowledged. */
void flights_again(struct driver *d, struct flights *f);

/* Whether nothing came on the connection yet. */
bool flights_unanswered(const struct rawhttp *conn);

#endif
