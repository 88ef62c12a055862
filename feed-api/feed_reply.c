/* The answer of a page: bodies spliced in as bytes, where to go on, how new it is and what is known to be
 * missing. */
#include "feed-api/feed.h"

#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/http_accept.h"
#include "feed-api/app.h"
#include "feed-api/page_tag.h"

#define RETRY_AFTER_MS 1000

/* So much is deflated for one page on the loop's thread, which takes a fraction of a millisecond; of what is
 * larger, one item. */
#define DEFLATE_BYTES (16 * 1024)

/* About what a page has besides its items: of each publisher, and of the rest. */
#define TITLE_BYTES 64
#define REST_BYTES  1024

/* `newest` stands this far below the page's freshness, in id time: what is published now has its id made a
 * little before it is on the log. */
#define NEWEST_BACK_MS 2000

ts_t feed_freshness(const struct feed *f)
{
    return f->nothing ? tail_position(f->app->tail) : ts_min(f->ids_time, f->bodies_time);
}

/* What a page could not show lies above it, so that `after` asks for that again. Otherwise it stands at the
 * first item: what is published late still comes above it. */
static item_id newest_of(const struct feed *f, ts_t freshness)
{
    if (!f->first)
        return f->cursor.newest;
    if (f->pulls_missing && f->partial)
        return f->cursor.after;
    int64_t ms = (int64_t)ts_seconds(freshness) * 1000 - NEWEST_BACK_MS;
    item_id bound = ids_make(ms > 0 ? ms : 0, 0);
    if (f->n_unread && f->unread <= bound)
        bound = f->unread - 1;
    if (f->order == CURSOR_LATEST && f->page.n_shown && f->page.shown[0].id < bound)
        return f->page.shown[0].id;
    return f->cursor.after && !f->page.n_shown && f->cursor.after < bound ? f->cursor.after : bound;
}

static void write_id(const struct content_entry *x, struct buf *out)
{
    buf_add_str(out, "{\"id\":\"");
    buf_add_u64(out, x->id);
    buf_add_str(out, "\",\"revision\":");
    buf_add_i64(out, x->revision);
    buf_add_char(out, '}');
}

/* A page on its way into gzip. */
struct zipping {
    struct gzip_page page;
    size_t budget;     /* so many bytes may still be deflated for it */
    unsigned n[MBL_N]; /* its items, by enum metric_block */
};

/* The deflated form of an item, made here when none was made before, as far as there is time. NULL: it goes
 * into the page as it is, and is deflated for one of the next pages. */
static const struct gzip_block *block_of(const struct feed *f, struct content_entry *x, size_t len,
                                         struct zipping *z)
{
    bool summary = f->fields == FEED_SUMMARY;
    const struct gzip_block *b = content_gzip(f->app->content, x, summary, false);
    z->n[b ? MBL_READY : z->budget ? MBL_MADE : MBL_LEFT]++;
    if (!b && z->budget) {
        b = content_gzip(f->app->content, x, summary, true);
        z->budget -= len < z->budget ? len : z->budget;
    }
    return b;
}

/* z NULL: plain. */
static void write_items(const struct feed *f, struct zipping *z, struct buf *out)
{
    buf_add_str(out, "{\"items\":[");
    for (unsigned i = 0; i < f->page.n_shown; i++) {
        struct content_entry *x = f->page.shown[i].body;
        const char *json = f->fields == FEED_FULL ? x->full : x->summary;
        size_t len = f->fields == FEED_FULL ? x->full_len : x->summary_len;
        const struct gzip_block *b = z ? block_of(f, x, len, z) : NULL;
        if (i)
            buf_add_char(out, ',');
        if (f->fields == FEED_IDS)
            write_id(x, out);
        else if (b)
            gzip_page_add(&z->page, b);
        else
            buf_add(out, json, len);
    }
    buf_add_char(out, ']');
}

