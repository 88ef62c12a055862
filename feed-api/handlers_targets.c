/* handlers_targets.c - publishers and topics: profile, counts, lists by prefix. Their items are pages
 * (handlers_feed.c).
 */
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "feed-api/app.h"
#include "feed-api/counts.h"
#include "feed-api/cursor.h"
#include "feed-api/feed.h"
#include "feed-api/router.h"
#include "feed-api/targets.h"

#define PROFILE_MAX (32 * 1024)
#define LIMIT_MAX   100

static enum target_kind kind_of(const struct call *c)
{
    return strncmp(c->route->path, "/v1/topics", strlen("/v1/topics")) == 0 ? TARGET_TOPIC : TARGET_PUBLISHER;
}

/* ---- one ---- */

static void get_work(struct worker *w, struct call *c)
{
    struct target t;
    struct err e;
    if (mongo_conn_fresh(w->mongo, NULL, &e) != 0 ||
        targets_get(w->mongo, kind_of(c), c->params[0], &t, &e) != 0) {
        call_fail_err(c, &e);
        return;
    }
    target_write_json(&t, &c->out);
    target_done(&t);
}

static void get_target(struct call *c)
{
    call_work(c, get_work);
}

static void profile_free(void *data)
{
    target_profile_done(data);
    free(data);
}

/* A new document starts without counts, whatever there is to count. */
static void put_work(struct worker *w, struct call *c)
{
    struct target t;
    struct err e;
    if (targets_put(w->mongo, kind_of(c), c->params[0], c->data, &t, &e) != 0) {
        call_fail_err(c, &e);
        return;
    }
    c->position = mongo_conn_time(w->mongo);
    counts_touch(c->app->counts, t.kind, t.name);
    if (t.kind == TARGET_PUBLISHER && c->app->feed != NULL)
        publishers_changed(c->app->feed->publishers, t.name);
    target_write_json(&t, &c->out);
    target_done(&t);
}

static int put_read(struct call *c)
{
    struct item_problem p = {0};
    if (kind_of(c) == TARGET_PUBLISHER && !identity_publishes(&c->who, c->params[0]))
        return call_fail(c, PROBLEM_FORBIDDEN, "this key is not bound to this publisher");
    json_t *o = call_json(c);
    if (o == NULL)
        return -1;
    c->data = mem_zero(1, sizeof(struct target_profile));
    c->data_free = profile_free;
    int rc = target_profile_from_json(o, c->data, &p);
    json_decref(o);
    return rc != 0 ? call_invalid(c, p.pointer, "%s", p.detail) : 0;
}

static void put_target(struct call *c)
{
    if (put_read(c) != 0)
        call_finish(c);
    else
        call_work(c, put_work);
}

/* ---- lists ---- */

struct listing {
    char prefix[CURSOR_SCOPE_SIZE];
    unsigned limit;
    bool after;
    struct cursor cursor;
};

static void write_list(struct call *c, const struct listing *l, const struct target *found, size_t n)
{
    enum target_kind kind = kind_of(c);
    size_t shown = n < l->limit ? n : l->limit;
    buf_printf(&c->out, "{\"%s\":[", kind == TARGET_PUBLISHER ? "publishers" : "topics");
    for (size_t i = 0; i < shown; i++) {
        if (i > 0)
            buf_add_char(&c->out, ',');
        target_write_json(&found[i], &c->out);
    }
    buf_add_str(&c->out, "],\"next\":");
    if (n > shown) {
        struct cursor next = {.route = kind == TARGET_PUBLISHER ? CURSOR_PUBLISHERS : CURSOR_TOPICS,
                              .last_number = found[shown - 1].followers};
        char text[CURSOR_TEXT_SIZE];
        snprintf(next.scope, sizeof next.scope, "%s", l->prefix);
        snprintf(next.last_key, sizeof next.last_key, "%s", found[shown - 1].name);
        cursor_seal(c->app->cursor_key, &next, text);
        buf_add_json(&c->out, text);
    } else {
        buf_add_str(&c->out, "null");
    }
    buf_add_char(&c->out, '}');
}

static void list_work(struct worker *w, struct call *c)
{
    const struct listing *l = c->data;
    struct target *found = mem_zero(LIMIT_MAX + 1, sizeof *found);
    struct err e;
    size_t n = 0;
    if (mongo_conn_fresh(w->mongo, NULL, &e) != 0 ||
        targets_list(w->mongo, kind_of(c), l->prefix, l->cursor.last_number,
                     l->after ? l->cursor.last_key : NULL, l->limit + 1, found, &n, &e) != 0)
        call_fail_err(c, &e);
    else
        write_list(c, l, found, n);
    for (size_t i = 0; i < n; i++)
        target_done(&found[i]);
    free(found);
}

static int list_read(struct call *c, struct listing *l)
{
    const char *prefix = call_query(c, "prefix"), *cursor = call_query(c, "cursor");
    struct err e;
    if (call_query_limit(c, &l->limit) != 0)
        return -1;
    if (prefix != NULL && prefix[0] != '\0' && call_check_name(c, "?prefix", prefix, strlen(prefix)) != 0)
        return -1;
    if (cursor != NULL) {
        enum cursor_route route = kind_of(c) == TARGET_PUBLISHER ? CURSOR_PUBLISHERS : CURSOR_TOPICS;
        if (cursor_open(c->app->cursor_key, cursor, route, prefix, &l->cursor, &e) != 0) {
            metrics_add(c->app->metrics, M_CURSORS_REFUSED, 0, 1);
            return call_invalid_as(c, PROBLEM_INVALID_CURSOR, "?cursor", "%s", e.msg);
        }
        l->after = true;
        prefix = l->cursor.scope;
    }
    snprintf(l->prefix, sizeof l->prefix, "%s", prefix != NULL ? prefix : "");
    return 0;
}

static void list_targets(struct call *c)
{
    c->data = mem_zero(1, sizeof(struct listing));
    c->data_free = free;
    if (list_read(c, c->data) != 0)
        call_finish(c);
    else
        call_work(c, list_work);
}

#define JSON "application/json"

const struct route routes_targets[] = {
    {"GET", "/v1/publishers", list_targets, ACCESS_ANY, "prefix,limit,cursor", NULL, 0, "listPublishers"},
    {"GET", "/v1/publishers/{p}", get_target, ACCESS_ANY, NULL, NULL, 0, "getPublisher"},
    {"PUT", "/v1/publishers/{p}", put_target, ACCESS_PUBLISHER, NULL, JSON, PROFILE_MAX, "putPublisher"},
    {"GET", "/v1/topics", list_targets, ACCESS_ANY, "prefix,limit,cursor", NULL, 0, "listTopics"},
    {"GET", "/v1/topics/{t}", get_target, ACCESS_ANY, NULL, NULL, 0, "getTopic"},
    {"PUT", "/v1/topics/{t}", put_target, ACCESS_ADMIN, NULL, JSON, PROFILE_MAX, "putTopic"},
    {0},
};
