#include "serve/trace.hpp"

#include <utility>

namespace zc {

namespace {

std::uint64_t nanoseconds(Clock::duration time) noexcept {
    return static_cast<std::uint64_t>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(time).count());
}

}  // namespace

void Trace::begin(std::size_t most) {
    Events events{std::make_unique_for_overwrite<std::byte[]>(most), most, 0};
    const std::lock_guard guard(lock_);
    std::swap(events_, events);
    lost_ = 0;
    on_.store(true, std::memory_order_relaxed);
}

void Trace::end() noexcept {
    Events events;
    const std::lock_guard guard(lock_);
    on_.store(false, std::memory_order_relaxed);
    std::swap(events_, events);
}

std::uint64_t Trace::drain(Events& into) {
    into = {};
    std::size_t room = 0;
    {
        const std::lock_guard guard(lock_);
        if (events_.used == 0) {
            return std::exchange(lost_, 0);
        }
        room = events_.room;
    }
    into = {std::make_unique_for_overwrite<std::byte[]>(room), room, 0};
    const std::lock_guard guard(lock_);
    if (events_.room == room) {  // and not another trace's
        std::swap(events_, into);
    }
    return std::exchange(lost_, 0);
}

void Trace::note(const Asked& asked, std::uint32_t opcode, Clock::time_point began,
                 Clock::duration took) noexcept {
    const auto name = asked.name.substr(0, kNameBytes);
    Event event;
    event.began_ns = nanoseconds(began.time_since_epoch());
    event.took_ns = nanoseconds(took);
    event.nodeid = asked.nodeid;
    event.bytes = std::exchange(bytes_, 0);
    event.pid = asked.pid;
    event.uid = asked.uid;
    event.opcode = static_cast<std::uint16_t>(opcode);
    event.way = std::exchange(way_, Way::none);
    event.name_bytes = static_cast<std::uint8_t>(name.size());
    const std::lock_guard guard(lock_);
    if (events_.room - events_.used < sizeof event + name.size()) {
        lost_ += on() ? 1 : 0;
        return;
    }
    auto* at = events_.bytes.get() + events_.used;
    std::memcpy(at, &event, sizeof event);
    std::memcpy(at + sizeof event, name.data(), name.size());
    events_.used += sizeof event + name.size();
}

}  // namespace zc
