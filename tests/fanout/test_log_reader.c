#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/mem.h"
#include "fanout/log_reader.h"
#include "tests/support/fixture.h"

#define KINDS   (1u << CHANGE_ITEM | 1u << CHANGE_USER)
#define WRITERS 4
#define EACH    1250 /* items a writer */
#define AT_ONCE 25   /* items an insert; each has a time of its own */
#define CAP     16

struct world {
    struct fixture *fixture;
    struct mongo *mongo;
    struct mongo_conn *conn; /* writes */
    struct log_reader *reader;
};

static int group_setup(void **state)
{
    mongoc_log_set_handler(NULL, NULL);
    struct world *w = mem_zero(1, sizeof *w);
    w->fixture = fixture_new(FIXTURE_MONGOD);
    *state = w;
    return 0;
}

static int group_teardown(void **state)
{
    struct world *w = *state;
    fixture_free(w->fixture);
    free(w);
    return 0;
}

static int setup(void **state)
{
    struct world *w = *state;
    struct err e = {0};
    fixture_fresh(w->fixture);
    struct mongo_options o = {.uri = fixture_mongodb_uri(w->fixture), .app_name = "test", .pool_size = 8};
    if (mongo_new(&w->mongo, &o, &e) < 0 || mongo_conn_get(w->mongo, &w->conn, &e) < 0 ||
        mongo_schema_ensure(w->conn, &e) < 0)
        fail_msg("%s", e.msg);
    w->reader = NULL;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    log_reader_close(w->reader);
    mongo_conn_put(w->conn);
    mongo_free(w->mongo);
    return 0;
}

static void open_reader(struct world *w, unsigned cap, ts_t start)
{
    struct err e = {0};
    struct log_reader_options o = {.mongo = w->mongo,
                                   .instance = "reader",
                                   .kinds = KINDS,
                                   .start = start,
                                   .tell_items = true,
                                   .cap = cap};
    if (log_reader_open(&w->reader, &o, &e) < 0)
        fail_msg("log_reader_open: %s", e.msg);
}

/* ---- writing ---- */

/* Items first to first + n - 1, of publisher "p"; the time of the last. */
static ts_t write_items(struct mongo_conn *c, item_id first, unsigned n)
{
    bson_t docs[AT_ONCE], opts = BSON_INITIALIZER, reply;
    const bson_t *at[AT_ONCE];
    bson_error_t be;
    for (unsigned i = 0; i < n; i++) {
        bson_init(&docs[i]);
        BSON_APPEND_INT64(&docs[i], "_id", (int64_t)(first + i));
        BSON_APPEND_INT32(&docs[i], "revision", 1);
        BSON_APPEND_UTF8(&docs[i], "publisher", "p");
        BSON_APPEND_BOOL(&docs[i], "live", true);
        at[i] = &docs[i];
    }
    mongo_write_opts(c, &opts);
    bool ok = mongoc_collection_insert_many(mongo_coll(c, COLL_ITEMS), at, n, &opts, &reply, &be);
    for (unsigned i = 0; i < n; i++)
        bson_destroy(&docs[i]);
    bson_destroy(&opts);
    bson_destroy(&reply);
    return ok ? mongo_conn_time(c) : 0;
}

static ts_t write_item(struct world *w, item_id id)
{
    ts_t t = write_items(w->conn, id, 1);
    assert_true(t != 0);
    return t;
}

struct writer {
    struct mongo *mongo;
    unsigned number;
    bool ok;
    pthread_t thread;
};

static item_id nth_item(unsigned writer, unsigned n)
{
    return 1 + (item_id)writer * EACH + n;
}

static void *write_all(void *arg)
{
    struct writer *wr = arg;
    struct mongo_conn *c = NULL;
    struct err e;
    wr->ok = mongo_conn_get(wr->mongo, &c, &e) == 0;
    for (unsigned i = 0; wr->ok && i < EACH; i += AT_ONCE)
        wr->ok = write_items(c, nth_item(wr->number, i), AT_ONCE) != 0;
    mongo_conn_put(c);
    return NULL;
}

