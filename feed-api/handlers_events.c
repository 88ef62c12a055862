/* handlers_events.c - POST /v1/users/{u}/events: engagement on its way to the ranker's streams.
 *
 * A batch is one script: each event is taken or known to have been taken before (by event_id, for a day), and
 * what is taken stands in the stream. It needs Redis and answers 503 without. Whether the items exist is the
 * ranker's business: asking here would make every impression wait for MongoDB.
 */
#include <stdlib.h>
#include <string.h>
#include "common/clock.h"
#include "common/keys.h"
#include "common/mem.h"
#include "feed-api/app.h"
#include "feed-api/json_whole.h"
#include "feed-api/router.h"

#define EVENTS_MAX       500
#define EVENT_ID_MAX     256
#define DWELL_MAX_MS     86400000
#define EVENT_REMEMBERED "86400000" /* ms: how long an event_id counts as seen */
#define STREAM_MAX       "200000" /* entries; the ranker takes them out as it learns, this is the backstop */

struct event_in {
    bool rejected;
    char detail[128];
    const char *type; /* static */
    char item[ITEM_ID_TEXT_SIZE];
    int64_t at_ms, dwell_ms;
    char *event_id; /* owned; NULL: none */
};

struct events_work {
    size_t n;
    struct event_in *events;
};

static void events_work_free(void *p)
{
    struct events_work *w = p;
    for (size_t i = 0; i < w->n; i++)
        free(w->events[i].event_id);
    free(w->events);
    free(w);
}

static const char *event_type(const char *s)
{
    static const char *const types[] = {"impression", "open", "like", "unlike", "share", "hide", "dwell"};
    for (size_t i = 0; s && i < MEM_COUNT(types); i++)
        if (strcmp(s, types[i]) == 0)
            return types[i];
    return NULL;
}

static int known_members(const json_t *o, struct err *e)
{
    static const char *const known[] = {"type", "item", "at", "dwell_ms", "session", "position", "event_id"};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)o, key, value)
    {
        bool found = false;
        for (size_t i = 0; i < MEM_COUNT(known); i++)
            found |= strcmp(key, known[i]) == 0;
        if (!found)
            return err_set(e, ERR_INVALID, "\"%.40s\" is not known here", key);
    }
    return 0;
}

/* Optional integer member within 0..max; *out stays as it is when absent. */
static int read_count(const json_t *o, const char *name, int64_t max, int64_t *out, struct err *e)
{
    const json_t *v = json_object_get(o, name);
    if (v == NULL || json_is_null(v))
        return 0;
    int64_t n;
    if (!json_whole(v, &n) || n < 0 || n > max)
        return err_set(e, ERR_INVALID, "%s must be an integer from 0 to %lld", name, (long long)max);
    *out = n;
    return 0;
}

/* Optional string member of 1..max bytes; *out stays as it is when absent. */
static int read_text(const json_t *o, const char *name, size_t max, const char **out, struct err *e)
{
    const json_t *v = json_object_get(o, name);
    if (v == NULL || json_is_null(v))
        return 0;
    if (!json_is_string(v) || json_string_length(v) == 0 || json_string_length(v) > max)
        return err_set(e, ERR_INVALID, "%s must be a string of 1 to %zu bytes", name, max);
    *out = json_string_value(v);
    return 0;
}

static int event_read(const json_t *o, struct event_in *ev, struct err *e)
{
    const char *at = NULL, *event_id = NULL, *session = NULL;
    int64_t place = 0;
    item_id id;
    ev->dwell_ms = -1;
    ev->at_ms = clock_wall_ms();
    if (!json_is_object(o))
        return err_set(e, ERR_INVALID, "must be an object");
    ev->type = event_type(json_string_value(json_object_get(o, "type")));
    const char *item = json_string_value(json_object_get(o, "item"));
    if (known_members(o, e) < 0)
        return -1;
    if (ev->type == NULL)
        return err_set(e, ERR_INVALID, "type must be impression, open, like, unlike, share, hide or dwell");
    if (item == NULL || ids_parse(item, &id, e) < 0)
        return err_set(e, ERR_INVALID, "item must be an item id, as a string");
    if (read_count(o, "dwell_ms", DWELL_MAX_MS, &ev->dwell_ms, e) < 0 ||
        read_count(o, "position", 1000000, &place, e) < 0 || read_text(o, "session", 64, &session, e) < 0 ||
        read_text(o, "event_id", EVENT_ID_MAX, &event_id, e) < 0 || read_text(o, "at", 64, &at, e) < 0)
        return -1;
    if (at && clock_parse(at, &ev->at_ms, e) < 0)
        return err_prefix(e, "at");
    if (strcmp(ev->type, "dwell") == 0 && ev->dwell_ms < 0)
        return err_set(e, ERR_INVALID, "a dwell needs dwell_ms");
    ids_format(id, ev->item);
    ev->event_id = mem_strdup(event_id);
    return 0;
}

/* The script's keys and arguments: at most 1 + 500 keys and 3 + 5 * 500 arguments. */
struct script_call {
    const char *argv[1 + EVENTS_MAX + 3 + 5 * EVENTS_MAX];
    size_t len[1 + EVENTS_MAX + 3 + 5 * EVENTS_MAX];
    int argc;
    char keys[1 + EVENTS_MAX][KEY_SIZE];
    char numbers[2 * EVENTS_MAX][24];
};

static void add_arg(struct script_call *s, const char *arg)
{
    s->argv[s->argc] = arg;
    s->len[s->argc++] = strlen(arg);
}

