/* test_room.c - room is made in Redis before it refuses, at the cost of timelines read least recently. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/keys.h"
#include "common/mem.h"
#include "fanout/room.h"
#include "tests/support/fixture.h"

#define TIMELINES 2000
#define ENTRIES   60
#define DEADLINE  20000

static struct fixture *f;
static struct redis *redis;
static struct room *room;
static struct metrics *metrics;
static struct redis_address address;

static redisReply *command(const char *a, const char *b, const char *c, const char *d)
{
    struct err e = {0};
    redisReply *r = NULL;
    if (redis_commandf(redis, &r, &e, a, b, c, d, NULL) != 0)
        fail_msg("%s: %s", a, e.msg);
    return r;
}

static int group_setup(void **state)
{
    struct err e = {0};
    (void)state;
    f = fixture_new(FIXTURE_REDIS);
    if (redis_address_parse(fixture_redis_address(f), &address, &e) != 0)
        fail_msg("%s", e.msg);
    redis = redis_new(&address, 5000);
    freeReplyObject(command("CONFIG", "SET", "maxmemory-policy", "noeviction"));
    return 0;
}

static int group_teardown(void **state)
{
    (void)state;
    redis_free(redis);
    fixture_free(f);
    return 0;
}

static void new_room(void)
{
    room_free(room);
    metrics_free(metrics);
    metrics = fanout_metrics_new();
    room = room_new(&address, 5000, metrics);
}

static void set_limit(int64_t bytes)
{
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)bytes);
    freeReplyObject(command("CONFIG", "SET", "maxmemory", text));
}

static int setup(void **state)
{
    (void)state;
    set_limit(0);
    freeReplyObject(command("FLUSHALL", NULL, NULL, NULL));
    new_room();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    room_free(room);
    metrics_free(metrics);
    room = NULL;
    metrics = NULL;
    set_limit(0);
    return 0;
}

/* ---- timelines ---- */

struct keys {
    char tl[KEY_SIZE], pf[KEY_SIZE];
};

static struct keys keys_of(const char *kind, unsigned i)
{
    struct keys k;
    char user[40];
    snprintf(user, sizeof user, "%s%u", kind, i);
    keys_timeline(k.tl, keys_bucket(user), user);
    keys_timeline_meta(k.pf, keys_bucket(user), user);
    return k;
}

static void send(int argc, const char **argv)
{
    struct err e = {0};
    if (redis_append(redis, argc, argv, NULL, &e) != 0)
        fail_msg("%s", e.msg);
}

static void read_all(void)
{
    struct err e = {0};
    redisReply *r;
    while (redis_pending(redis) > 0) {
        if (redis_read(redis, &r, &e) != 0)
            fail_msg("%s", e.msg);
        freeReplyObject(r);
    }
}

/* x: when it was read; 0: it is just being built. */
static void add_timelines(const char *kind, unsigned n, long long x)
{
    for (unsigned i = 0; i < n; i++) {
        struct keys k = keys_of(kind, i);
        char at[24], ids[ENTRIES][24], scores[ENTRIES][24];
        const char *zadd[2 + 2 * ENTRIES + 2] = {"ZADD", k.tl, "0", "f"};
        for (unsigned j = 0; j < ENTRIES - 1; j++) {
            snprintf(ids[j], sizeof ids[j], "%llu", 3500000000000000ULL + 977 * j);
            snprintf(scores[j], sizeof scores[j], "-%s", ids[j]);
            zadd[4 + 2 * j] = scores[j];
            zadd[5 + 2 * j] = ids[j];
        }
        send(2 + 2 * ENTRIES, zadd);
        snprintf(at, sizeof at, "%lld", x + i % 100);
        send(x ? 8 : 6,
             (const char *[]){"HSET", k.pf, "r", "0000000100000001", "st", x ? "r" : "b", "x", at});
        if (i % 100 == 99)
            read_all();
    }
    read_all();
}

