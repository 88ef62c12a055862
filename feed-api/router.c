/* Routes are compiled once into resources: a path template with the methods it has. Templates are few, so a
 * request is matched by walking those with as many segments, literal ones before parameters.
 *
 * What needs no body is refused before the body is read: head() checks everything but what is in the body,
 * when there is one; handle() checks again from the start, because nothing is kept for a request in between
 * (its client may go away without a word). Requests without a body pay only once. A key that is not known yet
 * is asked for after the body (which is within the route's cap) was read. */
#include "feed-api/router.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/clock.h"
#include "common/ids.h"
#include "common/log.h"
#include "common/mem.h"
#include "feed-api/app.h"
#include "feed-api/gate.h"

#define ROUTES_MAX  128
#define QUERY_NAMES 16

struct resource {
    unsigned n_segments, n_params;
    char *text;                              /* what the segments point into */
    const char *segments[HTTP_MAX_SEGMENTS]; /* "{u}" for a parameter */
    unsigned methods;                        /* mask of 1u << enum http_method of its routes */
    bool demo;                               /* there with --demo only */
    unsigned rank; /* a bit for each parameter, the first segment highest: the least wins */
};

struct compiled {
    const struct route *route;
    enum metric_route class;
    int method;
    size_t resource;
    char *query_text;
    const char *query[QUERY_NAMES];
    size_t n_query;
};

/* One table a process, filled by router_init() and read-only afterwards. */
static struct {
    struct compiled routes[ROUTES_MAX];
    size_t n_routes;
    struct resource resources[ROUTES_MAX];
    size_t n_resources;
} table;

static const struct {
    const struct route *routes;
    enum metric_route class;
} sources[] = {
    {routes_stream, MR_STREAM},       {routes_feed, MR_FEED},       {routes_items, MR_ITEMS},
    {routes_bulk, MR_BULK},           {routes_targets, MR_TARGETS}, {routes_graph, MR_GRAPH},
    {routes_events, MR_EVENTS},       {routes_keys, MR_KEYS},       {routes_status, MR_STATUS},
    {routes_dead_letters, MR_STATUS}, {routes_delivery, MR_ITEMS},  {routes_marker, MR_GRAPH},
    {routes_explain, MR_GRAPH},       {routes_users, MR_GRAPH},
};

/* ---- compiling ---- */

static int method_number(const char *name)
{
    static const int known[] = {HTTP_GET, HTTP_POST, HTTP_PUT, HTTP_PATCH, HTTP_DELETE};
    for (size_t i = 0; i < MEM_COUNT(known); i++) {
        if (strcmp(http_method_str((enum http_method)known[i]), name) == 0)
            return known[i];
    }
    return -1;
}

static bool is_param(const char *segment)
{
    return segment[0] == '{';
}

static size_t find_resource(const char *path)
{
    for (size_t i = 0; i < table.n_routes; i++) {
        if (strcmp(table.routes[i].route->path, path) == 0)
            return table.routes[i].resource;
    }
    struct resource *r = &table.resources[table.n_resources];
    memset(r, 0, sizeof *r);
    r->text = mem_strdup(path);
    char *rest = r->text;
    for (char *s; (s = strsep(&rest, "/")) != NULL;) {
        if (s[0] == '\0')
            continue;
        assert(r->n_segments < HTTP_MAX_SEGMENTS);
        r->rank = r->rank << 1 | is_param(s);
        r->n_params += is_param(s);
        r->segments[r->n_segments++] = s;
    }
    assert(r->n_params <= CALL_PARAMS_MAX);
    return table.n_resources++;
}

static int compile_route(const struct route *route, enum metric_route class, struct err *e)
{
    if (table.n_routes == ROUTES_MAX)
        return err_set(e, ERR_INTERNAL, "more than %d routes", ROUTES_MAX);
    struct compiled *r = &table.routes[table.n_routes];
    *r = (struct compiled){.route = route, .class = class, .method = method_number(route->method)};
    if (r->method < 0)
        return err_set(e, ERR_INTERNAL, "route %s: method %s", route->path, route->method);
    r->resource = find_resource(route->path);
    unsigned bit = 1u << r->method;
    if (table.resources[r->resource].methods & bit)
        return err_set(e, ERR_INTERNAL, "route %s %s is there twice", route->method, route->path);
    table.resources[r->resource].methods |= bit;
    table.resources[r->resource].demo = route->access & ACCESS_DEMO;
    r->query_text = mem_strdup(route->query);
    char *rest = r->query_text;
    for (char *s; (s = strsep(&rest, ",")) != NULL;) {
        assert(r->n_query < QUERY_NAMES);
        r->query[r->n_query++] = s;
    }
    table.n_routes++;
    return 0;
}

