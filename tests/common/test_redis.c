#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/mem.h"
#include "common/redis.h"
#include "tests/support/fixture.h"

struct world {
    struct fixture *fixture;
    struct redis *redis;
};

static struct redis *connection(struct world *w, int64_t timeout_ms)
{
    struct redis_address a;
    struct err e = {0};
    if (redis_address_parse(fixture_redis_address(w->fixture), &a, &e) < 0)
        fail_msg("%s", e.msg);
    return redis_new(&a, timeout_ms);
}

static int group_setup(void **state)
{
    struct world *w = mem_zero(1, sizeof *w);
    w->fixture = fixture_new(FIXTURE_REDIS);
    *state = w;
    return 0;
}

static int group_teardown(void **state)
{
    struct world *w = *state;
    fixture_free(w->fixture);
    free(w);
    return 0;
}

static int setup(void **state)
{
    struct world *w = *state;
    fixture_fresh(w->fixture);
    w->redis = connection(w, 5000);
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    redis_free(w->redis);
    return 0;
}

#define COMMAND(r, out, e, ...) redis_commandf((r), (out), (e), __VA_ARGS__, NULL)

static void must(struct redis *r, const char *a, const char *b, const char *c)
{
    redisReply *reply = NULL;
    struct err e = {0};
    if (redis_commandf(r, &reply, &e, a, b, c, NULL) < 0)
        fail_msg("%s: %s", a, e.msg);
    freeReplyObject(reply);
}

/* ---- addresses ---- */

static void addresses_are_sockets_names_and_numbers(void **state)
{
    (void)state;
    struct redis_address a;
    struct err e = {0};
    assert_int_equal(redis_address_parse("unix:/run/redis.sock", &a, &e), 0);
    assert_string_equal(a.path, "/run/redis.sock");
    assert_string_equal(a.host, "");
    assert_int_equal(redis_address_parse("localhost:6379", &a, &e), 0);
    assert_string_equal(a.host, "localhost");
    assert_int_equal(a.port, 6379);
    assert_int_equal(redis_address_parse("[::1]:65535", &a, &e), 0);
    assert_string_equal(a.host, "::1");
    assert_int_equal(a.port, 65535);
}

static void a_wrong_address_is_refused_and_changes_nothing(void **state)
{
    (void)state;
    static const char *const wrong[] = {"",     "localhost", "localhost:", ":1",    "a:0",   "a:65536",
                                        "a:1x", "a:-1",      "a: 1",       "::1:6", "[::1]", "[::1]6379",
                                        "[]:1", "unix:",     "unix:rel",   "a:b:1"};
    struct redis_address a, before;
    memset(&a, 7, sizeof a);
    before = a;
    for (size_t i = 0; i < MEM_COUNT(wrong); i++) {
        struct err e = {0};
        if (redis_address_parse(wrong[i], &a, &e) == 0)
            fail_msg("'%s' was taken", wrong[i]);
        assert_int_equal(e.code, ERR_INVALID);
        assert_memory_equal(&a, &before, sizeof a);
    }
    char path[200] = "unix:/";
    memset(path + 6, 'x', sizeof path - 7);
    path[sizeof path - 1] = '\0';
    struct err e;
    assert_int_equal(redis_address_parse(path, &a, &e), -1);
}

/* ---- commands ---- */

static void a_command_is_answered_with_any_bytes(void **state)
{
    struct world *w = *state;
    struct err e = {0};
    redisReply *r = NULL;
    const char *argv[] = {"SET", "k", "a\0b\r\nc"};
    size_t len[] = {3, 1, 6};
    assert_int_equal(redis_command(w->redis, &r, 3, argv, len, &e), 0);
    freeReplyObject(r);
    assert_int_equal(COMMAND(w->redis, &r, &e, "GET", "k"), 0);
    assert_int_equal(r->len, 6);
    assert_memory_equal(r->str, argv[2], 6);
    freeReplyObject(r);
    assert_int_equal(redis_generation(w->redis), 1);
}

static void an_error_reply_is_an_error_and_the_connection_stays(void **state)
{
    struct world *w = *state;
    struct err e = {0};
    redisReply *r = NULL;
    assert_int_equal(COMMAND(w->redis, &r, &e, "NOSUCH"), -1);
    assert_int_equal(e.code, ERR_INTERNAL);
    assert_non_null(strstr(e.msg, "unknown command"));
    assert_null(r);
    must(w->redis, "SET", "k", "v");
    assert_int_equal(redis_generation(w->redis), 1);
}

