#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/buf.h"
#include "common/changes.h"
#include "common/clock.h"
#include "common/mem.h"
#include "common/mongo.h"
#include "tests/support/fixture.h"

#define ALL                                                                                                  \
    (1u << CHANGE_ITEM | 1u << CHANGE_USER | 1u << CHANGE_TARGET | 1u << CHANGE_API_KEY |                    \
     1u << CHANGE_TOKEN_END)

struct world {
    struct fixture *fixture;
    struct mongo *mongo;
    struct mongo_conn *conn; /* writes */
    struct changes *tail;
    struct heartbeat *heartbeat;
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
    w->tail = NULL;
    w->heartbeat = NULL;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    heartbeat_stop(w->heartbeat);
    changes_close(w->tail);
    mongo_conn_put(w->conn);
    mongo_free(w->mongo);
    return 0;
}

static int try_open(struct world *w, unsigned kinds, ts_t start, struct err *e)
{
    struct changes_options o = {.mongo = w->mongo, .instance = "tail", .kinds = kinds, .start = start};
    return changes_open(&w->tail, &o, e);
}

static void open_tail(struct world *w, unsigned kinds, ts_t start)
{
    struct err e = {0};
    if (try_open(w, kinds, start, &e) < 0)
        fail_msg("changes_open: %s", e.msg);
}

static void open_telling_tail(struct world *w)
{
    struct err e = {0};
    struct changes_options o = {.mongo = w->mongo, .instance = "tail", .kinds = ALL, .tell_items = true};
    if (changes_open(&w->tail, &o, &e) < 0)
        fail_msg("changes_open: %s", e.msg);
}

/* The next change, heartbeats included; false after some seconds without. */
static bool next_any(struct world *w, struct change *ch)
{
    int64_t end = clock_mono_ms() + 15000 * fixture_slowness();
    while (clock_mono_ms() < end) {
        struct err e = {0};
        int rc = changes_next(w->tail, ch, &e);
        if (rc > 0)
            return true;
        if (rc < 0 && e.code == ERR_LOG_LOST)
            fail_msg("%s", e.msg);
    }
    return false;
}

/* The next change that is not a heartbeat. */
static struct change next(struct world *w)
{
    struct change ch;
    do {
        if (!next_any(w, &ch))
            fail_msg("nothing came");
    } while (ch.kind == CHANGE_HEARTBEAT);
    return ch;
}

/* Answers true when nothing but heartbeats comes until one that was written after the call. */
static bool nothing_more(struct world *w)
{
    struct err e = {0};
    struct change ch;
    if (heartbeat_send(w->conn, "marker", &e) < 0)
        fail_msg("%s", e.msg);
    ts_t t = mongo_conn_time(w->conn);
    while (next_any(w, &ch)) {
        if (ch.kind != CHANGE_HEARTBEAT)
            return false;
        if (ch.t >= t)
            return true;
    }
    return false;
}

/* ---- writing, as JSON ---- */

static bson_t *json(const char *text)
{
    bson_error_t be;
    bson_t *b = bson_new_from_json((const uint8_t *)text, -1, &be);
    if (b == NULL)
        fail_msg("%s: %s", text, be.message);
    return b;
}

static ts_t insert(struct world *w, enum mongo_collection coll, const char *text)
{
    bson_t *doc = json(text), opts = BSON_INITIALIZER;
    bson_error_t be;
    mongo_write_opts(w->conn, &opts);
    if (!mongoc_collection_insert_one(mongo_coll(w->conn, coll), doc, &opts, NULL, &be))
        fail_msg("insert %s: %s", text, be.message);
    bson_destroy(doc);
    bson_destroy(&opts);
    return mongo_conn_time(w->conn);
}

static ts_t update(struct world *w, enum mongo_collection coll, const char *query, const char *change)
{
    bson_t *q = json(query), *u = json(change), opts = BSON_INITIALIZER;
    bson_error_t be;
    mongo_write_opts(w->conn, &opts);
    if (!mongoc_collection_update_one(mongo_coll(w->conn, coll), q, u, &opts, NULL, &be))
        fail_msg("update %s: %s", change, be.message);
    bson_destroy(q);
    bson_destroy(u);
    bson_destroy(&opts);
    return mongo_conn_time(w->conn);
}