static void clear_table(void)
{
    for (size_t i = 0; i < table.n_routes; i++)
        free(table.routes[i].query_text);
    for (size_t i = 0; i < table.n_resources; i++)
        free(table.resources[i].text);
    memset(&table, 0, sizeof table);
}

static int compile_table(struct err *e)
{
    clear_table();
    for (size_t s = 0; s < MEM_COUNT(sources); s++) {
        for (const struct route *r = sources[s].routes; r->method != NULL; r++) {
            if (compile_route(r, sources[s].class, e) < 0)
                return -1;
        }
    }
    return 0;
}

/* ---- matching ---- */

static bool resource_matches(const struct resource *r, const struct http_request *q)
{
    for (size_t i = 0; i < r->n_segments; i++) {
        if (is_param(r->segments[i]) ? q->segments[i][0] == '\0'
                                     : strcmp(r->segments[i], q->segments[i]) != 0)
            return false;
    }
    return true;
}

/* "/v1//items" and "/v1/items/" have an empty segment, which matches nothing. */
static const struct resource *match_resource(const struct app *app, const struct http_request *q)
{
    const struct resource *best = NULL;
    for (size_t i = 0; i < table.n_resources; i++) {
        const struct resource *r = &table.resources[i];
        if (r->n_segments == q->n_segments && (best == NULL || r->rank < best->rank) &&
            resource_matches(r, q) && (!r->demo || app->cfg.demo))
            best = r;
    }
    return best;
}

static const struct compiled *match_method(const struct resource *resource, int method)
{
    size_t at = (size_t)(resource - table.resources);
    for (size_t i = 0; i < table.n_routes; i++) {
        if (table.routes[i].resource == at &&
            table.routes[i].method == (method == HTTP_HEAD ? HTTP_GET : method))
            return &table.routes[i];
    }
    return NULL;
}

static void answer_method_not_allowed(struct http_request *q, const struct resource *resource)
{
    char allow[64] = "";
    static const int order[] = {HTTP_GET, HTTP_HEAD, HTTP_POST, HTTP_PUT, HTTP_PATCH, HTTP_DELETE};
    unsigned methods = resource->methods;
    if (methods & 1u << HTTP_GET)
        methods |= 1u << HTTP_HEAD;
    for (size_t i = 0; i < MEM_COUNT(order); i++) {
        if (methods & 1u << order[i]) {
            size_t n = strlen(allow);
            snprintf(allow + n, sizeof allow - n, "%s%s", n ? ", " : "",
                     http_method_str((enum http_method)order[i]));
        }
    }
    http_header_add(q, "Allow", allow);
    problem_simple(q, PROBLEM_METHOD_NOT_ALLOWED, NULL);
}

/* Finds the route or answers. The request's tag is the route's place plus one, for the metrics. */
static const struct compiled *find_route(const struct app *app, struct http_request *q)
{
    const struct resource *resource = match_resource(app, q);
    if (resource == NULL) {
        problem_simple(q, PROBLEM_NOT_FOUND, "there is nothing at this path");
        return NULL;
    }
    const struct compiled *r = match_method(resource, q->method);
    if (r == NULL) {
        answer_method_not_allowed(q, resource);
        return NULL;
    }
    q->route = (int)(r - table.routes) + 1;
    return r;
}

/* ---- who may ---- */

static const char *first_param(const struct compiled *r, const struct http_request *q)
{
    const struct resource *resource = &table.resources[r->resource];
    for (size_t i = 0; i < resource->n_segments; i++) {
        if (is_param(resource->segments[i]))
            return q->segments[i];
    }
    return NULL;
}

static bool may_call(const struct compiled *r, const struct http_request *q, const struct identity *who)
{
    unsigned access = r->route->access;
    if (who->role == ROLE_ADMIN || (access & ACCESS_ANY))
        return true;
    switch (who->role) {
    case ROLE_SERVICE:
        return access & ACCESS_SERVICE;
    case ROLE_PUBLISHER:
        return access & ACCESS_PUBLISHER;
    case ROLE_USER: {
        const char *user = first_param(r, q);
        return (access & ACCESS_OWN) && user != NULL && strcmp(user, who->id) == 0;
    }
    default:
        return false;
    }
}

