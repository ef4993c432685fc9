// Watches the names in single directories (inotify), for a daemon that may not watch filesystems.
// The kernel may then keep the names, missing names and listings of a watched directory without a
// time limit. Attributes hold for a time: a file may change by a link that lies elsewhere.
//
// A directory is watched before the first look at a name in it, so each later change is pushed; and
// until the kernel forgets the directory, and with it all names in it.
//
// A directory of a union is watched in each layer that has it. Another layer gets it by a change in
// a directory above. So those above are watched first, from the root down, and the directory is
// opened after that. Once such a change is reported, open directories no longer count as watched
// (layers_changed), and the kernel asks again for everything (Coherence).
//
// Threads: one reads; watches() and forget() from any. lock_ is innermost.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "serve/nodes/leased_nodes.hpp"
#include "sys/inotify.hpp"

namespace zc {

class WatchedNames {
  public:
    using Change = sys::NameChanges::Change;

    explicit WatchedNames(LeasedNodes& leased_nodes) : leased_nodes_(leased_nodes) {
        queue_.open();
    }

    bool is_open() const noexcept { return queue_.is_open(); }
    int descriptor() const noexcept { return queue_.descriptor(); }
    // Reports the names in a directory that no node stands for. Returns whether it does.
    bool watch_fence(int directory);
    bool is_fence(const Change& change) const noexcept {
        return fence_ >= 0 && change.watch == fence_;
    }
    // Whether each change of the directory's names is reported, from before it was opened. Where
    // that needs it, opens the directory again, and `directory` is that one from then on.
    bool watches(std::shared_ptr<const Directory>& directory);
    // A union's directories may have other parts. Call it before the kernel forgets them.
    void layers_changed() noexcept { changes_.fetch_add(1, std::memory_order_acq_rel); }
    // The kernel has forgotten a node.
    void forget(std::uint64_t nodeid);
    // The system has ended a watch, because the directory is gone.
    void end(int watch);
    // The nodes of the directory that changed.
    std::vector<std::uint64_t> nodes_of(const Change& change) const;
    ssize_t read(std::span<std::byte> buffer) noexcept { return queue_.read(buffer); }

    std::size_t size() const;
    // Directories that the system refused to watch.
    std::uint64_t refused() const noexcept { return refused_; }

  private:
    struct Watches {
        std::vector<int> numbers;
        bool refused = false;
    };

    bool is_refused(std::uint64_t nodeid) const;
    bool watch(std::uint64_t nodeid, const SourceDirectory& at, bool merged);
    bool watch_way(const Directory& directory, SourceDirectory::Ref& into);
    bool refuse(Watches& watches);

    LeasedNodes& leased_nodes_;
    sys::NameChanges queue_;
    int fence_ = -1;
    std::atomic<std::uint64_t> changes_{1};  // of layers
    mutable std::shared_mutex lock_;
    std::unordered_map<std::uint64_t, Watches> watches_;  // by nodeid
    std::unordered_map<int, std::vector<std::uint64_t>> nodes_;
    std::atomic<std::uint64_t> refused_{0};
};

}  // namespace zc
