/* The example for production: nginx with TLS in front of two feed-apis, started with
 * tools/nginx/feedmill.conf itself, in which only addresses and paths are changed. Asked by curl. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/mem.h"
#include "tests/support/api.h"
#include "tests/support/e2e.h"
#include "tools/servers.h"

#define EXAMPLE "tools/nginx/feedmill.conf"
#define HOST    "feeds.example.com"

static struct {
    struct api *api;
    struct server *second; /* another feed-api */
    struct server *nginx;
    int port;
    char *dir, *access_log, *stream_log;
} w;

/* ---- setting up ---- */

static char *find_nginx(void)
{
    static const char *const places[] = {"/usr/sbin/nginx", "/usr/local/sbin/nginx",
                                         ".deps/nginx/usr/sbin/nginx"};
    for (size_t i = 0; i < MEM_COUNT(places); i++) {
        if (access(places[i], X_OK) == 0)
            return realpath(places[i], NULL);
    }
    return NULL;
}

static char *read_file(const char *path)
{
    FILE *in = fopen(path, "r");
    char *text = mem_zero(1, 65536);
    if (in == NULL)
        fail_msg("%s is not there; tests run in the project's directory", path);
    size_t n = fread(text, 1, 65535, in);
    text[n] = '\0';
    fclose(in);
    return text;
}

/* Every place that is changed has to be there, once: else the example has changed and this test tries
 * another. */
static void change(char **text, const char *from, const char *to)
{
    char *at = strstr(*text, from);
    if (at == NULL || strstr(at + 1, from) != NULL)
        fail_msg("%s is not there once in " EXAMPLE, from);
    char *changed = mem_printf("%.*s%s%s", (int)(at - *text), *text, to, at + strlen(from));
    free(*text);
    *text = changed;
}

static void run(const char *command)
{
    int status = system(command); /* NOLINT(cert-env33-c): a fixed command of the test's own */
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("failed: %s", command);
}

static void make_certificate(void)
{
    char *command = mem_printf(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=" HOST
        " -addext subjectAltName=DNS:" HOST " -keyout '%s/key.pem' -out '%s/cert.pem' 2>/dev/null",
        w.dir, w.dir);
    run(command);
    free(command);
}

static char *make_config(void)
{
    char *text = read_file(EXAMPLE), *path = mem_printf("%s/nginx.conf", w.dir), *to;
#define CHANGE(from, ...)                                                                                    \
    to = mem_printf(__VA_ARGS__);                                                                            \
    change(&text, from, to);                                                                                 \
    free(to)
    CHANGE("error_log /var/log/nginx/error.log warn;", "error_log %s/error.log warn;", w.dir);
    CHANGE("pid /run/nginx.pid;", "pid %s/nginx.pid;", w.dir);
    CHANGE("worker_rlimit_nofile 131072;", " ");
    CHANGE("worker_processes auto;", "worker_processes 1; %s", geteuid() == 0 ? "user root;" : "");
    CHANGE("worker_connections 65536;", "worker_connections 512;");
    CHANGE("http {\n",
           "http {\nclient_body_temp_path %s/body; proxy_temp_path %s/proxy; fastcgi_temp_path %s/f; "
           "uwsgi_temp_path %s/u; scgi_temp_path %s/s;\n",
           w.dir, w.dir, w.dir, w.dir, w.dir);
    CHANGE(
        "server 127.0.0.1:8080 max_fails=2 fail_timeout=2s;",
        "server 127.0.0.1:%d max_fails=2 fail_timeout=2s; server 127.0.0.1:%d max_fails=2 fail_timeout=2s;",
        w.api->port, fixture_port(w.api->fixture, w.second));
    CHANGE("listen 443 ssl http2;", "listen 127.0.0.1:%d ssl http2;", w.port);
    CHANGE("/etc/ssl/feeds.example.com.pem", "%s/cert.pem", w.dir);
    CHANGE("/etc/ssl/private/feeds.example.com.key", "%s/key.pem", w.dir);
#undef CHANGE
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    fputs(text, out);
    assert_int_equal(fclose(out), 0);
    free(text);
    return path;
}

static bool listens(void *arg)
{
    (void)arg;
    return !server_port_free(w.port);
}

static void start_nginx(const char *binary)
{
    char *config = make_config(), *log = mem_printf("%s/nginx.log", w.dir),
         *own = mem_printf("%s/error.log", w.dir);
    const char *argv[] = {binary, "-p", w.dir, "-e", own, "-c", config, "-g", "daemon off;", NULL};
    struct err e;
    w.nginx = server_new("nginx", log, argv);
    if (server_start(w.nginx, &e) < 0)
        fail_msg("nginx: %s", e.msg);
    if (!fixture_until(listens, NULL, 10000)) {
        server_log_tail(w.nginx, 4096);
        fail_msg("nginx does not listen");
    }
    free(config);
    free(log);
    free(own);
}

