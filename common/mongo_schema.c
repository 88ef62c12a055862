/* mongo_schema.c - collections, indexes and settings, made by whoever comes first.
 *
 * Every step is idempotent and safe beside other processes doing the same: an index that is there is left
 * alone, and a setting is written by $setOnInsert and then compared with ours.
 */
#include "common/mongo.h"

#include "common/keys.h"
#include "common/mem.h"
#include "common/mongo_internal.h"

#include <assert.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAMESPACE_EXISTS 48
#define SECRET_BYTES     32
#define SECRET_TRIES     3

struct index_row {
    enum mongo_collection coll;
    const char *name;
    const char *keys;    /* JSON */
    const char *options; /* JSON, more members of the index; "" for none */
};

static const struct index_row indexes[] = {
    {COLL_ITEMS, "publisher_live", "{\"publisher\":1,\"live\":1,\"_id\":-1}", ""},
    {COLL_ITEMS, "topics_live", "{\"topics\":1,\"live\":1,\"_id\":-1}", ""},
    {COLL_ITEMS, "external_id", "{\"publisher\":1,\"external_id\":1}",
     ",\"unique\":true,\"partialFilterExpression\":{\"external_id\":{\"$type\":\"string\"}}"},
    {COLL_FOLLOWS, "audience", "{\"t\":1,\"b\":1,\"u\":1}", ""},
    {COLL_TARGETS, "most_followed", "{\"kind\":1,\"followers\":-1,\"_id\":1}", ""},
    {COLL_TARGETS, "pulled", "{\"mode\":1,\"_id\":1}", ",\"partialFilterExpression\":{\"mode\":\"pull\"}"},
    {COLL_DEAD_LETTERS, "newest", "{\"at\":-1,\"_id\":-1}", ""},
    {COLL_DEAD_LETTERS, "of_item", "{\"item\":1,\"state\":1}", ""},
    {COLL_DEAD_LETTERS, "open", "{\"state\":1}", ""},
    {COLL_RECEIPTS, "kept", "{\"at\":1}", ",\"expireAfterSeconds\":604800"},
    {COLL_RECEIPTS, "passed", "{\"h\":1}", ""},
    {COLL_HEARTBEAT, "idle", "{\"at\":1}", ",\"expireAfterSeconds\":3600"},
};

static int run(struct mongo_conn *c, const bson_t *cmd, uint32_t ignore, const char *what, struct err *e)
{
    bson_t opts = BSON_INITIALIZER, reply;
    bson_error_t be;
    mongo_write_opts(c, &opts);
    bool ok = mongoc_client_write_command_with_opts(c->client, mongo_database(c->m), cmd, &opts, &reply, &be);
    int rc = 0;
    if (!ok && !(ignore != 0 && be.domain == MONGOC_ERROR_SERVER && be.code == ignore))
        rc = mongo_err(e, &be, &reply, what);
    bson_destroy(&opts);
    bson_destroy(&reply);
    return rc;
}

/* Transactions and the tail want the collections to be there; createIndexes alone would not make all of them.
 */
static int create_collection(struct mongo_conn *c, enum mongo_collection coll, struct err *e)
{
    const char *name = mongo_collection_name(coll);
    bson_t *cmd = BCON_NEW("create", BCON_UTF8(name));
    int rc = run(c, cmd, NAMESPACE_EXISTS, "create", e);
    bson_destroy(cmd);
    return rc < 0 ? err_prefix(e, "collection %s", name) : 0;
}

static int create_index(struct mongo_conn *c, const struct index_row *row, struct err *e)
{
    char *json = mem_printf("{\"createIndexes\":\"%s\",\"indexes\":[{\"name\":\"%s\",\"key\":%s%s}]}",
                            mongo_collection_name(row->coll), row->name, row->keys, row->options);
    bson_error_t be;
    bson_t *cmd = bson_new_from_json((const uint8_t *)json, -1, &be);
    assert(cmd != NULL);
    int rc = run(c, cmd, 0, "createIndexes", e);
    bson_destroy(cmd);
    free(json);
    return rc < 0 ? err_prefix(e, "index %s of %s", row->name, mongo_collection_name(row->coll)) : 0;
}

/* Writes {_id, value} if there is none, and answers what is there then. value: a document with the one field.
 */
