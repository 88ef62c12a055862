/* The engine against real servers: what feed-api would write goes into MongoDB, what readers would find is
 * looked up in Redis. */
#include "tests/fanout/rig.h"

#include "tests/fanout/node.h"

static struct rig rig;

static void start(struct node *n, const char *name)
{
    node_start(n, &rig, name, 5000, 120);
}

static bool owns_half(void *arg)
{
    struct engine_status s = node_look(arg);
    return s.buckets == BUCKETS / 2 && s.fair == SHARES / 2;
}

static bool owns_all(void *arg)
{
    return node_look(arg).buckets == BUCKETS;
}

static void progress_reaches(ts_t t)
{
    node_progress_reaches(&rig, t);
}

static void make_timeline(const char *user)
{
    if (!rig_timeline(&rig, user))
        fail_msg("no timeline for %s", user);
}

static struct node a, b;

static int open_rig(void **state)
{
    rig_open(&rig, *state);
    return 0;
}

static int close_rig(void **state)
{
    (void)state;
    node_stop(&a);
    node_stop(&b);
    rig_close(&rig);
    return 0;
}

static void one_fanout_owns_all_buckets_and_makes_their_records(void **state)
{
    (void)state;
    start(&a, "fanout-1");
    UNTIL(&rig, node_is_ready, &a);
    struct engine_status s = node_look(&a);
    assert_int_equal(s.buckets, BUCKETS);
    assert_true(s.redis_ok && s.mongodb_ok);
    for (unsigned i = 0; i < BUCKETS; i++) {
        assert_string_equal(rig_record(&rig, i, "epoch"), "0000000000000001");
        assert_true(rig_record_ts(&rig, i, "born") > 0);
    }
}

static void an_item_arrives_in_all_timelines_of_its_followers_and_makes_none(void **state)
{
    (void)state;
    char user[32];
    start(&a, "fanout-1");
    UNTIL(&rig, node_is_ready, &a);
    rig_edges(&rig, "u", 100, "p:daily");
    rig_edge(&rig, "topical", "t:sport");
    rig_edge(&rig, "stranger", "p:weekly");
    for (unsigned i = 0; i < 100; i += 2) {
        snprintf(user, sizeof user, "u%u", i);
        make_timeline(user);
    }
    make_timeline("topical");
    make_timeline("stranger");
    progress_reaches(rig_publish(&rig, 1000, "daily", "sport"));
    for (unsigned i = 0; i < 100; i++) {
        snprintf(user, sizeof user, "u%u", i);
        assert_int_equal(rig_holds(&rig, user, 1000), i % 2 == 0);
        assert_int_equal(rig_exists(&rig, user), i % 2 == 0);
    }
    assert_true(rig_holds(&rig, "topical", 1000));
    assert_false(rig_holds(&rig, "stranger", 1000));
}

static void a_timeline_built_after_the_publish_is_not_given_the_item_again(void **state)
{
    (void)state;
    start(&a, "fanout-1");
    UNTIL(&rig, node_is_ready, &a);
    rig_edge(&rig, "ann", "p:daily");
    ts_t t = rig_publish(&rig, 1000, "daily", "");
    assert_true(rig_build(&rig, "ann", t) >= t);
    assert_true(rig_finish(&rig, "ann"));
    progress_reaches(t);
    assert_false(rig_holds(&rig, "ann", 1000));
    progress_reaches(rig_publish(&rig, 2000, "daily", ""));
    assert_true(rig_holds(&rig, "ann", 2000));
}

