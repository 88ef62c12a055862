/* heartbeat.c - time passes on the log. Declared in changes.h. */
#include "common/changes.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DEADLINE_MS 1000

struct heartbeat {
    struct mongo *mongo;
    char *instance;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stop; /* under lock */
};

int heartbeat_send(struct mongo_conn *c, const char *instance, struct err *e)
{
    bson_t query = BSON_INITIALIZER, update = BSON_INITIALIZER, opts = BSON_INITIALIZER, set, inc, reply;
    bson_error_t be;
    BSON_APPEND_UTF8(&query, "_id", instance);
    BSON_APPEND_DOCUMENT_BEGIN(&update, "$set", &set);
    BSON_APPEND_DATE_TIME(&set, "at", clock_wall_ms());
    BSON_APPEND_INT64(
        &set, "mono",
        clock_mono_ms()); /* before it is sent: what was acknowledged until now lies before it */
    bson_append_document_end(&update, &set);
    BSON_APPEND_DOCUMENT_BEGIN(&update, "$inc", &inc);
    BSON_APPEND_INT64(&inc, "n", 1); /* an update that changes nothing is not told on the log */
    bson_append_document_end(&update, &inc);
    mongo_write_opts(c, &opts);
    BSON_APPEND_BOOL(&opts, "upsert", true);
    int rc = 0;
    if (!mongoc_collection_update_one(mongo_coll(c, COLL_HEARTBEAT), &query, &update, &opts, &reply, &be))
        rc = mongo_err(e, &be, &reply, "heartbeat");
    bson_destroy(&query);
    bson_destroy(&update);
    bson_destroy(&opts);
    bson_destroy(&reply);
    return rc;
}

static int send_one(struct heartbeat *h, struct mongo_conn **c, struct err *e)
{
    if (*c == NULL && mongo_conn_get(h->mongo, c, e) < 0)
        return -1;
    mongo_conn_deadline(*c, DEADLINE_MS);
    return heartbeat_send(*c, h->instance, e);
}

/* Answers whether to go on. */
static bool wait_until(struct heartbeat *h, int64_t mono_ms)
{
    struct timespec ts = {.tv_sec = mono_ms / 1000, .tv_nsec = mono_ms % 1000 * 1000000};
    int rc = 0;
    pthread_mutex_lock(&h->lock);
    while (!h->stop && rc != ETIMEDOUT)
        rc = pthread_cond_timedwait(&h->wake, &h->lock, &ts);
    bool stop = h->stop;
    pthread_mutex_unlock(&h->lock);
    return !stop;
}

static void *run(void *arg)
{
    struct heartbeat *h = arg;
    struct mongo_conn *c = NULL;
    bool failing = false;
    int64_t next;
    do {
        next = clock_mono_ms() + HEARTBEAT_INTERVAL_MS;
        struct err e = {0};
        bool ok = send_one(h, &c, &e) == 0;
        if (!ok && !failing)
            log_event(LOG_WARN, "heartbeat_lost", LOG_ERR(&e));
        if (ok && failing)
            log_event(LOG_INFO, "heartbeat_back");
        failing = !ok;
    } while (wait_until(h, next));
    mongo_conn_put(c);
    return NULL;
}

int heartbeat_start(struct heartbeat **out, struct mongo *m, const char *instance, struct err *e)
{
    struct heartbeat *h = mem_zero(1, sizeof *h);
    h->mongo = m;
    h->instance = mem_strdup(instance);
    pthread_mutex_init(&h->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&h->wake, &attr);
    pthread_condattr_destroy(&attr);
    int rc = pthread_create(&h->thread, NULL, run, h);
    if (rc != 0) {
        pthread_cond_destroy(&h->wake);
        pthread_mutex_destroy(&h->lock);
        free(h->instance);
        free(h);
        return err_set(e, ERR_UNAVAILABLE, "no thread for heartbeats: %s", strerror(rc));
    }
    *out = h;
    return 0;
}

void heartbeat_stop(struct heartbeat *h)
{
    if (h == NULL)
        return;
    pthread_mutex_lock(&h->lock);
    h->stop = true;
    pthread_cond_signal(&h->wake);
    pthread_mutex_unlock(&h->lock);
    pthread_join(h->thread, NULL);
    pthread_cond_destroy(&h->wake);
    pthread_mutex_destroy(&h->lock);
    free(h->instance);
    free(h);
}