/* Answers false when it has answered the request, and then *who is empty. What is refused here counts too:
 * the limit comes first. */
static bool judge(struct app *app, const struct compiled *r, struct http_request *q, enum auth_answer answer,
                  struct identity *who)
{
    if (answer != AUTH_OK) {
        metrics_add(app->metrics, M_AUTH, answer == AUTH_NONE ? MA_NONE : MA_BAD, 1);
        problem_simple(q, PROBLEM_UNAUTHORIZED,
                       answer == AUTH_NONE ? "an API key or a user token is needed: Authorization: Bearer ..."
                                           : "the API key or user token is not valid");
        return false;
    }
    bool admitted = gate_admit(app->gate, q, who);
    if (admitted && may_call(r, q, who))
        return true;
    if (admitted) {
        metrics_add(app->metrics, M_AUTH, MA_FORBIDDEN, 1);
        problem_simple(q, PROBLEM_FORBIDDEN, "this credential may not do that");
    }
    identity_done(who);
    *who = (struct identity){0};
    return false;
}

/* Two would be one too many: which of them counts? */
char *router_credential(const struct http_request *q, const struct route *route)
{
    size_t n = http_request_header_count(q, "Authorization");
    struct query query = {.n = 0};
    const char *token = NULL;
    char *out = NULL;
    if ((route->access & ACCESS_QUERY_TOKEN) && query_parse(q->query, &query, NULL) == 0)
        token = query_get(&query, "access_token");
    if (token != NULL && n == 0)
        out = mem_printf("Bearer %s", token);
    else if (token == NULL && n == 1)
        out = mem_strdup(http_request_header(q, "Authorization"));
    query_done(&query);
    return out;
}

/* Without a copy where there is nothing to choose. */
static enum auth_answer check_offered(struct app *app, const struct compiled *r, const struct http_request *q,
                                      struct identity *who)
{
    size_t n = http_request_header_count(q, "Authorization");
    if (!(r->route->access & ACCESS_QUERY_TOKEN))
        return n <= 1 ? auth_check(app->auth, http_request_header(q, "Authorization"), who) : AUTH_BAD;
    char *offered = router_credential(q, r->route);
    enum auth_answer answer = offered == NULL && n > 0 ? AUTH_BAD : auth_check(app->auth, offered, who);
    free(offered);
    return answer;
}

/* Answers false when it has answered the request. *ask: the key is not known yet (then *who is empty). */
static bool check_credential(struct app *app, const struct compiled *r, struct http_request *q,
                             struct identity *who, bool *ask)
{
    *ask = false;
    if (r->route->access & ACCESS_OPEN)
        return true;
    enum auth_answer answer = check_offered(app, r, q, who);
    *ask = answer == AUTH_ASK;
    return *ask || judge(app, r, q, answer, who);
}

/* ---- path, query and body ---- */

static int check_param(struct call *c, const char *template, const char *value)
{
    struct err e;
    enum target_kind kind;
    item_id id;
    if (strcmp(template, "{id}") == 0) {
        if (ids_parse(value, &id, &e) < 0)
            return call_fail(c, PROBLEM_NOT_FOUND, "no item has such an id");
        return 0;
    }
    if (strcmp(template, "{kind}") == 0) {
        if (target_kind_parse(value, &kind) < 0)
            return call_fail(c, PROBLEM_NOT_FOUND, "there is no kind of this name");
        return 0;
    }
    size_t n = strlen(value);
    if (strcmp(template, "{x}") == 0) {
        if (n < 1 || n > 256 || !utf8_valid(value, n))
            return call_invalid(c, "", "the path's %s must be 1 to 256 bytes of UTF-8", template);
        return 0;
    }
    if (names_check(value, n, &e) < 0)
        return call_invalid(c, "", "the path's %s %s", template, e.msg);
    return 0;
}

static int take_params(struct call *c, const struct resource *resource)
{
    unsigned n = 0;
    for (size_t i = 0; i < resource->n_segments; i++) {
        if (!is_param(resource->segments[i]))
            continue;
        if (check_param(c, resource->segments[i], c->http->segments[i]) < 0)
            return -1;
        c->params[n++] = mem_strdup(c->http->segments[i]);
    }
    return 0;
}

