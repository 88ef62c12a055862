/* test_feed.c - pages through the HTTP API: their shape, what is refused, visibility (P5), bad items (P6),
 * honesty (P7), reading one's writes (P8), degraded modes (P10), and the ranked order.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/keys.h"
#include "common/mem.h"
#include "common/mongo.h"
#include "tests/support/e2e.h"

static struct fixture *f;
static struct server *fanout, *ranker, *servers[2];
static struct e2e_api api[2];
static redisContext *redis;
static unsigned names; /* each test has users and publishers of its own */

static int start(void **state)
{
    (void)state;
    f = fixture_new(FIXTURE_BOTH);
    fanout = fixture_start(f, "fanout", "fanout-1", "--timeline-entries", "8", NULL);
    ranker = fixture_start(f, "ranker", "ranker-1", NULL);
    for (int i = 0; i < 2; i++) {
        servers[i] = fixture_start(f, "feed-api", i ? "feed-api-2" : "feed-api-1", "--timeline-entries", "8",
                                   "--rank-deadline", "5000", "--request-deadline", "10s", NULL);
        e2e_api_init(&api[i], f, servers[i]);
    }
    redis = e2e_redis(f);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++)
        e2e_api_done(&api[i]);
    redisFree(redis);
    void *p = f;
    return fixture_group_teardown(&p);
}

/* ---- small things ---- */

struct reader {
    char user[32], publisher[32], feed[80];
    ts_t position; /* of the newest write */
};

static struct reader new_reader(void)
{
    struct reader r = {.position = 0};
    snprintf(r.user, sizeof r.user, "user%u", ++names);
    snprintf(r.publisher, sizeof r.publisher, "pub%u", names);
    snprintf(r.feed, sizeof r.feed, "/v1/users/%s/feed", r.user);
    return r;
}

static void follow(struct reader *r, const char *kind, const char *name)
{
    ts_t t = e2e_write(&api[0], "PUT", "/v1/users/%s/follows/%s/%s", r->user, kind, name);
    r->position = ts_max(r->position, t);
}

/* n items of the reader's publisher, one a minute; ids newest first. */
static void publish(struct reader *r, item_id *ids, size_t n)
{
    int64_t base = clock_wall_ms() - (int64_t)(n + 10) * 60000;
    for (size_t i = 0; i < n; i++) {
        char title[32];
        snprintf(title, sizeof title, "item %zu", i);
        ids[n - 1 - i] = e2e_publish(&api[0], r->publisher, NULL, title, "[\"news\"]",
                                     base + (int64_t)i * 60000, &r->position);
    }
}

static struct reader reader_with_items(item_id *ids, size_t n)
{
    struct reader r = new_reader();
    follow(&r, "publisher", r.publisher);
    publish(&r, ids, n);
    return r;
}

