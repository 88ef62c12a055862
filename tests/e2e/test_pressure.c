/* test_pressure.c - back-pressure: publishing is held back while fanout is behind, goes on without Redis or
 * fanout (P10), and Redis' memory does not run out.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/keys.h"
#include "tests/support/e2e.h"

#define FOLLOWERS   500
#define ITEMS       300 /* one after the other to each of them: seconds of work */
#define BACKLOG_MAX 10
#define DEADLINE_MS 60000

static struct fixture *f;
static struct server *fanout;
static struct e2e_api by_backlog, by_lag, unlimited;
static redisContext *redis;

static int start(void **state)
{
    (void)state;
    f = fixture_new(FIXTURE_BOTH);
    /* As slow as a fanout can be: one timeline in a call, one call at a time. */
    fanout = fixture_start(f, "fanout", "fanout-1", "--pipeline-calls", "1", "--batch-keys", "1",
                           "--lease-ms", "1000", "--redis-timeout", "500", NULL);
    e2e_api_init(&by_backlog, f,
                 fixture_start(f, "feed-api", "feed-api-1", "--publish-backlog-max", "10",
                               "--publish-lag-max", "0", NULL));
    e2e_api_init(&by_lag, f,
                 fixture_start(f, "feed-api", "feed-api-2", "--publish-backlog-max", "0", "--publish-lag-max",
                               "500", NULL));
    e2e_api_init(&unlimited, f,
                 fixture_start(f, "feed-api", "feed-api-3", "--publish-backlog-max", "0", "--publish-lag-max",
                               "0", "--timeline-idle", "30s", NULL));
    redis = e2e_redis(f);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    e2e_api_done(&by_backlog);
    e2e_api_done(&by_lag);
    e2e_api_done(&unlimited);
    redisFree(redis);
    void *p = f;
    return fixture_group_teardown(&p);
}

/* ---- small things ---- */

static void bulk(struct e2e_api *a, const char *path, const struct buf *lines, int status)
{
    struct reply r;
    assert_int_equal(e2e_try(a, "POST", path, "Content-Type: application/x-ndjson\r\n", lines->data, &r), 0);
    if (r.status != status)
        fail_msg("%s: %d, not %d: %.300s", path, r.status, status, r.body);
    reply_done(&r);
}

static void follow(const char *prefix, unsigned n, const char *publisher)
{
    struct buf lines;
    buf_init(&lines, 1 << 20);
    for (unsigned i = 0; i < n; i++)
        buf_printf(&lines, "{\"user\":\"%s%u\",\"kind\":\"publisher\",\"name\":\"%s\"}\n", prefix, i,
                   publisher);
    bulk(&unlimited, "/v1/follows/bulk", &lines, 200);
    buf_done(&lines);
}

/* Each with a topic of its own, so that fanout does not deliver several at once. */
static void publish_many(struct e2e_api *a, const char *publisher, const char *external, unsigned n,
                         int status)
{
    struct buf lines;
    buf_init(&lines, 1 << 20);
    for (unsigned i = 0; i < n; i++)
        buf_printf(&lines,
                   "{\"publisher\":\"%s\",\"external_id\":\"%s%u\",\"title\":\"t\",\"body\":\"b\","
                   "\"topics\":[\"%s%u\"]}\n",
                   publisher, external, i, external, i);
    bulk(a, "/v1/items/bulk", &lines, status);
    buf_done(&lines);
}

static void read_feed(const char *prefix, unsigned i, unsigned limit, struct e2e_page *out)
{
    char path[80], query[40];
    snprintf(path, sizeof path, "/v1/users/%s%u/feed", prefix, i);
    snprintf(query, sizeof query, "limit=%u&fields=ids", limit);
    e2e_page(&unlimited, path, query, NULL, 0, out);
    assert_string_equal(out->state, "complete");
}

static void read_each(const char *prefix, unsigned from, unsigned to, size_t expected)
{
    for (unsigned i = from; i < to; i++) {
        struct e2e_page p;
        read_feed(prefix, i, 1, &p);
        assert_int_equal(p.n, expected);
        e2e_page_done(&p);
    }
}

static const json_t *member(const json_t *o, const char *outer, const char *name)
{
    const json_t *v = json_object_get(json_object_get(o, outer), name);
    assert_non_null(v);
    return v;
}

