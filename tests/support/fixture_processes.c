#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/mem.h"
#include "tests/support/fixture.h"
#include "tests/support/fixture_private.h"

#define ARGV_MAX   64
#define STOP_MS    10000
#define TAIL_BYTES 6000

char *fixture_bin(const char *name)
{
    const char *given = getenv("FEEDMILL_BIN");
    if (given && *given) {
        return mem_printf("%s/%s", given, name);
    }
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = '\0';
    char *tests = NULL;
    for (char *p = self; (p = strstr(p, "/tests/")); p++) {
        tests = p;
    }
    if (!tests) {
        fail_msg("%s is not a built test: no /tests/ in its path", self);
    }
    return mem_printf("%.*s/bin/%s", (int)(tests - self), self, name);
}

/* The command line of a process as it grows. */
struct line {
    char *argv[ARGV_MAX + 1];
    size_t n;
    size_t given; /* the flags of the caller start here */
};

static void line_add(struct line *l, const char *word)
{
    assert_true(l->n < ARGV_MAX);
    l->argv[l->n++] = mem_strdup(word);
}

/* Answers the value of a flag in the words, or NULL. */
static const char *line_find(const struct line *l, const char *flag)
{
    size_t len = strlen(flag);
    for (size_t i = 1; i < l->n; i++) {
        const char *w = l->argv[i];
        if (strncmp(w, flag, len) == 0 && (w[len] == '=' || w[len] == '\0')) {
            return w[len] == '=' ? w + len + 1 : i + 1 < l->n ? l->argv[i + 1] : "";
        }
    }
    return NULL;
}

static void line_default(struct line *l, const char *flag, const char *value)
{
    if (value && !line_find(l, flag)) {
        line_add(l, flag);
        line_add(l, value);
    }
}

static int ranker_port(const struct fixture *f)
{
    for (size_t i = f->n; i > 0; i--) {
        if (f->entries[i - 1].ranker) {
            return f->entries[i - 1].port;
        }
    }
    return server_free_port();
}

static void line_default_path(struct fixture *f, struct line *l, const char *flag, const char *name)
{
    char *path = mem_printf("%s/%s", f->dir, name);
    line_default(l, flag, path);
    free(path);
}

static void line_defaults(struct fixture *f, struct line *l, const char *program, const char *instance)
{
    char address[40];
    line_default(l, "--mongodb-uri", f->uri);
    line_default(l, "--redis", f->redis_address);
    line_default(l, "--name", instance);
    line_default(l, "--log-level", "info");
    if (!line_find(l, "--listen")) {
        snprintf(address, sizeof address, "127.0.0.1:%d", server_free_port());
        line_default(l, "--listen", address);
    }
    if (strcmp(program, "feed-api") == 0) {
        line_default_path(f, l, "--admin-key-file", "admin.key");
        line_default_path(f, l, "--jwt-keys", "jwt.keys");
        snprintf(address, sizeof address, "127.0.0.1:%d", ranker_port(f));
        line_default(l, "--ranker", address);
    }
}

static struct server *start(struct fixture *f, const char *program, const char *instance, va_list ap)
{
    struct line l = {.n = 0};
    char *bin = fixture_bin(program);
    line_add(&l, bin);
    for (const char *word; (word = va_arg(ap, const char *));) {
        line_add(&l, word);
    }
    line_defaults(f, &l, program, instance);
    char *log = mem_printf("%s/%s.log", f->dir, instance);
    const char *listen = line_find(&l, "--listen");
    const char *colon = strrchr(listen, ':');
    int port = colon ? atoi(colon + 1) : 0;

    struct server *s = server_new(instance, log, (const char *const *)l.argv);
    server_set_http_probe(s, port, "/readyz");
    struct fixture_entry *entry = fixture_add(f, s, port);
    entry->ranker = strcmp(program, "ranker") == 0;
    free(log);
    free(bin);
    for (size_t i = 0; i < l.n; i++) {
        free(l.argv[i]);
    }
    struct err e;
    if (server_start(s, &e) != 0) {
        fixture_fail(f, "%s", e.msg);
    }
    return s;
}

struct server *fixture_start_only(struct fixture *f, const char *program, const char *instance, ...)
{
    va_list ap;
    va_start(ap, instance);
    struct server *s = start(f, program, instance, ap);
    va_end(ap);
    return s;
}

struct server *fixture_start(struct fixture *f, const char *program, const char *instance, ...)
{
    va_list ap;
    va_start(ap, instance);
    struct server *s = start(f, program, instance, ap);
    va_end(ap);
    fixture_wait(f, s);
    return s;
}

static struct fixture_entry *entry_find(const struct fixture *f, const struct server *s)
{
    for (size_t i = 0; i < f->n; i++) {
        if (f->entries[i].server == s) {
            return &f->entries[i];
        }
    }
    fail_msg("the fixture does not know this server");
    return NULL;
}

int fixture_port(const struct fixture *f, const struct server *s)
{
    return entry_find(f, s)->port;
}

bool fixture_stop_process(struct server *s)
{
    struct err e;
    if (server_stop(s, (int64_t)STOP_MS * fixture_slowness(), &e) != 0) {
        fprintf(stderr, "%s\n", e.msg);
        server_log_tail(s, TAIL_BYTES);
        return false;
    }
    int status = server_status(s);
    if (status == 0 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)) {
        return true;
    }
    char text[64];
    server_status_text(s, text, sizeof text);
    fprintf(stderr, "%s ended with %s\n", server_name(s), text);
    server_log_tail(s, TAIL_BYTES);
    return false;
}

void fixture_forget(struct fixture *f, struct server *s)
{
    struct fixture_entry *entry = entry_find(f, s);
    server_free(s);
    size_t at = (size_t)(entry - f->entries);
    memmove(entry, entry + 1, (f->n - at - 1) * sizeof *entry);
    f->n--;
}

const char *fixture_admin_key(struct fixture *f)
{
    if (f->admin_key) {
        return f->admin_key;
    }
    char *path = mem_printf("%s/admin.key", f->dir);
    FILE *file = fopen(path, "re");
    char key[512] = "";
    if (!file || !fgets(key, sizeof key, file)) {
        fixture_fail(f, "no admin key in %s", path);
        return NULL; /* not reached: the line above leaves the test */
    }
    fclose(file);
    free(path);
    key[strcspn(key, "\r\n")] = '\0';
    f->admin_key = mem_strdup(key);
    return f->admin_key;
}
