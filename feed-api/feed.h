/* feed.h - one request for a page of a feed, or of a publisher's or topic's items, on its way.
 *
 * It begins on the loop (handlers_feed.c), reads the timeline from Redis, and is answered there when that and
 * the caches suffice (feed_fill.c); else it goes on in a worker (feed_work.c), which reads MongoDB, and comes
 * back to be answered (feed_reply.c). The ranked order gathers candidates the same way and then pages through
 * the ranker's session (feed_ranked.c). Only one thread has it at a time.
 */
#ifndef FEEDMILL_FEED_H
#define FEEDMILL_FEED_H

#include <event2/event.h>
#include <stdbool.h>
#include <sys/queue.h>
#include "feed-api/call.h"
#include "feed-api/content.h"
#include "feed-api/cursor.h"
#include "feed-api/follow_set.h"
#include "feed-api/metrics.h"
#include "feed-api/mutes.h"
#include "feed-api/page.h"
#include "feed-api/publishers.h"
#include "feed-api/pulled.h"
#include "feed-api/rebuild.h"
#include "feed-api/timeline.h"

/* For one read of Redis; later than that the page comes from MongoDB. */
#define FEED_REDIS_MS 250

#define FEED_TITLES_MAX 100 /* publishers of one page: no more than items */

/* What the feed's handlers keep in the process (app->feed). */
struct feed;
struct feed_state {
    struct rebuilds *rebuilds;
    struct publishers *publishers;
};
struct feed_state *feed_state_new(void);
void feed_state_free(struct feed_state *s); /* when no page is in work any more */
void feed_end_waiting(struct loop *l); /* answers what waits for a position; its loop does not run any more */

enum feed_fields { FEED_FULL, FEED_SUMMARY, FEED_IDS };
enum feed_source {
    FEED_FROM_TIMELINE, /* ids above the floor from Redis, older ones from MongoDB */
    FEED_FROM_REBUILD,  /* the timeline is absent: make it, and the page from what was read for it */
    FEED_FROM_STORE,    /* from MongoDB alone */
    FEED_FROM_SESSION,  /* a frozen ranked order */
};

struct feed {
    struct call *call;
    struct app *app;
    struct loop *loop; /* the call's */

    /* the question */
    enum cursor_route route;
    char scope[NAME_MAX_BYTES + 1]; /* the reader, publisher or topic */
    unsigned limit;
    enum feed_fields fields;
    enum cursor_order order;
    bool first;           /* the first page: no cursor was given */
    struct cursor cursor; /* what was given, or what the next one starts from */
    ts_t position;        /* as given, may be one that never was */
    ts_t asked;           /* the page has to be at least as new as this */
    bool gathering;       /* candidates for ranking, not a page */

    /* the timeline */
    struct timeline_read read;
    struct timeline timeline;
    bool has_timeline;  /* `timeline` was read, whatever it is worth */
    bool behind;        /* it was not as new as asked */
    bool pulls_missing; /* something on its pull list is not in memory */
    enum feed_source source;
    unsigned tries;
    struct event *timer;
    TAILQ_ENTRY(feed) waiting;
    bool is_waiting;

    /* the page */
    struct page page;
    bool page_begun;
    size_t bytes;      /* of the bodies taken */
    item_id floor;     /* at or below it ids come from the store; ITEM_ID_MAX + 1: all do */
    bool ids_to_floor; /* the ids in memory reach down to it */
    struct mutes mutes;
    struct truth *truth;
    struct follow_set follows;
    bool has_follows;
    bool check_follows; /* ids may be of what is no longer followed */
    bool used_timeline, used_store;

    /* time */
    ts_t ids_time;    /* the ids are as of this time */
    ts_t bodies_time; /* so are the bodies */
    bool bypass;      /* the content cache is not known to be new enough */

    /* what went wrong */
    bool db_down;       /* MongoDB can't be reached */
    bool nothing;       /* nothing at all can be said by now: state rebuilding */
    unsigned n_unread;  /* bodies that can't be read */
    item_id unread;     /* the oldest of them */
    const char *reason; /* for people, static */
    bool partial;

    /* ranked */
    unsigned page_limit;  /* while gathering: what was asked for */
    bool graph_known;     /* mutes (and follows, if they are to be checked) are those of now */
    const char *fallback; /* static; why it is in time order although ranked was asked for */
    item_id *served;      /* owned, sorted: not to be shown again */
    size_t n_served;
    int64_t rank_us;  /* clock_mono_us() when the ranker was asked */
    int64_t redis_us; /* when Redis was asked for the timeline */

    void (*then)(struct feed *f); /* on the loop, when the page is there; NULL: feed_send() */
};

/* handlers_feed.c, on the loop */
struct feed *feed_new(struct call *c,
                      enum cursor_route route); /* reads the question; NULL: it is answered already */
void feed_read_timeline(struct feed *f);
void feed_to_worker(struct feed *f, void (*work)(struct worker *w, struct feed *f),
                    void (*then)(struct feed *f));
void feed_send(struct feed *f); /* answers and frees f */
void feed_start_latest(struct feed *f);
void feed_answer(struct feed *f, void (*work)(struct worker *w, struct feed *f));
void feed_ignore_reply(const redisReply *reply, const struct err *e, void *arg);

/* feed_fill.c */
void feed_begin_page(struct feed *f, unsigned limit, item_id before);
bool feed_fill_cached(struct feed *f); /* true: the page is complete; never blocks */
void feed_fill_in_worker(struct feed *f, struct worker *w);
void feed_drop_page(struct feed *f); /* back to before feed_begin_page() */

/* feed_work.c, in a worker */
void feed_work(struct worker *w, struct feed *f);
void feed_finish(struct worker *w, struct feed *f);      /* publishers' titles, and the answer is written */
void feed_settle_time(struct worker *w, struct feed *f); /* may set a problem as the answer */
void feed_lost_db(struct feed *f, const struct err *e);  /* e NULL: it was known before */
int feed_load_reader(struct worker *w, struct feed *f,
                     struct err *e) MUST_USE; /* follows and mutes from MongoDB */

/* feed_reply.c. feed_write() writes the answer, or sets 304; false when a publisher has to be fetched first
 * (never when it must). feed_titles() names the publishers that the page tells of, each once; their number.
 */
bool feed_write(struct feed *f, bool must);
size_t feed_titles(const struct feed *f, struct publisher_ask asks[FEED_TITLES_MAX]);
ts_t feed_freshness(const struct feed *f);

/* feed_count.c, on the loop */
void feed_count(struct call *c);

/* feed_ranked.c, on the loop */
void feed_start_ranked(struct feed *f);
void feed_go_on_latest(struct feed *f); /* time order after ranked pages: without what those showed */

#endif
