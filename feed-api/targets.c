#include "feed-api/targets.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

#define PUT_TRIES 5

/* ---- documents ---- */

static char *read_text(const bson_t *d, const char *key)
{
    size_t n;
    const char *s = mongo_get_str(d, key, &n);
    return s != NULL ? mem_strndup(s, n) : NULL;
}

/* d NULL: there is no document, everything stays null and zero. */
static void from_bson(const bson_t *d, enum target_kind kind, const char *name, struct target *out)
{
    *out = (struct target){.kind = kind};
    snprintf(out->name, sizeof out->name, "%s", name);
    if (d == NULL)
        return;
    out->profile = (struct target_profile){.title = read_text(d, "title"),
                                           .icon = read_text(d, "icon"),
                                           .url = read_text(d, "url"),
                                           .extra = read_text(d, "extra")};
    mongo_get_i64(d, "followers", &out->followers);
    mongo_get_i64(d, "items", &out->items);
    const char *mode = mongo_get_str(d, "mode", NULL);
    out->pull = mode != NULL && strcmp(mode, "pull") == 0;
}

int targets_get(struct mongo_conn *c, enum target_kind kind, const char *name, struct target *out,
                struct err *e)
{
    char id[TARGET_TEXT_SIZE];
    target_format(kind, name, id);
    bson_t *filter = BCON_NEW("_id", BCON_UTF8(id));
    bson_t opts = BSON_INITIALIZER;
    BSON_APPEND_INT64(&opts, "limit", 1);
    mongo_read_opts(c, &opts);
    mongoc_cursor_t *cursor =
        mongoc_collection_find_with_opts(mongo_coll(c, COLL_TARGETS), filter, &opts, NULL);
    const bson_t *doc = NULL, *reply;
    bson_error_t be;
    int rc = 0;
    if (!mongoc_cursor_next(cursor, &doc)) {
        doc = NULL;
        if (mongoc_cursor_error_document(cursor, &be, &reply))
            rc = mongo_err(e, &be, reply, "reading a target");
    }
    if (rc == 0)
        from_bson(doc, kind, name, out);
    mongoc_cursor_destroy(cursor);
    bson_destroy(filter);
    bson_destroy(&opts);
    return rc;
}

/* ---- PUT ---- */

static void put_member(bson_t *set, bson_t *unset, const char *key, const char *text)
{
    if (text != NULL)
        BSON_APPEND_UTF8(set, key, text);
    else
        BSON_APPEND_UTF8(unset, key, "");
}

static void build_update(enum target_kind kind, const char *name, const struct target_profile *p,
                         bson_t *update)
{
    bson_t set = BSON_INITIALIZER, unset = BSON_INITIALIZER;
    char letter[2] = {target_kind_letter(kind), '\0'};
    put_member(&set, &unset, "title", p->title);
    put_member(&set, &unset, "icon", p->icon);
    put_member(&set, &unset, "url", p->url);
    put_member(&set, &unset, "extra", p->extra);
    if (!bson_empty(&set))
        BSON_APPEND_DOCUMENT(update, "$set", &set);
    if (!bson_empty(&unset))
        BSON_APPEND_DOCUMENT(update, "$unset", &unset);
    BCON_APPEND(update, "$inc", "{", "rev", BCON_INT64(1), "}", "$setOnInsert", "{", "kind",
                BCON_UTF8(letter), "name", BCON_UTF8(name), "followers", BCON_INT64(0), "items",
                BCON_INT64(0), "mode", "push", "}");
    bson_destroy(&set);
    bson_destroy(&unset);
}

static int put_once(struct mongo_conn *c, enum target_kind kind, const char *name,
                    const struct target_profile *profile, struct target *out, struct err *e)
{
    char id[TARGET_TEXT_SIZE];
    target_format(kind, name, id);
    bson_t *filter = BCON_NEW("_id", BCON_UTF8(id));
    bson_t update = BSON_INITIALIZER, extra = BSON_INITIALIZER, reply;
    bson_error_t be;
    bson_iter_t it;
    build_update(kind, name, profile, &update);
    mongo_write_opts(c, &extra);
    mongoc_find_and_modify_opts_t *opts = mongoc_find_and_modify_opts_new();
    mongoc_find_and_modify_opts_set_update(opts, &update);
    mongoc_find_and_modify_opts_set_flags(opts,
                                          MONGOC_FIND_AND_MODIFY_UPSERT | MONGOC_FIND_AND_MODIFY_RETURN_NEW);
    mongoc_find_and_modify_opts_append(opts, &extra);
    int rc = 0;
    if (!mongoc_collection_find_and_modify_with_opts(mongo_coll(c, COLL_TARGETS), filter, opts, &reply,
                                                     &be)) {
        rc = mongo_err(e, &be, &reply, "storing a profile");
    } else if (bson_iter_init_find(&it, &reply, "value") && BSON_ITER_HOLDS_DOCUMENT(&it)) {
        uint32_t n;
        const uint8_t *data;
        bson_t doc;
        bson_iter_document(&it, &n, &data);
        from_bson(bson_init_static(&doc, data, n) ? &doc : NULL, kind, name, out);
    } else {
        rc = err_set(e, ERR_INTERNAL, "MongoDB: no document after an upsert");
    }
    mongoc_find_and_modify_opts_destroy(opts);
    bson_destroy(filter);
    bson_destroy(&update);
    bson_destroy(&extra);
    bson_destroy(&reply);
    return rc;
}

