/* What can't be applied though all servers are there: five tries, a letter, and all else goes on. Against
 * real servers. */
#include "tests/fanout/rig.h"

#include "fanout/dead_letters.h"
#include "tests/fanout/node.h"

#define TOO_MANY_TOPICS "a b c d e f g h i j k l m n o p q"

static struct rig rig;
static struct node a;

static int open_rig(void **state)
{
    rig_open(&rig, *state);
    return 0;
}

static int close_rig(void **state)
{
    (void)state;
    node_stop(&a);
    rig_close(&rig);
    return 0;
}

static void start(void)
{
    node_start(&a, &rig, "fanout-1", 5000, 120);
    UNTIL(&rig, node_is_ready, &a);
}

static void follow(const char *user, const char *target)
{
    rig_edge(&rig, user, target);
    if (!rig_timeline(&rig, user))
        fail_msg("no timeline for %s", user);
}

/* ---- letters ---- */

/* The letter as feed-api would find it; NULL: there is none. bson_destroy() it. */
static bson_t *letter(const char *id)
{
    bson_t *filter = BCON_NEW("_id", BCON_UTF8(id)), opts = BSON_INITIALIZER, *out = NULL;
    const bson_t *d;
    mongo_conn_deadline(rig.conn, 10000);
    mongo_read_opts(rig.conn, &opts);
    mongoc_cursor_t *cur =
        mongoc_collection_find_with_opts(mongo_coll(rig.conn, COLL_DEAD_LETTERS), filter, &opts, NULL);
    if (mongoc_cursor_next(cur, &d))
        out = bson_copy(d);
    mongoc_cursor_destroy(cur);
    bson_destroy(&opts);
    bson_destroy(filter);
    return out;
}

static int64_t count_letters(const char *state)
{
    bson_t *filter = state ? BCON_NEW("state", BCON_UTF8(state)) : bson_new(), opts = BSON_INITIALIZER;
    bson_error_t be;
    mongo_conn_deadline(rig.conn, 10000);
    mongo_read_opts(rig.conn, &opts);
    int64_t n = mongoc_collection_count_documents(mongo_coll(rig.conn, COLL_DEAD_LETTERS), filter, &opts,
                                                  NULL, NULL, &be);
    bson_destroy(filter);
    bson_destroy(&opts);
    return n;
}

static bool there_is_a_letter(void *arg)
{
    bson_t *d = letter(arg);
    bson_destroy(d);
    return d != NULL;
}

static int64_t number(const bson_t *d, const char *key)
{
    int64_t n = -1;
    (void)mongo_get_i64(d, key, &n);
    return n;
}

static void assert_text(const bson_t *d, const char *key, const char *text)
{
    const char *is = mongo_get_str(d, key, NULL);
    assert_string_equal(is ? is : "(none)", text);
}

/* What all letters have. */
static bson_t *open_letter(const char *id, const char *kind, ts_t t, const char *reason)
{
    char text[TS_TEXT_SIZE];
    bson_t *d = letter(id);
    if (!d)
        fixture_fail(rig.f, "no letter %s", id);
    ts_format(t, text);
    assert_text(d, "kind", kind);
    assert_text(d, "state", "dead");
    assert_text(d, "t", text);
    assert_text(d, "fanout", "fanout-1");
    assert_int_equal(number(d, "tries"), TROUBLE_TRIES);
    assert_int_equal(number(d, "replays"), 0);
    assert_true(number(d, "first_at") > 0 && number(d, "at") >= number(d, "first_at"));
    const char *why = mongo_get_str(d, "reason", NULL);
    if (!why || !strstr(why, reason))
        fail_msg("the reason is %s", why);
    return d;
}

static int64_t tries(enum trouble_kind kind)
{
    return metrics_get(a.metrics, M_TRIES, kind);
}

/* As feed-api does it. */
static ts_t replay_item(item_id id)
{
    bson_t *filter = BCON_NEW("_id", BCON_INT64((int64_t)id));
    bson_t *update = BCON_NEW("$inc", "{", "touches", BCON_INT32(1), "}");
    ts_t t = rig_update(&rig, COLL_ITEMS, filter, update);
    bson_destroy(filter);
    bson_destroy(update);
    return t;
}

static ts_t set_topics(item_id id, const char *topics)
{
    bson_t *filter = BCON_NEW("_id", BCON_INT64((int64_t)id)), update = BSON_INITIALIZER, set;
    BSON_APPEND_DOCUMENT_BEGIN(&update, "$set", &set);
    rig_append_words(&set, "topics", topics);
    bson_append_document_end(&update, &set);
    ts_t t = rig_update(&rig, COLL_ITEMS, filter, &update);
    bson_destroy(filter);
    bson_destroy(&update);
    return t;
}

