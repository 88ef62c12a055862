/* mem.h - the one allocator. Out of memory aborts the process: a supervisor restarts it, and the log
 * redelivers. So nobody tests for NULL. Any thread.
 */
#ifndef FEEDMILL_MEM_H
#define FEEDMILL_MEM_H

#include <stddef.h>

/* All memory is released by free(). Sizes of 0 answer a pointer that may be freed. */
void *mem_alloc(size_t n);                          /* uninitialised */
void *mem_zero(size_t count, size_t size);          /* zeroed; aborts when count * size overflows */
void *mem_grow(void *p, size_t count, size_t size); /* realloc of count * size, overflow checked */
char *mem_strdup(const char *s);                    /* s may be NULL: answers NULL */
char *mem_strndup(const char *s, size_t n);         /* n bytes and a NUL */
char *mem_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* mem_hook_libraries() makes jansson and libevent allocate here; called first in main(). */
void mem_hook_libraries(void);

#define MEM_COUNT(a) (sizeof(a) / sizeof *(a))

#endif
