#include "common/http_head.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include "common/mem.h"
#include "common/query.h"

#define METHOD_MAX    32
#define VERSION_LEN   8 /* "HTTP/1.1" */
#define REQUEST_LINE  (METHOD_MAX + 1 + HTTP_MAX_TARGET + 1 + VERSION_LEN)
#define KEEP_CAPACITY 8192
#define FIRST_CAP     1024

/* RFC 9110, section 5.6.2: the characters of a method and of a field's name. */
static const bool token[256] = {
    ['!'] = 1, ['#'] = 1, ['$'] = 1, ['%'] = 1, ['&'] = 1, ['\''] = 1, ['*'] = 1, ['+'] = 1, ['-'] = 1,
    ['.'] = 1, ['^'] = 1, ['_'] = 1, ['`'] = 1, ['|'] = 1, ['~'] = 1,  ['0'] = 1, ['1'] = 1, ['2'] = 1,
    ['3'] = 1, ['4'] = 1, ['5'] = 1, ['6'] = 1, ['7'] = 1, ['8'] = 1,  ['9'] = 1, ['A'] = 1, ['B'] = 1,
    ['C'] = 1, ['D'] = 1, ['E'] = 1, ['F'] = 1, ['G'] = 1, ['H'] = 1,  ['I'] = 1, ['J'] = 1, ['K'] = 1,
    ['L'] = 1, ['M'] = 1, ['N'] = 1, ['O'] = 1, ['P'] = 1, ['Q'] = 1,  ['R'] = 1, ['S'] = 1, ['T'] = 1,
    ['U'] = 1, ['V'] = 1, ['W'] = 1, ['X'] = 1, ['Y'] = 1, ['Z'] = 1,  ['a'] = 1, ['b'] = 1, ['c'] = 1,
    ['d'] = 1, ['e'] = 1, ['f'] = 1, ['g'] = 1, ['h'] = 1, ['i'] = 1,  ['j'] = 1, ['k'] = 1, ['l'] = 1,
    ['m'] = 1, ['n'] = 1, ['o'] = 1, ['p'] = 1, ['q'] = 1, ['r'] = 1,  ['s'] = 1, ['t'] = 1, ['u'] = 1,
    ['v'] = 1, ['w'] = 1, ['x'] = 1, ['y'] = 1, ['z'] = 1,
};

bool http_is_token_char(unsigned char c)
{
    return token[c];
}

static enum http_head_result bad(struct http_head *h, enum problem_code c, const char *why)
{
    h->problem = c;
    h->why = why;
    return HTTP_HEAD_BAD;
}

static enum http_head_result bad_request(struct http_head *h, const char *why)
{
    return bad(h, PROBLEM_INVALID_REQUEST, why);
}

void http_head_init(struct http_head *h)
{
    memset(h, 0, sizeof *h);
}

void http_head_reset(struct http_head *h)
{
    if (h->cap > KEEP_CAPACITY) {
        free(h->buf);
        h->buf = NULL;
        h->cap = 0;
    }
    h->len = h->line = h->fields_start = 0;
    h->skipped_empty = h->http10 = h->keep_alive = h->chunked = h->expect_continue = false;
    h->n_fields = h->n_segments = 0;
    h->content_length = 0;
}

void http_head_done(struct http_head *h)
{
    free(h->buf);
    http_head_init(h);
}

static void reserve(struct http_head *h, size_t more)
{
    if (h->cap - h->len >= more)
        return;
    size_t cap = h->cap ? h->cap : FIRST_CAP;
    while (cap - h->len < more)
        cap *= 2;
    h->buf = mem_grow(h->buf, cap, 1);
    h->cap = cap;
}

