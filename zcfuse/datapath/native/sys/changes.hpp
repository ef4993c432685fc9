// System calls that change a tree, each returning -errno. No state, safe from any thread. `file`
// may be any descriptor of the file, also an O_PATH one; a name is looked for in its directory
// alone, and no symbolic link is followed.
#pragma once

#include <sys/types.h>
#include <time.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "sys/unique_fd.hpp"

namespace zc::sys {

// openat2(2) beneath a directory; `flags` hold O_CREAT or O_TMPFILE.
int create_file(int directory, const char* name, int flags, mode_t mode, UniqueFd& into) noexcept;
int make_node(int directory, const char* name, mode_t mode, dev_t device) noexcept;
int make_directory(int directory, const char* name, mode_t mode) noexcept;
int make_symlink(int directory, const char* name, const char* target) noexcept;
int make_link(int file, int directory, const char* name) noexcept;
int remove_name(int directory, const char* name, bool is_directory) noexcept;
int rename_name(int from, const char* name, int to, const char* new_name, unsigned flags) noexcept;

int set_mode(int file, mode_t mode) noexcept;
int set_owner(int file, uid_t uid, gid_t gid) noexcept;
// `times` as utimensat(2) takes them, UTIME_NOW and UTIME_OMIT included.
int set_times(int file, const std::array<struct ::timespec, 2>& times) noexcept;
int set_size(int file, std::uint64_t size) noexcept;          // any descriptor
int set_size_of_open(int file, std::uint64_t size) noexcept;  // one that is open for writing
int set_xattr(int file, const char* name, std::span<const std::byte> value, int flags) noexcept;
int remove_xattr(int file, const char* name) noexcept;

// Of descriptors that are open for it.
ssize_t pwrite(int file, std::span<const std::byte> data, std::uint64_t offset) noexcept;
int sync_file(int file, bool data_only) noexcept;
int sync_filesystem(int file) noexcept;
int allocate(int file, int mode, std::uint64_t offset, std::uint64_t length) noexcept;
ssize_t copy_range(int from, std::uint64_t from_offset, int to, std::uint64_t to_offset,
                   std::size_t size) noexcept;
int file_ioctl(int file, unsigned long command, void* argument) noexcept;

}  // namespace zc::sys
