#include "fanout/deliver.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/mem.h"
#include "common/names.h"

#define TRIM_STEP 6 /* members beyond the cap before a timeline is trimmed */

struct group {
    unsigned bucket, count;
    char n[24], count_text[12], births[24];
};

/* A call that was sent: what its answer has to be matched with. */
struct call {
    enum script script;
    ts_t t;
    struct deliver_item items[DELIVER_ITEMS_MAX];
    unsigned n_items;          /* at least one; SCRIPT_DELIVER_MANY: several */
    unsigned n_groups, weight; /* weight: of all its timelines */
    uint8_t bucket[BUCKETS];
    unsigned count[DELIVER_GROUPS]; /* timelines of each group; of SCRIPT_PROGRESS there are none */
    reader_idx *who;                /* whose, in order */
    char user[NAME_MAX_BYTES + 1];  /* of SCRIPT_DROP: the last one */
};

struct deliver {
    struct deliver_options o;
    char cap[24], high[24];

    /* the call being put together */
    enum script script;
    ts_t t;
    char t_text[TS_TEXT_SIZE];
    struct deliver_item items[DELIVER_ITEMS_MAX];
    struct {
        char t[TS_TEXT_SIZE], id[ITEM_ID_TEXT_SIZE], score[ITEM_ID_TEXT_SIZE + 1];
    } item_text[DELIVER_ITEMS_MAX];
    unsigned n_items;
    char n_items_text[12];
    char seen[TS_TEXT_SIZE]; /* of SCRIPT_PROGRESS */
    bool tell;               /* some of the timelines are of known readers */
    char user[NAME_MAX_BYTES + 1];
    struct {
        char target[TARGET_TEXT_SIZE], floor[ITEM_ID_TEXT_SIZE + 1], count[12];
        char (*ids)[ITEM_ID_TEXT_SIZE]; /* timeline_cap of them */
        unsigned n;
    } turn;                     /* of SCRIPT_PULL, SCRIPT_PUSH */
    unsigned weight, most_keys; /* of one timeline; timelines in a call */
    reader_idx *who;
    unsigned n_keys, n_groups, max_keys;
    char (*keys)[KEY_SIZE];
    size_t *key_len;
    struct group groups[BUCKETS];
    const char **argv;
    size_t *argv_len;

    /* the calls sent, a ring */
    struct call *sent;
    unsigned first_sent, n_sent;

    uint32_t refused;
    bool broken;
    bool failed[BUCKETS];
    struct deliver_failure failure;
    unsigned in_flight; /* timelines of the calls sent */
};

unsigned deliver_items_max(int64_t cap)
{
    int64_t n = cap / 4 < DELIVER_ITEMS_MAX ? cap / 4 : DELIVER_ITEMS_MAX;
    return n > 1 ? (unsigned)n : 1;
}

int64_t deliver_timeline_high(int64_t cap)
{
    int64_t step = cap / 4 < TRIM_STEP ? cap / 4 : TRIM_STEP;
    return cap + 1 + (step > 1 ? step : 1); /* the floor counts too */
}

struct deliver *deliver_new(const struct deliver_options *o)
{
    struct deliver *d = mem_zero(1, sizeof *d);
    d->o = *o;
    d->o.window = o->window ? o->window : 1;
    d->o.batch_keys = o->batch_keys ? o->batch_keys : 1;
    snprintf(d->cap, sizeof d->cap, "%" PRId64, o->timeline_cap);
    snprintf(d->high, sizeof d->high, "%" PRId64, deliver_timeline_high(o->timeline_cap));
    d->max_keys = d->o.batch_keys + DELIVER_GROUPS;
    if (d->max_keys < BUCKETS)
        d->max_keys = BUCKETS; /* a call for progress names records only, but all of them */
    size_t args = d->max_keys + 6 + 3 * DELIVER_ITEMS_MAX + (size_t)o->timeline_cap + 4 * BUCKETS;
    d->turn.ids = mem_zero((size_t)o->timeline_cap, sizeof *d->turn.ids);
    d->keys = mem_zero(d->max_keys, sizeof *d->keys);
    d->key_len = mem_zero(d->max_keys, sizeof *d->key_len);
    d->argv = mem_zero(args, sizeof *d->argv);
    d->argv_len = mem_zero(args, sizeof *d->argv_len);
    d->sent = mem_zero(d->o.window, sizeof *d->sent);
    d->who = mem_zero(d->o.batch_keys, sizeof *d->who);
    for (unsigned i = 0; i < d->o.window; i++)
        d->sent[i].who = mem_zero(d->o.batch_keys, sizeof *d->sent[i].who);
    return d;
}

