/* What can't be applied though all servers are there: tried five times, then a dead letter, and it holds up
 * nothing any more.
 *
 * - A change of an item that does not read as one is put aside; the log goes on. When it reads after all it
 *   becomes a task at its place in the log, planned from the item as it is by then.
 * - A task whose followers can't be read rests, and with it its publisher (his order is kept); others go on.
 * - A timeline with a key of another type is left out by the script, which names it: only its bucket's
 * progress waits. When it is given up it is dropped, so that it counts as absent and the reader's next page
 * is rebuilt from the truth.
 * - A call that fails as a whole leaves nobody knowing what was applied: the shares are adopted again and the
 * log tells it again (engine_recover.c). When it is given up its buckets start anew.
 *
 * Until the letter is written progress stays below the change: whoever takes over tries it for himself.
 */
#include <stdio.h>
#include <string.h>
#include "common/clock.h"
#include "common/log.h"
#include "fanout/dead_letters.h"
#include "fanout/engine_private.h"

#define AT_ONCE      32  /* tries in a round */
#define POSTPONED_MS 100 /* its share is being adopted */

/* A server that is away, or does not know the time yet, is no try. */
static bool is_its_own(const struct engine *g, const struct err *e)
{
    switch (e->code) {
    case ERR_UNAVAILABLE:
    case ERR_TIMEOUT:
    case ERR_BUSY:
    case ERR_INVALID:
    case ERR_LOG_LOST:
        return false;
    default:
        return !deliver_broken(g->deliver);
    }
}

static struct trouble *note(struct engine *g, enum trouble_kind kind, const struct deliver_failure *f,
                            enum err_code code)
{
    struct trouble *x = troubles_note(g->troubles, kind, f, code, clock_mono_ms(), clock_wall_ms());
    metrics_add(g->o.metrics, M_TRIES, kind, 1);
    if (x && x->tries == 1)
        log_event(LOG_WARN, "not_applied", LOG_U("item", f->item), LOG_X("position", f->t),
                  LOG_S("user", f->user), LOG_S("why", f->why));
    return x;
}

static struct deliver_failure failure_of(ts_t t, item_id item, const struct err *e)
{
    struct deliver_failure f = {.t = t, .item = item};
    snprintf(f.why, sizeof f.why, "%s", e->msg);
    return f;
}

static int too_many(struct err *e)
{
    return err_set(e, ERR_BUSY, "%d changes wait for another try already", TROUBLES_MAX);
}

/* ---- what fails ---- */

int engine_put_aside(struct engine *g, struct err *e)
{
    if (!is_its_own(g, e))
        return -1;
    struct deliver_failure f = failure_of(g->in_hand.t, g->in_hand.item, e);
    struct trouble *x = note(g, TROUBLE_READ, &f, e->code);
    if (!x)
        return too_many(e);
    troubles_keep(x, &g->in_hand);
    return 0;
}

int engine_rest_task(struct engine *g, struct task *k, struct err *e)
{
    if (!is_its_own(g, e))
        return -1;
    struct deliver_failure f = failure_of(k->t, k->id, e);
    struct trouble *x = note(g, TROUBLE_TASK, &f, e->code);
    if (!x)
        return too_many(e);
    apply_abandon(&g->apply, k);
    k->state = TASK_WAITING;
    tasks_rest(g->tasks, k);
    x->task = k;
    return 0;
}

/* Called while answers are read: nothing is sent here. Beyond the cap all timelines of the share start anew.
 */
void engine_note_left_out(void *arg, const struct deliver_failure *f)
{
    struct engine *g = arg;
    if (note(g, TROUBLE_TIMELINE, f, ERR_CORRUPT))
        return;
    log_event(LOG_ERROR, "too_many_wrong_timelines", LOG_U("share", bucket_share(f->bucket)),
              LOG_S("then", "its records are made anew"));
    engine_start_anew(g, bucket_share(f->bucket));
}

bool engine_note_call(struct engine *g, const struct deliver_failure *f)
{
    if (f->script == SCRIPT_PROGRESS)
        return false;
    struct trouble *x = note(g, TROUBLE_CALL, f, ERR_INTERNAL);
    return !x || x->given_up;
}

/* ---- trying again ---- */

static int read_again(struct engine *g, struct trouble *x, struct err *e)
{
    struct plan plan;
    char publisher[NAME_MAX_BYTES + 1];
    bool asks;
    mongo_conn_after(g->conn, g->tail_at); /* later changes of the item may be tasks already */
    if (apply_read(&g->apply, x->change, &plan, publisher, &asks, e) != 0) {
        struct deliver_failure f = failure_of(x->about.t, x->about.item, e);
        if (!is_its_own(g, e))
            return -1;
        (void)note(g, TROUBLE_READ, &f, e->code);
        return 0;
    }
    if (asks)
        tasks_add(g->tasks, publisher, &plan, clock_mono_us());
    troubles_end(g->troubles, x);
    return 0;
}

