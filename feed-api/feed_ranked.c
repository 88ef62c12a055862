/* The ranked order: candidates are gathered by the code of the time order, so that what belongs to a feed is
 * said in one place; the ranker freezes them into a session in Redis, and the pages are read from there by
 * their place in it.
 *
 * A session expires; what was handed out is kept a day under the first session of the paging (the chain), so
 * that the session that follows goes on without it. Deleted, muted and unfollowed items leave at once: bodies
 * and the graph are those of now, the order alone is frozen. All on the loop's thread but session_work().
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/keys.h"
#include "common/mem.h"
#include "feed-api/app.h"
#include "feed-api/gate.h"
#include "feed-api/feed.h"
#include "feed-api/redis_async.h"

#define SERVED_DIGITS 16 /* an id in the string of what was served */
#define SERVED_MAX    100000
#define SERVED_TTL_S  "86400"
#define SESSION_CALLS (TIMELINE_COMMANDS + 2)
#define NOT_READ      "the ranked order can't be read now"

static void read_session(struct feed *f);

static void keys_served(const struct feed *f, char out[KEY_SIZE])
{
    char name[CURSOR_SESSION_SIZE + 8];
    snprintf(name, sizeof name, "%s.served", f->cursor.chain);
    keys_session(out, keys_bucket(f->scope), f->scope, name);
}

/* ---- when it can't be ranked ---- */

static void fall_back(struct feed *f, enum metric_ranked how, const char *why)
{
    metrics_add(f->app->metrics, M_RANKED, how, 1);
    feed_drop_page(f);
    if (f->gathering)
        f->limit = f->page_limit;
    f->gathering = false;
    f->then = NULL;
    f->order = CURSOR_LATEST;
    f->fallback = why;
    f->reason = NULL;
    f->cursor.last = ITEM_ID_MAX + 1;
    f->cursor.session[0] = '\0';
    feed_read_timeline(f);
}

/* Nothing can be said now; the same cursor goes on later. */
static void try_later(struct feed *f, const char *why)
{
    feed_drop_page(f);
    f->gathering = false;
    f->nothing = true;
    f->reason = why;
    feed_write(f, true);
    feed_send(f);
}

/* ---- a session's page ---- */

static void on_remembered(const redisReply *reply, const struct err *e, void *arg)
{
    (void)reply; /* if it was not kept, only a page after an expired session would miss it */
    (void)e;
    feed_send(arg);
}

/* The page is sent once it is kept what it shows: the next one may be asked of another process at once. */
static void send_session(struct feed *f)
{
    unsigned n = f->nothing ? 0 : f->page.n_last;
    if (n == 0 || f->cursor.served + n > SERVED_MAX) {
        feed_send(f);
        return;
    }
    char key[KEY_SIZE], offset[24], *text = mem_alloc(n * SERVED_DIGITS + 1);
    keys_served(f, key);
    snprintf(offset, sizeof offset, "%" PRIu64, (uint64_t)f->cursor.served * SERVED_DIGITS);
    for (unsigned i = 0; i < n; i++)
        snprintf(text + i * SERVED_DIGITS, SERVED_DIGITS + 1, "%016" PRIu64, f->page.ids[i]);
    const struct redis_command commands[] = {
        {4, {"SETRANGE", key, offset, text}},
        {3, {"EXPIRE", key, SERVED_TTL_S}},
    };
    struct err e;
    if (redis_async_group(f->loop->redis, commands, MEM_COUNT(commands), FEED_REDIS_MS, on_remembered, f, &e))
        feed_send(f);
    free(text);
}

static void session_work(struct worker *w, struct feed *f)
{
    feed_settle_time(w, f);
    if (f->call->problem)
        return;
    struct err e;
    if (!f->graph_known && !f->db_down && feed_load_reader(w, f, &e))
        feed_lost_db(f, &e);
    if (!f->graph_known && f->db_down) {
        feed_drop_page(f); /* a reader who has just unfollowed somebody must not see him */
        f->nothing = true;
        f->reason = NOT_READ;
    } else {
        feed_fill_in_worker(f, w);
    }
    feed_finish(w, f);
}

/* ids[0..n) are all from the cursor's place on. */
static void show_session(struct feed *f, const item_id *ids, size_t n)
{
    f->source = FEED_FROM_SESSION;
    f->then = send_session;
    feed_begin_page(f, f->limit, ITEM_ID_MAX + 1);
    f->page.any_order = true;
    page_add_ids(&f->page, ids, n, true);
    if (f->graph_known)
        feed_answer(f, session_work);
    else
        feed_to_worker(f, session_work, f->then);
}

/* The graph is unchanged since the session was made if a timeline as old as that still counts: any change
 * would have dropped it. */
