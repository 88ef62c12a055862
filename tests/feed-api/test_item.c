/* Items from JSON, patches, documents, ids. No servers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "common/mem.h"
#include "feed-api/item.h"
#include "feed-api/item_ids.h"

#define NOW INT64_C(1750000000000)

static json_t *parse(const char *text)
{
    json_error_t why;
    json_t *o = json_loads(text, JSON_REJECT_DUPLICATES, &why);
    if (o == NULL)
        fail_msg("the test's own JSON is wrong: %s in %s", why.text, text);
    return o;
}

static struct item item_of(const char *text)
{
    struct item it;
    struct item_problem p = {0};
    json_t *o = parse(text);
    if (item_from_json(o, NOW, &it, &p) != 0)
        fail_msg("refused: %s %s", p.pointer, p.detail);
    json_decref(o);
    return it;
}

static void assert_refused(const char *text, const char *pointer)
{
    struct item it;
    struct item_problem p = {0};
    json_t *o = parse(text);
    if (item_from_json(o, NOW, &it, &p) == 0)
        fail_msg("taken: %s", text);
    assert_string_equal(p.pointer, pointer);
    assert_true(p.detail[0] != '\0');
    json_decref(o);
}

#define FULL                                                                                                 \
    "{\"publisher\":\"daily\",\"external_id\":\"a-1\",\"title\":\"T \\\"q\\\"\",\"body\":\"B\\nline\","      \
    "\"url\":\"https://example.org/a?b=c\",\"media\":[{\"alt\":\"x\",\"type\":\"image/png\","                \
    "\"url\":\"http://example.org/i.png\",\"width\":10,\"height\":0,\"preview_url\":null}],"                 \
    "\"topics\":[\"sport\",\"n\\u00e4he\",\"sport\"],\"lang\":\"pt-BR\","                                    \
    "\"published_at\":\"2024-02-03T04:05:06.789+01:00\",\"extra\":{\"b\":1,\"a\":[1.5,{\"d\":null,\"c\":"    \
    "true}]}}"

static char *json_of(const struct item *it, enum item_parts parts)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    item_write_json(it, parts, &b);
    assert_false(b.full);
    return buf_take(&b);
}

static void a_whole_item_is_answered_in_the_order_of_the_api(void **state)
{
    (void)state;
    struct item it = item_of(FULL);
    it.id = 42;
    char *text = json_of(&it, ITEM_FULL);
    assert_string_equal(
        text, "{\"id\":\"42\",\"publisher\":\"daily\",\"external_id\":\"a-1\",\"revision\":1,"
              "\"title\":\"T \\\"q\\\"\",\"body\":\"B\\nline\",\"url\":\"https://example.org/a?b=c\","
              "\"media\":[{\"url\":\"http://example.org/i.png\",\"type\":\"image/png\",\"width\":10,"
              "\"height\":0,\"alt\":\"x\"}],\"topics\":[\"sport\",\"n\xc3\xa4he\"],\"lang\":\"pt-BR\","
              "\"published_at\":\"2024-02-03T03:05:06.789Z\",\"edited_at\":null,"
              "\"extra\":{\"a\":[1.5,{\"c\":true,\"d\":null}],\"b\":1}}");
    free(text);
    text = json_of(&it, ITEM_SUMMARY);
    assert_null(strstr(text, "\"body\""));
    assert_null(strstr(text, "\"extra\""));
    json_t *o = parse(text);
    assert_int_equal(json_object_size(o), 11);
    json_decref(o);
    free(text);
    item_done(&it);
}

static void absent_fields_are_null_or_empty(void **state)
{
    (void)state;
    struct item it = item_of("{\"publisher\":\"p\",\"title\":\"t\",\"body\":\"\",\"url\":null,\"media\":[],"
                             "\"topics\":null,\"extra\":{}}");
    it.id = 1;
    it.published_ms = 0;
    it.edited_ms = 1000;
    char *text = json_of(&it, ITEM_FULL);
    assert_string_equal(
        text, "{\"id\":\"1\",\"publisher\":\"p\",\"external_id\":null,\"revision\":1,\"title\":\"t\","
              "\"body\":\"\",\"url\":null,\"media\":[],\"topics\":[],\"lang\":null,"
              "\"published_at\":\"1970-01-01T00:00:00.000Z\",\"edited_at\":\"1970-01-01T00:00:01.000Z\","
              "\"extra\":{}}");
    free(text);
    item_done(&it);
}

static void wrong_members_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *members, *pointer;
    } cases[] = {
        {"\"titel\":\"x\"", "/titel"},
        {"\"a/b~c\":1", "/a~1b~0c"},
        {"\"url\":\"ftp://x\"", "/url"},
        {"\"url\":\"javascript:alert(1)\"", "/url"},
        {"\"url\":\"https://\"", "/url"},
        {"\"url\":\"https://a b\"", "/url"},
        {"\"url\":\"\"", "/url"},
        {"\"url\":5", "/url"},
        {"\"external_id\":\"\"", "/external_id"},
        {"\"external_id\":7", "/external_id"},
        {"\"lang\":\"en_US\"", "/lang"},
        {"\"lang\":\"-\"", "/lang"},
        {"\"topics\":\"x\"", "/topics"},
        {"\"topics\":[\"a\",\"b c\"]", "/topics/1"},
        {"\"topics\":[5]", "/topics/0"},
        {"\"media\":{}", "/media"},
        {"\"media\":[1]", "/media/0"},
        {"\"media\":[{\"url\":\"https://x/\"}]", "/media/0/type"},
        {"\"media\":[{\"type\":\"a/b\"}]", "/media/0/url"},
        {"\"media\":[{\"url\":\"https://x/\",\"type\":\"ab\"}]", "/media/0/type"},
        {"\"media\":[{\"url\":\"https://x/\",\"type\":\"a/b\",\"width\":-1}]", "/media/0/width"},
        {"\"media\":[{\"url\":\"https://x/\",\"type\":\"a/b\",\"bytes\":1.5}]", "/media/0/bytes"},
        {"\"media\":[{\"url\":\"https://x/\",\"type\":\"a/b\",\"bytes\":9007199254740992}]",
         "/media/0/bytes"},
        {"\"media\":[{\"url\":\"https://x/\",\"type\":\"a/b\",\"hue\":1}]", "/media/0/hue"},
        {"\"extra\":[]", "/extra"},
        {"\"published_at\":5", "/published_at"},
        {"\"published_at\":\"yesterday\"", "/published_at"},
        {"\"published_at\":\"1969-12-31T23:59:59Z\"", "/published_at"},
    };
    for (size_t i = 0; i < MEM_COUNT(cases); i++) {
        char *text = mem_printf("{\"publisher\":\"p\",\"title\":\"t\",\"body\":\"b\",%s}", cases[i].members);
        assert_refused(text, cases[i].pointer);
        free(text);
    }
    assert_refused("[]", "");
    assert_refused("{\"title\":\"t\",\"body\":\"b\"}", "/publisher");
    assert_refused("{\"publisher\":\"a b\",\"title\":\"t\",\"body\":\"b\"}", "/publisher");
    assert_refused("{\"publisher\":\"p\",\"body\":\"b\"}", "/title");
    assert_refused("{\"publisher\":\"p\",\"title\":\"\",\"body\":\"b\"}", "/title");
    assert_refused("{\"publisher\":\"p\",\"title\":\"t\"}", "/body");
    assert_refused("{\"publisher\":\"p\",\"title\":\"t\",\"body\":null}", "/body");
}

/* What schemathesis found: some clients write all numbers with a point. */
static void whole_numbers_may_be_written_with_a_point(void **state)
{
    (void)state;
    json_t *o =
        json_loads("{\"publisher\":\"p\",\"title\":\"t\",\"body\":\"b\",\"media\":[{\"url\":\"https://x/\","
                   "\"type\":\"a/b\",\"width\":640.0,\"height\":4.8e2}]}",
                   0, NULL);
    struct item it;
    struct item_problem p = {0};
    assert_int_equal(item_from_json(o, NOW, &it, &p), 0);
    assert_string_equal(it.media, "[{\"url\":\"https://x/\",\"type\":\"a/b\",\"width\":640,\"height\":480}]");
    item_done(&it);
    json_decref(o);
    assert_refused("{\"publisher\":\"p\",\"title\":\"t\",\"body\":\"b\",\"media\":[{\"url\":\"https://x/\","
                   "\"type\":\"a/b\",\"width\":1e300}]}",
                   "/media/0/width");
}

