#include "tools/audit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/audit.h"
#include "common/audit_counts.h"
#include "common/audit_pick.h"
#include "common/clock.h"
#include "common/mem.h"
#include "tools/audit_report.h"
#include "tools/audit_scan.h"
#include "tools/stack_data.h"

#define TARGETS_BATCH 200
#define SUSPECTS_MAX  10000
#define TRIES         8 /* of one check whose server does not answer, with pauses of 0.1 s, 0.2 s, ... 2 s */

#define AT(field) offsetof(struct auditor_options, field)

const struct config_row auditor_rows[] = {
    {"data", CONFIG_STRING, AT(data), "./run", 1, 4000,
     "directory of a running `make run`, whose databases are meant; where both addresses are given it does "
     "not count"},
    {"mongodb-uri", CONFIG_STRING, AT(mongodb_uri), "", 0, 2048, "MongoDB; empty: the one of --data"},
    {"redis", CONFIG_STRING, AT(redis), "", 0, 300,
     "Redis, host:port or unix:/path; empty: the one of --data"},
    {"all", CONFIG_BOOL, AT(all), "no", 0, 0, "check every timeline and every count"},
    {"user", CONFIG_STRING, AT(user), "", 0, NAME_MAX_BYTES, "check the timeline of this user only"},
    {"sample", CONFIG_INT, AT(sample), "1000", 0, 1000000,
     "check so many timelines by chance, when neither --all nor --user is given"},
    {"counts", CONFIG_BOOL, AT(counts), "no", 0, 0,
     "check the followers of all targets too; with --all that is done in any case"},
    {"repair", CONFIG_BOOL, AT(repair), "no", 0, 0,
     "drop a wrong timeline (the next read rebuilds it), store a wrong count as counted; else only report"},
    {"json", CONFIG_BOOL, AT(json), "no", 0, 0, "one JSON object a line, the last one the summary"},
    {"rate", CONFIG_INT, AT(rate), "200", 1, 100000, "timelines, or counts, checked in a second at most"},
    {"deadline", CONFIG_MS, AT(deadline_ms), "10s", 100, 600000,
     "how long one timeline may take before it is unjudged"},
    {"count-lag", CONFIG_MS, AT(count_lag_ms), "12s", 0, 3600000,
     "how long feed-api may take to count a target again (its counts' interval and some)"},
};
const size_t auditor_rows_count = MEM_COUNT(auditor_rows);

struct auditor {
    const struct auditor_options *o;
    const atomic_bool *stop;
    struct mongo *mongo;
    struct audit *audit;
    struct audit_totals totals;
    struct audit_printer printer;
    int64_t next_us; /* of the next check, by --rate */
};

static bool stopped(struct auditor *a)
{
    if (atomic_load(a->stop))
        a->totals.stopped = true;
    return a->totals.stopped;
}

static void sleep_us(int64_t us)
{
    struct timespec t = {us / 1000000, us % 1000000 * 1000};
    if (us > 0)
        nanosleep(&t, NULL); /* a signal ends it early, which is what it is for */
}

/* ---- putting it together ---- */

static int find_databases(const struct auditor_options *o, char **uri, char **redis, struct err *e)
{
    *uri = *redis = NULL;
    if ((!o->mongodb_uri[0] || !o->redis[0]) && stack_data_addresses(o->data, uri, redis, e) != 0)
        return -1;
    if (o->mongodb_uri[0]) {
        free(*uri);
        *uri = mem_strdup(o->mongodb_uri);
    }
    if (o->redis[0]) {
        free(*redis);
        *redis = mem_strdup(o->redis);
    }
    return 0;
}

static int connect_both(struct auditor *a, struct err *e)
{
    struct mongo_conn *conn;
    redisReply *pong;
    if (audit_conn(a->audit, &conn, e) != 0 || mongo_conn_fresh(conn, NULL, e) != 0)
        return -1;
    if (redis_commandf(audit_redis(a->audit), &pong, e, "PING", NULL) != 0)
        return -1;
    freeReplyObject(pong);
    return 0;
}

static int check_options(const struct auditor_options *o, struct err *e)
{
    if (o->all && o->user[0])
        return err_set(e, ERR_INVALID, "--all and --user: only one of them");
    if (o->user[0] && names_check(o->user, strlen(o->user), e) != 0)
        return err_prefix(e, "--user");
    return 0;
}

