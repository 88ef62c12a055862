/* The OpenAPI document and the router's rows say the same, both ways; the document holds together. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/http_server.h"
#include "common/mem.h"
#include "common/problem.h"
#include "feed-api/openapi.h"
#include "feed-api/router.h"
#include "tests/support/spec.h"

#define ROWS_MAX 128

/* A line of `feed-api --routes`. */
struct row {
    char *line; /* what the rest points into */
    char *method, *path, *operation, *access, *query, *body;
    size_t body_max;
};

struct both {
    json_t *spec;
    struct row rows[ROWS_MAX];
    size_t n;
};

/* ---- the rows, as they are printed ---- */

static FILE *print_routes(void)
{
    struct err e;
    FILE *out = tmpfile();
    fflush(stdout);
    int saved = dup(STDOUT_FILENO);
    assert_true(out != NULL && saved >= 0);
    assert_true(dup2(fileno(out), STDOUT_FILENO) >= 0);
    int rc = router_print(&e);
    fflush(stdout);
    assert_true(dup2(saved, STDOUT_FILENO) >= 0);
    close(saved);
    assert_int_equal(rc, 0);
    rewind(out);
    return out;
}

static void read_row(struct row *r, const char *line)
{
    char **fields[] = {&r->method, &r->path, &r->operation, &r->access, &r->query, &r->body};
    char *rest = r->line = mem_strdup(line);
    for (size_t i = 0; i < MEM_COUNT(fields); i++) {
        *fields[i] = strsep(&rest, " ");
        assert_non_null(rest);
    }
    r->body_max = strtoul(rest, NULL, 10);
    for (char *s = r->method; *s != '\0'; s++)
        *s = (char)(*s | 0x20); /* "get": as the document has it */
}

static int set_up(void **state)
{
    struct both *b = mem_zero(1, sizeof *b);
    char line[1024];
    b->spec = spec_parse(openapi_yaml, openapi_yaml_len());
    FILE *in = print_routes();
    while (fgets(line, sizeof line, in) != NULL) {
        assert_true(b->n < ROWS_MAX);
        read_row(&b->rows[b->n++], line);
    }
    fclose(in);
    *state = b;
    return 0;
}

static int tear_down(void **state)
{
    struct both *b = *state;
    for (size_t i = 0; i < b->n; i++)
        free(b->rows[i].line);
    json_decref(b->spec);
    free(b);
    return 0;
}

/* ---- helpers ---- */

static json_t *operation_of(struct both *b, const struct row *r)
{
    return json_object_get(json_object_get(json_object_get(b->spec, "paths"), r->path), r->method);
}

