/* log_reader.h - a thread that follows the log and puts its changes into a bounded queue, so that reading the
 * log and delivering run at the same time.
 *
 * When the queue is full the thread waits until it is half empty: the log itself is the buffer. It resumes by
 * itself after a lost connection (see changes.h); heartbeats that make the newest change complete are written
 * as there, by the thread. One thread calls log_reader_open(), log_reader_next() and log_reader_close().
 */
#ifndef FEEDMILL_FANOUT_LOG_READER_H
#define FEEDMILL_FANOUT_LOG_READER_H

#include "common/changes.h"

struct log_reader;

#define LOG_READER_CAP_MAX 65536

struct log_reader_options {
    struct mongo *mongo;  /* borrowed; the reader takes one client of it for its life */
    const char *instance; /* who writes heartbeats here; copied */
    unsigned kinds;       /* bit mask of 1u << enum change_kind; heartbeats always come */
    ts_t start;           /* begin with changes at or after this time; 0: from now */
    bool tell_items;      /* tell publisher and topics of new items */
    unsigned cap;         /* changes in the queue at most, 1 to LOG_READER_CAP_MAX (2.5 KB each) */
};

/* log_reader_open() opens the log, and only then starts the thread: ERR_LOG_LOST when start is too old,
 * ERR_UNAVAILABLE. The answer is freed by log_reader_close(). */
int log_reader_open(struct log_reader **out, const struct log_reader_options *o, struct err *e) MUST_USE;

/* log_reader_close() ends the thread and waits for it: what the tail waits for a change (100 ms), or a call
 * to mongod. What is still queued is dropped. NULL is fine. */
void log_reader_close(struct log_reader *r);

/* log_reader_next() answers 1 with *out filled (a copy), 0 when nothing came within wait_ms (0: it does not
 * wait), -1 when reading failed after everything handed out so far: ERR_LOG_LOST is final and told again by
 * each call; anything else is told once for an outage, however often the thread tries, and it goes on by
 * itself. *out is untouched unless 1 is answered. */
int log_reader_next(struct log_reader *r, struct change *out, int64_t wait_ms, struct err *e) MUST_USE;

/* log_reader_complete(): everything at or before this time has been handed out by log_reader_next(). Any
 * thread. */
ts_t log_reader_complete(struct log_reader *r);

/* log_reader_queued() answers how many changes wait in the queue. Any thread. */
unsigned log_reader_queued(struct log_reader *r);

/* log_reader_down() says whether the thread's last look at the log failed: nothing new comes at the moment,
 * and "nothing came" does not say that nothing happened. Any thread. */
bool log_reader_down(struct log_reader *r);

#endif
