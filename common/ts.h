/* ts.h - points on the log.
 *
 * Every question of before and after is answered by MongoDB's logical clock. A ts is a clusterTime or
 * operationTime: seconds in the high 32 bits, a counter in the low 32. As text it is 16 lower-case hex
 * digits, which compare as strings the way the numbers do (Lua's numbers are doubles and would not). 0 means
 * "none".
 */
#ifndef FEEDMILL_TS_H
#define FEEDMILL_TS_H

#include <stdint.h>
#include "common/err.h"

typedef uint64_t ts_t;

#define TS_TEXT_SIZE 17 /* 16 digits and the NUL */

static inline ts_t ts_make(uint32_t seconds, uint32_t increment)
{
    return ((ts_t)seconds << 32) | increment;
}
static inline uint32_t ts_seconds(ts_t t)
{
    return (uint32_t)(t >> 32);
}
static inline uint32_t ts_increment(ts_t t)
{
    return (uint32_t)t;
}
static inline ts_t ts_max(ts_t a, ts_t b)
{
    return a > b ? a : b;
}
static inline ts_t ts_min(ts_t a, ts_t b)
{
    return a < b ? a : b;
}

void ts_format(ts_t t, char out[TS_TEXT_SIZE]);

/* ts_parse() takes exactly 16 lower-case hex digits. ERR_INVALID. */
int ts_parse(const char *s, ts_t *out, struct err *e) MUST_USE;

#endif
