/* test_erase.c - what is left of a user who was erased (nothing), and tokens that were ended.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/keys.h"
#include "common/mem.h"
#include "common/mongo.h"
#include "tests/support/e2e_stack.h"

static struct e2e_stack stack;

static int start_stack(void **state)
{
    (void)state;
    e2e_stack_start(&stack, &(struct e2e_stack_options){.n_apis = 2, .ranker = true});
    return 0;
}

static int stop_stack(void **state)
{
    (void)state;
    return e2e_stack_stop(&stack);
}

/* ---- looking for a name ---- */

static bool reply_names(const redisReply *r, const char *name)
{
    if (r->str != NULL && memmem(r->str, r->len, name, strlen(name)) != NULL)
        return true;
    for (size_t i = 0; i < r->elements; i++)
        if (r->element[i] != NULL && reply_names(r->element[i], name))
            return true;
    return false;
}

/* In the key, or in what lies there. */
static bool key_names(const char *key, const char *name)
{
    static const struct {
        const char *type, *read;
    } looks[] = {{"string", "GET %s"},       {"list", "LRANGE %s 0 -1"}, {"hash", "HGETALL %s"},
                 {"zset", "ZRANGE %s 0 -1"}, {"set", "SMEMBERS %s"},     {"stream", "XRANGE %s - +"}};
    if (strstr(key, name) != NULL)
        return true;
    redisReply *type = e2e_redis_do(stack.redis, "TYPE %s", key);
    bool found = false;
    for (size_t i = 0; i < MEM_COUNT(looks); i++) {
        if (strcmp(type->str, looks[i].type) != 0)
            continue;
        redisReply *r = redisCommand(stack.redis, looks[i].read, key);
        found = r != NULL && reply_names(r, name);
        freeReplyObject(r);
    }
    freeReplyObject(type);
    return found;
}

/* How many keys of Redis name the user; the last of them goes into key. */
static unsigned keys_naming(const char *name, char key[400])
{
    redisReply *all = e2e_redis_do(stack.redis, "KEYS *");
    unsigned n = 0;
    for (size_t i = 0; i < all->elements; i++) {
        if (key_names(all->element[i]->str, name)) {
            snprintf(key, 400, "%s", all->element[i]->str);
            n++;
        }
    }
    freeReplyObject(all);
    return n;
}

/* How many documents of MongoDB name the user. */
static unsigned documents_naming(const char *name, char where[100])
{
    struct mongo_options o = {.uri = fixture_mongodb_uri(stack.f), .app_name = "test", .pool_size = 1};
    struct mongo *m;
    struct mongo_conn *c;
    struct err e;
    unsigned n = 0;
    assert_int_equal(mongo_new(&m, &o, &e), 0);
    assert_int_equal(mongo_conn_get(m, &c, &e), 0);
    for (int i = 0; i < COLL_N; i++) {
        bson_t all = BSON_INITIALIZER;
        const bson_t *d;
        mongoc_cursor_t *cursor =
            mongoc_collection_find_with_opts(mongo_coll(c, (enum mongo_collection)i), &all, NULL, NULL);
        while (mongoc_cursor_next(cursor, &d)) {
            char *text = bson_as_relaxed_extended_json(d, NULL);
            if (strstr(text, name) != NULL) {
                snprintf(where, 100, "%s", mongo_collection_name((enum mongo_collection)i));
                n++;
            }
            bson_free(text);
        }
        mongoc_cursor_destroy(cursor);
        bson_destroy(&all);
    }
    mongo_conn_put(c);
    mongo_free(m);
    return n;
}

static void insert_letter(const char *user)
{
    struct mongo_options o = {.uri = fixture_mongodb_uri(stack.f), .app_name = "test", .pool_size = 1};
    struct mongo *m;
    struct mongo_conn *c;
    struct err e;
    bson_error_t be;
    assert_int_equal(mongo_new(&m, &o, &e), 0);
    assert_int_equal(mongo_conn_get(m, &c, &e), 0);
    bson_t *d = BCON_NEW("_id", BCON_UTF8("a letter"), "user", BCON_UTF8(user), "state", "dead");
    assert_true(mongoc_collection_insert_one(mongo_coll(c, COLL_DEAD_LETTERS), d, NULL, NULL, &be));
    bson_destroy(d);
    mongo_conn_put(c);
    mongo_free(m);
}

/* ---- a user who did everything ---- */

struct learned {
    char key[400];
};

static bool is_learned(void *arg)
{
    const struct learned *l = arg;
    redisReply *r = e2e_redis_do(stack.redis, "EXISTS %s", l->key);
    bool there = r->integer == 1;
    freeReplyObject(r);
    return there;
}

