/* handlers_marker.c - how far a user has read: GET and PUT of /v1/users/{u}/feed/marker. */
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/mem.h"
#include "feed-api/app.h"
#include "feed-api/markers.h"
#include "feed-api/router.h"

#define BODY_MAX 1024

struct marker_put {
    item_id id;
    bool force;
};

static void answer(struct call *c, const struct marker *m)
{
    char id[ITEM_ID_TEXT_SIZE], at[CLOCK_RFC3339_SIZE];
    c->status = 200;
    if (m->id == 0) {
        buf_add_str(&c->out, "{\"id\":null,\"updated_at\":null}");
        return;
    }
    ids_format(m->id, id);
    clock_format(m->at_ms, at);
    buf_printf(&c->out, "{\"id\":\"%s\",\"updated_at\":\"%s\"}", id, at);
}

/* What another device has set a moment ago, at any process, is seen. */
static void get_work(struct worker *w, struct call *c)
{
    struct marker m;
    struct err e;
    if (mongo_conn_fresh(w->mongo, NULL, &e) != 0 || markers_find(w->mongo, c->params[0], &m, &e) != 0)
        call_fail_err(c, &e);
    else
        answer(c, &m);
}

static void handle_get(struct call *c)
{
    call_work(c, get_work);
}

static void put_work(struct worker *w, struct call *c)
{
    const struct marker_put *p = c->data;
    struct marker m;
    struct err e;
    if (markers_put(w->mongo, c->params[0], p->id, p->force, clock_wall_ms(), &m, &e) != 0) {
        call_fail_err(c, &e);
        return;
    }
    c->position = mongo_conn_time(w->mongo);
    answer(c, &m);
}

static int read_body(struct call *c, const json_t *o, struct marker_put *out)
{
    const json_t *id = json_object_get(o, "id"), *force = json_object_get(o, "force");
    const char *key;
    json_t *value;
    struct err e;
    int rc = 0;
    json_object_foreach((json_t *)o, key, value)
    {
        if (strcmp(key, "id") != 0 && strcmp(key, "force") != 0)
            rc = call_unknown_member(c, "", key);
    }
    if (!json_is_string(id) || strlen(json_string_value(id)) != json_string_length(id) ||
        ids_parse(json_string_value(id), &out->id, &e) != 0)
        rc = call_invalid(c, "/id", "must be an item's id, as a string");
    if (force && !json_is_boolean(force))
        rc = call_invalid(c, "/force", "must be true or false");
    out->force = json_is_true(force);
    return rc;
}

static void handle_put(struct call *c)
{
    json_t *o = call_json(c);
    if (o == NULL) {
        call_finish(c);
        return;
    }
    c->data = mem_zero(1, sizeof(struct marker_put));
    c->data_free = free;
    int rc = read_body(c, o, c->data);
    json_decref(o);
    if (rc != 0)
        call_finish(c);
    else
        call_work(c, put_work);
}

const struct route routes_marker[] = {
    {"GET", "/v1/users/{u}/feed/marker", handle_get, ACCESS_SERVICE | ACCESS_OWN, NULL, NULL, 0, "getMarker"},
    {"PUT", "/v1/users/{u}/feed/marker", handle_put, ACCESS_SERVICE | ACCESS_OWN, NULL, "application/json",
     BODY_MAX, "putMarker"},
    {0},
};
