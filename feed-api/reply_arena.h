/* reply_arena.h - memory for replies of Redis, one after the other: a page's reply has some fifty parts, and
 * hiredis by itself allocates and frees each.
 *
 * Replies look as always (struct redisReply), but live until the next one is read: the asynchronous client
 * frees each right after its callback, which is when the memory is used again. One connection, one thread.
 */
#ifndef FEEDMILL_REPLY_ARENA_H
#define FEEDMILL_REPLY_ARENA_H

#include <hiredis/hiredis.h>

struct reply_arena;

struct reply_arena *reply_arena_new(void);
void reply_arena_free(struct reply_arena *a); /* after all its readers; NULL is a no-op */

/* reply_arena_use() has a connection's replies made in a; of another one that is over. Only for connections
 * on which no reply is kept (freeReplyObject() must not be called for them). */
void reply_arena_use(struct reply_arena *a, redisReader *reader);

#endif
