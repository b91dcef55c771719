/* Stands between a process and the kernel (LD_PRELOAD): writes down every change under one folder, and refuses some.

   SHIM_ROOT   the folder, without links in its path; calls that touch nothing under it pass untouched
   SHIM_LOG    where to write the record; empty: nowhere. Must lie outside of SHIM_ROOT
   SHIM_FAULT  "<what>:<n>:<how>:<span>": of the calls of a kind (sync, write, name: all else that changes a folder or a
               length) refuse the n-th (span `once`), or it and all after it (`always`). <how> is an errno, `short`
               (write half of it) or `kill` (end the process before the call)
   SHIM_LIE    not empty: syncs are neither made nor written down, and succeed

   A record is one write: "<kind> <inode> <number> <length of path> <length of second path> <length of bytes>\n" and these
   three. Kinds: C file created, D folder made, W bytes written at <number>, T length set to <number>, S synced,
   F sync that failed, R renamed, L linked, U removed, M a mark that the process itself made (shim_mark).
   A call and its record are one under a lock that all processes share, so the order of the records is the order of the
   calls. A -shm is counted but not written down: SQLite makes it anew. Only 64-bit Linux. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { SYNC, WRITE, NAME, KINDS };
enum { PASS, UNSEEN, SEEN }; /* not ours; ours, but not to be written down; ours */

static const char *const kinds[KINDS] = {"sync", "write", "name"};
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX], fault_how[16], fault_span[16];
static size_t root_length;
static int record_descriptor = -1, lying, fault_kind;
static long fault_at, counts[KINDS];

/* Read the environment again, and count from nothing: a forked process may have been given another task. */
__attribute__((constructor)) void shim_reload(void) {
    const char *folder = getenv("SHIM_ROOT"), *log = getenv("SHIM_LOG"), *fault = getenv("SHIM_FAULT"), *lie = getenv("SHIM_LIE");
    char what[16] = "";
    snprintf(root, sizeof root, "%s", folder ? folder : "");
    root_length = strlen(root);
    lying = lie && *lie;
    if (record_descriptor >= 0) syscall(SYS_close, record_descriptor);
    record_descriptor = -1;
    if (log && *log) {
        int descriptor = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        record_descriptor = fcntl(descriptor, F_DUPFD_CLOEXEC, 700); /* out of the way of tests that count descriptors */
        if (record_descriptor < 0) abort();
        syscall(SYS_close, descriptor);
    }
    memset(counts, 0, sizeof counts);
    fault_at = 0;
    if (fault && *fault) {
        if (sscanf(fault, "%15[a-z]:%ld:%15[0-9a-z]:%15[a-z]", what, &fault_at, fault_how, fault_span) != 4) abort();
        for (fault_kind = 0; strcmp(kinds[fault_kind], what) != 0;) if (++fault_kind == KINDS) abort();
    }
}

long shim_count(const char *what) {
    for (int kind = 0; kind < KINDS; kind++) if (strcmp(kinds[kind], what) == 0) return counts[kind];
    return -1;
}

static void hold(short type) {
    /* A POSIX lock belongs to a process, so parent and forked child exclude each other, and the killed let go. */
    struct flock range = {.l_type = type, .l_whence = SEEK_SET};
    if (record_descriptor >= 0) while (fcntl(record_descriptor, F_SETLKW, &range) < 0 && errno == EINTR) {}
}
static void enter(void) { pthread_mutex_lock(&mutex); hold(F_WRLCK); }
static long leave(long result) {
    int error = errno;
    hold(F_UNLCK);
    pthread_mutex_unlock(&mutex);
    errno = error;
    return result;
}

static void record(char kind, unsigned long inode, long number, const char *path, const char *second, const void *bytes, size_t length) {
    char head[96];
    int error = errno;
    if (record_descriptor < 0) return;
    size_t size = snprintf(head, sizeof head, "%c %lu %ld %zu %zu %zu\n", kind, inode, number, strlen(path), strlen(second), length);
    struct iovec parts[4] = {{head, size}, {(void *)path, strlen(path)}, {(void *)second, strlen(second)}, {(void *)bytes, length}};
    if (syscall(SYS_writev, record_descriptor, parts, 4) != (long)(size + strlen(path) + strlen(second) + length)) abort();
    errno = error;
}

void shim_mark(const char *bytes, size_t length) { enter(); record('M', 0, 0, "", "", bytes, length); leave(0); }

static int ours(const char *path) {
    size_t length = strlen(path);
    if (!root_length || strncmp(path, root, root_length) != 0 || (path[root_length] && path[root_length] != '/')) return PASS;
    return length > 4 && strcmp(path + length - 4, "-shm") == 0 ? UNSEEN : SEEN;
}
static int ours_at(int descriptor, char *path) {
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = root_length ? readlink(link, path, PATH_MAX - 1) : 0;
    path[length > 0 ? length : 0] = 0;
    return ours(path);
}
static int ours_named(int folder, const char *name, char *path) {
    char start[PATH_MAX] = "";
    if (!root_length) return PASS;
    if (*name == '/') { snprintf(path, PATH_MAX, "%s", name); return ours(path); }
    if (folder == AT_FDCWD) { if (!getcwd(start, sizeof start)) return PASS; } else ours_at(folder, start);
    if (snprintf(path, PATH_MAX, "%s/%s", start, name) >= PATH_MAX) return PASS;
    return ours(path);
}
static unsigned long inode_of(int descriptor, long *size) {
    struct stat status;
    if (fstat(descriptor, &status) < 0) abort();
    if (size) *size = status.st_size;
    return status.st_ino;
}

