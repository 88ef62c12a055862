/* handlers_graph.c - follows and mutes: single edges, lists, changes of up to 1,000 and 1,000, and moving in
 * by the line.
 *
 * A write is one transaction in MongoDB and never needs Redis: this process remembers the user's change
 * before it answers, the others hear of it on the log, and a timeline built before it counts as absent from
 * then on (tail.h). fanout drops such timelines later.
 */
#include <stdlib.h>
#include <string.h>
#include "common/clock.h"
#include "common/mem.h"
#include "feed-api/app.h"
#include "feed-api/counts.h"
#include "feed-api/cursor.h"
#include "feed-api/graph_store.h"
#include "feed-api/router.h"

#define CHANGE_LINES_MAX 1000
#define BULK_LINES_MAX   10000
#define BULK_BATCH       1000 /* lines a transaction: 1,000 edges take about 20 ms */
#define BULK_DEADLINE_MS 30000

struct graph_work {
    enum graph_table table;
    struct graph_line *lines;
    size_t n, n_add;
    struct bulk_answer *bulk; /* one a line of the body, POST /v1/follows/bulk only */
    size_t n_bulk;
    struct cursor cursor; /* lists */
    unsigned limit;
    ts_t position; /* lists: asked for */
};

/* What a line of a bulk request came to: an index into lines, or what was wrong with it. */
struct bulk_answer {
    long line;
    char detail[160];
};

static void graph_work_free(void *p)
{
    struct graph_work *g = p;
    free(g->lines);
    free(g->bulk);
    free(g);
}

static struct graph_work *graph_work_new(struct call *c, size_t lines)
{
    struct graph_work *g = mem_zero(1, sizeof *g);
    g->table = strstr(c->route->path, "/mutes") ? GRAPH_MUTES : GRAPH_FOLLOWS;
    g->lines = mem_zero(lines, sizeof *g->lines);
    c->data = g;
    c->data_free = graph_work_free;
    return g;
}

static int64_t table_cap(const struct app *app, enum graph_table t)
{
    return t == GRAPH_FOLLOWS ? app->cfg.max_follows : app->cfg.max_mutes;
}

/* What of a kind may stand in this table, and the rule of its name. Answers NULL or the reason why not. */
static const char *edge_refusal(enum graph_table table, enum target_kind kind, const char *name, size_t n,
                                struct err *e)
{
    item_id id;
    if (table == GRAPH_FOLLOWS && kind != TARGET_PUBLISHER && kind != TARGET_TOPIC)
        return "only a publisher or a topic can be followed";
    if (names_check(name, n, e) < 0)
        return e->msg;
    if (kind == TARGET_ITEM && ids_parse(name, &id, e) < 0)
        return "an item is muted by its id";
    return NULL;
}

/* After a change: this process knows at once that older timelines of these users are void (P5). */
static void note_changes(struct call *c, const struct graph_work *g)
{
    const char *last = "";
    for (size_t i = 0; i < g->n; i++) {
        const struct graph_line *line = &g->lines[i];
        if (line->result != GRAPH_ADDED && line->result != GRAPH_REMOVED)
            continue;
        if (strcmp(last, line->user) != 0)
            tail_note_user(c->app->tail, line->user, c->position);
        last = line->user;
        bool added = line->result == GRAPH_ADDED;
        metrics_add(
            c->app->metrics, M_GRAPH_CHANGES,
            g->table == GRAPH_FOLLOWS ? (added ? MG_FOLLOW : MG_UNFOLLOW) : (added ? MG_MUTE : MG_UNMUTE), 1);
        enum target_kind kind;
        const char *name;
        if (g->table == GRAPH_FOLLOWS && target_split(line->target, &kind, &name, NULL) == 0)
            counts_touch(c->app->counts, kind, name);
    }
}

static int apply_lines(struct worker *w, struct call *c, bool strict)
{
    struct graph_work *g = c->data;
    struct err e = {0};
    if (graph_apply(w->mongo, g->table, g->lines, g->n, table_cap(c->app, g->table), strict, &e) < 0) {
        if (e.code == ERR_CONFLICT)
            return call_fail(c, g->table == GRAPH_FOLLOWS ? PROBLEM_TOO_MANY_FOLLOWS : PROBLEM_TOO_MANY_MUTES,
                             "%s", e.msg);
        return call_fail_err(c, &e);
    }
    c->position = mongo_conn_time(w->mongo);
    note_changes(c, g);
    return 0;
}

/* --- PUT, DELETE of one edge --- */

