#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/support/sse.h"

#include <stdio.h>
#include <string.h>

#include "common/clock.h"

struct sse_event sse_event;

void sse_open_with(struct sse *s, const struct e2e_api *api, const char *query, const char *header,
                   int status)
{
    char request[2000];
    struct reply head;
    snprintf(request, sizeof request, "GET /v1/users/%s/feed/stream%s HTTP/1.1\r\nHost: x\r\n%s%s%s%s\r\n",
             s->user, query, header, s->id[0] ? "Last-Event-ID: " : "", s->id, s->id[0] ? "\r\n" : "");
    s->conn = rawhttp_open(api->port);
    rawhttp_send_str(s->conn, request);
    rawhttp_read_head(s->conn, &head);
    assert_int_equal(head.status, status);
    if (status == 200)
        assert_string_equal(reply_header(&head, "Content-Type"), "text/event-stream");
    reply_done(&head);
}

void sse_open(struct sse *s, const struct e2e_api *api)
{
    sse_open_with(s, api, "", api->auth, 200);
}

void sse_close(struct sse *s)
{
    rawhttp_close(s->conn);
    s->conn = NULL;
}

static void take_field(struct sse *s, const char *line)
{
    if (strncmp(line, "id: ", 4) == 0)
        snprintf(s->id, sizeof s->id, "%s", line + 4);
    else if (strncmp(line, "event: ", 7) == 0)
        snprintf(sse_event.type, sizeof sse_event.type, "%s", line + 7);
    else if (strncmp(line, "data: ", 6) == 0)
        snprintf(sse_event.data, sizeof sse_event.data, "%s", line + 6);
}

static item_id id_in(const char *data)
{
    json_t *o = json_loads(data, 0, NULL);
    item_id id = 0;
    assert_non_null(o);
    if (json_object_get(o, "id") != NULL)
        assert_int_equal(ids_parse(json_string_value(json_object_get(o, "id")), &id, NULL), 0);
    json_decref(o);
    return id;
}

/* Reads to the end of the next event, past beats. False: the stream has ended. */
bool sse_try_event(struct sse *s)
{
    int64_t end = clock_mono_ms() + (int64_t)SSE_EVENT_MS * fixture_slowness();
    bool late = false;
    sse_event.type[0] = sse_event.data[0] = '\0';
    sse_event.item = 0;
    while (clock_mono_ms() < end) {
        const char *line = rawhttp_read_line(s->conn, end - clock_mono_ms(), &late);
        if (line == NULL && !late)
            return false;
        if (line == NULL)
            break;
        take_field(s, line);
        if (line[0] != '\0' || sse_event.type[0] == '\0')
            continue;
        sse_event.item = id_in(sse_event.data);
        return true;
    }
    fail_msg("no event on the stream of %s", s->user);
    return false;
}

void sse_expect(struct sse *s, const char *type, item_id id)
{
    if (!sse_try_event(s))
        fail_msg("the stream of %s has ended", s->user);
    if (strcmp(sse_event.type, type) != 0 || sse_event.item != id)
        fail_msg("%s of %llu for %s instead of %s of %llu: %.200s", sse_event.type,
                 (unsigned long long)sse_event.item, s->user, type, (unsigned long long)id, sse_event.data);
}

/* The id that a stream begins with, or that a beat brings. */
void sse_read_id(struct sse *s)
{
    char had[sizeof s->id];
    strcpy(had, s->id);
    int64_t end = clock_mono_ms() + (int64_t)SSE_EVENT_MS * fixture_slowness();
    while (strcmp(had, s->id) == 0) {
        const char *line = rawhttp_read_line(s->conn, end - clock_mono_ms(), NULL);
        assert_non_null(line);
        assert_true(strncmp(line, "event:", 6) != 0);
        take_field(s, line);
    }
}
