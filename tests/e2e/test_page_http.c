/* test_page_http.c - what HTTP itself offers to who reads pages: ETag and 304, gzip, HEAD. Two feed-apis. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "common/clock.h"
#include "common/mem.h"
#include "tests/support/e2e_stack.h"

#define GZIP        "Accept-Encoding: gzip\r\n"
#define PLAIN_MAX   (8 * 1024 * 1024)
#define POLL_MS     20
#define PATIENCE_MS 10000

static struct e2e_stack stack;
static unsigned names; /* each test has a reader and a publisher of its own */

static int start_stack(void **state)
{
    (void)state;
    e2e_stack_start(&stack, &(struct e2e_stack_options){.n_apis = 2});
    return 0;
}

static int stop_stack(void **state)
{
    (void)state;
    return e2e_stack_stop(&stack);
}

/* ---- a reader who follows a publisher ---- */

struct world {
    char user[32], publisher[32], feed[80];
    item_id ids[8]; /* newest first */
    size_t n;
    ts_t position;
};

static void write_as(struct world *w, const char *method, const char *path, const char *body)
{
    struct reply r;
    e2e_call(&stack.apis[0], method, path, body, 0, &r);
    if (r.status >= 300)
        fail_msg("%s %s: %d %s", method, path, r.status, r.body);
    e2e_position(&r, &w->position);
    reply_done(&r);
}

/* Items one a minute, the first the oldest; the feed is read once with their position, so that it is built.
 */
static void world_open(struct world *w, size_t n)
{
    *w = (struct world){.n = n};
    snprintf(w->user, sizeof w->user, "reader%u", ++names);
    snprintf(w->publisher, sizeof w->publisher, "publisher%u", names);
    snprintf(w->feed, sizeof w->feed, "/v1/users/%s/feed", w->user);
    w->position =
        e2e_write(&stack.apis[0], "PUT", "/v1/users/%s/follows/publisher/%s", w->user, w->publisher);
    int64_t base = clock_wall_ms() - 3600000;
    for (size_t i = 0; i < n; i++) {
        char title[32];
        snprintf(title, sizeof title, "item %zu", i);
        w->ids[n - 1 - i] = e2e_publish(&stack.apis[0], w->publisher, NULL, title, NULL,
                                        base + (int64_t)i * 60000, &w->position);
    }
    for (int i = 0; i < 2; i++) {
        struct e2e_page p;
        e2e_page(&stack.apis[i], w->feed, "limit=100", NULL, w->position, &p);
        assert_int_equal(p.n, n);
        e2e_page_done(&p);
    }
    assert_true(e2e_caught_up(stack.redis, w->user, w->position));
}

static char *item_path(item_id id)
{
    return mem_printf("/v1/items/%" PRIu64, id);
}

/* ---- requests ---- */

static void ask(struct e2e_api *a, const char *method, const char *path, const char *headers, int status,
                struct reply *r)
{
    if (e2e_try(a, method, path, headers, NULL, r) != 0)
        fail_msg("%s %s: no answer", method, path);
    if (r->status != status)
        fail_msg("%s %s: %d, not %d: %.400s", method, path, r->status, status, r->body);
}

static char *tag_of(const struct reply *r)
{
    const char *tag = reply_header(r, "ETag");
    assert_non_null(tag);
    return mem_strdup(tag);
}

static char *get_tag(struct e2e_api *a, const char *path, const char *headers)
{
    struct reply r;
    ask(a, "GET", path, headers, 200, &r);
    char *tag = tag_of(&r);
    reply_done(&r);
    return tag;
}

/* Asks with If-None-Match and more header lines. */
static void ask_if_changed(struct e2e_api *a, const char *method, const char *path, const char *tag,
                           const char *more, int status)
{
    struct reply r;
    char *headers = mem_printf("If-None-Match: %s\r\n%s", tag, more);
    ask(a, method, path, headers, status, &r);
    assert_non_null(reply_header(&r, "ETag"));
    if (strcmp(reply_header(&r, "ETag"), tag) != 0 && status == 304 && tag[0] == 'W')
        fail_msg("304 to %s tells of %s", tag, reply_header(&r, "ETag"));
    assert_string_equal(reply_header(&r, "Cache-Control"), "private, no-cache");
    assert_string_equal(reply_header(&r, "Vary"), "Authorization, Accept-Encoding");
    if (status == 304) {
        assert_int_equal(r.len, 0);
        assert_null(reply_header(&r, "Content-Type"));
        assert_null(reply_header(&r, "Content-Encoding"));
    }
    reply_done(&r);
    free(headers);
}

