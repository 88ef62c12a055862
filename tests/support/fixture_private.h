/* fixture_private.h - the inside of a fixture, shared by fixture.c and fixture_processes.c. */
#ifndef FEEDMILL_TESTS_FIXTURE_PRIVATE_H
#define FEEDMILL_TESTS_FIXTURE_PRIVATE_H

#include <sys/types.h>
#include "tests/support/fixture.h"

struct fixture_entry {
    struct server *server;
    int port; /* --listen, or mongod's; 0 for Redis */
    bool ranker;
};

struct fixture {
    char *dir;
    pid_t owner;           /* the process that made it: a fork does not remove it */
    struct fixture *older; /* fixtures alive at the same time */
    struct server *redis, *mongod;
    char *redis_address;
    char *uri, *database;
    unsigned databases; /* named so far */
    char *admin_key;
    struct fixture_entry *entries; /* in order of start */
    size_t n;
};

struct fixture_entry *fixture_add(struct fixture *f, struct server *s, int port);
void fixture_wait(struct fixture *f, struct server *s);

/* fixture_stop_process() ends one of ours with SIGTERM. It answers false, and says why on stderr, if it did
 * not end cleanly, now or before: a sanitizer's report, a crash, a drain that takes too long. Killed by the
 * test (SIGKILL) is clean. */
bool fixture_stop_process(struct server *s);

#endif