/* One item published, or the status that it was refused with. */
static int try_publish(struct e2e_api *a, const char *publisher, struct reply *r)
{
    char body[120];
    snprintf(body, sizeof body, "{\"publisher\":\"%s\",\"title\":\"t\",\"body\":\"b\"}", publisher);
    assert_int_equal(e2e_try(a, "POST", "/v1/items", NULL, body, r), 0);
    return r->status;
}

struct publishing {
    struct e2e_api *api;
    int status; /* waited for */
};

static bool publishes_so(void *arg)
{
    struct publishing *p = arg;
    struct reply r;
    int status = try_publish(p->api, "other", &r);
    reply_done(&r);
    return status == p->status;
}

static void until_publishing(struct e2e_api *a, int status)
{
    struct publishing p = {a, status};
    if (!fixture_until(publishes_so, &p, DEADLINE_MS))
        fixture_fail(f, "publishing was not answered %d", status);
}

/* ---- held back ---- */

static void expect_held_back(struct e2e_api *a, const char *method, const char *path, const char *body)
{
    struct reply r;
    e2e_call(a, method, path, body, 503, &r);
    json_t *j = reply_json(&r);
    const char *after = reply_header(&r, "Retry-After");
    long long ms = json_integer_value(json_object_get(j, "retry_after_ms"));
    assert_string_equal(json_string_value(json_object_get(j, "type")), "/problems/overloaded");
    assert_true(ms >= 1000 && ms <= 30000);
    assert_non_null(after);
    assert_int_equal(atoll(after), (ms + 999) / 1000);
    json_decref(j);
    reply_done(&r);
}

static void expect_status_says(struct e2e_api *a, const char *reason)
{
    json_t *s = e2e_json(a, "GET", "/v1/status", NULL, 200);
    assert_true(json_is_false(member(s, "publishing", "accepting")));
    assert_string_equal(json_string_value(member(s, "publishing", "reason")), reason);
    assert_true(json_integer_value(member(s, "publishing", "retry_after_ms")) >= 1000);
    const json_t *one = json_array_get(json_object_get(s, "fanouts"), 0);
    assert_string_equal(json_string_value(json_object_get(one, "name")), "fanout-1");
    assert_int_equal(json_integer_value(json_object_get(one, "buckets")), BUCKETS);
    assert_true(json_integer_value(json_object_get(one, "backlog")) > 0);
    json_decref(s);
    struct reply r;
    e2e_call(a, "GET", "/readyz", NULL, 200, &r);
    assert_non_null(strstr(r.body, "\"fanout\""));
    reply_done(&r);
    char line[80];
    snprintf(line, sizeof line, "feedmill_publish_refused_total{reason=\"%s\"}", reason);
    assert_true(e2e_metric(a, line) > 0);
    assert_true(e2e_metric(a, "feedmill_publishing_accepted") == 0);
}

