#include "fanout/apply.h"

#include <stdlib.h>
#include <string.h>
#include "common/mem.h"
#include "common/target_ids.h"

#define REMOVE_BATCH     500
#define READ_DEADLINE_MS 10000 /* of one read; a batch of the audience takes milliseconds */
#define SLICE            60

void apply_init(struct apply *a, unsigned audience_batch, int64_t timeline_entries)
{
    memset(a, 0, sizeof *a);
    a->newest_cap = (size_t)timeline_entries;
    a->newest = mem_zero(a->newest_cap + 1, sizeof *a->newest);
    audience_batch_init(&a->batch, audience_batch);
    audience_batch_init(&a->small, audience_batch < REMOVE_BATCH ? audience_batch : REMOVE_BATCH);
}

void apply_done(struct apply *a)
{
    audience_batch_done(&a->batch);
    audience_batch_done(&a->small);
    free(a->newest);
}

/* ---- what to do ---- */

/* The item as the change tells it (a new one), else as it is now. */
static int read_item(struct apply *a, const struct change *c, struct item_now *now, struct err *e)
{
    if (!c->item_told) {
        mongo_conn_after(a->conn, c->t);
        mongo_conn_deadline(a->conn, READ_DEADLINE_MS);
        return audience_item(a->conn, c->item, now, e);
    }
    now->live = true;
    strcpy(now->publisher, c->publisher);
    now->n_topics = c->n_topics;
    memcpy(now->topics, c->topics, c->n_topics * sizeof c->topics[0]);
    return 0;
}

int apply_read(struct apply *a, const struct change *c, struct plan *out, char *publisher, bool *asks,
               struct err *e)
{
    struct item_now now;
    *asks = false;
    if (!plan_reads_item(c))
        return 0;
    if (read_item(a, c, &now, e) != 0)
        return -1;
    plan_item(c, &now, out);
    *asks = out->n_remove > 0;
    for (unsigned i = 0; i < out->n_add; i++) {
        out->pulled[i] = modes_pulled(a->modes, out->add[i], c->t);
        *asks |= !out->pulled[i];
    }
    if (*asks)
        strcpy(publisher, now.publisher);
    return 0;
}

/* ---- walking ---- */

/* A list is complete for all buckets that are owned; else only those count that the change is new to. */
static bool is_asked(const struct apply *a, const struct task *k, unsigned bucket)
{
    return k->work.loading ? a->buckets->at[bucket].owned : bucket_is_due(a->buckets, bucket, k->work.last);
}

static bool next_range(const struct apply *a, struct task *k, struct bucket_range *out)
{
    unsigned b = k->work.bucket;
    while (b < BUCKETS && !is_asked(a, k, b))
        b++;
    if (b == BUCKETS)
        return false;
    out->first = b;
    while (b < BUCKETS && is_asked(a, k, b))
        b++;
    out->last = b - 1;
    k->work.bucket = b;
    return true;
}

static void next_target(struct task *k)
{
    k->work.target++;
    k->work.started = false;
}

static void start_target(struct apply *a, struct task *k, bool cached)
{
    struct task_work *w = &k->work;
    const char *target = k->targets[w->target].text;
    size_t n;
    w->started = true;
    w->bucket = 0;
    w->in_range = false;
    w->list = cached ? lists_find(a->lists, target) : NULL;
    if (w->list) {
        lists_order(a->lists, w->list, &n);
        lists_pin(a->lists, w->list);
        w->at = w->retired = 0;
    } else if (cached) {
        w->loading = lists_begin(a->lists, target);
    }
}

static void leave_list(struct apply *a, struct task *k)
{
    if (!k->work.list)
        return;
    lists_note_retired_seen(k->work.list, k->work.retired);
    lists_unpin(a->lists, k->work.list);
    k->work.list = NULL;
}

