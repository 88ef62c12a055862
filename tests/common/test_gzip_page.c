/* gzip data put together from blocks is what any reader of gzip takes, and holds what was put in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "common/gzip_page.h"
#include "common/mem.h"

#define OUT_MAX (64 * 1024 * 1024)

static uint64_t seed = 20261121;

static uint32_t random_below(uint32_t n)
{
    seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % n;
}

/* Words of a few, as text has them, or bytes by chance. */
static void fill(char *p, size_t n, bool text)
{
    static const char *const words[] = {"{\"id\":\"", "the ", "of ",       "feed ",
                                        "\\u00e9",    "</p>", "timeline ", "a"};
    for (size_t i = 0; i < n;) {
        const char *w = words[random_below(MEM_COUNT(words))];
        if (!text || random_below(4) == 0)
            p[i++] = (char)random_below(256);
        for (; text && *w != '\0' && i < n; w++)
            p[i++] = *w;
    }
}

/* Reads it with zlib, `at_once` bytes at a time, and fails unless it is `plain` and nothing else. */
static void expect_gunzip(const struct buf *zipped, const char *plain, size_t n, size_t at_once)
{
    z_stream z = {0};
    char *out = mem_alloc(n + 1);
    assert_int_equal(inflateInit2(&z, 16 + MAX_WBITS), Z_OK);
    z.next_out = (Bytef *)out;
    z.avail_out = (uInt)n + 1;
    int rc = Z_OK;
    for (size_t at = 0; at < zipped->len && rc == Z_OK; at += at_once) {
        z.next_in = (Bytef *)zipped->data + at;
        z.avail_in = (uInt)(zipped->len - at < at_once ? zipped->len - at : at_once);
        rc = inflate(&z, Z_NO_FLUSH);
        if (rc == Z_BUF_ERROR)
            rc = Z_OK;
    }
    if (rc != Z_STREAM_END)
        fail_msg("inflate: %d %s", rc, z.msg ? z.msg : "");
    assert_int_equal(z.avail_in, 0); /* nothing behind the end */
    assert_int_equal(z.total_out, n);
    assert_memory_equal(out, plain, n);
    inflateEnd(&z);
    free(out);
}

struct pages {
    struct buf plain, zipped;
    struct gzip_page g;
};

static void open_pages(struct pages *p)
{
    buf_init(&p->plain, OUT_MAX);
    buf_init(&p->zipped, OUT_MAX);
    gzip_page_begin(&p->g, &p->zipped);
}

static void add_plain(struct pages *p, const char *s, size_t n)
{
    buf_add(&p->plain, s, n);
    buf_add(&p->zipped, s, n);
}

static void add_block(struct pages *p, const char *s, size_t n)
{
    struct gzip_block *b = gzip_block_new(s, n);
    assert_int_equal(b->plain_len, n);
    assert_int_equal(gzip_block_bytes(b), sizeof *b + b->len);
    buf_add(&p->plain, s, n);
    gzip_page_add(&p->g, b);
    free(b);
}

static void close_pages(struct pages *p, size_t at_once)
{
    gzip_page_end(&p->g);
    assert_false(p->zipped.full);
    expect_gunzip(&p->zipped, p->plain.data ? p->plain.data : "", p->plain.len, at_once);
    buf_done(&p->plain);
    buf_done(&p->zipped);
}

static void an_empty_page_is_gzip_of_nothing(void **state)
{
    struct pages p;
    (void)state;
    open_pages(&p);
    close_pages(&p, 1);
    open_pages(&p);
    add_block(&p, "", 0);
    add_block(&p, "", 0);
    close_pages(&p, 1);
}

static void a_page_without_blocks_is_what_stands_between(void **state)
{
    struct pages p;
    (void)state;
    open_pages(&p);
    add_plain(&p, "{\"items\":[", 10);
    add_plain(&p, "]}", 2);
    close_pages(&p, 1);
}

static void random_pages_are_read_back(void **state)
{
    char *s = mem_alloc(4000);
    (void)state;
    for (int round = 0; round < 300; round++) {
        struct pages p;
        open_pages(&p);
        for (unsigned i = random_below(24); i > 0; i--) {
            size_t n = random_below(3) ? random_below(4000) : random_below(4);
            fill(s, n, random_below(5) > 0);
            if (random_below(2))
                add_block(&p, s, n);
            else
                add_plain(&p, s, n);
        }
        close_pages(&p, 1 + random_below(5000));
    }
    free(s);
}

