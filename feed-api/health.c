#include "feed-api/health.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "feed-api/app.h"

#define PROBE_EVERY_MS   500
#define PROBE_TIMEOUT_MS 1000
#define SILENT_MS        1500  /* without an answer: as good as down */
#define BRING_UP_MS      10000 /* indexes of a large database take their time */
#define BACKOFF_MIN_MS   100
#define BACKOFF_MAX_MS   2000

struct health {
    struct app *app;
    pthread_t thread;
    struct redis *redis;
    uint64_t redis_generation; /* whose version is known */
    int wake_fd;               /* the bring-up has ended, well or not */
    struct event *wake, *ranker_timer;
    bool ranker_asked;

    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t stop;
    bool stopping;
    bool up, failed;
    struct health_state states[HEALTH_SERVERS];
    int64_t asked_ms[HEALTH_SERVERS]; /* clock_mono_ms() of a question that is not answered yet; 0: none */
};

const char *health_name(enum health_server which)
{
    static const char *const names[] = {"redis", "mongodb", "ranker"};
    return names[which];
}

static void ask(struct health *h, enum health_server which)
{
    pthread_mutex_lock(&h->lock);
    h->asked_ms[which] = clock_mono_ms();
    pthread_mutex_unlock(&h->lock);
}

/* Takes down what a server answered; e is NULL when all is well. A turn is logged, a repetition is not. */
static void note(struct health *h, enum health_server which, const struct err *e)
{
    pthread_mutex_lock(&h->lock);
    struct health_state *s = &h->states[which];
    h->asked_ms[which] = 0;
    bool turned = s->up != (e == NULL) || s->since_ms == 0;
    if (turned)
        s->since_ms = clock_wall_ms();
    s->up = e == NULL;
    s->served |= e == NULL;
    snprintf(s->error, sizeof s->error, "%.*s", (int)sizeof s->error - 1, e != NULL ? e->msg : "");
    pthread_mutex_unlock(&h->lock);
    if (turned && which == HEALTH_MONGODB)
        auth_set_offline(h->app->auth, e != NULL);
    if (turned && e == NULL)
        log_event(LOG_INFO, "server_up", LOG_S("server", health_name(which)));
    else if (turned)
        log_event(LOG_WARN, "server_down", LOG_S("server", health_name(which)), LOG_ERR(e));
}

static void note_version(struct health *h, enum health_server which, const char *text, size_t n)
{
    pthread_mutex_lock(&h->lock);
    struct health_state *s = &h->states[which];
    snprintf(s->version, sizeof s->version, "%.*s", (int)(n < sizeof s->version ? n : sizeof s->version - 1),
             text);
    pthread_mutex_unlock(&h->lock);
}

void health_get(const struct health *h, enum health_server which, struct health_state *out)
{
    struct health *own = (struct health *)h; /* the lock is not part of what the caller sees */
    pthread_mutex_lock(&own->lock);
    *out = own->states[which];
    int64_t asked = own->asked_ms[which];
    pthread_mutex_unlock(&own->lock);
    /* A server that hangs is noticed before the socket's time-out. */
    if (out->up && asked != 0 && clock_mono_ms() - asked > SILENT_MS) {
        out->up = false;
        snprintf(out->error, sizeof out->error, "no answer yet");
    }
}

bool health_is_down(const struct health *h, enum health_server which)
{
    struct health_state s;
    health_get(h, which, &s);
    return s.served && !s.up;
}

/* ---- on its thread ---- */

/* Sleeps; answers false when the thread has to end. */
static bool pause_ms(struct health *h, int64_t ms)
{
    struct timespec until = clock_deadline_in(ms);
    pthread_mutex_lock(&h->lock);
    int rc = 0;
    while (!h->stopping && rc != ETIMEDOUT)
        rc = pthread_cond_timedwait(&h->stop, &h->lock, &until);
    bool go_on = !h->stopping;
    pthread_mutex_unlock(&h->lock);
    return go_on;
}

static void probe_redis_version(struct health *h)
{
    redisReply *reply;
    if (h->redis_generation == redis_generation(h->redis))
        return;
    if (redis_commandf(h->redis, &reply, NULL, "INFO", "server", NULL) < 0)
        return;
    const char *at = reply->type == REDIS_REPLY_STRING ? strstr(reply->str, "redis_version:") : NULL;
    if (at != NULL) {
        at += strlen("redis_version:");
        note_version(h, HEALTH_REDIS, at, strcspn(at, "\r\n"));
    }
    freeReplyObject(reply);
    h->redis_generation = redis_generation(h->redis);
}

