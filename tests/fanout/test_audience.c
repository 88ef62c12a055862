#include "tests/fanout/rig.h"

#include "fanout/audience.h"

static struct rig rig;

static int open_rig(void **state)
{
    rig_open(&rig, *state);
    return 0;
}

static int close_rig(void **state)
{
    (void)state;
    rig_close(&rig);
    return 0;
}

/* Reads a whole audience in batches of cap; asserts the order and that nobody comes twice. */
static unsigned read_all(const char *target, struct bucket_range range, unsigned cap, unsigned *batches)
{
    struct audience a;
    struct audience_batch b;
    struct follower last = {0};
    struct err e = {0};
    unsigned n = 0;
    int rc;
    *batches = 0;
    audience_batch_init(&b, cap);
    audience_begin(&a, target, range);
    while ((rc = audience_next(&a, rig.conn, &b, &e)) == 1) {
        ++*batches;
        assert_true(b.n >= 1 && b.n <= cap);
        for (unsigned i = 0; i < b.n; i++, n++) {
            const struct follower *f = &b.at[i];
            assert_true(f->bucket >= range.first && f->bucket <= range.last);
            assert_int_equal(f->bucket, keys_bucket(f->user));
            assert_true(n == 0 || f->bucket > last.bucket ||
                        (f->bucket == last.bucket && strcmp(f->user, last.user) > 0));
            last = *f;
        }
    }
    if (rc != 0)
        fail_msg("audience: %s", e.msg);
    assert_int_equal(audience_next(&a, rig.conn, &b, &e), 0);
    audience_batch_done(&b);
    return n;
}

static void everybody_comes_once_and_in_order_whatever_the_batch(void **state)
{
    (void)state;
    const unsigned caps[] = {1, 7, 100, 299, 300, 301, 5000};
    struct bucket_range all = {0, BUCKETS - 1};
    unsigned batches;
    rig_edges(&rig, "u", 300, "p:daily");
    rig_edges(&rig, "x", 50, "p:dail");
    rig_edges(&rig, "y", 50, "p:daily2");
    for (size_t i = 0; i < MEM_COUNT(caps); i++) {
        assert_int_equal(read_all("p:daily", all, caps[i], &batches), 300);
        assert_true(batches >= (300 + caps[i] - 1) / caps[i]);
    }
    assert_int_equal(read_all("p:nobody", all, 10, &batches), 0);
    assert_int_equal(batches, 0);
}

static void a_small_audience_of_several_targets_is_read_at_once_and_a_larger_one_is_told(void **state)
{
    (void)state;
    const char targets[3][TARGET_TEXT_SIZE] = {"p:daily", "t:sport", "t:nobody"};
    struct bucket_range all = {0, BUCKETS - 1}, low = {0, 99};
    struct audience_batch b;
    struct err e = {0};
    bool fits = false;
    unsigned below = 0;
    rig_edges(&rig, "u", 200, "p:daily");
    rig_edges(&rig, "u", 100, "t:sport"); /* half of them follow both */
    rig_edges(&rig, "x", 50, "t:sport");
    rig_edges(&rig, "y", 50, "t:chess");
    audience_batch_init(&b, 350);
    RIG_OK(e, audience_few(rig.conn, targets, 3, all, &b, &fits, &e));
    assert_true(fits);
    assert_int_equal(b.n, 250);
    for (unsigned i = 0; i < b.n; i++) {
        assert_true(b.at[i].user[0] == 'u' || b.at[i].user[0] == 'x');
        assert_true(i == 0 || b.at[i].bucket > b.at[i - 1].bucket ||
                    (b.at[i].bucket == b.at[i - 1].bucket && strcmp(b.at[i].user, b.at[i - 1].user) > 0));
        below += b.at[i].bucket <= 99;
    }
    RIG_OK(e, audience_few(rig.conn, targets, 3, low, &b, &fits, &e));
    assert_true(fits);
    assert_int_equal(b.n, below);
    audience_batch_done(&b);
    audience_batch_init(&b, 349);
    RIG_OK(e, audience_few(rig.conn, targets, 3, all, &b, &fits, &e));
    assert_false(fits);
    audience_batch_done(&b);
}

static void only_the_range_of_buckets_is_read(void **state)
{
    (void)state;
    unsigned batches, sum = 0, expected = 0;
    rig_edges(&rig, "u", 500, "t:sport");
    struct bucket_range r[] = {{0, 15}, {16, 16}, {17, 254}, {255, 255}};
    for (size_t i = 0; i < MEM_COUNT(r); i++)
        sum += read_all("t:sport", r[i], 9, &batches);
    assert_int_equal(sum, 500);
    for (unsigned i = 0; i < 500; i++) {
        char user[20];
        snprintf(user, sizeof user, "u%u", i);
        expected += keys_bucket(user) <= 15;
    }
    assert_int_equal(read_all("t:sport", r[0], 4, &batches), expected);
}

static void the_audience_is_read_from_the_index_alone(void **state)
{
    (void)state;
    rig_edges(&rig, "u", 300, "p:daily");
    bson_t *cmd = BCON_NEW("explain", "{", "find", BCON_UTF8("follows"), "filter", "{", "}", "hint", "{", "t",
                           BCON_INT32(1), "b", BCON_INT32(1), "u", BCON_INT32(1), "}", "min", "{", "t",
                           BCON_UTF8("p:daily"), "b", BCON_INT32(0), "u", BCON_MINKEY, "}", "max", "{", "t",
                           BCON_UTF8("p:daily"), "b", BCON_INT32(256), "u", BCON_MINKEY, "}", "projection",
                           "{", "_id", BCON_INT32(0), "b", BCON_INT32(1), "u", BCON_INT32(1), "}", "}",
                           "verbosity", BCON_UTF8("executionStats"));
    bson_t reply;
    bson_error_t be;
    bson_iter_t it, found;
    if (!mongoc_client_command_simple(mongo_client(rig.conn), mongo_database(rig.mongo), cmd, NULL, &reply,
                                      &be))
        fail_msg("explain: %s", be.message);
    assert_true(bson_iter_init(&it, &reply) &&
                bson_iter_find_descendant(&it, "executionStats.totalDocsExamined", &found));
    assert_int_equal(bson_iter_as_int64(&found), 0);
    assert_true(bson_iter_init(&it, &reply) &&
                bson_iter_find_descendant(&it, "executionStats.nReturned", &found));
    assert_int_equal(bson_iter_as_int64(&found), 300);
    bson_destroy(&reply);
    bson_destroy(cmd);
}

