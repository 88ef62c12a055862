/* Who is there: streams opened and closed, users, and what the tail tells. */
#include "feed-api/streams_private.h"
#include "feed-api/token_ends.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/ids.h"
#include "common/log.h"
#include "common/mem.h"

#define USER_CHAINS 4096

/* ---- references and numbers ---- */

void stream_ref(struct stream *s)
{
    atomic_fetch_add(&s->refs, 1);
}

void stream_unref(struct stream *s)
{
    if (atomic_fetch_sub(&s->refs, 1) > 1)
        return;
    mutes_done(&s->mutes);
    free(s->credential);
    free(s->user);
    free(s);
}

static uint32_t free_number(struct streams *ss)
{
    for (uint32_t i = 0; i < ss->numbers; i++) {
        uint32_t at = (uint32_t)(ss->n + i) % ss->numbers; /* most often that one is free */
        if (ss->by_number[at] == NULL)
            return at;
    }
    uint32_t old = ss->numbers;
    ss->numbers = old ? old * 2 : 64;
    ss->by_number = mem_grow(ss->by_number, ss->numbers, sizeof(struct stream *));
    memset(ss->by_number + old, 0, (ss->numbers - old) * sizeof(struct stream *));
    return old;
}

/* ---- users ---- */

/* FNV-1a, begun at a random place. */
static struct stream **chain_of(const struct streams *ss, const char *user)
{
    uint64_t h = UINT64_C(14695981039346656037) ^ ss->seed;
    for (; *user != '\0'; user++)
        h = (h ^ (unsigned char)*user) * UINT64_C(1099511628211);
    return &ss->by_user[(h ^ h >> 32) & (ss->n_users - 1)];
}

static void grow_users(struct streams *ss)
{
    struct stream *s;
    free(ss->by_user);
    ss->n_users *= 2;
    ss->by_user = mem_zero(ss->n_users, sizeof(struct stream *));
    TAILQ_FOREACH(s, &ss->all, all)
    {
        struct stream **chain = chain_of(ss, s->user);
        s->chain = *chain;
        *chain = s;
    }
}

/* ---- one stream ---- */

void stream_give_job(struct stream *s)
{
    struct streams *ss = s->streams;
    if (s->has_job || s->waits || s->state == STREAM_ENDED)
        return;
    s->has_job = true;
    stream_ref(s);
    STAILQ_INSERT_TAIL(&ss->jobs, s, job);
    pthread_cond_signal(&ss->jobs_);
}

/* From here on it has a place of its own: where what is live stands. */
void stream_fall_behind(struct stream *s)
{
    if (s->state == STREAM_LIVE) {
        s->state = STREAM_BEHIND;
        s->at = s->streams->live;
    }
    stream_give_job(s);
}

void stream_close(struct stream *s)
{
    struct streams *ss = s->streams;
    if (s->state == STREAM_ENDED)
        return;
    s->state = STREAM_ENDED;
    stream_index_drop(ss->index, s->number);
    ss->by_number[s->number] = NULL;
    TAILQ_REMOVE(&ss->all, s, all);
    struct stream **at = chain_of(ss, s->user);
    while (*at != s)
        at = &(*at)->chain;
    *at = s->chain;
    ss->n--;
    metrics_set(ss->app->metrics, M_STREAMS, 0, (int64_t)ss->n);
    stream_unref(s);
}

/* With a hint when to come back. */
void stream_end(struct stream *s)
{
    if (s->state == STREAM_ENDED)
        return;
    struct frame *f = frame_retry(s->streams);
    outlet_put(s, NOTE_END, f);
    frame_unref(f);
    stream_close(s);
}

/* A phone that lost its network leaves streams behind that nobody reads: the oldest makes room. */
static void limit_user(struct streams *ss, const char *user)
{
    struct stream *oldest = NULL;
    int64_t n = 0;
    for (struct stream *s = *chain_of(ss, user); s != NULL; s = s->chain) {
        if (strcmp(s->user, user) != 0)
            continue;
        n++;
        if (oldest == NULL || s->born < oldest->born)
            oldest = s;
    }
    if (n >= ss->app->cfg.streams_per_user)
        stream_end(oldest);
}

