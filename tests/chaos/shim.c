/* Stands between the program and its disk (LD_PRELOAD): fails what it is told to fail, and cuts the power at a write.
 *
 *   REKEYD_SHIM_BELOW  the folder it watches; files elsewhere are none of its business
 *   REKEYD_SHIM_ORDER  a file with one order, looked at before each call; no file, no order:
 *                        fsync ERRNO   every sync fails
 *                        write ERRNO   every write fails
 *                        cut N         the process is gone after the Nth write, truncation or sync since the order was given
 *                        hang 1        a write, truncation or sync does not return until the order is gone, as on a disk that went away
 *   REKEYD_SHIM_DUMP   where a cut leaves what no sync had vouched for at that moment; shim.rs reads it
 *
 * It covers what the journal's files are written with: write, pwrite64, ftruncate64, fsync. Names (create, rename, unlink) are taken
 * to be on the disk at once, and so is what goes around the C library (the ballast's fallocate).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* One write or truncation that no sync has vouched for. */
struct change {
    struct change *next;
    char path[512];
    uint64_t offset, size_before, size_after;
    uint32_t old_length, new_length;
    unsigned char *old_bytes, *new_bytes;
};

static struct change *first, **last = &first;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t calls;

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite64)(int, const void *, size_t, off64_t);
static int (*real_ftruncate64)(int, off64_t);
static int (*real_fsync)(int);

__attribute__((constructor)) static void find(void) {
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite64 = dlsym(RTLD_NEXT, "pwrite64");
    real_ftruncate64 = dlsym(RTLD_NEXT, "ftruncate64");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
}

/* The path of a regular file below the watched folder; else 0. */
static int watched(int fd, char path[512]) {
    const char *below = getenv("REKEYD_SHIM_BELOW");
    struct stat about;
    char link[64];
    if (fd <= 2 || !below || fstat(fd, &about) || !S_ISREG(about.st_mode)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, 511);
    if (length < 0) return 0;
    path[length] = 0;
    return !strncmp(path, below, strlen(below));
}

static uint64_t size_of(int fd) {
    struct stat about;
    return fstat(fd, &about) ? 0 : (uint64_t)about.st_size;
}

/* The order that stands now: its word, empty where there is none, and its number. */
static void look(char word[16], unsigned long long *number) {
    char text[64] = "";
    const char *path = getenv("REKEYD_SHIM_ORDER");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0 || read(fd, text, sizeof text - 1) <= 0 || sscanf(text, "%15s %llu", word, number) != 2) word[0] = 0;
    if (fd >= 0) close(fd);
}

/* What the order says about this kind of call: an errno, or 0. Returns no sooner than the disk answers again. */
static int order(const char *kind, uint64_t *cut) {
    char word[16] = "";
    unsigned long long number = 0;
    *cut = 0;
    for (look(word, &number); !strcmp(word, "hang"); look(word, &number)) usleep(10000);
    if (!strcmp(word, "cut")) {
        *cut = number;
        calls++;
    } else {
        calls = 0;
    }
    return !strcmp(word, kind) ? (int)number : 0;
}

static void put(int fd, const void *bytes, size_t length) {
    while (length > 0) {
        ssize_t done = real_write(fd, bytes, length);
        if (done <= 0) return;
        bytes = (const char *)bytes + done;
        length -= (size_t)done;
    }
}

static void cut_at(uint64_t cut) {
    if (!cut || calls < cut) return;
    const char *dump = getenv("REKEYD_SHIM_DUMP");
    int fd = dump ? open(dump, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
    for (struct change *change = first; change && fd >= 0; change = change->next) {
        uint32_t path_length = (uint32_t)strlen(change->path);
        put(fd, &path_length, 4);
        put(fd, change->path, path_length);
        put(fd, &change->offset, 8);
        put(fd, &change->size_before, 8);
        put(fd, &change->size_after, 8);
        put(fd, &change->old_length, 4);
        put(fd, change->old_bytes, change->old_length);
        put(fd, &change->new_length, 4);
        put(fd, change->new_bytes, change->new_length);
    }
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* Remembers what is about to change: `length` bytes from `offset`, or everything from there to the end. */
static struct change *remember(int fd, const char *path, uint64_t offset, const void *bytes, size_t length) {
    struct change *change = calloc(1, sizeof *change);
    uint64_t size = size_of(fd), old = size > offset ? size - offset : 0;
    if (bytes && old > length) old = length;
    strcpy(change->path, path);
    change->offset = offset;
    change->size_before = size;
    change->old_bytes = malloc(old ? old : 1);
    ssize_t got = 0;
    if (old) {
        /* The file may be open for writing only. */
        int again = open(path, O_RDONLY | O_CLOEXEC);
        got = again < 0 ? 0 : pread64(again, change->old_bytes, old, (off64_t)offset);
        if (again >= 0) close(again);
    }
    change->old_length = got > 0 ? (uint32_t)got : 0;
    change->new_bytes = malloc(length ? length : 1);
    if (bytes) memcpy(change->new_bytes, bytes, length);
    change->new_length = (uint32_t)length;
    *last = change;
    last = &change->next;
    return change;
}

static void forget(const char *path) {
    struct change **at = &first;
    while (*at) {
        struct change *change = *at;
        if (strcmp(change->path, path)) {
            at = &change->next;
            continue;
        }
        *at = change->next;
        free(change->old_bytes);
        free(change->new_bytes);
        free(change);
    }
    last = at;
}

/* `offset` is -1 for a write at the file's own position. */
static ssize_t write_at(int fd, const void *bytes, size_t length, off64_t offset) {
    char path[512];
    uint64_t cut;
    if (!watched(fd, path))
        return offset < 0 ? real_write(fd, bytes, length) : real_pwrite64(fd, bytes, length, offset);
    pthread_mutex_lock(&lock);
    int fails = order("write", &cut);
    ssize_t done = -1;
    if (fails) {
        errno = fails;
    } else {
        uint64_t at = offset < 0 ? (uint64_t)lseek64(fd, 0, SEEK_CUR) : (uint64_t)offset;
        struct change *change = remember(fd, path, at, bytes, length);
        done = offset < 0 ? real_write(fd, bytes, length) : real_pwrite64(fd, bytes, length, offset);
        int error = errno;
        if (done >= 0) change->new_length = (uint32_t)done; else change->new_length = 0;
        change->size_after = size_of(fd);
        cut_at(cut);
        errno = error;
    }
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t write(int fd, const void *bytes, size_t length) { return write_at(fd, bytes, length, -1); }

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) { return write_at(fd, bytes, length, offset); }

int ftruncate64(int fd, off64_t length) {
    char path[512];
    uint64_t cut;
    if (!watched(fd, path)) return real_ftruncate64(fd, length);
    pthread_mutex_lock(&lock);
    int fails = order("write", &cut), done = -1;
    if (fails) {
        errno = fails;
    } else {
        struct change *change = remember(fd, path, (uint64_t)length, NULL, 0);
        done = real_ftruncate64(fd, length);
        int error = errno;
        change->size_after = size_of(fd);
        cut_at(cut);
        errno = error;
    }
    pthread_mutex_unlock(&lock);
    return done;
}

int fsync(int fd) {
    char path[512];
    uint64_t cut;
    if (!watched(fd, path)) return real_fsync(fd);
    pthread_mutex_lock(&lock);
    int fails = order("fsync", &cut), done = -1;
    if (fails) {
        errno = fails;
    } else {
        done = real_fsync(fd);
        int error = errno;
        if (!done) forget(path);
        cut_at(cut);
        errno = error;
    }
    pthread_mutex_unlock(&lock);
    return done;
}