static void expect_unchanged(struct e2e_api *a, const char *path, const char *tag)
{
    ask_if_changed(a, "GET", path, tag, "", 304);
}

static void expect_changed(struct e2e_api *a, const char *path, const char *tag)
{
    ask_if_changed(a, "GET", path, tag, "", 200);
}

/* ---- ETag ---- */

/* Polls until the freshness has moved on, which the sealed `newest` tells. */
static void until_fresher(const char *path, const char *newest)
{
    for (int64_t until = clock_mono_ms() + PATIENCE_MS * fixture_slowness(); clock_mono_ms() < until;) {
        struct e2e_page p;
        e2e_page(&stack.apis[0], path, "", NULL, 0, &p);
        bool moved = strcmp(p.newest, newest) != 0;
        e2e_page_done(&p);
        if (moved)
            return;
        usleep(POLL_MS * 1000);
    }
    fail_msg("%s: the freshness stands still", path);
}

static void an_unchanged_page_is_304_however_much_time_has_gone_by(void **state)
{
    (void)state;
    struct world w;
    struct e2e_page p;
    world_open(&w, 3);
    char *tag = get_tag(&stack.apis[0], w.feed, NULL);
    assert_memory_equal(tag, "W/\"", 3);
    e2e_page(&stack.apis[0], w.feed, "", NULL, 0, &p);
    until_fresher(w.feed, p.newest);
    char *again = get_tag(&stack.apis[0], w.feed, NULL);
    assert_string_equal(again, tag);
    double before = e2e_metric(&stack.apis[0], "feedmill_pages_not_modified_total");
    expect_unchanged(&stack.apis[0], w.feed, tag);
    expect_unchanged(&stack.apis[0], w.feed, tag + 2); /* without the W/ */
    expect_unchanged(&stack.apis[0], w.feed, "*");
    ask_if_changed(&stack.apis[0], "HEAD", w.feed, tag, "", 304);
    assert_true(e2e_metric(&stack.apis[0], "feedmill_pages_not_modified_total") == before + 4);
    expect_changed(&stack.apis[0], w.feed, "\"another\"");
    ask_if_changed(&stack.apis[0], "HEAD", w.feed, "\"another\"", "", 200);
    expect_unchanged(&stack.apis[1], w.feed, tag); /* behind a load balancer */
    e2e_page_done(&p);
    free(tag);
    free(again);
}

/* Does something, and says whether the page has another tag then. */
static bool changes_tag(struct world *w, const char *query, const char *method, const char *path,
                        const char *body)
{
    char *page = mem_printf("%s?%s", w->feed, query);
    char *before = get_tag(&stack.apis[0], page, NULL);
    write_as(w, method, path, body);
    assert_true(e2e_caught_up(stack.redis, w->user, w->position));
    char *after = get_tag(&stack.apis[0], page, NULL);
    bool changed = strcmp(before, after) != 0;
    (changed ? expect_changed : expect_unchanged)(&stack.apis[0], page, before);
    free(page);
    free(before);
    free(after);
    return changed;
}

static void whatever_the_page_shows_is_in_its_tag(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, 4);
    char *newest = item_path(w.ids[0]), *second = item_path(w.ids[1]), *oldest = item_path(w.ids[3]);
    char *profile = mem_printf("/v1/publishers/%s", w.publisher);
    char *mute = mem_printf("/v1/users/%s/mutes/item/%" PRIu64, w.user, w.ids[1]);
    char *post = mem_printf("{\"publisher\":\"%s\",\"title\":\"new\",\"body\":\"b\"}", w.publisher);
    assert_true(changes_tag(&w, "limit=3", "POST", "/v1/items", post));
    assert_true(changes_tag(&w, "limit=3", "PATCH", newest, "{\"body\":\"edited\"}"));
    assert_true(changes_tag(&w, "limit=3&fields=ids", "PATCH", newest, "{\"body\":\"again\"}"));
    assert_true(changes_tag(&w, "limit=3", "PUT", profile, "{\"title\":\"The Daily\"}"));
    assert_false(changes_tag(&w, "limit=3", "PATCH", oldest, "{\"body\":\"not shown\"}"));
    assert_false(changes_tag(&w, "limit=3&fields=ids", "PUT", profile, "{\"title\":\"The Nightly\"}"));
    assert_true(changes_tag(&w, "limit=3", "PUT", mute, NULL));
    assert_true(changes_tag(&w, "limit=3", "DELETE", second, NULL) == false); /* it was muted already */
    assert_true(changes_tag(&w, "limit=3", "DELETE", newest, NULL));
    free(newest);
    free(second);
    free(oldest);
    free(profile);
    free(mute);
    free(post);
}

