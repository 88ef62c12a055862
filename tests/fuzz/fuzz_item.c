/* Items from publishers, and merge patches to them: one JSON text a line, the first an item, the others
 * patches.
 *
 * What is taken is within the caps, survives BSON, and written as JSON it is taken again as the same. A patch
 * gives what a plain reading of RFC 7396 gives, applied twice it changes nothing more, and one that is
 * refused leaves the item as it was.
 */
#include "tests/fuzz/fuzz.h"

#include <bson/bson.h>
#include <jansson.h>

#include "common/buf.h"
#include "feed-api/item.h"

#define NOW_MS      INT64_C(1700000000000)
#define JSON_MAX    (1024 * 1024)
#define PATCH_DEPTH 18 /* of item_patch(): deeper ones are refused unread */

static const char *const content[] = {"title", "body", "url", "media", "topics", "lang", "extra"};

static void check_text(const char *s, size_t min, size_t max)
{
    if (s != NULL)
        assert(strlen(s) >= min && strlen(s) <= max && utf8_valid(s, strlen(s)));
}

static void check_caps(const struct item *it)
{
    struct err e;
    assert(it->publisher != NULL && names_check(it->publisher, strlen(it->publisher), &e) == 0);
    assert(it->title != NULL && it->body != NULL);
    check_text(it->external_id, 1, ITEM_EXTERNAL_ID_MAX);
    check_text(it->title, 1, ITEM_TITLE_MAX);
    check_text(it->body, 0, ITEM_BODY_MAX);
    check_text(it->url, 8, ITEM_URL_MAX);
    check_text(it->lang, 1, ITEM_LANG_MAX);
    check_text(it->extra, 1, ITEM_EXTRA_MAX);
    check_text(it->media, 1, JSON_MAX);
    assert(it->n_topics <= ITEM_TOPICS_MAX);
    for (unsigned i = 0; i < it->n_topics; i++) {
        assert(names_check(it->topics[i], strlen(it->topics[i]), &e) == 0);
        for (unsigned k = 0; k < i; k++)
            assert(strcmp(it->topics[i], it->topics[k]) != 0);
    }
    assert(it->published_ms >= -1 && it->published_ms <= NOW_MS);
}

/* As clients get it; the caller's. */
static json_t *written(const struct item *it)
{
    struct buf out;
    buf_init(&out, JSON_MAX);
    item_write_json(it, ITEM_FULL, &out);
    assert(!out.full);
    json_t *o = json_loadb(out.data, out.len, JSON_REJECT_DUPLICATES, NULL);
    assert(o != NULL && json_object_size(o) == 13);
    buf_done(&out);
    return o;
}

/* Only the members that a publisher may send. */
static json_t *sendable(const struct item *it)
{
    static const char *const answered[] = {"id", "revision", "edited_at"};
    json_t *o = written(it);
    for (size_t i = 0; i < MEM_COUNT(answered); i++)
        assert(json_object_del(o, answered[i]) == 0);
    return o;
}

static void check_sent_again(const struct item *it)
{
    struct item again;
    struct item_problem p = {0};
    json_t *o = sendable(it);
    assert(item_from_json(o, NOW_MS, &again, &p) == 0);
    assert(item_same_content(it, &again) && strcmp(it->publisher, again.publisher) == 0);
    assert((it->external_id == NULL) == (again.external_id == NULL));
    assert(it->external_id == NULL || strcmp(it->external_id, again.external_id) == 0);
    assert(it->published_ms == again.published_ms);
    item_done(&again);
    json_decref(o);
}

static void check_stored(const struct item *it)
{
    bson_t doc = BSON_INITIALIZER;
    struct item back;
    struct err e;
    item_to_bson(it, &doc);
    assert(item_from_bson(&doc, &back, &e) == 0);
    assert(item_same_content(it, &back) && strcmp(it->publisher, back.publisher) == 0);
    item_done(&back);
    bson_destroy(&doc);
}

