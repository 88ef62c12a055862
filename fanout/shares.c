#include "fanout/shares.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"

struct lease {
    bool held;
    int64_t epoch;
};

struct shares {
    struct shares_options o;
    char *name;

    pthread_mutex_t turn; /* held while talking to MongoDB; taken before `lock` */
    struct mongo_conn *conn;
    bool ready;        /* the documents are there */
    bool first;        /* no step has succeeded yet */
    bool renew_failed; /* logged once */

    pthread_mutex_t lock; /* guards what follows, never held over I/O */
    pthread_cond_t changed;
    struct shares_view view;
    bool stopping, started;
    pthread_t thread;
    atomic_llong alive_ms;
};

/* What MongoDB says about one share. */
struct share_doc {
    bool there, expired, mine;
    int64_t epoch;
};

unsigned shares_fair(unsigned members, unsigned rank)
{
    if (members == 0)
        return 0;
    return SHARES / members + (rank < SHARES % members);
}

struct shares *shares_new(const struct shares_options *o)
{
    struct shares *s = mem_zero(1, sizeof *s);
    s->o = *o;
    s->name = mem_strdup(o->name);
    s->first = true;
    pthread_mutex_init(&s->turn, NULL);
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_t a;
    pthread_condattr_init(&a);
    pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
    pthread_cond_init(&s->changed, &a);
    pthread_condattr_destroy(&a);
    shares_alive(s);
    return s;
}

void shares_free(struct shares *s)
{
    if (!s)
        return;
    shares_stop(s);
    mongo_conn_put(s->conn);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    pthread_mutex_destroy(&s->turn);
    free(s->name);
    free(s);
}

/* ---- the view ---- */

