/* API keys: as text, in MongoDB, in memory; the admin key. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/mem.h"
#include "feed-api/auth.h"
#include "feed-api/key_store.h"
#include "feed-api/metrics.h"
#include "tests/support/fixture.h"

struct rig {
    struct fixture *fixture;
    struct mongo *mongo;
    struct mongo_conn *conn;
    struct auth *auth;
    struct metrics *metrics;
    char admin_file[200], jwt_file[200];
};

static struct auth *new_auth(struct rig *r)
{
    struct auth *a;
    struct err e;
    struct auth_options o = {.jwt_keys_file = r->jwt_file, .admin_key_file = r->admin_file};
    assert_int_equal(auth_new(&a, &o, r->metrics, &e), 0);
    return a;
}

static int group_setup(void **state)
{
    struct rig *r = mem_zero(1, sizeof *r);
    struct err e;
    mongoc_init();
    r->fixture = fixture_new(FIXTURE_MONGOD);
    struct mongo_options o = {.uri = fixture_mongodb_uri(r->fixture), .app_name = "test", .pool_size = 8};
    assert_int_equal(mongo_new(&r->mongo, &o, &e), 0);
    assert_int_equal(mongo_conn_get(r->mongo, &r->conn, &e), 0);
    mongo_conn_deadline(r->conn, 60000);
    assert_int_equal(mongo_schema_ensure(r->conn, &e), 0);
    snprintf(r->admin_file, sizeof r->admin_file, "%s/admin.key", fixture_dir(r->fixture));
    snprintf(r->jwt_file, sizeof r->jwt_file, "%s/jwt.keys", fixture_dir(r->fixture));
    r->metrics = feed_metrics_new();
    r->auth = new_auth(r);
    *state = r;
    return 0;
}

static int group_teardown(void **state)
{
    struct rig *r = *state;
    if (r == NULL)
        return 0; /* the set-up has failed */
    auth_free(r->auth);
    metrics_free(r->metrics);
    mongo_conn_put(r->conn);
    mongo_free(r->mongo);
    fixture_free(r->fixture);
    free(r);
    mongoc_cleanup();
    return 0;
}

/* A key in the store; header gets "Bearer fm_...". */
static struct api_key add_key(struct rig *r, enum role role, int64_t expires_ms, char header[80])
{
    struct api_key k = {.who.role = role, .created_ms = clock_wall_ms(), .expires_ms = expires_ms};
    struct err e;
    strcpy(header, "Bearer ");
    key_text_make(&k, header + 7);
    mongo_conn_deadline(r->conn, 60000);
    assert_int_equal(key_store_add(r->conn, &k, &e), 0);
    return k;
}

static enum auth_answer check(struct rig *r, const char *header)
{
    struct identity who = {0};
    enum auth_answer answer = auth_check(r->auth, header, &who);
    assert_true((answer == AUTH_OK) == (who.role != ROLE_NONE));
    identity_done(&who);
    return answer;
}

static void fetch(struct rig *r, const char *header)
{
    struct err e;
    struct identity who = {0};
    enum auth_answer answer;
    mongo_conn_deadline(r->conn, 60000);
    assert_int_equal(auth_fetch(r->auth, r->conn, header, &answer, &who, &e), 0);
    assert_int_not_equal(answer, AUTH_ASK);
    assert_true((answer == AUTH_OK) == (who.role != ROLE_NONE));
    identity_done(&who);
}

static void a_key_is_read_back_from_its_text_and_nothing_else_is(void **state)
{
    (void)state;
    struct api_key k = {0};
    char text[KEY_TEXT_SIZE], id[KEY_ID_BYTES + 1];
    unsigned char hash[SIGN_MAC_SIZE];
    key_text_make(&k, text);
    assert_int_equal(strlen(text), KEY_TEXT_SIZE - 1);
    assert_int_equal(key_text_read(text, id, hash), 0);
    assert_string_equal(id, k.id);
    assert_memory_equal(hash, k.hash, sizeof hash);
    for (size_t i = 0; i < strlen(text); i++) {
        char cut[KEY_TEXT_SIZE];
        memcpy(cut, text, sizeof cut);
        cut[i] = '\0';
        assert_int_equal(key_text_read(cut, id, hash), -1);
        cut[i] = '%';
        assert_int_equal(key_text_read(cut, id, hash), -1);
    }
    char *longer = mem_printf("%sA", text);
    assert_int_equal(key_text_read(longer, id, hash), -1);
    free(longer);
    struct api_key other = {0};
    char second[KEY_TEXT_SIZE];
    key_text_make(&other, second);
    assert_string_not_equal(second, text);
}