static int set_up(void **state)
{
    char *binary = find_nginx();
    (void)state;
    if (binary == NULL) {
        print_message("there is no nginx: tools/setup.sh gets one\n");
        return 0;
    }
    w.api = api_start(API_FANOUT, NULL);
    w.dir = mem_printf("%s/nginx", fixture_dir(w.api->fixture));
    w.access_log = mem_printf("%s/access.log", w.dir);
    w.stream_log = mem_printf("%s/stream.log", w.dir);
    assert_int_equal(mkdir(w.dir, 0755), 0);
    w.second = fixture_start(w.api->fixture, "feed-api", "feed-api-2", "--access-log", w.access_log,
                             "--rate-address", "1000", NULL);
    w.port = server_free_port();
    make_certificate();
    start_nginx(binary);
    free(binary);
    return 0;
}

static int tear_down(void **state)
{
    struct err e;
    (void)state;
    if (w.api == NULL)
        return 0;
    server_stop(w.nginx, 10000, &e);
    server_free(w.nginx);
    api_stop(w.api);
    free(w.dir);
    free(w.access_log);
    free(w.stream_log);
    return 0;
}

static void need_nginx(void)
{
    if (w.api == NULL)
        skip();
}

/* ---- asking ---- */

/* curl with the certificate checked; args go to it as they are. */
static FILE *curl(const char *args, const char *path)
{
    char *command =
        mem_printf("exec curl -sS --max-time 60 --noproxy '*' --cacert '%s/cert.pem' --resolve " HOST
                   ":%d:127.0.0.1 %s 'https://" HOST ":%d%s' 2>&1",
                   w.dir, w.port, args, w.port, path);
    FILE *out = popen(command, "r"); /* NOLINT(cert-env33-c): a fixed command of the test's own */
    assert_non_null(out);
    free(command);
    return out;
}

/* The answer with its head, CRs taken out. */
static char *ask(const char *args, const char *path)
{
    char *auth = mem_printf("-i -H 'Authorization: Bearer %s' %s", fixture_admin_key(w.api->fixture), args);
    FILE *out = curl(auth, path);
    char *text = mem_zero(1, 1 << 20);
    size_t n = 0;
    for (int c; (c = getc(out)) != EOF && n < (1 << 20) - 1;) {
        if (c != '\r')
            text[n++] = (char)c;
    }
    pclose(out);
    free(auth);
    return text;
}

static void assert_has(const char *text, const char *what)
{
    if (strcasestr(text, what) == NULL)
        fail_msg("no %s in: %.2000s", what, text);
}

/* ---- tests ---- */

static void pages_and_writes_go_through_tls(void **state)
{
    (void)state;
    need_nginx();
    char *text = ask("-X PUT", "/v1/users/ann/follows/publisher/daily");
    assert_has(text, "HTTP/2 204");
    assert_has(text, "feed-position: ");
    free(text);
    text = ask("-H 'Content-Type: application/json' -d '{\"publisher\":\"daily\",\"title\":\"through "
               "nginx\",\"body\":\"b\"}'",
               "/v1/items");
    assert_has(text, "HTTP/2 201");
    char position[17] = "";
    sscanf(strcasestr(text, "feed-position: ") + strlen("feed-position: "), "%16s", position);
    char *path = mem_printf("/v1/users/ann/feed?position=%s", position);
    free(text);
    text = ask("", path);
    assert_has(text, "HTTP/2 200");
    assert_has(text, "through nginx");
    assert_has(text, "strict-transport-security: ");
    assert_has(text, "vary: Authorization");
    free(text);
    /* Names are percent-encoded in paths: nginx must pass them on as they are. */
    text = ask("-X PUT", "/v1/users/a%2Bb%25/follows/topic/caf%C3%A9");
    assert_has(text, "HTTP/2 204");
    free(text);
    text = ask("", "/v1/users/a%2Bb%25/follows");
    assert_has(text, "caf\xc3\xa9");
    free(text);
    free(path);
}

static void what_tells_of_the_inside_is_not_there(void **state)
{
    (void)state;
    need_nginx();
    char *text = ask("", "/metrics");
    assert_has(text, "HTTP/2 404");
    free(text);
}