static bool graph_unchanged(struct feed *f)
{
    const struct tail *tail = f->app->tail;
    struct timeline_question q = {.asked = f->asked,
                                  .user_changed = tail_user_changed(tail, f->scope),
                                  .user_memory = tail_user_memory(tail)};
    if (!f->has_timeline || timeline_decide(&f->timeline, &q) != TIMELINE_USABLE ||
        f->timeline.r > f->cursor.basis)
        return false;
    mutes_done(&f->mutes);
    mutes_parse(f->timeline.mutes, &f->mutes);
    return true;
}

static size_t read_ids(const redisReply *list, item_id *out)
{
    size_t n = 0;
    for (size_t i = 0; i < list->elements; i++) {
        const redisReply *m = list->element[i];
        if (m->type == REDIS_REPLY_STRING && ids_parse(m->str, &out[n], NULL) == 0)
            n++;
    }
    return n;
}

static void session_expired(struct feed *f);

static void on_session(const redisReply *reply, const struct err *e, void *arg)
{
    struct feed *f = arg;
    (void)e;
    const redisReply *list = reply ? reply->element[TIMELINE_COMMANDS] : NULL;
    const redisReply *card = reply ? reply->element[TIMELINE_COMMANDS + 1] : NULL;
    if (!reply || list->type != REDIS_REPLY_ARRAY || card->type != REDIS_REPLY_INTEGER) {
        if (f->graph_known) /* just made: nothing of it was shown yet */
            fall_back(f, MRK_UNAVAILABLE, "ranker_unavailable");
        else
            try_later(f, NOT_READ);
        return;
    }
    if (card->integer == 0) {
        session_expired(f);
        return;
    }
    timeline_done(&f->timeline);
    f->has_timeline = timeline_parse(reply, &f->read, &f->timeline, NULL) == 0;
    if (!f->graph_known) {
        f->graph_known = graph_unchanged(f);
        f->check_follows = !f->graph_known;
    }
    item_id *ids = mem_alloc((list->elements + 1) * sizeof *ids);
    show_session(f, ids, read_ids(list, ids));
    free(ids);
}

static void read_session(struct feed *f)
{
    char key[KEY_SIZE], place[16];
    struct err e;
    keys_session(key, keys_bucket(f->scope), f->scope, f->cursor.session);
    snprintf(place, sizeof place, "%" PRIu32, f->cursor.place);
    timeline_read_init(&f->read, f->scope, ITEM_ID_MAX + 1, 1);
    if (!f->ids_time) /* not just gathered: the order is as old as the paging */
        f->ids_time = f->cursor.freshness;
    struct redis_command commands[SESSION_CALLS];
    memcpy(commands, f->read.commands, sizeof f->read.commands);
    commands[TIMELINE_COMMANDS] = (struct redis_command){4, {"ZRANGE", key, place, "-1"}};
    commands[TIMELINE_COMMANDS + 1] = (struct redis_command){2, {"ZCARD", key}};
    if (redis_async_group(f->loop->redis, commands, SESSION_CALLS, FEED_REDIS_MS, on_session, f, &e))
        on_session(NULL, &e, f);
}

/* ---- a new session ---- */

static void take_session(struct feed *f, const char *id)
{
    snprintf(f->cursor.session, sizeof f->cursor.session, "%s", id);
    if (!f->cursor.chain[0])
        snprintf(f->cursor.chain, sizeof f->cursor.chain, "%s", id);
    f->cursor.place = 0;
    f->cursor.basis = f->truth ? f->truth->r : f->timeline.r;
    f->limit = f->page_limit;
    f->gathering = false;
    f->graph_known = true;
    f->behind = false;
    feed_drop_page(f);
    metrics_add(f->app->metrics, M_RANKED, MRK_RANKED, 1);
    read_session(f);
}

static void on_ranked(const struct http_response *r, const struct err *e, void *arg)
{
    struct feed *f = arg;
    int64_t us = clock_mono_us() - f->rank_us;
    metrics_observe_us(f->app->metrics, M_RANK_SECONDS, 0, us);
    gate_spent(f->call->http, SPAN_RANKER, us);
    if (!r) {
        if (e->code == ERR_TIMEOUT)
            fall_back(f, MRK_TIMEOUT, "ranker_timeout");
        else
            fall_back(f, MRK_UNAVAILABLE, "ranker_unavailable");
        return;
    }
    json_t *o = json_loadb(r->body, r->len, 0, NULL);
    const char *id = json_string_value(json_object_get(o, "session"));
    if (r->status == 503 || r->status == 429)
        fall_back(f, MRK_BUSY, "ranker_busy");
    else if (r->status != 200 || !id || !*id || strlen(id) + 8 >= CURSOR_SESSION_SIZE)
        fall_back(f, MRK_ERROR, "ranker_error");
    else
        take_session(f, id);
    json_decref(o);
}

