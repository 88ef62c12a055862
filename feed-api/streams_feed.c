/* The one thread for all streams that are live: it goes over the log once. */
#include "feed-api/streams_private.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"

#define ENTRIES_AT_ONCE 64
#define BEATS_AT_ONCE   500
#define WAIT_MS         500
#define FULL_WAIT_MS    10

struct feeder {
    struct streams *ss;
    struct pick picks[ENTRIES_AT_ONCE];
    size_t n;
    struct stream **met; /* by the entry at hand */
    size_t n_met, met_cap;
    bool down; /* the last read has failed */
};

static void wait_ms(struct streams *ss, int64_t ms)
{
    struct timespec until = clock_deadline_in(ms);
    pthread_cond_timedwait(&ss->more, &ss->lock, &until);
}

/* ---- beats ---- */

/* Once everything is sent, time alone moves the place of a stream. */
static void move_done(struct streams *ss)
{
    struct stream_pos p = {ss->reached + 1, 0};
    if (ss->live == stream_log_end(ss->log) && ss->reached != 0 && stream_pos_before(ss->done, p))
        ss->done = p;
}

/* Answers the time of the next one. */
static int64_t send_beats(struct streams *ss)
{
    int64_t now = clock_mono_ms();
    struct frame *plain = NULL, *live = NULL;
    struct stream *s;
    for (int i = 0; i < BEATS_AT_ONCE && (s = TAILQ_FIRST(&ss->all)) && s->beat_ms <= now; i++) {
        bool told = s->state == STREAM_LIVE && !stream_pos_before(ss->done, s->sent);
        struct frame **f = told ? &live : &plain;
        if (*f == NULL)
            *f = frame_new(ss, told ? &ss->done : NULL, NULL, NULL, 0);
        outlet_put(s, NOTE_BEAT, *f);
        TAILQ_REMOVE(&ss->all, s, all);
        s->beat_ms = now + ss->app->cfg.stream_heartbeat;
        TAILQ_INSERT_TAIL(&ss->all, s, all);
    }
    frame_unref(plain);
    frame_unref(live);
    s = TAILQ_FIRST(&ss->all);
    return s != NULL ? s->beat_ms : INT64_MAX;
}

/* ---- who listens ---- */

static bool anyone(const struct streams *ss, enum target_kind kind, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t listeners;
        stream_index_find(ss->index, kind, names[i], &listeners);
        if (listeners > 0)
            return true;
    }
    return false;
}

static bool is_wanted(const struct streams *ss, const struct stream_entry *e)
{
    struct stream_names names;
    if (stream_index_edges(ss->index) == 0)
        return false;
    if (!e->resolved)
        return true;
    stream_entry_names(e, &names);
    return anyone(ss, TARGET_PUBLISHER, &names.publisher, 1) ||
           anyone(ss, TARGET_TOPIC, names.topics, names.n_topics) ||
           anyone(ss, TARGET_TOPIC, names.before, names.n_before);
}

static void collect(struct feeder *f, const struct pick *p, enum target_kind kind, const char *name,
                    unsigned how)
{
    struct streams *ss = f->ss;
    size_t n;
    const uint32_t *numbers = stream_index_find(ss->index, kind, name, &n);
    if (f->n_met + n > f->met_cap) {
        f->met_cap = (f->n_met + n) * 2;
        f->met = mem_grow(f->met, f->met_cap, sizeof(struct stream *));
    }
    for (size_t i = 0; i < n; i++) {
        struct stream *s = ss->by_number[numbers[i]];
        if (s->mark == p->seq) {
            s->met |= how;
            continue;
        }
        s->mark = p->seq;
        s->met = how;
        f->met[f->n_met++] = s;
    }
}

