/* Children, Redis and mongod as tools/servers.h promises them. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <mongoc/mongoc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/mem.h"
#include "tests/support/fixture.h"
#include "tools/servers.h"

#define WAIT_MS 20000

static struct server *shell(struct fixture *f, const char *script)
{
    char *log = mem_printf("%s/child.log", fixture_dir(f));
    const char *argv[] = {"/bin/sh", "-c", script, NULL};
    struct server *s = server_new("child", log, argv);
    free(log);
    return s;
}

/* Answers whether the log of a child holds the text. */
static bool log_holds(const char *path, const char *text)
{
    char all[4096] = "";
    FILE *f = fopen(path, "re");
    if (f) {
        all[fread(all, 1, sizeof all - 1, f)] = '\0';
        fclose(f);
    }
    return strstr(all, text) != NULL;
}

struct log_wait {
    const char *path, *text;
};

static bool log_came(void *arg)
{
    struct log_wait *w = arg;
    return log_holds(w->path, w->text);
}

static void wait_for_log(struct server *s, const char *text)
{
    struct log_wait w = {server_log_path(s), text};
    assert_true(fixture_until(log_came, &w, WAIT_MS));
}

static bool has_ended(void *arg)
{
    return !server_running(arg);
}

static void wait_for_end(struct server *s)
{
    assert_true(fixture_until(has_ended, s, WAIT_MS));
}

static bool is_gone(void *arg)
{
    return kill(*(pid_t *)arg, 0) != 0 && errno == ESRCH;
}

/* ---- children ---- */

static void a_program_that_does_not_exist_is_an_error_and_leaves_no_child(void **state)
{
    struct fixture *f = *state;
    char *log = mem_printf("%s/none.log", fixture_dir(f));
    const char *argv[] = {"/nonexistent/program", NULL};
    struct server *s = server_new("none", log, argv);
    struct err e;
    assert_int_equal(server_start(s, &e), -1);
    assert_int_equal(e.code, ERR_UNAVAILABLE);
    assert_non_null(strstr(e.msg, "/nonexistent/program"));
    assert_int_equal(server_pid(s), 0);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    server_free(s);
    free(log);
}

static void a_log_that_can_not_be_written_is_an_error(void **state)
{
    (void)state;
    const char *argv[] = {"/bin/true", NULL};
    struct server *s = server_new("child", "/nonexistent/dir/log", argv);
    struct err e;
    assert_int_equal(server_start(s, &e), -1);
    assert_non_null(strstr(e.msg, "/nonexistent/dir/log"));
    server_free(s);
}

static void output_of_a_child_goes_to_its_log_over_several_starts(void **state)
{
    struct server *s = shell(*state, "echo out; echo err >&2; exit 3");
    struct err e;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(server_start(s, &e), 0);
        wait_for_end(s);
    }
    assert_true(log_holds(server_log_path(s), "out\nerr\nout\nerr\n"));
    char text[64];
    server_status_text(s, text, sizeof text);
    assert_string_equal(text, "exit code 3");
    unlink(server_log_path(s));
    server_free(s);
}

static void a_child_that_ends_is_reported_with_its_status_and_last_line(void **state)
{
    struct fixture *f = *state;
    struct server *s = shell(f, "echo first; echo the reason; exit 7");
    server_set_http_probe(s, server_free_port(), "/readyz");
    struct err e;
    assert_int_equal(server_start(s, &e), 0);
    assert_int_equal(server_wait(s, WAIT_MS, &e), -1);
    assert_int_equal(e.code, ERR_UNAVAILABLE);
    assert_non_null(strstr(e.msg, "exit code 7"));
    assert_non_null(strstr(e.msg, "the reason"));
    unlink(server_log_path(s));
    server_free(s);
}

static void a_child_starts_with_default_signals_and_no_descriptors_of_ours(void **state)
{
    int leak = fcntl(2, F_DUPFD, 40); /* without close-on-exec */
    assert_true(leak >= 40);
    char script[120];
    snprintf(script, sizeof script, "test -e /proc/$$/fd/%d && echo leaked; kill -TERM $$; echo survived",
             leak);
    signal(SIGTERM, SIG_IGN);
    struct server *s = shell(*state, script);
    struct err e;
    assert_int_equal(server_start(s, &e), 0);
    signal(SIGTERM, SIG_DFL);
    wait_for_end(s);
    assert_true(WIFSIGNALED(server_status(s)));
    assert_false(log_holds(server_log_path(s), "survived"));
    assert_false(log_holds(server_log_path(s), "leaked"));
    unlink(server_log_path(s));
    server_free(s);
    close(leak);
}

