/* targets.h - publishers and topics as people see them: profile and counts, in MongoDB.
 *
 * Names need no registration: a target without a document is one of nulls and zeros. Blocking, in a worker,
 * except target_write_json() and target_profile_from_json(), which are pure. Counts are counts.h's business.
 */
#ifndef FEEDMILL_TARGETS_H
#define FEEDMILL_TARGETS_H

#include <jansson.h>
#include "common/buf.h"
#include "common/mongo.h"
#include "common/names.h"
#include "feed-api/item.h"

struct target_profile { /* what PUT sets; owned, NULL when absent */
    char *title, *icon, *url;
    char *extra; /* canonical JSON text */
};

struct target {
    enum target_kind kind; /* publisher or topic */
    char name[NAME_MAX_BYTES + 1];
    struct target_profile profile;
    int64_t followers, items;
    bool pull; /* how its items are delivered */
};

void target_profile_done(struct target_profile *p);
void target_done(struct target *t);

/* target_profile_from_json() reads {title?, icon?, url?, extra?}; unknown members are wrong. */
int target_profile_from_json(const json_t *o, struct target_profile *out, struct item_problem *p) MUST_USE;

/* target_write_json() appends {"publisher": name, "title", "icon", "url", "extra", "followers", "items",
 * "mode"} ("topic" for topics). */
void target_write_json(const struct target *t, struct buf *out);

/* targets_get() reads one as of what c has seen; a name that nobody used is fine. */
int targets_get(struct mongo_conn *c, enum target_kind kind, const char *name, struct target *out,
                struct err *e) MUST_USE;

/* targets_put() replaces the profile; *out is what is stored then. */
int targets_put(struct mongo_conn *c, enum target_kind kind, const char *name,
                const struct target_profile *profile, struct target *out, struct err *e) MUST_USE;

/* targets_list() reads up to limit targets (1 to 101) of a kind whose name begins with prefix ("" for all),
 * the most followed first, by name among equals; those after (after_followers, after_name) when after_name is
 * not NULL. *n is how many. */
int targets_list(struct mongo_conn *c, enum target_kind kind, const char *prefix, int64_t after_followers,
                 const char *after_name, size_t limit, struct target *out, size_t *n, struct err *e) MUST_USE;

#endif
