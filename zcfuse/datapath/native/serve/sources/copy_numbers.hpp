// The inode numbers that clients see of the copies in an upper layer: those of the originals.
//
// Clients can make any number of copies, so the latest ones count: an earlier copy shows its own
// number again. Nothing depends on a number longer than a client compares two of them.
//
// Threads: any.
#pragma once

#include <sys/stat.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <shared_mutex>
#include <utility>

namespace zc {

class CopyNumbers {
  public:
    static constexpr std::size_t kMost = 1 << 18;  // about 25 MiB

    explicit CopyNumbers(std::size_t most = kMost) noexcept : most_(most) {}

    // By inode number and time of birth: a later file may have the same number, but not both.
    using Born = std::pair<std::uint64_t, std::int64_t>;
    // Nothing where the filesystem has no times of birth.
    static std::optional<Born> born(const struct ::statx& copy) noexcept;

    void keep(const Born& copy, std::uint64_t number);
    // 0: it is no copy that is known.
    std::uint64_t of(const struct ::statx& status) const;

  private:
    const std::size_t most_;
    mutable std::shared_mutex lock_;  // innermost
    std::map<Born, std::uint64_t> numbers_;
    std::deque<Born> order_;  // the oldest first
    std::atomic<bool> any_{false};
};

}  // namespace zc