static void stopping_is_asked_first_and_forced_at_the_deadline(void **state)
{
    struct err e;
    struct server *s =
        shell(*state, "trap 'echo asked; exit 0' TERM; echo ready; while :; do sleep 0.01; done");
    assert_int_equal(server_start(s, &e), 0);
    wait_for_log(s, "ready");
    assert_int_equal(server_stop(s, WAIT_MS, &e), 0);
    assert_int_equal(server_status(s), 0);
    assert_true(log_holds(server_log_path(s), "asked"));
    unlink(server_log_path(s));
    server_free(s);

    s = shell(*state, "trap '' TERM; echo ready; while :; do sleep 0.01; done");
    assert_int_equal(server_start(s, &e), 0);
    wait_for_log(s, "ready");
    assert_int_equal(server_stop(s, 100, &e), -1);
    assert_int_equal(e.code, ERR_TIMEOUT);
    assert_false(server_running(s));
    unlink(server_log_path(s));
    server_free(s);
}

static void a_paused_child_runs_and_can_be_stopped(void **state)
{
    struct err e;
    struct server *s = shell(*state, "trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done");
    assert_int_equal(server_start(s, &e), 0);
    wait_for_log(s, "ready");
    assert_int_equal(server_start(s, &e), -1);
    assert_int_equal(e.code, ERR_CONFLICT);
    server_pause(s);
    assert_true(server_running(s));
    assert_int_equal(server_stop(s, WAIT_MS, &e), 0);
    unlink(server_log_path(s));
    server_free(s);
}

static void a_child_dies_with_a_parent_that_is_killed(void **state)
{
    struct fixture *f = *state;
    int p[2];
    assert_int_equal(pipe(p), 0);
    pid_t parent = fork();
    if (parent == 0) {
        struct err e;
        struct server *s = shell(f, "exec sleep 600");
        pid_t pid = server_start(s, &e) == 0 ? server_pid(s) : -1;
        if (write(p[1], &pid, sizeof pid) != (ssize_t)sizeof pid) {
            _exit(1);
        }
        pause();
        _exit(1);
    }
    pid_t child = -1;
    assert_int_equal(read(p[0], &child, sizeof child), sizeof child);
    assert_true(child > 0);
    assert_int_equal(kill(child, 0), 0);
    kill(parent, SIGKILL);
    assert_int_equal(waitpid(parent, NULL, 0), parent);
    assert_true(fixture_until(is_gone, &child, WAIT_MS));
    close(p[0]);
    close(p[1]);
}

static void a_free_port_is_free_and_a_port_in_use_is_not(void **state)
{
    (void)state;
    int port = server_free_port();
    assert_in_range(port, 1024, 32767);
    assert_true(server_port_free(port));
    char cmd[160];
    snprintf(
        cmd, sizeof cmd,
        "exec python3 -c 'import "
        "socket,time;s=socket.create_server((\"127.0.0.1\",%d));print(\"up\",flush=True);time.sleep(600)'",
        port);
    struct server *s = shell(*state, cmd);
    struct err e;
    assert_int_equal(server_start(s, &e), 0);
    wait_for_log(s, "up");
    assert_false(server_port_free(port));
    server_kill(s);
    assert_true(server_port_free(port));
    unlink(server_log_path(s));
    server_free(s);
}

static void an_http_probe_needs_a_200(void **state)
{
    int port = server_free_port();
    char body[64];
    struct err e;
    assert_int_equal(server_http_get(port, "/", NULL, 1000, body, sizeof body, &e), -1);
    assert_int_equal(e.code, ERR_UNAVAILABLE);
    char cmd[1024];
    snprintf(cmd, sizeof cmd,
             "exec python3 -c '\n"
             "import http.server\n"
             "class H(http.server.BaseHTTPRequestHandler):\n"
             "    protocol_version = \"HTTP/1.1\"\n"
             "    def do_GET(self):\n"
             "        b = (self.path + \" \" + str(self.headers.get(\"Authorization\"))).encode()\n"
             "        self.send_response(200 if self.path == \"/ok\" else 503)\n"
             "        self.send_header(\"Content-Length\", str(len(b)))\n"
             "        self.end_headers()\n"
             "        self.wfile.write(b)\n"
             "http.server.HTTPServer((\"127.0.0.1\", %d), H).serve_forever()\n'",
             port);
    struct server *s = shell(*state, cmd);
    server_set_http_probe(s, port, "/ok");
    assert_int_equal(server_start(s, &e), 0);
    assert_int_equal(server_wait(s, WAIT_MS, &e), 0);
    assert_int_equal(server_http_get(port, "/ok", "k1", 5000, body, sizeof body, &e), 200);
    assert_string_equal(body, "/ok Bearer k1");
    server_set_http_probe(s, port, "/not");
    assert_int_equal(server_wait(s, 200, &e), -1);
    assert_int_equal(e.code, ERR_TIMEOUT);
    assert_non_null(strstr(e.msg, "503"));
    unlink(server_log_path(s));
    server_free(s);
}

