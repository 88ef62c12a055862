#include "tests/support/interleave_private.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

/* The sources in use: NULL for those that are as they are. */
static char *changed[SCRIPT_N];

const char *__wrap_script_source(enum script s);
const char *__real_script_source(enum script s);

const char *__wrap_script_source(enum script s)
{
    return changed[s] ? changed[s] : __real_script_source(s);
}

/* NULL: the piece is not in it. Every place of it is replaced. */
static char *without(const char *source, const char *piece, const char *instead)
{
    char *out = NULL;
    for (const char *at; (at = strstr(source, piece)); source = at + strlen(piece)) {
        char *more = mem_printf("%s%.*s%s", out ? out : "", (int)(at - source), source, instead);
        free(out);
        out = more;
    }
    if (!out)
        return NULL;
    char *whole = mem_printf("%s%s", out, source);
    free(out);
    return whole;
}

bool interleave_mutate(const struct interleave_mutation *m)
{
    connections_close(); /* a connection keeps what it has loaded */
    for (unsigned s = 0; s < SCRIPT_N; s++) {
        free(changed[s]);
        changed[s] = NULL;
    }
    if (!m)
        return true;
    changed[m->script] = without(__real_script_source(m->script), m->piece, m->instead);
    if (m->also != m->script)
        changed[m->also] = without(__real_script_source(m->also), m->piece, m->instead);
    return changed[m->script] && changed[m->also];
}
