/* user_changes.h - the newest change of follows or mutes of each user, for a while: a bounded map that knows
 * where its memory begins.
 *
 * Everything that happened at or after user_changes_memory() is in it. What is forgotten, for its age or to
 * make room, moves that point up, so that "not in the map" always means "no change since then". Pure; one
 * thread at a time (tail.c holds a lock).
 */
#ifndef FEEDMILL_USER_CHANGES_H
#define FEEDMILL_USER_CHANGES_H

#include <stddef.h>
#include <stdint.h>
#include "common/names.h"
#include "common/ts.h"

struct user_changes;

/* max: users at most (1 or more); keep_ms: for how long. The memory begins nowhere (at the end of time) until
 * user_changes_begin(). */
struct user_changes *user_changes_new(size_t max, int64_t keep_ms);
void user_changes_free(struct user_changes *u); /* NULL is a no-op */

/* user_changes_begin(): from is where the memory begins now; earlier changes are forgotten. */
void user_changes_begin(struct user_changes *u, ts_t from);

/* user_changes_note() takes down a change (an earlier one than what is known changes nothing), and forgets
 * what is too old at mono_ms. */
void user_changes_note(struct user_changes *u, const char *user, ts_t when, int64_t mono_ms);
void user_changes_expire(struct user_changes *u, int64_t mono_ms);

ts_t user_changes_find(const struct user_changes *u, const char *user); /* 0: none known */
ts_t user_changes_memory(const struct user_changes *u);
size_t user_changes_count(const struct user_changes *u);

#endif