static void expect_ids(const struct e2e_page *p, const item_id *ids, size_t n)
{
    assert_int_equal(p->n, n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(p->items[i].id, ids[i]);
}

/* The newest n ids as the process of a sees them at the position. */
static void expect_feed(struct e2e_api *a, const struct reader *r, ts_t position, const item_id *ids,
                        size_t n)
{
    struct e2e_page p;
    e2e_page(a, r->feed, "limit=100", NULL, position, &p);
    expect_ids(&p, ids, n);
    assert_null(p.next);
    e2e_page_done(&p);
}

static void expect_status(const char *path, int status, const char *code)
{
    struct reply r;
    char type[80];
    e2e_call(&api[0], "GET", path, NULL, status, &r);
    snprintf(type, sizeof type, "/problems/%s", code);
    json_t *j = reply_json(&r);
    assert_string_equal(json_string_value(json_object_get(j, "type")), type);
    json_decref(j);
    reply_done(&r);
}

static const char *text(const json_t *o, const char *name)
{
    const char *s = json_string_value(json_object_get(o, name));
    return s ? s : "(null)";
}

/* ---- shape ---- */

static void a_page_says_all_that_the_api_promises(void **state)
{
    (void)state;
    item_id ids[3];
    struct reader r = reader_with_items(ids, 3);
    char path[200], body[100];
    snprintf(path, sizeof path, "/v1/publishers/%s", r.publisher);
    snprintf(body, sizeof body, "{\"title\":\"The Daily\",\"icon\":\"https://x.example/i.png\"}");
    struct reply put;
    e2e_call(&api[0], "PUT", path, body, 0, &put);
    assert_true(put.status < 300);
    e2e_position(&put, &r.position);
    reply_done(&put);
    struct reply got;
    char at[TS_TEXT_SIZE];
    ts_format(r.position, at);
    snprintf(path, sizeof path, "%s?limit=2&position=%s", r.feed, at);
    e2e_call(&api[0], "GET", path, NULL, 200, &got);
    assert_string_equal(reply_header(&got, "Cache-Control"), "private, no-cache");
    assert_string_equal(reply_header(&got, "Vary"), "Authorization, Accept-Encoding");
    json_t *j = reply_json(&got), *item = json_array_get(json_object_get(j, "items"), 0);
    assert_int_equal(json_array_size(json_object_get(j, "items")), 2);
    assert_string_equal(text(item, "title"), "item 2");
    assert_string_equal(text(item, "body"), "a body");
    assert_string_equal(text(item, "publisher"), r.publisher);
    assert_true(json_is_null(json_object_get(item, "edited_at")));
    json_t *about = json_object_get(json_object_get(j, "publishers"), r.publisher);
    assert_string_equal(text(about, "title"), "The Daily");
    assert_string_equal(text(about, "icon"), "https://x.example/i.png");
    assert_int_equal(json_object_size(json_object_get(j, "publishers")), 1);
    assert_string_equal(text(j, "state"), "complete");
    assert_true(json_is_null(json_object_get(j, "reason")));
    assert_string_equal(text(j, "order"), "latest");
    assert_true(json_is_null(json_object_get(j, "fallback")));
    assert_null(json_object_get(j, "session"));
    assert_true(json_is_string(json_object_get(j, "newest")));
    assert_true(json_is_string(json_object_get(j, "next")));
    assert_true(json_is_integer(json_object_get(j, "lag_ms")));
    json_decref(j);
    reply_done(&got);
}

static void fields_leave_out_what_is_not_asked_for(void **state)
{
    (void)state;
    item_id ids[2];
    struct reader r = reader_with_items(ids, 2);
    char path[200], at[TS_TEXT_SIZE];
    ts_format(r.position, at);
    snprintf(path, sizeof path, "%s?fields=summary&position=%s", r.feed, at);
    json_t *j = e2e_json(&api[0], "GET", path, NULL, 200),
           *item = json_array_get(json_object_get(j, "items"), 0);
    assert_non_null(json_object_get(item, "title"));
    assert_null(json_object_get(item, "body"));
    assert_null(json_object_get(item, "extra"));
    json_decref(j);
    snprintf(path, sizeof path, "%s?fields=ids", r.feed);
    j = e2e_json(&api[0], "GET", path, NULL, 200);
    item = json_array_get(json_object_get(j, "items"), 0);
    assert_int_equal(json_object_size(item), 2);
    assert_int_equal(json_integer_value(json_object_get(item, "revision")), 1);
    json_decref(j);
}

static void newest_stays_that_of_the_first_page(void **state)
{
    (void)state;
    item_id ids[4];
    struct reader r = reader_with_items(ids, 4);
    struct e2e_page a, b;
    e2e_page(&api[0], r.feed, "limit=2", NULL, r.position, &a);
    e2e_publish(&api[0], r.publisher, NULL, "newer", NULL, 0, &r.position);
    e2e_page(&api[0], r.feed, "limit=2", a.next, r.position, &b);
    assert_string_not_equal(a.newest, "");
    assert_string_not_equal(b.newest, "");
    expect_ids(&b, ids + 2, 2);
    assert_null(b.next);
    e2e_page_done(&a);
    e2e_page_done(&b);
}

static void what_is_not_understood_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *query, *code;
    } bad[] = {
        {"limit=0", "invalid_request"},      {"limit=101", "invalid_request"},
        {"limit=x", "invalid_request"},      {"fields=all", "invalid_request"},
        {"order=oldest", "invalid_request"}, {"profile=nobody", "invalid_request"},
        {"cursor=", "invalid_cursor"},       {"cursor=AAAA", "invalid_cursor"},
        {"position=1", "invalid_position"},  {"position=ffffffffffffffff", "invalid_position"},
        {"after=x", "invalid_request"},      {"catchup=1", "invalid_request"},
        {"terms=1", "invalid_request"},      {"limit=1&limit=2", "invalid_request"},
    };
    char path[200];
    for (size_t i = 0; i < MEM_COUNT(bad); i++) {
        struct reply r;
        snprintf(path, sizeof path, "/v1/users/any/feed?%s", bad[i].query);
        e2e_call(&api[0], "GET", path, NULL, 400, &r);
        reply_done(&r);
    }
    expect_status("/v1/users/any/feed?cursor=AAAA", 400, "invalid_cursor");
    expect_status("/v1/users/any/feed?position=ffffffffffffffff", 400, "invalid_position");
    expect_status("/v1/users/any/feed/other", 404, "not_found");
}

