#include "tests/support/timeline_model.h"

#include "common/keys.h"
#include "common/mem.h"
#include "common/ts.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CAP    8
#define HIGH   12
#define BUCKET 3
#define USER   "reader"
#define EVENTS 6000
#define IDS    12000

enum event_kind { JOIN, LEAVE, GRAPH };

struct event {
    enum event_kind kind;
    int id;
};

struct model {
    struct redis *redis;
    unsigned seed;
    struct model_counts *counts;
    char *why;
    size_t why_size;

    struct event events[EVENTS]; /* the one at index i happened at tick i + 2 */
    int n_events;
    int newest_id;
    ts_t graph_changed; /* known to the reader at once */

    ts_t epoch; /* of the owner */
    long long n;
    int applied; /* events that the owner has applied */

    bool building;
    ts_t build_r;
    int token;

    char tl[KEY_SIZE], pf[KEY_SIZE], bk[KEY_SIZE];
};

static int fail(struct model *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static int fail(struct model *m, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(m->why, m->why_size, fmt, ap);
    va_end(ap);
    return -1;
}

static int roll(struct model *m, int n)
{
    return rand_r(&m->seed) % n;
}

static ts_t now(const struct model *m)
{
    return (ts_t)m->n_events + 1;
}

/* ---- the truth ---- */

static bool graph_toggles(int id, int event)
{
    unsigned h = (unsigned)id * 2654435761u ^ (unsigned)event * 40503u;
    return (h >> 13) % 4 == 0;
}

/* What belongs to the feed at tick t. in and met are of IDS; met: belonged at some tick after t too. */
static void truth_at(const struct model *m, ts_t t, bool *in, bool *met, bool *left)
{
    bool exists[IDS] = {false};
    memset(in, 0, IDS);
    for (int i = 0; i < m->n_events; i++) {
        const struct event *ev = &m->events[i];
        bool after = (ts_t)i + 2 > t;
        if (after && met == NULL)
            return;
        if (ev->kind == JOIN && !after)
            exists[ev->id] = in[ev->id] = true;
        else if (ev->kind == LEAVE && !after)
            in[ev->id] = false;
        else if (ev->kind == JOIN)
            met[ev->id] = true;
        else if (ev->kind == LEAVE)
            left[ev->id] = true;
        else if (!after)
            for (int id = 1; id <= m->newest_id; id++)
                if (exists[id] && graph_toggles(id, i))
                    in[id] = !in[id];
    }
}

static void add_event(struct model *m)
{
    if (m->n_events == EVENTS || m->newest_id > IDS - 10)
        return;
    struct event *ev = &m->events[m->n_events];
    int what = roll(m, 100);
    if (what < 3) {
        ev->kind = GRAPH;
        ev->id = 0;
        m->graph_changed = now(m) + 1;
    } else if (what < 15 && m->newest_id > 0) {
        ev->kind = LEAVE;
        ev->id = m->newest_id - roll(m, m->newest_id < 20 ? m->newest_id : 20);
    } else if (what < 40 && m->newest_id > 0) { /* late, or back again */
        ev->kind = JOIN;
        ev->id = m->newest_id - roll(m, m->newest_id < 30 ? m->newest_id : 30);
    } else {
        ev->kind = JOIN;
        ev->id = m->newest_id += 1 + roll(m, 3);
    }
    m->n_events++;
}

/* ---- calling the scripts ---- */

static int call(struct model *m, enum script s, const char *const *argv, redisReply **out)
{
    struct err e = {0};
    int argc = 0;
    while (argv[argc + 1] != NULL)
        argc++;
    if (redis_script(m->redis, out, s, atoi(argv[0]), argc, (const char **)argv + 1, NULL, &e) < 0)
        return fail(m, "%s: %s", script_name(s), e.msg);
    return 0;
}

static int command(struct model *m, const char *const *argv, redisReply **out)
{
    struct err e = {0};
    int argc = 0;
    while (argv[argc] != NULL)
        argc++;
    if (redis_command(m->redis, out, argc, (const char **)argv, NULL, &e) < 0)
        return fail(m, "%s: %s", argv[0], e.msg);
    return 0;
}

static int run(struct model *m, const char *const *argv)
{
    redisReply *r;
    if (command(m, argv, &r) < 0)
        return -1;
    freeReplyObject(r);
    return 0;
}

#define RUN(m, ...) run(m, (const char *[]){__VA_ARGS__, NULL})

static ts_t parse(const redisReply *r)
{
    ts_t t = 0;
    struct err e;
    if (r->type != REDIS_REPLY_STRING || ts_parse(r->str, &t, &e) < 0)
        return 0;
    return t;
}

static int adopt(struct model *m, bool reset)
{
    char epoch[TS_TEXT_SIZE], t[TS_TEXT_SIZE];
    redisReply *r;
    ts_format(++m->epoch, epoch);
    ts_format(now(m), t);
    const char *argv[] = {"1", m->bk, epoch, t, reset ? "1" : "0", NULL};
    if (call(m, SCRIPT_ADOPT, argv, &r) < 0)
        return -1;
    long long answer = r->element[0]->integer;
    ts_t progress = parse(r->element[1]);
    freeReplyObject(r);
    if (answer == 0 || progress == 0 || progress > now(m))
        return fail(m, "adopt answered %lld, progress %llu at %llu", answer, (unsigned long long)progress,
                    (unsigned long long)now(m));
    m->n = 0;
    m->applied = (int)progress - 1;
    m->counts->adopted++;
    return 0;
}

/* An owner's script with one group; a refusal means to adopt again. */
static int owner_call(struct model *m, enum script s, ts_t t, int id, ts_t epoch, bool *done)
{
    char time[TS_TEXT_SIZE], e[TS_TEXT_SIZE], n[24], text[16], score[16];
    ts_format(t, time);
    ts_format(epoch, e);
    snprintf(n, sizeof n, "%lld", m->n);
    snprintf(text, sizeof text, "%d", id);
    snprintf(score, sizeof score, "-%d", id);
    redisReply *r;
    const char *deliver[] = {"2", m->bk, m->tl, time, text, score, "8", "11", "0", e, n, "1", NULL};
    const char *remove[] = {"2", m->bk, m->tl, time, text, e, n, "1", NULL};
    const char *drop[] = {"2", m->bk, m->tl, time, e, n, "1", NULL};
    const char *progress[] = {"1", m->bk, time, time, e, n, "0", "-", NULL};
    const char **argv = s == SCRIPT_DELIVER  ? deliver
                        : s == SCRIPT_REMOVE ? remove
                        : s == SCRIPT_DROP   ? drop
                                             : progress;
    if (call(m, s, argv, &r) < 0)
        return -1;
    *done = r->element[0]->integer >= 1;
    freeReplyObject(r);
    if (*done)
        m->n++;
    else
        m->counts->refused++;
    return 0;
}

static int exists(struct model *m, bool *out)
{
    redisReply *r;
    const char *argv[] = {"EXISTS", m->tl, NULL};
    if (command(m, argv, &r) < 0)
        return -1;
    *out = r->integer == 1;
    freeReplyObject(r);
    return 0;
}

/* Up to six items that join one after the other, by one script. */
static int apply_joins(struct model *m)
{
    char t[6][TS_TEXT_SIZE], id[6][16], score[6][16], e[TS_TEXT_SIZE], n[24], m_text[4];
    const char *argv[8 + 3 * 6 + 4] = {"2", m->bk, m->tl, NULL, "8", "12", "0", m_text};
    int k = 0, at = 8;
    for (; k < 6 && m->applied + k < m->n_events && m->events[m->applied + k].kind == JOIN; k++) {
        ts_format((ts_t)m->applied + 2 + (ts_t)k, t[k]);
        snprintf(id[k], sizeof id[k], "%d", m->events[m->applied + k].id);
        snprintf(score[k], sizeof score[k], "-%d", m->events[m->applied + k].id);
        argv[at++] = t[k];
        argv[at++] = id[k];
        argv[at++] = score[k];
    }
    if (k == 0)
        return 0;
    argv[3] = t[k - 1];
    snprintf(m_text, sizeof m_text, "%d", k);
    ts_format(m->epoch, e);
    snprintf(n, sizeof n, "%lld", m->n);
    argv[at++] = e;
    argv[at++] = n;
    argv[at] = "1";
    redisReply *r;
    if (call(m, SCRIPT_DELIVER_MANY, argv, &r) < 0)
        return -1;
    bool done = r->element[0]->integer == 1;
    freeReplyObject(r);
    if (!done) {
        m->counts->refused++;
        return adopt(m, false);
    }
    m->n++;
    m->applied += k;
    m->counts->together += k > 1;
    return 0;
}

static int apply_next(struct model *m)
{
    if (m->applied == m->n_events)
        return 0;
    if (m->events[m->applied].kind == JOIN && roll(m, 4) == 0)
        return apply_joins(m);
    const struct event *ev = &m->events[m->applied];
    static const enum script scripts[] = {
        [JOIN] = SCRIPT_DELIVER, [LEAVE] = SCRIPT_REMOVE, [GRAPH] = SCRIPT_DROP};
    bool before, after, done;
    if (exists(m, &before) < 0 ||
        owner_call(m, scripts[ev->kind], (ts_t)m->applied + 2, ev->id, m->epoch, &done) < 0 ||
        exists(m, &after) < 0)
        return -1;
    if (!done)
        return adopt(m, false);
    if (before && !after)
        m->counts->dropped++;
    if (m->building && after && ev->kind == JOIN && (ts_t)m->applied + 2 > m->build_r)
        m->counts->landed_while_building++;
    m->applied++;
    return 0;
}

static int write_progress(struct model *m)
{
    bool done;
    if (owner_call(m, SCRIPT_PROGRESS, (ts_t)m->applied + 1, 0, m->epoch, &done) < 0)
        return -1;
    return done ? 0 : adopt(m, false);
}

static int stale_owner(struct model *m)
{
    bool done;
    if (owner_call(m, SCRIPT_DELIVER, now(m), m->newest_id ? m->newest_id : 1, m->epoch - 1, &done) < 0)
        return -1;
    return done ? fail(m, "an owner that was replaced was obeyed") : 0;
}

static int begin(struct model *m)
{
    ts_t least = now(m) - (ts_t)roll(m, 5);
    if (least < m->graph_changed || least > now(m))
        least = ts_max(m->graph_changed, 1);
    char t[TS_TEXT_SIZE], token[16];
    ts_format(least, t);
    snprintf(token, sizeof token, "%d", m->token + 1);
    redisReply *r;
    const char *argv[] = {"3", m->tl, m->pf, m->bk, t, token, "60000", NULL};
    if (call(m, SCRIPT_BUILD, argv, &r) < 0)
        return -1;
    long long answer = r->element[0]->integer;
    ts_t R = r->elements > 1 ? parse(r->element[1]) : 0;
    freeReplyObject(r);
    if (answer == -1)
        return adopt(m, false);
    if (R < least || R > now(m))
        return fail(m, "build answered R %llu, asked for %llu at %llu", (unsigned long long)R,
                    (unsigned long long)least, (unsigned long long)now(m));
    if (answer == 1) {
        m->building = true;
        m->build_r = R;
        m->token++;
    }
    return 0;
}

static int finish(struct model *m)
{
    static bool in[IDS];
    if (!m->building)
        return 0;
    m->building = false;
    truth_at(m, m->build_r, in, NULL, NULL);
    char texts[CAP][2][16], floor[16], score[16], token[16];
    const char *argv[13 + 2 * CAP] = {"2", m->tl, m->pf, token, floor, score, "8", "60000", "", "1", ""};
    int n = 0, at_floor = 0;
    for (int id = m->newest_id; id >= 1 && at_floor == 0; id--) {
        if (!in[id])
            continue;
        if (n == CAP) {
            at_floor = id;
            break;
        }
        snprintf(texts[n][0], sizeof texts[n][0], "-%d", id);
        snprintf(texts[n][1], sizeof texts[n][1], "%d", id);
        argv[11 + 2 * n] = texts[n][0];
        argv[12 + 2 * n] = texts[n][1];
        n++;
    }
    snprintf(floor, sizeof floor, "%d", at_floor);
    snprintf(score, sizeof score, "-%d", at_floor);
    snprintf(token, sizeof token, "%d", m->token);
    redisReply *r;
    if (call(m, SCRIPT_FINISH, argv, &r) < 0)
        return -1;
    if (r->integer == 1)
        m->counts->finished++;
    else
        m->counts->tokens_lost++;
    freeReplyObject(r);
    return 0;
}

/* ---- judging ---- */

struct seen {
    bool counts;
    ts_t since; /* it holds what belonged at this time */
    int floor;
    int ids[HIGH + 2], n;
};

static int look(struct model *m, struct seen *s)
{
    redisReply *bk = NULL, *pf = NULL, *tl = NULL;
    const char *a[] = {"HMGET", m->bk, "progress", "born", NULL}, *b[] = {"HMGET", m->pf, "r", "st", NULL},
               *c[] = {"ZRANGE", m->tl, "0", "-1", "WITHSCORES", NULL};
    if (command(m, a, &bk) < 0 || command(m, b, &pf) < 0 || command(m, c, &tl) < 0)
        return -1;
    int rc = 0;
    ts_t progress = parse(bk->element[0]), born = parse(bk->element[1]), r = parse(pf->element[0]);
    memset(s, 0, sizeof *s);
    s->counts = progress != 0 && r != 0 && tl->elements > 0 && pf->element[1]->type == REDIS_REPLY_STRING &&
                pf->element[1]->str[0] == 'r' && r >= born && r >= m->graph_changed;
    s->since = ts_max(progress, r);
    bool floor = false;
    if (tl->elements / 2 > HIGH)
        rc = fail(m, "%zu members", tl->elements / 2);
    for (size_t i = 0; rc == 0 && i + 1 < tl->elements; i += 2) {
        const char *member = tl->element[i]->str;
        int value = abs(atoi(tl->element[i + 1]->str));
        if (strcmp(member, "f") == 0) {
            floor = true;
            s->floor = value;
        } else if (atoi(member) != value) {
            rc = fail(m, "member %s stands at %d", member, value);
        } else {
            s->ids[s->n++] = value;
        }
    }
    if (rc == 0 && tl->elements > 0 && !floor)
        rc = fail(m, "a timeline without a floor");
    freeReplyObject(bk);
    freeReplyObject(pf);
    freeReplyObject(tl);
    return rc;
}

static int judge(struct model *m, int *floor_before)
{
    static bool in[IDS], met[IDS], left[IDS], holds[IDS];
    struct seen s;
    if (look(m, &s) < 0)
        return -1;
    if (!s.counts) {
        *floor_before = -1;
        return 0;
    }
    m->counts->judged++;
    if (s.floor > 0)
        m->counts->floors_crossed++;
    if (*floor_before >= 0 && s.floor > *floor_before)
        m->counts->trimmed++;
    *floor_before = s.floor;
    memset(met, 0, sizeof met);
    memset(left, 0, sizeof left);
    memset(holds, 0, sizeof holds);
    truth_at(m, s.since, in, met, left);
    for (int i = 0; i < s.n; i++) {
        holds[s.ids[i]] = true;
        if (s.ids[i] > s.floor && !in[s.ids[i]] && !met[s.ids[i]])
            return fail(m, "shows %d above the floor %d, which did not belong at %llu or later", s.ids[i],
                        s.floor, (unsigned long long)s.since);
    }
    for (int id = s.floor + 1; id <= m->newest_id; id++)
        if (in[id] && !left[id] && !holds[id])
            return fail(m, "misses %d above the floor %d, which belonged from %llu on", id, s.floor,
                        (unsigned long long)s.since);
    return 0;
}

static int lose_something(struct model *m)
{
    switch (roll(m, 8)) {
    case 0:
        m->counts->flushed++;
        return RUN(m, "FLUSHALL");
    case 1:
        return RUN(m, "DEL", m->tl);
    case 2:
        return RUN(m, "DEL", m->pf);
    case 3:
        if (adopt(m, true) < 0)
            return -1;
        return m->applied == m->n_events ? 0 : fail(m, "a new record does not begin now");
    default:
        return RUN(m, "DEL", m->tl, m->pf);
    }
}

static int step(struct model *m)
{
    int what = roll(m, 1000);
    if (what < 400) {
        add_event(m);
        return 0;
    }
    if (what < 760)
        return apply_next(m);
    if (what < 820)
        return write_progress(m);
    if (what < 900)
        return begin(m);
    if (what < 970)
        return finish(m);
    if (what < 980)
        return adopt(m, false);
    if (what < 987)
        return stale_owner(m);
    return what < 993 ? lose_something(m) : 0;
}

int timeline_model_run(struct redis *r, unsigned seed, int steps, struct model_counts *counts, char *why,
                       size_t why_size)
{
    struct model *m = mem_zero(1, sizeof *m);
    m->redis = r;
    m->seed = seed;
    m->counts = counts;
    m->why = why;
    m->why_size = why_size;
    keys_timeline(m->tl, BUCKET, USER);
    keys_timeline_meta(m->pf, BUCKET, USER);
    keys_bucket_record(m->bk, BUCKET);
    int floor_before = -1, rc = adopt(m, false);
    for (int i = 0; rc == 0 && i < steps; i++) {
        rc = step(m);
        if (rc == 0)
            rc = judge(m, &floor_before);
    }
    while (rc == 0 && m->applied < m->n_events) /* to the end: now it must be exact */
        rc = apply_next(m);
    if (rc == 0)
        rc = write_progress(m);
    if (rc == 0)
        rc = judge(m, &floor_before);
    free(m);
    return rc;
}
