#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/mem.h"
#include "tools/servers.h"
#include "tools/servers_private.h"

/* Below the kernel's range for outgoing connections (32768 on), above what people tend to use. */
#define PORT_FIRST 17000
#define PORT_COUNT 15000
#define PORT_TRIES 200

#define PROBE_MS 1000

const char *server_root(void)
{
    static char root[PATH_MAX];
    if (root[0]) {
        return root;
    }
    ssize_t n = readlink("/proc/self/exe", root, sizeof root - 1);
    root[n > 0 ? n : 0] = '\0';
    char *build = NULL;
    for (char *p = root; (p = strstr(p, "/build/")); p++) {
        build = p;
    }
    if (build && build != root) {
        *build = '\0';
    } else {
        memcpy(root, ".", 2);
    }
    return root;
}

static char *find_on_path(const char *name)
{
    const char *path = getenv("PATH");
    while (path && *path) {
        size_t n = strcspn(path, ":");
        char *full = mem_printf("%.*s/%s", (int)n, path, name);
        if (n && access(full, X_OK) == 0) {
            return full;
        }
        free(full);
        path += n + (path[n] == ':');
    }
    return NULL;
}

static char *find_in_deps(const char *relative)
{
    const char *roots[] = {server_root(), "."};
    for (size_t i = 0; i < MEM_COUNT(roots); i++) {
        char *full = mem_printf("%s/.deps/%s", roots[i], relative);
        if (access(full, X_OK) == 0) {
            return full;
        }
        free(full);
    }
    return NULL;
}

char *server_find_redis(struct err *e)
{
    char *found = find_on_path("redis-server");
    if (!found) {
        found = find_in_deps("bin/redis-server");
    }
    if (!found) {
        err_set(e, ERR_NOT_FOUND, "no redis-server on PATH or in .deps/bin: run make setup");
    }
    return found;
}

char *server_find_mongod(struct err *e)
{
    const char *given = getenv("FEEDMILL_MONGOD");
    if (given && *given) {
        if (access(given, X_OK) == 0) {
            return mem_strdup(given);
        }
        err_set(e, ERR_NOT_FOUND, "FEEDMILL_MONGOD names %s: %s", given, strerror(errno));
        return NULL;
    }
    char *found = find_on_path("mongod");
    if (!found) {
        found = find_in_deps("mongod/mongod");
    }
    if (!found) {
        err_set(e, ERR_NOT_FOUND, "no mongod in FEEDMILL_MONGOD, on PATH or in .deps/mongod: run make setup");
    }
    return found;
}

static struct sockaddr_in loopback(int port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

bool server_port_free(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;
    struct sockaddr_in a = loopback(port);
    /* As servers bind: connections in TIME_WAIT don't stand against it, a listener does. */
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    bool free_now = fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof a) == 0;
    if (fd >= 0) {
        close(fd);
    }
    return free_now;
}

int server_free_port(void)
{
    for (int i = 0; i < PORT_TRIES; i++) {
        unsigned r = 0;
        if (getrandom(&r, sizeof r, 0) != (ssize_t)sizeof r) {
            return -1;
        }
        int port = PORT_FIRST + (int)(r % PORT_COUNT);
        if (server_port_free(port)) {
            return port;
        }
    }
    return -1;
}

/* ---- a GET, enough of HTTP to ask our own processes ---- */

static int wait_fd(int fd, short events, int64_t end, struct err *e)
{
    int64_t left = end - clock_mono_ms();
    struct pollfd p = {.fd = fd, .events = events};
    int n = poll(&p, 1, left > 0 ? (int)left : 0);
    if (n > 0) {
        return 0;
    }
    return n < 0 && errno != EINTR ? err_set(e, ERR_UNAVAILABLE, "poll: %s", strerror(errno))
                                   : err_set(e, ERR_TIMEOUT, "no answer in time");
}

static int connect_port(int port, int64_t end, struct err *e)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return err_set(e, ERR_UNAVAILABLE, "socket: %s", strerror(errno));
    }
    struct sockaddr_in a = loopback(port);
    int why = connect(fd, (struct sockaddr *)&a, sizeof a) == 0 ? 0 : errno;
    if (why == EINPROGRESS) {
        socklen_t len = sizeof why;
        if (wait_fd(fd, POLLOUT, end, e) != 0) {
            close(fd);
            return -1;
        }
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &why, &len);
    }
    if (why) {
        close(fd);
        return err_set(e, ERR_UNAVAILABLE, "port %d: %s", port, strerror(why));
    }
    return fd;
}

/* Reads until the end of the connection or until the buffer is full; answers the count or -1. */
static ssize_t read_all(int fd, char *out, size_t size, int64_t end, struct err *e)
{
    size_t have = 0;
    while (have < size) {
        if (wait_fd(fd, POLLIN, end, e) != 0) {
            return -1;
        }
        ssize_t n = recv(fd, out + have, size - have, 0);
        if (n < 0) {
            return err_set(e, ERR_UNAVAILABLE, "read: %s", strerror(errno));
        }
        if (n == 0) {
            break;
        }
        have += (size_t)n;
    }
    return (ssize_t)have;
}

static int answer_parse(const char *text, char *body, size_t size, struct err *e)
{
    int status = 0;
    if (sscanf(text, "HTTP/1.1 %3d", &status) != 1 || status < 100 || status > 599) {
        return err_set(e, ERR_CORRUPT, "the answer is not HTTP/1.1");
    }
    const char *start = strstr(text, "\r\n\r\n");
    if (body && size) {
        snprintf(body, size, "%s", start ? start + 4 : "");
    }
    return status;
}

int server_http_get(int port, const char *path, const char *key, int64_t deadline_ms, char *body, size_t size,
                    struct err *e)
{
    int64_t end = clock_mono_ms() + deadline_ms;
    int fd = connect_port(port, end, e);
    if (fd < 0) {
        return -1;
    }
    char *request =
        mem_printf("GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n%s%s%s\r\n", path, port,
                   key ? "Authorization: Bearer " : "", key ? key : "", key ? "\r\n" : "");
    size_t len = strlen(request), room = size + 16384;
    char *text = mem_zero(room + 1, 1);
    int status = -1;
    /* A request this small fits into an empty socket buffer: one send takes it whole. */
    if (send(fd, request, len, MSG_NOSIGNAL) != (ssize_t)len) {
        err_set(e, ERR_UNAVAILABLE, "port %d: %s", port, strerror(errno));
    } else if (read_all(fd, text, room, end, e) >= 0) {
        status = answer_parse(text, body, size, e);
    }
    free(text);
    free(request);
    close(fd);
    return status;
}

static int http_probe(struct server *s, struct err *e)
{
    char body[200];
    int status = server_http_get(s->port, s->path, NULL, PROBE_MS, body, sizeof body, e);
    if (status == 200) {
        return 0;
    }
    return status < 0 ? -1 : err_set(e, ERR_UNAVAILABLE, "%s answers %d: %s", s->path, status, body);
}

void server_set_http_probe(struct server *s, int port, const char *path)
{
    char *copy = mem_strdup(path);
    free(s->path);
    s->path = copy;
    s->port = port;
    s->probe = http_probe;
}
