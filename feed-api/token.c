#include "feed-api/token.h"

#include <assert.h>
#include <jansson.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/base64url.h"
#include "common/buf.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/sign.h"
#include "feed-api/secret_file.h"

#define KEYS_MAX       64
#define KID_MAX        64
#define SECRET_MIN     32
#define SECRET_MAX     256
#define SLOTS          2048 /* tokens remembered; a newer one takes the place of another */
#define REFRESH_MS     1000
#define PART_MAX_BYTES (TOKEN_MAX_BYTES * 3 / 4)

struct token_key {
    char kid[KID_MAX + 1];
    unsigned char secret[SECRET_MAX];
    size_t len;
};

struct slot {
    unsigned char digest[SIGN_MAC_SIZE];
    int64_t not_before, expires;   /* seconds */
    int64_t issued_ms;             /* 0: it does not say */
    char user[NAME_MAX_BYTES + 1]; /* "": an empty slot */
};

struct file_stamp {
    struct timespec mtime;
    off_t size;
    ino_t inode;
};

struct tokens {
    char *path;
    struct file_stamp stamp;
    int64_t looked_ms;
    struct token_key keys[KEYS_MAX];
    size_t n_keys;
    struct slot slots[SLOTS];
};

/* ---- the file of keys ---- */

static int parse_line(char *line, struct token_key *out, struct err *e)
{
    char *rest = line;
    char *kid = strsep(&rest, " \t");
    if (rest == NULL)
        return err_set(e, ERR_INVALID, "expected: kid secret");
    rest += strspn(rest, " \t");
    rest[strcspn(rest, " \t\r")] = '\0';
    size_t n = strlen(kid);
    if (n > KID_MAX || !utf8_valid(kid, n))
        return err_set(e, ERR_INVALID, "a kid has at most %d bytes of UTF-8", KID_MAX);
    memset(out, 0, sizeof *out);
    memcpy(out->kid, kid, n);
    if (base64url_decode(rest, strlen(rest), out->secret, SECRET_MAX, &out->len, e) < 0)
        return err_prefix(e, "the secret");
    if (out->len < SECRET_MIN)
        return err_set(e, ERR_INVALID, "the secret must be base64url of at least %d bytes", SECRET_MIN);
    return 0;
}

static const struct token_key *find_key(const struct token_key *keys, size_t n, const char *kid)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(keys[i].kid, kid) == 0)
            return &keys[i];
    }
    return NULL;
}

static int parse_file(char *text, struct token_key keys[KEYS_MAX], size_t *n_keys, struct err *e)
{
    size_t n = 0;
    int number = 0;
    for (char *rest = text, *line; (line = strsep(&rest, "\n")) != NULL;) {
        struct token_key key;
        number++;
        line += strspn(line, " \t\r");
        if (line[0] == '\0' || line[0] == '#')
            continue;
        if (parse_line(line, &key, e) < 0)
            return err_prefix(e, "line %d", number);
        if (n == KEYS_MAX)
            return err_set(e, ERR_INVALID, "line %d: more than %d keys", number, KEYS_MAX);
        if (find_key(keys, n, key.kid) != NULL)
            return err_set(e, ERR_INVALID, "line %d: its kid is there already", number);
        keys[n++] = key;
    }
    if (n == 0)
        return err_set(e, ERR_INVALID, "there is no key");
    *n_keys = n;
    return 0;
}

static bool stamp_of(const char *path, struct file_stamp *out)
{
    struct stat st;
    memset(out, 0, sizeof *out);
    if (stat(path, &st) != 0)
        return false;
    out->mtime = st.st_mtim;
    out->size = st.st_size;
    out->inode = st.st_ino;
    return true;
}

static bool stamps_equal(const struct file_stamp *a, const struct file_stamp *b)
{
    return a->mtime.tv_sec == b->mtime.tv_sec && a->mtime.tv_nsec == b->mtime.tv_nsec && a->size == b->size &&
           a->inode == b->inode;
}

static int load_keys(struct tokens *t, struct err *e)
{
    char *text;
    struct token_key *keys = mem_zero(KEYS_MAX, sizeof *keys);
    size_t n;
    int rc = secret_file_read(t->path, &text, e);
    if (rc == 0) {
        rc = parse_file(text, keys, &n, e);
        if (rc < 0)
            err_prefix(e, "%.100s", t->path);
        explicit_bzero(text, strlen(text));
        free(text);
    }
    if (rc == 0) {
        memcpy(t->keys, keys, sizeof t->keys);
        t->n_keys = n;
        memset(t->slots, 0, sizeof t->slots); /* they may have been signed by a key that is gone */
    }
    explicit_bzero(keys, KEYS_MAX * sizeof *keys);
    free(keys);
    return rc;
}

static int make_file(const char *path, struct err *e)
{
    unsigned char id[6], secret[SECRET_MIN];
    char kid[BASE64URL_SIZE(sizeof id)], text[BASE64URL_SIZE(sizeof secret)], line[128];
    sign_random(id, sizeof id);
    sign_random(secret, sizeof secret);
    base64url_encode(id, sizeof id, kid);
    base64url_encode(secret, sizeof secret, text);
    snprintf(line, sizeof line, "k-%s %s\n", kid, text);
    return secret_file_make(path, line, e);
}