static void a_document_that_does_not_read_is_counted_and_left_out(void **state)
{
    (void)state;
    struct audience a;
    struct audience_batch b;
    struct err e = {0};
    rig_edge(&rig, "good", "p:daily");
    bson_t *filter = BCON_NEW("_id", BCON_UTF8("bad p:daily"));
    bson_t *update =
        BCON_NEW("$set", "{", "t", BCON_UTF8("p:daily"), "b", BCON_INT32(3), "u", BCON_INT32(5), "}");
    rig_update(&rig, COLL_FOLLOWS, filter, update);
    bson_destroy(filter);
    bson_destroy(update);
    audience_batch_init(&b, 10);
    audience_begin(&a, "p:daily", (struct bucket_range){0, 255});
    assert_int_equal(audience_next(&a, rig.conn, &b, &e), 1);
    assert_int_equal(b.n, 1);
    assert_int_equal(b.skipped, 1);
    assert_string_equal(b.at[0].user, "good");
    audience_batch_done(&b);
}

static void who_follows_something_else_that_matches_is_kept_out(void **state)
{
    (void)state;
    struct audience a;
    struct audience_batch b;
    struct err e = {0};
    const char targets[][TARGET_TEXT_SIZE] = {"p:daily", "t:chess"};
    rig_edges(&rig, "u", 250, "t:sport");
    rig_edge(&rig, "u7", "t:chess");
    rig_edge(&rig, "u8", "p:daily");
    rig_edge(&rig, "u9", "p:other");
    rig_edge(&rig, "u10", "t:chess");
    rig_edge(&rig, "u10", "p:daily");
    rig_edge(&rig, "u249", "p:daily");
    audience_batch_init(&b, 1000);
    audience_begin(&a, "t:sport", (struct bucket_range){0, 255});
    assert_int_equal(audience_next(&a, rig.conn, &b, &e), 1);
    assert_int_equal(b.n, 250);
    RIG_OK(e, audience_keep_unmatched(rig.conn, &b, targets, 2, &e));
    assert_int_equal(b.n, 246);
    for (unsigned i = 0; i < b.n; i++) {
        const char *u = b.at[i].user;
        assert_true(strcmp(u, "u7") && strcmp(u, "u8") && strcmp(u, "u10") && strcmp(u, "u249"));
        assert_true(i == 0 || b.at[i - 1].bucket <= b.at[i].bucket);
    }
    audience_batch_done(&b);
}

static void an_item_is_read_as_it_is_now(void **state)
{
    (void)state;
    struct item_now now;
    struct err e = {0};
    rig_publish(&rig, 5, "daily", "sport chess");
    RIG_OK(e, audience_item(rig.conn, 5, &now, &e));
    assert_true(now.live);
    assert_string_equal(now.publisher, "daily");
    assert_int_equal(now.n_topics, 2);
    assert_string_equal(now.topics[1], "chess");
    rig_edit_topics(&rig, 5, "sport chess", "");
    RIG_OK(e, audience_item(rig.conn, 5, &now, &e));
    assert_true(now.live);
    assert_int_equal(now.n_topics, 0);
    rig_delete(&rig, 5, "");
    RIG_OK(e, audience_item(rig.conn, 5, &now, &e));
    assert_false(now.live);
    RIG_OK(e, audience_item(rig.conn, 6, &now, &e));
    assert_false(now.live);
}

static void an_item_that_does_not_read_is_corrupt_and_leaves_the_output_alone(void **state)
{
    (void)state;
    struct item_now now = {.n_topics = 3};
    struct err e = {0};
    rig_publish(&rig, 5, "daily", "a b c d e f g h i j k l m n o p q");
    assert_int_equal(audience_item(rig.conn, 5, &now, &e), -1);
    assert_int_equal(e.code, ERR_CORRUPT);
    assert_int_equal(now.n_topics, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(everybody_comes_once_and_in_order_whatever_the_batch, open_rig,
                                        close_rig),
        cmocka_unit_test_setup_teardown(
            a_small_audience_of_several_targets_is_read_at_once_and_a_larger_one_is_told, open_rig,
            close_rig),
        cmocka_unit_test_setup_teardown(only_the_range_of_buckets_is_read, open_rig, close_rig),
        cmocka_unit_test_setup_teardown(the_audience_is_read_from_the_index_alone, open_rig, close_rig),
        cmocka_unit_test_setup_teardown(a_document_that_does_not_read_is_counted_and_left_out, open_rig,
                                        close_rig),
        cmocka_unit_test_setup_teardown(who_follows_something_else_that_matches_is_kept_out, open_rig,
                                        close_rig),
        cmocka_unit_test_setup_teardown(an_item_is_read_as_it_is_now, open_rig, close_rig),
        cmocka_unit_test_setup_teardown(an_item_that_does_not_read_is_corrupt_and_leaves_the_output_alone,
                                        open_rig, close_rig),
    };
    return cmocka_run_group_tests(tests, fixture_group_setup, fixture_group_teardown);
}
