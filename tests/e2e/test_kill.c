/* test_kill.c - kill -9 of each process, of Redis and of mongod between a request sent and its answer.
 *
 * In each case a handful of writes that do not touch each other go out on connections of their own; after a
 * random moment the victim is killed, and the case counts if one of them was not answered by then. What is
 * acknowledged goes into the model, what is not is sent again until it is: so in the end every write has to
 * hold, once. Feeds are compared while the victim is away (unless nothing can be read then), after it came
 * back, and as delivered.
 *
 * FEEDMILL_KILLS cases for each victim.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/mem.h"
#include "tests/support/e2e_stack.h"

#define KILLS           50
#define KILLS_SANITIZED 8
#define AT_ONCE         6
#define LATEST_KILL_US  6000
#define ACKNOWLEDGED_MS 30000
#define LOOK_EVERY      10 /* cases between comparisons of everything */

static struct e2e_stack stack;

static int start_stack(void **state)
{
    (void)state;
    e2e_stack_start(&stack, &(struct e2e_stack_options){.ranker = true});
    return 0;
}

static int stop_stack(void **state)
{
    (void)state;
    return e2e_stack_stop(&stack);
}

/* ---- requests under way ---- */

struct flight {
    struct op op;
    struct rawhttp *conn;
};

struct sortie {
    struct flight flights[AT_ONCE];
    size_t n;
    struct rawhttp *ranked; /* a page in ranked order, for the ranker's sake; else NULL */
};

static bool fits(const struct sortie *s, const struct op *op)
{
    for (size_t i = 0; i < s->n; i++)
        if (op_conflicts(&s->flights[i].op, op))
            return false;
    return true;
}

static void send_some(struct driver *d, struct sortie *s)
{
    size_t n = 1 + rng_below(&d->rng, AT_ONCE);
    s->n = 0;
    while (s->n < n) {
        struct flight *f = &s->flights[s->n];
        op_make(d, DRIVER_GRAPH | DRIVER_NAMED, &f->op);
        if (!fits(s, &f->op)) {
            op_done(&f->op);
            continue;
        }
        f->conn = e2e_send(&stack.apis[0], f->op.method, f->op.path, f->op.extra, f->op.body);
        if (!f->conn)
            driver_fail(d, "can't connect to feed-api");
        s->n++;
    }
}

static void ask_ranked(struct driver *d, struct sortie *s)
{
    char path[200];
    snprintf(path, sizeof path, "/v1/users/%s/feed?order=ranked&fields=ids", driver_user(d, 0));
    s->ranked = e2e_send(&stack.apis[0], "GET", path, NULL, NULL);
    if (!s->ranked)
        driver_fail(d, "can't connect to feed-api");
}

static void read_ranked(struct driver *d, struct sortie *s)
{
    struct reply r;
    struct e2e_page p;
    if (rawhttp_try_read(s->ranked, "GET", &r) != 0 || r.status != 200)
        driver_fail(d, "a ranked page was not answered");
    e2e_page_parse(&r, &p);
    if (!p.session[0] && !p.fallback[0])
        driver_fail(d, "neither ranked nor a fallback: %.400s", r.body);
    e2e_page_done(&p);
    reply_done(&r);
    rawhttp_close(s->ranked);
    s->ranked = NULL;
}

static void wait_some(struct driver *d)
{
    /* Not to synchronise: the moment of the kill is what varies. */
    struct timespec t = {.tv_nsec = (long)rng_below(&d->rng, LATEST_KILL_US) * 1000};
    nanosleep(&t, NULL);
}

static bool is_open_question(const struct rawhttp *conn)
{
    struct pollfd p = {.fd = rawhttp_fd(conn), .events = POLLIN};
    return poll(&p, 1, 0) == 0;
}

static size_t unanswered(const struct sortie *s)
{
    size_t n = 0;
    if (s->ranked)
        return is_open_question(s->ranked);
    for (size_t i = 0; i < s->n; i++)
        n += is_open_question(s->flights[i].conn);
    return n;
}

