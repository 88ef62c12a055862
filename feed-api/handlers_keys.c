/* POST, GET and DELETE of /v1/keys, POST /v1/tokens, POST /v1/demo/token. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "feed-api/app.h"
#include "feed-api/json_whole.h"
#include "feed-api/key_store.h"
#include "feed-api/router.h"

#define BODY_MAX         16384
#define DEMO_TOKEN_TTL_S 86400

/* ---- input ---- */

/* Refuses members that are not in the list (ended by NULL). */
static int check_members(struct call *c, json_t *o, const char *const *known)
{
    const char *name;
    json_t *v;
    int rc = 0;
    json_object_foreach(o, name, v)
    {
        bool found = false;
        for (size_t i = 0; known[i] != NULL && !found; i++)
            found = strcmp(known[i], name) == 0;
        if (!found)
            rc = call_unknown_member(c, "", name);
    }
    return rc;
}

static int take_role(struct call *c, const json_t *o, struct api_key *k)
{
    const char *role = json_string_value(json_object_get(o, "role"));
    if (role == NULL || role_parse(role, &k->who.role) < 0)
        return call_invalid(c, "/role", "must be admin, service or publisher");
    return 0;
}

static int take_names(struct call *c, const json_t *o, struct api_key *k)
{
    const json_t *names = json_object_get(o, "names");
    size_t n = json_array_size(names);
    if (names != NULL && !json_is_array(names))
        return call_invalid(c, "/names", "must be an array of names");
    if (k->who.role == ROLE_PUBLISHER && n == 0)
        return call_invalid(c, "/names", "a publisher's key must be bound to at least one name");
    if (k->who.role != ROLE_PUBLISHER && n > 0)
        return call_invalid(c, "/names", "only a publisher's key is bound to names");
    if (n > IDENTITY_NAMES_MAX)
        return call_invalid(c, "/names", "at most %d names", IDENTITY_NAMES_MAX);
    if (n == 0)
        return 0;
    k->who.names = mem_zero(n, sizeof *k->who.names);
    for (size_t i = 0; i < n; i++) {
        char pointer[32];
        const json_t *name = json_array_get(names, i);
        snprintf(pointer, sizeof pointer, "/names/%zu", i);
        if (!json_is_string(name))
            return call_invalid(c, pointer, "must be a string");
        if (call_check_name(c, pointer, json_string_value(name), json_string_length(name)) < 0)
            return -1;
        strcpy(k->who.names[k->who.n_names++], json_string_value(name));
    }
    return 0;
}

static int take_expiry(struct call *c, const json_t *o, struct api_key *k)
{
    struct err e;
    const json_t *v = json_object_get(o, "expires_at");
    if (v == NULL || json_is_null(v))
        return 0;
    if (!json_is_string(v))
        return call_invalid(c, "/expires_at", "must be a time or null");
    if (clock_parse(json_string_value(v), &k->expires_ms, &e) < 0)
        return call_invalid(c, "/expires_at", "%s", e.msg);
    if (k->expires_ms <= clock_wall_ms())
        return call_invalid(c, "/expires_at", "lies in the past");
    return 0;
}

/* ---- keys ---- */

struct new_key {
    struct api_key key;
    char text[KEY_TEXT_SIZE];
};

static void new_key_free(void *p)
{
    struct new_key *n = p;
    api_key_done(&n->key);
    explicit_bzero(n->text, sizeof n->text);
    free(n);
}

static void add_time(struct buf *out, int64_t ms)
{
    char text[CLOCK_RFC3339_SIZE];
    if (ms != 0)
        clock_format(ms, text);
    buf_add_json(out, ms != 0 ? text : NULL);
}

static void add_names(struct buf *out, const struct identity *who)
{
    buf_add_str(out, ",\"names\":[");
    for (unsigned i = 0; i < who->n_names; i++) {
        if (i > 0)
            buf_add_char(out, ',');
        buf_add_json(out, who->names[i]);
    }
    buf_add_char(out, ']');
}

static void work_create(struct worker *w, struct call *c)
{
    struct new_key *n = c->data;
    struct err e;
    if (key_store_add(w->mongo, &n->key, &e) < 0) {
        call_fail_err(c, &e);
        return;
    }
    c->status = 201;
    buf_printf(&c->out, "{\"id\":\"%s\",\"key\":\"%s\",\"role\":\"%s\"", n->key.id, n->text,
               role_name(n->key.who.role));
    add_names(&c->out, &n->key.who);
    buf_add_str(&c->out, ",\"expires_at\":");
    add_time(&c->out, n->key.expires_ms);
    buf_add_char(&c->out, '}');
    log_event(LOG_INFO, "key_made", LOG_S("id", c->http->id), LOG_S("key", n->key.id),
              LOG_S("role", role_name(n->key.who.role)), LOG_S("by", c->who.id));
}

static void create_key(struct call *c)
{
    static const char *const members[] = {"role", "names", "expires_at", NULL};
    json_t *o = call_json(c);
    if (o == NULL) {
        call_finish(c);
        return;
    }
    struct new_key *n = mem_zero(1, sizeof *n);
    c->data = n;
    c->data_free = new_key_free;
    n->key.created_ms = clock_wall_ms();
    int rc = check_members(c, o, members);
    if (take_role(c, o, &n->key) < 0 || take_names(c, o, &n->key) < 0 || take_expiry(c, o, &n->key) < 0)
        rc = -1;
    json_decref(o);
    if (rc < 0) {
        call_finish(c);
        return;
    }
    key_text_make(&n->key, n->text);
    call_work(c, work_create);
}

