/* The HTTP server: its head and chunk readers alone, and whole connections over a socket pair.
 *
 * However the bytes are cut into pieces, the outcome is the same: what the readers say, and byte for byte
 * what a connection answers. What a reader says it used is what there was, strings end where they say, and no
 * connection or request is left when the client is gone. The first two bytes choose the cuts, the rest is
 * what the client sends.
 */
#include "tests/fuzz/fuzz.h"

#include <event2/event.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/http_internal.h"

#define ANSWERS_MAX (4 * 1024 * 1024)

/* ---- the head ---- */

struct head_outcome {
    enum http_head_result result;
    size_t used;
    enum problem_code problem;
};

static struct head_outcome read_head(struct http_head *h, const char *p, size_t n, struct fuzz_cuts cuts)
{
    struct head_outcome o = {HTTP_HEAD_MORE, 0, PROBLEM_N};
    while (o.result == HTTP_HEAD_MORE && o.used < n) {
        size_t used, part = fuzz_cut(&cuts, n - o.used);
        o.result = http_head_feed(h, p + o.used, part, &used);
        assert(used <= part && (o.result != HTTP_HEAD_MORE || used == part));
        o.used += used;
    }
    if (o.result == HTTP_HEAD_BAD) {
        assert(problem_status(h->problem) >= 400 && h->why[0] != '\0');
        o.problem = h->problem;
    }
    return o;
}

static void check_fields(const struct http_head *h)
{
    assert(h->n_fields <= HTTP_MAX_HEADER_LINES);
    for (size_t i = 0; i < h->n_fields; i++) {
        const struct http_field *f = &h->fields[i];
        const char *name = h->buf + f->name, *value = h->buf + f->value;
        assert(f->name_len > 0 && strlen(name) == f->name_len && strlen(value) == f->value_len);
        assert(strpbrk(value, "\r\n") == NULL);
        for (const char *c = name; *c != '\0'; c++)
            assert(http_is_token_char((unsigned char)*c));
        assert(f->value_len == 0 ||
               (strchr(" \t", value[0]) == NULL && strchr(" \t", value[f->value_len - 1]) == NULL));
        assert(http_head_find(h, name, 0) >= 0 && http_head_find(h, name, 0) <= (int)i);
    }
}

static void check_head(const struct http_head *h)
{
    assert(!(h->chunked && h->content_length));
    assert(h->target_len <= HTTP_MAX_TARGET && strlen(h->buf + h->target) == h->target_len);
    assert(h->path[0] == '/' || strcmp(h->path, "*") == 0);
    assert(strchr(h->path, '?') == NULL && strlen(h->path) + strlen(h->query) <= h->target_len + 1);
    assert(h->n_segments <= HTTP_MAX_SEGMENTS + 1);
    for (size_t i = 0; i < h->n_segments && i < HTTP_MAX_SEGMENTS; i++)
        assert(strlen(h->segments[i]) <= h->target_len);
    check_fields(h);
}

static void check_same_head(const struct http_head *a, const struct http_head *b)
{
    assert(a->n_fields == b->n_fields && a->method == b->method && a->http10 == b->http10);
    assert(a->content_length == b->content_length && a->chunked == b->chunked);
    assert(a->keep_alive == b->keep_alive && a->expect_continue == b->expect_continue);
    assert(strcmp(a->path, b->path) == 0 && strcmp(a->query, b->query) == 0);
    for (size_t i = 0; i < a->n_fields; i++)
        assert(strcmp(a->buf + a->fields[i].value, b->buf + b->fields[i].value) == 0);
}

static void fuzz_head(const char *p, size_t n, struct fuzz_cuts cuts)
{
    struct http_head a, b;
    http_head_init(&a);
    http_head_init(&b);
    struct head_outcome whole = read_head(&a, p, n, (struct fuzz_cuts){0, SIZE_MAX});
    struct head_outcome split = read_head(&b, p, n, cuts);
    assert(whole.result == split.result && whole.problem == split.problem);
    if (whole.result == HTTP_HEAD_DONE) {
        assert(whole.used == split.used);
        check_head(&a);
        check_same_head(&a, &b);
        http_head_reset(&a); /* the memory of the last request does not matter to the next */
        assert(read_head(&a, p, n, cuts).used == split.used);
        check_same_head(&a, &b);
    }
    http_head_done(&a);
    http_head_done(&b);
}

/* ---- chunks ---- */