static void a_server_that_may_not_write_is_unavailable(void **state)
{
    struct world *w = *state;
    struct err e = {0};
    redisReply *r = NULL;
    assert_int_equal(COMMAND(w->redis, &r, &e, "CONFIG", "SET", "maxmemory", "1"), 0);
    freeReplyObject(r);
    assert_int_equal(COMMAND(w->redis, &r, &e, "SET", "k", "v"), -1);
    assert_int_equal(e.code, ERR_UNAVAILABLE);
    assert_non_null(strstr(e.msg, "OOM"));
    assert_int_equal(COMMAND(w->redis, &r, &e, "CONFIG", "SET", "maxmemory", "0"), 0);
    freeReplyObject(r);
    assert_int_equal(COMMAND(w->redis, &r, &e, "REPLICAOF", "127.0.0.1", "1"), 0);
    freeReplyObject(r);
    assert_int_equal(COMMAND(w->redis, &r, &e, "SET", "k", "v"), -1);
    assert_int_equal(e.code, ERR_UNAVAILABLE);
    assert_int_equal(COMMAND(w->redis, &r, &e, "REPLICAOF", "NO", "ONE"), 0);
    freeReplyObject(r);
    must(w->redis, "SET", "k", "v");
}

/* ---- pipelines ---- */

static void replies_of_a_pipeline_come_in_order_and_one_error_spoils_no_other(void **state)
{
    struct world *w = *state;
    struct err e = {0};
    const char *incr[] = {"INCR", "n"}, *bad[] = {"LPUSH", "n", "x"};
    for (int i = 0; i < 1000; i++)
        assert_int_equal(i == 500 ? redis_append(w->redis, 3, bad, NULL, &e)
                                  : redis_append(w->redis, 2, incr, NULL, &e),
                         0);
    assert_int_equal(redis_pending(w->redis), 1000);
    for (int i = 0; i < 1000; i++) {
        redisReply *r = NULL;
        int rc = redis_read(w->redis, &r, &e);
        assert_int_equal(rc, i == 500 ? -1 : 0);
        if (rc == 0)
            assert_int_equal(r->integer, i < 500 ? i + 1 : i);
        if (rc == 0)
            freeReplyObject(r);
    }
    assert_int_equal(redis_pending(w->redis), 0);
}

static void a_pipeline_ends_at_its_cap(void **state)
{
    struct world *w = *state;
    struct err e = {0};
    const char *incr[] = {"INCR", "n"};
    redisReply *r = NULL;
    for (int i = 0; i < REDIS_PIPELINE_MAX; i++)
        assert_int_equal(redis_append(w->redis, 2, incr, NULL, &e), 0);
    assert_int_equal(redis_append(w->redis, 2, incr, NULL, &e), -1);
    assert_int_equal(e.code, ERR_TOO_LARGE);
    for (int i = 0; i < REDIS_PIPELINE_MAX; i++) {
        assert_int_equal(redis_read(w->redis, &r, &e), 0);
        assert_int_equal(r->integer, i + 1);
        freeReplyObject(r);
    }
}

static void a_pipeline_of_many_megabytes_gets_through(void **state)
{
    struct world *w = *state;
    struct err e = {0};
    size_t size = 64 * 1024;
    char *big = mem_alloc(size);
    memset(big, 'x', size);
    const char *argv[] = {"SET", "k", big}, *get[] = {"GET", "k"};
    size_t len[] = {3, 1, size};
    for (int i = 0; i < 300; i++) {
        assert_int_equal(redis_append(w->redis, 3, argv, len, &e), 0);
        assert_int_equal(redis_append(w->redis, 2, get, NULL, &e), 0);
    }
    for (int i = 0; i < 600; i++) {
        redisReply *r = NULL;
        assert_int_equal(redis_read(w->redis, &r, &e), 0);
        if (i % 2 == 1)
            assert_int_equal(r->len, size);
        freeReplyObject(r);
    }
    free(big);
}

static void reading_what_was_not_asked_for_is_an_error(void **state)
{
    struct world *w = *state;
    struct err e = {0};
    redisReply *r = NULL;
    assert_int_equal(redis_read(w->redis, &r, &e), -1);
    assert_int_equal(e.code, ERR_UNAVAILABLE);
}

/* ---- scripts ---- */

static int adopt(struct redis *r, struct err *e)
{
    const char *argv[] = {"bk:{1}", "0000000000000001", "000000000000000a", "0"};
    redisReply *reply = NULL;
    if (redis_script(r, &reply, SCRIPT_ADOPT, 1, 4, argv, NULL, e) < 0)
        return -1;
    int answer = (int)reply->element[0]->integer;
    freeReplyObject(reply);
    return answer;
}

static void scripts_are_there_after_each_connect(void **state)
{
    struct world *w = *state;
    struct err e = {0};
    redisReply *r = NULL;
    assert_int_equal(adopt(w->redis, &e), 2);
    assert_int_equal(COMMAND(w->redis, &r, &e, "SCRIPT", "FLUSH"), 0);
    freeReplyObject(r);
    assert_int_equal(adopt(w->redis, &e), -1);
    assert_int_equal(e.code, ERR_UNAVAILABLE);
    assert_int_equal(redis_generation(w->redis), 1);
    assert_int_equal(adopt(w->redis, &e), 1); /* connected again, loaded again */
    assert_int_equal(redis_generation(w->redis), 2);
}

