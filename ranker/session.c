#include "ranker/session.h"

#include <stdlib.h>
#include <string.h>
#include "common/keys.h"
#include "common/mem.h"
#include "common/sign.h"
#include "ranker/metrics.h"

/* What one session is made from, all of it owned here. */
struct making {
    const struct session_request *request;
    const struct session_limits *limits;
    int64_t now_ms;
    size_t n;
    struct score_entry *entries;
    struct item_info *infos;
    double *engagement;   /* of entries[i], decayed */
    redisReply *affinity; /* HGETALL: field, value, ... */
    struct {
        const char *target;
        double sum;
    } * known; /* affinity, decayed, sorted by target */
    size_t n_known;
};

static int id_compare(const void *x, const void *y)
{
    item_id a = ((const struct score_entry *)x)->id, b = ((const struct score_entry *)y)->id;
    return a < b ? -1 : a > b;
}

static void take_candidates(struct making *m)
{
    size_t n = m->request->n;
    m->entries = mem_zero(n, sizeof *m->entries);
    for (size_t i = 0; i < n; i++)
        m->entries[i].id = m->request->candidates[i];
    qsort(m->entries, n, sizeof *m->entries, id_compare);
    for (size_t i = 0; i < n; i++)
        if (m->n == 0 || m->entries[m->n - 1].id != m->entries[i].id)
            m->entries[m->n++] = m->entries[i];
    m->infos = mem_zero(m->n, sizeof *m->infos);
    m->engagement = mem_zero(m->n, sizeof *m->engagement);
}

static int read_items(struct worker *w, struct item_infos *infos, struct making *m, struct err *e)
{
    item_id *ids = mem_alloc(m->n * sizeof *ids);
    for (size_t i = 0; i < m->n; i++)
        ids[i] = m->entries[i].id;
    int rc = item_infos_get(infos, w->mongo, ids, m->n, m->infos, e);
    free(ids);
    return rc;
}

/* "<sum> <ms>" as SCRIPT_LEARN writes it; anything else counts as nothing. */
static double decayed(const char *text, int64_t now_ms, int64_t half_life_ms)
{
    char *end;
    double sum = strtod(text, &end);
    if (end == text || *end != ' ')
        return 0;
    return score_decay(sum, now_ms - strtoll(end, NULL, 10), half_life_ms);
}

static int append_strings(struct redis *r, struct err *e, const char *a, const char *b, const char *c)
{
    const char *argv[] = {a, b, c};
    size_t len[] = {strlen(a), strlen(b), c ? strlen(c) : 0};
    return redis_append(r, c ? 3 : 2, argv, len, e);
}

static int read_features(struct worker *w, struct making *m, struct err *e)
{
    char key[KEY_SIZE];
    keys_affinity(key, keys_bucket(m->request->user), m->request->user);
    if (append_strings(w->redis, e, "HGETALL", key, NULL) < 0)
        return -1;
    for (size_t i = 0; i < m->n; i++) {
        keys_item_counters(key, m->entries[i].id);
        if (append_strings(w->redis, e, "HGET", key, "e") < 0)
            return -1;
    }
    int rc = redis_read(w->redis, &m->affinity, e);
    for (size_t i = 0; i < m->n; i++) {
        redisReply *reply;
        struct err one = {0};
        if (redis_read(w->redis, &reply, &one) < 0) {
            if (rc == 0) {
                *e = one;
                rc = -1;
            }
            if (redis_pending(w->redis) == 0)
                break; /* the connection went, nothing more will come */
            continue;
        }
        if (reply->type == REDIS_REPLY_STRING)
            m->engagement[i] = decayed(reply->str, m->now_ms, m->limits->engagement_half_life_ms);
        freeReplyObject(reply);
    }
    return rc;
}

static int known_compare(const void *x, const void *y)
{
    const char *const *a = x, *const *b = y; /* target is the first member */
    return strcmp(*a, *b);
}

static void index_affinity(struct making *m)
{
    if (m->affinity->type != REDIS_REPLY_ARRAY)
        return;
    m->known = mem_zero(m->affinity->elements / 2, sizeof *m->known);
    for (size_t i = 0; i + 1 < m->affinity->elements; i += 2) {
        const redisReply *field = m->affinity->element[i], *value = m->affinity->element[i + 1];
        if (field->type != REDIS_REPLY_STRING || value->type != REDIS_REPLY_STRING)
            continue;
        m->known[m->n_known].target = field->str;
        m->known[m->n_known++].sum = decayed(value->str, m->now_ms, m->limits->affinity_half_life_ms);
    }
    qsort(m->known, m->n_known, sizeof *m->known, known_compare);
}