static void a_cursor_goes_on_in_its_own_order_only(void **state)
{
    (void)state;
    item_id ids[4];
    struct reader r = reader_with_items(ids, 4);
    struct e2e_page p, q;
    char path[600];
    e2e_page(&api[0], r.feed, "limit=1", NULL, r.position, &p);
    snprintf(path, sizeof path, "%s?order=ranked&cursor=%s", r.feed, p.next);
    expect_status(path, 400, "invalid_request");
    e2e_page(&api[0], r.feed, "limit=100&order=latest&fields=ids", p.next, 0, &q);
    expect_ids(&q, ids + 1, 3);
    e2e_page_done(&p);
    e2e_page_done(&q);
}

static void unknown_readers_and_targets_have_empty_pages(void **state)
{
    (void)state;
    static const char *const paths[] = {"/v1/users/nobody-knows/feed", "/v1/publishers/nobody-knows/items",
                                        "/v1/topics/nobody-knows/items"};
    for (size_t i = 0; i < MEM_COUNT(paths); i++) {
        struct e2e_page p;
        e2e_page(&api[0], paths[i], "", NULL, 0, &p);
        assert_int_equal(p.n, 0);
        assert_null(p.next);
        assert_string_equal(p.state, "complete");
        e2e_page_done(&p);
    }
}

static void publishers_and_topics_page_through_all_their_items(void **state)
{
    (void)state;
    item_id ids[25];
    struct reader r = reader_with_items(ids, 25);
    struct rng rng = {.state = 5};
    struct e2e_list l;
    char path[100], topic[48];
    snprintf(path, sizeof path, "/v1/publishers/%s/items", r.publisher);
    e2e_read_all(api, 2, &rng, path, 9, NULL, r.position, &l);
    assert_int_equal(l.n, 25);
    for (size_t i = 0; i < 25; i++)
        assert_int_equal(l.items[i].id, ids[i]);
    e2e_list_done(&l);
    snprintf(topic, sizeof topic, "[\"topic-of-%s\"]", r.publisher);
    item_id on_topic = e2e_publish(&api[0], r.publisher, NULL, "t", topic, 0, &r.position);
    struct e2e_page p;
    snprintf(path, sizeof path, "/v1/topics/topic-of-%s/items", r.publisher);
    e2e_page(&api[1], path, "", NULL, r.position, &p);
    expect_ids(&p, &on_topic, 1);
    e2e_page_done(&p);
}

/* ---- P5 ---- */

struct sight {
    struct e2e_api *a;
    const struct reader *r;
    item_id id;
};