static int walk_list(struct apply *a, struct task *k, unsigned *left, struct err *e)
{
    struct task_work *w = &k->work;
    while (*left > 0 && w->at < lists_count(w->list)) {
        reader_idx i = lists_at(w->list, w->at++);
        if (!readers_active(a->readers, i)) {
            w->retired++;
            continue;
        }
        if (!readers_mark(a->readers, i, w->mark))
            continue;
        (*left)--;
        if (deliver_add(a->deliver, readers_bucket(a->readers, i), readers_name(a->readers, i), i, e) != 0)
            return -1;
    }
    if (w->at < lists_count(w->list))
        return 0;
    leave_list(a, k);
    next_target(k);
    return 0;
}

/* Reads the next followers of the present target: 1, or 0 when there are no more. */
static int read_followers(struct apply *a, struct task *k, struct audience_batch *b, struct err *e)
{
    struct task_work *w = &k->work;
    for (;;) {
        struct bucket_range range;
        if (!w->in_range) {
            if (!next_range(a, k, &range))
                return 0;
            audience_begin(&w->audience, k->targets[w->target].text, range);
            w->in_range = true;
        }
        mongo_conn_after(a->conn, ts_max(k->t, a->log_at));
        mongo_conn_deadline(a->conn, READ_DEADLINE_MS);
        int rc = audience_next(&w->audience, a->conn, b, e);
        if (rc == 1)
            metrics_add(a->metrics, M_AUDIENCE, 0, b->n);
        metrics_add(a->metrics, M_AUDIENCE_SKIPPED, 0, b->skipped);
        if (rc != 0)
            return rc;
        w->in_range = false;
    }
}

static int deliver_batch(struct apply *a, struct task *k, const struct audience_batch *b, struct err *e)
{
    struct task_work *w = &k->work;
    for (unsigned n = 0; n < b->n; n++) {
        reader_idx i = READER_NONE;
        if (!w->whole) {
            i = readers_find(a->readers, b->at[n].user);
            if (i == READER_NONE)
                continue;
            if (w->loading)
                lists_add(a->lists, w->loading, i);
            if (!readers_mark(a->readers, i, w->mark))
                continue;
        }
        if (deliver_add(a->deliver, b->at[n].bucket, b->at[n].user, i, e) != 0)
            return -1;
    }
    return 0;
}

static int walk_store(struct apply *a, struct task *k, unsigned *left, struct err *e)
{
    int rc = read_followers(a, k, &a->batch, e);
    if (rc < 0 || (rc == 1 && deliver_batch(a, k, &a->batch, e) != 0))
        return -1;
    unsigned n = rc == 1 ? a->batch.n : 0;
    *left -= n < *left ? n : *left;
    if (rc == 1)
        return 0;
    if (k->work.loading && !lists_end(a->lists, k->work.loading))
        metrics_add(a->metrics, M_LISTS_TOO_LARGE, 0, 1);
    k->work.loading = NULL;
    next_target(k);
    return 0;
}

/* Those that the item is in; or only those whose followers are delivered to. */
static unsigned copy_targets(const struct task *k, bool pushed, char (*out)[TARGET_TEXT_SIZE])
{
    unsigned n = 0;
    for (unsigned i = 0; i < k->n_add; i++) {
        if (!pushed || !k->targets[i].pulled)
            strcpy(out[n++], k->targets[i].text);
    }
    return n;
}

/* Most audiences are small: where everybody is asked for, one read for all targets and buckets
 * (deliver_add() leaves out what is not due). 1: delivered, 0: there are too many for that. */
