// The kernel's messages about nodes, which the data path reads and writes when it answers for
// directories. Layouts and numbers: Linux 6.18, include/uapi/linux/fuse.h, protocol 7.45.
#pragma once

#include "abi/fuse.hpp"

namespace zc::abi {

inline constexpr std::uint32_t kNotifyIncEpoch = 8;  // since protocol 7.44, Linux 6.16
inline constexpr std::uint32_t kMinorWithIncEpoch = 44;
inline constexpr std::uint32_t kGetattrByHandle = 1U << 0;

namespace fopen {
inline constexpr std::uint32_t cache_dir = 1U << 3;
}  // namespace fopen

struct ForgetIn {
    std::uint64_t lookups;
};
static_assert(sizeof(ForgetIn) == 8);

struct ForgetOne {
    std::uint64_t nodeid;
    std::uint64_t lookups;
};
static_assert(sizeof(ForgetOne) == 16);

struct BatchForgetIn {
    std::uint32_t count;
    std::uint32_t dummy;
};
static_assert(sizeof(BatchForgetIn) == 8);

struct GetattrIn {
    std::uint32_t flags;
    std::uint32_t dummy;
    std::uint64_t fh;
};
static_assert(sizeof(GetattrIn) == 16);

struct StatxIn {
    std::uint32_t getattr_flags;
    std::uint32_t reserved;
    std::uint64_t fh;
    std::uint32_t flags;
    std::uint32_t mask;
};
static_assert(sizeof(StatxIn) == 24);

struct StatxTime {
    std::int64_t seconds;
    std::uint32_t nanoseconds;
    std::int32_t reserved;
};

struct Statx {
    std::uint32_t mask;
    std::uint32_t blksize;
    std::uint64_t attributes;
    std::uint32_t nlink;
    std::uint32_t uid;
    std::uint32_t gid;
    std::uint16_t mode;
    std::uint16_t spare0;
    std::uint64_t ino;
    std::uint64_t size;
    std::uint64_t blocks;
    std::uint64_t attributes_mask;
    StatxTime atime;
    StatxTime btime;
    StatxTime ctime;
    StatxTime mtime;
    std::uint32_t rdev_major;
    std::uint32_t rdev_minor;
    std::uint32_t dev_major;
    std::uint32_t dev_minor;
    std::uint64_t spare2[14];
};
static_assert(sizeof(Statx) == 256);

struct StatxOut {
    std::uint64_t attr_valid;
    std::uint32_t attr_valid_nsec;
    std::uint32_t flags;
    std::uint64_t spare[2];
    Statx stat;
};
static_assert(sizeof(StatxOut) == 288);

struct OpenIn {
    std::uint32_t flags;
    std::uint32_t open_flags;
};
static_assert(sizeof(OpenIn) == 8);

struct AccessIn {
    std::uint32_t mask;
    std::uint32_t padding;
};
static_assert(sizeof(AccessIn) == 8);

struct StatfsOut {
    std::uint64_t blocks;
    std::uint64_t bfree;
    std::uint64_t bavail;
    std::uint64_t files;
    std::uint64_t ffree;
    std::uint32_t bsize;
    std::uint32_t namelen;
    std::uint32_t frsize;
    std::uint32_t padding;
    std::uint32_t spare[6];
};
static_assert(sizeof(StatfsOut) == 80);

struct GetxattrIn {
    std::uint32_t size;
    std::uint32_t padding;
};
static_assert(sizeof(GetxattrIn) == 8);

struct GetxattrOut {
    std::uint32_t size;
    std::uint32_t padding;
};
static_assert(sizeof(GetxattrOut) == 8);

}  // namespace zc::abi