static bool is_gone(void *arg)
{
    struct sight *s = arg;
    struct e2e_page p;
    bool there = false;
    e2e_page(s->a, s->r->feed, "limit=100&fields=ids", NULL, 0, &p);
    for (size_t i = 0; i < p.n; i++)
        there |= p.items[i].id == s->id;
    e2e_page_done(&p);
    return !there;
}

/* Gone at once at the process that answered, at the other within a second. */
static void expect_gone(const struct reader *r, item_id id)
{
    struct sight here = {&api[0], r, id}, there = {&api[1], r, id};
    assert_true(is_gone(&here));
    int64_t since = clock_mono_ms();
    assert_true(fixture_until(is_gone, &there, 5000));
    assert_true(clock_mono_ms() - since < 1000 * fixture_slowness());
}

static void p5_what_was_deleted_muted_or_unfollowed_leaves_at_once(void **state)
{
    (void)state;
    item_id ids[20];
    struct reader r = reader_with_items(ids, 20);
    expect_feed(&api[0], &r, r.position, ids, 20); /* both have it cached */
    expect_feed(&api[1], &r, r.position, ids, 20);
    e2e_write(&api[0], "DELETE", "/v1/items/%" PRIu64, ids[0]);
    expect_gone(&r, ids[0]);
    e2e_write(&api[0], "PUT", "/v1/users/%s/mutes/item/%" PRIu64, r.user, ids[1]);
    expect_gone(&r, ids[1]);
    e2e_write(&api[0], "DELETE", "/v1/items/%" PRIu64, ids[15]); /* below the floor */
    expect_gone(&r, ids[15]);
    e2e_write(&api[0], "PUT", "/v1/users/%s/mutes/word/17", r.user);
    expect_gone(&r, ids[2]); /* "item 17" */
    e2e_write(&api[0], "DELETE", "/v1/users/%s/follows/publisher/%s", r.user, r.publisher);
    expect_gone(&r, ids[3]);
}

static void p5_what_was_unmuted_comes_back(void **state)
{
    (void)state;
    item_id ids[10];
    struct reader r = reader_with_items(ids, 10);
    e2e_write(&api[0], "PUT", "/v1/users/%s/mutes/topic/news", r.user);
    expect_feed(&api[0], &r, 0, ids, 0);
    e2e_write(&api[0], "DELETE", "/v1/users/%s/mutes/topic/news", r.user);
    expect_feed(&api[0], &r, r.position, ids, 10);
}

static void an_edit_shows_on_the_next_page(void **state)
{
    (void)state;
    item_id ids[2];
    struct reader r = reader_with_items(ids, 2);
    expect_feed(&api[0], &r, r.position, ids, 2);
    char path[80];
    snprintf(path, sizeof path, "/v1/items/%" PRIu64, ids[1]);
    struct reply p;
    e2e_call(&api[0], "PATCH", path, "{\"title\":\"edited\"}", 200, &p);
    reply_done(&p);
    struct e2e_page page;
    e2e_page(&api[0], r.feed, "", NULL, 0, &page);
    assert_string_equal(page.items[1].title, "edited");
    assert_int_equal(page.items[1].revision, 2);
    e2e_page_done(&page);
}

/* ---- P6 ---- */

static void p6_items_without_a_body_are_skipped_and_refilled(void **state)
{
    (void)state;
    item_id ids[12];
    struct reader r = reader_with_items(ids, 12);
    assert_true(e2e_caught_up(redis, r.user, r.position));
    struct e2e_page p;
    e2e_page(&api[0], r.feed, "limit=1", NULL, r.position,
             &p); /* the timeline is there; bodies of the rest are not cached */
    e2e_page_done(&p);
    struct mongo *m;
    struct mongo_conn *c;
    struct err e;
    struct mongo_options o = {.uri = fixture_mongodb_uri(f), .app_name = "test", .pool_size = 1};
    assert_int_equal(mongo_new(&m, &o, &e) || mongo_conn_get(m, &c, &e), 0);
    for (int i = 3; i <= 5; i++) { /* as no process of ours would */
        bson_t *q = BCON_NEW("_id", BCON_INT64((int64_t)ids[i]));
        assert_true(mongoc_collection_delete_one(mongo_coll(c, COLL_ITEMS), q, NULL, NULL, NULL));
        bson_destroy(q);
    }
    mongo_conn_put(c);
    mongo_free(m);
    double before = e2e_metric(&api[1], "feedmill_page_skipped_total{reason=\"missing\"}");
    e2e_page(&api[1], r.feed, "limit=6", NULL, r.position, &p);
    const item_id want[] = {ids[0], ids[1], ids[2], ids[6], ids[7], ids[8]};
    expect_ids(&p, want, 6);
    assert_non_null(p.next);
    assert_string_equal(p.state, "complete");
    assert_true(e2e_metric(&api[1], "feedmill_page_skipped_total{reason=\"missing\"}") >= before + 3);
    e2e_page_done(&p);
}

