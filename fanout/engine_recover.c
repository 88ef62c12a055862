#include "fanout/engine_private.h"

#include <string.h>
#include "common/log.h"
#include "fanout/adopt.h"

#define LOG_AHEAD 256 /* changes read and not taken over yet */

static void drop_share(struct engine *g, unsigned share)
{
    buckets_drop_share(&g->buckets, share);
    deliver_allow(g->deliver, 1u << share);
    g->epoch[share] = g->least_epoch[share] = 0;
    g->stale[share] = g->reset[share] = false;
}

/* Nothing is sent for a stale share: its epoch and counts are not known to be those of its records. */
static void mark_stale(struct engine *g, unsigned share)
{
    if (!g->epoch[share])
        return;
    g->stale[share] = true;
    deliver_refuse(g->deliver, 1u << share);
}

void engine_start_anew(struct engine *g, unsigned share)
{
    mark_stale(g, share);
    g->reset[share] = g->epoch[share] != 0;
}

/* A script that fails as a whole for a reason of its own would fail for ever. After the last try at the same
 * change, the buckets it was for start anew: their timelines count as absent and are rebuilt from the truth,
 * so nothing is missed. */
static void note_failed_scripts(struct engine *g)
{
    struct deliver_failure f;
    const bool *failed = deliver_failed(g->deliver, &f);
    if (f.t == 0 || !engine_note_call(g, &f))
        return;
    for (unsigned b = 0; b < BUCKETS; b++) {
        if (failed[b])
            g->reset[bucket_share(b)] = true;
    }
}

/* After a failed call nobody knows what was applied: all shares are stale. */
static void note_broken(struct engine *g)
{
    if (!deliver_broken(g->deliver))
        return;
    note_failed_scripts(g);
    for (unsigned i = 0; i < SHARES; i++)
        mark_stale(g, i);
    deliver_mend(g->deliver);
}

static void note_refused(struct engine *g)
{
    uint32_t refused = deliver_refused(g->deliver);
    for (unsigned i = 0; i < SHARES; i++) {
        if (!(refused & 1u << i) || g->stale[i] || !g->epoch[i])
            continue;
        log_event(LOG_WARN, "share_refused", LOG_U("share", i), LOG_I("epoch", g->epoch[i]),
                  LOG_S("why", "its record in Redis is not as it was left"));
        mark_stale(g, i);
    }
}

static int give_share(struct engine *g, unsigned share, struct err *e)
{
    if (g->epoch[share] && !g->stale[share] && engine_write_progress(g, e) != 0)
        return -1;
    if (shares_release(g->o.shares, share, e) != 0)
        log_event(LOG_WARN, "share_not_released", LOG_U("share", share), LOG_ERR(e));
    log_event(LOG_INFO, "share_given", LOG_U("share", share), LOG_I("epoch", g->epoch[share]));
    drop_share(g, share);
    return 0;
}

/* Takes a new epoch for a stale share: what was sent under the old one may still arrive, and is refused then.
 */
static int renew_epoch(struct engine *g, unsigned share, struct err *e)
{
    int64_t epoch;
    if (shares_retake(g->o.shares, share, g->least_epoch[share], &epoch, e) == 0) {
        g->least_epoch[share] = 0;
        return 0;
    }
    if (e->code != ERR_MISMATCH)
        return -1;
    log_event(LOG_WARN, "share_lost", LOG_U("share", share), LOG_I("epoch", g->epoch[share]),
              LOG_S("why", e->msg));
    drop_share(g, share);
    return 0;
}

static int adopt(struct engine *g, unsigned share, int64_t epoch, ts_t now, struct err *e)
{
    struct adoption a;
    if (adopt_share(g->redis, &g->buckets, g->o.metrics, share, epoch, now, g->reset[share], &a, e) != 0) {
        deliver_break(g->deliver);
        return -1;
    }
    g->epoch[share] = epoch;
    if (a.least_epoch) {
        g->least_epoch[share] = a.least_epoch;
        g->stale[share] = true;
        buckets_drop_share(&g->buckets, share);
        return err_set(e, ERR_BUSY, "share %u: a record holds epoch %lld, ours was %lld", share,
                       (long long)a.least_epoch, (long long)epoch);
    }
    g->stale[share] = g->reset[share] = false;
    deliver_allow(g->deliver, 1u << share);
    log_event(LOG_INFO, "share_adopted", LOG_U("share", share), LOG_I("epoch", epoch),
              LOG_U("records_found", a.taken), LOG_U("records_made", a.made), LOG_X("progress", a.least));
    engine_close_tail(g);
    return 0;
}