void deliver_free(struct deliver *d)
{
    if (!d)
        return;
    free(d->turn.ids);
    free(d->keys);
    free(d->key_len);
    free(d->argv);
    free(d->argv_len);
    for (unsigned i = 0; i < d->o.window; i++)
        free(d->sent[i].who);
    free(d->sent);
    free(d->who);
    free(d);
}

static void begin(struct deliver *d, enum script s, const struct deliver_item *at, unsigned n)
{
    assert(d->n_keys == 0 && s <= SCRIPT_PROGRESS && n >= 1 && n <= DELIVER_ITEMS_MAX);
    d->script = s;
    d->weight = 1;
    d->most_keys = d->o.batch_keys;
    d->t = at[n - 1].t;
    ts_format(d->t, d->t_text);
    memcpy(d->items, at, n * sizeof *at);
    d->n_items = n;
    snprintf(d->n_items_text, sizeof d->n_items_text, "%u", n);
    for (unsigned i = 0; i < n; i++) {
        ts_format(at[i].t, d->item_text[i].t);
        ids_format(at[i].id, d->item_text[i].id);
        snprintf(d->item_text[i].score, sizeof d->item_text[i].score, "-%s", d->item_text[i].id);
    }
}

unsigned deliver_items_weight(unsigned n)
{
    return n > 1 ? (n + 2) / 2 : 1; /* measured: 2.3 us an item at 6, 1.7 at 24, against 3.9 alone */
}

static void weigh(struct deliver *d, unsigned weight)
{
    unsigned most = DELIVER_CALL / weight;
    d->weight = weight;
    d->most_keys = most < d->o.batch_keys ? most : d->o.batch_keys;
}

void deliver_begin(struct deliver *d, enum script s, ts_t t, item_id id)
{
    begin(d, s, &(struct deliver_item){t, id}, 1);
}

void deliver_begin_items(struct deliver *d, const struct deliver_item *at, unsigned n)
{
    assert(n <= deliver_items_max(d->o.timeline_cap));
    begin(d, n > 1 ? SCRIPT_DELIVER_MANY : SCRIPT_DELIVER, at, n);
    weigh(d, deliver_items_weight(n));
}

void deliver_begin_pull(struct deliver *d, ts_t t, const char *target)
{
    deliver_begin(d, SCRIPT_PULL, t, 0);
    snprintf(d->turn.target, sizeof d->turn.target, "%s", target);
}

void deliver_begin_push(struct deliver *d, ts_t t, const char *target, const item_id *ids, size_t n,
                        item_id floor)
{
    assert((int64_t)n <= d->o.timeline_cap);
    deliver_begin(d, SCRIPT_PUSH, t, 0);
    snprintf(d->turn.target, sizeof d->turn.target, "%s", target);
    snprintf(d->turn.floor, sizeof d->turn.floor, "%s%" PRIu64, floor ? "-" : "", floor);
    snprintf(d->turn.count, sizeof d->turn.count, "%zu", n);
    for (size_t i = 0; i < n; i++)
        ids_format(ids[i], d->turn.ids[i]);
    d->turn.n = (unsigned)n;
    weigh(d, DELIVER_PUSH_WEIGHT);
}

/* ---- answers ---- */

static int break_off(struct deliver *d)
{
    d->broken = true;
    return -1;
}

