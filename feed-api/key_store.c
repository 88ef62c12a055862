#include "feed-api/key_store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base64url.h"
#include "common/mem.h"

#define PREFIX "fm_"

static const char *const role_names[] = {[ROLE_NONE] = "none",
                                         [ROLE_ADMIN] = "admin",
                                         [ROLE_SERVICE] = "service",
                                         [ROLE_PUBLISHER] = "publisher",
                                         [ROLE_USER] = "user"};

const char *role_name(enum role r)
{
    return role_names[r];
}

int role_parse(const char *s, enum role *out)
{
    for (enum role r = ROLE_ADMIN; r <= ROLE_PUBLISHER; r++) {
        if (strcmp(role_names[r], s) == 0) {
            *out = r;
            return 0;
        }
    }
    return -1;
}

void identity_done(struct identity *who)
{
    free(who->names);
    who->names = NULL;
    who->n_names = 0;
    who->role = ROLE_NONE;
}

bool identity_publishes(const struct identity *who, const char *publisher)
{
    if (who->role == ROLE_ADMIN)
        return true;
    for (unsigned i = 0; who->role == ROLE_PUBLISHER && i < who->n_names; i++) {
        if (strcmp(who->names[i], publisher) == 0)
            return true;
    }
    return false;
}

void api_key_done(struct api_key *k)
{
    identity_done(&k->who);
}

/* ---- as text ---- */

void key_text_make(struct api_key *k, char text[KEY_TEXT_SIZE])
{
    unsigned char id[KEY_ID_BYTES / 2], secret[KEY_SECRET_BYTES];
    sign_random(id, sizeof id);
    sign_random(secret, sizeof secret);
    for (size_t i = 0; i < sizeof id; i++)
        snprintf(k->id + 2 * i, 3, "%02x", id[i]);
    sign_sha256(secret, sizeof secret, k->hash);
    int n = snprintf(text, KEY_TEXT_SIZE, PREFIX "%s_", k->id);
    base64url_encode(secret, sizeof secret, text + n);
}

int key_text_read(const char *text, char id[KEY_ID_BYTES + 1], unsigned char hash[SIGN_MAC_SIZE])
{
    unsigned char secret[KEY_SECRET_BYTES];
    size_t len;
    size_t n = strlen(PREFIX);
    if (strncmp(text, PREFIX, n) != 0 || strspn(text + n, "0123456789abcdef") != KEY_ID_BYTES ||
        text[n + KEY_ID_BYTES] != '_')
        return -1;
    const char *tail = text + n + KEY_ID_BYTES + 1;
    if (base64url_decode(tail, strnlen(tail, KEY_TEXT_SIZE), secret, sizeof secret, &len, NULL) < 0 ||
        len != sizeof secret)
        return -1;
    memcpy(id, text + n, KEY_ID_BYTES);
    id[KEY_ID_BYTES] = '\0';
    sign_sha256(secret, sizeof secret, hash);
    return 0;
}

/* ---- as documents ---- */

static void key_to_bson(const struct api_key *k, bson_t *out)
{
    bson_t names;
    BSON_APPEND_UTF8(out, "_id", k->id);
    BSON_APPEND_BINARY(out, "hash", BSON_SUBTYPE_BINARY, k->hash, sizeof k->hash);
    BSON_APPEND_UTF8(out, "role", role_name(k->who.role));
    BSON_APPEND_ARRAY_BEGIN(out, "names", &names);
    for (unsigned i = 0; i < k->who.n_names; i++) {
        char buf[16];
        const char *index;
        bson_uint32_to_string(i, &index, buf, sizeof buf);
        BSON_APPEND_UTF8(&names, index, k->who.names[i]);
    }
    bson_append_array_end(out, &names);
    BSON_APPEND_DATE_TIME(out, "created_at", k->created_ms);
    if (k->expires_ms != 0)
        BSON_APPEND_DATE_TIME(out, "expires_at", k->expires_ms);
}

static int names_from_bson(const bson_t *d, struct identity *who, struct err *e)
{
    bson_iter_t it, in;
    if (!bson_iter_init_find(&it, d, "names") || !BSON_ITER_HOLDS_ARRAY(&it) || !bson_iter_recurse(&it, &in))
        return 0;
    while (bson_iter_next(&in)) {
        uint32_t n;
        const char *s = BSON_ITER_HOLDS_UTF8(&in) ? bson_iter_utf8(&in, &n) : NULL;
        if (s == NULL || names_check(s, n, NULL) < 0 || who->n_names == IDENTITY_NAMES_MAX)
            return err_set(e, ERR_CORRUPT, "an API key has a wrong list of names");
        who->names = mem_grow(who->names, who->n_names + 1, sizeof *who->names);
        memcpy(who->names[who->n_names++], s, n + 1);
    }
    return 0;
}

static int key_from_bson(const bson_t *d, struct api_key *out, struct err *e)
{
    struct api_key k = {0};
    bson_iter_t it;
    bson_subtype_t subtype;
    uint32_t n = 0;
    const uint8_t *hash = NULL;
    const char *id = mongo_get_str(d, "_id", NULL);
    const char *role = mongo_get_str(d, "role", NULL);
    if (bson_iter_init_find(&it, d, "hash") && BSON_ITER_HOLDS_BINARY(&it))
        bson_iter_binary(&it, &subtype, &n, &hash);
    if (id == NULL || strlen(id) != KEY_ID_BYTES || role == NULL || role_parse(role, &k.who.role) < 0 ||
        n != sizeof k.hash)
        return err_set(e, ERR_CORRUPT, "an API key does not read as one");
    memcpy(k.id, id, KEY_ID_BYTES);
    memcpy(k.who.id, id, KEY_ID_BYTES);
    memcpy(k.hash, hash, sizeof k.hash);
    mongo_get_i64(d, "created_at", &k.created_ms);
    mongo_get_i64(d, "expires_at", &k.expires_ms);
    if (names_from_bson(d, &k.who, e) < 0) {
        api_key_done(&k);
        return -1;
    }
    *out = k;
    return 0;
}

