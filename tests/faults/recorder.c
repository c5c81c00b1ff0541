/* Notes what a program does to the files below RECORDER_ROOT, and can make it fail. To be loaded by LD_PRELOAD.
 *
 * Each operation and its note in the log RECORDER_LOG are made under one lock, so that the order of the notes is the
 * order of what happened. The log is a sequence of records, see recording.py:
 *
 *     kind (1 byte)  file (4)  offset (8)  length (4)  bytes
 *
 * all in the machine's byte order. A file is a number that a name gets when it is made, or is first opened. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define MOST 65536
#define REAL(name) ({ static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name); real; })

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *root;
static size_t root_length;
static int output = -1;
static int followed[MOST];          /* by descriptor: 0, or the number of what it is open on */
static ino_t inodes[MOST];          /* by number */
static int files;
static long writes_left = -1;       /* until a write fails; -1: none does */
static int failure;
static long syncs;

static void begin(void) {
    if (root)
        return;
    root = getenv("RECORDER_ROOT");
    if (!root)
        root = "";
    root_length = strlen(root);
    const char *log = getenv("RECORDER_LOG");
    if (log && root_length)
        output = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void note(char kind, int file, int64_t offset, const void *bytes, size_t length) {
    if (output < 0)
        return;
    int32_t number = file, size = length;
    struct iovec parts[] = {{&kind, 1}, {&number, 4}, {&offset, 8}, {&size, 4}, {(void *)bytes, length}};
    size_t left = 17 + length;
    if (syscall(SYS_writev, output, parts, 5) != (ssize_t)left)
        abort();
}

/* Whether something is below the root, and what is noted; its name below the root is put where `name` points. */
static int is_ours(const char *path, const char **name) {
    begin();
    if (!root_length || strncmp(path, root, root_length) || (path[root_length] && path[root_length] != '/'))
        return 0;
    *name = path + root_length + (path[root_length] == '/');
    size_t length = strlen(path);
    return length < 4 || strcmp(path + length - 4, "-shm"); /* which is rebuilt after a crash */
}

static int number_of(int descriptor) {
    struct stat status;
    if (syscall(SYS_fstat, descriptor, &status))
        return 0;
    for (int number = 1; number <= files; number++)
        if (inodes[number] == status.st_ino)
            return number;
    if (files + 1 >= MOST)
        abort();
    inodes[++files] = status.st_ino;
    return files;
}

static int opened(int descriptor, const char *name, int was_there) {
    if (descriptor >= 0 && descriptor < MOST) {
        if (!was_there) { /* the inode may be that of a file that is gone */
            struct stat status;
            syscall(SYS_fstat, descriptor, &status);
            for (int number = 1; number <= files; number++)
                if (inodes[number] == status.st_ino)
                    inodes[number] = 0;
        }
        followed[descriptor] = number_of(descriptor);
        note(was_there ? 'o' : 'c', followed[descriptor], 0, name, strlen(name));
    }
    return descriptor;
}

static int open_noted(int folder, const char *path, int flags, mode_t mode) {
    const char *name;
    pthread_mutex_lock(&lock);
    int ours = is_ours(path, &name), was_there = ours && !syscall(SYS_faccessat, AT_FDCWD, path, F_OK);
    int done;
    if (ours && (flags & O_CREAT) && !was_there && !writes_left) {
        errno = failure;
        done = -1;
    } else {
        done = syscall(SYS_openat, folder, path, flags, mode);
        int error = errno;
        if (ours)
            opened(done, name, was_there);
        if (ours && done >= 0 && (flags & O_TRUNC))
            note('t', followed[done], 0, "", 0);
        errno = error;
    }
    pthread_mutex_unlock(&lock);
    return done;
}

#define OPEN(name)                                                   \
    int name(const char *path, int flags, ...) {                     \
        va_list more;                                                \
        va_start(more, flags);                                       \
        mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;    \
        va_end(more);                                                \
        return open_noted(AT_FDCWD, path, flags, mode);              \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                 \
    int name(int folder, const char *path, int flags, ...) {         \
        va_list more;                                                \
        va_start(more, flags);                                       \
        mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;    \
        va_end(more);                                                \
        return open_noted(folder, path, flags, mode);                \
    }
OPENAT(openat)
OPENAT(openat64)

int close(int descriptor) {
    pthread_mutex_lock(&lock);
    if (descriptor >= 0 && descriptor < MOST)
        followed[descriptor] = 0;
    int done = syscall(SYS_close, descriptor);
    pthread_mutex_unlock(&lock);
    return done;
}

static int file_of(int descriptor) {
    return descriptor >= 0 && descriptor < MOST ? followed[descriptor] : 0;
}

/* Whether this write is to fail; each that is not counts. */
static int is_full(void) {
    if (writes_left < 0)
        return 0;
    if (writes_left) {
        writes_left--;
        return 0;
    }
    return 1;
}

static ssize_t write_noted(int descriptor, const void *data, size_t count, off_t offset, int at) {
    pthread_mutex_lock(&lock);
    int file = file_of(descriptor);
    ssize_t done;
    if (file && is_full()) {
        errno = failure;
        done = -1;
    } else {
        if (file && !at)
            offset = lseek(descriptor, 0, SEEK_CUR);
        done = at ? syscall(SYS_pwrite64, descriptor, data, count, offset) : syscall(SYS_write, descriptor, data, count);
        int error = errno;
        if (file && done > 0)
            note('w', file, offset, data, done);
        errno = error;
    }
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t write(int descriptor, const void *data, size_t count) { return write_noted(descriptor, data, count, 0, 0); }
ssize_t pwrite(int descriptor, const void *data, size_t count, off_t offset) {
    return write_noted(descriptor, data, count, offset, 1);
}
ssize_t pwrite64(int descriptor, const void *data, size_t count, off_t offset) {
    return write_noted(descriptor, data, count, offset, 1);
}

static int sync_noted(int descriptor, int number) {
    pthread_mutex_lock(&lock);
    int file = file_of(descriptor);
    int done = file && !writes_left ? (errno = failure, -1) : (int)syscall(number, descriptor);
    if (file && !done) {
        syncs++;
        note('s', file, 0, "", 0);
    }
    pthread_mutex_unlock(&lock);
    return done;
}

int fsync(int descriptor) { return sync_noted(descriptor, SYS_fsync); }
int fdatasync(int descriptor) { return sync_noted(descriptor, SYS_fdatasync); }

static int truncate_noted(int descriptor, off_t length) {
    pthread_mutex_lock(&lock);
    int done = syscall(SYS_ftruncate, descriptor, length);
    if (!done && file_of(descriptor))
        note('t', file_of(descriptor), length, "", 0);
    pthread_mutex_unlock(&lock);
    return done;
}

int ftruncate(int descriptor, off_t length) { return truncate_noted(descriptor, length); }
int ftruncate64(int descriptor, off_t length) { return truncate_noted(descriptor, length); }

/* What changes names. `rename` and `link` are noted as a pair of names, with a NUL between. */

static int named(int done, char kind, const char *path) {
    const char *name;
    if (!done && is_ours(path, &name))
        note(kind, 0, 0, name, strlen(name));
    return done;
}

int unlink(const char *path) {
    pthread_mutex_lock(&lock);
    int done = named(syscall(SYS_unlink, path), 'u', path);
    pthread_mutex_unlock(&lock);
    return done;
}

int unlinkat(int folder, const char *path, int flags) {
    pthread_mutex_lock(&lock);
    int done = named(syscall(SYS_unlinkat, folder, path, flags), 'u', path);
    pthread_mutex_unlock(&lock);
    return done;
}

int mkdir(const char *path, mode_t mode) {
    pthread_mutex_lock(&lock);
    int done = named(syscall(SYS_mkdir, path, mode), 'm', path);
    pthread_mutex_unlock(&lock);
    return done;
}

int mkdirat(int folder, const char *path, mode_t mode) {
    pthread_mutex_lock(&lock);
    int done = named(syscall(SYS_mkdirat, folder, path, mode), 'm', path);
    pthread_mutex_unlock(&lock);
    return done;
}

/* What has no note would be missed: let whoever begins to use it find out at once. */
#define UNKNOWN(signature) signature { const char *name; if (is_ours(from, &name)) abort(); errno = ENOSYS; return -1; }
UNKNOWN(int rename(const char *from, const char *to))
UNKNOWN(int link(const char *from, const char *to))

static ssize_t unknown_write(int descriptor) {
    if (file_of(descriptor))
        abort();
    return 0;
}

ssize_t writev(int descriptor, const struct iovec *parts, int count) {
    unknown_write(descriptor);
    return syscall(SYS_writev, descriptor, parts, count);
}
ssize_t pwritev(int descriptor, const struct iovec *parts, int count, off_t offset) {
    unknown_write(descriptor);
    return REAL(pwritev)(descriptor, parts, count, offset);
}
ssize_t pwritev2(int descriptor, const struct iovec *parts, int count, off_t offset, int flags) {
    unknown_write(descriptor);
    return REAL(pwritev2)(descriptor, parts, count, offset, flags);
}
ssize_t sendfile(int out, int in, off_t *offset, size_t count) {
    unknown_write(out);
    return syscall(SYS_sendfile, out, in, offset, count);
}
int fallocate(int descriptor, int mode, off_t offset, off_t length) {
    unknown_write(descriptor);
    return syscall(SYS_fallocate, descriptor, mode, offset, length);
}

/* For the program itself, through ctypes. */

/* A reply has left: what stands in `bytes`. */
void recorder_reply(const char *bytes, int length) {
    pthread_mutex_lock(&lock);
    begin();
    note('r', 0, 0, bytes, length);
    pthread_mutex_unlock(&lock);
}

/* From the write after so many on, all that needs room fails with this error; -1: nothing does. */
void recorder_fail_after(long writes, int error) {
    pthread_mutex_lock(&lock);
    writes_left = writes;
    failure = error;
    pthread_mutex_unlock(&lock);
}

/* Whether a write has failed, or would have, since then. */
int recorder_has_failed(void) { return writes_left == 0; }

/* How many files and folders have been synced. */
long recorder_syncs(void) { return syncs; }