/* Calls fn for every operation of the document. */
static void each_operation(struct both *b, void (*fn)(struct both *b, const char *path, json_t *item,
                                                      const char *method, json_t *op))
{
    const char *path, *method;
    json_t *item, *op;
    json_object_foreach(json_object_get(b->spec, "paths"), path, item)
    {
        json_object_foreach(item, method, op)
        {
            if (strcmp(method, "parameters") != 0)
                fn(b, path, item, method, op);
        }
    }
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Words by commas in alphabetical order; "-" is none. */
static char *sorted(const char *words)
{
    char *copy = mem_strdup(strcmp(words, "-") == 0 ? "" : words), *rest = copy, *list[32], out[512] = "";
    size_t n = 0;
    for (char *s; (s = strsep(&rest, ",")) != NULL;) {
        if (*s != '\0')
            list[n++] = s;
        assert_true(n < MEM_COUNT(list));
    }
    qsort(list, n, sizeof *list, by_text);
    for (size_t i = 0; i < n; i++) {
        strcat(out, i > 0 ? "," : "");
        strcat(out, list[i]);
    }
    free(copy);
    return mem_strdup(out);
}

static void assert_same_words(const char *what, const char *operation, const char *row, const char *document)
{
    char *a = sorted(row), *b = sorted(document);
    if (strcmp(a, b) != 0)
        fail_msg("%s: %s of the route: \"%s\", of the document: \"%s\"", operation, what, a, b);
    free(a);
    free(b);
}

static void add_word(char *list, size_t size, const char *word)
{
    size_t n = strlen(list);
    snprintf(list + n, size - n, "%s%s", n > 0 ? "," : "", word);
}

static char *join(const json_t *list)
{
    char out[512] = "";
    size_t i;
    json_t *one;
    json_array_foreach(list, i, one)
    {
        add_word(out, sizeof out, json_string_value(one));
    }
    return mem_strdup(out);
}

/* The names of an operation's parameters of a place ("query"), its path item's included, by commas. */
static char *parameters_in(struct both *b, json_t *item, json_t *op, const char *place)
{
    json_t *lists[] = {json_object_get(item, "parameters"), json_object_get(op, "parameters")};
    char out[512] = "";
    for (size_t k = 0; k < MEM_COUNT(lists); k++) {
        size_t i;
        json_t *one;
        json_array_foreach(lists[k], i, one)
        {
            json_t *p = spec_deref(b->spec, one);
            spec_check_schema(b->spec, json_object_get(p, "schema"));
            if (strcmp(json_string_value(json_object_get(p, "in")), place) == 0)
                add_word(out, sizeof out, json_string_value(json_object_get(p, "name")));
        }
    }
    return mem_strdup(out);
}

/* ---- both ways ---- */

static void every_route_is_described(void **state)
{
    struct both *b = *state;
    for (size_t i = 0; i < b->n; i++) {
        const struct row *r = &b->rows[i];
        json_t *op = operation_of(b, r);
        if (op == NULL)
            fail_msg("%s %s is not described", r->method, r->path);
        assert_string_equal(json_string_value(json_object_get(op, "operationId")), r->operation);
    }
}

static void check_has_route(struct both *b, const char *path, json_t *item, const char *method, json_t *op)
{
    (void)item;
    (void)op;
    for (size_t i = 0; i < b->n; i++) {
        if (strcmp(b->rows[i].path, path) == 0 && strcmp(b->rows[i].method, method) == 0)
            return;
    }
    fail_msg("%s %s is described and not there", method, path);
}

static void everything_described_is_a_route(void **state)
{
    each_operation(*state, check_has_route);
}

static void query_parameters_are_those_of_the_routes(void **state)
{
    struct both *b = *state;
    for (size_t i = 0; i < b->n; i++) {
        const struct row *r = &b->rows[i];
        json_t *item = json_object_get(json_object_get(b->spec, "paths"), r->path);
        char *names = parameters_in(b, item, operation_of(b, r), "query");
        assert_same_words("query", r->operation, r->query, names);
        free(names);
    }
}

static void check_path_parameters(struct both *b, const char *path, json_t *item, const char *method,
                                  json_t *op)
{
    (void)method;
    char *copy = mem_strdup(path), *rest = copy, in_path[256] = "";
    for (char *s; (s = strsep(&rest, "/")) != NULL;) {
        if (s[0] == '{') {
            s[strlen(s) - 1] = '\0';
            add_word(in_path, sizeof in_path, s + 1);
        }
    }
    char *names = parameters_in(b, item, op, "path");
    assert_same_words("path parameters", path, in_path, names);
    free(names);
    free(copy);
}

static void path_parameters_are_those_of_the_path(void **state)
{
    each_operation(*state, check_path_parameters);
}

static void bodies_have_the_types_and_caps_of_the_routes(void **state)
{
    struct both *b = *state;
    for (size_t i = 0; i < b->n; i++) {
        const struct row *r = &b->rows[i];
        json_t *body = json_object_get(operation_of(b, r), "requestBody"), *content;
        const char *type;
        char found[256] = "";
        json_object_foreach(json_object_get(body, "content"), type, content)
        {
            add_word(found, sizeof found, type);
            spec_check_schema(b->spec, json_object_get(content, "schema"));
        }
        assert_same_words("content types", r->operation, r->body, found);
        if ((size_t)json_integer_value(json_object_get(body, "x-max-bytes")) != r->body_max)
            fail_msg("%s: x-max-bytes is not %zu", r->operation, r->body_max);
        assert_true(body == NULL || json_is_true(json_object_get(body, "required")));
    }
}

static bool is_open(const struct row *r)
{
    return strcmp(r->access, "open") == 0;
}

static void roles_are_those_of_the_routes(void **state)
{
    struct both *b = *state;
    for (size_t i = 0; i < b->n; i++) {
        const struct row *r = &b->rows[i];
        json_t *op = operation_of(b, r), *security = json_object_get(op, "security");
        char *found = join(json_object_get(op, "x-roles")), expected[128];
        bool as_it_is = is_open(r) || strcmp(r->access, "any") == 0 || strstr(r->access, "admin") != NULL;
        snprintf(expected, sizeof expected, "%s%s", as_it_is ? "" : "admin,", r->access);
        assert_same_words("roles", r->operation, expected, found);
        assert_int_equal(is_open(r), json_is_array(security) && json_array_size(security) == 0);
        free(found);
    }
}

/* ---- answers ---- */

static void assert_answers(json_t *op, const char *operation, const char *status, bool expected)
{
    bool there = json_object_get(json_object_get(op, "responses"), status) != NULL;
    if (there != expected)
        fail_msg("%s: an answer %s is %sdescribed", operation, status, there ? "" : "not ");
}

static void errors_that_the_router_answers_are_described(void **state)
{
    struct both *b = *state;
    for (size_t i = 0; i < b->n; i++) {
        const struct row *r = &b->rows[i];
        json_t *op = operation_of(b, r);
        bool demo = strcmp(r->operation, "createDemoToken") == 0; /* open, but not to everybody */
        bool body = strcmp(r->body, "-") != 0;
        assert_answers(op, r->operation, "400", true);
        assert_answers(op, r->operation, "401", !is_open(r));
        assert_answers(op, r->operation, "429", !is_open(r));
        assert_answers(op, r->operation, "403", (!is_open(r) && strcmp(r->access, "any") != 0) || demo);
        assert_answers(op, r->operation, "413", body);
        assert_answers(op, r->operation, "415", body);
        assert_answers(op, r->operation, "default", true);
        if (!is_open(r))
            assert_answers(op, r->operation, "503", true);
        if (strstr(r->path, "{id}") != NULL || strstr(r->path, "{kind}") != NULL)
            assert_answers(op, r->operation, "404", true);
    }
}

/* Answers the code of a word of x-problems. */
static enum problem_code code_of(const char *word)
{
    for (enum problem_code c = 0; c < PROBLEM_N; c++) {
        if (strcmp(problem_word(c), word) == 0)
            return c;
    }
    fail_msg("there is no problem %s", word);
    return PROBLEM_N;
}

static void check_problem_answer(struct both *b, const char *status, json_t *response)
{
    json_t *words = json_object_get(response, "x-problems"), *word;
    size_t i;
    bool problem = spec_get(b->spec, response, "content") != NULL &&
                   json_object_get(json_object_get(response, "content"), PROBLEM_TYPE) != NULL;
    assert_int_equal(problem, json_array_size(words) > 0);
    json_array_foreach(words, i, word)
    {
        int expected = problem_status(code_of(json_string_value(word)));
        if (strcmp(status, "default") != 0 && atoi(status) != expected)
            fail_msg("%s is answered with %d, not %s", json_string_value(word), expected, status);
    }
    if (atoi(status) == 503 && problem)
        assert_non_null(json_object_get(json_object_get(response, "headers"), "Retry-After"));
}

static void check_answers(struct both *b, const char *path, json_t *item, const char *method, json_t *op)
{
    const char *status, *type;
    json_t *one, *content;
    (void)item;
    json_object_foreach(json_object_get(op, "responses"), status, one)
    {
        json_t *response = spec_deref(b->spec, one);
        if (spec_get(b->spec, json_object_get(response, "headers"), "X-Request-Id") == NULL)
            fail_msg("%s %s %s lacks X-Request-Id", method, path, status);
        check_problem_answer(b, status, response);
        json_object_foreach(json_object_get(response, "content"), type, content)
        {
            spec_check_schema(b->spec, json_object_get(content, "schema"));
            if (strcmp(type, "application/x-ndjson") == 0)
                spec_check_schema(b->spec, json_object_get(content, "x-line"));
        }
        bool bare = strcmp(status, "204") == 0 || strcmp(status, "304") == 0;
        assert_int_equal(bare, json_object_get(response, "content") == NULL);
    }
}

static void answers_hold_together(void **state)
{
    each_operation(*state, check_answers);
}

static void every_problem_is_described(void **state)
{
    struct both *b = *state;
    for (enum problem_code c = 0; c < PROBLEM_N; c++) {
        const char *name;
        json_t *response;
        bool found = false;
        json_object_foreach(spec_get(b->spec, json_object_get(b->spec, "components"), "responses"), name,
                            response)
        {
            char *words = join(json_object_get(response, "x-problems"));
            char *comma = mem_printf(",%s,", words), *word = mem_printf(",%s,", problem_word(c));
            found |= strstr(comma, word) != NULL;
            free(word);
            free(comma);
            free(words);
        }
        if (!found)
            fail_msg("no answer has the problem %s", problem_word(c));
    }
}

/* ---- references ---- */

static void note_references(struct both *b, json_t *node, json_t *used)
{
    const char *key;
    json_t *value;
    size_t i;
    if (json_is_object(node)) {
        const char *ref = json_string_value(json_object_get(node, "$ref"));
        if (ref != NULL) {
            spec_deref(b->spec, node);
            json_object_set_new(used, ref, json_true());
        }
        json_object_foreach(node, key, value)
        {
            note_references(b, value, used);
        }
    }
    json_array_foreach(node, i, value)
    {
        note_references(b, value, used);
    }
}

static void every_reference_leads_somewhere_and_every_component_is_used(void **state)
{
    struct both *b = *state;
    json_t *used = json_object(), *components = json_object_get(b->spec, "components"), *kind, *one;
    const char *kind_name, *name;
    note_references(b, b->spec, used);
    json_object_foreach(components, kind_name, kind)
    {
        json_object_foreach(kind, name, one)
        {
            char *ref = mem_printf("#/components/%s/%s", kind_name, name);
            if (strcmp(kind_name, "securitySchemes") != 0 && json_object_get(used, ref) == NULL)
                fail_msg("%s is not used", ref);
            if (strcmp(kind_name, "schemas") == 0)
                spec_check_schema(b->spec, one);
            free(ref);
        }
    }
    json_decref(used);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_route_is_described),
        cmocka_unit_test(everything_described_is_a_route),
        cmocka_unit_test(query_parameters_are_those_of_the_routes),
        cmocka_unit_test(path_parameters_are_those_of_the_path),
        cmocka_unit_test(bodies_have_the_types_and_caps_of_the_routes),
        cmocka_unit_test(roles_are_those_of_the_routes),
        cmocka_unit_test(errors_that_the_router_answers_are_described),
        cmocka_unit_test(answers_hold_together),
        cmocka_unit_test(every_problem_is_described),
        cmocka_unit_test(every_reference_leads_somewhere_and_every_component_is_used),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