/* path: the name as it stands in a path. Waits until the ranker has learned from him. */
static void live(const char *name, const char *path, item_id item, ts_t *position)
{
    struct e2e_api *a = &stack.apis[0];
    char target[300], body[600];
    struct reply r;
    *position = e2e_write(a, "PUT", "/v1/users/%s/follows/publisher/erase-p", path);
    *position = e2e_write(a, "PUT", "/v1/users/%s/follows/topic/erase-t", path);
    *position = e2e_write(a, "PUT", "/v1/users/%s/mutes/word/wolf", path);
    snprintf(target, sizeof target, "/v1/users/%s/feed/marker", path);
    json_decref(e2e_json(a, "PUT", target, "{\"id\":\"77\"}", 200));
    snprintf(target, sizeof target, "/v1/users/%s/feed", path);
    struct e2e_page p;
    e2e_page(a, target, "limit=1", NULL, *position, &p);
    assert_int_equal(p.n, 1);
    e2e_page_done(&p);
    e2e_page(a, target, "limit=1&order=ranked", NULL, 0, &p);
    assert_string_not_equal(p.session, "");
    e2e_page_done(&p);
    snprintf(target, sizeof target, "/v1/users/%s/events", path);
    snprintf(body, sizeof body,
             "{\"events\":[{\"type\":\"like\",\"item\":\"%" PRIu64 "\",\"event_id\":\"e1\"},"
             "{\"type\":\"open\",\"item\":\"%" PRIu64 "\"}]}",
             item, item);
    e2e_call(a, "POST", target, body, 202, &r);
    reply_done(&r);
    struct learned l;
    snprintf(l.key, sizeof l.key, "af:{%u}:%s", keys_bucket(name), name);
    assert_true(fixture_until(is_learned, &l, 20000));
}

static bool has_followers(void *arg)
{
    json_t *o = e2e_json(&stack.apis[0], "GET", "/v1/publishers/erase-p", NULL, 200);
    bool right = json_integer_value(json_object_get(o, "followers")) == *(unsigned *)arg;
    json_decref(o);
    return right;
}

static void check_followers(unsigned want)
{
    assert_true(fixture_until(has_followers, &want, 30000)); /* counted every few seconds */
}

/* The neighbour's name is what the other one means, taken for a pattern. */
static void nothing_is_left_of_a_user_who_is_erased_and_all_of_his_neighbour(void **state)
{
    (void)state;
    ts_t position = 0;
    char key[400] = "", where[100] = "";
    item_id item = e2e_publish(&stack.apis[0], "erase-p", NULL, "an item", "[\"erase-t\"]", 0, &position);
    live("go*e?[r]", "go*e%3F%5Br%5D", item, &position);
    live("gone.r", "gone.r", item, &position);
    insert_letter("go*e?[r]");
    check_followers(2);
    unsigned neighbours = documents_naming("gone.r", where);
    assert_true(neighbours >= 4 && documents_naming("go*e?[r]", where) >= 5);
    assert_true(keys_naming("go*e?[r]", key) >= 5); /* tl, pf, af, rk, ee, and more */
    unsigned keys = keys_naming("gone.r", key);
    position = e2e_write(&stack.apis[0], "DELETE", "/v1/users/go*e%%3F%%5Br%%5D");
    assert_true(position > 0);
    unsigned n = keys_naming("go*e?[r]", key);
    if (n != 0)
        fail_msg("%u keys are left, one is %s", n, key);
    n = documents_naming("go*e?[r]", where);
    if (n != 0)
        fail_msg("%u documents are left, one in %s", n, where);
    assert_int_equal(keys_naming("gone.r", key), keys);
    assert_int_equal(documents_naming("gone.r", where), neighbours);
    check_followers(1);
    for (int i = 0; i < 2; i++) {
        struct e2e_page p;
        e2e_page(&stack.apis[i], "/v1/users/go*e%3F%5Br%5D/feed", "limit=5", NULL, position, &p);
        assert_int_equal(p.n, 0);
        e2e_page_done(&p);
        e2e_page(&stack.apis[i], "/v1/users/gone.r/feed", "limit=5", NULL, 0, &p);
        assert_int_equal(p.n, 1);
        e2e_page_done(&p);
    }
}

