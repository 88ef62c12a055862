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

#define EVENT_MS 20000

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

/* ---- a stream, as a client sees it ---- */

struct stream {
    struct rawhttp *conn;
    char user[40];
    char id[64]; /* of the last event taken in */
};

struct event {
    char type[16];
    char data[200000];
    item_id item; /* 0: none */
};

static struct event event; /* the last one that was read */

static void open_with(struct stream *s, const struct e2e_api *api, const char *query, const char *header,
                      int status)
{
    char request[2000];
    struct reply head;
    snprintf(request, sizeof request, "GET /v1/users/%s/feed/stream%s HTTP/1.1\r\nHost: x\r\n%s%s%s%s\r\n",
             s->user, query, header, s->id[0] ? "Last-Event-ID: " : "", s->id, s->id[0] ? "\r\n" : "");
    s->conn = rawhttp_open(api->port);
    rawhttp_send_str(s->conn, request);
    rawhttp_read_head(s->conn, &head);
    assert_int_equal(head.status, status);
    if (status == 200)
        assert_string_equal(reply_header(&head, "Content-Type"), "text/event-stream");
    reply_done(&head);
}

static void open_at(struct stream *s, const struct e2e_api *api)
{
    open_with(s, api, "", api->auth, 200);
}

static struct stream new_stream(const char *user, const struct e2e_api *api)
{
    struct stream s = {.conn = NULL};
    snprintf(s.user, sizeof s.user, "%s", user);
    open_at(&s, api);
    return s;
}

static void close_stream(struct stream *s)
{
    rawhttp_close(s->conn);
    s->conn = NULL;
}

static void take_field(struct stream *s, const char *line)
{
    if (strncmp(line, "id: ", 4) == 0)
        snprintf(s->id, sizeof s->id, "%s", line + 4);
    else if (strncmp(line, "event: ", 7) == 0)
        snprintf(event.type, sizeof event.type, "%s", line + 7);
    else if (strncmp(line, "data: ", 6) == 0)
        snprintf(event.data, sizeof event.data, "%s", line + 6);
}

static item_id id_in(const char *data)
{
    json_t *o = json_loads(data, 0, NULL);
    item_id id = 0;
    assert_non_null(o);
    if (json_object_get(o, "id") != NULL)
        assert_int_equal(ids_parse(json_string_value(json_object_get(o, "id")), &id, NULL), 0);
    json_decref(o);
    return id;
}

/* Reads to the end of the next event, past beats. False: the stream has ended. */
static bool try_event(struct stream *s)
{
    int64_t end = clock_mono_ms() + (int64_t)EVENT_MS * fixture_slowness();
    bool late = false;
    memset(&event, 0, offsetof(struct event, data) + 1);
    while (clock_mono_ms() < end) {
        const char *line = rawhttp_read_line(s->conn, end - clock_mono_ms(), &late);
        if (line == NULL && !late)
            return false;
        if (line == NULL)
            break;
        take_field(s, line);
        if (line[0] != '\0' || event.type[0] == '\0')
            continue;
        event.item = id_in(event.data);
        return true;
    }
    fail_msg("no event on the stream of %s", s->user);
    return false;
}

static void expect(struct stream *s, const char *type, item_id id)
{
    if (!try_event(s))
        fail_msg("the stream of %s has ended", s->user);
    if (strcmp(event.type, type) != 0 || event.item != id)
        fail_msg("%s of %llu for %s instead of %s of %llu: %.200s", event.type,
                 (unsigned long long)event.item, s->user, type, (unsigned long long)id, event.data);
}

/* The id that a stream begins with, or that a beat brings. */
static void read_id(struct stream *s)
{
    char had[sizeof s->id];
    strcpy(had, s->id);
    int64_t end = clock_mono_ms() + (int64_t)EVENT_MS * fixture_slowness();
    while (strcmp(had, s->id) == 0) {
        const char *line = rawhttp_read_line(s->conn, end - clock_mono_ms(), NULL);
        assert_non_null(line);
        assert_true(strncmp(line, "event:", 6) != 0);
        take_field(s, line);
    }
}

/* ---- the world ---- */

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
static struct stream reader_of(const char *publisher, const struct e2e_api *api)
{
    char user[40];
    name_user(user);
    follow(user, "publisher", publisher, true);
    struct stream s = new_stream(user, api);
    read_id(&s);
    return s;
}

/* ---- order and reach ---- */

