/* test_promises.c - the promises that the other tests here do not name: P2, P5, P6, P8 and P11. (P1:
 * test_kill.c, test_recovery.c; P3, P4: test_paging.c; P7, P10: test_recovery.c.)
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <inttypes.h>
#include <mongoc/mongoc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/keys.h"
#include "common/mem.h"
#include "tests/support/e2e_stack.h"

#define AT_ONCE     24
#define UNTIL_MS    20000
#define VISIBLE_MS  1000 /* P5 */
#define CACHE_BYTES (1 << 20)

static struct e2e_stack stack;
static const struct e2e_stack_options options = {
    .n_apis = 2, .api_flags = {"--content-cache-bytes", "1m", "--max-follows", "20"}};

static int start_stack(void **state)
{
    (void)state;
    e2e_stack_start(&stack, &options);
    return 0;
}

static int stop_stack(void **state)
{
    (void)state;
    return e2e_stack_stop(&stack);
}

/* ---- P2 ---- */

static json_t *one_of_many(struct rawhttp *c, int *status)
{
    struct reply r;
    rawhttp_read(c, "POST", &r);
    *status = r.status;
    json_t *j = reply_json(&r);
    reply_done(&r);
    rawhttp_close(c);
    return j;
}

static void p2_publishing_the_same_at_the_same_time_makes_one_item(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 10; round++) {
        struct rawhttp *c[AT_ONCE];
        char first[32] = "",
             *body = mem_printf("{\"publisher\":\"p2\",\"external_id\":\"same-%u\",\"title\":\"t\","
                                "\"body\":\"b\"}",
                                round);
        unsigned created = 0;
        for (size_t i = 0; i < AT_ONCE; i++) {
            c[i] = e2e_send(&stack.apis[i % 2], "POST", "/v1/items", NULL, body);
            assert_non_null(c[i]);
        }
        for (size_t i = 0; i < AT_ONCE; i++) {
            int status;
            json_t *j = one_of_many(c[i], &status);
            const char *id = json_string_value(json_object_get(j, "id"));
            assert_true(status == 200 || status == 201);
            created += status == 201;
            if (!first[0])
                snprintf(first, sizeof first, "%s", id);
            assert_string_equal(id, first);
            assert_int_equal(json_integer_value(json_object_get(j, "revision")), 1);
            json_decref(j);
        }
        assert_int_equal(created, 1);
        free(body);
    }
    struct e2e_page p;
    ts_t now = e2e_write(&stack.apis[0], "PUT", "/v1/users/p2-reader/follows/publisher/p2");
    e2e_page(&stack.apis[0], "/v1/publishers/p2/items", "limit=100", NULL, now, &p);
    assert_int_equal(p.n, 10);
    e2e_page_done(&p);
}

static void p2_changed_content_is_a_new_revision_of_the_same_item(void **state)
{
    (void)state;
    ts_t at = 0;
    item_id a = e2e_publish(&stack.apis[0], "p2-daily", "x1", "one", NULL, 0, &at);
    assert_true(e2e_publish(&stack.apis[1], "p2-daily", "x1", "one", NULL, 0, &at) == a);
    assert_true(e2e_publish(&stack.apis[1], "p2-daily", "x1", "two", NULL, 0, &at) == a);
    assert_true(e2e_publish(&stack.apis[1], "p2-other", "x1", "one", NULL, 0, &at) != a);
    struct e2e_page p;
    e2e_page(&stack.apis[0], "/v1/publishers/p2-daily/items", "", NULL, at, &p);
    assert_int_equal(p.n, 1);
    assert_int_equal(p.items[0].revision, 2);
    assert_string_equal(p.items[0].title, "two");
    e2e_page_done(&p);
    struct reply r;
    static const char body[] = "{\"publisher\":\"p2-daily\",\"title\":\"two\",\"body\":\"a body\"}";
    assert_int_equal(e2e_try(&stack.apis[0], "POST", "/v1/items", "Idempotency-Key: x1\r\n", body, &r), 0);
    assert_int_equal(r.status, 200);
    json_t *j = reply_json(&r);
    assert_string_equal(json_string_value(json_object_get(j, "result")), "unchanged");
    json_decref(j);
    reply_done(&r);
}

/* ---- P5 ---- */

enum vanishing { DELETED, UNFOLLOWED, MUTED_PUBLISHER, MUTED_ITEM, MUTED_WORD, VANISHINGS };

struct reader {
    char user[32], publisher[32], word[32], path[80];
    item_id id;
};

