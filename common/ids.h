/* ids.h - item ids: 53 bits, 42 of milliseconds since 1970-01-01 and 11 random ones.
 *
 * A double (a Redis score) and a JavaScript number hold them exactly. The time part is published_at, so the
 * order of ids is the order of time. As text: decimal digits without leading zeros. 0 is no id.
 */
#ifndef FEEDMILL_IDS_H
#define FEEDMILL_IDS_H

#include <stdint.h>
#include "common/err.h"

typedef uint64_t item_id;

#define ITEM_ID_RANDOM_BITS 11
#define ITEM_ID_MAX         ((UINT64_C(1) << 53) - 1)
#define ITEM_ID_TEXT_SIZE   17 /* 16 digits and the NUL */

/* ids_make() builds an id from ms (0 to 2^42-1) and the low 11 bits of bits; never 0 (ms 0, bits 0 gives 1).
 */
item_id ids_make(int64_t ms, uint32_t bits);
static inline int64_t ids_time_ms(item_id id)
{
    return (int64_t)(id >> ITEM_ID_RANDOM_BITS);
}

/* ids_random_bits() answers 32 random bits from a generator of this thread, seeded by the system. */
uint32_t ids_random_bits(void);

void ids_format(item_id id, char out[ITEM_ID_TEXT_SIZE]);

/* ids_parse() takes 1 to ITEM_ID_MAX in decimal, no sign, no leading zero. ERR_INVALID. */
int ids_parse(const char *s, item_id *out, struct err *e) MUST_USE;

#endif
