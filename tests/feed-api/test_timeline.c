/* Tests of feed-api/timeline.c: reading the reply of Redis, and when a timeline counts. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "feed-api/timeline.h"

#define ANY (ITEM_ID_MAX + 1)

/* ---- replies, as they come over the wire; NULL strings are nil ---- */

static void add_string(struct buf *b, const char *s)
{
    if (s)
        buf_printf(b, "$%zu\r\n%s\r\n", strlen(s), s);
    else
        buf_add_str(b, "$-1\r\n");
}

static void add_list(struct buf *b, const char *const *items, size_t n)
{
    buf_printf(b, "*%zu\r\n", n);
    for (size_t i = 0; i < n; i++)
        add_string(b, items[i]);
}

struct wire {
    const char *record[2]; /* progress, born */
    const char *meta[5];   /* r, st, m, x, p */
    const char *floor;
    const char *ids[16];
    size_t n;
};

static redisReply *parse_wire(const char *s)
{
    redisReader *reader = redisReaderCreate();
    void *reply = NULL;
    assert_int_equal(redisReaderFeed(reader, s, strlen(s)), REDIS_OK);
    assert_int_equal(redisReaderGetReply(reader, &reply), REDIS_OK);
    assert_non_null(reply);
    redisReaderFree(reader);
    return reply;
}

static redisReply *reply_of(const struct wire *w)
{
    struct buf b;
    buf_init(&b, 65536);
    buf_add_str(&b, "*4\r\n");
    add_list(&b, w->record, 2);
    add_list(&b, w->meta, 5);
    add_string(&b, w->floor);
    add_list(&b, w->ids, w->n);
    redisReply *r = parse_wire(b.data);
    buf_done(&b);
    return r;
}

static struct wire good(void)
{
    return (struct wire){.record = {"0000000200000000", "0000000000000001"},
                         .meta = {"0000000100000000", "r", "p:x\nw:cat", "1700000000", "\np:big\n"},
                         .floor = "-50",
                         .ids = {"90", "80", "70", "f", "40"},
                         .n = 5};
}

static int parse(const struct wire *w, item_id before, unsigned n, struct timeline *out, struct err *e)
{
    struct timeline_read r;
    timeline_read_init(&r, "ann", before, n);
    redisReply *reply = reply_of(w);
    int rc = timeline_parse(reply, &r, out, e);
    freeReplyObject(reply);
    return rc;
}

static void a_timeline_reads_with_all_its_parts(void **state)
{
    (void)state;
    struct wire w = good();
    struct timeline t;
    struct err e;
    assert_int_equal(parse(&w, ANY, 10, &t, &e), 0);
    assert_true(t.has_record && t.exists && t.ready);
    assert_int_equal(t.progress, 0x200000000);
    assert_int_equal(t.born, 1);
    assert_int_equal(t.r, 0x100000000);
    assert_string_equal(t.mutes, "p:x\nw:cat");
    assert_int_equal(t.expiry_set_s, 1700000000);
    assert_string_equal(t.pulls, "\np:big\n");
    assert_int_equal(t.floor, 50);
    assert_int_equal(t.n, 3);
    assert_int_equal(t.ids[2], 70);
    assert_true(t.at_floor);
    timeline_done(&t);
}

static void ids_at_or_below_the_floor_do_not_count(void **state)
{
    (void)state;
    struct wire w = good();
    struct timeline t;
    struct err e;
    w.ids[2] = "50"; /* the id that the floor was taken from, delivered again */
    assert_int_equal(parse(&w, ANY, 10, &t, &e), 0);
    assert_int_equal(t.n, 2);
    assert_true(t.at_floor);
    timeline_done(&t);
}