static void a_stored_key_comes_back_as_it_was(void **state)
{
    struct rig *r = *state;
    struct err e;
    char text[KEY_TEXT_SIZE];
    struct api_key back,
        k = {.who.role = ROLE_PUBLISHER, .created_ms = 1700000000123, .expires_ms = 4000000000000};
    key_text_make(&k, text);
    k.who.n_names = 2;
    k.who.names = mem_zero(2, sizeof *k.who.names);
    strcpy(k.who.names[0], "daily");
    strcpy(k.who.names[1], "w\xc3\xb6"
                           "chentlich");
    assert_int_equal(key_store_add(r->conn, &k, &e), 0);
    assert_int_equal(key_store_add(r->conn, &k, &e), -1);
    assert_int_equal(key_store_find(r->conn, k.id, &back, &e), 0);
    assert_memory_equal(back.hash, k.hash, sizeof k.hash);
    assert_int_equal(back.who.role, ROLE_PUBLISHER);
    assert_int_equal(back.who.n_names, 2);
    assert_true(identity_publishes(&back.who, "w\xc3\xb6"
                                              "chentlich"));
    assert_false(identity_publishes(&back.who, "dail"));
    assert_string_equal(back.who.id, k.id);
    assert_true(back.created_ms == k.created_ms && back.expires_ms == k.expires_ms);
    api_key_done(&back);
    assert_int_equal(key_store_delete(r->conn, k.id, &e), 0);
    assert_int_equal(key_store_delete(r->conn, k.id, &e), -1);
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_int_equal(key_store_find(r->conn, k.id, &back, &e), -1);
    assert_int_equal(e.code, ERR_NOT_FOUND);
    api_key_done(&k);
}

static void who_publishes_as_whom(void **state)
{
    (void)state;
    char names[1][NAME_MAX_BYTES + 1] = {"daily"};
    struct identity who = {.role = ROLE_PUBLISHER, .n_names = 1, .names = names};
    assert_true(identity_publishes(&who, "daily"));
    assert_false(identity_publishes(&who, "weekly"));
    who.role = ROLE_SERVICE;
    assert_false(identity_publishes(&who, "daily"));
    who = (struct identity){.role = ROLE_ADMIN};
    assert_true(identity_publishes(&who, "weekly"));
}

static void a_key_is_asked_for_once_and_then_known(void **state)
{
    struct rig *r = *state;
    char header[80];
    struct api_key k = add_key(r, ROLE_SERVICE, 0, header);
    assert_int_equal(check(r, header), AUTH_ASK);
    fetch(r, header);
    assert_int_equal(check(r, header), AUTH_OK);
    char lower[80];
    snprintf(lower, sizeof lower, "bearer  %s", header + 7);
    assert_int_equal(check(r, lower), AUTH_OK);
    /* The right id with another secret. */
    char other[80];
    struct api_key o = {0};
    char text[KEY_TEXT_SIZE];
    key_text_make(&o, text);
    memcpy(other, header, 80);
    memcpy(other + 7 + 3 + KEY_ID_BYTES, text + 3 + KEY_ID_BYTES, strlen(text + 3 + KEY_ID_BYTES) + 1);
    assert_int_equal(check(r, other), AUTH_BAD);
    assert_int_equal(check(r, NULL), AUTH_NONE);
    assert_int_equal(check(r, ""), AUTH_NONE);
    assert_int_equal(check(r, "Basic x"), AUTH_BAD);
    assert_int_equal(check(r, "Bearer"), AUTH_BAD);
    assert_int_equal(check(r, "Bearer "), AUTH_BAD);
    api_key_done(&k);
}

