// READDIRs that have to read a whole directory first, and whose threads do so. A serving thread
// does not: all requests of its channel, or of its CPU, stand behind it.
//
// Users take turns, and of each one listing is made at a time. Root may use each thread, all other
// users together leave one to it. Thread-safe; the lock is innermost.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "abi/fuse.hpp"
#include "serve/latency.hpp"
#include "transport/channel.hpp"

namespace zc {

struct ListingJob {
    std::shared_ptr<const Channel> channel;
    abi::InHeader header{};
    std::vector<std::byte> body;
    Clock::time_point since{};  // when the request was taken off its channel
};

class ListingQueue {
  public:
    static constexpr std::size_t kThreads = 3;

    void push(ListingJob job) {
        {
            const std::lock_guard guard(lock_);
            if (stopping_) {
                return;  // the connection ended: no client waits
            }
            const auto uid = job.header.uid;
            auto& jobs = jobs_[uid];
            if (jobs.empty()) {
                turns_.push_back(uid);
            }
            jobs.push_back(std::move(job));
            ++pushed_;
        }
        wake_.notify_all();
    }

    // Waits for a job; nothing once it is stopped. To be followed by done().
    std::optional<ListingJob> next() {
        std::unique_lock guard(lock_);
        auto turn = turns_.end();
        wake_.wait(guard, [&] {
            turn = std::find_if(turns_.begin(), turns_.end(),
                                [this](std::uint32_t uid) { return may_begin(uid); });
            return stopping_ || turn != turns_.end();
        });
        if (stopping_) {
            return std::nullopt;
        }
        const auto uid = *turn;
        turns_.erase(turn);
        const auto jobs = jobs_.find(uid);
        auto job = std::move(jobs->second.front());
        jobs->second.pop_front();
        if (jobs->second.empty()) {
            jobs_.erase(jobs);
        } else {
            turns_.push_back(uid);
        }
        if (uid != 0) {
            busy_.insert(uid);
        }
        return job;
    }

    void done(const ListingJob& job) {
        {
            const std::lock_guard guard(lock_);
            busy_.erase(job.header.uid);
        }
        wake_.notify_all();
    }

    void stop() {
        {
            const std::lock_guard guard(lock_);
            stopping_ = true;
            jobs_.clear();
            turns_.clear();
        }
        wake_.notify_all();
    }

    std::uint64_t pushed() const {
        const std::lock_guard guard(lock_);
        return pushed_;
    }

  private:
    bool may_begin(std::uint32_t uid) const {
        return uid == 0 || (busy_.size() + 1 < kThreads && !busy_.contains(uid));
    }

    mutable std::mutex lock_;
    std::condition_variable wake_;
    std::unordered_map<std::uint32_t, std::deque<ListingJob>> jobs_;  // by user, none empty
    std::deque<std::uint32_t> turns_;                                 // users who have jobs
    std::unordered_set<std::uint32_t> busy_;  // users but root whose listing is being made
    std::uint64_t pushed_ = 0;
    bool stopping_ = false;
};

}  // namespace zc