/* Group i of a call begins here in its `who`. */
static unsigned place_of(const struct call *c, unsigned i)
{
    unsigned at = 0;
    while (i > 0)
        at += c->count[--i];
    return at;
}

static void note_gone(struct deliver *d, reader_idx who)
{
    if (who != READER_NONE && d->o.gone)
        d->o.gone(d->o.arg, who);
}

/* Of a group with more than one timeline it is not said which of them stays. */
static void note_dropped(struct deliver *d, const struct call *c, unsigned i, bool some_stay)
{
    unsigned at = place_of(c, i);
    for (unsigned k = 0; k < c->count[i]; k++) {
        if (c->who[at + k] != READER_NONE && d->o.dropped)
            d->o.dropped(d->o.arg, c->who[at + k], some_stay);
    }
}

/* "user reason": a timeline that was left out, of each item of the call. */
static void note_left_out(struct deliver *d, const struct call *c, unsigned bucket, const char *text)
{
    bool many = c->script == SCRIPT_DELIVER_MANY; /* each is tried again for itself */
    struct deliver_failure f = {.script = many ? SCRIPT_DELIVER : c->script, .bucket = bucket};
    size_t n = strcspn(text, " ");
    if (text[n] == '\0' || n > NAME_MAX_BYTES || !d->o.left_out)
        return;
    memcpy(f.user, text, n);
    snprintf(f.why, sizeof f.why, "redis: %s", text + n + 1);
    for (unsigned i = 0; i < c->n_items; i++) {
        f.t = c->items[i].t;
        f.item = c->items[i].id;
        d->o.left_out(d->o.arg, &f);
    }
}

/* Places of absent timelines, and texts about those left out. */
static int read_told(struct deliver *d, const struct call *c, unsigned i, const redisReply *r, struct err *e)
{
    unsigned at = place_of(c, i);
    for (size_t k = 0; k < r->elements; k++) {
        const redisReply *x = r->element[k];
        if (x->type == REDIS_REPLY_STRING) {
            note_left_out(d, c, c->bucket[i], x->str);
            continue;
        }
        if (x->type != REDIS_REPLY_INTEGER || x->integer < 0 || x->integer >= c->count[i])
            return err_set(e, ERR_CORRUPT, "script deliver answered a place that is none");
        note_gone(d, c->who[at + (unsigned)x->integer]);
    }
    return 0;
}

/* What stands for the newborn in the answer of SCRIPT_PROGRESS: the newest first, the count at the end. */
static int read_births(struct deliver *d, unsigned bucket, const redisReply *r, struct err *e)
{
    struct bucket *b = &d->o.buckets->at[bucket];
    const redisReply *last = r->elements ? r->element[r->elements - 1] : NULL;
    if (!last || last->type != REDIS_REPLY_STRING)
        return err_set(e, ERR_CORRUPT, "script progress answered no number of births");
    int64_t births = atoll(last->str);
    bool all = births - b->births == (int64_t)r->elements - 1;
    b->births = births;
    for (size_t i = r->elements - 1; all && i-- > 0;) {
        const redisReply *x = r->element[i];
        char text[TS_TEXT_SIZE] = "";
        ts_t t;
        if (x->type == REDIS_REPLY_STRING && x->len >= TS_TEXT_SIZE)
            memcpy(text, x->str, TS_TEXT_SIZE - 1);
        all = ts_parse(text, &t, NULL) == 0 && strlen(x->str) == x->len &&
              x->len < TS_TEXT_SIZE + NAME_MAX_BYTES;
        if (all)
            d->o.born(d->o.arg, bucket, t, x->str + TS_TEXT_SIZE - 1);
    }
    if (!all)
        d->o.births_lost(d->o.arg, bucket);
    return 0;
}

static void refuse_group(struct deliver *d, unsigned bucket)
{
    d->refused |= 1u << bucket_share(bucket);
    metrics_add(d->o.metrics, M_REFUSED, 0, 1);
}

