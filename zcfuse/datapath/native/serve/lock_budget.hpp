// Limits how many bytes the data path may mlock; pool buffers and windows share the budget. Each
// taker gives back the same number. Thread-safe without a lock.
#pragma once

#include <atomic>
#include <cstddef>

namespace zc {

class LockBudget {
  public:
    explicit LockBudget(std::size_t bytes) noexcept : limit_(bytes) {}
    LockBudget(const LockBudget&) = delete;
    LockBudget& operator=(const LockBudget&) = delete;

    // Takes `bytes` whole or not at all.
    bool try_take(std::size_t bytes) noexcept {
        std::size_t used = used_.load(std::memory_order_relaxed);
        do {
            if (bytes > limit_ - used) {
                return false;
            }
        } while (!used_.compare_exchange_weak(used, used + bytes, std::memory_order_relaxed));
        return true;
    }

    void give(std::size_t bytes) noexcept { used_.fetch_sub(bytes, std::memory_order_relaxed); }

    std::size_t limit() const noexcept { return limit_; }
    std::size_t used() const noexcept { return used_.load(std::memory_order_relaxed); }

  private:
    const std::size_t limit_;
    std::atomic<std::size_t> used_{0};  // never above limit_
};

}  // namespace zc
