#include "common/ts.h"

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

void ts_format(ts_t t, char out[TS_TEXT_SIZE])
{
    for (int i = TS_TEXT_SIZE - 2; i >= 0; i--) {
        out[i] = "0123456789abcdef"[t & 15];
        t >>= 4;
    }
    out[TS_TEXT_SIZE - 1] = '\0';
}

int ts_parse(const char *s, ts_t *out, struct err *e)
{
    ts_t t = 0;
    int i = 0;
    for (; i < TS_TEXT_SIZE - 1; i++) {
        int d = hex_digit(s[i]); /* -1 at the NUL: never reads beyond it */
        if (d < 0)
            break;
        t = t << 4 | (ts_t)d;
    }
    if (i < TS_TEXT_SIZE - 1 || s[i] != '\0')
        return err_set(e, ERR_INVALID, "a time of the log has 16 lower-case hex digits");
    *out = t;
    return 0;
}