/* The request line: METHOD SP target SP HTTP/1.x, nothing else; http-parser would take more. */
static enum http_head_result check_request_line(struct http_head *h, const char *l, size_t n)
{
    size_t m = 0;
    while (m < n && m < METHOD_MAX && token[(unsigned char)l[m]])
        m++;
    if (m == 0 || m == n || l[m] != ' ')
        return bad_request(h, "the request line does not start with a method and a space");
    const char *target = l + m + 1;
    const char *sp = memchr(target, ' ', n - m - 1);
    if (sp == NULL || sp == target)
        return bad_request(h, "the request line needs a method, a target and a version");
    size_t target_len = (size_t)(sp - target);
    if (target_len > HTTP_MAX_TARGET)
        return bad(h, PROBLEM_URI_TOO_LONG, "the target is longer than 8192 bytes");
    for (size_t i = 0; i < target_len; i++) {
        unsigned char c = (unsigned char)target[i];
        if (c <= ' ' || c >= 0x7f || c == '#')
            return bad_request(h, "the target holds a character that must be percent-encoded");
    }
    const char *v = sp + 1;
    if ((size_t)(l + n - v) != VERSION_LEN || memcmp(v, "HTTP/", 5) != 0 || v[5] < '0' || v[5] > '9' ||
        v[6] != '.' || v[7] < '0' || v[7] > '9')
        return bad_request(h, "the request line does not end in an HTTP version");
    if (v[5] != '1' || v[7] > '1')
        return bad(h, PROBLEM_VERSION_NOT_SUPPORTED, "this server speaks HTTP/1.1 and HTTP/1.0");
    h->http10 = v[7] == '0';
    h->target = (size_t)(target - h->buf);
    h->target_len = target_len;
    return HTTP_HEAD_MORE;
}

static enum http_head_result check_field_line(struct http_head *h, const char *l, size_t n)
{
    if (l[0] == ' ' || l[0] == '\t')
        return bad_request(h, "folded header lines are not accepted");
    size_t i = 0;
    while (i < n && token[(unsigned char)l[i]])
        i++;
    if (i == 0)
        return bad_request(h, "a header line has no name");
    if (i == n || l[i] != ':')
        return bad_request(h, "a header's name holds a character that it must not, or misses its colon");
    return HTTP_HEAD_MORE;
}

/* One complete line without its CR LF. MORE: go on. DONE: this was the empty line at the end. */
static enum http_head_result check_line(struct http_head *h, const char *l, size_t n)
{
    if (memchr(l, '\r', n) != NULL || memchr(l, '\0', n) != NULL)
        return bad_request(h, "the head holds a bare CR or a NUL byte");
    if (h->fields_start == 0) {
        if (n == 0 && !h->skipped_empty) { /* RFC 9112, 2.2: one empty line before a request is forgiven */
            h->skipped_empty = true;
            h->len = h->line = 0;
            return HTTP_HEAD_MORE;
        }
        enum http_head_result r = check_request_line(h, l, n);
        h->fields_start = h->line = h->len;
        return r;
    }
    if (n == 0)
        return HTTP_HEAD_DONE;
    if (h->len - h->fields_start > HTTP_MAX_HEADER_BYTES || ++h->n_fields > HTTP_MAX_HEADER_LINES)
        return bad(h, PROBLEM_HEADERS_TOO_LARGE, "the header section is over 16384 bytes or 100 lines");
    h->line = h->len;
    return check_field_line(h, l, n);
}

/* A line, whether it has ended or not, must not grow beyond what a good one could have. */
static enum http_head_result check_size(struct http_head *h)
{
    if (h->fields_start == 0 && h->len > REQUEST_LINE + 2)
        return bad(h, PROBLEM_URI_TOO_LONG, "the target is longer than 8192 bytes");
    if (h->fields_start != 0 && h->len - h->fields_start > HTTP_MAX_HEADER_BYTES + 2)
        return bad(h, PROBLEM_HEADERS_TOO_LARGE, "the header section is over 16384 bytes or 100 lines");
    return HTTP_HEAD_MORE;
}

/* --- http-parser --- */

struct collector {
    struct http_head *h;
    bool complete;
};

static int on_field(http_parser *p, const char *at, size_t n)
{
    struct http_head *h = ((struct collector *)p->data)->h;
    if (h->n_fields == HTTP_MAX_HEADER_LINES)
        return -1;
    h->fields[h->n_fields].name = (uint16_t)(at - h->buf);
    h->fields[h->n_fields].name_len = (uint16_t)n;
    return 0;
}

static int on_value(http_parser *p, const char *at, size_t n)
{
    struct http_head *h = ((struct collector *)p->data)->h;
    if (n == 0) /* http-parser points an empty value at the next line: take the end of the name instead */
        at = h->buf + h->fields[h->n_fields].name + h->fields[h->n_fields].name_len;
    while (n > 0 && (at[n - 1] == ' ' || at[n - 1] == '\t'))
        n--;
    h->fields[h->n_fields].value = (uint16_t)(at - h->buf);
    h->fields[h->n_fields].value_len = (uint16_t)n;
    h->n_fields++;
    return 0;
}

