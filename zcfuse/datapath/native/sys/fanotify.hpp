// fanotify(7): which files and names of a whole filesystem change, by file handle.
//
// A group needs CAP_SYS_ADMIN, and resolving a handle CAP_DAC_READ_SEARCH. Sources: fanotify(7),
// fanotify_init(2), fanotify_mark(2); DFID_NAME, FID and TARGET_FID together need Linux 5.17.
//
// Threads: one reads a queue; watching is safe from any.
#pragma once

#include <fcntl.h>
#include <sys/fanotify.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "sys/unique_fd.hpp"

namespace zc::sys {

// The changes that a client of a mount can see. Access times raise no event.
inline constexpr std::uint64_t kNameChanges =
    FAN_CREATE | FAN_DELETE | FAN_MOVED_FROM | FAN_MOVED_TO;
inline constexpr std::uint64_t kDataChanges = FAN_MODIFY | FAN_CLOSE_WRITE;
inline constexpr std::uint64_t kSelfChanges = FAN_ATTRIB | FAN_DELETE_SELF | FAN_MOVE_SELF;

// One event. The pointers lead into the buffer that read() filled; each may be nullptr, and `name`
// empty.
struct Change {
    std::uint64_t mask = 0;
    std::uint64_t filesystem = 0;  // as filesystem_id() returns it
    struct ::file_handle* directory = nullptr;
    std::string_view name;  // NUL-terminated; "." for the directory itself
    struct ::file_handle* file = nullptr;

    bool lost_events() const noexcept { return (mask & FAN_Q_OVERFLOW) != 0; }
    bool of_directory() const noexcept { return (mask & FAN_ONDIR) != 0; }
};

class ChangeQueue {
  public:
    // Opens a group whose queue holds /proc/sys/fs/fanotify/max_queued_events. 0 or -errno.
    int open() noexcept;
    bool is_open() const noexcept { return static_cast<bool>(group_); }
    int descriptor() const noexcept { return group_.get(); }
    // Each returns 0 or -errno. watch_filesystem(): every change of the filesystem that `directory`
    // lies on. watch_names(): the names that come to one directory.
    int watch_filesystem(int directory) noexcept;
    int watch_names(int directory) noexcept;

    // Waits for events. Returns bytes, or -errno: EINTR at a signal.
    ssize_t read(std::span<std::byte> buffer) noexcept;
    // Takes the next event from the front of `bytes`; false at the end.
    static bool next(std::span<std::byte>& bytes, Change& into) noexcept;

  private:
    UniqueFd group_;
};

// The number that stands for a filesystem in events (statfs(2), f_fsid); 0 where it has none.
std::uint64_t filesystem_id(int fd) noexcept;

// Whether a filesystem of this type reports each change: ext2 to 4, xfs, btrfs and tmpfs were
// tried. Never found out by trying: FUSE takes marks and reports nothing of what others change.
bool reports_changes(int fd) noexcept;

// Opens what a handle stands for, O_PATH; `mount` is any descriptor on its filesystem that is not
// O_PATH. ESTALE for a file that is gone. 0 or -errno.
int open_handle(int mount, struct ::file_handle* handle, UniqueFd& into) noexcept;
// Fills a handle that has room for MAX_HANDLE_SZ bytes. 0 or -errno.
int handle_of(int fd, struct ::file_handle& into) noexcept;
bool same_handle(const struct ::file_handle& one, const struct ::file_handle& other) noexcept;

}  // namespace zc::sys
