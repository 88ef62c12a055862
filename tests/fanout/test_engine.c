/* The engine against real servers: what feed-api would write goes into MongoDB, what readers would find is
 * looked up in Redis. */
#include "tests/fanout/rig.h"

#include "common/changes.h"
#include "common/clock.h"
#include "fanout/engine.h"

#define DEADLINE_MS 20000

static struct rig rig;

/* One fanout inside this process. */
struct node {
    const char *name;
    struct metrics *metrics;
    struct mongo *mongo;
    struct shares *shares;
    struct engine *engine;
    struct heartbeat *heartbeat;
};

static void start_as(struct node *n, const char *name, int64_t lease_ms, int64_t entries)
{
    struct err e = {0};
    n->name = name;
    n->metrics = fanout_metrics_new();
    struct mongo_options mo = {.uri = fixture_mongodb_uri(rig.f), .app_name = name, .pool_size = 8};
    RIG_OK(e, mongo_new(&n->mongo, &mo, &e));
    struct shares_options so = {.mongo = n->mongo, .name = name, .lease_ms = lease_ms, .metrics = n->metrics};
    n->shares = shares_new(&so);
    struct engine_options eo = {
        .mongo = n->mongo,
        .redis_timeout_ms = 2000,
        .shares = n->shares,
        .name = name,
        .metrics = n->metrics,
        .timeline_entries = entries,
        .batch_keys = 7,
        .audience_batch = 11,
        .pipeline_calls = 3,
        .drain_ms = 3000,
    };
    RIG_OK(e, redis_address_parse(fixture_redis_address(rig.f), &eo.redis, &e));
    n->engine = engine_new(&eo);
    RIG_OK(e, heartbeat_start(&n->heartbeat, n->mongo, name, &e));
    RIG_OK(e, shares_start(n->shares, &e));
    RIG_OK(e, engine_start(n->engine, &e));
}

static void start(struct node *n, const char *name)
{
    start_as(n, name, 5000, 120);
}

/* Ends in order: drains, releases the shares. */
static void stop(struct node *n)
{
    if (!n->engine)
        return;
    engine_stop(n->engine);
    engine_join(n->engine);
    engine_free(n->engine);
    shares_free(n->shares);
    heartbeat_stop(n->heartbeat);
    mongo_free(n->mongo);
    metrics_free(n->metrics);
    memset(n, 0, sizeof *n);
}

static struct engine_status look(struct node *n)
{
    struct engine_status s;
    engine_status(n->engine, &s);
    return s;
}

static bool is_ready(void *arg)
{
    return look(arg).ready;
}

static bool owns_half(void *arg)
{
    struct engine_status s = look(arg);
    return s.buckets == BUCKETS / 2 && s.fair == SHARES / 2;
}

static bool owns_all(void *arg)
{
    return look(arg).buckets == BUCKETS;
}