static void items_edits_and_deletes_come_in_order(void **state)
{
    (void)state;
    for (size_t i = 0; i < stack.n_apis; i++) {
        struct stream s = reader_of("order", &stack.apis[i]);
        item_id a = publish("order", "first", NULL), b = publish("order", "second", NULL);
        expect(&s, "item", a);
        assert_non_null(strstr(event.data, "\"title\":\"first\""));
        expect(&s, "item", b);
        patch(a, "{\"title\":\"changed\"}");
        expect(&s, "edit", a);
        assert_non_null(strstr(event.data, "\"title\":\"changed\""));
        drop(b);
        drop(a);
        expect(&s, "delete", b);
        expect(&s, "delete", a);
        close_stream(&s);
    }
}

static void only_who_is_shown_an_item_hears_of_it(void **state)
{
    (void)state;
    struct stream follower = reader_of("reach", &stack.apis[0]),
                  other = reader_of("elsewhere", &stack.apis[0]);
    struct stream muted = reader_of("reach", &stack.apis[0]), topical = reader_of("nobody", &stack.apis[0]);
    mute(muted.user, "word", "pancake", true);
    follow(topical.user, "topic", "reach-topic", true);
    item_id a = publish("reach", "A pancake!", "[\"reach-topic\",\"more\"]"),
            b = publish("reach", "plain", NULL);
    drop(a);
    drop(b);
    item_id last = publish("elsewhere", "last", "[\"reach-topic\"]"), mark = publish("reach", "mark", NULL);
    expect(&follower, "item", a);
    expect(&follower, "item", b);
    expect(&follower, "delete", a);
    expect(&follower, "delete", b);
    expect(&follower, "item", mark);
    expect(&topical, "item", a);
    expect(&topical, "delete", a);
    expect(&topical, "item", last);
    expect(&other, "item", last);
    expect(&muted, "item", b);
    expect(&muted, "delete", a); /* the words are gone with the item, so this is told to be safe */
    expect(&muted, "delete", b);
    expect(&muted, "item", mark);
    close_stream(&follower);
    close_stream(&other);
    close_stream(&muted);
    close_stream(&topical);
}

static void a_change_of_topics_moves_an_item_in_and_out(void **state)
{
    (void)state;
    struct stream from = reader_of("nobody", &stack.apis[0]), to = reader_of("nobody", &stack.apis[1]);
    struct stream both = reader_of("mover", &stack.apis[0]);
    follow(from.user, "topic", "old-topic", true);
    follow(to.user, "topic", "new-topic", true);
    item_id id = publish("mover", "it moves", "[\"old-topic\"]");
    expect(&from, "item", id);
    expect(&both, "item", id);
    patch(id, "{\"topics\":[\"new-topic\"]}");
    expect(&from, "delete", id);
    expect(&to, "item", id);
    expect(&both, "edit", id);
    patch(id, "{\"title\":\"it stays\"}");
    expect(&to, "edit", id);
    expect(&both, "edit", id);
    drop(id);
    expect(&to, "delete", id);
    expect(&both, "delete", id);
    item_id mark = publish("mover", "mark", "[\"old-topic\"]");
    expect(&from, "item", mark);
    close_stream(&from);
    close_stream(&to);
    close_stream(&both);
}

static void an_edit_into_a_muted_word_takes_the_item_away(void **state)
{
    (void)state;
    struct stream s = reader_of("wordy", &stack.apis[0]);
    mute(s.user, "word", "turnip", true);
    item_id id = publish("wordy", "harmless", NULL);
    expect(&s, "item", id);
    patch(id, "{\"title\":\"a turnip\"}");
    expect(&s, "delete", id);
    patch(id, "{\"title\":\"harmless again\"}");
    expect(&s, "edit", id);
    close_stream(&s);
}

/* What lies before a change and was not sent yet is judged by the new follows, as a page would be: so a mark
 * that has come stands between. */
static void follows_and_mutes_take_effect_in_open_streams(void **state)
{
    (void)state;
    struct stream s = reader_of("mine", &stack.apis[1]);
    for (int i = 0; i < 10; i++) {
        item_id lost = publish("taken", "before it is followed", NULL);
        expect(&s, "item", publish("mine", "mark", NULL));
        follow(s.user, "publisher", "taken", true);
        expect(&s, "item", publish("taken", "while it is followed", NULL));
        mute(s.user, "publisher", "mine", true);
        publish("mine", "muted", NULL);
        expect(&s, "item", publish("taken", "mark", NULL));
        mute(s.user, "publisher", "mine", false);
        follow(s.user, "publisher", "taken", false);
        publish("taken", "no longer followed", NULL);
        drop(lost); /* no business of his */
        expect(&s, "item", publish("mine", "mark", NULL));
    }
    close_stream(&s);
}

