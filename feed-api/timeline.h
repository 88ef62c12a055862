/* timeline.h - a reader's timeline as read from Redis, and whether it may be used.
 *
 * One MULTI/EXEC reads the bucket's record, what belongs to the timeline, its floor and its ids from the
 * cursor on. Whether that counts is a pure decision over logical times; the rules are in timeline_decide().
 * Pure; any thread.
 */
#ifndef FEEDMILL_TIMELINE_H
#define FEEDMILL_TIMELINE_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include "common/err.h"
#include "common/ids.h"
#include "common/keys.h"
#include "common/ts.h"
#include "feed-api/redis_async.h"

#define TIMELINE_COMMANDS 4

/* The four commands of a read and the memory of their arguments. */
struct timeline_read {
    struct redis_command commands[TIMELINE_COMMANDS];
    char record[KEY_SIZE], meta[KEY_SIZE], ids[KEY_SIZE];
    char from[32], count[16];
    item_id before;
    unsigned n;
};

/* timeline_read_init() asks for the newest n ids (1 to 10,000) older than before (up to ITEM_ID_MAX + 1). r
 * must stay where it is. */
void timeline_read_init(struct timeline_read *r, const char *user, item_id before, unsigned n);

struct timeline {
    bool has_record;      /* the bucket has one */
    ts_t progress, born;  /* of the record */
    bool exists;          /* both keys, with R and a floor */
    bool ready;           /* not being built */
    ts_t r;               /* R */
    char *mutes;          /* owned text: targets by newlines; NULL or "" for none */
    char *pulls;          /* owned: the pull list, see scripts.h; NULL for none */
    int64_t expiry_set_s; /* wall seconds of the last EXPIRE */
    item_id floor;        /* 0: the feed ends here; else below it lies the store */
    item_id *ids;         /* owned; above the floor, newest first */
    size_t n;
    bool at_floor; /* nothing more lies between the last of ids and the floor */
};

/* timeline_parse() reads the reply of r's commands (what follows them in the reply is left alone).
 * ERR_UNAVAILABLE when one of them is an error, ERR_CORRUPT when something is not as it is written by us: the
 * caller then treats the timeline as absent. timeline_done() frees and zeroes. */
int timeline_parse(const redisReply *reply, const struct timeline_read *r, struct timeline *out,
                   struct err *e) MUST_USE;
void timeline_done(struct timeline *t);

struct timeline_question {
    ts_t asked;        /* the page has to be at least as new as this; 0: no matter */
    ts_t user_changed; /* the reader's newest change of follows and mutes known here; 0: none */
    ts_t user_memory;  /* changes of users at or after this time are known here */
};

enum timeline_verdict {
    TIMELINE_USABLE,
    TIMELINE_BEHIND,    /* it would be, but the bucket's progress has not reached the asked time yet */
    TIMELINE_ABSENT,    /* rebuild it */
    TIMELINE_NO_RECORD, /* and can't be rebuilt: the bucket has no owner yet */
};

enum timeline_verdict timeline_decide(const struct timeline *t, const struct timeline_question *q);

/* timeline_time() is the point on the log up to which everything is in t: the later of the bucket's progress
 * and R. */
ts_t timeline_time(const struct timeline *t);

#endif
