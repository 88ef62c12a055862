/* The client against our server, and against a scripted one that misbehaves. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <event2/event.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "common/clock.h"
#include "common/http_client.h"
#include "common/mem.h"
#include "tests/support/http_fixture.h"

static struct event_base *base;

struct outcome {
    int calls;
    int status;
    enum err_code code;
    char body[2000];
    size_t len;
    char header[100];
};

static void on_answer(const struct http_response *r, const struct err *e, void *arg)
{
    struct outcome *o = arg;
    o->calls++;
    if (r == NULL) {
        o->code = e->code;
        return;
    }
    const char *h = http_response_header(r, "x-echo");
    o->status = r->status;
    o->len = r->len;
    snprintf(o->body, sizeof o->body, "%s", r->body);
    snprintf(o->header, sizeof o->header, "%s", h ? h : "(none)");
}

static struct http_client *client_for(uint16_t port, struct http_client_options o)
{
    struct err e;
    o.host = "127.0.0.1";
    o.port = port;
    struct http_client *c = http_client_new(base, &o, &e);
    assert_non_null(c);
    return c;
}

static void send_call(struct http_client *c, const char *method, const char *path, const char *body,
                      int64_t ms, struct outcome *o)
{
    struct err e;
    memset(o, 0, sizeof *o);
    assert_int_equal(http_client_request(c, method, path, "X-Probe: 1\r\n", body, body ? strlen(body) : 0, ms,
                                         on_answer, o, &e),
                     0);
    assert_int_equal(o->calls, 0);
}

static void run_until_called(const struct outcome *o)
{
    int64_t deadline = clock_mono_ms() + 20000;
    while (o->calls == 0 && clock_mono_ms() < deadline)
        event_base_loop(base, EVLOOP_ONCE);
    assert_int_equal(o->calls, 1);
}

static void call(struct http_client *c, const char *method, const char *path, const char *body,
                 struct outcome *o)
{
    send_call(c, method, path, body, 10000, o);
    run_until_called(o);
}

/* --- a good server --- */

static struct http_request *kept;
static int n_kept;

static void handle(struct http_request *r, void *arg)
{
    (void)arg;
    if (strcmp(r->path, "/keep") == 0) {
        kept = r;
        __atomic_add_fetch(&n_kept, 1, __ATOMIC_RELEASE);
        return;
    }
    if (strcmp(r->path, "/stream") == 0) {
        http_stream_start(r, 200, "text/plain");
        if (http_stream_add(r, "abc", 3) == 0 && http_stream_add(r, "def", 3) == 0)
            http_stream_end(r);
        return;
    }
    if (strcmp(r->path, "/close") == 0)
        http_reply_close(r);
    if (strcmp(r->path, "/big") == 0) {
        http_reply_take(r, 200, "text/plain", mem_zero(1, 100000), 100000);
        return;
    }
    http_header_add(r, "X-Echo", http_request_header(r, "X-Probe"));
    http_reply(r, r->method == HTTP_POST ? 201 : 200, "text/plain", r->body, r->body_len);
}

static struct http_fixture *good;

static int start(void **state)
{
    (void)state;
    base = event_base_new();
    good = http_fixture_start(&(struct http_server_options){.handle = handle});
    return 0;
}

static int stop(void **state)
{
    (void)state;
    http_fixture_stop(good);
    event_base_free(base);
    return 0;
}

static void answer_kept(struct http_fixture *f, void *arg)
{
    (void)f;
    (void)arg;
    http_reply(kept, 200, "text/plain", "late", 4);
}

static void count_connections(struct http_fixture *f, void *arg)
{
    *(size_t *)arg = http_server_connections(f->server);
}

static void answers_come_back_over_one_kept_connection(void **state)
{
    struct http_client *c = client_for(good->port, (struct http_client_options){0});
    struct outcome o;
    size_t connections;
    (void)state;
    for (int i = 0; i < 50; i++) {
        call(c, "POST", "/x?y=1", "hello", &o);
        assert_int_equal(o.status, 201);
        assert_string_equal(o.body, "hello");
        assert_string_equal(o.header, "1");
        call(c, "GET", "/x", NULL, &o);
        assert_int_equal(o.status, 200);
        assert_int_equal(o.len, 0);
        call(c, "HEAD", "/big", NULL, &o);
        assert_int_equal(o.status, 200);
        assert_int_equal(o.len, 0);
        call(c, "GET", "/stream", NULL, &o);
        assert_string_equal(o.body, "abcdef");
    }
    http_fixture_run(good, count_connections, &connections);
    assert_int_equal(connections, 1);
    http_client_free(c);
}

