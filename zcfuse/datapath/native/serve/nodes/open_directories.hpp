// The directories that clients are listing, by file handle.
//
// Threads: any; the table's lock is innermost. Each listing has a lock of its own, which is held
// while the source is asked and under which the locks of the other tables may be taken.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "serve/nodes/table.hpp"
#include "serve/sources/source.hpp"

namespace zc {

struct OpenDirectory {
    std::mutex lock;
    std::unique_ptr<Listing> listing;
};

class OpenDirectories {
  public:
    std::uint64_t add(std::shared_ptr<OpenDirectory> opened) {
        const std::lock_guard guard(lock_);
        const auto handle = kOwnBit | ++last_;
        by_handle_.emplace(handle, std::move(opened));
        return handle;
    }
    std::shared_ptr<OpenDirectory> find(std::uint64_t handle) const {
        const std::lock_guard guard(lock_);
        const auto found = by_handle_.find(handle);
        return found == by_handle_.end() ? nullptr : found->second;
    }
    // The caller closes it, outside of the lock.
    std::shared_ptr<OpenDirectory> take(std::uint64_t handle) {
        const std::lock_guard guard(lock_);
        const auto node = by_handle_.extract(handle);
        return node.empty() ? nullptr : node.mapped();
    }
    std::size_t size() const {
        const std::lock_guard guard(lock_);
        return by_handle_.size();
    }
    void clear() {
        std::unordered_map<std::uint64_t, std::shared_ptr<OpenDirectory>> dropped;
        const std::lock_guard guard(lock_);
        dropped.swap(by_handle_);
    }

  private:
    mutable std::mutex lock_;
    std::unordered_map<std::uint64_t, std::shared_ptr<OpenDirectory>> by_handle_;
    std::uint64_t last_ = 0;
};

}  // namespace zc