static ts_t delete (struct world *w, enum mongo_collection coll, const char *query)
{
    bson_t *q = json(query), opts = BSON_INITIALIZER;
    bson_error_t be;
    mongo_write_opts(w->conn, &opts);
    if (!mongoc_collection_delete_one(mongo_coll(w->conn, coll), q, &opts, NULL, &be))
        fail_msg("delete %s: %s", query, be.message);
    bson_destroy(q);
    bson_destroy(&opts);
    return mongo_conn_time(w->conn);
}

static ts_t insert_item(struct world *w, int id)
{
    char text[200];
    snprintf(
        text, sizeof text,
        "{\"_id\":{\"$numberLong\":\"%d\"},\"publisher\":\"p\",\"revision\":1,\"title\":\"t\",\"body\":\"b\","
        "\"topics\":[\"x\"],\"live\":true}",
        id);
    return insert(w, COLL_ITEMS, text);
}

/* ---- what is told ---- */

static void changes_come_in_order_with_their_times(void **state)
{
    struct world *w = *state;
    enum { N = 300 };
    static ts_t t[N];
    open_tail(w, ALL, 0);
    for (int i = 0; i < N; i++)
        t[i] = insert_item(w, i + 1);
    for (int i = 0; i < N; i++) {
        struct change ch = next(w);
        assert_int_equal(ch.kind, CHANGE_ITEM);
        assert_int_equal(ch.item, i + 1);
        assert_true(ch.t == t[i]);
        assert_true(ch.inserted);
        assert_false(ch.deleted);
        assert_false(ch.topics_changed);
        assert_int_equal(ch.revision, 1);
    }
    assert_true(nothing_more(w));
}

static void a_tail_from_now_does_not_tell_what_was_there_before(void **state)
{
    struct world *w = *state;
    ts_t before = insert_item(w, 1);
    open_tail(w, ALL, 0);
    assert_true(changes_complete(w->tail) >= before);
    insert_item(w, 2);
    assert_int_equal(next(w).item, 2);
}

static void a_tail_from_the_past_tells_everything_since(void **state)
{
    struct world *w = *state;
    insert_item(w, 1);
    ts_t second = insert_item(w, 2);
    insert_item(w, 3);
    open_tail(w, ALL, second);
    assert_true(changes_complete(w->tail) < second);
    assert_int_equal(next(w).item, 2);
    assert_int_equal(next(w).item, 3);
    changes_close(w->tail);
    open_tail(w, ALL, second + 1);
    assert_int_equal(next(w).item, 3);
}

static void an_edit_tells_its_revision_and_the_topics_before(void **state)
{
    struct world *w = *state;
    open_tail(w, ALL, 0);
    insert_item(w, 1);
    update(w, COLL_ITEMS, "{\"_id\":1}", "{\"$set\":{\"revision\":2,\"title\":\"n\"}}");
    update(w, COLL_ITEMS, "{\"_id\":1}",
           "{\"$set\":{\"revision\":3,\"topics\":[\"y\",\"z\"],\"topics_before\":[\"x\"]}}");
    update(w, COLL_ITEMS, "{\"_id\":1}",
           "{\"$set\":{\"revision\":4,\"topics\":[],\"topics_before\":[\"y\",\"z\"]}}");
    next(w);
    struct change ch = next(w);
    assert_int_equal(ch.revision, 2);
    assert_false(ch.topics_changed);
    assert_false(ch.inserted);
    ch = next(w);
    assert_int_equal(ch.revision, 3);
    assert_true(ch.topics_changed);
    assert_int_equal(ch.n_topics_before, 1);
    assert_string_equal(ch.topics_before[0], "x");
    ch = next(w);
    assert_int_equal(ch.n_topics_before, 2);
    assert_string_equal(ch.topics_before[1], "z");
}

static void an_edit_written_as_a_pipeline_tells_all_the_topics_before(void **state)
{
    struct world *w = *state;
    open_tail(w, ALL, 0);
    insert(w, COLL_ITEMS,
           "{\"_id\":{\"$numberLong\":\"1\"},\"revision\":1,\"topics\":[\"a\",\"b\",\"c\",\"d\",\"e\"],"
           "\"topics_before\":[\"a\",\"b\",\"c\",\"d\",\"f\",\"g\"]}");
    update(w, COLL_ITEMS, "{\"_id\":1}",
           "[{\"$set\":{\"topics_before\":\"$topics\",\"revision\":2,\"topics\":[\"q\"]}}]");
    next(w);
    struct change ch = next(w);
    assert_int_equal(ch.revision, 2);
    assert_true(ch.topics_changed);
    assert_int_equal(ch.n_topics_before, 5);
    assert_string_equal(ch.topics_before[0], "a");
    assert_string_equal(ch.topics_before[4], "e");
}