static struct stream *add_stream(struct streams *ss, struct loop *loop, const struct stream_question *q)
{
    struct stream *s = mem_zero(1, sizeof *s);
    atomic_init(&s->refs, 1); /* of being there */
    s->streams = ss;
    s->outlet = outlet_of(ss, loop);
    s->user = mem_strdup(q->user);
    s->credential = mem_strdup(q->credential);
    s->number = free_number(ss);
    s->born = ss->opened++;
    s->state = STREAM_BEHIND;
    s->at = ss->live;
    s->resumes = q->resumes;
    s->sent = q->resumes ? q->last : ss->done;
    s->beat_ms = clock_mono_ms() + ss->app->cfg.stream_heartbeat;
    ss->by_number[s->number] = s;
    TAILQ_INSERT_TAIL(&ss->all, s, all);
    struct stream **chain = chain_of(ss, s->user);
    s->chain = *chain;
    *chain = s;
    if (++ss->n > ss->n_users)
        grow_users(ss);
    metrics_set(ss->app->metrics, M_STREAMS, 0, (int64_t)ss->n);
    return s;
}

int streams_open(struct streams *ss, struct loop *loop, struct http_request *http,
                 const struct stream_question *q, struct err *e)
{
    pthread_mutex_lock(&ss->lock);
    if (ss->draining || ss->n >= (size_t)ss->app->cfg.max_streams) {
        bool draining = ss->draining;
        pthread_mutex_unlock(&ss->lock);
        return err_set(e, ERR_BUSY, draining ? "the service is stopping" : "there are too many streams");
    }
    limit_user(ss, q->user);
    struct stream *s = add_stream(ss, loop, q);
    s->http = http;
    stream_ref(s); /* the request's */
    pthread_mutex_unlock(&ss->lock);
    /* Not with the lock: the client may be gone, and that is told at once. */
    http_request_on_abort(http, stream_gone, s);
    http_header_add(http, "Cache-Control", "no-store");
    http_header_add(http, "X-Accel-Buffering", "no"); /* nginx would hold events back */
    http_stream_start(http, 200, "text/event-stream");
    pthread_mutex_lock(&ss->lock);
    struct frame *f = frame_retry(ss);
    outlet_put(s, NOTE_FRAME, f);
    frame_unref(f);
    stream_give_job(s);
    pthread_cond_signal(&ss->more);
    pthread_mutex_unlock(&ss->lock);
    return 0;
}

/* ---- the tail ---- */

void streams_begin(struct streams *ss, ts_t from)
{
    if (ss == NULL)
        return;
    struct stream *s;
    pthread_mutex_lock(&ss->lock);
    stream_log_begin(ss->log, from);
    ss->live = stream_log_end(ss->log);
    ss->done = (struct stream_pos){from, 0};
    ss->reached = 0;
    ss->unreachable = 0;
    TAILQ_FOREACH(s, &ss->all, all)
    {
        if (s->resumes)
            continue; /* it will see for itself */
        s->reset |= s->sent.t != 0;
        s->sent = ss->done;
        stream_fall_behind(s);
        s->at = ss->live;
    }
    pthread_mutex_unlock(&ss->lock);
}

/* Whether the reader still may is asked where his streams are sent. The log tells a hash of his name. */
static void check_user(struct streams *ss, const char *ended)
{
    struct stream *s;
    struct frame *f = frame_new(ss, NULL, NULL, NULL, 0);
    TAILQ_FOREACH(s, &ss->all, all)
    {
        char id[TOKEN_ENDS_ID_SIZE];
        token_ends_id(s->user, id);
        if (strcmp(id, ended) == 0)
            outlet_put(s, NOTE_BEAT, f);
    }
    frame_unref(f);
}

static void user_changed(struct streams *ss, const char *user, ts_t t)
{
    for (struct stream *s = *chain_of(ss, user); s != NULL; s = s->chain) {
        if (strcmp(s->user, user) != 0)
            continue;
        s->changed = ts_max(s->changed, t);
        s->graph_known = false;
        stream_fall_behind(s);
    }
}

/* Keys change seldom. Nothing more is sent before the key was read again. */
static void key_changed(struct streams *ss, const char *id)
{
    struct stream *s;
    char *begin = mem_printf("Bearer fm_%s_", id);
    TAILQ_FOREACH(s, &ss->all, all)
    {
        if (strncasecmp(s->credential, begin, strlen(begin)) != 0)
            continue;
        s->key_changed = true;
        stream_fall_behind(s);
    }
    free(begin);
}

