/* stream_log.h - what the log told of items lately, in its order, for streams: a bounded memory that knows
 * where it begins.
 *
 * An entry is one change of one item. Its place is a position: the change's time t and its number k among the
 * changes of items of that time, from 1 on (those of one transaction share t). Every process reads the same
 * log, so a position means the same at all of them. (t, 0) means "everything before t".
 *
 * Entries are also numbered without gaps by their sequence, which means something in this process only. Pure;
 * one thread at a time (streams.c holds a lock).
 */
#ifndef FEEDMILL_STREAM_LOG_H
#define FEEDMILL_STREAM_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/changes.h"
#include "common/err.h"
#include "common/ts.h"

struct stream_pos {
    ts_t t;
    uint32_t k;
};

#define STREAM_POS_SIZE 28 /* 16 digits, '-', up to 10 digits, NUL */

void stream_pos_format(struct stream_pos p, char out[STREAM_POS_SIZE]);

/* stream_pos_parse() takes what stream_pos_format() wrote. ERR_INVALID. */
int stream_pos_parse(const char *s, struct stream_pos *out, struct err *e) MUST_USE;

static inline bool stream_pos_before(struct stream_pos a, struct stream_pos b)
{
    return a.t != b.t ? a.t < b.t : a.k < b.k;
}

enum stream_kind { STREAM_ITEM, STREAM_EDIT, STREAM_DELETE };

struct stream_entry {
    struct stream_pos pos;
    item_id id;
    int32_t revision;
    enum stream_kind kind;
    bool resolved;       /* publisher and topics are known */
    bool topics_known;   /* the present topics are (publisher may not be) */
    bool topics_changed; /* STREAM_EDIT: `before` are the former ones. STREAM_DELETE has only `before`. */
    uint8_t n_topics, n_before;
    uint16_t names_len;
    char *names; /* publisher, topics, topics before, each with its NUL; owned by the log */
};

/* The names of an entry, pointing into it. */
struct stream_names {
    const char *publisher; /* "" when not known */
    const char *topics[CHANGE_TOPICS_MAX], *before[CHANGE_TOPICS_MAX];
    size_t n_topics, n_before;
};
void stream_entry_names(const struct stream_entry *e, struct stream_names *out);

struct stream_log;

/* max_bytes: of memory; keep_s: an entry older than that, by the log's time, goes. Begins nowhere (at the end
 * of time) until stream_log_begin(). */
struct stream_log *stream_log_new(size_t max_bytes, uint32_t keep_s);
void stream_log_free(struct stream_log *l); /* NULL is a no-op */

/* stream_log_begin() forgets everything; what is told from here on is all that happens at or after `from`. */
void stream_log_begin(struct stream_log *l, ts_t from);

/* stream_log_add() takes in a change and forgets what is too old or too much. False: it is no change of an
 * item that a reader could see, or one that is known already. */
bool stream_log_add(struct stream_log *l, const struct change *c);

/* stream_log_expire() forgets what is too old at t. */
void stream_log_expire(struct stream_log *l, ts_t t);

/* stream_log_join() puts what `older` holds from before l begins in front of it, up to what l has room for,
 * and takes over its beginning; false: it does not reach up to where l begins (`upto` is how far older was
 * read, everything before it is in there). older is empty afterwards. */
bool stream_log_join(struct stream_log *l, struct stream_log *older, ts_t upto);

uint64_t stream_log_first(const struct stream_log *l); /* the sequence of the oldest entry */
uint64_t stream_log_end(const struct stream_log *l);   /* of the next one to come */
ts_t stream_log_begins(const struct stream_log *l);    /* changes at or after this time are remembered */
size_t stream_log_bytes(const struct stream_log *l);

/* stream_log_at() answers an entry that is there (first <= seq < end); it lives until the next call that adds
 * or forgets. */
const struct stream_entry *stream_log_at(const struct stream_log *l, uint64_t seq);

/* stream_log_after() answers the sequence of the first entry behind p. */
uint64_t stream_log_after(const struct stream_log *l, struct stream_pos p);

/* stream_log_naming() answers the sequences of the entries from seq on that name a publisher or topic, as it
 * is or was, ascending, and how many; kind TARGET_ITEM: of those that are not resolved, name is "". They live
 * as entries do.
 */
const uint64_t *stream_log_naming(const struct stream_log *l, enum target_kind kind, const char *name,
                                  uint64_t seq, size_t *n);

/* stream_log_resolve() completes an entry by what its item is known to be; it may be gone by now. topics
 * count where the change did not tell them. */
void stream_log_resolve(struct stream_log *l, uint64_t seq, const char *publisher, const char *const *topics,
                        size_t n_topics);

#endif
