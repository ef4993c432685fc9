// System calls about names and nodes, each returning -errno. No state, safe from any thread.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>

#include "sys/unique_fd.hpp"

namespace zc::sys {

// openat2(2) of a path that stays in `directory` and its mount and crosses no symbolic link (Linux
// 5.6): EXDEV at another mount, ELOOP at a link. O_CLOEXEC and O_NOFOLLOW are added.
int open_beneath(int directory, const char* path, int flags, UniqueFd& into) noexcept;

// What the kernel's cache says about a name in a directory (RESOLVE_CACHED, Linux 5.12), without
// waiting for a disk. `unknown`: the disk must be asked. Kernels that do not say give `file`.
enum class Remembered : std::uint8_t { unknown, nothing, file, directory };
Remembered remembered(int directory, const char* name) noexcept;

// open_beneath() without openat2(2), which a sandbox may refuse: name by name.
int walk_beneath(int directory, const char* path, int flags, UniqueFd& into) noexcept;

// open(2) of one name in a directory with O_PATH, a symbolic link itself included.
int step(int directory, const char* name, UniqueFd& into) noexcept;
// Opens the file of a descriptor again, with other flags and the calling thread's permissions.
int reopen(int file, int flags, UniqueFd& into) noexcept;

// statx(2) of `name` in `directory`, or of `directory` itself if the name is empty. Follows no
// symbolic link and triggers no automount. `cached` uses the filesystem's cached attributes,
// without a request to a server or a FUSE daemon.
int status_of(int directory, const char* name, bool cached, struct ::statx& into) noexcept;

// 64 bits from the file handle (name_to_handle_at(2)), which holds the inode's generation; 0 if the
// filesystem has no handles.
std::uint64_t handle_hash(int directory, const char* name) noexcept;

// getdents64(2): bytes of whole entries, 0 at the end.
ssize_t list(int directory, void* into, std::size_t size) noexcept;
int seek_listing(int directory, std::uint64_t cookie) noexcept;

// For the file that an O_PATH descriptor stands for, including a symbolic link itself.
ssize_t read_link(int path_fd, char* into, std::size_t size) noexcept;
ssize_t get_xattr(int path_fd, const char* name, void* into, std::size_t size) noexcept;
ssize_t list_xattr(int path_fd, char* into, std::size_t size) noexcept;

// The same for `name` in a directory, without following a symbolic link.
ssize_t get_xattr_of(int directory, const char* name, const char* attribute, void* into,
                     std::size_t size) noexcept;
ssize_t list_xattr_of(int directory, const char* name, char* into, std::size_t size) noexcept;
// Whether a file has a size but consists of holes only.
bool is_all_hole(int fd) noexcept;

int filesystem_status(int fd, struct ::statvfs& into) noexcept;
// Whether statx of the filesystem is always current and never uses a network.
bool is_local(int fd) noexcept;
// Whether the filesystem answers without another process or machine. The question itself may wait
// for those.
bool is_near(int fd) noexcept;

// The soft limit of descriptors (RLIMIT_NOFILE).
std::size_t descriptor_limit() noexcept;
// Milliseconds of a monotonic clock, at most a few behind.
std::int64_t coarse_milliseconds() noexcept;

}  // namespace zc::sys