/* Both keys of each are there or neither is. */
static unsigned count_left(const char *kind, unsigned n)
{
    unsigned left = 0;
    for (unsigned i = 0; i < n; i++) {
        struct keys k = keys_of(kind, i);
        redisReply *r = command("EXISTS", k.tl, k.pf, NULL);
        assert_true(r->integer == 0 || r->integer == 2);
        left += r->integer == 2;
        freeReplyObject(r);
    }
    return left;
}

static struct room_view look(void)
{
    struct room_view v;
    room_look(room, &v);
    return v;
}

static void step(void)
{
    struct err e = {0};
    if (room_step(room, &e) != 0)
        fail_msg("%s", e.msg);
}

/* A limit of which `percent` are used now. */
static void fill_to(int percent)
{
    step();
    set_limit(look().used * 100 / percent);
}

/* ---- pure ---- */

static void what_info_says_is_read_and_buffers_do_not_count(void **state)
{
    (void)state;
    struct room_view v = {.evicted = 7};
    assert_true(room_parse("# Memory\r\nused_memory:1000\r\nused_memory_rss:9999\r\n"
                           "total_system_memory:5\r\nmaxmemory:2000\r\nmaxmemory_human:2K\r\n"
                           "maxmemory_policy:volatile-ttl\r\nmem_not_counted_for_evict:100\r\n",
                           &v));
    assert_true(v.known);
    assert_int_equal(v.used, 900);
    assert_int_equal(v.max, 2000);
    assert_string_equal(v.policy, "volatile-ttl");
    assert_int_equal(v.evicted, 7);
    assert_int_equal(room_percent(&v), 45);
    v.max = 0;
    assert_int_equal(room_percent(&v), 0);
    assert_false(room_parse("# Server\r\nredis_version:7.0\r\n", &v));
}

static void the_oldest_part_of_a_sample_is_picked(void **state)
{
    (void)state;
    struct room_pick picks[64];
    for (size_t i = 0; i < MEM_COUNT(picks); i++)
        picks[i] = (struct room_pick){.x = (int64_t)(i * 37 % 64), .i = i};
    assert_int_equal(room_pick_oldest(picks, 64), 64 / ROOM_PART);
    for (size_t i = 0; i < 64 / ROOM_PART; i++)
        assert_int_equal(picks[i].x, i);
    assert_int_equal(room_pick_oldest(picks, 3), 1);
    assert_int_equal(room_pick_oldest(picks, 0), 0);
}

/* ---- with Redis ---- */

static void below_its_limit_and_without_one_nothing_is_dropped(void **state)
{
    (void)state;
    add_timelines("old", 200, 1000);
    step();
    assert_true(look().used > 0 && look().max == 0 && !look().tight);
    fill_to(80);
    step();
    assert_false(look().tight);
    fill_to(88);
    step();
    assert_true(look().tight);
    assert_int_equal(metrics_get(metrics, M_REDIS_MAX, 0), look().max);
    assert_int_equal(count_left("old", 200), 200);
    fill_to(82);
    step();
    assert_true(look().tight); /* not so soon */
    fill_to(78);
    step();
    assert_false(look().tight);
}

static void near_its_limit_those_read_least_recently_go_and_no_others(void **state)
{
    (void)state;
    add_timelines("old", TIMELINES / 2, 1000);
    add_timelines("new", TIMELINES / 2, 5000);
    fill_to(93);
    step();
    unsigned left = count_left("old", TIMELINES / 2);
    assert_true(room_percent(&(struct room_view){.used = look().used, .max = look().max}) <=
                ROOM_TIGHT_PERCENT);
    assert_true(left < TIMELINES / 2 && left > TIMELINES / 4); /* and not more than needed */
    assert_int_equal(count_left("new", TIMELINES / 2), TIMELINES / 2);
    assert_int_equal(look().evicted, TIMELINES / 2 - left);
    assert_int_equal(metrics_get(metrics, M_EVICTED, 0), look().evicted);
}

