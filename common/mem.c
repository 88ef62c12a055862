#include "common/mem.h"

#include <event2/event.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *mem_check(void *p)
{
    if (p == NULL) {
        fputs("feedmill: out of memory\n", stderr);
        abort();
    }
    return p;
}

void *mem_alloc(size_t n)
{
    return mem_check(malloc(n ? n : 1));
}

void *mem_zero(size_t count, size_t size)
{
    return mem_check(calloc(count ? count : 1, size ? size : 1));
}

void *mem_grow(void *p, size_t count, size_t size)
{
    size_t n;
    if (__builtin_mul_overflow(count, size, &n))
        mem_check(NULL);
    return mem_check(realloc(p, n ? n : 1));
}

char *mem_strdup(const char *s)
{
    return s ? mem_check(strdup(s)) : NULL;
}

char *mem_strndup(const char *s, size_t n)
{
    char *p = mem_alloc(n + 1);
    memcpy(p, s, n);
    p[n] = '\0';
    return p;
}

char *mem_printf(const char *fmt, ...)
{
    char *out = NULL;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&out, fmt, ap);
    va_end(ap);
    return mem_check(n < 0 ? NULL : out);
}

static void *mem_realloc_hook(void *p, size_t n)
{
    return mem_grow(p, n, 1);
}

void mem_hook_libraries(void)
{
    json_set_alloc_funcs(mem_alloc, free);
    event_set_mem_functions(mem_alloc, mem_realloc_hook, free);
}
