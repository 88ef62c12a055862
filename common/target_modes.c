#include "common/target_modes.h"

#include <string.h>

#define BATCH 1000

static mongoc_cursor_t *open_pulled(struct mongo_conn *c)
{
    bson_t *filter = BCON_NEW("mode", "pull");
    bson_t *opts = BCON_NEW("projection", "{", "_id", BCON_INT32(1), "}", "sort", "{", "mode", BCON_INT32(1),
                            "_id", BCON_INT32(1), "}", "batchSize", BCON_INT32(BATCH), "hint", "pulled");
    mongo_read_opts(c, opts);
    mongoc_cursor_t *cursor =
        mongoc_collection_find_with_opts(mongo_coll(c, COLL_TARGETS), filter, opts, NULL);
    bson_destroy(filter);
    bson_destroy(opts);
    return cursor;
}

int target_modes_pulled(struct mongo_conn *c, void (*fn)(void *arg, const char *target), void *arg,
                        struct err *e)
{
    mongoc_cursor_t *cursor = open_pulled(c);
    const bson_t *doc, *reply;
    bson_error_t be;
    unsigned n = 0;
    int rc = 0;
    while (rc == 0 && mongoc_cursor_next(cursor, &doc)) {
        size_t len;
        const char *target = mongo_get_str(doc, "_id", &len);
        if (++n > PULLED_TARGETS_MAX)
            rc = err_set(e, ERR_TOO_LARGE, "more than %d targets are pulled", PULLED_TARGETS_MAX);
        else if (target && len < TARGET_TEXT_SIZE && strlen(target) == len)
            fn(arg, target);
    }
    if (rc == 0 && mongoc_cursor_error_document(cursor, &be, &reply))
        rc = mongo_err(e, &be, reply, "reading which targets are pulled");
    mongoc_cursor_destroy(cursor);
    return rc;
}
