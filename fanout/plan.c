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

bool plan_turn(const struct change *c, struct plan *out)
{
    if (c->kind != CHANGE_TARGET || c->mode == MODE_NOT_TOLD || strlen(c->name) >= TARGET_TEXT_SIZE)
        return false;
    out->what = c->mode == MODE_PULL ? PLAN_PULL : PLAN_PUSH;
    out->t = c->t;
    out->id = 0;
    out->n_add = 1;
    out->n_remove = 0;
    out->pulled[0] = false;
    strcpy(out->add[0], c->name);
    return true;
}

void plan_item(const struct change *c, const struct item_now *now, struct plan *out)
{
    out->what = PLAN_ITEM;
    out->t = c->t;
    out->id = c->item;
    out->n_add = out->n_remove = 0;
    memset(out->pulled, 0, sizeof out->pulled);
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
