/* handlers_feed.c - pages of a reader's feed, of a publisher's items and of a topic's, on the loop: the
 * question, the timeline from Redis, the answer. What blocks is in feed_work.c.
 */
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/scripts.h"
#include "feed-api/app.h"
#include "feed-api/feed.h"
#include "feed-api/gate.h"
#include "feed-api/redis_async.h"
#include "feed-api/router.h"

#define READ_SLACK     9 /* ids read beyond the limit: the one after the page, and for items that are hidden */
#define FIRST_WAIT_MS  3 /* before a timeline that is behind a position is looked at again; then: */
#define LATER_WAIT_MS  10
#define EXPIRY_PART    16  /* a timeline's expiry is set anew when this part of it has gone by, ... */
#define EXPIRY_MOST_S  600 /* ... or this */
#define PUBLISHERS_MAX 20000

/* ---- what lives with the process ---- */

struct feed_state *feed_state_new(void)
{
    struct feed_state *s = mem_zero(1, sizeof *s);
    s->rebuilds = rebuilds_new();
    s->publishers = publishers_new(PUBLISHERS_MAX);
    return s;
}

void feed_state_free(struct feed_state *s)
{
    if (!s)
        return;
    rebuilds_free(s->rebuilds);
    publishers_free(s->publishers);
    free(s);
}

void feed_end_waiting(struct loop *l)
{
    struct feed *f;
    while ((f = TAILQ_FIRST(&l->waiting))) {
        call_fail(f->call, PROBLEM_UNAVAILABLE, "the service is stopping");
        call_finish(f->call); /* feed_free() takes it off the list */
    }
}

static void stop_waiting(struct feed *f)
{
    if (f->is_waiting)
        TAILQ_REMOVE(&f->loop->waiting, f, waiting);
    f->is_waiting = false;
}

static void feed_free(void *p)
{
    struct feed *f = p;
    stop_waiting(f);
    if (f->timer)
        event_free(f->timer);
    feed_drop_page(f);
    timeline_done(&f->timeline);
    mutes_done(&f->mutes);
    if (f->has_follows && !f->truth)
        follow_set_done(&f->follows);
    truth_unref(f->truth);
    free(f->served);
    free(f);
}

/* ---- the question ---- */

static int read_fields(struct call *c, enum feed_fields *out)
{
    const char *s = call_query(c, "fields");
    if (!s || strcmp(s, "full") == 0)
        *out = FEED_FULL;
    else if (strcmp(s, "summary") == 0)
        *out = FEED_SUMMARY;
    else if (strcmp(s, "ids") == 0)
        *out = FEED_IDS;
    else
        return call_invalid(c, "?fields", "must be full, summary or ids");
    return 0;
}

static int read_cursor(struct feed *f)
{
    struct err e;
    const char *s = call_query(f->call, "cursor");
    f->first = !s;
    f->cursor.last = ITEM_ID_MAX + 1;
    if (!s || cursor_open(f->app->cursor_key, s, f->route, f->scope, &f->cursor, &e) == 0)
        return 0;
    metrics_add(f->app->metrics, M_CURSORS_REFUSED, 0, 1);
    return call_invalid_as(f->call, PROBLEM_INVALID_CURSOR, "?cursor", "%s", e.msg);
}

/* A cursor goes on in the order it was made in; naming what was asked for then is fine, naming something else
 * is not. */
static int read_order(struct feed *f)
{
    const char *s = call_query(f->call, "order");
    f->order = f->first ? CURSOR_LATEST : f->cursor.order;
    if (!s)
        return 0;
    bool ranked = strcmp(s, "ranked") == 0;
    if (!ranked && strcmp(s, "latest") != 0)
        return call_invalid(f->call, "?order", "must be latest or ranked");
    if (f->first)
        f->order = ranked ? CURSOR_RANKED : CURSOR_LATEST;
    else if (ranked != (f->order == CURSOR_RANKED) && !(ranked && f->cursor.fallback[0]))
        return call_invalid(f->call, "?order", "is not the one of the cursor");
    return 0;
}

