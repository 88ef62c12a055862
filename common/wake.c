#include "common/wake.h"

#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/mem.h"

struct wake {
    int fd;
    struct event *event;
    void (*fn)(void *arg);
    void *arg;
};

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    struct wake *w = arg;
    uint64_t count;
    ssize_t n = read(fd, &count, sizeof count);
    (void)n; /* EAGAIN is fine: somebody else has emptied it */
    w->fn(w->arg);
}

int wake_new(struct wake **out, struct event_base *base, void (*fn)(void *arg), void *arg, struct err *e)
{
    struct wake *w = mem_zero(1, sizeof *w);
    w->fn = fn;
    w->arg = arg;
    w->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (w->fd < 0) {
        err_set(e, ERR_UNAVAILABLE, "eventfd: %s", strerror(errno));
        wake_free(w);
        return -1;
    }
    w->event = event_new(base, w->fd, EV_READ | EV_PERSIST, on_wake, w);
    if (w->event == NULL || event_add(w->event, NULL) != 0) {
        wake_free(w);
        return err_set(e, ERR_INTERNAL, "the loop takes no event");
    }
    *out = w;
    return 0;
}

void wake_free(struct wake *w)
{
    if (w == NULL)
        return;
    if (w->event != NULL)
        event_free(w->event);
    if (w->fd >= 0)
        close(w->fd);
    free(w);
}

void wake_up(struct wake *w)
{
    uint64_t one = 1;
    ssize_t n;
    do {
        n = write(w->fd, &one, sizeof one);
    } while (n < 0 && errno == EINTR);
    assert(n == (ssize_t)sizeof one || errno == EAGAIN); /* EAGAIN: the counter is full, so it is awake */
}
