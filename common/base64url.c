#include "common/base64url.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static int digit_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == '-')
        return 62;
    return c == '_' ? 63 : -1;
}

size_t base64url_encode(const void *p, size_t n, char *out)
{
    const uint8_t *in = p;
    size_t len = 0;
    uint32_t bits = 0;
    unsigned count = 0; /* bits not yet written: 0, 2 or 4 between bytes */
    for (size_t i = 0; i < n; i++) {
        bits = bits << 8 | in[i];
        count += 8;
        while (count >= 6) {
            count -= 6;
            out[len++] = alphabet[bits >> count & 63];
        }
    }
    if (count > 0)
        out[len++] = alphabet[bits << (6 - count) & 63];
    out[len] = '\0';
    return len;
}

int base64url_decode(const char *s, size_t n, void *out, size_t cap, size_t *len, struct err *e)
{
    if (n % 4 == 1)
        return err_set(e, ERR_INVALID, "not base64url: no bytes have this length");
    size_t bytes = n / 4 * 3 + n % 4 * 3 / 4;
    if (bytes > cap)
        return err_set(e, ERR_TOO_LARGE, "longer than %zu bytes", cap);
    uint8_t *to = out;
    uint32_t bits = 0;
    unsigned count = 0;
    for (size_t i = 0; i < n; i++) {
        int v = digit_value(s[i]);
        if (v < 0)
            return err_set(e, ERR_INVALID, "not base64url: wrong character at %zu", i);
        bits = bits << 6 | (uint32_t)v;
        count += 6;
        if (count >= 8) {
            count -= 8;
            *to++ = (uint8_t)(bits >> count);
        }
    }
    if ((bits & ((1u << count) - 1)) != 0)
        return err_set(e, ERR_INVALID, "not base64url: bits beyond the last byte");
    *len = bytes;
    return 0;
}
