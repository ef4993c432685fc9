// How many serving threads may be at a READ at once. A READ waits for its backing file, and while
// every thread did so nobody would take LOOKUPs off the channel: one thread is always left for
// them, and a READ that comes meanwhile waits here for the next thread that has finished one.
//
// Thread-safe; the lock is innermost. A reply may be written by any thread, to the request's
// channel.
#pragma once

#include <algorithm>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>

#include "abi/fuse.hpp"
#include "serve/lease.hpp"
#include "transport/channel.hpp"

namespace zc {

struct ReadJob {
    std::shared_ptr<const Channel> channel;
    std::uint64_t unique;
    abi::ReadIn request;
    std::shared_ptr<const FileLease> lease;
    std::size_t have = 0;  // bytes that lie in the request's own buffer already
};

class ReadQueue {
  public:
    explicit ReadQueue(std::size_t threads) : limit_(std::max<std::size_t>(threads, 2) - 1) {}

    // The job, to be served by the caller, or nothing where it has to wait.
    std::optional<ReadJob> begin(ReadJob job) {
        const std::lock_guard guard(lock_);
        if (active_ == limit_) {
            waiting_.push_back(std::move(job));
            ++waited_;
            return std::nullopt;
        }
        ++active_;
        return job;
    }

    // The next job for a thread that has finished one, or nothing.
    std::optional<ReadJob> next() {
        const std::lock_guard guard(lock_);
        if (waiting_.empty()) {
            --active_;
            return std::nullopt;
        }
        auto job = std::move(waiting_.front());
        waiting_.pop_front();
        return job;
    }

    std::uint64_t waited() const {
        const std::lock_guard guard(lock_);
        return waited_;
    }

  private:
    const std::size_t limit_;
    mutable std::mutex lock_;
    std::deque<ReadJob> waiting_;
    std::size_t active_ = 0;
    std::uint64_t waited_ = 0;
};

}  // namespace zc
