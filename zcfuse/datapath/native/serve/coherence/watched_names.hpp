// Watches the names in single directories (inotify), for a daemon that may not watch filesystems.
// The kernel may then keep the names, missing names and listings of a watched directory without a
// time limit. Attributes hold for a time: a file may change by a link that lies elsewhere.
//
// A directory is watched before the first look at a name in it, so each later change is pushed; and
// until the kernel forgets the directory, and with it all names in it.
//
// Threads: one reads; watches() and forget() from any. lock_ is innermost.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <shared_mutex>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "serve/nodes/directories.hpp"
#include "sys/inotify.hpp"

namespace zc {

class WatchedNames {
  public:
    using Change = sys::NameChanges::Change;

    WatchedNames() { queue_.open(); }

    bool is_open() const noexcept { return queue_.is_open(); }
    int descriptor() const noexcept { return queue_.descriptor(); }
    // Reports the names in a directory that no node stands for. Returns whether it does.
    bool watch_fence(int directory);
    bool is_fence(const Change& change) const noexcept {
        return fence_ >= 0 && change.watch == fence_;
    }
    // Whether each change of the directory's names is reported, from now on at the latest.
    bool watches(const Directory& directory);
    // The kernel has forgotten a node.
    void forget(std::uint64_t nodeid);
    // The nodes of the directory that changed.
    std::vector<std::uint64_t> nodes_of(const Change& change) const;
    ssize_t read(std::span<std::byte> buffer) noexcept { return queue_.read(buffer); }

    std::size_t size() const;
    // Directories that the system refused to watch.
    std::uint64_t refused() const noexcept { return refused_; }

  private:
    static constexpr int kRefused = -1;

    sys::NameChanges queue_;
    int fence_ = -1;
    mutable std::shared_mutex lock_;
    std::unordered_map<std::uint64_t, int> watches_;  // by nodeid; kRefused
    std::unordered_map<int, std::vector<std::uint64_t>> nodes_;
    std::atomic<std::uint64_t> refused_{0};
};

}  // namespace zc
