/* Single values in queries, paths, bodies and header fields. The first byte says which: a time, an id, a
 * position, a name, a target, a number of a query, base64url, a percent-encoded text, networks and
 * X-Forwarded-For, Accept-Encoding, If-None-Match. What is taken is written and read again as the same.
 */
#include "tests/fuzz/fuzz.h"

#include <stdio.h>

#include "common/base64url.h"
#include "common/clock.h"
#include "common/http_accept.h"
#include "common/ids.h"
#include "common/ip.h"
#include "common/names.h"
#include "common/query.h"
#include "common/ts.h"
#include "feed-api/page_tag.h"

#define YEAR_10000_MS INT64_C(253402300800000)

static void time_value(const char *text)
{
    char out[CLOCK_RFC3339_SIZE];
    int64_t ms = 0, again = 0;
    struct err e;
    if (clock_parse(text, &ms, &e) != 0)
        return;
    assert(ms >= -62167305600000 &&
           ms < YEAR_10000_MS + 24 * 3600 * 1000); /* an offset may lead out of the year */
    if (ms >= 0 && ms < YEAR_10000_MS) {
        clock_format(ms, out);
        assert(clock_parse(out, &again, &e) == 0 && again == ms);
    }
}

static void id_value(const char *text)
{
    char out[ITEM_ID_TEXT_SIZE];
    item_id id;
    struct err e;
    if (ids_parse(text, &id, &e) == 0) {
        assert(id >= 1 && id <= ITEM_ID_MAX);
        ids_format(id, out);
        assert(strcmp(out, text) == 0);
    }
}

static void position_value(const char *text)
{
    char out[TS_TEXT_SIZE];
    ts_t t;
    struct err e;
    if (ts_parse(text, &t, &e) == 0) {
        ts_format(t, out);
        assert(strcmp(out, text) == 0);
    }
}

static void name_value(const char *text, size_t n)
{
    char target[TARGET_TEXT_SIZE];
    const char *name;
    struct err e;
    if (names_check(text, n, &e) != 0) {
        assert(e.code == ERR_INVALID && e.msg[0] != '\0');
        return;
    }
    assert(n >= 1 && n <= NAME_MAX_BYTES && strlen(text) == n && utf8_valid(text, n));
    assert(strpbrk(text, " \t\r\n/{}") == NULL);
    for (enum target_kind k = TARGET_PUBLISHER, back; k <= TARGET_WORD; k++) {
        target_format(k, text, target);
        assert(target_split(target, &back, &name, &e) == 0 && back == k && strcmp(name, text) == 0);
    }
}

static void target_value(const char *text)
{
    char out[TARGET_TEXT_SIZE];
    enum target_kind k, named;
    const char *name;
    struct err e;
    if (target_split(text, &k, &name, &e) == 0) {
        target_format(k, name, out);
        assert(strcmp(out, text) == 0);
    }
    if (target_kind_parse(text, &named) == 0)
        assert(strcmp(target_kind_name(named), text) == 0 && target_kind_letter(named) == text[0]);
}

static void number_value(const char *text)
{
    struct query q = {.params = {{"n", text}}, .n = 1};
    char out[24];
    int64_t v = 7;
    struct err e;
    if (query_get_int(&q, "n", -1000, INT64_C(1000000000000), &v, &e) == 0) {
        assert(v >= -1000 && v <= INT64_C(1000000000000));
        snprintf(out, sizeof out, "%lld", (long long)v);
        assert(strcmp(out, text) == 0);
    } else {
        assert(v == 7);
    }
}

static void base64_value(const char *text, size_t n)
{
    char *bytes = mem_alloc(n + 1), *out = mem_alloc(BASE64URL_SIZE(n));
    size_t len;
    struct err e;
    if (base64url_decode(text, n, bytes, n, &len, &e) == 0)
        assert(base64url_encode(bytes, len, out) == n && memcmp(out, text, n) == 0);
    free(bytes);
    free(out);
}

static void percent_value(const char *text, size_t n)
{
    char *plain = mem_alloc(n + 1), *out = mem_alloc(3 * n + 1), *back = mem_alloc(3 * n + 1);
    size_t len, again;
    struct err e;
    for (int plus = 0; plus < 2; plus++) {
        if (percent_decode(text, n, plus, plain, &len, &e) != 0)
            continue;
        assert(len <= n && strlen(plain) == len);
        size_t size = percent_encode(plain, out);
        assert(percent_decode(out, size, plus, back, &again, &e) == 0);
        assert(again == len && memcmp(back, plain, len) == 0);
    }
    free(plain);
    free(out);
    free(back);
}

