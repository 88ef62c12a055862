/* sse.h - a client of GET /v1/users/{u}/feed/stream for tests: what a browser's EventSource does, step by
 * step.
 *
 * Main thread only; what goes wrong fails the test.
 */
#ifndef FEEDMILL_TESTS_SSE_H
#define FEEDMILL_TESTS_SSE_H

#include <stdbool.h>
#include "common/ids.h"
#include "tests/support/e2e.h"

#define SSE_EVENT_MS 20000 /* to wait for an event, times the variant's slowness */

struct sse {
    struct rawhttp *conn; /* NULL: not open */
    char user[40];
    char id[64]; /* of the last event taken in, or of a beat; "" for none: sent when it is opened */
};

/* The event that was read last. */
extern struct sse_event {
    char type[16];
    char data[200000];
    item_id item; /* data's id; 0: none */
} sse_event;

/* sse_open() connects, with the last id if there is one. sse_open_with(): query is "" or begins with '?',
 * header are the header lines of the credential; fails the test with another status. */
void sse_open(struct sse *s, const struct e2e_api *api);
void sse_open_with(struct sse *s, const struct e2e_api *api, const char *query, const char *header,
                   int status);
void sse_close(struct sse *s);

/* sse_try_event() reads to the end of the next event, past beats. False: the stream has ended. sse_expect()
 * wants one of that type and item. */
bool sse_try_event(struct sse *s);
void sse_expect(struct sse *s, const char *type, item_id id);

/* sse_read_id() waits for the id that a stream begins with, or for the next one of a beat; no event may come.
 */
void sse_read_id(struct sse *s);

#endif