static int open_auditor(struct auditor *a, struct err *e)
{
    struct audit_options o = {.deadline_ms = a->o->deadline_ms, .stop = a->stop, .redis_timeout_ms = 5000};
    struct mongo_options mo = {.app_name = "feedmill-audit", .pool_size = 2};
    char *uri = NULL, *redis = NULL;
    int rc = check_options(a->o, e);
    if (rc == 0)
        rc = find_databases(a->o, &uri, &redis, e);
    if (rc == 0)
        rc = redis_address_parse(redis, &o.redis, e);
    mo.uri = uri;
    if (rc == 0)
        rc = mongo_new(&a->mongo, &mo, e);
    if (rc == 0) {
        o.mongo = a->mongo;
        a->audit = audit_new(&o);
        rc = connect_both(a, e);
    }
    free(uri);
    free(redis);
    return rc;
}

/* ---- one at a time ---- */

static void keep_rate(struct auditor *a)
{
    int64_t now = clock_mono_us();
    if (a->next_us > now)
        sleep_us(a->next_us - now);
    else
        a->next_us = now;
    a->next_us += 1000000 / a->o->rate;
}

static bool is_passing(const struct err *e)
{
    return e->code == ERR_UNAVAILABLE || e->code == ERR_TIMEOUT || e->code == ERR_BUSY;
}

/* A server that restarts is waited for; answers whether it is worth another try. */
static bool pause_before_try(struct auditor *a, unsigned try, const struct err *e)
{
    if (!is_passing(e) || try + 1 >= TRIES || stopped(a))
        return false;
    int64_t ms = 100 << (try < 5 ? try : 5);
    sleep_us((ms < 2000 ? ms : 2000) * 1000);
    return true;
}

static int check(struct auditor *a, const char *user, struct audit_report *r, struct err *e)
{
    for (unsigned try = 0;; try++) {
        if (audit_timeline(a->audit, user, r, e) == 0)
            return 0;
        if (!pause_before_try(a, try, e))
            return err_prefix(e, "checking %s", user);
    }
}

static int repair(struct auditor *a, const struct audit_report *wrong, struct err *e)
{
    struct audit_report *after = mem_alloc(sizeof *after);
    bool dropped;
    int rc = audit_repair(a->audit, wrong, &dropped, e);
    if (rc == 0)
        rc = check(a, wrong->user, after, e);
    if (rc == 0)
        audit_print_repair(&a->printer, wrong->user, dropped, after->verdict);
    free(after);
    return rc;
}

static int take_timeline(struct auditor *a, const char *user, struct err *e)
{
    struct audit_report *r = mem_alloc(sizeof *r);
    keep_rate(a);
    int rc = check(a, user, r, e);
    if (rc == 0) {
        audit_print_report(&a->printer, r);
        if (r->verdict == AUDIT_WRONG && a->o->repair)
            rc = repair(a, r, e);
        else if (r->verdict == AUDIT_WRONG)
            a->totals.not_repaired++;
    }
    free(r);
    return rc;
}

/* ---- many ---- */

static int check_timelines(struct auditor *a, struct err *e)
{
    struct audit_scan *s = audit_scan_new(audit_redis(a->audit), a->o->all ? 0 : (size_t)a->o->sample);
    char user[NAME_MAX_BYTES + 1];
    uint64_t done = 0;
    int rc = 0;
    unsigned try = 0;
    while (rc == 0 && !stopped(a)) {
        int more = audit_scan_next(s, user, e);
        if (more < 0 && pause_before_try(a, try++, e))
            continue;
        if (more < 0)
            rc = -1;
        if (more <= 0)
            break;
        try = 0;
        rc = take_timeline(a, user, e);
        done++;
        audit_print_progress(&a->printer, "timelines", done, audit_scan_total(s, done));
    }
    audit_scan_free(s);
    return rc;
}

static void count_found(void *arg, const struct audit_count *found)
{
    struct auditor *a = arg;
    struct mongo_conn *conn;
    struct err e;
    bool right = false;
    audit_print_count(&a->printer, found);
    if (!a->o->repair) {
        a->totals.not_repaired++;
        return;
    }
    if (audit_conn(a->audit, &conn, &e) == 0 && audit_count_repair(conn, found, &right, &e) != 0)
        right = false;
    audit_print_count_repair(&a->printer, found->target, right);
}