static void probe_redis(struct health *h)
{
    struct err e;
    redisReply *reply;
    ask(h, HEALTH_REDIS);
    if (redis_commandf(h->redis, &reply, &e, "PING", NULL) < 0) {
        note(h, HEALTH_REDIS, &e);
        return;
    }
    freeReplyObject(reply);
    note(h, HEALTH_REDIS, NULL);
    probe_redis_version(h);
}

static void probe_mongo_version(struct health *h, struct mongo_conn *c)
{
    struct health_state s;
    health_get(h, HEALTH_MONGODB, &s);
    if (s.version[0] != '\0')
        return;
    bson_t *cmd = BCON_NEW("buildInfo", BCON_INT32(1));
    bson_t reply;
    size_t n;
    if (mongoc_client_command_simple(mongo_client(c), "admin", cmd, NULL, &reply, NULL)) {
        const char *v = mongo_get_str(&reply, "version", &n);
        if (v != NULL)
            note_version(h, HEALTH_MONGODB, v, n);
    }
    bson_destroy(&reply);
    bson_destroy(cmd);
}

static void probe_mongo(struct health *h)
{
    struct err e;
    struct mongo_conn *c;
    ask(h, HEALTH_MONGODB);
    if (mongo_conn_get(h->app->mongo, &c, &e) < 0) {
        note(h, HEALTH_MONGODB, &e);
        return;
    }
    mongo_conn_deadline(c, PROBE_TIMEOUT_MS);
    bool ok = mongo_conn_fresh(c, NULL, &e) == 0;
    note(h, HEALTH_MONGODB, ok ? NULL : &e);
    if (ok)
        probe_mongo_version(h, c);
    if (ok && pressure_probe(h->app->pressure, c, &e) != 0)
        note(h, HEALTH_MONGODB, &e);
    mongo_conn_put(c);
}

/* fanout notes the cap that it keeps timelines at. With another one here rebuilt timelines are longer or
 * shorter than delivered ones, which does no harm but can't be meant. */
static void compare_timeline_entries(struct health *h, struct mongo_conn *c)
{
    bson_t opts = BSON_INITIALIZER;
    const bson_t *d;
    int64_t value;
    bson_t *filter = BCON_NEW("_id", BCON_UTF8("timeline_entries"));
    mongo_read_opts(c, &opts);
    mongoc_cursor_t *cursor =
        mongoc_collection_find_with_opts(mongo_coll(c, COLL_SETTINGS), filter, &opts, NULL);
    if (mongoc_cursor_next(cursor, &d) && mongo_get_i64(d, "value", &value) &&
        value != h->app->cfg.timeline_entries)
        log_event(LOG_WARN, "timeline_entries_differ", LOG_I("here", h->app->cfg.timeline_entries),
                  LOG_I("fanout", value));
    mongoc_cursor_destroy(cursor);
    bson_destroy(filter);
    bson_destroy(&opts);
}

static int bring_up(struct health *h, struct err *e)
{
    struct app *app = h->app;
    struct mongo_conn *c;
    if (mongo_conn_get(app->mongo, &c, e) < 0)
        return -1;
    mongo_conn_deadline(c, BRING_UP_MS);
    int rc = mongo_schema_ensure(c, e);
    if (rc == 0)
        rc = mongo_setting_secret(c, "cursor_key", app->cursor_key, e);
    if (rc == 0)
        rc = auth_bootstrap(app->auth, c, e);
    if (rc == 0)
        compare_timeline_entries(h, c);
    mongo_conn_put(c);
    return rc;
}

static bool worth_another_try(enum err_code code)
{
    return code == ERR_UNAVAILABLE || code == ERR_TIMEOUT || code == ERR_BUSY;
}

static void end_bring_up(struct health *h, bool failed)
{
    pthread_mutex_lock(&h->lock);
    h->up = !failed;
    h->failed = failed;
    pthread_mutex_unlock(&h->lock);
    uint64_t one = 1;
    if (write(h->wake_fd, &one, sizeof one) != (ssize_t)sizeof one)
        log_event(LOG_ERROR, "wake_failed", LOG_S("error", strerror(errno)));
}

