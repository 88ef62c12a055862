/* item.h - one piece of content: from JSON, to and from BSON, to JSON. Pure: no I/O, no clock.
 */
#ifndef FEEDMILL_ITEM_H
#define FEEDMILL_ITEM_H

#include <bson/bson.h>
#include <jansson.h>
#include <stdbool.h>
#include "common/buf.h"
#include "common/err.h"
#include "common/ids.h"
#include "common/names.h"

#define ITEM_TITLE_MAX       512
#define ITEM_EXTERNAL_ID_MAX 256
#define ITEM_BODY_MAX        65536
#define ITEM_URL_MAX         2048
#define ITEM_MEDIA_MAX       16
#define ITEM_TOPICS_MAX      16
#define ITEM_EXTRA_MAX       4096
#define ITEM_LANG_MAX        35

struct item {
    item_id id;
    int32_t revision;
    bool live; /* false: a tombstone, only id, revision, publisher, external_id, times */
    char *publisher, *external_id, *title, *body, *url, *lang; /* owned; NULL when absent */
    char *media; /* canonical JSON text of the array, NULL for none */
    char *extra; /* canonical JSON text of the object, NULL for none */
    unsigned n_topics;
    char topics[ITEM_TOPICS_MAX][NAME_MAX_BYTES + 1]; /* in the order given, without repeats */
    int64_t published_ms, created_ms, edited_ms;      /* edited_ms 0: never; published_ms -1: not given */
};

void item_done(struct item *it); /* zeroes; the struct itself is the caller's */

/* An input error names the member: pointer is a JSON pointer such as "/media/0/url". */
struct item_problem {
    char pointer[64];
    char detail[192];
};

/* item_from_json() checks a whole item as POST takes it (unknown members, types, caps; published_at against
 * now_ms: up to 60 s ahead counts as now, more or before 1970 is wrong). Outputs are untouched on failure. */
int item_from_json(const json_t *o, int64_t now_ms, struct item *out, struct item_problem *p) MUST_USE;

/* item_patch() applies an RFC 7396 merge patch to *it; publisher, external_id, published_at, id... are
 * refused. *changed: whether anything differs. On failure *it is untouched. */
int item_patch(struct item *it, const json_t *patch, bool *changed, struct item_problem *p) MUST_USE;

/* item_same_content() compares what a publisher can change: title, body, url, media, topics, lang, extra. */
bool item_same_content(const struct item *a, const struct item *b);
bool item_same_topics(const struct item *a, const struct item *b); /* as sets */

/* item_copy_content() makes what a publisher can change in to equal to from's. */
void item_copy_content(struct item *to, const struct item *from);

/* The rules of `extra` and of web addresses, for targets too: v may be NULL or null (*out is NULL then); *out
 * is the caller's. */
int item_extra_from_json(const json_t *v, char **out, struct item_problem *p) MUST_USE;
int item_url_from_json(const json_t *v, const char *pointer, char **out, struct item_problem *p) MUST_USE;

void item_to_bson(const struct item *it, bson_t *out); /* appends the whole document as DESIGN's `items` */
void item_append_topics(const struct item *it, const char *key, bson_t *d);    /* as an array named key */
int item_from_bson(const bson_t *d, struct item *out, struct err *e) MUST_USE; /* ERR_CORRUPT */

/* item_write_json() appends the item as api.md answers it. parts: ITEM_FULL all fields; ITEM_SUMMARY without
 * body and extra. */
enum item_parts { ITEM_FULL, ITEM_SUMMARY };
void item_write_json(const struct item *it, enum item_parts parts, struct buf *out);

#endif
