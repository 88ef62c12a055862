#include "tests/fanout/rig.h"

#include "fanout/adopt.h"
#include "fanout/deliver.h"

static struct rig rig;
static struct buckets buckets;
static struct metrics *metrics;
static struct deliver *d;

static struct deliver_failure left_out;
static unsigned n_left_out;

static void note_left_out(void *arg, const struct deliver_failure *f)
{
    (void)arg;
    left_out = *f;
    n_left_out++;
}

static void open_deliver(unsigned batch_keys, unsigned window)
{
    struct deliver_options o = {
        .redis = rig.redis,
        .buckets = &buckets,
        .metrics = metrics,
        .timeline_cap = 8,
        .batch_keys = batch_keys,
        .window = window,
        .left_out = note_left_out,
    };
    deliver_free(d);
    d = deliver_new(&o);
}

static int open_rig(void **state)
{
    rig_open_redis(&rig, *state);
    freeReplyObject(rig_command(&rig, "FLUSHALL", NULL, NULL));
    buckets_init(&buckets);
    metrics = fanout_metrics_new();
    open_deliver(5, 3);
    return 0;
}

static int close_rig(void **state)
{
    (void)state;
    deliver_free(d);
    d = NULL;
    metrics_free(metrics);
    redis_free(rig.redis);
    return 0;
}

static struct adoption adopt(unsigned share, int64_t epoch, ts_t now, bool reset)
{
    struct adoption a;
    struct err e = {0};
    RIG_OK(e, adopt_share(rig.redis, &buckets, metrics, share, epoch, now, reset, &a, &e));
    return a;
}

static void adopt_all(int64_t epoch, ts_t now)
{
    for (unsigned i = 0; i < SHARES; i++)
        assert_int_equal(adopt(i, epoch, now, false).least_epoch, 0);
}

static void ready_timeline(const char *user, ts_t least)
{
    assert_true(rig_build(&rig, user, least) >= least);
    assert_true(rig_finish(&rig, user));
}

static void send_one(enum script s, ts_t t, item_id id, const char *user)
{
    struct err e = {0};
    deliver_begin(d, s, t, id);
    RIG_OK(e, deliver_add(d, keys_bucket(user), user, READER_NONE, &e));
    RIG_OK(e, deliver_end(d, &e));
    RIG_OK(e, deliver_drain(d, &e));
}

/* A record's count against what is kept here. */
static void counts_agree(void)
{
    for (unsigned b = 0; b < BUCKETS; b++) {
        if (buckets.at[b].owned)
            assert_true(strtoull(rig_record(&rig, b, "n"), NULL, 10) == buckets.at[b].n);
    }
}

static void adoption_makes_records_and_finds_them_again(void **state)
{
    (void)state;
    struct adoption a = adopt(2, 1, 100, false);
    assert_true(a.made == SHARE_BUCKETS && a.taken == 0 && a.least == 100);
    assert_int_equal(buckets_owned(&buckets), SHARE_BUCKETS);
    a = adopt(2, 2, 200, false);
    assert_true(a.made == 0 && a.taken == SHARE_BUCKETS && a.least == 100);
    assert_true(buckets.at[2 * SHARE_BUCKETS].applied == 100);
    a = adopt(2, 3, 300, true);
    assert_true(a.made == SHARE_BUCKETS && a.least == 300);
    assert_string_equal(rig_record(&rig, 2 * SHARE_BUCKETS, "epoch"), "0000000000000003");
}

static void a_record_with_a_later_epoch_refuses_the_adoption_and_tells_it(void **state)
{
    (void)state;
    adopt(2, 9, 100, false);
    buckets_drop_share(&buckets, 2);
    struct adoption a = adopt(2, 4, 200, false);
    assert_int_equal(a.least_epoch, 9);
    assert_int_equal(buckets_owned(&buckets), 0);
    assert_string_equal(rig_record(&rig, 2 * SHARE_BUCKETS, "epoch"), "0000000000000009");
    assert_int_equal(adopt(2, 10, 200, false).least_epoch, 0);
}