static void an_unknown_key_is_not_asked_for_again_at_once(void **state)
{
    struct rig *r = *state;
    struct api_key k = {0};
    char header[80] = "Bearer ";
    key_text_make(&k, header + 7);
    assert_int_equal(check(r, header), AUTH_ASK);
    fetch(r, header);
    assert_int_equal(check(r, header), AUTH_BAD);
    /* ... unless the log tells that it was made. */
    auth_forget_key(r->auth, k.id);
    assert_int_equal(check(r, header), AUTH_ASK);
}

static void an_expired_key_is_bad(void **state)
{
    struct rig *r = *state;
    char header[80];
    struct api_key k = add_key(r, ROLE_SERVICE, clock_wall_ms() - 1, header);
    fetch(r, header);
    assert_int_equal(check(r, header), AUTH_BAD);
    api_key_done(&k);
}

static void a_revoked_key_is_forgotten(void **state)
{
    struct rig *r = *state;
    char header[80];
    struct err e;
    struct api_key k = add_key(r, ROLE_SERVICE, 0, header);
    fetch(r, header);
    assert_int_equal(check(r, header), AUTH_OK);
    assert_int_equal(key_store_delete(r->conn, k.id, &e), 0);
    auth_forget_key(r->auth, k.id);
    assert_int_equal(check(r, header), AUTH_ASK);
    fetch(r, header);
    assert_int_equal(check(r, header), AUTH_BAD);
    api_key_done(&k);
}

static void when_the_tail_lost_its_place_all_keys_are_asked_for_again(void **state)
{
    struct rig *r = *state;
    char header[80];
    struct api_key k = add_key(r, ROLE_ADMIN, 0, header);
    fetch(r, header);
    assert_int_equal(check(r, header), AUTH_OK);
    auth_forget_all(r->auth);
    assert_int_equal(check(r, header), AUTH_ASK);
    api_key_done(&k);
}

struct racer {
    struct rig *r;
    char header[80];
    atomic_bool stop, revoked;
    atomic_uint fetched;
};

static void *fetch_again_and_again(void *arg)
{
    struct racer *racer = arg;
    struct mongo_conn *c;
    struct err e;
    if (mongo_conn_get(racer->r->mongo, &c, &e) < 0)
        return "no connection";
    while (!atomic_load(&racer->stop)) {
        mongo_conn_deadline(c, 10000);
        struct identity who = {0};
        enum auth_answer answer;
        bool revoked = atomic_load(&racer->revoked);
        if (auth_fetch(racer->r->auth, c, racer->header, &answer, &who, &e) < 0)
            return "a fetch failed";
        identity_done(&who);
        if (revoked ? answer == AUTH_OK : answer == AUTH_ASK)
            return "a fetch that began after the key was gone found it";
        atomic_fetch_add(&racer->fetched, 1);
    }
    mongo_conn_put(c);
    return NULL;
}

/* P5, for keys: whatever fetches are under way, none brings a revoked key back. */
static void a_fetch_under_way_does_not_bring_a_revoked_key_back(void **state)
{
    struct rig *r = *state;
    for (int round = 0; round < 20; round++) {
        struct racer racer = {.r = r};
        pthread_t threads[3];
        struct err e;
        struct api_key k = add_key(r, ROLE_SERVICE, 0, racer.header);
        fetch(r, racer.header);
        for (size_t i = 0; i < MEM_COUNT(threads); i++)
            pthread_create(&threads[i], NULL, fetch_again_and_again, &racer);
        while (atomic_load(&racer.fetched) < 3)
            continue;
        assert_int_equal(key_store_delete(r->conn, k.id, &e), 0);
        atomic_store(&racer.revoked, true);
        auth_forget_key(r->auth, k.id);
        unsigned seen = atomic_load(&racer.fetched);
        for (int64_t until = clock_mono_ms() + 20000; atomic_load(&racer.fetched) < seen + 12;) {
            assert_int_not_equal(check(r, racer.header), AUTH_OK);
            assert_true(clock_mono_ms() < until);
        }
        atomic_store(&racer.stop, true);
        for (size_t i = 0; i < MEM_COUNT(threads); i++) {
            void *why;
            pthread_join(threads[i], &why);
            assert_null(why);
        }
        api_key_done(&k);
    }
}

