#include "feed-api/cursor.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "common/base64url.h"
#include "common/sign.h"

/* Layout: version, route, order, numbers as LEB128, strings as their length (LEB128) and bytes, MAC cut to 16
 * bytes (RFC 2104, section 5, allows half). A new layout is a new version: older cursors are then refused. */
#define VERSION    1
#define MAC_BYTES  16
#define PACKED_MAX (CURSOR_TEXT_SIZE * 3 / 4 - 1)

struct packer {
    uint8_t bytes[PACKED_MAX];
    size_t n;
};

static void put_number(struct packer *p, uint64_t v)
{
    do {
        assert(p->n < PACKED_MAX);
        p->bytes[p->n++] = (uint8_t)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
        v >>= 7;
    } while (v);
}

static void put_string(struct packer *p, const char *s)
{
    size_t n = strlen(s);
    put_number(p, n);
    assert(p->n + n <= PACKED_MAX);
    memcpy(p->bytes + p->n, s, n);
    p->n += n;
}

struct unpacker {
    const uint8_t *at, *end;
    bool bad;
};

static uint64_t get_number(struct unpacker *u)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (u->at == u->end)
            break;
        uint8_t b = *u->at++;
        v |= (uint64_t)(b & 0x7f) << shift;
        if (!(b & 0x80))
            return v;
    }
    u->bad = true;
    return 0;
}

static void get_string(struct unpacker *u, char *out, size_t size)
{
    uint64_t n = get_number(u);
    if (u->bad || n >= size || n > (size_t)(u->end - u->at)) {
        u->bad = true;
        return;
    }
    memcpy(out, u->at, n);
    out[n] = '\0';
    u->at += n;
}

static void pack(const struct cursor *c, struct packer *p)
{
    put_number(p, VERSION);
    put_number(p, c->route);
    put_number(p, c->order);
    put_string(p, c->scope);
    put_string(p, c->profile);
    put_string(p, c->session);
    put_string(p, c->fallback);
    put_string(p, c->chain);
    put_number(p, c->served);
    put_number(p, c->place);
    put_number(p, c->basis);
    put_number(p, c->last);
    put_string(p, c->last_key);
    put_number(p, (uint64_t)c->last_number);
    put_number(p, c->freshness);
    put_number(p, c->newest);
    /* At the end and only when there: cursors made before there was an `after` stay valid. */
    if (c->after || c->after_freshness) {
        put_number(p, c->after);
        put_number(p, c->after_freshness);
    }
}

void cursor_seal(const unsigned char key[CURSOR_KEY_SIZE], const struct cursor *c, char out[CURSOR_TEXT_SIZE])
{
    struct packer p = {.n = 0};
    pack(c, &p);
    uint8_t mac[SIGN_MAC_SIZE];
    sign_hmac(key, p.bytes, p.n, mac);
    assert(p.n + MAC_BYTES <= PACKED_MAX);
    memcpy(p.bytes + p.n, mac, MAC_BYTES);
    base64url_encode(p.bytes, p.n + MAC_BYTES, out);
}

static bool unpack(const uint8_t *bytes, size_t n, struct cursor *c)
{
    struct unpacker u = {bytes, bytes + n, false};
    if (get_number(&u) != VERSION)
        return false;
    c->route = (enum cursor_route)get_number(&u);
    c->order = (enum cursor_order)get_number(&u);
    get_string(&u, c->scope, sizeof c->scope);
    get_string(&u, c->profile, sizeof c->profile);
    get_string(&u, c->session, sizeof c->session);
    get_string(&u, c->fallback, sizeof c->fallback);
    get_string(&u, c->chain, sizeof c->chain);
    c->served = (uint32_t)get_number(&u);
    c->place = (uint32_t)get_number(&u);
    c->basis = get_number(&u);
    c->last = get_number(&u);
    get_string(&u, c->last_key, sizeof c->last_key);
    c->last_number = (int64_t)get_number(&u);
    c->freshness = get_number(&u);
    c->newest = get_number(&u);
    if (!u.bad && u.at != u.end) {
        c->after = get_number(&u);
        c->after_freshness = get_number(&u);
    }
    if (u.bad || u.at != u.end || c->order > CURSOR_RANKED)
        return false;
    /* One place has one cursor: what packs to other bytes (numbers with more bytes or beyond their field, a
     * NUL within a string) is not what was packed. */
    struct packer p = {.n = 0};
    pack(c, &p);
    return p.n == n && memcmp(p.bytes, bytes, n) == 0;
}

int cursor_open(const unsigned char key[CURSOR_KEY_SIZE], const char *text, enum cursor_route route,
                const char *scope, struct cursor *out, struct err *e)
{
    uint8_t bytes[PACKED_MAX], mac[SIGN_MAC_SIZE];
    size_t n;
    if (base64url_decode(text, strlen(text), bytes, sizeof bytes, &n, NULL) || n <= MAC_BYTES)
        return err_set(e, ERR_INVALID, "is not a cursor of this service");
    n -= MAC_BYTES;
    sign_hmac(key, bytes, n, mac);
    if (!sign_equal(mac, bytes + n, MAC_BYTES))
        return err_set(e, ERR_INVALID, "is not a cursor of this service");
    struct cursor c = {0};
    if (!unpack(bytes, n, &c))
        return err_set(e, ERR_INVALID, "is a cursor of another version");
    if (c.route != route)
        return err_set(e, ERR_INVALID, "belongs to another route");
    if (scope != NULL && strcmp(c.scope, scope) != 0)
        return err_set(e, ERR_INVALID, "belongs to somebody or something else");
    *out = c;
    return 0;
}
