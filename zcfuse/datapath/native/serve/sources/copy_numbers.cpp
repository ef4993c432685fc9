#include "serve/sources/copy_numbers.hpp"

#include <mutex>

namespace zc {

namespace {

std::int64_t birth_of(const struct ::statx& status) noexcept {
    return status.stx_btime.tv_sec * 1'000'000'000 + status.stx_btime.tv_nsec;
}

}  // namespace

void CopyNumbers::keep(const struct ::statx& copy, std::uint64_t number) {
    if ((copy.stx_mask & STATX_BTIME) == 0) {
        return;
    }
    const Born born{copy.stx_ino, birth_of(copy)};
    const std::unique_lock guard(lock_);
    if (!numbers_.insert_or_assign(born, number).second) {
        return;
    }
    order_.push_back(born);
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
    const std::shared_lock guard(lock_);
    const auto found = numbers_.find({status.stx_ino, birth_of(status)});
    return found == numbers_.end() ? 0 : found->second;
}

}  // namespace zc