static void write_publishers(const struct publisher_ask *asks, size_t n, struct buf *out)
{
    buf_add_str(out, ",\"publishers\":{");
    for (size_t i = 0; i < n; i++) {
        if (i)
            buf_add_char(out, ',');
        buf_add(out, asks[i].title->json, asks[i].title->len);
    }
    buf_add_char(out, '}');
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

static const char *page_reason(const struct feed *f)
{
    if (!f->reason && f->n_unread)
        return "some items can't be read now";
    return f->reason;
}

static const char *page_fallback(const struct feed *f)
{
    if (f->fallback)
        return f->fallback;
    return f->cursor.fallback[0] ? f->cursor.fallback : NULL;
}

static void write_state(const struct feed *f, ts_t freshness, struct buf *out)
{
    static const char *const names[] = {"complete", "partial", "rebuilding"};
    enum metric_page state = page_state(f);
    buf_printf(out, ",\"state\":\"%s\",\"reason\":", names[state]);
    buf_add_json(out, page_reason(f));
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
    buf_add_json(out, page_fallback(f));
}

/* ---- the ETag ---- */

/* What the page says, but for lag_ms and the freshness in `next` and `newest`. Without those a page keeps its
 * tag while nothing happens. Whoever is answered 304 goes on with the page that he has, which is as true as
 * the one he would have been sent: the items, and that nothing lies between them, are the same. Its `next`
 * names the same place and asks for pages as new as itself; its `newest` stands no higher than today's would,
 * so `after` may repeat an item but misses none. What those two hold besides the freshness is in the tag, and
 * so is `position`: who asks for one may rely on it in the pages that follow. */
static void tag_page(struct feed *f, const struct publisher_ask *asks, size_t n, bool gzip)
{
    struct page_tag t;
    page_tag_init(&t);
    page_tag_add(&t, f->route);
    page_tag_add_str(&t, f->scope);
    page_tag_add(&t, f->position);
    page_tag_add(&t, (uint64_t)f->fields << 32 | f->order << 16 | page_state(f) << 8 | f->page.more);
    page_tag_add_str(&t, page_reason(f));
    page_tag_add_str(&t, page_fallback(f));
    page_tag_add_str(&t, f->cursor.session);
    page_tag_add(&t, f->page.more ? f->page.last : 0);
    page_tag_add(&t, f->page.more ? f->page.n_last : 0);
    page_tag_add(&t, f->n_unread ? f->unread : 0);
    page_tag_add(&t, f->pulls_missing);
    page_tag_add(&t, gzip);
    for (unsigned i = 0; i < f->page.n_shown; i++) {
        const struct content_entry *x = f->page.shown[i].body;
        page_tag_add(&t, x->id);
        page_tag_add(&t, (uint64_t)x->revision);
    }
    for (size_t i = 0; i < n; i++)
        page_tag_add(&t, asks[i].title->mark);
    page_tag_write(&t, f->call->etag);
}

/* A page that could not be made has no tag: it is to be asked for again, whatever the client holds. */
static bool not_modified(struct feed *f, const struct publisher_ask *asks, size_t n, bool gzip)
{
    if (f->nothing)
        return false;
    tag_page(f, asks, n, gzip);
    if (!page_tag_matches(http_request_header(f->call->http, "If-None-Match"), f->call->etag))
        return false;
    f->call->status = 304;
    metrics_add(f->app->metrics, M_PAGES_NOT_MODIFIED, 0, 1);
    return true;
}

/* ---- the whole ---- */

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

size_t feed_titles(const struct feed *f, struct publisher_ask asks[FEED_TITLES_MAX])
{
    size_t n = 0;
    for (unsigned i = 0; i < f->page.n_shown && f->fields != FEED_IDS && n < FEED_TITLES_MAX; i++) {
        const struct content_entry *x = f->page.shown[i].body;
        size_t k = 0;
        while (k < n && (asks[k].hash != x->publisher_hash || strcmp(asks[k].name, x->publisher) != 0))
            k++;
        if (k == n)
            asks[n++] = (struct publisher_ask){.name = x->publisher, .hash = x->publisher_hash};
    }
    return n;
}

/* Where there are no bodies gzip would save nothing. */
static bool wants_gzip(const struct feed *f)
{
    return f->page.n_shown && f->fields != FEED_IDS &&
           http_accepts_gzip(http_request_header(f->call->http, "Accept-Encoding"));
}

static void write_page(struct feed *f, const struct publisher_ask *asks, size_t n, bool gzip, size_t budget)
{
    struct buf *out = &f->call->out;
    struct zipping z = {.budget = budget};
    ts_t freshness = feed_freshness(f);
    buf_reset(out);
    buf_expect(out, f->bytes + n * TITLE_BYTES + REST_BYTES);
    if (gzip)
        gzip_page_begin(&z.page, out);
    write_items(f, gzip ? &z : NULL, out);
    write_publishers(asks, n, out);
    write_next(f, freshness, out);
    write_state(f, freshness, out);
    buf_add_char(out, '}');
    if (!gzip)
        return;
    gzip_page_end(&z.page);
    for (size_t i = 0; i < MBL_N; i++)
        metrics_add(f->app->metrics, M_GZIP_BLOCKS, i, z.n[i]);
    f->call->content_encoding = "gzip";
    metrics_add(f->app->metrics, M_PAGES_GZIP, 0, 1);
}

bool feed_write(struct feed *f, bool must)
{
    struct publisher_ask asks[FEED_TITLES_MAX];
    size_t n = feed_titles(f, asks);
    bool known = publishers_find(f->app->feed->publishers, asks, n) == 0;
    for (size_t i = 0; i < n && must; i++) {
        if (!asks[i].title)
            asks[i].title = publishers_untitled(asks[i].name);
    }
    if (known || must) {
        bool gzip = wants_gzip(f);
        if (!not_modified(f, asks, n, gzip))
            write_page(f, asks, n, gzip, must ? SIZE_MAX : DEFLATE_BYTES);
        count_page(f);
    }
    for (size_t i = 0; i < n; i++)
        publishers_unref(asks[i].title);
    return known || must;
}