static void a_list_cut_by_its_limit_does_not_reach_the_floor(void **state)
{
    (void)state;
    struct wire w = good();
    struct timeline t;
    struct err e;
    w.n = 3;
    assert_int_equal(parse(&w, ANY, 3, &t, &e), 0);
    assert_int_equal(t.n, 3);
    assert_false(t.at_floor);
    timeline_done(&t);
    assert_int_equal(parse(&w, ANY, 4, &t, &e), 0); /* it was not cut */
    assert_true(t.at_floor);
    timeline_done(&t);
}

static void a_cursor_below_the_floor_finds_nothing_above_it(void **state)
{
    (void)state;
    struct wire w = good();
    struct timeline t;
    struct err e;
    w.ids[0] = "45";
    w.ids[1] = "44";
    w.n = 2;
    assert_int_equal(parse(&w, 50, 2, &t, &e), 0);
    assert_int_equal(t.n, 0);
    assert_true(t.at_floor);
    timeline_done(&t);
}

static void the_largest_floor_reads_exactly(void **state)
{
    (void)state;
    struct wire w = good();
    struct timeline t;
    struct err e;
    w.floor = "-9007199254740991";
    w.n = 0;
    assert_int_equal(parse(&w, ANY, 5, &t, &e), 0);
    assert_true(t.floor == ITEM_ID_MAX);
    timeline_done(&t);
}

static void a_timeline_without_one_of_its_keys_is_absent(void **state)
{
    (void)state;
    struct timeline t;
    struct err e;
    struct wire w = good();
    w.floor = NULL;
    w.n = 0;
    assert_int_equal(parse(&w, ANY, 5, &t, &e), 0);
    assert_false(t.exists);
    timeline_done(&t);
    w = good();
    w.meta[0] = NULL;
    assert_int_equal(parse(&w, ANY, 5, &t, &e), 0);
    assert_false(t.exists);
    timeline_done(&t);
}

static void what_we_did_not_write_is_corrupt(void **state)
{
    (void)state;
    struct timeline t = {.n = 77};
    struct err e;
    struct wire w = good();
    w.ids[1] = "no id";
    assert_int_equal(parse(&w, ANY, 5, &t, &e), -1);
    assert_int_equal(e.code, ERR_CORRUPT);
    w = good();
    w.floor = "12";
    assert_int_equal(parse(&w, ANY, 5, &t, &e), -1);
    w = good();
    w.record[0] = "later";
    assert_int_equal(parse(&w, ANY, 5, &t, &e), -1);
    assert_int_equal(e.code, ERR_CORRUPT);
    assert_int_equal(t.n, 77);
}

static void an_error_of_one_command_makes_redis_unavailable(void **state)
{
    (void)state;
    struct timeline_read r;
    struct timeline t;
    struct err e;
    timeline_read_init(&r, "ann", ANY, 5);
    redisReply *reply = parse_wire("*4\r\n-LOADING wait\r\n*0\r\n$-1\r\n*0\r\n");
    assert_int_equal(timeline_parse(reply, &r, &t, &e), -1);
    assert_int_equal(e.code, ERR_UNAVAILABLE);
    freeReplyObject(reply);
}

static void the_commands_name_the_keys_of_one_bucket(void **state)
{
    (void)state;
    struct timeline_read r;
    timeline_read_init(&r, "ann", 123, 29);
    assert_string_equal(r.commands[0].argv[0], "HMGET");
    assert_string_equal(r.commands[3].argv[2], "(-123");
    assert_string_equal(r.commands[3].argv[6], "29");
    char tag[16];
    snprintf(tag, sizeof tag, "{%u}", keys_bucket("ann"));
    for (int i = 0; i < TIMELINE_COMMANDS; i++)
        assert_non_null(strstr(r.commands[i].argv[1], tag));
}

/* ---- the decision ---- */

static struct timeline usable(void)
{
    return (struct timeline){
        .has_record = true, .progress = 200, .born = 10, .exists = true, .ready = true, .r = 100};
}

