/* engine_private.h - the inside of the engine, shared by engine.c (the rounds), engine_recover.c (shares,
 * epochs, where to read from) and engine_births.c (who has a timeline). */
#ifndef FEEDMILL_FANOUT_ENGINE_PRIVATE_H
#define FEEDMILL_FANOUT_ENGINE_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>
#include "fanout/apply.h"
#include "fanout/engine.h"
#include "fanout/log_reader.h"
#include "fanout/troubles.h"

/* Heartbeats read and not yet covered by progress. Ten a second and process: progress is never that far
 * behind without the oldest being overwritten, which only makes the lag look a little larger. */
#define PULSES 64

#define ENGINE_DROPS 1024 /* more than calls may be unanswered (--pipeline-calls) */

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

    /* the log */
    struct log_reader *log;
    ts_t tail_at; /* where it was opened, or what it handed out last */
    struct change in_hand;
    bool has_change; /* in_hand was handed out and is not a task yet */
    struct tasks *tasks;
    struct troubles *troubles; /* what could not be applied; engine_troubles.c */

    /* who has a timeline; engine_births.c */
    struct newborn {
        unsigned bucket;
        ts_t r;
        char user[NAME_MAX_BYTES + 1];
    } * newborns; /* not listed yet */
    size_t n_newborns, newborns_cap;
    struct newborn *drops; /* a ring of ENGINE_DROPS: those of known readers that are not answered yet */
    uint32_t next_drop;
    bool forget; /* what is known is not right any more */
    struct redis *scan_redis;
    bool scanning;
    char scan_cursor[24];
    int64_t scan_not_before_ms;

    /* progress */
    int64_t written_ms; /* monotonic */
    ts_t written;
    ts_t told_seen;  /* what the records were told to have seen */
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

/* engine_births.c: what scripts answer about timelines, as deliver.h's options want it. */
void engine_note_gone(void *arg, reader_idx who);
void engine_note_dropped(void *arg, uint32_t who, bool stays);
void engine_note_born(void *arg, unsigned bucket, ts_t r, const char *user);
void engine_note_births_lost(void *arg, unsigned bucket);

/* engine_drop_user() drops the timeline of a user whose follows or mutes changed: from now on he is on no
 * list. */
int engine_drop_user(struct engine *g, const struct change *c, struct err *e) MUST_USE;

/* engine_take_newborns() puts those noted on the lists that they belong to and gives them what they may have
 * been missed by. engine_scan_step() goes on with finding out who has a timeline, if that is not known.
 * engine_forget() is for when it is not known any more: tasks are begun again. */
int engine_take_newborns(struct engine *g, struct err *e) MUST_USE;
int engine_scan_step(struct engine *g, struct err *e) MUST_USE;
void engine_forget(struct engine *g);

/* engine_troubles.c: what can't be applied though all servers are there. engine_put_aside() takes the change
 * in hand, engine_rest_task() the task, whose error is e: 0, or -1 when a server is to be waited for.
 * engine_note_left_out() is for deliver.h's options. engine_note_call() counts a call that failed as a whole,
 * and says whether it has been tried often enough. engine_retry() tries what is due again, and gives up what
 * was tried often enough. */
int engine_put_aside(struct engine *g, struct err *e) MUST_USE;
int engine_rest_task(struct engine *g, struct task *k, struct err *e) MUST_USE;
void engine_note_left_out(void *arg, const struct deliver_failure *f);
bool engine_note_call(struct engine *g, const struct deliver_failure *f);
int engine_retry(struct engine *g, struct err *e) MUST_USE;

/* engine_start_anew() has the records of a share made anew at the next engine_sync_shares(): all timelines of
 * before count as absent. */
void engine_start_anew(struct engine *g, unsigned share);

/* engine_sync_shares() brings what is owned in line with what is held: adopts, adopts again what is stale,
 * drops what is lost, gives what is asked for; after an adoption the log is read from the least progress. */
int engine_sync_shares(struct engine *g, struct err *e) MUST_USE;

/* engine_open_tail() opens the log, if it is closed, where the least progress is. ERR_LOG_LOST. */
int engine_open_tail(struct engine *g, struct err *e) MUST_USE;
void engine_close_tail(struct engine *g);

/* engine_log_lost() has all records made anew at the next engine_sync_shares(). */
void engine_log_lost(struct engine *g, const struct err *e);

/* engine_write_progress() writes progress now, if there is any to write. */
int engine_write_progress(struct engine *g, struct err *e) MUST_USE;

void engine_publish_status(struct engine *g);

#endif