static int on_complete(http_parser *p)
{
    struct collector *c = p->data;
    c->complete = true;
    c->h->method = (int)p->method;
    c->h->keep_alive = http_should_keep_alive(p) != 0;
    return 0;
}

static const http_parser_settings settings = {
    .on_header_field = on_field,
    .on_header_value = on_value,
    .on_headers_complete = on_complete,
};

static enum http_head_result run_parser(struct http_head *h)
{
    h->n_fields = 0;
    struct collector c = {.h = h};
    http_parser p;
    http_parser_init(&p, HTTP_REQUEST);
    p.data = &c;
    http_parser_execute(&p, &settings, h->buf, h->len);
    if (HTTP_PARSER_ERRNO(&p) == HPE_INVALID_METHOD)
        return bad(h, PROBLEM_NOT_IMPLEMENTED, "this method is not known here");
    if (HTTP_PARSER_ERRNO(&p) != HPE_OK)
        return bad_request(h, http_errno_description(HTTP_PARSER_ERRNO(&p)));
    if (!c.complete)
        return bad_request(h, "the head is not complete");
    return h->method == HTTP_CONNECT ? bad(h, PROBLEM_NOT_IMPLEMENTED, "CONNECT is not offered here")
                                     : HTTP_HEAD_DONE;
}

/* --- what decides framing --- */

static bool is_field(const struct http_head *h, const struct http_field *f, const char *name, size_t n)
{
    return f->name_len == n && strncasecmp(h->buf + f->name, name, n) == 0;
}

static int parse_length(const char *s, size_t n, uint64_t *out)
{
    uint64_t v = 0;
    if (n == 0 || n > 18)
        return -1;
    for (size_t i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9')
            return -1;
        v = v * 10 + (uint64_t)(s[i] - '0');
    }
    *out = v;
    return 0;
}

static bool host_is_plain(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c <= ' ' || c >= 0x7f || c == ',' || c == '/' || c == '@' || c == '?' || c == '#' || c == '\\')
            return false;
    }
    return true;
}

static enum http_head_result check_framing(struct http_head *h)
{
    unsigned hosts = 0, lengths = 0, codings = 0;
    h->content_length = 0;
    h->chunked = h->expect_continue = false;
    for (size_t i = 0; i < h->n_fields; i++) {
        const struct http_field *f = &h->fields[i];
        const char *v = h->buf + f->value;
        if (is_field(h, f, "host", 4)) {
            hosts++;
            if (!host_is_plain(v, f->value_len))
                return bad_request(h, "Host is malformed");
        } else if (is_field(h, f, "expect", 6)) {
            if (f->value_len != 12 || strncasecmp(v, "100-continue", 12) != 0)
                return bad(h, PROBLEM_EXPECTATION_FAILED, "only 100-continue can be expected");
            h->expect_continue = !h->http10;
        } else if (is_field(h, f, "content-length", 14)) {
            lengths++;
            if (parse_length(v, f->value_len, &h->content_length) != 0)
                return bad_request(h, "Content-Length is not a number");
        } else if (is_field(h, f, "transfer-encoding", 17)) {
            codings++;
            if (f->value_len != 7 || strncasecmp(v, "chunked", 7) != 0)
                return bad_request(h, "the only transfer coding taken is chunked");
            h->chunked = true;
        }
    }
    if (hosts > 1 || (hosts == 0 && !h->http10))
        return bad_request(h, "exactly one Host is needed");
    if (lengths > 1 || codings > 1 || (lengths && codings) || (codings && h->http10))
        return bad_request(h, "the length of the body is ambiguous");
    return HTTP_HEAD_DONE;
}

/* --- target --- */

/* The path part of the target: absolute-form ("http://host/path", RFC 9112, 3.2.2) is cut down to it. */
static const char *find_path(const char *t, size_t n, size_t *len)
{
    size_t skip = 0;
    if (n >= 7 && strncasecmp(t, "http://", 7) == 0)
        skip = 7;
    else if (n >= 8 && strncasecmp(t, "https://", 8) == 0)
        skip = 8;
    if (skip) {
        while (skip < n && t[skip] != '/' && t[skip] != '?')
            skip++;
        if (skip == n || t[skip] == '?') {
            *len = 0;
            return t + skip;
        }
    }
    const char *q = memchr(t + skip, '?', n - skip);
    *len = (q ? (size_t)(q - t) : n) - skip;
    return t + skip;
}

