/* How many items of a feed are newer than a point: GET /v1/users/{u}/feed/count. What counts is what a page
 * would show, so it is gathered by the very code of pages, as candidates for ranking are. Without `after` the
 * point is the reader's marker, which a worker reads first. */
#include "feed-api/app.h"
#include "feed-api/feed.h"
#include "feed-api/markers.h"

#define COUNT_MAX 100

static void answer(struct feed *f)
{
    struct call *c = f->call;
    if (f->nothing) {
        call_fail(c, PROBLEM_UNAVAILABLE, "%s", f->reason ? f->reason : "it can't be counted now");
        call_finish(c);
        return;
    }
    buf_printf(&c->out, "{\"count\":%u,\"more\":%s}", f->page.n_shown, f->page.more ? "true" : "false");
    feed_send(f);
}

static void read_marker(struct worker *w, struct call *c)
{
    struct feed *f = c->data;
    struct marker m;
    struct err e;
    if (mongo_conn_fresh(w->mongo, NULL, &e) != 0 || markers_find(w->mongo, f->scope, &m, &e) != 0)
        call_fail_err(c, &e);
    else
        f->cursor.after = m.id;
}

static void begin(struct call *c)
{
    if (c->problem)
        call_finish(c);
    else
        feed_read_timeline(c->data);
}

void feed_count(struct call *c)
{
    struct feed *f = feed_new(c, CURSOR_FEED);
    if (!f)
        return;
    f->limit = COUNT_MAX;
    f->gathering = true;
    f->then = answer;
    if (call_query(c, "after")) {
        feed_read_timeline(f);
        return;
    }
    c->needs_mongo = true; /* the marker is nowhere else */
    call_work_then(c, read_marker, begin);
}