static void a_delete_is_told_as_one_whether_a_tombstone_stays_or_not(void **state)
{
    struct world *w = *state;
    open_tail(w, ALL, 0);
    insert_item(w, 1);
    insert_item(w, 2);
    update(w, COLL_ITEMS, "{\"_id\":1}",
           "{\"$unset\":{\"live\":1,\"title\":1,\"body\":1,\"topics\":1},"
           "\"$set\":{\"deleted_at\":{\"$date\":{\"$numberLong\":\"5\"}},\"revision\":2,\"topics_before\":["
           "\"x\"]}}");
    delete (w, COLL_ITEMS, "{\"_id\":2}");
    next(w);
    next(w);
    struct change ch = next(w);
    assert_int_equal(ch.item, 1);
    assert_true(ch.deleted);
    assert_int_equal(ch.revision, 2);
    assert_true(ch.topics_changed);
    ch = next(w);
    assert_int_equal(ch.item, 2);
    assert_true(ch.deleted);
}

static void users_targets_and_keys_are_told_by_name(void **state)
{
    struct world *w = *state;
    open_tail(w, ALL, 0);
    insert(w, COLL_USERS, "{\"_id\":\"zo\u00eb\",\"rev\":1}");
    update(w, COLL_USERS, "{\"_id\":\"zo\u00eb\"}", "{\"$inc\":{\"rev\":1}}");
    delete (w, COLL_USERS, "{\"_id\":\"zo\u00eb\"}");
    insert(w, COLL_API_KEYS, "{\"_id\":\"k1\",\"role\":\"admin\"}");
    delete (w, COLL_API_KEYS, "{\"_id\":\"k1\"}");
    insert(w, COLL_TARGETS, "{\"_id\":\"p:news\",\"kind\":\"p\",\"title\":\"News\",\"mode\":\"push\"}");
    for (int i = 0; i < 3; i++) {
        struct change ch = next(w);
        assert_int_equal(ch.kind, CHANGE_USER);
        assert_string_equal(ch.name, "zo\u00eb");
    }
    for (int i = 0; i < 2; i++) {
        struct change ch = next(w);
        assert_int_equal(ch.kind, CHANGE_API_KEY);
        assert_string_equal(ch.name, "k1");
    }
    struct change ch = next(w);
    assert_int_equal(ch.kind, CHANGE_TARGET);
    assert_string_equal(ch.name, "p:news");
}

static void the_end_of_a_users_tokens_is_told_with_its_time(void **state)
{
    struct world *w = *state;
    open_tail(w, ALL, 0);
    insert(w, COLL_TOKEN_ENDS, "{\"_id\":\"abc\",\"at\":1700000000001}");
    update(w, COLL_TOKEN_ENDS, "{\"_id\":\"abc\"}", "{\"$max\":{\"at\":1700000000002}}");
    for (int i = 1; i <= 2; i++) {
        struct change ch = next(w);
        assert_int_equal(ch.kind, CHANGE_TOKEN_END);
        assert_string_equal(ch.name, "abc");
        assert_true(ch.at_ms == 1700000000000 + i);
    }
}

static void counts_of_targets_and_edges_are_not_told(void **state)
{
    struct world *w = *state;
    open_tail(w, ALL, 0);
    insert(w, COLL_TARGETS, "{\"_id\":\"p:a\",\"kind\":\"p\",\"followers\":1,\"items\":2,\"mode\":\"push\"}");
    update(w, COLL_TARGETS, "{\"_id\":\"p:a\"}", "{\"$set\":{\"followers\":7,\"items\":3}}");
    insert(w, COLL_FOLLOWS, "{\"_id\":\"u p:a\",\"t\":\"p:a\",\"b\":1,\"u\":\"u\"}");
    insert(w, COLL_MUTES, "{\"_id\":\"u w:x\"}");
    insert(w, COLL_SETTINGS, "{\"_id\":\"s\"}");
    assert_true(nothing_more(w));
    update(w, COLL_TARGETS, "{\"_id\":\"p:a\"}", "{\"$set\":{\"icon\":\"i\",\"followers\":8}}");
    assert_int_equal(next(w).kind, CHANGE_TARGET);
    update(w, COLL_TARGETS, "{\"_id\":\"p:a\"}", "{\"$unset\":{\"icon\":1}}");
    assert_int_equal(next(w).kind, CHANGE_TARGET);
    update(w, COLL_TARGETS, "{\"_id\":\"p:a\"}", "{\"$set\":{\"mode\":\"pull\"}}");
    assert_int_equal(next(w).kind, CHANGE_TARGET);
}

