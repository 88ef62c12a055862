/* The threads that bring streams up to what is live: what the reader follows and mutes, and what happened
 * since the place where the stream stands. A job is one part of that, so that streams take turns. */
#include "feed-api/streams_private.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "feed-api/follow_set.h"

#define PICKS_AT_ONCE 32
#define WALK_MOST     100         /* entries that are looked at one by one */
#define BYTES_AT_ONCE (32 * 1024) /* then the client has to take them first */
#define WAIT_MS       500

/* What became of a job. */
enum outcome {
    JOB_DONE,
    JOB_AGAIN, /* there is more to do, in its turn */
    JOB_LATER, /* something is not there yet */
};

/* ---- whether he may ---- */

static enum outcome check_key(struct streams *ss, struct stream *s)
{
    struct mongo_conn *conn;
    struct identity who = {0};
    enum auth_answer answer = AUTH_BAD;
    struct err e;
    s->key_changed = false;
    pthread_mutex_unlock(&ss->lock);
    int rc = mongo_conn_get(ss->app->mongo, &conn, &e);
    if (rc == 0) {
        mongo_conn_deadline(conn, STREAM_FETCH_MS);
        rc = auth_fetch(ss->app->auth, conn, s->credential, &answer, &who, &e);
        mongo_conn_put(conn);
    }
    identity_done(&who);
    pthread_mutex_lock(&ss->lock);
    if (rc < 0) {
        s->key_changed = true;
        return JOB_LATER;
    }
    if (answer != AUTH_OK)
        stream_end(s);
    return JOB_AGAIN;
}

/* ---- what the reader follows ---- */

struct graph {
    struct follow_set follows;
    char *mutes;
};

/* As new as `least`, or newer. */
static int read_graph(struct streams *ss, const char *user, ts_t least, struct graph *g, struct err *e)
{
    struct mongo_conn *conn;
    if (health_is_down(ss->app->health, HEALTH_MONGODB))
        return err_set(e, ERR_UNAVAILABLE, "MongoDB can't be reached");
    if (mongo_conn_get(ss->app->mongo, &conn, e) < 0)
        return -1;
    mongo_conn_deadline(conn, STREAM_FETCH_MS);
    mongo_conn_after(conn, least);
    int rc = follow_set_load(conn, user, &g->follows, e);
    if (rc == 0 && (rc = follow_set_mutes(conn, user, &g->mutes, e)) < 0)
        follow_set_done(&g->follows);
    mongo_conn_put(conn);
    return rc;
}

/* Told before this call, or after it: then `changed` says so. */
static enum outcome load_graph(struct streams *ss, struct stream *s)
{
    struct tail *tail = ss->app->tail;
    struct graph g = {.mutes = NULL};
    struct err e;
    ts_t least = ts_max(s->changed, ts_max(tail_position(tail), tail_user_changed(tail, s->user)));
    pthread_mutex_unlock(&ss->lock);
    int rc = read_graph(ss, s->user, least, &g, &e);
    pthread_mutex_lock(&ss->lock);
    if (rc < 0)
        return JOB_LATER;
    if (s->state != STREAM_ENDED && s->changed <= least) {
        stream_index_set(ss->index, s->number, &g.follows);
        mutes_done(&s->mutes);
        mutes_parse(g.mutes, &s->mutes);
        s->graph_known = true;
    }
    follow_set_done(&g.follows);
    free(g.mutes);
    return JOB_AGAIN;
}

/* ---- where it stands ---- */

/* An id that this tail has not come to may be of another process that is ahead, or of no time at all. */
static enum outcome check_ahead(struct streams *ss, struct stream *s)
{
    struct mongo_conn *conn;
    struct err e;
    ts_t now = 0;
    pthread_mutex_unlock(&ss->lock);
    int rc = mongo_conn_get(ss->app->mongo, &conn, &e);
    if (rc == 0) {
        mongo_conn_deadline(conn, STREAM_FETCH_MS);
        rc = mongo_conn_fresh(conn, &now, &e);
        mongo_conn_put(conn);
    }
    pthread_mutex_lock(&ss->lock);
    if (rc < 0)
        return JOB_LATER;
    s->reset = s->sent.t - 1 > now;
    s->at = ss->live;
    s->resumes = false;
    return JOB_AGAIN;
}

static bool too_old(const struct streams *ss, ts_t t)
{
    return ts_seconds(t) + (uint32_t)(ss->app->cfg.stream_keep / 1000) < ts_seconds(ss->reached);
}

