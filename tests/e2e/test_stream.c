/* test_stream.c - live streams: what happens in a feed comes once, in order, to whom it concerns, across
 * broken connections and processes.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/mem.h"
#include "tests/support/e2e_stack.h"
#include "tests/support/sse.h"

static struct e2e_stack stack;
static const struct e2e_stack_options options = {
    .n_apis = 2, .api_flags = {"--stream-heartbeat", "200ms", "--stream-unsent", "64k"}};
static unsigned names;

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

/* ---- the world ---- */

static struct sse new_stream(const char *user, const struct e2e_api *api)
{
    struct sse s = {.conn = NULL};
    snprintf(s.user, sizeof s.user, "%s", user);
    sse_open(&s, api);
    return s;
}

static void name_user(char out[40])
{
    snprintf(out, 40, "reader%u", ++names);
}

static void follow(const char *user, const char *kind, const char *name, bool on)
{
    e2e_write(&stack.apis[0], on ? "PUT" : "DELETE", "/v1/users/%s/follows/%s/%s", user, kind, name);
}

static void mute(const char *user, const char *kind, const char *name, bool on)
{
    e2e_write(&stack.apis[0], on ? "PUT" : "DELETE", "/v1/users/%s/mutes/%s/%s", user, kind, name);
}

static item_id publish(const char *publisher, const char *title, const char *topics)
{
    return e2e_publish(&stack.apis[0], publisher, NULL, title, topics, 0, NULL);
}

static void patch(item_id id, const char *body)
{
    char path[64];
    struct reply r;
    snprintf(path, sizeof path, "/v1/items/%llu", (unsigned long long)id);
    e2e_call(&stack.apis[0], "PATCH", path, body, 200, &r);
    reply_done(&r);
}

static void drop(item_id id)
{
    e2e_write(&stack.apis[0], "DELETE", "/v1/items/%llu", (unsigned long long)id);
}

/* A reader of one publisher, with a stream at the process. */
static struct sse reader_of(const char *publisher, const struct e2e_api *api)
{
    char user[40];
    name_user(user);
    follow(user, "publisher", publisher, true);
    struct sse s = new_stream(user, api);
    sse_read_id(&s);
    return s;
}

/* ---- order and reach ---- */

static void items_edits_and_deletes_come_in_order(void **state)
{
    (void)state;
    for (size_t i = 0; i < stack.n_apis; i++) {
        struct sse s = reader_of("order", &stack.apis[i]);
        item_id a = publish("order", "first", NULL), b = publish("order", "second", NULL);
        sse_expect(&s, "item", a);
        assert_non_null(strstr(sse_event.data, "\"title\":\"first\""));
        sse_expect(&s, "item", b);
        patch(a, "{\"title\":\"changed\"}");
        sse_expect(&s, "edit", a);
        assert_non_null(strstr(sse_event.data, "\"title\":\"changed\""));
        drop(b);
        drop(a);
        sse_expect(&s, "delete", b);
        sse_expect(&s, "delete", a);
        sse_close(&s);
    }
}

static void only_who_is_shown_an_item_hears_of_it(void **state)
{
    (void)state;
    struct sse follower = reader_of("reach", &stack.apis[0]), other = reader_of("elsewhere", &stack.apis[0]);
    struct sse muted = reader_of("reach", &stack.apis[0]), topical = reader_of("nobody", &stack.apis[0]);
    mute(muted.user, "word", "pancake", true);
    follow(topical.user, "topic", "reach-topic", true);
    item_id a = publish("reach", "A pancake!", "[\"reach-topic\",\"more\"]"),
            b = publish("reach", "plain", NULL);
    drop(a);
    drop(b);
    item_id last = publish("elsewhere", "last", "[\"reach-topic\"]"), mark = publish("reach", "mark", NULL);
    sse_expect(&follower, "item", a);
    sse_expect(&follower, "item", b);
    sse_expect(&follower, "delete", a);
    sse_expect(&follower, "delete", b);
    sse_expect(&follower, "item", mark);
    sse_expect(&topical, "item", a);
    sse_expect(&topical, "delete", a);
    sse_expect(&topical, "item", last);
    sse_expect(&other, "item", last);
    sse_expect(&muted, "item", b);
    sse_expect(&muted, "delete", a); /* the words are gone with the item, so this is told to be safe */
    sse_expect(&muted, "delete", b);
    sse_expect(&muted, "item", mark);
    sse_close(&follower);
    sse_close(&other);
    sse_close(&muted);
    sse_close(&topical);
}

