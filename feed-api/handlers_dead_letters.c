/* handlers_dead_letters.c - what fanout could not apply: list, show, replay. For admins. */
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/mem.h"
#include "feed-api/app.h"
#include "feed-api/cursor.h"
#include "feed-api/dead_letters.h"
#include "feed-api/router.h"

struct listing {
    unsigned limit;
    bool after;
    struct cursor cursor;
};

static void write_next(struct call *c, bool more, int64_t last_ms, const char *last_id)
{
    struct cursor next = {.route = CURSOR_DEAD_LETTERS, .last_number = last_ms};
    char text[CURSOR_TEXT_SIZE];
    buf_add_str(&c->out, "],\"next\":");
    if (more) {
        snprintf(next.last_key, sizeof next.last_key, "%s", last_id);
        cursor_seal(c->app->cursor_key, &next, text);
    }
    buf_add_json(&c->out, more ? text : NULL);
    buf_add_char(&c->out, '}');
}

static void list_work(struct worker *w, struct call *c)
{
    const struct listing *l = c->data;
    char last_id[DEAD_LETTER_ID_SIZE] = "";
    int64_t last_ms = 0;
    bool more;
    struct err e;
    buf_add_str(&c->out, "{\"dead_letters\":[");
    if (mongo_conn_fresh(w->mongo, NULL, &e) != 0 ||
        dead_letters_list(w->mongo, l->limit, l->cursor.last_number, l->after ? l->cursor.last_key : NULL,
                          &c->out, &more, &last_ms, last_id, &e) != 0) {
        call_fail_err(c, &e);
        return;
    }
    write_next(c, more, last_ms, last_id);
}

static int list_read(struct call *c, struct listing *l)
{
    const char *cursor = call_query(c, "cursor");
    struct err e;
    if (call_query_limit(c, &l->limit) != 0)
        return -1;
    if (cursor == NULL)
        return 0;
    if (cursor_open(c->app->cursor_key, cursor, CURSOR_DEAD_LETTERS, NULL, &l->cursor, &e) != 0) {
        metrics_add(c->app->metrics, M_CURSORS_REFUSED, 0, 1);
        return call_invalid_as(c, PROBLEM_INVALID_CURSOR, "?cursor", "%s", e.msg);
    }
    l->after = true;
    return 0;
}

static void list_letters(struct call *c)
{
    c->data = mem_zero(1, sizeof(struct listing));
    c->data_free = free;
    if (list_read(c, c->data) != 0)
        call_finish(c);
    else
        call_work(c, list_work);
}

static void get_work(struct worker *w, struct call *c)
{
    struct err e;
    if (mongo_conn_fresh(w->mongo, NULL, &e) != 0 ||
        dead_letters_get(w->mongo, c->params[0], &c->out, &e) != 0)
        call_fail_err(c, &e);
}

static void get_letter(struct call *c)
{
    call_work(c, get_work);
}

static void replay_work(struct worker *w, struct call *c)
{
    struct dead_letter_replay r = {.position = 0};
    char position[TS_TEXT_SIZE];
    struct err e;
    if (dead_letters_replay(w->mongo, c->params[0], &r, &e) != 0) {
        call_fail_err(c, &e);
        return;
    }
    if (r.user[0] != '\0')
        tail_note_user(c->app->tail, r.user, r.position);
    c->position = r.position;
    ts_format(r.position, position);
    buf_add_str(&c->out, "{\"id\":");
    buf_add_json(&c->out, c->params[0]);
    buf_printf(&c->out, ",\"state\":\"replayed\",\"position\":\"%s\"}", position);
    log_event(LOG_INFO, "dead_letter_replayed", LOG_S("id", c->http->id), LOG_S("letter", c->params[0]),
              LOG_S("by", c->who.id));
}

static void replay_letter(struct call *c)
{
    call_work(c, replay_work);
}

const struct route routes_dead_letters[] = {
    {"GET", "/v1/dead-letters", list_letters, ACCESS_ADMIN, "limit,cursor", NULL, 0, "listDeadLetters"},
    {"GET", "/v1/dead-letters/{x}", get_letter, ACCESS_ADMIN, NULL, NULL, 0, "getDeadLetter"},
    {"POST", "/v1/dead-letters/{x}/replay", replay_letter, ACCESS_ADMIN, NULL, NULL, 0, "replayDeadLetter"},
    {0},
};