static void work_one(struct worker *w, struct call *c)
{
    if (apply_lines(w, c, true) == 0)
        c->status = 204;
}

static void handle_one(struct call *c, bool remove)
{
    struct graph_work *g = graph_work_new(c, 1);
    enum target_kind kind;
    struct err e = {0};
    if (target_kind_parse(c->params[1], &kind) < 0) {
        call_fail(c, PROBLEM_NOT_FOUND, "there is no kind \"%s\"", c->params[1]);
        call_finish(c);
        return;
    }
    const char *why = edge_refusal(g->table, kind, c->params[2], strlen(c->params[2]), &e);
    if (why) {
        call_invalid(c, "", "%s", why);
        call_finish(c);
        return;
    }
    g->n = 1;
    snprintf(g->lines[0].user, sizeof g->lines[0].user, "%s", c->params[0]);
    target_format(kind, c->params[2], g->lines[0].target);
    g->lines[0].remove = remove;
    g->lines[0].since_ms = clock_wall_ms();
    call_work(c, work_one);
}

static void handle_put(struct call *c)
{
    handle_one(c, false);
}

static void handle_delete(struct call *c)
{
    handle_one(c, true);
}

/* --- POST {add, remove} --- */

static int check_edge_members(struct call *c, const char *pointer, const json_t *o)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)o, key, value)
    {
        if (strcmp(key, "kind") != 0 && strcmp(key, "name") != 0)
            return call_unknown_member(c, pointer, key);
    }
    return 0;
}

static int read_edge(struct call *c, struct graph_work *g, const char *member, size_t i, const json_t *o,
                     bool remove)
{
    char pointer[64];
    snprintf(pointer, sizeof pointer, "/%s/%zu", member, i);
    const json_t *kind_json = json_object_get(o, "kind"), *name = json_object_get(o, "name");
    if (check_edge_members(c, pointer, o) < 0)
        return -1;
    if (!json_is_string(kind_json) || !json_is_string(name))
        return call_invalid(c, pointer, "must be {\"kind\": ..., \"name\": ...}");
    enum target_kind kind;
    struct err e = {0};
    if (target_kind_parse(json_string_value(kind_json), &kind) < 0)
        return call_invalid(c, pointer, "kind must be publisher or topic%s",
                            g->table == GRAPH_MUTES ? ", item or word" : "");
    const char *why = edge_refusal(g->table, kind, json_string_value(name), json_string_length(name), &e);
    if (why)
        return call_invalid(c, pointer, "%s", why);
    struct graph_line *line = &g->lines[g->n++];
    snprintf(line->user, sizeof line->user, "%s", c->params[0]);
    target_format(kind, json_string_value(name), line->target);
    line->remove = remove;
    line->since_ms = clock_wall_ms();
    return 0;
}

static int read_edges(struct call *c, struct graph_work *g, const json_t *body, const char *member,
                      bool remove)
{
    const json_t *list = json_object_get(body, member), *o;
    char pointer[16];
    size_t i;
    snprintf(pointer, sizeof pointer, "/%s", member);
    if (list == NULL)
        return 0;
    if (!json_is_array(list))
        return call_invalid(c, pointer, "must be an array");
    if (json_array_size(list) > CHANGE_LINES_MAX)
        return call_invalid(c, pointer, "may hold at most %d", CHANGE_LINES_MAX);
    json_array_foreach(list, i, o) if (read_edge(c, g, member, i, o, remove) < 0) return -1;
    return 0;
}

static int line_compare(const void *a, const void *b)
{
    return strcmp(((const struct graph_line *)a)->target, ((const struct graph_line *)b)->target);
}

/* The same target in add and in remove has no meaning that both readers of the request would agree on. */
static int refuse_contradictions(struct call *c, const struct graph_work *g)
{
    struct graph_line *sorted = mem_alloc(g->n * sizeof *sorted);
    int rc = 0;
    memcpy(sorted, g->lines, g->n * sizeof *sorted);
    qsort(sorted, g->n, sizeof *sorted, line_compare);
    for (size_t i = 1; rc == 0 && i < g->n; i++)
        if (strcmp(sorted[i - 1].target, sorted[i].target) == 0 && sorted[i - 1].remove != sorted[i].remove)
            rc = call_invalid(c, "/remove", "%s is in both add and remove", sorted[i].target + 2);
    free(sorted);
    return rc;
}