static void many_calls_at_once_are_all_answered(void **state)
{
    struct http_client *c = client_for(good->port, (struct http_client_options){.max_connections = 3});
    static struct outcome o[100];
    char body[20];
    size_t connections;
    (void)state;
    for (int i = 0; i < 100; i++) {
        sprintf(body, "%d", i);
        send_call(c, "POST", "/x", body, 10000, &o[i]);
    }
    assert_int_equal(http_client_in_flight(c), 100);
    for (int i = 0; i < 100; i++) {
        run_until_called(&o[i]);
        sprintf(body, "%d", i);
        assert_string_equal(o[i].body, body);
    }
    assert_int_equal(http_client_in_flight(c), 0);
    http_fixture_run(good, count_connections, &connections);
    assert_in_range(connections, 1, 3);
    http_client_free(c);
}

static void a_closing_answer_is_followed_by_a_new_connection(void **state)
{
    struct http_client *c = client_for(good->port, (struct http_client_options){0});
    struct outcome o;
    (void)state;
    for (int i = 0; i < 3; i++) {
        call(c, "POST", "/close", "x", &o);
        assert_int_equal(o.status, 201);
    }
    http_client_free(c);
}

static void the_deadline_ends_a_call_and_its_connection(void **state)
{
    struct http_client *c = client_for(good->port, (struct http_client_options){.max_connections = 1});
    struct outcome slow, waiting, o;
    (void)state;
    n_kept = 0;
    send_call(c, "GET", "/keep", NULL, 60, &slow);
    send_call(c, "GET", "/x", NULL, 30, &waiting); /* no connection is free for it */
    run_until_called(&waiting);
    assert_int_equal(waiting.code, ERR_TIMEOUT);
    run_until_called(&slow);
    assert_int_equal(slow.code, ERR_TIMEOUT);
    wait_until_at_least(&n_kept, 1);
    call(c, "GET", "/x", NULL, &o);
    assert_int_equal(o.status, 200);
    http_fixture_run(good, answer_kept, NULL);
    http_client_free(c);
}

static void more_than_the_cap_in_flight_is_busy(void **state)
{
    struct http_client *c = client_for(good->port, (struct http_client_options){.max_in_flight = 2});
    struct outcome a, b, third;
    struct err e;
    (void)state;
    send_call(c, "GET", "/x", NULL, 10000, &a);
    send_call(c, "GET", "/x", NULL, 10000, &b);
    third.calls = 0;
    assert_int_equal(http_client_request(c, "GET", "/x", NULL, NULL, 0, 1000, on_answer, &third, &e), -1);
    assert_int_equal(e.code, ERR_BUSY);
    run_until_called(&a);
    run_until_called(&b);
    assert_int_equal(third.calls, 0);
    http_client_free(c);
}

static void an_answer_over_its_cap_is_refused(void **state)
{
    struct http_client *c = client_for(good->port, (struct http_client_options){.max_response = 5});
    struct outcome o;
    (void)state;
    call(c, "GET", "/big", NULL, &o);
    assert_int_equal(o.code, ERR_TOO_LARGE);
    call(c, "GET", "/stream", NULL, &o); /* chunked: six bytes */
    assert_int_equal(o.code, ERR_TOO_LARGE);
    call(c, "POST", "/x", "12345", &o);
    assert_string_equal(o.body, "12345");
    http_client_free(c);
}

static void freeing_the_client_drops_what_is_in_flight(void **state)
{
    struct http_client *c = client_for(good->port, (struct http_client_options){.max_connections = 1});
    struct outcome a, b;
    (void)state;
    n_kept = 0;
    send_call(c, "GET", "/keep", NULL, 10000, &a);
    send_call(c, "GET", "/x", NULL, 10000, &b);
    while (__atomic_load_n(&n_kept, __ATOMIC_ACQUIRE) == 0)
        event_base_loop(base, EVLOOP_NONBLOCK);
    http_client_free(c);
    http_client_free(NULL);
    assert_int_equal(a.calls + b.calls, 0);
    http_fixture_run(good, answer_kept, NULL);
}

/* --- a scripted server: each connection gets the next text after its request, then is closed --- */

struct script {
    const char *const *texts;
    int n, fd, accepted;
    uint16_t port;
    pthread_t thread;
};

static void *play(void *arg)
{
    struct script *s = arg;
    for (int i = 0; i < s->n; i++) {
        char in[4096];
        int fd = accept(s->fd, NULL, NULL);
        __atomic_add_fetch(&s->accepted, 1, __ATOMIC_RELEASE);
        if (recv(fd, in, sizeof in, 0) > 0 && s->texts[i])
            (void)!send(fd, s->texts[i], strlen(s->texts[i]), MSG_NOSIGNAL);
        close(fd);
    }
    return NULL;
}

