/* handlers_users.c - a user as a whole: erased, and signed out everywhere. */
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "feed-api/app.h"
#include "feed-api/erase.h"
#include "feed-api/router.h"

#define ERASE_DEADLINE_MS 30000 /* looking at ten million keys of Redis takes several seconds */

static void erase_work(struct worker *w, struct call *c)
{
    const char *user = c->params[0];
    struct err e;
    if (erase_stored(w->mongo, c->app->counts, user, &e) != 0) {
        call_fail_err(c, &e);
        return;
    }
    c->position = mongo_conn_time(w->mongo);
    tail_note_user(c->app->tail, user, c->position);
    if (erase_derived(w->redis, user, c->deadline, &e) != 0) {
        if (e.code == ERR_BUSY)
            call_fail_err(c, &e);
        else
            call_fail_redis(c, &e);
        return;
    }
    c->status = 204;
    log_event(LOG_INFO, "user_erased", LOG_S("id", c->http->id)); /* not whom */
}

static void handle_erase(struct call *c)
{
    c->deadline = clock_mono_ms() + ERASE_DEADLINE_MS;
    call_work(c, erase_work);
}

static void end_tokens_work(struct worker *w, struct call *c)
{
    struct err e;
    if (auth_end_tokens(c->app->auth, w->mongo, c->params[0], &e) != 0) {
        call_fail_err(c, &e);
        return;
    }
    c->status = 204;
    log_event(LOG_INFO, "tokens_ended", LOG_S("id", c->http->id), LOG_S("by", c->who.id));
}

static void handle_end_tokens(struct call *c)
{
    call_work(c, end_tokens_work);
}

const struct route routes_users[] = {
    {"DELETE", "/v1/users/{u}", handle_erase, ACCESS_SERVICE | ACCESS_OWN, NULL, NULL, 0, "eraseUser"},
    {"DELETE", "/v1/users/{u}/tokens", handle_end_tokens, ACCESS_SERVICE | ACCESS_OWN, NULL, NULL, 0,
     "endTokens"},
    {0},
};
