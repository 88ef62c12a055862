#include "tests/support/fiber.h"

#include <assert.h>
#include <stdlib.h>
#include <ucontext.h>

#include "common/mem.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#if __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__ 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#endif

#define STACK_BYTES (1 << 20)

/* POSIX gave these up for threads. Threads would do, one at a time, but a switch would cost ten times as
 * much. */

struct fiber {
    ucontext_t at;
    void (*fn)(void *arg);
    void *arg;
    void *stack;
    bool ended;
    void *fake_stack; /* of AddressSanitizer */
    void *tsan;       /* of ThreadSanitizer */
};

/* Who runs, and what fiber_run() goes back to. */
static struct {
    struct fiber *now;
    ucontext_t at;
    const void *stack;
    size_t stack_size;
    void *tsan;
} here;

/* ---- what the sanitizers are told ---- */

static void leave(void **fake_stack, const void *stack, size_t size, void *tsan)
{
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(fake_stack, stack, size);
#endif
#ifdef __SANITIZE_THREAD__
    __tsan_switch_to_fiber(tsan, 0);
#endif
    (void)fake_stack;
    (void)stack;
    (void)size;
    (void)tsan;
}

static void arrive(void *fake_stack, const void **from, size_t *size)
{
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(fake_stack, from, size);
#endif
    (void)fake_stack;
    (void)from;
    (void)size;
}

/* ---- fibers ---- */

static void run(void)
{
    struct fiber *f = here.now;
    arrive(NULL, &here.stack, &here.stack_size);
    f->fn(f->arg);
    f->ended = true;
    leave(NULL, here.stack, here.stack_size, here.tsan);
    setcontext(&here.at);
    abort();
}

struct fiber *fiber_new(void (*fn)(void *arg), void *arg)
{
    struct fiber *f = mem_zero(1, sizeof *f);
    f->fn = fn;
    f->arg = arg;
    f->stack = mem_alloc(STACK_BYTES);
    // cppcheck-suppress getcontextCalled
    assert(getcontext(&f->at) == 0);
    f->at.uc_stack.ss_sp = f->stack;
    f->at.uc_stack.ss_size = STACK_BYTES;
    f->at.uc_link = NULL;
    // cppcheck-suppress makecontextCalled
    makecontext(&f->at, run, 0);
#ifdef __SANITIZE_THREAD__
    f->tsan = __tsan_create_fiber(0);
#endif
    return f;
}

void fiber_free(struct fiber *f)
{
    if (!f)
        return;
    assert(f->ended);
#ifdef __SANITIZE_THREAD__
    __tsan_destroy_fiber(f->tsan);
#endif
    free(f->stack);
    free(f);
}

bool fiber_run(struct fiber *f)
{
    void *fake_stack = NULL;
    assert(!here.now && !f->ended);
    here.now = f;
#ifdef __SANITIZE_THREAD__
    here.tsan = __tsan_get_current_fiber();
#endif
    leave(&fake_stack, f->stack, STACK_BYTES, f->tsan);
    // cppcheck-suppress swapcontextCalled
    swapcontext(&here.at, &f->at);
    arrive(fake_stack, NULL, NULL);
    here.now = NULL;
    return !f->ended;
}

bool fiber_ended(const struct fiber *f)
{
    return f->ended;
}

bool fiber_is_inside(void)
{
    return here.now != NULL;
}

void fiber_yield(void)
{
    struct fiber *f = here.now;
    if (!f)
        return;
    leave(&f->fake_stack, here.stack, here.stack_size, here.tsan);
    // cppcheck-suppress swapcontextCalled
    swapcontext(&f->at, &here.at);
    arrive(f->fake_stack, &here.stack, &here.stack_size);
}