/* ---- reading ---- */

/* The next change, heartbeats included; fails on an error and after some seconds without. */
static void next_any(struct world *w, struct change *out)
{
    struct err e = {0};
    int rc = log_reader_next(w->reader, out, 15000 * fixture_slowness(), &e);
    if (rc < 0)
        fail_msg("%s", e.msg);
    if (rc == 0)
        fail_msg("nothing came");
}

static void next_item(struct world *w, struct change *out)
{
    do
        next_any(w, out);
    while (out->kind == CHANGE_HEARTBEAT);
    assert_int_equal(out->kind, CHANGE_ITEM);
}

/* Reads heartbeats away until the reader tells an error. */
static void next_error(struct world *w, struct err *e)
{
    struct change ch;
    int rc;
    while ((rc = log_reader_next(w->reader, &ch, 15000 * fixture_slowness(), e)) > 0)
        assert_int_equal(ch.kind, CHANGE_HEARTBEAT);
    assert_int_equal(rc, -1);
}

static bool is_full(void *arg)
{
    struct world *w = arg;
    return log_reader_queued(w->reader) == CAP;
}

static bool is_down(void *arg)
{
    struct world *w = arg;
    return log_reader_down(w->reader);
}

static void dawdle(void)
{
    struct timespec ts = {.tv_nsec = 20000};
    nanosleep(&ts, NULL);
}

/* ---- order, completeness, room ---- */

static void what_several_write_comes_whole_and_in_order_through_a_short_queue(void **state)
{
    struct world *w = *state;
    struct writer writers[WRITERS];
    unsigned told[WRITERS] = {0};
    open_reader(w, CAP, 0);
    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){.mongo = w->mongo, .number = i};
        assert_int_equal(pthread_create(&writers[i].thread, NULL, write_all, &writers[i]), 0);
    }
    assert_true(fixture_until(is_full, w, 30000));
    ts_t complete = log_reader_complete(w->reader), last = 0;
    for (unsigned n = 0; n < WRITERS * EACH;) {
        struct change ch;
        next_any(w, &ch);
        assert_true(ch.t > complete); /* it was not said to be handed out already */
        assert_true(ch.t >= last);
        assert_true(log_reader_queued(w->reader) <= CAP);
        last = ch.t;
        ts_t now = log_reader_complete(w->reader);
        assert_true(now >= complete);
        assert_true(ch.kind == CHANGE_HEARTBEAT ? now >= ch.t : now < ch.t);
        complete = now;
        dawdle();
        if (ch.kind == CHANGE_HEARTBEAT)
            continue;
        assert_true(ch.inserted && ch.item_told);
        assert_string_equal(ch.publisher, "p");
        unsigned writer = (unsigned)(ch.item - 1) / EACH;
        assert_true(writer < WRITERS);
        assert_int_equal(ch.item, nth_item(writer, told[writer]++));
        n++;
    }
    for (unsigned i = 0; i < WRITERS; i++) {
        pthread_join(writers[i].thread, NULL);
        assert_true(writers[i].ok);
        assert_int_equal(told[i], EACH);
    }
    while (log_reader_complete(w->reader) < last) { /* by the thread's own heartbeat */
        struct change ch;
        next_any(w, &ch);
        assert_int_equal(ch.kind, CHANGE_HEARTBEAT);
    }
}

static void what_is_queued_is_not_complete_until_it_is_handed_out(void **state)
{
    struct world *w = *state;
    struct change ch;
    open_reader(w, CAP, 0);
    ts_t from = log_reader_complete(w->reader);
    for (item_id i = 1; i <= 2 * CAP; i++)
        write_item(w, i);
    assert_true(fixture_until(is_full, w, 30000));
    assert_true(log_reader_complete(w->reader) == from);
    next_item(w, &ch);
    assert_int_equal(ch.item, 1);
    assert_true(log_reader_complete(w->reader) < ch.t);
}

