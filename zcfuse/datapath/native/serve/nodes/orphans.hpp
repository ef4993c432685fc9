// Nodes that lost their last name while the kernel still knows them, such as a client's working
// directory. They have no path any more, so the table keeps an O_PATH descriptor of each until the
// kernel forgets the node. The holder, if there is one, keeps another for a successor.
//
// Threads: any; the lock is innermost. Beyond the limit a node is not kept, and answers ESTALE
// unless it is open; a successor answers that in any case.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "serve/surviving/keeper.hpp"
#include "sys/unique_fd.hpp"

namespace zc {

class Orphans {
  public:
    using File = std::shared_ptr<const sys::UniqueFd>;
    static constexpr std::size_t kMost = 1024;

    // Call it before threads start.
    int connect(int holder) noexcept { return keeper_.connect(holder); }
    // Puts a file that an earlier process kept.
    void inherit(std::uint64_t nodeid, sys::UniqueFd file) { put(nodeid, std::move(file), false); }
    // False: there are too many.
    bool put(std::uint64_t nodeid, sys::UniqueFd file) {
        return put(nodeid, std::move(file), true);
    }
    File find(std::uint64_t nodeid) const {
        if (size_.load(std::memory_order_acquire) == 0) {
            return nullptr;
        }
        const std::lock_guard guard(lock_);
        const auto found = files_.find(nodeid);
        return found == files_.end() ? nullptr : found->second;
    }
    void drop(std::uint64_t nodeid) {
        if (size_.load(std::memory_order_acquire) == 0) {
            return;
        }
        File dropped;  // destroyed behind the lock's release
        const std::lock_guard guard(lock_);
        if (const auto found = files_.find(nodeid); found != files_.end()) {
            dropped = std::move(found->second);
            files_.erase(found);
            keeper_.drop(nodeid);
            size_.store(files_.size(), std::memory_order_release);
        }
    }

  private:
    bool put(std::uint64_t nodeid, sys::UniqueFd file, bool keep) {
        auto kept = std::make_shared<const sys::UniqueFd>(std::move(file));
        const std::lock_guard guard(lock_);
        if (files_.size() >= kMost) {
            return false;
        }
        if (keep) {
            keeper_.keep(nodeid, kept->get());
        }
        files_.insert_or_assign(nodeid, std::move(kept));
        size_.store(files_.size(), std::memory_order_release);
        return true;
    }

    Keeper keeper_;
    mutable std::mutex lock_;
    std::unordered_map<std::uint64_t, File> files_;
    std::atomic<std::size_t> size_{0};
};

}  // namespace zc
