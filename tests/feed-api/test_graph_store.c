/* Tests of feed-api/graph_store.c: many users in one transaction, one change of each, counts that agree. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "feed-api/graph_store.h"
#include "tests/support/fixture.h"

#define CAP 10000

static struct mongo *mongo;
static struct mongo_conn *conn;

static int setup(void **state)
{
    if (fixture_group_setup_mongod(state))
        return -1;
    struct err e;
    struct mongo_options o = {.uri = fixture_mongodb_uri(*state), .app_name = "test", .pool_size = 8};
    if (mongo_new(&mongo, &o, &e) || mongo_conn_get(mongo, &conn, &e) || mongo_schema_ensure(conn, &e))
        fail_msg("%s", e.msg);
    mongo_conn_deadline(conn, 60000);
    return 0;
}

static int teardown(void **state)
{
    mongo_conn_put(conn);
    mongo_free(mongo);
    return fixture_group_teardown(state);
}

static void line(struct graph_line *l, const char *user, const char *target, bool remove)
{
    memset(l, 0, sizeof *l);
    snprintf(l->user, sizeof l->user, "%s", user);
    snprintf(l->target, sizeof l->target, "%s", target);
    l->remove = remove;
    l->since_ms = 1000;
}

static void apply(struct graph_line *lines, size_t n)
{
    struct err e;
    if (graph_apply(conn, GRAPH_FOLLOWS, lines, n, CAP, false, &e) != 0)
        fail_msg("%s", e.msg);
}

/* What the user's document says: how many changes, how many follows. */
static void look(const char *user, int64_t *rev, int64_t *follows)
{
    bson_t *filter = BCON_NEW("_id", BCON_UTF8(user)), opts = BSON_INITIALIZER;
    mongo_read_opts(conn, &opts);
    mongoc_cursor_t *cur =
        mongoc_collection_find_with_opts(mongo_coll(conn, COLL_USERS), filter, &opts, NULL);
    const bson_t *doc;
    *rev = *follows = 0;
    if (mongoc_cursor_next(cur, &doc))
        assert_true(mongo_get_i64(doc, "rev", rev) && mongo_get_i64(doc, "follows", follows));
    mongoc_cursor_destroy(cur);
    bson_destroy(&opts);
    bson_destroy(filter);
}

static void assert_user(const char *user, int64_t rev, int64_t follows)
{
    int64_t r, f;
    look(user, &r, &f);
    assert_int_equal(r, rev);
    assert_int_equal(f, follows);
    struct graph_edge edges[16];
    size_t n;
    struct err e;
    assert_int_equal(graph_list(conn, GRAPH_FOLLOWS, user, "", MEM_COUNT(edges), edges, &n, &e), 0);
    assert_int_equal(n, follows);
}

static void one_transaction_changes_each_user_once_new_known_and_leaving(void **state)
{
    (void)state;
    struct graph_line l[6];
    line(&l[0], "known", "p:a", false);
    line(&l[1], "known", "p:b", false);
    line(&l[2], "leaving", "p:a", false);
    apply(l, 3);
    assert_user("known", 1, 2);
    line(&l[0], "known", "p:c", false);
    line(&l[1], "leaving", "p:a", true);
    line(&l[2], "new", "p:a", false);
    line(&l[3], "new", "t:a", false);
    line(&l[4], "same", "p:a", true);
    line(&l[5], "known", "p:a", false);
    apply(l, 6);
    enum graph_result want[] = {GRAPH_ADDED, GRAPH_REMOVED,   GRAPH_ADDED,
                                GRAPH_ADDED, GRAPH_UNCHANGED, GRAPH_UNCHANGED};
    for (size_t i = 0; i < MEM_COUNT(want); i++)
        assert_int_equal(l[i].result, want[i]);
    assert_user("known", 2, 3);
    assert_user("leaving", 2, 0);
    assert_user("new", 1, 2);
    assert_user("same", 0, 0);
}

static void users_of_one_request_may_change_by_different_numbers(void **state)
{
    (void)state;
    struct graph_line l[60];
    size_t n = 0;
    char user[16], target[16];
    for (int round = 0; round < 2; round++) {
        n = 0;
        for (int u = 0; u < 10; u++)
            for (int t = 0; t <= u % 5; t++) {
                snprintf(user, sizeof user, "many%d", u);
                snprintf(target, sizeof target, "p:%d-%d", round, t);
                line(&l[n++], user, target, false);
            }
        apply(l, n);
    }
    for (int u = 0; u < 10; u++) {
        snprintf(user, sizeof user, "many%d", u);
        assert_user(user, 2, 2 * (u % 5 + 1));
    }
}

#define THREADS 4
#define ROUNDS  15
#define USERS   20

/* Each thread adds an edge of its own to the same new users, in an order of its own. */
static void *contend(void *arg)
{
    int me = *(int *)arg;
    struct mongo_conn *c;
    struct err e;
    if (mongo_conn_get(mongo, &c, &e) != 0)
        return "no client";
    char *why = NULL;
    for (int round = 0; why == NULL && round < ROUNDS; round++) {
        struct graph_line l[USERS];
        char user[32], target[32];
        for (int u = 0; u < USERS; u++) {
            snprintf(user, sizeof user, "both%d-%d", round, (u + me * 5) % USERS);
            snprintf(target, sizeof target, "p:thread%d", me);
            line(&l[u], user, target, false);
        }
        mongo_conn_deadline(c, 60000);
        if (graph_apply(c, GRAPH_FOLLOWS, l, USERS, CAP, false, &e) != 0)
            why = mem_strdup(e.msg);
        for (int u = 0; why == NULL && u < USERS; u++)
            if (l[u].result != GRAPH_ADDED)
                why = mem_strdup("an edge was not added");
    }
    mongo_conn_put(c);
    return why;
}

static void writers_of_the_same_new_users_all_get_through(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    int me[THREADS];
    for (int i = 0; i < THREADS; i++) {
        me[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, contend, &me[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        void *why;
        pthread_join(threads[i], &why);
        if (why != NULL)
            fail_msg("%s", (char *)why);
    }
    struct err e;
    assert_int_equal(mongo_conn_fresh(conn, NULL, &e), 0);
    for (int round = 0; round < ROUNDS; round++)
        for (int u = 0; u < USERS; u++) {
            char user[32];
            snprintf(user, sizeof user, "both%d-%d", round, u);
            assert_user(user, THREADS, THREADS);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_transaction_changes_each_user_once_new_known_and_leaving),
        cmocka_unit_test(users_of_one_request_may_change_by_different_numbers),
        cmocka_unit_test(writers_of_the_same_new_users_all_get_through),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
