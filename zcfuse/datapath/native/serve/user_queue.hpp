// Requests that take long, and whose threads do so: READs that wait for their backing file, and
// READDIRs that read a whole directory first. A serving thread does neither: all requests of its
// channel, or of its CPU, stand behind it.
//
// Users take turns. A user occupies some of the threads, all users but root leave one to root.
// Thread-safe; the lock is innermost. A reply may be written by any thread.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "abi/fuse.hpp"
#include "serve/config.hpp"
#include "serve/latency.hpp"
#include "serve/read_queue.hpp"
#include "transport/channel.hpp"

namespace zc {

struct ListingJob {
    std::shared_ptr<const Channel> channel;
    abi::InHeader header{};
    std::vector<std::byte> body;
    Clock::time_point since{};  // when the request left its channel
    std::uint32_t uid = 0;
};

template <typename Job>
class UserQueue {
  public:
    // `per_user`: threads that one user occupies at most.
    UserQueue(std::size_t threads, std::size_t per_user) noexcept
        : threads_(threads), per_user_(per_user) {}

    std::size_t threads() const noexcept { return threads_; }

    void push(Job job) {
        {
            const std::lock_guard guard(lock_);
            if (stopping_) {
                return;  // after the connection's end: nobody waits
            }
            const auto uid = job.uid;
            auto& jobs = jobs_[uid];
            if (jobs.empty()) {
                turns_.push_back(uid);
            }
            jobs.push_back(std::move(job));
            ++pushed_;
        }
        wake_.notify_one();
    }

    // Waits for a job; nothing once it is stopped. Call done() after the job.
    std::optional<Job> next() {
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
            ++busy_[uid];
            ++busy_of_users_;
        }
        return job;
    }

    void done(std::uint32_t uid) {
        if (uid == 0) {
            return;
        }
        {
            const std::lock_guard guard(lock_);
            --busy_of_users_;
            if (const auto user = busy_.find(uid); --user->second == 0) {
                busy_.erase(user);
            }
        }
        wake_.notify_all();
    }

    // Takes the users' requests that wait here for longer than `age`, beyond `most` of each user
    // and each channel.
    std::vector<Job> take_beyond(std::size_t most, Clock::duration age) {
        const auto before = Clock::now() - age;
        std::vector<Job> taken;
        const std::lock_guard guard(lock_);
        for (auto user = jobs_.begin(); user != jobs_.end();) {
            const auto uid = user->first;
            std::map<const Channel*, std::size_t> kept;
            std::erase_if(user->second, [&](Job& job) {
                const bool beyond =
                    uid != 0 && job.since < before && ++kept[job.channel.get()] > most;
                if (beyond) {
                    taken.push_back(std::move(job));
                }
                return beyond;
            });
            if (user->second.empty()) {
                std::erase(turns_, uid);
            }
            user = user->second.empty() ? jobs_.erase(user) : std::next(user);
        }
        return taken;
    }

    // Requests of a user that wait here for longer than `age` and came over a channel.
    std::size_t waiting(const Channel& channel, std::uint32_t uid, Clock::duration age) const {
        const auto before = Clock::now() - age;
        const std::lock_guard guard(lock_);
        const auto jobs = jobs_.find(uid);
        return jobs == jobs_.end()
                   ? 0
                   : static_cast<std::size_t>(std::count_if(
                         jobs->second.begin(), jobs->second.end(), [&](const Job& job) {
                             return job.channel.get() == &channel && job.since < before;
                         }));
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
        if (uid == 0) {
            return true;
        }
        const auto user = busy_.find(uid);
        return busy_of_users_ + 1 < threads_ && (user == busy_.end() || user->second < per_user_);
    }

    const std::size_t threads_;
    const std::size_t per_user_;
    mutable std::mutex lock_;
    std::condition_variable wake_;
    std::unordered_map<std::uint32_t, std::deque<Job>> jobs_;  // by user, none empty
    std::deque<std::uint32_t> turns_;                          // users who have jobs
    std::unordered_map<std::uint32_t, std::size_t> busy_;      // threads by user, without root
    std::size_t busy_of_users_ = 0;
    std::uint64_t pushed_ = 0;
    bool stopping_ = false;
};

// Requests of a user in such a queue may hold so many entries of a ring's queue for so long, where
// several users share the mount. The threads hold more: at most half of them.
inline std::size_t most_held(const Config& config) noexcept {
    return std::max<std::size_t>(config.ring_depth / 2, 2) - 1;
}
constexpr auto kReadHoldsLong = std::chrono::seconds(5);
constexpr auto kListingHoldsLong = std::chrono::seconds(1);

// Of each user one listing is made at a time.
class ListingQueue : public UserQueue<ListingJob> {
  public:
    ListingQueue() : UserQueue(3, 1) {}
};

// Enough threads to keep a device busy for one user.
class ReadWorkers : public UserQueue<ReadJob> {
  public:
    ReadWorkers() : UserQueue(6, 4) {}
};

}  // namespace zc
