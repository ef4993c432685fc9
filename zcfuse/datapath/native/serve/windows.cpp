#include "serve/windows.hpp"

#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <limits>
#include <new>
#include <stdexcept>
#include <utility>

#include "sys/holes.hpp"
#include "sys/syscalls.hpp"

namespace zc {

namespace {

// If populating a window fails, the window is mapped again to the file's new size. If that fails
// too, it is used as it is, and vmsplice finds out which pages exist.
constexpr int kAttempts = 2;

const WindowOptions& checked(const WindowOptions& options, std::size_t page_bytes) {
    if (options.window_bytes < page_bytes || !std::has_single_bit(options.window_bytes)) {
        throw std::invalid_argument("a window must be a power of two of bytes, at least a page");
    }
    return options;
}

std::size_t system_page() {
    return static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

}  // namespace

WindowCache::WindowCache(std::shared_ptr<LockBudget> budget, const WindowOptions& options)
    : options_(checked(options, system_page())),
      page_bytes_(system_page()),
      totals_(std::make_shared<WindowTotals>(std::move(budget))),
      table_(std::make_shared<WindowTable>(options.cap_bytes, options.cap_windows,
                                           options.window_bytes / 2, totals_)) {
    if (options_.prefault) {
        prefaulter_.emplace(table_, totals_, options_.lock_idle);
    }
}

Acquired WindowCache::acquire(const WindowFile& file, std::uint64_t offset,
                              std::size_t size) noexcept {
    try {
        return acquire_or_throw(file, offset, size);
    } catch (const std::bad_alloc&) {
        return {.error = -ENOMEM};
    }
}

Acquired WindowCache::acquire_or_throw(const WindowFile& file, std::uint64_t offset,
                                       std::size_t size) {
    constexpr auto kLargestOffset =
        static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
    const std::size_t window = options_.window_bytes;
    if (size == 0 || size > window || offset > kLargestOffset - size) {
        return {.error = -EINVAL};
    }
    Acquired acquired{.locked = true};
    const std::uint64_t stop = offset + size;
    for (std::uint64_t at = offset; at < stop;) {
        const std::uint64_t index = at / window;
        const std::uint64_t next = std::min(stop, (index + 1) * window);
        const Range range{.key = {.file = file.id, .index = index},
                          .begin = static_cast<std::size_t>(at - index * window),
                          .end = static_cast<std::size_t>(next - index * window)};
        int error = 0;
        WindowRef held = take(file, range, error);
        if (held == nullptr) {
            return {.error = error};
        }
        const auto place = static_cast<std::size_t>(acquired.count++);
        acquired.locked = acquired.locked && held->locked();
        acquired.pieces[place] = held->piece(range.begin, range.end);
        acquired.holders[place] = std::move(held);
        at = next;
    }
    return acquired;
}

void WindowCache::stop() noexcept {
    if (prefaulter_) {
        prefaulter_->stop();
    }
}

WindowStats WindowCache::stats() const noexcept {
    return {.count = totals_->count.load(std::memory_order_relaxed),
            .bytes = totals_->bytes.load(std::memory_order_relaxed),
            .locked = totals_->locked.load(std::memory_order_relaxed),
            .hits = totals_->hits.load(std::memory_order_relaxed),
            .misses = totals_->misses.load(std::memory_order_relaxed),
            .ahead = totals_->ahead.load(std::memory_order_relaxed),
            .evictions = totals_->evictions.load(std::memory_order_relaxed),
            .unlocked = totals_->unlocked.load(std::memory_order_relaxed),
            .unpopulated = totals_->unpopulated.load(std::memory_order_relaxed)};
}

pid_t WindowCache::prefault_tid() const noexcept {
    return prefaulter_ ? prefaulter_->tid() : 0;
}

WindowRef WindowCache::take(const WindowFile& file, const Range& range, int& error) {
    WindowRef window;
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
        window = find_or_map(file, range, error);
        if (window == nullptr || !prefaulter_) {
            return window;
        }
        if (window->state() == WindowState::pending) {
            error = prefaulter_->wait(range.key, window, options_.wait);
            if (error != 0) {
                return nullptr;
            }
        }
        if (window->state() == WindowState::ready) {
            return window;
        }
        if (attempt + 1 < kAttempts) {
            table_->drop(range.key, window);
        }
    }
    totals_->unpopulated.fetch_add(1, std::memory_order_relaxed);
    window->set_state(WindowState::ready);
    return window;
}

WindowRef WindowCache::find_or_map(const WindowFile& file, const Range& range, int& error) {
    auto [window, wants_next] = table_->find(range.key, range.end, range.end - range.begin);
    if (window == nullptr) {
        totals_->misses.fetch_add(1, std::memory_order_relaxed);
        return map(file, range.key, range.end, error);
    }
    totals_->hits.fetch_add(1, std::memory_order_relaxed);
    if (wants_next && prefaulter_) {
        map_ahead(file, {.file = file.id, .index = range.key.index + 1});
    }
    return window;
}

// Maps what there is of the window, at least up to `end`.
WindowRef WindowCache::map(const WindowFile& file, const WindowKey& key, std::size_t end,
                           int& error) {
    const std::uint64_t offset = key.index * options_.window_bytes;
    std::uint64_t size = 0;
    error = sys::file_size(file.fd, size);
    if (error == 0 && sys::mapping_fills_holes(file.fd) != 0) {
        error = -EOPNOTSUPP;
    }
    if (error != 0) {
        return nullptr;
    }
    const std::uint64_t beyond = size > offset ? size - offset : 0;
    const std::uint64_t pages = (beyond + page_bytes_ - 1) / page_bytes_ * page_bytes_;
    const auto bytes =
        static_cast<std::size_t>(std::min<std::uint64_t>(pages, options_.window_bytes));
    if (bytes < end) {
        error = -EFAULT;
        return nullptr;
    }
    return create(key, file.fd, bytes, error);
}

WindowRef WindowCache::create(const WindowKey& key, int fd, std::size_t bytes, int& error) {
    const auto state = prefaulter_ ? WindowState::pending : WindowState::ready;
    WindowRefs evicted;
    WindowRef window =
        table_->create(key, fd, key.index * options_.window_bytes, bytes, state, evicted, error);
    if (prefaulter_) {
        prefaulter_->discard(std::move(evicted));
    }
    return window;
}

// A prefetch that fails is nobody's error: the request that needs the window meets it again.
void WindowCache::map_ahead(const WindowFile& file, const WindowKey& key) {
    if (table_->contains(key)) {
        return;
    }
    int error = 0;
    const WindowRef window = map(file, key, 1, error);
    if (window == nullptr) {
        return;
    }
    if (prefaulter_->ahead(key, window)) {
        totals_->ahead.fetch_add(1, std::memory_order_relaxed);
    } else {
        table_->drop(key, window);
    }
}

}  // namespace zc