static int read_profile(struct feed *f)
{
    const char *s = call_query(f->call, "profile");
    if (!s)
        return 0;
    if (strcmp(s, "default") != 0 && strcmp(s, "latest") != 0)
        return call_invalid(f->call, "?profile", "there is no profile of this name");
    if (f->first) {
        /* `latest` ranks by time: that is the other order. */
        if (strcmp(s, "latest") == 0)
            f->order = CURSOR_LATEST;
        strcpy(f->cursor.profile, s);
        return 0;
    }
    const char *was = f->cursor.profile[0] ? f->cursor.profile : "default";
    return strcmp(was, s) == 0 ? 0 : call_invalid(f->call, "?profile", "is not the one of the cursor");
}

/* `after` is the `newest` of an earlier page; what it is worth is in the cursor from then on. */
static int read_after(struct feed *f)
{
    const char *s = call_query(f->call, "after");
    struct cursor newest;
    struct err e;
    if (!s)
        return 0;
    if (f->order == CURSOR_RANKED)
        return call_invalid(f->call, "?after", "goes with order=latest only");
    if (cursor_open(f->app->cursor_key, s, CURSOR_NEWEST, f->scope, &newest, &e)) {
        metrics_add(f->app->metrics, M_CURSORS_REFUSED, 0, 1);
        return call_invalid_as(f->call, PROBLEM_INVALID_CURSOR, "?after", "%s", e.msg);
    }
    if (f->first) {
        f->cursor.after = newest.newest;
        f->cursor.after_freshness = newest.freshness;
        return 0;
    }
    bool same = f->cursor.after == newest.newest && f->cursor.after_freshness == newest.freshness;
    return same ? 0 : call_invalid(f->call, "?after", "is not the one of the cursor");
}

struct feed *feed_new(struct call *c, enum cursor_route route)
{
    struct feed *f = mem_zero(1, sizeof *f);
    c->data = f;
    c->data_free = feed_free;
    f->call = c;
    f->app = c->app;
    f->loop = c->loop;
    f->route = route;
    snprintf(f->scope, sizeof f->scope, "%s", c->params[0]);
    int bad = call_query_limit(c, &f->limit);
    bad |= read_fields(c, &f->fields);
    bad |= call_query_position(c, &f->position);
    bad |= read_cursor(f);
    if (!bad && route == CURSOR_FEED)
        bad = read_order(f) | read_profile(f) || read_after(f);
    if (bad) {
        call_finish(c);
        return NULL;
    }
    f->asked = ts_max(f->position, ts_max(f->cursor.freshness, f->cursor.after_freshness));
    return f;
}

/* ---- to a worker and back ---- */

struct errand {
    struct feed *f;
    void (*work)(struct worker *w, struct feed *f);
    void (*then)(struct feed *f);
};

static void errand_run(struct worker *w, void *arg)
{
    struct errand *x = arg;
    x->work(w, x->f);
}

static void errand_done(void *arg, bool expired)
{
    struct errand *x = arg;
    struct feed *f = x->f;
    void (*then)(struct feed * f) = x->then;
    free(x);
    if (expired)
        call_fail(f->call, PROBLEM_OVERLOADED, "the request's turn did not come in time");
    if (f->call->problem)
        call_finish(f->call);
    else
        then(f);
}

void feed_to_worker(struct feed *f, void (*work)(struct worker *w, struct feed *f),
                    void (*then)(struct feed *f))
{
    struct errand *x = mem_zero(1, sizeof *x);
    *x = (struct errand){f, work, then};
    struct err e;
    if (workers_submit(f->loop->workers, f->call->deadline, errand_run, errand_done, x, &e) == 0)
        return;
    free(x);
    call_fail(f->call, e.code == ERR_BUSY ? PROBLEM_OVERLOADED : PROBLEM_UNAVAILABLE, "%s", e.msg);
    call_finish(f->call);
}

void feed_send(struct feed *f)
{
    struct http_request *http = f->call->http;
    http_header_add(http, "Cache-Control", "private, no-cache");
    http_header_add(http, "Vary", "Authorization, Accept-Encoding");
    call_finish(f->call);
}

/* ---- the timeline ---- */

static void read_again(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct feed *f = arg;
    stop_waiting(f);
    feed_read_timeline(f);
}

