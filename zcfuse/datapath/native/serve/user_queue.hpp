// Requests that take long, and whose threads do so: READs that wait for their backing file,
// READDIRs that read a whole directory first, and other calls to a slow filesystem (calls.hpp). A
// serving thread does none of it: all requests of its channel, or of its CPU, stand behind it.
//
// Users take turns. A user occupies some of the threads, all users but root leave one to root. The
// requests of a ring that a user has here, under way or waiting, leave entries of that ring to the
// other queues: a filesystem that never answers may keep all that are under way.
//
// Thread-safe; the lock is innermost. A reply may be written by any thread.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <iterator>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "abi/fuse.hpp"
#include "serve/config.hpp"
#include "serve/latency.hpp"
#include "serve/read_job.hpp"
#include "transport/channel.hpp"

namespace zc {

struct CallJob {
    std::shared_ptr<const Channel> channel;
    abi::InHeader header{};
    std::vector<std::byte> message;  // with the header
    Clock::time_point since{};       // when the request left its channel
    std::uint32_t uid = 0;
};

// A job of a request at hand. `since`: when that left its channel.
CallJob call_job(std::shared_ptr<const Channel> channel, const abi::InHeader& header,
                 std::span<const std::byte> body, Clock::time_point since);
inline std::uint64_t unique_of(const CallJob& job) noexcept {
    return job.header.unique;
}
inline std::uint64_t unique_of(const ReadJob& job) noexcept {
    return job.unique;
}

// How many requests of a user may be here for long, where several users share the mount: each holds
// an entry of a ring's queue, or a place among those that the kernel sends ahead.
struct MostHeld {
    std::size_t ring = 0;    // of one queue
    std::size_t device = 0;  // of all clones
    std::size_t of(const Channel& channel) const noexcept {
        return channel.is_ring() ? ring : device;
    }
};

template <typename Job>
class UserQueue {
  public:
    // `per_user`: threads that one user occupies at most; `per_ring`: by requests of one ring.
    UserQueue(std::size_t threads, std::size_t per_user, std::size_t per_ring) noexcept
        : threads_(threads), per_user_(per_user), per_ring_(per_ring) {}

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
            turn = std::find_if(turns_.begin(), turns_.end(), [this](std::uint32_t uid) {
                return first_that_may_begin(uid) != jobs_.at(uid).end();
            });
            return stopping_ || turn != turns_.end();
        });
        if (stopping_) {
            return std::nullopt;
        }
        const auto uid = *turn;
        turns_.erase(turn);
        auto& jobs = jobs_.at(uid);
        const auto first = first_that_may_begin(uid);
        auto job = std::move(*first);
        jobs.erase(first);
        if (jobs.empty()) {
            forget(uid);
        } else {
            turns_.push_back(uid);
        }
        if (uid != 0) {
            ++busy_[uid];
            ++busy_of_users_;
            begun_.emplace(key_of(job), job.since);
        }
        return job;
    }

    void done(const Job& job) {
        if (job.uid == 0) {
            return;
        }
        {
            const std::lock_guard guard(lock_);
            --busy_of_users_;
            if (const auto user = busy_.find(job.uid); --user->second == 0) {
                busy_.erase(user);
            }
            const auto [begin, end] = begun_.equal_range(key_of(job));
            begun_.erase(std::find_if(
                begin, end, [&](const auto& begun) { return begun.second == job.since; }));
        }
        wake_.notify_all();
    }

    // Takes the users' requests that wait here for longer than `age`, beyond `most` of each user
    // and each ring, and of each user over /dev/fuse, those under way included. Further ones would
    // not wait either.
    std::vector<Job> take_beyond(const MostHeld& most, Clock::duration age) {
        const auto before = Clock::now() - age;
        std::vector<Job> taken;
        const std::lock_guard guard(lock_);
        for (auto user = jobs_.begin(); user != jobs_.end();) {
            const auto uid = user->first;
            std::map<Key, std::size_t> kept;
            std::erase_if(user->second, [&](Job& job) {
                const auto key = key_of(job);
                const auto under_way = begun_.count(key);
                const bool beyond = uid != 0 && job.since < before &&
                                    under_way + ++kept[key] > most.of(*job.channel);
                if (beyond) {
                    held_[key] = {before, Clock::now()};
                    taken.push_back(std::move(job));
                }
                return beyond;
            });
            const auto following = std::next(user);
            if (user->second.empty()) {
                forget(uid);
            }
            user = following;
        }
        return taken;
    }

    // Whether a user has held more than `most` of a channel by requests that are here, for longer
    // than `age`. Requests that take less than kSlow do no harm: they make room for others soon.
    // But who was refused because of slow ones gets no more than `most` for kRemembered: otherwise
    // the user would fill the channel again each time that the slow ones end. Call it for each
    // request that would wait here.
    bool holds_too_long(const Channel& channel, std::uint32_t uid, const MostHeld& most,
                        Clock::duration age) {
        const Key key(uid, place_of(channel));
        const auto now = Clock::now();
        const std::lock_guard guard(lock_);
        std::size_t holds = 0;
        auto oldest = now;
        const auto count = [&](Clock::time_point since) {
            ++holds;
            oldest = std::min(oldest, since);
        };
        if (const auto jobs = jobs_.find(uid); jobs != jobs_.end()) {
            for (const auto& job : jobs->second) {
                if (key_of(job) == key) {
                    count(job.since);
                }
            }
        }
        const auto [begin, end] = begun_.equal_range(key);
        std::for_each(begin, end, [&](const auto& begun) { count(begun.second); });
        const bool slow = now - oldest >= kSlow;
        auto held = held_.find(key);
        if (!slow && (held == held_.end() || now - held->second.refused > kRemembered)) {
            if (held != held_.end()) {
                held_.erase(held);
            }
            return false;
        }
        // A user who was refused soon has fewer: the time goes on while they are slow.
        held = held_.try_emplace(key, Held{now, {}}).first;
        if (holds < most.of(channel) || now - held->second.since < age) {
            return false;
        }
        if (slow) {
            held->second.refused = now;
        }
        return true;
    }

    // The bytes of the messages of a user that wait here.
    std::size_t bytes_of(std::uint32_t uid) const {
        const std::lock_guard guard(lock_);
        std::size_t bytes = 0;
        if (const auto jobs = jobs_.find(uid); jobs != jobs_.end()) {
            for (const auto& job : jobs->second) {
                bytes += job.message.size();
            }
        }
        return bytes;
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
    // Of a user and a place; the clones of /dev/fuse are one place.
    using Key = std::pair<std::uint32_t, const Channel*>;
    static const Channel* place_of(const Channel& channel) noexcept {
        return channel.is_ring() ? &channel : nullptr;
    }
    static Key key_of(const Job& job) noexcept { return {job.uid, place_of(*job.channel)}; }
    static constexpr auto kSlow = std::chrono::seconds(1);
    static constexpr auto kRemembered = std::chrono::seconds(5);

    // A user holds too much of a place by slow requests.
    struct Held {
        Clock::time_point since;
        Clock::time_point refused;  // the last time, because of them
    };

    // A user without jobs. `uid` may lie in what goes.
    void forget(const std::uint32_t uid) {
        std::erase(turns_, uid);
        const auto now = Clock::now();
        std::erase_if(held_, [=](const auto& held) {
            return held.first.first == uid && now - held.second.refused > kRemembered;
        });
        jobs_.erase(uid);
    }

    bool may_occupy_a_thread(std::uint32_t uid) const {
        if (uid == 0) {
            return true;
        }
        const auto user = busy_.find(uid);
        return busy_of_users_ + 1 < threads_ && (user == busy_.end() || user->second < per_user_);
    }

    typename std::deque<Job>::iterator first_that_may_begin(std::uint32_t uid) {
        auto& jobs = jobs_.at(uid);
        if (!may_occupy_a_thread(uid)) {
            return jobs.end();
        }
        return std::find_if(jobs.begin(), jobs.end(), [&](const Job& job) {
            return uid == 0 || !job.channel->is_ring() || begun_.count(key_of(job)) < per_ring_;
        });
    }

    const std::size_t threads_;
    const std::size_t per_user_;
    const std::size_t per_ring_;
    mutable std::mutex lock_;
    std::condition_variable wake_;
    std::unordered_map<std::uint32_t, std::deque<Job>> jobs_;  // by user, none empty
    std::deque<std::uint32_t> turns_;                          // users who have jobs
    std::unordered_map<std::uint32_t, std::size_t> busy_;      // threads by user, without root
    std::multimap<Key, Clock::time_point> begun_;              // under way, without root's
    std::map<Key, Held> held_;
    std::size_t busy_of_users_ = 0;
    std::uint64_t pushed_ = 0;
    bool stopping_ = false;
};

