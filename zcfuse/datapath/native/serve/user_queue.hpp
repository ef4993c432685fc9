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

inline std::uint64_t unique_of(const ListingJob& job) noexcept {
    return job.header.unique;
}
inline std::uint64_t unique_of(const ReadJob& job) noexcept {
    return job.unique;
}

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
            forget(uid);
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

    // Whether a user has held more than `most` entries of a channel by requests that wait here, for
    // longer than `age`. Requests that wait for less than kSlow do no harm: they make room for
    // others soon. Call it for each request that would wait here.
    bool holds_too_long(const Channel& channel, std::uint32_t uid, std::size_t most,
                        Clock::duration age) {
        const auto now = Clock::now();
        const std::lock_guard guard(lock_);
        std::size_t waiting = 0;
        auto oldest = now;
        if (const auto jobs = jobs_.find(uid); jobs != jobs_.end()) {
            for (const auto& job : jobs->second) {
                if (job.channel.get() == &channel) {
                    ++waiting;
                    oldest = std::min(oldest, job.since);
                }
            }
        }
        const std::pair key(uid, &channel);
        if (now - oldest < kSlow) {
            held_since_.erase(key);
            return false;
        }
        // A user who was refused soon has fewer: the time goes on while they are slow.
        return waiting >= most && now - held_since_.try_emplace(key, now).first->second >= age;
    }

    // Takes a request that still waits here, because its client was interrupted.
    std::optional<Job> withdraw(std::uint64_t unique) {
        const std::lock_guard guard(lock_);
        for (auto& [uid, jobs] : jobs_) {
            const auto found = std::find_if(
                jobs.begin(), jobs.end(), [&](const Job& job) { return unique_of(job) == unique; });
            if (found == jobs.end()) {
                continue;
            }
            auto job = std::move(*found);
            jobs.erase(found);
            if (jobs.empty()) {
                forget(uid);
            }
            return job;
        }
        return std::nullopt;
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
    static constexpr auto kSlow = std::chrono::seconds(1);

    // A user without jobs. `uid` may lie in what goes.
    void forget(const std::uint32_t uid) {
        std::erase(turns_, uid);
        std::erase_if(held_since_, [=](const auto& held) { return held.first.first == uid; });
        jobs_.erase(uid);
    }

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
    std::map<std::pair<std::uint32_t, const Channel*>, Clock::time_point> held_since_;
    std::size_t busy_of_users_ = 0;
    std::uint64_t pushed_ = 0;
    bool stopping_ = false;
};

// Requests of a user in such a queue may hold so many entries of a ring's queue for so long, where
// several users share the mount. The threads hold more: at most half of them.
inline std::size_t most_held(const Config& config) noexcept {
    return std::max<std::size_t>(config.ring_depth / 2, 2) - 1;
}
constexpr auto kReadHoldsLong = std::chrono::seconds(3);
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
