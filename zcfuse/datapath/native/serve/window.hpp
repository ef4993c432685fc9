// A window: one read-only shared mapping of a piece of a backing file, for serving path `mmap`.
//
// Nobody in the process ever touches its bytes: where the file was truncated that would be SIGBUS.
// The kernel reads them, in vmsplice and madvise, where it is -EFAULT.
//
// Threads. Held by std::shared_ptr; the last holder unmaps. `bytes` and `piece` never change and
// are safe from any thread, `state` and `locked` are atomic. populate, lock and unlock are for the
// one thread that prefaults (windows.hpp). The totals and the budget live as long as any window.
#pragma once

#include <sys/uio.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "serve/lock_budget.hpp"

namespace zc {

// Totals over all windows of a cache. The first three describe the present, the others count since
// the start.
struct WindowTotals {
    explicit WindowTotals(std::shared_ptr<LockBudget> lock_budget)
        : budget(std::move(lock_budget)) {}

    const std::shared_ptr<LockBudget> budget;
    std::atomic<std::uint64_t> count{0};
    std::atomic<std::uint64_t> bytes{0};
    std::atomic<std::uint64_t> locked{0};  // bytes
    std::atomic<std::uint64_t> hits{0};
    std::atomic<std::uint64_t> misses{0};
    std::atomic<std::uint64_t> ahead{0};
    std::atomic<std::uint64_t> evictions{0};
    std::atomic<std::uint64_t> unlocked{0};     // windows that worked unlocked though to be locked
    std::atomic<std::uint64_t> unpopulated{0};  // windows that could not be prefaulted whole
};

enum class WindowState : std::uint8_t {
    pending,  // waits for the prefaulting thread
    ready,
    broken,  // the file lacks pages that it had when it was mapped
};

class Window {
  public:
    // Maps `bytes` (whole pages) of `fd` at `offset`, which it borrows during the call. Returns
    // null and a negative errno in `error` when it cannot.
    static std::shared_ptr<Window> map(int fd, std::uint64_t offset, std::size_t bytes,
                                       WindowState state, std::shared_ptr<WindowTotals> totals,
                                       int& error);
    Window(const Window&) = delete;
    Window& operator=(const Window&) = delete;
    ~Window();

    std::size_t bytes() const noexcept { return bytes_; }
    iovec piece(std::size_t begin, std::size_t end) const noexcept {
        return {data_ + begin, end - begin};
    }

    WindowState state() const noexcept { return state_.load(std::memory_order_acquire); }
    void set_state(WindowState state) noexcept { state_.store(state, std::memory_order_release); }

    // Faults all pages in, a slice at a time; `stop` ends it early with -ECANCELED. -EFAULT when
    // the file ends sooner or cannot be read, -EINVAL where the kernel (before 5.14) has no
    // MADV_POPULATE_READ.
    int populate(const std::atomic<bool>& stop) noexcept;

    // Locks it, which faults all pages in (mlock(2)) for less than populating it before; the caller
    // has taken bytes() from the budget. On failure (-errno) they are given back. Once locked, they
    // are given back by unlock or by the destructor.
    int lock() noexcept;
    void unlock() noexcept;
    bool locked() const noexcept { return locked_.load(std::memory_order_relaxed); }

  private:
    Window(std::byte* data, std::size_t bytes, WindowState state,
           std::shared_ptr<WindowTotals> totals) noexcept;
    void read_ahead(std::size_t begin, std::size_t end) noexcept;
    void count_unlocked() noexcept;

    std::byte* const data_;
    const std::size_t bytes_;
    std::atomic<WindowState> state_;
    std::atomic<bool> locked_{false};  // set by the prefaulting thread alone
    const std::shared_ptr<WindowTotals> totals_;
};

}  // namespace zc