static void make_reader(struct reader *r, unsigned round, unsigned how)
{
    char title[64];
    ts_t at;
    snprintf(r->user, sizeof r->user, "p5-u%u-%u", round, how);
    snprintf(r->publisher, sizeof r->publisher, "p5-p%u-%u", round, how);
    snprintf(r->word, sizeof r->word, "word%ux%u", round, how);
    snprintf(r->path, sizeof r->path, "/v1/users/%s/feed", r->user);
    snprintf(title, sizeof title, "A title with %s in it", r->word);
    at = e2e_write(&stack.apis[0], "PUT", "/v1/users/%s/follows/publisher/%s", r->user, r->publisher);
    r->id = e2e_publish(&stack.apis[0], r->publisher, NULL, title, NULL, 0, &at);
    for (size_t i = 0; i < 2; i++) {
        struct e2e_page p;
        e2e_page(&stack.apis[i], r->path, "", NULL, at, &p);
        assert_int_equal(p.n, 1);
        e2e_page_done(&p);
    }
}

static void vanish(const struct reader *r, enum vanishing how)
{
    char what[64];
    snprintf(what, sizeof what, "%" PRIu64, r->id);
    if (how == UNFOLLOWED || how == MUTED_PUBLISHER)
        snprintf(what, sizeof what, "%s", r->publisher);
    if (how == MUTED_WORD)
        snprintf(what, sizeof what, "%s", r->word);
    if (how == DELETED)
        e2e_write(&stack.apis[0], "DELETE", "/v1/items/%s", what);
    else if (how == UNFOLLOWED)
        e2e_write(&stack.apis[0], "DELETE", "/v1/users/%s/follows/publisher/%s", r->user, what);
    else
        e2e_write(&stack.apis[0], "PUT", "/v1/users/%s/mutes/%s/%s", r->user,
                  how == MUTED_PUBLISHER ? "publisher"
                  : how == MUTED_ITEM    ? "item"
                                         : "word",
                  what);
}

static size_t shown(struct e2e_api *a, const struct reader *r)
{
    struct e2e_page p;
    e2e_page(a, r->path, "", NULL, 0, &p);
    size_t n = p.n;
    e2e_page_done(&p);
    return n;
}

static bool is_past(void *arg)
{
    return clock_mono_ms() >= *(int64_t *)arg;
}

static void
p5_what_was_deleted_unfollowed_or_muted_is_gone_at_once_here_and_in_a_second_everywhere(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 4; round++) {
        struct reader r[VANISHINGS];
        for (unsigned how = 0; how < VANISHINGS; how++)
            make_reader(&r[how], round, how);
        for (unsigned how = 0; how < VANISHINGS; how++) {
            vanish(&r[how], how);
            if (shown(&stack.apis[0], &r[how]) != 0)
                fail_msg("%s: still shown at the process that took it", r[how].user);
        }
        int64_t second = clock_mono_ms() + VISIBLE_MS;
        assert_true(fixture_until(is_past, &second, UNTIL_MS));
        for (unsigned how = 0; how < VANISHINGS; how++)
            if (shown(&stack.apis[1], &r[how]) != 0)
                fail_msg("%s: still shown at another process after a second", r[how].user);
    }
}

/* The other process stands still meanwhile, and answers the moment it goes on: its caches and its tail are
 * old. */
static void p5_a_process_that_stood_still_asks_before_it_answers(void **state)
{
    (void)state;
    for (unsigned round = 10; round < 13; round++) {
        struct reader r[VANISHINGS];
        struct rawhttp *c[VANISHINGS];
        for (unsigned how = 0; how < VANISHINGS; how++)
            make_reader(&r[how], round, how);
        server_pause(stack.servers[1]);
        for (unsigned how = 0; how < VANISHINGS; how++)
            vanish(&r[how], how);
        int64_t later = clock_mono_ms() + 2 * VISIBLE_MS;
        assert_true(fixture_until(is_past, &later, UNTIL_MS));
        for (unsigned how = 0; how < VANISHINGS; how++) {
            c[how] = e2e_send(&stack.apis[1], "GET", r[how].path, NULL, NULL);
            assert_non_null(c[how]);
        }
        server_continue(stack.servers[1]);
        for (unsigned how = 0; how < VANISHINGS; how++) {
            struct reply reply;
            struct e2e_page p;
            rawhttp_read(c[how], "GET", &reply);
            if (reply.status != 200)
                fail_msg("%s: %d %s", r[how].path, reply.status, reply.body);
            e2e_page_parse(&reply, &p);
            if (p.n != 0)
                fail_msg("%s is shown what vanished (kind %u) while the process stood still", r[how].user,
                         how);
            e2e_page_done(&p);
            reply_done(&reply);
            rawhttp_close(c[how]);
        }
    }
}

