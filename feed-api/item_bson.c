/* An item as a document of the collection `items`, and back. */
#include "feed-api/item.h"

#include <string.h>

#include "common/mem.h"

static void append_text(bson_t *d, const char *key, const char *text)
{
    if (text != NULL)
        BSON_APPEND_UTF8(d, key, text);
}

void item_append_topics(const struct item *it, const char *key, bson_t *d)
{
    bson_t list;
    BSON_APPEND_ARRAY_BEGIN(d, key, &list);
    for (unsigned i = 0; i < it->n_topics; i++) {
        char text[16];
        const char *index;
        bson_uint32_to_string(i, &index, text, sizeof text);
        BSON_APPEND_UTF8(&list, index, it->topics[i]);
    }
    bson_append_array_end(d, &list);
}

void item_to_bson(const struct item *it, bson_t *out)
{
    BSON_APPEND_INT64(out, "_id", (int64_t)it->id);
    BSON_APPEND_UTF8(out, "publisher", it->publisher);
    append_text(out, "external_id", it->external_id);
    BSON_APPEND_INT32(out, "revision", it->revision);
    append_text(out, "title", it->title);
    append_text(out, "body", it->body);
    append_text(out, "url", it->url);
    append_text(out, "media", it->media);
    if (it->live)
        item_append_topics(it, "topics", out);
    append_text(out, "lang", it->lang);
    append_text(out, "extra", it->extra);
    BSON_APPEND_DATE_TIME(out, "published_at", it->published_ms);
    BSON_APPEND_DATE_TIME(out, "created_at", it->created_ms);
    if (it->edited_ms != 0)
        BSON_APPEND_DATE_TIME(out, "edited_at", it->edited_ms);
    if (it->live)
        BSON_APPEND_BOOL(out, "live", true);
}

/* Each field is read by the row of its name; a field of another type than ours is damage. */
enum field_type { FIELD_TEXT, FIELD_DATE, FIELD_ID, FIELD_REVISION, FIELD_LIVE, FIELD_TOPICS };

static const struct field {
    const char *name;
    enum field_type type;
    size_t offset;
} fields[] = {
    {"_id", FIELD_ID, 0},
    {"publisher", FIELD_TEXT, offsetof(struct item, publisher)},
    {"external_id", FIELD_TEXT, offsetof(struct item, external_id)},
    {"revision", FIELD_REVISION, 0},
    {"title", FIELD_TEXT, offsetof(struct item, title)},
    {"body", FIELD_TEXT, offsetof(struct item, body)},
    {"url", FIELD_TEXT, offsetof(struct item, url)},
    {"media", FIELD_TEXT, offsetof(struct item, media)},
    {"topics", FIELD_TOPICS, 0},
    {"lang", FIELD_TEXT, offsetof(struct item, lang)},
    {"extra", FIELD_TEXT, offsetof(struct item, extra)},
    {"published_at", FIELD_DATE, offsetof(struct item, published_ms)},
    {"created_at", FIELD_DATE, offsetof(struct item, created_ms)},
    {"edited_at", FIELD_DATE, offsetof(struct item, edited_ms)},
    {"live", FIELD_LIVE, 0},
};

static bool read_topics(const bson_iter_t *at, struct item *it)
{
    bson_iter_t list;
    if (!BSON_ITER_HOLDS_ARRAY(at) || !bson_iter_recurse(at, &list))
        return false;
    while (bson_iter_next(&list)) {
        uint32_t n;
        if (!BSON_ITER_HOLDS_UTF8(&list) || it->n_topics == ITEM_TOPICS_MAX)
            return false;
        const char *topic = bson_iter_utf8(&list, &n);
        if (n > NAME_MAX_BYTES)
            return false;
        memcpy(it->topics[it->n_topics++], topic, n + 1);
    }
    return true;
}

static bool read_text(const bson_iter_t *at, char **out)
{
    if (!BSON_ITER_HOLDS_UTF8(at) || *out != NULL)
        return false;
    uint32_t n;
    const char *text = bson_iter_utf8(at, &n);
    *out = mem_strndup(text, n);
    return true;
}

static bool read_field(const struct field *f, const bson_iter_t *at, struct item *it)
{
    switch (f->type) {
    case FIELD_TEXT:
        return read_text(at, (char **)((char *)it + f->offset));
    case FIELD_DATE:
        if (!BSON_ITER_HOLDS_DATE_TIME(at))
            return false;
        *(int64_t *)((char *)it + f->offset) = bson_iter_date_time(at);
        return true;
    case FIELD_ID:
        it->id = BSON_ITER_HOLDS_INT64(at) ? (item_id)bson_iter_int64(at) : 0;
        return it->id != 0 && it->id <= ITEM_ID_MAX;
    case FIELD_REVISION:
        it->revision = BSON_ITER_HOLDS_INT32(at) ? bson_iter_int32(at) : 0;
        return it->revision > 0;
    case FIELD_LIVE:
        it->live = BSON_ITER_HOLDS_BOOL(at) && bson_iter_bool(at);
        return it->live;
    case FIELD_TOPICS:
        return read_topics(at, it);
    }
    return false;
}

static const struct field *find_field(const char *name)
{
    for (size_t i = 0; i < MEM_COUNT(fields); i++)
        if (strcmp(fields[i].name, name) == 0)
            return &fields[i];
    return NULL;
}

static bool is_whole(const struct item *it)
{
    return it->id != 0 && it->revision != 0 && it->publisher != NULL &&
           (!it->live || (it->title != NULL && it->body != NULL));
}

int item_from_bson(const bson_t *d, struct item *out, struct err *e)
{
    struct item it = {0};
    bson_iter_t at;
    bool good = bson_iter_init(&at, d);
    while (good && bson_iter_next(&at)) {
        /* Fields that others keep in the document (topics_before, deleted_at) are not the item's. */
        const struct field *f = find_field(bson_iter_key(&at));
        good = f == NULL || read_field(f, &at, &it);
        if (!good)
            err_set(e, ERR_CORRUPT, "the field %s of a stored item is damaged", f->name);
    }
    if (good && !is_whole(&it)) {
        err_set(e, ERR_CORRUPT, "a stored item lacks a field");
        good = false;
    }
    if (!good) {
        item_done(&it);
        return -1;
    }
    *out = it;
    return 0;
}