static int deliver_few(struct apply *a, struct task *k, struct err *e)
{
    char targets[1 + CHANGE_TOPICS_MAX][TARGET_TEXT_SIZE];
    struct bucket_range range, whole;
    bool all;
    k->work.bucket = 0;
    if (!next_range(a, k, &whole))
        return 1;
    while (next_range(a, k, &range))
        whole.last = range.last;
    unsigned n = copy_targets(k, true, targets);
    if (n == 0)
        return 1;
    mongo_conn_after(a->conn, k->t);
    mongo_conn_deadline(a->conn, READ_DEADLINE_MS);
    if (audience_few(a->conn, (const char(*)[TARGET_TEXT_SIZE])targets, n, whole, &a->batch, &all, e) != 0)
        return -1;
    if (!all)
        return 0;
    metrics_add(a->metrics, M_AUDIENCE, 0, a->batch.n);
    metrics_add(a->metrics, M_AUDIENCE_SKIPPED, 0, a->batch.skipped);
    return deliver_batch(a, k, &a->batch, e) == 0 ? 1 : -1;
}

/* ---- slices ---- */

static int begin_push(struct apply *a, const struct task *k, struct err *e)
{
    const char *target = k->targets[0].text;
    size_t got, n = a->newest_cap;
    mongo_conn_after(a->conn, ts_max(k->t, a->log_at));
    mongo_conn_deadline(a->conn, READ_DEADLINE_MS);
    if (target_ids_newest(a->conn, target, n + 1, a->newest, &got, e) != 0)
        return -1;
    deliver_begin_push(a->deliver, k->t, target, a->newest, got < n ? got : n, got > n ? a->newest[n] : 0);
    return 0;
}

int apply_begin_script(struct apply *a, const struct task *k, struct err *e)
{
    switch (k->what) {
    case PLAN_ITEM:
        deliver_begin(a->deliver, SCRIPT_DELIVER, k->t, k->id);
        return 0;
    case PLAN_PULL:
        deliver_begin_pull(a->deliver, k->t, k->targets[0].text);
        return 0;
    case PLAN_PUSH:
        return begin_push(a, k, e);
    }
    return err_set(e, ERR_INTERNAL, "a task of no kind");
}

static int begin_slice(struct apply *a, struct task *k, struct err *e)
{
    struct deliver_item at[DELIVER_ITEMS_MAX];
    unsigned n = 0;
    if (!apply_next_led(k))
        return apply_begin_script(a, k, e);
    for (struct task *x = k; x; x = apply_next_led(x))
        at[n++] = (struct deliver_item){x->t, x->id};
    deliver_begin_items(a->deliver, at, n);
    return 0;
}

static unsigned slice_of(struct task *k)
{
    unsigned n = 0;
    if (k->what == PLAN_PUSH)
        return SLICE / DELIVER_PUSH_WEIGHT;
    for (struct task *x = k; x; x = apply_next_led(x))
        n++;
    return SLICE / deliver_items_weight(n);
}

static bool adding(const struct task *k)
{
    return k->work.target < k->n_add;
}

static bool finished(const struct task *k)
{
    return k->work.target == k->n_add + k->n_remove;
}

static int add_slice(struct apply *a, struct task *k, struct err *e)
{
    unsigned left = slice_of(k);
    if (begin_slice(a, k, e) != 0)
        return -1;
    if (k->work.whole && k->work.target == 0 && !k->work.started) {
        int rc = deliver_few(a, k, e);
        if (rc < 0)
            return -1;
        if (rc == 1)
            k->work.target = k->n_add;
    }
    while (left > 0 && adding(k)) {
        if (!k->work.started && k->targets[k->work.target].pulled) {
            next_target(k);
            continue;
        }
        if (!k->work.started)
            start_target(a, k, !k->work.whole);
        if ((k->work.list ? walk_list : walk_store)(a, k, &left, e) != 0)
            return -1;
    }
    return 0;
}

