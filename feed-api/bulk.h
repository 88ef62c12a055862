/* bulk.h - many items in one request: NDJSON in, one answer a line out, in order.
 *
 * A line is an item or {"op": "delete", publisher, external_id}. Lines that name the same (publisher,
 * external_id) act one after the other; all others of a request are done together: one look-up of what is
 * known, one unordered insert of what is new, one bulk update of what differs. So a thousand new items cost a
 * few round trips. One bad line harms no other. Parsing is pure; bulk_run() blocks, in a worker.
 */
#ifndef FEEDMILL_BULK_H
#define FEEDMILL_BULK_H

#include "common/buf.h"
#include "common/problem.h"
#include "feed-api/items_store.h"

#define BULK_LINES_MAX 1000
#define BULK_LINE_MAX  (128 * 1024) /* bytes, as one request */

enum bulk_op { BULK_POST, BULK_DELETE };
enum bulk_state { BULK_WAITING, BULK_DONE, BULK_FAILED };

struct bulk_line {
    enum bulk_op op;
    enum bulk_state state;
    struct item item;             /* what was sent; of a delete: publisher and external_id */
    unsigned turn;                /* how many lines before this one name the same item */
    struct items_written written; /* BULK_DONE */
    enum problem_code code;       /* BULK_FAILED */
    struct item_problem problem;  /* pointer "": none */
};

struct bulk {
    size_t n;
    unsigned turns; /* the longest chain of lines for the same item */
    struct bulk_line lines[BULK_LINES_MAX];
};

/* bulk_parse() reads a body. Lines end in LF or CRLF; the last one may lack it. A wrong line becomes
 * BULK_FAILED. ERR_TOO_LARGE: more than BULK_LINES_MAX lines, ERR_INVALID: none. The caller frees with
 * bulk_free(). */
int bulk_parse(const char *body, size_t n, int64_t now_ms, struct bulk **out, struct err *e) MUST_USE;
void bulk_free(struct bulk *b);

/* bulk_refuse() makes a line that waits a failed one. */
void bulk_refuse(struct bulk_line *line, enum problem_code code, const char *detail);

/* bulk_run() acts on all lines that wait. Each line is done or failed afterwards. ERR_UNAVAILABLE,
 * ERR_TIMEOUT, ...: nothing at all could be done. */
int bulk_run(struct items *s, struct bulk *b, struct err *e) MUST_USE;

/* bulk_write() appends the answer, with instance (the request id) in its problems; answers the newest
 * position in it, 0 when nothing was done. */
ts_t bulk_write(const struct bulk *b, const char *instance, struct buf *out);

#endif
