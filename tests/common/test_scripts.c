#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/buf.h"
#include "common/keys.h"
#include "common/mem.h"
#include "common/redis.h"
#include "common/ts.h"
#include "tests/support/fixture.h"
#include "tests/support/timeline_model.h"

#define BUCKET 7

struct world {
    struct fixture *fixture;
    struct redis *redis;
};

static int group_setup(void **state)
{
    struct world *w = mem_zero(1, sizeof *w);
    struct redis_address a;
    struct err e = {0};
    w->fixture = fixture_new(FIXTURE_REDIS);
    if (redis_address_parse(fixture_redis_address(w->fixture), &a, &e) < 0)
        fail_msg("%s", e.msg);
    w->redis = redis_new(&a, 5000);
    *state = w;
    return 0;
}

static int group_teardown(void **state)
{
    struct world *w = *state;
    redis_free(w->redis);
    fixture_free(w->fixture);
    free(w);
    return 0;
}

/* ---- texts: times, keys; good until 16 more were made ---- */

static char *slot(void)
{
    static char slots[16][KEY_SIZE];
    static unsigned next;
    return slots[next++ % 16];
}

static const char *T(ts_t t)
{
    char *s = slot();
    ts_format(t, s);
    return s;
}

static const char *tl(const char *user)
{
    char *s = slot();
    keys_timeline(s, BUCKET, user);
    return s;
}

static const char *pf(const char *user)
{
    char *s = slot();
    keys_timeline_meta(s, BUCKET, user);
    return s;
}

static const char *bk(unsigned bucket)
{
    char *s = slot();
    keys_bucket_record(s, bucket);
    return s;
}

static const char *num(long long v)
{
    char *s = slot();
    snprintf(s, KEY_SIZE, "%lld", v);
    return s;
}

/* ---- calling ---- */

#define ARGS_MAX     600
#define CALL(s, ...) call(w, s, (const char *[]){__VA_ARGS__, NULL})

static redisReply *command(struct world *w, const char *const *argv)
{
    int argc = 0;
    while (argv[argc] != NULL)
        argc++;
    redisReply *r = NULL;
    struct err e = {0};
    if (redis_command(w->redis, &r, argc, (const char **)argv, NULL, &e) < 0)
        fail_msg("%s: %s", argv[0], e.msg);
    return r;
}

#define COMMAND(...) command(w, (const char *[]){__VA_ARGS__, NULL})

static void run(struct world *w, const char *const *argv)
{
    freeReplyObject(command(w, argv));
}

#define RUN(...) run(w, (const char *[]){__VA_ARGS__, NULL})

static long long integer(struct world *w, const char *const *argv)
{
    redisReply *r = command(w, argv);
    assert_int_equal(r->type, REDIS_REPLY_INTEGER);
    long long v = r->integer;
    freeReplyObject(r);
    return v;
}

#define INTEGER(...) integer(w, (const char *[]){__VA_ARGS__, NULL})

/* A string reply, "" for none; good like slot(). */
static const char *text(struct world *w, const char *const *argv)
{
    redisReply *r = command(w, argv);
    char *s = slot();
    snprintf(s, KEY_SIZE, "%s", r->type == REDIS_REPLY_NIL ? "" : r->str);
    freeReplyObject(r);
    return s;
}

#define TEXT(...) text(w, (const char *[]){__VA_ARGS__, NULL})

/* argv: number of keys, keys, arguments. Answers the reply. */
static redisReply *call(struct world *w, enum script s, const char *const *argv)
{
    int argc = 0;
    while (argv[argc + 1] != NULL)
        argc++;
    redisReply *r = NULL;
    struct err e = {0};
    if (redis_script(w->redis, &r, s, atoi(argv[0]), argc, (const char **)argv + 1, NULL, &e) < 0)
        fail_msg("%s: %s", script_name(s), e.msg);
    return r;
}

/* The answer of a script of one group. */
static long long one(redisReply *r)
{
    assert_int_equal(r->type, REDIS_REPLY_ARRAY);
    assert_int_equal(r->elements, 1);
    long long v = r->element[0]->integer;
    freeReplyObject(r);
    return v;
}

/* {answer, time} of adopt and build. */
static long long answer(redisReply *r, ts_t *t)
{
    struct err e = {0};
    assert_int_equal(r->type, REDIS_REPLY_ARRAY);
    long long v = r->element[0]->integer;
    if (t != NULL && r->elements > 1 && ts_parse(r->element[1]->str, t, &e) < 0)
        fail_msg("%s", e.msg);
    freeReplyObject(r);
    return v;
}

static long long plain(redisReply *r)
{
    assert_int_equal(r->type, REDIS_REPLY_INTEGER);
    long long v = r->integer;
    freeReplyObject(r);
    return v;
}

static long long adopt(struct world *w, ts_t epoch, ts_t now, bool reset, ts_t *progress)
{
    return answer(CALL(SCRIPT_ADOPT, "1", bk(BUCKET), T(epoch), T(now), reset ? "1" : "0"), progress);
}

static long long build(struct world *w, const char *user, ts_t least, const char *token, ts_t *r)
{
    return answer(CALL(SCRIPT_BUILD, "3", tl(user), pf(user), bk(BUCKET), T(least), token, "60000"), r);
}

/* ids: newest first, ended by 0. */
static long long finish_ids(struct world *w, const char *user, const char *token, long long floor, int cap,
                            const char *pulls, const long long *ids)
{
    const char *argv[ARGS_MAX] = {
        "2",      tl(user), pf(user),          token,        num(floor), num(-floor),
        num(cap), "60000",  "p:muted\nw:word", "1700000000", pulls};
    char texts[ARGS_MAX][24];
    int n = 11;
    for (int i = 0; ids[i] != 0; i++) {
        snprintf(texts[n], sizeof texts[n], "-%lld", ids[i]);
        snprintf(texts[n + 1], sizeof texts[n], "%lld", ids[i]);
        argv[n] = texts[n];
        argv[n + 1] = texts[n + 1];
        n += 2;
        assert_true(n < ARGS_MAX - 2);
    }
    return plain(call(w, SCRIPT_FINISH, argv));
}

#define FINISH(user, token, floor, cap, ...)                                                                 \
    finish_ids(w, user, token, floor, cap, "", (const long long[]){__VA_ARGS__})

static long long deliver(struct world *w, ts_t t, long long id, ts_t epoch, long long n, const char *user)
{
    return one(CALL(SCRIPT_DELIVER, "2", bk(BUCKET), tl(user), T(t), num(id), num(-id), "8", "11", "0",
                    T(epoch), num(n), "1"));
}

static long long take_out(struct world *w, ts_t t, long long id, ts_t epoch, long long n, const char *user)
{
    return one(CALL(SCRIPT_REMOVE, "2", bk(BUCKET), tl(user), T(t), num(id), T(epoch), num(n), "1"));
}

static long long drop(struct world *w, ts_t t, ts_t epoch, long long n, const char *user)
{
    return one(CALL(SCRIPT_DROP, "2", bk(BUCKET), tl(user), T(t), T(epoch), num(n), "1"));
}

static long long progress(struct world *w, ts_t t, ts_t epoch, long long n)
{
    return one(CALL(SCRIPT_PROGRESS, "1", bk(BUCKET), T(t), T(t), T(epoch), num(n), "0", "-"));
}

/* The members of a timeline, newest first: "9 7 f3" (the floor is 3). */
static const char *members(struct world *w, const char *user)
{
    redisReply *r = COMMAND("ZRANGE", tl(user), "0", "-1", "WITHSCORES");
    static char out[8192];
    size_t len = 0;
    out[0] = '\0';
    for (size_t i = 0; i + 1 < r->elements; i += 2) {
        const char *member = r->element[i]->str, *score = r->element[i + 1]->str;
        bool f = strcmp(member, "f") == 0;
        if (!f) {
            assert_int_equal(score[0], '-');
            assert_string_equal(score + 1, member);
        }
        len += (size_t)snprintf(out + len, sizeof out - len, "%s%s%s", len ? " " : "", f ? "f" : "",
                                f ? (score[0] == '-' ? score + 1 : score) : member);
    }
    freeReplyObject(r);
    return out;
}

