/* stream_posts.h - where in the memory of the log each target is named: so that whoever has missed much finds
 * what concerns him without looking at all the rest.
 *
 * For each name an ascending list of sequences. Pure; part of a stream_log, which keeps it in step.
 */
#ifndef FEEDMILL_STREAM_POSTS_H
#define FEEDMILL_STREAM_POSTS_H

#include <stddef.h>
#include <stdint.h>
#include "common/names.h"

struct stream_posts;

struct stream_posts *stream_posts_new(void);
void stream_posts_free(struct stream_posts *p); /* NULL is a no-op */

/* stream_posts_add() notes that the entry seq names it; once for one entry and name. stream_posts_drop()
 * takes that back; not there: nothing. Cheap at the ends of a list: the newest come, the oldest go. */
void stream_posts_add(struct stream_posts *p, enum target_kind kind, const char *name, uint64_t seq);
void stream_posts_drop(struct stream_posts *p, enum target_kind kind, const char *name, uint64_t seq);

/* stream_posts_from() answers the sequences from seq on, ascending, and how many; valid until the next
 * change. */
const uint64_t *stream_posts_from(const struct stream_posts *p, enum target_kind kind, const char *name,
                                  uint64_t seq, size_t *n);

size_t stream_posts_bytes(const struct stream_posts *p);

#endif