/* Whether this call is the one to refuse: 0 no, -1 make it short, else the errno. */
static int refused(int kind) {
    counts[kind]++;
    if (kind != fault_kind || !fault_at || counts[kind] < fault_at || (counts[kind] > fault_at && strcmp(fault_span, "once") == 0)) return 0;
    if (strcmp(fault_how, "kill") == 0) kill(getpid(), SIGKILL);
    return strcmp(fault_how, "short") == 0 ? -1 : atoi(fault_how);
}

static ssize_t transfer(int descriptor, const struct iovec *parts, int count, off_t offset) {
    char path[PATH_MAX];
    int whose = ours_at(descriptor, path);
    if (whose == PASS) return offset < 0 ? syscall(SYS_writev, descriptor, parts, count) : syscall(SYS_pwritev, descriptor, parts, count, offset, 0);
    size_t length = 0;
    for (int index = 0; index < count; index++) length += parts[index].iov_len;
    char *bytes = malloc(length + 1), *end = bytes;
    if (!bytes) abort();
    for (int index = 0; index < count; index++) end = mempcpy(end, parts[index].iov_base, parts[index].iov_len);
    enter();
    int error = refused(WRITE);
    ssize_t done = -1;
    if (error > 0) errno = error;
    else {
        size_t asked = error < 0 && length > 1 ? length / 2 : length;
        done = offset < 0 ? syscall(SYS_write, descriptor, bytes, asked) : syscall(SYS_pwrite64, descriptor, bytes, asked, offset);
        long start = offset < 0 ? lseek(descriptor, 0, SEEK_CUR) - done : offset;
        if (done > 0 && whose == SEEN) record('W', inode_of(descriptor, NULL), start, "", "", bytes, done);
    }
    leave(0);
    error = errno;
    free(bytes);
    errno = error;
    return done;
}
ssize_t write(int descriptor, const void *bytes, size_t length) {
    struct iovec part = {(void *)bytes, length};
    return transfer(descriptor, &part, 1, -1);
}
ssize_t writev(int descriptor, const struct iovec *parts, int count) { return transfer(descriptor, parts, count, -1); }
ssize_t pwrite(int descriptor, const void *bytes, size_t length, off_t offset) {
    struct iovec part = {(void *)bytes, length};
    return transfer(descriptor, &part, 1, offset);
}
ssize_t pwrite64(int, const void *, size_t, off_t) __attribute__((alias("pwrite")));
ssize_t pwritev(int descriptor, const struct iovec *parts, int count, off_t offset) { return transfer(descriptor, parts, count, offset); }
ssize_t pwritev64(int, const struct iovec *, int, off_t) __attribute__((alias("pwritev")));

/* Whoever copies within the kernel shall write instead: what is not seen cannot be taken away. */
ssize_t copy_file_range(int from, off64_t *at, int to, off64_t *there, size_t length, unsigned flags) {
    char path[PATH_MAX];
    if (ours_at(to, path) != PASS) { errno = EXDEV; return -1; }
    return syscall(SYS_copy_file_range, from, at, to, there, length, flags);
}
ssize_t sendfile(int to, int from, off_t *offset, size_t length) {
    char path[PATH_MAX];
    if (ours_at(to, path) != PASS) { errno = EINVAL; return -1; }
    return syscall(SYS_sendfile, to, from, offset, length);
}
ssize_t sendfile64(int, int, off_t *, size_t) __attribute__((alias("sendfile")));

static int synced(int descriptor, long call) {
    char path[PATH_MAX];
    int whose = ours_at(descriptor, path);
    if (whose == PASS) return syscall(call, descriptor);
    enter();
    int error = refused(SYNC);
    if (lying) return leave(0);
    if (error <= 0 && syscall(call, descriptor) < 0) error = errno;
    if (whose == SEEN) record(error > 0 ? 'F' : 'S', inode_of(descriptor, NULL), 0, "", "", "", 0);
    errno = error > 0 ? error : errno;
    return leave(error > 0 ? -1 : 0);
}
int fsync(int descriptor) { return synced(descriptor, SYS_fsync); }
int fdatasync(int descriptor) { return synced(descriptor, SYS_fdatasync); }

