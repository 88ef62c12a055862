/* Bodies of POST /v1/items/bulk: NDJSON, items and deletes.
 *
 * There is one line for each line, each is what it would be alone (one bad line harms no other), lines that
 * name the same item take turns in order, and the answer has one JSON object for each, in order.
 */
#include "tests/fuzz/fuzz.h"

#include <jansson.h>

#include "common/buf.h"
#include "feed-api/bulk.h"

#define NOW_MS     INT64_C(1700000000000)
#define ALONE_MAX  2 /* lines parsed once more alone: each takes a struct bulk of more than a megabyte */
#define ANSWER_MAX (4 * 1024 * 1024)

static size_t count_lines(const char *p, size_t n)
{
    size_t lines = 0;
    for (size_t i = 0; i < n; i++)
        lines += p[i] == '\n';
    return lines + (n > 0 && p[n - 1] != '\n');
}

static bool same_text(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static void check_same(const struct bulk_line *a, const struct bulk_line *b)
{
    assert(a->state == b->state && a->op == b->op);
    if (a->state == BULK_FAILED) {
        assert(a->code == b->code && strcmp(a->problem.detail, b->problem.detail) == 0);
        assert(strcmp(a->problem.pointer, b->problem.pointer) == 0);
        return;
    }
    assert(same_text(a->item.publisher, b->item.publisher));
    assert(same_text(a->item.external_id, b->item.external_id));
    assert(item_same_content(&a->item, &b->item) && a->item.published_ms == b->item.published_ms);
}

static void check_alone(const struct bulk *b, const char *p, size_t n)
{
    for (size_t i = 0, at = 0; b->n > 1 && i < b->n && i < ALONE_MAX; i++) {
        const char *end = memchr(p + at, '\n', n - at);
        size_t len = end != NULL ? (size_t)(end + 1 - p) - at : n - at;
        char *line = mem_alloc(len); /* of its own: reading beyond its end is noticed */
        struct bulk *one;
        struct err e;
        memcpy(line, p + at, len);
        assert(bulk_parse(line, len, NOW_MS, &one, &e) == 0 && one->n == 1);
        check_same(&b->lines[i], &one->lines[0]);
        bulk_free(one);
        free(line);
        at += len;
    }
}

static bool names_same(const struct bulk_line *a, const struct bulk_line *b)
{
    return a->state == BULK_WAITING && a->item.external_id != NULL && b->item.external_id != NULL &&
           strcmp(a->item.external_id, b->item.external_id) == 0 &&
           strcmp(a->item.publisher, b->item.publisher) == 0;
}

static void check_lines(const struct bulk *b)
{
    unsigned turns = 1;
    for (size_t i = 0; i < b->n; i++) {
        const struct bulk_line *line = &b->lines[i];
        unsigned before = 0;
        assert(line->state == BULK_WAITING || line->state == BULK_FAILED);
        if (line->state == BULK_FAILED) {
            assert(problem_status(line->code) >= 400 && problem_status(line->code) < 500);
            assert(line->problem.detail[0] != '\0');
            assert(utf8_valid(line->problem.detail, strlen(line->problem.detail)));
            assert(utf8_valid(line->problem.pointer, strlen(line->problem.pointer)));
            continue;
        }
        assert(line->item.publisher != NULL && (line->op == BULK_POST || line->item.external_id != NULL));
        for (size_t k = 0; k < i; k++)
            before += names_same(&b->lines[k], line);
        assert(line->turn == before);
        turns = before + 1 > turns ? before + 1 : turns;
    }
    assert(b->turns == turns);
}

static void check_answer(struct bulk *b)
{
    struct buf out;
    size_t at = 0;
    buf_init(&out, ANSWER_MAX);
    for (size_t i = 0; i < b->n; i++)
        if (b->lines[i].state == BULK_WAITING)
            bulk_refuse(&b->lines[i], PROBLEM_UNAVAILABLE, "not done");
    assert(bulk_write(b, "an-id", &out) == 0 && !out.full);
    for (size_t i = 0; i < b->n; i++) {
        const char *end = memchr(out.data + at, '\n', out.len - at);
        assert(end != NULL);
        json_t *o = json_loadb(out.data + at, (size_t)(end - out.data) - at, JSON_REJECT_DUPLICATES, NULL);
        assert(json_integer_value(json_object_get(o, "line")) == (json_int_t)i + 1);
        assert(json_integer_value(json_object_get(o, "status")) == problem_status(b->lines[i].code));
        assert(json_is_object(json_object_get(o, "problem")));
        json_decref(o);
        at = (size_t)(end + 1 - out.data);
    }
    assert(at == out.len);
    buf_done(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_text text = fuzz_text(data, size);
    size_t lines = count_lines(text.p, text.n);
    struct bulk *b;
    struct err e;
    if (bulk_parse(text.p, text.n, NOW_MS, &b, &e) == 0) {
        assert(lines > 0 && b->n == lines && lines <= BULK_LINES_MAX);
        check_lines(b);
        check_alone(b, text.p, text.n);
        check_answer(b);
        bulk_free(b);
    } else {
        assert(lines == 0 || lines > BULK_LINES_MAX);
    }
    free(text.p);
    return 0;
}
