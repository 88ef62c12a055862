/* The memory of the log that streams are fed from. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "feed-api/stream_log.h"

#define MUCH  (1 << 20)
#define AT(s) ts_make((s), 1)

static struct change *new_item(ts_t t, item_id id)
{
    static struct change c;
    memset(&c, 0, sizeof c);
    c.kind = CHANGE_ITEM;
    c.t = t;
    c.item = id;
    c.revision = 1;
    c.inserted = c.item_told = true;
    strcpy(c.publisher, "daily");
    c.n_topics = 2;
    strcpy(c.topics[0], "sport");
    strcpy(c.topics[1], "chess");
    return &c;
}

static struct change *edited(ts_t t, item_id id, int32_t revision)
{
    struct change *c = new_item(t, id);
    c->revision = revision;
    c->inserted = c->item_told = false;
    c->publisher[0] = '\0';
    c->n_topics = 0;
    return c;
}

static struct stream_log *new_log(size_t bytes, uint32_t keep_s)
{
    struct stream_log *l = stream_log_new(bytes, keep_s);
    stream_log_begin(l, AT(100));
    return l;
}

static const struct stream_entry *newest(const struct stream_log *l)
{
    return stream_log_at(l, stream_log_end(l) - 1);
}

static size_t count(const struct stream_log *l)
{
    return (size_t)(stream_log_end(l) - stream_log_first(l));
}

/* ---- positions ---- */

static void a_position_reads_back(void **state)
{
    (void)state;
    struct stream_pos p = {ts_make(1700000000, 7), UINT32_MAX}, q;
    char text[STREAM_POS_SIZE];
    stream_pos_format(p, text);
    assert_int_equal(stream_pos_parse(text, &q, NULL), 0);
    assert_true(q.t == p.t && q.k == p.k);
    p.k = 0;
    stream_pos_format(p, text);
    assert_int_equal(stream_pos_parse(text, &q, NULL), 0);
    assert_int_equal(q.k, 0);
}

static void what_is_no_position_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "1",
                                      "65f0a1b200000001",
                                      "65f0a1b200000001-",
                                      "65f0a1b200000001-x",
                                      "65f0a1b200000001-01",
                                      "65f0a1b200000001-4294967296",
                                      "65f0a1b200000001-1 ",
                                      "65F0A1B200000001-1",
                                      "65f0a1b20000000g-1",
                                      "0000000000000000-1",
                                      "65f0a1b200000001-99999999999999999999"};
    for (size_t i = 0; i < MEM_COUNT(bad); i++) {
        struct stream_pos p = {5, 5};
        struct err e;
        assert_int_equal(stream_pos_parse(bad[i], &p, &e), -1);
        assert_true(p.t == 5 && p.k == 5);
    }
}

/* ---- adding ---- */

static void changes_of_one_time_are_told_apart_by_their_number(void **state)
{
    (void)state;
    struct stream_log *l = new_log(MUCH, 60);
    assert_true(stream_log_add(l, new_item(AT(101), 1)));
    assert_true(stream_log_add(l, new_item(AT(101), 2)));
    assert_true(stream_log_add(l, new_item(AT(102), 3)));
    uint64_t at = stream_log_first(l);
    assert_int_equal(stream_log_at(l, at)->pos.k, 1);
    assert_int_equal(stream_log_at(l, at + 1)->pos.k, 2);
    assert_int_equal(stream_log_at(l, at + 2)->pos.k, 1);
    stream_log_free(l);
}

static void what_is_told_twice_is_there_once(void **state)
{
    (void)state;
    struct stream_log *l = new_log(MUCH, 60);
    assert_true(stream_log_add(l, new_item(AT(101), 1)));
    assert_true(stream_log_add(l, new_item(AT(101), 2)));
    assert_false(stream_log_add(l, new_item(AT(101), 1)));
    assert_true(stream_log_add(l, new_item(AT(102), 3)));
    assert_false(stream_log_add(l, new_item(AT(101), 2)));
    assert_int_equal(count(l), 3);
    stream_log_free(l);
}

static void a_replay_is_nothing_that_a_reader_sees(void **state)
{
    (void)state;
    struct stream_log *l = new_log(MUCH, 60);
    struct change *c = edited(AT(101), 1, 0);
    c->topics_changed = true;
    assert_false(stream_log_add(l, c));
    c->kind = CHANGE_USER;
    assert_false(stream_log_add(l, c));
    assert_int_equal(count(l), 0);
    stream_log_free(l);
}

