#include "tests/support/e2e.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/clock.h"
#include "common/keys.h"
#include "common/mem.h"

#define CAUGHT_UP_MS     20000
#define REBUILDING_TRIES 50
#define PAGES_MAX        5000

/* ---- random ---- */

uint64_t rng_next(struct rng *r)
{
    uint64_t z = (r->state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

unsigned rng_below(struct rng *r, unsigned n)
{
    return (unsigned)(rng_next(r) % n);
}

bool rng_percent(struct rng *r, unsigned percent)
{
    return rng_below(r, 100) < percent;
}

int64_t e2e_env(const char *name, int64_t otherwise)
{
    const char *v = getenv(name);
    return v && *v ? strtoll(v, NULL, 10) : otherwise;
}

void e2e_choose_tests(void)
{
    const char *pattern = getenv("FEEDMILL_TEST");
    if (pattern && *pattern)
        cmocka_set_test_filter(pattern);
}

/* ---- a client ---- */

void e2e_api_init(struct e2e_api *a, struct fixture *f, const struct server *feed_api)
{
    memset(a, 0, sizeof *a);
    a->port = (uint16_t)fixture_port(f, feed_api);
    snprintf(a->auth, sizeof a->auth, "Authorization: Bearer %s\r\n", fixture_admin_key(f));
}

void e2e_api_drop(struct e2e_api *a)
{
    rawhttp_close(a->conn);
    a->conn = NULL;
}

void e2e_api_done(struct e2e_api *a)
{
    e2e_api_drop(a);
}

static char *headers_of(const struct e2e_api *a, const char *extra, const char *body)
{
    bool typed = extra && strcasestr(extra, "Content-Type:");
    return mem_printf("%s%s%s", a->auth, extra ? extra : "",
                      body && !typed ? "Content-Type: application/json\r\n" : "");
}

int e2e_try(struct e2e_api *a, const char *method, const char *path, const char *extra, const char *body,
            struct reply *out)
{
    if (!a->conn)
        a->conn = rawhttp_try_open(a->port);
    if (!a->conn)
        return -1;
    rawhttp_set_timeout(a->conn, (int64_t)RAWHTTP_TIMEOUT_MS * fixture_slowness());
    char *headers = headers_of(a, extra, body);
    int rc = rawhttp_try_request(a->conn, method, path, headers, body, body ? strlen(body) : 0, out);
    free(headers);
    if (rc != 0 || out->close)
        e2e_api_drop(a);
    return rc;
}

void e2e_call(struct e2e_api *a, const char *method, const char *path, const char *body, int status,
              struct reply *out)
{
    const char *extra =
        body && strcmp(method, "PATCH") == 0 ? "Content-Type: application/merge-patch+json\r\n" : NULL;
    if (e2e_try(a, method, path, extra, body, out) != 0)
        fail_msg("%s %s: no answer", method, path);
    if (status && out->status != status)
        fail_msg("%s %s %.300s: %d, not %d: %.600s", method, path, body ? body : "", out->status, status,
                 out->body);
}

json_t *e2e_json(struct e2e_api *a, const char *method, const char *path, const char *body, int status)
{
    struct reply r;
    e2e_call(a, method, path, body, status, &r);
    json_t *j = reply_json(&r);
    reply_done(&r);
    return j;
}

struct rawhttp *e2e_send(struct e2e_api *a, const char *method, const char *path, const char *extra,
                         const char *body)
{
    struct rawhttp *c = rawhttp_try_open(a->port);
    if (!c)
        return NULL;
    rawhttp_set_timeout(c, (int64_t)RAWHTTP_TIMEOUT_MS * fixture_slowness());
    char *headers = headers_of(a, extra, body);
    char *all = mem_printf("%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\n%sContent-Length: %zu\r\n\r\n%s", method,
                           path, headers, body ? strlen(body) : 0, body ? body : "");
    rawhttp_send(c, all, strlen(all));
    free(all);
    free(headers);
    return c;
}

void e2e_position(const struct reply *r, ts_t *last)
{
    const char *text = reply_header(r, "Feed-Position");
    ts_t t;
    if (!text || ts_parse(text, &t, NULL) != 0)
        fail_msg("a write was answered without Feed-Position: %d %.300s", r->status, r->body);
    else
        *last = ts_max(*last, t);
}

/* ---- short forms ---- */

item_id e2e_publish(struct e2e_api *a, const char *publisher, const char *external, const char *title,
                    const char *topics, int64_t published_ms, ts_t *position)
{
    json_t *o = json_pack("{s:s,s:s,s:s}", "publisher", publisher, "title", title, "body", "a body");
    if (external)
        json_object_set_new(o, "external_id", json_string(external));
    if (topics)
        json_object_set_new(o, "topics", json_loads(topics, 0, NULL));
    if (published_ms) {
        char text[CLOCK_RFC3339_SIZE];
        clock_format(published_ms, text);
        json_object_set_new(o, "published_at", json_string(text));
    }
    char *body = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    struct reply r;
    e2e_call(a, "POST", "/v1/items", body, 0, &r);
    if (r.status != 201 && r.status != 200)
        fail_msg("publish %s: %d %.300s", body, r.status, r.body);
    free(body);
    if (position)
        e2e_position(&r, position);
    json_t *j = reply_json(&r);
    item_id id = 0;
    if (ids_parse(json_string_value(json_object_get(j, "id")), &id, NULL) != 0)
        fail_msg("no id: %.300s", r.body);
    json_decref(j);
    reply_done(&r);
    return id;
}

ts_t e2e_write(struct e2e_api *a, const char *method, const char *fmt, ...)
{
    char path[600];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(path, sizeof path, fmt, ap);
    va_end(ap);
    struct reply r;
    ts_t t = 0;
    e2e_call(a, method, path, NULL, 204, &r);
    e2e_position(&r, &t);
    reply_done(&r);
    return t;
}

/* ---- pages ---- */

static void copy_member(const json_t *o, const char *name, char *out, size_t size)
{
    const char *s = json_string_value(json_object_get(o, name));
    snprintf(out, size, "%s", s ? s : "");
}

static void parse_item(const json_t *o, struct e2e_seen *out)
{
    const char *id = json_string_value(json_object_get(o, "id"));
    if (!id || ids_parse(id, &out->id, NULL) != 0)
        fail_msg("an item without id");
    out->revision = (int)json_integer_value(json_object_get(o, "revision"));
    copy_member(o, "title", out->title, sizeof out->title);
    copy_member(o, "publisher", out->publisher, sizeof out->publisher);
}

void e2e_page_parse(const struct reply *r, struct e2e_page *out)
{
    memset(out, 0, sizeof *out);
    json_t *j = reply_json(r), *items = json_object_get(j, "items");
    if (!json_is_array(items) || !json_object_get(j, "next"))
        fail_msg("not a page: %.400s", r->body);
    out->n = json_array_size(items);
    out->items = mem_zero(out->n + 1, sizeof *out->items);
    for (size_t i = 0; i < out->n; i++)
        parse_item(json_array_get(items, i), &out->items[i]);
    out->next = mem_strdup(json_string_value(json_object_get(j, "next")));
    copy_member(j, "state", out->state, sizeof out->state);
    copy_member(j, "reason", out->reason, sizeof out->reason);
    copy_member(j, "fallback", out->fallback, sizeof out->fallback);
    copy_member(j, "session", out->session, sizeof out->session);
    copy_member(j, "newest", out->newest, sizeof out->newest);
    out->lag_ms = json_integer_value(json_object_get(j, "lag_ms"));
    json_decref(j);
}

void e2e_page_done(struct e2e_page *p)
{
    free(p->items);
    free(p->next);
    memset(p, 0, sizeof *p);
}

static char *page_path(const char *path, const char *query, const char *cursor, ts_t position)
{
    char text[TS_TEXT_SIZE] = "";
    if (position)
        ts_format(position, text);
    return mem_printf("%s?%s%s%s%s%s", path, query, cursor ? "&cursor=" : "", cursor ? cursor : "",
                      position ? "&position=" : "", text);
}

static bool never(void *arg)
{
    (void)arg;
    return false;
}

void e2e_page(struct e2e_api *a, const char *path, const char *query, const char *cursor, ts_t position,
              struct e2e_page *out)
{
    char *full = page_path(path, *query ? query : "limit=20", cursor, position);
    for (int i = 0; i < REBUILDING_TRIES; i++) {
        struct reply r;
        e2e_call(a, "GET", full, NULL, 200, &r);
        e2e_page_parse(&r, out);
        reply_done(&r);
        if (strcmp(out->state, "rebuilding") != 0) {
            free(full);
            return;
        }
        e2e_page_done(out);
        fixture_until(never, NULL, 100); /* as the answer says: ask again a little later */
    }
    fail_msg("GET %s: still rebuilding after %d tries", full, REBUILDING_TRIES);
}

static void list_add(struct e2e_list *l, const struct e2e_page *p, const char *path)
{
    l->items = mem_grow(l->items, l->n + p->n + 1, sizeof *l->items);
    for (size_t i = 0; i < p->n; i++) {
        if (l->n > 0 && p->items[i].id >= l->items[l->n - 1].id)
            fail_msg("%s: item %" PRIu64 " came after %" PRIu64, path, p->items[i].id, l->items[l->n - 1].id);
        l->items[l->n++] = p->items[i];
    }
    l->pages++;
    l->partial += p->state[0] && strcmp(p->state, "complete") != 0;
}

void e2e_read_all(struct e2e_api *apis, size_t n, struct rng *r, const char *path, unsigned most,
                  const char *fields, ts_t position, struct e2e_list *out)
{
    memset(out, 0, sizeof *out);
    char *cursor = NULL;
    do {
        struct e2e_page p;
        char query[64];
        unsigned limit = 1 + rng_below(r, most);
        snprintf(query, sizeof query, "limit=%u%s%s", limit, fields ? "&fields=" : "", fields ? fields : "");
        e2e_page(&apis[rng_below(r, (unsigned)n)], path, query, cursor, cursor ? 0 : position, &p);
        if (p.n > limit)
            fail_msg("%s: %zu items with limit %u", path, p.n, limit);
        list_add(out, &p, path);
        free(cursor);
        cursor = mem_strdup(p.next);
        e2e_page_done(&p);
        if (out->pages > PAGES_MAX)
            fail_msg("%s: no end after %d pages", path, PAGES_MAX);
    } while (cursor);
}

void e2e_list_done(struct e2e_list *l)
{
    free(l->items);
    memset(l, 0, sizeof *l);
}

/* ---- metrics ---- */

static double metric_in(const char *text, const char *line)
{
    size_t n = strlen(line);
    for (const char *p = text; p && *p; p = strchr(p, '\n'), p = p ? p + 1 : NULL) {
        if (strncmp(p, line, n) == 0 && p[n] == ' ')
            return strtod(p + n + 1, NULL);
    }
    return 0;
}

double e2e_metric(struct e2e_api *a, const char *line)
{
    struct reply r;
    e2e_call(a, "GET", "/metrics", NULL, 200, &r);
    double v = metric_in(r.body, line);
    reply_done(&r);
    return v;
}

double e2e_metric_on(uint16_t port, const char *auth, const char *line)
{
    struct reply r;
    rawhttp_once(port, "GET", "/metrics", auth, NULL, &r);
    if (r.status != 200)
        fail_msg("/metrics of port %u: %d", port, r.status);
    double v = metric_in(r.body, line);
    reply_done(&r);
    return v;
}

/* ---- Redis ---- */

redisContext *e2e_redis(struct fixture *f)
{
    struct timeval limit = {.tv_sec = 20};
    redisContext *c = redisConnectUnixWithTimeout(fixture_redis_path(f), limit);
    if (!c || c->err)
        fail_msg("can't connect to Redis: %s", c ? c->errstr : "no memory");
    else
        redisSetTimeout(c, limit);
    return c;
}

redisReply *e2e_redis_do(redisContext *c, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    redisReply *r = redisvCommand(c, fmt, ap);
    va_end(ap);
    if (!r || r->type == REDIS_REPLY_ERROR)
        fail_msg("Redis: %s: %s", fmt, r ? r->str : c->errstr);
    return r;
}

ts_t e2e_progress(redisContext *c, const char *user)
{
    char key[KEY_SIZE];
    ts_t t = 0;
    keys_bucket_record(key, keys_bucket(user));
    redisReply *r = e2e_redis_do(c, "HGET %s progress", key);
    if (r->type == REDIS_REPLY_STRING && ts_parse(r->str, &t, NULL) != 0)
        fail_msg("progress of %s is %s", key, r->str);
    freeReplyObject(r);
    return t;
}

bool e2e_timeline(redisContext *c, const char *user, struct e2e_timeline *out)
{
    char tl[KEY_SIZE], pf[KEY_SIZE];
    keys_timeline(tl, keys_bucket(user), user);
    keys_timeline_meta(pf, keys_bucket(user), user);
    redisReply *meta = e2e_redis_do(c, "HMGET %s r st", pf);
    redisReply *all = e2e_redis_do(c, "ZRANGE %s 0 -1", tl);
    bool there = meta->element[0]->type == REDIS_REPLY_STRING && all->elements > 0;
    memset(out, 0, sizeof *out);
    if (there && ts_parse(meta->element[0]->str, &out->r, NULL) != 0)
        fail_msg("r of %s is %s", pf, meta->element[0]->str);
    out->ready =
        there && meta->element[1]->type == REDIS_REPLY_STRING && strcmp(meta->element[1]->str, "r") == 0;
    bool below = false;
    for (size_t i = 0; there && i < all->elements; i++) {
        bool floor = strcmp(all->element[i]->str, "f") == 0;
        out->entries += !floor;
        out->above += !floor && !below;
        below = below || floor;
    }
    redisReply *score = e2e_redis_do(c, "ZSCORE %s f", tl);
    if (score->type == REDIS_REPLY_STRING)
        out->floor = (item_id)-strtod(score->str, NULL);
    freeReplyObject(score);
    freeReplyObject(meta);
    freeReplyObject(all);
    return there;
}

struct catch_up {
    redisContext *c;
    const char *user;
    ts_t position;
};

static bool has_caught_up(void *arg)
{
    struct catch_up *u = arg;
    return e2e_progress(u->c, u->user) >= u->position;
}

struct tail_reached {
    struct e2e_api *api;
    ts_t position;
};

static bool has_reached(void *arg)
{
    struct tail_reached *u = arg;
    struct reply r;
    ts_t at = 0;
    if (e2e_try(u->api, "GET", "/v1/status", NULL, NULL, &r) != 0)
        return false;
    json_t *j = r.status == 200 ? reply_json(&r) : NULL;
    const char *text = json_string_value(json_object_get(json_object_get(j, "tail"), "position"));
    bool reached = text && ts_parse(text, &at, NULL) == 0 && at >= u->position;
    json_decref(j);
    reply_done(&r);
    return reached;
}

bool e2e_tail_reached(struct e2e_api *a, ts_t position)
{
    struct tail_reached u = {a, position};
    return fixture_until(has_reached, &u, CAUGHT_UP_MS);
}

bool e2e_caught_up(redisContext *c, const char *user, ts_t position)
{
    struct catch_up u = {c, user, position};
    return fixture_until(has_caught_up, &u, CAUGHT_UP_MS);
}
