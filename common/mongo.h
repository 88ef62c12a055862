/* mongo.h - MongoDB: the truth. Clients, their sessions, and the logical time of what they did.
 *
 * A struct mongo is a cache of clients for one process (any thread); a struct mongo_conn is one client with
 * one causally consistent session, checked out by one thread at a time. All reads are majority reads in that
 * session, all writes w:majority, everything has a server-side and a socket deadline. The session's
 * operationTime only grows: what was read or written on a conn is seen by its later reads.
 *
 * libmongoc blocks: never use this on an event loop's thread.
 */
#ifndef FEEDMILL_MONGO_H
#define FEEDMILL_MONGO_H

#include <mongoc/mongoc.h>
#include <stdbool.h>
#include "common/err.h"
#include "common/ts.h"

struct mongo;
struct mongo_conn;

struct mongo_options {
    const char
        *uri; /* mongodb://...; time-outs missing in it are set: connect 1 s, selection 2 s, socket 5 s */
    const char *database; /* NULL: the one in the uri, else "feedmill" */
    const char *app_name;
    unsigned pool_size; /* clients at most, 1 to 1000 */
};

enum mongo_collection {
    COLL_ITEMS,
    COLL_FOLLOWS,
    COLL_MUTES,
    COLL_USERS,
    COLL_TARGETS,
    COLL_API_KEYS,
    COLL_SETTINGS,
    COLL_SHARES,
    COLL_MEMBERS,
    COLL_HEARTBEAT,
    COLL_DEAD_LETTERS,
    COLL_RECEIPTS,
    COLL_MARKERS,
    COLL_TOKEN_ENDS,
    COLL_N
};

const char *mongo_collection_name(enum mongo_collection c);

/* mongo_new() parses the uri and makes the pool; it does not connect. ERR_INVALID. */
int mongo_new(struct mongo **out, const struct mongo_options *o, struct err *e) MUST_USE;
void mongo_free(struct mongo *m); /* all conns must be back */
const char *mongo_database(const struct mongo *m);

/* mongo_conn_get() takes a client, waiting at most 2 s for a free one (ERR_BUSY). mongo_conn_put() gives it
 * back; conn NULL is fine. */
int mongo_conn_get(struct mongo *m, struct mongo_conn **out, struct err *e) MUST_USE;
void mongo_conn_put(struct mongo_conn *c);

/* mongo_conn_time() is the operationTime of the newest thing this conn saw; after a write: its position. 0
 * before the first. */
ts_t mongo_conn_time(const struct mongo_conn *c);

/* mongo_conn_after() makes later reads on c see everything at or before t (afterClusterTime). t must be a
 * time that MongoDB gave out (see mongo_time_known); 0 does nothing. */
void mongo_conn_after(struct mongo_conn *c, ts_t t);

/* mongo_conn_fresh() asks the primary for its present operationTime (a ping), so that later reads on c see
 * every write that was acknowledged before the call; *now (may be NULL) is that time. ERR_UNAVAILABLE,
 * ERR_TIMEOUT. */
int mongo_conn_fresh(struct mongo_conn *c, ts_t *now, struct err *e) MUST_USE;

/* Deadline of the operations that follow on c: maxTimeMS and the give-up time of retries, in ms from now (1
 * to 600,000); default 2,000 each. */
void mongo_conn_deadline(struct mongo_conn *c, int64_t ms);
int64_t mongo_conn_left_ms(const struct mongo_conn *c); /* what is left of it, at least 1 */

mongoc_collection_t *mongo_coll(struct mongo_conn *c, enum mongo_collection which); /* owned by c, cached */
mongoc_client_t *mongo_client(struct mongo_conn *c);
const char *mongo_conn_database(const struct mongo_conn *c);

/* mongo_read_opts() appends session, maxTimeMS to opts (caller's bson_t, initialised). Read concern majority
 * is the client's default. */
void mongo_read_opts(struct mongo_conn *c, bson_t *opts);
/* mongo_write_opts() appends the session; write concern majority with wtimeout is the client's default. */
void mongo_write_opts(struct mongo_conn *c, bson_t *opts);

/* mongo_err() turns a libmongoc error (and the server's reply, may be NULL) into ours: ERR_UNAVAILABLE for
 * network, selection, not-primary, shutdown; ERR_TIMEOUT for maxTimeMS, wtimeout; ERR_CONFLICT for a
 * duplicate key; ERR_LOG_LOST for ChangeStreamHistoryLost (286) and kin; else ERR_INTERNAL. Returns -1. */
int mongo_err(struct err *e, const bson_error_t *be, const bson_t *reply, const char *what);

/* mongo_transaction() runs fn in a transaction on c's session, and again on TransientTransactionError until
 * the deadline; the commit is repeated on UnknownTransactionCommitResult. fn uses mongo_txn_opts() instead of
 * mongo_write_opts()/mongo_read_opts(), returns 0 to commit, -1 with *e set to abort; when libmongoc reported
 * the error, fn sets it by mongo_err(), which remembers the labels in c. After success mongo_conn_time(c) is
 * the position. */
typedef int (*mongo_txn_fn)(struct mongo_conn *c, void *arg, struct err *e);
int mongo_transaction(struct mongo_conn *c, mongo_txn_fn fn, void *arg, struct err *e) MUST_USE;
void mongo_txn_opts(struct mongo_conn *c, bson_t *opts);
int mongo_txn_err(struct mongo_conn *c, struct err *e, const bson_error_t *be, const bson_t *reply,
                  const char *what);

/* mongo_schema_ensure() creates collections and indexes, checks settings (bucket count fixed at first start);
 * idempotent. ERR_UNAVAILABLE, ERR_CONFLICT when the database was made with other settings. */
int mongo_schema_ensure(struct mongo_conn *c, struct err *e) MUST_USE;

/* mongo_setting_secret() answers the 32-byte secret called name from `settings`, made at first use by whoever
 * comes first. */
int mongo_setting_secret(struct mongo_conn *c, const char *name, unsigned char out[32],
                         struct err *e) MUST_USE;

/* bson helpers: read a field; they answer false (or NULL) when it is absent or of another type. */
bool mongo_get_i64(const bson_t *d, const char *key, int64_t *out); /* int32, int64, date (ms) */
const char *mongo_get_str(const bson_t *d, const char *key,
                          size_t *len /* may be NULL */);       /* points into d */
bool mongo_get_ts(const bson_t *d, const char *key, ts_t *out); /* a BSON timestamp */

#endif
