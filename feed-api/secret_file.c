#include "feed-api/secret_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/ids.h"
#include "common/mem.h"

static int read_open_file(int fd, const char *path, char **out, struct err *e)
{
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        return err_set(e, ERR_INVALID, "%.150s: not a file", path);
    if (st.st_mode & (S_IRWXG | S_IRWXO))
        return err_set(e, ERR_INVALID, "%.150s: others may use it; chmod 600 it", path);
    if (st.st_size < 1 || st.st_size > SECRET_FILE_MAX)
        return err_set(e, ERR_INVALID, "%.150s: must hold 1 to %d bytes", path, SECRET_FILE_MAX);
    size_t size = (size_t)st.st_size, n = 0;
    char *text = mem_alloc(size + 1);
    while (n < size) {
        ssize_t got = read(fd, text + n, size - n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        n += (size_t)got;
    }
    text[n] = '\0';
    if (n != size || strlen(text) != n) {
        free(text);
        return err_set(e, ERR_INVALID, "%.150s: can't be read as text", path);
    }
    *out = text;
    return 0;
}

int secret_file_read(const char *path, char **out, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return err_set(e, ERR_NOT_FOUND, "%.150s: no such file", path);
    if (fd < 0)
        return err_set(e, ERR_INVALID, "%.150s: %s", path, strerror(errno));
    int rc = read_open_file(fd, path, out, e);
    close(fd);
    return rc;
}

static int write_all(int fd, const char *text)
{
    size_t n = strlen(text);
    while (n > 0) {
        ssize_t put = write(fd, text, n);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return -1;
        text += put;
        n -= (size_t)put;
    }
    return fsync(fd);
}

/* The name must be on disk too, or a crash loses a key that was given out already. */
static void sync_directory_of(const char *path)
{
    char *dir = mem_strdup(path);
    char *slash = strrchr(dir, '/');
    if (slash != NULL)
        slash[slash == dir] = '\0';
    int fd = open(slash != NULL ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd); /* not every file system can */
        close(fd);
    }
    free(dir);
}

int secret_file_make(const char *path, const char *text, struct err *e)
{
    int rc = 0;
    char *temporary = mem_printf("%s.%08x", path, (unsigned)ids_random_bits());
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, S_IRUSR | S_IWUSR);
    if (fd < 0) {
        rc = err_set(e, ERR_INVALID, "%.150s: can't be made: %s", path, strerror(errno));
        goto out;
    }
    /* link(), unlike rename(), does not replace what another process has made meanwhile. */
    if (write_all(fd, text) < 0)
        rc = err_set(e, ERR_INVALID, "%.150s: can't be written: %s", path, strerror(errno));
    else if (link(temporary, path) < 0)
        rc = err_set(e, errno == EEXIST ? ERR_CONFLICT : ERR_INVALID, "%.150s: can't be made: %s", path,
                     strerror(errno));
    close(fd);
    unlink(temporary);
    if (rc == 0)
        sync_directory_of(path);
out:
    free(temporary);
    return rc;
}