/* Waits a little for fanout or the own tail to reach the position; false when it has waited enough. */
static bool wait_for_position(struct feed *f)
{
    int64_t wait = f->tries++ == 0 ? FIRST_WAIT_MS : LATER_WAIT_MS;
    if (clock_mono_us() - f->call->start_us + wait * 1000 > f->app->cfg.position_wait * 1000)
        return false;
    if (!f->timer)
        f->timer = event_new(f->loop->base, -1, 0, read_again, f);
    TAILQ_INSERT_TAIL(&f->loop->waiting, f, waiting);
    f->is_waiting = true;
    struct timeval t = {.tv_usec = (suseconds_t)(wait * 1000)};
    event_add(f->timer, &t);
    return true;
}

void feed_ignore_reply(const redisReply *reply, const struct err *e, void *arg)
{
    (void)reply;
    (void)e;
    (void)arg;
}

/* Not at each read, because a write costs more than a read; but often enough to tell who was read lately from
 * who was not, should Redis run out of memory. Nobody waits for it. */
static void refresh_expiry(struct feed *f)
{
    int64_t now_s = clock_wall_ms() / 1000, idle = f->app->cfg.timeline_idle;
    int64_t every_s = idle / 1000 / EXPIRY_PART;
    every_s = every_s < 1 ? 1 : every_s > EXPIRY_MOST_S ? EXPIRY_MOST_S : every_s;
    if (now_s - f->timeline.expiry_set_s < every_s)
        return;
    char ms[24], now[24];
    snprintf(ms, sizeof ms, "%lld", (long long)idle);
    snprintf(now, sizeof now, "%lld", (long long)now_s);
    /* The source, not its hash: this connection loads no scripts. */
    const struct redis_command touch = {
        7, {"EVAL", script_source(SCRIPT_TOUCH), "2", f->read.ids, f->read.meta, ms, now}};
    struct err e;
    if (redis_async_group(f->loop->redis, &touch, 1, FEED_REDIS_MS, feed_ignore_reply, NULL, &e) == 0)
        metrics_add(f->app->metrics, M_TOUCHES, 0, 1); /* else the next read tries again */
}

/* Pulled items are as new as the tail was before they were looked at. */
static void merge_pulled(struct feed *f)
{
    ts_t tail = tail_position(f->app->tail);
    f->pulls_missing = !pulled_merge(f->app->pulled, f->read.before, f->read.n, &f->timeline);
    f->ids_time = ts_min(f->ids_time, tail);
}

void feed_start_latest(struct feed *f)
{
    f->source = FEED_FROM_TIMELINE;
    f->ids_time = timeline_time(&f->timeline);
    f->pulls_missing = false;
    if (f->timeline.pulls)
        merge_pulled(f);
    mutes_done(&f->mutes);
    mutes_parse(f->timeline.mutes, &f->mutes);
    f->floor = f->timeline.floor;
    f->ids_to_floor = f->timeline.at_floor;
    f->used_timeline = true;
    feed_begin_page(f, f->limit, f->cursor.last);
    page_add_ids(&f->page, f->timeline.ids, f->timeline.n,
                 f->timeline.at_floor && f->floor <= f->cursor.after);
}

/* On the loop as far as caches go, which for most pages is all the way. */
void feed_answer(struct feed *f, void (*work)(struct worker *w, struct feed *f))
{
    void (*then)(struct feed * f) = f->then ? f->then : feed_send;
    ts_t tail = tail_position(f->app->tail);
    if (f->asked > tail || f->pulls_missing || !tail_alive(f->app->tail)) {
        feed_to_worker(f, work, then);
        return;
    }
    f->bodies_time = tail;
    if (!feed_fill_cached(f))
        feed_to_worker(f, work, then);
    else if (!f->gathering && !feed_write(f, false))
        feed_to_worker(f, feed_finish, then);
    else
        then(f);
}

static void from_elsewhere(struct feed *f, enum feed_source source, const char *reason)
{
    f->source = source;
    f->reason = reason;
    feed_to_worker(f, feed_work, f->then ? f->then : feed_send);
}