static void *forget_again_and_again(void *arg)
{
    struct racer *racer = arg;
    while (!atomic_load(&racer->stop)) {
        auth_forget_all(racer->r->auth);
        atomic_fetch_add(&racer->fetched, 1);
    }
    return NULL;
}

/* The log tells of a new key while its first request is under way. */
static void a_key_that_is_forgotten_meanwhile_is_good_for_the_request_that_fetched_it(void **state)
{
    struct rig *r = *state;
    struct racer racer = {.r = r};
    struct api_key k = add_key(r, ROLE_SERVICE, 0, racer.header);
    struct err e;
    pthread_t thread;
    unsigned overlapped = 0;
    pthread_create(&thread, NULL, forget_again_and_again, &racer);
    for (unsigned i = 0; i < 50; i++) {
        struct identity who = {0};
        enum auth_answer answer;
        unsigned seen = atomic_load(&racer.fetched);
        mongo_conn_deadline(r->conn, 60000);
        assert_int_equal(auth_fetch(r->auth, r->conn, racer.header, &answer, &who, &e), 0);
        assert_int_equal(answer, AUTH_OK);
        assert_int_equal(who.role, ROLE_SERVICE);
        overlapped += atomic_load(&racer.fetched) != seen;
        identity_done(&who);
    }
    atomic_store(&racer.stop, true);
    pthread_join(thread, NULL);
    assert_true(overlapped > 0);
    api_key_done(&k);
}

static char *file_text(const char *path)
{
    char text[256] = "";
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_non_null(fgets(text, sizeof text, f));
    fclose(f);
    text[strcspn(text, "\n")] = '\0';
    return mem_strdup(text);
}

