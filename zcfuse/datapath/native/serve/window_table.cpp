#include "serve/window_table.hpp"

#include <cerrno>
#include <limits>
#include <utility>

namespace zc {

WindowTable::WindowTable(std::size_t cap_bytes, std::size_t cap_windows, std::size_t ahead_bytes,
                         std::shared_ptr<WindowTotals> totals) noexcept
    : cap_bytes_(cap_bytes),
      cap_windows_(cap_windows),
      ahead_bytes_(ahead_bytes),
      totals_(std::move(totals)) {}

WindowTable::Found WindowTable::find(const WindowKey& key, std::size_t end, std::size_t asked) {
    WindowRef too_short;  // unmapped after the mutex is released
    const std::lock_guard lock(mutex_);
    const auto at = entries_.find(key);
    if (at == entries_.end()) {
        return {};
    }
    if (at->second.window->bytes() < end) {
        too_short = remove(at);
        return {};
    }
    Entry& entry = at->second;
    Order& order = order_of(entry);
    order.splice(order.begin(), order, entry.place);
    entry.used = Clock::now();
    entry.asked += asked;
    Found found{entry.window, entry.asked >= ahead_bytes_};
    if (found.wants_next) {
        entry.asked = 0;
    }
    return found;
}

bool WindowTable::contains(const WindowKey& key) const {
    const std::lock_guard lock(mutex_);
    return entries_.contains(key);
}

WindowRef WindowTable::create(const WindowKey& key, int fd, std::uint64_t offset, std::size_t bytes,
                              WindowState state, WindowRefs& evicted, int& error) {
    const std::lock_guard lock(mutex_);
    error = 0;
    if (const auto at = entries_.find(key); at != entries_.end()) {
        if (at->second.window->bytes() >= bytes) {
            return at->second.window;
        }
        evicted.push_back(remove(at));
    }
    if (!make_room(bytes, evicted)) {
        error = -ENOMEM;
        return nullptr;
    }
    WindowRef window = Window::map(fd, offset, bytes, state, totals_, error);
    if (window == nullptr) {
        return nullptr;
    }
    unlocked_.push_front(key);
    try {
        entries_.emplace(key, Entry{window, unlocked_.begin(), Clock::now()});
    } catch (...) {
        unlocked_.pop_front();
        throw;
    }
    bytes_ += bytes;
    return window;
}

void WindowTable::drop(const WindowKey& key, const WindowRef& window) {
    WindowRef dropped;
    const std::lock_guard lock(mutex_);
    const auto at = entries_.find(key);
    if (at != entries_.end() && at->second.window == window) {
        dropped = remove(at);
    }
}

void WindowTable::forget(std::uint64_t file) {
    WindowRefs dropped;  // unmapped after the mutex is released
    const std::lock_guard lock(mutex_);
    const auto first = entries_.lower_bound({file, 0});
    const auto last = entries_.upper_bound({file, std::numeric_limits<std::uint64_t>::max()});
    for (auto at = first; at != last;) {
        dropped.push_back(remove(at++));
    }
}

void WindowTable::clear() {
    Entries entries;
    const std::lock_guard lock(mutex_);
    entries.swap(entries_);
    locked_.clear();
    unlocked_.clear();
    bytes_ = 0;
}

void WindowTable::mark_locked(const WindowKey& key, const WindowRef& window) {
    const std::lock_guard lock(mutex_);
    const auto at = entries_.find(key);
    if (at == entries_.end() || at->second.window != window || at->second.locked) {
        return;
    }
    at->second.locked = true;
    locked_.splice(locked_.begin(), unlocked_, at->second.place);
}

WindowRef WindowTable::take_oldest_locked(std::chrono::milliseconds idle) {
    const std::lock_guard lock(mutex_);
    const auto at = oldest_unused(locked_);
    if (at == entries_.end() || Clock::now() - at->second.used < idle) {
        return nullptr;
    }
    at->second.locked = false;
    unlocked_.splice(unlocked_.begin(), locked_, at->second.place);
    return at->second.window;
}

WindowRef WindowTable::remove(Entries::iterator at) {
    order_of(at->second).erase(at->second.place);
    WindowRef window = std::move(at->second.window);
    bytes_ -= window->bytes();
    entries_.erase(at);
    return window;
}

bool WindowTable::make_room(std::size_t bytes, WindowRefs& evicted) {
    while (bytes_ + bytes > cap_bytes_ || entries_.size() >= cap_windows_) {
        const auto oldest = eviction_candidate();
        if (oldest == entries_.end()) {
            return false;
        }
        evicted.push_back(remove(oldest));
        totals_->evictions.fetch_add(1, std::memory_order_relaxed);
    }
    return true;
}

// Holders are added only under the mutex, so one that is not in use now stays so until it is
// released.
WindowTable::Entries::iterator WindowTable::oldest_unused(Order& order) {
    for (auto key = order.rbegin(); key != order.rend(); ++key) {
        const auto at = entries_.find(*key);
        if (at->second.window.use_count() == 1) {
            return at;
        }
    }
    return entries_.end();
}

WindowTable::Entries::iterator WindowTable::eviction_candidate() {
    const auto unlocked = oldest_unused(unlocked_);
    const auto locked = oldest_unused(locked_);
    if (unlocked == entries_.end() || locked == entries_.end()) {
        return unlocked == entries_.end() ? locked : unlocked;
    }
    return unlocked->second.used < locked->second.used ? unlocked : locked;
}

}  // namespace zc