/* ---- P6 ---- */

static void change_item(item_id id, bool remove, const bson_t *update)
{
    mongoc_client_t *client = mongoc_client_new(fixture_mongodb_uri(stack.f));
    mongoc_collection_t *items = mongoc_client_get_collection(client, fixture_database(stack.f), "items");
    bson_t *which = BCON_NEW("_id", BCON_INT64((int64_t)id));
    bson_error_t e;
    bool ok = remove ? mongoc_collection_delete_one(items, which, NULL, NULL, &e)
                     : mongoc_collection_update_one(items, which, update, NULL, NULL, &e);
    if (!ok)
        fail_msg("%s", e.message);
    bson_destroy(which);
    mongoc_collection_destroy(items);
    mongoc_client_destroy(client);
}

/* Bodies vanish and rot behind everybody's back; the process that reads has none of them in its cache. */
static void p6_a_page_is_not_failed_by_bad_items(void **state)
{
    (void)state;
    enum { N = 20 };
    item_id ids[N];
    ts_t at = 0;
    bson_t *rot = BCON_NEW("$set", "{", "title", BCON_INT32(7), "revision", BCON_UTF8("seven"), "}");
    for (size_t i = 0; i < N; i++)
        ids[i] = e2e_publish(&stack.apis[0], "p6-daily", NULL, "fine", NULL, 0, &at);
    change_item(ids[N - 2], true, NULL);
    change_item(ids[N - 4], false, rot);
    bson_destroy(rot);
    at = ts_max(at, e2e_write(&stack.apis[0], "PUT", "/v1/users/p6-u/follows/publisher/p6-daily"));
    for (size_t i = 0; i < 2; i++) {
        server_kill(stack.servers[i]);
        e2e_api_drop(&stack.apis[i]);
        fixture_restart(stack.f, stack.servers[i]);
        struct e2e_page p;
        e2e_page(&stack.apis[i], "/v1/users/p6-u/feed", "limit=10", NULL, at, &p);
        assert_int_equal(p.n, 10); /* refilled */
        for (size_t k = 0; k < p.n; k++)
            assert_true(p.items[k].id != ids[N - 2] && p.items[k].id != ids[N - 4]);
        e2e_page_done(&p);
        e2e_page(&stack.apis[i], "/v1/users/p6-u/feed", "limit=100", NULL, at, &p);
        assert_int_equal(p.n, N - 2);
        e2e_page_done(&p);
        if (e2e_metric(&stack.apis[i], "feedmill_page_skipped_total{reason=\"missing\"}") < 1)
            fail_msg("skipped items are not counted");
    }
}

/* ---- P8 ---- */

static void p8_a_read_with_the_position_of_a_write_sees_it_at_any_process(void **state)
{
    (void)state;
    char path[] = "/v1/users/p8-u/feed";
    e2e_write(&stack.apis[0], "PUT", "/v1/users/p8-u/follows/publisher/p8-daily");
    for (unsigned i = 0; i < 60; i++) {
        ts_t at = 0;
        struct e2e_page p;
        item_id id =
            e2e_publish(&stack.apis[i % 2], "p8-daily", "only", i % 3 ? "again" : "and again", NULL, 0, &at);
        item_id other = e2e_publish(&stack.apis[i % 2], "p8-daily", NULL, "new", NULL, 0, &at);
        e2e_page(&stack.apis[(i + 1) % 2], path, "limit=100", NULL, at, &p);
        bool found = false;
        for (size_t k = 0; k < p.n; k++) {
            found = found || p.items[k].id == other;
            if (p.items[k].id == id)
                assert_string_equal(p.items[k].title, i % 3 ? "again" : "and again");
        }
        if (!found || p.items[p.n - 1].id != id)
            fail_msg("round %u: a write is not on a page with its position", i);
        assert_string_equal(p.state, "complete");
        e2e_page_done(&p);
    }
}

static void p8_a_position_that_was_never_given_is_refused(void **state)
{
    (void)state;
    struct reply r;
    e2e_call(&stack.apis[0], "GET", "/v1/users/p8-u/feed?position=ffffffff00000001", NULL, 400, &r);
    reply_done(&r);
    e2e_call(&stack.apis[0], "GET", "/v1/users/p8-u/feed?position=7", NULL, 400, &r);
    reply_done(&r);
    e2e_call(&stack.apis[0], "GET", "/v1/users/p8-u/feed", NULL, 200, &r);
    reply_done(&r);
}