/* ---- in MongoDB ---- */

static int find_keys(struct mongo_conn *c, const bson_t *filter,
                     int (*fn)(const bson_t *d, void *arg, struct err *e), void *arg, struct err *e)
{
    bson_t opts = BSON_INITIALIZER, sort;
    bson_error_t be;
    const bson_t *d, *reply;
    BSON_APPEND_DOCUMENT_BEGIN(&opts, "sort", &sort);
    BSON_APPEND_INT32(&sort, "_id", 1);
    bson_append_document_end(&opts, &sort);
    mongo_read_opts(c, &opts);
    mongoc_cursor_t *cursor =
        mongoc_collection_find_with_opts(mongo_coll(c, COLL_API_KEYS), filter, &opts, NULL);
    int rc = 0;
    while (rc == 0 && mongoc_cursor_next(cursor, &d))
        rc = fn(d, arg, e);
    if (rc == 0 && mongoc_cursor_error_document(cursor, &be, &reply))
        rc = mongo_err(e, &be, reply, "api_keys");
    mongoc_cursor_destroy(cursor);
    bson_destroy(&opts);
    return rc;
}

struct found {
    struct api_key *out;
    bool any;
};

static int take_key(const bson_t *d, void *arg, struct err *e)
{
    struct found *f = arg;
    if (key_from_bson(d, f->out, e) < 0)
        return -1;
    f->any = true;
    return 0;
}

int key_store_find(struct mongo_conn *c, const char *id, struct api_key *out, struct err *e)
{
    struct found f = {.out = out};
    bson_t *filter = BCON_NEW("_id", BCON_UTF8(id));
    int rc = find_keys(c, filter, take_key, &f, e);
    bson_destroy(filter);
    if (rc == 0 && !f.any)
        return err_set(e, ERR_NOT_FOUND, "no such key");
    return rc;
}

struct each {
    void (*fn)(const struct api_key *k, void *arg);
    void *arg;
};

static int tell_key(const bson_t *d, void *arg, struct err *e)
{
    const struct each *each = arg;
    struct api_key k;
    if (key_from_bson(d, &k, e) < 0)
        return -1;
    each->fn(&k, each->arg);
    api_key_done(&k);
    return 0;
}

int key_store_each(struct mongo_conn *c, void (*fn)(const struct api_key *k, void *arg), void *arg,
                   struct err *e)
{
    struct each each = {fn, arg};
    bson_t all = BSON_INITIALIZER;
    int rc = find_keys(c, &all, tell_key, &each, e);
    bson_destroy(&all);
    return rc;
}

int key_store_add(struct mongo_conn *c, const struct api_key *k, struct err *e)
{
    bson_t doc = BSON_INITIALIZER, opts = BSON_INITIALIZER, reply;
    bson_error_t be;
    int64_t n =
        mongoc_collection_estimated_document_count(mongo_coll(c, COLL_API_KEYS), NULL, NULL, &reply, &be);
    int rc = n < 0 ? mongo_err(e, &be, &reply, "api_keys") : 0;
    bson_destroy(&reply);
    if (rc == 0 && n >= KEYS_MAX)
        rc = err_set(e, ERR_CONFLICT, "there are %d keys already", KEYS_MAX);
    if (rc == 0) {
        key_to_bson(k, &doc);
        mongo_write_opts(c, &opts);
        if (!mongoc_collection_insert_one(mongo_coll(c, COLL_API_KEYS), &doc, &opts, &reply, &be))
            rc = mongo_err(e, &be, &reply, "api_keys");
        bson_destroy(&reply);
    }
    bson_destroy(&opts);
    bson_destroy(&doc);
    return rc;
}

int key_store_put(struct mongo_conn *c, const struct api_key *k, struct err *e)
{
    bson_t doc = BSON_INITIALIZER, opts = BSON_INITIALIZER, reply;
    bson_error_t be;
    bson_t *filter = BCON_NEW("_id", BCON_UTF8(k->id));
    key_to_bson(k, &doc);
    mongo_write_opts(c, &opts);
    BSON_APPEND_BOOL(&opts, "upsert", true);
    int rc = 0;
    if (!mongoc_collection_replace_one(mongo_coll(c, COLL_API_KEYS), filter, &doc, &opts, &reply, &be))
        rc = mongo_err(e, &be, &reply, "api_keys");
    bson_destroy(&reply);
    bson_destroy(&opts);
    bson_destroy(&doc);
    bson_destroy(filter);
    return rc;
}

int key_store_delete(struct mongo_conn *c, const char *id, struct err *e)
{
    bson_t opts = BSON_INITIALIZER, reply;
    bson_error_t be;
    int64_t n = 0;
    bson_t *filter = BCON_NEW("_id", BCON_UTF8(id));
    mongo_write_opts(c, &opts);
    int rc = 0;
    if (!mongoc_collection_delete_one(mongo_coll(c, COLL_API_KEYS), filter, &opts, &reply, &be))
        rc = mongo_err(e, &be, &reply, "api_keys");
    else if (!mongo_get_i64(&reply, "deletedCount", &n) || n == 0)
        rc = err_set(e, ERR_NOT_FOUND, "no such key");
    bson_destroy(&reply);
    bson_destroy(&opts);
    bson_destroy(filter);
    return rc;
}
