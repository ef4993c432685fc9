// The kernel's FUSE messages, as far as the data path reads or amends them. Declared here because
// the headers of supported distributions (Linux 6.1) lack passthrough and its ioctls. Layouts and
// numbers: Linux 6.18, include/uapi/linux/fuse.h, protocol 7.45.
#pragma once

#include <sys/ioctl.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace zc::abi {

inline constexpr std::uint64_t kRootId = 1;
inline constexpr std::size_t kMinReadBuffer = 8192;
// Bit 0 of a `unique` marks the INTERRUPT of the request whose `unique` has it clear.
inline constexpr std::uint64_t kInterruptBit = 1;
// Of a request that its reader never answered and that was asked for again (kNotifyResend).
inline constexpr std::uint64_t kResendBit = std::uint64_t{1} << 63;

enum class Opcode : std::uint32_t {
    lookup = 1,
    forget = 2,
    getattr = 3,
    setattr = 4,
    readlink = 5,
    symlink = 6,
    mknod = 8,
    mkdir = 9,
    unlink = 10,
    rmdir = 11,
    rename = 12,
    link = 13,
    open = 14,
    read = 15,
    write = 16,
    statfs = 17,
    release = 18,
    fsync = 20,
    setxattr = 21,
    getxattr = 22,
    listxattr = 23,
    removexattr = 24,
    flush = 25,
    init = 26,
    opendir = 27,
    readdir = 28,
    releasedir = 29,
    fsyncdir = 30,
    access = 34,
    create = 35,
    interrupt = 36,
    destroy = 38,
    ioctl = 39,
    poll = 40,
    notify_reply = 41,
    batch_forget = 42,
    fallocate = 43,
    readdirplus = 44,
    rename2 = 45,
    lseek = 46,
    copy_file_range = 47,
    syncfs = 50,
    tmpfile = 51,
    statx = 52,
    copy_file_range_64 = 53,
};
inline constexpr std::size_t kOpcodes =
    64;  // all existing ones, and room; larger ones share slot 0

std::string_view opcode_name(std::uint32_t opcode) noexcept;

inline constexpr std::uint32_t kNotifyInvalInode = 2;
inline constexpr std::uint32_t kNotifyInvalEntry = 3;
inline constexpr std::uint32_t kNotifyResend = 7;  // Linux 6.9

namespace init {
inline constexpr std::uint64_t async_read = 1ULL << 0;
inline constexpr std::uint64_t posix_locks = 1ULL << 1;
inline constexpr std::uint64_t atomic_o_trunc = 1ULL << 3;
inline constexpr std::uint64_t export_support = 1ULL << 4;
inline constexpr std::uint64_t big_writes = 1ULL << 5;
inline constexpr std::uint64_t dont_mask = 1ULL << 6;
inline constexpr std::uint64_t flock_locks = 1ULL << 10;
inline constexpr std::uint64_t has_ioctl_dir = 1ULL << 11;
inline constexpr std::uint64_t auto_inval_data = 1ULL << 12;
inline constexpr std::uint64_t do_readdirplus = 1ULL << 13;
inline constexpr std::uint64_t readdirplus_auto = 1ULL << 14;
inline constexpr std::uint64_t async_dio = 1ULL << 15;
inline constexpr std::uint64_t writeback_cache = 1ULL << 16;
inline constexpr std::uint64_t no_open_support = 1ULL << 17;
inline constexpr std::uint64_t parallel_dirops = 1ULL << 18;
inline constexpr std::uint64_t handle_killpriv = 1ULL << 19;
inline constexpr std::uint64_t posix_acl = 1ULL << 20;
inline constexpr std::uint64_t abort_error = 1ULL << 21;
inline constexpr std::uint64_t max_pages = 1ULL << 22;
inline constexpr std::uint64_t cache_symlinks = 1ULL << 23;
inline constexpr std::uint64_t no_opendir_support = 1ULL << 24;
inline constexpr std::uint64_t handle_killpriv_v2 = 1ULL << 28;
inline constexpr std::uint64_t setxattr_ext = 1ULL << 29;
inline constexpr std::uint64_t init_ext = 1ULL << 30;
inline constexpr std::uint64_t direct_io_allow_mmap = 1ULL << 36;
inline constexpr std::uint64_t passthrough = 1ULL << 37;
// Bit 63 of a `unique` marks a request that was sent before.
inline constexpr std::uint64_t has_resend = 1ULL << 39;
inline constexpr std::uint64_t over_io_uring = 1ULL << 41;
}  // namespace init

std::string_view init_flag_name(unsigned bit) noexcept;