#define HUGE_CHARS 21000 /* each 6 bytes of JSON: as large as a line of a bulk request may be */

static void publish_huge(struct reader *r, unsigned n)
{
    char *body = mem_alloc(HUGE_CHARS * 6 + 1);
    for (unsigned i = 0; i < HUGE_CHARS; i++)
        memcpy(body + i * 6, "\\u0001", 7);
    for (unsigned done = 0; done < n; done += 10) {
        struct buf b;
        struct reply reply;
        buf_init(&b, 8 << 20);
        for (unsigned i = 0; i < 10; i++)
            buf_printf(&b, "{\"publisher\":\"%s\",\"title\":\"huge\",\"body\":\"%s\"}\n", r->publisher, body);
        assert_false(b.full);
        assert_int_equal(e2e_try(&api[0], "POST", "/v1/items/bulk", "Content-Type: application/x-ndjson\r\n",
                                 b.data, &reply),
                         0);
        assert_int_equal(reply.status, 200);
        if (strstr(reply.body, "problem"))
            fail_msg("%.500s", reply.body);
        reply_done(&reply);
        buf_done(&b);
    }
    free(body);
}

static void p6_a_page_of_huge_items_ends_short_and_goes_on(void **state)
{
    (void)state;
    struct reader r = new_reader();
    struct e2e_page p;
    size_t n = 0;
    unsigned pages = 0;
    char *cursor = NULL, path[100];
    publish_huge(&r, 80);
    snprintf(path, sizeof path, "/v1/publishers/%s/items", r.publisher);
    do {
        e2e_page(&api[0], path, "limit=100", cursor, 0, &p);
        assert_true(p.n > 0 || !p.next);
        n += p.n;
        pages++;
        free(cursor);
        cursor = mem_strdup(p.next);
        e2e_page_done(&p);
    } while (cursor);
    assert_int_equal(n, 80);
    assert_int_equal(pages, 2);
}

/* ---- P7, P8: fanout stands still ---- */

static bool lags(void *arg)
{
    const struct reader *r = arg;
    struct e2e_page p;
    e2e_page(&api[1], r->feed, "", NULL, 0, &p);
    bool yes = p.lag_ms >= 1500 && strcmp(p.state, "complete") == 0;
    e2e_page_done(&p);
    return yes;
}

static void p7_p8_with_fanout_paused_pages_tell_their_lag_and_position_reads_writes(void **state)
{
    (void)state;
    item_id ids[4], newer;
    struct reader r = reader_with_items(ids, 4);
    expect_feed(&api[0], &r, r.position, ids, 4);
    server_pause(fanout);
    assert_true(fixture_until(lags, &r, 20000));
    newer = e2e_publish(&api[0], r.publisher, NULL, "newer", NULL, 0, &r.position);
    const item_id want[] = {newer, ids[0], ids[1], ids[2], ids[3]};
    expect_feed(&api[1], &r, r.position, want, 5);
    expect_feed(&api[0], &r, r.position, want, 5);
    server_continue(fanout);
    assert_true(e2e_caught_up(redis, r.user, r.position));
    expect_feed(&api[0], &r, 0, want, 5);
}