/* More than a loop sends in one turn, and more of it while it does. */
static void each_of_many_streams_gets_each_of_many_items(void **state)
{
    (void)state;
    enum { MANY = 700, ITEMS = 10 };
    static struct stream many[MANY];
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
            read_id(&many[i]);
    }
    for (size_t k = 0; k < ITEMS; k++)
        ids[k] = publish("many", "an item", NULL);
    for (size_t i = 0; i < MANY; i++) {
        for (size_t k = 0; k < ITEMS; k++)
            expect(&many[i], "item", ids[k]);
        close_stream(&many[i]);
    }
}

/* ---- resuming ---- */

/* Everything published comes once, in order, though the client breaks off after each few events, and comes
 * back at either process; also by ids that only a beat brought. */
static void nothing_is_lost_or_doubled_by_who_resumes_anywhere(void **state)
{
    (void)state;
    struct rng rng = {11};
    struct stream s = reader_of("resume", &stack.apis[0]);
    item_id ids[200];
    size_t sent = 0, got = 0;
    while (got < MEM_COUNT(ids)) {
        for (unsigned k = rng_below(&rng, 8); k > 0 && sent < MEM_COUNT(ids); k--)
            ids[sent++] = publish("resume", "an item", NULL);
        if (s.conn == NULL)
            open_at(&s, &stack.apis[rng_below(&rng, 2)]);
        for (unsigned k = rng_below(&rng, 8); k > 0 && got < sent; k--)
            expect(&s, "item", ids[got++]);
        if (rng_percent(&rng, 30) && got == sent)
            read_id(&s); /* of a beat */
        if (rng_percent(&rng, 40))
            close_stream(&s);
    }
    close_stream(&s);
}

static void edits_and_deletes_of_a_gap_are_made_up_for(void **state)
{
    (void)state;
    struct stream s = reader_of("gap", &stack.apis[0]);
    item_id a = publish("gap", "a", NULL), b = publish("gap", "b", NULL);
    expect(&s, "item", a);
    expect(&s, "item", b);
    close_stream(&s);
    patch(a, "{\"title\":\"a2\"}");
    item_id c = publish("gap", "c", NULL), d = publish("gap", "d", NULL);
    drop(b);
    drop(d);
    item_id e = publish("gap", "e", NULL);
    open_at(&s, &stack.apis[1]);
    expect(&s, "edit", a);
    expect(&s, "item", c);
    expect(&s, "delete", b); /* of d nothing is left to show */
    expect(&s, "delete", d);
    expect(&s, "item", e);
    close_stream(&s);
}

static void a_stream_goes_on_after_a_kill(void **state)
{
    (void)state;
    struct stream s = reader_of("killed", &stack.apis[1]);
    item_id ids[30];
    for (size_t i = 0; i < MEM_COUNT(ids); i++) {
        ids[i] = publish("killed", "an item", NULL);
        if (i % 10 < 4)
            expect(&s, "item", ids[i]);
        if (i % 10 == 5)
            server_kill(stack.servers[1]);
        if (i % 10 != 9)
            continue;
        fixture_restart(stack.f, stack.servers[1]);
        e2e_api_drop(&stack.apis[1]);
        close_stream(&s);
        open_at(&s, &stack.apis[1]);
        for (size_t k = i - 5; k <= i; k++)
            expect(&s, "item", ids[k]);
    }
    close_stream(&s);
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
    struct stream s = reader_of("history", &stack.apis[1]), t = s;
    int64_t until = clock_mono_ms() + FORGOTTEN_MS;
    item_id ids[20];
    close_stream(&s);
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
    open_at(&t, &stack.apis[1]);
    for (size_t i = 0; i < MEM_COUNT(ids); i++) {
        if (i != 3)
            expect(&t, "item", ids[i]);
    }
    expect(&t, "delete", ids[3]);
    expect(&t, "edit", ids[5]);
    expect(&t, "item", last);
    close_stream(&t);
    assert_true(e2e_metric(&stack.apis[1], "feedmill_stream_read_back_total") == 1);
    open_at(&s, &stack.apis[1]); /* from the same time: it is remembered now */
    expect(&s, "item", ids[0]);
    close_stream(&s);
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
    struct stream s = reader_of("short", &short_api);
    item_id id = publish("short", "an item", NULL);
    expect(&s, "item", id);
    close_stream(&s);
    for (int i = 0; i < 100; i++)
        publish("short", "an item that is forgotten", NULL);
    open_at(&s, &short_api);
    expect(&s, "reset", 0);
    id = publish("short", "after", NULL);
    while (try_event(&s) && event.item != id)
        assert_string_equal(event.type, "item"); /* some of those before may come */
    close_stream(&s);
    end_short(p);
}

