/* Replies in memory that is used again look as hiredis' own do. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "common/buf.h"
#include "feed-api/reply_arena.h"

static void same(const redisReply *a, const redisReply *b)
{
    assert_int_equal(a->type, b->type);
    assert_int_equal(a->integer, b->integer);
    assert_int_equal(a->len, b->len);
    assert_int_equal(a->elements, b->elements);
    assert_int_equal(a->str == NULL, b->str == NULL);
    if (a->str)
        assert_memory_equal(a->str, b->str, a->len + 1);
    for (size_t i = 0; i < a->elements; i++)
        same(a->element[i], b->element[i]);
}

/* Feeds the text in pieces of `step` bytes to a reader of each kind; the number of replies. */
static unsigned compare(struct reply_arena *arena, const char *text, size_t n, size_t step)
{
    redisReader *own = redisReaderCreate(), *plain = redisReaderCreate();
    unsigned replies = 0;
    reply_arena_use(arena, own);
    for (size_t at = 0; at < n; at += step) {
        size_t piece = n - at < step ? n - at : step;
        void *a = NULL, *b = NULL;
        redisReaderFeed(own, text + at, piece);
        redisReaderFeed(plain, text + at, piece);
        for (;;) {
            assert_int_equal(redisReaderGetReply(own, &a), REDIS_OK);
            assert_int_equal(redisReaderGetReply(plain, &b), REDIS_OK);
            assert_int_equal(a == NULL, b == NULL);
            if (a == NULL)
                break;
            same(a, b);
            freeReplyObject(b);
            replies++;
        }
    }
    redisReaderFree(own); /* in the middle of a reply, perhaps */
    redisReaderFree(plain);
    return replies;
}

static void replies_look_as_hiredis_makes_them(void **state)
{
    static const char text[] =
        "+OK\r\n+QUEUED\r\n"
        "*4\r\n*2\r\n$3\r\nabc\r\n$-1\r\n*3\r\n$0\r\n\r\n:42\r\n-ERR no\r\n*-1\r\n*0\r\n"
        "$-1\r\n:-7\r\n-ERR x\r\n$5\r\n\0\1\2\3\4\r\n*1\r\n$4\r\nhalf";
    struct reply_arena *arena = reply_arena_new();
    (void)state;
    for (size_t step = 1; step < sizeof text; step++)
        assert_int_equal(compare(arena, text, sizeof text - 1, step), 7);
    reply_arena_free(arena);
}

static void large_replies_fit_and_small_ones_follow(void **state)
{
    struct reply_arena *arena = reply_arena_new();
    struct buf b;
    (void)state;
    buf_init(&b, 1 << 24);
    for (unsigned round = 0; round < 3; round++) {
        buf_add_str(&b, "*20000\r\n");
        for (unsigned i = 0; i < 20000; i++)
            buf_printf(&b, "$%u\r\n%016u\r\n", 16, i);
        buf_add_str(&b, "$40000\r\n");
        for (unsigned i = 0; i < 4000; i++)
            buf_add_str(&b, "0123456789");
        buf_add_str(&b, "\r\n+OK\r\n");
    }
    assert_int_equal(compare(arena, b.data, b.len, b.len), 9);
    assert_int_equal(compare(arena, b.data, b.len, 1000), 9);
    buf_done(&b);
    reply_arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(replies_look_as_hiredis_makes_them),
        cmocka_unit_test(large_replies_fit_and_small_ones_follow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
