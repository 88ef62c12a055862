/* handlers_stream.c - GET /v1/users/{u}/feed/stream: server-sent events. What is sent is streams.h's.
 */
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "feed-api/app.h"
#include "feed-api/router.h"
#include "feed-api/streams.h"

/* EventSource sends the id back as it was; one of another kind is a fault in the client, and told. */
static int read_last(struct call *c, struct stream_question *q)
{
    const char *last = http_request_header(c->http, "Last-Event-ID");
    struct err e;
    q->resumes = last != NULL && last[0] != '\0';
    if (!q->resumes || stream_pos_parse(last, &q->last, &e) == 0)
        return 0;
    return call_fail(c, PROBLEM_INVALID_REQUEST, "Last-Event-ID %s", e.msg);
}

static void handle_stream(struct call *c)
{
    struct stream_question q = {.user = c->params[0]};
    struct err e;
    if (read_last(c, &q) < 0) {
        call_finish(c);
        return;
    }
    if (c->http->method == HTTP_HEAD) {
        c->content_type = "text/event-stream";
        call_finish(c);
        return;
    }
    char *credential = router_credential(c->http, c->route);
    q.credential = credential != NULL ? credential : "";
    int rc = streams_open(c->app->streams, c->loop, c->http, &q, &e);
    free(credential);
    if (rc == 0) {
        call_drop(c);
        return;
    }
    call_fail(c, PROBLEM_OVERLOADED, "%s", e.msg);
    call_finish(c);
}

const struct route routes_stream[] = {
    {"GET", "/v1/users/{u}/feed/stream", handle_stream, ACCESS_SERVICE | ACCESS_OWN | ACCESS_QUERY_TOKEN,
     "access_token", NULL, 0, "streamFeed"},
    {0},
};
