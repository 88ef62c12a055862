/* model.h - what every feed has to be: items, follows and mutes in plain memory, and the obvious answer.
 *
 * Names are numbers here; what they are called is driver.h's. At most 32 of each kind, so that sets are bits.
 * Pure: no I/O.
 */
#ifndef FEEDMILL_TESTS_MODEL_H
#define FEEDMILL_TESTS_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "common/ids.h"
#include "common/ts.h"

#define MODEL_USERS_MAX 16
#define MODEL_TEXT_SIZE 128

struct model_item {
    item_id id; /* 0: not known yet */
    unsigned publisher;
    char external[48]; /* "": none */
    int revision;
    bool live;
    char title[MODEL_TEXT_SIZE], body[MODEL_TEXT_SIZE];
    uint32_t topics;
    uint32_t words; /* of title and body */
    ts_t moved;     /* when it was published, deleted, or its topics last changed */
    uint32_t left;  /* topics that it had at any time before */
};

enum model_edge_kind {
    MODEL_FOLLOW_PUBLISHER,
    MODEL_FOLLOW_TOPIC,
    MODEL_MUTE_PUBLISHER,
    MODEL_MUTE_TOPIC,
    MODEL_MUTE_WORD,
    MODEL_MUTE_ITEM
};

struct model_edge {
    unsigned user;
    enum model_edge_kind kind;
    unsigned what; /* index of the publisher, topic or word */
    item_id item;  /* MODEL_MUTE_ITEM */
    bool remove;
};

struct model_user {
    uint32_t sets[MODEL_MUTE_ITEM]; /* by kind, but muted items */
    item_id *muted;                 /* items */
    size_t n_muted;
};

struct model {
    struct model_item *items; /* by id, ascending */
    size_t n, cap;
    struct model_user users[MODEL_USERS_MAX];
};

void model_init(struct model *m);
void model_done(struct model *m);

/* model_put() adds the item or replaces the one of its id; model_find() answers it or NULL. Pointers live
 * until the next model_put(). */
void model_put(struct model *m, const struct model_item *it);
struct model_item *model_find(const struct model *m, item_id id);
struct model_item *model_find_external(const struct model *m, unsigned publisher, const char *external);

/* model_edge() answers whether it changed anything; model_has_edge() whether the edge is there. */
bool model_edge(struct model *m, const struct model_edge *e);
bool model_has_edge(const struct model *m, const struct model_edge *e);

bool model_follows(const struct model *m, unsigned user, const struct model_item *it);
bool model_mutes(const struct model *m, unsigned user, const struct model_item *it);
bool model_shows(const struct model *m, unsigned user,
                 const struct model_item *it); /* live, followed, not muted */

/* model_feed() writes the user's feed, newest first, into a new array; the caller frees it. _publisher and
 * _topic likewise. */
const struct model_item **model_feed(const struct model *m, unsigned user, size_t *n);
const struct model_item **model_publisher(const struct model *m, unsigned publisher, size_t *n);
const struct model_item **model_topic(const struct model *m, unsigned topic, size_t *n);

#endif
