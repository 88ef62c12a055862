/* driver_apply.c - the answers to writes: checked against what the model says, and taken into it. */
#include "tests/support/driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/mem.h"

static void remember(struct driver *d, const struct op *op)
{
    char position[TS_TEXT_SIZE];
    ts_format(d->position, position);
    char **slot = &d->trace[d->traced++ % DRIVER_TRACE];
    free(*slot);
    *slot = mem_printf("%s %s %.400s -> %s", op->method, op->path, op->body ? op->body : "", position);
    d->ops++;
}

/* The id holds the time; items crowded in one millisecond spill into the next ones. */
static void check_time(struct driver *d, const struct op *op, item_id id)
{
    int64_t at = ids_time_ms(id), now = clock_wall_ms();
    bool right = op->published_ms ? at >= op->published_ms && at <= op->published_ms + 100
                                  : at >= op->sent_ms && at <= now + 100;
    if (!right && !op->repeated)
        driver_fail(d, "item %llu has time %lld, published at %lld", (unsigned long long)id, (long long)at,
                    (long long)(op->published_ms ? op->published_ms : op->sent_ms));
}

static void put_item(struct driver *d, struct op *op, ts_t position)
{
    const struct model_item *old = model_find(&d->model, op->after.id);
    bool moves = !old || old->topics != op->after.topics || old->live != op->after.live;
    op->after.moved = moves ? position : old->moved;
    op->after.left = old ? old->left | (moves ? old->topics : 0) : 0;
    model_put(&d->model, &op->after);
}

/* {id, revision, result, position} of one item. */
static void apply_item(struct driver *d, struct op *op, int status, const json_t *j)
{
    item_id id = 0;
    ts_t position = 0;
    const char *result = json_string_value(json_object_get(j, "result"));
    const char *id_text = json_string_value(json_object_get(j, "id"));
    const char *position_text = json_string_value(json_object_get(j, "position"));
    long long revision = json_integer_value(json_object_get(j, "revision"));
    if (!result || !id_text || ids_parse(id_text, &id, NULL) != 0 || !position_text ||
        ts_parse(position_text, &position, NULL) != 0) {
        char *text = json_dumps(j, 0);
        driver_fail(d, "%s %s: %d %s", op->method, op->path, status, text);
    }
    d->position = ts_max(d->position, position);
    bool is_new = op->kind == OP_PUBLISH && op->same_as < 0;
    const char *want = is_new ? "created" : op->changes ? "revised" : "unchanged";
    if (op->same_as >= 0)
        want = "unchanged";
    bool agrees = strcmp(result, want) == 0 || (op->repeated && strcmp(result, "unchanged") == 0);
    if (!agrees || status != (strcmp(result, "created") == 0 ? 201 : 200))
        driver_fail(d, "%s %s %s: %d %s, not %s", op->method, op->path, op->body, status, result, want);
    if (is_new && model_find(&d->model, id))
        driver_fail(d, "a new item got the id of another one, %s", id_text);
    if (!is_new && op->after.id && id != op->after.id)
        driver_fail(d, "%s %s: id %s, not %llu", op->method, op->path, id_text,
                    (unsigned long long)op->after.id);
    if (revision != op->after.revision)
        driver_fail(d, "%s %s %s: revision %lld, not %d", op->method, op->path, op->body, revision,
                    op->after.revision);
    if (is_new)
        check_time(d, op, id);
    op->after.id = id;
    put_item(d, op, position);
    d->publishes += is_new;
    d->revisions += !is_new && op->changes;
}

static void apply_lines(struct driver *d, struct op *op, const struct reply *r)
{
    char *save, *text = mem_strdup(r->body);
    char *line = strtok_r(text, "\n", &save);
    for (size_t i = 0; i < op->n_lines; i++, line = strtok_r(NULL, "\n", &save)) {
        struct op *o = &op->lines[i];
        json_t *j = line ? json_loads(line, 0, NULL) : NULL;
        int status = (int)json_integer_value(json_object_get(j, "status"));
        if (!j || (size_t)json_integer_value(json_object_get(j, "line")) != i + 1)
            driver_fail(d, "bulk: line %zu is answered %s", i + 1, line ? line : "by nothing");
        o->repeated = op->repeated;
        o->sent_ms = op->sent_ms;
        if (o->same_as >= 0)
            o->after.id = op->lines[o->same_as].after.id;
        if (o->gone) {
            if (status != 410)
                driver_fail(d, "bulk: line %zu is about a deleted item: %s", i + 1, line);
        } else if (o->kind == OP_DELETE_NAMED) {
            ts_t position;
            const char *p = json_string_value(json_object_get(j, "position"));
            if (status != 200 || !p || ts_parse(p, &position, NULL) != 0)
                driver_fail(d, "bulk: line %zu is a delete: %s", i + 1, line);
            d->position = ts_max(d->position, position);
            put_item(d, o, position);
            d->deletes += o->changes;
        } else {
            apply_item(d, o, status, j);
        }
        json_decref(j);
    }
    if (line)
        driver_fail(d, "bulk: more answers than lines: %s", line);
    free(text);
}

static void apply_edges(struct driver *d, struct op *op, const struct reply *r)
{
    unsigned added = 0, removed = 0;
    for (size_t i = 0; i < op->n_edges; i++) {
        bool changed = model_edge(&d->model, &op->edges[i]);
        added += changed && !op->edges[i].remove;
        removed += changed && op->edges[i].remove;
        d->graph_changes += changed;
    }
    if (op->kind != OP_CHANGE || op->repeated)
        return;
    json_t *j = reply_json(r);
    if (json_integer_value(json_object_get(j, "added")) != added ||
        json_integer_value(json_object_get(j, "removed")) != removed)
        driver_fail(d, "%s %s %s: %s; it is %u added and %u removed", op->method, op->path, op->body, r->body,
                    added, removed);
    json_decref(j);
}

void op_apply(struct driver *d, struct op *op, const struct reply *r)
{
    bool no_content = op->kind == OP_DELETE || op->kind == OP_DELETE_NAMED || op->kind == OP_EDGE;
    if (op->gone) {
        if (r->status != 410)
            driver_fail(d, "%s %s %s: %d, but the item is deleted", op->method, op->path, op->body,
                        r->status);
        return;
    }
    if (no_content ? r->status != 204 : r->status != 200 && r->status != 201)
        driver_fail(d, "%s %s %s: %d %.400s", op->method, op->path, op->body ? op->body : "", r->status,
                    r->body);
    if (op->kind != OP_ITEMS && op->kind != OP_FOLLOWS)
        e2e_position(r, &d->position);
    ts_t own = 0;
    if (reply_header(r, "Feed-Position"))
        e2e_position(r, &own);
    d->position = ts_max(d->position, own);
    remember(d, op);
    if (op->kind == OP_ITEMS) {
        apply_lines(d, op, r);
    } else if (op->n_edges > 0) {
        apply_edges(d, op, r);
    } else if (no_content) {
        put_item(d, op, own);
        d->deletes += op->changes;
    } else {
        json_t *j = reply_json(r);
        apply_item(d, op, r->status, j);
        json_decref(j);
    }
}
