/* Who has a timeline: found out by a scan of Redis at the start, kept up to date by what scripts answer.
 *
 * The rule that makes cached lists exact: a reader whom `readers` knows is on every cached list of a target
 * that he follows. So who gets a timeline is put on the lists that he belongs to, whatever he was on before
 * (his follows may be others now); and he is given what was begun since the buckets' records were last told
 * of the log's time (`seen`), for what was begun before that is within the R of his timeline. A timeline that
 * stays when it is to be dropped was built from newer follows than the lists may show: the same.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "fanout/engine_private.h"

#define AT_ONCE AUDIENCE_FOLLOWS_USERS
#define NEWBORNS_MANY                                                                                        \
    2000 /* from here on asking for everybody's follows costs more than loading lists again */
#define SCAN_COUNT    "1000"
#define SCAN_AGAIN_MS 200

/* ---- what scripts answer ---- */

void engine_note_gone(void *arg, reader_idx who)
{
    struct engine *g = arg;
    if (readers_still_active(g->apply.readers, who))
        readers_retire(g->apply.readers, who);
}

static void add_newborn(struct engine *g, unsigned bucket, ts_t r, const char *user)
{
    if (g->n_newborns == g->newborns_cap) {
        g->newborns_cap = g->newborns_cap ? g->newborns_cap * 2 : 64;
        g->newborns = mem_grow(g->newborns, g->newborns_cap, sizeof *g->newborns);
    }
    struct newborn *n = &g->newborns[g->n_newborns++];
    n->bucket = bucket;
    n->r = r;
    snprintf(n->user, sizeof n->user, "%s", user);
}

/* At most SCRIPT_NEWBORNS_MAX a bucket and progress call: bounded. */
void engine_note_born(void *arg, unsigned bucket, ts_t r, const char *user)
{
    add_newborn(arg, bucket, r, user);
}

/* What was built later than the change of the user is listed again, by what he follows now. */
void engine_note_dropped(void *arg, uint32_t who, bool stays)
{
    struct engine *g = arg;
    const struct newborn *d = &g->drops[who % ENGINE_DROPS];
    if (stays)
        add_newborn(g, d->bucket, d->r, d->user);
}

int engine_drop_user(struct engine *g, const struct change *c, struct err *e)
{
    uint32_t who = READER_NONE;
    if (!bucket_is_due(&g->buckets, keys_bucket(c->name), c->t))
        return 0;
    reader_idx i = readers_find(g->apply.readers, c->name);
    if (i != READER_NONE) {
        who = g->next_drop % ENGINE_DROPS;
        struct newborn *d = &g->drops[who];
        d->bucket = readers_bucket(g->apply.readers, i);
        d->r = c->t;
        snprintf(d->user, sizeof d->user, "%s", readers_name(g->apply.readers, i));
    }
    if (apply_user(&g->apply, c, who, e) != 0)
        return -1;
    if (i != READER_NONE) {
        g->next_drop++;
        if (readers_still_active(g->apply.readers, i)) /* an answer read meanwhile may have said so already */
            readers_retire(g->apply.readers, i);
    }
    return 0;
}

void engine_note_births_lost(void *arg, unsigned bucket)
{
    struct engine *g = arg;
    if (!g->forget)
        log_event(LOG_INFO, "births_lost", LOG_U("bucket", bucket));
    g->forget = true;
}

/* ---- forgetting ---- */

static void restart_tasks(struct engine *g)
{
    struct task *k;
    TAILQ_FOREACH(k, tasks_all(g->tasks), in_log)
    {
        if (k->state == TASK_BEGUN)
            apply_abandon(&g->apply, k);
    }
    tasks_restart(g->tasks);
}

void engine_forget(struct engine *g)
{
    restart_tasks(g);
    lists_clear(g->apply.lists);
    readers_clear(g->apply.readers);
    for (unsigned b = 0; b < BUCKETS; b++)
        g->buckets.at[b].births = -1;
    g->n_newborns = 0;
    g->apply.known = g->forget = g->scanning = false;
}

/* ---- newborns ---- */

/* Some newborns, and which tasks they may have been missed by. */
struct some {
    struct engine *g;
    unsigned n;
    reader_idx who[AT_ONCE];
    struct match {
        struct task *task;
        uint32_t add, keep, remove; /* bits of who; keep: who follows a pulled target of the item */
    } * at;
    size_t n_matches, cap;
};

static struct match *match_of(struct some *s, struct task *k)
{
    for (size_t i = 0; i < s->n_matches; i++) {
        if (s->at[i].task == k)
            return &s->at[i];
    }
    if (s->n_matches == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 64;
        s->at = mem_grow(s->at, s->cap, sizeof *s->at);
    }
    s->at[s->n_matches] = (struct match){.task = k};
    return &s->at[s->n_matches++];
}

