/* mongo_txn.c - transactions: another try while the server says that it may help and the deadline allows it.
 */
#include "common/mongo.h"

#include "common/clock.h"
#include "common/ids.h"
#include "common/mem.h"
#include "common/mongo_internal.h"

#include <assert.h>
#include <time.h>

#define BACKOFF_FIRST_MS 5
#define BACKOFF_MAX_MS   200

enum outcome { DONE, AGAIN, FAILED };

void mongo_txn_opts(struct mongo_conn *c, bson_t *opts)
{
    assert(c->in_txn);
    mongo_write_opts(c, opts);
}

int mongo_txn_err(struct mongo_conn *c, struct err *e, const bson_error_t *be, const bson_t *reply,
                  const char *what)
{
    if (reply != NULL && mongoc_error_has_label(reply, "TransientTransactionError"))
        c->txn_transient = true;
    return mongo_err(e, be, reply, what);
}

static void sleep_jittered(int64_t step_ms, int64_t left_ms)
{
    int64_t ms = step_ms / 2 + (int64_t)(ids_random_bits() % (uint32_t)(step_ms / 2 + 1));
    if (ms > left_ms)
        ms = left_ms;
    struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&ts, NULL);
}

static enum outcome commit(struct mongo_conn *c, int64_t end_ms, struct err *e)
{
    for (int64_t step = BACKOFF_FIRST_MS;; step = step * 2 < BACKOFF_MAX_MS ? step * 2 : BACKOFF_MAX_MS) {
        bson_t reply;
        bson_error_t be;
        if (mongoc_client_session_commit_transaction(c->session, &reply, &be)) {
            bson_destroy(&reply);
            return DONE;
        }
        bool transient = mongoc_error_has_label(&reply, "TransientTransactionError");
        bool unknown = mongoc_error_has_label(&reply, "UnknownTransactionCommitResult");
        mongo_err(e, &be, &reply, "commit");
        bson_destroy(&reply);
        if (transient)
            return AGAIN;
        int64_t left = end_ms - clock_mono_ms();
        if (!unknown)
            return FAILED;
        if (left <= 0) {
            if (e != NULL) /* it may have been committed: never tell it as "nothing happened" */
                e->code = ERR_TIMEOUT;
            return FAILED;
        }
        sleep_jittered(step, left);
    }
}

static enum outcome attempt(struct mongo_conn *c, mongo_txn_fn fn, void *arg, int64_t end_ms, struct err *e)
{
    bson_error_t be;
    mongoc_transaction_opt_t *opts = mongoc_transaction_opts_new();
    int64_t left = end_ms - clock_mono_ms();
    mongoc_transaction_opts_set_max_commit_time_ms(opts, left > 1 ? left : 1);
    bool ok = mongoc_client_session_start_transaction(c->session, opts, &be);
    mongoc_transaction_opts_destroy(opts);
    if (!ok) {
        mongo_err(e, &be, NULL, "starting a transaction");
        return FAILED;
    }
    c->in_txn = true;
    c->txn_transient = false;
    enum outcome out;
    if (fn(c, arg, e) == 0) {
        out = commit(c, end_ms, e);
    } else {
        mongoc_client_session_abort_transaction(c->session,
                                                NULL); /* if that fails, the server aborts it by itself */
        out = c->txn_transient ? AGAIN : FAILED;
    }
    c->in_txn = false;
    return out;
}

int mongo_transaction(struct mongo_conn *c, mongo_txn_fn fn, void *arg, struct err *e)
{
    assert(!c->in_txn);
    int64_t end_ms = clock_mono_ms() + mongo_conn_left_ms(c);
    for (int64_t step = BACKOFF_FIRST_MS;; step = step * 2 < BACKOFF_MAX_MS ? step * 2 : BACKOFF_MAX_MS) {
        mongo_mend(c);
        enum outcome out = attempt(c, fn, arg, end_ms, e);
        if (out == DONE)
            return 0;
        int64_t left = end_ms - clock_mono_ms();
        if (out == FAILED || left <= 0)
            return -1;
        sleep_jittered(step, left);
    }
}
