// How many descriptors users may have the process keep for open files, in both planes: each user
// of a shared mount has a share, and the last ones are a reserve for root and for control.
//
// Threads: any. The lock is innermost.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <unordered_map>

#include "sys/files.hpp"

namespace zc {

// A cache of descriptors, and a user, may always have this many, however low RLIMIT_NOFILE is.
inline constexpr std::size_t kLeastDescriptors = 8;

class UserDescriptors {
  public:
    // `descriptors`: RLIMIT_NOFILE. `shared`: whether several users may use the mount.
    UserDescriptors(std::size_t descriptors, bool shared) noexcept
        : descriptors_(descriptors),
          share_(shared ? kUserShare : 1),
          per_user_(descriptors / share_) {}
    UserDescriptors(const UserDescriptors&) = delete;
    UserDescriptors& operator=(const UserDescriptors&) = delete;

    // Limits each user to a share of the descriptors from the number `next` on, the lowest that is
    // free.
    void share_from(std::size_t next) noexcept {
        const auto taken = std::min(next + reserve(), descriptors_);
        per_user_ = std::max((descriptors_ - taken) / share_, kLeastDescriptors);
    }
    // Notes that listing a directory takes so many. Call it before threads start.
    void directory_takes(std::size_t descriptors) noexcept {
        directory_ = std::max(directory_.load(std::memory_order_relaxed), descriptors);
    }

    // Root has no limit.
    bool admits(std::uint32_t uid) const {
        if (uid == 0) {
            return true;
        }
        const std::lock_guard guard(lock_);
        const auto user = held_.find(uid);
        return user == held_.end() || user->second < per_user_;
    }
    // Counts descriptors for a user, and back.
    void take(std::uint32_t uid, std::size_t count) {
        const std::lock_guard guard(lock_);
        held_[uid] += count;
    }
    void give(std::uint32_t uid, std::size_t count) {
        const std::lock_guard guard(lock_);
        if (const auto user = held_.find(uid);
            user != held_.end() && (user->second -= std::min(user->second, count)) == 0) {
            held_.erase(user);
        }
    }
    // Whether the process may keep a descriptor for a user; the kernel gives out the lowest number
    // that is free.
    bool spares(std::uint32_t uid, int fd) const noexcept {
        return uid == 0 || static_cast<std::size_t>(fd) + reserve() < descriptors_;
    }
    // Enough to list the directory with the most layers.
    std::size_t reserve() const noexcept {
        const auto least =
            std::clamp(descriptors_ / kReserveShare, kLeastDescriptors, kMostReserve);
        const auto directory = directory_.load(std::memory_order_relaxed);
        return directory == 1
                   ? least
                   : std::max(least, std::min(directory + kBesideDirectory, descriptors_ / 2));
    }

  private:
    static constexpr std::size_t kUserShare = 2;
    static constexpr std::size_t kReserveShare = 8;
    static constexpr std::size_t kMostReserve = 256;
    // What a listing, a status and a client of it need.
    static constexpr std::size_t kBesideDirectory = 16;

    const std::size_t descriptors_;
    const std::size_t share_;
    std::atomic<std::size_t> per_user_;
    std::atomic<std::size_t> directory_{1};
    mutable std::mutex lock_;
    std::unordered_map<std::uint32_t, std::size_t> held_;  // by user, none 0
};

}  // namespace zc
