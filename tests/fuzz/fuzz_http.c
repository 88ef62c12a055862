/* Fuzzes the HTTP server: its head and chunk readers alone, and a whole connection over a socket pair.
 *
 *   clang -std=c11 -D_GNU_SOURCE -g -O1 -fsanitize=fuzzer,address,undefined -I. -o fuzz_http
 * tests/fuzz/fuzz_http.c \
 *     common/http_{head,chunk,conn,read,reply,server}.c common/{problem,query,buf,mem,err,clock,names}.c \
 *     -levent -ljansson -lhttp_parser -lutf8proc
 *   ./fuzz_http -max_len=4096 tests/fuzz/corpus/http
 *
 * What is checked beyond crashes: the outcome does not depend on how the bytes are split, what a reader says
 * it used is what there was, strings end where they say, and no connection or request is left when the client
 * is gone. The first byte chooses the split, the rest is what the client sends.
 */
#include <assert.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "common/http_internal.h"
#include "common/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* --- the head --- */

struct head_outcome {
    enum http_head_result result;
    size_t used;
    enum problem_code problem;
};

static struct head_outcome read_head(struct http_head *h, const char *p, size_t n, size_t step)
{
    struct head_outcome o = {HTTP_HEAD_MORE, 0, PROBLEM_N};
    http_head_reset(h);
    while (o.result == HTTP_HEAD_MORE && o.used < n) {
        size_t used, part = n - o.used < step ? n - o.used : step;
        o.result = http_head_feed(h, p + o.used, part, &used);
        assert(used <= part && (o.result != HTTP_HEAD_MORE || used == part));
        o.used += used;
    }
    if (o.result == HTTP_HEAD_BAD)
        o.problem = h->problem;
    return o;
}

static void check_head(const struct http_head *h)
{
    assert(h->n_fields <= HTTP_MAX_HEADER_LINES && h->n_segments <= HTTP_MAX_SEGMENTS + 1);
    assert(!(h->chunked && h->content_length));
    assert(strlen(h->buf + h->target) == h->target_len);
    assert(h->path[0] == '/' || strcmp(h->path, "*") == 0);
    for (size_t i = 0; i < h->n_fields; i++) {
        const struct http_field *f = &h->fields[i];
        assert(f->name_len > 0 && strlen(h->buf + f->name) == f->name_len);
        assert(strlen(h->buf + f->value) == f->value_len);
        assert(strpbrk(h->buf + f->value, "\r\n") == NULL);
    }
    for (size_t i = 0; i < h->n_segments && i < HTTP_MAX_SEGMENTS; i++)
        assert(strlen(h->segments[i]) <= h->target_len);
}

static void fuzz_head(const char *p, size_t n, size_t step)
{
    struct http_head a, b;
    http_head_init(&a);
    http_head_init(&b);
    struct head_outcome whole = read_head(&a, p, n, n), split = read_head(&b, p, n, step);
    assert(whole.result == split.result && whole.problem == split.problem);
    if (whole.result == HTTP_HEAD_DONE) {
        assert(whole.used == split.used && a.n_fields == b.n_fields && a.content_length == b.content_length);
        assert(strcmp(a.path, b.path) == 0 && strcmp(a.query, b.query) == 0);
        check_head(&a);
        check_head(&b);
    }
    http_head_done(&a);
    http_head_done(&b);
}

/* --- chunks --- */

static enum http_chunk_result read_chunks(const char *p, size_t n, size_t step, char *body, size_t *len,
                                          size_t *end)
{
    struct http_chunk k;
    enum http_chunk_result r = HTTP_CHUNK_MORE;
    size_t at = 0;
    http_chunk_init(&k);
    *len = 0;
    while (at < n && (r == HTTP_CHUNK_MORE || r == HTTP_CHUNK_DATA)) {
        const char *data;
        size_t used, data_len, part = n - at < step ? n - at : step;
        r = http_chunk_feed(&k, p + at, part, &used, &data, &data_len);
        assert(used <= part && (used > 0 || r > HTTP_CHUNK_DATA));
        if (r == HTTP_CHUNK_DATA) {
            assert(data_len > 0 && data + data_len == p + at + used);
            memcpy(body + *len, data, data_len);
            *len += data_len;
        }
        at += used;
    }
    *end = at;
    return r;
}