/* A bulk request may be answered as a whole and refuse some lines because the database went away under it. */
static bool is_acknowledged(struct driver *d, const struct op *op, const struct reply *r)
{
    if (r->status == 503)
        return false;
    if (r->status >= 500)
        driver_fail(d, "%s %s: %d %.400s", op->method, op->path, r->status, r->body);
    bool lines = op->kind == OP_ITEMS || op->kind == OP_FOLLOWS;
    return !lines || !strstr(r->body, "\"status\":503");
}

/* Reads the answers; what has none stays in the sortie. */
static void read_answers(struct driver *d, struct sortie *s)
{
    size_t left = 0;
    for (size_t i = 0; i < s->n; i++) {
        struct flight *f = &s->flights[i];
        struct reply r;
        bool acknowledged = false;
        if (rawhttp_try_read(f->conn, f->op.method, &r) == 0) {
            acknowledged = is_acknowledged(d, &f->op, &r);
            if (acknowledged)
                op_apply(d, &f->op, &r);
            reply_done(&r);
        }
        rawhttp_close(f->conn);
        f->conn = NULL;
        if (acknowledged)
            op_done(&f->op);
        else
            s->flights[left++] = *f;
    }
    s->n = left;
}

struct attempt {
    struct driver *d;
    struct op *op;
    char last[400];
};

static bool try_again(void *arg)
{
    struct attempt *a = arg;
    struct reply r;
    if (e2e_try(&stack.apis[0], a->op->method, a->op->path, a->op->extra, a->op->body, &r) != 0)
        return false;
    bool acknowledged = is_acknowledged(a->d, a->op, &r);
    snprintf(a->last, sizeof a->last, "%d %s", r.status, r.body);
    if (acknowledged)
        op_apply(a->d, a->op, &r);
    reply_done(&r);
    return acknowledged;
}

static void send_again(struct driver *d, struct sortie *s)
{
    for (size_t i = 0; i < s->n; i++) {
        struct op *op = &s->flights[i].op;
        struct attempt a = {.d = d, .op = op};
        op->repeated = true;
        if (!fixture_until(try_again, &a, ACKNOWLEDGED_MS))
            driver_fail(d, "%s %s is not taken any more: %s", op->method, op->path, a.last);
        op_done(op);
    }
    s->n = 0;
}

/* ---- victims ---- */

struct victim {
    const char *name;
    struct server *(*server)(void);
    bool writes_without; /* everything is answered while it is away */
};

static struct server *the_feed_api(void)
{
    return stack.servers[0];
}

static struct server *the_fanout(void)
{
    return stack.fanout;
}

static struct server *the_ranker(void)
{
    return stack.ranker;
}

static struct server *the_redis(void)
{
    return fixture_redis(stack.f);
}

static struct server *the_mongod(void)
{
    return fixture_mongod(stack.f);
}

static void come_back(struct driver *d, const struct victim *v)
{
    fixture_restart(stack.f, v->server());
    if (v->server() == the_feed_api())
        e2e_api_drop(&stack.apis[0]);
    if (v->server() == the_redis()) {
        e2e_stack_redis_again(&stack);
        d->redis = stack.redis;
    }
}

/* A ranked page is answered, with or without the ranker, and holds only what belongs to the feed. */
static void check_ranked(struct driver *d, unsigned user)
{
    char path[200];
    struct e2e_page p;
    snprintf(path, sizeof path, "/v1/users/%s/feed", driver_user(d, user));
    e2e_page(&stack.apis[0], path, "limit=30&order=ranked&fields=ids", NULL, d->position, &p);
    for (size_t i = 0; i < p.n; i++) {
        const struct model_item *it = model_find(&d->model, p.items[i].id);
        if (!it || !model_shows(&d->model, user, it))
            driver_fail(d, "%s ranked: item %" PRIu64 " does not belong there", path, p.items[i].id);
    }
    if (!p.session[0] && !p.fallback[0])
        driver_fail(d, "%s: neither ranked nor a fallback", path);
    e2e_page_done(&p);
}

