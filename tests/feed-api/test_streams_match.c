/* Who is sent what of a change. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "feed-api/content_private.h"
#include "feed-api/streams_private.h"

#define ID     3676776856342298
#define BOTH   (MET_BEFORE | MET_NOW)
#define NOBODY "" /* mutes nothing */

/* What happened to an item of "daily", in words: topics before and now, and what it is like now. */
struct happening {
    enum stream_kind kind;
    const char *before, *now; /* a topic or NULL */
    bool changed;             /* of topics */
    bool gone;                /* it was deleted later, or by this */
    const char *title;
};

static struct item item_of(const struct happening *h)
{
    struct item it = {.id = ID, .revision = 2, .live = !h->gone};
    it.publisher = mem_strdup("daily");
    it.title = mem_strdup(h->title != NULL ? h->title : "a title");
    it.body = mem_strdup("a body");
    if (h->now != NULL && !h->gone)
        strcpy(it.topics[it.n_topics++], h->now);
    return it;
}

static struct change change_of(const struct happening *h)
{
    struct change c = {.kind = CHANGE_ITEM, .t = ts_make(100, 1), .item = ID, .revision = 2};
    c.inserted = c.item_told = h->kind == STREAM_ITEM;
    c.deleted = h->kind == STREAM_DELETE;
    c.topics_changed = h->changed || c.deleted;
    c.topics_told = h->changed;
    if (c.inserted)
        strcpy(c.publisher, "daily");
    if (h->now != NULL && (c.inserted || h->changed))
        strcpy(c.topics[c.n_topics++], h->now);
    if (h->before != NULL && c.topics_changed)
        strcpy(c.topics_before[c.n_topics_before++], h->before);
    return c;
}

/* The event's name, "" for none. */
static const char *told(const struct happening *h, unsigned met, const char *muted)
{
    static char name[16];
    struct streams ss = {.app = NULL};
    struct change c = change_of(h);
    struct item it = item_of(h);
    struct mutes m;
    struct pick p;
    ss.log = stream_log_new(1 << 20, 60);
    stream_log_begin(ss.log, ts_make(1, 0));
    assert_true(stream_log_add(ss.log, &c));
    uint64_t seq = stream_log_first(ss.log);
    pick_init(&p, seq, stream_log_at(ss.log, seq));
    p.content = content_entry_new(&it);
    pick_resolve(&ss, &p);
    assert_true(stream_log_at(ss.log, seq)->resolved);
    mutes_parse(muted, &m);
    const struct frame *f = pick_frame(&ss, &p, met, &m);
    name[0] = '\0';
    if (f != NULL)
        assert_int_equal(sscanf(f->data, "id: %*s\nevent: %15s\ndata: {\"id\":\"3676776856342298\"", name),
                         1);
    mutes_done(&m);
    pick_done(&p);
    item_done(&it);
    stream_log_free(ss.log);
    assert_int_equal(atomic_load(&ss.frame_bytes), 0);
    return name;
}

/* ---- tests ---- */

static void a_new_item_is_told_to_who_does_not_mute_it(void **state)
{
    (void)state;
    struct happening h = {.kind = STREAM_ITEM, .now = "sport", .title = "All about turnips"};
    assert_string_equal(told(&h, MET_NOW, NOBODY), "item");
    assert_string_equal(told(&h, MET_NOW, "p:other\nt:music\nw:turnip\ni:5"), "item");
    assert_string_equal(told(&h, MET_NOW, "p:daily"), "");
    assert_string_equal(told(&h, MET_NOW, "t:sport"), "");
    assert_string_equal(told(&h, MET_NOW, "w:turnips"), "");
    assert_string_equal(told(&h, MET_NOW, "i:3676776856342298"), "");
}

static void an_edit_is_told_to_who_has_it(void **state)
{
    (void)state;
    struct happening h = {.kind = STREAM_EDIT, .now = "sport", .title = "All about turnips"};
    assert_string_equal(told(&h, BOTH, NOBODY), "edit");
    assert_string_equal(told(&h, BOTH, "t:sport"), "");
    assert_string_equal(told(&h, BOTH, "w:turnips"), "delete");
}

