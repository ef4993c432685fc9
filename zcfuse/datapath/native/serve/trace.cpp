#include "serve/trace.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>

namespace zc {

void Trace::begin(std::size_t most) {
    std::vector<Event> events(most);
    const std::lock_guard guard(lock_);
    events_.swap(events);
    used_ = 0;
    lost_ = 0;
    on_.store(true, std::memory_order_relaxed);
}

void Trace::end() noexcept {
    std::vector<Event> events;
    const std::lock_guard guard(lock_);
    on_.store(false, std::memory_order_relaxed);
    events_.swap(events);
    used_ = 0;
}

std::uint64_t Trace::drain(std::vector<Event>& into) {
    const std::lock_guard guard(lock_);
    const auto end = events_.begin() + static_cast<std::ptrdiff_t>(used_);
    into.insert(into.end(), events_.begin(), end);
    used_ = 0;
    const auto lost = lost_;
    lost_ = 0;
    return lost;
}

void Trace::note(const Asked& asked, std::uint32_t opcode, Clock::duration took) noexcept {
    const auto now = std::chrono::system_clock::now() - took;
    const auto nanoseconds = [](auto time) {
        return static_cast<std::uint64_t>(
            std::chrono::duration_cast<std::chrono::nanoseconds>(time).count());
    };
    const auto way = way_;
    const auto bytes = bytes_;
    way_ = Way::none;
    bytes_ = 0;
    const std::lock_guard guard(lock_);
    if (used_ >= events_.size()) {
        lost_ += on() ? 1 : 0;
        return;
    }
    Event& event = events_[used_++];
    event.began_ns = nanoseconds(now.time_since_epoch());
    event.took_ns = nanoseconds(took);
    event.nodeid = asked.nodeid;
    event.bytes = bytes;
    event.pid = asked.pid;
    event.uid = asked.uid;
    event.opcode = static_cast<std::uint16_t>(opcode);
    event.way = way;
    const auto name = asked.name.substr(0, kNameBytes);
    event.name_bytes = static_cast<std::uint8_t>(name.size());
    std::memcpy(event.name, name.data(), name.size());
}

}  // namespace zc