static void a_change_of_topics_moves_an_item_in_and_out(void **state)
{
    (void)state;
    struct sse from = reader_of("nobody", &stack.apis[0]), to = reader_of("nobody", &stack.apis[1]);
    struct sse both = reader_of("mover", &stack.apis[0]);
    follow(from.user, "topic", "old-topic", true);
    follow(to.user, "topic", "new-topic", true);
    item_id id = publish("mover", "it moves", "[\"old-topic\"]");
    sse_expect(&from, "item", id);
    sse_expect(&both, "item", id);
    patch(id, "{\"topics\":[\"new-topic\"]}");
    sse_expect(&from, "delete", id);
    sse_expect(&to, "item", id);
    sse_expect(&both, "edit", id);
    patch(id, "{\"title\":\"it stays\"}");
    sse_expect(&to, "edit", id);
    sse_expect(&both, "edit", id);
    drop(id);
    sse_expect(&to, "delete", id);
    sse_expect(&both, "delete", id);
    item_id mark = publish("mover", "mark", "[\"old-topic\"]");
    sse_expect(&from, "item", mark);
    sse_close(&from);
    sse_close(&to);
    sse_close(&both);
}

static void an_edit_into_a_muted_word_takes_the_item_away(void **state)
{
    (void)state;
    struct sse s = reader_of("wordy", &stack.apis[0]);
    mute(s.user, "word", "turnip", true);
    item_id id = publish("wordy", "harmless", NULL);
    sse_expect(&s, "item", id);
    patch(id, "{\"title\":\"a turnip\"}");
    sse_expect(&s, "delete", id);
    patch(id, "{\"title\":\"harmless again\"}");
    sse_expect(&s, "edit", id);
    sse_close(&s);
}

/* What lies before a change and was not sent yet is judged by the new follows, as a page would be: so a mark
 * that has come stands between. */
static void follows_and_mutes_take_effect_in_open_streams(void **state)
{
    (void)state;
    struct sse s = reader_of("mine", &stack.apis[1]);
    for (int i = 0; i < 10; i++) {
        item_id lost = publish("taken", "before it is followed", NULL);
        sse_expect(&s, "item", publish("mine", "mark", NULL));
        follow(s.user, "publisher", "taken", true);
        sse_expect(&s, "item", publish("taken", "while it is followed", NULL));
        mute(s.user, "publisher", "mine", true);
        publish("mine", "muted", NULL);
        sse_expect(&s, "item", publish("taken", "mark", NULL));
        mute(s.user, "publisher", "mine", false);
        follow(s.user, "publisher", "taken", false);
        publish("taken", "no longer followed", NULL);
        drop(lost); /* no business of his */
        sse_expect(&s, "item", publish("mine", "mark", NULL));
    }
    sse_close(&s);
}

/* More than a loop sends in one turn, and more of it while it does. */
static void each_of_many_streams_gets_each_of_many_items(void **state)
{
    (void)state;
    enum { MANY = 700, ITEMS = 10 };
    static struct sse many[MANY];
    item_id ids[ITEMS];
    many[0] = reader_of("many", &stack.apis[0]);
    for (size_t i = 1; i < MANY; i++) {
        char user[40];
        snprintf(user, sizeof user, "many%zu", i);
        follow(user, "publisher", "many", true);
        many[i] = new_stream(user, &stack.apis[0]);
    }
    for (size_t i = 0; i < MANY; i++) {
        if (many[i].id[0] == '\0')
            sse_read_id(&many[i]);
    }
    for (size_t k = 0; k < ITEMS; k++)
        ids[k] = publish("many", "an item", NULL);
    for (size_t i = 0; i < MANY; i++) {
        for (size_t k = 0; k < ITEMS; k++)
            sse_expect(&many[i], "item", ids[k]);
        sse_close(&many[i]);
    }
}

