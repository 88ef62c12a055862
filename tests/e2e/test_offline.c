/* test_offline.c - the recipe of README's "A list that stays right": a client that keeps a list, is away most
 * of the time and loses replies, and has in the end what the feed has.
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
#include "common/mem.h"
#include "tests/support/e2e_stack.h"

#define FIRST_ITEMS 80
#define ROUNDS      12
#define LIST_MAX    2000

static struct e2e_stack stack;

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

/* ---- the client ---- */

struct client {
    struct driver *d;
    char feed[100];
    struct e2e_seen *items; /* newest first */
    size_t n;
    char *newest; /* of the newest page that was taken in */
    char *gap;    /* its `next`, as long as there is more between it and the list; NULL: there is none */
    item_id oldest;
    unsigned lossy; /* percent of replies that are lost */
    ts_t position;  /* 0, or what the next pages have to show */
    unsigned lost, repeated, gaps, removed, fetched;
};

static void client_done(struct client *c)
{
    free(c->items);
    free(c->newest);
    free(c->gap);
}

/* One page; false when the reply was lost: then nothing is changed, and the same is asked again some day. */
static bool ask(struct client *c, const char *query, const char *cursor, struct e2e_page *out)
{
    struct e2e_api *a = &stack.apis[rng_below(&c->d->rng, 2)];
    e2e_page(a, c->feed, query, cursor, cursor ? 0 : c->position, out);
    if (strcmp(out->state, "complete") == 0 && !rng_percent(&c->d->rng, c->lossy))
        return true;
    c->lost++;
    e2e_page_done(out);
    return false;
}

static struct e2e_seen *find(struct client *c, item_id id)
{
    for (size_t i = 0; i < c->n; i++)
        if (c->items[i].id == id)
            return &c->items[i];
    return NULL;
}

static int newest_first(const void *a, const void *b)
{
    item_id x = ((const struct e2e_seen *)a)->id, y = ((const struct e2e_seen *)b)->id;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* An item that is there already is replaced. */
static void put(struct client *c, const struct e2e_seen *it)
{
    struct e2e_seen *old = find(c, it->id);
    if (old) {
        *old = *it;
        c->repeated++;
        return;
    }
    assert_true(c->n < LIST_MAX);
    c->items[c->n++] = *it;
    qsort(c->items, c->n, sizeof *c->items, newest_first);
}

static void take_page(struct client *c, const struct e2e_page *p)
{
    for (size_t i = 0; i < p->n; i++)
        put(c, &p->items[i]);
}

static bool begin(struct client *c)
{
    struct e2e_page p;
    if (!ask(c, c->d->seed % 2 ? "limit=100" : "limit=55", NULL, &p))
        return false;
    c->items = mem_zero(LIST_MAX, sizeof *c->items);
    take_page(c, &p);
    c->oldest = p.next && p.n > 0 ? p.items[p.n - 1].id : 0;
    c->newest = mem_strdup(p.newest);
    e2e_page_done(&p);
    return true;
}

/* Pages of what lies in the gap, until there is none. */
static bool close_gap(struct client *c)
{
    while (c->gap) {
        struct e2e_page p;
        if (!ask(c, "limit=3", c->gap, &p))
            return false;
        take_page(c, &p);
        free(c->gap);
        c->gap = mem_strdup(p.next);
        e2e_page_done(&p);
    }
    return true;
}

static bool read_newer(struct client *c)
{
    struct e2e_page p;
    char query[600];
    snprintf(query, sizeof query, "limit=3&after=%s", c->newest);
    if (!ask(c, query, NULL, &p))
        return false;
    take_page(c, &p);
    free(c->newest);
    c->newest = mem_strdup(p.newest);
    c->gap = mem_strdup(p.next);
    c->gaps += c->gap != NULL;
    e2e_page_done(&p);
    return close_gap(c);
}

/* The bodies of items that came late or were edited. */
static bool fetch(struct client *c, const item_id *ids, size_t n)
{
    for (size_t at = 0; at < n; at += 50) {
        struct buf path;
        buf_init(&path, 8000);
        buf_add_str(&path, "/v1/items?ids=");
        for (size_t i = at; i < n && i < at + 50; i++)
            buf_printf(&path, "%s%" PRIu64, i > at ? "," : "", ids[i]);
        buf_add_char(&path, '\0');
        json_t *o = e2e_json(&stack.apis[rng_below(&c->d->rng, 2)], "GET", path.data, NULL, 200), *one;
        buf_done(&path);
        bool lost = rng_percent(&c->d->rng, c->lossy);
        size_t i;
        json_array_foreach(json_object_get(o, "items"), i, one)
        {
            struct e2e_seen it = {.revision = (int)json_integer_value(json_object_get(one, "revision"))};
            assert_int_equal(ids_parse(json_string_value(json_object_get(one, "id")), &it.id, NULL), 0);
            snprintf(it.title, sizeof it.title, "%s", json_string_value(json_object_get(one, "title")));
            if (!lost)
                put(c, &it);
        }
        json_decref(o);
        if (lost)
            return false;
        c->fetched += (unsigned)(n - at < 50 ? n - at : 50);
    }
    return true;
}

static void drop_what_is_not_in(struct client *c, const struct e2e_seen *now, size_t n)
{
    size_t kept = 0;
    for (size_t i = 0; i < c->n; i++) {
        if (bsearch(&c->items[i], now, n, sizeof *now, newest_first))
            c->items[kept++] = c->items[i];
        else
            c->removed++;
    }
    c->n = kept;
}

/* Ids and revisions of all that the list covers, as they are now. */
static bool read_ids(struct client *c, struct e2e_seen *now, size_t *n)
{
    char *cursor = NULL;
    bool more = true;
    *n = 0;
    while (more) {
        struct e2e_page p;
        bool got = ask(c, "limit=20&fields=ids", cursor, &p);
        free(cursor);
        cursor = NULL;
        if (!got)
            return false;
        for (size_t i = 0; i < p.n && p.items[i].id >= c->oldest; i++)
            now[(*n)++] = p.items[i];
        more = p.next && (p.n == 0 || p.items[p.n - 1].id > c->oldest);
        cursor = more ? mem_strdup(p.next) : NULL;
        e2e_page_done(&p);
    }
    return true;
}

static bool compare(struct client *c)
{
    struct e2e_seen *now = mem_zero(LIST_MAX, sizeof *now);
    item_id *ids = mem_alloc(LIST_MAX * sizeof *ids);
    size_t n, wanted = 0;
    bool ok = read_ids(c, now, &n);
    if (ok)
        drop_what_is_not_in(c, now, n);
    for (size_t i = 0; ok && i < n; i++) {
        const struct e2e_seen *mine = find(c, now[i].id);
        if (!mine || mine->revision < now[i].revision)
            ids[wanted++] = now[i].id;
    }
    ok = ok && fetch(c, ids, wanted);
    free(now);
    free(ids);
    return ok;
}

/* As far as it comes: a client that goes offline in between goes on from there. */
static bool synchronise(struct client *c)
{
    if (!c->newest && !begin(c))
        return false;
    return close_gap(c) && read_newer(c) && compare(c);
}

/* ---- a client and the world ---- */

/* Hours old, and accepted now: nothing but the comparison finds it. */
static void publish_late(struct driver *d)
{
    struct op op;
    struct reply r;
    do {
        op_make(d, DRIVER_NO_BULK, &op);
        if (op.kind == OP_PUBLISH)
            break;
        op_done(&op);
    } while (true);
    if (e2e_try(&d->apis[0], op.method, op.path, op.extra, op.body, &r) != 0)
        driver_fail(d, "no answer");
    op_apply(d, &op, &r);
    reply_done(&r);
    op_done(&op);
}

static void run_client(uint64_t seed, struct client *all)
{
    struct driver d;
    struct client c = {.d = &d, .lossy = 25};
    driver_init(&d, seed, "off", stack.apis, 2, stack.redis);
    driver_setup(&d, FIRST_ITEMS);
    snprintf(c.feed, sizeof c.feed, "/v1/users/%s/feed", driver_user(&d, 0));
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = rng_below(&d.rng, 30); i > 0; i--)
            driver_step(&d, DRIVER_GRAPH);
        publish_late(&d);
        synchronise(&c);
    }
    c.position = d.position;
    c.lossy = 10;
    for (unsigned tries = 0; !synchronise(&c); tries++)
        assert_true(tries < 200);
    driver_check_range(&d, 0, c.items, c.n, ITEM_ID_MAX + 1, c.oldest, true, "the client's list");
    printf("client %" PRIu64 ": %zu items, %u lost replies, %u gaps, %u repeated, %u removed, %u fetched\n",
           seed, c.n, c.lost, c.gaps, c.repeated, c.removed, c.fetched);
    fflush(stdout);
    client_done(&c);
    driver_done(&d);
    *all = c; /* its numbers */
}

static void a_list_is_right_in_the_end_whatever_was_lost_came_late_was_edited_or_deleted(void **state)
{
    (void)state;
    uint64_t seed = (uint64_t)e2e_env("FEEDMILL_SEED", 1);
    int64_t seeds = e2e_env("FEEDMILL_SEEDS", fixture_slowness() > 1 ? 2 : 8);
    unsigned lost = 0, gaps = 0, removed = 0, fetched = 0;
    for (int64_t i = 0; i < seeds; i++) {
        struct client c;
        run_client(seed + (uint64_t)i, &c);
        lost += c.lost;
        gaps += c.gaps;
        removed += c.removed;
        fetched += c.fetched;
    }
    assert_true(lost > 0 && gaps > 0 && removed > 0 && fetched > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_list_is_right_in_the_end_whatever_was_lost_came_late_was_edited_or_deleted),
    };
    e2e_choose_tests();
    return cmocka_run_group_tests_name("offline", tests, start_stack, stop_stack);
}
