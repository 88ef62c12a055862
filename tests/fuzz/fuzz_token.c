/* User tokens and the file of their keys. The first byte says what the rest is:
 *   0 - a token as it is: none that was not signed is taken;
 *   1 - two lines, the header and the claims of a token that is signed with the right key: taken exactly when
 * a plain reading of RFC 7519 and of what token.h asks for takes it, for as long as it says, and not with one
 *       character changed (a third line says where and to what);
 *   2 - a file of keys: what is taken signs with its last key and verifies what it signed; what is not leaves
 * the keys known before as they are.
 */
#include "tests/fuzz/fuzz.h"

#include <jansson.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base64url.h"
#include "common/log.h"
#include "common/sign.h"
#include "feed-api/secret_file.h"
#include "feed-api/token.h"

#define NOW      INT64_C(1700000000)
#define KID      "k1"
#define SECRET   "0123456789abcdef0123456789abcdef"
#define PART_MAX (TOKEN_MAX_BYTES * 3 / 4)

static char path[64];

static void write_keys(const char *text, size_t n)
{
    char fresh[sizeof path + 8];
    if (path[0] == '\0')
        snprintf(path, sizeof path, "/tmp/feedmill-fuzz-keys.%d", (int)getpid());
    snprintf(fresh, sizeof fresh, "%s.new", path);
    FILE *f = fopen(fresh, "w");
    assert(f != NULL);
    size_t written = fwrite(text, 1, n, f);
    int rc = fclose(f);
    assert(rc == 0 && written == n);
    assert(chmod(fresh, 0600) == 0 && rename(fresh, path) == 0);
}

static struct tokens *known_key(void)
{
    char secret[BASE64URL_SIZE(sizeof SECRET)], line[128];
    struct tokens *t;
    struct err e;
    base64url_encode(SECRET, strlen(SECRET), secret);
    int n = snprintf(line, sizeof line, KID " %s\n", secret);
    write_keys(line, (size_t)n);
    assert(tokens_new(&t, path, &e) == 0);
    return t;
}

static bool verifies(struct tokens *t, const char *token, int64_t now, char user[NAME_MAX_BYTES + 1])
{
    struct err e = {0}, again;
    char other[NAME_MAX_BYTES + 1] = "untouched";
    strcpy(user, "untouched");
    bool taken = tokens_verify(t, token, now, user, &e) == 0;
    /* The second time it may come from memory. */
    assert((tokens_verify(t, token, now, other, &again) == 0) == taken && strcmp(user, other) == 0);
    assert(taken ? names_check(user, strlen(user), &e) == 0
                 : e.msg[0] != '\0' && strcmp(user, "untouched") == 0);
    return taken;
}

/* ---- a token as it is ---- */

static void verify_raw(struct tokens *t, const char *token)
{
    char user[NAME_MAX_BYTES + 1];
    assert(!verifies(t, token, NOW, user));
}

/* ---- a token that is signed ---- */

static char *sign_parts(const char *header, const char *claims)
{
    size_t h = strlen(header), c = strlen(claims), n;
    char *token = mem_alloc(BASE64URL_SIZE(h) + BASE64URL_SIZE(c) + BASE64URL_SIZE(SIGN_MAC_SIZE));
    uint8_t mac[SIGN_MAC_SIZE];
    n = base64url_encode(header, h, token);
    token[n++] = '.';
    n += base64url_encode(claims, c, token + n);
    sign_hmac((const uint8_t *)SECRET, token, n, mac);
    token[n++] = '.';
    base64url_encode(mac, sizeof mac, token + n);
    return token;
}

static json_t *read_part(const char *text)
{
    json_t *o = strlen(text) <= PART_MAX ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
    if (json_is_object(o))
        return o;
    json_decref(o);
    return NULL;
}

static bool text_is(const json_t *o, const char *name, const char *value)
{
    const char *s = json_string_value(json_object_get(o, name));
    return s != NULL && strcmp(s, value) == 0;
}

/* Seconds, as whole ones; false when there is something else. */
static bool date_of(const json_t *v, int64_t *out)
{
    double d = json_number_value(v);
    if (!json_is_number(v) || !(d >= 0 && d < 1e15))
        return false;
    *out = (int64_t)d;
    return true;
}