static void edited_topics_move_the_item_and_spare_whom_another_follow_matches(void **state)
{
    (void)state;
    start(&a, "fanout-1");
    UNTIL(&rig, node_is_ready, &a);
    rig_edge(&rig, "sporty", "t:sport");
    rig_edge(&rig, "both", "t:sport");
    rig_edge(&rig, "both", "t:chess");
    rig_edge(&rig, "fan", "t:sport");
    rig_edge(&rig, "fan", "p:daily");
    rig_edge(&rig, "chessy", "t:chess");
    const char *users[] = {"sporty", "both", "fan", "chessy"};
    for (size_t i = 0; i < MEM_COUNT(users); i++)
        make_timeline(users[i]);
    progress_reaches(rig_publish(&rig, 1000, "daily", "sport"));
    assert_true(rig_holds(&rig, "sporty", 1000) && rig_holds(&rig, "both", 1000) &&
                rig_holds(&rig, "fan", 1000));
    assert_false(rig_holds(&rig, "chessy", 1000));
    progress_reaches(rig_edit_topics(&rig, 1000, "sport", "chess"));
    assert_false(rig_holds(&rig, "sporty", 1000));
    assert_true(rig_holds(&rig, "both", 1000) && rig_holds(&rig, "fan", 1000) &&
                rig_holds(&rig, "chessy", 1000));
    progress_reaches(rig_edit_topics(&rig, 1000, "chess", ""));
    assert_false(rig_holds(&rig, "both", 1000) || rig_holds(&rig, "chessy", 1000));
    assert_true(rig_holds(&rig, "fan", 1000));
}

static void topic_edits_behind_one_another_end_at_the_last_one(void **state)
{
    (void)state;
    start(&a, "fanout-1");
    UNTIL(&rig, node_is_ready, &a);
    const char *topics[] = {"red", "green", "blue"}, *users[] = {"r", "g", "b"};
    char target[32];
    for (int i = 0; i < 3; i++) {
        snprintf(target, sizeof target, "t:%s", topics[i]);
        rig_edge(&rig, users[i], target);
        make_timeline(users[i]);
    }
    rig_publish(&rig, 1000, "daily", "red");
    ts_t t = 0;
    for (int i = 0; i < 10; i++)
        t = rig_edit_topics(&rig, 1000, topics[i % 3], topics[(i + 1) % 3]);
    progress_reaches(t);
    assert_false(rig_holds(&rig, "r", 1000));
    assert_true(rig_holds(&rig, "g", 1000));
    assert_false(rig_holds(&rig, "b", 1000));
}

static void a_change_of_a_user_drops_the_timeline(void **state)
{
    (void)state;
    start(&a, "fanout-1");
    UNTIL(&rig, node_is_ready, &a);
    make_timeline("ann");
    make_timeline("bob");
    ts_t t = rig_touch_user(&rig, "ann");
    progress_reaches(t);
    assert_false(rig_exists(&rig, "ann"));
    assert_true(rig_exists(&rig, "bob"));
    make_timeline("ann");
    progress_reaches(rig_now(&rig));
    assert_true(rig_exists(&rig, "ann"));
}

static void a_removal_that_meets_a_timeline_being_built_takes_its_token(void **state)
{
    (void)state;
    start(&a, "fanout-1");
    UNTIL(&rig, node_is_ready, &a);
    rig_edge(&rig, "ann", "t:sport");
    rig_publish(&rig, 1000, "daily", "sport");
    assert_true(rig_build(&rig, "ann", rig_now(&rig)) != 0);
    progress_reaches(rig_edit_topics(&rig, 1000, "sport", "chess"));
    assert_false(rig_finish(&rig, "ann"));
    assert_false(rig_exists(&rig, "ann"));
}

static void full_timelines_are_trimmed_and_their_floor_rises(void **state)
{
    (void)state;
    node_start(&a, &rig, "fanout-1", 5000, 8);
    UNTIL(&rig, node_is_ready, &a);
    rig_edge(&rig, "ann", "p:daily");
    make_timeline("ann");
    ts_t t = 0;
    for (item_id id = 1; id <= 50; id++)
        t = rig_publish(&rig, id, "daily", "");
    progress_reaches(t);
    struct rig_keys k = rig_keys("ann");
    redisReply *r = rig_command(&rig, "ZSCORE", k.tl, "f");
    long floor = -strtol(r->str, NULL, 10);
    freeReplyObject(r);
    assert_true(rig_count(&rig, "ann") <= 8 + 3);
    assert_true(floor > 0 && floor <= 50 - 8);
    for (item_id id = (item_id)floor + 1; id <= 50; id++)
        assert_true(rig_holds(&rig, "ann", id));
}

