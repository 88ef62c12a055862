/* json_whole.h - whole numbers in JSON. Pure; any thread. */
#ifndef FEEDMILL_JSON_WHOLE_H
#define FEEDMILL_JSON_WHOLE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* json_whole() reads a number without a fraction. However it is written: 7.0 and 7e0 are integers as 7 is
 * (JSON Schema, and all that some clients can write); with a point or exponent up to 2^53. */
static inline bool json_whole(const json_t *v, int64_t *out)
{
    double d = json_real_value(v); /* 0 for anything else */
    if (json_is_integer(v)) {
        *out = json_integer_value(v);
        return true;
    }
    if (!json_is_real(v) || !(d >= -9007199254740992.0 && d <= 9007199254740992.0) || d != (double)(int64_t)d)
        return false;
    *out = (int64_t)d;
    return true;
}

#endif