static const char *record(struct world *w, const char *field)
{
    return TEXT("HGET", bk(BUCKET), field);
}

/* Everything that Redis holds, to see that nothing changed. The caller frees. */
static char *snapshot(struct world *w)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    redisReply *keys = COMMAND("KEYS", "*");
    for (size_t round = 0; round < keys->elements; round++)
        for (size_t i = 0; i + 1 < keys->elements; i++)
            if (strcmp(keys->element[i]->str, keys->element[i + 1]->str) > 0) {
                redisReply *swap = keys->element[i];
                keys->element[i] = keys->element[i + 1];
                keys->element[i + 1] = swap;
            }
    for (size_t i = 0; i < keys->elements; i++) {
        redisReply *dump = COMMAND("DUMP", keys->element[i]->str);
        buf_add_str(&b, keys->element[i]->str);
        for (size_t j = 0; j < dump->len; j++)
            buf_printf(&b, "%02x", (unsigned char)dump->str[j]);
        freeReplyObject(dump);
    }
    freeReplyObject(keys);
    return buf_take(&b);
}

/* An empty Redis with a record: epoch 1, n 0, everything at time 10; and a ready timeline of user "u" with R
 * = 20. */
static int setup(void **state)
{
    struct world *w = *state;
    RUN("FLUSHALL");
    RUN("CONFIG", "SET", "zset-max-listpack-entries", "128");
    assert_int_equal(adopt(w, 1, 10, false, NULL), 2);
    return 0;
}

static void ready(struct world *w, const char *user, ts_t least)
{
    assert_int_equal(build(w, user, least, "token", NULL), 1);
    assert_int_equal(FINISH(user, "token", 0, 8, 0), 1);
}

/* ---- deliver ---- */

static void an_item_is_delivered_where_a_timeline_is_and_nowhere_else(void **state)
{
    struct world *w = *state;
    ready(w, "u", 20);
    assert_int_equal(one(CALL(SCRIPT_DELIVER, "3", bk(BUCKET), tl("absent"), tl("u"), T(30), "500", "-500",
                              "8", "11", "0", T(1), "0", "2")),
                     1);
    assert_string_equal(members(w, "u"), "500 f0");
    assert_int_equal(INTEGER("EXISTS", tl("absent"), pf("absent")), 0);
    assert_string_equal(record(w, "n"), "1");
    assert_string_equal(record(w, "seen"), T(30));
}

static long long deliver_three(struct world *w, ts_t t, long long n, const char *user)
{
    return one(CALL(SCRIPT_DELIVER_MANY, "2", bk(BUCKET), tl(user), T(t + 2), "8", "12", "0", "3", T(t),
                    "500", "-500", T(t + 1), "400", "-400", T(t + 2), "600", "-600", T(1), num(n), "1"));
}

static void several_items_are_delivered_at_once_each_where_it_is_newer_than_the_rebuild(void **state)
{
    struct world *w = *state;
    ready(w, "u", 20);
    ready(w, "late", 30);
    ready(w, "later", 33);
    assert_int_equal(deliver_three(w, 30, 0, "u"), 1);
    assert_string_equal(members(w, "u"), "600 500 400 f0");
    assert_int_equal(deliver_three(w, 30, 1, "late"), 1);
    assert_string_equal(members(w, "late"), "600 400 f0");
    assert_int_equal(deliver_three(w, 30, 2, "later"), 1);
    assert_string_equal(members(w, "later"), "f0");
    assert_int_equal(deliver_three(w, 30, 3, "absent"), 1);
    assert_int_equal(INTEGER("EXISTS", tl("absent"), pf("absent")), 0);
    assert_string_equal(record(w, "n"), "4");
    assert_string_equal(record(w, "seen"), T(32));
    assert_int_equal(deliver_three(w, 30, 3, "u"), 0);
}

/* Six items (ids from `first`, `step` apart) into a timeline of at most 8, with room for 3 more beside its
 * floor. */
static void deliver_six(struct world *w, ts_t t, long long n, int first, int step)
{
    char text[6][3][32], last[TS_TEXT_SIZE];
    const char *argv[8 + 18 + 4] = {"2", bk(BUCKET), tl("u"), last, "8", "12", "0", "6"};
    for (int k = 0; k < 6; k++) {
        snprintf(text[k][0], sizeof text[k][0], "%s", T(t + (ts_t)k));
        snprintf(text[k][1], sizeof text[k][1], "%d", first + k * step);
        snprintf(text[k][2], sizeof text[k][2], "-%d", first + k * step);
        for (int i = 0; i < 3; i++)
            argv[8 + 3 * k + i] = text[k][i];
    }
    snprintf(last, sizeof last, "%s", text[5][0]);
    argv[26] = T(1);
    argv[27] = num(n);
    argv[28] = "1";
    assert_int_equal(one(call(w, SCRIPT_DELIVER_MANY, argv)), 1);
    assert_in_range(INTEGER("ZCARD", tl("u")), 7, 12);
}

static void several_items_at_once_never_outgrow_the_cap(void **state)
{
    struct world *w = *state;
    ready(w, "u", 20);
    RUN("CONFIG", "SET", "zset-max-listpack-entries", "12");
    for (int i = 0; i < 30; i++)
        deliver_six(w, 30 + (ts_t)i, i, 1000 + 6 * i, 1);
    assert_string_equal(members(w, "u"), "1179 1178 1177 1176 1175 1174 1173 1172 f1171");
    assert_string_equal(TEXT("OBJECT", "ENCODING", tl("u")), "listpack");
}

static void items_that_are_delivered_again_take_nothing_from_the_others(void **state)
{
    struct world *w = *state;
    ready(w, "u", 20);
    RUN("CONFIG", "SET", "zset-max-listpack-entries", "12");
    for (int i = 0; i < 3; i++)
        deliver_six(w, 30 + (ts_t)i, i, 1000 + 6 * i, 1);
    assert_string_equal(members(w, "u"), "1017 1016 1015 1014 1013 1012 1011 1010 f1009");
    deliver_six(w, 32, 3, 1012, 1);
    assert_string_equal(members(w, "u"), "1017 1016 1015 1014 1013 1012 1011 1010 f1009");
    deliver_six(w, 31, 4, 1006, 1);
    assert_string_equal(members(w, "u"),
                        "1017 1016 1015 1014 1013 1012 1011 1010 1009 f1009"); /* not counted */
    assert_string_equal(TEXT("OBJECT", "ENCODING", tl("u")), "listpack");
}

static void late_items_among_several_find_their_place(void **state)
{
    struct world *w = *state;
    ready(w, "u", 20);
    RUN("CONFIG", "SET", "zset-max-listpack-entries", "12");
    for (int i = 0; i < 3; i++)
        deliver_six(w, 30 + (ts_t)i, i, 1000 + 60 * i, 10);
    assert_string_equal(members(w, "u"), "1170 1160 1150 1140 1130 1120 1110 1100 f1090");
    deliver_six(w, 40, 3, 1115, 10); /* 1115 to 1165: between them */
    assert_memory_equal(members(w, "u"), "1170 1165 1160 1155 1150 1145 1140 1135", 39);
    deliver_six(w, 50, 4, 1, 1); /* below the floor: they do not count */
    assert_memory_equal(members(w, "u"), "1170 1165 1160 1155 1150 1145 1140 1135", 39);
    deliver_six(w, 60, 5, 1180, 1);
    assert_string_equal(members(w, "u"), "1185 1184 1183 1182 1181 1180 1170 1165 f1160");
    assert_string_equal(TEXT("OBJECT", "ENCODING", tl("u")), "listpack");
}

