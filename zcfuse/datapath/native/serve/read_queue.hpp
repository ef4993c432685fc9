// Limits how many serving threads serve READs at once. A READ waits for its backing file; if all
// threads did, LOOKUPs would stay on the channel. So one thread always remains for LOOKUPs, and a
// further READ waits here until a thread has finished one.
//
// Thread-safe; the lock is innermost. Any thread may write a reply to the request's channel.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "abi/fuse.hpp"
#include "serve/lease.hpp"
#include "serve/ledger.hpp"
#include "transport/channel.hpp"

namespace zc {

struct ReadJob {
    std::shared_ptr<const Channel> channel;
    std::uint64_t unique;
    abi::ReadIn request;
    std::shared_ptr<const FileLease> lease;
    Asked asked{};  // without a name
    std::uint32_t uid = 0;
    Clock::time_point since{};  // when the request was taken off its channel
    std::size_t have = 0;       // bytes that lie in the request's own buffer already
    Served served{};
};

class ReadQueue {
  public:
    explicit ReadQueue(std::size_t threads) : limit_(std::max<std::size_t>(threads, 2) - 1) {}

    // Returns the job for the caller to serve, or nothing if the job must wait.
    std::optional<ReadJob> begin(ReadJob job) {
        const std::lock_guard guard(lock_);
        if (active_ == limit_) {
            push(std::move(job));
            ++waited_;
            return std::nullopt;
        }
        ++active_;
        return job;
    }

    // The next job for a thread that has finished one, or nothing. Users take turns: the first job
    // of another user than the last one's comes next.
    std::optional<ReadJob> next() {
        const std::lock_guard guard(lock_);
        if (count_ == 0) {
            --active_;
            return std::nullopt;
        }
        for (std::size_t i = 1; ring_[first_].uid == last_ && i < count_; ++i) {
            if (auto& other = ring_[(first_ + i) % ring_.size()]; other.uid != last_) {
                std::swap(ring_[first_], other);
            }
        }
        last_ = ring_[first_].uid;
        auto job = std::exchange(ring_[first_], ReadJob{});
        first_ = (first_ + 1) % ring_.size();
        --count_;
        return job;
    }

    // Takes a READ that still waits, because its client was interrupted.
    std::optional<ReadJob> withdraw(std::uint64_t unique) {
        const std::lock_guard guard(lock_);
        for (std::size_t i = 0; i < count_; ++i) {
            if (at(i).unique != unique) {
                continue;
            }
            auto job = std::exchange(at(i), ReadJob{});
            for (; i + 1 < count_; ++i) {
                std::swap(at(i), at(i + 1));
            }
            --count_;
            return job;
        }
        return std::nullopt;
    }

    std::uint64_t waited() const {
        const std::lock_guard guard(lock_);
        return waited_;
    }

  private:
    // The largest max_background (negotiation.cpp): more are readers that wait each for their own
    // request, and it grows for them.
    static constexpr std::size_t kInitialJobs = 1024;

    ReadJob& at(std::size_t i) noexcept { return ring_[(first_ + i) % ring_.size()]; }

    void push(ReadJob job) {
        if (count_ == ring_.size()) {
            std::rotate(ring_.begin(), ring_.begin() + static_cast<std::ptrdiff_t>(first_),
                        ring_.end());
            first_ = 0;
            ring_.resize(2 * count_);
        }
        ring_[(first_ + count_) % ring_.size()] = std::move(job);
        ++count_;
    }

    const std::size_t limit_;
    mutable std::mutex lock_;
    // A ring that never shrinks: a deque's blocks, allocated by one thread and freed by another,
    // would come from fresh pages now and then, which a serving thread would have to fault in.
    std::vector<ReadJob> ring_ = std::vector<ReadJob>(kInitialJobs);
    std::size_t first_ = 0;
    std::size_t count_ = 0;
    std::size_t active_ = 0;
    std::uint32_t last_ = 0;  // the user of the job that waited and was served last
    std::uint64_t waited_ = 0;
};

}  // namespace zc
