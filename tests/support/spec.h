/* spec.h - an OpenAPI document as a tree, and whether values are as its schemas have them.
 *
 * The document is read by libyaml into jansson's types. Schemas are those that ours uses: a keyword that is
 * not known here fails the test, so that nothing is described which nobody checks. Stricter than JSON Schema
 * in one point: members that are not in properties are wrong unless additionalProperties says something. Main
 * thread only; what goes wrong in the document itself fails the test.
 */
#ifndef FEEDMILL_TESTS_SPEC_H
#define FEEDMILL_TESTS_SPEC_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#define SPEC_WHY_SIZE 512

/* spec_parse() reads a YAML document without anchors; the caller json_decref()s it. A key that is there twice
 * fails the test. */
json_t *spec_parse(const char *text, size_t n);

/* spec_deref() follows {"$ref": "#/a/b"}, as often as there is one; borrowed. A dangling one fails the test.
 */
json_t *spec_deref(json_t *root, json_t *node);

/* spec_get() is json_object_get() of what node refers to, dereferenced itself; NULL when absent. */
json_t *spec_get(json_t *root, json_t *node, const char *key);

/* spec_matches() says whether value is as schema has it; if not, why says where and what for. */
bool spec_matches(json_t *root, json_t *schema, const json_t *value, char why[SPEC_WHY_SIZE]);

/* spec_check_schema() fails the test when schema, or one below it, has a keyword or type that spec_matches()
 * does not know. */
void spec_check_schema(json_t *root, json_t *schema);

#endif
