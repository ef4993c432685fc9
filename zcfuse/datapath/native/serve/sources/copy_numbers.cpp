#include "serve/sources/copy_numbers.hpp"

#include <mutex>

namespace zc {

std::optional<CopyNumbers::Born> CopyNumbers::born(const struct ::statx& copy) noexcept {
    if ((copy.stx_mask & STATX_BTIME) == 0) {
        return std::nullopt;
    }
    return Born{copy.stx_ino, copy.stx_btime.tv_sec * 1'000'000'000 + copy.stx_btime.tv_nsec};
}

void CopyNumbers::keep(const Born& copy, std::uint64_t number) {
    const std::unique_lock guard(lock_);
    if (!numbers_.insert_or_assign(copy, number).second) {
        return;
    }
    order_.push_back(copy);
    if (order_.size() > most_) {
        numbers_.erase(order_.front());
        order_.pop_front();
    }
    any_.store(true, std::memory_order_release);
}

std::uint64_t CopyNumbers::of(const struct ::statx& status) const {
    if (!any_.load(std::memory_order_acquire)) {
        return 0;
    }
    const auto copy = born(status);
    if (!copy) {
        return 0;
    }
    const std::shared_lock guard(lock_);
    const auto found = numbers_.find(*copy);
    return found == numbers_.end() ? 0 : found->second;
}

}  // namespace zc