static char *repeated(char c, size_t n)
{
    char *s = mem_alloc(n + 1);
    memset(s, c, n);
    s[n] = '\0';
    return s;
}

static bool takes(const char *member, size_t bytes)
{
    char *value = repeated('x', bytes);
    json_t *o = json_pack("{s:s, s:s, s:s}", "publisher", "p", "title", "t", "body", "b");
    if (strcmp(member, "extra") == 0) /* {"k":"..."} has 8 bytes around the text */
        json_object_set_new(o, member, json_pack("{s:s}", "k", value + 8));
    else if (strcmp(member, "url") == 0) {
        memcpy(value, "https://", 8);
        json_object_set_new(o, member, json_string(value));
    } else
        json_object_set_new(o, member, json_string(value));
    struct item it;
    struct item_problem p = {0};
    bool taken = item_from_json(o, NOW, &it, &p) == 0;
    if (taken)
        item_done(&it);
    json_decref(o);
    free(value);
    return taken;
}

static void caps_are_exact(void **state)
{
    (void)state;
    static const struct {
        const char *member;
        size_t max;
    } caps[] = {{"title", 512}, {"external_id", 256}, {"body", 65536},
                {"url", 2048},  {"extra", 4096},      {"lang", 35}};
    for (size_t i = 0; i < MEM_COUNT(caps); i++) {
        if (!takes(caps[i].member, caps[i].max))
            fail_msg("%s of %zu bytes is refused", caps[i].member, caps[i].max);
        if (takes(caps[i].member, caps[i].max + 1))
            fail_msg("%s of %zu bytes is taken", caps[i].member, caps[i].max + 1);
    }
    for (int n = 16; n <= 17; n++) {
        json_t *topics = json_array(), *media = json_array();
        for (int i = 0; i < n; i++) {
            char name[16];
            snprintf(name, sizeof name, "t%d", i);
            json_array_append_new(topics, json_string(name));
            json_array_append_new(media, json_pack("{s:s, s:s}", "url", "https://x/", "type", "a/b"));
        }
        struct item it;
        struct item_problem p = {0};
        json_t *o =
            json_pack("{s:s, s:s, s:s, s:o}", "publisher", "p", "title", "t", "body", "b", "topics", topics);
        int rc = item_from_json(o, NOW, &it, &p);
        assert_int_equal(rc, n == 16 ? 0 : -1);
        if (rc == 0)
            item_done(&it);
        json_object_del(o, "topics");
        json_object_set_new(o, "media", media);
        rc = item_from_json(o, NOW, &it, &p);
        assert_int_equal(rc, n == 16 ? 0 : -1);
        if (rc == 0)
            item_done(&it);
        json_decref(o);
    }
}

