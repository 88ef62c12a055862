/* stream_index.h - who listens to what: from a target to the streams whose readers follow it, and back.
 *
 * An item is matched by looking up its publisher and its topics; what that costs depends on who follows
 * those, not on how many streams there are. A name is kept once, an edge takes 16 bytes. Streams are small
 * numbers that the caller gives out and uses again. Pure; one thread at a time.
 */
#ifndef FEEDMILL_STREAM_INDEX_H
#define FEEDMILL_STREAM_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/names.h"
#include "feed-api/follow_set.h"

struct stream_index;

struct stream_index *stream_index_new(void);
void stream_index_free(struct stream_index *x); /* NULL is a no-op */

/* stream_index_set() makes follows all that the stream listens to, in place of what it was. The names are
 * copied.
 */
void stream_index_set(struct stream_index *x, uint32_t stream, const struct follow_set *follows);
void stream_index_drop(struct stream_index *x, uint32_t stream); /* it listens to nothing from here on */

/* stream_index_find() answers the streams that listen to a publisher or topic, in no order, each once, and
 * their number; they stay until the next call that changes something. */
const uint32_t *stream_index_find(const struct stream_index *x, enum target_kind kind, const char *name,
                                  size_t *n);

/* stream_index_has() says whether this one does. */
bool stream_index_has(const struct stream_index *x, uint32_t stream, enum target_kind kind, const char *name);

/* stream_index_each() calls fn with everything that the stream listens to; stream_index_count() says how
 * much. */
void stream_index_each(const struct stream_index *x, uint32_t stream,
                       void (*fn)(enum target_kind kind, const char *name, void *arg), void *arg);
size_t stream_index_count(const struct stream_index *x, uint32_t stream);

size_t stream_index_targets(const struct stream_index *x);
size_t stream_index_edges(const struct stream_index *x);

#endif