static void an_erased_user_may_begin_anew_and_be_erased_again(void **state)
{
    (void)state;
    ts_t position = 0;
    item_id item = e2e_publish(&stack.apis[0], "erase-p", NULL, "another", NULL, 0, &position);
    e2e_write(&stack.apis[1], "DELETE", "/v1/users/phoenix"); /* who never was */
    for (int i = 0; i < 3; i++) {
        struct e2e_page p;
        position = e2e_write(&stack.apis[i % 2], "PUT", "/v1/users/phoenix/follows/publisher/erase-p");
        e2e_page(&stack.apis[(i + 1) % 2], "/v1/users/phoenix/feed", "limit=1", NULL, position, &p);
        assert_int_equal(p.items[0].id, item);
        e2e_page_done(&p);
        position = e2e_write(&stack.apis[(i + 1) % 2], "DELETE", "/v1/users/phoenix");
        e2e_page(&stack.apis[i % 2], "/v1/users/phoenix/feed", "limit=1", NULL, position, &p);
        assert_int_equal(p.n, 0);
        e2e_page_done(&p);
        json_t *o = e2e_json(&stack.apis[i % 2], "GET", "/v1/users/phoenix/follows", NULL, 200);
        assert_int_equal(json_array_size(json_object_get(o, "follows")), 0);
        json_decref(o);
    }
}

static void a_user_with_as_many_follows_and_mutes_as_may_be_is_erased(void **state)
{
    (void)state;
    struct reply r;
    for (int k = 0; k < 11; k++) {
        json_t *add = json_array();
        for (int i = 0; i < 1000; i++) {
            char name[32];
            snprintf(name, sizeof name, "many-%d-%d", k, i);
            json_array_append_new(add, json_pack("{s:s,s:s}", "kind", "topic", "name", name));
        }
        json_t *o = json_pack("{s:o}", "add", add);
        char *body = json_dumps(o, JSON_COMPACT);
        e2e_call(&stack.apis[0], "POST", k < 10 ? "/v1/users/greedy/follows" : "/v1/users/greedy/mutes", body,
                 200, &r);
        reply_done(&r);
        free(body);
        json_decref(o);
    }
    char where[100] = "";
    assert_int_equal(documents_naming("greedy", where), 11001);
    e2e_write(&stack.apis[0], "DELETE", "/v1/users/greedy");
    assert_int_equal(documents_naming("greedy", where), 0);
}

/* An entry that the ranker has taken and not learned yet brings nothing back. */
static void events_under_way_are_erased_with_their_user(void **state)
{
    (void)state;
    char stream[40];
    redisReply *r;
    snprintf(stream, sizeof stream, "en:{%u}", keys_bucket("underway") % EVENT_STREAMS);
    freeReplyObject(e2e_redis_do(stack.redis, "XGROUP CREATE %s held $ MKSTREAM", stream));
    r = e2e_redis_do(stack.redis, "XADD %s * u underway t impression i 77 a 0 d 0", stream);
    freeReplyObject(r);
    e2e_write(&stack.apis[0], "DELETE", "/v1/users/underway");
    char key[400] = "";
    if (keys_naming("underway", key) != 0)
        fail_msg("%s names him", key);
    freeReplyObject(e2e_redis_do(stack.redis, "XGROUP DESTROY %s held", stream));
}

static void without_redis_a_user_is_not_said_to_be_gone(void **state)
{
    (void)state;
    ts_t position = 0;
    item_id item = e2e_publish(&stack.apis[0], "erase-p", NULL, "a third", NULL, 0, &position);
    struct reply r;
    (void)item;
    e2e_write(&stack.apis[0], "PUT", "/v1/users/stuck/follows/publisher/erase-p");
    server_signal(fixture_redis(stack.f), SIGSTOP);
    e2e_call(&stack.apis[0], "DELETE", "/v1/users/stuck", NULL, 0, &r);
    server_signal(fixture_redis(stack.f), SIGCONT);
    assert_int_equal(r.status, 503);
    assert_non_null(reply_header(&r, "Retry-After"));
    reply_done(&r);
    for (int i = 0; i < 100 && r.status != 204; i++) {
        e2e_call(&stack.apis[0], "DELETE", "/v1/users/stuck", NULL, 0, &r);
        reply_done(&r);
        assert_true(r.status == 204 || r.status == 503);
    }
    assert_int_equal(r.status, 204);
}

/* ---- tokens ---- */

static void set_token(struct e2e_api *a, const char *user)
{
    char *body = mem_printf("{\"user\":\"%s\",\"ttl_s\":600}", user);
    json_t *o = e2e_json(&stack.apis[0], "POST", "/v1/tokens", body, 200);
    snprintf(a->auth, sizeof a->auth, "Authorization: Bearer %s\r\n",
             json_string_value(json_object_get(o, "token")));
    json_decref(o);
    free(body);
}

