// LSEEK, for where the data and the holes of a file are.
//
// Control knows no LSEEK. Of a file that was opened without a message and has no lease, control is
// asked for a byte instead, which makes it open the file and lease it; the seek waits here for that
// reply. Thread-safe; the lock is innermost. A seek whose upcall was given up stays: it is small.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "abi/fuse.hpp"
#include "serve/lease.hpp"
#include "transport/channel.hpp"

namespace zc {

// The offset, or -errno; -EINVAL for a lease that is not one whole file.
std::int64_t sought(const FileLease& lease, const abi::LseekIn& request) noexcept;
void answer_seek(const Channel& channel, std::uint64_t unique, std::int64_t found) noexcept;

class WaitingSeeks {
  public:
    void put(std::uint64_t unique, const abi::LseekIn& request) {
        const std::lock_guard guard(lock_);
        waiting_[unique] = request;
    }
    std::optional<abi::LseekIn> take(std::uint64_t unique) {
        const std::lock_guard guard(lock_);
        const auto node = waiting_.extract(unique);
        return node.empty() ? std::nullopt : std::optional(node.mapped());
    }

  private:
    std::mutex lock_;
    std::unordered_map<std::uint64_t, abi::LseekIn> waiting_;
};

}  // namespace zc
