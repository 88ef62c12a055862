#include "feed-api/reply_arena.h"

#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

#define BLOCK ((size_t)16 * 1024) /* a page's reply takes 3 KB */

struct block {
    struct block *next;
    size_t used, size;
    alignas(max_align_t) char bytes[];
};

struct reply_arena {
    struct block *first; /* kept; further ones are for large replies and go with them */
};

static struct block *block_new(size_t size)
{
    struct block *b = mem_alloc(sizeof *b + size);
    *b = (struct block){.size = size};
    return b;
}

struct reply_arena *reply_arena_new(void)
{
    struct reply_arena *a = mem_zero(1, sizeof *a);
    a->first = block_new(BLOCK);
    return a;
}

static void reset(struct reply_arena *a)
{
    while (a->first->next) {
        struct block *b = a->first;
        a->first = b->next;
        free(b);
    }
    a->first->used = 0;
}

void reply_arena_free(struct reply_arena *a)
{
    if (!a)
        return;
    reset(a);
    free(a->first);
    free(a);
}

static void *take(struct reply_arena *a, size_t n)
{
    size_t need = (n + alignof(max_align_t) - 1) & ~(alignof(max_align_t) - 1);
    if (need > a->first->size - a->first->used) {
        struct block *b = block_new(need > BLOCK ? need : BLOCK);
        b->next = a->first;
        a->first = b;
    }
    void *p = a->first->bytes + a->first->used;
    a->first->used += need;
    return p;
}

/* An outermost one begins when the one before it is done with. */
static struct redisReply *make(const redisReadTask *task)
{
    if (!task->parent)
        reset(task->privdata);
    struct redisReply *r = take(task->privdata, sizeof *r);
    memset(r, 0, sizeof *r);
    r->type = task->type;
    if (task->parent)
        ((struct redisReply *)task->parent->obj)->element[task->idx] = r;
    return r;
}

static void *make_string(const redisReadTask *task, char *s, size_t n)
{
    struct redisReply *r = make(task);
    r->str = take(task->privdata, n + 1);
    memcpy(r->str, s, n);
    r->str[n] = '\0';
    r->len = n;
    return r;
}

#if HIREDIS_MAJOR < 1
static void *make_array(const redisReadTask *task, int elements)
#else
static void *make_array(const redisReadTask *task, size_t elements)
#endif
{
    struct redisReply *r = make(task);
    size_t n = (size_t)elements;
    r->elements = n;
    if (n > 0) {
        r->element = take(task->privdata, n * sizeof(struct redisReply *));
        memset(r->element, 0, n * sizeof(struct redisReply *));
    }
    return r;
}

static void *make_integer(const redisReadTask *task, long long value)
{
    struct redisReply *r = make(task);
    r->integer = value;
    return r;
}

/* The task's type is that of what might have been there. */
static void *make_nil(const redisReadTask *task)
{
    struct redisReply *r = make(task);
    r->type = REDIS_REPLY_NIL;
    return r;
}

/* Only the outermost one is told of, and not whose it is; the next one begins anew (make()). */
static void forget(void *reply)
{
    (void)reply;
}

void reply_arena_use(struct reply_arena *a, redisReader *reader)
{
    static redisReplyObjectFunctions functions = {
        .createString = make_string,
        .createArray = make_array,
        .createInteger = make_integer,
        .createNil = make_nil,
        .freeObject = forget,
    };
    reader->fn = &functions;
    reader->privdata = a;
}