static void work_change(struct worker *w, struct call *c)
{
    struct graph_work *g = c->data;
    unsigned added = 0, removed = 0, unchanged = 0;
    char position[TS_TEXT_SIZE];
    if (g->n > 0) {
        if (apply_lines(w, c, true) < 0)
            return;
    } else {
        struct err e = {0};
        if (mongo_conn_fresh(w->mongo, &c->position, &e) < 0) {
            call_fail_err(c, &e);
            return;
        }
    }
    for (size_t i = 0; i < g->n; i++) {
        added += g->lines[i].result == GRAPH_ADDED;
        removed += g->lines[i].result == GRAPH_REMOVED;
        unchanged += g->lines[i].result == GRAPH_UNCHANGED;
    }
    ts_format(c->position, position);
    buf_printf(&c->out, "{\"added\":%u,\"removed\":%u,\"unchanged\":%u,\"position\":\"%s\"}", added, removed,
               unchanged, position);
    c->status = 200;
}

static void handle_change(struct call *c)
{
    json_t *body = call_json(c);
    if (body == NULL) {
        call_finish(c);
        return;
    }
    struct graph_work *g = graph_work_new(c, 2 * CHANGE_LINES_MAX);
    const char *key;
    json_t *value;
    int rc = 0;
    json_object_foreach(body, key, value)
    {
        if (strcmp(key, "add") != 0 && strcmp(key, "remove") != 0)
            rc = call_unknown_member(c, "", key);
    }
    if (rc == 0)
        rc = read_edges(c, g, body, "add", false);
    g->n_add = g->n;
    if (rc == 0)
        rc = read_edges(c, g, body, "remove", true);
    if (rc == 0)
        rc = refuse_contradictions(c, g);
    json_decref(body);
    if (rc < 0)
        call_finish(c);
    else
        call_work(c, work_change);
}

/* --- GET: the list --- */

static void write_edge(struct buf *out, const struct graph_edge *edge, bool first)
{
    enum target_kind kind;
    const char *name;
    char since[CLOCK_RFC3339_SIZE];
    if (target_split(edge->target, &kind, &name, NULL) < 0)
        return;
    clock_format(edge->since_ms, since);
    buf_printf(out, "%s{\"kind\":\"%s\",\"name\":", first ? "" : ",", target_kind_name(kind));
    buf_add_json(out, name);
    buf_printf(out, ",\"since\":\"%s\"}", since);
}

static void work_list(struct worker *w, struct call *c)
{
    struct graph_work *g = c->data;
    struct graph_edge *edges = mem_alloc((g->limit + 1) * sizeof *edges);
    struct err e = {0};
    size_t n;
    /* fresh: a list asked for after a change was answered, by any process, shows it */
    if (call_position_known(w, c, g->position) < 0)
        goto out;
    if (mongo_conn_fresh(w->mongo, NULL, &e) < 0 ||
        graph_list(w->mongo, g->table, c->params[0], g->cursor.last_key, g->limit + 1, edges, &n, &e) < 0) {
        call_fail_err(c, &e);
        goto out;
    }
    size_t shown = n > g->limit ? g->limit : n;
    buf_printf(&c->out, "{\"%s\":[", g->table == GRAPH_FOLLOWS ? "follows" : "mutes");
    for (size_t i = 0; i < shown; i++)
        write_edge(&c->out, &edges[i], i == 0);
    buf_add_str(&c->out, "],\"next\":");
    if (n > g->limit) {
        char text[CURSOR_TEXT_SIZE];
        snprintf(g->cursor.last_key, sizeof g->cursor.last_key, "%s", edges[shown - 1].target);
        cursor_seal(c->app->cursor_key, &g->cursor, text);
        buf_printf(&c->out, "\"%s\"}", text);
    } else {
        buf_add_str(&c->out, "null}");
    }
    c->status = 200;
out:
    free(edges);
}

static void handle_list(struct call *c)
{
    struct graph_work *g = graph_work_new(c, 1);
    enum cursor_route route = g->table == GRAPH_FOLLOWS ? CURSOR_FOLLOWS : CURSOR_MUTES;
    const char *cursor = call_query(c, "cursor");
    struct err e = {0};
    g->cursor.route = route;
    snprintf(g->cursor.scope, sizeof g->cursor.scope, "%s", c->params[0]);
    if (call_query_limit(c, &g->limit) < 0 || call_query_position(c, &g->position) < 0) {
        call_finish(c);
    } else if (cursor && cursor_open(c->app->cursor_key, cursor, route, c->params[0], &g->cursor, &e) < 0) {
        call_invalid_as(c, PROBLEM_INVALID_CURSOR, "?cursor", "%s", e.msg);
        call_finish(c);
    } else {
        call_work(c, work_list);
    }
}

