/* Targets from and to JSON. Pure. */
#include "feed-api/targets.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "common/problem.h"

void target_profile_done(struct target_profile *p)
{
    free(p->title);
    free(p->icon);
    free(p->url);
    free(p->extra);
    *p = (struct target_profile){0};
}

void target_done(struct target *t)
{
    target_profile_done(&t->profile);
}

static int read_title(const json_t *v, char **out, struct item_problem *p)
{
    if (v == NULL || json_is_null(v))
        return 0;
    size_t n = json_string_length(v);
    if (!json_is_string(v) || n < 1 || n > ITEM_TITLE_MAX) {
        *p = (struct item_problem){"/title", "must be a string of 1 to 512 bytes"};
        return -1;
    }
    *out = mem_strndup(json_string_value(v), n);
    return 0;
}

static int check_members(const json_t *o, struct item_problem *p)
{
    static const char *const known[] = {"title", "icon", "url", "extra"};
    const char *name;
    json_t *v;
    json_object_foreach((json_t *)o, name, v)
    {
        bool found = false;
        for (size_t i = 0; i < MEM_COUNT(known) && !found; i++)
            found = strcmp(known[i], name) == 0;
        if (found)
            continue;
        *p = (struct item_problem){"", "a profile has only title, icon, url and extra"};
        problem_pointer("", name, p->pointer, sizeof p->pointer);
        return -1;
    }
    return 0;
}

int target_profile_from_json(const json_t *o, struct target_profile *out, struct item_problem *p)
{
    struct target_profile read = {0};
    if (check_members(o, p) != 0)
        return -1;
    if (read_title(json_object_get(o, "title"), &read.title, p) != 0 ||
        item_url_from_json(json_object_get(o, "icon"), "/icon", &read.icon, p) != 0 ||
        item_url_from_json(json_object_get(o, "url"), "/url", &read.url, p) != 0 ||
        item_extra_from_json(json_object_get(o, "extra"), &read.extra, p) != 0) {
        target_profile_done(&read);
        return -1;
    }
    *out = read;
    return 0;
}

void target_write_json(const struct target *t, struct buf *out)
{
    buf_printf(out, "{\"%s\":", target_kind_name(t->kind));
    buf_add_json(out, t->name);
    buf_add_str(out, ",\"title\":");
    buf_add_json(out, t->profile.title);
    buf_add_str(out, ",\"icon\":");
    buf_add_json(out, t->profile.icon);
    buf_add_str(out, ",\"url\":");
    buf_add_json(out, t->profile.url);
    buf_add_str(out, ",\"extra\":");
    buf_add_str(out, t->profile.extra != NULL ? t->profile.extra : "{}");
    buf_printf(out, ",\"followers\":%lld,\"items\":%lld,\"mode\":\"%s\"}", (long long)t->followers,
               (long long)t->items, t->pull ? "pull" : "push");
}