static void a_date_up_to_a_minute_ahead_counts_as_now(void **state)
{
    (void)state;
    /* NOW is 2025-06-15T15:06:40Z */
    struct item it = item_of("{\"publisher\":\"p\",\"title\":\"t\",\"body\":\"b\",\"published_at\":"
                             "\"2025-06-15T15:07:40Z\"}");
    assert_int_equal(it.published_ms, NOW);
    item_done(&it);
    it = item_of("{\"publisher\":\"p\",\"title\":\"t\",\"body\":\"b\"}");
    assert_int_equal(it.published_ms, -1);
    item_done(&it);
    assert_refused("{\"publisher\":\"p\",\"title\":\"t\",\"body\":\"b\",\"published_at\":"
                   "\"2025-06-15T15:07:40.001Z\"}",
                   "/published_at");
}

static void what_is_nested_too_deeply_is_refused(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 10000);
    buf_add_str(&b, "{\"publisher\":\"p\",\"title\":\"t\",\"body\":\"b\",\"extra\":");
    for (int i = 0; i < 30; i++)
        buf_add_str(&b, "{\"a\":");
    buf_add_str(&b, "1");
    for (int i = 0; i < 31; i++)
        buf_add_str(&b, "}");
    assert_refused(b.data, "/extra");
    buf_done(&b);
}

static int patch(struct item *it, const char *text, bool *changed, struct item_problem *p)
{
    json_t *o = parse(text);
    *p = (struct item_problem){{0}, {0}};
    int rc = item_patch(it, o, changed, p);
    json_decref(o);
    return rc;
}

