/* fuzz.h - what the targets share. A target is one file with LLVMFuzzerTestOneInput(); it asserts what holds
 * for any input, and its corpus lies in tests/fuzz/corpus/<target>/.
 */
#ifndef FEEDMILL_TESTS_FUZZ_H
#define FEEDMILL_TESTS_FUZZ_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_TEXT_MAX (192 * 1024)
#define FUZZ_REPEAT   0x1a

struct fuzz_text {
    char *p; /* NUL-terminated, and allocated to the byte: reading beyond it is noticed */
    size_t n;
};

/* fuzz_text() is the input with its runs written out: the byte 0x1a and one more, k, stand for k * k repeats
 * of the byte before them. So a small input reaches the caps. The caller frees p. */
static inline struct fuzz_text fuzz_text(const uint8_t *data, size_t size)
{
    static char big[FUZZ_TEXT_MAX]; /* an allocation of that size would cost more than all else */
    size_t n = 0;
    for (size_t i = 0; i < size && n < FUZZ_TEXT_MAX; i++) {
        if (data[i] == FUZZ_REPEAT && n > 0 && i + 1 < size) {
            size_t k = data[++i];
            size_t run = k * k < FUZZ_TEXT_MAX - n ? k * k : FUZZ_TEXT_MAX - n;
            memset(big + n, big[n - 1], run);
            n += run;
        } else {
            big[n++] = (char)data[i];
        }
    }
    struct fuzz_text t = {mem_alloc(n + 1), n};
    memcpy(t.p, big, n);
    t.p[n] = '\0';
    return t;
}

/* fuzz_line() takes one line off the front of t, ended there by a NUL; NULL when there is none left. */
static inline char *fuzz_line(struct fuzz_text *rest)
{
    if (rest->p == NULL)
        return NULL;
    char *line = rest->p, *end = memchr(line, '\n', rest->n);
    if (end != NULL) {
        *end = '\0';
        rest->n -= (size_t)(end + 1 - line);
        rest->p = end + 1;
    } else {
        rest->p = NULL;
    }
    return line;
}

/* Pieces of an input, of sizes that a seed decides: 1 to most. */
struct fuzz_cuts {
    uint32_t state;
    size_t most;
};

static inline size_t fuzz_cut(struct fuzz_cuts *c, size_t left)
{
    c->state = c->state * 1664525u + 1013904223u;
    size_t n = 1 + (c->state >> 8) % c->most;
    return n < left ? n : left;
}

#endif