static void a_timeline_that_is_new_enough_counts(void **state)
{
    (void)state;
    struct timeline t = usable();
    struct timeline_question q = {.asked = 200, .user_changed = 100, .user_memory = 200};
    assert_int_equal(timeline_decide(&t, &q), TIMELINE_USABLE);
    assert_int_equal(timeline_time(&t), 200);
}

static void without_a_record_nothing_can_be_built(void **state)
{
    (void)state;
    struct timeline t = usable();
    t.has_record = false;
    assert_int_equal(timeline_decide(&t, &(struct timeline_question){0}), TIMELINE_NO_RECORD);
}

static void a_timeline_in_the_making_is_absent(void **state)
{
    (void)state;
    struct timeline t = usable();
    t.ready = false;
    assert_int_equal(timeline_decide(&t, &(struct timeline_question){0}), TIMELINE_ABSENT);
    t = usable();
    t.exists = false;
    assert_int_equal(timeline_decide(&t, &(struct timeline_question){0}), TIMELINE_ABSENT);
}

static void a_timeline_older_than_its_record_is_absent(void **state)
{
    (void)state;
    struct timeline t = usable();
    t.born = 101;
    assert_int_equal(timeline_decide(&t, &(struct timeline_question){0}), TIMELINE_ABSENT);
    t.born = 100;
    assert_int_equal(timeline_decide(&t, &(struct timeline_question){0}), TIMELINE_USABLE);
}

static void P5_a_timeline_older_than_the_readers_change_is_absent(void **state)
{
    (void)state;
    struct timeline t = usable();
    assert_int_equal(timeline_decide(&t, &(struct timeline_question){.user_changed = 101}), TIMELINE_ABSENT);
    /* ... even if progress is later: the owner's drop may come after. */
    t.progress = 1000;
    assert_int_equal(timeline_decide(&t, &(struct timeline_question){.user_changed = 101}), TIMELINE_ABSENT);
}

static void P5_a_timeline_older_than_this_process_remembers_is_absent(void **state)
{
    (void)state;
    struct timeline t = usable();
    assert_int_equal(timeline_decide(&t, &(struct timeline_question){.user_memory = 201}), TIMELINE_ABSENT);
}

static void P8_a_timeline_behind_the_asked_position_is_behind(void **state)
{
    (void)state;
    struct timeline t = usable();
    assert_int_equal(timeline_decide(&t, &(struct timeline_question){.asked = 201}), TIMELINE_BEHIND);
    t.r = 201;
    assert_int_equal(timeline_decide(&t, &(struct timeline_question){.asked = 201}), TIMELINE_USABLE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_timeline_reads_with_all_its_parts),
        cmocka_unit_test(ids_at_or_below_the_floor_do_not_count),
        cmocka_unit_test(a_list_cut_by_its_limit_does_not_reach_the_floor),
        cmocka_unit_test(a_cursor_below_the_floor_finds_nothing_above_it),
        cmocka_unit_test(the_largest_floor_reads_exactly),
        cmocka_unit_test(a_timeline_without_one_of_its_keys_is_absent),
        cmocka_unit_test(what_we_did_not_write_is_corrupt),
        cmocka_unit_test(an_error_of_one_command_makes_redis_unavailable),
        cmocka_unit_test(the_commands_name_the_keys_of_one_bucket),
        cmocka_unit_test(a_timeline_that_is_new_enough_counts),
        cmocka_unit_test(without_a_record_nothing_can_be_built),
        cmocka_unit_test(a_timeline_in_the_making_is_absent),
        cmocka_unit_test(a_timeline_older_than_its_record_is_absent),
        cmocka_unit_test(P5_a_timeline_older_than_the_readers_change_is_absent),
        cmocka_unit_test(P5_a_timeline_older_than_this_process_remembers_is_absent),
        cmocka_unit_test(P8_a_timeline_behind_the_asked_position_is_behind),
    };
    return cmocka_run_group_tests_name("timeline", tests, NULL, NULL);
}