static void a_lone_change_becomes_complete_without_anybody_elses_help(void **state)
{
    struct world *w = *state;
    struct change ch;
    open_reader(w, CAP, 0);
    for (item_id i = 1; i <= 5; i++) {
        ts_t t = write_item(w, i);
        next_item(w, &ch);
        assert_true(ch.t == t);
        assert_true(log_reader_complete(w->reader) < t);
        next_any(w, &ch);
        assert_int_equal(ch.kind, CHANGE_HEARTBEAT);
        assert_string_equal(ch.name, "reader");
        assert_true(log_reader_complete(w->reader) >= t);
    }
}

static void a_queue_of_one_is_enough(void **state)
{
    struct world *w = *state;
    struct change ch;
    open_reader(w, 1, 0);
    for (item_id i = 1; i <= 20; i++)
        write_item(w, i);
    for (item_id i = 1; i <= 20; i++) {
        next_item(w, &ch);
        assert_int_equal(ch.item, i);
    }
}

static void it_begins_where_it_is_told_to(void **state)
{
    struct world *w = *state;
    struct change ch;
    write_item(w, 1);
    ts_t second = write_item(w, 2);
    write_item(w, 3);
    open_reader(w, CAP, second);
    assert_true(log_reader_complete(w->reader) < second);
    next_item(w, &ch);
    assert_int_equal(ch.item, 2);
    next_item(w, &ch);
    assert_int_equal(ch.item, 3);
}

/* ---- waiting, closing ---- */

static void asking_without_waiting_answers_at_once_while_nothing_comes(void **state)
{
    struct world *w = *state;
    struct change ch = {.item = 77};
    struct err e = {0};
    open_reader(w, CAP, 0);
    server_pause(fixture_mongod(w->fixture)); /* so nothing can come; a call that waits would hang */
    int64_t end = clock_mono_ms() + 20000 * fixture_slowness();
    unsigned calls = 0;
    int rc = 0;
    while (rc == 0 && calls < 20000 && clock_mono_ms() < end) {
        rc = log_reader_next(w->reader, &ch, 0, &e);
        calls++;
    }
    server_continue(fixture_mongod(w->fixture));
    assert_int_equal(rc, 0);
    assert_int_equal(calls, 20000);
    assert_int_equal(ch.item, 77);
    rc = log_reader_next(w->reader, &ch, 1, &e);
    assert_true(rc >= 0);
}

static void it_closes_while_the_queue_is_full_and_while_it_is_empty(void **state)
{
    struct world *w = *state;
    open_reader(w, CAP, 0);
    assert_int_equal(log_reader_queued(w->reader), 0);
    log_reader_close(w->reader);
    w->reader = NULL;
    open_reader(w, CAP, 0);
    for (item_id i = 1; i <= 3 * CAP; i++)
        write_item(w, i);
    assert_true(fixture_until(is_full, w, 30000));
    log_reader_close(w->reader);
    w->reader = NULL;
    log_reader_close(NULL);
}

static void an_outage_is_told_once_and_the_reader_closes_in_it(void **state)
{
    struct world *w = *state;
    struct change ch;
    struct err e = {0};
    open_reader(w, CAP, 0);
    server_kill(fixture_mongod(w->fixture));
    next_error(w, &e);
    bool down = log_reader_down(w->reader);
    int rc = log_reader_next(w->reader, &ch, 5000, &(struct err){0}); /* the thread has tried again by then */
    log_reader_close(w->reader);
    w->reader = NULL;
    fixture_restart(w->fixture, fixture_mongod(w->fixture));
    assert_int_equal(e.code, ERR_UNAVAILABLE);
    assert_true(down);
    assert_int_equal(rc, 0);
}

/* ---- errors ---- */

