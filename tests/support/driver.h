/* driver.h - random writes through the HTTP API, the model that follows the answers, and the comparison of
 * both.
 *
 * A driver has users, publishers and topics of its own (their names carry its seed), so one stack serves many
 * drivers, one after the other. A write is an op: made at random from the model's state, sent by whoever
 * wants to, and applied to the model once it was answered. An op that was perhaps done already (its answer
 * was lost) may be sent and applied again: applying says whether the answers agree with having been done
 * once.
 *
 * Main thread only; what does not agree with the model fails the test, with the seed and what was done last.
 */
#ifndef FEEDMILL_TESTS_DRIVER_H
#define FEEDMILL_TESTS_DRIVER_H

#include "tests/support/e2e.h"
#include "tests/support/model.h"

#define DRIVER_LINES_MAX 64
#define DRIVER_APIS_MAX  4
#define DRIVER_TRACE     40

struct driver {
    struct rng rng;
    uint64_t seed;
    char prefix[40]; /* of names */
    unsigned users, publishers, topics;
    char user_names[MODEL_USERS_MAX][64]; /* but the last, all lie in one bucket */
    struct model model;
    struct e2e_api *apis; /* the caller's */
    size_t n_apis;
    size_t writers; /* so many of them, from the first on, take writes; 1: reads there need no position */
    redisContext *redis; /* the caller's; may be NULL where nothing looks into Redis */
    ts_t position;       /* of the latest write that was acknowledged */
    ts_t delivered;      /* publishes and moves up to here are in every timeline: the last catching up */
    bool db_away;        /* MongoDB was away: pages may be partial for a while, until it is seen to be back */
    unsigned serial;     /* of titles and external ids */
    unsigned ops, publishes, revisions, moves, deletes, graph_changes, feeds,
        items_compared;        /* done so far */
    char *trace[DRIVER_TRACE]; /* the last ops, for a failure */
    unsigned traced;
};

void driver_init(struct driver *d, uint64_t seed, const char *label, struct e2e_api *apis, size_t n_apis,
                 redisContext *redis);
void driver_done(struct driver *d);

/* Names: of users as long as the driver lives, of the others in static buffers, a few calls long. */
const char *driver_user(const struct driver *d, unsigned i);
const char *driver_publisher(const struct driver *d, unsigned i);
const char *driver_topic(const struct driver *d, unsigned i);
const char *driver_word(unsigned i); /* a word that is muted, by the bit of its set */

/* driver_fail() prints the seed and the last ops, and fails the test. */
void driver_fail(struct driver *d, const char *fmt, ...) __attribute__((format(printf, 2, 3), noreturn));

/* ---- ops ---- */

enum op_kind {
    OP_PUBLISH,      /* a new item */
    OP_REPOST,       /* POST of a known external_id: unchanged or revised */
    OP_PATCH,        /* content or topics */
    OP_DELETE,       /* by id */
    OP_DELETE_NAMED, /* by external_id */
    OP_EDGE,         /* PUT or DELETE of one follow or mute */
    OP_CHANGE,       /* POST of follows or mutes {add, remove} */
    OP_FOLLOWS,      /* POST /v1/follows/bulk */
    OP_ITEMS,        /* POST /v1/items/bulk */
};

struct op {
    enum op_kind kind;
    char method[8];
    char path[300];
    char *extra;             /* header lines; NULL for none */
    char *body;              /* NULL for none */
    struct model_item after; /* of an item op: what the item is when it was done */
    bool changes;            /* it makes a revision */
    bool gone;               /* the item is deleted: to be refused */
    long same_as;            /* a line of OP_ITEMS that repeats an earlier one: its index; else -1 */
    struct model_edge edges[DRIVER_LINES_MAX];
    size_t n_edges;
    struct op *lines; /* of OP_ITEMS */
    size_t n_lines;
    int64_t sent_ms, published_ms; /* published_ms 0: not given */
    bool repeated;                 /* sent before, without an answer */
};

/* Which ops may be made. */
enum {
    DRIVER_GRAPH = 1, /* follows and mutes */
    DRIVER_NAMED = 2, /* publishes carry an external_id, so that all may be sent again */
    DRIVER_NO_BULK = 4,
};

void op_make(struct driver *d, unsigned flags, struct op *op);
void op_done(struct op *op);

/* op_conflicts() says whether the two touch the same item or the same user, so that their order would matter.
 */
bool op_conflicts(const struct op *a, const struct op *b);

/* op_apply() checks the answer and brings the model up to date. */
void op_apply(struct driver *d, struct op *op, const struct reply *r);

/* driver_step() makes an op, sends it to one of the apis, and applies the answer. */
void driver_step(struct driver *d, unsigned flags);
void driver_setup(struct driver *d,
                  unsigned items); /* a bulk of so many items and some follows for each user */

/* ---- comparisons ---- */

/* driver_check_feed() reads the whole feed with the last position and compares it with the model. */
void driver_check_feed(struct driver *d, unsigned user);

/* driver_check_delivered() waits until fanout has caught up, and reads without a position, at one api. */
void driver_check_delivered(struct driver *d, unsigned user);

/* driver_check_now() reads at once without a position, at the api where everything was written: publishes and
 * changes of topics since the last catching up may show or not, everything else has to be so already (P5). */
void driver_check_now(struct driver *d, unsigned user, struct e2e_api *api);

/* driver_check_range() compares what was read of a feed just now between two ids (older than before, down to
 * from; 0: to the end) with the model: exactly, or as driver_check_now() does. */
void driver_check_range(struct driver *d, unsigned user, const struct e2e_seen *seen, size_t n,
                        item_id before, item_id from, bool exactly, const char *what);

/* driver_check_rest() compares a publisher's page, a topic's page, a few items and the lists of follows and
 * mutes. */
void driver_check_rest(struct driver *d);
void driver_check_targets(
    struct driver *d); /* all items of all publishers and topics: nothing is there twice */

void driver_check_all_feeds(struct driver *d);
void driver_catch_up(struct driver *d); /* waits until all users' buckets have the last position */

#endif