/* Whether it is to be taken at NOW; its user and its end. */
static bool is_right(const char *header, const char *claims, const char **user, int64_t *end, json_t **keep)
{
    json_t *h = read_part(header), *c = read_part(claims);
    struct err e;
    int64_t from = 0;
    bool right = h != NULL && c != NULL && text_is(h, "alg", "HS256") && text_is(h, "kid", KID) &&
                 json_object_get(h, "crit") == NULL;
    const json_t *nbf = json_object_get(c, "nbf");
    *user = json_string_value(json_object_get(c, "sub"));
    right = right && *user != NULL && names_check(*user, strlen(*user), &e) == 0 &&
            date_of(json_object_get(c, "exp"), end) && *end > NOW &&
            (nbf == NULL || (date_of(nbf, &from) && from <= NOW));
    json_decref(h);
    *keep = c;
    return right;
}

static void change_one(struct tokens *t, char *token, const char *where)
{
    char user[NAME_MAX_BYTES + 1];
    size_t n = strlen(where), at = n > 0 ? (unsigned char)where[0] * 256u : 0;
    at = n > 1 ? at + (unsigned char)where[1] : at;
    at %= strlen(token);
    if (n < 3 || token[at] == where[2])
        return;
    token[at] = where[2];
    assert(!verifies(t, token, NOW, user));
}

static void verify_signed(struct tokens *t, struct fuzz_text text)
{
    const char *header = fuzz_line(&text), *claims = fuzz_line(&text), *where = fuzz_line(&text), *right_user;
    char user[NAME_MAX_BYTES + 1];
    int64_t end = 0;
    json_t *keep;
    if (claims == NULL)
        return;
    char *token = sign_parts(header, claims);
    bool right = is_right(header, claims, &right_user, &end, &keep) && strlen(token) <= TOKEN_MAX_BYTES;
    assert(verifies(t, token, NOW, user) == right);
    if (right) {
        assert(strcmp(user, right_user) == 0);
        assert(verifies(t, token, end - 1, user) && !verifies(t, token, end, user));
    }
    if (where != NULL)
        change_one(t, token, where);
    json_decref(keep);
    free(token);
}

/* ---- keys ---- */

/* The kid of the file's last key, read once more by other means; "" when there is none. */
static void last_kid(struct fuzz_text text, char *out, size_t size)
{
    out[0] = '\0';
    for (char *line; (line = fuzz_line(&text)) != NULL;) {
        line += strspn(line, " \t\r");
        if (line[0] != '\0' && line[0] != '#')
            snprintf(out, size, "%.*s", (int)strcspn(line, " \t"), line);
    }
}

static void check_signer(const char *token, const char *kid)
{
    char text[PART_MAX + 1];
    size_t n;
    assert(base64url_decode(token, strcspn(token, "."), text, PART_MAX, &n, NULL) == 0);
    json_t *h = json_loadb(text, n, 0, NULL);
    assert(h != NULL && text_is(h, "kid", kid) && text_is(h, "alg", "HS256"));
    json_decref(h);
}

static void load_keys(struct fuzz_text text)
{
    char user[NAME_MAX_BYTES + 1], kid[256];
    struct tokens *before = known_key(), *t = NULL;
    struct err e = {0};
    char *old = tokens_sign(before, "ann", NOW, 60);
    write_keys(text.p, text.n);
    bool taken = text.n > 0 && tokens_new(&t, path, &e) == 0;
    tokens_refresh(before, 2000);
    if (taken) {
        char *token = tokens_sign(t, "bob", NOW, 60);
        assert(memchr(text.p, '\0', text.n) == NULL && text.n <= SECRET_FILE_MAX);
        last_kid(text, kid, sizeof kid);
        check_signer(token, kid);
        assert(verifies(t, token, NOW, user) && strcmp(user, "bob") == 0 &&
               !verifies(t, token, NOW + 60, user));
        assert(verifies(before, token, NOW, user));
        assert(verifies(before, old, NOW, user) == verifies(t, old, NOW, user));
        free(token);
    } else {
        assert(text.n == 0 || (e.msg[0] != '\0' && e.code == ERR_INVALID));
        assert(verifies(before, old, NOW, user) && strcmp(user, "ann") == 0);
    }
    unlink(path);
    free(old);
    tokens_free(before);
    tokens_free(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct tokens *t;
    if (size < 1)
        return 0;
    if (t == NULL) {
        log_init("fuzz", (enum log_level)(LOG_ERROR + 1)); /* nothing: a refused file is what is looked for */
        t = known_key();
        unlink(path);
    }
    struct fuzz_text text = fuzz_text(data + 1, size - 1);
    if (data[0] % 3 == 0)
        verify_raw(t, text.p);
    else if (data[0] % 3 == 1)
        verify_signed(t, text);
    else
        load_keys(text);
    free(text.p);
    return 0;
}