static void the_admin_key_is_made_once_and_kept(void **state)
{
    struct rig *r = *state;
    struct err e;
    struct stat st;
    unlink(r->admin_file);
    mongo_conn_deadline(r->conn, 60000);
    assert_int_equal(auth_bootstrap(r->auth, r->conn, &e), 0);
    assert_int_equal(stat(r->admin_file, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    char *first = file_text(r->admin_file);
    char *header = mem_printf("Bearer %s", first);
    fetch(r, header);
    struct identity who;
    assert_int_equal(auth_check(r->auth, header, &who), AUTH_OK);
    assert_int_equal(who.role, ROLE_ADMIN);
    identity_done(&who);

    /* A second start changes nothing. */
    assert_int_equal(auth_bootstrap(r->auth, r->conn, &e), 0);
    char *second = file_text(r->admin_file);
    assert_string_equal(second, first);

    /* A new database, or a deleted key: the file is what counts. */
    char id[KEY_ID_BYTES + 1];
    unsigned char hash[SIGN_MAC_SIZE];
    assert_int_equal(key_text_read(first, id, hash), 0);
    assert_int_equal(key_store_delete(r->conn, id, &e), 0);
    assert_int_equal(auth_bootstrap(r->auth, r->conn, &e), 0);
    struct api_key back;
    assert_int_equal(key_store_find(r->conn, id, &back, &e), 0);
    assert_memory_equal(back.hash, hash, sizeof hash);
    api_key_done(&back);
    free(header);
    free(first);
    free(second);
}

static void a_wrong_admin_key_file_is_an_error_that_names_it(void **state)
{
    struct rig *r = *state;
    struct err e;
    FILE *f = fopen(r->admin_file, "w");
    assert_non_null(f);
    fputs("fm_nonsense\n", f);
    fclose(f);
    chmod(r->admin_file, 0600);
    assert_int_equal(auth_bootstrap(r->auth, r->conn, &e), -1);
    assert_int_equal(e.code, ERR_INVALID);
    assert_non_null(strstr(e.msg, "admin.key"));
    chmod(r->admin_file, 0640);
    assert_int_equal(auth_bootstrap(r->auth, r->conn, &e), -1);
    assert_non_null(strstr(e.msg, "chmod"));
    unlink(r->admin_file);
}

static void tokens_are_signed_within_bounds(void **state)
{
    struct rig *r = *state;
    struct err e;
    char *token;
    int64_t expires;
    assert_int_equal(auth_sign_token(r->auth, "ann", 59, &token, &expires, &e), -1);
    assert_int_equal(auth_sign_token(r->auth, "ann", 86401, &token, &expires, &e), -1);
    int64_t before = clock_wall_ms() / 1000;
    assert_int_equal(auth_sign_token(r->auth, "ann", 60, &token, &expires, &e), 0);
    assert_true(expires >= before + 60 && expires <= clock_wall_ms() / 1000 + 60);
    char *header = mem_printf("Bearer %s", token);
    struct identity who;
    assert_int_equal(auth_check(r->auth, header, &who), AUTH_OK);
    assert_int_equal(who.role, ROLE_USER);
    assert_string_equal(who.id, "ann");
    identity_done(&who);
    free(header);
    free(token);
}

static char *token_header(struct rig *r, const char *user)
{
    struct err e;
    char *token;
    int64_t expires;
    assert_int_equal(auth_sign_token(r->auth, user, 60, &token, &expires, &e), 0);
    char *header = mem_printf("Bearer %s", token);
    free(token);
    return header;
}

static void tokens_that_were_ended_are_bad_here_and_where_they_are_read_from_the_store(void **state)
{
    struct rig *r = *state;
    struct err e;
    char *before = token_header(r, "leaver"), *other = token_header(r, "stayer");
    assert_int_equal(check(r, before), AUTH_OK);
    mongo_conn_deadline(r->conn, 60000);
    int64_t now = clock_wall_ms();
    assert_int_equal(auth_end_tokens(r->auth, r->conn, "leaver", &e), 0);
    assert_int_equal(check(r, before), AUTH_BAD);
    assert_int_equal(check(r, other), AUTH_OK);
    while (clock_wall_ms() <= now + 1) /* a token says to the millisecond when it was issued */
        ;
    char *after = token_header(r, "leaver");
    assert_int_equal(check(r, after), AUTH_OK);
    struct auth *mine = r->auth;
    r->auth = new_auth(r); /* another process */
    assert_int_equal(check(r, before), AUTH_OK);
    assert_int_equal(auth_load_token_ends(r->auth, r->conn, &e), 0);
    assert_int_equal(check(r, before), AUTH_BAD);
    assert_int_equal(check(r, after), AUTH_OK);
    assert_int_equal(check(r, other), AUTH_OK);
    auth_free(r->auth);
    r->auth = mine;
    free(before);
    free(other);
    free(after);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_is_read_back_from_its_text_and_nothing_else_is),
        cmocka_unit_test(a_stored_key_comes_back_as_it_was),
        cmocka_unit_test(who_publishes_as_whom),
        cmocka_unit_test(a_key_is_asked_for_once_and_then_known),
        cmocka_unit_test(an_unknown_key_is_not_asked_for_again_at_once),
        cmocka_unit_test(an_expired_key_is_bad),
        cmocka_unit_test(a_revoked_key_is_forgotten),
        cmocka_unit_test(when_the_tail_lost_its_place_all_keys_are_asked_for_again),
        cmocka_unit_test(a_fetch_under_way_does_not_bring_a_revoked_key_back),
        cmocka_unit_test(a_key_that_is_forgotten_meanwhile_is_good_for_the_request_that_fetched_it),
        cmocka_unit_test(the_admin_key_is_made_once_and_kept),
        cmocka_unit_test(a_wrong_admin_key_file_is_an_error_that_names_it),
        cmocka_unit_test(tokens_are_signed_within_bounds),
        cmocka_unit_test(tokens_that_were_ended_are_bad_here_and_where_they_are_read_from_the_store),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