static void only_the_kinds_asked_for_come_and_heartbeats_always(void **state)
{
    struct world *w = *state;
    struct err e = {0};
    open_tail(w, 1u << CHANGE_USER, 0);
    insert_item(w, 1);
    insert(w, COLL_USERS, "{\"_id\":\"u\"}");
    assert_int_equal(next(w).kind, CHANGE_USER);
    int64_t at = clock_wall_ms(), mono = clock_mono_ms();
    assert_int_equal(heartbeat_send(w->conn, "someone", &e), 0);
    struct change ch;
    do
        assert_true(next_any(w, &ch));
    while (strcmp(ch.name, "someone") != 0);
    assert_int_equal(ch.kind, CHANGE_HEARTBEAT);
    assert_true(ch.at_ms >= at && ch.at_ms <= clock_wall_ms());
    assert_true(ch.mono_ms >= mono && ch.mono_ms <= clock_mono_ms());
}

static void what_a_foreign_hand_wrote_only_moves_time(void **state)
{
    struct world *w = *state;
    open_tail(w, ALL, 0);
    insert(w, COLL_ITEMS, "{\"_id\":\"text\"}");
    insert(w, COLL_ITEMS, "{\"_id\":-4}");
    insert(w, COLL_USERS, "{\"_id\":7}");
    char text[400];
    snprintf(text, sizeof text, "{\"_id\":\"%0300d\"}", 1);
    insert(w, COLL_USERS, text);
    insert(w, COLL_HEARTBEAT, "{\"_id\":\"x\"}");
    for (int i = 0; i < 5; i++)
        assert_int_equal(next(w).kind, CHANGE_OTHER);
    insert_item(w, 1);
    assert_int_equal(next(w).item, 1);
}

/* ---- what is told of new items ---- */

static void assert_nothing_told(const struct change *ch, item_id id)
{
    assert_int_equal(ch->kind, CHANGE_ITEM);
    assert_int_equal(ch->item, id);
    assert_false(ch->item_told);
    assert_string_equal(ch->publisher, "");
    assert_int_equal(ch->n_topics, 0);
}

static void a_new_item_tells_its_publisher_and_topics_and_an_edit_its_new_topics(void **state)
{
    struct world *w = *state;
    open_telling_tail(w);
    insert(w, COLL_ITEMS,
           "{\"_id\":1,\"publisher\":\"zo\u00eb\",\"revision\":1,\"topics\":[\"x\",\"y\"],\"live\":true}");
    insert(w, COLL_ITEMS, "{\"_id\":2,\"publisher\":\"q\",\"revision\":1,\"live\":true}");
    update(w, COLL_ITEMS, "{\"_id\":1}",
           "{\"$set\":{\"revision\":2,\"topics\":[\"z\"],\"topics_before\":[\"x\",\"y\"]}}");
    update(w, COLL_ITEMS, "{\"_id\":1}", "{\"$set\":{\"revision\":3,\"title\":\"new\"}}");
    struct change ch = next(w);
    assert_true(ch.inserted);
    assert_true(ch.item_told);
    assert_string_equal(ch.publisher, "zo\u00eb");
    assert_int_equal(ch.n_topics, 2);
    assert_string_equal(ch.topics[0], "x");
    assert_string_equal(ch.topics[1], "y");
    ch = next(w);
    assert_true(ch.item_told);
    assert_string_equal(ch.publisher, "q");
    assert_int_equal(ch.n_topics, 0);
    ch = next(w);
    assert_false(ch.item_told);
    assert_true(ch.topics_told);
    assert_int_equal(ch.n_topics, 1);
    assert_string_equal(ch.topics[0], "z");
    assert_int_equal(ch.n_topics_before, 2);
    ch = next(w);
    assert_nothing_told(&ch, 1);
    assert_false(ch.topics_told);
}