/* ---- P11 ---- */

static void p11_timelines_stay_within_their_cap(void **state)
{
    (void)state;
    char path[64];
    for (unsigned u = 0; u < 10; u++) {
        struct e2e_page p;
        ts_t at = e2e_write(&stack.apis[0], "PUT", "/v1/users/p11-u%u/follows/publisher/p11-daily", u);
        snprintf(path, sizeof path, "/v1/users/p11-u%u/feed", u);
        e2e_page(&stack.apis[0], path, "", NULL, at, &p);
        e2e_page_done(&p);
    }
    ts_t at = 0;
    for (unsigned i = 0; i < 60; i++) {
        e2e_publish(&stack.apis[0], "p11-daily", NULL, "one more", NULL, 0, &at);
        redisReply *keys = e2e_redis_do(stack.redis, "KEYS tl:*");
        for (size_t k = 0; k < keys->elements; k++) {
            redisReply *n = e2e_redis_do(stack.redis, "ZCARD %s", keys->element[k]->str);
            if (n->integer > 8 + 2 + 1) /* the highest mark: cap, a quarter, the floor */
                fail_msg("%s holds %lld", keys->element[k]->str, n->integer);
            freeReplyObject(n);
        }
        freeReplyObject(keys);
    }
    for (unsigned u = 0; u < 10; u++) {
        struct e2e_timeline tl;
        char user[32];
        snprintf(user, sizeof user, "p11-u%u", u);
        assert_true(e2e_caught_up(stack.redis, user, at));
        assert_true(e2e_timeline(stack.redis, user, &tl));
        assert_true(tl.floor > 0 && tl.above >= 8);
    }
}

static void p11_the_content_cache_stays_within_its_bytes(void **state)
{
    (void)state;
    char *big = mem_zero(60001, 1);
    memset(big, 'a', 60000);
    ts_t at = e2e_write(&stack.apis[0], "PUT", "/v1/users/p11-big/follows/publisher/p11-big");
    double evicted = e2e_metric(&stack.apis[0], "feedmill_content_evicted_total");
    for (unsigned i = 0; i < 40; i++) {
        struct reply r;
        char *body = mem_printf("{\"publisher\":\"p11-big\",\"title\":\"t%u\",\"body\":\"%s\"}", i, big);
        e2e_call(&stack.apis[0], "POST", "/v1/items", body, 201, &r);
        e2e_position(&r, &at);
        reply_done(&r);
        free(body);
    }
    free(big);
    for (unsigned i = 0; i < 3; i++) {
        struct e2e_page p;
        e2e_page(&stack.apis[0], "/v1/users/p11-big/feed", "limit=40", NULL, at, &p);
        assert_int_equal(p.n, 40); /* 2.4 MB on one page: what does not fit is read past the cache */
        e2e_page_done(&p);
        double bytes = e2e_metric(&stack.apis[0], "feedmill_content_bytes");
        if (bytes > CACHE_BYTES)
            fail_msg("the content cache of %d bytes holds %.0f", CACHE_BYTES, bytes);
    }
    assert_true(e2e_metric(&stack.apis[0], "feedmill_content_evicted_total") > evicted);
}

static void p11_bodies_and_counts_beyond_the_caps_are_refused(void **state)
{
    (void)state;
    struct reply r;
    char *big = mem_zero((9 << 20) + 1, 1);
    memset(big, ' ', 9 << 20);
    char *many = mem_strdup("{\"add\":[");
    for (unsigned i = 0; i < 21; i++) {
        char *more = mem_printf("%s%s{\"kind\":\"topic\",\"name\":\"t%u\"}", many, i ? "," : "", i);
        free(many);
        many = more;
    }
    char *follows = mem_printf("%s]}", many);
    big[200000] = '\0';
    e2e_call(&stack.apis[0], "POST", "/v1/items", big, 413, &r);
    reply_done(&r);
    big[200000] = ' ';
    e2e_api_drop(&stack.apis[0]);
    assert_int_equal(
        e2e_try(&stack.apis[0], "POST", "/v1/items/bulk", "Content-Type: application/x-ndjson\r\n", big, &r),
        0);
    assert_int_equal(r.status, 413);
    reply_done(&r);
    e2e_api_drop(&stack.apis[0]);
    e2e_call(&stack.apis[0], "GET", "/v1/users/p11-u0/feed?limit=101", NULL, 400, &r);
    reply_done(&r);
    e2e_call(&stack.apis[0], "POST", "/v1/users/p11-caps/follows", follows, 409, &r);
    reply_done(&r);
    json_t *j = e2e_json(&stack.apis[0], "GET", "/v1/users/p11-caps/follows", NULL, 200);
    assert_int_equal(json_array_size(json_object_get(j, "follows")), 0);
    json_decref(j);
    free(follows);
    free(many);
    free(big);
}

