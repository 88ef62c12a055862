/* Frames, and their way to the sockets: notes put into the outlet of a loop, by any thread with the lock,
 * taken out and sent on the loop. Some at a time, so that requests for pages have their turn in between. */
#include "feed-api/streams_private.h"

#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/ids.h"
#include "common/mem.h"

#define NOTES_AT_ONCE 256
#define NOTES_MAX     200000             /* in all outlets, before those who put them wait */
#define FRAMES_MAX    (64 * 1024 * 1024) /* bytes of frames, likewise */
#define LOOK_MS       50

/* ---- frames ---- */

static struct frame *frame_make(struct streams *ss, size_t len)
{
    struct frame *f = mem_alloc(sizeof *f + len + 1);
    atomic_init(&f->refs, 1);
    f->total = &ss->frame_bytes;
    f->len = len;
    atomic_fetch_add(f->total, len);
    return f;
}

struct frame *frame_new(struct streams *ss, const struct stream_pos *id, const char *event, const char *data,
                        size_t n)
{
    char head[STREAM_POS_SIZE + 64], pos[STREAM_POS_SIZE] = "";
    if (id != NULL)
        stream_pos_format(*id, pos);
    int k;
    if (event == NULL)
        k = snprintf(head, sizeof head, id != NULL ? ":\nid: %s\n\n" : ":\n\n", pos);
    else
        k = snprintf(head, sizeof head, "id: %s\nevent: %s\ndata: ", pos, event);
    size_t len = (size_t)k + (event != NULL ? n + 2 : 0);
    struct frame *f = frame_make(ss, len);
    memcpy(f->data, head, (size_t)k);
    if (event != NULL) {
        memcpy(f->data + k, data, n); /* JSON of ours has no line breaks */
        memcpy(f->data + k + n, "\n\n", 2);
    }
    f->data[len] = '\0';
    return f;
}

/* Not all at the same time. */
struct frame *frame_retry(struct streams *ss)
{
    char text[40];
    int n = snprintf(text, sizeof text, "retry: %u\n\n",
                     STREAM_RETRY_MS + ids_random_bits() % (3 * STREAM_RETRY_MS));
    struct frame *f = frame_make(ss, (size_t)n);
    memcpy(f->data, text, (size_t)n + 1);
    return f;
}

void frame_unref(struct frame *f)
{
    if (f == NULL || atomic_fetch_sub(&f->refs, 1) > 1)
        return;
    atomic_fetch_sub(f->total, f->len);
    free(f);
}

/* ---- putting ---- */

void outlet_put(struct stream *s, enum note_kind kind, struct frame *f)
{
    struct outlet *o = s->outlet;
    if (s->state == STREAM_ENDED)
        return;
    if (o->n == o->cap) {
        o->cap = o->cap ? o->cap * 2 : 16;
        o->notes = mem_grow(o->notes, o->cap, sizeof *o->notes);
    }
    stream_ref(s);
    if (f != NULL)
        atomic_fetch_add(&f->refs, 1);
    o->notes[o->n++] = (struct note){s, f, kind};
    o->streams->waiting++;
    if (kind == NOTE_FRAME)
        metrics_add(o->streams->app->metrics, M_STREAM_FRAMES, 0, 1);
    if (o->n > 1)
        return;
    uint64_t one = 1;
    ssize_t n = write(o->wake_fd, &one, sizeof one);
    (void)n; /* EAGAIN: it is awake */
}

bool outlets_full(struct streams *ss)
{
    return ss->waiting > NOTES_MAX || atomic_load(&ss->frame_bytes) > FRAMES_MAX;
}

/* ---- on the loop ---- */

static void finish(struct stream *s, bool cut)
{
    struct streams *ss = s->streams;
    struct http_request *r = s->http;
    s->http = NULL;
    pthread_mutex_lock(&ss->lock);
    stream_close(s);
    pthread_mutex_unlock(&ss->lock);
    http_request_on_abort(r, NULL, NULL);
    if (cut)
        http_stream_abort(r);
    else
        http_stream_end(r);
    stream_unref(s);
}

/* From within http: it may not be answered here. */
void stream_gone(struct http_request *r, void *arg)
{
    struct stream *s = arg;
    (void)r;
    pthread_mutex_lock(&s->streams->lock);
    if (s->state != STREAM_ENDED) {
        outlet_put(s, NOTE_CUT, NULL);
        stream_close(s);
    }
    pthread_mutex_unlock(&s->streams->lock);
}

/* A key that is not in memory is read before anything else is sent; it may have run out. */
static bool still_may(struct stream *s)
{
    struct streams *ss = s->streams;
    struct identity who = {0};
    enum auth_answer answer = auth_check(ss->app->auth, s->credential, &who);
    identity_done(&who);
    if (answer == AUTH_ASK) {
        pthread_mutex_lock(&ss->lock);
        s->key_changed = true;
        stream_fall_behind(s);
        pthread_mutex_unlock(&ss->lock);
    }
    return answer == AUTH_OK || answer == AUTH_ASK;
}

