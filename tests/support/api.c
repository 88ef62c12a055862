#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/support/api.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

#define FLAGS_MAX 12

static const char *flag_value(char *const *flags, const char *name)
{
    for (size_t i = 0; flags[i] != NULL && flags[i + 1] != NULL; i++) {
        if (strcmp(flags[i], name) == 0)
            return flags[i + 1];
    }
    return NULL;
}

struct api *api_start(unsigned parts, ...)
{
    char *flags[FLAGS_MAX + 1] = {NULL};
    size_t n = 0;
    va_list ap;
    va_start(ap, parts);
    for (char *flag; (flag = va_arg(ap, char *)) != NULL && n < FLAGS_MAX;)
        flags[n++] = flag;
    va_end(ap);

    struct api *a = mem_zero(1, sizeof *a);
    a->fixture = fixture_new(FIXTURE_BOTH);
    const char *entries = flag_value(flags, "--timeline-entries");
    if (parts & API_FANOUT)
        a->fanout = fixture_start(a->fixture, "fanout", "fanout-1", entries ? "--timeline-entries" : NULL,
                                  entries, NULL);
    if (parts & API_RANKER)
        a->ranker = fixture_start(a->fixture, "ranker", "ranker-1", NULL);
    a->feed_api =
        fixture_start(a->fixture, "feed-api", "feed-api-1", flags[0], flags[1], flags[2], flags[3], flags[4],
                      flags[5], flags[6], flags[7], flags[8], flags[9], flags[10], flags[11], NULL);
    a->port = fixture_port(a->fixture, a->feed_api);
    api_as(a, NULL);
    return a;
}

void api_stop(struct api *a)
{
    if (a == NULL)
        return;
    fixture_free(a->fixture);
    free(a);
}

int api_group_setup(void **state)
{
    *state = api_start(API_ALL, NULL);
    return 0;
}

int api_group_setup_only(void **state)
{
    *state = api_start(API_ONLY, NULL);
    return 0;
}

int api_group_teardown(void **state)
{
    api_stop(*state);
    return 0;
}

void api_as(struct api *a, const char *credential)
{
    if (credential == NULL)
        credential = fixture_admin_key(a->fixture);
    a->auth[0] = '\0';
    if (credential[0] != '\0')
        snprintf(a->auth, sizeof a->auth, "Authorization: Bearer %s\r\n", credential);
}

/* ---- requests ---- */

void api_request(struct api *a, const char *method, const char *path, const char *extra, const char *body,
                 struct reply *out)
{
    bool typed = extra != NULL && strcasestr(extra, "Content-Type:") != NULL;
    char *headers = mem_printf("%s%s%s", a->auth, extra != NULL ? extra : "",
                               body != NULL && !typed ? "Content-Type: application/json\r\n" : "");
    rawhttp_once((uint16_t)a->port, method, path, headers, body, out);
    free(headers);
}

void api_get(struct api *a, const char *path, struct reply *out)
{
    api_request(a, "GET", path, NULL, NULL, out);
}

void api_post(struct api *a, const char *path, const char *json, struct reply *out)
{
    api_request(a, "POST", path, NULL, json, out);
}

void api_put(struct api *a, const char *path, const char *json, struct reply *out)
{
    api_request(a, "PUT", path, NULL, json, out);
}

void api_patch(struct api *a, const char *path, const char *json, struct reply *out)
{
    api_request(a, "PATCH", path, NULL, json, out);
}

void api_delete(struct api *a, const char *path, struct reply *out)
{
    api_request(a, "DELETE", path, NULL, NULL, out);
}

json_t *api_json(struct api *a, const char *method, const char *path, const char *body, int status)
{
    struct reply r;
    api_request(a, method, path, NULL, body, &r);
    if (r.status != status)
        fixture_fail(a->fixture, "%s %s answered %d instead of %d: %.400s", method, path, r.status, status,
                     r.body);
    json_t *o = reply_json(&r);
    reply_done(&r);
    return o;
}

int api_status(struct api *a, const char *method, const char *path, const char *body)
{
    struct reply r;
    api_request(a, method, path, NULL, body, &r);
    int status = r.status;
    reply_done(&r);
    return status;
}

/* ---- credentials ---- */

/* Sends as the admin, whoever the stack's requests come from. */
static json_t *as_admin(struct api *a, const char *path, const char *body, int status)
{
    char before[sizeof a->auth];
    memcpy(before, a->auth, sizeof before);
    api_as(a, NULL);
    json_t *o = api_json(a, "POST", path, body, status);
    memcpy(a->auth, before, sizeof before);
    return o;
}

char *api_key(struct api *a, const char *role, const char *names, char *id)
{
    char *body = mem_printf("{\"role\":\"%s\"%s%s}", role, names != NULL ? ",\"names\":" : "",
                            names != NULL ? names : "");
    json_t *o = as_admin(a, "/v1/keys", body, 201);
    char *key = mem_strdup(json_string_value(json_object_get(o, "key")));
    if (id != NULL)
        snprintf(id, 17, "%s", json_string_value(json_object_get(o, "id")));
    json_decref(o);
    free(body);
    assert_non_null(key);
    return key;
}

char *api_token(struct api *a, const char *user)
{
    json_t *ask = json_pack("{s:s, s:i}", "user", user, "ttl_s", 3600);
    char *body = json_dumps(ask, 0);
    json_t *o = as_admin(a, "/v1/tokens", body, 200);
    char *token = mem_strdup(json_string_value(json_object_get(o, "token")));
    json_decref(o);
    json_decref(ask);
    free(body);
    assert_non_null(token);
    return token;
}

double api_metric(struct api *a, const char *line)
{
    char before[sizeof a->auth];
    struct reply r;
    memcpy(before, a->auth, sizeof before);
    api_as(a, NULL);
    api_get(a, "/metrics", &r);
    memcpy(a->auth, before, sizeof before);
    assert_int_equal(r.status, 200);
    double value = 0;
    size_t n = strlen(line);
    for (const char *p = r.body; p != NULL; p = strchr(p, '\n')) {
        p += *p == '\n';
        if (strncmp(p, line, n) == 0 && p[n] == ' ') {
            value = strtod(p + n, NULL);
            break;
        }
    }
    reply_done(&r);
    return value;
}
