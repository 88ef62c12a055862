#include "common/gzip_page.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "common/mem.h"

#define PLAIN_MAX   (16 * 1024 * 1024)
#define STORED_MAX  65535 /* bytes in a stored block */
#define STORED_HEAD 5     /* its first byte, its length, and that inverted */
#define LENGTHS     4     /* of these the two lengths */

#define LEVEL       6
#define LEVEL_LARGE 3 /* one that may be deflated on a loop's thread should not take milliseconds */
#define LARGE       (16 * 1024)
#define UNSEEN      262 /* bytes of its window that deflate does not look back over */

/* ---- blocks ---- */

static void must(int rc, const char *what)
{
    if (rc == Z_OK)
        return;
    fprintf(stderr, "feedmill: %s: %d\n", what, rc); /* out of memory */
    abort();
}

/* The smallest window that all n bytes can be seen through, and room for as many symbols, so that it is one
 * block: most of the time of a small one would go into clearing memory. */
static void deflater_init(z_stream *z, size_t n)
{
    int bits = 9;
    while (bits < MAX_WBITS && (size_t)1 << bits < n + UNSEEN)
        bits++;
    int mem = bits - 6 < 8 ? bits - 6 : 8;
    must(deflateInit2(z, n > LARGE ? LEVEL_LARGE : LEVEL, Z_DEFLATED, -bits, mem, Z_DEFAULT_STRATEGY),
         "deflateInit2");
}

/* A flush ends with an empty stored block: its lengths are left off, what follows the block brings its own.
 */
struct gzip_block *gzip_block_new(const void *p, size_t n)
{
    assert(n <= PLAIN_MAX);
    z_stream z = {0};
    deflater_init(&z, n);
    size_t room = deflateBound(&z, (uLong)n) + 2 * STORED_HEAD;
    struct gzip_block *b = mem_alloc(sizeof *b + room);
    z.next_in = (Bytef *)(uintptr_t)p;
    z.avail_in = (uInt)n;
    z.next_out = b->bytes;
    z.avail_out = (uInt)room;
    must(deflate(&z, Z_FULL_FLUSH), "deflate");
    assert(z.avail_in == 0 && z.avail_out > 0);
    b->plain_len = n;
    b->len = room - z.avail_out - LENGTHS;
    b->crc = (uint32_t)crc32(0, p, (uInt)n);
    b->shift = (uint32_t)crc32_combine_gen((z_off_t)n);
    deflateEnd(&z);
    return mem_grow(b, sizeof *b + b->len, 1);
}

size_t gzip_block_bytes(const struct gzip_block *b)
{
    return b != NULL ? sizeof *b + b->len : 0;
}

/* ---- pages ---- */

static void put_16(char *p, uint32_t v)
{
    p[0] = (char)(v & 0xff);
    p[1] = (char)(v >> 8 & 0xff);
}

static void add_32(struct buf *out, uint32_t v)
{
    char bytes[4];
    put_16(bytes, v & 0xffff);
    put_16(bytes + 2, v >> 16);
    buf_add(out, bytes, sizeof bytes);
}

static void put_lengths(char *p, size_t n)
{
    put_16(p, (uint32_t)n);
    put_16(p + 2, (uint32_t)~n);
}

static void open_stored(struct gzip_page *g)
{
    g->open = g->out->len;
    buf_add(g->out, "\0\0\0\0", LENGTHS);
}

/* n plain bytes from start on are more than one stored block holds: makes room for the heads of further ones,
 * from the last to the first. */
static void split_stored(struct gzip_page *g, size_t start, size_t n)
{
    static const char zeros[STORED_HEAD];
    size_t more = (n - 1) / STORED_MAX;
    for (size_t i = 0; i < more; i++)
        buf_add(g->out, zeros, STORED_HEAD);
    if (g->out->full)
        return;
    char *plain = g->out->data + start;
    for (size_t i = more; i > 0; i--) {
        size_t from = i * STORED_MAX, len = n - from < STORED_MAX ? n - from : STORED_MAX;
        char *to = plain + from + i * STORED_HEAD;
        memmove(to, plain + from, len);
        to[-STORED_HEAD] = 0;
        put_lengths(to - LENGTHS, len);
    }
}

/* The stored block that began at g->open ends here. */
static void close_stored(struct gzip_page *g)
{
    if (g->out->full)
        return;
    size_t start = g->open + LENGTHS, n = g->out->len - start;
    g->crc = (uint32_t)crc32(g->crc, (const Bytef *)g->out->data + start, (uInt)n);
    g->len += (uint32_t)n;
    put_lengths(g->out->data + g->open, n < STORED_MAX ? n : STORED_MAX);
    if (n > STORED_MAX)
        split_stored(g, start, n);
}

void gzip_page_begin(struct gzip_page *g, struct buf *out)
{
    /* No time, no name, an unknown system; then the first byte of a stored block. */
    static const char head[] = {0x1f, (char)0x8b, 8, 0, 0, 0, 0, 0, 0, (char)0xff, 0};
    *g = (struct gzip_page){.out = out};
    buf_add(out, head, sizeof head);
    open_stored(g);
}

void gzip_page_add(struct gzip_page *g, const struct gzip_block *b)
{
    close_stored(g);
    buf_add(g->out, b->bytes, b->len);
    g->crc = (uint32_t)crc32_combine_op(g->crc, b->crc, b->shift);
    g->len += (uint32_t)b->plain_len;
    open_stored(g);
}

void gzip_page_end(struct gzip_page *g)
{
    close_stored(g);
    buf_add(g->out, "\3\0", 2); /* the final block, an empty one with fixed codes */
    add_32(g->out, g->crc);
    add_32(g->out, g->len);
}