static char *make_request(const struct feed *f)
{
    struct buf b;
    buf_init(&b, 64 * 1024);
    buf_add_str(&b, "{\"user\":");
    buf_add_json(&b, f->scope);
    buf_add_str(&b, ",\"profile\":\"default\",\"request_id\":");
    buf_add_json(&b, f->call->http->id);
    buf_printf(&b, ",\"deadline_ms\":%" PRId64 ",\"candidates\":[", f->app->cfg.rank_deadline);
    for (unsigned i = 0; i < f->page.n_shown; i++)
        buf_printf(&b, "%s\"%" PRIu64 "\"", i ? "," : "", f->page.shown[i].id);
    buf_add_str(&b, "]}");
    return buf_take(&b);
}

static void ask_ranker(struct feed *f)
{
    char *body = make_request(f), headers[160];
    struct err e;
    snprintf(headers, sizeof headers, "Content-Type: application/json\r\nX-Request-Id: %s\r\n",
             f->call->http->id);
    f->rank_us = clock_mono_us();
    int rc = http_client_request(f->loop->ranker, "POST", "/v1/sessions", headers, body, strlen(body),
                                 f->app->cfg.rank_deadline, on_ranked, f, &e);
    free(body);
    if (rc)
        fall_back(f, e.code == ERR_BUSY ? MRK_BUSY : MRK_UNAVAILABLE,
                  e.code == ERR_BUSY ? "ranker_busy" : "ranker_unavailable");
}

static void on_gathered(struct feed *f)
{
    if (f->nothing) {
        try_later(f, f->reason);
        return;
    }
    if (f->page.n_shown) {
        ask_ranker(f);
        return;
    }
    /* An empty feed in any order; or, after an expired session, everything was served. */
    f->gathering = false;
    f->then = NULL;
    f->limit = f->page_limit;
    f->page.more = false;
    feed_write(f, true);
    feed_send(f);
}

static void gather(struct feed *f)
{
    if (!f->loop->ranker) {
        fall_back(f, MRK_OFF, "ranker_off");
        return;
    }
    f->gathering = true;
    f->page_limit = f->limit;
    f->limit = (unsigned)f->app->cfg.rank_candidates;
    f->cursor.last = ITEM_ID_MAX + 1;
    f->then = on_gathered;
    feed_read_timeline(f);
}

/* ---- what was served already ---- */

static int by_id(const void *a, const void *b)
{
    item_id x = *(const item_id *)a, y = *(const item_id *)b;
    return x < y ? -1 : x > y;
}

static void parse_served(struct feed *f, const char *text, size_t len)
{
    size_t n = len / SERVED_DIGITS;
    if (n > f->cursor.served)
        n = f->cursor.served;
    f->served = mem_alloc((n + 1) * sizeof *f->served);
    for (size_t i = 0; i < n; i++) {
        char digits[SERVED_DIGITS + 1];
        memcpy(digits, text + i * SERVED_DIGITS, SERVED_DIGITS);
        digits[SERVED_DIGITS] = '\0';
        f->served[f->n_served++] = strtoull(digits, NULL, 10);
    }
    qsort(f->served, f->n_served, sizeof *f->served, by_id);
}

static void on_served(const redisReply *reply, const struct err *e, void *arg)
{
    struct feed *f = arg;
    (void)e;
    const redisReply *text = reply && reply->elements == 1 ? reply->element[0] : NULL;
    bool unread = !text || text->type == REDIS_REPLY_ERROR;
    if (unread && f->order == CURSOR_RANKED) {
        try_later(f, NOT_READ);
        return;
    }
    if (!unread && text->type == REDIS_REPLY_STRING)
        parse_served(f, text->str, text->len);
    if (f->order == CURSOR_RANKED)
        gather(f);
    else
        feed_read_timeline(f);
}

static void read_served(struct feed *f)
{
    char key[KEY_SIZE];
    struct err e;
    keys_served(f, key);
    const struct redis_command get = {2, {"GET", key}};
    if (redis_async_group(f->loop->redis, &get, 1, FEED_REDIS_MS, on_served, f, &e))
        on_served(NULL, &e, f);
}

static void session_expired(struct feed *f)
{
    if (f->graph_known) { /* expired between its making and its first page: Redis lost it */
        fall_back(f, MRK_ERROR, "ranker_error");
        return;
    }
    metrics_add(f->app->metrics, M_RANKED, MRK_EXPIRED, 1);
    read_served(f);
}

void feed_go_on_latest(struct feed *f)
{
    read_served(f);
}

void feed_start_ranked(struct feed *f)
{
    if (f->cursor.session[0])
        read_session(f);
    else if (f->cursor.chain[0])
        read_served(f);
    else
        gather(f);
}