static void another_epoch_or_count_is_refused_and_changes_nothing(void **state)
{
    struct world *w = *state;
    ready(w, "u", 20);
    assert_int_equal(deliver(w, 30, 500, 1, 0, "u"), 1);
    char *before = snapshot(w);
    static const struct {
        ts_t epoch;
        long long n;
    } wrong[] = {{1, 0}, {1, 2}, {2, 1}, {0, 1}};
    for (size_t i = 0; i < MEM_COUNT(wrong); i++) {
        assert_int_equal(deliver(w, 40, 600, wrong[i].epoch, wrong[i].n, "u"), 0);
        assert_int_equal(take_out(w, 40, 500, wrong[i].epoch, wrong[i].n, "u"), 0);
        assert_int_equal(drop(w, 40, wrong[i].epoch, wrong[i].n, "u"), 0);
        assert_int_equal(progress(w, 40, wrong[i].epoch, wrong[i].n), 0);
        char *after = snapshot(w);
        assert_string_equal(after, before);
        free(after);
    }
    free(before);
}

static void without_a_record_everything_is_refused(void **state)
{
    struct world *w = *state;
    RUN("FLUSHALL");
    assert_int_equal(deliver(w, 40, 600, 1, 0, "u"), 0);
    assert_int_equal(progress(w, 40, 1, 0), 0);
    assert_int_equal(INTEGER("DBSIZE"), 0);
}

static void a_refused_group_does_not_harm_the_others_of_its_call(void **state)
{
    struct world *w = *state;
    ready(w, "u", 20);
    assert_int_equal(answer(CALL(SCRIPT_ADOPT, "1", bk(8), T(5), T(10), "0"), NULL), 2);
    redisReply *r = CALL(SCRIPT_DELIVER, "5", bk(8), bk(9), tl("x"), bk(BUCKET), tl("u"), T(30), "500",
                         "-500", "8", "11", "0", T(4), "0", "0", T(1), "0", "1", T(1), "0", "1");
    assert_int_equal(r->elements, 3);
    assert_int_equal(r->element[0]->integer, 0); /* an older epoch */
    assert_int_equal(r->element[1]->integer, 0); /* no record */
    assert_int_equal(r->element[2]->integer, 1);
    freeReplyObject(r);
    assert_string_equal(members(w, "u"), "500 f0");
    assert_int_equal(INTEGER("EXISTS", bk(9)), 0);
}

static void what_a_rebuild_has_seen_is_not_delivered_again(void **state)
{
    struct world *w = *state;
    ready(w, "u", 20);
    ready(w, "later", 40); /* the stamp is 40: for u each one is looked at */
    long long n = 0;
    assert_int_equal(deliver(w, 19, 100, 1, n++, "u"), 1);
    assert_int_equal(deliver(w, 20, 200, 1, n++, "u"), 1);
    assert_string_equal(members(w, "u"), "f0");
    assert_int_equal(deliver(w, 21, 300, 1, n++, "u"), 1);
    assert_int_equal(deliver(w, 40, 400, 1, n++, "u"), 1);
    assert_int_equal(deliver(w, 40, 400, 1, n++, "later"), 1);
    assert_string_equal(members(w, "u"), "400 300 f0");
    assert_string_equal(members(w, "later"), "f0");
    assert_int_equal(deliver(w, 41, 500, 1, n++, "later"), 1);
    assert_string_equal(members(w, "later"), "500 f0");
}

static void a_timeline_without_its_meta_is_not_looked_into(void **state)
{
    struct world *w = *state;
    ready(w, "u", 20);
    ready(w, "later", 40);
    RUN("DEL", pf("u"));
    assert_int_equal(deliver(w, 30, 500, 1, 0, "u"), 1);
    assert_string_equal(members(w, "u"), "f0");
}

static void delivering_again_changes_nothing(void **state)
{
    struct world *w = *state;
    ready(w, "u", 20);
    assert_int_equal(deliver(w, 30, 500, 1, 0, "u"), 1);
    assert_int_equal(deliver(w, 30, 500, 1, 1, "u"), 1);
    assert_string_equal(members(w, "u"), "500 f0");
}

static void seen_rises_also_where_every_timeline_was_absent(void **state)
{
    struct world *w = *state;
    ts_t r = 0;
    assert_int_equal(deliver(w, 30, 500, 1, 0, "absent"), 1);
    assert_int_equal(deliver(w, 25, 400, 1, 1, "absent"), 1);
    assert_string_equal(record(w, "seen"), T(30));
    assert_int_equal(build(w, "absent", 20, "token", &r), 1);
    assert_int_equal(r, 30);
}

static void the_count_goes_on_beyond_32_bits(void **state)
{
    struct world *w = *state;
    RUN("HSET", bk(BUCKET), "n", "4294967295");
    assert_int_equal(progress(w, 30, 1, 4294967295LL), 1);
    assert_string_equal(record(w, "n"), "4294967296");
    RUN("HSET", bk(BUCKET), "n", "9007199254740000");
    assert_int_equal(progress(w, 31, 1, 9007199254740000LL), 1);
    assert_string_equal(record(w, "n"), "9007199254740001");
}

/* ---- trimming ---- */

static void a_full_timeline_is_trimmed_and_its_floor_rises_to_the_largest_removed(void **state)
{
    struct world *w = *state;
    ready(w, "u", 20);
    for (int i = 0; i < 10; i++) /* with the floor: 11 members, which is high */
        assert_int_equal(deliver(w, 30 + (ts_t)i, 100 + i, 1, i, "u"), 1);
    assert_string_equal(members(w, "u"), "109 108 107 106 105 104 103 102 101 100 f0");
    assert_int_equal(deliver(w, 40, 110, 1, 10, "u"), 1);
    assert_string_equal(members(w, "u"), "110 109 108 107 106 105 104 103 102 f101");
}

static void a_late_item_takes_its_place_and_below_the_floor_it_goes_with_the_next_trim(void **state)
{
    struct world *w = *state;
    assert_int_equal(build(w, "u", 20, "token", NULL), 1);
    assert_int_equal(FINISH("u", "token", 50, 8, 80, 70, 60, 0), 1);
    assert_string_equal(members(w, "u"), "80 70 60 f50");
    long long n = 0;
    assert_int_equal(deliver(w, 30, 65, 1, n++, "u"), 1);
    assert_int_equal(deliver(w, 31, 40, 1, n++, "u"), 1);
    assert_int_equal(deliver(w, 32, 30, 1, n++, "u"), 1);
    assert_string_equal(members(w, "u"), "80 70 65 60 f50 40 30");
    for (int i = 0; i < 4; i++)
        assert_int_equal(deliver(w, 33 + (ts_t)i, 90 + i, 1, n++, "u"), 1);
    assert_string_equal(members(w, "u"), "93 92 91 90 80 70 65 60 f50 40 30");
    /* The floor is the first of what goes, so it stays where it is. */
    assert_int_equal(deliver(w, 40, 94, 1, n++, "u"), 1);
    assert_string_equal(members(w, "u"), "94 93 92 91 90 80 70 65 60 f50");
}

static void trimming_only_what_lies_below_the_floor_leaves_the_floor(void **state)
{
    struct world *w = *state;
    assert_int_equal(build(w, "u", 20, "token", NULL), 1);
    assert_int_equal(FINISH("u", "token", 50, 8, 60, 0), 1);
    long long n = 0;
    for (int i = 0; i < 9; i++)
        assert_int_equal(deliver(w, 30 + (ts_t)i, 40 - i, 1, n++, "u"), 1);
    assert_int_equal(INTEGER("ZCARD", tl("u")), 11);
    assert_int_equal(deliver(w, 50, 70, 1, n++, "u"), 1);
    assert_string_equal(members(w, "u"), "70 60 f50 40 39 38 37 36 35");
}

static void p11_a_timeline_never_outgrows_its_compact_encoding(void **state)
{
    struct world *w = *state;
    unsigned seed = 4711;
    assert_int_equal(build(w, "u", 20, "token", NULL), 1);
    long long n = 0;
    long long base = 1800000000000LL << 11;
    for (int i = 0; i < 700; i++) {
        long long id = base + rand_r(&seed) % 100000;
        if (i == 126) { /* full, and still being built: a whole page of others comes on top */
            long long ids[121];
            for (int k = 0; k < 120; k++)
                ids[k] = base + 200000 - k;
            ids[120] = 0;
            assert_int_equal(finish_ids(w, "u", "token", base - 5, 120, "", ids), 1);
            assert_int_equal(INTEGER("ZCARD", tl("u")), 121);
        }
        assert_int_equal(one(CALL(SCRIPT_DELIVER, "2", bk(BUCKET), tl("u"), T(30 + (ts_t)i), num(id),
                                  num(-id), "120", "127", "0", T(1), num(n++), "1")),
                         1);
        assert_true(INTEGER("ZCARD", tl("u")) <= 127);
        assert_string_equal(TEXT("OBJECT", "ENCODING", tl("u")), "listpack");
    }
}

