#include "sys/files.hpp"

#include <dirent.h>
#include <limits.h>
#include <linux/openat2.h>
#include <sys/resource.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <span>
#include <string_view>
#include <utility>

#include "sys/faults.hpp"
#include "sys/proc_path.hpp"

namespace zc::sys {

namespace {

constexpr std::uint64_t kResolve =
    RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV;
constexpr int kAgainLimit = 16;  // openat2(2) may give EAGAIN during a rename

template <typename Result>
Result or_errno(Result result) noexcept {
    return result < 0 ? static_cast<Result>(-errno) : result;
}

// The path to a name in a directory that a descriptor stands for.
struct ProcName {
    std::array<char, 32 + 256> text{};
    ProcName(int fd, const char* name) noexcept {
        std::snprintf(text.data(), text.size(), "/proc/self/fd/%d/%s", fd, name);
    }
    const char* get() const noexcept { return text.data(); }
};

bool is_one_of(int fd, std::span<const std::uint32_t> filesystems) noexcept {
    struct ::statfs status {};
    return ::fstatfs(fd, &status) == 0 &&
           std::find(filesystems.begin(), filesystems.end(),
                     static_cast<std::uint32_t>(status.f_type)) != filesystems.end();
}

}  // namespace

int open_beneath(int directory, const char* path, int flags, UniqueFd& into) noexcept {
    if (const Fault wanted = fault(Call::open); wanted < 0) {
        return wanted;
    }
    struct open_how how {};
    how.flags = static_cast<std::uint64_t>(flags | O_CLOEXEC | O_NOFOLLOW);
    how.resolve = kResolve;
    long fd = -1;
    for (int attempt = 0; attempt < kAgainLimit; ++attempt) {
        fd = ::syscall(SYS_openat2, directory, path, &how, sizeof how);
        if (fd >= 0 || (errno != EINTR && (errno != EAGAIN || (flags & O_NONBLOCK) != 0))) {
            break;
        }
    }
    if (fd < 0) {
        return -errno;
    }
    into.reset(static_cast<int>(fd));
    return 0;
}

Remembered remembered(int directory, const char* name) noexcept {
    struct open_how how {};
    how.flags = O_PATH | O_CLOEXEC | O_NOFOLLOW;
    how.resolve = kResolve | RESOLVE_CACHED;
    const UniqueFd found(
        static_cast<int>(::syscall(SYS_openat2, directory, name, &how, sizeof how)));
    if (!found) {
        return errno == EAGAIN   ? Remembered::unknown
               : errno == ENOENT ? Remembered::nothing
                                 : Remembered::file;
    }
    struct ::stat status {};
    const bool is_directory = ::fstat(found.get(), &status) == 0 && S_ISDIR(status.st_mode);
    return is_directory ? Remembered::directory : Remembered::file;
}

int step(int directory, const char* name, UniqueFd& into) noexcept {
    if (const Fault wanted = fault(Call::open); wanted < 0) {
        return wanted;
    }
    const int fd = ::openat(directory, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    into.reset(fd);
    return 0;
}

int reopen(int file, int flags, UniqueFd& into) noexcept {
    if (const Fault wanted = fault(Call::open); wanted < 0) {
        return wanted;
    }
    const int fd = ::open(ProcPath(file).get(), flags | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) {
        return -errno;
    }
    into.reset(fd);
    return 0;
}

int walk_beneath(int directory, const char* path, int flags, UniqueFd& into) noexcept {
    if (std::string_view(path) == ".") {
        const int fd = ::openat(directory, ".", flags | O_CLOEXEC);
        into.reset(fd);
        return fd < 0 ? -errno : 0;
    }
    UniqueFd at;
    struct ::statx status {};
    for (std::string_view rest(path); !rest.empty();) {
        std::array<char, NAME_MAX + 1> name{};
        const auto part = rest.substr(0, rest.find('/'));
        rest.remove_prefix(std::min(part.size() + 1, rest.size()));
        if (part.size() > NAME_MAX) {
            return -ENAMETOOLONG;
        }
        part.copy(name.data(), part.size());
        UniqueFd next;
        int error = step(at ? at.get() : directory, name.data(), next);
        error = error == 0 ? status_of(next.get(), "", true, status) : error;
        if (error != 0) {
            return error;
        }
        if ((status.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0) {
            return -EXDEV;
        }
        at = std::move(next);
    }
    if ((flags & O_PATH) == 0) {
        return reopen(at.get(), flags, into);
    }
    if ((flags & O_DIRECTORY) != 0 && !S_ISDIR(status.stx_mode)) {
        return -ENOTDIR;
    }
    into = std::move(at);
    return 0;
}

int status_of(int directory, const char* name, bool cached, struct ::statx& into) noexcept {
    if (const Fault wanted = fault(Call::statx); wanted < 0) {
        return wanted;
    }
    const int flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT |
                      (cached ? AT_STATX_DONT_SYNC : AT_STATX_SYNC_AS_STAT) |
                      (*name == '\0' ? AT_EMPTY_PATH : 0);
    return or_errno(::statx(directory, name, flags, STATX_BASIC_STATS | STATX_BTIME, &into));
}

std::uint64_t handle_hash(int directory, const char* name) noexcept {
    alignas(struct file_handle) std::array<std::byte, sizeof(struct file_handle) + MAX_HANDLE_SZ>
        bytes{};
    auto* handle = reinterpret_cast<struct file_handle*>(bytes.data());
    handle->handle_bytes = MAX_HANDLE_SZ;
    int mount = 0;
    if (::name_to_handle_at(directory, name, handle, &mount, *name == '\0' ? AT_EMPTY_PATH : 0) <
        0) {
        return 0;
    }
    std::uint64_t hash = 0xCBF29CE484222325 ^ static_cast<std::uint64_t>(handle->handle_type);
    const auto used = std::min<std::size_t>(handle->handle_bytes, MAX_HANDLE_SZ);
    for (std::size_t i = 0; i < used; ++i) {
        const auto byte = bytes[offsetof(struct file_handle, f_handle) + i];
        hash = (hash ^ static_cast<std::uint64_t>(byte)) * 0x100000001B3;
    }
    return hash | 1;
}

ssize_t list(int directory, void* into, std::size_t size) noexcept {
    if (const Fault wanted = fault(Call::getdents); wanted < 0) {
        return wanted;
    }
    return or_errno(::getdents64(directory, into, size));
}

int seek_listing(int directory, std::uint64_t cookie) noexcept {
    return ::lseek(directory, static_cast<off_t>(cookie), SEEK_SET) < 0 ? -errno : 0;
}

ssize_t read_link(int path_fd, char* into, std::size_t size) noexcept {
    return or_errno(::readlinkat(path_fd, "", into, size));
}

ssize_t get_xattr(int path_fd, const char* name, void* into, std::size_t size) noexcept {
    const auto found = or_errno(::fgetxattr(path_fd, name, into, size));
    if (found != -EBADF) {  // it is open as a path alone
        return found;
    }
    return or_errno(::getxattr(ProcPath(path_fd).get(), name, into, size));
}

ssize_t list_xattr(int path_fd, char* into, std::size_t size) noexcept {
    return or_errno(::listxattr(ProcPath(path_fd).get(), into, size));
}

ssize_t get_xattr_of(int directory, const char* name, const char* attribute, void* into,
                     std::size_t size) noexcept {
    return or_errno(::lgetxattr(ProcName(directory, name).get(), attribute, into, size));
}

ssize_t list_xattr_of(int directory, const char* name, char* into, std::size_t size) noexcept {
    return or_errno(::llistxattr(ProcName(directory, name).get(), into, size));
}

bool is_all_hole(int fd) noexcept {
    struct ::stat status {};
    return ::lseek(fd, 0, SEEK_DATA) < 0 && errno == ENXIO && ::fstat(fd, &status) == 0 &&
           status.st_size > 0;
}

int filesystem_status(int fd, struct ::statvfs& into) noexcept {
    return or_errno(::fstatvfs(fd, &into));
}

bool is_local(int fd) noexcept {
    // Magic numbers of statfs(2): ext2..4, xfs, btrfs, tmpfs, f2fs, zfs, ramfs, erofs, squashfs.
    static constexpr std::array<std::uint32_t, 9> local{0xEF53,     0x58465342, 0x9123683E,
                                                        0x01021994, 0xF2F52010, 0x2FC12FC1,
                                                        0x858458F6, 0xE0F5E1E2, 0x73717368};
    return is_one_of(fd, local);
}

bool is_near(int fd) noexcept {
    // vfat, exfat, iso9660, overlayfs: whoever mounted this one chose its layers.
    static constexpr std::array<std::uint32_t, 4> others{0x4D44, 0x2011BAB0, 0x9660, 0x794C7630};
    return is_local(fd) || is_one_of(fd, others);
}

std::size_t descriptor_limit() noexcept {
    constexpr std::size_t kUnknown = 1024;
    struct ::rlimit limit {};
    return ::getrlimit(RLIMIT_NOFILE, &limit) == 0 ? static_cast<std::size_t>(limit.rlim_cur)
                                                   : kUnknown;
}

std::int64_t coarse_milliseconds() noexcept {
    struct ::timespec now {};
    ::clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1'000'000;
}

}  // namespace zc::sys