static void a_target_tells_the_mode_that_it_turned_to(void **state)
{
    struct world *w = *state;
    open_tail(w, ALL, 0);
    insert(w, COLL_TARGETS, "{\"_id\":\"p:a\",\"mode\":\"pull\"}");
    update(w, COLL_TARGETS, "{\"_id\":\"p:a\"}", "{\"$set\":{\"title\":\"A\"}}");
    update(w, COLL_TARGETS, "{\"_id\":\"p:a\"}", "{\"$set\":{\"mode\":\"push\",\"followers\":7}}");
    update(w, COLL_TARGETS, "{\"_id\":\"p:a\"}", "{\"$set\":{\"followers\":8}}");
    update(w, COLL_TARGETS, "{\"_id\":\"p:a\"}", "{\"$unset\":{\"title\":\"\"}}");
    static const enum target_mode want[] = {MODE_PULL, MODE_NOT_TOLD, MODE_PUSH, MODE_NOT_TOLD};
    for (unsigned i = 0; i < MEM_COUNT(want); i++) {
        struct change ch = next(w);
        assert_int_equal(ch.kind, CHANGE_TARGET);
        assert_string_equal(ch.name, "p:a");
        assert_int_equal(ch.mode, want[i]);
    }
}

static void as_many_topics_as_an_item_may_have_are_told_and_no_more(void **state)
{
    struct world *w = *state;
    open_telling_tail(w);
    for (unsigned n = CHANGE_TOPICS_MAX; n <= CHANGE_TOPICS_MAX + 1; n++) {
        struct buf b;
        buf_init(&b, 4096);
        buf_printf(&b, "{\"_id\":%u,\"publisher\":\"p\",\"live\":true,\"topics\":[", n);
        for (unsigned i = 0; i < n; i++)
            buf_printf(&b, "%s\"%064u\"", i ? "," : "", i);
        buf_add_str(&b, "]}");
        insert(w, COLL_ITEMS, b.data);
        buf_done(&b);
    }
    struct change ch = next(w);
    assert_true(ch.item_told);
    assert_int_equal(ch.n_topics, CHANGE_TOPICS_MAX);
    char last[NAME_MAX_BYTES + 1];
    snprintf(last, sizeof last, "%064d", CHANGE_TOPICS_MAX - 1);
    assert_string_equal(ch.topics[CHANGE_TOPICS_MAX - 1], last);
    ch = next(w);
    assert_nothing_told(&ch, CHANGE_TOPICS_MAX + 1);
}

static void an_item_that_does_not_read_as_it_should_is_not_told_and_the_tail_goes_on(void **state)
{
    struct world *w = *state;
    static const char *const fields[] = {
        "\"publisher\":7,\"topics\":[\"x\"],\"live\":true",
        "\"topics\":[\"x\"],\"live\":true",
        "\"publisher\":\"\",\"live\":true",
        "\"publisher\":\"a\\u0000b\",\"live\":true",
        "\"publisher\":\"p\",\"topics\":\"x\",\"live\":true",
        "\"publisher\":\"p\",\"topics\":[\"x\",8],\"live\":true",
        "\"publisher\":\"p\",\"topics\":[\"x\",\"\"],\"live\":true",
        "\"publisher\":\"p\",\"topics\":[\"x\"]",
        "\"publisher\":{\"live\":true},\"topics\":{\"publisher\":\"p\"}",
    };
    char text[400];
    open_telling_tail(w);
    for (unsigned i = 0; i < MEM_COUNT(fields); i++) {
        snprintf(text, sizeof text, "{\"_id\":%u,\"revision\":1,%s}", i + 1, fields[i]);
        insert(w, COLL_ITEMS, text);
    }
    snprintf(text, sizeof text, "{\"_id\":50,\"publisher\":\"%065d\",\"live\":true}", 1);
    insert(w, COLL_ITEMS, text);
    insert_item(w, 51);
    for (unsigned i = 0; i < MEM_COUNT(fields); i++) {
        struct change ch = next(w);
        assert_nothing_told(&ch, i + 1);
        assert_true(ch.inserted);
        assert_int_equal(ch.revision, 1);
    }
    struct change ch = next(w);
    assert_nothing_told(&ch, 50);
    ch = next(w);
    assert_int_equal(ch.item, 51);
    assert_true(ch.item_told);
}