static void the_largest_ids_keep_all_their_digits(void **state)
{
    struct world *w = *state;
    assert_int_equal(build(w, "u", 20, "token", NULL), 1);
    assert_int_equal(FINISH("u", "token", 9007199254740980LL, 8, 9007199254740983LL, 9007199254740981LL, 0),
                     1);
    assert_int_equal(deliver(w, 30, 9007199254740991LL, 1, 0, "u"), 1);
    assert_string_equal(members(w, "u"),
                        "9007199254740991 9007199254740983 9007199254740981 f9007199254740980");
    for (int i = 1; i < 8; i++)
        assert_int_equal(deliver(w, 30, 9007199254740991LL - i, 1, i, "u"), 1);
    assert_int_equal(deliver(w, 31, 9007199254740982LL, 1, 8, "u"), 1);
    assert_string_equal(TEXT("ZSCORE", tl("u"), "f"), "-9007199254740983");
}

/* ---- remove, drop, progress ---- */

static void a_removed_item_goes_where_the_removal_is_newer_than_the_rebuild(void **state)
{
    struct world *w = *state;
    assert_int_equal(build(w, "u", 20, "token", NULL), 1);
    assert_int_equal(FINISH("u", "token", 0, 8, 60, 50, 0), 1);
    long long n = 0;
    assert_int_equal(take_out(w, 20, 60, 1, n++, "u"), 1);
    assert_string_equal(members(w, "u"), "60 50 f0");
    assert_int_equal(take_out(w, 21, 60, 1, n++, "u"), 1);
    assert_string_equal(members(w, "u"), "50 f0");
    assert_int_equal(take_out(w, 22, 99, 1, n++, "u"), 1);
    assert_int_equal(take_out(w, 22, 50, 1, n++, "absent"), 1);
    assert_string_equal(members(w, "u"), "50 f0");
}

/* By that a floor with few entries above it is told from a corrupt one. */
static void what_was_removed_is_counted_once_and_forgotten_by_a_rebuild(void **state)
{
    struct world *w = *state;
    assert_int_equal(build(w, "u", 20, "token", NULL), 1);
    assert_int_equal(FINISH("u", "token", 0, 8, 60, 50, 0), 1);
    assert_string_equal(TEXT("HGET", pf("u"), "d"), "");
    assert_int_equal(take_out(w, 21, 60, 1, 0, "u"), 1);
    assert_int_equal(take_out(w, 21, 60, 1, 1, "u"), 1);
    assert_int_equal(take_out(w, 22, 99, 1, 2, "u"), 1);
    assert_string_equal(TEXT("HGET", pf("u"), "d"), "1");
    assert_int_equal(take_out(w, 23, 50, 1, 3, "u"), 1);
    assert_string_equal(TEXT("HGET", pf("u"), "d"), "2");
    assert_int_equal(build(w, "u", 30, "token", NULL), 1);
    assert_string_equal(TEXT("HGET", pf("u"), "d"), "");
}

static void a_removal_ends_a_rebuild_that_may_have_read_before_it(void **state)
{
    struct world *w = *state;
    assert_int_equal(build(w, "u", 20, "token", NULL), 1);
    assert_int_equal(take_out(w, 20, 60, 1, 0, "u"), 1); /* the read at 20 sees this one */
    assert_int_equal(INTEGER("EXISTS", tl("u"), pf("u")), 2);
    assert_int_equal(take_out(w, 21, 60, 1, 1, "u"), 1);
    assert_int_equal(INTEGER("EXISTS", tl("u"), pf("u")), 0);
    assert_int_equal(FINISH("u", "token", 0, 8, 60, 0), 0);
    assert_int_equal(INTEGER("EXISTS", tl("u"), pf("u")), 0);
}

static void a_drop_takes_what_is_older_and_leaves_what_has_seen_it(void **state)
{
    struct world *w = *state;
    ready(w, "old", 20);
    ready(w, "new", 40);
    assert_int_equal(
        one(CALL(SCRIPT_DROP, "4", bk(BUCKET), tl("old"), tl("new"), tl("absent"), T(40), T(1), "0", "3")),
        2); /* one stays */
    assert_int_equal(INTEGER("EXISTS", tl("old"), pf("old")), 0);
    assert_int_equal(INTEGER("EXISTS", tl("new"), pf("new")), 2);
    ts_t r = 0;
    assert_int_equal(drop(w, 50, 1, 1, "new"), 1);
    assert_int_equal(build(w, "new", 45, "token", &r), 1);
    assert_int_equal(r, 50); /* never again older than the drop */
}

static void a_drop_takes_half_a_timeline_too(void **state)
{
    struct world *w = *state;
    ready(w, "u", 20);
    RUN("DEL", pf("u"));
    assert_int_equal(drop(w, 5, 1, 0, "u"), 1);
    assert_int_equal(INTEGER("EXISTS", tl("u")), 0);
}

/* The answer of one group that is an array: "a b c". */
static const char *listed(redisReply *r)
{
    char *s = slot(), *at = s;
    assert_int_equal(r->elements, 1);
    assert_int_equal(r->element[0]->type, REDIS_REPLY_ARRAY);
    for (size_t i = 0; i < r->element[0]->elements && i < 4; i++) {
        const redisReply *x = r->element[0]->element[i];
        if (x->type == REDIS_REPLY_INTEGER)
            at += sprintf(at, "%s%lld", i > 0 ? " " : "", x->integer);
        else
            at += sprintf(at, "%s%s", i > 0 ? " " : "", x->str);
    }
    freeReplyObject(r);
    return s;
}

static void an_owner_who_asks_is_told_which_timelines_were_absent(void **state)
{
    struct world *w = *state;
    ready(w, "u", 20);
    assert_string_equal(listed(CALL(SCRIPT_DELIVER, "4", bk(BUCKET), tl("x"), tl("u"), tl("y"), T(30), "500",
                                    "-500", "8", "11", "1", T(1), "0", "3")),
                        "0 2");
    assert_string_equal(members(w, "u"), "500 f0");
    assert_int_equal(one(CALL(SCRIPT_DELIVER, "2", bk(BUCKET), tl("u"), T(31), "501", "-501", "8", "11", "1",
                              T(1), "1", "1")),
                     1);
}

static redisReply *ask(struct world *w, ts_t seen, ts_t t, long long n, const char *births)
{
    return CALL(SCRIPT_PROGRESS, "1", bk(BUCKET), T(seen), T(t), T(1), num(n), "0", births);
}

static void progress_waits_until_its_owner_knows_all_timelines(void **state)
{
    struct world *w = *state;
    char expected[200];
    ready(w, "ann", 20);
    ready(w, "b\xc3\xb6", 25);
    assert_int_equal(drop(w, 26, 1, 0, "ann"), 1);
    ready(w, "ann", 26); /* the same reader again is a birth too */
    snprintf(expected, sizeof expected, "%sann %sb\xc3\xb6 %sann 3", T(26), T(25), T(20));
    assert_string_equal(listed(ask(w, 40, 30, 1, "0")), expected);
    assert_string_equal(record(w, "progress"), T(10));
    assert_string_equal(record(w, "seen"), T(40));
    assert_string_equal(record(w, "n"), "2");
    ts_t r = 0;
    assert_int_equal(build(w, "late", 30, "token", &r), 1);
    assert_int_equal(r, 40); /* whatever was begun before it was asked is within its R */
    snprintf(expected, sizeof expected, "%slate 4", T(40));
    assert_string_equal(listed(ask(w, 41, 30, 2, "3")), expected);
    assert_int_equal(one(ask(w, 42, 30, 3, "4")), 1);
    assert_string_equal(record(w, "progress"), T(30));
    assert_int_equal(one(ask(w, 42, 31, 4, "-")), 1);
    assert_string_equal(record(w, "progress"), T(31));
}