static void the_tag_covers_the_question(void **state)
{
    (void)state;
    struct world w;
    char at[TS_TEXT_SIZE];
    world_open(&w, 3);
    ts_format(w.position, at);
    const char *const queries[] = {"limit=20", "fields=summary", "fields=ids", "limit=2"};
    char *tags[6];
    for (size_t i = 0; i < MEM_COUNT(queries); i++) {
        char *path = mem_printf("%s?%s", w.feed, queries[i]);
        tags[i] = get_tag(&stack.apis[0], path, NULL);
        free(path);
    }
    char *path = mem_printf("%s?position=%s", w.feed, at);
    tags[4] = get_tag(&stack.apis[0], path, NULL);
    expect_unchanged(&stack.apis[1], path, tags[4]);
    free(path);
    tags[5] = get_tag(&stack.apis[0], w.feed, GZIP);
    for (size_t i = 0; i < MEM_COUNT(tags); i++)
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(tags[i], tags[k]);
    ask_if_changed(&stack.apis[0], "GET", w.feed, tags[5], GZIP, 304);
    ask_if_changed(&stack.apis[0], "GET", w.feed, tags[5], "", 200);
    ask_if_changed(&stack.apis[0], "GET", w.feed, tags[0], GZIP, 200);
    for (size_t i = 0; i < MEM_COUNT(tags); i++)
        free(tags[i]);
}

/* Who was answered 304 goes on with the page that he has. */
static void cursors_of_a_page_go_on_after_a_304(void **state)
{
    (void)state;
    struct world w;
    struct e2e_page first, second, again;
    world_open(&w, 5);
    char *path = mem_printf("%s?limit=2", w.feed);
    char *tag = get_tag(&stack.apis[0], path, NULL);
    e2e_page(&stack.apis[0], w.feed, "limit=2", NULL, 0, &first);
    until_fresher(w.feed, first.newest);
    /* one that is older than all of the first page: it comes after it, and does not change it */
    item_id late =
        e2e_publish(&stack.apis[0], w.publisher, NULL, "late", NULL, clock_wall_ms() - 7200000, &w.position);
    assert_true(e2e_caught_up(stack.redis, w.user, w.position));
    expect_unchanged(&stack.apis[0], path, tag);
    e2e_page(&stack.apis[0], w.feed, "limit=2", NULL, 0, &again);
    assert_string_not_equal(again.next, first.next); /* sealed with another freshness */
    for (int i = 0; i < 2; i++) {
        e2e_page(&stack.apis[0], w.feed, "limit=10", i ? again.next : first.next, 0, &second);
        assert_int_equal(second.n, 4);
        assert_true(second.items[0].id == w.ids[2] && second.items[3].id == late);
        e2e_page_done(&second);
    }
    char *later = mem_printf("%s?cursor=%s", w.feed, first.next);
    char *later_tag = get_tag(&stack.apis[0], later, NULL);
    expect_unchanged(&stack.apis[1], later, later_tag);
    e2e_page_done(&first);
    e2e_page_done(&again);
    free(later);
    free(later_tag);
    free(path);
    free(tag);
}