/* Two first PUTs at once: one upsert meets the unique _id and finds the document when it tries again. */
int targets_put(struct mongo_conn *c, enum target_kind kind, const char *name,
                const struct target_profile *profile, struct target *out, struct err *e)
{
    struct err why = {0};
    for (int i = 0; i < PUT_TRIES; i++) {
        if (put_once(c, kind, name, profile, out, &why) == 0)
            return 0;
        if (why.code != ERR_CONFLICT)
            break;
    }
    if (e != NULL)
        *e = why;
    return -1;
}

/* ---- listing ---- */

/* Anchored and with everything but letters and digits escaped, so that it is a range of the index for
 * MongoDB. */
static char *prefix_regex(enum target_kind kind, const char *prefix)
{
    struct buf b;
    buf_init(&b, 512);
    buf_printf(&b, "^%c:", target_kind_letter(kind));
    for (const char *s = prefix; *s != '\0'; s++) {
        unsigned char ch = (unsigned char)*s;
        bool plain =
            ch >= 0x80 || (ch >= '0' && ch <= '9') || (ch >= 'A' && ch <= 'Z') || (ch >= 'a' && ch <= 'z');
        if (!plain)
            buf_add_char(&b, '\\');
        buf_add_char(&b, *s);
    }
    return buf_take(&b);
}

/* One branch a run of the index {kind, followers, _id}: equally followed ones with later names, and less
 * followed ones. */
static void append_after(bson_t *filter, const char *letter, int64_t followers, const char *id)
{
    bson_t any;
    BSON_APPEND_ARRAY_BEGIN(filter, "$or", &any);
    bson_t *same = BCON_NEW("kind", BCON_UTF8(letter), "followers", BCON_INT64(followers), "_id", "{", "$gt",
                            BCON_UTF8(id), "}");
    bson_t *fewer = BCON_NEW("kind", BCON_UTF8(letter), "followers", "{", "$lt", BCON_INT64(followers), "}");
    BSON_APPEND_DOCUMENT(&any, "0", same);
    BSON_APPEND_DOCUMENT(&any, "1", fewer);
    bson_append_array_end(filter, &any);
    bson_destroy(same);
    bson_destroy(fewer);
}

static void build_filter(enum target_kind kind, const char *prefix, int64_t after_followers,
                         const char *after_name, bson_t *filter)
{
    char letter[2] = {target_kind_letter(kind), '\0'};
    char id[TARGET_TEXT_SIZE];
    if (after_name != NULL) {
        target_format(kind, after_name, id);
        append_after(filter, letter, after_followers, id);
    } else {
        BSON_APPEND_UTF8(filter, "kind", letter);
    }
    if (prefix[0] != '\0') {
        char *regex = prefix_regex(kind, prefix);
        BSON_APPEND_REGEX(filter, "_id", regex, "");
        free(regex);
    }
}

int targets_list(struct mongo_conn *c, enum target_kind kind, const char *prefix, int64_t after_followers,
                 const char *after_name, size_t limit, struct target *out, size_t *n, struct err *e)
{
    bson_t filter = BSON_INITIALIZER, opts = BSON_INITIALIZER;
    build_filter(kind, prefix, after_followers, after_name, &filter);
    BCON_APPEND(&opts, "sort", "{", "followers", BCON_INT32(-1), "_id", BCON_INT32(1), "}", "limit",
                BCON_INT64((int64_t)limit), "batchSize", BCON_INT32((int32_t)limit + 1));
    mongo_read_opts(c, &opts);
    mongoc_cursor_t *cursor =
        mongoc_collection_find_with_opts(mongo_coll(c, COLL_TARGETS), &filter, &opts, NULL);
    const bson_t *doc, *reply;
    bson_error_t be;
    size_t found = 0;
    while (found < limit && mongoc_cursor_next(cursor, &doc)) {
        const char *name = mongo_get_str(doc, "name", NULL);
        if (name != NULL)
            from_bson(doc, kind, name, &out[found++]);
    }
    int rc = 0;
    if (mongoc_cursor_error_document(cursor, &be, &reply)) {
        rc = mongo_err(e, &be, reply, "listing targets");
        while (found > 0)
            target_done(&out[--found]);
    } else {
        *n = found;
    }
    mongoc_cursor_destroy(cursor);
    bson_destroy(&filter);
    bson_destroy(&opts);
    return rc;
}