static void add_key(const struct api_key *k, void *arg)
{
    struct call *c = arg;
    if (c->out.data[c->out.len - 1] != '[')
        buf_add_char(&c->out, ',');
    buf_printf(&c->out, "{\"id\":\"%s\",\"role\":\"%s\"", k->id, role_name(k->who.role));
    add_names(&c->out, &k->who);
    buf_add_str(&c->out, ",\"created_at\":");
    add_time(&c->out, k->created_ms);
    buf_add_str(&c->out, ",\"expires_at\":");
    add_time(&c->out, k->expires_ms);
    buf_add_char(&c->out, '}');
}

static void work_list(struct worker *w, struct call *c)
{
    struct err e;
    if (mongo_conn_fresh(w->mongo, NULL, &e) < 0) {
        call_fail_err(c, &e);
        return;
    }
    buf_add_str(&c->out, "{\"keys\":[");
    if (key_store_each(w->mongo, add_key, c, &e) < 0)
        call_fail_err(c, &e);
    buf_add_str(&c->out, "]}");
}

static void list_keys(struct call *c)
{
    call_work(c, work_list);
}

static void work_delete(struct worker *w, struct call *c)
{
    struct err e;
    const char *id = c->params[0];
    if (key_store_delete(w->mongo, id, &e) < 0) {
        call_fail_err(c, &e);
        return;
    }
    auth_forget_key(c->app->auth, id);
    c->status = 204;
    log_event(LOG_INFO, "key_deleted", LOG_S("id", c->http->id), LOG_S("key", id), LOG_S("by", c->who.id));
}

static void delete_key(struct call *c)
{
    call_work(c, work_delete);
}

/* ---- tokens ---- */

static void answer_token(struct call *c, const char *user, int64_t ttl_s)
{
    struct err e;
    char *token;
    int64_t expires_s;
    if (auth_sign_token(c->app->auth, user, ttl_s, &token, &expires_s, &e) < 0) {
        call_invalid(c, "/ttl_s", "must be %d to %d", AUTH_TTL_MIN_S, AUTH_TTL_MAX_S);
        return;
    }
    buf_add_str(&c->out, "{\"token\":");
    buf_add_json(&c->out, token);
    buf_add_str(&c->out, ",\"expires_at\":");
    add_time(&c->out, expires_s * 1000);
    buf_add_char(&c->out, '}');
    free(token);
}

static int take_user(struct call *c, const json_t *o, const char **out)
{
    const json_t *user = json_object_get(o, "user");
    if (!json_is_string(user))
        return call_invalid(c, "/user", "must be a name");
    if (call_check_name(c, "/user", json_string_value(user), json_string_length(user)) < 0)
        return -1;
    *out = json_string_value(user);
    return 0;
}

static void create_token(struct call *c)
{
    static const char *const members[] = {"user", "ttl_s", NULL};
    const char *user;
    json_t *o = call_json(c);
    if (o != NULL) {
        int rc = check_members(c, o, members);
        const json_t *ttl = json_object_get(o, "ttl_s");
        if (take_user(c, o, &user) < 0)
            rc = -1;
        int64_t ttl_s = 0;
        if (!json_whole(ttl, &ttl_s))
            rc = call_invalid(c, "/ttl_s", "must be %d to %d", AUTH_TTL_MIN_S, AUTH_TTL_MAX_S);
        if (rc == 0)
            answer_token(c, user, ttl_s);
        json_decref(o);
    }
    call_finish(c);
}

static bool is_loopback(const char *client)
{
    return strncmp(client, "127.", 4) == 0 || strcmp(client, "::1") == 0 ||
           strncmp(client, "::ffff:127.", 11) == 0;
}

/* Anybody on this machine may be any user: for trying things out, so it is not there unless --demo. */
static void create_demo_token(struct call *c)
{
    static const char *const members[] = {"user", NULL};
    const char *user;
    if (!is_loopback(c->http->client)) {
        call_fail(c, PROBLEM_FORBIDDEN, "only from this machine");
        call_finish(c);
        return;
    }
    json_t *o = call_json(c);
    if (o != NULL) {
        if (check_members(c, o, members) == 0 && take_user(c, o, &user) == 0)
            answer_token(c, user, DEMO_TOKEN_TTL_S);
        json_decref(o);
    }
    call_finish(c);
}

const struct route routes_keys[] = {
    {"GET", "/v1/keys", list_keys, ACCESS_ADMIN, NULL, NULL, 0, "listKeys"},
    {"POST", "/v1/keys", create_key, ACCESS_ADMIN, NULL, "application/json", BODY_MAX, "createKey"},
    {"DELETE", "/v1/keys/{x}", delete_key, ACCESS_ADMIN, NULL, NULL, 0, "deleteKey"},
    {"POST", "/v1/tokens", create_token, ACCESS_ADMIN | ACCESS_SERVICE, NULL, "application/json", BODY_MAX,
     "createToken"},
    {"POST", "/v1/demo/token", create_demo_token, ACCESS_OPEN | ACCESS_DEMO, NULL, "application/json",
     BODY_MAX, "createDemoToken"},
    {0},
};
