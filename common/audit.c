#include "common/audit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/audit_private.h"
#include "common/clock.h"
#include "common/keys.h"
#include "common/mem.h"

#define TRIES            5  /* looks at a timeline that is rebuilt in between each time */
#define POLL_MS          10 /* between two looks at the bucket's progress */
#define REDIS_TIMEOUT_MS 1000

struct audit {
    struct audit_options o;
    struct redis *redis;
    struct mongo_conn *conn; /* NULL: not taken */
    struct audit_list before, now;
};

/* One look at both. */
struct look {
    struct audit_view view;
    struct audit_truth truth;
    ts_t at; /* everything that was read had happened by then */
};

struct audit *audit_new(const struct audit_options *o)
{
    struct audit *a = mem_zero(1, sizeof *a);
    a->o = *o;
    a->redis = redis_new(&o->redis, o->redis_timeout_ms ? o->redis_timeout_ms : REDIS_TIMEOUT_MS);
    return a;
}

void audit_free(struct audit *a)
{
    if (!a)
        return;
    redis_free(a->redis);
    mongo_conn_put(a->conn);
    free(a);
}

struct redis *audit_redis(struct audit *a)
{
    return a->redis;
}

int audit_conn(struct audit *a, struct mongo_conn **out, struct err *e)
{
    if (!a->conn && mongo_conn_get(a->o.mongo, &a->conn, e) != 0)
        return -1;
    mongo_conn_deadline(a->conn, a->o.deadline_ms);
    *out = a->conn;
    return 0;
}

static bool stopped(const struct audit *a)
{
    return a->o.stop && atomic_load(a->o.stop);
}

static void look_done(struct look *l)
{
    audit_view_done(&l->view);
    audit_truth_done(&l->truth);
}

/* 1: both were read, 0: there is no timeline that counts. */
static int look_read(struct audit *a, const char *user, struct look *l, struct err *e)
{
    memset(l, 0, sizeof *l);
    if (audit_view_read(a->redis, user, &l->view, e) != 0)
        return -1;
    if (!audit_view_counts(&l->view))
        return 0;
    if (audit_truth_read(a->conn, user, &l->view, &l->truth, e) != 0)
        return -1;
    l->at = mongo_conn_time(a->conn);
    return 1;
}

static int unjudged(struct audit_report *out, const char *why)
{
    out->verdict = AUDIT_UNJUDGED;
    snprintf(out->why, sizeof out->why, "%s", why);
    return 0;
}

/* Waits until everything up to t is applied to the user's bucket; *reached says whether it is. */
static int wait_for(struct audit *a, const char *user, ts_t t, int64_t until_ms, bool *reached, struct err *e)
{
    static const struct timespec pause = {0, POLL_MS * 1000000};
    for (;;) {
        ts_t progress;
        if (audit_progress(a->redis, user, &progress, e) != 0)
            return -1;
        *reached = progress >= t;
        if (*reached || clock_mono_ms() >= until_ms || stopped(a))
            return 0;
        nanosleep(&pause, NULL);
    }
}

static void report(const struct look *l, const struct audit_list *found, struct audit_report *out)
{
    out->verdict = AUDIT_WRONG;
    out->n = found->n < AUDIT_FINDINGS_MAX ? found->n : AUDIT_FINDINGS_MAX;
    memcpy(out->findings, found->at, out->n * sizeof *out->findings);
    out->more = found->more || found->n > out->n;
    snprintf(out->r, sizeof out->r, "%s", l->view.r_raw);
}

static size_t keep_sure(struct audit_list *l)
{
    size_t kept = 0, others = 0;
    for (size_t i = 0; i < l->n; i++) {
        if (l->at[i].sure)
            l->at[kept++] = l->at[i];
        else
            others++;
    }
    l->n = kept;
    return others;
}

