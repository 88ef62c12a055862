/* Random publishes, edits, deletes, follows and rebuilds, while fanouts come and go, epochs are stolen and
 * Redis loses things: whatever the order, each timeline that counts ends as the truth above its floor.
 * FEEDMILL_SEED repeats one run, FEEDMILL_SEEDS says how many. */
#include "tests/fanout/rig.h"

#include "common/clock.h"
#include "tests/fanout/node.h"

#define USERS      16
#define ITEMS      80
#define PUBLISHERS 3
#define TOPICS     5
#define TARGETS    (PUBLISHERS + TOPICS)
#define ENTRIES    20
#define FIRST_ID   1000
#define STEPS      400

static struct rig rig;
static struct node a, b;
static unsigned long long seed;
static unsigned long long first_seed;

/* The model: what feed-api has acknowledged. */
static struct {
    bool there, deleted;
    unsigned publisher, topics; /* topics: bits */
} items[ITEMS];
static unsigned follows[USERS]; /* bits: publishers, then topics */
static bool redis_lost_all;

static unsigned any(unsigned n)
{
    seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
    return (unsigned)(seed >> 33) % n;
}

/* A quarter of n bits. */
static unsigned few(unsigned n)
{
    unsigned mask = any(1u << n);
    return mask & any(1u << n);
}

static const char *user_name(unsigned u)
{
    static char out[32];
    snprintf(out, sizeof out, "reader%u", u);
    return out;
}

static const char *words(unsigned topics)
{
    static char out[2][64];
    static int which;
    char *s = out[which ^= 1];
    *s = '\0';
    for (unsigned i = 0; i < TOPICS; i++) {
        if (topics & 1u << i)
            snprintf(s + strlen(s), sizeof out[0] - strlen(s), "topic%u ", i);
    }
    return s;
}

static bool matches(unsigned u, unsigned i)
{
    return items[i].there &&
           (follows[u] & 1u << items[i].publisher || (follows[u] >> PUBLISHERS & items[i].topics));
}

/* ---- what callers do ---- */

static void write_item(void)
{
    unsigned i = any(ITEMS), topics = few(TOPICS);
    char publisher[16];
    if (!items[i].there) {
        items[i].there = true;
        items[i].publisher = any(PUBLISHERS);
        items[i].topics = topics;
        snprintf(publisher, sizeof publisher, "pub%u", items[i].publisher);
        rig_publish(&rig, FIRST_ID + i, publisher, words(topics));
    } else if (items[i].deleted) {
        return;
    } else if (any(8) == 0) {
        items[i].deleted = true;
        rig_delete(&rig, FIRST_ID + i, words(items[i].topics));
    } else if (any(4) == 0) {
        rig_edit_title(&rig, FIRST_ID + i, any(2) ? "one" : "two");
    } else if (topics != items[i].topics) {
        rig_edit_topics(&rig, FIRST_ID + i, words(items[i].topics), words(topics));
        items[i].topics = topics;
    }
}

static void set_follow(unsigned u, unsigned target, bool on)
{
    char id[64], name[32];
    snprintf(name, sizeof name, target < PUBLISHERS ? "p:pub%u" : "t:topic%u",
             target < PUBLISHERS ? target : target - PUBLISHERS);
    if (on) {
        rig_edge(&rig, user_name(u), name);
        return;
    }
    snprintf(id, sizeof id, "%s %s", user_name(u), name);
    bson_t *filter = BCON_NEW("_id", BCON_UTF8(id)), opts = BSON_INITIALIZER;
    bson_error_t be;
    mongo_write_opts(rig.conn, &opts);
    if (!mongoc_collection_delete_one(mongo_coll(rig.conn, COLL_FOLLOWS), filter, &opts, NULL, &be))
        fail_msg("unfollow: %s", be.message);
    bson_destroy(&opts);
    bson_destroy(filter);
}

/* Two calls where feed-api makes a transaction: what a delivery between them does goes with the drop. */
static ts_t change_follows(unsigned u)
{
    unsigned now = few(TARGETS);
    for (unsigned i = 0; i < TARGETS; i++) {
        if ((now ^ follows[u]) & 1u << i)
            set_follow(u, i, now & 1u << i);
    }
    follows[u] = now;
    return rig_touch_user(&rig, user_name(u));
}

static void finish(unsigned u, const unsigned *newest, unsigned n, unsigned floor)
{
    struct rig_keys k = rig_keys(user_name(u));
    char text[2 + 2 * ENTRIES][ITEM_ID_TEXT_SIZE + 1];
    const char *argv[10 + 2 * ENTRIES] = {k.tl, k.pf, "token", text[0], text[1], "20", "600000", "", "1", ""};
    snprintf(text[0], sizeof text[0], "%u", floor);
    snprintf(text[1], sizeof text[1], "-%u", floor);
    for (unsigned i = 0; i < n; i++) {
        snprintf(text[2 + 2 * i], sizeof text[0], "-%u", newest[i]);
        snprintf(text[3 + 2 * i], sizeof text[0], "%u", newest[i]);
        argv[10 + 2 * i] = text[2 + 2 * i];
        argv[11 + 2 * i] = text[3 + 2 * i];
    }
    freeReplyObject(rig_script(&rig, SCRIPT_FINISH, 2, 10 + 2 * (int)n, argv));
}