static enum outcome find_place(struct streams *ss, struct stream *s)
{
    ts_t begins = stream_log_begins(ss->log);
    if (begins == UINT64_MAX || ss->reached == 0)
        return JOB_LATER; /* the tail has not begun */
    if (s->sent.t > ss->reached + 1)
        return check_ahead(ss, s);
    bool lost = s->sent.t < ss->unreachable || too_old(ss, s->sent.t);
    if (s->sent.t < begins && !lost)
        return !ss->reads_back && streams_read_back(ss, s->sent.t) ? JOB_AGAIN : JOB_LATER;
    uint64_t at = stream_log_after(ss->log, s->sent);
    s->reset = s->sent.t < begins;
    s->at = at < ss->live ? at : ss->live;
    s->resumes = false;
    return JOB_AGAIN;
}

static void put(struct stream *s, struct frame *f)
{
    outlet_put(s, NOTE_FRAME, f);
    frame_unref(f);
}

/* Everything from here on, and what was before has to be read otherwise. */
static void tell_reset(struct streams *ss, struct stream *s)
{
    s->reset = false;
    s->at = ss->live;
    s->sent = ss->done;
    s->greeted = true;
    metrics_add(ss->app->metrics, M_STREAM_RESETS, 0, 1);
    put(s, frame_new(ss, &s->sent, "reset", "{}", 2));
}

/* ---- catching up ---- */

static unsigned met_of(const struct streams *ss, const struct stream *s, const struct pick *p)
{
    const struct stream_names *names = &p->names;
    unsigned met = 0;
    if (stream_index_has(ss->index, s->number, TARGET_PUBLISHER, names->publisher))
        met |= pick_met_publisher(p);
    for (size_t i = 0; i < names->n_topics; i++) {
        if (stream_index_has(ss->index, s->number, TARGET_TOPIC, names->topics[i]))
            met |= pick_met_topic(p);
    }
    for (size_t i = 0; i < names->n_before; i++) {
        if (stream_index_has(ss->index, s->number, TARGET_TOPIC, names->before[i]))
            met |= MET_BEFORE;
    }
    return met;
}

static bool may_meet(const struct streams *ss, const struct stream *s, uint64_t seq,
                     const struct stream_entry *e)
{
    if (!stream_pos_before(s->sent, e->pos))
        return false;
    if (!e->resolved)
        return true;
    struct pick p = {.seq = seq, .entry = *e};
    stream_entry_names(e, &p.names);
    return met_of(ss, s, &p) != 0;
}

struct part {
    struct pick picks[PICKS_AT_ONCE];
    size_t n;
    uint64_t end; /* the entry behind the last one looked at */
};

/* Looks at every entry: for a short way. */
static void walk(const struct streams *ss, const struct stream *s, struct part *part)
{
    uint64_t seq = s->at;
    for (; seq < ss->live && part->n < PICKS_AT_ONCE; seq++) {
        const struct stream_entry *e = stream_log_at(ss->log, seq);
        if (may_meet(ss, s, seq, e))
            pick_init(&part->picks[part->n++], seq, e);
    }
    part->end = seq;
}

/* The first entries that name what the reader follows, or may do so. */
struct search {
    const struct streams *ss;
    const struct stream *stream;
    uint64_t found[PICKS_AT_ONCE]; /* ascending */
    size_t n;
};

static void find_naming(enum target_kind kind, const char *name, void *arg)
{
    struct search *x = arg;
    size_t n, k = 0;
    const uint64_t *seqs = stream_log_naming(x->ss->log, kind, name, x->stream->at, &n);
    for (size_t i = 0; i < n && seqs[i] < x->ss->live; i++) {
        while (k < x->n && x->found[k] < seqs[i])
            k++;
        if (k == PICKS_AT_ONCE)
            return;
        if (k < x->n && x->found[k] == seqs[i])
            continue;
        x->n -= x->n == PICKS_AT_ONCE;
        memmove(x->found + k + 1, x->found + k, (x->n - k) * sizeof *x->found);
        x->found[k] = seqs[i];
        x->n++;
    }
}

static void search(const struct streams *ss, const struct stream *s, struct part *part)
{
    struct search x = {.ss = ss, .stream = s};
    find_naming(TARGET_ITEM, "", &x);
    stream_index_each(ss->index, s->number, find_naming, &x);
    for (size_t i = 0; i < x.n; i++) {
        const struct stream_entry *e = stream_log_at(ss->log, x.found[i]);
        if (may_meet(ss, s, x.found[i], e))
            pick_init(&part->picks[part->n++], x.found[i], e);
    }
    part->end = x.n == PICKS_AT_ONCE ? x.found[x.n - 1] + 1 : ss->live;
}

