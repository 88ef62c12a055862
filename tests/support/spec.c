#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/support/spec.h"

#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "common/mem.h"

/* ---- YAML ---- */

/* Plain scalars are null, booleans, whole numbers or text; quoted ones are text. */
static json_t *scalar(const yaml_node_t *node)
{
    const char *text = (const char *)node->data.scalar.value;
    if (node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE) {
        char *end;
        long long number = strtoll(text, &end, 10);
        if (strcmp(text, "null") == 0 || text[0] == '\0')
            return json_null();
        if (strcmp(text, "true") == 0 || strcmp(text, "false") == 0)
            return json_boolean(text[0] == 't');
        if (*end == '\0')
            return json_integer(number);
    }
    return json_stringn(text, node->data.scalar.length);
}

static json_t *convert(yaml_document_t *doc, int index)
{
    yaml_node_t *node = yaml_document_get_node(doc, index);
    if (node->type == YAML_SCALAR_NODE)
        return scalar(node);
    if (node->type == YAML_SEQUENCE_NODE) {
        json_t *list = json_array();
        yaml_node_item_t *i = node->data.sequence.items.start;
        for (; i < node->data.sequence.items.top; i++)
            json_array_append_new(list, convert(doc, *i));
        return list;
    }
    json_t *map = json_object();
    yaml_node_pair_t *pair = node->data.mapping.pairs.start;
    for (; pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = yaml_document_get_node(doc, pair->key);
        const char *name = (const char *)key->data.scalar.value;
        if (json_object_get(map, name) != NULL)
            fail_msg("line %zu: %s is there twice", key->start_mark.line + 1, name);
        json_object_set_new(map, name, convert(doc, pair->value));
    }
    return map;
}

json_t *spec_parse(const char *text, size_t n)
{
    yaml_parser_t parser;
    yaml_document_t doc;
    assert_int_equal(yaml_parser_initialize(&parser), 1);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, n);
    if (!yaml_parser_load(&parser, &doc))
        fail_msg("line %zu: %s", parser.problem_mark.line + 1, parser.problem);
    json_t *root = convert(&doc, 1);
    yaml_document_delete(&doc);
    yaml_parser_delete(&parser);
    return root;
}

/* ---- references ---- */

json_t *spec_deref(json_t *root, json_t *node)
{
    const char *ref;
    while ((ref = json_string_value(json_object_get(node, "$ref"))) != NULL) {
        json_t *at = root;
        char *path = mem_strdup(ref), *rest = path;
        for (const char *part = strsep(&rest, "/"); part != NULL; part = strsep(&rest, "/"))
            at = strcmp(part, "#") == 0 ? root : json_object_get(at, part);
        if (at == NULL || ref[0] != '#')
            fail_msg("%s leads nowhere", ref);
        free(path);
        node = at;
    }
    return node;
}

json_t *spec_get(json_t *root, json_t *node, const char *key)
{
    return spec_deref(root, json_object_get(spec_deref(root, node), key));
}

/* ---- schemas ---- */

static const char *const types[] = {"null", "boolean", "integer", "string", "array", "object"};

static const char *type_of(const json_t *v)
{
    static const char *const names[] = {
        [JSON_OBJECT] = "object",   [JSON_ARRAY] = "array", [JSON_STRING] = "string",
        [JSON_INTEGER] = "integer", [JSON_REAL] = "number", [JSON_TRUE] = "boolean",
        [JSON_FALSE] = "boolean",   [JSON_NULL] = "null"};
    return names[json_typeof(v)];
}

static bool has_type(const json_t *type, const char *name)
{
    size_t i;
    json_t *one;
    if (type == NULL || json_is_string(type))
        return type == NULL || strcmp(json_string_value(type), name) == 0;
    json_array_foreach(type, i, one)
    {
        if (strcmp(json_string_value(one), name) == 0)
            return true;
    }
    return false;
}

static bool is_listed(const json_t *list, const json_t *v)
{
    size_t i;
    json_t *one;
    json_array_foreach(list, i, one)
    {
        if (json_equal(one, v))
            return true;
    }
    return list == NULL;
}

static bool text_matches(const char *pattern, const char *text)
{
    regex_t re;
    if (regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB) != 0)
        fail_msg("the pattern %s is no extended regular expression", pattern);
    bool found = regexec(&re, text, 0, NULL, 0) == 0;
    regfree(&re);
    return found;
}

/* The size of v lies within the schema's members named min and max, where it has them. */
static bool in_range(const json_t *schema, const char *min, const char *max, json_int_t size)
{
    const json_t *least = json_object_get(schema, min), *most = json_object_get(schema, max);
    return (least == NULL || size >= json_integer_value(least)) &&
           (most == NULL || size <= json_integer_value(most));
}