struct bearer {
    struct e2e_api api;
    char path[100];
};

static struct bearer bearer(size_t at, const char *user)
{
    struct bearer b;
    e2e_api_init(&b.api, stack.f, stack.servers[at]);
    set_token(&b.api, user);
    snprintf(b.path, sizeof b.path, "/v1/users/%s/feed?limit=1", user);
    return b;
}

static bool is_refused(void *arg)
{
    struct bearer *b = arg;
    struct reply r;
    e2e_call(&b->api, "GET", b->path, NULL, 0, &r);
    int status = r.status;
    reply_done(&r);
    assert_true(status == 200 || status == 401);
    return status == 401;
}

static void tokens_that_were_ended_are_refused_here_at_once_and_elsewhere_within_a_second(void **state)
{
    (void)state;
    struct bearer here = bearer(0, "leaver"), there = bearer(1, "leaver"), other = bearer(0, "stayer");
    assert_false(is_refused(&here) || is_refused(&there) || is_refused(&other));
    struct reply r;
    e2e_call(&here.api, "DELETE", "/v1/users/stayer/tokens", NULL, 403, &r);
    reply_done(&r);
    e2e_call(&here.api, "DELETE", "/v1/users/leaver/tokens", NULL, 204, &r);
    reply_done(&r);
    assert_true(is_refused(&here));
    assert_true(fixture_until(is_refused, &there, 1000));
    assert_false(is_refused(&other));
    struct bearer again = bearer(0, "leaver"), again_there = bearer(1, "leaver");
    assert_false(is_refused(&again) || is_refused(&again_there));
    assert_true(is_refused(&here) && is_refused(&there));
    e2e_write(&stack.apis[0], "DELETE", "/v1/users/leaver"); /* erasing him does not bring them back */
    assert_true(is_refused(&here) && is_refused(&there));
    struct bearer *all[] = {&here, &there, &other, &again, &again_there};
    for (size_t i = 0; i < MEM_COUNT(all); i++)
        e2e_api_done(&all[i]->api);
}

/* Long before the next beat would have looked at the credential. */
static void a_stream_ends_when_its_readers_tokens_are_ended_at_another_process(void **state)
{
    (void)state;
    struct bearer b = bearer(1, "listener");
    struct reply r;
    bool timed_out = false;
    struct rawhttp *stream = e2e_send(&b.api, "GET", "/v1/users/listener/feed/stream", NULL, NULL);
    assert_non_null(stream);
    rawhttp_read_head(stream, &r);
    assert_int_equal(r.status, 200);
    reply_done(&r);
    e2e_call(&stack.apis[0], "DELETE", "/v1/users/listener/tokens", NULL, 204, &r);
    reply_done(&r);
    while (rawhttp_read_line(stream, 5000, &timed_out) != NULL)
        ;
    assert_false(timed_out);
    rawhttp_close(stream);
    e2e_api_done(&b.api);
}

static void a_process_that_starts_later_knows_whose_tokens_were_ended(void **state)
{
    (void)state;
    struct bearer b = bearer(0, "gone-before");
    struct reply r;
    assert_false(is_refused(&b));
    e2e_call(&stack.apis[0], "DELETE", "/v1/users/gone-before/tokens", NULL, 204, &r);
    reply_done(&r);
    struct server *later = fixture_start(stack.f, "feed-api", "feed-api-later", NULL);
    e2e_api_drop(&b.api);
    b.api.port = (uint16_t)fixture_port(stack.f, later);
    assert_true(is_refused(&b));
    set_token(&b.api, "gone-before");
    assert_false(is_refused(&b));
    e2e_api_done(&b.api);
    fixture_forget(stack.f, later);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_left_of_a_user_who_is_erased_and_all_of_his_neighbour),
        cmocka_unit_test(an_erased_user_may_begin_anew_and_be_erased_again),
        cmocka_unit_test(a_user_with_as_many_follows_and_mutes_as_may_be_is_erased),
        cmocka_unit_test(events_under_way_are_erased_with_their_user),
        cmocka_unit_test(tokens_that_were_ended_are_refused_here_at_once_and_elsewhere_within_a_second),
        cmocka_unit_test(a_stream_ends_when_its_readers_tokens_are_ended_at_another_process),
        cmocka_unit_test(a_process_that_starts_later_knows_whose_tokens_were_ended),
        cmocka_unit_test(without_redis_a_user_is_not_said_to_be_gone),
    };
    e2e_choose_tests();
    return cmocka_run_group_tests_name("erase", tests, start_stack, stop_stack);
}