/* One case; answers whether it counts; *again grows by the writes that were not acknowledged. */
static bool kill_between(struct driver *d, const struct victim *v, size_t *again)
{
    struct sortie s = {.n = 0};
    send_some(d, &s);
    if (v->server() == the_ranker())
        ask_ranked(d, &s);
    wait_some(d);
    bool counts = unanswered(&s) > 0;
    server_kill(v->server());
    unsigned user = rng_below(&d->rng, d->users);
    if (s.ranked)
        read_ranked(d, &s);
    if (v->writes_without) {
        read_answers(d, &s);
        if (s.n > 0)
            driver_fail(d, "%s %s was not answered without %s", s.flights[0].op.method, s.flights[0].op.path,
                        v->name);
        driver_check_feed(d, user);
        driver_check_now(d, user, &stack.apis[0]);
    }
    come_back(d, v);
    read_answers(d, &s);
    *again += s.n;
    send_again(d, &s);
    driver_check_feed(d, user);
    if (v->server() == the_ranker())
        check_ranked(d, user);
    return counts;
}

static void check_everything(struct driver *d)
{
    driver_check_all_feeds(d);
    for (unsigned u = 0; u < d->users; u++)
        driver_check_delivered(d, u);
    driver_check_targets(d);
    driver_check_rest(d);
}

static void run(const struct victim *v)
{
    struct driver d;
    int64_t start = clock_mono_ms();
    unsigned wanted = (unsigned)e2e_env("FEEDMILL_KILLS", fixture_slowness() > 1 ? KILLS_SANITIZED : KILLS);
    unsigned counted = 0, kills = 0;
    size_t again = 0;
    driver_init(&d, (uint64_t)e2e_env("FEEDMILL_SEED", 1), v->name, stack.apis, 1, stack.redis);
    d.db_away = v->server() == the_mongod();
    driver_setup(&d, 40);
    driver_catch_up(&d);
    for (; counted < wanted && kills < 3 * wanted; kills++) {
        counted += kill_between(&d, v, &again);
        if (kills % LOOK_EVERY == LOOK_EVERY - 1)
            check_everything(&d);
    }
    check_everything(&d);
    printf("%s: %u kills, %u of them between a request and its answer; %u writes acknowledged, %zu of them "
           "only when sent again, %u feeds "
           "compared, %" PRId64 " ms\n",
           v->name, kills, counted, d.ops, again, d.feeds, clock_mono_ms() - start);
    fflush(stdout);
    assert_true(counted >= wanted);
    driver_done(&d);
}

static void p1_acknowledged_writes_hold_once_when_feed_api_is_killed(void **state)
{
    (void)state;
    run(&(struct victim){"feed-api", the_feed_api, false});
}

static void p1_acknowledged_writes_hold_once_when_fanout_is_killed(void **state)
{
    (void)state;
    run(&(struct victim){"fanout", the_fanout, true});
}

static void p1_acknowledged_writes_hold_once_when_the_ranker_is_killed(void **state)
{
    (void)state;
    run(&(struct victim){"ranker", the_ranker, true});
}

static void p1_acknowledged_writes_hold_once_when_redis_is_killed(void **state)
{
    (void)state;
    run(&(struct victim){"redis", the_redis, true});
}

static void p1_acknowledged_writes_hold_once_when_mongod_is_killed(void **state)
{
    (void)state;
    run(&(struct victim){"mongod", the_mongod, false});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(p1_acknowledged_writes_hold_once_when_feed_api_is_killed),
        cmocka_unit_test(p1_acknowledged_writes_hold_once_when_fanout_is_killed),
        cmocka_unit_test(p1_acknowledged_writes_hold_once_when_the_ranker_is_killed),
        cmocka_unit_test(p1_acknowledged_writes_hold_once_when_redis_is_killed),
        cmocka_unit_test(p1_acknowledged_writes_hold_once_when_mongod_is_killed),
    };
    return cmocka_run_group_tests_name("kill -9", tests, start_stack, stop_stack);
}
