#include "serve/window.hpp"

#include <algorithm>
#include <cerrno>
#include <new>
#include <utility>

#include "sys/syscalls.hpp"

namespace zc {

namespace {

// Between slices the prefaulting thread looks whether it shall end, and other threads that map or
// unmap get their turn at the process's memory map.
constexpr std::size_t kSliceBytes = std::size_t{1} << 20;
constexpr std::size_t kAheadBytes = 4 * kSliceBytes;

#ifndef MADV_POPULATE_READ
constexpr int MADV_POPULATE_READ = 22;  // Linux 5.14
#endif

}  // namespace

std::shared_ptr<Window> Window::map(int fd, std::uint64_t offset, std::size_t bytes,
                                    WindowState state, std::shared_ptr<WindowTotals> totals,
                                    int& error) {
    error = 0;
    void* data = sys::mmap(bytes, PROT_READ, MAP_SHARED, fd, offset, error);
    if (data == nullptr) {
        return nullptr;
    }
    auto* window =
        new (std::nothrow) Window(static_cast<std::byte*>(data), bytes, state, std::move(totals));
    if (window == nullptr) {
        sys::munmap(data, bytes);
        error = -ENOMEM;
        return nullptr;
    }
    try {
        return std::shared_ptr<Window>(window);
    } catch (const std::bad_alloc&) {  // it has deleted the window
        error = -ENOMEM;
        return nullptr;
    }
}

Window::Window(std::byte* data, std::size_t bytes, WindowState state,
               std::shared_ptr<WindowTotals> totals) noexcept
    : data_(data), bytes_(bytes), state_(state), totals_(std::move(totals)) {
    totals_->count.fetch_add(1, std::memory_order_relaxed);
    totals_->bytes.fetch_add(bytes_, std::memory_order_relaxed);
}

Window::~Window() {
    sys::munmap(data_, bytes_);
    if (locked()) {
        count_unlocked();
    }
    totals_->count.fetch_sub(1, std::memory_order_relaxed);
    totals_->bytes.fetch_sub(bytes_, std::memory_order_relaxed);
}

int Window::populate(const std::atomic<bool>& stop) noexcept {
    for (std::size_t done = 0; done < bytes_; done += kSliceBytes) {
        if (stop.load(std::memory_order_relaxed)) {
            return -ECANCELED;
        }
        if (done % kAheadBytes == 0) {
            read_ahead(done, std::min(done + kAheadBytes, bytes_));
        }
        const std::size_t slice = std::min(kSliceBytes, bytes_ - done);
        const int error = sys::madvise(data_ + done, slice, MADV_POPULATE_READ);
        if (error != 0) {
            return error;
        }
    }
    return 0;
}

int Window::lock() noexcept {
    read_ahead(0, bytes_);
    const int error = sys::mlock(data_, bytes_);
    if (error != 0) {
        sys::munlock(data_, bytes_);  // a failed mlock may have locked a part
        totals_->budget->give(bytes_);
        return error;
    }
    locked_.store(true, std::memory_order_relaxed);
    totals_->locked.fetch_add(bytes_, std::memory_order_relaxed);
    return 0;
}

void Window::unlock() noexcept {
    sys::munlock(data_, bytes_);
    count_unlocked();
}

// Starts reading the uncached pages; faults alone would wait for one readahead after the other.
// Works in slices, because one call reads no more than the device takes at once.
void Window::read_ahead(std::size_t begin, std::size_t end) noexcept {
    for (; begin < end; begin += kSliceBytes) {
        sys::madvise(data_ + begin, std::min(kSliceBytes, end - begin), MADV_WILLNEED);
    }
}

void Window::count_unlocked() noexcept {
    locked_.store(false, std::memory_order_relaxed);
    totals_->locked.fetch_sub(bytes_, std::memory_order_relaxed);
    totals_->budget->give(bytes_);
}

}  // namespace zc