static void a_change_of_topics_is_told_by_what_it_does_to_the_feed(void **state)
{
    (void)state;
    struct happening h = {.kind = STREAM_EDIT, .before = "sport", .now = "music", .changed = true};
    assert_string_equal(told(&h, BOTH, NOBODY), "edit");
    assert_string_equal(told(&h, MET_BEFORE, NOBODY), "delete");
    assert_string_equal(told(&h, MET_NOW, NOBODY), "item");
    assert_string_equal(told(&h, BOTH, "t:sport"), "item");
    assert_string_equal(told(&h, BOTH, "t:music"), "delete");
    assert_string_equal(told(&h, MET_BEFORE, "t:sport"), "");
    assert_string_equal(told(&h, MET_NOW, "t:music"), "");
}

static void a_deletion_is_told_to_who_had_it(void **state)
{
    (void)state;
    struct happening h = {.kind = STREAM_DELETE, .before = "sport", .gone = true};
    assert_string_equal(told(&h, MET_BEFORE, NOBODY), "delete");
    assert_string_equal(told(&h, MET_BEFORE, "t:sport"), "");
    assert_string_equal(told(&h, MET_BEFORE, "p:daily"), "");
    assert_string_equal(told(&h, MET_BEFORE, "w:turnips"), "delete");
}

static void what_is_gone_by_now_is_told_to_nobody_but_who_lost_it_before(void **state)
{
    (void)state;
    struct happening made = {.kind = STREAM_ITEM, .now = "sport", .gone = true};
    struct happening edited = {.kind = STREAM_EDIT, .gone = true};
    struct happening moved = {
        .kind = STREAM_EDIT, .before = "sport", .now = "music", .changed = true, .gone = true};
    assert_string_equal(told(&made, MET_NOW, NOBODY), "");
    assert_string_equal(told(&edited, BOTH, NOBODY), "");
    assert_string_equal(told(&moved, BOTH, NOBODY), "");
    assert_string_equal(told(&moved, MET_NOW, NOBODY), "");
    assert_string_equal(told(&moved, MET_BEFORE, NOBODY), "delete");
    assert_string_equal(told(&moved, BOTH, "t:music"), "delete");
}

static void frames_say_where_the_stream_stands(void **state)
{
    (void)state;
    struct streams ss = {.app = NULL};
    struct stream_pos p = {ts_make(1, 2), 3};
    struct frame *f = frame_new(&ss, &p, "reset", "{}", 2);
    assert_string_equal(f->data, "id: 0000000100000002-3\nevent: reset\ndata: {}\n\n");
    frame_unref(f);
    f = frame_new(&ss, &p, NULL, NULL, 0);
    assert_string_equal(f->data, ":\nid: 0000000100000002-3\n\n");
    frame_unref(f);
    f = frame_new(&ss, NULL, NULL, NULL, 0);
    assert_string_equal(f->data, ":\n\n");
    assert_int_equal(atomic_load(&ss.frame_bytes), 3);
    frame_unref(f);
    assert_int_equal(atomic_load(&ss.frame_bytes), 0);
    for (int i = 0; i < 100; i++) {
        unsigned ms;
        f = frame_retry(&ss);
        assert_int_equal(sscanf(f->data, "retry: %u\n\n", &ms), 1);
        assert_true(ms >= STREAM_RETRY_MS && ms < 4 * STREAM_RETRY_MS);
        frame_unref(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_item_is_told_to_who_does_not_mute_it),
        cmocka_unit_test(an_edit_is_told_to_who_has_it),
        cmocka_unit_test(a_change_of_topics_is_told_by_what_it_does_to_the_feed),
        cmocka_unit_test(a_deletion_is_told_to_who_had_it),
        cmocka_unit_test(what_is_gone_by_now_is_told_to_nobody_but_who_lost_it_before),
        cmocka_unit_test(frames_say_where_the_stream_stands),
    };
    return cmocka_run_group_tests_name("feed-api/streams_match", tests, NULL, NULL);
}