static void a_new_item_has_the_names_that_the_log_told(void **state)
{
    (void)state;
    struct stream_log *l = new_log(MUCH, 60);
    struct stream_names n;
    assert_true(stream_log_add(l, new_item(AT(101), 1)));
    assert_true(newest(l)->resolved);
    stream_entry_names(newest(l), &n);
    assert_string_equal(n.publisher, "daily");
    assert_int_equal(n.n_topics, 2);
    assert_string_equal(n.topics[1], "chess");
    assert_int_equal(n.n_before, 0);
    stream_log_free(l);
}

static void an_edit_is_completed_by_what_its_item_is(void **state)
{
    (void)state;
    struct stream_log *l = new_log(MUCH, 60);
    static const char *const topics[] = {"music"};
    struct stream_names n;
    assert_true(stream_log_add(l, edited(AT(101), 1, 2)));
    assert_false(newest(l)->resolved);
    stream_entry_names(newest(l), &n);
    assert_string_equal(n.publisher, "");
    stream_log_resolve(l, stream_log_first(l), "daily", topics, 1);
    assert_true(newest(l)->resolved);
    stream_entry_names(newest(l), &n);
    assert_string_equal(n.publisher, "daily");
    assert_string_equal(n.topics[0], "music");
    stream_log_resolve(l, stream_log_end(l), "daily", topics, 1); /* not there */
    stream_log_free(l);
}

static void topics_that_were_told_are_not_replaced(void **state)
{
    (void)state;
    struct stream_log *l = new_log(MUCH, 60);
    static const char *const later[] = {"music"};
    struct change *c = edited(AT(101), 1, 2);
    struct stream_names n;
    c->topics_changed = c->topics_told = true;
    c->n_topics = c->n_topics_before = 1;
    strcpy(c->topics[0], "chess");
    strcpy(c->topics_before[0], "sport");
    assert_true(stream_log_add(l, c));
    stream_log_resolve(l, stream_log_first(l), "daily", later, 1);
    stream_entry_names(newest(l), &n);
    assert_true(newest(l)->topics_changed);
    assert_string_equal(n.publisher, "daily");
    assert_string_equal(n.topics[0], "chess");
    assert_string_equal(n.before[0], "sport");
    stream_log_free(l);
}

static void a_deletion_has_only_former_topics(void **state)
{
    (void)state;
    struct stream_log *l = new_log(MUCH, 60);
    struct change *c = edited(AT(101), 1, 3);
    struct stream_names n;
    c->deleted = c->topics_changed = true;
    c->n_topics_before = 1;
    strcpy(c->topics_before[0], "sport");
    assert_true(stream_log_add(l, c));
    stream_log_resolve(l, stream_log_first(l), "daily", NULL, 0);
    stream_entry_names(newest(l), &n);
    assert_int_equal(newest(l)->kind, STREAM_DELETE);
    assert_int_equal(n.n_topics, 0);
    assert_string_equal(n.before[0], "sport");
    assert_string_equal(n.publisher, "daily");
    stream_log_free(l);
}

/* ---- forgetting ---- */

static void what_is_too_old_goes_and_moves_the_beginning(void **state)
{
    (void)state;
    struct stream_log *l = new_log(MUCH, 60);
    assert_true(stream_log_begins(l) == AT(100));
    assert_true(stream_log_add(l, new_item(AT(101), 1)));
    assert_true(stream_log_add(l, new_item(AT(130), 2)));
    stream_log_expire(l, AT(161));
    assert_int_equal(count(l), 2);
    stream_log_expire(l, AT(162));
    assert_int_equal(count(l), 1);
    assert_true(stream_log_begins(l) == AT(101) + 1);
    stream_log_free(l);
}

static void a_quiet_log_is_remembered_from_where_it_began(void **state)
{
    (void)state;
    struct stream_log *l = new_log(MUCH, 60);
    stream_log_expire(l, AT(100000));
    assert_true(stream_log_begins(l) == AT(100));
    stream_log_free(l);
}

static void the_memory_has_a_bound(void **state)
{
    (void)state;
    struct stream_log *l = new_log(20000, 3600);
    for (unsigned i = 1; i <= 1000; i++) {
        assert_true(stream_log_add(l, new_item(AT(100 + i), i)));
        assert_true(stream_log_bytes(l) <= 20000);
    }
    assert_true(count(l) > 50 && count(l) < 1000);
    assert_int_equal(newest(l)->id, 1000);
    const struct stream_entry *oldest = stream_log_at(l, stream_log_first(l));
    assert_int_equal(oldest->id, 1000 - count(l) + 1);
    assert_true(stream_log_begins(l) <= oldest->pos.t && stream_log_begins(l) > AT(100));
    stream_log_free(l);
}