static void p8_a_position_reads_a_follow_at_the_other_process(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        item_id id;
        struct reader r = new_reader();
        publish(&r, &id, 1);
        expect_feed(&api[1], &r, 0, &id, 0); /* the timeline is there, and empty */
        follow(&r, "publisher", r.publisher);
        expect_feed(&api[1], &r, r.position, &id, 1);
    }
}

/* ---- P10 ---- */

static void p10_without_redis_pages_come_from_mongodb(void **state)
{
    (void)state;
    item_id ids[30];
    struct reader r = reader_with_items(ids, 30);
    struct rng rng = {.state = 9};
    struct e2e_list l;
    expect_feed(&api[0], &r, r.position, ids, 30);
    server_kill(fixture_redis(f));
    e2e_read_all(api, 2, &rng, r.feed, 12, NULL, r.position, &l);
    assert_int_equal(l.n, 30);
    for (size_t i = 0; i < 30; i++)
        assert_int_equal(l.items[i].id, ids[i]);
    e2e_list_done(&l);
    struct e2e_page p;
    e2e_page(&api[0], r.feed, "limit=2", NULL, 0, &p);
    assert_string_equal(p.state, "complete");
    assert_string_not_equal(p.reason, "");
    e2e_page_done(&p);
    e2e_page(&api[0], r.feed, "limit=2&order=ranked", NULL, 0, &p); /* the ranker needs Redis, too */
    assert_string_not_equal(p.fallback, "");
    expect_ids(&p, ids, 2);
    e2e_page_done(&p);
    fixture_restart(f, fixture_redis(f));
    redisFree(redis);
    redis = e2e_redis(f);
    assert_true(e2e_caught_up(redis, r.user, r.position));
    expect_feed(&api[0], &r, r.position, ids, 30);
}

static bool says_partial(void *arg)
{
    const struct reader *r = arg;
    struct reply reply;
    char path[120];
    snprintf(path, sizeof path, "%s?limit=3", r->feed);
    if (e2e_try(&api[0], "GET", path, NULL, NULL, &reply) != 0)
        return false;
    bool yes = reply.status == 200 && strstr(reply.body, "\"state\":\"partial\"");
    reply_done(&reply);
    return yes;
}

static bool says_complete(void *arg)
{
    const struct reader *r = arg;
    struct reply reply;
    char path[120];
    snprintf(path, sizeof path, "%s?limit=100", r->feed);
    if (e2e_try(&api[0], "GET", path, NULL, NULL, &reply) != 0)
        return false;
    bool yes = reply.status == 200 && strstr(reply.body, "\"state\":\"complete\"");
    reply_done(&reply);
    return yes;
}

static void p10_without_mongodb_cached_pages_are_served(void **state)
{
    (void)state;
    item_id ids[20];
    struct reader r = reader_with_items(ids, 20), stranger = new_reader();
    assert_true(e2e_caught_up(redis, r.user, r.position));
    expect_feed(&api[0], &r, r.position, ids, 20);
    server_kill(fixture_mongod(f));
    assert_true(fixture_until(says_partial, &r, 20000));
    struct e2e_page p;
    e2e_page(&api[0], r.feed, "limit=3", NULL, 0, &p);
    expect_ids(&p, ids, 3);
    assert_string_not_equal(p.reason, "");
    assert_non_null(p.next);
    e2e_page_done(&p);
    e2e_page(&api[0], r.feed, "limit=15", NULL, 0, &p); /* crosses the floor: older ids are not known */
    assert_true(p.n >= 4 && p.n < 15);
    expect_ids(&p, ids, p.n);
    assert_string_equal(p.state, "partial");
    assert_non_null(p.next);
    e2e_page_done(&p);
    char path[120];
    snprintf(path, sizeof path, "%s?limit=3", stranger.feed); /* nothing is known of this one */
    json_t *j = e2e_json(&api[0], "GET", path, NULL, 200);
    assert_string_equal(text(j, "state"), "rebuilding");
    assert_true(json_integer_value(json_object_get(j, "retry_after_ms")) > 0);
    json_decref(j);
    fixture_restart(f, fixture_mongod(f));
    assert_true(fixture_until(says_complete, &r, 20000));
    expect_feed(&api[0], &r, r.position, ids, 20);
}

