/* follow_set.h - what a reader follows and mutes, read whole from MongoDB. Blocking: in a worker.
 */
#ifndef FEEDMILL_FOLLOW_SET_H
#define FEEDMILL_FOLLOW_SET_H

#include <stdbool.h>
#include <stddef.h>
#include "common/err.h"
#include "common/mongo.h"
#include "common/names.h"

struct follow_set {
    char **publishers, **topics; /* owned names, in byte order */
    size_t n_publishers, n_topics;
};

/* follow_set_load() reads all follows of user as c's session sees them. follow_set_one() makes a set of one
 * target. */
int follow_set_load(struct mongo_conn *c, const char *user, struct follow_set *out, struct err *e) MUST_USE;
void follow_set_one(enum target_kind kind, const char *name, struct follow_set *out);
void follow_set_done(struct follow_set *f);

/* follow_set_matches() says whether an item of that publisher with these topics belongs to the feed (mutes
 * aside). */
bool follow_set_matches(const struct follow_set *f, const char *publisher, const char *const *topics,
                        size_t n_topics);

/* follow_set_has() says whether target ("p:name") is followed. */
bool follow_set_has(const struct follow_set *f, const char *target);

/* follow_set_mutes() reads the mutes of user as the text that mutes_parse() takes; the caller frees it. */
int follow_set_mutes(struct mongo_conn *c, const char *user, char **out, struct err *e) MUST_USE;

#endif
