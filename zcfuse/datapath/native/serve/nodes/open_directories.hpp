// The directories that clients are listing: descriptors and the entries read ahead from them, by
// file handle.
//
// What one directory has is listed by the backing filesystem's own cookies, a buffer at a time.
// What several layers have is read as a whole when a pass begins, so that each name comes once; a
// cookie is then a position.
//
// Threads: any; the table's lock is innermost, each listing has a lock of its own, which is held
// while the backing directory is read and under which the locks of the other tables may be taken.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "serve/nodes/directories.hpp"
#include "serve/nodes/table.hpp"

namespace zc {

struct OpenDirectory {
    std::vector<Part> parts;  // the topmost first
    bool in_union = false;
    std::mutex lock;
    std::vector<std::byte> entries;   // as getdents64(2) has them; made at the first use
    std::vector<std::size_t> starts;  // of the entries, where there are several parts
    std::size_t begin = 0;            // of what has not been replied yet
    std::size_t end = 0;
    std::uint64_t cookie = 0;  // where the entry at `begin` stands
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