static void progress_passes_a_lone_publish(void **state)
{
    (void)state;
    start(&a, "fanout-1");
    UNTIL(&rig, node_is_ready, &a);
    for (item_id id = 1; id <= 5; id++)
        progress_reaches(rig_publish(&rig, id, "nobody-follows", ""));
}

static void what_was_published_while_no_fanout_ran_is_applied_afterwards(void **state)
{
    (void)state;
    start(&a, "fanout-1");
    UNTIL(&rig, node_is_ready, &a);
    rig_edge(&rig, "ann", "p:daily");
    rig_edge(&rig, "bob", "p:daily");
    make_timeline("ann");
    make_timeline("bob");
    progress_reaches(rig_publish(&rig, 1, "daily", ""));
    node_stop(&a);
    rig_publish(&rig, 2, "daily", "");
    rig_touch_user(&rig, "bob");
    ts_t t = rig_publish(&rig, 3, "daily", "");
    assert_false(rig_holds(&rig, "ann", 3));
    start(&a, "fanout-2");
    progress_reaches(t);
    assert_true(rig_holds(&rig, "ann", 1) && rig_holds(&rig, "ann", 2) && rig_holds(&rig, "ann", 3));
    assert_false(rig_exists(&rig, "bob"));
    assert_string_equal(rig_record(&rig, 77, "epoch"), "0000000000000002");
}

static void after_a_flushall_records_are_made_anew(void **state)
{
    (void)state;
    start(&a, "fanout-1");
    UNTIL(&rig, node_is_ready, &a);
    rig_edge(&rig, "ann", "p:daily");
    make_timeline("ann");
    progress_reaches(rig_publish(&rig, 1, "daily", ""));
    ts_t born = rig_record_ts(&rig, 0, "born");
    freeReplyObject(rig_command(&rig, "FLUSHALL", NULL, NULL));
    ts_t t = rig_publish(&rig, 2, "daily", "");
    progress_reaches(t);
    assert_true(rig_record_ts(&rig, 0, "born") > born);
    assert_false(rig_exists(&rig, "ann"));
    make_timeline("ann");
    progress_reaches(rig_publish(&rig, 3, "daily", ""));
    assert_true(rig_holds(&rig, "ann", 3));
    assert_true(metrics_get(a.metrics, M_REFUSED, 0) > 0);
}

static void an_old_dump_of_redis_is_replayed_exactly(void **state)
{
    (void)state;
    start(&a, "fanout-1");
    UNTIL(&rig, node_is_ready, &a);
    rig_edge(&rig, "ann", "p:daily");
    rig_edge(&rig, "tom", "t:sport");
    rig_edge(&rig, "gone", "p:daily");
    make_timeline("ann");
    make_timeline("tom");
    make_timeline("gone");
    rig_publish(&rig, 1, "daily", "sport");
    progress_reaches(rig_publish(&rig, 2, "daily", "sport"));
    ts_t kept = rig_record_ts(&rig, 0, "born");
    fixture_redis_keep(rig.f);
    rig_publish(&rig, 3, "daily", "");
    rig_touch_user(&rig, "gone");
    progress_reaches(rig_edit_topics(&rig, 1, "sport", "chess"));
    assert_true(rig_holds(&rig, "ann", 3) && !rig_holds(&rig, "tom", 1) && !rig_exists(&rig, "gone"));
    fixture_redis_bring_back(rig.f);
    redis_free(rig.redis);
    rig_open_redis(&rig, rig.f);
    progress_reaches(rig_publish(&rig, 4, "daily", ""));
    assert_true(rig_record_ts(&rig, 0, "born") == kept);
    for (item_id id = 1; id <= 4; id++)
        assert_true(rig_holds(&rig, "ann", id));
    assert_true(rig_holds(&rig, "tom", 2) && !rig_holds(&rig, "tom", 1));
    assert_false(rig_exists(&rig, "gone"));
}

static void redis_killed_and_restarted_is_waited_for(void **state)
{
    (void)state;
    start(&a, "fanout-1");
    UNTIL(&rig, node_is_ready, &a);
    rig_edge(&rig, "ann", "p:daily");
    make_timeline("ann");
    progress_reaches(rig_publish(&rig, 1, "daily", ""));
    server_kill(fixture_redis(rig.f));
    rig_publish(&rig, 2, "daily", "");
    fixture_restart(rig.f, fixture_redis(rig.f));
    redis_free(rig.redis);
    rig_open_redis(&rig, rig.f);
    progress_reaches(rig_publish(&rig, 3, "daily", ""));
    if (rig_exists(
            &rig,
            "ann")) /* the last second of the append-only file may be gone, but nothing out of the middle */
        assert_true(rig_holds(&rig, "ann", 2) && rig_holds(&rig, "ann", 3));
    assert_true(node_look(&a).redis_ok);
}

static void mongod_killed_and_restarted_is_waited_for(void **state)
{
    (void)state;
    start(&a, "fanout-1");
    UNTIL(&rig, node_is_ready, &a);
    rig_edge(&rig, "ann", "p:daily");
    make_timeline("ann");
    progress_reaches(rig_publish(&rig, 1, "daily", ""));
    server_kill(fixture_mongod(rig.f));
    fixture_restart(rig.f, fixture_mongod(rig.f));
    progress_reaches(rig_publish(&rig, 2, "daily", ""));
    assert_true(rig_holds(&rig, "ann", 1) && rig_holds(&rig, "ann", 2));
    UNTIL(&rig, owns_all, &a);
}

static void two_fanouts_share_and_every_follower_is_served_once(void **state)
{
    (void)state;
    char user[32];
    node_start(&a, &rig, "fanout-1", 1000, 120);
    UNTIL(&rig, node_is_ready, &a);
    rig_edges(&rig, "u", 200, "p:daily");
    for (unsigned i = 0; i < 200; i++) {
        snprintf(user, sizeof user, "u%u", i);
        make_timeline(user);
    }
    ts_t t = rig_publish(&rig, 1, "daily", "");
    node_start(&b, &rig, "fanout-2", 1000, 120);
    for (item_id id = 2; id <= 20; id++)
        t = rig_publish(&rig, id, "daily", "");
    UNTIL(&rig, owns_half, &a);
    UNTIL(&rig, owns_half, &b);
    t = rig_publish(&rig, 21, "daily", "");
    progress_reaches(t);
    for (unsigned i = 0; i < 200; i++) {
        snprintf(user, sizeof user, "u%u", i);
        assert_int_equal(rig_count(&rig, user), 22);
    }
    node_stop(&b);
    t = rig_publish(&rig, 22, "daily", "");
    progress_reaches(t);
    UNTIL(&rig, owns_all, &a);
    for (unsigned i = 0; i < 200; i++) {
        snprintf(user, sizeof user, "u%u", i);
        assert_int_equal(rig_count(&rig, user), 23);
    }
}

static bool readers_are_known(void *arg)
{
    struct node *n = arg;
    return metrics_get(n->metrics, M_READERS, 0) > 0;
}

static bool replayed(void *arg)
{
    struct node *n = arg;
    return metrics_get(n->metrics, M_REPLAYS, 0) > 0;
}

static int64_t named(void)
{
    return metrics_get(a.metrics, M_TIMELINES, SCRIPT_DELIVER);
}