void streams_take(struct streams *ss, const struct change *c)
{
    if (ss == NULL)
        return;
    pthread_mutex_lock(&ss->lock);
    if (c->kind == CHANGE_ITEM && stream_log_add(ss->log, c))
        pthread_cond_signal(&ss->more);
    else if (c->kind == CHANGE_USER)
        user_changed(ss, c->name, c->t);
    else if (c->kind == CHANGE_API_KEY)
        key_changed(ss, c->name);
    else if (c->kind == CHANGE_TOKEN_END)
        check_user(ss, c->name);
    metrics_set(ss->app->metrics, M_STREAM_LOG_BYTES, 0, (int64_t)stream_log_bytes(ss->log));
    pthread_mutex_unlock(&ss->lock);
}

void streams_reached(struct streams *ss, ts_t t)
{
    if (ss == NULL)
        return;
    pthread_mutex_lock(&ss->lock);
    ss->reached = ts_max(ss->reached, t);
    stream_log_expire(ss->log, t);
    pthread_mutex_unlock(&ss->lock);
}

/* ---- begin and end ---- */

void streams_drain(struct streams *ss)
{
    if (ss == NULL)
        return;
    pthread_mutex_lock(&ss->lock);
    ss->draining = true;
    while (!TAILQ_EMPTY(&ss->all))
        stream_end(TAILQ_FIRST(&ss->all));
    pthread_mutex_unlock(&ss->lock);
}

static int start_threads(struct streams *ss, struct err *e)
{
    int rc = pthread_create(&ss->feeder, NULL, streams_feed_main, ss);
    while (rc == 0 && ++ss->n_threads <= STREAM_LOADERS)
        rc = pthread_create(&ss->loaders[ss->n_threads - 1], NULL, streams_load_main, ss);
    if (rc != 0)
        return err_set(e, ERR_UNAVAILABLE, "a thread for streams: %s", strerror(rc));
    ss->n_threads = STREAM_LOADERS + 1;
    return 0;
}

int streams_start(struct streams **out, struct app *app, struct err *e)
{
    struct streams *ss = mem_zero(1, sizeof *ss);
    pthread_condattr_t attr;
    ss->app = app;
    pthread_mutex_init(&ss->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&ss->more, &attr);
    pthread_cond_init(&ss->jobs_, &attr);
    pthread_condattr_destroy(&attr);
    ss->log = stream_log_new((size_t)app->cfg.stream_memory, (uint32_t)(app->cfg.stream_keep / 1000));
    ss->live = stream_log_end(ss->log);
    ss->index = stream_index_new();
    TAILQ_INIT(&ss->all);
    STAILQ_INIT(&ss->jobs);
    STAILQ_INIT(&ss->later);
    ss->n_users = USER_CHAINS;
    ss->by_user = mem_zero(ss->n_users, sizeof(struct stream *));
    ss->seed = (uint64_t)ids_random_bits() << 32 | ids_random_bits();
    *out = ss;
    if (start_threads(ss, e) == 0)
        return 0;
    *out = NULL;
    streams_free(ss);
    return -1;
}

static void join_threads(struct streams *ss)
{
    pthread_mutex_lock(&ss->lock);
    ss->stopping = true;
    pthread_cond_broadcast(&ss->more);
    pthread_cond_broadcast(&ss->jobs_);
    pthread_mutex_unlock(&ss->lock);
    if (ss->n_threads > 0)
        pthread_join(ss->feeder, NULL);
    for (unsigned i = 1; i < ss->n_threads; i++)
        pthread_join(ss->loaders[i - 1], NULL);
}

static void drop_jobs(struct stream_jobs *jobs)
{
    for (struct stream *s; (s = STAILQ_FIRST(jobs)) != NULL;) {
        STAILQ_REMOVE_HEAD(jobs, job);
        stream_unref(s);
    }
}

void streams_free(struct streams *ss)
{
    if (ss == NULL)
        return;
    join_threads(ss);
    streams_drain(ss);
    drop_jobs(&ss->jobs);
    drop_jobs(&ss->later);
    for (size_t i = 0; i < LOOPS_MAX; i++)
        outlet_free(ss->outlets[i]); /* answers what is left */
    stream_log_free(ss->log);
    stream_index_free(ss->index);
    free(ss->by_number);
    free(ss->by_user);
    pthread_cond_destroy(&ss->more);
    pthread_cond_destroy(&ss->jobs_);
    pthread_mutex_destroy(&ss->lock);
    free(ss);
}