static void without_being_asked_nothing_is_told_of_items(void **state)
{
    struct world *w = *state;
    open_tail(w, ALL, 0);
    insert_item(w, 1);
    struct change ch = next(w);
    assert_nothing_told(&ch, 1);
}

/* ---- completeness ---- */

static void a_lone_change_becomes_complete_without_anybody_elses_help(void **state)
{
    struct world *w = *state;
    open_tail(w, ALL, 0);
    for (int i = 1; i <= 10; i++) {
        ts_t t = insert_item(w, i);
        struct change ch = next(w);
        assert_true(ch.t == t);
        assert_true(changes_complete(w->tail) < t);
        assert_true(next_any(w, &ch)); /* the tail's own heartbeat */
        assert_int_equal(ch.kind, CHANGE_HEARTBEAT);
        assert_string_equal(ch.name, "tail");
        assert_true(changes_complete(w->tail) >= t);
    }
}

static void a_quiet_tail_writes_no_heartbeats_for_its_own_heartbeats(void **state)
{
    struct world *w = *state;
    struct change ch;
    struct err e = {0};
    open_tail(w, ALL, 0);
    insert_item(w, 1);
    next(w);
    assert_true(next_any(w, &ch));
    assert_int_equal(ch.kind, CHANGE_HEARTBEAT);
    for (int i = 0; i < 5; i++)
        assert_int_equal(changes_next(w->tail, &ch, &e), 0);
}

static int put_three(struct mongo_conn *c, void *arg, struct err *e)
{
    (void)arg;
    static const char *const names[] = {"a", "b", "c"};
    for (int i = 0; i < 3; i++) {
        bson_t doc = BSON_INITIALIZER, opts = BSON_INITIALIZER, reply;
        bson_error_t be;
        BSON_APPEND_UTF8(&doc, "_id", names[i]);
        mongo_txn_opts(c, &opts);
        bool ok = mongoc_collection_insert_one(mongo_coll(c, COLL_USERS), &doc, &opts, &reply, &be);
        int rc = ok ? 0 : mongo_txn_err(c, e, &be, &reply, "insert");
        bson_destroy(&doc);
        bson_destroy(&opts);
        bson_destroy(&reply);
        if (rc < 0)
            return -1;
    }
    return 0;
}

static void the_changes_of_a_transaction_share_a_time_that_is_complete_only_after_the_last(void **state)
{
    struct world *w = *state;
    struct err e = {0};
    open_tail(w, ALL, 0);
    assert_int_equal(mongo_transaction(w->conn, put_three, NULL, &e), 0);
    ts_t t = mongo_conn_time(w->conn);
    for (int i = 0; i < 3; i++) {
        struct change ch = next(w);
        assert_int_equal(ch.kind, CHANGE_USER);
        assert_true(ch.t == t);
        assert_true(changes_complete(w->tail) < t);
    }
    struct change ch;
    assert_true(next_any(w, &ch));
    assert_true(changes_complete(w->tail) >= t);
}

static void completeness_never_goes_back(void **state)
{
    struct world *w = *state;
    struct err e = {0};
    assert_int_equal(heartbeat_start(&w->heartbeat, w->mongo, "beat", &e), 0);
    open_tail(w, ALL, 0);
    ts_t last = changes_complete(w->tail);
    for (int i = 1; i <= 100; i++) {
        insert_item(w, i);
        struct change ch;
        assert_true(next_any(w, &ch));
        assert_true(changes_complete(w->tail) >= last);
        if (ch.kind == CHANGE_HEARTBEAT) /* in no transaction: nothing shares its time */
            assert_true(changes_complete(w->tail) >= ch.t);
        else
            assert_true(changes_complete(w->tail) < ch.t);
        last = changes_complete(w->tail);
    }
}

static void the_heartbeat_thread_beats_on_until_it_is_stopped(void **state)
{
    struct world *w = *state;
    struct err e = {0};
    struct change ch;
    int64_t mono = 0;
    open_tail(w, 0, 0);
    assert_int_equal(heartbeat_start(&w->heartbeat, w->mongo, "beat", &e), 0);
    for (int i = 0; i < 5; i++) {
        assert_true(next_any(w, &ch));
        assert_string_equal(ch.name, "beat");
        assert_true(ch.mono_ms > mono);
        mono = ch.mono_ms;
    }
    heartbeat_stop(w->heartbeat);
    w->heartbeat = NULL;
    while (changes_next(w->tail, &ch, &e) > 0) {
    }
    assert_int_equal(changes_next(w->tail, &ch, &e), 0);
}