static void only_followers_with_a_timeline_are_named_to_redis(void **state)
{
    (void)state;
    start(&a, "fanout-1");
    UNTIL(&rig, node_is_ready, &a);
    rig_edges(&rig, "u", 200, "p:daily");
    make_timeline("u7");
    make_timeline("u77");
    UNTIL(&rig, readers_are_known, &a);
    progress_reaches(rig_publish(&rig, 1, "daily", "")); /* reads the audience */
    int64_t rows = metrics_get(a.metrics, M_AUDIENCE, 0), before = named();
    progress_reaches(rig_publish(&rig, 2, "daily", ""));
    assert_int_equal(named() - before, 2);
    make_timeline("u177"); /* who comes back is on the list at once */
    progress_reaches(rig_publish(&rig, 3, "daily", ""));
    assert_true(rig_holds(&rig, "u7", 3) && rig_holds(&rig, "u77", 3) && rig_holds(&rig, "u177", 3));
    freeReplyObject(rig_command(&rig, "DEL", rig_keys("u77").tl, rig_keys("u77").pf)); /* idle too long */
    progress_reaches(rig_publish(&rig, 4, "daily", ""));
    before = named();
    progress_reaches(rig_publish(&rig, 5, "daily", ""));
    assert_int_equal(named() - before, 2);
    assert_int_equal(metrics_get(a.metrics, M_AUDIENCE, 0), rows); /* nobody asked MongoDB again */
    assert_int_equal(rig_count(&rig, "u177"), 4);                  /* 3 to 5 and the floor */
    assert_false(rig_exists(&rig, "u77"));
}

static void items_that_wait_for_the_same_timelines_are_delivered_together(void **state)
{
    (void)state;
    enum { AUDIENCE = 300, PUBLISHES = 40 };
    char user[32];
    start(&a, "fanout-1");
    UNTIL(&rig, node_is_ready, &a);
    rig_edges(&rig, "u", AUDIENCE, "p:big");
    rig_edge(&rig, "odd", "t:odd");
    for (unsigned i = 0; i < AUDIENCE; i++) {
        snprintf(user, sizeof user, "u%u", i);
        make_timeline(user);
    }
    make_timeline("odd");
    UNTIL(&rig, readers_are_known, &a);
    progress_reaches(rig_publish(&rig, 1, "big", ""));
    ts_t last = 0;
    for (item_id id = 1; id <= PUBLISHES; id++)
        last = rig_publish(&rig, 1000 + id, "big", id % 10 == 0 ? "odd" : "");
    progress_reaches(last);
    assert_true(metrics_get(a.metrics, M_SCRIPTS, SCRIPT_DELIVER_MANY) > 0);
    for (unsigned i = 0; i < AUDIENCE; i += 7) {
        snprintf(user, sizeof user, "u%u", i);
        for (item_id id = 1; id <= PUBLISHES; id++)
            assert_true(rig_holds(&rig, user, 1000 + id));
        assert_int_equal(rig_count(&rig, user), PUBLISHES + 2);
    }
    assert_int_equal(rig_count(&rig, "odd"), PUBLISHES / 10 + 1);
}

static bool has_small(void *arg)
{
    (void)arg;
    return rig_holds(&rig, "one", 5000);
}

static void a_small_publisher_waits_for_no_huge_audience(void **state)
{
    (void)state;
    enum { AUDIENCE = 1500, PUBLISHES = 30 };
    char user[32];
    start(&a, "fanout-1");
    UNTIL(&rig, node_is_ready, &a);
    rig_edges(&rig, "u", AUDIENCE, "p:big");
    rig_edge(&rig, "one", "p:small");
    for (unsigned i = 0; i < AUDIENCE; i++) {
        snprintf(user, sizeof user, "u%u", i);
        make_timeline(user);
    }
    make_timeline("one");
    UNTIL(&rig, readers_are_known, &a);
    progress_reaches(rig_publish(&rig, 99, "big", ""));
    progress_reaches(rig_publish(&rig, 100, "small", ""));
    ts_t last = 0;
    for (item_id id = 1; id <= PUBLISHES; id++)
        last = rig_publish(&rig, 1000 + id, "big", id % 2 ? "odd" : "even"); /* so that each goes by itself */
    rig_publish(&rig, 5000, "small", "");
    UNTIL(&rig, has_small, NULL);
    unsigned without = 0;
    for (unsigned i = 0; i < AUDIENCE; i += 75) {
        snprintf(user, sizeof user, "u%u", i);
        without += !rig_holds(&rig, user, 1000 + PUBLISHES);
        bool newer = true; /* in order: who holds one holds those before it */
        for (item_id id = 1000 + PUBLISHES; id > 1000; id--) {
            bool holds = rig_holds(&rig, user, id);
            assert_true(holds || id == 1000 + PUBLISHES || !newer);
            newer = holds;
        }
    }
    assert_true(without > 0);
    progress_reaches(last);
    assert_true(rig_holds(&rig, "u7", 1000 + PUBLISHES));
}

