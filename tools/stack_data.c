#include "tools/stack_data.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/mem.h"
#include "tools/servers.h"

#define PORT_TRIES 50

static const char *const port_names[STACK_PORTS] = {"mongod", "fanout", "ranker"};

char *stack_data_path(const struct stack_data *d, const char *name)
{
    return mem_printf("%s/%s", d->dir, name);
}

static int make_dir(const char *dir, struct err *e)
{
    struct stat st;
    if (mkdir(dir, 0700) == 0 || (errno == EEXIST && stat(dir, &st) == 0 && S_ISDIR(st.st_mode))) {
        return 0;
    }
    return err_set(e, ERR_INVALID,
                   "step 'directory': can't make %.120s: %s. Give another with DATA=<directory>, or free it",
                   dir, strerror(errno == EEXIST ? ENOTDIR : errno));
}

/* Makes dir and what leads to it. */
static int make_path(const char *dir, struct err *e)
{
    char *part = mem_strdup(dir);
    int rc = 0;
    for (char *p = strchr(part + 1, '/'); rc == 0 && p; p = strchr(p + 1, '/')) {
        *p = '\0';
        rc = make_dir(part, e);
        *p = '/';
    }
    free(part);
    return rc == 0 ? make_dir(dir, e) : rc;
}

static int lock_refused(int fd, const char *dir, struct err *e)
{
    char pid[32] = "";
    if (read(fd, pid, sizeof pid - 1) < 0) {
        pid[0] = '\0';
    }
    pid[strcspn(pid, "\n")] = '\0';
    return err_set(e, ERR_BUSY,
                   "step 'lock': another feedmill (process %s) runs on %.120s. Stop it, or give another "
                   "directory with DATA=<directory> (and another PORT)",
                   pid, dir);
}

static int take_lock(struct stack_data *d, struct err *e)
{
    char *path = stack_data_path(d, "stack.lock");
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    free(path);
    if (fd < 0) {
        return err_set(
            e, ERR_INVALID,
            "step 'lock': can't write to %.120s: %s. Check its permissions and the space on the disk", d->dir,
            strerror(errno));
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        lock_refused(fd, d->dir, e);
        close(fd);
        return -1;
    }
    char pid[32];
    int n = snprintf(pid, sizeof pid, "%d\n", (int)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, pid, (size_t)n, 0) != n) {
        err_set(e, ERR_UNAVAILABLE, "step 'lock': can't write to %.120s: %s. Free some space on its disk",
                d->dir, strerror(errno));
        close(fd);
        return -1;
    }
    d->lock_fd = fd;
    return 0;
}

static int check_space(const struct stack_data *d, int64_t min_free, struct err *e)
{
    struct statvfs v;
    if (statvfs(d->dir, &v) != 0) {
        return err_set(e, ERR_UNAVAILABLE, "step 'disk': %.120s: %s", d->dir, strerror(errno));
    }
    int64_t have = (int64_t)v.f_bavail * (int64_t)v.f_frsize;
    if (have < min_free) {
        return err_set(
            e, ERR_UNAVAILABLE,
            "step 'disk': %.120s has %lld MB free, at least %lld MB are needed. Free some space, or give "
            "another directory with DATA=<directory>",
            d->dir, (long long)(have >> 20), (long long)(min_free >> 20));
    }
    return 0;
}

/* ---- the internal ports ---- */

static void read_ports(struct stack_data *d)
{
    char *path = stack_data_path(d, "ports");
    FILE *f = fopen(path, "re");
    free(path);
    char name[16];
    int port;
    while (f && fscanf(f, "%15s %d", name, &port) == 2) {
        for (int i = 0; i < STACK_PORTS; i++) {
            if (strcmp(name, port_names[i]) == 0 && port > 0 && port <= 65535) {
                d->ports[i] = port;
            }
        }
    }
    if (f) {
        fclose(f);
    }
}

static int write_ports(const struct stack_data *d, struct err *e)
{
    char *path = stack_data_path(d, "ports");
    char *next = stack_data_path(d, "ports.new");
    FILE *f = fopen(next, "we");
    bool ok = f != NULL;
    for (int i = 0; ok && i < STACK_PORTS; i++) {
        ok = fprintf(f, "%s %d\n", port_names[i], d->ports[i]) > 0;
    }
    if (f) {
        ok = fclose(f) == 0 && ok;
    }
    ok = ok && rename(next, path) == 0;
    int rc =
        ok ? 0 : err_set(e, ERR_UNAVAILABLE, "step 'ports': can't write %.120s: %s", path, strerror(errno));
    free(next);
    free(path);
    return rc;
}

/* Answers whether the port is given to another purpose already. */
static bool used_twice(const struct stack_data *d, int which)
{
    for (int i = 0; i < which; i++) {
        if (d->ports[i] == d->ports[which]) {
            return true;
        }
    }
    return false;
}

static int choose_ports(struct stack_data *d, struct err *e)
{
    read_ports(d);
    for (int i = 0; i < STACK_PORTS; i++) {
        for (int tries = 0; d->ports[i] <= 0 || used_twice(d, i) || !server_port_free(d->ports[i]); tries++) {
            d->ports[i] = tries < PORT_TRIES ? server_free_port() : -1;
            if (d->ports[i] < 0) {
                return err_set(e, ERR_UNAVAILABLE,
                               "step 'ports': no free port on 127.0.0.1 between 17000 and 32000");
            }
        }
    }
    return write_ports(d, e);
}

int stack_data_open(struct stack_data *d, const char *dir, int64_t min_free, struct err *e)
{
    static const char *const subdirs[] = {"redis", "mongod", "logs"};
    *d = (struct stack_data){.lock_fd = -1};
    if (make_path(dir, e) != 0) {
        return -1;
    }
    char absolute[PATH_MAX];
    if (!realpath(dir, absolute)) {
        return err_set(e, ERR_INVALID, "step 'directory': %.120s: %s", dir, strerror(errno));
    }
    d->dir = mem_strdup(absolute);
    if (take_lock(d, e) != 0 || check_space(d, min_free, e) != 0) {
        return -1;
    }
    for (size_t i = 0; i < MEM_COUNT(subdirs); i++) {
        char *path = stack_data_path(d, subdirs[i]);
        int rc = make_dir(path, e);
        free(path);
        if (rc != 0) {
            return -1;
        }
    }
    return choose_ports(d, e);
}

int stack_data_addresses(const char *dir, char **mongodb_uri, char **redis, struct err *e)
{
    char absolute[PATH_MAX];
    struct stack_data d = {.dir = realpath(dir, absolute), .lock_fd = -1};
    if (d.dir) {
        read_ports(&d);
    }
    if (d.ports[STACK_PORT_MONGOD] <= 0) {
        return err_set(
            e, ERR_NOT_FOUND,
            "no databases of `make run` in %.120s: give --mongodb-uri and --redis, or another directory",
            dir);
    }
    *mongodb_uri = mem_printf("mongodb://127.0.0.1:%d/feedmill?replicaSet=%s", d.ports[STACK_PORT_MONGOD],
                              MONGOD_REPLICA_SET);
    *redis = mem_printf("unix:%s/redis/redis.sock", d.dir);
    return 0;
}

void stack_data_close(struct stack_data *d)
{
    if (d->lock_fd >= 0) {
        close(d->lock_fd);
    }
    free(d->dir);
    *d = (struct stack_data){.lock_fd = -1};
}
