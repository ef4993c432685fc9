// INTERRUPTs that came before their requests had a place in a queue: another thread still works on
// the request, or has answered it. The queue's client would otherwise stay until its turn comes.
//
// Whoever puts a request into a queue asks take() afterwards, and withdraws the request if so. An
// INTERRUPT looks into the queues, then calls put(), then looks again. So one of the two finds it.
//
// A number is never used twice, so one that stays does no harm. The oldest give way.
// Thread-safe; the lock is innermost.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>

namespace zc {

class EarlyInterrupts {
  public:
    void put(std::uint64_t unique) {
        const std::lock_guard guard(lock_);
        uniques_[next_] = unique;
        next_ = (next_ + 1) % uniques_.size();
    }
    // Whether the request was interrupted.
    bool take(std::uint64_t unique) {
        const std::lock_guard guard(lock_);
        const auto found = std::find(uniques_.begin(), uniques_.end(), unique);
        if (found == uniques_.end()) {
            return false;
        }
        *found = 0;
        return true;
    }

  private:
    static constexpr std::size_t kMost = 256;

    std::mutex lock_;
    std::array<std::uint64_t, kMost> uniques_{};
    std::size_t next_ = 0;
};

}  // namespace zc