/* The item leaves the timelines of those whom none of its targets matches any more. */
static int remove_slice(struct apply *a, struct task *k, struct err *e)
{
    char targets[1 + CHANGE_TOPICS_MAX][TARGET_TEXT_SIZE];
    deliver_begin(a->deliver, SCRIPT_REMOVE, k->t, k->id);
    if (!k->work.started)
        start_target(a, k, false);
    int rc = read_followers(a, k, &a->small, e);
    if (rc == 0)
        next_target(k);
    if (rc <= 0)
        return rc;
    unsigned n = copy_targets(k, false, targets);
    if (audience_keep_unmatched(a->conn, &a->small, (const char(*)[TARGET_TEXT_SIZE])targets, n, e) != 0) {
        k->work.started = false; /* this batch would be passed over: the target is begun again */
        return -1;
    }
    for (unsigned i = 0; i < a->small.n; i++) {
        if (deliver_add(a->deliver, a->small.at[i].bucket, a->small.at[i].user, READER_NONE, e) != 0)
            return -1;
    }
    return 0;
}

/* What was begun is sent also when the rest could not be read: the pipeline is clean for the next slice. */
static int end_slice(struct apply *a, int rc, struct err *e)
{
    struct err second;
    if (deliver_broken(a->deliver))
        return rc == 0 ? deliver_end(a->deliver, e) : -1;
    return deliver_end(a->deliver, rc == 0 ? e : &second) == 0 ? rc : -1;
}

/* ---- items that are done together ---- */

static bool may_be_led(const struct task *k)
{
    return k->what == PLAN_ITEM && k->state == TASK_WAITING && k->n_remove == 0;
}

static bool same_audience(const struct task *a, const struct task *b)
{
    if (a->n_add != b->n_add)
        return false;
    for (unsigned i = 0; i < a->n_add; i++) {
        const struct task_target *x = &a->targets[i], *y = &b->targets[i];
        if (x->hash != y->hash || x->pulled != y->pulled || strcmp(x->text, y->text) != 0)
            return false;
    }
    return true;
}

static void lead(struct task *k, unsigned most)
{
    struct task *x = k;
    for (unsigned n = 1; n < most; n++) {
        x = TAILQ_NEXT(x, in_turn);
        if (!x || !may_be_led(x) || !same_audience(k, x))
            return;
        x->leader = k;
        x->state = TASK_BEGUN;
        k->work.last = x->t;
    }
}

struct task *apply_next_led(struct task *k)
{
    struct task *next = TAILQ_NEXT(k, in_turn), *leader = k->leader ? k->leader : k;
    return next && next->leader == leader ? next : NULL;
}

static void begin(struct apply *a, struct task *k)
{
    bool leads = a->known && may_be_led(k);
    if (++a->mark == 0) {
        readers_forget_marks(a->readers);
        a->mark = 1;
    }
    k->work = (struct task_work){.whole = !a->known, .mark = a->mark, .last = k->t};
    k->state = TASK_BEGUN;
    if (leads)
        lead(k, deliver_items_max((int64_t)a->newest_cap));
}

int apply_slice(struct apply *a, struct task *k, bool *done, struct err *e)
{
    *done = false;
    if (k->state == TASK_WAITING)
        begin(a, k);
    if (adding(k) && end_slice(a, add_slice(a, k, e), e) != 0)
        return -1;
    if (!adding(k) && !finished(k) && end_slice(a, remove_slice(a, k, e), e) != 0)
        return -1;
    *done = finished(k);
    return 0;
}

void apply_abandon(struct apply *a, struct task *k)
{
    leave_list(a, k);
    lists_abort(a->lists, k->work.loading);
    k->work = (struct task_work){.loading = NULL};
    for (struct task *x = apply_next_led(k), *next; x; x = next) {
        next = apply_next_led(x);
        x->leader = NULL;
        x->state = TASK_WAITING;
    }
}

int apply_user(struct apply *a, const struct change *c, uint32_t who, struct err *e)
{
    if (c->name[0] == '\0' || strlen(c->name) > NAME_MAX_BYTES)
        return 0;
    unsigned bucket = keys_bucket(c->name);
    deliver_begin(a->deliver, SCRIPT_DROP, c->t, 0);
    int rc = deliver_add(a->deliver, bucket, c->name, who, e);
    return end_slice(a, rc, e);
}