struct held {
    const char *user;
    item_id id;
};

static bool user_holds(void *arg)
{
    const struct held *h = arg;
    return rig_holds(&rig, h->user, h->id);
}

/* ---- an item ---- */

static void an_item_that_does_not_read_is_a_letter_after_five_tries(void **state)
{
    (void)state;
    start();
    follow("ann", "p:daily");
    follow("bob", "p:weekly");
    ts_t bad = rig_publish(&rig, 1, "daily", TOO_MANY_TOPICS);
    ts_t t = rig_publish(&rig, 2, "weekly", "");
    rig_publish(&rig, 3, "daily", "");
    UNTIL(&rig, user_holds, &((struct held){"bob", 2}));
    UNTIL(&rig, user_holds, &((struct held){"ann", 3}));
    node_progress_reaches(&rig, t);
    bson_t *d = open_letter("item-1", "item", bad, "topics do not read");
    assert_text(d, "publisher", "daily");
    assert_int_equal(number(d, "item"), 1);
    bson_destroy(d);
    assert_int_equal(tries(TROUBLE_READ), TROUBLE_TRIES);
    assert_int_equal(metrics_get(a.metrics, M_LETTERS, 0), 1);
    assert_int_equal(metrics_get(a.metrics, M_ERRORS, ERROR_OF_CORRUPT), 1);
    assert_false(rig_holds(&rig, "ann", 1));
}

static void a_replay_after_mending_delivers_the_item_as_it_is(void **state)
{
    (void)state;
    start();
    follow("ann", "p:daily");
    follow("tom", "t:sport");
    node_progress_reaches(&rig, rig_publish(&rig, 1, "daily", TOO_MANY_TOPICS));
    assert_int_equal(count_letters("dead"), 1);
    set_topics(1, "sport");
    node_progress_reaches(&rig, rig_publish(&rig, 2, "daily", ""));
    assert_false(rig_holds(&rig, "ann", 1)); /* a change of something else than topics asks for nothing */
    node_progress_reaches(&rig, replay_item(1));
    assert_true(rig_holds(&rig, "ann", 1) && rig_holds(&rig, "tom", 1));
    assert_int_equal(count_letters(NULL), 1);
}

static void an_item_mended_between_two_tries_is_delivered_and_no_letter(void **state)
{
    (void)state;
    start();
    follow("ann", "p:daily");
    rig_publish(&rig, 1, "daily", TOO_MANY_TOPICS);
    set_topics(1, "");
    node_progress_reaches(&rig, rig_publish(&rig, 2, "daily", ""));
    assert_true(rig_holds(&rig, "ann", 1) && rig_holds(&rig, "ann", 2));
    assert_int_equal(count_letters(NULL), 0);
}

static void a_replay_of_what_is_still_broken_is_the_same_letter_again(void **state)
{
    (void)state;
    start();
    node_progress_reaches(&rig, rig_publish(&rig, 1, "daily", TOO_MANY_TOPICS));
    bson_t *filter = BCON_NEW("_id", BCON_UTF8("item-1"));
    char now[TS_TEXT_SIZE];
    ts_format(rig_now(&rig), now);
    bson_t *update = BCON_NEW("$set", "{", "state", BCON_UTF8("replayed"), "replayed_t", BCON_UTF8(now), "}",
                              "$inc", "{", "replays", BCON_INT32(1), "}");
    rig_update(&rig, COLL_DEAD_LETTERS, filter, update);
    bson_destroy(filter);
    bson_destroy(update);
    ts_t again = replay_item(1);
    node_progress_reaches(&rig, again);
    bson_t *d = letter("item-1");
    char text[TS_TEXT_SIZE];
    ts_format(again, text);
    assert_text(d, "state", "dead");
    assert_text(d, "t", text);
    assert_int_equal(number(d, "replays"), 1);
    bson_destroy(d);
    assert_int_equal(count_letters(NULL), 1);
}

/* ---- a task ---- */

static void drop_index(void)
{
    bson_error_t be;
    if (!mongoc_collection_drop_index(mongo_coll(rig.conn, COLL_FOLLOWS), "audience", &be))
        fail_msg("index: %s", be.message);
}

