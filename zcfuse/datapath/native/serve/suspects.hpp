// The requests that a daemon works on, in shared memory that outlives it. A request that was there
// at the death of several daemons in a row may be their cause: it gets EIO instead of another try.
//
// begin() comes before a request is looked at, done() once nobody works on it any more. A slot of
// the table is claimed by its number, so threads need no lock. A request that finds no free slot
// near its place is not watched.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

namespace zc {

class Suspects {
  public:
    static constexpr std::uint32_t kMostDeaths = 3;
    static constexpr std::size_t kBytes = 32 << 10;

    struct Suspect {
        std::uint64_t unique;
        std::uint64_t nodeid;
        std::uint32_t opcode;
        std::uint32_t deaths;
    };

    // Maps the file, of kBytes; the caller keeps it. Counts a death for each request that the
    // process before this one began, or began again, and did not finish. Throws std::system_error.
    explicit Suspects(int file);
    Suspects(const Suspects&) = delete;
    Suspects& operator=(const Suspects&) = delete;
    ~Suspects();

    // `unique` as the kernel sent it; a repeated request has the number of the first. Returns false
    // for a request that must not be tried again.
    bool begin(std::uint64_t unique, std::uint32_t opcode, std::uint64_t nodeid) noexcept;
    void done(std::uint64_t unique) noexcept;
    // Those that were there at a death.
    std::vector<Suspect> all() const;

  private:
    struct Slot {
        std::atomic<std::uint64_t> unique;  // 0: free
        std::uint64_t nodeid;
        std::uint32_t opcode;
        std::uint32_t deaths;
        std::uint32_t here;  // whether this process began it
        std::uint32_t reserved;
    };
    static_assert(sizeof(Slot) == 32);
    static constexpr std::size_t kSlots = kBytes / sizeof(Slot);
    static constexpr std::size_t kNear = 8;

    Slot* find(std::uint64_t unique) const noexcept;
    static void release(Slot& slot) noexcept;

    std::span<Slot> slots_;
};

}  // namespace zc