static int check_group(struct deliver *d, const struct call *c, unsigned i, const redisReply *r,
                       struct err *e)
{
    struct bucket *b = &d->o.buckets->at[c->bucket[i]];
    if (r->type == REDIS_REPLY_ARRAY && c->script != SCRIPT_PROGRESS)
        return read_told(d, c, i, r, e);
    if (r->type == REDIS_REPLY_ARRAY && c->script == SCRIPT_PROGRESS && b->births >= 0)
        return read_births(d, c->bucket[i], r, e);
    if (r->type != REDIS_REPLY_INTEGER)
        return err_set(e, ERR_CORRUPT, "script %s answered something else than integers",
                       script_name(c->script));
    if (r->integer == 0)
        refuse_group(d, c->bucket[i]);
    else if (c->script == SCRIPT_PROGRESS)
        b->applied = ts_max(b->applied, c->t);
    else if (c->script == SCRIPT_DROP)
        note_dropped(d, c, i, r->integer != 1);
    return 0;
}

static int check_reply(struct deliver *d, const struct call *c, const redisReply *r, struct err *e)
{
    if (r->type != REDIS_REPLY_ARRAY || r->elements != c->n_groups)
        return err_set(e, ERR_CORRUPT, "script %s answered %zu results for %u groups", script_name(c->script),
                       r->elements, c->n_groups);
    for (unsigned i = 0; i < c->n_groups; i++) {
        if (check_group(d, c, i, r->element[i], e) != 0)
            return -1;
    }
    return 0;
}

static void note_failed(struct deliver *d, const struct call *c, const struct err *e)
{
    for (unsigned i = 0; i < c->n_groups; i++)
        d->failed[c->bucket[i]] = true;
    d->failure = (struct deliver_failure){
        .script = c->script, .t = c->items[0].t, .item = c->items[0].id, .bucket = c->bucket[0]};
    if (c->script == SCRIPT_DROP)
        strcpy(d->failure.user, c->user);
    snprintf(d->failure.why, sizeof d->failure.why, "%s", e->msg);
}

static int read_one(struct deliver *d, struct err *e)
{
    struct call *c = &d->sent[d->first_sent];
    redisReply *r;
    d->first_sent = (d->first_sent + 1) % d->o.window;
    d->n_sent--;
    d->in_flight -= c->weight;
    if (redis_read(d->o.redis, &r, e) != 0) {
        if (e->code == ERR_INTERNAL)
            note_failed(d, c, e);
        return break_off(d);
    }
    int rc = check_reply(d, c, r, e);
    freeReplyObject(r);
    return rc == 0 ? 0 : break_off(d);
}

int deliver_drain(struct deliver *d, struct err *e)
{
    if (d->broken)
        return err_set(e, ERR_UNAVAILABLE, "what was sent to Redis is not known to have been applied");
    while (d->n_sent) {
        if (read_one(d, e) != 0)
            return -1;
    }
    return 0;
}

/* ---- sending ---- */

static void arg(struct deliver *d, int *argc, const char *s)
{
    d->argv[*argc] = s;
    d->argv_len[(*argc)++] = strlen(s);
}

static const char *births_text(struct deliver *d, struct group *g)
{
    int64_t births = d->o.buckets->at[g->bucket].births;
    snprintf(g->births, sizeof g->births, births < 0 ? "-" : "%" PRId64, births);
    return g->births;
}

static void put_turn(struct deliver *d, int *argc)
{
    arg(d, argc, d->turn.target);
    if (d->script == SCRIPT_PULL)
        return;
    arg(d, argc, d->cap);
    arg(d, argc, d->turn.floor);
    arg(d, argc, d->turn.count);
    for (unsigned i = 0; i < d->turn.n; i++)
        arg(d, argc, d->turn.ids[i]);
}

static void put_trim(struct deliver *d, int *argc)
{
    arg(d, argc, d->cap);
    arg(d, argc, d->high);
    arg(d, argc, d->tell ? "1" : "0");
}