/* Waits for what differs until it is settled; with wait false it only looks at what is due. */
static int settle_counts(struct auditor *a, struct audit_counter *w, bool wait, struct err *e)
{
    int64_t ms = 0;
    unsigned try = 0;
    while (ms >= 0 && !stopped(a)) {
        struct mongo_conn *conn;
        int rc = audit_conn(a->audit, &conn, e);
        if (rc == 0)
            rc = audit_counter_step(w, conn, a->o->deadline_ms, &ms, e);
        if (rc != 0 && !pause_before_try(a, try++, e))
            return -1;
        if (!wait)
            return 0;
        if (rc == 0 && ms > 0)
            sleep_us(ms * 1000);
        audit_counter_result(w, &a->totals.counts);
        audit_print_progress(&a->printer, "counts", a->totals.counts.checked - audit_counter_open(w),
                             a->totals.counts.checked);
    }
    return 0;
}

static int take_count(struct auditor *a, struct audit_counter *w, const char *target, struct err *e)
{
    keep_rate(a);
    for (unsigned try = 0;; try++) {
        struct mongo_conn *conn;
        if (audit_conn(a->audit, &conn, e) == 0 && audit_counter_add(w, conn, target, e) == 0)
            return 0;
        if (!pause_before_try(a, try, e))
            return err_prefix(e, "counting %s", target);
    }
}

static int next_targets(struct auditor *a, const char *after, char (*out)[TARGET_TEXT_SIZE], size_t *n,
                        struct err *e)
{
    for (unsigned try = 0;; try++) {
        struct mongo_conn *conn;
        if (audit_conn(a->audit, &conn, e) == 0 &&
            audit_count_targets(conn, after, out, TARGETS_BATCH, n, e) == 0)
            return 0;
        if (!pause_before_try(a, try, e))
            return -1;
    }
}

static int check_counts(struct auditor *a, struct err *e)
{
    struct audit_counter *w = audit_counter_new(a->o->count_lag_ms, SUSPECTS_MAX, count_found, a);
    char(*targets)[TARGET_TEXT_SIZE] = mem_alloc(TARGETS_BATCH * sizeof *targets);
    char after[TARGET_TEXT_SIZE] = "";
    size_t n = TARGETS_BATCH;
    int rc = 0;
    a->totals.with_counts = true;
    a->totals.began_ms = clock_mono_ms();
    while (rc == 0 && n > 0 && !stopped(a)) {
        rc = next_targets(a, after, targets, &n, e);
        for (size_t i = 0; rc == 0 && i < n && !stopped(a); i++) {
            rc = take_count(a, w, targets[i], e);
            audit_counter_result(w, &a->totals.counts);
            audit_print_progress(&a->printer, "counts", a->totals.counts.checked, 0);
        }
        if (rc == 0 && n > 0) {
            strcpy(after, targets[n - 1]);
            rc = settle_counts(a, w, false, e);
        }
    }
    if (rc == 0)
        rc = settle_counts(a, w, true, e);
    audit_counter_give_up(w);
    audit_counter_result(w, &a->totals.counts);
    audit_counter_free(w);
    free(targets);
    return rc;
}

enum auditor_result auditor_run(const struct auditor_options *o, const atomic_bool *stop, struct err *e)
{
    struct auditor *a = mem_zero(1, sizeof *a);
    a->o = o;
    a->stop = stop;
    audit_printer_init(&a->printer, o->json, &a->totals);
    int64_t began = a->totals.began_ms;
    int rc = open_auditor(a, e);
    bool opened = rc == 0;
    if (rc == 0)
        rc = o->user[0] ? take_timeline(a, o->user, e) : o->all || o->sample ? check_timelines(a, e) : 0;
    if (rc == 0 && (o->all || o->counts))
        rc = check_counts(a, e);
    a->totals.began_ms = began;
    if (opened)
        audit_print_totals(&a->printer);
    enum auditor_result result = rc != 0                      ? AUDITOR_FAILED
                                 : a->totals.not_repaired > 0 ? AUDITOR_FOUND
                                                              : AUDITOR_NONE;
    audit_free(a->audit);
    mongo_free(a->mongo);
    free(a);
    return result;
}
