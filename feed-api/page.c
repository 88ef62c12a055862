#include "feed-api/page.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

/* Asked for beyond what is missing: a hidden item then costs no further round. */
#define PAGE_SLACK 8

void page_init(struct page *p, unsigned limit, unsigned scan_max, item_id before)
{
    assert(limit >= 1 && limit <= PAGE_LIMIT_MAX);
    memset(p, 0, sizeof *p);
    p->limit = limit;
    p->scan_max = scan_max > limit ? scan_max : limit + 1;
    p->before = before;
    p->oldest = before;
    p->last = before;
    p->shown = mem_alloc((limit + 1) * sizeof *p->shown);
}

void page_done(struct page *p)
{
    free(p->ids);
    free(p->shown);
    p->ids = NULL;
    p->shown = NULL;
}

static bool is_over(const struct page *p)
{
    return p->done || p->stopped || p->n_shown > p->limit || (p->at == p->n && p->exhausted) ||
           p->n_decided >= p->scan_max;
}

/* Where the next page goes on: after the last item shown, so that what is hidden now and comes back is not
 * lost; but after the last id looked at when the page ended for another reason than being full, or it would
 * look at the same ones for ever. */
static void finish(struct page *p)
{
    if (p->done)
        return;
    p->done = true;
    if (p->n_shown > p->limit) {
        p->n_shown = p->limit;
        p->spare = p->shown[p->limit];
        p->last = p->shown[p->limit - 1].id;
        p->n_last = p->n_full;
        p->more = true;
        return;
    }
    p->n_last = p->n_decided;
    p->more = !(p->at == p->n && p->exhausted);
}

enum page_need page_next(struct page *p)
{
    if (is_over(p)) {
        finish(p);
        return PAGE_DONE;
    }
    if (p->at < p->n)
        return PAGE_BODIES;
    p->rounds++;
    return PAGE_IDS;
}

size_t page_room(const struct page *p)
{
    size_t missing = p->limit + 1 - p->n_shown + PAGE_SLACK;
    size_t left = p->scan_max - p->n_decided;
    return missing < left ? missing : left;
}

void page_add_ids(struct page *p, const item_id *ids, size_t n, bool end)
{
    if (p->at == p->n)
        p->at = p->n = 0;
    if (p->n + n > p->cap) {
        p->cap = p->n + n;
        p->ids = mem_grow(p->ids, p->cap, sizeof *p->ids);
    }
    for (size_t i = 0; i < n; i++) {
        if (!p->any_order && ids[i] >= p->oldest)
            continue;
        if (ids[i] <= p->after) {
            end = true;
            break;
        }
        p->ids[p->n++] = ids[i];
        p->oldest = ids[i];
    }
    if (end)
        p->exhausted = true;
}

const item_id *page_wanted(const struct page *p, size_t *n)
{
    size_t have = p->n - p->at, room = page_room(p);
    *n = have < room ? have : room;
    return p->ids + p->at;
}

bool page_decide(struct page *p, bool show, void *body)
{
    assert(p->at < p->n);
    item_id id = p->ids[p->at];
    if (is_over(p))
        return false;
    p->at++;
    p->n_decided++;
    p->last = id;
    if (!show) {
        p->n_hidden++;
        return false;
    }
    p->shown[p->n_shown++] = (struct page_item){id, body};
    if (p->n_shown == p->limit)
        p->n_full = p->n_decided;
    return true;
}

void page_stop(struct page *p)
{
    p->stopped = true;
}