static bool logged(void *id)
{
    FILE *in = fopen(w.access_log, "r");
    char line[4096];
    bool found = false;
    while (in != NULL && fgets(line, sizeof line, in) != NULL)
        found |= strstr(line, id) != NULL && strstr(line, "\"client\":\"127.0.0.1\"") != NULL;
    if (in != NULL)
        fclose(in);
    return found;
}

/* What a client writes into X-Forwarded-For is not believed: nginx adds whom it heard, and that counts. The
 * client is on this machine, which is trusted by default; so the second feed-api is asked with a forged
 * address in between. */
static void the_client_is_whom_nginx_heard(void **state)
{
    char *headers = mem_printf("-H 'X-Forwarded-For: 203.0.113.66, garbage' -H 'X-Request-Id: forged'");
    (void)state;
    need_nginx();
    for (int i = 0; i < 8; i++) { /* to either feed-api */
        char *text = ask(headers, "/v1/users/ann/feed");
        assert_has(text, "HTTP/2 200");
        free(text);
    }
    assert_true(fixture_until(logged, "\"forged\"", 10000));
    free(headers);
}

static void a_bulk_request_of_megabytes_is_taken(void **state)
{
    (void)state;
    need_nginx();
    char *file = mem_printf("%s/bulk.ndjson", w.dir), *big = mem_alloc(60001);
    FILE *out = fopen(file, "w");
    memset(big, 'x', 60000);
    big[60000] = '\0';
    for (int i = 0; i < 100; i++)
        fprintf(out, "{\"publisher\":\"bulk\",\"external_id\":\"%d\",\"title\":\"t\",\"body\":\"%s\"}\n", i,
                big);
    assert_int_equal(fclose(out), 0);
    char *args = mem_printf("-H 'Content-Type: application/x-ndjson' --data-binary '@%s'", file);
    char *text = ask(args, "/v1/items/bulk");
    assert_has(text, "HTTP/2 200");
    assert_has(text, "\"line\":100");
    free(text);
    free(args);
    free(big);
    free(file);
}

static bool curl_has_got(void *what)
{
    FILE *in = fopen(w.stream_log, "r");
    char line[65536];
    bool found = false;
    while (in != NULL && fgets(line, sizeof line, in) != NULL)
        found |= strstr(line, what) != NULL;
    if (in != NULL)
        fclose(in);
    return found;
}

static struct server *start_stream(const char *path)
{
    char *url = mem_printf("https://" HOST ":%d%s", w.port, path), *cert = mem_printf("%s/cert.pem", w.dir);
    char *at = mem_printf(HOST ":%d:127.0.0.1", w.port);
    char *auth = mem_printf("Authorization: Bearer %s", fixture_admin_key(w.api->fixture));
    const char *argv[] = {"/usr/bin/curl", "-sSNi", "--noproxy", "*",  "--cacert", cert,
                          "--resolve",     at,      "-H",        auth, url,        NULL};
    struct err e;
    struct server *s = server_new("curl", w.stream_log, argv);
    if (server_start(s, &e) < 0)
        fail_msg("curl: %s", e.msg);
    free(url);
    free(cert);
    free(at);
    free(auth);
    return s;
}

static void events_of_a_stream_leave_at_once(void **state)
{
    (void)state;
    need_nginx();
    char *text = ask("-X PUT", "/v1/users/eve/follows/publisher/news");
    assert_has(text, "HTTP/2 204");
    free(text);
    struct server *stream = start_stream("/v1/users/eve/feed/stream");
    assert_true(fixture_until(curl_has_got, "text/event-stream", 20000));
    /* The stream goes on: whatever is held back in between would never come. */
    text = ask("-H 'Content-Type: application/json' "
               "-d '{\"publisher\":\"news\",\"title\":\"streamed title\",\"body\":\"b\"}'",
               "/v1/items");
    assert_has(text, "HTTP/2 201");
    free(text);
    assert_true(fixture_until(curl_has_got, "streamed title", 10000));
    server_free(stream);
}

static void a_feed_api_that_is_gone_is_passed_over(void **state)
{
    (void)state;
    need_nginx();
    server_kill(w.second);
    for (int i = 0; i < 20; i++) {
        char *text = ask("", "/v1/users/ann/feed");
        assert_has(text, "HTTP/2 200");
        free(text);
    }
    fixture_restart(w.api->fixture, w.second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_and_writes_go_through_tls),
        cmocka_unit_test(what_tells_of_the_inside_is_not_there),
        cmocka_unit_test(the_client_is_whom_nginx_heard),
        cmocka_unit_test(a_bulk_request_of_megabytes_is_taken),
        cmocka_unit_test(events_of_a_stream_leave_at_once),
        cmocka_unit_test(a_feed_api_that_is_gone_is_passed_over),
    };
    e2e_choose_tests();
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
