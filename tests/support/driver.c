#include "tests/support/driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/keys.h"
#include "common/mem.h"

#define COMPLETE_MS 20000 /* until pages are complete again after MongoDB was away */

/* Users of one bucket share its record: what is done for one must not be lost or done twice for the others.
 */
static void name_users(struct driver *d)
{
    for (unsigned i = 0; i < d->users; i++) {
        char *name = d->user_names[i];
        unsigned k = 0;
        snprintf(name, sizeof d->user_names[0], "%s-u%u", d->prefix, i);
        while (i > 0 && i + 1 < d->users && keys_bucket(name) != keys_bucket(d->user_names[0]))
            snprintf(name, sizeof d->user_names[0], "%s-u%u-%u", d->prefix, i, k++);
    }
}

void driver_init(struct driver *d, uint64_t seed, const char *label, struct e2e_api *apis, size_t n_apis,
                 redisContext *redis)
{
    memset(d, 0, sizeof *d);
    d->seed = seed;
    d->rng.state = seed;
    snprintf(d->prefix, sizeof d->prefix, "%s%llu", label, (unsigned long long)seed);
    d->users = 4 + rng_below(&d->rng, 3);
    d->publishers = 5 + rng_below(&d->rng, 5);
    d->topics = 4 + rng_below(&d->rng, 4);
    d->apis = apis;
    d->n_apis = n_apis;
    d->writers = n_apis;
    name_users(d);
    d->redis = redis;
    model_init(&d->model);
}

void driver_done(struct driver *d)
{
    model_done(&d->model);
    for (size_t i = 0; i < DRIVER_TRACE; i++)
        free(d->trace[i]);
    memset(d, 0, sizeof *d);
}

static const char *name(const struct driver *d, char kind, unsigned i)
{
    static char names[8][80];
    static unsigned turn;
    char *out = names[turn++ % MEM_COUNT(names)];
    snprintf(out, sizeof names[0], "%s-%c%u", d->prefix, kind, i);
    return out;
}

const char *driver_user(const struct driver *d, unsigned i)
{
    return d->user_names[i];
}

const char *driver_publisher(const struct driver *d, unsigned i)
{
    return name(d, 'p', i);
}

const char *driver_topic(const struct driver *d, unsigned i)
{
    return name(d, 't', i);
}

void driver_fail(struct driver *d, const char *fmt, ...)
{
    char text[2000];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    fprintf(stderr, "---- the last writes of %s\n", d->prefix);
    unsigned first = d->traced > DRIVER_TRACE ? d->traced - DRIVER_TRACE : 0;
    for (unsigned i = first; i < d->traced; i++)
        fprintf(stderr, "%5u %s\n", i, d->trace[i % DRIVER_TRACE]);
    fprintf(stderr, "---- to repeat: FEEDMILL_SEED=%llu FEEDMILL_SEEDS=1\n", (unsigned long long)d->seed);
    fail_msg("seed %llu: %s", (unsigned long long)d->seed, text);
    abort(); /* not reached: fail_msg() leaves the test */
}

void driver_step(struct driver *d, unsigned flags)
{
    struct op op;
    struct reply r;
    op_make(d, flags, &op);
    struct e2e_api *a = &d->apis[rng_below(&d->rng, (unsigned)d->writers)];
    if (e2e_try(a, op.method, op.path, op.extra, op.body, &r) != 0)
        driver_fail(d, "%s %s: no answer", op.method, op.path);
    op_apply(d, &op, &r);
    reply_done(&r);
    op_done(&op);
}

static void print_reply(const char *what, const redisReply *r)
{
    fprintf(stderr, "%s:", what);
    for (size_t i = 0; r && i < r->elements; i++)
        fprintf(stderr, " %s", r->element[i]->type == REDIS_REPLY_STRING ? r->element[i]->str : "-");
    fputc('\n', stderr);
}

