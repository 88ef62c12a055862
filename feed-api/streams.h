/* streams.h - live streams of feeds: who listens, and what he is sent.
 *
 * How an event comes to a stream:
 *
 *     the tail --> stream_log: what happened, in order, for an hour
 *                   |
 *                   |  one thread (streams_feed.c) goes over it once, behind the tail: who listens
 * (stream_index), |  what is the item like now (content), who mutes it; one frame of bytes for all
 *                   v
 *                  live streams --> outlet of a loop --> sockets
 *                   ^
 *                   |  a few threads (streams_load.c) go over it for one stream, from where it stands up to
 * where |  the one thread is streams that begin, resume, or whose reader changed his follows or mutes
 *
 * A stream is live, or it has a place of its own in the log (`at`) and catches up. So nothing is lost or
 * doubled between reading the follows and listening: its place is fixed first, the follows are read then (as
 * new as any change of the reader that was told before), and the log itself is the buffer. When the log tells
 * that the reader has changed his follows or mutes, the stream stops where it is, reads them again, and goes
 * on from there.
 *
 * What is sent is the item as it is now, judged by the topics it had after the change and by the reader's
 * follows and mutes of now. So an `item` may already show a later revision, and what was deleted meanwhile is
 * not shown at all; its `delete` follows. Who is shown an item by his follows and mutes is sent it:
 * - `item` when it is new, or comes into his feed by a change of its topics;
 * - `edit` when it was there and still is;
 * - `delete` when it is deleted, or left his feed by a change of topics, or now holds a word he mutes. (What
 * words the former revision held is not known: an edit of an item that was hidden by a word before is told as
 * `edit` or `delete` too. So clients insert on an unknown `edit` and ignore an unknown `delete`.)
 *
 * What fails:
 * - the process, or its loop: the client comes back with the last id it got, to any process; each frame has
 * one, and the beat of a stream without events, so that a quiet hour costs nobody his place;
 * - MongoDB: streams stay open, beat, and go on when it is back;
 * - the log's memory was too short, or the tail lost its place: `reset`, and what comes after it;
 * - a client that does not take what it is sent: cut when more than --stream-unsent waits for it, or when
 * nothing moves for as long as http_server.h allows;
 * - a loop that does not come to it: the one thread waits when too much lies in the outlets, and the log
 * remembers;
 * - the credential: looked at again with each beat, and when the log tells that the key or the user has
 * changed.
 */
#ifndef FEEDMILL_STREAMS_H
#define FEEDMILL_STREAMS_H

#include <stdbool.h>
#include "common/changes.h"
#include "common/err.h"
#include "feed-api/stream_log.h"

struct app;
struct http_request;
struct loop;
struct streams;

/* streams_start() makes the threads; before the tail. streams_free() ends what is open; when no loop runs any
 * more and the tail has halted. NULL is a no-op for it, and for all below. */
int streams_start(struct streams **out, struct app *app, struct err *e) MUST_USE;
void streams_free(struct streams *ss);

/* ---- the tail tells; its thread ---- */

void streams_begin(struct streams *ss,
                   ts_t from); /* what was before is not told: all that is open is reset */
void streams_take(struct streams *ss, const struct change *c);
void streams_reached(struct streams *ss, ts_t t); /* everything at or before it was told */

/* ---- the loops ---- */

struct stream_question {
    const char *user;
    const char *credential; /* "Bearer ...": looked at again from time to time */
    bool resumes;           /* after last: its Last-Event-ID */
    struct stream_pos last;
};

/* streams_open() answers q->http by a stream and takes it over. ERR_BUSY: there are too many, or the process
 * is about to end; the request is as it was. On the thread of the loop. */
int streams_open(struct streams *ss, struct loop *loop, struct http_request *http,
                 const struct stream_question *q, struct err *e) MUST_USE;

/* streams_drain() ends all streams, with a hint when to come back, and takes no more. Any thread. */
void streams_drain(struct streams *ss);

#endif