static void match_tasks(struct some *s, unsigned i, const char *target)
{
    uint32_t hash = readers_hash(target);
    struct task *k;
    TAILQ_FOREACH(k, tasks_all(s->g->tasks), in_log)
    {
        for (unsigned t = 0; k->state != TASK_WAITING && t < k->n_add + k->n_remove; t++) {
            if (k->targets[t].hash != hash || strcmp(k->targets[t].text, target) != 0)
                continue;
            struct match *m = match_of(s, k);
            *(t >= k->n_add ? &m->remove : k->targets[t].pulled ? &m->keep : &m->add) |= UINT32_C(1) << i;
        }
    }
}

static void take_follow(void *arg, unsigned i, const char *target)
{
    struct some *s = arg;
    lists_newborn(s->g->apply.lists, s->who[i], target);
    match_tasks(s, i, target);
}

static int send_to(struct some *s, uint32_t who, struct err *e)
{
    struct apply *a = &s->g->apply;
    for (unsigned i = 0; i < s->n; i++) {
        if (who & UINT32_C(1) << i && deliver_add(a->deliver, readers_bucket(a->readers, s->who[i]),
                                                  readers_name(a->readers, s->who[i]), READER_NONE, e) != 0)
            return -1;
    }
    return deliver_end(a->deliver, e);
}

static int send_match(struct some *s, const struct match *m, struct err *e)
{
    struct apply *a = &s->g->apply;
    uint32_t remove = m->remove & ~(m->add | m->keep);
    if (m->add && (apply_begin_script(a, m->task, e) != 0 || send_to(s, m->add, e) != 0))
        return -1;
    if (remove == 0)
        return 0;
    deliver_begin(a->deliver, SCRIPT_REMOVE, m->task->t, m->task->id);
    return send_to(s, remove, e);
}

static int by_time(const void *a, const void *b)
{
    const struct match *x = a, *y = b;
    return x->task->t < y->task->t ? -1 : x->task->t > y->task->t;
}

static int send_matches(struct some *s, struct err *e)
{
    if (s->n_matches)
        qsort(s->at, s->n_matches, sizeof *s->at, by_time);
    for (size_t i = 0; i < s->n_matches; i++) {
        if (send_match(s, &s->at[i], e) != 0)
            return -1;
    }
    return 0;
}

/* Takes the last newborns; those of them who are known are listed anew. */
static int take_some(struct some *s, struct err *e)
{
    struct engine *g = s->g;
    const char *users[AT_ONCE];
    struct newborn *from;
    s->n = g->n_newborns < AT_ONCE ? (unsigned)g->n_newborns : AT_ONCE;
    from = &g->newborns[g->n_newborns - s->n];
    mongo_conn_after(g->conn, g->tail_at);
    for (unsigned i = 0; i < s->n; i++) {
        reader_idx old = readers_find(g->apply.readers, from[i].user);
        if (old != READER_NONE)
            readers_retire(g->apply.readers, old);
        s->who[i] = readers_add(g->apply.readers, from[i].bucket, from[i].user);
        users[i] = readers_name(g->apply.readers, s->who[i]);
        mongo_conn_after(g->conn, from[i].r);
    }
    mongo_conn_deadline(g->conn, 10000);
    s->n_matches = 0;
    if (audience_follows(g->conn, users, s->n, take_follow, s, e) != 0)
        return -1;
    struct newborn taken[AT_ONCE];
    memcpy(taken, from, s->n * sizeof *taken);
    g->n_newborns -= s->n; /* first: answers that are read meanwhile may bring others */
    if (send_matches(s, e) == 0) {
        metrics_add(g->o.metrics, M_NEWBORNS, 0, s->n);
        return 0;
    }
    for (unsigned i = 0; i < s->n; i++)
        add_newborn(g, taken[i].bucket, taken[i].r, taken[i].user);
    return -1;
}

/* A reader who is twice among them must be taken once: the latest of him. */
static int by_user(const void *a, const void *b)
{
    const struct newborn *x = a, *y = b;
    int rc = strcmp(x->user, y->user);
    return rc ? rc : (x->r < y->r ? -1 : x->r > y->r);
}

static void keep_last_of_each(struct engine *g)
{
    size_t kept = 0;
    qsort(g->newborns, g->n_newborns, sizeof *g->newborns, by_user);
    for (size_t i = 0; i < g->n_newborns; i++) {
        if (i + 1 < g->n_newborns && strcmp(g->newborns[i].user, g->newborns[i + 1].user) == 0)
            continue;
        g->newborns[kept++] = g->newborns[i];
    }
    g->n_newborns = kept;
}

static bool has_nothing_to_match(struct engine *g)
{
    return !g->apply.known || (lists_count_lists(g->apply.lists) == 0 && TAILQ_EMPTY(tasks_all(g->tasks)));
}

