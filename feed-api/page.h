/* page.h - one page: from ids in order, cut, filtered and refilled. Pure: no I/O, no clock; one thread at a
 * time.
 *
 * A page is a little state machine that says what it needs next and is given it by its driver: the loop's
 * thread answers from caches, and hands the same page to a worker when that is not enough. Ids come newest
 * first from one source after the other (timeline, then store); bodies decide whether an id is shown. One
 * visible item more than the limit is looked for, so that the last page knows that it is the last.
 *
 *   for (;;) switch (page_next(&p)) {
 *       case PAGE_IDS:    get ids older than p.before_need, page_add_ids()      or page_stop()
 *       case PAGE_BODIES: for each of page_wanted(): page_decide()               or page_stop()
 *       case PAGE_DONE:   p.shown[0..n_shown), p.more, p.last
 *   }
 */
#ifndef FEEDMILL_PAGE_H
#define FEEDMILL_PAGE_H

#include <stdbool.h>
#include <stddef.h>
#include "common/ids.h"

#define PAGE_LIMIT_MAX 1000 /* shown items; the API's is 100, candidates for ranking are more */

enum page_need { PAGE_DONE, PAGE_IDS, PAGE_BODIES };

struct page_item {
    item_id id;
    void *body; /* the driver's */
};

struct page {
    /* the question */
    unsigned limit;
    unsigned scan_max; /* ids decided at most */
    item_id before;    /* only older ids; ITEM_ID_MAX + 1: from the newest on */
    item_id after;     /* only newer ids: with the first that is not, the page is at its end. 0: down to the
                          oldest */
    bool any_order;    /* ids come in an order of their own (ranked), and n_last counts instead of last */

    /* ids not decided yet: ids[at..n) */
    item_id *ids;
    size_t n, at, cap;
    bool exhausted; /* nothing older than these */
    item_id oldest; /* of what was added or known to be absent; `before` at first */

    /* the answer */
    struct page_item *shown; /* limit + 1 places */
    unsigned n_shown;        /* up to limit when done */
    unsigned n_decided;
    unsigned n_full;   /* so many were decided when the last place was taken */
    unsigned n_hidden; /* decided and not shown */
    unsigned rounds;   /* how often ids were asked for */
    bool more;         /* there is, or may be, something after `last` */
    unsigned n_last;   /* so many ids were decided up to `last` */
    item_id last;      /* where the next page goes on, when more */
    bool stopped, done;
    struct page_item spare; /* the visible item after the page: looked at, not shown (body NULL when none) */
};

/* page_init() begins a page of 1 to PAGE_LIMIT_MAX items. page_done() frees its arrays, not the bodies. */
void page_init(struct page *p, unsigned limit, unsigned scan_max, item_id before);
void page_done(struct page *p);

enum page_need page_next(struct page *p);

/* After PAGE_IDS: ids older than p->oldest, newest first, are to be added; page_room() is how many are worth
 * asking for. Ids that are not older than the one before (repeats, wrong order) are left out. end: nothing
 * older than the last of them exists. A source that has no more but is not the end of the feed adds none and
 * turns to the next source. */
void page_add_ids(struct page *p, const item_id *ids, size_t n, bool end);
size_t page_room(const struct page *p);

/* After PAGE_BODIES: page_wanted() answers the ids whose bodies decide next, *n at least 1. They are decided
 * in order. */
const item_id *page_wanted(const struct page *p, size_t *n);

/* page_decide() says of the first wanted id whether it is shown. A body that is not kept (hidden, or the page
 * is complete) is the driver's again: answers whether the page keeps it. */
bool page_decide(struct page *p, bool show, void *body);

/* page_stop() ends the page where it is: what is needed can't be had. It is short then, and `more` is set. */
void page_stop(struct page *p);

#endif
