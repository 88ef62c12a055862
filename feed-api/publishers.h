/* publishers.h - titles and icons of publishers, for the pages that show their items.
 *
 * A bounded cache over `targets`, already as JSON. Told of changes by publishers_changed(); what is older
 * than a minute is read again in any case. Any thread; only publishers_fetch() blocks.
 */
#ifndef FEEDMILL_PUBLISHERS_H
#define FEEDMILL_PUBLISHERS_H

#include <stdbool.h>
#include <stddef.h>
#include "common/buf.h"
#include "common/err.h"
#include "common/mongo.h"

struct publishers;

struct publishers *publishers_new(size_t max_entries); /* 1 to 10,000,000 */
void publishers_free(struct publishers *p);

/* publishers_write() appends {"title":...,"icon":...} of the publisher; false when it has to be fetched
 * first. */
bool publishers_write(struct publishers *p, const char *name, struct buf *out);

/* publishers_fetch() reads n (1 to 200) of them in one query. In a worker. ERR_UNAVAILABLE, ERR_TIMEOUT. */
int publishers_fetch(struct publishers *p, struct mongo_conn *c, const char *const *names, size_t n,
                     struct err *e) MUST_USE;

void publishers_changed(struct publishers *p, const char *name);
void publishers_drop_all(struct publishers *p);

#endif
