#include "common/keys.h"

#include <assert.h>
#include <string.h>

/* A key being written. By hand, not by snprintf: fanout makes one for each timeline that it delivers to. */
struct key {
    char *out;
    size_t len;
};

static void key_add(struct key *k, const char *s, size_t n)
{
    /* Names and event ids were checked on their way in; a longer one is a programmer's error. */
    assert(n < KEY_SIZE - k->len);
    memcpy(k->out + k->len, s, n);
    k->len += n;
}

static struct key key_start(char *out, const char *prefix, unsigned tag)
{
    struct key k = {out, 0};
    char text[8];
    size_t at = sizeof text;
    assert(tag < 1000000);
    text[--at] = '}';
    do {
        text[--at] = (char)('0' + tag % 10);
        tag /= 10;
    } while (tag != 0);
    key_add(&k, prefix, 2);
    key_add(&k, ":{", 2);
    key_add(&k, text + at, sizeof text - at);
    return k;
}

static void key_add_part(struct key *k, char separator, const char *part)
{
    key_add(k, &separator, 1);
    key_add(k, part, strlen(part));
}

static size_t key_end(struct key *k)
{
    k->out[k->len] = '\0';
    return k->len;
}

static size_t key_of_user(char *out, const char *prefix, unsigned bucket, const char *user)
{
    struct key k = key_start(out, prefix, bucket);
    key_add_part(&k, ':', user);
    return key_end(&k);
}

uint16_t keys_crc16(const char *s, size_t n)
{
    unsigned crc = 0;
    for (size_t i = 0; i < n; i++) {
        /* polynomial 0x1021, a byte at a time without a table: x^16 + x^12 + x^5 + 1 unrolled */
        unsigned x = (crc >> 8 ^ (unsigned char)s[i]) & 0xff;
        x ^= x >> 4;
        crc = (crc << 8 ^ x << 12 ^ x << 5 ^ x) & 0xffff;
    }
    return (uint16_t)crc;
}

unsigned keys_bucket(const char *user)
{
    return keys_crc16(user, strlen(user)) % BUCKETS;
}

size_t keys_timeline(char out[KEY_SIZE], unsigned bucket, const char *user)
{
    return key_of_user(out, "tl", bucket, user);
}

size_t keys_timeline_meta(char out[KEY_SIZE], unsigned bucket, const char *user)
{
    return key_of_user(out, "pf", bucket, user);
}

size_t keys_bucket_record(char out[KEY_SIZE], unsigned bucket)
{
    struct key k = key_start(out, "bk", bucket);
    return key_end(&k);
}

size_t keys_births(char out[KEY_SIZE], unsigned bucket)
{
    struct key k = key_start(out, "bn", bucket);
    return key_end(&k);
}

size_t keys_event_stream(char out[KEY_SIZE], unsigned stream)
{
    struct key k = key_start(out, "en", stream);
    return key_end(&k);
}

size_t keys_event_seen(char out[KEY_SIZE], unsigned stream, const char *user, const char *event_id)
{
    struct key k = key_start(out, "ee", stream);
    key_add_part(&k, ':', user);
    key_add_part(&k, '/', event_id);
    return key_end(&k);
}

size_t keys_session(char out[KEY_SIZE], unsigned bucket, const char *user, const char *session)
{
    struct key k = key_start(out, "rk", bucket);
    key_add_part(&k, ':', user);
    key_add_part(&k, '/', session);
    return key_end(&k);
}

size_t keys_affinity(char out[KEY_SIZE], unsigned bucket, const char *user)
{
    return key_of_user(out, "af", bucket, user);
}

static size_t key_of_item(char out[KEY_SIZE], const char *kind, item_id id)
{
    char text[ITEM_ID_TEXT_SIZE];
    ids_format(id, text);
    struct key k = key_start(out, kind, (unsigned)(id % EVENT_STREAMS));
    key_add_part(&k, ':', text);
    return key_end(&k);
}

size_t keys_item_counters(char out[KEY_SIZE], item_id id)
{
    return key_of_item(out, "ic", id);
}

size_t keys_item_readers(char out[KEY_SIZE], item_id id)
{
    return key_of_item(out, "ih", id);
}
