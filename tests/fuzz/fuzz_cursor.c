/* Cursors from clients. The first byte says what the rest is:
 *   0 - a text as it is: nothing that was not sealed with the key is opened;
 *   1 - the fields of a cursor: sealed and opened they are the same, and with one character changed, for
 * another route or scope, or under another key nothing is opened; 2 - packed bytes, sealed as they are, as an
 * older or newer version might have: what is opened seals to the same text, so that one place has one cursor.
 */
#include "tests/fuzz/fuzz.h"

#include "common/base64url.h"
#include "common/sign.h"
#include "feed-api/cursor.h"

#define MAC_BYTES  16 /* of cursor.c */
#define PACKED_MAX 1400

static const unsigned char key[CURSOR_KEY_SIZE] = {0x5f, 0x1c, 0x93, 0x77, 0x2e};
static const unsigned char other_key[CURSOR_KEY_SIZE] = {0x5f, 0x1c, 0x93, 0x77, 0x2f};

struct input {
    const uint8_t *at, *end;
};

static uint64_t take_number(struct input *in)
{
    uint64_t v = 0;
    for (size_t n = in->at < in->end ? *in->at++ % 9 : 0; n > 0 && in->at < in->end; n--)
        v = v << 8 | *in->at++;
    return v;
}

static void take_string(struct input *in, char *out, size_t size)
{
    size_t n = in->at < in->end ? *in->at++ : 0, i = 0;
    n = n < 255 ? n : SIZE_MAX; /* as long as can be */
    for (; i < n && i + 1 < size && in->at < in->end && *in->at != '\0'; i++)
        out[i] = (char)*in->at++;
}

static struct cursor take_cursor(struct input *in)
{
    struct cursor c;
    memset(&c, 0, sizeof c);
    c.route = (enum cursor_route)(1 + take_number(in) % (CURSOR_ROUTE_N - 1));
    c.order = take_number(in) % 2 ? CURSOR_RANKED : CURSOR_LATEST;
    c.served = (uint32_t)take_number(in);
    c.place = (uint32_t)take_number(in);
    c.basis = take_number(in);
    c.last = take_number(in);
    c.last_number = (int64_t)take_number(in);
    c.freshness = take_number(in);
    c.newest = take_number(in);
    c.after = take_number(in);
    c.after_freshness = take_number(in);
    take_string(in, c.scope, sizeof c.scope);
    take_string(in, c.profile, sizeof c.profile);
    take_string(in, c.session, sizeof c.session);
    take_string(in, c.fallback, sizeof c.fallback);
    take_string(in, c.chain, sizeof c.chain);
    take_string(in, c.last_key, sizeof c.last_key);
    return c;
}

static bool opens(const unsigned char *k, const char *text, enum cursor_route route, const char *scope)
{
    unsigned char before[sizeof(struct cursor)], after[sizeof(struct cursor)];
    struct cursor out;
    struct err e;
    memset(&out, 0x5a, sizeof out);
    memcpy(before, &out, sizeof before);
    bool opened = cursor_open(k, text, route, scope, &out, &e) == 0;
    memcpy(after, &out, sizeof after);
    assert(opened || memcmp(before, after, sizeof before) == 0);
    return opened;
}

static void open_raw(const uint8_t *data, size_t size)
{
    char *text = mem_strndup((const char *)data, size);
    for (enum cursor_route r = CURSOR_FEED; r < CURSOR_ROUTE_N; r++)
        assert(!opens(key, text, r, NULL));
    free(text);
}

static void seal_and_change(const uint8_t *data, size_t size)
{
    struct input in = {data, data + size};
    size_t place = (size_t)take_number(&in);
    char letter = (char)take_number(&in);
    struct cursor c = take_cursor(&in), out;
    char text[CURSOR_TEXT_SIZE], again[CURSOR_TEXT_SIZE];
    struct err e;
    cursor_seal(key, &c, text);
    assert(cursor_open(key, text, c.route, c.scope, &out, &e) == 0);
    assert(strcmp(out.session, c.session) == 0 && strcmp(out.profile, c.profile) == 0);
    assert(strcmp(out.fallback, c.fallback) == 0 && strcmp(out.chain, c.chain) == 0);
    assert(strcmp(out.scope, c.scope) == 0 && strcmp(out.last_key, c.last_key) == 0);
    assert(out.route == c.route && out.order == c.order && out.served == c.served && out.place == c.place);
    assert(out.basis == c.basis && out.last == c.last && out.last_number == c.last_number);
    assert(out.freshness == c.freshness && out.newest == c.newest);
    assert(out.after == c.after && out.after_freshness == c.after_freshness);
    cursor_seal(key, &out, again);
    assert(strcmp(text, again) == 0);
    assert(!opens(other_key, text, c.route, c.scope));
    assert(!opens(key, text, c.route % (CURSOR_ROUTE_N - 1) + 1, c.scope));
    assert(!opens(key, text, c.route, c.scope[0] != '\0' ? "" : "another"));
    place %= strlen(text);
    if (text[place] != letter) {
        text[place] = letter;
        assert(!opens(key, text, c.route, c.scope));
    }
}

static void seal_packed(const uint8_t *data, size_t size)
{
    uint8_t bytes[PACKED_MAX + SIGN_MAC_SIZE];
    char text[BASE64URL_SIZE(sizeof bytes)], again[CURSOR_TEXT_SIZE];
    struct cursor out;
    struct err e;
    if (size > PACKED_MAX)
        return;
    memcpy(bytes, data, size);
    sign_hmac(key, bytes, size, bytes + size);
    base64url_encode(bytes, size + MAC_BYTES, text);
    for (enum cursor_route r = CURSOR_FEED; r < CURSOR_ROUTE_N; r++) {
        if (cursor_open(key, text, r, NULL, &out, &e) == 0) {
            assert(out.route == r && (out.order == CURSOR_LATEST || out.order == CURSOR_RANKED));
            cursor_seal(key, &out, again);
            assert(strcmp(text, again) == 0);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    if (data[0] % 3 == 0)
        open_raw(data + 1, size - 1);
    else if (data[0] % 3 == 1)
        seal_and_change(data + 1, size - 1);
    else
        seal_packed(data + 1, size - 1);
    return 0;
}
