/* Query strings: what is taken can be asked for by name, names nothing twice, and written out again, every
 * byte escaped or not, it is taken as the same.
 */
#include "tests/fuzz/fuzz.h"

#include "common/buf.h"
#include "common/names.h"
#include "common/query.h"

static void add_encoded(struct buf *out, const char *s)
{
    char *text = mem_alloc(3 * strlen(s) + 1);
    buf_add(out, text, percent_encode(s, text));
    free(text);
}

static void add_escaped(struct buf *out, const char *s)
{
    for (; *s != '\0'; s++)
        buf_printf(out, "%%%02x", (unsigned char)*s);
}

static void check_again(const struct query *q, void (*add)(struct buf *, const char *))
{
    struct buf out;
    struct query again;
    struct err e;
    buf_init(&out, 16 * FUZZ_TEXT_MAX);
    for (size_t i = 0; i < q->n; i++) {
        buf_add_str(&out, i > 0 ? "&" : "");
        add(&out, q->params[i].name);
        buf_add_char(&out, '=');
        add(&out, q->params[i].value);
    }
    assert(!out.full && query_parse(out.data, &again, &e) == 0 && again.n == q->n);
    for (size_t i = 0; i < q->n; i++)
        assert(strcmp(q->params[i].name, again.params[i].name) == 0 &&
               strcmp(q->params[i].value, again.params[i].value) == 0);
    query_done(&again);
    buf_done(&out);
}

static void check_params(const struct query *q)
{
    struct err e;
    assert(q->n <= QUERY_MAX_PARAMS);
    for (size_t i = 0; i < q->n; i++) {
        const char *name = q->params[i].name, *value = q->params[i].value;
        assert(name[0] != '\0' && utf8_valid(name, strlen(name)) && utf8_valid(value, strlen(value)));
        assert(query_get(q, name) == value);
        assert(query_check_known(q, &name, 1, &e) == (q->n == 1 ? 0 : -1));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_text text = fuzz_text(data, size);
    struct query q;
    struct err e = {0};
    if (query_parse(text.p, &q, &e) == 0) {
        check_params(&q);
        check_again(&q, add_encoded);
        check_again(&q, add_escaped);
        query_done(&q);
    } else {
        assert(e.code == ERR_INVALID && e.msg[0] != '\0');
    }
    free(text.p);
    return 0;
}