/* --- POST /v1/follows/bulk --- */

/* One NDJSON line {user, kind, name, since?}; answers NULL when it went into *line, else what is wrong with
 * it. */
static const char *bulk_read_line(const char *text, size_t n, struct graph_line *line, struct err *e)
{
    json_error_t je;
    json_t *o = json_loadb(text, n, JSON_REJECT_DUPLICATES, &je);
    const char *user, *kind_name, *name, *since = NULL, *why = NULL;
    size_t user_len, kind_len, name_len, since_len = 0;
    enum target_kind kind;
    if (o == NULL)
        return "is not a JSON object";
    if (json_unpack_ex(o, NULL, JSON_STRICT, "{s:s%, s:s%, s:s%, s?s%}", "user", &user, &user_len, "kind",
                       &kind_name, &kind_len, "name", &name, &name_len, "since", &since, &since_len) < 0)
        why = "must have user, kind and name, may have since, all strings, and nothing else";
    else if (names_check(user, user_len, e) < 0)
        why = e->msg;
    else if (target_kind_parse(kind_name, &kind) < 0)
        why = "kind must be publisher or topic";
    else if ((why = edge_refusal(GRAPH_FOLLOWS, kind, name, name_len, e)) != NULL)
        ;
    else if (since && clock_parse(since, &line->since_ms, e) < 0)
        why = e->msg;
    if (why == NULL) {
        snprintf(line->user, sizeof line->user, "%s", user);
        target_format(kind, name, line->target);
        if (since == NULL)
            line->since_ms = clock_wall_ms();
    }
    json_decref(o);
    return why;
}

static void bulk_write_line(struct call *c, const struct graph_work *g, size_t i, const char *position)
{
    const struct bulk_answer *b = &g->bulk[i];
    struct problem p = {.code = PROBLEM_INVALID_REQUEST, .detail = b->detail};
    char detail[96];
    if (b->line >= 0) {
        const struct graph_line *line = &g->lines[b->line];
        if (line->result == GRAPH_ADDED || line->result == GRAPH_UNCHANGED) {
            buf_printf(&c->out, "{\"line\":%zu,\"status\":200,\"result\":\"%s\",\"position\":\"%s\"}\n",
                       i + 1, line->result == GRAPH_ADDED ? "added" : "unchanged", position);
            return;
        }
        p.detail = detail;
        p.code = line->result == GRAPH_OVER_CAP ? PROBLEM_TOO_MANY_FOLLOWS : PROBLEM_UNAVAILABLE;
        snprintf(detail, sizeof detail, "a user may have at most %lld follows",
                 (long long)table_cap(c->app, GRAPH_FOLLOWS));
        if (p.code == PROBLEM_UNAVAILABLE) {
            p.detail = "this line was not acted on; send it again";
            p.retry_after_ms = 1000;
        }
    }
    buf_printf(&c->out, "{\"line\":%zu,\"status\":%d,\"problem\":", i + 1, problem_status(p.code));
    problem_write(&p, c->http->id, &c->out);
    buf_add_str(&c->out, "}\n");
}

/* Reads the body's lines: the good ones go to g->lines, what is wrong with the others to g->bulk. */
static int bulk_read(struct call *c, struct graph_work *g)
{
    const char *p = c->http->body, *end = p + c->http->body_len;
    g->bulk = mem_zero(BULK_LINES_MAX, sizeof *g->bulk);
    while (p < end) {
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        size_t n = nl ? (size_t)(nl - p) : (size_t)(end - p);
        if (g->n_bulk == BULK_LINES_MAX)
            return call_fail(c, PROBLEM_TOO_LARGE, "at most %d lines", BULK_LINES_MAX);
        struct bulk_answer *b = &g->bulk[g->n_bulk++];
        struct err e = {0};
        const char *why = bulk_read_line(p, n, &g->lines[g->n], &e);
        b->line = why ? -1 : (long)g->n++;
        snprintf(b->detail, sizeof b->detail, "%s", why ? why : "");
        p += n + 1;
    }
    return g->n_bulk > 0 ? 0 : call_invalid(c, "", "the body is empty: one JSON object a line is expected");
}

struct place {
    const char *user;
    size_t line;
};

static int place_compare(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    int d = strcmp(x->user, y->user);
    return d != 0 ? d : (x->line > y->line) - (x->line < y->line);
}

/* Lines of one user come together, in their order: so that his document changes once and not with every
 * line. Each change of a user is an event on the log, and work for fanout and every feed-api. */