static void a_patch_merges_and_null_takes_away(void **state)
{
    (void)state;
    struct item it = item_of(FULL);
    struct item_problem p = {0};
    bool changed = false;
    assert_int_equal(patch(&it,
                           "{\"title\":\"new\",\"url\":null,\"extra\":{\"b\":null,\"z\":{\"y\":null,\"x\":1}}"
                           ",\"topics\":[\"b\"]}",
                           &changed, &p),
                     0);
    assert_true(changed);
    assert_string_equal(it.title, "new");
    assert_string_equal(it.body, "B\nline");
    assert_null(it.url);
    assert_string_equal(it.extra, "{\"a\":[1.5,{\"c\":true,\"d\":null}],\"z\":{\"x\":1}}");
    assert_int_equal(it.n_topics, 1);
    assert_string_equal(it.topics[0], "b");
    assert_non_null(it.media);
    assert_int_equal(patch(&it, "{\"title\":\"new\",\"url\":null,\"extra\":{\"b\":null}}", &changed, &p), 0);
    assert_false(changed);
    item_done(&it);
}

static void a_patch_of_what_is_fixed_changes_nothing(void **state)
{
    (void)state;
    static const char *const members[] = {"id",           "publisher", "external_id",
                                          "published_at", "revision",  "edited_at"};
    struct item it = item_of(FULL);
    struct item_problem p = {0};
    bool changed = false;
    for (size_t i = 0; i < MEM_COUNT(members); i++) {
        char *text = mem_printf("{\"title\":\"new\",\"%s\":\"5\"}", members[i]);
        char *pointer = mem_printf("/%s", members[i]);
        assert_int_equal(patch(&it, text, &changed, &p), -1);
        assert_string_equal(p.pointer, pointer);
        free(text);
        free(pointer);
    }
    assert_int_equal(patch(&it, "{\"title\":null}", &changed, &p), -1);
    assert_string_equal(p.pointer, "/title");
    assert_int_equal(patch(&it, "{\"colour\":1}", &changed, &p), -1);
    assert_string_equal(p.pointer, "/colour");
    assert_int_equal(patch(&it, "[]", &changed, &p), -1);
    assert_string_equal(it.title, "T \"q\"");
    item_done(&it);
}

static void a_document_reads_back_as_it_was_written(void **state)
{
    (void)state;
    struct item it = item_of(FULL), back;
    struct err e;
    it.id = 77;
    it.revision = 3;
    it.created_ms = NOW;
    it.edited_ms = NOW + 5;
    bson_t d = BSON_INITIALIZER;
    item_to_bson(&it, &d);
    BSON_APPEND_UTF8(&d, "topics_before", "of no concern");
    assert_int_equal(item_from_bson(&d, &back, &e), 0);
    assert_true(item_same_content(&it, &back));
    assert_true(back.live);
    assert_int_equal(back.id, 77);
    assert_int_equal(back.revision, 3);
    assert_int_equal(back.published_ms, it.published_ms);
    assert_int_equal(back.edited_ms, NOW + 5);
    assert_string_equal(back.publisher, "daily");
    assert_string_equal(back.external_id, "a-1");
    item_done(&back);
    item_done(&it);
    bson_destroy(&d);
}

static void damaged_documents_are_told(void **state)
{
    (void)state;
    bson_t *cases[] = {
        BCON_NEW("_id", BCON_INT64(1), "revision", BCON_INT32(1)),
        BCON_NEW("_id", BCON_UTF8("1"), "revision", BCON_INT32(1), "publisher", "p"),
        BCON_NEW("_id", BCON_INT64(1), "revision", BCON_INT32(0), "publisher", "p"),
        BCON_NEW("_id", BCON_INT64(1), "revision", BCON_INT32(1), "publisher", "p", "live", BCON_BOOL(true)),
        BCON_NEW("_id", BCON_INT64(1), "revision", BCON_INT32(1), "publisher", "p", "topics", "[",
                 BCON_INT32(1), "]"),
        BCON_NEW("_id", BCON_INT64(1), "revision", BCON_INT32(1), "publisher", BCON_INT32(5)),
    };
    for (size_t i = 0; i < MEM_COUNT(cases); i++) {
        struct item it;
        struct err e;
        assert_int_equal(item_from_bson(cases[i], &it, &e), -1);
        assert_int_equal(e.code, ERR_CORRUPT);
        bson_destroy(cases[i]);
    }
    bson_t *tombstone = BCON_NEW("_id", BCON_INT64(1), "revision", BCON_INT32(2), "publisher", "p",
                                 "external_id", "x", "deleted_at", BCON_DATE_TIME(5));
    struct item it;
    struct err e;
    assert_int_equal(item_from_bson(tombstone, &it, &e), 0);
    assert_false(it.live);
    item_done(&it);
    bson_destroy(tombstone);
}

