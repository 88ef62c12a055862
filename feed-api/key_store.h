/* key_store.h - API keys in MongoDB (collection api_keys) and as text: "fm_<id>_<secret>".
 *
 *   {_id: id, hash: SHA-256 of the secret's bytes, role, names: [...], created_at, expires_at?}
 *
 * Blocking: in a worker. Only the hash is stored; 32 random bytes need no salt and no slow hash.
 */
#ifndef FEEDMILL_KEY_STORE_H
#define FEEDMILL_KEY_STORE_H

#include "common/mongo.h"
#include "common/sign.h"
#include "feed-api/auth.h"

#define KEY_ID_BYTES     16 /* lower-case hex digits */
#define KEY_SECRET_BYTES 32 /* before base64url */
#define KEY_TEXT_SIZE    64 /* "fm_", id, "_", 43 characters, NUL */
#define KEYS_MAX         10000

struct api_key {
    char id[KEY_ID_BYTES + 1];
    unsigned char hash[SIGN_MAC_SIZE];
    struct identity who; /* role and names; owned */
    int64_t created_ms;
    int64_t expires_ms; /* wall clock; 0: never */
};
void api_key_done(struct api_key *k);

/* key_text_make() makes a random key: its text, and id and hash in *k. key_text_read() reads one back; -1
 * when it is none. */
void key_text_make(struct api_key *k, char text[KEY_TEXT_SIZE]);
int key_text_read(const char *text, char id[KEY_ID_BYTES + 1], unsigned char hash[SIGN_MAC_SIZE]) MUST_USE;

const char *role_name(enum role r); /* "admin", "service", "publisher"; "user" for tokens */
int role_parse(const char *s, enum role *out) MUST_USE; /* of keys: the first three */

/* key_store_find(): ERR_NOT_FOUND; the caller owns *out. */
int key_store_find(struct mongo_conn *c, const char *id, struct api_key *out, struct err *e) MUST_USE;

/* key_store_add() adds a key: ERR_CONFLICT when there are KEYS_MAX. key_store_put() adds it or takes the
 * place of the one with its id. */
int key_store_add(struct mongo_conn *c, const struct api_key *k, struct err *e) MUST_USE;
int key_store_put(struct mongo_conn *c, const struct api_key *k, struct err *e) MUST_USE;
int key_store_delete(struct mongo_conn *c, const char *id, struct err *e) MUST_USE; /* ERR_NOT_FOUND */

/* key_store_each() calls fn for every key in order of id; what fn gets lives during the call. */
int key_store_each(struct mongo_conn *c, void (*fn)(const struct api_key *k, void *arg), void *arg,
                   struct err *e) MUST_USE;

#endif