static double affinity_to(const struct making *m, const char *target)
{
    const char *const *found = NULL;
    if (m->n_known > 0)
        found = bsearch(&target, m->known, m->n_known, sizeof *m->known, known_compare);
    return found ? m->known[(size_t)((const char *)found - (const char *)m->known) / sizeof *m->known].sum
                 : 0;
}

static void score_all(struct making *m)
{
    for (size_t i = 0; i < m->n; i++) {
        const struct item_info *info = &m->infos[i];
        struct score_features f = {.age_ms = m->now_ms - ids_time_ms(m->entries[i].id),
                                   .engagement = m->engagement[i]};
        if (info->n_targets > 0)
            f.publisher_affinity = affinity_to(m, info->targets[0]);
        for (unsigned t = 1; t < info->n_targets; t++)
            f.topic_affinity += affinity_to(m, info->targets[t]) / (info->n_targets - 1);
        m->entries[i].score = score_of(&m->limits->weights, &f);
    }
    score_sort(m->entries, m->n);
}

/* ZADD key 0 id 1 id ...: the place is the score. Expiry in the same pipeline; a session without it (we died
 * in between) is the cost of a kill -9, so it is set in the same transaction. */
static int write_session(struct worker *w, const struct making *m, const char *id, struct err *e)
{
    char key[KEY_SIZE], ttl[24];
    size_t argc = 2 + 2 * m->n;
    const char **argv = mem_alloc(argc * sizeof *argv);
    size_t *len = mem_alloc(argc * sizeof *len);
    char(*text)[ITEM_ID_TEXT_SIZE] = mem_alloc(2 * m->n * sizeof *text);
    len[1] = keys_session(key, keys_bucket(m->request->user), m->request->user, id);
    argv[0] = "ZADD";
    len[0] = 4;
    argv[1] = key;
    for (size_t i = 0; i < m->n; i++) {
        snprintf(text[2 * i], sizeof *text, "%zu", i);
        ids_format(m->entries[i].id, text[2 * i + 1]);
        for (size_t k = 2 * i; k < 2 * i + 2; k++) {
            argv[2 + k] = text[k];
            len[2 + k] = strlen(text[k]);
        }
    }
    snprintf(ttl, sizeof ttl, "%lld", (long long)m->limits->ttl_ms);
    const char *multi = "MULTI", *exec = "EXEC";
    size_t multi_len = 5, exec_len = 4;
    int rc = -1;
    if (redis_append(w->redis, 1, &multi, &multi_len, e) == 0 &&
        redis_append(w->redis, (int)argc, argv, len, e) == 0 &&
        append_strings(w->redis, e, "PEXPIRE", key, ttl) == 0 &&
        redis_append(w->redis, 1, &exec, &exec_len, e) == 0)
        rc = 0;
    for (int i = 0; rc == 0 && i < 4; i++) {
        redisReply *reply;
        rc = redis_read(w->redis, &reply, e);
        if (rc == 0)
            freeReplyObject(reply);
    }
    free(text);
    free(len);
    free(argv);
    return rc;
}

static void making_done(struct making *m)
{
    for (size_t i = 0; m->infos && i < m->n; i++)
        item_info_done(&m->infos[i]);
    if (m->affinity)
        freeReplyObject(m->affinity);
    free(m->infos);
    free(m->entries);
    free(m->engagement);
    free(m->known);
}

int session_make(struct worker *w, struct item_infos *infos, const struct session_limits *limits,
                 const struct session_request *r, int64_t now_ms, char id[SESSION_ID_SIZE], size_t *count,
                 struct err *e)
{
    struct making m = {.request = r, .limits = limits, .now_ms = now_ms};
    uint64_t random;
    int rc = -1;
    char made[SESSION_ID_SIZE];
    sign_random(&random, sizeof random);
    snprintf(made, sizeof made, "%016llx", (unsigned long long)random);
    take_candidates(&m);
    if (m.n > 0 && (read_items(w, infos, &m, e) < 0 || read_features(w, &m, e) < 0))
        goto out;
    if (m.n > 0) {
        index_affinity(&m);
        score_all(&m);
        if (write_session(w, &m, made, e) < 0)
            goto out;
    }
    memcpy(id, made, sizeof made);
    *count = m.n;
    rc = 0;
out:
    making_done(&m);
    return rc;
}