/* A process with one worker and a short queue, and a database that does not answer. */
static void p11_a_full_queue_answers_503_and_says_when_to_come_again(void **state)
{
    (void)state;
    enum { N = 40 };
    struct server *s =
        fixture_start(stack.f, "feed-api", "feed-api-narrow", "--timeline-entries", "8", "--workers", "1",
                      "--worker-queue", "4", "--max-connections", "60", NULL);
    struct e2e_api a;
    struct rawhttp *c[N];
    unsigned refused = 0;
    e2e_api_init(&a, stack.f, s);
    e2e_write(&a, "PUT", "/v1/users/p11-narrow/follows/topic/t");
    server_pause(fixture_mongod(stack.f));
    for (unsigned i = 0; i < N; i++) {
        char path[100];
        snprintf(path, sizeof path, "/v1/users/p11-narrow/follows/topic/t%u", i);
        c[i] = e2e_send(&a, "PUT", path, NULL, NULL);
        assert_non_null(c[i]);
    }
    for (unsigned i = 0; i < N; i++) {
        struct reply r;
        rawhttp_read(c[i], "PUT", &r);
        if (r.status == 503) {
            assert_non_null(reply_header(&r, "Retry-After"));
            assert_non_null(strstr(r.body, "retry_after_ms"));
        } else {
            assert_int_equal(r.status, 204);
        }
        refused += r.status == 503;
        reply_done(&r);
        rawhttp_close(c[i]);
    }
    server_continue(fixture_mongod(stack.f));
    assert_true(refused >= N - 5);
    assert_true(e2e_metric(&a, "feedmill_workers_refused_total") >= N - 5 - 4);
    e2e_api_done(&a);
    fixture_forget(stack.f, s);
}

static void p11_connections_beyond_the_cap_are_refused_and_the_others_served(void **state)
{
    (void)state;
    enum { CAP = 12, N = 30 };
    struct server *s = fixture_start(stack.f, "feed-api", "feed-api-few", "--timeline-entries", "8",
                                     "--max-connections", "12", NULL);
    uint16_t port = (uint16_t)fixture_port(stack.f, s);
    struct rawhttp *c[N];
    unsigned served = 0, refused = 0;
    static const char request[] = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
    for (unsigned i = 0; i < N; i++) {
        c[i] = rawhttp_open(port);
        rawhttp_send_str(c[i], request);
        struct reply r;
        bool answered = rawhttp_try_read(c[i], "GET", &r) == 0;
        served += answered && r.status == 200;
        refused += !answered || r.status == 503;
        if (answered)
            reply_done(&r);
    }
    assert_int_equal(served, CAP);
    assert_int_equal(refused, N - CAP);
    struct reply r;
    rawhttp_request(c[0], "GET", "/healthz", NULL, NULL, 0, &r);
    assert_int_equal(r.status, 200);
    reply_done(&r);
    for (unsigned i = 0; i < N; i++)
        rawhttp_close(c[i]);
    fixture_forget(stack.f, s);
}

int main(void)
{
    mongoc_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(p2_publishing_the_same_at_the_same_time_makes_one_item),
        cmocka_unit_test(p2_changed_content_is_a_new_revision_of_the_same_item),
        cmocka_unit_test(
            p5_what_was_deleted_unfollowed_or_muted_is_gone_at_once_here_and_in_a_second_everywhere),
        cmocka_unit_test(p5_a_process_that_stood_still_asks_before_it_answers),
        cmocka_unit_test(p6_a_page_is_not_failed_by_bad_items),
        cmocka_unit_test(p8_a_read_with_the_position_of_a_write_sees_it_at_any_process),
        cmocka_unit_test(p8_a_position_that_was_never_given_is_refused),
        cmocka_unit_test(p11_timelines_stay_within_their_cap),
        cmocka_unit_test(p11_the_content_cache_stays_within_its_bytes),
        cmocka_unit_test(p11_bodies_and_counts_beyond_the_caps_are_refused),
        cmocka_unit_test(p11_a_full_queue_answers_503_and_says_when_to_come_again),
        cmocka_unit_test(p11_connections_beyond_the_cap_are_refused_and_the_others_served),
    };
    e2e_choose_tests();
    return cmocka_run_group_tests_name("promises", tests, start_stack, stop_stack);
}