static void births_too_many_to_be_listed_are_told_as_a_number(void **state)
{
    struct world *w = *state;
    for (int i = 0; i < SCRIPT_NEWBORNS_MAX + 1; i++) {
        char user[24];
        snprintf(user, sizeof user, "u%d", i);
        assert_int_equal(build(w, user, 20, "token", NULL), 1);
    }
    char bn[KEY_SIZE];
    snprintf(bn, sizeof bn, "bn%s", bk(BUCKET) + 2);
    assert_int_equal(INTEGER("LLEN", bn), SCRIPT_NEWBORNS_MAX);
    assert_string_equal(listed(ask(w, 30, 30, 0, "0")), "257");
    assert_string_equal(listed(ask(w, 30, 30, 1, "300")), "257"); /* lost and begun anew */
    assert_string_equal(record(w, "progress"), T(10));
    redisReply *r = ask(w, 30, 30, 2, "1");
    assert_int_equal(r->element[0]->elements, SCRIPT_NEWBORNS_MAX + 1);
    freeReplyObject(r);
}

static void progress_never_goes_back(void **state)
{
    struct world *w = *state;
    assert_string_equal(record(w, "progress"), T(10));
    assert_int_equal(progress(w, 30, 1, 0), 1);
    assert_string_equal(record(w, "progress"), T(30));
    assert_int_equal(progress(w, 29, 1, 1), 1);
    assert_string_equal(record(w, "progress"), T(30));
    assert_string_equal(record(w, "n"), "2");
    /* In the order of 64 bits, not of doubles. */
    ts_t t = ts_make(1800000000, 1);
    assert_int_equal(progress(w, t, 1, 2), 1);
    assert_int_equal(progress(w, t + 1, 1, 3), 1);
    assert_int_equal(progress(w, t, 1, 4), 1);
    assert_string_equal(record(w, "progress"), T(t + 1));
}

/* ---- adopt ---- */

static void a_new_owner_takes_the_record_over_at_its_progress(void **state)
{
    struct world *w = *state;
    ts_t p = 0;
    assert_int_equal(progress(w, 30, 1, 0), 1);
    assert_int_equal(adopt(w, 2, 99, false, &p), 1);
    assert_int_equal(p, 30);
    assert_string_equal(record(w, "n"), "0");
    assert_string_equal(record(w, "epoch"), T(2));
    assert_string_equal(record(w, "born"), T(10));
    assert_string_equal(record(w, "seen"), T(30));
    assert_int_equal(progress(w, 31, 1, 1), 0); /* the old one is out */
    assert_int_equal(progress(w, 31, 2, 0), 1);
}

static void an_owner_that_was_replaced_can_not_adopt(void **state)
{
    struct world *w = *state;
    ts_t p = 0;
    assert_int_equal(adopt(w, 5, 20, false, NULL), 1);
    char *before = snapshot(w);
    assert_int_equal(adopt(w, 4, 30, false, &p), 0);
    assert_int_equal(adopt(w, 4, 30, true, &p), 0);
    char *after = snapshot(w);
    assert_string_equal(before, after);
    free(before);
    free(after);
    assert_int_equal(adopt(w, 5, 30, false, &p), 1);
}

static void a_lost_log_makes_the_record_anew_and_older_timelines_count_as_absent(void **state)
{
    struct world *w = *state;
    ts_t p = 0, r = 0;
    ready(w, "u", 20);
    ready(w, "later", 60);
    assert_int_equal(adopt(w, 2, 50, true, &p), 2);
    assert_int_equal(p, 50);
    assert_string_equal(record(w, "born"), T(50));
    assert_string_equal(record(w, "progress"), T(50));
    /* What `later` has seen is not delivered to it, though the record is younger than its R. */
    assert_string_equal(record(w, "stamp"), T(60));
    assert_int_equal(deliver(w, 55, 500, 2, 0, "later"), 1);
    assert_string_equal(members(w, "later"), "f0");
    assert_int_equal(build(w, "u", 20, "token", &r), 1);
    assert_int_equal(r, 60);
    assert_int_equal(build(w, "later", 20, "token", &r), 2);
    assert_int_equal(r, 60);
}

static void half_a_record_is_made_anew(void **state)
{
    struct world *w = *state;
    ts_t p = 0;
    RUN("HDEL", bk(BUCKET), "progress");
    assert_int_equal(adopt(w, 2, 50, false, &p), 2);
    assert_int_equal(p, 50);
    assert_int_equal(progress(w, 60, 2, 0), 1);
    assert_string_equal(record(w, "progress"), T(60));
}

/* ---- build and finish ---- */

static void a_rebuild_reads_at_the_latest_of_what_was_asked_stamped_and_seen(void **state)
{
    struct world *w = *state;
    ts_t r = 0;
    assert_int_equal(build(w, "a", 5, "token", &r), 1);
    assert_int_equal(r, 10);
    assert_int_equal(build(w, "b", 40, "token", &r), 1);
    assert_int_equal(r, 40);
    assert_string_equal(record(w, "stamp"), T(40));
    assert_int_equal(deliver(w, 70, 1, 1, 0, "absent"), 1);
    assert_int_equal(build(w, "c", 50, "token", &r), 1);
    assert_int_equal(r, 70);
    assert_string_equal(record(w, "stamp"), T(70));
}

static void a_rebuild_says_who_is_there_already(void **state)
{
    struct world *w = *state;
    ts_t r = 0;
    assert_int_equal(build(w, "u", 20, "first", &r), 1);
    assert_int_equal(build(w, "u", 20, "second", &r), 0);
    assert_int_equal(r, 20);
    assert_int_equal(build(w, "u", 15, "second", &r), 0);
    assert_int_equal(FINISH("u", "first", 0, 8, 0), 1);
    assert_int_equal(build(w, "u", 20, "second", &r), 2);
    assert_int_equal(r, 20);
    assert_int_equal(build(w, "u", 21, "second", &r), 1); /* not new enough */
    assert_int_equal(r, 21);
    assert_int_equal(build(w, "u", 30, "third", &r), 1); /* nor is the one being built */
    assert_int_equal(FINISH("u", "second", 0, 8, 0), 0);
    assert_int_equal(FINISH("u", "third", 0, 8, 0), 1);
}

static void without_a_record_nothing_is_built(void **state)
{
    struct world *w = *state;
    RUN("DEL", bk(BUCKET));
    assert_int_equal(build(w, "u", 20, "token", NULL), -1);
    assert_int_equal(INTEGER("DBSIZE"), 0);
}

static void half_a_timeline_is_built_again(void **state)
{
    struct world *w = *state;
    ready(w, "u", 20);
    RUN("DEL", tl("u"));
    assert_int_equal(build(w, "u", 20, "token", NULL), 1);
    assert_int_equal(FINISH("u", "token", 0, 8, 0), 1);
    RUN("DEL", pf("u"));
    assert_int_equal(build(w, "u", 20, "token", NULL), 1);
}

static void a_finished_timeline_is_ready_with_its_mutes_and_its_expiry(void **state)
{
    struct world *w = *state;
    assert_int_equal(build(w, "u", 20, "token", NULL), 1);
    assert_string_equal(TEXT("HGET", pf("u"), "st"), "b");
    assert_true(INTEGER("PTTL", tl("u")) > 0);
    assert_true(INTEGER("PTTL", pf("u")) > 0);
    RUN("PEXPIRE", tl("u"), "1000");
    RUN("PEXPIRE", pf("u"), "1000");
    assert_int_equal(FINISH("u", "token", 3, 8, 9, 7, 5, 0), 1);
    assert_string_equal(members(w, "u"), "9 7 5 f3");
    assert_string_equal(TEXT("HGET", pf("u"), "st"), "r");
    assert_string_equal(TEXT("HGET", pf("u"), "r"), T(20));
    assert_string_equal(TEXT("HGET", pf("u"), "m"), "p:muted\nw:word");
    assert_string_equal(TEXT("HGET", pf("u"), "x"), "1700000000");
    assert_string_equal(TEXT("HGET", pf("u"), "tk"), "");
    assert_true(INTEGER("PTTL", tl("u")) > 1000);
    assert_true(INTEGER("PTTL", pf("u")) > 1000);
}