static int set_once(struct mongo_conn *c, const char *id, const bson_t *value, bson_t *found, struct err *e)
{
    bson_t query = BSON_INITIALIZER, update = BSON_INITIALIZER, reply, extra = BSON_INITIALIZER;
    bson_error_t be;
    BSON_APPEND_UTF8(&query, "_id", id);
    BSON_APPEND_DOCUMENT(&update, "$setOnInsert", value);
    mongo_write_opts(c, &extra);
    mongoc_find_and_modify_opts_t *opts = mongoc_find_and_modify_opts_new();
    mongoc_find_and_modify_opts_set_update(opts, &update);
    mongoc_find_and_modify_opts_set_flags(opts,
                                          MONGOC_FIND_AND_MODIFY_UPSERT | MONGOC_FIND_AND_MODIFY_RETURN_NEW);
    mongoc_find_and_modify_opts_append(opts, &extra);
    int rc = -1;
    bson_iter_t it;
    const uint8_t *data;
    uint32_t n;
    if (!mongoc_collection_find_and_modify_with_opts(mongo_coll(c, COLL_SETTINGS), &query, opts, &reply,
                                                     &be)) {
        mongo_err(e, &be, &reply, "settings");
    } else if (bson_iter_init_find(&it, &reply, "value") && BSON_ITER_HOLDS_DOCUMENT(&it)) {
        bson_iter_document(&it, &n, &data);
        bson_t doc;
        bson_init_static(&doc, data, n);
        bson_copy_to(&doc, found);
        rc = 0;
    } else {
        err_set(e, ERR_INTERNAL, "MongoDB: settings: no document in the answer");
    }
    mongoc_find_and_modify_opts_destroy(opts);
    bson_destroy(&query);
    bson_destroy(&update);
    bson_destroy(&extra);
    bson_destroy(&reply);
    return rc;
}

/* Two first starts at once: one upsert may lose against the unique _id; the next try finds the winner's. */
static int set_once_retried(struct mongo_conn *c, const char *id, const bson_t *value, bson_t *found,
                            struct err *e)
{
    struct err why = {0};
    for (int i = 0; i < SECRET_TRIES; i++) {
        if (set_once(c, id, value, found, &why) == 0)
            return 0;
        if (why.code != ERR_CONFLICT)
            break;
    }
    if (e != NULL)
        *e = why;
    return -1;
}

static int check_buckets(struct mongo_conn *c, struct err *e)
{
    bson_t value = BSON_INITIALIZER, found;
    BSON_APPEND_INT32(&value, "value", BUCKETS);
    int rc = set_once_retried(c, "buckets", &value, &found, e);
    bson_destroy(&value);
    if (rc < 0)
        return -1;
    int64_t buckets = 0;
    if (!mongo_get_i64(&found, "value", &buckets) || buckets != BUCKETS)
        rc = err_set(e, ERR_CONFLICT, "the database was made for %lld buckets, this program knows %d",
                     (long long)buckets, BUCKETS);
    bson_destroy(&found);
    return rc;
}

int mongo_schema_ensure(struct mongo_conn *c, struct err *e)
{
    for (int i = 0; i < COLL_N; i++)
        if (create_collection(c, (enum mongo_collection)i, e) < 0)
            return -1;
    for (size_t i = 0; i < MEM_COUNT(indexes); i++)
        if (create_index(c, &indexes[i], e) < 0)
            return -1;
    return check_buckets(c, e);
}

int mongo_setting_secret(struct mongo_conn *c, const char *name, unsigned char out[32], struct err *e)
{
    unsigned char fresh[SECRET_BYTES];
    if (RAND_bytes(fresh, sizeof fresh) != 1)
        return err_set(e, ERR_INTERNAL, "no random bytes for a secret");
    char *id = mem_printf("secret:%s", name);
    bson_t value = BSON_INITIALIZER, found;
    BSON_APPEND_BINARY(&value, "value", BSON_SUBTYPE_BINARY, fresh, sizeof fresh);
    int rc = set_once_retried(c, id, &value, &found, e);
    bson_destroy(&value);
    free(id);
    if (rc < 0)
        return -1;
    bson_iter_t it;
    bson_subtype_t subtype;
    uint32_t n = 0;
    const uint8_t *data = NULL;
    if (bson_iter_init_find(&it, &found, "value") && BSON_ITER_HOLDS_BINARY(&it))
        bson_iter_binary(&it, &subtype, &n, &data);
    if (n == SECRET_BYTES)
        memcpy(out, data, n);
    else
        rc = err_set(e, ERR_CORRUPT, "the secret %s in settings is not 32 bytes", name);
    bson_destroy(&found);
    return rc;
}