static void set_mode(const char *target, const char *mode)
{
    bson_t *filter = BCON_NEW("_id", BCON_UTF8(target));
    bson_t *update = BCON_NEW("$set", "{", "mode", BCON_UTF8(mode), "}");
    progress_reaches(rig_update(&rig, COLL_TARGETS, filter, update));
    bson_destroy(filter);
    bson_destroy(update);
}

static bool pulls(const char *user, const char *target)
{
    char entry[TARGET_TEXT_SIZE + 2];
    redisReply *r = rig_command(&rig, "HGET", rig_keys(user).pf, "p");
    snprintf(entry, sizeof entry, "\n%s\n", target);
    bool is = r->str && strstr(r->str, entry);
    freeReplyObject(r);
    return is;
}

static void make_target(const char *target)
{
    bson_t *d = BCON_NEW("_id", BCON_UTF8(target), "mode", "push");
    bson_error_t be;
    if (!mongoc_collection_insert_one(mongo_coll(rig.conn, COLL_TARGETS), d, NULL, NULL, &be))
        fail_msg("%s", be.message);
    bson_destroy(d);
}

static void a_turn_reaches_all_its_followers_timelines_and_no_others(void **state)
{
    (void)state;
    char user[32];
    start(&a, "fanout-1");
    UNTIL(&rig, node_is_ready, &a);
    rig_edges(&rig, "u", 50, "p:big");
    rig_edge(&rig, "other", "p:small");
    make_target("p:big");
    for (unsigned i = 0; i < 50; i += 2) {
        snprintf(user, sizeof user, "u%u", i);
        make_timeline(user);
    }
    make_timeline("other");
    set_mode("p:big", "pull");
    UNTIL(&rig, readers_are_known, &a);
    assert_int_equal(metrics_get(a.metrics, M_PULLED, 0), 1);
    progress_reaches(rig_publish(&rig, 1000, "big", ""));
    for (unsigned i = 0; i < 50; i++) {
        snprintf(user, sizeof user, "u%u", i);
        assert_int_equal(pulls(user, "p:big"), i % 2 == 0);
        assert_int_equal(rig_exists(&rig, user), i % 2 == 0);
        assert_false(rig_holds(&rig, user, 1000));
    }
    assert_false(pulls("other", "p:big"));
    node_stop(&a); /* the next one finds the mode in MongoDB */
    start(&a, "fanout-1");
    UNTIL(&rig, node_is_ready, &a);
    progress_reaches(rig_publish(&rig, 1001, "big", ""));
    assert_false(rig_holds(&rig, "u2", 1001));
    set_mode("p:big", "push");
    progress_reaches(rig_publish(&rig, 1002, "big", ""));
    for (unsigned i = 0; i < 50; i += 2) {
        snprintf(user, sizeof user, "u%u", i);
        assert_false(pulls(user, "p:big"));
        assert_true(rig_holds(&rig, user, 1000) && rig_holds(&rig, user, 1001) &&
                    rig_holds(&rig, user, 1002));
    }
    assert_false(rig_exists(&rig, "u1"));
    assert_int_equal(rig_count(&rig, "other"), 1);
}

static void an_item_of_a_pulled_and_a_pushed_target_goes_to_those_of_the_pushed(void **state)
{
    (void)state;
    start(&a, "fanout-1");
    UNTIL(&rig, node_is_ready, &a);
    make_target("t:big");
    rig_edge(&rig, "ann", "t:big");
    rig_edge(&rig, "bob", "t:small");
    rig_edge(&rig, "eve", "t:big");
    rig_edge(&rig, "eve", "t:small");
    make_timeline("ann");
    make_timeline("bob");
    make_timeline("eve");
    set_mode("t:big", "pull");
    UNTIL(&rig, readers_are_known, &a);
    progress_reaches(rig_publish(&rig, 1000, "daily", "big small"));
    assert_false(rig_holds(&rig, "ann", 1000));
    assert_true(rig_holds(&rig, "bob", 1000) && rig_holds(&rig, "eve", 1000));
    progress_reaches(rig_edit_topics(&rig, 1000, "big small", "big"));
    assert_false(rig_holds(&rig, "bob", 1000));
    assert_true(rig_holds(&rig, "eve", 1000)); /* another of her follows matches */
}