static void without_its_token_a_rebuild_ends_and_changes_nothing(void **state)
{
    struct world *w = *state;
    assert_int_equal(build(w, "u", 20, "token", NULL), 1);
    assert_int_equal(FINISH("u", "token", 0, 8, 9, 0), 1);
    char *before = snapshot(w);
    assert_int_equal(FINISH("u", "token", 0, 8, 99, 0), 0); /* twice */
    assert_int_equal(FINISH("u", "other", 0, 8, 99, 0), 0);
    assert_int_equal(FINISH("nobody", "token", 0, 8, 99, 0), 0);
    char *after = snapshot(w);
    assert_string_equal(before, after);
    free(before);
    free(after);
    assert_int_equal(build(w, "u", 30, "again", NULL), 1);
    RUN("DEL", tl("u"));
    assert_int_equal(FINISH("u", "again", 0, 8, 99, 0), 0);
}

static void what_is_delivered_during_a_rebuild_survives_it(void **state)
{
    struct world *w = *state;
    assert_int_equal(build(w, "u", 20, "token", NULL), 1);
    assert_int_equal(deliver(w, 21, 80, 1, 0, "u"), 1);
    assert_int_equal(deliver(w, 22, 55, 1, 1, "u"), 1);
    assert_int_equal(deliver(w, 23, 10, 1, 2, "u"), 1);
    assert_int_equal(FINISH("u", "token", 40, 8, 70, 60, 50, 0), 1);
    assert_string_equal(members(w, "u"), "80 70 60 55 50 f40");
}

static void the_floors_of_a_rebuild_and_of_what_was_trimmed_meanwhile_merge_to_the_higher(void **state)
{
    struct world *w = *state;
    assert_int_equal(build(w, "u", 20, "token", NULL), 1);
    for (int i = 0; i < 11; i++) /* trims once: the floor is the third smallest */
        assert_int_equal(deliver(w, 21 + (ts_t)i, 100 + i, 1, i, "u"), 1);
    assert_string_equal(members(w, "u"), "110 109 108 107 106 105 104 103 102 f101");
    assert_int_equal(FINISH("u", "token", 40, 8, 105, 95, 90, 0), 1);
    assert_string_equal(members(w, "u"), "110 109 108 107 106 105 104 103 f102");
}

static void what_was_read_below_a_floor_raised_meanwhile_is_left_out(void **state)
{
    struct world *w = *state;
    assert_int_equal(build(w, "u", 20, "token", NULL), 1);
    for (int i = 0; i < 10; i++)
        assert_int_equal(deliver(w, 21 + (ts_t)i, 100 + i, 1, i, "u"), 1);
    assert_int_equal(deliver(w, 31, 105, 1, 10, "u"), 1); /* again: it trims and adds nothing */
    assert_string_equal(members(w, "u"), "109 108 107 106 105 104 103 102 f101");
    assert_int_equal(FINISH("u", "token", 40, 8, 95, 90, 0), 1);
    assert_string_equal(members(w, "u"), "109 108 107 106 105 104 103 102 f101");
}

static void more_than_the_cap_is_cut_and_raises_the_floor(void **state)
{
    struct world *w = *state;
    assert_int_equal(build(w, "u", 20, "token", NULL), 1);
    assert_int_equal(FINISH("u", "token", 0, 8, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 0), 1);
    assert_string_equal(members(w, "u"), "20 19 18 17 16 15 14 13 f12");
}

static void a_timeline_of_a_thousand_is_finished_too(void **state)
{
    struct world *w = *state;
    enum { N = 280 };
    long long ids[N + 1];
    for (int i = 0; i < N; i++)
        ids[i] = 1000 - i;
    ids[N] = 0;
    assert_int_equal(build(w, "u", 20, "token", NULL), 1);
    assert_int_equal(finish_ids(w, "u", "token", 0, 1000, "", ids), 1);
    assert_int_equal(INTEGER("ZCARD", tl("u")), N + 1);
}

/* ---- the model ---- */

static void a_random_life_of_a_timeline_agrees_with_the_model(void **state)
{
    struct world *w = *state;
    struct model_counts total = {0};
    const char *given = getenv("FEEDMILL_SEED");
    unsigned first = given ? (unsigned)strtoul(given, NULL, 10) : 1, seeds = given ? 1 : 8;
    for (unsigned seed = first; seed < first + seeds; seed++) {
        char why[512] = "";
        RUN("FLUSHALL");
        if (timeline_model_run(w->redis, seed, 2500, &total, why, sizeof why) < 0)
            fail_msg("FEEDMILL_SEED=%u: %s", seed, why);
    }
    if (given)
        return;
    assert_true(total.judged > 1000);
    assert_true(total.floors_crossed > 100);
    assert_true(total.trimmed > 20);
    assert_true(total.finished > 100);
    assert_true(total.tokens_lost > 10);
    assert_true(total.dropped > 10);
    assert_true(total.refused > 10);
    assert_true(total.flushed > 3);
    assert_true(total.adopted > 10);
    assert_true(total.landed_while_building > 20);
    assert_true(total.together > 100);
}

/* ---- touch and evict ---- */

static long long touch(struct world *w, const char *user, const char *ms, const char *wall_s)
{
    return plain(CALL(SCRIPT_TOUCH, "2", tl(user), pf(user), ms, wall_s));
}

static long long evict(struct world *w, const char *user, const char *x)
{
    return plain(CALL(SCRIPT_EVICT, "2", tl(user), pf(user), x));
}

static long long discard(struct world *w, const char *user, const char *r)
{
    return plain(CALL(SCRIPT_DISCARD, "2", tl(user), pf(user), r));
}

static void a_timeline_found_wrong_is_dropped_unless_it_was_rebuilt(void **state)
{
    struct world *w = *state;
    static const char odd[] = "an R that is longer than anybody keeps of it";
    ready(w, "u", 20);
    assert_int_equal(discard(w, "u", T(19)), 0);
    assert_int_equal(discard(w, "u", ""), 0);
    assert_int_equal(discard(w, "u", "00"), 0);
    assert_int_equal(INTEGER("EXISTS", tl("u"), pf("u")), 2);
    assert_int_equal(discard(w, "u", T(20)), 1);
    assert_int_equal(INTEGER("EXISTS", tl("u"), pf("u")), 0);
    assert_int_equal(discard(w, "u", T(20)), 0);
    ready(w, "u", 20);
    RUN("HSET", pf("u"), "r", odd);
    assert_int_equal(discard(w, "u", "an R that is longer than anybody keeps, not"), 0);
    assert_int_equal(discard(w, "u", "an R that is longer than anybody"), 1);
}

/* Where he stood among the timelines built last somebody else stands, whom nobody is called. */
static void an_erased_reader_leaves_no_name_and_his_place(void **state)
{
    struct world *w = *state;
    ready(w, "u", 20);
    ready(w, "uu", 30);
    RUN("HSET", "af:{0}:u", "p:daily", "1 1");
    RUN("DEL", "bn:{0}");
    RUN("RPUSH", "bn:{0}", T(30), "00000000000000aauu", "00000000000000abu", "00000000000000acu");
    assert_int_equal(plain(CALL(SCRIPT_ERASE, "4", tl("u"), pf("u"), "af:{0}:u", "bn:{0}", "u")), 3);
    assert_int_equal(INTEGER("EXISTS", tl("u"), pf("u"), "af:{0}:u"), 0);
    assert_int_equal(INTEGER("EXISTS", tl("uu"), pf("uu")), 2);
    assert_int_equal(INTEGER("LLEN", "bn:{0}"), 4);
    assert_string_equal(TEXT("LINDEX", "bn:{0}", "1"), "00000000000000aauu");
    assert_string_equal(TEXT("LINDEX", "bn:{0}", "2"), "00000000000000ab/");
    assert_string_equal(TEXT("LINDEX", "bn:{0}", "3"), "00000000000000ac/");
    RUN("DEL", "bn:{0}");
    assert_int_equal(plain(CALL(SCRIPT_ERASE, "4", tl("u"), pf("u"), "af:{0}:u", "bn:{0}", "u")), 0);
}