int tokens_new(struct tokens **out, const char *path, struct err *e)
{
    struct err why;
    struct tokens *t = mem_zero(1, sizeof *t);
    t->path = mem_strdup(path);
    stamp_of(path, &t->stamp);
    int rc = load_keys(t, &why);
    if (rc < 0 && why.code == ERR_NOT_FOUND) {
        rc = make_file(path, &why);
        if (rc == 0 || why.code == ERR_CONFLICT) { /* another process was faster: its key will do */
            stamp_of(path, &t->stamp);
            rc = load_keys(t, &why);
        }
    }
    if (rc < 0) {
        tokens_free(t);
        return err_set(e, ERR_INVALID, "%s", why.msg);
    }
    *out = t;
    return 0;
}

void tokens_free(struct tokens *t)
{
    if (t == NULL)
        return;
    explicit_bzero(t->keys, sizeof t->keys);
    free(t->path);
    free(t);
}

void tokens_refresh(struct tokens *t, int64_t mono_ms)
{
    struct file_stamp stamp;
    struct err e;
    if (mono_ms - t->looked_ms < REFRESH_MS)
        return;
    t->looked_ms = mono_ms;
    stamp_of(t->path, &stamp);
    if (stamps_equal(&stamp, &t->stamp))
        return;
    t->stamp = stamp; /* a file that is being written changes again */
    if (load_keys(t, &e) < 0)
        log_event(LOG_ERROR, "token_keys_kept", LOG_ERR(&e));
    else
        log_event(LOG_INFO, "token_keys_read", LOG_U("keys", t->n_keys));
}

/* ---- signatures ---- */

static void mac(const struct token_key *key, const char *text, size_t n, unsigned char out[SIGN_MAC_SIZE])
{
    unsigned len = 0;
    const unsigned char *p =
        HMAC(EVP_sha256(), key->secret, (int)key->len, (const unsigned char *)text, n, out, &len);
    assert(p != NULL && len == SIGN_MAC_SIZE);
    (void)p;
}

static void add_part(struct buf *out, const struct buf *json)
{
    char *text = mem_alloc(BASE64URL_SIZE(json->len));
    size_t n = base64url_encode(json->data, json->len, text);
    buf_add(out, text, n);
    free(text);
}

char *tokens_sign(struct tokens *t, const char *user, int64_t now_s, int64_t ttl_s)
{
    return tokens_sign_ms(t, user, now_s * 1000, ttl_s);
}

char *tokens_sign_ms(struct tokens *t, const char *user, int64_t now_ms, int64_t ttl_s)
{
    const struct token_key *key = &t->keys[t->n_keys - 1];
    struct buf json, token;
    unsigned char sum[SIGN_MAC_SIZE];
    buf_init(&json, PART_MAX_BYTES);
    buf_init(&token, TOKEN_MAX_BYTES);
    buf_add_str(&json, "{\"alg\":\"HS256\",\"typ\":\"JWT\",\"kid\":");
    buf_add_json(&json, key->kid);
    buf_add_char(&json, '}');
    add_part(&token, &json);
    buf_reset(&json);
    buf_add_str(&json, "{\"sub\":");
    buf_add_json(&json, user);
    buf_printf(&json, ",\"iat\":%lld", (long long)(now_ms / 1000));
    if (now_ms % 1000) /* RFC 7519, 2: a NumericDate may have a fraction */
        buf_printf(&json, ".%03d", (int)(now_ms % 1000));
    buf_printf(&json, ",\"exp\":%lld}", (long long)(now_ms / 1000 + ttl_s));
    buf_add_char(&token, '.');
    add_part(&token, &json);
    mac(key, token.data, token.len, sum);
    struct buf raw = {.data = (char *)sum, .len = sizeof sum};
    buf_add_char(&token, '.');
    add_part(&token, &raw);
    buf_done(&json);
    assert(!token.full);
    return buf_take(&token);
}

/* ---- verifying ---- */

/* One base64url part of JSON; NULL when it is not an object without repeated members. */
static json_t *decode_part(const char *s, size_t n)
{
    char text[PART_MAX_BYTES];
    size_t len;
    if (base64url_decode(s, n, text, sizeof text, &len, NULL) < 0)
        return NULL;
    json_t *o = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    if (o != NULL && !json_is_object(o)) {
        json_decref(o);
        o = NULL;
    }
    return o;
}

static int header_key(const struct tokens *t, const json_t *header, const struct token_key **out,
                      struct err *e)
{
    const char *alg = json_string_value(json_object_get(header, "alg"));
    const char *kid = json_string_value(json_object_get(header, "kid"));
    if (alg == NULL || strcmp(alg, "HS256") != 0)
        return err_set(e, ERR_INVALID, "the token is not signed by HS256");
    if (kid == NULL)
        return err_set(e, ERR_INVALID, "the token names no kid");
    if (json_object_get(header, "crit") != NULL) /* RFC 7515, 4.1.11: what it lists has to be understood */
        return err_set(e, ERR_INVALID, "the token asks for an extension (crit)");
    *out = find_key(t->keys, t->n_keys, kid);
    if (*out == NULL)
        return err_set(e, ERR_INVALID, "the token's kid is not known here");
    return 0;
}

