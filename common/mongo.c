#include "common/mongo.h"

#include "common/clock.h"
#include "common/mem.h"
#include "common/mongo_internal.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CONNECT_MS        1000
#define SELECTION_MS      2000
#define SOCKET_MS         5000
#define WRITE_CONCERN_MS  4000 /* below the socket's, so that the server's answer is heard */
#define DEADLINE_MS       2000
#define DEADLINE_MAX_MS   600000
#define GET_WAIT_MS       2000
#define POOL_MAX          1000
#define DATABASE_NAME_MAX 63

struct mongo {
    mongoc_client_pool_t *pool;
    char *database;
    unsigned size;
    pthread_mutex_t lock;
    pthread_cond_t freed;
    unsigned out;             /* under lock: conns that exist, idle or not */
    unsigned n_idle;          /* under lock */
    struct mongo_conn **idle; /* under lock; the last one given back is the first one taken */
};

/* The conn whose options were asked for last by this thread: mongo_err() has no conn to tell that its
 * session's time is one that the server does not know. */
static _Thread_local struct mongo_conn *last_used;

static const char *const collection_names[COLL_N] = {
    [COLL_ITEMS] = "items",
    [COLL_FOLLOWS] = "follows",
    [COLL_MUTES] = "mutes",
    [COLL_USERS] = "users",
    [COLL_TARGETS] = "targets",
    [COLL_API_KEYS] = "api_keys",
    [COLL_SETTINGS] = "settings",
    [COLL_SHARES] = "shares",
    [COLL_MEMBERS] = "members",
    [COLL_HEARTBEAT] = "heartbeat",
    [COLL_DEAD_LETTERS] = "dead_letters",
    [COLL_RECEIPTS] = "receipts",
    [COLL_MARKERS] = "markers",
    [COLL_TOKEN_ENDS] = "token_ends",
};

const char *mongo_collection_name(enum mongo_collection c)
{
    assert((unsigned)c < COLL_N);
    return collection_names[c];
}

/* ---- the cache of clients ---- */

static void init_driver(void)
{
    mongoc_init();
}

static void set_default_ms(mongoc_uri_t *uri, const char *option, int32_t ms)
{
    if (!mongoc_uri_has_option(uri, option))
        mongoc_uri_set_option_as_int32(uri, option, ms);
}

static void set_defaults(mongoc_uri_t *uri, const struct mongo_options *o)
{
    set_default_ms(uri, MONGOC_URI_CONNECTTIMEOUTMS, CONNECT_MS);
    set_default_ms(uri, MONGOC_URI_SERVERSELECTIONTIMEOUTMS, SELECTION_MS);
    set_default_ms(uri, MONGOC_URI_SOCKETTIMEOUTMS, SOCKET_MS);
    mongoc_uri_set_option_as_int32(uri, MONGOC_URI_MAXPOOLSIZE, (int32_t)o->pool_size);
    mongoc_uri_set_option_as_int32(uri, MONGOC_URI_WAITQUEUETIMEOUTMS, GET_WAIT_MS);
    mongoc_uri_set_option_as_bool(uri, MONGOC_URI_RETRYWRITES, true);
    mongoc_uri_set_option_as_bool(uri, MONGOC_URI_RETRYREADS, true);
    if (o->app_name != NULL)
        mongoc_uri_set_appname(uri, o->app_name);

    mongoc_read_concern_t *rc = mongoc_read_concern_new();
    mongoc_read_concern_set_level(rc, MONGOC_READ_CONCERN_LEVEL_MAJORITY);
    mongoc_uri_set_read_concern(uri, rc);
    mongoc_read_concern_destroy(rc);
    mongoc_write_concern_t *wc = mongoc_write_concern_new();
    mongoc_write_concern_set_wmajority(wc, WRITE_CONCERN_MS);
    mongoc_uri_set_write_concern(uri, wc);
    mongoc_write_concern_destroy(wc);
    mongoc_read_prefs_t *rp = mongoc_read_prefs_new(MONGOC_READ_PRIMARY);
    mongoc_uri_set_read_prefs_t(uri, rp);
    mongoc_read_prefs_destroy(rp);
}

static int choose_database(const struct mongo_options *o, const mongoc_uri_t *uri, const char **out,
                           struct err *e)
{
    const char *name = o->database;
    if (name == NULL)
        name = mongoc_uri_get_database(uri);
    if (name == NULL)
        name = "feedmill";
    size_t n = strlen(name);
    if (n == 0 || n > DATABASE_NAME_MAX || strpbrk(name, "/\\. \"$*<>:|?") != NULL)
        return err_set(e, ERR_INVALID, "MongoDB: a database can't be called '%s'", name);
    *out = name;
    return 0;
}

