/* base64url.h - base64url without padding (RFC 4648, section 5), for cursors and tokens. Any thread.
 *
 * Decoding is strict: one text for one value, so that a signed thing has no second spelling.
 */
#ifndef FEEDMILL_BASE64URL_H
#define FEEDMILL_BASE64URL_H

#include <stddef.h>
#include <stdint.h>
#include "common/err.h"

/* Characters of n encoded bytes, and the NUL. */
#define BASE64URL_SIZE(n) (((n)*4 + 2) / 3 + 1)

/* base64url_encode() writes n bytes as text and a NUL into out[BASE64URL_SIZE(n)]; answers the length of the
 * text. */
size_t base64url_encode(const void *p, size_t n, char *out);

/* base64url_decode() reads n characters of s into out, at most cap bytes; *len becomes their count.
 * ERR_INVALID for other characters, padding, white space, an impossible length, or bits set beyond the last
 * byte; ERR_TOO_LARGE above cap. out may be written to on failure, *len is not. */
int base64url_decode(const char *s, size_t n, void *out, size_t cap, size_t *len, struct err *e) MUST_USE;

#endif