static void script_fill(struct script_call *s, const struct events_work *ew, const char *user)
{
    unsigned stream = keys_bucket(user) % EVENT_STREAMS, n_keys = 0, n_numbers = 0;
    keys_event_stream(s->keys[n_keys], stream);
    add_arg(s, s->keys[n_keys++]);
    for (size_t i = 0; i < ew->n; i++) {
        if (ew->events[i].rejected || ew->events[i].event_id == NULL)
            continue;
        keys_event_seen(s->keys[n_keys], stream, user, ew->events[i].event_id);
        add_arg(s, s->keys[n_keys++]);
    }
    add_arg(s, STREAM_MAX);
    add_arg(s, EVENT_REMEMBERED);
    add_arg(s, user);
    for (size_t i = 0; i < ew->n; i++) {
        const struct event_in *ev = &ew->events[i];
        if (ev->rejected)
            continue;
        add_arg(s, ev->type);
        add_arg(s, ev->item);
        snprintf(s->numbers[n_numbers], sizeof *s->numbers, "%lld", (long long)ev->at_ms);
        add_arg(s, s->numbers[n_numbers++]);
        snprintf(s->numbers[n_numbers], sizeof *s->numbers, "%lld",
                 (long long)(ev->dwell_ms < 0 ? 0 : ev->dwell_ms));
        add_arg(s, s->numbers[n_numbers++]);
        add_arg(s, ev->event_id ? "1" : "0");
    }
}

static int script_keys(const struct events_work *ew)
{
    int n = 1;
    for (size_t i = 0; i < ew->n; i++)
        n += !ew->events[i].rejected && ew->events[i].event_id != NULL;
    return n;
}

static void write_answer(struct call *c, const struct events_work *ew, size_t taken, size_t duplicates)
{
    bool first = true;
    metrics_add(c->app->metrics, M_EVENTS, ME_ACCEPTED, (int64_t)taken);
    metrics_add(c->app->metrics, M_EVENTS, ME_DUPLICATE, (int64_t)duplicates);
    metrics_add(c->app->metrics, M_EVENTS, ME_REJECTED, (int64_t)(ew->n - taken - duplicates));
    buf_printf(&c->out, "{\"accepted\":%zu,\"duplicates\":%zu,\"rejected\":[", taken, duplicates);
    for (size_t i = 0; i < ew->n; i++) {
        if (!ew->events[i].rejected)
            continue;
        buf_printf(&c->out, "%s{\"index\":%zu,\"detail\":", first ? "" : ",", i);
        buf_add_json(&c->out, ew->events[i].detail);
        buf_add_char(&c->out, '}');
        first = false;
    }
    buf_add_str(&c->out, "]}");
    c->status = 202;
}

static void work_events(struct worker *w, struct call *c)
{
    struct events_work *ew = c->data;
    struct script_call *s = mem_zero(1, sizeof *s);
    struct err e = {0};
    redisReply *reply;
    size_t taken = 0, n = 0;
    script_fill(s, ew, c->params[0]);
    if (redis_script(w->redis, &reply, SCRIPT_EVENTS, script_keys(ew), s->argc, s->argv, s->len, &e) < 0) {
        call_fail_redis(c, &e);
    } else {
        n = reply->type == REDIS_REPLY_ARRAY ? reply->elements : 0;
        for (size_t i = 0; i < n; i++)
            taken += reply->element[i]->integer == 1;
        freeReplyObject(reply);
        write_answer(c, ew, taken, n - taken);
    }
    free(s);
}

static size_t read_all(struct call *c, const json_t *list)
{
    struct events_work *ew = mem_zero(1, sizeof *ew);
    size_t accepted = 0, i;
    const json_t *o;
    ew->events = mem_zero(json_array_size(list), sizeof *ew->events);
    ew->n = json_array_size(list);
    c->data = ew;
    c->data_free = events_work_free;
    json_array_foreach(list, i, o)
    {
        struct event_in *ev = &ew->events[i];
        struct err e = {0};
        ev->rejected = event_read(o, ev, &e) < 0;
        snprintf(ev->detail, sizeof ev->detail, "%.127s", e.msg);
        if (ev->rejected && !utf8_valid(ev->detail, strlen(ev->detail))) /* cut inside of a character */
            snprintf(ev->detail, sizeof ev->detail, "holds a member that is not known here");
        accepted += !ev->rejected;
    }
    return accepted;
}

static void handle_events(struct call *c)
{
    json_t *body = call_json(c);
    if (body == NULL) {
        call_finish(c);
        return;
    }
    const json_t *list = json_object_get(body, "events");
    size_t accepted = 0;
    const char *name;
    json_t *member;
    json_object_foreach(body, name, member)
    {
        if (strcmp(name, "events") != 0)
            call_unknown_member(c, "", name);
    }
    if (!json_is_array(list))
        call_invalid(c, "/events", "must be an array of events");
    else if (json_array_size(list) == 0 || json_array_size(list) > EVENTS_MAX)
        call_invalid(c, "/events", "must hold 1 to %d events", EVENTS_MAX);
    else if (c->problem == NULL)
        accepted = read_all(c, list);
    json_decref(body);
    if (accepted > 0) {
        call_work(c, work_events);
    } else {
        if (c->problem == NULL && c->data)
            write_answer(c, c->data, 0, 0);
        call_finish(c);
    }
}

const struct route routes_events[] = {
    {"POST", "/v1/users/{u}/events", handle_events, ACCESS_SERVICE | ACCESS_OWN, NULL, "application/json",
     512 * 1024, "sendEvents"},
    {0},
};