static int resized(int descriptor, int (*resize)(int, off_t, off_t), off_t offset, off_t length) {
    char path[PATH_MAX];
    long size;
    int whose = ours_at(descriptor, path), error, result;
    if (whose == PASS) return resize(descriptor, offset, length);
    enter();
    if ((error = refused(NAME)) > 0) { errno = error; return leave(-1); }
    result = resize(descriptor, offset, length);
    unsigned long inode = inode_of(descriptor, &size);
    if (result == 0 && whose == SEEN) record('T', inode, size, "", "", "", 0);
    return leave(result);
}
static int cut(int descriptor, off_t offset, off_t length) { return syscall(SYS_ftruncate, descriptor, offset + length); }
static int grow(int descriptor, off_t offset, off_t length) { return syscall(SYS_fallocate, descriptor, 0, offset, length); }
int ftruncate(int descriptor, off_t length) { return resized(descriptor, cut, 0, length); }
int ftruncate64(int, off_t) __attribute__((alias("ftruncate")));
int fallocate(int descriptor, int mode, off_t offset, off_t length) {
    if (mode) { errno = EOPNOTSUPP; return -1; }
    return resized(descriptor, grow, offset, length);
}
int fallocate64(int, int, off_t, off_t) __attribute__((alias("fallocate")));
int posix_fallocate(int descriptor, off_t offset, off_t length) { return resized(descriptor, grow, offset, length) ? errno : 0; }
int posix_fallocate64(int, off_t, off_t) __attribute__((alias("posix_fallocate")));

static int opened(int folder, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    struct stat status;
    int whose = flags & (O_CREAT | O_TRUNC) ? ours_named(folder, name, path) : PASS, error;
    if (whose == PASS) return syscall(SYS_openat, folder, name, flags, mode);
    enter();
    int existed = fstatat(AT_FDCWD, path, &status, 0) == 0;
    if ((!existed || flags & O_TRUNC) && (error = refused(NAME)) > 0) { errno = error; return leave(-1); }
    int descriptor = syscall(SYS_openat, folder, name, flags, mode);
    if (descriptor >= 0 && whose == SEEN) {
        if (!existed) record('C', inode_of(descriptor, NULL), 0, path, "", "", 0);
        else if (flags & O_TRUNC) record('T', inode_of(descriptor, NULL), 0, "", "", "", 0);
    }
    return leave(descriptor);
}
#define MODE(flags) mode_t mode = 0; if (flags & (O_CREAT | __O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }
int open(const char *name, int flags, ...) { MODE(flags) return opened(AT_FDCWD, name, flags, mode); }
int open64(const char *, int, ...) __attribute__((alias("open")));
int openat(int folder, const char *name, int flags, ...) { MODE(flags) return opened(folder, name, flags, mode); }
int openat64(int, const char *, int, ...) __attribute__((alias("openat")));
int creat(const char *name, mode_t mode) { return opened(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *, mode_t) __attribute__((alias("creat")));

static int moved(char kind, int folder, const char *name, int other, const char *target, unsigned flags) {
    char path[PATH_MAX], second[PATH_MAX];
    int from = ours_named(folder, name, path), to = ours_named(other, target, second), error;
    long call = kind == 'R' ? SYS_renameat2 : SYS_linkat;
    if (from == PASS && to == PASS) return syscall(call, folder, name, other, target, flags);
    enter();
    if ((error = refused(NAME)) > 0) { errno = error; return leave(-1); }
    int result = syscall(call, folder, name, other, target, flags);
    if (result == 0) record(kind, 0, 0, path, second, "", 0);
    return leave(result);
}
int rename(const char *name, const char *target) { return moved('R', AT_FDCWD, name, AT_FDCWD, target, 0); }
int renameat(int folder, const char *name, int other, const char *target) { return moved('R', folder, name, other, target, 0); }
int renameat2(int folder, const char *name, int other, const char *target, unsigned flags) { return moved('R', folder, name, other, target, flags); }
int link(const char *name, const char *target) { return moved('L', AT_FDCWD, name, AT_FDCWD, target, 0); }
int linkat(int folder, const char *name, int other, const char *target, int flags) { return moved('L', folder, name, other, target, flags); }

static int removed(int folder, const char *name, int flags) {
    char path[PATH_MAX];
    int whose = ours_named(folder, name, path), error;
    if (whose == PASS) return syscall(SYS_unlinkat, folder, name, flags);
    enter();
    if ((error = refused(NAME)) > 0) { errno = error; return leave(-1); }
    int result = syscall(SYS_unlinkat, folder, name, flags);
    if (result == 0 && whose == SEEN) record('U', 0, 0, path, "", "", 0);
    return leave(result);
}
int unlink(const char *name) { return removed(AT_FDCWD, name, 0); }
int unlinkat(int folder, const char *name, int flags) { return removed(folder, name, flags); }
int rmdir(const char *name) { return removed(AT_FDCWD, name, AT_REMOVEDIR); }

int mkdirat(int folder, const char *name, mode_t mode) {
    char path[PATH_MAX];
    struct stat status;
    int whose = ours_named(folder, name, path), error;
    if (whose == PASS) return syscall(SYS_mkdirat, folder, name, mode);
    enter();
    if ((error = refused(NAME)) > 0) { errno = error; return leave(-1); }
    int result = syscall(SYS_mkdirat, folder, name, mode);
    if (result == 0 && fstatat(AT_FDCWD, path, &status, 0) == 0) record('D', status.st_ino, 0, path, "", "", 0);
    return leave(result);
}
int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }
