/* test_audit.c - the audit: an intact world has no findings however busy it is, and each kind of corruption
 * is named, repaired, and gone. By the module, the tool and fanout's sampler.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/audit_counts.h"
#include "common/audit_private.h"
#include "common/clock.h"
#include "common/keys.h"
#include "common/mem.h"
#include "tests/support/e2e_stack.h"
#include "tests/support/flights.h"

#define CAP        8
#define ITEMS      20
#define WAIT_MS    20000
#define OUTPUT_MAX (4 * 1024 * 1024)

static struct e2e_stack stack;
static struct mongo *mongo;
static struct mongo_conn *conn;

/* Big targets are pulled here: those of four followers and more. */
static const struct e2e_stack_options options = {
    .entries = "8", .api_flags = {"--pull-threshold", "4", "--count-interval", "100", "--pull-items", "10"}};

static void connect_mongo(void)
{
    struct err e = {0};
    struct mongo_options o = {.uri = fixture_mongodb_uri(stack.f), .app_name = "test", .pool_size = 4};
    if (mongo_new(&mongo, &o, &e) != 0 || mongo_conn_get(mongo, &conn, &e) != 0)
        fail_msg("%s", e.msg);
}

static void disconnect_mongo(void)
{
    mongo_conn_put(conn);
    mongo_free(mongo);
    conn = NULL;
    mongo = NULL;
}

/* The sampler has a test of its own, and would find what the others plant. */
static int start_stack(void **state)
{
    (void)state;
    setenv("FEEDMILL_AUDIT_INTERVAL", "0", 1);
    e2e_stack_start(&stack, &options);
    connect_mongo();
    return 0;
}

static int fresh(void **state)
{
    (void)state;
    disconnect_mongo();
    e2e_stack_fresh(&stack, &options);
    connect_mongo();
    return 0;
}

static int stop_stack(void **state)
{
    (void)state;
    disconnect_mongo();
    return e2e_stack_stop(&stack);
}

/* ---- the tool ---- */

struct run {
    int status;
    char *out;     /* stdout and stderr */
    json_t *lines; /* of stdout, where it is JSON */
};

static void run_done(struct run *r)
{
    free(r->out);
    json_decref(r->lines);
}

