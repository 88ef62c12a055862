/* publishers.h - titles and icons of publishers, for the pages that show their items.
 *
 * A bounded cache over `targets`, already as JSON. Told of changes by publishers_changed(); what is older
 * than a minute is read again in any case. Any thread; only publishers_fetch() blocks.
 */
#ifndef FEEDMILL_PUBLISHERS_H
#define FEEDMILL_PUBLISHERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/err.h"
#include "common/mongo.h"

struct publishers;

struct publishers *publishers_new(size_t max_entries); /* 1 to 10,000,000 */
void publishers_free(struct publishers *p);

/* One publisher as a member of a page's `publishers`. Immutable and counted. */
struct publisher_title {
    unsigned refs;
    uint64_t mark; /* of its bytes, the same in every process: for the page's ETag */
    size_t len;
    char json[]; /* "name":{"title":...,"icon":...} */
};

struct publisher_ask {
    const char *name;
    uint64_t hash; /* publishers_hash(name) */
    struct publisher_title *title;
};

uint64_t publishers_hash(const char *name);

/* publishers_find() sets title of each of the n asks: counted, NULL when it has to be fetched first. It
 * answers how many have to be. */
size_t publishers_find(struct publishers *p, struct publisher_ask *asks, size_t n);

/* publishers_untitled() is for a name that can't be looked up: neither title nor icon. */
struct publisher_title *publishers_untitled(const char *name);
void publishers_unref(struct publisher_title *title); /* NULL is a no-op */

/* publishers_fetch() reads those of the n (1 to 200) asks that have no title, in one query, and keeps them.
 * In a worker. ERR_UNAVAILABLE, ERR_TIMEOUT. */
int publishers_fetch(struct publishers *p, struct mongo_conn *c, struct publisher_ask *asks, size_t n,
                     struct err *e) MUST_USE;

void publishers_changed(struct publishers *p, const char *name);
void publishers_drop_all(struct publishers *p);

#endif
