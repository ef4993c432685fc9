// The st_ino that clients see of each node. pyfuse3 uses one number for node id and st_ino, so its
// replies carry node ids; the data path replaces them by the real inode numbers. Thread-safe: the
// lock is innermost and held for one look-up.
#pragma once

#include <cstdint>
#include <mutex>
#include <shared_mutex>
#include <span>
#include <unordered_map>

namespace zc {

class InodeNumbers {
  public:
    void set(std::uint64_t nodeid, std::uint64_t ino) {
        const std::unique_lock guard(lock_);
        numbers_[nodeid] = ino;
    }
    void drop(std::span<const std::uint64_t> nodeids) {
        const std::unique_lock guard(lock_);
        for (const auto nodeid : nodeids) {
            numbers_.erase(nodeid);
        }
    }
    // Without a number set, returns the node id itself.
    std::uint64_t of(std::uint64_t nodeid) const {
        const std::shared_lock guard(lock_);
        const auto found = numbers_.find(nodeid);
        return found == numbers_.end() ? nodeid : found->second;
    }
    std::size_t size() const {
        const std::shared_lock guard(lock_);
        return numbers_.size();
    }

  private:
    mutable std::shared_mutex lock_;
    std::unordered_map<std::uint64_t, std::uint64_t> numbers_;
};

}  // namespace zc
