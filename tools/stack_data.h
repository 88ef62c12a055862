/* stack_data.h - the directory of a stack: who holds it, what lies where, which internal ports it uses.
 *
 *   stack.lock  held with flock(2) while a stack runs on it     admin.key, jwt.keys  written by feed-api
 *   ports       the internal ports, kept between runs           redis/ mongod/ logs/
 *
 * Main thread of tools/main_stack.c.
 */
#ifndef FEEDMILL_TOOLS_STACK_DATA_H
#define FEEDMILL_TOOLS_STACK_DATA_H

#include <stdint.h>
#include "common/err.h"

enum stack_port { STACK_PORT_MONGOD, STACK_PORT_FANOUT, STACK_PORT_RANKER, STACK_PORTS };

struct stack_data {
    char *dir; /* absolute */
    int lock_fd;
    int ports[STACK_PORTS];
};

/* stack_data_open() makes the directories, takes the lock, checks that min_free bytes are free, and chooses
 * the ports: those of the last run where they are free, others where not. ERR_INVALID: the path can't be
 * used; ERR_BUSY: another stack runs on it; ERR_UNAVAILABLE: the disk. The caller ends with
 * stack_data_close() in any case. */
int stack_data_open(struct stack_data *d, const char *dir, int64_t min_free, struct err *e) MUST_USE;
void stack_data_close(struct stack_data *d);

/* stack_data_addresses() answers where the databases of the stack on dir are, as --mongodb-uri and --redis
 * take it, without touching anything; both for the caller to free. ERR_NOT_FOUND: no stack was ever started
 * there. */
int stack_data_addresses(const char *dir, char **mongodb_uri, char **redis, struct err *e) MUST_USE;

/* stack_data_path() answers "<dir>/<name>", for the caller to free. */
char *stack_data_path(const struct stack_data *d, const char *name);

#endif