static void bulk_group(struct graph_work *g)
{
    struct place *places = mem_alloc(g->n * sizeof *places);
    struct graph_line *grouped = mem_alloc(g->n * sizeof *grouped);
    size_t *now = mem_alloc(g->n * sizeof *now);
    for (size_t i = 0; i < g->n; i++)
        places[i] = (struct place){g->lines[i].user, i};
    qsort(places, g->n, sizeof *places, place_compare);
    for (size_t i = 0; i < g->n; i++) {
        grouped[i] = g->lines[places[i].line];
        now[places[i].line] = i;
    }
    for (size_t i = 0; i < g->n_bulk; i++)
        if (g->bulk[i].line >= 0)
            g->bulk[i].line = (long)now[g->bulk[i].line];
    free(places);
    free(now);
    free(g->lines);
    g->lines = grouped;
}

/* The end of the batch that begins at `at`: whole users, unless one alone has more lines. */
static size_t bulk_batch_end(const struct graph_work *g, size_t at)
{
    if (g->n - at <= BULK_BATCH)
        return g->n;
    size_t end = at + BULK_BATCH;
    while (end > at && strcmp(g->lines[end - 1].user, g->lines[end].user) == 0)
        end--;
    return end > at ? end : at + BULK_BATCH;
}

/* Batch after batch; when one fails, its lines and those of the batches after it say so, what was done before
 * stays done. */
static int bulk_apply(struct worker *w, struct call *c, struct graph_work *g)
{
    struct err e = {0};
    for (size_t at = 0, end; at < g->n; at = end) {
        end = bulk_batch_end(g, at);
        if (graph_apply(w->mongo, GRAPH_FOLLOWS, g->lines + at, end - at, table_cap(c->app, GRAPH_FOLLOWS),
                        false, &e) < 0) {
            if (at > 0)
                break;
            return call_fail_err(c, &e);
        }
        c->position = mongo_conn_time(w->mongo);
    }
    /* No line was acted on: then the present is a position that is right. */
    if (c->position == 0 && mongo_conn_fresh(w->mongo, &c->position, &e) < 0)
        return call_fail_err(c, &e);
    return 0;
}

static void work_bulk(struct worker *w, struct call *c)
{
    struct graph_work *g = c->data;
    char position[TS_TEXT_SIZE];
    if (bulk_read(c, g) < 0)
        return;
    bulk_group(g);
    if (bulk_apply(w, c, g) < 0)
        return;
    note_changes(c, g);
    ts_format(c->position, position);
    for (size_t i = 0; i < g->n_bulk; i++)
        bulk_write_line(c, g, i, position);
    c->content_type = "application/x-ndjson";
    c->status = 200;
}

/* All of it is done by a worker: reading 10,000 lines would hold up the loop. */
static void handle_bulk(struct call *c)
{
    graph_work_new(c, BULK_LINES_MAX);
    c->deadline = clock_mono_ms() + BULK_DEADLINE_MS;
    call_work(c, work_bulk);
}

#define OWN       (ACCESS_SERVICE | ACCESS_OWN)
#define JSON_TYPE "application/json"

const struct route routes_graph[] = {
    {"GET", "/v1/users/{u}/follows", handle_list, OWN, "limit,cursor,position", NULL, 0, "listFollows"},
    {"POST", "/v1/users/{u}/follows", handle_change, OWN, NULL, JSON_TYPE, 512 * 1024, "changeFollows"},
    {"PUT", "/v1/users/{u}/follows/{kind}/{name}", handle_put, OWN, NULL, NULL, 0, "follow"},
    {"DELETE", "/v1/users/{u}/follows/{kind}/{name}", handle_delete, OWN, NULL, NULL, 0, "unfollow"},
    {"GET", "/v1/users/{u}/mutes", handle_list, OWN, "limit,cursor,position", NULL, 0, "listMutes"},
    {"POST", "/v1/users/{u}/mutes", handle_change, OWN, NULL, JSON_TYPE, 512 * 1024, "changeMutes"},
    {"PUT", "/v1/users/{u}/mutes/{kind}/{name}", handle_put, OWN, NULL, NULL, 0, "mute"},
    {"DELETE", "/v1/users/{u}/mutes/{kind}/{name}", handle_delete, OWN, NULL, NULL, 0, "unmute"},
    {"POST", "/v1/follows/bulk", handle_bulk, ACCESS_SERVICE, NULL, "application/x-ndjson", 8 * 1024 * 1024,
     "bulkFollow"},
    {0},
};
