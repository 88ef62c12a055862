#include "tools/stack_member.h"

#include "common/clock.h"

void stack_member_init(struct stack_member *m, struct server *server)
{
    *m = (struct stack_member){.server = server};
}

void stack_member_done(struct stack_member *m)
{
    server_free(m->server);
    *m = (struct stack_member){.server = NULL};
}

int64_t stack_backoff_next(int64_t before_ms, int64_t up_ms)
{
    if (before_ms <= 0 || up_ms >= STACK_STEADY_MS) {
        return STACK_BACKOFF_FIRST_MS;
    }
    return before_ms * 2 < STACK_BACKOFF_MAX_MS ? before_ms * 2 : STACK_BACKOFF_MAX_MS;
}

void stack_member_want(struct stack_member *m)
{
    if (m->state == STACK_MEMBER_IDLE) {
        m->state = STACK_MEMBER_WAITING;
        m->retry_at = 0;
    }
}

static enum stack_member_event ended(struct stack_member *m, int64_t now)
{
    int64_t up = m->state == STACK_MEMBER_UP ? now - m->up_at : 0;
    m->backoff_ms = stack_backoff_next(m->backoff_ms, up);
    m->retry_at = now + m->backoff_ms;
    m->state = STACK_MEMBER_WAITING;
    m->ends++;
    return STACK_MEMBER_ENDED;
}

static enum stack_member_event probe(struct stack_member *m, int64_t now)
{
    if (server_probe(m->server, &m->why) == 0) {
        m->state = STACK_MEMBER_UP;
        m->was_up = true;
        m->ends = 0;
        m->up_at = clock_mono_ms();
        return STACK_MEMBER_READY;
    }
    return server_running(m->server) ? STACK_MEMBER_NOTHING : ended(m, now);
}

enum stack_member_event stack_member_tick(struct stack_member *m, int64_t now)
{
    switch (m->state) {
    case STACK_MEMBER_IDLE:
        return STACK_MEMBER_NOTHING;
    case STACK_MEMBER_WAITING:
        if (now < m->retry_at) {
            return STACK_MEMBER_NOTHING;
        }
        if (server_start(m->server, &m->why) != 0) {
            return ended(m, now);
        }
        m->state = STACK_MEMBER_STARTING;
        return STACK_MEMBER_NOTHING;
    case STACK_MEMBER_STARTING:
        return probe(m, now);
    case STACK_MEMBER_UP:
        if (server_running(m->server)) {
            return STACK_MEMBER_NOTHING;
        }
        /* For the reason: a probe of what has ended answers with its status and last words. */
        return server_probe(m->server, &m->why) == 0 ? STACK_MEMBER_NOTHING : ended(m, now);
    }
    return STACK_MEMBER_NOTHING;
}
