#include "fanout/dead_letters.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define TRIES 3 /* of an upsert that lost against another one */

const char *dead_letters_kind(const struct trouble *x)
{
    if (x->kind == TROUBLE_TIMELINE)
        return "timeline";
    if (x->about.item)
        return "item";
    return x->about.user[0] ? "user" : "other";
}

#define LETTER_ID_SIZE (16 + ITEM_ID_TEXT_SIZE + NAME_MAX_BYTES)

static void letter_id(const struct trouble *x, char out[LETTER_ID_SIZE])
{
    char item[ITEM_ID_TEXT_SIZE], t[TS_TEXT_SIZE];
    ids_format(x->about.item, item);
    ts_format(x->about.t, t);
    if (x->kind == TROUBLE_TIMELINE)
        snprintf(out, LETTER_ID_SIZE, "timeline-%s-%s", item, x->about.user);
    else if (x->about.item)
        snprintf(out, LETTER_ID_SIZE, "item-%s", item);
    else if (x->about.user[0])
        snprintf(out, LETTER_ID_SIZE, "user-%s", x->about.user);
    else
        snprintf(out, LETTER_ID_SIZE, "other-%s", t);
}

/* ---- the document ---- */

/* In a pipeline a text that begins with '$' would be taken for a field. */
static void put_text(bson_t *set, const char *key, const char *text)
{
    bson_t literal;
    BSON_APPEND_DOCUMENT_BEGIN(set, key, &literal);
    BSON_APPEND_UTF8(&literal, "$literal", text);
    bson_append_document_end(set, &literal);
}

/* What is in a trouble may be cut within a character, or come from elsewhere. */
static void put_reason(bson_t *set, const char *why)
{
    char text[sizeof((struct deliver_failure *)0)->why];
    snprintf(text, sizeof text, "%s", why);
    for (size_t n = strlen(text); !bson_utf8_validate(text, n, false);)
        text[--n] = '\0';
    put_text(set, "reason", text);
}

static void put_topics(bson_t *set, const struct change *c)
{
    bson_t literal, list;
    char index[16];
    const char *key;
    BSON_APPEND_DOCUMENT_BEGIN(set, "topics_before", &literal);
    BSON_APPEND_ARRAY_BEGIN(&literal, "$literal", &list);
    for (unsigned i = 0; i < c->n_topics_before; i++) {
        size_t n = bson_uint32_to_string(i, &key, index, sizeof index);
        bson_append_utf8(&list, key, (int)n, c->topics_before[i], -1);
    }
    bson_append_array_end(&literal, &list);
    bson_append_document_end(set, &literal);
}

static void put_state(bson_t *set, const char *t)
{
    BCON_APPEND(set, "at", BCON_UTF8("$$NOW"), "first_at", "{", "$ifNull", "[", BCON_UTF8("$first_at"),
                BCON_UTF8("$$NOW"), "]", "}", "replays", "{", "$ifNull", "[", BCON_UTF8("$replays"),
                BCON_INT32(0), "]", "}", "state", "{", "$cond", "[", "{", "$lt", "[", BCON_UTF8(t), "{",
                "$ifNull", "[", BCON_UTF8("$replayed_t"), BCON_UTF8(""), "]", "}", "]", "}",
                BCON_UTF8("$state"), BCON_UTF8("dead"), "]", "}");
}

static void put_letter(bson_t *set, const struct trouble *x, const char *publisher, const char *fanout)
{
    char t[TS_TEXT_SIZE];
    ts_format(x->about.t, t);
    put_text(set, "kind", dead_letters_kind(x));
    if (x->about.item)
        BSON_APPEND_INT64(set, "item", (int64_t)x->about.item);
    if (publisher[0])
        put_text(set, "publisher", publisher);
    if (x->about.user[0])
        put_text(set, "user", x->about.user);
    if (x->kind == TROUBLE_TIMELINE)
        BSON_APPEND_INT32(set, "bucket", (int32_t)x->about.bucket);
    put_text(set, "t", t);
    put_reason(set, x->about.why);
    BSON_APPEND_INT32(set, "tries", (int32_t)x->tries);
    put_text(set, "fanout", fanout);
    if (x->change && x->change->n_topics_before > 0)
        put_topics(set, x->change);
    put_state(set, t);
}

/* ---- MongoDB ---- */

