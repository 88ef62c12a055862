/* tools/move_in.py against a real feed-api: everything once, however often it is interrupted; what is refused
 * is written down once; a server that says "later" is obeyed; and wrong input changes nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/mem.h"
#include "common/mongo.h"
#include "tests/support/api.h"
#include "tools/servers.h"

#define WAIT_MS    120000
#define ITEMS      12000
#define USERS      600
#define EDGES_EACH 20

static struct api *api;
static struct mongo *mongo;
static struct mongo_conn *conn;

/* ---- the world ---- */

/* workers, queue: of feed-api. */
static void world_open(const char *workers, const char *queue)
{
    struct err e;
    api = api_start(API_ONLY, "--workers", workers, "--worker-queue", queue, NULL);
    struct mongo_options o = {.uri = fixture_mongodb_uri(api->fixture), .app_name = "test", .pool_size = 2};
    if (mongo_new(&mongo, &o, &e) || mongo_conn_get(mongo, &conn, &e))
        fail_msg("%s", e.msg);
}

static void world_close(void)
{
    mongo_conn_put(conn);
    mongo_free(mongo);
    api_stop(api);
}

static int64_t stored(enum mongo_collection which)
{
    bson_t any = BSON_INITIALIZER, opts = BSON_INITIALIZER;
    bson_error_t be;
    mongo_conn_deadline(conn, 60000);
    mongo_read_opts(conn, &opts);
    int64_t n = mongoc_collection_count_documents(mongo_coll(conn, which), &any, &opts, NULL, NULL, &be);
    bson_destroy(&opts);
    if (n < 0)
        fail_msg("%s", be.message);
    return n;
}

static char *path_of(const char *name)
{
    return mem_printf("%s/%s", fixture_dir(api->fixture), name);
}

static void write_file(const char *name, const char *text)
{
    char *path = path_of(name);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
    free(path);
}

static char *read_file(const char *name)
{
    char *path = path_of(name), *text = mem_zero(1 << 20, 1);
    FILE *f = fopen(path, "re");
    free(path);
    if (f == NULL) {
        free(text);
        return NULL;
    }
    size_t n = fread(text, 1, (1 << 20) - 1, f);
    fclose(f);
    text[n] = '\0';
    return text;
}

static void write_items(const char *name, int n)
{
    struct buf b;
    buf_init(&b, 64 << 20);
    for (int i = 0; i < n; i++)
        buf_printf(&b,
                   "{\"publisher\":\"p%d\",\"external_id\":\"x%d\",\"title\":\"T%d\",\"body\":\"text of %d\","
                   "\"topics\":[\"t%d\"],\"published_at\":\"2024-01-01T00:00:00Z\"}\n",
                   i % 97, i, i, i, i % 11);
    write_file(name, b.data);
    buf_done(&b);
}

static void write_follows(const char *name)
{
    struct buf b;
    buf_init(&b, 64 << 20);
    for (int edge = 0; edge < EDGES_EACH; edge++) /* a user's lines stand far apart */
        for (int user = 0; user < USERS; user++)
            buf_printf(&b, "{\"user\":\"u%d\",\"kind\":\"publisher\",\"name\":\"p%d\"}\n", user,
                       (user + edge) % 97);
    write_file(name, b.data);
    buf_done(&b);
}

/* ---- the tool ---- */

/* A run of the tool in the fixture's directory by the shell, so that files may come from pipes; args follow
 * "move_in.py". */
static struct server *tool(const char *args)
{
    char *log = path_of("tool.out"), *key = path_of("key");
    write_file("key", fixture_admin_key(api->fixture));
    unlink(log);
    char *script = mem_printf("tool=$PWD/tools/move_in.py; cd '%s' && exec python3 \"$tool\" --url "
                              "http://127.0.0.1:%d --key-file key %s",
                              fixture_dir(api->fixture), api->port, args);
    const char *argv[] = {"/bin/sh", "-c", script, NULL};
    struct server *s = server_new("move-in", log, argv);
    struct err e;
    if (server_start(s, &e) != 0)
        fail_msg("%s", e.msg);
    free(script);
    free(log);
    free(key);
    return s;
}

static bool ended(void *arg)
{
    return !server_running(arg);
}

