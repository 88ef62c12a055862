/* mongo_err.c - libmongoc's errors as ours, and reading fields out of documents. */
#include "common/mongo.h"

#include "common/mem.h"
#include "common/mongo_internal.h"

#include <string.h>

struct code_row {
    int32_t server;
    enum err_code code;
};

/* Codes of mongod's error_codes.yml; whatever is missing here is ERR_INTERNAL. */
static const struct code_row code_rows[] = {
    {6, ERR_UNAVAILABLE},                               /* HostUnreachable */
    {7, ERR_UNAVAILABLE},                               /* HostNotFound */
    {13, ERR_UNAVAILABLE},                              /* Unauthorized: its users are being changed */
    {18, ERR_UNAVAILABLE},                              /* AuthenticationFailed */
    {24, ERR_BUSY},                                     /* LockTimeout */
    {43, ERR_UNAVAILABLE},                              /* CursorNotFound: it was restarted meanwhile */
    {50, ERR_TIMEOUT},                                  /* MaxTimeMSExpired */
    {64, ERR_TIMEOUT},                                  /* WriteConcernFailed: wtimeout */
    {89, ERR_UNAVAILABLE},                              /* NetworkTimeout */
    {91, ERR_UNAVAILABLE},                              /* ShutdownInProgress */
    {94, ERR_UNAVAILABLE},                              /* NotYetInitialized */
    {100, ERR_UNAVAILABLE},                             /* UnsatisfiableWriteConcern */
    {112, ERR_BUSY},                                    /* WriteConflict */
    {133, ERR_UNAVAILABLE},                             /* FailedToSatisfyReadPreference */
    {134, ERR_UNAVAILABLE},                             /* ReadConcernMajorityNotAvailableYet */
    {136, ERR_LOG_LOST},                                /* CappedPositionLost */
    {189, ERR_UNAVAILABLE},                             /* PrimarySteppedDown */
    {202, ERR_TIMEOUT},                                 /* NetworkInterfaceExceededTimeLimit */
    {234, ERR_UNAVAILABLE},                             /* RetryChangeStream */
    {237, ERR_UNAVAILABLE},                             /* CursorKilled */
    {246, ERR_UNAVAILABLE},                             /* SnapshotUnavailable */
    {251, ERR_BUSY},                                    /* NoSuchTransaction */
    {260, ERR_LOG_LOST},                                /* InvalidResumeToken */
    {262, ERR_TIMEOUT},                                 /* ExceededTimeLimit */
    {279, ERR_LOG_LOST},                                /* ChangeStreamInvalidated */
    {280, ERR_LOG_LOST},                                /* ChangeStreamFatalError */
    {286, ERR_LOG_LOST},                                /* ChangeStreamHistoryLost */
    {9001, ERR_UNAVAILABLE},                            /* SocketException */
    {10107, ERR_UNAVAILABLE},                           /* NotWritablePrimary */
    {11000, ERR_CONFLICT},                              /* DuplicateKey */
    {11001, ERR_CONFLICT},    {11600, ERR_UNAVAILABLE}, /* InterruptedAtShutdown */
    {11601, ERR_UNAVAILABLE},                           /* Interrupted: somebody ended the operation */
    {11602, ERR_UNAVAILABLE},                           /* InterruptedDueToReplStateChange */
    {12582, ERR_CONFLICT},    {13435, ERR_UNAVAILABLE}, /* NotPrimaryNoSecondaryOk */
    {13436, ERR_UNAVAILABLE},                           /* NotPrimaryOrSecondary */
};

static enum err_code server_code(int32_t code)
{
    for (size_t i = 0; i < MEM_COUNT(code_rows); i++)
        if (code_rows[i].server == code)
            return code_rows[i].code;
    return ERR_INTERNAL;
}

/* The driver's own codes overlap with the server's (17, 50, 59, 64, 11000): the domain tells. */
static enum err_code classify(const bson_error_t *be)
{
    switch (be->domain) {
    case MONGOC_ERROR_STREAM:
    case MONGOC_ERROR_SERVER_SELECTION:
        return ERR_UNAVAILABLE;
    case MONGOC_ERROR_POOL:
        return ERR_BUSY;
    case MONGOC_ERROR_BSON:
        return ERR_CORRUPT;
    case MONGOC_ERROR_CLIENT:
        return be->code == MONGOC_ERROR_CLIENT_NOT_READY ? ERR_UNAVAILABLE : ERR_INTERNAL;
    case MONGOC_ERROR_SERVER:
    case MONGOC_ERROR_WRITE_CONCERN:
    case MONGOC_ERROR_COMMAND:
    case MONGOC_ERROR_QUERY:
    case MONGOC_ERROR_COLLECTION:
    case MONGOC_ERROR_CURSOR:
        return server_code((int32_t)be->code);
    default:
        return ERR_INTERNAL;
    }
}

static bool is_future_time(const bson_error_t *be)
{
    return be->domain == MONGOC_ERROR_SERVER && strstr(be->message, "afterClusterTime") != NULL;
}

int mongo_err(struct err *e, const bson_error_t *be, const bson_t *reply, const char *what)
{
    enum err_code code = classify(be);
    if (is_future_time(be)) {
        mongo_session_poisoned();
        code = ERR_INVALID;
    } else if (code == ERR_INTERNAL && reply != NULL &&
               (mongoc_error_has_label(reply, "RetryableWriteError") ||
                mongoc_error_has_label(reply, "ResumableChangeStreamError"))) {
        code = ERR_UNAVAILABLE;
    }
    return err_set(e, code, "MongoDB: %s: %s", what, be->message[0] ? be->message : "no reason given");
}

bool mongo_get_i64(const bson_t *d, const char *key, int64_t *out)
{
    bson_iter_t it;
    if (!bson_iter_init_find(&it, d, key))
        return false;
    switch (bson_iter_type(&it)) {
    case BSON_TYPE_INT32:
        *out = bson_iter_int32(&it);
        return true;
    case BSON_TYPE_INT64:
        *out = bson_iter_int64(&it);
        return true;
    case BSON_TYPE_DATE_TIME:
        *out = bson_iter_date_time(&it);
        return true;
    default:
        return false;
    }
}

const char *mongo_get_str(const bson_t *d, const char *key, size_t *len)
{
    bson_iter_t it;
    if (!bson_iter_init_find(&it, d, key) || !BSON_ITER_HOLDS_UTF8(&it))
        return NULL;
    uint32_t n;
    const char *s = bson_iter_utf8(&it, &n);
    if (len != NULL)
        *len = n;
    return s;
}

bool mongo_get_ts(const bson_t *d, const char *key, ts_t *out)
{
    bson_iter_t it;
    if (!bson_iter_init_find(&it, d, key) || !BSON_ITER_HOLDS_TIMESTAMP(&it))
        return false;
    uint32_t seconds, increment;
    bson_iter_timestamp(&it, &seconds, &increment);
    *out = ts_make(seconds, increment);
    return true;
}