/* The second look. 1: settled, 0: what it rests on changed in between. */
static int look_again(struct audit *a, const struct look *first, int64_t cap, bool reached,
                      struct audit_report *out, struct err *e)
{
    struct look l;
    int64_t rev;
    int rc = look_read(a, out->user, &l, e);
    if (rc == 1 && audit_user_rev(a->conn, out->user, &rev, e) != 0)
        rc = -1;
    if (rc == 0) {
        out->verdict = AUDIT_ABSENT;
        rc = 1;
    } else if (rc == 1 && (strcmp(l.view.r_raw, first->view.r_raw) != 0 || rev != first->truth.user_rev)) {
        rc = 0;
    } else if (rc == 1) {
        audit_compare(&l.view, &l.truth, cap, &a->now);
        audit_agree(&a->before, &a->now);
        /* The record went back (an older Redis): the timeline is not as far as was waited for. */
        reached = reached && l.view.progress >= first->at;
        size_t open = reached ? 0 : keep_sure(&a->now);
        if (a->now.n > 0)
            report(&l, &a->now, out);
        else if (open > 0)
            unjudged(
                out,
                "its bucket does not come as far as the truth that was read: fanout stands still or is late");
        else
            out->verdict = AUDIT_INTACT;
    }
    look_done(&l);
    return rc;
}

/* 1: settled, 0: begin again. */
static int check_once(struct audit *a, int64_t cap, int64_t until_ms, struct audit_report *out, struct err *e)
{
    struct look l;
    bool reached;
    int rc = look_read(a, out->user, &l, e);
    if (rc == 0) {
        out->verdict = AUDIT_ABSENT;
        rc = 1;
    } else if (rc == 1 && (l.view.too_many || l.truth.too_many)) {
        unjudged(out, l.view.too_many ? "it has more members than can be judged"
                                      : "its reader follows too many targets");
    } else if (rc == 1) {
        audit_compare(&l.view, &l.truth, cap, &a->before);
        out->verdict = AUDIT_INTACT;
        if (a->before.n > 0) {
            rc = wait_for(a, out->user, l.at, until_ms, &reached, e);
            if (rc == 0)
                rc = look_again(a, &l, cap, reached, out, e);
        }
    }
    look_done(&l);
    return rc;
}

int audit_timeline(struct audit *a, const char *user, struct audit_report *out, struct err *e)
{
    struct mongo_conn *conn;
    int64_t until_ms = clock_mono_ms() + a->o.deadline_ms, cap;
    memset(out, 0, sizeof *out);
    if (names_check(user, strlen(user), e) != 0)
        return -1;
    snprintf(out->user, sizeof out->user, "%s", user);
    if (audit_conn(a, &conn, e) != 0 || audit_cap(conn, &cap, e) != 0)
        return -1;
    for (int i = 0; i < TRIES; i++) {
        int rc = check_once(a, cap, until_ms, out, e);
        if (rc < 0 && e->code == ERR_CORRUPT)
            return unjudged(out, e->msg);
        if (rc != 0)
            return rc < 0 ? -1 : 0;
        if (stopped(a) || clock_mono_ms() >= until_ms)
            break;
    }
    return unjudged(out, "it was rebuilt, or its reader changed what he follows, in between each look");
}

int audit_repair(struct audit *a, const struct audit_report *r, bool *dropped, struct err *e)
{
    char timeline[KEY_SIZE], meta[KEY_SIZE];
    unsigned bucket = keys_bucket(r->user);
    keys_timeline(timeline, bucket, r->user);
    keys_timeline_meta(meta, bucket, r->user);
    const char *argv[] = {timeline, meta, r->r};
    redisReply *reply;
    if (redis_script(a->redis, &reply, SCRIPT_DISCARD, 2, MEM_COUNT(argv), argv, NULL, e) != 0)
        return -1;
    *dropped = reply->type == REDIS_REPLY_INTEGER && reply->integer == 1;
    freeReplyObject(reply);
    return 0;
}
