// The table of windows, which chooses the next window to evict.
//
// A window is in use while another holder than the table has it. The table never evicts those. It
// may forget them, and then they die with their last holder; so mappings exceed `cap_bytes` only
// while a reply is being made. Locked and unlocked windows have separate lists, most recent first.
// Evictions below the cap take from both lists. Room in the lock budget comes from the longest
// unused locked window, if that is old enough. With a small budget, passing locks around would cost
// more (0.6 ms per window of 4 KiB pages) than it gains. An unlocked window stays mapped: later
// reads may fault, but need no new mapping.
//
// Thread-safe: one mutex, a leaf. The table maps windows under the mutex. It hands out windows to
// unmap or unlock, and the caller does that after the call.
#pragma once

#include <chrono>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "serve/window.hpp"

namespace zc {

struct WindowKey {
    std::uint64_t file;
    std::uint64_t index;  // offset / window size
    auto operator<=>(const WindowKey&) const = default;
};

using WindowRef = std::shared_ptr<Window>;
using WindowRefs = std::vector<WindowRef>;

class WindowTable {
  public:
    WindowTable(std::size_t cap_bytes, std::size_t cap_windows, std::size_t ahead_bytes,
                std::shared_ptr<WindowTotals> totals) noexcept;
    WindowTable(const WindowTable&) = delete;
    WindowTable& operator=(const WindowTable&) = delete;

    struct Found {
        WindowRef window;         // null without a window of at least the wanted length
        bool wants_next = false;  // reads have come far enough to map the next one
    };
    // `end` is where in the window the request ends, `asked` how many of its bytes it asks for.
    // A window that is too short (the file grew) is dropped.
    Found find(const WindowKey& key, std::size_t end, std::size_t asked);
    bool contains(const WindowKey& key) const;

    // Maps a window, or returns the one that another thread mapped meanwhile. Null and a negative
    // errno in `error` when there is no room (all are in use: -ENOMEM) or mmap failed. It adds
    // the windows that it removed to `evicted`; the caller drops them where that may take time.
    WindowRef create(const WindowKey& key, int fd, std::uint64_t offset, std::size_t bytes,
                     WindowState state, WindowRefs& evicted, int& error);

    void drop(const WindowKey& key, const WindowRef& window);
    void forget(std::uint64_t file);
    void clear();

    // The prefaulting thread calls this after it locked the window.
    void mark_locked(const WindowKey& key, const WindowRef& window);
    // The locked window not in use that was used longest ago, and at least `idle` ago; it counts as
    // unlocked from now on and the caller unlocks it. Null if no window qualifies.
    WindowRef take_oldest_locked(std::chrono::milliseconds idle);

  private:
    using Clock = std::chrono::steady_clock;
    using Order = std::list<WindowKey>;
    struct Entry {
        WindowRef window;
        Order::iterator place;
        Clock::time_point used;
        std::size_t asked = 0;  // bytes since the next window was last looked for
        bool locked = false;
    };
    using Entries = std::map<WindowKey, Entry>;

    Order& order_of(const Entry& entry) noexcept { return entry.locked ? locked_ : unlocked_; }
    WindowRef remove(Entries::iterator at);
    bool make_room(std::size_t bytes, WindowRefs& evicted);
    Entries::iterator oldest_unused(Order& order);
    Entries::iterator eviction_candidate();

    const std::size_t cap_bytes_;
    const std::size_t cap_windows_;
    const std::size_t ahead_bytes_;
    const std::shared_ptr<WindowTotals> totals_;

    mutable std::mutex mutex_;  // guards all that follows
    Entries entries_;
    Order locked_;
    Order unlocked_;
    std::size_t bytes_ = 0;
};

}  // namespace zc