static const char *plain_fault(const json_t *schema, const json_t *v)
{
    const json_t *pattern = json_object_get(schema, "pattern");
    if (!has_type(json_object_get(schema, "type"), type_of(v)))
        return "has another type";
    if (!is_listed(json_object_get(schema, "enum"), v))
        return "is not in enum";
    if (json_is_integer(v) && !in_range(schema, "minimum", "maximum", json_integer_value(v)))
        return "is out of range";
    if (json_is_array(v) && !in_range(schema, "minItems", "maxItems", (json_int_t)json_array_size(v)))
        return "has too few or too many items";
    if (!json_is_string(v))
        return NULL;
    if (!in_range(schema, "minLength", "maxLength", (json_int_t)json_string_length(v)))
        return "is too short or too long";
    if (pattern != NULL && !text_matches(json_string_value(pattern), json_string_value(v)))
        return "does not match the pattern";
    return NULL;
}

struct walk {
    json_t *root;
    char path[256];
    char *why;
};

static bool matches(struct walk *w, json_t *schema, const json_t *v);

static bool wrong(struct walk *w, const char *what)
{
    snprintf(w->why, SPEC_WHY_SIZE, "%s: %s", w->path[0] != '\0' ? w->path : "/", what);
    return false;
}

static bool below(struct walk *w, const char *name, json_t *schema, const json_t *v)
{
    size_t n = strlen(w->path);
    snprintf(w->path + n, sizeof w->path - n, "/%s", name);
    bool ok = schema != NULL ? matches(w, schema, v) : wrong(w, "is not described");
    w->path[n] = '\0';
    return ok;
}

static bool object_matches(struct walk *w, const json_t *schema, const json_t *v)
{
    const json_t *properties = json_object_get(schema, "properties");
    json_t *others = json_object_get(schema, "additionalProperties"), *one;
    const char *name;
    size_t i;
    json_array_foreach(json_object_get(schema, "required"), i, one)
    {
        if (json_object_get(v, json_string_value(one)) == NULL)
            return below(w, json_string_value(one), NULL, NULL);
    }
    json_object_foreach((json_t *)v, name, one)
    {
        json_t *known = json_object_get(properties, name);
        if (known == NULL && json_is_true(others))
            continue;
        if (!below(w, name, known != NULL ? known : json_is_object(others) ? others : NULL, one))
            return false;
    }
    return true;
}

static bool any_matches(struct walk *w, const json_t *list, const json_t *v)
{
    size_t i;
    json_t *one;
    json_array_foreach(list, i, one)
    {
        if (matches(w, one, v))
            return true;
    }
    return false;
}

static bool matches(struct walk *w, json_t *schema, const json_t *v)
{
    schema = spec_deref(w->root, schema);
    const json_t *any = json_object_get(schema, "anyOf");
    if (any != NULL)
        return any_matches(w, any, v);
    const char *fault = plain_fault(schema, v);
    if (fault != NULL)
        return wrong(w, fault);
    if (json_is_object(v))
        return object_matches(w, schema, v);
    size_t i;
    json_t *one, *items = json_object_get(schema, "items");
    json_array_foreach(v, i, one)
    {
        char name[24];
        snprintf(name, sizeof name, "%zu", i);
        if (!below(w, name, items, one))
            return false;
    }
    return true;
}

bool spec_matches(json_t *root, json_t *schema, const json_t *value, char why[SPEC_WHY_SIZE])
{
    struct walk w = {.root = root, .why = why};
    return matches(&w, schema, value);
}

void spec_check_schema(json_t *root, json_t *schema)
{
    static const char *const known[] = {
        "type",        "enum",     "required",   "properties", "additionalProperties",
        "items",       "anyOf",    "minimum",    "maximum",    "minLength",
        "maxLength",   "minItems", "maxItems",   "pattern",    "format",
        "description", "default",  "x-max-bytes"};
    const char *key, *name;
    json_t *value, *one;
    size_t i;
    if (json_object_get(schema, "$ref") != NULL) {
        spec_deref(root, schema); /* what it leads to is checked where it stands */
        return;
    }
    json_object_foreach(schema, key, value)
    {
        bool found = false;
        for (i = 0; i < MEM_COUNT(known); i++)
            found |= strcmp(known[i], key) == 0;
        if (!found)
            fail_msg("the keyword %s is not known", key);
    }
    bool typed = json_object_get(schema, "anyOf") != NULL;
    for (i = 0; i < MEM_COUNT(types); i++)
        typed |=
            json_object_get(schema, "type") != NULL && has_type(json_object_get(schema, "type"), types[i]);
    assert_true(typed);
    json_object_foreach(json_object_get(schema, "properties"), name, value)
    {
        spec_check_schema(root, value);
    }
    json_array_foreach(json_object_get(schema, "anyOf"), i, one)
    {
        spec_check_schema(root, one);
    }
    if (json_object_get(schema, "items") != NULL)
        spec_check_schema(root, json_object_get(schema, "items"));
    if (json_is_object(json_object_get(schema, "additionalProperties")))
        spec_check_schema(root, json_object_get(schema, "additionalProperties"));
    json_array_foreach(json_object_get(schema, "required"), i, one)
    {
        if (json_object_get(json_object_get(schema, "properties"), json_string_value(one)) == NULL)
            fail_msg("%s is required and not described", json_string_value(one));
    }
}
