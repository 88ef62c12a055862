#include "fanout/plan.h"

#include <string.h>

bool plan_reads_item(const struct change *c)
{
    return c->kind == CHANGE_ITEM && !c->deleted && (c->inserted || c->topics_changed);
}

static bool has_topic(const struct item_now *now, const char *topic)
{
    for (unsigned i = 0; i < now->n_topics; i++) {
        if (strcmp(now->topics[i], topic) == 0)
            return true;
    }
    return false;
}

void plan_item(const struct change *c, const struct item_now *now, struct plan *out)
{
    out->t = c->t;
    out->id = c->item;
    out->n_add = out->n_remove = 0;
    if (!plan_reads_item(c) || !now->live)
        return;
    target_format(TARGET_PUBLISHER, now->publisher, out->add[out->n_add++]);
    for (unsigned i = 0; i < now->n_topics; i++)
        target_format(TARGET_TOPIC, now->topics[i], out->add[out->n_add++]);
    for (unsigned i = 0; c->topics_changed && i < c->n_topics_before; i++) {
        if (!has_topic(now, c->topics_before[i]))
            target_format(TARGET_TOPIC, c->topics_before[i], out->remove[out->n_remove++]);
    }
}