/* ---- losing the server, losing the log ---- */

static void p1_nothing_is_missed_when_the_server_is_killed_and_comes_back(void **state)
{
    struct world *w = *state;
    struct change ch;
    struct err e = {0};
    open_tail(w, ALL, 0);
    int told = 0, written = 0;
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 20; i++)
            insert_item(w, ++written);
        while (told < written - 10) /* some are still unread when it dies */
            assert_int_equal(next(w).item, ++told);
        server_kill(fixture_mongod(w->fixture));
        int rc;
        while ((rc = changes_next(w->tail, &ch, &e)) > 0) /* what was fetched already */
            if (ch.kind == CHANGE_ITEM)
                assert_int_equal(ch.item, ++told);
        assert_int_equal(rc, -1);
        assert_int_equal(e.code, ERR_UNAVAILABLE);
        fixture_restart(w->fixture, fixture_mongod(w->fixture));
        mongo_conn_put(w->conn);
        w->conn = NULL;
        assert_int_equal(mongo_conn_get(w->mongo, &w->conn, &e), 0);
        while (mongo_conn_fresh(w->conn, NULL, &e) < 0) {
        }
        insert_item(w, ++written);
    }
    while (told < written)
        assert_int_equal(next(w).item, ++told);
}

static void a_time_from_the_future_is_no_place_to_begin(void **state)
{
    struct world *w = *state;
    struct err e = {0};
    assert_int_equal(try_open(w, ALL, insert_item(w, 1) + ((ts_t)60 << 32), &e), -1);
    assert_int_equal(e.code, ERR_UNAVAILABLE);
    assert_null(w->tail);
}

static void dropping_the_database_loses_the_log(void **state)
{
    struct world *w = *state;
    struct err e = {0};
    struct change ch;
    bson_error_t be;
    open_tail(w, ALL, 0);
    insert_item(w, 1);
    assert_int_equal(next(w).item, 1);
    mongoc_database_t *db = mongoc_client_get_database(mongo_client(w->conn), mongo_database(w->mongo));
    assert_true(mongoc_database_drop(db, &be));
    mongoc_database_destroy(db);
    int rc;
    while ((rc = changes_next(w->tail, &ch, &e)) >= 0)
        assert_true(rc == 0 || ch.kind == CHANGE_HEARTBEAT);
    assert_int_equal(e.code, ERR_LOG_LOST);
    assert_int_equal(changes_next(w->tail, &ch, &e), -1); /* for good */
    assert_int_equal(e.code, ERR_LOG_LOST);
}

/* ---- a log that was rolled over ---- */

#define LOG_MB 50

/* What the last checkpoint needs of the log is not let go, and the fixture's mongod takes one a minute. */
static struct server *start_forgetful_mongod(struct world *w, char **uri)
{
    struct err e = {0};
    char *dir = mem_printf("%s/forgetful", fixture_dir(w->fixture)), *log = mem_printf("%s.log", dir);
    assert_int_equal(mkdir(dir, 0700), 0);
    struct mongod_options o = {.dir = dir,
                               .log_path = log,
                               .port = server_free_port(),
                               .cache_gb = 0.25,
                               .oplog_mb = LOG_MB,
                               .checkpoint_s = 1};
    struct server *s = mongod_server_new(&o, &e);
    if (s == NULL || server_start(s, &e) < 0 || server_wait(s, 30000, &e) < 0)
        fail_msg("%s", e.msg);
    *uri = mongod_server_uri(s, "forgetful");
    free(dir);
    free(log);
    return s;
}

/* Nobody tails this collection; the log holds only what differs, so all of it differs. */
static void write_a_lot(struct mongo_conn *c, int i)
{
    size_t size = 1024 * 1024;
    char *big = mem_alloc(size);
    memset(big, 'a' + i % 26, size);
    big[size - 1] = '\0';
    bson_t doc = BSON_INITIALIZER, *q = BCON_NEW("_id", BCON_INT32(i % 4)),
           *opts = BCON_NEW("upsert", BCON_BOOL(true));
    bson_error_t be;
    BSON_APPEND_INT32(&doc, "_id", i % 4);
    BSON_APPEND_UTF8(&doc, "big", big);
    if (!mongoc_collection_replace_one(mongo_coll(c, COLL_DEAD_LETTERS), q, &doc, opts, NULL, &be))
        fail_msg("%s", be.message);
    bson_destroy(q);
    bson_destroy(opts);
    bson_destroy(&doc);
    free(big);
}