// READs, calls and listings of a user that never end leave one entry of a ring's queue, as it is by
// default. The kernel sends as many calls over /dev/fuse as there are clients.
inline MostHeld most_reads(const Config& config) noexcept {
    return {std::max<std::size_t>(config.ring_depth / 2, 2) - 1, kMostReadsOfUser};
}
inline MostHeld most_calls(const Config& config) noexcept {
    return {most_reads(config).ring, std::numeric_limits<std::size_t>::max()};
}
inline MostHeld most_listings(const Config&) noexcept {
    return {1, std::numeric_limits<std::size_t>::max()};
}
constexpr auto kReadHoldsLong = std::chrono::seconds(3);
constexpr auto kCallHoldsLong = std::chrono::seconds(1);
constexpr std::size_t kMostWaitingBytes = 64 << 20;  // of a user's WRITEs

inline std::size_t per_ring(const Config& config, const MostHeld& most) noexcept {
    return config.shared ? most.ring : std::numeric_limits<std::size_t>::max();
}

// Of each user one listing is made at a time.
class ListingQueue : public UserQueue<CallJob> {
  public:
    explicit ListingQueue(const Config& config)
        : UserQueue(3, 1, per_ring(config, most_listings(config))) {}
};

class CallQueue : public UserQueue<CallJob> {
  public:
    explicit CallQueue(const Config& config)
        : UserQueue(6, 4, per_ring(config, most_calls(config))) {}
};

// Enough threads to keep a device busy for one user.
class ReadWorkers : public UserQueue<ReadJob> {
  public:
    explicit ReadWorkers(const Config& config)
        : UserQueue(6, 4, per_ring(config, most_reads(config))) {}
};

}  // namespace zc
