/* engine_private.h - the inside of the engine, shared by engine.c (the rounds) and engine_recover.c (shares,
 * epochs, where to read from). */
#ifndef FEEDMILL_FANOUT_ENGINE_PRIVATE_H
#define FEEDMILL_FANOUT_ENGINE_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>
#include "common/changes.h"
#include "fanout/apply.h"
#include "fanout/engine.h"

/* Heartbeats read and not yet covered by progress. Ten a second and process: progress is never that far
 * behind without the oldest being overwritten, which only makes the lag look a little larger. */
#define PULSES 64

struct engine {
    struct engine_options o;
    pthread_t thread;
    bool started;
    atomic_bool stop;
    atomic_llong stop_at_ms;
    void (*on_end)(void *arg);
    void *on_end_arg;

    struct mongo_conn *conn;
    struct redis *redis;
    struct buckets buckets;
    struct deliver *deliver;
    struct apply apply;
    bool prepared; /* the schema is there */

    /* shares */
    int64_t epoch[SHARES];       /* under which the share was adopted; 0: not adopted */
    int64_t least_epoch[SHARES]; /* a record holds this one: ours has to be later */
    bool stale[SHARES];          /* has to be adopted again, under a new epoch */
    bool reset[SHARES];          /* ... and its records made anew */
    uint64_t seen_version;       /* of the view that status was last told of */
    ts_t failed_at;              /* the change whose script got an error reply the last time */

    /* the log */
    struct changes *tail;
    ts_t tail_at; /* where it was opened, or what it handed out last */
    struct change in_hand;
    bool has_change;

    /* progress */
    int64_t written_ms; /* monotonic */
    ts_t written;
    ts_t applied_at; /* of the last change that was not a heartbeat */
    struct pulse {
        ts_t t;
        int64_t at_ms;
    } pulses[PULSES];
    unsigned first_pulse, n_pulses;
    int64_t heartbeat_at_ms;
    bool progressed;

    /* trouble */
    bool mongodb_lost, redis_lost;
    int64_t back_off_ms;

    pthread_mutex_t lock; /* guards status */
    struct engine_status status;
};

/* engine_prepare() takes a client of MongoDB; and once, before anything else: makes the schema, checks what
 * has to agree with others. */
int engine_prepare(struct engine *g, struct err *e) MUST_USE;

/* engine_sync_shares() brings what is owned in line with what is held: adopts, adopts again what is stale,
 * drops what is lost, gives what is asked for; closes the tail when it has to start further back. */
int engine_sync_shares(struct engine *g, struct err *e) MUST_USE;

/* engine_open_tail() opens the tail, if it is closed, where the least progress is. ERR_LOG_LOST. */
int engine_open_tail(struct engine *g, struct err *e) MUST_USE;
void engine_close_tail(struct engine *g);

/* engine_log_lost() has all records made anew at the next engine_sync_shares(). */
void engine_log_lost(struct engine *g, const struct err *e);

/* engine_write_progress() writes progress now, if there is any to write. */
int engine_write_progress(struct engine *g, struct err *e) MUST_USE;

void engine_publish_status(struct engine *g);

#endif
