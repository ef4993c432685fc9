// Which requests control may have at a time. It has a fixed number of tasks, and each request takes
// one until its answer, which may take long: a policy waits for another program. So a user has a
// quarter of the tasks, all users together leave an eighth to root, and further requests of users
// wait here in turn. Requests that give something back never wait.
//
// Threads: one at a time, under the lock of Upcalls.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

namespace zc {

class UpcallShares {
  public:
    struct Waiting {
        std::uint64_t unique = 0;
        std::vector<std::byte> request;
    };

    explicit UpcallShares(std::size_t tasks) noexcept
        : per_user_(std::max<std::size_t>(tasks / 4, 1)),
          of_users_(std::max<std::size_t>(tasks - tasks / 8, 1)) {}

    // Counts a request that goes to control; false if it must wait.
    bool begin(std::uint32_t uid) {
        auto& user = users_[uid];
        if (!has_share(user) || !user.waiting.empty()) {
            return false;
        }
        ++user.out;
        ++out_;
        return true;
    }
    void wait(std::uint32_t uid, Waiting waiting) {
        auto& user = users_[uid];
        if (user.waiting.empty()) {
            turns_.push_back(uid);
        }
        user.waiting.push_back(std::move(waiting));
    }
    // A request that was counted is answered.
    void end(std::uint32_t uid) {
        const auto user = users_.find(uid);
        --out_;
        --user->second.out;
        erase_unused(user);
    }
    // Takes the next request that may go to control, and counts it.
    std::optional<Waiting> next() {
        const auto turn = std::find_if(turns_.begin(), turns_.end(), [this](std::uint32_t uid) {
            return has_share(users_.at(uid));
        });
        if (turn == turns_.end()) {
            return std::nullopt;
        }
        const auto uid = *turn;
        turns_.erase(turn);
        auto& user = users_.at(uid);
        auto waiting = std::move(user.waiting.front());
        user.waiting.pop_front();
        if (!user.waiting.empty()) {
            turns_.push_back(uid);
        }
        ++user.out;
        ++out_;
        return waiting;
    }
    // Nobody wants the answer of a waiting request any more.
    void drop(std::uint32_t uid, std::uint64_t unique) {
        const auto user = users_.find(uid);
        if (user == users_.end()) {
            return;
        }
        auto& waiting = user->second.waiting;
        std::erase_if(waiting, [unique](const Waiting& one) { return one.unique == unique; });
        if (waiting.empty()) {
            std::erase(turns_, uid);
        }
        erase_unused(user);
    }
    std::size_t waiting() const noexcept {
        std::size_t sum = 0;
        for (const auto uid : turns_) {
            sum += users_.at(uid).waiting.size();
        }
        return sum;
    }

  private:
    struct User {
        std::size_t out = 0;
        std::deque<Waiting> waiting;
    };
    using Users = std::unordered_map<std::uint32_t, User>;

    bool has_share(const User& user) const noexcept {
        return user.out < per_user_ && out_ < of_users_;
    }
    void erase_unused(Users::iterator user) {
        if (user->second.out == 0 && user->second.waiting.empty()) {
            users_.erase(user);
        }
    }

    const std::size_t per_user_;
    const std::size_t of_users_;
    Users users_;
    std::deque<std::uint32_t> turns_;  // users with waiting requests
    std::size_t out_ = 0;
};

}  // namespace zc