static void who_follows_others_now_is_on_their_lists_and_no_others(void **state)
{
    (void)state;
    start(&a, "fanout-1");
    UNTIL(&rig, node_is_ready, &a);
    rig_edge(&rig, "ann", "p:daily");
    rig_edge(&rig, "bob", "p:daily");
    rig_edge(&rig, "bob", "t:sport");
    make_timeline("ann");
    make_timeline("bob");
    progress_reaches(rig_publish(&rig, 1, "daily", "sport"));
    UNTIL(&rig, readers_are_known, &a);
    progress_reaches(rig_publish(&rig, 2, "daily", "sport")); /* both lists are there */
    rig_unedge(&rig, "ann", "p:daily");
    rig_edge(&rig, "ann", "t:sport");
    rig_touch_user(&rig, "ann");
    make_timeline("ann"); /* whether before fanout hears of it or after */
    rig_publish(&rig, 3, "daily", "");
    progress_reaches(rig_publish(&rig, 4, "weekly", "sport"));
    assert_false(rig_holds(&rig, "ann", 3));
    assert_true(rig_holds(&rig, "ann", 4));
    assert_true(rig_holds(&rig, "bob", 3) && rig_holds(&rig, "bob", 4));
}

/* Another share starts further back: what its log tells of users again is long done for the others. */
static void a_change_of_a_user_told_again_takes_nobody_off_the_lists(void **state)
{
    (void)state;
    start(&a, "fanout-1");
    UNTIL(&rig, node_is_ready, &a);
    rig_edge(&rig, "ann", "p:daily");
    make_timeline("ann");
    progress_reaches(rig_publish(&rig, 1, "daily", ""));
    ts_t t = rig_touch_user(&rig, "ann");
    make_timeline("ann");
    progress_reaches(rig_publish(&rig, 2, "daily", ""));
    char text[TS_TEXT_SIZE], bk[KEY_SIZE];
    struct err e = {0};
    redisReply *r;
    unsigned other = (rig_keys("ann").bucket + SHARE_BUCKETS) % BUCKETS;
    ts_format(t - 1, text);
    keys_bucket_record(bk, other);
    RIG_OK(e, redis_commandf(rig.redis, &r, &e, "HSET", bk, "progress", text, "n", "12345678", NULL));
    freeReplyObject(r);
    UNTIL(&rig, replayed, &a);
    UNTIL(&rig, readers_are_known, &a);
    progress_reaches(rig_publish(&rig, 3, "daily", ""));
    progress_reaches(rig_publish(&rig, 4, "daily", ""));
    assert_true(rig_holds(&rig, "ann", 2) && rig_holds(&rig, "ann", 3) && rig_holds(&rig, "ann", 4));
}

static void a_progress_of_long_ago_is_replayed_and_harms_nothing(void **state)
{
    (void)state;
    start(&a, "fanout-1");
    UNTIL(&rig, node_is_ready, &a);
    rig_edge(&rig, "ann", "p:daily");
    rig_edge(&rig, "bob", "t:sport");
    make_timeline("bob");
    progress_reaches(rig_publish(&rig, 1, "daily", "sport"));
    make_timeline("ann");
    rig_publish(&rig, 2, "daily", "sport");
    progress_reaches(rig_edit_topics(&rig, 1, "sport", "chess"));
    node_stop(&a);
    struct err e = {0};
    redisReply *r;
    for (unsigned i = 0; i < 2; i++) {
        struct rig_keys k = rig_keys(i ? "ann" : "bob");
        char born[TS_TEXT_SIZE];
        snprintf(born, sizeof born, "%s", rig_record(&rig, k.bucket, "born"));
        RIG_OK(e, redis_commandf(rig.redis, &r, &e, "HSET", k.bk, "progress", born, NULL));
        freeReplyObject(r);
    }
    start(&a, "fanout-1");
    progress_reaches(rig_publish(&rig, 3, "daily", ""));
    assert_true(rig_holds(&rig, "ann", 2) && rig_holds(&rig, "ann", 3));
    assert_true(!rig_holds(&rig, "bob", 1) && rig_holds(&rig, "bob", 2) && !rig_holds(&rig, "bob", 3));
}