static enum http_chunk_result read_chunks(const char *p, size_t n, struct fuzz_cuts cuts, char *body,
                                          size_t *len, size_t *end)
{
    struct http_chunk k;
    enum http_chunk_result r = HTTP_CHUNK_MORE;
    size_t at = 0, part = 0;
    http_chunk_init(&k);
    *len = 0;
    while (at < n && (r == HTTP_CHUNK_MORE || r == HTTP_CHUNK_DATA)) {
        const char *data;
        size_t used, data_len;
        part = fuzz_cut(&cuts, n - at);
        r = http_chunk_feed(&k, p + at, part, &used, &data, &data_len);
        assert(used <= part && (used > 0 || r > HTTP_CHUNK_DATA));
        assert(r != HTTP_CHUNK_MORE || used == part);
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

static void fuzz_chunks(const char *p, size_t n, struct fuzz_cuts cuts)
{
    char *a = mem_alloc(n + 1), *b = mem_alloc(n + 1);
    size_t a_len, b_len, a_end, b_end;
    enum http_chunk_result ra = read_chunks(p, n, (struct fuzz_cuts){0, SIZE_MAX}, a, &a_len, &a_end);
    enum http_chunk_result rb = read_chunks(p, n, cuts, b, &b_len, &b_end);
    bool more_a = ra <= HTTP_CHUNK_DATA, more_b = rb <= HTTP_CHUNK_DATA;
    assert(more_a ? more_b : ra == rb);
    assert(a_len == b_len && a_end == b_end && memcmp(a, b, a_len) == 0);
    assert(a_len <= a_end);
    free(a);
    free(b);
}

/* ---- a connection ---- */

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
    char kind = r->n_segments > 0 ? r->segments[0][0] : '\0';
    assert(strlen(r->path) <= strlen(r->target) + 1 && r->body[r->body_len] == '\0');
    assert(r->body_len <= r->max_body);
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
    while (n_late > 0)
        http_reply(late[--n_late], 200, "text/plain", "late", 4);
}

static void take_answers(int fd, struct buf *out)
{
    static char part[65536];
    for (ssize_t n; (n = recv(fd, part, sizeof part, 0)) > 0;)
        buf_add(out, part, (size_t)n);
}

static void send_cut(struct event_base *base, int fd, const char *p, size_t n, struct fuzz_cuts cuts,
                     struct buf *out)
{
    for (size_t at = 0, turn = 0; at < n; turn++) {
        ssize_t sent = send(fd, p + at, fuzz_cut(&cuts, n - at), MSG_NOSIGNAL);
        if (sent < 0)
            return; /* closed on us, as after a refusal */
        at += (size_t)sent;
        event_base_loop(base, EVLOOP_NONBLOCK);
        if (turn % 3 == 0)
            answer_late();
        take_answers(fd, out);
    }
}

/* What differs between equal runs: the time, and that 100 Continue is left out when the body is there
 * already. */
static void forget_each(struct buf *b, const char *from, const char *to)
{
    for (size_t at = 0; at < b->len;) {
        char *begin = memmem(b->data + at, b->len - at, from, strlen(from));
        if (begin == NULL)
            return;
        at = (size_t)(begin - b->data);
        char *behind = begin + strlen(from);
        char *end = memmem(behind, b->len - (size_t)(behind - b->data), to, strlen(to));
        assert(end != NULL);
        memmove(begin, end, b->len - (size_t)(end - b->data));
        b->len -= (size_t)(end - begin);
    }
}

static void forget(struct buf *b)
{
    forget_each(b, "\r\nDate: ", "\r\n");
    forget_each(b, "HTTP/1.1 100 Continue\r\n\r\n", "");
}

static void converse(const char *p, size_t n, struct fuzz_cuts cuts, struct buf *out)
{
    static struct event_base *base;
    static struct http_server *server;
    int fd[2];
    if (base == NULL) {
        base = event_base_new();
        server = http_server_new(
            base, &(struct http_server_options){
                      .head = on_head, .handle = on_request, .max_body = 1000, .max_pipelined = 4});
    }
    server->id_state[0] = server->id_state[1] = 7; /* the same request ids in each run */
    assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd) == 0);
    struct sockaddr_in peer = {.sin_family = AF_INET};
    http_server_count(server, 1); /* as the listener does */
    conn_new(server, fd[0], (struct sockaddr *)&peer, false);
    send_cut(base, fd[1], p, n, cuts, out);
    for (int i = 0; i < 8; i++) { /* what waits for its turn is answered while our side is still open */
        event_base_loop(base, EVLOOP_NONBLOCK);
        answer_late();
        take_answers(fd[1], out);
    }
    shutdown(fd[1], SHUT_WR);
    for (int i = 0; i < 200 && http_server_connections(server) > 0; i++) {
        event_base_loop(base, EVLOOP_NONBLOCK);
        answer_late();
        take_answers(fd[1], out);
    }
    take_answers(fd[1], out);
    close(fd[1]);
    assert(http_server_connections(server) == 0 && http_server_in_flight(server) == 0);
    assert(!out->full);
    forget(out);
}

static void fuzz_connection(const char *p, size_t n, struct fuzz_cuts cuts)
{
    struct buf whole, split;
    buf_init(&whole, ANSWERS_MAX);
    buf_init(&split, ANSWERS_MAX);
    converse(p, n, (struct fuzz_cuts){0, 4096}, &whole);
    converse(p, n, cuts, &split);
    assert(whole.len == split.len && (whole.len == 0 || memcmp(whole.data, split.data, whole.len) == 0));
    buf_done(&whole);
    buf_done(&split);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3)
        return 0;
    struct fuzz_text text = fuzz_text(data + 2, size - 2);
    struct fuzz_cuts cuts = {data[0] * 77u + data[1], 1 + data[1] % 64};
    fuzz_head(text.p, text.n, cuts);
    fuzz_chunks(text.p, text.n, cuts);
    /* The whole of a long one is the readers' business: a connection costs a system call a piece. */
    if (text.n <= 64 * 1024) {
        cuts.most = text.n > 4096 ? 16 * cuts.most + 1024 : 4 * cuts.most;
        fuzz_connection(text.p, text.n, cuts);
    }
    free(text.p);
    return 0;
}
