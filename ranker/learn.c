#include "ranker/learn.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "common/clock.h"
#include "common/keys.h"
#include "common/log.h"
#include "common/mem.h"
#include "ranker/metrics.h"

#define GROUP            "ranker"
#define BLOCK_MS         "200"
#define CLAIM_EVERY_MS   5000
#define CLAIM_IDLE_MS    "15000"
#define AFFINITY_KEEP_MS (INT64_C(90) * 24 * 3600 * 1000)
#define REDIS_TIMEOUT_MS 2000

struct learner {
    struct learner_options o;
    struct redis *redis;
    uint64_t generation; /* of the connection for which the groups were made */
    bool own_pending;    /* what this name had taken before has still to be learned */
    int64_t next_claim;  /* clock_mono_ms() */
    char streams[EVENT_STREAMS][KEY_SIZE];
    pthread_t thread;
    atomic_bool stopping, ready;
};

/* One event as it stands in a stream; strings point into the reply. */
struct event {
    const char *entry, *user, *type;
    item_id item;
    int64_t dwell_ms;
    struct event_weights weights;
};

bool event_weights_of(const char *type, int64_t dwell_ms, struct event_weights *out)
{
    static const struct {
        const char *type;
        struct event_weights w;
    } rows[] = {
        {"impression", {0, 0}}, {"open", {0.3, 0.2}}, {"like", {1, 1}},      {"unlike", {-1, -1}},
        {"share", {1.5, 1}},    {"hide", {-2, -0.5}}, {"dwell", {0.3, 0.2}},
    };
    for (size_t i = 0; i < MEM_COUNT(rows); i++) {
        if (strcmp(type, rows[i].type) != 0)
            continue;
        *out = rows[i].w;
        if (strcmp(type, "dwell") == 0) { /* half a minute is full attention */
            double part = dwell_ms < 0 ? 0 : dwell_ms > 30000 ? 1 : (double)dwell_ms / 30000;
            out->affinity *= part;
            out->engagement *= part;
        }
        return true;
    }
    return false;
}

static bool event_read(const redisReply *entry, struct event *out)
{
    memset(out, 0, sizeof *out);
    if (entry->type != REDIS_REPLY_ARRAY || entry->elements != 2 ||
        entry->element[0]->type != REDIS_REPLY_STRING)
        return false;
    out->entry = entry->element[0]->str;
    const redisReply *fields = entry->element[1];
    if (fields->type != REDIS_REPLY_ARRAY)
        return false;
    for (size_t i = 0; i + 1 < fields->elements; i += 2) {
        const char *key = fields->element[i]->str, *value = fields->element[i + 1]->str;
        if (strcmp(key, "u") == 0)
            out->user = value;
        else if (strcmp(key, "t") == 0)
            out->type = value;
        else if (strcmp(key, "i") == 0 && ids_parse(value, &out->item, NULL) < 0)
            return false;
        else if (strcmp(key, "d") == 0)
            out->dwell_ms = strtoll(value, NULL, 10);
    }
    return out->user && out->type && out->item != 0 && strlen(out->user) <= NAME_MAX_BYTES &&
           event_weights_of(out->type, out->dwell_ms, &out->weights);
}

/* Strings of a script call; numbers are printed into memory of their own. */
struct args {
    const char **argv;
    size_t *len;
    char **owned;
    size_t n, n_owned, cap;
};

static void args_add(struct args *a, const char *s)
{
    if (a->n == a->cap) {
        a->cap = a->cap ? a->cap * 2 : 256;
        a->argv = mem_grow(a->argv, a->cap, sizeof *a->argv);
        a->len = mem_grow(a->len, a->cap, sizeof *a->len);
        a->owned = mem_grow(a->owned, a->cap, sizeof *a->owned);
    }
    a->argv[a->n] = s;
    a->len[a->n++] = strlen(s);
}

static void args_take(struct args *a, char *s)
{
    args_add(a, s);
    a->owned[a->n_owned++] = s; /* owned has room for as many as argv */
}

static void args_done(struct args *a)
{
    for (size_t i = 0; i < a->n_owned; i++)
        free(a->owned[i]);
    free(a->argv);
    free(a->len);
    free(a->owned);
}

static void add_keys(struct args *a, const struct event *ev)
{
    char key[KEY_SIZE];
    keys_affinity(key, keys_bucket(ev->user), ev->user);
    args_take(a, mem_strdup(key));
    keys_item_counters(key, ev->item);
    args_take(a, mem_strdup(key));
    keys_item_readers(key, ev->item);
    args_take(a, mem_strdup(key));
}

static void add_event(struct args *a, const struct event *ev, const struct item_info *info)
{
    args_add(a, ev->entry);
    args_take(a, mem_printf("%s %s", ev->user, ev->type));
    args_take(a, mem_printf("%g", ev->weights.affinity));
    args_take(a, mem_printf("%g", ev->weights.engagement));
    args_take(a, mem_printf("%u", info->n_targets));
    for (unsigned i = 0; i < info->n_targets; i++)
        args_add(a, info->targets[i]);
}