static void parse_lines(struct run *r)
{
    char *copy = mem_strdup(r->out), *save = NULL;
    r->lines = json_array();
    for (char *l = strtok_r(copy, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
        json_t *v = json_loads(l, 0, NULL);
        if (v)
            json_array_append_new(r->lines, v);
    }
    free(copy);
}

/* Runs the tool on this stack with more flags, ended by NULL; interrupt: SIGINT when it has said something.
 */
static struct run run_tool(bool interrupt, const char *const *flags)
{
    struct run r = {.out = mem_zero(OUTPUT_MAX, 1)};
    char *bin = fixture_bin("audit");
    const char *argv[32] = {bin, "--mongodb-uri", fixture_mongodb_uri(stack.f), "--redis",
                            fixture_redis_address(stack.f)};
    size_t n = 5, len = 0;
    int pipes[2], status;
    while (*flags && n < MEM_COUNT(argv) - 1)
        argv[n++] = *flags++;
    assert_int_equal(pipe(pipes), 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(pipes[1], STDOUT_FILENO);
        dup2(pipes[1], STDERR_FILENO);
        close(pipes[0]);
        execv(bin, (char *const *)argv);
        _exit(127);
    }
    close(pipes[1]);
    for (ssize_t k; len < OUTPUT_MAX - 1 && (k = read(pipes[0], r.out + len, OUTPUT_MAX - 1 - len)) > 0;) {
        len += (size_t)k;
        if (interrupt)
            kill(pid, SIGINT);
        interrupt = false;
    }
    close(pipes[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    r.status = WEXITSTATUS(status);
    parse_lines(&r);
    free(bin);
    return r;
}

#define TOOL(...) run_tool(false, (const char *const[]){__VA_ARGS__, NULL})

static json_int_t summary(const struct run *r, const char *group, const char *key)
{
    json_t *last = json_array_get(r->lines, json_array_size(r->lines) - 1);
    json_t *s = json_object_get(last, "summary");
    if (!s)
        fail_msg("no summary: %s", r->out);
    json_t *v = json_object_get(group ? json_object_get(s, group) : s, key);
    if (!json_is_integer(v))
        fail_msg("no %s.%s: %s", group ? group : "", key, r->out);
    return json_integer_value(v);
}

static size_t findings(const struct run *r)
{
    size_t n = 0, i;
    json_t *v;
    json_array_foreach(r->lines, i, v)
    {
        n += json_object_get(v, "finding") != NULL;
    }
    return n;
}

static bool has(const struct run *r, const char *key, const char *kind, const char *of, const char *name,
                const char *what)
{
    size_t i;
    json_t *v;
    json_array_foreach(r->lines, i, v)
    {
        const char *k = json_string_value(json_object_get(v, key));
        const char *n = json_string_value(json_object_get(v, of));
        const char *w = json_string_value(json_object_get(v, "what"));
        if (k && n && strcmp(k, kind) == 0 && strcmp(n, name) == 0 && (!what || (w && strcmp(w, what) == 0)))
            return true;
    }
    return false;
}

/* ---- a small world ---- */

struct planted {
    const char *kind;
    void (*plant)(struct planted *p);
    char user[32], publisher[32];
    char timeline[KEY_SIZE], meta[KEY_SIZE];
    item_id ids[ITEMS];         /* of the user's own publisher, newest first */
    char what[AUDIT_WHAT_SIZE]; /* what the finding names; "" for any */
};

#define DO(...) freeReplyObject(e2e_redis_do(stack.redis, __VA_ARGS__))

static void name_id(struct planted *p, item_id id)
{
    ids_format(id, p->what);
}

static void plant_missing(struct planted *p)
{
    name_id(p, p->ids[3]);
    DO("ZREM %s %s", p->timeline, p->what);
}

static item_id stranger; /* an item that nobody's feed has */

static void plant_extra(struct planted *p)
{
    name_id(p, stranger);
    DO("ZADD %s -%s %s", p->timeline, p->what, p->what);
}

static void plant_wrong_score(struct planted *p)
{
    name_id(p, p->ids[2]);
    DO("ZADD %s -%" PRIu64 " %s", p->timeline, p->ids[2] / 2, p->what);
}

static void plant_floor(struct planted *p)
{
    name_id(p, p->ids[4]);
    DO("ZADD %s -%s f", p->timeline, p->what);
}

static void plant_lost_pull_entry(struct planted *p)
{
    strcpy(p->what, "p:big");
    DO("HDEL %s p", p->meta);
}

static void plant_late_r(struct planted *p)
{
    char text[TS_TEXT_SIZE];
    ts_format(ts_make((uint32_t)(clock_wall_ms() / 1000) + 3600, 1), text);
    strcpy(p->what, text);
    DO("HSET %s r %s", p->meta, text);
}

static void plant_no_r(struct planted *p)
{
    strcpy(p->what, "yesterday");
    DO("HSET %s r yesterday", p->meta);
}

static void plant_early_r(struct planted *p)
{
    strcpy(p->what, "0000000000000001");
    DO("HSET %s r %s", p->meta, p->what);
}

static void plant_foreign_member(struct planted *p)
{
    strcpy(p->what, "nonsense");
    DO("ZADD %s -%" PRIu64 " nonsense", p->timeline, p->ids[1]);
}

static void plant_foreign_id(struct planted *p)
{
    item_id id = p->ids[1] + 1; /* the time of it, other random bits */
    for (size_t i = 0; i < ITEMS; i++)
        assert_true(p->ids[i] != id);
    name_id(p, id);
    DO("ZADD %s -%s %s", p->timeline, p->what, p->what);
}

static void plant_mutes(struct planted *p)
{
    p->what[0] = '\0';
    DO("HSET %s m t:else", p->meta);
}

/* Of the target's document; the user's own publisher has one follower. */
static void set_followers(const char *target, int64_t n)
{
    bson_t *filter = BCON_NEW("_id", BCON_UTF8(target));
    bson_t *update = BCON_NEW("$set", "{", "followers", BCON_INT64(n), "}");
    bson_t opts = BSON_INITIALIZER, reply;
    bson_error_t be;
    int64_t matched = 0;
    mongo_conn_deadline(conn, WAIT_MS);
    mongo_write_opts(conn, &opts);
    assert_true(
        mongoc_collection_update_one(mongo_coll(conn, COLL_TARGETS), filter, update, &opts, &reply, &be));
    assert_true(mongo_get_i64(&reply, "matchedCount", &matched) && matched == 1);
    bson_destroy(filter);
    bson_destroy(update);
    bson_destroy(&opts);
    bson_destroy(&reply);
}

static int64_t followers(const char *target)
{
    struct audit_count c;
    struct err e;
    mongo_conn_deadline(conn, WAIT_MS);
    assert_int_equal(mongo_conn_fresh(conn, NULL, &e), 0);
    assert_int_equal(audit_count_read(conn, target, &c, &e), 0);
    return c.stored;
}

static void plant_count(struct planted *p)
{
    snprintf(p->what, sizeof p->what, "p:%s", p->publisher);
    set_followers(p->what, 77);
}

#define PLANTED(kind, plant)                                                                                 \
    {                                                                                                        \
        kind, plant, "", "", "", "", {0}, ""                                                                 \
    }

static const struct planted rows[] = {
    PLANTED("missing", plant_missing),
    PLANTED("extra", plant_extra),
    PLANTED("wrong_score", plant_wrong_score),
    PLANTED("floor_too_high", plant_floor),
    PLANTED("lost_pull_entry", plant_lost_pull_entry),
    PLANTED("wrong_r", plant_late_r),
    PLANTED("wrong_count", plant_count),
    PLANTED("foreign_id", plant_foreign_id),
    /* and more of the same kinds */
    PLANTED("wrong_r", plant_no_r),
    PLANTED("wrong_r", plant_early_r),
    PLANTED("foreign_id", plant_foreign_member),
    PLANTED("wrong_mutes", plant_mutes),
};
#define N MEM_COUNT(rows)

static bool is_count(const struct planted *p)
{
    return strcmp(p->kind, "wrong_count") == 0;
}

static ts_t position;

static void read_feed(struct planted *p)
{
    char path[100];
    struct e2e_list l;
    struct rng rng = {1};
    snprintf(path, sizeof path, "/v1/users/%s/feed", p->user);
    e2e_read_all(&stack.apis[0], 1, &rng, path, 10, "ids", position, &l);
    size_t k = 0;
    for (size_t i = 0; i < l.n; i++) { /* big's items are in it too */
        if (k < ITEMS && l.items[i].id == p->ids[k])
            k++;
        assert_true(l.items[i].id != stranger);
    }
    if (k != ITEMS)
        fail_msg("%s's feed lacks items: %zu of %d", p->user, k, ITEMS);
    e2e_list_done(&l);
}

static int newest_first(const void *a, const void *b)
{
    item_id x = *(const item_id *)a, y = *(const item_id *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

static void make_user(struct planted *p, unsigned i)
{
    snprintf(p->user, sizeof p->user, "reader-%u", i);
    snprintf(p->publisher, sizeof p->publisher, "own-%u", i);
    unsigned b = keys_bucket(p->user);
    keys_timeline(p->timeline, b, p->user);
    keys_timeline_meta(p->meta, b, p->user);
    position = ts_max(position, e2e_write(&stack.apis[0], "PUT", "/v1/users/%s/follows/publisher/%s", p->user,
                                          p->publisher));
    position =
        ts_max(position, e2e_write(&stack.apis[0], "PUT", "/v1/users/%s/follows/publisher/big", p->user));
    for (unsigned k = 0; k < ITEMS; k++)
        p->ids[k] = e2e_publish(&stack.apis[0], p->publisher, NULL, "an item", NULL, 0, &position);
    qsort(p->ids, ITEMS, sizeof p->ids[0], newest_first); /* of one millisecond, in any order */
}

static bool is_listed(void *arg)
{
    const struct planted *p = arg;
    redisReply *r = e2e_redis_do(stack.redis, "HMGET %s st p", p->meta);
    bool yes = r->element[0]->type == REDIS_REPLY_STRING && strcmp(r->element[0]->str, "r") == 0 &&
               r->element[1]->type == REDIS_REPLY_STRING && strcmp(r->element[1]->str, "\np:big\n") == 0;
    freeReplyObject(r);
    return yes;
}

static bool is_counted(void *arg)
{
    struct planted *p = arg;
    char target[TARGET_TEXT_SIZE];
    snprintf(target, sizeof target, "p:%s", p->publisher);
    return followers(target) == 1 && followers("p:big") == (int64_t)N;
}

/* Readers whose timelines have a floor and a pull list, everything settled. */
static void make_world(struct planted *all)
{
    memcpy(all, rows, sizeof rows);
    position = 0;
    for (unsigned i = 0; i < N; i++)
        make_user(&all[i], i);
    for (unsigned i = 0; i < 3; i++)
        e2e_publish(&stack.apis[0], "big", NULL, "for all", NULL, 0, &position);
    stranger = e2e_publish(&stack.apis[0], "nobodys", NULL, "for none", NULL, 0, &position);
    for (unsigned i = 0; i < N; i++) {
        assert_true(fixture_until(is_counted, &all[i], WAIT_MS));
        assert_true(e2e_caught_up(stack.redis, all[i].user, position));
        read_feed(&all[i]);
        assert_true(fixture_until(is_listed, &all[i], WAIT_MS));
    }
}

/* ---- corruption ---- */

static void an_intact_world_has_no_findings(void **state)
{
    (void)state;
    struct planted all[N];
    make_world(all);
    struct run r = TOOL("--all", "--json", "--count-lag", "1s", "--rate", "1000");
    if (r.status != 0 || findings(&r) != 0)
        fail_msg("status %d: %s", r.status, r.out);
    assert_int_equal(summary(&r, "timelines", "intact"), N);
    assert_int_equal(summary(&r, "timelines", "unjudged"), 0);
    assert_int_equal(summary(&r, "counts", "wrong"), 0);
    assert_true(summary(&r, "counts", "checked") >= (json_int_t)N + 1);
    run_done(&r);
}

/* One look at all of them: nothing else is found, and each under its name. */
static void each_planted_corruption_is_named_and_repaired(void **state)
{
    (void)state;
    struct planted all[N];
    make_world(all);
    for (unsigned i = 0; i < N; i++)
        all[i].plant(&all[i]);
    struct run found = TOOL("--all", "--json", "--count-lag", "1s");
    for (unsigned i = 0; i < N; i++) {
        struct planted *p = &all[i];
        bool ok = is_count(p) ? has(&found, "finding", p->kind, "target", p->what, NULL)
                              : has(&found, "finding", p->kind, "user", p->user, p->what);
        if (!ok)
            fail_msg("%s of %s was not found: %s", p->kind, p->user, found.out);
    }
    if (findings(&found) != N || found.status != 1)
        fail_msg("status %d, %zu findings: %s", found.status, findings(&found), found.out);
    run_done(&found);

    struct run repaired = TOOL("--all", "--json", "--count-lag", "1s", "--repair");
    for (unsigned i = 0; i < N; i++) {
        if (!has(&repaired, "repair", is_count(&all[i]) ? "recounted" : "dropped",
                 is_count(&all[i]) ? "target" : "user", is_count(&all[i]) ? all[i].what : all[i].user, NULL))
            fail_msg("%s of %s was not repaired: %s", all[i].kind, all[i].user, repaired.out);
    }
    assert_int_equal(repaired.status, 0);
    assert_int_equal(summary(&repaired, NULL, "repaired"), N);
    run_done(&repaired);

    for (unsigned i = 0; i < N; i++)
        read_feed(&all[i]);
    struct run after = TOOL("--all", "--json", "--count-lag", "1s");
    if (after.status != 0 || findings(&after) != 0 || summary(&after, "timelines", "intact") != N)
        fail_msg("after the repair: status %d: %s", after.status, after.out);
    run_done(&after);
    assert_int_equal(followers(all[6].what), 1);
}

static void what_may_lie_in_a_timeline_is_no_finding(void **state)
{
    (void)state;
    struct planted all[N];
    make_world(all);
    char id[ITEM_ID_TEXT_SIZE];
    /* Deleted, and below the floor: of no item, of another's. */
    position = ts_max(position, e2e_write(&stack.apis[0], "DELETE", "/v1/items/%" PRIu64, all[0].ids[2]));
    DO("ZADD %s -5 5", all[4].timeline);
    ids_format(all[0].ids[ITEMS - 1], id); /* published before all of his */
    DO("ZADD %s -%s %s", all[4].timeline, id, id);
    /* Gone altogether, half gone, being built. */
    DO("DEL %s", all[1].timeline);
    DO("DEL %s", all[2].meta);
    DO("HSET %s st b", all[3].meta);
    assert_true(e2e_caught_up(stack.redis, all[0].user, position));
    struct run r = TOOL("--all", "--json", "--count-lag", "1s");
    if (r.status != 0 || findings(&r) != 0)
        fail_msg("status %d: %s", r.status, r.out);
    assert_int_equal(summary(&r, "timelines", "intact"), N - 3);
    assert_int_equal(summary(&r, "timelines", "absent"), 2);
    run_done(&r);
}

/* Items that change their topics leave timelines: fewer entries than the cap are above the floor then.
 * Deleted ones stay. */
static void a_floor_above_which_items_left_is_no_finding(void **state)
{
    (void)state;
    item_id ids[12];
    position = e2e_write(&stack.apis[0], "PUT", "/v1/users/leaver/follows/topic/here");
    for (unsigned i = 0; i < MEM_COUNT(ids); i++)
        ids[i] = e2e_publish(&stack.apis[0], "any", NULL, "item", "[\"here\"]", 0, &position);
    struct planted p = {.user = "leaver"};
    struct e2e_page page;
    e2e_page(&stack.apis[0], "/v1/users/leaver/feed", "limit=3", NULL, position, &page);
    e2e_page_done(&page);
    for (unsigned i = 6; i < MEM_COUNT(ids); i++) {
        char path[80];
        struct reply r;
        snprintf(path, sizeof path, "/v1/items/%" PRIu64, ids[i]);
        e2e_call(&stack.apis[0], "PATCH", path, "{\"topics\":[\"there\"]}", 200, &r);
        e2e_position(&r, &position);
        reply_done(&r);
    }
    /* A tombstone has no topics; its id stays where it is. */
    position = ts_max(position, e2e_write(&stack.apis[0], "DELETE", "/v1/items/%" PRIu64, ids[5]));
    assert_true(e2e_caught_up(stack.redis, p.user, position));
    struct e2e_timeline t;
    assert_true(e2e_timeline(stack.redis, p.user, &t));
    assert_true(t.floor > 0 && t.above < CAP);
    struct run r = TOOL("--user", "leaver", "--json");
    if (r.status != 0 || summary(&r, "timelines", "intact") != 1)
        fail_msg("status %d: %s", r.status, r.out);
    run_done(&r);
}

#define MANY 10000

static void follow_many(const char *user)
{
    char *lines = mem_alloc((size_t)MANY * 100), *at = lines;
    struct reply r;
    for (unsigned i = 0; i < MANY; i++)
        at += sprintf(at, "{\"user\":\"%s\",\"kind\":\"%s\",\"name\":\"many-%u\"}\n", user,
                      i % 2 ? "topic" : "publisher", i);
    if (e2e_try(&stack.apis[0], "POST", "/v1/follows/bulk", "Content-Type: application/x-ndjson\r\n", lines,
                &r))
        fail_msg("no answer to %d follows", MANY);
    assert_int_equal(r.status, 200);
    e2e_position(&r, &position);
    reply_done(&r);
    free(lines);
}

/* Many more targets than MongoDB merges index scans of. */
static void a_reader_of_ten_thousand_targets_is_audited(void **state)
{
    (void)state;
    static const char user[] = "reader-of-many";
    item_id ids[12];
    char path[KEY_SIZE], id[ITEM_ID_TEXT_SIZE];
    struct e2e_page page;
    follow_many(user);
    for (unsigned i = 0; i < MEM_COUNT(ids); i++) {
        char publisher[32];
        snprintf(publisher, sizeof publisher, "many-%u", i * 832);
        ids[i] = e2e_publish(&stack.apis[0], publisher, NULL, "one of many", NULL, 0, &position);
    }
    snprintf(path, sizeof path, "/v1/users/%s/feed", user);
    e2e_page(&stack.apis[0], path, "limit=3", NULL, position, &page);
    e2e_page_done(&page);
    item_id newest =
        e2e_publish(&stack.apis[0], "somebody", NULL, "by topic", "[\"many-9999\"]", 0, &position);
    assert_true(e2e_caught_up(stack.redis, user, position));
    struct run good = TOOL("--user", user, "--json");
    if (good.status != 0 || summary(&good, "timelines", "intact") != 1)
        fail_msg("status %d: %s", good.status, good.out);
    run_done(&good);
    ids_format(newest, id);
    keys_timeline(path, keys_bucket(user), user);
    DO("ZREM %s %s", path, id);
    struct run bad = TOOL("--user", user, "--json");
    assert_int_equal(bad.status, 1);
    assert_true(has(&bad, "finding", "missing", "user", user, id));
    assert_int_equal(findings(&bad), 1);
    run_done(&bad);
}

/* ---- the tool's ways ---- */

static void the_tool_says_what_is_wrong_with_its_options_and_servers(void **state)
{
    (void)state;
    static const struct {
        const char *flags[6], *says;
    } wrong[] = {
        {{"--all", "--user", "ann"}, "only one of them"},
        {{"--user", "two words"}, "white space"},
        {{"--rate", "0"}, "rate"},
        {{"--nonsense"}, "nonsense"},
        {{"--redis", "unix:/nowhere/at/all"}, "redis"},
        {{"--mongodb-uri", "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200"}, "MongoDB"},
        {{"--redis", "", "--data", "/nowhere"}, "make run"},
    };
    for (size_t i = 0; i < MEM_COUNT(wrong); i++) {
        struct run r = run_tool(false, wrong[i].flags);
        if (r.status != 2 || !strstr(r.out, wrong[i].says))
            fail_msg("%s %s: status %d: %s", wrong[i].flags[0], wrong[i].flags[1] ? wrong[i].flags[1] : "",
                     r.status, r.out);
        run_done(&r);
    }
    struct run help = TOOL("--help");
    assert_int_equal(help.status, 0);
    assert_non_null(strstr(help.out, "--repair"));
    run_done(&help);
}

static void a_sample_takes_so_many_and_one_user_is_one(void **state)
{
    (void)state;
    struct planted all[N];
    make_world(all);
    plant_missing(&all[5]);
    struct run five = TOOL("--sample", "5", "--json");
    assert_int_equal(summary(&five, "timelines", "intact") + summary(&five, "timelines", "wrong"), 5);
    run_done(&five);
    struct run all_of_them = TOOL("--json");
    assert_int_equal(summary(&all_of_them, "timelines", "intact"), N - 1);
    assert_int_equal(summary(&all_of_them, "timelines", "wrong"), 1);
    assert_int_equal(all_of_them.status, 1);
    run_done(&all_of_them);
    struct run good = TOOL("--user", all[4].user), bad = TOOL("--user", all[5].user),
               absent = TOOL("--user", "nobody", "--json");
    assert_int_equal(good.status, 0);
    assert_int_equal(bad.status, 1);
    assert_non_null(strstr(bad.out, "missing"));
    assert_non_null(strstr(bad.out, all[5].what));
    assert_non_null(strstr(bad.out, "1 timelines: 0 intact, 1 wrong"));
    assert_int_equal(absent.status, 0);
    assert_int_equal(summary(&absent, "timelines", "absent"), 1);
    run_done(&good);
    run_done(&bad);
    run_done(&absent);
}

static void interrupted_it_reports_what_it_has(void **state)
{
    (void)state;
    struct planted all[N];
    make_world(all);
    for (unsigned i = 0; i < N; i++)
        plant_wrong_score(&all[i]);
    struct run r = run_tool(true, (const char *const[]){"--all", "--json", "--rate", "1", NULL});
    json_t *last = json_array_get(r.lines, json_array_size(r.lines) - 1);
    assert_true(json_is_true(json_object_get(json_object_get(last, "summary"), "stopped")));
    assert_int_equal(r.status, 1);
    assert_true(summary(&r, "timelines", "wrong") >= 1);
    assert_true(summary(&r, "timelines", "wrong") < (json_int_t)N);
    run_done(&r);
}

/* Nothing is said of what can't be settled. */
static void while_fanout_stands_still_what_it_owes_is_unjudged(void **state)
{
    (void)state;
    struct planted all[N];
    make_world(all);
    server_pause(stack.fanout);
    e2e_publish(&stack.apis[0], all[0].publisher, NULL, "late", NULL, 0, &position);
    plant_wrong_score(&all[1]);
    struct run late = TOOL("--user", all[0].user, "--json", "--deadline", "500ms");
    struct run sure = TOOL("--user", all[1].user, "--json", "--deadline", "500ms");
    server_continue(stack.fanout);
    assert_int_equal(summary(&late, "timelines", "unjudged"), 1);
    assert_int_equal(late.status, 0);
    assert_true(has(&sure, "finding", "wrong_score", "user", all[1].user, all[1].what));
    assert_int_equal(sure.status, 1);
    run_done(&late);
    run_done(&sure);
    assert_true(e2e_caught_up(stack.redis, all[0].user, position));
    struct run caught_up = TOOL("--user", all[0].user, "--json");
    assert_int_equal(summary(&caught_up, "timelines", "intact"), 1);
    run_done(&caught_up);
}

/* ---- under load ---- */

struct load {
    const struct driver *d;
    struct redis *redis;
    struct audit *audit;
    struct mongo_conn *conn;
    atomic_bool stop;
    unsigned checks[AUDIT_VERDICTS], first_looks, differences;
    char said[2000]; /* the first findings */
};

static void say(struct load *l, const struct audit_report *r)
{
    for (size_t i = 0; i < r->n; i++) {
        size_t len = strlen(l->said);
        snprintf(l->said + len, sizeof l->said - len, "%s: %s %s: %s\n", r->user,
                 audit_kind_name(r->findings[i].kind), r->findings[i].what, r->findings[i].detail);
    }
}

/* What a single look would say. */
static void look_once(struct load *l, const char *user)
{
    static struct audit_list list;
    struct audit_view v;
    struct audit_truth t;
    struct err e;
    mongo_conn_deadline(l->conn, WAIT_MS);
    if (audit_view_read(l->redis, user, &v, &e) != 0)
        return;
    if (audit_view_counts(&v) && audit_truth_read(l->conn, user, &v, &t, &e) == 0) {
        audit_compare(&v, &t, CAP, &list);
        l->first_looks++;
        l->differences += list.n > 0;
        audit_truth_done(&t);
    }
    audit_view_done(&v);
}

static void *audit_all_the_time(void *arg)
{
    struct load *l = arg;
    struct audit_report *r = mem_alloc(sizeof *r);
    for (unsigned i = 0; !atomic_load(&l->stop); i++) {
        const char *user = driver_user(l->d, i % l->d->users);
        struct err e;
        if (audit_timeline(l->audit, user, r, &e) != 0)
            snprintf(l->said, sizeof l->said, "%s: %s\n", user, e.msg);
        else
            l->checks[r->verdict]++;
        say(l, r);
        look_once(l, user);
    }
    free(r);
    return NULL;
}

static void load_start(struct load *l, const struct driver *d, pthread_t *thread)
{
    struct err e;
    struct audit_options o = {.mongo = mongo, .deadline_ms = WAIT_MS, .redis_timeout_ms = WAIT_MS};
    memset(l, 0, sizeof *l);
    l->d = d;
    assert_int_equal(redis_address_parse(fixture_redis_address(stack.f), &o.redis, &e), 0);
    assert_int_equal(mongo_conn_get(mongo, &l->conn, &e), 0);
    l->redis = redis_new(&o.redis, WAIT_MS);
    l->audit = audit_new(&o);
    assert_int_equal(pthread_create(thread, NULL, audit_all_the_time, l), 0);
}

static void load_stop(struct load *l, pthread_t thread)
{
    atomic_store(&l->stop, true);
    pthread_join(thread, NULL);
    audit_free(l->audit);
    redis_free(l->redis);
    mongo_conn_put(l->conn);
    printf("%u intact, %u absent, %u unjudged, %u wrong; of %u single looks %u saw a difference\n",
           l->checks[AUDIT_INTACT], l->checks[AUDIT_ABSENT], l->checks[AUDIT_UNJUDGED],
           l->checks[AUDIT_WRONG], l->first_looks, l->differences);
}

/* A write that is not taken in between is sent again. */
static void write_through(struct driver *d, unsigned flags)
{
    struct flights f;
    flights_send(d, flags | DRIVER_NAMED, 1, &f);
    flights_read(d, &f);
    flights_again(d, &f);
}

/* Publishes, edits of topics, deletes, follows, mutes, turns of targets, while each reader is audited. */
static void a_busy_world_has_no_findings(void **state)
{
    (void)state;
    int64_t seeds = e2e_env("FEEDMILL_SEEDS", 3);
    for (int64_t seed = 0; seed < seeds; seed++) {
        struct driver d;
        struct load l;
        pthread_t thread;
        driver_init(&d, (uint64_t)(e2e_env("FEEDMILL_SEED", 1) + seed), "audit", stack.apis, 1, stack.redis);
        driver_setup(&d, 60);
        driver_check_all_feeds(&d);
        load_start(&l, &d, &thread);
        for (unsigned i = 0; i < 400; i++) {
            write_through(&d, i % 40 < 10 ? DRIVER_GRAPH : 0);
            if (i % 10 == 0)
                driver_check_feed(&d, rng_below(&d.rng, d.users));
        }
        load_stop(&l, thread);
        if (l.said[0] || l.checks[AUDIT_WRONG])
            driver_fail(&d, "findings:\n%s", l.said);
        if (l.checks[AUDIT_UNJUDGED] * 10 > l.checks[AUDIT_INTACT])
            driver_fail(&d, "too much is left unjudged");
        if (l.checks[AUDIT_INTACT] < 20 || l.differences == 0)
            driver_fail(&d, "too little was audited, or nothing moved");
        driver_done(&d);
    }
}

/* Somebody takes things away, and fanout dies and comes back. */
static void disturb(struct driver *d)
{
    char key[KEY_SIZE];
    const char *user = driver_user(d, rng_below(&d->rng, d->users));
    unsigned b = keys_bucket(user);
    switch (rng_below(&d->rng, 5)) {
    case 0:
        DO("FLUSHALL");
        return;
    case 1:
        server_kill(stack.fanout);
        fixture_restart(stack.f, stack.fanout);
        return;
    case 2:
        keys_timeline(key, b, user);
        break;
    case 3:
        keys_timeline_meta(key, b, user);
        break;
    default:
        keys_bucket_record(key, b);
    }
    DO("DEL %s", key);
}

static void a_world_that_loses_things_has_no_findings(void **state)
{
    (void)state;
    int64_t seeds = e2e_env("FEEDMILL_SEEDS", 2);
    for (int64_t seed = 0; seed < seeds; seed++) {
        struct driver d;
        struct load l;
        pthread_t thread;
        driver_init(&d, (uint64_t)(e2e_env("FEEDMILL_SEED", 1) + seed), "loses", stack.apis, 1, stack.redis);
        driver_setup(&d, 60);
        load_start(&l, &d, &thread);
        for (unsigned i = 0; i < 300; i++) {
            write_through(&d, i % 40 < 10 ? DRIVER_GRAPH : 0);
            if (i % 5 == 0)
                driver_check_feed(&d, rng_below(&d.rng, d.users));
            if (i % 30 == 29)
                disturb(&d);
        }
        load_stop(&l, thread);
        if (l.said[0] || l.checks[AUDIT_WRONG])
            driver_fail(&d, "findings:\n%s", l.said);
        driver_done(&d);
    }
}

/* ---- fanout's sampler ---- */

static double fanout_metric(const char *line)
{
    return e2e_metric_on((uint16_t)fixture_port(stack.f, stack.fanout), stack.apis[0].auth, line);
}

struct metric_wait {
    const char *line;
    double at_least;
};

static bool metric_reached(void *arg)
{
    struct metric_wait *w = arg;
    return fanout_metric(w->line) >= w->at_least;
}

static bool is_gone(void *arg)
{
    const struct planted *p = arg;
    redisReply *r = e2e_redis_do(stack.redis, "EXISTS %s %s", p->timeline, p->meta);
    bool gone = r->integer == 0;
    freeReplyObject(r);
    return gone;
}

static int fresh_sampling(void **state)
{
    setenv("FEEDMILL_AUDIT_INTERVAL", "20", 1);
    int rc = fresh(state);
    setenv("FEEDMILL_AUDIT_INTERVAL", "0", 1);
    return rc;
}

static int fresh_repairing(void **state)
{
    setenv("FEEDMILL_AUDIT_REPAIR", "yes", 1);
    int rc = fresh_sampling(state);
    unsetenv("FEEDMILL_AUDIT_REPAIR");
    return rc;
}

static void fanout_finds_what_was_planted_and_exports_it(void **state)
{
    (void)state;
    struct planted all[N];
    struct metric_wait many = {"feedmill_fanout_audit_checks_total{result=\"intact\"}", 60};
    struct metric_wait missing = {"feedmill_fanout_audit_findings_total{kind=\"missing\"}", 1};
    struct metric_wait foreign = {"feedmill_fanout_audit_findings_total{kind=\"foreign_id\"}", 1};
    make_world(all);
    assert_true(fixture_until(metric_reached, &many, WAIT_MS));
    assert_true(fanout_metric("feedmill_fanout_audit_checks_total{result=\"wrong\"}") == 0);
    plant_missing(&all[2]);
    plant_foreign_id(&all[3]);
    assert_true(fixture_until(metric_reached, &missing, WAIT_MS));
    assert_true(fixture_until(metric_reached, &foreign, WAIT_MS));
    assert_true(fanout_metric("feedmill_fanout_audit_checks_total{result=\"wrong\"}") >= 2);
    assert_true(fanout_metric("feedmill_fanout_audit_findings_total{kind=\"extra\"}") == 0);
    assert_false(is_gone(&all[2])); /* it only tells */
}

static void fanout_repairs_when_it_is_asked_to(void **state)
{
    (void)state;
    struct planted all[N];
    make_world(all);
    plant_missing(&all[1]);
    assert_true(fixture_until(is_gone, &all[1], WAIT_MS));
    read_feed(&all[1]);
    struct run r = TOOL("--all", "--json", "--count-lag", "1s");
    if (r.status != 0 || findings(&r) != 0)
        fail_msg("status %d: %s", r.status, r.out);
    run_done(&r);
}

int main(void)
{
    const struct CMUnitTest whole[] = {
        cmocka_unit_test(a_busy_world_has_no_findings),
        cmocka_unit_test(a_world_that_loses_things_has_no_findings),
        cmocka_unit_test_setup(an_intact_world_has_no_findings, fresh),
        cmocka_unit_test_setup(each_planted_corruption_is_named_and_repaired, fresh),
        cmocka_unit_test_setup(what_may_lie_in_a_timeline_is_no_finding, fresh),
        cmocka_unit_test_setup(a_floor_above_which_items_left_is_no_finding, fresh),
        cmocka_unit_test_setup(a_reader_of_ten_thousand_targets_is_audited, fresh),
        cmocka_unit_test(the_tool_says_what_is_wrong_with_its_options_and_servers),
        cmocka_unit_test_setup(a_sample_takes_so_many_and_one_user_is_one, fresh),
        cmocka_unit_test_setup(interrupted_it_reports_what_it_has, fresh),
        cmocka_unit_test_setup(while_fanout_stands_still_what_it_owes_is_unjudged, fresh),
        cmocka_unit_test_setup(fanout_finds_what_was_planted_and_exports_it, fresh_sampling),
        cmocka_unit_test_setup(fanout_repairs_when_it_is_asked_to, fresh_repairing),
    };
    e2e_choose_tests();
    return cmocka_run_group_tests_name("the audit", whole, start_stack, stop_stack);
}