static int take_query(struct call *c, const struct compiled *r)
{
    struct err e;
    struct query q;
    if (query_parse(c->http->query, &q, &e) < 0)
        return call_invalid(c, "?", "%s", e.msg);
    c->query = q;
    for (size_t i = 0; i < q.n; i++) {
        bool known = false;
        for (size_t k = 0; k < r->n_query && !known; k++)
            known = strcmp(q.params[i].name, r->query[k]) == 0;
        if (!known) {
            char pointer[80];
            snprintf(pointer, sizeof pointer, "?%s", q.params[i].name);
            call_invalid(c, pointer, "is not a parameter here");
        }
    }
    return c->problem != NULL ? -1 : 0;
}

static bool has_body(const struct http_request *q)
{
    if (q->body_len > 0 || http_request_header(q, "Transfer-Encoding") != NULL)
        return true;
    const char *length = http_request_header(q, "Content-Length");
    return length != NULL && length[strspn(length, "0")] != '\0';
}

/* Says whether a Content-Type is in a list by commas. A charset other than UTF-8 is none of ours. */
static bool type_accepted(const char *type, const char *accepted)
{
    size_t n = strcspn(type, "; \t");
    const char *charset = strcasestr(type + n, "charset=");
    if (charset != NULL) {
        charset += strlen("charset=");
        charset += *charset == '"';
        if (strncasecmp(charset, "utf-8", 5) != 0)
            return false;
    }
    for (const char *a = accepted; *a != '\0';) {
        size_t len = strcspn(a, ",");
        if (len == n && strncasecmp(a, type, n) == 0)
            return true;
        a += len + (a[len] == ',');
    }
    return false;
}

static int check_body_type(struct call *c, const struct route *route)
{
    if (!has_body(c->http))
        return 0;
    if (route->body == NULL) {
        if (http_request_header(c->http, "Transfer-Encoding") != NULL && c->http->body_len == 0)
            return 0; /* chunked, and empty or not read yet: the cap of no bytes says the rest */
        return call_invalid(c, "", "no body is expected");
    }
    const char *type = http_request_header(c->http, "Content-Type");
    if (type == NULL)
        return call_fail(c, PROBLEM_UNSUPPORTED_MEDIA_TYPE, "Content-Type is missing: %s is expected",
                         route->body);
    if (!type_accepted(type, route->body))
        return call_fail(c, PROBLEM_UNSUPPORTED_MEDIA_TYPE, "%s is expected", route->body);
    return 0;
}

/* Everything but the credential and what is in the body. */
static int check_call(struct call *c, const struct compiled *r)
{
    if (take_params(c, &table.resources[r->resource]) < 0 || take_query(c, r) < 0)
        return -1;
    return check_body_type(c, r->route);
}

/* ---- dispatch ---- */

static void run_call(struct call *c)
{
    if (c->who.role != ROLE_NONE)
        metrics_add(c->app->metrics, M_AUTH, MA_OK, 1);
    if (check_call(c, &table.routes[c->http->route - 1]) < 0)
        call_finish(c);
    else
        c->route->handler(c);
}

/* Until the process has its keys and secrets from MongoDB, only what is open is answered. */
static bool is_up(struct app *app, const struct compiled *r, struct http_request *q)
{
    if (app->up || (r->route->access & ACCESS_OPEN))
        return true;
    struct problem p = {.code = PROBLEM_UNAVAILABLE, .detail = "still starting", .retry_after_ms = 500};
    problem_reply(q, &p);
    return false;
}

static void fetch_key(struct worker *w, struct call *c)
{
    struct err e;
    enum auth_answer answer;
    char *offered = router_credential(c->http, c->route);
    if (health_is_down(c->app->health, HEALTH_MONGODB))
        call_fail(c, PROBLEM_UNAVAILABLE, "the key can't be looked up: a database can't be reached");
    else if (auth_fetch(c->app->auth, w->mongo, offered, &answer, &c->who, &e) < 0)
        call_fail_err(c, &e);
    free(offered);
}

static void key_fetched(struct call *c)
{
    struct http_request *q = c->http;
    enum auth_answer answer = c->who.role != ROLE_NONE ? AUTH_OK : AUTH_BAD;
    if (c->problem != NULL)
        call_finish(c);
    else if (!judge(c->app, &table.routes[q->route - 1], q, answer, &c->who))
        call_drop(c);
    else
        run_call(c);
}