/* Each length around the sizes of windows and of zlib's own buffers. */
static void blocks_of_any_length_are_whole(void **state)
{
    char *s = mem_alloc(70000);
    (void)state;
    for (size_t around = 1; around <= 65536; around *= 2) {
        for (size_t n = around > 3 ? around - 3 : 0; n <= around + 300; n += n < around + 3 ? 1 : 61) {
            struct pages p;
            open_pages(&p);
            fill(s, n, n % 3 > 0);
            add_block(&p, s, n);
            add_plain(&p, ",", 1);
            add_block(&p, s, n);
            close_pages(&p, 65536);
        }
    }
    free(s);
}

static void a_hundred_bodies_of_64_KiB_are_a_page(void **state)
{
    struct pages p;
    size_t n = 65536 + 700;
    char *s = mem_alloc(n);
    (void)state;
    fill(s, n, true);
    open_pages(&p);
    add_plain(&p, "[", 1);
    for (int i = 0; i < 100; i++) {
        if (i)
            add_plain(&p, ",", 1);
        s[random_below((uint32_t)n)] = 'x';
        add_block(&p, s, n);
    }
    add_plain(&p, "]", 1);
    assert_true(p.zipped.len < p.plain.len * 3 / 4);
    close_pages(&p, 1 << 20);
    free(s);
}

static void what_stands_between_may_be_longer_than_a_stored_block(void **state)
{
    static const size_t lengths[] = {65534, 65535, 65536, 131069, 131070, 131071, 200000, 1000000};
    char *s = mem_alloc(1000000);
    (void)state;
    for (size_t i = 0; i < MEM_COUNT(lengths); i++) {
        struct pages p;
        fill(s, lengths[i], true);
        open_pages(&p);
        add_plain(&p, s, lengths[i]);
        add_block(&p, s, 1000);
        add_plain(&p, s, lengths[i]);
        close_pages(&p, 100000);
    }
    free(s);
}

/* Or one block could not be put into another page. */
static void a_block_does_not_depend_on_where_it_stands(void **state)
{
    char s[2000];
    struct buf out;
    struct gzip_page g;
    (void)state;
    fill(s, sizeof s, true);
    struct gzip_block *a = gzip_block_new(s, sizeof s), *b = gzip_block_new(s + 500, 900);
    for (int order = 0; order < 2; order++) {
        char plain[2900];
        buf_init(&out, OUT_MAX);
        gzip_page_begin(&g, &out);
        gzip_page_add(&g, order ? b : a);
        gzip_page_add(&g, order ? a : b);
        gzip_page_end(&g);
        memcpy(plain + (order ? 900 : 0), s, sizeof s);
        memcpy(plain + (order ? 0 : sizeof s), s + 500, 900);
        expect_gunzip(&out, plain, sizeof plain, out.len);
        buf_done(&out);
    }
    free(a);
    free(b);
}

static void text_becomes_smaller(void **state)
{
    char s[1000];
    (void)state;
    for (size_t i = 0; i < sizeof s; i++)
        s[i] = "it is the nature of feeds to repeat themselves "[i % 47];
    struct gzip_block *b = gzip_block_new(s, sizeof s);
    assert_true(b->len < 120);
    free(b);
}

static void a_page_beyond_the_buffers_cap_is_full_and_harms_nothing(void **state)
{
    char s[3000];
    (void)state;
    fill(s, sizeof s, true);
    struct gzip_block *b = gzip_block_new(s, sizeof s);
    for (size_t max = 1; max < 9000; max += 7) {
        struct buf out;
        struct gzip_page g;
        buf_init(&out, max);
        gzip_page_begin(&g, &out);
        buf_add(&out, s, sizeof s);
        gzip_page_add(&g, b);
        buf_add(&out, s, sizeof s);
        gzip_page_end(&g);
        assert_int_equal(out.full, max < 11 + 4 + 3000 + b->len + 4 + 3000 + 2 + 8);
        assert_true(out.len <= max);
        buf_done(&out);
    }
    free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_page_is_gzip_of_nothing),
        cmocka_unit_test(a_page_without_blocks_is_what_stands_between),
        cmocka_unit_test(random_pages_are_read_back),
        cmocka_unit_test(blocks_of_any_length_are_whole),
        cmocka_unit_test(a_hundred_bodies_of_64_KiB_are_a_page),
        cmocka_unit_test(what_stands_between_may_be_longer_than_a_stored_block),
        cmocka_unit_test(a_block_does_not_depend_on_where_it_stands),
        cmocka_unit_test(text_becomes_smaller),
        cmocka_unit_test(a_page_beyond_the_buffers_cap_is_full_and_harms_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
