/* Times from clients: what is read is written and read again as the same. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = mem_strndup((const char *)data, size), out[CLOCK_RFC3339_SIZE];
    int64_t ms = 0, again = 0;
    struct err e;
    if (clock_parse(text, &ms, &e) == 0 && ms >= 0 && ms < INT64_C(253402300800000)) {
        clock_format(ms, out);
        assert(clock_parse(out, &again, &e) == 0);
        assert(again == ms);
    }
    free(text);
    return 0;
}
