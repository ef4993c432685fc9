// Which files are asked for most: a space-saving sketch (Metwally and others, 2005) of fixed size,
// one a serving thread. A file's place is one of the eight that its nodeid leads to; a file that
// has none takes that of the one with the least weight there and inherits the weight, so that what
// is asked for often stays. What is told of a file is what was counted since it came in: never too
// much, and all of it for a file that never lost its place.
//
// The thread that owns it adds, any may read; the lock is innermost and held for a few dozen
// nanoseconds, by a reader for as long as it takes to copy the places.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <unordered_map>

namespace zc {

struct FileUse {
    std::uint64_t opens = 0;
    std::uint64_t reads = 0;
    std::uint64_t bytes = 0;

    std::uint64_t requests() const noexcept { return opens + reads; }
};

class HotFiles {
  public:
    static constexpr std::size_t kSets = 32;
    static constexpr std::size_t kWays = 8;
    static constexpr std::size_t kPlaces = kSets * kWays;

    void opened(std::uint64_t nodeid) noexcept { add(nodeid, {1, 0, 0}); }
    void read(std::uint64_t nodeid, std::uint64_t bytes) noexcept { add(nodeid, {0, 1, bytes}); }

    using Uses = std::unordered_map<std::uint64_t, FileUse>;
    void add_to(Uses& uses) const;

  private:
    struct Place {
        std::uint64_t nodeid = 0;  // 0: nobody's
        std::uint64_t weight = 0;  // requests, those inherited included
        FileUse use;
    };
    using Set = std::array<Place, kWays>;
    void add(std::uint64_t nodeid, const FileUse& more) noexcept;
    static Place& place_of(Set& set, std::uint64_t nodeid) noexcept;

    mutable std::mutex lock_;
    std::array<Set, kSets> sets_{};
};

}  // namespace zc
