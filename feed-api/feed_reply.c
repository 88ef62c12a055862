/* The answer of a page: bodies spliced in as bytes, where to go on, how new it is and what is known to be
 * missing. */
#include "feed-api/feed.h"

#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "feed-api/app.h"

#define RETRY_AFTER_MS 1000

/* `newest` stands this far below the page's freshness, in id time: what is published now has its id made a
 * little before it is on the log. */
#define NEWEST_BACK_MS 2000

ts_t feed_freshness(const struct feed *f)
{
    return f->nothing ? tail_position(f->app->tail) : ts_min(f->ids_time, f->bodies_time);
}

static item_id newest_of(const struct feed *f, ts_t freshness)
{
    if (!f->first)
        return f->cursor.newest;
    int64_t ms = (int64_t)ts_seconds(freshness) * 1000 - NEWEST_BACK_MS;
    item_id bound = ids_make(ms > 0 ? ms : 0, 0);
    if (f->order == CURSOR_LATEST && f->page.n_shown && f->page.shown[0].id < bound)
        return f->page.shown[0].id;
    return bound;
}

static void write_item(const struct feed *f, const struct content_entry *x, struct buf *out)
{
    switch (f->fields) {
    case FEED_FULL:
        buf_add(out, x->full, x->full_len);
        return;
    case FEED_SUMMARY:
        buf_add(out, x->summary, x->summary_len);
        return;
    case FEED_IDS:
        buf_add_str(out, "{\"id\":\"");
        buf_add_u64(out, x->id);
        buf_add_str(out, "\",\"revision\":");
        buf_add_i64(out, x->revision);
        buf_add_char(out, '}');
        return;
    }
}

static void write_items(const struct feed *f, struct buf *out)
{
    buf_add_str(out, "{\"items\":[");
    for (unsigned i = 0; i < f->page.n_shown; i++) {
        if (i)
            buf_add_char(out, ',');
        write_item(f, f->page.shown[i].body, out);
    }
    buf_add_char(out, ']');
}

static bool named_before(const struct feed *f, unsigned i)
{
    const struct content_entry *x = f->page.shown[i].body;
    for (unsigned k = 0; k < i; k++) {
        if (strcmp(((const struct content_entry *)f->page.shown[k].body)->publisher, x->publisher) == 0)
            return true;
    }
    return false;
}

static bool write_publishers(const struct feed *f, bool must, struct buf *out)
{
    buf_add_str(out, ",\"publishers\":{");
    bool any = false;
    for (unsigned i = 0; i < f->page.n_shown && f->fields != FEED_IDS; i++) {
        const struct content_entry *x = f->page.shown[i].body;
        if (named_before(f, i))
            continue;
        if (any)
            buf_add_char(out, ',');
        any = true;
        buf_add_json(out, x->publisher);
        buf_add_char(out, ':');
        if (publishers_write(f->app->feed->publishers, x->publisher, out))
            continue;
        if (!must)
            return false;
        buf_add_str(out, "{\"title\":null,\"icon\":null}");
    }
    buf_add_char(out, '}');
    return true;
}

static void write_cursor(const struct feed *f, const struct cursor *c, struct buf *out)
{
    char text[CURSOR_TEXT_SIZE];
    cursor_seal(f->app->cursor_key, c, text);
    buf_add_char(out, '"');
    buf_add_str(out, text);
    buf_add_char(out, '"');
}

/* The next page starts from this page's cursor with the place moved on: what belongs to the first page stays.
 */
static struct cursor next_cursor(const struct feed *f, ts_t freshness)
{
    struct cursor c = f->cursor;
    c.route = f->route;
    c.order = f->order;
    snprintf(c.scope, sizeof c.scope, "%s", f->scope);
    if (f->fallback)
        snprintf(c.fallback, sizeof c.fallback, "%s", f->fallback);
    if (f->first)
        c.freshness = freshness;
    c.newest = newest_of(f, freshness);
    if (f->nothing) {
        c.freshness = ts_max(c.freshness, f->asked);
        return c;
    }
    if (f->order == CURSOR_RANKED) {
        c.place += f->page.n_last;
        c.served += f->page.n_last;
    } else {
        c.last = f->page.last;
    }
    return c;
}

static void write_next(const struct feed *f, ts_t freshness, struct buf *out)
{
    struct cursor next = next_cursor(f, freshness);
    buf_add_str(out, ",\"next\":");
    if (f->nothing || f->page.more) {
        write_cursor(f, &next, out);
    } else {
        buf_add_str(out, "null");
    }
    if (f->route != CURSOR_FEED)
        return;
    /* On later pages it is the first one's, to the letter. */
    struct cursor newest = {.route = CURSOR_NEWEST,
                            .freshness = f->first ? next.freshness : f->cursor.freshness,
                            .newest = next.newest};
    snprintf(newest.scope, sizeof newest.scope, "%s", f->scope);
    buf_add_str(out, ",\"newest\":");
    write_cursor(f, &newest, out);
}

static enum metric_page page_state(const struct feed *f)
{
    if (f->nothing)
        return MP_REBUILDING;
    return f->partial || f->n_unread ? MP_PARTIAL : MP_COMPLETE;
}

static void write_state(const struct feed *f, ts_t freshness, struct buf *out)
{
    static const char *const names[] = {"complete", "partial", "rebuilding"};
    enum metric_page state = page_state(f);
    buf_printf(out, ",\"state\":\"%s\",\"reason\":", names[state]);
    const char *reason = f->reason;
    if (!reason && f->n_unread)
        reason = "some items can't be read now";
    buf_add_json(out, reason);
    buf_printf(out, ",\"lag_ms\":%lld", (long long)tail_lag_ms(f->app->tail, freshness));
    if (state == MP_REBUILDING)
        buf_printf(out, ",\"retry_after_ms\":%d", RETRY_AFTER_MS);
    if (f->route != CURSOR_FEED)
        return;
    buf_printf(out, ",\"order\":\"%s\"", f->order == CURSOR_RANKED ? "ranked" : "latest");
    if (f->order == CURSOR_RANKED) {
        buf_add_str(out, ",\"session\":");
        buf_add_json(out, f->cursor.session[0] ? f->cursor.session : NULL);
    }
    buf_add_str(out, ",\"fallback\":");
    buf_add_json(out, f->fallback ? f->fallback : f->cursor.fallback[0] ? f->cursor.fallback : NULL);
}

static void count_page(const struct feed *f)
{
    struct metrics *m = f->app->metrics;
    enum metric_source source = f->used_store ? (f->used_timeline ? MSRC_BOTH : MSRC_STORE) : MSRC_TIMELINE;
    if (f->source == FEED_FROM_SESSION)
        source = MSRC_SESSION;
    metrics_add(m, M_PAGES, page_state(f), 1);
    metrics_add(m, M_PAGE_SOURCE, source, 1);
    metrics_add(m, M_PAGE_ITEMS, 0, f->page.n_shown);
}

bool feed_write(struct feed *f, bool must)
{
    struct buf *out = &f->call->out;
    ts_t freshness = feed_freshness(f);
    buf_reset(out);
    write_items(f, out);
    if (!write_publishers(f, must, out))
        return false;
    write_next(f, freshness, out);
    write_state(f, freshness, out);
    buf_add_char(out, '}');
    count_page(f);
    return true;
}