/* ---- header fields ---- */

static bool same_ip(const struct ip *a, const struct ip *b)
{
    return memcmp(a->b, b->b, sizeof a->b) == 0;
}

static void check_ip(const struct ip *ip)
{
    char text[IP_TEXT_SIZE];
    struct ip again, client = ip_client(ip);
    ip_format(ip, text);
    assert(ip_parse(text, strlen(text), &again) && same_ip(ip, &again));
    again = ip_client(&client);
    assert(same_ip(&again, &client));
}

/* The first line holds the trusted networks, the second the field. */
static void forwarded_value(struct fuzz_text text)
{
    const char *nets = fuzz_line(&text);
    char *field = fuzz_line(&text), *comma = field != NULL ? strrchr(field, ',') : NULL;
    struct ip_nets trusted = {.n = 0};
    struct ip peer = {{0}}, whole, parts;
    struct err e;
    peer.b[15] = 1; /* ::1 */
    if (ip_nets_parse(nets, &trusted, &e) != 0)
        assert(trusted.n == 0);
    for (size_t i = 0; i < trusted.n; i++) {
        assert(trusted.nets[i].bits <= 128 && ip_nets_have(&trusted, &trusted.nets[i].base));
        check_ip(&trusted.nets[i].base);
    }
    if (field == NULL)
        return;
    whole = parts = peer;
    bool more = ip_forwarded(&trusted, field, &whole);
    check_ip(&whole);
    assert(!more || ip_nets_have(&trusted, &whole));
    assert(ip_nets_have(&trusted, &peer) || same_ip(&whole, &peer));
    if (comma != NULL) { /* one field of two elements says what two fields of one say */
        *comma = '\0';
        bool again = ip_forwarded(&trusted, comma + 1, &parts) && ip_forwarded(&trusted, field, &parts);
        assert(again == more && same_ip(&whole, &parts));
    }
}

static void accept_value(const char *text)
{
    char *upper = mem_strdup(text), *more = mem_printf(" ,\t%s\t, other;q=0.5", text),
         *odd = mem_printf("%s, (", text);
    for (char *c = upper; *c != '\0'; c++)
        *c = *c >= 'a' && *c <= 'z' ? (char)(*c - 'a' + 'A') : *c;
    bool taken = http_accepts_gzip(text);
    assert(http_accepts_gzip(upper) == taken && http_accepts_gzip(more) == taken && !http_accepts_gzip(odd));
    free(upper);
    free(more);
    free(odd);
}

static void tag_value(const char *text)
{
    char tag[PAGE_TAG_TEXT_SIZE];
    struct page_tag t;
    page_tag_init(&t);
    page_tag_add(&t, 7);
    page_tag_add_str(&t, "reader");
    page_tag_add_str(&t, NULL);
    page_tag_write(&t, tag);
    char *with = mem_printf("%s, %s", text, tag), *before = mem_printf("\"other\",%s", text);
    bool matches = page_tag_matches(text, tag), any = text[strspn(text, " \t")] == '*';
    assert(!matches || any || strstr(text, tag + 2) != NULL);
    assert(!matches || any || page_tag_matches(with, tag));
    assert(any || page_tag_matches(before, tag) == matches);
    assert(page_tag_matches(tag, tag) && page_tag_matches(tag + 2, tag));
    free(with);
    free(before);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    struct fuzz_text text = fuzz_text(data + 1, size - 1);
    switch (data[0] % 11) {
    case 0:
        time_value(text.p);
        break;
    case 1:
        id_value(text.p);
        break;
    case 2:
        position_value(text.p);
        break;
    case 3:
        name_value(text.p, text.n);
        break;
    case 4:
        target_value(text.p);
        break;
    case 5:
        number_value(text.p);
        break;
    case 6:
        base64_value(text.p, text.n);
        break;
    case 7:
        percent_value(text.p, text.n);
        break;
    case 8:
        forwarded_value(text);
        break;
    case 9:
        accept_value(text.p);
        break;
    default:
        tag_value(text.p);
    }
    free(text.p);
    return 0;
}