static void followers_that_can_not_be_read_are_a_letter_and_progress_goes_on(void **state)
{
    (void)state;
    struct err e = {0};
    start();
    follow("ann", "p:daily");
    drop_index();
    ts_t t = rig_publish(&rig, 1, "daily", "sport");
    rig_touch_user(&rig, "ann");
    node_progress_reaches(&rig, rig_publish(&rig, 2, "weekly", ""));
    assert_false(rig_exists(&rig, "ann")); /* the change of the user was applied */
    bson_t *d = open_letter("item-1", "item", t, "MongoDB");
    assert_text(d, "publisher", "daily");
    bson_destroy(d);
    assert_true(tries(TROUBLE_TASK) >= TROUBLE_TRIES);
    mongo_conn_deadline(rig.conn, 10000);
    RIG_OK(e, mongo_schema_ensure(rig.conn, &e));
    assert_true(rig_timeline(&rig, "ann"));
    node_progress_reaches(&rig, replay_item(1));
    assert_true(rig_holds(&rig, "ann", 1));
}

/* ---- a timeline ---- */

static void a_timeline_of_another_type_is_a_letter_and_all_others_get_the_item(void **state)
{
    (void)state;
    char user[32];
    start();
    rig_edges(&rig, "u", 50, "p:daily");
    for (unsigned i = 0; i < 50; i++) {
        snprintf(user, sizeof user, "u%u", i);
        assert_true(rig_timeline(&rig, user));
    }
    node_progress_reaches(&rig, rig_publish(&rig, 1, "daily", "")); /* they are known */
    struct rig_keys k = rig_keys("u7");
    freeReplyObject(rig_command(&rig, "SET", k.tl, "surprise"));
    ts_t bad = rig_publish(&rig, 2, "daily", "");
    node_progress_reaches(&rig, rig_publish(&rig, 3, "weekly", ""));
    for (unsigned i = 0; i < 50; i++) {
        snprintf(user, sizeof user, "u%u", i);
        if (i != 7)
            assert_true(rig_holds(&rig, user, 2));
    }
    bson_t *d = open_letter("timeline-2-u7", "timeline", bad, "WRONGTYPE");
    assert_text(d, "user", "u7");
    assert_int_equal(number(d, "bucket"), k.bucket);
    bson_destroy(d);
    assert_int_equal(tries(TROUBLE_TIMELINE), TROUBLE_TRIES);
    assert_int_equal(metrics_get(a.metrics, M_REPLAYS, 0), 0); /* nothing was begun again for it */
    assert_false(rig_exists(&rig, "u7"));                      /* absent: the next page is rebuilt */
    assert_true(rig_timeline(&rig, "u7"));
    node_progress_reaches(&rig, rig_publish(&rig, 4, "daily", ""));
    assert_true(rig_holds(&rig, "u7", 4));
    assert_int_equal(count_letters("dead"), 1);
}

static bool tried(void *arg)
{
    struct node *n = arg;
    return metrics_get(n->metrics, M_TRIES, TROUBLE_TIMELINE) > 0;
}

static void a_timeline_mended_between_two_tries_gets_the_item(void **state)
{
    (void)state;
    start();
    follow("ann", "p:daily");
    struct rig_keys k = rig_keys("ann");
    freeReplyObject(rig_command(&rig, "RENAME", k.tl, "aside"));
    freeReplyObject(rig_command(&rig, "SET", k.tl, "surprise"));
    ts_t t = rig_publish(&rig, 1, "daily", "");
    UNTIL(&rig, tried, &a);
    freeReplyObject(rig_command(&rig, "RENAME", "aside", k.tl));
    node_progress_reaches(&rig, t);
    if (count_letters(NULL) == 0) /* else this machine stood still for longer than all tries take */
        assert_true(rig_holds(&rig, "ann", 1));
}

/* A turn can't be done again for one of them; a timeline that is absent has made every turn. */
static void a_turn_drops_the_timeline_of_another_type_and_no_letter(void **state)
{
    (void)state;
    start();
    follow("ann", "p:daily");
    follow("bob", "p:daily");
    node_progress_reaches(&rig, rig_publish(&rig, 1, "daily", ""));
    struct rig_keys k = rig_keys("ann");
    freeReplyObject(rig_command(&rig, "DEL", k.pf, NULL));
    freeReplyObject(rig_command(&rig, "SET", k.pf, "surprise"));
    bson_t *filter = BCON_NEW("_id", BCON_UTF8("p:daily"));
    bson_t *update = BCON_NEW("$set", "{", "mode", BCON_UTF8("pull"), "}");
    ts_t t = rig_update(&rig, COLL_TARGETS, filter, update);
    bson_destroy(update);
    bson_destroy(filter);
    node_progress_reaches(&rig, t);
    assert_true(tries(TROUBLE_TIMELINE) >= 1);
    redisReply *r = rig_command(&rig, "EXISTS", k.tl, k.pf);
    assert_int_equal(r->integer, 0);
    freeReplyObject(r);
    r = rig_command(&rig, "HGET", rig_keys("bob").pf, "p");
    assert_string_equal(r->type == REDIS_REPLY_STRING ? r->str : "", "\np:daily\n");
    freeReplyObject(r);
    assert_int_equal(count_letters(NULL), 0);
}

