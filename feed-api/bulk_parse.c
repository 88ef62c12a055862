/* The lines of a bulk request and of its answer. Pure. */
#include "feed-api/bulk.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "feed-api/handlers_items.h"

void bulk_refuse(struct bulk_line *line, enum problem_code code, const char *detail)
{
    line->state = BULK_FAILED;
    line->code = code;
    line->problem.pointer[0] = '\0';
    snprintf(line->problem.detail, sizeof line->problem.detail, "%s", detail);
}

static void refuse_member(struct bulk_line *line, const struct item_problem *p)
{
    line->state = BULK_FAILED;
    line->code = PROBLEM_INVALID_REQUEST;
    line->problem = *p;
}

/* A delete has the members of an item that name one, and no other: so an item's own rules apply to both. */
static int parse_delete(const json_t *o, int64_t now_ms, struct item *out, struct item_problem *p)
{
    static const char *const allowed[] = {"op", "publisher", "external_id"};
    const char *name;
    json_t *v;
    if (!json_is_string(json_object_get(o, "external_id"))) {
        *p = (struct item_problem){"/external_id", "is missing or not a string"};
        return -1;
    }
    json_object_foreach((json_t *)o, name, v)
    {
        bool known = false;
        for (size_t i = 0; i < MEM_COUNT(allowed); i++)
            known |= strcmp(allowed[i], name) == 0;
        if (!known) {
            *p = (struct item_problem){"", "a delete has only op, publisher and external_id"};
            return -1;
        }
    }
    json_t *item = json_pack("{s:O?, s:O?, s:s, s:s}", "publisher", json_object_get(o, "publisher"),
                             "external_id", json_object_get(o, "external_id"), "title", "-", "body", "");
    int rc = item_from_json(item, now_ms, out, p);
    json_decref(item);
    return rc;
}

static void parse_object(const json_t *o, int64_t now_ms, struct bulk_line *line)
{
    struct item_problem p = {0};
    const json_t *op = json_object_get(o, "op");
    int rc;
    if (op == NULL) {
        rc = item_from_json(o, now_ms, &line->item, &p);
    } else if (json_is_string(op) && strcmp(json_string_value(op), "delete") == 0) {
        line->op = BULK_DELETE;
        rc = parse_delete(o, now_ms, &line->item, &p);
    } else {
        p = (struct item_problem){"/op", "must be \"delete\" or left out"};
        rc = -1;
    }
    if (rc != 0)
        refuse_member(line, &p);
}

static void parse_line(const char *text, size_t n, int64_t now_ms, struct bulk_line *line)
{
    json_error_t why;
    if (n > BULK_LINE_MAX) {
        bulk_refuse(line, PROBLEM_TOO_LARGE, "a line may have at most 131072 bytes");
        return;
    }
    if (n == 0) {
        bulk_refuse(line, PROBLEM_INVALID_REQUEST, "the line is empty");
        return;
    }
    json_t *o = json_loadb(text, n, JSON_REJECT_DUPLICATES, &why);
    if (o == NULL) {
        char detail[sizeof line->problem.detail];
        snprintf(detail, sizeof detail, "not valid JSON at column %d: %.100s", why.column, why.text);
        bulk_refuse(line, PROBLEM_INVALID_REQUEST,
                    utf8_valid(detail, strlen(detail)) ? detail : "not valid JSON");
        return;
    }
    if (json_is_object(o))
        parse_object(o, now_ms, line);
    else
        bulk_refuse(line, PROBLEM_INVALID_REQUEST, "a JSON object is expected");
    json_decref(o);
}

/* ---- turns ---- */

static int compare_names(const void *a, const void *b)
{
    const struct bulk_line *x = *(const struct bulk_line *const *)a, *y = *(const struct bulk_line *const *)b;
    int d = strcmp(x->item.external_id, y->item.external_id);
    if (d == 0)
        d = strcmp(x->item.publisher, y->item.publisher);
    return d != 0 ? d : (x > y) - (x < y); /* lines of one array: in the order given */
}

static bool same_name(const struct bulk_line *a, const struct bulk_line *b)
{
    return strcmp(a->item.external_id, b->item.external_id) == 0 &&
           strcmp(a->item.publisher, b->item.publisher) == 0;
}

static void take_turns(struct bulk *b)
{
    struct bulk_line **named = mem_zero(b->n, sizeof *named);
    size_t n = 0;
    for (size_t i = 0; i < b->n; i++)
        if (b->lines[i].state == BULK_WAITING && b->lines[i].item.external_id != NULL)
            named[n++] = &b->lines[i];
    qsort(named, n, sizeof(struct bulk_line *), compare_names);
    b->turns = b->n > 0;
    for (size_t i = 1; i < n; i++) {
        if (!same_name(named[i - 1], named[i]))
            continue;
        named[i]->turn = named[i - 1]->turn + 1;
        if (named[i]->turn >= b->turns)
            b->turns = named[i]->turn + 1;
    }
    free(named);
}

int bulk_parse(const char *body, size_t n, int64_t now_ms, struct bulk **out, struct err *e)
{
    if (n == 0)
        return err_set(e, ERR_INVALID, "the body has no lines");
    struct bulk *b = mem_zero(1, sizeof *b);
    for (size_t at = 0; at < n;) {
        const char *end = memchr(body + at, '\n', n - at);
        size_t len = end != NULL ? (size_t)(end - body) - at : n - at;
        if (b->n == BULK_LINES_MAX) {
            bulk_free(b);
            return err_set(e, ERR_TOO_LARGE, "more than %d lines", BULK_LINES_MAX);
        }
        size_t text = len > 0 && body[at + len - 1] == '\r' ? len - 1 : len;
        parse_line(body + at, text, now_ms, &b->lines[b->n++]);
        at += len + 1;
    }
    take_turns(b);
    *out = b;
    return 0;
}

void bulk_free(struct bulk *b)
{
    if (b == NULL)
        return;
    for (size_t i = 0; i < b->n; i++)
        item_done(&b->lines[i].item);
    free(b);
}

/* ---- the answer ---- */

static int status_of(const struct bulk_line *line)
{
    if (line->state == BULK_FAILED)
        return problem_status(line->code);
    return line->written.result == ITEMS_CREATED ? 201 : 200;
}

static void write_problem(const struct bulk_line *line, const char *instance, struct buf *out)
{
    struct problem_error member = {line->problem.pointer, line->problem.detail};
    struct problem p = {.code = line->code};
    if (line->problem.pointer[0] != '\0') {
        p.detail = "the line is not valid";
        p.errors = &member;
        p.n_errors = 1;
    } else {
        p.detail = line->problem.detail;
    }
    if (problem_status(line->code) == 503)
        p.retry_after_ms = 1000;
    problem_write(&p, instance, out);
}

ts_t bulk_write(const struct bulk *b, const char *instance, struct buf *out)
{
    ts_t newest = 0;
    for (size_t i = 0; i < b->n; i++) {
        const struct bulk_line *line = &b->lines[i];
        buf_printf(out, "{\"line\":%zu,\"status\":%d,", i + 1, status_of(line));
        if (line->state == BULK_DONE) {
            handlers_items_result(&line->written, out);
            newest = ts_max(newest, line->written.position);
        } else {
            buf_add_str(out, "\"problem\":");
            write_problem(line, instance, out);
        }
        buf_add_str(out, "}\n");
    }
    return newest;
}
