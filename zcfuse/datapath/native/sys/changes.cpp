#include "sys/changes.hpp"

#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>

#include "sys/faults.hpp"
#include "sys/proc_path.hpp"

namespace zc::sys {

namespace {

constexpr std::uint64_t kResolve =
    RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV;
constexpr mode_t kModeBits = 07777;

int injected() noexcept {
    const Fault wanted = fault(Call::change);
    return wanted < 0 ? wanted : 0;
}

// Runs a call that changes something, unless a fault is injected in its place.
template <typename Operation>
int changed(Operation operation) noexcept {
    if (const int wanted = injected(); wanted < 0) {
        return wanted;
    }
    return operation() < 0 ? -errno : 0;
}

}  // namespace

int create_file(int directory, const char* name, int flags, mode_t mode, UniqueFd& into) noexcept {
    if (const int wanted = injected(); wanted < 0) {
        return wanted;
    }
    struct open_how how {};
    how.flags = static_cast<std::uint64_t>(flags | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY);
    how.mode = mode & kModeBits;
    how.resolve = kResolve;
    const long fd = ::syscall(SYS_openat2, directory, name, &how, sizeof how);
    if (fd < 0) {
        return -errno;
    }
    into.reset(static_cast<int>(fd));
    return 0;
}

int make_node(int directory, const char* name, mode_t mode, dev_t device) noexcept {
    return changed([&] { return ::mknodat(directory, name, mode, device); });
}

int make_directory(int directory, const char* name, mode_t mode) noexcept {
    return changed([&] { return ::mkdirat(directory, name, mode & kModeBits); });
}

int make_symlink(int directory, const char* name, const char* target) noexcept {
    return changed([&] { return ::symlinkat(target, directory, name); });
}

int make_link(int file, int directory, const char* name) noexcept {
    return changed([&] {
        return ::linkat(AT_FDCWD, ProcPath(file).get(), directory, name, AT_SYMLINK_FOLLOW);
    });
}

int remove_name(int directory, const char* name, bool is_directory) noexcept {
    return changed([&] { return ::unlinkat(directory, name, is_directory ? AT_REMOVEDIR : 0); });
}

int rename_name(int from, const char* name, int to, const char* new_name, unsigned flags) noexcept {
    return changed([&] { return ::renameat2(from, name, to, new_name, flags); });
}

int set_mode(int file, mode_t mode) noexcept {
    return changed([&] { return ::chmod(ProcPath(file).get(), mode & kModeBits); });
}

int set_owner(int file, uid_t uid, gid_t gid) noexcept {
    return changed([&] { return ::fchownat(file, "", uid, gid, AT_EMPTY_PATH); });
}

int set_times(int file, const std::array<struct ::timespec, 2>& times) noexcept {
    return changed([&] { return ::utimensat(file, "", times.data(), AT_EMPTY_PATH); });
}

int set_size(int file, std::uint64_t size) noexcept {
    return changed([&] { return ::truncate(ProcPath(file).get(), static_cast<off_t>(size)); });
}

int set_size_of_open(int file, std::uint64_t size) noexcept {
    return changed([&] { return ::ftruncate(file, static_cast<off_t>(size)); });
}

int set_xattr(int file, const char* name, std::span<const std::byte> value, int flags) noexcept {
    return changed(
        [&] { return ::setxattr(ProcPath(file).get(), name, value.data(), value.size(), flags); });
}

int remove_xattr(int file, const char* name) noexcept {
    return changed([&] { return ::removexattr(ProcPath(file).get(), name); });
}

ssize_t pwrite(int file, std::span<const std::byte> data, std::uint64_t offset) noexcept {
    auto size = data.size();
    if (const Fault wanted = fault(Call::pwrite); wanted < 0) {
        return wanted;
    } else if (wanted == kShort) {
        size = (size + 1) / 2;
    }
    ssize_t written = -1;
    do {
        written = ::pwrite(file, data.data(), size, static_cast<off_t>(offset));
    } while (written < 0 && errno == EINTR);
    return written < 0 ? -errno : written;
}

int sync_file(int file, bool data_only) noexcept {
    if (const Fault wanted = fault(Call::fsync); wanted < 0) {
        return wanted;
    }
    return (data_only ? ::fdatasync(file) : ::fsync(file)) < 0 ? -errno : 0;
}

int sync_filesystem(int file) noexcept {
    return ::syncfs(file) < 0 ? -errno : 0;
}

int allocate(int file, int mode, std::uint64_t offset, std::uint64_t length) noexcept {
    return changed([&] {
        return ::fallocate(file, mode, static_cast<off_t>(offset), static_cast<off_t>(length));
    });
}

ssize_t copy_range(int from, std::uint64_t from_offset, int to, std::uint64_t to_offset,
                   std::size_t size) noexcept {
    if (const int wanted = injected(); wanted < 0) {
        return wanted;
    }
    auto source = static_cast<off64_t>(from_offset);
    auto destination = static_cast<off64_t>(to_offset);
    const auto copied = ::copy_file_range(from, &source, to, &destination, size, 0);
    return copied < 0 ? -errno : copied;
}

int file_ioctl(int file, unsigned long command, void* argument) noexcept {
    return changed([&] { return ::ioctl(file, command, argument); });
}

}  // namespace zc::sys