static void a_collection_dropped_under_the_tail_makes_records_anew(void **state)
{
    (void)state;
    start(&a, "fanout-1");
    UNTIL(&rig, node_is_ready, &a);
    ts_t born = rig_record_ts(&rig, 0, "born");
    bson_error_t be;
    assert_true(mongoc_collection_drop(mongo_coll(rig.conn, COLL_USERS), &be));
    rig_edge(&rig, "ann", "p:daily");
    progress_reaches(rig_now(&rig));
    progress_reaches(rig_publish(&rig, 1, "daily", ""));
    assert_true(rig_record_ts(&rig, 0, "born") > born);
}

static void a_dropped_database_is_begun_again(void **state)
{
    (void)state;
    node_start(&a, &rig, "fanout-1", 1000, 120);
    UNTIL(&rig, node_is_ready, &a);
    make_timeline("ann");
    bson_error_t be;
    mongoc_database_t *d = mongoc_client_get_database(mongo_client(rig.conn), mongo_database(rig.mongo));
    if (!mongoc_database_drop(d, &be))
        fail_msg("drop: %s", be.message);
    mongoc_database_destroy(d);
    ts_t dropped = rig_now(&rig);
    progress_reaches(dropped);
    UNTIL(&rig, owns_all, &a);
    for (unsigned i = 0; i < BUCKETS; i++)
        assert_true(rig_record_ts(&rig, i, "born") >= dropped);
    rig_edge(&rig, "ann", "p:daily");
    make_timeline("ann");
    progress_reaches(rig_publish(&rig, 1, "daily", ""));
    assert_true(rig_holds(&rig, "ann", 1));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, open_rig, close_rig)
    const struct CMUnitTest tests[] = {
        T(one_fanout_owns_all_buckets_and_makes_their_records),
        T(an_item_arrives_in_all_timelines_of_its_followers_and_makes_none),
        T(a_timeline_built_after_the_publish_is_not_given_the_item_again),
        T(edited_topics_move_the_item_and_spare_whom_another_follow_matches),
        T(topic_edits_behind_one_another_end_at_the_last_one),
        T(a_change_of_a_user_drops_the_timeline),
        T(a_removal_that_meets_a_timeline_being_built_takes_its_token),
        T(full_timelines_are_trimmed_and_their_floor_rises),
        T(progress_passes_a_lone_publish),
        T(what_was_published_while_no_fanout_ran_is_applied_afterwards),
        T(after_a_flushall_records_are_made_anew),
        T(an_old_dump_of_redis_is_replayed_exactly),
        T(redis_killed_and_restarted_is_waited_for),
        T(mongod_killed_and_restarted_is_waited_for),
        T(two_fanouts_share_and_every_follower_is_served_once),
        T(only_followers_with_a_timeline_are_named_to_redis),
        T(items_that_wait_for_the_same_timelines_are_delivered_together),
        T(a_small_publisher_waits_for_no_huge_audience),
        T(a_turn_reaches_all_its_followers_timelines_and_no_others),
        T(an_item_of_a_pulled_and_a_pushed_target_goes_to_those_of_the_pushed),
        T(who_follows_others_now_is_on_their_lists_and_no_others),
        T(a_change_of_a_user_told_again_takes_nobody_off_the_lists),
        T(a_progress_of_long_ago_is_replayed_and_harms_nothing),
        T(a_collection_dropped_under_the_tail_makes_records_anew),
        T(a_dropped_database_is_begun_again),
    };
    return cmocka_run_group_tests(tests, fixture_group_setup, fixture_group_teardown);
}