int mongo_new(struct mongo **out, const struct mongo_options *o, struct err *e)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, init_driver);
    assert(o->pool_size >= 1 && o->pool_size <= POOL_MAX);

    bson_error_t be;
    mongoc_uri_t *uri = mongoc_uri_new_with_error(o->uri, &be);
    if (uri == NULL)
        return err_set(e, ERR_INVALID, "MongoDB address: %s", be.message);
    const char *database = NULL;
    if (choose_database(o, uri, &database, e) < 0) {
        mongoc_uri_destroy(uri);
        return -1;
    }
    set_defaults(uri, o);
    mongoc_client_pool_t *pool = mongoc_client_pool_new_with_error(uri, &be);
    if (pool == NULL) {
        mongoc_uri_destroy(uri);
        return err_set(e, ERR_INVALID, "MongoDB address: %s", be.message);
    }
    mongoc_client_pool_set_error_api(pool, MONGOC_ERROR_API_VERSION_2);

    struct mongo *m = mem_zero(1, sizeof *m);
    m->pool = pool;
    m->database = mem_strdup(database);
    m->size = o->pool_size;
    m->idle = mem_zero(m->size, sizeof *m->idle);
    pthread_mutex_init(&m->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&m->freed, &attr);
    pthread_condattr_destroy(&attr);
    mongoc_uri_destroy(uri);
    *out = m;
    return 0;
}

static void conn_free(struct mongo_conn *c)
{
    if (last_used == c)
        last_used = NULL;
    for (int i = 0; i < COLL_N; i++)
        if (c->coll[i] != NULL)
            mongoc_collection_destroy(c->coll[i]);
    if (c->session != NULL)
        mongoc_client_session_destroy(c->session);
    mongoc_client_pool_push(c->m->pool, c->client);
    free(c);
}

void mongo_free(struct mongo *m)
{
    if (m == NULL)
        return;
    assert(m->n_idle == m->out);
    for (unsigned i = 0; i < m->n_idle; i++)
        conn_free(m->idle[i]);
    mongoc_client_pool_destroy(m->pool);
    pthread_cond_destroy(&m->freed);
    pthread_mutex_destroy(&m->lock);
    free(m->idle);
    free(m->database);
    free(m);
}

const char *mongo_database(const struct mongo *m)
{
    return m->database;
}

/* ---- conns ---- */

static mongoc_client_session_t *new_session(struct mongo_conn *c, struct err *e)
{
    bson_error_t be;
    mongoc_session_opt_t *opts = mongoc_session_opts_new();
    mongoc_session_opts_set_causal_consistency(opts, true);
    mongoc_client_session_t *s = mongoc_client_start_session(c->client, opts, &be);
    mongoc_session_opts_destroy(opts);
    if (s == NULL)
        mongo_err(e, &be, NULL, "starting a session");
    return s;
}

/* A session whose time the server does not know fails each of its reads. It is replaced by one that goes on
 * at the last time that a server gave out. Should there be no new one to be had, the old one stays: no read
 * is ever made without its causality. */
void mongo_mend(struct mongo_conn *c)
{
    if (!c->session_bad || c->in_txn)
        return;
    mongoc_client_session_t *s = new_session(c, NULL);
    if (s == NULL)
        return;
    mongoc_client_session_destroy(c->session);
    c->session = s;
    c->session_bad = false;
    if (c->before_advance != 0)
        mongoc_client_session_advance_operation_time(s, ts_seconds(c->before_advance),
                                                     ts_increment(c->before_advance));
    c->advanced_to = 0;
}

static int conn_new(struct mongo *m, struct mongo_conn **out, struct err *e)
{
    mongoc_client_t *client = mongoc_client_pool_pop(m->pool);
    if (client == NULL)
        return err_set(e, ERR_BUSY, "MongoDB: no free client");
    struct mongo_conn *c = mem_zero(1, sizeof *c);
    c->m = m;
    c->client = client;
    c->session = new_session(c, e);
    if (c->session == NULL) {
        conn_free(c);
        return -1;
    }
    *out = c;
    return 0;
}

/* Waits for an idle conn (answers it) or for the right to make one (answers NULL with 0). */
static int take_place(struct mongo *m, struct mongo_conn **out, struct err *e)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += GET_WAIT_MS / 1000;
    int rc = 0;
    struct mongo_conn *c = NULL;
    pthread_mutex_lock(&m->lock);
    while (m->n_idle == 0 && m->out == m->size && rc != ETIMEDOUT)
        rc = pthread_cond_timedwait(&m->freed, &m->lock, &until);
    if (m->n_idle > 0)
        c = m->idle[--m->n_idle];
    else if (m->out < m->size)
        m->out++;
    else
        rc = -1;
    pthread_mutex_unlock(&m->lock);
    if (rc == -1)
        return err_set(e, ERR_BUSY, "MongoDB: all %u clients are taken", m->size);
    *out = c;
    return 0;
}