/* ---- resuming ---- */

/* Everything published comes once, in order, though the client breaks off after each few events, and comes
 * back at either process; also by ids that only a beat brought. */
static void nothing_is_lost_or_doubled_by_who_resumes_anywhere(void **state)
{
    (void)state;
    struct rng rng = {11};
    struct sse s = reader_of("resume", &stack.apis[0]);
    item_id ids[200];
    size_t sent = 0, got = 0;
    while (got < MEM_COUNT(ids)) {
        for (unsigned k = rng_below(&rng, 8); k > 0 && sent < MEM_COUNT(ids); k--)
            ids[sent++] = publish("resume", "an item", NULL);
        if (s.conn == NULL)
            sse_open(&s, &stack.apis[rng_below(&rng, 2)]);
        for (unsigned k = rng_below(&rng, 8); k > 0 && got < sent; k--)
            sse_expect(&s, "item", ids[got++]);
        if (rng_percent(&rng, 30) && got == sent)
            sse_read_id(&s); /* of a beat */
        if (rng_percent(&rng, 40))
            sse_close(&s);
    }
    sse_close(&s);
}

static void edits_and_deletes_of_a_gap_are_made_up_for(void **state)
{
    (void)state;
    struct sse s = reader_of("gap", &stack.apis[0]);
    item_id a = publish("gap", "a", NULL), b = publish("gap", "b", NULL);
    sse_expect(&s, "item", a);
    sse_expect(&s, "item", b);
    sse_close(&s);
    patch(a, "{\"title\":\"a2\"}");
    item_id c = publish("gap", "c", NULL), d = publish("gap", "d", NULL);
    drop(b);
    drop(d);
    item_id e = publish("gap", "e", NULL);
    sse_open(&s, &stack.apis[1]);
    sse_expect(&s, "edit", a);
    sse_expect(&s, "item", c);
    sse_expect(&s, "delete", b); /* of d nothing is left to show */
    sse_expect(&s, "delete", d);
    sse_expect(&s, "item", e);
    sse_close(&s);
}

/* So much that it is looked up by names, in several parts. */
static void who_missed_much_hears_what_concerns_him(void **state)
{
    (void)state;
    struct sse s = reader_of("much", &stack.apis[0]);
    item_id mine[80], noise = 0;
    sse_close(&s);
    for (size_t i = 0; i < MEM_COUNT(mine); i++) {
        for (int k = 0; k < 4; k++)
            noise = publish("noise", "what others read", "[\"loud\"]");
        patch(noise, "{\"title\":\"changed\"}");
        mine[i] = publish("much", "an item", NULL);
    }
    patch(mine[7], "{\"title\":\"changed\"}");
    drop(noise);
    drop(mine[9]);
    sse_open(&s, &stack.apis[1]);
    for (size_t i = 0; i < MEM_COUNT(mine); i++) {
        if (i != 9)
            sse_expect(&s, "item", mine[i]);
    }
    sse_expect(&s, "edit", mine[7]);
    sse_expect(&s, "delete", mine[9]);
    sse_expect(&s, "item", publish("much", "live again", NULL));
    sse_close(&s);
}

static void a_stream_goes_on_after_a_kill(void **state)
{
    (void)state;
    struct sse s = reader_of("killed", &stack.apis[1]);
    item_id ids[30];
    for (size_t i = 0; i < MEM_COUNT(ids); i++) {
        ids[i] = publish("killed", "an item", NULL);
        if (i % 10 < 4)
            sse_expect(&s, "item", ids[i]);
        if (i % 10 == 5)
            server_kill(stack.servers[1]);
        if (i % 10 != 9)
            continue;
        fixture_restart(stack.f, stack.servers[1]);
        e2e_api_drop(&stack.apis[1]);
        sse_close(&s);
        sse_open(&s, &stack.apis[1]);
        for (size_t k = i - 5; k <= i; k++)
            sse_expect(&s, "item", ids[k]);
    }
    sse_close(&s);
}