static int send_one(struct engine *g, enum script script, const struct trouble *x, struct err *e)
{
    deliver_begin(g->deliver, script, x->about.t, x->about.item);
    if (deliver_add(g->deliver, x->about.bucket, x->about.user, READER_NONE, e) != 0 ||
        deliver_end(g->deliver, e) != 0)
        return -1;
    return deliver_drain(g->deliver, e);
}

static bool is_refused(const struct engine *g, unsigned bucket)
{
    return deliver_refused(g->deliver) & 1u << bucket_share(bucket);
}

/* A turn of a target is not done again for one timeline, which is dropped instead. */
static int send_again(struct engine *g, struct trouble *x, struct err *e)
{
    bool item = x->about.script == SCRIPT_DELIVER || x->about.script == SCRIPT_REMOVE;
    if (deliver_drain(g->deliver, e) != 0)
        return -1;
    if (!bucket_is_due(&g->buckets, x->about.bucket, x->about.t)) { /* its next owner's, or begun anew */
        troubles_end(g->troubles, x);
        return 0;
    }
    x->again = false;
    x->again_ms = clock_mono_ms() + POSTPONED_MS;
    if (is_refused(g, x->about.bucket))
        return 0;
    if (send_one(g, item ? x->about.script : SCRIPT_DROP, x, e) != 0)
        return -1;
    if (!x->again && !is_refused(g, x->about.bucket))
        troubles_end(g->troubles, x);
    return 0;
}

static int try_again(struct engine *g, struct trouble *x, struct err *e)
{
    if (x->kind == TROUBLE_TIMELINE)
        return send_again(g, x, e);
    if (x->kind == TROUBLE_READ)
        return read_again(g, x, e);
    tasks_go_on(g->tasks, x->task);
    x->task = NULL;
    return 0;
}

/* ---- giving up ---- */

/* A replay has to know the topics that the item was in. */
static void keep_topics(struct trouble *x)
{
    const struct task *k = x->task;
    struct change c = {.kind = CHANGE_ITEM, .t = k->t, .item = k->id};
    for (unsigned i = k->n_add; i < k->n_add + k->n_remove && c.n_topics_before < CHANGE_TOPICS_MAX; i++) {
        const char *name;
        enum target_kind kind;
        if (target_split(k->targets[i].text, &kind, &name, NULL) == 0 && kind == TARGET_TOPIC)
            snprintf(c.topics_before[c.n_topics_before++], sizeof c.topics_before[0], "%s", name);
    }
    troubles_keep(x, &c);
}

/* Where no letter can be written, because MongoDB refuses just that, the log of this process has to do. */
static int write_letter(struct engine *g, struct trouble *x, struct err *e)
{
    unsigned lost = 0;
    if (x->task)
        keep_topics(x);
    mongo_conn_deadline(g->conn, 2000);
    if (dead_letters_write(g->conn, x, g->o.name, &lost, e) != 0) {
        if (!is_its_own(g, e))
            return -1;
        log_event(LOG_ERROR, "dead_letter_not_written", LOG_ERR(e));
        lost = 1;
    }
    metrics_add(g->o.metrics, M_LETTERS, 0, 1);
    metrics_add(g->o.metrics, M_LETTERS_LOST, 0, lost);
    if (x->code == ERR_CORRUPT)
        metrics_add(g->o.metrics, M_ERRORS, ERROR_OF_CORRUPT, 1);
    log_event(LOG_ERROR, "dead_letter", LOG_S("kind", dead_letters_kind(x)), LOG_U("item", x->about.item),
              LOG_X("position", x->about.t), LOG_S("user", x->about.user), LOG_U("tries", x->tries),
              LOG_S("why", x->about.why));
    return 0;
}

/* Without the turn of a target nobody's timeline would be right: all of them start anew. */
static void drop_task(struct engine *g, struct task *k)
{
    for (unsigned i = 0; k->what != PLAN_ITEM && i < SHARES; i++)
        engine_start_anew(g, i);
    tasks_go_on(g->tasks, k);
    tasks_done(g->tasks, k);
}

static int give_up(struct engine *g, struct trouble *x, struct err *e)
{
    if (x->kind == TROUBLE_TIMELINE && is_refused(g, x->about.bucket)) {
        x->again_ms = clock_mono_ms() + POSTPONED_MS;
        return 0;
    }
    if (write_letter(g, x, e) != 0)
        return -1;
    if (x->kind == TROUBLE_TIMELINE && send_one(g, SCRIPT_DROP, x, e) != 0)
        return -1;
    if (x->task)
        drop_task(g, x->task);
    troubles_end(g->troubles, x);
    return 0;
}

int engine_retry(struct engine *g, struct err *e)
{
    struct trouble *x;
    for (unsigned n = 0; n < AT_ONCE && (x = troubles_due(g->troubles, clock_mono_ms())); n++) {
        if ((x->given_up ? give_up(g, x, e) : try_again(g, x, e)) != 0)
            return -1;
    }
    return 0;
}