static void a_touched_timeline_lives_longer_with_both_of_its_keys(void **state)
{
    struct world *w = *state;
    ready(w, "u", 20);
    assert_int_equal(touch(w, "u", "500000", "1700000099"), 1);
    assert_true(INTEGER("PTTL", tl("u")) > 60000 && INTEGER("PTTL", pf("u")) > 60000);
    assert_string_equal(TEXT("HGET", pf("u"), "x"), "1700000099");
    assert_string_equal(members(w, "u"), "f0");
}

static void touching_makes_no_timeline_and_spares_one_being_built(void **state)
{
    struct world *w = *state;
    assert_int_equal(touch(w, "u", "500000", "1"), 0);
    assert_int_equal(INTEGER("EXISTS", tl("u"), pf("u")), 0);
    assert_int_equal(build(w, "u", 20, "token", NULL), 1);
    assert_int_equal(touch(w, "u", "500000", "1"), 0);
    assert_true(INTEGER("PTTL", tl("u")) <= 60000 && INTEGER("PTTL", pf("u")) <= 60000);
    assert_int_equal(FINISH("u", "token", 0, 8, 0), 1);
    RUN("DEL", tl("u"));
    char *before = snapshot(w);
    assert_int_equal(touch(w, "u", "500000", "1"), 0); /* half of one */
    char *after = snapshot(w);
    assert_string_equal(before, after);
    free(before);
    free(after);
}

static void an_evicted_timeline_is_gone_unless_it_was_read_meanwhile(void **state)
{
    struct world *w = *state;
    ready(w, "u", 20);
    assert_int_equal(evict(w, "u", "1699999999"), 0);
    assert_int_equal(touch(w, "u", "60000", "1700000001"), 1);
    assert_int_equal(evict(w, "u", "1700000000"), 0);
    assert_int_equal(INTEGER("EXISTS", tl("u"), pf("u")), 2);
    assert_int_equal(evict(w, "u", "1700000001"), 1);
    assert_int_equal(INTEGER("EXISTS", tl("u"), pf("u")), 0);
    assert_int_equal(evict(w, "u", "1700000001"), 0);
}

/* Whatever was delivered while it was absent is within the R of the next one. */
static void what_an_evicted_timeline_missed_is_within_the_next_rebuild(void **state)
{
    struct world *w = *state;
    ts_t r = 0;
    ready(w, "u", 20);
    assert_int_equal(evict(w, "u", "1700000000"), 1);
    assert_int_equal(deliver(w, 30, 500, 1, 0, "u"), 1);
    assert_int_equal(INTEGER("EXISTS", tl("u"), pf("u")), 0);
    assert_int_equal(build(w, "u", 20, "token", &r), 1);
    assert_true(r >= 30);
}

/* What the owner drops timelines for: there is no memory left. */
static void room_can_be_made_when_there_is_none(void **state)
{
    struct world *w = *state;
    struct err e = {0};
    redisReply *r = NULL;
    ready(w, "u", 20);
    const char *set[] = {"SET", "k", "v"}, *keys[] = {tl("u"), pf("u"), "1700000000"};
    RUN("CONFIG", "SET", "maxmemory-policy", "noeviction");
    RUN("CONFIG", "SET", "maxmemory", "1");
    bool refused = redis_command(w->redis, &r, 3, set, NULL, &e) != 0;
    bool dropped = redis_script(w->redis, &r, SCRIPT_EVICT, 2, 3, keys, NULL, &e) == 0;
    RUN("CONFIG", "SET", "maxmemory", "0");
    RUN("CONFIG", "SET", "maxmemory-policy", "volatile-ttl");
    assert_true(refused && dropped);
    assert_int_equal(plain(r), 1);
    assert_int_equal(INTEGER("EXISTS", tl("u"), pf("u")), 0);
}

/* ---- turns ---- */

static long long turn_to_pull(struct world *w, ts_t t, const char *target, long long n, const char *user)
{
    return one(CALL(SCRIPT_PULL, "2", bk(BUCKET), tl(user), T(t), target, T(1), num(n), "1"));
}

#define TURN_TO_PUSH(t, target, floor, n, user, n_ids, ...)                                                  \
    one(CALL(SCRIPT_PUSH, "2", bk(BUCKET), tl(user), T(t), target, "8", num(-(floor)), n_ids, __VA_ARGS__,   \
             T(1), num(n), "1"))

static const char *pull_list(struct world *w, const char *user)
{
    return TEXT("HGET", pf(user), "p");
}

static void a_target_turns_to_pull_once_where_the_timeline_is_older(void **state)
{
    struct world *w = *state;
    ready(w, "u", 20);
    ready(w, "late", 40);
    assert_int_equal(one(CALL(SCRIPT_PULL, "4", bk(BUCKET), tl("absent"), tl("u"), tl("late"), T(30), "p:big",
                              T(1), "0", "3")),
                     1);
    assert_string_equal(pull_list(w, "u"), "\np:big\n");
    assert_string_equal(pull_list(w, "late"), "");
    assert_int_equal(INTEGER("EXISTS", tl("absent"), pf("absent")), 0);
    assert_int_equal(turn_to_pull(w, 30, "p:big", 1, "u"), 1);
    assert_string_equal(pull_list(w, "u"), "\np:big\n");
    assert_int_equal(turn_to_pull(w, 31, "p:bigger", 2, "u"), 1);
    assert_int_equal(turn_to_pull(w, 32, "t:big", 3, "u"), 1);
    assert_string_equal(pull_list(w, "u"), "\np:big\np:bigger\nt:big\n");
    assert_string_equal(record(w, "seen"), T(32));
}

static void turning_back_merges_the_newest_and_takes_the_target_off(void **state)
{
    struct world *w = *state;
    ready(w, "u", 20);
    assert_int_equal(turn_to_pull(w, 30, "p:big", 0, "u"), 1);
    assert_int_equal(turn_to_pull(w, 30, "p:bigger", 1, "u"), 1);
    assert_int_equal(deliver(w, 31, 55, 1, 2, "u"), 1);
    RUN("PEXPIRE", tl("u"), "50000");
    assert_int_equal(TURN_TO_PUSH(40, "p:big", 0, 3, "u", "3", "70", "60", "50"), 1);
    assert_string_equal(members(w, "u"), "70 60 55 50 f0");
    assert_string_equal(pull_list(w, "u"), "\np:bigger\n");
    assert_in_range(INTEGER("PTTL", tl("u")), 1, 50000);
    assert_int_equal(TURN_TO_PUSH(41, "p:bigger", 0, 4, "u", "1", "99"), 1);
    assert_string_equal(members(w, "u"), "99 70 60 55 50 f0");
    assert_int_equal(INTEGER("HEXISTS", pf("u"), "p"), 0);
}

static void who_does_not_pull_the_target_gets_nothing_when_it_turns_back(void **state)
{
    struct world *w = *state;
    ready(w, "u", 20);
    ready(w, "late", 50);
    RUN("HSET", pf("late"), "p", "\np:big\n");
    assert_int_equal(turn_to_pull(w, 30, "p:bigger", 0, "u"), 1);
    assert_int_equal(TURN_TO_PUSH(40, "p:big", 0, 1, "u", "1", "70"), 1);
    assert_string_equal(members(w, "u"), "f0");
    assert_string_equal(pull_list(w, "u"), "\np:bigger\n");
    assert_int_equal(TURN_TO_PUSH(40, "p:big", 0, 2, "late", "1", "70"), 1);
    assert_string_equal(members(w, "late"), "f0");
    assert_string_equal(pull_list(w, "late"), "\np:big\n");
}