struct forgetful {
    struct world world;
    ts_t start;
    int written;
    struct err e;
};

static bool log_is_lost(void *arg)
{
    struct forgetful *f = arg;
    for (int i = 0; i < 10; i++)
        write_a_lot(f->world.conn, f->written++);
    f->e = (struct err){0};
    if (try_open(&f->world, ALL, f->start, &f->e) == 0) {
        changes_close(f->world.tail);
        f->world.tail = NULL;
        return false;
    }
    return f->e.code == ERR_LOG_LOST;
}

static bool is_writable(void *arg)
{
    struct world *w = arg;
    struct err e;
    return (w->conn != NULL || mongo_conn_get(w->mongo, &w->conn, &e) == 0) &&
           heartbeat_send(w->conn, "x", &e) == 0;
}

static void a_place_that_the_log_has_left_behind_is_lost(void **state)
{
    struct world *w = *state;
    struct forgetful f = {0};
    struct err e = {0};
    char *uri = NULL;
    struct server *s = start_forgetful_mongod(w, &uri);
    struct mongo_options o = {.uri = uri, .app_name = "test", .pool_size = 4};
    if (mongo_new(&f.world.mongo, &o, &e) < 0)
        fail_msg("%s", e.msg);
    assert_true(fixture_until(is_writable, &f.world, 30000));
    f.start = insert_item(&f.world, 1);
    open_tail(&f.world, ALL, f.start);
    assert_int_equal(next(&f.world).item, 1);
    changes_close(f.world.tail);
    f.world.tail = NULL;
    assert_true(fixture_until(log_is_lost, &f, 60000));
    mongo_conn_put(f.world.conn);
    mongo_free(f.world.mongo);
    server_free(s);
    free(uri);
}

int main(void)
{
#define WITH_TAIL(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        WITH_TAIL(changes_come_in_order_with_their_times),
        WITH_TAIL(a_tail_from_now_does_not_tell_what_was_there_before),
        WITH_TAIL(a_tail_from_the_past_tells_everything_since),
        WITH_TAIL(an_edit_tells_its_revision_and_the_topics_before),
        WITH_TAIL(an_edit_written_as_a_pipeline_tells_all_the_topics_before),
        WITH_TAIL(a_delete_is_told_as_one_whether_a_tombstone_stays_or_not),
        WITH_TAIL(users_targets_and_keys_are_told_by_name),
        WITH_TAIL(the_end_of_a_users_tokens_is_told_with_its_time),
        WITH_TAIL(counts_of_targets_and_edges_are_not_told),
        WITH_TAIL(only_the_kinds_asked_for_come_and_heartbeats_always),
        WITH_TAIL(what_a_foreign_hand_wrote_only_moves_time),
        WITH_TAIL(a_new_item_tells_its_publisher_and_topics_and_an_edit_its_new_topics),
        WITH_TAIL(a_target_tells_the_mode_that_it_turned_to),
        WITH_TAIL(as_many_topics_as_an_item_may_have_are_told_and_no_more),
        WITH_TAIL(an_item_that_does_not_read_as_it_should_is_not_told_and_the_tail_goes_on),
        WITH_TAIL(without_being_asked_nothing_is_told_of_items),
        WITH_TAIL(a_lone_change_becomes_complete_without_anybody_elses_help),
        WITH_TAIL(a_quiet_tail_writes_no_heartbeats_for_its_own_heartbeats),
        WITH_TAIL(the_changes_of_a_transaction_share_a_time_that_is_complete_only_after_the_last),
        WITH_TAIL(completeness_never_goes_back),
        WITH_TAIL(the_heartbeat_thread_beats_on_until_it_is_stopped),
        WITH_TAIL(a_time_from_the_future_is_no_place_to_begin),
        WITH_TAIL(dropping_the_database_loses_the_log),
        WITH_TAIL(p1_nothing_is_missed_when_the_server_is_killed_and_comes_back),
        WITH_TAIL(a_place_that_the_log_has_left_behind_is_lost),
    };
    return cmocka_run_group_tests_name("common/changes", tests, group_setup, group_teardown);
}
