#include "common/sign.h"

#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/mem.h"

static void sign_fail(const char *what)
{
    fprintf(stderr, "feedmill: %s failed\n", what);
    abort();
}

/* ---- what libcrypto would look up anew with each call ---- */

static struct {
    pthread_once_t once;
    pthread_key_t macs; /* of each thread: the context of its last key */
    EVP_MD *sha256;
    EVP_MAC *hmac;
} lib = {.once = PTHREAD_ONCE_INIT};

struct mac {
    EVP_MAC_CTX *ctx;
    uint8_t key[SIGN_KEY_SIZE];
};

static void mac_free(void *p)
{
    struct mac *m = p;
    EVP_MAC_CTX_free(m->ctx);
    OPENSSL_cleanse(m->key, sizeof m->key);
    free(m);
}

/* Of a thread that ends with the process no destructor runs. */
static void lib_done(void)
{
    struct mac *m = pthread_getspecific(lib.macs);
    if (m != NULL)
        mac_free(m);
    pthread_setspecific(lib.macs, NULL);
    EVP_MAC_free(lib.hmac);
    EVP_MD_free(lib.sha256);
}

static void lib_init(void)
{
    lib.sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    lib.hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    if (lib.sha256 == NULL || lib.hmac == NULL || pthread_key_create(&lib.macs, mac_free) != 0 ||
        atexit(lib_done) != 0)
        sign_fail("SHA-256");
}

static struct mac *mac_of(const uint8_t key[SIGN_KEY_SIZE])
{
    struct mac *m = pthread_getspecific(lib.macs);
    if (m != NULL && CRYPTO_memcmp(m->key, key, SIGN_KEY_SIZE) == 0)
        return m;
    if (m == NULL) {
        m = mem_zero(1, sizeof *m);
        m->ctx = EVP_MAC_CTX_new(lib.hmac);
        pthread_setspecific(lib.macs, m);
    }
    OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char[]){"SHA256"}, 0),
                           OSSL_PARAM_construct_end()};
    memcpy(m->key, key, SIGN_KEY_SIZE);
    if (m->ctx == NULL || EVP_MAC_init(m->ctx, key, SIGN_KEY_SIZE, params) != 1)
        sign_fail("HMAC-SHA256");
    return m;
}

void sign_hmac(const uint8_t key[SIGN_KEY_SIZE], const void *p, size_t n, uint8_t out[SIGN_MAC_SIZE])
{
    size_t len = 0;
    pthread_once(&lib.once, lib_init);
    EVP_MAC_CTX *ctx = mac_of(key)->ctx;
    if (EVP_MAC_init(ctx, NULL, 0, NULL) != 1 || EVP_MAC_update(ctx, p, n) != 1 ||
        EVP_MAC_final(ctx, out, &len, SIGN_MAC_SIZE) != 1 || len != SIGN_MAC_SIZE)
        sign_fail("HMAC-SHA256");
}

void sign_sha256(const void *p, size_t n, uint8_t out[SIGN_MAC_SIZE])
{
    unsigned len = 0;
    pthread_once(&lib.once, lib_init);
    if (EVP_Digest(p, n, out, &len, lib.sha256, NULL) != 1 || len != SIGN_MAC_SIZE)
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
