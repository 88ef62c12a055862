#include "tests/support/rawhttp.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>
#include "common/clock.h"
#include "common/mem.h"

#define BUFFER_MAX (64u * 1024 * 1024)

struct rawhttp {
    uint16_t port;
    int fd;
    int64_t timeout_ms;
    char *in; /* read and not used yet */
    size_t len, cap;
    /* of a stream */
    bool chunked;
    size_t left; /* of the chunk, or of the body when its length is known */
    bool length_known, ended;
    char *line;
    size_t line_len, line_cap;
};

static int connect_to(uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (connect(fd, (struct sockaddr *)&a, sizeof a) != 0) {
        close(fd);
        return -1;
    }
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

struct rawhttp *rawhttp_try_open(uint16_t port)
{
    int fd = connect_to(port);
    if (fd < 0)
        return NULL;
    struct rawhttp *c = mem_zero(1, sizeof *c);
    c->port = port;
    c->fd = fd;
    c->timeout_ms = RAWHTTP_TIMEOUT_MS;
    return c;
}

struct rawhttp *rawhttp_open(uint16_t port)
{
    struct rawhttp *c = rawhttp_try_open(port);
    if (c == NULL)
        fail_msg("can't connect to port %u: %s", port, strerror(errno));
    return c;
}

void rawhttp_close(struct rawhttp *c)
{
    if (c == NULL)
        return;
    close(c->fd);
    free(c->in);
    free(c->line);
    free(c);
}

void rawhttp_set_timeout(struct rawhttp *c, int64_t ms)
{
    c->timeout_ms = ms;
}

int rawhttp_fd(const struct rawhttp *c)
{
    return c->fd;
}

static int reconnect(struct rawhttp *c)
{
    close(c->fd);
    c->len = 0;
    c->fd = connect_to(c->port);
    return c->fd < 0 ? -1 : 0;
}

/* --- bytes --- */

static bool wait_for(int fd, short events, int64_t deadline)
{
    for (;;) {
        int64_t left = deadline - clock_mono_ms();
        struct pollfd p = {.fd = fd, .events = events};
        int n = poll(&p, 1, left > 0 ? (int)left : 0);
        if (n > 0)
            return true;
        if (n == 0 || errno != EINTR)
            return false;
    }
}

static int send_all(struct rawhttp *c, const char *p, size_t n)
{
    int64_t deadline = clock_mono_ms() + c->timeout_ms;
    while (n > 0) {
        if (!wait_for(c->fd, POLLOUT, deadline))
            return -1;
        ssize_t sent = send(c->fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno != EAGAIN && errno != EINTR)
            return -1;
        if (sent > 0) {
            p += sent;
            n -= (size_t)sent;
        }
    }
    return 0;
}

/* More bytes into c->in: 1 when some came, 0 at the end of the connection, -1 on a failure or when late. */
static int fill(struct rawhttp *c, int64_t deadline)
{
    if (c->cap - c->len < 16384) {
        if (c->cap > BUFFER_MAX)
            return -1;
        c->cap = c->cap ? 2 * c->cap : 32768;
        c->in = mem_grow(c->in, c->cap, 1);
    }
    if (!wait_for(c->fd, POLLIN, deadline))
        return -1;
    ssize_t n = recv(c->fd, c->in + c->len, c->cap - c->len, 0);
    if (n <= 0)
        return n == 0 ? 0 : -1;
    c->len += (size_t)n;
    return 1;
}

static void consume(struct rawhttp *c, size_t n)
{
    memmove(c->in, c->in + n, c->len - n);
    c->len -= n;
}

void rawhttp_send(struct rawhttp *c, const void *bytes, size_t n)
{
    if (send_all(c, bytes, n) != 0)
        fail_msg("can't send %zu bytes: %s", n, strerror(errno));
}

void rawhttp_send_str(struct rawhttp *c, const char *s)
{
    rawhttp_send(c, s, strlen(s));
}

void rawhttp_shutdown(struct rawhttp *c)
{
    shutdown(c->fd, SHUT_WR);
}

/* --- answers --- */

static int read_head_bytes(struct rawhttp *c, size_t *head_len, int64_t deadline)
{
    for (;;) {
        char *end = c->len ? memmem(c->in, c->len, "\r\n\r\n", 4) : NULL;
        if (end) {
            *head_len = (size_t)(end - c->in) + 4;
            return 0;
        }
        if (fill(c, deadline) <= 0)
            return -1;
    }
}

static void parse_fields(struct reply *r, char *p)
{
    while (*p && *p != '\r') {
        char *eol = strstr(p, "\r\n");
        char *colon = memchr(p, ':', (size_t)(eol - p));
        *eol = '\0';
        if (colon && r->n_headers < RAWHTTP_MAX_HEADERS) {
            *colon = '\0';
            r->headers[r->n_headers].name = p;
            r->headers[r->n_headers++].value = colon + 1 + strspn(colon + 1, " \t");
        }
        p = eol + 2;
    }
}

static int parse_head(struct reply *r, const char *bytes, size_t n)
{
    memset(r, 0, sizeof *r);
    r->head = mem_strndup(bytes, n);
    if (n < 15 || strncmp(r->head, "HTTP/1.1 ", 9) != 0) {
        reply_done(r);
        return -1;
    }
    r->status = atoi(r->head + 9);
    parse_fields(r, strstr(r->head, "\r\n") + 2);
    const char *v = reply_header(r, "Connection");
    r->close = v && strcasecmp(v, "close") == 0;
    v = reply_header(r, "Transfer-Encoding");
    r->chunked = v && strcasecmp(v, "chunked") == 0;
    return 0;
}

static int read_head(struct rawhttp *c, struct reply *out, int64_t deadline)
{
    size_t n;
    do {
        if (read_head_bytes(c, &n, deadline) != 0)
            return -1;
        if (strncmp(c->in, "HTTP/1.1 100", 12) == 0) {
            consume(c, n);
            n = 0;
        }
    } while (n == 0);
    if (parse_head(out, c->in, n) != 0)
        return -1;
    consume(c, n);
    return 0;
}

static int take_body(struct rawhttp *c, size_t n, struct reply *r, int64_t deadline)
{
    while (c->len < n) {
        if (fill(c, deadline) <= 0)
            return -1;
    }
    r->body = mem_grow(r->body, r->len + n + 1, 1);
    memcpy(r->body + r->len, c->in, n);
    r->len += n;
    r->body[r->len] = '\0';
    consume(c, n);
    return 0;
}

/* The size line of the next chunk, at the start of c->in. */
static int take_chunk_size(struct rawhttp *c, size_t *size, int64_t deadline)
{
    char *eol;
    while (c->len == 0 || (eol = memmem(c->in, c->len, "\r\n", 2)) == NULL) {
        if (fill(c, deadline) <= 0)
            return -1;
    }
    char *end;
    *size = strtoull(c->in, &end, 16);
    if (end != eol)
        return -1;
    consume(c, (size_t)(eol - c->in) + 2);
    return 0;
}

static int take_crlf(struct rawhttp *c, int64_t deadline)
{
    while (c->len < 2) {
        if (fill(c, deadline) <= 0)
            return -1;
    }
    if (memcmp(c->in, "\r\n", 2) != 0)
        return -1;
    consume(c, 2);
    return 0;
}

static int read_chunks(struct rawhttp *c, struct reply *r, int64_t deadline)
{
    for (;;) {
        size_t size;
        if (take_chunk_size(c, &size, deadline) != 0)
            return -1;
        if (size > 0 && take_body(c, size, r, deadline) != 0)
            return -1;
        if (take_crlf(c, deadline) != 0)
            return -1;
        if (size == 0)
            return 0;
    }
}

static int read_to_end(struct rawhttp *c, struct reply *r, int64_t deadline)
{
    int n;
    while ((n = fill(c, deadline)) > 0)
        ;
    return n < 0 ? -1 : take_body(c, c->len, r, deadline);
}

static int read_body(struct rawhttp *c, const char *method, struct reply *r, int64_t deadline)
{
    r->body = mem_strdup("");
    if (strcmp(method, "HEAD") == 0 || r->status == 204 || r->status == 304)
        return 0;
    const char *length = reply_header(r, "Content-Length");
    if (r->chunked)
        return read_chunks(c, r, deadline);
    if (length)
        return take_body(c, strtoull(length, NULL, 10), r, deadline);
    return read_to_end(c, r, deadline);
}

int rawhttp_try_read(struct rawhttp *c, const char *method, struct reply *out)
{
    int64_t deadline = clock_mono_ms() + c->timeout_ms;
    struct reply r;
    if (read_head(c, &r, deadline) != 0)
        return -1;
    if (read_body(c, method, &r, deadline) != 0) {
        reply_done(&r);
        return -1;
    }
    *out = r;
    return 0;
}

void rawhttp_read(struct rawhttp *c, const char *method, struct reply *out)
{
    if (rawhttp_try_read(c, method, out) != 0)
        fail_msg("no complete answer; %zu bytes came: %.*s", c->len, (int)(c->len < 400 ? c->len : 400),
                 c->len ? c->in : "");
}

static int send_request(struct rawhttp *c, const char *method, const char *path, const char *headers,
                        const void *body, size_t len)
{
    char *length = body ? mem_printf("Content-Length: %zu\r\n", len) : mem_strdup("");
    char *head = mem_printf("%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\n%s%s\r\n", method, path,
                            headers ? headers : "", length);
    size_t head_len = strlen(head);
    char *all = mem_grow(head, head_len + len + 1, 1);
    if (body)
        memcpy(all + head_len, body, len);
    int r = send_all(c, all, head_len + (body ? len : 0));
    free(all);
    free(length);
    return r;
}

int rawhttp_try_request(struct rawhttp *c, const char *method, const char *path, const char *headers,
                        const void *body, size_t len, struct reply *out)
{
    bool stale = wait_for(c->fd, POLLIN, 0) && fill(c, 0) <= 0; /* closed by the server meanwhile */
    if (stale && reconnect(c) != 0)
        return -1;
    int sent = send_request(c, method, path, headers, body, len);
    int got = rawhttp_try_read(c, method, out); /* also after a failed send: an early answer may be there */
    return sent != 0 && got != 0 ? -1 : got;
}

void rawhttp_request(struct rawhttp *c, const char *method, const char *path, const char *headers,
                     const void *body, size_t len, struct reply *out)
{
    if (rawhttp_try_request(c, method, path, headers, body, len, out) != 0)
        fail_msg("%s %s: no complete answer; %zu bytes came: %.*s", method, path, c->len,
                 (int)(c->len < 400 ? c->len : 400), c->len ? c->in : "");
}

void rawhttp_once(uint16_t port, const char *method, const char *path, const char *headers, const char *body,
                  struct reply *out)
{
    struct rawhttp *c = rawhttp_open(port);
    rawhttp_request(c, method, path, headers, body, body ? strlen(body) : 0, out);
    rawhttp_close(c);
}

/* --- streams --- */

void rawhttp_read_head(struct rawhttp *c, struct reply *out)
{
    if (read_head(c, out, clock_mono_ms() + c->timeout_ms) != 0)
        fail_msg("no head of an answer; %zu bytes came", c->len);
    const char *length = reply_header(out, "Content-Length");
    out->body = mem_strdup("");
    c->chunked = out->chunked;
    c->length_known = length != NULL;
    c->left = length ? strtoull(length, NULL, 10) : 0;
    c->ended = c->length_known && c->left == 0;
    c->line_len = 0;
}

/* Starts the next chunk when the last one is used up. */
static int next_chunk(struct rawhttp *c, int64_t deadline)
{
    if (!c->chunked || c->left > 0)
        return 0;
    size_t size;
    if (take_chunk_size(c, &size, deadline) != 0)
        return -1;
    c->left = size;
    if (size == 0) {
        c->ended = true;
        return take_crlf(c, deadline);
    }
    return 0;
}

/* One byte of the decoded stream: 1, 0 at the end, -1 when late or broken. */
static int next_byte(struct rawhttp *c, char *out, int64_t deadline)
{
    if (c->ended)
        return 0;
    if (next_chunk(c, deadline) != 0)
        return -1;
    if (c->ended)
        return 0;
    if (c->len == 0) {
        int n = fill(c, deadline);
        if (n <= 0) {
            c->ended = n == 0;
            return n;
        }
    }
    *out = c->in[0];
    consume(c, 1);
    if (c->left > 0 && --c->left == 0) {
        if (c->chunked)
            return take_crlf(c, deadline) == 0 ? 1 : -1;
        c->ended = true;
    }
    return 1;
}

const char *rawhttp_read_line(struct rawhttp *c, int64_t timeout_ms, bool *timed_out)
{
    int64_t deadline = clock_mono_ms() + timeout_ms;
    size_t n = 0;
    if (timed_out)
        *timed_out = false;
    for (;;) {
        char b;
        int got = next_byte(c, &b, deadline);
        if (got < 0 && timed_out)
            *timed_out = true;
        if (got <= 0)
            return NULL;
        if (n + 2 > c->line_cap) {
            c->line_cap = 2 * (n + 2);
            c->line = mem_grow(c->line, c->line_cap, 1);
        }
        if (b == '\n')
            break;
        c->line[n++] = b;
    }
    if (n > 0 && c->line[n - 1] == '\r')
        n--;
    c->line[n] = '\0';
    return c->line;
}

bool rawhttp_at_eof(struct rawhttp *c)
{
    return c->len == 0 && fill(c, clock_mono_ms() + c->timeout_ms) == 0;
}

/* --- replies --- */

void reply_done(struct reply *r)
{
    free(r->body);
    free(r->head);
    r->body = r->head = NULL;
    r->n_headers = r->len = 0;
}

const char *reply_header(const struct reply *r, const char *name)
{
    for (size_t i = 0; i < r->n_headers; i++) {
        if (strcasecmp(r->headers[i].name, name) == 0)
            return r->headers[i].value;
    }
    return NULL;
}

json_t *reply_json(const struct reply *r)
{
    json_error_t e;
    json_t *j = json_loadb(r->body, r->len, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &e);
    if (j == NULL)
        fail_msg("the body is not JSON (%s): %.400s", e.text, r->body);
    return j;
}