static void newest_of_a_page_misses_nothing_after_a_304(void **state)
{
    (void)state;
    struct world w;
    struct e2e_page first, later;
    world_open(&w, 3);
    char *tag = get_tag(&stack.apis[0], w.feed, NULL);
    e2e_page(&stack.apis[0], w.feed, "", NULL, 0, &first);
    until_fresher(w.feed, first.newest);
    expect_unchanged(&stack.apis[0], w.feed, tag);
    item_id newer = e2e_publish(&stack.apis[0], w.publisher, NULL, "newer", NULL, 0, &w.position);
    assert_true(e2e_caught_up(stack.redis, w.user, w.position));
    expect_changed(&stack.apis[0], w.feed, tag);
    char *query = mem_printf("after=%s", first.newest), *path = mem_printf("%s?%s", w.feed, query);
    e2e_page(&stack.apis[0], w.feed, query, NULL, 0, &later);
    assert_true(later.n >= 1 && later.items[0].id == newer);
    assert_null(later.next);
    char *after_tag = get_tag(&stack.apis[0], path, NULL);
    expect_unchanged(&stack.apis[0], path, after_tag);
    e2e_page_done(&first);
    e2e_page_done(&later);
    free(query);
    free(path);
    free(after_tag);
    free(tag);
}

static void pages_of_publishers_and_topics_have_tags_too(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, 2);
    char *topic = mem_printf("[\"topic%u\"]", names);
    w.ids[0] = e2e_publish(&stack.apis[0], w.publisher, NULL, "with a topic", topic, 0, &w.position);
    char *paths[] = {mem_printf("/v1/publishers/%s/items", w.publisher),
                     mem_printf("/v1/topics/topic%u/items", names)};
    char *item = item_path(w.ids[0]);
    for (size_t i = 0; i < MEM_COUNT(paths); i++) {
        char *tag = get_tag(&stack.apis[0], paths[i], NULL);
        expect_unchanged(&stack.apis[0], paths[i], tag);
        expect_unchanged(&stack.apis[1], paths[i], tag);
        char *body = mem_printf("{\"title\":\"title %zu\"}", i);
        write_as(&w, "PATCH", item, body);
        expect_changed(&stack.apis[0], paths[i], tag);
        free(body);
        free(tag);
        free(paths[i]);
    }
    free(item);
    free(topic);
}

static bool is_partial(void *arg)
{
    struct world *w = arg;
    struct e2e_page p;
    e2e_page(&stack.apis[0], w->feed, "", NULL, 0, &p);
    bool partial = strcmp(p.state, "partial") == 0;
    e2e_page_done(&p);
    return partial;
}

static bool is_complete(void *arg)
{
    return !is_partial(arg);
}

static void a_page_that_became_partial_is_not_304(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, 3);
    char *tag = get_tag(&stack.apis[0], w.feed, NULL);
    server_pause(fixture_mongod(stack.f));
    bool partial = fixture_until(is_partial, &w, 30000);
    expect_changed(&stack.apis[0], w.feed, tag);
    char *other = get_tag(&stack.apis[0], w.feed, NULL);
    server_continue(fixture_mongod(stack.f));
    assert_true(partial);
    assert_string_not_equal(tag, other);
    assert_true(fixture_until(is_complete, &w, 30000));
    expect_unchanged(&stack.apis[0], w.feed, tag);
    expect_changed(&stack.apis[0], w.feed, other);
    free(tag);
    free(other);
}

/* ---- gzip ---- */

static char *gunzip(const struct reply *r)
{
    z_stream z = {0};
    char *out = mem_alloc(PLAIN_MAX);
    assert_int_equal(inflateInit2(&z, 16 + MAX_WBITS), Z_OK);
    z.next_in = (Bytef *)r->body;
    z.avail_in = (uInt)r->len;
    z.next_out = (Bytef *)out;
    z.avail_out = PLAIN_MAX - 1;
    assert_int_equal(inflate(&z, Z_FINISH), Z_STREAM_END);
    assert_int_equal(z.avail_in, 0);
    out[z.total_out] = '\0';
    inflateEnd(&z);
    return out;
}

/* Items and publishers; what else a page says may differ between two of them. */
static char *contents(const char *page)
{
    const char *end = strstr(page, ",\"next\":");
    assert_non_null(end);
    return mem_strndup(page, (size_t)(end - page));
}

static char *get_contents(const char *path)
{
    struct reply r;
    ask(&stack.apis[0], "GET", path, NULL, 200, &r);
    assert_null(reply_header(&r, "Content-Encoding"));
    char *text = contents(r.body);
    reply_done(&r);
    return text;
}

