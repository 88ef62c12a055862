#include "feed-api/token_ends.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/sign.h"

#define SLOTS_MIN 64

/* Open addressing; at most half full. The id is a hash already. */
struct end {
    uint64_t id[2];
    int64_t at_ms; /* 0: an empty slot */
};

struct token_ends {
    atomic_bool any; /* without a lock: mostly there is none */
    pthread_rwlock_t lock;
    struct end *slots;
    size_t n, n_slots;
};

struct token_ends *token_ends_new(void)
{
    struct token_ends *t = mem_zero(1, sizeof *t);
    pthread_rwlock_init(&t->lock, NULL);
    t->n_slots = SLOTS_MIN;
    t->slots = mem_zero(t->n_slots, sizeof *t->slots);
    return t;
}

void token_ends_free(struct token_ends *t)
{
    if (t == NULL)
        return;
    pthread_rwlock_destroy(&t->lock);
    free(t->slots);
    free(t);
}

void token_ends_id(const char *user, char out[TOKEN_ENDS_ID_SIZE])
{
    unsigned char hash[SIGN_MAC_SIZE];
    sign_sha256(user, strlen(user), hash);
    for (size_t i = 0; i < (TOKEN_ENDS_ID_SIZE - 1) / 2; i++)
        snprintf(out + 2 * i, 3, "%02x", hash[i]);
}

static bool parse_id(const char *text, uint64_t out[2])
{
    char half[17];
    if (strlen(text) != TOKEN_ENDS_ID_SIZE - 1 || strspn(text, "0123456789abcdef") != TOKEN_ENDS_ID_SIZE - 1)
        return false;
    for (int i = 0; i < 2; i++) {
        memcpy(half, text + 16 * (size_t)i, 16);
        half[16] = '\0';
        out[i] = strtoull(half, NULL, 16);
    }
    return true;
}

/* The slot of id, or the empty one where it would go. */
static struct end *find(struct end *slots, size_t n, const uint64_t id[2])
{
    size_t at = (size_t)id[0] % n;
    while (slots[at].at_ms != 0 && (slots[at].id[0] != id[0] || slots[at].id[1] != id[1]))
        at = (at + 1) % n;
    return &slots[at];
}

static void grow(struct token_ends *t)
{
    size_t n = 2 * t->n_slots;
    struct end *slots = mem_zero(n, sizeof *slots);
    for (size_t i = 0; i < t->n_slots; i++) {
        if (t->slots[i].at_ms != 0)
            *find(slots, n, t->slots[i].id) = t->slots[i];
    }
    free(t->slots);
    t->slots = slots;
    t->n_slots = n;
}

void token_ends_take(struct token_ends *t, const char *id, int64_t at_ms)
{
    uint64_t key[2];
    if (at_ms <= 0 || !parse_id(id, key))
        return;
    pthread_rwlock_wrlock(&t->lock);
    struct end *end = find(t->slots, t->n_slots, key);
    if (end->at_ms == 0) {
        memcpy(end->id, key, sizeof end->id);
        t->n++;
    }
    if (at_ms > end->at_ms)
        end->at_ms = at_ms;
    if (2 * t->n > t->n_slots)
        grow(t);
    pthread_rwlock_unlock(&t->lock);
    atomic_store(&t->any, true);
}

bool token_ends_refuses(struct token_ends *t, const char *user, int64_t issued_ms)
{
    char id[TOKEN_ENDS_ID_SIZE];
    uint64_t key[2];
    if (!atomic_load_explicit(&t->any, memory_order_acquire))
        return false;
    token_ends_id(user, id);
    if (!parse_id(id, key))
        return false;
    pthread_rwlock_rdlock(&t->lock);
    const struct end *end = find(t->slots, t->n_slots, key);
    bool refuses = end->at_ms != 0 && issued_ms <= end->at_ms;
    pthread_rwlock_unlock(&t->lock);
    return refuses;
}

/* ---- the store ---- */

int token_ends_load(struct token_ends *t, struct mongo_conn *c, struct err *e)
{
    bson_t all = BSON_INITIALIZER, opts = BSON_INITIALIZER;
    const bson_t *d, *reply;
    bson_error_t be;
    if (mongo_conn_fresh(c, NULL, e) != 0)
        return -1;
    mongo_read_opts(c, &opts);
    mongoc_cursor_t *cursor =
        mongoc_collection_find_with_opts(mongo_coll(c, COLL_TOKEN_ENDS), &all, &opts, NULL);
    while (mongoc_cursor_next(cursor, &d)) {
        const char *id = mongo_get_str(d, "_id", NULL);
        int64_t at;
        if (id != NULL && mongo_get_i64(d, "at", &at))
            token_ends_take(t, id, at);
    }
    int rc = 0;
    if (mongoc_cursor_error_document(cursor, &be, &reply))
        rc = mongo_err(e, &be, reply, "token_ends");
    mongoc_cursor_destroy(cursor);
    bson_destroy(&opts);
    bson_destroy(&all);
    return rc;
}

static int check_room(struct mongo_conn *c, struct err *e)
{
    bson_t reply;
    bson_error_t be;
    int64_t n =
        mongoc_collection_estimated_document_count(mongo_coll(c, COLL_TOKEN_ENDS), NULL, NULL, &reply, &be);
    int rc = n < 0 ? mongo_err(e, &be, &reply, "token_ends") : 0;
    bson_destroy(&reply);
    if (rc == 0 && n >= TOKEN_ENDS_MAX)
        rc = err_set(e, ERR_CONFLICT, "tokens of %d users were ended already", TOKEN_ENDS_MAX);
    return rc;
}

int token_ends_store(struct mongo_conn *c, const char *user, int64_t at_ms, struct err *e)
{
    char id[TOKEN_ENDS_ID_SIZE];
    bson_t opts = BSON_INITIALIZER, reply;
    bson_error_t be;
    token_ends_id(user, id);
    int rc = check_room(c, e);
    bson_t *filter = BCON_NEW("_id", BCON_UTF8(id));
    bson_t *update = BCON_NEW("$max", "{", "at", BCON_INT64(at_ms), "}");
    mongo_write_opts(c, &opts);
    BSON_APPEND_BOOL(&opts, "upsert", true);
    for (int tries = 0; rc == 0 && tries < 2; tries++) {
        struct err why = {0};
        bool ok =
            mongoc_collection_update_one(mongo_coll(c, COLL_TOKEN_ENDS), filter, update, &opts, &reply, &be);
        if (!ok)
            rc = mongo_err(&why, &be, &reply, "token_ends");
        bson_destroy(&reply);
        if (ok)
            break;
        /* Two first ones at once: one loses against the unique _id, and then finds it. */
        if (why.code == ERR_CONFLICT && tries == 0)
            rc = 0;
        else if (e != NULL)
            *e = why;
    }
    bson_destroy(&opts);
    bson_destroy(filter);
    bson_destroy(update);
    return rc;
}