/* Waits for the end of a run and answers its exit status. */
static int finish(struct server *s)
{
    if (!fixture_until(ended, s, WAIT_MS)) {
        server_log_tail(s, 4000);
        fail_msg("move_in.py does not end");
    }
    int status = server_status(s);
    server_free(s);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void assert_says(const char *what)
{
    char *out = read_file("tool.out");
    if (out == NULL || strstr(out, what) == NULL)
        fail_msg("move_in.py did not say \"%s\" but: %s", what, out != NULL ? out : "nothing");
    free(out);
}

static void assert_run(const char *args, int status)
{
    int got = finish(tool(args));
    if (got != status) {
        char *out = read_file("tool.out");
        fail_msg("move_in.py %s ended with %d and not %d: %s", args, got, status, out);
    }
}

/* ---- what has to hold ---- */

static void items_and_follows_of_plain_and_packed_files_are_all_there(void **state)
{
    (void)state;
    world_open("16", "1024");
    write_items("items.ndjson", 2500);
    write_follows("follows.ndjson");
    char *pack = mem_printf("gzip -k '%s/follows.ndjson'", fixture_dir(api->fixture));
    assert_int_equal(system(pack), 0);
    free(pack);
    assert_run("--items items.ndjson --follows follows.ndjson.gz", 0);
    assert_int_equal(stored(COLL_ITEMS), 2500);
    assert_int_equal(stored(COLL_FOLLOWS), USERS * EDGES_EACH);
    assert_int_equal(stored(COLL_USERS), USERS);
    assert_null(read_file("items.ndjson.journal.rejects"));

    /* The same again finds it done; without the journal it finds everything there. */
    assert_run("--items items.ndjson --follows follows.ndjson.gz", 0);
    assert_run("--items items.ndjson --follows follows.ndjson --journal other", 0);
    assert_says("items: 2500 lines");
    assert_says("2500 were there");
    assert_int_equal(stored(COLL_ITEMS), 2500);
    world_close();
}

struct growth {
    struct server *s;
    int64_t want;
};

static bool grown_or_ended(void *arg)
{
    struct growth *g = arg;
    return !server_running(g->s) || stored(COLL_ITEMS) + stored(COLL_FOLLOWS) >= g->want;
}

static void interrupted_again_and_again_everything_is_there_once(void **state)
{
    (void)state;
    world_open("16", "1024");
    write_items("items.ndjson", ITEMS);
    write_follows("follows.ndjson");
    const int64_t all = ITEMS + USERS * EDGES_EACH;
    int interrupted = 0, killed = 0, status = -1;
    for (int run = 0; status != 0; run++) {
        struct growth g = {tool("--connections 2 --items items.ndjson --follows follows.ndjson"), 0};
        g.want = stored(COLL_ITEMS) + stored(COLL_FOLLOWS) + all / 7;
        assert_true(fixture_until(grown_or_ended, &g, WAIT_MS));
        server_signal(g.s, run % 2 == 0 ? SIGINT : SIGKILL);
        status = finish(g.s);
        interrupted += status == 130;
        killed += status == -SIGKILL;
        /* What a killed one had sent may be done only now: then this one is met before it listens to signals.
         */
        if (status != 0 && status != 130 && status != -SIGKILL && status != -SIGINT) {
            char *out = read_file("tool.out");
            fail_msg("ended with %d: %s", status, out);
        }
    }
    assert_true(interrupted >= 1);
    assert_true(killed >= 1);
    assert_int_equal(stored(COLL_ITEMS), ITEMS);
    assert_int_equal(stored(COLL_FOLLOWS), USERS * EDGES_EACH);
    assert_int_equal((int)api_metric(api, "feedmill_item_writes_total{result=\"created\"}"), ITEMS);
    assert_int_equal((int)api_metric(api, "feedmill_item_writes_total{result=\"revised\"}"), 0);
    world_close();
}

/* Refused lines: number and text of each, in the order of the file, once. */
static void assert_refused(const char *name, const int *numbers, size_t n)
{
    char *text = read_file(name), *rest = NULL;
    assert_non_null(text);
    size_t i = 0;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest), i++) {
        json_t *o = json_loads(line, 0, NULL);
        assert_non_null(o);
        assert_true(i < n);
        assert_int_equal(json_integer_value(json_object_get(o, "line")), numbers[i]);
        assert_true(json_is_object(json_object_get(o, "problem")));
        assert_true(json_is_string(json_object_get(o, "text")));
        json_decref(o);
    }
    assert_int_equal(i, n);
    free(text);
}

static void shell(const char *what)
{
    char *line = mem_printf("cd '%s' && %s", fixture_dir(api->fixture), what);
    assert_int_equal(system(line), 0);
    free(line);
}

static struct server *feeder(const char *what)
{
    char *script = mem_printf("cd '%s' && exec > pipe && %s", fixture_dir(api->fixture), what);
    const char *argv[] = {"/bin/sh", "-c", script, NULL};
    struct server *s = server_new("feeder", "/dev/null", argv);
    struct err e;
    if (server_start(s, &e) != 0)
        fail_msg("%s", e.msg);
    free(script);
    return s;
}