static void a_record_from_the_future_is_made_anew(void **state)
{
    (void)state;
    adopt(2, 1, 1000, false);
    struct adoption a = adopt(2, 2, 500, false);
    assert_true(a.made == SHARE_BUCKETS && a.taken == 0 && a.least == 500);
    assert_true(rig_record_ts(&rig, 2 * SHARE_BUCKETS, "progress") == 500);
}

static void many_timelines_get_the_item_in_few_calls(void **state)
{
    (void)state;
    char user[32];
    struct err e = {0};
    open_deliver(100, 3);
    adopt_all(1, 100);
    for (unsigned i = 0; i < 400; i += 2) {
        snprintf(user, sizeof user, "u%u", i);
        ready_timeline(user, 100);
    }
    deliver_begin(d, SCRIPT_DELIVER, 200, 55);
    for (unsigned b = 0; b < BUCKETS; b++) { /* as an audience comes: by bucket */
        for (unsigned i = 0; i < 400; i++) {
            snprintf(user, sizeof user, "u%u", i);
            if (keys_bucket(user) == b)
                RIG_OK(e, deliver_add(d, b, user, READER_NONE, &e));
        }
    }
    RIG_OK(e, deliver_end(d, &e));
    RIG_OK(e, deliver_drain(d, &e));
    for (unsigned i = 0; i < 400; i++) {
        snprintf(user, sizeof user, "u%u", i);
        assert_int_equal(rig_holds(&rig, user, 55), i % 2 == 0);
        assert_int_equal(rig_exists(&rig, user), i % 2 == 0);
    }
    assert_int_equal(metrics_get(metrics, M_TIMELINES, SCRIPT_DELIVER), 400);
    assert_true(metrics_get(metrics, M_SCRIPTS, SCRIPT_DELIVER) <= BUCKETS / DELIVER_GROUPS + 4);
    assert_int_equal(deliver_refused(d), 0);
    counts_agree();
}

static void calls_of_the_same_bucket_carry_counts_behind_one_another(void **state)
{
    (void)state;
    struct err e = {0};
    const char *user = "ann";
    open_deliver(1, 3);
    adopt_all(1, 100);
    ready_timeline(user, 100);
    for (item_id id = 1; id <= 10; id++) {
        deliver_begin(d, SCRIPT_DELIVER, 200 + id, id);
        for (int i = 0; i < 5; i++)
            RIG_OK(e, deliver_add(d, keys_bucket(user), user, READER_NONE, &e));
        RIG_OK(e, deliver_end(d, &e));
    }
    RIG_OK(e, deliver_drain(d, &e));
    assert_int_equal(deliver_refused(d), 0);
    assert_int_equal(buckets.at[keys_bucket(user)].n, 50);
    counts_agree();
}

static void a_bucket_that_comes_again_in_the_same_call_is_applied_again(void **state)
{
    (void)state;
    struct err e = {0};
    open_deliver(100, 3);
    adopt_all(1, 100);
    ready_timeline("ann", 100);
    ready_timeline("bob", 100);
    assert_int_not_equal(keys_bucket("ann"), keys_bucket("bob"));
    deliver_begin(d, SCRIPT_DELIVER, 200, 7);
    const char *users[] = {"ann", "bob", "ann"};
    for (size_t i = 0; i < MEM_COUNT(users); i++)
        RIG_OK(e, deliver_add(d, keys_bucket(users[i]), users[i], READER_NONE, &e));
    RIG_OK(e, deliver_end(d, &e));
    RIG_OK(e, deliver_drain(d, &e));
    assert_int_equal(deliver_refused(d), 0);
    assert_true(rig_holds(&rig, "ann", 7) && rig_holds(&rig, "bob", 7));
    assert_int_equal(metrics_get(metrics, M_SCRIPTS, SCRIPT_DELIVER), 1);
    counts_agree();
}