/* ---- patches ---- */

/* RFC 7396, section 2, as it is written there. */
static json_t *merged(const json_t *target, const json_t *patch)
{
    const char *name;
    json_t *v;
    if (!json_is_object(patch))
        return json_deep_copy(patch);
    json_t *out = json_is_object(target) ? json_deep_copy(target) : json_object();
    json_object_foreach((json_t *)patch, name, v)
    {
        json_t *old = json_object_get(out, name);
        json_t *new = json_is_null(v) ? NULL : merged(old, v);
        json_object_del(out, name);
        if (new != NULL)
            json_object_set_new(out, name, new);
    }
    return out;
}

static bool is_content(const json_t *patch)
{
    const char *name;
    json_t *v;
    json_object_foreach((json_t *)patch, name, v)
    {
        bool known = false;
        for (size_t i = 0; i < MEM_COUNT(content); i++)
            known |= strcmp(name, content[i]) == 0;
        if (!known)
            return false;
    }
    return json_is_object(patch);
}

static bool is_deep(const json_t *v, int left)
{
    const char *name;
    json_t *child;
    size_t i;
    if (left == 0)
        return true;
    json_object_foreach((json_t *)v, name, child)
    {
        if (is_deep(child, left - 1))
            return true;
    }
    json_array_foreach((json_t *)v, i, child)
    {
        if (is_deep(child, left - 1))
            return true;
    }
    return false;
}

/* Whether the patch is to be taken, and what the item is to be then. */
static bool expected(const struct item *it, const json_t *patch, struct item *out)
{
    struct item_problem p = {0};
    if (!is_content(patch) || is_deep(patch, PATCH_DEPTH))
        return false;
    json_t *before = sendable(it), *after = merged(before, patch);
    bool taken = item_from_json(after, NOW_MS, out, &p) == 0;
    json_decref(before);
    json_decref(after);
    return taken;
}

static void check_patch(struct item *it, const json_t *patch)
{
    struct item right = {0};
    struct item_problem p = {0};
    bool changed = false, again = true;
    json_t *before = written(it);
    bool take = expected(it, patch, &right);
    assert((item_patch(it, patch, &changed, &p) == 0) == take);
    json_t *after = written(it);
    if (take) {
        assert(item_same_content(it, &right));
        assert(changed || json_equal(before, after));
        assert(item_patch(it, patch, &again, &p) == 0 && !again);
        check_caps(it);
    } else {
        assert(json_equal(before, after));
        assert(utf8_valid(p.detail, strlen(p.detail)) && p.detail[0] != '\0');
        assert(utf8_valid(p.pointer, strlen(p.pointer)));
    }
    item_done(&right);
    json_decref(before);
    json_decref(after);
}

static bool read_item(const char *line, struct item *it)
{
    struct item_problem p = {0};
    json_t *o = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
    if (o == NULL)
        return false;
    bool taken = item_from_json(o, NOW_MS, it, &p) == 0;
    assert(taken || (p.detail[0] != '\0' && utf8_valid(p.detail, strlen(p.detail))));
    assert(taken || utf8_valid(p.pointer, strlen(p.pointer)));
    json_decref(o);
    return taken;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_text text = fuzz_text(data, size), rest = text;
    char *line = fuzz_line(&rest);
    struct item it;
    if (line != NULL && read_item(line, &it)) {
        check_caps(&it);
        it.id = 1;
        it.created_ms = NOW_MS;
        it.published_ms = it.published_ms < 0 ? NOW_MS : it.published_ms;
        check_sent_again(&it);
        check_stored(&it);
        while ((line = fuzz_line(&rest)) != NULL) {
            json_t *patch = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
            if (patch != NULL)
                check_patch(&it, patch);
            json_decref(patch);
        }
        check_stored(&it);
        item_done(&it);
    }
    free(text.p);
    return 0;
}
