// READs of a ring that have to wait for their backing file: a queue, and the threads that do so.
// Thread-safe; the lock is innermost. A thread takes a job, serves it and comes back for the next.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>

#include "serve/read_queue.hpp"

namespace zc {

class ReadWorkers {
  public:
    void push(ReadJob job) {
        {
            const std::lock_guard guard(lock_);
            if (stopping_) {
                return;  // the connection ended: no client waits
            }
            jobs_.push_back(std::move(job));
            ++pushed_;
        }
        wake_.notify_one();
    }

    // Waits for a job; nothing once it is stopped.
    std::optional<ReadJob> next() {
        std::unique_lock guard(lock_);
        wake_.wait(guard, [this] { return stopping_ || !jobs_.empty(); });
        if (stopping_) {
            return std::nullopt;
        }
        auto job = std::move(jobs_.front());
        jobs_.pop_front();
        return job;
    }

    void stop() {
        {
            const std::lock_guard guard(lock_);
            stopping_ = true;
            jobs_.clear();
        }
        wake_.notify_all();
    }

    std::uint64_t pushed() const {
        const std::lock_guard guard(lock_);
        return pushed_;
    }

  private:
    mutable std::mutex lock_;
    std::condition_variable wake_;
    std::deque<ReadJob> jobs_;
    std::uint64_t pushed_ = 0;
    bool stopping_ = false;
};

}  // namespace zc