#define UNTIL(check, arg)                                                                                    \
    do {                                                                                                     \
        if (!fixture_until((check), (arg), DEADLINE_MS))                                                     \
            fixture_fail(rig.f, "%s did not come true", #check);                                             \
    } while (0)

static ts_t wanted;

/* Every bucket's record says that everything up to `wanted` is applied. */
static bool all_progressed(void *arg)
{
    (void)arg;
    for (unsigned b = 0; b < BUCKETS; b += 5) {
        if (rig_record_ts(&rig, b, "progress") < wanted)
            return false;
    }
    return true;
}

static void progress_reaches(ts_t t)
{
    wanted = t;
    UNTIL(all_progressed, NULL);
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
    stop(&a);
    stop(&b);
    rig_close(&rig);
    return 0;
}

static void one_fanout_owns_all_buckets_and_makes_their_records(void **state)
{
    (void)state;
    start(&a, "fanout-1");
    UNTIL(is_ready, &a);
    struct engine_status s = look(&a);
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
    UNTIL(is_ready, &a);
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
    UNTIL(is_ready, &a);
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
    UNTIL(is_ready, &a);
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
    UNTIL(is_ready, &a);
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
    UNTIL(is_ready, &a);
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
    UNTIL(is_ready, &a);
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
    start_as(&a, "fanout-1", 5000, 8);
    UNTIL(is_ready, &a);
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
    UNTIL(is_ready, &a);
    for (item_id id = 1; id <= 5; id++)
        progress_reaches(rig_publish(&rig, id, "nobody-follows", ""));
}

static void what_was_published_while_no_fanout_ran_is_applied_afterwards(void **state)
{
    (void)state;
    start(&a, "fanout-1");
    UNTIL(is_ready, &a);
    rig_edge(&rig, "ann", "p:daily");
    rig_edge(&rig, "bob", "p:daily");
    make_timeline("ann");
    make_timeline("bob");
    progress_reaches(rig_publish(&rig, 1, "daily", ""));
    stop(&a);
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
    UNTIL(is_ready, &a);
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
    UNTIL(is_ready, &a);
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
    UNTIL(is_ready, &a);
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
    assert_true(look(&a).redis_ok);
}

static void mongod_killed_and_restarted_is_waited_for(void **state)
{
    (void)state;
    start(&a, "fanout-1");
    UNTIL(is_ready, &a);
    rig_edge(&rig, "ann", "p:daily");
    make_timeline("ann");
    progress_reaches(rig_publish(&rig, 1, "daily", ""));
    server_kill(fixture_mongod(rig.f));
    fixture_restart(rig.f, fixture_mongod(rig.f));
    progress_reaches(rig_publish(&rig, 2, "daily", ""));
    assert_true(rig_holds(&rig, "ann", 1) && rig_holds(&rig, "ann", 2));
    UNTIL(owns_all, &a);
}

static void two_fanouts_share_and_every_follower_is_served_once(void **state)
{
    (void)state;
    char user[32];
    start_as(&a, "fanout-1", 1000, 120);
    UNTIL(is_ready, &a);
    rig_edges(&rig, "u", 200, "p:daily");
    for (unsigned i = 0; i < 200; i++) {
        snprintf(user, sizeof user, "u%u", i);
        make_timeline(user);
    }
    ts_t t = rig_publish(&rig, 1, "daily", "");
    start_as(&b, "fanout-2", 1000, 120);
    for (item_id id = 2; id <= 20; id++)
        t = rig_publish(&rig, id, "daily", "");
    UNTIL(owns_half, &a);
    UNTIL(owns_half, &b);
    t = rig_publish(&rig, 21, "daily", "");
    progress_reaches(t);
    for (unsigned i = 0; i < 200; i++) {
        snprintf(user, sizeof user, "u%u", i);
        assert_int_equal(rig_count(&rig, user), 22);
    }
    stop(&b);
    t = rig_publish(&rig, 22, "daily", "");
    progress_reaches(t);
    UNTIL(owns_all, &a);
    for (unsigned i = 0; i < 200; i++) {
        snprintf(user, sizeof user, "u%u", i);
        assert_int_equal(rig_count(&rig, user), 23);
    }
}

static void a_key_of_another_type_makes_its_share_start_anew_and_stops_nothing(void **state)
{
    (void)state;
    start(&a, "fanout-1");
    UNTIL(is_ready, &a);
    rig_edge(&rig, "ann", "p:daily");
    rig_edge(&rig, "bob", "p:daily");
    make_timeline("bob");
    struct rig_keys k = rig_keys("ann");
    freeReplyObject(rig_command(&rig, "SET", k.tl, "surprise"));
    progress_reaches(rig_publish(&rig, 1, "daily", ""));
    progress_reaches(rig_publish(&rig, 2, "weekly", ""));
    assert_true(rig_record_ts(&rig, k.bucket, "born") >
                rig_record_ts(&rig, (k.bucket + SHARE_BUCKETS) % BUCKETS, "born"));
}

static void an_item_that_does_not_read_is_passed_over(void **state)
{
    (void)state;
    start(&a, "fanout-1");
    UNTIL(is_ready, &a);
    rig_edge(&rig, "ann", "p:daily");
    make_timeline("ann");
    rig_publish(&rig, 1, "daily", "a b c d e f g h i j k l m n o p q");
    progress_reaches(rig_publish(&rig, 2, "daily", ""));
    assert_true(rig_holds(&rig, "ann", 2));
    assert_int_equal(metrics_get(a.metrics, M_ERRORS, ERROR_OF_CORRUPT), 1);
}

static void a_progress_of_long_ago_is_replayed_and_harms_nothing(void **state)
{
    (void)state;
    start(&a, "fanout-1");
    UNTIL(is_ready, &a);
    rig_edge(&rig, "ann", "p:daily");
    rig_edge(&rig, "bob", "t:sport");
    make_timeline("bob");
    progress_reaches(rig_publish(&rig, 1, "daily", "sport"));
    make_timeline("ann");
    rig_publish(&rig, 2, "daily", "sport");
    progress_reaches(rig_edit_topics(&rig, 1, "sport", "chess"));
    stop(&a);
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
    UNTIL(is_ready, &a);
    ts_t born = rig_record_ts(&rig, 0, "born");
    bson_error_t be;
    assert_true(mongoc_collection_drop(mongo_coll(rig.conn, COLL_USERS), &be));
    rig_edge(&rig, "ann", "p:daily");
    progress_reaches(rig_now(&rig));
    progress_reaches(rig_publish(&rig, 1, "daily", ""));
    assert_true(rig_record_ts(&rig, 0, "born") > born);
}

/* ---- anything, in any order ---- */

#define CHAOS_USERS  24
#define CHAOS_ITEMS  60
#define CHAOS_TOPICS 5

static struct {
    bool there, deleted;
    unsigned publisher, topics; /* topics: bits */
} items[CHAOS_ITEMS];

static unsigned follows[CHAOS_USERS]; /* bits: three publishers, then topics */
static unsigned long long seed;

static unsigned any(unsigned n)
{
    seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
    return (unsigned)(seed >> 33) % n;
}

static const char *words(unsigned topics)
{
    static char out[2][64];
    static int which;
    char *s = out[which ^= 1];
    *s = '\0';
    for (unsigned i = 0; i < CHAOS_TOPICS; i++) {
        if (topics & 1u << i)
            snprintf(s + strlen(s), sizeof out[0] - strlen(s), "topic%u ", i);
    }
    return s;
}

static const char *chaos_user(unsigned u)
{
    static char out[32];
    snprintf(out, sizeof out, "chaos%u", u);
    return out;
}

static void chaos_readers(void)
{
    char target[32];
    for (unsigned u = 0; u < CHAOS_USERS; u++) {
        follows[u] = any(1u << (3 + CHAOS_TOPICS)) & any(1u << (3 + CHAOS_TOPICS));
        for (unsigned i = 0; i < 3 + CHAOS_TOPICS; i++) {
            snprintf(target, sizeof target, i < 3 ? "p:pub%u" : "t:topic%u", i < 3 ? i : i - 3);
            if (follows[u] & 1u << i)
                rig_edge(&rig, chaos_user(u), target);
        }
        make_timeline(chaos_user(u));
    }
}

static ts_t chaos_write(void)
{
    unsigned i = any(CHAOS_ITEMS), topics = any(1u << CHAOS_TOPICS);
    char publisher[16];
    if (!items[i].there) {
        items[i].there = true;
        items[i].publisher = any(3);
        items[i].topics = topics;
        snprintf(publisher, sizeof publisher, "pub%u", items[i].publisher);
        return rig_publish(&rig, 1000 + i, publisher, words(topics));
    }
    if (items[i].deleted)
        return 0;
    if (any(6) == 0) {
        items[i].deleted = true;
        return rig_delete(&rig, 1000 + i, words(items[i].topics));
    }
    if (any(4) == 0)
        return rig_edit_title(&rig, 1000 + i, any(2) ? "one" : "two");
    if (topics == items[i].topics)
        return 0;
    ts_t t = rig_edit_topics(&rig, 1000 + i, words(items[i].topics), words(topics));
    items[i].topics = topics;
    return t;
}

static void steal_a_share(void)
{
    bson_t *filter = BCON_NEW("_id", BCON_INT32((int32_t)any(SHARES)));
    bson_t *update = BCON_NEW("$set", "{", "owner", BCON_UTF8("thief"), "expires", BCON_DATE_TIME(0), "}",
                              "$inc", "{", "epoch", BCON_INT64(1), "}");
    rig_update(&rig, COLL_SHARES, filter, update);
    bson_destroy(filter);
    bson_destroy(update);
}

static void spoil_a_record(void)
{
    char bk[KEY_SIZE];
    struct err e = {0};
    redisReply *r;
    keys_bucket_record(bk, any(BUCKETS));
    if (rig_record_ts(&rig, 0, "epoch") == 0)
        return;
    RIG_OK(e, redis_commandf(rig.redis, &r, &e, "HINCRBY", bk, "n", "1", NULL));
    freeReplyObject(r);
}

static void kill_clients(void)
{
    struct err e = {0};
    redisReply *r;
    RIG_OK(e, redis_commandf(rig.redis, &r, &e, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes", NULL));
    freeReplyObject(r);
}

static void disturb(void)
{
    struct node *n = any(2) ? &a : &b;
    switch (any(6)) {
    case 0:
        spoil_a_record();
        break;
    case 1:
        steal_a_share();
        break;
    case 2:
        freeReplyObject(rig_command(&rig, "SCRIPT", "FLUSH", NULL));
        break;
    case 3:
        kill_clients();
        break;
    default:
        if (n->engine)
            stop(n);
        else
            start_as(n, n == &a ? "fanout-1" : "fanout-2", 1000, 120);
    }
}

static bool chaos_matches(unsigned u, unsigned i)
{
    return follows[u] & 1u << items[i].publisher || (follows[u] >> 3 & items[i].topics);
}

static void compare(unsigned long long first_seed)
{
    for (unsigned u = 0; u < CHAOS_USERS; u++) {
        if (!rig_exists(&rig, chaos_user(u)))
            fail_msg("seed %llu: the timeline of %s is gone", first_seed, chaos_user(u));
        for (unsigned i = 0; i < CHAOS_ITEMS; i++) {
            if (items[i].deleted) /* refused when it is hydrated, wherever its id stands */
                continue;
            bool expected = items[i].there && chaos_matches(u, i);
            if (rig_holds(&rig, chaos_user(u), 1000 + i) != expected)
                fail_msg("seed %llu: %s %s item %u", first_seed, chaos_user(u),
                         expected ? "lacks" : "should not hold", i);
        }
    }
}

static void whatever_happens_in_between_the_timelines_end_at_the_truth(void **state)
{
    (void)state;
    const char *given = getenv("FEEDMILL_SEED");
    unsigned long long first_seed = given ? strtoull(given, NULL, 10) : (unsigned long long)clock_wall_ms();
    seed = first_seed;
    print_message("seed %llu\n", first_seed);
    memset(items, 0, sizeof items);
    start_as(&a, "fanout-1", 1000, 120);
    UNTIL(is_ready, &a);
    chaos_readers();
    ts_t t = 0;
    for (int i = 0; i < 400; i++) {
        t = ts_max(t, chaos_write());
        if (i % 20 == 19)
            disturb();
    }
    if (!a.engine)
        start_as(&a, "fanout-1", 1000, 120);
    progress_reaches(t);
    compare(first_seed);
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
        T(a_key_of_another_type_makes_its_share_start_anew_and_stops_nothing),
        T(an_item_that_does_not_read_is_passed_over),
        T(a_progress_of_long_ago_is_replayed_and_harms_nothing),
        T(a_collection_dropped_under_the_tail_makes_records_anew),
        T(whatever_happens_in_between_the_timelines_end_at_the_truth),
    };
    return cmocka_run_group_tests(tests, fixture_group_setup, fixture_group_teardown);
}
