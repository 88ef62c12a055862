/* Filling a page: ids from the timeline and the store, bodies from the cache and MongoDB, and what is not
 * shown. */
#include "feed-api/feed.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "feed-api/app.h"
#include "feed-api/store_ids.h"

#define BODIES_AT_ONCE 200

/* A page of the largest bodies, each character of them escaped, ends short rather than not at all. */
#define PAGE_BYTES_MAX (8 * 1024 * 1024)

void feed_begin_page(struct feed *f, unsigned limit, item_id before)
{
    unsigned scan_max = (unsigned)f->app->cfg.page_scan_max;
    page_init(&f->page, limit, scan_max, before);
    f->page.after = f->cursor.after;
    f->page_begun = true;
    f->bytes = 0;
}

void feed_drop_page(struct feed *f)
{
    if (!f->page_begun)
        return;
    for (unsigned i = 0; i < f->page.n_shown; i++)
        content_unref(f->page.shown[i].body);
    if (f->page.spare.body)
        content_unref(f->page.spare.body);
    page_done(&f->page);
    memset(&f->page, 0, sizeof f->page);
    f->page_begun = false;
}

/* ---- bodies ---- */

static int by_id(const void *a, const void *b)
{
    item_id x = *(const item_id *)a, y = *(const item_id *)b;
    return x < y ? -1 : x > y;
}

/* Why the item is not shown, or -1. */
static int why_hidden(const struct feed *f, struct content_entry *x)
{
    if (x->missing)
        return MSK_MISSING;
    if (x->deleted)
        return MSK_DELETED;
    if (f->n_served && bsearch(&x->id, f->served, f->n_served, sizeof x->id, by_id))
        return MSK_SERVED;
    if (f->check_follows && !follow_set_matches(&f->follows, x->publisher, x->topics, x->n_topics))
        return MSK_NOT_FOLLOWED;
    if (mutes_hide(&f->mutes, x))
        return MSK_MUTED;
    return -1;
}

/* Takes x over. */
static void decide(struct feed *f, struct content_entry *x)
{
    int hidden = why_hidden(f, x);
    if (hidden >= 0)
        metrics_add(f->app->metrics, M_PAGE_SKIPPED, (size_t)hidden, 1);
    if (!page_decide(&f->page, hidden < 0, x)) {
        content_unref(x);
        return;
    }
    if (f->gathering || f->fields == FEED_IDS)
        return;
    f->bytes += f->fields == FEED_FULL ? x->full_len : x->summary_len;
    if (f->bytes > PAGE_BYTES_MAX)
        page_stop(&f->page);
}

bool feed_fill_cached(struct feed *f)
{
    for (;;) {
        enum page_need need = page_next(&f->page);
        if (need == PAGE_DONE)
            return true;
        if (need == PAGE_IDS)
            return false;
        size_t n;
        struct content_entry *x = content_find(f->app->content, page_wanted(&f->page, &n)[0]);
        if (!x)
            return false;
        decide(f, x);
    }
}

/* MongoDB is gone: what the cache holds is shown, the rest is counted. */
static void bodies_without_db(struct feed *f)
{
    size_t n;
    struct content_entry *x = content_find(f->app->content, page_wanted(&f->page, &n)[0]);
    if (x) {
        decide(f, x);
        return;
    }
    f->n_unread++;
    f->unread = page_wanted(&f->page, &n)[0];
    page_decide(&f->page, false, NULL);
}

static void bodies(struct feed *f, struct worker *w)
{
    struct content_entry *entries[BODIES_AT_ONCE];
    struct err e;
    size_t n;
    const item_id *ids = page_wanted(&f->page, &n);
    if (n > BODIES_AT_ONCE)
        n = BODIES_AT_ONCE;
    if (content_fetch(f->app->content, w->mongo, ids, n, f->bypass, entries, &e)) {
        feed_lost_db(f, &e);
        return;
    }
    for (size_t i = 0; i < n; i++)
        decide(f, entries[i]);
}

/* ---- ids ---- */

static int load_follows(struct feed *f, struct worker *w, struct err *e)
{
    if (f->has_follows)
        return 0;
    if (follow_set_load(w->mongo, f->scope, &f->follows, e))
        return -1;
    f->has_follows = true;
    return 0;
}

static void older_ids(struct feed *f, struct worker *w)
{
    if (f->ids_to_floor && f->floor <= f->cursor.after) {
        page_add_ids(&f->page, NULL, 0, true);
        return;
    }
    item_id below = f->page.oldest;
    if (f->ids_to_floor && f->floor + 1 < below)
        below = f->floor + 1;
    size_t n = page_room(&f->page), got;
    item_id *ids = mem_alloc(n * sizeof *ids);
    struct err e;
    if (!f->db_down && (load_follows(f, w, &e) || store_ids(w->mongo, &f->follows, below, n, ids, &got, &e)))
        feed_lost_db(f, &e);
    if (f->db_down) {
        f->partial = true;
        f->reason = "older items can't be read: the database can't be reached";
        page_stop(&f->page);
    } else {
        f->used_store = true;
        page_add_ids(&f->page, ids, got, got < n);
    }
    free(ids);
}

void feed_fill_in_worker(struct feed *f, struct worker *w)
{
    for (;;) {
        switch (page_next(&f->page)) {
        case PAGE_DONE:
            if (f->page.rounds > 1)
                metrics_add(f->app->metrics, M_PAGE_REFILLS, 0, f->page.rounds - 1);
            return;
        case PAGE_IDS:
            older_ids(f, w);
            break;
        case PAGE_BODIES:
            if (f->db_down)
                bodies_without_db(f);
            else
                bodies(f, w);
            break;
        }
    }
}
