#include "common/sign.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

static void sign_fail(const char *what)
{
    fprintf(stderr, "feedmill: %s failed\n", what);
    abort();
}

void sign_hmac(const uint8_t key[SIGN_KEY_SIZE], const void *p, size_t n, uint8_t out[SIGN_MAC_SIZE])
{
    unsigned len = 0;
    if (HMAC(EVP_sha256(), key, SIGN_KEY_SIZE, p, n, out, &len) == NULL || len != SIGN_MAC_SIZE)
        sign_fail("HMAC-SHA256");
}

void sign_sha256(const void *p, size_t n, uint8_t out[SIGN_MAC_SIZE])
{
    unsigned len = 0;
    if (EVP_Digest(p, n, out, &len, EVP_sha256(), NULL) != 1 || len != SIGN_MAC_SIZE)
        sign_fail("SHA-256");
}

bool sign_equal(const void *a, const void *b, size_t n)
{
    return CRYPTO_memcmp(a, b, n) == 0;
}

void sign_random(void *out, size_t n)
{
    uint8_t *p = out;
    while (n > 0) {
        ssize_t got = getrandom(p, n, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            sign_fail("getrandom");
        p += got;
        n -= (size_t)got;
    }
}
