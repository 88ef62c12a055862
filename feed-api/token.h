/* token.h - user tokens: JWTs (RFC 7519) signed by HMAC-SHA256, and the keys that sign them.
 *
 * Only HS256 is known: the algorithm is not the token's to choose (RFC 8725). `kid` and `exp` are required,
 * `nbf` is minded, `sub` is the user. Signatures are compared in constant time, which libjwt 1.10 does not
 * (CVE-2024-25189); that, and that there is so little to it, is why it is not used. Verified tokens are
 * remembered, so that a request costs one hash.
 *
 * The keys lie in a file of lines "kid base64url-secret" (32 to 256 bytes; empty lines and lines with '#' are
 * skipped); the last one signs, all verify. A file that changed is read again; while it can't be read, the
 * keys known before stay. One thread.
 */
#ifndef FEEDMILL_TOKEN_H
#define FEEDMILL_TOKEN_H

#include <stdint.h>
#include "common/err.h"
#include "common/names.h"

struct tokens;

#define TOKEN_MAX_BYTES 4096

/* tokens_new() reads the keys; makes the file with one random key when there is none. ERR_INVALID names file
 * and line. */
int tokens_new(struct tokens **out, const char *path, struct err *e) MUST_USE;
void tokens_free(struct tokens *t);

/* tokens_refresh() reads the file again if it has changed, looking at most once a second of mono_ms. A file
 * that can't be used is logged once. */
void tokens_refresh(struct tokens *t, int64_t mono_ms);

/* tokens_verify() answers the user of a token that is valid at now_s (seconds since 1970). ERR_INVALID says
 * why not. */
int tokens_verify(struct tokens *t, const char *token, int64_t now_s, char user[NAME_MAX_BYTES + 1],
                  struct err *e) MUST_USE;

/* tokens_open() is the same, and says when the token was issued: ms since 1970, 0 when it does not tell. */
int tokens_open(struct tokens *t, const char *token, int64_t now_s, char user[NAME_MAX_BYTES + 1],
                int64_t *issued_ms, struct err *e) MUST_USE;

/* tokens_sign() makes a token for user, valid from now_s for ttl_s seconds (1 or more). The string is the
 * caller's. tokens_sign_ms() says to the millisecond when: whether it is older than the end of the user's
 * tokens may be a matter of less than a second. */
char *tokens_sign(struct tokens *t, const char *user, int64_t now_s, int64_t ttl_s);
char *tokens_sign_ms(struct tokens *t, const char *user, int64_t now_ms, int64_t ttl_s);

#endif