static void decide(struct feed *f)
{
    const struct tail *tail = f->app->tail;
    struct timeline_question q = {.asked = f->asked,
                                  .user_changed = tail_user_changed(tail, f->scope),
                                  .user_memory = tail_user_memory(tail)};
    enum timeline_verdict v = timeline_decide(&f->timeline, &q);
    if (v == TIMELINE_USABLE && f->asked > tail_position(tail))
        v = TIMELINE_BEHIND; /* the bodies would be */
    f->behind = v == TIMELINE_BEHIND;
    switch (v) {
    case TIMELINE_BEHIND:
        if (wait_for_position(f))
            return;
        if (timeline_time(&f->timeline) < f->asked) {
            from_elsewhere(f, FEED_FROM_REBUILD, NULL);
            return;
        }
        f->behind = false;
        break;
    case TIMELINE_ABSENT:
        from_elsewhere(f, FEED_FROM_REBUILD, NULL);
        return;
    case TIMELINE_NO_RECORD:
        from_elsewhere(f, FEED_FROM_STORE, "timelines are being set up: read from the store");
        return;
    case TIMELINE_USABLE:
        break;
    }
    if (f->tries)
        metrics_add(f->app->metrics, M_POSITION_WAITS, MPO_MET, 1);
    refresh_expiry(f);
    feed_start_latest(f);
    feed_answer(f, feed_work);
}

static void on_timeline(const redisReply *reply, const struct err *e, void *arg)
{
    static const char *const without = "timelines are unavailable: read from the store";
    struct feed *f = arg;
    struct err pe;
    timeline_done(&f->timeline);
    f->has_timeline = false;
    (void)e; /* counted by redis_async, told by its log */
    gate_spent(f->call->http, SPAN_REDIS, clock_mono_us() - f->redis_us);
    if (!reply) {
        from_elsewhere(f, FEED_FROM_STORE, without);
        return;
    }
    if (timeline_parse(reply, &f->read, &f->timeline, &pe) == 0) {
        f->has_timeline = true;
        decide(f);
        return;
    }
    log_event(LOG_WARN, "timeline_unreadable", LOG_S("request", f->call->http->id), LOG_ERR(&pe));
    from_elsewhere(f, pe.code == ERR_CORRUPT ? FEED_FROM_REBUILD : FEED_FROM_STORE,
                   pe.code == ERR_CORRUPT ? NULL : without);
}

void feed_read_timeline(struct feed *f)
{
    struct err e;
    timeline_read_init(&f->read, f->scope, f->cursor.last, f->limit + READ_SLACK);
    f->redis_us = clock_mono_us();
    if (redis_async_group(f->loop->redis, f->read.commands, TIMELINE_COMMANDS, FEED_REDIS_MS, on_timeline, f,
                          &e))
        on_timeline(NULL, &e, f);
}

/* ---- routes ---- */

static void handle_feed(struct call *c)
{
    struct feed *f = feed_new(c, CURSOR_FEED);
    if (!f)
        return;
    if (f->order == CURSOR_RANKED)
        feed_start_ranked(f);
    else if (f->cursor.chain[0])
        feed_go_on_latest(f);
    else
        feed_read_timeline(f);
}

static void handle_target(struct call *c, enum cursor_route route, enum target_kind kind)
{
    struct feed *f = feed_new(c, route);
    if (!f)
        return;
    follow_set_one(kind, f->scope, &f->follows);
    f->has_follows = true;
    from_elsewhere(f, FEED_FROM_STORE, NULL);
}

static void handle_publisher_items(struct call *c)
{
    handle_target(c, CURSOR_PUBLISHER_ITEMS, TARGET_PUBLISHER);
}

static void handle_topic_items(struct call *c)
{
    handle_target(c, CURSOR_TOPIC_ITEMS, TARGET_TOPIC);
}

const struct route routes_feed[] = {
    {"GET", "/v1/users/{u}/feed/count", feed_count, ACCESS_SERVICE | ACCESS_OWN, "after,position", NULL, 0,
     "countFeed"},
    {"GET", "/v1/users/{u}/feed", handle_feed, ACCESS_SERVICE | ACCESS_OWN,
     "limit,cursor,after,order,profile,fields,position", NULL, 0, "getFeed"},
    {"GET", "/v1/publishers/{p}/items", handle_publisher_items, ACCESS_ANY, "limit,cursor,fields,position",
     NULL, 0, "listPublisherItems"},
    {"GET", "/v1/topics/{t}/items", handle_topic_items, ACCESS_ANY, "limit,cursor,fields,position", NULL, 0,
     "listTopicItems"},
    {0},
};