/* Answers false when the thread has to end. */
static bool bring_up_until_done(struct health *h)
{
    int64_t wait = BACKOFF_MIN_MS;
    for (;;) {
        struct err e;
        probe_redis(h);
        if (bring_up(h, &e) == 0)
            break;
        if (!worth_another_try(e.code)) {
            log_event(LOG_ERROR, "start_failed", LOG_ERR(&e));
            end_bring_up(h, true);
            return false;
        }
        note(h, HEALTH_MONGODB, &e);
        if (!pause_ms(h, wait))
            return false;
        wait = wait * 2 < BACKOFF_MAX_MS ? wait * 2 : BACKOFF_MAX_MS;
    }
    end_bring_up(h, false);
    return true;
}

static void *health_main(void *arg)
{
    struct health *h = arg;
    if (!bring_up_until_done(h))
        return NULL;
    do {
        probe_mongo(h);
        probe_redis(h);
    } while (pause_ms(h, PROBE_EVERY_MS));
    return NULL;
}

/* ---- on the loop ---- */

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    struct health *h = arg;
    uint64_t count;
    if (read(fd, &count, sizeof count) < 0)
        return;
    pthread_mutex_lock(&h->lock);
    h->app->up = h->up;
    h->app->failed = h->failed;
    pthread_mutex_unlock(&h->lock);
    if (h->app->failed)
        event_base_loopbreak(h->app->loops[0].base);
    else
        log_event(LOG_INFO, "up", LOG_S("name", h->app->name));
}

static void on_ranker_answer(const struct http_response *r, const struct err *e, void *arg)
{
    struct health *h = arg;
    struct err bad;
    h->ranker_asked = false;
    if (r != NULL && r->status != 200) {
        err_set(&bad, ERR_UNAVAILABLE, "it answers %d when asked whether it is ready", r->status);
        e = &bad;
    }
    note(h, HEALTH_RANKER, r != NULL && r->status == 200 ? NULL : e);
}

static void on_ranker_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct health *h = arg;
    struct err e;
    if (h->ranker_asked)
        return;
    h->ranker_asked = true;
    if (http_client_request(h->app->loops[0].ranker, "GET", "/readyz", NULL, NULL, 0, PROBE_TIMEOUT_MS,
                            on_ranker_answer, h, &e) < 0)
        h->ranker_asked = false; /* too many requests under way: these say how it is */
}

static int add_events(struct health *h, struct err *e)
{
    struct app *app = h->app;
    h->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (h->wake_fd < 0)
        return err_set(e, ERR_UNAVAILABLE, "eventfd: %s", strerror(errno));
    h->wake = event_new(app->loops[0].base, h->wake_fd, EV_READ | EV_PERSIST, on_wake, h);
    if (h->wake == NULL || event_add(h->wake, NULL) != 0)
        return err_set(e, ERR_INTERNAL, "the loop takes no event");
    if (app->loops[0].ranker == NULL)
        return 0;
    const struct timeval second = {.tv_sec = 1};
    h->ranker_timer = event_new(app->loops[0].base, -1, EV_PERSIST, on_ranker_timer, h);
    if (h->ranker_timer == NULL || event_add(h->ranker_timer, &second) != 0)
        return err_set(e, ERR_INTERNAL, "the loop takes no timer");
    event_active(h->ranker_timer, EV_TIMEOUT, 0);
    return 0;
}

static void health_free(struct health *h)
{
    if (h->ranker_timer != NULL)
        event_free(h->ranker_timer);
    if (h->wake != NULL)
        event_free(h->wake);
    if (h->wake_fd >= 0)
        close(h->wake_fd);
    redis_free(h->redis);
    pthread_cond_destroy(&h->stop);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

int health_start(struct health **out, struct app *app, struct err *e)
{
    struct health *h = mem_zero(1, sizeof *h);
    pthread_condattr_t attr;
    h->app = app;
    h->redis = redis_new(&app->redis_address, PROBE_TIMEOUT_MS);
    pthread_mutex_init(&h->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&h->stop, &attr);
    pthread_condattr_destroy(&attr);
    if (add_events(h, e) < 0) {
        health_free(h);
        return -1;
    }
    int rc = pthread_create(&h->thread, NULL, health_main, h);
    if (rc != 0) {
        health_free(h);
        return err_set(e, ERR_UNAVAILABLE, "health thread: %s", strerror(rc));
    }
    *out = h;
    return 0;
}

void health_stop(struct health *h)
{
    if (h == NULL)
        return;
    pthread_mutex_lock(&h->lock);
    h->stopping = true;
    pthread_cond_broadcast(&h->stop);
    pthread_mutex_unlock(&h->lock);
    pthread_join(h->thread, NULL);
    health_free(h);
}
