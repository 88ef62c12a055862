/* mongo_internal.h - what the mongo_*.c files share. Nobody else includes it. */
#ifndef FEEDMILL_MONGO_INTERNAL_H
#define FEEDMILL_MONGO_INTERNAL_H

#include "common/mongo.h"

struct mongo_conn {
    struct mongo *m;
    mongoc_client_t *client;
    mongoc_client_session_t *session; /* never NULL once the conn was handed out */
    mongoc_collection_t *coll[COLL_N];
    int64_t deadline_ms; /* monotonic; 0: the default for each operation */
    ts_t advanced_to;    /* the last time asked for by mongo_conn_after() */
    ts_t before_advance; /* the session's time before that */
    bool session_bad;    /* the server does not know advanced_to */
    bool in_txn;
    bool txn_transient; /* the transaction failed in a way that asks for another try */
};

/* mongo_mend() replaces a session that was marked so. */
void mongo_mend(struct mongo_conn *c);

/* mongo_session_poisoned() marks the session of the conn that this thread used last as one whose time the
 * server does not know. */
void mongo_session_poisoned(void);

#endif