namespace fopen {
inline constexpr std::uint32_t direct_io = 1U << 0;
inline constexpr std::uint32_t keep_cache = 1U << 1;
inline constexpr std::uint32_t noflush = 1U << 5;
inline constexpr std::uint32_t passthrough = 1U << 7;
}  // namespace fopen

struct InHeader {
    std::uint32_t len;
    std::uint32_t opcode;
    std::uint64_t unique;
    std::uint64_t nodeid;
    std::uint32_t uid;
    std::uint32_t gid;
    std::uint32_t pid;
    std::uint16_t total_extlen;
    std::uint16_t padding;
};
static_assert(sizeof(InHeader) == 40);

// The name in a directory that a request is about: "" for a request about a node itself.
std::string_view entry_name(const InHeader& header, std::span<const std::byte> body) noexcept;

struct OutHeader {
    std::uint32_t len;
    std::int32_t error;
    std::uint64_t unique;
};
static_assert(sizeof(OutHeader) == 16);

struct InitIn {
    std::uint32_t major;
    std::uint32_t minor;
    std::uint32_t max_readahead;
    std::uint32_t flags;
    std::uint32_t flags2;
    std::uint32_t unused[11];
};
static_assert(sizeof(InitIn) == 64);

struct InitOut {
    std::uint32_t major;
    std::uint32_t minor;
    std::uint32_t max_readahead;
    std::uint32_t flags;
    std::uint16_t max_background;
    std::uint16_t congestion_threshold;
    std::uint32_t max_write;
    std::uint32_t time_gran;
    std::uint16_t max_pages;
    std::uint16_t map_alignment;
    std::uint32_t flags2;
    std::uint32_t max_stack_depth;
    std::uint16_t request_timeout;
    std::uint16_t unused[11];
};
static_assert(sizeof(InitOut) == 64);

struct Attr {
    std::uint64_t ino;
    std::uint64_t size;
    std::uint64_t blocks;
    std::uint64_t atime;
    std::uint64_t mtime;
    std::uint64_t ctime;
    std::uint32_t atimensec;
    std::uint32_t mtimensec;
    std::uint32_t ctimensec;
    std::uint32_t mode;
    std::uint32_t nlink;
    std::uint32_t uid;
    std::uint32_t gid;
    std::uint32_t rdev;
    std::uint32_t blksize;
    std::uint32_t flags;
};
static_assert(sizeof(Attr) == 88);

struct EntryOut {
    std::uint64_t nodeid;
    std::uint64_t generation;
    std::uint64_t entry_valid;
    std::uint64_t attr_valid;
    std::uint32_t entry_valid_nsec;
    std::uint32_t attr_valid_nsec;
    Attr attr;
};
static_assert(sizeof(EntryOut) == 128);

struct AttrOut {
    std::uint64_t attr_valid;
    std::uint32_t attr_valid_nsec;
    std::uint32_t dummy;
    Attr attr;
};
static_assert(sizeof(AttrOut) == 104);

struct Dirent {
    std::uint64_t ino;
    std::uint64_t off;
    std::uint32_t namelen;
    std::uint32_t type;
};
static_assert(sizeof(Dirent) == 24);

struct OpenOut {
    std::uint64_t fh;
    std::uint32_t open_flags;
    std::int32_t backing_id;
};
static_assert(sizeof(OpenOut) == 16);

struct ReadIn {
    std::uint64_t fh;
    std::uint64_t offset;
    std::uint32_t size;
    std::uint32_t read_flags;
    std::uint64_t lock_owner;
    std::uint32_t flags;
    std::uint32_t padding;
};
static_assert(sizeof(ReadIn) == 40);

struct ReleaseIn {
    std::uint64_t fh;
    std::uint32_t flags;
    std::uint32_t release_flags;
    std::uint64_t lock_owner;
};
static_assert(sizeof(ReleaseIn) == 24);

struct LseekIn {
    std::uint64_t fh;
    std::uint64_t offset;
    std::uint32_t whence;
    std::uint32_t padding;
};
static_assert(sizeof(LseekIn) == 24);

struct InterruptIn {
    std::uint64_t unique;
};

struct NotifyInvalInode {
    std::uint64_t ino;
    std::int64_t off;
    std::int64_t len;
};

struct NotifyInvalEntry {
    std::uint64_t parent;
    std::uint32_t namelen;
    std::uint32_t flags;
};

struct BackingMap {
    std::int32_t fd;
    std::uint32_t flags;
    std::uint64_t padding;
};

inline constexpr unsigned long kIoctlClone = _IOR(229, 0, std::uint32_t);
inline constexpr unsigned long kIoctlBackingOpen = _IOW(229, 1, BackingMap);
inline constexpr unsigned long kIoctlBackingClose = _IOW(229, 2, std::uint32_t);

}  // namespace zc::abi