/* ---- the ranked order ---- */

static void see_once(const item_id *ids, size_t n, bool *seen, item_id id)
{
    for (size_t k = 0; k < n; k++) {
        if (ids[k] != id)
            continue;
        assert_false(seen[k]);
        seen[k] = true;
        return;
    }
    fail_msg("item %" PRIu64 " does not belong to the feed", id);
}

static void ranked_pages_show_each_item_once(void **state)
{
    (void)state;
    item_id ids[60];
    struct reader r = reader_with_items(ids, 60);
    bool seen[60] = {false};
    char *cursor = NULL, session[64] = "";
    unsigned n = 0;
    assert_true(e2e_caught_up(redis, r.user, r.position));
    do {
        struct e2e_page p;
        char query[40];
        snprintf(query, sizeof query, "limit=%u&order=ranked", 7 + n % 5);
        e2e_page(&api[n % 2], r.feed, query, cursor, cursor ? 0 : r.position, &p);
        assert_string_equal(p.fallback, "");
        assert_string_equal(p.state, "complete");
        assert_string_not_equal(p.session, "");
        assert_true(!cursor || strcmp(p.session, session) == 0);
        snprintf(session, sizeof session, "%s", p.session);
        for (size_t i = 0; i < p.n; i++) {
            see_once(ids, 60, seen, p.items[i].id);
            n++;
        }
        /* what comes meanwhile is not in a frozen order */
        e2e_publish(&api[0], r.publisher, NULL, "meanwhile", NULL, 0, NULL);
        free(cursor);
        cursor = mem_strdup(p.next);
        e2e_page_done(&p);
    } while (cursor);
    assert_int_equal(n, 60);
}

static void p5_ranked_pages_leave_out_what_was_deleted_muted_or_unfollowed(void **state)
{
    (void)state;
    item_id ids[30], other;
    struct reader r = reader_with_items(ids, 30);
    char also[40];
    snprintf(also, sizeof also, "also-%s", r.publisher);
    follow(&r, "publisher", also);
    other = e2e_publish(&api[0], also, NULL, "other", NULL, clock_wall_ms() - 86400000, &r.position);
    struct e2e_page p, q;
    e2e_page(&api[0], r.feed, "limit=1&order=ranked", NULL, r.position, &p);
    assert_string_equal(p.fallback, "");
    item_id first = p.items[0].id, deleted = ids[10] == first ? ids[11] : ids[10];
    item_id muted = ids[20] == first ? ids[21] : ids[20];
    e2e_write(&api[0], "DELETE", "/v1/items/%" PRIu64, deleted);
    e2e_write(&api[0], "PUT", "/v1/users/%s/mutes/item/%" PRIu64, r.user, muted);
    e2e_page(&api[0], r.feed, "limit=100", p.next, 0, &q);
    assert_null(q.next);
    assert_int_equal(q.n, 31 - 3);
    for (size_t i = 0; i < q.n; i++)
        assert_true(q.items[i].id != deleted && q.items[i].id != muted && q.items[i].id != first);
    e2e_page_done(&q);
    e2e_write(&api[0], "DELETE", "/v1/users/%s/follows/publisher/%s", r.user, r.publisher);
    e2e_page(&api[0], r.feed, "limit=100", p.next, 0, &q);
    assert_null(q.next);
    assert_int_equal(q.n, first == other ? 0 : 1);
    if (q.n)
        assert_int_equal(q.items[0].id, other);
    e2e_page_done(&q);
    e2e_page_done(&p);
}