int mongo_conn_get(struct mongo *m, struct mongo_conn **out, struct err *e)
{
    struct mongo_conn *c = NULL;
    if (take_place(m, &c, e) < 0)
        return -1;
    if (c == NULL && conn_new(m, &c, e) < 0) {
        pthread_mutex_lock(&m->lock);
        m->out--;
        pthread_cond_signal(&m->freed);
        pthread_mutex_unlock(&m->lock);
        return -1;
    }
    c->deadline_ms = 0;
    last_used = c;
    *out = c;
    return 0;
}

void mongo_conn_put(struct mongo_conn *c)
{
    if (c == NULL)
        return;
    assert(!c->in_txn);
    struct mongo *m = c->m;
    if (last_used == c)
        last_used = NULL;
    pthread_mutex_lock(&m->lock);
    assert(m->n_idle < m->out);
    m->idle[m->n_idle++] = c;
    pthread_cond_signal(&m->freed);
    pthread_mutex_unlock(&m->lock);
}

ts_t mongo_conn_time(const struct mongo_conn *c)
{
    uint32_t seconds, increment;
    mongoc_client_session_get_operation_time(c->session, &seconds, &increment);
    ts_t t = ts_make(seconds, increment);
    return c->session_bad && t == c->advanced_to ? c->before_advance : t;
}

void mongo_conn_after(struct mongo_conn *c, ts_t t)
{
    mongo_mend(c);
    ts_t now = mongo_conn_time(c);
    if (t <= now)
        return;
    if (now != c->advanced_to) /* a time that a server gave out, or none */
        c->before_advance = now;
    c->advanced_to = t;
    mongoc_client_session_advance_operation_time(c->session, ts_seconds(t), ts_increment(t));
}

int mongo_conn_fresh(struct mongo_conn *c, ts_t *now, struct err *e)
{
    bson_t *cmd = BCON_NEW("ping", BCON_INT32(1));
    bson_t opts = BSON_INITIALIZER, reply;
    bson_error_t be;
    mongo_read_opts(c, &opts);
    bool ok = mongoc_client_command_with_opts(c->client, "admin", cmd, NULL, &opts, &reply, &be);
    int rc = 0;
    ts_t t = 0;
    if (!ok)
        rc = mongo_err(e, &be, &reply, "ping");
    else if (!mongo_get_ts(&reply, "operationTime", &t))
        rc = err_set(e, ERR_INTERNAL, "MongoDB: no operationTime in the answer; is it a replica set?");
    else if (now != NULL)
        *now = t;
    bson_destroy(cmd);
    bson_destroy(&opts);
    bson_destroy(&reply);
    return rc;
}

void mongo_conn_deadline(struct mongo_conn *c, int64_t ms)
{
    assert(ms >= 1 && ms <= DEADLINE_MAX_MS);
    c->deadline_ms = clock_mono_ms() + ms;
}

int64_t mongo_conn_left_ms(const struct mongo_conn *c)
{
    if (c->deadline_ms == 0)
        return DEADLINE_MS;
    int64_t left = c->deadline_ms - clock_mono_ms();
    return left > 1 ? left : 1;
}

mongoc_collection_t *mongo_coll(struct mongo_conn *c, enum mongo_collection which)
{
    assert((unsigned)which < COLL_N);
    if (c->coll[which] == NULL)
        c->coll[which] = mongoc_client_get_collection(c->client, c->m->database, collection_names[which]);
    return c->coll[which];
}

mongoc_client_t *mongo_client(struct mongo_conn *c)
{
    return c->client;
}

const char *mongo_conn_database(const struct mongo_conn *c)
{
    return c->m->database;
}

void mongo_write_opts(struct mongo_conn *c, bson_t *opts)
{
    mongo_mend(c);
    last_used = c;
    bson_error_t be;
    bool ok = mongoc_client_session_append(c->session, opts, &be);
    assert(ok); /* only a session that was ended can't be appended */
    (void)ok;
}

void mongo_read_opts(struct mongo_conn *c, bson_t *opts)
{
    mongo_write_opts(c, opts);
    if (!c->in_txn)
        bson_append_int64(opts, "maxTimeMS", -1, mongo_conn_left_ms(c));
}

/* Called by mongo_err() on the thread that made the call. */
void mongo_session_poisoned(void)
{
    if (last_used != NULL)
        last_used->session_bad = true;
}