/* A rebuild as feed-api does it; writes may come between its reading and its end. */
static void rebuild(unsigned u, ts_t least)
{
    unsigned newest[ENTRIES], n = 0, floor = 0;
    if (rig_build(&rig, user_name(u), ts_max(least, rig_now(&rig))) == 0)
        return; /* no record: pages come from MongoDB */
    for (unsigned i = ITEMS; i-- > 0 && floor == 0;) {
        if (!matches(u, i) || items[i].deleted)
            continue;
        if (n < ENTRIES)
            newest[n++] = FIRST_ID + i;
        else
            floor = FIRST_ID + i;
    }
    for (unsigned i = any(4); i > 0; i--)
        write_item();
    finish(u, newest, n, floor);
}

/* ---- what goes wrong ---- */

static void command(const char *a1, const char *a2, const char *a3, const char *a4)
{
    struct err e = {0};
    redisReply *r;
    RIG_OK(e, redis_commandf(rig.redis, &r, &e, a1, a2, a3, a4, NULL));
    freeReplyObject(r);
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
    unsigned bucket = keys_bucket(user_name(any(USERS)));
    keys_bucket_record(bk, bucket);
    if (rig_record_ts(&rig, bucket, "epoch") != 0)
        command("HINCRBY", bk, "n", "1");
}

static void start_or_stop(struct node *n)
{
    if (n->engine)
        node_stop(n);
    else
        node_start(n, &rig, n == &a ? "fanout-1" : "fanout-2", 1000, ENTRIES);
}

static void disturb(void)
{
    switch (any(8)) {
    case 0:
    case 1:
        spoil_a_record();
        break;
    case 2:
        steal_a_share();
        break;
    case 3:
        command("SCRIPT", "FLUSH", NULL, NULL);
        break;
    case 4:
        command("CLIENT", "KILL", "TYPE", "normal"); /* but not this connection: it is the one that asks */
        break;
    case 5:
        if (any(4) == 0) {
            command("FLUSHALL", NULL, NULL, NULL);
            redis_lost_all = true;
        }
        break;
    default:
        start_or_stop(any(2) ? &a : &b);
    }
}

/* ---- the end ---- */

/* A timeline counts if it is ready and not older than its record; answers its floor. */
static bool counts(unsigned u, unsigned *floor)
{
    struct rig_keys k = rig_keys(user_name(u));
    if (!rig_exists(&rig, user_name(u)))
        return false;
    redisReply *r = rig_command(&rig, "HGET", k.pf, "r"), *f = rig_command(&rig, "ZSCORE", k.tl, "f"),
               *st = rig_command(&rig, "HGET", k.pf, "st");
    bool ok = strcmp(r->str, rig_record(&rig, k.bucket, "born")) >= 0 && strcmp(st->str, "r") == 0;
    *floor = (unsigned)-strtol(f->str, NULL, 10);
    freeReplyObject(r);
    freeReplyObject(f);
    freeReplyObject(st);
    return ok;
}

static unsigned compare(void)
{
    unsigned compared = 0, floor;
    for (unsigned u = 0; u < USERS; u++) {
        if (!counts(u, &floor))
            continue;
        compared++;
        for (unsigned i = 0; i < ITEMS; i++) {
            if (items[i].deleted || FIRST_ID + i <= floor) /* refused by hydration; read from MongoDB */
                continue;
            if (rig_holds(&rig, user_name(u), FIRST_ID + i) != matches(u, i))
                fail_msg("seed %llu: %s (floor %u) %s item %u", first_seed, user_name(u), floor,
                         matches(u, i) ? "lacks" : "should not hold", FIRST_ID + i);
        }
    }
    return compared;
}

static void one_run(struct fixture *f)
{
    seed = first_seed;
    memset(items, 0, sizeof items);
    memset(follows, 0, sizeof follows);
    redis_lost_all = false;
    rig_open(&rig, f);
    node_start(&a, &rig, "fanout-1", 1000, ENTRIES);
    UNTIL(&rig, node_is_ready, &a);
    for (unsigned u = 0; u < USERS; u++)
        rebuild(u, change_follows(u));
    for (int i = 0; i < STEPS; i++) {
        write_item();
        if (any(8) == 0) {
            unsigned u = any(USERS);
            rebuild(u, change_follows(u));
        }
        if (any(16) == 0)
            rebuild(any(USERS), 0);
        if (any(20) == 0)
            disturb();
    }
    if (!a.engine)
        start_or_stop(&a);
    node_progress_reaches(&rig, rig_now(&rig));
    unsigned compared = compare();
    print_message("seed %llu: %u timelines compared\n", first_seed, compared);
    assert_true(compared == USERS || redis_lost_all);
    node_stop(&a);
    node_stop(&b);
    rig_close(&rig);
}

static void whatever_happens_the_timelines_end_at_the_truth(void **state)
{
    const char *one = getenv("FEEDMILL_SEED"), *many = getenv("FEEDMILL_SEEDS");
    int runs = one ? 1 : many ? atoi(many) : 3;
    first_seed = one ? strtoull(one, NULL, 10) : (unsigned long long)clock_wall_ms();
    for (int i = 0; i < runs; i++, first_seed++)
        one_run(*state);
}

static int stop_all(void **state)
{
    (void)state;
    node_stop(&a);
    node_stop(&b);
    rig_close(&rig);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(whatever_happens_the_timelines_end_at_the_truth, NULL, stop_all),
    };
    return cmocka_run_group_tests(tests, fixture_group_setup, fixture_group_teardown);
}
