/* lists.h - of the targets published to lately, the active followers: each list is complete, and the least
 * recently used ones make room when all of them take more than the cap.
 *
 * A list is begun, filled with whom MongoDB tells, and ended: from then on it is found. Who gets a timeline
 * meanwhile or later is put on it too (lists_newborn), behind the others, so that the list is out of the
 * order of buckets then, and may name somebody twice, until lists_order() next runs. Who lost his timeline
 * stays on it, retired (see readers.h), until lists_order() throws him out: a walk leaves out who is not
 * readers_active().
 *
 * A list that was found may be gone after the next call that adds to any list, unless it is pinned. A walk:
 *
 *     lists_order(l, list, &n);
 *     lists_pin(l, list);
 *     for (i = 0; i < lists_count(list); i++) ... lists_at(list, i) ...      in as many slices as it likes
 *     lists_note_retired_seen(list, how_many_were_not_active);
 *     lists_unpin(l, list);
 *
 * Every list holds its readers. Pure bookkeeping, no I/O; engine thread only.
 */
#ifndef FEEDMILL_FANOUT_LISTS_H
#define FEEDMILL_FANOUT_LISTS_H

#include <assert.h>
#include <sys/queue.h>
#include "common/names.h"
#include "fanout/readers.h"

/* LOADING and CACHED ones are the lists of their targets. A GONE one is nobody's: it waits for the last
 * unpin, and for the end or abort of its loading. */
enum list_state { LIST_LOADING, LIST_CACHED, LIST_GONE };

/* Read it through the functions below. */
struct list {
    reader_idx *at;
    uint32_t n, cap;
    uint32_t retired_seen; /* so many were met by a walk since it was last swept */
    unsigned pins;
    enum list_state state;
    bool open;  /* begun, and neither ended nor aborted */
    bool mixed; /* newborns are on it that are not in their place */
    uint32_t hash;
    TAILQ_ENTRY(list) queue; /* in the one of its state; the cached: the least recently used first */
    struct list *chain;      /* the next in its slot */
    char target[TARGET_TEXT_SIZE];
};

struct lists;

/* lists_new() borrows r, which has to outlive it. max_bytes is the cap for all lists together. What may
 * exceed it: newborns on pinned lists, until the unpin; and lists_order() needs the room of a list twice
 * while it works. */
struct lists *lists_new(struct readers *r, size_t max_bytes);
void lists_free(struct lists *l); /* frees all, pinned and loading ones too; NULL is fine */

/* lists_clear() forgets all. Pinned lists stay as they are for their walkers until the unpin; loading ones
 * still have to be ended (answers false) or aborted. None of them gets newborns any more. */
void lists_clear(struct lists *l);

/* lists_find() answers the target's complete list and makes it the most recently used, or NULL. */
struct list *lists_find(struct lists *l, const char *target);

/* lists_begin() starts loading. target is 1 to TARGET_TEXT_SIZE - 1 bytes, copied. NULL when the target has a
 * list or somebody else is loading one. The list stays valid until lists_end() or lists_abort(), one of
 * which has to follow. */
struct list *lists_begin(struct lists *l, const char *target);

/* lists_add() puts a reader on a list that is loading, in the order of (bucket, user); a retired one is left
 * out. When the list turns out to be too large it lets go of what it has and takes nothing more:
 * lists_end() will say so. */
void lists_add(struct lists *l, struct list *list, reader_idx i);

/* lists_end() ends loading: true, the list is found from now on; false when it alone takes more than a
 * quarter of the cap, or there is no room, or lists_clear() came between: then it is dropped. */
bool lists_end(struct lists *l, struct list *list) MUST_USE;
void lists_abort(struct lists *l, struct list *list); /* drops what was loading; NULL is fine */

/* lists_newborn() puts an active reader on the target's list, if it has one, loading or complete. Twice does
 * no harm. */
void lists_newborn(struct lists *l, reader_idx i, const char *target);

/* lists_order() comes before a walk: brings the list in the order of buckets if newborns are not in their
 * place, and throws out who is retired if there are such newborns or an eighth of the list was seen to be
 * retired. A pinned list stays as it is. Answers the array (NULL when *n is 0): good until the next call
 * that adds to, orders or drops a list. */
const reader_idx *lists_order(struct lists *l, struct list *list, size_t *n);

/* A pinned list is not evicted, ordered or freed; only newborns are put behind, for which the array may
 * move. */
void lists_pin(struct lists *l, struct list *list);
void lists_unpin(struct lists *l, struct list *list); /* the list may be gone on return */

/* lists_note_retired_seen() is told by a walk how many of the list were not active. */
static inline void lists_note_retired_seen(struct list *list, size_t count)
{
    if (count > list->retired_seen)
        list->retired_seen = count < list->n ? (uint32_t)count : list->n;
}

static inline size_t lists_count(const struct list *list)
{
    return list->n;
}

static inline reader_idx lists_at(const struct list *list, size_t i)
{
    assert(i < list->n);
    return list->at[i];
}

size_t lists_bytes(const struct lists *l);       /* on the heap; 0 when there is no list at all */
size_t lists_count_lists(const struct lists *l); /* complete ones */
uint64_t lists_evictions(const struct lists *l); /* complete lists dropped for room, ever */

#endif
