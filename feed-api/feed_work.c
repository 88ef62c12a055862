/* The part of a page that may block: which time it has to be read at, where its ids come from, MongoDB. */
#include "feed-api/feed.h"

#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "feed-api/app.h"

/* Kept back of the request's deadline, so that what was read can still be answered. */
#define ANSWER_MS 100

void feed_lost_db(struct feed *f, const struct err *e)
{
    if (f->db_down)
        return;
    f->db_down = true;
    if (!e) /* known to health.h, which has said so */
        return;
    enum metric_mongo kind = e->code == ERR_UNAVAILABLE ? MM_UNAVAILABLE
                             : e->code == ERR_TIMEOUT   ? MM_TIMEOUT
                                                        : MM_OTHER;
    metrics_add(f->app->metrics, M_MONGO_ERRORS, kind, 1);
    log_event(LOG_WARN, "page_read_failed", LOG_S("request", f->call->http->id), LOG_ERR(e));
}

/* What is known to be down is not waited for: that would take the whole deadline of every request. */
static bool database_is_down(struct worker *w)
{
    struct health_state h;
    health_get(w->app->health, HEALTH_MONGODB, &h);
    return !w->mongo || (h.served && !h.up);
}

static bool timeline_usable(const struct feed *f)
{
    return f->has_timeline && (f->source == FEED_FROM_TIMELINE || f->behind);
}

/* The present time, from MongoDB: for a position that this process has not come to yet (it may be no time at
 * all), and when the own tail is not known to have taken in what was answered a second ago (P5). */
static void ask_the_time(struct worker *w, struct feed *f, bool alive)
{
    struct err e;
    ts_t now;
    if (f->db_down)
        return;
    if (mongo_conn_fresh(w->mongo, &now, &e)) {
        feed_lost_db(f, &e);
        return;
    }
    if (f->position > now) {
        metrics_add(f->app->metrics, M_POSITION_WAITS, MPO_UNKNOWN, 1);
        call_invalid_as(f->call, PROBLEM_INVALID_POSITION, "?position",
                        "no write was ever answered with this one");
        return;
    }
    if (!alive)
        f->asked = ts_max(f->asked, now);
}

void feed_settle_time(struct worker *w, struct feed *f)
{
    ts_t tail = tail_position(f->app->tail);
    bool alive = tail_alive(f->app->tail);
    if (w->mongo) {
        int64_t left = f->call->deadline - clock_mono_ms() - ANSWER_MS;
        mongo_conn_deadline(w->mongo, left > 50 ? left : 50);
    }
    if (database_is_down(w))
        feed_lost_db(f, NULL);
    f->bypass = !alive || f->asked > tail;
    if (f->bypass) {
        metrics_add(f->app->metrics, M_PAGE_UNCACHED, 0, 1);
        ask_the_time(w, f, alive);
        if (f->call->problem)
            return;
    }
    f->bodies_time = f->bypass ? ts_max(f->asked, tail) : tail;
    if (f->db_down) {
        f->bypass = false;
        f->bodies_time = tail;
        f->partial = true;
        f->reason = "the database can't be reached: this is what was known before";
        return;
    }
    ts_t changed = f->route == CURSOR_FEED ? tail_user_changed(f->app->tail, f->scope) : 0;
    f->asked = ts_max(f->asked, changed);
    mongo_conn_after(w->mongo, ts_max(f->bodies_time, changed));
    if (timeline_usable(f))
        mongo_conn_after(w->mongo, timeline_time(&f->timeline));
}

/* The graph is now that of t, which is taken over. */
static void take_truth(struct feed *f, struct truth *t)
{
    mutes_done(&f->mutes);
    mutes_parse(t->mutes, &f->mutes);
    if (f->has_follows && !f->truth)
        follow_set_done(&f->follows);
    truth_unref(f->truth);
    f->truth = t;
    /* Borrowed: the truth lives as long. */
    f->follows = t->follows;
    f->has_follows = true;
}

static int from_rebuild(struct worker *w, struct feed *f, struct err *e)
{
    ts_t least = ts_max(f->asked, tail_position(f->app->tail));
    struct truth *t;
    if (rebuild_run(f->app->feed->rebuilds, w, f->scope, least, f->asked, &t, e))
        return -1;
    if (f->behind)
        metrics_add(f->app->metrics, M_POSITION_WAITS, MPO_REBUILT, 1);
    if (t->how == MRB_NO_REDIS)
        f->reason = "timelines are unavailable: read from the store";
    take_truth(f, t);
    f->ids_time = t->r;
    f->floor = t->floor;
    f->ids_to_floor = true;
    feed_begin_page(f, f->limit, f->cursor.last);
    page_add_ids(&f->page, t->ids, t->n, t->floor <= f->cursor.after);
    return 0;
}