/* ---- Redis ---- */

static long long redis_number(struct fixture *f, const char *a, const char *b, const char *c)
{
    redisContext *r = redisConnectUnix(fixture_redis_path(f));
    assert_non_null(r);
    const char *argv[] = {a, b, c};
    redisReply *reply = redisCommandArgv(r, c ? 3 : 2, argv, NULL);
    assert_non_null(reply);
    long long n = reply->type == REDIS_REPLY_INTEGER  ? reply->integer
                  : reply->type == REDIS_REPLY_STRING ? atoll(reply->str)
                  : reply->type == REDIS_REPLY_STATUS ? 1
                  : reply->elements == 2              ? atoll(reply->element[1]->str)
                                                      : -1;
    freeReplyObject(reply);
    redisFree(r);
    return n;
}

static void redis_keeps_its_data_over_a_stop_and_listens_on_no_port(void **state)
{
    struct fixture *f = *state;
    struct err e;
    assert_int_equal(redis_number(f, "SET", "k", "41"), 1);
    assert_int_equal(server_stop(fixture_redis(f), WAIT_MS, &e), 0);
    assert_int_not_equal(server_probe(fixture_redis(f), &e), 0);
    fixture_restart(f, fixture_redis(f));
    assert_int_equal(redis_number(f, "INCR", "k", NULL), 42);
    assert_int_equal(redis_number(f, "CONFIG", "GET", "port"), 0);
}

static void a_redis_that_is_paused_is_not_ready(void **state)
{
    struct fixture *f = *state;
    struct err e;
    server_pause(fixture_redis(f));
    assert_int_equal(server_probe(fixture_redis(f), &e), -1);
    server_continue(fixture_redis(f));
    assert_int_equal(server_wait(fixture_redis(f), WAIT_MS, &e), 0);
}

static void an_old_dump_brings_back_what_was_kept_and_loses_the_rest(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(redis_number(f, "SET", "old", "1"), 1);
    struct err e;
    assert_int_equal(server_stop(fixture_redis(f), WAIT_MS, &e), 0);
    fixture_redis_keep(f);
    fixture_restart(f, fixture_redis(f));
    assert_int_equal(redis_number(f, "SET", "new", "1"), 1);
    fixture_redis_bring_back(f);
    assert_int_equal(redis_number(f, "EXISTS", "old", NULL), 1);
    assert_int_equal(redis_number(f, "EXISTS", "new", NULL), 0);
}

static void a_directory_too_long_for_a_socket_is_refused(void **state)
{
    (void)state;
    char dir[128];
    memset(dir, 'x', sizeof dir - 1);
    dir[0] = '/';
    dir[sizeof dir - 1] = '\0';
    struct err e;
    assert_null(redis_server_new(dir, "/dev/null", 0, NULL, &e));
    assert_int_equal(e.code, ERR_INVALID);
}

/* ---- MongoDB ---- */

static bool mongo_insert(const char *uri, int32_t id)
{
    mongoc_client_t *c = mongoc_client_new(uri);
    assert_non_null(c);
    mongoc_collection_t *col = mongoc_client_get_collection(c, "t", "t");
    bson_t *doc = BCON_NEW("_id", BCON_INT32(id));
    bson_t *opts = BCON_NEW("writeConcern", "{", "w", "majority", "}");
    bson_error_t why;
    bool ok = mongoc_collection_insert_one(col, doc, opts, NULL, &why);
    bson_destroy(opts);
    bson_destroy(doc);
    mongoc_collection_destroy(col);
    mongoc_client_destroy(c);
    return ok;
}

static void mongod_is_a_set_that_takes_majority_writes_and_keeps_them_over_a_kill(void **state)
{
    struct fixture *f = *state;
    assert_true(mongo_insert(fixture_mongodb_uri(f), 1));
    server_kill(fixture_mongod(f));
    fixture_restart(f, fixture_mongod(f));
    assert_false(mongo_insert(fixture_mongodb_uri(f), 1)); /* duplicate: it is there */
    assert_true(mongo_insert(fixture_mongodb_uri(f), 2));
}

static void mongod_stops_within_a_few_seconds_when_asked(void **state)
{
    struct fixture *f = *state;
    struct err e;
    assert_int_equal(server_stop(fixture_mongod(f), WAIT_MS, &e), 0);
    assert_int_equal(server_status(fixture_mongod(f)), 0);
    fixture_restart(f, fixture_mongod(f));
}

