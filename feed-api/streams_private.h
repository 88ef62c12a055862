/* streams_private.h - what the files of the live streams share: streams.c (who is there), streams_out.c
 * (frames, and their way to the sockets, on the loops), streams_match.c (who is sent what), streams_feed.c
 * (the one thread for all that is live), streams_load.c (the threads that bring streams up to it). Nobody
 * else includes it.
 *
 * One lock for all but what is said to belong to a loop. It is held for moments; an item that many listen to
 * is the longest, some 50 ns for each of them.
 */
#ifndef FEEDMILL_STREAMS_PRIVATE_H
#define FEEDMILL_STREAMS_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>
#include "common/http_server.h"
#include "feed-api/app.h"
#include "feed-api/content.h"
#include "feed-api/loop.h"
#include "feed-api/mutes.h"
#include "feed-api/stream_index.h"
#include "feed-api/stream_log.h"
#include "feed-api/streams.h"

#define STREAM_LOADERS  3
#define STREAM_RETRY_MS 1000 /* how soon a client comes back, at least; and up to four times that */
#define STREAM_FETCH_MS 2000 /* for one read of MongoDB */
#define STREAM_LATER_MS 200  /* before a job that can't be done is tried again */

struct streams;

/* Bytes that many are sent. */
struct frame {
    atomic_uint refs;
    atomic_size_t *total; /* where they are counted */
    size_t len;
    char data[];
};

enum note_kind {
    NOTE_FRAME,
    NOTE_BEAT, /* a frame, and the credential is looked at */
    NOTE_MORE, /* what was caught up with so far was sent: the next part may come */
    NOTE_END,  /* a frame, and the stream ends */
    NOTE_CUT,
};

struct note {
    struct stream *stream; /* a reference */
    struct frame *frame;   /* a reference; NULL for MORE and CUT */
    enum note_kind kind;
};

/* What waits for one loop. */
struct outlet {
    struct streams *streams;
    struct loop *loop;
    int wake_fd;        /* an eventfd */
    struct note *notes; /* under the lock */
    size_t n, cap;
    /* the loop's own */
    struct event *wake, *go_on, *look;
    struct note *taken;
    size_t n_taken, done, taken_cap;
    struct stream **slow; /* references: they have more to come, and have not taken enough yet */
    size_t n_slow, slow_cap;
};

enum stream_state {
    STREAM_BEHIND, /* has a place of its own, and a job */
    STREAM_LIVE,
    STREAM_ENDED, /* nothing more is sent */
};

struct stream {
    uint32_t number; /* in the index */
    atomic_uint refs;
    struct streams *streams;
    struct outlet *outlet;
    char *credential;
    char *user;
    struct http_request *http; /* the loop's own; NULL: it is answered */

    enum stream_state state;
    bool has_job;           /* one of the loaders has it, or will */
    bool waits;             /* for its loop to have sent what it was given */
    bool resumes;           /* `sent` is a Last-Event-ID that nobody has looked at yet */
    bool key_changed;       /* whether it still is one is to be asked */
    bool graph_known;       /* what the index and mutes say of it */
    bool reset;             /* it is to be told so */
    bool greeted;           /* it was sent an id to begin with */
    ts_t changed;           /* the newest change of the reader that was told */
    uint64_t at;            /* behind: the next entry to look at */
    struct stream_pos sent; /* what is at or before it was sent, whoever did */
    int64_t due_ms;         /* of a job that has to wait */
    uint64_t born;          /* in the order of opening */
    int64_t beat_ms;        /* of the next beat */
    uint64_t mark;          /* the last entry that met it */
    unsigned met;           /* and how: MET_* */
    struct mutes mutes;     /* the job's while there is one, else under the lock */
    STAILQ_ENTRY(stream) job;
    TAILQ_ENTRY(stream) all; /* by beat_ms */
    struct stream *chain;    /* the next of its user's hash */
};

STAILQ_HEAD(stream_jobs, stream);

struct streams {
    struct app *app;
    pthread_mutex_t lock;
    pthread_cond_t more;  /* for the feeder: entries, streams, room */
    pthread_cond_t jobs_; /* for the loaders */
    struct stream_log *log;
    struct stream_index *index;
    uint64_t live;          /* the next entry for what is live */
    struct stream_pos done; /* what is at or before it was sent to what is live */
    ts_t reached;
    bool reads_back;  /* somebody reads the log from before it is remembered */
    ts_t unreachable; /* what is before it can't be had any more */
    TAILQ_HEAD(, stream) all;
    size_t n;
    struct stream **by_number; /* NULL: free */
    uint32_t numbers;
    struct stream **by_user;
    size_t n_users; /* chains, a power of two */
    uint64_t seed;
    struct stream_jobs jobs, later; /* later: by due_ms */
    struct outlet *outlets[LOOPS_MAX];
    size_t waiting; /* notes in all outlets */
    uint64_t opened;
    atomic_size_t frame_bytes;
    bool draining, stopping;
    pthread_t feeder, loaders[STREAM_LOADERS];
    unsigned n_threads; /* that run: the feeder, then the loaders */
};

/* streams.c; all with the lock */
void stream_ref(struct stream *s);
void stream_unref(struct stream *s); /* with or without the lock */
void stream_give_job(struct stream *s);
void stream_close(struct stream *s); /* nobody sends it anything from here on */
void stream_end(struct stream *s);   /* the same, with a hint when to come back */
void stream_fall_behind(struct stream *s);

/* streams_out.c */
struct frame *frame_new(struct streams *ss, const struct stream_pos *id, const char *event, const char *data,
                        size_t n); /* event NULL: a beat */
struct frame *frame_retry(struct streams *ss);
void frame_unref(struct frame *f);
void outlet_put(struct stream *s, enum note_kind kind,
                struct frame *f); /* with the lock; takes a reference */
struct outlet *outlet_of(struct streams *ss, struct loop *loop);
void outlet_free(struct outlet *o);
bool outlets_full(struct streams *ss); /* with the lock */
void stream_gone(struct http_request *r, void *arg);

/* streams_match.c */
enum { MET_BEFORE = 1, MET_NOW = 2 };

/* An entry on its way to those who are sent it. */
struct pick {
    uint64_t seq;
    struct stream_entry entry; /* a copy, with names of its own */
    struct stream_names names;
    bool fetch;                    /* its item is needed */
    struct content_entry *content; /* counted; NULL: not needed, or not there */
    struct frame *frames[3];       /* by enum stream_kind, once needed */
};
void pick_init(struct pick *p, uint64_t seq, const struct stream_entry *e);
void pick_done(struct pick *p);
int picks_fetch(struct streams *ss, struct pick *p, size_t n, struct err *e) MUST_USE; /* without the lock */
void pick_resolve(struct streams *ss, struct pick *p); /* with the lock: by what was fetched */

/* How the reader of a stream meets it who follows its publisher, or one of its present topics. (Who follows
 * one of its former ones: MET_BEFORE.) */
unsigned pick_met_publisher(const struct pick *p);
unsigned pick_met_topic(const struct pick *p);

/* pick_frame() answers what a reader with these mutes, who met it, is sent; NULL: nothing. Not counted. */
struct frame *pick_frame(struct streams *ss, struct pick *p, unsigned met, const struct mutes *m);

/* streams_back.c: with the lock, which is given up meanwhile. Has the log remembered from `from` on if it can
 * be, else it is before ss->unreachable. False: to be tried again later. */
bool streams_read_back(struct streams *ss, ts_t from);

/* streams_feed.c, streams_load.c: threads */
void *streams_feed_main(void *arg);
void *streams_load_main(void *arg);

#endif
