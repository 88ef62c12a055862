#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "common/mem.h"
#include "feed-api/cors.h"
#include "tests/support/http_fixture.h"
#include "tests/support/rawhttp.h"

static struct cors cors;

static void handle(struct http_request *q, void *arg)
{
    (void)arg;
    if (!cors_apply(&cors, q))
        http_reply(q, q->method == HTTP_OPTIONS ? 405 : 200, "text/plain", "ok", 2);
}

static void ask(const char *origins, const char *method, const char *headers, struct reply *out)
{
    struct err e;
    assert_int_equal(cors_parse(&cors, origins, &e), 0);
    struct http_fixture *f = http_fixture_start(&(struct http_server_options){.handle = handle});
    rawhttp_once(f->port, method, "/x", headers, NULL, out);
    http_fixture_stop(f);
    cors_done(&cors);
}

static void origins_are_read_as_browsers_write_them(void **state)
{
    static const char *const bad[] = {"app.example.com",
                                      "https://app.example.com/",
                                      "https://App.example.com",
                                      "https://",
                                      "https://:443",
                                      "null",
                                      "https://a.example,*",
                                      "https://a.example,,https://b.example",
                                      "ftp://a.example",
                                      "https://a b.example"};
    struct cors c = {.n = 7};
    struct err e;
    (void)state;
    for (size_t i = 0; i < MEM_COUNT(bad); i++) {
        if (cors_parse(&c, bad[i], &e) == 0)
            fail_msg("%s was taken", bad[i]);
        assert_int_equal(c.n, 7);
    }
    assert_int_equal(
        cors_parse(&c, " https://app.example.com , http://localhost:3000,https://[::1]:8443", &e), 0);
    assert_true(cors_allows(&c, "https://app.example.com"));
    assert_true(cors_allows(&c, "http://localhost:3000"));
    assert_true(cors_allows(&c, "https://[::1]:8443"));
    assert_false(cors_allows(&c, "http://app.example.com"));
    assert_false(cors_allows(&c, "https://app.example.com.evil.example"));
    assert_false(cors_allows(&c, "null"));
    cors_done(&c);
    assert_int_equal(cors_parse(&c, "*", &e), 0);
    assert_true(cors_allows(&c, "https://any.example"));
    assert_int_equal(cors_parse(&c, "", &e), 0);
    assert_false(cors_allows(&c, "https://any.example"));
}

static void a_page_of_a_listed_origin_may_read_the_answer(void **state)
{
    struct reply r;
    (void)state;
    ask("https://a.example,https://b.example", "GET", "Origin: https://b.example\r\n", &r);
    assert_int_equal(r.status, 200);
    assert_string_equal(reply_header(&r, "Access-Control-Allow-Origin"), "https://b.example");
    assert_string_equal(reply_header(&r, "Vary"), "Origin");
    assert_non_null(strstr(reply_header(&r, "Access-Control-Expose-Headers"), "Feed-Position"));
    assert_null(reply_header(&r, "Access-Control-Allow-Credentials"));
    reply_done(&r);
    ask("*", "GET", "Origin: https://c.example\r\n", &r);
    assert_string_equal(reply_header(&r, "Access-Control-Allow-Origin"), "*");
    assert_null(reply_header(&r, "Vary"));
    reply_done(&r);
}

static void a_page_of_another_origin_may_not(void **state)
{
    static const char *const origins[] = {"Origin: https://evil.example\r\n", "Origin: null\r\n",
                                          "Origin: https://a.example\r\nOrigin: https://a.example\r\n", ""};
    struct reply r;
    (void)state;
    for (size_t i = 0; i < MEM_COUNT(origins); i++) {
        ask("https://a.example", "GET", origins[i], &r);
        assert_int_equal(r.status, 200);
        assert_null(reply_header(&r, "Access-Control-Allow-Origin"));
        assert_string_equal(reply_header(&r, "Vary"), "Origin");
        reply_done(&r);
    }
    ask("", "GET", "Origin: https://a.example\r\n", &r);
    assert_null(reply_header(&r, "Access-Control-Allow-Origin"));
    assert_null(reply_header(&r, "Vary"));
    reply_done(&r);
}

static void a_preflight_is_answered_only_for_who_may(void **state)
{
    struct reply r;
    (void)state;
    ask("https://a.example", "OPTIONS",
        "Origin: https://a.example\r\nAccess-Control-Request-Method: PUT\r\n"
        "Access-Control-Request-Headers: authorization\r\n",
        &r);
    assert_int_equal(r.status, 204);
    assert_string_equal(reply_header(&r, "Access-Control-Allow-Origin"), "https://a.example");
    assert_non_null(strstr(reply_header(&r, "Access-Control-Allow-Methods"), "PUT"));
    assert_non_null(strstr(reply_header(&r, "Access-Control-Allow-Headers"), "Authorization"));
    assert_non_null(reply_header(&r, "Access-Control-Max-Age"));
    reply_done(&r);
    ask("https://a.example", "OPTIONS", "Origin: https://b.example\r\nAccess-Control-Request-Method: PUT\r\n",
        &r);
    assert_int_equal(r.status, 405);
    assert_null(reply_header(&r, "Access-Control-Allow-Methods"));
    reply_done(&r);
    /* No preflight: it asks for no method. */
    ask("https://a.example", "OPTIONS", "Origin: https://a.example\r\n", &r);
    assert_int_equal(r.status, 405);
    reply_done(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(origins_are_read_as_browsers_write_them),
        cmocka_unit_test(a_page_of_a_listed_origin_may_read_the_answer),
        cmocka_unit_test(a_page_of_another_origin_may_not),
        cmocka_unit_test(a_preflight_is_answered_only_for_who_may),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