static void expect_gzip(const char *path, const char *headers)
{
    struct reply r;
    char *plain = get_contents(path);
    ask(&stack.apis[0], "GET", path, headers, 200, &r);
    assert_string_equal(reply_header(&r, "Content-Encoding"), "gzip");
    assert_string_equal(reply_header(&r, "Content-Type"), "application/json");
    assert_string_equal(reply_header(&r, "Vary"), "Authorization, Accept-Encoding");
    char *page = gunzip(&r), *text = contents(page);
    json_t *whole = json_loads(page, 0, NULL);
    assert_non_null(whole);
    assert_string_equal(text, plain);
    json_decref(whole);
    free(text);
    free(page);
    free(plain);
    reply_done(&r);
}

static void pages_are_sent_in_gzip_to_who_takes_it(void **state)
{
    (void)state;
    struct world w;
    struct reply r;
    world_open(&w, 5);
    char *paths[] = {mem_printf("%s?limit=3", w.feed), mem_printf("%s?fields=summary", w.feed),
                     mem_printf("%s?limit=1", w.feed),
                     mem_printf("/v1/publishers/%s/items?limit=4", w.publisher)};
    for (size_t i = 0; i < MEM_COUNT(paths); i++) {
        expect_gzip(paths[i], GZIP);
        expect_gzip(paths[i], "Accept-Encoding: br;q=1, gzip;q=0.8, *;q=0.1\r\n");
        ask(&stack.apis[0], "HEAD", paths[i], GZIP, 200, &r);
        assert_string_equal(reply_header(&r, "Content-Encoding"), "gzip");
        assert_int_equal(r.len, 0);
        reply_done(&r);
    }
    const char *const refusals[] = {"Accept-Encoding: gzip;q=0\r\n", "Accept-Encoding: gzip;q=0, *\r\n",
                                    "Accept-Encoding: identity\r\n", "Accept-Encoding: br\r\n"};
    for (size_t i = 0; i < MEM_COUNT(refusals); i++) {
        ask(&stack.apis[0], "GET", paths[0], refusals[i], 200, &r);
        assert_null(reply_header(&r, "Content-Encoding"));
        json_t *page = reply_json(&r);
        assert_int_equal(json_array_size(json_object_get(page, "items")), 3);
        json_decref(page);
        reply_done(&r);
    }
    for (size_t i = 0; i < MEM_COUNT(paths); i++)
        free(paths[i]);
}

static void pages_without_bodies_are_plain(void **state)
{
    (void)state;
    struct world w, nobody;
    struct reply r;
    world_open(&w, 2);
    world_open(&nobody, 0);
    char *paths[] = {mem_printf("%s?fields=ids", w.feed), mem_strdup(nobody.feed)};
    for (size_t i = 0; i < MEM_COUNT(paths); i++) {
        ask(&stack.apis[0], "GET", paths[i], GZIP, 200, &r);
        assert_null(reply_header(&r, "Content-Encoding"));
        assert_non_null(reply_header(&r, "ETag"));
        json_decref(reply_json(&r));
        reply_done(&r);
        free(paths[i]);
    }
}

static void an_item_is_deflated_once_for_all_pages_and_again_when_edited(void **state)
{
    (void)state;
    static const char *const made = "feedmill_gzip_items_total{deflated=\"now\"}",
                             *const ready = "feedmill_gzip_items_total{deflated=\"before\"}";
    struct world w;
    world_open(&w, 4);
    struct e2e_api *a = &stack.apis[0];
    char *other = mem_printf("/v1/publishers/%s/items", w.publisher), *item = item_path(w.ids[1]);
    double made_before = e2e_metric(a, made), ready_before = e2e_metric(a, ready);
    expect_gzip(w.feed, GZIP);
    expect_gzip(w.feed, GZIP);
    expect_gzip(other, GZIP);
    assert_true(e2e_metric(a, made) == made_before + 4);
    assert_true(e2e_metric(a, ready) == ready_before + 8);
    write_as(&w, "PATCH", item, "{\"body\":\"edited\"}");
    expect_gzip(w.feed, GZIP);
    assert_true(e2e_metric(a, made) == made_before + 5);
    free(other);
    free(item);
}