static void fuzz_chunks(const char *p, size_t n, size_t step)
{
    char *a = mem_alloc(n), *b = mem_alloc(n);
    size_t a_len, b_len, a_end, b_end;
    enum http_chunk_result ra = read_chunks(p, n, n, a, &a_len, &a_end);
    enum http_chunk_result rb = read_chunks(p, n, step, b, &b_len, &b_end);
    bool more_a = ra <= HTTP_CHUNK_DATA, more_b = rb <= HTTP_CHUNK_DATA;
    assert(more_a ? more_b : ra == rb);
    assert(a_len == b_len && a_end == b_end && memcmp(a, b, a_len) == 0);
    free(a);
    free(b);
}

/* --- a connection --- */

static struct http_request *late[32];
static size_t n_late;

static void on_head(struct http_request *r, void *arg)
{
    (void)arg;
    if (r->n_segments > 0 && r->segments[0][0] == 'e')
        http_reply(r, 401, NULL, NULL, 0);
    else if (r->n_segments > 0 && r->segments[0][0] == 'm')
        r->max_body = 3;
}

static void on_request(struct http_request *r, void *arg)
{
    (void)arg;
    char kind = '\0';
    if (r->n_segments > 0)
        kind = r->segments[0][0];
    assert(strlen(r->path) <= strlen(r->target) + 1 && r->body[r->body_len] == '\0');
    if (kind == 'l' && n_late < MEM_COUNT(late)) {
        late[n_late++] = r;
    } else if (kind == 's') {
        http_stream_start(r, 200, "text/plain");
        if (http_stream_add(r, r->body, r->body_len) == 0)
            (void)!http_stream_add(r, "x", 1);
        http_stream_end(r);
    } else {
        http_header_add(r, "X-Query", r->query);
        http_reply(r, 200, "text/plain", r->body, r->body_len);
    }
}

/* The late ones are answered last first, so that the order has to be kept by the server. */
static void answer_late(void)
{
    while (n_late > 0) {
        struct http_request *r = late[--n_late];
        http_reply(r, 200, "text/plain", "late", 4);
    }
}

static void fuzz_connection(const char *p, size_t n, size_t step)
{
    static struct event_base *base;
    static struct http_server *server;
    static char out[65536];
    int fd[2];
    if (base == NULL) {
        base = event_base_new();
        server = http_server_new(
            base, &(struct http_server_options){
                      .head = on_head, .handle = on_request, .max_body = 1000, .max_pipelined = 4});
    }
    assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd) == 0);
    struct sockaddr_in peer = {.sin_family = AF_INET};
    conn_new(server, fd[0], (struct sockaddr *)&peer, false);
    for (size_t at = 0; at < n; at += step) {
        if (send(fd[1], p + at, n - at < step ? n - at : step, MSG_NOSIGNAL) < 0)
            break;
        event_base_loop(base, EVLOOP_NONBLOCK);
        if (at % 3 == 0)
            answer_late();
        while (recv(fd[1], out, sizeof out, 0) > 0)
            ;
    }
    shutdown(fd[1], SHUT_WR);
    for (int i = 0; i < 200 && http_server_connections(server) > 0; i++) {
        event_base_loop(base, EVLOOP_NONBLOCK);
        answer_late();
        while (recv(fd[1], out, sizeof out, 0) > 0)
            ;
    }
    close(fd[1]);
    assert(http_server_connections(server) == 0 && http_server_in_flight(server) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    const char *p = (const char *)data + 1;
    size_t n = size - 1, step = 1 + data[0] % 64;
    fuzz_head(p, n, step);
    fuzz_chunks(p, n, step);
    fuzz_connection(p, n, step * 4);
    return 0;
}
