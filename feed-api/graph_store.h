/* graph_store.h - who follows and mutes what, in MongoDB.
 *
 * An edge is one document {_id: "<user> <target>"}: names hold no white space, so all edges of a user are one
 * range of _id and no second index is needed. Edges and the user's document (rev, counts) change in one
 * transaction, so that the log tells of one change a user, however many edges. Blocking: in a worker.
 */
#ifndef FEEDMILL_GRAPH_STORE_H
#define FEEDMILL_GRAPH_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include "common/err.h"
#include "common/mongo.h"
#include "common/names.h"

enum graph_table { GRAPH_FOLLOWS, GRAPH_MUTES };

enum graph_result {
    GRAPH_PENDING, /* not acted on yet */
    GRAPH_ADDED,
    GRAPH_REMOVED,
    GRAPH_UNCHANGED,
    GRAPH_OVER_CAP, /* it would be more than a user may have; nothing was done for this line */
};

struct graph_line {
    char user[NAME_MAX_BYTES + 1];
    char target[TARGET_TEXT_SIZE]; /* "p:name" */
    bool remove;
    int64_t since_ms;         /* add: ms since 1970, what `since` will say */
    enum graph_result result; /* out */
};

#define GRAPH_LINES_MAX     2000 /* lines of one transaction */
#define GRAPH_EDGE_KEY_SIZE (NAME_MAX_BYTES + 1 + TARGET_TEXT_SIZE)

/* graph_apply() does n lines (up to GRAPH_LINES_MAX) of any users in one transaction, in order, and sets
 * their results. cap: edges of this table that a user may have. strict: a single line over the cap fails the
 * whole with ERR_CONFLICT and nothing is changed; else such lines are GRAPH_OVER_CAP. Adding what is there
 * and removing what is not changes nothing. mongo_conn_time(c) is the position afterwards, also when nothing
 * changed. On failure all results are GRAPH_PENDING. ERR_CONFLICT, ERR_UNAVAILABLE, ERR_TIMEOUT. */
int graph_apply(struct mongo_conn *c, enum graph_table table, struct graph_line *lines, size_t n, int64_t cap,
                bool strict, struct err *e) MUST_USE;

struct graph_edge {
    char target[TARGET_TEXT_SIZE];
    int64_t since_ms;
};

/* graph_list() answers up to limit (1 to 1,000) edges of user after the target `after` ("" from the start),
 * in byte order of target, and in *n how many. */
int graph_list(struct mongo_conn *c, enum graph_table table, const char *user, const char *after,
               size_t limit, struct graph_edge *out, size_t *n, struct err *e) MUST_USE;

#endif