/* Without lists nobody is missing from one, and whatever was begun is begun again: so no follows are read. */
static void take_all_without_lists(struct engine *g)
{
    if (!has_nothing_to_match(g)) {
        log_event(LOG_INFO, "lists_begun_anew", LOG_U("newborns", g->n_newborns));
        restart_tasks(g);
        lists_clear(g->apply.lists);
    }
    for (size_t i = 0; i < g->n_newborns; i++)
        (void)readers_add(g->apply.readers, g->newborns[i].bucket, g->newborns[i].user);
    metrics_add(g->o.metrics, M_NEWBORNS, 0, g->n_newborns);
    g->n_newborns = 0;
}

int engine_take_newborns(struct engine *g, struct err *e)
{
    int rc = 0;
    if (g->n_newborns == 0)
        return 0;
    if (deliver_drain(g->deliver, e) != 0) /* an index in flight must not become another reader's */
        return -1;
    if (g->forget || (!g->apply.known && !g->scanning)) {
        g->n_newborns = 0;
        return 0;
    }
    /* While it is not known who has a timeline there are no lists, and everybody is delivered to. */
    if (has_nothing_to_match(g) || g->n_newborns > NEWBORNS_MANY) {
        take_all_without_lists(g);
        return 0;
    }
    struct some s = {.g = g};
    keep_last_of_each(g);
    while (rc == 0 && g->n_newborns > 0)
        rc = take_some(&s, e);
    free(s.at);
    return rc;
}

/* ---- the scan ---- */

static int read_births(struct engine *g, unsigned bucket, struct err *e)
{
    char key[KEY_SIZE];
    redisReply *r;
    keys_bucket_record(key, bucket);
    if (redis_commandf(g->scan_redis, &r, e, "HGET", key, "births", NULL) != 0)
        return -1;
    g->buckets.at[bucket].births = r->type == REDIS_REPLY_STRING ? atoll(r->str) : 0;
    freeReplyObject(r);
    return 0;
}

static int begin_scan(struct engine *g, struct err *e)
{
    for (unsigned b = 0; b < BUCKETS; b++) {
        if (g->buckets.at[b].owned && read_births(g, b, e) != 0)
            return -1;
    }
    strcpy(g->scan_cursor, "0");
    g->scanning = true;
    return 0;
}

static void take_key(struct engine *g, const char *key)
{
    unsigned bucket;
    int end = 0;
    if (sscanf(key, "tl:{%3u}:%n", &bucket, &end) != 1 || end == 0 || bucket >= BUCKETS ||
        !g->buckets.at[bucket].owned)
        return;
    const char *user = key + end;
    if (user[0] != '\0' && strlen(user) <= NAME_MAX_BYTES)
        (void)readers_add(g->apply.readers, bucket, user);
}

static int read_keys(struct engine *g, const redisReply *r, struct err *e)
{
    if (r->type != REDIS_REPLY_ARRAY || r->elements != 2 || r->element[0]->type != REDIS_REPLY_STRING ||
        r->element[1]->type != REDIS_REPLY_ARRAY || r->element[0]->len >= sizeof g->scan_cursor)
        return err_set(e, ERR_CORRUPT, "SCAN answered something else than a cursor and keys");
    for (size_t i = 0; i < r->element[1]->elements; i++) {
        if (r->element[1]->element[i]->type == REDIS_REPLY_STRING)
            take_key(g, r->element[1]->element[i]->str);
    }
    strcpy(g->scan_cursor, r->element[0]->str);
    return 0;
}

static int scan(struct engine *g, struct err *e)
{
    redisReply *r;
    if (!g->scanning && begin_scan(g, e) != 0)
        return -1;
    if (redis_commandf(g->scan_redis, &r, e, "SCAN", g->scan_cursor, "MATCH", "tl:*", "COUNT", SCAN_COUNT,
                       NULL) != 0)
        return -1;
    int rc = read_keys(g, r, e);
    freeReplyObject(r);
    return rc;
}

/* Trouble with the scan is not the engine's: as long as it is not known who has a timeline, everybody counts
 * as having one. */
int engine_scan_step(struct engine *g, struct err *e)
{
    struct err why;
    if (g->apply.known || clock_mono_ms() < g->scan_not_before_ms)
        return 0;
    if (deliver_drain(g->deliver, e) != 0)
        return -1;
    if (scan(g, &why) != 0) {
        g->scanning = false;
        g->scan_not_before_ms = clock_mono_ms() + SCAN_AGAIN_MS;
        log_event(LOG_WARN, "scan_failed", LOG_ERR(&why));
        return 0;
    }
    if (strcmp(g->scan_cursor, "0") != 0)
        return 0;
    g->scanning = false;
    g->apply.known = true;
    log_event(LOG_INFO, "readers_known", LOG_U("readers", readers_count(g->apply.readers)));
    return 0;
}