/* "" when the item is gone, or has none that reads as one. */
static int read_publisher(struct mongo_conn *c, item_id id, char out[NAME_MAX_BYTES + 1], struct err *e)
{
    bson_t opts = BSON_INITIALIZER, *filter = BCON_NEW("_id", BCON_INT64((int64_t)id));
    const bson_t *d, *reply;
    bson_error_t be;
    size_t n;
    int rc = 0;
    BCON_APPEND(&opts, "projection", "{", "publisher", BCON_INT32(1), "}", "limit", BCON_INT64(1));
    mongo_read_opts(c, &opts);
    mongoc_cursor_t *cur = mongoc_collection_find_with_opts(mongo_coll(c, COLL_ITEMS), filter, &opts, NULL);
    out[0] = '\0';
    if (mongoc_cursor_next(cur, &d)) {
        const char *name = mongo_get_str(d, "publisher", &n);
        if (name && names_check(name, n, NULL) == 0)
            memcpy(out, name, n + 1);
    } else if (mongoc_cursor_error_document(cur, &be, &reply)) {
        rc = mongo_err(e, &be, reply, "item");
    }
    mongoc_cursor_destroy(cur);
    bson_destroy(filter);
    bson_destroy(&opts);
    return rc;
}

static int upsert(struct mongo_conn *c, const char *id, const bson_t *set, struct err *e)
{
    bson_t opts = BSON_INITIALIZER, reply, *filter = BCON_NEW("_id", BCON_UTF8(id));
    bson_t *update = BCON_NEW("0", "{", "$set", BCON_DOCUMENT(set), "}"); /* a pipeline */
    bson_error_t be;
    int rc = -1;
    BSON_APPEND_BOOL(&opts, "upsert", true);
    mongo_write_opts(c, &opts);
    for (int i = 0; i < TRIES; i++) {
        bool ok = mongoc_collection_update_one(mongo_coll(c, COLL_DEAD_LETTERS), filter, update, &opts,
                                               &reply, &be);
        rc = ok ? 0 : mongo_err(e, &be, &reply, "dead_letters");
        bson_destroy(&reply);
        if (ok || e->code != ERR_CONFLICT) /* two first ones at once */
            break;
    }
    bson_destroy(&opts);
    bson_destroy(filter);
    bson_destroy(update);
    return rc;
}

static int drop_oldest(struct mongo_conn *c, struct err *e)
{
    bson_t filter = BSON_INITIALIZER, extra = BSON_INITIALIZER, reply,
           *sort = BCON_NEW("at", BCON_INT32(1), "_id", BCON_INT32(1));
    bson_error_t be;
    int rc = 0;
    mongoc_find_and_modify_opts_t *o = mongoc_find_and_modify_opts_new();
    mongo_write_opts(c, &extra);
    mongoc_find_and_modify_opts_append(o, &extra);
    mongoc_find_and_modify_opts_set_sort(o, sort);
    mongoc_find_and_modify_opts_set_flags(o, MONGOC_FIND_AND_MODIFY_REMOVE);
    if (!mongoc_collection_find_and_modify_with_opts(mongo_coll(c, COLL_DEAD_LETTERS), &filter, o, &reply,
                                                     &be))
        rc = mongo_err(e, &be, &reply, "dead_letters");
    mongoc_find_and_modify_opts_destroy(o);
    bson_destroy(&reply);
    bson_destroy(&extra);
    bson_destroy(&filter);
    bson_destroy(sort);
    return rc;
}

static int make_room(struct mongo_conn *c, unsigned *lost, struct err *e)
{
    bson_error_t be;
    bson_t reply;
    int64_t n =
        mongoc_collection_estimated_document_count(mongo_coll(c, COLL_DEAD_LETTERS), NULL, NULL, &reply, &be);
    int rc = n < 0 ? mongo_err(e, &be, &reply, "dead_letters") : 0;
    bson_destroy(&reply);
    while (rc == 0 && n-- >= DEAD_LETTERS_MAX) {
        rc = drop_oldest(c, e);
        (*lost)++;
    }
    return rc;
}

int dead_letters_write(struct mongo_conn *c, const struct trouble *x, const char *fanout, unsigned *lost,
                       struct err *e)
{
    char id[LETTER_ID_SIZE], publisher[NAME_MAX_BYTES + 1] = "";
    *lost = 0;
    if (x->about.item && read_publisher(c, x->about.item, publisher, e) != 0)
        return -1;
    if (make_room(c, lost, e) != 0)
        return -1;
    bson_t set = BSON_INITIALIZER;
    letter_id(x, id);
    put_letter(&set, x, publisher, fanout);
    int rc = upsert(c, id, &set, e);
    bson_destroy(&set);
    return rc;
}