static void an_id_of_no_time_is_a_reset_and_one_of_no_form_is_refused(void **state)
{
    (void)state;
    struct stream s = {.id = "f000000000000001-1"};
    name_user(s.user);
    follow(s.user, "publisher", "future", true);
    open_at(&s, &stack.apis[0]);
    expect(&s, "reset", 0);
    item_id id = publish("future", "an item", NULL);
    expect(&s, "item", id);
    close_stream(&s);
    strcpy(s.id, "nonsense");
    open_with(&s, &stack.apis[0], "", stack.apis[0].auth, 400);
    close_stream(&s);
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
    struct stream slow = reader_of("big", &stack.apis[0]), fast = reader_of("big", &stack.apis[0]);
    double had = cut();
    size_t n = 0;
    while (cut() == had) { /* the kernel's buffers come first */
        assert_true(n++ < 1000);
        publish_much(60000);
        assert_true(try_event(&fast));
        assert_string_equal(event.type, "item");
    }
    for (size_t got = 0; try_event(&slow); got++)
        assert_true(got < n);
    rawhttp_close(slow.conn);
    open_at(&slow, &stack.apis[0]); /* and may come back for the rest */
    assert_true(try_event(&slow));
    assert_string_equal(event.type, "item");
    close_stream(&slow);
    close_stream(&fast);
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
    struct stream s = {.conn = NULL};
    name_user(s.user);
    follow(s.user, "publisher", "queried", true);
    char *token = token_of(s.user), *query = mem_printf("?access_token=%s", token);
    char *header = mem_printf("Authorization: Bearer %s\r\n", token);
    open_with(&s, &stack.apis[0], query, "", 200);
    read_id(&s);
    item_id id = publish("queried", "an item", NULL);
    expect(&s, "item", id);
    close_stream(&s);
    open_with(&s, &stack.apis[0], "", "", 401);
    close_stream(&s);
    open_with(&s, &stack.apis[0], "?access_token=x", "", 401);
    close_stream(&s);
    open_with(&s, &stack.apis[0], query, header, 401); /* not both */
    close_stream(&s);
    strcpy(s.user, "somebody-else");
    open_with(&s, &stack.apis[0], query, "", 403);
    close_stream(&s);
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
    struct stream s = {.conn = NULL};
    name_user(s.user);
    json_t *o = e2e_json(&stack.apis[0], "POST", "/v1/keys", "{\"role\":\"service\"}", 201);
    char *header = mem_printf("Authorization: Bearer %s\r\n", json_string_value(json_object_get(o, "key")));
    char *path = mem_printf("/v1/keys/%s", json_string_value(json_object_get(o, "id")));
    open_with(&s, &stack.apis[1], "", header, 200);
    read_id(&s);
    struct reply r;
    e2e_call(&stack.apis[0], "DELETE", path, NULL, 204, &r);
    reply_done(&r);
    assert_false(try_event(&s));
    close_stream(&s);
    s.id[0] = '\0';
    open_with(&s, &stack.apis[1], "", header, 401);
    close_stream(&s);
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
    struct stream s = reader_of("outage", &stack.apis[0]);
    item_id before = publish("outage", "before it", NULL);
    expect(&s, "item", before);
    server_kill(fixture_mongod(stack.f));
    for (int beats = 0; beats < 10;) {
        const char *line = rawhttp_read_line(s.conn, EVENT_MS, NULL);
        assert_non_null(line);
        beats += line[0] == ':';
    }
    fixture_restart(stack.f, fixture_mongod(stack.f));
    assert_true(fixture_until(can_publish, body, EVENT_MS));
    assert_true(try_event(&s));
    while (strcmp(event.type, "reset") ==
           0) /* the log is there still, but for a tail that had to begin anew */
        assert_true(try_event(&s));
    assert_string_equal(event.type, "item");
    assert_non_null(strstr(event.data, "after it"));
    close_stream(&s);
}

/* ---- the end ---- */

static void a_process_that_ends_says_when_to_come_back(void **state)
{
    (void)state;
    struct server *p = start_short("--stream-unsent", "1m");
    struct stream s = reader_of("draining", &short_api);
    bool hint = false;
    server_signal(p, SIGTERM);
    for (const char *line; (line = rawhttp_read_line(s.conn, EVENT_MS, NULL)) != NULL;)
        hint |= strncmp(line, "retry: ", 7) == 0 && atoi(line + 7) >= 1000;
    assert_true(hint);
    close_stream(&s);
    item_id id = publish("draining", "meanwhile", NULL);
    open_at(&s, &stack.apis[0]);
    expect(&s, "item", id);
    close_stream(&s);
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