static void set_share(struct shares *s, unsigned i, bool held, int64_t epoch)
{
    pthread_mutex_lock(&s->lock);
    if (s->view.share[i].held != held || s->view.share[i].epoch != epoch) {
        s->view.share[i].held = held;
        s->view.share[i].epoch = epoch;
        if (!held)
            s->view.share[i].giving = false;
        s->view.version++;
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
}

void shares_look(struct shares *s, struct shares_view *out)
{
    pthread_mutex_lock(&s->lock);
    *out = s->view;
    pthread_mutex_unlock(&s->lock);
}

static void deadline_in(int64_t ms, struct timespec *ts)
{
    clock_gettime(CLOCK_MONOTONIC, ts);
    ts->tv_sec += ms / 1000;
    ts->tv_nsec += (ms % 1000) * 1000000;
    if (ts->tv_nsec >= 1000000000) {
        ts->tv_sec++;
        ts->tv_nsec -= 1000000000;
    }
}

void shares_wait(struct shares *s, uint64_t version, int64_t ms)
{
    struct timespec until;
    deadline_in(ms, &until);
    pthread_mutex_lock(&s->lock);
    while (s->view.version == version && !s->stopping) {
        if (pthread_cond_timedwait(&s->changed, &s->lock, &until) != 0)
            break;
    }
    pthread_mutex_unlock(&s->lock);
}

void shares_alive(struct shares *s)
{
    atomic_store(&s->alive_ms, clock_mono_ms());
}

/* ---- MongoDB; all with `turn` held ---- */

static int connect_mongo(struct shares *s, struct err *e)
{
    if (!s->conn && mongo_conn_get(s->o.mongo, &s->conn, e) != 0)
        return -1;
    mongo_conn_deadline(s->conn, 2000);
    return 0;
}

/* An update of one document by a pipeline; parsed from JSON text with the placeholders filled by the caller.
 */
static int update_doc(struct shares *s, enum mongo_collection coll, const bson_t *filter,
                      const bson_t *update, bool upsert, struct err *e)
{
    bson_t opts = BSON_INITIALIZER;
    bson_error_t be;
    bson_t reply;
    if (upsert)
        BSON_APPEND_BOOL(&opts, "upsert", true);
    mongo_write_opts(s->conn, &opts);
    bool ok = mongoc_collection_update_one(mongo_coll(s->conn, coll), filter, update, &opts, &reply, &be);
    int rc = ok ? 0 : mongo_err(e, &be, &reply, mongo_collection_name(coll));
    bson_destroy(&reply);
    bson_destroy(&opts);
    return rc;
}

static int ensure_documents(struct shares *s, struct err *e)
{
    for (unsigned i = 0; i < SHARES; i++) {
        bson_t *filter = BCON_NEW("_id", BCON_INT32((int32_t)i));
        bson_t *update = BCON_NEW("$setOnInsert", "{", "owner", BCON_UTF8(""), "epoch", BCON_INT64(0),
                                  "expires", BCON_DATE_TIME(0), "}");
        int rc = update_doc(s, COLL_SHARES, filter, update, true, e);
        bson_destroy(filter);
        bson_destroy(update);
        if (rc != 0 && e->code != ERR_CONFLICT) /* two made it at once */
            return -1;
    }
    s->ready = true;
    return 0;
}

static int sign_on(struct shares *s, struct err *e)
{
    bson_t *filter = BCON_NEW("_id", BCON_UTF8(s->name));
    bson_t *update = BCON_NEW("0", "{", "$set", "{", "seen", BCON_UTF8("$$NOW"), "}", "}");
    int rc = update_doc(s, COLL_MEMBERS, filter, update, true, e);
    bson_destroy(filter);
    bson_destroy(update);
    return rc;
}

/* Counts the living members, and how many of them come before this one by name. */
static int count_members(struct shares *s, unsigned *members, unsigned *rank, struct err *e)
{
    bson_t *filter = BCON_NEW("$expr", "{", "$gt", "[", BCON_UTF8("$seen"), "{", "$subtract", "[",
                              BCON_UTF8("$$NOW"), BCON_INT64(s->o.lease_ms), "]", "}", "]", "}");
    bson_t opts = BSON_INITIALIZER;
    mongo_read_opts(s->conn, &opts);
    mongoc_cursor_t *cur =
        mongoc_collection_find_with_opts(mongo_coll(s->conn, COLL_MEMBERS), filter, &opts, NULL);
    const bson_t *d;
    unsigned n = 0, before = 0;
    while (mongoc_cursor_next(cur, &d)) {
        const char *name = mongo_get_str(d, "_id", NULL);
        n++;
        before += name && strcmp(name, s->name) < 0;
    }
    bson_error_t be;
    const bson_t *reply = NULL;
    int rc = mongoc_cursor_error_document(cur, &be, &reply) ? mongo_err(e, &be, reply, "members") : 0;
    mongoc_cursor_destroy(cur);
    bson_destroy(&opts);
    bson_destroy(filter);
    if (rc == 0) {
        *members = n ? n : 1;
        *rank = before;
    }
    return rc;
}

static int read_shares(struct shares *s, struct share_doc out[SHARES], struct err *e)
{
    bson_t filter = BSON_INITIALIZER;
    bson_t *opts = BCON_NEW("projection", "{", "owner", BCON_INT32(1), "epoch", BCON_INT32(1), "expired", "{",
                            "$lte", "[", BCON_UTF8("$expires"), BCON_UTF8("$$NOW"), "]", "}", "}");
    mongo_read_opts(s->conn, opts);
    mongoc_cursor_t *cur =
        mongoc_collection_find_with_opts(mongo_coll(s->conn, COLL_SHARES), &filter, opts, NULL);
    const bson_t *d;
    memset(out, 0, SHARES * sizeof *out);
    while (mongoc_cursor_next(cur, &d)) {
        int64_t id, epoch;
        bson_iter_t it;
        const char *owner = mongo_get_str(d, "owner", NULL);
        if (!owner || !mongo_get_i64(d, "_id", &id) || id < 0 || id >= SHARES ||
            !mongo_get_i64(d, "epoch", &epoch))
            continue;
        out[id].there = true;
        out[id].epoch = epoch;
        out[id].mine = strcmp(owner, s->name) == 0;
        out[id].expired = bson_iter_init_find(&it, d, "expired") && bson_iter_as_bool(&it);
    }
    bson_error_t be;
    const bson_t *reply = NULL;
    int rc = mongoc_cursor_error_document(cur, &be, &reply) ? mongo_err(e, &be, reply, "shares") : 0;
    mongoc_cursor_destroy(cur);
    bson_destroy(opts);
    bson_destroy(&filter);
    return rc;
}

/* Renews every lease that is held under the epoch it is held by, in one command. Those that did not match
 * show when the documents are read afterwards. */
static int renew(struct shares *s, struct err *e)
{
    struct shares_view v;
    shares_look(s, &v);
    bson_t filter = BSON_INITIALIZER, any, one;
    char buf[16];
    const char *key;
    uint32_t n = 0;
    BSON_APPEND_UTF8(&filter, "owner", s->name);
    BSON_APPEND_ARRAY_BEGIN(&filter, "$or", &any);
    for (unsigned i = 0; i < SHARES; i++) {
        if (!v.share[i].held)
            continue;
        size_t len = bson_uint32_to_string(n++, &key, buf, sizeof buf);
        bson_append_document_begin(&any, key, (int)len, &one);
        BSON_APPEND_INT32(&one, "_id", (int32_t)i);
        BSON_APPEND_INT64(&one, "epoch", v.share[i].epoch);
        bson_append_document_end(&any, &one);
    }
    bson_append_array_end(&filter, &any);
    int rc = 0;
    if (n) {
        bson_t *update = BCON_NEW("0", "{", "$set", "{", "expires", "{", "$add", "[", BCON_UTF8("$$NOW"),
                                  BCON_INT64(s->o.lease_ms), "]", "}", "}", "}");
        bson_t opts = BSON_INITIALIZER, reply;
        bson_error_t be;
        mongo_write_opts(s->conn, &opts);
        if (!mongoc_collection_update_many(mongo_coll(s->conn, COLL_SHARES), &filter, update, &opts, &reply,
                                           &be))
            rc = mongo_err(e, &be, &reply, "leases");
        bson_destroy(&reply);
        bson_destroy(&opts);
        bson_destroy(update);
    }
    bson_destroy(&filter);
    return rc;
}

/* Takes a share if filter still holds: the owner becomes this one, the epoch grows to above least. 1 taken, 0
 * not. */
static int take(struct shares *s, const bson_t *filter, int64_t least, int64_t *epoch, struct err *e)
{
    bson_t *update = BCON_NEW("0", "{", "$set", "{", "owner", "{", "$literal", BCON_UTF8(s->name), "}",
                              "epoch", "{", "$add", "[", "{", "$max", "[", BCON_UTF8("$epoch"),
                              BCON_INT64(least), "]", "}", BCON_INT64(1), "]", "}", "expires", "{", "$add",
                              "[", BCON_UTF8("$$NOW"), BCON_INT64(s->o.lease_ms), "]", "}", "}", "}");
    mongoc_find_and_modify_opts_t *o = mongoc_find_and_modify_opts_new();
    bson_t extra = BSON_INITIALIZER, reply, value;
    bson_error_t be;
    bson_iter_t it;
    mongo_write_opts(s->conn, &extra);
    mongoc_find_and_modify_opts_append(o, &extra);
    mongoc_find_and_modify_opts_set_update(o, update);
    mongoc_find_and_modify_opts_set_flags(o, MONGOC_FIND_AND_MODIFY_RETURN_NEW);
    int rc = 0;
    if (!mongoc_collection_find_and_modify_with_opts(mongo_coll(s->conn, COLL_SHARES), filter, o, &reply,
                                                     &be)) {
        rc = mongo_err(e, &be, &reply, "share");
    } else if (bson_iter_init_find(&it, &reply, "value") && BSON_ITER_HOLDS_DOCUMENT(&it)) {
        const uint8_t *data;
        uint32_t len;
        bson_iter_document(&it, &len, &data);
        rc = bson_init_static(&value, data, len) && mongo_get_i64(&value, "epoch", epoch)
                 ? 1
                 : err_set(e, ERR_CORRUPT, "share: the document does not read as it should");
    }
    bson_destroy(&reply);
    bson_destroy(&extra);
    bson_destroy(update);
    mongoc_find_and_modify_opts_destroy(o);
    return rc;
}

static int take_share(struct shares *s, unsigned share, const struct share_doc *doc, const char *why,
                      struct err *e)
{
    int64_t epoch = 0;
    bson_t *filter =
        BCON_NEW("_id", BCON_INT32((int32_t)share), "epoch", BCON_INT64(doc->epoch), "$expr", "{", "$or", "[",
                 "{", "$lte", "[", BCON_UTF8("$expires"), BCON_UTF8("$$NOW"), "]", "}", "{", "$eq", "[",
                 BCON_UTF8("$owner"), "{", "$literal", BCON_UTF8(s->name), "}", "]", "}", "]", "}");
    int rc = take(s, filter, 0, &epoch, e);
    bson_destroy(filter);
    if (rc == 1) {
        set_share(s, share, true, epoch);
        metrics_add(s->o.metrics, M_SHARES, SHARE_TAKEN, 1);
        log_event(LOG_INFO, "share_taken", LOG_U("share", share), LOG_I("epoch", epoch), LOG_S("why", why));
    }
    return rc < 0 ? -1 : 0;
}

/* ---- one round ---- */

/* What others took meanwhile is no longer held. */
static unsigned note_lost(struct shares *s, const struct share_doc docs[SHARES])
{
    struct shares_view v;
    unsigned held = 0;
    shares_look(s, &v);
    for (unsigned i = 0; i < SHARES; i++) {
        if (!v.share[i].held)
            continue;
        if (docs[i].there && docs[i].mine && docs[i].epoch == v.share[i].epoch) {
            held++;
            continue;
        }
        set_share(s, i, false, 0);
        metrics_add(s->o.metrics, M_SHARES, SHARE_LOST, 1);
        log_event(LOG_WARN, "share_lost", LOG_U("share", i), LOG_I("epoch", v.share[i].epoch),
                  LOG_S("why", "taken over by another"));
    }
    return held;
}

static int take_missing(struct shares *s, const struct share_doc docs[SHARES], unsigned held, unsigned fair,
                        struct err *e)
{
    struct shares_view v;
    shares_look(s, &v);
    for (unsigned i = 0; i < SHARES; i++) {
        bool own = s->first && docs[i].mine;
        if (!docs[i].there || v.share[i].held || !(own || (docs[i].expired && held < fair)))
            continue;
        if (take_share(s, i, &docs[i],
                       own             ? "stood under this name"
                       : docs[i].epoch ? "lease ran out or was given"
                                       : "first",
                       e) != 0)
            return -1;
        held++;
    }
    return 0;
}

static void mark_giving(struct shares *s, unsigned members, unsigned fair)
{
    pthread_mutex_lock(&s->lock);
    unsigned kept = 0;
    bool differs = !s->view.known || s->view.members != members || s->view.fair != fair;
    for (unsigned i = 0; i < SHARES; i++) {
        bool giving = s->view.share[i].held && ++kept > fair;
        differs = differs || giving != s->view.share[i].giving;
        s->view.share[i].giving = giving;
    }
    s->view.known = true;
    s->view.members = members;
    s->view.fair = fair;
    if (differs) {
        s->view.version++;
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
    metrics_set(s->o.metrics, M_MEMBERS, 0, members);
}

static int round_locked(struct shares *s, struct err *e)
{
    struct share_doc docs[SHARES];
    unsigned members, rank;
    if (connect_mongo(s, e) != 0 || (!s->ready && ensure_documents(s, e) != 0))
        return -1;
    if (sign_on(s, e) != 0 || renew(s, e) != 0 || count_members(s, &members, &rank, e) != 0 ||
        read_shares(s, docs, e) != 0)
        return -1;
    unsigned fair = shares_fair(members, rank);
    unsigned held = note_lost(s, docs);
    if (take_missing(s, docs, held, fair, e) != 0)
        return -1;
    s->first = false;
    mark_giving(s, members, fair);
    return 0;
}

int shares_step(struct shares *s, struct err *e)
{
    pthread_mutex_lock(&s->turn);
    int rc = round_locked(s, e);
    pthread_mutex_unlock(&s->turn);
    return rc;
}

int shares_retake(struct shares *s, unsigned share, int64_t least, int64_t *epoch, struct err *e)
{
    struct shares_view v;
    pthread_mutex_lock(&s->turn);
    shares_look(s, &v);
    int rc = -1;
    if (!v.share[share].held) {
        err_set(e, ERR_MISMATCH, "share %u is not held", share);
    } else if (connect_mongo(s, e) == 0) {
        int64_t now = 0;
        bson_t *filter = BCON_NEW("_id", BCON_INT32((int32_t)share), "owner", BCON_UTF8(s->name), "epoch",
                                  BCON_INT64(v.share[share].epoch));
        rc = take(s, filter, least, &now, e);
        bson_destroy(filter);
        if (rc == 1) {
            set_share(s, share, true, now);
            *epoch = now;
            metrics_add(s->o.metrics, M_SHARES, SHARE_RENEWED_EPOCH, 1);
        } else if (rc == 0) {
            set_share(s, share, false, 0);
            metrics_add(s->o.metrics, M_SHARES, SHARE_LOST, 1);
            rc = err_set(e, ERR_MISMATCH, "share %u was taken over by another", share);
        }
    }
    pthread_mutex_unlock(&s->turn);
    return rc < 0 ? -1 : 0;
}

int shares_release(struct shares *s, unsigned share, struct err *e)
{
    struct shares_view v;
    pthread_mutex_lock(&s->turn);
    shares_look(s, &v);
    int rc = 0;
    if (v.share[share].held) {
        set_share(s, share, false, 0);
        metrics_add(s->o.metrics, M_SHARES, SHARE_GIVEN, 1);
        bson_t *filter = BCON_NEW("_id", BCON_INT32((int32_t)share), "owner", BCON_UTF8(s->name), "epoch",
                                  BCON_INT64(v.share[share].epoch));
        bson_t *update = BCON_NEW("$set", "{", "owner", BCON_UTF8(""), "expires", BCON_DATE_TIME(0), "}");
        rc = connect_mongo(s, e) == 0 ? update_doc(s, COLL_SHARES, filter, update, false, e) : -1;
        bson_destroy(filter);
        bson_destroy(update);
    }
    pthread_mutex_unlock(&s->turn);
    return rc;
}

int shares_leave(struct shares *s, struct err *e)
{
    int rc = 0;
    for (unsigned i = 0; i < SHARES && rc == 0; i++)
        rc = shares_release(s, i, e);
    if (rc != 0)
        return -1;
    pthread_mutex_lock(&s->turn);
    bson_t *filter = BCON_NEW("_id", BCON_UTF8(s->name));
    bson_t opts = BSON_INITIALIZER, reply;
    bson_error_t be;
    if ((rc = connect_mongo(s, e)) == 0) {
        mongo_write_opts(s->conn, &opts);
        if (!mongoc_collection_delete_one(mongo_coll(s->conn, COLL_MEMBERS), filter, &opts, &reply, &be))
            rc = mongo_err(e, &be, &reply, "members");
        bson_destroy(&reply);
    }
    bson_destroy(&opts);
    bson_destroy(filter);
    pthread_mutex_unlock(&s->turn);
    return rc;
}

/* ---- the thread ---- */

static void report(struct shares *s, int rc, const struct err *e)
{
    if (rc != 0 && !s->renew_failed)
        log_event(LOG_WARN, "leases_not_renewed", LOG_ERR(e));
    else if (rc == 0 && s->renew_failed)
        log_event(LOG_INFO, "leases_renewed_again");
    if (rc != 0)
        metrics_add(s->o.metrics, M_ERRORS, ERROR_OF_MONGODB, 1);
    s->renew_failed = rc != 0;
}

static bool stopping(struct shares *s)
{
    pthread_mutex_lock(&s->lock);
    bool yes = s->stopping;
    pthread_mutex_unlock(&s->lock);
    return yes;
}

static void pause_for(struct shares *s, int64_t ms)
{
    struct timespec until;
    deadline_in(ms, &until);
    pthread_mutex_lock(&s->lock);
    while (!s->stopping && pthread_cond_timedwait(&s->changed, &s->lock, &until) == 0)
        ;
    pthread_mutex_unlock(&s->lock);
}

static void *thread_main(void *arg)
{
    struct shares *s = arg;
    struct err e = {0};
    while (!stopping(s)) {
        if (clock_mono_ms() - atomic_load(&s->alive_ms) > SHARES_ALIVE_MS)
            report(s, err_set(&e, ERR_BUSY, "the engine has hung for %d s", SHARES_ALIVE_MS / 1000), &e);
        else
            report(s, shares_step(s, &e), &e);
        pause_for(s, s->renew_failed ? 100 : s->o.lease_ms / 5);
    }
    return NULL;
}

int shares_start(struct shares *s, struct err *e)
{
    if (pthread_create(&s->thread, NULL, thread_main, s) != 0)
        return err_set(e, ERR_INTERNAL, "no thread for the leases");
    s->started = true;
    return 0;
}

void shares_stop(struct shares *s)
{
    pthread_mutex_lock(&s->lock);
    s->stopping = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    if (s->started)
        pthread_join(s->thread, NULL);
    s->started = false;
}