static void what_costs_fan_out_is_503_while_fanout_is_behind_and_nothing_else(void **state)
{
    (void)state;
    struct reply r;
    struct e2e_page p;
    char item[60];
    follow("fan", FOLLOWERS, "star");
    item_id id = e2e_publish(&unlimited, "star", "first", "t", NULL, clock_wall_ms(), NULL);
    snprintf(item, sizeof item, "/v1/items/%llu", (unsigned long long)id);
    read_each("fan", 0, FOLLOWERS, 1);
    until_publishing(&by_backlog, 201);
    until_publishing(&by_lag, 201);

    publish_many(&unlimited, "star", "x", ITEMS, 200);
    until_publishing(&by_lag, 503);
    until_publishing(&by_backlog, 503);
    expect_held_back(&by_backlog, "POST", "/v1/items",
                     "{\"publisher\":\"star\",\"title\":\"t\",\"body\":\"b\"}");
    expect_held_back(&by_backlog, "PATCH", item, "{\"topics\":[\"news\"]}");
    publish_many(&by_backlog, "star", "no", 2, 503);
    expect_status_says(&by_backlog, "backlog");
    expect_status_says(&by_lag, "lag");
    /* What is wrong is wrong at any time; what asks nothing of fanout is done. */
    e2e_call(&by_backlog, "POST", "/v1/items", "{\"publisher\":\"star\"}", 400, &r);
    reply_done(&r);
    e2e_call(&by_backlog, "PATCH", item, "{\"title\":\"another\"}", 200, &r);
    reply_done(&r);
    read_feed("fan", 1, 100, &p);
    assert_true(p.n > 0);
    e2e_page_done(&p);
    struct buf lines;
    buf_init(&lines, 1000);
    buf_add_str(&lines, "{\"op\":\"delete\",\"publisher\":\"star\",\"external_id\":\"x0\"}\n");
    bulk(&by_backlog, "/v1/items/bulk", &lines, 200);
    buf_done(&lines);
    e2e_call(&by_backlog, "DELETE", item, NULL, 204, &r);
    reply_done(&r);
    e2e_call(&by_backlog, "GET", "/v1/publishers/star/items/by-external/no0", NULL, 404, &r);
    reply_done(&r);
    assert_int_equal(try_publish(&by_backlog, "star", &r), 503); /* still: it was behind all the time */
    reply_done(&r);

    until_publishing(&by_backlog, 201);
    until_publishing(&by_lag, 201);
    json_t *s = e2e_json(&by_backlog, "GET", "/v1/status", NULL, 200);
    assert_true(json_is_true(member(s, "publishing", "accepting")));
    assert_true(json_is_null(member(s, "publishing", "reason")));
    json_decref(s);
    ts_t t = 0;
    id = e2e_publish(&unlimited, "star", NULL, "last", NULL, clock_wall_ms() + 1000, &t);
    assert_true(e2e_caught_up(redis, "fan0", t));
    read_feed("fan", 0, 100, &p);
    assert_int_equal(p.items[0].id, id);
    assert_int_equal(p.n, 100);
    e2e_page_done(&p);
}

/* ---- P10 ---- */

static void publish_some(struct e2e_api *a)
{
    for (unsigned i = 0; i < 3 * BACKLOG_MAX; i++) {
        struct reply r;
        assert_int_equal(try_publish(a, "star", &r), 201);
        reply_done(&r);
    }
}

static bool fanout_lacks_redis(void *arg)
{
    (void)arg;
    json_t *s = e2e_json(&by_backlog, "GET", "/v1/status", NULL, 200);
    const json_t *one = json_array_get(json_object_get(s, "fanouts"), 0);
    bool yes = json_is_false(json_object_get(one, "redis"));
    json_decref(s);
    return yes;
}

static bool no_fanout_lives(void *arg)
{
    (void)arg;
    json_t *s = e2e_json(&by_backlog, "GET", "/v1/status", NULL, 200);
    bool yes = json_array_size(json_object_get(s, "fanouts")) == 0;
    json_decref(s);
    return yes;
}

static void p10_without_redis_and_without_fanout_publishing_goes_on(void **state)
{
    (void)state;
    until_publishing(&by_backlog, 201);
    server_pause(fixture_redis(f));
    assert_true(fixture_until(fanout_lacks_redis, NULL, DEADLINE_MS));
    publish_some(&by_backlog);
    publish_some(&by_lag);
    server_continue(fixture_redis(f));
    until_publishing(&by_lag, 201);
    until_publishing(&by_backlog, 201);
    server_kill(fanout);
    assert_true(fixture_until(no_fanout_lives, NULL, DEADLINE_MS));
    publish_some(&by_backlog);
    publish_some(&by_lag);
    fixture_restart(f, fanout);
    until_publishing(&by_lag, 201);
    until_publishing(&by_backlog, 201);
}

/* ---- memory ---- */

#define READERS  1000
#define EARLY    600 /* of them: read first ... */
#define AGAIN    50  /* ... and of these: read again */
#define PER_FEED 120

static long long info(const char *section, const char *field)
{
    redisReply *r = e2e_redis_do(redis, "INFO %s", section);
    const char *at = strstr(r->str, field);
    long long v = at ? atoll(at + strlen(field)) : 0;
    freeReplyObject(r);
    return v;
}

static void config(const char *name, long long number, const char *word)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", number);
    freeReplyObject(e2e_redis_do(redis, "CONFIG SET %s %s", name, word ? word : text));
}

/* Wall seconds of the last reading, as the timeline has it; 0: there is none. */
static long long read_at(unsigned i)
{
    char user[40], pf[KEY_SIZE];
    snprintf(user, sizeof user, "mem%u", i);
    keys_timeline_meta(pf, keys_bucket(user), user);
    redisReply *r = e2e_redis_do(redis, "HGET %s x", pf);
    long long x = r->type == REDIS_REPLY_STRING ? atoll(r->str) : 0;
    freeReplyObject(r);
    return x;
}