static void send_pick(struct feeder *f, struct pick *p)
{
    struct streams *ss = f->ss;
    const struct stream_names *names = &p->names;
    f->n_met = 0;
    collect(f, p, TARGET_PUBLISHER, names->publisher, pick_met_publisher(p));
    for (size_t i = 0; i < names->n_topics; i++)
        collect(f, p, TARGET_TOPIC, names->topics[i], pick_met_topic(p));
    for (size_t i = 0; i < names->n_before; i++)
        collect(f, p, TARGET_TOPIC, names->before[i], MET_BEFORE);
    for (size_t i = 0; i < f->n_met; i++) {
        struct stream *s = f->met[i];
        if (s->state != STREAM_LIVE || !stream_pos_before(s->sent, p->entry.pos))
            continue;
        struct frame *frame = pick_frame(ss, p, s->met, &s->mutes);
        if (frame != NULL)
            outlet_put(s, NOTE_FRAME, frame);
    }
}

/* ---- the log ---- */

/* The memory was too short for this thread. */
static void reset_all(struct streams *ss)
{
    struct stream *s;
    ss->live = stream_log_end(ss->log);
    TAILQ_FOREACH(s, &ss->all, all)
    {
        if (s->state != STREAM_LIVE)
            continue;
        s->reset = true;
        stream_fall_behind(s);
    }
}

static uint64_t choose(struct feeder *f)
{
    struct streams *ss = f->ss;
    uint64_t seq = ss->live, end = stream_log_end(ss->log);
    f->n = 0;
    for (; seq < end && seq - ss->live < ENTRIES_AT_ONCE; seq++) {
        const struct stream_entry *e = stream_log_at(ss->log, seq);
        if (is_wanted(ss, e))
            pick_init(&f->picks[f->n++], seq, e);
    }
    return seq;
}

/* Who has become live since the entries were chosen may want one that nobody wanted: then its turn comes
 * again. */
static void send_up_to(struct feeder *f, uint64_t end)
{
    struct streams *ss = f->ss;
    size_t i = 0;
    for (uint64_t seq = ss->live; seq < end; seq++) {
        if (i < f->n && f->picks[i].seq == seq) {
            struct pick *p = &f->picks[i++];
            pick_resolve(ss, p);
            send_pick(f, p);
            ss->done = p->entry.pos;
        } else if (seq >= stream_log_first(ss->log)) {
            const struct stream_entry *e = stream_log_at(ss->log, seq);
            if (is_wanted(ss, e))
                return;
            ss->done = e->pos;
        }
        ss->live = seq + 1;
    }
}

static void note_trouble(struct feeder *f, int rc, const struct err *e)
{
    if (rc < 0 && !f->down)
        log_event(LOG_WARN, "streams_wait", LOG_ERR(e));
    else if (rc == 0 && f->down)
        log_event(LOG_INFO, "streams_go_on", LOG_X("position", f->ss->done.t));
    f->down = rc < 0;
}

/* With the lock, which is given up meanwhile. */
static void feed(struct feeder *f)
{
    struct streams *ss = f->ss;
    struct err e;
    if (ss->live < stream_log_first(ss->log))
        reset_all(ss);
    uint64_t start = ss->live, end = choose(f);
    int rc = 0;
    if (f->n > 0) {
        pthread_mutex_unlock(&ss->lock);
        rc = picks_fetch(ss, f->picks, f->n, &e);
        pthread_mutex_lock(&ss->lock);
        note_trouble(f, rc, &e);
    }
    if (rc == 0 && ss->live == start)
        send_up_to(f, end);
    for (size_t i = 0; i < f->n; i++)
        pick_done(&f->picks[i]);
    if (rc < 0 && !ss->stopping)
        wait_ms(ss, STREAM_LATER_MS);
}

void *streams_feed_main(void *arg)
{
    struct streams *ss = arg;
    struct feeder *f = mem_zero(1, sizeof *f);
    f->ss = ss;
    pthread_mutex_lock(&ss->lock);
    while (!ss->stopping) {
        move_done(ss);
        int64_t next = send_beats(ss) - clock_mono_ms();
        if (outlets_full(ss))
            wait_ms(ss, FULL_WAIT_MS);
        else if (ss->live < stream_log_end(ss->log))
            feed(f);
        else if (next > 0)
            wait_ms(ss, next < WAIT_MS ? next : WAIT_MS);
    }
    pthread_mutex_unlock(&ss->lock);
    free(f->met);
    free(f);
    return NULL;
}