static void a_start_that_is_no_place_to_begin_is_told_by_open(void **state)
{
    struct world *w = *state;
    struct err e = {0};
    struct log_reader_options o = {.mongo = w->mongo, .instance = "reader", .kinds = KINDS, .cap = CAP};
    o.start = write_item(w, 1) + ((ts_t)60 << 32);
    assert_int_equal(log_reader_open(&w->reader, &o, &e), -1);
    assert_int_equal(e.code, ERR_UNAVAILABLE);
    assert_null(w->reader);
}

static void a_lost_log_is_told_after_what_came_before_and_for_good(void **state)
{
    struct world *w = *state;
    struct change ch;
    struct err e = {0};
    bson_error_t be;
    open_reader(w, CAP, 0);
    for (item_id i = 1; i <= CAP / 2; i++)
        write_item(w, i);
    assert_true(mongoc_collection_drop(mongo_coll(w->conn, COLL_ITEMS), &be));
    assert_true(fixture_until(is_down, w, 30000));
    for (item_id i = 1; i <= CAP / 2; i++) {
        next_item(w, &ch);
        assert_int_equal(ch.item, i);
    }
    ts_t complete = log_reader_complete(w->reader);
    for (int i = 0; i < 3; i++) {
        next_error(w, &e);
        assert_int_equal(e.code, ERR_LOG_LOST);
    }
    assert_int_equal(log_reader_next(w->reader, &ch, 0, &e), -1);
    assert_int_equal(e.code, ERR_LOG_LOST);
    assert_true(log_reader_complete(w->reader) >= complete);
}

/* Kills mongod while part of what was written is queued and part is only on the log. */
static void p1_nothing_is_missed_when_the_server_is_killed_and_comes_back(void **state)
{
    struct world *w = *state;
    struct change ch;
    struct err e = {0};
    item_id told = 0, written = 0;
    open_reader(w, CAP, 0);
    for (int round = 0; round < 2; round++) {
        while (written < told + 3 * CAP)
            write_item(w, ++written);
        assert_true(fixture_until(is_full, w, 30000));
        server_kill(fixture_mongod(w->fixture));
        int rc;
        while ((rc = log_reader_next(w->reader, &ch, 15000 * fixture_slowness(), &e)) > 0)
            if (ch.kind == CHANGE_ITEM)
                assert_int_equal(ch.item, ++told);
        assert_int_equal(rc, -1);
        assert_int_equal(e.code, ERR_UNAVAILABLE);
        assert_true(log_reader_down(w->reader));
        assert_int_equal(log_reader_next(w->reader, &ch, 0, &e), 0);
        fixture_restart(w->fixture, fixture_mongod(w->fixture));
        mongo_conn_put(w->conn);
        w->conn = NULL;
        assert_int_equal(mongo_conn_get(w->mongo, &w->conn, &e), 0);
        while (mongo_conn_fresh(w->conn, NULL, &e) < 0) {
        }
        write_item(w, ++written);
    }
    while (told < written) {
        next_item(w, &ch);
        assert_int_equal(ch.item, ++told);
    }
    assert_false(log_reader_down(w->reader));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(what_several_write_comes_whole_and_in_order_through_a_short_queue),
        T(what_is_queued_is_not_complete_until_it_is_handed_out),
        T(a_lone_change_becomes_complete_without_anybody_elses_help),
        T(a_queue_of_one_is_enough),
        T(it_begins_where_it_is_told_to),
        T(asking_without_waiting_answers_at_once_while_nothing_comes),
        T(it_closes_while_the_queue_is_full_and_while_it_is_empty),
        T(an_outage_is_told_once_and_the_reader_closes_in_it),
        T(a_start_that_is_no_place_to_begin_is_told_by_open),
        T(a_lost_log_is_told_after_what_came_before_and_for_good),
        T(p1_nothing_is_missed_when_the_server_is_killed_and_comes_back),
    };
    return cmocka_run_group_tests_name("fanout/log_reader", tests, group_setup, group_teardown);
}