/* The largest bodies, in all languages; they are not deflated all at once while others wait. */
static void large_pages_are_whole_whatever_is_deflated_yet(void **state)
{
    (void)state;
    struct world w;
    world_open(&w, 1);
    size_t n = 60000;
    char *body = mem_alloc(n + 1);
    for (int item = 0; item < 6; item++) {
        for (size_t i = 0; i < n; i++)
            body[i] = " etaoinshrdlu"[(i * (size_t)(item + 3) + i / 7 + i * i / 31) % 13];
        body[n] = '\0';
        char *json =
            mem_printf("{\"publisher\":\"%s\",\"title\":\"\\u00e9t\\u00e9 \\\"%d\\\"\",\"body\":\"%s\"}",
                       w.publisher, item, body);
        write_as(&w, "POST", "/v1/items", json);
        free(json);
    }
    assert_true(e2e_caught_up(stack.redis, w.user, w.position));
    static const char *const later = "feedmill_gzip_items_total{deflated=\"later\"}";
    double before = e2e_metric(&stack.apis[0], later);
    for (int i = 0; i < 8; i++)
        expect_gzip(w.feed, GZIP);
    double left = e2e_metric(&stack.apis[0], later);
    expect_gzip(w.feed, GZIP);
    assert_true(left > before && e2e_metric(&stack.apis[0], later) == left); /* by now all are */
    free(body);
}

/* ---- other readers of gzip ---- */

/* Runs a command with the page's URL, and answers what it printed. */
static char *run(const char *fmt, const struct world *w)
{
    char *tail = mem_printf(" 'http://127.0.0.1:%d%s'", (int)stack.apis[0].port, w->feed);
    char *auth = mem_strndup(stack.apis[0].auth, strcspn(stack.apis[0].auth, "\r\n"));
    char *command = mem_printf(fmt, auth);
    char *whole = mem_printf("%s%s", command, tail);
    FILE *in = popen(whole, "r");
    assert_non_null(in);
    char *out = mem_alloc(PLAIN_MAX);
    size_t n = fread(out, 1, PLAIN_MAX - 1, in);
    out[n] = '\0';
    assert_int_equal(pclose(in), 0);
    free(whole);
    free(command);
    free(auth);
    free(tail);
    return out;
}

static void curl_and_python_read_the_pages(void **state)
{
    (void)state;
    static const char *const commands[] = {
        "curl -sS --fail --compressed -H '%s'",
        "python3 -c 'import gzip, sys, urllib.request as u\n"
        "name, value = sys.argv[1].split(\": \", 1)\n"
        "r = u.urlopen(u.Request(sys.argv[2], headers={name: value, \"Accept-Encoding\": \"gzip\"}))\n"
        "assert r.headers[\"Content-Encoding\"] == \"gzip\"\n"
        "sys.stdout.buffer.write(gzip.decompress(r.read()))' '%s'",
    };
    struct world w;
    world_open(&w, 6);
    char *plain = get_contents(w.feed);
    for (size_t i = 0; i < MEM_COUNT(commands); i++) {
        char *page = run(commands[i], &w), *text = contents(page);
        assert_string_equal(text, plain);
        free(text);
        free(page);
    }
    free(plain);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_unchanged_page_is_304_however_much_time_has_gone_by),
        cmocka_unit_test(whatever_the_page_shows_is_in_its_tag),
        cmocka_unit_test(the_tag_covers_the_question),
        cmocka_unit_test(cursors_of_a_page_go_on_after_a_304),
        cmocka_unit_test(newest_of_a_page_misses_nothing_after_a_304),
        cmocka_unit_test(pages_of_publishers_and_topics_have_tags_too),
        cmocka_unit_test(a_page_that_became_partial_is_not_304),
        cmocka_unit_test(pages_are_sent_in_gzip_to_who_takes_it),
        cmocka_unit_test(pages_without_bodies_are_plain),
        cmocka_unit_test(an_item_is_deflated_once_for_all_pages_and_again_when_edited),
        cmocka_unit_test(large_pages_are_whole_whatever_is_deflated_yet),
        cmocka_unit_test(curl_and_python_read_the_pages),
    };
    e2e_choose_tests();
    return cmocka_run_group_tests(tests, start_stack, stop_stack);
}
