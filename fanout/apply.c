#include "fanout/apply.h"

#include <string.h>
#include "common/clock.h"
#include "common/log.h"

#define REMOVE_BATCH     1000
#define READ_DEADLINE_MS 10000 /* of one read; a batch of the audience takes milliseconds */

void apply_init(struct apply *a, unsigned audience_batch)
{
    memset(a, 0, sizeof *a);
    audience_batch_init(&a->batch, audience_batch);
    audience_batch_init(&a->small, audience_batch < REMOVE_BATCH ? audience_batch : REMOVE_BATCH);
}

void apply_done(struct apply *a)
{
    audience_batch_done(&a->batch);
    audience_batch_done(&a->small);
}

static int deliver_batch(struct apply *a, const struct audience_batch *b, struct err *e)
{
    for (unsigned i = 0; i < b->n; i++) {
        if (deliver_add(a->deliver, b->at[i].bucket, b->at[i].user, READER_NONE, e) != 0)
            return -1;
    }
    return 0;
}

static int next_batch(struct apply *a, struct audience *au, struct audience_batch *b, struct err *e)
{
    if (a->go_on && !a->go_on(a->arg))
        return err_set(e, ERR_BUSY, "stopping");
    mongo_conn_deadline(a->conn, READ_DEADLINE_MS);
    int rc = audience_next(au, a->conn, b, e);
    if (rc == 1)
        metrics_add(a->metrics, M_AUDIENCE, 0, b->n);
    metrics_add(a->metrics, M_AUDIENCE_SKIPPED, 0, b->skipped);
    return rc;
}

/* Sends what deliver_begin() announced to the followers of a target within a range; with keep, only to those
 * who follow none of its targets. */
static int walk(struct apply *a, const char *target, struct bucket_range range, const struct plan *keep,
                struct err *e)
{
    struct audience au;
    struct audience_batch *b = keep ? &a->small : &a->batch;
    int rc;
    audience_begin(&au, target, range);
    while ((rc = next_batch(a, &au, b, e)) == 1) {
        if (keep && audience_keep_unmatched(a->conn, b, keep->add, keep->n_add, e) != 0)
            return -1;
        if (deliver_batch(a, b, e) != 0)
            return -1;
    }
    return rc;
}

/* Most audiences are small: one read for all targets and buckets (deliver_add() leaves out those between the
 * ranges). 1: delivered, 0: there are too many for that. */
static int deliver_few(struct apply *a, const struct plan *p, struct bucket_range whole, struct err *e)
{
    bool all;
    mongo_conn_deadline(a->conn, READ_DEADLINE_MS);
    if (audience_few(a->conn, p->add, p->n_add, whole, &a->batch, &all, e) != 0)
        return -1;
    if (!all)
        return 0;
    metrics_add(a->metrics, M_AUDIENCE, 0, a->batch.n);
    metrics_add(a->metrics, M_AUDIENCE_SKIPPED, 0, a->batch.skipped);
    return deliver_batch(a, &a->batch, e) == 0 ? 1 : -1;
}

static int deliver_all(struct apply *a, const struct plan *p, const struct bucket_range *ranges, unsigned n,
                       struct err *e)
{
    if (p->n_add == 0)
        return 0;
    int rc = deliver_few(a, p, (struct bucket_range){ranges[0].first, ranges[n - 1].last}, e);
    if (rc != 0)
        return rc < 0 ? -1 : 0;
    for (unsigned t = 0; t < p->n_add; t++) {
        for (unsigned r = 0; r < n; r++) {
            if (walk(a, p->add[t], ranges[r], NULL, e) != 0)
                return -1;
        }
    }
    return 0;
}

static int run_plan(struct apply *a, const struct plan *p, const struct bucket_range *ranges, unsigned n,
                    struct err *e)
{
    deliver_begin(a->deliver, SCRIPT_DELIVER, p->t, p->id);
    if (deliver_all(a, p, ranges, n, e) != 0)
        return -1;
    if (p->n_remove == 0)
        return 0;
    if (deliver_end(a->deliver, e) != 0)
        return -1;
    deliver_begin(a->deliver, SCRIPT_REMOVE, p->t, p->id);
    for (unsigned t = 0; t < p->n_remove; t++) {
        for (unsigned r = 0; r < n; r++) {
            if (walk(a, p->remove[t], ranges[r], p, e) != 0)
                return -1;
        }
    }
    return 0;
}

/* What was begun is sent and answered also when the rest could not be read: the pipeline is clean for the
 * next try. */
static int finish(struct apply *a, int rc, struct err *e)
{
    struct err second;
    struct err *to = rc == 0 ? e : &second;
    if (deliver_broken(a->deliver))
        return rc == 0 ? deliver_drain(a->deliver, e) : -1;
    if (deliver_end(a->deliver, to) != 0 || deliver_drain(a->deliver, to) != 0)
        return -1;
    return rc;
}

static int apply_item(struct apply *a, const struct change *c, struct err *e)
{
    struct bucket_range ranges[BUCKET_RANGES_MAX];
    struct item_now now;
    struct plan plan;
    unsigned n = buckets_due(a->buckets, c->t, ranges);
    if (!plan_reads_item(c) || n == 0)
        return 0;
    mongo_conn_after(a->conn, c->t);
    mongo_conn_deadline(a->conn, READ_DEADLINE_MS);
    if (audience_item(a->conn, c->item, &now, e) != 0)
        return -1;
    plan_item(c, &now, &plan);
    return finish(a, run_plan(a, &plan, ranges, n, e), e);
}

static int apply_user(struct apply *a, const struct change *c, struct err *e)
{
    unsigned bucket = keys_bucket(c->name);
    if (!bucket_is_due(a->buckets, bucket, c->t) || c->name[0] == '\0' || strlen(c->name) > NAME_MAX_BYTES)
        return 0;
    deliver_begin(a->deliver, SCRIPT_DROP, c->t, 0);
    return finish(a, deliver_add(a->deliver, bucket, c->name, READER_NONE, e), e);
}

int apply_change(struct apply *a, const struct change *c, struct err *e)
{
    int64_t from = clock_mono_us();
    int rc = 0;
    if (c->kind == CHANGE_ITEM)
        rc = apply_item(a, c, e);
    else if (c->kind == CHANGE_USER)
        rc = apply_user(a, c, e);
    if (rc != 0)
        return -1;
    metrics_add(a->metrics, M_CHANGES, c->kind, 1);
    if (c->kind != CHANGE_ITEM && c->kind != CHANGE_USER)
        return 0;
    int64_t us = clock_mono_us() - from;
    metrics_observe_us(a->metrics, M_APPLY, c->kind == CHANGE_USER, us);
    log_event(LOG_DEBUG, "applied", LOG_X("position", c->t),
              LOG_S("kind", c->kind == CHANGE_USER ? "user" : "item"), LOG_U("item", c->item),
              LOG_I("us", us));
    return 0;
}
