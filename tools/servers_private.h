/* servers_private.h - what the parts of servers.h share: a child with a probe of its kind. */
#ifndef FEEDMILL_TOOLS_SERVERS_PRIVATE_H
#define FEEDMILL_TOOLS_SERVERS_PRIVATE_H

#include "tools/servers.h"

struct server {
    char *name;
    char *log_path;
    char **argv; /* NULL-terminated, all heap */
    pid_t pid;   /* 0 when not running */
    int status;  /* of the last end, as wait(2) gives it */

    int (*probe)(struct server *s, struct err *e); /* NULL: ready when it runs */
    int port;                                      /* HTTP, or mongod */
    char *path;                                    /* of the HTTP probe, or of the Redis socket */
};

#endif