/* ---- before the process began ---- */

#define FORGOTTEN_MS 12000 /* a new process begins 10 s in the past by itself */

static bool is_long_ago(void *arg)
{
    return clock_mono_ms() > *(const int64_t *)arg;
}

static void a_new_process_reads_from_the_log_what_it_did_not_hear(void **state)
{
    (void)state;
    struct sse s = reader_of("history", &stack.apis[1]), t = s;
    int64_t until = clock_mono_ms() + FORGOTTEN_MS;
    item_id ids[20];
    sse_close(&s);
    for (size_t i = 0; i < MEM_COUNT(ids); i++)
        ids[i] = publish("history", "an item", NULL);
    drop(ids[3]);
    patch(ids[5], "{\"title\":\"changed\"}");
    server_kill(stack.servers[1]);
    assert_true(fixture_until(is_long_ago, &until, 2 * FORGOTTEN_MS));
    fixture_restart(stack.f, stack.servers[1]);
    e2e_api_drop(&stack.apis[1]);
    item_id last = publish("history", "the last one", NULL);
    t.conn = NULL;
    sse_open(&t, &stack.apis[1]);
    for (size_t i = 0; i < MEM_COUNT(ids); i++) {
        if (i != 3)
            sse_expect(&t, "item", ids[i]);
    }
    sse_expect(&t, "delete", ids[3]);
    sse_expect(&t, "edit", ids[5]);
    sse_expect(&t, "item", last);
    sse_close(&t);
    assert_true(e2e_metric(&stack.apis[1], "feedmill_stream_read_back_total") == 1);
    sse_open(&s, &stack.apis[1]); /* from the same time: it is remembered now */
    sse_expect(&s, "item", ids[0]);
    sse_close(&s);
    assert_true(e2e_metric(&stack.apis[1], "feedmill_stream_read_back_total") == 1);
}

/* ---- what was too long ago ---- */

static struct e2e_api short_api;

static struct server *start_short(const char *flag, const char *value)
{
    struct server *p =
        fixture_start(stack.f, "feed-api", "short", "--stream-heartbeat", "200ms", flag, value, NULL);
    e2e_api_init(&short_api, stack.f, p);
    return p;
}

static void end_short(struct server *p)
{
    struct err e;
    e2e_api_done(&short_api);
    assert_int_equal(server_stop(p, 20000, &e), 0);
    fixture_forget(stack.f, p);
}

static void who_was_away_for_too_long_is_reset_and_hears_what_follows(void **state)
{
    (void)state;
    struct server *p = start_short("--stream-memory", "4096");
    struct sse s = reader_of("short", &short_api);
    item_id id = publish("short", "an item", NULL);
    sse_expect(&s, "item", id);
    sse_close(&s);
    for (int i = 0; i < 100; i++)
        publish("short", "an item that is forgotten", NULL);
    sse_open(&s, &short_api);
    sse_expect(&s, "reset", 0);
    id = publish("short", "after", NULL);
    while (sse_try_event(&s) && sse_event.item != id)
        assert_string_equal(sse_event.type, "item"); /* some of those before may come */
    sse_close(&s);
    end_short(p);
}

static void an_id_of_no_time_is_a_reset_and_one_of_no_form_is_refused(void **state)
{
    (void)state;
    struct sse s = {.id = "f000000000000001-1"};
    name_user(s.user);
    follow(s.user, "publisher", "future", true);
    sse_open(&s, &stack.apis[0]);
    sse_expect(&s, "reset", 0);
    item_id id = publish("future", "an item", NULL);
    sse_expect(&s, "item", id);
    sse_close(&s);
    strcpy(s.id, "nonsense");
    sse_open_with(&s, &stack.apis[0], "", stack.apis[0].auth, 400);
    sse_close(&s);
}

/* ---- slow and fast ---- */