static void topics_are_compared_as_sets(void **state)
{
    (void)state;
#define WITH(topics) item_of("{\"publisher\":\"p\",\"title\":\"t\",\"body\":\"b\",\"topics\":" topics "}")
    struct item a = WITH("[\"x\",\"y\"]"), b = WITH("[\"y\",\"x\"]"), c = WITH("[\"x\",\"z\"]"),
                d = WITH("[\"x\"]");
    assert_true(item_same_topics(&a, &b));
    assert_true(item_same_content(&a, &b));
    assert_false(item_same_topics(&a, &c));
    assert_false(item_same_topics(&a, &d));
    assert_false(item_same_content(&d, &a));
    item_done(&a);
    item_done(&b);
    item_done(&c);
    item_done(&d);
}

/* ---- ids ---- */

static int compare_ids(const void *a, const void *b)
{
    item_id x = *(const item_id *)a, y = *(const item_id *)b;
    return (x > y) - (x < y);
}

static void a_hundred_thousand_items_of_one_date_need_no_second_try(void **state)
{
    (void)state;
    struct item_ids *g = item_ids_new();
    size_t n = 100000;
    item_id *ids = mem_zero(n, sizeof *ids);
    for (size_t i = 0; i < n; i++) {
        ids[i] = item_ids_next(g, NOW);
        item_ids_result(g, NOW, ids[i], true);
        /* other dates in between don't push the crowded one out of memory */
        item_ids_next(g, NOW + 1000 + (int64_t)i);
    }
    qsort(ids, n, sizeof *ids, compare_ids);
    for (size_t i = 1; i < n; i++)
        assert_true(ids[i] != ids[i - 1]);
    assert_int_equal(ids_time_ms(ids[0]), NOW);
    assert_int_equal(ids_time_ms(ids[n - 1]), NOW + 48);
    free(ids);
    item_ids_free(g);
}

static void eight_taken_ids_in_a_row_lead_to_the_next_millisecond(void **state)
{
    (void)state;
    struct item_ids *g = item_ids_new();
    for (int i = 0; i < ITEM_IDS_TRIES; i++) {
        item_id id = item_ids_next(g, NOW);
        assert_int_equal(ids_time_ms(id), NOW);
        item_ids_result(g, NOW, id, false);
    }
    item_id id = item_ids_next(g, NOW);
    assert_int_equal(ids_time_ms(id), NOW + 1);
    item_ids_result(g, NOW, id, true);
    assert_int_equal(ids_time_ms(item_ids_next(g, NOW)), NOW + 1);
    item_ids_free(g);
}

static void ids_that_were_not_needed_are_not_used_up(void **state)
{
    (void)state;
    struct item_ids *g = item_ids_new();
    for (int i = 0; i < 5000; i++) {
        item_id id = item_ids_next(g, NOW);
        assert_int_equal(ids_time_ms(id), NOW);
        item_ids_unused(g, NOW, id);
    }
    item_ids_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_item_is_answered_in_the_order_of_the_api),
        cmocka_unit_test(absent_fields_are_null_or_empty),
        cmocka_unit_test(wrong_members_are_named),
        cmocka_unit_test(whole_numbers_may_be_written_with_a_point),
        cmocka_unit_test(caps_are_exact),
        cmocka_unit_test(a_date_up_to_a_minute_ahead_counts_as_now),
        cmocka_unit_test(what_is_nested_too_deeply_is_refused),
        cmocka_unit_test(a_patch_merges_and_null_takes_away),
        cmocka_unit_test(a_patch_of_what_is_fixed_changes_nothing),
        cmocka_unit_test(a_document_reads_back_as_it_was_written),
        cmocka_unit_test(damaged_documents_are_told),
        cmocka_unit_test(topics_are_compared_as_sets),
        cmocka_unit_test(a_hundred_thousand_items_of_one_date_need_no_second_try),
        cmocka_unit_test(eight_taken_ids_in_a_row_lead_to_the_next_millisecond),
        cmocka_unit_test(ids_that_were_not_needed_are_not_used_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