static void send_frame(struct stream *s, const struct frame *f)
{
    struct app *app = s->streams->app;
    if (http_stream_unsent(s->http) > (size_t)app->cfg.stream_unsent) {
        metrics_add(app->metrics, M_STREAMS_CUT, 0, 1);
        finish(s, true);
    } else if (http_stream_add(s->http, f->data, f->len) < 0) {
        finish(s, false);
    }
}

static void give_more(struct stream *s)
{
    pthread_mutex_lock(&s->streams->lock);
    s->waits = false;
    stream_give_job(s);
    pthread_mutex_unlock(&s->streams->lock);
}

static bool is_slow(const struct stream *s)
{
    return http_stream_unsent(s->http) > (size_t)s->streams->app->cfg.stream_unsent / 4;
}

static void look_later(struct outlet *o, struct stream *s)
{
    struct timeval t = {.tv_usec = LOOK_MS * 1000};
    if (o->n_slow == o->slow_cap) {
        o->slow_cap = o->slow_cap ? o->slow_cap * 2 : 16;
        o->slow = mem_grow(o->slow, o->slow_cap, sizeof(struct stream *));
    }
    stream_ref(s);
    o->slow[o->n_slow++] = s;
    if (o->n_slow == 1)
        event_add(o->look, &t);
}

static void on_look(evutil_socket_t fd, short what, void *arg)
{
    struct outlet *o = arg;
    struct timeval t = {.tv_usec = LOOK_MS * 1000};
    size_t left = 0;
    (void)fd;
    (void)what;
    for (size_t i = 0; i < o->n_slow; i++) {
        struct stream *s = o->slow[i];
        if (s->http != NULL && is_slow(s)) {
            o->slow[left++] = s;
            continue;
        }
        if (s->http != NULL)
            give_more(s);
        stream_unref(s);
    }
    o->n_slow = left;
    if (left > 0)
        event_add(o->look, &t);
}

static void act(struct outlet *o, const struct note *n)
{
    struct stream *s = n->stream;
    if (s->http == NULL)
        return;
    switch (n->kind) {
    case NOTE_BEAT:
        if (!still_may(s)) {
            finish(s, false);
            break;
        }
        /* fall through */
    case NOTE_FRAME:
        send_frame(s, n->frame);
        break;
    case NOTE_MORE:
        if (is_slow(s))
            look_later(o, s);
        else
            give_more(s);
        break;
    case NOTE_END:
        send_frame(s, n->frame);
        if (s->http != NULL)
            finish(s, false);
        break;
    case NOTE_CUT:
        finish(s, true);
        break;
    }
}

static void take_notes(struct outlet *o)
{
    struct note *empty = o->taken;
    size_t cap = o->taken_cap;
    pthread_mutex_lock(&o->streams->lock);
    o->taken = o->notes;
    o->taken_cap = o->cap;
    o->n_taken = o->n;
    o->notes = empty;
    o->cap = cap;
    o->n = o->done = 0;
    pthread_mutex_unlock(&o->streams->lock);
}

/* Answers whether there are more. */
static bool send_notes(struct outlet *o, size_t most)
{
    size_t n = 0;
    if (o->done == o->n_taken)
        take_notes(o);
    for (; o->done < o->n_taken && n < most; n++) {
        struct note *x = &o->taken[o->done++];
        act(o, x);
        frame_unref(x->frame);
        stream_unref(x->stream);
    }
    pthread_mutex_lock(&o->streams->lock);
    o->streams->waiting -= n;
    bool more = o->done < o->n_taken || o->n > 0;
    pthread_mutex_unlock(&o->streams->lock);
    return more;
}

/* By a timer: one that is made active at once would be called before sockets are looked at. */
static void on_turn(evutil_socket_t fd, short what, void *arg)
{
    static const struct timeval now = {0};
    struct outlet *o = arg;
    (void)fd;
    (void)what;
    if (send_notes(o, NOTES_AT_ONCE))
        event_add(o->go_on, &now);
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    uint64_t count;
    ssize_t n = read(fd, &count, sizeof count);
    struct outlet *o = arg;
    (void)n;
    if (!event_pending(o->go_on, EV_TIMEOUT,
                       NULL)) /* else it goes on by itself, and takes what is new then */
        on_turn(fd, what, arg);
}

struct outlet *outlet_of(struct streams *ss, struct loop *loop)
{
    struct outlet *o = ss->outlets[loop->number];
    if (o != NULL)
        return o;
    o = mem_zero(1, sizeof *o);
    o->streams = ss;
    o->loop = loop;
    o->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    o->wake = event_new(loop->base, o->wake_fd, EV_READ | EV_PERSIST, on_wake, o);
    o->go_on = event_new(loop->base, -1, 0, on_turn, o);
    o->look = event_new(loop->base, -1, 0, on_look, o);
    event_add(o->wake, NULL);
    ss->outlets[loop->number] = o;
    return o;
}

void outlet_free(struct outlet *o)
{
    if (o == NULL)
        return;
    while (send_notes(o, SIZE_MAX))
        ;
    for (size_t i = 0; i < o->n_slow; i++)
        stream_unref(o->slow[i]);
    event_free(o->wake);
    event_free(o->go_on);
    event_free(o->look);
    close(o->wake_fd);
    free(o->notes);
    free(o->taken);
    free(o->slow);
    free(o);
}