static double cut(void)
{
    return e2e_metric(&stack.apis[0], "feedmill_streams_cut_total");
}

static void publish_much(size_t bytes)
{
    char *body = mem_alloc(bytes + 1), *text;
    struct reply r;
    memset(body, 'x', bytes);
    body[bytes] = '\0';
    text = mem_printf("{\"publisher\":\"big\",\"title\":\"much\",\"body\":\"%s\"}", body);
    e2e_call(&stack.apis[0], "POST", "/v1/items", text, 201, &r);
    reply_done(&r);
    free(text);
    free(body);
}

static void a_slow_reader_is_cut_and_nobody_waits_for_him(void **state)
{
    (void)state;
    struct sse slow = reader_of("big", &stack.apis[0]), fast = reader_of("big", &stack.apis[0]);
    double had = cut();
    size_t n = 0;
    while (cut() == had) { /* the kernel's buffers come first */
        assert_true(n++ < 1000);
        publish_much(60000);
        assert_true(sse_try_event(&fast));
        assert_string_equal(sse_event.type, "item");
    }
    for (size_t got = 0; sse_try_event(&slow); got++)
        assert_true(got < n);
    rawhttp_close(slow.conn);
    sse_open(&slow, &stack.apis[0]); /* and may come back for the rest */
    assert_true(sse_try_event(&slow));
    assert_string_equal(sse_event.type, "item");
    sse_close(&slow);
    sse_close(&fast);
}

/* ---- who may ---- */

static char *token_of(const char *user)
{
    char body[100];
    snprintf(body, sizeof body, "{\"user\":\"%s\",\"ttl_s\":60}", user);
    json_t *o = e2e_json(&stack.apis[0], "POST", "/v1/tokens", body, 200);
    char *token = mem_strdup(json_string_value(json_object_get(o, "token")));
    json_decref(o);
    return token;
}

static void the_credential_may_come_as_a_parameter(void **state)
{
    (void)state;
    struct sse s = {.conn = NULL};
    name_user(s.user);
    follow(s.user, "publisher", "queried", true);
    char *token = token_of(s.user), *query = mem_printf("?access_token=%s", token);
    char *header = mem_printf("Authorization: Bearer %s\r\n", token);
    sse_open_with(&s, &stack.apis[0], query, "", 200);
    sse_read_id(&s);
    item_id id = publish("queried", "an item", NULL);
    sse_expect(&s, "item", id);
    sse_close(&s);
    sse_open_with(&s, &stack.apis[0], "", "", 401);
    sse_close(&s);
    sse_open_with(&s, &stack.apis[0], "?access_token=x", "", 401);
    sse_close(&s);
    sse_open_with(&s, &stack.apis[0], query, header, 401); /* not both */
    sse_close(&s);
    strcpy(s.user, "somebody-else");
    sse_open_with(&s, &stack.apis[0], query, "", 403);
    sse_close(&s);
    struct reply r;
    char *path = mem_printf("/v1/users/x/feed?access_token=%s", token);
    rawhttp_once(stack.apis[0].port, "GET", path, "", NULL, &r);
    assert_int_equal(r.status, 401); /* here only */
    reply_done(&r);
    free(path);
    free(header);
    free(query);
    free(token);
}

static void a_revoked_key_ends_its_streams(void **state)
{
    (void)state;
    struct sse s = {.conn = NULL};
    name_user(s.user);
    json_t *o = e2e_json(&stack.apis[0], "POST", "/v1/keys", "{\"role\":\"service\"}", 201);
    char *header = mem_printf("Authorization: Bearer %s\r\n", json_string_value(json_object_get(o, "key")));
    char *path = mem_printf("/v1/keys/%s", json_string_value(json_object_get(o, "id")));
    sse_open_with(&s, &stack.apis[1], "", header, 200);
    sse_read_id(&s);
    struct reply r;
    e2e_call(&stack.apis[0], "DELETE", path, NULL, 204, &r);
    reply_done(&r);
    assert_false(sse_try_event(&s));
    sse_close(&s);
    s.id[0] = '\0';
    sse_open_with(&s, &stack.apis[1], "", header, 401);
    sse_close(&s);
    json_decref(o);
    free(header);
    free(path);
}