static void nothing_is_sent_for_what_is_not_owned_or_applied_already(void **state)
{
    (void)state;
    unsigned bucket = keys_bucket("ann");
    send_one(SCRIPT_DELIVER, 200, 7, "ann");
    adopt(bucket_share(bucket), 1, 300, false);
    send_one(SCRIPT_DELIVER, 300, 7, "ann");
    assert_int_equal(metrics_get(metrics, M_SCRIPTS, SCRIPT_DELIVER), 0);
    send_one(SCRIPT_DELIVER, 301, 7, "ann");
    assert_int_equal(metrics_get(metrics, M_SCRIPTS, SCRIPT_DELIVER), 1);
}

static void a_group_of_a_former_owner_is_refused_and_changes_nothing(void **state)
{
    (void)state;
    adopt_all(1, 100);
    ready_timeline("ann", 100);
    struct buckets other;
    buckets_init(&other);
    struct redis_address at;
    struct err e = {0};
    RIG_OK(e, redis_address_parse(fixture_redis_address(rig.f), &at, &e));
    struct redis *second = redis_new(&at, 2000);
    struct deliver_options o = {
        .redis = second, .buckets = &other, .timeline_cap = 8, .batch_keys = 5, .window = 3};
    struct deliver *thief = deliver_new(&o);
    struct adoption a;
    unsigned share = bucket_share(keys_bucket("ann"));
    RIG_OK(e, adopt_share(second, &other, NULL, share, 2, 100, false, &a, &e));
    send_one(SCRIPT_DELIVER, 200, 7, "ann");
    assert_true(deliver_refused(d) == 1u << share);
    assert_false(rig_holds(&rig, "ann", 7));
    send_one(SCRIPT_DELIVER, 201, 8, "ann");
    assert_int_equal(metrics_get(metrics, M_REFUSED, 0), 1); /* nothing more was sent for it */
    deliver_free(thief);
    redis_free(second);
}

static void a_record_that_lost_what_was_written_last_refuses(void **state)
{
    (void)state;
    adopt_all(1, 100);
    unsigned bucket = keys_bucket("ann");
    char bk[KEY_SIZE];
    send_one(SCRIPT_DROP, 200, 0, "ann");
    send_one(SCRIPT_DROP, 201, 0, "ann");
    keys_bucket_record(bk, bucket);
    struct err e = {0};
    redisReply *r;
    RIG_OK(e, redis_commandf(rig.redis, &r, &e, "HSET", bk, "n", "1", NULL));
    freeReplyObject(r);
    send_one(SCRIPT_DROP, 202, 0, "ann");
    assert_true(deliver_refused(d) == 1u << bucket_share(bucket));
}

static void the_other_buckets_of_a_refused_call_are_applied(void **state)
{
    (void)state;
    struct err e = {0};
    open_deliver(100, 3);
    adopt_all(1, 100);
    ready_timeline("ann", 100);
    ready_timeline("bob", 100);
    assert_int_not_equal(bucket_share(keys_bucket("ann")), bucket_share(keys_bucket("bob")));
    char bk[KEY_SIZE];
    keys_bucket_record(bk, keys_bucket("ann"));
    freeReplyObject(rig_command(&rig, "DEL", bk, NULL));
    deliver_begin(d, SCRIPT_DELIVER, 200, 7);
    RIG_OK(e, deliver_add(d, keys_bucket("ann"), "ann", READER_NONE, &e));
    RIG_OK(e, deliver_add(d, keys_bucket("bob"), "bob", READER_NONE, &e));
    RIG_OK(e, deliver_end(d, &e));
    RIG_OK(e, deliver_drain(d, &e));
    assert_true(deliver_refused(d) == 1u << bucket_share(keys_bucket("ann")));
    assert_false(rig_holds(&rig, "ann", 7));
    assert_true(rig_holds(&rig, "bob", 7));
    assert_false(deliver_broken(d));
}

