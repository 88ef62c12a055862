/* secret_file.h - small files that hold secrets: read whole, and made once, never half-written. Blocking; any
 * thread.
 */
#ifndef FEEDMILL_SECRET_FILE_H
#define FEEDMILL_SECRET_FILE_H

#include <stddef.h>
#include "common/err.h"

#define SECRET_FILE_MAX (64 * 1024)

/* secret_file_read() answers the file's text in *out (the caller's, SECRET_FILE_MAX bytes at most).
 * ERR_NOT_FOUND when there is none, ERR_INVALID when it can't be read, is empty, holds NULs or is larger, or
 * when others than its owner may read it. */
int secret_file_read(const char *path, char **out, struct err *e) MUST_USE;

/* secret_file_make() makes the file (mode 600) with that text, on disk before it answers. ERR_CONFLICT when
 * there is one already, which stays as it is; ERR_INVALID when it can't be written. */
int secret_file_make(const char *path, const char *text, struct err *e) MUST_USE;

#endif