/* ---- a whole call ---- */

static void allow_zadd(bool yes)
{
    struct err e = {0};
    redisReply *r;
    RIG_OK(e, redis_commandf(rig.redis, &r, &e, "ACL", "SETUSER", "default", yes ? "+zadd" : "-zadd", NULL));
    freeReplyObject(r);
}

static void a_call_that_fails_as_a_whole_is_a_letter_and_its_buckets_start_anew(void **state)
{
    (void)state;
    start();
    follow("ann", "p:daily");
    node_progress_reaches(&rig, rig_publish(&rig, 1, "daily", ""));
    unsigned bucket = rig_keys("ann").bucket;
    ts_t born = rig_record_ts(&rig, bucket, "born");
    allow_zadd(false);
    ts_t bad = rig_publish(&rig, 2, "daily", "");
    node_progress_reaches(&rig, bad);
    allow_zadd(true);
    UNTIL(&rig, there_is_a_letter, "item-2");
    bson_destroy(open_letter("item-2", "item", bad, "redis"));
    assert_int_equal(tries(TROUBLE_CALL), TROUBLE_TRIES);
    assert_true(rig_record_ts(&rig, bucket, "born") > born);
    freeReplyObject(rig_command(&rig, "DEL", rig_keys("ann").tl, rig_keys("ann").pf));
    assert_true(rig_timeline(&rig, "ann"));
    node_progress_reaches(&rig, replay_item(2));
    assert_true(rig_holds(&rig, "ann", 2));
}

static bool is_a_hash(void *arg)
{
    redisReply *r = rig_command(&rig, "TYPE", arg, NULL);
    bool yes = strcmp(r->str, "hash") == 0;
    freeReplyObject(r);
    return yes;
}

static void a_record_of_another_type_is_made_anew(void **state)
{
    (void)state;
    start();
    follow("ann", "p:daily");
    struct rig_keys k = rig_keys("ann");
    freeReplyObject(rig_command(&rig, "SET", k.bk, "surprise"));
    rig_publish(&rig, 1, "daily", "");
    UNTIL(&rig, is_a_hash, k.bk);
    node_progress_reaches(&rig, rig_publish(&rig, 2, "weekly", ""));
    freeReplyObject(rig_command(&rig, "DEL", k.tl, k.pf));
    assert_true(rig_timeline(&rig, "ann"));
    node_progress_reaches(&rig, rig_publish(&rig, 3, "daily", ""));
    assert_true(rig_holds(&rig, "ann", 3));
}

/* ---- no try ---- */

struct errors {
    enum metric_error of;
    int64_t n;
};

static bool failed_often(void *arg)
{
    const struct errors *w = arg;
    return metrics_get(a.metrics, M_ERRORS, w->of) >= w->n;
}

static void a_server_that_is_away_is_no_try(void **state)
{
    (void)state;
    start();
    follow("ann", "p:daily");
    node_progress_reaches(&rig, rig_publish(&rig, 1, "daily", ""));
    server_kill(fixture_redis(rig.f));
    rig_publish(&rig, 2, "daily", "");
    UNTIL(&rig, failed_often, &((struct errors){ERROR_OF_REDIS, 2 * TROUBLE_TRIES}));
    fixture_restart(rig.f, fixture_redis(rig.f));
    redis_free(rig.redis);
    rig_open_redis(&rig, rig.f);
    node_progress_reaches(&rig, rig_publish(&rig, 3, "daily", ""));
    server_kill(fixture_mongod(rig.f));
    UNTIL(&rig, failed_often, &((struct errors){ERROR_OF_MONGODB, 2}));
    fixture_restart(rig.f, fixture_mongod(rig.f));
    node_progress_reaches(&rig, rig_publish(&rig, 4, "daily", ""));
    if (rig_exists(&rig, "ann"))
        assert_true(rig_holds(&rig, "ann", 2) && rig_holds(&rig, "ann", 3) && rig_holds(&rig, "ann", 4));
    for (enum trouble_kind k = TROUBLE_READ; k <= TROUBLE_CALL; k++)
        assert_int_equal(tries(k), 0);
    assert_int_equal(count_letters(NULL), 0);
}

