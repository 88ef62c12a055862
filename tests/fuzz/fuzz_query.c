/* Query strings: what is taken can be asked for, and is what percent-encoding it again would say. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/query.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *raw = mem_strndup((const char *)data, size);
    struct query q;
    struct err e;
    if (query_parse(raw, &q, &e) == 0) {
        assert(q.n <= QUERY_MAX_PARAMS);
        for (size_t i = 0; i < q.n; i++) {
            const char *value = q.params[i].value;
            assert(q.params[i].name[0]);
            assert(query_get(&q, q.params[i].name) == value);
            char *text = mem_alloc(3 * strlen(value) + 1);
            size_t n = percent_encode(value, text), back = 0;
            assert(percent_decode(text, n, true, text, &back, &e) == 0);
            assert(back == strlen(value) && memcmp(text, value, back) == 0);
            free(text);
        }
        query_done(&q);
    }
    free(raw);
    return 0;
}