static void progress_goes_to_all_owned_buckets_in_one_call(void **state)
{
    (void)state;
    struct err e = {0};
    adopt_all(1, 100);
    RIG_OK(e, deliver_progress(d, 500, 500, NULL, &e));
    for (unsigned b = 0; b < BUCKETS; b++) {
        assert_true(rig_record_ts(&rig, b, "progress") == 500);
        assert_true(buckets.at[b].applied == 500);
    }
    assert_int_equal(metrics_get(metrics, M_SCRIPTS, SCRIPT_PROGRESS), 1);
    RIG_OK(e, deliver_progress(d, 400, 400, NULL, &e)); /* never backwards */
    RIG_OK(e, deliver_progress(d, 500, 500, NULL, &e));
    assert_int_equal(metrics_get(metrics, M_SCRIPTS, SCRIPT_PROGRESS), 1);
    counts_agree();
}

static void a_timeline_of_another_type_is_named_and_all_others_get_the_item(void **state)
{
    (void)state;
    struct err e = {0};
    const enum script scripts[] = {SCRIPT_DELIVER, SCRIPT_REMOVE};
    adopt_all(1, 100);
    /* names of one bucket, so that they share a group */
    char same[3][32];
    unsigned n = 0;
    for (unsigned i = 0; n < 3; i++) {
        snprintf(same[n], sizeof same[n], "u%u", i);
        n += keys_bucket(same[n]) == keys_bucket("ann");
    }
    const char *users[] = {same[0], "ann", same[1], "bob", same[2]};
    for (size_t i = 0; i < MEM_COUNT(users); i++)
        ready_timeline(users[i], 100);
    freeReplyObject(rig_command(&rig, "SET", rig_keys("ann").tl, "surprise"));
    for (size_t s = 0; s < MEM_COUNT(scripts); s++) {
        n_left_out = 0;
        deliver_begin(d, scripts[s], 200 + s, 7);
        for (size_t i = 0; i < MEM_COUNT(users); i++)
            RIG_OK(e, deliver_add(d, keys_bucket(users[i]), users[i], READER_NONE, &e));
        RIG_OK(e, deliver_end(d, &e));
        RIG_OK(e, deliver_drain(d, &e));
        for (size_t i = 0; i < MEM_COUNT(users); i++) {
            if (strcmp(users[i], "ann") != 0)
                assert_int_equal(rig_holds(&rig, users[i], 7), s == 0);
        }
        assert_int_equal(n_left_out, 1);
        assert_string_equal(left_out.user, "ann");
        assert_int_equal(left_out.bucket, keys_bucket("ann"));
        assert_int_equal(left_out.script, scripts[s]);
        assert_int_equal(left_out.item, 7);
        assert_true(left_out.t == 200 + s);
        assert_non_null(strstr(left_out.why, "WRONGTYPE"));
        assert_false(deliver_broken(d));
    }
    send_one(SCRIPT_DROP, 300, 0, "ann"); /* what does not read goes */
    assert_false(rig_exists(&rig, "ann"));
    counts_agree();
}

static void progress_of_a_held_bucket_stays_below_its_time(void **state)
{
    (void)state;
    struct err e = {0};
    ts_t held[BUCKETS] = {[7] = 350, [9] = 1000};
    adopt_all(1, 100);
    RIG_OK(e, deliver_progress(d, 500, 500, held, &e));
    for (unsigned b = 0; b < BUCKETS; b++) {
        assert_true(rig_record_ts(&rig, b, "progress") == (b == 7 ? 349 : 500));
        assert_true(rig_record_ts(&rig, b, "seen") == 500);
    }
    RIG_OK(e, deliver_progress(d, 600, 600, NULL, &e));
    assert_true(rig_record_ts(&rig, 7, "progress") == 600);
    counts_agree();
}