/* What a failure of a feed is looked into with: the timeline as it is now, and the feed once more. */
static void tell_state(struct driver *d, unsigned user)
{
    char key[KEY_SIZE], path[200], position[TS_TEXT_SIZE];
    const char *name_of = driver_user(d, user);
    unsigned b = keys_bucket(name_of);
    static const struct {
        const char *what, *command;
        size_t (*key)(char out[KEY_SIZE], unsigned bucket, const char *user);
    } looks[] = {{"timeline", "ZRANGE %s 0 -1", keys_timeline},
                 {"with it", "HGETALL %s", keys_timeline_meta}};
    for (size_t i = 0; d->redis && i < MEM_COUNT(looks); i++) {
        looks[i].key(key, b, name_of);
        redisReply *r = redisCommand(d->redis, looks[i].command, key);
        print_reply(looks[i].what, r);
        freeReplyObject(r);
    }
    keys_bucket_record(key, b);
    redisReply *r = d->redis ? redisCommand(d->redis, "HGETALL %s", key) : NULL;
    print_reply("record", r);
    freeReplyObject(r);
    ts_format(d->delivered, position);
    fprintf(stderr, "delivered %s", position);
    ts_format(d->position, position);
    fprintf(stderr, ", last position %s\n", position);
    snprintf(path, sizeof path, "/v1/users/%s/feed?limit=100&fields=ids", name_of);
    struct reply again;
    if (e2e_try(&d->apis[0], "GET", path, NULL, NULL, &again) == 0) {
        fprintf(stderr, "once more: %s\n", again.body);
        reply_done(&again);
    }
}

/* ---- comparisons ---- */

/* An item is missing in a feed, or there without belonging there. */
static void fail_feed(struct driver *d, unsigned user, const char *what, item_id id, const char *wrong)
{
    const struct model_item *it = model_find(&d->model, id);
    if (user < d->users)
        tell_state(d, user);
    driver_fail(d, "%s: item %llu (%s, %s, moved at %016llx) %s", what, (unsigned long long)id,
                it ? it->title : "unknown", it && it->live ? "live" : "not live",
                it ? (unsigned long long)it->moved : 0, wrong);
}

static void compare_one(struct driver *d, const char *what, const struct e2e_seen *seen,
                        const struct model_item *it, const char *fields)
{
    if (seen->revision != it->revision)
        driver_fail(d, "%s: item %llu has revision %d, not %d", what, (unsigned long long)it->id,
                    seen->revision, it->revision);
    if (strcmp(fields, "ids") != 0 && strcmp(seen->title, it->title) != 0)
        driver_fail(d, "%s: item %llu is titled \"%s\", not \"%s\"", what, (unsigned long long)it->id,
                    seen->title, it->title);
}

/* user: whose feed it is, or d->users for none. */
static void compare(struct driver *d, unsigned user, const char *what, const struct e2e_list *l,
                    const struct model_item **want, size_t n, const char *fields)
{
    for (size_t i = 0; i < l->n || i < n; i++) {
        item_id got = i < l->n ? l->items[i].id : 0, expected = i < n ? want[i]->id : 0;
        if (got > expected)
            fail_feed(d, user, what, got, "does not belong there");
        if (got < expected)
            fail_feed(d, user, what, expected, "is missing");
        compare_one(d, what, &l->items[i], want[i], fields);
    }
    d->items_compared += (unsigned)n;
}

static const char *some_fields(struct driver *d)
{
    static const char *const fields[] = {"full", "summary", "ids"};
    return fields[rng_below(&d->rng, 3)];
}

static void feed_path(const struct driver *d, unsigned user, char *out, size_t size)
{
    snprintf(out, size, "/v1/users/%s/feed", driver_user(d, user));
}

/* Whether the item may show because a delivery is still under way. */
static bool may_linger(const struct driver *d, unsigned user, const struct model_item *it)
{
    struct model_item before = *it;
    before.topics |= it->left;
    return it->live && it->moved > d->delivered && model_follows(&d->model, user, &before) &&
           !model_mutes(&d->model, user, it);
}

struct feed_check {
    struct driver *d;
    unsigned user;
    struct e2e_api *apis;
    size_t n_apis;
    ts_t position;
    char path[200];
    const char *fields;
    struct e2e_list list;
};

/* Reads the whole feed; false when pages were partial. What such pages show has to be right all the same. */
static bool read_feed(void *arg)
{
    struct feed_check *k = arg;
    e2e_list_done(&k->list);
    e2e_read_all(k->apis, k->n_apis, &k->d->rng, k->path, 30, k->fields, k->position, &k->list);
    for (size_t i = 0; k->list.partial && i < k->list.n; i++) {
        const struct model_item *it = model_find(&k->d->model, k->list.items[i].id);
        if (!it || (!model_shows(&k->d->model, k->user, it) && !may_linger(k->d, k->user, it)))
            fail_feed(k->d, k->user, k->path, k->list.items[i].id, "does not belong there");
    }
    return k->list.partial == 0;
}

