/* A process that was started lately remembers little: what who resumes has missed before that is read from
 * the log itself, once for all who come back from a time like that, and put in front of what is remembered.
 */
#include "feed-api/streams_private.h"

#include "common/changes.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"

#include <stdlib.h>

#define READ_MS 60000 /* for an hour of a busy log; whoever waits longer is reset */

struct reading {
    struct streams *ss;
    struct stream_log *log;
    ts_t from, upto; /* up to where it is remembered */
    ts_t reached;    /* everything before it was read */
};

static bool is_over(struct streams *ss)
{
    pthread_mutex_lock(&ss->lock);
    bool over = ss->stopping;
    pthread_mutex_unlock(&ss->lock);
    return over;
}

static int follow(struct reading *r, struct changes *log, struct err *e)
{
    struct change *c = mem_zero(1, sizeof *c);
    int64_t until = clock_mono_ms() + READ_MS;
    int rc = 0;
    while (rc == 0 && r->reached < r->upto) {
        rc = changes_next(log, c, e);
        if (rc > 0)
            stream_log_add(r->log, c);
        rc = rc < 0 ? -1 : 0;
        r->reached = ts_max(r->reached, changes_complete(log) + 1);
        if (rc == 0 && stream_log_begins(r->log) > r->from)
            rc = err_set(e, ERR_TOO_LARGE, "more happened than --stream-memory holds");
        if (rc == 0 && (clock_mono_ms() > until || is_over(r->ss)))
            rc = err_set(e, ERR_TIMEOUT, "the log was not read in time");
    }
    free(c);
    return rc;
}

static int read_log(struct reading *r, struct err *e)
{
    struct app *app = r->ss->app;
    struct changes *log;
    struct changes_options o = {.mongo = app->mongo,
                                .instance = app->instance,
                                .kinds = 1u << CHANGE_ITEM,
                                .start = r->from,
                                .tell_items = true};
    if (changes_open(&log, &o, e) < 0)
        return -1;
    int rc = follow(r, log, e);
    changes_close(log);
    return rc;
}

bool streams_read_back(struct streams *ss, ts_t from)
{
    struct err e;
    struct reading r = {.ss = ss, .from = from, .upto = stream_log_begins(ss->log)};
    int64_t began = clock_mono_ms();
    ss->reads_back = true;
    pthread_mutex_unlock(&ss->lock);
    r.log = stream_log_new((size_t)ss->app->cfg.stream_memory, UINT32_MAX / 2);
    stream_log_begin(r.log, from);
    int rc = read_log(&r, &e);
    pthread_mutex_lock(&ss->lock);
    if (rc < 0)
        log_event(LOG_WARN, "streams_read_back_failed", LOG_ERR(&e));
    else
        log_event(LOG_INFO, "streams_read_back", LOG_X("from", from), LOG_X("to", r.upto),
                  LOG_I("entries", (int64_t)(stream_log_end(r.log) - stream_log_first(r.log))),
                  LOG_I("ms", clock_mono_ms() - began));
    metrics_add(ss->app->metrics, M_STREAM_READ_BACK, 0, 1);
    ss->reads_back = false;
    bool again = rc < 0 && e.code == ERR_UNAVAILABLE;
    if (rc == 0)
        stream_log_join(ss->log, r.log, r.reached);
    if (!again && stream_log_begins(ss->log) > from)
        ss->unreachable = ts_max(ss->unreachable, from + 1);
    stream_log_free(r.log);
    return !again;
}
