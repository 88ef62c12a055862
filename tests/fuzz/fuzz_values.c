/* Single values in queries, paths and bodies. The first byte says which: a time, an id, a position, a name, a
 * target, a number of a query, base64url, a percent-encoded text. What is taken is written and read again as
 * the same.
 */
#include "tests/fuzz/fuzz.h"

#include <stdio.h>

#include "common/base64url.h"
#include "common/clock.h"
#include "common/ids.h"
#include "common/names.h"
#include "common/query.h"
#include "common/ts.h"

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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    struct fuzz_text text = fuzz_text(data + 1, size - 1);
    switch (data[0] % 8) {
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
    default:
        percent_value(text.p, text.n);
    }
    free(text.p);
    return 0;
}