static void check_feed(struct driver *d, unsigned user, struct e2e_api *apis, size_t n_apis, ts_t position,
                       const char *how)
{
    char what[300];
    struct feed_check k = {.d = d, .user = user, .apis = apis, .n_apis = n_apis, .position = position};
    k.fields = some_fields(d);
    feed_path(d, user, k.path, sizeof k.path);
    snprintf(what, sizeof what, "%s %s", k.path, how);
    if (!(d->db_away ? fixture_until(read_feed, &k, COMPLETE_MS) : read_feed(&k)))
        driver_fail(d, "%s: %u of %u pages were not complete", what, k.list.partial, k.list.pages);
    size_t n;
    const struct model_item **want = model_feed(&d->model, user, &n);
    compare(d, user, what, &k.list, want, n, k.fields);
    free(want);
    e2e_list_done(&k.list);
    d->feeds++;
}

void driver_check_feed(struct driver *d, unsigned user)
{
    check_feed(d, user, d->apis, d->n_apis, d->position, "with the last position");
}

void driver_check_delivered(struct driver *d, unsigned user)
{
    driver_catch_up(d);
    check_feed(d, user, d->apis, 1, d->writers == 1 ? 0 : d->position, "as delivered");
}

void driver_check_all_feeds(struct driver *d)
{
    for (unsigned u = 0; u < d->users; u++)
        driver_check_feed(d, u);
}

/* Whether the item has to show: everything that was delivered, or simply everything. */
static bool must_show(const struct driver *d, const struct model_item *it, bool exactly)
{
    return exactly || it->moved <= d->delivered;
}

void driver_check_range(struct driver *d, unsigned user, const struct e2e_seen *seen, size_t n_seen,
                        item_id before, item_id from, bool exactly, const char *what)
{
    size_t n, at = 0;
    const struct model_item **want = model_feed(&d->model, user, &n);
    while (at < n && want[at]->id >= before)
        at++;
    for (size_t i = 0; i <= n_seen; i++) {
        item_id got = i < n_seen ? seen[i].id : from ? from - 1 : 0;
        for (; at < n && want[at]->id > got; at++)
            if (must_show(d, want[at], exactly))
                fail_feed(d, user, what, want[at]->id, "is missing");
        if (i == n_seen)
            break;
        const struct model_item *it = model_find(&d->model, got);
        bool right = at < n && want[at]->id == got;
        if (!it || (!right && (exactly || !may_linger(d, user, it))))
            fail_feed(d, user, what, got, "does not belong there");
        compare_one(d, what, &seen[i], it, "full");
        at += right;
    }
    free(want);
}

void driver_check_now(struct driver *d, unsigned user, struct e2e_api *api)
{
    char path[200], what[240];
    struct e2e_list l;
    feed_path(d, user, path, sizeof path);
    snprintf(what, sizeof what, "%s at once", path);
    e2e_read_all(api, 1, &d->rng, path, 30, "full", 0, &l);
    driver_check_range(d, user, l.items, l.n, ITEM_ID_MAX + 1, 0, false, what);
    e2e_list_done(&l);
    d->feeds++;
}

static void check_target(struct driver *d, bool topic, unsigned i)
{
    char path[200];
    struct e2e_list l;
    size_t n;
    const char *fields = some_fields(d);
    snprintf(path, sizeof path, topic ? "/v1/topics/%s/items" : "/v1/publishers/%s/items",
             topic ? driver_topic(d, i) : driver_publisher(d, i));
    e2e_read_all(d->apis, d->n_apis, &d->rng, path, 30, fields, d->position, &l);
    const struct model_item **want =
        topic ? model_topic(&d->model, i, &n) : model_publisher(&d->model, i, &n);
    compare(d, d->users, path, &l, want, n, fields);
    free(want);
    e2e_list_done(&l);
}

struct item_check {
    struct e2e_api *api;
    const struct model_item *it;
    char path[100];
    char got[400];
};

