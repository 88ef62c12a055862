/* Items from publishers, and patches to them: what is taken survives BSON and is written as JSON again. */
#include <assert.h>
#include <bson/bson.h>
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "feed-api/item.h"

#define NOW_MS INT64_C(1700000000000)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void round_trip(struct item *it)
{
    bson_t doc = BSON_INITIALIZER;
    struct item back;
    struct err e;
    it->id = 1;
    it->revision = 1;
    it->live = true;
    it->created_ms = NOW_MS;
    it->published_ms = it->published_ms < 0 ? NOW_MS : it->published_ms;
    item_to_bson(it, &doc);
    assert(item_from_bson(&doc, &back, &e) == 0);
    assert(item_same_content(it, &back));
    struct buf out;
    buf_init(&out, 1 << 20);
    item_write_json(&back, ITEM_FULL, &out);
    assert(!out.full);
    json_t *again = json_loadb(out.data, out.len, JSON_REJECT_DUPLICATES, NULL);
    assert(again);
    json_decref(again);
    buf_done(&out);
    item_done(&back);
    bson_destroy(&doc);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *o = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
    if (!o) {
        return 0;
    }
    struct item it = {0};
    struct item_problem p;
    bool changed;
    if (item_from_json(o, NOW_MS, &it, &p) == 0) {
        round_trip(&it);
        if (item_patch(&it, o, &changed, &p) == 0) {
            round_trip(&it);
        }
        item_done(&it);
    }
    json_decref(o);
    return 0;
}