static void a_script_with_many_keys_is_sent_whole(void **state)
{
    struct world *w = *state;
    struct err e = {0};
    assert_int_equal(adopt(w->redis, &e), 2);
    enum { N = 500 };
    static char keys[N][16];
    const char *argv[N + 10] = {"bk:{1}"};
    for (int i = 0; i < N; i++) {
        snprintf(keys[i], sizeof keys[i], "tl:{1}:%d", i);
        argv[1 + i] = keys[i];
    }
    const char *rest[] = {"000000000000000b", "5", "-5", "8", "11", "0", "0000000000000001", "0", "500"};
    memcpy(argv + 1 + N, rest, sizeof rest);
    redisReply *r = NULL;
    if (redis_script(w->redis, &r, SCRIPT_DELIVER, 1 + N, N + 10, argv, NULL, &e) < 0)
        fail_msg("%s", e.msg);
    assert_int_equal(r->element[0]->integer, 1);
    freeReplyObject(r);
}

/* ---- losing the server ---- */

static void between_two_tries_calls_fail_without_one(void **state)
{
    (void)state;
    struct err e = {0};
    redisReply *r = NULL;
    /* Someone who listens and says nothing; how often somebody connected is what waits to be accepted. */
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof sin;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sin, sizeof sin), 0);
    assert_int_equal(listen(fd, 1000), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sin, &n), 0);
    struct redis_address a = {.host = "127.0.0.1", .port = ntohs(sin.sin_port)};
    struct redis *mute = redis_new(&a, 50);
    for (int i = 0; i < 5000; i++) {
        assert_int_equal(COMMAND(mute, &r, &e, "PING"), -1);
        assert_int_equal(e.code, ERR_UNAVAILABLE);
    }
    int tries = 0;
    for (int c; (c = accept(fd, NULL, NULL)) >= 0; tries++)
        close(c);
    assert_in_range(tries, 1, 20);
    assert_int_equal(redis_generation(mute), 0);
    redis_free(mute);
    close(fd);
}

struct attempt {
    struct redis *redis;
    struct err e;
};

static bool answers(void *arg)
{
    struct attempt *a = arg;
    redisReply *r = NULL;
    if (COMMAND(a->redis, &r, &a->e, "PING") < 0)
        return false;
    freeReplyObject(r);
    return true;
}

static void p10_the_connection_comes_back_with_the_server(void **state)
{
    struct world *w = *state;
    struct err e = {0};
    redisReply *r = NULL;
    const char *incr[] = {"INCR", "n"};
    must(w->redis, "SET", "k", "v");
    for (int i = 0; i < 10; i++)
        assert_int_equal(redis_append(w->redis, 2, incr, NULL, &e), 0);
    server_kill(fixture_redis(w->fixture));
    assert_int_equal(redis_read(w->redis, &r, &e), -1);
    assert_int_equal(e.code, ERR_UNAVAILABLE);
    assert_int_equal(redis_pending(w->redis), 0); /* the others are lost with it */
    struct attempt a = {.redis = w->redis};
    assert_false(answers(&a));
    assert_int_equal(a.e.code, ERR_UNAVAILABLE);
    fixture_restart(w->fixture, fixture_redis(w->fixture));
    assert_true(fixture_until(answers, &a, 10000));
    assert_int_equal(redis_generation(w->redis), 2);
    assert_true(adopt(w->redis, &e) > 0);
}

static void a_server_that_hangs_is_given_up_at_the_time_out(void **state)
{
    struct world *w = *state;
    struct err e = {0};
    redisReply *r = NULL;
    struct redis *hasty = connection(w, 100);
    must(hasty, "SET", "k", "v");
    server_pause(fixture_redis(w->fixture));
    assert_int_equal(COMMAND(hasty, &r, &e, "GET", "k"), -1);
    assert_int_equal(e.code, ERR_TIMEOUT);
    assert_int_equal(COMMAND(hasty, &r, &e, "GET", "k"), -1); /* connects, but the scripts are not answered */
    server_continue(fixture_redis(w->fixture));
    struct attempt a = {.redis = hasty};
    assert_true(fixture_until(answers, &a, 10000));
    redis_free(hasty);
}

int main(void)
{
#define WITH(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_sockets_names_and_numbers),
        cmocka_unit_test(a_wrong_address_is_refused_and_changes_nothing),
        WITH(a_command_is_answered_with_any_bytes),
        WITH(an_error_reply_is_an_error_and_the_connection_stays),
        WITH(a_server_that_may_not_write_is_unavailable),
        WITH(replies_of_a_pipeline_come_in_order_and_one_error_spoils_no_other),
        WITH(a_pipeline_ends_at_its_cap),
        WITH(a_pipeline_of_many_megabytes_gets_through),
        WITH(reading_what_was_not_asked_for_is_an_error),
        WITH(scripts_are_there_after_each_connect),
        WITH(a_script_with_many_keys_is_sent_whole),
        cmocka_unit_test(between_two_tries_calls_fail_without_one),
        WITH(a_server_that_hangs_is_given_up_at_the_time_out),
        WITH(p10_the_connection_comes_back_with_the_server),
    };
    return cmocka_run_group_tests_name("common/redis", tests, group_setup, group_teardown);
}