/* The record itself: nothing of the call is known to have been applied. */
static void an_error_reply_breaks_off_and_names_its_buckets(void **state)
{
    (void)state;
    struct err e = {0};
    struct deliver_failure f;
    adopt_all(1, 100);
    struct rig_keys k = rig_keys("ann");
    freeReplyObject(rig_command(&rig, "SET", k.bk, "surprise"));
    deliver_begin(d, SCRIPT_DELIVER, 200, 7);
    RIG_OK(e, deliver_add(d, k.bucket, "ann", READER_NONE, &e));
    RIG_OK(e, deliver_end(d, &e));
    assert_int_equal(deliver_drain(d, &e), -1);
    assert_true(deliver_broken(d));
    assert_true(deliver_failed(d, &f)[k.bucket]);
    assert_true(f.t == 200 && f.item == 7 && f.script == SCRIPT_DELIVER);
    assert_non_null(strstr(f.why, "WRONGTYPE"));
    assert_int_equal(deliver_add(d, k.bucket, "bob", READER_NONE, &e), -1);
    assert_int_equal(e.code, ERR_UNAVAILABLE);
    deliver_mend(d);
    adopt_all(2, 300);
    ready_timeline("bob", 100);
    send_one(SCRIPT_DELIVER, 301, 7, "bob");
    assert_true(rig_holds(&rig, "bob", 7));
}

static void a_lost_connection_breaks_off_until_mended_and_adopted_again(void **state)
{
    (void)state;
    struct err e = {0};
    adopt_all(1, 100);
    ready_timeline("ann", 100);
    struct redis_address at;
    RIG_OK(e, redis_address_parse(fixture_redis_address(rig.f), &at, &e));
    struct redis *second = redis_new(&at, 2000);
    redisReply *r;
    RIG_OK(e, redis_commandf(second, &r, &e, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes", NULL));
    freeReplyObject(r);
    redis_free(second);
    deliver_begin(d, SCRIPT_DELIVER, 200, 7);
    int rc = deliver_add(d, keys_bucket("ann"), "ann", READER_NONE, &e);
    if (rc == 0)
        rc = deliver_end(d, &e);
    if (rc == 0)
        rc = deliver_drain(d, &e);
    assert_int_equal(rc, -1);
    assert_true(deliver_broken(d));
    assert_int_equal(deliver_progress(d, 300, 300, NULL, &e), -1);
    deliver_mend(d);
    adopt_all(2, 300);
    send_one(SCRIPT_DELIVER, 200, 7, "ann");
    assert_true(rig_holds(&rig, "ann", 7));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, open_rig, close_rig)
    const struct CMUnitTest tests[] = {
        T(adoption_makes_records_and_finds_them_again),
        T(a_record_with_a_later_epoch_refuses_the_adoption_and_tells_it),
        T(a_record_from_the_future_is_made_anew),
        T(many_timelines_get_the_item_in_few_calls),
        T(calls_of_the_same_bucket_carry_counts_behind_one_another),
        T(a_bucket_that_comes_again_in_the_same_call_is_applied_again),
        T(nothing_is_sent_for_what_is_not_owned_or_applied_already),
        T(a_group_of_a_former_owner_is_refused_and_changes_nothing),
        T(a_record_that_lost_what_was_written_last_refuses),
        T(the_other_buckets_of_a_refused_call_are_applied),
        T(progress_goes_to_all_owned_buckets_in_one_call),
        T(a_timeline_of_another_type_is_named_and_all_others_get_the_item),
        T(progress_of_a_held_bucket_stays_below_its_time),
        T(an_error_reply_breaks_off_and_names_its_buckets),
        T(a_lost_connection_breaks_off_until_mended_and_adopted_again),
    };
    return cmocka_run_group_tests(tests, fixture_group_setup_redis, fixture_group_teardown);
}
