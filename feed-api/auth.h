/* auth.h - who asks, and what he may.
 *
 * Credentials: an API key "fm_<id>_<secret>" whose SHA-256 lies in MongoDB, or a user token (JWT, HS256 only,
 * `kid` required and found in the keys file, exp and nbf checked, `sub` = user). Keys are cached for at most
 * 60 s and dropped when the log tells of a change, so that a revocation acts within a second; unknown keys
 * are remembered for 1 s (bounded), so that guessing costs MongoDB little. Secrets are compared in constant
 * time and never logged. auth_check() may be called on any thread and does not block: when the key has to be
 * fetched it answers AUTH_ASK and the router asks auth_fetch() in a worker.
 */
#ifndef FEEDMILL_AUTH_H
#define FEEDMILL_AUTH_H

#include <stdbool.h>
#include "common/err.h"
#include "common/metrics.h"
#include "common/mongo.h"
#include "common/names.h"

enum role { ROLE_NONE, ROLE_ADMIN, ROLE_SERVICE, ROLE_PUBLISHER, ROLE_USER };

#define IDENTITY_NAMES_MAX 64

struct identity {
    enum role role;
    char id[NAME_MAX_BYTES + 1];       /* key id, or the user of a token */
    unsigned n_names;                  /* ROLE_PUBLISHER: the publishers that it is bound to */
    char (*names)[NAME_MAX_BYTES + 1]; /* owned: identity_done() */
};
void identity_done(struct identity *who);

/* identity_publishes() says whether who may publish as that publisher (admin; publisher key bound to the
 * name). */
bool identity_publishes(const struct identity *who, const char *publisher);

enum auth_answer { AUTH_OK, AUTH_NONE /* no credential */, AUTH_BAD /* not a valid one */, AUTH_ASK };

struct auth;
struct auth_options {
    const char *jwt_keys_file; /* lines "kid base64url-secret" (at least 32 bytes), mode 600; made with one
                                  key when absent; read again when it changes. The last line signs. */
    const char *admin_key_file;
};
int auth_new(struct auth **out, const struct auth_options *o, struct metrics *m, struct err *e) MUST_USE;
void auth_free(struct auth *a);

/* auth_bootstrap() makes sure that the key in the admin key file is an admin key in MongoDB; makes both (mode
 * 600, never half-written) when the file is absent. Blocking. */
int auth_bootstrap(struct auth *a, struct mongo_conn *c, struct err *e) MUST_USE;

/* auth_check() fills *out when it answers AUTH_OK; the caller ends it by identity_done(). */
enum auth_answer auth_check(struct auth *a, const char *authorization, struct identity *out);

/* auth_fetch() fetches the key and answers AUTH_OK or AUTH_BAD for a request that came before the call; who
 * as auth_check() does. In a worker. ERR_UNAVAILABLE, ERR_TIMEOUT. */
int auth_fetch(struct auth *a, struct mongo_conn *c, const char *authorization, enum auth_answer *answer,
               struct identity *out, struct err *e) MUST_USE;

void auth_forget_key(struct auth *a, const char *key_id); /* any thread */
void auth_forget_all(struct auth *a);                     /* any thread: the tail lost its place */

/* auth_end_tokens() ends all tokens of user that were issued before now, here at once and, by the log, at the
 * other processes within a second. In a worker. ERR_CONFLICT: too many users had theirs ended.
 * auth_tokens_ended(): so the log tells (see token_ends.h); any thread. auth_load_token_ends() reads all that
 * were ended, after the tail lost its place; blocking. */
int auth_end_tokens(struct auth *a, struct mongo_conn *c, const char *user, struct err *e) MUST_USE;
void auth_tokens_ended(struct auth *a, const char *id, int64_t at_ms);
int auth_load_token_ends(struct auth *a, struct mongo_conn *c, struct err *e) MUST_USE;

/* auth_set_offline() is told by health.h whether MongoDB is known to be down: then known keys stay good for
 * up to an hour, since nobody can revoke one either. Any thread. */
void auth_set_offline(struct auth *a, bool offline);

#define AUTH_TTL_MIN_S 60
#define AUTH_TTL_MAX_S 86400

/* auth_sign_token() makes a user token valid for ttl_s seconds; *expires_at in wall seconds. The string is
 * the caller's. */
int auth_sign_token(struct auth *a, const char *user, int64_t ttl_s, char **token, int64_t *expires_at,
                    struct err *e) MUST_USE;

#endif