static void older_items_of_a_target_that_turns_back_raise_the_floor(void **state)
{
    struct world *w = *state;
    ready(w, "u", 20);
    assert_int_equal(deliver(w, 31, 45, 1, 0, "u"), 1);
    assert_int_equal(deliver(w, 31, 65, 1, 1, "u"), 1);
    assert_int_equal(turn_to_pull(w, 32, "p:big", 2, "u"), 1);
    assert_int_equal(TURN_TO_PUSH(40, "p:big", 50, 3, "u", "2", "70", "60"), 1);
    assert_string_equal(members(w, "u"), "70 65 60 f50");
}

static void a_full_timeline_keeps_its_cap_and_its_encoding_when_a_target_turns_back(void **state)
{
    struct world *w = *state;
    ready(w, "u", 20);
    for (int i = 0; i < 10; i++)
        assert_int_equal(deliver(w, 31, 100 + 2 * i, 1, i, "u"), 1);
    RUN("CONFIG", "SET", "zset-max-listpack-entries", "11");
    assert_int_equal(turn_to_pull(w, 32, "p:big", 10, "u"), 1);
    assert_int_equal(TURN_TO_PUSH(40, "p:big", 0, 11, "u", "5", "119", "117", "111", "105", "101"), 1);
    assert_string_equal(members(w, "u"), "119 118 117 116 114 112 111 110 f108");
    assert_string_equal(TEXT("OBJECT", "ENCODING", tl("u")), "listpack");
}

static void a_turn_takes_the_token_of_a_timeline_being_built(void **state)
{
    struct world *w = *state;
    assert_int_equal(build(w, "u", 20, "token", NULL), 1);
    assert_int_equal(turn_to_pull(w, 30, "p:big", 0, "u"), 1);
    assert_int_equal(FINISH("u", "token", 0, 8, 60, 0), 0);
    assert_int_equal(build(w, "u", 20, "token", NULL), 1);
    assert_int_equal(TURN_TO_PUSH(40, "p:big", 0, 1, "u", "1", "70"), 1);
    assert_int_equal(FINISH("u", "token", 0, 8, 60, 0), 0);
    assert_int_equal(build(w, "u", 20, "token", NULL), 1);
    assert_int_equal(turn_to_pull(w, 40, "p:big", 2, "u"), 1); /* its R covers that turn */
    assert_int_equal(FINISH("u", "token", 0, 8, 60, 0), 1);
}

static void a_turn_of_another_owner_is_refused(void **state)
{
    struct world *w = *state;
    ready(w, "u", 20);
    char *before = snapshot(w);
    assert_int_equal(turn_to_pull(w, 30, "p:big", 1, "u"), 0);
    assert_int_equal(TURN_TO_PUSH(30, "p:big", 0, 1, "u", "1", "70"), 0);
    char *after = snapshot(w);
    assert_string_equal(before, after);
    free(before);
    free(after);
}

static void a_rebuild_brings_the_pull_list(void **state)
{
    struct world *w = *state;
    assert_int_equal(build(w, "u", 20, "token", NULL), 1);
    assert_int_equal(finish_ids(w, "u", "token", 0, 8, "\np:big\n", (const long long[]){60, 0}), 1);
    assert_string_equal(pull_list(w, "u"), "\np:big\n");
    assert_int_equal(drop(w, 90, 1, 0, "u"), 1);
    ready(w, "u", 95);
    assert_int_equal(INTEGER("HEXISTS", pf("u"), "p"), 0);
}

int main(void)
{
#define FRESH(f) cmocka_unit_test_setup(f, setup)
    const struct CMUnitTest tests[] = {
        FRESH(an_item_is_delivered_where_a_timeline_is_and_nowhere_else),
        FRESH(several_items_are_delivered_at_once_each_where_it_is_newer_than_the_rebuild),
        FRESH(several_items_at_once_never_outgrow_the_cap),
        FRESH(items_that_are_delivered_again_take_nothing_from_the_others),
        FRESH(late_items_among_several_find_their_place),
        FRESH(another_epoch_or_count_is_refused_and_changes_nothing),
        FRESH(without_a_record_everything_is_refused),
        FRESH(a_refused_group_does_not_harm_the_others_of_its_call),
        FRESH(what_a_rebuild_has_seen_is_not_delivered_again),
        FRESH(a_timeline_without_its_meta_is_not_looked_into),
        FRESH(delivering_again_changes_nothing),
        FRESH(seen_rises_also_where_every_timeline_was_absent),
        FRESH(the_count_goes_on_beyond_32_bits),
        FRESH(a_full_timeline_is_trimmed_and_its_floor_rises_to_the_largest_removed),
        FRESH(a_late_item_takes_its_place_and_below_the_floor_it_goes_with_the_next_trim),
        FRESH(trimming_only_what_lies_below_the_floor_leaves_the_floor),
        FRESH(p11_a_timeline_never_outgrows_its_compact_encoding),
        FRESH(the_largest_ids_keep_all_their_digits),
        FRESH(a_removed_item_goes_where_the_removal_is_newer_than_the_rebuild),
        FRESH(what_was_removed_is_counted_once_and_forgotten_by_a_rebuild),
        FRESH(a_removal_ends_a_rebuild_that_may_have_read_before_it),
        FRESH(a_drop_takes_what_is_older_and_leaves_what_has_seen_it),
        FRESH(a_drop_takes_half_a_timeline_too),
        FRESH(an_owner_who_asks_is_told_which_timelines_were_absent),
        FRESH(progress_waits_until_its_owner_knows_all_timelines),
        FRESH(births_too_many_to_be_listed_are_told_as_a_number),
        FRESH(progress_never_goes_back),
        FRESH(a_new_owner_takes_the_record_over_at_its_progress),
        FRESH(an_owner_that_was_replaced_can_not_adopt),
        FRESH(a_lost_log_makes_the_record_anew_and_older_timelines_count_as_absent),
        FRESH(half_a_record_is_made_anew),
        FRESH(a_rebuild_reads_at_the_latest_of_what_was_asked_stamped_and_seen),
        FRESH(a_rebuild_says_who_is_there_already),
        FRESH(without_a_record_nothing_is_built),
        FRESH(half_a_timeline_is_built_again),
        FRESH(a_finished_timeline_is_ready_with_its_mutes_and_its_expiry),
        FRESH(without_its_token_a_rebuild_ends_and_changes_nothing),
        FRESH(what_is_delivered_during_a_rebuild_survives_it),
        FRESH(the_floors_of_a_rebuild_and_of_what_was_trimmed_meanwhile_merge_to_the_higher),
        FRESH(what_was_read_below_a_floor_raised_meanwhile_is_left_out),
        FRESH(more_than_the_cap_is_cut_and_raises_the_floor),
        FRESH(a_timeline_of_a_thousand_is_finished_too),
        FRESH(a_touched_timeline_lives_longer_with_both_of_its_keys),
        FRESH(touching_makes_no_timeline_and_spares_one_being_built),
        FRESH(a_timeline_found_wrong_is_dropped_unless_it_was_rebuilt),
        FRESH(an_erased_reader_leaves_no_name_and_his_place),
        FRESH(an_evicted_timeline_is_gone_unless_it_was_read_meanwhile),
        FRESH(what_an_evicted_timeline_missed_is_within_the_next_rebuild),
        FRESH(room_can_be_made_when_there_is_none),
        FRESH(a_random_life_of_a_timeline_agrees_with_the_model),
        FRESH(a_target_turns_to_pull_once_where_the_timeline_is_older),
        FRESH(turning_back_merges_the_newest_and_takes_the_target_off),
        FRESH(who_does_not_pull_the_target_gets_nothing_when_it_turns_back),
        FRESH(older_items_of_a_target_that_turns_back_raise_the_floor),
        FRESH(a_full_timeline_keeps_its_cap_and_its_encoding_when_a_target_turns_back),
        FRESH(a_turn_takes_the_token_of_a_timeline_being_built),
        FRESH(a_turn_of_another_owner_is_refused),
        FRESH(a_rebuild_brings_the_pull_list),
    };
    return cmocka_run_group_tests_name("common/scripts", tests, group_setup, group_teardown);
}
