// The kernel's messages that change a tree. Layouts and numbers: Linux 6.18,
// include/uapi/linux/fuse.h, protocol 7.45.
#pragma once

#include "abi/fuse_nodes.hpp"

namespace zc::abi {

// Which fields of a SETATTR are meant.
namespace fattr {
inline constexpr std::uint32_t mode = 1U << 0;
inline constexpr std::uint32_t uid = 1U << 1;
inline constexpr std::uint32_t gid = 1U << 2;
inline constexpr std::uint32_t size = 1U << 3;
inline constexpr std::uint32_t atime = 1U << 4;
inline constexpr std::uint32_t mtime = 1U << 5;
inline constexpr std::uint32_t fh = 1U << 6;
inline constexpr std::uint32_t atime_now = 1U << 7;
inline constexpr std::uint32_t mtime_now = 1U << 8;
}  // namespace fattr

// A write that the kernel sends from its page cache: it says nothing about who wrote.
inline constexpr std::uint32_t kWriteFromCache = 1U << 0;
inline constexpr std::uint32_t kFsyncDataOnly = 1U << 0;

struct SetattrIn {
    std::uint32_t valid;
    std::uint32_t padding;
    std::uint64_t fh;
    std::uint64_t size;
    std::uint64_t lock_owner;
    std::uint64_t atime;
    std::uint64_t mtime;
    std::uint64_t ctime;
    std::uint32_t atimensec;
    std::uint32_t mtimensec;
    std::uint32_t ctimensec;
    std::uint32_t mode;
    std::uint32_t unused4;
    std::uint32_t uid;
    std::uint32_t gid;
    std::uint32_t unused5;
};
static_assert(sizeof(SetattrIn) == 88);

struct MknodIn {
    std::uint32_t mode;
    std::uint32_t rdev;
    std::uint32_t umask;
    std::uint32_t padding;
};
static_assert(sizeof(MknodIn) == 16);

struct MkdirIn {
    std::uint32_t mode;
    std::uint32_t umask;
};
static_assert(sizeof(MkdirIn) == 8);

struct RenameIn {
    std::uint64_t newdir;
};
static_assert(sizeof(RenameIn) == 8);

struct Rename2In {
    std::uint64_t newdir;
    std::uint32_t flags;
    std::uint32_t padding;
};
static_assert(sizeof(Rename2In) == 16);

struct LinkIn {
    std::uint64_t oldnodeid;
};
static_assert(sizeof(LinkIn) == 8);

struct CreateIn {
    std::uint32_t flags;
    std::uint32_t mode;
    std::uint32_t umask;
    std::uint32_t open_flags;
};
static_assert(sizeof(CreateIn) == 16);

struct CreateOut {
    EntryOut entry;
    OpenOut open;
};
static_assert(sizeof(CreateOut) == 144);

struct WriteIn {
    std::uint64_t fh;
    std::uint64_t offset;
    std::uint32_t size;
    std::uint32_t write_flags;
    std::uint64_t lock_owner;
    std::uint32_t flags;
    std::uint32_t padding;
};
static_assert(sizeof(WriteIn) == 40);

struct WriteOut {
    std::uint32_t size;
    std::uint32_t padding;
};
static_assert(sizeof(WriteOut) == 8);

struct FsyncIn {
    std::uint64_t fh;
    std::uint32_t flags;
    std::uint32_t padding;
};
static_assert(sizeof(FsyncIn) == 16);

struct SetxattrIn {
    std::uint32_t size;
    std::uint32_t flags;
};
static_assert(sizeof(SetxattrIn) == 8);

struct FallocateIn {
    std::uint64_t fh;
    std::uint64_t offset;
    std::uint64_t length;
    std::uint32_t mode;
    std::uint32_t padding;
};
static_assert(sizeof(FallocateIn) == 32);

struct CopyFileRangeIn {
    std::uint64_t fh_in;
    std::uint64_t offset_in;
    std::uint64_t nodeid_out;
    std::uint64_t fh_out;
    std::uint64_t offset_out;
    std::uint64_t length;
    std::uint64_t flags;
};
static_assert(sizeof(CopyFileRangeIn) == 56);

struct CopyFileRangeOut {
    std::uint64_t copied;
};
static_assert(sizeof(CopyFileRangeOut) == 8);

struct IoctlIn {
    std::uint64_t fh;
    std::uint32_t flags;
    std::uint32_t command;
    std::uint64_t argument;
    std::uint32_t in_size;
    std::uint32_t out_size;
};
static_assert(sizeof(IoctlIn) == 32);

struct IoctlOut {
    std::int32_t result;
    std::uint32_t flags;
    std::uint32_t in_iovs;
    std::uint32_t out_iovs;
};
static_assert(sizeof(IoctlOut) == 16);

}  // namespace zc::abi
