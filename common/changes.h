/* changes.h - the log: MongoDB's change stream, narrowed to what the processes need, in order.
 *
 * One struct changes is one tail, used by one thread, pull style. It resumes by itself after a lost
 * connection or a fail-over (resume token), so that no change is missed; a change may be told twice. When the
 * log no longer reaches back to where it has to go on, next answers ERR_LOG_LOST and the caller decides from
 * where to begin again.
 *
 * All changes of one transaction share their time t. "Everything up to t is known" (changes_complete()) holds
 * only once something later than t was read. So that this takes milliseconds and not the heartbeat's interval
 * on an idle system, next writes a heartbeat of its own when it is about to wait while the newest change is
 * not complete yet (at most one every 5 ms).
 */
#ifndef FEEDMILL_CHANGES_H
#define FEEDMILL_CHANGES_H

#include "common/ids.h"
#include "common/mongo.h"
#include "common/names.h"

enum change_kind {
    CHANGE_ITEM,      /* inserted, edited or deleted */
    CHANGE_USER,      /* follows or mutes of a user changed, or the user was erased */
    CHANGE_TARGET,    /* title, icon or mode of a publisher or topic (not mere follower counts) */
    CHANGE_API_KEY,   /* made, revoked */
    CHANGE_TOKEN_END, /* a user's tokens were ended */
    CHANGE_HEARTBEAT, /* time passes */
    CHANGE_OTHER,     /* something that moves time only */
};

#define CHANGE_TOPICS_MAX 16

/* How the items of a target come to its followers: fanout adds them to their timelines, or whoever reads a
 * timeline adds them. */
enum target_mode { MODE_NOT_TOLD, MODE_PUSH, MODE_PULL };

struct change {
    enum change_kind kind;
    ts_t t;              /* clusterTime */
    item_id item;        /* CHANGE_ITEM */
    int32_t revision;    /* CHANGE_ITEM: the revision that this change made; 0 when not told */
    bool deleted;        /* CHANGE_ITEM */
    bool inserted;       /* CHANGE_ITEM: it is new */
    bool topics_changed; /* CHANGE_ITEM: topics_before holds the former topics; also of a replay, as if they
                            had changed */
    unsigned n_topics_before;
    char topics_before[CHANGE_TOPICS_MAX][NAME_MAX_BYTES + 1];
    bool item_told; /* CHANGE_ITEM, inserted, with tell_items: publisher and topics are the item's as it was
                       inserted, live. Else whoever wants to know them reads the item. */
    char publisher[NAME_MAX_BYTES + 1]; /* "" when not told */
    bool topics_told; /* CHANGE_ITEM, topics_changed, with tell_items: `topics` are the present ones */
    unsigned n_topics;
    char topics[CHANGE_TOPICS_MAX][NAME_MAX_BYTES + 1];
    enum target_mode mode;            /* CHANGE_TARGET: its mode was set to this */
    char name[TARGET_TEXT_SIZE + 64]; /* CHANGE_USER: user; CHANGE_TARGET: "p:name"; CHANGE_API_KEY: key id;
                                         CHANGE_TOKEN_END: the user, hashed; CHANGE_HEARTBEAT: instance */
    int64_t at_ms;                    /* CHANGE_HEARTBEAT: the writer's wall clock; CHANGE_TOKEN_END: when */
    int64_t mono_ms;                  /* CHANGE_HEARTBEAT: the writer's monotonic clock when it sent it */
};

struct changes_options {
    struct mongo *mongo;  /* borrowed; the tail takes one client of it for its life */
    const char *instance; /* who writes heartbeats here; see proc_instance() */
    unsigned kinds;       /* bit mask of 1u << enum change_kind; heartbeats always come */
    ts_t start;           /* begin with changes at or after this time; 0: from now */
    bool tell_items; /* tell publisher and topics of new items, and topics that were changed; else the tail
                        stays narrow */
    int64_t wait_ms; /* how long next waits at most for something (1 to 1,000; default 100 for 0) */
};

struct changes;

/* changes_open() opens the stream; ERR_LOG_LOST when start is too old, ERR_UNAVAILABLE. */
int changes_open(struct changes **out, const struct changes_options *o, struct err *e) MUST_USE;
void changes_close(struct changes *c);

/* changes_next() answers 1 with *out filled, 0 when nothing came within wait_ms, -1 on an error:
 * ERR_UNAVAILABLE is retried by calling again (it backs off by itself, at most 1 s a call), ERR_LOG_LOST is
 * final for this tail. */
int changes_next(struct changes *c, struct change *out, struct err *e) MUST_USE;

/* changes_complete(): everything at or before this time has been handed out by changes_next() (and by then
 * handled, if the caller handles each before it asks for the next). */
ts_t changes_complete(const struct changes *c);

/* heartbeat: a thread of its own that updates {_id: instance} in `heartbeat` every 100 ms, so that time
 * passes on the log and every process can tell a silent tail from a quiet one. Documents of instances gone
 * for an hour are removed by a TTL index. */
struct heartbeat;
#define HEARTBEAT_INTERVAL_MS 100
int heartbeat_start(struct heartbeat **out, struct mongo *m, const char *instance, struct err *e) MUST_USE;
void heartbeat_stop(struct heartbeat *h);

/* heartbeat_send() writes one now (also used by changes_next()). */
int heartbeat_send(struct mongo_conn *c, const char *instance, struct err *e) MUST_USE;

#endif
