// Finds the most requested files with a space-saving sketch (Metwally and others, 2005) of one
// size; each serving thread has one. A nodeid hashes to eight places. A new file replaces the
// lightest file there and inherits its weight, so that popular files stay. The report counts
// requests since the file took its slot: it never overstates, and is exact for a file that never
// lost its slot. A file that is open stays counted without a slot, until it is closed.
//
// Its thread adds; any thread may read. The lock is innermost. A writer holds it for a few dozen
// nanoseconds, a reader while it copies the places.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <unordered_map>
#include <vector>

namespace zc {

struct FileUse {
    std::uint64_t opens = 0;
    std::uint64_t reads = 0;
    std::uint64_t bytes = 0;

    std::uint64_t requests() const noexcept { return opens + reads; }
};

class HotFiles {
  public:
    static constexpr std::size_t kWays = 8;
    static constexpr std::size_t kPlaces = 256;

    // Whether a file is open; called by the thread that adds, without a lock.
    using IsOpen = std::function<bool(std::uint64_t)>;

    // Room for `places` files, rounded up to a power of two, and for every open file.
    explicit HotFiles(std::size_t places = kPlaces, IsOpen is_open = {});

    void opened(std::uint64_t nodeid) noexcept { add(nodeid, {1, 0, 0}); }
    void read(std::uint64_t nodeid, std::uint64_t bytes) noexcept { add(nodeid, {0, 1, bytes}); }

    using Uses = std::unordered_map<std::uint64_t, FileUse>;
    void add_to(Uses& uses) const;

  private:
    struct Slot {
        std::uint64_t nodeid = 0;  // 0: nobody's
        std::uint64_t weight = 0;  // requests, those inherited included
        FileUse use;
    };
    using Set = std::array<Slot, kWays>;
    void add(std::uint64_t nodeid, const FileUse& more) noexcept;
    Slot& slot_of(Set& set, std::uint64_t nodeid) noexcept;
    void displace(const Slot& slot) noexcept;
    void drop_closed() noexcept;
    Set& set_of(std::uint64_t nodeid) noexcept;

    mutable std::mutex lock_;
    std::vector<Set> sets_;  // a power of two of them
    const IsOpen is_open_;
    Uses displaced_;  // of files that lost their slot, open ones and few others
    std::size_t most_displaced_ = kPlaces;
};

}  // namespace zc