/* ---- without the store ---- */

static bool can_publish(void *arg)
{
    struct reply r;
    if (e2e_try(&stack.apis[0], "POST", "/v1/items", NULL, arg, &r) < 0)
        return false;
    bool created = r.status == 201;
    reply_done(&r);
    return created;
}

static void without_mongodb_streams_stay_open_and_go_on_afterwards(void **state)
{
    (void)state;
    char body[] = "{\"publisher\":\"outage\",\"title\":\"after it\",\"body\":\"b\",\"external_id\":\"one\"}";
    struct sse s = reader_of("outage", &stack.apis[0]);
    item_id before = publish("outage", "before it", NULL);
    sse_expect(&s, "item", before);
    server_kill(fixture_mongod(stack.f));
    for (int beats = 0; beats < 10;) {
        const char *line = rawhttp_read_line(s.conn, SSE_EVENT_MS, NULL);
        assert_non_null(line);
        beats += line[0] == ':';
    }
    fixture_restart(stack.f, fixture_mongod(stack.f));
    assert_true(fixture_until(can_publish, body, SSE_EVENT_MS));
    assert_true(sse_try_event(&s));
    while (strcmp(sse_event.type, "reset") ==
           0) /* the log is there still, but for a tail that had to begin anew */
        assert_true(sse_try_event(&s));
    assert_string_equal(sse_event.type, "item");
    assert_non_null(strstr(sse_event.data, "after it"));
    sse_close(&s);
}

/* ---- the end ---- */

static void a_process_that_ends_says_when_to_come_back(void **state)
{
    (void)state;
    struct server *p = start_short("--stream-unsent", "1m");
    struct sse s = reader_of("draining", &short_api);
    bool hint = false;
    server_signal(p, SIGTERM);
    for (const char *line; (line = rawhttp_read_line(s.conn, SSE_EVENT_MS, NULL)) != NULL;)
        hint |= strncmp(line, "retry: ", 7) == 0 && atoi(line + 7) >= 1000;
    assert_true(hint);
    sse_close(&s);
    item_id id = publish("draining", "meanwhile", NULL);
    sse_open(&s, &stack.apis[0]);
    sse_expect(&s, "item", id);
    sse_close(&s);
    end_short(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(items_edits_and_deletes_come_in_order),
        cmocka_unit_test(only_who_is_shown_an_item_hears_of_it),
        cmocka_unit_test(a_change_of_topics_moves_an_item_in_and_out),
        cmocka_unit_test(an_edit_into_a_muted_word_takes_the_item_away),
        cmocka_unit_test(follows_and_mutes_take_effect_in_open_streams),
        cmocka_unit_test(each_of_many_streams_gets_each_of_many_items),
        cmocka_unit_test(nothing_is_lost_or_doubled_by_who_resumes_anywhere),
        cmocka_unit_test(edits_and_deletes_of_a_gap_are_made_up_for),
        cmocka_unit_test(who_missed_much_hears_what_concerns_him),
        cmocka_unit_test(a_stream_goes_on_after_a_kill),
        cmocka_unit_test(a_new_process_reads_from_the_log_what_it_did_not_hear),
        cmocka_unit_test(who_was_away_for_too_long_is_reset_and_hears_what_follows),
        cmocka_unit_test(an_id_of_no_time_is_a_reset_and_one_of_no_form_is_refused),
        cmocka_unit_test(a_slow_reader_is_cut_and_nobody_waits_for_him),
        cmocka_unit_test(the_credential_may_come_as_a_parameter),
        cmocka_unit_test(a_revoked_key_ends_its_streams),
        cmocka_unit_test(without_mongodb_streams_stay_open_and_go_on_afterwards),
        cmocka_unit_test(a_process_that_ends_says_when_to_come_back),
    };
    e2e_choose_tests();
    return cmocka_run_group_tests_name("e2e/stream", tests, start_stack, stop_stack);
}