static void put_items(struct deliver *d, int *argc)
{
    if (d->script == SCRIPT_DELIVER || d->script == SCRIPT_REMOVE)
        arg(d, argc, d->item_text[0].id);
    if (d->script == SCRIPT_DELIVER) {
        arg(d, argc, d->item_text[0].score);
        put_trim(d, argc);
    }
    if (d->script != SCRIPT_DELIVER_MANY)
        return;
    put_trim(d, argc);
    arg(d, argc, d->n_items_text);
    for (unsigned i = 0; i < d->n_items; i++) {
        arg(d, argc, d->item_text[i].t);
        arg(d, argc, d->item_text[i].id);
        arg(d, argc, d->item_text[i].score);
    }
}

static int put_arguments(struct deliver *d)
{
    int argc = 0;
    for (unsigned i = 0; i < d->n_keys; i++) {
        d->argv[argc] = d->keys[i];
        d->argv_len[argc++] = d->key_len[i];
    }
    bool progress = d->script == SCRIPT_PROGRESS;
    if (progress)
        arg(d, &argc, d->seen);
    arg(d, &argc, d->t_text);
    put_items(d, &argc);
    if (d->script == SCRIPT_PULL || d->script == SCRIPT_PUSH)
        put_turn(d, &argc);
    for (unsigned i = 0; i < d->n_groups; i++) {
        struct group *g = &d->groups[i];
        snprintf(g->count_text, sizeof g->count_text, "%u", g->count);
        arg(d, &argc, d->o.buckets->at[g->bucket].epoch);
        arg(d, &argc, g->n);
        arg(d, &argc, g->count_text);
        if (progress)
            arg(d, &argc, births_text(d, g));
    }
    return argc;
}

static void note_sent(struct deliver *d)
{
    struct call *c = &d->sent[(d->first_sent + d->n_sent++) % d->o.window];
    c->script = d->script;
    c->t = d->t;
    memcpy(c->items, d->items, sizeof c->items);
    c->n_items = d->n_items;
    memcpy(c->user, d->user, sizeof c->user);
    c->n_groups = d->n_groups;
    for (unsigned i = 0; i < d->n_groups; i++) {
        c->bucket[i] = (uint8_t)d->groups[i].bucket;
        if (i < DELIVER_GROUPS)
            c->count[i] = d->groups[i].count;
    }
    c->weight = (d->n_keys - d->n_groups) * d->weight;
    d->in_flight += c->weight;
    memcpy(c->who, d->who, (d->n_keys - d->n_groups) * sizeof *c->who);
    metrics_add(d->o.metrics, M_SCRIPTS, d->script, 1);
    metrics_add(d->o.metrics, M_TIMELINES, d->script == SCRIPT_DELIVER_MANY ? SCRIPT_DELIVER : d->script,
                (uint64_t)(d->n_keys - d->n_groups) * d->n_items);
}

static int send_call(struct deliver *d, struct err *e)
{
    if (d->n_groups == 0)
        return 0;
    while (d->n_sent >= d->o.window || (d->n_sent && d->in_flight > DELIVER_IN_FLIGHT)) {
        if (read_one(d, e) != 0)
            return -1;
    }
    int argc = put_arguments(d);
    if (redis_script_append(d->o.redis, d->script, (int)d->n_keys, argc, d->argv, d->argv_len, e) != 0)
        return break_off(d);
    note_sent(d);
    d->n_keys = d->n_groups = 0;
    d->tell = false;
    return 0;
}

static void open_group(struct deliver *d, unsigned bucket)
{
    struct group *g = &d->groups[d->n_groups++];
    g->bucket = bucket;
    g->count = 0;
    snprintf(g->n, sizeof g->n, "%" PRIu64, d->o.buckets->at[bucket].n++);
    d->key_len[d->n_keys] = keys_bucket_record(d->keys[d->n_keys], bucket);
    d->n_keys++;
}

static bool may_send(const struct deliver *d, unsigned bucket)
{
    return !(d->refused & 1u << bucket_share(bucket));
}

