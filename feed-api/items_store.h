/* items_store.h - items in MongoDB: published, revised, deleted, found. Blocking: in a worker.
 *
 * Publishing is one insert; whoever repeats it meets the unique (publisher, external_id) and finds what is
 * there. Everything else is a compare-and-set on the revision, tried again when somebody else was faster.
 * After each write, and before it returns, the caches of this process know of it (content_changed,
 * counts_touch).
 */
#ifndef FEEDMILL_ITEMS_STORE_H
#define FEEDMILL_ITEMS_STORE_H

#include <stdint.h>
#include "common/metrics.h"
#include "common/mongo.h"
#include "feed-api/content.h"
#include "feed-api/counts.h"
#include "feed-api/item.h"
#include "feed-api/item_ids.h"

/* Who writes: borrowed things of one worker for one job. content, counts and metrics may be NULL. */
struct items {
    struct mongo_conn *conn; /* its deadline is the job's */
    struct item_ids *ids;    /* shared by all threads of the process */
    struct content *content;
    struct counts *counts;
    struct metrics *metrics;
    int64_t now_ms; /* wall clock: created_at, edited_at, and published_at when it is not given */
};

enum items_result { ITEMS_CREATED, ITEMS_UNCHANGED, ITEMS_REVISED, ITEMS_DELETED };

struct items_written {
    item_id id;
    int32_t revision;
    enum items_result result;
    ts_t position; /* a page at this position sees what was written (or found) */
};

const char *items_result_name(enum items_result r); /* "created", "unchanged", "revised", "deleted" */

/* items_post() publishes it (as item_from_json() made it; id, created_ms and a missing published_ms are set
 * here), or, when its (publisher, external_id) is known, makes the content of that item equal to it. On
 * success *it is what is stored now. ERR_GONE when that item is deleted, ERR_BUSY when others keep changing
 * it, ERR_UNAVAILABLE and ERR_TIMEOUT: it may or may not be stored; the same call again, with an external_id,
 * settles it. */
int items_post(struct items *s, struct item *it, struct items_written *out, struct err *e) MUST_USE;

/* items_get() reads an item, also a tombstone, as of now: everything acknowledged before the call is seen.
 * ERR_NOT_FOUND. */
int items_get(struct items *s, item_id id, struct item *out, struct err *e) MUST_USE;
int items_get_external(struct items *s, const char *publisher, const char *external_id, struct item *out,
                       struct err *e) MUST_USE;

/* items_patch() applies a merge patch to *it, which items_get() answered, and stores it; on success *it is
 * what is stored now. if_match: the revision that it has to have (ERR_MISMATCH), 0 for any. ERR_INVALID with
 * *p filled, ERR_GONE, ERR_BUSY. */
int items_patch(struct items *s, struct item *it, const json_t *patch, int32_t if_match,
                struct items_written *out, struct item_problem *p, struct err *e) MUST_USE;

/* items_delete() makes *it, which items_get() answered, a tombstone; one that is already is fine. if_match as
 * above. */
int items_delete(struct items *s, struct item *it, int32_t if_match, struct items_written *out,
                 struct err *e) MUST_USE;

/* ---- for bulk.c ---- */

/* items_revise() makes the content of the stored *old equal to it's (CAS, tried again from what is stored
 * then); takes nothing. On success *old is what is stored now. */
int items_revise(struct items *s, struct item *old, const struct item *it, struct items_written *out,
                 struct err *e) MUST_USE;

/* items_revision() appends filter and update of one CAS: old becomes next (content only, its revision + 1,
 * edited now). */
void items_revision(const struct item *old, const struct item *next, int64_t now_ms, bson_t *filter,
                    bson_t *update);
void items_tombstone(const struct item *old, int64_t now_ms, bson_t *filter,
                     bson_t *update); /* the same for a delete */

/* items_bury() turns *it into the tombstone of its next revision, as the update does in the store. */
void items_bury(struct item *it);

/* items_noted() tells the caches of this process about a write: what the item is now, and what it was (NULL:
 * it is new). keep: put it into the content cache. */
void items_noted(struct items *s, const struct item *now, const struct item *before, bool keep);
void items_counted(struct items *s, enum items_result r); /* the metric */

/* items_duplicate_of() reads a server's write error document {code, keyPattern, errmsg}. */
enum items_duplicate { ITEMS_DUPLICATE_NONE, ITEMS_DUPLICATE_ID, ITEMS_DUPLICATE_EXTERNAL };
enum items_duplicate items_duplicate_of(const bson_t *write_error);

#endif