static int numeric_date(const json_t *o, const char *name, bool required, int64_t missing, int64_t *out,
                        struct err *e)
{
    const json_t *v = json_object_get(o, name);
    if (v == NULL && !required) {
        *out = missing;
        return 0;
    }
    double d = json_number_value(v);
    if (!json_is_number(v) || !(d >= 0 && d < 1e15))
        return err_set(e, ERR_INVALID, "the token's %s is missing or no time", name);
    *out = (int64_t)d;
    return 0;
}

static int read_issued(const json_t *claims, int64_t *out_ms, struct err *e)
{
    const json_t *v = json_object_get(claims, "iat");
    double d = json_number_value(v);
    if (v != NULL && (!json_is_number(v) || !(d >= 0 && d < 1e12)))
        return err_set(e, ERR_INVALID, "the token's iat is no time");
    *out_ms = (int64_t)(d * 1000 + 0.5);
    return 0;
}

static int read_claims(const json_t *claims, struct slot *out, struct err *e)
{
    const json_t *sub = json_object_get(claims, "sub");
    if (!json_is_string(sub))
        return err_set(e, ERR_INVALID, "the token names no user (sub)");
    const char *user = json_string_value(sub);
    size_t n = json_string_length(sub);
    if (names_check(user, n, e) < 0)
        return err_prefix(e, "the token's sub");
    if (numeric_date(claims, "exp", true, 0, &out->expires, e) < 0 ||
        numeric_date(claims, "nbf", false, 0, &out->not_before, e) < 0 ||
        read_issued(claims, &out->issued_ms, e) < 0)
        return -1;
    memcpy(out->user, user, n + 1);
    return 0;
}

/* Fills all of *out but the digest. The claims are not looked at before the signature is known to be right.
 */
static int open_token(const struct tokens *t, const char *token, size_t n, struct slot *out, struct err *e)
{
    const char *dot = memchr(token, '.', n);
    const char *last = memrchr(token, '.', n);
    if (dot == NULL || last == dot)
        return err_set(e, ERR_INVALID, "not a token");
    unsigned char given[SIGN_MAC_SIZE], right[SIGN_MAC_SIZE];
    size_t len;
    const struct token_key *key = NULL;
    json_t *header = decode_part(token, (size_t)(dot - token));
    json_t *claims = NULL;
    int rc = header == NULL ? err_set(e, ERR_INVALID, "not a token") : header_key(t, header, &key, e);
    if (rc < 0)
        goto out;
    mac(key, token, (size_t)(last - token), right);
    if (base64url_decode(last + 1, n - (size_t)(last + 1 - token), given, sizeof given, &len, NULL) < 0 ||
        len != sizeof given || !sign_equal(given, right, sizeof given)) {
        rc = err_set(e, ERR_INVALID, "the token's signature is wrong");
        goto out;
    }
    claims = decode_part(dot + 1, (size_t)(last - dot - 1));
    rc = claims == NULL ? err_set(e, ERR_INVALID, "the token's claims are no JSON object")
                        : read_claims(claims, out, e);
out:
    json_decref(header);
    json_decref(claims);
    return rc;
}

int tokens_verify(struct tokens *t, const char *token, int64_t now_s, char user[NAME_MAX_BYTES + 1],
                  struct err *e)
{
    int64_t issued_ms;
    return tokens_open(t, token, now_s, user, &issued_ms, e);
}

int tokens_open(struct tokens *t, const char *token, int64_t now_s, char user[NAME_MAX_BYTES + 1],
                int64_t *issued_ms, struct err *e)
{
    size_t n = strnlen(token, TOKEN_MAX_BYTES + 1);
    if (n > TOKEN_MAX_BYTES)
        return err_set(e, ERR_INVALID, "a token has at most %d bytes", TOKEN_MAX_BYTES);
    unsigned char digest[SIGN_MAC_SIZE];
    unsigned at;
    sign_sha256(token, n, digest);
    memcpy(&at, digest, sizeof at);
    struct slot *slot = &t->slots[at % SLOTS];
    /* The digest is of a text that the client holds: nothing to learn from how long this takes. */
    if (slot->user[0] == '\0' || memcmp(slot->digest, digest, sizeof digest) != 0) {
        struct slot fresh = {0};
        if (open_token(t, token, n, &fresh, e) < 0)
            return -1;
        memcpy(fresh.digest, digest, sizeof digest);
        *slot = fresh;
    }
    if (now_s >= slot->expires)
        return err_set(e, ERR_INVALID, "the token has expired");
    if (now_s < slot->not_before)
        return err_set(e, ERR_INVALID, "the token is not valid yet");
    strcpy(user, slot->user);
    *issued_ms = slot->issued_ms;
    return 0;
}