/* A round of the SCAN ends with what is left: a few timelines, among whom perhaps nobody is old. */
static void no_sample_is_too_small_to_tell_who_is_old(void **state)
{
    (void)state;
    add_timelines("old", 120, 1000);
    add_timelines("new", 400, 5000);
    while (count_left("old", 120) > 70) {
        fill_to(92);
        step();
    }
    assert_int_equal(count_left("new", 400), 400);
}

static bool writes_are_refused(void)
{
    struct err e = {0};
    redisReply *r;
    if (redis_commandf(redis, &r, &e, "SET", "k", "v", NULL) == 0) {
        freeReplyObject(r);
        return false;
    }
    return true;
}

/* Also by a process that only starts then. */
static void room_is_made_when_redis_refuses_already(void **state)
{
    (void)state;
    add_timelines("old", TIMELINES / 2, 1000);
    fill_to(110);
    assert_true(writes_are_refused());
    new_room();
    step();
    assert_true(room_percent(&(struct room_view){.used = look().used, .max = look().max}) <=
                ROOM_TIGHT_PERCENT);
    assert_false(writes_are_refused());
}

static void what_is_no_timeline_or_not_ready_is_left_alone(void **state)
{
    (void)state;
    struct err e = {0};
    add_timelines("making", 50, 0);
    freeReplyObject(command("SET", "pf:{3}:string", "v", NULL)); /* of another type */
    char *big = mem_alloc(3 << 20);
    memset(big, 'x', 3 << 20);
    big[(3 << 20) - 1] = '\0';
    freeReplyObject(command("SET", "rk:{1}:big", big, NULL));
    free(big);
    fill_to(95);
    assert_int_equal(room_step(room, &e), -1);
    assert_int_equal(e.code, ERR_TOO_LARGE);
    assert_int_equal(look().evicted, 0);
    assert_true(look().tight);
    assert_int_equal(count_left("making", 50), 50);
    redisReply *r = command("EXISTS", "rk:{1}:big", "pf:{3}:string", NULL);
    assert_int_equal(r->integer, 2);
    freeReplyObject(r);
}

static bool has_room(void *arg)
{
    (void)arg;
    struct room_view v = look();
    return v.evicted > 0 && room_percent(&v) <= ROOM_TIGHT_PERCENT;
}

static void its_thread_makes_room_by_itself_and_waits_for_redis(void **state)
{
    (void)state;
    struct err e = {0};
    add_timelines("old", TIMELINES / 2, 1000);
    server_kill(fixture_redis(f));
    assert_int_equal(room_start(room, &e), 0);
    fixture_restart(f, fixture_redis(f));
    redis_free(redis);
    redis = redis_new(&address, 5000);
    freeReplyObject(command("CONFIG", "SET", "maxmemory-policy", "noeviction"));
    struct room *r = room; /* another one for fill_to() */
    struct metrics *m = metrics;
    room = NULL;
    metrics = NULL;
    new_room();
    add_timelines("more", TIMELINES / 2, 2000);
    fill_to(95);
    room_free(room);
    metrics_free(metrics);
    room = r;
    metrics = m;
    assert_true(fixture_until(has_room, NULL, DEADLINE));
}

int main(void)
{
#define WITH_ROOM(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_info_says_is_read_and_buffers_do_not_count),
        cmocka_unit_test(the_oldest_part_of_a_sample_is_picked),
        WITH_ROOM(below_its_limit_and_without_one_nothing_is_dropped),
        WITH_ROOM(near_its_limit_those_read_least_recently_go_and_no_others),
        WITH_ROOM(no_sample_is_too_small_to_tell_who_is_old),
        WITH_ROOM(room_is_made_when_redis_refuses_already),
        WITH_ROOM(what_is_no_timeline_or_not_ready_is_left_alone),
        WITH_ROOM(its_thread_makes_room_by_itself_and_waits_for_redis),
    };
    return cmocka_run_group_tests_name("fanout/room", tests, group_setup, group_teardown);
}
