/* sign.h - what can't be forged or guessed: HMAC-SHA256, SHA-256, comparing in constant time, random bytes.
 *
 * From libcrypto and the system. None of these fails: where the library or the system does, the process
 * aborts, because going on would mean going on unsigned. Any thread.
 */
#ifndef FEEDMILL_SIGN_H
#define FEEDMILL_SIGN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIGN_KEY_SIZE 32
#define SIGN_MAC_SIZE 32 /* of an HMAC and of a hash */

/* sign_hmac() is HMAC-SHA256 (RFC 2104) of n bytes at p. */
void sign_hmac(const uint8_t key[SIGN_KEY_SIZE], const void *p, size_t n, uint8_t out[SIGN_MAC_SIZE]);

void sign_sha256(const void *p, size_t n, uint8_t out[SIGN_MAC_SIZE]);

/* sign_equal() compares n bytes in a time that does not depend on them. n = 0 is equal. */
bool sign_equal(const void *a, const void *b, size_t n);

/* sign_random() fills n bytes from getrandom(2); waits for the system's first seeding at boot, else never. */
void sign_random(void *out, size_t n);

#endif