/* The shares that are held and not adopted under their present epoch. */
static int adopt_all(struct engine *g, struct err *e)
{
    struct shares_view v;
    ts_t now = 0;
    shares_look(g->o.shares, &v);
    for (unsigned i = 0; i < SHARES; i++) {
        if (!v.share[i].held || v.share[i].giving || (v.share[i].epoch == g->epoch[i] && !g->stale[i]))
            continue;
        if (!now && (deliver_drain(g->deliver, e) != 0 || mongo_conn_fresh(g->conn, &now, e) != 0))
            return -1;
        if (adopt(g, i, v.share[i].epoch, now, e) != 0)
            return -1;
    }
    return 0;
}

static void drop_lost(struct engine *g, const struct shares_view *v)
{
    for (unsigned i = 0; i < SHARES; i++) {
        if (g->epoch[i] && !v->share[i].held)
            drop_share(g, i);
    }
}

int engine_sync_shares(struct engine *g, struct err *e)
{
    struct shares_view v;
    shares_look(g->o.shares, &v);
    drop_lost(g, &v);
    note_broken(g);
    note_refused(g);
    for (unsigned i = 0; i < SHARES; i++) {
        if (v.share[i].giving && give_share(g, i, e) != 0)
            return -1;
        /* An epoch other than ours is a new one already. */
        if (g->stale[i] && v.share[i].epoch == g->epoch[i] && renew_epoch(g, i, e) != 0)
            return -1;
    }
    if (adopt_all(g, e) != 0)
        return -1;
    if (v.version != g->seen_version)
        engine_publish_status(g);
    g->seen_version = v.version;
    return 0;
}

void engine_close_tail(struct engine *g)
{
    log_reader_close(g->log);
    g->log = NULL;
    g->has_change = false;
    g->n_pulses = g->first_pulse = 0;
    engine_forget(g);
    troubles_let_go(g->troubles);
    tasks_clear(g->tasks);
}

int engine_open_tail(struct engine *g, struct err *e)
{
    ts_t from;
    if (g->log || !buckets_least(&g->buckets, &from))
        return 0;
    struct log_reader_options o = {
        .mongo = g->o.mongo,
        .instance = g->o.name,
        .kinds = 1u << CHANGE_ITEM | 1u << CHANGE_USER | 1u << CHANGE_TARGET | 1u << CHANGE_HEARTBEAT,
        .start = from,
        .tell_items = true,
        .cap = LOG_AHEAD,
    };
    mongo_conn_after(g->conn, from);
    if (modes_load(g->apply.modes, g->conn, e) != 0 || log_reader_open(&g->log, &o, e) != 0)
        return -1;
    metrics_set(g->o.metrics, M_PULLED, 0, modes_count(g->apply.modes));
    if (g->tail_at > from)
        metrics_add(g->o.metrics, M_REPLAYS, 0, 1);
    log_event(LOG_INFO, g->tail_at > from ? "replay_from" : "tail_from", LOG_X("progress", from),
              LOG_X("was_at", g->tail_at), LOG_U("buckets", buckets_owned(&g->buckets)));
    g->tail_at = from;
    g->written = g->told_seen = 0;
    g->applied_at = 0;
    return 0;
}

void engine_log_lost(struct engine *g, const struct err *e)
{
    log_event(LOG_ERROR, "log_lost", LOG_X("was_at", g->tail_at), LOG_ERR(e),
              LOG_S("then", "records made anew"));
    metrics_add(g->o.metrics, M_ERRORS, ERROR_OF_LOG_LOST, 1);
    engine_close_tail(g);
    g->prepared = false; /* perhaps the collections were dropped */
    for (unsigned i = 0; i < SHARES; i++) {
        mark_stale(g, i);
        g->reset[i] = g->epoch[i] != 0;
    }
}