static void on_handle(struct http_request *q, void *arg)
{
    struct loop *loop = arg;
    struct app *app = loop->app;
    if (!gate_enter(app->gate, q))
        return;
    const struct compiled *r = find_route(app, q);
    bool ask;
    if (r == NULL || !is_up(app, r, q))
        return;
    struct identity who = {0};
    if (!check_credential(app, r, q, &who, &ask))
        return;
    struct call *c = call_new(loop, q, r->route);
    c->who = who;
    /* Pages and events do with Redis and what is in memory, as long as they can. */
    c->needs_mongo = r->class != MR_FEED && r->class != MR_EVENTS && r->class != MR_STATUS;
    if (ask)
        call_work_then(c, fetch_key, key_fetched);
    else
        run_call(c);
}

static void on_head(struct http_request *q, void *arg)
{
    struct loop *loop = arg;
    struct app *app = loop->app;
    if (!has_body(q) || !gate_enter(app->gate, q))
        return; /* without one the whole request is here: on_handle() follows */
    const struct compiled *r = find_route(app, q);
    bool ask;
    struct identity who = {0};
    if (r == NULL || !is_up(app, r, q) || !check_credential(app, r, q, &who, &ask))
        return;
    identity_done(&who);
    q->max_body = r->route->body_max;
    if (ask)
        return; /* what is wrong besides is told to nobody before the key is known to be good */
    struct call *c = call_new(loop, q, r->route);
    if (check_call(c, r) < 0)
        call_finish(c);
    else
        call_drop(c);
}

/* ---- what became of it ---- */

static void on_done(const struct http_request *q, int status, size_t bytes, int64_t us, void *arg)
{
    const struct loop *loop = arg;
    struct app *app = loop->app;
    const struct compiled *r = q->route > 0 ? &table.routes[q->route - 1] : NULL;
    size_t class = r != NULL ? r->class : MR_NONE;
    metrics_add(app->metrics, M_REQUESTS, class, 1);
    metrics_add(app->metrics, M_RESPONSES, (size_t)(status / 100 - 1), 1);
    metrics_add(app->metrics, M_RESPONSE_BYTES, 0, (int64_t)bytes);
    metrics_observe_us(app->metrics, M_REQUEST_SECONDS, class, us);
    const char *op = r != NULL ? r->route->operation : "none";
    if (status >= 500) {
        metrics_add(app->metrics, M_FAILURES, class, 1);
        /* 503s come in floods, and their causes are logged where they were met. */
        if (status != 503)
            log_event(LOG_WARN, "request_failed", LOG_S("id", q->id), LOG_S("op", op),
                      LOG_I("status", status), LOG_I("ms", us / 1000));
    }
    gate_done(app->gate, q, r != NULL ? op : NULL, status, bytes, us);
}

int router_init(struct err *e)
{
    return compile_table(e);
}

void router_options(struct loop *l, struct http_server_options *o)
{
    o->head = on_head;
    o->handle = on_handle;
    o->on_done = on_done;
    o->arg = l;
}

void router_done(void)
{
    clear_table();
}

/* ---- --routes ---- */

static void print_access(unsigned access)
{
    static const struct {
        unsigned bit;
        const char *name;
    } names[] = {{ACCESS_OPEN, "open"},           {ACCESS_ANY, "any"},
                 {ACCESS_ADMIN, "admin"},         {ACCESS_SERVICE, "service"},
                 {ACCESS_PUBLISHER, "publisher"}, {ACCESS_OWN, "own"}};
    const char *comma = "";
    for (size_t i = 0; i < MEM_COUNT(names); i++) {
        if (access & names[i].bit) {
            printf("%s%s", comma, names[i].name);
            comma = ",";
        }
    }
}

int router_print(struct err *e)
{
    if (compile_table(e) < 0)
        return -1;
    for (size_t i = 0; i < table.n_routes; i++) {
        const struct route *r = table.routes[i].route;
        printf("%s %s %s ", r->method, r->path, r->operation);
        print_access(r->access);
        printf(" %s %s %zu\n", r->query != NULL ? r->query : "-", r->body != NULL ? r->body : "-",
               r->body_max);
    }
    clear_table();
    return 0;
}