static int split_segments(struct http_head *h, char *s, size_t n)
{
    h->n_segments = 0;
    if (n <= 1) /* "/" */
        return 0;
    char *end = s + n;
    for (s++;;) {
        char *slash = memchr(s, '/', (size_t)(end - s));
        char *stop = slash ? slash : end;
        size_t len;
        if (percent_decode(s, (size_t)(stop - s), false, s, &len, NULL) != 0)
            return -1;
        if (h->n_segments < HTTP_MAX_SEGMENTS)
            h->segments[h->n_segments] = s;
        h->n_segments++;
        if (slash == NULL)
            break;
        s = slash + 1;
    }
    if (h->n_segments > HTTP_MAX_SEGMENTS)
        h->n_segments = HTTP_MAX_SEGMENTS + 1;
    return 0;
}

static enum http_head_result split_target(struct http_head *h)
{
    size_t n;
    reserve(h, 2 * (h->target_len + 2));
    const char *t = h->buf + h->target;
    bool star = h->target_len == 1 && t[0] == '*' && h->method == HTTP_OPTIONS;
    const char *p = find_path(t, h->target_len, &n);
    if (!star && n > 0 && p[0] != '/')
        return bad_request(h, "the target is not a path");
    h->query = p[n] == '?' ? p + n + 1 : "";
    /* Two copies behind the head: the path as it came, and one that the segments are decoded in. */
    h->path = h->buf + h->len;
    char *work = h->path + n + 2;
    memcpy(h->path, n ? p : "/", n ? n : 1);
    n = n ? n : 1;
    h->path[n] = '\0';
    memcpy(work, h->path, n + 1);
    if (!star && split_segments(h, work, n) != 0)
        return bad_request(h, "the path holds a bad percent escape");
    return HTTP_HEAD_DONE;
}

static enum http_head_result finish(struct http_head *h)
{
    enum http_head_result r = run_parser(h);
    if (r == HTTP_HEAD_DONE)
        r = check_framing(h);
    if (r != HTTP_HEAD_DONE)
        return r;
    for (size_t i = 0; i < h->n_fields; i++) {
        h->buf[h->fields[i].name + h->fields[i].name_len] = '\0';
        h->buf[h->fields[i].value + h->fields[i].value_len] = '\0';
    }
    h->buf[h->target + h->target_len] = '\0';
    return split_target(h);
}

enum http_head_result http_head_feed(struct http_head *h, const char *p, size_t n, size_t *used)
{
    const char *start = p, *end = p + n;
    enum http_head_result r = HTTP_HEAD_MORE;
    while (p < end && r == HTTP_HEAD_MORE) {
        const char *lf = memchr(p, '\n', (size_t)(end - p));
        size_t take = lf ? (size_t)(lf + 1 - p) : (size_t)(end - p);
        /* More than the limits is never copied: what is over is enough to be refused. */
        if (take > REQUEST_LINE + HTTP_MAX_HEADER_BYTES) {
            take = REQUEST_LINE + HTTP_MAX_HEADER_BYTES;
            lf = NULL;
        }
        reserve(h, take);
        memcpy(h->buf + h->len, p, take);
        h->len += take;
        p += take;
        /* Before what is wrong in the line: else it would matter how much of it has come. */
        r = check_size(h);
        if (lf == NULL || r != HTTP_HEAD_MORE)
            continue;
        const char *l = h->buf + h->line;
        size_t line_len = h->len - h->line;
        if (line_len < 2 || l[line_len - 2] != '\r')
            r = bad_request(h, "a line does not end in CR LF");
        else
            r = check_line(h, l, line_len - 2);
    }
    *used = (size_t)(p - start);
    return r == HTTP_HEAD_DONE ? finish(h) : r;
}

int http_head_find(const struct http_head *h, const char *name, size_t from)
{
    size_t n = strlen(name);
    for (size_t i = from; i < h->n_fields; i++) {
        if (is_field(h, &h->fields[i], name, n))
            return (int)i;
    }
    return -1;
}