static int apply(struct learner *l, unsigned stream, const struct event *events,
                 const struct item_info *infos, size_t n, struct err *e)
{
    const struct ranker_config *cfg = l->o.cfg;
    struct args a = {0};
    redisReply *reply;
    args_add(&a, l->streams[stream]);
    for (size_t i = 0; i < n; i++)
        add_keys(&a, &events[i]);
    int nkeys = (int)a.n;
    args_add(&a, GROUP);
    args_take(&a, mem_printf("%lld", (long long)clock_wall_ms()));
    args_take(&a, mem_printf("%lld", (long long)cfg->affinity_half_life));
    args_take(&a, mem_printf("%lld", (long long)cfg->engagement_half_life));
    args_take(&a, mem_printf("%lld", (long long)cfg->affinity_fields));
    args_take(&a, mem_printf("%lld", (long long)AFFINITY_KEEP_MS));
    args_take(&a, mem_printf("%lld", (long long)cfg->engagement_half_life * 10));
    for (size_t i = 0; i < n; i++)
        add_event(&a, &events[i], &infos[i]);
    int rc = redis_script(l->redis, &reply, SCRIPT_LEARN, nkeys, (int)a.n, a.argv, a.len, e);
    if (rc == 0) {
        metrics_add(l->o.metrics, M_EVENTS, EVENT_LEARNED, reply->integer);
        metrics_add(l->o.metrics, M_EVENTS, EVENT_REPEATED, (int64_t)n - reply->integer);
        freeReplyObject(reply);
    }
    args_done(&a);
    return rc;
}

/* An entry that does not read as an event would be delivered for ever: it is acknowledged, counted and
 * logged. */
static void refuse(struct learner *l, unsigned stream, const redisReply *entry)
{
    redisReply *reply;
    const char *id = "";
    if (entry->type == REDIS_REPLY_ARRAY && entry->elements > 0 &&
        entry->element[0]->type == REDIS_REPLY_STRING)
        id = entry->element[0]->str;
    metrics_add(l->o.metrics, M_EVENTS, EVENT_MALFORMED, 1);
    log_event(LOG_WARN, "event_malformed", LOG_U("stream", stream), LOG_S("entry", id));
    if (redis_commandf(l->redis, &reply, NULL, "XACK", l->streams[stream], GROUP, id, NULL) == 0)
        freeReplyObject(reply);
}

/* Learns the entries of one stream, all or none. */
static int learn_entries(struct learner *l, unsigned stream, const redisReply *entries, struct err *e)
{
    if (entries->elements == 0)
        return 0;
    struct event *events = mem_zero(entries->elements, sizeof *events);
    item_id *ids = mem_zero(entries->elements, sizeof *ids);
    struct item_info *infos = mem_zero(entries->elements, sizeof *infos);
    struct mongo_conn *conn = NULL;
    size_t n = 0;
    for (size_t i = 0; i < entries->elements; i++) {
        if (event_read(entries->element[i], &events[n])) {
            ids[n] = events[n].item;
            n++;
        } else {
            refuse(l, stream, entries->element[i]);
        }
    }
    int rc = n == 0 ? 0 : mongo_conn_get(l->o.mongo, &conn, e);
    if (rc == 0 && n > 0) {
        mongo_conn_deadline(conn, 2000);
        rc = item_infos_get(l->o.infos, conn, ids, n, infos, e);
        mongo_conn_put(conn);
        if (rc < 0)
            metrics_add(l->o.metrics, M_ERRORS, ERROR_OF_MONGODB, 1);
    }
    for (size_t i = 0; rc == 0 && i < n; i++)
        metrics_add(l->o.metrics, M_EVENTS, EVENT_UNKNOWN_ITEM, infos[i].n_targets == 0);
    if (rc == 0 && n > 0)
        rc = apply(l, stream, events, infos, n, e);
    for (size_t i = 0; i < entries->elements; i++)
        item_info_done(&infos[i]);
    free(infos);
    free(ids);
    free(events);
    return rc;
}

static int make_groups(struct learner *l, struct err *e)
{
    for (unsigned s = 0; s < EVENT_STREAMS; s++) {
        redisReply *reply;
        struct err one = {0};
        if (redis_commandf(l->redis, &reply, &one, "XGROUP", "CREATE", l->streams[s], GROUP, "0", "MKSTREAM",
                           NULL) == 0)
            freeReplyObject(reply);
        else if (strstr(one.msg, "BUSYGROUP") == NULL) {
            if (e)
                *e = one;
            return -1;
        }
    }
    l->generation = redis_generation(l->redis);
    l->own_pending = true;
    return 0;
}

static int stream_index(const struct learner *l, const char *key)
{
    for (int s = 0; s < EVENT_STREAMS; s++)
        if (strcmp(l->streams[s], key) == 0)
            return s;
    return -1;
}

/* XREADGROUP over all streams: from = ">" for new entries, "0" for those that this name has taken and not
 * acknowledged. */