int feed_load_reader(struct worker *w, struct feed *f, struct err *e)
{
    ts_t at = ts_max(f->asked, tail_position(f->app->tail));
    struct truth *t;
    if (truth_read(w->mongo, f->scope, at, 0, &t, e))
        return -1;
    take_truth(f, t);
    return 0;
}

static int from_store(struct worker *w, struct feed *f, struct err *e)
{
    if (f->route == CURSOR_FEED) {
        if (feed_load_reader(w, f, e))
            return -1;
        f->ids_time = f->truth->r;
    } else {
        f->ids_time = ts_max(f->asked, tail_position(f->app->tail));
        if (!f->ids_time && mongo_conn_fresh(w->mongo, &f->ids_time, e))
            return -1;
        mongo_conn_after(w->mongo, f->ids_time);
    }
    f->floor = ITEM_ID_MAX;
    f->ids_to_floor = true;
    feed_begin_page(f, f->limit, f->cursor.last);
    return 0;
}

/* Without MongoDB a timeline that is only behind what was asked is still better than nothing; one that is
 * absent may be so because the reader has just unfollowed somebody, and is not used. */
static void without_db(struct feed *f)
{
    if (!f->behind) {
        f->nothing = true;
        f->reason = "the database can't be reached";
        return;
    }
    feed_start_latest(f);
}

/* What other processes' tails know and this one's does not is in MongoDB: so is then the whole page. */
static void with_pulled(struct worker *w, struct feed *f)
{
    struct err e;
    if (f->bypass) {
        feed_drop_page(f);
        f->source = FEED_FROM_STORE;
        return;
    }
    if (!f->pulls_missing)
        return;
    if (!f->db_down && pulled_load(f->app->pulled, w->mongo, f->timeline.pulls, &e))
        feed_lost_db(f, &e);
    if (f->db_down) {
        f->partial = true;
        f->reason = "some of what is followed can't be read: the database can't be reached";
        return;
    }
    feed_drop_page(f);
    feed_start_latest(f);
    if (!f->pulls_missing)
        return;
    feed_drop_page(f);
    f->source = FEED_FROM_STORE;
}

static void begin(struct worker *w, struct feed *f)
{
    /* Made before a change of the reader that the tail has not told of: the present graph is read instead. */
    if (f->source == FEED_FROM_TIMELINE && !f->db_down && timeline_time(&f->timeline) < f->asked) {
        feed_drop_page(f);
        f->source = FEED_FROM_STORE;
    }
    if (f->source == FEED_FROM_TIMELINE && f->timeline.pulls)
        with_pulled(w, f);
    if (f->source == FEED_FROM_TIMELINE)
        return;
    struct err e;
    if (!f->db_down && (f->source == FEED_FROM_REBUILD ? from_rebuild(w, f, &e) : from_store(w, f, &e)))
        feed_lost_db(f, &e);
    if (f->db_down) {
        f->partial = true;
        without_db(f);
    }
}

/* Names without titles are no partial page. */
static void fetch_publishers(struct worker *w, struct feed *f)
{
    struct publisher_ask asks[FEED_TITLES_MAX];
    struct err e;
    size_t n = feed_titles(f, asks);
    if (publishers_find(f->app->feed->publishers, asks, n) && w->mongo && !f->db_down) {
        mongo_conn_after(w->mongo,
                         tail_position(f->app->tail)); /* or what the tail told of would be undone */
        if (publishers_fetch(f->app->feed->publishers, w->mongo, asks, n, &e))
            feed_lost_db(f, &e);
    }
    for (size_t i = 0; i < n; i++)
        publishers_unref(asks[i].title);
}

void feed_finish(struct worker *w, struct feed *f)
{
    fetch_publishers(w, f);
    feed_write(f, true);
}

void feed_work(struct worker *w, struct feed *f)
{
    feed_settle_time(w, f);
    if (f->call->problem)
        return;
    begin(w, f);
    if (!f->nothing)
        feed_fill_in_worker(f, w);
    if (!f->gathering)
        feed_finish(w, f);
}