static void choose(const struct streams *ss, const struct stream *s, struct part *part)
{
    part->n = 0;
    if (ss->live - s->at <= WALK_MOST + stream_index_count(ss->index, s->number))
        walk(ss, s, part);
    else
        search(ss, s, part);
}

/* Answers whether anything was sent. */
static bool send_part(struct streams *ss, struct stream *s, struct part *part)
{
    size_t bytes = 0;
    for (size_t i = 0; i < part->n; i++) {
        struct pick *p = &part->picks[i];
        if (bytes >= BYTES_AT_ONCE) {
            part->end = p->seq;
            break;
        }
        pick_resolve(ss, p);
        struct frame *f = pick_frame(ss, p, met_of(ss, s, p), &s->mutes);
        if (f == NULL)
            continue;
        outlet_put(s, NOTE_FRAME, f);
        bytes += f->len;
    }
    s->at = part->end;
    return bytes > 0;
}

static enum outcome settle(struct streams *ss, struct stream *s, bool sent)
{
    if (s->at >= ss->live) {
        s->state = STREAM_LIVE;
        return JOB_DONE;
    }
    if (!sent)
        return JOB_AGAIN;
    s->waits = true;
    outlet_put(s, NOTE_MORE, NULL);
    return JOB_DONE;
}

static enum outcome catch_up(struct streams *ss, struct stream *s)
{
    struct part part;
    struct err e;
    uint64_t start = s->at;
    int rc = 0;
    bool sent = false;
    choose(ss, s, &part);
    if (part.n > 0) {
        pthread_mutex_unlock(&ss->lock);
        rc = picks_fetch(ss, part.picks, part.n, &e);
        pthread_mutex_lock(&ss->lock);
    }
    /* Else the reader changed his mind meanwhile, or the log was begun anew. */
    bool as_it_was =
        s->state == STREAM_BEHIND && s->graph_known && !s->key_changed && !s->reset && s->at == start;
    if (rc == 0 && as_it_was)
        sent = send_part(ss, s, &part);
    for (size_t i = 0; i < part.n; i++)
        pick_done(&part.picks[i]);
    if (rc < 0)
        return JOB_LATER;
    return as_it_was ? settle(ss, s, sent) : JOB_AGAIN;
}

/* ---- jobs ---- */

/* With the lock, which may be given up meanwhile. */
static enum outcome work(struct streams *ss, struct stream *s)
{
    if (s->state != STREAM_BEHIND)
        return JOB_DONE;
    if (outlets_full(ss))
        return JOB_LATER;
    if (s->key_changed)
        return check_key(ss, s);
    if (!s->graph_known)
        return load_graph(ss, s);
    if (s->resumes)
        return find_place(ss, s);
    if (s->reset || s->at < stream_log_first(ss->log))
        tell_reset(ss, s);
    if (!s->greeted) {
        s->greeted = true;
        put(s, frame_new(ss, &s->sent, NULL, NULL, 0));
    }
    return catch_up(ss, s);
}

static void run_job(struct streams *ss, struct stream *s)
{
    enum outcome how = work(ss, s);
    if (how == JOB_DONE || s->state == STREAM_ENDED) {
        s->has_job = false;
        stream_unref(s);
    } else if (how == JOB_AGAIN) {
        STAILQ_INSERT_TAIL(&ss->jobs, s, job);
    } else {
        s->due_ms = clock_mono_ms() + STREAM_LATER_MS;
        STAILQ_INSERT_TAIL(&ss->later, s, job);
    }
}

/* Answers how long to wait for the next of those that have to. */
static int64_t take_due(struct streams *ss)
{
    int64_t now = clock_mono_ms();
    struct stream *s;
    while ((s = STAILQ_FIRST(&ss->later)) && s->due_ms <= now) {
        STAILQ_REMOVE_HEAD(&ss->later, job);
        STAILQ_INSERT_TAIL(&ss->jobs, s, job);
    }
    return s != NULL && s->due_ms - now < WAIT_MS ? s->due_ms - now : WAIT_MS;
}

void *streams_load_main(void *arg)
{
    struct streams *ss = arg;
    pthread_mutex_lock(&ss->lock);
    while (!ss->stopping) {
        int64_t wait = take_due(ss);
        struct stream *s = STAILQ_FIRST(&ss->jobs);
        if (s == NULL) {
            struct timespec until = clock_deadline_in(wait);
            pthread_cond_timedwait(&ss->jobs_, &ss->lock, &until);
            continue;
        }
        STAILQ_REMOVE_HEAD(&ss->jobs, job);
        run_job(ss, s);
    }
    pthread_mutex_unlock(&ss->lock);
    return NULL;
}