static int read_group(struct learner *l, const char *from, size_t *got, struct err *e)
{
    struct args a = {0};
    redisReply *reply;
    const char *head[] = {"XREADGROUP", "GROUP", GROUP, l->o.name, "COUNT"};
    for (size_t i = 0; i < MEM_COUNT(head); i++)
        args_add(&a, head[i]);
    args_take(&a, mem_printf("%lld", (long long)l->o.cfg->event_batch));
    args_add(&a, "BLOCK");
    args_add(&a, BLOCK_MS);
    args_add(&a, "STREAMS");
    for (unsigned s = 0; s < EVENT_STREAMS; s++)
        args_add(&a, l->streams[s]);
    for (unsigned s = 0; s < EVENT_STREAMS; s++)
        args_add(&a, from);
    int rc = redis_command(l->redis, &reply, (int)a.n, a.argv, a.len, e);
    args_done(&a);
    if (rc < 0)
        return -1;
    *got = 0;
    for (size_t i = 0; rc == 0 && reply->type == REDIS_REPLY_ARRAY && i < reply->elements; i++) {
        const redisReply *one = reply->element[i];
        int s = stream_index(l, one->element[0]->str);
        if (s < 0)
            continue;
        *got += one->element[1]->elements;
        rc = learn_entries(l, (unsigned)s, one->element[1], e);
    }
    freeReplyObject(reply);
    return rc;
}

/* Takes over what others took 15 s ago and never acknowledged. Entries that were trimmed meanwhile are lost,
 * and counted. */
static int claim(struct learner *l, unsigned stream, struct err *e)
{
    redisReply *reply;
    char count[24];
    snprintf(count, sizeof count, "%lld", (long long)l->o.cfg->event_batch);
    if (redis_commandf(l->redis, &reply, e, "XAUTOCLAIM", l->streams[stream], GROUP, l->o.name, CLAIM_IDLE_MS,
                       "0", "COUNT", count, NULL) < 0)
        return -1;
    int rc = 0;
    if (reply->type == REDIS_REPLY_ARRAY && reply->elements >= 2)
        rc = learn_entries(l, stream, reply->element[1], e);
    if (reply->type == REDIS_REPLY_ARRAY && reply->elements >= 3 && reply->element[2]->elements > 0) {
        metrics_add(l->o.metrics, M_EVENTS_LOST, 0, (int64_t)reply->element[2]->elements);
        log_event(LOG_WARN, "events_lost", LOG_U("stream", stream),
                  LOG_U("events", reply->element[2]->elements));
    }
    freeReplyObject(reply);
    return rc;
}

static int step(struct learner *l, struct err *e)
{
    size_t got = 0;
    redisReply *reply;
    /* a ping connects, so that the generation is that of the connection which the rest uses */
    if (redis_commandf(l->redis, &reply, e, "PING", NULL) < 0)
        return -1;
    freeReplyObject(reply);
    if (l->generation != redis_generation(l->redis) && make_groups(l, e) < 0)
        return -1;
    if (read_group(l, l->own_pending ? "0" : ">", &got, e) < 0)
        return -1;
    if (l->own_pending && got == 0)
        l->own_pending = false;
    if (clock_mono_ms() >= l->next_claim) {
        for (unsigned s = 0; s < EVENT_STREAMS; s++)
            if (claim(l, s, e) < 0)
                return -1;
        l->next_claim = clock_mono_ms() + CLAIM_EVERY_MS;
    }
    return 0;
}

static void pause_ms(int64_t ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

static void *learner_main(void *arg)
{
    struct learner *l = arg;
    while (!atomic_load(&l->stopping)) {
        struct err e = {0};
        if (step(l, &e) == 0) {
            if (!atomic_exchange(&l->ready, true))
                log_event(LOG_INFO, "learning", LOG_S("name", l->o.name));
            continue;
        }
        l->generation =
            0; /* groups may be gone (FLUSHALL): look again. What was taken is taken again from "0". */
        metrics_add(l->o.metrics, M_ERRORS, ERROR_OF_REDIS, 1);
        if (atomic_exchange(&l->ready, false))
            log_event(LOG_WARN, "learning_stopped", LOG_ERR(&e));
        pause_ms(200);
    }
    return NULL;
}

int learner_start(struct learner **out, const struct learner_options *o, struct err *e)
{
    struct learner *l = mem_zero(1, sizeof *l);
    l->o = *o;
    l->redis = redis_new(&o->redis, REDIS_TIMEOUT_MS);
    for (unsigned s = 0; s < EVENT_STREAMS; s++)
        keys_event_stream(l->streams[s], s);
    int rc = pthread_create(&l->thread, NULL, learner_main, l);
    if (rc != 0) {
        redis_free(l->redis);
        free(l);
        return err_set(e, ERR_UNAVAILABLE, "the learner's thread: %s", strerror(rc));
    }
    *out = l;
    return 0;
}

void learner_stop(struct learner *l)
{
    if (l == NULL)
        return;
    atomic_store(&l->stopping, true);
    pthread_join(l->thread, NULL);
    redis_free(l->redis);
    free(l);
}

bool learner_ready(const struct learner *l)
{
    return atomic_load(&l->ready);
}
