/* token_ends.h - whose tokens were ended, and when: a token that was issued at or before that is refused.
 *
 *   token_ends {_id: the user, hashed, at: ms since 1970}
 *
 * The user's name is not stored, so that this may stay when a user is erased: his old tokens must not come
 * back to life. All of them are held in memory, because every request with a token asks; the log tells of new
 * ones, so that an end acts at all processes within a second. Any thread; what takes a mongo_conn blocks: in
 * a worker, or the tail's thread.
 */
#ifndef FEEDMILL_TOKEN_ENDS_H
#define FEEDMILL_TOKEN_ENDS_H

#include <stdbool.h>
#include <stdint.h>
#include "common/mongo.h"

#define TOKEN_ENDS_MAX     1000000 /* users; some 50 MB */
#define TOKEN_ENDS_ID_SIZE 33      /* 32 hex digits and the NUL */

struct token_ends;
struct token_ends *token_ends_new(void);
void token_ends_free(struct token_ends *t); /* NULL is fine */

/* token_ends_id() is what stands for a user in the store and on the log. */
void token_ends_id(const char *user, char out[TOKEN_ENDS_ID_SIZE]);

/* token_ends_take() takes down what the log or the own write tells; earlier than what is known changes
 * nothing, nor does what is no such id. */
void token_ends_take(struct token_ends *t, const char *id, int64_t at_ms);

/* token_ends_refuses() says whether a token of user issued at issued_ms (wall clock; 0: it does not say) has
 * ended. */
bool token_ends_refuses(struct token_ends *t, const char *user, int64_t issued_ms);

/* token_ends_load() takes down all that are stored, as of now. token_ends_store() stores one; ERR_CONFLICT
 * when there are TOKEN_ENDS_MAX others. */
int token_ends_load(struct token_ends *t, struct mongo_conn *c, struct err *e) MUST_USE;
int token_ends_store(struct mongo_conn *c, const char *user, int64_t at_ms, struct err *e) MUST_USE;

#endif