static void script_start(struct script *s, const char *const *texts, int n)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    *s = (struct script){.texts = texts, .n = n, .fd = socket(AF_INET, SOCK_STREAM, 0)};
    assert_int_equal(bind(s->fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(s->fd, 16), 0);
    getsockname(s->fd, (struct sockaddr *)&a, &len);
    s->port = ntohs(a.sin_port);
    pthread_create(&s->thread, NULL, play, s);
}

static void script_stop(struct script *s)
{
    pthread_join(s->thread, NULL);
    close(s->fd);
}

static void what_is_not_an_answer_is_told_apart(void **state)
{
    static const struct {
        const char *text;
        enum err_code code;
        int status;
        const char *body;
    } rows[] = {
        {NULL, ERR_UNAVAILABLE, 0, ""},
        {"HTTP/1.1 200 OK\r\nContent-Le", ERR_UNAVAILABLE, 0, ""},
        {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", ERR_UNAVAILABLE, 0, ""},
        {"SSH-2.0-OpenSSH\r\n", ERR_CORRUPT, 0, ""},
        {"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", ERR_CORRUPT, 0, ""},
        {"HTTP/1.1 200 OK\r\n\r\nuntil the end", ERR_NONE, 200, "until the end"},
        {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 No\r\nX-Echo: a\r\nContent-Length: 2\r\n\r\nno", ERR_NONE,
         503, "no"},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX-Echo: t\r\n\r\n", ERR_NONE,
         200, "ab"},
        {"HTTP/1.1 204 No Content\r\n\r\n", ERR_NONE, 204, ""},
        {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabEXTRA", ERR_NONE, 200, "ab"},
    };
    const char *texts[MEM_COUNT(rows)];
    struct script s;
    (void)state;
    for (size_t i = 0; i < MEM_COUNT(rows); i++)
        texts[i] = rows[i].text;
    script_start(&s, texts, MEM_COUNT(rows));
    for (size_t i = 0; i < MEM_COUNT(rows); i++) {
        struct http_client *c = client_for(s.port, (struct http_client_options){0});
        struct outcome o;
        call(c, "POST", "/", "x", &o);
        if (o.code != rows[i].code || o.status != rows[i].status || strcmp(o.body, rows[i].body) != 0)
            fail_msg("row %zu: %s, %d %s", i, err_code_name(o.code), o.status, o.body);
        http_client_free(c);
    }
    script_stop(&s);
}

static void a_get_on_a_connection_that_was_just_closed_is_repeated_once(void **state)
{
    static const char ok[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    const char *texts[] = {ok, ok};
    struct script s;
    struct outcome o;
    (void)state;
    script_start(&s, texts, 2);
    struct http_client *c = client_for(s.port, (struct http_client_options){0});
    call(c, "GET", "/", NULL, &o);
    assert_string_equal(o.body, "ok");
    /* The server has closed it by now or will; the client may not have seen it yet. */
    call(c, "GET", "/", NULL, &o);
    assert_string_equal(o.body, "ok");
    script_stop(&s);
    assert_int_equal(s.accepted, 2);
    http_client_free(c);
}

static void nobody_listening_is_unavailable(void **state)
{
    struct script s;
    struct outcome o;
    (void)state;
    script_start(&s, NULL, 0);
    script_stop(&s);
    struct http_client *c = client_for(s.port, (struct http_client_options){0});
    call(c, "GET", "/", NULL, &o);
    assert_int_equal(o.code, ERR_UNAVAILABLE);
    http_client_free(c);
}

static void a_host_name_is_refused(void **state)
{
    struct err e;
    (void)state;
    assert_null(http_client_new(base, &(struct http_client_options){.host = "localhost", .port = 1}, &e));
    assert_int_equal(e.code, ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_come_back_over_one_kept_connection),
        cmocka_unit_test(many_calls_at_once_are_all_answered),
        cmocka_unit_test(a_closing_answer_is_followed_by_a_new_connection),
        cmocka_unit_test(the_deadline_ends_a_call_and_its_connection),
        cmocka_unit_test(more_than_the_cap_in_flight_is_busy),
        cmocka_unit_test(an_answer_over_its_cap_is_refused),
        cmocka_unit_test(freeing_the_client_drops_what_is_in_flight),
        cmocka_unit_test(what_is_not_an_answer_is_told_apart),
        cmocka_unit_test(a_get_on_a_connection_that_was_just_closed_is_repeated_once),
        cmocka_unit_test(nobody_listening_is_unavailable),
        cmocka_unit_test(a_host_name_is_refused),
    };
    return cmocka_run_group_tests_name("http_client", tests, start, stop);
}