static bool is_read_again(void *arg)
{
    const long long *since = arg;
    read_each("mem", 0, AGAIN, 1);
    for (unsigned i = 0; i < AGAIN; i++)
        if (read_at(i) <= *since)
            return false;
    return true;
}

static unsigned count_timelines(unsigned from, unsigned to)
{
    unsigned n = 0;
    for (unsigned i = from; i < to; i++)
        n += read_at(i) > 0;
    return n;
}

static double evicted(void)
{
    return e2e_metric_on((uint16_t)fixture_port(f, fanout), NULL, "feedmill_fanout_evicted_timelines_total");
}

static bool room_was_made(void *arg)
{
    (void)arg;
    return evicted() > 0 && info("memory", "used_memory:") * 100 <= info("memory", "maxmemory:") * 91;
}

static void redis_near_its_limit_loses_the_timelines_read_least_recently_and_refuses_nobody(void **state)
{
    (void)state;
    struct e2e_page p;
    freeReplyObject(e2e_redis_do(redis, "CONFIG SET maxmemory-policy noeviction"));
    /* Others' timelines would be older still. */
    freeReplyObject(e2e_redis_do(redis, "FLUSHALL"));
    ts_t t = 0;
    e2e_publish(&unlimited, "other", NULL, "after the flush", NULL, clock_wall_ms(), &t);
    assert_true(e2e_caught_up(redis, "mem0", t));
    publish_many(&unlimited, "wide", "w", PER_FEED, 200);
    follow("mem", READERS, "wide");
    double unwritten = e2e_metric(&unlimited, "feedmill_rebuilds_total{result=\"no_redis\"}");
    long long empty = info("memory", "used_memory:");
    read_each("mem", 0, EARLY, 1);
    long long each = (info("memory", "used_memory:") - empty) / EARLY, since = 0;
    for (unsigned i = 0; i < EARLY; i++)
        since = read_at(i) > since ? read_at(i) : since;
    assert_true(fixture_until(is_read_again, &since, DEADLINE_MS));

    /* All of them would be some percent too much; at most two thirds of the early ones have to go. */
    config("maxmemory", (empty + (READERS - 280) * each) * 100 / 90, NULL);
    freeReplyObject(e2e_redis_do(redis, "CONFIG RESETSTAT"));
    read_each("mem", EARLY, READERS, 1);
    assert_true(fixture_until(room_was_made, NULL, DEADLINE_MS));
    assert_int_equal(count_timelines(0, AGAIN), AGAIN);
    assert_int_equal(count_timelines(EARLY, READERS), READERS - EARLY);
    assert_true(count_timelines(AGAIN, EARLY) < EARLY - AGAIN);
    assert_int_equal(info("errorstats", "errorstat_OOM:count="), 0);
    assert_int_equal(info("stats", "evicted_keys:"), 0); /* it was not Redis */
    assert_true(e2e_metric(&unlimited, "feedmill_rebuilds_total{result=\"no_redis\"}") == unwritten);

    /* Whoever comes back, and who stayed, has a whole page, with what was published meanwhile. */
    item_id id = e2e_publish(&unlimited, "wide", NULL, "last", NULL, clock_wall_ms() + 1000, &t);
    assert_true(e2e_caught_up(redis, "mem0", t));
    for (unsigned i = 0; i < READERS; i += 9) {
        read_feed("mem", i, 100, &p);
        assert_int_equal(p.n, 100);
        assert_non_null(p.next);
        assert_int_equal(p.items[0].id, id);
        e2e_page_done(&p);
    }
    assert_int_equal(info("errorstats", "errorstat_OOM:count="), 0);
    config("maxmemory", 0, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_costs_fan_out_is_503_while_fanout_is_behind_and_nothing_else),
        cmocka_unit_test(p10_without_redis_and_without_fanout_publishing_goes_on),
        cmocka_unit_test(redis_near_its_limit_loses_the_timelines_read_least_recently_and_refuses_nobody),
    };
    e2e_choose_tests();
    return cmocka_run_group_tests_name("e2e/pressure", tests, start, stop);
}
