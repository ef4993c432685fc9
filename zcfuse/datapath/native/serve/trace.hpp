// A trace: the events of the requests that one thread answered.
//
// Off, and without memory, until control asks for it: then a request costs one relaxed load. The
// thread that owns it appends packed events to a buffer. A drain takes the buffer and leaves an
// empty one, so the lock is held for one event's copy, or for a swap. It is innermost. An event
// that finds no room is counted as lost, never waited for.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <span>
#include <string_view>

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

// An event without its name, whose `name_bytes` follow it.
struct Event {
    std::uint64_t began_ns = 0;  // of the steady clock until the drain, then since the epoch
    std::uint64_t took_ns = 0;
    std::uint64_t nodeid = 0;
    std::uint64_t bytes = 0;
    std::uint32_t pid = 0;
    std::uint32_t uid = 0;
    std::uint16_t opcode = 0;
    Way way = Way::none;
    std::uint8_t name_bytes = 0;
    std::uint32_t unused = 0;
};
static_assert(sizeof(Event) == 48);

// The packed events of one thread.
struct Events {
    std::unique_ptr<std::byte[]> bytes;
    std::size_t room = 0;
    std::size_t used = 0;

    // The event at a position, which moves behind it.
    static Event take(std::span<const std::byte>& from, std::string_view& name) noexcept {
        Event event;
        std::memcpy(&event, from.data(), sizeof event);
        name = {reinterpret_cast<const char*>(from.data()) + sizeof event, event.name_bytes};
        from = from.subspan(sizeof event + event.name_bytes);
        return event;
    }
    std::span<const std::byte> all() const noexcept { return {bytes.get(), used}; }
};

class Trace {
  public:
    bool on() const noexcept { return on_.load(std::memory_order_relaxed); }

    // Throws std::bad_alloc. `most`: bytes of events between two drains.
    void begin(std::size_t most);
    void end() noexcept;
    // Takes the events since the last drain, and returns how many were lost. Throws
    // std::bad_alloc.
    std::uint64_t drain(Events& into);

    // The operation at hand says how its bytes travel; the next note() takes it. Only the owning
    // thread.
    void travels(Way way, std::uint64_t bytes) noexcept {
        if (on()) {
            way_ = way;
            bytes_ = bytes;
        }
    }
    void note(const Asked& asked, std::uint32_t opcode, Clock::time_point began,
              Clock::duration took) noexcept;

  private:
    std::atomic<bool> on_{false};
    Way way_ = Way::none;
    std::uint64_t bytes_ = 0;
    std::mutex lock_;
    Events events_;
    std::uint64_t lost_ = 0;
};

}  // namespace zc
