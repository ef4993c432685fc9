// A trace: the events of the requests that one thread answered.
//
// Off, and without memory, until control asks for it: then a request costs one relaxed load. The
// thread that owns it writes, control drains; the lock is innermost and held for as long as one
// event takes to copy, by control for as long as it takes to copy all. An event that finds no room
// is counted as lost, never waited for.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string_view>
#include <vector>

#include "serve/constants.hpp"
#include "serve/latency.hpp"

namespace zc {

// How the bytes of a request travelled; for an OPEN, how those of the file will.
enum class Way : std::uint8_t { none, upcall, pool, mmap, splice, passthrough, cached };

// The client and the subject of a request. The name is that in a directory, and borrowed.
struct Asked {
    std::uint64_t nodeid = 0;
    std::uint32_t pid = 0;
    std::uint32_t uid = 0;
    std::string_view name{};
};

struct Event {
    std::uint64_t began_ns = 0;  // since the epoch
    std::uint64_t took_ns = 0;
    std::uint64_t nodeid = 0;
    std::uint64_t bytes = 0;
    std::uint32_t pid = 0;
    std::uint32_t uid = 0;
    std::uint16_t opcode = 0;
    Way way = Way::none;
    std::uint8_t name_bytes = 0;
    char name[kNameBytes + 1];  // only the first name_bytes are set

    std::string_view called() const noexcept { return {name, name_bytes}; }
};

class Trace {
  public:
    bool on() const noexcept { return on_.load(std::memory_order_relaxed); }

    // Throws std::bad_alloc. `most`: events between two drains.
    void begin(std::size_t most);
    void end() noexcept;
    // Appends the events since the last drain, and returns how many were lost.
    std::uint64_t drain(std::vector<Event>& into);

    // The operation at hand says how its bytes travel; the next note() takes it. Only the owning
    // thread.
    void travels(Way way, std::uint64_t bytes) noexcept {
        if (on()) {
            way_ = way;
            bytes_ = bytes;
        }
    }
    void note(const Asked& asked, std::uint32_t opcode, Clock::duration took) noexcept;

  private:
    std::atomic<bool> on_{false};
    Way way_ = Way::none;
    std::uint64_t bytes_ = 0;
    std::mutex lock_;
    std::vector<Event> events_;
    std::size_t used_ = 0;
    std::uint64_t lost_ = 0;
};

}  // namespace zc