static void mongod_may_come_back_on_another_port(void **state)
{
    struct fixture *f = *state;
    struct err e;
    assert_true(mongo_insert(fixture_mongodb_uri(f), 10));
    assert_int_equal(server_stop(fixture_mongod(f), WAIT_MS, &e), 0);
    char *dir = mem_printf("%s/mongod", fixture_dir(f));
    char *log = mem_printf("%s/moved.log", fixture_dir(f));
    struct mongod_options o = {.dir = dir, .log_path = log, .port = server_free_port(), .cache_gb = 0.25};
    struct server *moved = mongod_server_new(&o, &e);
    assert_non_null(moved);
    assert_int_equal(server_start(moved, &e), 0);
    assert_int_equal(server_wait(moved, WAIT_MS * fixture_slowness(), &e), 0);
    char *uri = mongod_server_uri(moved, "t");
    assert_false(mongo_insert(uri, 10));
    assert_true(mongo_insert(uri, 11));
    assert_int_equal(server_stop(moved, WAIT_MS, &e), 0);
    server_free(moved);
    free(uri);
    free(log);
    free(dir);
    fixture_restart(f, fixture_mongod(f));
}

static void a_mongod_named_by_the_environment_must_exist(void **state)
{
    (void)state;
    const char *was = getenv("FEEDMILL_MONGOD");
    char *kept = was ? mem_strdup(was) : NULL;
    setenv("FEEDMILL_MONGOD", "/nonexistent/mongod", 1);
    struct err e;
    assert_null(server_find_mongod(&e));
    assert_non_null(strstr(e.msg, "/nonexistent/mongod"));
    if (kept) {
        setenv("FEEDMILL_MONGOD", kept, 1);
    } else {
        unsetenv("FEEDMILL_MONGOD");
    }
    free(kept);
}

/* ---- the fixture itself ---- */

static void a_fresh_fixture_has_an_empty_redis_and_another_database(void **state)
{
    struct fixture *f = *state;
    char *before = mem_strdup(fixture_database(f));
    assert_int_equal(redis_number(f, "SET", "k", "1"), 1);
    fixture_fresh(f);
    assert_int_equal(redis_number(f, "EXISTS", "k", NULL), 0);
    assert_string_not_equal(fixture_database(f), before);
    assert_non_null(strstr(fixture_mongodb_uri(f), fixture_database(f)));
    free(before);
}

static int directory_only(void **state)
{
    *state = fixture_new(FIXTURE_DIR);
    return 0;
}

int main(void)
{
    mongoc_init();
    const struct CMUnitTest children[] = {
        cmocka_unit_test(a_program_that_does_not_exist_is_an_error_and_leaves_no_child),
        cmocka_unit_test(a_log_that_can_not_be_written_is_an_error),
        cmocka_unit_test(output_of_a_child_goes_to_its_log_over_several_starts),
        cmocka_unit_test(a_child_that_ends_is_reported_with_its_status_and_last_line),
        cmocka_unit_test(a_child_starts_with_default_signals_and_no_descriptors_of_ours),
        cmocka_unit_test(stopping_is_asked_first_and_forced_at_the_deadline),
        cmocka_unit_test(a_paused_child_runs_and_can_be_stopped),
        cmocka_unit_test(a_child_dies_with_a_parent_that_is_killed),
        cmocka_unit_test(a_free_port_is_free_and_a_port_in_use_is_not),
        cmocka_unit_test(an_http_probe_needs_a_200),
        cmocka_unit_test(a_directory_too_long_for_a_socket_is_refused),
        cmocka_unit_test(a_mongod_named_by_the_environment_must_exist),
    };
    const struct CMUnitTest databases[] = {
        cmocka_unit_test(redis_keeps_its_data_over_a_stop_and_listens_on_no_port),
        cmocka_unit_test(a_redis_that_is_paused_is_not_ready),
        cmocka_unit_test(an_old_dump_brings_back_what_was_kept_and_loses_the_rest),
        cmocka_unit_test(mongod_is_a_set_that_takes_majority_writes_and_keeps_them_over_a_kill),
        cmocka_unit_test(mongod_stops_within_a_few_seconds_when_asked),
        cmocka_unit_test(mongod_may_come_back_on_another_port),
        cmocka_unit_test(a_fresh_fixture_has_an_empty_redis_and_another_database),
    };
    int failed = cmocka_run_group_tests_name("children", children, directory_only, fixture_group_teardown);
    failed +=
        cmocka_run_group_tests_name("databases", databases, fixture_group_setup, fixture_group_teardown);
    return failed;
}
