/* handlers_items.h - what the handlers of single and of bulk items share.
 */
#ifndef FEEDMILL_HANDLERS_ITEMS_H
#define FEEDMILL_HANDLERS_ITEMS_H

#include "feed-api/call.h"
#include "feed-api/items_store.h"

/* handlers_items_store() is the store as one worker uses it for one job. */
struct items handlers_items_store(struct worker *w);

/* handlers_items_result() appends "\"id\":...,\"revision\":...,\"result\":...,\"position\":..." without
 * braces. */
void handlers_items_result(const struct items_written *written, struct buf *out);

/* handlers_items_held_back() makes a 503 the answer when fanout is too far behind to be given more (see
 * pressure.h): -1 then. Deletions are never held back. */
int handlers_items_held_back(struct call *c);

#endif
