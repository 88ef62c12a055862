/* gzip_page.h - gzip data (RFC 1952) put together from blocks that were deflated before.
 *
 * A block is deflated once, by itself: nothing in it refers to what stands before it, and it ends on a byte.
 * So blocks can be copied one after the other, in any order and any file. What stands between them goes in as
 * it is, in stored blocks (RFC 1951, 3.2.4). The checksum of the whole comes from those of the blocks, which
 * is independent of their length (crc32_combine_op() of zlib). Pure; any thread, one page at a time.
 *
 *   struct gzip_page g;
 *   gzip_page_begin(&g, &out);
 *   buf_add_str(&out, "[");          plain bytes go into out as they are
 *   gzip_page_add(&g, block);
 *   buf_add_str(&out, "]");
 *   gzip_page_end(&g);
 */
#ifndef FEEDMILL_GZIP_PAGE_H
#define FEEDMILL_GZIP_PAGE_H

#include <stddef.h>
#include <stdint.h>
#include "common/buf.h"

/* Immutable. */
struct gzip_block {
    uint32_t crc;     /* of the plain bytes */
    uint32_t shift;   /* crc32_combine_gen() of their number */
    size_t plain_len; /* bytes */
    size_t len;
    unsigned char bytes[]; /* deflated, and the first byte of a stored block */
};

/* gzip_block_new() deflates n bytes (up to 16 MiB); free() it. About 60 MB/s. */
struct gzip_block *gzip_block_new(const void *p, size_t n);
size_t gzip_block_bytes(const struct gzip_block *b); /* of memory; NULL: 0 */

struct gzip_page {
    struct buf *out;
    size_t open; /* where the length of the present stored block stands in out */
    uint32_t crc, len;
};

/* Between begin and end the caller appends to out what is to stand there plain, and takes nothing off. When
 * out becomes full it is of no use, as ever. */
void gzip_page_begin(struct gzip_page *g, struct buf *out);
void gzip_page_add(struct gzip_page *g, const struct gzip_block *b);
void gzip_page_end(struct gzip_page *g);

#endif
