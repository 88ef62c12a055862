/* status.h - what fanout tells over HTTP: ready or not, /v1/status, the gauges that age by themselves.
 *
 * Builds the callbacks of common/admin.h from the engine's status. On the thread of the HTTP server, but for
 * status_report().
 */
#ifndef FEEDMILL_FANOUT_STATUS_H
#define FEEDMILL_FANOUT_STATUS_H

#include "common/admin.h"
#include "fanout/engine.h"
#include "fanout/room.h"

struct status {
    struct engine *engine; /* borrowed */
    struct room *room;     /* borrowed */
    const char *name;      /* borrowed */
    bool draining;         /* set on SIGTERM: not ready any more */
    struct admin_options admin;
};

/* status_init() fills s->admin, the argument for admin_handle(); s must stay where it is. */
void status_init(struct status *s, struct engine *engine, struct room *room, const struct metrics *m,
                 const char *name);

/* status_render() appends the members of /v1/status, each with a leading comma, as of wall time now_ms. */
void status_render(const struct engine_status *st, const struct room_view *room, const char *name,
                   bool draining, int64_t now_ms, struct buf *out);

/* status_report() is what the process tells of itself in `members`: a shares_report_fn with a struct status
 * as arg. Any thread. */
void status_report(void *status, struct member_state *out);

#endif