static void beginning_anew_forgets_all_and_goes_on_counting(void **state)
{
    (void)state;
    struct stream_log *l = new_log(MUCH, 60);
    assert_true(stream_log_add(l, new_item(AT(101), 1)));
    uint64_t end = stream_log_end(l);
    stream_log_begin(l, AT(90));
    assert_true(stream_log_end(l) == end && stream_log_first(l) == end);
    assert_true(stream_log_add(l, new_item(AT(95), 1)));
    assert_true(stream_log_end(l) == end + 1);
    assert_int_equal(stream_log_bytes(l) > 0, 1);
    stream_log_free(l);
}

/* ---- looking ---- */

static void the_entry_after_a_position_is_found(void **state)
{
    (void)state;
    struct stream_log *l = new_log(MUCH, 3600);
    for (unsigned i = 0; i < 300; i++)
        assert_true(stream_log_add(l, new_item(AT(200 + i / 3), i + 1))); /* three of each time */
    uint64_t first = stream_log_first(l);
    for (unsigned i = 0; i < 300; i++) {
        struct stream_pos p = stream_log_at(l, first + i)->pos;
        assert_true(stream_log_after(l, p) == first + i + 1);
        p.k = 0;
        assert_true(stream_log_after(l, p) == first + i / 3 * 3);
    }
    assert_true(stream_log_after(l, (struct stream_pos){AT(1), 9}) == first);
    assert_true(stream_log_after(l, (struct stream_pos){AT(9999), 1}) == first + 300);
    stream_log_free(l);
}

/* ---- joining ---- */

static void what_was_read_later_is_put_in_front(void **state)
{
    (void)state;
    struct stream_log *l = new_log(MUCH, 3600), *older = stream_log_new(MUCH, 3600);
    stream_log_begin(older, AT(50));
    for (unsigned i = 0; i < 100; i++)
        assert_true(stream_log_add(l, new_item(AT(100 + i), 1000 + i)));
    for (unsigned i = 0; i < 70; i++) /* up to 119: the last twenty are known */
        assert_true(stream_log_add(older, new_item(AT(50 + i), 950 + i)));
    uint64_t end = stream_log_end(l), first = stream_log_first(l);
    assert_false(stream_log_join(l, older, AT(100) - 1));
    assert_true(stream_log_join(l, older, AT(100)));
    assert_true(stream_log_end(l) == end && stream_log_first(l) == first - 50);
    assert_true(stream_log_begins(l) == AT(50));
    for (unsigned i = 0; i < 150; i++)
        assert_int_equal(stream_log_at(l, first - 50 + i)->id, 950 + i);
    assert_int_equal(count(older), 0);
    stream_log_free(older);
    stream_log_free(l);
}

static void only_as_much_is_joined_as_there_is_room_for(void **state)
{
    (void)state;
    struct stream_log *l = new_log(10000, 3600), *older = stream_log_new(MUCH, 3600);
    stream_log_begin(older, AT(50));
    assert_true(stream_log_add(l, new_item(AT(200), 2000)));
    for (unsigned i = 0; i < 140; i++)
        assert_true(stream_log_add(older, new_item(AT(50 + i), 1000 + i)));
    stream_log_begin(l, AT(195));
    assert_true(stream_log_add(l, new_item(AT(200), 2000)));
    assert_true(stream_log_join(l, older, AT(195)));
    assert_true(stream_log_bytes(l) <= 10000);
    assert_true(count(l) > 10 && count(l) < 141);
    const struct stream_entry *oldest = stream_log_at(l, stream_log_first(l));
    assert_true(stream_log_begins(l) <= oldest->pos.t && stream_log_begins(l) > AT(50));
    stream_log_free(older);
    stream_log_free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_position_reads_back),
        cmocka_unit_test(what_is_no_position_is_refused),
        cmocka_unit_test(changes_of_one_time_are_told_apart_by_their_number),
        cmocka_unit_test(what_is_told_twice_is_there_once),
        cmocka_unit_test(a_replay_is_nothing_that_a_reader_sees),
        cmocka_unit_test(a_new_item_has_the_names_that_the_log_told),
        cmocka_unit_test(an_edit_is_completed_by_what_its_item_is),
        cmocka_unit_test(topics_that_were_told_are_not_replaced),
        cmocka_unit_test(a_deletion_has_only_former_topics),
        cmocka_unit_test(what_is_too_old_goes_and_moves_the_beginning),
        cmocka_unit_test(a_quiet_log_is_remembered_from_where_it_began),
        cmocka_unit_test(the_memory_has_a_bound),
        cmocka_unit_test(beginning_anew_forgets_all_and_goes_on_counting),
        cmocka_unit_test(the_entry_after_a_position_is_found),
        cmocka_unit_test(what_was_read_later_is_put_in_front),
        cmocka_unit_test(only_as_much_is_joined_as_there_is_room_for),
    };
    return cmocka_run_group_tests_name("feed-api/stream_log", tests, NULL, NULL);
}
