/* The head of a request in pieces: whatever comes, the same bytes give the same answer however they are cut,
 * and nothing is taken beyond the end of the head. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "common/http_head.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Feeds in pieces of at most `piece` bytes; *taken is the sum of what was used. */
static enum http_head_result feed(struct http_head *h, const char *p, size_t n, size_t piece, size_t *taken)
{
    enum http_head_result r = HTTP_HEAD_MORE;
    *taken = 0;
    while (r == HTTP_HEAD_MORE && *taken < n) {
        size_t used = 0, k = n - *taken < piece ? n - *taken : piece;
        r = http_head_feed(h, p + *taken, k, &used);
        assert(used <= k);
        assert(r != HTTP_HEAD_MORE || used == k);
        *taken += used;
    }
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return 0;
    }
    size_t piece = data[0] % 16 + 1, whole_taken, cut_taken;
    struct http_head whole, cut;
    http_head_init(&whole);
    http_head_init(&cut);
    enum http_head_result a = feed(&whole, (const char *)data + 1, size - 1, size, &whole_taken);
    enum http_head_result b = feed(&cut, (const char *)data + 1, size - 1, piece, &cut_taken);
    assert(a == b);
    if (a == HTTP_HEAD_DONE) {
        assert(whole_taken == cut_taken);
        assert(whole.n_fields == cut.n_fields && whole.method == cut.method);
        assert(whole.content_length == cut.content_length && whole.chunked == cut.chunked);
        assert(!(whole.chunked && whole.content_length));
        assert(strcmp(whole.path, cut.path) == 0);
    } else if (a == HTTP_HEAD_BAD) {
        assert(whole.problem == cut.problem);
    }
    http_head_done(&whole);
    http_head_done(&cut);
    return 0;
}
