// Preloaded into a daemon, leaves out one rule of a push (ZCFUSE_WITHOUT), and sends replies late, so
// that changes come while they are on their way. The rules are in
// zcfuse/datapath/native/serve/coherence/pushers.hpp.
//
//   again       INVAL_INODE never fails, so nothing follows an ENOENT
//   listing     no INVAL_INODE follows an INVAL_ENTRY
//   merged      nothing waits for the listing of a merged directory
//   pages       INVAL_INODE of a file covers its attributes only
//   attributes  INVAL_INODE of attributes alone is left out
//   watch       inotify reports no names but those of the fence, which is watched first
//   (none)      only the replies are late
//
// ZCFUSE_LATE_US delays each reply. ZCFUSE_LATE_OPCODE (and ZCFUSE_LATE_NAME, of a LOOKUP) chooses
// requests by their kind: when a reply to one is ready, the file ZCFUSE_LATE_SIGN appears, and the
// reply waits until ZCFUSE_LATE_GATE exists.
// With ZCFUSE_MARK_ERRNO fanotify watches no filesystem, and gives that number. ZCFUSE_WATCHES is the
// number of directories that inotify watches.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/uio.h>
#include <unistd.h>

enum { kGetattr = 3, kRoot = 1, kRequestBytes = 40, kInvalInode = 2, kInvalEntry = 3, kHeaderBytes = 16 };
enum { kPauseUs = 1000 };

struct header {
    uint32_t len;
    int32_t error;
    uint64_t unique;
};
struct request {
    uint32_t len;
    uint32_t opcode;
    uint64_t unique;
    uint64_t nodeid;
};
struct inval_inode {
    uint64_t nodeid;
    int64_t offset;
    int64_t length;
};

static _Thread_local uint64_t named_directory;
static _Atomic uint64_t late_request;

static int leaves_out(const char* rule) {
    const char* without = getenv("ZCFUSE_WITHOUT");
    return without && strcmp(without, rule) == 0;
}

static ssize_t real_writev(int fd, const struct iovec* pieces, int count) {
    static ssize_t (*next)(int, const struct iovec*, int);
    if (!next) {
        next = (ssize_t(*)(int, const struct iovec*, int))dlsym(RTLD_NEXT, "writev");
    }
    return next(fd, pieces, count);
}

static ssize_t invalidate_inode(int fd, const struct iovec* pieces, int count) {
    struct inval_inode* body = pieces[1].iov_base;
    const int of_listing = body->nodeid == named_directory;
    named_directory = 0;
    if (of_listing && leaves_out("listing")) {
        return (ssize_t)((const struct header*)pieces[0].iov_base)->len;
    }
    if (body->offset < 0 && leaves_out("attributes")) {
        return (ssize_t)((const struct header*)pieces[0].iov_base)->len;
    }
    if (!of_listing && leaves_out("pages")) {
        body->offset = -1;
    }
    const ssize_t sent = real_writev(fd, pieces, count);
    if (sent < 0 && errno == ENOENT && leaves_out("again")) {
        return (ssize_t)((const struct header*)pieces[0].iov_base)->len;
    }
    return sent;
}

static int is_chosen(const void* message, ssize_t size) {
    const char* opcode = getenv("ZCFUSE_LATE_OPCODE");
    const struct request* request = message;
    if (!opcode || size < kRequestBytes || request->opcode != (uint32_t)atoi(opcode)) {
        return 0;
    }
    if (request->opcode == kGetattr && request->nodeid == kRoot) {
        return 0;  // the daemon waits for it before it says that the mount is ready
    }
    const char* name = getenv("ZCFUSE_LATE_NAME");
    return !name || (size == (ssize_t)(kRequestBytes + strlen(name) + 1) &&
                     strcmp((const char*)message + kRequestBytes, name) == 0);
}

ssize_t read(int fd, void* buffer, size_t size) {
    static ssize_t (*next)(int, void*, size_t);
    if (!next) {
        next = (ssize_t(*)(int, void*, size_t))dlsym(RTLD_NEXT, "read");
    }
    const ssize_t got = next(fd, buffer, size);
    if (is_chosen(buffer, got)) {
        late_request = ((const struct request*)buffer)->unique;
    }
    return got;
}

int inotify_add_watch(int queue, const char* path, uint32_t mask) {
    static _Atomic int watched;
    static int (*next)(int, const char*, uint32_t);
    if (!next) {
        next = (int (*)(int, const char*, uint32_t))dlsym(RTLD_NEXT, "inotify_add_watch");
    }
    const char* most = getenv("ZCFUSE_WATCHES");
    const int number = mask & IN_ONLYDIR ? watched++ : 0;
    if (most && number >= atoi(most) && (mask & IN_ONLYDIR)) {
        errno = ENOSPC;
        return -1;
    }
    if (number > 0 && leaves_out("watch")) {
        mask = IN_ONLYDIR | IN_DELETE_SELF;
    }
    return next(queue, path, mask);
}

int fanotify_mark(int group, unsigned flags, uint64_t mask, int directory, const char* path) {
    static int (*next)(int, unsigned, uint64_t, int, const char*);
    if (!next) {
        next =
            (int (*)(int, unsigned, uint64_t, int, const char*))dlsym(RTLD_NEXT, "fanotify_mark");
    }
    const char* number = getenv("ZCFUSE_MARK_ERRNO");
    if (number && (flags & FAN_MARK_FILESYSTEM) != 0) {
        errno = atoi(number);
        return -1;
    }
    return next(group, flags, mask, directory, path);
}

// Before the reply to a request is sent.
static void delay(uint64_t request) {
    const char* late = getenv("ZCFUSE_LATE_US");
    usleep(late ? (useconds_t)atoi(late) : 0);
    if (late_request == 0 || request != late_request) {
        return;
    }
    close(creat(getenv("ZCFUSE_LATE_SIGN"), 0600));
    while (access(getenv("ZCFUSE_LATE_GATE"), F_OK) != 0) {
        usleep(kPauseUs);
    }
}

ssize_t writev(int fd, const struct iovec* pieces, int count) {
    const struct header* header = count > 0 ? pieces[0].iov_base : NULL;
    if (!header || pieces[0].iov_len != kHeaderBytes) {
        return real_writev(fd, pieces, count);
    }
    if (header->unique != 0) {
        delay(header->unique);
        return real_writev(fd, pieces, count);
    }
    if (header->error == kInvalInode && count == 2) {
        return invalidate_inode(fd, pieces, count);
    }
    if (header->error == kInvalEntry && count > 2 && pieces[2].iov_len == 1 &&
        *(const char*)pieces[2].iov_base == '/' && leaves_out("merged")) {
        return header->len;
    }
    if (header->error == kInvalEntry && count > 1) {
        named_directory = *(const uint64_t*)pieces[1].iov_base;
    }
    return real_writev(fd, pieces, count);
}