static bool item_is_right(void *arg)
{
    struct item_check *k = arg;
    struct reply r;
    e2e_call(k->api, "GET", k->path, NULL, 0, &r);
    snprintf(k->got, sizeof k->got, "%d %s", r.status, r.body);
    bool right = r.status == (k->it->live ? 200 : 410);
    if (right && k->it->live) {
        json_t *j = reply_json(&r);
        right = json_integer_value(json_object_get(j, "revision")) == k->it->revision &&
                strcmp(json_string_value(json_object_get(j, "title")), k->it->title) == 0 &&
                strcmp(json_string_value(json_object_get(j, "body")), k->it->body) == 0 &&
                json_array_size(json_object_get(j, "topics")) == (size_t)__builtin_popcount(k->it->topics);
        json_decref(j);
    }
    reply_done(&r);
    return right;
}

/* At a process that did not take the write an item may be a second old. */
static void check_item(struct driver *d, const struct model_item *it)
{
    struct item_check k = {.api = &d->apis[rng_below(&d->rng, (unsigned)d->n_apis)], .it = it};
    snprintf(k.path, sizeof k.path, "/v1/items/%llu", (unsigned long long)it->id);
    bool at_once = d->writers == 1 && k.api == d->apis;
    if (at_once ? !item_is_right(&k) : !fixture_until(item_is_right, &k, 1500))
        driver_fail(d, "GET %s: %s; but it is revision %d, %s, \"%s\", topics %x", k.path, k.got,
                    it->revision, it->live ? "live" : "deleted", it->title, it->topics);
}

/* The edges of a list, counted and looked up in the model. */
static void check_list(struct driver *d, unsigned user, const char *table)
{
    bool mutes = strcmp(table, "mutes") == 0;
    const struct model_user *u = &d->model.users[user];
    size_t want = 0, got = 0;
    for (int k = mutes ? MODEL_MUTE_PUBLISHER : 0; k < (mutes ? MODEL_MUTE_ITEM : MODEL_MUTE_PUBLISHER); k++)
        want += (size_t)__builtin_popcount(u->sets[k]);
    want += mutes ? u->n_muted : 0;
    char *cursor = NULL;
    do {
        char *path = mem_printf("/v1/users/%s/%s?limit=%u%s%s", driver_user(d, user), table,
                                1 + rng_below(&d->rng, 8), cursor ? "&cursor=" : "", cursor ? cursor : "");
        json_t *j = e2e_json(&d->apis[rng_below(&d->rng, (unsigned)d->n_apis)], "GET", path, NULL, 200);
        got += json_array_size(json_object_get(j, table));
        free(cursor);
        cursor = mem_strdup(json_string_value(json_object_get(j, "next")));
        json_decref(j);
        free(path);
    } while (cursor);
    if (got != want)
        driver_fail(d, "the list of %s of %s holds %zu, not %zu", table, driver_user(d, user), got, want);
}

void driver_check_targets(struct driver *d)
{
    for (unsigned i = 0; i < d->publishers; i++)
        check_target(d, false, i);
    for (unsigned i = 0; i < d->topics; i++)
        check_target(d, true, i);
}

void driver_check_rest(struct driver *d)
{
    check_target(d, false, rng_below(&d->rng, d->publishers));
    check_target(d, true, rng_below(&d->rng, d->topics));
    check_list(d, rng_below(&d->rng, d->users), "follows");
    check_list(d, rng_below(&d->rng, d->users), "mutes");
    for (int i = 0; i < 4 && d->model.n > 0; i++)
        check_item(d, &d->model.items[rng_below(&d->rng, (unsigned)d->model.n)]);
}

void driver_catch_up(struct driver *d)
{
    for (unsigned u = 0; u < d->users; u++)
        if (!e2e_caught_up(d->redis, driver_user(d, u), d->position))
            driver_fail(d, "fanout did not reach position %016llx for %s: it is at %016llx",
                        (unsigned long long)d->position, driver_user(d, u),
                        (unsigned long long)e2e_progress(d->redis, driver_user(d, u)));
    for (size_t i = 0; i < d->n_apis; i++)
        if (!e2e_tail_reached(&d->apis[i], d->position))
            driver_fail(d, "feed-api %zu did not reach position %016llx", i + 1,
                        (unsigned long long)d->position);
    d->delivered = d->position;
}
