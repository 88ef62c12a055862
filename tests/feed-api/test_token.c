/* User tokens and the file of their keys. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base64url.h"
#include "common/buf.h"
#include "common/mem.h"
#include "feed-api/secret_file.h"
#include "feed-api/token.h"

#define NOW    INT64_C(1700000000)
#define SECRET "0123456789abcdef0123456789abcdef" /* its bytes are the secret */

struct place {
    char dir[64], path[80];
};

static int setup(void **state)
{
    struct place *p = mem_zero(1, sizeof *p);
    strcpy(p->dir, "/tmp/feedmill-token-XXXXXX");
    if (mkdtemp(p->dir) == NULL)
        return -1;
    snprintf(p->path, sizeof p->path, "%s/jwt.keys", p->dir);
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct place *p = *state;
    unlink(p->path);
    rmdir(p->dir);
    free(p);
    return 0;
}

static void write_file(const struct place *p, const char *text, mode_t mode)
{
    unlink(p->path);
    FILE *f = fopen(p->path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    assert_int_equal(chmod(p->path, mode), 0);
}

static char *key_line(const char *kid, const char *secret)
{
    char text[400];
    base64url_encode(secret, strlen(secret), text);
    return mem_printf("%s %s\n", kid, text);
}

static struct tokens *tokens_with(const struct place *p, const char *kid, const char *secret)
{
    char *line = key_line(kid, secret);
    struct tokens *t;
    struct err e;
    write_file(p, line, 0600);
    assert_int_equal(tokens_new(&t, p->path, &e), 0);
    free(line);
    return t;
}

/* A token as another implementation would make it. */
static char *make_token(const char *header, const char *claims, const char *secret)
{
    char h[1024], c[1024], m[64];
    unsigned char mac[32];
    unsigned len;
    base64url_encode(header, strlen(header), h);
    base64url_encode(claims, strlen(claims), c);
    char *signed_part = mem_printf("%s.%s", h, c);
    HMAC(EVP_sha256(), secret, (int)strlen(secret), (const unsigned char *)signed_part, strlen(signed_part),
         mac, &len);
    base64url_encode(mac, sizeof mac, m);
    char *token = mem_printf("%s.%s", signed_part, m);
    free(signed_part);
    return token;
}

static int verify(struct tokens *t, const char *token, int64_t now)
{
    char user[NAME_MAX_BYTES + 1] = "untouched";
    struct err e;
    int rc = tokens_verify(t, token, now, user, &e);
    if (rc < 0)
        assert_string_equal(user, "untouched");
    else
        assert_string_equal(user, "ann");
    return rc;
}

#define HEADER "{\"alg\":\"HS256\",\"typ\":\"JWT\",\"kid\":\"k1\"}"

static void a_signed_token_is_verified_until_it_expires(void **state)
{
    struct tokens *t = tokens_with(*state, "k1", SECRET);
    char *token = tokens_sign(t, "ann", NOW, 60);
    assert_int_equal(verify(t, token, NOW), 0);
    assert_int_equal(verify(t, token, NOW + 59), 0); /* remembered */
    assert_int_equal(verify(t, token, NOW + 60), -1);
    assert_int_equal(verify(t, token, NOW), 0);
    free(token);
    tokens_free(t);
}

static void a_token_of_a_backend_is_verified(void **state)
{
    struct tokens *t = tokens_with(*state, "k1", SECRET);
    static const char *const claims[] = {
        "{\"sub\":\"ann\",\"exp\":1700000060}",
        "{\"exp\":1700000060.5,\"sub\":\"ann\",\"nbf\":1700000000,\"iat\":1,\"scope\":[1,2]}",
    };
    for (size_t i = 0; i < MEM_COUNT(claims); i++) {
        char *token = make_token(HEADER, claims[i], SECRET);
        assert_int_equal(verify(t, token, NOW), 0);
        assert_int_equal(verify(t, token, NOW + 61), -1);
        free(token);
    }
    tokens_free(t);
}

static void a_token_is_refused_unless_all_of_it_is_right(void **state)
{
    struct tokens *t = tokens_with(*state, "k1", SECRET);
    static const struct {
        const char *header, *claims, *secret;
    } rows[] = {
        {HEADER, "{\"sub\":\"ann\",\"exp\":1700000060}", "0123456789abcdef0123456789abcdeF"},
        {"{\"alg\":\"none\",\"kid\":\"k1\"}", "{\"sub\":\"ann\",\"exp\":1700000060}", SECRET},
        {"{\"alg\":\"HS512\",\"kid\":\"k1\"}", "{\"sub\":\"ann\",\"exp\":1700000060}", SECRET},
        {"{\"alg\":\"hs256\",\"kid\":\"k1\"}", "{\"sub\":\"ann\",\"exp\":1700000060}", SECRET},
        {"{\"kid\":\"k1\"}", "{\"sub\":\"ann\",\"exp\":1700000060}", SECRET},
        {"{\"alg\":\"HS256\"}", "{\"sub\":\"ann\",\"exp\":1700000060}", SECRET},
        {"{\"alg\":\"HS256\",\"kid\":\"k2\"}", "{\"sub\":\"ann\",\"exp\":1700000060}", SECRET},
        {"{\"alg\":\"HS256\",\"kid\":1}", "{\"sub\":\"ann\",\"exp\":1700000060}", SECRET},
        {"{\"alg\":\"none\",\"alg\":\"HS256\",\"kid\":\"k1\"}", "{\"sub\":\"ann\",\"exp\":1700000060}",
         SECRET},
        {"{\"alg\":\"HS256\",\"kid\":\"k1\",\"crit\":[\"b64\"]}", "{\"sub\":\"ann\",\"exp\":1700000060}",
         SECRET},
        {"[]", "{\"sub\":\"ann\",\"exp\":1700000060}", SECRET},
        {HEADER, "{\"sub\":\"ann\"}", SECRET},
        {HEADER, "{\"sub\":\"ann\",\"exp\":\"1700000060\"}", SECRET},
        {HEADER, "{\"sub\":\"ann\",\"exp\":-1}", SECRET},
        {HEADER, "{\"sub\":\"ann\",\"exp\":1e300}", SECRET},
        {HEADER, "{\"sub\":\"ann\",\"exp\":1700000000}", SECRET},
        {HEADER, "{\"sub\":\"ann\",\"exp\":1700000060,\"nbf\":1700000001}", SECRET},
        {HEADER, "{\"sub\":\"ann\",\"exp\":1700000060,\"nbf\":\"x\"}", SECRET},
        {HEADER, "{\"exp\":1700000060}", SECRET},
        {HEADER, "{\"sub\":\"\",\"exp\":1700000060}", SECRET},
        {HEADER, "{\"sub\":\"a b\",\"exp\":1700000060}", SECRET},
        {HEADER, "{\"sub\":7,\"exp\":1700000060}", SECRET},
        {HEADER, "{\"sub\":\"bob\",\"sub\":\"ann\",\"exp\":1700000060}", SECRET},
        {HEADER, "[]", SECRET},
        {HEADER, "", SECRET},
    };
    for (size_t i = 0; i < MEM_COUNT(rows); i++) {
        char *token = make_token(rows[i].header, rows[i].claims, rows[i].secret);
        if (verify(t, token, NOW) == 0)
            fail_msg("row %zu was taken", i);
        free(token);
    }
    tokens_free(t);
}

static void every_changed_byte_is_noticed(void **state)
{
    struct tokens *t = tokens_with(*state, "k1", SECRET);
    char *token = tokens_sign(t, "ann", NOW, 60);
    size_t n = strlen(token);
    for (size_t i = 0; i < n; i++) {
        char was = token[i];
        token[i] = was == 'A' ? 'B' : 'A';
        assert_int_equal(verify(t, token, NOW), -1);
        token[i] = was;
    }
    for (size_t i = 0; i < n; i++) { /* cut */
        char was = token[i];
        token[i] = '\0';
        assert_int_equal(verify(t, token, NOW), -1);
        token[i] = was;
    }
    char *longer = mem_printf("%s=", token);
    assert_int_equal(verify(t, longer, NOW), -1);
    free(longer);
    assert_int_equal(verify(t, token, NOW), 0);
    char large[TOKEN_MAX_BYTES + 2];
    memset(large, 'a', sizeof large - 1);
    large[sizeof large - 1] = '\0';
    assert_int_equal(verify(t, large, NOW), -1);
    assert_int_equal(verify(t, "", NOW), -1);
    assert_int_equal(verify(t, ".", NOW), -1);
    assert_int_equal(verify(t, "..", NOW), -1);
    free(token);
    tokens_free(t);
}

static void the_file_is_made_with_one_key_for_its_owner_only(void **state)
{
    const struct place *p = *state;
    struct tokens *t, *again;
    struct err e;
    struct stat st;
    unlink(p->path);
    assert_int_equal(tokens_new(&t, p->path, &e), 0);
    assert_int_equal(stat(p->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(tokens_new(&again, p->path, &e), 0);
    char *token = tokens_sign(t, "ann", NOW, 60);
    assert_int_equal(verify(again, token, NOW), 0);
    free(token);
    tokens_free(t);
    tokens_free(again);
}

static void a_wrong_file_is_refused_by_its_line(void **state)
{
    const struct place *p = *state;
    static const char good[] = "k0 MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY\n";
    static const struct {
        const char *more, *word;
        mode_t mode;
    } rows[] = {
        {"k1\n", "line 2", 0600},
        {"k1 c2hvcnQ\n", "line 2", 0600},
        {"k1 no+base64url/0123456789abcdef0123456789abcdef\n", "line 2", 0600},
        {"k0 MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY\n", "line 2", 0600},
        {"", "chmod", 0644},
    };
    for (size_t i = 0; i < MEM_COUNT(rows); i++) {
        struct tokens *t;
        struct err e;
        char *text = mem_printf("%s%s", good, rows[i].more);
        write_file(p, text, rows[i].mode);
        assert_int_equal(tokens_new(&t, p->path, &e), -1);
        assert_int_equal(e.code, ERR_INVALID);
        assert_non_null(strstr(e.msg, rows[i].word));
        assert_null(strstr(e.msg, "MDEy")); /* secrets are not told */
        free(text);
    }
    struct tokens *t;
    struct err e;
    write_file(p, "# nothing\n\n", 0600);
    assert_int_equal(tokens_new(&t, p->path, &e), -1);
}

static void keys_can_be_changed_while_tokens_are_about(void **state)
{
    const struct place *p = *state;
    struct tokens *t = tokens_with(p, "k1", SECRET);
    char *old = tokens_sign(t, "ann", NOW, 60);
    assert_int_equal(verify(t, old, NOW), 0);

    /* Another one behind it: that one signs, both verify. */
    char *first = key_line("k1", SECRET),
         *second = key_line("k2", "ffffffffffffffffffffffffffffffffffffffff");
    char *both = mem_printf("# keys\n%s\n%s", first, second);
    write_file(p, both, 0600);
    tokens_refresh(t, 500); /* looked at too lately: not yet */
    tokens_refresh(t, 5000);
    char *fresh = tokens_sign(t, "ann", NOW, 60);
    assert_int_equal(verify(t, old, NOW), 0);
    assert_int_equal(verify(t, fresh, NOW), 0);

    /* A file that can't be used changes nothing. */
    write_file(p, "nonsense", 0600);
    tokens_refresh(t, 10000);
    assert_int_equal(verify(t, old, NOW), 0);

    /* The first one taken away: its tokens end, also those that are remembered. */
    write_file(p, second, 0600);
    tokens_refresh(t, 15000);
    assert_int_equal(verify(t, old, NOW), -1);
    assert_int_equal(verify(t, fresh, NOW), 0);
    free(old);
    free(fresh);
    free(both);
    free(first);
    free(second);
    tokens_free(t);
}

static void a_secret_file_is_made_once(void **state)
{
    const struct place *p = *state;
    struct err e;
    char *text;
    unlink(p->path);
    assert_int_equal(secret_file_read(p->path, &text, &e), -1);
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_int_equal(secret_file_make(p->path, "one\n", &e), 0);
    assert_int_equal(secret_file_make(p->path, "two\n", &e), -1);
    assert_int_equal(e.code, ERR_CONFLICT);
    assert_int_equal(secret_file_read(p->path, &text, &e), 0);
    assert_string_equal(text, "one\n");
    free(text);
    assert_int_equal(secret_file_make("/nonexistent/dir/file", "x", &e), -1);
    assert_int_equal(e.code, ERR_INVALID);
    assert_int_equal(secret_file_read(p->dir, &text, &e), -1);
    assert_int_equal(e.code, ERR_INVALID);
    assert_int_equal(rmdir(p->dir), -1); /* the file is in it ... */
    unlink(p->path);
    assert_int_equal(rmdir(p->dir), 0); /* ... and nothing else */
    assert_int_equal(mkdir(p->dir, 0700), 0);
}

static void a_token_says_to_the_millisecond_when_it_was_issued(void **state)
{
    struct tokens *t = tokens_with(*state, "k1", SECRET);
    char user[NAME_MAX_BYTES + 1];
    struct err e;
    int64_t issued;
    static const int64_t ms[] = {0, 1, 5, 40, 500, 999};
    for (size_t i = 0; i < MEM_COUNT(ms); i++) {
        char *token = tokens_sign_ms(t, "ann", NOW * 1000 + ms[i], 60);
        for (int twice = 0; twice < 2; twice++) { /* the second time it is remembered */
            assert_int_equal(tokens_open(t, token, NOW, user, &issued, &e), 0);
            assert_true(issued == NOW * 1000 + ms[i]);
        }
        free(token);
    }
    static const struct {
        const char *claims;
        int rc;
        int64_t issued;
    } rows[] = {
        {"{\"sub\":\"ann\",\"exp\":1700000060}", 0, 0},
        {"{\"sub\":\"ann\",\"exp\":1700000060,\"iat\":1699999999}", 0, INT64_C(1699999999000)},
        {"{\"sub\":\"ann\",\"exp\":1700000060,\"iat\":\"1699999999\"}", -1, 0},
        {"{\"sub\":\"ann\",\"exp\":1700000060,\"iat\":-1}", -1, 0},
        {"{\"sub\":\"ann\",\"exp\":1700000060,\"iat\":1e300}", -1, 0},
    };
    for (size_t i = 0; i < MEM_COUNT(rows); i++) {
        char *token = make_token("{\"alg\":\"HS256\",\"kid\":\"k1\"}", rows[i].claims, SECRET);
        issued = 0;
        assert_int_equal(tokens_open(t, token, NOW, user, &issued, &e), rows[i].rc);
        assert_true(issued == rows[i].issued);
        free(token);
    }
    tokens_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_signed_token_is_verified_until_it_expires),
        cmocka_unit_test(a_token_of_a_backend_is_verified),
        cmocka_unit_test(a_token_is_refused_unless_all_of_it_is_right),
        cmocka_unit_test(every_changed_byte_is_noticed),
        cmocka_unit_test(the_file_is_made_with_one_key_for_its_owner_only),
        cmocka_unit_test(a_wrong_file_is_refused_by_its_line),
        cmocka_unit_test(keys_can_be_changed_while_tokens_are_about),
        cmocka_unit_test(a_secret_file_is_made_once),
        cmocka_unit_test(a_token_says_to_the_millisecond_when_it_was_issued),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