static void an_expired_session_goes_on_without_what_was_served(void **state)
{
    (void)state;
    item_id ids[30];
    struct reader r = reader_with_items(ids, 30);
    struct e2e_page p;
    bool seen[30] = {false};
    unsigned n = 0, sessions = 0;
    char *cursor = NULL, session[64] = "";
    do {
        e2e_page(&api[n % 2], r.feed, "limit=7&order=ranked", cursor, cursor ? 0 : r.position, &p);
        assert_string_equal(p.fallback, "");
        sessions += strcmp(session, p.session) != 0;
        snprintf(session, sizeof session, "%s", p.session);
        for (size_t i = 0; i < p.n; i++) {
            see_once(ids, 30, seen, p.items[i].id);
            n++;
        }
        char key[KEY_SIZE]; /* each page's session expires before the next */
        keys_session(key, keys_bucket(r.user), r.user, session);
        freeReplyObject(e2e_redis_do(redis, "DEL %s", key));
        free(cursor);
        cursor = mem_strdup(p.next);
        e2e_page_done(&p);
    } while (cursor);
    assert_int_equal(n, 30);
    assert_true(sessions >= 4);
}

static void p10_without_the_ranker_pages_are_in_time_order_and_stay_so(void **state)
{
    (void)state;
    item_id ids[12];
    struct reader r = reader_with_items(ids, 12);
    struct e2e_page p, q;
    server_kill(ranker);
    e2e_page(&api[0], r.feed, "limit=5&order=ranked", NULL, r.position, &p);
    expect_ids(&p, ids, 5);
    assert_string_not_equal(p.fallback, "");
    assert_string_equal(p.session, "");
    fixture_restart(f, ranker);
    e2e_page(&api[1], r.feed, "limit=100&order=ranked", p.next, 0, &q);
    expect_ids(&q, ids + 5, 7);
    assert_string_equal(q.fallback, p.fallback);
    assert_null(q.next);
    e2e_page_done(&p);
    e2e_page_done(&q);
}

static void a_reader_with_nothing_gets_an_empty_ranked_page(void **state)
{
    (void)state;
    struct reader r = new_reader();
    struct e2e_page p;
    e2e_page(&api[0], r.feed, "order=ranked", NULL, 0, &p);
    assert_int_equal(p.n, 0);
    assert_null(p.next);
    e2e_page_done(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_page_says_all_that_the_api_promises),
        cmocka_unit_test(fields_leave_out_what_is_not_asked_for),
        cmocka_unit_test(newest_stays_that_of_the_first_page),
        cmocka_unit_test(what_is_not_understood_is_refused),
        cmocka_unit_test(a_cursor_goes_on_in_its_own_order_only),
        cmocka_unit_test(unknown_readers_and_targets_have_empty_pages),
        cmocka_unit_test(publishers_and_topics_page_through_all_their_items),
        cmocka_unit_test(p5_what_was_deleted_muted_or_unfollowed_leaves_at_once),
        cmocka_unit_test(p5_what_was_unmuted_comes_back),
        cmocka_unit_test(an_edit_shows_on_the_next_page),
        cmocka_unit_test(p6_items_without_a_body_are_skipped_and_refilled),
        cmocka_unit_test(p6_a_page_of_huge_items_ends_short_and_goes_on),
        cmocka_unit_test(p7_p8_with_fanout_paused_pages_tell_their_lag_and_position_reads_writes),
        cmocka_unit_test(p8_a_position_reads_a_follow_at_the_other_process),
        cmocka_unit_test(ranked_pages_show_each_item_once),
        cmocka_unit_test(p5_ranked_pages_leave_out_what_was_deleted_muted_or_unfollowed),
        cmocka_unit_test(an_expired_session_goes_on_without_what_was_served),
        cmocka_unit_test(p10_without_the_ranker_pages_are_in_time_order_and_stay_so),
        cmocka_unit_test(a_reader_with_nothing_gets_an_empty_ranked_page),
        cmocka_unit_test(p10_without_redis_pages_come_from_mongodb),
        cmocka_unit_test(p10_without_mongodb_cached_pages_are_served),
    };
    return cmocka_run_group_tests_name("feed", tests, start, stop);
}