static bool wanted(const struct deliver *d, unsigned bucket)
{
    return bucket_is_due(d->o.buckets, bucket, d->t) && may_send(d, bucket);
}

int deliver_add(struct deliver *d, unsigned bucket, const char *user, reader_idx who, struct err *e)
{
    if (d->broken)
        return err_set(e, ERR_UNAVAILABLE, "what was sent to Redis is not known to have been applied");
    if (!wanted(d, bucket))
        return 0;
    bool same = d->n_groups && d->groups[d->n_groups - 1].bucket == bucket;
    if (d->n_keys - d->n_groups >= d->most_keys || (!same && d->n_groups == DELIVER_GROUPS)) {
        if (send_call(d, e) != 0)
            return -1;
        same = false;
        if (!wanted(d, bucket)) /* the answers read meanwhile refused it */
            return 0;
    }
    if (!same)
        open_group(d, bucket);
    if (d->script == SCRIPT_DROP)
        snprintf(d->user, sizeof d->user, "%s", user);
    d->who[d->n_keys - d->n_groups] = who;
    d->tell |= who != READER_NONE;
    d->key_len[d->n_keys] = keys_timeline(d->keys[d->n_keys], bucket, user);
    d->n_keys++;
    d->groups[d->n_groups - 1].count++;
    return 0;
}

int deliver_end(struct deliver *d, struct err *e)
{
    if (d->broken)
        return err_set(e, ERR_UNAVAILABLE, "what was sent to Redis is not known to have been applied");
    return send_call(d, e);
}

/* `seen` is told also where there is no progress. */
static void add_record(struct deliver *d, unsigned bucket, ts_t seen)
{
    if (wanted(d, bucket) ||
        (seen > d->t && bucket_is_due(d->o.buckets, bucket, seen) && may_send(d, bucket)))
        open_group(d, bucket);
}

int deliver_progress(struct deliver *d, ts_t seen, ts_t t, const ts_t *held, struct err *e)
{
    if (deliver_end(d, e) != 0)
        return -1;
    ts_format(ts_max(seen, t), d->seen);
    deliver_begin(d, SCRIPT_PROGRESS, t, 0);
    for (unsigned b = 0; b < BUCKETS; b++) {
        if (!held || held[b] == 0 || held[b] > t)
            add_record(d, b, seen);
    }
    if (send_call(d, e) != 0)
        return -1;
    for (unsigned b = 0; held && b < BUCKETS; b++) {
        if (held[b] == 0 || held[b] > t)
            continue;
        deliver_begin(d, SCRIPT_PROGRESS, held[b] - 1, 0);
        add_record(d, b, ts_max(seen, t));
        if (send_call(d, e) != 0)
            return -1;
    }
    return deliver_drain(d, e);
}

/* ---- trouble ---- */

uint32_t deliver_refused(const struct deliver *d)
{
    return d->refused;
}

void deliver_refuse(struct deliver *d, uint32_t shares)
{
    d->refused |= shares;
}

void deliver_allow(struct deliver *d, uint32_t shares)
{
    d->refused &= ~shares;
}

bool deliver_broken(const struct deliver *d)
{
    return d->broken;
}

void deliver_break(struct deliver *d)
{
    d->broken = true;
}

const bool *deliver_failed(const struct deliver *d, struct deliver_failure *out)
{
    *out = d->failure;
    return d->failed;
}

/* The answers still outstanding on a living connection are read away, so that those of the next calls match.
 */
void deliver_mend(struct deliver *d)
{
    struct err ignored;
    redisReply *r;
    while (redis_pending(d->o.redis) > 0) {
        if (redis_read(d->o.redis, &r, &ignored) == 0)
            freeReplyObject(r);
    }
    d->n_sent = d->first_sent = d->in_flight = 0;
    d->n_keys = d->n_groups = 0;
    d->tell = false;
    d->broken = false;
    memset(d->failed, 0, sizeof d->failed);
    d->failure = (struct deliver_failure){.t = 0};
}
