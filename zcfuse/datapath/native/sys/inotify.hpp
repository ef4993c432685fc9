// inotify(7): which names of single directories change. Any user may watch what it may read.
//
// Threads: one reads; watching is safe from any.
#pragma once

#include <sys/inotify.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "sys/unique_fd.hpp"

namespace zc::sys {

class NameChanges {
  public:
    // `name` leads into the buffer that read() filled.
    struct Change {
        int watch = -1;
        std::uint32_t mask = 0;
        std::string_view name;

        bool lost_events() const noexcept { return (mask & IN_Q_OVERFLOW) != 0; }
        bool of_directory() const noexcept { return (mask & IN_ISDIR) != 0; }
        bool is_move() const noexcept { return (mask & (IN_MOVED_FROM | IN_MOVED_TO)) != 0; }
        // The directory is gone, and this is the last event.
        bool is_end() const noexcept { return (mask & IN_IGNORED) != 0; }
    };

    // 0 or -errno.
    int open() noexcept;
    bool is_open() const noexcept { return static_cast<bool>(queue_); }
    int descriptor() const noexcept { return queue_.get(); }
    // Watches a directory, by any descriptor of it; `attributes`: also those of what it has.
    // Returns the number of the watch, the same for the same directory, or -errno: ENOSPC beyond
    // fs.inotify.max_user_watches.
    int watch(int directory, bool attributes = false) noexcept;
    void remove(int watch) noexcept;

    // Returns bytes, or -errno: EAGAIN without events.
    ssize_t read(std::span<std::byte> buffer) noexcept;
    // Takes the next event from the front of `bytes`; false at the end.
    static bool next(std::span<std::byte>& bytes, Change& into) noexcept;

  private:
    UniqueFd queue_;
};

}  // namespace zc::sys