/* ---- the collection ---- */

static void write_letter(struct trouble *x, unsigned *lost)
{
    struct err e = {0};
    mongo_conn_deadline(rig.conn, 10000);
    RIG_OK(e, dead_letters_write(rig.conn, x, "$fanout", lost, &e));
}

static void a_late_failure_does_not_open_a_letter_replayed_since(void **state)
{
    (void)state;
    unsigned lost;
    struct trouble x = {.kind = TROUBLE_READ, .tries = 5, .about = {.t = ts_make(5, 1), .item = 1}};
    strcpy(x.about.why, "$reason \xc3"); /* cut within a character, and like a field's name */
    write_letter(&x, &lost);
    bson_t *d = letter("item-1");
    assert_text(d, "reason", "$reason ");
    assert_text(d, "fanout", "$fanout");
    bson_destroy(d);
    bson_t *filter = BCON_NEW("_id", BCON_UTF8("item-1"));
    bson_t *update = BCON_NEW("$set", "{", "state", BCON_UTF8("replayed"), "replayed_t",
                              BCON_UTF8("0000000600000001"), "}");
    rig_update(&rig, COLL_DEAD_LETTERS, filter, update);
    bson_destroy(update);
    bson_destroy(filter);
    write_letter(&x, &lost);
    assert_int_equal(count_letters("dead"), 0);
    x.about.t = ts_make(6, 2);
    write_letter(&x, &lost);
    assert_int_equal(count_letters("dead"), 1);
    assert_int_equal(count_letters(NULL), 1);
}

static void p11_the_oldest_letters_make_room(void **state)
{
    (void)state;
    bson_error_t be;
    unsigned lost;
    char id[32];
    for (int from = 0; from < DEAD_LETTERS_MAX; from += 1000) {
        mongoc_bulk_operation_t *bulk =
            mongoc_collection_create_bulk_operation_with_opts(mongo_coll(rig.conn, COLL_DEAD_LETTERS), NULL);
        for (int i = from; i < from + 1000; i++) {
            snprintf(id, sizeof id, "item-%d", i + 100);
            bson_t *d = BCON_NEW("_id", BCON_UTF8(id), "state", BCON_UTF8("dead"), "at", BCON_DATE_TIME(i));
            mongoc_bulk_operation_insert(bulk, d);
            bson_destroy(d);
        }
        if (!mongoc_bulk_operation_execute(bulk, NULL, &be))
            fail_msg("letters: %s", be.message);
        mongoc_bulk_operation_destroy(bulk);
    }
    struct trouble x = {.kind = TROUBLE_TIMELINE, .tries = 5, .about = {.t = 5, .item = 1, .user = "ann"}};
    write_letter(&x, &lost);
    assert_int_equal(lost, 1);
    assert_int_equal(count_letters(NULL), DEAD_LETTERS_MAX);
    bson_t *gone = letter("item-100"), *second = letter("item-101"), *mine = letter("timeline-1-ann");
    assert_true(gone == NULL && second != NULL && mine != NULL);
    bson_destroy(second);
    bson_destroy(mine);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, open_rig, close_rig)
    const struct CMUnitTest tests[] = {
        T(an_item_that_does_not_read_is_a_letter_after_five_tries),
        T(a_replay_after_mending_delivers_the_item_as_it_is),
        T(an_item_mended_between_two_tries_is_delivered_and_no_letter),
        T(a_replay_of_what_is_still_broken_is_the_same_letter_again),
        T(followers_that_can_not_be_read_are_a_letter_and_progress_goes_on),
        T(a_timeline_of_another_type_is_a_letter_and_all_others_get_the_item),
        T(a_timeline_mended_between_two_tries_gets_the_item),
        T(a_turn_drops_the_timeline_of_another_type_and_no_letter),
        T(a_call_that_fails_as_a_whole_is_a_letter_and_its_buckets_start_anew),
        T(a_record_of_another_type_is_made_anew),
        T(a_server_that_is_away_is_no_try),
        T(a_late_failure_does_not_open_a_letter_replayed_since),
        T(p11_the_oldest_letters_make_room),
    };
    return cmocka_run_group_tests(tests, fixture_group_setup, fixture_group_teardown);
}