static bool first_refusals_are_known(void *arg)
{
    (void)arg;
    char *journal = read_file("j");
    bool known = journal != NULL && strstr(journal, "\"rejected\": 3") != NULL;
    free(journal);
    return known;
}

/* A pipe that stands still lets the tool be killed when some is acknowledged, and the journal knows of it. */
static void refused_lines_are_written_down_once_and_pipes_are_read_over(void **state)
{
    (void)state;
    world_open("16", "1024");
    write_items("good.ndjson", 4000);
    write_file("bad.ndjson", "{\"publisher\":\"p\",\"external_id\":\"no-title\"}\n"
                             "no JSON\n"
                             "\n"
                             "{\"op\":\"delete\",\"publisher\":\"p\",\"external_id\":\"unknown\"}\r\n");
    shell(
        "mkfifo pipe && (head -n 10 good.ndjson; cat bad.ndjson; tail -n +11 good.ndjson; cat bad.ndjson) > "
        "all.ndjson");
    struct server *feed = feeder("head -n 3500 all.ndjson; exec sleep 600");
    struct server *s = tool("--connections 1 --items pipe --journal j");
    assert_true(fixture_until(first_refusals_are_known, NULL, WAIT_MS));
    server_kill(s);
    server_free(s);
    server_free(feed);
    assert_in_range(stored(COLL_ITEMS), 1, 3999);

    feed = feeder("exec cat all.ndjson");
    assert_run("--connections 1 --items pipe --journal j", 1);
    assert_says("pipe: going on after line");
    assert_says("6 refused: see j.rejects");
    server_free(feed);
    const int want[] = {11, 12, 14, 4005, 4006, 4008};
    assert_refused("j.rejects", want, MEM_COUNT(want));
    assert_int_equal(stored(COLL_ITEMS), 4000);

    feed = feeder("exec cat good.ndjson");
    assert_run("--items pipe --journal j", 1); /* done stays done */
    server_free(feed);
    assert_refused("j.rejects", want, MEM_COUNT(want));
    world_close();
}

static void a_server_that_is_busy_is_asked_again_when_it_says(void **state)
{
    (void)state;
    world_open("1", "1");
    write_items("items.ndjson", 5000);
    assert_run("--connections 6 --items items.ndjson", 0);
    assert_says("told to wait");
    assert_int_equal(stored(COLL_ITEMS), 5000);
    world_close();
}

static void wrong_input_is_refused_before_anything_is_sent(void **state)
{
    (void)state;
    world_open("16", "1024");
    write_items("items.ndjson", 20);
    write_file("without.ndjson",
               "{\"publisher\":\"p\",\"external_id\":\"a\",\"title\":\"T\",\"body\":\"b\"}\n"
               "\n"
               "{\"publisher\":\"p\",\"title\":\"T\",\"body\":\"b\"}\n");
    assert_run("--items without.ndjson", 2);
    assert_says("without.ndjson:3: an item without an external_id");
    assert_run("--items items.ndjson --items without.ndjson", 2);
    assert_run("", 2);
    assert_says("nothing to move in");
    assert_run("--items missing.ndjson", 2);
    assert_says("missing.ndjson");
    assert_run("--items items.ndjson --key-file nokey", 2);
    assert_says("give --key-file");
    write_file("wrong", "fm_0123456789abcdef_x");
    assert_run("--items items.ndjson --key-file wrong", 2);
    assert_says("was answered 401");
    assert_run("--items items.ndjson --journal k --patience 0.5 --url http://127.0.0.1:1", 2);
    assert_says("Is http://127.0.0.1:1 right?");
    assert_int_equal(stored(COLL_ITEMS), 0);

    assert_run("--items items.ndjson", 0);
    write_items("others.ndjson", 30);
    assert_run("--items others.ndjson --journal items.ndjson.journal", 2);
    assert_says("is of other files");
    write_file("items.ndjson.journal", "{");
    assert_run("--items items.ndjson", 2);
    assert_says("can't read the journal");
    assert_int_equal(stored(COLL_ITEMS), 20);
    assert_run("--help", 0);
    assert_says("--journal");
    world_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(items_and_follows_of_plain_and_packed_files_are_all_there),
        cmocka_unit_test(interrupted_again_and_again_everything_is_there_once),
        cmocka_unit_test(refused_lines_are_written_down_once_and_pipes_are_read_over),
        cmocka_unit_test(a_server_that_is_busy_is_asked_again_when_it_says),
        cmocka_unit_test(wrong_input_is_refused_before_anything_is_sent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
